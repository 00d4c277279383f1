//! `If`, `Loop`, `Scan`, and `SequenceMap`, which becomes a Loop: their bodies as graphs of their own.
//! Here stands what they share: bodies, captures, widening; each operator has a file.
//!
//! A body is imported as the model is, one level deeper (see [`crate::scope`]). The types of values
//! that one run of a body hands to the next are found by widening: a body begins with the types of
//! the initial values; where its outputs have others, what differs is made free, and the body is
//! imported anew, until nothing differs. Each round frees something, so it ends.
//! A condition that is known takes its branch inline. See `docs/regions.md`.

mod branches;
mod flex_attention;
mod repeat;
mod scan;
mod sequence_map;

use std::collections::HashMap;

use lapidary_graph::op::{Body, BodyArg, Region, RegionKind};
use lapidary_graph::region::{drop_inputs, own_inputs};
use lapidary_graph::verify::type_text;
use lapidary_graph::{DType, Dim, Op, TensorData, TensorType, ValueId};
use lapidary_onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, type_proto};

use crate::builder::{Builder, LibOut};
use crate::containers::Element;
use crate::context::axis;
use crate::declared;
use crate::driver::{Import, MAX_DEPTH};
use crate::error::{Fail, invalid};
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
        if self.options.strict {
            scope.declared = declared::inner(graph);
        }
        self.initializers(graph, scope);
        self.nodes(&graph.node, scope);
        let mut outs = Vec::with_capacity(graph.output.len());
        for o in &graph.output {
            match scope.find(&o.name) {
                Some(Found::Value(Some(v), level)) => {
                    let v = self.capture(v, level);
                    let stated = o.r#type.as_ref().filter(|_| self.options.strict);
                    if let Some(stated) = stated
                        && let Err(f) = declared::compare(&self.b.g, v, stated)
                    {
                        self.fail_value(&o.name, f);
                        return None;
                    }
                    outs.push(v);
                }
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

    /// Imports a body again and again, until the values handed from run to run have types that last.
    /// The first of them is input `from.0` and output `from.1` of the body.
    ///
    /// A loop inside of a body (of this name) is met in each of these rounds. It begins where it ended before, so that
    /// depth does not multiply the rounds.
    fn widened(
        &mut self,
        body: (&str, &'m GraphProto),
        mut places: Vec<LibOut>,
        handed: usize,
        from: (usize, usize),
        mut attempt: impl FnMut(&mut Self, &[LibOut]) -> Option<Made>,
    ) -> Result<Option<(Made, Vec<LibOut>)>, Fail> {
        let mut first_errors = None;
        let key = (body.0.to_string(), std::ptr::from_ref(body.1));
        let before = self.freed.get(&key);
        for (place, freed) in places.iter_mut().zip(before.into_iter().flatten()) {
            freed.apply(place);
        }
        let freed = |places: &[LibOut]| places.iter().take(handed).map(Freed::of).collect();
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
                self.freed.insert(key, freed(&places));
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
                self.freed.insert(key, freed(&places));
                places.truncate(handed);
                return Ok(Some((made, places)));
            }
            self.counts = counts;
        }
    }
}

/// What widening took from the type of a carried value.
pub(crate) struct Freed {
    /// Which sizes; `None`: the rank.
    dims: Option<Vec<bool>>,
    element: Element,
}

impl Freed {
    fn of(place: &LibOut) -> Freed {
        let dims = place.dims.as_ref();
        Freed {
            dims: dims.map(|dims| dims.iter().map(Option::is_none).collect()),
            element: place.element.clone(),
        }
    }
    fn apply(&self, place: &mut LibOut) {
        match (&mut place.dims, &self.dims) {
            (dims, None) => *dims = None,
            (Some(dims), Some(free)) if dims.len() == free.len() => {
                for (dim, _) in dims.iter_mut().zip(free).filter(|(_, free)| **free) {
                    *dim = None;
                }
            }
            _ => {}
        }
        place.element = place.element.join(&self.element);
    }
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
