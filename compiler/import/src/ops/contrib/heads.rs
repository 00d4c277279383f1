//! What attention operators of the contrib domain share: heads, the forms of their masks, and the call of
//! `Op::Attention`.

use lapidary_graph::op::{AttentionAttrs, ReduceKind};
use lapidary_graph::{DType, Dim, Op, PwBuilder, PwOp, PwRef, ValueId};

use crate::context::{Ctx, broadcasts_to, same};
use crate::error::{Fail, invalid, unsupported};

/// The attribute `name`, a number of heads.
pub(crate) fn head_count(cx: &Ctx, name: &str) -> Result<i64, Fail> {
    match cx.int_required(name)? {
        n if n < 1 => Err(invalid(format!(
            "attribute '{name}' is {n}, expected 1 or more"
        ))),
        n => Ok(n),
    }
}

/// `[B, S, H * D]` as `[B, S, H, D]`.
pub(crate) fn split_heads(
    cx: &mut Ctx,
    what: &str,
    x: ValueId,
    heads: i64,
) -> Result<ValueId, Fail> {
    let dims = cx.dims(x)?;
    let [b, s, n] = dims.as_slice() else {
        return Err(invalid(format!(
            "{what} of rank {}, expected 3",
            dims.len()
        )));
    };
    let h = Dim::Const(heads);
    if n.modulo(&h).equals(&Dim::Const(0)) == Some(false) {
        return Err(invalid(format!(
            "{what} of {n} features, which {heads} heads do not divide"
        )));
    }
    cx.reshape(x, vec![b.clone(), s.clone(), h.clone(), n.floor_div(&h)])
}

/// A value whose axis is certain to have this size from here on: a run with another ends with an error.
pub(crate) fn fix(cx: &mut Ctx, x: ValueId, axis: usize, size: i64) -> Result<ValueId, Fail> {
    let mut dims = cx.dims(x)?;
    if let Some(d) = dims.get_mut(axis) {
        *d = Dim::Const(size);
    }
    cx.reshape(x, dims)
}

/// `[B, S, H, D]` as `[B, H, S, D]`, and back.
pub(crate) fn swap(cx: &mut Ctx, x: ValueId) -> Result<ValueId, Fail> {
    cx.transpose(x, vec![0, 2, 1, 3])
}

/// A part of an axis.
pub(crate) fn part(
    cx: &mut Ctx,
    x: ValueId,
    axis: usize,
    start: &Dim,
    size: &Dim,
) -> Result<ValueId, Fail> {
    cx.slice_axis(x, axis, start.clone(), 1, size.clone())
}

/// One place of an axis, which goes away.
pub(crate) fn pick(cx: &mut Ctx, x: ValueId, axis: usize, at: i64) -> Result<ValueId, Fail> {
    let v = part(cx, x, axis, &Dim::Const(at), &Dim::Const(1))?;
    cx.squeeze(v, &[axis])
}

/// A query multiplied so that `scale` (0: by the root of the head's size) is left to [`AttentionAttrs`]: the factor
/// for there.
pub(crate) fn scaled(cx: &mut Ctx, q: ValueId, scale: f32) -> Result<(ValueId, f32), Fail> {
    let size = cx.dims(q)?.pop().unwrap_or_default();
    match (scale != 0.0, size.as_const()) {
        (true, _) => Ok((q, scale)),
        (false, Some(d)) => Ok((q, 1.0 / (d as f32).sqrt())),
        (false, None) => {
            let q = cx.pw(&[q], |p, r| {
                let w = p.dtype(r[0]);
                let d = p.push(PwOp::Dim(size), vec![], DType::I64);
                let d = p.cast(d, w);
                let d = p.un(PwOp::Sqrt, d);
                p.bin(PwOp::Div, r[0], d)
            })?;
            Ok((q, 1.0))
        }
    }
}

/// Operands of an attention, `[B, H, S, D]` each.
pub(crate) struct Operands {
    pub q: ValueId,
    pub k: ValueId,
    pub v: ValueId,
    /// Keys and values of earlier steps.
    pub past: Option<(ValueId, ValueId)>,
    /// In one of the forms of `key_padding_mask` or `mask_index`.
    pub mask: Option<ValueId>,
    /// Whether a mask `[B, 1]` or `[1, 1]` stands for none.
    pub dummy_mask: bool,
    /// Added to the scores.
    pub bias: Option<ValueId>,
}

