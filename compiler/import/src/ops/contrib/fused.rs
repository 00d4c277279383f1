//! Products and convolutions with what onnxruntime's optimizer has pulled into them, and a softmax with its mask.

use lapidary_graph::{DType, PwOp, ValueId};

use super::activation::Fused;
use crate::context::{Ctx, Outs, broadcasts_to, one};
use crate::error::{Fail, invalid, unsupported};
use crate::ops::{conv, matmul as products, softmax};

/// `x * alpha`, or x itself where that is 1.
fn scaled(cx: &mut Ctx, x: ValueId, alpha: f64) -> Result<ValueId, Fail> {
    if alpha == 1.0 {
        return Ok(x);
    }
    cx.pw(&[x], |p, r| {
        let k = p.number(alpha, p.dtype(r[0]));
        p.bin(PwOp::Mul, r[0], k)
    })
}

/// An operand whose first axis goes behind its batch axes, and whose last two axes change places.
fn turned(cx: &mut Ctx, x: ValueId, batch: bool, last: bool) -> Result<ValueId, Fail> {
    let rank = cx.rank(x)?;
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank < 2 {
        return Ok(x);
    }
    if batch {
        perm[..rank - 1].rotate_left(1);
    }
    if last {
        perm.swap(rank - 2, rank - 1);
    }
    cx.transpose(x, perm)
}

/// FusedMatMul, TransposeMatMul and FusedMatMulActivation: `activation(alpha * a' b')`.
pub(crate) fn matmul(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let activation = Fused::read(cx)?;
    let alpha = cx.float("alpha", 1.0)? as f64;
    let a_turns = (cx.flag("transBatchA", false)?, cx.flag("transA", false)?);
    let b_turns = (cx.flag("transBatchB", false)?, cx.flag("transB", false)?);
    let a = turned(cx, a, a_turns.0, a_turns.1)?;
    let b = turned(cx, b, b_turns.0, b_turns.1)?;
    let t = cx.dtype(a);
    let (a, b) = (cx.widen(a)?, cx.widen(b)?);
    let y = products::product(cx, a, b)?;
    let y = scaled(cx, y, alpha)?;
    let y = match activation {
        Some(f) => f.apply(cx, y)?,
        None => y,
    };
    one(cx.cast(y, t)?)
}

/// Gemm, then an activation.
pub(crate) fn gemm(cx: &mut Ctx) -> Outs {
    let activation = Fused::read(cx)?;
    let t = cx.dtype(cx.input(0)?);
    let wide = match t {
        DType::F16 | DType::BF16 => DType::F32,
        t => t,
    };
    let y = products::gemm_as(cx, wide)?;
    let y = match activation {
        Some(f) => f.apply(cx, y)?,
        None => y,
    };
    one(cx.cast(y, t)?)
}

/// A convolution, plus a tensor of the result's shape, then an activation.
pub(crate) fn convolution(cx: &mut Ctx) -> Outs {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (x, w) = conv::image_and_weights(cx, x, w)?;
    one(convolved(cx, x, w, None)?)
}

/// The convolution of x with w and the bias (input 2), its axes permuted, plus input 3, then the activation. Half floats are
/// rounded once.
pub(crate) fn convolved(
    cx: &mut Ctx,
    x: ValueId,
    w: ValueId,
    axes: Option<Vec<usize>>,
) -> Result<ValueId, Fail> {
    let activation = Fused::read(cx)?;
    let (t, bias, sum) = (cx.dtype(x), cx.opt(2), cx.opt(3));
    let op = conv::conv_op(cx, x, w)?;
    let x = cx.widen(x)?;
    let mut y = conv::emit(cx, op, x, w, bias)?;
    if let Some(axes) = axes {
        y = cx.transpose(y, axes)?;
    }
    if let Some(z) = sum {
        broadcasts_to("the sum", &cx.dims(z)?, &cx.dims(y)?)?;
        let z = cx.widen(z)?;
        y = cx.bin(PwOp::Add, y, z)?;
    }
    if let Some(f) = activation {
        y = f.apply(cx, y)?;
    }
    cx.cast(y, t)
}

/// `softmax(x + bias)` over all axes from `axis` on, as one.
pub(crate) fn bias_softmax(cx: &mut Ctx) -> Outs {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.dims(x)?;
    let axis = cx.axis("axis", dims.len())?;
    // Whichever axes the bias lacks, it has them as 1, or they are the leading ones: else it says which.
    let inner = cx.int_required("is_inner_broadcast")?;
    if inner != 0 && cx.rank(bias)? != dims.len() && cx.rank(bias)? > 1 {
        return Err(unsupported(format!(
            "a bias of rank {} that is broadcast inside of rank {}",
            cx.rank(bias)?,
            dims.len()
        ))
        .hint("give the bias all axes, those that it is broadcast along as 1"));
    }
    broadcasts_to("the bias", &cx.dims(bias)?, &dims)?;
    let t = cx.dtype(x);
    let (wide, bias) = (cx.widen(x)?, cx.widen(bias)?);
    let sum = cx.bin(PwOp::Add, wide, bias)?;
    if axis >= dims.len() {
        return Err(invalid(format!(
            "axis {axis} of an input of rank {}",
            dims.len()
        )));
    }
    let y = softmax::from_axis(cx, sum, axis, false)?;
    one(cx.cast(y, t)?)
}
