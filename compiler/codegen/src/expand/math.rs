//! Elementary functions on f32 lanes, as polynomials; everything else calls the C library, which
//! only kernels with one lane can do.
//!
//! Each function stays within 4 units in the last place of the exact value (see the accuracy
//! tests). No step relies on fused multiply-add being fused.

use super::*;
use crate::kernel::{MathFn, VBin as B, VCvt, VUn as U};

// Coefficients are written as their sources give them.
#[allow(clippy::excessive_precision)]
impl Expander<'_> {
    pub(super) fn function(&mut self, op: UnOp, a: Reg) -> Result<Reg> {
        let f32_lanes = self.out.class(a) == Class::Vec(Elem::F32);
        match op {
            UnOp::Exp if f32_lanes => Ok(self.exp(a)),
            UnOp::Log if f32_lanes => Ok(self.log(a)),
            UnOp::Tanh if f32_lanes => Ok(self.tanh(a)),
            UnOp::Erf if f32_lanes => Ok(self.erf(a)),
            UnOp::Sigmoid => self.sigmoid(a),
            _ => {
                let f = match op {
                    UnOp::Exp => MathFn::Exp,
                    UnOp::Log => MathFn::Log,
                    UnOp::Sin => MathFn::Sin,
                    UnOp::Cos => MathFn::Cos,
                    UnOp::Tan => MathFn::Tan,
                    UnOp::Asin => MathFn::Asin,
                    UnOp::Acos => MathFn::Acos,
                    UnOp::Atan => MathFn::Atan,
                    UnOp::Sinh => MathFn::Sinh,
                    UnOp::Cosh => MathFn::Cosh,
                    UnOp::Tanh => MathFn::Tanh,
                    UnOp::Asinh => MathFn::Asinh,
                    UnOp::Acosh => MathFn::Acosh,
                    UnOp::Atanh => MathFn::Atanh,
                    UnOp::Erf => MathFn::Erf,
                    _ => return Err(ExpandError(format!("{op:?} is not a function"))),
                };
                self.call(f, a, None)
            }
        }
    }

    /// `1 / (1 + e^-|x|)`, and `e^-|x|` times that below zero: no step overflows, so that results keep
    /// their digits as far down as there are numbers.
    fn sigmoid(&mut self, x: Reg) -> Result<Reg> {
        let class = self.out.class(x);
        let elem = if class == Class::Vec(Elem::F32) {
            Elem::F32
        } else {
            Elem::F64
        };
        let t = self.un(U::Abs, x);
        let n = self.un(U::Neg, t);
        let e = match elem {
            Elem::F32 => self.exp(n),
            _ => self.call(MathFn::Exp, n, None)?,
        };
        let (one, zero) = (self.constant(elem, one_bits(elem)), self.constant(elem, 0));
        let d = self.bin(B::Add, e, one);
        let below = self.cmp(CmpOp::Lt, x, zero);
        let top = self.select(below, e, one);
        Ok(self.bin(B::Div, top, d))
    }

    /// `c0 + x * (c1 + x * …)`, coefficients from the highest down.
    fn horner(&mut self, x: Reg, coefficients: &[f32]) -> Reg {
        let mut r = self.f32c(coefficients[0]);
        for c in &coefficients[1..] {
            let c = self.f32c(*c);
            r = self.fma(r, x, c);
        }
        r
    }

    /// `2^(n/2) * 2^(n - n/2) * p`, so that results below the least normal come out rounded once.
    fn scale_by_power(&mut self, p: Reg, n: Reg) -> Reg {
        let one = self.constant(Elem::I32, 1);
        let (bias, place) = (self.constant(Elem::I32, 127), self.constant(Elem::I32, 23));
        let half = self.bin(B::Sar, n, one);
        let rest = self.bin(B::Sub, n, half);
        let mut r = p;
        for e in [half, rest] {
            let e = self.bin(B::Add, e, bias);
            let e = self.bin(B::Shl, e, place);
            let f = self.cvt(VCvt::Bits, Elem::F32, e);
            r = self.bin(B::Mul, r, f);
        }
        r
    }

    /// Argument reduced to `r = x - n ln 2` with ln 2 in two parts (the first short enough for
    /// `n * part` to be exact), then a polynomial for `e^r` on `|r| <= ln 2 / 2` (Cephes `expf`).
    fn exp(&mut self, x: Reg) -> Reg {
        // Beyond these the result is 0 or infinity; NaN passes, as the second operand.
        let (low, high) = (self.f32c(-104.0), self.f32c(89.0));
        let x = self.bin(B::Max, low, x);
        let x = self.bin(B::Min, high, x);
        let log2e = self.f32c(std::f32::consts::LOG2_E);
        let t = self.bin(B::Mul, x, log2e);
        let n = self.un(U::Round, t);
        let (hi, lo) = (self.f32c(-0.693_359_4), self.f32c(2.121_944_4e-4));
        let r = self.fma(n, hi, x);
        let r = self.fma(n, lo, r);
        let p = self.horner(
            r,
            &[
                1.987_569_1e-4,
                1.398_199_9e-3,
                8.333_452e-3,
                4.166_579_6e-2,
                1.666_666_5e-1,
                0.5,
            ],
        );
        let rr = self.bin(B::Mul, r, r);
        let one = self.f32c(1.0);
        let tail = self.bin(B::Add, r, one);
        let p = self.fma(p, rr, tail);
        let n = self.cvt(VCvt::NearestInRange, Elem::I32, n);
        self.scale_by_power(p, n)
    }

    /// Mantissa in `[sqrt(1/2), sqrt(2))`, polynomial in `m - 1` (Cephes `logf`), exponent times
    /// ln 2 in two parts.
    fn log(&mut self, x: Reg) -> Reg {
        let least = self.constant(Elem::F32, 0x0080_0000);
        let small = self.cmp(CmpOp::Lt, x, least);
        let up = self.f32c(8_388_608.0);
        let scaled = self.bin(B::Mul, x, up);
        let normal = self.select(small, scaled, x);
        let bits = self.cvt(VCvt::Bits, Elem::I32, normal);
        // Subtracting the bits of sqrt(1/2) puts the exponent of the wanted range in the top bits.
        let (root, place) = (
            self.constant(Elem::I32, 0x3f35_04f3),
            self.constant(Elem::I32, 23),
        );
        let shifted = self.bin(B::Sub, bits, root);
        let e = self.bin(B::Sar, shifted, place);
        let whole = self.bin(B::Shl, e, place);
        let m = self.bin(B::Sub, bits, whole);
        let m = self.cvt(VCvt::Bits, Elem::F32, m);
        let e = self.cvt(VCvt::Value, Elem::F32, e);
        let (down, zero, one) = (self.f32c(-23.0), self.f32c(0.0), self.f32c(1.0));
        let adjust = self.select(small, down, zero);
        let e = self.bin(B::Add, e, adjust);
        let f = self.bin(B::Sub, m, one);
        let p = self.horner(
            f,
            &[
                7.037_683_6e-2,
                -1.151_461e-1,
                1.167_699_9e-1,
                -1.242_014_1e-1,
                1.424_932_3e-1,
                -1.666_805_8e-1,
                2.000_071_5e-1,
                -2.499_999_4e-1,
                3.333_333_1e-1,
            ],
        );
        let ff = self.bin(B::Mul, f, f);
        let fff = self.bin(B::Mul, ff, f);
        let y = self.bin(B::Mul, p, fff);
        let (lo, hi, half) = (
            self.f32c(-2.121_944_4e-4),
            self.f32c(0.693_359_4),
            self.f32c(-0.5),
        );
        let y = self.fma(e, lo, y);
        let y = self.fma(ff, half, y);
        let r = self.bin(B::Add, f, y);
        let r = self.fma(e, hi, r);
        // 0 gives minus infinity, infinity itself, the negative and NaN give NaN.
        let inf = self.f32c(f32::INFINITY);
        let (minus_inf, nan) = (self.f32c(f32::NEG_INFINITY), self.f32c(f32::NAN));
        let is_inf = self.cmp(CmpOp::Eq, x, inf);
        let r = self.select(is_inf, inf, r);
        let is_zero = self.cmp(CmpOp::Eq, x, zero);
        let r = self.select(is_zero, minus_inf, r);
        let fine = self.cmp(CmpOp::Ge, x, zero);
        self.select(fine, r, nan)
    }

    /// Small arguments by an odd polynomial (Cephes `tanhf`), others as `1 - 2 / (e^2|x| + 1)`.
    fn tanh(&mut self, x: Reg) -> Reg {
        let sign = self.constant(Elem::F32, 0x8000_0000);
        let s = self.bin(B::And, x, sign);
        let t = self.un(U::Abs, x);
        let z = self.bin(B::Mul, x, x);
        let p = self.horner(
            z,
            &[
                -5.704_988_7e-3,
                2.063_908_9e-2,
                -5.373_971_5e-2,
                1.333_144_2e-1,
                -3.333_328_1e-1,
            ],
        );
        let p = self.bin(B::Mul, p, z);
        let small = self.fma(p, x, x);
        let two = self.f32c(2.0);
        let tt = self.bin(B::Add, t, t);
        let e = self.exp(tt);
        let one = self.f32c(1.0);
        let d = self.bin(B::Add, e, one);
        let q = self.bin(B::Div, two, d);
        let big = self.bin(B::Sub, one, q);
        let limit = self.f32c(0.625);
        let is_big = self.cmp(CmpOp::Ge, t, limit);
        let r = self.select(is_big, big, small);
        // The sign of x, also where that is a zero's.
        self.bin(B::Or, r, s)
    }

    /// Two ranges that meet at 475/512; minimax coefficients by N. Juffa (within 1 unit in the last
    /// place with fused operations).
    fn erf(&mut self, a: Reg) -> Reg {
        let sign = self.constant(Elem::F32, 0x8000_0000);
        let sgn = self.bin(B::And, a, sign);
        let t = self.un(U::Abs, a);
        let s = self.bin(B::Mul, a, a);
        let r = self.horner(t, &[-1.728_534_7e-5, 3.831_97e-4]);
        let u = self.horner(t, &[-3.883_964_4e-3, 2.425_462_2e-2]);
        let r = self.fma(r, s, u);
        let mut r = r;
        for c in [-1.067_778_8e-1f32, -6.348_467e-1, -1.287_175_1e-1] {
            let c = self.f32c(c);
            r = self.fma(r, t, c);
        }
        let minus = self.un(U::Neg, t);
        let r = self.fma(r, t, minus);
        let e = self.exp(r);
        let one = self.f32c(1.0);
        let big = self.bin(B::Sub, one, e);
        let big = self.bin(B::Or, big, sgn);
        let p = self.horner(
            s,
            &[
                -5.967_617e-4,
                4.991_194e-3,
                -2.676_813_4e-2,
                1.128_199_2e-1,
                -3.761_253_3e-1,
                1.283_791_7e-1,
            ],
        );
        let small = self.fma(p, a, a);
        let limit = self.f32c(475.0 / 512.0);
        let is_big = self.cmp(CmpOp::Gt, t, limit);
        self.select(is_big, big, small)
    }
}
