//! Operators that move or repeat elements: reshapes, slices, splits, pads.
//!
//! Sizes come as dimension expressions where the shape arithmetic is known. Where it is not, a
//! library kernel reads the tensors of parameters at run time; each such call states its attribute
//! record here.

use lapidary_graph::op::PadMode;
use lapidary_graph::{Dim, Op, ValueId};

use super::packed::Weights;
use crate::builder::{LibOut, first};
use crate::context::{Ctx, Outs, all, one, same};
use crate::dims::{at_least_0, broadcast, dmin, slice as slice_dims};
use crate::error::{Fail, invalid};

/// The shape comes from input 1: 0 copies (unless `allowzero`), -1 takes the rest.
///
/// Library `reshape`. Inputs: x, shape (i64). Ints: allowzero.
pub(crate) fn reshape(cx: &mut Ctx) -> Outs {
    let (x, shape) = (cx.input(0)?, cx.list_input(1)?);
    let allow_zero = cx.flag("allowzero", false)?;
    let known = cx.known(shape).map(|k| k.to_vec());
    let from = cx.g.ty(x).shape.clone();
    if let (Some(to), Some(from)) = (&known, from) {
        let dims = resolve_shape(&from, to, allow_zero)?;
        return one(cx.reshape(x, dims)?);
    }
    // The number of elements is known at run time only: the kernel compares it with the shape's.
    let out = match cx.partly_known(shape) {
        // Neither a copy nor what is left: a size.
        Some(entries) => {
            let size = |d: &Dim| d.as_const().is_none_or(|c| c > 0 || c == 0 && allow_zero);
            let sizes = entries.into_iter().map(|d| d.filter(size));
            LibOut::new(cx.dtype(x), sizes)
        }
        None => LibOut::unranked(cx.dtype(x)),
    };
    let inputs = vec![Some(x), Some(shape)];
    one(first(&cx.library(
        "reshape",
        vec![allow_zero as i64],
        vec![],
        inputs,
        vec![out],
    ))?)
}

fn resolve_shape(from: &[Dim], to: &[Dim], allow_zero: bool) -> Result<Vec<Dim>, Fail> {
    let mut out = Vec::with_capacity(to.len());
    let mut rest = None;
    for (i, d) in to.iter().enumerate() {
        if d.is_const(0) && !allow_zero {
            let d = from.get(i).ok_or_else(|| {
                invalid(format!(
                    "shape entry {i} is 0 (copy), but the input has rank {}",
                    from.len()
                ))
            })?;
            out.push(d.clone());
        } else if d.is_const(-1) {
            if rest.replace(i).is_some() {
                return Err(invalid("the shape has more than one -1"));
            }
            out.push(Dim::Const(1));
        } else if d.as_const().is_some_and(|c| c < 0) {
            return Err(invalid(format!("shape entry {i} is {d}")));
        } else {
            out.push(d.clone());
        }
    }
    if let Some(i) = rest {
        // Dimensions that stand on both sides cancel; also symbolic ones that a product hides.
        let (total, others) = (Dim::product(from), Dim::product(&out));
        let d = match (total.exact_div(&others), others.as_const()) {
            (Some(d), _) => d,
            (None, Some(0)) => Dim::Const(0),
            _ => cancel(from, &out).unwrap_or_else(|| total.floor_div(&others)),
        };
        if let Some(o) = out.get_mut(i) {
            *o = d;
        }
    }
    Ok(out)
}

/// The quotient of two products after equal factors are struck out.
fn cancel(from: &[Dim], to: &[Dim]) -> Option<Dim> {
    let mut top: Vec<&Dim> = from.iter().collect();
    let mut bottom = Vec::new();
    for d in to {
        match top.iter().position(|t| *t == d) {
            Some(i) => drop(top.remove(i)),
            None => bottom.push(d),
        }
    }
    Dim::product(top).exact_div(&Dim::product(bottom))
}

