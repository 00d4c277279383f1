//! Expressions over broadcast inputs, one output element at a time.

use super::Fault;
use super::data::{bits, broadcast_strides, each_position, from_bits, offset};
use super::scalar::eval_scalar;
use crate::{Dim, Pointwise, PwOp, Scalar, TensorData};

pub(super) fn pointwise(
    body: &Pointwise,
    inputs: &[&TensorData],
    dims: Vec<i64>,
) -> Result<TensorData, Fault> {
    let data: Vec<Vec<u64>> = inputs.iter().map(|t| bits(t)).collect();
    let strides: Vec<Vec<usize>> = inputs
        .iter()
        .map(|t| broadcast_strides(&t.dims, &dims))
        .collect();
    let mut out = Vec::with_capacity(super::data::count(&dims));
    let mut values: Vec<Scalar> = Vec::with_capacity(body.nodes.len());
    let mut args: Vec<Scalar> = Vec::with_capacity(3);
    let mut failed = None;
    each_position(&dims, |at| {
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
                PwOp::Index(axis) => Some(Scalar::i64(at[*axis as usize])),
                PwOp::Dim(d) => Dim::as_const(d).map(Scalar::i64),
                op => {
                    args.clear();
                    args.extend(n.args.iter().map(|a| values[a.0 as usize]));
                    eval_scalar(op, &args, n.dtype)
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
        None => Ok(from_bits(body.dtype(), dims, &out)),
    }
}
