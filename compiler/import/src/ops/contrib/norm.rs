//! Normalisations with what is added before them.

use lapidary_graph::op::{NormKind, ReduceKind};
use lapidary_graph::{DType, Dim, PwOp, ValueId};

use super::nhwc::channels_last;
use crate::context::{Ctx, Outs, broadcasts_to};
use crate::error::{Fail, invalid};
use crate::ops::activation::swish;
use crate::ops::norm::{group_of, normalize};
use crate::ops::reduce::{inverse_root, moments};

/// `x + more…`, in f32 for 16-bit floats.
fn sum(cx: &mut Ctx, x: ValueId, more: &[(&str, Option<ValueId>)]) -> Result<ValueId, Fail> {
    let mut y = cx.widen(x)?;
    for (what, v) in more {
        if let Some(v) = v {
            broadcasts_to(what, &cx.dims(*v)?, &cx.dims(x)?)?;
            let v = cx.widen(*v)?;
            y = cx.bin(PwOp::Add, y, v)?;
        }
    }
    Ok(y)
}

/// `1 / sqrt(mean(x²) + epsilon)` over axes `axis..`.
fn inverse_rms(cx: &mut Ctx, x: ValueId, axis: usize, epsilon: f32) -> Result<ValueId, Fail> {
    let axes = (axis..cx.rank(x)?).collect();
    let squares = cx.pw(&[x], |p, r| p.bin(PwOp::Mul, r[0], r[0]))?;
    let mean = cx.reduce(ReduceKind::Mean, squares, axes, true)?;
    inverse_root(cx, mean, epsilon as f64)
}

/// SimplifiedLayerNormalization: by the root mean square. Output 1 is its inverse.
pub(crate) fn simplified(cx: &mut Ctx) -> Outs {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let epsilon = cx.float("epsilon", 1e-5)?;
    let rank = cx.rank(x)?;
    let axis = cx.axis("axis", rank)?;
    broadcasts_to("the scale", &cx.dims(scale)?, &cx.dims(x)?)?;
    let (t, w) = (cx.dtype(scale), cx.widen(x)?);
    let y = normalize(cx, NormKind::Rms, w, Some(scale), None, axis, epsilon)?;
    let mut outs = vec![Some(cx.cast(y, t)?)];
    if cx.wants(1) {
        outs.push(Some(inverse_rms(cx, w, axis, epsilon)?));
    }
    Ok(outs)
}

/// SkipLayerNormalization and SkipSimplifiedLayerNormalization: of the sum of input, skip and bias, which is output 3.
/// Outputs 1 and 2 are the mean and the inverse deviation.
pub(crate) fn skip(cx: &mut Ctx) -> Outs {
    let (x, skip, gamma) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = cx.float("epsilon", 1e-12)?;
    let rms = cx.op == "SkipSimplifiedLayerNormalization";
    let (beta, bias) = match rms {
        true => (None, cx.opt(3)),
        false => (cx.opt(3), cx.opt(4)),
    };
    let rank = cx.rank(x)?;
    if rank == 0 {
        return Err(invalid("an input of rank 0, expected 2 or 3"));
    }
    let last = &cx.dims(x)?[rank - 1..];
    for (what, v) in [("gamma", Some(gamma)), ("beta", beta), ("the bias", bias)] {
        if let Some(v) = v {
            broadcasts_to(what, &cx.dims(v)?, last)?;
        }
    }
    let t = cx.dtype(x);
    let total = sum(cx, x, &[("the skip", Some(skip)), ("the bias", bias)])?;
    let kind = if rms { NormKind::Rms } else { NormKind::Layer };
    let y = normalize(cx, kind, total, Some(gamma), beta, rank - 1, epsilon)?;
    let mut outs = vec![Some(cx.cast(y, t)?), None, None, None];
    if cx.wants(1) || cx.wants(2) {
        let (mean, var) = moments(cx, total, vec![rank - 1])?;
        outs[1] = Some(mean);
        outs[2] = Some(match rms {
            true => inverse_rms(cx, total, rank - 1, epsilon)?,
            false => inverse_root(cx, var, epsilon as f64)?,
        });
    }
    if cx.wants(3) {
        outs[3] = Some(cx.cast(total, t)?);
    }
    Ok(outs)
}

/// GroupNorm and SkipGroupNorm: groups of channels, which are the last axis or the second, then an activation.
pub(crate) fn group(cx: &mut Ctx) -> Outs {
    let (x, gamma, beta) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = cx.float("epsilon", 1e-5)?;
    let groups = cx.int_required("groups")?;
    let silu = match cx.int_required("activation")? {
        0 => false,
        1 => true,
        other => {
            return Err(invalid(format!(
                "attribute 'activation' is {other}, expected 0 or 1"
            )));
        }
    };
    if groups < 1 {
        return Err(invalid(format!(
            "attribute 'groups' is {groups}, expected 1 or more"
        )));
    }
    let last = cx.flag("channels_last", true)?;
    let (t, rank) = (cx.dtype(x), cx.rank(x)?);
    if rank < 3 {
        return Err(invalid(format!("an input of rank {rank}, expected 4")));
    }
    // To channels first.
    let (to, back) = match last {
        true => channels_last(rank),
        false => ((0..rank).collect(), (0..rank).collect()),
    };
    let channels = if last { rank - 1 } else { 1 };
    let mut total = cx.widen(x)?;
    if cx.op == "SkipGroupNorm" {
        let (skip, bias) = (cx.input(3)?, cx.opt(4));
        for v in [Some(skip), bias].into_iter().flatten() {
            let mut shape = cx.dims(v)?;
            if shape.len() < rank {
                // [N, C] or [C].
                let batch = shape.len() == 2;
                let c = shape.pop().ok_or_else(|| invalid("a skip of rank 0"))?;
                shape = vec![Dim::Const(1); rank];
                shape[channels] = c;
                if batch {
                    shape[0] = cx.dims(v)?[0].clone();
                }
            }
            let v = cx.reshape(v, shape)?;
            let wide = cx.widen(v)?;
            broadcasts_to("the skip", &cx.dims(wide)?, &cx.dims(x)?)?;
            total = cx.bin(PwOp::Add, total, wide)?;
        }
    }
    let first = cx.transpose(total, to)?;
    let y = group_of(
        cx,
        first,
        gamma,
        beta,
        Dim::Const(groups),
        epsilon,
        DType::F32,
    )?;
    let y = match silu {
        true => cx.pw(&[y], |p, r| swish(p, r[0], 1.0))?,
        false => y,
    };
    let y = cx.transpose(y, back)?;
    let mut outs = vec![Some(cx.cast(y, t)?)];
    if cx.wants(1) {
        outs.push(Some(cx.cast(total, t)?));
    }
    Ok(outs)
}
