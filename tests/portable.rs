//! Models as `lapidary optimize` writes them: fewer nodes, the same results, the same names at the edges.
//!
//! The whole ONNX suite goes this way in `tests/conformance` (`--portable`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cases::all_right;
use lapidary::case::Case as Folder;
use lapidary::portable::{Opset, Outcome, Settings, optimize, optimized};
use lapidary::{Class, DType, Error, Model, Options, Tensor};
use lapidary_onnx::proto::attribute_proto::AttributeType;
use lapidary_onnx::proto::tensor_proto::DataLocation;
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::*;
use prost::Message;
use suite::Suite;

#[path = "common/cases.rs"]
mod cases;
#[path = "conformance/suite.rs"]
#[allow(dead_code)] // other programs read all of a case
mod suite;

/// A model whose nodes are lines: `y = Op(a, b) attribute=value …`. Numbers among the operands are f32 scalars, lists in
/// brackets i64 vectors.
fn model(opset: i64, inputs: &[(&str, &[&str])], lines: &[&str], outputs: &[&str]) -> ModelProto {
    let mut graph = GraphProto {
        name: "test".to_string(),
        ..GraphProto::default()
    };
    graph.input = inputs
        .iter()
        .map(|(name, dims)| value(name, Some(dims)))
        .collect();
    graph.output = outputs.iter().map(|name| value(name, None)).collect();
    for (n, line) in lines.iter().enumerate() {
        let (output, rest) = line.split_once(" = ").expect("an output");
        let (op, rest) = rest.split_once('(').expect("operands");
        let (operands, attributes) = rest.split_once(')').expect("operands end");
        let mut node = NodeProto {
            name: format!("node{n}"),
            op_type: op.to_string(),
            output: output.split(' ').map(str::to_string).collect(),
            ..NodeProto::default()
        };
        for (i, operand) in operands.split(", ").enumerate() {
            let number = operand.parse::<f32>().ok();
            let list = operand.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
            if number.is_none() && list.is_none() {
                node.input.push(operand.to_string());
                continue;
            }
            let name = format!("c{n}_{i}");
            let mut tensor = TensorProto {
                name: name.clone(),
                ..TensorProto::default()
            };
            if let Some(number) = number {
                tensor.data_type = DType::F32 as i32;
                tensor.float_data.push(number);
            } else if let Some(list) = list {
                tensor.data_type = DType::I64 as i32;
                tensor.int64_data = numbers(list);
                tensor.dims = vec![tensor.int64_data.len() as i64];
            }
            graph.initializer.push(tensor);
            node.input.push(name);
        }
        for text in attributes.split_whitespace() {
            let (name, value) = text.split_once('=').expect("an attribute");
            let mut attribute = AttributeProto {
                name: name.to_string(),
                ..AttributeProto::default()
            };
            match value.parse() {
                Ok(i) => {
                    attribute.i = i;
                    attribute.r#type = AttributeType::Int as i32;
                }
                Err(_) => {
                    attribute.ints = numbers(value.trim_matches(['[', ']']));
                    attribute.r#type = AttributeType::Ints as i32;
                }
            }
            node.attribute.push(attribute);
        }
        graph.node.push(node);
    }
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: opset,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn numbers(list: &str) -> Vec<i64> {
    let each = list.split(',').filter(|n| !n.is_empty());
    each.map(|n| n.trim().parse().expect("a number")).collect()
}

fn value(name: &str, dims: Option<&[&str]>) -> ValueInfoProto {
    let shape = dims.map(|dims| TensorShapeProto {
        dim: dims
            .iter()
            .map(|d| Dimension {
                value: Some(match d.parse() {
                    Ok(size) => dimension::Value::DimValue(size),
                    Err(_) => dimension::Value::DimParam(d.to_string()),
                }),
                ..Dimension::default()
            })
            .collect(),
    });
    let ty = type_proto::Tensor {
        elem_type: DType::F32 as i32,
        shape,
    };
    ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(ty)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn load(proto: &ModelProto) -> Model {
    Model::from_bytes(proto.encode_to_vec(), None).expect("the model is one")
}

fn shrink(proto: &ModelProto) -> (ModelProto, Outcome) {
    optimized(&load(proto), &Settings::default()).expect("it is optimised")
}

fn operators(proto: &ModelProto) -> Vec<&str> {
    let nodes = &proto.graph.as_ref().expect("a graph").node;
    nodes.iter().map(|n| n.op_type.as_str()).collect()
}

/// Numbers from -3 to 3.
fn data(dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 37 + 11) % 61) as f32 / 10.0 - 3.0)
        .collect();
    Tensor::from_slice(dims, &values).expect("a tensor")
}

