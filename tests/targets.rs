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
use lapidary::{Cpu, Model, Options, target};
use lapidary_runtime::abi::symbol::API;
use loader::{AARCH64, Loader};
use object::{
    Architecture, BinaryFormat, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind,
    SymbolSection,
};
use tools::{has, succeeds};

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

/// An object of a model for a target, which refers to what `needs` lists of the runtime and defines its model's symbol.
fn check_object(
    name: &str,
    format: BinaryFormat,
    architecture: Architecture,
    model: &str,
    needs: &[&str],
) {
    let folder = Folder::new(&format!("targets-{name}-{}", model.len()));
    let target = target::parse(name).expect("a target");
    let options = Options {
        target: Some(target),
        cpu: Cpu::Baseline,
        ..Options::default()
    };
    let path = folder.0.join("it.o");
    let loaded = Model::load(root().join(model)).expect("it loads");
    let made = loaded.compile_to(&path, None, None, &options);
    let made = made.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(made.needs_runtime);
    let bytes = std::fs::read(&path).expect("the object");
    let file = object::File::parse(&bytes[..]).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!((file.format(), file.architecture()), (format, architecture));
    assert!(file.is_little_endian());
    // Mach-O puts an underscore before the names of C.
    let mangled = |symbol: &str| match format {
        BinaryFormat::MachO => format!("_{symbol}"),
        _ => symbol.to_string(),
    };
    let find = |symbol: &str| {
        let mangled = mangled(symbol);
        let found = file.symbols().find(|s| s.name() == Ok(&mangled));
        found.unwrap_or_else(|| panic!("{name}: no symbol {mangled}"))
    };
    let table = find("lapidary_model_it");
    assert!(table.is_global() && table.is_definition(), "{name}");
    let section_of = |symbol: &object::Symbol<'_, '_>| match symbol.section() {
        SymbolSection::Section(index) => file.section_by_index(index).expect("a section"),
        other => panic!("{name}: {other:?}"),
    };
    // Everything else that is global is hidden, where the format can say so, or the weights.
    for symbol in file
        .symbols()
        .filter(|s| s.is_global() && s.is_definition())
    {
        let text = symbol.name().expect("a name");
        let known = ["lapidary_model_it", "lapidary_weights_it"].map(mangled);
        assert!(
            known.contains(&text.to_string()),
            "{name}: {text} is global"
        );
    }
    let weights = find("lapidary_weights_it");
    let section = section_of(&weights);
    assert_eq!(
        section.kind(),
        match format {
            BinaryFormat::MachO => section.kind(),
            _ => SectionKind::ReadOnlyData,
        }
    );
    assert!(
        section.align() >= 64 && section.size() > 0,
        "{name}: the weights"
    );
    assert_eq!((weights.address() - section.address()) % 64, 0);
    let section = section_of(&table);
    assert!(section.align() >= 64, "{name}: the table");
    assert_eq!((table.address() - section.address()) % 64, 0);
    // The table is of this version, and names the model.
    let at = (table.address() - section.address()) as usize;
    let data = section.data().expect("its bytes");
    assert_eq!(
        data[at..at + 4],
        lapidary_runtime::abi::ABI_VERSION.to_le_bytes(),
        "{name}: the table"
    );
    let mut wanted: Vec<String> = needs.iter().map(|s| mangled(s)).collect();
    let undefined = file.symbols().filter(|s| s.is_undefined() && s.is_global());
    let mut undefined: Vec<String> = undefined
        .map(|s| s.name().expect("a name").to_string())
        .filter(|s| !s.is_empty())
        .collect();
    undefined.sort();
    wanted.sort();
    assert_eq!(undefined, wanted, "{name}");
    let text = file
        .sections()
        .find(|s| s.kind() == SectionKind::Text && s.size() > 0);
    assert!(text.is_some_and(|t| t.align() >= 16), "{name}: the code");
    let mut targets = Vec::new();
    for section in file.sections() {
        for (offset, relocation) in section.relocations() {
            assert!(offset + 4 <= section.size(), "{name}: a relocation outside");
            match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = file.symbol_by_index(index).expect("its symbol");
                    targets.push(symbol.name().unwrap_or_default().to_string());
                }
                RelocationTarget::Section(_) => {}
                other => panic!("{name}: a relocation to {other:?}"),
            }
        }
    }
    for symbol in &wanted {
        assert!(
            targets.contains(symbol),
            "{name}: nothing refers to {symbol}"
        );
    }
}

