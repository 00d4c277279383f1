//! One case: a mutant is made of a seed's number, checked, compiled and run, and what it ends in is told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lapidary::compare::{Tolerance, compare_values};
use lapidary::operator::Target;
use lapidary::random::Random;
use lapidary::{Class, Compiled, Cpu, Error, Model, Options, OwnedValue, Tensor, pipeline};
use lapidary_onnx::proto::ModelProto;
use lapidary_runtime::ErrorCode;
use prost::Message;

use super::corpus::{Corpus, Seed};
use super::inputs::{Named, inputs, spoil};
use super::mutate::{Source, corrupt, mutate};
use super::verdict::{Verdict, judge};

/// A run that takes longer is ended, with an error.
const RUN_TIME: Duration = Duration::from_secs(2);
/// What a run may take beyond that before it has not kept to it: other tests may take the processors.
const SLACK: Duration = Duration::from_secs(30);
/// Runs that took longer are not repeated by the interpreter.
const SHORT: Duration = Duration::from_millis(20);
const RUN_MEMORY: u64 = 256 << 20;

/// A mutant.
pub struct Mutant<'c> {
    pub seed: &'c Seed,
    /// What was changed, in order.
    pub changes: Vec<&'static str>,
    pub bytes: Bytes,
}

/// How far a case came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    Unreadable,
    Refused,
    Invalid,
    Unsupported,
    NotCompiled,
    Compiled,
    Ran,
}

/// What became of a case.
pub struct Report {
    pub stage: Stage,
    /// How runs ended, in order.
    pub runs: Vec<String>,
    /// What must not be: each a kind and a text.
    pub findings: Vec<(&'static str, String)>,
    /// Comparisons that the model leaves to last digits.
    pub undecided: Vec<String>,
}

/// The mutant of a number. Of an even one at least the checker's rules hold, if some tries find such a mutant.
pub fn make<'c>(corpus: &'c Corpus, number: u64) -> Mutant<'c> {
    let mut random = Random::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5bd1_e995);
    let sound = number.is_multiple_of(2);
    for attempt in 0.. {
        let seed = corpus.choose(&mut random);
        let mut changes = Vec::new();
        let mut model = ModelProto::decode(seed.bytes.clone()).expect("a seed is a model");
        let in_bytes = !sound && random.below(6) == 0;
        let count = if in_bytes { 0 } else { 1 + random.below(3) };
        for _ in 0..count {
            let mut source = Source {
                random: &mut random,
                operators: &corpus.operators,
            };
            changes.extend(mutate(&mut source, &mut model));
        }
        let mut bytes = model.encode_to_vec();
        if in_bytes {
            changes.push(corrupt(&mut random, &mut bytes));
        }
        let bytes = Bytes::from(bytes);
        if !sound || attempt >= 20 || checks(&bytes) {
            return Mutant {
                seed,
                changes,
                bytes,
            };
        }
    }
    unreachable!("the last attempt returns")
}

fn checks(bytes: &Bytes) -> bool {
    let model = Model::from_bytes(bytes.clone(), None);
    model.is_ok_and(|m| pipeline::faultless(&m, &Options::default(), false).is_ok())
}

