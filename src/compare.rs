//! Whether a result is right.
//!
//! In: expected and found tensors and a [`Tolerance`]. Out: the greatest absolute difference, or a [`Mismatch`]
//! that shows the worst element. Types and shapes must be equal; numbers may differ by `atol + rtol * |expected|`;
//! NaN equals NaN, and an infinity equals itself. Strings and types without arithmetic here must be equal.

use std::fmt;

use half::{bf16, f16};
use lapidary_graph::minifloat;
use lapidary_runtime::{DType, OwnedValue, Tensor};

/// How far a number may be from the expected one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Times the expected magnitude.
    pub rtol: f64,
    /// Whatever the magnitude.
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance {
            rtol: 1e-3,
            atol: 1e-5,
        }
    }
}

impl Tolerance {
    /// A bf16 keeps 8 bits: two of them that round apart are further apart than a tolerance made for f32.
    fn for_dtype(self, dtype: DType) -> Tolerance {
        match dtype {
            DType::BF16 => Tolerance {
                rtol: self.rtol.max(1.0 / 64.0),
                ..self
            },
            _ => self,
        }
    }
}

/// How two tensors differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// Another number of values.
    Count {
        /// How many were expected.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Another kind of value.
    Kind {
        /// The kind that was expected.
        expected: &'static str,
        /// The kind that it is.
        found: &'static str,
    },
    /// Inside of a container.
    Inside {
        /// The place.
        at: String,
        /// How the values there differ.
        mismatch: Box<Mismatch>,
    },
    /// Another element type.
    DType {
        /// The type that was expected.
        expected: DType,
        /// The type that it has.
        found: DType,
    },
    /// Another shape.
    Shape {
        /// The shape that was expected.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },
    /// Elements out of tolerance.
    Elements {
        /// How many.
        wrong: usize,
        /// Of how many.
        of: usize,
        /// Where the worst is.
        index: Vec<usize>,
        /// The worst element as it was expected.
        expected: String,
        /// The worst element as it is.
        found: String,
        /// The greatest difference; infinite where one is no number.
        difference: f64,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Count { expected, found } => {
                write!(f, "{found} values, expected {expected}")
            }
            Mismatch::Kind { expected, found } => write!(f, "a {found}, expected a {expected}"),
            Mismatch::Inside { at, mismatch } => write!(f, "{at}: {mismatch}"),
            Mismatch::DType { expected, found } => {
                write!(f, "type {found}, expected {expected}")
            }
            Mismatch::Shape { expected, found } => {
                write!(f, "shape {found:?}, expected {expected:?}")
            }
            Mismatch::Elements {
                wrong,
                of,
                index,
                expected,
                found,
                difference,
            } => write!(
                f,
                "{wrong} of {of} elements are wrong, the worst at {index:?}: {found}, expected {expected} (difference {difference:.3e})"
            ),
        }
    }
}

