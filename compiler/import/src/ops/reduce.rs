//! Reductions, positions of extremes, running sums.

use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Op, PwOp, Scalar, ValueId};

use crate::builder::LibOut;
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, unsupported};

/// ReduceX: the axes are an attribute in old opsets, an optional input in new ones.
pub(crate) fn reduce(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let keep = cx.zero_or_one("keepdims", true)?;
    let bool_ = cx.dtype(x) == DType::Bool;
    let kind = match cx.op {
        "ReduceSum" => ReduceKind::Sum,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMax" if bool_ => ReduceKind::Or,
        "ReduceMin" if bool_ => ReduceKind::And,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMin" => ReduceKind::Min,
        "ReduceProd" => ReduceKind::Prod,
        "ReduceSumSquare" => ReduceKind::SumSquare,
        "ReduceL1" => ReduceKind::L1,
        "ReduceL2" => ReduceKind::L2,
        "ReduceLogSum" => ReduceKind::LogSum,
        _ => ReduceKind::LogSumExp,
    };
    let noop = cx.flag("noop_with_empty_axes", false)?;
    // Roots and logarithms of integers are truncated floats.
    let t = cx.dtype(x);
    let irrational = matches!(
        kind,
        ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp
    );
    if irrational && t.is_int() {
        let wide = cx.cast(x, DType::F64)?;
        let y = reduced(cx, wide, kind, keep, noop)?;
        return one(cx.cast(y, t)?);
    }
    one(reduced(cx, x, kind, keep, noop)?)
}

/// The reduction of a value that has the node's axes.
fn reduced(
    cx: &mut Ctx,
    x: ValueId,
    kind: ReduceKind,
    keep: bool,
    noop: bool,
) -> Result<ValueId, Fail> {
    match cx.int_list("axes", 1)? {
        // Axes known at run time only.
        Some(None) => {
            let list = cx.input(1)?;
            dynamic(cx, x, Some(list), kind, keep, noop)
        }
        list if cx.g.ty(x).rank().is_none() => {
            let list = list.flatten().filter(|l| !l.is_empty());
            let list = list.map(|l| cx.int_vector(&l));
            dynamic(cx, x, list, kind, keep, noop)
        }
        Some(Some(list)) if !list.is_empty() => {
            let rank = cx.rank(x)?;
            let axes = cx.axes("axes", rank)?;
            cx.reduce(kind, x, axes, keep)
        }
        _ if noop => cx.reduce(kind, x, Vec::new(), keep),
        _ => {
            let rank = cx.rank(x)?;
            cx.reduce(kind, x, (0..rank).collect(), keep)
        }
    }
}

/// Library `reduce`. Inputs: x, axes (i64) or none. Ints: kind (order of [`ReduceKind`]), keepdims,
/// noop_with_empty_axes. The kernel sets the output's dimensions.
fn dynamic(
    cx: &mut Ctx,
    x: ValueId,
    list: Option<ValueId>,
    kind: ReduceKind,
    keep: bool,
    noop: bool,
) -> Result<ValueId, Fail> {
    let t = cx.dtype(x);
    let count = list.map_or(Some(0), |l| cx.vector_len(l));
    // How many axes are left.
    let rank = match (count, cx.g.ty(x).rank()) {
        (_, rank) if keep => rank,
        (Some(0), rank) if noop => rank,
        (Some(0), _) => Some(0),
        (Some(n), Some(rank)) => rank.checked_sub(n),
        _ => None,
    };
    let dims = rank.map(|rank| vec![None; rank]);
    let x = cx.widen(x)?;
    let out = LibOut {
        dims,
        ..LibOut::unranked(cx.dtype(x))
    };
    let ints = vec![kind as i64, keep as i64, noop as i64];
    let v = cx.library("reduce", ints, vec![], vec![Some(x), list], vec![out]);
    let v = crate::builder::first(&v)?;
    cx.cast(v, t)
}

/// ArgMax and ArgMin.
pub(crate) fn arg(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let keep = cx.zero_or_one("keepdims", true)?;
    let last = cx.flag("select_last_index", false)?;
    let axis = cx.axis("axis", rank)?;
    let max = cx.op == "ArgMax";
    one(arg_along(cx, x, max, axis, keep, last)?)
}

