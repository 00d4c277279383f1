//! Small models built in code: what the import makes of them, and what the interpreter then computes.

use lapidary_graph::interp;
use lapidary_graph::{DType, Dim, Graph, Op, TensorData, verify};
use lapidary_import::{DimSetting, ErrorKind, ImportErrors, ImportOptions, import};
use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message;

fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        attribute,
        ..Default::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 2,
        i,
        ..Default::default()
    }
}

fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 7,
        ints: v.to_vec(),
        ..Default::default()
    }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 1,
        f,
        ..Default::default()
    }
}

/// An f32 (1) or i64 (7) input; a dimension is a number, a name, or empty.
fn value(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| Dimension {
        value: match d.parse::<i64>() {
            Ok(v) => Some(dimension::Value::DimValue(v)),
            Err(_) if d.is_empty() => None,
            Err(_) => Some(dimension::Value::DimParam(d.to_string())),
        },
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

fn i64s(name: &str, v: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: 7,
        dims: vec![v.len() as i64],
        int64_data: v.to_vec(),
        ..Default::default()
    }
}

fn model(
    opset: i64,
    inputs: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
    outputs: &[&str],
) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: opset,
        }],
        graph: Some(GraphProto {
            name: "test".into(),
            node,
            initializer,
            input: inputs,
            output: outputs.iter().map(|o| value(o, 1, &[])).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn open(m: &ModelProto) -> ModelFile {
    ModelFile::from_bytes(m.encode_to_vec().into(), None).unwrap()
}

fn graph_with(m: &ModelProto, options: &ImportOptions) -> Result<Graph, ImportErrors> {
    let g = import(&open(m), options)?;
    verify::verify(&g).unwrap();
    Ok(g)
}

fn graph(m: &ModelProto) -> Graph {
    graph_with(m, &ImportOptions::default()).unwrap()
}

fn ops(g: &Graph) -> Vec<&str> {
    g.order.iter().map(|n| g.nodes[*n].op.name()).collect()
}

fn output_type(g: &Graph, i: usize) -> String {
    verify::type_text(g, g.ty(g.outputs[i].1))
}

#[test]
fn a_layer_is_a_contraction_and_two_expressions() {
    let m = model(
        13,
        vec![
            value("x", 1, &["n", "4"]),
            value("w", 1, &["3", "4"]),
            value("b", 1, &["3"]),
        ],
        vec![],
        vec![
            node("Gemm", &["x", "w", "b"], &["h"], vec![int("transB", 1)]),
            node("Relu", &["h"], &["y"], vec![]),
        ],
        &["y"],
    );
    let g = graph(&m);
    assert_eq!(ops(&g), ["contract", "pointwise", "pointwise"]);
    assert_eq!(output_type(&g, 0), "f32[n, 3]");
    let x = TensorData::from_f32(vec![1, 4], &[1., 2., 3., 4.]);
    let w = TensorData::from_f32(
        vec![3, 4],
        &[1., 0., 0., 0., 0., 1., 0., 0., -1., -1., -1., -1.],
    );
    let b = TensorData::from_f32(vec![3], &[0.5, 0.5, 0.5]);
    let y = interp::run(&g, &[x, w, b]).unwrap();
    assert_eq!(y[0].to_f32s().unwrap(), [1.5, 2.5, 0.0]);
}

#[test]
fn shape_arithmetic_becomes_dimensions_and_leaves_no_node() {
    // Reshape to [n, s, 3, -1] by Shape, Gather, Unsqueeze, Concat, as exporters write it.
    let m = model(
        17,
        vec![value("x", 1, &["n", "s", "12"])],
        vec![
            i64s("zero", &[0]),
            i64s("one", &[1]),
            i64s("heads", &[3]),
            i64s("rest", &[-1]),
        ],
        vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Gather", &["shape", "zero"], &["n"], vec![]),
            node("Gather", &["shape", "one"], &["s"], vec![]),
            node(
                "Concat",
                &["n", "s", "heads", "rest"],
                &["to"],
                vec![int("axis", 0)],
            ),
            node("Reshape", &["x", "to"], &["r"], vec![]),
            node(
                "Transpose",
                &["r"],
                &["y"],
                vec![ints("perm", &[0, 2, 1, 3])],
            ),
        ],
        &["y"],
    );
    let g = graph(&m);
    assert_eq!(ops(&g), ["reshape", "transpose"]);
    assert_eq!(output_type(&g, 0), "f32[n, 3, s, 4]");
}

#[test]
fn a_size_read_as_data_is_made_from_the_dimension() {
    let m = model(
        17,
        vec![value("x", 1, &["n", "s"])],
        vec![],
        vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Size", &["x"], &["size"], vec![]),
        ],
        &["shape", "size"],
    );
    let g = graph(&m);
    let x = TensorData::from_f32(vec![2, 3], &[0.0; 6]);
    let y = interp::run(&g, &[x]).unwrap();
    assert_eq!(y[0].to_i64s().unwrap(), [2, 3]);
    assert_eq!(y[1].to_i64s().unwrap(), [6]);
    assert_eq!(y[1].dims, Vec::<i64>::new());
}

