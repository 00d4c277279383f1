//! The stages from a model to code, one function each, so that a caller can stop after any.
//!
//! `import` → `optimize` → `lower` (with fusion groups) → `jit`. [`Work`] tells what a lowered program computes, for
//! reports.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lapidary_graph::{Dim, Graph, Groups, NodeId, Op, Sym, SymbolOrigin, ValueId};
use lapidary_import::ImportOptions;
use lapidary_link::{Artifact, CodeOptions, FileOptions, JitModel, Prepared, WeightsIn};
use lapidary_lower::{Operand, Program, Step};
use lapidary_onnx::checker;
use lapidary_passes::{Remark, Report};
use lapidary_runtime::ModelCode;

use crate::operator::Target;
use crate::{Cpu, Error, Faults, Model, Options, states, variants};

/// What [`Model::validate`] asks for, beyond what a compilation needs.
pub fn validate(model: &Model, options: &Options) -> Result<(), Error> {
    faultless(model, options, true)?;
    model.require_values()?;
    let import = ImportOptions {
        strict: !freed(options),
        ..import_options(model, options, Target::Memory)
    };
    sound(model, lapidary_import::import(model.file(), &import))?;
    Ok(())
}

/// Whether inputs have other dims than the model's, so that its own say nothing.
fn freed(options: &Options) -> bool {
    options.symbolic || !options.dims.is_empty()
}

/// Runs the checker.
pub fn faultless(model: &Model, options: &Options, full: bool) -> Result<(), Error> {
    model.file().verify_unchanged()?;
    let own = |domain: &str, name: &str| options.operators.contains(domain, name);
    let rules = checker::Rules {
        full,
        freed: freed(options),
        own: &own,
    };
    sound(
        model,
        checker::check_by(model.file(), &rules).map_err(Faults),
    )
}

fn import_options(model: &Model, options: &Options, target: Target) -> ImportOptions {
    ImportOptions {
        symbolic: options.symbolic,
        dims: options.dims.clone(),
        fix_defaults: model.has_fixed_defaults(),
        strict: false,
        audit: false,
        operators: options.operators.for_import(target),
    }
}

/// The graph as the importer makes it.
pub fn import(model: &Model, options: &Options, target: Target) -> Result<Graph, Error> {
    let import = import_options(model, options, target);
    let mut graph = sound(model, lapidary_import::import(model.file(), &import))?;
    graph.name = model.name();
    Ok(graph)
}

/// The result of a stage that has read the model's files, unless one of them shrank meanwhile: then that is what is
/// wrong.
pub fn sound<T, E>(model: &Model, result: Result<T, E>) -> Result<T, Error>
where
    Error: From<E>,
{
    model.file().verify_unchanged()?;
    Ok(result?)
}

/// Runs the passes over a graph.
pub fn optimize(graph: &mut Graph, options: &Options) -> Result<Report, Error> {
    let passes = lapidary_passes::Options {
        skip: options.skip_passes.clone(),
        ..Default::default()
    };
    lapidary_passes::optimize(graph, &passes).map_err(|e| Error::stage("passes", &e))
}

/// Makes states of the inputs and outputs that the options pair, in an optimised graph.
pub fn keep_states(graph: &mut Graph, options: &Options) -> Result<(), Error> {
    if options.states.is_empty() {
        return Ok(());
    }
    let pairs = states::pairs(graph, &options.states)?;
    lapidary_passes::states::keep(graph, &pairs).map_err(|e| Error::Usage(e.to_string()))?;
    lapidary_graph::verify::verify(graph).map_err(|errors| {
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Error::Compiler {
            stage: "states",
            message: text.join("\n"),
        }
    })
}

/// The fusion groups of an optimised graph, and why others were not formed.
pub fn groups(graph: &Graph) -> (Groups, Vec<Remark>) {
    lapidary_passes::fuse(graph)
}

/// The kernels and calls of an optimised graph.
pub fn lower(graph: Graph, groups: &Groups) -> Result<Program, Error> {
    Ok(lapidary_lower::lower(graph, groups)?)
}

