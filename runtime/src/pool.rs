//! Thread pools that several contexts share.

use std::ptr;
use std::sync::Arc;

use crate::abi;
use crate::context::ModelCode;
use crate::error::{ErrorCode, RuntimeError};
use crate::ffi::{self, Api};

/// A pool that contexts share; a run that finds it taken works alone.
pub struct ThreadPool {
    pub(crate) raw: *mut ffi::Pool,
    pub(crate) api: *const Api,
    _code: Option<Arc<dyn ModelCode>>,
}

// SAFETY: the pool is made to be used by several threads.
unsafe impl Send for ThreadPool {}
// SAFETY: as above.
unsafe impl Sync for ThreadPool {}

impl ThreadPool {
    /// A pool for code in memory; 0: one thread for each processor available.
    pub fn new(threads: usize) -> Result<Self, RuntimeError> {
        // SAFETY: the table of this crate's own archive.
        unsafe { Self::make(abi::api_table().cast(), None, threads) }
    }

    /// A pool for contexts of this model: a compiled library has a runtime of its own.
    pub fn for_model(code: Arc<dyn ModelCode>, threads: usize) -> Result<Self, RuntimeError> {
        // SAFETY: `ModelCode` promises a valid table.
        unsafe {
            let api = (*code.table()).head.api.cast();
            Self::make(api, Some(code), threads)
        }
    }

    unsafe fn make(
        api: *const Api,
        code: Option<Arc<dyn ModelCode>>,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        let mut raw = ptr::null_mut();
        // SAFETY: the caller gives a valid table.
        let result =
            unsafe { ((*api).pool_create)(i32::try_from(threads).unwrap_or(i32::MAX), &mut raw) };
        match result {
            abi::code::OK => Ok(Self {
                raw,
                api,
                _code: code,
            }),
            code => Err(RuntimeError::plain(
                ErrorCode::from_raw(code),
                format!("cannot start {threads} threads"),
            )),
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: contexts that use the pool hold it, so none is left.
        unsafe { ((*self.api).pool_destroy)(self.raw) }
    }
}
