//! The plan: in which order a lowered program's steps run, and where every byte lies.
//!
//! In: a `Program`. Out: a [`Plan`]: steps cut into segments, buffers with lifetimes, the layout of
//! the weights blob, and the table of dimension slots that the driver fills. Addresses are not
//! decided here: the arena is planned by the runtime when sizes are known.
//!
//! * A *segment* is what runs between two moments at which sizes become known. The dims of a segment
//!   are computed at its start from symbols that are known by then; a step that needs more begins a
//!   new segment.
//! * A *place* says where an operand lies: an input, a buffer, the weights, pinned bytes.
//! * A *slot* is an entry of the context's `dims`: first one for each symbol, then derived ones.
//!
//! Invariants (see [`verify`]): a buffer is written before it is read; every slot that a segment uses
//! is computed in it or before; each output has one buffer of its own.

mod build;
mod slots;
mod text;
mod verify;
pub(crate) mod weights;

pub use build::plan;

use lapidary_graph::verify::DimCheck;
use lapidary_graph::{Container, DType, Dim, EntityMap, NodeId, ValueId, entity_id};
use lapidary_lower::program::{KernelId, LibraryStep};
pub use slots::DimsRef;
pub use weights::{WeightEntry, WeightSource, Weights};

entity_id!(
    /// A buffer of the plan.
    BufferId,
    "b"
);

/// What may be decided differently for code in memory and for files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanOptions {
    /// Raw constants of at least this many bytes, aligned for their elements, stay where they are
    /// instead of being copied into the weights; `None` for files.
    pub pin_from: Option<usize>,
}

impl PlanOptions {
    /// For code in memory: what is worth a pointer of its own stays where the model is mapped.
    pub const MEMORY: PlanOptions = PlanOptions {
        pin_from: Some(4096),
    };
    /// For files: all constants are in the weights.
    pub const FILE: PlanOptions = PlanOptions { pin_from: None };
}

/// Where an operand lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// The data of an input.
    Input(u32),
    Buffer(BufferId),
    /// At this offset of the model's weights blob.
    Weights(u64),
    /// The bytes of [`Plan::pinned`] with this number.
    Pinned(u32),
    /// The string tensor of [`Plan::strings`] with this number.
    Strings(u32),
}

/// Memory that a step writes.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// The value whose bytes it holds.
    pub value: ValueId,
    pub segment: u32,
    /// The first step that writes it.
    pub first: u32,
    /// The last step that touches it, or [`LIVE`].
    pub last: u32,
    /// The output that it is.
    pub output: Option<u32>,
    /// Its size; `None`: the step that makes it says.
    pub bytes: Option<Dim>,
}

/// `last` of a buffer that outlives its segment.
pub const LIVE: u32 = i32::MAX as u32;

/// A tensor operand of a library step.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    pub place: Place,
    pub dtype: DType,
    /// `None`: the rank is known at run time only, and the descriptor holds it.
    pub shape: Option<Vec<Dim>>,
    /// The outermost container, if it is no tensor.
    pub container: Option<Container>,
    /// Number of the descriptor; `None`: the input's own.
    pub desc: Option<u32>,
    /// The value, for printing.
    pub value: Option<ValueId>,
}

/// What a step does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    Kernel {
        kernel: KernelId,
        operands: Vec<Place>,
        writes: Vec<usize>,
        dims: Vec<Dim>,
        tasks: Dim,
        scratch_bytes: Dim,
        cost: Dim,
        flops: Dim,
    },
    Library {
        call: LibraryStep,
        inputs: Vec<Option<Tensor>>,
        outputs: Vec<Tensor>,
    },
    /// Bytes of one place into a buffer.
    Copy {
        from: Place,
        to: BufferId,
        bytes: Dim,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub struct PlanStep {
    pub action: Action,
    /// The node to blame: index into [`Plan::nodes`].
    pub node: Option<u32>,
    /// All nodes behind it.
    pub nodes: Vec<NodeId>,
}

/// Steps between two moments at which sizes become known.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Segment {
    /// Steps, as a range of [`Plan::steps`].
    pub first: u32,
    pub end: u32,
    /// Buffers that live in it.
    pub buffers: Vec<BufferId>,
    /// Outputs whose shape is known at its start and was not before.
    pub outputs: Vec<u32>,
    /// Relations tested at its start.
    pub checks: Vec<DimCheck>,
    /// Slots computed at its start, in order.
    pub slots: Vec<u32>,
}

/// A planned program: made by [`plan()`], read by the driver, printed by [`Plan::text`].
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) name: String,
    pub(crate) steps: Vec<PlanStep>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) buffers: EntityMap<BufferId, Buffer>,
    pub(crate) slots: slots::SlotTable,
    pub(crate) weights: Weights,
    /// Constants used where they are.
    pub(crate) pinned: Vec<ValueId>,
    /// String constants.
    pub(crate) strings: Vec<ValueId>,
    /// What inputs are where the caller gives nothing: the input, the constant, its place.
    pub(crate) defaults: Vec<(u32, ValueId, Place)>,
    /// Nodes that errors may name.
    pub(crate) nodes: Vec<NodeId>,
    /// Number of descriptors.
    pub(crate) descs: u32,
    /// The plans of the program's bodies. Their constants lie in the model's own weights.
    pub(crate) bodies: Vec<Plan>,
}
