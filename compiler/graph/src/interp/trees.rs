//! Tree ensembles.

use super::Fault;
use super::data::{Number, Numbers, floats, store};
use super::math::erf_inv;
use super::rounding::{Rounder, Sum};
use crate::tree::{Labels, PostTransform, TreeAggregate, TreeEnsemble, TreeNode, TreeTest};
use crate::{DType, TensorData};

pub(super) fn trees(
    t: &TreeEnsemble,
    x: &TensorData,
    rounder: &Rounder,
) -> Result<Vec<TensorData>, Fault> {
    let (batch, features) = (x.dims[0], x.dims[1] as usize);
    let data = floats(x);
    let targets = t.targets as usize;
    let mut scores = Vec::with_capacity(batch as usize * targets);
    let mut best = Vec::with_capacity(batch as usize);
    for row in 0..batch as usize {
        let row = &data[row * features..(row + 1) * features];
        let mut raw = row_scores(t, row, rounder)?;
        // The label goes by the scores before they are transformed; the first of equals wins.
        let winner = (0..targets).fold(0, |b, i| if raw[i] > raw[b] { i } else { b });
        best.push(winner);
        transform(t.post, &mut raw);
        scores.extend(raw);
    }
    let dims = vec![batch, targets as i64];
    let scores = store(x.dtype, dims, Numbers::Float(scores));
    let label = match &t.labels {
        None => return Ok(vec![scores]),
        Some(Labels::I64(names)) => {
            let chosen: Vec<i64> = best
                .iter()
                .map(|b| names.get(*b).copied().unwrap_or(0))
                .collect();
            TensorData::from_i64(vec![batch], &chosen)
        }
        Some(Labels::Strings(names)) => TensorData {
            dtype: DType::String,
            dims: vec![batch],
            bytes: Default::default(),
            strings: best
                .iter()
                .map(|b| names.get(*b).cloned().unwrap_or_default())
                .collect(),
        },
    };
    Ok(vec![label, scores])
}

/// The leaf that a row falls into.
fn leaf(t: &TreeEnsemble, root: u32, row: &[f64]) -> Result<(usize, usize), Fault> {
    let mut at = root;
    // Children come after their parents, so the walk ends.
    loop {
        match &t.nodes[at as usize] {
            TreeNode::Leaf { first, count } => return Ok((*first as usize, *count as usize)),
            TreeNode::Branch {
                feature,
                test,
                threshold,
                yes,
                no,
                missing_yes,
            } => {
                let Some(v) = row.get(*feature as usize).copied() else {
                    return Err(format!("feature {feature} of {}", row.len()).into());
                };
                let threshold = *threshold;
                let taken = match test {
                    _ if v.is_nan() && *missing_yes => true,
                    TreeTest::Le => v <= threshold,
                    TreeTest::Lt => v < threshold,
                    TreeTest::Ge => v >= threshold,
                    TreeTest::Gt => v > threshold,
                    TreeTest::Eq => v == threshold,
                    TreeTest::Ne => v != threshold,
                };
                at = if taken { *yes } else { *no };
            }
        }
    }
}

fn row_scores(t: &TreeEnsemble, row: &[f64], rounder: &Rounder) -> Result<Vec<f64>, Fault> {
    let mut scores: Vec<Option<Sum>> = vec![None; t.targets as usize];
    for root in &t.roots {
        let (first, count) = leaf(t, *root, row)?;
        for (target, weight) in &t.weights[first..first + count] {
            let (slot, w) = (&mut scores[*target as usize], Sum::of(*weight));
            *slot = Some(match (*slot, t.aggregate) {
                (None, _) => w,
                (Some(s), TreeAggregate::Sum | TreeAggregate::Average) => s.add(w),
                (Some(s), TreeAggregate::Min) => Sum::of(s.value.min(*weight)),
                (Some(s), TreeAggregate::Max) => Sum::of(s.value.max(*weight)),
            });
        }
    }
    let by = match t.aggregate {
        TreeAggregate::Average => t.roots.len().max(1) as f64,
        _ => 1.0,
    };
    let base = |i: usize| t.base_values.get(i).map_or(0.0, |b| *b);
    let score = |(i, s): (usize, Option<Sum>)| {
        // Votes are summed in f64 whatever the features are.
        let sum = rounder.sum(DType::F64, s.unwrap_or(Sum::ZERO));
        sum / by + base(i)
    };
    Ok(scores.into_iter().enumerate().map(score).collect())
}

fn transform(post: PostTransform, scores: &mut [f64]) {
    match post {
        PostTransform::None => {}
        PostTransform::Logistic => {
            for s in scores {
                *s = 1.0 / (1.0 + (-*s).exp());
            }
        }
        PostTransform::Softmax | PostTransform::SoftmaxZero => {
            // In the second form a score of 0 stays 0.
            let zero = |s: f64| post == PostTransform::SoftmaxZero && s.abs() <= 1e-7;
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let e = |s: f64| match zero(s) {
                true => s * (-max).exp(),
                false => (s - max).exp(),
            };
            let total: f64 = scores.iter().map(|s| e(*s)).sum();
            for s in scores {
                *s = if total != 0.0 { e(*s) / total } else { 0.5 };
            }
        }
        PostTransform::Probit => {
            for s in scores {
                *s = std::f64::consts::SQRT_2 * erf_inv(2.0 * *s - 1.0);
            }
        }
    }
}
