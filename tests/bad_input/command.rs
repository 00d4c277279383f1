//! The command in a folder: what it prints, the code that it ends with, and what it leaves behind.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use lapidary::Tensor;
use lapidary::files::write_npy;
use lapidary_onnx::proto::ModelProto;
use prost::Message;

use crate::folder::Folder;

pub const USAGE: i32 = 2;
pub const UNSUPPORTED: i32 = 3;
pub const INVALID: i32 = 4;
pub const OTHER: i32 = 5;

impl Folder {
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), bytes).expect("a file");
        self.path(name)
    }
    pub fn model(&self, name: &str, model: &ModelProto) -> String {
        self.write(name, model.encode_to_vec())
    }
    /// `NAME=FILE` for a new file with this tensor.
    pub fn input(&self, name: &str, tensor: &Tensor) -> String {
        let file = format!("{name}-{}.npy", self.files().len());
        format!("{name}={}", self.write(&file, write_npy(tensor)))
    }
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(&self.0).expect("the folder");
        entries.map(|e| e.expect("an entry").path()).collect()
    }
    /// The command fails so, and leaves the folder as it was.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], code: i32, texts: &[&str]) {
        let before = self.files();
        let output = lapidary(arguments);
        judge(&output, arguments, code, texts);
        assert_eq!(self.files(), before, "{arguments:?} leaves files");
    }
}

pub fn lapidary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

#[track_caller]
pub fn judge(output: &Output, arguments: &[&str], code: i32, texts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for text in texts {
        assert!(
            message.contains(text),
            "{arguments:?}: '{text}' is not in: {message}"
        );
    }
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    assert_eq!(
        message.matches("error: ").count(),
        1,
        "{arguments:?}: {message}"
    );
}

#[track_caller]
pub fn succeeds(arguments: &[&str]) -> String {
    let output = lapidary(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
    String::from_utf8(output.stdout).expect("output is text")
}

pub fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).expect("a tensor")
}

pub fn i64s(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).expect("a tensor")
}
