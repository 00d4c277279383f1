//! `lapidary show`: a model at each level of the compiler.

mod layout;
mod page;
mod picture;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::FunctionBuilderContext;
use lapidary::{Compiled, Error, Level, Model, Options, pipeline};
use lapidary_codegen::MachineKernel;
use lapidary_codegen::expand::{Size, Target, expand};
use lapidary_codegen::kernel::Kernel;
use lapidary_codegen::x64::{self, Isa};
use lapidary_graph::NodeId;
use lapidary_link::PlanOptions;
use lapidary_lower::{KernelDef, Program, Step};
use target_lexicon::{PointerWidth, Triple};

use super::common::{CompileOptions, random_inputs, require_cpu, require_file};
use super::profile::{self, Call};

/// Runs that `--times` takes the mean of.
const TIMED_RUNS: usize = 5;

/// Prints a model as a stage of the compiler leaves it
#[derive(Args)]
pub struct Show {
    /// The model (.onnx)
    model: PathBuf,
    #[arg(long, value_enum, default_value_t = Stage::Graph)]
    stage: Stage,
    /// Only what comes from ONNX nodes with this in their names
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Stops after this pass (stage graph)
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,
    /// Leaves out a pass
    #[arg(long, value_name = "PASS")]
    skip: Vec<String>,
    /// Text, or a page with a picture of the graph before and after the passes (stage graph)
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Runs the model on random inputs and shows the time of each group in the picture
    #[arg(long)]
    times: bool,
    /// Draws each of repeated blocks
    #[arg(long)]
    unfold: bool,
    #[command(flatten)]
    compile: CompileOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The file: inputs, outputs, weights, nodes
    Onnx,
    /// The graph as imported
    Import,
    /// The graph after all passes, its fusion groups, and what the passes could not do
    Graph,
    /// The loops of each kernel and their schedule
    Loops,
    /// The registers and instructions of each kernel
    Kernel,
    /// Steps, buffers, weights
    Plan,
    /// The code of kernels that Cranelift emits
    Clif,
    /// Machine code of kernels
    Asm,
}

impl Show {
    pub fn run(self) -> Result<(), Error> {
        require_file(&self.model)?;
        let mut options = self.compile.options(0)?;
        options.skip_passes = self.skip.clone();
        let page = self.format == Format::Html;
        if page && (self.stage != Stage::Graph || self.filter.is_some()) {
            return Err(Error::Usage(
                "--format html draws the whole graph (hint: leave out --stage and --filter)"
                    .to_string(),
            ));
        }
        if !page && (self.times || self.unfold) {
            return Err(Error::Usage(
                "--times and --unfold are for the picture (hint: --format html)".to_string(),
            ));
        }
        let model = self.compile.load(&self.model)?;
        if page {
            return write(&mut std::io::stdout().lock(), &self.page(&model, &options)?);
        }
        let mut out = std::io::stdout().lock();
        let text = match self.stage {
            Stage::Onnx => self.onnx(&model),
            Stage::Import => self.lines(
                &pipeline::import(&model, &options, lapidary::operator::Target::Memory)?.to_text(),
            ),
            Stage::Graph => self.graph(&model, &options)?,
            Stage::Plan => {
                let program =
                    pipeline::program(&model, &options, lapidary::operator::Target::Memory)?;
                self.lines(&plan(&program)?)
            }
            Stage::Loops | Stage::Kernel | Stage::Clif | Stage::Asm => {
                let program =
                    pipeline::program(&model, &options, lapidary::operator::Target::Memory)?;
                return self.kernels(&program, &options, &mut out);
            }
        };
        write(&mut out, &text)
    }