/// The attributes that all have.
pub(crate) struct Settings {
    scale: f32,
    /// What a masked score gets added.
    filter: f32,
    causal: bool,
}

impl Settings {
    pub fn read(cx: &Ctx) -> Result<Settings, Fail> {
        Ok(Settings {
            scale: cx.float("scale", 0.0)?,
            filter: cx.float("mask_filter_value", -10000.0)?,
            causal: cx.flag("unidirectional", false)?,
        })
    }
}

/// The result `[B, S, H * E]`, and keys and values with those of earlier steps before them.
pub(crate) fn attend(
    cx: &mut Ctx,
    on: Operands,
    settings: &Settings,
) -> Result<(ValueId, ValueId, ValueId), Fail> {
    let t = cx.dtype(on.q);
    let (mut k, mut v) = (on.k, on.v);
    let mut before = Dim::Const(0);
    if let Some((pk, pv)) = on.past {
        for (what, p, x) in [("'past' keys", pk, k), ("'past' values", pv, v)] {
            let (p, x) = (cx.dims(p)?, cx.dims(x)?);
            if p.len() != 4 {
                return Err(invalid(format!("{what} of rank {}, expected 4", p.len())));
            }
            for axis in [0, 1, 3] {
                same(
                    &format!("axis {axis} of {what} and of what follows them"),
                    &p[axis],
                    &x[axis],
                )?;
            }
        }
        before = cx.dims(pk)?[2].clone();
        k = cx.concat(&[pk, k], 2)?;
        v = cx.concat(&[pv, v], 2)?;
    }
    let (dq, dk) = (cx.dims(on.q)?, cx.dims(k)?);
    let ([b, h, s, _], [_, _, n, _]) = (dq.as_slice(), dk.as_slice()) else {
        return Err(invalid("operands of other ranks than 4"));
    };
    let mask = match on.mask {
        Some(m) if on.dummy_mask => real_mask(cx, m, (b, n))?,
        m => m,
    };
    let mut added = match mask {
        Some(m) => Some(padding(cx, m, (b, s, n), settings.filter)?),
        None => None,
    };
    if let Some(bias) = on.bias {
        let scores = [b.clone(), h.clone(), s.clone(), n.clone()];
        broadcasts_to("'attention_bias'", &cx.dims(bias)?, &scores)?;
        let bias = cx.cast(bias, DType::F32)?;
        added = Some(match added {
            Some(m) => cx.bin(PwOp::Add, bias, m)?,
            None => bias,
        });
    }
    let q = cx.widen(on.q)?;
    let (q, scale) = scaled(cx, q, settings.scale)?;
    let mut inputs = vec![q, cx.widen(k)?, cx.widen(v)?];
    let mut attrs = AttentionAttrs::plain(scale, settings.causal);
    if let Some(m) = added {
        attrs.has_mask = true;
        inputs.push(m);
    }
    if settings.causal && n.sub(s) != before {
        attrs.has_first = true;
        inputs.push(cx.pw_shaped(&[], Some(vec![b.clone()]), |p, _| {
            let d = p.push(PwOp::Dim(before), vec![], DType::I64);
            p.cast(d, DType::I32)
        })?);
    }
    let y = cx.emit1(Op::Attention(attrs), &inputs)?;
    let y = cx.cast(y, t)?;
    Ok((join_heads(cx, y)?, k, v))
}

/// `[B, H, S, E]` as `[B, S, H * E]`.
pub(crate) fn join_heads(cx: &mut Ctx, y: ValueId) -> Result<ValueId, Fail> {
    let y = swap(cx, y)?;
    let dims = cx.dims(y)?;
    let [b, s, h, e] = dims.as_slice() else {
        return Err(invalid("a result of another rank than 4"));
    };
    cx.reshape(y, vec![b.clone(), s.clone(), h.mul(e)])
}

