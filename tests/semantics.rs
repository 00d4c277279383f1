//! What `docs/semantics.md` says of the edges, on single operators: compiled code at every level of this machine, and the
//! interpreter, give what the page says.

use lapidary::operator::Target;
use lapidary::reference::{self, Reference};
use lapidary::{Cpu, Model, Options, OwnedValue, Tensor, pipeline};
use lapidary_onnx::proto::*;
use prost::Message;

/// A tensor of a case: f32, or i64, or i32.
#[derive(Clone)]
enum T {
    F(&'static [usize], Vec<f32>),
    L(&'static [usize], Vec<i64>),
    I(&'static [usize], Vec<i32>),
}

impl T {
    fn value(&self) -> Tensor {
        match self {
            T::F(shape, v) => Tensor::from_slice(shape, v),
            T::L(shape, v) => Tensor::from_slice(shape, v),
            T::I(shape, v) => Tensor::from_slice(shape, v),
        }
        .expect("sizes agree")
    }
    fn code(&self) -> i32 {
        match self {
            T::F(..) => 1,
            T::L(..) => 7,
            T::I(..) => 6,
        }
    }
}

fn info(name: String, code: i32, rank: Option<usize>) -> ValueInfoProto {
    let dim = tensor_shape_proto::Dimension::default();
    ValueInfoProto {
        name,
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: code,
                shape: rank.map(|n| TensorShapeProto { dim: vec![dim; n] }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A model of these nodes.
fn model_of(
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> Model {
    let proto = ModelProto {
        ir_version: 10,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 21,
        }],
        graph: Some(GraphProto {
            name: "g".into(),
            node,
            input,
            output,
            ..Default::default()
        }),
        ..Default::default()
    };
    Model::from_bytes(proto.encode_to_vec(), None).expect("the model can be read")
}

/// A model of one node. Attributes are integers.
fn model(op: &str, inputs: &[T], outputs: &[i32], attributes: &[(&str, i64)]) -> Model {
    let named = |stem: &str, n: usize| (0..n).map(|i| format!("{stem}{i}")).collect::<Vec<_>>();
    let attribute = attributes.iter().map(|(name, i)| AttributeProto {
        name: name.to_string(),
        r#type: 2,
        i: *i,
        ..Default::default()
    });
    let node = NodeProto {
        name: "the_node".into(),
        op_type: op.into(),
        input: named("x", inputs.len()),
        output: named("y", outputs.len()),
        attribute: attribute.collect(),
        ..Default::default()
    };
    let input = inputs.iter().enumerate().map(|(i, t)| {
        let rank = t.value().shape().len();
        info(format!("x{i}"), t.code(), Some(rank))
    });
    let outputs = outputs.iter().enumerate();
    let output = outputs.map(|(i, c)| info(format!("y{i}"), *c, None));
    model_of(vec![node], input.collect(), output.collect())
}

/// The results of compiled code at each level, then the interpreter's (`None`: it lacks a kernel).
fn results(model: &Model, inputs: &[T]) -> Vec<Option<Result<Vec<OwnedValue>, String>>> {
    let values: Vec<OwnedValue> = inputs
        .iter()
        .map(|t| OwnedValue::Tensor(t.value()))
        .collect();
    let mut all = Vec::new();
    for cpu in [Cpu::Native, Cpu::Baseline, Cpu::V3, Cpu::V4] {
        let options = Options {
            cpu,
            ..Options::default()
        };
        let compiled = match model.compile(&options) {
            Ok(compiled) => compiled,
            // A level that this machine lacks.
            Err(_) if cpu != Cpu::Native => continue,
            Err(error) => panic!("{error}"),
        };
        let run = compiled.context().and_then(|mut c| c.run_values(&values));
        all.push(Some(run.map_err(|e| e.to_string())));
    }
    let graph = pipeline::import(model, &Options::default(), Target::Memory).expect("it imports");
    all.push(match reference::run(&graph, &values) {
        Reference::Values(values) => Some(Ok(values)),
        Reference::Refused(why) => Some(Err(why)),
        Reference::Unknown => None,
    });
    assert!(all.len() > 1);
    all
}

/// Equal bits, but that any NaN is as good as another, and any zero.
fn same(found: &Tensor, expected: &Tensor) -> bool {
    let bits = |t: &Tensor| -> Option<Vec<u32>> {
        let floats: &[f32] = t.as_slice().ok()?;
        let bits = floats.iter().map(|v| match v {
            v if v.is_nan() => f32::NAN.to_bits(),
            v if *v == 0.0 => 0,
            v => v.to_bits(),
        });
        Some(bits.collect())
    };
    found.dtype() == expected.dtype()
        && found.shape() == expected.shape()
        && match bits(found) {
            Some(found) => Some(found) == bits(expected),
            None => found.bytes() == expected.bytes(),
        }
}

/// `op` of `inputs` gives `expected`, everywhere.
fn gives(op: &str, inputs: &[T], attributes: &[(&str, i64)], expected: &[T]) {
    let codes: Vec<i32> = expected.iter().map(T::code).collect();
    for found in results(&model(op, inputs, &codes, attributes), inputs)
        .into_iter()
        .flatten()
    {
        let found = found.unwrap_or_else(|e| panic!("{op}: {e}"));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let found = found.tensor().expect("a tensor");
            let expected = expected.value();
            assert!(
                same(found, &expected),
                "{op}, output {i}: {:?}, expected {:?}",
                found.bytes(),
                expected.bytes()
            );
        }
    }
}

/// `op` of `inputs` ends with an error that has these words in it.
fn fails(op: &str, inputs: &[T], attributes: &[(&str, i64)], output: i32, words: &[&str]) {
    for found in results(&model(op, inputs, &[output], attributes), inputs)
        .into_iter()
        .flatten()
    {
        let error = found.expect_err(op);
        assert!(words.iter().all(|w| error.contains(w)), "{op}: {error}");
    }
}

fn f(v: &[f32]) -> T {
    // Rows of different lengths are cases of their own.
    T::F(shape(v.len()), v.to_vec())
}

fn l(v: &[i64]) -> T {
    T::L(shape(v.len()), v.to_vec())
}

fn i(v: &[i32]) -> T {
    T::I(shape(v.len()), v.to_vec())
}

fn shape(n: usize) -> &'static [usize] {
    const SHAPES: [&[usize]; 10] = [&[0], &[1], &[2], &[3], &[4], &[5], &[6], &[7], &[8], &[9]];
    SHAPES[n]
}

fn scalar(v: f32) -> T {
    T::F(&[], vec![v])
}

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;
/// The least positive number of f32, a denormal.
const TINY: f32 = 1e-45;

#[test]
fn nan_goes_through_minimum_maximum_and_what_is_made_of_them() {
    let x = f(&[NAN, 1.0, -2.0, INF, -INF]);
    gives(
        "Max",
        &[x.clone(), f(&[0.0, NAN, 0.0, 0.0, 0.0])],
        &[],
        &[f(&[NAN, NAN, 0.0, INF, 0.0])],
    );
    gives(
        "Min",
        &[x.clone(), f(&[0.0, NAN, 0.0, 0.0, 0.0])],
        &[],
        &[f(&[NAN, NAN, -2.0, 0.0, -INF])],
    );
    gives(
        "Relu",
        std::slice::from_ref(&x),
        &[],
        &[f(&[NAN, 1.0, 0.0, INF, 0.0])],
    );
    gives(
        "Clip",
        &[x.clone(), scalar(-1.0), scalar(1.0)],
        &[],
        &[f(&[NAN, 1.0, -1.0, 1.0, -1.0])],
    );
    gives(
        "ReduceMax",
        std::slice::from_ref(&x),
        &[("keepdims", 1)],
        &[f(&[NAN])],
    );
    gives(
        "Sign",
        &[f(&[NAN, -0.0, -3.0])],
        &[],
        &[f(&[NAN, 0.0, -1.0])],
    );
}

#[test]
fn integer_division_and_remainders_do_not_trap() {
    let (a, b) = (
        i(&[7, -7, 7, i32::MIN, -1, 0]),
        i(&[2, 2, 0, -1, i32::MIN, 0]),
    );
    gives(
        "Div",
        &[a.clone(), b.clone()],
        &[],
        &[i(&[3, -3, 0, i32::MIN, 0, 0])],
    );
    gives(
        "Mod",
        &[a, b],
        &[],
        &[i(&[1, 1, 0, 0, i32::MIN + i32::MAX, 0])],
    );
    let (a, b) = (l(&[7, -7, 7, i64::MIN]), l(&[-2, 2, 0, -1]));
    gives(
        "Div",
        &[a.clone(), b.clone()],
        &[],
        &[l(&[-3, -3, 0, i64::MIN])],
    );
    gives("Mod", &[a.clone(), b.clone()], &[], &[l(&[-1, 1, 0, 0])]);
    gives("Mod", &[a, b], &[("fmod", 1)], &[l(&[1, -1, 0, 0])]);
    gives("Add", &[l(&[i64::MAX]), l(&[1])], &[], &[l(&[i64::MIN])]);
    gives("Abs", &[i(&[i32::MIN, -3])], &[], &[i(&[i32::MIN, 3])]);
}

#[test]
fn casts_out_of_range_saturate_and_nan_becomes_zero() {
    let x = f(&[NAN, INF, -INF, 3e9, -3e9, 1.9, -1.9, 1e20]);
    let whole = [0, i32::MAX, i32::MIN, i32::MAX, i32::MIN, 1, -1, i32::MAX];
    gives("Cast", std::slice::from_ref(&x), &[("to", 6)], &[i(&whole)]);
    let whole = [
        0,
        i64::MAX,
        i64::MIN,
        3_000_000_000,
        -3_000_000_000,
        1,
        -1,
        i64::MAX,
    ];
    gives("Cast", &[x], &[("to", 7)], &[l(&whole)]);
    gives(
        "Cast",
        &[l(&[1 << 32, (1 << 31) + 5, -1])],
        &[("to", 6)],
        &[i(&[0, i32::MIN + 5, -1])],
    );
}

#[test]
fn denormals_are_kept() {
    gives(
        "Add",
        &[f(&[TINY, f32::MIN_POSITIVE]), f(&[TINY, -TINY])],
        &[],
        &[f(&[2.0 * TINY, f32::MIN_POSITIVE - TINY])],
    );
    gives(
        "Mul",
        &[f(&[f32::MIN_POSITIVE, 1e-30]), f(&[0.5, 1e-10])],
        &[],
        &[f(&[f32::MIN_POSITIVE / 2.0, 1e-30 * 1e-10])],
    );
    gives("Neg", &[f(&[TINY])], &[], &[f(&[-TINY])]);
    gives("Div", &[f(&[TINY]), f(&[TINY])], &[], &[f(&[1.0])]);
    gives("Relu", &[f(&[TINY, -TINY])], &[], &[f(&[TINY, 0.0])]);
    gives(
        "ReduceSum",
        &[T::F(&[1, 4], vec![TINY; 4])],
        &[("keepdims", 0)],
        &[T::F(&[], vec![4.0 * TINY])],
    );
    gives(
        "MatMul",
        &[
            T::F(&[1, 2], vec![TINY, 0.0]),
            T::F(&[2, 1], vec![1.0, 1.0]),
        ],
        &[],
        &[T::F(&[1, 1], vec![TINY])],
    );
}

#[test]
fn ties_and_nan_in_a_search_for_the_greatest() {
    gives(
        "ArgMax",
        &[f(&[1.0, 3.0, 3.0, 2.0])],
        &[("keepdims", 1)],
        &[l(&[1])],
    );
    gives(
        "ArgMax",
        &[f(&[1.0, 3.0, 3.0, 2.0])],
        &[("keepdims", 1), ("select_last_index", 1)],
        &[l(&[2])],
    );
    gives(
        "ArgMin",
        &[f(&[2.0, 1.0, 1.0])],
        &[("keepdims", 1)],
        &[l(&[1])],
    );
    gives(
        "ArgMax",
        &[f(&[1.0, NAN, 2.0])],
        &[("keepdims", 1)],
        &[l(&[2])],
    );
    gives(
        "ArgMax",
        &[f(&[NAN, 1.0, 2.0])],
        &[("keepdims", 1)],
        &[l(&[0])],
    );
    let x = f(&[2.0, 5.0, 2.0, 5.0, NAN]);
    gives(
        "TopK",
        &[x.clone(), l(&[3])],
        &[],
        &[f(&[NAN, 5.0, 5.0]), l(&[4, 1, 3])],
    );
    gives(
        "TopK",
        &[x, l(&[3])],
        &[("largest", 0)],
        &[f(&[2.0, 2.0, 5.0]), l(&[0, 2, 1])],
    );
}

#[test]
fn reductions_over_nothing_have_a_value() {
    let none = T::F(&[2, 0], vec![]);
    let axes = l(&[1]);
    let all = |v: f32| [f(&[v, v])];
    for (op, v) in [
        ("ReduceSum", 0.0),
        ("ReduceProd", 1.0),
        ("ReduceMax", -INF),
        ("ReduceMin", INF),
        ("ReduceMean", NAN),
        ("ReduceL1", 0.0),
        ("ReduceL2", 0.0),
        ("ReduceSumSquare", 0.0),
        ("ReduceLogSum", -INF),
        ("ReduceLogSumExp", -INF),
    ] {
        gives(
            op,
            &[none.clone(), axes.clone()],
            &[("keepdims", 0)],
            &all(v),
        );
    }
    let none = T::L(&[2, 0], vec![]);
    let (max, min) = ([l(&[i64::MIN; 2])], [l(&[i64::MAX; 2])]);
    gives(
        "ReduceMax",
        &[none.clone(), axes.clone()],
        &[("keepdims", 0)],
        &max,
    );
    gives("ReduceMin", &[none, axes], &[("keepdims", 0)], &min);
}

#[test]
fn roots_and_logarithms_of_integers_are_truncated() {
    let x = T::L(&[2, 2], vec![1, 2, 3, 40]);
    for (op, expected) in [
        ("ReduceL2", [2, 40]),
        ("ReduceLogSum", [1, 3]),
        ("ReduceLogSumExp", [2, 40]),
    ] {
        gives(
            op,
            &[x.clone(), l(&[1])],
            &[("keepdims", 0)],
            &[l(&expected)],
        );
    }
}

#[test]
fn a_bad_index_ends_the_run_with_the_node_and_the_index() {
    let x = f(&[1.0, 2.0, 3.0]);
    gives(
        "Gather",
        &[x.clone(), l(&[-1, -3, 2])],
        &[],
        &[f(&[3.0, 1.0, 3.0])],
    );
    for bad in [3, -4, i64::MAX, i64::MIN] {
        fails(
            "Gather",
            &[x.clone(), l(&[0, bad])],
            &[],
            1,
            &["the_node", &bad.to_string()],
        );
        fails(
            "GatherElements",
            &[x.clone(), l(&[bad])],
            &[],
            1,
            &["the_node", &bad.to_string()],
        );
        fails(
            "ScatterElements",
            &[x.clone(), l(&[bad]), f(&[0.0])],
            &[],
            1,
            &["the_node", &bad.to_string()],
        );
    }
}

#[test]
fn halves_go_to_the_nearest_even_number() {
    gives(
        "Round",
        &[f(&[0.5, 1.5, 2.5, -0.5, -1.5])],
        &[],
        &[f(&[0.0, 2.0, 2.0, -0.0, -2.0])],
    );
    // 2049 lies between two numbers of f16, 2051 as well; 65520 is the first that overflows.
    let x = f(&[2049.0, 2051.0, 65519.0, 65520.0, 6e-8, 2e-8]);
    let narrow = [2048.0, 2052.0, 65504.0, INF, 5.960_464_5e-8, 0.0];
    let model = through(&[10], &x);
    let inputs = [x.clone()];
    for found in results(&model, &inputs).into_iter().flatten() {
        let found = found.expect("it runs");
        let found = found[0].tensor().expect("a tensor");
        assert!(same(found, &f(&narrow).value()), "{:?}", found.bytes());
    }
}

/// Casts to each type in turn, and back to f32.
fn through(codes: &[i32], x: &T) -> Model {
    let cast = |k: usize, to: i32| NodeProto {
        name: format!("cast_{k}"),
        op_type: "Cast".into(),
        input: vec![format!("v{k}")],
        output: vec![format!("v{}", k + 1)],
        attribute: vec![AttributeProto {
            name: "to".into(),
            r#type: 2,
            i: to.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut node: Vec<NodeProto> = codes.iter().enumerate().map(|(k, c)| cast(k, *c)).collect();
    node.push(cast(codes.len(), 1));
    let input = vec![info("v0".into(), x.code(), Some(1))];
    let output = vec![info(format!("v{}", codes.len() + 1), 1, None)];
    model_of(node, input, output)
}
