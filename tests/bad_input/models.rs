//! Models built in code, sound and not.

use lapidary_onnx::proto::{
    ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};

use crate::build::{self, F32};

pub fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        name: name.into(),
        ..build::node(op, inputs, outputs, Vec::new())
    }
}

pub fn value(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    build::value(name, dtype, Some(dims))
}

pub fn floats(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: F32,
        dims: vec![values.len() as i64],
        raw_data: values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
        ..Default::default()
    }
}

pub fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: key.to_string(),
        value: value.to_string(),
    };
    TensorProto {
        name: name.into(),
        data_type: F32,
        dims: dims.to_vec(),
        data_location: 1,
        external_data: entries.iter().map(entry).collect(),
        ..Default::default()
    }
}

pub fn model(
    inputs: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(build::graph(inputs, initializer, node, outputs)),
        ..Default::default()
    }
}

/// `y = x + w`, `w` given.
pub fn add(w: TensorProto, dims: &[&str]) -> ModelProto {
    model(
        vec![value("x", F32, dims)],
        vec![w],
        vec![node("Add", "/add", &["x", "w"], &["y"])],
        vec![value("y", F32, dims)],
    )
}

pub fn sound() -> ModelProto {
    add(floats("w", &[1.0, 2.0]), &["2"])
}
