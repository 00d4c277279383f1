//! Types that a model states for values which it computes: compared with what inference finds.
//!
//! They are hints, and a compilation does not read them: exporters leave stale ones behind. A strict check
//! ([`crate::ImportOptions::strict`]) refuses a model that contradicts itself, as ONNX's own does.

use std::collections::HashMap;

use lapidary_graph::{Container, Graph, ValueId};
use lapidary_onnx::proto::tensor_shape_proto::dimension::Value;
use lapidary_onnx::proto::{GraphProto, TypeProto, type_proto};

use crate::error::{Fail, invalid};

/// The types stated for inner values, by name.
pub(crate) type Declared<'m> = HashMap<&'m str, &'m TypeProto>;

/// The types that a graph states for its inner values.
pub(crate) fn inner(graph: &GraphProto) -> Declared<'_> {
    let infos = graph.value_info.iter();
    infos
        .filter_map(|info| Some((info.name.as_str(), info.r#type.as_ref()?)))
        .collect()
}

/// Fails if a value cannot be of the type stated, by its kind or its shape. Symbols are free to be equal.
pub(crate) fn compare(g: &Graph, v: ValueId, stated: &TypeProto) -> Result<(), Fail> {
    let ty = g.ty(v);
    let (expected, container) = match &stated.value {
        Some(type_proto::Value::TensorType(_)) => ("a tensor", None),
        Some(type_proto::Value::SequenceType(_)) => ("a sequence", Some(Container::Sequence)),
        Some(type_proto::Value::OptionalType(_)) => ("an optional", Some(Container::Optional)),
        _ => return Ok(()),
    };
    if ty.containers.first() != container.as_ref() {
        let found = lapidary_graph::verify::type_text(g, ty);
        let found = format!("its type is {found}, but the model declares {expected}");
        return Err(invalid(found).hint("correct the declaration, or leave it out"));
    }
    let stated = match &stated.value {
        Some(type_proto::Value::TensorType(tensor)) => tensor.shape.as_ref(),
        _ => None,
    };
    let (Some(dims), Some(stated)) = (&ty.shape, stated) else {
        return Ok(());
    };
    let differs = dims.len() != stated.dim.len()
        || dims.iter().zip(&stated.dim).any(|(dim, stated)| {
            let number = match stated.value {
                Some(Value::DimValue(number)) => Some(number),
                _ => None,
            };
            matches!((dim.as_const(), number), (Some(a), Some(b)) if a != b)
        });
    if !differs {
        return Ok(());
    }
    let stated = stated.dim.iter().map(|dim| match &dim.value {
        Some(Value::DimValue(number)) => number.to_string(),
        Some(Value::DimParam(name)) => name.clone(),
        None => "?".to_string(),
    });
    let stated: Vec<String> = stated.collect();
    let found = lapidary_graph::verify::type_text(g, ty);
    Err(invalid(format!(
        "its type is {found}, but the model declares the shape [{}]",
        stated.join(", ")
    ))
    .hint("correct the declaration, or leave the dimension free"))
}
