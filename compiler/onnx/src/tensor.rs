//! The elements of a `TensorProto`, whichever field stores them, as one dense run of little-endian bytes.
//!
//! In: a `TensorProto`. Out: a [`TensorView`]. First the tensor's [`Layout`] is settled and checked (type,
//! dimensions, which field, how many entries); only then are elements touched, so that [`validate`] can tell for a
//! model of many gigabytes whether its tensors are sound. Raw and external bytes are views; typed fields, which only
//! small tensors use, are converted.

use bytes::Bytes;

use crate::dtype::Field;
use crate::external::{DataFiles, Wanted};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::DataLocation;
use crate::{DataType, OnnxError, TensorProblem};

/// A tensor's type, dimensions and elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView {
    /// Element type.
    pub dtype: DataType,
    /// Dimensions, none below zero.
    pub dims: Vec<i64>,
    /// The elements, row-major and little-endian, exactly as many bytes as `dims` ask for. No alignment is promised:
    /// the bytes may lie anywhere in a mapped file. Elements below a byte are packed from the lowest bit up (two
    /// 4-bit, four 2-bit elements in a byte; four 6-bit elements in three bytes). Bools are 0 or 1. Empty for
    /// strings.
    pub bytes: Bytes,
    /// The elements, if they are strings, which are UTF-8.
    pub strings: Option<Vec<Bytes>>,
}

impl TensorView {
    /// How many elements there are.
    pub fn elements(&self) -> usize {
        // Checked when the view was made.
        count(&self.dims).unwrap_or(usize::MAX)
    }

    /// The elements as integers, if the type is an integer of at least 8 bits or bool; `None` for other types, and
    /// for a UINT64 above the largest `i64`.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        fn each<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> i64) -> Vec<i64> {
            let (chunks, _) = bytes.as_chunks::<N>();
            chunks.iter().map(|chunk| read(*chunk)).collect()
        }
        let bytes = &self.bytes;
        Some(match self.dtype {
            DataType::Bool | DataType::Uint8 => each(bytes, |b| i64::from(u8::from_le_bytes(b))),
            DataType::Int8 => each(bytes, |b| i64::from(i8::from_le_bytes(b))),
            DataType::Uint16 => each(bytes, |b| i64::from(u16::from_le_bytes(b))),
            DataType::Int16 => each(bytes, |b| i64::from(i16::from_le_bytes(b))),
            DataType::Uint32 => each(bytes, |b| i64::from(u32::from_le_bytes(b))),
            DataType::Int32 => each(bytes, |b| i64::from(i32::from_le_bytes(b))),
            DataType::Int64 => each(bytes, i64::from_le_bytes),
            DataType::Uint64 => {
                let values = each(bytes, i64::from_le_bytes);
                if values.iter().any(|value| *value < 0) {
                    return None;
                }
                values
            }
            _ => return None,
        })
    }

    /// The elements, if the type is FLOAT.
    pub fn to_f32s(&self) -> Option<Vec<f32>> {
        let (chunks, _) = self.bytes.as_chunks::<4>();
        (self.dtype == DataType::Float).then(|| {
            chunks
                .iter()
                .map(|chunk| f32::from_le_bytes(*chunk))
                .collect()
        })
    }

    /// The elements, if the type is DOUBLE or FLOAT.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        if self.dtype == DataType::Double {
            let (chunks, _) = self.bytes.as_chunks::<8>();
            return Some(
                chunks
                    .iter()
                    .map(|chunk| f64::from_le_bytes(*chunk))
                    .collect(),
            );
        }
        Some(self.to_f32s()?.into_iter().map(f64::from).collect())
    }

    /// The elements with a byte at least for each: those of less than a byte are taken apart, integers sign- or
    /// zero-extended. What [`pack`] undoes.
    pub fn unpacked(&self) -> Bytes {
        let bits = self.dtype.bits();
        if bits == 0 || bits >= 8 {
            return self.bytes.clone();
        }
        let signed = matches!(self.dtype, DataType::Int4 | DataType::Int2);
        let all = (1u32 << bits) - 1;
        // An element by its code; 6 bits may straddle two bytes.
        let element = |code: u32| match signed && code >> (bits - 1) == 1 {
            true => (code | !all) as u8,
            false => code as u8,
        };
        let count = self.elements();
        let mut out = Vec::with_capacity(count);
        if bits < 6 {
            for byte in self.bytes.iter() {
                for place in (0..8).step_by(bits) {
                    out.push(element(u32::from(*byte) >> place & all));
                }
            }
            out.truncate(count);
            return out.into();
        }
        let at = |i: usize| self.bytes.get(i).copied().map_or(0, u32::from);
        for i in 0..count {
            let (byte, place) = (i / 4 * 3 + i % 4 * bits / 8, i % 4 * bits % 8);
            out.push(element((at(byte) | at(byte + 1) << 8) >> place & all));
        }
        out.into()
    }

    /// A tensor that stores these elements in `raw_data` (strings in `string_data`).
    pub fn to_proto(&self, name: &str) -> TensorProto {
        TensorProto {
            name: name.to_string(),
            dims: self.dims.clone(),
            data_type: self.dtype.to_wire(),
            raw_data: self.bytes.clone(),
            string_data: self.strings.clone().unwrap_or_default(),
            ..TensorProto::default()
        }
    }
}

