//! Contractions, convolutions, pooling and attention, as the plain loops that define them.

use super::data::{
    Number, Numbers, broadcast_strides, count, each_position, floats, numbers, offset, store,
    strides,
};
use super::rounding::{Rounder, Sum};
use crate::infer::axes;
use crate::op::{AttentionAttrs, PoolKind, Window};
use crate::{Dim, TensorData};

/// Runs a generic loop nest on both operands as f64, as sums that are not rounded to the nearest, or as wrapping i64.
macro_rules! on_numbers {
    ($a:expr, $b:expr, $rounder:expr, $f:expr) => {
        match (numbers($a), numbers($b)) {
            (Numbers::Float(a), Numbers::Float(b)) if $rounder.to_nearest() => {
                Numbers::Float($f(&a, &b))
            }
            (Numbers::Float(a), Numbers::Float(b)) => {
                let sums = $f(&Sum::all(&a), &Sum::all(&b));
                Numbers::Float($rounder.sums($a.dtype, sums))
            }
            (Numbers::Int(a), Numbers::Int(b)) => Numbers::Int($f(&a, &b)),
            (a, _) => a,
        }
    };
}

pub(super) fn contract(
    a: &[u8],
    b: &[u8],
    out: &[u8],
    x: &TensorData,
    y: &TensorData,
    dims: Vec<i64>,
    rounder: &Rounder,
) -> TensorData {
    // Labels: first those of the output, then those that are summed over.
    let mut labels = out.to_vec();
    for l in a.iter().chain(b) {
        if !labels.contains(l) {
            labels.push(*l);
        }
    }
    let extent = |l: &u8| {
        let of = |labels: &[u8], dims: &[i64]| labels.iter().position(|m| m == l).map(|i| dims[i]);
        match (of(a, &x.dims), of(b, &y.dims)) {
            (Some(1), Some(d)) | (Some(d), _) | (None, Some(d)) => d,
            (None, None) => 1,
        }
    };
    let extents: Vec<i64> = labels.iter().map(extent).collect();
    let steps = |own: &[u8], dims: &[i64]| -> Vec<usize> {
        let strides = strides(dims);
        labels
            .iter()
            .map(|l| {
                let at = (0..own.len()).filter(|i| own[*i] == *l && dims[*i] != 1);
                at.map(|i| strides[i]).sum()
            })
            .collect()
    };
    let (sx, sy) = (steps(a, &x.dims), steps(b, &y.dims));
    let n = out.len();
    fn sums<T: Number>(
        (x, sx): (&[T], &[usize]),
        (y, sy): (&[T], &[usize]),
        (outer, inner): (&[i64], &[i64]),
    ) -> Vec<T> {
        let n = outer.len();
        let mut result = Vec::with_capacity(count(outer));
        each_position(outer, |o| {
            let (bx, by) = (offset(o, &sx[..n]), offset(o, &sy[..n]));
            let mut sum = T::ZERO;
            each_position(inner, |i| {
                let (ix, iy) = (offset(i, &sx[n..]), offset(i, &sy[n..]));
                sum = sum.add(x[bx + ix].mul(y[by + iy]));
            });
            result.push(sum);
        });
        result
    }
    let ranges = (&extents[..n], &extents[n..]);
    let r = on_numbers!(x, y, rounder, |u: &[_], v: &[_]| sums(
        (u, &sx),
        (v, &sy),
        ranges
    ));
    store(x.dtype, dims, r)
}

/// An image's sizes and strides by role, in either layout.
struct Image {
    batch: i64,
    channels: i64,
    space: Vec<i64>,
    batch_stride: usize,
    channel_stride: usize,
    space_strides: Vec<usize>,
}

