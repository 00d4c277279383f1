//! Weights that are in no file: in memory, or given by a reader (decrypted, say, or taken out of an archive).
//!
//! Both give what the weights file that was written beside the library holds, its head of 64 bytes included.

use std::borrow::Cow;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ffi::ReadWeightsFn;

type Read = dyn Fn(u64, &mut [u8]) -> Result<(), String> + Send + Sync;

/// A source of weights; clones are one source, whose weights contexts share.
#[derive(Clone)]
pub struct Weights(Source);

#[derive(Clone)]
enum Source {
    Bytes(Arc<Cow<'static, [u8]>>),
    Reader(Arc<Reader>),
}

struct Reader {
    read: Box<Read>,
    /// What it said when it failed.
    failure: Mutex<Option<String>>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Source::Bytes(_) => "Weights in memory",
            Source::Reader(_) => "Weights by a reader",
        })
    }
}

impl Weights {
    /// The bytes of the weights file. Those that begin at a multiple of 64 are used where they are; others are copied
    /// once for all contexts.
    pub fn in_memory(bytes: impl Into<Cow<'static, [u8]>>) -> Weights {
        Weights(Source::Bytes(Arc::new(bytes.into())))
    }

    /// A reader: fills a slice from an offset of the weights file on, or says why it cannot. It is called while the
    /// first context is made, a few times with large slices.
    pub fn by_reader(
        read: impl Fn(u64, &mut [u8]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Weights {
        Weights(Source::Reader(Arc::new(Reader {
            read: Box::new(read),
            failure: Mutex::new(None),
        })))
    }

    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Bytes(bytes) => Some(bytes),
            Source::Reader(_) => None,
        }
    }

    /// The reader as C calls it, and its argument, which is valid as long as the source.
    pub(crate) fn reader_parts(&self) -> (Option<ReadWeightsFn>, *mut c_void) {
        match &self.0 {
            Source::Bytes(_) => (None, std::ptr::null_mut()),
            Source::Reader(reader) => (Some(read), Arc::as_ptr(reader).cast_mut().cast()),
        }
    }

    /// Takes what the reader said when it failed.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.0 {
            Source::Bytes(_) => None,
            Source::Reader(reader) => {
                let failure = reader.failure.lock();
                failure.unwrap_or_else(PoisonError::into_inner).take()
            }
        }
    }
}

unsafe extern "C" fn read(host: *mut c_void, offset: i64, into: *mut c_void, bytes: i64) -> i32 {
    // SAFETY: the argument that `reader_parts` gave, whose source the caller of the runtime holds meanwhile.
    let reader = unsafe { &*host.cast::<Reader>() };
    let (Ok(offset), Ok(bytes)) = (u64::try_from(offset), usize::try_from(bytes)) else {
        return 1;
    };
    // SAFETY: the runtime gives memory of that size which nobody else uses. It may not be initialised, so it is
    // cleared before Rust code sees it.
    let into = unsafe {
        std::ptr::write_bytes(into.cast::<u8>(), 0, bytes);
        std::slice::from_raw_parts_mut(into.cast::<u8>(), bytes)
    };
    // A panic must not cross C.
    let done = catch_unwind(AssertUnwindSafe(|| (reader.read)(offset, into)));
    let failure = match done {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure,
        Err(_) => "it panicked".to_string(),
    };
    *reader
        .failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(failure);
    1
}
