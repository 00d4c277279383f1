//! Activation functions, each written as its formula. 16-bit floats are computed in f32 and
//! rounded once.

use lapidary_graph::{Dim, PwBuilder, PwOp, PwRef};

use super::pointwise::in_f32;
use crate::context::{Ctx, Outs, broadcasts_to, one};
use crate::error::{Fail, unsupported};

/// Parameters of the function, as ONNX defaults them.
pub(crate) struct Params {
    pub alpha: f64,
    pub beta: f64,
    pub tanh: bool,
}

fn params(cx: &Ctx) -> Result<Params, Fail> {
    let (a, b) = match cx.op {
        "Celu" | "Elu" | "ThresholdedRelu" | "Swish" | "SwiGLU" => (1.0, 0.0),
        "HardSigmoid" => (0.2, 0.5),
        "LeakyRelu" => (0.01, 0.0),
        "Selu" => (1.673_263_2, 1.050_701),
        _ => (0.0, 0.0),
    };
    Ok(match cx.op {
        "Selu" => Params {
            alpha: cx.float("alpha", a)? as f64,
            beta: cx.float("gamma", b)? as f64,
            tanh: false,
        },
        "Shrink" => Params {
            alpha: cx.float("lambd", 0.5)? as f64,
            beta: cx.float("bias", 0.0)? as f64,
            tanh: false,
        },
        _ => Params {
            alpha: cx.float("alpha", a)? as f64,
            beta: cx.float("beta", b)? as f64,
            tanh: cx.op == "Gelu" && cx.choice("approximate", "none", &["none", "tanh"])? == 1,
        },
    })
}

/// Functions of one operand.
pub(crate) fn activation(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let k = params(cx)?;
    let op = cx.op;
    let t = cx.dtype(x);
    if op == "Relu" {
        return one(cx.pw(&[x], |p, r| {
            let zero = p.number(0.0, t);
            p.bin(PwOp::Max, r[0], zero)
        })?);
    }
    let mut known = true;
    let y = cx.pw(&[x], |p, r| {
        in_f32(p, r[0], |p, x| {
            formula(op, &k, p, x).unwrap_or_else(|| {
                known = false;
                x
            })
        })
    })?;
    if !known {
        return Err(unsupported("this operator is not implemented"));
    }
    one(y)
}

/// The function of a name, if it is one of this file.
pub(crate) fn formula(op: &str, k: &Params, p: &mut PwBuilder, x: PwRef) -> Option<PwRef> {
    let t = p.dtype(x);
    let n = |p: &mut PwBuilder, v: f64| p.number(v, t);
    let (zero, unit) = (n(p, 0.0), n(p, 1.0));
    let (alpha, beta) = (n(p, k.alpha), n(p, k.beta));
    Some(match op {
        "LeakyRelu" => {
            let s = p.bin(PwOp::Mul, alpha, x);
            let neg = p.test(PwOp::Lt, vec![x, zero]);
            p.select(neg, s, x)
        }
        "Elu" => {
            let e = p.un(PwOp::Exp, x);
            let e = p.bin(PwOp::Sub, e, unit);
            let e = p.bin(PwOp::Mul, alpha, e);
            let neg = p.test(PwOp::Lt, vec![x, zero]);
            p.select(neg, e, x)
        }
        "Celu" => {
            let e = p.bin(PwOp::Div, x, alpha);
            let e = p.un(PwOp::Exp, e);
            let e = p.bin(PwOp::Sub, e, unit);
            let e = p.bin(PwOp::Mul, alpha, e);
            let neg = p.bin(PwOp::Min, zero, e);
            let pos = p.bin(PwOp::Max, zero, x);
            p.bin(PwOp::Add, pos, neg)
        }
        "Selu" => {
            let e = p.un(PwOp::Exp, x);
            let e = p.bin(PwOp::Mul, alpha, e);
            let e = p.bin(PwOp::Sub, e, alpha);
            let neg = p.test(PwOp::Le, vec![x, zero]);
            let y = p.select(neg, e, x);
            p.bin(PwOp::Mul, beta, y)
        }
        "HardSigmoid" | "HardSwish" => {
            let (a, b) = match op {
                "HardSwish" => (n(p, 1.0 / 6.0), n(p, 0.5)),
                _ => (alpha, beta),
            };
            let y = p.bin(PwOp::Mul, a, x);
            let y = p.bin(PwOp::Add, y, b);
            let y = p.bin(PwOp::Min, y, unit);
            let y = p.bin(PwOp::Max, y, zero);
            match op {
                "HardSwish" => p.bin(PwOp::Mul, x, y),
                _ => y,
            }
        }
        "Softplus" => softplus(p, x),
        "Mish" => {
            let s = softplus(p, x);
            let s = p.un(PwOp::Tanh, s);
            p.bin(PwOp::Mul, x, s)
        }
        "Softsign" => {
            let a = p.un(PwOp::Abs, x);
            let a = p.bin(PwOp::Add, unit, a);
            p.bin(PwOp::Div, x, a)
        }
        "ThresholdedRelu" => {
            let above = p.test(PwOp::Gt, vec![x, alpha]);
            p.select(above, x, zero)
        }
        "Shrink" => {
            let low = p.un(PwOp::Neg, alpha);
            let (under, over) = (p.bin(PwOp::Add, x, beta), p.bin(PwOp::Sub, x, beta));
            let is_low = p.test(PwOp::Lt, vec![x, low]);
            let is_high = p.test(PwOp::Gt, vec![x, alpha]);
            let y = p.select(is_high, over, zero);
            p.select(is_low, under, y)
        }
        "Gelu" => gelu(p, x, k.tanh),
        "Swish" => swish(p, x, k.alpha),
        _ => return None,
    })
}

