//! Softmax, its logarithm, and the losses built on it.

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use crate::context::{Ctx, Outs, one, same};
use crate::error::{Fail, invalid, unsupported};

/// Softmax or LogSoftmax. Before opset 13 over all axes from `axis` on, as one.
pub(crate) fn softmax(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let log = cx.op == "LogSoftmax";
    let dims = cx.dims(x)?;
    let rank = dims.len();
    if rank == 0 {
        // One element: the axis has nothing to name.
        let v = cx.reshape(x, vec![Dim::Const(1)])?;
        let v = along(cx, v, 0, log)?;
        return one(cx.reshape(v, dims)?);
    }
    let axis = cx.axis("axis", rank)?;
    if cx.opset >= 13 {
        return one(along(cx, x, axis, log)?);
    }
    one(from_axis(cx, x, axis, log)?)
}

/// Over all axes from `axis` (at most the rank) on, as one.
pub(crate) fn from_axis(cx: &mut Ctx, x: ValueId, axis: usize, log: bool) -> Result<ValueId, Fail> {
    let dims = cx.dims(x)?;
    let (rows, columns) = dims.split_at(axis);
    if columns.iter().skip(1).all(|d| d.is_const(1)) && !columns.is_empty() {
        return along(cx, x, axis, log);
    }
    let flat = vec![Dim::product(rows), Dim::product(columns)];
    let v = cx.reshape(x, flat)?;
    let v = along(cx, v, 1, log)?;
    cx.reshape(v, dims)
}

/// Along one axis; 16-bit floats in f32.
pub(crate) fn along(cx: &mut Ctx, x: ValueId, axis: usize, log: bool) -> Result<ValueId, Fail> {
    let t = cx.dtype(x);
    let w = cx.widen(x)?;
    let y = cx.emit1(Op::Softmax { axis, log }, &[w])?;
    let rounded = cx.cast(y, t)?;
    if !log {
        // Probabilities go into the product that follows as they are.
        cx.set_unrounded(rounded, y);
    }
    Ok(rounded)
}

/// `-weight[target] * input[.., target, ..]`, reduced.
pub(crate) fn nll_loss(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    one(loss(cx, x)?)
}

/// The same of the logarithm of the softmax of the scores.
pub(crate) fn cross_entropy(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let log = along(cx, x, 1, true)?;
    Ok(vec![Some(loss(cx, log)?), Some(log)])
}

/// `log` is `[N, C, d…]`, input 1 the targets `[N, d…]`, input 2 optional weights `[C]`.
fn loss(cx: &mut Ctx, log: ValueId) -> Result<ValueId, Fail> {
    let target = cx.input(1)?;
    let weight = cx.opt(2);
    let ignore = match cx.has("ignore_index") {
        true => Some(cx.int("ignore_index", 0)?),
        false => None,
    };
    let reduction = cx.choice("reduction", "mean", &["none", "sum", "mean"])?;
    let rank = cx.rank(log)?;
    if rank < 2 {
        return Err(unsupported(format!(
            "an input of rank {rank}, expected 2 or more"
        )));
    }
    let mut places = cx.dims(log)?;
    let classes = places.remove(1);
    let weight = match weight {
        Some(w) => {
            match cx.dims(w)?.as_slice() {
                [n] => same("the weights and the classes", n, &classes)?,
                dims => {
                    return Err(invalid(format!(
                        "weights of rank {}, expected 1",
                        dims.len()
                    )));
                }
            }
            Some(cx.reshape(w, vec![classes])?)
        }
        None => None,
    };
    let given = cx.dims(target)?;
    if given.len() != places.len() {
        return Err(invalid(format!(
            "targets of rank {} for an input of rank {rank}, expected one less",
            given.len()
        )));
    }
    for (axis, (place, given)) in places.iter().zip(&given).enumerate() {
        same(
            &format!("axis {axis} of the targets and the input"),
            place,
            given,
        )?;
    }
    // What cannot be compared here is, as weights and targets are reshaped, when it runs.
    let target = cx.reshape(target, places)?;
    let t = cx.dtype(log);
    let target = cx.cast(target, DType::I64)?;
    // An ignored target may lie outside the classes: class 0 is read instead, and weighs nothing.
    let safe = match ignore {
        Some(i) => cx.pw(&[target], |p, r| {
            let (i, zero) = (p.number(i as f64, DType::I64), p.number(0.0, DType::I64));
            let hit = p.test(PwOp::Eq, vec![r[0], i]);
            p.select(hit, zero, r[0])
        })?,
        None => target,
    };
    let index = cx.unsqueeze(safe, &[1])?;
    let picked = cx.emit1(Op::GatherElements { axis: 1 }, &[log, index])?;
    let picked = cx.squeeze(picked, &[1])?;
    let weight = match weight {
        Some(w) => Some(cx.emit1(Op::Gather { axis: 0 }, &[w, safe])?),
        None => None,
    };
    let mut inputs = vec![target];
    inputs.extend(weight);
    // Weight of each target: 0 where ignored.
    let each = if weight.is_none() && ignore.is_none() {
        None
    } else {
        Some(cx.pw(&inputs, |p, r| {
            let w = match r.get(1) {
                Some(w) => *w,
                None => p.number(1.0, t),
            };
            match ignore {
                Some(i) => {
                    let (i, zero) = (p.number(i as f64, DType::I64), p.number(0.0, t));
                    let hit = p.test(PwOp::Eq, vec![r[0], i]);
                    p.select(hit, zero, w)
                }
                None => w,
            }
        })?)
    };
    let losses = match each {
        Some(w) => cx.pw(&[picked, w], |p, r| {
            let y = p.bin(PwOp::Mul, r[0], r[1]);
            p.un(PwOp::Neg, y)
        })?,
        None => cx.un(PwOp::Neg, picked)?,
    };
    let axes: Vec<usize> = (0..rank - 1).collect();
    match (reduction, each) {
        (0, _) => Ok(losses),
        (1, _) => cx.reduce(ReduceKind::Sum, losses, axes, false),
        (_, None) => cx.reduce(ReduceKind::Mean, losses, axes, false),
        (_, Some(w)) => {
            let total = cx.reduce(ReduceKind::Sum, losses, axes.clone(), false)?;
            let weights = cx.reduce(ReduceKind::Sum, w, axes, false)?;
            cx.bin(PwOp::Div, total, weights)
        }
    }
}
