//! The digits of the examples, and models with data sets.
#![allow(dead_code)]

use std::path::Path;

use lapidary::case::Case;
use lapidary::{Compiled, Model, Tensor, files};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn digits() -> Model {
    Model::load(root().join("examples/digits/model.onnx")).expect("the model opens")
}

pub fn seven() -> Tensor {
    files::read_tensor(&root().join("examples/digits/seven.npy"), "pixels").expect("a tensor")
}

/// What was compiled of a case's model, or of one that must do the same, gives what its data sets expect.
#[track_caller]
pub fn all_right(case: &Case, compiled: &Compiled) {
    let mut context = compiled.context().expect("a context");
    for folder in &case.sets {
        let set = case.read_set(folder).expect("the data set is readable");
        let found = context.run_values(&set.inputs).expect("it runs");
        if let Err(wrong) = set.judge(&found, &case.model.output_names(), case.tolerance) {
            let (set, first) = (folder.display(), &wrong[0]);
            panic!("{set}: '{}': {}", first.name, first.mismatch);
        }
    }
}