/// Compares two values of any kind; the greatest absolute difference, or the first mismatch. Maps are equal if
/// they have the same keys, in whatever order, and equal values.
pub fn compare_values(
    expected: &OwnedValue,
    found: &OwnedValue,
    tolerance: Tolerance,
) -> Result<f64, Mismatch> {
    let inside = |at: String| {
        move |mismatch: Mismatch| Mismatch::Inside {
            at,
            mismatch: Box::new(mismatch),
        }
    };
    match (expected, found) {
        (OwnedValue::Tensor(a), OwnedValue::Tensor(b)) => compare(a, b, tolerance),
        (OwnedValue::Sequence(a), OwnedValue::Sequence(b)) => {
            if a.len() != b.len() {
                return Err(Mismatch::Count {
                    expected: a.len(),
                    found: b.len(),
                });
            }
            let mut greatest = 0f64;
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                let difference = compare_values(a, b, tolerance);
                greatest = greatest.max(difference.map_err(inside(format!("element {i}")))?);
            }
            Ok(greatest)
        }
        (OwnedValue::Optional(None), OwnedValue::Optional(None)) => Ok(0.0),
        (OwnedValue::Optional(Some(a)), OwnedValue::Optional(Some(b))) => {
            compare_values(a, b, tolerance)
        }
        (OwnedValue::Optional(a), OwnedValue::Optional(b)) => Err(Mismatch::Count {
            expected: usize::from(a.is_some()),
            found: usize::from(b.is_some()),
        }),
        (
            OwnedValue::Map { keys, values },
            OwnedValue::Map {
                keys: found_keys,
                values: found_values,
            },
        ) => {
            let ordered = |keys: &Tensor, values: &OwnedValue| {
                let order = order(keys);
                (reordered(keys, &order), reordered_value(values, &order))
            };
            let (keys, values) = ordered(keys, values);
            let (found_keys, found_values) = ordered(found_keys, found_values);
            compare(&keys, &found_keys, tolerance).map_err(inside("keys".into()))?;
            compare_values(&values, &found_values, tolerance).map_err(inside("values".into()))
        }
        (expected, found) => Err(Mismatch::Kind {
            expected: expected.kind_name(),
            found: found.kind_name(),
        }),
    }
}

/// The places of a map's keys in ascending order of the keys.
fn order(keys: &Tensor) -> Vec<usize> {
    let count: usize = keys.shape().iter().product();
    let mut places: Vec<usize> = (0..count).collect();
    if let Ok(strings) = keys.strings() {
        places.sort_by(|a, b| strings.get(*a).cmp(&strings.get(*b)));
    } else if let Ok(numbers) = keys.as_slice::<i64>() {
        places.sort_by_key(|i| numbers.get(*i));
    }
    places
}

/// The elements of a vector in another order; a tensor that is no vector of so many as it is.
fn reordered(tensor: &Tensor, order: &[usize]) -> Tensor {
    if tensor.shape() != [order.len()] {
        return tensor.clone();
    }
    let made = match tensor.strings() {
        Ok(strings) => {
            let strings = order.iter().filter_map(|i| strings.get(*i).cloned());
            Tensor::from_strings(tensor.shape(), strings.collect::<Vec<_>>())
        }
        Err(_) => {
            let size = tensor.dtype().bytes();
            let elements: Vec<&[u8]> = tensor.bytes().chunks(size.max(1)).collect();
            let bytes: Vec<u8> = order
                .iter()
                .filter_map(|i| elements.get(*i))
                .flat_map(|e| e.iter().copied())
                .collect();
            Tensor::from_bytes(tensor.dtype(), tensor.shape(), &bytes)
        }
    };
    made.unwrap_or_else(|_| tensor.clone())
}

fn reordered_value(value: &OwnedValue, order: &[usize]) -> OwnedValue {
    match value {
        OwnedValue::Tensor(tensor) => OwnedValue::Tensor(reordered(tensor, order)),
        OwnedValue::Sequence(all) if all.len() == order.len() => {
            OwnedValue::Sequence(order.iter().filter_map(|i| all.get(*i).cloned()).collect())
        }
        other => other.clone(),
    }
}

