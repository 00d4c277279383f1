//! `lapidary bench`: latency, start, memory and rate of a model, alone or against peers.
//!
//! All variants (what `--vary` asks for, and the peers beside each) take turns in short rounds of one run of the
//! command, so that what else the machine does hits them alike. Start and memory are measured in fresh processes. The
//! peak is an FMA loop, measured between the rounds; the memory's bandwidth is measured after them.

mod bandwidth;
mod charts;
mod command;
mod layers;
mod machine;
mod page;
mod peak;
mod peer;
mod report;
mod saved;
mod start;
mod statistics;
mod subject;
mod variant;
mod vary;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::{Args, ValueEnum};
use lapidary::case::DataSet;
use lapidary::{Error, Tensor, files};

use super::common::{CompileOptions, CpuChoice, print};
use super::profile;
use bandwidth::Bandwidth;
use command::Whole;
use layers::Layer;
use machine::{Load, System};
use peer::{Engine, Peer};
use report::{Comparison, Report};
use saved::Saved;
use start::Fresh;
use subject::Subject;
use variant::{Runner, Variant, greatest_error, take_turns};
use vary::Scene;

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
    /// Takes random inputs, even where a folder has data sets
    #[arg(long)]
    random: bool,
    /// Measures a variant for each value: cpu=v3,v4 · threads=1,2 · mode=jit,aot · skip=PASS,… · dim.NAME=1,8
    #[arg(long, value_name = "KEY=VALUE,…")]
    vary: Vec<String>,
    /// Leaves out a pass
    #[arg(long, value_name = "PASS")]
    skip: Vec<String>,
    /// Peers to measure in the same run
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEER,…")]
    against: Vec<Engine>,
    /// A command line to measure in the same run, a whole process a run; {model}, {inputs} (.npz) and {threads} are
    /// replaced
    #[arg(long, value_name = "COMMAND")]
    against_command: Vec<String>,
    /// Python for peers; the active one if none is given
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Other instruction sets to measure in the same run, beside --cpu
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CPU,…")]
    beside: Vec<CpuChoice>,
    /// Shows the time of each kernel with its ONNX node, to stderr
    #[arg(long)]
    profile: bool,
    /// Writes a report with distributions, layers and rooflines: a page (.html), or data (.json) for --compare
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    /// Compares with a report (.json) of an earlier run
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    compile: CompileOptions,
    /// Measures start and memory of this very process (the command calls itself so)
    #[arg(long, hide = true)]
    once: bool,
    /// The library that --once opens
    #[arg(long, hide = true)]
    library: Option<PathBuf>,
    /// Inputs for --library
    #[arg(long, hide = true)]
    feed: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What peers of a scene share with its first variant.
struct First {
    inputs: Rc<Vec<Tensor>>,
    outputs: Vec<Tensor>,
    flops: Option<f64>,
}

impl Bench {
    pub fn run(mut self) -> Result<(), Error> {
        if self.once {
            return start::once(&self);
        }
        if self.seconds.is_nan() {
            return Err(Error::Usage("--seconds takes a number".to_string()));
        }
        let scenes = vary::scenes(&self)?;
        for path in &self.report {
            is_page(path)?;
        }
        let saved = self.compare.as_deref().map(Saved::read).transpose()?;
        // A data set is of one size.
        self.random |= scenes.iter().any(|scene| !scene.dims.is_empty());
        let subject = Subject::open(&self)?;
        let mut variants = Vec::new();
        for scene in &scenes {
            self.scene(&subject, scene, &mut variants)?;
        }
        let processes: Vec<u32> = variants.iter().filter_map(Variant::process).collect();
        let before = Load::now(&processes);
        let peaks = take_turns(&mut variants, self.seconds)?;
        let after = Load::now(&processes);

        let mut report = Report {
            model: self.path.display().to_string(),
            system: System::here(),
            noise: before
                .zip(after)
                .and_then(|(before, after)| after.since(&before)),
            bandwidths: BTreeMap::new(),
            entries: variants
                .iter()
                .map(|v| v.entry(peaks.get(&v.threads).copied()))
                .collect(),
            peaks,
            comparison: None,
        };
        if !self.report.is_empty() {
            let threads: Vec<usize> = report.peaks.keys().copied().collect();
            let measured = threads
                .iter()
                .filter_map(|n| Some((*n, bandwidth::measure(*n)?)));
            report.bandwidths = measured.collect();
            for (entry, variant) in report.entries.iter_mut().zip(&variants) {
                let peak = report.peaks.get(&entry.threads).copied();
                let bandwidth = report.bandwidths.get(&entry.threads).copied();
                entry.layers = self.layers(variant, entry.p50_ms, peak, bandwidth);
            }
        }
        report.comparison = saved.map(|saved| Comparison {
            differences: saved.differences(&report.entries),
            warnings: saved.warnings(&report.model, &report.system.short()),
            with: saved.path,
        });
        for path in &self.report {
            let text = if is_page(path)? {
                page::html(&report)
            } else {
                format!("{}\n", report.json())
            };
            files::write_file(path, |file| file.write_all(text.as_bytes()))?;
        }
        match self.format {
            Format::Json => print(&format!("{}\n", report.json()))?,
            Format::Table => print(&report.table())?,
        }
        if self.profile
            && let (Some(variant), Some(entry)) = (variants.first(), report.entries.first())
        {
            self.print_profile(variant, entry.p50_ms)?;
        }
        Ok(())
    }

