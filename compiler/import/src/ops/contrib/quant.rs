//! Integer operators of the contrib domain: products with their scales, and functions of quantized tensors.

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Dim, Op, PwBuilder, PwOp, PwRef, ValueId};

use super::nhwc::channels_last;
use crate::builder::first;
use crate::context::{Ctx, Outs, broadcasts_to, one};
use crate::error::{Fail, invalid};
use crate::ops::bytes;
use crate::ops::conv::centred;
use crate::ops::matmul::gemm_labels;
use crate::ops::quant::{Target, difference, dynamic_quantize, qlinear_conv_of, rows};
use crate::ops::{pool, softmax};

/// `(a - za) (b - zb) * sa * sb + bias` as `to`. Scales and zero points: one number, or one a column (`b`) or row.
struct Product {
    a: ValueId,
    b: ValueId,
    scales: [ValueId; 2],
    zeros: [Option<ValueId>; 2],
    bias: Option<ValueId>,
}

fn to_float(cx: &mut Ctx, x: Product, to: DType) -> Result<ValueId, Fail> {
    let za = match x.zeros[0] {
        Some(z) => Some(rows(cx, z)?),
        None => None,
    };
    let y = bytes::matmul(cx, x.a, x.b, za, x.zeros[1])?;
    let mut inputs = vec![y, rows(cx, x.scales[0])?, x.scales[1]];
    for scale in &inputs[1..] {
        broadcasts_to("a scale", &cx.dims(*scale)?, &cx.dims(y)?)?;
    }
    if let Some(bias) = x.bias {
        broadcasts_to("the bias", &cx.dims(bias)?, &cx.dims(y)?)?;
        inputs.push(bias);
    }
    cx.pw(&inputs, |p, r| {
        let r: Vec<PwRef> = r.iter().map(|x| p.cast(*x, DType::F32)).collect();
        let scale = p.bin(PwOp::Mul, r[1], r[2]);
        let mut y = p.bin(PwOp::Mul, r[0], scale);
        if let Some(bias) = r.get(3) {
            y = p.bin(PwOp::Add, y, *bias);
        }
        p.cast(y, to)
    })
}

/// MatMulIntegerToFloat.
pub(crate) fn matmul_to_float(cx: &mut Ctx) -> Outs {
    let product = Product {
        a: cx.input(0)?,
        b: cx.input(1)?,
        scales: [cx.input(2)?, cx.input(3)?],
        zeros: [cx.opt(4), cx.opt(5)],
        bias: cx.opt(6),
    };
    let to = cx.dtype(product.scales[0]);
    one(to_float(cx, product, to)?)
}

/// DynamicQuantizeMatMul: the left operand is quantized by its own range.
pub(crate) fn dynamic_matmul(cx: &mut Ctx) -> Outs {
    let quantized = dynamic_quantize(cx)?;
    let [Some(a), Some(scale), Some(zero)] = quantized.as_slice() else {
        return Err(invalid("an operand is missing"));
    };
    let product = Product {
        a: *a,
        b: cx.input(1)?,
        scales: [*scale, cx.input(2)?],
        zeros: [Some(*zero), cx.opt(3)],
        bias: cx.opt(4),
    };
    one(to_float(cx, product, DType::F32)?)
}

/// QGemm: `alpha * (a - za)' (b - zb)' * sa * sb`, plus C in the scale of the product, quantized where there is a scale.
pub(crate) fn gemm(cx: &mut Ctx) -> Outs {
    let (a, sa, za) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (b, sb, zb) = (cx.input(3)?, cx.input(4)?, cx.input(5)?);
    let (ta, tb) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let alpha = cx.float("alpha", 1.0)? as f64;
    let raised = match ta {
        true => None,
        false if cx.rank(a)? != 2 || cx.rank(b)? != 2 => None,
        false => bytes::matmul_bytes(cx, (a, Some(za)), (b, Some(zb)), tb)?,
    };
    let columns = |cx: &mut Ctx, z| -> Result<ValueId, Fail> {
        // One number a column of the product, which is a row of a transposed operand.
        let d = cx.dims(z)?;
        match d.as_slice() {
            [n] if tb && !n.is_const(1) => cx.reshape(z, vec![n.clone(), Dim::Const(1)]),
            _ => Ok(z),
        }
    };
    let mut y = match raised {
        Some(y) => y,
        None => {
            let zb = columns(cx, zb)?;
            let (a, b) = (centred(cx, a, Some(za))?, centred(cx, b, Some(zb))?);
            let labels = gemm_labels(cx, a, b, (ta, tb))?;
            cx.contract(a, b, labels)?
        }
    };
    if let Some(c) = cx.opt(6) {
        broadcasts_to("C", &cx.dims(c)?, &cx.dims(y)?)?;
        y = cx.bin(PwOp::Add, y, c)?;
    }
    let mut inputs = vec![y, sa, sb];
    let out = match (cx.opt(7), cx.opt(8)) {
        (Some(s), zero) => {
            inputs.push(s);
            inputs.extend(zero);
            Some(Target::of(zero.map_or(DType::U8, |z| cx.dtype(z)), true)?)
        }
        (None, _) => None,
    };
    one(cx.pw(&inputs, |p, r| {
        let f = DType::F32;
        let scales: Vec<PwRef> = r[1..3].iter().map(|s| p.cast(*s, f)).collect();
        let mut scale = p.bin(PwOp::Mul, scales[0], scales[1]);
        if alpha != 1.0 {
            let k = p.number(alpha, f);
            scale = p.bin(PwOp::Mul, scale, k);
        }
        let y = p.cast(r[0], f);
        match out {
            Some(target) => {
                let to = p.cast(r[3], f);
                let scale = p.bin(PwOp::Div, scale, to);
                let y = p.bin(PwOp::Mul, y, scale);
                target.store(p, y, r.get(4).copied())
            }
            None => p.bin(PwOp::Mul, y, scale),
        }
    })?)
}

