//! The core operators: opset-free, few, each with its shape rule in [`crate::infer`] and its
//! meaning in [`crate::interp`].
//!
//! Static parameters that are sizes are [`Dim`]s, so that one node serves every shape. Where ONNX
//! takes such a parameter as a tensor whose value is not known when compiling, the importer emits
//! [`Op::Library`], whose output dimensions are fresh symbols born at run time.

use crate::tree::TreeEnsemble;
use crate::{Dim, Pointwise, PwOp};
use std::sync::Arc;

/// Kinds of reduction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceKind {
    /// 0 over nothing.
    Sum,
    /// The sum divided by the number of elements; of integers, truncated.
    Mean,
    /// NaN where one element is.
    Max,
    /// NaN where one element is.
    Min,
    /// 1 over nothing.
    Prod,
    /// Sum of squares.
    SumSquare,
    /// Sum of absolute values.
    L1,
    /// Square root of the sum of squares.
    L2,
    /// Logarithm of the sum.
    LogSum,
    /// Logarithm of the sum of exponentials (shifted by the maximum).
    LogSumExp,
    /// Logical or bitwise.
    And,
    /// Logical or bitwise.
    Or,
}

/// Order of the axes of an image-like tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// Batch, channels, space.
    ChannelsFirst,
    /// Batch, space, channels.
    ChannelsLast,
}

/// A window that moves over the spatial axes. All vectors have one entry a spatial axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// Free where the weights' size is.
    pub kernel: Vec<Dim>,
    /// Elements from one position to the next, at least 1.
    pub strides: Vec<i64>,
    /// Elements from one tap to the next, at least 1.
    pub dilations: Vec<i64>,
    /// Zeros (or ignored positions) before each axis.
    pub pads_begin: Vec<Dim>,
    /// The same behind each axis.
    pub pads_end: Vec<Dim>,
    /// That of the image and of the result; weights are always channels first.
    pub layout: Layout,
}

/// What a pool makes of its window; docs/semantics.md says what happens at the borders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PoolKind {
    /// The greatest element inside of the image.
    Max,
    /// The divisor counts padding or not.
    Average {
        /// Whether the divisor is that of image and padding, or of the image alone.
        count_padding: bool,
    },
    /// The p-norm.
    Lp {
        /// At least 1.
        p: i64,
    },
}

/// What stands beyond the borders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PadMode {
    /// Input 1 is the scalar; absent means 0.
    Constant,
    /// The nearest element.
    Edge,
    /// To and fro, without repeating the ends.
    Reflect,
    /// From the other end.
    Wrap,
}

/// How an update meets what is there: in index order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScatterReduce {
    /// The last update stays.
    Set,
    /// The sum.
    Add,
    /// The product.
    Mul,
    /// The lesser; NaN where one is.
    Min,
    /// The greater; NaN where one is.
    Max,
}

/// What rows are normalised by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NormKind {
    /// Subtracts the mean, divides by the root of the variance; over axes `axis..`.
    Layer,
    /// Divides by the root mean square; over axes `axis..`.
    Rms,
}

/// Attention over `q [B, H, S, D]`, `k [B, H', T, D]`, `v [B, H', T, E]` to `[B, H, S, E]`
/// (H a multiple of H'): `softmax(cap(scale * q kᵀ) + mask) v`.
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionAttrs {
    /// The factor of the scores, `1 / sqrt(D)` in most models.
    pub scale: f32,
    /// Query i attends to key j <= i + f only, where f is T - S or what the last input says.
    pub causal: bool,
    /// Input 3 is an additive f32 mask, broadcast to `[B, H, S, T]`.
    pub has_mask: bool,
    /// `cap(x)` is `softcap * tanh(x / softcap)`; x itself where this is 0.
    pub softcap: f32,
    /// With `causal`: query i attends to key j > i + f - window only.
    pub window: Option<i64>,
    /// With `causal`: an input behind the mask, i32 `[B]`, is f: the position of query 0 among the keys.
    pub has_first: bool,
    /// The last input, f32 `[H]`, is the score of one more key for each head, whose value is zero.
    pub has_sink: bool,
}

