//! 64-bit unsigned arithmetic on lanes that are signed.
//!
//! Sums, products and bit operations are the same for both; what differs is built here from signed
//! primitives: order (by flipping the top bit), division, and conversion to and from floats.

use crate::builder::Builder;
use lapidary_codegen::loops::*;

const TOP: u64 = 1 << 63;

fn int(b: &mut Builder, bits: u64) -> ExprId {
    b.expr(Expr::Const {
        elem: Elem::I64,
        bits,
    })
}
fn bin(b: &mut Builder, op: BinOp, x: ExprId, y: ExprId) -> ExprId {
    b.expr(Expr::Bin { op, a: x, b: y })
}
fn cmp(b: &mut Builder, op: CmpOp, x: ExprId, y: ExprId) -> ExprId {
    b.expr(Expr::Cmp { op, a: x, b: y })
}
fn select(b: &mut Builder, cond: ExprId, x: ExprId, y: ExprId) -> ExprId {
    b.expr(Expr::Select { cond, a: x, b: y })
}

/// Flips the top bit: signed comparison then orders unsigned numbers. Its own inverse.
pub(crate) fn ordered(b: &mut Builder, e: ExprId) -> ExprId {
    let top = int(b, TOP);
    bin(b, BinOp::Xor, e, top)
}

/// `x / y`; by 0 gives 0.
pub(crate) fn quotient(b: &mut Builder, x: ExprId, y: ExprId) -> ExprId {
    let (zero, one) = (int(b, 0), int(b, 1));
    // Half of x is not negative: its quotient, doubled, is the quotient or one less.
    let half = bin(b, BinOp::Shr, x, one);
    let q = bin(b, BinOp::Div, half, y);
    let q = bin(b, BinOp::Shl, q, one);
    let whole = bin(b, BinOp::Mul, q, y);
    let rest = bin(b, BinOp::Sub, x, whole);
    let (rest, order) = (ordered(b, rest), ordered(b, y));
    let more = cmp(b, CmpOp::Ge, rest, order);
    let more = b.expr(Expr::Convert {
        a: more,
        to: Elem::I64,
    });
    let q = bin(b, BinOp::Add, q, more);
    // A divisor with the top bit set goes at most once.
    let x_order = ordered(b, x);
    let once = cmp(b, CmpOp::Ge, x_order, order);
    let once = b.expr(Expr::Convert {
        a: once,
        to: Elem::I64,
    });
    let big = cmp(b, CmpOp::Lt, y, zero);
    let q = select(b, big, once, q);
    let none = cmp(b, CmpOp::Eq, y, zero);
    select(b, none, zero, q)
}

/// `x % y`; by 0 gives 0.
pub(crate) fn remainder(b: &mut Builder, x: ExprId, y: ExprId) -> ExprId {
    let q = quotient(b, x, y);
    let whole = bin(b, BinOp::Mul, q, y);
    let rest = bin(b, BinOp::Sub, x, whole);
    let zero = int(b, 0);
    let none = cmp(b, CmpOp::Eq, y, zero);
    select(b, none, zero, rest)
}

/// To a float lane, rounded to nearest even.
pub(crate) fn to_float(b: &mut Builder, x: ExprId, to: Elem) -> ExprId {
    let (zero, one) = (int(b, 0), int(b, 1));
    let small = b.expr(Expr::Convert { a: x, to });
    // Half of the number, its last bit kept sticky so that it still decides the rounding.
    let half = bin(b, BinOp::Shr, x, one);
    let last = bin(b, BinOp::And, x, one);
    let half = bin(b, BinOp::Or, half, last);
    let half = b.expr(Expr::Convert { a: half, to });
    let whole = bin(b, BinOp::Add, half, half);
    let big = cmp(b, CmpOp::Lt, x, zero);
    select(b, big, whole, small)
}

/// From a float lane: truncates, saturates, and takes NaN to 0.
pub(crate) fn from_float(b: &mut Builder, x: ExprId, from: Elem) -> ExprId {
    let float = |b: &mut Builder, v: f64| {
        let bits = if from == Elem::F32 {
            (v as f32).to_bits() as u64
        } else {
            v.to_bits()
        };
        b.expr(Expr::Const { elem: from, bits })
    };
    let (zero, limit) = (float(b, 0.0), float(b, TOP as f64));
    let x = bin(b, BinOp::MaxFast, zero, x);
    let low = b.expr(Expr::Convert {
        a: x,
        to: Elem::I64,
    });
    let over = bin(b, BinOp::Sub, x, limit);
    let high = b.expr(Expr::Convert {
        a: over,
        to: Elem::I64,
    });
    let high = ordered(b, high);
    let big = cmp(b, CmpOp::Ge, x, limit);
    select(b, big, high, low)
}
