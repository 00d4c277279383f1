//! Models that are deep: chains of thousands of nodes, values used again and again, bodies and calls that nest. What
//! walks them must take a stack and a time that do not depend on how deep they are, or refuse them by a typed error.
//! Tests run on threads of 2 MiB, a quarter of what a program's first thread has; time that grows as it must not shows
//! as a test without an end.

mod build;

use build::{BOOL, F32, I64, body, graph, int, ints};
use lapidary::{Class, Error, Model, Options, Output, Tensor};
use lapidary_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto,
};
use prost::Message;

// ---- models --------------------------------------------------------------------------------------

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: format!("/{op}/{output}"),
        ..build::node(op, inputs, &[output], Vec::new())
    }
}

fn with(mut node: NodeProto, attributes: Vec<AttributeProto>) -> NodeProto {
    node.attribute = attributes;
    node
}

fn value(name: &str, dtype: i32, dims: &[&str]) -> ValueInfoProto {
    build::value(name, dtype, Some(dims))
}

fn i64s(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: I64,
        dims: vec![values.len() as i64],
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: domain.into(),
        version,
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 10,
        opset_import: vec![import("", 21)],
        graph: Some(graph),
        ..Default::default()
    }
}

/// `x0` to `xn`, each made from the ones before by a step.
fn chain(
    n: usize,
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    output: (i32, &[&str]),
    step: &dyn Fn(&str, &str, &str) -> NodeProto,
) -> ModelProto {
    let name = |i: usize| format!("x{i}");
    let nodes = (0..n).map(|i| step(&name(i.saturating_sub(1)), &name(i), &name(i + 1)));
    let last = vec![value(&name(n), output.0, output.1)];
    model(graph(inputs, constants, nodes.collect(), last))
}

/// A model through check, compilation and a run.
fn run_bytes(bytes: Vec<u8>, inputs: &[(&str, Tensor)]) -> Result<Vec<Output>, Error> {
    let model = Model::from_bytes(bytes, None)?;
    let options = Options {
        threads: 1,
        memory_limit: Some(1 << 30),
        ..Options::default()
    };
    // What strict rules say of it is another matter: that they say it is what counts.
    if let Err(error) = model.validate(&options) {
        assert_ne!(error.class(), Class::Other, "{error}");
    }
    let compiled = model.compile(&options)?;
    compiled.run(inputs.iter().map(|(name, tensor)| (*name, tensor)))
}

fn run(model: &ModelProto, inputs: &[(&str, Tensor)]) -> Vec<Output> {
    let result = run_bytes(model.encode_to_vec(), inputs);
    result.unwrap_or_else(|error| panic!("{}", short(&error)))
}

/// It is refused, with these words.
fn refused(bytes: Vec<u8>, inputs: &[(&str, Tensor)], class: Class, words: &str) {
    let error = run_bytes(bytes, inputs).expect_err("it is refused");
    assert!(
        error.class() == class && error.to_string().contains(words),
        "{}",
        short(&error)
    );
}

fn short(error: &Error) -> String {
    error.to_string().chars().take(400).collect()
}

fn f32s(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(dims, values).expect("elements for the dims")
}

fn numbers(values: &[i64]) -> Tensor {
    Tensor::from_slice(&[values.len()], values).expect("elements for the dims")
}

fn floats_of(outputs: &[Output]) -> Vec<f32> {
    let tensor = &outputs[0].tensor;
    tensor.as_slice::<f32>().expect("floats").to_vec()
}

fn ints_of(outputs: &[Output]) -> Vec<i64> {
    let tensor = &outputs[0].tensor;
    tensor.as_slice::<i64>().expect("integers").to_vec()
}

/// Nodes of a long chain.
const LONG: usize = 5_000;

// ---- chains --------------------------------------------------------------------------------------

#[test]
fn chains_of_one_operand_run() {
    for (op, expected) in [
        ("Neg", [1.5, -2.0]),
        ("Sign", [1.0, -1.0]),
        ("Floor", [1.0, -2.0]),
    ] {
        let m = chain(
            LONG,
            vec![value("x0", F32, &["n"])],
            vec![],
            (F32, &["n"]),
            &|_, a, y| node(op, &[a], y),
        );
        let found = run(&m, &[("x0", f32s(&[2], &[1.5, -2.0]))]);
        assert_eq!(floats_of(&found), expected, "{op}");
    }
}