/// Elements of a byte at least each as a file stores them: packed, where the type has less.
pub fn pack(dtype: DataType, elements: &[u8]) -> Bytes {
    match dtype.bits() {
        bits @ 1..8 => packed(bits, elements.iter().map(|e| u32::from(*e))).into(),
        _ => Bytes::copy_from_slice(elements),
    }
}

/// The low bits of each, from the lowest bit of the first byte up.
fn packed(bits: usize, elements: impl Iterator<Item = u32>) -> Vec<u8> {
    let (mut out, mut word, mut filled) = (Vec::new(), 0u32, 0);
    for e in elements {
        word |= (e & ((1 << bits) - 1)) << filled;
        filled += bits;
        if filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
    out
}

/// The elements of a tensor that stands alone, such as one of a value file: external data is refused.
pub fn tensor_view(tensor: &TensorProto) -> Result<TensorView, OnnxError> {
    read(tensor, None)
}

/// The elements of a tensor of a model.
pub(crate) fn read(
    tensor: &TensorProto,
    files: Option<&DataFiles>,
) -> Result<TensorView, OnnxError> {
    let layout = layout(tensor).map_err(|problem| named(tensor, problem))?;
    let mut strings = None;
    let bytes = match layout.source {
        Source::Raw => normal_bools(layout.dtype, &tensor.raw_data),
        Source::External => normal_bools(layout.dtype, &external(tensor, &layout, files)?),
        Source::Typed(Field::Float) => le_bytes(&tensor.float_data, |v| v.to_le_bytes()),
        Source::Typed(Field::Double) => le_bytes(&tensor.double_data, |v| v.to_le_bytes()),
        Source::Typed(Field::Int64) => le_bytes(&tensor.int64_data, |v| v.to_le_bytes()),
        Source::Typed(Field::Uint64) if layout.dtype == DataType::Uint32 => {
            le_bytes(&tensor.uint64_data, |v| (v as u32).to_le_bytes())
        }
        Source::Typed(Field::Uint64) => le_bytes(&tensor.uint64_data, |v| v.to_le_bytes()),
        Source::Typed(Field::Int32) => narrow(layout.dtype, &tensor.int32_data),
        Source::Typed(Field::String) => {
            strings = Some(tensor.string_data.clone());
            Bytes::new()
        }
    };
    Ok(TensorView {
        dtype: layout.dtype,
        dims: tensor.dims.clone(),
        bytes,
        strings,
    })
}

/// Whether [`read`] would succeed, without converting or copying anything. Data files are mapped, not read.
pub(crate) fn validate(tensor: &TensorProto, files: Option<&DataFiles>) -> Result<(), OnnxError> {
    let layout = layout(tensor).map_err(|problem| named(tensor, problem))?;
    if matches!(layout.source, Source::External) {
        external(tensor, &layout, files)?;
    }
    Ok(())
}

/// Where a tensor's elements stand, and how many bytes they come to.
struct Layout {
    dtype: DataType,
    size: usize,
    source: Source,
}

enum Source {
    Raw,
    External,
    Typed(Field),
}

/// Settles the layout; whatever follows can rely on type, dimensions, field, sizes and ranges.
fn layout(tensor: &TensorProto) -> Result<Layout, TensorProblem> {
    let dtype = DataType::from_wire(tensor.data_type).ok_or(TensorProblem::UnknownType {
        found: tensor.data_type,
    })?;
    if tensor.segment.is_some() {
        return Err(TensorProblem::Segment);
    }
    for (axis, &found) in tensor.dims.iter().enumerate() {
        if found < 0 {
            return Err(TensorProblem::NegativeDim { axis, found });
        }
    }
    let too_large = || TensorProblem::TooLarge {
        dtype,
        dims: tensor.dims.clone(),
    };
    let elements = count(&tensor.dims).ok_or_else(too_large)?;
    let size = byte_size(dtype, elements).ok_or_else(too_large)?;
    let (field, entries) = dtype.field(elements).ok_or_else(too_large)?;

    let mut used = used_fields(tensor);
    let first = used.next();
    if let (Some((first, _)), Some((second, _))) = (first, used.next()) {
        return Err(TensorProblem::TwoFields { first, second });
    }
    if tensor.data_location == DataLocation::External as i32 {
        return match first {
            Some((first, _)) => Err(TensorProblem::TwoFields {
                first,
                second: "external data",
            }),
            None => Ok(Layout {
                dtype,
                size,
                source: Source::External,
            }),
        };
    }
    let wrong_size = |field, unit, expected, found| TensorProblem::WrongSize {
        dtype,
        dims: tensor.dims.clone(),
        field,
        unit,
        expected,
        found,
    };
    match first {
        Some(("raw_data", found)) if dtype != DataType::String => {
            if found != size {
                return Err(wrong_size("raw_data", "bytes", size, found));
            }
            Ok(Layout {
                dtype,
                size,
                source: Source::Raw,
            })
        }
        Some((name, _)) if name != field.name() => Err(TensorProblem::WrongField {
            dtype,
            found: name,
            expected: field.name(),
        }),
        _ => {
            let found = first.map_or(0, |(_, found)| found);
            if found != entries {
                return Err(wrong_size(field.name(), "entries", entries, found));
            }
            check_ranges(dtype, field, tensor)?;
            let utf8 = |text: &Bytes| std::str::from_utf8(text).is_ok();
            if let Some(index) = tensor.string_data.iter().position(|text| !utf8(text)) {
                return Err(TensorProblem::NotUtf8 { index });
            }
            Ok(Layout {
                dtype,
                size,
                source: Source::Typed(field),
            })
        }
    }
}

/// The fields that hold something, and how many bytes or entries.
fn used_fields(tensor: &TensorProto) -> impl Iterator<Item = (&'static str, usize)> {
    [
        ("raw_data", tensor.raw_data.len()),
        (Field::Float.name(), tensor.float_data.len()),
        (Field::Int32.name(), tensor.int32_data.len()),
        (Field::Int64.name(), tensor.int64_data.len()),
        (Field::Double.name(), tensor.double_data.len()),
        (Field::Uint64.name(), tensor.uint64_data.len()),
        (Field::String.name(), tensor.string_data.len()),
    ]
    .into_iter()
    .filter(|(_, found)| *found > 0)
}

/// Whether entries that are wider than the element fit it, signed or unsigned: writers of bit patterns and of small
/// integers sign-extend or not, as they please.
fn check_ranges(dtype: DataType, field: Field, tensor: &TensorProto) -> Result<(), TensorProblem> {
    let out = |(index, found): (usize, i128)| TensorProblem::OutOfRange {
        dtype,
        field: field.name(),
        index,
        found,
    };
    let (low, high): (i128, i128) = match (field, dtype.bits()) {
        (Field::Uint64, 32) => (0, u32::MAX.into()),
        (Field::Int32, _) if dtype == DataType::Bool => return Ok(()),
        (Field::Int32, 2 | 4 | 8) => (i8::MIN.into(), u8::MAX.into()),
        (Field::Int32, 6) => (0, 63),
        (Field::Int32, 16) => (i16::MIN.into(), u16::MAX.into()),
        _ => return Ok(()),
    };
    let outside = |(_, value): &(usize, i128)| *value < low || *value > high;
    let bad = if field == Field::Uint64 {
        let mut values = tensor
            .uint64_data
            .iter()
            .map(|v| i128::from(*v))
            .enumerate();
        values.find(outside)
    } else {
        let mut values = tensor.int32_data.iter().map(|v| i128::from(*v)).enumerate();
        values.find(outside)
    };
    bad.map_or(Ok(()), |bad| Err(out(bad)))
}

/// The product of the dimensions, if it fits. None may be below zero.
pub(crate) fn count(dims: &[i64]) -> Option<usize> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |product, dim| {
        product.checked_mul(usize::try_from(*dim).ok()?)
    })
}

