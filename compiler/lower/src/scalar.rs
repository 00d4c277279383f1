//! Pointwise bodies to scalar expressions: types, narrow arithmetic, ONNX's scalar semantics.

use crate::builder::Builder;
use crate::power::power;
use crate::{LowerError, minifloat, unsigned};
use lapidary_codegen::loops::*;
use lapidary_graph::{DType, Dim, NodeId, Pointwise, PwOp, Scalar, ValueId};

type Result<T> = std::result::Result<T, LowerError>;

/// How elements of a type lie in memory. A `C128` is two elements ([`Builder::parts`]).
pub(crate) fn mem(t: DType) -> Option<Mem> {
    Some(match t {
        DType::F32 => Mem::F32,
        DType::F64 => Mem::F64,
        DType::I8 => Mem::I8,
        DType::U8 | DType::Bool => Mem::U8,
        DType::I16 => Mem::I16,
        DType::U16 => Mem::U16,
        DType::I32 => Mem::I32,
        DType::U32 => Mem::U32,
        DType::I64 | DType::U64 => Mem::I64,
        DType::F16 => Mem::F16,
        DType::BF16 => Mem::BF16,
        DType::I4 | DType::I2 => Mem::I8,
        DType::U4 | DType::U2 => Mem::U8,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => Mem::U8,
        DType::F8E8M0 | DType::F6E2M3 | DType::F6E3M2 | DType::F4E2M1 => Mem::U8,
        DType::C64 | DType::C128 => Mem::I64,
        DType::String => return None,
    })
}

/// The lane type that a type is computed in.
pub(crate) fn elem(t: DType) -> Elem {
    mem(t).map_or(Elem::I32, Mem::elem)
}

/// A loaded element as a value of its type.
pub(crate) fn from_memory(b: &mut Builder, e: ExprId, t: DType) -> ExprId {
    if t != DType::Bool {
        return e;
    }
    let zero = b.expr(Expr::Const {
        elem: Elem::I32,
        bits: 0,
    });
    b.expr(Expr::Cmp {
        op: CmpOp::Ne,
        a: e,
        b: zero,
    })
}

/// A constant as an expression (bool as a truth value).
pub(crate) fn constant(b: &mut Builder, s: Scalar) -> ExprId {
    if s.dtype == DType::C128 {
        return real(b, s.bits);
    }
    let lane = elem(s.dtype);
    let bits = match s.dtype {
        DType::F16 | DType::BF16 => (s.to_f64() as f32).to_bits() as u64,
        DType::I8 | DType::I4 | DType::I2 => s.bits as i8 as i32 as u32 as u64,
        DType::I16 => s.bits as i16 as i32 as u32 as u64,
        _ => s.bits,
    };
    let e = b.expr(Expr::Const { elem: lane, bits });
    from_memory(b, e, s.dtype)
}

/// The part of a number without imaginary part that the loop over parts asks for.
fn real(b: &mut Builder, bits: u64) -> ExprId {
    let number = |b: &mut Builder, bits| {
        let elem = Elem::I64;
        b.expr(Expr::Const { elem, bits })
    };
    let (a, none) = (number(b, bits), number(b, 0));
    if bits == 0 {
        return none;
    }
    let value = b.part.clone();
    let part = b.expr(Expr::Int {
        value,
        elem: Elem::I64,
    });
    let cond = b.expr(Expr::Cmp {
        op: CmpOp::Eq,
        a: part,
        b: none,
    });
    b.expr(Expr::Select { cond, a, b: none })
}

/// Rounds or wraps a lane to what the type can hold.
fn fit(b: &mut Builder, e: ExprId, t: DType) -> ExprId {
    match mem(t) {
        _ if t.is_small_int() => {
            let count = |b: &mut Builder, n: usize| {
                b.expr(Expr::Const {
                    elem: Elem::I32,
                    bits: n as u64,
                })
            };
            if matches!(t, DType::U4 | DType::U2) {
                let low = count(b, (1 << t.bits()) - 1);
                return b.expr(Expr::Bin {
                    op: BinOp::And,
                    a: e,
                    b: low,
                });
            }
            let rest = count(b, 32 - t.bits());
            let up = b.expr(Expr::Bin {
                op: BinOp::Shl,
                a: e,
                b: rest,
            });
            b.expr(Expr::Bin {
                op: BinOp::Sar,
                a: up,
                b: rest,
            })
        }
        Some(to) if to.bytes() < to.elem().bytes() && t != DType::Bool => {
            b.expr(Expr::Narrow { a: e, to })
        }
        _ => e,
    }
}

fn number(b: &mut Builder, t: DType, v: f64) -> ExprId {
    constant(b, Scalar::of(t, v))
}