impl Image {
    fn new(w: &Window, dims: &[i64]) -> Image {
        let n = w.kernel.len();
        let (b, c, s) = axes(w.layout, n);
        let strides = strides(dims);
        Image {
            batch: dims[b],
            channels: dims[c],
            space: dims[s..s + n].to_vec(),
            batch_stride: strides[b],
            channel_stride: strides[c],
            space_strides: strides[s..s + n].to_vec(),
        }
    }
    fn at(&self, batch: i64, channel: i64, space: &[i64]) -> usize {
        batch as usize * self.batch_stride
            + channel as usize * self.channel_stride
            + offset(space, &self.space_strides)
    }
    /// Calls `f` with each batch, channel and point of space.
    fn each(&self, mut f: impl FnMut(i64, i64, &[i64])) {
        for b in 0..self.batch {
            for c in 0..self.channels {
                each_position(&self.space, |s| f(b, c, s));
            }
        }
    }
    fn inside(&self, space: &[i64]) -> bool {
        space.iter().zip(&self.space).all(|(p, d)| 0 <= *p && p < d)
    }
}

/// The sizes of a window; all are numbers when an operator runs.
fn sizes_of(v: &[Dim]) -> Vec<i64> {
    v.iter().map(|d| d.as_const().unwrap_or(0)).collect()
}

fn bias_or_zeros<T: Number>(bias: Option<&[T]>, channels: i64) -> Vec<T> {
    bias.map_or_else(|| vec![T::ZERO; channels as usize], <[T]>::to_vec)
}

pub(super) fn conv(
    w: &Window,
    groups: i64,
    x: &TensorData,
    weights: &TensorData,
    bias: Option<&TensorData>,
    dims: Vec<i64>,
    rounder: &Rounder,
) -> TensorData {
    let (image, out) = (Image::new(w, &x.dims), Image::new(w, &dims));
    let (begin, kernel) = (sizes_of(&w.pads_begin), sizes_of(&w.kernel));
    let steps = strides(&weights.dims);
    let (per_group, out_per_group) = (weights.dims[1], weights.dims[0] / groups);
    let (total, dtype) = (count(&dims), x.dtype);
    fn go<T: Number>(
        (x, image): (&[T], &Image),
        (k, steps): (&[T], &[usize]),
        out: &Image,
        bias: Vec<T>,
        w: &Window,
        (begin, kernel, per_group, out_per_group): (&[i64], &[i64], i64, i64),
        total: usize,
    ) -> Vec<T> {
        let mut result = vec![T::ZERO; total];
        let mut from = vec![0i64; begin.len()];
        out.each(|b, m, at| {
            let mut sum = bias[m as usize];
            for c in 0..per_group {
                let channel = m / out_per_group * per_group + c;
                let base = m as usize * steps[0] + c as usize * steps[1];
                each_position(kernel, |t| {
                    for i in 0..from.len() {
                        from[i] = at[i] * w.strides[i] + t[i] * w.dilations[i] - begin[i];
                    }
                    if image.inside(&from) {
                        let weight = k[base + offset(t, &steps[2..])];
                        sum = sum.add(x[image.at(b, channel, &from)].mul(weight));
                    }
                });
            }
            result[out.at(b, m, at)] = sum;
        });
        result
    }
    let sizes = (
        begin.as_slice(),
        kernel.as_slice(),
        per_group,
        out_per_group,
    );
    let r = match (numbers(x), numbers(weights), bias.map(numbers)) {
        (Numbers::Float(x), Numbers::Float(k), bias) => {
            let bias = match &bias {
                Some(Numbers::Float(v)) => Some(v.as_slice()),
                _ => None,
            };
            let bias = bias_or_zeros(bias, out.channels);
            Numbers::Float(match rounder.to_nearest() {
                true => go((&x, &image), (&k, &steps), &out, bias, w, sizes, total),
                false => {
                    let (x, k, bias) = (Sum::all(&x), Sum::all(&k), Sum::all(&bias));
                    let sums = go((&x, &image), (&k, &steps), &out, bias, w, sizes, total);
                    rounder.sums(dtype, sums)
                }
            })
        }
        (Numbers::Int(x), Numbers::Int(k), bias) => {
            let bias = match &bias {
                Some(Numbers::Int(v)) => Some(v.as_slice()),
                _ => None,
            };
            let bias = bias_or_zeros(bias, out.channels);
            Numbers::Int(go((&x, &image), (&k, &steps), &out, bias, w, sizes, total))
        }
        (x, ..) => x,
    };
    store(x.dtype, dims, r)
}

