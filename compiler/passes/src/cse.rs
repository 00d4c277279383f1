//! Common subexpressions: nodes of the same operator and inputs become one, and so do equal
//! constants (exporters repeat them by the hundred; equal weights are then stored once).
//!
//! Library calls are left alone: their output dimensions are symbols of their own, and a random
//! generator is no function of its inputs.

use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::{Def, Graph, NodeId, Op, TensorData, ValueId};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    let constants = equal_constants(graph);
    let mut seen: HashMap<(String, Vec<Option<ValueId>>), Vec<NodeId>> = HashMap::new();
    Rewriter::run(graph, remarks, |rw, n| {
        for i in 0..rw.graph.nodes[n].inputs.len() {
            if let Some(v) = rw.graph.nodes[n].inputs[i]
                && let Some(to) = constants.get(&v)
            {
                rw.graph.nodes[n].inputs[i] = Some(*to);
                rw.note_use(*to);
                rw.touch();
            }
        }
        let node = &rw.graph.nodes[n];
        if matches!(node.op, Op::Library(_) | Op::Region(_) | Op::Trees(_)) {
            return;
        }
        let key = (node.op.name().to_string(), node.inputs.clone());
        let same = seen.entry(key).or_default();
        let twin = same.iter().copied().find(|m| {
            let other = &rw.graph.nodes[*m];
            other.op == node.op
                && other.outputs.len() == node.outputs.len()
                && other
                    .outputs
                    .iter()
                    .zip(&node.outputs)
                    .all(|(a, b)| rw.graph.ty(*a) == rw.graph.ty(*b))
        });
        match twin {
            None => same.push(n),
            Some(m) => {
                let pairs: Vec<_> = node
                    .outputs
                    .iter()
                    .copied()
                    .zip(rw.graph.nodes[m].outputs.iter().copied())
                    .collect();
                for (from, to) in pairs {
                    rw.replace(from, to);
                }
            }
        }
    })
}

/// Each constant that equals an earlier one, with that one.
fn equal_constants(graph: &Graph) -> HashMap<ValueId, ValueId> {
    let mut used = vec![false; graph.values.len()];
    for n in &graph.order {
        for v in graph.nodes[*n].inputs.iter().flatten() {
            used[v.0 as usize] = true;
        }
    }
    let mut first: HashMap<u64, Vec<ValueId>> = HashMap::new();
    let mut map = HashMap::new();
    for (v, data) in graph.values.iter() {
        let Def::Const(t) = &data.def else { continue };
        if !used[v.0 as usize] {
            continue;
        }
        let same = first.entry(sample(t)).or_default();
        let twin = same
            .iter()
            .find(|w| graph.constant(**w).is_some_and(|u| equal(t, u)));
        match twin {
            Some(w) => {
                map.insert(v, *w);
            }
            None => same.push(v),
        }
    }
    map
}

/// Hash of a constant's type and of bytes at its start, middle and end: three pages of a mapped file.
fn sample(t: &TensorData) -> u64 {
    let mut h = DefaultHasher::new();
    (t.dtype, &t.dims, t.bytes.len()).hash(&mut h);
    t.strings.hash(&mut h);
    let n = t.bytes.len();
    for start in [0, n / 2, n.saturating_sub(256)] {
        t.bytes[start..n.min(start + 256)].hash(&mut h);
    }
    h.finish()
}

fn equal(a: &TensorData, b: &TensorData) -> bool {
    a.dtype == b.dtype
        && a.dims == b.dims
        && a.strings == b.strings
        && (a.bytes.as_ptr() == b.bytes.as_ptr() && a.bytes.len() == b.bytes.len()
            || a.bytes == b.bytes)
}
