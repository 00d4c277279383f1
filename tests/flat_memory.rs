//! Compiling and dropping models again and again keeps memory flat.
//!
//! 200 variants; `LAPIDARY_VARIANTS=1000` takes another number. Alone in its file: other tests of the same process
//! would be measured too.
#![cfg(target_os = "linux")]

#[path = "common/memory.rs"]
mod memory;

use lapidary::{Model, Options, Tensor};
use memory::{Held, times};

#[test]
fn variants_that_are_compiled_and_dropped_leave_nothing_behind() {
    let count = times("LAPIDARY_VARIANTS", 200);
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
    let before = Held::now();
    for i in 0..count {
        variant(batch(i));
    }
    before.assert_flat(count, "variants");
}