fn byte_size(dtype: DataType, elements: usize) -> Option<usize> {
    let bits = (elements as u128).checked_mul(dtype.bits() as u128)?;
    let bytes = isize::try_from(bits.div_ceil(8)).ok()?;
    usize::try_from(bytes).ok()
}

fn external(
    tensor: &TensorProto,
    layout: &Layout,
    files: Option<&DataFiles>,
) -> Result<Bytes, OnnxError> {
    let files = files.ok_or_else(|| named(tensor, TensorProblem::ExternalAlone))?;
    files.read(&Wanted {
        tensor: &tensor.name,
        dtype: layout.dtype,
        dims: &tensor.dims,
        size: layout.size,
        entries: &tensor.external_data,
    })
}

/// The bytes themselves, unless they are bools other than 0 and 1.
fn normal_bools(dtype: DataType, bytes: &Bytes) -> Bytes {
    if dtype == DataType::Bool && bytes.iter().any(|byte| *byte > 1) {
        return bytes.iter().map(|byte| u8::from(*byte != 0)).collect();
    }
    bytes.clone()
}

fn le_bytes<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Bytes {
    let mut out = Vec::with_capacity(values.len().saturating_mul(N));
    for value in values {
        out.extend_from_slice(&bytes(*value));
    }
    out.into()
}

