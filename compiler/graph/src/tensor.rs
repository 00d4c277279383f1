//! Constant tensors.

use crate::DType;
use bytes::Bytes;

/// A dense, row-major, little-endian tensor; the bytes may lie in a mapped file.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorData {
    /// Of every element.
    pub dtype: DType,
    /// Sizes of the axes, outermost first; none is negative.
    pub dims: Vec<i64>,
    /// `product(dims) * dtype.bytes()` bytes; empty for strings.
    pub bytes: Bytes,
    /// Elements of a string tensor.
    pub strings: Vec<Bytes>,
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().map(|d| *d as usize).product()
    }
    /// Whether one of the sizes is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A tensor of 64-bit integers.
    pub fn from_i64(dims: Vec<i64>, values: &[i64]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into();
        TensorData {
            dtype: DType::I64,
            dims,
            bytes,
            strings: Vec::new(),
        }
    }
    /// A tensor of f32.
    pub fn from_f32(dims: Vec<i64>, values: &[f32]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into();
        TensorData {
            dtype: DType::F32,
            dims,
            bytes,
            strings: Vec::new(),
        }
    }
    /// The elements as integers, when the type is an integer or `Bool`.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        let b = &self.bytes;
        Some(match self.dtype {
            DType::I64 | DType::U64 => b
                .chunks_exact(8)
                .map(|c| i64::from_le_bytes(c.try_into().unwrap_or_default()))
                .collect(),
            DType::I32 => b
                .chunks_exact(4)
                .map(|c| i32::from_le_bytes(c.try_into().unwrap_or_default()) as i64)
                .collect(),
            DType::U32 => b
                .chunks_exact(4)
                .map(|c| u32::from_le_bytes(c.try_into().unwrap_or_default()) as i64)
                .collect(),
            DType::I16 => b
                .chunks_exact(2)
                .map(|c| i16::from_le_bytes(c.try_into().unwrap_or_default()) as i64)
                .collect(),
            DType::U16 => b
                .chunks_exact(2)
                .map(|c| u16::from_le_bytes(c.try_into().unwrap_or_default()) as i64)
                .collect(),
            DType::I8 | DType::I4 | DType::I2 => b.iter().map(|v| *v as i8 as i64).collect(),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => {
                b.iter().map(|v| *v as i64).collect()
            }
            _ => return None,
        })
    }
    /// The elements as f32, when the type is `F32`.
    pub fn to_f32s(&self) -> Option<Vec<f32>> {
        (self.dtype == DType::F32).then(|| {
            self.bytes
                .chunks_exact(4)
                .map(|c| f32::from_le_bytes(c.try_into().unwrap_or_default()))
                .collect()
        })
    }
}
