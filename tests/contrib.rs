//! Operators of onnxruntime's own domain, against onnxruntime: each case in memory, with free dims, in the interpreter
//! of graphs, and some as libraries. `python/make_contrib.py` makes the cases.

use std::path::Path;

use lapidary::case::DataSet;
use lapidary::compare::Tolerance;
use lapidary::operator::Target;
use lapidary::pipeline;
use lapidary::{Compiled, Cpu, Model, Options, OwnedValue, Tensor};
use lapidary_graph::{DType, TensorData, interp};
use lapidary_onnx::proto::*;
use prost::Message;
use suite::{Case, Suite};

#[path = "conformance/suite.rs"]
#[allow(dead_code)] // other programs read all of a case
mod suite;

/// Of so many cases one is compiled to a library.
const LIBRARY_SAMPLE: usize = 6;

fn suite() -> Suite {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suite = Suite::load(&[root.join("tests/contrib/suite.bin")]);
    assert!(suite.producers[0].starts_with("onnxruntime "));
    suite
}

/// Runs the cases that `chosen` takes; the failures of all of them.
fn check(chosen: impl Fn(usize) -> bool, run: impl Fn(&Suite, &Case) -> Result<(), String>) {
    let suite = suite();
    let cases = suite.cases.iter().enumerate().filter(|(i, _)| chosen(*i));
    let failures: Vec<String> = cases
        .filter_map(|(_, case)| {
            let error = run(&suite, case).err()?;
            Some(format!("{}: {error}", case.name))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Compares what every data set gives.
fn judge(
    suite: &Suite,
    case: &Case,
    model: &Model,
    tolerance: Tolerance,
    run: impl Fn(&[OwnedValue]) -> Result<Vec<OwnedValue>, String>,
) -> Result<(), String> {
    let names = model.output_names();
    let sets = suite.sets(case, model).map_err(|e| e.to_string())?;
    for (number, set) in sets.iter().enumerate() {
        let found = run(&set.inputs).map_err(|e| format!("set {number}: {e}"))?;
        if let Err(wrong) = set.judge(&found, &names, tolerance) {
            return Err(format!(
                "set {number}: '{}': {}",
                wrong[0].name, wrong[0].mismatch
            ));
        }
    }
    Ok(())
}

fn compiled(suite: &Suite, case: &Case, options: &Options) -> Result<(), String> {
    let text = |e: lapidary::Error| e.to_string();
    let model = suite.model(case).map_err(text)?;
    let compiled = model.compile(options).map_err(text)?;
    judge(suite, case, &model, case.tolerance, |inputs| {
        let mut context = compiled.context().map_err(text)?;
        context.run_values(inputs).map_err(text)
    })
}

#[test]
fn cases_are_right_in_memory() {
    for threads in [1, 2] {
        let options = Options {
            threads,
            ..Options::default()
        };
        check(|_| true, |suite, case| compiled(suite, case, &options));
    }
}

#[test]
fn cases_are_right_with_free_dims() {
    let options = Options {
        threads: 1,
        symbolic: true,
        ..Options::default()
    };
    check(|_| true, |suite, case| compiled(suite, case, &options));
}

/// Generated code and library kernels, with the instructions of each level that this machine has.
#[test]
fn cases_are_right_at_each_level() {
    for cpu in [Cpu::Baseline, Cpu::V3, Cpu::V4] {
        if !cpu.runs_here() {
            continue;
        }
        let options = Options {
            threads: 1,
            cpu,
            ..Options::default()
        };
        check(
            |_| true,
            |suite, case| compiled(suite, case, &options).map_err(|e| format!("{cpu:?}: {e}")),
        );
    }
}

#[test]
fn cases_are_right_as_libraries() {
    let folder = std::env::temp_dir().join(format!("lapidary-contrib-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let options = Options {
        threads: 2,
        ..Options::default()
    };
    let whole: Vec<bool> = suite().cases.iter().map(|c| c.kind() == "model").collect();
    check(
        |i| i % LIBRARY_SAMPLE == 0 || whole[i],
        |suite, case| {
            let text = |e: lapidary::Error| e.to_string();
            let path = folder.join(format!("{}.so", case.name.replace('/', "-")));
            let model = suite.model(case).map_err(text)?;
            model.compile_library(&path, None, &options).map_err(text)?;
            let compiled = Compiled::open_library(&path, &options).map_err(text)?;
            judge(suite, case, &model, case.tolerance, |inputs| {
                let mut context = compiled.context().map_err(text)?;
                context.run_values(inputs).map_err(text)
            })
        },
    );
    let _ = std::fs::remove_dir_all(&folder);
}

/// What a graph means, apart from how it is lowered. Calls of library kernels have no meaning there.
#[test]
fn cases_are_right_in_the_interpreter() {
    let skipped = std::cell::Cell::new(0);
    check(
        |_| true,
        |suite, case| {
            let text = |e: lapidary::Error| e.to_string();
            let model = suite.model(case).map_err(text)?;
            let graph =
                pipeline::import(&model, &Options::default(), Target::Memory).map_err(text)?;
            judge(suite, case, &model, case.tolerance, |inputs| {
                let inputs: Vec<TensorData> = inputs.iter().filter_map(to_graph).collect();
                match interp::run(&graph, &inputs) {
                    Ok(found) => Ok(found.iter().filter_map(from_graph).collect()),
                    Err(e) => Err(e.to_string()),
                }
            })
            .or_else(|e| match e.contains("library") {
                true => {
                    skipped.set(skipped.get() + 1);
                    Ok(())
                }
                false => Err(e),
            })
        },
    );
    let all = suite().cases.len();
    assert!(
        skipped.get() * 2 < all,
        "{} of {all} cases ran",
        all - skipped.get()
    );
}

fn to_graph(value: &OwnedValue) -> Option<TensorData> {
    let tensor = value.tensor()?;
    Some(TensorData {
        dtype: DType::from_onnx(tensor.dtype() as i32)?,
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        bytes: tensor.bytes().to_vec().into(),
        strings: Vec::new(),
    })
}

fn from_graph(data: &TensorData) -> Option<OwnedValue> {
    let dtype = lapidary::DType::from_onnx(data.dtype as i32)?;
    let shape: Vec<usize> = data.dims.iter().map(|d| *d as usize).collect();
    let tensor = Tensor::from_bytes(dtype, &shape, &data.bytes).ok()?;
    Some(OwnedValue::Tensor(tensor))
}

/// An attribute's value.
#[derive(Clone, Copy)]
enum Value {
    Int(i64),
    Text(&'static str),
}
use Value::{Int, Text};

const F32: i32 = 1;
const U8: i32 = 2;
const I32: i32 = 6;

/// A model of one node `the_node`, whose inputs are the graph's; a type of 0 is an input that is left out.
fn model(op: &str, inputs: &[(i32, &[i64])], attributes: &[(&str, Value)]) -> Model {
    let name = |i: usize| match inputs[i].0 {
        0 => String::new(),
        _ => format!("i{i}"),
    };
    let typed = |name: String, elem_type: i32, dims: Option<&[i64]>| ValueInfoProto {
        name,
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type,
                shape: dims.map(|dims| TensorShapeProto {
                    dim: dims
                        .iter()
                        .map(|d| tensor_shape_proto::Dimension {
                            value: Some(tensor_shape_proto::dimension::Value::DimValue(*d)),
                            ..Default::default()
                        })
                        .collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let node = NodeProto {
        name: "the_node".into(),
        op_type: op.into(),
        domain: "com.microsoft".into(),
        input: (0..inputs.len()).map(name).collect(),
        output: vec!["y".into(), "k".into(), "v".into()]
            [..1 + 2 * usize::from(op == "GroupQueryAttention")]
            .to_vec(),
        attribute: attributes
            .iter()
            .map(|(name, value)| {
                let mut attribute = AttributeProto {
                    name: name.to_string(),
                    ..Default::default()
                };
                match value {
                    Int(i) => (attribute.r#type, attribute.i) = (2, *i),
                    Text(s) => (attribute.r#type, attribute.s) = (3, s.as_bytes().into()),
                }
                attribute
            })
            .collect(),
        ..Default::default()
    };
    let given = inputs.iter().enumerate().filter(|(_, i)| i.0 != 0);
    let graph = GraphProto {
        name: "refused".into(),
        input: given
            .map(|(i, (t, dims))| typed(name(i), *t, Some(dims)))
            .collect(),
        output: node
            .output
            .iter()
            .map(|o| typed(o.clone(), F32, None))
            .collect(),
        node: vec![node],
        ..Default::default()
    };
    // The domain of the node is not imported: it counts as if it were.
    let model = ModelProto {
        ir_version: 9,
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
fn what_is_not_taken_is_refused_by_name() {
    let weights: &[(i32, &[i64])] = &[(F32, &[2, 64]), (U8, &[8, 2, 16]), (F32, &[8, 2])];
    let nbits = |bits: i64, block: i64| {
        vec![
            ("K", Int(64)),
            ("N", Int(8)),
            ("bits", Int(bits)),
            ("block_size", Int(block)),
        ]
    };
    let heads: &[(i32, &[i64])] = &[
        (F32, &[1, 2, 32]),
        (F32, &[1, 2, 16]),
        (F32, &[1, 2, 16]),
        (F32, &[1, 2, 0, 8]),
        (F32, &[1, 2, 0, 8]),
        (I32, &[1]),
        (I32, &[1]),
    ];
    let group = |more: &[(&'static str, Value)]| {
        [&[("num_heads", Int(4)), ("kv_num_heads", Int(2))], more].concat()
    };
    type Refused<'a> = (
        &'a str,
        &'a [(i32, &'a [i64])],
        Vec<(&'static str, Value)>,
        &'a str,
    );
    let cases: &[Refused] = &[
        (
            "MatMulNBits",
            weights,
            nbits(3, 32),
            "attribute 'bits' is 3",
        ),
        (
            "MatMulNBits",
            weights,
            nbits(4, 24),
            "attribute 'block_size' is 24",
        ),
        (
            "MatMulNBits",
            weights,
            nbits(4, 64),
            "input 2 ('scales') has 16 elements, expected 8",
        ),
        (
            "MatMulNBits",
            weights,
            nbits(8, 32),
            "input 1 ('B') has 256 elements, expected 512",
        ),
        (
            "MatMulNBits",
            weights,
            vec![("K", Int(64))],
            "'N' is missing",
        ),
        (
            "MatMulNBits",
            &[(F32, &[2, 64]), (F32, &[8, 2, 16]), (F32, &[8, 2])],
            nbits(4, 32),
            "input 1 ('B') is tensor(float)",
        ),
        (
            "GroupQueryAttention",
            heads,
            vec![("num_heads", Int(4)), ("kv_num_heads", Int(3))],
            "'kv_num_heads' 3",
        ),
        (
            "GroupQueryAttention",
            heads,
            group(&[("sliding_window_cache", Int(1))]),
            "'sliding_window_cache' is 1",
        ),
        (
            "GroupQueryAttention",
            heads,
            group(&[("do_rotary", Int(1))]),
            "'cos_cache'",
        ),
        (
            "GroupQueryAttention",
            heads,
            group(&[("k_quant_type", Text("PER_TENSOR"))]),
            "'k_quant_type' is 'PER_TENSOR'",
        ),
        (
            "MultiHeadAttention",
            &[(F32, &[1, 2, 32])],
            vec![("num_heads", Int(4))],
            "'query', 'key' and 'value' of ranks",
        ),
        (
            "MultiHeadAttention",
            &heads[..3],
            vec![("num_heads", Int(5))],
            "5 heads",
        ),
        (
            "FastGelu",
            &heads[..1],
            vec![("frobnicate", Int(1))],
            "no such attribute",
        ),
        (
            "FusedGemm",
            &[(F32, &[2, 3]), (F32, &[3, 4])],
            vec![("activation", Text("Mystery"))],
            "'activation' is 'Mystery'",
        ),
        ("Frobnicate", &heads[..1], vec![], "not implemented"),
    ];
    for (op, inputs, attributes, expected) in cases {
        let made = model(op, inputs, attributes).compile(&Options::default());
        let error = made.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.contains("the_node") && error.contains(expected),
            "{op}, expected {expected}: {error}"
        );
    }
}

/// Lengths that do not fit the cache end the run, whatever they are.
#[test]
fn positions_outside_of_the_cache_end_the_run() {
    let inputs: &[(i32, &[i64])] = &[
        (F32, &[1, 2, 32]),
        (F32, &[1, 2, 16]),
        (F32, &[1, 2, 16]),
        (F32, &[1, 2, 3, 8]),
        (F32, &[1, 2, 3, 8]),
        (I32, &[1]),
        (I32, &[1]),
    ];
    let attributes = [("num_heads", Int(4)), ("kv_num_heads", Int(2))];
    let compiled = model("GroupQueryAttention", inputs, &attributes)
        .compile(&Options::default())
        .expect("it compiles");
    let run = |length: i32, total: i32| {
        let floats = |dims: &[usize]| {
            let n = dims.iter().product();
            Tensor::from_slice(dims, &vec![0.5f32; n]).expect("a tensor")
        };
        let int = |v: i32| Tensor::from_slice(&[1], &[v]).expect("a tensor");
        let mut context = compiled.context().expect("a context");
        let found = context.run_tensors(&[
            floats(&[1, 2, 32]),
            floats(&[1, 2, 16]),
            floats(&[1, 2, 16]),
            floats(&[1, 2, 3, 8]),
            floats(&[1, 2, 3, 8]),
            int(length),
            int(total),
        ]);
        found
            .map(|f| f[1].shape().to_vec())
            .map_err(|e| e.to_string())
    };
    assert_eq!(run(4, 5), Ok(vec![1, 2, 5, 8]));
    for (length, total) in [
        (9, 5),
        (-7, 5),
        (i32::MAX, 5),
        (i32::MIN, 5),
        (4, -1),
        (4, i32::MIN),
    ] {
        let error = run(length, total).expect_err("it does not fit");
        assert!(error.contains("the_node"), "{length}, {total}: {error}");
    }
}

/// A decoder whose caches stay in the context gives what it gives when they are handed over.
#[test]
fn caches_are_states() {
    let suite = suite();
    let case = suite.cases.iter().find(|c| c.name == "model/decoder");
    let case = case.expect("the decoder is there");
    let model = suite.model(case).expect("the model decodes");
    let mut options = Options {
        threads: 1,
        ..Options::default()
    };
    options.set_state("past*=present*").expect("states");
    let compiled = model.compile(&options).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    let names = model.output_names();
    for set in suite.sets(case, &model).expect("data sets") {
        let tensor = |i: usize| set.inputs[i].tensor().expect("a tensor");
        let found = context
            .run([("ids", tensor(0)), ("mask", tensor(1))])
            .expect("a step");
        let logits = DataSet {
            inputs: Vec::new(),
            outputs: vec![set.outputs[0].clone()],
            ..set.clone()
        };
        let found = vec![OwnedValue::Tensor(found[0].tensor.clone())];
        let judged = logits.judge(&found, &names[..1], case.tolerance);
        assert!(judged.is_ok(), "set {}: {judged:?}", set.name);
    }
}

/// Dequantized weights stay as small as the model has them, where the kernel of few bits takes them.
#[test]
fn dequantized_weights_stay_packed() {
    let suite = suite();
    let cases = suite.cases.iter();
    let cases: Vec<&Case> = cases.filter(|c| c.name.contains("/dq_")).collect();
    assert!(cases.len() > 10);
    for case in cases {
        let packed = calls(&suite, case, "matmul_nbits");
        assert_eq!(packed, case.name.ends_with("_packed"), "{}", case.name);
    }
}

/// Whether the imported case calls a library kernel.
fn calls(suite: &Suite, case: &Case, kernel: &str) -> bool {
    let model = suite.model(case).expect("the model decodes");
    let graph = pipeline::import(&model, &Options::default(), Target::Memory);
    let graph = graph.expect("it is imported");
    let mut nodes = graph.nodes.values();
    nodes.any(|n| matches!(&n.op, lapidary_graph::Op::Library(call) if call.name == kernel))
}

/// Bytes that are multiplied with constants take the kernels for that, in one group, where pads are numbers.
#[test]
fn products_of_bytes_take_their_kernels() {
    let suite = suite();
    let mut count = 0;
    for case in suite.cases.iter().filter(|c| c.name.contains("_deep_")) {
        let conv = case.name.contains("conv");
        let kernel = if conv { "conv_bytes" } else { "matmul_bytes" };
        let other = ["groups", "same"].iter().any(|n| case.name.contains(n));
        assert_eq!(calls(&suite, case, kernel), !other, "{}", case.name);
        count += 1;
    }
    assert!(count > 20);
}

/// Negative ids and positions are no places counted from the end: they end the run, as they do in onnxruntime.
#[test]
fn negative_ids_and_positions_end_the_run() {
    const I64: i32 = 7;
    let rotary: &[(i32, &[i64])] = &[
        (F32, &[1, 2, 16]),
        (I64, &[1, 2]),
        (F32, &[9, 4]),
        (F32, &[9, 4]),
    ];
    let offset: &[(i32, &[i64])] = &[rotary[0], (I64, &[1]), rotary[2], rotary[3]];
    let embed: &[(i32, &[i64])] = &[
        (I32, &[1, 2]),
        (I32, &[1, 2]),
        (F32, &[5, 8]),
        (F32, &[4, 8]),
        (F32, &[2, 8]),
        (F32, &[8]),
        (F32, &[8]),
        (0, &[]),
        (I32, &[1, 2]),
    ];
    // The operand, and the numbers of it that are right.
    let cases = [
        ("RotaryEmbedding", rotary, 1, 9),
        ("RotaryEmbedding", offset, 1, 8),
        ("EmbedLayerNormalization", embed, 0, 5),
        ("EmbedLayerNormalization", embed, 1, 2),
        ("EmbedLayerNormalization", embed, 8, 4),
    ];
    for (op, inputs, operand, count) in cases {
        let compiled = model(op, inputs, &[]).compile(&Options::default());
        let compiled = compiled.expect("it compiles");
        for number in [0, count - 1, -1, -count, -count - 1, count, i32::MIN as i64] {
            let given = inputs.iter().enumerate().filter(|(_, i)| i.0 != 0);
            let tensors: Vec<Tensor> = given
                .map(|(i, (t, dims))| {
                    let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
                    let n = dims.iter().product();
                    let whole = if i == operand { number } else { 0 };
                    match *t {
                        F32 => Tensor::from_slice(&dims, &vec![0.5f32; n]),
                        I32 => Tensor::from_slice(&dims, &vec![whole as i32; n]),
                        _ => Tensor::from_slice(&dims, &vec![whole; n]),
                    }
                    .expect("a tensor")
                })
                .collect();
            let mut context = compiled.context().expect("a context");
            let found = context.run_tensors(&tensors).map(|_| ());
            let found = found.map_err(|e| e.to_string());
            match (0..count).contains(&number) {
                true => assert_eq!(found, Ok(()), "{op} {operand}: {number}"),
                false => assert!(
                    found.as_ref().is_err_and(|e| e.contains("the_node")),
                    "{op} {operand}: {number}: {found:?}"
                ),
            }
        }
    }
}