/// Compares one tensor; gives the greatest absolute difference (0 for types without arithmetic).
pub fn compare(expected: &Tensor, found: &Tensor, tolerance: Tolerance) -> Result<f64, Mismatch> {
    if expected.dtype() != found.dtype() {
        return Err(Mismatch::DType {
            expected: expected.dtype(),
            found: found.dtype(),
        });
    }
    if expected.shape() != found.shape() {
        return Err(Mismatch::Shape {
            expected: expected.shape().to_vec(),
            found: found.shape().to_vec(),
        });
    }
    let tolerance = tolerance.for_dtype(expected.dtype());
    let mut tally = Tally::default();
    let count = if let (Ok(a), Ok(b)) = (expected.strings(), found.strings()) {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            tally.equal(i, a == b);
        }
        a.len()
    } else if let Some(parts) = parts_per_element(expected.dtype()) {
        let numbers = |t: &Tensor| numbers(t);
        let (a, b) = (numbers(expected), numbers(found));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            tally.number(i / parts, *a, *b, tolerance);
        }
        a.len() / parts
    } else {
        let width = expected.dtype().bytes().max(1);
        let pairs = expected
            .bytes()
            .chunks(width)
            .zip(found.bytes().chunks(width));
        for (i, (a, b)) in pairs.enumerate() {
            tally.equal(i, a == b);
        }
        expected.bytes().len() / width
    };
    match tally.worst {
        None => Ok(tally.greatest),
        Some((at, difference)) => Err(Mismatch::Elements {
            wrong: tally.wrong,
            of: count,
            index: index_of(at, expected.shape()),
            expected: element_text(expected, at),
            found: element_text(found, at),
            difference,
        }),
    }
}

#[derive(Default)]
struct Tally {
    wrong: usize,
    last: Option<usize>,
    worst: Option<(usize, f64)>,
    greatest: f64,
}

impl Tally {
    fn fail(&mut self, at: usize, difference: f64) {
        if self.last != Some(at) {
            self.wrong += 1;
            self.last = Some(at);
        }
        if self.worst.is_none_or(|(_, worst)| difference > worst) {
            self.worst = Some((at, difference));
        }
    }

    fn equal(&mut self, at: usize, same: bool) {
        if !same {
            self.fail(at, f64::INFINITY);
        }
    }

    fn number(&mut self, at: usize, expected: f64, found: f64, tolerance: Tolerance) {
        if expected == found || (expected.is_nan() && found.is_nan()) {
            return;
        }
        let difference = (expected - found).abs();
        if difference.is_finite() {
            self.greatest = self.greatest.max(difference);
            if difference > tolerance.atol + tolerance.rtol * expected.abs() {
                self.fail(at, difference);
            }
        } else {
            self.greatest = f64::INFINITY;
            self.fail(at, f64::INFINITY);
        }
    }
}

/// Numbers in an element; `None` where elements have no arithmetic here.
fn parts_per_element(dtype: DType) -> Option<usize> {
    use DType::*;
    match dtype {
        F32 | F64 | F16 | BF16 | U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64 | Bool | I4 | U4
        | I2 | U2 => Some(1),
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F6E2M3 | F6E3M2 | F4E2M1 => Some(1),
        C64 | C128 => Some(2),
        String => None,
    }
}

/// The elements as f64 (a complex one as two); empty for strings and types without arithmetic here.
///
/// 64-bit integers beyond 2^53 are rounded: a comparison of them is as exact as its tolerance asks.
pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|b| number(*b))
            .collect()
    }
    let bytes = tensor.bytes();
    match tensor.dtype() {
        DType::F32 | DType::C64 => each(bytes, |b| f32::from_le_bytes(b).into()),
        DType::F64 | DType::C128 => each(bytes, f64::from_le_bytes),
        DType::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
        DType::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        DType::U8 | DType::Bool | DType::U4 | DType::U2 => each(bytes, |[b]| b.into()),
        DType::I8 | DType::I4 | DType::I2 => each(bytes, |b| i8::from_le_bytes(b).into()),
        DType::U16 => each(bytes, |b| u16::from_le_bytes(b).into()),
        DType::I16 => each(bytes, |b| i16::from_le_bytes(b).into()),
        DType::U32 => each(bytes, |b| u32::from_le_bytes(b).into()),
        DType::I32 => each(bytes, |b| i32::from_le_bytes(b).into()),
        DType::U64 => each(bytes, |b| u64::from_le_bytes(b) as f64),
        DType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        DType::String => Vec::new(),
        dtype => match lapidary_graph::DType::from_onnx(dtype.onnx()) {
            Some(small) => each(bytes, |[code]| minifloat::decode(small, code)),
            None => Vec::new(),
        },
    }
}

