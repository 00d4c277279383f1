//! What the checker knows of the shapes in models, for `python/shapes_compare.py`: a line for each model (its path) and for
//! each value of its graph (name, tab, sizes; `?` for one that is not known).
//!
//! ```sh
//! cargo run --release -p lapidary-onnx --example shapes -- MODEL.onnx…
//! ```

use lapidary_onnx::{ModelFile, checker};

fn main() {
    for path in std::env::args().skip(1) {
        println!("model\t{path}");
        let file = match ModelFile::open(&path) {
            Ok(file) => file,
            Err(error) => {
                println!("fault\t{error}");
                continue;
            }
        };
        let full = checker::Rules {
            full: true,
            ..checker::Rules::default()
        };
        for (kind, found) in [
            ("fault", checker::check(&file)),
            ("full", checker::check_by(&file, &full)),
        ] {
            for fault in found.err().into_iter().flatten() {
                println!("{kind}\t{fault}");
            }
        }
        for (name, shape) in checker::shapes(&file) {
            let sizes = shape.iter().map(|size| match size {
                Some(size) => size.to_string(),
                None => "?".to_string(),
            });
            println!("value\t{name}\t{}", sizes.collect::<Vec<_>>().join(" "));
        }
    }
}
