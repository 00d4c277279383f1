//! The border of regions: what need not cross it does not.
//!
//! * A constant operand becomes a constant of the body, where it can be folded and packed.
//! * A value that every run of a body hands on as it got it becomes a capture, and its result the
//!   initial value, so that nothing is copied run after run.
//! * A result that nobody reads is not made, if no run needs it: those of branches, and scan outputs,
//!   which are not gathered then.
//! * What no body reads is no operand.
//!
//! Bodies themselves are left to the other passes, which run over them later.

use crate::dce;
use crate::remark::Remarks;
use lapidary_graph::op::{BodyArg, Region, RegionKind};
use lapidary_graph::region::{drop_inputs, own_inputs, select_inputs};
use lapidary_graph::{Def, Graph, NodeId, Op, Sym, SymbolOrigin, ValueId};
use std::collections::BTreeSet;

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    let mut changed = false;
    for n in graph.order.clone() {
        if !matches!(graph.nodes[n].op, Op::Region(_)) {
            continue;
        }
        let op = std::mem::replace(&mut graph.nodes[n].op, Op::Shape(Vec::new()));
        if let Op::Region(mut region) = op {
            changed |= constants(graph, n, &mut region);
            changed |= invariants(graph, n, &mut region);
            changed |= dead_results(graph, n, &mut region);
            changed |= operands(graph, n, &mut region);
            graph.nodes[n].op = Op::Region(region);
        }
    }
    if changed {
        dce::run(graph, remarks);
    }
    changed
}

/// Copies constant operands into the bodies.
fn constants(graph: &Graph, n: NodeId, region: &mut Region) -> bool {
    let mut changed = false;
    for body in &mut region.bodies {
        for (arg, v) in body.args.iter().zip(body.graph.inputs.clone()) {
            let BodyArg::Operand(i) = arg else { continue };
            let operand = graph.nodes[n].input(*i);
            let Some(data) = operand.and_then(|v| graph.constant(v)) else {
                continue;
            };
            // One whose sizes are symbols of the body has to give these their values.
            let used = body.graph.is_output(v) || reads(&body.graph, v);
            if used && body.graph.ty(v).const_dims().as_ref() == Some(&data.dims) {
                let name = body.graph.values[v].name.clone();
                let c = body.graph.add_const(name, data.clone());
                body.graph.replace_uses(v, c);
                changed = true;
            }
        }
    }
    changed
}

fn reads(graph: &Graph, v: ValueId) -> bool {
    let mut nodes = graph.order.iter().map(|n| &graph.nodes[*n]);
    nodes.any(|n| n.inputs.contains(&Some(v)))
}

/// Where the values that runs hand on begin: among operands, inputs of the body, its outputs.
fn handed(kind: &RegionKind) -> Option<(usize, usize, usize)> {
    match kind {
        RegionKind::If => None,
        RegionKind::Loop { carried } => Some((*carried, 2, 1)),
        RegionKind::Scan { states, .. } => Some((*states, 0, 0)),
    }
}

/// Turns values that are handed on unchanged into captures.
fn invariants(graph: &mut Graph, n: NodeId, region: &mut Region) -> bool {
    let mut changed = false;
    while let Some((count, first, out)) = handed(&region.kind) {
        let Some(body) = region.bodies.first_mut() else {
            break;
        };
        let unchanged = |k: &usize| {
            let inputs = &body.graph.inputs;
            let handed_on = body.graph.outputs.get(out + k).map(|o| o.1);
            let node = &graph.nodes[n];
            let same = |initial: ValueId| graph.ty(initial) == graph.ty(node.outputs[*k]);
            handed_on == inputs.get(first + k).copied() && node.input(first + k).is_some_and(same)
        };
        let Some(k) = (0..count).find(unchanged) else {
            break;
        };
        let (from, Some(to)) = (graph.nodes[n].outputs[k], graph.nodes[n].input(first + k)) else {
            break;
        };
        // It stays an input, behind those that the region makes.
        let own = first + k;
        let last = body.args.len();
        let mut order: Vec<usize> = (0..last).filter(|i| *i != own).collect();
        order.push(own);
        body.graph.outputs.remove(out + k);
        select_inputs(body, &order);
        // The operand moves to the end; the body may have captured it as well.
        let end = graph.nodes[n].inputs.len() - 1;
        for arg in &mut body.args {
            match arg {
                BodyArg::Operand(i) if *i == own => *i = end,
                BodyArg::Operand(i) if *i > own => *i -= 1,
                _ => {}
            }
        }
        if let Some(arg) = body.args.last_mut() {
            *arg = BodyArg::Operand(end);
        }
        graph.nodes[n].inputs.remove(own);
        graph.nodes[n].inputs.push(Some(to));
        match &mut region.kind {
            RegionKind::Loop { carried } => *carried -= 1,
            RegionKind::Scan { states, .. } => *states -= 1,
            RegionKind::If => {}
        }
        graph.replace_uses(from, to);
        remove_output(graph, n, k);
        changed = true;
    }
    changed
}

