//! Opening, running and closing a compiled library again and again keeps memory flat.
//!
//! 2,000 times; `LAPIDARY_OPENINGS=10000` takes another number. Alone in its file: other tests of the same process
//! would be measured too.
#![cfg(target_os = "linux")]

#[path = "common/memory.rs"]
mod memory;

use lapidary::{Compiled, Model, Options, Tensor};
use memory::{Held, times};

#[test]
fn libraries_that_are_opened_and_closed_leave_nothing_behind() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits/model.onnx");
    let folder = std::env::temp_dir().join(format!("lapidary-openings-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (library, weights) = (folder.join("libdigits.so"), folder.join("digits.weights"));
    let model = Model::load(model).expect("it loads");
    let options = Options {
        threads: 2,
        ..Options::default()
    };
    model
        .compile_library(&library, Some(&weights), &options)
        .expect("it compiles");
    let input = Tensor::zeros(lapidary::DType::F32, &[5, 1, 8, 8]).expect("a tensor");
    let open = || {
        let compiled = Compiled::open_library(&library, &options).expect("it opens");
        let mut contexts = [compiled.context(), compiled.context()].map(|c| c.expect("a context"));
        for context in &mut contexts {
            let outputs = context
                .run_tensors(std::slice::from_ref(&input))
                .expect("it runs");
            assert_eq!(outputs[0].shape(), [5, 10]);
        }
    };
    (0..20).for_each(|_| open());
    let (before, count) = (Held::now(), times("LAPIDARY_OPENINGS", 2000));
    (0..count).for_each(|_| open());
    before.assert_flat(count, "openings");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    assert!(!maps.contains("libdigits.so"), "the library is unloaded");
    let _ = std::fs::remove_dir_all(&folder);
}
