//! Ensembles of decision trees, as `ai.onnx.ml` has them, in one normal form.

/// Comparison of a feature with a threshold, exactly, whatever their widths: true goes to [`TreeNode::Branch`]'s `yes`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TreeTest {
    Le,
    Lt,
    Ge,
    Gt,
    Eq,
    Ne,
}

/// A node of a tree; leaves carry a range of [`TreeEnsemble::weights`].
#[derive(Clone, PartialEq, Debug)]
pub enum TreeNode {
    Branch {
        feature: u32,
        test: TreeTest,
        threshold: f64,
        yes: u32,
        no: u32,
        missing_yes: bool,
    },
    Leaf {
        first: u32,
        count: u32,
    },
}

/// How the trees' contributions become one score a target.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TreeAggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// What is applied to the scores at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PostTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// Class labels of a classifier.
#[derive(Clone, PartialEq, Debug)]
pub enum Labels {
    I64(Vec<i64>),
    Strings(Vec<bytes::Bytes>),
}

/// An ensemble: input `[batch, features]`, f32 or f64, output `[batch, targets]` of that type (and labels).
#[derive(Clone, PartialEq, Debug)]
pub struct TreeEnsemble {
    pub nodes: Vec<TreeNode>,
    /// First node of each tree.
    pub roots: Vec<u32>,
    /// (target, weight) pairs that leaves refer to.
    pub weights: Vec<(u32, f64)>,
    pub targets: u32,
    pub aggregate: TreeAggregate,
    /// One a target, or empty.
    pub base_values: Vec<f64>,
    pub post: PostTransform,
    /// For classifiers: output 0 is the label, output 1 the scores. For regressors: none.
    pub labels: Option<Labels>,
}
