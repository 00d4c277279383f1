//! Sequences of tensors. Each operator is one call of a library kernel; where the elements are known
//! while importing, what reads them is given them instead, and the call is dead.

use lapidary_graph::{Container, DType, Dim, TensorType, ValueId};

use crate::builder::{LibOut, first};
use crate::containers::Element;
use crate::context::{Ctx, Outs, axis, one};
use crate::error::{Fail, invalid};

/// A split into more parts than this is left to the kernel.
const MOST_PARTS: usize = 256;

/// A required input that is a sequence.
fn sequence(cx: &Ctx, i: usize) -> Result<ValueId, Fail> {
    let v = cx.input(i)?;
    let ty = cx.g.ty(v);
    match ty.containers.first() {
        Some(Container::Sequence) => Ok(v),
        _ => Err(invalid(format!(
            "input {i} is {}, expected a sequence",
            lapidary_graph::verify::type_text(&cx.g, ty)
        ))),
    }
}

/// What is taken out of a container of this type.
pub(crate) fn taken(ty: &TensorType, element: &Element) -> LibOut {
    let inner = ty.element();
    let mut out = LibOut::inside(inner.dtype, inner.containers, element.clone());
    if out.containers.is_empty()
        && let Element::Dims(dims) = element
    {
        out.dims = Some(dims.iter().map(|d| d.map(Dim::Const)).collect());
    }
    out
}

/// The type of a sequence of such elements.
fn of(ty: &TensorType, element: Element) -> LibOut {
    let outer = ty.inside(Container::Sequence);
    LibOut::inside(outer.dtype, outer.containers, element)
}

/// One call with one output.
fn call(
    cx: &mut Ctx,
    name: &str,
    ints: Vec<i64>,
    inputs: Vec<Option<ValueId>>,
    out: LibOut,
) -> Result<ValueId, Fail> {
    first(&cx.library(name, ints, vec![], inputs, vec![out]))
}

/// The number that an optional input is known to be; `None` if it is known at run time only.
fn position(cx: &mut Ctx, i: usize) -> Option<i64> {
    let v = cx.opt(i)?;
    cx.known_scalar(v)?.as_const()
}

/// Library `sequence_construct`. Inputs: the elements.
pub(crate) fn construct(cx: &mut Ctx) -> Outs {
    let elements = cx.all_inputs()?;
    let Some(v) = elements.first() else {
        return Err(invalid("a sequence of no elements").hint("SequenceEmpty makes one"));
    };
    let ty = TensorType::unranked(cx.dtype(*v));
    let mut element = Element::Nothing;
    for v in &elements {
        if cx.dtype(*v) != ty.dtype {
            return Err(invalid(format!(
                "elements are of {} and {}, expected one type",
                ty.dtype,
                cx.dtype(*v)
            )));
        }
        element = element.join(&Element::of(cx.g.ty(*v)));
    }
    let inputs = elements.iter().map(|v| Some(*v)).collect();
    let made = call(cx, "sequence_construct", vec![], inputs, of(&ty, element))?;
    cx.containers.set_sequence(made, elements);
    one(made)
}

/// Library `sequence_empty`. Ints: element type.
pub(crate) fn empty(cx: &mut Ctx) -> Outs {
    let dtype = cx.dtype_attr("dtype", DType::F32)?;
    one(make_empty(cx, dtype)?)
}

/// A sequence of nothing.
pub(crate) fn make_empty(b: &mut crate::builder::Builder, dtype: DType) -> Result<ValueId, Fail> {
    let out = of(&TensorType::unranked(dtype), Element::Nothing);
    let ints = vec![dtype as i64];
    let made = first(&b.library("sequence_empty", ints, vec![], vec![], vec![out]))?;
    b.containers.set_sequence(made, Vec::new());
    Ok(made)
}

