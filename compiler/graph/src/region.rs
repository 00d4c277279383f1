//! What must hold between a region, its bodies, its operands and its results.
//!
//! Bodies are graphs of their own, so the verifier checks them as such; here stands the border: how
//! many operands, inputs and outputs each kind of region has, and that their types fit. Dimensions
//! belong to different symbols on the two sides, so only numbers are compared.

use crate::op::{Body, BodyArg, Region, RegionKind};
use crate::verify::type_text;
use crate::{DType, Def, Dim, Graph, NodeData, NodeId, Sym, SymbolOrigin, TensorType, ValueId};
use std::collections::BTreeSet;

/// Inputs at the front of each body that the region makes.
pub fn own_inputs(kind: &RegionKind) -> usize {
    match kind {
        RegionKind::If => 0,
        RegionKind::Loop { carried } => 2 + carried,
        RegionKind::Scan { states, inputs, .. } => states + inputs.len(),
    }
}

/// Everything that does not fit, as text; empty for a good region.
pub(crate) fn problems(graph: &Graph, node: &NodeData, region: &Region) -> Vec<String> {
    let mut check = Check {
        graph,
        node,
        found: Vec::new(),
    };
    let bodies = match region.kind {
        RegionKind::If => 2,
        _ => 1,
    };
    if region.bodies.len() != bodies {
        let n = region.bodies.len();
        check.problem(format!("expected {bodies} bodies, found {n}"));
        return check.found;
    }
    for (b, body) in region.bodies.iter().enumerate() {
        check.args(b, body, own_inputs(&region.kind));
        match &region.kind {
            RegionKind::If => check.branch(b, body),
            RegionKind::Loop { carried } => check.repeat(body, *carried),
            RegionKind::Scan {
                states,
                inputs,
                outputs,
            } => check.scan(body, *states, inputs, outputs.len()),
        }
    }
    check.found
}

struct Check<'a> {
    graph: &'a Graph,
    node: &'a NodeData,
    found: Vec<String>,
}

impl<'a> Check<'a> {
    fn problem(&mut self, text: String) {
        self.found.push(text);
    }

