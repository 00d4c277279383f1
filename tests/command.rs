//! The command from outside: exit codes, messages, files.

#[path = "common/folder.rs"]
mod folder;

use folder::Folder;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lapidary::Tensor;
use lapidary::files::{read_npz, read_tensor, write_npy};

const DIGITS: &str = "examples/digits";

fn lapidary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

#[track_caller]
fn fails(arguments: &[&str], code: i32, text: &str) {
    let output = lapidary(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains(text), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?} prints a result");
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = lapidary(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
    String::from_utf8(output.stdout).expect("output is text")
}

#[test]
fn a_run_prints_a_summary_of_each_output() {
    let model = format!("{DIGITS}/model.onnx");
    let input = format!("pixels={DIGITS}/seven.npy");
    let text = succeeds(&["run", &model, "--input", &input]);
    assert!(
        text.starts_with("probabilities: f32[1, 10]  min "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn outputs_go_to_files_that_are_read_again() {
    let folder = Folder::new("outputs");
    let model = format!("{DIGITS}/model.onnx");
    let input = format!("pixels={DIGITS}/seven.npy");
    let (npz, npy) = (folder.path("out.npz"), folder.path("out.npy"));
    for file in [&npz, &npy] {
        assert_eq!(
            succeeds(&["run", &model, "--input", &input, "--output", file]),
            ""
        );
    }
    let arrays = read_npz(Path::new(&npz)).expect("an archive");
    let alone = read_tensor(Path::new(&npy), "").expect("an array");
    assert_eq!(arrays, [("probabilities".to_string(), alone)]);
    // No temporary file is left.
    assert_eq!(std::fs::read_dir(&folder.0).expect("the folder").count(), 2);
}

#[test]
fn random_inputs_are_the_same_for_a_seed_and_take_free_dims() {
    let model = format!("{DIGITS}/model.onnx");
    let run = |seed: &str| {
        succeeds(&[
            "run",
            &model,
            "--input",
            "pixels=random",
            "--dim",
            "batch=3",
            "--seed",
            seed,
        ])
    };
    assert!(run("1").starts_with("probabilities: f32[3, 10]"));
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn mistakes_in_the_call_are_told_with_what_to_do() {
    let model = format!("{DIGITS}/model.onnx");
    fails(&["run", "missing.onnx"], 2, "there is no 'missing.onnx'");
    fails(&["run", &model], 2, "input 'pixels' is not given");
    fails(
        &["run", &model, "--input", "x=random"],
        2,
        "its inputs are pixels",
    );
    fails(&["run", &model, "--input", "pixels"], 2, "NAME=FILE");
    fails(
        &["run", &model, "--input", "pixels=random", "--dim", "batch"],
        2,
        "NAME=VALUE",
    );
    fails(
        &["run", &model, "--input", "pixels=random", "-o", "x.txt"],
        2,
        ".npz",
    );
    fails(&["compile", &model, "-o", "x.exe"], 2, ".so, .a or .o");
    for batch in ["batch=9999999999999", "batch=4611686018427387904"] {
        fails(
            &["run", &model, "--input", "pixels=random", "--dim", batch],
            2,
            "'pixels'",
        );
    }
    fails(&["check", "src"], 2, "model.onnx");
    fails(&["bench", &model, "--threads", "0"], 2, "--threads");
    fails(&["fly"], 2, "unrecognized subcommand");
}

#[test]
fn broken_files_and_data_that_does_not_fit_are_invalid() {
    let folder = Folder::new("broken");
    let broken = folder.path("broken.onnx");
    std::fs::write(&broken, b"no model").expect("a file");
    fails(&["check", &broken], 4, "broken.onnx");
    let wide = folder.path("wide.npy");
    let tensor = Tensor::zeros(lapidary::DType::F32, &[1, 1, 9, 8]).expect("a tensor");
    std::fs::write(&wide, write_npy(&tensor)).expect("a file");
    let model = format!("{DIGITS}/model.onnx");
    fails(
        &["run", &model, "--input", &format!("pixels={wide}")],
        4,
        "pixels",
    );
}

#[test]
fn a_memory_limit_ends_a_run_with_an_error() {
    let model = format!("{DIGITS}/model.onnx");
    let input = format!("pixels={DIGITS}/seven.npy");
    let arguments = ["run", &model, "--input", &input, "--memory-limit", "1000"];
    fails(&arguments, 5, "1000");
}

#[test]
fn a_folder_is_checked_in_memory_and_as_a_library() {
    for more in [
        &[][..],
        &["--aot"],
        &["--threads", "2"],
        &["--symbolic"],
        &["--cpu", "baseline"],
    ] {
        let text = succeeds(&[&["check", DIGITS], more].concat());
        assert_eq!(text.matches(": right").count(), 2, "{text}");
    }
}

#[test]
fn a_wrong_result_is_told_with_its_worst_element() {
    let folder = Folder::new("wrong");
    for (from, to) in [
        ("model.onnx", "model.onnx"),
        ("test_data_set_0/input_0.pb", "test_data_set_0/input_0.pb"),
        // Of another picture.
        ("test_data_set_0/output_0.pb", "test_data_set_0/output_0.pb"),
    ] {
        let to = folder.0.join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(DIGITS)
            .join(from);
        std::fs::copy(from, to).expect("a copy");
    }
    let output = folder.0.join("test_data_set_0/output_0.pb");
    let mut bytes = std::fs::read(&output).expect("a file");
    // The last float of the tensor.
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&0.5f32.to_le_bytes());
    std::fs::write(&output, bytes).expect("a file");
    let path = folder.0.display().to_string();
    fails(
        &["check", &path],
        1,
        "output 'probabilities': 1 of 10 elements are wrong",
    );
    // The graph itself does not give that result.
    fails(
        &["check", &path, "--bisect"],
        1,
        "bisect: the graph is wrong as imported",
    );
}

#[test]
fn files_of_one_compilation_must_differ() {
    let folder = Folder::new("distinct");
    let model = folder.path("model.so");
    std::fs::copy(format!("{DIGITS}/model.onnx"), &model).expect("a copy");
    let before = std::fs::read(&model).expect("the model");
    let (same, library) = (folder.path("./model.so"), folder.path("x.so"));
    let again = folder.path("./x.so");
    let source = format!("{DIGITS}/model.onnx");
    fails(&["compile", &model, "-o", &same], 2, "the model");
    for option in ["--weights", "--header"] {
        fails(
            &["compile", &model, "-o", &library, option, &same],
            2,
            "the model",
        );
        fails(
            &["compile", &source, "-o", &library, option, &again],
            2,
            "--output",
        );
    }
    let header = folder.path("x.h");
    fails(
        &["compile", &source, "-o", &library, "--weights", &header],
        2,
        "--header",
    );
    assert_eq!(std::fs::read(&model).expect("the model"), before);
    assert_eq!(std::fs::read_dir(&folder.0).expect("the folder").count(), 1);
}

#[test]
fn a_compiled_library_runs_and_its_header_compiles() {
    let folder = Folder::new("library");
    let model = format!("{DIGITS}/model.onnx");
    let library = folder.path("libdigits.so");
    let made = succeeds(&["compile", &model, "-o", &library]);
    assert!(
        made.contains("libdigits.so") && made.contains("libdigits.h"),
        "{made}"
    );
    let input = format!("pixels={DIGITS}/seven.npy");
    let a = succeeds(&["run", &library, "--input", &input]);
    let b = succeeds(&["run", &model, "--input", &input]);
    assert_eq!(a, b);
    let source = folder.path("use.c");
    std::fs::write(
        &source,
        "#include \"libdigits.h\"\nint main(void) { return 0; }\n",
    )
    .expect("a file");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let status = Command::new(compiler)
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            &source,
        ])
        .status()
        .expect("a C compiler");
    assert!(status.success());
}

#[test]
fn every_stage_can_be_shown_and_filtered() {
    let model = format!("{DIGITS}/model.onnx");
    for stage in [
        "onnx", "import", "graph", "loops", "kernel", "plan", "clif", "asm",
    ] {
        let all = succeeds(&["show", &model, "--stage", stage]);
        let some = succeeds(&["show", &model, "--stage", stage, "--filter", "/3/Conv"]);
        assert!(all.contains("/3/Conv"), "{stage}");
        assert!(
            some.contains("/3/Conv") && some.len() < all.len(),
            "{stage}"
        );
    }
}

#[test]
fn a_benchmark_gives_json_with_the_stated_keys() {
    let text = succeeds(&["bench", DIGITS, "--format", "json", "--seconds", "0.01"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["model"], DIGITS);
    assert!(json["machine"].is_string());
    let entry = json["entries"][0].as_object().expect("an object");
    for key in [
        "name",
        "threads",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "cold_ms",
        "peak_rss_mb",
        "gflops",
        "percent_of_peak",
        "max_abs_error",
        "kind",
        "runs",
        "spread_percent",
        "rounds_ms",
        "quantiles_ms",
    ] {
        assert!(entry.contains_key(key), "{key}");
    }
    assert!(entry["max_abs_error"].as_f64().is_some_and(|e| e < 1e-5));
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lapidary"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["show", "--stage", "loops", "tests/models/bert/model.onnx"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = [0; 1];
    stdout.read_exact(&mut first).expect("something is written");
    drop(stdout);
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