/// A tensor, its scale and its zero point.
#[derive(Clone, Copy)]
struct Quantized {
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
}

impl Quantized {
    /// From three inputs that follow each other.
    fn inputs(cx: &Ctx, i: usize) -> Result<Quantized, Fail> {
        Ok(Quantized {
            x: cx.input(i)?,
            scale: cx.input(i + 1)?,
            zero: cx.opt(i + 2),
        })
    }
    fn values(self, cx: &mut Ctx) -> Result<ValueId, Fail> {
        let mut inputs = vec![self.x, number(cx, self.scale)?];
        if let Some(z) = self.zero {
            inputs.push(number(cx, z)?);
        }
        cx.pw(&inputs, |p, r| {
            dequantized(p, r[0], r[1], r.get(2).copied())
        })
    }
}

/// A tensor of one number as a scalar.
fn number(cx: &mut Ctx, v: ValueId) -> Result<ValueId, Fail> {
    cx.reshape(v, vec![])
}

fn dequantized(p: &mut PwBuilder, x: PwRef, scale: PwRef, zero: Option<PwRef>) -> PwRef {
    let y = difference(p, x, zero);
    let y = p.cast(y, DType::F32);
    p.bin(PwOp::Mul, y, scale)
}

/// `x / scale`, rounded around the zero point.
fn quantized(
    cx: &mut Ctx,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    to: DType,
) -> Result<ValueId, Fail> {
    let target = Target::of(to, true)?;
    let mut inputs = vec![x, number(cx, scale)?];
    if let Some(z) = zero {
        inputs.push(number(cx, z)?);
    }
    cx.pw(&inputs, |p, r| {
        let y = p.bin(PwOp::Div, r[0], r[1]);
        target.store(p, y, r.get(2).copied())
    })
}

/// QLinearAdd and QLinearMul: of the integers, with the ratios of the scales, as onnxruntime does.
pub(crate) fn binary(cx: &mut Ctx) -> Outs {
    let (a, b) = (Quantized::inputs(cx, 0)?, Quantized::inputs(cx, 3)?);
    let target = Target::of(cx.dtype(a.x), true)?;
    let product = cx.op == "QLinearMul";
    let mut inputs = vec![a.x, b.x];
    for scale in [a.scale, b.scale, cx.input(6)?] {
        inputs.push(number(cx, scale)?);
    }
    // Where each zero point stands among the inputs.
    let mut zeros = [None; 3];
    for (at, zero) in zeros.iter_mut().zip([a.zero, b.zero, cx.opt(7)]) {
        if let Some(z) = zero {
            *at = Some(inputs.len());
            inputs.push(number(cx, z)?);
        }
    }
    one(cx.pw(&inputs, |p, r| {
        let zero = |i: usize| zeros[i].map(|at: usize| r[at]);
        let [x, y] = [0, 1].map(|i| {
            let d = difference(p, r[i], zero(i));
            p.cast(d, DType::F32)
        });
        let z = if product {
            let scale = p.bin(PwOp::Mul, r[2], r[3]);
            let scale = p.bin(PwOp::Div, scale, r[4]);
            let xy = p.bin(PwOp::Mul, x, y);
            p.bin(PwOp::Mul, xy, scale)
        } else {
            let [sx, sy] = [2, 3].map(|i| p.bin(PwOp::Div, r[i], r[4]));
            let (x, y) = (p.bin(PwOp::Mul, x, sx), p.bin(PwOp::Mul, y, sy));
            p.bin(PwOp::Add, x, y)
        };
        target.store(p, z, zero(2))
    })?)
}

