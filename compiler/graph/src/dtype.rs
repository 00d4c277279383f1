//! Element types.
//!
//! Some are *storage* types: they are moved, selected, reinterpreted and cast, and nothing else. These are the floats
//! of 8 bits and less ([`crate::minifloat`]), the integers of 4 and 2 bits, and complex numbers. Whatever has
//! less than a byte takes one: integers sign- or zero-extended, floats their code.

use std::fmt;

/// Element type of a tensor; the ONNX set, in ONNX numbering where it crosses an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(i32)]
pub enum DType {
    /// IEEE 754 binary32.
    F32 = 1,
    /// 8 bits without a sign.
    U8 = 2,
    /// 8 bits, two's complement.
    I8 = 3,
    /// 16 bits without a sign.
    U16 = 4,
    /// 16 bits, two's complement.
    I16 = 5,
    /// 32 bits, two's complement.
    I32 = 6,
    /// 64 bits, two's complement; the type of shapes and indices.
    I64 = 7,
    /// Bytes of any length, UTF-8 by ONNX's rule.
    String = 8,
    /// A byte that is 0 or 1.
    Bool = 9,
    /// IEEE 754 binary16.
    F16 = 10,
    /// IEEE 754 binary64.
    F64 = 11,
    /// 32 bits without a sign.
    U32 = 12,
    /// 64 bits without a sign.
    U64 = 13,
    /// Two f32: real, imaginary.
    C64 = 14,
    /// Two f64: real, imaginary.
    C128 = 15,
    /// The upper half of an f32: 8 bits of exponent, 7 of mantissa.
    BF16 = 16,
    /// 4 bits of exponent, 3 of mantissa; no infinity, all ones is NaN.
    F8E4M3FN = 17,
    /// As [`DType::F8E4M3FN`], but the bias is 8 and the code of negative zero is the one NaN.
    F8E4M3FNUZ = 18,
    /// 5 bits of exponent, 2 of mantissa; infinities and NaN as IEEE has them.
    F8E5M2 = 19,
    /// 5 bits of exponent, 2 of mantissa; the code of negative zero is the one NaN, there is no infinity.
    F8E5M2FNUZ = 20,
    /// 4 bits without a sign.
    U4 = 21,
    /// 4 bits, two's complement.
    I4 = 22,
    /// 2 bits of exponent, 1 of mantissa; finite numbers only.
    F4E2M1 = 23,
    /// A power of two.
    F8E8M0 = 24,
    /// 2 bits without a sign.
    U2 = 25,
    /// 2 bits, two's complement.
    I2 = 26,
    /// 2 bits of exponent, 3 of mantissa; finite numbers only.
    F6E2M3 = 27,
    /// 3 bits of exponent, 2 of mantissa; finite numbers only.
    F6E3M2 = 28,
}

impl DType {
    /// Every type, in ONNX order.
    pub const ALL: [DType; 28] = [
        DType::F32,
        DType::U8,
        DType::I8,
        DType::U16,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::String,
        DType::Bool,
        DType::F16,
        DType::F64,
        DType::U32,
        DType::U64,
        DType::C64,
        DType::C128,
        DType::BF16,
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::U4,
        DType::I4,
        DType::F4E2M1,
        DType::F8E8M0,
        DType::U2,
        DType::I2,
        DType::F6E2M3,
        DType::F6E3M2,
    ];
    /// From the number that ONNX gives it.
    pub fn from_onnx(code: i32) -> Option<DType> {
        Self::ALL.into_iter().find(|t| *t as i32 == code)
    }
    /// Bytes of one element in memory; a string is a run-time record and has none here.
    pub fn bytes(self) -> usize {
        match self {
            DType::String => 16,
            t => t.bits().div_ceil(8),
        }
    }
    /// Bits that tell one element from another; 0 for strings.
    pub fn bits(self) -> usize {
        match self {
            DType::String => 0,
            DType::U2 | DType::I2 => 2,
            DType::U4 | DType::I4 | DType::F4E2M1 => 4,
            DType::F6E2M3 | DType::F6E3M2 => 6,
            DType::U8 | DType::I8 | DType::Bool => 8,
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 8,
            DType::F8E8M0 => 8,
            DType::U16 | DType::I16 | DType::F16 | DType::BF16 => 16,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::I64 | DType::F64 | DType::U64 | DType::C64 => 64,
            DType::C128 => 128,
        }
    }
    /// A float that is computed with.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }
    /// Signed or unsigned integer that is computed with; `Bool` is none.
    pub fn is_int(self) -> bool {
        self.is_signed_int() || matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }
    /// Two's complement that is computed with; not those of less than a byte.
    pub fn is_signed_int(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
    }
    /// An integer of less than a byte.
    pub fn is_small_int(self) -> bool {
        matches!(self, DType::U4 | DType::I4 | DType::U2 | DType::I2)
    }
    /// A float of a byte or less.
    pub fn is_minifloat(self) -> bool {
        matches!(
            self,
            DType::F8E4M3FN
                | DType::F8E4M3FNUZ
                | DType::F8E5M2
                | DType::F8E5M2FNUZ
                | DType::F8E8M0
                | DType::F6E2M3
                | DType::F6E3M2
                | DType::F4E2M1
        )
    }
    /// A pair of floats.
    pub fn is_complex(self) -> bool {
        matches!(self, DType::C64 | DType::C128)
    }
    /// A type without arithmetic.
    pub fn is_storage(self) -> bool {
        self.is_small_int() || self.is_minifloat() || self.is_complex()
    }
    /// The name in text forms: `f32`, `i64`, `bool`, …
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::U16 => "u16",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::String => "string",
            DType::Bool => "bool",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::C64 => "c64",
            DType::C128 => "c128",
            DType::BF16 => "bf16",
            DType::F8E4M3FN => "f8e4m3fn",
            DType::F8E4M3FNUZ => "f8e4m3fnuz",
            DType::F8E5M2 => "f8e5m2",
            DType::F8E5M2FNUZ => "f8e5m2fnuz",
            DType::U4 => "u4",
            DType::I4 => "i4",
            DType::F4E2M1 => "f4e2m1",
            DType::F8E8M0 => "f8e8m0",
            DType::U2 => "u2",
            DType::I2 => "i2",
            DType::F6E2M3 => "f6e2m3",
            DType::F6E3M2 => "f6e3m2",
        }
    }
    /// From the name in text forms.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
