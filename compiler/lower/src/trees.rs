//! Ensembles of trees as the record that the library kernel `trees` reads (`kernels/trees.c`).
//!
//! In: an ensemble whose indices inference has checked. Out: a record that needs no decoding at run
//! time: nodes as bytes, breadth first, the two children of a branch adjacent, eight trees of like
//! depth side by side.
//!
//! Every test becomes `value <= threshold` (left) or not (right): `<` by the next smaller threshold,
//! `>` and `>=` by exchanging the children. Thresholds get the width of the features, rounded so that no
//! comparison changes. Where a missing value (NaN) goes left is a bit a node, read
//! only for rows that have one. A leaf is a branch to itself: it reads a feature behind the real
//! ones, which holds minus infinity, so that its test always passes; which of these features says the
//! target, and the threshold is the weight. So the kernel walks eight trees with no branches.
//!
//! Where trees are small the record has a second form beside (`flat_trees.rs`).
//!
//! Ensembles that this form does not hold (equality tests, shared subtrees, least or greatest of the
//! votes) keep plain nodes.
//!
//! Record. Ints: form (0: 8 bits of a link are the feature, 1: 14 bits, 2: a word of its own,
//! 3: plain nodes, 4: as 2 with thresholds of f64, for features of f64), features, targets, number of groups (plain: of trees), trees, steps of a row,
//! aggregate (0 sum, 1 average, 2 least, 3 greatest), post (0 none, 1 softmax, 2 logistic,
//! 3 softmax_zero, 4 probit), rows from which on the flat form is taken (0: there is none), labels (0 none, 1 i64,
//! 2 strings), then the i64 labels. Floats: base
//! values. Strings: nodes; NaN bits; groups (eight roots, steps
//! that are always taken, steps to the last leaf: u32) or roots; votes of leaves with
//! not exactly one (first, count: u32 a leaf); votes (target: u32, 0: u32, weight: f64); of the flat form the
//! trees (u32: branches that NaN fails, branches that it passes, targets, leaves), branches (threshold: f32,
//! feature: u32, mask: u64), targets (u32) and weights (f32, a row a target), each tree's behind those of the one
//! before; string labels.
//! Outputs: the labels, if any, then the scores.

use crate::flat_trees::{Flat, flat};
use bytes::Bytes;
use lapidary_graph::DType;
use lapidary_graph::tree::{
    Labels, PostTransform, TreeAggregate, TreeEnsemble, TreeNode, TreeTest,
};
use std::collections::VecDeque;

/// The attributes of the call.
pub(crate) struct Record {
    pub ints: Vec<i64>,
    pub floats: Vec<f64>,
    pub strings: Vec<Bytes>,
}

/// Trees that are walked together.
const LANES: usize = 8;

/// Bytes of a vote.
const VOTE: usize = 16;

/// What the nodes come to.
#[derive(Default)]
struct Body {
    form: i64,
    groups: usize,
    steps: u64,
    nodes: Vec<u8>,
    missing: Vec<u8>,
    roots: Vec<u8>,
    leaves: Vec<u8>,
    votes: Vec<u8>,
    flat: Flat,
}

/// The record for features of type `width`, f32 or f64.
pub(crate) fn record(t: &TreeEnsemble, width: DType) -> Record {
    let features = features(t);
    let wide = width == DType::F64;
    let body = fast(t, features, wide).unwrap_or_else(|| plain(t));
    let aggregate = match t.aggregate {
        TreeAggregate::Sum => 0,
        TreeAggregate::Average => 1,
        TreeAggregate::Min => 2,
        TreeAggregate::Max => 3,
    };
    let post = match t.post {
        PostTransform::None => 0,
        PostTransform::Softmax => 1,
        PostTransform::Logistic => 2,
        PostTransform::SoftmaxZero => 3,
        PostTransform::Probit => 4,
    };
    let mut ints = vec![
        body.form,
        features as i64,
        t.targets as i64,
        body.groups as i64,
        t.roots.len() as i64,
        body.steps as i64,
        aggregate,
        post,
        body.flat.rows,
    ];
    let mut strings: Vec<Bytes> = [
        body.nodes,
        body.missing,
        body.roots,
        body.leaves,
        body.votes,
        body.flat.trees,
        body.flat.branches,
        body.flat.targets,
        body.flat.weights,
    ]
    .into_iter()
    .map(Bytes::from)
    .collect();
    match &t.labels {
        None => ints.push(0),
        Some(Labels::I64(l)) => {
            ints.push(1);
            ints.extend(l);
        }
        Some(Labels::Strings(l)) => {
            ints.push(2);
            strings.extend(l.iter().cloned());
        }
    }
    Record {
        ints,
        floats: t.base_values.clone(),
        strings,
    }
}

