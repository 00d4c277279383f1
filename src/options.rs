//! How a model is compiled and run.

use std::path::PathBuf;
use std::time::Duration;

use lapidary_codegen::Level;
use lapidary_link::target;
use lapidary_runtime::{CpuLevel, Weights};
use target_lexicon::Triple;

pub use lapidary_import::DimSetting;

use crate::operator::Operators;
use crate::{Cache, Error};

/// The instructions that code may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cpu {
    /// What this machine has.
    #[default]
    Native,
    /// What every processor of the architecture has.
    Baseline,
    /// x86-64-v3: AVX2 and FMA.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
    /// All of these in one library, which takes the best that the machine it runs on has. In memory: as `Native`.
    Multi,
}

impl Cpu {
    /// The level of code; for `Native`, the greatest that this machine runs.
    pub fn level(self) -> Level {
        match self {
            Cpu::Baseline => Level::Baseline,
            Cpu::V3 => Level::V3,
            Cpu::V4 => Level::V4,
            Cpu::Native | Cpu::Multi => match CpuLevel::host() {
                CpuLevel::Baseline => Level::Baseline,
                CpuLevel::V3 => Level::V3,
                CpuLevel::V4 => Level::V4,
            },
        }
    }

    /// The features that a context may use (`lapidary_runtime::Options::cpu_features`); 0: all that the machine has.
    pub fn features(self) -> u64 {
        self.limit().map_or(0, CpuLevel::features)
    }

    /// The level that is asked for, if it is not simply the best.
    fn limit(self) -> Option<CpuLevel> {
        match self {
            Cpu::Native | Cpu::Multi => None,
            Cpu::Baseline => Some(CpuLevel::Baseline),
            Cpu::V3 => Some(CpuLevel::V3),
            Cpu::V4 => Some(CpuLevel::V4),
        }
    }

    /// Whether this machine runs such code.
    pub fn runs_here(self) -> bool {
        self.limit().is_none_or(CpuLevel::runs_here)
    }
}

/// How a model is compiled and run. The default: any shape, the best code for this machine, all its threads.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads of a context with the caller's; 0: one for each processor available.
    pub threads: usize,
    /// The instructions that code may use.
    pub cpu: Cpu,
    /// Settings for dims of inputs, by the model's name of a dim or by `input.axis`; the last that fits wins.
    pub dims: Vec<(String, DimSetting)>,
    /// Dims that are free, with values for which code is specialised beside; `None` among them: free there too, when several
    /// lists are combined (docs/variants.md).
    pub variants: Vec<(String, Vec<Option<i64>>)>,
    /// Frees every dim of every input, whatever the model declares.
    pub symbolic: bool,
    /// States, as pairs of an input and the output that is its value in the next run; `*` stands for the same text in both.
    pub states: Vec<(String, String)>,
    /// Bytes that a context may hold, beside weights.
    pub memory_limit: Option<u64>,
    /// The time that a run may take.
    pub timeout: Option<Duration>,
    /// The weights file of a compiled library, if it is not beside it.
    pub weights: Option<PathBuf>,
    /// The weights of a compiled library that wants a weights file, instead of that file: in memory, or by a reader.
    pub weights_source: Option<Weights>,
    /// For tests: contexts put every buffer in front of a page that cannot be touched, and fail where one was written
    /// behind its end.
    pub guard_memory: bool,
    /// Passes of the optimiser to leave out, to find the one that is wrong.
    pub skip_passes: Vec<String>,
    /// Operators of the application.
    pub operators: Operators,
    /// Compiled models on disk: code is taken from there, or compiled and stored (docs/cache.md). `None`: none.
    pub cache: Option<Cache>,
    /// Objects and archives that a shared library needs beside the runtime: the application's kernels.
    pub link: Vec<PathBuf>,
    /// The machine that files are made for ([`target::parse`]); `None`: this one.
    pub target: Option<Triple>,
    /// The C compiler for that machine, which links libraries; `None`: one with a usual name.
    pub compiler: Option<PathBuf>,
    /// The runtime's archive for that machine, if it is there already.
    pub runtime: Option<PathBuf>,
}

impl Options {
    /// Adds a setting in the command's words: `NAME=VALUE`, `NAME=?` for a free dim, or `NAME=VALUE,VALUE,…` for a free one
    /// with variants of the code for these values.
    pub fn set_dim(&mut self, text: &str) -> Result<(), Error> {
        let bad = || {
            Error::Usage(format!(
                "'{text}' is no setting of a dim (hint: NAME=VALUE, NAME=? for a free one, or NAME=V1,V2 for variants; NAME is the model's name or INPUT.AXIS)"
            ))
        };
        let (name, value) = text.rsplit_once('=').ok_or_else(bad)?;
        let number = |value: &str| value.parse().ok().filter(|v| *v >= 0).ok_or_else(bad);
        if name.is_empty() {
            return Err(bad());
        }
        if value.contains(',') {
            let one = |text: &str| match text {
                "?" => Ok(None),
                text => number(text).map(Some),
            };
            let values: Vec<Option<i64>> = value.split(',').map(one).collect::<Result<_, _>>()?;
            self.variants.retain(|(other, _)| other != name);
            self.variants.push((name.to_string(), values));
            return Ok(());
        }
        let setting = match value {
            "?" => DimSetting::Free,
            value => DimSetting::Fixed(number(value)?),
        };
        self.dims.push((name.to_string(), setting));
        Ok(())
    }

    /// Adds states in the command's words: `PAST=PRESENT`.
    pub fn set_state(&mut self, text: &str) -> Result<(), Error> {
        let stars = |name: &str| name.matches('*').count();
        match text.split_once('=') {
            Some((past, present))
                if !past.is_empty()
                    && !present.is_empty()
                    && stars(past) == stars(present)
                    && stars(past) < 2 =>
            {
                self.states.push((past.into(), present.into()));
                Ok(())
            }
            _ => Err(Error::Usage(format!(
                "'{text}' is no state (hint: INPUT=OUTPUT, or INPUT*=OUTPUT* where * stands for the same text in both)"
            ))),
        }
    }

    /// The level of files for the target: where this machine says nothing about it, what every one has.
    pub(crate) fn level(&self) -> Level {
        let target = self.target.as_ref();
        let other = target.is_some_and(|t| {
            !target::has_levels(t) || t.architecture != Triple::host().architecture
        });
        match self.cpu {
            Cpu::Native if other => Level::Baseline,
            cpu => cpu.level(),
        }
    }

    pub(crate) fn runtime(&self) -> lapidary_runtime::Options {
        lapidary_runtime::Options {
            threads: self.threads,
            memory_limit: self.memory_limit,
            timeout: self.timeout,
            weights_path: self.weights.clone(),
            weights: self.weights_source.clone(),
            guard_memory: self.guard_memory,
            cpu_features: self.cpu.features(),
            ..lapidary_runtime::Options::default()
        }
    }
}
