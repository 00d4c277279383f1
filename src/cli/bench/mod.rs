//! `lapidary bench`: latency, start, memory and rate of a model, alone or against a peer.
//!
//! All variants (thread counts, and the peer at each) take turns in short rounds of one run of the command, so that
//! what else the machine does hits them alike. Start and memory are measured in fresh processes. The peak is an
//! FMA loop, measured between the rounds.

mod peak;
mod peer;
mod profile;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lapidary::case::{Case, DataSet};
use lapidary::compare::numbers;
use lapidary::operator::Target;
use lapidary::pipeline::Work;
use lapidary::random::Random;
use lapidary::{Compiled, Context, Error, Model, Options, Tensor, TensorView, pipeline};

use super::common::{
    CompileOptions, CpuChoice, is_library, print, random_input, require_cpu, require_file,
    shape_for,
};
use peer::{Against, Peer};
use report::Entry;

/// Rounds in which the variants take turns.
const ROUNDS: usize = 12;
/// Fresh processes that tell of a start; the median counts, so that files which only the first had to fetch from the
/// disk do not.
const STARTS: usize = 3;

/// Measures a model
#[derive(Args)]
pub struct Bench {
    /// A model (.onnx), a folder with one and data sets, or a compiled library (.so)
    path: PathBuf,
    /// Thread counts
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "N,…")]
    threads: Vec<usize>,
    /// Seconds of measuring for each variant
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Which data set of a folder gives the inputs
    #[arg(long, default_value_t = 0, value_name = "K")]
    set: usize,
    /// A peer to measure in the same run
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// Python for the peer; the active one if none is given
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Other instruction sets to measure in the same run, beside --cpu
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CPU,…")]
    beside: Vec<CpuChoice>,
    /// Shows the time of each kernel with its ONNX node, to stderr
    #[arg(long)]
    profile: bool,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    compile: CompileOptions,
    /// Measures start and memory of this very process (the command calls itself so)
    #[arg(long, hide = true)]
    once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What is measured: a model and one set of inputs.
struct Subject {
    /// The model or library.
    file: PathBuf,
    model: Option<Model>,
    set: Option<DataSet>,
}

impl Subject {
    fn open(bench: &Bench) -> Result<Subject, Error> {
        require_file(&bench.path)?;
        if Case::is_case(&bench.path) {
            let case = bench.compile.open_case(&bench.path)?;
            let set = match (case.sets.get(bench.set), bench.set) {
                (Some(folder), _) => Some(case.read_set(folder)?),
                (None, 0) => None,
                (None, k) => {
                    return Err(Error::Usage(format!(
                        "there is no data set {k}, '{}' has {}",
                        bench.path.display(),
                        case.sets.len()
                    )));
                }
            };
            return Ok(Subject {
                file: bench.path.join("model.onnx"),
                model: Some(case.model),
                set,
            });
        }
        let model = if is_library(&bench.path) {
            None
        } else {
            Some(bench.compile.load(&bench.path)?)
        };
        Ok(Subject {
            file: bench.path.clone(),
            model,
            set: None,
        })
    }

    fn compile(&self, options: &Options) -> Result<Compiled, Error> {
        match &self.model {
            Some(model) => {
                require_cpu(options)?;
                model.compile(options)
            }
            None => Compiled::open_library(&self.file, options),
        }
    }

    fn inputs(&self, bench: &Bench, compiled: &Compiled) -> Result<Vec<Tensor>, Error> {
        if let Some(set) = &self.set {
            return set.input_tensors();
        }
        let mut random = Random::new(0);
        let make = |info: &lapidary::ValueInfo| {
            if let Some(model) = &self.model
                && let Some(default) = model.default_of(&info.name)?
            {
                return Ok(default);
            }
            let shape = shape_for(info, &bench.compile.dims)?;
            random_input(&mut random, info, &shape, 2)
        };
        compiled.inputs().iter().map(make).collect()
    }
}

