//! One thing that is measured: own code, a peer, or a program; and the turns that they take.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lapidary::compare::numbers;
use lapidary::pipeline::Work;
use lapidary::{Context, Cpu, Error, Tensor, TensorView};
use lapidary_runtime::ModelCode;

use super::command::Whole;
use super::peak;
use super::peer::Peer;
use super::report::{Entry, Kind};
use super::statistics::{quantile, sorted, spread};

/// Rounds in which the variants take turns.
const ROUNDS: usize = 12;

/// What is measured, and what came out.
pub struct Variant {
    pub name: String,
    pub runner: Runner,
    pub threads: usize,
    pub inputs: Rc<Vec<Tensor>>,
    /// Multiplications and additions of a run.
    pub flops: Option<f64>,
    pub cold: Option<Duration>,
    pub peak_memory: Option<u64>,
    pub error: Option<f64>,
    /// Times of each round.
    rounds: Vec<Vec<Duration>>,
    /// Runs that fit into a turn.
    per_turn: usize,
}

/// Who runs.
pub enum Runner {
    Own {
        context: Box<Context>,
        code: Arc<dyn ModelCode>,
        /// The instructions that it may use.
        cpu: Cpu,
        work: Option<Work>,
    },
    Peer(Peer),
    Process(Whole),
}

impl Variant {
    pub fn new(name: String, runner: Runner, threads: usize, inputs: Rc<Vec<Tensor>>) -> Variant {
        Variant {
            name,
            runner,
            threads,
            inputs,
            flops: None,
            cold: None,
            peak_memory: None,
            error: None,
            rounds: Vec::new(),
            per_turn: 1,
        }
    }

    /// The process of a peer.
    pub fn process(&self) -> Option<u32> {
        match &self.runner {
            Runner::Peer(peer) => Some(peer.id()),
            _ => None,
        }
    }

    fn run(&mut self, times: usize) -> Result<Vec<Duration>, Error> {
        match &mut self.runner {
            Runner::Peer(peer) => peer.run(times),
            Runner::Process(whole) => whole.run(times),
            Runner::Own { context, .. } => {
                // The context holds what is a state; each run begins with the value given, as a peer's does.
                let states: Vec<(usize, String)> = context
                    .states()
                    .iter()
                    .map(|s| (s.input, context.inputs()[s.input].name.clone()))
                    .collect();
                let mut views: Vec<Option<TensorView<'_>>> =
                    self.inputs.iter().map(|input| Some(input.view())).collect();
                for (at, _) in &states {
                    views[*at] = None;
                }
                let mut all = Vec::with_capacity(times);
                for _ in 0..times {
                    for (at, name) in &states {
                        context.set_state(name, &self.inputs[*at])?;
                    }
                    let begin = Instant::now();
                    context.run_some_in_place(&views)?;
                    all.push(begin.elapsed());
                }
                Ok(all)
            }
        }
    }

    /// The row of a report; `peak` in GFLOP/s.
    pub fn entry(&self, peak: Option<f64>) -> Entry {
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let rounds_ms: Vec<f64> = self
            .rounds
            .iter()
            .map(|round| quantile(&sorted(round.iter().map(ms).collect()), 0.5))
            .collect();
        let times = sorted(self.rounds.iter().flatten().map(ms).collect());
        let p50_ms = quantile(&times, 0.5);
        let gflops = self.flops.map(|flops| flops / p50_ms / 1e6);
        Entry {
            name: self.name.clone(),
            kind: match self.runner {
                Runner::Own { .. } => Kind::Own,
                Runner::Peer(_) => Kind::Peer,
                Runner::Process(_) => Kind::Process,
            },
            threads: self.threads,
            p50_ms,
            p90_ms: quantile(&times, 0.9),
            p99_ms: quantile(&times, 0.99),
            cold_ms: self.cold.as_ref().map(ms),
            peak_rss_mb: self.peak_memory.map(|bytes| bytes as f64 / 1e6),
            gflops,
            percent_of_peak: gflops.zip(peak).map(|(g, peak)| 100.0 * g / peak),
            max_abs_error: self.error,
            runs: times.len(),
            spread: spread(&rounds_ms),
            rounds_ms,
            quantiles_ms: (0..=100)
                .map(|part| quantile(&times, f64::from(part) / 100.0))
                .collect(),
            layers: None,
        }
    }
}

/// Takes turns, so many seconds for each; gives the peak at each thread count.
pub fn take_turns(variants: &mut [Variant], seconds: f64) -> Result<BTreeMap<usize, f64>, Error> {
    let mut peaks = BTreeMap::new();
    let turn = Duration::from_secs_f64((seconds / ROUNDS as f64).clamp(0.001, 60.0));
    let bar = progress(ROUNDS * variants.len());
    for variant in variants.iter_mut() {
        peaks.insert(variant.threads, 0.0);
        // Warm, and find out how many runs fit into a turn.
        let begin = Instant::now();
        let mut runs = 0u32;
        while runs < 2 || (begin.elapsed() < turn / 2 && runs < 10_000) {
            variant.run(1)?;
            runs += 1;
        }
        let each = (begin.elapsed() / runs).max(Duration::from_nanos(100));
        variant.per_turn = ((turn.as_secs_f64() / each.as_secs_f64()) as usize).max(1);
    }
    for round in 0..ROUNDS {
        if round % 4 == 0 {
            for (threads, peak) in &mut peaks {
                *peak = f64::max(*peak, peak::measure(*threads));
            }
        }
        for variant in variants.iter_mut() {
            let times = variant.run(variant.per_turn)?;
            variant.rounds.push(times);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(peaks)
}

/// The greatest difference of floats; `None` where shapes differ or nothing can be subtracted.
pub fn greatest_error(expected: &[Tensor], found: &[Tensor]) -> Option<f64> {
    if expected.len() != found.len() {
        return None;
    }
    let mut greatest = 0f64;
    for (a, b) in expected.iter().zip(found) {
        if a.shape() != b.shape() {
            return None;
        }
        for (a, b) in numbers(a).iter().zip(numbers(b)) {
            let difference = (a - b).abs();
            if difference.is_finite() {
                greatest = greatest.max(difference);
            }
        }
    }
    Some(greatest)
}

/// A bar on a terminal; nothing elsewhere.
fn progress(steps: usize) -> ProgressBar {
    use std::io::IsTerminal;
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}") {
        bar.set_style(style);
    }
    bar
}
