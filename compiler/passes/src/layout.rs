//! Channels last: convolution networks in f32 keep their images as `[N, H, W, C]`.
//!
//! In one walk each value of a region gets a *twin*, the same elements with the channels last. A
//! 2-D convolution makes a twin where there is none (by a Transpose: the region's entry); pools,
//! pointwise nodes, Concat, Pad, Slice, Softmax and reductions work on twins where their inputs
//! have them. Whoever wants the old order reads a Transpose of the twin, made with it and dead if
//! nobody does. A contraction over the flattened image takes the twin flattened, with the rows of
//! its constant weight in the same order. Transposes that meet cancel in [`crate::views`], and one
//! that moves only unit axes is a Reshape.

use crate::movement;
use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::op::Layout;
use lapidary_graph::{DType, Dim, Graph, NodeId, Op, PwOp, ValueId};
use std::collections::HashMap;

/// Axis of the twin, by axis of the image, as a permutation both ways.
const TO_LAST: [usize; 4] = [0, 2, 3, 1];
const TO_FIRST: [usize; 4] = [0, 3, 1, 2];

type Twins = HashMap<ValueId, ValueId>;

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    if !graph.order.iter().any(|n| is_image_conv(graph, *n)) {
        return false;
    }
    let mut twins = Twins::new();
    Rewriter::run(graph, remarks, |rw, n| {
        assign(rw, n, &mut twins);
    })
}

fn is_image_conv(graph: &Graph, n: NodeId) -> bool {
    let node = &graph.nodes[n];
    let x = node.input(0).map(|v| graph.ty(v));
    match &node.op {
        Op::Conv { window, .. } => {
            window.kernel.len() == 2
                && window.layout == Layout::ChannelsFirst
                && x.is_some_and(|t| t.dtype == DType::F32 && t.rank() == Some(4))
        }
        _ => false,
    }
}

/// Where an axis of the image lies in the twin.
fn moved(axis: usize) -> usize {
    TO_FIRST[axis]
}

fn permuted<T: Clone>(v: &[T]) -> Vec<T> {
    TO_LAST.iter().map(|i| v[*i].clone()).collect()
}

fn assign(rw: &mut Rewriter, n: NodeId, twins: &mut Twins) -> Option<()> {
    let op = rw.op(n).clone();
    let x = rw.input(n, 0)?;
    if let Op::Contract { .. } = op {
        return flattened(rw, n, twins);
    }
    let out = *rw.graph.nodes[n].outputs.first()?;
    let rank = rw.graph.ty(out).rank()?;
    let twin = match op {
        Op::Conv { window, groups } if is_image_conv(rw.graph, n) => {
            let t = twin_of(rw, x, twins, n)?;
            let mut inputs = rw.graph.nodes[n].inputs.clone();
            inputs[0] = Some(t);
            let mut window = window;
            window.layout = Layout::ChannelsLast;
            rw.add_with(Op::Conv { window, groups }, inputs, n)?
        }
        Op::Pool { kind, window, out } => {
            let t = *twins.get(&x)?;
            if window.layout == Layout::ChannelsLast || rw.graph.nodes[n].outputs.len() != 1 {
                return None;
            }
            let mut window = window;
            window.layout = Layout::ChannelsLast;
            rw.add(Op::Pool { kind, window, out }, &[t], n)?
        }
        Op::Pointwise { body, shape } if rank == 4 => {
            let inputs: Vec<ValueId> = rw.graph.nodes[n]
                .inputs
                .iter()
                .copied()
                .collect::<Option<_>>()?;
            let dims = rw.dims(out).to_vec();
            let full = |v: &&ValueId| rw.graph.constant(**v).is_none() && rw.dims(**v) == dims;
            let with = inputs.iter().filter(|v| twins.contains_key(v)).count();
            let without = inputs
                .iter()
                .filter(full)
                .filter(|v| !twins.contains_key(v))
                .count();
            if with == 0 || without > with {
                return None;
            }
            let mut new = Vec::new();
            for v in inputs {
                new.push(twin_of(rw, v, twins, n)?);
            }
            let mut body = body;
            for node in &mut body.nodes {
                if let PwOp::Index(axis) = &mut node.op {
                    *axis = moved(*axis as usize) as u32;
                }
            }
            let shape = shape.map(|s| permuted(&s));
            rw.add(Op::Pointwise { body, shape }, &new, n)?
        }
        Op::Concat { axis } if rank == 4 => {
            let inputs: Vec<ValueId> = rw.graph.nodes[n]
                .inputs
                .iter()
                .copied()
                .collect::<Option<_>>()?;
            let with = inputs.iter().filter(|v| twins.contains_key(v)).count();
            if with * 2 <= inputs.len() {
                return None;
            }
            let mut new = Vec::new();
            for v in inputs {
                new.push(twin_of(rw, v, twins, n)?);
            }
            let axis = moved(axis);
            rw.add(Op::Concat { axis }, &new, n)?
        }
        Op::Pad {
            before,
            after,
            mode,
        } if rank == 4 => {
            let t = *twins.get(&x)?;
            let mut inputs = rw.graph.nodes[n].inputs.clone();
            inputs[0] = Some(t);
            let op = Op::Pad {
                before: permuted(&before),
                after: permuted(&after),
                mode,
            };
            rw.add_with(op, inputs, n)?
        }
        Op::Slice { start, step, size } if rank == 4 => {
            let t = *twins.get(&x)?;
            let op = Op::Slice {
                start: permuted(&start),
                step: permuted(&step),
                size: permuted(&size),
            };
            rw.add(op, &[t], n)?
        }
        Op::Softmax { axis, log } if rank == 4 => {
            let t = *twins.get(&x)?;
            let axis = moved(axis);
            rw.add(Op::Softmax { axis, log }, &[t], n)?
        }
        Op::Reduce { kind, axes, keep } => {
            let t = *twins.get(&x)?;
            let kept: Vec<usize> = (0..4).filter(|a| !axes.contains(a)).collect();
            let mut axes: Vec<usize> = axes.iter().map(|a| moved(*a)).collect();
            axes.sort_unstable();
            let reduced = Op::Reduce { kind, axes, keep };
            if keep {
                rw.add(reduced, &[t], n)?
            } else {
                // Without the axes there is no image any more: the order must be the same.
                if !kept.iter().map(|a| moved(*a)).is_sorted() {
                    return None;
                }
                let v = rw.add(reduced, &[t], n)?;
                rw.replace_node(n, v);
                return Some(());
            }
        }
        _ => return None,
    };
    let back = rw.transpose(twin, TO_FIRST.to_vec(), n)?;
    if rw.dims(back) != rw.dims(out) {
        return None;
    }
    twins.insert(back, twin);
    rw.replace_node(n, back);
    Some(())
}

