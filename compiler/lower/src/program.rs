//! The lowered program: what the plan is made from.

use bytes::Bytes;
use lapidary_codegen::loops::{LoopKernel, Schedule};
use lapidary_graph::{Dim, EntityMap, Graph, NodeId, ValueId, entity_id};
use std::collections::HashMap;

entity_id!(
    /// A kernel of the program.
    KernelId,
    "k"
);
entity_id!(
    /// A constant in the form that a kernel reads.
    ConstId,
    "c"
);

/// What a step reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// The bytes of a value, dense and row-major (an input, a constant, or a buffer).
    Value(ValueId),
    /// A prepared constant.
    Const(ConstId),
}

/// A prepared constant: bytes made while compiling (packed panels, transposed weights).
/// `make` runs late, and once, straight into the weights blob, so that nothing big is held twice.
pub struct Prepared {
    /// Bytes that `make` fills.
    pub size: usize,
    /// Writes exactly `size` bytes.
    pub make: Make,
    /// Address and length of the bytes that it is made of, and the form: the same for constants of
    /// several bodies that are one. `None`: like no other.
    pub identity: Option<(usize, usize, String)>,
}

/// Fills a prepared constant's bytes.
pub type Make = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// A kernel and how it is cut.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KernelDef {
    /// What it computes.
    pub loops: LoopKernel,
    /// In which order, and how wide.
    pub schedule: Schedule,
}

/// A call of a C kernel over descriptors: `lap_lib_<function>`.
#[derive(Clone, PartialEq, Debug)]
pub struct LibraryStep {
    /// The name behind `lap_lib_`.
    pub function: String,
    /// The integers of the attribute record.
    pub ints: Vec<i64>,
    /// Its numbers.
    pub floats: Vec<f64>,
    /// Its texts.
    pub strings: Vec<Bytes>,
    /// `None` is an absent optional input.
    pub inputs: Vec<Option<Operand>>,
    /// Dimensions that are expressions of known symbols are given to the kernel; a fresh symbol of
    /// this node is set by it.
    pub outputs: Vec<ValueId>,
    /// The node that it stands for.
    pub node: NodeId,
    /// Graphs that the kernel runs: positions in [`Program::bodies`].
    pub bodies: Vec<usize>,
}

/// A body of a region.
pub struct RegionBody {
    /// The body, lowered.
    pub program: Program,
    /// For each of its inputs the operand of the region that it is, or -1: the region makes it.
    pub args: Vec<i32>,
}

/// One step of the program.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A call of a generated kernel.
    Kernel {
        /// Which.
        kernel: KernelId,
        /// The kernel's `buffers` argument.
        buffers: Vec<Operand>,
        /// Operands that it writes (positions in `buffers`).
        writes: Vec<usize>,
        /// The kernel's `dims` argument, over the graph's symbols.
        dims: Vec<Dim>,
        /// How many tasks threads may share.
        tasks: Dim,
        /// Bytes of scratch memory a worker needs.
        scratch_bytes: Dim,
        /// Scalar operations of the whole call, for the choice of serial or parallel.
        cost: Dim,
        /// Multiply-add pairs times two, for reports; 0 where none.
        flops: Dim,
        /// The ONNX nodes behind it.
        nodes: Vec<NodeId>,
    },
    /// A call of a C kernel.
    Library(LibraryStep),
}

/// A lowered model.
pub struct Program {
    /// Types, names, symbols, inputs, outputs; the nodes serve names only.
    pub graph: Graph,
    /// In execution order.
    pub steps: Vec<Step>,
    /// Kernels, equal ones once.
    pub kernels: EntityMap<KernelId, KernelDef>,
    /// Constants in the form that kernels want.
    pub constants: EntityMap<ConstId, Prepared>,
    /// Values that are another value's bytes under another shape: alias to its source. Chains are
    /// resolved. A graph output that is an alias, an input or a constant is copied by the plan.
    pub aliases: HashMap<ValueId, ValueId>,
    /// What regions run, and variants: each a program of its own with its own symbols, steps and constants.
    pub bodies: Vec<RegionBody>,
    /// Positions in `bodies` of programs that stand for this one where the constant dims of their inputs
    /// are those of a run, in the order in which they are tried.
    pub variants: Vec<usize>,
}

impl Program {
    /// Adds a variant: the same model with some dims constant. Its graph's name is its guard's text.
    pub fn add_variant(&mut self, program: Program) {
        self.variants.push(self.bodies.len());
        self.bodies.push(RegionBody {
            program,
            args: Vec::new(),
        });
    }
}
