//! Quantized operators, decomposed: integers are centred, multiplied as i32, scaled, rounded.

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Dim, PwBuilder, PwOp, PwRef, ValueId};

use super::bytes;
use super::cast::{Rounding, to_minifloat};
use super::conv::{centred, conv_op, emit as emit_conv};
use super::packed::Weights;
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid, unsupported};

/// Least and greatest value of a quantized type.
fn range(t: DType) -> Result<(f64, f64), Fail> {
    Ok(match t {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::U4 => (0.0, 15.0),
        DType::I4 => (-8.0, 7.0),
        DType::U2 => (0.0, 3.0),
        DType::I2 => (-2.0, 1.0),
        _ => return Err(unsupported(format!("quantized type {t}"))),
    })
}

/// Scale or zero point in a shape that broadcasts to x: one number, one a position of `axis`, or
/// one a block along it.
fn spread(cx: &mut Ctx, x: ValueId, p: ValueId) -> Result<ValueId, Fail> {
    let block = cx.int("block_size", 0)?;
    let (dims, own) = (cx.dims(x)?, cx.dims(p)?);
    if own.iter().all(|d| d.is_const(1)) && block == 0 {
        return cx.reshape(p, vec![]);
    }
    // With one axis there is nothing to choose: one number, or one an element.
    if dims.len() == 1 && own.len() == 1 && block == 0 {
        return Ok(p);
    }
    let a = cx.axis("axis", dims.len())?;
    if block == 0 {
        let [n] = own.as_slice() else {
            return Err(invalid(format!("a scale of rank {}", own.len())));
        };
        let mut shape = vec![Dim::Const(1); dims.len()];
        shape[a] = n.clone();
        return cx.reshape(p, shape);
    }
    if own.len() != dims.len() {
        return Err(invalid(format!("a scale of rank {} for blocks", own.len())));
    }
    repeat_blocks(cx, p, a, block, &dims[a])
}

/// Numbers of blocks along an axis, each `block` times, cut to `size`.
pub(crate) fn repeat_blocks(
    cx: &mut Ctx,
    p: ValueId,
    axis: usize,
    block: i64,
    size: &Dim,
) -> Result<ValueId, Fail> {
    let own = cx.dims(p)?;
    let each = Dim::Const(block);
    let v = cx.unsqueeze(p, &[axis + 1])?;
    let mut wide = cx.dims(v)?;
    wide[axis + 1] = each.clone();
    let v = cx.broadcast(v, wide)?;
    let mut flat = own.clone();
    flat[axis] = own[axis].mul(&each);
    let v = cx.reshape(v, flat)?;
    cx.slice_axis(v, axis, Dim::Const(0), 1, size.clone())
}

/// `saturate(round(y) + zero)`, as type `t`.
fn saturate(
    p: &mut PwBuilder,
    y: PwRef,
    zero: Option<PwRef>,
    t: DType,
    range: (f64, f64),
) -> PwRef {
    let w = p.dtype(y);
    let mut y = p.un(PwOp::Round, y);
    if let Some(z) = zero {
        let z = p.cast(z, w);
        y = p.bin(PwOp::Add, y, z);
    }
    let (lo, hi) = (p.number(range.0, w), p.number(range.1, w));
    let y = p.bin(PwOp::Max, y, lo);
    let y = p.bin(PwOp::Min, y, hi);
    p.cast(y, t)
}

/// What a number becomes when it is quantized.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// An integer, and the least and greatest one.
    Int(DType, (f64, f64)),
    /// A float of a byte or less; whether it saturates.
    Float(DType, bool),
}

impl Target {
    pub fn of(t: DType, saturate: bool) -> Result<Target, Fail> {
        if t.is_minifloat() && t != DType::F8E8M0 {
            return Ok(Target::Float(t, saturate));
        }
        range(t).map(|r| Target::Int(t, r))
    }