#[test]
fn a_shape_known_at_run_time_only_is_a_library_call_with_symbols_of_its_own() {
    let m = model(
        17,
        vec![value("x", 1, &["n", "s"]), value("to", 7, &["3"])],
        vec![],
        vec![
            node("Reshape", &["x", "to"], &["r"], vec![]),
            node("Shape", &["r"], &["y"], vec![]),
        ],
        &["y"],
    );
    let g = graph(&m);
    // The call stays, although only its dimensions are read.
    assert_eq!(ops(&g), ["library", "shape"]);
    assert!(matches!(&g.nodes[g.order[0]].op, Op::Library(c) if c.name == "reshape"));
    assert_eq!(g.symbols.len(), 5);
}

#[test]
fn input_dimensions_follow_the_options() {
    let m = model(
        17,
        vec![
            value("x", 1, &["n", "4", ""]),
            value("z", 1, &["n", "4", "5"]),
        ],
        vec![],
        vec![node("Add", &["x", "z"], &["y"], vec![])],
        &["y"],
    );
    let with = |symbolic: bool, dims: &[(&str, DimSetting)]| {
        let options = ImportOptions {
            operators: Vec::new(),
            symbolic,
            dims: dims.iter().map(|(n, s)| (n.to_string(), *s)).collect(),
            strict: false,
            audit: true,
            fix_defaults: false,
        };
        graph_with(&m, &options).map(|g| {
            let t = |i: usize| verify::type_text(&g, g.ty(g.inputs[i]));
            format!("{} {}", t(0), t(1)).replace('"', "")
        })
    };
    assert_eq!(with(false, &[]).unwrap(), "f32[n, 4, x.2] f32[n, 4, 5]");
    assert_eq!(
        with(true, &[]).unwrap(),
        "f32[n, x.1, x.2] f32[n, z.1, z.2]"
    );
    assert_eq!(
        with(
            false,
            &[("n", DimSetting::Fixed(2)), ("x.1", DimSetting::Free)]
        )
        .unwrap(),
        "f32[2, x.1, x.2] f32[2, 4, 5]"
    );
    let e = with(false, &[("batch", DimSetting::Fixed(2))]).unwrap_err();
    assert!(e.to_string().contains("'batch'"), "{e}");
}

#[test]
fn every_unsupported_node_is_reported_at_once() {
    let m = model(
        20,
        vec![value("x", 1, &["2"])],
        vec![],
        vec![
            node("ImageDecoder", &["x"], &["a"], vec![]),
            node("Relu", &["a"], &["b"], vec![]),
            node("ImageDecoder", &["b"], &["c"], vec![]),
            node("Frobnicate", &["c"], &["d"], vec![]),
        ],
        &["d"],
    );
    let e = import(&open(&m), &ImportOptions::default()).unwrap_err();
    let list: Vec<(ErrorKind, &str)> = e.errors.iter().map(|e| (e.kind, e.op.as_str())).collect();
    assert_eq!(
        list,
        [
            (ErrorKind::Unsupported, "ImageDecoder"),
            (ErrorKind::Unsupported, "ImageDecoder"),
            (ErrorKind::Invalid, "Frobnicate"),
        ]
    );
    assert!(!e.is_unsupported());
    assert_eq!(e.errors[0].node, "ImageDecoder_0");
    assert_eq!(e.errors[0].opset, 20);
}

