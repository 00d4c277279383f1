//! Composites into small operators: what fusion then gathers into one row kernel.
//!
//! - `Softmax x`: `e = exp(x - max x)`, `e * (1 / sum e)`; log: `(x - max x) - log(sum e)`;
//! - `Normalize x, scale, bias`: `d = x - mean x`, `d / sqrt(mean(d * d) + epsilon) * scale + bias`
//!   (root mean square: `d = x`);
//! - reductions that are others with pointwise operators around them: `SumSquare`, `L1`, `L2`,
//!   `LogSum`, `LogSumExp`.
//!
//! Half floats are computed in f32 and rounded once at the end.

use crate::remark::Remarks;
use crate::rewrite::Rewriter;
use lapidary_graph::op::{NormKind, ReduceKind};
use lapidary_graph::{DType, Graph, NodeId, Op, Pointwise, PwBuilder, PwOp, PwRef, ValueId};

/// The pass; whether it changed the graph.
pub fn run(graph: &mut Graph, remarks: &mut Remarks) -> bool {
    Rewriter::run(graph, remarks, |rw, n| {
        expand(rw, n);
    })
}

fn expand(rw: &mut Rewriter, n: NodeId) -> Option<()> {
    let op = rw.op(n).clone();
    let x = rw.input(n, 0)?;
    let from = rw.dtype(x);
    let rank = rw.graph.ty(x).rank()?;
    let result = match op {
        Op::Softmax { axis, log } => {
            let x = widen(rw, x, n)?;
            softmax(rw, x, axis, log, n)?
        }
        Op::Normalize {
            kind,
            axis,
            epsilon,
        } => {
            let x = widen(rw, x, n)?;
            let axes: Vec<usize> = (axis..rank).collect();
            let parts = [rw.input(n, 1), rw.input(n, 2)];
            normalize(rw, x, kind, axes, epsilon, parts, n)?
        }
        Op::Reduce { kind, axes, keep } => {
            let (before, base, after) = split(kind)?;
            let x = widen(rw, x, n)?;
            if kind == ReduceKind::LogSumExp {
                log_sum_exp(rw, x, axes, keep, n)?
            } else {
                let mapped = match before {
                    Some(f) => unary(rw, x, f, n)?,
                    None => x,
                };
                let kind = base;
                let r = rw.add(Op::Reduce { kind, axes, keep }, &[mapped], n)?;
                match after {
                    Some(op) => unary(rw, r, |b, x| b.un(op.clone(), x), n)?,
                    None => r,
                }
            }
        }
        _ => return None,
    };
    let result = if rw.dtype(result) == from {
        result
    } else {
        unary(rw, result, |b, x| b.cast(x, from), n)?
    };
    rw.replace_node(n, result);
    Some(())
}

type Map = fn(&mut PwBuilder, PwRef) -> PwRef;

/// What a composite reduction does before, the plain reduction, and what it does after.
fn split(kind: ReduceKind) -> Option<(Option<Map>, ReduceKind, Option<PwOp>)> {
    let square: Map = |b, x| b.bin(PwOp::Mul, x, x);
    let abs: Map = |b, x| b.un(PwOp::Abs, x);
    Some(match kind {
        ReduceKind::SumSquare => (Some(square), ReduceKind::Sum, None),
        ReduceKind::L1 => (Some(abs), ReduceKind::Sum, None),
        ReduceKind::L2 => (Some(square), ReduceKind::Sum, Some(PwOp::Sqrt)),
        ReduceKind::LogSum => (None, ReduceKind::Sum, Some(PwOp::Log)),
        ReduceKind::LogSumExp => (None, ReduceKind::Sum, None),
        _ => return None,
    })
}

/// A pointwise node of one input.
fn unary(
    rw: &mut Rewriter,
    x: ValueId,
    f: impl Fn(&mut PwBuilder, PwRef) -> PwRef,
    n: NodeId,
) -> Option<ValueId> {
    let mut b = PwBuilder::default();
    let i = b.input(0, rw.dtype(x));
    let r = f(&mut b, i);
    rw.add_pointwise(b.finish_at(r, 1), &[x], None, n)
}

/// A pointwise node of several inputs.
fn combine(
    rw: &mut Rewriter,
    inputs: &[ValueId],
    f: impl Fn(&mut PwBuilder, &[PwRef]) -> PwRef,
    n: NodeId,
) -> Option<ValueId> {
    let mut b = PwBuilder::default();
    let refs: Vec<PwRef> = inputs
        .iter()
        .enumerate()
        .map(|(i, v)| b.input(i as u32, rw.dtype(*v)))
        .collect();
    let r = f(&mut b, &refs);
    let body: Pointwise = b.finish_at(r, inputs.len() as u32);
    rw.add_pointwise(body, inputs, None, n)
}

fn widen(rw: &mut Rewriter, x: ValueId, n: NodeId) -> Option<ValueId> {
    match rw.dtype(x) {
        DType::F16 | DType::BF16 => unary(rw, x, |b, x| b.cast(x, DType::F32), n),
        _ => Some(x),
    }
}