fn run(proto: &ModelProto, inputs: &[Tensor]) -> Vec<Tensor> {
    let compiled = load(proto)
        .compile(&Options::default())
        .expect("it compiles");
    let mut context = compiled.context().expect("a context");
    context.run_tensors(inputs).expect("it runs")
}

/// Both give the same, to a few units in the last place.
fn same(a: &ModelProto, b: &ModelProto, inputs: &[Tensor]) {
    let (a, b) = (run(a, inputs), run(b, inputs));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.as_slice::<f32>(), b.as_slice::<f32>());
        let (a, b) = (a.expect("f32"), b.expect("f32"));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 4e-6 * a.abs().max(1.0), "{a} {b}");
        }
    }
}

const X: (&str, &[&str]) = ("x", &["n", "4"]);

#[test]
fn formulas_of_exporters_become_the_operator_that_they_mean() {
    let forms: &[(&str, &[&str])] = &[
        (
            "Gelu",
            &[
                "a = Div(x, 1.4142135381698608)",
                "b = Erf(a)",
                "c = Add(b, 1)",
                "d = Mul(x, c)",
                "y = Mul(d, 0.5)",
            ],
        ),
        (
            "Gelu",
            &[
                "h = Mul(x, 0.5)",
                "a = Mul(0.7071067690849304, x)",
                "b = Erf(a)",
                "c = Add(1, b)",
                "y = Mul(c, h)",
            ],
        ),
        (
            "Gelu",
            &[
                "p = Pow(x, 3)",
                "q = Mul(p, 0.044714998453855515)",
                "r = Add(x, q)",
                "s = Mul(r, 0.7978845834732056)",
                "t = Tanh(s)",
                "u = Add(t, 1)",
                "h = Mul(x, 0.5)",
                "y = Mul(h, u)",
            ],
        ),
        (
            "Gelu",
            &[
                "a = Mul(x, x)",
                "p = Mul(a, x)",
                "q = Mul(0.044714998453855515, p)",
                "r = Add(q, x)",
                "s = Mul(r, 0.7978845834732056)",
                "t = Tanh(s)",
                "u = Add(1, t)",
                "v = Mul(x, u)",
                "y = Mul(v, 0.5)",
            ],
        ),
        (
            "LayerNormalization",
            &[
                "m = ReduceMean(x) axes=[-1]",
                "d = Sub(x, m)",
                "q = Pow(d, 2)",
                "v = ReduceMean(q) axes=[-1]",
                "e = Add(v, 0.00001)",
                "s = Sqrt(e)",
                "n = Div(d, s)",
                "g = Mul(n, scale)",
                "y = Add(g, bias)",
            ],
        ),
        (
            "LayerNormalization",
            &[
                "m = ReduceMean(x) axes=[1]",
                "d = Sub(x, m)",
                "q = Mul(d, d)",
                "v = ReduceMean(q) axes=[1]",
                "e = Add(0.00001, v)",
                "s = Sqrt(e)",
                "n = Div(d, s)",
                "y = Mul(scale, n)",
            ],
        ),
        (
            "Softmax",
            &[
                "m = ReduceMax(x) axes=[1]",
                "d = Sub(x, m)",
                "e = Exp(d)",
                "s = ReduceSum(e, [1])",
                "y = Div(e, s)",
            ],
        ),
        (
            "HardSwish",
            &[
                "a = Add(x, 3)",
                "c = Clip(a, 0, 6)",
                "p = Mul(x, c)",
                "y = Div(p, 6)",
            ],
        ),
    ];
    for (operator, lines) in forms {
        let mut proto = model(13, &[X], lines, &["y"]);
        let graph = proto.graph.as_mut().expect("a graph");
        for (name, values) in [
            ("scale", [1.0, 2.0, -0.5, 0.25]),
            ("bias", [0.5, 0.0, 3.0, -1.0]),
        ] {
            graph.initializer.push(TensorProto {
                name: name.to_string(),
                dims: vec![4],
                data_type: DType::F32 as i32,
                float_data: values.to_vec(),
                ..TensorProto::default()
            });
        }
        let (small, outcome) = shrink(&proto);
        assert_eq!(operators(&small), [*operator], "{lines:?}");
        assert_eq!(outcome.nodes, (lines.len(), 1));
        let node = &small.graph.as_ref().expect("a graph").node[0];
        assert_eq!(node.name, format!("node{}", lines.len() - 1));
        load(&small)
            .validate(&Options::default())
            .expect("it is valid");
        same(&proto, &small, &[data(&[3, 4])]);

        let keep = Settings {
            opset: Opset::Keep,
            ..Settings::default()
        };
        let (kept, outcome) = optimized(&load(&proto), &keep).expect("it is optimised");
        assert_eq!(kept.opset_import[0].version, 13);
        let newer = *operator != "Softmax";
        assert_eq!(!outcome.remarks.is_empty(), newer, "{operator}");
        same(&proto, &kept, &[data(&[3, 4])]);
    }
}