#[test]
fn functions_are_inlined_with_their_attributes_and_opsets() {
    // twice(x; alpha = 0.5) = leaky(leaky(x)), leaky(x; alpha) = LeakyRelu<alpha>(x)
    let refer = AttributeProto {
        name: "alpha".into(),
        r#type: 1,
        ref_attr_name: "alpha".into(),
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: domain.into(),
        version,
    };
    let custom = |op: &str, i: &str, o: &str| NodeProto {
        domain: "my".into(),
        ..node(op, &[i], &[o], vec![refer.clone()])
    };
    let leaky = FunctionProto {
        name: "leaky".into(),
        domain: "my".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        attribute: vec!["alpha".into()],
        node: vec![node("LeakyRelu", &["x"], &["y"], vec![refer.clone()])],
        opset_import: vec![opset("", 16)],
        ..Default::default()
    };
    let twice = FunctionProto {
        name: "twice".into(),
        domain: "my".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        attribute_proto: vec![float("alpha", 0.5)],
        node: vec![custom("leaky", "x", "h"), custom("leaky", "h", "y")],
        opset_import: vec![opset("", 16), opset("my", 1)],
        ..Default::default()
    };
    let call = NodeProto {
        domain: "my".into(),
        name: "call".into(),
        ..node("twice", &["x"], &["y"], vec![])
    };
    let mut m = model(17, vec![value("x", 1, &["2"])], vec![], vec![call], &["y"]);
    m.opset_import.push(opset("my", 1));
    m.functions = vec![leaky, twice];
    let g = graph(&m);
    let y = interp::run(&g, &[TensorData::from_f32(vec![2], &[-4.0, 4.0])]).unwrap();
    assert_eq!(y[0].to_f32s().unwrap(), [-1.0, 4.0]);
    assert_eq!(g.nodes[g.order[0]].name(), "call/leaky_0/LeakyRelu_0");
    assert_eq!(g.values[g.outputs[0].1].name, "y");
}

#[test]
fn a_function_that_calls_itself_is_refused() {
    let call = NodeProto {
        domain: "my".into(),
        ..node("f", &["x"], &["y"], vec![])
    };
    let f = FunctionProto {
        name: "f".into(),
        domain: "my".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: vec![call.clone()],
        ..Default::default()
    };
    let mut m = model(17, vec![value("x", 1, &["2"])], vec![], vec![call], &["y"]);
    m.functions = vec![f];
    let e = import(&open(&m), &ImportOptions::default()).unwrap_err();
    assert!(e.to_string().contains("may not call itself"), "{e}");
}

#[test]
fn sizes_and_attributes_that_contradict_each_other_are_refused() {
    let nll = |inputs: &[&str]| node("NegativeLogLikelihoodLoss", inputs, &["y"], vec![]);
    let split = |attributes| node("Split", &["x", "k"], &["y", "z"], attributes);
    let stash = vec![int("stash_type", 7)];
    let x = || value("x", 1, &["3", "5", "2"]);
    let cases = [
        (
            vec![x(), value("t", 7, &["2", "2"])],
            nll(&["x", "t"]),
            "axis 0 of the targets and the input",
        ),
        (
            vec![x(), value("t", 7, &["3"])],
            nll(&["x", "t"]),
            "targets of rank 1",
        ),
        (
            vec![x(), value("t", 7, &["3", "2"]), value("w", 1, &["6"])],
            nll(&["x", "t", "w"]),
            "the weights and the classes",
        ),
        (
            vec![x(), value("k", 7, &["1"])],
            split(vec![]),
            "the sizes and the outputs",
        ),
        (
            vec![x(), value("k", 7, &["2"])],
            split(vec![int("num_outputs", 2)]),
            "both 'split' and 'num_outputs'",
        ),
        (
            vec![x(), value("w", 1, &["2"])],
            node("LayerNormalization", &["x", "w"], &["y"], stash),
            "'stash_type' is i64",
        ),
    ];
    for (inputs, node, expected) in cases {
        let m = model(18, inputs, vec![], vec![node], &["y"]);
        let e = import(&open(&m), &ImportOptions::default()).unwrap_err();
        assert!(e.to_string().contains(expected), "{e}, not {expected}");
    }
}