/// Takes an output away from a node.
fn remove_output(graph: &mut Graph, n: NodeId, k: usize) {
    graph.nodes[n].outputs.remove(k);
    for (i, v) in graph.nodes[n].outputs.iter().enumerate().skip(k) {
        graph.values[*v].def = Def::Node(n, i as u32);
    }
    for s in graph.symbols.keys() {
        if let SymbolOrigin::Node { node, output, .. } = &mut graph.symbols[s].origin
            && *node == n
        {
            match (*output as usize).cmp(&k) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => *node = NodeId(u32::MAX),
                std::cmp::Ordering::Greater => *output -= 1,
            }
        }
    }
}

/// Takes away results that nobody reads, where the runs can do without them.
fn dead_results(graph: &mut Graph, n: NodeId, region: &mut Region) -> bool {
    let first = match &region.kind {
        RegionKind::If => 0,
        RegionKind::Loop { carried } => *carried,
        RegionKind::Scan { states, .. } => *states,
    };
    let mut changed = false;
    let mut k = first;
    while let Some(v) = graph.nodes[n].outputs.get(k).copied() {
        // The others tell the driver how often it has run.
        let last = graph.nodes[n].outputs.len() == 1;
        if last || reads(graph, v) || graph.is_output(v) || bears_symbols(graph, n, k, v) {
            k += 1;
            continue;
        }
        let out = match &mut region.kind {
            RegionKind::If => k,
            RegionKind::Loop { .. } => k + 1,
            RegionKind::Scan { outputs, .. } => {
                outputs.remove(k - first);
                k
            }
        };
        for body in &mut region.bodies {
            body.graph.outputs.remove(out);
        }
        remove_output(graph, n, k);
        changed = true;
    }
    if changed {
        for body in &mut region.bodies {
            dce::run(&mut body.graph, &mut Remarks::default());
        }
    }
    changed
}

/// Whether a symbol that output `k` of a node gives its value is in use.
fn bears_symbols(graph: &Graph, n: NodeId, k: usize, v: ValueId) -> bool {
    let born = |s: &Sym| {
        matches!(graph.symbols.get(*s).map(|d| &d.origin),
            Some(SymbolOrigin::Node { node, output, .. }) if *node == n && *output as usize == k)
    };
    let mut symbols = BTreeSet::new();
    for d in graph.dims(v) {
        d.collect_symbols(&mut symbols);
    }
    if !symbols.iter().any(born) {
        return false;
    }
    let mut used = BTreeSet::new();
    for node in graph.order.iter().map(|n| &graph.nodes[*n]) {
        for d in node.op.dims() {
            d.collect_symbols(&mut used);
        }
        for other in node.outputs.iter().filter(|o| **o != v) {
            graph
                .dims(*other)
                .iter()
                .for_each(|d| d.collect_symbols(&mut used));
        }
    }
    symbols.iter().filter(|s| born(s)).any(|s| used.contains(s))
}

/// Drops inputs of bodies that nothing reads, and operands that are then no body's input.
fn operands(graph: &mut Graph, n: NodeId, region: &mut Region) -> bool {
    let own = own_inputs(&region.kind);
    let mut changed = false;
    for body in &mut region.bodies {
        changed |= drop_inputs(body, own);
    }
    let fixed = match &region.kind {
        RegionKind::If => 1,
        RegionKind::Loop { .. } | RegionKind::Scan { .. } => own,
    };
    let inputs = &mut graph.nodes[n].inputs;
    let mut used = vec![false; inputs.len()];
    used.iter_mut().take(fixed).for_each(|u| *u = true);
    let args = region.bodies.iter().flat_map(|b| &b.args);
    for arg in args {
        if let BodyArg::Operand(i) = arg
            && let Some(used) = used.get_mut(*i)
        {
            *used = true;
        }
    }
    if used.iter().all(|u| *u) {
        return changed;
    }
    let mut kept = used.iter();
    inputs.retain(|_| kept.next() == Some(&true));
    let number = |i: usize| used.iter().take(i).filter(|u| **u).count();
    for arg in region.bodies.iter_mut().flat_map(|b| &mut b.args) {
        if let BodyArg::Operand(i) = arg {
            *i = number(*i);
        }
    }
    true
}
