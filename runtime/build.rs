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
    let api = api_symbol(&[root.join("include"), root.join("c"), kernels.clone()])?;
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
    build(&root, &kernels, &api)
        .file(&generated)
        .files(c_files(&root.join("registry"))?)
        .compile("lapidary_registry");
    build(&root, &kernels, &api)
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
    println!("cargo:rustc-env=LAPIDARY_API_SYMBOL={api}");
    println!(
        "cargo:archive={}",
        out.join("liblapidary_runtime.a").display()
    );
    println!("cargo:include={}", root.join("include").display());
    println!("cargo:sources={}", root.join("c").display());
    println!("cargo:kernels={}", kernels.display());
    println!("cargo:flags={} {}", FLAGS.join(" "), rename(&api));
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

/// The name that `lap_api_table` has in objects: of this version and these sources, and of no others. A model's object refers to
/// it, so that a linker never joins a model with a runtime that it was not compiled for.
fn api_symbol(folders: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut files = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "c" || e == "h") {
                files.push(path);
            }
        }
    }
    files.sort();
    // FNV-1a: nobody forges a runtime.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for path in &files {
        add(path.file_name().unwrap_or_default().as_encoded_bytes());
        add(&fs::read(path)?);
    }
    FLAGS.iter().for_each(|flag| add(flag.as_bytes()));
    let version = env::var("CARGO_PKG_VERSION")?.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    Ok(format!("lap_api_of_lapidary_{version}_{hash:016x}"))
}

/// The flag by which the runtime's objects have it.
fn rename(api: &str) -> String {
    format!("-Dlap_api_table={api}")
}

fn build(root: &Path, kernels: &Path, api: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build.opt_level(2).debug(false).pic(true);
    for flag in FLAGS {
        build.flag(flag);
    }
    build
        .flag(rename(api))
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
        "/* Made by build.rs. */\n#include <math.h>\n#include \"guard.h\"\n#include \"lap_internal.h\"\n#include \"libm.h\"\n#include \"registry.h\"\n",
    );
    // A Rust library may be unloaded, as a compiled one may.
    text.push_str("void (*const lap_registry_pin)(const void *) = lap_pin_library;\n");
    for (name, kind) in &names {
        text.push_str(&format!("{kind}({name});\n"));
    }
    // The function table has of libm what others ask for; code in memory may call all of it.
    text.push_str("#define MATH(name) (void (*)(void))name,\n");
    text.push_str("void (*const lap_registry_math[])(void) = {\n");
    text.push_str(
        "    LAP_LIBM_F64(MATH) LAP_LIBM_F64_2(MATH) LAP_LIBM_F32(MATH) LAP_LIBM_F32_2(MATH)\n",
    );
    text.push_str("    MATH(fma) MATH(fmaf)\n};\n");
    text.push_str("const lap_registry_entry lap_registry[] = {\n");
    for (name, _) in &names {
        text.push_str(&format!(
            "    {{\"{name}\", (const void *)(uintptr_t){name}}},\n"
        ));
    }
    text.push_str("    {NULL, NULL},\n};\n");
    Ok(text)
}
