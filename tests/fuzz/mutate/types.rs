//! Mutations of types and dims: of inputs, outputs and stated values.

use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    GraphProto, ModelProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use super::constants::constant;
use super::source::{Source, any_tensor, tensor_of, value_names};

/// All values of one element type get another.
pub(super) fn types_together(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let to = source.element_type();
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let types: Vec<i32> = graph
        .input
        .iter_mut()
        .filter_map(tensor_of)
        .map(|t| t.elem_type)
        .collect();
    let Some(at) = source.index(types.len()) else {
        return false;
    };
    let from = types[at];
    if from == to {
        return false;
    }
    for info in [&mut graph.input, &mut graph.output, &mut graph.value_info]
        .into_iter()
        .flatten()
    {
        if let Some(tensor) = tensor_of(info)
            && tensor.elem_type == from
        {
            tensor.elem_type = to;
        }
    }
    for tensor in graph.initializer.iter_mut().filter(|t| t.data_type == from) {
        let count: i64 = tensor.dims.iter().product();
        *tensor = constant(
            source,
            &tensor.name,
            to,
            tensor.dims.clone(),
            count.clamp(0, 4096),
        );
    }
    true
}

pub(super) fn type_of_value(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let to = source.element_type();
    match any_tensor(source, model) {
        Some(tensor) if tensor.elem_type != to => tensor.elem_type = to,
        _ => return false,
    }
    true
}

fn any_dim<'t>(
    source: &mut Source<'_>,
    tensor: &'t mut type_proto::Tensor,
) -> Option<&'t mut Dimension> {
    let shape = tensor.shape.as_mut()?;
    let at = source.index(shape.dim.len())?;
    shape.dim.get_mut(at)
}

pub(super) fn number(dim: &Dimension) -> i64 {
    match dim.value {
        Some(dimension::Value::DimValue(v)) => v,
        _ => 4,
    }
}

pub(super) fn dim(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(tensor) = any_tensor(source, model) else {
        return false;
    };
    let Some(dim) = any_dim(source, tensor) else {
        return false;
    };
    let to = source.dim(number(dim));
    dim.value = Some(dimension::Value::DimValue(to));
    true
}

pub(super) fn dim_freed(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let name = source.choose(&["N", "M", "batch", ""]);
    let Some(tensor) = any_tensor(source, model) else {
        return false;
    };
    match any_dim(source, tensor) {
        Some(dim) => dim.value = Some(dimension::Value::DimParam(name.into())),
        None => return false,
    }
    true
}

/// A dim's value is another one wherever an input has it; the outputs' dims are left open.
pub(super) fn dims_together(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(tensor) = any_tensor(source, model) else {
        return false;
    };
    let Some(from) = any_dim(source, tensor).map(|d| number(d)) else {
        return false;
    };
    let to = match source.below(3) {
        0 => Some(dimension::Value::DimParam("N".into())),
        _ => {
            let new = source.choose(&[0, 1, 2, 3, 5, 8, 16, 33]);
            Some(dimension::Value::DimValue(new))
        }
    };
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    for tensor in graph.input.iter_mut().filter_map(tensor_of) {
        for dim in tensor.shape.iter_mut().flat_map(|s| &mut s.dim) {
            if number(dim) == from {
                dim.value = to.clone();
            }
        }
    }
    free_outputs(graph);
    true
}

fn free_outputs(graph: &mut GraphProto) {
    for tensor in graph.output.iter_mut().filter_map(tensor_of) {
        for (i, dim) in tensor.shape.iter_mut().flat_map(|s| &mut s.dim).enumerate() {
            dim.value = Some(dimension::Value::DimParam(format!("out_{i}")));
        }
    }
}

pub(super) fn outputs_free(_: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match &mut model.graph {
        Some(graph) => free_outputs(graph),
        None => return false,
    }
    true
}

pub(super) fn rank(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(shape) = any_tensor(source, model).and_then(|t| t.shape.as_mut()) else {
        return false;
    };
    match source.index(shape.dim.len()) {
        Some(at) if source.chance(2) => drop(shape.dim.remove(at)),
        _ => {
            let dim = Dimension {
                value: Some(dimension::Value::DimValue(source.choose(&[1, 2, 3]))),
                ..Default::default()
            };
            let count = source.choose(&[1usize, 1, 1, 5, 17]);
            let at = source.below(shape.dim.len() + 1);
            shape.dim.splice(at..at, vec![dim; count]);
        }
    }
    true
}

pub(super) fn shape_removed(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    match any_tensor(source, model) {
        Some(tensor) => tensor.shape.take().is_some(),
        None => false,
    }
}

pub(super) fn container(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let list = if source.chance(2) {
        &mut graph.output
    } else {
        &mut graph.input
    };
    let Some(at) = source.index(list.len()) else {
        return false;
    };
    let inner = list[at].r#type.take().map(Box::new);
    let value = match source.below(3) {
        0 => type_proto::Value::SequenceType(Box::new(type_proto::Sequence { elem_type: inner })),
        1 => type_proto::Value::OptionalType(Box::new(type_proto::Optional { elem_type: inner })),
        _ => type_proto::Value::MapType(Box::new(type_proto::Map {
            key_type: source.choose(&[7, 8, 1]),
            value_type: inner,
        })),
    };
    list[at].r#type = Some(TypeProto {
        value: Some(value),
        ..Default::default()
    });
    true
}

/// A statement about a value inside of the graph, mostly a wrong one.
pub(super) fn value_info(source: &mut Source<'_>, model: &mut ModelProto) -> bool {
    let Some(graph) = model.graph.as_mut() else {
        return false;
    };
    let names = value_names(graph);
    let Some(at) = source.index(names.len()) else {
        return false;
    };
    let dims: Vec<i64> = (0..source.below(4)).map(|_| source.dim(3)).collect();
    let info = info(&names[at], source.element_type(), &dims);
    graph.value_info.push(info);
    true
}

/// A value of a tensor type.
pub(super) fn info(name: &str, dtype: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| Dimension {
        value: Some(dimension::Value::DimValue(*d)),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: dtype,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
