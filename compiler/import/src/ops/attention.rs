//! Attention and rotary embeddings.
//!
//! The plain case (no mask, or a causal one that `Op::Attention` means too) is one core operator;
//! everything else is written out in products, a bias made from indices, and a softmax.

use lapidary_graph::op::{AttentionAttrs, PadMode, ReduceKind};
use lapidary_graph::{DType, Dim, Op, PwOp, ValueId};

use super::softmax::along;
use crate::context::{Ctx, Outs, one};
use crate::dims::broadcast;
use crate::error::{Fail, invalid};

/// `[B, S, H * D]` as `[B, H, S, D]`.
fn heads(cx: &mut Ctx, x: ValueId, heads: &Dim) -> Result<ValueId, Fail> {
    let dims = cx.dims(x)?;
    let [b, s, n] = dims.as_slice() else {
        return Ok(x);
    };
    let shape = vec![b.clone(), s.clone(), heads.clone(), n.floor_div(heads)];
    let v = cx.reshape(x, shape)?;
    cx.transpose(v, vec![0, 2, 1, 3])
}

/// What restricts the keys that a query sees.
struct Bias {
    causal: bool,
    left: i64,
    right: i64,
    /// Position of query 0 among the keys, where it is one for all.
    offset: Dim,
    /// Keys that are not padding, for each batch element.
    length: Option<ValueId>,
    /// Whether the offset follows from `length`.
    by_length: bool,
    mask: Option<ValueId>,
}

