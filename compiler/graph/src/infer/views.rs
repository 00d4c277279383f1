//! Views and their neighbours: reshape, transpose, broadcast, slice, concat, pad.

use super::{Context, InferError, unranked};
use crate::op::PadMode;
use crate::{Dim, TensorType};

pub(super) fn reshape(cx: &mut Context, shape: &[Dim]) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    cx.dims_valid("shape", shape)?;
    // Nothing else would compare the numbers of elements.
    let Some(dims) = &x.shape else {
        return Err(cx.attribute("shape", "an input of known rank", &x.shape));
    };
    let (from, to) = (Dim::product(dims), Dim::product(shape));
    cx.equal("number of elements", 0, &from, &to)?;
    Ok(TensorType::new(x.dtype, shape.iter().cloned()))
}

pub(super) fn transpose(cx: &mut Context, perm: &[usize]) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    let mut seen = vec![false; perm.len()];
    for p in perm {
        match seen.get_mut(*p) {
            Some(s) if !*s => *s = true,
            _ => return Err(cx.attribute("perm", "a permutation", perm)),
        }
    }
    let Some(dims) = &x.shape else {
        return Ok(unranked(x.dtype));
    };
    if dims.len() != perm.len() {
        return Err(cx.rank_error("x", perm.len(), dims.len()));
    }
    Ok(TensorType::new(
        x.dtype,
        perm.iter().map(|p| dims[*p].clone()),
    ))
}

pub(super) fn broadcast(cx: &mut Context, shape: &[Dim]) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    cx.dims_valid("shape", shape)?;
    cx.shape_broadcasts_to("x", x.dims(), shape)?;
    Ok(TensorType::new(x.dtype, shape.iter().cloned()))
}

pub(super) fn slice(
    cx: &mut Context,
    start: &[Dim],
    step: &[i64],
    size: &[Dim],
) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    let n = start.len();
    if step.len() != n || size.len() != n {
        let found = (n, step.len(), size.len());
        return Err(cx.attribute("start, step, size", "one entry an axis each", found));
    }
    if step.contains(&0) {
        return Err(cx.attribute("step", "no 0", step));
    }
    cx.dims_valid("size", size)?;
    if let Some(dims) = &x.shape {
        if dims.len() != n {
            return Err(cx.rank_error("x", n, dims.len()));
        }
        for axis in 0..n {
            slice_bounds(cx, axis, &dims[axis], &start[axis], step[axis], &size[axis])?;
        }
    }
    Ok(TensorType::new(x.dtype, size.iter().cloned()))
}

/// First and last element read lie inside the axis, where there are any.
fn slice_bounds(
    cx: &mut Context,
    axis: usize,
    dim: &Dim,
    start: &Dim,
    step: i64,
    size: &Dim,
) -> Result<(), InferError> {
    let (zero, one) = (Dim::Const(0), Dim::Const(1));
    if size.is_const(0) || (start.is_const(0) && step == 1 && size == dim) {
        return Ok(());
    }
    if step == 1 {
        cx.at_most("start", axis, &zero, start)?;
        return cx.at_most("start + size", axis, &start.add(size), dim);
    }
    let last = start.add(&size.sub(&one).mul(&Dim::Const(step)));
    let (low, high) = if step > 0 {
        (start.clone(), last)
    } else {
        (last, start.clone())
    };
    // An empty slice may start anywhere: where the size may be 0, both sides are multiplied by it.
    let by = if size.is_ge(1) == Some(true) {
        one.clone()
    } else {
        size.clone()
    };
    cx.at_most("lowest index", axis, &zero, &low.mul(&by))?;
    cx.at_most(
        "highest index + 1",
        axis,
        &high.add(&one).mul(&by),
        &dim.mul(&by),
    )
}

pub(super) fn concat(cx: &mut Context, axis: usize) -> Result<TensorType, InferError> {
    cx.count(1, usize::MAX)?;
    let first = cx.input(0, "operand")?;
    let mut out = first.shape.clone();
    for i in 1..cx.inputs.len() {
        let what = format!("input {i}");
        let t = cx.input(i, "operand")?;
        cx.dtype(&what, t, first.dtype)?;
        let (Some(sum), Some(dims)) = (&mut out, &t.shape) else {
            out = None;
            continue;
        };
        if dims.len() != sum.len() {
            return Err(cx.rank_error(&what, sum.len(), dims.len()));
        }
        for (k, (s, d)) in sum.iter_mut().zip(dims).enumerate() {
            *s = if k == axis {
                s.add(d)
            } else {
                cx.equal(&what, k, s, d)?
            };
        }
    }
    if let Some(dims) = &out {
        cx.axis(axis, dims.len())?;
    }
    Ok(TensorType {
        dtype: first.dtype,
        shape: out,
        containers: Vec::new(),
    })
}

pub(super) fn pad(
    cx: &mut Context,
    before: &[Dim],
    after: &[Dim],
    mode: PadMode,
) -> Result<TensorType, InferError> {
    cx.count(1, 2)?;
    let x = cx.input(0, "x")?;
    if let Some(value) = cx.optional(1) {
        cx.dtype("value", value, x.dtype)?;
        if let Some(dims) = &value.shape {
            cx.equal(
                "value (one element)",
                0,
                &Dim::Const(1),
                &Dim::product(dims),
            )?;
        }
    }
    let n = before.len();
    if after.len() != n {
        return Err(cx.attribute("after", format!("{n} entries"), after.len()));
    }
    let Some(dims) = &x.shape else {
        return Ok(unranked(x.dtype));
    };
    if dims.len() != n {
        return Err(cx.rank_error("x", n, dims.len()));
    }
    let mut out = Vec::with_capacity(n);
    for axis in 0..n {
        let (d, pads) = (&dims[axis], before[axis].add(&after[axis]));
        let untouched = before[axis].is_const(0) && after[axis].is_const(0);
        if mode != PadMode::Constant && !untouched {
            cx.at_most("x (something to repeat)", axis, &Dim::Const(1), d)?;
        }
        let size = d.add(&pads);
        cx.at_most("pads (result not negative)", axis, &Dim::Const(0), &size)?;
        out.push(size);
    }
    Ok(TensorType::new(x.dtype, out))
}
