//! Compiling and dropping models again and again keeps memory flat.
//!
//! 200 variants; `LAPIDARY_VARIANTS=1000` takes another number. Alone in its file: other tests of the same process
//! would be measured too.

use lapidary::{Model, Options, Tensor};

/// Bytes that the process holds in memory.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.expect("VmRSS is a number") * 1024
}

/// Mappings of the process.
#[cfg(target_os = "linux")]
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    maps.lines().count()
}

#[cfg(target_os = "linux")]
#[test]
fn variants_that_are_compiled_and_dropped_leave_nothing_behind() {
    let count = std::env::var("LAPIDARY_VARIANTS").ok();
    let count: usize = count.and_then(|n| n.parse().ok()).unwrap_or(200);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits/model.onnx");
    let variant = |batch: usize| {
        // As the command does: a model, loaded, compiled for one size, run and dropped.
        let model = Model::load(folder).expect("it loads");
        let mut options = Options {
            threads: 1 + batch % 2,
            ..Options::default()
        };
        options.set_dim(&format!("batch={batch}")).expect("a dim");
        let compiled = model.compile(&options).expect("it compiles");
        let info = &compiled.inputs()[0];
        let dims = info.dims.iter().flatten();
        let shape: Vec<usize> = dims.map(|dim| dim.value.expect("a fixed dim")).collect();
        let input = Tensor::zeros(info.dtype, &shape).expect("a tensor");
        let name = info.name.clone();
        let outputs = compiled.run([(name.as_str(), &input)]).expect("a run");
        assert_eq!(outputs[0].tensor.shape(), [batch, 10]);
    };
    // Batches come round, so that the greatest is in the warm-up already.
    let batch = |i: usize| 1 + (i * 7) % 16;
    for i in 0..50 {
        variant(batch(i));
    }
    let (memory, maps) = (resident(), mappings());
    for i in 0..count {
        variant(batch(i));
    }
    let (grown, more) = (
        resident().saturating_sub(memory),
        mappings().saturating_sub(maps),
    );
    println!(
        "{count} variants: {} KiB before, {} KiB more, {more} more mappings",
        memory >> 10,
        grown >> 10
    );
    // Less than 4 KiB a variant on top of what an allocator may keep.
    assert!(
        grown < (8 << 20) + 4096 * count as u64,
        "{count} variants: {grown} bytes more"
    );
    assert!(more < 32, "{count} variants: {more} more mappings");
}
