//! GroupQueryAttention: heads in groups that share keys, over a cache that each step appends to.
//!
//! The cache of a batch element holds `seqlens_k + 1` positions after the step; the new ones come behind what it held
//! before, or at the front in the first step, where all positions are new. Its size is the greater of the old
//! cache's and `total_sequence_length`, which is a dimension of the graph: shape arithmetic where the model computes it
//! from a shape, else a symbol born from the input's value.

use lapidary_graph::op::AttentionAttrs;
use lapidary_graph::{DType, Dim, Op, PwOp, Scalar, ValueId};

use super::heads::{head_count, join_heads, part, scaled, split_heads, swap};
use super::rotary::{rotated_by, tables};
use super::{refuse_inputs, refuse_ints};
use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, broadcasts_to, same};
use crate::dims::dmax;
use crate::error::{Fail, invalid, unsupported};
use crate::ops::attention::rotate;

pub(crate) fn group_query(cx: &mut Ctx) -> Outs {
    refuse_inputs(
        cx,
        &[
            (12, "k_scale"),
            (13, "v_scale"),
            (14, "q_norm_weight"),
            (15, "k_norm_weight"),
        ],
    )?;
    refuse_ints(cx, &[("sliding_window_cache", 0), ("qk_output", 0)])?;
    for name in ["k_quant_type", "v_quant_type"] {
        let kind = cx.string(name, "NONE")?;
        if !matches!(kind, "NONE" | "") {
            return Err(unsupported(format!(
                "attribute '{name}' is '{kind}', expected 'NONE'"
            )));
        }
    }
    let (heads, kv_heads) = (
        head_count(cx, "num_heads")?,
        head_count(cx, "kv_num_heads")?,
    );
    if heads % kv_heads != 0 {
        return Err(invalid(format!(
            "attribute 'num_heads' is {heads}, which 'kv_num_heads' {kv_heads} does not divide"
        )));
    }
    let (lengths, total) = (cx.input(5)?, cx.input(6)?);
    let total_dim = size_of(cx, total)?;
    let (q, k, v) = projections(cx, heads, kv_heads)?;
    let dq = cx.dims(q)?;
    let (batch, steps) = (dq[0].clone(), dq[1].clone());

    let starts = starts(cx, lengths, &batch, &steps, &total_dim)?;
    let (mut q, mut k) = (q, k);
    if cx.flag("do_rotary", false)? {
        let (Some(cos), Some(sin)) = (cx.opt(7), cx.opt(8)) else {
            return Err(invalid(
                "attribute 'do_rotary' is 1, but 'cos_cache' and 'sin_cache' are missing",
            ));
        };
        let at = positions(cx, starts, &batch, &steps, &total_dim)?;
        let rotated = rotated_by(cx, cos)?;
        let tables = tables(cx, cos, sin, at)?;
        let interleaved = cx.flag("rotary_interleaved", false)?;
        q = rotate(cx, q, tables, &rotated, interleaved)?;
        k = rotate(cx, k, tables, &rotated, interleaved)?;
    }
    let (past_k, past_v) = (cx.opt(3), cx.opt(4));
    if past_k.is_some() != past_v.is_some() {
        return Err(invalid("'past_key' and 'past_value' go together"));
    }
    let k = append(cx, ("'past_key'", past_k), k, (starts, total), &total_dim)?;
    let v = append(cx, ("'past_value'", past_v), v, (starts, total), &total_dim)?;
    let y = attend(cx, q, (k, v), (starts, lengths), &total_dim)?;
    Ok(vec![Some(y), Some(k), Some(v), None])
}

/// Query, key and value as `[B, S, H, D]`.
fn projections(
    cx: &mut Ctx,
    heads: i64,
    kv_heads: i64,
) -> Result<(ValueId, ValueId, ValueId), Fail> {
    let query = cx.input(0)?;
    let (q, k, v) = match (cx.opt(1), cx.opt(2)) {
        (Some(k), Some(v)) => (query, k, v),
        (None, None) => {
            let dims = cx.dims(query)?;
            let width = dims.last().cloned().unwrap_or_default();
            let size = width.floor_div(&Dim::Const(heads + 2 * kv_heads));
            let (own, other) = (
                size.mul(&Dim::Const(heads)),
                size.mul(&Dim::Const(kv_heads)),
            );
            if dims.len() != 3 {
                return Err(invalid(format!(
                    "'query' of rank {}, expected 3",
                    dims.len()
                )));
            }
            (
                {
                    let all = size.mul(&Dim::Const(heads + 2 * kv_heads));
                    same("the width of 'query' and of its heads", &width, &all)?;
                    part(cx, query, 2, &Dim::Const(0), &own)?
                },
                part(cx, query, 2, &own, &other)?,
                part(cx, query, 2, &own.add(&other), &other)?,
            )
        }
        _ => return Err(invalid("'key' and 'value' go together")),
    };
    let q = split_heads(cx, "'query'", q, heads)?;
    let k = split_heads(cx, "'key'", k, kv_heads)?;
    let v = split_heads(cx, "'value'", v, kv_heads)?;
    let dims = [cx.dims(q)?, cx.dims(k)?, cx.dims(v)?];
    for (what, axis) in [("batch size", 0), ("length", 1), ("head size", 3)] {
        for (name, other) in [("'key'", &dims[1]), ("'value'", &dims[2])] {
            let what = format!("the {what} of 'query' and of {name}");
            same(&what, &dims[0][axis], &other[axis])?;
        }
    }
    Ok((q, k, v))
}

