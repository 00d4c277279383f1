//! Groups of one node that have a rule of their own: reductions over any axes, concatenation,
//! padding, indexed reads, running sums, and calls of the library.

use crate::builder::Builder;
use crate::nest::{elementwise, finish_nest};
use crate::program::{LibraryStep, Operand, Step};
use crate::{LowerError, Lowering, collapse, scalar, scatter, unsigned};
use lapidary_codegen::loops::*;
use lapidary_graph::op::{PadMode, ReduceKind, RegionKind};
use lapidary_graph::{DType, Dim, Graph, Group, NodeId, Op, Scalar, ValueId};

type Result<T> = std::result::Result<T, LowerError>;

pub(crate) fn single(l: &mut Lowering, g: &Graph, group: &Group) -> Result<()> {
    let Some(n) = group.nodes.first().copied() else {
        return Ok(());
    };
    let node = &g.nodes[n];
    let out = *node
        .outputs
        .first()
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    match &node.op {
        Op::Reshape { .. } => crate::nest::pointwise(l, g, group),
        Op::Pointwise { .. }
        | Op::Shape(_)
        | Op::Transpose { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Gather { .. } => elementwise(l, g, group, out).map(|_| ()),
        Op::Reduce { kind, axes, .. } => reduce(l, g, group, n, *kind, axes),
        Op::ArgReduce {
            max, axis, last, ..
        } => arg_reduce(l, g, group, n, *max, *axis, *last),
        Op::CumSum {
            axis,
            exclusive,
            reverse,
        } => cumsum(l, g, group, n, *axis, *exclusive, *reverse),
        Op::Concat { axis } => concat(l, g, group, n, *axis),
        Op::Pad { before, mode, .. } => pad(l, g, group, n, before, *mode),
        Op::GatherElements { axis } => gather_elements(l, g, group, n, *axis),
        Op::GatherNd { batch } => gather_nd(l, g, group, n, *batch),
        Op::ScatterElements { axis, reduce } => scatter::elements(l, g, group, n, *axis, *reduce),
        Op::ScatterNd { reduce } => scatter::nd(l, g, group, n, *reduce),
        Op::Contract { .. } => crate::contract::contract(l, g, group),
        Op::Conv { .. } => crate::conv::conv(l, g, group),
        Op::ConvTranspose { .. } => crate::conv_plain::transpose(l, g, group, n),
        Op::Pool { .. } => crate::pool::pool(l, g, group),
        Op::Attention(_) => crate::attention::attention(l, g, group),
        Op::Trees(t) => {
            let x = node.inputs.first().copied().flatten();
            let width = x.map_or(DType::F32, |x| g.ty(x).dtype);
            let r = crate::trees::record(t, width);
            library(l, g, n, "trees", r.ints, r.floats, r.strings)
        }
        Op::Library(c) => library(
            l,
            g,
            n,
            &c.name,
            c.ints.clone(),
            c.floats.clone(),
            c.strings.clone(),
        ),
        Op::Region(region) => {
            let ints = region_ints(&region.kind);
            library(l, g, n, node.op.name(), ints, Vec::new(), Vec::new())
        }
        Op::Softmax { .. } | Op::Normalize { .. } => Err(LowerError::unsupported(
            g,
            n,
            format!("{} here", node.op.name()),
        )),
    }
}

/// The record of the kernels `if`, `loop` and `scan`.
fn region_ints(kind: &RegionKind) -> Vec<i64> {
    match kind {
        RegionKind::If => Vec::new(),
        RegionKind::Loop { carried } => vec![*carried as i64],
        RegionKind::Scan {
            states,
            inputs,
            outputs,
        } => {
            let mut ints = vec![*states as i64, inputs.len() as i64, outputs.len() as i64];
            for (axis, reverse) in inputs {
                ints.extend([*axis as i64, i64::from(*reverse)]);
            }
            for (axis, reverse) in outputs {
                ints.extend([*axis, i64::from(*reverse)]);
            }
            ints
        }
    }
}

fn library(
    l: &mut Lowering,
    g: &Graph,
    n: NodeId,
    name: &str,
    ints: Vec<i64>,
    floats: Vec<f64>,
    strings: Vec<bytes::Bytes>,
) -> Result<()> {
    let node = &g.nodes[n];
    // An alias keeps its name: the kernel sees the value under its own shape.
    let inputs = node.inputs.iter().map(|v| v.map(Operand::Value)).collect();
    l.steps.push(Step::Library(LibraryStep {
        function: name.into(),
        ints,
        floats,
        strings,
        inputs,
        outputs: node.outputs.clone(),
        node: n,
        bodies: l.bodies_of.get(&n).cloned().unwrap_or_default(),
    }));
    Ok(())
}

/// The accumulators and the final step of a reduction: `value` is the element, `body` what it
/// needs, `vars` the loops. Gives the local with the result.
pub(crate) fn emit_reduce(
    b: &mut Builder,
    kind: ReduceKind,
    dtype: DType,
    value: ExprId,
    body: Vec<Stmt>,
    vars: &[Sym],
    dims: &[Dim],
) -> Result<Local> {
    let elem = scalar::elem(dtype);
    let bool_ = dtype == DType::Bool;
    // 64-bit unsigned numbers are compared with their top bit flipped.
    let flipped = dtype == DType::U64 && matches!(kind, ReduceKind::Max | ReduceKind::Min);
    let value = match dtype {
        DType::Bool => b.expr(Expr::Convert { a: value, to: elem }),
        _ if flipped => unsigned::ordered(b, value),
        _ => value,
    };
    let un = |b: &mut Builder, op, a| b.expr(Expr::Un { op, a });
    let bin = |b: &mut Builder, op, x, y| b.expr(Expr::Bin { op, a: x, b: y });
    let count = |b: &mut Builder| {
        let n = dims.iter().fold(Dim::Const(1), |p, d| p.mul(d));
        b.expr(Expr::Int { value: n, elem })
    };
    let result = b.kernel.local(Ty::Num(elem));
    let (op, each) = match kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::LogSum => (RedOp::Sum, value),
        ReduceKind::Max | ReduceKind::Or => (RedOp::Max, value),
        ReduceKind::Min | ReduceKind::And => (RedOp::Min, value),
        ReduceKind::Prod => (RedOp::Prod, value),
        ReduceKind::SumSquare | ReduceKind::L2 => (RedOp::Sum, bin(b, BinOp::Mul, value, value)),
        ReduceKind::L1 => (RedOp::Sum, un(b, UnOp::Abs, value)),
        ReduceKind::LogSumExp => {
            // Shifted by the maximum, so that nothing overflows; an infinite maximum shifts by 0.
            let most = nested_reduce(b, RedOp::Max, elem, value, body.clone(), vars, dims);
            let m = b.expr(Expr::Local(most));
            let zero = scalar::constant(b, Scalar::of(dtype, 0.0));
            let inf = scalar::constant(b, Scalar::of(dtype, f64::INFINITY));
            let abs = un(b, UnOp::Abs, m);
            let finite = b.expr(Expr::Cmp {
                op: CmpOp::Lt,
                a: abs,
                b: inf,
            });
            let shift = b.expr(Expr::Select {
                cond: finite,
                a: m,
                b: zero,
            });
            let moved = bin(b, BinOp::Sub, value, shift);
            let e = un(b, UnOp::Exp, moved);
            let sum = nested_reduce(b, RedOp::Sum, elem, e, body, vars, dims);
            let s = b.expr(Expr::Local(sum));
            let log = un(b, UnOp::Log, s);
            let value = bin(b, BinOp::Add, log, shift);
            b.push(Stmt::Let {
                local: result,
                value,
            });
            return Ok(result);
        }
    };
    let acc = nested_reduce(b, op, elem, each, body, vars, dims);
    let sum = b.expr(Expr::Local(acc));
    let value = match kind {
        ReduceKind::Mean => {
            let n = count(b);
            bin(b, BinOp::Div, sum, n)
        }
        ReduceKind::L2 => un(b, UnOp::Sqrt, sum),
        ReduceKind::LogSum => un(b, UnOp::Log, sum),
        _ if flipped => unsigned::ordered(b, sum),
        _ => sum,
    };
    if bool_ {
        let zero = b.expr(Expr::Const { elem, bits: 0 });
        let truth = b.expr(Expr::Cmp {
            op: CmpOp::Ne,
            a: value,
            b: zero,
        });
        let local = b.kernel.local(Ty::Bool);
        b.push(Stmt::Let {
            local,
            value: truth,
        });
        return Ok(local);
    }
    let value = match scalar::mem(dtype) {
        Some(to) if to.bytes() < elem.bytes() => b.expr(Expr::Narrow { a: value, to }),
        _ => value,
    };
    b.push(Stmt::Let {
        local: result,
        value,
    });
    Ok(result)
}