    fn operand(&self, i: usize) -> Option<&'a TensorType> {
        let graph = self.graph;
        let v = self.node.input(i)?;
        graph.values.get(v).map(|d| &d.ty)
    }

    /// Whether a value of one type may stand where the other is expected.
    fn fits(&mut self, what: &str, from: (&Graph, &TensorType), to: (&Graph, &TensorType)) {
        let (value, place) = (from.1, to.1);
        let dims = match (&value.shape, &place.shape) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(a), Some(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|(a, b)| {
                        let both = a.as_const().zip(b.as_const());
                        both.is_none_or(|(a, b)| a == b)
                    })
            }
        };
        if value.dtype != place.dtype || value.containers != place.containers || !dims {
            let (found, expected) = (type_text(from.0, value), type_text(to.0, place));
            self.problem(format!("{what}: expected {expected}, found {found}"));
        }
    }

    fn args(&mut self, b: usize, body: &Body, own: usize) {
        let inputs = body.graph.inputs.len();
        if body.args.len() != inputs {
            let n = body.args.len();
            self.problem(format!("body {b} has {inputs} inputs and {n} arguments"));
        }
        if inputs < own {
            self.problem(format!("body {b} has {inputs} inputs, expected {own}"));
        }
        for (i, (arg, v)) in body.args.iter().zip(&body.graph.inputs).enumerate() {
            match arg {
                BodyArg::Own if i < own => {}
                BodyArg::Operand(o) if i >= own => {
                    let Some(found) = self.operand(*o) else {
                        self.problem(format!("body {b}, input {i}: there is no operand {o}"));
                        continue;
                    };
                    let what = format!("operand {o} as input {i} of body {b}");
                    let Some(input) = body.graph.values.get(*v) else {
                        continue;
                    };
                    self.fits(&what, (self.graph, found), (&body.graph, &input.ty));
                }
                _ => self.problem(format!(
                    "body {b}, input {i}: the first {own} inputs, and no others, are the region's own"
                )),
            }
        }
    }

    fn count(&mut self, what: &str, found: usize, expected: usize) -> bool {
        if found != expected {
            self.problem(format!("expected {expected} {what}, found {found}"));
        }
        found == expected
    }

    /// Result `output` of the region is output `from` of the body, with so many more axes.
    fn result(&mut self, body: &Body, from: usize, output: usize, more: usize) {
        let (Some((_, v)), Some(out)) = (
            body.graph.outputs.get(from),
            self.node
                .outputs
                .get(output)
                .and_then(|v| self.graph.values.get(*v)),
        ) else {
            return;
        };
        let made = body.graph.ty(*v);
        let rank = match (made.rank(), out.ty.rank()) {
            (_, None) => true,
            (Some(made), Some(out)) => made + more == out,
            (None, Some(_)) => false,
        };
        let container = made.containers != out.ty.containers || (more > 0 && !made.is_tensor());
        if made.dtype != out.ty.dtype || container || !rank {
            let (found, stated) = (type_text(&body.graph, made), type_text(self.graph, &out.ty));
            self.problem(format!("output {output}: {stated}, made of {found}"));
        }
    }

    fn branch(&mut self, b: usize, body: &Body) {
        let n = self.node.outputs.len();
        if !self.count(&format!("outputs of body {b}"), body.graph.outputs.len(), n) {
            return;
        }
        match self.operand(0) {
            Some(c) if c.dtype == DType::Bool && c.is_tensor() => {}
            _ => self.problem("operand 0 is no condition".into()),
        }
        for i in 0..n {
            self.result(body, i, i, 0);
        }
    }

    /// The values that one run of a body hands to the next: input `input`, at first operand
    /// `operand`, output `output`, result `result`.
    fn handed(&mut self, body: &Body, input: usize, operand: usize, output: usize, result: usize) {
        let graph = &body.graph;
        let Some(place) = graph.inputs.get(input).and_then(|v| graph.values.get(*v)) else {
            return;
        };
        match self.operand(operand) {
            Some(initial) => {
                let what = format!("operand {operand}, the initial value {result}");
                self.fits(&what, (self.graph, initial), (graph, &place.ty));
            }
            None => self.problem(format!("operand {operand}, an initial value, is absent")),
        }
        if let Some((_, v)) = graph.outputs.get(output) {
            let what = format!("output {output} of the body, handed to its input {input}");
            self.fits(&what, (graph, graph.ty(*v)), (graph, &place.ty));
        }
        self.result(body, output, result, 0);
    }

    fn repeat(&mut self, body: &Body, carried: usize) {
        let outputs = self.node.outputs.len();
        let counted = self.count("outputs of the body", body.graph.outputs.len(), outputs + 1);
        if !counted || outputs < carried {
            return;
        }
        for (i, dtype) in [DType::I64, DType::Bool].into_iter().enumerate() {
            let place = body.graph.inputs.get(i).map(|v| body.graph.ty(*v));
            if place.is_none_or(|t| t.dtype != dtype || t.rank() != Some(0)) {
                self.problem(format!("input {i} of the body is no scalar of {dtype}"));
            }
            if self.operand(i).is_some_and(|t| t.dtype != dtype) {
                self.problem(format!("operand {i} is not of {dtype}"));
            }
        }
        for i in 0..carried {
            self.handed(body, 2 + i, 2 + i, 1 + i, i);
        }
        for i in carried..outputs {
            self.result(body, 1 + i, i, 1);
        }
    }

    fn scan(&mut self, body: &Body, states: usize, inputs: &[(usize, bool)], scans: usize) {
        let outputs = self.node.outputs.len();
        let counted = self.count("outputs of the region", outputs, states + scans);
        if !counted || !self.count("outputs of the body", body.graph.outputs.len(), outputs) {
            return;
        }
        if inputs.is_empty() {
            self.problem("nothing is scanned".into());
        }
        for i in 0..states {
            self.handed(body, i, i, i, i);
        }
        for (i, (axis, _)) in inputs.iter().enumerate() {
            let graph = &body.graph;
            let slice = graph.inputs.get(states + i).map(|v| graph.ty(*v));
            let (Some(whole), Some(slice)) = (self.operand(states + i), slice) else {
                self.problem(format!("scanned input {i} is absent"));
                continue;
            };
            let ranks = match (whole.rank(), slice.rank()) {
                (Some(w), Some(s)) => w == s + 1 && *axis < w,
                (Some(w), None) => *axis < w,
                (None, slice) => slice.is_none(),
            };
            let tensors = whole.is_tensor() && slice.is_tensor();
            if whole.dtype != slice.dtype || !ranks || !tensors {
                let (w, s) = (type_text(self.graph, whole), type_text(graph, slice));
                self.problem(format!("scanned input {i}: {w} in slices of {s}"));
            }
        }
        for i in states..outputs {
            self.result(body, i, i, 1);
        }
    }
}