/// How many features the trees read.
fn features(t: &TreeEnsemble) -> u32 {
    let used = t.nodes.iter().map(|n| match n {
        TreeNode::Branch { feature, .. } => feature.saturating_add(1),
        TreeNode::Leaf { .. } => 0,
    });
    used.max().unwrap_or(0)
}

/// The greatest number of f32 (`wide`: of f64) that is at most `t`, or below it. Nothing is below minus infinity:
/// NaN, which no value passes.
fn at_most(t: f64, below: bool, wide: bool) -> f64 {
    if t.is_nan() || (below && t == f64::NEG_INFINITY) {
        return f64::NAN;
    }
    if wide {
        return if below { t.next_down() } else { t };
    }
    let near = t as f32;
    let passed = near as f64 > t || (below && near as f64 == t);
    (if passed { near.next_down() } else { near }) as f64
}

/// A branch as `value <= threshold`: threshold, left, right, whether NaN goes left. Equality has no
/// such form.
pub(crate) fn normal(n: &TreeNode, wide: bool) -> Option<(f64, u32, u32, bool)> {
    let TreeNode::Branch {
        test,
        threshold: t,
        yes,
        no,
        missing_yes,
        ..
    } = *n
    else {
        return None;
    };
    let (t, below) = (at_most(t, false, wide), at_most(t, true, wide));
    Some(match test {
        TreeTest::Le => (t, yes, no, missing_yes),
        TreeTest::Lt => (below, yes, no, missing_yes),
        // No value passes a comparison with NaN.
        TreeTest::Gt | TreeTest::Ge if t.is_nan() => (t, yes, no, missing_yes),
        TreeTest::Gt => (t, no, yes, !missing_yes),
        TreeTest::Ge => (below, no, yes, !missing_yes),
        TreeTest::Eq | TreeTest::Ne => return None,
    })
}

/// One tree in order of breadth: nodes of the ensemble, and the place of the left child of each
/// (its own for leaves).
pub(crate) struct Tree {
    pub nodes: Vec<(u32, u32)>,
    least: u32,
    most: u32,
    pub steps: u64,
}

impl Tree {
    /// The places of the leaves, from left to right.
    pub fn leaves_from_the_left(&self) -> Vec<usize> {
        let (mut leaves, mut stack) = (Vec::new(), vec![0]);
        while let Some(at) = stack.pop() {
            let left = self.nodes[at].1 as usize;
            if left == at {
                leaves.push(at);
            } else {
                stack.extend([left + 1, left]);
            }
        }
        leaves
    }

    /// The votes of the leaf at a place.
    pub fn votes<'t>(&self, t: &'t TreeEnsemble, at: usize) -> Option<&'t [(u32, f64)]> {
        let TreeNode::Leaf { first, count } = t.nodes.get(self.nodes[at].0 as usize)? else {
            return None;
        };
        let first = *first as usize;
        t.weights.get(first..first.checked_add(*count as usize)?)
    }
}

/// `None`: a node is shared, or is no normal branch.
fn layout(t: &TreeEnsemble, root: u32, seen: &mut [bool]) -> Option<Tree> {
    let mut tree = Tree {
        nodes: vec![(root, 0)],
        least: u32::MAX,
        most: 0,
        steps: 0,
    };
    let (mut queue, mut leaves) = (VecDeque::from([(0usize, 0u32)]), 0u64);
    while let Some((at, depth)) = queue.pop_front() {
        let node = tree.nodes[at].0;
        if std::mem::replace(seen.get_mut(node as usize)?, true) {
            return None;
        }
        match t.nodes.get(node as usize)? {
            TreeNode::Leaf { .. } => {
                tree.nodes[at].1 = at as u32;
                tree.least = tree.least.min(depth);
                tree.most = tree.most.max(depth);
                tree.steps += depth as u64;
                leaves += 1;
            }
            n => {
                let (_, left, right, _) = normal(n, false)?;
                let first = tree.nodes.len();
                tree.nodes[at].1 = u32::try_from(first).ok()?;
                tree.nodes.extend([(left, 0), (right, 0)]);
                queue.extend([(first, depth + 1), (first + 1, depth + 1)]);
            }
        }
    }
    tree.steps = tree.steps.div_ceil(leaves.max(1));
    Some(tree)
}

