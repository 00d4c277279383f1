//! Contractions, convolutions, pooling, attention.

use super::{Class, Context, InferError, unranked};
use crate::op::{AttentionAttrs, Layout, PoolKind, Window};
use crate::{DType, Dim, TensorType};
use std::collections::BTreeMap;

pub(super) fn contract(
    cx: &mut Context,
    a: &[u8],
    b: &[u8],
    out: &[u8],
) -> Result<TensorType, InferError> {
    cx.count(2, 2)?;
    let (x, y) = (cx.input(0, "a")?, cx.input(1, "b")?);
    cx.class("a", x, Class::Numeric)?;
    cx.dtype("b", y, x.dtype)?;
    for (i, l) in out.iter().enumerate() {
        if !a.contains(l) && !b.contains(l) {
            return Err(cx.attribute("out", "labels of a or b", l));
        }
        if out[..i].contains(l) {
            return Err(cx.attribute("out", "each label once", out));
        }
    }
    for (what, labels, t) in [("a", a, x), ("b", b, y)] {
        match t.rank() {
            Some(r) if r != labels.len() => return Err(cx.rank_error(what, labels.len(), r)),
            _ => {}
        }
    }
    if x.shape.is_none() || y.shape.is_none() {
        return Ok(unranked(x.dtype));
    }
    let mut extents: BTreeMap<u8, Dim> = BTreeMap::new();
    for (what, labels, t) in [("a", a, x), ("b", b, y)] {
        let mut own: BTreeMap<u8, Dim> = BTreeMap::new();
        for (axis, (l, d)) in labels.iter().zip(t.dims()).enumerate() {
            let d = match own.get(l) {
                // A label twice in one operand walks its diagonal.
                Some(e) => cx.equal(what, axis, e, d)?,
                None => d.clone(),
            };
            own.insert(*l, d);
        }
        for (l, d) in own {
            let axis = labels.iter().position(|m| *m == l).unwrap_or(0);
            let d = match extents.get(&l) {
                Some(e) => cx.broadcast(what, axis, e, &d)?,
                None => d,
            };
            extents.insert(l, d);
        }
    }
    let dims = out
        .iter()
        .map(|l| extents.get(l).cloned().unwrap_or(Dim::Const(1)));
    Ok(TensorType::new(x.dtype, dims))
}

/// Positions of batch, channels and the first spatial axis.
pub(crate) fn axes(layout: Layout, spatial: usize) -> (usize, usize, usize) {
    match layout {
        Layout::ChannelsFirst => (0, 1, 2),
        Layout::ChannelsLast => (0, spatial + 1, 1),
    }
}

/// `[batch, channels, space]` in the order of the layout.
fn laid_out(layout: Layout, batch: Dim, channels: Dim, space: Vec<Dim>) -> Vec<Dim> {
    match layout {
        Layout::ChannelsFirst => [batch, channels].into_iter().chain(space).collect(),
        Layout::ChannelsLast => std::iter::once(batch)
            .chain(space)
            .chain([channels])
            .collect(),
    }
}

fn window(cx: &Context, w: &Window) -> Result<(), InferError> {
    let n = w.kernel.len();
    for (name, len) in [
        ("strides", w.strides.len()),
        ("dilations", w.dilations.len()),
        ("pads_begin", w.pads_begin.len()),
        ("pads_end", w.pads_end.len()),
    ] {
        if len != n {
            return Err(cx.attribute(name, format!("{n} entries, one a spatial axis"), len));
        }
    }
    if w.kernel.iter().any(|k| k.is_ge(1) == Some(false)) {
        return Err(cx.attribute("kernel", "numbers >= 1", &w.kernel));
    }
    for (name, v) in [("strides", &w.strides), ("dilations", &w.dilations)] {
        if v.iter().any(|x| *x < 1) {
            return Err(cx.attribute(name, "numbers >= 1", v));
        }
    }
    Ok(())
}

/// What the dilated kernel covers along spatial axis `i`.
fn reach(w: &Window, i: usize) -> Dim {
    let unit = Dim::Const(1);
    w.kernel[i]
        .sub(&unit)
        .mul(&Dim::Const(w.dilations[i]))
        .add(&unit)
}

/// Batch, channels and space of an image.
type Image = (Dim, Dim, Vec<Dim>);

/// The image input against the window.
fn image<'a>(cx: &Context<'a>, w: &Window) -> Result<(&'a TensorType, Option<Image>), InferError> {
    window(cx, w)?;
    let x = cx.input(0, "x")?;
    let n = w.kernel.len();
    let Some(dims) = &x.shape else {
        return Ok((x, None));
    };
    if dims.len() != n + 2 {
        return Err(cx.rank_error("x", n + 2, dims.len()));
    }
    let (b, c, s) = axes(w.layout, n);
    let at = |i: usize| dims.get(i).cloned().unwrap_or(Dim::Const(1));
    Ok((x, Some((at(b), at(c), (s..s + n).map(at).collect()))))
}

