//! Topological order: sorting nodes again after a rewrite, and the cheap check that the driver
//! makes after each pass.

use lapidary_graph::{Def, Graph, NodeId};
use std::collections::BTreeSet;

/// Sorts `graph.order` so that each node follows its inputs' producers, staying as near as may be
/// to the present order.
pub fn sort(graph: &mut Graph) {
    let position: Vec<usize> = {
        let mut p = vec![usize::MAX; graph.nodes.len()];
        for (i, n) in graph.order.iter().enumerate() {
            p[n.0 as usize] = i;
        }
        p
    };
    let edges: Vec<Vec<usize>> = graph
        .order
        .iter()
        .map(|n| {
            let inputs = graph.nodes[*n].inputs.iter().flatten();
            inputs
                .filter_map(|v| graph.producer(*v))
                .map(|p| position[p.0 as usize])
                .filter(|p| *p != usize::MAX)
                .collect()
        })
        .collect();
    let order: Vec<NodeId> = topological(&edges)
        .into_iter()
        .map(|i| graph.order[i])
        .collect();
    graph.order = order;
}

/// An order of `0..before.len()` in which each item follows those it lists, least index first
/// where there is a choice. Items on a cycle are left out.
pub fn topological(before: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = Vec::with_capacity(before.len());
    let mut after = vec![Vec::new(); before.len()];
    for (i, b) in before.iter().enumerate() {
        missing.push(b.len());
        for p in b {
            after[*p].push(i);
        }
    }
    let mut ready: BTreeSet<usize> = (0..before.len()).filter(|i| missing[*i] == 0).collect();
    let mut out = Vec::with_capacity(before.len());
    while let Some(i) = ready.pop_first() {
        out.push(i);
        for j in &after[i] {
            missing[*j] -= 1;
            if missing[*j] == 0 {
                ready.insert(*j);
            }
        }
    }
    out
}

/// Whether each node follows its inputs' producers and owns its outputs; the message names the
/// ONNX node.
pub fn check(graph: &Graph) -> Result<(), String> {
    let mut seen = vec![false; graph.nodes.len()];
    let defined = |seen: &[bool], v| match graph.values.get(v).map(|v| &v.def) {
        None => false,
        Some(Def::Node(n, _)) => seen[n.0 as usize],
        Some(_) => true,
    };
    for n in &graph.order {
        let node = &graph.nodes[*n];
        for v in node.inputs.iter().flatten() {
            if !defined(&seen, *v) {
                return Err(format!(
                    "node `{}` ({}) reads {v} before it is defined",
                    node.name(),
                    node.op.name()
                ));
            }
        }
        for (i, v) in node.outputs.iter().enumerate() {
            if graph.values.get(*v).map(|v| &v.def) != Some(&Def::Node(*n, i as u32)) {
                return Err(format!(
                    "node `{}` does not own its output {v}",
                    node.name()
                ));
            }
        }
        if std::mem::replace(&mut seen[n.0 as usize], true) {
            return Err(format!("node `{}` is listed twice", node.name()));
        }
    }
    match graph.outputs.iter().find(|(_, v)| !defined(&seen, *v)) {
        Some((name, v)) => Err(format!("graph output `{name}` ({v}) is not defined")),
        None => Ok(()),
    }
}
