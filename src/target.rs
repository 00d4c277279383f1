//! The machines that files are made for, and the runtime for them.

use std::path::Path;

pub use lapidary_link::target::{names, parse};
pub use target_lexicon::Triple;

use crate::Error;

/// Writes the runtime's archive for a machine: the one that the compiler carries or, for another machine than this, its
/// sources compiled by a C compiler for that one. Programs link it with objects that have no runtime inside.
pub fn write_runtime(
    target: &Triple,
    compiler: Option<&Path>,
    archive: &Path,
) -> Result<(), Error> {
    Ok(lapidary_link::write_runtime(target, compiler, archive)?)
}

/// Writes the runtime's sources into a folder, with a script that compiles them: for a machine with a C compiler that
/// is not here.
pub fn write_runtime_sources(folder: &Path) -> Result<(), Error> {
    Ok(lapidary_link::write_runtime_sources(folder)?)
}
