//! Scalars, strings and constant data as text.

use crate::{DType, Scalar, TensorData};
use bytes::Bytes;

/// Constants up to this many elements are printed whole.
pub(super) const INLINE: usize = 16;

/// The value without its type: `1.0`, `-3`, `true`, `nan`, or the bits of an unusual NaN.
pub(super) fn scalar(s: Scalar) -> String {
    match s.dtype {
        DType::Bool if s.bits < 2 => (s.bits == 1).to_string(),
        t if t.is_float() || t.is_minifloat() => {
            let v = s.to_f64();
            if v.is_nan() {
                return match Scalar::of(t, f64::NAN) == s {
                    true => "nan".into(),
                    false => format!("0x{:x}", s.bits),
                };
            }
            match t {
                DType::F64 => format!("{v:?}"),
                _ => format!("{:?}", v as f32),
            }
        }
        t if t.is_signed_int() => match t {
            DType::I8 => (s.bits as i8).to_string(),
            DType::I16 => (s.bits as i16).to_string(),
            DType::I32 => (s.bits as i32).to_string(),
            _ => (s.bits as i64).to_string(),
        },
        DType::I4 | DType::I2 => (s.bits as i8).to_string(),
        t if t.is_complex() => format!("0x{:x}", s.bits),
        _ => s.bits.to_string(),
    }
}

/// Reads what [`scalar`] writes.
pub(super) fn parse_scalar(text: &str, dtype: DType) -> Option<Scalar> {
    let mask = u64::MAX >> (64 - 8 * dtype.bytes().min(8));
    if let Some(hex) = text.strip_prefix("0x") {
        let bits = u64::from_str_radix(hex, 16).ok()? & mask;
        return Some(Scalar { dtype, bits });
    }
    let bits = match dtype {
        DType::String => return None,
        DType::Bool => match text {
            "true" => 1,
            "false" => 0,
            _ => return None,
        },
        DType::F64 => text.parse::<f64>().ok()?.to_bits(),
        DType::F32 => text.parse::<f32>().ok()?.to_bits() as u64,
        DType::F16 | DType::BF16 => {
            return Some(Scalar::of(dtype, text.parse::<f32>().ok()? as f64));
        }
        t if t.is_minifloat() => return Some(Scalar::of(dtype, text.parse::<f64>().ok()?)),
        t if t.is_complex() => return None,
        t if t.is_small_int() => {
            let v = text.parse::<i8>().ok()?;
            return Some(Scalar::of(dtype, v as f64)).filter(|s| s.to_f64() == v as f64);
        }
        DType::U64 => text.parse::<u64>().ok()?,
        _ => text.parse::<i64>().ok()? as u64 & mask,
    };
    Some(Scalar { dtype, bits })
}

/// A double-quoted string with escapes.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c if c.is_control() => {
                    out.extend(c.to_string().bytes().map(|b| format!("\\x{b:02x}")))
                }
                c => out.push(c),
            }
        }
        out.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02x}")));
    }
    out.push('"');
    out
}

/// Element `i` of a numeric tensor.
fn element(t: &TensorData, i: usize) -> Option<Scalar> {
    let n = t.dtype.bytes();
    let mut raw = [0u8; 8];
    raw.get_mut(..n)?
        .copy_from_slice(t.bytes.get(i * n..(i + 1) * n)?);
    Some(Scalar {
        dtype: t.dtype,
        bits: u64::from_le_bytes(raw),
    })
}

/// FNV-1a of the bytes.
fn hash(t: &TensorData) -> u64 {
    let strings = t.strings.iter().flat_map(|s| s.iter().chain(&[0]));
    t.bytes
        .iter()
        .chain(strings)
        .fold(0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ *b as u64).wrapping_mul(0x100_0000_01b3)
        })
}

/// The right side of a constant.
pub(super) fn data(t: &TensorData) -> String {
    if t.dtype == DType::String {
        return match t.strings.len() <= INLINE {
            true => list(t.strings.iter().map(|s| quoted(s))),
            false => format!("#{:016x}", hash(t)),
        };
    }
    let n = t.dtype.bytes();
    let count = t.bytes.len() / n;
    // A scalar holds no element of 16 bytes.
    if n > 8 {
        return format!("#{:016x}", hash(t));
    }
    if count <= INLINE {
        return list((0..count).filter_map(|i| element(t, i)).map(scalar));
    }
    let first = t.bytes.get(..n).unwrap_or(&[]);
    match element(t, 0) {
        Some(v) if t.bytes.chunks_exact(n).all(|c| c == first) => format!("splat({})", scalar(v)),
        _ => format!("#{:016x}", hash(t)),
    }
}

/// `[a, b, c]`.
pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// A tensor of these scalars.
pub(super) fn tensor(dtype: DType, dims: Vec<i64>, scalars: &[Scalar]) -> TensorData {
    let n = dtype.bytes();
    let bytes: Vec<u8> = scalars
        .iter()
        .flat_map(|s| s.bits.to_le_bytes().into_iter().chain([0; 8]).take(n))
        .collect();
    TensorData {
        dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    }
}

/// Reproducible contents: floats in [-1, 1), signed integers in [-8, 8), others in [0, 16).
pub(super) fn random(dtype: DType, dims: Vec<i64>, count: usize, seed: u64) -> TensorData {
    let mut state = seed;
    // splitmix64
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    if dtype == DType::String {
        let strings = (0..count).map(|_| Bytes::from(format!("s{}", next() % 16)));
        return TensorData {
            dtype,
            dims,
            bytes: Bytes::new(),
            strings: strings.collect(),
        };
    }
    let scalars: Vec<Scalar> = (0..count)
        .map(|_| {
            let r = next() >> 40;
            let v = match dtype {
                DType::Bool => (r & 1) as f64,
                t if t.is_float() || t.is_minifloat() || t.is_complex() => {
                    r as f64 / (1u64 << 23) as f64 - 1.0
                }
                t if t.is_signed_int() => (r % 16) as f64 - 8.0,
                _ => (r % 16) as f64,
            };
            Scalar::of(dtype, v)
        })
        .collect();
    tensor(dtype, dims, &scalars)
}
