//! Classical models and feature preparation of ai.onnx.ml, for numbers (not strings).

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Dim, Op, PwOp, Scalar, TensorData, ValueId};

use crate::builder::f64s;
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid, unsupported};

/// Keys up to which a label encoder is an expression.
const MAX_KEYS: usize = 256;

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
    let (old, new): (f64, Vec<f64>) = if t.is_float() {
        let new = cx.floats("imputed_value_floats")?.unwrap_or(&[]);
        let old = cx.float("replaced_value_float", 0.0)? as f64;
        (old, new.iter().map(|v| *v as f64).collect())
    } else {
        let new = cx.ints("imputed_value_int64s")?.unwrap_or(&[]);
        let old = cx.int("replaced_value_int64", 0)? as f64;
        (old, new.iter().map(|v| *v as f64).collect())
    };
    if new.is_empty() {
        return Err(invalid("the values to change to are missing"));
    }
    let new = cx.numbers(t, vec![new.len() as i64], &new);
    one(cx.pw(&[x, new], |p, r| {
        let hit = if old.is_nan() {
            p.test(PwOp::IsNan, vec![r[0]])
        } else {
            let k = p.number(old, t);
            p.test(PwOp::Eq, vec![r[0], k])
        };
        p.select(hit, r[1], r[0])
    })?)
}

