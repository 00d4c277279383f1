//! Operators that are one call of a library kernel. The comment of each rule is the kernel's
//! contract; `docs/library.md` has them all in one table.

use lapidary_graph::{DType, Dim, ValueId};

use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, all, dims_text, one, same};
use crate::error::{Fail, invalid};

/// Inputs of the node as the call takes them, `n` in number.
fn inputs(cx: &Ctx, n: usize) -> Vec<Option<ValueId>> {
    (0..n).map(|i| cx.opt(i)).collect()
}

/// Library `non_zero`. Inputs: x. Output: i64 `[rank, count]`.
pub(crate) fn non_zero(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    cx.rank(x)?;
    let outs = cx.outputs(&[DType::I64])?;
    all(cx.library("non_zero", vec![], vec![], vec![Some(x)], outs))
}

/// Library `top_k`. Inputs: x, k (i64, one element). Ints: axis, largest, sorted. Outputs: values,
/// indices (i64); equal values by ascending index.
pub(crate) fn top_k(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let a = cx.axis("axis", cx.rank(x)?)?;
    let k = if cx.opset < 10 {
        let k = cx.int_required("k")?;
        cx.int_vector(&[k])
    } else {
        cx.input(1)?
    };
    let outs = cx.outputs(&[cx.dtype(x), DType::I64])?;
    let ints = vec![
        a as i64,
        cx.flag("largest", true)? as i64,
        cx.flag("sorted", true)? as i64,
    ];
    all(cx.library("top_k", ints, vec![], vec![Some(x), Some(k)], outs))
}

/// Library `unique`. Inputs: x. Ints: sorted, axis (or -1 for the flattened input). Outputs: y,
/// first positions, inverse positions, counts (all i64 vectors).
pub(crate) fn unique(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let axis = match cx.has("axis") {
        true => Some(cx.axis("axis", cx.rank(x)?)?),
        false => None,
    };
    let sorted = cx.flag("sorted", true)?;
    all(unique_of(cx, x, sorted, axis)?)
}

/// The call, for a value.
pub(crate) fn unique_of(
    cx: &mut Ctx,
    x: ValueId,
    sorted: bool,
    axis: Option<usize>,
) -> Result<Vec<ValueId>, Fail> {
    let dims = cx.dims(x)?;
    let (a, y, inverse) = match axis {
        Some(a) => {
            let n = dims[a].clone();
            let mut y: Vec<Option<Dim>> = dims.into_iter().map(Some).collect();
            y[a] = None;
            (a as i64, y, n)
        }
        None => (-1, vec![None], Dim::product(&dims)),
    };
    let ints = vec![sorted as i64, a];
    let outs = vec![
        LibOut::new(cx.dtype(x), y),
        LibOut::new(DType::I64, [None]),
        LibOut::fixed(DType::I64, [inverse]),
        LibOut::new(DType::I64, [None]),
    ];
    Ok(cx.library("unique", ints, vec![], vec![Some(x)], outs))
}

/// Library `non_max_suppression`. Inputs: boxes, scores, max boxes per class or none, IoU threshold
/// or none, score threshold or none. Ints: center_point_box. Output: i64 `[count, 3]`.
pub(crate) fn non_max_suppression(cx: &mut Ctx) -> Outs {
    let list = inputs(cx, 5);
    let ints = vec![cx.int("center_point_box", 0)?];
    let outs = cx.outputs(&[DType::I64])?;
    all(cx.library("non_max_suppression", ints, vec![], list, outs))
}

/// Library `reverse_sequence`. Inputs: x, lengths (i64). Ints: batch axis, time axis. Output as x.
pub(crate) fn reverse_sequence(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let axes = [cx.axis("batch_axis", rank)?, cx.axis("time_axis", rank)?];
    let ints = axes.map(|axis| axis as i64).to_vec();
    let (list, outs) = (inputs(cx, 2), cx.outputs(&[cx.dtype(x)])?);
    all(cx.library("reverse_sequence", ints, vec![], list, outs))
}

