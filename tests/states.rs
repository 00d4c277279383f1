//! States: what a context keeps from run to run, against the same models with their caches given and taken.

#[path = "common/folder.rs"]
mod folder;

use std::path::Path;
use std::process::Command;

use folder::Folder;
use lapidary::{Class, Compiled, Context, Error, Model, Options, Tensor};
use lapidary_onnx::proto::*;
use prost::Message;

const PAST: [&str; 4] = ["past.0.key", "past.0.value", "past.1.key", "past.1.value"];
const CACHE: &str = "past.*=present.*";

fn gpt2() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/gpt2/model.onnx");
    Model::load(path).expect("the model loads")
}

fn options(states: &[&str]) -> Options {
    let mut options = Options {
        threads: 1,
        ..Options::default()
    };
    for state in states {
        options.set_state(state).expect("a state");
    }
    options
}

/// Tokens and their positions, `seq` from `at` on.
fn tokens(batch: usize, at: usize, seq: usize) -> (Tensor, Tensor) {
    let ids: Vec<i64> = (0..batch * seq)
        .map(|i| ((at + i) * 7 % 64) as i64)
        .collect();
    let positions: Vec<i64> = (0..batch * seq).map(|i| (at + i % seq) as i64).collect();
    let tensor = |values: &[i64]| Tensor::from_slice(&[batch, seq], values).expect("a tensor");
    (tensor(&ids), tensor(&positions))
}

/// A run with the cache in the context: the logits.
fn step(context: &mut Context, batch: usize, at: usize, seq: usize) -> Result<Tensor, Error> {
    let (ids, positions) = tokens(batch, at, seq);
    let given = [("input_ids", &ids), ("position_ids", &positions)];
    let mut outputs = context.run(given)?;
    assert_eq!(outputs.len(), 1, "states are no outputs");
    Ok(outputs.remove(0).tensor)
}

/// A run with the cache given and taken: the logits and the new cache.
fn explicit(
    compiled: &Compiled,
    batch: usize,
    at: usize,
    seq: usize,
    cache: &[Tensor],
) -> (Tensor, Vec<Tensor>) {
    let (ids, positions) = tokens(batch, at, seq);
    let mut given = vec![("input_ids", &ids), ("position_ids", &positions)];
    given.extend(PAST.into_iter().zip(cache));
    let mut outputs: Vec<Tensor> = compiled
        .run(given)
        .expect("it runs")
        .into_iter()
        .map(|output| output.tensor)
        .collect();
    let cache = outputs.split_off(1);
    (outputs.remove(0), cache)
}

fn no_cache(batch: usize) -> Vec<Tensor> {
    let empty = || Tensor::zeros(lapidary::DType::F32, &[batch, 4, 0, 12]).expect("a tensor");
    PAST.iter().map(|_| empty()).collect()
}

/// A prompt, then token by token past two capacities.
const STEPS: [usize; 4] = [5, 1, 1, 9];

fn decodes(compiled: &Compiled, plain: &Compiled, batch: usize) {
    let mut context = compiled.context().expect("a context");
    assert!(
        context
            .states()
            .iter()
            .all(|state| state.in_place && state.axis == Some(2))
    );
    let (mut cache, mut at) = (no_cache(batch), 0);
    for seq in STEPS.into_iter().chain([1; 24]) {
        let found = step(&mut context, batch, at, seq).expect("it runs");
        let (expected, next) = explicit(plain, batch, at, seq, &cache);
        assert_eq!(found, expected, "batch {batch}, {seq} tokens from {at} on");
        (cache, at) = (next, at + seq);
    }
    for (name, expected) in PAST.iter().zip(&cache) {
        assert_eq!(&context.state(name).expect("a state"), expected, "{name}");
    }
}

#[test]
fn a_decoder_gives_the_same_bits_with_its_cache_in_the_context() {
    let model = gpt2();
    let plain = model.compile(&options(&[])).expect("it compiles");
    let compiled = model.compile(&options(&[CACHE])).expect("it compiles");
    for batch in [1, 3] {
        decodes(&compiled, &plain, batch);
    }
}

#[test]
fn a_library_keeps_states_as_code_in_memory_does() {
    let (model, folder) = (gpt2(), Folder::new("states-library"));
    let plain = model.compile(&options(&[])).expect("it compiles");
    let library = folder.0.join("libgpt2.so");
    let with_states = options(&[CACHE]);
    model
        .compile_library(&library, None, &with_states)
        .expect("it compiles");
    let compiled = Compiled::open_library(&library, &options(&[])).expect("it opens");
    decodes(&compiled, &plain, 2);
}

