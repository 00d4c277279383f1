//! Rotary embeddings of the contrib domain: positions come before the tables, and may be one offset for all.

use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};
use crate::ops::attention::rotate;

/// Rows of a table. A negative index is an error, as one behind the last row: the check of a run lets the indices from
/// minus the number of rows on pass, so they are moved below these.
pub(crate) fn rows(cx: &mut Ctx, table: ValueId, at: ValueId) -> Result<ValueId, Fail> {
    let count = cx.dims(table)?.first().cloned().unwrap_or_default();
    let at = cx.pw(&[at], |p, r| {
        let i = p.cast(r[0], DType::I64);
        let zero = p.number(0.0, DType::I64);
        let n = p.push(PwOp::Dim(count), vec![], DType::I64);
        let below = p.bin(PwOp::Sub, i, n);
        let negative = p.test(PwOp::Lt, vec![i, zero]);
        p.select(negative, below, i)
    })?;
    cx.emit1(Op::Gather { axis: 0 }, &[table, at])
}

/// Rows of the cosine and sine tables at these positions.
pub(crate) fn tables(
    cx: &mut Ctx,
    cos: ValueId,
    sin: ValueId,
    at: ValueId,
) -> Result<(ValueId, ValueId), Fail> {
    Ok((rows(cx, cos, at)?, rows(cx, sin, at)?))
}

/// Twice the width of a table: the features that it rotates.
pub(crate) fn rotated_by(cx: &Ctx, cos: ValueId) -> Result<Dim, Fail> {
    match cx.dims(cos)?.as_slice() {
        [_, half] => Ok(half.mul(&Dim::Const(2))),
        d => Err(invalid(format!(
            "'cos_cache' of rank {}, expected 2",
            d.len()
        ))),
    }
}

/// RotaryEmbedding of `[B, S, H * D]` or `[B, H, S, D]`.
pub(crate) fn rotary(cx: &mut Ctx) -> Outs {
    let (x, at, cos, sin) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?);
    let interleaved = cx.flag("interleaved", false)?;
    let (heads, part) = (cx.int("num_heads", 0)?, cx.int("rotary_embedding_dim", 0)?);
    if heads < 0 || part < 0 || (part > 0 && heads == 0) {
        return Err(invalid(format!(
            "attributes 'num_heads' {heads} and 'rotary_embedding_dim' {part}"
        ))
        .hint("with 'rotary_embedding_dim', 'num_heads' must be given"));
    }
    let original = cx.dims(x)?;
    let width = rotated_by(cx, cos)?;
    let (v, length) = match original.as_slice() {
        [_, _, s, _] => (cx.transpose(x, vec![0, 2, 1, 3])?, s.clone()),
        [b, s, n] => {
            // Without a part to rotate, heads are as wide as the tables.
            let (h, d) = match part {
                0 => (n.floor_div(&width), width.clone()),
                _ => (Dim::Const(heads), n.floor_div(&Dim::Const(heads))),
            };
            (cx.reshape(x, vec![b.clone(), s.clone(), h, d])?, s.clone())
        }
        d => {
            return Err(invalid(format!(
                "an input of rank {}, expected 3 or 4",
                d.len()
            )));
        }
    };
    let ids = cx.dims(at)?;
    let at = match ids.as_slice() {
        [_, _] => at,
        [n] if n.equals(&Dim::Const(1)) != Some(false) => {
            let shape = vec![Dim::Const(1), length];
            cx.pw_shaped(&[at], Some(shape), |p, r| {
                let i = p.push(PwOp::Index(1), vec![], DType::I64);
                let from = p.cast(r[0], DType::I64);
                p.bin(PwOp::Add, i, from)
            })?
        }
        d => {
            return Err(invalid(format!(
                "'position_ids' of rank {}, expected one number or [batch, sequence]",
                d.len()
            )));
        }
    };
    let tables = tables(cx, cos, sin, at)?;
    let rotated = match part {
        0 => width,
        n => Dim::Const(n),
    };
    let y = rotate(cx, v, tables, &rotated, interleaved)?;
    one(match original.len() {
        3 => cx.reshape(y, original)?,
        _ => cx.transpose(y, vec![0, 2, 1, 3])?,
    })
}