/// Library `det`. Inputs: x `[.., n, n]`. Output without the last two axes.
pub(crate) fn det(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    cx.rank(x)?;
    let outs = cx.outputs(&[cx.dtype(x)])?;
    all(cx.library("det", vec![], vec![], vec![Some(x)], outs))
}

/// Library `grid_sample`. Inputs: x `[N, C, d…]`, grid `[N, o…, n]`. Ints: mode (0 linear,
/// 1 nearest, 2 cubic), padding (0 zeros, 1 border, 2 reflection), align_corners.
pub(crate) fn grid_sample(cx: &mut Ctx) -> Outs {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let names = ["linear", "nearest", "cubic", "bilinear", "bicubic"];
    let default = if cx.opset < 20 { "bilinear" } else { "linear" };
    let mode = [0, 1, 2, 0, 2][cx.choice("mode", default, &names)?];
    let padding = cx.choice("padding_mode", "zeros", &["zeros", "border", "reflection"])?;
    let (dx, dg) = (cx.dims(x)?, cx.dims(grid)?);
    if dx.len() < 3 || dg.len() != dx.len() {
        return Err(invalid(format!(
            "an input of rank {} and a grid of rank {}",
            dx.len(),
            dg.len()
        )));
    }
    let coordinates = Dim::Const(dx.len() as i64 - 2);
    same(
        "the last dimension of the grid and the spatial axes",
        &dg[dg.len() - 1],
        &coordinates,
    )?;
    let ints = vec![mode, padding as i64, cx.int("align_corners", 0)?];
    let (list, outs) = (inputs(cx, 2), cx.outputs(&[cx.dtype(x)])?);
    all(cx.library("grid_sample", ints, vec![], list, outs))
}

/// Library `affine_grid`. Inputs: theta, size (i64, 4 or 5 elements). Ints: align_corners. Output
/// `[N, d…, number of spatial axes]`.
pub(crate) fn affine_grid(cx: &mut Ctx) -> Outs {
    let (theta, size) = (cx.input(0)?, cx.input(1)?);
    let known = cx.known(size);
    // The size says how many axes there are, and so do the rows of theta.
    let rows = cx.dims(theta)?.get(1).and_then(Dim::as_const);
    let n = known.as_ref().map(|k| k.len()).or(cx.vector_len(size));
    let n = n.or(rows.and_then(|r| usize::try_from(r).ok()).map(|r| r + 2));
    let ints = vec![cx.int("align_corners", 0)?];
    let list = inputs(cx, 2);
    let n = match n {
        Some(n @ (4 | 5)) => n,
        Some(n) => return Err(invalid(format!("a size of {n} numbers, expected 4 or 5"))),
        None => {
            let out = LibOut::unranked(cx.dtype(theta));
            return all(cx.library("affine_grid", ints, vec![], list, vec![out]));
        }
    };
    let mut dims: Vec<Option<Dim>> = vec![None; n];
    if let Some(k) = known {
        dims[0] = Some(k[0].clone());
        for i in 2..n {
            dims[i - 1] = Some(k[i].clone());
        }
    }
    dims[n - 1] = Some(Dim::from(n - 2));
    let out = LibOut::new(cx.dtype(theta), dims);
    one(first(&cx.library(
        "affine_grid",
        ints,
        vec![],
        list,
        vec![out],
    ))?)
}