/// Loops over `vars`, innermost last, each accumulating what the inner one leaves.
fn nested_reduce(
    b: &mut Builder,
    op: RedOp,
    elem: Elem,
    value: ExprId,
    body: Vec<Stmt>,
    vars: &[Sym],
    dims: &[Dim],
) -> Local {
    let zero = Dim::Const(0);
    let mut value = value;
    let mut body = body;
    let mut local = b.kernel.local(Ty::Num(elem));
    if vars.is_empty() {
        body.push(Stmt::Let { local, value });
        body.into_iter().for_each(|s| b.push(s));
        return local;
    }
    for (i, (v, d)) in vars.iter().zip(dims).enumerate().rev() {
        let s = Stmt::Reduce {
            var: *v,
            from: zero.clone(),
            to: d.clone(),
            body,
            accs: vec![Acc { op, local, value }],
        };
        if i == 0 {
            b.push(s);
            break;
        }
        value = b.expr(Expr::Local(local));
        body = vec![s];
        local = b.kernel.local(Ty::Num(elem));
    }
    local
}

fn reduce(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    kind: ReduceKind,
    axes: &[usize],
) -> Result<()> {
    let x = g.nodes[n]
        .input(0)
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    let mut b = Builder::new(g, group, g.nodes[n].name());
    b.inline.clear();
    let shape = b.shape(x)?;
    let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
    let mut index = vec![Dim::Const(0); shape.len()];
    for a in &kept {
        index[*a] = b.open(&shape[*a]);
    }
    let dims: Vec<Dim> = axes.iter().map(|a| shape[*a].clone()).collect();
    let vars: Vec<Sym> = dims.iter().map(|d| b.variable(Some(d))).collect();
    for (a, v) in axes.iter().zip(&vars) {
        index[*a] = Dim::from(*v);
    }
    let value = b.value_at(x, &index)?;
    let dtype = b.dtype(x);
    let result = emit_reduce(&mut b, kind, dtype, value, Vec::new(), &vars, &dims)?;
    let (kept_dims, kept_index): (Vec<Dim>, Vec<Dim>) = kept
        .iter()
        .map(|a| (shape[*a].clone(), index[*a].clone()))
        .unzip();
    let at = b.linear(&kept_dims, &kept_index);
    let out = b.output(g.nodes[n].outputs[0])?;
    let value = b.expr(Expr::Local(result));
    b.store(out, at, value);
    finish_nest(l, b, group, Dim::product(g.dims(x)).mul(&Dim::Const(2)))
}

