//! The graph's invariants, checked; and what is left to check at run time.
//!
//! [`verify`] runs after the importer and after each pass. It accepts what it cannot decide (two
//! dimensions that may or may not be equal); [`run_time_checks`] lists exactly those relations, and
//! the driver tests them before the node that needs them runs.

use crate::infer::{self, CheckKind, InferError};
use crate::op::Region;
use crate::{
    Atom, Container, Def, Dim, Graph, NodeData, NodeId, Op, Sym, SymbolOrigin, TensorType, ValueId,
    region,
};
use std::collections::{BTreeSet, HashSet};

/// A broken invariant, with the place in the graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct VerifyError {
    /// `node n3 '/layer.0/MatMul'`, `value %7 'x'`, …
    pub place: String,
    /// The invariant.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// An id that no table has.
    #[error("refers to {0}, which does not exist")]
    Dangling(String),
    /// A value or symbol that has none yet.
    #[error("reads {0} before it is defined")]
    Order(String),
    /// A live node stands in the order once.
    #[error("is listed {0} times in the execution order")]
    Listed(usize),
    /// A value's [`Def`] and what the graph has there differ.
    #[error("is not the definition that {0} names")]
    Definition(String),
    /// Shape inference refuses the node.
    #[error("{text}")]
    Infer {
        /// Why.
        source: InferError,
        /// The same with the symbols' names.
        text: String,
    },
    /// A node has more or fewer outputs than its operator makes.
    #[error("expected {expected} outputs, found {found}")]
    Outputs {
        /// How many types inference gives.
        expected: usize,
        /// How many outputs there are.
        found: usize,
    },
    /// An output's stated type is not the one that follows.
    #[error("output {output}: expected type {expected}, found {found}")]
    Type {
        /// The output's number.
        output: usize,
        /// The type that follows.
        expected: String,
        /// The type that is stated.
        found: String,
    },
    /// A constant's bytes do not fit its type.
    #[error("constant data: expected {expected}, found {found}")]
    Data {
        /// What the type asks for.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A symbol that nothing gives a value.
    #[error("symbol {symbol}: {why}")]
    Symbol {
        /// Its name.
        symbol: String,
        /// What is wrong with its origin.
        why: &'static str,
    },
    /// Callers find outputs by name.
    #[error("two graph outputs have this name")]
    OutputName,
    /// A body or its arguments break a rule of docs/regions.md.
    #[error("{0}")]
    Region(String),
}

/// A relation that the driver tests before `node` runs.
#[derive(Clone, PartialEq, Debug)]
pub struct DimCheck {
    /// The node that is right only where it holds.
    pub node: NodeId,
    /// The axis of the node's operand or result that it is about.
    pub axis: usize,
    /// One side, known before the node runs.
    pub left: Dim,
    /// The other.
    pub right: Dim,
    /// The relation.
    pub kind: CheckKind,
}

struct Verifier<'a> {
    graph: &'a Graph,
    errors: Vec<VerifyError>,
    defined: Vec<bool>,
    /// Symbols that have a value at this point of the order.
    symbols: BTreeSet<Sym>,
}

/// Checks every invariant; all violations are reported.
pub fn verify(graph: &Graph) -> Result<(), Vec<VerifyError>> {
    let mut v = Verifier {
        graph,
        errors: Vec::new(),
        defined: vec![false; graph.values.len()],
        symbols: BTreeSet::new(),
    };
    v.inputs();
    v.constants();
    v.defaults();
    v.nodes();
    v.outputs();
    if v.errors.is_empty() {
        Ok(())
    } else {
        Err(v.errors)
    }
}

fn value_place(graph: &Graph, v: ValueId) -> String {
    match graph.values.get(v) {
        Some(d) => format!("value {v} '{}'", d.name),
        None => format!("value {v}"),
    }
}

/// How errors name a node.
pub(crate) fn node_place(graph: &Graph, n: NodeId) -> String {
    match graph.nodes.get(n) {
        Some(d) => format!("node {n} '{}'", d.name()),
        None => format!("node {n}"),
    }
}

