//! Compiled models with a runtime that is built with the address and undefined-behaviour sanitizers: object files of all
//! models of the tests whose values are tensors of numbers, linked with the runtime's sources and a driver in C.
//!
//! The sanitizers see what the runtime and the library kernels touch, not what generated code does; that is what guarded
//! memory is for (`tests/fuzz_models.rs`).

#[path = "common/folder.rs"]
mod folder;

use folder::Folder;
use std::path::Path;
use std::process::Command;

use lapidary::case::{Case, DataSet};
use lapidary::{Cpu, DType, Options, OwnedValue, Tensor};

const FLAGS: [&str; 4] = [
    "-std=c11",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];

/// Runs a command, and gives what it says of itself if it fails.
fn done(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".to_string())
}

/// Whether programs with sanitizers can be built and run here.
fn sanitizers(folder: &Path) -> Result<(), String> {
    let (source, program) = (folder.join("probe.c"), folder.join("probe"));
    std::fs::write(&source, "int main(void) { return 0; }\n").map_err(|e| e.to_string())?;
    let mut build = Command::new(compiler());
    done(build.args(FLAGS).arg(&source).arg("-o").arg(&program))?;
    done(&mut Command::new(&program))
}

/// Cases whose inputs and outputs are all tensors that the driver takes.
fn cases() -> Vec<(String, Case, Vec<DataSet>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut folders = Vec::new();
    for kind in ["models", "control_flow"] {
        let entries = std::fs::read_dir(root.join(kind)).expect("the folder is there");
        folders.extend(entries.map(|e| e.expect("an entry").path()));
    }
    folders.sort();
    let mut all = Vec::new();
    for folder in folders {
        let case = Case::open(&folder).expect("the model opens");
        let plain = |infos: &[lapidary::ValueInfo]| {
            let mut infos = infos.iter();
            infos.all(|i| i.containers.is_empty() && i.dtype != DType::String)
        };
        if !plain(&case.model.inputs()) || !plain(&case.model.outputs()) {
            continue;
        }
        let sets = case.sets.iter();
        let sets = sets
            .map(|s| case.read_set(s).expect("a data set"))
            .collect();
        let name = folder.file_name().expect("a name").display().to_string();
        all.push((name, case, sets)); // the names are C identifiers
    }
    all
}

fn push(into: &mut Vec<u8>, tensor: &Tensor) {
    let mut number = |n: usize| into.extend((n as i64).to_le_bytes());
    number(tensor.shape().len());
    tensor.shape().iter().for_each(|d| number(*d));
    number(tensor.bytes().len());
    into.extend(tensor.bytes());
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take(&mut self, n: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }
    fn number(&mut self) -> usize {
        let bytes = self.take(8).try_into().expect("eight bytes");
        i64::from_le_bytes(bytes) as usize
    }
    fn tensor(&mut self, dtype: DType) -> Tensor {
        let rank = self.number();
        let shape: Vec<usize> = (0..rank).map(|_| self.number()).collect();
        let bytes = self.number();
        Tensor::from_bytes(dtype, &shape, self.take(bytes)).expect("a tensor")
    }
}

#[test]
fn compiled_models_run_clean_under_the_sanitizers() {
    let folder = std::env::temp_dir().join(format!("lapidary-sanitized-{}", std::process::id()));
    let folder = Folder(folder);
    std::fs::create_dir_all(&folder.0).expect("a folder");
    if let Err(why) = sanitizers(&folder.0) {
        println!(
            "skipped: no sanitizers ({})",
            why.lines().next().unwrap_or("")
        );
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The sources of the runtime and the kernels, without optimisation of what is undefined.
    let mut sources = Vec::new();
    for place in ["runtime/c", "kernels"] {
        let entries = std::fs::read_dir(root.join(place)).expect("the sources");
        let paths = entries.map(|e| e.expect("an entry").path());
        sources.extend(paths.filter(|p| p.extension().is_some_and(|e| e == "c")));
    }
    sources.sort();
    let cases = cases();
    assert!(cases.len() > 10, "{} cases", cases.len());
    let mut list = String::from("#include \"lapidary.h\"\n");
    let mut inputs = Vec::new();
    let mut objects = Vec::new();
    for (name, case, sets) in &cases {
        list.push_str(&format!(
            "extern const lapidary_model lapidary_model_{name};\n"
        ));
        let object = folder.0.join(format!("{name}.o"));
        let options = Options {
            cpu: Cpu::Native,
            ..Options::default()
        };
        let made = case.model.compile_to(&object, None, None, &options);
        made.unwrap_or_else(|e| panic!("{name}: {e}"));
        objects.push(object);
        inputs.extend((sets.len() as i64).to_le_bytes());
        for set in sets {
            let tensors = set.input_tensors().expect("tensors");
            tensors.iter().for_each(|t| push(&mut inputs, t));
        }
    }
    list.push_str("const lapidary_model *const models[] = {\n");
    for (name, ..) in &cases {
        list.push_str(&format!("    &lapidary_model_{name},\n"));
    }
    list.push_str("    NULL};\n");
    let path = |name: &str| folder.0.join(name);
    std::fs::write(path("models.c"), list).expect("a file");
    std::fs::write(path("inputs"), inputs).expect("a file");
    let mut build = Command::new(compiler());
    build.args(FLAGS).args(["-O1", "-ffp-contract=off"]);
    let api = lapidary_runtime::abi::symbol::API;
    build.arg(format!("-Dlap_api_table={api}"));
    for include in ["runtime/include", "runtime/c", "kernels"] {
        build.arg("-I").arg(root.join(include));
    }
    build
        .arg(root.join("tests/sanitized/driver.c"))
        .arg(path("models.c"));
    build
        .args(&sources)
        .args(&objects)
        .arg("-o")
        .arg(path("driver"));
    build.args(["-lm", "-lpthread", "-ldl"]);
    done(&mut build).expect("the driver is built");
    let mut run = Command::new(path("driver"));
    done(run.arg(path("inputs")).arg(path("outputs"))).expect("the driver runs clean");
    let outputs = std::fs::read(path("outputs")).expect("the outputs");
    let mut reader = Reader(&outputs);
    for (name, case, sets) in &cases {
        let infos = case.model.outputs();
        for set in sets {
            let found = infos
                .iter()
                .map(|i| OwnedValue::Tensor(reader.tensor(i.dtype)));
            let found: Vec<OwnedValue> = found.collect();
            if let Err(wrong) = set.judge(&found, &case.model.output_names(), case.tolerance) {
                panic!(
                    "{name}, {}: '{}': {}",
                    set.name, wrong[0].name, wrong[0].mismatch
                );
            }
        }
    }
    assert!(reader.0.is_empty());
}