/// A mask that may be `[B, 1]` or `[1, 1]`, which stand for none: as `[B, T]` of ones, where a run alone tells.
fn real_mask(cx: &mut Ctx, m: ValueId, (b, n): (&Dim, &Dim)) -> Result<Option<ValueId>, Fail> {
    let dims = cx.dims(m)?;
    let [_, width] = dims.as_slice() else {
        return Ok(Some(m));
    };
    if width.is_const(1) {
        return Ok(None);
    }
    if width.as_const().is_some() || width.equals(n) == Some(true) {
        return Ok(Some(m));
    }
    let width = width.clone();
    let shape = vec![b.clone(), n.clone()];
    let ones = cx.pw_shaped(&[], Some(shape.clone()), |p, _| p.number(1.0, DType::I32))?;
    let seen = cx.pw(&[m, ones], |p, r| {
        let width = p.push(PwOp::Dim(width), vec![], DType::I64);
        let one = p.number(1.0, DType::I64);
        let dummy = p.test(PwOp::Eq, vec![width, one]);
        p.select(dummy, r[1], r[0])
    })?;
    Ok(Some(cx.reshape(seen, shape)?))
}

/// A mask of integers as what is added to scores `[B, H, S, T]`: `[B]` numbers of keys, `[2 B]` ends and then starts,
/// `[B, T]` and `[B, S, T]` numbers that are greater than 0 where a key is seen.
fn padding(
    cx: &mut Ctx,
    m: ValueId,
    (b, s, n): (&Dim, &Dim, &Dim),
    filter: f32,
) -> Result<ValueId, Fail> {
    let dims = cx.dims(m)?;
    let one = || Dim::Const(1);
    let value = |p: &mut PwBuilder, seen: PwRef| {
        let (zero, no) = (
            p.number(0.0, DType::F32),
            p.number(filter as f64, DType::F32),
        );
        p.select(seen, zero, no)
    };
    match dims.as_slice() {
        [count] => {
            // Rows of ends and, if there are two, of starts.
            let rows = if count.equals(b) == Some(true) {
                one()
            } else {
                count.floor_div(b)
            };
            if rows.as_const().is_some_and(|n| !(1..=2).contains(&n)) {
                return Err(unsupported(format!("a mask of {count} numbers for a batch of {b}"))
                    .hint("one number or two for each batch element, or a mask of rank 2 or 3 is handled"));
            }
            let numbers = cx.reshape(m, vec![rows.clone(), b.clone()])?;
            let end = pick(cx, numbers, 0, 0)?;
            let mut inputs = vec![cx.reshape(end, vec![b.clone(), one(), one(), one()])?];
            if !rows.is_const(1) {
                // Where a run has ends alone, starts are 0; more than two rows do not fit the factors.
                let t = cx.dtype(m);
                let factors = cx.numbers(t, vec![2, 1], &[0.0, 1.0]);
                let factors = part(cx, factors, 0, &Dim::Const(0), &rows)?;
                let starts = cx.bin(PwOp::Mul, numbers, factors)?;
                let start = cx.reduce(ReduceKind::Sum, starts, vec![0], false)?;
                inputs.push(cx.reshape(start, vec![b.clone(), one(), one(), one()])?);
            }
            let shape = vec![b.clone(), one(), one(), n.clone()];
            cx.pw_shaped(&inputs, Some(shape), |p, r| {
                let j = p.push(PwOp::Index(3), vec![], DType::I64);
                let end = p.cast(r[0], DType::I64);
                let mut seen = p.test(PwOp::Lt, vec![j, end]);
                if let Some(start) = r.get(1) {
                    let start = p.cast(*start, DType::I64);
                    let behind = p.test(PwOp::Ge, vec![j, start]);
                    seen = p.bin(PwOp::And, seen, behind);
                }
                value(p, seen)
            })
        }
        [_, _] | [_, _, _] => {
            let rows = if dims.len() == 3 { s.clone() } else { one() };
            let mut four = dims.clone();
            four.splice(1..1, std::iter::repeat_n(one(), 4 - dims.len()));
            let shape = vec![b.clone(), one(), rows, n.clone()];
            let found = shape.iter().zip(&four);
            if found.clone().any(|(a, b)| a.equals(b) == Some(false)) {
                let text: Vec<String> = dims.iter().map(Dim::to_string).collect();
                return Err(invalid(format!(
                    "a mask of dimensions [{}] for a batch of {b}, {s} queries, {n} keys",
                    text.join(", ")
                )));
            }
            let m = cx.reshape(m, four)?;
            cx.pw_shaped(&[m], Some(shape), |p, r| {
                let zero = p.number(0.0, p.dtype(r[0]));
                let seen = p.test(PwOp::Gt, vec![r[0], zero]);
                value(p, seen)
            })
        }
        d => Err(unsupported(format!("a mask of rank {}", d.len()))
            .hint("masks of rank 1, 2 and 3 are handled")),
    }
}
