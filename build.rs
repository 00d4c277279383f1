//! Puts the C runtime into the compiler: its archive for this machine, its public header, and its sources with the
//! flags that compile them, so that an installed compiler needs nothing but a linker here, and a C compiler for another
//! machine. The build script of the crate that links (`compiler/link`), which reads all of it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = |what: &str| {
        let name = format!("DEP_LAPIDARY_RUNTIME_{what}");
        env::var(&name)
            .map_err(|_| format!("{name} is not set: the runtime's build script sets it"))
    };
    let archive = PathBuf::from(runtime("ARCHIVE")?);
    let include = PathBuf::from(runtime("INCLUDE")?);
    let header = include.join("lapidary.h");
    for (name, path) in [("LAPIDARY_ARCHIVE", &archive), ("LAPIDARY_HEADER", &header)] {
        println!("cargo:rerun-if-changed={}", path.display());
        println!("cargo:rustc-env={name}={}", path.display());
    }
    println!(
        "cargo:rustc-env=LAPIDARY_RUNTIME_FLAGS={}",
        runtime("FLAGS")?
    );

    let mut table = String::from("&[\n");
    for (name, folder) in [
        ("include", include),
        ("c", runtime("SOURCES")?.into()),
        ("kernels", runtime("KERNELS")?.into()),
    ] {
        println!("cargo:rerun-if-changed={}", folder.display());
        for file in c_files(&folder)? {
            let file_name = file.file_name().unwrap_or_default();
            let inside = Path::new(name).join(file_name);
            table.push_str(&format!("    ({inside:?}, include_str!({file:?})),\n"));
        }
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("sources.rs"), table)?;
    Ok(())
}

/// The C files and headers of a folder, in order of their names.
fn c_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "c" || e == "h") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
