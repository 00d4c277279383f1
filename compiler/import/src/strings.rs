//! Movement of strings: core operators that carry elements, as library calls.
//!
//! Loops know elements of a fixed width only. So an operator that would move strings is never made: the
//! builder asks here, and gets the kernel that does the same (docs/library.md), with sizes and starts
//! as tensors. A reshape stays what it is, another name for the same bytes.

use bytes::Bytes;
use lapidary_graph::op::{LibraryCall, PadMode, ScatterReduce};
use lapidary_graph::{DType, Dim, Op, TensorType, ValueId};

use crate::builder::{Builder, LibOut};
use crate::error::{Fail, unsupported};

impl Builder {
    /// Whether a core operator would have to handle strings.
    pub(crate) fn reads_strings(&self, op: &Op, inputs: &[Option<ValueId>]) -> bool {
        let passes = matches!(op, Op::Reshape { .. } | Op::Library(_) | Op::Region(_));
        let first = inputs.first().copied().flatten();
        !passes && first.is_some_and(|v| self.dtype(v) == DType::String)
    }

    /// The library call that moves strings as `op` moves elements; `types` are its results'.
    pub(crate) fn move_strings(
        &mut self,
        op: &Op,
        inputs: &[Option<ValueId>],
        types: Vec<TensorType>,
    ) -> Result<Vec<ValueId>, Fail> {
        let number = |axis: &usize| *axis as i64;
        let mut inputs = inputs.to_vec();
        let (name, ints) = match op {
            Op::Transpose { perm } => ("transpose", perm.iter().map(number).collect()),
            Op::Broadcast { shape } => {
                inputs.push(Some(self.sizes(shape)?));
                ("expand", vec![])
            }
            Op::Slice { start, step, size } => {
                inputs.push(Some(self.sizes(start)?));
                inputs.push(Some(self.sizes(size)?));
                ("slice_box", step.clone())
            }
            Op::Concat { axis } => ("concat", vec![number(axis)]),
            Op::Gather { axis } => ("gather", vec![number(axis)]),
            Op::GatherElements { axis } => ("gather_elements", vec![number(axis)]),
            Op::GatherNd { batch } => ("gather_nd", vec![number(batch)]),
            Op::ScatterElements {
                axis,
                reduce: ScatterReduce::Set,
            } => ("scatter_elements", vec![number(axis)]),
            Op::ScatterNd {
                reduce: ScatterReduce::Set,
            } => ("scatter_nd", vec![]),
            Op::Pad {
                before,
                after,
                mode,
            } => {
                let pads: Vec<Dim> = before.iter().chain(after).cloned().collect();
                let pads = self.sizes(&pads)?;
                inputs.insert(1, Some(pads));
                let mode = match mode {
                    PadMode::Constant => 0,
                    PadMode::Edge => 1,
                    PadMode::Reflect => 2,
                    PadMode::Wrap => 3,
                };
                ("pad", vec![mode])
            }
            _ => return Err(unsupported("string tensors")),
        };
        let outs = types.into_iter().map(|t| match t.shape {
            Some(dims) => LibOut::fixed(t.dtype, dims),
            None => LibOut::unranked(t.dtype),
        });
        let outs = outs.collect();
        Ok(self.library(name, ints, vec![], inputs, outs))
    }

    /// An i64 vector of sizes.
    fn sizes(&mut self, dims: &[Dim]) -> Result<ValueId, Fail> {
        self.materialise(dims.to_vec(), &[dims.len() as i64], DType::I64)
    }

    /// The number of each element's key, `missing` for what is none (where `strict`, that ends the
    /// run). Kernel `find`.
    pub(crate) fn find(
        &mut self,
        x: ValueId,
        keys: &Keys,
        numbers: &[i64],
        missing: i64,
        strict: bool,
    ) -> Result<ValueId, Fail> {
        let (strings, nan) = keys.table(numbers);
        let kind = match keys {
            Keys::Strings(_) => 0,
            Keys::Ints(_) => 1,
            Keys::Floats(_) => 2,
        };
        if nan.is_none() && strict && kind == 2 {
            return Err(unsupported("strict categories that are floats"));
        }
        let out = match &self.g.ty(x).shape {
            Some(dims) => LibOut::fixed(DType::I64, dims.clone()),
            None => LibOut::unranked(DType::I64),
        };
        let call = LibraryCall {
            name: "find".into(),
            ints: vec![kind, missing, strict as i64, nan.unwrap_or(missing)],
            floats: vec![],
            strings: strings.to_vec(),
        };
        crate::builder::first(&self.library_call(call, vec![Some(x)], vec![out]))
    }
}

