//! Gather and scatter. Indices count from the end when negative; others out of range are errors.

use super::data::{bits, each_position, from_bits, offset, pick, strides};
use super::{Fault, eval_scalar};
use crate::op::ScatterReduce;
use crate::{DType, PwOp, Scalar, TensorData};

fn indices(t: &TensorData) -> Vec<i64> {
    t.to_i64s().unwrap_or_default()
}

/// An index against an axis of the data.
fn checked(index: i64, axis: usize, size: i64) -> Result<i64, Fault> {
    let i = if index < 0 { index + size } else { index };
    match (0..size).contains(&i) {
        true => Ok(i),
        false => Err(Fault::Index { index, axis, size }),
    }
}

/// Collects one offset for each position; the first fault ends it.
fn offsets(
    dims: &[i64],
    mut f: impl FnMut(&[i64]) -> Result<usize, Fault>,
) -> Result<Vec<usize>, Fault> {
    let mut out = Ok(Vec::new());
    each_position(dims, |at| {
        if let Ok(v) = &mut out {
            match f(at) {
                Ok(o) => v.push(o),
                Err(e) => out = Err(e),
            }
        }
    });
    out
}

pub(super) fn gather(
    axis: usize,
    data: &TensorData,
    index: &TensorData,
    dims: Vec<i64>,
) -> Result<TensorData, Fault> {
    let (values, ranks) = (indices(index), index.dims.len());
    let (steps, index_steps) = (strides(&data.dims), strides(&index.dims));
    let picked = offsets(&dims, |at| {
        let chosen = values[offset(&at[axis..axis + ranks], &index_steps)];
        let i = checked(chosen, axis, data.dims[axis])?;
        Ok(offset(&at[..axis], &steps[..axis])
            + i as usize * steps[axis]
            + offset(&at[axis + ranks..], &steps[axis + 1..]))
    })?;
    Ok(pick(data, dims, &picked))
}

/// Offsets into the data of the elements that `*Elements` operators choose, one an index.
fn element_offsets(
    axis: usize,
    data: &TensorData,
    index: &TensorData,
) -> Result<Vec<usize>, Fault> {
    let values = indices(index);
    let steps = strides(&data.dims);
    let mut n = 0;
    offsets(&index.dims, |at| {
        let i = checked(values[n], axis, data.dims[axis])?;
        n += 1;
        Ok(offset(at, &steps) - at[axis] as usize * steps[axis] + i as usize * steps[axis])
    })
}

pub(super) fn gather_elements(
    axis: usize,
    data: &TensorData,
    index: &TensorData,
    dims: Vec<i64>,
) -> Result<TensorData, Fault> {
    Ok(pick(data, dims, &element_offsets(axis, data, index)?))
}

/// Offsets of the slices that coordinates choose, one a coordinate, and the size of a slice.
fn slice_offsets(
    batch: usize,
    data: &TensorData,
    index: &TensorData,
) -> Result<(Vec<usize>, usize), Fault> {
    let values = indices(index);
    let Some((chosen, lead)) = index.dims.split_last() else {
        return Err("indices have no axis".into());
    };
    let k = *chosen as usize;
    let steps = strides(&data.dims);
    let mut n = 0;
    let starts = offsets(lead, |at| {
        let mut o = offset(&at[..batch], &steps[..batch]);
        for j in 0..k {
            let axis = batch + j;
            let i = checked(values[n * k + j], axis, data.dims[axis])?;
            o += i as usize * steps[axis];
        }
        n += 1;
        Ok(o)
    })?;
    Ok((starts, super::data::count(&data.dims[batch + k..])))
}

pub(super) fn gather_nd(
    batch: usize,
    data: &TensorData,
    index: &TensorData,
    dims: Vec<i64>,
) -> Result<TensorData, Fault> {
    let (starts, size) = slice_offsets(batch, data, index)?;
    let all: Vec<usize> = starts.iter().flat_map(|s| *s..s + size).collect();
    Ok(pick(data, dims, &all))
}

/// Data with each update combined into its offset, in order.
fn scatter(
    reduce: ScatterReduce,
    data: &TensorData,
    targets: &[usize],
    updates: &TensorData,
) -> TensorData {
    if data.dtype == DType::String {
        let mut out = data.clone();
        for (o, s) in targets.iter().zip(&updates.strings) {
            out.strings[*o] = s.clone();
        }
        return out;
    }
    let dtype = data.dtype;
    let (mut out, updates) = (bits(data), bits(updates));
    let op = match reduce {
        ScatterReduce::Set => None,
        ScatterReduce::Add => Some(PwOp::Add),
        ScatterReduce::Mul => Some(PwOp::Mul),
        ScatterReduce::Min => Some(PwOp::Min),
        ScatterReduce::Max => Some(PwOp::Max),
    };
    for (o, u) in targets.iter().zip(updates) {
        out[*o] = match &op {
            None => u,
            Some(op) => {
                let pair = [out[*o], u].map(|bits| Scalar { dtype, bits });
                eval_scalar(op, &pair, dtype).map_or(u, |s| s.bits)
            }
        };
    }
    from_bits(dtype, data.dims.clone(), &out)
}

pub(super) fn scatter_elements(
    axis: usize,
    reduce: ScatterReduce,
    data: &TensorData,
    index: &TensorData,
    updates: &TensorData,
) -> Result<TensorData, Fault> {
    let targets = element_offsets(axis, data, index)?;
    Ok(scatter(reduce, data, &targets, updates))
}

pub(super) fn scatter_nd(
    reduce: ScatterReduce,
    data: &TensorData,
    index: &TensorData,
    updates: &TensorData,
) -> Result<TensorData, Fault> {
    let (starts, size) = slice_offsets(0, data, index)?;
    let all: Vec<usize> = starts.iter().flat_map(|s| *s..s + size).collect();
    Ok(scatter(reduce, data, &all, updates))
}
