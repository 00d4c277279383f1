//! Operators that reduce or walk along axes, and tree ensembles.

use super::{Class, Context, InferError, unranked, with_axis};
use crate::op::ReduceKind;
use crate::tree::{Labels, TreeEnsemble, TreeNode};
use crate::{DType, Dim, TensorType};

fn reduced(dims: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
    dims.iter()
        .enumerate()
        .filter_map(|(i, d)| match (axes.contains(&i), keep) {
            (false, _) => Some(d.clone()),
            (true, true) => Some(Dim::Const(1)),
            (true, false) => None,
        })
        .collect()
}

pub(super) fn reduce(
    cx: &mut Context,
    kind: ReduceKind,
    axes: &[usize],
    keep: bool,
) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    match kind {
        ReduceKind::And | ReduceKind::Or => cx.class("x", x, Class::Bits)?,
        ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp => {
            cx.class("x", x, Class::Float)?
        }
        _ => cx.class("x", x, Class::Numeric)?,
    }
    if axes.iter().enumerate().any(|(i, a)| axes[..i].contains(a)) {
        return Err(cx.attribute("axes", "each axis once", axes));
    }
    let Some(dims) = &x.shape else {
        return Ok(unranked(x.dtype));
    };
    for a in axes {
        cx.axis(*a, dims.len())?;
    }
    Ok(TensorType::new(x.dtype, reduced(dims, axes, keep)))
}

pub(super) fn arg_reduce(
    cx: &mut Context,
    axis: usize,
    keep: bool,
) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    cx.class("x", x, Class::Numeric)?;
    let Some(dims) = &x.shape else {
        return Ok(unranked(DType::I64));
    };
    cx.axis(axis, dims.len())?;
    cx.at_most("x (not empty)", axis, &Dim::Const(1), &dims[axis])?;
    Ok(TensorType::new(DType::I64, reduced(dims, &[axis], keep)))
}

/// The input's own type, for what walks along an axis.
pub(super) fn along(cx: &mut Context, axis: usize, float: bool) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    cx.class("x", x, if float { Class::Float } else { Class::Numeric })?;
    if let Some(rank) = x.rank() {
        cx.axis(axis, rank)?;
    }
    Ok(x.clone())
}

pub(super) fn normalize(
    cx: &mut Context,
    axis: usize,
    epsilon: f32,
) -> Result<TensorType, InferError> {
    cx.count(1, 3)?;
    let x = cx.input(0, "x")?;
    cx.class("x", x, Class::Float)?;
    if epsilon.is_nan() || epsilon < 0.0 {
        return Err(cx.attribute("epsilon", "at least 0", epsilon));
    }
    if let Some(rank) = x.rank()
        && rank > 0
    {
        cx.axis(axis, rank)?;
    }
    for (i, what) in [(1, "scale"), (2, "bias")] {
        if let Some(t) = cx.optional(i) {
            cx.dtype(what, t, x.dtype)?;
            if x.shape.is_some() {
                cx.shape_broadcasts_to(what, t.dims(), x.dims())?;
            }
        }
    }
    Ok(x.clone())
}

pub(super) fn trees(cx: &mut Context, trees: &TreeEnsemble) -> Result<Vec<TensorType>, InferError> {
    cx.count(1, 1)?;
    let x = cx.input(0, "x")?;
    if x.dtype != DType::F64 {
        cx.dtype("x", x, DType::F32)?;
    }
    check_trees(cx, trees)?;
    let batch = match x.shape.as_deref() {
        Some([batch, features]) => {
            let used = trees.nodes.iter().filter_map(|n| match n {
                TreeNode::Branch { feature, .. } => Some(*feature as i64 + 1),
                TreeNode::Leaf { .. } => None,
            });
            if let Some(used) = used.max() {
                cx.at_most("features used by the trees", 1, &Dim::Const(used), features)?;
            }
            Some(batch.clone())
        }
        Some(dims) => return Err(cx.rank_error("x", 2, dims.len())),
        None => None,
    };
    let scores = TensorType {
        dtype: x.dtype,
        shape: batch.as_ref().map(|b| {
            with_axis(
                &[b.clone(), Dim::Const(1)],
                1,
                Dim::Const(trees.targets as i64),
            )
        }),
        containers: Vec::new(),
    };
    let label = trees.labels.as_ref().map(|l| TensorType {
        dtype: match l {
            Labels::I64(_) => DType::I64,
            Labels::Strings(_) => DType::String,
        },
        shape: batch.map(|b| vec![b]),
        containers: Vec::new(),
    });
    Ok(label.into_iter().chain([scores]).collect())
}

/// Every reference inside an ensemble points into its tables, and branches lead forward only in
/// the sense that no walk can run in a circle: children come after their parent.
fn check_trees(cx: &Context, t: &TreeEnsemble) -> Result<(), InferError> {
    let nodes = t.nodes.len();
    if t.roots.iter().any(|r| *r as usize >= nodes) {
        return Err(cx.attribute("roots", format!("less than {nodes}"), &t.roots));
    }
    if !t.base_values.is_empty() && t.base_values.len() != t.targets as usize {
        let expected = format!("none or {} values", t.targets);
        return Err(cx.attribute("base_values", expected, t.base_values.len()));
    }
    if let Some((target, _)) = t.weights.iter().find(|w| w.0 >= t.targets) {
        return Err(cx.attribute("weights", format!("targets below {}", t.targets), target));
    }
    for (i, n) in t.nodes.iter().enumerate() {
        let good = match n {
            TreeNode::Branch { yes, no, .. } => [yes, no]
                .into_iter()
                .all(|c| (*c as usize) < nodes && *c as usize > i),
            TreeNode::Leaf { first, count } => *first as usize + *count as usize <= t.weights.len(),
        };
        if !good {
            let expected = "children after their parent, weights inside the table";
            return Err(cx.attribute("nodes", expected, (i, n)));
        }
    }
    Ok(())
}
