//! The C runtime of a target: an archive that is carried for this machine, or sources that are carried for others.
//!
//! Sources are compiled by the C compiler of the user's, one file a process, with the flags that made the carried
//! archive.

use super::archive::{self, Member};
use super::tools::{self, Workplace};
use crate::code;
use crate::error::LinkError;
use crate::target;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use target_lexicon::{BinaryFormat, Triple};

/// The runtime and the kernels in C, compiled for this machine.
const ARCHIVE: &[u8] = include_bytes!(env!("LAPIDARY_ARCHIVE"));

/// Their sources and headers: where each lies in a folder, and its text.
const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The flags of the C compiler, beside the folders of headers.
const FLAGS: &str = env!("LAPIDARY_RUNTIME_FLAGS");

/// The folders of [`SOURCES`], in which headers are sought.
const FOLDERS: [&str; 3] = ["include", "c", "kernels"];

/// The name of the script beside the sources.
const SCRIPT: &str = "build.sh";

/// The carried archive, if it is the target's.
pub(super) fn carried(target: &Triple) -> Option<Cow<'static, [u8]>> {
    target::is_host(target).then_some(Cow::Borrowed(ARCHIVE))
}

/// Compiles the runtime into an archive of a temporary folder.
pub(super) fn compile(
    place: &Workplace,
    compiler: &Path,
    threads: usize,
) -> Result<PathBuf, LinkError> {
    let folder = place.file("runtime");
    lay_out(&folder)?;
    let files: Vec<&str> = SOURCES
        .iter()
        .map(|(file, _)| *file)
        .filter(|f| f.ends_with(".c"))
        .collect();
    let objects = code::parallel(&files, code::threads(threads), |file| {
        let object = file.replace('/', "_").replace(".c", ".o");
        let mut command = tools::command(compiler);
        command.current_dir(&folder).args(FLAGS.split(' '));
        command.args(FOLDERS.iter().map(|f| format!("-I{f}")));
        command.args(["-c", file, "-o", &object]);
        tools::run(
            command,
            "name a C compiler that takes C11 and GCC's options",
        )?;
        let path = folder.join(&object);
        let bytes = std::fs::read(&path).map_err(|e| LinkError::file("read", &path, e))?;
        Ok((object, bytes))
    })?;
    let members = objects
        .iter()
        .map(|(name, bytes)| Member::object(name.clone(), bytes));
    let members = members.collect::<Result<Vec<_>, _>>()?;
    let path = place.file("runtime.a");
    archive::write(&path, &members)?;
    Ok(path)
}

/// The sources and headers in a folder.
fn lay_out(folder: &Path) -> Result<(), LinkError> {
    for name in FOLDERS {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|e| LinkError::file("write", &path, e))?;
    }
    for (file, text) in SOURCES {
        let path = folder.join(file);
        std::fs::write(&path, text).map_err(|e| LinkError::file("write", &path, e))?;
    }
    Ok(())
}

/// Writes the runtime's sources into a folder, with a script that compiles them into an archive.
pub fn write_runtime_sources(folder: &Path) -> Result<(), LinkError> {
    lay_out(folder)?;
    let script = format!(
        "#!/bin/sh
# Compiles the runtime of Lapidary {} into liblapidary_runtime.a:
#   CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar sh {SCRIPT}
set -e
cd \"$(dirname \"$0\")\"
mkdir -p objects
for file in c/*.c kernels/*.c; do
    ${{CC:-cc}} {FLAGS} -I{} -c \"$file\" \\
        -o \"objects/$(echo \"$file\" | tr / _).o\"
done
rm -f liblapidary_runtime.a
${{AR:-ar}} rcs liblapidary_runtime.a objects/*.o
",
        env!("CARGO_PKG_VERSION"),
        FOLDERS.join(" -I"),
    );
    let path = folder.join(SCRIPT);
    std::fs::write(&path, script).map_err(|e| LinkError::file("write", &path, e))
}

/// Writes the runtime's archive for a target: the carried one, or the carried sources compiled by `compiler` or, without
/// one, by the target's usual one.
pub fn write_runtime(
    target: &Triple,
    compiler: Option<&Path>,
    path: &Path,
) -> Result<(), LinkError> {
    if target.binary_format != BinaryFormat::Elf {
        return Err(LinkError::Unsupported {
            what: format!("the runtime for `{target}`"),
            hint: "archives are written for Linux only".into(),
        });
    }
    let place = Arc::new(Workplace::new(path)?);
    let from = match (compiler, carried(target)) {
        (None, Some(archive)) => place.write("runtime.a", &archive)?,
        _ => compile(&place, &tools::compiler(target, compiler)?, 0)?,
    };
    let to = path.to_path_buf();
    tools::publish(&[tools::Finished { place, from, to }])
}
