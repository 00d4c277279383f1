//! Preparation of features of ai.onnx.ml.

use lapidary_graph::op::{PadMode, ReduceKind};
use lapidary_graph::{DType, Dim, Op, PwOp, Scalar, TensorData, ValueId};

use crate::builder::int_data;
use crate::context::{Ctx, Outs, one};
use crate::error::invalid;

/// A constant f32 vector.
fn vector(cx: &mut Ctx, v: &[f32]) -> ValueId {
    cx.constant(TensorData::from_f32(vec![v.len() as i64], v))
}

/// `(x - offset) * scale`.
pub(crate) fn scaler(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let x = cx.cast(x, DType::F32)?;
    let (offset, scale) = (cx.floats("offset")?, cx.floats("scale")?);
    let (offset, scale) = (offset.unwrap_or(&[0.0]), scale.unwrap_or(&[1.0]));
    let (o, s) = (vector(cx, offset), vector(cx, scale));
    one(cx.pw(&[x, o, s], |p, r| {
        let y = p.bin(PwOp::Sub, r[0], r[1]);
        p.bin(PwOp::Mul, y, r[2])
    })?)
}

/// `x / norm`, x itself where the norm is 0.
pub(crate) fn normalizer(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let x = cx.cast(x, DType::F32)?;
    let kind = match cx.choice("norm", "MAX", &["MAX", "L1", "L2"])? {
        0 => ReduceKind::Max,
        1 => ReduceKind::L1,
        _ => ReduceKind::L2,
    };
    let axis = cx
        .rank(x)?
        .checked_sub(1)
        .ok_or_else(|| invalid("a scalar input"))?;
    let norm = cx.reduce(kind, x, vec![axis], true)?;
    one(cx.pw(&[x, norm], |p, r| {
        let zero = p.number(0.0, DType::F32);
        let none = p.test(PwOp::Eq, vec![r[1], zero]);
        let y = p.bin(PwOp::Div, r[0], r[1]);
        p.select(none, r[0], y)
    })?)
}

/// 1 above the threshold, else 0.
pub(crate) fn binarizer(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let (t, limit) = (cx.dtype(x), cx.float("threshold", 0.0)? as f64);
    one(cx.pw(&[x], |p, r| {
        let k = p.number(limit, t);
        let above = p.test(PwOp::Gt, vec![r[0], k]);
        let (a, b) = (p.number(1.0, t), p.number(0.0, t));
        p.select(above, a, b)
    })?)
}

/// Replaces one value (or NaN) by a constant, or by one a feature.
pub(crate) fn imputer(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let t = cx.dtype(x);
    let (old, new) = if t.is_float() {
        let new = cx.floats("imputed_value_floats")?.unwrap_or(&[]);
        let new: Vec<f64> = new.iter().map(|v| *v as f64).collect();
        let old = cx.float("replaced_value_float", 0.0)? as f64;
        let new = crate::builder::data_of(t, vec![new.len() as i64], &new);
        (Scalar::of(t, old), new)
    } else {
        let new = cx.ints("imputed_value_int64s")?.unwrap_or(&[]);
        let old = cx.int("replaced_value_int64", 0)?;
        let old = match t {
            DType::I64 => Scalar::i64(old),
            _ => Scalar::of(t, old as f64),
        };
        (old, int_data(t, vec![new.len() as i64], new))
    };
    if new.is_empty() {
        return Err(invalid("the values to change to are missing"));
    }
    let missing = t.is_float() && old.to_f64().is_nan();
    let new = cx.constant(new);
    one(cx.pw(&[x, new], |p, r| {
        let hit = if missing {
            p.test(PwOp::IsNan, vec![r[0]])
        } else {
            let k = p.constant(old);
            p.test(PwOp::Eq, vec![r[0], k])
        };
        p.select(hit, r[1], r[0])
    })?)
}

/// Columns side by side, as f32; a vector is one row. Where widths are stated, an input is cut or
/// filled with zeros.
pub(crate) fn feature_vectorizer(cx: &mut Ctx) -> Outs {
    let widths = cx.ints("inputdimensions")?.unwrap_or(&[]);
    let mut parts = Vec::new();
    for (i, v) in cx.all_inputs()?.into_iter().enumerate() {
        let v = cx.cast(v, DType::F32)?;
        let v = match cx.rank(v)? {
            1 => cx.unsqueeze(v, &[0])?,
            2 => v,
            n => return Err(invalid(format!("input {i} has rank {n}, expected 1 or 2"))),
        };
        let own = cx.dims(v)?[1].clone();
        parts.push(match widths.get(i) {
            Some(w) if own.as_const().is_some_and(|d| d != *w) => {
                let (w, d) = (*w, own.as_const().unwrap_or(0));
                if w < 0 {
                    return Err(invalid(format!("a width of {w}")));
                }
                let v = cx.slice_axis(v, 1, Dim::Const(0), 1, Dim::Const(w.min(d)))?;
                let after = vec![Dim::Const(0), Dim::Const((w - d).max(0))];
                cx.emit1(
                    Op::Pad {
                        before: vec![Dim::Const(0); 2],
                        after,
                        mode: PadMode::Constant,
                    },
                    &[v],
                )?
            }
            _ => v,
        });
    }
    one(cx.concat(&parts, 1)?)
}

/// Columns by position.
pub(crate) fn array_feature_extractor(cx: &mut Ctx) -> Outs {
    let (x, i) = (cx.input(0)?, cx.input(1)?);
    let n = Dim::product(&cx.dims(i)?);
    let i = cx.reshape(i, vec![n])?;
    let x = match cx.rank(x)? {
        1 => cx.unsqueeze(x, &[0])?,
        _ => x,
    };
    let axis = cx
        .rank(x)?
        .checked_sub(1)
        .ok_or_else(|| invalid("a scalar input"))?;
    one(cx.emit1(Op::Gather { axis }, &[x, i])?)
}
