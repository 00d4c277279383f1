//! How what is computed in f64 becomes an element: rounded to the nearest, or a little beside it.
//!
//! `docs/semantics.md` leaves open in what order sums are formed, and the last digits of functions. A run that rounds
//! [`Rounding::Beside`] makes use of that: each such result is moved up, down or not at all, by as much as generated code
//! may differ. What is the same however it is computed stays as it is: elements that are moved, compared, or computed by
//! operations that IEEE 754 rounds, and sums of numbers of so few bits that no order of them rounds. So results that
//! differ between such runs, by more than digits, are results that the model leaves to the last digits.

use std::cell::Cell;

use super::data::Number;
use crate::DType;

/// How results are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Always to the nearest number: what the interpreter does unless asked.
    Nearest,
    /// Up or down by some units, drawn from a stream of this number.
    Beside(u64),
}

/// By how many units in the last place results are moved at most.
const UNITS: f64 = 4.0;

/// Rounds the results of one run.
pub(super) struct Rounder {
    stream: Option<Cell<u64>>,
}

impl Rounder {
    pub(super) const NEAREST: Rounder = Rounder { stream: None };

    pub(super) fn new(rounding: Rounding) -> Rounder {
        Rounder {
            stream: match rounding {
                Rounding::Nearest => None,
                Rounding::Beside(number) => Some(Cell::new(number)),
            },
        }
    }

    pub(super) fn to_nearest(&self) -> bool {
        self.stream.is_none()
    }

    /// What of a unit the next result is moved by: an end, the middle, or anything between.
    fn next(stream: &Cell<u64>) -> f64 {
        let state = stream.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        stream.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        match z % 6 {
            0 => -1.0,
            1 => 0.0,
            2 => 1.0,
            _ => (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0,
        }
    }

    /// A result of a type that came of terms whose sizes add up to `size`.
    pub(super) fn among(&self, dtype: DType, value: f64, size: f64) -> f64 {
        match &self.stream {
            Some(stream) if size.is_finite() => {
                value + Self::next(stream) * size * UNITS * unit(dtype)
            }
            _ => value,
        }
    }

    /// The result of a function, which every machine has exactly where it has few bits.
    pub(super) fn function(&self, dtype: DType, value: f64) -> f64 {
        match f64::from(value as f32) == value {
            true => value,
            false => self.among(dtype, value, value.abs()),
        }
    }

    pub(super) fn sum(&self, dtype: DType, sum: Sum) -> f64 {
        match sum.exact(dtype) {
            true => sum.value,
            false => self.among(dtype, sum.value, sum.size),
        }
    }

    pub(super) fn sums(&self, dtype: DType, sums: Vec<Sum>) -> Vec<f64> {
        sums.into_iter().map(|s| self.sum(dtype, s)).collect()
    }
}

/// The unit in the last place of numbers near 1, in the type that they are computed in.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    }
}

/// A sum of products, with what tells how far another order of it may be away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    pub(super) value: f64,
    /// The sizes of the terms, added.
    pub(super) size: f64,
    /// All terms are multiples of 2 to this power.
    grain: i32,
}

impl Sum {
    pub(super) fn of(value: f64) -> Sum {
        Sum {
            value,
            size: value.abs(),
            grain: grain(value),
        }
    }

    pub(super) fn all(values: &[f64]) -> Vec<Sum> {
        values.iter().copied().map(Sum::of).collect()
    }

    pub(super) fn over(values: impl Iterator<Item = f64>) -> Sum {
        values.fold(Sum::ZERO, |sum, v| sum.add(Sum::of(v)))
    }

    /// Whether no order of the terms rounds.
    fn exact(self, dtype: DType) -> bool {
        let digits = match dtype {
            DType::F64 => f64::MANTISSA_DIGITS,
            _ => f32::MANTISSA_DIGITS,
        };
        self.grain == i32::MAX || self.size.log2() - f64::from(self.grain) < f64::from(digits)
    }
}

impl Number for Sum {
    const ZERO: Sum = Sum {
        value: 0.0,
        size: 0.0,
        grain: i32::MAX,
    };
    fn add(self, o: Sum) -> Sum {
        Sum {
            value: self.value + o.value,
            size: self.size + o.size,
            grain: self.grain.min(o.grain),
        }
    }
    fn mul(self, o: Sum) -> Sum {
        Sum::of(self.value * o.value)
    }
}

