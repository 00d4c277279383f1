//! Tensors in files: NumPy's `.npy` and `.npz`, and ONNX's `.pb` of one `TensorProto`.
//!
//! In: a path, whose ending says the format. Out: tensors, or an error that names the file. Files are written to a
//! temporary name beside the target and renamed, so that a reader never sees half a file.

mod npy;
mod npz;
mod pb;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use lapidary_runtime::Tensor;

use crate::Error;

pub use npy::{read_npy, write_npy};
pub use npz::{read_npz, write_npz};
pub use pb::{decode_tensor, decode_value, encode_tensor, tensor_of_view};

/// The tensor in a `.npy` or `.pb` file, or in a `.npz` file that holds one alone or one of this name.
pub fn read_tensor(path: &Path, name: &str) -> Result<Tensor, Error> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => read_npy(&read(path)?).map_err(|m| Error::content(path, m)),
        Some("npz") => {
            let mut entries = read_npz(path)?;
            if let Some(at) = entries.iter().position(|(entry, _)| entry == name) {
                return Ok(entries.swap_remove(at).1);
            }
            match entries.len() {
                1 => Ok(entries.swap_remove(0).1),
                n => Err(Error::content(
                    path,
                    format!("none of its {n} arrays is named '{name}'"),
                )),
            }
        }
        Some("pb") => Ok(decode_tensor(&read(path)?.into(), path)?.1),
        _ => Err(Error::Usage(format!(
            "'{}' is of no known format (hint: use .npy, .npz or .pb)",
            path.display()
        ))),
    }
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::io("read", path, &error))
}

/// Writes a file under a temporary name and renames it.
pub fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut fs::File) -> std::io::Result<()>,
) -> Result<(), Error> {
    let temporary = temporary_beside(path);
    let attempt = (|| {
        let mut file = fs::File::create(&temporary)?;
        fill(&mut file)?;
        file.flush()?;
        fs::rename(&temporary, path)
    })();
    attempt.map_err(|error| {
        // The first error is the one that tells.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, &error)
    })
}

/// A name in the same folder that no other process uses.
pub fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}