/// Runs a mutant through all stages, telling `note` which one begins.
pub fn run(corpus: &Corpus, mutant: &Mutant<'_>, number: u64, note: &dyn Fn(&str)) -> Report {
    let mut random = Random::new(number ^ 0x9e37_79b9);
    let mut report = Report {
        stage: Stage::Unreadable,
        runs: Vec::new(),
        findings: Vec::new(),
        undecided: Vec::new(),
    };
    note("load");
    let Ok(model) = Model::from_bytes(mutant.bytes.clone(), None) else {
        return report;
    };
    let options = options(&mut random);
    report.stage = Stage::Refused;
    note(&format!(
        "check (threads {}, symbolic {}, cpu {:?}, guard {}, dims {:?})",
        options.threads, options.symbolic, options.cpu, options.guard_memory, options.dims
    ));
    // The strict checks must not crash either, whatever they say.
    let strict = model.validate(&options);
    report.defect("validate", strict.as_ref().err());
    if pipeline::faultless(&model, &options, false).is_err() {
        if strict.is_ok() {
            report.find(
                "checker",
                "the strict check accepts what the plain one refuses".into(),
            );
        }
        note("compile");
        if model.compile(&options).is_ok() {
            report.find("checker", "what the checker refuses is compiled".into());
        }
        return report;
    }
    note("compile");
    let compiled = match model.compile(&options) {
        Ok(compiled) => compiled,
        Err(error) => {
            report.stage = match error.class() {
                Class::Unsupported => Stage::Unsupported,
                Class::Invalid | Class::Usage => Stage::Invalid,
                Class::Wrong | Class::Other => Stage::NotCompiled,
            };
            report.defect("compile", Some(&error));
            return report;
        }
    };
    report.stage = Stage::Compiled;
    let known = corpus.inputs(mutant.seed);
    for fresh in [false, true] {
        note("inputs");
        if let Some(values) = inputs(&mut random, &model, &known, fresh) {
            one_run(
                &mut report,
                &model,
                &compiled,
                &options,
                &values,
                mutant.seed.tolerance,
                note,
            );
            if report.runs.iter().any(|run| run == "timeout") {
                // Other runs would take as long, and tell as little.
                return report;
            }
            if let Some(bad) = spoil(&mut random, &values) {
                note("run spoiled inputs");
                let result = context_run(&compiled, &bad);
                report.ended(&result);
            }
        }
    }
    names(&mut report, &compiled, &known, note);
    if random.below(40) == 0 {
        library(
            &mut report,
            &model,
            &compiled,
            &options,
            &known,
            &mut random,
            note,
        );
    }
    report
}

fn options(random: &mut Random) -> Options {
    let mut options = Options {
        threads: 1 + random.below(2) as usize,
        symbolic: random.below(4) == 0,
        memory_limit: Some(RUN_MEMORY),
        timeout: Some(RUN_TIME),
        guard_memory: random.below(4) != 0,
        ..Options::default()
    };
    let cpus = [Cpu::Native, Cpu::Native, Cpu::V3, Cpu::Baseline];
    let cpu = cpus[random.below(4) as usize];
    if cpu.runs_here() {
        options.cpu = cpu;
    }
    if random.below(8) == 0 {
        let settings = [
            "N=2",
            "N=?",
            "batch=0",
            "x.0=?",
            "x.0=3",
            "x.7=1",
            "N=9223372036854775807",
        ];
        let text = settings[random.below(settings.len() as u64) as usize];
        options.set_dim(text).expect("a setting of a dim");
    }
    options
}

fn context_run(compiled: &Compiled, values: &[OwnedValue]) -> Result<Vec<OwnedValue>, Error> {
    compiled.context()?.run_values(values)
}

/// A run, and the same by the interpreter.
fn one_run(
    report: &mut Report,
    model: &Model,
    compiled: &Compiled,
    options: &Options,
    values: &[OwnedValue],
    tolerance: Tolerance,
    note: &dyn Fn(&str),
) {
    note("run");
    let start = Instant::now();
    let result = context_run(compiled, values);
    let took = start.elapsed();
    report.ended(&result);
    if took > RUN_TIME + SLACK {
        report.find(
            "late",
            format!("a run of at most {RUN_TIME:?} took {took:?}"),
        );
    }
    let limited = matches!(&result, Err(Error::Runtime(e))
        if matches!(e.code(), ErrorCode::Memory | ErrorCode::Timeout));
    if limited {
        return;
    }
    if took > SHORT {
        report.runs.push("not-compared".into());
        return;
    }
    note("interpret");
    let Ok(graph) = pipeline::import(model, options, Target::Memory) else {
        return;
    };
    match judge(model, &graph, values, tolerance, result) {
        Verdict::Agrees { elements: true } => report.runs.push("compared".into()),
        Verdict::Agrees { elements: false } => report.runs.push("compared-shapes".into()),
        Verdict::BothRefuse => report.runs.push("both-refuse".into()),
        Verdict::Unknown => report.runs.push("not-compared".into()),
        Verdict::Undecided(text) => {
            report.runs.push("undecided".into());
            report.undecided.push(text);
        }
        Verdict::Differs(kind, text) => report.find(kind, text),
    }
}

