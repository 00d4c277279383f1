//! How much work an operator is, before it is done.

use super::data::count;
use crate::{Dim, Op, TensorData};

/// Scalar operations that evaluating an operator takes, roughly; `dims` are those of its first result, and its own dimensions are
/// numbers.
pub(super) fn work(op: &Op, operands: &[Option<&TensorData>], dims: &[i64]) -> u64 {
    let operand = |i: usize| operands.get(i).copied().flatten();
    let len = |i: usize| operand(i).map_or(1, TensorData::len);
    let dim = |i: usize, axis: usize| {
        let size = operand(i).and_then(|t| t.dims.get(axis));
        size.map_or(1, |d| *d as usize)
    };
    let results = count(dims);
    let work = match op {
        Op::Pointwise { body, .. } => results.saturating_mul(body.nodes.len()),
        Op::Contract { a, b, out } => {
            let summed = |labels: &[u8], i: usize| -> Vec<(u8, usize)> {
                let inner = labels.iter().enumerate().filter(|(_, l)| !out.contains(l));
                inner.map(|(axis, l)| (*l, dim(i, axis))).collect()
            };
            let mut sizes = summed(a, 0);
            for (label, size) in summed(b, 1) {
                match sizes.iter_mut().find(|(l, _)| *l == label) {
                    Some((_, known)) => *known = size.max(*known),
                    None => sizes.push((label, size)),
                }
            }
            let each = sizes.iter().map(|(_, size)| *size);
            each.fold(results, usize::saturating_mul)
        }
        Op::Conv { .. } => results.saturating_mul(len(1) / dim(1, 0).max(1)),
        Op::ConvTranspose { .. } => len(0).saturating_mul(len(1) / dim(1, 0).max(1)),
        Op::Pool { window, .. } => {
            let kernel = Dim::product(&window.kernel).as_const().unwrap_or(i64::MAX);
            // No more taps are walked than there are elements in an image.
            let image = len(0) / dim(0, 0).max(1);
            results.saturating_mul((kernel as usize).min(image).max(1))
        }
        Op::Attention(_) => {
            let rows = len(0) / dim(0, 3).max(1);
            let each = dim(1, 2).saturating_mul(dim(0, 3) + dim(2, 3));
            rows.saturating_mul(each)
        }
        Op::Trees(t) => dim(0, 0).saturating_mul(t.nodes.len() + t.weights.len()),
        _ => results.saturating_add(len(0)),
    };
    work as u64
}