/// Library `roi_align`. Inputs: x `[N, C, H, W]`, rois `[R, 4]`, batch indices `[R]`. Ints: mode
/// (0 avg, 1 max), output height, width, sampling ratio, half_pixel. Floats: spatial scale.
pub(crate) fn roi_align(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let mode = cx.choice("mode", "avg", &["avg", "max"])?;
    let (h, w) = (cx.int("output_height", 1)?, cx.int("output_width", 1)?);
    let default = if cx.opset < 16 {
        "output_half_pixel"
    } else {
        "half_pixel"
    };
    let names = ["output_half_pixel", "half_pixel"];
    let half = cx.choice("coordinate_transformation_mode", default, &names)?;
    let ratio = cx.int("sampling_ratio", 0)?;
    let floats = vec![cx.float("spatial_scale", 1.0)? as f64];
    let ints = vec![mode as i64, h, w, ratio, half as i64];
    let (list, outs) = (inputs(cx, 3), cx.outputs(&[cx.dtype(x)])?);
    all(cx.library("roi_align", ints, floats, list, outs))
}

/// Library `max_roi_pool`. Inputs: x `[N, C, H, W]`, rois `[R, 5]`. Ints: height, width. Floats:
/// spatial scale.
pub(crate) fn max_roi_pool(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let Some(&[h, w]) = cx.ints("pooled_shape")?.and_then(|p| p.first_chunk::<2>()) else {
        return Err(invalid("attribute 'pooled_shape' is not two numbers"));
    };
    let floats = vec![cx.float("spatial_scale", 1.0)? as f64];
    let (list, outs) = (inputs(cx, 2), cx.outputs(&[cx.dtype(x)])?);
    all(cx.library("max_roi_pool", vec![h, w], floats, list, outs))
}

/// Library `col2im`. Inputs: x `[N, C * block, L]`, image shape, block shape (i64). Ints: number of
/// spatial axes n, then n each of dilations, strides, pads before, pads after; or 0 alone: as many as the
/// image has, all 1, 1, 0, 0.
pub(crate) fn col2im(cx: &mut Ctx) -> Outs {
    let (x, image, block) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let dims = cx.dims(x)?;
    let [batch, rows, _] = dims.as_slice() else {
        return Err(invalid(format!(
            "an input of rank {}, expected 3",
            dims.len()
        )));
    };
    let stated =
        |name, each: usize| -> Result<_, Fail> { Ok(cx.ints(name)?.map(|list| list.len() / each)) };
    let stated = [
        stated("dilations", 1)?,
        stated("strides", 1)?,
        stated("pads", 2)?,
    ];
    let n = cx.vector_len(image).or(cx.vector_len(block));
    let n = n.or(stated.into_iter().flatten().next());
    let list = inputs(cx, 3);
    let Some(n) = n.filter(|n| *n <= 16) else {
        let out = LibOut::unranked(cx.dtype(x));
        return all(cx.library("col2im", vec![0], vec![], list, vec![out]));
    };
    let mut out = vec![Some(batch.clone()), None];
    match cx.known(image) {
        Some(k) => out.extend(k.iter().cloned().map(Some)),
        None => out.extend(vec![None; n]),
    }
    if let Some(b) = cx.known(block) {
        out[1] = Some(rows.floor_div(&Dim::product(&*b)));
    }
    let mut ints = vec![n as i64];
    for (name, len, default) in [("dilations", n, 1), ("strides", n, 1), ("pads", 2 * n, 0)] {
        match cx.ints(name)? {
            Some(v) if v.len() == len => ints.extend(v),
            None => ints.extend(vec![default; len]),
            Some(v) => {
                return Err(invalid(format!(
                    "attribute '{name}' has {} entries, expected {len}",
                    v.len()
                )));
            }
        }
    }
    let out = LibOut::new(cx.dtype(x), out);
    one(first(&cx.library("col2im", ints, vec![], list, vec![out]))?)
}