#[test]
fn the_mean_of_a_normalization_has_the_type_that_it_is_stashed_in() {
    let stash = |attributes| {
        let inputs = vec![value("x", 11, &["2", "3"]), value("w", 11, &["3"])];
        let layer = node("LayerNormalization", &["x", "w"], &["", "y"], attributes);
        let m = model(18, inputs, vec![], vec![layer], &["y"]);
        let g = import(&open(&m), &ImportOptions::default()).unwrap();
        g.ty(g.outputs[0].1).dtype
    };
    assert_eq!(stash(vec![]), DType::F32);
    assert_eq!(stash(vec![int("stash_type", 11)]), DType::F64);
}

#[test]
fn padding_to_the_same_size_works_for_any_size() {
    let m = model(
        13,
        vec![
            value("x", 1, &["1", "1", "h"]),
            value("w", 1, &["1", "1", "3"]),
        ],
        vec![],
        vec![node(
            "Conv",
            &["x", "w"],
            &["y"],
            vec![
                AttributeProto {
                    name: "auto_pad".into(),
                    r#type: 3,
                    s: "SAME_UPPER".into(),
                    ..Default::default()
                },
                ints("strides", &[2]),
            ],
        )],
        &["y"],
    );
    let g = graph(&m);
    for (n, expected) in [(4, vec![6.0, 7.0]), (5, vec![3.0, 9.0, 9.0])] {
        let x: Vec<f32> = (1..=n).map(|v| v as f32).collect();
        let x = TensorData::from_f32(vec![1, 1, n], &x);
        let w = TensorData::from_f32(vec![1, 1, 3], &[1.0; 3]);
        let y = interp::run(&g, &[x, w]).unwrap();
        assert_eq!(y[0].to_f32s().unwrap(), expected, "{n}");
    }
}

#[test]
fn old_softmax_joins_the_trailing_axes() {
    let m = model(
        11,
        vec![value("x", 1, &["n", "2", "2"])],
        vec![],
        vec![node("Softmax", &["x"], &["y"], vec![int("axis", 1)])],
        &["y"],
    );
    let g = graph(&m);
    assert_eq!(ops(&g), ["reshape", "softmax", "reshape"]);
    let y = interp::run(&g, &[TensorData::from_f32(vec![1, 2, 2], &[0.0; 4])]).unwrap();
    assert_eq!(y[0].to_f32s().unwrap(), [0.25; 4]);
}

#[test]
fn initializers_share_their_bytes_and_small_constants_fold() {
    let w = TensorProto {
        name: "w".into(),
        data_type: 1,
        dims: vec![2, 2],
        raw_data: vec![0u8; 16].into(),
        ..Default::default()
    };
    let four = TensorProto {
        name: "four".into(),
        data_type: 1,
        float_data: vec![4.0],
        ..Default::default()
    };
    let m = model(
        13,
        vec![value("x", 1, &["2", "2"])],
        vec![w, four],
        vec![
            node("Sqrt", &["four"], &["two"], vec![]),
            node("Mul", &["x", "two"], &["h"], vec![]),
            node("Add", &["h", "w"], &["y"], vec![]),
        ],
        &["y"],
    );
    let file = open(&m);
    let g = import(&file, &ImportOptions::default()).unwrap();
    assert_eq!(ops(&g), ["pointwise", "pointwise"]);
    assert_eq!(
        g.nodes[g.order[0]].inputs.len(),
        1,
        "2 is part of the expression"
    );
    let proto = &file.graph().initializer[0].raw_data;
    let data = g.values.values().find(|v| v.name == "w").unwrap();
    let lapidary_graph::Def::Const(t) = &data.def else {
        panic!("not a constant")
    };
    assert_eq!(t.bytes.as_ptr(), proto.as_ptr());
    assert_eq!(
        (t.dtype, data.ty.dims()),
        (DType::F32, &[Dim::Const(2), Dim::Const(2)][..])
    );
}
