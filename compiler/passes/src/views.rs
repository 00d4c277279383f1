//! The algebra of views: what only renames, regroups or repeats elements is composed, cancelled,
//! or moved to where something takes it for nothing.
//!
//! - views that change nothing go; Transpose of Transpose, Reshape of Reshape, Slice of Slice
//!   compose; a Transpose that moves only unit axes is a Reshape;
//! - a Transpose before a contraction becomes an order of its labels, which are numbered as they
//!   appear, so that equal contractions are equal;
//! - a Pad with zeros before a convolution becomes its padding;
//! - `Reshape [.., K] -> [M, K]` before a contraction, and below a pointwise node that does not
//!   notice it, moves after it, where it often meets its inverse.

use crate::pointwise::scalar;
use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::op::{Layout, PadMode, PoolKind};
use lapidary_graph::{Dim, Graph, NodeId, Op, PwOp, ValueId};

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    Rewriter::run(graph, remarks, |rw, n| {
        let _ = identity(rw, n)
            .or_else(|| transpose(rw, n))
            .or_else(|| reshape(rw, n))
            .or_else(|| slice(rw, n))
            .or_else(|| conv_padding(rw, n))
            .or_else(|| contract_labels(rw, n))
            .or_else(|| contract_rows(rw, n))
            .or_else(|| below_pointwise(rw, n));
    })
}

/// A view that changes nothing; and the axes of a reduction, in order.
fn identity(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    if let Op::Reduce { axes, .. } = &mut rw.graph.nodes[n].op
        && !axes.is_sorted()
    {
        axes.sort_unstable();
        rw.touch();
    }
    let x = rw.input(n, 0)?;
    let zero = |d: &Dim| d.is_const(0);
    let nothing = match rw.op(n) {
        Op::Transpose { perm } => perm.iter().enumerate().all(|(i, p)| i == *p),
        Op::Reshape { shape } | Op::Broadcast { shape } => {
            rw.graph.ty(x).shape.as_ref() == Some(shape)
        }
        Op::Slice { start, step, size } => {
            start.iter().all(zero) && step.iter().all(|s| *s == 1) && rw.dims(x) == size.as_slice()
        }
        Op::Pad { before, after, .. } => before.iter().chain(after).all(zero),
        Op::Concat { .. } => rw.graph.nodes[n].inputs.len() == 1,
        Op::Pool { kind, window, .. } => {
            let unit = |v: &[i64]| v.iter().all(|k| *k == 1);
            let mut pads = window.pads_begin.iter().chain(&window.pads_end);
            !matches!(kind, PoolKind::Lp { .. })
                && window.kernel.iter().all(|k| k.is_const(1))
                && unit(&window.strides)
                && pads.all(zero)
                && rw.dims(x) == rw.dims(rw.output(n))
        }
        _ => false,
    };
    if nothing {
        rw.replace_node(n, x);
    }
    nothing.then_some(())
}

fn transpose(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Transpose { perm } = rw.op(n).clone() else {
        return None;
    };
    let x = rw.input(n, 0)?;
    if let Some((m, Op::Transpose { perm: first })) = rw.made_by(x) {
        let perm: Vec<usize> = perm.iter().map(|p| first[*p]).collect();
        let y = rw.input(m, 0)?;
        let v = rw.transpose(y, perm, n)?;
        rw.replace_node(n, v);
        return Some(());
    }
    if split_after_transpose(rw, n, &perm).is_some() {
        return Some(());
    }
    if moves_only_units(rw.dims(x), &perm) {
        let shape = rw.dims(rw.output(n)).to_vec();
        let v = rw.reshape(x, shape, n)?;
        rw.replace_node(n, v);
        return Some(());
    }
    None
}

/// `transpose(reshape(transpose(y)))`, where the reshape splits axes one by one, as
/// `transpose(reshape(y))`.
fn split_after_transpose(rw: &mut Rewriter, n: NodeId, perm: &[usize]) -> Option<()> {
    let x = rw.input(n, 0)?;
    let (r, Op::Reshape { shape }) = rw.made_by(x)? else {
        return None;
    };
    let shape = shape.clone();
    let middle = rw.input(r, 0)?;
    let (t, Op::Transpose { perm: first }) = rw.made_by(middle)? else {
        return None;
    };
    let first = first.clone();
    let y = rw.input(t, 0)?;
    // The new axes that each axis of the middle value is split into.
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    let mut at = 0;
    for d in rw.dims(middle) {
        let start = at;
        let mut product = Dim::Const(1);
        while product != *d {
            product = product.mul(shape.get(at)?);
            at += 1;
        }
        runs.push(start..at);
    }
    let rest = &shape[at..];
    if !rest.iter().all(|d| d.is_const(1)) {
        return None;
    }
    runs.last_mut()?.end = shape.len();
    let mut new_shape = Vec::new();
    let mut place = vec![0; shape.len()];
    for axis in 0..first.len() {
        let j = first.iter().position(|p| *p == axis)?;
        for a in runs[j].clone() {
            place[a] = new_shape.len();
            new_shape.push(shape[a].clone());
        }
    }
    let split = rw.reshape(y, new_shape, r)?;
    let perm = perm.iter().map(|p| place[*p]).collect();
    let v = rw.transpose(split, perm, n)?;
    rw.replace_node(n, v);
    Some(())
}