/// What a chain of two operands gives for integers, by the same rule in plain code.
fn integers(op: &str, n: usize, rule: impl Fn(i64, i64) -> i64) {
    // Each reads the two before it, which doubles the paths with each node, or the one before it and the input.
    for before in [true, false] {
        let m = chain(
            n,
            vec![value("x0", I64, &["n"])],
            vec![],
            (I64, &["n"]),
            &|b, a, y| node(op, &[a, if before { b } else { "x0" }], y),
        );
        let begin = [3, 5, -2];
        let expected: Vec<i64> = begin
            .iter()
            .map(|x| {
                let mut pair = (*x, *x);
                for _ in 0..n {
                    let b = if before { pair.0 } else { *x };
                    pair = (pair.1, rule(pair.1, b));
                }
                pair.1
            })
            .collect();
        assert_eq!(
            ints_of(&run(&m, &[("x0", numbers(&begin))])),
            expected,
            "{op} {before}"
        );
    }
}

#[test]
fn values_read_twice_are_computed_once() {
    integers("Add", LONG, i64::wrapping_add);
    integers("Mul", LONG, i64::wrapping_mul);
    integers("Max", LONG, i64::max);
    integers("Sub", LONG, i64::wrapping_sub);
}

#[test]
fn powers_of_integers_in_a_chain_run() {
    // Some four hundred scalar operations each.
    integers("Pow", 600, |x, y| match y {
        0.. => (0..64).rev().fold(1, |power: i64, bit| {
            let square = power.wrapping_mul(power);
            if y >> bit & 1 == 1 {
                square.wrapping_mul(x)
            } else {
                square
            }
        }),
        _ => match x {
            1 => 1,
            -1 => 1 - 2 * (y & 1),
            _ => 0,
        },
    });
}

#[test]
fn chains_of_choices_run() {
    let inputs = vec![value("x0", F32, &["n"]), value("c", BOOL, &["n"])];
    let m = chain(LONG, inputs, vec![], (F32, &["n"]), &|b, a, y| {
        node("Where", &["c", a, b], y)
    });
    let c = Tensor::from_slice(&[2], &[true, false]).expect("two");
    let found = run(&m, &[("x0", f32s(&[2], &[1.0, -2.0])), ("c", c)]);
    assert_eq!(floats_of(&found), [1.0, -2.0]);
}

