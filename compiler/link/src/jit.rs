//! A program compiled into memory.
//!
//! In: a lowered program. Out: a [`JitModel`]: code and weights that contexts share, freed when the
//! model and its last context are gone. Code lies in one reserved piece of address space, since
//! calls reach 2 GiB; the weights blob is filled straight into its own, and constants that kernels
//! read as they are stay where the model was mapped; if that file shrinks, runs fail (docs/abi.md).

use crate::code::{self, Isas};
use crate::driver::WeightsAt;
use crate::error::LinkError;
use crate::plan::{Action, Plan, PlanOptions, plan};
use crate::{CodeOptions, HostKernel, LibraryLookup, blob};
use bytes::Bytes;
use cranelift_jit::{
    ArenaMemoryProvider, BranchProtection, JITBuilder, JITMemoryKind, JITMemoryProvider, JITModule,
};
use cranelift_module::{ModuleError, ModuleResult, default_libcall_names};
use lapidary_lower::program::Program;
use lapidary_runtime::guard::Watched;
use lapidary_runtime::{Context, ModelCode, Options, abi, ffi};
use memmap2::MmapMut;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use target_lexicon::Triple;

/// A model in memory.
#[derive(Clone)]
pub struct JitModel {
    code: Arc<JitCode>,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Bytes of the weights blob.
    pub weight_bytes: usize,
}

/// Owner of code and weights.
struct JitCode {
    module: Option<JITModule>,
    table: *const ffi::ModelTable,
    _weights: Option<MmapMut>,
    _pinned: Vec<Bytes>,
    /// The files that constants lie in, each once.
    files: Vec<Watched>,
    _operators: Vec<HostKernel>,
}

// SAFETY: after it is made nothing in it changes: code, table and weights are only read.
unsafe impl Send for JitCode {}
// SAFETY: as above.
unsafe impl Sync for JitCode {}

// SAFETY: the driver makes the table as docs/abi.md says; the module, the blob and the pinned bytes
// are owned by `self`.
unsafe impl ModelCode for JitCode {
    fn table(&self) -> *const ffi::ModelTable {
        self.table
    }
    fn lost_file(&self) -> Option<String> {
        let lost = self.files.iter().find_map(Watched::lost);
        lost.map(str::to_string)
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: contexts hold the owner, so no code runs now or later.
            unsafe { module.free_memory() };
        }
    }
}

impl JitModel {
    /// What contexts and pools are made of.
    pub fn code(&self) -> Arc<dyn ModelCode> {
        self.code.clone()
    }
    /// A context with so many threads (0: one for each processor).
    pub fn context(&self, threads: usize) -> Result<Context, LinkError> {
        self.context_with(&Options {
            threads,
            ..Default::default()
        })
    }
    /// A context.
    pub fn context_with(&self, options: &Options) -> Result<Context, LinkError> {
        Ok(Context::new(self.code(), options)?)
    }
}

/// Compiles a program into memory.
pub fn jit(program: Program, options: &CodeOptions<'_>) -> Result<JitModel, LinkError> {
    let plan = plan(&program, PlanOptions::MEMORY)?;
    jit_planned(program, &plan, options)
}

/// Compiles a program by a plan that was made for memory.
fn jit_planned(
    mut program: Program,
    plan: &Plan,
    options: &CodeOptions<'_>,
) -> Result<JitModel, LinkError> {
    let triple = Triple::host();
    let missing = code::cpu_features(&triple, options.level) & !abi::cpu_features();
    if missing != 0 {
        return Err(LinkError::Unsupported {
            what: format!("code of level {:?} on this processor", options.level),
            hint: "choose a lower level, or the host's".into(),
        });
    }
    let own = options.kernels;
    check_library(&program, plan, own, Some(options.operators))?;
    let isas = Isas::new(&triple, &[options.level], false)?;
    let reserve = Arc::new(AtomicUsize::new(0));
    let mut builder = JITBuilder::with_isa(isas.driver.clone(), default_libcall_names());
    builder.memory_provider(Box::new(LateArena {
        reserve: reserve.clone(),
        arena: None,
    }));
    builder.symbol(abi::symbol::API, abi::api_table().cast());
    for operator in options.operators {
        builder.symbol(&operator.symbol, operator.function as *const u8);
    }
    builder.symbol_lookup_fn(Box::new(move |name| {
        own.and_then(|find| find(name))
            .map(|f| f as *const u8)
            .or_else(|| abi::library_symbol(name).map(<*const _>::cast))
            .or_else(|| runtime_function(name))
    }));
    let mut module = JITModule::new(builder);

    let mut held = Vec::new();
    pinned(&program, plan, &mut held);
    let taken = blob::take(&mut program, plan);
    let weights = blob::in_memory(&program, taken, plan, options)?;
    let at = match &weights {
        Some(map) => WeightsAt::Address(map.as_ptr() as u64),
        None => WeightsAt::None,
    };
    let name = code::identifier(&plan.name);
    let (driver, codes) = code::compile(&mut module, &isas, options, &program, plan, &name, at)?;
    let code_bytes: usize = codes.iter().map(|c| c.bytes.len()).sum();
    let room = codes.iter().map(|c| c.bytes.len().next_multiple_of(64));
    let data = driver.data.iter().map(|(_, d)| d.init.size() + 64);
    reserve.store(
        room.chain(data).sum::<usize>() + (64 << 10),
        Ordering::Relaxed,
    );
    let made = code::define(&mut module, &driver, &codes).and_then(|()| {
        module
            .finalize_definitions()
            .map_err(|e| LinkError::code("memory for code", e))
    });
    if let Err(e) = made {
        // SAFETY: nothing of the module has run or is referred to.
        unsafe { module.free_memory() };
        return Err(e);
    }
    let table = module.get_finalized_data(driver.table).0.cast();
    Ok(JitModel {
        code: Arc::new(JitCode {
            module: Some(module),
            table,
            _weights: weights,
            files: watched(&held),
            _pinned: held,
            _operators: options.operators.to_vec(),
        }),
        code_bytes,
        weight_bytes: plan.weights.bytes as usize,
    })
}