#[test]
fn a_state_is_set_reset_and_not_shared() {
    let model = gpt2();
    let plain = model.compile(&options(&[])).expect("it compiles");
    let compiled = model.compile(&options(&[CACHE])).expect("it compiles");
    let mut one = compiled.context().expect("a context");
    let mut other = compiled.context().expect("a context");
    let first = step(&mut one, 1, 0, 4).expect("it runs");
    step(&mut one, 1, 4, 1).expect("it runs");
    // Another context, and the same after a reset, also with another batch, begin anew.
    assert_eq!(step(&mut other, 1, 0, 4).expect("it runs"), first);
    one.reset_states().expect("it resets");
    let (expected, cache) = explicit(&plain, 2, 0, 20, &no_cache(2));
    assert_eq!(step(&mut one, 2, 0, 20).expect("it runs"), expected);
    // A run of the model as a whole leaves nothing behind.
    for _ in 0..2 {
        let (ids, positions) = tokens(1, 0, 4);
        let outputs = compiled.run([("input_ids", &ids), ("position_ids", &positions)]);
        assert_eq!(outputs.expect("it runs")[0].tensor, first);
    }
    // A value that is given takes the place of what was kept.
    for (name, value) in PAST.iter().zip(&cache) {
        other.set_state(name, value).expect("it is set");
    }
    let (expected, _) = explicit(&plain, 2, 20, 1, &cache);
    assert_eq!(step(&mut other, 2, 20, 1).expect("it runs"), expected);
}

#[test]
fn a_run_that_fails_changes_no_state() {
    let compiled = gpt2().compile(&options(&[CACHE])).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    step(&mut context, 1, 0, 15).expect("it runs");
    let kept = context.state(PAST[0]).expect("a state");
    // No row 1000 of the positions; the store of 16 rows would have to grow.
    let error = step(&mut context, 1, 1000, 3).expect_err("an index out of range");
    assert!(error.to_string().contains("index 1000"), "{error}");
    let mut fresh = compiled.context().expect("a context");
    step(&mut fresh, 1, 0, 15).expect("it runs");
    assert_eq!(
        step(&mut context, 1, 15, 1).expect("it runs"),
        step(&mut fresh, 1, 15, 1).expect("it runs")
    );
    let rows = context.state(PAST[0]).expect("a state");
    assert_eq!((kept.shape()[2], rows.shape()[2]), (15, 16));
    // Another batch than the state has.
    let error = step(&mut context, 2, 16, 1).expect_err("another batch");
    assert!(error.to_string().contains("past.0.key"), "{error}");
}

#[test]
fn a_limit_of_memory_ends_a_run_before_a_store_grows_past_it() {
    let compiled = gpt2().compile(&options(&[CACHE])).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    step(&mut context, 1, 0, 16).expect("it runs");
    let limit = Options {
        memory_limit: Some(context.memory_used()),
        ..options(&[CACHE])
    };
    let compiled = gpt2().compile(&limit).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    step(&mut context, 1, 0, 16).expect("it fits");
    let error = step(&mut context, 1, 16, 1).expect_err("32 rows do not fit");
    assert!(error.to_string().contains("limit"), "{error}");
}

fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    let dims = dims.iter().map(|d| tensor_shape_proto::Dimension {
        value: Some(match d.parse() {
            Ok(size) => tensor_shape_proto::dimension::Value::DimValue(size),
            Err(_) => tensor_shape_proto::dimension::Value::DimParam(d.to_string()),
        }),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: 1,
                shape: Some(TensorShapeProto {
                    dim: dims.collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str, axis: Option<i64>) -> NodeProto {
    let attribute = axis.map(|i| AttributeProto {
        name: "axis".into(),
        r#type: 2,
        i,
        ..Default::default()
    });
    NodeProto {
        name: format!("the_{op}"),
        op_type: op.into(),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: vec![output.into()],
        attribute: attribute.into_iter().collect(),
        ..Default::default()
    }
}

fn model(
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
) -> Model {
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            name: "states".into(),
            node: nodes,
            input: inputs,
            output: outputs,
            ..Default::default()
        }),
        ..Default::default()
    };
    Model::from_bytes(model.encode_to_vec(), None).expect("the model decodes")
}

