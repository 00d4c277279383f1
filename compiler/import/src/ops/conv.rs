//! Convolutions: windows with explicit or automatic padding.

use lapidary_graph::op::{Layout, Window};
use lapidary_graph::{Dim, Op, ValueId};

use super::activation::swish;
use super::pointwise::in_f32;
use crate::builder::first;
use crate::context::{Ctx, Outs, broadcasts_to, one, same};
use crate::dims::at_least_0;
use crate::error::{Fail, invalid};

/// How the pads are found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
    Valid,
}

/// The window's attributes before padding is settled.
pub(crate) struct Shape {
    pub kernel: Vec<Dim>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    pub auto: AutoPad,
    pub pads: Vec<i64>,
}

impl Shape {
    /// Reads strides, dilations and pads for a kernel.
    pub fn read(cx: &Ctx, kernel: Vec<Dim>) -> Result<Shape, Fail> {
        let n = kernel.len();
        let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>, Fail> {
            match cx.ints(name)? {
                None => Ok(vec![default; len]),
                Some(v) if v.len() == len => Ok(v.to_vec()),
                Some(v) => Err(invalid(format!(
                    "attribute '{name}' has {} entries, expected {len}",
                    v.len()
                ))),
            }
        };
        let names = ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", ""];
        let auto = match cx.choice("auto_pad", "NOTSET", &names)? {
            1 => AutoPad::SameUpper,
            2 => AutoPad::SameLower,
            3 => AutoPad::Valid,
            _ => AutoPad::Explicit,
        };
        let s = Shape {
            strides: list("strides", n, 1)?,
            dilations: list("dilations", n, 1)?,
            pads: list("pads", 2 * n, 0)?,
            auto,
            kernel,
        };
        let bad = |x: i64| x < 1 || x > i32::MAX as i64;
        let kernel = s.kernel.iter().filter_map(Dim::as_const);
        let mut numbers = kernel.chain(s.strides.iter().chain(&s.dilations).copied());
        if numbers.any(bad) {
            return Err(invalid(format!(
                "kernel [{}], strides {:?}, dilations {:?}, expected numbers of 1 and more",
                crate::context::dims_text(&s.kernel),
                s.strides,
                s.dilations
            )));
        }
        Ok(s)
    }

    /// What the dilated kernel covers along axis `i`.
    pub fn reach(&self, i: usize) -> Dim {
        let unit = Dim::Const(1);
        let steps = self.kernel[i].sub(&unit);
        steps.mul(&Dim::Const(self.dilations[i])).add(&unit)
    }

    /// The window over an input of these sizes.
    pub fn window(&self, input: &[Dim]) -> Window {
        let n = self.kernel.len();
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        for (i, d) in input.iter().enumerate().take(n) {
            let (b, e) = match self.auto {
                AutoPad::Valid => (Dim::Const(0), Dim::Const(0)),
                AutoPad::Explicit => (Dim::Const(self.pads[i]), Dim::Const(self.pads[i + n])),
                _ => {
                    let s = Dim::Const(self.strides[i]);
                    let out = d.ceil_div(&s);
                    let total = out.sub(&Dim::Const(1)).mul(&s).sub(d);
                    let total = at_least_0(&total.add(&self.reach(i)));
                    halves(&total, self.auto == AutoPad::SameUpper)
                }
            };
            begin.push(b);
            end.push(e);
        }
        Window {
            kernel: self.kernel.clone(),
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads_begin: begin,
            pads_end: end,
            layout: Layout::ChannelsFirst,
        }
    }
}

/// Two halves; the odd one goes to the end, or (not `upper`) to the beginning.
fn halves(total: &Dim, upper: bool) -> (Dim, Dim) {
    let half = total.floor_div(&Dim::Const(2));
    let rest = total.sub(&half);
    if upper { (half, rest) } else { (rest, half) }
}