/// The bytes of `int32_data`, as wide as the type is.
fn narrow(dtype: DataType, values: &[i32]) -> Bytes {
    match dtype.bits() {
        32 => le_bytes(values, i32::to_le_bytes),
        16 => le_bytes(values, |v| (v as u16).to_le_bytes()),
        6 => packed(6, values.iter().map(|v| *v as u32)).into(),
        _ if dtype == DataType::Bool => values.iter().map(|v| u8::from(*v != 0)).collect(),
        _ => values.iter().map(|v| *v as u8).collect(),
    }
}

fn named(tensor: &TensorProto, problem: TensorProblem) -> OnnxError {
    OnnxError::Tensor {
        tensor: tensor.name.clone(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DataType, dims: &[i64]) -> TensorProto {
        TensorProto {
            name: "t".into(),
            data_type: dtype.to_wire(),
            dims: dims.to_vec(),
            ..TensorProto::default()
        }
    }

    fn raw(dtype: DataType, dims: &[i64], bytes: &'static [u8]) -> TensorProto {
        TensorProto {
            raw_data: Bytes::from_static(bytes),
            ..tensor(dtype, dims)
        }
    }

    fn int32(dtype: DataType, dims: &[i64], values: &[i32]) -> TensorProto {
        TensorProto {
            int32_data: values.to_vec(),
            ..tensor(dtype, dims)
        }
    }

    #[test]
    fn every_field_gives_the_same_little_endian_bytes() {
        let cases: Vec<(TensorProto, &[u8])> = vec![
            (raw(DataType::Uint8, &[3], &[1, 2, 3]), &[1, 2, 3]),
            (raw(DataType::Int4, &[3], &[0x21, 0x03]), &[0x21, 0x03]),
            (raw(DataType::Bool, &[3], &[0, 1, 7]), &[0, 1, 1]),
            (int32(DataType::Bool, &[3], &[0, 1, 256]), &[0, 1, 1]),
            (int32(DataType::Uint8, &[2], &[255, 0]), &[255, 0]),
            (int32(DataType::Int8, &[2], &[-1, 127]), &[255, 127]),
            (int32(DataType::Int16, &[1], &[-2]), &[0xfe, 0xff]),
            (int32(DataType::Uint16, &[1], &[0xfffe]), &[0xfe, 0xff]),
            (int32(DataType::Float16, &[1], &[0x3c00]), &[0x00, 0x3c]),
            (int32(DataType::Bfloat16, &[1], &[0x3f80]), &[0x80, 0x3f]),
            (int32(DataType::Float8E4M3Fn, &[1], &[0x38]), &[0x38]),
            (int32(DataType::Int32, &[1], &[-1]), &[255, 255, 255, 255]),
            (int32(DataType::Uint4, &[3], &[0x21, 0x03]), &[0x21, 0x03]),
            (int32(DataType::Float4E2M1, &[1], &[0x02]), &[0x02]),
            (int32(DataType::Int2, &[5], &[0xe4, 0x01]), &[0xe4, 0x01]),
            // 6 bits: 1, 2, 3, 4 and 5 from the lowest bit up.
            (
                int32(DataType::Float6E2M3, &[5], &[1, 2, 3, 4, 5]),
                &[0x81, 0x30, 0x10, 0x05],
            ),
            (
                TensorProto {
                    float_data: vec![1.0],
                    ..tensor(DataType::Float, &[])
                },
                &[0, 0, 0x80, 0x3f],
            ),
            (
                TensorProto {
                    float_data: vec![0.0, 1.0],
                    ..tensor(DataType::Complex64, &[1])
                },
                &[0, 0, 0, 0, 0, 0, 0x80, 0x3f],
            ),
            (
                TensorProto {
                    double_data: vec![2.0],
                    ..tensor(DataType::Double, &[1])
                },
                &[0, 0, 0, 0, 0, 0, 0, 0x40],
            ),
            (
                TensorProto {
                    int64_data: vec![-1],
                    ..tensor(DataType::Int64, &[1])
                },
                &[255; 8],
            ),
            (
                TensorProto {
                    uint64_data: vec![0x0102_0304],
                    ..tensor(DataType::Uint32, &[1])
                },
                &[4, 3, 2, 1],
            ),
            (
                TensorProto {
                    uint64_data: vec![5],
                    ..tensor(DataType::Uint64, &[1])
                },
                &[5, 0, 0, 0, 0, 0, 0, 0],
            ),
            (tensor(DataType::Float, &[0, i64::MAX, i64::MAX]), &[]),
        ];
        for (proto, expected) in cases {
            let view = tensor_view(&proto).unwrap();
            assert_eq!(&view.bytes[..], expected, "{proto:?}");
            assert_eq!(view.dims, proto.dims);
            assert!(validate(&proto, None).is_ok());
            assert_eq!(tensor_view(&view.to_proto("t")).unwrap(), view);
        }
    }

    #[test]
    fn raw_bytes_are_shared_and_strings_are_kept() {
        let proto = raw(DataType::Uint8, &[3], &[1, 2, 3]);
        let view = tensor_view(&proto).unwrap();
        assert_eq!(view.bytes.as_ptr(), proto.raw_data.as_ptr());

        let strings = vec![Bytes::from_static(b"a"), Bytes::from_static(b"")];
        let proto = TensorProto {
            string_data: strings.clone(),
            ..tensor(DataType::String, &[2])
        };
        let view = tensor_view(&proto).unwrap();
        assert_eq!(view.strings, Some(strings));
        assert_eq!(tensor_view(&view.to_proto("t")).unwrap(), view);
    }

    #[test]
    fn elements_below_a_byte_are_taken_apart_and_packed_again() {
        let cases: [(DataType, &[u8], &[u8]); 5] = [
            (DataType::Int4, &[0xf1, 0x07], &[1, 0xff, 7]),
            (DataType::Uint4, &[0xf1, 0x07], &[1, 15, 7]),
            (DataType::Int2, &[0xe4, 0x02], &[0, 1, 0xfe, 0xff, 0xfe]),
            (DataType::Uint2, &[0xe4, 0x02], &[0, 1, 2, 3, 2]),
            (
                DataType::Float6E2M3,
                &[0x81, 0x30, 0x10, 0x3f],
                &[1, 2, 3, 4, 63],
            ),
        ];
        for (dtype, stored, elements) in cases {
            let view = TensorView {
                dtype,
                dims: vec![elements.len() as i64],
                bytes: Bytes::from_static(stored),
                strings: None,
            };
            assert_eq!(&view.unpacked()[..], elements, "{dtype}");
            assert_eq!(&pack(dtype, elements)[..], stored, "{dtype}");
        }
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let cases: Vec<(TensorProto, &str)> = vec![
            (
                TensorProto {
                    data_type: 0,
                    ..tensor(DataType::Float, &[])
                },
                "tensor 't': data_type 0 is not an ONNX element type (expected 1 to 28)",
            ),
            (
                raw(DataType::Uint8, &[2, -1], &[1]),
                "tensor 't': dimension 1 is -1, expected 0 or more",
            ),
            (
                tensor(DataType::Float, &[i64::MAX, 2]),
                "tensor 't': FLOAT of dimensions [9223372036854775807, 2] is larger than memory can hold",
            ),
            (
                tensor(DataType::Double, &[1 << 61]),
                "tensor 't': DOUBLE of dimensions [2305843009213693952] is larger than memory can hold",
            ),
            (
                raw(DataType::Float, &[2], &[0, 0, 0, 0]),
                "tensor 't': FLOAT of dimensions [2] takes 8 bytes in raw_data, found 4",
            ),
            (
                tensor(DataType::Float, &[2]),
                "tensor 't': FLOAT of dimensions [2] takes 2 entries in float_data, found 0",
            ),
            (
                int32(DataType::Float, &[1], &[1]),
                "tensor 't': elements of type FLOAT are stored in int32_data, expected float_data",
            ),
            (
                raw(DataType::String, &[1], &[1]),
                "tensor 't': elements of type STRING are stored in raw_data, expected string_data",
            ),
            (
                TensorProto {
                    float_data: vec![0.0],
                    ..raw(DataType::Float, &[1], &[0, 0, 0, 0])
                },
                "tensor 't': elements are stored both in raw_data and in float_data, expected one of them",
            ),
            (
                int32(DataType::Uint8, &[2], &[1, 256]),
                "tensor 't': entry 1 of int32_data is 256, which does not fit UINT8",
            ),
            (
                int32(DataType::Float6E3M2, &[1], &[64]),
                "tensor 't': entry 0 of int32_data is 64, which does not fit FLOAT6E3M2",
            ),
            (
                TensorProto {
                    data_location: DataLocation::External as i32,
                    ..tensor(DataType::Float, &[1])
                },
                "tensor 't': its elements are external data, which only a tensor of a model file can have",
            ),
        ];
        for (proto, expected) in cases {
            assert_eq!(tensor_view(&proto).unwrap_err().to_string(), expected);
            assert_eq!(validate(&proto, None).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn integers_are_read_whatever_their_width() {
        let cases = [
            (raw(DataType::Int8, &[2], &[255, 1]), Some(vec![-1, 1])),
            (raw(DataType::Uint16, &[1], &[255, 255]), Some(vec![65535])),
            (
                raw(DataType::Int32, &[1], &[254, 255, 255, 255]),
                Some(vec![-2]),
            ),
            (raw(DataType::Uint64, &[1], &[255; 8]), None),
            (raw(DataType::Float, &[1], &[0; 4]), None),
        ];
        for (proto, expected) in cases {
            assert_eq!(tensor_view(&proto).unwrap().to_i64s(), expected);
        }
    }
}