/// Library `sequence_insert`. Inputs: sequence, element, position or none (the end).
pub(crate) fn insert(cx: &mut Ctx) -> Outs {
    let (s, v) = (sequence(cx, 0)?, cx.input(1)?);
    let (dtype, ty) = (cx.dtype(v), cx.g.ty(s).clone());
    if dtype != ty.dtype || cx.g.ty(v).containers != ty.element().containers {
        return Err(invalid(format!(
            "an element of {} for {}",
            lapidary_graph::verify::type_text(&cx.g, cx.g.ty(v)),
            lapidary_graph::verify::type_text(&cx.g, &ty)
        )));
    }
    let element = cx.containers.element(s).join(&Element::of(cx.g.ty(v)));
    let out = LibOut::inside(ty.dtype, ty.containers, element);
    let inputs = vec![Some(s), Some(v), cx.opt(2)];
    let made = call(cx, "sequence_insert", vec![], inputs, out)?;
    let at = position(cx, 2);
    if let Some(known) = cx.containers.sequence(s) {
        let n = known.len() as i64;
        let at = match (cx.opt(2), at) {
            (None, _) => Some(n),
            (Some(_), Some(at)) if at < 0 => Some(at + n),
            (Some(_), at) => at,
        };
        if let Some(at) = at.filter(|at| (0..=n).contains(at)) {
            let mut elements = known.to_vec();
            elements.insert(at as usize, v);
            cx.containers.set_sequence(made, elements);
        }
    }
    one(made)
}

/// Library `sequence_erase`. Inputs: sequence, position or none (the last).
pub(crate) fn erase(cx: &mut Ctx) -> Outs {
    let s = sequence(cx, 0)?;
    let ty = cx.g.ty(s).clone();
    let out = LibOut::inside(ty.dtype, ty.containers, cx.containers.element(s));
    let inputs = vec![Some(s), cx.opt(1)];
    let made = call(cx, "sequence_erase", vec![], inputs, out)?;
    let at = position(cx, 1);
    if let Some(known) = cx.containers.sequence(s) {
        let at = match cx.opt(1) {
            None => Some(-1),
            Some(_) => at,
        };
        if let Some(at) = at.and_then(|at| axis(at, known.len()).ok()) {
            let mut elements = known.to_vec();
            elements.remove(at);
            cx.containers.set_sequence(made, elements);
        }
    }
    one(made)
}

/// Library `sequence_at`. Inputs: sequence, position.
pub(crate) fn at(cx: &mut Ctx) -> Outs {
    let (s, i) = (sequence(cx, 0)?, cx.input(1)?);
    let at = position(cx, 1);
    if let (Some(known), Some(at)) = (cx.containers.sequence(s), at) {
        let n = known.len();
        return match axis(at, n).ok().and_then(|at| known.get(at)) {
            Some(v) => one(*v),
            None => Err(invalid(format!("position {at} of a sequence of {n}"))),
        };
    }
    one(element_at(cx, s, i)?)
}

/// The element at a position that is known at run time.
pub(crate) fn element_at(
    b: &mut crate::builder::Builder,
    s: ValueId,
    i: ValueId,
) -> Result<ValueId, Fail> {
    let out = taken(b.g.ty(s), &b.containers.element(s));
    let inputs = vec![Some(s), Some(i)];
    first(&b.library("sequence_at", vec![], vec![], inputs, vec![out]))
}

/// Library `sequence_length`. Inputs: sequence. Output: an i64 scalar.
pub(crate) fn length(cx: &mut Ctx) -> Outs {
    let s = sequence(cx, 0)?;
    if let Some(known) = cx.containers.sequence(s) {
        let n = Dim::from(known.len());
        return one(cx.materialise(vec![n], &[], DType::I64)?);
    }
    one(make_length(cx, s)?)
}

/// The number of elements.
pub(crate) fn make_length(b: &mut crate::builder::Builder, s: ValueId) -> Result<ValueId, Fail> {
    let out = LibOut::fixed(DType::I64, []);
    first(&b.library("sequence_length", vec![], vec![], vec![Some(s)], vec![out]))
}

