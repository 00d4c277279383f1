//! Applications whose build scripts compile models: built by cargo as a user's are, without network, in one target folder of
//! their own, which stays for the next time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use lapidary_onnx::proto::*;
use prost::Message;

/// Cargo locks the folder anyway; in turns the output of one is not mixed with "Blocking waiting".
static TURN: Mutex<()> = Mutex::new(());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Beside this program's own build folder.
fn target() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_lapidary"));
    let folder = own.ancestors().nth(2).expect("the target folder");
    folder.join("linked")
}

fn cargo(arguments: &[&str], manifest: &Path) -> Output {
    let mut command = Command::new(env!("CARGO"));
    // What this build of the tests was told is not for the application.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" {
            command.env_remove(&name);
        }
    }
    command
        .args(arguments)
        .args(["--offline", "--manifest-path"])
        .arg(manifest)
        .current_dir(root().join("examples/linked"))
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_TERM_COLOR", "never")
        .output()
        .expect("cargo starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An application beside the example, with its dependencies, a build script and a main function of its own.
fn application(name: &str, script: &str, main: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("lapidary-build-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("src")).expect("a folder");
    let example = root().join("examples/linked");
    let manifest = fs::read_to_string(example.join("Cargo.toml")).expect("the manifest");
    let manifest = manifest
        .replace("../../runtime", &root().join("runtime").to_string_lossy())
        .replace("../..", &root().to_string_lossy())
        .replace("\"linked\"", &format!("\"{name}\""));
    let lock = fs::read_to_string(example.join("Cargo.lock")).expect("the lock file");
    let lock = lock.replace("name = \"linked\"", &format!("name = \"{name}\""));
    for (file, content) in [
        ("Cargo.toml", manifest.as_str()),
        ("Cargo.lock", &lock),
        ("build.rs", script),
        ("src/main.rs", main),
    ] {
        fs::write(folder.join(file), content).expect("a file");
    }
    folder
}

/// The example has a workspace of its own, whose lock file does not follow when crates here get other dependencies.
#[test]
fn the_lock_file_of_the_example_is_up_to_date() {
    let manifest = root().join("examples/linked/Cargo.toml");
    let tree = cargo(&["tree", "--locked"], &manifest);
    assert!(
        tree.status.success(),
        "{}(hint: cargo tree --manifest-path examples/linked/Cargo.toml)",
        text(&tree.stderr)
    );
}

#[test]
fn an_application_has_its_model_inside_and_no_compiler() {
    let _turn = TURN.lock();
    let manifest = root().join("examples/linked/Cargo.toml");
    let built = cargo(&["build"], &manifest);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let program = target().join("debug/linked");
    let run = Command::new(&program)
        .arg(root().join("examples/digits/seven.npy"))
        .output()
        .expect("it starts");
    assert_eq!(text(&run.stdout), "1 picture: 7\n", "{}", text(&run.stderr));
    let tree = cargo(
        &["tree", "--edges", "normal", "--prefix", "none"],
        &manifest,
    );
    let tree = text(&tree.stdout);
    assert!(tree.contains("lapidary-runtime"), "{tree}");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let ours = name.starts_with("lapidary") && name != "lapidary-runtime";
        assert!(!ours && !name.starts_with("cranelift"), "{tree}");
    }
    // Nothing has changed, so nothing is done.
    let again = cargo(&["build", "--verbose"], &manifest);
    assert!(
        text(&again.stderr).contains("Fresh linked"),
        "{}",
        text(&again.stderr)
    );
}

#[test]
fn models_of_all_kinds_are_linked_into_one_program() {
    let _turn = TURN.lock();
    let models = root().join("tests/models");
    let script = format!(
        r#"fn main() -> Result<(), lapidary::Error> {{
            let models = std::path::Path::new({models:?});
            let compile = |name: &str| lapidary::build::compile(models.join(name).join("model.onnx")).out_name(name);
            compile("bert").emit()?;
            compile("forest").emit()?;
            compile("mobilenet").dim("batch=1").emit()?;
            compile("gpt2").state("past.*=present.*").emit()
        }}"#
    );
    let main = r#"
        mod models {
            lapidary_runtime::include_model!("bert");
            lapidary_runtime::include_model!("forest");
            lapidary_runtime::include_model!("mobilenet");
            lapidary_runtime::include_model!("gpt2");
        }
        use lapidary_runtime::{Input, Options, Output};
        use models::*;

        fn main() -> Result<(), lapidary_runtime::RuntimeError> {
            let options = Options::default();
            Bert::new(&options)?;
            Forest::new(&options)?;
            Gpt2::new(&options)?;
            let mut net = Mobilenet::new(&options)?;
            let image = vec![0.5f32; 3 * 48 * 48];
            let outputs = net.run(Input::new([1, 3, 48, 48], &image)?)?;
            let MobilenetOutputs { probabilities } = outputs;
            let probabilities: Output<f32, 2> = probabilities;
            println!("{:?} {}", probabilities.dims(), probabilities.as_slice().iter().all(|v| v.is_finite()));
            Ok(())
        }
    "#;
    let folder = application("several", &script, main);
    let run = cargo(&["run"], &folder.join("Cargo.toml"));
    let classes = "true\n";
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(
        text(&run.stdout).ends_with(classes),
        "{}",
        text(&run.stdout)
    );
    assert!(
        !text(&run.stderr).contains("warning: unused"),
        "{}",
        text(&run.stderr)
    );
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn what_is_wrong_with_a_model_is_an_error_of_cargo_that_names_its_node() {
    let _turn = TURN.lock();
    let name = |name: &str| ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: 1,
                shape: Some(TensorShapeProto::default()),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(GraphProto {
            name: "g".to_string(),
            input: vec![name("x")],
            output: vec![name("y")],
            node: vec![NodeProto {
                name: "block/broken".to_string(),
                op_type: "Relu".to_string(),
                input: vec!["x".to_string(), "x".to_string()],
                output: vec!["y".to_string()],
                ..NodeProto::default()
            }],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let script = r#"fn main() -> Result<(), lapidary::Error> {
        lapidary::build::compile("broken.onnx").emit()
    }"#;
    let folder = application("broken", script, "fn main() {}");
    fs::write(folder.join("broken.onnx"), model.encode_to_vec()).expect("a model");
    let built = cargo(&["build"], &folder.join("Cargo.toml"));
    let errors = text(&built.stderr);
    assert!(!built.status.success());
    let told = errors
        .lines()
        .any(|line| line.starts_with("error: broken@0.1.0: ") && line.contains("block/broken"));
    assert!(told, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    let _ = fs::remove_dir_all(folder);
}