pub(super) fn conv_transpose(
    w: &Window,
    groups: i64,
    x: &TensorData,
    weights: &TensorData,
    bias: Option<&TensorData>,
    dims: Vec<i64>,
    rounder: &Rounder,
) -> TensorData {
    let (image, out) = (Image::new(w, &x.dims), Image::new(w, &dims));
    let (begin, kernel) = (sizes_of(&w.pads_begin), sizes_of(&w.kernel));
    let steps = strides(&weights.dims);
    let (in_per_group, per_group) = (weights.dims[0] / groups, weights.dims[1]);
    // Every input element is spread over the outputs that its kernel reaches.
    let (data, k) = (floats(x), floats(weights));
    let mut result = vec![Sum::ZERO; count(&dims)];
    if let Some(bias) = bias {
        let bias = Sum::all(&floats(bias));
        out.each(|b, m, at| result[out.at(b, m, at)] = bias[m as usize]);
    }
    let mut to = vec![0i64; begin.len()];
    image.each(|b, c, at| {
        let v = data[image.at(b, c, at)];
        for m in 0..per_group {
            let channel = c / in_per_group * per_group + m;
            let base = c as usize * steps[0] + m as usize * steps[1];
            each_position(&kernel, |t| {
                for i in 0..to.len() {
                    to[i] = at[i] * w.strides[i] + t[i] * w.dilations[i] - begin[i];
                }
                if out.inside(&to) {
                    let sum = &mut result[out.at(b, channel, &to)];
                    *sum = sum.add(Sum::of(v * k[base + offset(t, &steps[2..])]));
                }
            });
        }
    });
    let result = rounder.sums(x.dtype, result);
    store(x.dtype, dims, Numbers::Float(result))
}

/// Which taps of a window lie inside the image along one axis, and how many lie before the end of its padding: ceil mode
/// may reach past that, which does not count. The first tap is `begin` before the image.
fn taps(begin: i64, dilation: i64, taps: i64, size: i64, end: i64) -> (std::ops::Range<i64>, i64) {
    let before = |place: i64| {
        let reach = place.saturating_add(begin).max(0);
        (reach / dilation + i64::from(reach % dilation != 0)).min(taps)
    };
    (before(0)..before(size), before(size.saturating_add(end)))
}

pub(super) fn pool(
    kind: PoolKind,
    w: &Window,
    x: &TensorData,
    dims: Vec<i64>,
    rounder: &Rounder,
) -> TensorData {
    let (image, out) = (Image::new(w, &x.dims), Image::new(w, &dims));
    let (begin, end) = (sizes_of(&w.pads_begin), sizes_of(&w.pads_end));
    let kernel = sizes_of(&w.kernel);
    let raw = super::data::bits(x);
    let data = floats(x);
    let mut result = vec![0u64; count(&dims)];
    let scalar = |bits: u64| crate::Scalar {
        dtype: x.dtype,
        bits,
    };
    out.each(|b, c, at| {
        let mut best = super::rows::lowest(x.dtype);
        let mut sum = Sum::ZERO;
        // Taps outside of the image are not walked: there may be any number of them.
        let axes = (0..at.len()).map(|i| {
            let first = begin[i] - at[i] * w.strides[i];
            taps(first, w.dilations[i], kernel[i], image.space[i], end[i])
        });
        let (inside, reached): (Vec<_>, Vec<i64>) = axes.unzip();
        let padded = reached.iter().map(|n| *n as f64).product::<f64>();
        let lengths: Vec<i64> = inside.iter().map(|r| (r.end - r.start).max(0)).collect();
        let mut from = vec![0i64; at.len()];
        each_position(&lengths, |t| {
            for i in 0..from.len() {
                let tap = inside[i].start + t[i];
                from[i] = at[i] * w.strides[i] + tap * w.dilations[i] - begin[i];
            }
            let o = image.at(b, c, &from);
            let max = crate::PwOp::Max;
            if let Some(m) = super::eval_scalar(&max, &[scalar(best), scalar(raw[o])], x.dtype) {
                best = m.bits;
            }
            sum = sum.add(Sum::of(match kind {
                PoolKind::Lp { p } => data[o].abs().powf(p as f64),
                _ => data[o],
            }));
        });
        let sum = rounder.sum(x.dtype, sum);
        let of = |v: f64| crate::Scalar::of(x.dtype, rounder.function(x.dtype, v)).bits;
        let value = match kind {
            PoolKind::Max => best,
            PoolKind::Average { count_padding } => {
                let n = if count_padding {
                    padded
                } else {
                    count(&lengths) as f64
                };
                of(sum / n)
            }
            PoolKind::Lp { p } => of(sum.powf(1.0 / p as f64)),
        };
        result[out.at(b, c, at)] = value;
    });
    super::data::from_bits(x.dtype, dims, &result)
}

