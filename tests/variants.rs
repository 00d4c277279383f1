//! Variants: code for some sizes beside the code that takes any, chosen by the inputs of each run.

#[path = "common/folder.rs"]
mod folder;

use std::path::{Path, PathBuf};

use folder::Folder;
use lapidary::case::Case;
use lapidary::{Class, Compiled, Context, Cpu, Options, Tensor};

fn case(name: &str) -> Case {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name);
    Case::open(&path).expect("a case")
}

fn options(dims: &[&str]) -> Options {
    let mut options = Options {
        threads: 1,
        ..Options::default()
    };
    for dim in dims {
        options.set_dim(dim).expect("a setting");
    }
    options
}

/// All data sets give the expected results; gives the variant that each took.
fn judged(case: &Case, compiled: &Compiled) -> Vec<String> {
    let mut context = compiled.context().expect("a context");
    assert_eq!(context.variant(), None);
    let names = case.model.output_names();
    let mut variants = Vec::new();
    // Twice, so that each variant runs after others.
    for folder in case.sets.iter().chain(&case.sets) {
        let set = case.read_set(folder).expect("a data set");
        let found = context.run_values(&set.inputs).expect("it runs");
        if let Err(wrong) = set.judge(&found, &names, case.tolerance) {
            panic!("{}: {}: {}", set.name, wrong[0].name, wrong[0].mismatch);
        }
        variants.push(context.variant().expect("a variant"));
    }
    let again = variants.split_off(case.sets.len());
    assert_eq!(variants, again);
    variants
}

/// Batch and sequence of each data set, as a guard of both.
fn sizes(case: &Case) -> Vec<(usize, usize)> {
    let size = |folder: &PathBuf| {
        let set = case.read_set(folder).expect("a data set");
        let inputs = set.input_tensors().expect("tensors");
        (inputs[0].shape()[0], inputs[0].shape()[1])
    };
    case.sets.iter().map(size).collect()
}

#[test]
fn the_first_variant_whose_dims_are_those_of_the_inputs_runs() {
    let case = case("gpt2");
    let sizes = sizes(&case);
    let (batch, seq) = sizes[0];
    let lists = [format!("batch={batch},77"), format!("seq={seq},9")];
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    let compiled = case.model.compile(&options(&lists)).expect("it compiles");
    let expected: Vec<String> = sizes
        .iter()
        .map(|size| match *size == (batch, seq) {
            true => format!("batch={batch} seq={seq}"),
            false => "general".to_string(),
        })
        .collect();
    assert_eq!(judged(&case, &compiled), expected);
    assert!(
        expected.iter().any(|v| v == "general"),
        "the sets differ in size"
    );
}

#[test]
fn a_list_frees_a_dim_that_the_model_fixes() {
    let case = case("resnet");
    let options = options(&["image.2=56,?", "batch=1,?"]);
    let compiled = case.model.compile(&options).expect("it compiles");
    let variants = judged(&case, &compiled);
    assert!(
        variants.iter().all(|v| v.starts_with("image.2=56")),
        "{variants:?}"
    );
    let mut context = compiled.context().expect("a context");
    let mut shape_of = |height: usize| {
        let image = Tensor::zeros(lapidary::DType::F32, &[1, 3, height, 56]).expect("a tensor");
        let outputs = context.run([("image", &image)]).expect("it runs");
        assert_eq!(outputs[0].tensor.shape(), [1, 10]);
        context.variant().expect("a variant")
    };
    assert_eq!(shape_of(56), "image.2=56 batch=1");
    assert_eq!(shape_of(64), "batch=1");
}

#[test]
fn a_library_has_its_variants_and_one_copy_of_the_weights() {
    let (case, folder) = (case("gpt2"), Folder::new("variants"));
    let (batch, seq) = sizes(&case)[0];
    let lists = [format!("batch={batch},?"), format!("seq={seq},?")];
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    let make = |name: &str, options: &Options| {
        let library = folder.0.join(format!("lib{name}.so"));
        let weights = folder.0.join(format!("{name}.weights"));
        let made = case
            .model
            .compile_library(&library, Some(&weights), options);
        made.expect("it compiles");
        let size = std::fs::metadata(weights).expect("weights").len();
        (
            Compiled::open_library(&library, &Options::default()).expect("it opens"),
            size,
        )
    };
    let (plain, one) = make("plain", &options(&[]));
    let (special, several) = make("special", &options(&lists));
    assert!(judged(&case, &plain).iter().all(|v| v == "general"));
    assert_eq!(
        judged(&case, &special)[0],
        format!("batch={batch} seq={seq}")
    );
    // At each level of code, of which the library has all.
    let every = Options {
        cpu: Cpu::Multi,
        ..options(&lists)
    };
    let (every, _) = make("every", &every);
    assert_eq!(judged(&case, &every)[0], judged(&case, &special)[0]);
    for cpu in [Cpu::Baseline, Cpu::V3, Cpu::V4] {
        if !cpu.runs_here() {
            println!("skipped: this processor does not run {cpu:?}");
            continue;
        }
        let options = Options {
            cpu,
            ..Options::default()
        };
        let limited = Compiled::open_library(folder.0.join("libevery.so"), &options);
        let limited = limited.expect("it opens");
        assert_eq!(judged(&case, &limited)[0], judged(&case, &special)[0]);
    }
    // Three variants may fold small constants of their own.
    assert!(
        several < one + one / 20,
        "{several} bytes of weights, {one} without variants"
    );
}

