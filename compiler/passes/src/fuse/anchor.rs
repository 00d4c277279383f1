//! Groups around an anchor: `Contract`, `Conv`, `Pool`, `Attention`.
//!
//! The tail: pointwise nodes of the result's shape, whatever else they read (a bias, a residual),
//! as long as that does not depend on the anchor. The tail may be any DAG, but one value alone
//! leaves the group: where an inner value has a second reader outside, the tail ends before it
//! (and a remark says so). At the end a Reshape is taken as well (another shape for the same
//! bytes); attention also takes Transpose there, since it writes by strides.
//!
//! Operands: attention takes chains of Reshape, Transpose and Slice that strides can express and
//! that nobody else reads; a contraction takes a Reshape.

use super::Former;
use crate::strided::Strided;
use lapidary_graph::{Dim, GroupKind, NodeId, Op, ValueId};

pub(super) fn form(f: &mut Former) {
    for n in f.graph.order.clone() {
        let kind = match f.op(n) {
            Op::Contract { .. } => GroupKind::Contract,
            Op::Conv { .. } => GroupKind::Conv,
            Op::Pool { .. } => GroupKind::Pool,
            Op::Attention(_) => GroupKind::Attention,
            _ => continue,
        };
        if !f.ranked(n) || f.graph.nodes[n].outputs.len() != 1 {
            continue;
        }
        let mut nodes = vec![n];
        if kind != GroupKind::Attention {
            nodes = tail(f, n);
        }
        views_after(f, kind, &mut nodes);
        match kind {
            GroupKind::Attention => {
                for i in 0..3 {
                    let v = f.graph.nodes[n].inputs[i];
                    operand(f, v, &mut nodes, true);
                }
            }
            GroupKind::Contract => {
                for i in 0..2 {
                    let v = f.graph.nodes[n].inputs[i];
                    operand(f, v, &mut nodes, false);
                }
            }
            _ => {}
        }
        f.add(kind, Some(n), nodes);
    }
}

/// The anchor and the pointwise nodes that it takes.
fn tail(f: &mut Former, anchor: NodeId) -> Vec<NodeId> {
    let dims = f.out_dims(anchor);
    let mut nodes = vec![anchor];
    let mut turn = 0;
    while turn < nodes.len() {
        let v = f.out(nodes[turn]);
        turn += 1;
        let mut readers = f.readers(v).to_vec();
        readers.sort_by_key(|n| f.position[n.0 as usize]);
        for r in readers {
            if nodes.contains(&r) || !f.free(r) || !f.is_pointwise(r) || f.out_dims(r) != dims {
                continue;
            }
            if !f.room(&nodes, r) {
                continue;
            }
            nodes.push(r);
            if f.waits_for_itself(&nodes) {
                // It may be only that a node between is not in yet; the next reader brings it.
                nodes.pop();
            } else {
                turn = 0;
            }
        }
    }
    nodes[1..].sort_by_key(|n| f.position[n.0 as usize]);
    let whole = nodes.len();
    while nodes.len() > 1 && (f.exits(&nodes).len() > 1 || f.waits_for_itself(&nodes)) {
        nodes.pop();
    }
    if nodes.len() < whole {
        let exit = f.exits(&nodes);
        let (left, at) = (f.name(anchor), exit.first().copied());
        let value = at.map_or("", |v| f.graph.values[v].name.as_str());
        let text = format!(
            "{} pointwise nodes not fused: `{value}` has a second use",
            whole - nodes.len()
        );
        f.remarks.add("fuse", left, text);
    }
    nodes
}

/// Views on the only value that leaves the group.
fn views_after(f: &Former, kind: GroupKind, nodes: &mut Vec<NodeId>) {
    loop {
        let [v] = f.exits(nodes)[..] else { return };
        let [r] = *f.readers(v) else { return };
        let takes = match f.op(r) {
            Op::Reshape { .. } => kind == GroupKind::Attention || kind == GroupKind::Contract,
            Op::Transpose { .. } => kind == GroupKind::Attention,
            _ => false,
        };
        if f.is_output[v.0 as usize] || !takes || !f.free(r) || !f.ranked(r) || !f.room(nodes, r) {
            return;
        }
        nodes.push(r);
        if kind == GroupKind::Attention && !strided_result(f, nodes) {
            nodes.pop();
            return;
        }
    }
}

/// Whether attention can store through the views after it: each axis of its result has one stride
/// in the dense tensor that leaves.
fn strided_result(f: &Former, nodes: &[NodeId]) -> bool {
    let views = nodes.iter().skip(1);
    let mut dims: Vec<Vec<Dim>> = vec![f.out_dims(nodes[0]).to_vec()];
    dims.extend(views.clone().map(|n| f.out_dims(*n).to_vec()));
    let Some(last) = dims.last() else { return true };
    // Backwards: the inverse of each view, from the dense result to the anchor's shape.
    let mut at = Strided::dense(last);
    for (i, n) in nodes.iter().enumerate().skip(1).rev() {
        let inverse = match f.op(*n) {
            Op::Reshape { .. } => Op::Reshape {
                shape: dims[i - 1].clone(),
            },
            Op::Transpose { perm } => {
                let mut back = vec![0; perm.len()];
                for (j, p) in perm.iter().enumerate() {
                    back[*p] = j;
                }
                Op::Transpose { perm: back }
            }
            _ => return false,
        };
        match at.then(&inverse) {
            Some(s) => at = s,
            None => return false,
        }
    }
    true
}

/// Takes the views before an operand, nearest first, while they are read here alone and (for
/// `strides`) the whole chain is expressible.
fn operand(f: &Former, v: Option<ValueId>, nodes: &mut Vec<NodeId>, strides: bool) {
    let mut chain: Vec<NodeId> = Vec::new();
    let mut at = v;
    while let Some(v) = at {
        let Some(p) = f.graph.producer(v) else { break };
        let takes = match f.op(p) {
            Op::Reshape { .. } => true,
            Op::Transpose { .. } | Op::Slice { .. } => strides,
            _ => false,
        };
        let inside: Vec<NodeId> = nodes.iter().chain(&chain).copied().collect();
        if !takes || !f.free(p) || !f.ranked(p) || f.escapes(v, &inside) || !f.room(&inside, p) {
            break;
        }
        chain.push(p);
        at = f.graph.nodes[p].input(0);
    }
    while let Some(first) = chain.last() {
        let source = f.graph.nodes[*first].inputs[0];
        let mut view = source.map(|s| Strided::dense(f.graph.dims(s)));
        for n in chain.iter().rev() {
            view = view.and_then(|s| s.then(f.op(*n)));
        }
        if view.is_some() {
            break;
        }
        chain.pop();
    }
    nodes.extend(chain);
}
