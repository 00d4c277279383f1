//! Matrix products divided into tasks by rows and by columns: the same result for any number of rows and threads.

use lapidary::{Model, Options, Tensor};
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use prost::Message;

/// Rows of the left operand lie a multiple of 2 KiB apart, so that it is packed.
const DEPTH: usize = 512;

fn value(name: &str, dims: Vec<dimension::Value>) -> ValueInfoProto {
    let dim = dims.into_iter().map(|value| Dimension {
        value: Some(value),
        ..Default::default()
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Tensor {
        elem_type: 1,
        shape,
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

/// `y = x * w`, rows free; `w[k, c] = (k % 3) * (c + 1)`.
fn model(columns: usize) -> Model {
    let free = || dimension::Value::DimParam("rows".into());
    let fixed = |n: usize| dimension::Value::DimValue(n as i64);
    let w = (0..DEPTH * columns).flat_map(|i| {
        let (k, c) = (i / columns, i % columns);
        ((k % 3 * (c + 1)) as f32).to_le_bytes()
    });
    let w = TensorProto {
        name: "w".into(),
        data_type: 1,
        dims: vec![DEPTH as i64, columns as i64],
        raw_data: w.collect::<Vec<u8>>().into(),
        ..Default::default()
    };
    let node = NodeProto {
        op_type: "MatMul".into(),
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    let graph = GraphProto {
        name: "product".into(),
        node: vec![node],
        initializer: vec![w],
        input: vec![value("x", vec![free(), fixed(DEPTH)])],
        output: vec![value("y", vec![free(), fixed(columns)])],
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(graph),
        ..Default::default()
    };
    Model::from_bytes(model.encode_to_vec(), None).expect("the model decodes")
}

#[test]
fn products_of_any_rows_and_threads_are_right() {
    // Fewer columns than a panel, several runs of panels with a rest, and more than are divided with rows.
    for columns in [7, 300, 512, 600] {
        let model = model(columns);
        for threads in [1, 2, 5] {
            let options = Options {
                threads,
                ..Options::default()
            };
            let compiled = model.compile(&options).expect("it compiles");
            // Around the blocks of rows, and many of them.
            for rows in [0, 1, 4, 5, 167, 168, 169, 337, 1000] {
                let x: Vec<f32> = (0..rows * DEPTH)
                    .map(|i| (i / DEPTH % 11) as f32 * (1 + i % DEPTH % 2) as f32)
                    .collect();
                let sum: usize = (0..DEPTH).map(|k| (1 + k % 2) * (k % 3)).sum();
                let x = Tensor::from_slice(&[rows, DEPTH], &x).expect("a tensor");
                let outputs = compiled.run([("x", &x)]).expect("it runs");
                let y = outputs[0].tensor.as_slice::<f32>().expect("floats");
                assert_eq!(y.len(), rows * columns);
                // All products and sums are integers that f32 holds.
                let wrong = y.iter().enumerate().find(|(i, y)| {
                    let (row, column) = (i / columns, i % columns);
                    **y != (row % 11 * sum * (column + 1)) as f32
                });
                assert_eq!(
                    wrong, None,
                    "{rows} rows, {columns} columns, {threads} threads"
                );
            }
        }
    }
}