/// Keys of a mapping.
pub(crate) enum Keys {
    Strings(Vec<Bytes>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
}

impl Keys {
    pub fn len(&self) -> usize {
        match self {
            Keys::Strings(k) => k.len(),
            Keys::Ints(k) => k.len(),
            Keys::Floats(k) => k.len(),
        }
    }

    /// The table that kernels search: keys ascending, offsets (of strings), numbers; and the number of
    /// NaN. Of equal keys the last counts.
    pub fn table(&self, numbers: &[i64]) -> ([Bytes; 3], Option<i64>) {
        let mut order: Vec<usize> = (0..self.len().min(numbers.len())).collect();
        // Stable, so that the last of equal keys stands last.
        match self {
            Keys::Strings(k) => order.sort_by(|a, b| k[*a].cmp(&k[*b])),
            Keys::Ints(k) => order.sort_by_key(|i| k[*i]),
            Keys::Floats(k) => order.sort_by(|a, b| k[*a].total_cmp(&k[*b])),
        }
        let same = |a: usize, b: usize| match self {
            Keys::Strings(k) => k[a] == k[b],
            Keys::Ints(k) => k[a] == k[b],
            Keys::Floats(k) => k[a] == k[b],
        };
        let is_nan = |i: usize| matches!(self, Keys::Floats(k) if k[i].is_nan());
        let nan = (0..order.len()).rfind(|i| is_nan(*i)).map(|i| numbers[i]);
        let mut chosen: Vec<usize> = Vec::with_capacity(order.len());
        for i in order {
            if is_nan(i) {
                continue;
            }
            match chosen.last_mut() {
                // 0 and -0 are equal too, in the order of their signs.
                Some(last) if same(*last, i) => *last = i.max(*last),
                _ => chosen.push(i),
            }
        }
        let mut keys = Vec::new();
        let mut offsets = Vec::new();
        for i in &chosen {
            match self {
                Keys::Strings(k) => {
                    offsets.extend((keys.len() as i64).to_le_bytes());
                    keys.extend(&k[*i]);
                }
                Keys::Ints(k) => keys.extend(k[*i].to_le_bytes()),
                Keys::Floats(k) => keys.extend(k[*i].to_le_bytes()),
            }
        }
        if matches!(self, Keys::Strings(_)) {
            offsets.extend((keys.len() as i64).to_le_bytes());
        }
        let numbers: Vec<u8> = chosen
            .iter()
            .flat_map(|i| numbers[*i].to_le_bytes())
            .collect();
        ([keys.into(), offsets.into(), numbers.into()], nan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i64s(b: &Bytes) -> Vec<i64> {
        b.as_chunks::<8>()
            .0
            .iter()
            .map(|c| i64::from_le_bytes(*c))
            .collect()
    }

    #[test]
    fn keys_are_sorted_and_the_last_of_equal_ones_counts() {
        let k = Keys::Strings(
            ["b", "a", "b", ""]
                .map(|s| Bytes::from(s.to_string()))
                .to_vec(),
        );
        let ([keys, offsets, numbers], nan) = k.table(&[1, 2, 3, 4]);
        assert_eq!(&keys[..], b"ab");
        assert_eq!(i64s(&offsets), [0, 0, 1, 2]);
        assert_eq!(i64s(&numbers), [4, 2, 3]);
        assert_eq!(nan, None);
    }

    #[test]
    fn a_missing_value_among_float_keys_has_a_number_of_its_own() {
        let k = Keys::Floats(vec![f64::NAN, 0.0, -0.0, f64::NAN]);
        let ([_, _, numbers], nan) = k.table(&[5, 6, 7, 8]);
        assert_eq!((i64s(&numbers), nan), (vec![7], Some(8)));
    }
}