/// Whether a transposition leaves the order of the axes that are not 1. Of a value without a known
/// rank (`dims` is empty) that cannot be told.
pub fn moves_only_units(dims: &[Dim], perm: &[usize]) -> bool {
    if dims.len() != perm.len() {
        return false;
    }
    let order: Vec<usize> = perm
        .iter()
        .copied()
        .filter(|p| !dims[*p].is_const(1))
        .collect();
    order.is_sorted()
}

fn reshape(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Reshape { shape } = rw.op(n).clone() else {
        return None;
    };
    let x = rw.input(n, 0)?;
    let (m, Op::Reshape { .. }) = rw.made_by(x)? else {
        return None;
    };
    // A size that may be negative ends the run where the value is made.
    if rw.dims(x).iter().any(|d| d.is_ge(0) != Some(true)) {
        return None;
    }
    let y = rw.input(m, 0)?;
    let v = rw.reshape(y, shape, n)?;
    rw.replace_node(n, v);
    Some(())
}

fn slice(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Slice { start, step, size } = rw.op(n).clone() else {
        return None;
    };
    let x = rw.input(n, 0)?;
    let (
        m,
        Op::Slice {
            start: s, step: t, ..
        },
    ) = rw.made_by(x)?
    else {
        return None;
    };
    let (s, t) = (s.clone(), t.clone());
    let y = rw.input(m, 0)?;
    let start = (0..start.len())
        .map(|i| s[i].add(&start[i].mul(&Dim::Const(t[i]))))
        .collect();
    let step = (0..step.len()).map(|i| step[i] * t[i]).collect();
    let v = rw.add(Op::Slice { start, step, size }, &[y], n)?;
    rw.replace_node(n, v);
    Some(())
}

/// `conv(pad(x))`, when the pad is of zeros, on spatial axes and outwards.
fn conv_padding(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Conv { window, groups } = rw.op(n).clone() else {
        return None;
    };
    let x = rw.input(n, 0)?;
    let (
        m,
        Op::Pad {
            before,
            after,
            mode: PadMode::Constant,
        },
    ) = rw.made_by(x)?
    else {
        return None;
    };
    let (before, after) = (before.clone(), after.clone());
    let zero = match rw.input(m, 1) {
        None => true,
        Some(v) => scalar(rw.graph.constant(v)?)?.to_f64() == 0.0,
    };
    let first = match window.layout {
        Layout::ChannelsFirst => 2,
        Layout::ChannelsLast => 1,
    };
    let spatial = first..first + window.kernel.len();
    let fits = (0..before.len()).all(|i| {
        let inside = spatial.contains(&i);
        let outwards = |d: &Dim| d.is_ge(0) == Some(true);
        let none = before[i].is_const(0) && after[i].is_const(0);
        none || inside && outwards(&before[i]) && outwards(&after[i])
    });
    if !zero || !fits {
        return None;
    }
    let mut window = window;
    for (i, axis) in spatial.enumerate() {
        window.pads_begin[i] = window.pads_begin[i].add(&before[axis]);
        window.pads_end[i] = window.pads_end[i].add(&after[axis]);
    }
    let mut inputs = rw.graph.nodes[n].inputs.clone();
    inputs[0] = rw.input(m, 0);
    let v = rw.add_with(Op::Conv { window, groups }, inputs, n)?;
    if rw.dims(v) != rw.dims(rw.output(n)) {
        return None;
    }
    rw.replace_node(n, v);
    Some(())
}

/// `contract(transpose(y), w)`: the labels of the operand take y's order.
fn contract_labels(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Contract { a, b, out } = rw.op(n).clone() else {
        return None;
    };
    let numbered = contract(a.clone(), b.clone(), out.clone());
    if *rw.op(n) != numbered {
        rw.graph.nodes[n].op = numbered;
        rw.touch();
        return Some(());
    }
    let mut labels = [a, b];
    let mut inputs = [rw.input(n, 0)?, rw.input(n, 1)?];
    let mut any = false;
    for i in 0..2 {
        if let Some((m, Op::Transpose { perm })) = rw.made_by(inputs[i]) {
            let mut order = vec![0; perm.len()];
            for (j, p) in perm.iter().enumerate() {
                order[*p] = labels[i][j];
            }
            labels[i] = order;
            inputs[i] = rw.input(m, 0)?;
            any = true;
        }
    }
    if !any {
        return None;
    }
    let [a, b] = labels;
    let v = rw.add(contract(a, b, out), &inputs, n)?;
    rw.replace_node(n, v);
    Some(())
}

