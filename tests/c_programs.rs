//! Compiled models in programs of C and C++: headers without warnings, two models in one program, static programs and
//! their size.

#[path = "build/mod.rs"]
mod build;
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

/// A program that runs two models, the second compiled by another version of Lapidary.
const TWO_VERSIONS: &str = "
#include \"libold.h\"
#include \"libnew.h\"
int main(void) {
    lapidary_context *old, *new;
    if (lapidary_context_create(&lapidary_model_old, 0, &old)) return 1;
    if (lapidary_context_create(&lapidary_model_new, 0, &new)) return 2;
    lapidary_context_destroy(old);
    lapidary_context_destroy(new);
    return 0;
}
";

/// The name by which objects refer to the runtime is of one version; in `file` it becomes that of another.
fn of_another_version(file: &Path) {
    let mine = lapidary_runtime::abi::symbol::API.as_bytes();
    let (last, rest) = mine.split_last().expect("a name");
    let other = [rest, &[if *last == b'0' { b'1' } else { b'0' }]].concat();
    let mut bytes = std::fs::read(file).expect("the file");
    let mut found = 0;
    for at in 0..bytes.len().saturating_sub(mine.len()) {
        if bytes[at..].starts_with(mine) {
            bytes[at..at + mine.len()].copy_from_slice(&other);
            found += 1;
        }
    }
    assert!(found > 0, "{} names no runtime", file.display());
    std::fs::write(file, bytes).expect("the file");
}

#[test]
fn runtimes_of_two_versions_are_not_mixed_in_a_program() {
    if !has(&["cc"]) {
        return;
    }
    let folder = Folder::new("c-versions");
    let file = |name: &str| folder.0.join(name);
    std::fs::write(file("main.c"), TWO_VERSIONS).expect("a file");
    let link = |libraries: &[&str]| {
        let mut command = Command::new("cc");
        command
            .current_dir(&folder.0)
            .args(["main.c", "-o", "main"]);
        command
            .args(libraries)
            .args(["-Wl,-rpath,$ORIGIN", "-lm", "-lpthread"]);
        let output = command.output().expect("the compiler starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(succeeds(&mut Command::new(file("main")))),
            false => Err(message),
        }
    };
    for name in [
        "libold.a",
        "libold.so",
        "libold.o",
        "libnew.a",
        "libnew.so",
        "libnew.o",
    ] {
        compile(
            "examples/digits/model.onnx",
            &file(name),
            &Options::default(),
        );
    }
    // Of one version: all go together, whichever archive the runtime comes from.
    for libraries in [["libold.a", "libnew.a"], ["libold.o", "libnew.a"]] {
        link(&libraries).unwrap_or_else(|message| panic!("{libraries:?}: {message}"));
    }
    for name in ["libold.a", "libold.o"] {
        of_another_version(&file(name));
    }
    for libraries in [["libold.a", "libnew.a"], ["libnew.a", "libold.a"]] {
        let message = link(&libraries).expect_err("two runtimes are refused");
        let told = "lap_a_program_has_runtimes_of_two_versions_of_lapidary";
        assert!(message.contains(told), "{libraries:?}: {message}");
    }
    let message = link(&["libold.o", "libnew.a"]).expect_err("the runtime of another version");
    assert!(message.contains("lap_api_of_lapidary_"), "{message}");
    // A shared library keeps its runtime to itself.
    for libraries in [["libold.so", "libnew.a"], ["libold.a", "libnew.so"]] {
        link(&libraries).unwrap_or_else(|message| panic!("{libraries:?}: {message}"));
    }
}

/// The network of PyTorch's example for MNIST: two convolutions and two products, 1.2 million weights, here 0.01 each.
fn mnist_cnn() -> Model {
    use build::{F32, int, ints, node, value};
    let weights: [(&str, &[i64]); 8] = [
        ("w1", &[32, 1, 3, 3]),
        ("b1", &[32]),
        ("w2", &[64, 32, 3, 3]),
        ("b2", &[64]),
        ("w3", &[128, 9216]),
        ("b3", &[128]),
        ("w4", &[10, 128]),
        ("b4", &[10]),
    ];
    let pool = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    let nodes = vec![
        node("Conv", &["input", "w1", "b1"], &["c1"], vec![]),
        node("Relu", &["c1"], &["r1"], vec![]),
        node("Conv", &["r1", "w2", "b2"], &["c2"], vec![]),
        node("Relu", &["c2"], &["r2"], vec![]),
        node("MaxPool", &["r2"], &["p"], pool),
        node("Flatten", &["p"], &["f"], vec![int("axis", 1)]),
        node("Gemm", &["f", "w3", "b3"], &["g1"], vec![int("transB", 1)]),
        node("Relu", &["g1"], &["r3"], vec![]),
        node("Gemm", &["r3", "w4", "b4"], &["g2"], vec![int("transB", 1)]),
        node("LogSoftmax", &["g2"], &["output"], vec![int("axis", 1)]),
    ];
    build::model_with_weights(
        11,
        nodes,
        vec![value("input", F32, Some(&["batch", "1", "28", "28"]))],
        vec![value("output", F32, Some(&["batch", "10"]))],
        weights
            .map(|(name, dims)| build::weight(name, dims, 0.01))
            .to_vec(),
    )
}