/// The number that a tensor of one element holds, as a dimension. All that read the tensor share one.
fn size_of(cx: &mut Ctx, v: ValueId) -> Result<Dim, Fail> {
    if let Some(d) = cx.known_scalar(v) {
        return Ok(d);
    }
    let shape = cx.reshape(v, vec![Dim::Const(1)])?;
    let shape = cx.cast(shape, DType::I64)?;
    let out = LibOut::new(DType::U8, [None]);
    let made = cx.library(
        "constant_of_shape",
        vec![DType::U8 as i64, 0],
        vec![],
        vec![Some(shape)],
        vec![out],
    );
    let made = first(&made)?;
    let size = cx.dims(made)?.pop().unwrap_or_default();
    cx.set_known(v, vec![size.clone()]);
    Ok(size)
}

/// Where the new positions of each batch element begin, i32 `[B]`: 0 in the first step, in which all of
/// `total_sequence_length` is new.
fn starts(
    cx: &mut Ctx,
    lengths: ValueId,
    batch: &Dim,
    steps: &Dim,
    total: &Dim,
) -> Result<ValueId, Fail> {
    let lengths = cx.reshape(lengths, vec![batch.clone()])?;
    cx.pw(&[lengths], |p, r| {
        let int = DType::I32;
        let mut dim = |d: &Dim| {
            let d = p.push(PwOp::Dim(d.clone()), vec![], DType::I64);
            p.cast(d, int)
        };
        let (s, n) = (dim(steps), dim(total));
        let (zero, one) = (p.number(0.0, int), p.number(1.0, int));
        let length = p.bin(PwOp::Add, r[0], one);
        let before = p.bin(PwOp::Sub, length, s);
        let all = p.test(PwOp::Eq, vec![s, n]);
        p.select(all, zero, before)
    })
}

/// Positions for the rotation, `[B, S]`: those in the cache, or input 9, of which the first step takes the first
/// number and counts on.
fn positions(
    cx: &mut Ctx,
    starts: ValueId,
    batch: &Dim,
    steps: &Dim,
    total: &Dim,
) -> Result<ValueId, Fail> {
    let shape = vec![batch.clone(), steps.clone()];
    let Some(given) = cx.opt(9) else {
        let starts = cx.reshape(starts, vec![batch.clone(), Dim::Const(1)])?;
        return cx.pw_shaped(&[starts], Some(shape), |p, r| {
            let i = p.push(PwOp::Index(1), vec![], DType::I64);
            let s = p.cast(r[0], DType::I64);
            p.bin(PwOp::Add, s, i)
        });
    };
    broadcasts_to("'position_ids'", &cx.dims(given)?, &shape)?;
    let one = [Dim::Const(1), Dim::Const(1)];
    let start = cx.slice(given, vec![Dim::Const(0); 2], vec![1, 1], one.to_vec())?;
    cx.pw_shaped(&[given, start], Some(shape), |p, r| {
        let mut dim = |d: &Dim| p.push(PwOp::Dim(d.clone()), vec![], DType::I64);
        let (s, n) = (dim(steps), dim(total));
        let i = p.push(PwOp::Index(1), vec![], DType::I64);
        let counted = p.bin(PwOp::Add, r[1], i);
        let all = p.test(PwOp::Eq, vec![s, n]);
        p.select(all, counted, r[0])
    })
}