fn arg_reduce(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    max: bool,
    axis: usize,
    last: bool,
) -> Result<()> {
    let x = g.nodes[n]
        .input(0)
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    let mut b = Builder::new(g, group, g.nodes[n].name());
    b.inline.clear();
    let shape = b.shape(x)?;
    let mut index = vec![Dim::Const(0); shape.len()];
    for (a, d) in shape.iter().enumerate().filter(|(a, _)| *a != axis) {
        index[a] = b.open(d);
    }
    let elem = scalar::elem(b.dtype(x));
    let (best, place) = (
        b.kernel.local(Ty::Num(elem)),
        b.kernel.local(Ty::Num(Elem::I64)),
    );
    let first = b.value_at(x, &index)?;
    let unsigned = b.dtype(x) == DType::U64;
    let first = if unsigned {
        unsigned::ordered(&mut b, first)
    } else {
        first
    };
    b.push(Stmt::Let {
        local: best,
        value: first,
    });
    let zero = b.expr(Expr::Const {
        elem: Elem::I64,
        bits: 0,
    });
    b.push(Stmt::Let {
        local: place,
        value: zero,
    });
    let var = b.open_range(&Dim::Const(1), &shape[axis]);
    index[axis] = Dim::from(var);
    let value = b.value_at(x, &index)?;
    let value = if unsigned {
        unsigned::ordered(&mut b, value)
    } else {
        value
    };
    let (old, old_place) = (b.expr(Expr::Local(best)), b.expr(Expr::Local(place)));
    let op = match (max, last) {
        (true, false) => CmpOp::Gt,
        (true, true) => CmpOp::Ge,
        (false, false) => CmpOp::Lt,
        (false, true) => CmpOp::Le,
    };
    let better = b.expr(Expr::Cmp {
        op,
        a: value,
        b: old,
    });
    let here = b.expr(Expr::Int {
        value: Dim::from(var),
        elem: Elem::I64,
    });
    let kept_place = b.expr(Expr::Select {
        cond: better,
        a: here,
        b: old_place,
    });
    let kept = b.expr(Expr::Select {
        cond: better,
        a: value,
        b: old,
    });
    b.push(Stmt::Let {
        local: place,
        value: kept_place,
    });
    b.push(Stmt::Let {
        local: best,
        value: kept,
    });
    b.close();
    index[axis] = Dim::Const(0);
    let dims: Vec<Dim> = shape
        .iter()
        .enumerate()
        .map(|(a, d)| if a == axis { Dim::Const(1) } else { d.clone() })
        .collect();
    let at = b.linear(&dims, &index);
    let out = b.output(g.nodes[n].outputs[0])?;
    let value = b.expr(Expr::Local(place));
    b.store(out, at, value);
    finish_scalar(l, b, group, Dim::product(g.dims(x)).mul(&Dim::Const(4)))
}

