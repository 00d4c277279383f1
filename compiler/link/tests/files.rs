//! Programs in files: linked, loaded from Rust and from C, and cleaned up after.

mod common;

use common::*;
use lapidary_link::{
    Artifact, CodeOptions, FileOptions, Level, LinkError, WeightsIn, Written, header, write,
};
use lapidary_runtime::{CompiledLibrary, Context, CpuLevel, ErrorCode, Options};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapidary-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the test can run; says so if not.
fn has(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        println!("skipped: no {tool}");
    }
    there
}

fn make(folder: &Folder, file: &str, options: &FileOptions) -> Written {
    let path = folder.file(file);
    let artifact = Artifact::of(&path).unwrap();
    let code = CodeOptions::host();
    write(&every_kind_of_output(), artifact, &path, options, &code).unwrap()
}

fn check_library(path: &Path) {
    let library = CompiledLibrary::open(path).unwrap();
    let mut context = Context::new(Arc::new(library), &Options::default()).unwrap();
    for batch in [1, 5, 0, 300] {
        let (x, expected) = kinds_example(batch);
        assert_eq!(run(&mut context, &x), expected, "batch {batch}");
    }
}

#[test]
fn a_shared_library_runs_and_exports_its_model_alone() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("shared");
    for strip in [false, true] {
        let options = FileOptions {
            strip,
            ..FileOptions::new("kinds")
        };
        let written = make(&folder, "libkinds.so", &options);
        assert_eq!(folder.names(), ["libkinds.so"]);
        assert!(written.weights.is_none());
        check_library(&written.path);
        if has("nm") {
            let nm = Command::new("nm")
                .args(["-D", "--defined-only"])
                .arg(&written.path)
                .output()
                .unwrap();
            let text = String::from_utf8(nm.stdout).unwrap();
            let names: Vec<&str> = text.lines().filter_map(|l| l.split(' ').nth(2)).collect();
            assert_eq!(names, ["lapidary_model_kinds"], "{text}");
        }
    }
}

#[test]
fn a_library_carries_the_library_kernels_that_it_calls() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("copies");
    let path = folder.file("libcopies.so");
    let options = FileOptions::new("copies");
    let code = CodeOptions::host();
    write(&copies(), Artifact::Shared, &path, &options, &code).unwrap();
    let library = CompiledLibrary::open(&path).unwrap();
    check_copies(&mut Context::new(Arc::new(library), &Options::default()).unwrap());
}

#[test]
fn the_baseline_has_no_instructions_of_newer_processors() {
    if !has("cc") || !has("objdump") {
        return;
    }
    let folder = Folder::new("baseline");
    let path = folder.file("libkinds.so");
    let code = CodeOptions {
        level: Level::Baseline,
        ..CodeOptions::host()
    };
    let options = FileOptions::new("kinds");
    write(
        &every_kind_of_output(),
        Artifact::Shared,
        &path,
        &options,
        &code,
    )
    .unwrap();
    check_library(&path);
    let dump = Command::new("objdump")
        .arg("-d")
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    for register in ["%ymm", "%zmm", "vfmadd", "vmulps"] {
        assert!(!text.contains(register), "{register} in the baseline");
    }
}

#[test]
fn one_library_has_code_for_every_level_and_runs_the_one_that_is_allowed() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("levels");
    for (name, artifact) in [
        ("libkinds.so", Artifact::Shared),
        ("kinds.o", Artifact::Object),
    ] {
        let options = FileOptions {
            every_level: true,
            ..FileOptions::new("kinds")
        };
        let code = CodeOptions {
            // Not asked for.
            level: Level::Baseline,
            ..CodeOptions::host()
        };
        let path = folder.file(name);
        write(&every_kind_of_output(), artifact, &path, &options, &code).unwrap();
    }
    let path = folder.file("libkinds.so");
    for level in CpuLevel::ALL {
        let options = Options {
            cpu_features: level.features(),
            ..Options::default()
        };
        let library = Arc::new(CompiledLibrary::open(&path).unwrap());
        let context = Context::new(library, &options);
        if !level.runs_here() {
            assert_eq!(context.err().unwrap().code(), ErrorCode::Cpu);
            println!("skipped: this processor does not run {level}");
            continue;
        }
        let mut context = context.unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(context.cpu_level(), level);
        }
        for batch in [1, 5, 0, 300] {
            let (x, expected) = kinds_example(batch);
            assert_eq!(run(&mut context, &x), expected, "{level}, batch {batch}");
        }
    }
    check_library(&path);
    if !cfg!(target_arch = "x86_64") || !has("nm") {
        return;
    }
    // Each kernel of the wide emitters stands there once for a level, and for nothing else.
    let nm = Command::new("nm")
        .arg(folder.file("kinds.o"))
        .output()
        .unwrap();
    let text = String::from_utf8(nm.stdout).unwrap();
    let count = |end: &str| text.lines().filter(|line| line.ends_with(end)).count();
    assert!(count("_v4") > 0, "{text}");
    assert_eq!(count("_v3"), count("_v4"), "{text}");
    assert!(count("_baseline") >= count("_v3"), "{text}");
}

