//! Expressions over broadcast inputs, one output element at a time.

use super::Fault;
use super::data::{bits_of_part, broadcast_strides, each_position, from_bits, from_parts, offset};
use super::rounding::Rounder;
use super::scalar::eval_rounded;
use crate::{DType, Dim, Pointwise, PwOp, Scalar, TensorData};

pub(super) fn pointwise(
    body: &Pointwise,
    inputs: &[&TensorData],
    dims: Vec<i64>,
    rounder: &Rounder,
) -> Result<TensorData, Fault> {
    let real = part(body, inputs, &dims, 0, rounder)?;
    if body.dtype() != DType::C128 {
        return Ok(from_bits(body.dtype(), dims, &real));
    }
    // Elements of 16 bytes are selected and no more: one half after the other.
    let imaginary = part(body, inputs, &dims, 1, rounder)?;
    Ok(from_parts(body.dtype(), dims, &real, &imaginary))
}

/// The bits of every result; of `C128` elements those of one part.
fn part(
    body: &Pointwise,
    inputs: &[&TensorData],
    dims: &[i64],
    part: usize,
    rounder: &Rounder,
) -> Result<Vec<u64>, Fault> {
    let data: Vec<Vec<u64>> = inputs.iter().map(|t| bits_of_part(t, part)).collect();
    let strides: Vec<Vec<usize>> = inputs
        .iter()
        .map(|t| broadcast_strides(&t.dims, dims))
        .collect();
    let mut out = Vec::with_capacity(super::data::count(dims));
    let mut values: Vec<Scalar> = Vec::with_capacity(body.nodes.len());
    let mut args: Vec<Scalar> = Vec::with_capacity(3);
    let mut failed = None;
    each_position(dims, |at| {
        values.clear();
        for (i, n) in body.nodes.iter().enumerate() {
            let value = match &n.op {
                PwOp::Input(k) => {
                    let k = *k as usize;
                    Some(Scalar {
                        dtype: n.dtype,
                        bits: data[k][offset(at, &strides[k])],
                    })
                }
                PwOp::Const(s) if s.dtype == DType::C128 && part == 1 => {
                    Some(Scalar { bits: 0, ..*s })
                }
                PwOp::Index(axis) => Some(Scalar::i64(at[*axis as usize])),
                PwOp::Dim(d) => Dim::as_const(d).map(Scalar::i64),
                op => {
                    args.clear();
                    args.extend(n.args.iter().map(|a| values[a.0 as usize]));
                    eval_rounded(op, &args, n.dtype, rounder)
                }
            };
            values.push(value.unwrap_or_else(|| {
                failed.get_or_insert(i);
                Scalar {
                    dtype: n.dtype,
                    bits: 0,
                }
            }));
        }
        out.push(values.last().map_or(0, |v| v.bits));
    });
    match failed {
        Some(i) => Err(format!("expression node {i} has no value").into()),
        None => Ok(out),
    }
}