/// Checks w's rank, kernel and types; gives its first two dimensions.
fn weights(
    cx: &mut Context,
    w: &Window,
    groups: &Dim,
    x: &TensorType,
) -> Result<Option<(Dim, Dim)>, InferError> {
    cx.count(2, 3)?;
    if groups.is_ge(1) == Some(false) {
        return Err(cx.attribute("groups", "at least 1", groups));
    }
    cx.class("x", x, Class::Numeric)?;
    let weights = cx.input(1, "w")?;
    cx.dtype("w", weights, x.dtype)?;
    let Some(dims) = &weights.shape else {
        return Ok(None);
    };
    if dims.len() != w.kernel.len() + 2 {
        return Err(cx.rank_error("w", w.kernel.len() + 2, dims.len()));
    }
    for (i, k) in w.kernel.iter().enumerate() {
        cx.equal("w (the kernel)", i + 2, k, &dims[i + 2])?;
    }
    Ok(Some((dims[0].clone(), dims[1].clone())))
}

/// Groups are of one size.
fn divides(cx: &mut Context, groups: &Dim, what: &str, channels: &Dim) -> Result<(), InferError> {
    let rest = channels.modulo(groups);
    if rest.equals(&Dim::Const(0)) == Some(false) {
        return Err(cx.attribute("groups", format!("a divisor of {channels}"), groups));
    }
    cx.equal(what, 0, &Dim::Const(0), &rest).map(|_| ())
}

fn bias(cx: &mut Context, x: &TensorType, channels: &Dim) -> Result<(), InferError> {
    let Some(b) = cx.optional(2) else {
        return Ok(());
    };
    cx.dtype("bias", b, x.dtype)?;
    match b.shape.as_deref() {
        None => Ok(()),
        Some([d]) => cx.equal("bias", 0, channels, d).map(|_| ()),
        Some(dims) => Err(cx.rank_error("bias", 1, dims.len())),
    }
}

pub(super) fn conv(cx: &mut Context, w: &Window, groups: &Dim) -> Result<TensorType, InferError> {
    let (x, image) = image(cx, w)?;
    let weights = weights(cx, w, groups, x)?;
    let (Some((batch, channels, space)), Some((m, c))) = (image, weights) else {
        return Ok(unranked(x.dtype));
    };
    let (_, channel_axis, space_axis) = axes(w.layout, w.kernel.len());
    cx.equal("x (the channels)", channel_axis, &c.mul(groups), &channels)?;
    divides(cx, groups, "w (filters modulo groups)", &m)?;
    bias(cx, x, &m)?;
    let mut out = Vec::with_capacity(space.len());
    for (i, d) in space.iter().enumerate() {
        // floor((d + pads - reach) / stride) + 1, where reach is what the dilated kernel covers.
        let reach = reach(w, i);
        let room = d.add(&w.pads_begin[i]).add(&w.pads_end[i]).sub(&reach);
        if room.is_ge(0) == Some(false) {
            return Err(InferError::Dim {
                op: cx.op.into(),
                what: format!("padded x, spatial axis {i}, is smaller than the kernel"),
                found: room.add(&reach),
                expected: reach,
            });
        }
        cx.at_most("the kernel", space_axis + i, &reach, &room.add(&reach))?;
        let size = room
            .floor_div(&Dim::Const(w.strides[i]))
            .add(&Dim::Const(1));
        cx.dims_valid("pads", std::slice::from_ref(&size))?;
        out.push(size);
    }
    Ok(TensorType::new(x.dtype, laid_out(w.layout, batch, m, out)))
}

pub(super) fn conv_transpose(
    cx: &mut Context,
    w: &Window,
    groups: i64,
    output_padding: &[i64],
) -> Result<TensorType, InferError> {
    let (x, image) = image(cx, w)?;
    cx.class("x", x, Class::Float)?;
    let weights = weights(cx, w, &Dim::Const(groups), x)?;
    if output_padding.len() != w.kernel.len() {
        let expected = format!("{} entries", w.kernel.len());
        return Err(cx.attribute("output_padding", expected, output_padding));
    }
    let (Some((batch, channels, space)), Some((c, m))) = (image, weights) else {
        return Ok(unranked(x.dtype));
    };
    let (_, channel_axis, _) = axes(w.layout, w.kernel.len());
    cx.equal("x (the channels)", channel_axis, &c, &channels)?;
    divides(cx, &Dim::Const(groups), "w (channels modulo groups)", &c)?;
    let m = m.mul(&Dim::Const(groups));
    bias(cx, x, &m)?;
    let mut out = Vec::with_capacity(space.len());
    for (i, d) in space.iter().enumerate() {
        // stride * (d - 1) + output_padding + reach - pads
        let full = d
            .sub(&Dim::Const(1))
            .mul(&Dim::Const(w.strides[i]))
            .add(&reach(w, i))
            .add(&Dim::Const(output_padding[i]));
        let d = full.sub(&w.pads_begin[i]).sub(&w.pads_end[i]);
        cx.dims_valid("pads", std::slice::from_ref(&d))?;
        out.push(d);
    }
    Ok(TensorType::new(x.dtype, laid_out(w.layout, batch, m, out)))
}