/// `h' = h + x`, `y = -h'`.
fn recurrent() -> Model {
    model(
        vec![
            node("Add", &["h", "x"], "next", None),
            node("Neg", &["next"], "y", None),
        ],
        vec![value("x", &["batch", "2"]), value("h", &["batch", "2"])],
        vec![value("y", &["batch", "2"]), value("next", &["batch", "2"])],
    )
}

fn row(values: &[f32]) -> Tensor {
    Tensor::from_slice(&[1, values.len()], values).expect("a tensor")
}

#[test]
fn a_state_of_fixed_size_must_be_given_and_changes_places() {
    let compiled = recurrent()
        .compile(&options(&["h=next"]))
        .expect("it compiles");
    let mut context = compiled.context().expect("a context");
    assert!(
        context
            .states()
            .iter()
            .all(|s| !s.in_place && s.axis.is_none())
    );
    let x = row(&[1.0, 2.0]);
    let error = context.run([("x", &x)]).expect_err("no initial value");
    assert!(error.to_string().contains("'h'"), "{error}");
    let initial = row(&[10.0, 20.0]);
    context.run([("x", &x), ("h", &initial)]).expect("it runs");
    for k in 2..6 {
        let outputs = context
            .run_some(&[Some(x.view()), None])
            .expect("the state is kept");
        let expected = row(&[-10.0 - k as f32, -20.0 - 2.0 * k as f32]);
        assert_eq!(outputs, [expected]);
    }
}

#[test]
fn a_state_that_grows_in_front_is_kept_in_two_memories() {
    let grows = || {
        model(
            vec![
                node("Concat", &["new", "past"], "present", Some(1)),
                node("ReduceSum", &["present"], "y", None),
            ],
            vec![value("new", &["b", "n"]), value("past", &["b", "p"])],
            vec![value("y", &["1", "1"]), value("present", &["b", "q"])],
        )
    };
    let compiled = grows()
        .compile(&options(&["past=present"]))
        .expect("it compiles");
    let mut context = compiled.context().expect("a context");
    assert!(
        context
            .states()
            .iter()
            .all(|s| !s.in_place && s.axis == Some(1))
    );
    let (mut sum, mut count) = (0.0, 0);
    for k in 0..40 {
        let new: Vec<f32> = (0..k % 3).map(|i| (k + i) as f32).collect();
        sum += new.iter().sum::<f32>();
        count += new.len();
        let outputs = context.run([("new", &row(&new))]).expect("it runs");
        assert_eq!(outputs[0].tensor.as_slice::<f32>().expect("floats"), [sum]);
        assert_eq!(context.state("past").expect("a state").shape(), [1, count]);
    }
}

#[test]
fn a_context_after_a_run_without_one_is_new() {
    let compiled = gpt2().compile(&options(&[CACHE])).expect("it compiles");
    let (ids, positions) = tokens(1, 0, 4);
    let given = [("input_ids", &ids), ("position_ids", &positions)];
    compiled.run(given).expect("it runs");
    let mut used = compiled.context().expect("a context");
    let mut new = compiled.context().expect("another");
    let expected = step(&mut new, 1, 0, 2).expect("it runs");
    assert_eq!(step(&mut used, 1, 0, 2).expect("it runs"), expected);
}

#[test]
fn what_does_not_fit_leaves_a_state_as_it_was() {
    let compiled = gpt2().compile(&options(&[CACHE])).expect("it compiles");
    let mut context = compiled.context().expect("a context");
    let mut same = compiled.context().expect("another");
    for context in [&mut context, &mut same] {
        step(context, 2, 0, 5).expect("it runs");
    }
    let of = |dtype, shape: &[usize]| Tensor::zeros(dtype, shape).expect("a tensor");
    for wrong in [
        of(lapidary::DType::F32, &[2, 4, 3]),
        of(lapidary::DType::F32, &[2, 4, 3, 11]),
        of(lapidary::DType::I64, &[2, 4, 3, 12]),
    ] {
        context
            .set_state(PAST[0], &wrong)
            .expect_err("it does not fit");
    }
    let expected = step(&mut same, 2, 5, 1).expect("it runs");
    assert_eq!(step(&mut context, 2, 5, 1).expect("it runs"), expected);
}

