//! Mutations of the attributes of nodes.

use lapidary_onnx::proto::attribute_proto::AttributeType;
use lapidary_onnx::proto::{AttributeProto, ModelProto};

use super::constants::change_tensor;
use super::source::{Source, any_attribute, any_node, signature};

pub(super) fn attribute_value(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let plain = |a: &AttributeProto| a.t.is_none() && a.g.is_none();
    let Some(attribute) = any_attribute(source, model, plain) else {
        return false;
    };
    set_value(source, attribute)
}

/// Gives an attribute another value of its type.
fn set_value(source: &mut Source<'_>, attribute: &mut AttributeProto) -> bool {
    match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Int) => attribute.i = source.int(),
        Ok(AttributeType::Float) => attribute.f = source.float(),
        Ok(AttributeType::String) => attribute.s = source.word().to_vec().into(),
        Ok(AttributeType::Ints) => match source.index(attribute.ints.len()) {
            Some(at) => attribute.ints[at] = source.int(),
            None => attribute.ints.push(source.int()),
        },
        Ok(AttributeType::Floats) => match source.index(attribute.floats.len()) {
            Some(at) => attribute.floats[at] = source.float(),
            None => attribute.floats.push(source.float()),
        },
        Ok(AttributeType::Strings) => match source.index(attribute.strings.len()) {
            Some(at) => attribute.strings[at] = source.word().to_vec().into(),
            None => attribute.strings.push(source.word().to_vec().into()),
        },
        _ => return false,
    }
    true
}

pub(super) fn attribute_list(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let list = |a: &AttributeProto| matches!(a.r#type, 6..=8);
    let Some(a) = any_attribute(source, model, list) else {
        return false;
    };
    let how = source.below(5);
    let many = source.choose(&[3usize, 17, 1000, 70000]);
    let (int, float, word) = (source.int(), source.float(), source.word());
    fn change<T: Clone>(list: &mut Vec<T>, how: usize, many: usize, new: T) {
        match how {
            0 => list.clear(),
            1 => drop(list.pop()),
            2 => list.push(list.last().cloned().unwrap_or(new)),
            3 => list.push(new),
            _ => list.resize(many, new),
        }
    }
    match a.r#type {
        6 => change(&mut a.floats, how, many, float),
        7 => change(&mut a.ints, how, many, int),
        _ => change(&mut a.strings, how, many, word.to_vec().into()),
    }
    true
}

pub(super) fn attribute_dropped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(node) = any_node(source, model) else {
        return false;
    };
    match source.index(node.attribute.len()) {
        Some(at) => drop(node.attribute.remove(at)),
        None => return false,
    }
    true
}

/// An attribute that the operator has and the node has not.
pub(super) fn attribute_added(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let whole = model.clone();
    let Some(node) = any_node(source, model) else {
        return false;
    };
    let Some(schema) = signature(&whole, node) else {
        return false;
    };
    let missing: Vec<_> = schema
        .attributes
        .iter()
        .filter(|a| node.attribute.iter().all(|b| b.name != a.name))
        .collect();
    let Some(at) = source.index(missing.len()) else {
        return false;
    };
    let mut new = AttributeProto {
        name: missing[at].name.to_string(),
        r#type: missing[at].kind as i32,
        ..Default::default()
    };
    for _ in 0..source.below(5) {
        set_value(source, &mut new);
        if matches!(new.r#type, 6..=8) {
            new.ints.extend(new.ints.first().copied());
            new.floats.extend(new.floats.first().copied());
        }
    }
    node.attribute.push(new);
    true
}

pub(super) fn attribute_retyped(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(a) = any_attribute(source, model, |_| true) else {
        return false;
    };
    let old = a.r#type;
    a.r#type = source.random.below(15) as i32;
    if source.chance(2) {
        a.i = source.int();
        a.f = source.float();
        a.ints = vec![source.int()];
    }
    a.r#type != old
}

pub(super) fn attribute_copied(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(copy) = any_attribute(source, model, |_| true).cloned() else {
        return false;
    };
    match any_node(source, model) {
        Some(node) => node.attribute.push(copy),
        None => return false,
    }
    true
}

pub(super) fn attribute_reference(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_attribute(source, model, |_| true) {
        Some(a) => a.ref_attr_name = "alpha".into(),
        None => return false,
    }
    true
}

pub(super) fn attribute_tensor(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let has = |a: &AttributeProto| a.t.is_some();
    let tensor = any_attribute(source, model, has).and_then(|a| a.t.as_mut());
    match tensor {
        Some(tensor) => change_tensor(source, tensor),
        None => false,
    }
}