/// A contraction with labels numbered as they appear, so that equal ones are equal.
fn contract(mut a: Vec<u8>, mut b: Vec<u8>, mut out: Vec<u8>) -> Op {
    let mut seen: Vec<u8> = Vec::new();
    for l in a.iter_mut().chain(&mut b).chain(&mut out) {
        let at = seen.iter().position(|s| s == l).unwrap_or_else(|| {
            seen.push(*l);
            seen.len() - 1
        });
        *l = at as u8;
    }
    Op::Contract { a, b, out }
}

/// `contract(reshape(x: [.., K] -> [M, K]), w)` as `reshape(contract(x, w))`.
fn contract_rows(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Contract { a, b, out } = rw.op(n).clone() else {
        return None;
    };
    let x = rw.input(n, 0)?;
    let (m, Op::Reshape { .. }) = rw.made_by(x)? else {
        return None;
    };
    let y = rw.input(m, 0)?;
    let w = rw.input(n, 1)?;
    let [row, k] = a[..] else { return None };
    let (from, to) = (rw.dims(y).to_vec(), rw.dims(x).to_vec());
    // The trailing axes of y that make up K; those before are the rows.
    let mut lead = from.len();
    let mut product = Dim::Const(1);
    while product != to[1] || lead == from.len() {
        lead = lead.checked_sub(1)?;
        product = product.mul(&from[lead]);
    }
    let rows = from[..lead].iter().filter(|d| !d.is_const(1)).count();
    if rows < 2 || b.contains(&row) || out.first() != Some(&row) || out.contains(&k) {
        return None;
    }
    let used: Vec<u8> = a.iter().chain(&b).chain(&out).copied().collect();
    let free: Vec<u8> = (0..=u8::MAX).filter(|l| !used.contains(l)).collect();
    let labels = free.get(..lead)?;
    let a = [labels, &[k]].concat();
    let out: Vec<u8> = [labels, &out[1..]].concat();
    let regrouped = [&from[..lead], &to[1..]].concat();
    let y = rw.reshape(y, regrouped, m)?;
    let shape = rw.dims(rw.output(n)).to_vec();
    let c = rw.add(contract(a, b, out), &[y, w], n)?;
    let v = rw.reshape(c, shape, n)?;
    rw.replace_node(n, v);
    Some(())
}

/// `pointwise(reshape(y), rest)` as `reshape(pointwise(y, rest))`, when the reshape keeps the last
/// axis and the rest vary along that axis alone (or are reshaped alike).
fn below_pointwise(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let Op::Pointwise { body, shape: None } = rw.op(n).clone() else {
        return None;
    };
    let indexed = |op: &PwOp| matches!(op, PwOp::Index(_));
    if body.nodes.iter().any(|p| indexed(&p.op)) {
        return None;
    }
    let out = rw.dims(rw.output(n)).to_vec();
    let inputs: Vec<ValueId> = rw.graph.nodes[n]
        .inputs
        .iter()
        .copied()
        .collect::<Option<_>>()?;
    let source = |rw: &Rewriter, v: ValueId| -> Option<ValueId> {
        match rw.made_by(v)? {
            (m, Op::Reshape { .. }) if rw.dims(v) == out.as_slice() && rw.sole(v) => rw.input(m, 0),
            _ => None,
        }
    };
    let from = inputs.iter().find_map(|v| source(rw, *v))?;
    let dims = rw.dims(from).to_vec();
    if dims.last() != out.last() || dims.is_empty() {
        return None;
    }
    let mut new = Vec::new();
    for v in inputs {
        let d = rw.dims(v).to_vec();
        let row = d.iter().rev().skip(1).all(|d| d.is_const(1));
        new.push(match source(rw, v) {
            Some(s) if rw.dims(s) == dims.as_slice() => s,
            _ if d.len() <= 1 => v,
            _ if row => rw.reshape(v, d.last().into_iter().cloned().collect(), n)?,
            _ => return None,
        });
    }
    let v = rw.add_pointwise(body, &new, Some(&dims), n)?;
    let v = rw.reshape(v, out, n)?;
    rw.replace_node(n, v);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_move_only_where_the_rank_is_known() {
        let dims = [Dim::Const(1), Dim::Const(4), Dim::Const(5)];
        assert!(moves_only_units(&dims, &[1, 0, 2]));
        assert!(!moves_only_units(&dims, &[0, 2, 1]));
        assert!(!moves_only_units(&[], &[0, 2, 1]));
    }
}
