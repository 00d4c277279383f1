//! Machine code from kernels and driver functions, on several threads.
//!
//! Everything becomes plain bytes with relocations before a module sees it: the expensive part runs
//! in parallel, defining is serial and cheap, and the size of the code is known before memory is
//! taken.

use crate::CodeOptions;
use crate::driver::{self, Callee, Request, signature};
use crate::error::LinkError;
use crate::levels;
use crate::plan::{Action, Plan};
use crate::target;
use cranelift_codegen::Context;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, InstBuilder, UserFuncName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{
    DataDescription, DataId, FuncId, FuncOrDataId, Init, Linkage, Module, ModuleReloc,
    ModuleRelocTarget,
};
use lapidary_codegen::kernel::{MathFn, math_fn_offset};
use lapidary_codegen::{CompileError, Level, MachineKernel, Size, clif};
use lapidary_graph::EntityMap;
use lapidary_lower::program::{KernelDef, KernelId, Program};
use lapidary_runtime::abi::{self, cpu};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use target_lexicon::{Architecture, Triple};

/// Code of one function, before it is placed.
pub(crate) struct Code {
    pub id: FuncId,
    pub align: u64,
    pub bytes: Vec<u8>,
    pub relocs: Vec<ModuleReloc>,
    /// What it calls of the C library through the function table.
    pub math: BTreeSet<MathFn>,
}

/// Cranelift for kernels of one level.
pub(crate) struct LevelIsa {
    pub level: Level,
    size: Size,
    isa: OwnedTargetIsa,
    /// Whether multiply-add is one instruction.
    fma: bool,
}

/// Cranelift for a target: for kernels of each level, the lowest first, and for the driver, which takes no more than
/// the lowest has.
pub(crate) struct Isas {
    pub levels: Vec<LevelIsa>,
    pub driver: OwnedTargetIsa,
}

/// How much code a level's kernels may be, among those of other levels. Machines of the lowest are rare, and no longer made to
/// be fast: what runs at all will do for them. The others must lose nothing that one would notice.
fn size(level: Level, all: &[Level]) -> Size {
    match level {
        _ if all.len() < 2 => Size::Fast,
        Level::Baseline => Size::Least,
        Level::V3 | Level::V4 => Size::Lean,
    }
}

/// The levels that a target has.
pub(crate) fn levels_of(triple: &Triple) -> &'static [Level] {
    match target::has_levels(triple) {
        true => &[Level::Baseline, Level::V3, Level::V4],
        false => &[Level::Baseline],
    }
}

impl Isas {
    /// For kernels of some levels, the lowest first: at least one.
    pub fn new(triple: &Triple, levels: &[Level], pic: bool) -> Result<Isas, LinkError> {
        let isa = |optimise: &str, level: Level| -> Result<OwnedTargetIsa, LinkError> {
            let code = |e: &dyn std::fmt::Display| LinkError::code("target settings", e);
            let mut flags = settings::builder();
            for (name, value) in [
                ("opt_level", optimise),
                ("is_pic", if pic { "true" } else { "false" }),
                ("use_colocated_libcalls", "false"),
                ("probestack_strategy", "inline"),
                ("unwind_info", "false"),
                (
                    "enable_verifier",
                    if cfg!(debug_assertions) {
                        "true"
                    } else {
                        "false"
                    },
                ),
            ] {
                flags.set(name, value).map_err(|e| code(&e))?;
            }
            let mut builder = cranelift_codegen::isa::lookup(triple.clone()).map_err(|e| {
                LinkError::Unsupported {
                    what: format!("the target `{triple}`"),
                    hint: e.to_string(),
                }
            })?;
            if triple.architecture == Architecture::X86_64 {
                let presets: &[&str] = match level {
                    Level::Baseline => &["x86-64-v2"],
                    Level::V3 => &["x86-64-v3", "has_avx"],
                    Level::V4 => &["x86-64-v4", "has_avx", "has_avx512f"],
                };
                for preset in presets {
                    builder.enable(preset).map_err(|e| code(&e))?;
                }
            }
            builder
                .finish(settings::Flags::new(flags))
                .map_err(|e| code(&e))
        };
        let kernels = levels.iter().map(|level| {
            Ok(LevelIsa {
                level: *level,
                size: size(*level, levels),
                isa: isa("speed", *level)?,
                fma: triple.architecture != Architecture::X86_64 || *level != Level::Baseline,
            })
        });
        Ok(Isas {
            levels: kernels.collect::<Result<_, LinkError>>()?,
            driver: isa("none", levels.first().copied().unwrap_or(Level::Baseline))?,
        })
    }
}

