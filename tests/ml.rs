//! Classical models: each operator of ai.onnx.ml in each of its forms, compared with onnxruntime, and models that
//! scikit-learn trained, compared with its predictions. `python/make_ml.py` makes the cases.

#[path = "conformance/suite.rs"]
#[allow(dead_code)] // other programs read all of a case
mod suite;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapidary::case::DataSet;
use lapidary::reference::{self, Reference};
use lapidary::{Compiled, Cpu, Error, Model, Options, pipeline};
use suite::{Case, Suite};

/// Of so many cases one is compiled to a library.
const LIBRARY_SAMPLE: usize = 4;

fn load() -> Suite {
    Suite::load(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ml/suite.bin")])
}

/// Compares what `run` gives for each data set of a case.
fn judge(
    suite: &Suite,
    case: &Case,
    model: &Model,
    mut run: impl FnMut(&DataSet) -> Result<Vec<lapidary::OwnedValue>, Error>,
) -> Result<(), Error> {
    for set in suite.sets(case, model)? {
        let found = run(&set)?;
        if let Err(wrong) = set.judge(&found, &model.output_names(), case.tolerance) {
            let lines = wrong
                .iter()
                .map(|o| format!("'{}': {}", o.name, o.mismatch));
            return Err(Error::Wrong(lines.collect::<Vec<_>>().join("; ")));
        }
    }
    Ok(())
}

/// Runs every `step`th case on all processors; a report of those that fail.
fn run_all(step: usize, run: impl Fn(&Suite, &Case, &Model) -> Result<(), Error> + Sync) {
    let suite = load();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(case) = suite.cases.get(next.fetch_add(step, Ordering::Relaxed)) {
                    let model = suite.model(case);
                    if let Err(error) = model.and_then(|model| run(&suite, case, &model)) {
                        let line = format!("{}: {error}", case.name);
                        failed.lock().expect("no panic holds it").push(line);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic holds it");
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        suite.cases.len().div_ceil(step),
        failed.join("\n")
    );
}

fn compiled(suite: &Suite, case: &Case, model: &Model, options: &Options) -> Result<(), Error> {
    let compiled = model.compile(options)?;
    let mut context = compiled.context()?;
    judge(suite, case, model, |set| context.run_values(&set.inputs))
}

#[test]
fn every_case_is_right_in_memory() {
    run_all(1, |suite, case, model| {
        model.validate(&Options::default())?;
        compiled(suite, case, model, &Options::default())
    });
}

#[test]
fn every_case_is_right_with_every_dim_free_and_two_threads() {
    let options = Options {
        symbolic: true,
        threads: 2,
        ..Options::default()
    };
    run_all(1, |suite, case, model| {
        compiled(suite, case, model, &options)
    });
}

/// Generated code and library kernels, with the instructions of each level that this machine has.
#[test]
fn every_case_is_right_at_each_level() {
    for cpu in [Cpu::Baseline, Cpu::V3, Cpu::V4] {
        if !cpu.runs_here() {
            continue;
        }
        run_all(1, |suite, case, model| {
            let options = Options {
                threads: 1,
                cpu,
                ..Options::default()
            };
            compiled(suite, case, model, &options)
        });
    }
}

#[test]
fn a_sample_is_right_as_libraries() {
    run_all(LIBRARY_SAMPLE, |suite, case, model| {
        let options = Options::default();
        let name = case.name.replace('/', "-");
        let name = format!("lapidary-ml-{}-{name}.so", std::process::id());
        let path = std::env::temp_dir().join(name);
        let made = model.compile_library(&path, None, &options);
        let opened = made.and_then(|_| Compiled::open_library(&path, &options));
        let _ = std::fs::remove_file(&path);
        let mut context = opened?.context()?;
        judge(suite, case, model, |set| context.run_values(&set.inputs))
    });
}

#[test]
fn every_case_without_kernels_is_right_in_the_interpreter() {
    let (done, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
    run_all(1, |suite, case, model| {
        let target = lapidary::operator::Target::Memory;
        let graph = pipeline::import(model, &Options::default(), target)?;
        let sets = suite.sets(case, model)?;
        let known = sets
            .iter()
            .all(|set| !matches!(reference::run(&graph, &set.inputs), Reference::Unknown));
        if !known {
            left.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        done.fetch_add(1, Ordering::Relaxed);
        judge(suite, case, model, |set| {
            match reference::run(&graph, &set.inputs) {
                Reference::Values(values) => Ok(values),
                Reference::Refused(why) => Err(Error::Wrong(why)),
                Reference::Unknown => Err(Error::Wrong("a library kernel".into())),
            }
        })
    });
    let (done, left) = (done.into_inner(), left.into_inner());
    println!("{done} cases interpreted, {left} call library kernels");
    assert!(done > left, "{done} cases interpreted, {left} not");
}