pub(crate) fn attention(cx: &mut Ctx) -> Outs {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let flat = cx.rank(q)? == 3;
    let t = cx.dtype(q);
    let (mut q, mut k, mut v) = (q, k, v);
    if flat {
        let hq = Dim::Const(cx.int_required("q_num_heads")?);
        let hk = Dim::Const(cx.int_required("kv_num_heads")?);
        q = heads(cx, q, &hq)?;
        k = heads(cx, k, &hk)?;
        v = heads(cx, v, &hk)?;
    } else if cx.opset >= 25 {
        for name in ["q_num_heads", "kv_num_heads"] {
            if cx.has(name) {
                return Err(
                    invalid(format!("attribute '{name}' with operands of rank 4"))
                        .hint("they have an axis of heads: leave the attribute out"),
                );
            }
        }
    }
    if cx.opset >= 25 && cx.wants(1) != cx.wants(2) {
        return Err(
            invalid("one of the outputs present_key and present_value alone")
                .hint("ask for both or for none"),
        );
    }
    let (past_k, past_v) = (cx.opt(4), cx.opt(5));
    let mut past = Dim::Const(0);
    if let (Some(pk), Some(pv)) = (past_k, past_v) {
        past = cx.dims(pk)?.get(2).cloned().unwrap_or(past);
        k = cx.concat(&[pk, k], 2)?;
        v = cx.concat(&[pv, v], 2)?;
    }
    let (dq, dk, dv) = (cx.dims(q)?, cx.dims(k)?, cx.dims(v)?);
    let ([b, hq, s, d], [_, hk, n, _], [_, _, _, e]) =
        (dq.as_slice(), dk.as_slice(), dv.as_slice())
    else {
        return Err(invalid("operands of other ranks than 3 or 4"));
    };
    let length = cx.opt(6);
    for name in ["left_window_size", "right_window_size"] {
        let size = cx.int(name, -1)?;
        if size < -1 {
            let found = format!("attribute '{name}' is {size}");
            return Err(invalid(found).hint("expected 0 or more keys, or -1 for all"));
        }
    }
    let bias = Bias {
        causal: cx.flag("is_causal", false)?,
        left: cx.int("left_window_size", -1)?,
        right: cx.int("right_window_size", -1)?,
        offset: past,
        length,
        by_length: length.is_some() && past_k.is_none(),
        mask: cx.opt(3),
    };
    let softcap = cx.float("softcap", 0.0)? as f64;
    let wide = |cx: &mut Ctx, v| cx.widen(v);
    let (wq, wk, wv) = (wide(cx, q)?, wide(cx, k)?, wide(cx, v)?);
    let scale = match (cx.has("scale"), d.as_const()) {
        (true, _) => Some(cx.float("scale", 1.0)? as f64),
        (false, Some(d)) => Some(1.0 / (d as f64).sqrt()),
        _ => None,
    };
    let free = bias.left < 0 && bias.right < 0 && bias.length.is_none() && bias.mask.is_none();
    let aligned = !bias.causal || n.sub(s) == bias.offset;
    let mut outs = vec![None, Some(k), Some(v), None];
    let y = match scale {
        Some(scale) if free && aligned && softcap == 0.0 && !cx.wants(3) => {
            let attrs = AttentionAttrs::plain(scale as f32, bias.causal);
            cx.emit1(Op::Attention(attrs), &[wq, wk, wv])?
        }
        _ => {
            // A contraction would broadcast sizes of 1: what could not be compared is, when it runs.
            let wk = cx.reshape(wk, [b, hk, n, d].map(Dim::clone).to_vec())?;
            let wv = cx.reshape(wv, [b, hk, n, e].map(Dim::clone).to_vec())?;
            // Query heads in groups that share a key head.
            let group = hq.floor_div(hk);
            let five = vec![b.clone(), hk.clone(), group.clone(), s.clone(), d.clone()];
            let g = cx.reshape(wq, five)?;
            let scores = cx.contract(
                g,
                wk,
                (b"bhgsd".to_vec(), b"bhtd".to_vec(), b"bhgst".to_vec()),
            )?;
            let shape = vec![b.clone(), hq.clone(), s.clone(), n.clone()];
            let scores = cx.reshape(scores, shape)?;
            let size = d.clone();
            let raw = cx.pw(&[scores], |p, r| {
                let w = p.dtype(r[0]);
                let k = match scale {
                    Some(k) => p.number(k, w),
                    None => {
                        let d = p.push(PwOp::Dim(size), vec![], DType::I64);
                        let d = p.cast(d, w);
                        let d = p.un(PwOp::Sqrt, d);
                        p.un(PwOp::Reciprocal, d)
                    }
                };
                p.bin(PwOp::Mul, r[0], k)
            })?;
            let capped = if softcap > 0.0 {
                cx.pw(&[raw], |p, r| {
                    let w = p.dtype(r[0]);
                    let k = p.number(softcap, w);
                    let y = p.bin(PwOp::Div, r[0], k);
                    let y = p.un(PwOp::Tanh, y);
                    p.bin(PwOp::Mul, y, k)
                })?
            } else {
                raw
            };
            let pure = bias.mask.is_none() && bias.length.is_none();
            let guard = !(pure && bias.left < 0 && bias.right < 0);
            let bias = make_bias(cx, &bias, s, n)?;
            let biased = match bias {
                Some(m) => cx.pw(&[capped, m], |p, r| {
                    let w = p.dtype(r[0]);
                    let m = p.cast(r[1], w);
                    p.bin(PwOp::Add, r[0], m)
                })?,
                None => capped,
            };
            let mut probs = along(cx, biased, 3, false)?;
            if let Some(m) = bias.filter(|_| guard) {
                // A query that sees no key gives zeros.
                let last = cx.rank(m)? - 1;
                let most = cx.reduce(ReduceKind::Max, m, vec![last], true)?;
                probs = cx.pw(&[probs, most], |p, r| {
                    let (w, m) = (p.dtype(r[0]), p.dtype(r[1]));
                    let (inf, zero) = (p.number(f64::NEG_INFINITY, m), p.number(0.0, w));
                    let none = p.test(PwOp::Eq, vec![r[1], inf]);
                    p.select(none, zero, r[0])
                })?;
            }
            let picked = match cx.int("qk_matmul_output_mode", 0)? {
                0 => raw,
                1 => capped,
                2 => biased,
                _ => probs,
            };
            if cx.wants(3) {
                outs[3] = Some(cx.cast(picked, t)?);
            }
            let five = vec![b.clone(), hk.clone(), group, s.clone(), n.clone()];
            let g = cx.reshape(probs, five)?;
            let y = cx.contract(
                g,
                wv,
                (b"bhgst".to_vec(), b"bhte".to_vec(), b"bhgse".to_vec()),
            )?;
            cx.reshape(y, vec![b.clone(), hq.clone(), s.clone(), e.clone()])?
        }
    };
    let y = cx.cast(y, t)?;
    outs[0] = Some(if flat {
        let y = cx.transpose(y, vec![0, 2, 1, 3])?;
        cx.reshape(y, vec![b.clone(), s.clone(), hq.mul(e)])?
    } else {
        y
    });
    Ok(outs)
}

