//! Control flow, sequences and optionals, nested (`tests/control_flow`, made by `python/make_control_flow.py`): every
//! data set in memory, with free dims, as a library, and by the interpreter before and after the passes. One context
//! runs all data sets of a model twice, so that what it keeps between runs is tested as well.

use std::path::{Path, PathBuf};

use lapidary::case::{Case, DataSet};
use lapidary::operator::Target;
use lapidary::pipeline;
use lapidary::{Compiled, Options};
use lapidary_graph::{DType, Graph, TensorData, interp};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control_flow")
}

fn cases() -> Vec<(String, Case)> {
    let mut all: Vec<(String, Case)> = std::fs::read_dir(folder())
        .expect("the cases are there")
        .map(|entry| entry.expect("a folder").path())
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (
                name.into_owned(),
                Case::open(&path).expect("the case opens"),
            )
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!all.is_empty());
    all
}

fn sets(case: &Case) -> Vec<DataSet> {
    let read = |folder: &PathBuf| case.read_set(folder).expect("the data set is readable");
    case.sets.iter().map(read).collect()
}

fn options() -> Options {
    Options {
        threads: 1,
        ..Options::default()
    }
}

/// Runs all data sets in one context, twice; what is wrong.
fn check(name: &str, case: &Case, compiled: &Compiled, wrong: &mut Vec<String>) {
    let mut context = compiled.context().expect("a context");
    let names = case.model.output_names();
    for round in 0..2 {
        for set in sets(case) {
            let place = format!("{name}, {}, round {round}", set.name);
            match context.run_values(&set.inputs) {
                Err(error) => wrong.push(format!("{place}: {error}")),
                Ok(found) => {
                    if let Err(outputs) = set.judge(&found, &names, case.tolerance) {
                        let first = &outputs[0];
                        wrong.push(format!("{place}: '{}': {}", first.name, first.mismatch));
                    }
                }
            }
        }
    }
}

fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn in_memory(options: &Options) {
    let mut wrong = Vec::new();
    for (name, case) in cases() {
        match case.model.compile(options) {
            Ok(compiled) => check(&name, &case, &compiled, &mut wrong),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    none(wrong);
}

#[test]
fn control_flow_is_right_in_memory() {
    in_memory(&options());
}

#[test]
fn control_flow_is_right_with_free_dims_and_two_threads() {
    in_memory(&Options {
        symbolic: true,
        threads: 2,
        ..options()
    });
}

#[test]
fn control_flow_is_right_in_libraries() {
    let mut wrong = Vec::new();
    let folder = std::env::temp_dir().join(format!("lapidary-control-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for (i, (name, case)) in cases().into_iter().enumerate() {
        let library = folder.join(format!("lib{name}.so"));
        // Every other one with its weights in a file of its own.
        let weights = (i % 2 == 0).then(|| folder.join(format!("{name}.weights")));
        let made = case
            .model
            .compile_library(&library, weights.as_deref(), &options())
            .and_then(|()| Compiled::open_library(&library, &options()));
        match made {
            Ok(compiled) => check(&name, &case, &compiled, &mut wrong),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    none(wrong);
}

fn data(set: &DataSet) -> Vec<TensorData> {
    let data = |tensor: &lapidary::Tensor| TensorData {
        dtype: DType::from_onnx(tensor.dtype().onnx()).expect("a known type"),
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        bytes: tensor.bytes().to_vec().into(),
        strings: Vec::new(),
    };
    let inputs = set.input_tensors().expect("tensors");
    inputs.iter().map(data).collect()
}

fn interpret(graph: &Graph, set: &DataSet) -> Result<Option<Vec<lapidary::Tensor>>, String> {
    let found = match interp::run(graph, &data(set)) {
        Ok(found) => found,
        // The interpreter has no library.
        Err(interp::InterpError::Unsupported { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let tensor = |t: &TensorData| {
        let dtype = lapidary::DType::from_onnx(t.dtype as i32).ok_or("a type")?;
        let shape: Vec<usize> = t.dims.iter().map(|d| *d as usize).collect();
        lapidary::Tensor::from_bytes(dtype, &shape, &t.bytes).map_err(|e| e.to_string())
    };
    found.iter().map(tensor).collect::<Result<_, _>>().map(Some)
}

#[test]
fn the_interpreter_agrees_before_and_after_the_passes() {
    let (mut wrong, mut runs) = (Vec::new(), 0);
    for (name, case) in cases() {
        let before = match pipeline::import(&case.model, &options(), Target::Memory) {
            Ok(graph) => graph,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let mut after = before.clone();
        if let Err(error) = pipeline::optimize(&mut after, &options()) {
            wrong.push(format!("{name}: {error}"));
            continue;
        }
        // What is printed is read back.
        let text = after.to_text();
        let again = lapidary_graph::text::parse(&text).map(|g| g.to_text());
        // Large constants are printed as a hash.
        if again.as_ref() != Ok(&text) && !text.contains("= #") {
            wrong.push(format!("{name}: the text is read otherwise: {again:?}"));
        }
        let names = case.model.output_names();
        for set in sets(&case) {
            for (stage, graph) in [("imported", &before), ("optimised", &after)] {
                let place = format!("{name}, {}, {stage}", set.name);
                match interpret(graph, &set) {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        runs += 1;
                        if let Err(outputs) = set.judge_tensors(&found, &names, case.tolerance) {
                            let first = &outputs[0];
                            wrong.push(format!("{place}: '{}': {}", first.name, first.mismatch));
                        }
                    }
                    Err(error) => wrong.push(format!("{place}: {error}")),
                }
            }
        }
    }
    assert!(runs > 0);
    none(wrong);
}
