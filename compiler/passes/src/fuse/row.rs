//! Row groups: reductions over the same trailing axes and what is computed row by row around them.
//!
//! With `x [P.., D..]` reduced over `D..`, a member's value is a row (`[P.., D..]`) or a statistic
//! (`[P.., 1..]`, or `[P..]` where the reduction drops the axes; a Reshape between these two is a
//! member as well). A whole softmax or layer normalisation, with the residual sum before it and the
//! activation after it, is one group. Any member's value may leave the group.

use super::{Former, MOST_NODES};
use lapidary_graph::{Dim, GroupKind, NodeId, Op, ValueId};

/// The shapes of the values of a group.
struct Rows<'g> {
    row: &'g [Dim],
    axes: Vec<usize>,
    kept: Vec<Dim>,
    dropped: Vec<Dim>,
}

pub(super) fn form(f: &mut Former) {
    for n in f.graph.order.clone() {
        if !f.free(n) {
            continue;
        }
        let Some(rows) = rows_of(f, n) else { continue };
        let mut nodes = vec![n];
        grow(f, &rows, &mut nodes);
        f.add(GroupKind::Row, Some(n), nodes);
    }
}

/// The shapes, when the node is a reduction over trailing axes.
fn rows_of<'g>(f: &Former<'g>, n: NodeId) -> Option<Rows<'g>> {
    let Op::Reduce { axes, .. } = f.op(n) else {
        return None;
    };
    if !f.ranked(n) {
        return None;
    }
    let row = f.graph.dims(f.graph.nodes[n].input(0)?);
    let axes = axes.clone();
    let first = row.len().checked_sub(axes.len())?;
    if axes.is_empty() || !axes.iter().copied().eq(first..row.len()) {
        return None;
    }
    let dropped = row[..first].to_vec();
    let mut kept = dropped.clone();
    kept.resize(row.len(), Dim::Const(1));
    Some(Rows {
        row,
        axes,
        kept,
        dropped,
    })
}

impl Rows<'_> {
    fn is_statistic(&self, dims: &[Dim]) -> bool {
        dims == self.kept || dims == self.dropped
    }
    /// Whether a node can be a member.
    fn fits(&self, f: &Former, n: NodeId) -> bool {
        if !f.free(n) || !f.ranked(n) {
            return false;
        }
        let out = f.out_dims(n);
        match f.op(n) {
            Op::Pointwise { .. } => out == self.row || self.is_statistic(out),
            Op::Reduce { axes, .. } => {
                let input = f.graph.nodes[n].input(0);
                *axes == self.axes && input.is_some_and(|v| f.graph.dims(v) == self.row)
            }
            Op::Reshape { .. } => {
                let input = f.graph.nodes[n].input(0);
                self.is_statistic(out) && input.is_some_and(|v| self.is_statistic(f.graph.dims(v)))
            }
            _ => false,
        }
    }
}

/// Adds what fits, forwards and backwards, until nothing more does.
fn grow(f: &Former, rows: &Rows, nodes: &mut Vec<NodeId>) {
    loop {
        let before = nodes.len();
        for i in 0.. {
            let Some(n) = nodes.get(i).copied() else {
                break;
            };
            for v in f.graph.nodes[n].inputs.iter().flatten() {
                if let Some(p) = f.graph.producer(*v)
                    && !nodes.contains(&p)
                    && rows.fits(f, p)
                    && worth_before(f, p, nodes)
                {
                    try_add(f, p, nodes);
                }
            }
            let mut readers = f.readers(f.out(n)).to_vec();
            readers.sort_by_key(|n| f.position[n.0 as usize]);
            for r in readers {
                let aligned = f.out_dims(n).len() == rows.row.len()
                    || !matches!(f.op(r), Op::Pointwise { .. })
                    || f.out_dims(r) == f.out_dims(n);
                if !nodes.contains(&r) && aligned && rows.fits(f, r) {
                    try_add(f, r, nodes);
                }
            }
        }
        if nodes.len() == before {
            return;
        }
    }
}

fn try_add(f: &Former, n: NodeId, nodes: &mut Vec<NodeId>) {
    if !f.room(nodes, n) {
        return;
    }
    nodes.push(n);
    if f.waits_for_itself(nodes) {
        nodes.pop();
    }
}

/// A producer is taken when its value is read here alone, or else when it is a row that is cheap to
/// store on the way; but not away from gathers and views that it could be computed with.
fn worth_before(f: &Former, p: NodeId, nodes: &[NodeId]) -> bool {
    let gathers = f.graph.nodes[p]
        .inputs
        .iter()
        .flatten()
        .any(|v| leads_to_gather(f, *v));
    if gathers && !matches!(f.op(p), Op::Reduce { .. }) {
        return false;
    }
    let v = f.out(p);
    !f.is_output[v.0 as usize] && f.readers(v).iter().all(|r| nodes.contains(r))
        || matches!(f.op(p), Op::Pointwise { .. })
}

/// Whether a value comes, through single-use pointwise nodes, from a free gather or moving view; of more nodes than a
/// group holds, the nearest are asked.
fn leads_to_gather(f: &Former, v: ValueId) -> bool {
    let mut todo = vec![v];
    for _ in 0..MOST_NODES {
        let Some(v) = todo.pop() else { return false };
        let Some(p) = f.graph.producer(v) else {
            continue;
        };
        if !f.free(p) || f.readers(v).len() != 1 {
            continue;
        }
        match f.op(p) {
            Op::Gather { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Broadcast { .. } => {
                return true;
            }
            Op::Pointwise { .. } | Op::Reshape { .. } => {
                todo.extend(f.graph.nodes[p].inputs.iter().flatten());
            }
            _ => {}
        }
    }
    false
}
