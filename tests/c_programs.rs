//! Compiled models in programs of C and C++: headers without warnings, two models in one program, static programs and
//! their size.

#[path = "common/folder.rs"]
mod folder;
#[path = "common/tools.rs"]
mod tools;

use std::path::Path;
use std::process::Command;

use folder::Folder;
use lapidary::case::{Case, DataSet};
use lapidary::{Model, Options, Tensor, target};
use tools::{has, succeeds};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles a model into a file, for this machine unless the options say otherwise.
fn compile(model: &str, to: &Path, options: &Options) {
    let model = Model::load(root().join(model)).expect("it loads");
    model
        .compile_to(to, None, None, options)
        .unwrap_or_else(|error| panic!("{}: {error}", to.display()));
}

#[test]
fn headers_compile_without_warnings_as_c_and_as_cpp() {
    let models = [
        "examples/digits/model.onnx",
        "tests/models/bert/model.onnx",
        "tests/models/forest/model.onnx",
        "tests/models/gpt2/model.onnx",
    ];
    let folder = Folder::new("c-headers");
    let mut source = String::new();
    for (number, model) in models.iter().enumerate() {
        compile(
            model,
            &folder.0.join(format!("m{number}.o")),
            &Options::default(),
        );
        source.push_str(&format!("#include \"m{number}.h\"\n"));
    }
    source.push_str("int main(void) { return 0; }\n");
    for (compiler, language, standard) in [
        ("cc", "c", "-std=c11"),
        ("c++", "c++", "-std=c++17"),
        ("clang", "c", "-std=c11"),
        ("clang++", "c++", "-std=c++17"),
    ] {
        if !has(&[compiler]) {
            continue;
        }
        // Together, as a program with several models has them, and each alone.
        let alone = (0..models.len())
            .map(|n| format!("#include \"m{n}.h\"\nint main(void) {{ return 0; }}\n"));
        for text in alone.chain([source.clone()]) {
            let file = folder.0.join("use.txt");
            std::fs::write(&file, text).expect("a file");
            let mut command = Command::new(compiler);
            command
                .args(["-x", language, standard, "-fsyntax-only"])
                .args(WARNINGS);
            succeeds(command.arg(&file));
        }
    }
}

/// Two models at once, each in a thread of its own, several times; prints the numbers of all outputs.
const TWO_MODELS: &str = r#"
#include "libdigits.h"
#include "libresnet.h"
#include "data.h"
#include <cstdio>
#include <thread>
#include <vector>

static bool run(const lapidary_model *model, const float *data, std::vector<int64_t> shape, std::vector<float> &found) {
    lapidary_context *context = nullptr;
    if (lapidary_context_create(model, nullptr, &context)) return false;
    bool good = true;
    for (int i = 0; i < 20 && good; i++) {
        lapidary_tensor input = {};
        input.data = const_cast<float *>(data);
        input.device.device_type = 1;
        input.ndim = static_cast<int32_t>(shape.size());
        input.dtype = {2, 32, 1};
        input.shape = shape.data();
        good = !lapidary_set_input(context, 0, &input) && !lapidary_run(context);
    }
    const lapidary_tensor *output = good ? lapidary_output(context, 0) : nullptr;
    if (output) {
        int64_t count = 1;
        for (int32_t i = 0; i < output->ndim; i++) count *= output->shape[i];
        const float *values = static_cast<const float *>(output->data);
        found.assign(values, values + count);
    }
    lapidary_context_destroy(context);
    return good;
}

int main() {
    std::vector<float> digits, resnet;
    bool first = false, second = false;
    std::thread one([&] { first = run(&lapidary_model_digits, digits_data, digits_shape, digits); });
    std::thread two([&] { second = run(&lapidary_model_resnet, resnet_data, resnet_shape, resnet); });
    one.join();
    two.join();
    if (!first || !second) return 1;
    for (float v : digits) std::printf("digits %.9g\n", static_cast<double>(v));
    for (float v : resnet) std::printf("resnet %.9g\n", static_cast<double>(v));
    return 0;
}
"#;

/// A model with its first data set.
fn first_set(folder: &str) -> (Case, DataSet) {
    let case = Case::open(&root().join(folder)).expect("the model opens");
    let set = case
        .read_set(&case.sets[0])
        .expect("the data set is readable");
    (case, set)
}

