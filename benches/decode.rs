//! `cargo bench --bench decode -- MODEL.onnx PAST=PRESENT [TOKENS]`: a decoder token by token, its cache kept in the context.
//!
//! Runs a model from an empty cache to TOKENS tokens (512) with states, and prints resident memory on the way. Then
//! runs it again side by side with the same model without states, whose cache goes out and in at each
//! token, and prints the greatest difference of the outputs and the times of the last tokens. Free dims other than the
//! cache's are 1. Nothing is asserted: timing is for people.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapidary::random::Random;
use lapidary::{Compiled, Context, Error, Model, Options, Tensor, TensorView, ValueInfo, compare};

/// Resident bytes of this process.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    (kib.unwrap_or(0) << 10) as f64 / 1e6
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    let middle = times.get(times.len() / 2);
    middle.map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Values of an input that is no state, for the token at position `at`.
fn input(info: &ValueInfo, at: usize, random: &mut Random) -> Result<Tensor, Error> {
    let dims = info.dims.iter().flatten();
    let shape: Vec<usize> = dims.map(|dim| dim.value.unwrap_or(1)).collect();
    if info.name.contains("position") {
        return Ok(Tensor::from_slice(&shape, &[at as i64])?);
    }
    Ok(random.tensor(info.dtype, &shape, 200)?)
}

/// The model with its cache outside: what a run gives is what the next is given.
struct Explicit {
    context: Context,
    /// Input and output of each part of the cache.
    pairs: Vec<(usize, usize)>,
    cache: HashMap<usize, Tensor>,
}

impl Explicit {
    fn new(compiled: &Compiled, kept: &Context) -> Result<Explicit, Error> {
        let pairs = kept.states().iter().map(|s| (s.input, s.output)).collect();
        let mut cache = HashMap::new();
        for state in kept.states() {
            let info = &compiled.inputs()[state.input];
            let dims = info.dims.iter().flatten().enumerate();
            let size = |(axis, dim): (usize, &lapidary::Dim)| match state.axis == Some(axis) {
                true => 0,
                false => dim.value.unwrap_or(1),
            };
            let shape: Vec<usize> = dims.map(size).collect();
            cache.insert(state.input, Tensor::zeros(info.dtype, &shape)?);
        }
        Ok(Explicit {
            context: compiled.context()?,
            pairs,
            cache,
        })
    }

    /// The first output that is no cache, the time of the run alone, and with the cache copied out.
    fn step(
        &mut self,
        given: &HashMap<usize, Tensor>,
    ) -> Result<(Tensor, Duration, Duration), Error> {
        let begin = Instant::now();
        let inputs = 0..self.context.inputs().len();
        let views: Vec<TensorView<'_>> = inputs
            .filter_map(|i| given.get(&i).or_else(|| self.cache.get(&i)))
            .map(Tensor::view)
            .collect();
        let outputs = self.context.run_in_place(&views)?;
        let alone = begin.elapsed();
        let mut next = HashMap::new();
        for (input, output) in &self.pairs {
            next.insert(*input, outputs[*output].to_tensor()?);
        }
        let all = begin.elapsed();
        let free = (0..outputs.len()).find(|o| self.pairs.iter().all(|(_, p)| p != o));
        let result = outputs[free.unwrap_or(0)].to_tensor()?;
        self.cache = next;
        Ok((result, alone, all))
    }
}

/// The first output of a run whose cache the context keeps.
fn step(
    context: &mut Context,
    given: &HashMap<usize, Tensor>,
) -> Result<(Tensor, Duration), Error> {
    let inputs = 0..context.inputs().len();
    let views: Vec<Option<TensorView<'_>>> =
        inputs.map(|i| given.get(&i).map(Tensor::view)).collect();
    let begin = Instant::now();
    let outputs = context.run_some_in_place(&views)?;
    let time = begin.elapsed();
    Ok((outputs[0].to_tensor()?, time))
}

fn run() -> Result<(), Error> {
    let words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let words: Vec<String> = words.collect();
    let [path, state, rest @ ..] = words.as_slice() else {
        println!("decode: give a model and its states, PAST=PRESENT with * for any text");
        return Ok(());
    };
    let tokens = rest
        .first()
        .and_then(|word| word.parse().ok())
        .unwrap_or(512);
    let model = Model::load(path)?;
    let mut options = Options {
        threads: 1,
        ..Options::default()
    };
    let plain_options = options.clone();
    options.set_state(state)?;
    let begin = Instant::now();
    let compiled = model.compile(&options)?;
    println!(
        "compiled once in {:.0} ms",
        begin.elapsed().as_secs_f64() * 1e3
    );
    let mut context = compiled.context()?;
    let in_place = context.states().iter().filter(|s| s.in_place).count();
    println!(
        "{} states, {in_place} of them grow in place",
        context.states().len()
    );

    let given = |at: usize, context: &Context| -> Result<HashMap<usize, Tensor>, Error> {
        let mut random = Random::new(at as u64);
        let states: Vec<usize> = context.states().iter().map(|s| s.input).collect();
        let inputs = context.inputs().iter().enumerate();
        let free = inputs.filter(|(i, _)| !states.contains(i));
        free.map(|(i, info)| Ok((i, input(info, at, &mut random)?)))
            .collect()
    };
    for at in 0..tokens {
        let inputs = given(at, &context)?;
        step(&mut context, &inputs)?;
        if [10, 100, tokens].contains(&(at + 1)) {
            let held = context.memory_used() as f64 / 1e6;
            println!(
                "after {:4} tokens: {:.1} MB resident, {held:.1} MB in the context",
                at + 1,
                resident()
            );
        }
    }

    context.reset_states()?;
    let plain = model.compile(&plain_options)?;
    let mut explicit = Explicit::new(&plain, &context)?;
    let (mut kept, mut alone, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    let mut greatest = 0f64;
    for at in 0..tokens {
        let inputs = given(at, &context)?;
        let (ours, time) = step(&mut context, &inputs)?;
        let (theirs, run, all) = explicit.step(&inputs)?;
        kept.push(time);
        alone.push(run);
        copied.push(all);
        for (a, b) in compare::numbers(&ours)
            .iter()
            .zip(compare::numbers(&theirs))
        {
            greatest = greatest.max((a - b).abs());
        }
    }
    println!("greatest difference of the first output over all tokens: {greatest:.3e}");
    let last = tokens.min(32);
    let of = |times: &[Duration]| median(&times[tokens - last..]);
    println!(
        "per token, median of the last {last}: {:.3} ms with states, {:.3} ms without ({:.3} ms with the cache copied out)",
        of(&kept),
        of(&alone),
        of(&copied)
    );
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
