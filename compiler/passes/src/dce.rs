//! Dead code: nodes whose outputs nobody reads are dropped from the order.
//!
//! A node that gives a symbol its value stays while a live node or type speaks of the symbol.

use crate::remark::Remarks;
use lapidary_graph::{Graph, NodeId, Sym, SymbolOrigin, ValueId};
use std::collections::BTreeSet;

/// The pass; whether it changed the graph.
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
        for d in node.op.dims() {
            d.collect_symbols(&mut symbols);
        }
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
