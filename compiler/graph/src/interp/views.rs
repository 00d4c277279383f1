//! Views: each result element is one element of an input (or the padding).

use super::Fault;
use super::data::{broadcast_strides, count, each_position, offset, pick, strides};
use crate::op::PadMode;
use crate::{DType, TensorData};

pub(super) fn transpose(perm: &[usize], x: &TensorData, dims: Vec<i64>) -> TensorData {
    let own = strides(&x.dims);
    let steps: Vec<usize> = perm.iter().map(|p| own[*p]).collect();
    strided(x, dims, &steps)
}

pub(super) fn broadcast(x: &TensorData, dims: Vec<i64>) -> TensorData {
    let steps = broadcast_strides(&x.dims, &dims);
    strided(x, dims, &steps)
}

fn strided(x: &TensorData, dims: Vec<i64>, steps: &[usize]) -> TensorData {
    let mut offsets = Vec::with_capacity(count(&dims));
    each_position(&dims, |at| offsets.push(offset(at, steps)));
    pick(x, dims, &offsets)
}

pub(super) fn slice(
    start: &[i64],
    step: &[i64],
    x: &TensorData,
    dims: Vec<i64>,
) -> Result<TensorData, Fault> {
    let steps = strides(&x.dims);
    let mut offsets = Vec::with_capacity(count(&dims));
    let mut outside = None;
    each_position(&dims, |at| {
        let mut o = 0;
        for (axis, i) in at.iter().enumerate() {
            let from = start[axis] + i * step[axis];
            if from < 0 || from >= x.dims[axis] {
                outside = Some((from, axis));
                return;
            }
            o += from as usize * steps[axis];
        }
        offsets.push(o);
    });
    match outside {
        Some((index, axis)) => Err(Fault::Index {
            index,
            axis,
            size: x.dims[axis],
        }),
        None => Ok(pick(x, dims, &offsets)),
    }
}

pub(super) fn concat(axis: usize, parts: &[&TensorData], dims: Vec<i64>) -> TensorData {
    let dtype = parts.first().map_or(DType::F32, |t| t.dtype);
    let outer = count(&dims[..axis]);
    let n = dtype.bytes();
    let (mut bytes, mut strings) = (Vec::new(), Vec::new());
    for o in 0..outer {
        for t in parts {
            let run = count(&t.dims[axis..]);
            if dtype == DType::String {
                strings.extend_from_slice(&t.strings[o * run..(o + 1) * run]);
            } else {
                bytes.extend_from_slice(&t.bytes[o * run * n..(o + 1) * run * n]);
            }
        }
    }
    TensorData {
        dtype,
        dims,
        bytes: bytes.into(),
        strings,
    }
}

pub(super) fn pad(
    before: &[i64],
    mode: PadMode,
    x: &TensorData,
    value: Option<&TensorData>,
    dims: Vec<i64>,
) -> Result<TensorData, Fault> {
    if x.dtype == DType::String {
        return Err("strings cannot be padded".into());
    }
    let steps = strides(&x.dims);
    let n = x.dtype.bytes();
    let zero = vec![0u8; n];
    let fill = value.map_or(zero.as_slice(), |v| &v.bytes);
    let mut bytes = Vec::with_capacity(count(&dims) * n);
    each_position(&dims, |at| {
        let mut o = Some(0);
        for (axis, i) in at.iter().enumerate() {
            let from = source(i - before[axis], x.dims[axis], mode);
            o = match (o, from) {
                (Some(o), Some(from)) => Some(o + from as usize * steps[axis]),
                _ => None,
            };
        }
        bytes.extend_from_slice(match o {
            Some(o) => &x.bytes[o * n..(o + 1) * n],
            None => fill,
        });
    });
    Ok(TensorData {
        dtype: x.dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    })
}

/// Where padding position `i` (relative to the data) reads an axis of `size`.
fn source(i: i64, size: i64, mode: PadMode) -> Option<i64> {
    if (0..size).contains(&i) {
        return Some(i);
    }
    match mode {
        PadMode::Constant => None,
        PadMode::Edge => Some(i.clamp(0, size - 1)),
        PadMode::Wrap => Some(i.rem_euclid(size)),
        // To and fro, without the end twice.
        PadMode::Reflect if size == 1 => Some(0),
        PadMode::Reflect => {
            let period = 2 * (size - 1);
            let r = i.rem_euclid(period);
            Some(r.min(period - r))
        }
    }
}
