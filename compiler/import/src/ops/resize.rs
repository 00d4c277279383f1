//! Resampling of images: Resize and Upsample.

use lapidary_graph::{DType, Dim, ValueId};

use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};

const MODES: [&str; 3] = ["nearest", "linear", "cubic"];
const COORDINATES: [&str; 7] = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
    "half_pixel_symmetric",
];
const NEAREST: [&str; 4] = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];

/// What the library kernel is told.
struct Attrs {
    mode: usize,
    coordinates: usize,
    nearest: usize,
    exclude_outside: bool,
    antialias: bool,
    /// 0 stretch, 1 not larger, 2 not smaller.
    policy: usize,
    cubic: f64,
    extrapolation: f64,
}

/// Library `resize`. Inputs: x, roi or none, scales or none, sizes (i64) or none; exactly one of the
/// last two. Ints: mode (0 nearest, 1 linear, 2 cubic), coordinates (0 half_pixel,
/// 1 pytorch_half_pixel, 2 align_corners, 3 asymmetric, 4 tf_half_pixel_for_nn,
/// 5 tf_crop_and_resize, 6 half_pixel_symmetric), nearest mode (0 round_prefer_floor,
/// 1 round_prefer_ceil, 2 floor, 3 ceil), exclude_outside, antialias, aspect policy (0 stretch,
/// 1 not_larger, 2 not_smaller), then the axes that roi, scales and sizes speak of. Floats: cubic
/// coefficient, extrapolation value.
pub(crate) fn resize(cx: &mut Ctx) -> Outs {
    if cx.opset < 11 {
        return upsample(cx);
    }
    let x = cx.input(0)?;
    let policies = ["stretch", "not_larger", "not_smaller"];
    let attrs = Attrs {
        mode: cx.choice("mode", "nearest", &MODES)?,
        coordinates: cx.choice("coordinate_transformation_mode", "half_pixel", &COORDINATES)?,
        nearest: cx.choice("nearest_mode", "round_prefer_floor", &NEAREST)?,
        exclude_outside: cx.flag("exclude_outside", false)?,
        antialias: cx.flag("antialias", false)?,
        policy: cx.choice("keep_aspect_ratio_policy", "stretch", &policies)?,
        cubic: cx.float("cubic_coeff_a", -0.75)? as f64,
        extrapolation: cx.float("extrapolation_value", 0.0)? as f64,
    };
    // An empty tensor stands for an absent one.
    let full = |cx: &Ctx, i: usize| {
        cx.opt(i)
            .filter(|v| !cx.g.dims(*v).iter().any(|d| d.is_const(0)))
    };
    let (roi, scales, sizes) = (full(cx, 1), full(cx, 2), full(cx, 3));
    call(cx, x, roi, scales, sizes, &attrs)
}

/// Upsample, and Resize before opset 11: scales alone, coordinates by plain division.
pub(crate) fn upsample(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let scales = if cx.opset < 9 {
        let s = cx
            .floats("scales")?
            .ok_or_else(|| invalid("attribute 'scales' is missing"))?;
        let s: Vec<f64> = s.iter().map(|v| *v as f64).collect();
        cx.numbers(DType::F32, vec![s.len() as i64], &s)
    } else {
        cx.input(1)?
    };
    let names = ["nearest", "linear", "cubic", "bilinear"];
    let attrs = Attrs {
        mode: [0, 1, 2, 1][cx.choice("mode", "nearest", &names)?],
        coordinates: 3,
        nearest: 2,
        exclude_outside: false,
        antialias: false,
        policy: 0,
        cubic: -0.75,
        extrapolation: 0.0,
    };
    call(cx, x, None, Some(scales), None, &attrs)
}

fn call(
    cx: &mut Ctx,
    x: ValueId,
    roi: Option<ValueId>,
    scales: Option<ValueId>,
    sizes: Option<ValueId>,
    attrs: &Attrs,
) -> Outs {
    let dims = cx.dims(x)?;
    let which = match cx.opset {
        ..18 => (0..dims.len()).collect(),
        _ => cx.axes("axes", dims.len())?,
    };
    if scales.is_some() == sizes.is_some() {
        return Err(invalid("exactly one of scales and sizes must be given"));
    }
    for (what, v) in [("scales", scales), ("sizes", sizes)] {
        let Some(v) = v else { continue };
        let Some(found) = cx.g.ty(v).shape.clone() else {
            continue;
        };
        let fits = |n: &Dim| n.equals(&Dim::Const(which.len() as i64)) != Some(false);
        if found.len() != 1 || !found.iter().all(fits) {
            let text: Vec<String> = found.iter().map(Dim::to_string).collect();
            return Err(invalid(format!(
                "'{what}' has the dimensions [{}], expected [{}]",
                text.join(", "),
                which.len()
            )));
        }
    }
    let wanted = match (scales, sizes) {
        (Some(s), _) => by_scales(cx, &dims, &which, s)?,
        (_, Some(s)) if attrs.policy == 0 => {
            cx.known(s).map(|k| k.iter().cloned().map(Some).collect())
        }
        _ => None,
    };
    let mut out: Vec<Option<Dim>> = dims.iter().cloned().map(Some).collect();
    for (k, a) in which.iter().enumerate() {
        out[*a] = wanted
            .as_ref()
            .and_then(|w: &Vec<Option<Dim>>| w.get(k).cloned().flatten());
    }
    let mut ints = vec![
        attrs.mode as i64,
        attrs.coordinates as i64,
        attrs.nearest as i64,
        attrs.exclude_outside as i64,
        attrs.antialias as i64,
        attrs.policy as i64,
    ];
    ints.extend(which.iter().map(|a| *a as i64));
    let floats = vec![attrs.cubic, attrs.extrapolation];
    let roi = roi.filter(|_| attrs.coordinates == 5);
    let out = LibOut::new(cx.dtype(x), out);
    let inputs = vec![Some(x), roi, scales, sizes];
    one(first(&cx.library(
        "resize",
        ints,
        floats,
        inputs,
        vec![out],
    ))?)
}

/// `floor(d * scale)` for each axis, where it can be written as an expression.
fn by_scales(
    cx: &Ctx,
    dims: &[Dim],
    which: &[usize],
    scales: ValueId,
) -> Result<Option<Vec<Option<Dim>>>, Fail> {
    let Some(s) = cx.const_f64s(scales) else {
        return Ok(None);
    };
    if s.len() != which.len() {
        return Err(invalid(format!(
            "{} scales for {} axes",
            s.len(),
            which.len()
        )));
    }
    let one = |d: &Dim, s: f64| -> Option<Dim> {
        if let Some(n) = d.as_const() {
            // In f32, as the kernels and the peers do.
            return Some(Dim::Const((n as f32 * s as f32).floor() as i64));
        }
        (1..=16i64).find_map(|q| {
            let p = s * q as f64;
            (p.fract() == 0.0).then(|| d.mul(&Dim::Const(p as i64)).floor_div(&Dim::Const(q)))
        })
    };
    Ok(Some(
        which
            .iter()
            .zip(s)
            .map(|(a, s)| one(&dims[*a], s))
            .collect(),
    ))
}