/// The features that code of a level needs.
pub(crate) fn cpu_features(triple: &Triple, level: Level) -> u64 {
    match (triple.architecture, level) {
        (Architecture::X86_64, Level::Baseline) => cpu::X86_V2,
        (Architecture::X86_64, Level::V3) => cpu::X86_V2 | cpu::AVX2,
        (Architecture::X86_64, Level::V4) => cpu::X86_V2 | cpu::AVX2 | cpu::AVX512,
        _ => 0,
    }
}

/// Does once in a process what its first compilation would else do before the first instruction stands: the encoder's
/// and Cranelift's tables are made, and their code comes into memory. What it compiles is thrown away, and so is any error: whoever
/// compiles next meets it again.
pub fn warm_up(level: Level) {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let Ok(isas) = Isas::new(&Triple::host(), &[level], false) else {
            return;
        };
        lapidary_codegen::warm_up(level);
        let mut f = Function::new();
        f.signature.call_conv = isas.driver.default_call_conv();
        let mut context = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut f, &mut context);
        let block = builder.create_block();
        builder.switch_to_block(block);
        builder.ins().return_(&[]);
        builder.seal_all_blocks();
        builder.finalize(isas.driver.frontend_config());
        let _ = Context::for_function(f).compile(&*isas.driver, &mut ControlPlane::default());
    });
}

/// Makes the driver of a plan and of its bodies in a module and compiles them and the kernels.
pub(crate) fn compile<M: Module>(
    module: &mut M,
    isas: &Isas,
    options: &CodeOptions<'_>,
    program: &Program,
    plan: &Plan,
    name: &str,
    weights: driver::WeightsAt,
) -> Result<(Driver, Vec<Code>), LinkError> {
    let levels: Vec<Level> = isas.levels.iter().map(|l| l.level).collect();
    let choices = match levels.len() {
        0 | 1 => None,
        _ => {
            let symbol = format!("{name}_kernels");
            let signature = module.make_signature();
            let id = module.declare_function(&symbol, Linkage::Local, &signature);
            Some(id.map_err(|e| LinkError::code(&symbol, e))?)
        }
    };
    let lowest = levels.first().copied().unwrap_or(options.level);
    let mut parts = Parts {
        module,
        cpu_features: cpu_features(isas.driver.triple(), lowest),
        levels: &levels,
        choices,
        share: !program.bodies.is_empty(),
        shared: HashMap::new(),
        kernels: Vec::new(),
        numbers: 0,
        functions: Vec::new(),
        data: Vec::new(),
    };
    let table = parts.add(program, plan, name, Some(weights), false)?;
    let Parts {
        module,
        kernels,
        functions,
        data,
        ..
    } = parts;
    let mut work: Vec<Work<'_>> = Vec::new();
    for kernel in &kernels {
        let each = kernel.ids.iter().zip(&isas.levels).enumerate();
        let each =
            each.filter(|(_, (_, isa))| isas.levels.len() < 2 || isa.level <= kernel.highest);
        work.extend(each.map(|(at, (id, isa))| Work::Kernel(*id, kernel.def, isa, at == 0)));
    }
    // What is long begins first.
    work.extend(
        functions
            .into_iter()
            .map(|(id, f)| Work::Driver(id, Mutex::new(Some(Box::new(f))))),
    );
    let codes = parallel(&work, threads(options.threads), |w| match w {
        Work::Kernel(id, def, isa, lowest) => kernel(*id, def, isa, *lowest),
        Work::Driver(id, f) => {
            let f = f.lock().unwrap_or_else(PoisonError::into_inner).take();
            match f {
                Some(f) => function(*id, *f, &isas.driver, "driver").map(Some),
                None => Err(LinkError::code("driver", "it was compiled already")),
            }
        }
    })?;
    let mut codes: Vec<Code> = codes.into_iter().flatten().collect();
    if let Some(id) = choices {
        let mut same = merge(&mut codes, &kernels);
        let declared = declare_made(module, &kernels, &mut codes)?;
        for id in same.values_mut() {
            *id = declared.get(id).copied().unwrap_or(*id);
        }
        codes.push(choice_table(id, &kernels, &same));
    }
    Ok((Driver { data, table }, codes))
}