/// What is added to the scores: 0 or the mask where a key may be seen, minus infinity elsewhere.
fn make_bias(cx: &mut Ctx, bias: &Bias, s: &Dim, n: &Dim) -> Result<Option<ValueId>, Fail> {
    let windows = bias.left >= 0 || bias.right >= 0;
    if !bias.causal && !windows && bias.length.is_none() && bias.mask.is_none() {
        return Ok(None);
    }
    let mut inputs = Vec::new();
    let mut shapes = vec![vec![s.clone(), n.clone()]];
    let mut is_bool = false;
    let mut work = DType::F32;
    if let Some(m) = bias.mask {
        is_bool = cx.dtype(m) == DType::Bool;
        let m = pad_mask(cx, m, n)?;
        let m = if is_bool { m } else { cx.widen(m)? };
        if !is_bool {
            work = cx.dtype(m);
        }
        shapes.push(cx.dims(m)?);
        inputs.push(m);
    }
    if let Some(l) = bias.length {
        let l = cx.cast(l, DType::I64)?;
        let batch = Dim::product(&cx.dims(l)?);
        let shape = vec![batch, Dim::Const(1), Dim::Const(1), Dim::Const(1)];
        let l = cx.reshape(l, shape)?;
        shapes.push(cx.dims(l)?);
        inputs.push(l);
    }
    let refs: Vec<&[Dim]> = shapes.iter().map(Vec::as_slice).collect();
    let shape = broadcast(&refs).ok_or_else(|| invalid("the mask does not fit the scores"))?;
    let rank = shape.len() as u32;
    let (rows, offset) = (s.clone(), bias.offset.clone());
    let v = cx.pw_shaped(&inputs, Some(shape), |p, r| {
        let i64_ = DType::I64;
        let i = p.push(PwOp::Index(rank - 2), vec![], i64_);
        let j = p.push(PwOp::Index(rank - 1), vec![], i64_);
        let length = bias.length.is_some().then(|| r[r.len() - 1]);
        let mut allowed = None;
        let mut also = |p: &mut lapidary_graph::PwBuilder, c| {
            allowed = Some(match allowed {
                Some(a) => p.bin(PwOp::And, a, c),
                None => c,
            });
        };
        if bias.causal || windows {
            let base = match length {
                Some(l) if bias.by_length => {
                    let s = p.push(PwOp::Dim(rows), vec![], i64_);
                    p.bin(PwOp::Sub, l, s)
                }
                _ => p.push(PwOp::Dim(offset), vec![], i64_),
            };
            let at = p.bin(PwOp::Add, i, base);
            if bias.causal {
                let c = p.test(PwOp::Le, vec![j, at]);
                also(p, c);
            }
            for (w, op, edge) in [
                (bias.left, PwOp::Ge, PwOp::Sub),
                (bias.right, PwOp::Le, PwOp::Add),
            ] {
                if w >= 0 {
                    let w = p.number(w as f64, i64_);
                    let edge = p.bin(edge, at, w);
                    let c = p.test(op, vec![j, edge]);
                    also(p, c);
                }
            }
        }
        if let Some(l) = length {
            let c = p.test(PwOp::Lt, vec![j, l]);
            also(p, c);
        }
        let mut value = p.number(0.0, work);
        if bias.mask.is_some() {
            if is_bool {
                also(p, r[0]);
            } else {
                value = r[0];
            }
        }
        match allowed {
            Some(a) => {
                let inf = p.number(f64::NEG_INFINITY, work);
                p.select(a, value, inf)
            }
            None => value,
        }
    })?;
    Ok(Some(v))
}

/// A mask that is shorter than the keys hides the rest of them.
fn pad_mask(cx: &mut Ctx, m: ValueId, n: &Dim) -> Result<ValueId, Fail> {
    let dims = cx.dims(m)?;
    let Some(last) = dims.last() else {
        return Ok(m);
    };
    if last == n {
        return Ok(m);
    }
    let t = cx.dtype(m);
    let mut after = vec![Dim::Const(0); dims.len()];
    if let Some(a) = after.last_mut() {
        *a = n.sub(last);
    }
    let before = vec![Dim::Const(0); dims.len()];
    let op = |before, after| Op::Pad {
        before,
        after,
        mode: PadMode::Constant,
    };
    if t == DType::Bool {
        return cx.emit1(op(before, after), &[m]);
    }
    let inf = cx.scalar(t, f64::NEG_INFINITY);
    cx.emit1(op(before, after), &[m, inf])
}

