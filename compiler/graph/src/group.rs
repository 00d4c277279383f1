//! Fusion groups: which nodes become one kernel.
//!
//! Formed by a pass, read by lowering, which inlines a group into one nest. The groups partition
//! the live nodes; a value made and read inside one group alone never reaches memory.

use crate::{NodeId, ValueId};
use std::collections::BTreeMap;
use std::ops::Deref;

/// What a group is lowered as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GroupKind {
    /// Pointwise operators, views and gathers: one expression per output element. All outputs have
    /// the iteration shape of the last node, or are reshapes of it.
    Pointwise,
    /// Reductions over the same trailing axes, with pointwise operators before, between and after:
    /// rows `[.., D]` and statistics `[.., 1]` (or without the axis). Outputs: rows or statistics.
    Row,
    /// `Op::Contract` as anchor, a pointwise (and view) tail on its result.
    Contract,
    /// `Op::Conv` as anchor, a pointwise tail.
    Conv,
    /// `Op::Pool` as anchor, a pointwise tail.
    Pool,
    /// `Op::Attention` as anchor, with views folded into its operands and its result.
    Attention,
    /// Any other single node: lowered by its own rule or called in the library.
    Single,
}

/// One group.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// What it is lowered as.
    pub kind: GroupKind,
    /// In execution order.
    pub nodes: Vec<NodeId>,
    /// The node that gives the group its nest, for kinds that have one.
    pub anchor: Option<NodeId>,
    /// Values read from outside (constants among them), each once.
    pub inputs: Vec<ValueId>,
    /// Values that others (or the caller) read.
    pub outputs: Vec<ValueId>,
}

/// The groups of a graph in execution order, and those of the bodies of its regions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Groups {
    /// They partition the live nodes; a group comes after those that it reads from.
    pub list: Vec<Group>,
    /// For each live region, those of each of its bodies.
    pub bodies: BTreeMap<NodeId, Vec<Groups>>,
}

impl Deref for Groups {
    type Target = [Group];
    fn deref(&self) -> &[Group] {
        &self.list
    }
}
