//! Levels of instructions: what generated code is made for, and what a context may use.

use crate::abi::{self, cpu};

/// An instruction set that generated code is made for; each has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CpuLevel {
    /// The architecture's baseline; on x86-64 this is x86-64-v2.
    Baseline,
    /// x86-64-v3: AVX2 and FMA.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
}

impl CpuLevel {
    /// All of them, the lowest first.
    pub const ALL: [CpuLevel; 3] = [CpuLevel::Baseline, CpuLevel::V3, CpuLevel::V4];

    /// The features of the level, for `Options::cpu_features`: never 0.
    pub fn features(self) -> u64 {
        let x86 = if cfg!(target_arch = "x86_64") {
            cpu::X86_V2
        } else {
            0
        };
        cpu::BASE
            | match self {
                CpuLevel::Baseline => x86,
                CpuLevel::V3 => cpu::X86_V2 | cpu::AVX2,
                CpuLevel::V4 => cpu::X86_V2 | cpu::AVX2 | cpu::AVX512,
            }
    }

    /// Whether this processor has it.
    pub fn runs_here(self) -> bool {
        self.features() & !(abi::cpu_features() | cpu::BASE) == 0
    }

    /// The highest that this processor has.
    pub fn host() -> CpuLevel {
        let mut all = Self::ALL.into_iter().rev();
        all.find(|level| level.runs_here())
            .unwrap_or(CpuLevel::Baseline)
    }

    /// By its number in C.
    pub(crate) fn from_raw(raw: i32) -> CpuLevel {
        match raw {
            ..=0 => CpuLevel::Baseline,
            1 => CpuLevel::V3,
            _ => CpuLevel::V4,
        }
    }
}

impl std::fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CpuLevel::Baseline => "baseline",
            CpuLevel::V3 => "v3",
            CpuLevel::V4 => "v4",
        })
    }
}