pub(super) fn pool(
    cx: &mut Context,
    kind: PoolKind,
    w: &Window,
    out: &[Dim],
) -> Result<TensorType, InferError> {
    cx.count(1, 1)?;
    let (x, image) = image(cx, w)?;
    match kind {
        PoolKind::Max => cx.class("x", x, Class::Numeric)?,
        PoolKind::Average { .. } | PoolKind::Lp { .. } => cx.class("x", x, Class::Float)?,
    }
    if let PoolKind::Lp { p } = kind
        && p < 1
    {
        return Err(cx.attribute("p", "at least 1", p));
    }
    if out.len() != w.kernel.len() {
        return Err(cx.attribute("out", format!("{} sizes", w.kernel.len()), out.len()));
    }
    cx.dims_valid("out", out)?;
    Ok(match image {
        Some((batch, channels, _)) => {
            TensorType::new(x.dtype, laid_out(w.layout, batch, channels, out.to_vec()))
        }
        None => unranked(x.dtype),
    })
}

pub(super) fn attention(
    cx: &mut Context,
    attrs: &AttentionAttrs,
) -> Result<TensorType, InferError> {
    cx.count(attrs.inputs(), attrs.inputs())?;
    let (q, k, v) = (cx.input(0, "q")?, cx.input(1, "k")?, cx.input(2, "v")?);
    cx.class("q", q, Class::Float)?;
    cx.dtype("k", k, q.dtype)?;
    cx.dtype("v", v, q.dtype)?;
    for (what, t) in [("q", q), ("k", k), ("v", v)] {
        match t.rank() {
            Some(r) if r != 4 => return Err(cx.rank_error(what, 4, r)),
            _ => {}
        }
    }
    let ([b, h, s, d], [kb, kh, t, kd], [vb, vh, vt, e]) = (q.dims(), k.dims(), v.dims()) else {
        return Ok(unranked(q.dtype));
    };
    cx.equal("k (the batch)", 0, b, kb)?;
    cx.equal("v (the batch)", 0, b, vb)?;
    cx.equal("v (the heads)", 1, kh, vh)?;
    cx.equal("k (the features)", 3, d, kd)?;
    cx.equal("v (the positions)", 2, t, vt)?;
    let rest = h.modulo(kh);
    if rest.equals(&Dim::Const(0)) == Some(false) {
        return Err(InferError::Dim {
            op: cx.op.into(),
            what: "k, axis 1: the query heads are no multiple of the key heads".into(),
            expected: h.clone(),
            found: kh.clone(),
        });
    }
    if !rest.is_const(0) {
        cx.equal("q (heads modulo key heads)", 1, &Dim::Const(0), &rest)?;
    }
    if let Some(i) = attrs.mask() {
        let mask = cx.input(i, "mask")?;
        cx.dtype("mask", mask, DType::F32)?;
        let scores = [b.clone(), h.clone(), s.clone(), t.clone()];
        cx.shape_broadcasts_to("mask", mask.dims(), &scores)?;
    }
    if !attrs.causal && (attrs.has_first || attrs.window.is_some()) {
        return Err(cx.attribute("causal", "true with window or first", attrs.causal));
    }
    if let Some(w) = attrs.window.filter(|w| *w < 1) {
        return Err(cx.attribute("window", "1 or more", w));
    }
    for (what, i, dtype, size) in [
        ("first", attrs.first(), DType::I32, b),
        ("sink", attrs.sink(), DType::F32, h),
    ] {
        let Some(i) = i else { continue };
        let t = cx.input(i, what)?;
        cx.dtype(what, t, dtype)?;
        match (t.dims(), t.rank()) {
            ([n], _) => {
                cx.equal(what, 0, size, n)?;
            }
            (_, Some(rank)) => return Err(cx.rank_error(what, 1, rank)),
            _ => {}
        }
    }
    let out = [b.clone(), h.clone(), s.clone(), e.clone()];
    Ok(TensorType::new(q.dtype, out))
}
