//! Conversions between element types: by value (Cast, CastLike) and by bits (BitCast).
//!
//! The graph's cast saturates where a float becomes one of a byte or less, and goes up to a power of two for
//! `f8e8m0`. What the attributes `saturate` and `round_mode` ask for besides is made of comparisons, integer operations and that cast.

use lapidary_graph::minifloat::Format;
use lapidary_graph::{DType, PwBuilder, PwOp, PwRef, Scalar};

use crate::context::{Ctx, Outs, dtype, one};
use crate::error::{Fail, invalid};

/// How a number becomes a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rounding {
    Up,
    Down,
    /// Ties go up.
    Nearest,
}

/// A conversion by value.
pub(crate) fn cast(cx: &mut Ctx) -> Outs {
    let to = dtype(cx.int_required("to")? as i32)?;
    convert(cx, to)
}

/// A conversion to the type of input 1.
pub(crate) fn cast_like(cx: &mut Ctx) -> Outs {
    let to = cx.dtype(cx.input(1)?);
    convert(cx, to)
}

fn convert(cx: &mut Ctx, to: DType) -> Outs {
    let x = cx.input(0)?;
    let from = cx.dtype(x);
    if from != to && (from.is_complex() || to.is_complex()) {
        return Err(invalid(format!("a cast from {from} to {to}"))
            .hint("complex numbers are not cast; BitCast keeps their bits"));
    }
    let saturate = cx.flag("saturate", true)?;
    let rounding = match cx.choice("round_mode", "up", &["up", "down", "nearest"])? {
        0 => Rounding::Up,
        1 => Rounding::Down,
        _ => Rounding::Nearest,
    };
    let plain = saturate && (rounding == Rounding::Up || to != DType::F8E8M0);
    if from == to || from == DType::String || !to.is_minifloat() || plain {
        return one(cx.cast(x, to)?);
    }
    one(cx.pw(&[x], |p, r| to_minifloat(p, r[0], to, saturate, rounding))?)
}

/// A number as a float of a byte or less.
pub(crate) fn to_minifloat(
    p: &mut PwBuilder,
    x: PwRef,
    to: DType,
    saturate: bool,
    rounding: Rounding,
) -> PwRef {
    if to == DType::F8E8M0 {
        return to_power(p, x, saturate, rounding);
    }
    let Some(format) = Format::of(to).filter(|_| !saturate) else {
        return p.cast(x, to);
    };
    let x = as_float(p, x);
    let w = p.dtype(x);
    let code = |p: &mut PwBuilder, bits: u8| {
        p.constant(Scalar {
            dtype: to,
            bits: bits.into(),
        })
    };
    let (limit, itself) = format.overflows_at();
    let (above, below) = if itself {
        (PwOp::Ge, PwOp::Le)
    } else {
        (PwOp::Gt, PwOp::Lt)
    };
    let y = p.cast(x, to);
    let (high, low) = (p.number(limit, w), p.number(-limit, w));
    let (high, low) = (p.test(above, vec![x, high]), p.test(below, vec![x, low]));
    let (over, under) = (
        code(p, format.overflow()),
        code(p, format.overflow() | format.sign()),
    );
    let y = p.select(low, under, y);
    p.select(high, over, y)
}

/// A type in which the number can be compared: integers and small floats as f32.
fn as_float(p: &mut PwBuilder, x: PwRef) -> PwRef {
    if p.dtype(x).is_float() {
        x
    } else {
        p.cast(x, DType::F32)
    }
}

/// The magnitude as a power of two. Out of range is what rounds beyond the greatest one, and what is below the least.
fn to_power(p: &mut PwBuilder, x: PwRef, saturate: bool, rounding: Rounding) -> PwRef {
    let to = DType::F8E8M0;
    let x = as_float(p, x);
    let x = match p.dtype(x) {
        DType::F64 => x,
        _ => p.cast(x, DType::F32),
    };
    let x = p.un(PwOp::Abs, x);
    // Integers of the same width, bits of the mantissa, the bits of the exponent.
    let w = p.dtype(x);
    let (int, mantissa, exponents) = match w {
        DType::F64 => (DType::I64, 52u32, 0x7ff0_0000_0000_0000u64),
        _ => (DType::I32, 23, 0x7f80_0000),
    };
    let bits = |p: &mut PwBuilder, v: u64| {
        p.constant(Scalar {
            dtype: int,
            bits: v,
        })
    };
    // The bits of a positive float grow with it, and a carry out of the mantissa counts the exponent up.
    let u = p.push(PwOp::Bitcast, vec![x], int);
    let rounded = |p: &mut PwBuilder, add: PwRef| {
        let (sum, mask) = (p.bin(PwOp::Add, u, add), bits(p, exponents));
        let y = p.bin(PwOp::And, sum, mask);
        p.push(PwOp::Bitcast, vec![y], w)
    };
    let y = match rounding {
        Rounding::Up => {
            let add = bits(p, (1 << mantissa) - 1);
            rounded(p, add)
        }
        Rounding::Down => {
            let add = bits(p, 0);
            rounded(p, add)
        }
        Rounding::Nearest => {
            let add = bits(p, 1 << (mantissa - 1));
            rounded(p, add)
        }
    };
    // The two least powers, 2^-127 and 2^-126, stand apart: in f32 the first is no normal number.
    let (least, next) = (p.number(2f64.powi(-127), w), p.number(2f64.powi(-126), w));
    let from = match rounding {
        // Nothing but the power itself is as small as it.
        Rounding::Up => p.test(PwOp::Gt, vec![x, least]),
        Rounding::Down => p.test(PwOp::Ge, vec![x, next]),
        Rounding::Nearest => {
            let middle = p.number(1.5 * 2f64.powi(-127), w);
            p.test(PwOp::Ge, vec![x, middle])
        }
    };
    let small = p.select(from, next, least);
    let lowest = p.test(PwOp::Lt, vec![x, next]);
    let y = p.select(lowest, small, y);
    // NaN stays.
    let nan = p.test(PwOp::IsNan, vec![x]);
    let y = p.select(nan, x, y);
    let code = p.cast(y, to);
    if saturate {
        return code;
    }
    let greatest = p.number(2f64.powi(127), w);
    let over = p.test(PwOp::Gt, vec![y, greatest]);
    let under = p.test(PwOp::Lt, vec![x, least]);
    let none = p.constant(Scalar {
        dtype: to,
        bits: 255,
    });
    let code = p.select(under, none, code);
    p.select(over, none, code)
}

/// The same bits as another type of the same width.
pub(crate) fn bit_cast(cx: &mut Ctx) -> Outs {
    let to = dtype(cx.int_required("to")? as i32)?;
    let x = cx.input(0)?;
    let from = cx.dtype(x);
    if from == to {
        return one(x);
    }
    if from.bits() != to.bits() || to == DType::String {
        return Err(width(from, to));
    }
    one(cx.pw(&[x], |p, r| p.push(PwOp::Bitcast, vec![r[0]], to))?)
}

fn width(from: DType, to: DType) -> Fail {
    invalid(format!(
        "{from} has {} bits and {to} has {}, expected the same",
        from.bits(),
        to.bits()
    ))
}
