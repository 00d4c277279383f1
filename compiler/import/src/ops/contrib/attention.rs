//! Attention with as many key heads as query heads: MultiHeadAttention after the projections, Attention and QAttention
//! with them.

use lapidary_graph::{DType, Dim, PwOp, ValueId};

use super::heads::{Operands, Settings, attend, fix, head_count, part, pick, split_heads, swap};
use super::{refuse_inputs, refuse_ints};
use crate::context::{Ctx, Outs, broadcasts_to, same};
use crate::error::{Fail, invalid, unsupported};
use crate::ops::bytes;
use crate::ops::matmul::product;

/// MultiHeadAttention. The query is `[B, S, H * D]` with keys `[B, L, H * D]`, `[B, H, L, D]` or, packed with the values,
/// `[B, L, H, 2, D]`; or all are packed in `[B, S, H, 3, D]`.
pub(crate) fn multi_head(cx: &mut Ctx) -> Outs {
    refuse_inputs(cx, &[(8, "past_sequence_length"), (9, "cache_indirection")])?;
    let heads = head_count(cx, "num_heads")?;
    let settings = Settings::read(cx)?;
    let (query, key, value) = (cx.input(0)?, cx.opt(1), cx.opt(2));
    let rank = |cx: &Ctx, v: Option<ValueId>| v.map(|v| cx.rank(v)).transpose();
    let ranks = (cx.rank(query)?, rank(cx, key)?, rank(cx, value)?);
    let bias = cx.opt(3);
    // Each [B, S, H, D].
    let (q, k, v) = match (ranks, key, value) {
        ((5, None, None), ..) => {
            let query = packed(cx, query, 3, heads)?;
            (
                pick(cx, query, 3, 0)?,
                pick(cx, query, 3, 1)?,
                pick(cx, query, 3, 2)?,
            )
        }
        ((3, Some(5), None), Some(key), _) => {
            let key = packed(cx, key, 2, heads)?;
            let q = split_heads(cx, "'query'", query, heads)?;
            (q, pick(cx, key, 3, 0)?, pick(cx, key, 3, 1)?)
        }
        ((3, Some(4), Some(4)), Some(key), Some(value)) => {
            for (n, what) in [(3, "bias"), (6, "past_key"), (7, "past_value")] {
                if cx.opt(n).is_some() {
                    return Err(unsupported(format!("'{what}' with keys of rank 4")).hint(
                        "keys and values of rank 4 are those of another sequence, as they are",
                    ));
                }
            }
            let q = split_heads(cx, "'query'", query, heads)?;
            let (key, value) = (fix(cx, key, 1, heads)?, fix(cx, value, 1, heads)?);
            (q, swap(cx, key)?, swap(cx, value)?)
        }
        ((3, Some(3), Some(3)), Some(key), Some(value)) => (
            split_heads(cx, "'query'", query, heads)?,
            split_heads(cx, "'key'", key, heads)?,
            split_heads(cx, "'value'", value, heads)?,
        ),
        (ranks, ..) => {
            return Err(unsupported(format!(
                "'query', 'key' and 'value' of ranks {}, {:?}, {:?}",
                ranks.0, ranks.1, ranks.2
            ))
            .hint("ranks 3, 3, 3; 3, 4, 4; 3, 5, none; 5, none, none are handled"));
        }
    };
    let mut all = [q, k, v];
    if let Some(bias) = bias {
        let mut start = Dim::Const(0);
        for x in &mut all {
            let dims = cx.dims(*x)?;
            let own = vec![dims[2].clone(), dims[3].clone()];
            let size = Dim::product(&own);
            let piece = part(cx, bias, 0, &start, &size)?;
            let piece = cx.reshape(piece, own)?;
            *x = cx.bin(PwOp::Add, *x, piece)?;
            start = start.add(&size);
        }
        let length = cx.dims(bias)?.first().cloned().unwrap_or_default();
        same(
            "the length of the bias and the width of its parts",
            &length,
            &start,
        )?;
    }
    let past = match (cx.opt(6), cx.opt(7)) {
        (Some(k), Some(v)) => Some((k, v)),
        (None, None) => None,
        _ => return Err(invalid("'past_key' and 'past_value' go together")),
    };
    let on = Operands {
        q: swap(cx, all[0])?,
        k: swap(cx, all[1])?,
        v: swap(cx, all[2])?,
        past,
        mask: cx.opt(4),
        dummy_mask: false,
        bias: cx.opt(5),
    };
    let (y, k, v) = attend(cx, on, &settings)?;
    Ok(vec![Some(y), Some(k), Some(v), None])
}

