//! Operators on values whose rank is known at run time only.
//!
//! Loops are written for a rank. So a library kernel brings the operands to one that is known (vectors, or batches of
//! matrices), the operator works on these, and the result gets the shape that the kernel found. Each such operator
//! copies its operands; where that costs too much, the input's shape can be fixed.

use lapidary_graph::{DType, Op, Pointwise, ValueId};

use crate::builder::{Builder, LibOut, first};
use crate::error::{Fail, unsupported};

impl Builder {
    /// An expression over operands broadcast together, some without a known rank.
    ///
    /// Library `flatten_together`. Inputs: the operands. Outputs: their common shape (i64), then each broadcast to it, as
    /// a vector.
    pub(crate) fn pointwise_unranked(
        &mut self,
        body: Pointwise,
        inputs: &[ValueId],
    ) -> Result<ValueId, Fail> {
        let mut outs = vec![LibOut::new(DType::I64, [None])];
        let mut length = None;
        for v in inputs {
            if !self.g.ty(*v).is_tensor() {
                return Err(unsupported("a value that is no tensor"));
            }
            // All have the length that is born at the first.
            let length = length.get_or_insert_with(|| self.symbol(1, 0)).clone();
            outs.push(LibOut::fixed(self.dtype(*v), [length]));
        }
        let operands = inputs.iter().copied().map(Some).collect();
        let flat = self.library("flatten_together", vec![], vec![], operands, outs);
        let y = self.emit1(Op::Pointwise { body, shape: None }, &flat[1..])?;
        // An operand whose rank is known, and which no other can exceed, gives its own.
        let known = inputs.iter().filter_map(|v| self.g.ty(*v).rank()).max();
        let most = |v: &ValueId| self.g.ty(*v).rank().or(self.most_rank.get(v).copied());
        let most = inputs.iter().map(most).collect::<Option<Vec<_>>>();
        let rank = known.filter(|k| most.is_some_and(|m| m.iter().all(|m| m <= k)));
        self.shaped(y, flat[0], rank)
    }

    /// NumPy's `matmul` of operands of which one or both have no known rank.
    ///
    /// Library `matmul_operands`. Inputs: a, b. Outputs: the product's shape (i64), a as `[batch, m, k]`, b as
    /// `[batch, k, n]`.
    pub(crate) fn matmul_unranked(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Fail> {
        let [batch, m, k] = [0, 1, 2].map(|axis| self.symbol(1, axis));
        let n = self.symbol(2, 2);
        let outs = vec![
            LibOut::new(DType::I64, [None]),
            LibOut::fixed(self.dtype(a), [batch.clone(), m, k.clone()]),
            LibOut::fixed(self.dtype(b), [batch, k, n]),
        ];
        let operands = vec![Some(a), Some(b)];
        let made = self.library("matmul_operands", vec![], vec![], operands, outs);
        let [shape, a, b] = made[..] else {
            return Err(unsupported("operands that are no tensors"));
        };
        let y = self.matmul(a, b)?;
        self.shaped(y, shape, None)
    }

    /// A value under its own shape, which must be of this rank. Libraries `shape` and `reshape`.
    pub(crate) fn with_rank(&mut self, v: ValueId, rank: usize) -> Result<ValueId, Fail> {
        if self.g.ty(v).rank().is_some() {
            return Ok(v);
        }
        let out = LibOut::new(DType::I64, [None]);
        let whole = vec![0, i64::MAX];
        let shape = self.library("shape", whole, vec![], vec![Some(v)], vec![out]);
        self.shaped(v, first(&shape)?, Some(rank))
    }

    /// `y` under a shape that is computed, whose length may be known. Library `reshape`, where 0 is a size.
    fn shaped(&mut self, y: ValueId, shape: ValueId, rank: Option<usize>) -> Result<ValueId, Fail> {
        let out = match rank {
            Some(rank) => LibOut::new(self.dtype(y), vec![None; rank]),
            None => LibOut::unranked(self.dtype(y)),
        };
        let inputs = vec![Some(y), Some(shape)];
        first(&self.library("reshape", vec![1], vec![], inputs, vec![out]))
    }
}