/// QLinearSigmoid and QLinearLeakyRelu.
pub(crate) fn unary(cx: &mut Ctx) -> Outs {
    let x = Quantized::inputs(cx, 0)?;
    let alpha = cx.float("alpha", 0.01)? as f64;
    let to = cx.dtype(x.x);
    let v = x.values(cx)?;
    let sigmoid = cx.op == "QLinearSigmoid";
    let y = cx.pw(&[v], |p, r| {
        let x = r[0];
        if sigmoid {
            return p.un(PwOp::Sigmoid, x);
        }
        let (zero, k) = (p.number(0.0, DType::F32), p.number(alpha, DType::F32));
        let low = p.bin(PwOp::Mul, x, k);
        let below = p.test(PwOp::Lt, vec![x, zero]);
        p.select(below, low, x)
    })?;
    one(quantized(cx, y, cx.input(3)?, cx.opt(4), to)?)
}

/// QLinearSoftmax: by the rule of the opset that the attribute names.
pub(crate) fn soft(cx: &mut Ctx) -> Outs {
    let x = Quantized::inputs(cx, 0)?;
    let to = cx.dtype(x.x);
    let rank = cx.rank(x.x)?;
    let opset = cx.int_required("opset")?;
    let v = x.values(cx)?;
    let a = cx.axis("axis", rank)?;
    let y = match opset {
        13.. => softmax::along(cx, v, a, false)?,
        _ => softmax::from_axis(cx, v, a, false)?,
    };
    one(quantized(cx, y, cx.input(3)?, cx.opt(4), to)?)
}

/// QLinearConcat: parts with scales of their own, in one scale.
pub(crate) fn concat(cx: &mut Ctx) -> Outs {
    let (scale, zero) = (cx.input(0)?, cx.input(1)?);
    let count = cx.inputs.len().saturating_sub(2);
    if count == 0 || !count.is_multiple_of(3) {
        return Err(invalid(format!(
            "{count} inputs behind the first two, expected three for each part: tensor, scale, zero point"
        )));
    }
    let to = cx.dtype(zero);
    let mut parts = Vec::new();
    for i in 0..count / 3 {
        let v = Quantized::inputs(cx, 2 + 3 * i)?.values(cx)?;
        parts.push(quantized(cx, v, scale, Some(zero), to)?);
    }
    let rank = cx.rank(parts[0])?;
    let a = cx.axis("axis", rank)?;
    one(cx.concat(&parts, a)?)
}

/// QLinearAveragePool and QLinearGlobalAveragePool.
pub(crate) fn average(cx: &mut Ctx) -> Outs {
    let x = Quantized::inputs(cx, 0)?;
    let (to, rank) = (cx.dtype(x.x), cx.rank(x.x)?);
    if rank < 3 {
        return Err(invalid(format!(
            "an input of rank {rank}, expected 3 or more"
        )));
    }
    let last = cx.flag("channels_last", false)?;
    let (forth, back) = channels_last(rank);
    let mut v = x.values(cx)?;
    if last {
        v = cx.transpose(v, forth)?;
    }
    v = match cx.op {
        "QLinearGlobalAveragePool" => cx.reduce(ReduceKind::Mean, v, (2..rank).collect(), true)?,
        _ => first(
            &pool::pool_of(cx, v)?
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        )?,
    };
    if last {
        v = cx.transpose(v, back)?;
    }
    one(quantized(cx, v, cx.input(3)?, cx.opt(4), to)?)
}

/// QLinearConv of the contrib domain: ONNX's, and channels may come last.
pub(crate) fn convolution(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    if !cx.flag("channels_last", false)? {
        return one(qlinear_conv_of(cx, x)?);
    }
    let (forth, back) = channels_last(rank);
    let x = cx.transpose(x, forth)?;
    let y = qlinear_conv_of(cx, x)?;
    one(cx.emit1(Op::Transpose { perm: back }, &[y])?)
}

/// QLinearWhere: of two tensors with scales of their own, in one scale.
pub(crate) fn where_(cx: &mut Ctx) -> Outs {
    let condition = cx.input(0)?;
    let (a, b) = (Quantized::inputs(cx, 1)?, Quantized::inputs(cx, 4)?);
    let to = cx.dtype(a.x);
    let (scale, zero) = (cx.input(7)?, cx.opt(8));
    let a = a.values(cx)?;
    let a = quantized(cx, a, scale, zero, to)?;
    let b = b.values(cx)?;
    let b = quantized(cx, b, scale, zero, to)?;
    one(cx.pw(&[condition, a, b], |p, r| p.select(r[0], r[1], r[2]))?)
}

/// QLinearReduceMean.
pub(crate) fn reduce_mean(cx: &mut Ctx) -> Outs {
    let x = Quantized::inputs(cx, 0)?;
    let (to, rank) = (cx.dtype(x.x), cx.rank(x.x)?);
    let mut over = cx.axes("axes", rank)?;
    if over.is_empty() {
        over = (0..rank).collect();
    }
    let keep = cx.flag("keepdims", true)?;
    let v = x.values(cx)?;
    let v = cx.reduce(ReduceKind::Mean, v, over, keep)?;
    one(quantized(cx, v, cx.input(3)?, cx.opt(4), to)?)
}
