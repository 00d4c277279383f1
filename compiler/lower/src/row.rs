//! Row groups: reductions over trailing axes with what surrounds them, one row in cache at a time.
//!
//! For each row the group's nodes are met in order. A reduction becomes a loop over the row whose
//! value inlines the pointwise nodes before it, and leaves a scalar. A row value that is costly and
//! read again in a later loop is kept in scratch memory by the first loop that makes it. At the end
//! each output is stored.

use std::collections::HashSet;

use crate::builder::Builder;
use crate::nest::finish_nest;
use crate::{LowerError, Lowering, single};
use lapidary_codegen::loops::*;
use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Dim, Graph, Group, NodeId, Op, PwOp, ValueId};

type Result<T> = std::result::Result<T, LowerError>;

/// Longest row, in elements, that is kept in scratch memory when its length is constant.
const ROW_LIMIT: i64 = 1 << 16;

pub(crate) fn row(l: &mut Lowering, g: &Graph, group: &Group) -> Result<()> {
    // The axes that are reduced, from the first reduction; all others reduce the same ones.
    let reduces: Vec<NodeId> = group
        .nodes
        .iter()
        .copied()
        .filter(|n| matches!(g.nodes[*n].op, Op::Reduce { .. }))
        .collect();
    let Some(first) = reduces.first().copied() else {
        return crate::nest::pointwise(l, g, group);
    };
    let x = g.nodes[first]
        .input(0)
        .ok_or_else(|| LowerError::missing(g, first, 0))?;
    let Op::Reduce { axes, .. } = &g.nodes[first].op else {
        return Err(LowerError::missing(g, first, 0));
    };
    let name = group.anchor.map_or("row", |n| g.nodes[n].name());
    let mut b = Builder::new(g, group, name);
    let full = b.shape(x)?;
    let rank = full.len();
    let outer = rank - axes.len();
    if axes.iter().enumerate().any(|(i, a)| *a != outer + i) {
        return Err(LowerError::unsupported(
            g,
            first,
            "a row reduction over axes that are not the last",
        ));
    }
    let row_dims = full[outer..].to_vec();
    let mut index = b.open_all(&full[..outer]);
    index.extend(std::iter::repeat_n(Dim::Const(0), rank - outer));

    let is_row = |b: &mut Builder, v: ValueId| -> Result<bool> {
        let s = b.shape(v)?;
        Ok(s.len() == rank && s[outer..] == row_dims)
    };
    for n in &group.nodes {
        let node = &g.nodes[*n];
        let Op::Reduce { kind, axes, .. } = &node.op else {
            continue;
        };
        let x = node.input(0).ok_or_else(|| LowerError::missing(g, *n, 0))?;
        if axes.len() != rank - outer || !is_row(&mut b, x)? {
            return Err(LowerError::unsupported(
                g,
                *n,
                "reductions over different axes in one row",
            ));
        }
        let keep = kept_rows(&mut b, g, group, *n, x, &row_dims, rank)?;
        let result = reduce_row(&mut b, *kind, x, &index, &row_dims, &keep)?;
        for v in &node.outputs {
            b.in_local.insert(*v, result);
        }
    }
    let mut outputs = group.outputs.clone();
    // Statistics are cheap and need no loop: store them first.
    outputs.sort_by_key(|v| b.shape(*v).map_or(0, |s| s.len()));
    let start = b.depth();
    for v in outputs {
        let shape = b.shape(v)?;
        let out = b.output(v)?;
        if is_row(&mut b, v)? {
            let mut at = index[..outer].to_vec();
            at.extend(b.open_all(&row_dims));
            let value = b.value_at(v, &at)?;
            let place = b.linear(&shape, &at);
            b.store(out, place, value);
            b.close_to(start);
        } else {
            // Kept axes are 1, or the axes are gone.
            let at: Vec<Dim> = index.iter().take(shape.len()).cloned().collect();
            let value = b.value_at(v, &at)?;
            let place = b.linear(&shape, &at);
            b.store(out, place, value);
        }
    }
    let elements = Dim::product(g.dims(x));
    finish_nest(
        l,
        b,
        group,
        elements.mul(&Dim::Const(2 * group.nodes.len() as i64)),
    )
}

/// Row values, made in the loop of `reduce`, that are worth keeping for later loops.
fn kept_rows(
    b: &mut Builder,
    g: &Graph,
    group: &Group,
    reduce: NodeId,
    x: ValueId,
    row: &[Dim],
    rank: usize,
) -> Result<Vec<(ValueId, Buf)>> {
    let mut kept = Vec::new();
    let (mut met, mut stack) = (HashSet::new(), vec![x]);
    while let Some(v) = stack.pop() {
        if !met.insert(v) {
            continue;
        }
        let Some(n) = g.producer(v).filter(|n| group.nodes.contains(n)) else {
            continue;
        };
        if b.in_row.contains_key(&v) || b.in_local.contains_key(&v) {
            continue;
        }
        let Op::Pointwise { body, .. } = &g.nodes[n].op else {
            continue;
        };
        let reads = |u: &NodeId| *u != reduce && g.nodes[*u].inputs.contains(&Some(v));
        let again = group.nodes.iter().any(reads) || group.outputs.contains(&v);
        let costly = body.nodes.iter().any(|n| {
            matches!(
                n.op,
                PwOp::Exp
                    | PwOp::Log
                    | PwOp::Tanh
                    | PwOp::Erf
                    | PwOp::Sigmoid
                    | PwOp::Pow
                    | PwOp::Sin
                    | PwOp::Cos
                    | PwOp::Div
                    | PwOp::Sqrt
            )
        });
        let shape = b.shape(v)?;
        let elements = Dim::product(row);
        let small = elements.as_const().is_none_or(|n| n <= ROW_LIMIT);
        if again && costly && small && shape.len() == rank && b.dtype(v) == DType::F32 {
            let buf = b.scratch("row", Mem::F32, &elements);
            kept.push((v, buf));
            continue;
        }
        stack.extend(g.nodes[n].inputs.iter().flatten());
    }
    Ok(kept)
}

/// Emits the loop of one reduction; gives the local that holds its value.
fn reduce_row(
    b: &mut Builder,
    kind: ReduceKind,
    x: ValueId,
    index: &[Dim],
    row: &[Dim],
    keep: &[(ValueId, Buf)],
) -> Result<Local> {
    let outer = index.len() - row.len();
    let vars: Vec<Sym> = row.iter().map(|d| b.variable(Some(d))).collect();
    let mut at = index[..outer].to_vec();
    at.extend(vars.iter().map(|v| Dim::from(*v)));
    b.begin_block();
    for (v, buf) in keep {
        let value = b.value_at(*v, &at)?;
        let place = b.linear(row, &at[outer..]);
        b.store(*buf, place, value);
        let local = b.kernel.local(Ty::Num(Elem::F32));
        b.push(Stmt::Let { local, value });
        b.in_local.insert(*v, local);
    }
    let value = b.value_at(x, &at)?;
    let body = b.end_block();
    for (v, buf) in keep {
        b.in_local.remove(v);
        b.in_row.insert(*v, (*buf, vars.clone()));
    }
    let dtype = b.dtype(x);
    single::emit_reduce(b, kind, dtype, value, body, &vars, row)
}