/// Leaves one of kernels whose code is the same, as that of scalars is for two levels. Gives for each function the one
/// that stands for it.
fn merge(codes: &mut Vec<Code>, kernels: &[Kernel<'_>]) -> HashMap<FuncId, FuncId> {
    let kernels: HashSet<FuncId> = kernels.iter().flat_map(|k| k.ids.iter().copied()).collect();
    let mut first: HashMap<(u64, Vec<u8>), FuncId> = HashMap::new();
    let mut same = HashMap::new();
    codes.retain(|code| {
        // What refers to others is alike only if these are at the same distance; and the driver names its functions.
        let id = match code.relocs.is_empty() && kernels.contains(&code.id) {
            true => *first
                .entry((code.align, code.bytes.clone()))
                .or_insert(code.id),
            false => code.id,
        };
        same.insert(code.id, id);
        id == code.id
    });
    same
}

/// Declares the kernels of several levels that have code, in place of the numbers that stood for them: a module must define
/// what it declares. Gives what each number became.
fn declare_made<M: Module>(
    module: &mut M,
    kernels: &[Kernel<'_>],
    codes: &mut [Code],
) -> Result<HashMap<FuncId, FuncId>, LinkError> {
    let symbols: HashMap<FuncId, &String> = kernels
        .iter()
        .flat_map(|k| k.ids.iter().copied().zip(&k.symbols))
        .collect();
    let signature = signature::kernel(module);
    let mut declared = HashMap::new();
    for code in codes {
        let Some(symbol) = symbols.get(&code.id) else {
            continue;
        };
        let id = module
            .declare_function(symbol, Linkage::Local, &signature)
            .map_err(|e| LinkError::code(symbol.as_str(), e))?;
        for reloc in &mut code.relocs {
            if let ModuleRelocTarget::FunctionOffset(of, _) = &mut reloc.name
                && *of == code.id
            {
                *of = id;
            }
        }
        declared.insert(code.id, id);
        code.id = id;
    }
    Ok(declared)
}

/// The table by which the driver finds a kernel's code: for each kernel and level, the distance from the table's begin to
/// the code, 32 bits. It lies among the code, where distances need nothing of the loader.
fn choice_table(id: FuncId, kernels: &[Kernel<'_>], made: &HashMap<FuncId, FuncId>) -> Code {
    let mut relocs = Vec::new();
    let mut at = 0;
    for kernel in kernels {
        let mut code = kernel.ids.first().copied().unwrap_or(id);
        for level in &kernel.ids {
            // A level without code of its own takes that of the level before.
            if let Some(made) = made.get(level) {
                code = *made;
            }
            relocs.push(ModuleReloc {
                offset: at,
                kind: Reloc::X86PCRel4,
                name: FuncOrDataId::Func(code).into(),
                addend: i64::from(at),
            });
            at += 4;
        }
    }
    Code {
        id,
        align: 16,
        bytes: vec![0; at as usize],
        relocs,
        math: BTreeSet::new(),
    }
}

/// The model table and all data that it points to, compiled but not defined.
pub(crate) struct Driver {
    pub data: Vec<(DataId, DataDescription)>,
    /// The table of the model.
    pub table: DataId,
}

impl Driver {
    /// Refers to what code calls of the C library, behind the table's end where nothing reads it: the runtime's own references
    /// are weak, so that a static program holds no function that none of its models calls.
    pub fn refer<M: Module>(&mut self, module: &mut M, codes: &[Code]) -> Result<(), LinkError> {
        let functions: BTreeSet<MathFn> =
            codes.iter().flat_map(|c| c.math.iter().copied()).collect();
        let table = self.data.iter_mut().find(|(id, _)| *id == self.table);
        let Some((_, table)) = table else {
            return Ok(());
        };
        let Init::Bytes { contents } = &table.init else {
            return Ok(());
        };
        let mut bytes = contents.to_vec();
        let signature = module.make_signature();
        for function in functions {
            let entry = math_fn_offset(function) as usize / 8;
            let Some(name) = abi::RT_NAMES.get(entry) else {
                return Err(LinkError::code(
                    "the function table",
                    format!("no entry {entry}"),
                ));
            };
            let id = module
                .declare_function(name, Linkage::Import, &signature)
                .map_err(|e| LinkError::code(*name, e))?;
            let id = module.declare_func_in_data(id, table);
            table.write_function_addr(bytes.len() as u32, id);
            bytes.resize(bytes.len() + 8, 0);
        }
        table.init = Init::Bytes {
            contents: bytes.into_boxed_slice(),
        };
        Ok(())
    }
}

/// A kernel and its functions, one for each level.
struct Kernel<'a> {
    /// Where there are several levels, numbers that stand for what [`declare_made`] declares.
    ids: Vec<FuncId>,
    symbols: Vec<String>,
    def: &'a KernelDef,
    /// The highest level with code of its own.
    highest: Level,
}

enum Work<'a> {
    /// For a level; whether that is the lowest.
    Kernel(FuncId, &'a KernelDef, &'a LevelIsa, bool),
    Driver(FuncId, Mutex<Option<Box<Function>>>),
}

/// What a program and its bodies are made of, gathered before any of it is compiled.
struct Parts<'a, 'm, M: Module> {
    module: &'m mut M,
    levels: &'m [Level],
    cpu_features: u64,
    /// The table of kernels by level, if there are several levels.
    choices: Option<FuncId>,
    /// Whether equal kernels of several programs are one.
    share: bool,
    /// Kernels by their loops under a neutral name.
    shared: HashMap<KernelDef, Callee>,
    kernels: Vec<Kernel<'a>>,
    /// How many numbers stand for kernels.
    numbers: u32,
    functions: Vec<(FuncId, Function)>,
    data: Vec<(DataId, DataDescription)>,
}

/// Numbers of kernels that are not declared yet begin here, above those of all functions that a module has.
const FIRST_NUMBER: u32 = 1 << 31;

impl<'a, M: Module> Parts<'a, '_, M> {
    /// Adds a program, after its bodies; without weights it is a body itself, of a region or a variant. Gives its table.
    fn add(
        &mut self,
        program: &'a Program,
        plan: &Plan,
        name: &str,
        weights: Option<driver::WeightsAt>,
        region: bool,
    ) -> Result<DataId, LinkError> {
        let mut bodies = Vec::with_capacity(program.bodies.len());
        for (b, (body, plan)) in program.bodies.iter().zip(&plan.bodies).enumerate() {
            let inside = region || !program.variants.contains(&b);
            bodies.push(self.add(&body.program, plan, &format!("{name}_r{b}"), None, inside)?);
        }
        let highest = match (region, self.levels.last()) {
            (true, Some(last)) => vec![*last; program.kernels.len()],
            _ => levels::highest(program, self.levels),
        };
        let kernels = self.declare(program, plan, name, &highest)?;
        let pinned: Vec<u64> = plan
            .pinned
            .iter()
            .map(|v| program.graph.constant(*v))
            .map(|t| t.map_or(0, |t| t.bytes.as_ptr() as u64))
            .collect();
        let driver = driver::build(
            self.module,
            &Request {
                program,
                plan,
                name,
                kernels: &kernels,
                levels: self.levels,
                choices: self.choices,
                cpu_features: self.cpu_features,
                pinned: &pinned,
                body: weights.is_none(),
                weights: weights.unwrap_or(driver::WeightsAt::None),
                bodies: &bodies,
            },
        )?;
        self.functions.extend(driver.functions);
        self.data.extend(driver.data);
        Ok(driver.table)
    }

    /// Declares a program's kernels, and notes those that are used and new.
    fn declare(
        &mut self,
        program: &'a Program,
        plan: &Plan,
        name: &str,
        highest: &[Level],
    ) -> Result<EntityMap<KernelId, Callee>, LinkError> {
        let mut used = vec![false; program.kernels.len()];
        for step in &plan.steps {
            if let Action::Kernel { kernel, .. } = &step.action
                && let Some(u) = used.get_mut(kernel.0 as usize)
            {
                *u = true;
            }
        }
        let signature = signature::kernel(self.module);
        let mut ids = EntityMap::new();
        for (((k, def), used), highest) in program.kernels.iter().zip(used).zip(highest) {
            let neutral = (self.share && used).then(|| {
                let mut neutral = def.clone();
                neutral.loops.name.clear();
                neutral
            });
            if let Some(known) = neutral.as_ref().and_then(|n| self.shared.get(n)) {
                if let Callee::Choice(row) = known
                    && let Some(kernel) = self.kernels.get_mut(*row as usize)
                {
                    kernel.highest = kernel.highest.max(*highest);
                }
                ids.push(*known);
                continue;
            }
            if !used {
                ids.push(Callee::Unused);
                continue;
            }
            let mut each = Vec::with_capacity(self.levels.len());
            let mut symbols = Vec::with_capacity(self.levels.len());
            for level in self.levels {
                let mut symbol = format!("{name}_{k}_{}", identifier(&def.loops.name));
                if self.choices.is_some() {
                    symbol.push_str(suffix(*level));
                    self.numbers += 1;
                    each.push(FuncId::from_u32(FIRST_NUMBER + self.numbers));
                } else {
                    let id = self
                        .module
                        .declare_function(&symbol, Linkage::Local, &signature)
                        .map_err(|e| LinkError::code(&symbol, e))?;
                    each.push(id);
                }
                symbols.push(symbol);
            }
            let callee = match (self.choices, each.first()) {
                (None, Some(id)) => Callee::Function(*id),
                _ => Callee::Choice(self.kernels.len() as u32),
            };
            ids.push(callee);
            self.kernels.push(Kernel {
                ids: each,
                symbols,
                def,
                highest: *highest,
            });
            if let Some(neutral) = neutral {
                self.shared.insert(neutral, callee);
            }
        }
        Ok(ids)
    }
}