/// The place of the lowest bit of a number; none has the highest.
fn grain(value: f64) -> i32 {
    if value == 0.0 || !value.is_finite() {
        return i32::MAX;
    }
    let bits = value.to_bits();
    let (exponent, digits) = ((bits >> 52) as i32 & 0x7ff, bits & ((1 << 52) - 1));
    match exponent {
        0 => digits.trailing_zeros() as i32 - 1074,
        _ => (digits | 1 << 52).trailing_zeros() as i32 + exponent - 1075,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, run, run_with};
    use super::*;
    use crate::TensorData;
    use crate::text::parse;

    fn results(body: &str) -> Vec<TensorData> {
        let text = format!("graph \"t\" [] {{\n{body}\n  output \"y\" %y\n}}\n");
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let nearest = run(&graph, &[]).unwrap_or_else(|e| panic!("{e}"));
        let beside = |number| {
            let options = Options {
                rounding: Rounding::Beside(number),
                ..Options::default()
            };
            run_with(&graph, &[], &options).unwrap_or_else(|e| panic!("{e}"))
        };
        let all = std::iter::once(nearest).chain((0..32).map(beside));
        all.flatten().collect()
    }

    const OPERANDS: &str = "  const @a: f32[3] = [0.1, 0.2, -0.3]\n  const @b: f32[3] = [0.3, 7.7, -1e-3]\n  const @k: f32[3] = [3.0, -2.5, 4.0]\n  const @i: f32[3] = [16777200.0, -2.0, 4.0]\n";

    #[test]
    fn what_is_exact_is_not_moved() {
        let cases = [
            "%y: f32[3] = pointwise (a = @a, b = @b) => a * b + a / b",
            "%y: f32[3] = pointwise (a = @b) => sqrt(max(a, 0.1))",
            "%y: f32[3] = pointwise (a = @i) => exp(a - a)",
            "%y: f32[*] = reduce {kind: sum, axes: [0]} @i",
            "%y: f32[] = contract \"a,b->\" @k, @k",
            "%y: f32[3] = cumsum {axis: 0} @i",
            "%y: i64[*] = arg_reduce {kind: max, axis: 0} @a",
        ];
        for case in cases {
            let all = results(&format!("{OPERANDS}  {case}"));
            assert!(all.iter().all(|r| *r == all[0]), "{case}");
        }
    }

    #[test]
    fn what_has_no_promised_digits_is_moved_by_a_few_units() {
        let cases = [
            "%y: f32[*] = reduce {kind: sum, axes: [0]} @b",
            "%y: f32[*] = reduce {kind: mean, axes: [0]} @b",
            "%y: f32[*] = reduce {kind: log_sum_exp, axes: [0]} @b",
            "%y: f32[] = contract \"a,a->\" @b, @b",
            "%y: f32[3] = cumsum {axis: 0} @b",
            "%y: f32[3] = softmax {axis: 0} @b",
            "%y: f32[3] = normalize {kind: layer, axis: 0, epsilon: 1e-5} @b",
            "%y: f32[3] = pointwise (a = @b) => tanh(a)",
        ];
        for case in cases {
            let all = results(&format!("{OPERANDS}  {case}"));
            let numbers: Vec<Vec<f64>> = all.iter().map(super::super::data::floats).collect();
            assert!(numbers.iter().any(|n| *n != numbers[0]), "{case}");
            for (near, exact) in numbers.iter().flat_map(|n| n.iter().zip(&numbers[0])) {
                assert!(
                    (near - exact).abs() <= 1e-5 * exact.abs(),
                    "{case}: {near}, {exact}"
                );
            }
        }
    }

    #[test]
    fn a_decision_near_zero_is_taken_both_ways() {
        let all = results(&format!(
            "{OPERANDS}  %s: f32[*] = reduce {{kind: sum, axes: [0]}} @a\n  %y: bool[] = pointwise (a = %s) => a > 0.0"
        ));
        let taken = |v: u8| all.iter().any(|r| r.bytes[..] == [v]);
        assert!(taken(0) && taken(1));
    }
}
