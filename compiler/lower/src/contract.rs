//! Contractions: matrix products with their epilogue.
//!
//! Labels sort into batch (in both operands and the result), rows (left only), columns (right only)
//! and depth (summed). A constant right operand is packed in panels; others are read in place where
//! their columns are contiguous, copied to panels in scratch memory where they are not.
//! What is not f32, or sums labels of one operand alone, runs as a plain nest of reductions.

use crate::builder::Builder;
use crate::nest::finish_nest;
use crate::pack::{Form, PANEL};
use crate::program::Operand;
use crate::{LowerError, Lowering, single};
use lapidary_codegen::expand::factor;
use lapidary_codegen::loops::*;
use lapidary_graph::op::ReduceKind;
use lapidary_graph::{DType, Dim, Graph, Group, NodeId, Op, ValueId};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, LowerError>;

/// Rows of a block that one task computes when rows are what is divided.
const ROW_BLOCK: i64 = 168;
/// Operations in the time that reading an element of the right operand takes: at 128 a nanosecond, 32
/// bytes a nanosecond, what a core reads from a cache that others share.
const READ_COST: i64 = 16;
/// Blocks of rows that keep any number of threads busy.
const MANY_BLOCKS: i64 = 16;
/// Rows up to which a left operand is not packed (there is too little reuse).
const DIRECT_ROWS: i64 = 4;

struct Labels {
    batch: Vec<u8>,
    rows: Vec<u8>,
    columns: Vec<u8>,
    depth: Vec<u8>,
}

fn sort_labels(a: &[u8], b: &[u8], out: &[u8]) -> Option<Labels> {
    let mut l = Labels {
        batch: Vec::new(),
        rows: Vec::new(),
        columns: Vec::new(),
        depth: Vec::new(),
    };
    for x in out {
        match (a.contains(x), b.contains(x)) {
            (true, true) => l.batch.push(*x),
            (true, false) => l.rows.push(*x),
            (false, true) => l.columns.push(*x),
            (false, false) => return None,
        }
    }
    for x in a.iter().filter(|x| !out.contains(x)) {
        if !b.contains(x) {
            return None;
        }
        l.depth.push(*x);
    }
    if b.iter().any(|x| !out.contains(x) && !a.contains(x)) {
        return None;
    }
    Some(l)
}

pub(crate) fn contract(l: &mut Lowering, g: &Graph, group: &Group) -> Result<()> {
    let n = group
        .anchor
        .or(group.nodes.first().copied())
        .ok_or(LowerError::Arity)?;
    let Op::Contract { a, b, out } = &g.nodes[n].op else {
        return Err(LowerError::missing(g, n, 0));
    };
    let input = |i: usize| {
        g.nodes[n]
            .input(i)
            .ok_or_else(|| LowerError::missing(g, n, i))
    };
    let (x, w, y) = (input(0)?, input(1)?, g.nodes[n].outputs[0]);
    let labels = sort_labels(a, b, out).filter(|l| {
        // Batch first, then rows, then columns, at least one column and depth axis.
        let order: Vec<u8> = l
            .batch
            .iter()
            .chain(&l.rows)
            .chain(&l.columns)
            .copied()
            .collect();
        order == *out && !l.columns.is_empty() && !l.depth.is_empty() && g.ty(x).dtype == DType::F32
    });
    match labels {
        Some(labels) => tiled(l, g, group, n, labels, (x, a), (w, b), (y, out)),
        None => naive(l, g, group, n, (x, a), (w, b), (y, out)),
    }
}

/// Extent of each label: where one operand has 1, the other's.
fn extents(b: &mut Builder, x: (ValueId, &[u8]), w: (ValueId, &[u8])) -> Result<BTreeMap<u8, Dim>> {
    let mut map: BTreeMap<u8, Dim> = Default::default();
    for (v, labels) in [x, w] {
        let Some(shape) = b.graph.ty(v).shape.as_ref() else {
            return Err(LowerError::unranked(b.graph, v));
        };
        for (label, d) in labels.iter().zip(shape) {
            let e = map.entry(*label).or_insert_with(|| d.clone());
            // Sizes that can never agree have been refused; which of two is 1 may be known late.
            *e = e.broadcast(d).unwrap_or_else(|| d.clone());
        }
    }
    for e in map.values_mut() {
        *e = b.dim(e);
    }
    Ok(map)
}