    fn wants<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        match &self.filter {
            None => true,
            Some(filter) => names.any(|name| name.contains(filter.as_str())),
        }
    }

    /// Lines that have the filter in them.
    fn lines(&self, text: &str) -> String {
        match &self.filter {
            None => text.to_string(),
            Some(filter) => {
                let lines = text.lines().filter(|line| line.contains(filter.as_str()));
                lines.flat_map(|line| [line, "\n"]).collect()
            }
        }
    }

    fn onnx(&self, model: &Model) -> String {
        let proto = model.file().model();
        let graph = model.file().graph();
        let mut text = format!("ir version {}\n", proto.ir_version);
        for set in &proto.opset_import {
            let domain = if set.domain.is_empty() {
                "ai.onnx"
            } else {
                &set.domain
            };
            text.push_str(&format!("opset {domain} {}\n", set.version));
        }
        for (role, infos) in [("input", model.inputs()), ("output", model.outputs())] {
            for info in infos {
                let ty = super::common::type_text(&info);
                let default = if info.has_default { " (default)" } else { "" };
                text.push_str(&format!("{role} {}: {ty}{default}\n", info.name));
            }
        }
        for tensor in &graph.initializer {
            if self.wants([tensor.name.as_str()].into_iter()) {
                let dtype = lapidary::DType::from_onnx(tensor.data_type);
                let dtype = dtype.map_or("?".to_string(), |d| d.to_string());
                text.push_str(&format!(
                    "weight {}: {dtype}{:?}\n",
                    tensor.name, tensor.dims
                ));
            }
        }
        for node in &graph.node {
            if self.wants([node.name.as_str()].into_iter()) {
                let attributes: Vec<&str> =
                    node.attribute.iter().map(|a| a.name.as_str()).collect();
                text.push_str(&format!(
                    "{} = {}({}){}   ; {}\n",
                    node.output.join(", "),
                    node.op_type,
                    node.input.join(", "),
                    if attributes.is_empty() {
                        String::new()
                    } else {
                        format!(" {{{}}}", attributes.join(", "))
                    },
                    node.name
                ));
            }
        }
        text
    }

    /// Runs the passes, up to the one that is to be the last.
    fn optimize(
        &self,
        graph: &mut lapidary_graph::Graph,
        options: &Options,
    ) -> Result<lapidary_passes::Report, Error> {
        let passes = lapidary_passes::Options {
            skip: self.skip.clone(),
            stop_after: self.stop_after.clone(),
            ..Default::default()
        };
        let report = lapidary_passes::optimize(graph, &passes)
            .map_err(|error| Error::Usage(error.to_string()))?;
        if self.stop_after.is_none() {
            pipeline::keep_states(graph, options)?;
        }
        Ok(report)
    }

    /// The graph before and after the passes as pictures.
    fn page(&self, model: &Model, options: &Options) -> Result<String, Error> {
        let before = pipeline::import(model, options, lapidary::operator::Target::Memory)?;
        let mut after = before.clone();
        let report = self.optimize(&mut after, options)?;
        let (groups, more) = pipeline::groups(&after);
        let (times, timed) = match self.times {
            false => (None, String::new()),
            true if self.stop_after.is_some() => {
                return Err(Error::Usage(
                    "--times needs all passes (hint: leave out --stop-after)".to_string(),
                ));
            }
            true => {
                let (times, timed) = self.measure(model, options)?;
                (Some(times), timed)
            }
        };
        let passes = report.runs.iter().filter(|run| run.changed);
        let remarks = report.remarks.iter().chain(&more);
        Ok(page::html(&page::Shown {
            name: &self.model.display().to_string(),
            before: &before,
            after: &after,
            groups: &groups,
            passes: passes
                .map(|run| (run.name.to_string(), run.nodes))
                .collect(),
            remarks: remarks.map(ToString::to_string).collect(),
            times,
            timed,
            fold: !self.unfold,
        }))
    }

    /// The time of each step on one thread, under its first node, in milliseconds; and the inputs.
    fn measure(&self, model: &Model, options: &Options) -> Result<(page::Times, String), Error> {
        require_cpu(options)?;
        let options = Options {
            threads: 1,
            ..options.clone()
        };
        let program = pipeline::program(model, &options, lapidary::operator::Target::Memory)?;
        let mut steps = Vec::new();
        let mut by_name = HashMap::new();
        for step in &program.steps {
            let node = match step {
                Step::Kernel { nodes, .. } => nodes.first().copied(),
                Step::Library(step) => Some(step.node),
            };
            if let Some(data) = node.and_then(|n| program.graph.nodes.get(n)) {
                by_name.entry(data.name().to_string()).or_insert(node);
            }
            steps.push(node);
        }
        let compiled = Compiled::from_code(pipeline::jit(program, &options)?, &options)?;
        let inputs = random_inputs(Some(model), compiled.inputs(), &self.compile.dims)?;
        let calls = profile::profile(compiled.code().clone(), &inputs, 1, options.cpu, TIMED_RUNS)?;
        let node_of = |(at, call): (usize, &Call)| {
            if calls.len() == steps.len() && options.variants.is_empty() {
                steps[at]
            } else {
                // Copies and the calls of bodies stand between the steps, and variants have steps of their own.
                by_name.get(&call.node).copied().flatten()
            }
        };
        let mut times = page::Times::new();
        for (at, call) in calls.iter().enumerate() {
            if let Some(node) = node_of((at, call)) {
                let ms = call.time.as_secs_f64() * 1e3 / TIMED_RUNS as f64;
                *times.entry(node).or_insert(0.0) += ms;
            }
        }
        let shapes = compiled.inputs().iter().zip(&inputs);
        let shapes: Vec<String> = shapes
            .map(|(info, tensor)| format!("{} {:?}", info.name, tensor.shape()))
            .collect();
        Ok((times, shapes.join(", ")))
    }

    fn graph(&self, model: &Model, options: &Options) -> Result<String, Error> {
        let mut graph = pipeline::import(model, options, lapidary::operator::Target::Memory)?;
        let report = self.optimize(&mut graph, options)?;
        let (groups, more) = pipeline::groups(&graph);
        let mut text = self.lines(&graph.to_text());
        text.push_str("\ngroups\n");
        text.push_str(&self.lines(&lapidary_passes::fuse::groups_text(&graph, &groups)));
        let remarks: String = report
            .remarks
            .iter()
            .chain(&more)
            .map(|remark| format!("{remark}\n"))
            .collect();
        if !remarks.is_empty() {
            text.push_str("\nremarks\n");
            text.push_str(&self.lines(&remarks));
        }
        Ok(text)
    }

    fn kernels(
        &self,
        program: &Program,
        options: &Options,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        for (id, def) in program.kernels.iter() {
            let mut origins: Vec<&str> = Vec::new();
            for step in &program.steps {
                if let Step::Kernel { kernel, nodes, .. } = step
                    && *kernel == id
                {
                    origins.extend(nodes.iter().flat_map(|n| node_names(program, *n)));
                }
            }
            if !self.wants(origins.iter().copied()) {
                continue;
            }
            origins.dedup();
            write(out, &format!("; {}\n", origins.join(" | ")))?;
            let level = options.cpu.level();
            let text = match self.stage {
                Stage::Loops => def.loops.to_text(&def.schedule),
                Stage::Kernel => expanded(def, level)?.to_string(),
                Stage::Clif => clif(&expanded(def, Level::Baseline)?)?,
                _ => {
                    match lapidary_codegen::compile(&def.loops, &def.schedule, level, Size::Fast) {
                        Ok(MachineKernel::Wide(bytes)) => {
                            lapidary_codegen::x64::disassemble(&bytes)
                        }
                        // No wide emitter takes it: Cranelift makes its code, from this.
                        Ok(MachineKernel::Portable(kernel)) => clif(&kernel)?,
                        Err(error) => return Err(Error::Other(error.to_string())),
                    }
                }
            };
            write(out, &text)?;
            write(out, "\n")?;
        }
        for body in &program.bodies {
            self.kernels(&body.program, options, out)?;
        }
        Ok(())
    }
}