/// One thing that is measured.
struct Variant {
    runner: Runner,
    threads: usize,
    times: Vec<Duration>,
    /// Runs that fit into a turn.
    per_turn: usize,
    cold: Option<Duration>,
    peak_memory: Option<u64>,
    error: Option<f64>,
}

enum Runner {
    /// A name and what it runs.
    Own(String, Context),
    Peer(Peer),
}

impl Bench {
    pub fn run(self) -> Result<(), Error> {
        if self.once {
            return self.measure_once();
        }
        if self.threads.is_empty() || self.threads.contains(&0) || self.seconds.is_nan() {
            return Err(Error::Usage(
                "--threads takes numbers from 1, --seconds a number".to_string(),
            ));
        }
        let subject = Subject::open(&self)?;
        let options = self.compile.options(1)?;
        let work = match &subject.model {
            Some(model) => Some(Work::of(&pipeline::program(
                model,
                &options,
                Target::Memory,
            )?)),
            None => None,
        };
        let (inputs, mut variants) = self.variants(&subject)?;
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
        let peaks = self.measure(&mut variants, &inputs)?;

        let flops = work.as_ref().and_then(|work| work.flops(&shapes));
        let entries: Vec<Entry> = variants
            .iter()
            .map(|v| self.entry(v, flops, peaks.get(&v.threads).copied()))
            .collect();
        let name = self.path.display().to_string();
        match self.format {
            Format::Json => print(&format!("{}\n", report::json(&name, &entries)))?,
            Format::Table => print(&report::table(&name, &entries, &peaks))?,
        }
        if self.profile {
            let threads = self.threads.first().copied().unwrap_or(1);
            let compiled = subject.compile(&options)?;
            let p50 = entries.first().map_or(1.0, |e| e.p50_ms).max(1e-3);
            let runs = (self.seconds * 1e3 / p50).clamp(1.0, 1000.0) as usize;
            let calls = profile::profile(compiled.code().clone(), &inputs, threads, runs)?;
            // A variant has steps of its own.
            let work = work.as_ref().filter(|_| options.variants.is_empty());
            let steps = work.map(|work| work.step_flops(&shapes));
            eprint!(
                "{}",
                report::profile(&calls, runs, threads, steps.as_deref())
            );
        }
        Ok(())
    }