impl AttentionAttrs {
    /// Neither mask nor cap: all keys, or with `causal` those up to the query's own place.
    pub fn plain(scale: f32, causal: bool) -> Self {
        AttentionAttrs {
            scale,
            causal,
            has_mask: false,
            softcap: 0.0,
            window: None,
            has_first: false,
            has_sink: false,
        }
    }
    /// The input that is the mask, the first position, the sink: in this order, those that there are.
    pub fn mask(&self) -> Option<usize> {
        self.has_mask.then_some(3)
    }
    /// The input that holds the position of query 0.
    pub fn first(&self) -> Option<usize> {
        self.has_first.then_some(3 + self.has_mask as usize)
    }
    /// The input that holds the scores of the sinks.
    pub fn sink(&self) -> Option<usize> {
        self.has_sink.then_some(self.inputs() - 1)
    }
    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        3 + self.has_mask as usize + self.has_first as usize + self.has_sink as usize
    }
}

/// A call of a C kernel over run-time descriptors, for what loops do not express or where the
/// output's shape comes from data. The C function is `lap_lib_<name>`.
#[derive(Clone, PartialEq, Debug)]
pub struct LibraryCall {
    /// The C function's name behind `lap_lib_`.
    pub name: String,
    /// The attribute record, as the kernel's own comment defines it.
    pub ints: Vec<i64>,
    /// The floats of that record.
    pub floats: Vec<f64>,
    /// Constant strings or bytes, where the kernel takes some.
    pub strings: Vec<bytes::Bytes>,
}

/// What a region does with its bodies; docs/regions.md has the rules.
#[derive(Clone, PartialEq, Debug)]
pub enum RegionKind {
    /// Operand 0 is the condition (bool, one element). Bodies: then, else. Every body input is an
    /// operand; the outputs are the chosen body's.
    If,
    /// Operands: trip count (i64, may be absent), condition (bool, may be absent: then that of the body
    /// is not looked at either), `carried` initial values, captures. The body's first inputs are the iteration (i64 scalar), the condition (bool
    /// scalar), the carried values; its outputs the condition, the carried values, the scan outputs.
    /// Outputs: the carried values, then each scan output stacked along a new first axis.
    Loop {
        /// How many values go from one iteration to the next.
        carried: usize,
    },
    /// Operands: `states` initial values, one tensor for each of `inputs`, captures. The body's first
    /// inputs are the states and one slice of each scanned input; its outputs the states and one
    /// slice of each of `outputs`. Outputs: the states, then each scan output stacked along its axis.
    Scan {
        /// How many values go from one iteration to the next.
        states: usize,
        /// Axis (from the front) and whether it is walked backwards.
        inputs: Vec<(usize, bool)>,
        /// Axis of the stacked output (negative: from the end) and whether slices are put in front.
        outputs: Vec<(i64, bool)>,
    },
}

/// Where an input of a body comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BodyArg {
    /// This operand of the region.
    Operand(usize),
    /// The region makes it: the iteration, the condition, a carried value, a slice.
    Own,
}

/// A graph that a region runs. It sees nothing but its inputs: values of the graph around it are
/// operands of the region.
#[derive(Clone, PartialEq, Debug)]
pub struct Body {
    /// Its inputs and outputs are what the [`RegionKind`] says.
    pub graph: crate::Graph,
    /// One for each input of the graph.
    pub args: Vec<BodyArg>,
}

/// Control flow: an operator that runs graphs. Its output types are stated by the importer.
#[derive(Clone, PartialEq, Debug)]
pub struct Region {
    /// What is done with the bodies.
    pub kind: RegionKind,
    /// As many as the kind takes: two for `If`, one for the others.
    pub bodies: Vec<Body>,
}