/// What is left of a name in a symbol.
pub(crate) fn identifier(name: &str) -> String {
    let mut out: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// What tells apart the symbols of one kernel's levels.
fn suffix(level: Level) -> &'static str {
    match level {
        Level::Baseline => "_baseline",
        Level::V3 => "_v3",
        Level::V4 => "_v4",
    }
}

/// The code of a kernel for a level; `None` where that has nothing over the level below.
fn kernel(
    id: FuncId,
    def: &KernelDef,
    target: &LevelIsa,
    lowest: bool,
) -> Result<Option<Code>, LinkError> {
    match lapidary_codegen::compile(&def.loops, &def.schedule, target.level, target.size)? {
        MachineKernel::Wide(bytes) => Ok(Some(Code {
            id,
            align: 64,
            bytes,
            relocs: Vec::new(),
            math: BTreeSet::new(),
        })),
        MachineKernel::Portable(_) if !lowest => Ok(None),
        MachineKernel::Portable(kernel) => {
            let mut f = Function::new();
            f.name = UserFuncName::user(0, id.as_u32());
            let machine = clif::Target {
                config: target.isa.frontend_config(),
                fma: target.fma,
            };
            clif::emit(&kernel, &mut f, &mut FunctionBuilderContext::new(), machine).map_err(
                |e| CompileError {
                    kernel: def.loops.name.clone(),
                    reason: e.to_string(),
                },
            )?;
            let code = function(id, f, &target.isa, &def.loops.name)?;
            Ok(Some(Code {
                math: kernel.math_functions(),
                ..code
            }))
        }
    }
}

