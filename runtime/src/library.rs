//! Compiled libraries: opened, found to be ours, and kept alive.
//!
//! A library is code, so opening one trusts it; but a library of another ABI version, or for a processor with more
//! instructions, is an error here before any of its functions is called.

use std::ffi::c_void;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSymbol};

use crate::abi;
use crate::context::ModelCode;
use crate::error::{ErrorCode, RuntimeError};
use crate::ffi;
use crate::guard::Guard;

/// An open compiled library and one model in it.
pub struct CompiledLibrary {
    path: PathBuf,
    symbol: String,
    table: *const ffi::ModelTable,
    _library: libloading::Library,
}

// SAFETY: the table is constant, and the library stays open as long as this value lives.
unsafe impl Send for CompiledLibrary {}
// SAFETY: as above.
unsafe impl Sync for CompiledLibrary {}

impl CompiledLibrary {
    /// Opens the library's only model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        let path = path.as_ref();
        let models = Self::models(path)?;
        match models.as_slice() {
            [only] => Self::open_model(path, only),
            [] => Err(open_error(
                path,
                format!("it exports no `{}…`", abi::symbol::MODEL_PREFIX),
            )),
            more => Err(open_error(
                path,
                format!("it has several models, name one of: {}", more.join(", ")),
            )),
        }
    }

    /// Opens the model of this name.
    pub fn open_model(path: impl AsRef<Path>, name: &str) -> Result<Self, RuntimeError> {
        let given = path.as_ref();
        // With a folder in it, so that the system does not search its own folders.
        let path =
            std::fs::canonicalize(given).map_err(|error| open_error(given, error.to_string()))?;
        let symbol = format!("{}{name}", abi::symbol::MODEL_PREFIX);
        // SAFETY: the caller trusts the library; its initialisers are libc's.
        let library = unsafe { libloading::Library::new(&path) }
            .map_err(|error| open_error(&path, error.to_string()))?;
        // SAFETY: the symbol is data; only its address is taken, and used while the library is open.
        let address = unsafe {
            library
                .get::<*const c_void>(symbol.as_bytes())
                .map(|found| found.try_as_raw_ptr())
        };
        let address = address.map_err(|error| open_error(&path, error.to_string()))?;
        let table = address
            .unwrap_or(std::ptr::null_mut())
            .cast::<ffi::ModelTable>()
            .cast_const();
        if table.is_null() {
            return Err(open_error(&path, format!("`{symbol}` has no address")));
        }
        // SAFETY: every version of the table begins with these two numbers.
        let (version, bytes) = unsafe { ((*table).head.abi_version, (*table).head.table_bytes) };
        if version != abi::ABI_VERSION || (bytes as usize) < abi::MODEL_TABLE_BYTES {
            let message = format!(
                "`{symbol}` has ABI version {version}, this runtime reads {}",
                abi::ABI_VERSION
            );
            return Err(RuntimeError::plain(ErrorCode::Abi, message));
        }
        Ok(Self {
            path,
            symbol,
            table,
            _library: library,
        })
    }

    /// The names of the models that a library exports, without opening it.
    pub fn models(path: impl AsRef<Path>) -> Result<Vec<String>, RuntimeError> {
        let path = path.as_ref();
        let fail = |error: &dyn std::fmt::Display| open_error(path, error.to_string());
        let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
        // SAFETY: the mapping is read here and dropped; a file that changes meanwhile gives wrong names at worst.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| fail(&error))?;
        // SAFETY: the guard is dropped before the mapping.
        let guard = unsafe { Guard::new(&bytes[..], path) };
        let object = object::File::parse(&*bytes);
        if guard.as_ref().is_some_and(Guard::is_lost) {
            return Err(open_error(path, "it shrank while it was read".into()));
        }
        let object = object.map_err(|error| fail(&error))?;
        let mut names: Vec<String> = object
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition())
            .filter_map(|symbol| symbol.name().ok())
            .filter_map(|name| {
                name.strip_prefix('_')
                    .filter(|n| n.starts_with("lapidary"))
                    .or(Some(name))
            })
            .filter_map(|name| name.strip_prefix(abi::symbol::MODEL_PREFIX))
            .map(str::to_string)
            .collect();
        if guard.as_ref().is_some_and(Guard::is_lost) {
            return Err(open_error(path, "it shrank while it was read".into()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Where it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The symbol of the model.
    pub fn symbol(&self) -> &str {
        &self.symbol
    }
}

// SAFETY: the table was checked for its version, and lives as long as the open library.
unsafe impl ModelCode for CompiledLibrary {
    fn table(&self) -> *const ffi::ModelTable {
        self.table
    }
}

fn open_error(path: &Path, reason: String) -> RuntimeError {
    RuntimeError::Open {
        path: path.to_path_buf(),
        reason,
    }
}
