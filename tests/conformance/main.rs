//! The ONNX backend suite: 1,910 small cases, each compiled and run here.
//!
//! The cases come from `tests/conformance/suite.bin` (made by `python/pack_suite.py`), and some 280 more of operators in the
//! forms of opsets 7 to 13 from `old_forms.bin` (`python/pack_old_forms.py`). Each must pass, unless its name
//! stands in a list of expected failures beside the fixture, and a case that passes must not stand there, so the lists
//! can only shrink. `LAPIDARY_BLESS=1` writes them anew.
//!
//! Modes, all of which run without arguments (`--jit`, `--symbolic`, `--shapes`, `--portable`, `--aot` choose some; other words
//! are parts of the names of cases to run):
//!
//! - jit: code in memory, dims as declared;
//! - symbolic: the same with every dim free;
//! - shapes: the code of symbolic, run once more at another shape, against the interpreter;
//! - portable: the model as `lapidary optimize` writes it, in memory;
//! - aot: a library for each case, which a C program without the compiler loads and runs;
//! - aarch64: the same for AArch64 in an emulator; only when it is asked for.
//!
//! Cases run in child processes, so that one that crashes or hangs is a failure of its own.

#[path = "../common/children.rs"]
mod children;
mod expected;
mod library;
#[path = "../common/loader.rs"]
mod loader;
mod shapes;
mod suite;
mod workers;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lapidary::case::DataSet;
use lapidary::{Error, Model, Options, OwnedValue, portable};
use prost::Message;

use library::Libraries;
use suite::{Case, Suite};
use workers::Outcome;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Jit,
    Symbolic,
    Shapes,
    Portable,
    Aot,
    Aarch64,
}

impl Mode {
    const ALL: [Mode; 6] = [
        Mode::Jit,
        Mode::Symbolic,
        Mode::Shapes,
        Mode::Portable,
        Mode::Aot,
        Mode::Aarch64,
    ];

