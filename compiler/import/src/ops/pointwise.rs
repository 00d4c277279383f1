//! Operators that are one scalar operation (or a few) an element, with ONNX broadcasting.

use lapidary_graph::{DType, Dim, PwBuilder, PwOp, PwRef, Scalar, ValueId};

use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid, unsupported};

/// One operand, result of its type.
pub(crate) fn unary(cx: &mut Ctx) -> Outs {
    let op = match cx.op {
        "Abs" => PwOp::Abs,
        "Acos" => PwOp::Acos,
        "Acosh" => PwOp::Acosh,
        "Asin" => PwOp::Asin,
        "Asinh" => PwOp::Asinh,
        "Atan" => PwOp::Atan,
        "Atanh" => PwOp::Atanh,
        "Ceil" => PwOp::Ceil,
        "Cos" => PwOp::Cos,
        "Cosh" => PwOp::Cosh,
        "Erf" => PwOp::Erf,
        "Exp" => PwOp::Exp,
        "Floor" => PwOp::Floor,
        "Log" => PwOp::Log,
        "Neg" => PwOp::Neg,
        "Not" | "BitwiseNot" => PwOp::Not,
        "Reciprocal" => PwOp::Reciprocal,
        "Round" => PwOp::Round,
        "Sigmoid" => PwOp::Sigmoid,
        "Sign" => PwOp::Sign,
        "Sin" => PwOp::Sin,
        "Sinh" => PwOp::Sinh,
        "Sqrt" => PwOp::Sqrt,
        "Tan" => PwOp::Tan,
        "Tanh" => PwOp::Tanh,
        _ => return Err(unsupported("this operator is not implemented")),
    };
    let x = cx.input(0)?;
    let t = cx.dtype(x);
    // Unsigned numbers are their own absolute value.
    if op == PwOp::Abs && t.is_int() && !t.is_signed_int() {
        return one(x);
    }
    // Some evaluators take integers here; rounding them changes nothing.
    if t.is_int() && matches!(op, PwOp::Ceil | PwOp::Floor | PwOp::Round) {
        return one(x);
    }
    one(cx.un(op, x)?)
}

/// Two operands of one type; comparisons give bool.
pub(crate) fn binary(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (op, test) = match cx.op {
        "Add" => (PwOp::Add, false),
        "Sub" => (PwOp::Sub, false),
        "Mul" => (PwOp::Mul, false),
        "Div" => (PwOp::Div, false),
        "And" | "BitwiseAnd" => (PwOp::And, false),
        "Or" | "BitwiseOr" => (PwOp::Or, false),
        "Xor" | "BitwiseXor" => (PwOp::Xor, false),
        "Equal" => (PwOp::Eq, true),
        "Less" => (PwOp::Lt, true),
        "Greater" => (PwOp::Gt, true),
        "LessOrEqual" => (PwOp::Le, true),
        "GreaterOrEqual" => (PwOp::Ge, true),
        _ => return Err(unsupported("this operator is not implemented")),
    };
    same_type(cx, &[a, b])?;
    if op == PwOp::Eq && cx.dtype(a) == DType::String {
        return super::strings::equal(cx);
    }
    let b = old_broadcast(cx, a, b)?;
    one(cx.pw(&[a, b], |p, r| {
        if test {
            p.test(op, vec![r[0], r[1]])
        } else {
            p.bin(op, r[0], r[1])
        }
    })?)
}

/// Before opset 7 the second operand is broadcast where `broadcast` says so, its axes placed from
/// `axis` on (at the end by default).
fn old_broadcast(cx: &mut Ctx, a: ValueId, b: ValueId) -> Result<ValueId, Fail> {
    if cx.opset >= 7 || !cx.flag("broadcast", false)? || !cx.has("axis") {
        return Ok(b);
    }
    let (rank, mut dims) = (cx.rank(a)?, cx.dims(b)?);
    let axis = cx.axis("axis", rank)?;
    while dims.len() + axis < rank {
        dims.push(Dim::Const(1));
    }
    cx.reshape(b, dims)
}