/// Pairs of features rotated by the angle of their position.
pub(crate) fn rotary(cx: &mut Ctx) -> Outs {
    let (x, cos, sin) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let original = cx.dims(x)?;
    let interleaved = cx.flag("interleaved", false)?;
    // To [B, S, H, D].
    let v = match original.as_slice() {
        [_, _, _, _] => cx.transpose(x, vec![0, 2, 1, 3])?,
        [b, s, n] => {
            let h = Dim::Const(cx.int_required("num_heads")?);
            cx.reshape(x, vec![b.clone(), s.clone(), h.clone(), n.floor_div(&h)])?
        }
        d => return Err(invalid(format!("an input of rank {}", d.len()))),
    };
    let rotated = match cx.int("rotary_embedding_dim", 0)? {
        0 => cx.dims(v)?[3].clone(),
        n => Dim::Const(n),
    };
    let mut tables = Vec::new();
    for c in [cos, sin] {
        let c = match cx.opt(3) {
            Some(ids) => cx.emit1(Op::Gather { axis: 0 }, &[c, ids])?,
            None => c,
        };
        tables.push(c);
    }
    let y = rotate(cx, v, (tables[0], tables[1]), &rotated, interleaved)?;
    one(match original.len() {
        3 => cx.reshape(y, original)?,
        _ => cx.transpose(y, vec![0, 2, 1, 3])?,
    })
}

/// `[B, S, H, D]` with the first `rotated` features of each head turned by the angles of cosine and sine tables
/// `[B or 1, S, rotated / 2]`. A pair is two neighbours, or one feature of each half.
pub(crate) fn rotate(
    cx: &mut Ctx,
    v: ValueId,
    (cos, sin): (ValueId, ValueId),
    rotated: &Dim,
    interleaved: bool,
) -> Result<ValueId, Fail> {
    let dims = cx.dims(v)?;
    let [_, _, _, size] = dims.as_slice() else {
        return Err(invalid(format!("an input of rank {}", dims.len())));
    };
    let (size, rotated) = (size.clone(), rotated.clone());
    let half = rotated.floor_div(&Dim::Const(2));
    let zero = Dim::Const(0);
    let (cos, sin) = (cx.unsqueeze(cos, &[2])?, cx.unsqueeze(sin, &[2])?);
    let head = cx.slice_axis(v, 3, zero.clone(), 1, rotated.clone())?;
    let (a, b) = if interleaved {
        (
            cx.slice_axis(head, 3, zero.clone(), 2, half.clone())?,
            cx.slice_axis(head, 3, Dim::Const(1), 2, half.clone())?,
        )
    } else {
        (
            cx.slice_axis(head, 3, zero, 1, half.clone())?,
            cx.slice_axis(head, 3, half.clone(), 1, half.clone())?,
        )
    };
    let mix = |cx: &mut Ctx, first, second, op: PwOp| {
        cx.pw(&[a, b, first, second], |p, r| {
            let t = p.dtype(r[0]);
            let w = if t == DType::F64 { t } else { DType::F32 };
            let r: Vec<_> = r.iter().map(|x| p.cast(*x, w)).collect();
            let x = p.bin(PwOp::Mul, r[2], r[0]);
            let y = p.bin(PwOp::Mul, r[3], r[1]);
            let z = p.bin(op, x, y);
            p.cast(z, t)
        })
    };
    let real = mix(cx, cos, sin, PwOp::Sub)?;
    let imaginary = mix(cx, sin, cos, PwOp::Add)?;
    let mut y = if interleaved {
        let (r, i) = (cx.unsqueeze(real, &[4])?, cx.unsqueeze(imaginary, &[4])?);
        let y = cx.concat(&[r, i], 4)?;
        let mut flat = dims.clone();
        flat[3] = rotated.clone();
        cx.reshape(y, flat)?
    } else {
        cx.concat(&[real, imaginary], 3)?
    };
    if rotated != size {
        let rest = size.sub(&rotated);
        let tail = cx.slice_axis(v, 3, rotated, 1, rest)?;
        y = cx.concat(&[y, tail], 3)?;
    }
    Ok(y)
}
