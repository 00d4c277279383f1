//! Normalisations. Those over trailing axes are `Normalize`; the others are written out.

use lapidary_graph::op::{NormKind, ReduceKind};
use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use super::reduce::{inverse_root, moments};
use crate::builder::first;
use crate::context::{Ctx, Outs, broadcasts_to, one};
use crate::error::{Fail, invalid, unsupported};

/// A per-channel vector `[C]` as `[C, 1, …]` for an input of this rank.
fn per_channel(cx: &mut Ctx, v: ValueId, rank: usize) -> Result<ValueId, Fail> {
    let mut shape = cx.dims(v)?;
    if shape.len() != 1 || rank < 2 {
        return Err(invalid(format!(
            "a parameter of rank {} for an input of rank {rank}",
            shape.len()
        )));
    }
    shape.extend(vec![Dim::Const(1); rank - 2]);
    cx.reshape(v, shape)
}

/// `x * scale + shift`, per channel.
fn affine(
    cx: &mut Ctx,
    x: ValueId,
    scale: ValueId,
    shift: ValueId,
    to: DType,
) -> Result<ValueId, Fail> {
    cx.pw(&[x, scale, shift], |p, r| {
        let t = p.dtype(r[0]);
        let (s, b) = (p.cast(r[1], t), p.cast(r[2], t));
        let y = p.bin(PwOp::Mul, r[0], s);
        let y = p.bin(PwOp::Add, y, b);
        p.cast(y, to)
    })
}