/// Library `cache_append`. Inputs: the cache `[B, H, P, D]` or none, the new positions `[B, S, H, D]`, where they begin
/// (i32 `[B]`), how many positions there are at least (one number). Output `[B, H, max(P, number), D]`: the cache up to
/// there, the new positions, zeros.
fn append(
    cx: &mut Ctx,
    (what, past): (&str, Option<ValueId>),
    new: ValueId,
    (starts, total): (ValueId, ValueId),
    total_dim: &Dim,
) -> Result<ValueId, Fail> {
    let dims = cx.dims(new)?;
    let mut out = vec![
        dims[0].clone(),
        dims[2].clone(),
        total_dim.clone(),
        dims[3].clone(),
    ];
    if let Some(p) = past {
        if cx.dtype(p) != cx.dtype(new) {
            return Err(unsupported(format!(
                "{what} of type {}, where new positions are {}",
                cx.dtype(p),
                cx.dtype(new)
            )));
        }
        let old = cx.dims(p)?;
        if old.len() != 4 {
            return Err(invalid(format!("{what} of rank {}, expected 4", old.len())));
        }
        for axis in [0, 1, 3] {
            same(
                &format!("axis {axis} of {what} and of the new positions"),
                &old[axis],
                &out[axis],
            )?;
        }
        out[2] = dmax(&old[2], total_dim);
    }
    let t = cx.dtype(new);
    first(&cx.library(
        "cache_append",
        vec![],
        vec![],
        vec![past, Some(new), Some(starts), Some(total)],
        vec![LibOut::fixed(t, out)],
    ))
}

/// The result `[B, S, H * D]`.
fn attend(
    cx: &mut Ctx,
    q: ValueId,
    (k, v): (ValueId, ValueId),
    (starts, lengths): (ValueId, ValueId),
    total: &Dim,
) -> Result<ValueId, Fail> {
    let t = cx.dtype(q);
    let q = swap(cx, q)?;
    let q = cx.widen(q)?;
    let (q, scale) = scaled(cx, q, cx.float("scale", 0.0)?)?;
    let dims = cx.dims(q)?;
    let (batch, heads, steps) = (dims[0].clone(), dims[1].clone(), dims[2].clone());
    let mut inputs = vec![q];
    // What lies behind the step in a cache that is larger is not read.
    for x in [k, v] {
        let x = part(cx, x, 2, &Dim::Const(0), total)?;
        inputs.push(cx.widen(x)?);
    }
    let causal = cx.zero_or_one("causal", true)?;
    let mut attrs = AttentionAttrs::plain(scale, causal);
    attrs.softcap = cx.float("softcap", 0.0)?;
    if attrs.softcap < 0.0 {
        return Err(invalid(format!(
            "attribute 'softcap' is {}, expected 0 or more",
            attrs.softcap
        )));
    }
    let window = cx.int("local_window_size", -1)?;
    if window != -1 && window < 1 {
        return Err(invalid(format!(
            "attribute 'local_window_size' is {window}, expected 1 or more, or -1 for none"
        )));
    }
    if window > 0 {
        if !causal {
            return Err(invalid(
                "attribute 'local_window_size' is for causal attention",
            ));
        }
        attrs.window = Some(window);
    }
    let mut mask = match cx.opt(10) {
        Some(bias) => {
            let scores = [batch.clone(), heads.clone(), steps, total.clone()];
            broadcasts_to("'attention_bias'", &cx.dims(bias)?, &scores)?;
            Some(cx.cast(bias, DType::F32)?)
        }
        None => None,
    };
    if !causal {
        let lengths = cx.reshape(
            lengths,
            vec![batch.clone(), Dim::Const(1), Dim::Const(1), Dim::Const(1)],
        )?;
        let shape = vec![batch, Dim::Const(1), Dim::Const(1), total.clone()];
        let seen = cx.pw_shaped(&[lengths], Some(shape), |p, r| {
            let j = p.push(PwOp::Index(3), vec![], DType::I64);
            let last = p.cast(r[0], DType::I64);
            let seen = p.test(PwOp::Le, vec![j, last]);
            let (zero, no) = (
                p.number(0.0, DType::F32),
                p.number(f64::NEG_INFINITY, DType::F32),
            );
            p.select(seen, zero, no)
        })?;
        mask = Some(match mask {
            Some(m) => cx.bin(PwOp::Add, m, seen)?,
            None => seen,
        });
    }
    if let Some(m) = mask {
        attrs.has_mask = true;
        inputs.push(m);
    }
    if causal {
        attrs.has_first = true;
        inputs.push(starts);
    }
    let sink = match cx.opt(11) {
        Some(s) => Some(cx.cast(s, DType::F32)?),
        None if cx.zero_or_one("smooth_softmax", false)? => {
            Some(cx.fill(vec![heads], Scalar::f32(0.0))?)
        }
        None => None,
    };
    if let Some(s) = sink {
        attrs.has_sink = true;
        inputs.push(s);
    }
    let y = cx.emit1(Op::Attention(attrs), &inputs)?;
    let y = cx.cast(y, t)?;
    join_heads(cx, y)
}
