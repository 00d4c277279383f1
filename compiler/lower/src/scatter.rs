//! Indexed writes: the data is copied, then the updates go in, in order, by one worker.

use crate::builder::Builder;
use crate::{LowerError, Lowering};
use lapidary_codegen::loops::*;
use lapidary_graph::infer::tuple_length;
use lapidary_graph::op::ScatterReduce;
use lapidary_graph::{DType, Dim, Graph, Group, NodeId, ValueId};

type Result<T> = std::result::Result<T, LowerError>;

fn operands(g: &Graph, n: NodeId) -> Result<(ValueId, ValueId, ValueId, ValueId)> {
    let node = &g.nodes[n];
    let input = |i: usize| node.input(i).ok_or_else(|| LowerError::missing(g, n, i));
    let y = node
        .outputs
        .first()
        .copied()
        .ok_or_else(|| LowerError::missing(g, n, 0))?;
    Ok((input(0)?, input(1)?, input(2)?, y))
}

/// Copies `x` to the output buffer.
fn copy(b: &mut Builder, x: ValueId, y: ValueId) -> Result<Buf> {
    let shape = b.shape(x)?;
    let count = shape.iter().fold(Dim::Const(1), |p, d| p.mul(d));
    let from = b.input(x)?;
    let out = b.output(y)?;
    let i = b.open(&count);
    b.parts(b.dtype(x));
    let value = b.load(from, i.clone());
    b.store(out, i, value);
    b.close_to(1);
    Ok(out)
}

/// Combines an update with what stands at `at`.
fn update(b: &mut Builder, out: Buf, at: Dim, value: ExprId, reduce: ScatterReduce, dtype: DType) {
    let op = match reduce {
        ScatterReduce::Set => {
            b.store(out, at, value);
            return;
        }
        ScatterReduce::Add => BinOp::Add,
        ScatterReduce::Mul => BinOp::Mul,
        ScatterReduce::Min => BinOp::Min,
        ScatterReduce::Max => BinOp::Max,
    };
    let old = b.load(out, at.clone());
    let old = crate::scalar::from_memory(b, old, dtype);
    let e = b.expr(Expr::Bin {
        op,
        a: old,
        b: value,
    });
    b.store(out, at, e);
}

fn finish(l: &mut Lowering, b: Builder, group: &Group, cost: Dim) -> Result<()> {
    let (loops, step) = b.finish(group.nodes.clone(), cost, Dim::Const(0))?;
    // The copy may use lanes; the updates may not, since they can meet.
    let mut schedule = schedule::automatic(&loops);
    if let [Stmt::For { var, .. }, ..] = &loops.body[..] {
        schedule.vector.retain(|v| v == var);
    } else {
        schedule.vector.clear();
    }
    l.scheduled(loops, schedule, step);
    Ok(())
}

pub(crate) fn elements(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    axis: usize,
    reduce: ScatterReduce,
) -> Result<()> {
    let (x, i, u, y) = operands(g, n)?;
    let mut b = Builder::new(g, group, g.nodes[n].name());
    b.inline.clear();
    let out = copy(&mut b, x, y)?;
    let (dims, shape) = (b.shape(x)?, b.shape(u)?);
    let mut index = b.open_all(&shape);
    let picked = b.loaded_index(1, i, &index.clone(), Some(&dims[axis]))?;
    b.parts(g.ty(x).dtype);
    let value = b.value_at(u, &index)?;
    index[axis] = Dim::from(picked);
    let at = b.linear(&dims, &index);
    update(&mut b, out, at, value, reduce, g.ty(x).dtype);
    let cost = Dim::product(g.dims(x)).add(&Dim::product(g.dims(u)));
    finish(l, b, group, cost)
}

pub(crate) fn nd(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    reduce: ScatterReduce,
) -> Result<()> {
    let (x, i, u, y) = operands(g, n)?;
    let mut b = Builder::new(g, group, g.nodes[n].name());
    b.inline.clear();
    let out = copy(&mut b, x, y)?;
    let (dims, tuple, shape) = (b.shape(x)?, b.shape(i)?, b.shape(u)?);
    let k = tuple_length(dims.len(), tuple.len(), shape.len())
        .ok_or_else(|| LowerError::missing(g, n, 1))?;
    let index = b.open_all(&shape);
    let lead = tuple.len() - 1;
    let mut at = Vec::new();
    for j in 0..k {
        let mut where_ = index[..lead].to_vec();
        where_.push(Dim::from(j));
        let limit = dims
            .get(j)
            .cloned()
            .ok_or_else(|| LowerError::missing(g, n, 1))?;
        at.push(Dim::from(b.loaded_index(1, i, &where_, Some(&limit))?));
    }
    at.extend_from_slice(&index[lead..]);
    b.parts(g.ty(x).dtype);
    let value = b.value_at(u, &index)?;
    let place = b.linear(&dims, &at);
    update(&mut b, out, place, value, reduce, g.ty(x).dtype);
    let cost = Dim::product(g.dims(x)).add(&Dim::product(g.dims(u)));
    finish(l, b, group, cost)
}
