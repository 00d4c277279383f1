//! Small models built in code, and every fault that they must give.

mod shapes;

use bytes::Bytes;
use prost::Message;

use super::{FaultKind, check};
use crate::ModelFile;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto, TypeProto, ValueInfoProto, type_proto,
};

/// A float tensor; a condition if it is named `c`.
fn value(name: &str) -> ValueInfoProto {
    typed(name, if name == "c" { 9 } else { 1 })
}

fn typed(name: &str, elem_type: i32) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type,
                shape: None,
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn values(names: &[&str]) -> Vec<ValueInfoProto> {
    names.iter().map(|name| value(name)).collect()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

/// A node named for its operator and first output.
fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        name: format!("make_{}", outputs.first().unwrap_or(&"")),
        op_type: op.into(),
        input: strings(inputs),
        output: strings(outputs),
        ..NodeProto::default()
    }
}

fn graph(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: "main".into(),
        input: values(inputs),
        output: values(outputs),
        node: nodes,
        ..GraphProto::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: kind as i32,
        ..AttributeProto::default()
    }
}

fn branch(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        g: Some(graph),
        ..attribute(name, AttributeType::Graph)
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: domain.into(),
        version,
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 10,
        opset_import: vec![opset("", 21)],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn float(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: 1,
        dims: vec![values.len() as i64],
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn faults(model: &ModelProto) -> Vec<super::Fault> {
    let file = ModelFile::from_bytes(Bytes::from(model.encode_to_vec()), None).unwrap();
    check(&file).err().unwrap_or_default()
}

/// Compares the faults, as `place: message`.
fn expect(model: &ModelProto, expected: &[&str]) {
    let found: Vec<String> = faults(model)
        .iter()
        .map(|fault| format!("{}: {}", fault.place, fault.message))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_sound_model_has_no_faults() {
    let inner = graph(&[], vec![node("Neg", &["x"], &["n"])], &["n"]);
    let other = graph(&[], vec![node("Abs", &["w"], &["n"])], &["n"]);
    let mut cond = node("If", &["c"], &["y"]);
    cond.attribute = vec![branch("then_branch", inner), branch("else_branch", other)];
    let mut main = graph(
        &["x", "c"],
        vec![node("Clip", &["x", "", "w"], &["z"]), cond],
        &["y", "z"],
    );
    main.initializer = vec![float("w", &[1.0])];
    expect(&model(main), &[]);
}

#[test]
fn versions_are_checked() {
    let sound = || graph(&["x"], vec![node("Neg", &["x"], &["y"])], &["y"]);
    let cases: Vec<(i64, Vec<OperatorSetIdProto>, FaultKind, &str)> = vec![
        (
            0,
            vec![opset("", 7)],
            FaultKind::Invalid,
            "ir_version is 0, expected 3 to 14",
        ),
        (
            2,
            vec![opset("", 7)],
            FaultKind::Unsupported,
            "ir_version 2 is too old, expected 3 to 14",
        ),
        (
            15,
            vec![opset("", 28)],
            FaultKind::Unsupported,
            "ir_version 15 is newer than this compiler knows, expected 3 to 14",
        ),
        (
            8,
            vec![],
            FaultKind::Invalid,
            "opset_import is missing: expected the version of each operator set used",
        ),
        (
            8,
            vec![opset("ai.onnx", 29)],
            FaultKind::Unsupported,
            "opset 29 of the domain 'ai.onnx' is not taken, expected 1 to 28",
        ),
        (
            8,
            vec![opset("", 0)],
            FaultKind::Invalid,
            "opset 0 of the domain 'ai.onnx' is not taken, expected 1 to 28",
        ),
        (
            8,
            vec![opset("", 8), opset("", 8), opset("ai.onnx", 9)],
            FaultKind::Invalid,
            "opset_import gives the domain 'ai.onnx' two versions, 8 and 9",
        ),
    ];
    for (ir_version, opset_import, kind, message) in cases {
        let found = faults(&ModelProto {
            ir_version,
            opset_import,
            ..model(sound())
        });
        let found: Vec<_> = found.iter().map(|f| (f.kind, f.message.as_str())).collect();
        assert_eq!(found, [(kind, message)]);
    }
}

#[test]
fn an_unknown_domain_is_left_to_the_importer_if_it_is_imported() {
    let mut custom = node("Fancy", &["x"], &["y"]);
    custom.domain = "com.example".into();
    let mut model = model(graph(&["x"], vec![custom], &["y"]));
    expect(
        &model,
        &[
            "graph 'main' / node 'make_y' (Fancy): the node's domain 'com.example' is not in opset_import",
        ],
    );
    model.opset_import.push(opset("com.example", 1));
    expect(&model, &[]);
}

#[test]
fn all_faults_are_reported_at_once() {
    let mut main = graph(
        &["x", "x", ""],
        vec![
            node("Neg", &["x"], &["x"]),
            node("Add", &["x", "missing"], &["a"]),
            node("", &["x"], &["a"]),
        ],
        &["a", "a", "gone"],
    );
    main.name = String::new();
    main.input[0].r#type = None;
    main.initializer = vec![float("w", &[1.0]), float("w", &[1.0]), float("", &[])];
    main.initializer[0].dims = vec![2];
    expect(
        &model(main),
        &[
            "graph: the graph has no name",
            "graph / input 'x': the input is listed twice",
            "graph / input '': an input has no name",
            "graph / initializer 'w': tensor 'w': FLOAT of dimensions [2] takes 2 entries in float_data, found 1",
            "graph / initializer 'w': the initializer is given twice",
            "graph / initializer '': an initializer has no name",
            "graph / input 'x': the input has no type",
            "graph / node 'make_x' (Neg): output 'x' is defined a second time",
            "graph / node 'make_a' (Add): input 'missing' is not defined",
            "graph / node 'make_a' (): the node has no op_type",
            "graph / node 'make_a' (): output 'a' is defined a second time",
            "graph / output 'a': the output is listed twice",
            "graph / output 'gone': the output is not defined: no input, initializer or node gives it",
        ],
    );
    expect(
        &model(graph(&["x"], vec![], &[])),
        &["graph 'main': the graph has no outputs"],
    );
}

#[test]
fn disorder_is_told_from_a_cycle() {
    let disorder = vec![node("Neg", &["a"], &["y"]), node("Abs", &["x"], &["a"])];
    expect(
        &model(graph(&["x"], disorder, &["y"])),
        &[
            "graph 'main' / node 'make_y' (Neg): input 'a' is used before node 'make_a' (Abs) defines it",
        ],
    );

    let cycle = vec![
        node("Add", &["x", "c"], &["a"]),
        node("Neg", &["a"], &["b"]),
        node("Abs", &["b"], &["c"]),
        node("Abs", &["d"], &["y"]),
        node("Neg", &["c"], &["d"]),
        node("Add", &["s", "x"], &["s"]),
    ];
    expect(
        &model(graph(&["x"], cycle, &["y"])),
        &[
            "graph 'main' / node 'make_a' (Add): the nodes form a cycle: node 'make_a' (Add) → node 'make_b' (Neg) → node 'make_c' (Abs) → node 'make_a' (Add)",
            "graph 'main' / node 'make_y' (Abs): input 'd' is used before node 'make_d' (Neg) defines it",
            "graph 'main' / node 'make_s' (Add): the nodes form a cycle: node 'make_s' (Add) → node 'make_s' (Add)",
        ],
    );
}

#[test]
fn subgraphs_see_what_is_around_them() {
    // `late` is used inside before it is defined outside, and depends on the If: a cycle through a subgraph.
    let mut cond = node("If", &["c"], &["y"]);
    cond.attribute = vec![
        branch(
            "then_branch",
            graph(&[], vec![node("Neg", &["late"], &["t"])], &["t"]),
        ),
        branch(
            "else_branch",
            graph(
                &[],
                vec![
                    node("Neg", &["nowhere"], &["x"]),
                    node("Neg", &["t"], &["e"]),
                ],
                &["e"],
            ),
        ),
    ];
    let main = graph(
        &["x", "c"],
        vec![cond, node("Abs", &["y"], &["late"])],
        &["y"],
    );
    expect(
        &model(main),
        &[
            "graph 'main' / node 'make_y' (If) / attribute 'else_branch' / node 'make_x' (Neg): input 'nowhere' is not defined",
            "graph 'main' / node 'make_y' (If) / attribute 'else_branch' / node 'make_x' (Neg): output 'x' has the name of a value of a surrounding graph",
            "graph 'main' / node 'make_y' (If) / attribute 'else_branch' / node 'make_e' (Neg): input 't' is not defined",
            "graph 'main' / node 'make_y' (If): the nodes form a cycle: node 'make_y' (If) → node 'make_late' (Abs) → node 'make_y' (If)",
        ],
    );
}

#[test]
fn attributes_are_well_formed() {
    let mut op = node("Op", &["x"], &["y"]);
    op.domain = "com.example".into();
    op.attribute = vec![
        attribute("zero", AttributeType::Int),
        attribute("", AttributeType::Ints),
        attribute("zero", AttributeType::Float),
        attribute("none", AttributeType::Undefined),
        AttributeProto {
            r#type: 99,
            ..attribute("strange", AttributeType::Int)
        },
        attribute("empty", AttributeType::Tensor),
        AttributeProto {
            i: 1,
            ..attribute("wrong", AttributeType::Floats)
        },
        AttributeProto {
            t: Some(TensorProto::default()),
            ..attribute("bad", AttributeType::Tensor)
        },
        AttributeProto {
            ref_attr_name: "outer".into(),
            ..attribute("refers", AttributeType::Int)
        },
    ];
    let at = "graph 'main' / node 'make_y' (Op) / attribute";
    expect(
        &ModelProto {
            opset_import: vec![opset("com.example", 1)],
            ..model(graph(&["x"], vec![op], &["y"]))
        },
        &[
            &format!("{at} '': the attribute has no name"),
            &format!("{at} 'zero': the attribute is given twice"),
            &format!("{at} 'none': the attribute has no type"),
            &format!("{at} 'strange': attribute type 99 is not known"),
            &format!("{at} 'empty': an attribute of type TENSOR has no value"),
            &format!(
                "{at} 'wrong': an attribute of type FLOATS has a value in 'i', expected 'floats' alone"
            ),
            &format!(
                "{at} 'bad': tensor '': data_type 0 is not an ONNX element type (expected 1 to 28)"
            ),
            &format!(
                "{at} 'refers': the attribute refers to an attribute 'outer' of a function, but stands outside of any"
            ),
        ],
    );
}

#[test]
fn functions_are_checked() {
    let call = |op: &str, input: &str, output: &str| NodeProto {
        domain: "local".into(),
        ..node(op, &[input], &[output])
    };
    let function = |name: &str, nodes: Vec<NodeProto>| FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: strings(&["x"]),
        output: strings(&["y"]),
        opset_import: vec![opset("", 21), opset("local", 1)],
        node: nodes,
        ..FunctionProto::default()
    };
    let mut refers = node("LeakyRelu", &["x"], &["y"]);
    refers.attribute = vec![
        AttributeProto {
            ref_attr_name: "slope".into(),
            ..attribute("alpha", AttributeType::Float)
        },
        AttributeProto {
            ref_attr_name: "other".into(),
            ..attribute("__beta", AttributeType::Float)
        },
    ];
    let mut with_attributes = function("attributes", vec![refers]);
    with_attributes.attribute = strings(&["slope"]);
    let mut no_import = function("no_import", vec![node("Neg", &["x"], &["y"])]);
    no_import.opset_import = vec![opset("local", 1)];
    let mut model = model(graph(&["x"], vec![call("f", "x", "y")], &["y"]));
    model.opset_import.push(opset("local", 1));
    model.functions = vec![
        function("f", vec![call("g", "x", "y")]),
        function("g", vec![call("h", "x", "y")]),
        function("h", vec![call("g", "x", "y")]),
        function("h", vec![node("Neg", &["outside"], &["z"])]),
        with_attributes,
        no_import,
    ];
    expect(
        &model,
        &[
            "function 'local.h': the function is defined twice",
            "function 'local.h' / node 'make_z' (Neg): input 'outside' is not defined",
            "function 'local.h' / output 'y': the output is not defined: no input, initializer or node gives it",
            "function 'local.attributes' / node 'make_y' (LeakyRelu) / attribute '__beta': the attribute refers to 'other', which is no attribute of the function",
            "function 'local.no_import' / node 'make_y' (Neg): the node's domain 'ai.onnx' is not in opset_import",
        ],
    );

    model.functions.truncate(3);
    expect(
        &model,
        &[
            "function 'local.g': functions call one another in a circle: function 'local.g' → function 'local.h' → function 'local.g'",
        ],
    );
}

#[test]
fn sparse_initializers_are_checked() {
    let sparse = |indices: &[i64], dims: &[i64]| {
        let mut main = graph(&["x"], vec![node("Add", &["x", "s"], &["y"])], &["y"]);
        main.sparse_initializer = vec![SparseTensorProto {
            values: Some(float("s", &[1.0, 2.0])),
            indices: Some(TensorProto {
                data_type: 7,
                dims: vec![indices.len() as i64],
                int64_data: indices.to_vec(),
                ..TensorProto::default()
            }),
            dims: dims.to_vec(),
        }];
        model(main)
    };
    let at = "graph 'main' / initializer 's' / indices";
    expect(&sparse(&[1, 4], &[5]), &[]);
    expect(
        &sparse(&[1, 5], &[5]),
        &[&format!("{at}: an index lies outside the dimensions [5]")],
    );
    expect(
        &sparse(&[4, 1], &[5]),
        &[&format!(
            "{at}: indices are not in ascending order, each once"
        )],
    );
    expect(
        &sparse(&[1, 2, 3], &[5]),
        &[&format!("{at}: dimensions are [3], expected [2] or [2, 1]")],
    );
}

#[test]
fn initializers_of_old_models_are_inputs() {
    let mut main = graph(&["x"], vec![node("Add", &["x", "w"], &["y"])], &["y"]);
    main.initializer = vec![float("w", &[1.0])];
    let mut model = model(main);
    model.ir_version = 3;
    model.opset_import = vec![opset("", 8)];
    expect(
        &model,
        &[
            "graph 'main' / initializer 'w': the initializer is no graph input, as ir_version 3 asks for",
        ],
    );
    if let Some(graph) = &mut model.graph {
        graph.input.push(value("w"));
    }
    expect(&model, &[]);
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: values.to_vec(),
        ..attribute(name, AttributeType::Ints)
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: value,
        ..attribute(name, AttributeType::Int)
    }
}

#[test]
fn nodes_have_what_their_operators_ask_for() {
    let with = |mut node: NodeProto, attributes: Vec<AttributeProto>| {
        node.attribute = attributes;
        node
    };
    let cases = [
        (
            node("Neg", &["x", "x"], &["y"]),
            "Neg takes 1 inputs (X), found 2",
        ),
        (
            node("Add", &["x"], &["y"]),
            "Add takes 2 inputs (A, B), found 1",
        ),
        (
            node("Clip", &["", "x"], &["y"]),
            "input 0 ('input') has no name, but is required",
        ),
        (
            node("Clip", &["x", "x", "x", "x"], &["y"]),
            "Clip takes 1 to 3 inputs (input, [min], [max]), found 4",
        ),
        (
            node("Max", &[], &["y"]),
            "Max takes 1 or more inputs (data_0…), found 0",
        ),
        (
            node("Neg", &["x"], &["y", "z"]),
            "Neg takes 1 outputs (Y), found 2",
        ),
        (
            node(
                "BatchNormalization",
                &["x", "x", "x", "x", "x"],
                &["y", "a"],
            ),
            "BatchNormalization has 1 or 3 outputs, found 2",
        ),
        (
            node("Cast", &["x"], &["y"]),
            "the attribute 'to' is missing, which is required",
        ),
        (
            node("Scatter", &["x", "x", "x"], &["y"]),
            "Scatter must not be used since opset 11 of 'ai.onnx' (the model imports 21)",
        ),
        (
            node("Swish", &["x"], &["y"]),
            "Swish is not defined at opset 21 of 'ai.onnx': it came with opset 24",
        ),
        (
            node("Frobnicate", &["x"], &["y"]),
            "'ai.onnx' defines no operator 'Frobnicate'",
        ),
    ];
    for (node, message) in cases {
        let message = format!(
            "graph 'main' / {}: {message}",
            super::place::Part::Node(&node, 0)
        );
        expect(
            &model(graph(&["x"], vec![node.clone()], &["y"])),
            &[&message],
        );
    }
    let cases = [
        (
            int("frobs", 1),
            "Transpose has no such attribute at opset 21",
        ),
        (
            int("perm", 1),
            "the attribute is of type INT, expected INTS",
        ),
    ];
    for (attribute, message) in cases {
        let place = format!(
            "graph 'main' / node 'make_y' (Transpose) / attribute '{}'",
            attribute.name
        );
        let node = with(node("Transpose", &["x"], &["y"]), vec![attribute]);
        expect(
            &model(graph(&["x"], vec![node], &["y"])),
            &[&format!("{place}: {message}")],
        );
    }
    let internal = vec![ints("perm", &[0]), int("__internal", 1)];
    let sound = with(node("Transpose", &["x"], &["y"]), internal);
    expect(&model(graph(&["x"], vec![sound], &["y"])), &[]);
}

#[test]
fn types_go_from_node_to_node() {
    let cast = |input: &str, output: &str, to: i64| {
        let mut node = node("Cast", &[input], &[output]);
        node.attribute = vec![int("to", to)];
        node
    };
    let run = |nodes: Vec<NodeProto>, expected: &[&str]| {
        let mut graph = graph(&["x"], nodes, &["y"]);
        graph.input.push(typed("n", 7));
        expect(&model(graph), expected);
    };
    run(
        vec![cast("n", "f", 1), node("Add", &["x", "f"], &["y"])],
        &[],
    );
    run(
        vec![node("Add", &["x", "n"], &["y"])],
        &[
            "graph 'main' / node 'make_y' (Add): input 1 ('B') is tensor(int64), but input 0 is tensor(float): expected one type",
        ],
    );
    run(
        vec![
            cast("x", "b", 9),
            node("Not", &["x"], &["b2"]),
            node("Identity", &["x"], &["y"]),
        ],
        &[
            "graph 'main' / node 'make_b2' (Not): input 0 ('X') is tensor(float), expected tensor(bool)",
        ],
    );
    run(
        vec![node("Shape", &["x"], &["y"])],
        &[
            "graph 'main' / node 'make_y' (Shape): 'y' is tensor(int64), but is declared as tensor(float)",
        ],
    );
    run(
        vec![
            node("SequenceConstruct", &["x", "x"], &["s"]),
            node("SequenceAt", &["s", "n"], &["e"]),
            node("Relu", &["e"], &["y"]),
        ],
        &[],
    );
    run(
        vec![
            node("SequenceConstruct", &["n"], &["s"]),
            node("Relu", &["s"], &["y"]),
        ],
        &[
            "graph 'main' / node 'make_y' (Relu): input 0 ('X') is seq(tensor(int64)), expected tensor(float | int8 | int16 | int32 | int64 | float16 | double | bfloat16)",
        ],
    );
    // Through the bodies of an If, and back.
    let mut cond = node("If", &["c"], &["y"]);
    let other = || graph(&[], vec![node("Shape", &["x"], &["m"])], &["m"]);
    let mut first = graph(&[], vec![node("Neg", &["x"], &["m"])], &["m"]);
    cond.attribute = vec![
        branch("then_branch", first.clone()),
        branch("else_branch", other()),
    ];
    let mut main = graph(&["x", "c"], vec![cond.clone()], &["y"]);
    main.output[0].r#type = None;
    let place = "graph 'main' / node 'make_y' (If)";
    expect(
        &model(main.clone()),
        &[
            &format!(
                "{place} / attribute 'else_branch' / node 'make_m' (Shape): 'm' is tensor(int64), but is declared as tensor(float)"
            ),
            &format!(
                "{place}: output 0 of 'then_branch' and 'else_branch' differ in type: tensor(float) and tensor(int64)"
            ),
        ],
    );
    first.output[0].name = "x".into();
    cond.attribute = vec![
        branch("then_branch", first.clone()),
        branch("else_branch", first),
    ];
    main.node = vec![cond];
    let message = "the output is a value of a surrounding graph";
    expect(
        &model(main),
        &[
            &format!("{place} / attribute 'then_branch' / output 'x': {message}"),
            &format!("{place} / attribute 'else_branch' / output 'x': {message}"),
        ],
    );
}

#[test]
fn a_function_imports_operators_of_the_same_meaning_as_the_model() {
    let mut call = node("f", &["x"], &["y"]);
    call.domain = "local".into();
    let function = |op: &str, version| FunctionProto {
        name: "f".into(),
        domain: "local".into(),
        input: strings(&["x"]),
        output: strings(&["y"]),
        node: vec![node(op, &["x"], &["y"])],
        opset_import: vec![opset("", version)],
        ..FunctionProto::default()
    };
    let with = |function| ModelProto {
        opset_import: vec![opset("", 21), opset("local", 1)],
        functions: vec![function],
        ..model(graph(&["x"], vec![call.clone()], &["y"]))
    };
    expect(&with(function("Neg", 13)), &[]);
    expect(
        &with(function("Identity", 13)),
        &[
            "function 'local.f' / node 'make_y' (Identity): the function imports opset 13 of 'ai.onnx', the model opset 21, and Identity is not the same in both",
        ],
    );
}

#[test]
fn operators_of_the_application_need_no_schema() {
    let model = model(graph(
        &["x"],
        vec![node("Frobnicate", &["x"], &["y"])],
        &["y"],
    ));
    let file = ModelFile::from_bytes(Bytes::from(model.encode_to_vec()), None).unwrap();
    assert!(check(&file).is_err());
    let rules = super::Rules {
        own: &|domain, name| (domain, name) == ("", "Frobnicate"),
        ..Default::default()
    };
    assert_eq!(super::check_by(&file, &rules), Ok(()));
    let full = super::Rules {
        full: true,
        ..rules
    };
    let faults = super::check_by(&file, &full).unwrap_err();
    let places: Vec<&str> = faults.iter().map(|f| f.place.as_str()).collect();
    assert_eq!(
        places,
        ["graph 'main' / input 'x'", "graph 'main' / output 'y'"]
    );
}

#[test]
fn a_constant_has_one_value_and_strings_are_utf8() {
    let constant = |attributes: Vec<AttributeProto>| {
        let node = NodeProto {
            attribute: attributes,
            ..node("Constant", &[], &["y"])
        };
        let mut main = graph(&[], vec![node], &[]);
        main.output = vec![typed("y", 7)];
        model(main)
    };
    expect(&constant(vec![int("value_int", 3)]), &[]);
    let place = "graph 'main' / node 'make_y' (Constant)";
    expect(
        &constant(vec![int("value_int", 3), ints("value_ints", &[1, 2])]),
        &[&format!(
            "{place}: the constant has 2 values: 'value_int', 'value_ints'"
        )],
    );
    expect(
        &constant(vec![]),
        &[&format!("{place}: the constant has no value")],
    );
    let mut main = graph(&[], vec![node("Identity", &["s"], &["y"])], &[]);
    main.output = vec![typed("y", 8)];
    main.initializer = vec![TensorProto {
        name: "s".into(),
        data_type: 8,
        dims: vec![2],
        string_data: vec![Bytes::from_static(b"a"), Bytes::from_static(b"\xff")],
        ..TensorProto::default()
    }];
    expect(
        &model(main),
        &["graph 'main' / initializer 's': tensor 's': entry 1 of string_data is not UTF-8"],
    );
}

#[test]
fn a_mapped_sequence_is_one_of_what_the_body_gives() {
    let sequence = |name: &str, elem_type: i32| {
        let inner = typed(name, elem_type).r#type.map(Box::new);
        let value =
            type_proto::Value::SequenceType(Box::new(type_proto::Sequence { elem_type: inner }));
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                value: Some(value),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        }
    };
    let mapped = |outputs: &[&str], declared: i32| {
        let body = graph(&["item"], vec![node("Neg", &["item"], &["n"])], &["n"]);
        let node = NodeProto {
            attribute: vec![branch("body", body)],
            ..node("SequenceMap", &["s"], outputs)
        };
        let mut main = graph(&[], vec![node], &[]);
        main.input = vec![sequence("s", 1)];
        main.output = vec![sequence("y", declared)];
        model(main)
    };
    expect(&mapped(&["y"], 1), &[]);
    let place = "graph 'main' / node 'make_y' (SequenceMap)";
    let found = faults(&mapped(&["y", "z"], 1));
    let text = "'body' has 1 outputs, expected 2 for a node with 2";
    assert!(
        found.iter().any(|f| f.place == place && f.message == text),
        "{found:?}"
    );
    assert!(!faults(&mapped(&["y"], 7)).is_empty());
}
