//! Pooling: windows, whole images, and windows over channels (LRN).

use lapidary_graph::op::{Layout, PoolKind, ReduceKind, Window};
use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use super::conv::{AutoPad, Shape, constants};
use super::pointwise::in_f32;
use crate::builder::LibOut;
use crate::context::{Ctx, Outs, one};
use crate::dims::dmin;
use crate::error::{Fail, invalid};

/// MaxPool, AveragePool, LpPool.
///
/// Library `max_pool`, where the positions are wanted too. Inputs: x, pads before (i64) where they follow from sizes. Ints: storage_order, number
/// of spatial axes n, then n each of kernel, strides, dilations, pads before. Outputs: y, indices
/// (i64, into the flattened input); dimensions as stated.
pub(crate) fn pool(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    pool_of(cx, x)
}

/// The same over another image.
pub(crate) fn pool_of(cx: &mut Ctx, x: ValueId) -> Outs {
    let kernel = cx
        .ints("kernel_shape")?
        .ok_or_else(|| invalid("attribute 'kernel_shape' is missing"))?;
    let x = cx.with_rank(x, kernel.len() + 2)?;
    let dims = cx.dims(x)?;
    if dims.len() != kernel.len() + 2 {
        return Err(invalid(format!(
            "a kernel of {} axes over an input of rank {}",
            kernel.len(),
            dims.len()
        )));
    }
    let space = &dims[2..];
    let shape = Shape::read(cx, constants(kernel))?;
    let window = shape.window(space);
    let out = out_sizes(&shape, &window, space, cx.zero_or_one("ceil_mode", false)?);
    let kind = match cx.op {
        "MaxPool" | "NhwcMaxPool" => PoolKind::Max,
        "AveragePool" | "QLinearAveragePool" => PoolKind::Average {
            count_padding: cx.flag("count_include_pad", false)?,
        },
        _ => PoolKind::Lp { p: cx.int("p", 2)? },
    };
    if cx.op == "MaxPool" && cx.wants(1) {
        let pads: Option<Vec<i64>> = window.pads_begin.iter().map(Dim::as_const).collect();
        let mut inputs = vec![Some(x)];
        if pads.is_none() {
            let n = [kernel.len() as i64];
            inputs.push(Some(cx.materialise(window.pads_begin, &n, DType::I64)?));
        }
        let pads = pads.unwrap_or_else(|| vec![0; kernel.len()]);
        let mut ints = vec![cx.int("storage_order", 0)?, kernel.len() as i64];
        for list in [kernel, &shape.strides, &shape.dilations, &pads] {
            ints.extend(list);
        }
        let all: Vec<Dim> = dims[..2].iter().cloned().chain(out).collect();
        let outs = vec![
            LibOut::fixed(cx.dtype(x), all.clone()),
            LibOut::fixed(DType::I64, all),
        ];
        let v = cx.library("max_pool", ints, vec![], inputs, outs);
        return crate::context::all(v);
    }
    one(emit(cx, x, kind, window, out)?)
}

/// ONNX's sizes: in ceil mode the last window may hang over, but must start inside.
fn out_sizes(shape: &Shape, window: &Window, space: &[Dim], ceil: bool) -> Vec<Dim> {
    let mut out = Vec::new();
    for (i, d) in space.iter().enumerate() {
        let s = Dim::Const(shape.strides[i]);
        if matches!(shape.auto, AutoPad::SameUpper | AutoPad::SameLower) {
            out.push(d.ceil_div(&s));
            continue;
        }
        let padded = d.add(&window.pads_begin[i]).add(&window.pads_end[i]);
        let room = padded.sub(&shape.reach(i));
        let unit = Dim::Const(1);
        out.push(if ceil && shape.auto == AutoPad::Explicit {
            let last = d.add(&window.pads_begin[i]).ceil_div(&s);
            dmin(&room.ceil_div(&s).add(&unit), &last)
        } else {
            room.floor_div(&s).add(&unit)
        });
    }
    out
}