/// The value of a body for one element; `args` are the inputs with their indices.
pub(crate) fn pointwise(
    b: &mut Builder,
    node: NodeId,
    body: &Pointwise,
    args: &[(ValueId, Vec<Dim>)],
    index: &[Dim],
) -> Result<ExprId> {
    let mut at: Vec<ExprId> = Vec::with_capacity(body.nodes.len());
    for n in &body.nodes {
        let a: Vec<ExprId> = n.args.iter().map(|r| at[r.0 as usize]).collect();
        let from = n
            .args
            .first()
            .map_or(n.dtype, |r| body.nodes[r.0 as usize].dtype);
        let e = match &n.op {
            PwOp::Input(i) => {
                let (v, idx) = args
                    .get(*i as usize)
                    .ok_or_else(|| LowerError::missing(b.graph, node, *i as usize))?;
                b.value_at(*v, idx)?
            }
            PwOp::Const(s) => constant(b, *s),
            PwOp::Index(axis) => {
                let value = index.get(*axis as usize).cloned().unwrap_or_default();
                b.expr(Expr::Int {
                    value,
                    elem: Elem::I64,
                })
            }
            PwOp::Dim(d) => {
                let value = b.dim(d);
                b.expr(Expr::Int {
                    value,
                    elem: Elem::I64,
                })
            }
            PwOp::Cast => cast(b, a[0], from, n.dtype),
            PwOp::Bitcast => bitcast(b, a[0], from, n.dtype),
            op => apply(b, op, &a, from, n.dtype)?,
        };
        at.push(e);
    }
    at.last()
        .copied()
        .ok_or_else(|| LowerError::missing(b.graph, node, 0))
}

fn bitcast(b: &mut Builder, a: ExprId, from: DType, to: DType) -> ExprId {
    if from == to {
        return a;
    }
    let low = to.is_minifloat() && to.bits() < 8;
    if low {
        // The low bits of a byte: as an unsigned integer of that many.
        let all = b.expr(Expr::Const {
            elem: Elem::I32,
            bits: (1 << to.bits()) - 1,
        });
        return b.expr(Expr::Bin {
            op: BinOp::And,
            a,
            b: all,
        });
    }
    if elem(from) == elem(to) && from.is_float() == to.is_float() && from != DType::Bool {
        return fit(b, a, to);
    }
    // What has 32 bits in memory has its bits in 32-bit lanes, whatever lanes it is held in.
    let a = match from {
        DType::Bool | DType::U32 => b.expr(Expr::Convert { a, to: Elem::I32 }),
        _ => a,
    };
    if to == DType::U32 {
        let bits = b.expr(Expr::Bits { a, to: Elem::I32 });
        let wide = b.expr(Expr::Convert {
            a: bits,
            to: Elem::I64,
        });
        return fit(b, wide, to);
    }
    let bits = b.expr(Expr::Bits { a, to: elem(to) });
    fit(b, bits, to)
}

fn cast(b: &mut Builder, a: ExprId, from: DType, to: DType) -> ExprId {
    if from == to {
        return a;
    }
    if from.is_minifloat() {
        let x = minifloat::decode(b, a, from);
        return cast(b, x, DType::F32, to);
    }
    if to.is_minifloat() {
        // Rounded once: wider floats as they are, integers as f32 or, where it may not hold them, f64.
        let wide = match from {
            DType::F64 => DType::F64,
            _ if from.is_float() => DType::F32,
            DType::I32 | DType::U32 | DType::I64 | DType::U64 => DType::F64,
            _ => DType::F32,
        };
        let x = match from.is_float() {
            true => a,
            false => cast(b, a, from, wide),
        };
        return minifloat::encode(b, x, elem(wide), to);
    }
    if to.is_small_int() {
        let whole = cast(b, a, from, DType::I32);
        return fit(b, whole, to);
    }
    if to == DType::Bool {
        let zero = number(b, from, 0.0);
        return b.expr(Expr::Cmp {
            op: CmpOp::Ne,
            a,
            b: zero,
        });
    }
    if from == DType::Bool {
        return b.expr(Expr::Convert { a, to: elem(to) });
    }
    if from == DType::U64 && to.is_float() {
        let e = unsigned::to_float(b, a, elem(to));
        return fit(b, e, to);
    }
    if to == DType::U64 && from.is_float() {
        return unsigned::from_float(b, a, elem(from));
    }
    let wide = b.expr(Expr::Convert { a, to: elem(to) });
    let narrow = mem(to).is_some_and(|m| m.bytes() < m.elem().bytes());
    if from.is_float() && !to.is_float() && narrow {
        // Out of range saturates: the lane type holds more than the narrow one.
        let (low, high) = match to {
            DType::I8 => (i8::MIN as f64, i8::MAX as f64),
            DType::U8 => (0.0, u8::MAX as f64),
            DType::I16 => (i16::MIN as f64, i16::MAX as f64),
            DType::U16 => (0.0, u16::MAX as f64),
            _ => (0.0, u32::MAX as f64),
        };
        let bits = |v: f64| {
            if elem(to) == Elem::I32 {
                v as i32 as u32 as u64
            } else {
                v as i64 as u64
            }
        };
        let (low, high) = (
            b.expr(Expr::Const {
                elem: elem(to),
                bits: bits(low),
            }),
            b.expr(Expr::Const {
                elem: elem(to),
                bits: bits(high),
            }),
        );
        let up = b.expr(Expr::Bin {
            op: BinOp::Max,
            a: wide,
            b: low,
        });
        return b.expr(Expr::Bin {
            op: BinOp::Min,
            a: up,
            b: high,
        });
    }
    fit(b, wide, to)
}

