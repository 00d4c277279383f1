//! From a lowered program to code: plan, driver, and linking into memory or files.
//!
//! * plan ([`Plan`]): steps in order, buffers with lifetimes, segments, the weights blob.
//! * driver: the Cranelift functions that compute dimensions and make the calls.
//! * [`jit()`]: a model in memory.
//! * [`write()`], [`prepare`]: objects, archives, shared libraries.
//! * [`stored`]: a model in a file of the cache.
//! * [`target`]: the machines that files are made for.
//! * [`header()`], [`binding()`]: the C header of a compiled model, and the Rust one.
//!
//! The same driver and the same machine code go into memory and into object files.
//!
//! ```
//! use lapidary_graph::text;
//! use lapidary_link::{CodeOptions, header, jit};
//! use lapidary_runtime::Tensor;
//!
//! let source = r#"
//! graph "double" [n] {
//!   input %x: f32[n]
//!   %y: f32[n] = pointwise (a = %x) => a + a
//!   output "y" %y
//! }"#;
//! let graph = text::parse(source)?;
//! let (groups, _) = lapidary_passes::fuse(&graph);
//! let program = lapidary_lower::lower(graph, &groups)?;
//! assert!(header(&program.graph, "double").contains("lapidary_model_double"));
//!
//! let model = jit(program, &CodeOptions::host())?;
//! let mut context = model.context(1)?;
//! let x = Tensor::from_slice(&[3], &[1.0f32, 2.0, 3.0])?;
//! let y = context.run(&[x.view()])?;
//! assert_eq!(y[0].as_slice::<f32>()?, [2.0, 4.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]
mod binding;
mod blob;
mod code;
mod driver;
mod error;
mod file;
mod header;
mod image;
mod jit;
mod levels;
mod plan;
pub mod stored;
pub mod target;

pub use binding::binding;
pub use code::warm_up;
pub use error::LinkError;
pub use file::{
    Artifact, FileOptions, Prepared, WeightsIn, Written, prepare, write, write_runtime,
    write_runtime_sources,
};
pub use header::header;
pub use jit::{JitModel, jit};
pub use lapidary_codegen::Level;
pub use plan::{Plan, PlanOptions, plan};

use lapidary_runtime::abi::{self, cpu};
use std::any::Any;
use std::sync::Arc;

/// How machine code is made.
#[derive(Clone, Copy)]
pub struct CodeOptions<'a> {
    /// The instruction sets that kernels may use; for files only where [`FileOptions::every_level`] is not set.
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
    /// The whole name under which plans call it, `lap_lib_…`.
    pub symbol: String,
    /// The kernel; docs/abi.md has its contract.
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