#[test]
fn two_models_in_a_program_of_cpp_do_not_collide() {
    if !has(&["c++"]) {
        return;
    }
    let folder = Folder::new("c-two-models");
    let models = [
        ("digits", "examples/digits"),
        ("resnet", "tests/models/resnet"),
    ];
    let mut data = String::new();
    for (name, path) in models {
        for ending in ["so", "a"] {
            let to = folder.0.join(format!("lib{name}.{ending}"));
            compile(&format!("{path}/model.onnx"), &to, &Options::default());
        }
        let inputs = first_set(path).1.input_tensors().expect("tensors");
        let values = inputs[0].bytes().chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let values: Vec<String> = values.map(|v| format!("{v:?}f")).collect();
        let shape: Vec<String> = inputs[0].shape().iter().map(usize::to_string).collect();
        data.push_str(&format!(
            "static const float {name}_data[] = {{{}}};\n#define {name}_shape {{{}}}\n",
            values.join(", "),
            shape.join(", ")
        ));
    }
    std::fs::write(folder.0.join("data.h"), data).expect("a file");
    std::fs::write(folder.0.join("main.cc"), TWO_MODELS).expect("a file");
    for (how, libraries) in [
        ("shared", ["libdigits.so", "libresnet.so"]),
        ("static", ["libdigits.a", "libresnet.a"]),
        (
            "static, the other way round",
            ["libresnet.a", "libdigits.a"],
        ),
        ("one of each", ["libdigits.a", "libresnet.so"]),
    ] {
        let mut command = Command::new("c++");
        command
            .current_dir(&folder.0)
            .args(["-std=c++17", "-O1"])
            .args(WARNINGS);
        command.args(["main.cc", "-o", "main"]).args(libraries);
        succeeds(command.args(["-Wl,-rpath,$ORIGIN", "-lm", "-pthread"]));
        let text = succeeds(&mut Command::new(folder.0.join("main")));
        for (name, path) in models {
            let lines = text
                .lines()
                .filter_map(|l| l.strip_prefix(name)?.trim().parse().ok());
            let values: Vec<f32> = lines.collect();
            let (case, set) = first_set(path);
            let expected = set.output_tensors().expect("tensors");
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let found = Tensor::from_bytes(expected[0].dtype(), expected[0].shape(), &bytes);
            let found = found.unwrap_or_else(|error| panic!("{how}, {name}: {error}"));
            let names = case.model.output_names();
            if let Err(wrong) = set.judge_tensors(&[found], &names, case.tolerance) {
                panic!("{how}, {name}: {}", wrong[0].mismatch);
            }
        }
    }
}

/// Links `examples/c/main.c` with an archive, runs it, and gives its size without symbols.
fn program(folder: &Folder, compiler: &str, archive: &str, arguments: &[&str]) -> u64 {
    let program = folder.0.join("digits");
    let mut command = Command::new(compiler);
    command
        .args(["-std=c11", "-O2", "-s", "-Wl,--gc-sections"])
        .args(WARNINGS);
    command.arg("-I").arg(&folder.0).arg("-o").arg(&program);
    command
        .arg(root().join("examples/c/main.c"))
        .arg(folder.0.join(archive));
    succeeds(command.args(arguments).args(["-lm", "-lpthread"]));
    let text = succeeds(&mut Command::new(&program));
    assert!(text.starts_with("a 7, with probability"), "{text}");
    program.metadata().expect("the program").len()
}

/// What a program holds beside the C library: the model's weights (156 KiB) and code, the runtime, and of the
/// operator kernels those that the model calls.
#[test]
fn programs_with_a_model_inside_are_small() {
    if !has(&["cc"]) {
        return;
    }
    let folder = Folder::new("c-sizes");
    compile(
        "examples/digits/model.onnx",
        &folder.0.join("libdigits.a"),
        &Options::default(),
    );
    let bytes = program(&folder, "cc", "libdigits.a", &[]);
    println!("with a shared C library: {} KiB", bytes >> 10);
    assert!(bytes < 384 << 10, "{bytes} bytes");
    // The same without a model, for what the C library takes.
    let (bare, source) = (folder.0.join("bare"), folder.0.join("bare.c"));
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n",
    )
    .expect("a file");
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-s", "-static", "-o"])
        .arg(&bare)
        .arg(&source);
    if !command.status().is_ok_and(|status| status.success()) {
        println!("skipped: no static C library");
        return;
    }
    let bare = bare.metadata().expect("the program").len();
    let bytes = program(&folder, "cc", "libdigits.a", &["-static"]);
    println!(
        "static: {} KiB, of which an empty program is {} KiB",
        bytes >> 10,
        bare >> 10
    );
    assert!(
        bytes < bare + (768 << 10),
        "{bytes} bytes, {bare} without a model"
    );
}

#[test]
fn a_static_program_for_musl_is_small_and_a_shared_library_for_it_loads() {
    if !has(&["musl-gcc"]) {
        return;
    }
    let folder = Folder::new("c-musl");
    let options = Options {
        target: target::parse(&format!("{}-musl", std::env::consts::ARCH)).ok(),
        compiler: Some("musl-gcc".into()),
        ..Options::default()
    };
    compile(
        "examples/digits/model.onnx",
        &folder.0.join("libdigits.a"),
        &options,
    );
    let bytes = program(&folder, "musl-gcc", "libdigits.a", &["-static"]);
    println!("static, with musl: {} KiB", bytes >> 10);
    assert!(bytes < 512 << 10, "{bytes} bytes");
    compile(
        "examples/digits/model.onnx",
        &folder.0.join("libdigits.so"),
        &options,
    );
    program(&folder, "musl-gcc", "libdigits.so", &["-Wl,-rpath,$ORIGIN"]);
}