/// The constants of a program and its bodies that are used in place.
fn pinned(program: &Program, plan: &Plan, into: &mut Vec<Bytes>) {
    let constants = plan.pinned.iter();
    let constants = constants.filter_map(|v| program.graph.constant(*v));
    into.extend(constants.map(|t| t.bytes.clone()));
    for (body, plan) in program.bodies.iter().zip(&plan.bodies) {
        pinned(&body.program, plan, into);
    }
}

/// The guarded mappings that these bytes lie in.
fn watched(pinned: &[Bytes]) -> Vec<Watched> {
    let mut files: Vec<Watched> = Vec::new();
    for found in pinned.iter().filter_map(|bytes| Watched::over(bytes)) {
        if !files.iter().any(|known| known.is_same(&found)) {
            files.push(found);
        }
    }
    files
}

/// Every library kernel must be there before a relocation asks for it. The application's `operators`:
/// `None` leaves them to the linker.
pub(crate) fn check_library(
    program: &Program,
    plan: &Plan,
    own: Option<LibraryLookup>,
    operators: Option<&[HostKernel]>,
) -> Result<(), LinkError> {
    for step in &plan.steps {
        if let Action::Library { call, .. } = &step.action {
            let function = crate::driver::library::symbol(&call.function);
            let known = own.is_some_and(|find| find(&function).is_some())
                || match operators {
                    Some(given) => given.iter().any(|o| o.symbol == function),
                    None => call.function.starts_with('$'),
                };
            if !known && abi::library_symbol(&function).is_none() {
                let node = program.graph.nodes.get(call.node);
                return Err(LinkError::MissingKernel {
                    node: node.map_or(String::new(), |n| n.name().to_string()),
                    function,
                });
            }
        }
    }
    for (body, plan) in program.bodies.iter().zip(&plan.bodies) {
        check_library(&body.program, plan, own, operators)?;
    }
    Ok(())
}

/// A function of the C library that Cranelift may call, out of the runtime's table.
pub(crate) fn runtime_function(name: &str) -> Option<*const u8> {
    let name = match name {
        "fma" => "fmaf64",
        "fmaf" => "fmaf32",
        "nearbyint" => "rint",
        "nearbyintf" => "rintf",
        other => other,
    };
    let i = abi::RT_NAMES.iter().position(|n| *n == name)?;
    // SAFETY: the table has a pointer for each name.
    let pointer = unsafe {
        (&raw const ffi::lap_runtime_table)
            .cast::<*const u8>()
            .add(i)
            .read()
    };
    (!pointer.is_null()).then_some(pointer)
}

/// An arena that is reserved at the first allocation, when the size of the code is known.
struct LateArena {
    reserve: Arc<AtomicUsize>,
    arena: Option<ArenaMemoryProvider>,
}

impl JITMemoryProvider for LateArena {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let arena = match &mut self.arena {
            Some(arena) => arena,
            None => {
                let bytes = self.reserve.load(Ordering::Relaxed).max(size + (64 << 10));
                let arena = ArenaMemoryProvider::new_with_size(bytes).map_err(io::Error::other)?;
                self.arena.insert(arena)
            }
        };
        arena.allocate(size, align, kind)
    }
    unsafe fn free_memory(&mut self) {
        if let Some(arena) = &mut self.arena {
            // SAFETY: the caller's promise.
            unsafe { JITMemoryProvider::free_memory(arena) };
        }
    }
    fn finalize(&mut self, branch_protection: BranchProtection) -> ModuleResult<()> {
        match &mut self.arena {
            Some(arena) => JITMemoryProvider::finalize(arena, branch_protection),
            None => Err(ModuleError::Backend(
                io::Error::other("nothing was defined").into(),
            )),
        }
    }
}
