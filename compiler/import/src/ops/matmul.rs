//! Products of matrices, all of them contractions.

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, PwOp, ValueId};

use super::packed;
use crate::context::{Ctx, Outs, broadcasts_to, one, same};
use crate::error::{Fail, invalid, unsupported};

/// Labels of the axes of two operands and of their contraction.
type Labels = (Vec<u8>, Vec<u8>, Vec<u8>);

/// numpy's `matmul`: a vector on either side loses its axis.
pub(crate) fn matmul(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    one(match packed::product(cx, a, b, false)? {
        Some(y) => y,
        None => product(cx, a, b)?,
    })
}

/// `a b` for ranks of 1 and more.
pub(crate) fn product(cx: &mut Ctx, a: ValueId, b: ValueId) -> Result<ValueId, Fail> {
    if [a, b].iter().any(|v| cx.g.ty(*v).rank().is_none()) {
        return cx.matmul_unranked(a, b);
    }
    let (ra, rb) = (cx.rank(a)?, cx.rank(b)?);
    if ra == 0 || rb == 0 || ra.max(rb) > 20 {
        return Err(invalid(format!("operands of rank {ra} and {rb}")));
    }
    if ra > 1 && rb > 1 {
        return cx.matmul(a, b);
    }
    let label = |i: usize| b'a' + i as u8;
    let batch: Vec<u8> = (0..ra.max(rb).saturating_sub(2)).map(label).collect();
    let (m, k) = (label(batch.len()), label(batch.len() + 1));
    let with = |tail: &[u8]| [batch.as_slice(), tail].concat();
    let labels = match (ra, rb) {
        (1, 1) => (vec![k], vec![k], vec![]),
        (1, _) => (vec![k], with(&[k, m]), with(&[m])),
        _ => (with(&[m, k]), vec![k], with(&[m])),
    };
    cx.contract(a, b, labels)
}

/// Labels of the product of two matrices, either transposed.
pub(crate) fn gemm_labels(
    cx: &Ctx,
    a: ValueId,
    b: ValueId,
    (ta, tb): (bool, bool),
) -> Result<Labels, Fail> {
    let pair = |t: bool, x: u8, y: u8| if t { vec![y, x] } else { vec![x, y] };
    if cx.rank(a)? != 2 || cx.rank(b)? != 2 {
        return Err(invalid("an operand is no matrix"));
    }
    let depths = (
        cx.dims(a)?.swap_remove(!ta as usize),
        cx.dims(b)?.swap_remove(tb as usize),
    );
    same("the inner dimensions", &depths.0, &depths.1)?;
    Ok((pair(ta, b'm', b'k'), pair(tb, b'k', b'n'), vec![b'm', b'n']))
}

/// `alpha * a' b' + beta * c`.
pub(crate) fn gemm(cx: &mut Ctx) -> Outs {
    let t = cx.dtype(cx.input(0)?);
    one(gemm_as(cx, t)?)
}

/// The same as this type.
pub(crate) fn gemm_as(cx: &mut Ctx, t: DType) -> Result<ValueId, Fail> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (a, b) = (cx.with_rank(a, 2)?, cx.with_rank(b, 2)?);
    let (ta, tb) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let (alpha, beta) = (
        cx.float("alpha", 1.0)? as f64,
        cx.float("beta", 1.0)? as f64,
    );
    let labels = gemm_labels(cx, a, b, (ta, tb))?;
    let raised = match ta {
        true => None,
        false => packed::product(cx, a, b, tb)?,
    };
    let y = match raised {
        Some(y) => y,
        None => {
            let (wa, wb) = (cx.widen(a)?, cx.widen(b)?);
            cx.contract(wa, wb, labels)?
        }
    };
    if let Some(c) = cx.opt(2) {
        broadcasts_to("C", &cx.dims(c)?, &cx.dims(y)?)?;
    }
    let c = cx.opt(2).filter(|_| beta != 0.0);
    let mut inputs = vec![y];
    inputs.extend(c);
    cx.pw(&inputs, |p, r| {
        // Integer products with fractional factors are scaled as floats.
        let whole = alpha.fract() == 0.0 && beta.fract() == 0.0;
        let s = p.dtype(r[0]);
        let w = if s.is_float() || whole { s } else { DType::F64 };
        let scaled = |p: &mut lapidary_graph::PwBuilder, x, k: f64| {
            let x = p.cast(x, w);
            if k == 1.0 {
                return x;
            }
            let k = p.number(k, w);
            p.bin(PwOp::Mul, x, k)
        };
        let mut y = scaled(p, r[0], alpha);
        if let Some(c) = r.get(1) {
            let c = scaled(p, *c, beta);
            y = p.bin(PwOp::Add, y, c);
        }
        p.cast(y, t)
    })
}

