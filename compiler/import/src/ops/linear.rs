//! Linear models: a product with the coefficients, then a transform of the scores.

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Op, PwOp, Scalar, TensorData, ValueId};

use super::labels::{class_labels, pick_labels, string_vector};
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};

/// Names of the transforms of scores, in the order of their numbers.
pub(crate) const POST: [&str; 5] = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"];

/// The features as an f32 matrix.
pub(crate) fn features(cx: &mut Ctx) -> Result<ValueId, Fail> {
    let x = cx.input(0)?;
    let x = cx.cast(x, DType::F32)?;
    match cx.rank(x)? {
        1 => cx.unsqueeze(x, &[0]),
        2 => Ok(x),
        n => Err(invalid(format!("features of rank {n}, expected 1 or 2"))),
    }
}

/// `x wᵀ`, where `w` has `rows` rows.
pub(crate) fn product(cx: &mut Ctx, x: ValueId, w: &[f32], rows: i64) -> Result<ValueId, Fail> {
    let n = w.len() as i64;
    if rows < 1 || n % rows != 0 {
        return Err(invalid(format!("{n} coefficients in {rows} rows")));
    }
    let w = cx.constant(TensorData::from_f32(vec![rows, n / rows], w));
    let labels = (vec![b'n', b'k'], vec![b'c', b'k'], vec![b'n', b'c']);
    cx.contract(x, w, labels)
}

/// `x + v`, along the last axis.
pub(crate) fn plus(cx: &mut Ctx, x: ValueId, v: &[f32]) -> Result<ValueId, Fail> {
    let v = cx.constant(TensorData::from_f32(vec![v.len() as i64], v));
    cx.bin(PwOp::Add, x, v)
}

/// `x wᵀ + b`; `targets` rows of coefficients.
fn linear(cx: &mut Ctx, targets: i64) -> Result<ValueId, Fail> {
    let x = features(cx)?;
    let w = cx.floats("coefficients")?.unwrap_or(&[]);
    let y = product(cx, x, w, targets)?;
    match cx.floats("intercepts")? {
        Some(b) if !b.is_empty() => plus(cx, y, b),
        _ => Ok(y),
    }
}

/// The scores after the transform of attribute `post_transform`.
fn post(cx: &mut Ctx, y: ValueId) -> Result<ValueId, Fail> {
    match cx.choice("post_transform", "NONE", &POST)? {
        0 => Ok(y),
        1 => super::softmax::along(cx, y, 1, false),
        2 => cx.un(PwOp::Sigmoid, y),
        3 => softmax_zero(cx, y),
        _ => probit(cx, y),
    }
}

/// Softmax over the scores that are not 0; where all are, halves.
fn softmax_zero(cx: &mut Ctx, y: ValueId) -> Result<ValueId, Fail> {
    let most = cx.reduce(ReduceKind::Max, y, vec![1], true)?;
    let e = cx.pw(&[y, most], |p, r| {
        let (limit, moved) = (p.number(1e-7, DType::F32), p.bin(PwOp::Sub, r[0], r[1]));
        let size = p.un(PwOp::Abs, r[0]);
        let counts = p.test(PwOp::Gt, vec![size, limit]);
        let (e, minus) = (p.un(PwOp::Exp, moved), p.un(PwOp::Neg, r[1]));
        let scale = p.un(PwOp::Exp, minus);
        let small = p.bin(PwOp::Mul, r[0], scale);
        p.select(counts, e, small)
    })?;
    let sum = cx.reduce(ReduceKind::Sum, e, vec![1], true)?;
    cx.pw(&[e, sum], |p, r| {
        let (zero, half) = (p.number(0.0, DType::F32), p.number(0.5, DType::F32));
        let none = p.test(PwOp::Eq, vec![r[1], zero]);
        let y = p.bin(PwOp::Div, r[0], r[1]);
        p.select(none, half, y)
    })
}

/// The quantile of the normal distribution, by the approximation of the inverse error function that
/// all runtimes share.
fn probit(cx: &mut Ctx, y: ValueId) -> Result<ValueId, Fail> {
    let y = cx.cast(y, DType::F64)?;
    let y = cx.pw(&[y], |p, r| {
        let k = |p: &mut lapidary_graph::PwBuilder, v: f64| p.number(v, DType::F64);
        let (zero, one, two) = (k(p, 0.0), k(p, 1.0), k(p, 2.0));
        let x = p.bin(PwOp::Mul, r[0], two);
        let x = p.bin(PwOp::Sub, x, one);
        let (low, high) = (p.bin(PwOp::Sub, one, x), p.bin(PwOp::Add, one, x));
        let t = p.bin(PwOp::Mul, low, high);
        let log = p.un(PwOp::Log, t);
        let (a, half) = (k(p, 2.0 / (std::f64::consts::PI * 0.147)), k(p, 0.5));
        let v = p.bin(PwOp::Mul, log, half);
        let v = p.bin(PwOp::Add, v, a);
        let b = k(p, 1.0 / 0.147);
        let (v2, vv) = (p.bin(PwOp::Mul, log, b), p.bin(PwOp::Mul, v, v));
        let root = p.bin(PwOp::Sub, vv, v2);
        let root = p.un(PwOp::Sqrt, root);
        let size = p.bin(PwOp::Sub, root, v);
        let size = p.un(PwOp::Sqrt, size);
        let scale = k(p, std::f64::consts::SQRT_2);
        let size = p.bin(PwOp::Mul, size, scale);
        let below = p.test(PwOp::Lt, vec![x, zero]);
        let minus = p.un(PwOp::Neg, size);
        let y = p.select(below, minus, size);
        let end = p.test(PwOp::Eq, vec![t, zero]);
        p.select(end, zero, y)
    })?;
    cx.cast(y, DType::F32)
}

pub(crate) fn linear_regressor(cx: &mut Ctx) -> Outs {
    let targets = cx.int("targets", 1)?;
    let y = linear(cx, targets)?;
    one(post(cx, y)?)
}

pub(crate) fn linear_classifier(cx: &mut Ctx) -> Outs {
    let labels = class_labels(cx, "classlabels_ints")?;
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
    let (labels, at) = if rows == 1 && labels.len() != 2 {
        let none = cx.choice("post_transform", "NONE", &POST)? == 0;
        let limit = if none { 0.0 } else { 0.5 };
        let v = cx.squeeze(scores, &[1])?;
        let at = cx.pw(&[v], |p, r| {
            let k = p.number(limit, DType::F32);
            let hit = p.test(PwOp::Ge, vec![r[0], k]);
            let (a, b) = (p.constant(Scalar::i64(0)), p.constant(Scalar::i64(1)));
            p.select(hit, a, b)
        })?;
        // The first label, or nothing.
        let labels = match labels.to_i64s().as_deref() {
            Some([first, ..]) => TensorData::from_i64(vec![2], &[*first, 0]),
            _ => string_vector(
                labels
                    .strings
                    .into_iter()
                    .take(1)
                    .chain([bytes::Bytes::new()])
                    .collect(),
            ),
        };
        (labels, at)
    } else {
        let op = Op::ArgReduce {
            max: true,
            axis: 1,
            keep: false,
            last: false,
        };
        (labels, cx.emit1(op, &[raw])?)
    };
    let label = pick_labels(cx, labels, at)?;
    Ok(vec![Some(label), Some(scores)])
}