/// `f32[batch, 3]` with the symbols' names; `seq(f32[*])`, `opt(…)` and `map(string, …)` for containers.
pub fn type_text(graph: &Graph, t: &TensorType) -> String {
    if let Some(outer) = t.containers.first() {
        let inner = type_text(graph, &t.element());
        return match outer {
            Container::Sequence => format!("seq({inner})"),
            Container::Optional => format!("opt({inner})"),
            Container::Map(key) => format!("map({key}, {inner})"),
        };
    }
    let dims = match &t.shape {
        None => "*".to_string(),
        Some(d) => d
            .iter()
            .map(|d| graph.dim_text(d))
            .collect::<Vec<_>>()
            .join(", "),
    };
    format!("{}[{dims}]", t.dtype)
}

impl Verifier<'_> {
    fn report(&mut self, place: String, problem: Problem) {
        let error = VerifyError { place, problem };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
    fn define(&mut self, v: ValueId) {
        if let Some(d) = self.defined.get_mut(v.0 as usize) {
            *d = true;
        }
    }
    fn inputs(&mut self) {
        for (i, v) in self.graph.inputs.iter().enumerate() {
            match self.graph.values.get(*v) {
                None => self.report("graph".into(), Problem::Dangling(format!("value {v}"))),
                Some(d) if d.def != Def::Input(i as u32) => {
                    let problem = Problem::Definition(format!("input {i}"));
                    self.report(value_place(self.graph, *v), problem);
                }
                Some(_) => self.define(*v),
            }
        }
        for (s, data) in self.graph.symbols.iter() {
            if let SymbolOrigin::Input { input, axis } = data.origin {
                let at = self.graph.inputs.get(input as usize);
                match at.and_then(|v| self.graph.values.get(*v)) {
                    Some(v) if v.ty.dims().get(axis as usize) == Some(&Dim::from(s)) => {
                        self.symbols.insert(s);
                    }
                    _ => self.report(
                        "graph".into(),
                        Problem::Symbol {
                            symbol: data.name.clone(),
                            why: "the input axis that should give its value is not this symbol",
                        },
                    ),
                }
            }
        }
        for v in &self.graph.inputs {
            if let Some(d) = self.graph.values.get(*v) {
                let place = value_place(self.graph, *v);
                self.dims_known(&place, d.ty.dims());
            }
        }
    }
    /// A default is a constant of its input's type; free dims take what it has.
    fn defaults(&mut self) {
        let mut seen = BTreeSet::new();
        for (input, v) in &self.graph.defaults {
            let of = self.graph.inputs.get(*input as usize);
            let ty = of.and_then(|i| self.graph.values.get(*i)).map(|d| &d.ty);
            let (Some(ty), true) = (ty, seen.insert(*input)) else {
                let problem = Problem::Definition(format!("the default of input {input}"));
                self.report("graph".into(), problem);
                continue;
            };
            let data = self.graph.values.get(*v).and_then(|d| match &d.def {
                Def::Const(t) => Some(t),
                _ => None,
            });
            let Some(data) = data else {
                let problem = Problem::Definition(format!("the default of input {input}"));
                self.report(value_place(self.graph, *v), problem);
                continue;
            };
            if !ty.takes(data) {
                let expected = type_text(self.graph, ty);
                let found = format!("{}{:?}", data.dtype, data.dims);
                self.report(
                    value_place(self.graph, *v),
                    Problem::Data { expected, found },
                );
            }
        }
    }
    fn constants(&mut self) {
        for (v, data) in self.graph.values.iter() {
            let Def::Const(t) = &data.def else { continue };
            self.define(v);
            let place = value_place(self.graph, v);
            let stated = data.ty.const_dims();
            if stated.as_ref() != Some(&t.dims) || data.ty.dtype != t.dtype {
                let found = format!("{}{:?}", t.dtype, t.dims);
                let expected = type_text(self.graph, &data.ty);
                self.report(place.clone(), Problem::Data { expected, found });
            }
            let count = t.dims.iter().try_fold(1usize, |n, d| {
                usize::try_from(*d).ok().and_then(|d| n.checked_mul(d))
            });
            let (expected, found) = match t.dtype {
                crate::DType::String => (count, t.strings.len()),
                d => (count.and_then(|n| n.checked_mul(d.bytes())), t.bytes.len()),
            };
            if expected != Some(found) {
                let expected = expected.map_or("dimensions >= 0".into(), |e| format!("{e} bytes"));
                let found = format!("{found}, dimensions {:?}", t.dims);
                self.report(place, Problem::Data { expected, found });
            }
        }
    }
    fn dims_known(&mut self, place: &str, dims: &[Dim]) {
        let mut used = BTreeSet::new();
        for d in dims {
            d.collect_symbols(&mut used);
        }
        for s in used.difference(&self.symbols.clone()) {
            let (symbol, why) = match self.graph.symbols.get(*s) {
                Some(d) => (d.name.clone(), "has no value yet at this node"),
                None => (format!("s{}", s.0), "is not in the symbol table"),
            };
            self.report(place.to_string(), Problem::Symbol { symbol, why });
        }
    }
    fn nodes(&mut self) {
        let mut listed = vec![0usize; self.graph.nodes.len()];
        for n in &self.graph.order {
            match listed.get_mut(n.0 as usize) {
                Some(l) => *l += 1,
                None => {
                    self.report("graph".into(), Problem::Dangling(format!("node {n}")));
                    continue;
                }
            }
            if listed[n.0 as usize] == 1 {
                self.node(*n);
            }
        }
        for (n, count) in listed.into_iter().enumerate() {
            if count > 1 {
                let place = node_place(self.graph, NodeId(n as u32));
                self.report(place, Problem::Listed(count));
            }
        }
    }
    fn node(&mut self, n: NodeId) {
        let (graph, node) = (self.graph, &self.graph.nodes[n]);
        let place = node_place(graph, n);
        let mut readable = true;
        for v in node.inputs.iter().flatten() {
            let problem = match self.defined.get(v.0 as usize) {
                None => Problem::Dangling(format!("value {v}")),
                Some(false) => Problem::Order(value_place(graph, *v)),
                Some(true) => continue,
            };
            readable &= !matches!(problem, Problem::Dangling(_));
            self.report(place.clone(), problem);
        }
        self.dims_known(&place, &node.op.dims());
        for (i, v) in node.outputs.iter().enumerate() {
            match graph.values.get(*v) {
                None => {
                    readable = false;
                    self.report(place.clone(), Problem::Dangling(format!("value {v}")));
                }
                Some(d) if d.def != Def::Node(n, i as u32) => {
                    let problem = Problem::Definition(value_place(graph, *v));
                    self.report(place.clone(), problem);
                }
                Some(_) => self.define(*v),
            }
        }
        self.births(n);
        if !readable {
            return;
        }
        for v in &node.outputs {
            self.dims_known(&place, graph.dims(*v));
        }
        if let Op::Region(region) = &node.op {
            self.region(&place, node, region);
        }
        match infer_node(graph, n) {
            None => {}
            Some(Err(source)) => {
                let text = source.text(graph);
                self.report(place, Problem::Infer { source, text });
            }
            Some(Ok((types, _))) => {
                if types.len() != node.outputs.len() {
                    let (expected, found) = (types.len(), node.outputs.len());
                    self.report(place, Problem::Outputs { expected, found });
                    return;
                }
                for (output, (t, v)) in types.iter().zip(&node.outputs).enumerate() {
                    if !compatible(t, graph.ty(*v)) {
                        let problem = Problem::Type {
                            output,
                            expected: type_text(graph, t),
                            found: type_text(graph, graph.ty(*v)),
                        };
                        self.report(place.clone(), problem);
                    }
                }
            }
        }
    }
    /// The border of a region, and its bodies.
    fn region(&mut self, place: &str, node: &NodeData, region: &Region) {
        let mut good = true;
        for (b, body) in region.bodies.iter().enumerate() {
            for error in verify(&body.graph).err().into_iter().flatten() {
                good = false;
                let place = format!("{place}, body {b} '{}', {}", body.graph.name, error.place);
                self.report(place, error.problem);
            }
        }
        // What the border speaks of must be there.
        if good {
            for problem in region::problems(self.graph, node, region) {
                self.report(place.to_string(), Problem::Region(problem));
            }
        }
    }
    /// Symbols that get their value from this node's outputs.
    fn births(&mut self, n: NodeId) {
        for (s, data) in self.graph.symbols.iter() {
            let SymbolOrigin::Node { node, output, axis } = data.origin else {
                continue;
            };
            if node != n {
                continue;
            }
            let value = self.graph.nodes[n].outputs.get(output as usize);
            let at = value.and_then(|v| self.graph.values.get(*v));
            match at {
                Some(v) if v.ty.dims().get(axis as usize) == Some(&Dim::from(s)) => {
                    self.symbols.insert(s);
                }
                _ => {
                    let problem = Problem::Symbol {
                        symbol: data.name.clone(),
                        why: "the output axis that should give its value is not this symbol",
                    };
                    self.report(node_place(self.graph, n), problem);
                }
            }
        }
    }
    fn outputs(&mut self) {
        let mut names = HashSet::new();
        for (name, v) in &self.graph.outputs {
            let place = format!("output '{name}'");
            match self.defined.get(v.0 as usize) {
                None => self.report(place.clone(), Problem::Dangling(format!("value {v}"))),
                Some(false) => {
                    let problem = Problem::Order(value_place(self.graph, *v));
                    self.report(place.clone(), problem);
                }
                Some(true) => {}
            }
            if !names.insert(name) {
                self.report(place, Problem::OutputName);
            }
        }
    }
}