/// Ends a nest whose loops carry locals: it is cut into tasks but never vectorised.
fn finish_scalar(l: &mut Lowering, mut b: Builder, group: &Group, cost: Dim) -> Result<()> {
    b.close_to(1);
    b.take_body();
    let inner = crate::nest::inner_work(&b.kernel.body);
    collapse::into_tasks(&mut b.kernel, inner);
    let (loops, step) = b.finish(group.nodes.clone(), cost, Dim::Const(0))?;
    l.scheduled(loops, Schedule::default(), step);
    Ok(())
}

fn cumsum(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    axis: usize,
    exclusive: bool,
    reverse: bool,
) -> Result<()> {
    let x = g.nodes[n]
        .input(0)
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    let mut b = Builder::new(g, group, g.nodes[n].name());
    b.inline.clear();
    let shape = b.shape(x)?;
    let mut index = vec![Dim::Const(0); shape.len()];
    for (a, d) in shape.iter().enumerate().filter(|(a, _)| *a != axis) {
        index[a] = b.open(d);
    }
    let dtype = b.dtype(x);
    let sum = b.kernel.local(Ty::Num(scalar::elem(dtype)));
    let zero = scalar::constant(&mut b, Scalar::of(dtype, 0.0));
    b.push(Stmt::Let {
        local: sum,
        value: zero,
    });
    let out = b.output(g.nodes[n].outputs[0])?;
    let var = Dim::from(b.open_range(&Dim::Const(0), &shape[axis]));
    index[axis] = if reverse {
        shape[axis].sub(&Dim::Const(1)).sub(&var)
    } else {
        var
    };
    let value = b.value_at(x, &index)?;
    let old = b.expr(Expr::Local(sum));
    let at = b.linear(&shape, &index);
    let mut next = b.expr(Expr::Bin {
        op: BinOp::Add,
        a: old,
        b: value,
    });
    if let Some(to) = scalar::mem(dtype).filter(|m| m.bytes() < m.elem().bytes()) {
        next = b.expr(Expr::Narrow { a: next, to });
    }
    if exclusive {
        b.store(out, at, old);
        b.push(Stmt::Let {
            local: sum,
            value: next,
        });
    } else {
        b.push(Stmt::Let {
            local: sum,
            value: next,
        });
        let now = b.expr(Expr::Local(sum));
        b.store(out, at, now);
    }
    b.close();
    finish_scalar(l, b, group, Dim::product(g.dims(x)).mul(&Dim::Const(2)))
}