fn same_type(cx: &Ctx, v: &[ValueId]) -> Result<DType, Fail> {
    let first = v.first().ok_or_else(|| invalid("no inputs"))?;
    let t = cx.dtype(*first);
    for v in v {
        if cx.dtype(*v) != t {
            return Err(invalid(format!(
                "'{}' is {}, expected {t} as the first operand",
                cx.value_name(*v),
                cx.dtype(*v)
            )));
        }
    }
    Ok(t)
}

/// Max, Min, Sum, Mean of any number of operands.
pub(crate) fn variadic(cx: &mut Ctx) -> Outs {
    let v = cx.all_inputs()?;
    let t = same_type(cx, &v)?;
    let n = v.len();
    let (op, mean) = match cx.op {
        "Max" => (PwOp::Max, false),
        "Min" => (PwOp::Min, false),
        "Sum" => (PwOp::Add, false),
        _ => (PwOp::Add, true),
    };
    one(cx.pw(&v, |p, r| {
        let mut acc = r[0];
        for x in &r[1..] {
            acc = p.bin(op.clone(), acc, *x);
        }
        if mean && n > 1 {
            let k = p.number(n as f64, t);
            acc = p.bin(PwOp::Div, acc, k);
        }
        acc
    })?)
}

/// The remainder with the sign of the divisor, or of the dividend (`fmod`).
pub(crate) fn modulo(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    same_type(cx, &[a, b])?;
    let op = if cx.flag("fmod", false)? {
        PwOp::Fmod
    } else {
        PwOp::Mod
    };
    one(cx.bin(op, a, b)?)
}

/// Powers; base and exponent may differ in type, the result has the base's.
pub(crate) fn pow(cx: &mut Ctx) -> Outs {
    let (x, y) = (cx.input(0)?, cx.input(1)?);
    let y = old_broadcast(cx, x, y)?;
    let (t, u) = (cx.dtype(x), cx.dtype(y));
    // Squares and cubes are products: exact where a power function is not.
    let small = cx.g.ty(y).const_dims().is_some_and(|d| {
        d.iter().all(|n| *n == 1) && cx.g.ty(x).rank().is_some_and(|r| r >= d.len())
    });
    let exponent = small.then(|| cx.const_f64s(y)).flatten();
    match exponent.as_deref() {
        Some([1.0]) => return one(x),
        Some([2.0]) => return one(cx.pw(&[x], |p, r| p.bin(PwOp::Mul, r[0], r[0]))?),
        Some([3.0]) => {
            return one(cx.pw(&[x], |p, r| {
                let s = p.bin(PwOp::Mul, r[0], r[0]);
                p.bin(PwOp::Mul, s, r[0])
            })?);
        }
        _ => {}
    }
    let work = match (t.is_float(), u.is_float()) {
        _ if t == u => t,
        (true, _) => t,
        (false, true) if u == DType::F64 || t.bytes() > 2 => DType::F64,
        (false, true) => DType::F32,
        (false, false) if u.bytes() > t.bytes() => u,
        (false, false) => t,
    };
    one(cx.pw(&[x, y], |p, r| {
        let (a, b) = (p.cast(r[0], work), p.cast(r[1], work));
        let z = p.bin(PwOp::Pow, a, b);
        p.cast(z, t)
    })?)
}

/// Shifts of unsigned integers.
pub(crate) fn bit_shift(cx: &mut Ctx) -> Outs {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    same_type(cx, &[a, b])?;
    let op = match cx.choice("direction", "", &["LEFT", "RIGHT"])? {
        0 => PwOp::Shl,
        _ => PwOp::Shr,
    };
    let t = cx.dtype(a);
    if op == PwOp::Shr && t.is_signed_int() {
        // The sign fills: shifting by the width or more (a negative amount is a great one) leaves
        // the sign alone.
        let last = 8.0 * t.bytes() as f64 - 1.0;
        return one(cx.pw(&[a, b], |p, r| {
            let (zero, last) = (p.number(0.0, t), p.number(last, t));
            let n = p.bin(PwOp::Min, r[1], last);
            let negative = p.test(PwOp::Lt, vec![r[1], zero]);
            let n = p.select(negative, last, n);
            p.bin(PwOp::Shr, r[0], n)
        })?);
    }
    one(cx.bin(op, a, b)?)
}