fn function(id: FuncId, f: Function, isa: &OwnedTargetIsa, name: &str) -> Result<Code, LinkError> {
    let mut context = Context::for_function(f);
    context
        .compile(&**isa, &mut ControlPlane::default())
        .map_err(|e| LinkError::code(name, format!("{:?}", e.inner)))?;
    let Some(compiled) = context.compiled_code() else {
        return Err(LinkError::code(name, "no code came out"));
    };
    Ok(Code {
        id,
        align: u64::from(compiled.buffer.alignment).max(16),
        bytes: compiled.code_buffer().to_vec(),
        relocs: compiled
            .buffer
            .relocs()
            .iter()
            .map(|r| ModuleReloc::from_mach_reloc(r, &context.func, id))
            .collect(),
        math: BTreeSet::new(),
    })
}

/// Defines what [`compile`] has made.
pub(crate) fn define<M: Module>(
    module: &mut M,
    driver: &Driver,
    codes: &[Code],
) -> Result<(), LinkError> {
    for c in codes {
        module
            .define_function_bytes(c.id, c.align, &c.bytes, &c.relocs)
            .map_err(|e| LinkError::code("function", e))?;
    }
    for (id, description) in &driver.data {
        module
            .define_data(*id, description)
            .map_err(|e| LinkError::code("data", e))?;
    }
    Ok(())
}

/// The number of threads that an option means.
pub(crate) fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// `f` of every item, in order, on some threads. The first error ends it.
pub(crate) fn parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    f: impl Fn(&T) -> Result<R, LinkError> + Sync,
) -> Result<Vec<R>, LinkError> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let result = f(item);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((i, result));
        }
        done
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = worker();
        for other in others {
            match other.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, r)| r).collect()
}