fn step(context: &mut Context, at: usize, seq: usize) -> Tensor {
    let ids: Vec<i64> = (0..seq).map(|i| ((at + i) * 7 % 64) as i64).collect();
    let positions: Vec<i64> = (at..at + seq).map(|p| p as i64).collect();
    let tensor = |values: &[i64]| Tensor::from_slice(&[1, seq], values).expect("a tensor");
    let (ids, positions) = (tensor(&ids), tensor(&positions));
    let outputs = context.run([("input_ids", &ids), ("position_ids", &positions)]);
    outputs.expect("it runs").remove(0).tensor
}

#[test]
fn variants_hand_states_on_to_each_other() {
    let case = case("gpt2");
    let with_states = |dims: &[&str]| {
        let mut options = options(dims);
        options.set_state("past.*=present.*").expect("a state");
        case.model.compile(&options).expect("it compiles")
    };
    let (plain, special) = (with_states(&[]), with_states(&["batch=1,?", "seq=1,?"]));
    let mut expected = plain.context().expect("a context");
    let mut found = special.context().expect("a context");
    let mut at = 0;
    for seq in [5, 1, 1, 3, 1, 12, 1, 1, 1] {
        let (a, b) = (step(&mut expected, at, seq), step(&mut found, at, seq));
        lapidary::compare::compare(&a, &b, case.tolerance).expect("the same logits");
        let guard = if seq == 1 { "batch=1 seq=1" } else { "batch=1" };
        assert_eq!(found.variant().as_deref(), Some(guard));
        at += seq;
    }
    let (a, b) = (expected.state("past.1.key"), found.state("past.1.key"));
    let (a, b) = (a.expect("a state"), b.expect("a state"));
    lapidary::compare::compare(&a, &b, case.tolerance).expect("the same cache");
    found.reset_states().expect("it resets");
    expected.reset_states().expect("it resets");
    let (a, b) = (step(&mut expected, 0, 1), step(&mut found, 0, 1));
    lapidary::compare::compare(&a, &b, case.tolerance).expect("the same logits");
}

#[test]
fn a_dim_that_counts_a_states_rows_cannot_have_variants() {
    let case = case("gpt2");
    let mut options = options(&["past=0,16"]);
    options.set_state("past.*=present.*").expect("a state");
    let error = case
        .model
        .compile(&options)
        .err()
        .expect("no such variants");
    assert_eq!(error.class(), Class::Usage, "{error}");
    assert!(error.to_string().contains("past.0.key"), "{error}");
}

#[test]
fn outputs_that_are_bound_are_written_by_a_variant_too() {
    let case = case("gpt2");
    let (batch, seq) = sizes(&case)[0];
    let lists = [format!("batch={batch},?"), format!("seq={seq},?")];
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    let compiled = case.model.compile(&options(&lists)).expect("it compiles");
    let set = case.read_set(&case.sets[0]).expect("a data set");
    let inputs = set.input_tensors().expect("tensors");
    let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
    let runtime = lapidary_runtime::Options {
        threads: 1,
        ..Default::default()
    };
    let mut context =
        lapidary_runtime::Context::new(compiled.code().clone(), &runtime).expect("a context");
    let expected = context.run(&views).expect("it runs");
    let zeros = |t: &Tensor| Tensor::zeros(t.dtype(), t.shape()).expect("a tensor");
    let mut bound: Vec<Tensor> = expected.iter().map(zeros).collect();
    context.run_into(&views, &mut bound).expect("it runs");
    assert_eq!(context.variant(), Some(format!("batch={batch} seq={seq}")));
    assert_eq!(bound, expected);
    // Given back to the context, the next outputs lie in its own memory again.
    assert_eq!(context.run(&views).expect("it runs"), expected);
    // Other sizes than the bound tensors have.
    let mut small = vec![Tensor::zeros(lapidary::DType::F32, &[1]).expect("a tensor"); bound.len()];
    context
        .run_into(&views, &mut small)
        .expect_err("outputs that do not fit");
}