/// Permutes axes; by default reverses them.
pub(crate) fn transpose(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let perm = match cx.ints("perm")? {
        Some(p) if cx.rank(x).is_ok_and(|rank| rank != p.len()) => {
            return Err(invalid(format!(
                "'perm' has {} entries for an input of rank {}",
                p.len(),
                cx.rank(x)?
            )));
        }
        Some(p) => cx.axes("perm", p.len())?,
        None => cx.axes("perm", cx.rank(x)?)?,
    };
    let x = cx.with_rank(x, perm.len())?;
    let exchange = perm == [1, 0];
    let y = cx.transpose(x, perm)?;
    if exchange {
        Weights::note_turned(cx, y, x);
    }
    one(y)
}

/// Two axes: the product of those before `axis`, the product of the rest.
pub(crate) fn flatten(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let dims = cx.dims(x)?;
    let at = cx.axis("axis", dims.len())?;
    let (rows, columns) = dims.split_at(at);
    let shape = vec![Dim::product(rows), Dim::product(columns)];
    one(cx.reshape(x, shape)?)
}

/// Drops axes of size 1: those listed, or (without a list) those that are 1 for certain.
///
/// Library `squeeze`. Inputs: x, axes (i64) or none (all of size 1).
pub(crate) fn squeeze(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    match cx.int_list("axes", 1)? {
        Some(Some(_)) if cx.g.ty(x).rank().is_some() => {
            let list = cx.axes("axes", cx.rank(x)?)?;
            one(cx.squeeze(x, &list)?)
        }
        Some(Some(list)) => {
            let list = cx.int_vector(&list);
            squeeze_unranked(cx, x, Some(list))
        }
        None => {
            let Some(dims) = cx.g.ty(x).shape.clone() else {
                return squeeze_unranked(cx, x, None);
            };
            let ones: Vec<usize> = (0..dims.len()).filter(|i| dims[*i].is_const(1)).collect();
            if ones.is_empty() && dims.iter().any(|d| d.as_const().is_none()) {
                return squeeze_unranked(cx, x, None);
            }
            one(cx.squeeze(x, &ones)?)
        }
        Some(None) => {
            let list = cx.input(1)?;
            let outs = cx.outputs(&[cx.dtype(x)])?;
            let inputs = vec![Some(x), Some(list)];
            all(cx.library("squeeze", vec![], vec![], inputs, outs))
        }
    }
}

/// Axes of a value, of which some may be 1, or whose rank is not known.
fn squeeze_unranked(cx: &mut Ctx, x: ValueId, axes: Option<ValueId>) -> Outs {
    let out = LibOut::unranked(cx.dtype(x));
    let inputs = vec![Some(x), axes];
    all(cx.library("squeeze", vec![], vec![], inputs, vec![out]))
}

/// Inserts axes of size 1.
///
/// Library `unsqueeze`. Inputs: x, axes (i64).
pub(crate) fn unsqueeze(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    match cx.int_list("axes", 1)? {
        Some(Some(list)) if cx.g.ty(x).rank().is_some() => {
            let list = cx.axes("axes", cx.rank(x)? + list.len())?;
            one(cx.unsqueeze(x, &list)?)
        }
        None => Err(invalid("the axes are missing")),
        Some(list) => {
            let list = match list {
                Some(list) => cx.int_vector(&list),
                None => cx.input(1)?,
            };
            let outs = cx.outputs(&[cx.dtype(x)])?;
            let inputs = vec![Some(x), Some(list)];
            all(cx.library("unsqueeze", vec![], vec![], inputs, outs))
        }
    }
}

/// Broadcasts to the common shape of the input's and the one given.
///
/// Library `expand`. Inputs: x, shape (i64).
pub(crate) fn expand(cx: &mut Ctx) -> Outs {
    let (x, shape) = (cx.input(0)?, cx.list_input(1)?);
    if let Some(to) = cx.known(shape) {
        let from = cx.dims(x)?;
        let dims = broadcast(&[&from, &to])
            .ok_or_else(|| invalid("the input cannot be broadcast to the shape"))?;
        return one(cx.broadcast(x, dims)?);
    }
    let inputs = vec![Some(x), Some(shape)];
    let outs = cx.outputs(&[cx.dtype(x)])?;
    all(cx.library("expand", vec![], vec![], inputs, outs))
}

