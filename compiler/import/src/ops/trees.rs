//! Tree ensembles of ai.onnx.ml, in one normal form: nodes of all trees in one table, children
//! after their parents.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lapidary_graph::tree::{
    Labels, PostTransform, TreeAggregate, TreeEnsemble, TreeNode, TreeTest,
};
use lapidary_graph::{DType, Op, ValueId};

use crate::builder::f64s;
use crate::context::{Ctx, Outs, all};
use crate::error::{Fail, invalid};

/// A child: a branch by number, or a leaf by number.
#[derive(Clone, Copy)]
enum Child {
    Branch(usize),
    Leaf(usize),
}

struct Branch {
    feature: u32,
    test: TreeTest,
    /// One threshold, or the members of a set (then `test` is `Eq`).
    thresholds: Vec<f64>,
    yes: Child,
    no: Child,
    missing_yes: bool,
}

/// The forest as read: branches and leaves by number.
struct Forest {
    branches: Vec<Branch>,
    leaves: Vec<Vec<(u32, f64)>>,
    roots: Vec<Child>,
}

/// Nodes, roots, and the weights that leaves refer to.
type Tables = (Vec<TreeNode>, Vec<u32>, Vec<(u32, f64)>);

impl Forest {
    /// Lays the trees out, parents first.
    fn flatten(&self) -> Result<Tables, Fail> {
        let mut nodes: Vec<TreeNode> = Vec::new();
        let mut weights = Vec::new();
        let mut roots = Vec::new();
        let mut seen = vec![false; self.branches.len()];
        for root in &self.roots {
            roots.push(nodes.len() as u32);
            // What to lay out, and which nodes' children it is: (node, yes?).
            let mut stack: Vec<(Child, Vec<(usize, bool)>)> = vec![(*root, vec![])];
            while let Some((child, parents)) = stack.pop() {
                let at = nodes.len() as u32;
                for (p, is_yes) in parents {
                    if let Some(TreeNode::Branch { yes, no, .. }) = nodes.get_mut(p) {
                        *(if is_yes { yes } else { no }) = at;
                    }
                }
                match child {
                    Child::Leaf(l) => {
                        let entries = self
                            .leaves
                            .get(l)
                            .ok_or_else(|| invalid(format!("leaf {l} does not exist")))?;
                        nodes.push(TreeNode::Leaf {
                            first: weights.len() as u32,
                            count: entries.len() as u32,
                        });
                        weights.extend(entries);
                    }
                    Child::Branch(b) => {
                        let branch = self
                            .branches
                            .get(b)
                            .ok_or_else(|| invalid(format!("node {b} does not exist")))?;
                        if seen.get(b).copied().unwrap_or(true) {
                            return Err(invalid(format!("node {b} is reached twice")));
                        }
                        seen[b] = true;
                        // A set is a chain of equalities that share their yes.
                        let first = nodes.len();
                        for (k, t) in branch.thresholds.iter().enumerate() {
                            nodes.push(TreeNode::Branch {
                                feature: branch.feature,
                                test: branch.test,
                                threshold: *t,
                                yes: 0,
                                no: (first + k + 1) as u32,
                                missing_yes: branch.missing_yes && k == 0,
                            });
                        }
                        let last = nodes.len() - 1;
                        stack.push((branch.no, vec![(last, false)]));
                        stack.push((branch.yes, (first..=last).map(|i| (i, true)).collect()));
                    }
                }
            }
        }
        Ok((nodes, roots, weights))
    }
}

/// A list of numbers, as floats or as a tensor.
fn numbers(cx: &Ctx, name: &str) -> Result<Option<Vec<f64>>, Fail> {
    if let Some(v) = cx.floats(name)? {
        return Ok(Some(v.iter().map(|x| *x as f64).collect()));
    }
    let tensor = cx.tensor(&format!("{name}_as_tensor"))?;
    Ok(tensor.as_ref().and_then(f64s))
}

fn list<'m>(cx: &Ctx<'_, 'm>, name: &str) -> Result<&'m [i64], Fail> {
    Ok(cx.ints(name)?.unwrap_or(&[]))
}

fn narrow(v: i64, what: &str) -> Result<u32, Fail> {
    u32::try_from(v).map_err(|_| invalid(format!("{what} is {v}")))
}

