//! Puts the runtime's archive and public header into the compiler, so that an installed one needs nothing but a
//! linker. The build script of the crate that links (`compiler/link`), which reads both.

use std::env;
use std::path::Path;

fn main() {
    for (from, to, file) in [
        ("DEP_LAPIDARY_RUNTIME_ARCHIVE", "LAPIDARY_ARCHIVE", None),
        (
            "DEP_LAPIDARY_RUNTIME_INCLUDE",
            "LAPIDARY_HEADER",
            Some("lapidary.h"),
        ),
    ] {
        let Ok(mut path) = env::var(from) else {
            println!("cargo:error={from} is not set: the runtime's build script sets it");
            continue;
        };
        if let Some(file) = file {
            path = Path::new(&path).join(file).to_string_lossy().into_owned();
        }
        println!("cargo:rerun-if-changed={path}");
        println!("cargo:rustc-env={to}={path}");
    }
}
