//! What verbs share: options, models of either kind, and how values are described.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lapidary::case::Case;
use lapidary::random::Random;
use lapidary::target::Triple;
use lapidary::{Cache, Compiled, Cpu, Error, Model, Options, Tensor, ValueInfo};

/// How a model is compiled and run.
#[derive(Args, Clone, Debug, Default)]
pub struct CompileOptions {
    /// Fixes a dim of the inputs (NAME=VALUE), frees it (NAME=?), or frees it and specialises code for some values beside
    /// (NAME=V1,V2); NAME is the model's, or INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=VALUE|?|V1,V2")]
    pub dims: Vec<String>,
    /// Keeps an output as the value of an input in the next run (PAST=PRESENT; * stands for the same text in both)
    #[arg(long = "state", value_name = "INPUT=OUTPUT")]
    pub states: Vec<String>,
    /// Makes constants of inputs that have a default
    #[arg(long)]
    pub fix_defaults: bool,
    /// Instructions that the code may use; native, or for files multi, if not given
    #[arg(long, value_enum)]
    pub cpu: Option<CpuChoice>,
    /// Keeps compiled models in this folder, and takes them from there
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// A shared library of operators in C (lapidary_operator.h); trusted as code is
    #[arg(long = "operators", value_name = "FILE")]
    pub operators: Vec<PathBuf>,
}

/// The machine that files are made for.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetOptions {
    /// The machine that the file is for, if not this one: aarch64-linux, x86_64-linux-musl, or a whole triple
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// The C compiler for that machine, perhaps with arguments ("clang --target=…"); one with a usual name if not given
    #[arg(long, value_name = "COMMAND")]
    pub cc: Option<PathBuf>,
}

impl TargetOptions {
    /// The target, if it is named.
    pub fn triple(&self) -> Result<Option<Triple>, Error> {
        let name = self.target.as_deref();
        Ok(name.map(lapidary::target::parse).transpose()?)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CpuChoice {
    /// What this machine has
    #[default]
    Native,
    /// What every processor of the architecture has
    Baseline,
    /// x86-64-v3: AVX2, FMA
    V3,
    /// x86-64-v4: AVX-512
    V4,
    /// All of these in one library, which takes the best that its machine has; in memory as native
    Multi,
}

impl From<CpuChoice> for Cpu {
    fn from(choice: CpuChoice) -> Cpu {
        match choice {
            CpuChoice::Native => Cpu::Native,
            CpuChoice::Baseline => Cpu::Baseline,
            CpuChoice::V3 => Cpu::V3,
            CpuChoice::V4 => Cpu::V4,
            CpuChoice::Multi => Cpu::Multi,
        }
    }
}

impl CompileOptions {
    /// Opens a folder with a model and data sets.
    pub fn open_case(&self, path: &Path) -> Result<Case, Error> {
        let mut case = Case::open(path)?;
        if self.fix_defaults {
            case.model.fix_defaults();
        }
        Ok(case)
    }

    /// Loads a model.
    pub fn load(&self, path: &Path) -> Result<Model, Error> {
        let mut model = Model::load(path)?;
        if self.fix_defaults {
            model.fix_defaults();
        }
        Ok(model)
    }

    pub fn options(&self, threads: usize) -> Result<Options, Error> {
        let mut options = Options {
            threads,
            cpu: self.cpu.unwrap_or_default().into(),
            cache: self.cache.as_ref().map(Cache::new),
            ..Options::default()
        };
        for dim in &self.dims {
            options.set_dim(dim)?;
        }
        for state in &self.states {
            options.set_state(state)?;
        }
        for library in &self.operators {
            options.operators.load(library)?;
        }
        Ok(options)
    }
}

/// Code for running here: what this machine lacks is an error at once.
pub fn require_cpu(options: &Options) -> Result<(), Error> {
    if options.cpu.runs_here() {
        Ok(())
    } else {
        Err(Error::Unsupported(format!(
            "this processor does not run code for {:?} (hint: --cpu native)",
            options.cpu
        )))
    }
}

/// Whether a path is a compiled library rather than a model.
pub fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    name.ends_with(".so") || name.contains(".so.") || name.ends_with(".dylib")
}

/// A model compiled into memory, or a compiled library.
pub fn open(path: &Path, compile: &CompileOptions, options: &Options) -> Result<Compiled, Error> {
    require_file(path)?;
    if is_library(path) {
        return Compiled::open_library(path, options);
    }
    require_cpu(options)?;
    compile.load(path)?.compile(options)
}

/// A path that does not exist is a mistake in the call.
pub fn require_file(path: &Path) -> Result<(), Error> {
    if path.exists() {
        Ok(())
    } else {
        Err(Error::Usage(format!("there is no '{}'", path.display())))
    }
}

/// The dims of an input for random data: declared ones, and `--dim` for free ones; free ones are 1 elsewhere.
pub fn shape_for(info: &ValueInfo, dims: &[String]) -> Result<Vec<usize>, Error> {
    let Some(declared) = &info.dims else {
        return Err(Error::Usage(format!(
            "input '{}' has no declared rank: random values cannot be made (hint: give a file)",
            info.name
        )));
    };
    let setting = |name: &str| {
        let found = dims.iter().rev().filter_map(|d| d.rsplit_once('='));
        let mut found = found.filter(|(n, value)| *n == name && *value != "?");
        let (_, values) = found.next()?;
        values.split(',').find_map(|value| value.parse().ok())
    };
    Ok(declared
        .iter()
        .enumerate()
        .map(|(axis, dim)| {
            let by_place = setting(&format!("{}.{axis}", info.name));
            let by_name = || dim.name.as_deref().and_then(setting);
            by_place.or_else(by_name).or(dim.value).unwrap_or(1)
        })
        .collect())
}

/// Values for all inputs: a model's own defaults, random ones elsewhere; the same in each call.
pub fn random_inputs(
    model: Option<&Model>,
    infos: &[ValueInfo],
    dims: &[String],
) -> Result<Vec<Tensor>, Error> {
    let mut random = Random::new(0);
    let make = |info: &ValueInfo| {
        if let Some(model) = model
            && let Some(default) = model.default_of(&info.name)?
        {
            return Ok(default);
        }
        random_input(&mut random, info, &shape_for(info, dims)?, 2)
    };
    infos.iter().map(make).collect()
}

/// A random input of this shape; integers are below `bound`.
pub fn random_input(
    random: &mut Random,
    info: &ValueInfo,
    shape: &[usize],
    bound: u8,
) -> Result<Tensor, Error> {
    random.tensor(info.dtype, shape, bound).map_err(|error| {
        Error::Usage(format!(
            "input '{}' cannot be random: {error} (hint: give smaller dims with --dim)",
            info.name
        ))
    })
}

/// Writes a result. What cannot be written (a full disk behind the shell's `>`) is an error.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::Other(format!("cannot write to standard output: {error}")))
}

