//! `If`, `Loop`, `Scan`, and `SequenceMap`, which becomes a Loop: their bodies as graphs of their own.
//!
//! A body is imported as the model is, one level deeper (see [`crate::scope`]). The types of values
//! that one run of a body hands to the next are found by widening: a body begins with the types of
//! the initial values; where its outputs have others, what differs is made free, and the body is
//! imported anew, until nothing differs. Each round frees something, so it ends.
//! A condition that is known takes its branch inline. See `docs/regions.md`.

use std::collections::HashMap;

use lapidary_graph::op::{Body, BodyArg, Region, RegionKind};
use lapidary_graph::region::{drop_inputs, own_inputs};
use lapidary_graph::verify::type_text;
use lapidary_graph::{Container, DType, Dim, Op, PwOp, TensorData, TensorType, ValueId};
use lapidary_onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, type_proto};

use crate::builder::{Builder, LibOut};
use crate::containers::Element;
use crate::context::axis;
use crate::dims::at_least_0;
use crate::driver::{Import, MAX_DEPTH};
use crate::error::{Fail, invalid, unsupported};
use crate::ops::{optional, sequence};
use crate::scope::{Border, Found, Scope, Slot};

/// A node that runs graphs.
pub(crate) struct RegionNode<'m, 'a> {
    pub node: &'m NodeProto,
    pub name: &'a str,
    pub opset: i64,
    pub inputs: Vec<Slot>,
    pub attrs: Vec<(&'m str, &'m AttributeProto)>,
}

impl<'m> RegionNode<'m, '_> {
    fn attr(&self, name: &str) -> Option<&'m AttributeProto> {
        let found = self.attrs.iter().find(|(n, _)| *n == name);
        found.map(|(_, a)| *a)
    }
    fn graph(&self, name: &str) -> Result<&'m GraphProto, Fail> {
        let graph = self.attr(name).and_then(|a| a.g.as_ref());
        graph.ok_or_else(|| invalid(format!("attribute '{name}' is missing")))
    }
    /// A list with one entry for each of `n`; `default` where it is left out.
    fn ints(&self, name: &str, n: usize, default: i64) -> Result<Vec<i64>, Fail> {
        match self.attr(name) {
            None => Ok(vec![default; n]),
            Some(a) if a.ints.len() == n => Ok(a.ints.clone()),
            Some(a) => Err(invalid(format!(
                "attribute '{name}' has {} entries, expected {n}",
                a.ints.len()
            ))),
        }
    }
    fn input(&self, i: usize) -> Result<ValueId, Fail> {
        let v = self.inputs.get(i).copied().flatten();
        v.ok_or_else(|| invalid(format!("input {i} is missing")))
    }
    fn opt(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
}

/// A body that has been imported.
struct Made {
    b: Builder,
    border: Border,
    outs: Vec<ValueId>,
}

impl Made {
    fn ty(&self, output: usize) -> Option<&TensorType> {
        self.outs.get(output).map(|v| self.b.g.ty(*v))
    }
    /// The type of an output for the graph around.
    fn out(&self, output: usize) -> LibOut {
        let Some(v) = self.outs.get(output) else {
            return LibOut::unranked(DType::F32);
        };
        let ty = self.b.g.ty(*v);
        let dims = ty.shape.as_ref();
        LibOut {
            dtype: ty.dtype,
            dims: dims.map(|dims| dims.iter().map(|d| self.border.to_outer(d)).collect()),
            containers: ty.containers.clone(),
            element: self.b.containers.element(*v),
        }
    }
}

/// An input that the region makes.
struct Own<'m> {
    /// The name that the body has for it.
    info: Option<&'m ValueInfoProto>,
    name: String,
    ty: LibOut,
}

/// The type of a value as it stands.
fn stated(b: &Builder, v: ValueId) -> LibOut {
    let ty = b.g.ty(v);
    LibOut {
        dtype: ty.dtype,
        dims: ty
            .shape
            .as_ref()
            .map(|dims| dims.iter().cloned().map(Some).collect()),
        containers: ty.containers.clone(),
        element: b.containers.element(v),
    }
}