/// For each index before the axis, every input's run of contiguous elements. What lies in the result's memory
/// already, where that is the store of a state, is left alone.
pub(crate) fn concat(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    axis: usize,
) -> Result<()> {
    let node = &g.nodes[n];
    let y = node.outputs[0];
    let mut b = Builder::new(g, group, node.name());
    b.inline.remove(&n);
    let whole = b.shape(y)?;
    let outer = whole[..axis].iter().fold(Dim::Const(1), |p, d| p.mul(d));
    let tail = whole[axis + 1..]
        .iter()
        .fold(Dim::Const(1), |p, d| p.mul(d));
    let stride = whole[axis].mul(&tail);
    let out = b.output(y)?;
    let o = b.open(&outer);
    let store = g.store_of(y);
    let mut cost = Dim::Const(0);
    let (mut before, mut rows) = (Dim::Const(0), Dim::Const(0));
    for x in node.inputs.iter().flatten() {
        let dims = b.shape(*x)?;
        let length = dims[axis].mul(&tail);
        let first = rows.clone();
        rows = rows.add(&g.dims(*x)[axis]);
        if let (Some(store), Some(n)) = (store, g.producer(*x))
            && g.lies_in_store(n, store, axis, &first)
        {
            before = before.add(&length);
            continue;
        }
        cost = cost.add(&Dim::product(g.dims(*x)));
        let depth = b.depth();
        let e = b.open(&length);
        b.parts(g.ty(y).dtype);
        let index = b.reshape_index(
            &dims,
            &[outer.clone(), length.clone()],
            &[o.clone(), e.clone()],
        );
        let value = b.value_at(*x, &index)?;
        let at = o.mul(&stride).add(&before).add(&e);
        b.store(out, at, value);
        b.close_to(depth);
        before = before.add(&length);
    }
    // Raw elements move: no collapsing across inputs, tasks over the outer index.
    finish_nest(l, b, group, cost)
}

pub(crate) fn pad(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    before: &[Dim],
    mode: PadMode,
) -> Result<()> {
    let node = &g.nodes[n];
    let (x, y) = (
        node.input(0).ok_or_else(|| LowerError::missing(g, n, 0))?,
        node.outputs[0],
    );
    let mut b = Builder::new(g, group, node.name());
    b.inline.remove(&n);
    let (dims, whole) = (b.shape(x)?, b.shape(y)?);
    let out = b.output(y)?;
    let cost = Dim::product(g.dims(y)).mul(&Dim::Const(2));
    let start: Vec<Dim> = before.iter().map(|d| b.dim(d)).collect();
    if mode != PadMode::Constant {
        let index = b.open_all(&whole);
        b.parts(g.ty(y).dtype);
        let one = Dim::Const(1);
        let at: Vec<Dim> = index
            .iter()
            .zip(start.iter().zip(&dims))
            .map(|(i, (p, d))| {
                if p.is_const(0) && whole.is_empty() {
                    return i.clone();
                }
                let i = i.sub(p);
                let last = d.sub(&one);
                match mode {
                    PadMode::Wrap => i.modulo(d),
                    PadMode::Edge => i.minimum(&last).maximum(&Dim::Const(0)),
                    _ => {
                        // Reflected any number of times: a walk of period 2 * (d - 1).
                        let period = last.mul(&Dim::Const(2)).maximum(&one);
                        let m = i.modulo(&period);
                        m.minimum(&period.sub(&m)).minimum(&last)
                    }
                }
            })
            .collect();
        let value = b.value_at(x, &at)?;
        let place = b.linear(&whole, &index);
        b.store(out, place, value);
        return finish_scalar(l, b, group, cost);
    }
    let dtype = b.dtype(x);
    let index = b.open_all(&whole);
    b.parts(dtype);
    let fill = match node.input(1) {
        Some(v) => {
            let rank = b.shape(v)?.len();
            b.value_at(v, &vec![Dim::Const(0); rank])?
        }
        None => scalar::constant(&mut b, Scalar::of(dtype, 0.0)),
    };
    let place = b.linear(&whole, &index);
    b.store(out, place, fill);
    b.close_to(1);
    // The part of the input that is not cropped, over what was filled.
    let mut from_index = Vec::new();
    let mut to_index = Vec::new();
    for ((d, p), w) in dims.iter().zip(&start).zip(&whole) {
        let low = p.neg().maximum(&Dim::Const(0));
        let high = d.minimum(&w.sub(p));
        let (low, high) = (b.simplify(&low), b.simplify(&high));
        let i = Dim::from(b.open_range(&low, &high));
        to_index.push(i.add(p));
        from_index.push(i);
    }
    b.parts(dtype);
    let value = b.value_at(x, &from_index)?;
    let place = b.linear(&whole, &to_index);
    b.store(out, place, value);
    finish_nest(l, b, group, cost)
}