#[test]
fn chains_of_moves_and_rows_run() {
    let six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let long = |op: &str, n: usize, list: Option<&[i64]>, attributes: &[AttributeProto]| {
        let constants = list.map(|l| i64s("list", l)).into_iter().collect();
        let m = chain(
            n,
            vec![value("x0", F32, &["n", "m"])],
            constants,
            (F32, &["a", "b"]),
            &|_, a, y| {
                let inputs: Vec<&str> = std::iter::once(a).chain(list.map(|_| "list")).collect();
                with(node(op, &inputs, y), attributes.to_vec())
            },
        );
        floats_of(&run(&m, &[("x0", f32s(&[2, 3], &six))]))
    };
    assert_eq!(long("Transpose", LONG, None, &[ints("perm", &[1, 0])]), six);
    assert_eq!(long("Reshape", LONG, Some(&[-1, 2]), &[]), six);
    assert_eq!(long("Expand", LONG, Some(&[1, 1]), &[]), six);
    assert_eq!(
        long("Gather", 1_000, Some(&[1, 0]), &[]),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
    assert_eq!(long("Pad", 1_000, Some(&[1, 0, -1, 0]), &[]), [0.0; 6]);
    let rows = long("Softmax", 1_000, None, &[]);
    assert!(
        rows.iter().all(|v| (v - 1.0 / 3.0).abs() < 1e-6),
        "{rows:?}"
    );
}

#[test]
fn many_operands_of_one_node_run() {
    let n = 3_000;
    let inputs: Vec<ValueInfoProto> = (0..n)
        .map(|i| value(&format!("x{i}"), F32, &["n"]))
        .collect();
    let names: Vec<&str> = inputs.iter().map(|v| v.name.as_str()).collect();
    for (op, expected) in [("Sum", n as f32), ("Max", 1.0)] {
        let output = vec![value("y", F32, &["n"])];
        let m = model(graph(
            inputs.clone(),
            vec![],
            vec![node(op, &names, "y")],
            output,
        ));
        let given: Vec<(&str, Tensor)> = names.iter().map(|n| (*n, f32s(&[1], &[1.0]))).collect();
        assert_eq!(floats_of(&run(&m, &given)), [expected], "{op}");
    }
}

// ---- sizes ---------------------------------------------------------------------------------------

#[test]
fn a_size_that_is_too_long_a_formula_is_refused() {
    let strided = |_: &str, a: &str, y: &str| {
        let attributes = vec![
            ints("kernel_shape", &[3]),
            ints("strides", &[2]),
            ints("pads", &[1, 1]),
        ];
        with(node("MaxPool", &[a], y), attributes)
    };
    let dims = ["1", "1", "n"];
    let x = f32s(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let m = chain(
        100,
        vec![value("x0", F32, &dims)],
        vec![],
        (F32, &dims),
        &strided,
    );
    assert_eq!(floats_of(&run(&m, &[("x0", x.clone())])), [3.0]);
    let m = chain(
        LONG,
        vec![value("x0", F32, &dims)],
        vec![],
        (F32, &dims),
        &strided,
    );
    refused(m.encode_to_vec(), &[("x0", x)], Class::Unsupported, "--dim");
}

/// A shape that so many steps compute from the sizes `x0` and `m` of an input; what it has at the sizes 1 and 1.
fn computed_sizes(n: usize, step: &dyn Fn(&str, &str, &mut Vec<NodeProto>)) {
    let part = |name: &str, from: i64, to: i64| {
        with(
            node("Shape", &["x"], name),
            vec![int("start", from), int("end", to)],
        )
    };
    let mut nodes = vec![part("x0", 0, 1), part("m", 1, 2)];
    for i in 0..n {
        step(&format!("x{i}"), &format!("x{}", i + 1), &mut nodes);
    }
    nodes.push(node("Min", &[&format!("x{n}"), "m"], "least"));
    nodes.push(with(
        node("Concat", &["least", "m"], "shape"),
        vec![int("axis", 0)],
    ));
    nodes.push(node("Expand", &["x", "shape"], "y"));
    let inputs = vec![value("x", F32, &["n", "m"])];
    let m = model(graph(
        inputs,
        vec![i64s("one", &[1])],
        nodes,
        vec![value("y", F32, &["a", "b"])],
    ));
    assert_eq!(floats_of(&run(&m, &[("x", f32s(&[1, 1], &[7.0]))])), [7.0]);
}

#[test]
fn sizes_computed_by_long_arithmetic_run() {
    for n in [30, 2_000] {
        computed_sizes(n, &|a, y, nodes| nodes.push(node("Mul", &[a, a], y)));
        // Twice the formula before it, which doubles with each step.
        computed_sizes(n, &|a, y, nodes| {
            let (q, r) = (format!("{y}q"), format!("{y}r"));
            nodes.push(node("Div", &[a, "m"], &q));
            nodes.push(node("Mod", &[a, "m"], &r));
            nodes.push(node("Add", &[&q, &r], y));
        });
        computed_sizes(n, &|a, y, nodes| {
            let (q, r) = (format!("{y}q"), format!("{y}r"));
            nodes.push(node("Add", &[a, "m"], &q));
            nodes.push(node("Mul", &[a, &q], &r));
            nodes.push(node("Min", &[&r, "m"], y));
        });
        computed_sizes(n, &|a, y, nodes| {
            let q = format!("{y}q");
            nodes.push(node("Div", &[a, "m"], &q));
            nodes.push(node("Max", &[&q, "one"], y));
        });
    }
}

#[test]
fn products_of_sixteen_sums_of_sizes_run() {
    let names: Vec<String> = (0..16).map(|i| format!("n{i}")).collect();
    let dims: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut inputs, mut nodes, mut axes) = (vec![value("x", F32, &dims)], vec![], vec![]);
    let mut last = "x".to_string();
    for a in 0..16 {
        axes.push(i64s(&format!("axis{a}"), &[a]));
        for k in 0..2 {
            let name = |what: &str| format!("{what}{k}_{a}");
            inputs.push(value(&name("v"), F32, &[&name("m")]));
            nodes.push(node("Shape", &[&name("v")], &name("s")));
            let pads = with(
                node("Concat", &[&name("s"), &name("s")], &name("p")),
                vec![int("axis", 0)],
            );
            nodes.push(pads);
            nodes.push(node(
                "Pad",
                &[&last, &name("p"), "", &format!("axis{a}")],
                &name("y"),
            ));
            last = name("y");
        }
    }
    nodes.push(node("Neg", &[&last], "y"));
    let m = model(graph(
        inputs.clone(),
        axes,
        nodes,
        vec![value("y", F32, &dims)],
    ));
    let mut given = vec![("x", f32s(&[1; 16], &[2.0]))];
    given.extend(
        inputs[1..]
            .iter()
            .map(|v| (v.name.as_str(), f32s(&[0], &[]))),
    );
    assert_eq!(floats_of(&run(&m, &given)), [-2.0]);
}

#[test]
fn a_tensor_without_elements_may_have_any_other_size() {
    const HUGE: usize = 1 << 61;
    for dims in [[0, HUGE], [HUGE, 0]] {
        let text = dims.map(|d| d.to_string());
        let text = [text[0].as_str(), text[1].as_str()];
        for op in ["Relu", "Identity", "Transpose", "Softmax"] {
            let x = vec![value("x", F32, &text)];
            let m = model(graph(
                x,
                vec![],
                vec![node(op, &["x"], "y")],
                vec![value("y", F32, &["a", "b"])],
            ));
            let found = run(&m, &[("x", f32s(&dims, &[]))]);
            let mut expected = dims;
            if op == "Transpose" {
                expected.reverse();
            }
            assert_eq!(found[0].tensor.shape(), expected, "{op}");
        }
    }
}

// ---- nesting -------------------------------------------------------------------------------------

fn nested_branches(depth: usize) -> ModelProto {
    let last = |name: &str| vec![value(name, F32, &["n"])];
    let mut inner = graph(vec![], vec![], vec![node("Neg", &["x"], "y0")], last("y0"));
    for d in 1..=depth {
        let (y, z) = (format!("y{d}"), format!("z{d}"));
        let other = graph(vec![], vec![], vec![node("Abs", &["x"], &z)], last(&z));
        let branches = vec![body("then_branch", inner), body("else_branch", other)];
        inner = graph(
            vec![],
            vec![],
            vec![with(node("If", &["c"], &y), branches)],
            last(&y),
        );
    }
    inner.input = vec![value("x", F32, &["n"]), value("c", BOOL, &[])];
    model(inner)
}

/// Loops of one run each, whose carried values change their size.
fn nested_loops(depth: usize) -> ModelProto {
    let mut nodes = vec![node("Neg", &["x"], "y0")];
    for d in 1..=depth {
        let name = |what: &str| format!("{what}{d}");
        nodes.push(node("Identity", &[&name("on")], &name("next")));
        let joined = [name("v"), format!("y{}", d - 1)];
        let joined = node("Concat", &[&joined[0], &joined[1]], &name("s"));
        nodes.push(with(joined, vec![int("axis", 0)]));
        let inputs = vec![
            value(&name("i"), I64, &[]),
            value(&name("on"), BOOL, &[]),
            value(&name("v"), F32, &["n"]),
        ];
        let outputs = vec![
            value(&name("next"), BOOL, &[]),
            value(&name("s"), F32, &["m"]),
        ];
        let inside = graph(inputs, vec![], nodes, outputs);
        nodes = vec![with(
            node("Loop", &["trip", "", "x"], &name("y")),
            vec![body("body", inside)],
        )];
    }
    let inputs = vec![value("x", F32, &["n"]), value("trip", I64, &[])];
    model(graph(
        inputs,
        vec![],
        nodes,
        vec![value(&format!("y{depth}"), F32, &["m"])],
    ))
}

#[test]
fn nested_bodies_run_as_deep_as_files_can_hold_them() {
    let x = || ("x", f32s(&[1], &[1.0]));
    let yes = || ("c", Tensor::scalar(true));
    assert_eq!(floats_of(&run(&nested_branches(30), &[x(), yes()])), [-1.0]);
    let once = ("trip", Tensor::scalar(1i64));
    let mut expected = vec![1.0; 30];
    expected.push(-1.0);
    assert_eq!(floats_of(&run(&nested_loops(30), &[x(), once])), expected);
    for bytes in [nested_branches(100), nested_loops(100)].map(|m| m.encode_to_vec()) {
        refused(bytes, &[], Class::Invalid, "recursion limit");
    }
}

/// Functions that each call the one before so many times.
fn nested_calls(depth: usize, times: usize) -> ModelProto {
    let mut m = model(graph(
        vec![value("x", F32, &["n"])],
        vec![],
        vec![],
        vec![value("y", F32, &["n"])],
    ));
    m.opset_import.push(import("own", 1));
    let call = |d: usize, input: &str, output: &str| NodeProto {
        domain: "own".into(),
        op_type: format!("F{d}"),
        ..node("F", &[input], output)
    };
    for d in 0..depth {
        let part = |t: usize| match t {
            0 => "x".to_string(),
            t if t == times => "y".to_string(),
            t => format!("t{t}"),
        };
        let nodes = (0..times).map(|t| match d {
            0 => node("Neg", &[&part(t)], &part(t + 1)),
            _ => call(d - 1, &part(t), &part(t + 1)),
        });
        m.functions.push(FunctionProto {
            name: format!("F{d}"),
            domain: "own".into(),
            input: vec!["x".into()],
            output: vec!["y".into()],
            node: nodes.collect(),
            opset_import: vec![import("", 21), import("own", 1)],
            ..Default::default()
        });
    }
    let graph = m.graph.get_or_insert_default();
    graph.node.push(call(depth - 1, "x", "y"));
    m
}

#[test]
fn calls_that_nest_too_deep_or_multiply_are_refused() {
    let x = || [("x", f32s(&[1], &[1.0]))];
    assert_eq!(floats_of(&run(&nested_calls(60, 1), &x())), [-1.0]);
    assert_eq!(floats_of(&run(&nested_calls(8, 2), &x())), [1.0]);
    refused(
        nested_calls(5_000, 1).encode_to_vec(),
        &x(),
        Class::Invalid,
        "nest deeper",
    );
    refused(
        nested_calls(60, 2).encode_to_vec(),
        &x(),
        Class::Invalid,
        "expand to more than",
    );
}

/// A message's field of bytes.
fn field(number: u8, inside: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = inside.len();
    while n > 127 {
        out.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend(inside);
    out
}

#[test]
fn types_that_nest_too_deep_are_refused() {
    let mut nested = value("x", F32, &["n"])
        .r#type
        .unwrap_or_default()
        .encode_to_vec();
    for _ in 0..10_000 {
        // TypeProto.sequence_type, and its elem_type.
        nested = field(4, &field(1, &nested));
    }
    let whole = model(graph(
        vec![],
        vec![],
        vec![node("Identity", &["x"], "y")],
        vec![],
    ));
    let mut inside = whole.graph.clone().unwrap_or_default().encode_to_vec();
    for (number, name) in [(11, "x"), (12, "y")] {
        inside.extend(field(
            number,
            &[field(1, name.as_bytes()), field(2, &nested)].concat(),
        ));
    }
    let mut bytes = ModelProto {
        graph: None,
        ..whole
    }
    .encode_to_vec();
    bytes.extend(field(7, &inside));
    refused(bytes, &[], Class::Invalid, "recursion limit");
}
