//! One case: a mutant is made of a seed's number, checked, compiled and run, and what it ends in is told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lapidary::compare::{Mismatch, Tolerance, compare_values};
use lapidary::operator::Target;
use lapidary::random::Random;
use lapidary::reference::{self, Reference};
use lapidary::{Class, Compiled, Cpu, DType, Error, Model, Options, OwnedValue, Tensor, pipeline};
use lapidary_graph::{Graph, Op, PwOp};
use lapidary_onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use lapidary_runtime::ErrorCode;
use prost::Message;

use super::corpus::{Corpus, Seed};
use super::inputs::{Named, inputs, spoil};
use super::mutate::{Source, corrupt, mutate};

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
    if limited || took > SHORT {
        return;
    }
    note("interpret");
    let Ok(graph) = pipeline::import(model, options, Target::Memory) else {
        return;
    };
    let floats = graph.values.values().any(|v| v.ty.dtype.is_float());
    let tame =
        tame_model(model) && tame_graph(&graph) && values.iter().all(|v| tame_value(v, floats));
    let exact = exact(&graph);
    let tolerance = match exact && !tame {
        true => Tolerance {
            rtol: 1e-6,
            atol: 0.0,
        },
        false => tolerance,
    };
    let expected = reference::run(&graph, values, 1 << 24);
    match (expected, result) {
        (Reference::Values(expected), Ok(found)) => {
            report.runs.push("compared".into());
            for ((name, expected), found) in graph
                .outputs
                .iter()
                .map(|(n, _)| n)
                .zip(&expected)
                .zip(&found)
            {
                if let Err(mismatch) = compare_values(expected, found, tolerance)
                    && (tame || exact || !elements_alone(&mismatch))
                {
                    report.find("wrong", format!("'{name}': {mismatch}"));
                }
            }
        }
        (Reference::Refused(why), Ok(_)) => {
            report.find("taken", format!("runs, but the interpreter says: {why}"));
        }
        (Reference::Values(_), Err(error)) => {
            report.find("refused", format!("only the interpreter runs it: {error}"));
        }
        (Reference::Refused(_), Err(_)) | (Reference::Unknown, _) => {}
    }
}

/// Whether a graph moves elements and computes single ones by operations that IEEE rounds: the interpreter must agree
/// then, relative to what numbers there are, however large those are.
fn exact(graph: &Graph) -> bool {
    let rounded = |op: &PwOp| {
        matches!(
            op,
            PwOp::Input(_) | PwOp::Const(_) | PwOp::Index(_) | PwOp::Dim(_)
        ) || matches!(
            op,
            PwOp::Neg
                | PwOp::Abs
                | PwOp::Sign
                | PwOp::Sqrt
                | PwOp::Floor
                | PwOp::Ceil
                | PwOp::Round
        ) || matches!(op, PwOp::Add | PwOp::Sub | PwOp::Mul | PwOp::Div)
            || matches!(op, PwOp::Min | PwOp::Max | PwOp::And | PwOp::Or)
            || matches!(op, PwOp::Xor | PwOp::Shl | PwOp::Shr | PwOp::Not)
            || matches!(op, PwOp::Eq | PwOp::Lt | PwOp::Le | PwOp::Gt | PwOp::Ge)
            || matches!(op, PwOp::IsNan | PwOp::IsInf | PwOp::Select)
            || matches!(op, PwOp::Cast | PwOp::Bitcast)
    };
    graph.order.iter().all(|n| match &graph.nodes[*n].op {
        Op::Pointwise { body, .. } => body.nodes.iter().all(|p| rounded(&p.op)),
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } | Op::Slice { .. } => true,
        Op::Concat { .. } | Op::Pad { .. } | Op::Shape(_) => true,
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => true,
        _ => false,
    })
}

/// Whether a number is of a size at which sums keep their digits, so that the interpreter, which sums in f64, must agree.
fn tame(number: f64) -> bool {
    number.abs() <= 1e4
}

/// Integers count where floats are made of them.
fn tame_value(value: &OwnedValue, integers: bool) -> bool {
    match value {
        OwnedValue::Tensor(tensor) => tame_tensor(tensor, integers),
        OwnedValue::Sequence(all) => all.iter().all(|v| tame_value(v, integers)),
        OwnedValue::Optional(inside) => inside.as_deref().is_none_or(|v| tame_value(v, integers)),
        OwnedValue::Map { keys, values } => {
            tame_tensor(keys, integers) && tame_value(values, integers)
        }
    }
}

/// Whether no constant of an operator swallows digits of what it is added to, as the -10000 under a mask.
fn tame_graph(graph: &Graph) -> bool {
    let swallows = |p: &lapidary_graph::PwNode| match p.op {
        PwOp::Const(s) => s.dtype.is_float() && (1e4..1e9).contains(&s.to_f64().abs()),
        _ => false,
    };
    !graph.order.iter().any(|n| match &graph.nodes[*n].op {
        Op::Pointwise { body, .. } => body.nodes.iter().any(swallows),
        _ => false,
    })
}

fn tame_tensor(tensor: &Tensor, integers: bool) -> bool {
    let number = |bytes: &[u8]| match (tensor.dtype(), bytes) {
        (DType::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (DType::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        (DType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (DType::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
        (DType::I64, &[a, b, c, d, e, f, g, h]) if integers => {
            i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64
        }
        (DType::U64, &[a, b, c, d, e, f, g, h]) if integers => {
            u64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64
        }
        (DType::I32, &[a, b, c, d]) if integers => f64::from(i32::from_le_bytes([a, b, c, d])),
        (DType::U32, &[a, b, c, d]) if integers => f64::from(u32::from_le_bytes([a, b, c, d])),
        _ => 0.0,
    };
    let width = tensor.dtype().bytes().max(1);
    let small = lapidary_graph::DType::from_onnx(tensor.dtype().onnx());
    let minifloat = small.is_some_and(|t| t.is_minifloat());
    !minifloat && tensor.bytes().chunks_exact(width).all(|b| tame(number(b)))
}

/// The same of the constants and attributes of a model.
fn tame_model(model: &Model) -> bool {
    let constant = |t: &TensorProto| {
        let raw = t.raw_data.chunks_exact(4);
        let raw = raw.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let raw = raw.filter(|_| t.data_type == 1).map(f64::from);
        let single = t.float_data.iter().copied().map(f64::from);
        single
            .chain(t.double_data.iter().copied())
            .chain(raw)
            .all(tame)
    };
    fn nodes(graph: &GraphProto) -> Vec<&NodeProto> {
        let inner = graph.node.iter().flat_map(|n| &n.attribute);
        let inner = inner.filter_map(|a| a.g.as_ref()).flat_map(nodes);
        graph.node.iter().chain(inner).collect()
    }
    let graph = model.file().graph();
    graph.initializer.iter().all(constant)
        && nodes(graph).iter().flat_map(|n| &n.attribute).all(|a| {
            let numbers = a.floats.iter().chain([&a.f]);
            numbers.copied().map(f64::from).all(tame) && a.t.iter().all(constant)
        })
}

/// Whether values differ in their elements, and not in kind, type or shape.
fn elements_alone(mismatch: &Mismatch) -> bool {
    match mismatch {
        Mismatch::Elements { .. } => true,
        Mismatch::Inside { mismatch, .. } => elements_alone(mismatch),
        _ => false,
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
