//! Typing of pointwise expressions and of their broadcast.

use super::{Class, Context, InferError, unranked};
use crate::{DType, Dim, Pointwise, PwOp, TensorType};

pub(super) fn pointwise(
    cx: &mut Context,
    body: &Pointwise,
    shape: Option<&[Dim]>,
) -> Result<TensorType, InferError> {
    let n = body.inputs as usize;
    cx.count(n, n)?;
    let mut types = Vec::with_capacity(n);
    for i in 0..n {
        types.push(cx.input(i, "operand")?);
    }
    let dtypes: Vec<DType> = types.iter().map(|t| t.dtype).collect();
    check_body(body, Some(&dtypes)).map_err(|(node, problem)| InferError::Body {
        op: cx.op.into(),
        node,
        problem,
    })?;
    let out: Option<Vec<Dim>> = match shape {
        Some(to) => {
            cx.dims_valid("shape", to)?;
            for (i, t) in types.iter().enumerate() {
                cx.shape_broadcasts_to(&format!("input {i}"), t.dims(), to)?;
            }
            Some(to.to_vec())
        }
        None => broadcast_all(cx, &types)?,
    };
    let Some(out) = out else {
        return Ok(unranked(body.dtype()));
    };
    for (i, node) in body.nodes.iter().enumerate() {
        if let PwOp::Index(axis) = node.op
            && axis as usize >= out.len()
        {
            return Err(InferError::Body {
                op: cx.op.into(),
                node: i,
                problem: format!("index of axis {axis}, but the rank is {}", out.len()),
            });
        }
    }
    Ok(TensorType::new(body.dtype(), out))
}

/// The common shape; `None` when an operand is unranked.
fn broadcast_all(cx: &mut Context, types: &[&TensorType]) -> Result<Option<Vec<Dim>>, InferError> {
    let mut out: Vec<Dim> = Vec::new();
    for (i, t) in types.iter().enumerate() {
        let Some(dims) = &t.shape else {
            return Ok(None);
        };
        let rank = out.len().max(dims.len());
        let mut next = Vec::with_capacity(rank);
        for axis in 0..rank {
            let a = (axis + out.len())
                .checked_sub(rank)
                .and_then(|k| out.get(k));
            let b = (axis + dims.len())
                .checked_sub(rank)
                .and_then(|k| dims.get(k));
            next.push(match (a, b) {
                (Some(a), Some(b)) => cx.broadcast(&format!("input {i}"), axis, a, b)?,
                (Some(d), None) | (None, Some(d)) => d.clone(),
                (None, None) => Dim::Const(1),
            });
        }
        out = next;
    }
    Ok(Some(out))
}

/// Checks an expression: order, arity and the types of operands and results. With `inputs`, those
/// of its inputs too. The error is the number of the node and what is wrong with it.
pub fn check_body(body: &Pointwise, inputs: Option<&[DType]>) -> Result<(), (usize, String)> {
    if body.nodes.is_empty() {
        return Err((0, "the expression is empty".into()));
    }
    for (i, n) in body.nodes.iter().enumerate() {
        let mut args = Vec::with_capacity(n.args.len());
        for a in &n.args {
            match body.nodes.get(a.0 as usize) {
                Some(m) if (a.0 as usize) < i => args.push(m.dtype),
                _ => return Err((i, format!("operand {} is not an earlier node", a.0))),
            }
        }
        check_op(&n.op, &args, n.dtype, body.inputs, inputs).map_err(|p| (i, p))?;
    }
    Ok(())
}

fn check_op(
    op: &PwOp,
    args: &[DType],
    dtype: DType,
    count: u32,
    inputs: Option<&[DType]>,
) -> Result<(), String> {
    let arity = op.arity();
    if args.len() != arity {
        return Err(format!("expected {arity} operands, found {}", args.len()));
    }
    let result = |expected: DType| {
        if dtype == expected {
            Ok(())
        } else {
            Err(format!("expected result {expected}, found {dtype}"))
        }
    };
    let first = args.first().copied().unwrap_or(dtype);
    let class = |t: DType, c: Class| {
        if c.has(t) {
            Ok(())
        } else {
            Err(format!("expected type {}, found {t}", c.text()))
        }
    };
    let same = |args: &[DType]| match args {
        [a, b] if a != b => Err(format!("operands of types {a} and {b}")),
        _ => Ok(()),
    };
    match op {
        PwOp::Input(k) => {
            if *k >= count {
                return Err(format!("input {k} of {count}"));
            }
            match inputs.and_then(|t| t.get(*k as usize)) {
                Some(t) if *t != dtype => {
                    return Err(format!("input {k} has type {t}, read as {dtype}"));
                }
                _ => {}
            }
            if dtype == DType::String {
                return Err("strings take library kernels".into());
            }
            Ok(())
        }
        PwOp::Const(s) => result(s.dtype),
        PwOp::Index(_) | PwOp::Dim(_) => result(DType::I64),
        PwOp::Neg | PwOp::Abs | PwOp::Sign => {
            class(first, Class::Numeric)?;
            result(first)
        }
        PwOp::Sqrt
        | PwOp::Reciprocal
        | PwOp::Floor
        | PwOp::Ceil
        | PwOp::Round
        | PwOp::Exp
        | PwOp::Log
        | PwOp::Sin
        | PwOp::Cos
        | PwOp::Tan
        | PwOp::Asin
        | PwOp::Acos
        | PwOp::Atan
        | PwOp::Sinh
        | PwOp::Cosh
        | PwOp::Tanh
        | PwOp::Asinh
        | PwOp::Acosh
        | PwOp::Atanh
        | PwOp::Erf
        | PwOp::Sigmoid => {
            class(first, Class::Float)?;
            result(first)
        }
        PwOp::IsNan | PwOp::IsInf => {
            class(first, Class::Float)?;
            result(DType::Bool)
        }
        PwOp::Not => {
            class(first, Class::Bits)?;
            result(first)
        }
        PwOp::Add
        | PwOp::Sub
        | PwOp::Mul
        | PwOp::Div
        | PwOp::Mod
        | PwOp::Fmod
        | PwOp::Pow
        | PwOp::Min
        | PwOp::Max => {
            same(args)?;
            class(first, Class::Numeric)?;
            result(first)
        }
        PwOp::And | PwOp::Or | PwOp::Xor => {
            same(args)?;
            class(first, Class::Bits)?;
            result(first)
        }
        PwOp::Shl | PwOp::Shr => {
            same(args)?;
            class(first, Class::Int)?;
            result(first)
        }
        PwOp::Eq | PwOp::Lt | PwOp::Le | PwOp::Gt | PwOp::Ge => {
            same(args)?;
            if first.is_storage() {
                return Err(format!("{first} has no order and no arithmetic"));
            }
            result(DType::Bool)
        }
        PwOp::Select => {
            if first != DType::Bool {
                return Err(format!("expected a bool condition, found {first}"));
            }
            same(args.get(1..).unwrap_or(&[]))?;
            result(args.get(1).copied().unwrap_or(dtype))
        }
        PwOp::Cast => match (first, dtype) {
            (DType::String, _) | (_, DType::String) => Err("strings take library kernels".into()),
            (a, b) if a != b && (a.is_complex() || b.is_complex()) => {
                Err(format!("no cast from {a} to {b}"))
            }
            _ => Ok(()),
        },
        PwOp::Bitcast if first.bits() != dtype.bits() => {
            Err(format!("{first} and {dtype} differ in width"))
        }
        PwOp::Bitcast => Ok(()),
    }
}