/// Library `split_to_sequence`. Inputs: x, sizes (a vector), the size of all parts but the last (a
/// scalar), or none (parts of 1). Ints: axis, whether that stays (where there are no sizes).
pub(crate) fn split(cx: &mut Ctx) -> Outs {
    let x = cx.input(0)?;
    let ty = cx.g.ty(x).clone();
    let at = cx.int("axis", 0)?;
    let keep = cx.zero_or_one("keepdims", true)? || cx.opt(1).is_some();
    let mut element = Element::Any;
    let mut known = None;
    if let Some(dims) = &ty.shape {
        let a = cx.axis("axis", dims.len())?;
        let mut inside = Element::of(&ty);
        if let Element::Dims(d) = &mut inside {
            if !keep {
                d.remove(a);
            } else if let Some(d) = d.get_mut(a) {
                *d = cx.opt(1).is_none().then_some(1);
            }
        }
        element = inside;
        known = sizes(cx, dims.get(a))?.map(|s| (a, s));
    }
    let inputs = vec![Some(x), cx.opt(1)];
    let ints = vec![at, keep as i64];
    let out = of(&TensorType::unranked(ty.dtype), element);
    let made = call(cx, "split_to_sequence", ints, inputs, out)?;
    if let Some((a, sizes)) = known
        && ty.dtype != DType::String
    {
        let (mut parts, mut from) = (Vec::with_capacity(sizes.len()), Dim::Const(0));
        for size in sizes {
            let part = cx.slice_axis(x, a, from.clone(), 1, size.clone())?;
            parts.push(match keep {
                true => part,
                false => cx.squeeze(part, &[a])?,
            });
            from = from.add(&size);
        }
        cx.containers.set_sequence(made, parts);
    }
    one(made)
}

/// The sizes of the parts of a split, if their number is known.
fn sizes(cx: &mut Ctx, d: Option<&Dim>) -> Result<Option<Vec<Dim>>, Fail> {
    let whole = d.and_then(Dim::as_const);
    let each = |whole: Option<i64>, size: i64| {
        let n = usize::try_from(Dim::Const(whole?).ceil_div(&Dim::Const(size)).as_const()?);
        let n = n.ok().filter(|n| *n <= MOST_PARTS)? as i64;
        let part = |i: i64| Dim::Const(size.min(whole? - i * size)).into();
        (0..n).map(part).collect::<Option<Vec<Dim>>>()
    };
    let Some(split) = cx.opt(1) else {
        return Ok(each(whole, 1));
    };
    if cx.g.ty(split).rank() == Some(0) {
        let size = cx.known_scalar(split).and_then(|d| d.as_const());
        return match size {
            Some(size) if size < 1 => Err(invalid(format!("parts of {size}"))),
            Some(size) => Ok(each(whole, size)),
            None => Ok(None),
        };
    }
    let sizes = cx.known(split).filter(|s| s.len() <= MOST_PARTS);
    Ok(sizes.map(|s| s.to_vec()))
}

/// Library `concat_from_sequence`. Inputs: sequence. Ints: axis, whether it is a new one.
pub(crate) fn concat(cx: &mut Ctx) -> Outs {
    let s = sequence(cx, 0)?;
    let at = cx.int_required("axis")?;
    let new = cx.flag("new_axis", false)?;
    let ty = cx.g.ty(s).clone();
    if ty.containers.len() != 1 {
        return Err(invalid("a sequence of what are no tensors"));
    }
    if let Some(parts) = cx.containers.sequence(s)
        && let Some(v) = parts.first()
        && let Some(rank) = cx.g.ty(*v).rank()
        && parts.iter().all(|v| cx.g.ty(*v).rank() == Some(rank))
        && ty.dtype != DType::String
    {
        let a = axis(at, rank + new as usize)?;
        let mut whole = Vec::with_capacity(parts.len());
        for v in parts.iter() {
            whole.push(match new {
                true => cx.unsqueeze(*v, &[a])?,
                false => *v,
            });
        }
        return one(cx.concat(&whole, a)?);
    }
    let mut out = taken(&ty, &cx.containers.element(s));
    if let Some(dims) = &mut out.dims {
        let a = axis(at, dims.len() + new as usize)?;
        match (new, dims.get_mut(a)) {
            (false, Some(d)) => *d = None,
            _ => dims.insert(a, None),
        }
    }
    let ints = vec![at, new as i64];
    one(call(cx, "concat_from_sequence", ints, vec![Some(s)], out)?)
}
