//! Tensors as numbers, and walks over their positions.

use super::scalar;
use crate::{DType, Scalar, TensorData};

/// The bits of every element, zero-extended. Of a `C128` those of one part: 0 real, 1 imaginary.
pub(super) fn bits_of_part(t: &TensorData, part: usize) -> Vec<u64> {
    let whole = t.dtype.bytes();
    let n = whole.min(8);
    let from = if whole > 8 { part * 8 } else { 0 };
    t.bytes
        .chunks_exact(whole)
        .map(|c| {
            let mut raw = [0u8; 8];
            raw[..n].copy_from_slice(&c[from..from + n]);
            u64::from_le_bytes(raw)
        })
        .collect()
}

/// The bits of every element, zero-extended.
pub(super) fn bits(t: &TensorData) -> Vec<u64> {
    bits_of_part(t, 0)
}

/// A tensor from the bits of its elements; a `C128` has an imaginary part of 0.
pub(super) fn from_bits(dtype: DType, dims: Vec<i64>, bits: &[u64]) -> TensorData {
    from_parts(dtype, dims, bits, &[])
}

/// The same with the imaginary parts of a `C128`.
pub(super) fn from_parts(
    dtype: DType,
    dims: Vec<i64>,
    bits: &[u64],
    imaginary: &[u64],
) -> TensorData {
    let n = dtype.bytes().min(8);
    let mut bytes = Vec::with_capacity(bits.len() * dtype.bytes());
    for (i, b) in bits.iter().enumerate() {
        bytes.extend_from_slice(&b.to_le_bytes()[..n]);
        if dtype == DType::C128 {
            let other = imaginary.get(i).copied().unwrap_or(0);
            bytes.extend_from_slice(&other.to_le_bytes());
        }
    }
    TensorData {
        dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    }
}

/// Elements in the type that they are computed in.
pub(super) enum Numbers {
    Float(Vec<f64>),
    /// Wraps; narrower types are cut when stored.
    Int(Vec<i64>),
}

pub(super) fn numbers(t: &TensorData) -> Numbers {
    let scalars = bits(t).into_iter().map(|bits| Scalar {
        dtype: t.dtype,
        bits,
    });
    if t.dtype.is_float() {
        Numbers::Float(scalars.map(Scalar::to_f64).collect())
    } else {
        Numbers::Int(scalars.map(scalar::to_int).collect())
    }
}

/// As f64 whatever the type.
pub(super) fn floats(t: &TensorData) -> Vec<f64> {
    match numbers(t) {
        Numbers::Float(v) => v,
        Numbers::Int(v) if t.dtype == DType::U64 => {
            v.into_iter().map(|v| v as u64 as f64).collect()
        }
        Numbers::Int(v) => v.into_iter().map(|v| v as f64).collect(),
    }
}

/// Rounds (or cuts) to the type.
pub(super) fn store(dtype: DType, dims: Vec<i64>, n: Numbers) -> TensorData {
    let bits: Vec<u64> = match n {
        Numbers::Float(v) => v
            .into_iter()
            .map(|v| scalar::rounded(dtype, v).bits)
            .collect(),
        Numbers::Int(v) => v.into_iter().map(|v| scalar::cut(dtype, v)).collect(),
    };
    from_bits(dtype, dims, &bits)
}

/// What sums of products need, for f64 and wrapping i64.
pub(super) trait Number: Copy {
    const ZERO: Self;
    fn add(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
}

impl Number for f64 {
    const ZERO: f64 = 0.0;
    fn add(self, o: f64) -> f64 {
        self + o
    }
    fn mul(self, o: f64) -> f64 {
        self * o
    }
}

impl Number for i64 {
    const ZERO: i64 = 0;
    fn add(self, o: i64) -> i64 {
        self.wrapping_add(o)
    }
    fn mul(self, o: i64) -> i64 {
        self.wrapping_mul(o)
    }
}

pub(super) fn count(dims: &[i64]) -> usize {
    dims.iter().map(|d| *d as usize).product()
}

/// Elements between neighbours along each axis.
pub(super) fn strides(dims: &[i64]) -> Vec<usize> {
    let mut out = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        out[i - 1] = out[i] * dims[i] as usize;
    }
    out
}

/// Calls `f` with every position of a shape, in row-major order.
pub(super) fn each_position(dims: &[i64], mut f: impl FnMut(&[i64])) {
    let mut at = vec![0i64; dims.len()];
    for _ in 0..count(dims) {
        f(&at);
        for axis in (0..dims.len()).rev() {
            at[axis] += 1;
            if at[axis] < dims[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
}

/// Offset of a position under strides.
pub(super) fn offset(at: &[i64], strides: &[usize]) -> usize {
    at.iter().zip(strides).map(|(i, s)| *i as usize * s).sum()
}

/// Strides that read a tensor broadcast to `dims`: 0 where it has size 1.
pub(super) fn broadcast_strides(from: &[i64], dims: &[i64]) -> Vec<usize> {
    let lead = dims.len().saturating_sub(from.len());
    let mut out = vec![0; lead];
    out.extend(
        strides(from)
            .into_iter()
            .zip(from)
            .map(|(s, d)| if *d == 1 { 0 } else { s }),
    );
    out
}

/// The tensor whose elements are those of `t` at the given offsets, in order.
pub(super) fn pick(t: &TensorData, dims: Vec<i64>, offsets: &[usize]) -> TensorData {
    if t.dtype == DType::String {
        return TensorData {
            dtype: t.dtype,
            dims,
            bytes: Default::default(),
            strings: offsets.iter().map(|o| t.strings[*o].clone()).collect(),
        };
    }
    let n = t.dtype.bytes();
    let mut bytes = Vec::with_capacity(offsets.len() * n);
    for o in offsets {
        bytes.extend_from_slice(&t.bytes[o * n..(o + 1) * n]);
    }
    TensorData {
        dtype: t.dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    }
}