#[test]
fn a_library_of_one_level_is_refused_where_that_is_not_allowed() {
    let host = CpuLevel::host();
    if !has("cc") || host == CpuLevel::Baseline {
        return;
    }
    let folder = Folder::new("one-level");
    let written = make(&folder, "libkinds.so", &FileOptions::new("kinds"));
    let options = Options {
        cpu_features: CpuLevel::Baseline.features(),
        ..Options::default()
    };
    let library = Arc::new(CompiledLibrary::open(&written.path).unwrap());
    let error = Context::new(library, &options).err().unwrap();
    assert_eq!(error.code(), ErrorCode::Cpu);
    assert!(error.to_string().contains("do not allow"), "{error}");
}

#[test]
fn weights_beside_a_library_are_found_and_checked() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("beside");
    let options = FileOptions {
        weights: WeightsIn::Beside,
        ..FileOptions::new("kinds")
    };
    let written = make(&folder, "libkinds.so", &options);
    assert_eq!(folder.names(), ["libkinds.so", "libkinds.weights"]);
    check_library(&written.path);
    let weights = written.weights.unwrap();
    let mut bytes = fs::read(&weights).unwrap();
    bytes[24] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let library = CompiledLibrary::open(&written.path).unwrap();
    let error = Context::new(Arc::new(library), &Options::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("another build"), "{error}");
}

const MAIN: &str = r#"
#include "kinds.h"
#include <stdio.h>
int main(void) {
    lapidary_context *context;
    float x[16];
    const float *h, *flat, *y, *same, *c, *y2;
    for (int i = 0; i < 16; i++) x[i] = (float)i;
    if (kinds_create(NULL, &context)) return 1;
    int32_t code = kinds_run(context, 2, x, &h, &flat, &y, &same, &c, &y2);
    if (code) {
        lapidary_error error;
        lapidary_last_error(context, &error);
        printf("%s\n", error.message);
        return 2;
    }
    if (lapidary_output(context, KINDS_OUTPUT_Y)->shape[0] != 16) return 3;
    for (int i = 0; i < 16; i++) {
        float w = (float)(i % 8), e = x[i] * w + w;
        if (h[i] != e || flat[i] != e || y[i] != e * e || y2[i] != e * e || same[i] != x[i]) return 4;
    }
    if (c[0] != 10 || c[1] != 20) return 5;
    lapidary_context_destroy(context);
    printf("ok\n");
    return 0;
}
"#;

/// Compiles the C program against something and runs it.
fn c_program(folder: &Folder, compiler: &str, arguments: &[&Path], libraries: &[&str]) {
    let exe = folder.file("main");
    let source = folder.file(if compiler == "c++" {
        "main.cc"
    } else {
        "main.c"
    });
    fs::write(&source, MAIN).unwrap();
    fs::write(
        folder.file("kinds.h"),
        header(&every_kind_of_output().graph, "kinds"),
    )
    .unwrap();
    let built = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&exe)
        .arg(&source)
        .args(arguments)
        .args(libraries)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{errors}");
    let ran = Command::new(&exe).output().unwrap();
    assert_eq!(
        (
            ran.status.code(),
            String::from_utf8_lossy(&ran.stdout).as_ref()
        ),
        (Some(0), "ok\n")
    );
}

#[test]
fn a_c_program_uses_a_shared_library_through_its_header() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("c-shared");
    let written = make(&folder, "libkinds.so", &FileOptions::new("kinds"));
    let rpath = format!("-Wl,-rpath,{}", folder.0.display());
    c_program(&folder, "cc", &[&written.path], &[&rpath]);
    if has("c++") {
        c_program(&folder, "c++", &[&written.path], &[&rpath]);
    }
}

