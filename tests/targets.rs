//! Models compiled for another machine: run in an emulator where there is one, and read back where there is none.
//!
//! `LAPIDARY_MODELS=FOLDER:FOLDER…` adds models, with data sets as those of `tests/models` have them.

#[path = "common/folder.rs"]
mod folder;
#[path = "common/loader.rs"]
mod loader;
#[path = "common/tools.rs"]
mod tools;

use std::path::Path;
use std::process::Command;

use folder::Folder;
use lapidary::case::Case;
use lapidary::{Options, target};
use loader::{AARCH64, Loader};
use tools::has;

const MODELS: [&str; 7] = [
    "examples/digits",
    "tests/models/bert",
    "tests/models/forest",
    "tests/models/gpt2",
    "tests/models/mobilenet",
    "tests/models/resnet",
    "tests/models/super_resolution",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command; it must succeed.
#[track_caller]
fn lapidary(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .current_dir(root())
        .args(arguments)
        .output()
        .expect("the command starts");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {message}");
    message
}

/// Runs a tool; what it prints. It must print no warning.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {message}");
    assert!(message.is_empty(), "{command:?}: {message}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs all data sets of a model that was compiled for AArch64.
fn check_on_aarch64(loader: &mut Loader, model: &Path, number: usize, options: &Options) {
    let case = Case::open(model).expect("the model opens");
    assert!(!case.sets.is_empty(), "{} has data sets", model.display());
    let name = format!("model{number}");
    let library = loader.folder.join(format!("lib{name}.so"));
    case.model
        .compile_library(&library, None, options)
        .unwrap_or_else(|error| panic!("{}: {error}", model.display()));
    let names = case.model.output_names();
    for folder in &case.sets {
        let set = case.read_set(folder).expect("the data set is readable");
        let found = loader
            .run(&library, &name, &set.inputs, &case.model.outputs())
            .unwrap_or_else(|error| panic!("{}, {}: {error}", model.display(), set.name));
        match set.judge(&found, &names, case.tolerance) {
            Ok(most) => println!("{}, {}: {most:.1e}", model.display(), set.name),
            Err(wrong) => panic!(
                "{}, {}: '{}': {}",
                model.display(),
                set.name,
                wrong[0].name,
                wrong[0].mismatch
            ),
        }
    }
}

#[test]
fn models_are_right_on_aarch64() {
    if !has(&[AARCH64.compiler, AARCH64.runner[0]]) {
        return;
    }
    let folder = Folder::new("targets-aarch64");
    let mut loader = Loader::start(&AARCH64, folder.0.join("loader")).expect("the loader starts");
    let target = target::parse("aarch64-linux").expect("a target");
    let runtime = folder.0.join("runtime.a");
    target::write_runtime(&target, None, &runtime).expect("the runtime is compiled");
    let options = Options {
        target: Some(target),
        runtime: Some(runtime),
        ..Options::default()
    };
    let more = std::env::var_os("LAPIDARY_MODELS").unwrap_or_default();
    let models = MODELS.iter().map(|m| root().join(m));
    for (number, model) in models
        .chain(std::env::split_paths(&more).filter(|m| m.is_dir()))
        .enumerate()
    {
        check_on_aarch64(&mut loader, &model, number, &options);
    }
}

/// As `docs/book/ship.md` has it: the model's objects need no compiler, the runtime comes as sources.
#[test]
fn an_archive_for_aarch64_is_linked_with_the_runtime_that_its_sources_make() {
    if !has(&[AARCH64.compiler, AARCH64.runner[0], "ar"]) {
        return;
    }
    let folder = Folder::new("targets-sources");
    let file = |name: &str| folder.0.join(name).display().to_string();
    lapidary(&["runtime", "-o", &file("runtime")]);
    let build = format!("sh {}", file("runtime/build.sh"));
    let mut script = Command::new("sh");
    script.arg(file("runtime/build.sh"));
    script.env(
        "CC",
        format!("{} -Wall -Wextra -Wno-unused-parameter", AARCH64.compiler),
    );
    assert_eq!(succeeds(&mut script), "", "{build}");
    for output in ["libdigits.a", "libdigits.o"] {
        let note = lapidary(&[
            "compile",
            "examples/digits/model.onnx",
            "--target",
            "aarch64-linux",
            "-o",
            &file(output),
        ]);
        assert!(note.contains("lapidary runtime"), "{note}");
        let program = folder.0.join("digits");
        let mut compiler = Command::new(AARCH64.compiler);
        compiler.args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-static",
        ]);
        compiler.args(["-Wl,--gc-sections", "-I", &file(""), "-o"]);
        compiler.arg(&program).arg(root().join("examples/c/main.c"));
        compiler.args([&file(output), &file("runtime/liblapidary_runtime.a")]);
        compiler.args(["-lm", "-lpthread"]);
        succeeds(&mut compiler);
        let text = succeeds(&mut AARCH64.command(&program));
        assert!(text.starts_with("a 7, with probability"), "{text}");
    }
}