/// In the order of signed lanes: 64-bit unsigned numbers have their top bit flipped.
fn ordered(b: &mut Builder, e: ExprId, t: DType) -> ExprId {
    if t == DType::U64 {
        unsigned::ordered(b, e)
    } else {
        e
    }
}

fn apply(b: &mut Builder, op: &PwOp, a: &[ExprId], from: DType, to: DType) -> Result<ExprId> {
    let arg = |i: usize| a.get(i).copied().ok_or(LowerError::Arity);
    let x = arg(0)?;
    let un = |b: &mut Builder, op: UnOp, x: ExprId| b.expr(Expr::Un { op, a: x });
    let cmp =
        |b: &mut Builder, op: CmpOp, x: ExprId, y: ExprId| b.expr(Expr::Cmp { op, a: x, b: y });
    let select = |b: &mut Builder, cond: ExprId, x: ExprId, y: ExprId| {
        b.expr(Expr::Select { cond, a: x, b: y })
    };
    let float = from.is_float();
    let simple = match op {
        PwOp::Neg => Some(UnOp::Neg),
        PwOp::Sqrt => Some(UnOp::Sqrt),
        PwOp::Floor => Some(UnOp::Floor),
        PwOp::Ceil => Some(UnOp::Ceil),
        PwOp::Round => Some(UnOp::Round),
        PwOp::Exp => Some(UnOp::Exp),
        PwOp::Log => Some(UnOp::Log),
        PwOp::Sin => Some(UnOp::Sin),
        PwOp::Cos => Some(UnOp::Cos),
        PwOp::Tan => Some(UnOp::Tan),
        PwOp::Asin => Some(UnOp::Asin),
        PwOp::Acos => Some(UnOp::Acos),
        PwOp::Atan => Some(UnOp::Atan),
        PwOp::Sinh => Some(UnOp::Sinh),
        PwOp::Cosh => Some(UnOp::Cosh),
        PwOp::Tanh => Some(UnOp::Tanh),
        PwOp::Asinh => Some(UnOp::Asinh),
        PwOp::Acosh => Some(UnOp::Acosh),
        PwOp::Atanh => Some(UnOp::Atanh),
        PwOp::Erf => Some(UnOp::Erf),
        PwOp::Sigmoid => Some(UnOp::Sigmoid),
        PwOp::Not => Some(UnOp::Not),
        _ => None,
    };
    if let Some(op) = simple {
        if !float && matches!(op, UnOp::Floor | UnOp::Ceil | UnOp::Round) {
            return Ok(x);
        }
        let e = un(b, op, x);
        return Ok(fit(b, e, to));
    }
    let bin = |b: &mut Builder, op: BinOp, y: ExprId| {
        let e = b.expr(Expr::Bin { op, a: x, b: y });
        if matches!(b.kernel.ty(e), Ty::Bool) {
            e
        } else {
            fit(b, e, to)
        }
    };
    Ok(match op {
        PwOp::Abs if from.is_int() && !from.is_signed_int() => x,
        PwOp::Abs => {
            let e = un(b, UnOp::Abs, x);
            fit(b, e, to)
        }
        PwOp::Sign => {
            let (zero, one, minus) = (
                number(b, from, 0.0),
                number(b, from, 1.0),
                if from.is_int() && !from.is_signed_int() {
                    number(b, from, 0.0)
                } else {
                    number(b, from, -1.0)
                },
            );
            let (positive, negative) = if from == DType::U64 {
                (cmp(b, CmpOp::Ne, x, zero), cmp(b, CmpOp::Ne, zero, zero))
            } else {
                (cmp(b, CmpOp::Gt, x, zero), cmp(b, CmpOp::Lt, x, zero))
            };
            let rest = select(b, negative, minus, x);
            select(b, positive, one, rest)
        }
        PwOp::Reciprocal => {
            let one = number(b, from, 1.0);
            let e = b.expr(Expr::Bin {
                op: BinOp::Div,
                a: one,
                b: x,
            });
            fit(b, e, to)
        }
        PwOp::IsNan => cmp(b, CmpOp::Ne, x, x),
        PwOp::IsInf => {
            let abs = un(b, UnOp::Abs, x);
            let inf = number(b, from, f64::INFINITY);
            cmp(b, CmpOp::Eq, abs, inf)
        }
        PwOp::Add => bin(b, BinOp::Add, arg(1)?),
        PwOp::Sub => bin(b, BinOp::Sub, arg(1)?),
        PwOp::Mul => bin(b, BinOp::Mul, arg(1)?),
        PwOp::Div if from == DType::U64 => unsigned::quotient(b, x, arg(1)?),
        PwOp::Fmod | PwOp::Mod if from == DType::U64 => unsigned::remainder(b, x, arg(1)?),
        PwOp::Div => bin(b, BinOp::Div, arg(1)?),
        PwOp::Fmod => bin(b, BinOp::Rem, arg(1)?),
        PwOp::Mod => {
            let y = arg(1)?;
            let r = b.expr(Expr::Bin {
                op: BinOp::Rem,
                a: x,
                b: y,
            });
            if from.is_int() && !from.is_signed_int() {
                return Ok(r);
            }
            // The remainder takes the divisor's sign.
            let zero = number(b, from, 0.0);
            let some = cmp(b, CmpOp::Ne, r, zero);
            let (rn, yn) = (cmp(b, CmpOp::Lt, r, zero), cmp(b, CmpOp::Lt, y, zero));
            let differ = cmp(b, CmpOp::Ne, rn, yn);
            let wrong = b.expr(Expr::Bin {
                op: BinOp::And,
                a: some,
                b: differ,
            });
            let moved = b.expr(Expr::Bin {
                op: BinOp::Add,
                a: r,
                b: y,
            });
            let mut e = select(b, wrong, moved, r);
            if !from.is_int() {
                // A zero takes it too. (A divisor of zero gives NaN, so its own sign does not matter.)
                let negative = number(b, from, -0.0);
                let signed = select(b, yn, negative, zero);
                e = select(b, some, e, signed);
            }
            fit(b, e, to)
        }
        PwOp::Pow if from.is_int() => {
            let e = power(b, x, arg(1)?, from);
            fit(b, e, to)
        }
        PwOp::Pow => bin(b, BinOp::Pow, arg(1)?),
        PwOp::Min | PwOp::Max => least(b, *op == PwOp::Min, x, arg(1)?, from),
        PwOp::And => bin(b, BinOp::And, arg(1)?),
        PwOp::Or => bin(b, BinOp::Or, arg(1)?),
        PwOp::Xor => bin(b, BinOp::Xor, arg(1)?),
        PwOp::Shl => bin(b, BinOp::Shl, arg(1)?),
        PwOp::Shr if from.is_signed_int() => bin(b, BinOp::Sar, arg(1)?),
        PwOp::Shr => bin(b, BinOp::Shr, arg(1)?),
        PwOp::Eq => cmp(b, CmpOp::Eq, x, arg(1)?),
        PwOp::Lt | PwOp::Le | PwOp::Gt | PwOp::Ge => {
            let (x, y) = (ordered(b, x, from), ordered(b, arg(1)?, from));
            let op = match op {
                PwOp::Lt => CmpOp::Lt,
                PwOp::Le => CmpOp::Le,
                PwOp::Gt => CmpOp::Gt,
                _ => CmpOp::Ge,
            };
            cmp(b, op, x, y)
        }
        PwOp::Select => select(b, x, arg(1)?, arg(2)?),
        _ => return Err(LowerError::Arity),
    })
}