#[test]
fn a_c_program_links_an_archive() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("c-archive");
    let written = make(&folder, "libkinds.a", &FileOptions::new("kinds"));
    assert_eq!(folder.names(), ["libkinds.a"]);
    c_program(&folder, "cc", &[&written.path], &["-lm", "-lpthread"]);
}

#[test]
fn an_object_links_with_the_runtimes_archive() {
    if !has("cc") {
        return;
    }
    let folder = Folder::new("c-object");
    let written = make(&folder, "kinds.o", &FileOptions::new("kinds"));
    let archive = Path::new(env!("LAPIDARY_ARCHIVE"));
    c_program(
        &folder,
        "cc",
        &[&written.path, archive],
        &["-lm", "-lpthread"],
    );
}

#[test]
fn an_object_for_another_architecture_can_be_written() {
    let folder = Folder::new("cross");
    let options = FileOptions {
        target: "aarch64-unknown-linux-gnu".parse().unwrap(),
        ..FileOptions::new("kinds")
    };
    let code = CodeOptions {
        level: Level::Baseline,
        ..CodeOptions::host()
    };
    let path = folder.file("kinds.o");
    let program = every_kind_of_output();
    write(&program, Artifact::Object, &path, &options, &code).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((&bytes[..4], bytes[18]), (&b"\x7fELF"[..], 183));
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_nothing() {
    let folder = Folder::new("errors");
    let code = CodeOptions::host();
    let program = every_kind_of_output();
    let so = folder.file("libkinds.so");
    let options = FileOptions {
        compiler: Some(folder.file("no-such-compiler")),
        ..FileOptions::new("kinds")
    };
    let error = write(&program, Artifact::Shared, &so, &options, &code).unwrap_err();
    assert!(matches!(error, LinkError::ToolMissing { .. }), "{error}");
    if has("false") {
        let options = FileOptions {
            compiler: Some("false".into()),
            ..FileOptions::new("kinds")
        };
        let error = write(&program, Artifact::Shared, &so, &options, &code).unwrap_err();
        assert!(matches!(error, LinkError::ToolFailed { .. }), "{error}");
    }
    let options = FileOptions::new("kinds");
    let nowhere = folder.file("no/such/folder/kinds.o");
    let error = write(&program, Artifact::Object, &nowhere, &options, &code).unwrap_err();
    assert!(matches!(error, LinkError::File { .. }), "{error}");
    for name in ["", "1x", "a-b", "é"] {
        let options = FileOptions::new(name);
        let error = write(&program, Artifact::Object, &so, &options, &code).unwrap_err();
        assert!(matches!(error, LinkError::Name(_)), "{error}");
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_header_is_valid_c_whatever_the_names() {
    if !has("cc") {
        return;
    }
    use lapidary_graph::{Container, DType, Dim, Graph, SymbolOrigin, TensorType};
    let mut g = Graph::new("names");
    let origin = SymbolOrigin::Input { input: 0, axis: 0 };
    let b = Dim::from(g.add_symbol("batch size", origin.clone()));
    let c = Dim::from(g.add_symbol("*/ int", origin));
    let names = [
        "x", "X", "1st", "a/b:0", "float", "é", "", "count", "*/", "context", "string", "any",
    ];
    for (i, name) in names.iter().enumerate() {
        let dtype = DType::ALL[i % DType::ALL.len()];
        let dims = [b.clone(), c.clone(), Dim::Const(3), b.mul(&c)];
        g.add_input(*name, TensorType::new(dtype, dims.into_iter().take(i % 5)));
    }
    let unranked = TensorType::unranked(DType::F32);
    let v = g.add_input("unranked", unranked);
    let tensors = TensorType::unranked(DType::I64);
    let s = g.add_input("sequence", tensors.inside(Container::Sequence));
    g.outputs = vec![
        ("x".into(), g.inputs[0]),
        ("y\n".into(), v),
        ("s".into(), s),
    ];
    let folder = Folder::new("header");
    let path = folder.file("names.h");
    fs::write(&path, header(&g, "names")).unwrap();
    for language in ["c", "c++"] {
        let out = Command::new("cc")
            .args([
                "-x",
                language,
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsyntax-only",
            ])
            .args(["-Wno-unused-function", "-Wno-pragma-once-outside-header"])
            .arg(&path)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.success() || errors.contains("cc1plus"),
            "{errors}"
        );
    }
}
