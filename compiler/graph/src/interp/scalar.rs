//! One scalar operation on the bits of its operands.

use super::math::erf;
use super::rounding::Rounder;
use crate::pointwise::small_int;
use crate::{DType, PwOp, Scalar};

/// An integer or bool, sign- or zero-extended by its type.
pub(super) fn to_int(s: Scalar) -> i64 {
    match s.dtype {
        DType::I8 | DType::I4 | DType::I2 => s.bits as i8 as i64,
        DType::I16 => s.bits as i16 as i64,
        DType::I32 => s.bits as i32 as i64,
        _ => s.bits as i64,
    }
}

fn mask(dtype: DType) -> u64 {
    u64::MAX >> (64 - 8 * dtype.bytes().min(8))
}

/// The low bits, as an element of the type.
pub(super) fn cut(dtype: DType, v: i64) -> u64 {
    if dtype.is_small_int() {
        return small_int(dtype, v);
    }
    v as u64 & mask(dtype)
}

/// The exact value of an integer.
fn wide(s: Scalar) -> i128 {
    match s.dtype {
        DType::U64 => s.bits as i128,
        _ => to_int(s) as i128,
    }
}

/// Applies an operation to scalars; `None` where the types do not fit it (the verifier's task).
/// Leaves ([`PwOp::Input`], [`PwOp::Index`], [`PwOp::Dim`]) have no value here.
pub fn eval_scalar(op: &PwOp, args: &[Scalar], dtype: DType) -> Option<Scalar> {
    eval_rounded(op, args, dtype, &Rounder::NEAREST)
}

/// The same with another rounding of what is no operation of IEEE 754.
pub(super) fn eval_rounded(
    op: &PwOp,
    args: &[Scalar],
    dtype: DType,
    rounder: &Rounder,
) -> Option<Scalar> {
    let of = |bits: u64| Some(Scalar { dtype, bits });
    match op {
        PwOp::Input(_) | PwOp::Index(_) | PwOp::Dim(_) => return None,
        PwOp::Const(s) => return Some(*s),
        PwOp::Select => {
            let [c, a, b] = args else { return None };
            return of(if c.bits != 0 { a.bits } else { b.bits });
        }
        PwOp::Cast => return Some(cast(*args.first()?, dtype)),
        PwOp::Bitcast if dtype.is_small_int() => return of(cut(dtype, args.first()?.bits as i64)),
        PwOp::Bitcast => {
            return of(args.first()?.bits & (u64::MAX >> (64 - dtype.bits().clamp(1, 64))));
        }
        _ => {}
    }
    let a = *args.first()?;
    let bool = |v: bool| Some(Scalar::bool(v));
    if let Some(b) = args.get(1) {
        if let PwOp::Eq | PwOp::Lt | PwOp::Le | PwOp::Gt | PwOp::Ge = op {
            let order = if a.dtype.is_float() {
                a.to_f64().partial_cmp(&b.to_f64())
            } else {
                Some(wide(a).cmp(&wide(*b)))
            };
            return bool(match op {
                PwOp::Eq => order.is_some_and(|o| o.is_eq()),
                PwOp::Lt => order.is_some_and(|o| o.is_lt()),
                PwOp::Le => order.is_some_and(|o| o.is_le()),
                PwOp::Gt => order.is_some_and(|o| o.is_gt()),
                _ => order.is_some_and(|o| o.is_ge()),
            });
        }
        return match a.dtype {
            t if t.is_float() => float2(op, a, *b, rounder),
            _ => of(int2(op, a, *b)?),
        };
    }
    match op {
        PwOp::IsNan => bool(a.to_f64().is_nan()),
        PwOp::IsInf => bool(a.to_f64().is_infinite()),
        PwOp::Not if a.dtype == DType::Bool => bool(a.bits == 0),
        PwOp::Not => of(!a.bits & mask(dtype)),
        _ if a.dtype.is_float() => float1(op, a, rounder),
        PwOp::Neg => of(cut(dtype, to_int(a).wrapping_neg())),
        PwOp::Abs if dtype.is_signed_int() => of(cut(dtype, to_int(a).wrapping_abs())),
        PwOp::Abs => of(a.bits),
        PwOp::Sign => of(cut(dtype, wide(a).signum() as i64)),
        _ => None,
    }
}

/// Rounds a computed value; every NaN that is made is the same one.
pub(super) fn rounded(dtype: DType, v: f64) -> Scalar {
    Scalar::of(dtype, if v.is_nan() { f64::NAN } else { v })
}

/// Computed in f64 and rounded once: what is exact or correctly rounded in f32 stays so.
fn float1(op: &PwOp, a: Scalar, rounder: &Rounder) -> Option<Scalar> {
    let x = a.to_f64();
    let v = match op {
        // These touch the sign bit alone.
        PwOp::Neg => return Some(Scalar::of(a.dtype, -x)),
        PwOp::Abs => return Some(Scalar::of(a.dtype, x.abs())),
        PwOp::Sign if x.is_nan() => x,
        PwOp::Sign if x == 0.0 => 0.0,
        PwOp::Sign => x.signum(),
        PwOp::Sqrt => x.sqrt(),
        PwOp::Reciprocal => 1.0 / x,
        PwOp::Floor => x.floor(),
        PwOp::Ceil => x.ceil(),
        PwOp::Round => x.round_ties_even(),
        PwOp::Exp => x.exp(),
        PwOp::Log => x.ln(),
        PwOp::Sin => x.sin(),
        PwOp::Cos => x.cos(),
        PwOp::Tan => x.tan(),
        PwOp::Asin => x.asin(),
        PwOp::Acos => x.acos(),
        PwOp::Atan => x.atan(),
        PwOp::Sinh => x.sinh(),
        PwOp::Cosh => x.cosh(),
        PwOp::Tanh => x.tanh(),
        PwOp::Asinh => x.asinh(),
        PwOp::Acosh => x.acosh(),
        PwOp::Atanh => x.atanh(),
        PwOp::Erf => erf(x),
        PwOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        _ => return None,
    };
    let v = match op.rounds_alike() {
        true => v,
        false => rounder.function(a.dtype, v),
    };
    Some(rounded(a.dtype, v))
}