/// Names of inputs that are wrong, missing or given twice.
fn names(report: &mut Report, compiled: &Compiled, known: &Named, note: &dyn Fn(&str)) {
    note("run wrong names");
    let tensor = Tensor::scalar(1.0f32);
    let given = known
        .iter()
        .filter_map(|(n, v)| Some((n.as_str(), v.tensor()?)));
    let mut lists: Vec<Vec<(&str, &Tensor)>> = vec![vec![("no such input", &tensor)]];
    if let Some(first) = compiled.inputs().first() {
        lists.push(vec![(&first.name, &tensor), (&first.name, &tensor)]);
    }
    lists.push(given.collect());
    for list in lists {
        let result = compiled.run(list);
        report.ended(&result);
    }
}

/// The same code as a library.
fn library(
    report: &mut Report,
    model: &Model,
    compiled: &Compiled,
    options: &Options,
    known: &Named,
    random: &mut Random,
    note: &dyn Fn(&str),
) {
    note("library");
    let folder = std::env::temp_dir().join(format!("lapidary-fuzz-{}", std::process::id()));
    let path: PathBuf = folder.join("libm.so");
    if std::fs::create_dir_all(&folder).is_err() {
        return;
    }
    let made = model.compile_to(&path, None, None, options);
    report.defect("library", made.as_ref().err());
    if made.is_ok() {
        match Compiled::open_library(&path, options) {
            Ok(library) => {
                if let Some(values) = inputs(random, model, known, false) {
                    note("run library");
                    let (a, b) = (
                        context_run(compiled, &values),
                        context_run(&library, &values),
                    );
                    report.ended(&b);
                    let same = match (&a, &b) {
                        (Ok(a), Ok(b)) => a.iter().zip(b).all(|(a, b)| {
                            compare_values(
                                a,
                                b,
                                Tolerance {
                                    rtol: 0.0,
                                    atol: 0.0,
                                },
                            )
                            .is_ok()
                        }),
                        (Err(a), Err(b)) => a.class() == b.class(),
                        _ => false,
                    };
                    if !same {
                        report.find(
                            "wrong",
                            "the library differs from the code in memory".into(),
                        );
                    }
                }
            }
            Err(error) => report.find("library", format!("it cannot be opened: {error}")),
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}

impl Report {
    fn find(&mut self, kind: &'static str, text: String) {
        self.findings.push((kind, text));
    }

    /// An error that no model may cause.
    fn defect(&mut self, stage: &'static str, error: Option<&Error>) {
        if let Some(error) = error
            && error.class() == Class::Other
        {
            self.find("defect", format!("{stage}: {error}"));
        }
    }

    /// Notes how a run ended.
    fn ended<T>(&mut self, result: &Result<T, Error>) {
        self.stage = self.stage.max(if result.is_ok() {
            Stage::Ran
        } else {
            Stage::Compiled
        });
        let how = match result {
            Ok(_) => "ok".to_string(),
            Err(Error::Runtime(e)) => format!("{:?}", e.code()).to_lowercase(),
            Err(e) => format!("{:?}", e.class()).to_lowercase(),
        };
        if let Err(error) = result
            && matches!(how.as_str(), "internal" | "other" | "threads" | "abi")
        {
            self.find("defect", format!("run: {error}"));
        }
        self.runs.push(how);
    }
}