/// One core operator.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// One expression over inputs broadcast by the ONNX rule (aligned at the last axis). With a
    /// shape, inputs are broadcast to it; without, the output's is the broadcast of the inputs'.
    Pointwise {
        /// Its inputs are the node's.
        body: Pointwise,
        /// That of the output, where it is more than the broadcast of the inputs'.
        shape: Option<Vec<Dim>>,
    },
    /// The i64 vector of these dimensions.
    Shape(Vec<Dim>),
    /// `out[o…] = sum a[…] * b[…]` over labels that `out` lacks. Labels index one extent each; an
    /// operand whose extent is 1 where the other's is not is broadcast. f32, f64 and integers.
    Contract {
        /// The label of each axis of input 0.
        a: Vec<u8>,
        /// The label of each axis of input 1.
        b: Vec<u8>,
        /// The label of each axis of the output; no label twice.
        out: Vec<u8>,
    },
    /// Inputs x, w `[M, C/groups, k…]`, optional bias `[M]`; w is never in another order.
    /// As many groups as channels are free where those are.
    Conv {
        /// Where it lies; `layout` is that of x and of the output.
        window: Window,
        /// Divides the channels of x and M.
        groups: Dim,
    },
    /// Inputs x, w `[C, M/groups, k…]`, optional bias. Pads crop the full output.
    ConvTranspose {
        /// Where it lies; `layout` is that of x and of the output.
        window: Window,
        /// Divides C.
        groups: i64,
        /// Positions that are added at the end of each spatial axis.
        output_padding: Vec<i64>,
    },
    /// The output sizes are stated, since ONNX's ceil mode has rules of its own.
    Pool {
        /// What becomes of the elements in the window.
        kind: PoolKind,
        /// Where it lies.
        window: Window,
        /// The size of each spatial axis of the output.
        out: Vec<Dim>,
    },
    /// Over these axes at once; over none, each element for itself.
    Reduce {
        /// How elements are combined.
        kind: ReduceKind,
        /// Each once.
        axes: Vec<usize>,
        /// Whether the axes stay, with extent 1.
        keep: bool,
    },
    /// Position of the greatest or least element as i64.
    ArgReduce {
        /// The greatest, else the least.
        max: bool,
        /// The axis that is searched.
        axis: usize,
        /// Whether it stays, with extent 1.
        keep: bool,
        /// Of equal elements the last, else the first.
        last: bool,
    },
    /// Running sum along an axis.
    CumSum {
        /// The axis along which it runs.
        axis: usize,
        /// Each sum is without its own element.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    },
    /// `exp(x - max) / sum(exp(x - max))` along one axis.
    Softmax {
        /// The axis whose elements sum to 1.
        axis: usize,
        /// The logarithm of that.
        log: bool,
    },
    /// Inputs x, optional scale, optional bias (broadcast to x's trailing axes).
    Normalize {
        /// What a row is divided by.
        kind: NormKind,
        /// The first axis of a row; the last is the tensor's.
        axis: usize,
        /// Added to the mean square before the root.
        epsilon: f32,
    },
    /// Queries, keys and values to what the queries read; see [`AttentionAttrs`].
    Attention(AttentionAttrs),
    // Views.
    /// The same bytes under another shape of as many elements.
    Reshape {
        /// The output's.
        shape: Vec<Dim>,
    },
    /// The axes in another order.
    Transpose {
        /// The input's axis behind each axis of the output.
        perm: Vec<usize>,
    },
    /// ONNX Expand: broadcast to the stated shape.
    Broadcast {
        /// The output's.
        shape: Vec<Dim>,
    },
    /// One entry an axis; a negative step walks down from `start`.
    Slice {
        /// The first element taken, from the front.
        start: Vec<Dim>,
        /// Not 0.
        step: Vec<i64>,
        /// How many are taken.
        size: Vec<Dim>,
    },
    /// Any number of inputs, end to end.
    Concat {
        /// The one along which they may differ.
        axis: usize,
    },
    /// Elements in front and behind; negative ones crop.
    Pad {
        /// In front, one entry an axis.
        before: Vec<Dim>,
        /// Behind, one entry an axis.
        after: Vec<Dim>,
        /// What the new elements are.
        mode: PadMode,
    },
    /// Output axes: data's before `axis`, the indices', data's after. Negative indices count from the end.
    Gather {
        /// The axis of data that is indexed.
        axis: usize,
    },
    /// `out[i…] = data[i…, with indices[i…] at axis]`; the output has the indices' shape.
    GatherElements {
        /// The axis of data that is indexed.
        axis: usize,
    },
    /// The last axis of the indices holds positions in data behind the batch axes; what they leave is taken whole.
    GatherNd {
        /// Leading axes that data and indices share.
        batch: usize,
    },
    /// Inputs data, indices, updates.
    ScatterElements {
        /// The axis of data that is indexed.
        axis: usize,
        /// How an update meets what is there.
        reduce: ScatterReduce,
    },
    /// Inputs data, indices, updates; the last axis of the indices holds positions in data.
    ScatterNd {
        /// How an update meets what is there.
        reduce: ScatterReduce,
    },
    /// ai.onnx.ml ensembles; input x, outputs scores or (label, scores).
    Trees(Arc<TreeEnsemble>),
    /// A C kernel; its output types are stated by the importer.
    Library(LibraryCall),
    /// Control flow over graphs of its own.
    Region(Box<Region>),
}