/// f32 sums, products and quotients of f32 operands, formed in f64 and rounded, are those of f32
/// arithmetic; the narrow types are rounded from f32.
fn float2(op: &PwOp, a: Scalar, b: Scalar, rounder: &Rounder) -> Option<Scalar> {
    let (x, y) = (a.to_f64(), b.to_f64());
    let v = match op {
        PwOp::Add => x + y,
        PwOp::Sub => x - y,
        PwOp::Mul => x * y,
        PwOp::Div => x / y,
        PwOp::Fmod => x % y,
        PwOp::Mod => {
            let r = x % y;
            if r != 0.0 && (r < 0.0) != (y < 0.0) {
                r + y
            } else if r == 0.0 {
                r.copysign(y)
            } else {
                r
            }
        }
        PwOp::Pow => rounder.function(a.dtype, x.powf(y)),
        PwOp::Min | PwOp::Max => {
            let first = if x.is_nan() || y.is_nan() {
                x.is_nan()
            } else if *op == PwOp::Min {
                x <= y
            } else {
                x >= y
            };
            return Some(if first { a } else { b });
        }
        _ => return None,
    };
    let v = match a.dtype {
        DType::F16 | DType::BF16 => v as f32 as f64,
        _ => v,
    };
    Some(rounded(a.dtype, v))
}

fn int2(op: &PwOp, a: Scalar, b: Scalar) -> Option<u64> {
    let dtype = a.dtype;
    let (x, y) = (wide(a), wide(b));
    // In 128 bits nothing below overflows; `cut` wraps to the type's width.
    let v = match op {
        PwOp::Add => x + y,
        PwOp::Sub => x - y,
        PwOp::Mul => x.wrapping_mul(y),
        PwOp::Div => x.checked_div(y).unwrap_or(0),
        PwOp::Fmod => x.checked_rem(y).unwrap_or(0),
        PwOp::Mod => {
            let r = x.checked_rem(y).unwrap_or(0);
            if r != 0 && (r < 0) != (y < 0) {
                r + y
            } else {
                r
            }
        }
        PwOp::Pow => return Some(int_pow(dtype, a, y)),
        PwOp::Min => x.min(y),
        PwOp::Max => x.max(y),
        PwOp::And => return Some(a.bits & b.bits),
        PwOp::Or => return Some(a.bits | b.bits),
        PwOp::Xor => return Some(a.bits ^ b.bits),
        PwOp::Shl | PwOp::Shr => {
            let width = 8 * dtype.bytes() as u64;
            // A negative amount is a large one.
            if b.bits >= width {
                return Some(0);
            }
            match op {
                PwOp::Shl => x << b.bits,
                _ => x >> b.bits,
            }
        }
        _ => return None,
    };
    Some(v as u64 & mask(dtype))
}

/// Wrapping power; a negative exponent gives the truncated quotient (0 for a base of 0).
fn int_pow(dtype: DType, base: Scalar, exponent: i128) -> u64 {
    let x = to_int(base);
    if exponent < 0 {
        let odd = exponent % 2 != 0;
        return match wide(base) {
            1 => 1,
            -1 => cut(dtype, if odd { -1 } else { 1 }),
            _ => 0,
        };
    }
    let (mut e, mut square, mut out) = (exponent as u64, x, 1i64);
    while e > 0 {
        if e & 1 == 1 {
            out = out.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        e >>= 1;
    }
    cut(dtype, out)
}

/// To another type. Float to integer truncates and saturates, NaN gives 0; integer to integer keeps
/// the low bits, and so does all that goes to less than a byte; to bool is `!= 0`.
fn cast(a: Scalar, to: DType) -> Scalar {
    if a.dtype == to {
        return a;
    }
    let float = a.dtype.is_float() || a.dtype.is_minifloat();
    let bits = match (float, to) {
        (true, DType::Bool) => (a.to_f64() != 0.0) as u64,
        (false, DType::Bool) => (a.bits != 0) as u64,
        (true, t) if t.is_int() => {
            let x = a.to_f64();
            match t {
                DType::I8 => x as i8 as u8 as u64,
                DType::I16 => x as i16 as u16 as u64,
                DType::I32 => x as i32 as u32 as u64,
                DType::I64 => x as i64 as u64,
                DType::U8 => x as u8 as u64,
                DType::U16 => x as u16 as u64,
                DType::U32 => x as u32 as u64,
                _ => x as u64,
            }
        }
        (true, t) => return Scalar::of(t, a.to_f64()),
        (false, DType::F32) => (wide(a) as f32).to_bits() as u64,
        (false, t) if t.is_int() || t.is_small_int() => cut(t, wide(a) as i64),
        (false, t) => return Scalar::of(t, wide(a) as f64),
    };
    Scalar { dtype: to, bits }
}