#[test]
fn formulas_that_only_look_alike_stay() {
    let forms: &[&[&str]] = &[
        // Another factor.
        &[
            "a = Div(x, 1.4142135381698608)",
            "b = Erf(a)",
            "c = Add(b, 1)",
            "d = Mul(x, c)",
            "y = Mul(d, 0.6)",
        ],
        // The error function of something else.
        &[
            "z = Neg(x)",
            "a = Div(z, 1.4142135381698608)",
            "b = Erf(a)",
            "c = Add(b, 1)",
            "d = Mul(x, c)",
            "y = Mul(d, 0.5)",
        ],
        // The mean over another axis than the variance.
        &[
            "m = ReduceMax(x) axes=[0]",
            "d = Sub(x, m)",
            "e = Exp(d)",
            "s = ReduceSum(e, [1])",
            "y = Div(e, s)",
        ],
        // Without the greatest taken off, large numbers overflow.
        &["e = Exp(x)", "s = ReduceSum(e, [1])", "y = Div(e, s)"],
    ];
    for lines in forms {
        let proto = model(13, &[X], lines, &["y"]);
        let (small, outcome) = shrink(&proto);
        assert_eq!(outcome.nodes, (lines.len(), lines.len()), "{lines:?}");
        same(&proto, &small, &[data(&[3, 4])]);
    }
}

#[test]
fn a_shape_that_is_computed_from_shapes_becomes_a_constant() {
    let lines = [
        "s = Shape(x)",
        "b = Gather(s, [0]) axis=0",
        "shape = Concat(b, [2,2]) axis=0",
        "r = Reshape(x, shape)",
        "t = Transpose(r) perm=[0,2,1]",
        "u = Transpose(t) perm=[0,2,1]",
        "e = Exp(u)",
        "n = Gather(s, [0]) axis=0",
        "k = Mul(n, [4])",
        "y = Reshape(e, k)",
    ];
    let proto = model(13, &[X], &lines, &["y"]);
    let (small, _) = shrink(&proto);
    assert_eq!(operators(&small), ["Reshape", "Exp", "Reshape"]);
    assert_eq!(small.opset_import[0].version, 13);
    // The input's free dim keeps its name.
    assert_eq!(
        small.graph.as_ref().map(|g| &g.input),
        proto.graph.as_ref().map(|g| &g.input)
    );
    for rows in [1, 5] {
        same(&proto, &small, &[data(&[rows, 4])]);
    }
}

