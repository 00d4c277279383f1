//! States: outputs of one run that are inputs of the next, kept by the context (docs/states.md).
//!
//! A graph with states is what the pass `states` makes of one without: callers give and read what they
//! did before, but where the values lie is decided here. Invariants, which the pass keeps: an input
//! and an output are part of one state at most; the stores of appended states are the last inputs of
//! the graph, and callers do not see them.

use crate::{Dim, Graph, NodeId, Op, ValueId};

/// An output whose value is an input's value in the next run.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// The input's number.
    pub input: u32,
    /// The output's number.
    pub output: u32,
    /// The axis along which it grows from run to run; `None`: none, or it is not known which.
    pub axis: Option<u32>,
    /// Where it lies; `None`: in two memories that change places after each run.
    pub store: Option<Store>,
}

/// The memory of a state that grows in place. The graph reads it as an input whose extent along the
/// state's axis is a capacity, and the output is that input's value with new rows behind the old.
#[derive(Clone, PartialEq, Debug)]
pub struct Store {
    /// The number of the input that is the store.
    pub input: u32,
    /// The dimensions of the output as callers see it.
    pub dims: Vec<Dim>,
}

impl Graph {
    /// The inputs that a caller gives: all but stores.
    pub fn open_inputs(&self) -> &[ValueId] {
        let stores = self.states.iter().filter(|s| s.store.is_some()).count();
        &self.inputs[..self.inputs.len().saturating_sub(stores)]
    }
    /// The state whose output this is, if its memory is a store.
    pub fn appended(&self, output: usize) -> Option<(&State, &Store)> {
        let state = self.states.iter().find(|s| s.output as usize == output)?;
        Some((state, state.store.as_ref()?))
    }
    /// The dimensions of an output as callers see it; empty for one without a rank.
    pub fn output_dims(&self, output: usize) -> &[Dim] {
        match (self.appended(output), self.outputs.get(output)) {
            (Some((_, store)), _) => &store.dims,
            (None, Some((_, v))) => self.dims(*v),
            (None, None) => &[],
        }
    }
    /// The store that a value is the next content of.
    pub fn store_of(&self, v: ValueId) -> Option<ValueId> {
        let state = self.states.iter().find(|s| {
            let output = self.outputs.get(s.output as usize);
            s.store.is_some() && output.is_some_and(|(_, o)| *o == v)
        })?;
        let store = state.store.as_ref()?;
        self.inputs.get(store.input as usize).copied()
    }
    /// Whether an operand of a concatenation along `axis` that makes the next content of `store` is what
    /// lies there already: the store's own rows from `before` on.
    pub fn lies_in_store(
        &self,
        operand: NodeId,
        store: ValueId,
        axis: usize,
        before: &Dim,
    ) -> bool {
        let node = &self.nodes[operand];
        let Op::Slice { start, step, size } = &node.op else {
            return false;
        };
        let whole = |i: usize| start[i].is_const(0) && size[i] == self.dims(store)[i];
        node.input(0) == Some(store)
            && step.iter().all(|s| *s == 1)
            && start.get(axis) == Some(before)
            && (0..start.len()).all(|i| i == axis || whole(i))
    }
}