fn gather_elements(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    axis: usize,
) -> Result<()> {
    let node = &g.nodes[n];
    let (x, i, y) = two_inputs(g, n)?;
    let mut b = Builder::new(g, group, node.name());
    b.inline.clear();
    let (dims, shape) = (b.shape(x)?, b.shape(y)?);
    let mut index = b.open_all(&shape);
    let picked = b.loaded_index(1, i, &index.clone(), Some(&dims[axis]))?;
    let at = b.linear(&shape, &index);
    index[axis] = Dim::from(picked);
    b.parts(g.ty(x).dtype);
    let value = b.value_at(x, &index)?;
    let out = b.output(y)?;
    b.store(out, at, value);
    finish_scalar(l, b, group, Dim::product(g.dims(y)).mul(&Dim::Const(4)))
}

fn two_inputs(g: &Graph, n: NodeId) -> Result<(ValueId, ValueId, ValueId)> {
    let node = &g.nodes[n];
    let input = |i: usize| node.input(i).ok_or_else(|| LowerError::missing(g, n, i));
    let y = node
        .outputs
        .first()
        .copied()
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    Ok((input(0)?, input(1)?, y))
}

fn gather_nd(l: &mut Lowering, g: &Graph, group: &Group, n: NodeId, batch: usize) -> Result<()> {
    let (x, i, y) = two_inputs(g, n)?;
    let mut b = Builder::new(g, group, g.nodes[n].name());
    b.inline.clear();
    let (dims, tuple, shape) = (b.shape(x)?, b.shape(i)?, b.shape(y)?);
    let Some(k) = tuple.last().and_then(Dim::as_const) else {
        return Err(LowerError::unsupported(
            g,
            n,
            "GatherND whose index tuples have a length known at run time only",
        ));
    };
    let index = b.open_all(&shape);
    let lead = tuple.len() - 1;
    let mut at: Vec<Dim> = index[..batch].to_vec();
    for j in 0..k as usize {
        let mut where_ = index[..lead].to_vec();
        where_.push(Dim::from(j));
        let limit = dims
            .get(batch + j)
            .cloned()
            .ok_or_else(|| LowerError::missing(g, n, 1))?;
        at.push(Dim::from(b.loaded_index(1, i, &where_, Some(&limit))?));
    }
    at.extend_from_slice(&index[lead..]);
    b.parts(g.ty(x).dtype);
    let value = b.value_at(x, &at)?;
    let place = b.linear(&shape, &index);
    let out = b.output(y)?;
    b.store(out, place, value);
    finish_scalar(l, b, group, Dim::product(g.dims(y)).mul(&Dim::Const(4)))
}