impl Op {
    /// The name in text forms and in error messages.
    pub fn name(&self) -> &str {
        match self {
            Op::Pointwise { .. } => "pointwise",
            Op::Shape(_) => "shape",
            Op::Contract { .. } => "contract",
            Op::Conv { .. } => "conv",
            Op::ConvTranspose { .. } => "conv_transpose",
            Op::Pool { .. } => "pool",
            Op::Reduce { .. } => "reduce",
            Op::ArgReduce { .. } => "arg_reduce",
            Op::CumSum { .. } => "cumsum",
            Op::Softmax { .. } => "softmax",
            Op::Normalize { .. } => "normalize",
            Op::Attention(_) => "attention",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Broadcast { .. } => "broadcast",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Pad { .. } => "pad",
            Op::Gather { .. } => "gather",
            Op::GatherElements { .. } => "gather_elements",
            Op::GatherNd { .. } => "gather_nd",
            Op::ScatterElements { .. } => "scatter_elements",
            Op::ScatterNd { .. } => "scatter_nd",
            Op::Trees(_) => "trees",
            Op::Library(_) => "library",
            Op::Region(r) => match r.kind {
                RegionKind::If => "if",
                RegionKind::Loop { .. } => "loop",
                RegionKind::Scan { .. } => "scan",
            },
        }
    }

    /// The operator with every dimension in it (and in its expression) replaced.
    pub(crate) fn map_dims(&self, f: &mut dyn FnMut(&Dim) -> Dim) -> Op {
        let mut op = self.clone();
        for d in op.dims_mut() {
            let new = f(d);
            *d = new;
        }
        op
    }
    /// Every dimension in the operator (and in its expression).
    pub fn dims(&self) -> Vec<Dim> {
        let mut all = Vec::new();
        for d in self.clone().dims_mut() {
            all.push(d.clone());
        }
        all
    }
    fn dims_mut(&mut self) -> Vec<&mut Dim> {
        match self {
            Op::Pointwise { body, shape } => {
                let inner = body.nodes.iter_mut().filter_map(|n| match &mut n.op {
                    PwOp::Dim(d) => Some(d),
                    _ => None,
                });
                inner.chain(shape.iter_mut().flatten()).collect()
            }
            Op::Shape(dims) => dims.iter_mut().collect(),
            Op::Reshape { shape } | Op::Broadcast { shape } => shape.iter_mut().collect(),
            Op::Conv { window, groups } => window.dims_mut().chain([groups]).collect(),
            Op::ConvTranspose { window, .. } => window.dims_mut().collect(),
            Op::Pool { window, out, .. } => window.dims_mut().chain(out).collect(),
            Op::Slice { start, size, .. } => start.iter_mut().chain(size).collect(),
            Op::Pad { before, after, .. } => before.iter_mut().chain(after).collect(),
            Op::Contract { .. }
            | Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::CumSum { .. }
            | Op::Softmax { .. }
            | Op::Normalize { .. }
            | Op::Attention(_)
            | Op::Transpose { .. }
            | Op::Concat { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. }
            | Op::ScatterElements { .. }
            | Op::ScatterNd { .. }
            | Op::Trees(_)
            | Op::Library(_)
            | Op::Region(_) => Vec::new(),
        }
    }
}

impl Window {
    fn dims_mut(&mut self) -> impl Iterator<Item = &mut Dim> {
        let pads = self.pads_begin.iter_mut().chain(&mut self.pads_end);
        self.kernel.iter_mut().chain(pads)
    }
}
