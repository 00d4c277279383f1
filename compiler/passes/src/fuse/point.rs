//! Pointwise groups: one expression per element of the last node's value.
//!
//! Formed from the ends backwards. A producer is taken when all its readers are in the group and
//! taking it repeats no work: each of its elements is then computed once per element of the result.
//! That holds through pointwise nodes of the same shape, Transpose, Reshape and Slice; a value that
//! is broadcast (or gathered) is taken only if computing it is a handful of cheap operations.
//! A pointwise node of the result's own shape and index may have readers elsewhere too: its value
//! is stored on the way. Concat and Pad come last in a group only, and Gather reads its data from
//! memory.

use super::Former;
use lapidary_graph::{GroupKind, NodeId, Op, PwOp, ValueId};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

/// How a member's elements are visited.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Visit {
    /// Element i of the result reads element i.
    Same,
    /// Each element at most once, in another order.
    Once,
    /// Perhaps many times.
    Often,
}

pub(super) fn form(f: &mut Former) {
    for n in f.graph.order.clone().into_iter().rev() {
        if f.free(n) && f.ranked(n) && is_member(f.op(n)) {
            grow(f, n);
        }
    }
}

fn is_member(op: &Op) -> bool {
    matches!(
        op,
        Op::Pointwise { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Broadcast { .. }
            | Op::Gather { .. }
            | Op::Concat { .. }
            | Op::Pad { .. }
    )
}

/// Members of a group in the making, and how each is visited.
struct Members {
    nodes: Vec<NodeId>,
    visit: HashMap<NodeId, Visit>,
}

fn grow(f: &mut Former, root: NodeId) {
    let mut members = Members {
        nodes: vec![root],
        visit: HashMap::from_iter([(root, Visit::Same)]),
    };
    while let Some((p, how)) = another(f, &members) {
        members.nodes.push(p);
        members.visit.insert(p, how);
    }
    let nodes = members.nodes;
    let kind = match (nodes.as_slice(), f.op(root)) {
        // The same bytes under another shape: lowering makes it an alias.
        ([_], Op::Reshape { .. }) => GroupKind::Single,
        _ => GroupKind::Pointwise,
    };
    f.add(kind, None, nodes);
}

/// The next producer that joins.
fn another(f: &Former, members: &Members) -> Option<(NodeId, Visit)> {
    let mut asked = HashSet::default();
    for n in &members.nodes {
        for v in f.graph.nodes[*n].inputs.iter().flatten() {
            let Some(p) = f.graph.producer(*v) else {
                continue;
            };
            if members.visit.contains_key(&p) || !asked.insert(p) {
                continue;
            }
            if f.free(p)
                && f.ranked(p)
                && is_member(f.op(p))
                && f.room(&members.nodes, p)
                && let Some(how) = takes(f, p, members)
                && !f.waits_for_itself(&[members.nodes.as_slice(), &[p]].concat())
            {
                return Some((p, how));
            }
        }
    }
    None
}

/// Whether a producer of a member's input joins, and how it is then visited.
fn takes(f: &Former, p: NodeId, members: &Members) -> Option<Visit> {
    if matches!(f.op(p), Op::Concat { .. } | Op::Pad { .. }) {
        return None;
    }
    let v = f.out(p);
    let step = |n: NodeId, visit: Visit| -> Visit {
        let one = match f.op(n) {
            Op::Pointwise { .. } if f.graph.dims(v) == f.out_dims(n) => visit,
            Op::Reshape { .. } if visit == Visit::Same => Visit::Once,
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } => Visit::Once,
            Op::Concat { .. } | Op::Pad { .. } => Visit::Once,
            _ => Visit::Often,
        };
        if visit > one { visit } else { one }
    };
    let mut how = Visit::Same;
    let mut outside = f.is_output[v.0 as usize];
    let mut reads = 0;
    for r in f.readers(v) {
        match members.visit.get(r) {
            None => outside = true,
            Some(visit) => {
                let s = step(*r, *visit);
                how = if s > how { s } else { how };
                if s != Visit::Same {
                    reads += 1;
                }
            }
        }
    }
    let gathered = |r: &NodeId| {
        let is_data = f.graph.nodes[*r].input(0) == Some(v);
        members.visit.contains_key(r) && is_data && matches!(f.op(*r), Op::Gather { .. })
    };
    if f.readers(v).iter().any(gathered) {
        return None;
    }
    if matches!(f.op(p), Op::Pointwise { .. } | Op::Gather { .. }) && is_index(f, v, members) {
        return None;
    }
    let indexed = matches!(f.op(p), Op::Gather { .. });
    let cheap = is_cheap(f, p);
    if outside && (how != Visit::Same || !matches!(f.op(p), Op::Pointwise { .. })) {
        return None;
    }
    if (how == Visit::Often || reads > 1) && (!cheap || indexed) {
        return None;
    }
    Some(how)
}

/// Whether a value is the index of a Gather in the group, seen through views: an index is loaded from memory.
fn is_index(f: &Former, v: ValueId, members: &Members) -> bool {
    f.readers(v).iter().any(|r| {
        members.visit.contains_key(r)
            && match f.op(*r) {
                Op::Gather { .. } => f.graph.nodes[*r].input(1) == Some(v),
                Op::Pointwise { .. } | Op::Concat { .. } | Op::Pad { .. } => false,
                _ => is_index(f, f.out(*r), members),
            }
    })
}

/// Whether computing an element again costs about as little as loading it.
fn is_cheap(f: &Former, n: NodeId) -> bool {
    match f.op(n) {
        Op::Pointwise { body, .. } => {
            let cost: usize = body
                .nodes
                .iter()
                .map(|p| match p.op {
                    PwOp::Input(_) | PwOp::Const(_) | PwOp::Index(_) | PwOp::Dim(_) => 0,
                    PwOp::Neg | PwOp::Abs | PwOp::Not | PwOp::Add | PwOp::Sub | PwOp::Mul => 1,
                    PwOp::Min | PwOp::Max | PwOp::And | PwOp::Or | PwOp::Xor | PwOp::Select => 1,
                    PwOp::Eq | PwOp::Lt | PwOp::Le | PwOp::Gt | PwOp::Ge => 1,
                    PwOp::Cast | PwOp::Bitcast => 1,
                    _ => 100,
                })
                .sum();
            cost <= 4
        }
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Broadcast { .. } => true,
        _ => false,
    }
}
