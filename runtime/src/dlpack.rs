//! Tensors and strings as C sees them: DLPack's views, `lapidary_strings`.

use std::ffi::c_void;
use std::ptr;

use crate::error::{ErrorCode, RuntimeError};
use crate::ffi::DlTensor;
use crate::tensor::DType;

/// `lapidary_strings` and what it points to.
pub(crate) struct CStrings {
    header: [*const c_void; 2],
    _offsets: Vec<i64>,
    _bytes: String,
}

impl CStrings {
    pub(crate) fn new(elements: &[String]) -> Self {
        let mut offsets = vec![0i64];
        let mut bytes = String::new();
        for element in elements {
            bytes.push_str(element);
            offsets.push(bytes.len() as i64);
        }
        Self {
            header: [offsets.as_ptr().cast(), bytes.as_ptr().cast()],
            _offsets: offsets,
            _bytes: bytes,
        }
    }

    pub(crate) fn raw(&self) -> *mut c_void {
        self.header.as_ptr().cast_mut().cast()
    }
}

/// A copy of the elements.
///
/// # Safety
/// `data` points to a `lapidary_strings` of `count` elements.
pub(crate) unsafe fn read_strings(
    data: *const c_void,
    count: usize,
) -> Result<Vec<String>, RuntimeError> {
    let broken = || RuntimeError::plain(ErrorCode::Internal, "a string output is not well formed");
    // SAFETY: the header is two pointers, the offsets are `count + 1` numbers, the bytes reach to the last.
    unsafe {
        let [offsets, bytes] = data.cast::<[*const c_void; 2]>().read_unaligned();
        (0..count)
            .map(|i| {
                let offsets = offsets.cast::<i64>();
                let (begin, end) = (
                    offsets.add(i).read_unaligned(),
                    offsets.add(i + 1).read_unaligned(),
                );
                let length = usize::try_from(end - begin).map_err(|_| broken())?;
                let bytes =
                    std::slice::from_raw_parts(bytes.cast::<u8>().add(begin as usize), length);
                String::from_utf8(bytes.to_vec()).map_err(|_| broken())
            })
            .collect()
    }
}

/// As C has them; what does not fit becomes -1, which C refuses.
pub(crate) fn dims(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|&dim| i64::try_from(dim).unwrap_or(-1))
        .collect()
}

/// A view of these bytes and of the shape, for as long as both live.
pub(crate) fn dl_tensor(
    data: *mut c_void,
    dtype: DType,
    shape: &mut [i64],
    strides: Option<&mut Vec<i64>>,
) -> DlTensor {
    DlTensor {
        data,
        device_type: 1,
        device_id: 0,
        ndim: shape.len() as i32,
        dtype: dtype.dlpack(),
        shape: shape.as_mut_ptr(),
        strides: strides.map_or(ptr::null_mut(), |strides| strides.as_mut_ptr()),
        byte_offset: 0,
    }
}

/// # Safety
/// The view has `ndim >= 0` dims.
pub(crate) unsafe fn shape_of(view: &DlTensor) -> Vec<usize> {
    // SAFETY: by the contract.
    (0..view.ndim as usize)
        .map(|axis| unsafe { *view.shape.add(axis) }.max(0) as usize)
        .collect()
}
