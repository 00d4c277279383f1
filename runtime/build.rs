//! Compiles the C runtime and the kernels, and tells the compiler's crates where they are.
//!
//! Two archives: `liblapidary_runtime.a` (every `c/*.c` and `../kernels/*.c`), which is also what a compiled
//! library is linked with; and `liblapidary_registry.a`, linked into Rust programs alone: the names and
//! addresses of kernels for the JIT, and the layouts for the tests. Dependents read
//! `DEP_LAPIDARY_RUNTIME_ARCHIVE`, `…_INCLUDE`, and for other machines `…_SOURCES`, `…_KERNELS` and `…_FLAGS`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let kernels = root.join("../kernels");
    let mut sources = c_files(&root.join("c"))?;
    sources.extend(c_files(&kernels)?);
    let registry = registry(&sources)?;
    for folder in [
        root.join("c"),
        root.join("include"),
        root.join("registry"),
        kernels.clone(),
    ] {
        println!("cargo:rerun-if-changed={}", folder.display());
    }

    let generated = out.join("registry.c");
    if fs::read_to_string(&generated).ok().as_deref() != Some(&registry) {
        fs::write(&generated, registry)?;
    }
    build(&root, &kernels)
        .file(&generated)
        .files(c_files(&root.join("registry"))?)
        .compile("lapidary_registry");
    build(&root, &kernels)
        .files(&sources)
        .compile("lapidary_runtime");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-lib=m");
    }

    // For the tests of this package, which see no DEP_ variables.
    println!(
        "cargo:rustc-env=LAPIDARY_RUNTIME_ARCHIVE={}",
        out.join("liblapidary_runtime.a").display()
    );
    println!(
        "cargo:archive={}",
        out.join("liblapidary_runtime.a").display()
    );
    println!("cargo:include={}", root.join("include").display());
    println!("cargo:sources={}", root.join("c").display());
    println!("cargo:kernels={}", kernels.display());
    println!("cargo:flags={}", FLAGS.join(" "));
    Ok(())
}

/// The flags that code in memory and ahead of time share, whoever compiles. Optimised in debug builds too: it is the product.
const FLAGS: [&str; 8] = [
    "-std=c11",
    "-O2",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-ffunction-sections",
    "-fdata-sections",
    "-fvisibility=hidden",
];

fn build(root: &Path, kernels: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.opt_level(2).debug(false).pic(true);
    for flag in FLAGS {
        build.flag(flag);
    }
    build
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Wno-unused-parameter")
        .include(root.join("include"))
        .include(root.join("c"))
        .include(kernels);
    build
}

/// The C files of a folder, in order of their names.
fn c_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A C file with the table of all `LAP_LIBRARY_KERNEL(name)` and `LAP_KERNEL(name)` definitions.
fn registry(kernels: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut names = Vec::new();
    for path in kernels {
        for line in fs::read_to_string(path)?.lines() {
            for (macro_name, kind) in [
                ("LAP_LIBRARY_KERNEL(", "LAP_LIBRARY_KERNEL"),
                ("LAP_KERNEL(", "LAP_KERNEL"),
            ] {
                if let Some((name, _)) = line
                    .strip_prefix(macro_name)
                    .and_then(|rest| rest.split_once(')'))
                {
                    names.push((name.trim().to_string(), kind));
                }
            }
        }
    }
    names.sort();
    names.dedup();
    let mut text = String::from(
        "/* Made by build.rs. */\n#include \"guard.h\"\n#include \"lap_internal.h\"\n#include \"registry.h\"\n",
    );
    // A Rust library may be unloaded, as a compiled one may.
    text.push_str("void (*const lap_registry_pin)(const void *) = lap_pin_library;\n");
    for (name, kind) in &names {
        text.push_str(&format!("{kind}({name});\n"));
    }
    text.push_str("const lap_registry_entry lap_registry[] = {\n");
    for (name, _) in &names {
        text.push_str(&format!(
            "    {{\"{name}\", (const void *)(uintptr_t){name}}},\n"
        ));
    }
    text.push_str("    {NULL, NULL},\n};\n");
    Ok(text)
}