fn arg_along(
    cx: &mut Ctx,
    x: ValueId,
    max: bool,
    axis: usize,
    keep: bool,
    last: bool,
) -> Result<ValueId, Fail> {
    let x = cx.widen(x)?;
    let op = Op::ArgReduce {
        max,
        axis,
        keep,
        last,
    };
    cx.emit1(op, &[x])
}

/// 1 at the first greatest element along an axis, 0 elsewhere. Before opset 13 over all axes from
/// `axis` on, as one.
pub(crate) fn hardmax(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let a = cx.axis("axis", rank)?;
    let (v, a) = if cx.opset >= 13 {
        (x, a)
    } else {
        let (rows, columns) = dims.split_at(a);
        let flat = vec![
            lapidary_graph::Dim::product(rows),
            lapidary_graph::Dim::product(columns),
        ];
        (cx.reshape(x, flat)?, 1)
    };
    let t = cx.dtype(v);
    let shape = cx.dims(v)?;
    let at = arg_along(cx, v, true, a, true, false)?;
    let y = cx.pw_shaped(&[at], Some(shape), |p, r| {
        let i = p.push(PwOp::Index(a as u32), vec![], DType::I64);
        let hit = p.test(PwOp::Eq, vec![i, r[0]]);
        let (one, zero) = (p.number(1.0, t), p.number(0.0, t));
        p.select(hit, one, zero)
    })?;
    one(cx.reshape(y, dims)?)
}

/// CumSum and CumProd; input 1 is the axis.
///
/// Library `cumsum`, where the axis is known at run time only, and `cumprod`. Inputs: x, axis (one
/// i32 or i64). Ints: exclusive, reverse. Output dimensions as x.
pub(crate) fn cumulative(cx: &mut Ctx) -> Outs {
    let (x, a) = (cx.input(0)?, cx.input(1)?);
    let (exclusive, reverse) = (cx.flag("exclusive", false)?, cx.flag("reverse", false)?);
    let t = cx.dtype(x);
    let wide = cx.widen(x)?;
    let dims = cx.dims(x)?;
    let y = match (cx.op, cx.axis_if_known("axis", dims.len())?) {
        ("CumSum", Some(axis)) => {
            let op = Op::CumSum {
                axis,
                exclusive,
                reverse,
            };
            cx.emit1(op, &[wide])?
        }
        _ => {
            let name = if cx.op == "CumSum" {
                "cumsum"
            } else {
                "cumprod"
            };
            let out = LibOut::fixed(cx.dtype(wide), dims);
            let ints = vec![exclusive as i64, reverse as i64];
            let v = cx.library(name, ints, vec![], vec![Some(wide), Some(a)], vec![out]);
            crate::builder::first(&v)?
        }
    };
    one(cx.cast(y, t)?)
}

/// A mean over axes, and the variance (of the population), axes kept.
pub(crate) fn moments(
    cx: &mut Ctx,
    x: ValueId,
    axes: Vec<usize>,
) -> Result<(ValueId, ValueId), Fail> {
    if !cx.dtype(x).is_float() {
        return Err(unsupported(format!("input of type {}", cx.dtype(x))));
    }
    let mean = cx.reduce(ReduceKind::Mean, x, axes.clone(), true)?;
    let d = cx.pw(&[x, mean], |p, r| {
        let d = p.bin(PwOp::Sub, r[0], r[1]);
        p.bin(PwOp::Mul, d, d)
    })?;
    let var = cx.reduce(ReduceKind::Mean, d, axes, true)?;
    Ok((mean, var))
}

/// `1 / sqrt(v + epsilon)`.
pub(crate) fn inverse_root(cx: &mut Ctx, v: ValueId, epsilon: f64) -> Result<ValueId, Fail> {
    let t = cx.dtype(v);
    cx.pw(&[v], |p, r| {
        let e = p.constant(Scalar::of(t, epsilon));
        let y = p.bin(PwOp::Add, r[0], e);
        let y = p.un(PwOp::Sqrt, y);
        p.un(PwOp::Reciprocal, y)
    })
}