fn reduce(
    rw: &mut Rewriter,
    kind: ReduceKind,
    x: ValueId,
    axes: &[usize],
    n: NodeId,
) -> Option<ValueId> {
    let axes = axes.to_vec();
    let op = Op::Reduce {
        kind,
        axes,
        keep: true,
    };
    rw.add(op, &[x], n)
}

fn softmax(rw: &mut Rewriter, x: ValueId, axis: usize, log: bool, n: NodeId) -> Option<ValueId> {
    let max = reduce(rw, ReduceKind::Max, x, &[axis], n)?;
    if log {
        let d = combine(rw, &[x, max], |b, v| b.bin(PwOp::Sub, v[0], v[1]), n)?;
        let e = unary(rw, d, |b, x| b.un(PwOp::Exp, x), n)?;
        let sum = reduce(rw, ReduceKind::Sum, e, &[axis], n)?;
        let l = unary(rw, sum, |b, x| b.un(PwOp::Log, x), n)?;
        return combine(rw, &[d, l], |b, v| b.bin(PwOp::Sub, v[0], v[1]), n);
    }
    let e = combine(
        rw,
        &[x, max],
        |b, v| {
            let d = b.bin(PwOp::Sub, v[0], v[1]);
            b.un(PwOp::Exp, d)
        },
        n,
    )?;
    let sum = reduce(rw, ReduceKind::Sum, e, &[axis], n)?;
    let r = unary(rw, sum, |b, x| b.un(PwOp::Reciprocal, x), n)?;
    combine(rw, &[e, r], |b, v| b.bin(PwOp::Mul, v[0], v[1]), n)
}

fn normalize(
    rw: &mut Rewriter,
    x: ValueId,
    kind: NormKind,
    axes: Vec<usize>,
    epsilon: f32,
    parts: [Option<ValueId>; 2],
    n: NodeId,
) -> Option<ValueId> {
    let d = match kind {
        NormKind::Rms => x,
        NormKind::Layer => {
            let mean = reduce(rw, ReduceKind::Mean, x, &axes, n)?;
            combine(rw, &[x, mean], |b, v| b.bin(PwOp::Sub, v[0], v[1]), n)?
        }
    };
    let square = unary(rw, d, |b, x| b.bin(PwOp::Mul, x, x), n)?;
    let variance = reduce(rw, ReduceKind::Mean, square, &axes, n)?;
    let r = unary(
        rw,
        variance,
        |b, v| {
            let e = b.number(epsilon as f64, b.dtype(v));
            let s = b.bin(PwOp::Add, v, e);
            let s = b.un(PwOp::Sqrt, s);
            b.un(PwOp::Reciprocal, s)
        },
        n,
    )?;
    let mut inputs = vec![d, r];
    let [scale, bias] = parts;
    inputs.extend(scale);
    inputs.extend(bias);
    combine(
        rw,
        &inputs,
        |b, v| {
            let t = b.dtype(v[0]);
            let mut y = b.bin(PwOp::Mul, v[0], v[1]);
            let mut rest = v[2..].iter().copied();
            if scale.is_some()
                && let Some(s) = rest.next()
            {
                let s = b.cast(s, t);
                y = b.bin(PwOp::Mul, y, s);
            }
            if bias.is_some()
                && let Some(s) = rest.next()
            {
                let s = b.cast(s, t);
                y = b.bin(PwOp::Add, y, s);
            }
            y
        },
        n,
    )
}

/// `log(sum(exp(x - m))) + m`, where an infinite maximum is not subtracted.
fn log_sum_exp(
    rw: &mut Rewriter,
    x: ValueId,
    axes: Vec<usize>,
    keep: bool,
    n: NodeId,
) -> Option<ValueId> {
    let max = reduce(rw, ReduceKind::Max, x, &axes, n)?;
    let safe = unary(
        rw,
        max,
        |b, m| {
            let zero = b.number(0.0, b.dtype(m));
            let inf = b.test(PwOp::IsInf, vec![m]);
            b.select(inf, zero, m)
        },
        n,
    )?;
    let e = combine(
        rw,
        &[x, safe],
        |b, v| {
            let d = b.bin(PwOp::Sub, v[0], v[1]);
            b.un(PwOp::Exp, d)
        },
        n,
    )?;
    let sum = reduce(rw, ReduceKind::Sum, e, &axes, n)?;
    let r = combine(
        rw,
        &[sum, safe],
        |b, v| {
            let l = b.un(PwOp::Log, v[0]);
            b.bin(PwOp::Add, l, v[1])
        },
        n,
    )?;
    if keep {
        return Some(r);
    }
    let dims = rw.dims(r).to_vec();
    let rest = dims.into_iter().enumerate();
    let shape = rest
        .filter(|(i, _)| !axes.contains(i))
        .map(|(_, d)| d)
        .collect();
    rw.reshape(r, shape, n)
}