/// The forms 0 to 2, and 4.
fn fast(t: &TreeEnsemble, features: u32, wide: bool) -> Option<Body> {
    if !matches!(t.aggregate, TreeAggregate::Sum | TreeAggregate::Average) {
        return None;
    }
    let mut seen = vec![false; t.nodes.len()];
    let mut trees = Vec::with_capacity(t.roots.len());
    for r in &t.roots {
        trees.push(layout(t, *r, &mut seen)?);
    }
    trees.sort_by_key(|t| t.most);
    let total = trees.iter().map(|t| t.nodes.len() as u64).sum::<u64>() + 1;
    // Real features, one a target, one for leaves with other than one vote.
    let words = features as u64 + t.targets as u64 + 1;
    let form = match (words, total) {
        (..=0x7fff_ffff, ..=0x7fff_ffff) if wide => 4,
        (..=0x100, ..=0x100_0000) => 0,
        (..=0x4000, ..=0x4_0000) => 1,
        (..=0x7fff_ffff, ..=0x7fff_ffff) => 2,
        _ => return None,
    };
    let mut body = Body {
        form,
        groups: trees.len().div_ceil(LANES),
        steps: trees.iter().map(|t| t.steps).sum(),
        missing: vec![0; total.div_ceil(8) as usize],
        flat: if wide {
            Flat::default()
        } else {
            flat(t, &trees).unwrap_or_default()
        },
        ..Body::default()
    };
    let mut many = 0u32;
    let push = |body: &mut Body, threshold: f64, feature: u32, link: u32| {
        match wide {
            true => body.nodes.extend(threshold.to_le_bytes()),
            false => body.nodes.extend((threshold as f32).to_le_bytes()),
        }
        let (low, high) = match form {
            0 => (feature | link << 8, None),
            1 => (feature | link << 14, None),
            _ => (feature, Some(link)),
        };
        body.nodes.extend(low.to_le_bytes());
        if let Some(high) = high {
            body.nodes.extend(high.to_le_bytes());
        }
        if form == 2 {
            body.nodes.extend([0; 4]);
        }
    };
    let mut base = 0u32;
    for group in trees.chunks(LANES) {
        // Where no tree is, a leaf at the very end adds nothing.
        let mut roots = [total as u32 - 1; LANES];
        for (tree, root) in group.iter().zip(&mut roots) {
            *root = base;
            for (i, (node, left)) in tree.nodes.iter().enumerate() {
                let link = base + left;
                match t.nodes.get(*node as usize)? {
                    TreeNode::Leaf { .. } => {
                        // What adds nothing is no vote.
                        let votes: Vec<(u32, f64)> = tree
                            .votes(t, i)?
                            .iter()
                            .copied()
                            .filter(|v| v.1 != 0.0)
                            .collect();
                        if votes.iter().any(|v| v.0 >= t.targets) {
                            return None;
                        }
                        match votes.as_slice() {
                            [(target, w)] if !w.is_nan() => {
                                push(&mut body, *w, features + target, link);
                            }
                            list => {
                                // The number as a float: the test passes all the same.
                                if many > 1 << 24 {
                                    return None;
                                }
                                push(&mut body, many as f64, features + t.targets, link);
                                many += 1;
                                put_votes(&mut body, list);
                            }
                        }
                    }
                    n => {
                        let (threshold, _, _, missing_left) = normal(n, wide)?;
                        let TreeNode::Branch { feature, .. } = n else {
                            return None;
                        };
                        push(&mut body, threshold, *feature, link);
                        if missing_left {
                            let at = base as usize + i;
                            *body.missing.get_mut(at / 8)? |= 1 << (at % 8);
                        }
                    }
                }
            }
            base += tree.nodes.len() as u32;
        }
        let steps = group.last().map_or(0, |t| t.most);
        // Looking whether all have arrived costs as much as a few steps.
        let least = match group.iter().map(|t| t.least).min() {
            Some(least) if steps > least + 3 => least,
            _ => steps,
        };
        for v in roots.iter().chain([&least, &steps]) {
            body.roots.extend(v.to_le_bytes());
        }
    }
    push(&mut body, 0.0, features, base);
    Some(body)
}

fn put_votes(body: &mut Body, list: &[(u32, f64)]) {
    let first = (body.votes.len() / VOTE) as u32;
    body.leaves.extend(first.to_le_bytes());
    body.leaves.extend((list.len() as u32).to_le_bytes());
    put_weights(body, list);
}

fn put_weights(body: &mut Body, list: &[(u32, f64)]) {
    for (target, weight) in list {
        body.votes.extend((*target as u64).to_le_bytes());
        body.votes.extend(weight.to_le_bytes());
    }
}

