//! Compiles `proto/onnx.proto` into Rust, without `protoc`.
//!
//! Every `bytes` field becomes a `Bytes`, so that a model decoded from a mapped file shares the file's memory.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let file = folder.join("onnx.proto");
    println!("cargo:rerun-if-changed={}", file.display());
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile([&file], [&folder])?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