/// Repeats whole axes: a broadcast between two reshapes.
///
/// Library `tile`. Inputs: x, repeats (i64).
pub(crate) fn tile(cx: &mut Ctx) -> Outs {
    let (x, repeats) = (cx.input(0)?, cx.list_input(1)?);
    let dims = cx.dims(x)?;
    let Some(times) = cx.known(repeats) else {
        let outs = cx.outputs(&[cx.dtype(x)])?;
        let inputs = vec![Some(x), Some(repeats)];
        return one(first(&cx.library("tile", vec![], vec![], inputs, outs))?);
    };
    if times.len() != dims.len() {
        return Err(invalid(format!(
            "{} repeats for an input of rank {}",
            times.len(),
            dims.len()
        )));
    }
    let (mut apart, mut wide, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (d, n) in dims.iter().zip(times.iter()) {
        if n.is_const(1) {
            apart.push(d.clone());
            wide.push(d.clone());
        } else {
            apart.extend([Dim::Const(1), d.clone()]);
            wide.extend([n.clone(), d.clone()]);
        }
        merged.push(d.mul(n));
    }
    let v = cx.reshape(x, apart)?;
    let v = cx.broadcast(v, wide)?;
    one(cx.reshape(v, merged)?)
}

/// Joins along an axis.
///
/// Library `concat`, where no operand has a known rank. Inputs: the operands. Ints: axis, which may count from the end.
pub(crate) fn concat(cx: &mut Ctx) -> Outs {
    let v = cx.all_inputs()?;
    let rank = v.iter().find_map(|x| cx.g.ty(*x).rank());
    let Some(rank) = rank else {
        let axis = cx.int("axis", 1)?;
        let out = LibOut::unranked(cx.dtype(cx.input(0)?));
        let inputs = v.into_iter().map(Some).collect();
        return all(cx.library("concat", vec![axis], vec![], inputs, vec![out]));
    };
    // All are of one rank.
    let v = v.into_iter().map(|x| cx.with_rank(x, rank));
    let v = v.collect::<Result<Vec<_>, _>>()?;
    let a = cx.axis("axis", rank)?;
    let joined = cx.concat(&v, a)?;
    cx.join_known(joined, &v);
    one(joined)
}

/// Bounds: attributes before opset 10, inputs from then on.
///
/// Library `slice`. Inputs: x, starts, ends, axes or none, steps or none (i32 or i64).
pub(crate) fn slice(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let old = cx.opset < 10;
    if cx.g.ty(x).rank().is_none() {
        return slice_unranked(cx, x, old);
    }
    let mut lists = Vec::new();
    for (i, name) in ["starts", "ends", "axes", "steps"].iter().enumerate() {
        let at = if old { usize::MAX } else { i + 1 };
        lists.push(cx.list(name, at)?);
    }
    let dims = cx.dims(x)?;
    if let Some((s, t, n)) = slice_params(cx, &dims, &lists)? {
        return one(cx.slice(x, s, t, n)?);
    }
    if old {
        return Err(invalid("attributes 'starts' and 'ends' are missing"));
    }
    let inputs = (0..5).map(|i| cx.opt(i)).collect();
    let outs = cx.outputs(&[cx.dtype(x)])?;
    all(cx.library("slice", vec![], vec![], inputs, outs))
}

type SliceParams = (Vec<Dim>, Vec<i64>, Vec<Dim>);

/// Start, step and size of each axis, if known.
fn slice_params(
    cx: &mut Ctx,
    dims: &[Dim],
    lists: &[Option<Option<Vec<Dim>>>],
) -> Result<Option<SliceParams>, Fail> {
    let get = |i: usize| lists.get(i).cloned().flatten();
    let (Some(Some(starts)), Some(Some(ends))) = (get(0), get(1)) else {
        return Ok(None);
    };
    let number = |l: Vec<Dim>| l.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
    let which = match get(2) {
        None if starts.len() > dims.len() => {
            let (found, rank) = (starts.len(), dims.len());
            return Err(invalid(format!(
                "{found} starts for an input of rank {rank}"
            )));
        }
        None => (0..starts.len()).collect(),
        Some(l) if l.clone().and_then(number).is_none() => return Ok(None),
        Some(_) => cx.axes("axes", dims.len())?,
    };
    let steps = match get(3) {
        None => vec![1; starts.len()],
        Some(l) => match l.and_then(number) {
            Some(l) => l,
            None => return Ok(None),
        },
    };
    if ends.len() != starts.len() || which.len() != starts.len() || steps.len() != starts.len() {
        return Err(invalid(format!(
            "{} starts, {} ends, {} axes, {} steps, expected equal numbers",
            starts.len(),
            ends.len(),
            which.len(),
            steps.len()
        )));
    }
    let mut start = vec![Dim::Const(0); dims.len()];
    let mut step = vec![1; dims.len()];
    let mut size = dims.to_vec();
    for (k, a) in which.into_iter().enumerate() {
        if steps[k] == 0 {
            return Err(invalid("a step is 0"));
        }
        let Some((s, n)) = slice_dims(&dims[a], &starts[k], &ends[k], steps[k]) else {
            return Ok(None);
        };
        (start[a], step[a], size[a]) = (s, steps[k], n);
    }
    Ok(Some((start, step, size)))
}

/// Cuts an axis into parts: of the sizes given, or equal (the last may be smaller).
///
/// A slice of a value without a known rank: the kernel takes the lists as they are.
fn slice_unranked(cx: &mut Ctx, x: ValueId, old: bool) -> Outs {
    let mut inputs = vec![Some(x)];
    for (i, name) in ["starts", "ends", "axes", "steps"].iter().enumerate() {
        let stated = cx.ints(name)?.filter(|_| old);
        let given = cx.opt(i + 1).filter(|_| !old);
        if i < 2 && stated.is_none() && given.is_none() {
            return Err(invalid(format!("'{name}' is missing")));
        }
        inputs.push(stated.map(|list| cx.int_vector(list)).or(given));
    }
    let out = LibOut::unranked(cx.dtype(x));
    all(cx.library("slice", vec![], vec![], inputs, vec![out]))
}

/// Parts of a value without a known rank.
fn split_unranked(cx: &mut Ctx, x: ValueId) -> Outs {
    let sizes = match cx.int_list("split", 1)? {
        Some(Some(list)) => Some(cx.int_vector(&list)),
        _ => cx.opt(1),
    };
    let n = cx.wanted.len();
    if sizes.is_none() && cx.opset >= 18 && cx.int("num_outputs", 0)? != n as i64 {
        return Err(invalid(format!("{n} outputs, and another 'num_outputs'")));
    }
    let ints = vec![cx.int("axis", 0)?, i64::from(cx.opset >= 18)];
    let outs = vec![LibOut::unranked(cx.dtype(x)); n];
    all(cx.library("split", ints, vec![], vec![Some(x), sizes], outs))
}

/// Library `split`. Inputs: x, sizes (i64) or none. Ints: axis, whether without sizes the last part may be smaller. One
/// output a part.
pub(crate) fn split(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    if cx.g.ty(x).rank().is_none() {
        return split_unranked(cx, x);
    }
    let dims = cx.dims(x)?;
    let a = cx.axis("axis", dims.len())?;
    let n = cx.wanted.len();
    let d = dims[a].clone();
    if cx.opset >= 18 && cx.has("num_outputs") && cx.opt(1).is_some() {
        return Err(invalid("both 'split' and 'num_outputs' are given"));
    }
    let sizes = match cx.list("split", 1)? {
        Some(Some(s)) => s,
        Some(None) => {
            let sizes = cx.input(1)?;
            if let [count] = cx.dims(sizes)?.as_slice() {
                same("the sizes and the outputs", count, &Dim::Const(n as i64))?;
            }
            let mut part: Vec<Option<Dim>> = dims.into_iter().map(Some).collect();
            part[a] = None;
            let t = cx.dtype(x);
            let outs = (0..n).map(|_| LibOut::new(t, part.clone())).collect();
            let inputs = vec![Some(x), Some(sizes)];
            return all(cx.library("split", vec![a as i64, 0], vec![], inputs, outs));
        }
        None if cx.opset >= 18 && !cx.has("num_outputs") => {
            return Err(invalid("neither 'split' nor 'num_outputs' is given"));
        }
        None => {
            let parts = cx.int("num_outputs", n as i64)?;
            if parts != n as i64 || n == 0 {
                return Err(invalid(format!(
                    "'num_outputs' is {parts}, but {n} outputs are named"
                )));
            }
            if let (Some(d), true) = (d.as_const(), cx.opset < 18)
                && d % parts != 0
            {
                return Err(invalid(format!("an axis of {d} in {parts} equal parts")));
            }
            let size = d.ceil_div(&Dim::Const(parts));
            let mut sizes = vec![size.clone(); n];
            if cx.opset >= 18
                && let Some(last) = sizes.last_mut()
            {
                // Before, all were equal: the last reaches beyond an axis that does not divide, which is refused.
                *last = d.sub(&size.mul(&Dim::Const(parts - 1)));
            }
            sizes
        }
    };
    if sizes.len() != n {
        return Err(invalid(format!("{} sizes for {n} outputs", sizes.len())));
    }
    let total = sizes.iter().fold(Dim::Const(0), |a, s| a.add(s));
    same("the axis and the sum of the parts", &d, &total)?;
    let mut x = x;
    if cx.has("split") || cx.opset >= 13 && cx.opt(1).is_some() {
        // What could not be compared is, when it runs.
        let mut whole = cx.dims(x)?;
        whole[a] = total;
        x = cx.reshape(x, whole)?;
    }
    let mut at = Dim::Const(0);
    let mut out = Vec::new();
    for s in sizes {
        out.push(cx.slice_axis(x, a, at.clone(), 1, s.clone())?);
        at = at.add(&s);
    }
    all(out)
}

/// Pads: attributes before opset 11, inputs from then on; axes from opset 18 on.
///
/// Library `pad`. Inputs: x, pads (i64), value or none, axes or none. Ints: mode (0 constant,
/// 1 edge, 2 reflect, 3 wrap).
pub(crate) fn pad(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let dims = cx.dims(x)?;
    let modes = ["constant", "edge", "reflect", "wrap"];
    let mode = cx.choice("mode", "constant", &modes)?;
    let old = cx.opset < 11;
    let pads = cx.list("pads", if old { usize::MAX } else { 1 })?;
    let value = if old {
        let v = cx.float("value", 0.0)?;
        let t = cx.dtype(x);
        (v != 0.0).then(|| cx.scalar(t, v as f64))
    } else {
        cx.opt(2)
    };
    let which = cx.int_list("axes", 3)?;
    let list = match (pads, which) {
        (None, _) => return Err(invalid("the pads are missing")),
        (Some(Some(p)), None | Some(Some(_))) => Some((p, pad_axes(cx, dims.len())?)),
        _ => None,
    };
    let Some((pads, which)) = list else {
        let inputs = vec![Some(x), cx.opt(1), cx.opt(2), cx.opt(3)];
        let outs = cx.outputs(&[cx.dtype(x)])?;
        let v = cx.library("pad", vec![mode as i64], vec![], inputs, outs);
        return one(first(&v)?);
    };
    if pads.len() != 2 * which.len() {
        return Err(invalid(format!(
            "{} pads for {} axes",
            pads.len(),
            which.len()
        )));
    }
    let mut before = vec![Dim::Const(0); dims.len()];
    let mut after = before.clone();
    for (k, a) in which.iter().enumerate() {
        before[*a] = pads[k].clone();
        after[*a] = pads[k + which.len()].clone();
    }
    if before.iter().chain(&after).all(|d| d.is_const(0)) {
        return one(x);
    }
    let mode = match mode {
        0 => PadMode::Constant,
        1 => PadMode::Edge,
        2 => PadMode::Reflect,
        _ => PadMode::Wrap,
    };
    one(emit_pad(cx, x, before, after, mode, value)?)
}

/// The axes that pads are for.
fn pad_axes(cx: &mut Ctx, rank: usize) -> Result<Vec<usize>, Fail> {
    match cx.opset {
        ..18 => Ok((0..rank).collect()),
        _ => cx.axes("axes", rank),
    }
}

fn emit_pad(
    cx: &mut Ctx,
    x: ValueId,
    before: Vec<Dim>,
    after: Vec<Dim>,
    mode: PadMode,
    value: Option<ValueId>,
) -> Result<ValueId, Fail> {
    let mut inputs = vec![x];
    if mode == PadMode::Constant {
        inputs.extend(value);
    }
    let op = Op::Pad {
        before,
        after,
        mode,
    };
    cx.emit1(op, &inputs)
}

/// Crops or pads axes around their middle to given sizes.
///
/// Library `center_crop_pad`. Inputs: x, shape (i64). Ints: the axes that the shape is for.
pub(crate) fn center_crop_pad(cx: &mut Ctx) -> Outs {
    let (x, shape) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.dims(x)?;
    let which = cx.axes("axes", dims.len())?;
    let Some(target) = cx.known(shape) else {
        let outs = cx.outputs(&[cx.dtype(x)])?;
        let ints = which.iter().map(|a| *a as i64).collect();
        let inputs = vec![Some(x), Some(shape)];
        let v = cx.library("center_crop_pad", ints, vec![], inputs, outs);
        return one(first(&v)?);
    };
    if target.len() != which.len() {
        return Err(invalid(format!(
            "{} sizes for {} axes",
            target.len(),
            which.len()
        )));
    }
    let (two, n) = (Dim::Const(2), dims.len());
    let (mut start, mut size) = (vec![Dim::Const(0); n], dims.clone());
    let (mut before, mut after) = (start.clone(), start.clone());
    for (a, t) in which.iter().zip(target.iter()) {
        let d = &dims[*a];
        start[*a] = at_least_0(&d.sub(t).floor_div(&two));
        size[*a] = dmin(d, t);
        before[*a] = at_least_0(&t.sub(d).floor_div(&two));
        after[*a] = t.sub(&size[*a]).sub(&before[*a]);
    }
    let v = cx.slice(x, start, vec![1; n], size)?;
    if before.iter().chain(&after).all(|d| d.is_const(0)) {
        return one(v);
    }
    one(emit_pad(cx, v, before, after, PadMode::Constant, None)?)
}

/// `[N, C, H, W]`, checked, and the block size.
fn blocks(cx: &mut Ctx) -> Result<(ValueId, [Dim; 4], Dim), Fail> {
    let x = cx.input(0)?;
    let b = cx.int_required("blocksize")?;
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let dims: [Dim; 4] = dims
        .try_into()
        .map_err(|_| invalid(format!("an input of rank {rank}, expected 4")))?;
    if b < 1 {
        return Err(invalid(format!("attribute 'blocksize' is {b}")));
    }
    Ok((x, dims, Dim::Const(b)))
}

/// Channels become blocks of pixels.
pub(crate) fn depth_to_space(cx: &mut Ctx) -> Outs {
    let (x, [n, c, h, w], b) = blocks(cx)?;
    let crd = cx.choice("mode", "DCR", &["DCR", "CRD"])? == 1;
    let rest = c.floor_div(&b.mul(&b));
    let (apart, perm) = if crd {
        let s = vec![
            n.clone(),
            rest.clone(),
            b.clone(),
            b.clone(),
            h.clone(),
            w.clone(),
        ];
        (s, vec![0, 1, 4, 2, 5, 3])
    } else {
        let s = vec![
            n.clone(),
            b.clone(),
            b.clone(),
            rest.clone(),
            h.clone(),
            w.clone(),
        ];
        (s, vec![0, 3, 4, 1, 5, 2])
    };
    let v = cx.reshape(x, apart)?;
    let v = cx.transpose(v, perm)?;
    one(cx.reshape(v, vec![n, rest, h.mul(&b), w.mul(&b)])?)
}

/// Blocks of pixels become channels.
pub(crate) fn space_to_depth(cx: &mut Ctx) -> Outs {
    let (x, [n, c, h, w], b) = blocks(cx)?;
    let crd = cx.choice("mode", "DCR", &["DCR", "CRD"])? == 1;
    let (hb, wb) = (h.floor_div(&b), w.floor_div(&b));
    let apart = vec![
        n.clone(),
        c.clone(),
        hb.clone(),
        b.clone(),
        wb.clone(),
        b.clone(),
    ];
    let v = cx.reshape(x, apart)?;
    let perm = if crd {
        vec![0, 1, 3, 5, 2, 4]
    } else {
        vec![0, 3, 5, 1, 2, 4]
    };
    let v = cx.transpose(v, perm)?;
    one(cx.reshape(v, vec![n, c.mul(&b).mul(&b), hb, wb])?)
}
