//! The embedding layer of BERT: words, positions and segments looked up, added and normalised.

use lapidary_graph::op::{NormKind, ReduceKind};
use lapidary_graph::{DType, Dim, PwOp};

use super::rotary::rows;
use crate::context::{Ctx, Outs, same};
use crate::error::invalid;
use crate::ops::norm::normalize;

/// EmbedLayerNormalization. Outputs: the result, how many words of each sentence the mask takes (zeros without a mask),
/// the sum before the normalisation.
pub(crate) fn embed(cx: &mut Ctx) -> Outs {
    let (ids, words, positions) = (cx.input(0)?, cx.input(2)?, cx.input(3)?);
    let (gamma, beta) = (cx.input(5)?, cx.input(6)?);
    let epsilon = cx.float("epsilon", 1e-12)?;
    let dims = cx.dims(ids)?;
    let [batch, length] = dims.as_slice() else {
        return Err(invalid(format!(
            "'input_ids' of rank {}, expected 2",
            dims.len()
        )));
    };
    let t = cx.dtype(words);
    let mut total = rows(cx, words, ids)?;
    let at = match cx.opt(8) {
        Some(at) => at,
        None => cx.pw_shaped(&[], Some(vec![Dim::Const(1), length.clone()]), |p, _| {
            p.push(PwOp::Index(1), vec![], DType::I64)
        })?,
    };
    let mut more = vec![rows(cx, positions, at)?];
    match (cx.opt(1), cx.opt(4)) {
        (Some(segments), Some(table)) => {
            let own = cx.dims(segments)?;
            if own.len() != 2 {
                let text = format!("'segment_ids' of rank {}, expected 2", own.len());
                return Err(invalid(text));
            }
            same(
                "the batch sizes of 'input_ids' and 'segment_ids'",
                batch,
                &own[0],
            )?;
            same(
                "the lengths of 'input_ids' and 'segment_ids'",
                length,
                &own[1],
            )?;
            more.push(rows(cx, table, segments)?);
        }
        (None, None) => {}
        _ => return Err(invalid("'segment_ids' and 'segment_embedding' go together")),
    }
    total = cx.widen(total)?;
    for v in more {
        let v = cx.widen(v)?;
        total = cx.bin(PwOp::Add, total, v)?;
    }
    let y = normalize(
        cx,
        NormKind::Layer,
        total,
        Some(gamma),
        Some(beta),
        2,
        epsilon,
    )?;
    let mut outs = vec![Some(cx.cast(y, t)?), None, None];
    if cx.wants(1) {
        outs[1] = Some(match cx.opt(7) {
            Some(mask) => {
                let ones = cx.pw(&[mask], |p, r| {
                    let one = p.number(1.0, p.dtype(r[0]));
                    let hit = p.test(PwOp::Eq, vec![r[0], one]);
                    p.cast(hit, DType::I32)
                })?;
                cx.reduce(ReduceKind::Sum, ones, vec![1], false)?
            }
            None => cx.pw_shaped(&[], Some(vec![batch.clone()]), |p, _| {
                p.number(0.0, DType::I32)
            })?,
        });
    }
    if cx.wants(2) {
        outs[2] = Some(cx.cast(total, t)?);
    }
    Ok(outs)
}