/// Checks `[B, S, H, count, D]`.
fn packed(cx: &mut Ctx, x: ValueId, count: i64, heads: i64) -> Result<ValueId, Fail> {
    let dims = cx.dims(x)?;
    let wrong = |axis: usize, n: i64| dims[axis].equals(&Dim::Const(n)) == Some(false);
    if wrong(2, heads) || wrong(3, count) {
        return Err(invalid(format!(
            "a packed operand of {} heads and {} parts, expected {heads} and {count}",
            dims[2], dims[3]
        )));
    }
    let x = fix(cx, x, 2, heads)?;
    fix(cx, x, 3, count)
}

/// Attention: one projection to queries, keys and values, then all of it.
pub(crate) fn attention(cx: &mut Ctx) -> Outs {
    refuse_inputs(cx, &[(6, "past_sequence_length")])?;
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let t = cx.dtype(x);
    let (x, w) = (cx.widen(x)?, cx.widen(w)?);
    let mut y = product(cx, x, w)?;
    if let Some(bias) = cx.opt(2) {
        broadcasts_to("the bias", &cx.dims(bias)?, &cx.dims(y)?)?;
        let bias = cx.widen(bias)?;
        y = cx.bin(PwOp::Add, y, bias)?;
    }
    let y = cx.cast(y, t)?;
    projected(cx, y, cx.opt(3), cx.opt(4), cx.opt(5))
}

/// QAttention: the same with a projection of integers.
pub(crate) fn quantized(cx: &mut Ctx) -> Outs {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let scales = [cx.input(3)?, cx.input(4)?];
    let zero = match cx.opt(6) {
        Some(z) => Some(cx.reshape(z, vec![])?),
        None => None,
    };
    let zw = cx.opt(7);
    let y = bytes::matmul(cx, x, w, zero, zw)?;
    broadcasts_to("the bias", &cx.dims(bias)?, &cx.dims(y)?)?;
    let t = cx.dtype(bias);
    let y = cx.pw(&[y, scales[0], scales[1], bias], |p, r| {
        let r: Vec<_> = r.iter().map(|x| p.cast(*x, DType::F32)).collect();
        let scale = p.bin(PwOp::Mul, r[1], r[2]);
        let y = p.bin(PwOp::Mul, r[0], scale);
        let y = p.bin(PwOp::Add, y, r[3]);
        p.cast(y, t)
    })?;
    projected(cx, y, cx.opt(5), cx.opt(8), None)
}

/// Attention over queries, keys and values side by side in `[B, S, 3 D]`.
fn projected(
    cx: &mut Ctx,
    y: ValueId,
    mask: Option<ValueId>,
    past: Option<ValueId>,
    bias: Option<ValueId>,
) -> Outs {
    refuse_ints(cx, &[("do_rotary", 0), ("past_present_share_buffer", 0)])?;
    let heads = head_count(cx, "num_heads")?;
    let settings = Settings::read(cx)?;
    let dims = cx.dims(y)?;
    let [_, _, width] = dims.as_slice() else {
        return Err(invalid(format!(
            "an input of rank {}, expected 3",
            dims.len()
        )));
    };
    let sizes: Vec<Dim> = match cx.ints("qkv_hidden_sizes")? {
        Some([]) | None => vec![width.floor_div(&Dim::Const(3)); 3],
        Some(s) if s.len() == 3 && s.iter().all(|s| *s > 0) => {
            s.iter().map(|s| Dim::Const(*s)).collect()
        }
        Some(s) => {
            return Err(invalid(format!(
                "attribute 'qkv_hidden_sizes' is {s:?}, expected three numbers greater than 0"
            )));
        }
    };
    let mut all = Vec::new();
    let mut start = Dim::Const(0);
    for (what, size) in ["queries", "keys", "values"].iter().zip(&sizes) {
        let x = part(cx, y, 2, &start, size)?;
        let x = split_heads(cx, what, x, heads)?;
        all.push(swap(cx, x)?);
        start = start.add(size);
    }
    same(
        "the width of the projection and of its parts",
        width,
        &start,
    )?;
    let past = match past {
        Some(p) if cx.rank(p)? == 5 => Some((pick(cx, p, 0, 0)?, pick(cx, p, 0, 1)?)),
        Some(p) => {
            return Err(invalid(format!(
                "'past' of rank {}, expected 5",
                cx.rank(p)?
            )));
        }
        None => None,
    };
    let on = Operands {
        q: all[0],
        k: all[1],
        v: all[2],
        past,
        mask,
        dummy_mask: true,
        bias,
    };
    let (y, k, v) = attend(cx, on, &settings)?;
    let mut outs = vec![Some(y)];
    if cx.wants(1) {
        let (k, v) = (cx.unsqueeze(k, &[0])?, cx.unsqueeze(v, &[0])?);
        outs.push(Some(cx.concat(&[k, v], 0)?));
    }
    Ok(outs)
}
