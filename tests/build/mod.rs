//! Models of a few nodes, built in code.
#![allow(dead_code)]

use lapidary::Model;
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::*;
use prost::Message;

pub const F32: i32 = 1;
pub const I32: i32 = 6;
pub const I64: i32 = 7;
pub const BOOL: i32 = 9;
pub const F16: i32 = 10;
pub const F64: i32 = 11;
pub const BF16: i32 = 16;

pub fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        attribute,
        ..Default::default()
    }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: kind,
        ..Default::default()
    }
}

pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        f,
        ..attribute(name, 1)
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        i,
        ..attribute(name, 2)
    }
}

pub fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: v.to_vec(),
        ..attribute(name, 7)
    }
}

/// A graph inside of a node.
pub fn body(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        g: Some(g),
        ..attribute(name, 5)
    }
}

/// An input or output; a dim is a number or a name, and without a shape the rank is free.
pub fn value(name: &str, elem_type: i32, dims: Option<&[&str]>) -> ValueInfoProto {
    let dim = |d: &&str| Dimension {
        value: Some(match d.parse::<i64>() {
            Ok(v) => dimension::Value::DimValue(v),
            Err(_) => dimension::Value::DimParam(d.to_string()),
        }),
        ..Default::default()
    };
    let shape = dims.map(|dims| TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
    });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type,
                shape,
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn graph(
    input: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
    output: Vec<ValueInfoProto>,
) -> GraphProto {
    GraphProto {
        name: "small".into(),
        node,
        initializer,
        input,
        output,
        ..Default::default()
    }
}

pub fn model(
    opset: i64,
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> Model {
    model_with_weights(opset, node, input, output, Vec::new())
}

/// A tensor of f32 with one number everywhere.
pub fn weight(name: &str, dims: &[i64], number: f32) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: F32,
        float_data: vec![number; dims.iter().product::<i64>() as usize],
        ..Default::default()
    }
}

pub fn model_with_weights(
    opset: i64,
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
) -> Model {
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: opset,
            ..Default::default()
        }],
        graph: Some(graph(input, initializer, node, output)),
        ..Default::default()
    };
    Model::from_bytes(model.encode_to_vec(), None).expect("the model is read")
}
