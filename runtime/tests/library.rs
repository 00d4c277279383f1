//! Compiled libraries: linked from the archive, opened, refused, and used from C.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lapidary_runtime::{
    CompiledLibrary, Context, ErrorCode, Options, RuntimeError, TensorView, ThreadPool,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn cc(compiler: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(compiler)
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    output
        .status
        .success()
        .then_some(())
        .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn library(folder: &Path, define: &str) -> PathBuf {
    let path = folder.join("libplus.so");
    let (include, internal) = (format!("-I{ROOT}/include"), format!("-I{ROOT}/c"));
    let source = format!("{ROOT}/tests/model.c");
    let flags = [
        "-std=c11",
        "-O2",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-Wall",
        "-Werror",
        "-Wl,--gc-sections",
    ];
    let rest = [
        define,
        concat!("-Dlap_api_table=", env!("LAPIDARY_API_SYMBOL")),
        &include,
        &internal,
        &source,
        env!("LAPIDARY_RUNTIME_ARCHIVE"),
        "-o",
        path.to_str().unwrap(),
    ];
    cc(
        "cc",
        &[&flags[..], &rest[..], &["-Wl,--no-undefined", "-lm"]].concat(),
    )
    .unwrap();
    path
}

#[test]
fn a_library_is_opened_by_its_only_symbol_and_runs() {
    let path = library(&folder("runs"), "-DFEATURES=0");
    assert_eq!(CompiledLibrary::models(&path).unwrap(), ["plus"]);
    let library = Arc::new(CompiledLibrary::open(&path).unwrap());
    assert_eq!(library.symbol(), "lapidary_model_plus");
    let pool = Arc::new(ThreadPool::for_model(library.clone(), 2).unwrap());
    let mut context = Context::new(
        library.clone(),
        &Options {
            pool: Some(pool),
            ..Options::default()
        },
    )
    .unwrap();
    drop(library);
    let x: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let y = context
        .run(&[TensorView::from_slice(&[x.len()], &x).unwrap()])
        .unwrap();
    assert!(
        y[0].as_slice::<f32>()
            .unwrap()
            .iter()
            .zip(&x)
            .all(|(y, x)| *y == x + 1.0)
    );
}

#[test]
fn a_library_exports_nothing_but_its_model() {
    let path = library(&folder("exports"), "-DFEATURES=0");
    let output = match Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&path)
        .output()
    {
        Ok(output) => output,
        Err(_) => return println!("skipped: no nm"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(names, ["lapidary_model_plus"]);
}

#[test]
fn a_library_for_another_processor_is_a_typed_error() {
    let path = library(&folder("features"), "-DFEATURES=(1ull<<50)");
    let library = Arc::new(CompiledLibrary::open(&path).unwrap());
    let error = Context::new(library, &Options::default()).err().unwrap();
    assert_eq!(error.code(), ErrorCode::Cpu);
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = folder("refused");
    let text = folder.join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    for path in [
        text,
        folder.join("missing.so"),
        std::env::current_exe().unwrap(),
    ] {
        assert!(
            matches!(CompiledLibrary::open(&path), Err(RuntimeError::Open { .. })),
            "{}",
            path.display()
        );
    }
}

#[test]
fn c_and_cxx_programs_use_the_public_header() {
    let folder = folder("use");
    let path = library(&folder, "-DFEATURES=0");
    let (include, source) = (format!("-I{ROOT}/include"), format!("{ROOT}/tests/use.c"));
    let program = folder.join("use");
    for compiler in [&["cc", "-std=c11"][..], &["c++", "-std=c++11", "-x", "c++"]] {
        let strict = [
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            &include,
            &source,
            "-x",
            "none",
        ];
        let rest = [
            path.to_str().unwrap(),
            "-o",
            program.to_str().unwrap(),
            "-Wl,-rpath,$ORIGIN",
        ];
        if let Err(error) = cc(
            compiler[0],
            &[&compiler[1..], &strict[..], &rest[..]].concat(),
        ) {
            assert!(
                compiler[0] == "c++" && error.contains("No such file"),
                "{error}"
            );
            println!("skipped: no C++ compiler");
            continue;
        }
        let output = Command::new(&program).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "2 3 4\n",
            "{:?}",
            output.status
        );
    }
}

#[test]
fn a_child_process_runs_what_it_inherits_and_what_it_makes() {
    let folder = folder("fork");
    library(&folder, "-DFEATURES=0");
    let program = folder.join("fork");
    let flags = ["-std=gnu11", "-O2", "-Wall", "-Werror"];
    let (include, source) = (format!("-I{ROOT}/include"), format!("{ROOT}/tests/fork.c"));
    let (path, run_path) = (
        format!("-L{}", folder.display()),
        format!("-Wl,-rpath,{}", folder.display()),
    );
    let rest = [
        &include,
        &source,
        "-o",
        program.to_str().unwrap(),
        &path,
        &run_path,
        "-lplus",
    ];
    cc("cc", &[&flags[..], &rest[..]].concat()).unwrap();
    let output = Command::new(&program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "ok", "{:?}", output.status);
}
