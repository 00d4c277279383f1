//! Images with their channels last: NhwcConv, NhwcFusedConv, NhwcMaxPool, and the permutations that all operators with
//! such images share. The pass that chooses layouts takes the transpositions away again.

use lapidary_graph::ValueId;

use super::fused::convolved;
use crate::builder::first;
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};
use crate::ops::pool;

/// The permutation from channels last to channels second, and the one back.
pub(crate) fn channels_last(rank: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut forth, mut back): (Vec<usize>, Vec<usize>) =
        ((0..rank).collect(), (0..rank).collect());
    if rank > 1 {
        forth[1..].rotate_right(1);
        back[1..].rotate_left(1);
    }
    (forth, back)
}

/// The image of input 0, of rank 3 or more, with its channels second; and the permutation back.
fn image(cx: &mut Ctx) -> Result<(ValueId, Vec<usize>), Fail> {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    if rank < 3 {
        return Err(invalid(format!(
            "an input of rank {rank}, expected 3 or more"
        )));
    }
    let (forth, back) = channels_last(rank);
    Ok((cx.transpose(x, forth)?, back))
}

/// NhwcConv and NhwcFusedConv. Weights of the first have their channels last too, `[O, kH, kW, I]`, as its GPU kernel
/// reads them and onnxruntime's tool that makes such nodes writes them (the operator's text says otherwise); those of the
/// second are those of ONNX, `[O, I, kH, kW]`.
pub(crate) fn convolution(cx: &mut Ctx) -> Outs {
    let (x, back) = image(cx)?;
    let w = cx.input(1)?;
    let mut w = cx.with_rank(w, back.len())?;
    if cx.op == "NhwcConv" {
        w = cx.transpose(w, channels_last(back.len()).0)?;
    }
    one(convolved(cx, x, w, Some(back))?)
}

/// NhwcMaxPool, of integers of a byte.
pub(crate) fn max_pool(cx: &mut Ctx) -> Outs {
    let (x, back) = image(cx)?;
    let y = first(
        &pool::pool_of(cx, x)?
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    )?;
    one(cx.transpose(y, back)?)
}
