//! A file mapped into memory, read-only: the one place with `unsafe`.
//!
//! In: a path. Out: its bytes as [`Bytes`] that share the mapping, so that views of it live as long as they need.
//! The mapping survives deletion and renaming of the file. Cutting the file short while it is mapped is the one thing
//! that can hurt: reading past the new end raises a signal. This layer has no handler of its own; the application
//! gives it one with [`watch_mappings`], reading then gives zeros, and [`MappedFile::verify_unchanged`] is how callers
//! tell, before they read much and after.

use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use memmap2::Mmap;

use crate::OnnxError;

/// Keeps watch over one mapping as long as it lives.
pub trait Watch: Send + Sync {
    /// Whether some of the mapping reads as zeros because the file has no such bytes any more. It stays so.
    fn is_lost(&self) -> bool;
}

/// Makes a watch over a mapping of the file at this path; the mapping outlives the watch. `None`: it cannot.
pub type Watcher = fn(*const [u8], &Path) -> Option<Box<dyn Watch>>;

static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Has all files that are mapped from now on watched. The first call of a process counts.
pub fn watch_mappings(watcher: Watcher) {
    let _ = WATCHER.set(watcher);
}

/// The mappings that are alive.
static MAPS: Mutex<Vec<Weak<Mapping>>> = Mutex::new(Vec::new());

struct Mapping {
    /// Before the map, which must outlive it.
    watch: Option<Box<dyn Watch>>,
    map: Mmap,
}

impl Mapping {
    fn is_lost(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_lost())
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.map.fmt(f)
    }
}

/// A mapping as the owner of bytes.
struct Shared(Arc<Mapping>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

/// Gives the pages of these bytes back to the system, if they are part of a mapped file; other bytes are left
/// alone, and may even be gone: only the address counts. What is mapped stays valid: reading it again reads the
/// file again.
pub fn release(bytes: *const [u8]) {
    let start = bytes.cast::<u8>() as usize;
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    for mapping in maps.iter().filter_map(Weak::upgrade) {
        let map = &mapping.map;
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

/// What tells a file from others and from itself at other times, without reading it: whoever writes to it, or puts another in
/// its place, changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Device and number of the file.
    pub file: (u64, u64),
    /// Its length.
    pub bytes: u64,
    /// Nanoseconds since 1970 at which its content changed last.
    pub modified: i128,
    /// Nanoseconds since 1970 at which anything about it changed last; no program can set this.
    pub changed: i128,
}

impl Stamp {
    /// The stamp of a file as the system describes it; `None` where the system does not say so much.
    #[cfg(unix)]
    pub fn of(metadata: &Metadata) -> Option<Stamp> {
        use std::os::unix::fs::MetadataExt;
        let time = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Some(Stamp {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// The stamp of a file as the system describes it; `None` where the system does not say so much.
    #[cfg(not(unix))]
    pub fn of(_: &Metadata) -> Option<Stamp> {
        None
    }
}

/// A file that a model is read from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it was opened; `None`: the bytes were given.
    pub path: Option<PathBuf>,
    /// What the model calls it, for a data file.
    pub location: Option<String>,
    /// Its content.
    pub bytes: Bytes,
    /// Its stamp when it was opened.
    pub stamp: Option<Stamp>,
}

/// A mapped file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    identity: Option<(u64, u64)>,
    bytes: Bytes,
    /// `None`: the file is empty.
    mapping: Option<Arc<Mapping>>,
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
        let (bytes, mapping) = if metadata.len() == 0 {
            (Bytes::new(), None)
        } else {
            // SAFETY: the mapping is private to this module and read-only, and lives as long as any `Bytes` over it.
            // What remains is another process that writes to or shortens the file meanwhile: contents may then
            // change (the decoder and all readers take any bytes), and shortening is what the watch is for.
            let map = unsafe { Mmap::map(&file) }.map_err(io("map"))?;
            let watch = WATCHER.get().and_then(|watcher| watcher(&map[..], path));
            let mapping = Arc::new(Mapping { watch, map });
            let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
            maps.retain(|mapping| mapping.strong_count() > 0);
            maps.push(Arc::downgrade(&mapping));
            (Bytes::from_owner(Shared(mapping.clone())), Some(mapping))
        };
        Ok(MappedFile {
            path: path.to_path_buf(),
            stamp: Stamp::of(&metadata),
            identity: identity(&metadata),
            bytes,
            mapping,
        })
    }

    /// The file as a source of a model.
    pub(crate) fn source(&self, location: Option<&str>) -> Source {
        Source {
            path: Some(self.path.clone()),
            location: location.map(str::to_string),
            bytes: self.bytes.clone(),
            stamp: self.stamp,
        }
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Fails if the file has another length than when it was mapped, or had meanwhile and was read.
    ///
    /// A file that was replaced by renaming or deleted is no fault: the mapping keeps the old one. The file is found
    /// by its path, so that a model of a thousand data files does not hold a thousand descriptors.
    pub(crate) fn verify_unchanged(&self) -> Result<(), OnnxError> {
        let lost = || match &self.mapping {
            Some(mapping) if mapping.is_lost() => Err(OnnxError::Shrank {
                path: self.path.clone(),
            }),
            _ => Ok(()),
        };
        let Ok(metadata) = fs::metadata(&self.path) else {
            return lost();
        };
        let expected = self.bytes.len() as u64;
        if identity(&metadata) == self.identity && metadata.len() != expected {
            return Err(OnnxError::Changed {
                path: self.path.clone(),
                expected,
                found: metadata.len(),
            });
        }
        lost()
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
