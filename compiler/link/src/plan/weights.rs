//! The layout of the weights blob.
//!
//! One blob of constants that kernels read, each at a multiple of 64 bytes: first the small ones, which
//! share pages, then the big ones in the order in which the run reads them. Raw constants with the
//! same bytes stand once. Strings and constants used in place are not part of it.

use super::Place;
use bytes::Bytes;
use lapidary_graph::EntityMap;
use lapidary_graph::{Graph, ValueId};
use lapidary_lower::program::{ConstId, Operand, Prepared};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Alignment of every entry.
pub const ALIGN: u64 = 64;
/// What counts as small.
const SMALL: u64 = 4096;

/// Where an entry's bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WeightSource {
    Raw(ValueId),
    Prepared(ConstId),
}

#[derive(Clone, PartialEq, Debug)]
pub struct WeightEntry {
    pub offset: u64,
    pub bytes: u64,
    pub source: WeightSource,
}

/// The blob.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Weights {
    /// Sorted by offset; they do not overlap.
    pub entries: Vec<WeightEntry>,
    /// Size of the whole, a multiple of 64.
    pub bytes: u64,
}

/// Finds out which constants are read, and lays them out.
#[derive(Default)]
pub(super) struct Layout {
    sources: Vec<(WeightSource, u64)>,
    index: HashMap<WeightSource, usize>,
    by_content: HashMap<(usize, u64), Vec<(ValueId, usize)>>,
}

impl Layout {
    /// Notes a constant; returns its number, to be turned into a place by [`Layout::finish`].
    pub(super) fn add_raw(&mut self, graph: &Graph, value: ValueId, bytes: &Bytes) -> usize {
        let source = WeightSource::Raw(value);
        if let Some(i) = self.index.get(&source) {
            return *i;
        }
        let key = (bytes.len(), sample(bytes));
        let same = self.by_content.entry(key).or_default();
        for (other, i) in same.iter() {
            if let Some(data) = graph.constant(*other)
                && (data.bytes.as_ptr() == bytes.as_ptr() || data.bytes == *bytes)
            {
                self.index.insert(source, *i);
                return *i;
            }
        }
        let i = self.sources.len();
        same.push((value, i));
        self.sources.push((source, bytes.len() as u64));
        self.index.insert(source, i);
        i
    }
    pub(super) fn add_prepared(
        &mut self,
        constants: &EntityMap<ConstId, Prepared>,
        id: ConstId,
    ) -> usize {
        let source = WeightSource::Prepared(id);
        *self.index.entry(source).or_insert_with(|| {
            let bytes = constants.get(id).map_or(0, |p| p.size as u64);
            self.sources.push((source, bytes));
            self.sources.len() - 1
        })
    }
    /// The blob and the place of each number.
    pub(super) fn finish(self) -> (Weights, Vec<Place>) {
        let mut order: Vec<usize> = (0..self.sources.len()).collect();
        order.sort_by_key(|i| self.sources[*i].1 > SMALL);
        let mut weights = Weights::default();
        let mut places = vec![Place::Weights(0); self.sources.len()];
        for i in order {
            let (source, bytes) = self.sources[i];
            places[i] = Place::Weights(weights.bytes);
            weights.entries.push(WeightEntry {
                offset: weights.bytes,
                bytes,
                source,
            });
            weights.bytes = (weights.bytes + bytes).next_multiple_of(ALIGN);
        }
        // A constant of no bytes still needs an address inside the blob.
        if weights.bytes == 0 && !weights.entries.is_empty() {
            weights.bytes = ALIGN;
        }
        (weights, places)
    }
}

/// A hash of the first and last bytes: equal contents have equal hashes.
fn sample(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let end = bytes.len().min(2048);
    bytes.get(..end).unwrap_or_default().hash(&mut hasher);
    bytes
        .get(bytes.len() - end..)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// The constants that an operand may stand for, for error messages.
pub(super) fn operand_name(graph: &Graph, operand: &Operand) -> String {
    match operand {
        Operand::Value(v) => match graph.values.get(*v) {
            Some(data) => format!("{v} `{}`", data.name),
            None => format!("{v}"),
        },
        Operand::Const(c) => format!("{c}"),
    }
}
