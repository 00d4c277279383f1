//! Attributes: names, and whether the value stands in the field that the type says. Types of values.

use std::collections::HashSet;

use crate::DataType;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_shape_proto::dimension;
use crate::proto::{AttributeProto, TypeProto, type_proto};

use super::Checker;
use super::place::{Part, Place};

/// Checks a node's attributes, or the defaults of a function's. Subgraphs are left to the caller, which knows the
/// values they can see.
pub(super) fn check_attributes<'a>(
    checker: &mut Checker<'a>,
    attributes: &'a [AttributeProto],
    place: &Place<'_>,
) {
    let mut names = HashSet::new();
    for attribute in attributes {
        let place = &place.inside(Part::Attribute(&attribute.name));
        if attribute.name.is_empty() {
            checker.invalid(place, "the attribute has no name", "name the attribute");
        } else if !names.insert(attribute.name.as_str()) {
            let message = "the attribute is given twice";
            checker.invalid(place, message, "give each attribute once");
        }
        check_value(checker, attribute, place);
    }
}

fn check_value(checker: &mut Checker<'_>, attribute: &AttributeProto, place: &Place<'_>) {
    let used = used_fields(attribute);
    let Ok(kind) = AttributeType::try_from(attribute.r#type) else {
        checker.unsupported(
            place,
            format!("attribute type {} is not known", attribute.r#type),
            "export with an older version of ONNX",
        );
        return;
    };
    if kind == AttributeType::Undefined {
        checker.invalid(
            place,
            "the attribute has no type",
            "the exporter must write the attribute's type",
        );
        return;
    }
    if !attribute.ref_attr_name.is_empty() {
        check_reference(checker, attribute, &used, place);
        return;
    }
    let expected = field(kind);
    for found in &used {
        if *found != expected {
            checker.invalid(
                place,
                format!(
                    "an attribute of type {} has a value in '{found}', expected '{expected}' alone",
                    kind.as_str_name()
                ),
                "export the model again",
            );
        }
    }
    // Zero and the empty list are values too; of messages, none is no value.
    if matches!(expected, "t" | "g" | "sparse_tensor" | "tp") && !used.contains(&expected) {
        checker.invalid(
            place,
            format!("an attribute of type {} has no value", kind.as_str_name()),
            "export the model again",
        );
    }
    for tensor in attribute.t.iter().chain(&attribute.tensors) {
        checker.tensor(tensor, place);
    }
    for sparse in attribute
        .sparse_tensor
        .iter()
        .chain(&attribute.sparse_tensors)
    {
        checker.sparse_tensor(sparse, place);
    }
    for r#type in attribute.tp.iter().chain(&attribute.type_protos) {
        check_type(checker, r#type, place);
    }
}

fn check_reference(
    checker: &mut Checker<'_>,
    attribute: &AttributeProto,
    used: &[&str],
    place: &Place<'_>,
) {
    let name = &attribute.ref_attr_name;
    match &checker.parameters {
        None => checker.invalid(
            place,
            format!("the attribute refers to an attribute '{name}' of a function, but stands outside of any"),
            "give the attribute a value",
        ),
        Some(parameters) if !parameters.contains(name.as_str()) => checker.invalid(
            place,
            format!("the attribute refers to '{name}', which is no attribute of the function"),
            "add it to the function's attributes",
        ),
        Some(_) => {}
    }
    if let Some(found) = used.first() {
        checker.invalid(
            place,
            format!("the attribute refers to '{name}' and has a value in '{found}' too"),
            "give one of them",
        );
    }
}

/// The field for values of a kind.
fn field(kind: AttributeType) -> &'static str {
    match kind {
        AttributeType::Undefined => "",
        AttributeType::Float => "f",
        AttributeType::Int => "i",
        AttributeType::String => "s",
        AttributeType::Tensor => "t",
        AttributeType::Graph => "g",
        AttributeType::SparseTensor => "sparse_tensor",
        AttributeType::TypeProto => "tp",
        AttributeType::Floats => "floats",
        AttributeType::Ints => "ints",
        AttributeType::Strings => "strings",
        AttributeType::Tensors => "tensors",
        AttributeType::Graphs => "graphs",
        AttributeType::SparseTensors => "sparse_tensors",
        AttributeType::TypeProtos => "type_protos",
    }
}

/// The fields that hold something other than zero or nothing.
fn used_fields(attribute: &AttributeProto) -> Vec<&'static str> {
    [
        ("f", attribute.f != 0.0),
        ("i", attribute.i != 0),
        ("s", !attribute.s.is_empty()),
        ("t", attribute.t.is_some()),
        ("g", attribute.g.is_some()),
        ("sparse_tensor", attribute.sparse_tensor.is_some()),
        ("tp", attribute.tp.is_some()),
        ("floats", !attribute.floats.is_empty()),
        ("ints", !attribute.ints.is_empty()),
        ("strings", !attribute.strings.is_empty()),
        ("tensors", !attribute.tensors.is_empty()),
        ("graphs", !attribute.graphs.is_empty()),
        ("sparse_tensors", !attribute.sparse_tensors.is_empty()),
        ("type_protos", !attribute.type_protos.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, used)| used.then_some(name))
    .collect()
}

/// Checks that a type is complete, and made of element types that ONNX has.
pub(super) fn check_type(checker: &mut Checker<'_>, r#type: &TypeProto, place: &Place<'_>) {
    use type_proto::Value;
    let mut element = |number: i32| {
        if DataType::from_wire(number).is_none() {
            checker.invalid(
                place,
                format!("element type {number} is not an ONNX element type (expected 1 to 28)"),
                "give the value a complete type",
            );
        }
    };
    let inner = match &r#type.value {
        Some(Value::TensorType(tensor)) => {
            element(tensor.elem_type);
            return;
        }
        Some(Value::SparseTensorType(tensor)) => {
            element(tensor.elem_type);
            return;
        }
        Some(Value::OpaqueType(_)) => {
            checker.unsupported(place, "opaque types are not supported", "");
            return;
        }
        Some(Value::SequenceType(sequence)) => sequence.elem_type.as_deref(),
        Some(Value::OptionalType(optional)) => optional.elem_type.as_deref(),
        Some(Value::MapType(map)) => {
            element(map.key_type);
            map.value_type.as_deref()
        }
        None => None,
    };
    match inner {
        Some(inner) => check_type(checker, inner, place),
        None => checker.invalid(
            place,
            "the type is empty or incomplete",
            "give the value a complete type",
        ),
    }
}

/// A tensor's type must have a shape, though its dimensions may be free. None may be negative.
pub(super) fn check_has_shape(checker: &mut Checker<'_>, r#type: &TypeProto, place: &Place<'_>) {
    use type_proto::Value;
    let shape = match &r#type.value {
        Some(Value::TensorType(tensor)) => &tensor.shape,
        Some(Value::SparseTensorType(tensor)) => &tensor.shape,
        _ => return,
    };
    let hint = "state the rank; dimensions may be left free";
    let Some(shape) = shape else {
        checker.invalid(place, "the type has no shape", hint);
        return;
    };
    for (axis, dim) in shape.dim.iter().enumerate() {
        if let Some(dimension::Value::DimValue(value @ ..0)) = dim.value {
            let message = format!("dimension {axis} is {value}, expected 0 or more");
            checker.invalid(place, message, hint);
        }
    }
}