    /// `y + zero`, rounded to the type.
    pub fn store(self, p: &mut PwBuilder, y: PwRef, zero: Option<PwRef>) -> PwRef {
        // Rounded numbers and zero points are exact there.
        let wide = match p.dtype(y) {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let y = p.cast(y, wide);
        match self {
            Target::Int(t, range) => saturate(p, y, zero, t, range),
            Target::Float(t, saturate) => {
                let y = shifted(p, PwOp::Add, y, zero);
                to_minifloat(p, y, t, saturate, Rounding::Up)
            }
        }
    }
}

/// A float moved by a zero point; by 0 it stays as it is, -0.0 too.
fn shifted(p: &mut PwBuilder, op: PwOp, y: PwRef, zero: Option<PwRef>) -> PwRef {
    let Some(z) = zero else { return y };
    let w = p.dtype(y);
    let (z, none) = (p.cast(z, w), p.number(0.0, w));
    let moved = p.bin(op, y, z);
    let stays = p.test(PwOp::Eq, vec![z, none]);
    p.select(stays, y, moved)
}

/// The type that a division or product is computed in: that of the scale, where it is computed with.
fn work(t: DType) -> DType {
    if t.is_float() { t } else { DType::F32 }
}

pub(crate) fn quantize(cx: &mut Ctx) -> Outs {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let stated = match cx.int("output_dtype", 0)? {
        0 => None,
        _ => Some(cx.dtype_attr("output_dtype", DType::U8)?),
    };
    let to = match (zero.map(|z| cx.dtype(z)), stated) {
        (Some(z), Some(t)) if z != t => {
            return Err(invalid(format!(
                "attribute 'output_dtype' is {t}, but the zero point is {z}"
            )));
        }
        (Some(t), _) | (None, Some(t)) => t,
        (None, None) => DType::U8,
    };
    let target = Target::of(to, cx.flag("saturate", true)?)?;
    let division = match cx.int("precision", 0)? {
        0 => work(cx.dtype(scale)),
        _ => match cx.dtype_attr("precision", DType::F32)? {
            t if t.is_float() => t,
            t => {
                return Err(invalid(format!(
                    "attribute 'precision' is {t}, expected a float"
                )));
            }
        },
    };
    let s = spread(cx, x, scale)?;
    let mut inputs = vec![x, s];
    if let Some(z) = zero {
        inputs.push(spread(cx, x, z)?);
    }
    one(cx.pw(&inputs, |p, r| {
        let (x, s) = (p.cast(r[0], division), p.cast(r[1], division));
        let y = p.bin(PwOp::Div, x, s);
        target.store(p, y, r.get(2).copied())
    })?)
}

pub(crate) fn dequantize(cx: &mut Ctx) -> Outs {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let to = match cx.int("output_dtype", 0)? {
        0 => cx.dtype(scale),
        _ => cx.dtype_attr("output_dtype", DType::F32)?,
    };
    if !to.is_float() {
        return Err(invalid(format!("an output of type {to}, expected a float"))
            .hint("attribute 'output_dtype' states it"));
    }
    let s = spread(cx, x, scale)?;
    let mut inputs = vec![x, s];
    if let Some(z) = zero {
        inputs.push(spread(cx, x, z)?);
    }
    let wide = match cx.dtype(scale) {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let y = cx.pw(&inputs, |p, r| {
        let y = difference(p, r[0], r.get(2).copied());
        let (y, s) = (p.cast(y, wide), p.cast(r[1], wide));
        let y = p.bin(PwOp::Mul, y, s);
        p.cast(y, to)
    })?;
    Weights::note(cx, y, (x, scale, zero))?;
    one(y)
}

/// A quantized number minus its zero point: integers as i32, floats as f32.
pub(crate) fn difference(p: &mut PwBuilder, x: PwRef, zero: Option<PwRef>) -> PwRef {
    if p.dtype(x).is_minifloat() {
        let y = p.cast(x, DType::F32);
        return shifted(p, PwOp::Sub, y, zero);
    }
    let y = p.cast(x, DType::I32);
    match zero {
        Some(z) => {
            let z = p.cast(z, DType::I32);
            p.bin(PwOp::Sub, y, z)
        }
        None => y,
    }
}

/// Scale and zero point from the range of the values, then u8.
pub(crate) fn dynamic_quantize(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let axes: Vec<usize> = (0..rank).collect();
    let low = cx.reduce(ReduceKind::Min, x, axes.clone(), false)?;
    let high = cx.reduce(ReduceKind::Max, x, axes, false)?;
    let t = DType::F32;
    let scale = cx.pw(&[low, high], |p, r| {
        let (zero, n) = (p.number(0.0, t), p.number(255.0, t));
        let lo = p.bin(PwOp::Min, r[0], zero);
        let hi = p.bin(PwOp::Max, r[1], zero);
        let d = p.bin(PwOp::Sub, hi, lo);
        p.bin(PwOp::Div, d, n)
    })?;
    let zero = cx.pw(&[low, scale], |p, r| {
        let z = p.number(0.0, t);
        let lo = p.bin(PwOp::Min, r[0], z);
        let y = p.bin(PwOp::Div, lo, r[1]);
        let y = p.bin(PwOp::Sub, z, y);
        // Clipped first, then rounded.
        let (a, b) = (p.number(0.0, t), p.number(255.0, t));
        let y = p.bin(PwOp::Max, y, a);
        let y = p.bin(PwOp::Min, y, b);
        let y = p.un(PwOp::Round, y);
        p.cast(y, DType::U8)
    })?;
    let y = cx.pw(&[x, scale, zero], |p, r| {
        let y = p.bin(PwOp::Div, r[0], r[1]);
        saturate(p, y, Some(r[2]), DType::U8, (0.0, 255.0))
    })?;
    Ok(vec![Some(y), Some(scale), Some(zero)])
}

/// A parameter of the left operand of a product (one number, or one a row) as it broadcasts.
pub(crate) fn rows(cx: &mut Ctx, v: ValueId) -> Result<ValueId, Fail> {
    let dims = cx.dims(v)?;
    match dims.as_slice() {
        [d] if !d.is_const(1) => cx.reshape(v, vec![d.clone(), Dim::Const(1)]),
        [_] => cx.reshape(v, vec![]),
        _ => Ok(v),
    }
}

fn maybe_rows(cx: &mut Ctx, v: Option<ValueId>) -> Result<Option<ValueId>, Fail> {
    v.map(|v| rows(cx, v)).transpose()
}

pub(crate) fn matmul_integer(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let za = maybe_rows(cx, cx.opt(2))?;
    let zb = cx.opt(3);
    one(bytes::matmul(cx, a, b, za, zb)?)
}

pub(crate) fn conv_integer(cx: &mut Ctx) -> Outs {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let zx = channel(cx, cx.opt(2), 1, 0)?;
    if let Some(y) = bytes::conv(cx, (x, zx), (w, cx.opt(3)))? {
        return one(y);
    }
    let zw = channel(cx, cx.opt(3), cx.rank(w)?, 0)?;
    let (x, w) = (centred(cx, x, zx)?, centred(cx, w, zw)?);
    let op = conv_op(cx, x, w)?;
    one(emit_conv(cx, op, x, w, None)?)
}

/// A parameter (one number, or one a channel) along `axis` of a tensor of this rank.
fn channel(
    cx: &mut Ctx,
    v: Option<ValueId>,
    rank: usize,
    axis: usize,
) -> Result<Option<ValueId>, Fail> {
    let Some(v) = v else { return Ok(None) };
    let dims = cx.dims(v)?;
    let shape = match dims.as_slice() {
        [d] if !d.is_const(1) => {
            let mut s = vec![Dim::Const(1); rank];
            match s.get_mut(axis) {
                Some(at) => *at = d.clone(),
                None => return Err(invalid(format!("an operand of rank {rank}"))),
            }
            s
        }
        _ => vec![],
    };
    cx.reshape(v, shape).map(Some)
}

/// `acc * (sa * sb / sy)`, rounded and saturated around the result's zero point.
fn requantize(
    cx: &mut Ctx,
    acc: ValueId,
    sa: ValueId,
    sb: ValueId,
    sy: ValueId,
    zy: ValueId,
) -> Result<ValueId, Fail> {
    let target = Target::of(cx.dtype(zy), true)?;
    let f = DType::F32;
    cx.pw(&[acc, sa, sb, sy, zy], |p, r| {
        let s: Vec<PwRef> = r[1..4].iter().map(|s| p.cast(*s, f)).collect();
        let m = p.bin(PwOp::Mul, s[0], s[1]);
        let m = p.bin(PwOp::Div, m, s[2]);
        let a = p.cast(r[0], f);
        let y = p.bin(PwOp::Mul, a, m);
        target.store(p, y, Some(r[4]))
    })
}

pub(crate) fn qlinear_matmul(cx: &mut Ctx) -> Outs {
    let mut v = Vec::new();
    for i in 0..8 {
        v.push(cx.input(i)?);
    }
    let (sa, za) = (rows(cx, v[1])?, rows(cx, v[2])?);
    let acc = bytes::matmul(cx, v[0], v[3], Some(za), Some(v[5]))?;
    one(requantize(cx, acc, sa, v[4], v[6], v[7])?)
}

pub(crate) fn qlinear_conv(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    one(qlinear_conv_of(cx, x)?)
}

/// The same with another image.
pub(crate) fn qlinear_conv_of(cx: &mut Ctx, x: ValueId) -> Result<ValueId, Fail> {
    let mut v = Vec::new();
    for i in 0..8 {
        v.push(cx.input(i)?);
    }
    v[0] = x;
    let (bias, rank) = (cx.opt(8), cx.rank(x)?);
    let zx = channel(cx, Some(v[2]), 1, 0)?;
    let acc = match bytes::conv(cx, (v[0], zx), (v[3], Some(v[5])))? {
        Some(y) => match channel(cx, bias, rank, 1)? {
            Some(bias) => cx.bin(PwOp::Add, y, bias)?,
            None => y,
        },
        None => {
            let zw = channel(cx, Some(v[5]), rank, 0)?;
            let (x, w) = (centred(cx, v[0], zx)?, centred(cx, v[3], zw)?);
            let op = conv_op(cx, x, w)?;
            emit_conv(cx, op, x, w, bias)?
        }
    };
    // Scales of the weights are one a channel of the result.
    let per = |cx: &mut Ctx, v| channel(cx, Some(v), rank, 1);
    let (Some(sx), Some(sw), Some(sy), Some(zy)) = (
        per(cx, v[1])?,
        per(cx, v[4])?,
        per(cx, v[6])?,
        per(cx, v[7])?,
    ) else {
        return Err(invalid("a parameter is missing"));
    };
    requantize(cx, acc, sx, sw, sy, zy)
}
