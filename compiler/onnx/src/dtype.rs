//! The element types of ONNX: their numbers on the wire, names, widths, and the field that stores them.
//!
//! One table ([`DataType::ALL`] and the methods beside it); all else in the crate asks here.

use std::fmt;

/// The type of a tensor's elements. The discriminants are the numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum DataType {
    /// 32-bit IEEE float.
    Float = 1,
    /// Unsigned 8-bit integer.
    Uint8 = 2,
    /// Signed 8-bit integer.
    Int8 = 3,
    /// Unsigned 16-bit integer.
    Uint16 = 4,
    /// Signed 16-bit integer.
    Int16 = 5,
    /// Signed 32-bit integer.
    Int32 = 6,
    /// Signed 64-bit integer.
    Int64 = 7,
    /// UTF-8 string.
    String = 8,
    /// A byte that is 0 or 1.
    Bool = 9,
    /// 16-bit IEEE float.
    Float16 = 10,
    /// 64-bit IEEE float.
    Double = 11,
    /// Unsigned 32-bit integer.
    Uint32 = 12,
    /// Unsigned 64-bit integer.
    Uint64 = 13,
    /// Two 32-bit floats: real, imaginary.
    Complex64 = 14,
    /// Two 64-bit floats: real, imaginary.
    Complex128 = 15,
    /// The upper half of a 32-bit float.
    Bfloat16 = 16,
    /// 4 bits of exponent, 3 of mantissa; NaN, no infinity.
    Float8E4M3Fn = 17,
    /// The same without negative zero.
    Float8E4M3FnUz = 18,
    /// 5 bits of exponent, 2 of mantissa; NaN and infinity.
    Float8E5M2 = 19,
    /// The same with NaN alone and without negative zero.
    Float8E5M2FnUz = 20,
    /// Unsigned 4-bit integer.
    Uint4 = 21,
    /// Signed 4-bit integer.
    Int4 = 22,
    /// 2 bits of exponent, 1 of mantissa.
    Float4E2M1 = 23,
    /// 8 bits of exponent alone.
    Float8E8M0 = 24,
    /// Unsigned 2-bit integer.
    Uint2 = 25,
    /// Signed 2-bit integer.
    Int2 = 26,
    /// 2 bits of exponent, 3 of mantissa.
    Float6E2M3 = 27,
    /// 3 bits of exponent, 2 of mantissa.
    Float6E3M2 = 28,
}

/// The field of a `TensorProto` that holds elements of a type, if `raw_data` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Float,
    Int32,
    Int64,
    Double,
    Uint64,
    String,
}

impl Field {
    /// The field's name in `TensorProto`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Field::Float => "float_data",
            Field::Int32 => "int32_data",
            Field::Int64 => "int64_data",
            Field::Double => "double_data",
            Field::Uint64 => "uint64_data",
            Field::String => "string_data",
        }
    }
}

impl DataType {
    /// Every type, in the order of the numbers on the wire.
    pub const ALL: [DataType; 28] = [
        DataType::Float,
        DataType::Uint8,
        DataType::Int8,
        DataType::Uint16,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::String,
        DataType::Bool,
        DataType::Float16,
        DataType::Double,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Complex64,
        DataType::Complex128,
        DataType::Bfloat16,
        DataType::Float8E4M3Fn,
        DataType::Float8E4M3FnUz,
        DataType::Float8E5M2,
        DataType::Float8E5M2FnUz,
        DataType::Uint4,
        DataType::Int4,
        DataType::Float4E2M1,
        DataType::Float8E8M0,
        DataType::Uint2,
        DataType::Int2,
        DataType::Float6E2M3,
        DataType::Float6E3M2,
    ];