    /// Makes ready all that is measured, and runs each once for its result.
    fn variants(&self, subject: &Subject) -> Result<(Vec<Tensor>, Vec<Variant>), Error> {
        let mut variants = Vec::new();
        let mut inputs = Vec::new();
        for &threads in &self.threads {
            let expected = subject.set.as_ref().and_then(DataSet::output_tensors);
            let reference = expected.as_deref();
            let mut outputs = Vec::new();
            for (n, cpu) in std::iter::once(&self.compile.cpu)
                .chain(&self.beside)
                .enumerate()
            {
                let mut options = self.compile.options(threads)?;
                options.cpu = (*cpu).into();
                let compiled = subject.compile(&options)?;
                inputs = subject.inputs(self, &compiled)?;
                let mut context = compiled.context()?;
                let found = context.run_tensors(&inputs)?;
                let mut starts = Vec::new();
                let mut peak_memory = 0;
                for _ in 0..STARTS {
                    let (cold, memory) = self.fresh_process(threads, *cpu)?;
                    starts.push(cold);
                    peak_memory = peak_memory.max(memory);
                }
                let name = match cpu.to_possible_value().filter(|_| !self.beside.is_empty()) {
                    Some(cpu) => format!("lapidary {}", cpu.get_name()),
                    None => "lapidary".to_string(),
                };
                let name = match context.variant() {
                    Some(variant) if variant != "general" || !options.variants.is_empty() => {
                        format!("{name} ({variant})")
                    }
                    _ => name,
                };
                variants.push(Variant {
                    runner: Runner::Own(name, context),
                    threads,
                    times: Vec::new(),
                    per_turn: 1,
                    cold: median(starts),
                    peak_memory: Some(peak_memory),
                    error: reference.and_then(|expected| greatest_error(expected, &found)),
                });
                if n == 0 {
                    outputs = found;
                }
            }
            let Some(Against::Onnxruntime) = self.against else {
                continue;
            };
            let Some(model) = &subject.model else {
                return Err(Error::Usage(
                    "--against needs the model, not a compiled library".to_string(),
                ));
            };
            let python = self.python.clone().unwrap_or_else(|| "python3".into());
            let names = model.input_names();
            let feed: Vec<(&str, &Tensor)> = names.into_iter().zip(&inputs).collect();
            let start = || Peer::start(&python, &subject.file, &feed, threads);
            let mut peer = start()?;
            let mut starts = vec![peer.cold];
            for _ in 1..STARTS {
                // Its threads may spin still.
                drop(peer);
                peer = start()?;
                starts.push(peer.cold);
            }
            let by_name = peer.outputs()?;
            let expected = reference.unwrap_or(&outputs);
            let found: Option<Vec<Tensor>> = model
                .output_names()
                .iter()
                .map(|name| {
                    by_name
                        .iter()
                        .find(|(n, _)| n == name)
                        .map(|(_, t)| t.clone())
                })
                .collect();
            variants.push(Variant {
                threads,
                times: Vec::new(),
                per_turn: 1,
                cold: median(starts),
                peak_memory: Some(peer.peak_memory()?),
                error: found.and_then(|found| greatest_error(expected, &found)),
                runner: Runner::Peer(peer),
            });
        }
        Ok((inputs, variants))
    }

