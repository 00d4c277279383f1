//! Control flow and containers: what bodies capture, which types the importer finds, what it refuses.

use lapidary_graph::{Graph, verify};
use lapidary_import::{ErrorKind, ImportErrors, ImportOptions, import};
use lapidary_onnx::ModelFile;
use lapidary_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lapidary_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message;

const F32: i32 = 1;
const I64: i32 = 7;
const BOOL: i32 = 9;

fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("/{}", op.to_lowercase()),
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

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 5,
        g: Some(graph),
        ..Default::default()
    }
}

/// A tensor; a dimension is a number or a name.
fn value(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| Dimension {
        value: Some(match d.parse::<i64>() {
            Ok(v) => dimension::Value::DimValue(v),
            Err(_) => dimension::Value::DimParam(d.to_string()),
        }),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: dtype,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    info(name, type_proto::Value::TensorType(tensor))
}

fn info(name: &str, value: type_proto::Value) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(value),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn graph(
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    outputs: &[&str],
    initializer: Vec<TensorProto>,
) -> GraphProto {
    let output = outputs.iter().map(|o| ValueInfoProto {
        name: o.to_string(),
        ..Default::default()
    });
    GraphProto {
        name: "g".into(),
        input: inputs,
        output: output.collect(),
        node: nodes,
        initializer,
        ..Default::default()
    }
}

fn i64s(name: &str, dims: &[i64], v: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: I64,
        dims: dims.to_vec(),
        int64_data: v.to_vec(),
        ..Default::default()
    }
}

fn imported(graph: GraphProto) -> Result<Graph, ImportErrors> {
    let model = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        ..Default::default()
    };
    let file = ModelFile::from_bytes(model.encode_to_vec().into(), None).unwrap();
    let graph = import(&file, &ImportOptions::default())?;
    assert_eq!(verify::verify(&graph), Ok(()), "{graph}");
    Ok(graph)
}

/// The statements of the text form, without constants and origins.
fn text(graph: &Graph) -> String {
    let lines = graph.to_text();
    let lines = lines.lines().filter(|l| !l.contains("const "));
    let cut = |l: &str| l.split("   ;").next().unwrap_or("").to_string() + "\n";
    lines.map(cut).collect()
}

fn failure(graph: GraphProto) -> (ErrorKind, String) {
    let errors = imported(graph).expect_err("it is refused").errors;
    (errors[0].kind, errors[0].to_string())
}

#[test]
fn what_changes_from_run_to_run_is_free_and_all_else_stays() {
    let step = graph(
        vec![
            value("i", I64, &[]),
            value("go", BOOL, &[]),
            value("a", F32, &["n", "4"]),
            value("b", F32, &["n", "4"]),
        ],
        vec![
            node("Identity", &["go"], &["go2"], vec![]),
            node("Concat", &["a", "x"], &["a2"], vec![int("axis", 0)]),
            node("Add", &["b", "x"], &["b2"], vec![]),
            node("Neg", &["b2"], &["each"], vec![]),
        ],
        &["go2", "a2", "b2", "each"],
        vec![],
    );
    let made = imported(graph(
        vec![value("trips", I64, &[]), value("x", F32, &["n", "4"])],
        vec![node(
            "Loop",
            &["trips", "", "x", "x"],
            &["y", "z", "all"],
            vec![body("body", step)],
        )],
        &["y", "z", "all"],
        vec![],
    ))
    .unwrap();
    assert_eq!(
        text(&made),
        r#"graph "g" [n, "/loop.0.0", "/loop.2.0"] {
  input %trips: i64[]
  input %x: f32[n, 4]
  %y: f32["/loop.0.0", 4], %z: f32[n, 4], %all: f32["/loop.2.0", n, 4] = loop {carried: 2} %trips, _, %x, %x {
    body "g" (own, own, own, own, 2) ["a.0", n] {
      input %i: i64[]
      input %go: bool[]
      input %a: f32["a.0", 4]
      input %b: f32[n, 4]
      input %x: f32[n, 4]
      %/loop/a2: f32["a.0" + n, 4] = concat {axis: 0} %a, %x
      %/loop/b2: f32[n, 4] = pointwise (a = %b, b = %x) => a + b
      %/loop/each: f32[n, 4] = pointwise (a = %/loop/b2) => -a
      output "go2" @go.1
      output "a2" %/loop/a2
      output "b2" %/loop/b2
      output "each" %/loop/each
    }
  }
  output "y" %y
  output "z" %z
  output "all" %all
}
"#
    );
}

#[test]
fn a_shape_of_the_graph_around_stays_a_formula_inside() {
    let branch = |op: &str| {
        graph(
            vec![],
            vec![
                node("Reshape", &["x", "flat"], &["r"], vec![]),
                node(op, &["r"], &["y"], vec![]),
            ],
            &["y"],
            vec![],
        )
    };
    let made = imported(graph(
        vec![value("c", BOOL, &[]), value("x", F32, &["b", "s", "4"])],
        vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Gather", &["shape", "zero"], &["batch"], vec![]),
            node(
                "Concat",
                &["batch", "rest"],
                &["flat"],
                vec![int("axis", 0)],
            ),
            node(
                "If",
                &["c"],
                &["y"],
                vec![
                    body("then_branch", branch("Neg")),
                    body("else_branch", branch("Abs")),
                ],
            ),
        ],
        &["y"],
        vec![i64s("zero", &[1], &[0]), i64s("rest", &[1], &[-1])],
    ))
    .unwrap();
    let text = text(&made);
    assert!(text.contains("%y: f32[b, 4*s] = if %c, %x {"), "{text}");
    assert!(!text.contains("library"), "{text}");
}

