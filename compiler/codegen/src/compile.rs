//! One loop kernel to machine code, by the best emitter that takes it.

use crate::kernel;
use crate::loops::{LoopKernel, Schedule};
use thiserror::Error;

/// Instruction sets that code may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Level {
    /// What Cranelift assumes of the architecture: 128-bit vectors, no FMA on x86-64.
    Baseline,
    /// x86-64-v3: AVX2, FMA, F16C, BMI2.
    V3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    V4,
}

/// Code of one kernel.
pub enum MachineKernel {
    /// Position-independent bytes, to be placed at a multiple of 64.
    Wide(Vec<u8>),
    /// To be emitted by [`crate::clif`].
    Portable(kernel::Kernel),
}

/// Why a kernel could not be compiled: always a defect of the compiler, never of a model.
#[derive(Debug, Error)]
#[error("kernel `{kernel}` could not be compiled: {reason}")]
pub struct CompileError {
    pub kernel: String,
    pub reason: String,
}

/// Compiles for a level. Kernels that the wide emitters do not take become portable ones.
pub fn compile(
    kernel: &LoopKernel,
    _schedule: &Schedule,
    _level: Level,
) -> Result<MachineKernel, CompileError> {
    Err(CompileError {
        kernel: kernel.name.clone(),
        reason: "expansion is not written yet".into(),
    })
}
