//! From a lowered program to code: plan, driver, and linking into memory or files.
//!
//! * [`plan`]: steps in order, buffers with lifetimes, segments, the weights blob.
//! * driver: the Cranelift functions that compute dimensions and make the calls.
//! * [`jit`]: a model in memory.
//! * [`file`]: objects, archives, shared libraries.
//! * [`stored`]: a model in a file of the cache.
//! * [`target`]: the machines that files are made for.
//! * [`header`]: the C header of a compiled model.
//!
//! The same driver and the same machine code go into memory and into object files.

mod binding;
mod blob;
mod code;
mod driver;
mod error;
pub mod file;
pub mod header;
mod image;
pub mod jit;
pub mod plan;
pub mod stored;
pub mod target;

pub use binding::binding;
pub use error::LinkError;
pub use file::{
    Artifact, FileOptions, Prepared, WeightsIn, Written, prepare, write, write_runtime,
    write_runtime_sources,
};
pub use header::header;
pub use jit::{JitModel, jit};
pub use lapidary_codegen::Level;

use lapidary_runtime::abi::{self, cpu};
use std::any::Any;
use std::sync::Arc;

/// How machine code is made.
#[derive(Clone, Copy)]
pub struct CodeOptions<'a> {
    pub level: Level,
    /// Threads that compile and pack; 0: one for each processor.
    pub threads: usize,
    /// Called with the addresses of constant bytes that have been read and are not needed soon: pages of a
    /// mapped model may be given back to the system. Other constants are passed as well, also when
    /// their memory is gone already, so the bytes must not be read.
    pub release: Option<&'a (dyn Fn(*const [u8]) + Sync)>,
    /// Addresses of library kernels of the host's own, asked before the runtime's; for code in memory.
    pub kernels: Option<LibraryLookup>,
    /// Kernels of the application's operators, by their whole symbols; for code in memory.
    pub operators: &'a [HostKernel],
}

/// A library kernel outside of the runtime, with what keeps it alive.
#[derive(Clone)]
pub struct HostKernel {
    pub symbol: String,
    pub function: lapidary_runtime::ffi::LibraryFn,
    /// Dropped after the last code that calls the function.
    pub owner: Arc<dyn Any + Send + Sync>,
}

/// Finds a function of the library kernel ABI by its name, `lap_lib_…`.
pub type LibraryLookup = fn(&str) -> Option<lapidary_runtime::ffi::LibraryFn>;

impl CodeOptions<'_> {
    /// Options for this processor.
    pub fn host() -> Self {
        CodeOptions {
            level: host_level(),
            threads: 0,
            release: None,
            kernels: None,
            operators: &[],
        }
    }
}

/// The highest level that this processor takes.
pub fn host_level() -> Level {
    let features = abi::cpu_features();
    let has = |f| features & f == f;
    if has(cpu::X86_V2 | cpu::AVX2 | cpu::AVX512) {
        Level::V4
    } else if has(cpu::X86_V2 | cpu::AVX2) {
        Level::V3
    } else {
        Level::Baseline
    }
}