/// Sums of products by labels: operands are contracted from the left, two at a time.
pub(crate) fn einsum(cx: &mut Ctx) -> Outs {
    let inputs = cx.all_inputs()?;
    let equation = cx.string("equation", "")?;
    let mut ranks = Vec::new();
    for v in &inputs {
        ranks.push(cx.rank(*v)?);
    }
    let (terms, out) = parse(equation, &ranks)?;
    let t = match inputs.first() {
        Some(v) => cx.dtype(*v),
        None => return Err(invalid("no operands")),
    };
    let mut items: Vec<(ValueId, Vec<u8>)> = Vec::new();
    for (v, l) in inputs.iter().zip(terms) {
        items.push((cx.widen(*v)?, l));
    }
    let mut rest = items.into_iter();
    let (mut acc, mut labels) = rest.next().ok_or_else(|| invalid("no operands"))?;
    let later: Vec<(ValueId, Vec<u8>)> = rest.collect();
    for (i, (v, l)) in later.iter().enumerate() {
        let needed =
            |x: &u8| out.contains(x) || later.iter().skip(i + 1).any(|(_, m)| m.contains(x));
        let mut next: Vec<u8> = Vec::new();
        for x in labels.iter().chain(l) {
            if needed(x) && !next.contains(x) {
                next.push(*x);
            }
        }
        // The last one may give the result's order at once.
        let full = i + 1 == later.len() && out.iter().all(|x| next.contains(x));
        if full {
            next = out.clone();
        }
        acc = cx.contract(acc, *v, (labels, l.clone(), next.clone()))?;
        labels = next;
    }
    let repeated = labels
        .iter()
        .enumerate()
        .any(|(i, l)| labels[..i].contains(l));
    if repeated {
        // Contracting with 1 walks the diagonal.
        let mut kept: Vec<u8> = Vec::new();
        for l in labels.iter().filter(|l| out.contains(l)) {
            if !kept.contains(l) {
                kept.push(*l);
            }
        }
        let work = cx.dtype(acc);
        let unit = cx.scalar(work, 1.0);
        acc = cx.contract(acc, unit, (labels, vec![], kept.clone()))?;
        labels = kept;
    }
    let gone: Vec<usize> = (0..labels.len())
        .filter(|i| !out.contains(&labels[*i]))
        .collect();
    if !gone.is_empty() {
        acc = cx.reduce(ReduceKind::Sum, acc, gone, false)?;
        labels.retain(|l| out.contains(l));
    }
    let perm: Option<Vec<usize>> = out
        .iter()
        .map(|l| labels.iter().position(|m| m == l))
        .collect();
    let perm = perm.ok_or_else(|| invalid("an output label that no operand has"))?;
    let y = cx.transpose(acc, perm)?;
    one(cx.cast(y, t)?)
}

/// Labels of the operands and of the result. An ellipsis takes labels from 128 on, aligned at the
/// right.
fn parse(equation: &str, ranks: &[usize]) -> Result<(Vec<Vec<u8>>, Vec<u8>), Fail> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (text.as_str(), None),
    };
    let sides: Vec<&str> = left.split(',').collect();
    if sides.len() != ranks.len() {
        return Err(invalid(format!(
            "equation '{equation}' has {} operands, the node {}",
            sides.len(),
            ranks.len()
        )));
    }
    let named = |s: &str| s.bytes().filter(u8::is_ascii_alphabetic).count();
    let good = |s: &str| {
        s.replacen("...", "", 1)
            .bytes()
            .all(|c| c.is_ascii_alphabetic())
    };
    if !sides.iter().all(|s| good(s)) || !right.is_none_or(good) {
        return Err(invalid(format!("equation '{equation}' cannot be read")));
    }
    let mut most = 0;
    for (s, r) in sides.iter().zip(ranks) {
        if s.contains("...") {
            let n = r.checked_sub(named(s));
            most = most.max(n.ok_or_else(|| invalid("an operand has too few axes"))?);
        }
    }
    if most > 64 {
        return Err(unsupported("an ellipsis of more than 64 axes"));
    }
    let dots = |n: usize| (most - n..most).map(|i| 128 + i as u8);
    let expand = |s: &str, n: usize| -> Vec<u8> {
        match s.split_once("...") {
            Some((a, b)) => a.bytes().chain(dots(n)).chain(b.bytes()).collect(),
            None => s.bytes().collect(),
        }
    };
    let mut terms = Vec::new();
    for (s, r) in sides.iter().zip(ranks) {
        let l = expand(s, r.saturating_sub(named(s)).min(most));
        if l.len() != *r {
            return Err(invalid(format!(
                "equation '{equation}' names {} axes of an operand of rank {r}",
                l.len()
            )));
        }
        terms.push(l);
    }
    let out = match right {
        Some(r) => expand(r, most),
        None => {
            let count = |l: u8| terms.iter().flatten().filter(|x| **x == l).count();
            let mut once: Vec<u8> = (b'A'..=b'z').filter(|l| count(*l) == 1).collect();
            once.splice(0..0, dots(most));
            once
        }
    };
    Ok((terms, out))
}