/// `present = Concat(past, new)`, and `past` is given out as it was.
#[test]
fn a_state_that_is_an_output_too_is_given_out_without_gaps() {
    let model = model(
        vec![
            node("Concat", &["past", "new"], "present", Some(1)),
            node("Identity", &["past"], "old", None),
        ],
        vec![
            value("new", &["batch", "1"]),
            value("past", &["batch", "rows"]),
        ],
        vec![
            value("present", &["batch", "all"]),
            value("old", &["batch", "rows"]),
        ],
    );
    let compiled = model
        .compile(&options(&["past=present"]))
        .expect("it compiles");
    let mut context = compiled.context().expect("a context");
    let mut old: Vec<f32> = Vec::new();
    for turn in 0..4 {
        let new = [turn as f32, 10.0 + turn as f32];
        let new_tensor = Tensor::from_slice(&[2, 1], &new).expect("a tensor");
        let outputs = context.run([("new", &new_tensor)]).expect("it runs");
        assert_eq!(
            outputs[0].tensor.as_slice::<f32>().expect("f32"),
            old,
            "turn {turn}"
        );
        let rows = old.len() / 2;
        old.insert(2 * rows, new[1]);
        old.insert(rows, new[0]);
    }
}

#[test]
fn what_is_no_state_is_an_error_that_says_why() {
    let cases: [(&[&str], &str); 5] = [
        (&["h=nothing"], "no output 'nothing'"),
        (&["hidden=next"], "no such input"),
        (&["h=next", "h=y"], "input 'h' is in two states"),
        (&["h=next", "x=next"], "output 'next' is in two states"),
        (&["h*=next"], "no output"),
    ];
    for (states, text) in cases {
        let mut options = options(&[]);
        for state in states {
            match state.split_once('=') {
                Some((past, present)) => options.states.push((past.into(), present.into())),
                None => panic!("a state"),
            }
        }
        if states[0] == "h*=next" {
            assert!(options.set_state(states[0]).is_err(), "stars on one side");
            continue;
        }
        let error = recurrent().compile(&options).err().expect("no state");
        assert_eq!(error.class(), Class::Usage, "{error}");
        assert!(error.to_string().contains(text), "{states:?}: {error}");
    }
    let narrow = model(
        vec![node("Concat", &["past", "past"], "present", Some(0))],
        vec![value("past", &["3"])],
        vec![value("present", &["6"])],
    );
    let error = narrow
        .compile(&options(&["past=present"]))
        .err()
        .expect("other dims");
    assert!(error.to_string().contains("f32[6]"), "{error}");
}

/// A program in C that decodes by the typed header, against the logits that the same library gives here.
#[test]
fn a_c_program_decodes_through_the_header() {
    if Command::new("cc").arg("--version").output().is_err() {
        println!("skipped: no cc");
        return;
    }
    let folder = Folder::new("states-c");
    let library = folder.0.join("libtiny.so");
    gpt2()
        .compile_to(&library, None, None, &options(&[CACHE]))
        .expect("it compiles");
    let source = r#"
#include "libtiny.h"
#include <stdio.h>
int main(void) {
    lapidary_context *context;
    if (tiny_create(NULL, &context)) return 1;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t at = 0; at < 20; at++) {
            int64_t id = at * 7 % 64, position = at;
            const float *logits;
            if (tiny_run(context, 1, 1, &id, &position, &logits)) return 2;
            const lapidary_tensor *keys = lapidary_output(context, TINY_OUTPUT_PRESENT_0_KEY);
            if (keys->shape[2] != at + 1 || keys->strides[2] != 12) return 3;
            if (pass) printf("%.9g\n", (double)logits[0]);
        }
        if (lapidary_reset_states(context)) return 4;
    }
    lapidary_context_destroy(context);
    return 0;
}
"#;
    std::fs::write(folder.0.join("main.c"), source).expect("a source");
    let program = folder.0.join("main");
    let made = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &folder.0.join("main.c"), &library])
        .arg(format!("-Wl,-rpath,{}", folder.0.display()))
        .output()
        .expect("cc starts");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let ran = Command::new(&program).output().expect("it starts");
    assert!(ran.status.success(), "{:?}", ran.status);
    let found: Vec<f32> = String::from_utf8_lossy(&ran.stdout)
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    let compiled = Compiled::open_library(&library, &options(&[])).expect("it opens");
    let mut context = compiled.context().expect("a context");
    let logit = |at| {
        let logits = step(&mut context, 1, at, 1).expect("it runs");
        logits.as_slice::<f32>().expect("floats")[0]
    };
    assert_eq!(found, (0..20).map(logit).collect::<Vec<f32>>());
}