#[test]
fn what_follows_a_convolution_goes_into_its_weights() {
    let lines = [
        "c = Conv(x, w)",
        "b = BatchNormalization(c, scale, bias, mean, var)",
        "m = Mul(b, per_channel)",
        "a = Add(m, 0.5)",
        "r = Relu(a)",
        // Read twice, so it stays.
        "d = Conv(r, w2)",
        "e = Mul(d, 2)",
        "y = Add(e, d)",
    ];
    let mut proto = model(13, &[("x", &["n", "2", "5", "5"])], &lines, &["y"]);
    let graph = proto.graph.as_mut().expect("a graph");
    let mut weight = |name: &str, dims: &[i64], offset: f32| {
        let count: i64 = dims.iter().product();
        graph.initializer.push(TensorProto {
            name: name.to_string(),
            dims: dims.to_vec(),
            data_type: DType::F32 as i32,
            float_data: (0..count).map(|i| (i % 7) as f32 * 0.1 + offset).collect(),
            ..TensorProto::default()
        });
    };
    weight("w", &[3, 2, 3, 3], -0.3);
    weight("w2", &[2, 3, 1, 1], -0.2);
    weight("scale", &[3], 0.5);
    weight("bias", &[3], -0.2);
    weight("mean", &[3], 0.1);
    weight("var", &[3], 0.7);
    weight("per_channel", &[3, 1, 1], 0.9);
    let (small, _) = shrink(&proto);
    assert_eq!(operators(&small), ["Conv", "Relu", "Conv", "Mul", "Add"]);
    same(&proto, &small, &[data(&[2, 2, 5, 5])]);
}

#[test]
fn outputs_keep_their_names_whatever_becomes_of_their_nodes() {
    let lines = [
        "a = Exp(x)",
        "y1 = Identity(a)",
        "y2 = Identity(a)",
        "y3 = Identity(x)",
        "y4 = Exp(x)",
        "k = Add(1, 2)",
        "y5 = Identity(k)",
        "y6 = Neg(y1)",
    ];
    let outputs = ["y1", "y2", "y3", "y4", "y5", "y6"];
    let proto = model(13, &[X], &lines, &outputs);
    let (small, outcome) = shrink(&proto);
    let graph = small.graph.as_ref().expect("a graph");
    let names: Vec<&str> = graph.output.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, outputs);
    assert!(outcome.nodes.1 < lines.len());
    same(&proto, &small, &[data(&[2, 4])]);
}

#[test]
fn graphs_inside_of_nodes_read_what_is_left() {
    let mut proto = model(
        13,
        &[X, ("flag", &[])],
        &[
            "a = Exp(x)",
            "b = Exp(x)",
            "c = Identity(b)",
            "go = Cast(flag) to=9",
            "y = If(go)",
        ],
        &["y"],
    );
    let body = |line: &str| {
        let inner = model(13, &[], &[line], &["out"]);
        inner.graph.expect("a graph")
    };
    let node = &mut proto.graph.as_mut().expect("a graph").node[4];
    for (name, line) in [
        ("then_branch", "out = Neg(b)"),
        ("else_branch", "out = Add(c, a)"),
    ] {
        node.attribute.push(AttributeProto {
            name: name.to_string(),
            r#type: AttributeType::Graph as i32,
            g: Some(body(line)),
            ..AttributeProto::default()
        });
    }
    let (small, _) = shrink(&proto);
    assert_eq!(operators(&small), ["Exp", "Cast", "If"]);
    for flag in [0f32, 1.0] {
        let flag = Tensor::from_slice(&[], &[flag]).expect("a tensor");
        same(&proto, &small, &[data(&[2, 4]), flag]);
    }
}

/// Folders of models with expected outputs.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all: Vec<PathBuf> = std::fs::read_dir(root.join("tests/models"))
        .expect("the models are there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    all.push(root.join("examples/digits"));
    all.sort();
    all
}