/// The twin of a value of rank up to 4 that is broadcast to an image.
fn twin_of(rw: &mut Rewriter, v: ValueId, twins: &mut Twins, n: NodeId) -> Option<ValueId> {
    if let Some(t) = twins.get(&v) {
        return Some(*t);
    }
    let dims = rw.dims(v).to_vec();
    if dims.iter().all(|d| d.is_const(1)) && dims.len() <= 1 {
        return Some(v);
    }
    let mut shape = vec![Dim::Const(1); 4usize.checked_sub(dims.len())?];
    shape.extend(dims);
    let t = match rw.graph.constant(v) {
        Some(c) => {
            let dims: Option<Vec<i64>> = shape.iter().map(Dim::as_const).collect();
            let image = movement::reshape(c, &dims?)?;
            let t = movement::transpose(&image, &TO_LAST)?;
            rw.constant(t, n)
        }
        None => {
            let image = rw.reshape(v, shape, n)?;
            rw.transpose(image, TO_LAST.to_vec(), n)?
        }
    };
    twins.insert(v, t);
    Some(t)
}

/// A contraction over a flattened image with a constant weight.
fn flattened(rw: &mut Rewriter, n: NodeId, twins: &Twins) -> Option<()> {
    let Op::Contract { a, b, out } = rw.op(n).clone() else {
        return None;
    };
    let (flat, w) = (rw.input(n, 0)?, rw.input(n, 1)?);
    let (m, Op::Reshape { .. }) = rw.made_by(flat)? else {
        return None;
    };
    let image = rw.input(m, 0)?;
    let twin = *twins.get(&image)?;
    let [batch, channels, h, width] = rw.dims(image).to_vec().try_into().ok()?;
    let [batch_out, _] = rw.dims(flat) else {
        return None;
    };
    let [_, k] = a[..] else { return None };
    let sizes = [channels.as_const()?, h.as_const()?, width.as_const()?];
    if batch != *batch_out || sizes[1] * sizes[2] == 1 {
        return None;
    }
    let weight = rw.graph.constant(w)?;
    let axis = b.iter().position(|l| *l == k)?;
    let [rows, columns] = weight.dims[..] else {
        return None;
    };
    // The weight keeps its bytes: its axis of depth is named as channels, height and width, and the
    // image's axes are met in their own order.
    let [c, h, w] = sizes;
    let split = match axis {
        0 => vec![c, h, w, columns],
        _ => vec![rows, c, h, w],
    };
    let viewed = movement::reshape(weight, &split)?;
    let weight = rw.constant(viewed, n);
    let fresh = a.iter().chain(&b).chain(&out).max()?.checked_add(1)?;
    let (lc, lh, lw) = (fresh, fresh.checked_add(1)?, fresh.checked_add(2)?);
    let with = |labels: &[u8], by: [u8; 3]| -> Vec<u8> {
        labels
            .iter()
            .flat_map(|l| if *l == k { by.to_vec() } else { vec![*l] })
            .collect()
    };
    let (a, b) = (with(&a, [lh, lw, lc]), with(&b, [lc, lh, lw]));
    let mut order: Vec<u8> = Vec::new();
    for l in a.iter().chain(&b) {
        if !order.contains(l) {
            order.push(*l);
        }
    }
    let number = |labels: &[u8]| -> Vec<u8> {
        labels
            .iter()
            .map(|l| order.iter().position(|o| o == l).unwrap_or_default() as u8)
            .collect()
    };
    let op = Op::Contract {
        a: number(&a),
        b: number(&b),
        out: number(&out),
    };
    let v = rw.add(op, &[twin, weight], n)?;
    rw.replace_node(n, v);
    Some(())
}