#[test]
fn objects_for_every_target_read_back() {
    use Architecture::{Aarch64, X86_64};
    use BinaryFormat::{Coff, Elf, MachO};
    for (name, format, architecture) in [
        ("x86_64-apple-darwin", MachO, X86_64),
        ("aarch64-apple-darwin", MachO, Aarch64),
        ("x86_64-pc-windows-msvc", Coff, X86_64),
        ("x86_64-unknown-linux-gnu", Elf, X86_64),
        ("x86_64-unknown-linux-musl", Elf, X86_64),
        ("aarch64-unknown-linux-gnu", Elf, Aarch64),
        ("aarch64-unknown-linux-musl", Elf, Aarch64),
    ] {
        assert!(target::names().contains(&name));
        let plain = [API];
        check_object(
            name,
            format,
            architecture,
            "examples/digits/model.onnx",
            &plain,
        );
        let kernels = [API, "lap_lib_trees"];
        check_object(
            name,
            format,
            architecture,
            "tests/models/forest/model.onnx",
            &kernels,
        );
    }
    assert_eq!(target::names().len(), 7, "a target is not tested");
}

#[test]
fn what_a_target_does_not_take_is_told_before_anything_is_written() {
    let folder = Folder::new("targets-refused");
    let model = Model::load(root().join("examples/digits/model.onnx")).expect("it loads");
    let nowhere = folder.0.join("no-compiler");
    for (name, file, cpu, compiler, words) in [
        (
            "aarch64-macos",
            "m.a",
            Cpu::Native,
            None,
            ["a library for `aarch64-apple-darwin`", "(.o)"],
        ),
        (
            "x86_64-windows",
            "m.so",
            Cpu::Native,
            None,
            ["x86_64-pc-windows-msvc", "(.o)"],
        ),
        ("aarch64-linux", "m.o", Cpu::V3, None, ["V3", "baseline"]),
        ("x86_64-windows", "m.o", Cpu::V4, None, ["V4", "baseline"]),
        (
            "aarch64-linux",
            "m.so",
            Cpu::Native,
            Some(&nowhere),
            ["no-compiler", "gcc-aarch64-linux-gnu"],
        ),
        (
            "aarch64-linux",
            "m.a",
            Cpu::Native,
            Some(&nowhere),
            ["no-compiler", "--cc"],
        ),
    ] {
        let options = Options {
            target: Some(target::parse(name).expect("a target")),
            cpu,
            compiler: compiler.cloned(),
            ..Options::default()
        };
        let made = model.compile_to(&folder.0.join(file), None, None, &options);
        let error = made.expect_err("it is refused").to_string();
        for word in words {
            assert!(error.contains(word), "{name}, {file}: {error}");
        }
    }
    assert_eq!(std::fs::read_dir(&folder.0).expect("the folder").count(), 0);
}

#[test]
fn a_compiler_for_another_machine_is_refused() {
    if cfg!(not(target_arch = "x86_64")) || !has(&["cc"]) {
        return;
    }
    let folder = Folder::new("targets-mismatch");
    let model = Model::load(root().join("examples/digits/model.onnx")).expect("it loads");
    let options = Options {
        target: target::parse("aarch64-linux").ok(),
        compiler: Some("cc".into()),
        ..Options::default()
    };
    let made = model.compile_to(&folder.0.join("m.so"), None, None, &options);
    let error = made.expect_err("it is refused").to_string();
    assert!(error.contains("makes code for x86_64"), "{error}");
}