fn least(b: &mut Builder, min: bool, x: ExprId, y: ExprId, t: DType) -> ExprId {
    if !t.is_float() {
        let (sx, sy) = (ordered(b, x, t), ordered(b, y, t));
        let e = b.expr(Expr::Bin {
            op: if min { BinOp::Min } else { BinOp::Max },
            a: sx,
            b: sy,
        });
        return ordered(b, e, t);
    }
    // The machine's operation gives its second operand on NaN: with a constant first, that is right.
    let is_number = |b: &Builder, e: ExprId| match b.kernel.exprs[e.0 as usize] {
        Expr::Const {
            elem: Elem::F32,
            bits,
        } => !f32::from_bits(bits as u32).is_nan(),
        Expr::Const {
            elem: Elem::F64,
            bits,
        } => !f64::from_bits(bits).is_nan(),
        _ => false,
    };
    let fast = if min { BinOp::MinFast } else { BinOp::MaxFast };
    if is_number(b, x) {
        b.expr(Expr::Bin {
            op: fast,
            a: x,
            b: y,
        })
    } else if is_number(b, y) {
        b.expr(Expr::Bin {
            op: fast,
            a: y,
            b: x,
        })
    } else {
        b.expr(Expr::Bin {
            op: if min { BinOp::Min } else { BinOp::Max },
            a: x,
            b: y,
        })
    }
}
