//! The layout of the weights blob.
//!
//! One blob of constants that kernels read, each at a multiple of 64 bytes: first the small ones, which
//! share pages, then the big ones in the order in which the run reads them. Raw constants with the
//! same bytes stand once, also those of different bodies. Strings and constants used in place are not part of it.

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
    /// Whose constant it is: 0 is the model itself, then come the bodies, each before its own.
    pub program: u32,
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
    /// Program, source and size.
    sources: Vec<(u32, WeightSource, u64)>,
    index: HashMap<(u32, WeightSource), usize>,
    by_content: HashMap<(usize, u64), Vec<(Bytes, usize)>>,
    by_identity: HashMap<(usize, usize, String), usize>,
}

impl Layout {
    /// Notes a constant; returns its number, to be turned into a place by [`Layout::finish`].
    pub(super) fn add_raw(&mut self, program: u32, value: ValueId, bytes: &Bytes) -> usize {
        let source = WeightSource::Raw(value);
        if let Some(i) = self.index.get(&(program, source)) {
            return *i;
        }
        let key = (bytes.len(), sample(bytes));
        let same = self.by_content.entry(key).or_default();
        for (other, i) in same.iter() {
            if other.as_ptr() == bytes.as_ptr() || other == bytes {
                self.index.insert((program, source), *i);
                return *i;
            }
        }
        let i = self.sources.len();
        same.push((bytes.clone(), i));
        self.sources.push((program, source, bytes.len() as u64));
        self.index.insert((program, source), i);
        i
    }
    pub(super) fn add_prepared(
        &mut self,
        program: u32,
        constants: &EntityMap<ConstId, Prepared>,
        id: ConstId,
    ) -> usize {
        let key = (program, WeightSource::Prepared(id));
        if let Some(i) = self.index.get(&key) {
            return *i;
        }
        let prepared = constants.get(id);
        let identity = prepared.and_then(|p| p.identity.clone());
        let known = identity.as_ref().and_then(|k| self.by_identity.get(k));
        let i = match known {
            Some(i) => *i,
            None => {
                let bytes = prepared.map_or(0, |p| p.size as u64);
                self.sources.push((program, key.1, bytes));
                self.sources.len() - 1
            }
        };
        if let Some(identity) = identity {
            self.by_identity.insert(identity, i);
        }
        self.index.insert(key, i);
        i
    }
    /// The blob and the place of each number.
    pub(super) fn finish(self) -> (Weights, Vec<Place>) {
        let mut order: Vec<usize> = (0..self.sources.len()).collect();
        order.sort_by_key(|i| self.sources[*i].2 > SMALL);
        let mut weights = Weights::default();
        let mut places = vec![Place::Weights(0); self.sources.len()];
        for i in order {
            let (program, source, bytes) = self.sources[i];
            places[i] = Place::Weights(weights.bytes);
            weights.entries.push(WeightEntry {
                offset: weights.bytes,
                bytes,
                program,
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
