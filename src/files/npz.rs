//! NumPy's `.npz` format: a zip archive of `.npy` files.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use lapidary_runtime::Tensor;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{read_npy, write_file, write_npy};
use crate::Error;

/// All arrays with their names, in the order of the archive.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    let file = File::open(path).map_err(|error| Error::io("read", path, &error))?;
    let content = |message: String| Error::content(path, message);
    let mut archive = ZipArchive::new(file).map_err(|error| content(error.to_string()))?;
    let mut entries = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| content(error.to_string()))?;
        let name = entry.name().map_err(|error| content(error.to_string()))?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else {
            continue;
        };
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(|error| content(format!("array '{name}': {error}")))?;
        let tensor = read_npy(&bytes).map_err(|m| content(format!("array '{name}': {m}")))?;
        entries.push((name, tensor));
    }
    Ok(entries)
}

/// Writes arrays under their names.
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), Error> {
    let failed = |error: zip::result::ZipError| {
        Error::io("write", path, &std::io::Error::other(error.to_string()))
    };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, tensor) in arrays {
        archive
            .start_file(
                format!("{name}.npy"),
                options.large_file(tensor.bytes().len() > u32::MAX as usize / 2),
            )
            .map_err(failed)?;
        archive
            .write_all(&write_npy(tensor))
            .map_err(|error| Error::io("write", path, &error))?;
    }
    let bytes = archive.finish().map_err(failed)?.into_inner();
    write_file(path, |file| file.write_all(&bytes))
}
