//! `cargo bench --bench shapes -- MODEL.onnx seq=1..512 batch=1..4 [SHAPES]`: one compilation over many shapes.
//!
//! Runs a model at random values of its free dims, then at ten of them, from the smallest to the largest in equal
//! ratios, side by side with code that was compiled for that shape alone. Prints memory after 10 shapes and after all, and the time of each of the ten as a ratio. Nothing
//! is asserted: timing is for people.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use lapidary::random::Random;
use lapidary::{Compiled, Context, DimSetting, Error, Model, Options, Tensor, TensorView};

/// A free dim and its range, both ends included.
struct Range {
    name: String,
    from: usize,
    to: usize,
}

fn range(text: &str) -> Option<Range> {
    let (name, range) = text.split_once('=')?;
    let (from, to) = range.split_once("..")?;
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to && to < usize::MAX).then(|| Range {
        name: name.into(),
        from,
        to,
    })
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

type Shape = BTreeMap<String, usize>;

fn inputs(compiled: &Compiled, shape: &Shape) -> Result<Vec<Tensor>, Error> {
    let mut random = Random::new(1);
    let mut all = Vec::new();
    for info in compiled.inputs() {
        let mut dims = Vec::new();
        for (axis, dim) in info.dims.iter().flatten().enumerate() {
            let place = format!("{}.{axis}", info.name);
            let named = dim.name.as_ref().and_then(|name| shape.get(name));
            let size = dim.value.or(named.copied()).or(shape.get(&place).copied());
            dims.push(size.unwrap_or(1));
        }
        all.push(random.tensor(info.dtype, &dims, 2)?);
    }
    Ok(all)
}

fn timed(context: &mut Context, inputs: &[Tensor]) -> Result<Duration, Error> {
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let begin = Instant::now();
    context.run_in_place(&views)?;
    Ok(begin.elapsed())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
}

/// Elements, at a guess: the product of the free dims.
fn volume(shape: &Shape) -> usize {
    shape.values().product()
}

/// At most `count` of the shapes, their volumes in a geometric series from the smallest to the largest.
fn spread(mut shapes: Vec<Shape>, count: usize) -> Vec<Shape> {
    shapes.sort_by_key(volume);
    let (Some(least), Some(most)) = (shapes.first(), shapes.last()) else {
        return shapes;
    };
    let (least, most) = (volume(least).max(1) as f64, volume(most).max(1) as f64);
    let mut chosen = Vec::new();
    for i in 0..count {
        let part = i as f64 / (count - 1).max(1) as f64;
        let wanted = least * (most / least).powf(part);
        let distance = |shape: &Shape| (volume(shape).max(1) as f64 / wanted).ln().abs();
        let nearest = (0..shapes.len())
            .min_by(|a, b| distance(&shapes[*a]).total_cmp(&distance(&shapes[*b])));
        if let Some(nearest) = nearest {
            chosen.push(shapes.remove(nearest));
        }
    }
    chosen
}

fn run() -> Result<(), Error> {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let Some((path, rest)) = words.split_first() else {
        println!("shapes: give a model and ranges of its free dims, NAME=FROM..TO");
        return Ok(());
    };
    let (mut ranges, mut count) = (Vec::new(), 1000);
    for word in rest {
        match (range(word), word.parse::<usize>()) {
            (Some(range), _) => ranges.push(range),
            (None, Ok(number)) => count = number,
            (None, Err(_)) => {
                let text = format!("'{word}' is neither NAME=FROM..TO nor a number of shapes");
                return Err(Error::Usage(text));
            }
        }
    }
    let model = Model::load(path)?;
    let mut options = Options {
        threads: 1,
        ..Options::default()
    };
    for range in &ranges {
        options.dims.push((range.name.clone(), DimSetting::Free));
    }
    let begin = Instant::now();
    let compiled = model.compile(&options)?;
    println!(
        "compiled once in {:.0} ms",
        begin.elapsed().as_secs_f64() * 1e3
    );

    let mut random = Random::new(7);
    let mut seen = HashSet::new();
    let mut shapes: Vec<Shape> = Vec::new();
    for _ in 0..count * 20 {
        if shapes.len() == count {
            break;
        }
        let draw = |range: &Range| {
            let size = random.below((range.to - range.from + 1) as u64) as usize;
            (range.name.clone(), range.from + size)
        };
        let shape: Shape = ranges.iter().map(draw).collect();
        if seen.insert(shape.clone()) {
            shapes.push(shape);
        }
    }
    let mut context = compiled.context()?;
    // The largest first: what is held after it is what the arena needs.
    if let Some(most) = (0..shapes.len()).max_by_key(|i| volume(&shapes[*i])) {
        shapes.swap(0, most);
    }
    let mut longest = Duration::ZERO;
    for (i, shape) in shapes.iter().enumerate() {
        let inputs = inputs(&compiled, shape)?;
        longest = longest.max(timed(&mut context, &inputs)?);
        if i + 1 == 10 || i + 1 == shapes.len() {
            println!(
                "after {:4} shapes: {:.1} MB resident, {:.1} MB in the context",
                i + 1,
                resident() as f64 / 1e6,
                context.memory_used() as f64 / 1e6
            );
        }
    }
    println!("longest run {:.1} ms", longest.as_secs_f64() * 1e3);

    for shape in &spread(shapes, 10) {
        let mut fixed = options.clone();
        for (name, size) in shape {
            fixed
                .dims
                .push((name.clone(), DimSetting::Fixed(*size as i64)));
        }
        let own = model.compile(&fixed)?;
        let mut own = own.context()?;
        let inputs = inputs(&compiled, shape)?;
        let (mut free, mut special) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        while free.len() < 5 || (begin.elapsed() < Duration::from_secs(2) && free.len() < 2000) {
            free.push(timed(&mut context, &inputs)?);
            special.push(timed(&mut own, &inputs)?);
        }
        let (free, special) = (median(free), median(special));
        println!(
            "{shape:?}: {:.3} ms, specialised {:.3} ms, ratio {:.3}",
            free * 1e3,
            special * 1e3,
            free / special
        );
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
