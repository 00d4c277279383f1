//! Reading and writing by indices.

use lapidary_graph::op::ScatterReduce;
use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, all, one};
use crate::error::{Fail, invalid, unsupported};

/// Indices as i32 or i64.
fn index(cx: &mut Ctx, v: ValueId) -> Result<ValueId, Fail> {
    match cx.dtype(v) {
        DType::I32 | DType::I64 => Ok(v),
        t => Err(invalid(format!("indices of type {t}, expected i32 or i64"))),
    }
}

/// Whole slices along an axis.
pub(crate) fn gather(cx: &mut Ctx) -> Outs {
    let (x, i) = (cx.input(0)?, cx.input(1)?);
    let i = index(cx, i)?;
    let rank = cx.rank(x)?;
    let axis = cx.axis("axis", rank)?;
    // One constant position is a slice.
    let dims = cx.dims(x)?;
    if let Some(k) = cx.known_scalar(i).and_then(|d| d.as_const())
        && let Some(n) = dims[axis].as_const()
        && k >= -n
        && k < n
    {
        let k = if k < 0 { k + n } else { k };
        let shape: Vec<Dim> = dims[..axis]
            .iter()
            .chain(&cx.dims(i)?)
            .chain(&dims[axis + 1..])
            .cloned()
            .collect();
        let v = cx.slice_axis(x, axis, Dim::Const(k), 1, Dim::Const(1))?;
        return one(cx.reshape(v, shape)?);
    }
    one(cx.emit1(Op::Gather { axis }, &[x, i])?)
}

/// One element an index, along an axis.
pub(crate) fn gather_elements(cx: &mut Ctx) -> Outs {
    let (x, i) = (cx.input(0)?, cx.input(1)?);
    let i = index(cx, i)?;
    let rank = cx.rank(x)?;
    let i = cx.with_rank(i, rank)?;
    let axis = cx.axis("axis", rank)?;
    one(cx.emit1(Op::GatherElements { axis }, &[x, i])?)
}

/// By coordinates in the last axis of the indices. Library `gather_nd` (inputs: x, indices; ints: batch axes), where their
/// number is known at run time only.
pub(crate) fn gather_nd(cx: &mut Ctx) -> Outs {
    let (x, i) = (cx.input(0)?, cx.input(1)?);
    let batch = cx.int("batch_dims", 0)?;
    let batch = usize::try_from(batch)
        .map_err(|_| invalid(format!("attribute 'batch_dims' is {batch}")))?;
    let tuple = cx.dims(i)?.last().cloned();
    if tuple.is_some_and(|k| k.as_const().is_none()) {
        // How many axes a tuple chooses, and with it the rank, is known to the kernel.
        let out = LibOut::unranked(cx.dtype(x));
        let inputs = vec![Some(x), Some(i)];
        let ints = vec![batch as i64];
        return all(cx.library("gather_nd", ints, vec![], inputs, vec![out]));
    }
    one(cx.emit1(Op::GatherNd { batch }, &[x, i])?)
}

fn reduction(cx: &Ctx) -> Result<ScatterReduce, Fail> {
    let names = ["none", "add", "mul", "min", "max"];
    let which = cx.choice("reduction", "none", &names)?;
    let t = cx.dtype(cx.input(0)?);
    if which != 0 && t.is_storage() {
        return Err(unsupported(format!("reduction '{}' of {t}", names[which])));
    }
    Ok(match which {
        0 => ScatterReduce::Set,
        1 => ScatterReduce::Add,
        2 => ScatterReduce::Mul,
        3 => ScatterReduce::Min,
        _ => ScatterReduce::Max,
    })
}

/// ScatterElements, and Scatter, its old name.
pub(crate) fn scatter_elements(cx: &mut Ctx) -> Outs {
    let (x, i, u) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let i = index(cx, i)?;
    let rank = cx.rank(x)?;
    let i = cx.with_rank(i, rank)?;
    let axis = cx.axis("axis", rank)?;
    let reduce = reduction(cx)?;
    one(cx.emit1(Op::ScatterElements { axis, reduce }, &[x, i, u])?)
}

/// By coordinates in the last axis of the indices.
pub(crate) fn scatter_nd(cx: &mut Ctx) -> Outs {
    let (x, i, u) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let reduce = reduction(cx)?;
    one(cx.emit1(Op::ScatterNd { reduce }, &[x, i, u])?)
}

/// Library `compress`. Inputs: x, condition (bool vector). Ints: axis, or -1 for the flattened
/// input. The kernel sets the size of the axis.
pub(crate) fn compress(cx: &mut Ctx) -> Outs {
    let (x, c) = (cx.input(0)?, cx.input(1)?);
    let axis = match cx.has("axis") {
        true => cx.axis("axis", cx.rank(x)?)? as i64,
        false => -1,
    };
    let outs = cx.outputs(&[cx.dtype(x)])?;
    let inputs = vec![Some(x), Some(c)];
    one(first(&cx.library(
        "compress",
        vec![axis],
        vec![],
        inputs,
        outs,
    ))?)
}

/// `update` written into `cache` along an axis, at a position for each batch element: every
/// element of the result asks which element of the update falls on it.
pub(crate) fn tensor_scatter(cx: &mut Ctx) -> Outs {
    let (past, update) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.dims(past)?;
    let rank = dims.len();
    let axis = cx.axis("axis", rank)?;
    let circular = cx.choice("mode", "linear", &["linear", "circular"])? == 1;
    let others = cx.dims(update)?;
    if axis == 0 || others.len() != rank {
        return Err(invalid(format!(
            "axis {axis} of a cache of rank {rank}, an update of rank {}",
            others.len()
        )));
    }
    let (size, count) = (dims[axis].clone(), others[axis].clone());
    let mut inputs = Vec::new();
    if let Some(w) = cx.opt(2) {
        let w = cx.cast(w, DType::I64)?;
        let mut shape = vec![dims[0].clone()];
        shape.resize(rank, Dim::Const(1));
        inputs.push(cx.reshape(w, shape)?);
    }
    // Distance of each cache position from its batch element's write position.
    let distance = cx.pw_shaped(&inputs, Some(dims.clone()), |p, r| {
        let j = p.push(PwOp::Index(axis as u32), vec![], DType::I64);
        let d = match r.first() {
            Some(w) => p.bin(PwOp::Sub, j, *w),
            None => j,
        };
        if circular {
            let n = p.push(PwOp::Dim(size), vec![], DType::I64);
            p.bin(PwOp::Mod, d, n)
        } else {
            d
        }
    })?;
    let safe = cx.pw(&[distance], |p, r| {
        let zero = p.number(0.0, DType::I64);
        let n = p.push(PwOp::Dim(count.clone()), vec![], DType::I64);
        let one = p.number(1.0, DType::I64);
        let last = p.bin(PwOp::Sub, n, one);
        let d = p.bin(PwOp::Min, r[0], last);
        p.bin(PwOp::Max, d, zero)
    })?;
    let picked = cx.emit1(Op::GatherElements { axis }, &[update, safe])?;
    one(cx.pw(&[distance, picked, past], |p, r| {
        let zero = p.number(0.0, DType::I64);
        let n = p.push(PwOp::Dim(count), vec![], DType::I64);
        let low = p.test(PwOp::Ge, vec![r[0], zero]);
        let high = p.test(PwOp::Lt, vec![r[0], n]);
        let inside = p.bin(PwOp::And, low, high);
        p.select(inside, r[1], r[2])
    })?)
}
