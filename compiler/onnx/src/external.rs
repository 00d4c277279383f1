//! Data files beside the model: found, kept inside the model's folder, mapped once.
//!
//! In: a tensor's `external_data` entries and the number of bytes its dimensions ask for. Out: these bytes, as a
//! view of the mapped file.
//!
//! A model comes from strangers, so a location is trusted with nothing: it must be relative, without `..`, and
//! after symbolic links are followed it must lie in the model's folder. A model that is itself a symbolic link (as
//! in caches that keep contents by hash and link names to them) may use files in the folder of either end.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::mapped::MappedFile;
use crate::proto::StringStringEntryProto;
use crate::{DataType, ExternalProblem, OnnxError};

/// The data files of one model.
#[derive(Debug)]
pub(crate) struct DataFiles {
    folder: Option<PathBuf>,
    /// The folder that the model file really lies in, if it is a link.
    linked: Option<PathBuf>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_location: HashMap<String, Arc<MappedFile>>,
    by_path: HashMap<PathBuf, Arc<MappedFile>>,
}

/// What a tensor asks of a data file.
pub(crate) struct Wanted<'a> {
    pub(crate) tensor: &'a str,
    pub(crate) dtype: DataType,
    pub(crate) dims: &'a [i64],
    /// Bytes that the dimensions and the type come to.
    pub(crate) size: usize,
    pub(crate) entries: &'a [StringStringEntryProto],
}

impl DataFiles {
    /// Data files of the model at `path`.
    pub(crate) fn of_model(path: &Path) -> DataFiles {
        let folder_of = |path: &Path| match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        DataFiles {
            linked: path.canonicalize().ok().map(|real| folder_of(&real)),
            folder: Some(folder_of(path)),
            open: Mutex::default(),
        }
    }

    /// Data files in a folder, or none at all.
    pub(crate) fn in_folder(folder: Option<&Path>) -> DataFiles {
        DataFiles {
            folder: folder.map(Path::to_path_buf),
            linked: None,
            open: Mutex::default(),
        }
    }

    /// The same folders, with nothing mapped yet.
    pub(crate) fn again(&self) -> DataFiles {
        DataFiles {
            folder: self.folder.clone(),
            linked: self.linked.clone(),
            open: Mutex::default(),
        }
    }

    /// The bytes of a tensor.
    pub(crate) fn read(&self, wanted: &Wanted<'_>) -> Result<Bytes, OnnxError> {
        let location = wanted
            .entries
            .iter()
            .find(|entry| entry.key == "location")
            .map_or("", |entry| entry.value.as_str());
        self.slice(location, wanted)
            .map_err(|problem| OnnxError::External {
                tensor: wanted.tensor.to_string(),
                file: location.to_string(),
                problem,
            })
    }

    fn slice(&self, location: &str, wanted: &Wanted<'_>) -> Result<Bytes, ExternalProblem> {
        if location.is_empty() {
            return Err(ExternalProblem::NoLocation);
        }
        let mut keys: Vec<&str> = wanted.entries.iter().map(|e| e.key.as_str()).collect();
        keys.sort_unstable();
        if let Some((key, _)) = keys.iter().zip(keys.iter().skip(1)).find(|(a, b)| a == b) {
            return Err(ExternalProblem::RepeatedKey {
                key: (*key).to_string(),
            });
        }
        if wanted.dtype == DataType::String {
            return Err(ExternalProblem::Strings);
        }
        let offset = number(wanted.entries, "offset")?.unwrap_or(0);
        let size = wanted.size as u64;
        if let Some(found) = number(wanted.entries, "length")?
            && found != size
        {
            return Err(ExternalProblem::WrongLength {
                dtype: wanted.dtype,
                dims: wanted.dims.to_vec(),
                expected: size,
                found,
            });
        }
        let file = self.open(location)?;
        let bytes = file.bytes();
        let too_short = ExternalProblem::TooShort {
            offset,
            expected: size,
            found: bytes.len() as u64,
        };
        let (Ok(begin), Some(Ok(end))) = (
            usize::try_from(offset),
            offset.checked_add(size).map(usize::try_from),
        ) else {
            return Err(too_short);
        };
        if end > bytes.len() {
            return Err(too_short);
        }
        Ok(bytes.slice(begin..end))
    }

    /// The file at a location, mapped now or before.
    pub(crate) fn open(&self, location: &str) -> Result<Arc<MappedFile>, ExternalProblem> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.by_location.get(location) {
            return Ok(Arc::clone(file));
        }
        let path = self.resolve(location)?;
        let file = match open.by_path.get(&path) {
            Some(file) => Arc::clone(file),
            None => Arc::new(MappedFile::open(&path).map_err(|error| match error {
                OnnxError::Io { source, .. } => ExternalProblem::Io(source),
                _ => ExternalProblem::NotAFile,
            })?),
        };
        open.by_path.insert(path, Arc::clone(&file));
        open.by_location
            .insert(location.to_string(), Arc::clone(&file));
        Ok(file)
    }

    /// The real path behind a location, if it lies where it may.
    fn resolve(&self, location: &str) -> Result<PathBuf, ExternalProblem> {
        let folder = self.folder.as_deref().ok_or(ExternalProblem::NoFolder)?;
        let leaves = || ExternalProblem::LeavesFolder {
            folder: folder.to_path_buf(),
        };
        let relative = Path::new(location);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(leaves());
        }
        let real = folder.join(relative).canonicalize().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                ExternalProblem::Missing {
                    folder: folder.to_path_buf(),
                }
            } else {
                ExternalProblem::Io(error)
            }
        })?;
        let inside = real.starts_with(folder.canonicalize()?)
            || self
                .linked
                .as_ref()
                .is_some_and(|linked| real.starts_with(linked));
        if inside { Ok(real) } else { Err(leaves()) }
    }

    /// As [`MappedFile::verify_unchanged`], for every data file that is open.
    pub(crate) fn verify_unchanged(&self) -> Result<(), OnnxError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_path
            .values()
            .try_for_each(|file| file.verify_unchanged())
    }
}

/// The number of bytes under a key, if the key is there.
fn number(
    entries: &[StringStringEntryProto],
    key: &'static str,
) -> Result<Option<u64>, ExternalProblem> {
    let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
        return Ok(None);
    };
    match entry.value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ExternalProblem::BadNumber {
            key,
            found: entry.value.clone(),
        }),
    }
}
