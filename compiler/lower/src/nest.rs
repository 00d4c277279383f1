//! Pointwise groups: one nest over the output's shape, everything inlined.

use crate::builder::Builder;
use crate::collapse;
use crate::{LowerError, Lowering};
use lapidary_graph::{DType, Dim, Graph, Group, Op, ValueId};

/// A group of pointwise operators, views and gathers.
pub(crate) fn pointwise(l: &mut Lowering, g: &Graph, group: &Group) -> Result<(), LowerError> {
    // A lone reshape moves nothing.
    if let [n] = group.nodes[..]
        && Lowering::is_alias(&g.nodes[n].op)
        && let (Some(x), Some(y)) = (g.nodes[n].input(0), g.nodes[n].outputs.first())
    {
        l.alias(*y, x);
        return Ok(());
    }
    // Concat and Pad stand last in a group: they store in a way of their own.
    if let Some(n) = group.nodes.last() {
        match &g.nodes[*n].op {
            Op::Concat { axis } => return crate::single::concat(l, g, group, *n, *axis),
            Op::Pad { before, mode, .. } => {
                return crate::single::pad(l, g, group, *n, before, *mode);
            }
            _ => {}
        }
    }
    let mut done: Vec<ValueId> = Vec::new();
    for v in &group.outputs {
        if !done.contains(v) {
            done.extend(elementwise(l, g, group, *v)?);
        }
    }
    Ok(())
}

/// One kernel that stores a value element by element, and with it every output of the group that
/// has the same index; gives the values stored.
pub(crate) fn elementwise(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    v: ValueId,
) -> Result<Vec<ValueId>, LowerError> {
    // A reshape at the end of the group is only a name for the bytes: iterate before it.
    let mut target = v;
    while let Some(n) = g.producer(target)
        && group.nodes.contains(&n)
        && Lowering::is_alias(&g.nodes[n].op)
        && let Some(x) = g.nodes[n].input(0)
        && g.producer(x)
            .is_some_and(|p| group.nodes.contains(&p) && !matches!(g.nodes[p].op, Op::Shape(_)))
        && g.ty(x).shape.is_some()
    {
        target = x;
    }
    let name = group
        .anchor
        .or(group.nodes.last().copied())
        .map_or("pointwise", |n| g.nodes[n].name());
    let mut b = Builder::new(g, group, name);
    let shape = b.shape(target)?;
    let index = b.open_all(&shape);
    b.parts(g.ty(target).dtype);
    let at = b.linear(&shape, &index);
    let mut stored = vec![v];
    let halved = |o: ValueId| g.ty(o).dtype == DType::C128;
    for o in &group.outputs {
        if *o != v
            && g.dims(*o) == g.dims(target)
            && g.ty(*o).shape.is_some()
            && halved(*o) == halved(target)
        {
            stored.push(*o);
        }
    }
    for o in &stored {
        let value = b.value_at(if *o == v { target } else { *o }, &index)?;
        let out = b.output(*o)?;
        b.store(out, at.clone(), value);
    }
    let elements = Dim::product(g.dims(target));
    let weight = 1 + group.nodes.len() as i64;
    finish_nest(l, b, group, elements.mul(&Dim::Const(weight)))?;
    Ok(stored)
}

/// Collapses, cuts into tasks and adds a nest.
pub(crate) fn finish_nest(
    l: &mut Lowering,
    mut b: Builder,
    group: &Group,
    cost: Dim,
) -> Result<(), LowerError> {
    b.close_to(1);
    b.take_body();
    collapse::collapse(&mut b.kernel);
    let inner = inner_work(&b.kernel.body);
    collapse::into_tasks(&mut b.kernel, inner);
    let (loops, step) = b.finish(group.nodes.clone(), cost, Dim::Const(0))?;
    l.kernel(loops, step);
    Ok(())
}

/// Elements that one iteration of the outermost loop covers, unknown extents counted as 64.
pub(crate) fn inner_work(body: &[lapidary_codegen::loops::Stmt]) -> i64 {
    use lapidary_codegen::loops::Stmt;
    let extent = |from: &Dim, to: &Dim| to.sub(from).as_const().unwrap_or(64).max(1);
    fn nested(body: &[Stmt], extent: &dyn Fn(&Dim, &Dim) -> i64) -> i64 {
        let one = |s: &Stmt| match s {
            Stmt::For { from, to, body, .. } | Stmt::Reduce { from, to, body, .. } => {
                extent(from, to).saturating_mul(nested(body, extent))
            }
            Stmt::If { then, .. } => nested(then, extent),
            _ => 1,
        };
        body.iter().map(one).fold(0, i64::saturating_add).max(1)
    }
    match body {
        [Stmt::For { body, .. }] => nested(body, &extent),
        _ => 1,
    }
}
