//! Ensembles of decision trees, as `ai.onnx.ml` has them, in one normal form.

/// Comparison of a feature with a threshold, exactly, whatever their widths: true goes to [`TreeNode::Branch`]'s `yes`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TreeTest {
    /// `feature <= threshold`.
    Le,
    /// `feature < threshold`.
    Lt,
    /// `feature >= threshold`.
    Ge,
    /// `feature > threshold`.
    Gt,
    /// `feature == threshold`.
    Eq,
    /// `feature != threshold`.
    Ne,
}

/// A node of a tree; leaves carry a range of [`TreeEnsemble::weights`].
#[derive(Clone, PartialEq, Debug)]
pub enum TreeNode {
    /// A question; its children come behind it in [`TreeEnsemble::nodes`].
    Branch {
        /// Column of the input.
        feature: u32,
        /// How it is compared with the threshold.
        test: TreeTest,
        /// As exact as the model has it, whatever the input's type.
        threshold: f64,
        /// The node to go to where the test is true.
        yes: u32,
        /// The node to go to otherwise.
        no: u32,
        /// A NaN goes to `yes`; otherwise it compares as NaN does.
        missing_yes: bool,
    },
    /// The votes of a row that gets here.
    Leaf {
        /// The first of its weights.
        first: u32,
        /// How many there are, each for a target.
        count: u32,
    },
}

/// How the trees' contributions become one score a target.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TreeAggregate {
    /// Of all votes, 0 without one.
    Sum,
    /// The sum divided by the number of trees.
    Average,
    /// The least vote.
    Min,
    /// The greatest vote.
    Max,
}

/// What is applied to the scores at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PostTransform {
    /// The scores stay.
    None,
    /// Over the targets.
    Softmax,
    /// `1 / (1 + exp(-x))` of each.
    Logistic,
    /// As [`PostTransform::Softmax`], but a score of 0 stays 0.
    SoftmaxZero,
    /// The quantile of the normal distribution, of each.
    Probit,
}

/// Class labels of a classifier.
#[derive(Clone, PartialEq, Debug)]
pub enum Labels {
    /// One a target.
    I64(Vec<i64>),
    /// One a target.
    Strings(Vec<bytes::Bytes>),
}

/// An ensemble: input `[batch, features]`, f32 or f64, output `[batch, targets]` of that type (and labels).
#[derive(Clone, PartialEq, Debug)]
pub struct TreeEnsemble {
    /// Of all trees, children behind their parents.
    pub nodes: Vec<TreeNode>,
    /// First node of each tree.
    pub roots: Vec<u32>,
    /// (target, weight) pairs that leaves refer to.
    pub weights: Vec<(u32, f64)>,
    /// How many scores a row gets.
    pub targets: u32,
    /// How votes for a target are combined.
    pub aggregate: TreeAggregate,
    /// One a target, or empty.
    pub base_values: Vec<f64>,
    /// Applied after the base values have been added; labels are chosen before it.
    pub post: PostTransform,
    /// For classifiers: output 0 is the label, output 1 the scores. For regressors: none.
    pub labels: Option<Labels>,
}