/// Inference: a scale and a shift a channel, computed here where the parameters are constants.
pub(crate) fn batch(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let epsilon = cx.float("epsilon", 1e-5)? as f64;
    if cx.opset >= 14 && cx.flag("training_mode", false)? {
        return training(cx, x, epsilon);
    }
    if cx.opset < 9 && !cx.flag("spatial", true)? {
        return Err(unsupported("attribute 'spatial' is 0"));
    }
    if cx.opset < 7 && !cx.flag("is_test", false)? {
        return Err(unsupported("attribute 'is_test' is 0 (training)"));
    }
    if (1..cx.wanted.len()).any(|i| cx.wants(i)) {
        return Err(unsupported("outputs beyond the first (training)")
            .hint("export the model for inference"));
    }
    let t = cx.dtype(x);
    let params = [cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    let wide = cx.widen(x)?;
    let rank = cx.rank(x)?;
    let numbers: Option<Vec<Vec<f64>>> = params.iter().map(|v| cx.const_f64s(*v)).collect();
    if let Some([scale, bias, mean, var]) = numbers.as_deref()
        && [bias, mean, var].iter().all(|v| v.len() == scale.len())
    {
        let k: Vec<f64> = scale
            .iter()
            .zip(var)
            .map(|(s, v)| s / (v + epsilon).sqrt())
            .collect();
        let shift: Vec<f64> = (0..k.len()).map(|i| bias[i] - mean[i] * k[i]).collect();
        let mut dims = vec![k.len() as i64];
        dims.resize(rank.max(2) - 1, 1);
        let w = cx.dtype(wide);
        let (k, shift) = (cx.numbers(w, dims.clone(), &k), cx.numbers(w, dims, &shift));
        return one(affine(cx, wide, k, shift, t)?);
    }
    let mut all = vec![wide];
    for v in params {
        all.push(per_channel(cx, v, rank)?);
    }
    one(cx.pw(&all, |p, r| {
        let w = p.dtype(r[0]);
        let r: Vec<_> = r.iter().map(|x| p.cast(*x, w)).collect();
        let e = p.number(epsilon, w);
        let d = p.bin(PwOp::Add, r[4], e);
        let d = p.un(PwOp::Sqrt, d);
        let y = p.bin(PwOp::Sub, r[0], r[3]);
        let y = p.bin(PwOp::Div, y, d);
        let y = p.bin(PwOp::Mul, y, r[1]);
        let y = p.bin(PwOp::Add, y, r[2]);
        p.cast(y, t)
    })?)
}

/// Training mode: the batch's own moments, and running ones beside.
fn training(cx: &mut Ctx, x: ValueId, epsilon: f64) -> Outs {
    let momentum = cx.float("momentum", 0.9)? as f64;
    let t = cx.dtype(x);
    let (wide, rank) = (cx.widen(x)?, cx.rank(x)?);
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let (mean_in, var_in) = (cx.input(3)?, cx.input(4)?);
    let over: Vec<usize> = (0..rank).filter(|a| *a != 1).collect();
    let (mean, var) = moments(cx, wide, over.clone())?;
    let d = inverse_root(cx, var, epsilon)?;
    let y = cx.pw(&[wide, mean, d], |p, r| {
        let y = p.bin(PwOp::Sub, r[0], r[1]);
        p.bin(PwOp::Mul, y, r[2])
    })?;
    let (scale, bias) = (per_channel(cx, scale, rank)?, per_channel(cx, bias, rank)?);
    let y = affine(cx, y, scale, bias, t)?;
    let mut outs = vec![Some(y)];
    for (new, old) in [(mean, mean_in), (var, var_in)] {
        let u = cx.dtype(old);
        let new = cx.squeeze(new, &over)?;
        outs.push(Some(cx.pw(&[new, old], |p, r| {
            let (new, old) = (r[0], r[1]);
            let w = p.dtype(new);
            let old = p.cast(old, w);
            let (m, n) = (p.number(momentum, w), p.number(1.0 - momentum, w));
            let old = p.bin(PwOp::Mul, old, m);
            let new = p.bin(PwOp::Mul, new, n);
            let y = p.bin(PwOp::Add, old, new);
            p.cast(y, u)
        })?));
    }
    Ok(outs)
}

/// `Normalize` without scale over axes `axis..`, in f32 for 16-bit floats (the result stays so).
fn plain(cx: &mut Ctx, x: ValueId, axis: usize, epsilon: f32) -> Result<ValueId, Fail> {
    let op = Op::Normalize {
        kind: NormKind::Layer,
        axis,
        epsilon,
    };
    cx.emit1(op, &[x])
}

/// Each image's channels on their own.
pub(crate) fn instance(cx: &mut Ctx) -> Outs {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = cx.float("epsilon", 1e-5)?;
    let (t, rank) = (cx.dtype(x), cx.rank(x)?);
    if rank < 3 {
        return Err(invalid(format!(
            "an input of rank {rank}, expected 3 or more"
        )));
    }
    let w = cx.widen(x)?;
    let y = plain(cx, w, 2, epsilon)?;
    let (scale, bias) = (per_channel(cx, scale, rank)?, per_channel(cx, bias, rank)?);
    one(affine(cx, y, scale, bias, t)?)
}

/// Groups of channels; scale and bias are per group in opset 18, per channel from 21 on.
pub(crate) fn group(cx: &mut Ctx) -> Outs {
    let (x, mut scale, mut bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = cx.float("epsilon", 1e-5)?;
    let groups = Dim::Const(cx.int_required("num_groups")?);
    let (t, dims) = (cx.dtype(x), cx.dims(x)?);
    let rank = dims.len();
    if rank < 2 {
        return Err(invalid(format!(
            "an input of rank {rank}, expected 3 or more"
        )));
    }
    if cx.opset < 21 {
        let each = dims[1].floor_div(&groups);
        for p in [&mut scale, &mut bias] {
            let q = cx.reshape(*p, vec![groups.clone(), Dim::Const(1)])?;
            let q = cx.broadcast(q, vec![groups.clone(), each.clone()])?;
            *p = cx.reshape(q, vec![dims[1].clone()])?;
        }
    }
    one(group_of(cx, x, scale, bias, groups, epsilon, t)?)
}

/// Groups of the channels of axis 1, with a scale and a bias a channel.
pub(crate) fn group_of(
    cx: &mut Ctx,
    x: ValueId,
    scale: ValueId,
    bias: ValueId,
    groups: Dim,
    epsilon: f32,
    to: DType,
) -> Result<ValueId, Fail> {
    let dims = cx.dims(x)?;
    let rank = dims.len();
    if dims[1].modulo(&groups).equals(&Dim::Const(0)) == Some(false) {
        return Err(invalid(format!(
            "{} channels, which {groups} groups do not divide",
            dims[1]
        )));
    }
    let w = cx.widen(x)?;
    let rest = dims[1].floor_div(&groups).mul(&Dim::product(&dims[2..]));
    let v = cx.reshape(w, vec![dims[0].clone(), groups, rest])?;
    let v = plain(cx, v, 2, epsilon)?;
    let v = cx.reshape(v, dims)?;
    let (scale, bias) = (per_channel(cx, scale, rank)?, per_channel(cx, bias, rank)?);
    affine(cx, v, scale, bias, to)
}

/// Over the trailing axes; the mean and the inverse deviation are optional outputs.
pub(crate) fn layer(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let epsilon = cx.float("epsilon", 1e-5)?;
    let rank = cx.rank(x)?;
    let axis = cx.axis("axis", rank)?;
    let stash = cx.dtype_attr("stash_type", DType::F32)?;
    if !stash.is_float() {
        return Err(invalid(format!(
            "attribute 'stash_type' is {stash}, expected a type of floats"
        )));
    }
    let (scale, bias) = (cx.opt(1), cx.opt(2));
    let y = normalize(cx, NormKind::Layer, x, scale, bias, axis, epsilon)?;
    let mut outs = vec![Some(y)];
    if cx.wants(1) || cx.wants(2) {
        let w = cx.widen(x)?;
        let (mean, var) = moments(cx, w, (axis..rank).collect())?;
        let d = inverse_root(cx, var, epsilon as f64)?;
        outs.extend([Some(cx.cast(mean, stash)?), Some(cx.cast(d, stash)?)]);
    }
    Ok(outs)
}

/// By the root mean square.
pub(crate) fn rms(cx: &mut Ctx) -> Outs {
    let (x, scale) = (cx.input(0)?, cx.opt(1));
    let epsilon = cx.float("epsilon", 1e-5)?;
    let rank = cx.rank(x)?;
    let axis = cx.axis("axis", rank)?;
    if let Some(scale) = scale.filter(|v| cx.g.ty(*v).shape.is_some()) {
        broadcasts_to("the scale", &cx.dims(scale)?, &cx.dims(x)?)?;
    }
    one(normalize(cx, NormKind::Rms, x, scale, None, axis, epsilon)?)
}

/// `Normalize` over axes `axis..` with optional parameters; 16-bit floats in f32.
pub(crate) fn normalize(
    cx: &mut Ctx,
    kind: NormKind,
    x: ValueId,
    scale: Option<ValueId>,
    bias: Option<ValueId>,
    axis: usize,
    epsilon: f32,
) -> Result<ValueId, Fail> {
    let t = cx.dtype(x);
    let dims = cx.dims(x)?;
    let w = cx.widen(x)?;
    let work = cx.dtype(w);
    let tail = &dims[axis..];
    let fits = |cx: &Ctx, v: Option<ValueId>| v.is_none_or(|v| cx.g.dims(v) == tail);
    let op = Op::Normalize {
        kind,
        axis,
        epsilon,
    };
    if fits(cx, scale) && fits(cx, bias) {
        let mut inputs = vec![Some(w)];
        for v in [scale, bias] {
            inputs.push(match v {
                Some(v) => Some(cx.cast(v, work)?),
                None => None,
            });
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let y = first(&cx.emit(op, inputs)?)?;
        return cx.cast(y, t);
    }
    // Parameters of other shapes broadcast to the input by the general rule.
    let y = cx.emit1(op, &[w])?;
    let mut inputs = vec![y];
    inputs.extend(scale);
    inputs.extend(bias);
    cx.pw(&inputs, |p, r| {
        let mut y = r[0];
        let mut next = 1;
        if scale.is_some() {
            let s = p.cast(r[next], work);
            y = p.bin(PwOp::Mul, y, s);
            next += 1;
        }
        if bias.is_some() {
            let b = p.cast(r[next], work);
            y = p.bin(PwOp::Add, y, b);
        }
        p.cast(y, t)
    })
}

/// `x / |x|` along an axis, by the 1- or 2-norm; 0 where the norm is 0.
pub(crate) fn lp(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let axis = cx.axis("axis", rank)?;
    let kind = match cx.int("p", 2)? {
        1 => ReduceKind::L1,
        2 => ReduceKind::L2,
        p => return Err(invalid(format!("attribute 'p' is {p}, expected 1 or 2"))),
    };
    let norm = cx.reduce(kind, x, vec![axis], true)?;
    let t = cx.dtype(x);
    one(cx.pw(&[x, norm], |p, r| {
        let zero = p.number(0.0, t);
        let none = p.test(PwOp::Eq, vec![r[1], zero]);
        let y = p.bin(PwOp::Div, r[0], r[1]);
        p.select(none, zero, y)
    })?)
}

/// `(x - mean) / (sqrt(mean(x²) - mean²) + 1e-9)`.
pub(crate) fn mean_variance(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let over = cx.axes("axes", rank)?;
    let t = cx.dtype(x);
    let w = cx.widen(x)?;
    let mean = cx.reduce(ReduceKind::Mean, w, over.clone(), true)?;
    let x2 = cx.pw(&[w], |p, r| p.bin(PwOp::Mul, r[0], r[0]))?;
    let mean2 = cx.reduce(ReduceKind::Mean, x2, over, true)?;
    one(cx.pw(&[w, mean, mean2], |p, r| {
        let u = p.dtype(r[0]);
        let m2 = p.bin(PwOp::Mul, r[1], r[1]);
        let var = p.bin(PwOp::Sub, r[2], m2);
        let d = p.un(PwOp::Sqrt, var);
        let e = p.number(1e-9, u);
        let d = p.bin(PwOp::Add, d, e);
        let y = p.bin(PwOp::Sub, r[0], r[1]);
        let y = p.bin(PwOp::Div, y, d);
        p.cast(y, t)
    })?)
}