/// `f32[batch, 3, 224, 224]`
pub fn type_text(info: &ValueInfo) -> String {
    let Some(dims) = &info.dims else {
        return format!("{}[…]", info.dtype);
    };
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| match (&dim.name, dim.value) {
            (_, Some(value)) => value.to_string(),
            (Some(name), None) => name.clone(),
            (None, None) => "?".to_string(),
        })
        .collect();
    format!("{}[{}]", info.dtype, dims.join(", "))
}

/// `NAME=REST` split at the first `=` after which something stands.
pub fn named(text: &str, expected: &str) -> Result<(String, PathBuf), Error> {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() => {
            Ok((name.to_string(), rest.into()))
        }
        _ => Err(Error::Usage(format!("'{text}' is not {expected}"))),
    }
}

/// Name, type, shape, range, mean and first values: a line a value.
pub fn summary(name: &str, tensor: &Tensor) -> String {
    use lapidary::compare::{element_text, numbers};
    let mut line = format!("{name}: {}{:?}", tensor.dtype(), tensor.shape());
    let values = numbers(tensor);
    if !values.is_empty() {
        let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap_or(f64::NAN);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        line.push_str(&format!(
            "  min {:.6} max {:.6} mean {mean:.6}",
            fold(f64::min),
            fold(f64::max)
        ));
        if values.iter().any(|v| v.is_nan()) {
            line.push_str(" (with NaN)");
        }
    }
    let shown = tensor.len().min(10);
    let first: Vec<String> = (0..shown).map(|at| element_text(tensor, at)).collect();
    let more = if tensor.len() > shown { ", …" } else { "" };
    line.push_str(&format!("\n    [{}{more}]", first.join(", ")));
    line
}