/// The sizes of a kernel that an attribute gives.
pub(crate) fn constants(kernel: &[i64]) -> Vec<Dim> {
    kernel.iter().map(|k| Dim::Const(*k)).collect()
}

/// Spatial sizes of the input, and the kernel: the attribute's or the weights' own.
fn sizes(cx: &mut Ctx, x: ValueId, w: ValueId) -> Result<(Vec<Dim>, Vec<Dim>), Fail> {
    let dims = cx.dims(x)?;
    if dims.len() < 2 {
        return Err(invalid(format!(
            "an input of rank {}, expected 3 or more",
            dims.len()
        )));
    }
    let space = dims[2..].to_vec();
    let kernel = match cx.ints("kernel_shape")? {
        Some(k) => constants(k),
        None => cx.dims(w)?.into_iter().skip(2).collect(),
    };
    if kernel.len() != space.len() {
        return Err(invalid(format!(
            "a kernel of {} axes over an input of {} spatial axes",
            kernel.len(),
            space.len()
        )));
    }
    Ok((space, kernel))
}

/// Emits `op` on x, w and an optional bias; 16-bit floats in f32.
pub(crate) fn emit(
    cx: &mut Ctx,
    op: Op,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, Fail> {
    let t = cx.dtype(x);
    let mut inputs = Vec::new();
    for v in [Some(x), Some(w), bias].into_iter().flatten() {
        inputs.push(Some(cx.widen(v)?));
    }
    let v = first(&cx.emit(op, inputs)?)?;
    cx.cast(v, t)
}

/// Image and weights, which are of one rank: that of one of them is enough.
pub(crate) fn image_and_weights(
    cx: &mut Ctx,
    x: ValueId,
    w: ValueId,
) -> Result<(ValueId, ValueId), Fail> {
    let rank = cx.rank(w).or_else(|_| cx.rank(x))?;
    Ok((cx.with_rank(x, rank)?, cx.with_rank(w, rank)?))
}

pub(crate) fn conv(cx: &mut Ctx) -> Outs {
    let (x, w, b) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let (x, w) = image_and_weights(cx, x, w)?;
    let op = conv_op(cx, x, w)?;
    one(emit(cx, op, x, w, b)?)
}

/// The operator for an image and weights, from the node's attributes.
pub(crate) fn conv_op(cx: &mut Ctx, x: ValueId, w: ValueId) -> Result<Op, Fail> {
    let (space, kernel) = sizes(cx, x, w)?;
    let shape = Shape::read(cx, kernel)?;
    Ok(Op::Conv {
        window: shape.window(&space),
        groups: Dim::Const(cx.int("group", 1)?),
    })
}

pub(crate) fn conv_transpose(cx: &mut Ctx) -> Outs {
    let (x, w, b) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let (x, w) = image_and_weights(cx, x, w)?;
    let (space, kernel) = sizes(cx, x, w)?;
    let n = space.len();
    let shape = Shape::read(cx, kernel)?;
    let extra = match cx.ints("output_padding")? {
        Some(p) if p.len() == n => p.to_vec(),
        Some(p) if !p.is_empty() => {
            return Err(invalid(format!(
                "attribute 'output_padding' has {} entries, expected {n}",
                p.len()
            )));
        }
        _ => vec![0; n],
    };
    // Old files state all axes, batch and channels too.
    let stated = match cx.ints("output_shape")? {
        Some(s) if s.len() == n => Some(s.to_vec()),
        Some(s) if s.len() == n + 2 => Some(s[2..].to_vec()),
        Some(s) if !s.is_empty() => {
            return Err(invalid(format!(
                "attribute 'output_shape' has {} entries, expected {n}",
                s.len()
            )));
        }
        _ => None,
    };
    let mut window = shape.window(&space);
    for (i, d) in space.iter().enumerate() {
        let s = Dim::Const(shape.strides[i]);
        let target = match (&stated, shape.auto) {
            (Some(t), _) => Dim::Const(t[i]),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => d.mul(&s),
            _ => continue,
        };
        let full = d.sub(&Dim::Const(1)).mul(&s);
        let full = full.add(&Dim::Const(extra[i])).add(&shape.reach(i));
        let upper = shape.auto == AutoPad::SameUpper;
        let (begin, end) = halves(&full.sub(&target), upper);
        window.pads_begin[i] = begin;
        window.pads_end[i] = end;
    }
    let op = Op::ConvTranspose {
        window,
        groups: cx.int("group", 1)?,
        output_padding: extra,
    };
    one(emit(cx, op, x, w, b)?)
}

/// A depthwise convolution over the past: the state (or zeros), then the input.
pub(crate) fn causal_conv(cx: &mut Ctx) -> Outs {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (bias, state) = (cx.opt(2), cx.opt(3));
    let act = cx.choice("activation", "none", &["none", "silu", "swish"])?;
    let (dims, weights) = (cx.dims(x)?, cx.dims(w)?);
    let ([channels, _, k], [_, _, length]) = (weights.as_slice(), dims.as_slice()) else {
        return Err(invalid(format!(
            "an input of rank {} and weights of rank {}, expected 3 and 3",
            dims.len(),
            weights.len()
        )));
    };
    same(
        "the channels of the input and the weights",
        &dims[1],
        channels,
    )?;
    let past = k.sub(&Dim::Const(1));
    if let Some(s) = state {
        let state = cx.dims(s)?;
        let expected = [dims[0].clone(), dims[1].clone(), past.clone()];
        if state.len() != 3 {
            return Err(invalid(format!(
                "a state of rank {}, expected 3",
                state.len()
            )));
        }
        for (a, b) in state.iter().zip(&expected) {
            same("dimensions of the state and what it must have", a, b)?;
        }
    }
    let all = match state {
        Some(s) => {
            // What could not be compared is, when it runs.
            let expected = vec![dims[0].clone(), dims[1].clone(), past.clone()];
            let s = cx.reshape(s, expected)?;
            cx.concat(&[s, x], 2)?
        }
        None => {
            let zero = Dim::Const(0);
            let op = Op::Pad {
                before: vec![zero.clone(), zero.clone(), past.clone()],
                after: vec![zero.clone(), zero.clone(), zero],
                mode: lapidary_graph::op::PadMode::Constant,
            };
            cx.emit1(op, &[x])?
        }
    };
    let window = Window {
        kernel: vec![k.clone()],
        strides: vec![1],
        dilations: vec![1],
        pads_begin: vec![Dim::Const(0)],
        pads_end: vec![Dim::Const(0)],
        layout: Layout::ChannelsFirst,
    };
    let op = Op::Conv {
        window,
        groups: channels.clone(),
    };
    let mut y = emit(cx, op, all, w, bias)?;
    if act != 0 {
        y = cx.pw(&[y], |p, r| in_f32(p, r[0], |p, x| swish(p, x, 1.0)))?;
    }
    let length = length.clone();
    let present = cx.slice_axis(all, 2, length, 1, past)?;
    Ok(vec![Some(y), Some(present)])
}

/// `x - zero` as i32, where there is a zero point; its shape must broadcast to x's.
pub(crate) fn centred(cx: &mut Ctx, x: ValueId, zero: Option<ValueId>) -> Result<ValueId, Fail> {
    let mut shape = None;
    if let (Some(z), Ok(dims)) = (zero, cx.dims(x))
        && let Ok(from) = cx.dims(z)
    {
        broadcasts_to("the zero point", &from, &dims)?;
        // What could not be compared is, when it runs.
        let mut pairs = from.iter().rev().zip(dims.iter().rev());
        let certain = pairs.all(|(a, b)| a.is_const(1) || a.equals(b) == Some(true));
        shape = (!certain).then_some(dims);
    }
    let mut inputs = vec![x];
    inputs.extend(zero);
    cx.pw_shaped(&inputs, shape, |p, r| {
        super::quant::difference(p, r[0], r.get(1).copied())
    })
}