/// Drops inputs of a body that nothing reads, from behind the region's own. One that gives a symbol its
/// value stays while the symbol is in use. Whether any was dropped.
pub fn drop_inputs(body: &mut Body, own: usize) -> bool {
    let graph = &body.graph;
    let n = graph.inputs.len();
    let mut keep = vec![false; n];
    keep.iter_mut().take(own).for_each(|k| *k = true);
    let mut symbols = BTreeSet::new();
    let read = |v: &ValueId, keep: &mut Vec<bool>, symbols: &mut BTreeSet<Sym>| {
        graph
            .dims(*v)
            .iter()
            .for_each(|d| d.collect_symbols(symbols));
        if let Some(i) = graph.inputs.iter().position(|i| i == v) {
            keep[i] = true;
        }
    };
    for node in graph.order.iter().map(|n| &graph.nodes[*n]) {
        for v in node.inputs.iter().flatten().chain(&node.outputs) {
            read(v, &mut keep, &mut symbols);
        }
        for d in node.op.dims() {
            d.collect_symbols(&mut symbols);
        }
    }
    for (_, v) in &graph.outputs {
        read(v, &mut keep, &mut symbols);
    }
    let bears = |input: usize, s: Sym| {
        let v = graph.inputs.get(input).copied();
        v.is_some_and(|v| graph.dims(v).contains(&Dim::from(s)))
    };
    // What stays may speak of symbols that only others give.
    loop {
        for (v, _) in graph.inputs.iter().zip(&keep).filter(|(_, k)| **k) {
            graph
                .dims(*v)
                .iter()
                .for_each(|d| d.collect_symbols(&mut symbols));
        }
        let missing = symbols
            .iter()
            .find_map(|s| match graph.symbols.get(*s)?.origin {
                SymbolOrigin::Input { input, .. } => {
                    let given = (0..n).any(|i| keep[i] && bears(i, *s));
                    (!given && keep.get(input as usize) == Some(&false)).then_some(input as usize)
                }
                SymbolOrigin::Node { .. } => None,
            });
        match missing {
            Some(input) => keep[input] = true,
            None => break,
        }
    }
    if keep.iter().all(|k| *k) {
        return false;
    }
    let kept: Vec<usize> = (0..n).filter(|i| keep[*i]).collect();
    select_inputs(body, &kept);
    true
}

/// Gives a body those of its inputs that stand at these positions, in this order. What is left out must
/// not be read, and another input must give the symbols in use that it gives.
pub fn select_inputs(body: &mut Body, positions: &[usize]) {
    let graph = &mut body.graph;
    let inputs: Vec<ValueId> = positions.iter().map(|i| graph.inputs[*i]).collect();
    body.args = positions.iter().map(|i| body.args[*i]).collect();
    graph.inputs = inputs;
    for (i, v) in graph.inputs.iter().enumerate() {
        graph.values[*v].def = Def::Input(i as u32);
    }
    for s in graph.symbols.keys() {
        let SymbolOrigin::Input { input, axis } = graph.symbols[s].origin else {
            continue;
        };
        let own = positions.iter().position(|p| *p == input as usize);
        let own = own.map(|i| (i as u32, axis));
        let bearer = own.or_else(|| {
            graph.inputs.iter().enumerate().find_map(|(i, v)| {
                let axis = graph.dims(*v).iter().position(|d| *d == Dim::from(s))?;
                Some((i as u32, axis as u32))
            })
        });
        graph.symbols[s].origin = match bearer {
            Some((input, axis)) => SymbolOrigin::Input { input, axis },
            None => SymbolOrigin::Node {
                node: NodeId(u32::MAX),
                output: 0,
                axis: 0,
            },
        };
    }
}
