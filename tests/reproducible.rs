//! The same model and options give the same bytes, also with sizes that are free, so that what a build made can be checked
//! by another, and equal kernels of a model's layers are found to be equal.

#[path = "common/folder.rs"]
mod folder;

use std::fs;
use std::path::{Path, PathBuf};

use folder::Folder;
use lapidary::{Cpu, Model, Options};

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("examples/digits")];
    let small = fs::read_dir(root.join("tests/models")).expect("the small models");
    folders.extend(small.map(|entry| entry.expect("an entry").path()));
    folders.retain(|folder| folder.join("model.onnx").exists());
    folders
}

#[test]
fn a_model_compiled_again_has_the_same_bytes() {
    let models = models();
    assert!(models.len() > 5, "{models:?}");
    for folder in models {
        let model = Model::load(folder.join("model.onnx")).expect("the model loads");
        for symbolic in [false, true] {
            let options = Options {
                cpu: Cpu::Multi,
                symbolic,
                ..Options::default()
            };
            // Tables that are walked in the order of random hashes differ from compilation to compilation.
            let made: Vec<Vec<Vec<u8>>> = (0..4).map(|_| compile(&model, &options)).collect();
            for other in &made[1..] {
                assert!(
                    *other == made[0],
                    "{} (symbolic: {symbolic})",
                    folder.display()
                );
            }
        }
    }
}

/// The bytes of the object file, the weights and the header.
fn compile(model: &Model, options: &Options) -> Vec<Vec<u8>> {
    let folder = Folder::new("reproducible");
    let (object, weights) = (folder.0.join("model.o"), folder.0.join("model.weights"));
    let made = model
        .compile_to(&object, Some(&weights), None, options)
        .expect("the model compiles");
    let read = |file: &PathBuf| fs::read(file).expect("a file that was written");
    made.files.iter().map(read).collect()
}
