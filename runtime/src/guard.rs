//! Guards of mapped files: cutting such a file short gives zeros and a mark, never a signal that kills the process.
//!
//! In: a mapping that the caller owns. Out: a [`Guard`] to keep beside it, or a [`Watched`] for one who reads part of
//! somebody else's mapping; both say whether some of it was lost. The work is `c/guard.c`'s; the policy stands in
//! `docs/abi.md`.

use std::ffi::{CStr, CString};
use std::path::Path;

use crate::error::{ErrorCode, RuntimeError};
use crate::ffi;

/// The guard of a mapping; dropping it ends the protection.
#[derive(Debug)]
pub struct Guard(*mut ffi::Guard);

// SAFETY: the table behind it has a lock, and the mark is atomic.
unsafe impl Send for Guard {}
// SAFETY: as above.
unsafe impl Sync for Guard {}

impl Guard {
    /// Guards a mapping of the file `name`; `None` if the system cannot.
    ///
    /// # Safety
    /// `mapping` is a whole read-only mapping of a file and is not unmapped before the guard is dropped: its pages
    /// may be replaced by zeros.
    pub unsafe fn new(mapping: *const [u8], name: &Path) -> Option<Guard> {
        let name = CString::new(name.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: by the contract; the name is copied.
        let raw =
            unsafe { ffi::lap_guard_add(mapping.cast(), mapping.len(), name.as_ptr().cast()) };
        (!raw.is_null()).then_some(Guard(raw))
    }

    /// Whether some of the mapping reads as zeros because the file has no such bytes any more. It stays so.
    pub fn is_lost(&self) -> bool {
        // SAFETY: the entry is ours until `drop`.
        unsafe { ffi::lap_guard_lost(self.0) != 0 }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: the entry is ours, and given back once.
        unsafe { ffi::lap_guard_remove(self.0) }
    }
}

/// A guard seen by one who reads bytes of the mapping and keeps it alive.
#[derive(Debug)]
pub struct Watched {
    guard: *const ffi::Guard,
    name: String,
}

// SAFETY: the mark is atomic; entries of the table are never freed.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    /// The guard over these bytes, if they are part of a guarded mapping. It tells the truth as long as the caller
    /// keeps the mapping and its guard alive.
    pub fn over(bytes: &[u8]) -> Option<Watched> {
        let mut name = [0u8; 4096];
        // SAFETY: any address may be asked for; the name is copied, with its end, into as many bytes as there are.
        let guard = unsafe {
            ffi::lap_guard_find(
                bytes.as_ptr().cast(),
                bytes.len(),
                name.as_mut_ptr().cast(),
                name.len(),
            )
        };
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        (!guard.is_null()).then(|| Watched {
            guard,
            name: name.to_string_lossy().into_owned(),
        })
    }

    /// The file, if some of it was lost. One atomic load.
    pub fn lost(&self) -> Option<&str> {
        // SAFETY: entries of the table are never freed.
        (unsafe { ffi::lap_guard_lost(self.guard) } != 0).then_some(self.name.as_str())
    }

    /// Whether both are of one mapping.
    pub fn is_same(&self, other: &Watched) -> bool {
        std::ptr::eq(self.guard, other.guard)
    }
}

/// The error of a run that read zeros in place of a file's bytes.
pub(crate) fn shrank(name: &str) -> RuntimeError {
    RuntimeError::plain(
        ErrorCode::Weights,
        format!(
            "file shrank while in use: {name} (hint: load the model again, and replace files by renaming)"
        ),
    )
}
