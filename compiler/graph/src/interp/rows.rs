//! Reductions, running sums, softmax, normalization.

use super::data::{
    Numbers, bits, broadcast_strides, count, each_position, floats, from_bits, numbers, offset,
    store, strides,
};
use super::eval_scalar;
use super::rounding::{Rounder, Sum};
use crate::op::{NormKind, ReduceKind};
use crate::{DType, PwOp, Scalar, TensorData};

/// Bits of the least value: what a maximum over nothing is.
pub(super) fn lowest(t: DType) -> u64 {
    match t {
        _ if t.is_float() => Scalar::of(t, f64::NEG_INFINITY).bits,
        _ if t.is_signed_int() => 1 << (8 * t.bytes() - 1),
        _ => 0,
    }
}

/// Bits of the greatest value: what a minimum over nothing is.
fn highest(t: DType) -> u64 {
    match t {
        _ if t.is_float() => Scalar::of(t, f64::INFINITY).bits,
        DType::Bool => 1,
        _ if t.is_signed_int() => (1 << (8 * t.bytes() - 1)) - 1,
        _ => u64::MAX >> (64 - 8 * t.bytes()),
    }
}

/// The offsets of the elements that make up each result, in order.
fn groups(dims: &[i64], axes: &[usize], mut f: impl FnMut(&[usize])) {
    let steps = strides(dims);
    let part = |inside: bool| -> (Vec<i64>, Vec<usize>) {
        (0..dims.len())
            .filter(|i| axes.contains(i) == inside)
            .map(|i| (dims[i], steps[i]))
            .unzip()
    };
    let ((outer, so), (inner, si)) = (part(false), part(true));
    let mut offsets = Vec::with_capacity(count(&inner));
    each_position(&outer, |o| {
        offsets.clear();
        let base = offset(o, &so);
        each_position(&inner, |i| offsets.push(base + offset(i, &si)));
        f(&offsets);
    });
}

pub(super) fn reduce(
    kind: ReduceKind,
    axes: &[usize],
    x: &TensorData,
    dims: Vec<i64>,
    rounder: &Rounder,
) -> TensorData {
    // Orders and bits: exact in the type itself.
    let fold = match kind {
        ReduceKind::Max => Some((PwOp::Max, lowest(x.dtype))),
        ReduceKind::Min => Some((PwOp::Min, highest(x.dtype))),
        ReduceKind::And => Some((
            PwOp::And,
            match x.dtype {
                DType::Bool => 1,
                t => u64::MAX >> (64 - 8 * t.bytes()),
            },
        )),
        ReduceKind::Or => Some((PwOp::Or, 0)),
        _ => None,
    };
    if let Some((op, start)) = fold {
        let data = bits(x);
        let mut out = Vec::with_capacity(count(&dims));
        groups(&x.dims, axes, |g| {
            let dtype = x.dtype;
            out.push(g.iter().fold(start, |acc, o| {
                let pair = [acc, data[*o]].map(|bits| Scalar { dtype, bits });
                eval_scalar(&op, &pair, dtype).map_or(acc, |s| s.bits)
            }));
        });
        return from_bits(x.dtype, dims, &out);
    }
    let r = if x.dtype.is_float() {
        let data = floats(x);
        let mut out = Vec::with_capacity(count(&dims));
        groups(&x.dims, axes, |g| {
            let values = g.iter().map(|o| data[*o]);
            out.push(reduce_floats(kind, values, g.len(), x.dtype, rounder))
        });
        Numbers::Float(out)
    } else {
        let data = match numbers(x) {
            Numbers::Int(v) => v,
            Numbers::Float(_) => Vec::new(),
        };
        let wide = |v: i64| match x.dtype {
            DType::U64 => v as u64 as i128,
            _ => v as i128,
        };
        let mut out = Vec::with_capacity(count(&dims));
        groups(&x.dims, axes, |g| {
            let values = g.iter().map(|o| wide(data[*o]));
            out.push(match kind {
                ReduceKind::Sum => values.sum::<i128>(),
                ReduceKind::Mean => values
                    .sum::<i128>()
                    .checked_div(g.len() as i128)
                    .unwrap_or(0),
                ReduceKind::Prod => {
                    values.fold(1i128, |a, v| (a as i64).wrapping_mul(v as i64) as i128)
                }
                ReduceKind::SumSquare => values
                    .map(|v| v.wrapping_mul(v))
                    .fold(0, i128::wrapping_add),
                _ => values.map(i128::abs).sum(),
            } as i64)
        });
        Numbers::Int(out)
    };
    store(x.dtype, dims, r)
}