/// The forest of the old operators; `prefix` names the votes (`class` or `target`).
fn old_forest(cx: &Ctx, prefix: &str) -> Result<Forest, Fail> {
    let (trees, ids) = (list(cx, "nodes_treeids")?, list(cx, "nodes_nodeids")?);
    let (features, yes) = (
        list(cx, "nodes_featureids")?,
        list(cx, "nodes_truenodeids")?,
    );
    let no = list(cx, "nodes_falsenodeids")?;
    let modes = cx.strings("nodes_modes")?.unwrap_or(&[]);
    let values = numbers(cx, "nodes_values")?.unwrap_or_default();
    let missing = list(cx, "nodes_missing_value_tracks_true")?;
    let n = ids.len();
    let lens = [
        trees.len(),
        features.len(),
        yes.len(),
        no.len(),
        modes.len(),
        values.len(),
    ];
    if lens.iter().any(|l| *l != n) || !(missing.is_empty() || missing.len() == n) {
        return Err(invalid("attributes 'nodes_*' differ in length"));
    }
    let mut at: HashMap<(i64, i64), usize> = HashMap::new();
    for i in 0..n {
        if at.insert((trees[i], ids[i]), i).is_some() {
            return Err(invalid(format!(
                "tree {} has node {} twice",
                trees[i], ids[i]
            )));
        }
    }
    let votes = |s: &str| format!("{prefix}_{s}");
    let (vote_trees, vote_nodes) = (list(cx, &votes("treeids"))?, list(cx, &votes("nodeids"))?);
    let vote_ids = list(cx, &votes("ids"))?;
    let vote_weights = numbers(cx, &votes("weights"))?.unwrap_or_default();
    let m = vote_nodes.len();
    if vote_trees.len() != m || vote_ids.len() != m || vote_weights.len() != m {
        return Err(invalid(format!("attributes '{prefix}_*' differ in length")));
    }
    let width = width(cx)?;
    let mut leaves: Vec<Vec<(u32, f64)>> = vec![Vec::new(); n];
    for i in 0..m {
        let leaf = at.get(&(vote_trees[i], vote_nodes[i])).ok_or_else(|| {
            invalid(format!(
                "tree {} has no node {}",
                vote_trees[i], vote_nodes[i]
            ))
        })?;
        leaves[*leaf].push((
            narrow(vote_ids[i], "a target")?,
            rounded(vote_weights[i], width),
        ));
    }
    let is_leaf: Vec<bool> = modes.iter().map(|m| &m[..] == b"LEAF").collect();
    let child = |tree: i64, id: i64| -> Result<Child, Fail> {
        let i = *at
            .get(&(tree, id))
            .ok_or_else(|| invalid(format!("tree {tree} has no node {id}")))?;
        Ok(if is_leaf[i] {
            Child::Leaf(i)
        } else {
            Child::Branch(i)
        })
    };
    let mut branches = Vec::with_capacity(n);
    let mut has_parent = vec![false; n];
    for i in 0..n {
        let test = match &modes[i][..] {
            // Leaves keep their number; nothing refers to this entry.
            b"LEAF" | b"BRANCH_LEQ" => TreeTest::Le,
            b"BRANCH_LT" => TreeTest::Lt,
            b"BRANCH_GTE" => TreeTest::Ge,
            b"BRANCH_GT" => TreeTest::Gt,
            b"BRANCH_EQ" => TreeTest::Eq,
            b"BRANCH_NEQ" => TreeTest::Ne,
            other => {
                return Err(invalid(format!(
                    "node mode '{}'",
                    String::from_utf8_lossy(other)
                )));
            }
        };
        let (yes, no) = if is_leaf[i] {
            (Child::Leaf(i), Child::Leaf(i))
        } else {
            for id in [yes[i], no[i]] {
                if let Some(k) = at.get(&(trees[i], id)) {
                    has_parent[*k] = true;
                }
            }
            (child(trees[i], yes[i])?, child(trees[i], no[i])?)
        };
        branches.push(Branch {
            feature: if is_leaf[i] {
                0
            } else {
                narrow(features[i], "a feature")?
            },
            test,
            thresholds: vec![values[i]],
            yes,
            no,
            missing_yes: missing.get(i).is_some_and(|m| *m != 0),
        });
    }
    let mut roots = Vec::new();
    for i in (0..n).filter(|i| !has_parent[*i]) {
        roots.push(child(trees[i], ids[i])?);
    }
    Ok(Forest {
        branches,
        leaves,
        roots,
    })
}

fn post_transform(cx: &Ctx) -> Result<PostTransform, Fail> {
    let names = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"];
    Ok(post(cx.choice("post_transform", "NONE", &names)?))
}

