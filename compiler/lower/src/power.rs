//! Powers of integers: squared and multiplied, so that they wrap as the semantics page says.
//!
//! One step a bit of the exponent, unrolled; a constant exponent takes the steps of its own bits alone. A negative
//! exponent gives the truncated quotient: 1 for the base 1, 1 or -1 for -1, 0 for all others.

use crate::builder::Builder;
use crate::scalar::elem;
use lapidary_codegen::loops::*;
use lapidary_graph::DType;

/// `x` to the power of `y`, both of this integer type, in the width that the type is computed in: the caller
/// narrows it.
pub(crate) fn power(b: &mut Builder, x: ExprId, y: ExprId, of: DType) -> ExprId {
    let mut p = Power { b, lane: elem(of) };
    let signed = of.is_signed_int();
    let known = match p.b.kernel.exprs.get(y.0 as usize) {
        Some(Expr::Const { bits, .. }) => Some(*bits),
        _ => None,
    };
    match known {
        Some(bits) if !signed || p.value(bits) >= 0 => p.known(x, bits),
        _ => p.open(x, y, of.bytes() * 8 - usize::from(signed), signed),
    }
}

struct Power<'b, 'k> {
    b: &'b mut Builder<'k>,
    lane: Elem,
}

impl Power<'_, '_> {
    fn int(&mut self, value: i64) -> ExprId {
        let bits = match self.lane {
            Elem::I32 => u64::from(value as u32),
            _ => value as u64,
        };
        self.b.expr(Expr::Const {
            elem: self.lane,
            bits,
        })
    }
    fn value(&self, bits: u64) -> i64 {
        match self.lane {
            Elem::I32 => i64::from(bits as u32 as i32),
            _ => bits as i64,
        }
    }
    fn bin(&mut self, op: BinOp, a: ExprId, b: ExprId) -> ExprId {
        self.b.expr(Expr::Bin { op, a, b })
    }
    fn cmp(&mut self, op: CmpOp, a: ExprId, b: ExprId) -> ExprId {
        self.b.expr(Expr::Cmp { op, a, b })
    }
    fn select(&mut self, cond: ExprId, a: ExprId, b: ExprId) -> ExprId {
        self.b.expr(Expr::Select { cond, a, b })
    }

    /// An exponent that is known and not negative.
    fn known(&mut self, x: ExprId, mut exponent: u64) -> ExprId {
        let (mut square, mut out) = (x, None);
        while exponent > 0 {
            if exponent & 1 == 1 {
                out = Some(match out {
                    None => square,
                    Some(out) => self.bin(BinOp::Mul, out, square),
                });
            }
            exponent >>= 1;
            if exponent > 0 {
                square = self.bin(BinOp::Mul, square, square);
            }
        }
        match out {
            Some(out) => out,
            None => self.int(1),
        }
    }

    /// Any exponent of so many bits.
    fn open(&mut self, x: ExprId, y: ExprId, bits: usize, signed: bool) -> ExprId {
        let (zero, one) = (self.int(0), self.int(1));
        let (mut square, mut rest, mut out) = (x, y, one);
        for bit in 0..bits {
            if bit > 0 {
                square = self.bin(BinOp::Mul, square, square);
                rest = self.bin(BinOp::Shr, rest, one);
            }
            let low = self.bin(BinOp::And, rest, one);
            let set = self.cmp(CmpOp::Ne, low, zero);
            let more = self.bin(BinOp::Mul, out, square);
            out = self.select(set, more, out);
        }
        if !signed {
            return out;
        }
        let minus = self.int(-1);
        let low = self.bin(BinOp::And, y, one);
        let odd = self.cmp(CmpOp::Ne, low, zero);
        let sign = self.select(odd, minus, one);
        let of_minus = self.cmp(CmpOp::Eq, x, minus);
        let quotient = self.select(of_minus, sign, zero);
        let of_one = self.cmp(CmpOp::Eq, x, one);
        let quotient = self.select(of_one, one, quotient);
        let negative = self.cmp(CmpOp::Lt, y, zero);
        self.select(negative, quotient, out)
    }
}
