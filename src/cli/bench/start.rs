//! What a start costs: load, compile (or open) and first run in a process of its own, and the memory it took.
//!
//! The command calls itself, so that caches of the allocator, mapped files and threads of the measuring process do not
//! count.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use lapidary::{Compiled, Error, Tensor, TensorView, files};

use super::Bench;
use super::subject::Subject;
use super::vary::Setting;
use crate::cli::common::print;

/// Fresh processes that tell of a start; the median counts, so that files which only the first had to fetch from the
/// disk do not.
pub const STARTS: usize = 3;

/// What fresh processes do beside the arguments of the call.
pub struct Fresh<'a> {
    pub threads: usize,
    pub setting: &'a Setting,
    /// Settings of dims that vary.
    pub dims: &'a [String],
    /// A library to open, and its inputs.
    pub library: Option<(&'a Path, &'a Path)>,
}

/// The median time of a start, and the greatest memory.
pub fn measure(bench: &Bench, fresh: &Fresh<'_>) -> Result<(Option<Duration>, u64), Error> {
    let mut starts = Vec::new();
    let mut greatest = 0;
    for _ in 0..STARTS {
        let (cold, memory) = process(bench, fresh)?;
        starts.push(cold);
        greatest = greatest.max(memory);
    }
    Ok((median(starts), greatest))
}

fn process(bench: &Bench, fresh: &Fresh<'_>) -> Result<(Duration, u64), Error> {
    let failed = |text: String| Error::Other(format!("the process for the start: {text}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args(["bench", "--once", "--threads", &fresh.threads.to_string()]);
    command.args(["--set", &bench.set.to_string()]);
    for dim in bench.compile.dims.iter().chain(fresh.dims) {
        command.args(["--dim", dim]);
    }
    for state in &bench.compile.states {
        command.args(["--state", state]);
    }
    for pass in &fresh.setting.skip {
        command.args(["--skip", pass]);
    }
    for library in &bench.compile.operators {
        command.arg("--operators").arg(library);
    }
    if let Some(folder) = &bench.compile.cache {
        command.arg("--cache").arg(folder);
    }
    if bench.compile.fix_defaults {
        command.arg("--fix-defaults");
    }
    if bench.random {
        command.arg("--random");
    }
    if let Some(cpu) = fresh.setting.cpu.to_possible_value() {
        command.args(["--cpu", cpu.get_name()]);
    }
    if let Some((library, feed)) = fresh.library {
        command.arg("--library").arg(library);
        command.arg("--feed").arg(feed);
    }
    let output = command
        .arg("--")
        .arg(&bench.path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(cold)), Some(Ok(memory))) => Ok((Duration::from_nanos(cold), memory)),
        _ => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_string(),
        )),
    }
}

/// The other side of [`measure`].
pub fn once(bench: &Bench) -> Result<(), Error> {
    let threads = bench.threads.first().copied().unwrap_or(1);
    let mut options = bench.compile.options(threads)?;
    options.skip_passes = bench.skip.clone();
    let begin = Instant::now();
    let (compiled, subject) = match &bench.library {
        Some(library) => (Compiled::open_library(library, &options)?, None),
        None => {
            let subject = Subject::load(bench)?;
            (subject.compile(&options)?, Some(subject))
        }
    };
    let mut context = compiled.context()?;
    let ready = begin.elapsed();
    let subject = subject.map(|s| s.with_set(bench)).transpose()?;
    let inputs = match (&subject, &bench.feed) {
        (Some(subject), _) => subject.inputs(&compiled, &bench.compile.dims)?,
        (None, Some(feed)) => {
            let read = |info: &lapidary::ValueInfo| files::read_tensor(feed, &info.name);
            compiled
                .inputs()
                .iter()
                .map(read)
                .collect::<Result<Vec<_>, _>>()?
        }
        (None, None) => return Err(Error::Usage("--library needs --feed".to_string())),
    };
    let begin = Instant::now();
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    context.run_in_place(&views)?;
    let cold = ready + begin.elapsed();
    print(&format!(
        "{} {}\n",
        cold.as_nanos(),
        peak_memory(Path::new("/proc/self/status"))
    ))
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// `VmHWM` in bytes.
fn peak_memory(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
