//! A file mapped into memory, read-only: the one place with `unsafe`.
//!
//! In: a path. Out: its bytes as [`Bytes`] that share the mapping, so that views of it live as long as they need.
//! The mapping survives deletion and renaming of the file; cutting the file short while it is mapped is the one
//! thing that can hurt (reading past the new end kills the process), and [`MappedFile::verify_unchanged`] is how
//! callers look before they read much.

use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use memmap2::Mmap;

use crate::OnnxError;

/// The mappings that are alive.
static MAPS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

/// A mapping as the owner of bytes.
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Gives the pages of these bytes back to the system, if they are part of a mapped file; other bytes are left
/// alone, and may even be gone: only the address counts. What is mapped stays valid: reading it again reads the
/// file again.
pub fn release(bytes: *const [u8]) {
    let start = bytes.cast::<u8>() as usize;
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    for map in maps.iter().filter_map(Weak::upgrade) {
        let base = map.as_ptr() as usize;
        if start < base || start.saturating_add(bytes.len()) > base + map.len() {
            continue;
        }
        #[cfg(unix)]
        // SAFETY: the mapping is read-only and of a file, so a page that is read again has the same content.
        // A refusal costs memory alone.
        let _ = unsafe {
            map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                start - base,
                bytes.len(),
            )
        };
    }
}

/// A mapped file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    bytes: Bytes,
}

impl MappedFile {
    /// Maps the file at `path`, which must be a regular file.
    pub(crate) fn open(path: &Path) -> Result<MappedFile, OnnxError> {
        let io = |action| {
            move |source| OnnxError::Io {
                action,
                path: path.to_path_buf(),
                source,
            }
        };
        // Asked before opening: opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(io("open"))?.is_file() {
            return Err(OnnxError::NotAFile {
                path: path.to_path_buf(),
            });
        }
        let file = File::open(path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("open"))?;
        let bytes = if metadata.len() == 0 {
            Bytes::new()
        } else {
            // SAFETY: the mapping is private to this module and read-only, and lives as long as any `Bytes` over it.
            // What remains is another process that writes to or shortens the file meanwhile: contents may then
            // change (the decoder and all readers take any bytes), and shortening is looked for by
            // `verify_unchanged` before large reads.
            let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(io("map"))?);
            let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
            maps.retain(|map| map.strong_count() > 0);
            maps.push(Arc::downgrade(&map));
            Bytes::from_owner(Shared(map))
        };
        Ok(MappedFile {
            path: path.to_path_buf(),
            identity: identity(&metadata),
            bytes,
        })
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Fails if the file has another length than when it was mapped.
    ///
    /// A file that was replaced by renaming or deleted is no fault: the mapping keeps the old one. The file is found
    /// by its path, so that a model of a thousand data files does not hold a thousand descriptors.
    pub(crate) fn verify_unchanged(&self) -> Result<(), OnnxError> {
        let Ok(metadata) = fs::metadata(&self.path) else {
            return Ok(());
        };
        let expected = self.bytes.len() as u64;
        if identity(&metadata) == self.identity && metadata.len() != expected {
            return Err(OnnxError::Changed {
                path: self.path.clone(),
                expected,
                found: metadata.len(),
            });
        }
        Ok(())
    }
}

/// What tells a file from another one put in its place, where the system has such a thing.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}
