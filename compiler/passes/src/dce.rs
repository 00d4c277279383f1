//! Dead code: nodes whose outputs nobody reads are dropped from the order.
//!
//! A node that gives a symbol its value stays while a live node or type speaks of the symbol.

use crate::remark::Remarks;
use lapidary_graph::{Dim, Graph, NodeId, Op, Sym, SymbolOrigin, ValueId};
use std::collections::BTreeSet;

pub fn run(graph: &mut Graph, _: &mut Remarks) -> bool {
    let mut live = vec![false; graph.nodes.len()];
    let mut symbols: BTreeSet<Sym> = BTreeSet::new();
    let mut met: BTreeSet<Sym> = BTreeSet::new();
    let mut stack: Vec<NodeId> = Vec::new();
    let value = |v: ValueId, stack: &mut Vec<NodeId>, symbols: &mut BTreeSet<Sym>| {
        for d in graph.dims(v) {
            d.collect_symbols(symbols);
        }
        stack.extend(graph.producer(v));
    };
    for (_, v) in &graph.outputs {
        value(*v, &mut stack, &mut symbols);
    }
    for v in &graph.inputs {
        value(*v, &mut stack, &mut symbols);
    }
    loop {
        for s in std::mem::take(&mut symbols) {
            if met.insert(s)
                && let Some(SymbolOrigin::Node { node, .. }) =
                    graph.symbols.get(s).map(|s| &s.origin)
            {
                stack.push(*node);
            }
        }
        let Some(n) = stack.pop() else { break };
        if std::mem::replace(&mut live[n.0 as usize], true) {
            continue;
        }
        let node = &graph.nodes[n];
        op_dims(&node.op, &mut |d| d.collect_symbols(&mut symbols));
        for v in node.inputs.iter().flatten() {
            value(*v, &mut stack, &mut symbols);
        }
        for v in &node.outputs {
            for d in graph.dims(*v) {
                d.collect_symbols(&mut symbols);
            }
        }
    }
    let before = graph.order.len();
    graph.order.retain(|n| live[n.0 as usize]);
    graph.order.len() != before
}

/// Calls `f` for every dimension that an operator states.
pub fn op_dims(op: &Op, f: &mut dyn FnMut(&Dim)) {
    match op {
        Op::Pointwise { body, shape } => {
            for n in &body.nodes {
                if let lapidary_graph::PwOp::Dim(d) = &n.op {
                    f(d);
                }
            }
            shape.iter().flatten().for_each(f);
        }
        Op::Shape(dims) | Op::Reshape { shape: dims } | Op::Broadcast { shape: dims } => {
            dims.iter().for_each(f)
        }
        Op::Conv { window, .. } | Op::ConvTranspose { window, .. } => {
            window.pads_begin.iter().chain(&window.pads_end).for_each(f)
        }
        Op::Pool { window, out, .. } => {
            let pads = window.pads_begin.iter().chain(&window.pads_end);
            pads.chain(out).for_each(f)
        }
        Op::Slice { start, size, .. } => start.iter().chain(size).for_each(f),
        Op::Pad { before, after, .. } => before.iter().chain(after).for_each(f),
        _ => {}
    }
}