fn reduce_floats(
    kind: ReduceKind,
    mut values: impl Iterator<Item = f64> + Clone,
    n: usize,
    dtype: DType,
    rounder: &Rounder,
) -> f64 {
    let sum = |values: &mut dyn Iterator<Item = f64>| rounder.sum(dtype, Sum::over(values));
    let function = |v: f64| rounder.function(dtype, v);
    match kind {
        ReduceKind::Mean => function(sum(&mut values) / n as f64),
        ReduceKind::Prod => function(values.product()),
        ReduceKind::SumSquare => sum(&mut values.map(|v| v * v)),
        ReduceKind::L1 => sum(&mut values.map(f64::abs)),
        ReduceKind::L2 => function(sum(&mut values.map(|v| v * v)).sqrt()),
        ReduceKind::LogSum => function(sum(&mut values).ln()),
        ReduceKind::LogSumExp => {
            let max =
                values.clone().fold(
                    f64::NEG_INFINITY,
                    |a, v| {
                        if a.is_nan() || a > v { a } else { v }
                    },
                );
            if max.is_infinite() || max.is_nan() {
                max
            } else {
                let rest = sum(&mut values.map(|v| (v - max).exp())).ln();
                function(max + function(rest))
            }
        }
        _ => sum(&mut values),
    }
}

pub(super) fn arg_reduce(
    max: bool,
    axis: usize,
    last: bool,
    x: &TensorData,
    dims: Vec<i64>,
) -> TensorData {
    let data = bits(x);
    let op = match (max, last) {
        (true, false) => PwOp::Gt,
        (true, true) => PwOp::Ge,
        (false, false) => PwOp::Lt,
        (false, true) => PwOp::Le,
    };
    let mut out = Vec::with_capacity(count(&dims));
    groups(&x.dims, &[axis], |g| {
        let mut best = 0;
        for (i, o) in g.iter().enumerate().skip(1) {
            let pair = [*o, g[best]].map(|o| Scalar {
                dtype: x.dtype,
                bits: data[o],
            });
            if eval_scalar(&op, &pair, DType::Bool).is_some_and(|s| s.bits != 0) {
                best = i;
            }
        }
        out.push(best as i64);
    });
    TensorData::from_i64(dims, &out)
}

pub(super) fn cumsum(
    axis: usize,
    exclusive: bool,
    reverse: bool,
    x: &TensorData,
    rounder: &Rounder,
) -> TensorData {
    fn go<T: super::data::Number>(
        data: &[T],
        dims: &[i64],
        axis: usize,
        exclusive: bool,
        reverse: bool,
    ) -> Vec<T> {
        let mut out = vec![T::ZERO; data.len()];
        groups(dims, &[axis], |g| {
            let mut sum = T::ZERO;
            for i in 0..g.len() {
                let o = g[if reverse { g.len() - 1 - i } else { i }];
                let next = sum.add(data[o]);
                out[o] = if exclusive { sum } else { next };
                sum = next;
            }
        });
        out
    }
    let r = match numbers(x) {
        Numbers::Float(v) => {
            let sums = go(&Sum::all(&v), &x.dims, axis, exclusive, reverse);
            Numbers::Float(rounder.sums(x.dtype, sums))
        }
        Numbers::Int(v) => Numbers::Int(go(&v, &x.dims, axis, exclusive, reverse)),
    };
    store(x.dtype, x.dims.clone(), r)
}

pub(super) fn softmax(axis: usize, log: bool, x: &TensorData, rounder: &Rounder) -> TensorData {
    let data = floats(x);
    let mut out = vec![0.0; data.len()];
    groups(&x.dims, &[axis], |g| {
        let max = g.iter().map(|o| data[*o]).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = g.iter().map(|o| (data[*o] - max).exp()).sum();
        for o in g {
            let below = data[*o] - max;
            // An error of what an element is below the greatest is one of so many times its part.
            let (value, size) = match log {
                true => (below - total.ln(), below.abs() + total.ln()),
                false => (below.exp() / total, below.exp() / total * below.abs()),
            };
            out[*o] = rounder.among(x.dtype, rounder.function(x.dtype, value), size);
        }
    });
    store(x.dtype, x.dims.clone(), Numbers::Float(out))
}

pub(super) fn normalize(
    kind: NormKind,
    axis: usize,
    epsilon: f32,
    x: &TensorData,
    scale: Option<&TensorData>,
    bias: Option<&TensorData>,
    rounder: &Rounder,
) -> TensorData {
    let data = floats(x);
    let mut out = vec![0.0; data.len()];
    let axes: Vec<usize> = (axis..x.dims.len()).collect();
    groups(&x.dims, &axes, |g| {
        let n = g.len() as f64;
        let mean = match kind {
            NormKind::Layer => {
                let sum = Sum::over(g.iter().map(|o| data[*o]));
                rounder.function(x.dtype, rounder.sum(x.dtype, sum) / n)
            }
            NormKind::Rms => 0.0,
        };
        let square: f64 = g.iter().map(|o| (data[*o] - mean).powi(2)).sum();
        let root = (square / n + epsilon as f64).sqrt();
        for o in g {
            out[*o] = rounder.function(x.dtype, (data[*o] - mean) / root);
        }
    });
    let operand =
        |t: Option<&TensorData>| t.map(|t| (floats(t), broadcast_strides(&t.dims, &x.dims)));
    let (scale, bias) = (operand(scale), operand(bias));
    let mut o = 0;
    each_position(&x.dims, |at| {
        if let Some((v, s)) = &scale {
            out[o] *= v[offset(at, s)];
        }
        if let Some((v, s)) = &bias {
            out[o] += v[offset(at, s)];
        }
        o += 1;
    });
    store(x.dtype, x.dims.clone(), Numbers::Float(out))
}
