//! Gather and scatter.

use super::{CheckKind, Class, Context, InferError, unranked};
use crate::op::ScatterReduce;
use crate::{Dim, TensorType};

/// Data and indices, with the indices' type checked.
fn operands<'a>(
    cx: &Context<'a>,
    count: usize,
) -> Result<(&'a TensorType, &'a TensorType), InferError> {
    cx.count(count, count)?;
    let (data, indices) = (cx.input(0, "data")?, cx.input(1, "indices")?);
    cx.class("indices", indices, Class::Index)?;
    Ok((data, indices))
}

pub(super) fn gather(cx: &mut Context, axis: usize) -> Result<TensorType, InferError> {
    let (data, indices) = operands(cx, 2)?;
    let (Some(d), Some(i)) = (&data.shape, &indices.shape) else {
        return Ok(unranked(data.dtype));
    };
    cx.axis(axis, d.len())?;
    let dims = d[..axis].iter().chain(i).chain(&d[axis + 1..]);
    Ok(TensorType::new(data.dtype, dims.cloned()))
}

/// The indices reach no further than the data on the axes that they do not choose.
fn inside(cx: &mut Context, axis: usize, data: &[Dim], indices: &[Dim]) -> Result<(), InferError> {
    if data.len() != indices.len() {
        return Err(cx.rank_error("indices", data.len(), indices.len()));
    }
    cx.axis(axis, data.len())?;
    for (k, (d, i)) in data.iter().zip(indices).enumerate() {
        if k != axis {
            cx.at_most("indices", k, i, d)?;
        }
    }
    Ok(())
}

pub(super) fn gather_elements(cx: &mut Context, axis: usize) -> Result<TensorType, InferError> {
    let (data, indices) = operands(cx, 2)?;
    let (Some(d), Some(i)) = (&data.shape, &indices.shape) else {
        return Ok(TensorType {
            dtype: data.dtype,
            shape: indices.shape.clone(),
            containers: Vec::new(),
        });
    };
    inside(cx, axis, d, i)?;
    Ok(TensorType::new(data.dtype, i.iter().cloned()))
}

/// Splits the indices' shape into the leading axes and the length of a coordinate.
fn coordinates<'i>(
    cx: &Context,
    indices: &'i [Dim],
    most: usize,
) -> Result<(&'i [Dim], Option<usize>), InferError> {
    let Some((last, lead)) = indices.split_last() else {
        return Err(cx.rank_error("indices", "at least 1", 0));
    };
    match last.as_const() {
        Some(k) if k < 0 || k as usize > most => Err(InferError::Attribute {
            op: cx.op.into(),
            attribute: "indices, last axis".into(),
            expected: format!("at most {most}, the axes that it can choose"),
            found: k.to_string(),
        }),
        k => Ok((lead, k.map(|k| k as usize))),
    }
}

pub(super) fn gather_nd(cx: &mut Context, batch: usize) -> Result<TensorType, InferError> {
    let (data, indices) = operands(cx, 2)?;
    let (Some(d), Some(i)) = (&data.shape, &indices.shape) else {
        return Ok(unranked(data.dtype));
    };
    if batch >= i.len() || batch > d.len() {
        let expected = format!("less than {} and at most {}", i.len(), d.len());
        return Err(cx.attribute("batch", expected, batch));
    }
    let (lead, chosen) = coordinates(cx, i, d.len() - batch)?;
    for k in 0..batch {
        cx.equal("indices (a batch axis)", k, &d[k], &i[k])?;
    }
    let Some(chosen) = chosen else {
        return Ok(unranked(data.dtype));
    };
    let dims = lead.iter().chain(&d[batch + chosen..]);
    Ok(TensorType::new(data.dtype, dims.cloned()))
}

fn updates<'a>(
    cx: &Context<'a>,
    data: &TensorType,
    reduce: ScatterReduce,
) -> Result<&'a TensorType, InferError> {
    let updates = cx.input(2, "updates")?;
    cx.dtype("updates", updates, data.dtype)?;
    if reduce != ScatterReduce::Set {
        cx.class("data", data, Class::Numeric)?;
    }
    Ok(updates)
}

/// A shape against the expected one, axis by axis.
fn same_shape(
    cx: &mut Context,
    what: &str,
    expected: &[Dim],
    found: &[Dim],
) -> Result<(), InferError> {
    if expected.len() != found.len() {
        return Err(cx.rank_error(what, expected.len(), found.len()));
    }
    for (k, (e, f)) in expected.iter().zip(found).enumerate() {
        cx.equal(what, k, e, f)?;
    }
    Ok(())
}

pub(super) fn scatter_elements(
    cx: &mut Context,
    axis: usize,
    reduce: ScatterReduce,
) -> Result<TensorType, InferError> {
    let (data, indices) = operands(cx, 3)?;
    let updates = updates(cx, data, reduce)?;
    if let (Some(d), Some(i)) = (&data.shape, &indices.shape) {
        inside(cx, axis, d, i)?;
    }
    if let (Some(i), Some(u)) = (&indices.shape, &updates.shape) {
        same_shape(cx, "updates", i, u)?;
    }
    Ok(data.clone())
}

/// How many axes a tuple of indices chooses, by the ranks of ScatterND's operands.
pub fn tuple_length(data: usize, indices: usize, updates: usize) -> Option<usize> {
    let k = (data + indices).checked_sub(updates + 1)?;
    (k <= data).then_some(k)
}

pub(super) fn scatter_nd(
    cx: &mut Context,
    reduce: ScatterReduce,
) -> Result<TensorType, InferError> {
    let (data, indices) = operands(cx, 3)?;
    let updates = updates(cx, data, reduce)?;
    if let (Some(d), Some(i)) = (&data.shape, &indices.shape) {
        let (lead, chosen) = coordinates(cx, i, d.len())?;
        let ranks = updates.rank().map(|u| tuple_length(d.len(), i.len(), u));
        let chosen = match (chosen, ranks) {
            (None, Some(None)) => {
                let most = lead.len() + d.len();
                return Err(cx.rank_error("updates", most, updates.rank().unwrap_or(0)));
            }
            (None, Some(Some(k))) => {
                cx.equal("indices", lead.len(), &Dim::from(k), &i[lead.len()])?;
                Some(k)
            }
            (chosen, _) => chosen,
        };
        if let (Some(k), Some(u)) = (chosen, &updates.shape) {
            let expected: Vec<Dim> = lead.iter().chain(&d[k..]).cloned().collect();
            same_shape(cx, "updates", &expected, u)?;
        } else if let Some(last) = i.last() {
            cx.need(i.len() - 1, last, &Dim::from(d.len()), CheckKind::AtMost);
        }
    }
    Ok(data.clone())
}