fn emit(
    cx: &mut Ctx,
    x: ValueId,
    kind: PoolKind,
    window: Window,
    out: Vec<Dim>,
) -> Result<ValueId, Fail> {
    let t = cx.dtype(x);
    // Bytes are exact in f32, for which there is the better code.
    let least = match t {
        DType::U8 => Some(0.0),
        DType::I8 => Some(-128.0),
        _ => None,
    };
    let w = match least {
        Some(_) => cx.cast(x, DType::F32)?,
        None => cx.widen(x)?,
    };
    let mut y = cx.emit1(Op::Pool { kind, window, out }, &[w])?;
    if let Some(least) = least {
        // A window of padding alone.
        y = cx.pw(&[y], |p, r| {
            let least = p.number(least, DType::F32);
            p.bin(PwOp::Max, r[0], least)
        })?;
    }
    cx.cast(y, t)
}

/// Pools over all spatial axes: reductions.
pub(crate) fn global(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    if rank < 2 {
        return Err(invalid(format!(
            "an input of rank {rank}, expected 3 or more"
        )));
    }
    let axes: Vec<usize> = (2..rank).collect();
    let kind = match (cx.op, cx.int("p", 2)?) {
        ("GlobalAveragePool", _) => ReduceKind::Mean,
        ("GlobalMaxPool", _) => ReduceKind::Max,
        (_, 1) => ReduceKind::L1,
        (_, 2) => ReduceKind::L2,
        (_, p) => {
            // (sum |x|^p)^(1/p)
            let t = cx.dtype(x);
            let powers = power(cx, x, p as f64, true)?;
            let sum = cx.reduce(ReduceKind::Sum, powers, axes, true)?;
            let root = power(cx, sum, 1.0 / p as f64, false)?;
            return one(cx.cast(root, t)?);
        }
    };
    one(cx.reduce(kind, x, axes, true)?)
}

fn power(cx: &mut Ctx, x: ValueId, e: f64, abs: bool) -> Result<ValueId, Fail> {
    cx.pw(&[x], |p, r| {
        in_f32(p, r[0], |p, x| {
            let t = p.dtype(x);
            let a = if abs { p.un(PwOp::Abs, x) } else { x };
            let e = p.number(e, t);
            p.bin(PwOp::Pow, a, e)
        })
    })
}

/// `x / (bias + alpha * mean of squares over neighbouring channels) ^ beta`: the mean is an average
/// pool over the channel axis.
pub(crate) fn lrn(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let (alpha, beta) = (cx.float("alpha", 1e-4)?, cx.float("beta", 0.75)?);
    let (bias, size) = (cx.float("bias", 1.0)?, cx.int_required("size")?);
    let dims = cx.dims(x)?;
    if dims.len() < 2 || size < 1 {
        return Err(invalid(format!(
            "an input of rank {}, a size of {size}",
            dims.len()
        )));
    }
    let x2 = cx.pw(&[x], |p, r| p.bin(PwOp::Mul, r[0], r[0]))?;
    let rest = Dim::product(&dims[2..]);
    let image = vec![
        dims[0].clone(),
        Dim::Const(1),
        dims[1].clone(),
        rest.clone(),
    ];
    let v = cx.reshape(x2, image)?;
    let before = (size - 1) / 2;
    let window = Window {
        kernel: vec![Dim::Const(size), Dim::Const(1)],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads_begin: vec![Dim::Const(before), Dim::Const(0)],
        pads_end: vec![Dim::Const(size - 1 - before), Dim::Const(0)],
        layout: Layout::ChannelsFirst,
    };
    let kind = PoolKind::Average {
        count_padding: true,
    };
    let mean = emit(cx, v, kind, window, vec![dims[1].clone(), rest])?;
    let mean = cx.reshape(mean, dims)?;
    one(cx.pw(&[mean, x], |p, r| {
        let x = r[1];
        in_f32(p, r[0], |p, m| {
            let t = p.dtype(m);
            let x = p.cast(x, t);
            let n = [alpha, bias, beta].map(|v| p.number(v as f64, t));
            let d = p.bin(PwOp::Mul, n[0], m);
            let d = p.bin(PwOp::Add, n[1], d);
            let d = p.bin(PwOp::Pow, d, n[2]);
            p.bin(PwOp::Div, x, d)
        })
    })?)
}