/// All stages up to a lowered program, the checker first. Files that were cut short since they were opened are an
/// error, before anything reads them and again before the program's weights are packed.
pub fn program(model: &Model, options: &Options, target: Target) -> Result<Program, Error> {
    faultless(model, options, false)?;
    model.require_values()?;
    if options.variants.is_empty() {
        let graph = prepared(model, options, target)?;
        let (groups, _) = groups(&graph);
        return sound(model, lower(graph, &groups));
    }
    let graph = prepared(model, &variants::general(options), target)?;
    let mut special = Vec::new();
    for (guard, options) in variants::specialised(options)? {
        let mut graph_of = prepared(model, &options, target)?;
        variants::require_same_states(&graph, &graph_of, &guard)?;
        graph_of.name = guard;
        special.push(graph_of);
    }
    variants::share_constants(&graph, &mut special);
    let (all, _) = groups(&graph);
    let mut program = sound(model, lower(graph, &all))?;
    for graph in special {
        let (groups, _) = groups(&graph);
        program.add_variant(sound(model, lower(graph, &groups))?);
    }
    Ok(program)
}

/// Does something that needs one thread while another makes ready for the stages after it, where there are two processors.
pub fn warming_up<T>(options: &Options, work: impl FnOnce() -> T) -> T {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return work();
    }
    let level = code_options(options).level;
    std::thread::scope(|scope| {
        scope.spawn(move || lapidary_link::warm_up(level));
        work()
    })
}

/// The graph that is lowered.
fn prepared(model: &Model, options: &Options, target: Target) -> Result<Graph, Error> {
    let mut graph = import(model, options, target)?;
    sound(model, optimize(&mut graph, options))?;
    keep_states(&mut graph, options)?;
    Ok(graph)
}

/// Code in memory.
pub fn jit(program: Program, options: &Options) -> Result<Arc<dyn ModelCode>, Error> {
    let operators = options.operators.kernels();
    let code_options = CodeOptions {
        operators: &operators,
        ..code_options(options)
    };
    let code: JitModel = lapidary_link::jit(program, &code_options)?;
    Ok(code.code())
}

/// Code for a file, by the ending of its name, under temporary names until it is published.
pub fn prepare(
    program: &Program,
    name: &str,
    output: &Path,
    weights: Option<&Path>,
    options: &Options,
) -> Result<Prepared, Error> {
    let artifact = Artifact::of(output).ok_or_else(|| {
        Error::Usage(format!(
            "'{}' is of no known kind (hint: .so, .a or .o)",
            output.display()
        ))
    })?;
    prepare_as(
        program,
        artifact,
        output,
        weights,
        options,
        FileOptions::new(name),
    )
}

/// The archive of a model without the runtime, for a program that has it.
pub(crate) fn prepare_alone(
    program: &Program,
    name: &str,
    output: &Path,
    options: &Options,
) -> Result<Prepared, Error> {
    let mut file = FileOptions::new(name);
    file.alone = true;
    prepare_as(program, Artifact::Archive, output, None, options, file)
}

fn prepare_as(
    program: &Program,
    artifact: Artifact,
    output: &Path,
    weights: Option<&Path>,
    options: &Options,
    mut file: FileOptions,
) -> Result<Prepared, Error> {
    file.link = options.link.clone();
    if let Some(target) = &options.target {
        file.target = target.clone();
    }
    file.compiler = options.compiler.clone();
    file.runtime = options.runtime.clone();
    file.every_level = options.cpu == Cpu::Multi;
    if let Some(weights) = weights {
        file.weights = WeightsIn::Beside;
        file.weights_path = Some(weights.to_path_buf());
    }
    let code = CodeOptions {
        level: options.level(),
        ..code_options(options)
    };
    Ok(lapidary_link::prepare(
        program, artifact, output, &file, &code,
    )?)
}

/// The options of code, with all processors at work.
pub(crate) fn code_options(options: &Options) -> CodeOptions<'static> {
    CodeOptions {
        level: options.cpu.level(),
        release: Some(&lapidary_onnx::release),
        ..CodeOptions::host()
    }
}

/// What a program computes: the operations and bytes of each step, over the dims of the inputs.
pub struct Work {
    steps: Vec<StepWork>,
    /// Where a symbol's value is read: input and axis.
    symbols: HashMap<Sym, (usize, usize)>,
}

/// What a step computes; `None` where that is not known (operations of library calls, sizes that depend on data).
struct StepWork {
    /// Multiplications and additions of contractions.
    flops: Option<Dim>,
    /// Scalar operations, by the estimate that decides how many threads take part.
    cost: Option<Dim>,
    /// Bytes of all operands, each once.
    bytes: Option<Dim>,
}

