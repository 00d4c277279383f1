//! One loop kernel to machine code, by the best emitter that takes it.

use crate::expand::{self, Size, Target};
use crate::kernel::{self, Elem};
use crate::loops::{self, Expr, LoopKernel, Schedule, Stmt, Ty};
use crate::x64;
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
    /// The kernel's name.
    pub kernel: String,
    /// What the last emitter that was tried says.
    pub reason: String,
}

/// Element types that a kernel's values have.
fn elements(k: &LoopKernel) -> Vec<Elem> {
    let mut elems: Vec<Elem> = k.buffers.iter().map(|b| b.mem.elem()).collect();
    elems.extend(
        k.locals
            .iter()
            .filter_map(|t| if let Ty::Num(e) = t { Some(*e) } else { None }),
    );
    for e in &k.exprs {
        match e {
            Expr::Const { elem, .. } | Expr::Int { elem, .. } => elems.push(*elem),
            Expr::Convert { to, .. } | Expr::Bits { to, .. } => elems.push(*to),
            _ => {}
        }
    }
    elems
}

/// Whether there is a contraction among these statements.
fn contracts(stmts: &[Stmt]) -> bool {
    let mut found = false;
    loops::text::for_each_stmt(stmts, &mut |s| found |= matches!(s, Stmt::Contract(_)));
    found
}

/// Makes the tables that the emitter of a level makes when it is first used, so that the first kernel does not wait for them.
pub fn warm_up(level: Level) {
    let isa = match level {
        Level::V4 => x64::Isa::Avx512,
        Level::V3 => x64::Isa::Avx2,
        Level::Baseline => return,
    };
    // Its code is of no use, nor would be an error: the first real kernel meets it again.
    let _ = x64::emit(&kernel::Kernel::new(String::new(), 8), isa);
}

/// The kernel at the kernel level, for a target that an emitter of this level has.
/// Tried from the widest vectors down to scalars, which take everything.
pub fn compile(
    kernel: &LoopKernel,
    schedule: &Schedule,
    level: Level,
    size: Size,
) -> Result<MachineKernel, CompileError> {
    if cfg!(debug_assertions) {
        let checked = loops::verify::verify(kernel);
        let checked = checked.and_then(|()| loops::verify::verify_schedule(kernel, schedule));
        checked.map_err(|e| CompileError {
            kernel: kernel.name.clone(),
            reason: e.to_string(),
        })?;
    }
    let wide = elements(kernel).iter().any(|e| e.bytes() == 8);
    let mut reason = String::new();
    let isa = match level {
        Level::V4 => Some((x64::Isa::Avx512, if wide { 8 } else { 16 }, 32)),
        Level::V3 => Some((x64::Isa::Avx2, if wide { 4 } else { 8 }, 16)),
        Level::Baseline => None,
    };
    if let Some((isa, lanes, vector_registers)) = isa {
        match expand::expand(
            kernel,
            schedule,
            Target {
                lanes,
                vector_registers,
                masks: true,
                size,
            },
        ) {
            Ok(k) => match x64::emit(&k, isa) {
                Ok(code) => return Ok(MachineKernel::Wide(code.bytes)),
                Err(e) => reason = e.to_string(),
            },
            Err(e) => reason = e.to_string(),
        }
    }
    // Where speed does not count, single elements take less code, and only contractions take vectors.
    let scalar = size == Size::Least && !contracts(&kernel.body);
    let lanes: &[u32] = if wide || scalar { &[1] } else { &[4, 1] };
    for lanes in lanes {
        match expand::expand(
            kernel,
            schedule,
            Target {
                lanes: *lanes,
                vector_registers: 16,
                masks: false,
                size,
            },
        ) {
            Ok(k) if crate::clif::supports(&k) => return Ok(MachineKernel::Portable(k)),
            Ok(_) => reason = "not an operation of 128-bit vectors".into(),
            Err(e) => reason = e.to_string(),
        }
    }
    Err(CompileError {
        kernel: kernel.name.clone(),
        reason,
    })
}