/// Frees what differs between a value's type before and after a run of a body; whether anything did.
fn widen(
    what: &str,
    place: &mut LibOut,
    before: (&Builder, ValueId),
    after: (&Builder, ValueId),
) -> Result<bool, Fail> {
    let (a, z) = (before.0.g.ty(before.1), after.0.g.ty(after.1));
    if a.dtype != z.dtype || a.containers != z.containers {
        return Err(invalid(format!(
            "{what} is {} before the body and {} after it",
            type_text(&before.0.g, a),
            type_text(&after.0.g, z)
        )));
    }
    let was = place.clone();
    let element = after.0.containers.element(after.1);
    place.element = place.element.join(&element);
    match (&mut place.dims, &z.shape) {
        (Some(dims), Some(out)) if dims.len() == out.len() => {
            for ((place, a), z) in dims.iter_mut().zip(a.dims()).zip(out) {
                if a.equals(z) != Some(true) {
                    *place = None;
                }
            }
        }
        (dims, _) => *dims = None,
    }
    Ok(*place != was)
}

impl<'m> Import<'m> {
    /// A value of any level in the graph being made.
    pub(crate) fn capture(&mut self, mut v: ValueId, level: usize) -> ValueId {
        for at in level + 1..=self.around.len() {
            let (left, right) = self.around.split_at_mut(at);
            let Some((outer, _)) = left.last_mut() else {
                return v;
            };
            v = match right.first_mut() {
                Some((inner, border)) => border.capture(outer, inner, v),
                None => self.border.capture(outer, &mut self.b, v),
            };
        }
        v
    }