/// The index of an operand from the values of its labels; an axis of extent 1 has index 0.
fn operand_index(
    b: &mut Builder,
    v: ValueId,
    labels: &[u8],
    at: &BTreeMap<u8, Dim>,
    full: &BTreeMap<u8, Dim>,
) -> Result<Vec<Dim>> {
    let dims = b.shape(v)?;
    Ok(labels
        .iter()
        .zip(dims)
        .map(|(l, d)| {
            let i = at.get(l).cloned().unwrap_or_default();
            if d.is_const(1) {
                Dim::Const(0)
            } else if full.get(l) == Some(&d) {
                i
            } else {
                i.minimum(&d.sub(&Dim::Const(1)))
            }
        })
        .collect())
}

/// Every element of the result as a reduction of its own.
fn naive(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    x: (ValueId, &[u8]),
    w: (ValueId, &[u8]),
    y: (ValueId, &[u8]),
) -> Result<()> {
    let mut b = Builder::new(g, group, g.nodes[n].name());
    let full = extents(&mut b, x, w)?;
    let shape: Vec<Dim> =
        y.1.iter()
            .map(|l| full.get(l).cloned().unwrap_or(Dim::Const(1)))
            .collect();
    let index = b.open_all(&shape);
    let mut at: BTreeMap<u8, Dim> = y.1.iter().copied().zip(index.iter().cloned()).collect();
    let mut depth: Vec<u8> = Vec::new();
    for s in x.1.iter().chain(w.1) {
        if !y.1.contains(s) && !depth.contains(s) {
            depth.push(*s);
        }
    }
    let dims: Vec<Dim> = depth.iter().map(|s| full[s].clone()).collect();
    let vars: Vec<Sym> = dims.iter().map(|d| b.variable(Some(d))).collect();
    for (s, v) in depth.iter().zip(&vars) {
        at.insert(*s, Dim::from(*v));
    }
    let xi = operand_index(&mut b, x.0, x.1, &at, &full)?;
    let wi = operand_index(&mut b, w.0, w.1, &at, &full)?;
    let (p, q) = (b.value_at(x.0, &xi)?, b.value_at(w.0, &wi)?);
    let product = b.expr(Expr::Bin {
        op: BinOp::Mul,
        a: p,
        b: q,
    });
    let dtype = g.ty(x.0).dtype;
    let sum = single::emit_reduce(
        &mut b,
        ReduceKind::Sum,
        dtype,
        product,
        Vec::new(),
        &vars,
        &dims,
    )?;
    b.in_local.insert(y.0, sum);
    store_outputs(&mut b, group, &shape, &index)?;
    let work = dims.iter().fold(Dim::product(g.dims(y.0)), |p, d| {
        p.mul(&crate::builder::to_graph(d, &b.kernel, &b.dims))
    });
    finish_nest(l, b, group, work.mul(&Dim::Const(2)))
}

/// Stores every output of the group for the anchor's element at `index` of `shape`.
pub(crate) fn store_outputs(
    b: &mut Builder,
    group: &Group,
    shape: &[Dim],
    index: &[Dim],
) -> Result<()> {
    for v in &group.outputs {
        let dims = b.shape(*v)?;
        // The tail keeps the shape or reshapes it: the same elements in the same order.
        let at = if dims == shape {
            index.to_vec()
        } else {
            b.reshape_index(&dims, shape, index)
        };
        let value = b.value_at(*v, &at)?;
        let out = b.output(*v)?;
        let place = b.linear(shape, index);
        b.store(out, place, value);
    }
    Ok(())
}

/// Splits a flat index over dims.
fn unflatten(b: &Builder, flat: &Dim, dims: &[Dim]) -> Vec<Dim> {
    let whole = dims.iter().fold(Dim::Const(1), |p, d| p.mul(d));
    b.reshape_index(dims, &[whole], std::slice::from_ref(flat))
}