    /// Makes ready all that is measured on the same inputs, and runs each once for its result.
    fn scene(
        &self,
        subject: &Subject,
        scene: &Scene,
        variants: &mut Vec<Variant>,
    ) -> Result<(), Error> {
        let expected = subject.set.as_ref().and_then(DataSet::output_tensors);
        let reference = expected.as_deref();
        let mut dims = self.compile.dims.clone();
        dims.extend(scene.dims.iter().cloned());
        let mut first: Option<First> = None;
        for setting in &scene.settings {
            let mut options = self.compile.options(scene.threads)?;
            for dim in &scene.dims {
                options.set_dim(dim)?;
            }
            options.cpu = setting.cpu.into();
            options.skip_passes = setting.skip.clone();
            let ready = subject.ready(&options, setting.mode)?;
            let inputs = match &first {
                Some(first) => first.inputs.clone(),
                None => Rc::new(subject.inputs(&ready.compiled, &dims)?),
            };
            let mut context = ready.compiled.context()?;
            let found = context.run_tensors(&inputs)?;
            let fresh = |library: Option<(&Path, &Path)>| {
                let fresh = Fresh {
                    threads: scene.threads,
                    setting,
                    dims: &scene.dims,
                    library,
                };
                start::measure(self, &fresh)
            };
            let (cold, peak_memory) = match &ready.library {
                None => fresh(None)?,
                Some((folder, library)) => {
                    let feed = folder.path().join("inputs.npz");
                    let infos = ready.compiled.inputs().iter();
                    let named = infos
                        .zip(inputs.iter())
                        .map(|(info, t)| (info.name.as_str(), t));
                    files::write_npz(&feed, named)?;
                    fresh(Some((library.as_path(), feed.as_path())))?
                }
            };
            let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
            let flops = ready.work.as_ref().and_then(|work| work.flops(&shapes));
            let name = title("lapidary", &[&setting.label, &scene.label]);
            let name = match context.variant() {
                Some(variant) if variant != "general" || !options.variants.is_empty() => {
                    format!("{name} ({variant})")
                }
                _ => name,
            };
            let runner = Runner::Own {
                context: Box::new(context),
                code: ready.compiled.code().clone(),
                cpu: options.cpu,
                // A variant has steps of its own.
                work: ready.work.filter(|_| options.variants.is_empty()),
            };
            let mut variant = Variant::new(name, runner, scene.threads, inputs.clone());
            variant.flops = flops;
            variant.cold = cold;
            variant.peak_memory = Some(peak_memory);
            variant.error = reference.and_then(|expected| greatest_error(expected, &found));
            variants.push(variant);
            first.get_or_insert(First {
                inputs,
                outputs: found,
                flops,
            });
        }
        if self.against.is_empty() && self.against_command.is_empty() {
            return Ok(());
        }
        let (Some(model), Some(first)) = (&subject.model, first) else {
            return Err(Error::Usage(
                "peers need the model, not a compiled library".to_string(),
            ));
        };
        let First {
            inputs,
            outputs,
            flops,
        } = first;
        let names = model.input_names();
        let feed: Vec<(&str, &Tensor)> = names.into_iter().zip(inputs.iter()).collect();
        let python = self.python.clone().unwrap_or_else(|| "python3".into());
        for engine in &self.against {
            let start = || Peer::start(*engine, &python, &subject.file, &feed, scene.threads);
            let mut peer = start()?;
            let mut starts = vec![peer.cold];
            for _ in 1..start::STARTS {
                // Its threads may spin still.
                drop(peer);
                peer = start()?;
                starts.push(peer.cold);
            }
            let by_name = peer.outputs()?;
            let of_name = |name: &String| {
                let found = by_name.iter().find(|(n, _)| n == name);
                found.map(|(_, t)| t.clone())
            };
            let found: Option<Vec<Tensor>> = model.output_names().iter().map(of_name).collect();
            let peak_memory = peer.peak_memory()?;
            let name = title(&peer.name, &[&scene.label]);
            let mut variant = Variant::new(name, Runner::Peer(peer), scene.threads, inputs.clone());
            variant.flops = flops;
            variant.cold = start::median(starts);
            variant.peak_memory = Some(peak_memory);
            let expected = reference.unwrap_or(&outputs);
            variant.error = found.and_then(|found| greatest_error(expected, &found));
            variants.push(variant);
        }
        for line in &self.against_command {
            let whole = Whole::new(line, &subject.file, &feed, scene.threads)?;
            let name = title(&whole.name(), &[&scene.label]);
            let runner = Runner::Process(whole);
            variants.push(Variant::new(name, runner, scene.threads, inputs.clone()));
        }
        Ok(())
    }