    /// Works inside of a scope that sees this one.
    fn inside<R>(
        &mut self,
        scope: &mut Scope<'m>,
        mut inner: Scope<'m>,
        work: impl FnOnce(&mut Self, &mut Scope<'m>) -> R,
    ) -> R {
        inner.around = Some(Box::new(std::mem::take(scope)));
        let result = work(self, &mut inner);
        if let Some(around) = inner.around.take() {
            *scope = *around;
        }
        result
    }

    fn open(&mut self, name: &str) {
        let b = std::mem::replace(&mut self.b, Builder::new(name));
        self.around.push((b, std::mem::take(&mut self.border)));
    }

    fn close(&mut self, outs: Vec<ValueId>) -> Made {
        let (b, border) = match self.around.pop() {
            Some(around) => around,
            None => (Builder::new(""), Border::default()),
        };
        Made {
            b: std::mem::replace(&mut self.b, b),
            border: std::mem::replace(&mut self.border, border),
            outs,
        }
    }

    /// A new input of the body that is open.
    fn own_input(&mut self, name: &str, ty: &LibOut) -> ValueId {
        match self.around.last() {
            Some((outer, _)) => self.border.input(outer, &mut self.b, name, ty),
            None => self.b.g.add_input(name, TensorType::unranked(ty.dtype)),
        }
    }

    /// The nodes of a subgraph, and its outputs; `None` if any of them is broken.
    fn subgraph(&mut self, graph: &'m GraphProto, scope: &mut Scope<'m>) -> Option<Vec<ValueId>> {
        self.initializers(graph, scope);
        self.nodes(&graph.node, scope);
        let mut outs = Vec::with_capacity(graph.output.len());
        for o in &graph.output {
            match scope.find(&o.name) {
                Some(Found::Value(Some(v), level)) => outs.push(self.capture(v, level)),
                Some(Found::Value(None, _)) => return None,
                Some(Found::Absent) | None => {
                    let f = invalid("an output of a subgraph that nothing defines");
                    self.fail_value(&o.name, f);
                    return None;
                }
            }
        }
        Some(outs)
    }

    /// Imports the body of a node with these inputs of its own; `None` if it is broken.
    fn body(
        &mut self,
        graph: &'m GraphProto,
        prefix: &str,
        own: &[Own<'m>],
        scope: &mut Scope<'m>,
    ) -> Option<Made> {
        self.open(&graph.name);
        let mut inner = scope.subgraph(format!("{prefix}/"), self.around.len());
        for o in own {
            let v = self.own_input(&o.name, &o.ty);
            if let Some(info) = o.info {
                inner.values.insert(&info.name, Some(v));
            }
        }
        let outs = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
        let made = self.close(outs.clone().unwrap_or_default());
        outs.map(|_| made)
    }

    /// Ends the bodies and appends their region. Operands that the bodies have captured come behind
    /// the given ones.
    fn region_node(
        &mut self,
        kind: RegionKind,
        bodies: Vec<Made>,
        names: &[Vec<String>],
        mut operands: Vec<Slot>,
        outs: Vec<LibOut>,
    ) -> Vec<ValueId> {
        let own = own_inputs(&kind);
        let mut at: HashMap<ValueId, usize> = HashMap::new();
        for (i, v) in operands.iter().enumerate() {
            if let Some(v) = v {
                at.entry(*v).or_insert(i);
            }
        }
        let mut done = Vec::with_capacity(bodies.len());
        for (mut made, names) in bodies.into_iter().zip(names) {
            for (v, name) in made.outs.iter().zip(names) {
                let taken = |n: &String| made.b.g.outputs.iter().any(|(other, _)| other == n);
                let mut name = name.clone();
                while taken(&name) {
                    name.push('\'');
                }
                made.b.g.outputs.push((name, *v));
            }
            made.b.drop_dead();
            let args = (0..own).map(|_| BodyArg::Own);
            let captured = (0..made.border.captured.len()).map(BodyArg::Operand);
            let mut body = Body {
                args: args.chain(captured).collect(),
                graph: made.b.g,
            };
            drop_inputs(&mut body, own);
            for arg in &mut body.args {
                if let BodyArg::Operand(i) = arg
                    && let Some(v) = made.border.captured.get(*i)
                {
                    let next = operands.len();
                    let operand = *at.entry(*v).or_insert(next);
                    if operand == next {
                        operands.push(Some(*v));
                    }
                    *i = operand;
                }
            }
            done.push(body);
        }
        let region = Region { kind, bodies: done };
        self.b.stated(Op::Region(Box::new(region)), operands, outs)
    }

    /// Imports a node that runs graphs.
    pub(crate) fn region(
        &mut self,
        at: RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        if self.depth >= MAX_DEPTH {
            return Err(invalid(format!("graphs nest deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let made = match at.node.op_type.as_str() {
            "If" => self.branches(&at, scope),
            "Loop" => self.repeat(&at, scope),
            "Scan" => self.scan(&at, scope),
            "FlexAttention" => self.flex_attention(&at, scope),
            _ => self.sequence_map(&at, scope),
        };
        self.depth -= 1;
        made
    }

    // ---- FlexAttention --------------------------------------------------------------------------

    /// Attention with graphs over its scores and its probabilities, which are written out in place.
    fn flex_attention(
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

    // ---- If ------------------------------------------------------------------------------------

    fn branches(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let cond = at.input(0)?;
        scalar_of(&self.b, cond, DType::Bool, "the condition")?;
        let names = ["then_branch", "else_branch"];
        if let Some(c) = self.b.known_scalar(cond).and_then(|d| d.as_const()) {
            let graph = at.graph(names[usize::from(c == 0)])?;
            let inner = scope.subgraph(format!("{}/", at.name), self.around.len());
            let outs = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
            return Ok(outs.unwrap_or_default().into_iter().map(Some).collect());
        }
        let (mut bodies, mut out_names) = (Vec::new(), Vec::new());
        let mut broken = false;
        for name in names {
            let graph = at.graph(name)?;
            match self.body(graph, at.name, &[], scope) {
                Some(made) => bodies.push(made),
                None => broken = true,
            }
            out_names.push(graph.output.iter().map(|o| o.name.clone()).collect());
        }
        let [yes, no] = bodies.as_slice() else {
            return Ok(Vec::new());
        };
        if broken {
            return Ok(Vec::new());
        }
        if yes.outs.len() != no.outs.len() {
            let (yes, no) = (yes.outs.len(), no.outs.len());
            return Err(invalid(format!("the branches have {yes} and {no} outputs")));
        }
        let mut outs = Vec::with_capacity(yes.outs.len());
        for i in 0..yes.outs.len() {
            let (mut a, b) = (yes.out(i), no.out(i));
            if a.dtype != b.dtype || a.containers != b.containers {
                let text = |m: &Made| m.ty(i).map_or(String::new(), |t| type_text(&m.b.g, t));
                return Err(invalid(format!(
                    "output {i} is {} of the one branch and {} of the other",
                    text(yes),
                    text(no)
                )));
            }
            a.element = a.element.join(&b.element);
            match (&mut a.dims, &b.dims) {
                (Some(dims), Some(others)) if dims.len() == others.len() => {
                    for (d, other) in dims.iter_mut().zip(others) {
                        if d != other {
                            *d = None;
                        }
                    }
                }
                (dims, _) => *dims = None,
            }
            outs.push(a);
        }
        let made = self.region_node(RegionKind::If, bodies, &out_names, vec![Some(cond)], outs);
        Ok(made.into_iter().map(Some).collect())
    }

    // ---- Loop ----------------------------------------------------------------------------------

    fn repeat(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = at.graph("body")?;
        let (trip, cond) = (at.opt(0), at.opt(1));
        if let Some(trip) = trip {
            scalar_of(&self.b, trip, DType::I64, "the trip count")?;
        }
        if let Some(cond) = cond {
            scalar_of(&self.b, cond, DType::Bool, "the condition")?;
        }
        let carried = at.inputs.len().saturating_sub(2);
        let initial: Vec<ValueId> = (0..carried)
            .map(|i| at.input(2 + i))
            .collect::<Result<_, _>>()?;
        if graph.input.len() != 2 + carried || graph.output.len() < 1 + carried {
            return Err(invalid(format!(
                "{carried} carried values, but a body of {} inputs and {} outputs",
                graph.input.len(),
                graph.output.len()
            )));
        }
        let places: Vec<LibOut> = initial.iter().map(|v| stated(&self.b, *v)).collect();
        let mut unwrapped = vec![false; carried];
        let made = self.widened(places, carried, (2, 1), |im, places| {
            im.loop_body(graph, at.name, places, &mut unwrapped, scope)
        })?;
        let Some((made, places)) = made else {
            return Ok(Vec::new());
        };
        let mut made = made;
        let goes_on = made.outs.first().copied();
        if let Some(v) = goes_on {
            scalar_of(&made.b, v, DType::Bool, "the body's condition")?;
        }
        // Whether it ends at the trip count and not before. Without a condition that of the body is
        // not looked at.
        let always = |b: &mut Builder, v: Option<ValueId>| {
            v.is_none_or(|v| b.known_scalar(v).is_some_and(|d| d.is_const(1)))
        };
        let counted = cond.is_none() || (always(&mut self.b, cond) && always(&mut made.b, goes_on));
        let trips = trip.filter(|_| counted);
        let trips = trips.and_then(|t| self.b.known_scalar(t));
        let trips = trips.map(|t| at_least_0(&t));
        let mut outs = places;
        for o in 1 + carried..made.outs.len() {
            outs.push(stacked(made.out(o), trips.clone(), 0)?);
        }
        let mut operands = vec![trip, cond];
        operands.extend(initial.iter().map(|v| Some(*v)));
        let names = vec![graph.output.iter().map(|o| o.name.clone()).collect()];
        let kind = RegionKind::Loop { carried };
        let mut made = self.region_node(kind, vec![made], &names, operands, outs);
        for (v, unwrap) in made.iter_mut().zip(unwrapped) {
            if unwrap {
                *v = optional::unwrap(&mut self.b, *v)?;
            }
        }
        Ok(made.into_iter().map(Some).collect())
    }

    /// One attempt at the body of a Loop.
    fn loop_body(
        &mut self,
        graph: &'m GraphProto,
        prefix: &str,
        places: &[LibOut],
        unwrapped: &mut [bool],
        scope: &mut Scope<'m>,
    ) -> Option<Made> {
        self.open(&graph.name);
        let mut inner = scope.subgraph(format!("{prefix}/"), self.around.len());
        let mut formals = graph.input.iter();
        // The iteration and the condition are scalars; a body may speak of them as vectors of one.
        for dtype in [DType::I64, DType::Bool] {
            let Some(info) = formals.next() else {
                continue;
            };
            let mut v = self.own_input(&info.name, &LibOut::fixed(dtype, []));
            let dims = match declared_rank(info) {
                Some(1) => vec![1],
                _ => vec![],
            };
            self.b.start(prefix.to_string(), info.name.clone());
            if dtype == DType::Bool {
                // Where the body runs, it is true.
                v = self.b.constant(yes(dims));
            } else if !dims.is_empty() {
                match self.b.reshape(v, vec![Dim::Const(1)]) {
                    Ok(made) => v = made,
                    Err(f) => self.fail_value(&info.name, f),
                }
            }
            inner.values.insert(&info.name, Some(v));
        }
        for (info, place) in formals.zip(places) {
            let v = self.own_input(&info.name, place);
            inner.values.insert(&info.name, Some(v));
        }
        let mut outs = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
        // A body may take an optional and give what is in one; it is handed on as an optional.
        self.b.start(prefix.to_string(), prefix.to_string());
        let carried = outs.iter_mut().flatten().skip(1);
        for ((v, place), unwrapped) in carried.zip(places).zip(unwrapped) {
            let ty = self.b.g.ty(*v);
            *unwrapped = place.containers.first() == Some(&Container::Optional)
                && place.containers.get(1..) == Some(ty.containers.as_slice());
            if *unwrapped {
                match optional::wrap(&mut self.b, *v) {
                    Ok(wrapped) => *v = wrapped,
                    Err(f) => self.fail_value(prefix, f),
                }
            }
        }
        let made = self.close(outs.clone().unwrap_or_default());
        outs.map(|_| made)
    }

    /// Imports a body again and again, until the values handed from run to run have types that last.
    /// The first of them is input `from.0` and output `from.1` of the body.
    fn widened(
        &mut self,
        mut places: Vec<LibOut>,
        handed: usize,
        from: (usize, usize),
        mut attempt: impl FnMut(&mut Self, &[LibOut]) -> Option<Made>,
    ) -> Result<Option<(Made, Vec<LibOut>)>, Fail> {
        let mut first_errors = None;
        loop {
            let errors = self.errors.len();
            let counts = self.counts.clone();
            let Some(made) = attempt(self, &places) else {
                // Types that are too narrow can be what is wrong: once more with all sizes free.
                let found = self.errors.split_off(errors);
                let free = |p: &LibOut| p.dims.iter().flatten().any(Option::is_some);
                if first_errors.is_none() && places.iter().take(handed).any(free) {
                    first_errors = Some(found);
                    self.counts = counts;
                    for place in places.iter_mut().take(handed) {
                        place.dims.iter_mut().flatten().for_each(|d| *d = None);
                    }
                    continue;
                }
                self.errors.extend(first_errors.unwrap_or(found));
                return Ok(None);
            };
            let (input, output) = from;
            let mut changed = false;
            for (i, place) in places.iter_mut().take(handed).enumerate() {
                let (Some(before), Some(after)) =
                    (made.b.g.inputs.get(input + i), made.outs.get(output + i))
                else {
                    return Err(invalid("a body with too few inputs or outputs"));
                };
                let what = format!("carried value {i}");
                changed |= widen(&what, place, (&made.b, *before), (&made.b, *after))?;
            }
            if !changed {
                places.truncate(handed);
                return Ok(Some((made, places)));
            }
            self.counts = counts;
        }
    }

    // ---- Scan ----------------------------------------------------------------------------------

    fn scan(&mut self, at: &RegionNode<'m, '_>, scope: &mut Scope<'m>) -> Result<Vec<Slot>, Fail> {
        let graph = at.graph("body")?;
        let scanned = at.attr("num_scan_inputs").map_or(0, |a| a.i);
        let lengths = usize::from(at.opset < 9);
        let n = at.inputs.len().saturating_sub(lengths);
        let scanned = usize::try_from(scanned)
            .ok()
            .filter(|s| (1..=n).contains(s));
        let scanned = scanned.ok_or_else(|| invalid("attribute 'num_scan_inputs' is wrong"))?;
        let states = n - scanned;
        if graph.input.len() != n || graph.output.len() < states {
            return Err(invalid(format!(
                "{n} operands, but a body of {} inputs and {} outputs",
                graph.input.len(),
                graph.output.len()
            )));
        }
        let operands: Vec<ValueId> = (0..n)
            .map(|i| at.input(lengths + i))
            .collect::<Result<_, _>>()?;
        let outputs = graph.output.len() - states;
        let flags = |list: Vec<i64>| -> Vec<bool> { list.iter().map(|v| *v != 0).collect() };
        if lengths == 0 {
            let spec = ScanSpec {
                graph,
                prefix: at.name,
                states,
                in_axes: at.ints("scan_input_axes", scanned, 0)?,
                in_reverse: flags(at.ints("scan_input_directions", scanned, 0)?),
                out_axes: at.ints("scan_output_axes", outputs, 0)?,
                out_reverse: flags(at.ints("scan_output_directions", outputs, 0)?),
            };
            let made = self.scan_region(&spec, &operands, scope)?;
            return Ok(made.into_iter().map(Some).collect());
        }
        // The first version scans each element of a batch (the first axis of all operands).
        if at.opt(0).is_some() {
            return Err(unsupported("sequences of different lengths in a batch")
                .hint("opset 9 has no batch axis and no lengths"));
        }
        let spec = ScanSpec {
            graph,
            prefix: at.name,
            states,
            in_axes: vec![0; scanned],
            in_reverse: flags(at.ints("directions", scanned, 0)?),
            out_axes: vec![0; outputs],
            out_reverse: vec![false; outputs],
        };
        let mut slices = Vec::with_capacity(n);
        for (i, v) in operands.iter().enumerate() {
            slices.push((format!("batch.{i}"), slice_of(&self.b, *v, 0)?));
        }
        self.open(at.name);
        let slices: Vec<ValueId> = slices
            .iter()
            .map(|(name, ty)| self.own_input(name, ty))
            .collect();
        self.b.start(at.name.to_string(), at.name.to_string());
        let inner = self.scan_region(&spec, &slices, scope);
        let made = self.close(inner.as_ref().cloned().unwrap_or_default());
        if inner?.is_empty() {
            return Ok(Vec::new());
        }
        let batch = operands.first().map(|v| self.b.g.dims(*v));
        let batch = batch.and_then(|dims| dims.first().cloned());
        let mut outs = Vec::new();
        for o in 0..made.outs.len() {
            outs.push(stacked(made.out(o), batch.clone(), 0)?);
        }
        let kind = RegionKind::Scan {
            states: 0,
            inputs: vec![(0, false); n],
            outputs: vec![(0, false); made.outs.len()],
        };
        let names = vec![graph.output.iter().map(|o| o.name.clone()).collect()];
        let operands = operands.into_iter().map(Some).collect();
        let made = self.region_node(kind, vec![made], &names, operands, outs);
        Ok(made.into_iter().map(Some).collect())
    }

    /// A Scan over operands of the graph being made; empty if its body is broken.
    fn scan_region(
        &mut self,
        spec: &ScanSpec<'m, '_>,
        operands: &[ValueId],
        scope: &mut Scope<'m>,
    ) -> Result<Vec<ValueId>, Fail> {
        let (initial, scanned) = operands.split_at(spec.states.min(operands.len()));
        let mut places: Vec<LibOut> = initial.iter().map(|v| stated(&self.b, *v)).collect();
        let (mut inputs, mut length) = (Vec::new(), None);
        for ((v, a), reverse) in scanned.iter().zip(&spec.in_axes).zip(&spec.in_reverse) {
            let a = match self.b.g.ty(*v).rank() {
                Some(rank) => axis(*a, rank)?,
                None => usize::try_from(*a).map_err(|_| {
                    unsupported("an axis from the end of a value whose rank is not known")
                })?,
            };
            length = length.or(self.b.g.dims(*v).get(a).cloned());
            places.push(slice_of(&self.b, *v, a)?);
            inputs.push((a, *reverse));
        }
        let made = self.widened(places, spec.states, (0, 0), |im, places| {
            let own: Vec<Own<'m>> = spec
                .graph
                .input
                .iter()
                .zip(places)
                .map(|(info, ty)| Own {
                    info: Some(info),
                    name: info.name.clone(),
                    ty: ty.clone(),
                })
                .collect();
            im.body(spec.graph, spec.prefix, &own, scope)
        })?;
        let Some((made, mut outs)) = made else {
            return Ok(Vec::new());
        };
        let mut outputs = Vec::new();
        let scans = spec.out_axes.iter().zip(&spec.out_reverse);
        for (o, (a, reverse)) in (spec.states..made.outs.len()).zip(scans) {
            outs.push(stacked(made.out(o), length.clone(), *a)?);
            outputs.push((*a, *reverse));
        }
        let kind = RegionKind::Scan {
            states: spec.states,
            inputs,
            outputs,
        };
        let names = vec![spec.graph.output.iter().map(|o| o.name.clone()).collect()];
        let operands = operands.iter().map(|v| Some(*v)).collect();
        Ok(self.region_node(kind, vec![made], &names, operands, outs))
    }

    // ---- SequenceMap ---------------------------------------------------------------------------

    /// A Loop over the positions of the first sequence: what the body makes of the elements there is
    /// put at the end of new sequences.
    fn sequence_map(
        &mut self,
        at: &RegionNode<'m, '_>,
        scope: &mut Scope<'m>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = at.graph("body")?;
        let n = at.inputs.len();
        let inputs: Vec<ValueId> = (0..n).map(|i| at.input(i)).collect::<Result<_, _>>()?;
        let is_sequence =
            |b: &Builder, v: ValueId| b.g.ty(v).containers.first() == Some(&Container::Sequence);
        let Some(first) = inputs.first().copied().filter(|v| is_sequence(&self.b, *v)) else {
            return Err(invalid("input 0 is no sequence"));
        };
        if graph.input.len() != n {
            return Err(invalid(format!(
                "{n} inputs, but a body of {}",
                graph.input.len()
            )));
        }
        let carried = graph.output.len();
        let length = sequence::make_length(&mut self.b, first)?;
        let level = self.around.len();
        self.open(&graph.name);
        let position = self.own_input("position", &LibOut::fixed(DType::I64, []));
        self.own_input("go", &LibOut::fixed(DType::Bool, []));
        // Of which type the sequences are is known when the body is.
        let sequences: Vec<ValueId> = (0..carried)
            .map(|o| self.own_input(&format!("mapped.{o}"), &LibOut::unranked(DType::F32)))
            .collect();
        self.b.start(at.name.to_string(), at.name.to_string());
        let mut inner = scope.subgraph(format!("{}/", at.name), level + 1);
        for (info, v) in graph.input.iter().zip(&inputs) {
            let mut v = self.capture(*v, level);
            if is_sequence(&self.b, v) {
                v = element_for(&mut self.b, info, v, position);
            }
            inner.values.insert(&info.name, Some(v));
        }
        let results = self.inside(scope, inner, |im, scope| im.subgraph(graph, scope));
        self.b.start(at.name.to_string(), at.name.to_string());
        let mut outs = vec![self.b.constant(yes(Vec::new()))];
        let mut types = Vec::new();
        for (v, s) in results.iter().flatten().zip(&sequences) {
            let inside = self.b.g.ty(*v).clone();
            let element = match inside.is_tensor() {
                true => Element::of(&inside),
                false => self.b.containers.element(*v),
            };
            let ty = inside.inside(Container::Sequence);
            self.b.g.values[*s].ty = ty.clone();
            let out = LibOut::inside(ty.dtype, ty.containers, element);
            types.push(out.clone());
            let operands = vec![Some(*s), Some(*v), None];
            let made = self
                .b
                .library("sequence_insert", vec![], vec![], operands, vec![out]);
            outs.extend(made);
        }
        let made = self.close(outs);
        if results.is_none() {
            return Ok(Vec::new());
        }
        let mut operands = vec![Some(length), None];
        for ty in &types {
            operands.push(Some(sequence::make_empty(&mut self.b, ty.dtype)?));
        }
        let mut names = vec!["go".to_string()];
        names.extend(graph.output.iter().map(|o| o.name.clone()));
        let kind = RegionKind::Loop { carried };
        let made = self.region_node(kind, vec![made], &[names], operands, types);
        Ok(made.into_iter().map(Some).collect())
    }
}

/// A Scan as the newer opsets have it.
struct ScanSpec<'m, 'a> {
    graph: &'m GraphProto,
    prefix: &'a str,
    states: usize,
    in_axes: Vec<i64>,
    in_reverse: Vec<bool>,
    out_axes: Vec<i64>,
    out_reverse: Vec<bool>,
}

/// The constant true.
fn yes(dims: Vec<i64>) -> TensorData {
    TensorData {
        dtype: DType::Bool,
        dims,
        bytes: vec![1u8].into(),
        strings: Vec::new(),
    }
}

/// The rank that a body states for an input.
fn declared_rank(info: &ValueInfoProto) -> Option<usize> {
    match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(t) => Some(t.shape.as_ref()?.dim.len()),
        _ => None,
    }
}

/// The element of a sequence that is an input of a body. Where nothing else tells its rank, the body's
/// own statement does; that it holds is tested when the element is read.
fn element_for(b: &mut Builder, info: &ValueInfoProto, s: ValueId, position: ValueId) -> ValueId {
    let mut element = b.containers.element(s);
    if element == Element::Any
        && let Some(rank) = declared_rank(info).filter(|r| *r > 0)
    {
        element = Element::Dims(vec![None; rank]);
    }
    let out = sequence::taken(b.g.ty(s), &element);
    let inputs = vec![Some(s), Some(position)];
    let made = b.library("sequence_at", vec![], vec![], inputs, vec![out]);
    made.first().copied().unwrap_or(s)
}

/// Ends what is no number or flag of this type.
fn scalar_of(b: &Builder, v: ValueId, dtype: DType, what: &str) -> Result<(), Fail> {
    let ty = b.g.ty(v);
    let one = ty.rank().is_none_or(|r| r <= 1);
    if ty.dtype != dtype || !ty.is_tensor() || !one {
        let found = type_text(&b.g, ty);
        return Err(invalid(format!("{what} is {found}, expected one {dtype}")));
    }
    Ok(())
}

/// What one run of a body reads of a value that is scanned along an axis.
fn slice_of(b: &Builder, v: ValueId, axis: usize) -> Result<LibOut, Fail> {
    let mut ty = stated(b, v);
    if !ty.containers.is_empty() {
        let found = type_text(&b.g, b.g.ty(v));
        return Err(invalid(format!(
            "a scanned input is {found}, expected a tensor"
        )));
    }
    if let Some(dims) = &mut ty.dims {
        if axis >= dims.len() {
            return Err(invalid(format!(
                "axis {axis} is out of range for rank {}",
                dims.len()
            )));
        }
        dims.remove(axis);
    }
    Ok(ty)
}

/// The type of so many values of a type, stacked along a new axis.
fn stacked(mut ty: LibOut, count: Option<Dim>, at: i64) -> Result<LibOut, Fail> {
    if !ty.containers.is_empty() {
        return Err(invalid("a scan output is no tensor"));
    }
    if let Some(dims) = &mut ty.dims {
        let at = axis(at, dims.len() + 1)?;
        dims.insert(at, count);
    }
    Ok(ty)
}
