//! Floats of 8, 6 and 4 bits: what their codes mean, and the code nearest to a number.
//!
//! A [`Format`] describes sign, exponent, mantissa and which codes are special; the interpreter converts with it here,
//! and lowering makes integer operations from it. `F8E8M0` has no sign and no mantissa, and rules of its own.
//! Casts saturate: what does not fit, infinities too, becomes the greatest number of its sign.

use crate::DType;

/// Which codes are no plain numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// As IEEE: the greatest exponent is infinity and NaN.
    Ieee,
    /// All ones is NaN; there is no infinity.
    AllOnes,
    /// The code of negative zero is the one NaN.
    NegativeZero,
    /// None.
    Finite,
}

/// A float of sign, exponent and mantissa, from the top bit down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Bits of the exponent.
    pub exponent: u32,
    /// Bits of the mantissa, without the hidden one.
    pub mantissa: u32,
    /// What is subtracted from the exponent's code.
    pub bias: i32,
    /// The codes of NaN and infinity.
    pub special: Special,
}

impl Format {
    /// The format of a type; `None` for `F8E8M0` and all that is no small float.
    pub fn of(dtype: DType) -> Option<Format> {
        let (exponent, mantissa, bias, special) = match dtype {
            DType::F8E4M3FN => (4, 3, 7, Special::AllOnes),
            DType::F8E4M3FNUZ => (4, 3, 8, Special::NegativeZero),
            DType::F8E5M2 => (5, 2, 15, Special::Ieee),
            DType::F8E5M2FNUZ => (5, 2, 16, Special::NegativeZero),
            DType::F6E2M3 => (2, 3, 1, Special::Finite),
            DType::F6E3M2 => (3, 2, 3, Special::Finite),
            DType::F4E2M1 => (2, 1, 1, Special::Finite),
            _ => return None,
        };
        Some(Format {
            exponent,
            mantissa,
            bias,
            special,
        })
    }
    /// The sign's bit.
    pub fn sign(self) -> u8 {
        1 << (self.exponent + self.mantissa)
    }
    /// The code of the greatest number.
    pub fn greatest(self) -> u8 {
        let all = self.sign() - 1;
        match self.special {
            Special::Ieee => all - (1 << self.mantissa),
            Special::AllOnes => all - 1,
            Special::NegativeZero | Special::Finite => all,
        }
    }
    /// The code of a positive NaN; where there is none, negative zero.
    pub fn nan(self) -> u8 {
        match self.special {
            Special::Ieee => self.greatest() + 1 + (1 << (self.mantissa - 1)),
            Special::AllOnes => self.sign() - 1,
            Special::NegativeZero | Special::Finite => self.sign(),
        }
    }
    /// The code of what is beyond the greatest number and must not saturate: infinity, or NaN, or the greatest number.
    pub fn overflow(self) -> u8 {
        match self.special {
            Special::Ieee => self.greatest() + 1,
            Special::AllOnes | Special::NegativeZero => self.nan(),
            Special::Finite => self.greatest(),
        }
    }
    /// The least magnitude that rounds beyond the greatest number, and whether that one itself does.
    pub fn overflows_at(self) -> (f64, bool) {
        let last = self.greatest();
        let step = 2f64.powi(i32::from(last >> self.mantissa) - self.bias - self.mantissa as i32);
        (self.number(last) + step / 2.0, last & 1 == 1)
    }
    /// A code that is no special one, as a number.
    fn number(self, code: u8) -> f64 {
        let magnitude = code & (self.sign() - 1);
        let (e, m) = (
            i32::from(magnitude >> self.mantissa),
            magnitude & ((1 << self.mantissa) - 1),
        );
        let unit = |e: i32| 2f64.powi(e - self.bias - self.mantissa as i32);
        let v = match e {
            0 => f64::from(m) * unit(1),
            _ => f64::from(m + (1 << self.mantissa)) * unit(e),
        };
        if code & self.sign() != 0 { -v } else { v }
    }
    fn decode(self, code: u8) -> f64 {
        let code = code & (2 * (self.sign() - 1) + 1);
        let magnitude = code & (self.sign() - 1);
        let negative = code & self.sign() != 0;
        match self.special {
            Special::Ieee if magnitude > self.greatest() + 1 => f64::NAN,
            Special::Ieee if magnitude > self.greatest() && negative => f64::NEG_INFINITY,
            Special::Ieee if magnitude > self.greatest() => f64::INFINITY,
            Special::AllOnes if magnitude > self.greatest() => f64::NAN,
            Special::NegativeZero if code == self.sign() => f64::NAN,
            _ => self.number(code),
        }
    }
    fn encode(self, v: f64) -> u8 {
        let sign = if v.is_sign_negative() { self.sign() } else { 0 };
        if v.is_nan() {
            return match self.special {
                Special::Ieee | Special::AllOnes => self.nan() | sign,
                Special::NegativeZero | Special::Finite => self.nan(),
            };
        }
        let a = v.abs();
        let e = ((a.to_bits() >> 52) as i32 - 1023).max(1 - self.bias);
        // Exact: a power of two divides.
        let steps = (a / 2f64.powi(e - self.mantissa as i32)).round_ties_even();
        // The leading one of a normal number counts one exponent up; so does a carry out of the mantissa.
        let code = f64::from((e + self.bias - 1) << self.mantissa) + steps;
        let code = code.min(f64::from(self.greatest())) as u8;
        if code == 0 && self.special == Special::NegativeZero {
            0
        } else {
            code | sign
        }
    }
}