#[test]
fn small_models_are_right_when_written_and_read_again() {
    let temporary = std::env::temp_dir().join(format!("lapidary-portable-{}", std::process::id()));
    for folder in folders() {
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let case = Folder::open(&folder).expect("the model opens");
        for external in [false, true] {
            let work = temporary.join(format!("{name}-{external}"));
            std::fs::create_dir_all(&work).expect("a folder");
            let path = work.join("model.onnx");
            let settings = Settings {
                external,
                ..Settings::default()
            };
            let (paths, outcome) = optimize(&case.model, &settings, &path).expect("it is written");
            assert!(outcome.nodes.1 <= outcome.nodes.0, "{name}");
            assert_eq!(
                paths.len(),
                1 + usize::from(external && name != "forest"),
                "{name}"
            );
            let model = Model::load(&path).expect("it opens");
            assert_eq!(model.input_names(), case.model.input_names());
            assert_eq!(model.output_names(), case.model.output_names());
            let outside = model.file().graph().initializer.iter();
            let outside = outside.filter(|t| t.data_location == DataLocation::External as i32);
            assert_eq!(outside.count() > 0, paths.len() > 1, "{name}");
            let compiled = model.compile(&Options::default()).expect("it compiles");
            all_right(&case, &compiled);
        }
    }
    let _ = std::fs::remove_dir_all(&temporary);
}

#[test]
fn transformers_lose_most_of_their_nodes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    for (name, most) in [("bert", 100), ("gpt2", 120)] {
        let model = Model::load(root.join(name).join("model.onnx")).expect("the model opens");
        let (_, outcome) = optimized(&model, &Settings::default()).expect("it is optimised");
        let (before, after) = outcome.nodes;
        assert!(
            before >= 2 * after && after <= most,
            "{name}: {before} to {after}"
        );
        assert!(
            outcome
                .raised
                .iter()
                .any(|(operator, _)| *operator == "Gelu")
        );
    }
}

/// Every case of the suite of an opset from 7 on is lifted to opset 20 and right there, but for operators that changed
/// their meaning and types.
#[test]
fn models_of_older_opsets_rise_and_stay_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let suite = Suite::load(&["suite.bin", "old_forms.bin"].map(|name| root.join(name)));
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let (mut lifted, mut wrong) = (0, Vec::new());
    let failing = std::fs::read_to_string(root.join("expected_failures.txt")).expect("the list");
    let failing: BTreeSet<&str> = failing
        .lines()
        .filter_map(|l| l.split([' ', '\t', ':']).next())
        .collect();
    for case in &suite.cases {
        let model = suite.model(case).expect("the model is one");
        let opsets = &model.file().model().opset_import;
        let opset = opsets.iter().find(|o| o.domain.is_empty());
        let below = opset.is_some_and(|o| (7..20).contains(&o.version));
        if !below || failing.contains(case.name.as_str()) {
            continue;
        }
        let settings = Settings {
            opset: Opset::AtLeast(20),
            ..Settings::default()
        };
        let proto = match optimized(&model, &settings) {
            Ok((proto, _)) => proto,
            Err(Error::Unsupported(reason)) => {
                let operator = reason.split(['(', ')']).nth(1).unwrap_or(&reason);
                *refused.entry(operator.to_string()).or_default() += 1;
                continue;
            }
            Err(error) => {
                wrong.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        let judge = || -> Result<(), Error> {
            let model = Model::from_bytes(proto.encode_to_vec(), None)?;
            let compiled = model.compile(&Options::default())?;
            let mut context = compiled.context()?;
            for set in suite.sets(case, &model)? {
                let found = context.run_values(&set.inputs)?;
                let judged = set.judge(&found, &model.output_names(), case.tolerance);
                judged.map_err(|w| Error::Wrong(w[0].mismatch.to_string()))?;
            }
            Ok(())
        };
        match judge() {
            Ok(()) => lifted += 1,
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    println!("{lifted} cases lifted to opset 20, refused: {refused:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let allowed = ["DFT", "Hardmax", "LogSoftmax", "Scan", "Softmax"];
    for operator in refused.keys() {
        assert!(
            allowed.contains(&operator.as_str()),
            "{operator}: {refused:?}"
        );
    }
    assert!(lifted >= 900, "{lifted}");
}

#[test]
fn an_opset_that_is_out_of_reach_is_refused_by_name() {
    let proto = model(
        12,
        &[("x", &["n", "3", "4"])],
        &["y = Softmax(x) axis=1"],
        &["y"],
    );
    let settings = Settings {
        opset: Opset::AtLeast(17),
        ..Settings::default()
    };
    let error = optimized(&load(&proto), &settings).expect_err("its meaning changed");
    assert_eq!(error.class(), Class::Unsupported);
    assert!(error.to_string().contains("'node0' (Softmax)"), "{error}");
}
