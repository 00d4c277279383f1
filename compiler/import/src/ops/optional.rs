//! Optionals: a value that may be there. What is known while importing needs no call.

use lapidary_graph::{Container, DType, Dim, TensorType, ValueId};

use crate::builder::{Builder, LibOut, first};
use crate::containers::{Element, value_type};
use crate::context::{Ctx, Outs, one};
use crate::error::{Fail, invalid};
use crate::ops::sequence::taken;

/// The number by which kernels know what is inside.
fn kind(containers: &[Container]) -> i64 {
    match containers.first() {
        None => 0,
        Some(Container::Sequence) => 1,
        Some(Container::Optional) => 2,
        Some(Container::Map(_)) => 3,
    }
}

/// Library `optional`. Inputs: what is inside, or none. Ints: its kind (0 tensor, 1 sequence,
/// 3 map), the element type of its tensors.
pub(crate) fn optional(cx: &mut Ctx) -> Outs {
    if let Some(v) = cx.opt(0) {
        return one(wrap(cx, v)?);
    }
    match cx.type_attr("type")? {
        Some(ty) => {
            let (ty, element) = value_type(ty)?;
            one(call(cx, None, &ty, element)?)
        }
        None => Err(invalid("neither a value nor a type")),
    }
}

/// An optional with this in it.
pub(crate) fn wrap(b: &mut Builder, v: ValueId) -> Result<ValueId, Fail> {
    let ty = b.g.ty(v).clone();
    let element = match ty.is_tensor() {
        true => Element::of(&ty),
        false => b.containers.element(v),
    };
    call(b, Some(v), &ty, element)
}

fn call(
    b: &mut Builder,
    inside: Option<ValueId>,
    ty: &TensorType,
    element: Element,
) -> Result<ValueId, Fail> {
    if ty.containers.contains(&Container::Optional) {
        return Err(invalid("an optional of an optional"));
    }
    let outer = ty.inside(Container::Optional);
    let ints = vec![kind(&ty.containers), ty.dtype as i64];
    let out = LibOut::inside(outer.dtype, outer.containers, element);
    let made = first(&b.library("optional", ints, vec![], vec![inside], vec![out]))?;
    b.containers.set_optional(made, inside);
    Ok(made)
}

/// Library `optional_has`. Inputs: an optional. Output: a bool scalar. Other values are there.
pub(crate) fn has(cx: &mut Ctx) -> Outs {
    let known = match cx.opt(0) {
        None => Some(false),
        Some(v) if cx.g.ty(v).containers.first() != Some(&Container::Optional) => Some(true),
        Some(v) => cx.containers.optional(v).map(|inside| inside.is_some()),
    };
    if let Some(there) = known {
        let there = vec![Dim::Const(there as i64)];
        return one(cx.materialise(there, &[], DType::Bool)?);
    }
    let out = LibOut::fixed(DType::Bool, []);
    let inputs = vec![cx.opt(0)];
    one(first(&cx.library(
        "optional_has",
        vec![],
        vec![],
        inputs,
        vec![out],
    ))?)
}

/// Library `optional_get`. Inputs: an optional, in which there must be something. Other values are
/// themselves.
pub(crate) fn get(cx: &mut Ctx) -> Outs {
    let v = cx.input(0)?;
    let ty = cx.g.ty(v).clone();
    if ty.containers.first() != Some(&Container::Optional) {
        return one(v);
    }
    match cx.containers.optional(v) {
        Some(Some(inside)) => return one(inside),
        Some(None) => return Err(invalid("there is nothing in the optional")),
        None => {}
    }
    one(unwrap(cx, v)?)
}

/// What is in an optional.
pub(crate) fn unwrap(b: &mut Builder, v: ValueId) -> Result<ValueId, Fail> {
    let out = taken(b.g.ty(v), &b.containers.element(v));
    first(&b.library("optional_get", vec![], vec![], vec![Some(v)], vec![out]))
}