/// The kernel that an emitter of this level takes, from the widest vectors down.
fn expanded(def: &KernelDef, level: Level) -> Result<Kernel, Error> {
    let wide: &[(Isa, u32, u32)] = match level {
        Level::V4 => &[(Isa::Avx512, 16, 32), (Isa::Avx512, 8, 32)],
        Level::V3 => &[(Isa::Avx2, 8, 16), (Isa::Avx2, 4, 16)],
        Level::Baseline => &[],
    };
    let mut reason = String::new();
    for &(isa, lanes, vector_registers) in wide {
        let target = Target {
            lanes,
            vector_registers,
            masks: true,
            size: Size::Fast,
        };
        match expand(&def.loops, &def.schedule, target) {
            Ok(kernel) if x64::emit(&kernel, isa).is_ok() => return Ok(kernel),
            Ok(_) => {}
            Err(error) => reason = error.to_string(),
        }
    }
    for lanes in [4, 1] {
        let target = Target {
            lanes,
            vector_registers: 16,
            masks: false,
            size: Size::Fast,
        };
        match expand(&def.loops, &def.schedule, target) {
            Ok(kernel) if lapidary_codegen::clif::supports(&kernel) => return Ok(kernel),
            Ok(_) => {}
            Err(error) => reason = error.to_string(),
        }
    }
    Err(Error::Other(format!(
        "kernel `{}`: no emitter takes it: {reason}",
        def.loops.name
    )))
}

/// The plan for code in memory.
fn plan(program: &Program) -> Result<String, Error> {
    let plan = lapidary_link::plan(program, PlanOptions::MEMORY)?;
    Ok(plan.text(program))
}

/// What Cranelift gets.
fn clif(kernel: &Kernel) -> Result<String, Error> {
    let mut function = Function::new();
    let target = lapidary_codegen::clif::Target {
        config: TargetFrontendConfig {
            default_call_conv: CallConv::triple_default(&Triple::host()),
            pointer_width: PointerWidth::U64,
            page_size_align_log2: 12,
        },
        fma: false,
    };
    let mut context = FunctionBuilderContext::new();
    lapidary_codegen::clif::emit(kernel, &mut function, &mut context, target)
        .map_err(|error| Error::Other(error.to_string()))?;
    Ok(function.to_string())
}

fn node_names(program: &Program, node: NodeId) -> impl Iterator<Item = &str> {
    let origin = program.graph.nodes.get(node).map_or(&[][..], |n| &n.origin);
    origin.iter().map(String::as_str)
}

fn write(out: &mut impl Write, text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::Other(format!("cannot write to standard output: {error}")))
}
