//! Compiles the digits model, to be linked into the program.

fn main() -> Result<(), lapidary::Error> {
    lapidary::build::compile("../digits/model.onnx")
        .out_name("digits")
        .emit()
}