/// Columns side by side, as f32.
pub(crate) fn feature_vectorizer(cx: &mut Ctx) -> Outs {
    let mut parts = Vec::new();
    for v in cx.all_inputs()? {
        let v = cx.cast(v, DType::F32)?;
        parts.push(match cx.rank(v)? {
            1 => cx.unsqueeze(v, &[0])?,
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

/// Values by keys: a chain of choices, the last equal key wins.
pub(crate) fn label_encoder(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    if cx.opset < 2 || cx.has("keys_strings") || cx.has("values_strings") {
        return Err(unsupported("labels that are strings"));
    }
    let keys = side(cx, "keys")?;
    let (values, to) = match side(cx, "values")? {
        Some((v, t)) => (v, t),
        None => return Err(invalid("the values are missing")),
    };
    let Some((keys, _)) = keys else {
        return Err(invalid("the keys are missing"));
    };
    if keys.len() != values.len() {
        return Err(invalid(format!(
            "{} keys, {} values",
            keys.len(),
            values.len()
        )));
    }
    if keys.len() > MAX_KEYS {
        return Err(unsupported(format!(
            "{} keys (expected {MAX_KEYS} at most)",
            keys.len()
        )));
    }
    let default = match cx.tensor("default_tensor")? {
        Some(t) => f64s(&t).and_then(|v| v.first().copied()),
        None if to.is_float() => Some(cx.float("default_float", -0.0)? as f64),
        None => Some(cx.int("default_int64", -1)? as f64),
    };
    let default = default.ok_or_else(|| unsupported("a default that is a string"))?;
    let t = cx.dtype(x);
    one(cx.pw(&[x], |p, r| {
        let mut y = p.number(default, to);
        for (k, v) in keys.iter().zip(&values) {
            let hit = if k.is_nan() {
                p.test(PwOp::IsNan, vec![r[0]])
            } else {
                let k = p.number(*k, t);
                p.test(PwOp::Eq, vec![r[0], k])
            };
            let v = p.number(*v, to);
            y = p.select(hit, v, y);
        }
        y
    })?)
}

/// Numbers of `keys_*` or `values_*`, with their type.
fn side(cx: &Ctx, name: &str) -> Result<Option<(Vec<f64>, DType)>, Fail> {
    if let Some(v) = cx.floats(&format!("{name}_floats"))? {
        let v = v.iter().map(|x| *x as f64).collect();
        return Ok(Some((v, DType::F32)));
    }
    if let Some(v) = cx.ints(&format!("{name}_int64s"))? {
        let v = v.iter().map(|x| *x as f64).collect();
        return Ok(Some((v, DType::I64)));
    }
    match cx.tensor(&format!("{name}_tensor"))? {
        None => Ok(None),
        Some(t) => match f64s(&t) {
            Some(v) => Ok(Some((v, t.dtype))),
            None => Err(unsupported("labels that are strings")),
        },
    }
}

/// A row of zeros with a one at the category.
pub(crate) fn one_hot_encoder(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let Some(cats) = cx.ints("cats_int64s")?.filter(|c| !c.is_empty()) else {
        return Err(unsupported("categories that are strings"));
    };
    if !cx.flag("zeros", true)? {
        return Err(unsupported(
            "attribute 'zeros' is 0 (fail for other categories)",
        ));
    }
    let x = cx.cast(x, DType::I64)?;
    let rank = cx.rank(x)?;
    let x = cx.unsqueeze(x, &[rank])?;
    let cats = cx.int_vector(cats);
    one(cx.pw(&[x, cats], |p, r| {
        let hit = p.test(PwOp::Eq, vec![r[0], r[1]]);
        p.cast(hit, DType::F32)
    })?)
}

/// `x wᵀ + b`; `targets` rows of coefficients.
fn linear(cx: &mut Ctx, targets: i64) -> Result<ValueId, Fail> {
    let x = cx.input(0)?;
    let x = cx.cast(x, DType::F32)?;
    let x = match cx.rank(x)? {
        1 => cx.unsqueeze(x, &[0])?,
        _ => x,
    };
    let w = cx.floats("coefficients")?.unwrap_or(&[]);
    let n = w.len() as i64;
    if targets < 1 || n % targets != 0 {
        return Err(invalid(format!("{n} coefficients for {targets} targets")));
    }
    let w = cx.constant(TensorData::from_f32(vec![targets, n / targets], w));
    let labels = (vec![b'n', b'k'], vec![b'c', b'k'], vec![b'n', b'c']);
    let y = cx.contract(x, w, labels)?;
    match cx.floats("intercepts")? {
        Some(b) if !b.is_empty() => {
            let b = vector(cx, b);
            cx.bin(PwOp::Add, y, b)
        }
        _ => Ok(y),
    }
}

fn post(cx: &mut Ctx, y: ValueId) -> Result<ValueId, Fail> {
    let names = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"];
    match cx.choice("post_transform", "NONE", &names)? {
        0 => Ok(y),
        1 => super::softmax::along(cx, y, 1, false),
        2 => cx.un(PwOp::Sigmoid, y),
        i => Err(unsupported(format!("post_transform {}", names[i]))),
    }
}

pub(crate) fn linear_regressor(cx: &mut Ctx) -> Outs {
    let targets = cx.int("targets", 1)?;
    let y = linear(cx, targets)?;
    one(post(cx, y)?)
}

pub(crate) fn linear_classifier(cx: &mut Ctx) -> Outs {
    let Some(labels) = cx.ints("classlabels_ints")?.filter(|l| !l.is_empty()) else {
        return Err(unsupported("class labels that are strings"));
    };
    // One row of coefficients decides between two classes.
    let rows = match cx.floats("intercepts")? {
        Some(b) if !b.is_empty() => b.len() as i64,
        _ => labels.len() as i64,
    };
    let mut scores = linear(cx, rows)?;
    if rows == 1 && labels.len() == 2 {
        let minus = cx.un(PwOp::Neg, scores)?;
        scores = cx.concat(&[minus, scores], 1)?;
    }
    let raw = scores;
    let scores = post(cx, raw)?;
    let label = if rows == 1 && labels.len() != 2 {
        let limit = if cx.choice("post_transform", "NONE", &["NONE"]).is_ok() {
            0.0
        } else {
            0.5
        };
        let first = labels[0];
        let v = cx.squeeze(scores, &[1])?;
        cx.pw(&[v], |p, r| {
            let k = p.number(limit, DType::F32);
            let hit = p.test(PwOp::Ge, vec![r[0], k]);
            let (a, b) = (p.constant(Scalar::i64(first)), p.constant(Scalar::i64(0)));
            p.select(hit, a, b)
        })?
    } else {
        let op = Op::ArgReduce {
            max: true,
            axis: 1,
            keep: false,
            last: false,
        };
        let at = cx.emit1(op, &[raw])?;
        let labels = cx.int_vector(labels);
        cx.emit1(Op::Gather { axis: 0 }, &[labels, at])?
    };
    Ok(vec![Some(label), Some(scores)])
}