    /// Takes turns; gives the peak at each thread count.
    fn measure(
        &self,
        variants: &mut [Variant],
        inputs: &[Tensor],
    ) -> Result<BTreeMap<usize, f64>, Error> {
        let mut peaks = BTreeMap::new();
        let turn = Duration::from_secs_f64((self.seconds / ROUNDS as f64).clamp(0.001, 60.0));
        let bar = progress(ROUNDS * variants.len());
        for variant in variants.iter_mut() {
            // Warm, and find out how many runs fit into a turn.
            let begin = Instant::now();
            let mut runs = 0u32;
            while runs < 2 || (begin.elapsed() < turn / 2 && runs < 10_000) {
                variant.run(inputs, 1)?;
                runs += 1;
            }
            let each = (begin.elapsed() / runs).max(Duration::from_nanos(100));
            variant.per_turn = ((turn.as_secs_f64() / each.as_secs_f64()) as usize).max(1);
        }
        for round in 0..ROUNDS {
            if round % 4 == 0 {
                for &threads in &self.threads {
                    let found = peak::measure(threads);
                    let entry = peaks.entry(threads).or_insert(0.0);
                    *entry = f64::max(*entry, found);
                }
            }
            for variant in variants.iter_mut() {
                let times = variant.run(inputs, variant.per_turn)?;
                variant.times.extend(times);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(peaks)
    }

    fn entry(&self, variant: &Variant, flops: Option<f64>, peak: Option<f64>) -> Entry {
        let mut times: Vec<f64> = variant
            .times
            .iter()
            .map(|t| t.as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
            times.get(index).copied().unwrap_or(f64::NAN)
        };
        let p50_ms = at(0.5);
        let gflops = flops.map(|flops| flops / p50_ms / 1e6);
        Entry {
            name: match &variant.runner {
                Runner::Own(name, _) => name.clone(),
                Runner::Peer(peer) => peer.name.clone(),
            },
            threads: variant.threads,
            p50_ms,
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            cold_ms: variant.cold.map(|cold| cold.as_secs_f64() * 1e3),
            peak_rss_mb: variant.peak_memory.map(|bytes| bytes as f64 / 1e6),
            gflops,
            percent_of_peak: gflops.zip(peak).map(|(g, peak)| 100.0 * g / peak),
            max_abs_error: variant.error,
        }
    }

    /// Load, compile and first run in a process of its own, and the greatest memory it held.
    fn fresh_process(&self, threads: usize, cpu: CpuChoice) -> Result<(Duration, u64), Error> {
        let failed = |text: String| Error::Other(format!("the process for the start: {text}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(["bench", "--once", "--threads", &threads.to_string()]);
        command.args(["--set", &self.set.to_string()]);
        for dim in &self.compile.dims {
            command.args(["--dim", dim]);
        }
        for state in &self.compile.states {
            command.args(["--state", state]);
        }
        if self.compile.fix_defaults {
            command.arg("--fix-defaults");
        }
        if let Some(cpu) = cpu.to_possible_value() {
            command.args(["--cpu", cpu.get_name()]);
        }
        let output = command
            .arg("--")
            .arg(&self.path)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(cold)), Some(Ok(memory))) => Ok((Duration::from_nanos(cold), memory)),
            _ => Err(failed(
                String::from_utf8_lossy(&output.stderr).trim().to_string(),
            )),
        }
    }

    /// The other side of [`Bench::fresh_process`].
    fn measure_once(&self) -> Result<(), Error> {
        let threads = self.threads.first().copied().unwrap_or(1);
        let options = self.compile.options(threads)?;
        let begin = Instant::now();
        let subject = Subject::open(self)?;
        // Opening read the data set too, which is no part of a start; it is small.
        let compiled = subject.compile(&options)?;
        let mut context = compiled.context()?;
        let ready = begin.elapsed();
        let inputs = subject.inputs(self, &compiled)?;
        let begin = Instant::now();
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        context.run_in_place(&views)?;
        let cold = ready + begin.elapsed();
        print(&format!(
            "{} {}\n",
            cold.as_nanos(),
            peak_memory(Path::new("/proc/self/status"))
        ))
    }
}

impl Variant {
    fn run(&mut self, inputs: &[Tensor], times: usize) -> Result<Vec<Duration>, Error> {
        match &mut self.runner {
            Runner::Peer(peer) => peer.run(times),
            Runner::Own(_, context) => {
                // The context holds what is a state; each run begins with the value given, as a peer's does.
                let states: Vec<(usize, String)> = context
                    .states()
                    .iter()
                    .map(|s| (s.input, context.inputs()[s.input].name.clone()))
                    .collect();
                let mut views: Vec<Option<TensorView<'_>>> =
                    inputs.iter().map(|input| Some(input.view())).collect();
                for (at, _) in &states {
                    views[*at] = None;
                }
                let mut all = Vec::with_capacity(times);
                for _ in 0..times {
                    for (at, name) in &states {
                        context.set_state(name, &inputs[*at])?;
                    }
                    let begin = Instant::now();
                    context.run_some_in_place(&views)?;
                    all.push(begin.elapsed());
                }
                Ok(all)
            }
        }
    }
}

/// The greatest difference of floats; `None` where shapes differ or nothing can be subtracted.
fn greatest_error(expected: &[Tensor], found: &[Tensor]) -> Option<f64> {
    if expected.len() != found.len() {
        return None;
    }
    let mut greatest = 0f64;
    for (a, b) in expected.iter().zip(found) {
        if a.shape() != b.shape() {
            return None;
        }
        for (a, b) in numbers(a).iter().zip(numbers(b)) {
            let difference = (a - b).abs();
            if difference.is_finite() {
                greatest = greatest.max(difference);
            }
        }
    }
    Some(greatest)
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// `VmHWM` in bytes.
fn peak_memory(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// A bar on a terminal; nothing elsewhere.
fn progress(steps: usize) -> ProgressBar {
    use std::io::IsTerminal;
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}") {
        bar.set_style(style);
    }
    bar
}