/// Form 3. A node has 24 bytes: test (u32; 0 to 5 in the order of `TreeTest`, 6 a leaf, plus 8 where
/// NaN passes), feature, yes, no (of a leaf: first vote, number of votes), threshold (f64).
fn plain(t: &TreeEnsemble) -> Body {
    let mut body = Body {
        form: 3,
        groups: t.roots.len(),
        steps: 8 * t.roots.len() as u64,
        roots: t.roots.iter().flat_map(|r| r.to_le_bytes()).collect(),
        ..Body::default()
    };
    for n in &t.nodes {
        let (words, threshold) = match *n {
            TreeNode::Leaf { first, count } => ([6, 0, first, count], 0.0),
            TreeNode::Branch {
                feature,
                test,
                threshold,
                yes,
                no,
                missing_yes,
            } => {
                let test = match test {
                    TreeTest::Le => 0,
                    TreeTest::Lt => 1,
                    TreeTest::Ge => 2,
                    TreeTest::Gt => 3,
                    TreeTest::Eq => 4,
                    TreeTest::Ne => 5,
                };
                let test = test + if missing_yes { 8 } else { 0 };
                ([test, feature, yes, no], threshold)
            }
        };
        body.nodes
            .extend(words.iter().flat_map(|w| w.to_le_bytes()));
        body.nodes.extend(threshold.to_le_bytes());
    }
    put_weights(&mut body, &t.weights);
    body
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn stump(test: TreeTest, threshold: f64) -> TreeEnsemble {
        TreeEnsemble {
            nodes: vec![
                TreeNode::Branch {
                    feature: 2,
                    test,
                    threshold,
                    yes: 1,
                    no: 2,
                    missing_yes: false,
                },
                TreeNode::Leaf { first: 0, count: 1 },
                TreeNode::Leaf { first: 1, count: 2 },
            ],
            roots: vec![0],
            weights: vec![(1, 0.5), (0, 0.25), (1, -1.0)],
            targets: 2,
            aggregate: TreeAggregate::Sum,
            base_values: vec![],
            post: PostTransform::None,
            labels: None,
        }
    }

    #[test]
    fn a_greater_test_exchanges_its_children_and_sends_missing_values_left() {
        let r = record(&stump(TreeTest::Gt, 1.0), DType::F32);
        let word = |i: usize| u32::from_le_bytes(std::array::from_fn(|k| r.strings[0][4 * i + k]));
        assert_eq!(r.ints, [0, 3, 2, 1, 1, 1, 0, 0, 8, 0]);
        assert_eq!((word(0), word(1)), (1f32.to_bits(), 2 | 1 << 8));
        // Left is the old "no": a leaf with two votes. Right has one vote for target 1.
        assert_eq!((word(2), word(3)), (0, 5 | 1 << 8));
        assert_eq!((word(4), word(5)), (0.5f32.to_bits(), 4 | 2 << 8));
        assert_eq!(r.strings[1][0], 1);
    }

    #[test]
    fn a_threshold_between_two_numbers_of_f32_is_rounded_to_the_side_that_changes_no_test() {
        let third = 1.0 / 3.0f64;
        for (test, v) in [(TreeTest::Le, third as f32), (TreeTest::Lt, third as f32)] {
            let r = record(&stump(test, third), DType::F32);
            let t = f32::from_le_bytes(std::array::from_fn(|k| r.strings[0][k]));
            assert_eq!(v <= t, (v as f64) <= third, "{test:?}");
            let below = v.next_down();
            assert!(below <= t && (below as f64) < third);
        }
        assert_eq!(at_most(0.5, true, false), 0.5f32.next_down() as f64);
        assert_eq!(at_most(1e300, false, false), f32::MAX as f64);
        assert_eq!(at_most(-1e300, true, false), f64::NEG_INFINITY);
        assert!(at_most(f64::NEG_INFINITY, true, true).is_nan());
        assert_eq!(at_most(third, true, true), third.next_down());
    }

    #[test]
    fn features_of_f64_keep_thresholds_of_f64() {
        let r = record(&stump(TreeTest::Le, 1.0 / 3.0), DType::F64);
        assert_eq!((r.ints[0], r.strings[0].len()), (4, 4 * 16));
        let t = f64::from_le_bytes(std::array::from_fn(|k| r.strings[0][k]));
        assert_eq!(t, 1.0 / 3.0);
    }

    #[test]
    fn an_equality_keeps_plain_nodes() {
        let r = record(&stump(TreeTest::Eq, 1.0), DType::F32);
        assert_eq!(r.ints[0], 3);
        assert_eq!(r.strings[0].len(), 3 * 24);
    }
}