/// `max(x, 0) + log(1 + exp(-|x|))`, which does not overflow.
fn softplus(p: &mut PwBuilder, x: PwRef) -> PwRef {
    let t = p.dtype(x);
    let (zero, unit) = (p.number(0.0, t), p.number(1.0, t));
    let a = p.un(PwOp::Abs, x);
    let a = p.un(PwOp::Neg, a);
    let e = p.un(PwOp::Exp, a);
    let e = p.bin(PwOp::Add, unit, e);
    let l = p.un(PwOp::Log, e);
    let m = p.bin(PwOp::Max, x, zero);
    p.bin(PwOp::Add, m, l)
}

/// `x * Φ(x)`: by the error function, or approximated by a hyperbolic tangent.
pub(crate) fn gelu(p: &mut PwBuilder, x: PwRef, tanh: bool) -> PwRef {
    let t = p.dtype(x);
    let (unit, half) = (p.number(1.0, t), p.number(0.5, t));
    let y = if tanh {
        let c = p.number(0.044715, t);
        let r = p.number((2.0 / std::f64::consts::PI).sqrt(), t);
        let x2 = p.bin(PwOp::Mul, x, x);
        let x3 = p.bin(PwOp::Mul, x2, x);
        let y = p.bin(PwOp::Mul, c, x3);
        let y = p.bin(PwOp::Add, x, y);
        let y = p.bin(PwOp::Mul, r, y);
        p.un(PwOp::Tanh, y)
    } else {
        let r = p.number(std::f64::consts::FRAC_1_SQRT_2, t);
        let y = p.bin(PwOp::Mul, x, r);
        p.un(PwOp::Erf, y)
    };
    let y = p.bin(PwOp::Add, unit, y);
    let h = p.bin(PwOp::Mul, half, x);
    p.bin(PwOp::Mul, h, y)
}

/// `x * sigmoid(alpha * x)`.
pub(crate) fn swish(p: &mut PwBuilder, x: PwRef, alpha: f64) -> PwRef {
    let t = p.dtype(x);
    let a = if alpha == 1.0 {
        x
    } else {
        let k = p.number(alpha, t);
        p.bin(PwOp::Mul, k, x)
    };
    let s = p.un(PwOp::Sigmoid, a);
    p.bin(PwOp::Mul, x, s)
}

/// `x < 0 ? slope * x : x`, the slope broadcast to x.
pub(crate) fn prelu(cx: &mut Ctx) -> Outs {
    let (x, slope) = (cx.input(0)?, cx.input(1)?);
    let t = cx.dtype(x);
    // Before opset 7 a vector of slopes is one a channel.
    let (rank, mut dims) = (cx.rank(x)?, cx.dims(slope)?);
    let slope = if cx.opset < 7 && dims.len() == 1 && rank > 2 {
        dims.resize(rank - 1, Dim::Const(1));
        cx.reshape(slope, dims)?
    } else {
        slope
    };
    broadcasts_to("the slope", &cx.dims(slope)?, &cx.dims(x)?)?;
    one(cx.pw(&[x, slope], |p, r| {
        let zero = p.number(0.0, t);
        let s = p.bin(PwOp::Mul, r[1], r[0]);
        let neg = p.test(PwOp::Lt, vec![r[0], zero]);
        p.select(neg, s, r[0])
    })?)
}

/// `swish(a) * b`.
pub(crate) fn swiglu(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let k = params(cx)?;
    one(cx.pw(&[a, b], |p, r| {
        let b = r[1];
        in_f32(p, r[0], |p, a| {
            let s = swish(p, a, k.alpha);
            let t = p.dtype(s);
            let b = p.cast(b, t);
            p.bin(PwOp::Mul, s, b)
        })
    })?)
}