    /// Profiled runs that fit into the time of a variant.
    fn profiled_runs(&self, p50_ms: f64) -> usize {
        (self.seconds * 1e3 / p50_ms.max(1e-3)).clamp(1.0, 1000.0) as usize
    }

    /// Where the time of own code goes; `None` for others.
    fn layers(
        &self,
        variant: &Variant,
        p50_ms: f64,
        peak: Option<f64>,
        bandwidth: Option<Bandwidth>,
    ) -> Option<Result<Vec<Layer>, String>> {
        let Runner::Own {
            code, work, cpu, ..
        } = &variant.runner
        else {
            return None;
        };
        let runs = self.profiled_runs(p50_ms);
        let calls = profile::profile(code.clone(), &variant.inputs, variant.threads, *cpu, runs);
        let shapes: Vec<&[usize]> = variant.inputs.iter().map(Tensor::shape).collect();
        let work = work.as_ref().map(|work| (work, shapes.as_slice()));
        let calls = calls.map_err(|error| error.to_string());
        Some(calls.map(|calls| layers::layers(&calls, runs, work, peak, bandwidth)))
    }

    fn print_profile(&self, variant: &Variant, p50_ms: f64) -> Result<(), Error> {
        let Runner::Own {
            code, work, cpu, ..
        } = &variant.runner
        else {
            return Ok(());
        };
        let runs = self.profiled_runs(p50_ms);
        let calls = profile::profile(code.clone(), &variant.inputs, variant.threads, *cpu, runs)?;
        let shapes: Vec<&[usize]> = variant.inputs.iter().map(Tensor::shape).collect();
        let steps = work.as_ref().map(|work| work.step_flops(&shapes));
        eprint!(
            "{}",
            report::profile(&calls, runs, variant.threads, steps.as_deref())
        );
        Ok(())
    }
}

/// A name with its labels.
fn title(name: &str, labels: &[&str]) -> String {
    let labels = labels.iter().filter(|label| !label.is_empty());
    labels.fold(name.to_string(), |name, label| format!("{name} {label}"))
}

/// Whether a report is to be a page; otherwise it is data.
fn is_page(path: &Path) -> Result<bool, Error> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html") => Ok(true),
        Some("json") => Ok(false),
        _ => Err(Error::Usage(format!(
            "--report '{}' is of no known kind (hint: .html or .json)",
            path.display()
        ))),
    }
}
