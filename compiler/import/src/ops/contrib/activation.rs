//! Activations, alone, behind a bias, and behind a fused product.

use lapidary_graph::{Dim, PwBuilder, PwOp, PwRef, ValueId};

use crate::context::{Ctx, Outs, broadcasts_to, one, same};
use crate::error::{Fail, invalid, unsupported};
use crate::ops::activation::{Params, formula, gelu, swish};
use crate::ops::pointwise::in_f32;

/// Gelu, FastGelu, BiasGelu and QuickGelu: of input 0, with an optional bias as input 1.
pub(crate) fn activation(cx: &mut Ctx) -> Outs {
    let (x, bias) = (cx.input(0)?, cx.opt(1));
    let alpha = cx.float("alpha", 1.702)? as f64;
    let op = cx.op;
    let mut inputs = vec![x];
    if let Some(b) = bias {
        broadcasts_to("the bias", &cx.dims(b)?, &cx.dims(x)?)?;
        inputs.push(b);
    }
    one(cx.pw(&inputs, |p, r| {
        let bias = r.get(1).copied();
        in_f32(p, r[0], |p, x| {
            let x = match bias {
                Some(b) => {
                    let b = p.cast(b, p.dtype(x));
                    p.bin(PwOp::Add, x, b)
                }
                None => x,
            };
            match op {
                "QuickGelu" => swish(p, x, alpha),
                _ => gelu(p, x, op == "FastGelu"),
            }
        })
    })?)
}

/// BiasSplitGelu: with the bias, the left half of the features times Gelu of the right half.
pub(crate) fn split(cx: &mut Ctx) -> Outs {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.dims(x)?;
    let Some(width) = dims.last() else {
        return Err(invalid("an input of rank 0, expected 3"));
    };
    broadcasts_to("the bias", &cx.dims(bias)?, &dims)?;
    let half = width.floor_div(&Dim::Const(2));
    same(
        "the width and that of two halves",
        width,
        &half.mul(&Dim::Const(2)),
    )?;
    let mut halves = Vec::new();
    for start in [Dim::Const(0), half.clone()] {
        halves.push(cx.slice_axis(x, dims.len() - 1, start.clone(), 1, half.clone())?);
        halves.push(cx.slice_axis(bias, 0, start, 1, half.clone())?);
    }
    one(cx.pw(&halves, |p, r| {
        let right = [r[2], r[3], r[1]];
        in_f32(p, r[0], |p, left| {
            let [x, b, c] = right.map(|v| p.cast(v, p.dtype(left)));
            let left = p.bin(PwOp::Add, left, c);
            let right = p.bin(PwOp::Add, x, b);
            let y = gelu(p, right, false);
            p.bin(PwOp::Mul, left, y)
        })
    })?)
}

/// BiasAdd: input, bias and residual.
pub(crate) fn bias_add(cx: &mut Ctx) -> Outs {
    let (x, bias, skip) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let dims = cx.dims(x)?;
    broadcasts_to("the bias", &cx.dims(bias)?, &dims)?;
    broadcasts_to("the skip", &cx.dims(skip)?, &dims)?;
    one(cx.pw(&[x, bias, skip], |p, r| {
        let more = [r[1], r[2]];
        in_f32(p, r[0], |p, x| {
            let [b, s] = more.map(|v| p.cast(v, p.dtype(x)));
            let y = p.bin(PwOp::Add, x, b);
            p.bin(PwOp::Add, y, s)
        })
    })?)
}

/// What a fused operator applies to its result.
pub(crate) struct Fused {
    name: String,
    params: Params,
}

impl Fused {
    /// The attribute `activation`, with parameters from a list or from attributes of their own.
    pub fn read(cx: &Ctx) -> Result<Option<Fused>, Fail> {
        let name = cx.string("activation", "")?;
        let list = cx.floats("activation_params")?.unwrap_or(&[]);
        let param = |i: usize, attribute: &str, default: f32| -> Result<f64, Fail> {
            Ok(match list.get(i) {
                Some(v) => *v as f64,
                None => cx.float(attribute, default)? as f64,
            })
        };
        let (alpha, beta) = match name {
            "" | "Identity" => return Ok(None),
            "LeakyRelu" => (0.01, 0.0),
            "HardSigmoid" => (0.2, 0.5),
            "Clip" => (f32::MIN, f32::MAX),
            "Elu" | "ThresholdedRelu" => (1.0, 0.0),
            "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" => (0.0, 0.0),
            _ => {
                return Err(unsupported(format!("attribute 'activation' is '{name}'"))
                    .hint("Relu, LeakyRelu, Tanh, Sigmoid, HardSigmoid, Clip, Elu, Softplus, Softsign and ThresholdedRelu are handled"));
            }
        };
        Ok(Some(Fused {
            name: name.to_string(),
            params: Params {
                alpha: param(0, "activation_alpha", alpha)?,
                beta: param(1, "activation_beta", beta)?,
                tanh: false,
            },
        }))
    }

    fn formula(&self, p: &mut PwBuilder, x: PwRef) -> PwRef {
        let t = p.dtype(x);
        match self.name.as_str() {
            "Relu" => {
                let zero = p.number(0.0, t);
                p.bin(PwOp::Max, x, zero)
            }
            "Tanh" => p.un(PwOp::Tanh, x),
            "Sigmoid" => p.un(PwOp::Sigmoid, x),
            "Clip" => {
                let (low, high) = (
                    p.number(self.params.alpha, t),
                    p.number(self.params.beta, t),
                );
                let x = p.bin(PwOp::Max, x, low);
                p.bin(PwOp::Min, x, high)
            }
            name => formula(name, &self.params, p, x).unwrap_or(x),
        }
    }

    /// Applied to a value.
    pub fn apply(&self, cx: &mut Ctx, x: ValueId) -> Result<ValueId, Fail> {
        cx.pw(&[x], |p, r| in_f32(p, r[0], |p, x| self.formula(p, x)))
    }
}
