//! Sibling contractions: products of one value with several constant matrices become one product
//! with the matrices side by side, and slices of it.
//!
//! Done for the projections of attention (query, key, value), whose readers are views: the slices
//! then fold into addresses. A bias that each sibling adds is merged too. Other siblings, such as
//! gate and up of a gated layer, stay apart: there each product takes its own tail.

use crate::movement;
use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::{DType, Dim, Graph, NodeId, Op, PwOp, TensorData, ValueId};
use std::collections::HashMap;

/// A contraction with what is added to it.
#[derive(Clone)]
struct Sibling {
    node: NodeId,
    weight: ValueId,
    /// The node that adds a constant vector, its result and the vector.
    bias: Option<(NodeId, ValueId)>,
}

type Key = (ValueId, Vec<u8>, Vec<u8>, Vec<u8>);

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    let families = families(graph);
    Rewriter::run(graph, remarks, |rw, n| {
        if let Some(family) = families.get(&n) {
            merge(rw, family);
        }
    })
}

/// Families of two and more, by their first member.
fn families(graph: &Graph) -> HashMap<NodeId, Vec<Sibling>> {
    let uses = graph.uses();
    let mut found: Vec<(Key, Vec<Sibling>)> = Vec::new();
    for n in &graph.order {
        let node = &graph.nodes[*n];
        let Op::Contract { a, b, out } = &node.op else {
            continue;
        };
        let (Some(x), Some(weight)) = (node.input(0), node.input(1)) else {
            continue;
        };
        let Some(t) = graph.constant(weight) else {
            continue;
        };
        let column = b.iter().copied().find(|l| !a.contains(l));
        let plain = t.dims.len() == 2
            && t.dtype == DType::F32
            && column.is_some()
            && out.last().copied() == column
            && out.len() == a.len()
            && out[..out.len() - 1] == a[..a.len() - 1];
        let product = node.outputs[0];
        if !plain || graph.is_output(product) {
            continue;
        }
        let bias = match uses[product.0 as usize].as_slice() {
            [r] => added(graph, *r, product).map(|v| (*r, v)),
            _ => None,
        };
        let result = bias.map_or(product, |(r, _)| graph.nodes[r].outputs[0]);
        let views = uses[result.0 as usize].iter().all(|r| {
            let op = &graph.nodes[*r].op;
            matches!(op, Op::Reshape { .. } | Op::Transpose { .. })
        });
        if !views || graph.is_output(result) {
            continue;
        }
        let sibling = Sibling {
            node: *n,
            weight,
            bias,
        };
        let key = (x, a.clone(), b.clone(), out.clone());
        match found.iter_mut().find(|f| f.0 == key) {
            Some(f) => f.1.push(sibling),
            None => found.push((key, vec![sibling])),
        }
    }
    found
        .into_iter()
        .filter(|f| f.1.len() > 1)
        .map(|f| (f.1[0].node, f.1))
        .collect()
}

/// The constant vector that a node adds to `v`.
fn added(graph: &Graph, n: NodeId, v: ValueId) -> Option<ValueId> {
    let node = &graph.nodes[n];
    let Op::Pointwise { body, .. } = &node.op else {
        return None;
    };
    let last = body.nodes.last()?;
    let [x, y] = node.inputs[..] else { return None };
    if body.nodes.len() != 3 || last.op != PwOp::Add {
        return None;
    }
    let bias = if x == Some(v) { y? } else { x? };
    let t = graph.constant(bias)?;
    let width = graph.dims(v).last()?.as_const()?;
    let row = t.len() as i64 == width && t.dims.last() == Some(&width);
    let same = graph.dims(node.outputs[0]) == graph.dims(v);
    (row && same && bias != v).then_some(bias)
}

fn merge(rw: &mut Rewriter, family: &[Sibling]) -> Option<()> {
    let first = family[0].node;
    let Op::Contract { a, b, out } = rw.op(first).clone() else {
        return None;
    };
    let x = rw.input(first, 0)?;
    let axis = b.iter().position(|l| !a.contains(l))?;
    let weights: Vec<&TensorData> = family
        .iter()
        .map(|s| rw.graph.constant(s.weight))
        .collect::<Option<_>>()?;
    if weights
        .iter()
        .any(|w| w.dims[1 - axis] != weights[0].dims[1 - axis])
    {
        return None;
    }
    let widths: Vec<i64> = weights.iter().map(|w| w.dims[axis]).collect();
    let weight = movement::concat(&weights, axis)?;
    let biased = family.iter().all(|s| s.bias.is_some());
    let mut bias = None;
    if biased {
        let mut parts = Vec::new();
        for s in family {
            let t = rw.graph.constant(s.bias?.1)?;
            parts.push(movement::reshape(t, &[t.len() as i64])?);
        }
        bias = Some(movement::concat(&parts.iter().collect::<Vec<_>>(), 0)?);
    }
    let weight = rw.constant(weight, first);
    let mut merged = rw.add(Op::Contract { a, b, out }, &[x, weight], first)?;
    let nodes: Vec<NodeId> = family.iter().map(|s| s.node).collect();
    rw.inherit(merged, &nodes);
    if let Some(bias) = bias {
        let bias = rw.constant(bias, first);
        let body = lapidary_graph::Pointwise::binary(PwOp::Add, DType::F32, DType::F32);
        let adds: Vec<NodeId> = family.iter().flat_map(|s| s.bias).map(|b| b.0).collect();
        merged = rw.add_pointwise(body, &[merged, bias], None, adds[0])?;
        rw.inherit(merged, &adds);
    }
    let dims = rw.dims(merged).to_vec();
    let mut offset = 0;
    for (s, width) in family.iter().zip(widths) {
        let mut start = vec![Dim::Const(0); dims.len()];
        let mut size = dims.clone();
        *start.last_mut()? = Dim::Const(offset);
        *size.last_mut()? = Dim::Const(width);
        offset += width;
        let step = vec![1; dims.len()];
        let node = match s.bias {
            Some((add, _)) if biased => add,
            _ => s.node,
        };
        let part = rw.add(Op::Slice { start, step, size }, &[merged], node)?;
        rw.replace_node(node, part);
    }
    Some(())
}
