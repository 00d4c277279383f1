//! Machine code for x86-64.
//!
//! In: a verified [`Kernel`] with 4, 8 or 16 lanes. Out: the bytes of one leaf function of the kernel
//! ABI (System V), its constants behind the code in the same string. There is no optimiser: the
//! kernel says what is done, and this level chooses registers (`alloc`), encodings and short
//! sequences. What a kernel needs and an instruction set lacks is [`EmitError::Unsupported`]; the
//! caller then takes the Cranelift emitter.
//!
//! The phases, a file each: `webs` (temporaries), `live` (intervals), `alloc` (places), `emit` (the walk over the
//! structure), `gpr` (integers and control), `vector` (what both instruction sets share),
//! `avx512` and `avx2` (what they do not), `select` (which row of the table), `table` and `forms`
//! (instructions), `asm` (labels and constants), `encode` (bytes). Decoding is `iced-x86`'s, which also
//! is the oracle of the encoder's tests.

mod alloc;
mod asm;
mod avx2;
mod avx512;
mod emit;
mod encode;
#[cfg(test)]
mod encode_tests;
mod forms;
mod gpr;
mod live;
mod select;
mod table;
mod vector;
mod webs;

use crate::kernel::{Class, Kernel};
use alloc::Reserve;
use emit::Outcome;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use std::fmt::Write;

/// An instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Isa {
    /// AVX2, FMA, F16C, BMI1 and BMI2.
    Avx2,
    /// The former, and AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// Bits of the widest vector.
    pub fn vector_bits(self) -> u32 {
        match self {
            Isa::Avx2 => 256,
            Isa::Avx512 => 512,
        }
    }
}

/// A function in machine code, with its constants; it may be placed at any address of that alignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// The function at their start, constants behind it.
    pub bytes: Vec<u8>,
    /// What the address must be a multiple of.
    pub align: u32,
}

/// Why a kernel has no code here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmitError {
    /// The instruction set lacks what the kernel needs.
    #[error("kernel {kernel}: {isa:?} has no code for {what}")]
    Unsupported {
        /// The kernel's name.
        kernel: String,
        /// The instruction set.
        isa: Isa,
        /// A lane count, a class or an operation.
        what: String,
    },
    /// An instruction with operands that it does not take: a defect of the emitter.
    #[error("cannot encode {code}: {why}")]
    Encode {
        /// The instruction.
        code: String,
        /// What is wrong with it.
        why: String,
    },
    /// Branches reach two gigabytes.
    #[error("the code is larger than two gigabytes")]
    TooLarge,
    /// A defect of the register allocator's reserve.
    #[error("kernel {kernel}: needs more temporary registers than there are")]
    Temporaries {
        /// The kernel's name.
        kernel: String,
    },
}

/// Emits a kernel, which the caller has verified.
pub fn emit(kernel: &Kernel, isa: Isa) -> Result<Code, EmitError> {
    supported(kernel, isa)?;
    let kernel = &webs::split(kernel);
    let live = live::analyse(kernel, isa);
    let mut reserve = Reserve {
        vec: 1,
        gpr: 1,
        frame: false,
    };
    // Each turn holds back more temporaries; most kernels pass on the first.
    for _ in 0..12 {
        let plan = alloc::allocate(kernel, isa, &live, reserve);
        let spills = plan.frame_bytes > 0;
        if spills && !reserve.frame {
            reserve.frame = true;
            reserve.vec += if plan.spilled_vec { 2 } else { 0 };
            reserve.gpr += if plan.spilled_gpr { 2 } else { 0 };
            continue;
        }
        if plan.spilled_vec && reserve.vec < 3 {
            reserve.vec = 3;
            continue;
        }
        if plan.spilled_gpr && reserve.gpr < 3 {
            reserve.gpr = 3;
            continue;
        }
        match emit::emit(kernel, isa, &live, &plan)? {
            Outcome::Done(bytes) => return Ok(Code { bytes, align: 64 }),
            Outcome::MoreVec if reserve.vec < 8 => reserve.vec += 1,
            Outcome::MoreGpr if reserve.gpr < alloc::GPR_TEMPS.len() => reserve.gpr += 1,
            Outcome::MoreVec | Outcome::MoreGpr => break,
        }
    }
    Err(EmitError::Temporaries {
        kernel: kernel.name.clone(),
    })
}

fn supported(kernel: &Kernel, isa: Isa) -> Result<(), EmitError> {
    let fail = |what: String| {
        Err(EmitError::Unsupported {
            kernel: kernel.name.clone(),
            isa,
            what,
        })
    };
    if !matches!(kernel.lanes, 4 | 8 | 16) {
        return fail(format!("{} lanes", kernel.lanes));
    }
    for class in &kernel.regs {
        let bits = match class {
            Class::Gpr => 0,
            Class::Vec(e) => kernel.lanes * e.bytes() * 8,
            Class::Mask => kernel.lanes * 32,
        };
        if bits > isa.vector_bits() {
            return fail(format!("{} lanes of {class:?}", kernel.lanes));
        }
    }
    Ok(())
}

/// The instructions in AT&T syntax, one a line, branch targets as offsets from the start. Constants
/// behind the last return are shown as data.
pub fn disassemble(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_rip_relative_addresses(false);
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let mut lowest_constant = bytes.len() as u64;
    while decoder.can_decode() && decoder.ip() < lowest_constant {
        let ip = decoder.ip();
        let rest = bytes.get(ip as usize..lowest_constant as usize);
        if rest.is_some_and(|r| r.iter().all(|b| *b == asm::PADDING)) {
            break;
        }
        let i = decoder.decode();
        if i.is_invalid() {
            break;
        }
        if i.is_ip_rel_memory_operand() {
            lowest_constant = lowest_constant.min(i.ip_rel_memory_address() & !63);
        }
        let mut text = String::new();
        formatter.format(&i, &mut text);
        let _ = writeln!(out, "{ip:5x}: {text}");
    }
    let data = bytes.get(lowest_constant as usize..).unwrap_or_default();
    for (n, row) in data.chunks(16).enumerate() {
        let _ = write!(out, "{:5x}:", lowest_constant + 16 * n as u64);
        for word in row.chunks(4) {
            let mut value = [0; 4];
            value[..word.len()].copy_from_slice(word);
            let _ = write!(out, " {:08x}", u32::from_le_bytes(value));
        }
        out.push('\n');
    }
    out
}