#[allow(clippy::too_many_arguments)]
fn tiled(
    l: &mut Lowering,
    g: &Graph,
    group: &Group,
    n: NodeId,
    labels: Labels,
    x: (ValueId, &[u8]),
    w: (ValueId, &[u8]),
    y: (ValueId, &[u8]),
) -> Result<()> {
    let mut b = Builder::new(g, group, g.nodes[n].name());
    let full = extents(&mut b, x, w)?;
    let dims = |ls: &[u8]| -> Vec<Dim> {
        ls.iter()
            .map(|s| full.get(s).cloned().unwrap_or(Dim::Const(1)))
            .collect()
    };
    let (batch_d, row_d, col_d, depth_d) = (
        dims(&labels.batch),
        dims(&labels.rows),
        dims(&labels.columns),
        dims(&labels.depth),
    );
    let product = |ds: &[Dim]| ds.iter().fold(Dim::Const(1), |p, d| p.mul(d));
    let (m, cols, depth) = (product(&row_d), product(&col_d), product(&depth_d));
    let shape: Vec<Dim> = batch_d
        .iter()
        .chain(&row_d)
        .chain(&col_d)
        .cloned()
        .collect();

    // A constant right operand without batch axes is packed.
    let constant = match g.constant(w.0) {
        Some(t)
            if labels.batch.is_empty()
                && t.dims.iter().zip(w.1).all(|(d, s)| full[s].is_const(*d)) =>
        {
            let strides = row_major(&t.dims);
            let axes = |ls: &[u8]| -> Option<Vec<(i64, i64)>> {
                ls.iter()
                    .map(|s| {
                        w.1.iter()
                            .position(|x| x == s)
                            .map(|p| (t.dims[p], strides[p]))
                    })
                    .collect()
            };
            match (axes(&labels.depth), axes(&labels.columns)) {
                (Some(k), Some(n)) if t.dims.iter().all(|d| *d > 0) => Some(Form::Panels { k, n }),
                _ => None,
            }
        }
        _ => None,
    };

    let (row, col, k) = (
        b.variable(Some(&m)),
        b.variable(Some(&cols)),
        b.variable(Some(&depth)),
    );
    let mut at: BTreeMap<u8, Dim> = Default::default();
    let flat = |b: &Builder, ls: &[u8], ds: &[Dim], v: Sym, at: &mut BTreeMap<u8, Dim>| {
        for (s, i) in ls.iter().zip(unflatten(b, &Dim::from(v), ds)) {
            at.insert(*s, i);
        }
    };
    flat(&b, &labels.rows, &row_d, row, &mut at);
    flat(&b, &labels.columns, &col_d, col, &mut at);
    flat(&b, &labels.depth, &depth_d, k, &mut at);

    // Tasks: batches, blocks of rows, and runs of panels.
    let batch = product(&batch_d);
    let panels = cols.ceil_div(&Dim::Const(PANEL));
    let many_rows =
        m.as_const().is_none_or(|m| m > 2 * ROW_BLOCK) && cols.as_const().is_some_and(|c| c <= 512);
    let row_blocks = if many_rows {
        m.ceil_div(&Dim::Const(ROW_BLOCK))
    } else {
        Dim::Const(1)
    };
    // Blocks of rows that may be few are divided by columns as well, or threads would have nothing to do.
    let few_blocks = m.as_const().is_none_or(|m| m < MANY_BLOCKS * ROW_BLOCK);
    let run = match (cols.as_const(), many_rows) {
        (Some(c), true) if few_blocks => Dim::Const((c / (4 * PANEL)).max(1)),
        (Some(_), true) => panels.maximum(&Dim::Const(1)),
        (Some(c), false) if c > 4 * PANEL => Dim::Const((c / (32 * PANEL)).clamp(1, 4)),
        (Some(_), false) => panels.maximum(&Dim::Const(1)),
        (None, _) => Dim::Const(4),
    };
    let col_blocks = panels.ceil_div(&run);
    let tasks = batch.mul(&row_blocks).mul(&col_blocks);
    let params_tasks = to_param(&mut b, &tasks);
    b.kernel.tasks = params_tasks;
    let task = Dim::from(b.kernel.sym(SymKind::Task));
    let (rb, cb) = (to_param(&mut b, &row_blocks), to_param(&mut b, &col_blocks));
    // Columns first: tasks that follow each other share a packed block of rows.
    let (cblock, rest) = (task.modulo(&cb), task.floor_div(&cb));
    let (block, bat) = (rest.modulo(&rb), rest.floor_div(&rb));
    let bat = if batch.is_const(1) {
        Dim::Const(0)
    } else {
        bat
    };
    let cblock = if col_blocks.is_const(1) {
        Dim::Const(0)
    } else {
        cblock
    };
    let block = if row_blocks.is_const(1) {
        Dim::Const(0)
    } else {
        block
    };
    for (s, i) in labels.batch.iter().zip(unflatten(&b, &bat, &batch_d)) {
        at.insert(*s, i);
    }
    let (r0, r1) = match row_blocks.is_const(1) {
        true => (Dim::Const(0), m.clone()),
        false => {
            let r0 = block.mul(&Dim::Const(ROW_BLOCK));
            (r0.clone(), r0.add(&Dim::Const(ROW_BLOCK)).minimum(&m))
        }
    };
    let (c0, c1) = match col_blocks.is_const(1) {
        true => (Dim::Const(0), cols.clone()),
        false => {
            let step = run.mul(&Dim::Const(PANEL));
            let c0 = cblock.mul(&step);
            let end = c0.add(&step);
            let whole = cols.modulo(&step).is_const(0);
            (c0, if whole { end } else { end.minimum(&cols) })
        }
    };

    // The left operand: in place when it is linear in row and depth, else one packed block.
    let xi = operand_index(&mut b, x.0, x.1, &at, &full)?;
    let in_place = b.element_if_view(x.0, &xi)?;
    let linear = in_place.as_ref().is_some_and(|(_, at)| {
        factor(at, row).is_some()
            && factor(at, k).is_some_and(|f| f.as_const().is_some_and(|f| f > 0))
    });
    let aliasing = in_place
        .as_ref()
        .and_then(|(_, at)| factor(at, row)?.as_const())
        .is_some_and(|s| s % 512 == 0)
        && m.as_const().is_none_or(|m| m > DIRECT_ROWS);
    let (a_buf, a_at) = match in_place {
        Some((buf, at)) if linear && !aliasing => (buf, at),
        _ => {
            // Copied once a call of the kernel (a worker's run of tasks) or once a block.
            let (from, to) = (r0.clone(), r1.clone());
            let block_rows = if row_blocks.is_const(1) {
                m.clone()
            } else {
                Dim::Const(ROW_BLOCK)
            };
            let stride = depth
                .ceil_div(&Dim::Const(16))
                .mul(&Dim::Const(16))
                .add(&Dim::Const(16));
            let stride = to_param(&mut b, &stride);
            let elements = to_param(&mut b, &block_rows.mul(&stride));
            let buf = b.scratch("left", Mem::F32, &elements);
            let begin = Dim::from(b.kernel.sym(SymKind::TaskBegin));
            b.begin_block();
            let i = b.open_range(&from, &to);
            let j = b.open_range(&Dim::Const(0), &depth);
            let source: Vec<Dim> = xi
                .iter()
                .map(|d| {
                    d.substitute(&|s| {
                        if s == row {
                            Some(Dim::from(i))
                        } else if s == k {
                            Some(Dim::from(j))
                        } else {
                            None
                        }
                    })
                })
                .collect();
            let value = b.value_at(x.0, &source)?;
            let place = Dim::from(i).sub(&from).mul(&stride).add(&Dim::from(j));
            b.store(buf, place, value);
            b.close();
            b.close();
            let copy = b.end_block();
            if col_blocks.is_const(1) {
                copy.into_iter().for_each(|s| b.push(s));
            } else {
                // Of tasks that share a block, the first that a worker meets packs.
                b.push(Stmt::If {
                    all: vec![cblock.minimum(&task.sub(&begin)).neg()],
                    then: copy,
                    otherwise: Vec::new(),
                });
            }
            (
                buf,
                Dim::from(row).sub(&from).mul(&stride).add(&Dim::from(k)),
            )
        }
    };

    // The right operand.
    let right = match constant {
        Some(form) => {
            let id = l.prepare(g, w.0, form)?;
            let buf = b.input_operand(Operand::Const(id), DType::F32)?;
            let k_total = depth.clone();
            BOperand {
                buf,
                base: Dim::Const(0),
                k_stride: Dim::Const(PANEL),
                panel: Some((PANEL, k_total.mul(&Dim::Const(PANEL)))),
            }
        }
        None => {
            let wi = operand_index(&mut b, w.0, w.1, &at, &full)?;
            let view = b.element_if_view(w.0, &wi)?;
            let direct = view.as_ref().and_then(|(buf, at)| {
                let (fc, fk) = (factor(at, col)?, factor(at, k)?);
                fc.is_const(1).then(|| {
                    let base = at.substitute(&|s| {
                        if s == col || s == k {
                            Some(Dim::Const(0))
                        } else {
                            None
                        }
                    });
                    BOperand {
                        buf: *buf,
                        base,
                        k_stride: fk,
                        panel: None,
                    }
                })
            });
            match direct {
                Some(d) => d,
                None => {
                    // Copied to panels by each task: its own columns only.
                    let panel_stride = to_param(&mut b, &depth.mul(&Dim::Const(PANEL)));
                    let width = if col_blocks.is_const(1) {
                        panels.clone()
                    } else {
                        run.clone()
                    };
                    let elements = to_param(&mut b, &width.mul(&depth).mul(&Dim::Const(PANEL)));
                    let buf = b.scratch("right", Mem::F32, &elements);
                    b.begin_block();
                    let j = b.open_range(&c0, &c1);
                    let kk = b.open_range(&Dim::Const(0), &depth);
                    let source: Vec<Dim> = wi
                        .iter()
                        .map(|d| {
                            d.substitute(&|s| {
                                if s == col {
                                    Some(Dim::from(j))
                                } else if s == k {
                                    Some(Dim::from(kk))
                                } else {
                                    None
                                }
                            })
                        })
                        .collect();
                    let value = b.value_at(w.0, &source)?;
                    let local = Dim::from(j).sub(&c0);
                    let p = Dim::Const(PANEL);
                    let place = local
                        .floor_div(&p)
                        .mul(&panel_stride)
                        .add(&Dim::from(kk).mul(&p))
                        .add(&local.modulo(&p));
                    b.store(buf, place, value);
                    b.close();
                    b.close();
                    b.end_block().into_iter().for_each(|s| b.push(s));
                    let shift = c0.floor_div(&p).mul(&panel_stride);
                    BOperand {
                        buf,
                        base: shift.neg(),
                        k_stride: Dim::Const(PANEL),
                        panel: Some((PANEL, panel_stride)),
                    }
                }
            }
        }
    };

    let acc = b.kernel.local(Ty::Num(Elem::F32));
    b.in_local.insert(y.0, acc);
    b.begin_block();
    let index: Vec<Dim> =
        y.1.iter()
            .map(|s| at.get(s).cloned().unwrap_or_default())
            .collect();
    store_outputs(&mut b, group, &shape, &index)?;
    let epilogue = b.end_block();
    b.push(Stmt::Contract(Box::new(Contract {
        row,
        rows: (r0, r1),
        col,
        cols: (c0, c1),
        k,
        depth: depth.clone(),
        a: a_buf,
        a_at,
        b: right,
        acc,
        epilogue,
    })));
    let flops = crate::builder::to_graph(&batch.mul(&m).mul(&cols).mul(&depth), &b.kernel, &b.dims)
        .mul(&Dim::Const(2));
    let read = crate::builder::to_graph(&batch.mul(&cols).mul(&depth), &b.kernel, &b.dims);
    let cost = flops.add(&read.mul(&Dim::Const(READ_COST)));
    let (loops, step) = b.finish(group.nodes.clone(), cost, flops)?;
    l.kernel(loops, step);
    Ok(())
}

/// An expression of parameters that needs a division becomes a parameter of its own.
pub(crate) fn to_param(b: &mut Builder, d: &Dim) -> Dim {
    let graph = crate::builder::to_graph(d, &b.kernel, &b.dims);
    b.dim(&graph)
}

pub(crate) fn row_major(dims: &[i64]) -> Vec<i64> {
    let mut s = vec![1; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1] * dims[i + 1];
    }
    s
}
