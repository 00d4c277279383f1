//! Places that cannot be written, and libraries that cannot be opened.

use std::path::Path;
use std::process::Command;

use crate::command::*;
use crate::folder::Folder;
use crate::models::*;

#[test]
fn a_place_that_cannot_be_written_is_an_error_and_nothing_stays() {
    let f = Folder::new("bad-places");
    let path = f.model("m.onnx", &sound());
    let file = f.write("file", b"no folder");
    std::fs::create_dir(f.0.join("taken.so")).expect("a folder");
    std::fs::create_dir(f.0.join("taken.npz")).expect("a folder");
    std::fs::create_dir(f.0.join("taken.h")).expect("a folder");
    let run = |to: &str, code: i32| {
        f.fails(
            &["run", &path, "--input", "x=random", "-o", to],
            code,
            &[to],
        );
    };
    run(&f.path("none/out.npz"), USAGE);
    run(&f.path("none/out.npy"), USAGE);
    run(&format!("{file}/out.npz"), OTHER);
    run(&f.path("taken.npz"), OTHER);
    let compile = |to: &str, code: i32| f.fails(&["compile", &path, "-o", to], code, &[to]);
    for kind in ["so", "a", "o"] {
        compile(&f.path(&format!("none/m.{kind}")), USAGE);
        compile(&format!("{file}/m.{kind}"), OTHER);
    }
    compile(&f.path("taken.so"), OTHER);
    let out = f.path("m.so");
    let header = f.path("taken.h");
    f.fails(
        &["compile", &path, "-o", &out, "--header", &header],
        OTHER,
        &["taken.h"],
    );
    let weights = f.path("none/m.weights");
    f.fails(
        &["compile", &path, "-o", &out, "--weights", &weights],
        USAGE,
        &["m.weights"],
    );
    // The library cannot take its place; its weights are taken back.
    let taken = f.path("taken.so");
    let weights = f.path("m.weights");
    f.fails(
        &["compile", &path, "-o", &taken, "--weights", &weights],
        OTHER,
        &["taken.so"],
    );
}

/// A limit on the size of files is met as a full disk is.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_nothing_stays() {
    let f = Folder::new("bad-full");
    let path = f.model("m.onnx", &add(floats("w", &[1.0; 4096]), &["4096"]));
    let limited = |arguments: &[&str]| {
        let before = f.files();
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_lapidary"))
            .args(arguments)
            .output()
            .expect("a shell");
        judge(&output, arguments, OTHER, &[]);
        assert_eq!(f.files(), before, "{arguments:?} leaves files");
    };
    limited(&[
        "run",
        &path,
        "--input",
        "x=random",
        "-o",
        &f.path("out.npz"),
    ]);
    for kind in ["so", "a", "o"] {
        limited(&["compile", &path, "-o", &f.path(&format!("m.{kind}"))]);
    }
    let full = |arguments: &[&str]| {
        let to = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let output = Command::new(env!("CARGO_BIN_EXE_lapidary"))
            .args(arguments)
            .stdout(to)
            .output()
            .expect("the command starts");
        judge(&output, arguments, OTHER, &["standard output"]);
    };
    if Path::new("/dev/full").exists() {
        full(&["run", &path, "--input", "x=random"]);
        full(&["check", &path]);
        full(&["show", &path, "--stage", "loops"]);
    }
}

#[test]
fn a_library_that_needs_what_this_processor_lacks_is_refused_when_it_is_opened() {
    let f = Folder::new("bad-processor");
    let path = f.model("m.onnx", &sound());
    let library = f.path("libm.so");
    succeeds(&["compile", &path, "-o", &library, "--cpu", "baseline"]);
    // The model table begins with the ABI version, its size and the features that the code needs.
    let mut bytes = std::fs::read(&library).expect("the library");
    let size = lapidary_runtime::abi::MODEL_TABLE_BYTES as u32;
    let head = [
        lapidary_runtime::abi::ABI_VERSION.to_le_bytes(),
        size.to_le_bytes(),
    ]
    .concat();
    let at = bytes
        .windows(8)
        .position(|w| w == head)
        .expect("the model table")
        + 8;
    // A feature of the other architecture.
    let bit = if cfg!(target_arch = "x86_64") { 34 } else { 2 };
    let features = 1u64 << bit;
    bytes[at..at + 8].copy_from_slice(&features.to_le_bytes());
    std::fs::write(&library, &bytes).expect("the library");
    f.fails(
        &["run", &library, "--input", "x=random"],
        UNSUPPORTED,
        &["`m`", "this processor does not have"],
    );
    // Of another version of the interface.
    bytes[at - 8] = 99;
    std::fs::write(&library, &bytes).expect("the library");
    f.fails(
        &["run", &library, "--input", "x=random"],
        UNSUPPORTED,
        &["99"],
    );
}

#[test]
fn a_weights_file_that_is_missing_or_not_its_own_is_an_error() {
    let f = Folder::new("bad-weights");
    let path = f.model("m.onnx", &sound());
    let (library, weights) = (f.path("libm.so"), f.path("m.weights"));
    succeeds(&["compile", &path, "-o", &library, "--weights", &weights]);
    let run = ["run", &library, "--input", "x=random"];
    succeeds(&run);
    let bytes = std::fs::read(&weights).expect("the weights");
    for broken in [&bytes[..bytes.len() - 1], &bytes[..10], &[]] {
        std::fs::write(&weights, broken).expect("the weights");
        f.fails(&run, INVALID, &["m.weights"]);
    }
    std::fs::remove_file(&weights).expect("the weights");
    f.fails(&run, INVALID, &["m.weights"]);
}