    fn name(self) -> &'static str {
        match self {
            Mode::Jit => "jit",
            Mode::Symbolic => "symbolic",
            Mode::Shapes => "shapes",
            Mode::Portable => "portable",
            Mode::Aot => "aot",
            Mode::Aarch64 => "aarch64",
        }
    }

    /// What fails in memory fails in a library, and written back as ONNX.
    fn list(self) -> PathBuf {
        let name = match self {
            Mode::Jit | Mode::Portable | Mode::Aot | Mode::Aarch64 => "expected_failures.txt",
            Mode::Symbolic => "expected_failures_symbolic.txt",
            Mode::Shapes => "expected_failures_shapes.txt",
        };
        folder().join(name)
    }

    /// Whether a case with this status is not a failure.
    fn passes(self, status: &str) -> bool {
        match self {
            Mode::Shapes => shapes::PASSES.contains(&status),
            _ => status == "pass",
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let mode_of = |text: &str| Mode::ALL.into_iter().find(|m| m.name() == text);
    let suite = Suite::load(&["suite.bin", "old_forms.bin"].map(|name| folder().join(name)));
    if let [flag, mode] = arguments.as_slice()
        && flag == "--child"
        && let Some(mode) = mode_of(mode)
    {
        return child(&suite, mode);
    }
    let mut chosen: Vec<Mode> = arguments
        .iter()
        .filter_map(|a| mode_of(a.strip_prefix("--")?))
        .collect();
    if chosen.is_empty() {
        // What takes tools that few machines have is asked for.
        chosen.extend(Mode::ALL.iter().filter(|m| **m != Mode::Aarch64));
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let fits = |case: &Case| filters.is_empty() || filters.iter().any(|f| case.name.contains(*f));
    let selected: Vec<usize> = (0..suite.cases.len())
        .filter(|i| fits(&suite.cases[*i]))
        .collect();
    if selected.is_empty() {
        println!("conformance: no case has a name like that");
        return ExitCode::FAILURE;
    }
    let mut good = true;
    for mode in chosen {
        good &= run(&suite, mode, &selected);
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs cases and compares with the list.
fn run(suite: &Suite, mode: Mode, selected: &[usize]) -> bool {
    let results = workers::run_all(mode, selected);
    let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for (index, result) in &results {
        let case = &suite.cases[*index];
        let category = match mode.passes(&result.status) {
            true => result.status.clone(),
            false => expected::category(&case.name, &result.status),
        };
        *counts
            .entry(case.kind())
            .or_default()
            .entry(category)
            .or_default() += 1;
    }
    println!(
        "conformance {}: {}",
        mode.name(),
        suite.producers.join(", ")
    );
    for (kind, counts) in counts {
        let each: Vec<String> = counts
            .iter()
            .map(|(category, n)| format!("{n} {category}"))
            .collect();
        println!(
            "  {kind}: {} cases: {}",
            counts.values().sum::<usize>(),
            each.join("; ")
        );
    }
    let passes = |status: &str| mode.passes(status);
    let before = expected::read(&mode.list());
    let own_list = matches!(mode, Mode::Jit | Mode::Symbolic | Mode::Shapes);
    if std::env::var_os("LAPIDARY_BLESS").is_some() && own_list {
        expected::write(&mode.list(), suite, &results, passes, &before);
        return true;
    }
    let unexpected = expected::surprises(suite, &results, passes, &before);
    for line in &unexpected {
        println!("  {line}");
    }
    if !unexpected.is_empty() {
        println!(
            "  {} unexpected results (LAPIDARY_BLESS=1 writes {})",
            unexpected.len(),
            mode.list().display()
        );
    }
    if std::env::var_os("LAPIDARY_REASONS").is_some() {
        for (index, result) in results.iter().filter(|(_, r)| !passes(&r.status)) {
            let name = &suite.cases[*index].name;
            println!("  ({name}: {}: {})", result.status, result.reason);
        }
    }
    unexpected.is_empty()
}

/// Answers each number of a case with one line.
fn child(suite: &Suite, mode: Mode) -> ExitCode {
    panic::set_hook(Box::new(|_| {}));
    let mut libraries = match mode {
        Mode::Aarch64 => Libraries::aarch64(),
        _ => Libraries::here(),
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some(index) = line.parse::<usize>().ok() else {
            return ExitCode::FAILURE;
        };
        let Some(case) = suite.cases.get(index) else {
            return ExitCode::FAILURE;
        };
        let run = panic::AssertUnwindSafe(|| match mode {
            Mode::Jit | Mode::Symbolic => in_memory(suite, case, mode),
            Mode::Shapes => shapes::run(suite, case),
            Mode::Portable => written_back(suite, case),
            Mode::Aot | Mode::Aarch64 => libraries.run(suite, case),
        });
        let outcome = match panic::catch_unwind(run) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                let class = format!("{:?}", error.class()).to_lowercase();
                Outcome::new(&class, error.to_string())
            }
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or(payload.downcast_ref::<&str>().map(|s| s.to_string()));
                Outcome::new("panic", text.unwrap_or_default())
            }
        };
        let reason: Vec<&str> = outcome.reason.split_whitespace().collect();
        println!("answer {} {}", outcome.status, reason.join(" "));
    }
    ExitCode::SUCCESS
}

fn options(symbolic: bool) -> Options {
    Options {
        threads: 2,
        symbolic,
        ..Options::default()
    }
}

fn in_memory(suite: &Suite, case: &Case, mode: Mode) -> Result<Outcome, Error> {
    let model = suite.model(case)?;
    // Compiled before any input is read.
    let compiled = model.compile(&options(mode == Mode::Symbolic))?;
    let mut context = compiled.context()?;
    for set in suite.sets(case, &model)? {
        let found = context.run_values(&set.inputs)?;
        judge(case, &set, &found, &model.output_names())?;
    }
    Ok(Outcome::new("pass", "-"))
}

/// The model as the portable passes write it: no more nodes, as valid as before, and right.
fn written_back(suite: &Suite, case: &Case) -> Result<Outcome, Error> {
    let source = suite.model(case)?;
    let (proto, outcome) = portable::optimized(&source, &portable::Settings::default())?;
    let (before, after) = outcome.nodes;
    if after > before {
        return Err(Error::Wrong(format!("{after} nodes of {before}")));
    }
    let model = Model::from_bytes(proto.encode_to_vec(), None)?;
    if source.validate(&Options::default()).is_ok() {
        model.validate(&Options::default())?;
    }
    let compiled = model.compile(&options(false))?;
    let mut context = compiled.context()?;
    for set in suite.sets(case, &model)? {
        let found = context.run_values(&set.inputs)?;
        judge(case, &set, &found, &model.output_names())?;
    }
    Ok(Outcome::new("pass", "-"))
}

/// Compares with what the suite expects.
fn judge(case: &Case, set: &DataSet, found: &[OwnedValue], names: &[String]) -> Result<(), Error> {
    if found.len() != set.outputs.len() {
        let (found, expected) = (found.len(), set.outputs.len());
        return Err(Error::Wrong(format!(
            "{found} outputs, expected {expected}"
        )));
    }
    for ((name, expected), found) in names.iter().zip(&set.outputs).zip(found) {
        expected::compare(&case.name, expected, found, case.tolerance)
            .map_err(|e| expected::placed(e, &format!("'{name}'")))?;
    }
    Ok(())
}