fn post(i: usize) -> PostTransform {
    match i {
        0 => PostTransform::None,
        1 => PostTransform::Softmax,
        2 => PostTransform::Logistic,
        3 => PostTransform::SoftmaxZero,
        _ => PostTransform::Probit,
    }
}

fn base_values(cx: &Ctx) -> Result<Vec<f64>, Fail> {
    let width = width(cx)?;
    let v = numbers(cx, "base_values")?.unwrap_or_default();
    Ok(v.into_iter().map(|x| rounded(x, width)).collect())
}

/// The type in which features are compared and scores given: f64 for features of f64, else f32.
fn width(cx: &Ctx) -> Result<DType, Fail> {
    Ok(match cx.dtype(cx.input(0)?) {
        DType::F64 => DType::F64,
        _ => DType::F32,
    })
}

/// A number of an attribute in the type of the scores.
fn rounded(v: f64, width: DType) -> f64 {
    match width {
        DType::F64 => v,
        _ => v as f32 as f64,
    }
}

/// The ensemble's outputs, the scores as `scores`.
fn emit(cx: &mut Ctx, e: TreeEnsemble, scores: DType) -> Result<Vec<ValueId>, Fail> {
    let (x, width) = (cx.input(0)?, width(cx)?);
    let x = cx.cast(x, width)?;
    let mut outs = cx.emit(Op::Trees(Arc::new(e)), vec![Some(x)])?;
    if let Some(last) = outs.last_mut() {
        *last = cx.cast(*last, scores)?;
    }
    Ok(outs)
}

pub(crate) fn regressor(cx: &mut Ctx) -> Outs {
    let names = ["SUM", "AVERAGE", "MIN", "MAX"];
    let aggregate = match cx.choice("aggregate_function", "SUM", &names)? {
        0 => TreeAggregate::Sum,
        1 => TreeAggregate::Average,
        2 => TreeAggregate::Min,
        _ => TreeAggregate::Max,
    };
    let (nodes, roots, weights) = old_forest(cx, "target")?.flatten()?;
    all(emit(
        cx,
        TreeEnsemble {
            nodes,
            roots,
            weights,
            targets: narrow(cx.int("n_targets", 1)?, "'n_targets'")?,
            aggregate,
            base_values: base_values(cx)?,
            post: post_transform(cx)?,
            labels: None,
        },
        DType::F32,
    )?)
}

/// Labels by the greatest score.
///
/// Two classes whose votes all go to one of them are a score p and its counterpart, as the
/// reference kernels have it: `[1 - p, p]` where all weights are positive (or zero), else `[-p, p]`.
pub(crate) fn classifier(cx: &mut Ctx) -> Outs {
    let labels = match (
        cx.ints("classlabels_int64s")?,
        cx.strings("classlabels_strings")?,
    ) {
        (Some(l), _) if !l.is_empty() => Labels::I64(l.to_vec()),
        (_, Some(l)) => Labels::Strings(l.iter().map(|b| Bytes::copy_from_slice(b)).collect()),
        _ => return Err(invalid("the class labels are missing")),
    };
    let targets = match &labels {
        Labels::I64(l) => l.len(),
        Labels::Strings(l) => l.len(),
    } as u32;
    let mut forest = old_forest(cx, "class")?;
    let mut base = base_values(cx)?;
    let mut post = post_transform(cx)?;
    let votes = || forest.leaves.iter().flatten();
    let class = votes().next().map_or(0, |v| v.0);
    if targets == 2 && votes().all(|v| v.0 == class) {
        let positive = votes().all(|v| v.1 >= 0.0);
        for leaf in &mut forest.leaves {
            *leaf = leaf.iter().flat_map(|(_, w)| [(0, -w), (1, *w)]).collect();
        }
        let b = match base.as_slice() {
            [b] | [_, b] => *b,
            _ => 0.0,
        };
        base = vec![if positive { 1.0 - b } else { -b }, b];
        if positive || post != PostTransform::Logistic {
            post = PostTransform::None;
        }
    }
    let (nodes, roots, weights) = forest.flatten()?;
    all(emit(
        cx,
        TreeEnsemble {
            nodes,
            roots,
            weights,
            targets,
            aggregate: TreeAggregate::Sum,
            base_values: base,
            post,
            labels: Some(labels),
        },
        DType::F32,
    )?)
}

