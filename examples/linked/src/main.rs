//! Reads the handwritten digit of a file with a model that is part of the program: `cargo run -- ../digits/seven.npy`.

use lapidary_runtime::{Input, Options};

lapidary_runtime::include_model!("digits");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("the path of a picture is missing")?;
    let pixels = pixels(&std::fs::read(path)?)?;
    let mut digits = Digits::new(&Options::default())?;
    let outputs = digits.run(Input::new([1, 1, 8, 8], &pixels)?)?;
    let [pictures, classes] = outputs.probabilities.dims();
    let scores = outputs.probabilities.as_slice();
    let best = (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    println!("{pictures} picture: {}", best.ok_or("no classes")?);
    Ok(())
}

/// The 64 numbers at the end of a NumPy file of f32.
fn pixels(file: &[u8]) -> Result<Vec<f32>, &'static str> {
    let start = file.len().checked_sub(256).ok_or("the file is too short")?;
    let bytes = file[start..].chunks_exact(4);
    Ok(bytes
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}