    /// The type with this number on the wire; `None` for UNDEFINED (0) and for numbers that ONNX does not use.
    pub fn from_wire(number: i32) -> Option<DataType> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        DataType::ALL.get(index).copied()
    }

    /// The number on the wire.
    pub fn to_wire(self) -> i32 {
        self as i32
    }

    /// Bits that an element takes in `raw_data`; 0 for strings, which have no fixed width.
    pub fn bits(self) -> usize {
        match self {
            DataType::String => 0,
            DataType::Uint2 | DataType::Int2 => 2,
            DataType::Uint4 | DataType::Int4 | DataType::Float4E2M1 => 4,
            DataType::Float6E2M3 | DataType::Float6E3M2 => 6,
            DataType::Uint8
            | DataType::Int8
            | DataType::Bool
            | DataType::Float8E4M3Fn
            | DataType::Float8E4M3FnUz
            | DataType::Float8E5M2
            | DataType::Float8E5M2FnUz
            | DataType::Float8E8M0 => 8,
            DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 16,
            DataType::Float | DataType::Int32 | DataType::Uint32 => 32,
            DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => 64,
            DataType::Complex128 => 128,
        }
    }

    /// The name in the ONNX specification, such as `FLOAT16`.
    pub fn name(self) -> &'static str {
        match self {
            DataType::Float => "FLOAT",
            DataType::Uint8 => "UINT8",
            DataType::Int8 => "INT8",
            DataType::Uint16 => "UINT16",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::String => "STRING",
            DataType::Bool => "BOOL",
            DataType::Float16 => "FLOAT16",
            DataType::Double => "DOUBLE",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Complex64 => "COMPLEX64",
            DataType::Complex128 => "COMPLEX128",
            DataType::Bfloat16 => "BFLOAT16",
            DataType::Float8E4M3Fn => "FLOAT8E4M3FN",
            DataType::Float8E4M3FnUz => "FLOAT8E4M3FNUZ",
            DataType::Float8E5M2 => "FLOAT8E5M2",
            DataType::Float8E5M2FnUz => "FLOAT8E5M2FNUZ",
            DataType::Uint4 => "UINT4",
            DataType::Int4 => "INT4",
            DataType::Float4E2M1 => "FLOAT4E2M1",
            DataType::Float8E8M0 => "FLOAT8E8M0",
            DataType::Uint2 => "UINT2",
            DataType::Int2 => "INT2",
            DataType::Float6E2M3 => "FLOAT6E2M3",
            DataType::Float6E3M2 => "FLOAT6E3M2",
        }
    }

    /// The field of `TensorProto` for elements of this type, and how many entries `elements` of them take there;
    /// `None` if that number overflows.
    pub(crate) fn field(self, elements: usize) -> Option<(Field, usize)> {
        Some(match self {
            DataType::Float => (Field::Float, elements),
            DataType::Complex64 => (Field::Float, elements.checked_mul(2)?),
            DataType::Double => (Field::Double, elements),
            DataType::Complex128 => (Field::Double, elements.checked_mul(2)?),
            DataType::Int64 => (Field::Int64, elements),
            DataType::Uint32 | DataType::Uint64 => (Field::Uint64, elements),
            DataType::String => (Field::String, elements),
            DataType::Uint4 | DataType::Int4 | DataType::Float4E2M1 => {
                (Field::Int32, elements.div_ceil(2))
            }
            DataType::Uint2 | DataType::Int2 => (Field::Int32, elements.div_ceil(4)),
            _ => (Field::Int32, elements),
        })
    }
}

impl TryFrom<i32> for DataType {
    type Error = i32;

    /// As [`DataType::from_wire`]; the error is the number.
    fn try_from(number: i32) -> Result<DataType, i32> {
        DataType::from_wire(number).ok_or(number)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensor_proto;

    #[test]
    fn numbers_and_names_are_those_of_the_proto() {
        for dtype in DataType::ALL {
            let proto = tensor_proto::DataType::try_from(dtype.to_wire()).unwrap();
            assert_eq!(proto.as_str_name(), dtype.name());
            assert_eq!(DataType::from_wire(dtype.to_wire()), Some(dtype));
        }
        for number in [i32::MIN, -1, 0, 29, i32::MAX] {
            assert_eq!(DataType::from_wire(number), None);
        }
    }
}
