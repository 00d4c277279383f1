//! Operators that differ from ONNX's of nearly the same name in how their operands are written.

use crate::context::{Ctx, Outs, one};
use crate::error::{invalid, unsupported};
use crate::ops::{generate, library, views};

/// ExpandDims: a new axis of size 1, at a place that input 1 tells.
pub(crate) fn expand_dims(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let Some(at) = cx.axis_if_known("axis", rank + 1)? else {
        return Err(unsupported(
            "input 1 ('axis') that is known at run time only",
        ));
    };
    one(cx.unsqueeze(x, &[at])?)
}

/// Pad: pads and value are inputs, as in opset 11.
pub(crate) fn pad(cx: &mut Ctx) -> Outs {
    cx.opset = 11;
    if let Some(pads) = cx.opt(1)
        && cx.rank(pads)? == 2
    {
        let pads = cx.squeeze(pads, &[0])?;
        cx.inputs[1] = Some(pads);
    }
    views::pad(cx)
}

/// Range, whose step may be left out.
pub(crate) fn range(cx: &mut Ctx) -> Outs {
    if cx.opt(2).is_none() {
        let t = cx.dtype(cx.input(0)?);
        let step = cx.scalar(t, 1.0);
        cx.inputs.resize(3, None);
        cx.inputs[2] = Some(step);
    }
    for i in 0..3 {
        let v = cx.input(i)?;
        let v = cx.reshape(v, vec![])?;
        cx.inputs[i] = Some(v);
    }
    generate::range(cx)
}

/// Unique: by first occurrence, without their places.
pub(crate) fn unique(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    if cx.dtype(x).is_complex() {
        return Err(unsupported("complex numbers"));
    }
    if cx.rank(x)? != 1 {
        return Err(invalid(format!(
            "an input of rank {}, expected 1",
            cx.rank(x)?
        )));
    }
    match library::unique_of(cx, x, false, None)?.as_slice() {
        [y, _, inverse, counts] => Ok(vec![Some(*y), Some(*inverse), Some(*counts)]),
        _ => Err(invalid("a result is missing")),
    }
}