/// Bounds: attributes before opset 11, optional inputs from then on.
pub(crate) fn clip(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let t = cx.dtype(x);
    let (mut lo, mut hi) = (cx.opt(1), cx.opt(2));
    if cx.opset < 11 {
        lo = match cx.has("min") {
            true => {
                let v = cx.float("min", 0.0)?;
                Some(cx.scalar(t, v as f64))
            }
            false => None,
        };
        hi = match cx.has("max") {
            true => {
                let v = cx.float("max", 0.0)?;
                Some(cx.scalar(t, v as f64))
            }
            false => None,
        };
    }
    for (name, limit) in [("min", lo), ("max", hi)] {
        let Some(dims) = limit.and_then(|v| cx.g.ty(v).shape.clone()) else {
            continue;
        };
        // A list of one is tolerated, unless it would add an axis.
        let one = dims.len() <= 1 && dims.iter().all(|d| d.equals(&Dim::Const(1)) != Some(false));
        if !one || dims.len() == 1 && cx.g.ty(x).rank() == Some(0) {
            return Err(invalid(format!("'{name}' is no single number")));
        }
    }
    let mut inputs = vec![x];
    inputs.extend(lo);
    inputs.extend(hi);
    same_type(cx, &inputs)?;
    one(cx.pw(&inputs, |p, r| {
        let mut y = r[0];
        let mut next = 1;
        if lo.is_some() {
            y = p.bin(PwOp::Max, y, r[next]);
            next += 1;
        }
        if hi.is_some() {
            y = p.bin(PwOp::Min, y, r[next]);
        }
        y
    })?)
}

/// The input itself.
pub(crate) fn identity(cx: &mut Ctx) -> Outs {
    one(cx.input(0)?)
}

/// Tests for NaN.
pub(crate) fn is_nan(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    one(cx.pw(&[x], |p, r| {
        let x = computed(p, r[0]);
        p.test(PwOp::IsNan, vec![x])
    })?)
}

/// Tests for infinity, of one sign or both.
pub(crate) fn is_inf(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let (neg, pos) = (
        cx.flag("detect_negative", true)?,
        cx.flag("detect_positive", true)?,
    );
    if !neg && !pos {
        let dims = cx.dims(x)?;
        return one(cx.fill(dims, Scalar::bool(false))?);
    }
    one(cx.pw(&[x], |p, r| {
        let x = computed(p, r[0]);
        if neg && pos {
            return p.test(PwOp::IsInf, vec![x]);
        }
        let inf = if pos {
            f64::INFINITY
        } else {
            f64::NEG_INFINITY
        };
        let inf = p.number(inf, p.dtype(x));
        p.test(PwOp::Eq, vec![x, inf])
    })?)
}

/// Floats of a byte and less as f32, others as they are.
pub(crate) fn computed(p: &mut PwBuilder, x: PwRef) -> PwRef {
    if p.dtype(x).is_minifloat() {
        p.cast(x, DType::F32)
    } else {
        x
    }
}

/// A choice an element.
pub(crate) fn where_(cx: &mut Ctx) -> Outs {
    let (c, x, y) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    if same_type(cx, &[x, y])? == DType::String {
        return super::strings::where_(cx);
    }
    let chosen = cx.pw(&[c, x, y], |p, r| p.select(r[0], r[1], r[2]))?;
    if cx.is_rounded(x) || cx.is_rounded(y) {
        let (x, y) = (cx.widen(x)?, cx.widen(y)?);
        let wide = cx.pw(&[c, x, y], |p, r| p.select(r[0], r[1], r[2]))?;
        cx.set_unrounded(chosen, wide);
    }
    one(chosen)
}

/// `f` in f32 for 16-bit floats (and integers), rounded once at the end.
pub(crate) fn in_f32(
    p: &mut PwBuilder,
    x: PwRef,
    f: impl FnOnce(&mut PwBuilder, PwRef) -> PwRef,
) -> PwRef {
    let t = p.dtype(x);
    let wide = if t == DType::F64 { t } else { DType::F32 };
    let x = p.cast(x, wide);
    let y = f(p, x);
    p.cast(y, t)
}
