//! `FlexAttention`: the graphs over its scores and its probabilities stand inline, as a branch does.

use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use super::RegionNode;
use crate::builder::Builder;
use crate::driver::Import;
use crate::error::{Fail, invalid};
use crate::scope::{Scope, Slot};

impl<'m> Import<'m> {
    /// Attention with graphs over its scores and its probabilities, which are written out in place.
    pub(super) fn flex_attention(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let (q, k, v) = (at.input(0)?, at.input(1)?, at.input(2)?);
        let (dq, dk, dv) = (self.b.dims(q)?, self.b.dims(k)?, self.b.dims(v)?);
        let ([b, hq, s, d], [_, hk, n, _], [_, _, _, e]) =
            (dq.as_slice(), dk.as_slice(), dv.as_slice())
        else {
            return Err(invalid("query, key and value must have rank 4"));
        };
        if hq.modulo(hk).as_const().is_some_and(|rest| rest != 0) {
            return Err(invalid(format!(
                "{} query heads for {} key heads, expected a multiple",
                self.b.g.dim_text(hq),
                self.b.g.dim_text(hk)
            )));
        }
        let t = self.b.dtype(q);
        let wide = match at.attr("softmax_precision") {
            Some(a) => crate::context::dtype(a.i as i32)?,
            None if t == DType::F64 => t,
            None => DType::F32,
        };
        // Both sides take the root of the scale, as the operator's text has it.
        let given = at.attr("scale").map(|a| f64::from(a.f).sqrt());
        let size = d.clone();
        let scaled = |b: &mut Builder, x: ValueId| {
            let size = size.clone();
            b.pw(&[x], move |p, r| {
                let root = match (given, size.as_const()) {
                    (Some(root), _) => p.number(root, t),
                    (None, Some(d)) => p.number((d.max(1) as f64).powf(-0.25), t),
                    (None, None) => {
                        let d = p.push(PwOp::Dim(size), vec![], DType::I64);
                        let d = p.cast(d, DType::F64);
                        let power = p.number(-0.25, DType::F64);
                        let root = p.bin(PwOp::Pow, d, power);
                        p.cast(root, t)
                    }
                };
                p.bin(PwOp::Mul, r[0], root)
            })
        };
        let (q, k) = (scaled(&mut self.b, q)?, scaled(&mut self.b, k)?);
        let group = hq.floor_div(hk);
        let five = |last: &Dim| {
            vec![
                b.clone(),
                hk.clone(),
                group.clone(),
                s.clone(),
                last.clone(),
            ]
        };
        let four = |last: &Dim| vec![b.clone(), hq.clone(), s.clone(), last.clone()];
        let labels = |a: &[u8], b: &[u8], c: &[u8]| (a.to_vec(), b.to_vec(), c.to_vec());
        let q = self.b.reshape(q, five(d))?;
        let scores = self.b.contract(q, k, labels(b"bhgsd", b"bhtd", b"bhgst"))?;
        let scores = self.b.reshape(scores, four(n))?;
        let mut value = self.b.cast(scores, wide)?;
        for (stage, name) in ["score_mod", "prob_mod"].into_iter().enumerate() {
            if let Some(graph) = at.attr(name).and_then(|a| a.g.as_ref()) {
                let [input] = graph.input.as_slice() else {
                    let found = graph.input.len();
                    return Err(invalid(format!("'{name}' has {found} inputs, expected 1")));
                };
                let mut inner = scope.subgraph(format!("{}/{name}/", at.name), self.around.len());
                inner.values.insert(&input.name, Some(value));
                let outs = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
                let Some(outs) = outs else {
                    return Ok(Vec::new());
                };
                let [out] = outs.as_slice() else {
                    let found = outs.len();
                    return Err(invalid(format!("'{name}' has {found} outputs, expected 1")));
                };
                value = self.b.cast(*out, wide)?;
            }
            if stage == 0 {
                let x = self.b.widen(value)?;
                let probs = self.b.emit1(
                    Op::Softmax {
                        axis: 3,
                        log: false,
                    },
                    &[x],
                )?;
                value = self.b.cast(probs, wide)?;
            }
        }
        let v = self.b.cast(v, wide)?;
        let probs = self.b.reshape(value, five(n))?;
        let y = self
            .b
            .contract(probs, v, labels(b"bhgst", b"bhte", b"bhgse"))?;
        let y = self.b.reshape(y, four(e))?;
        Ok(vec![Some(self.b.cast(y, t)?)])
    }
}