type Inferred = Result<(Vec<TensorType>, Vec<infer::Requirement>), InferError>;

/// Types of a node's outputs from those of its inputs; `None` for library calls.
fn infer_node(graph: &Graph, n: NodeId) -> Option<Inferred> {
    let node = graph.nodes.get(n)?;
    if matches!(node.op, Op::Library(_) | Op::Region(_)) {
        return None;
    }
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for i in &node.inputs {
        inputs.push(match i {
            Some(v) => Some(&graph.values.get(*v)?.ty),
            None => None,
        });
    }
    Some(infer::output_types_and_requirements(&node.op, &inputs))
}

/// Whether a stated type can be the inferred one.
fn compatible(inferred: &TensorType, stated: &TensorType) -> bool {
    inferred.dtype == stated.dtype
        && match (&inferred.shape, &stated.shape) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b) != Some(false))
            }
            _ => true,
        }
}

/// The relations between dimensions that could not be proved, each once, at the first node that
/// needs it. Expects a verified graph.
pub fn run_time_checks(graph: &Graph) -> Vec<DimCheck> {
    let mut seen = HashSet::new();
    let mut checks = Vec::new();
    let mut add = |node: NodeId, axis: usize, left: &Dim, right: &Dim, kind: CheckKind| {
        let symmetric = matches!(kind, CheckKind::Equal | CheckKind::Broadcastable);
        let (left, right) = if symmetric && right < left {
            (right, left)
        } else {
            (left, right)
        };
        if seen.insert((left.clone(), right.clone(), kind)) {
            checks.push(DimCheck {
                node,
                axis,
                left: left.clone(),
                right: right.clone(),
                kind,
            });
        }
    };
    for n in &graph.order {
        let Some(node) = graph.nodes.get(*n) else {
            continue;
        };
        // A stated `broadcast(a, b)` has no value where a and b do not agree.
        for (axis, d) in node.op.dims().iter().enumerate() {
            d.visit_atoms(&mut |a| {
                if let Atom::Broadcast(a, b) = a {
                    add(*n, axis, a, b, CheckKind::Broadcastable);
                }
            });
        }
        let Some(Ok((types, needs))) = infer_node(graph, *n) else {
            continue;
        };
        for r in needs {
            add(*n, r.axis, &r.left, &r.right, r.kind);
        }
        for (t, v) in types.iter().zip(&node.outputs) {
            for (axis, (a, b)) in t.dims().iter().zip(graph.dims(*v)).enumerate() {
                if a.equals(b) != Some(true) {
                    add(*n, axis, a, b, CheckKind::Equal);
                }
            }
        }
    }
    checks
}

/// One check as text, with the symbols' names.
pub fn check_text(graph: &Graph, c: &DimCheck) -> String {
    let relation = match c.kind {
        CheckKind::Equal => "==",
        CheckKind::Broadcastable => "broadcastable with",
        CheckKind::BroadcastsTo => "broadcasts to",
        CheckKind::AtMost => "<=",
    };
    format!(
        "{}, axis {}: {} {relation} {}",
        node_place(graph, c.node),
        c.axis,
        graph.dim_text(&c.left),
        graph.dim_text(&c.right)
    )
}