/// The number that a code of a small float means.
pub fn decode(dtype: DType, code: u8) -> f64 {
    match Format::of(dtype) {
        Some(f) => f.decode(code),
        None if code == 255 => f64::NAN,
        None => 2f64.powi(i32::from(code) - 127),
    }
}

/// The code of a number: to nearest, ties to even; `F8E8M0`, which takes the magnitude, up to a power of two.
/// Saturates.
pub fn encode(dtype: DType, v: f64) -> u8 {
    match Format::of(dtype) {
        Some(f) => f.encode(v),
        None if v.is_nan() => 255,
        None => {
            let bits = v.abs().to_bits();
            let up = ((bits + (1 << 52) - 1) >> 52) as i32;
            (up - 1023 + 127).clamp(0, 254) as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [DType; 8] = [
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F6E2M3,
        DType::F6E3M2,
        DType::F4E2M1,
        DType::F8E8M0,
    ];

    /// Codes with known values: from the specifications of the formats.
    #[test]
    fn codes_mean_what_the_specifications_say() {
        let cases: [(DType, u8, f64); 34] = [
            (DType::F8E4M3FN, 0x00, 0.0),
            (DType::F8E4M3FN, 0x01, 0.001953125),
            (DType::F8E4M3FN, 0x08, 0.015625),
            (DType::F8E4M3FN, 0x38, 1.0),
            (DType::F8E4M3FN, 0x7e, 448.0),
            (DType::F8E4M3FN, 0xfe, -448.0),
            (DType::F8E4M3FN, 0x7f, f64::NAN),
            (DType::F8E4M3FN, 0xff, f64::NAN),
            (DType::F8E4M3FNUZ, 0x01, 0.0009765625),
            (DType::F8E4M3FNUZ, 0x40, 1.0),
            (DType::F8E4M3FNUZ, 0x7f, 240.0),
            (DType::F8E4M3FNUZ, 0x80, f64::NAN),
            (DType::F8E5M2, 0x01, 0.0000152587890625),
            (DType::F8E5M2, 0x3c, 1.0),
            (DType::F8E5M2, 0x7b, 57344.0),
            (DType::F8E5M2, 0x7c, f64::INFINITY),
            (DType::F8E5M2, 0xfc, f64::NEG_INFINITY),
            (DType::F8E5M2, 0x7d, f64::NAN),
            (DType::F8E5M2FNUZ, 0x01, 0.00000762939453125),
            (DType::F8E5M2FNUZ, 0x40, 1.0),
            (DType::F8E5M2FNUZ, 0x7f, 57344.0),
            (DType::F8E5M2FNUZ, 0x80, f64::NAN),
            (DType::F4E2M1, 0x1, 0.5),
            (DType::F4E2M1, 0x2, 1.0),
            (DType::F4E2M1, 0x7, 6.0),
            (DType::F4E2M1, 0xf, -6.0),
            (DType::F6E2M3, 0x01, 0.125),
            (DType::F6E2M3, 0x1f, 7.5),
            (DType::F6E3M2, 0x01, 0.0625),
            (DType::F6E3M2, 0x1f, 28.0),
            (DType::F8E8M0, 0, 5.877471754111438e-39),
            (DType::F8E8M0, 127, 1.0),
            (DType::F8E8M0, 254, 1.7014118346046923e38),
            (DType::F8E8M0, 255, f64::NAN),
        ];
        for (t, code, v) in cases {
            let found = decode(t, code);
            assert!(
                found == v || found.is_nan() && v.is_nan(),
                "{t} {code:#x}: {found}"
            );
        }
    }

    #[test]
    fn every_code_is_the_nearest_to_its_own_number() {
        for t in ALL {
            for code in 0..1u16 << t.bits() {
                let (code, v) = (code as u8, decode(t, code as u8));
                match Format::of(t) {
                    _ if v.is_nan() => assert!(decode(t, encode(t, v)).is_nan()),
                    Some(f) if v.is_infinite() => {
                        assert_eq!(encode(t, v) & (f.sign() - 1), f.greatest())
                    }
                    _ => assert_eq!(encode(t, v), code, "{t}"),
                }
            }
        }
    }

    /// The nearest number of a type by search; of two equally near ones the one of even code.
    fn searched(t: DType, v: f64) -> f64 {
        let codes = (0..1u16 << t.bits()).map(|c| c as u8);
        let numbers = codes.filter(|c| decode(t, *c).is_finite());
        let best = numbers.min_by(|a, b| {
            let far = |c: u8| (decode(t, c) - v).abs();
            far(*a).total_cmp(&far(*b)).then((a & 1).cmp(&(b & 1)))
        });
        best.map_or(f64::NAN, |c| decode(t, c))
    }

    #[test]
    fn numbers_around_every_boundary_go_to_the_nearest_code() {
        for t in ALL.into_iter().filter(|t| *t != DType::F8E8M0) {
            let mut known: Vec<f64> = (0..1u16 << t.bits()).map(|c| decode(t, c as u8)).collect();
            known.retain(|v| v.is_finite());
            known.sort_by(f64::total_cmp);
            let beyond = known.last().map_or(0.0, |v| v * 1.0625);
            known.push(beyond);
            let middles = known.windows(2).map(|w| (w[0] + w[1]) / 2.0);
            let points: Vec<f64> = known.iter().copied().chain(middles).collect();
            for p in points.into_iter().filter(|p| p.is_sign_positive()) {
                for step in -3i64..=3 {
                    // Neighbours in f64 and, further away, in f32.
                    let near = f64::from_bits(p.to_bits().saturating_add_signed(step));
                    let single = (p as f32).to_bits().saturating_add_signed(step as i32);
                    let single = f32::from_bits(single);
                    for v in [near, -near, single as f64, -single as f64] {
                        assert_eq!(decode(t, encode(t, v)), searched(t, v), "{t} of {v:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn powers_of_two_round_up_and_saturate() {
        let up = |v: f64| encode(DType::F8E8M0, v);
        for (v, code) in [
            (0.0, 0),
            (1e-300, 0),
            (1.0, 127),
            (1.0000000001, 128),
            (-3.0, 129),
            (0.124, 124),
            (1.8e38, 254),
            (f64::INFINITY, 254),
            (f64::NAN, 255),
        ] {
            assert_eq!(up(v), code, "{v:e}");
        }
    }

    #[test]
    fn overflow_begins_in_the_middle_behind_the_greatest_number() {
        for (t, v, itself) in [
            (DType::F8E4M3FN, 464.0, false),
            (DType::F8E4M3FNUZ, 248.0, true),
            (DType::F8E5M2, 61440.0, true),
            (DType::F8E5M2FNUZ, 61440.0, true),
        ] {
            assert_eq!(Format::of(t).map(Format::overflows_at), Some((v, itself)));
        }
    }
}