/// An element as text; bytes in hexadecimal where the type has no arithmetic here.
pub fn element_text(tensor: &Tensor, at: usize) -> String {
    if let Ok(strings) = tensor.strings() {
        return format!("{:?}", strings.get(at).map_or("", String::as_str));
    }
    let width = tensor.dtype().bytes().max(1);
    let bytes = tensor.bytes().get(at * width..(at + 1) * width);
    let bytes = bytes.unwrap_or_default();
    let Ok(element) = Tensor::from_bytes(tensor.dtype(), &[1], bytes) else {
        return String::new();
    };
    let integer = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).unwrap_or_default();
    match tensor.dtype() {
        DType::U64 => u64::from_le_bytes(integer(bytes)).to_string(),
        DType::I64 => i64::from_le_bytes(integer(bytes)).to_string(),
        DType::Bool => (bytes != [0]).to_string(),
        DType::F32 => {
            let bytes = <[u8; 4]>::try_from(bytes).unwrap_or_default();
            number_text(f32::from_le_bytes(bytes).into(), 7)
        }
        dtype if parts_per_element(dtype).is_some() => {
            let parts: Vec<String> = numbers(&element)
                .iter()
                .map(|n| number_text(*n, if dtype == DType::F64 { 15 } else { 5 }))
                .collect();
            match parts.as_slice() {
                [real, imaginary] => format!("{real}+{imaginary}j"),
                parts => parts.concat(),
            }
        }
        _ => bytes
            .iter()
            .rev()
            .fold("0x".to_string(), |s, b| format!("{s}{b:02x}")),
    }
}

/// A number with so many significant digits, as short as it can be.
fn number_text(value: f64, digits: usize) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        return format!("{value}");
    }
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    let short: f64 = text.parse().unwrap_or(value);
    if (1e-4..1e9).contains(&short.abs()) {
        format!("{short}")
    } else {
        format!("{short:e}")
    }
}

fn index_of(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, dim) in index.iter_mut().zip(shape).rev() {
        *i = at % dim.max(&1);
        at /= dim.max(&1);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Tensor {
        Tensor::from_slice(&[values.len()], values).unwrap()
    }

    #[test]
    fn numbers_are_equal_within_the_tolerance_and_special_values_equal_themselves() {
        let tolerance = Tolerance {
            rtol: 1e-3,
            atol: 0.0,
        };
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 1000.0];
        let near = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1000.9];
        let greatest = compare(&f32s(&special), &f32s(&near), tolerance).unwrap();
        assert!((greatest - 0.9).abs() < 1e-4);
        for (expected, found) in [
            (1000.0, 1001.1),
            (f32::NAN, 1.0),
            (1.0, f32::NAN),
            (f32::INFINITY, f32::MAX),
            (f32::INFINITY, f32::NEG_INFINITY),
        ] {
            assert!(compare(&f32s(&[expected]), &f32s(&[found]), tolerance).is_err());
        }
    }

    #[test]
    fn the_worst_element_is_shown() {
        let expected = Tensor::from_slice(&[2, 2], &[1i32, 2, 3, 4]).unwrap();
        let found = Tensor::from_slice(&[2, 2], &[1i32, 3, 9, 4]).unwrap();
        let text = compare(&expected, &found, Tolerance::default())
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "2 of 4 elements are wrong, the worst at [1, 0]: 9, expected 3 (difference 6.000e0)"
        );
    }

    #[test]
    fn types_and_shapes_must_be_the_same() {
        let a = Tensor::from_slice(&[2], &[1i32, 2]).unwrap();
        let b = Tensor::from_slice(&[2, 1], &[1i32, 2]).unwrap();
        let c = Tensor::from_slice(&[2], &[1i64, 2]).unwrap();
        assert!(compare(&a, &b, Tolerance::default()).is_err());
        assert!(compare(&a, &c, Tolerance::default()).is_err());
    }
}