/// The operator that replaces both.
pub(crate) fn ensemble(cx: &mut Ctx) -> Outs {
    let aggregate = match cx.int("aggregate_function", 1)? {
        0 => TreeAggregate::Average,
        1 => TreeAggregate::Sum,
        2 => TreeAggregate::Min,
        3 => TreeAggregate::Max,
        a => return Err(invalid(format!("attribute 'aggregate_function' is {a}"))),
    };
    let transform = cx.int("post_transform", 0)?;
    if !(0..=4).contains(&transform) {
        return Err(invalid(format!(
            "attribute 'post_transform' is {transform}"
        )));
    }
    let features = list(cx, "nodes_featureids")?;
    let (yes, no) = (
        list(cx, "nodes_truenodeids")?,
        list(cx, "nodes_falsenodeids")?,
    );
    let (yes_leaf, no_leaf) = (list(cx, "nodes_trueleafs")?, list(cx, "nodes_falseleafs")?);
    let missing = list(cx, "nodes_missing_value_tracks_true")?;
    let features_of = cx.dtype(cx.input(0)?);
    let tensor = |name: &str| -> Result<Vec<f64>, Fail> {
        let tensor = cx.tensor(name)?;
        match tensor.as_ref().map(|t| t.dtype) {
            Some(t) if t != features_of && name != "nodes_modes" => Err(invalid(format!(
                "attribute '{name}' is of type {t}, the features of {features_of}"
            ))),
            _ => Ok(tensor.as_ref().and_then(f64s).unwrap_or_default()),
        }
    };
    let (modes, splits) = (tensor("nodes_modes")?, tensor("nodes_splits")?);
    let n = features.len();
    let lens = [
        yes.len(),
        no.len(),
        yes_leaf.len(),
        no_leaf.len(),
        modes.len(),
        splits.len(),
    ];
    if lens.iter().any(|l| *l != n) || !(missing.is_empty() || missing.len() == n) {
        return Err(invalid("attributes 'nodes_*' differ in length"));
    }
    let members = tensor("membership_values")?;
    let mut sets = members.split(|v| v.is_nan());
    let child = |leaf: i64, id: i64| -> Result<Child, Fail> {
        let i = narrow(id, "a child")? as usize;
        Ok(if leaf != 0 {
            Child::Leaf(i)
        } else {
            Child::Branch(i)
        })
    };
    let mut branches = Vec::with_capacity(n);
    for i in 0..n {
        let mut thresholds = Vec::new();
        let test = match modes[i] as i64 {
            0 => TreeTest::Le,
            1 => TreeTest::Lt,
            2 => TreeTest::Ge,
            3 => TreeTest::Gt,
            4 => TreeTest::Eq,
            5 => TreeTest::Ne,
            6 => {
                let set = sets.next().unwrap_or(&[]);
                thresholds.extend(set);
                TreeTest::Eq
            }
            m => return Err(invalid(format!("node mode {m}"))),
        };
        if thresholds.is_empty() {
            // An empty set has no members: equal to NaN, which nothing is.
            let t = if modes[i] as i64 == 6 {
                f64::NAN
            } else {
                splits[i]
            };
            thresholds.push(t);
        }
        branches.push(Branch {
            feature: narrow(features[i], "a feature")?,
            test,
            thresholds,
            yes: child(yes_leaf[i], yes[i])?,
            no: child(no_leaf[i], no[i])?,
            missing_yes: missing.get(i).is_some_and(|m| *m != 0),
        });
    }
    let targets = list(cx, "leaf_targetids")?;
    let weights = tensor("leaf_weights")?;
    if targets.len() != weights.len() {
        return Err(invalid("attributes 'leaf_*' differ in length"));
    }
    let (mut leaves, width) = (Vec::new(), width(cx)?);
    for (t, w) in targets.iter().zip(weights) {
        leaves.push(vec![(narrow(*t, "a target")?, rounded(w, width))]);
    }
    let mut roots = Vec::new();
    for r in list(cx, "tree_roots")? {
        roots.push(Child::Branch(narrow(*r, "a root")? as usize));
    }
    let forest = Forest {
        branches,
        leaves,
        roots,
    };
    let (nodes, roots, weights) = forest.flatten()?;
    let e = TreeEnsemble {
        nodes,
        roots,
        weights,
        targets: narrow(cx.int("n_targets", 1)?, "'n_targets'")?,
        aggregate,
        base_values: Vec::new(),
        post: post(transform as usize),
        labels: None,
    };
    let t = cx.dtype(cx.input(0)?);
    all(emit(cx, e, t)?)
}