impl Work {
    /// The work of a program.
    pub fn of(program: &Program) -> Work {
        let steps = program.steps.iter().map(|step| match step {
            Step::Kernel {
                flops,
                cost,
                buffers,
                nodes,
                ..
            } => StepWork {
                flops: Some(flops.clone()),
                cost: Some(cost.clone()),
                bytes: operand_bytes(program, buffers.iter().copied(), nodes),
            },
            Step::Library(step) => {
                let outputs = step.outputs.iter().map(|v| Operand::Value(*v));
                let operands = step.inputs.iter().flatten().copied().chain(outputs);
                StepWork {
                    flops: None,
                    cost: None,
                    bytes: operand_bytes(program, operands, &[step.node]),
                }
            }
        });
        let symbols = program
            .graph
            .symbols
            .iter()
            .filter_map(|(symbol, data)| match data.origin {
                SymbolOrigin::Input { input, axis } => {
                    Some((symbol, (input as usize, axis as usize)))
                }
                SymbolOrigin::Node { .. } => None,
            });
        Work {
            steps: steps.collect(),
            symbols: symbols.collect(),
        }
    }

    fn eval(&self, dim: &Option<Dim>, shapes: &[&[usize]]) -> Option<f64> {
        let value = |symbol: Sym| {
            let (input, axis) = self.symbols.get(&symbol)?;
            shapes.get(*input)?.get(*axis).map(|dim| *dim as i64)
        };
        dim.as_ref()?.eval(&value).map(|n| n as f64)
    }

    /// The multiplications and additions of each step for inputs of these shapes; `None` where they depend on data.
    pub fn step_flops(&self, shapes: &[&[usize]]) -> Vec<Option<f64>> {
        let step = |step: &StepWork| self.eval(&step.flops, shapes);
        self.steps.iter().map(step).collect()
    }

    /// The multiplications and additions of each step, or where there are none of these, the scalar operations.
    pub fn step_operations(&self, shapes: &[&[usize]]) -> Vec<Option<f64>> {
        let step = |step: &StepWork| {
            let flops = self.eval(&step.flops, shapes)?;
            if flops > 0.0 {
                Some(flops)
            } else {
                self.eval(&step.cost, shapes)
            }
        };
        self.steps.iter().map(step).collect()
    }

    /// The bytes of all operands of each step, each once; of what is gathered from, no more than is gathered.
    pub fn step_bytes(&self, shapes: &[&[usize]]) -> Vec<Option<f64>> {
        let step = |step: &StepWork| self.eval(&step.bytes, shapes);
        self.steps.iter().map(step).collect()
    }

    /// The sum over all steps that are known; `None` if it is 0.
    pub fn flops(&self, shapes: &[&[usize]]) -> Option<f64> {
        let sum: f64 = self.step_flops(shapes).into_iter().flatten().sum();
        (sum > 0.0).then_some(sum)
    }
}

/// The bytes of some operands; `None` where a size is not known before the run.
fn operand_bytes(
    program: &Program,
    operands: impl Iterator<Item = Operand>,
    nodes: &[NodeId],
) -> Option<Dim> {
    let graph = &program.graph;
    let size = |v: ValueId| {
        let ty = graph.ty(v);
        let known =
            ty.is_tensor() && ty.shape.is_some() && ty.dtype != lapidary_graph::DType::String;
        known.then(|| Dim::product(ty.dims()).mul(&Dim::Const(ty.dtype.bytes() as i64)))
    };
    let mut sum = Dim::Const(0);
    let mut met = Vec::new();
    for operand in operands {
        if met.contains(&operand) {
            continue;
        }
        met.push(operand);
        let bytes = match operand {
            Operand::Const(constant) => Dim::Const(program.constants[constant].size as i64),
            Operand::Value(v) => {
                let whole = size(v)?;
                let gathered = nodes.iter().filter_map(|n| {
                    let node = graph.nodes.get(*n)?;
                    let gathers = matches!(node.op, Op::Gather { .. } | Op::GatherNd { .. });
                    let output = node
                        .outputs
                        .first()
                        .filter(|_| gathers && node.input(0) == Some(v))?;
                    size(*output)
                });
                gathered.fold(whole, |least, output| least.minimum(&output))
            }
        };
        sum = sum.add(&bytes);
    }
    Some(sum)
}
