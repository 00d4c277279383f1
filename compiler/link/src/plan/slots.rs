//! Slots: the run-time table of dimensions.
//!
//! The first slots are the graph's symbols, set by the binding of the inputs or after the library
//! step that makes them. Behind them lie runs: a kernel reads its `dims` argument as a contiguous
//! run, equal runs are shared, and a single expression may be found inside any run.

use lapidary_graph::Dim;
use std::collections::HashMap;

/// A derived entry of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Slot {
    pub dim: Dim,
    /// The segment at whose start it is computed.
    pub segment: u32,
    /// The node to blame, as an index of the plan's nodes.
    pub node: Option<u32>,
}

/// Where a run of dimensions lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DimsRef {
    /// There are none.
    Empty,
    /// At this slot of the context's table.
    Slots(u32),
    /// At this number of the constant pool.
    Consts(u32),
}

/// All slots and constant runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SlotTable {
    /// Slots `0..symbols` are the graph's symbols.
    pub symbols: u32,
    /// The slots behind them.
    pub derived: Vec<Slot>,
    /// Runs without symbols.
    pub consts: Vec<i64>,
    runs: HashMap<Vec<Dim>, DimsRef>,
    single: HashMap<Dim, u32>,
}

impl SlotTable {
    pub(super) fn new(symbols: usize) -> Self {
        SlotTable {
            symbols: symbols as u32,
            ..Default::default()
        }
    }
    pub fn len(&self) -> usize {
        self.symbols as usize + self.derived.len()
    }
    /// Makes sure that the run exists from `segment` on; returns the new slots.
    pub(super) fn run(&mut self, dims: &[Dim], segment: u32, node: Option<u32>) -> Vec<u32> {
        if dims.is_empty() || self.runs.contains_key(dims) {
            return Vec::new();
        }
        let constants: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
        if let Some(values) = constants {
            let at = self.consts.len() as u32;
            self.consts.extend(values);
            self.runs.insert(dims.to_vec(), DimsRef::Consts(at));
            return Vec::new();
        }
        if let [one] = dims
            && let Some(at) = self.slot(one)
        {
            self.runs.insert(dims.to_vec(), DimsRef::Slots(at));
            return Vec::new();
        }
        let at = self.len() as u32;
        for (i, dim) in dims.iter().enumerate() {
            self.derived.push(Slot {
                dim: dim.clone(),
                segment,
                node,
            });
            self.single.entry(dim.clone()).or_insert(at + i as u32);
        }
        self.runs.insert(dims.to_vec(), DimsRef::Slots(at));
        (at..self.len() as u32).collect()
    }
    /// Where a run lies that [`Self::run`] has made.
    pub fn find(&self, dims: &[Dim]) -> DimsRef {
        self.runs.get(dims).copied().unwrap_or(DimsRef::Empty)
    }
    /// The slot of one expression.
    pub fn slot(&self, dim: &Dim) -> Option<u32> {
        match dim.as_sym() {
            Some(s) if s.0 < self.symbols => Some(s.0),
            _ => self.single.get(dim).copied(),
        }
    }
}