const MNIST: &str = "
#include <stdio.h>
#include \"libmnist.h\"
int main(void) {
    static float pixels[2 * 28 * 28];
    lapidary_context *context;
    if (mnist_create(NULL, &context)) return 1;
    if (mnist_run(context, 2, pixels, NULL)) {
        lapidary_error error;
        lapidary_last_error(context, &error);
        puts(error.message);
        return 2;
    }
    const lapidary_tensor *output = lapidary_output(context, 0);
    printf(\"%d %d %.4f\", (int)output->shape[0], (int)output->shape[1], (double)((const float *)output->data)[19]);
    lapidary_context_destroy(context);
    return 0;
}
";

/// A program with nothing but the model and a C library inside, its weights in a file beside: of libm it has what kernels call,
/// which for this model is nothing.
#[test]
fn a_static_program_with_mnist_cnn_is_under_one_mebibyte() {
    if !has(&["cc"]) {
        return;
    }
    let folder = Folder::new("c-mnist");
    let file = |name: &str| folder.0.join(name);
    std::fs::write(file("main.c"), MNIST).expect("a file");
    let model = mnist_cnn();
    let musl = has(&["musl-gcc"]).then_some("musl-gcc");
    for (compiler, limit) in [Some("cc"), musl]
        .into_iter()
        .flatten()
        .zip([1 << 20, 320 << 10])
    {
        let options = Options {
            target: target::parse(
                match compiler {
                    "cc" => std::env::consts::ARCH.to_string() + "-linux",
                    _ => std::env::consts::ARCH.to_string() + "-musl",
                }
                .as_str(),
            )
            .ok(),
            compiler: (compiler != "cc").then(|| compiler.into()),
            ..Options::default()
        };
        for ending in ["a", "o"] {
            let library = file(&format!("libmnist.{ending}"));
            let made = model.compile_to(&library, Some(&file("mnist.weights")), None, &options);
            made.unwrap_or_else(|error| panic!("{compiler}, {ending}: {error}"));
            let mut command = Command::new(compiler);
            command.current_dir(&folder.0);
            command
                .args(["-std=c11", "-O2", "-s", "-static", "-Wl,--gc-sections"])
                .args(WARNINGS);
            command.args(["main.c", "-o", "mnist"]).arg(&library);
            if ending == "o" {
                let runtime = file("runtime.a");
                let target = options.target.clone().expect("a target");
                let made = target::write_runtime(&target, options.compiler.as_deref(), &runtime);
                made.unwrap_or_else(|error| panic!("{compiler}: {error}"));
                command.arg(runtime);
            }
            let output = command
                .args(["-lm", "-lpthread"])
                .output()
                .expect("the compiler starts");
            let message = String::from_utf8_lossy(&output.stderr);
            if message.contains("cannot find -lc") {
                println!("skipped: no static C library");
                return;
            }
            assert!(
                output.status.success() && message.is_empty(),
                "{compiler}, {ending}: {message}"
            );
            let text = succeeds(Command::new(file("mnist")).current_dir(&folder.0));
            assert_eq!(text, "2 10 -2.3026");
            let bytes = file("mnist").metadata().expect("the program").len();
            println!("{compiler}, .{ending}: {} KiB", bytes >> 10);
            assert!(bytes < limit, "{compiler}, .{ending}: {bytes} bytes");
        }
    }
}

/// A model whose kernels call the C library: they find it in a static program as well.
#[test]
fn functions_that_kernels_call_are_in_a_static_program() {
    use build::{F32, node, value};
    if !has(&["cc"]) {
        return;
    }
    let folder = Folder::new("c-libm");
    let calls = ["Asinh", "Tan", "Sin", "Acos", "Cosh"];
    let nodes = calls
        .iter()
        .map(|op| node(op, &["x"], &[op], vec![]))
        .collect();
    let outputs = calls
        .iter()
        .map(|op| value(op, F32, Some(&["n"])))
        .collect();
    let model = build::model(20, nodes, vec![value("x", F32, Some(&["n"]))], outputs);
    for ending in ["a", "so"] {
        let library = folder.0.join(format!("libcalls.{ending}"));
        let made = model.compile_to(&library, None, None, &Options::default());
        made.unwrap_or_else(|error| panic!("{error}"));
    }
    let text = "
#include <stdio.h>
#include \"libcalls.h\"
int main(void) {
    float x = 0.5f;
    lapidary_context *context;
    if (calls_create(NULL, &context) || calls_run(context, 1, &x, NULL, NULL, NULL, NULL, NULL)) return 1;
    for (int i = 0; i < 5; i++) printf(\"%.5f \", (double)*(const float *)lapidary_output(context, i)->data);
    lapidary_context_destroy(context);
    return 0;
}
";
    std::fs::write(folder.0.join("main.c"), text).expect("a file");
    for (library, linked) in [
        ("libcalls.a", &["-static"][..]),
        ("libcalls.a", &[]),
        ("libcalls.so", &["-Wl,-rpath,$ORIGIN"]),
    ] {
        let mut command = Command::new("cc");
        command
            .current_dir(&folder.0)
            .args(["main.c", library, "-o", "main"])
            .args(linked);
        let made = command
            .args(["-lm", "-lpthread"])
            .status()
            .expect("the compiler starts");
        if !made.success() && linked == ["-static"] {
            println!("skipped: no static C library");
            continue;
        }
        assert!(made.success(), "{library}");
        let text = succeeds(&mut Command::new(folder.0.join("main")));
        let found: Vec<f64> = text
            .split_whitespace()
            .map(|n| n.parse().expect("a number"))
            .collect();
        let expected = [
            0.5f64.asinh(),
            0.5f64.tan(),
            0.5f64.sin(),
            0.5f64.acos(),
            0.5f64.cosh(),
        ];
        let near = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near && found.len() == 5, "{library}, {linked:?}: {text}");
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