/// Library `deform_conv`. Inputs: x, w, offset, bias or none, mask or none. Ints: groups, offset
/// groups, number of spatial axes n, then n each of kernel (0: the weights'), strides, dilations, pads
/// before, pads after.
pub(crate) fn deform_conv(cx: &mut Ctx) -> Outs {
    let (x, w, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (dx, dw, off) = (cx.dims(x)?, cx.dims(w)?, cx.dims(offset)?);
    if dx.len() < 3 || dw.len() != dx.len() || off.len() != dx.len() {
        return Err(invalid("operands of different ranks"));
    }
    let mut kernel = dw[2..].to_vec();
    if let Some(given) = cx.ints("kernel_shape")? {
        let given = super::conv::constants(given);
        let differs = |(a, b): (&Dim, &Dim)| a.equals(b) == Some(false);
        if given.len() != kernel.len() || given.iter().zip(&kernel).any(differs) {
            return Err(invalid(format!(
                "'kernel_shape' is [{}], but the weights are [{}]",
                dims_text(&given),
                dims_text(&kernel)
            )));
        }
        kernel = given;
    }
    let shape = super::conv::Shape::read(cx, kernel)?;
    // A size of 0: the weights' own.
    let kernel = shape
        .kernel
        .iter()
        .map(|k| k.as_const().unwrap_or(0))
        .collect();
    let mut ints = vec![
        cx.int("group", 1)?,
        cx.int("offset_group", 1)?,
        shape.kernel.len() as i64,
    ];
    for l in [&kernel, &shape.strides, &shape.dilations, &shape.pads] {
        ints.extend(l);
    }
    let (list, outs) = (inputs(cx, 5), cx.outputs(&[cx.dtype(x)])?);
    all(cx.library("deform_conv", ints, vec![], list, outs))
}

/// Library `max_unpool`. Inputs: x, positions (i64), output shape (i64) or none. Ints: number of
/// spatial axes n, then n each of kernel, strides, pads before, pads after.
pub(crate) fn max_unpool(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let dims = cx.dims(x)?;
    let kernel = cx.ints("kernel_shape")?.unwrap_or(&[]).to_vec();
    let n = kernel.len();
    if dims.len() != n + 2 || n == 0 {
        return Err(invalid(format!(
            "a kernel of {n} axes over an input of rank {}",
            dims.len()
        )));
    }
    let shape = super::conv::Shape::read(cx, super::conv::constants(&kernel))?;
    if let Some(entries) = cx.opt(2).and_then(|s| cx.vector_len(s))
        && entries != n + 2
    {
        let found = format!("an output shape of {entries} entries");
        return Err(invalid(found).hint(format!("expected {}", n + 2)));
    }
    let mut ints = vec![n as i64];
    for l in [&kernel, &shape.strides, &shape.pads] {
        ints.extend(l);
    }
    let (list, mut outs) = (inputs(cx, 3), cx.outputs(&[cx.dtype(x)])?);
    // How many sizes are listed may be known at run time only.
    outs[0].dims.get_or_insert_with(|| vec![None; n + 2]);
    all(cx.library("max_unpool", ints, vec![], list, outs))
}

/// Library `dft`. Inputs: x `[.., 1 or 2]`, length (one i64) or none, axis (one i64) or none.
/// Ints: axis (used where input 2 is none), inverse, onesided. Output `[.., 2]`, or `[.., 1]` for
/// an inverse onesided transform.
pub(crate) fn dft(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let (inverse, onesided) = (cx.flag("inverse", false)?, cx.flag("onesided", false)?);
    // Half a spectrum is that of real numbers, and gives such back.
    let parts = dims.last().and_then(Dim::as_const);
    let expected = if inverse { 2 } else { 1 };
    if onesided && parts.is_some_and(|parts| parts != expected) {
        let found = format!(
            "a one-sided transform of a last axis of {}",
            parts.unwrap_or(0)
        );
        return Err(invalid(found).hint(format!("expected {expected}")));
    }
    let length = cx.opt(1);
    let axis_input = if cx.opset >= 20 { cx.opt(2) } else { None };
    let a = cx.axis_if_known("axis", rank)?;
    let ints = vec![a.map_or(-2, |a| a as i64), inverse as i64, onesided as i64];
    let list = vec![Some(x), length, axis_input];
    let outs = cx.outputs(&[cx.dtype(x)])?;
    all(cx.library("dft", ints, vec![], list, outs))
}

/// Library `stft`. Inputs: signal `[batch, length, 1 or 2]` (or without the last axis), frame step,
/// window or none, frame length or none. Ints: onesided. Output `[batch, frames, bins, 2]`.
pub(crate) fn stft(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    cx.rank(x)?;
    let ints = vec![cx.flag("onesided", true)? as i64];
    let (list, outs) = (inputs(cx, 4), cx.outputs(&[cx.dtype(x)])?);
    all(cx.library("stft", ints, vec![], list, outs))
}

/// Library `mel_weight_matrix`. Inputs: number of bins, DFT length, sample rate, lower and upper
/// edge in hertz. Ints: element type of the output. Output `[length / 2 + 1, bins]`.
pub(crate) fn mel_weight_matrix(cx: &mut Ctx) -> Outs {
    let t = cx.dtype_attr("output_datatype", DType::F32)?;
    let (list, outs) = (inputs(cx, 5), cx.outputs(&[t])?);
    all(cx.library("mel_weight_matrix", vec![t as i64], vec![], list, outs))
}

/// Library `linear_attention`. Inputs: query, key, value (`[B, T, H * D]`), past state or none,
/// decay or none, beta or none. Ints: query heads, key heads, rule (0 linear, 1 gated, 2 delta,
/// 3 gated_delta). Floats: scale (0: by the root of the key size). Outputs: `[B, T, Hq * Dv]`, state
/// `[B, Hkv, Dk, Dv]`.
pub(crate) fn linear_attention(cx: &mut Ctx) -> Outs {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (hq, hk) = (
        cx.int_required("q_num_heads")?,
        cx.int_required("kv_num_heads")?,
    );
    let rules = ["linear", "gated", "delta", "gated_delta"];
    let rule = cx.choice("update_rule", "gated_delta", &rules)?;
    let floats = vec![cx.float("scale", 0.0)? as f64];
    let (dq, dk, dv) = (cx.dims(q)?, cx.dims(k)?, cx.dims(v)?);
    let ([b, t, _], [_, _, _], [_, _, _]) = (dq.as_slice(), dk.as_slice(), dv.as_slice()) else {
        return Err(invalid("operands of other ranks than 3"));
    };
    if hq < 1 || hk < 1 || hq % hk != 0 {
        return Err(invalid(format!("{hq} heads of queries and {hk} of keys")));
    }
    for (what, i, needed) in [("decay", 4, rule == 1 || rule == 3), ("beta", 5, rule >= 2)] {
        match cx.opt(i) {
            None if needed => {
                let name = rules[rule];
                return Err(invalid(format!("'{name}' needs the input '{what}'")));
            }
            Some(v) if cx.rank(v)? != 3 => {
                return Err(invalid(format!(
                    "'{what}' is of rank {}, expected 3",
                    cx.rank(v)?
                )));
            }
            Some(v) if i == 5 => {
                let last = cx.dims(v)?[2].as_const();
                if last.is_some_and(|n| n != 1 && n != hk) {
                    return Err(invalid(format!(
                        "the last dimension of 'beta' is {}, expected 1 or {hk}",
                        last.unwrap_or(0)
                    )));
                }
            }
            _ => {}
        }
    }
    for other in [&dk, &dv] {
        same("the batches of the operands", b, &other[0])?;
        same("the lengths of the operands", t, &other[1])?;
    }
    let dtype = cx.dtype(q);
    let state_type = cx.opt(3).map_or(dtype, |s| cx.dtype(s));
    let outs = cx.outputs(&[dtype, state_type])?;
    let list = inputs(cx, 6);
    let ints = vec![hq, hk, rule as i64];
    all(cx.library("linear_attention", ints, floats, list, outs))
}
