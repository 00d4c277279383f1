//! Small graphs of everyday architectures (`tests/models`, made by `python/make_small_models.py`), end to end: every
//! data set, in memory and as a library, with one thread and two, for each level of code that this machine runs.

use std::path::{Path, PathBuf};

use lapidary::case::Case;
use lapidary::{Compiled, Cpu, Options, Tensor};

fn open(name: &str) -> Case {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match name {
        "digits" => root.join("examples/digits"),
        name => root.join("tests/models").join(name),
    };
    let case = Case::open(&folder).expect("the model opens");
    assert!(!case.sets.is_empty(), "{name} has data sets");
    case
}

/// Runs all data sets; the outputs, for comparison between variants.
fn check(case: &Case, compiled: &Compiled, what: &str) -> Vec<Vec<Tensor>> {
    let mut context = compiled.context().expect("a context");
    let names = case.model.output_names();
    let mut all = Vec::new();
    for folder in &case.sets {
        let set = case.read_set(folder).expect("the data set is readable");
        let found = context
            .run_tensors(&set.input_tensors().expect("tensors"))
            .unwrap_or_else(|error| panic!("{what}, {}: {error}", set.name));
        if let Err(wrong) = set.judge_tensors(&found, &names, case.tolerance) {
            panic!(
                "{what}, {}: '{}': {}",
                set.name, wrong[0].name, wrong[0].mismatch
            );
        }
        all.push(found);
    }
    all
}

fn levels() -> Vec<Cpu> {
    [Cpu::Baseline, Cpu::V3, Cpu::V4]
        .into_iter()
        .filter(|cpu| {
            let runs = cpu.runs_here();
            if !runs {
                println!("skipped: this processor does not run {cpu:?}");
            }
            runs
        })
        .collect()
}

/// In memory, at each level and with one thread and two: all right, and the same bits whatever the threads.
fn in_memory(name: &str) {
    let case = open(name);
    for cpu in levels() {
        let results: Vec<_> = [1, 2]
            .map(|threads| {
                let options = Options {
                    threads,
                    cpu,
                    ..Options::default()
                };
                let compiled = case
                    .model
                    .compile(&options)
                    .unwrap_or_else(|error| panic!("{name}, {cpu:?}: {error}"));
                check(
                    &case,
                    &compiled,
                    &format!("{name}, {cpu:?}, {threads} threads"),
                )
            })
            .into();
        assert!(
            results[0] == results[1],
            "{name}, {cpu:?}: results depend on the threads"
        );
    }
}

/// As a library with its weights inside, and with its weights in a file beside it.
fn as_library(name: &str) {
    let case = open(name);
    let folder =
        std::env::temp_dir().join(format!("lapidary-models-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for (number, cpu) in levels().into_iter().enumerate() {
        let options = Options {
            threads: 2,
            cpu,
            ..Options::default()
        };
        let library = folder.join(format!("libmodel{number}.so"));
        let weights: Option<PathBuf> = (number == 0).then(|| folder.join("model.weights"));
        case.model
            .compile_library(&library, weights.as_deref(), &options)
            .unwrap_or_else(|error| panic!("{name}, {cpu:?}: {error}"));
        let compiled = Compiled::open_library(&library, &options)
            .unwrap_or_else(|error| panic!("{name}, {cpu:?}: {error}"));
        check(&case, &compiled, &format!("{name} as a library, {cpu:?}"));
    }
    in_one_library(&case, name, &folder);
    let _ = std::fs::remove_dir_all(&folder);
}

/// One library for all levels, over the weights that a library of one level has.
fn in_one_library(case: &Case, name: &str, folder: &Path) {
    let make = |cpu: Cpu| {
        let options = Options {
            cpu,
            ..Options::default()
        };
        let (library, weights) = (folder.join("libeach.so"), folder.join("each.weights"));
        case.model
            .compile_library(&library, Some(&weights), &options)
            .unwrap_or_else(|error| panic!("{name}, {cpu:?}: {error}"));
        (library, std::fs::read(weights).ok())
    };
    let (_, alone) = make(Cpu::Baseline);
    let (library, weights) = make(Cpu::Multi);
    assert!(weights == alone, "{name}: weights depend on the level");
    for cpu in levels().into_iter().chain([Cpu::Native]) {
        let options = Options {
            threads: 2,
            cpu,
            ..Options::default()
        };
        let compiled = Compiled::open_library(&library, &options)
            .unwrap_or_else(|error| panic!("{name}, {cpu:?}: {error}"));
        let level = compiled.context().expect("a context").cpu_level();
        assert_eq!(level as usize, cpu.level() as usize, "{name}, {cpu:?}");
        check(case, &compiled, &format!("{name} for all levels, {cpu:?}"));
    }
}

/// With every dim free, whatever the model declares.
fn symbolic(name: &str) {
    let case = open(name);
    let options = Options {
        threads: 1,
        symbolic: true,
        ..Options::default()
    };
    let compiled = case
        .model
        .compile(&options)
        .unwrap_or_else(|error| panic!("{name}, symbolic: {error}"));
    check(&case, &compiled, &format!("{name}, symbolic"));
}

macro_rules! models {
    ($($name:ident),*) => {
        $(
            mod $name {
                #[test]
                fn is_right_in_memory() {
                    super::in_memory(stringify!($name));
                }

                #[test]
                fn is_right_as_a_library() {
                    super::as_library(stringify!($name));
                }

                #[test]
                fn is_right_with_free_dims() {
                    super::symbolic(stringify!($name));
                }
            }
        )*
    };
}

models!(
    resnet,
    mobilenet,
    super_resolution,
    bert,
    gpt2,
    forest,
    digits
);