#[test]
fn a_condition_that_is_known_leaves_no_region() {
    let branch = |op: &str| {
        graph(
            vec![],
            vec![node(op, &["x"], &["y"], vec![])],
            &["y"],
            vec![],
        )
    };
    let made = imported(graph(
        vec![value("x", F32, &["n", "4"])],
        vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Size", &["shape"], &["rank"], vec![]),
            node("Equal", &["rank", "two"], &["c"], vec![]),
            node(
                "If",
                &["c"],
                &["y"],
                vec![
                    body("then_branch", branch("Neg")),
                    body("else_branch", branch("Abs")),
                ],
            ),
        ],
        &["y"],
        vec![i64s("two", &[], &[2])],
    ))
    .unwrap();
    assert!(text(&made).contains("=> -a"), "{made}");
    assert_eq!(made.order.len(), 1, "{made}");
}

#[test]
fn parts_of_a_split_at_known_places_need_no_sequence() {
    let made = imported(graph(
        vec![value("x", F32, &["3", "n"])],
        vec![
            node("SplitToSequence", &["x"], &["s"], vec![int("keepdims", 0)]),
            node("SequenceAt", &["s", "at"], &["a"], vec![]),
        ],
        &["a"],
        vec![i64s("at", &[], &[-1])],
    ))
    .unwrap();
    assert!(!text(&made).contains("library"), "{made}");
}

#[test]
fn what_is_wrong_with_bodies_is_named() {
    let branch = |op: &str, to: i64| {
        graph(
            vec![],
            vec![node(op, &["x"], &["y"], vec![int("to", to)])],
            &["y"],
            vec![],
        )
    };
    let inputs = || vec![value("c", BOOL, &[]), value("x", F32, &["n"])];
    let parts = |yes: GraphProto, no: GraphProto| {
        let attributes = vec![body("then_branch", yes), body("else_branch", no)];
        graph(
            inputs(),
            vec![node("If", &["c"], &["y"], attributes)],
            &["y"],
            vec![],
        )
    };
    let (kind, text) = failure(parts(branch("Cast", 7), branch("Cast", 6)));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("node '/if'"), "{text}");
    assert!(
        text.contains("i64[n] of the one branch and i32[n] of the other"),
        "{text}"
    );

    let only = vec![body("then_branch", branch("Cast", 1))];
    let (_, text) = failure(graph(
        inputs(),
        vec![node("If", &["c"], &["y"], only)],
        &["y"],
        vec![],
    ));
    assert!(
        text.contains("attribute 'else_branch' is missing"),
        "{text}"
    );

    let step = graph(vec![value("i", I64, &[])], vec![], &["i"], vec![]);
    let (_, text) = failure(graph(
        inputs(),
        vec![node(
            "Loop",
            &["", "c", "x"],
            &["y"],
            vec![body("body", step)],
        )],
        &["y"],
        vec![],
    ));
    assert!(
        text.contains("1 carried values, but a body of 1 inputs and 1 outputs"),
        "{text}"
    );

    let (kind, text) = failure(graph(
        inputs(),
        vec![
            node("SequenceConstruct", &["x", "x"], &["s"], vec![]),
            node("Neg", &["s"], &["y"], vec![]),
        ],
        &["y"],
        vec![],
    ));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("input 0 ('s') is seq(f32[*])"), "{text}");
    assert!(text.contains("Neg takes tensors"), "{text}");
}

#[test]
fn graphs_that_nest_too_deeply_are_refused() {
    let mut inner = graph(
        vec![],
        vec![node("Neg", &["x"], &["y"], vec![])],
        &["y"],
        vec![],
    );
    for _ in 0..80 {
        let branches = vec![
            body("then_branch", inner.clone()),
            body("else_branch", {
                graph(
                    vec![],
                    vec![node("Abs", &["x"], &["z"], vec![])],
                    &["z"],
                    vec![],
                )
            }),
        ];
        inner = graph(
            vec![],
            vec![node("If", &["c"], &["y"], branches)],
            &["y"],
            vec![],
        );
    }
    inner.input = vec![value("c", BOOL, &[]), value("x", F32, &["n"])];
    // The decoder has a limit of its own; either refusal is one.
    let model = ModelProto {
        ir_version: 8,
        graph: Some(inner),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        ..Default::default()
    };
    if let Ok(file) = ModelFile::from_bytes(model.encode_to_vec().into(), None) {
        let errors = import(&file, &ImportOptions::default()).expect_err("it is too deep");
        assert!(errors.to_string().contains("nest deeper than"), "{errors}");
    }
}
