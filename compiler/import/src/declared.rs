//! Shapes that a model states for values which it computes: compared with what inference finds.
//!
//! They are hints, and a compilation does not read them: exporters leave stale ones behind. A strict check
//! ([`crate::ImportOptions::strict`]) refuses a model that contradicts itself, as ONNX's own does.

use std::collections::HashMap;

use lapidary_graph::{Graph, ValueId};
use lapidary_onnx::proto::tensor_shape_proto::dimension::Value;
use lapidary_onnx::proto::{GraphProto, TensorShapeProto, ValueInfoProto, type_proto};

use crate::error::{Fail, invalid};

/// The shapes stated for inner values, by name.
pub(crate) type Declared<'m> = HashMap<&'m str, &'m TensorShapeProto>;

/// The shapes that a graph states for its inner values.
pub(crate) fn inner(graph: &GraphProto) -> Declared<'_> {
    let shapes = graph.value_info.iter();
    shapes
        .filter_map(|info| Some((info.name.as_str(), shape(info)?)))
        .collect()
}

/// The shape that a value's type states.
pub(crate) fn shape(info: &ValueInfoProto) -> Option<&TensorShapeProto> {
    match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref(),
        _ => None,
    }
}

/// Fails if a value's shape cannot be the one stated. Symbols are free to be equal.
pub(crate) fn compare(g: &Graph, v: ValueId, stated: &TensorShapeProto) -> Result<(), Fail> {
    let ty = g.ty(v);
    let Some(dims) = ty.shape.as_ref().filter(|_| ty.is_tensor()) else {
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