pub(super) fn attention(
    attrs: &AttentionAttrs,
    [q, k, v]: [&TensorData; 3],
    [mask, first, sink]: [Option<&TensorData>; 3],
    dims: Vec<i64>,
    rounder: &Rounder,
) -> TensorData {
    let sink = sink.map(floats);
    let first = first.and_then(TensorData::to_i64s).unwrap_or_default();
    let (dtype, sq, sk, sv) = (
        q.dtype,
        strides(&q.dims),
        strides(&k.dims),
        strides(&v.dims),
    );
    let (heads, key_heads) = (q.dims[1], k.dims[1]);
    let (queries, keys, features) = (q.dims[2], k.dims[2], q.dims[3] as usize);
    let scores_dims = [q.dims[0], heads, queries, keys];
    let mask = mask.map(|m| (floats(m), broadcast_strides(&m.dims, &scores_dims)));
    let (q, k, v) = (floats(q), floats(k), floats(v));
    let mut out = Vec::with_capacity(count(&dims));
    each_position(&[scores_dims[0], heads, queries], |at| {
        let (b, h, i) = (at[0] as usize, at[1], at[2]);
        let kh = (h * key_heads / heads.max(1)) as usize;
        let q0 = offset(at, &sq[..3]);
        let mut scores = Vec::new();
        let own = i + first.get(b).copied().unwrap_or(keys - queries);
        for j in 0..keys {
            let near = attrs.window.is_none_or(|w| j > own.saturating_sub(w));
            if attrs.causal && !(j <= own && near) {
                scores.push(f64::NEG_INFINITY);
                continue;
            }
            let k0 = b * sk[0] + kh * sk[1] + j as usize * sk[2];
            let dot = Sum::over((0..features).map(|d| q[q0 + d] * k[k0 + d]));
            let mut s = rounder.sum(dtype, dot) * attrs.scale as f64;
            if attrs.softcap != 0.0 {
                let cap = attrs.softcap as f64;
                s = cap * (s / cap).tanh();
            }
            if let Some((m, sm)) = &mask {
                s += m[offset(&[at[0], h, i, j], sm)];
            }
            scores.push(s);
        }
        let sink = sink.as_ref().and_then(|s| s.get(h as usize)).copied();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let max = max.max(sink.unwrap_or(max));
        for s in &mut scores {
            *s = (*s - max).exp();
        }
        let total = scores.iter().sum::<f64>() + sink.map_or(0.0, |s| (s - max).exp());
        for e in 0..dims[3] as usize {
            let v0 = b * sv[0] + kh * sv[1] + e;
            let terms = scores.iter().enumerate();
            let sum = Sum::over(terms.map(|(j, p)| p * v[v0 + j * sv[2]]));
            out.push(rounder.sum(dtype, sum) / total);
        }
    });
    store(dtype, dims, Numbers::Float(out))
}
