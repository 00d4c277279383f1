//! What ONNX says of the shapes of an operator's values, and which numbers of a node are axes.
//!
//! The facts are a table of text, `shapes.txt`, whose form `docs/shapes.md` tells. `read` makes [`ShapeFacts`] of an
//! operator's lines; `apply` computes with them, for a [`Node`] of sizes of any kind; `functions` and `windows` have what is no
//! list of sizes, over the arithmetic of `sizes`. Nothing here knows what the elements are, or where a node stands.

mod apply;
mod functions;
mod read;
mod sizes;
mod windows;

pub(super) use read::facts;

pub use apply::{
    Axes, Fault, Given, Node, Operation, Shape, Shapes, ShapesByRule, axes, axis, infer, infer_some,
};

/// What the table says of an operator from a version on.
#[derive(Clone, Debug, Default)]
pub struct ShapeFacts {
    /// The first whose conditions hold counts.
    pub cases: Vec<Case>,
}

impl ShapeFacts {
    /// What is said of an attribute or input that is axes, in any case.
    pub fn axis(&self, name: &str) -> Option<&AxisFact> {
        let mut axes = self.cases.iter().flat_map(|case| &case.axes);
        axes.find(|fact| fact.name == name)
    }

    /// The first that is said of axes.
    fn first_axis(&self) -> Option<&AxisFact> {
        self.cases.iter().find_map(|case| case.axes.first())
    }
}

/// Shapes under conditions.
#[derive(Clone, Debug)]
pub struct Case {
    /// As it stands in the table, behind name and version: conditions, inputs, outputs and axes, with bars between.
    pub text: &'static str,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What inputs must look like, by their number.
    pub inputs: Vec<(usize, Vec<Item>)>,
    /// What outputs look like, by the number of their parameter.
    pub outputs: Vec<(usize, ShapeRule)>,
    /// Attributes and inputs that are axes.
    pub axes: Vec<AxisFact>,
}

/// A condition of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An attribute, or its default, has this value, as text.
    Equals(&'static str, &'static str),
    /// A node has the attribute, or does not.
    Attribute(&'static str, bool),
    /// A node has the input, or does not.
    Input(usize, bool),
    /// The input is of this rank.
    Rank(usize, usize),
}

/// The shape of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShapeRule {
    /// Nothing is said: data decides even the rank, or the value is no tensor.
    Unknown,
    /// That of an input.
    Input(usize),
    /// A list of sizes.
    Sizes(Vec<Item>),
    /// That of an input, but for the sizes of some axes.
    Set(usize, Vec<(At, Expr)>),
    /// A function of inputs.
    Function(Function, Vec<usize>),
}

/// The axis that a size is set at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The one that an axis fact tells, by name.
    Fact(&'static str),
    /// This one; negative ones count from the end.
    Axis(i64),
}

/// An element of a list of sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// One size.
    One(Expr),
    /// The sizes that a variable stands for.
    Group(&'static str),
    /// A one for each of them.
    Ones(&'static str),
    /// A size that is not known for each of them.
    AnyOf(&'static str),
    /// The numbers of an attribute.
    Attribute(&'static str),
    /// The elements of an input, from one on.
    Elements(usize, usize),
}

/// A size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Any.
    Any,
    /// This number.
    Number(i64),
    /// What a variable stands for; [`OLD`] is the size that is being set.
    Variable(&'static str),
    /// A number that is an attribute.
    Attribute(&'static str),
    /// The only element of an input.
    Element(usize),
    /// The rank of an input.
    Rank(usize),
    /// Two sizes together.
    Of(Operation, Box<Expr>, Box<Expr>),
}

/// The variable for the size that an axis has before it is set.
pub const OLD: &str = "Old";

/// An attribute or input that names axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisFact {
    /// Its name.
    pub name: &'static str,
    /// If it is no attribute: the number of the input.
    pub input: Option<usize>,
    /// Whose axes they are.
    pub of: Counted,
    /// Several.
    pub list: bool,
    /// None may stand twice.
    pub distinct: bool,
    /// Which numbers are axes.
    pub range: AxisRange,
    /// What they are where a node does not say, and the attribute has no default.
    pub absent: Absent,
}

/// The value whose axes are counted, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// An input.
    Input(usize),
    /// An output.
    Output(usize),
}

/// Which numbers are axes of a value of rank r.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisRange {
    /// −r to r − 1.
    Signed,
    /// −r to r.
    Inclusive,
    /// 0 to r − 1.
    Unsigned,
}

/// Axes that a node does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The attribute's default, or none.
    Default,
    /// This one.
    Axis(i64),
    /// All.
    All,
    /// All of size 1.
    Ones,
    /// As many as there are numbers for them.
    First,
    /// All, the last one first.
    Reversed,
}

macro_rules! functions {
    ($($(#[doc = $doc:literal])+ $name:ident $word:literal,)+) => {
        /// Shapes that are no list of sizes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Function { $($(#[doc = $doc])+ $name,)+ }

        impl Function {
            /// All of them.
            pub const ALL: &[Function] = &[$(Function::$name,)+];

            /// Its name in the table.
            pub fn name(self) -> &'static str {
                match self { $(Function::$name => $word,)+ }
            }
        }
    };
}

functions! {
    /// The common shape of all inputs named, those of a variadic one included.
    Broadcast "broadcast",
    /// A product of matrices.
    MatMul "matmul",
    /// Without the axes of the row's fact, or with ones (`keepdims`, `noop_with_empty_axes`).
    Reduce "reduce",
    /// All of a variadic input along an axis.
    Concat "concat",
    /// One of several parts along an axis.
    Split "split",
    /// A range of each of some axes.
    Slice "slice",
    /// Larger at both ends of some axes.
    Pad "pad",
    /// Axes in another order.
    Transpose "transpose",
    /// As the second input says: 0 copies, −1 is what is left.
    Reshape "reshape",
    /// Broadcast with the sizes that the second input lists.
    Expand "expand",
    /// Each axis so many times.
    Tile "tile",
    /// Two axes, cut at the row's axis.
    Flatten "flatten",
    /// Without axes of size 1.
    Squeeze "squeeze",
    /// With more axes of size 1.
    Unsqueeze "unsqueeze",
    /// The second input in place of an axis of the first.
    Gather "gather",
    /// What the last axis of the second input points at.
    GatherNd "gather_nd",
    /// With one more axis, of the size that the second input tells.
    OneHot "one_hot",
    /// The number of axes between `start` and `end`.
    AxisCount "axis_count",
    /// A convolution of an image, channels first.
    Conv "conv",
    /// Windows over an image, channels first.
    Pool "pool",
    /// A transposed convolution, channels first.
    ConvTranspose "conv_transpose",
    /// Windows over an image put back.
    Unpool "unpool",
    /// Some axes by factors or to sizes.
    Resize "resize",
    /// Some axes to sizes.
    CropPad "crop_pad",
    /// Ones from the row's axis on.
    OnesFrom "ones_from",
    /// What the equation says.
    Einsum "einsum",
}
