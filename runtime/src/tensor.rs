//! Tensors as a Rust program holds them: owned ([`Tensor`]) or borrowed ([`TensorView`]).
//!
//! An owned tensor is contiguous, row-major, 64-byte aligned bytes, or strings. Types of less than a byte take
//! a byte an element. The invariant: the bytes are exactly as many as the shape and the type say.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

use crate::error::RuntimeError;
use crate::ffi::DlType;

macro_rules! dtypes {
    ($($name:ident = $number:literal, $text:literal, $bytes:literal, $code:literal, $bits:literal;)*) => {
        /// Element types, with ONNX's numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum DType { $(#[doc = $text] $name = $number,)* }

        impl DType {
            /// All of them.
            pub const ALL: &[DType] = &[$(DType::$name),*];

            /// The type with this ONNX number.
            pub fn from_onnx(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Bytes of an element in memory; 0 for strings.
            pub fn bytes(self) -> usize {
                match self { $(Self::$name => $bytes,)* }
            }

            /// Its name, as in dumps and errors.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Its DLPack type.
            pub fn dlpack(self) -> DlType {
                match self { $(Self::$name => DlType { code: $code, bits: $bits, lanes: 1 },)* }
            }
        }
    };
}

dtypes! {
    F32 = 1, "f32", 4, 2, 32;
    U8 = 2, "u8", 1, 1, 8;
    I8 = 3, "i8", 1, 0, 8;
    U16 = 4, "u16", 2, 1, 16;
    I16 = 5, "i16", 2, 0, 16;
    I32 = 6, "i32", 4, 0, 32;
    I64 = 7, "i64", 8, 0, 64;
    String = 8, "string", 0, 3, 64;
    Bool = 9, "bool", 1, 6, 8;
    F16 = 10, "f16", 2, 2, 16;
    F64 = 11, "f64", 8, 2, 64;
    U32 = 12, "u32", 4, 1, 32;
    U64 = 13, "u64", 8, 1, 64;
    C64 = 14, "c64", 8, 5, 64;
    C128 = 15, "c128", 16, 5, 128;
    BF16 = 16, "bf16", 2, 4, 16;
    F8E4M3FN = 17, "f8e4m3fn", 1, 10, 8;
    F8E4M3FNUZ = 18, "f8e4m3fnuz", 1, 11, 8;
    F8E5M2 = 19, "f8e5m2", 1, 12, 8;
    F8E5M2FNUZ = 20, "f8e5m2fnuz", 1, 13, 8;
    U4 = 21, "u4", 1, 1, 4;
    I4 = 22, "i4", 1, 0, 4;
    F4E2M1 = 23, "f4e2m1", 1, 17, 4;
    F8E8M0 = 24, "f8e8m0", 1, 14, 8;
    U2 = 25, "u2", 1, 1, 2;
    I2 = 26, "i2", 1, 0, 2;
    F6E2M3 = 27, "f6e2m3", 1, 15, 6;
    F6E3M2 = 28, "f6e3m2", 1, 16, 6;
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DType {
    /// The ONNX number.
    pub fn onnx(self) -> i32 {
        self as i32
    }
}

/// A Rust type that is an element type: plain data, valid for any bytes that [`Element::valid`] accepts.
///
/// # Safety
/// The type has the size of its `DTYPE`, no padding, an alignment of at most 64, and every byte string
/// that `valid` accepts is a valid value.
pub unsafe trait Element: Copy + 'static {
    /// The element type.
    const DTYPE: DType;

    /// Whether these bytes are values of the type.
    fn valid(_bytes: &[u8]) -> bool {
        true
    }
}

macro_rules! elements {
    ($($rust:ty = $name:ident),*) => {
        $(
            // SAFETY: a number type of that size; any bytes are valid.
            unsafe impl Element for $rust { const DTYPE: DType = DType::$name; }
        )*
    };
}

elements!(
    f32 = F32,
    f64 = F64,
    i8 = I8,
    i16 = I16,
    i32 = I32,
    i64 = I64,
    u8 = U8,
    u16 = U16,
    u32 = U32,
    u64 = U64,
    half::f16 = F16,
    half::bf16 = BF16
);

// SAFETY: one byte, and only 0 and 1 are accepted.
unsafe impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn valid(bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| byte <= 1)
    }
}

/// Bytes at a 64-byte boundary.
struct Aligned {
    data: NonNull<u8>,
    bytes: usize,
}

impl Aligned {
    fn layout(bytes: usize) -> Layout {
        // At least one block, so that empty tensors have a real address too.
        Layout::from_size_align(bytes.max(64), 64).unwrap_or(Layout::new::<[u64; 8]>())
    }

    fn zeroed(bytes: usize) -> Self {
        Self::try_zeroed(bytes).unwrap_or_else(|| handle_alloc_error(Self::layout(bytes)))
    }

    /// `None`: there is no such memory.
    fn try_zeroed(bytes: usize) -> Option<Self> {
        let layout = Self::layout(bytes);
        if layout.size() < bytes {
            return None;
        }
        // SAFETY: the layout's size is not 0.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { data, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `data` owns `bytes` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.bytes) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.bytes) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.data.as_ptr(), Self::layout(self.bytes)) }
    }
}

// SAFETY: plain owned memory.
unsafe impl Send for Aligned {}
// SAFETY: shared access only reads.
unsafe impl Sync for Aligned {}

enum Storage {
    Bytes(Aligned),
    Strings(Vec<String>),
}

/// An owned, contiguous tensor.
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    storage: Storage,
}

/// The elements of a shape; `None` on overflow.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .filter(|&n| n <= isize::MAX as usize / 64)
}

impl Tensor {
    /// A tensor of zeros (of empty strings). A shape is often a caller's wish: one that is too big is
    /// an error, not the end of the process.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self, RuntimeError> {
        let too_big = || RuntimeError::TensorMemory {
            dtype,
            shape: shape.to_vec(),
        };
        let n = count(shape).ok_or_else(too_big)?;
        let storage = match dtype {
            DType::String => {
                let mut strings = Vec::new();
                strings.try_reserve_exact(n).map_err(|_| too_big())?;
                strings.resize(n, String::new());
                Storage::Strings(strings)
            }
            _ => {
                let bytes = n.checked_mul(dtype.bytes()).ok_or_else(too_big)?;
                Storage::Bytes(Aligned::try_zeroed(bytes).ok_or_else(too_big)?)
            }
        };
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            storage,
        })
    }

    /// A tensor with these elements, row-major.
    pub fn from_slice<T: Element>(shape: &[usize], elements: &[T]) -> Result<Self, RuntimeError> {
        if count(shape) != Some(elements.len()) {
            return Err(size_error(T::DTYPE, shape, elements.len()));
        }
        // SAFETY: elements are plain data without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                elements.as_ptr().cast::<u8>(),
                std::mem::size_of_val(elements),
            )
        };
        Self::from_bytes(T::DTYPE, shape, bytes)
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(element: T) -> Self {
        let mut storage = Aligned::zeroed(T::DTYPE.bytes());
        // SAFETY: the storage has the element's size and 64-byte alignment.
        unsafe { storage.data.as_ptr().cast::<T>().write(element) };
        storage.bytes = T::DTYPE.bytes();
        Self {
            dtype: T::DTYPE,
            shape: Vec::new(),
            storage: Storage::Bytes(storage),
        }
    }

    /// A tensor with these bytes (little-endian elements, row-major). Not for strings.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self, RuntimeError> {
        let expected = count(shape).map(|n| n * dtype.bytes());
        if dtype == DType::String || expected != Some(bytes.len()) {
            return Err(size_error(dtype, shape, bytes.len()));
        }
        let mut storage = Aligned::zeroed(bytes.len());
        storage.as_mut_slice().copy_from_slice(bytes);
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            storage: Storage::Bytes(storage),
        })
    }

    /// A tensor of strings.
    pub fn from_strings(shape: &[usize], strings: Vec<String>) -> Result<Self, RuntimeError> {
        if count(shape) != Some(strings.len()) {
            return Err(size_error(DType::String, shape, strings.len()));
        }
        Ok(Self {
            dtype: DType::String,
            shape: shape.to_vec(),
            storage: Storage::Strings(strings),
        })
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its dims.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        count(&self.shape).unwrap_or(0)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Bytes(bytes) => bytes.as_slice(),
            Storage::Strings(_) => &[],
        }
    }

    /// Its bytes, to be written; empty for strings.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.storage {
            Storage::Bytes(bytes) => bytes.as_mut_slice(),
            Storage::Strings(_) => &mut [],
        }
    }

    /// Its elements.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], RuntimeError> {
        self.view().as_slice()
    }

    /// Its elements, to be written.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], RuntimeError> {
        self.as_slice::<T>()?;
        let bytes = self.bytes_mut();
        // SAFETY: `as_slice` has checked type, size and values; the storage is 64-byte aligned.
        Ok(unsafe {
            std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>())
        })
    }

    /// Its strings.
    pub fn strings(&self) -> Result<&[String], RuntimeError> {
        match &self.storage {
            Storage::Strings(strings) => Ok(strings),
            Storage::Bytes(_) => Err(RuntimeError::TensorType {
                expected: DType::String,
                found: self.dtype,
            }),
        }
    }

    /// It, borrowed.
    pub fn view(&self) -> TensorView<'_> {
        let data = match &self.storage {
            Storage::Bytes(bytes) => ViewData::Bytes(bytes.as_slice()),
            Storage::Strings(strings) => ViewData::Strings(strings),
        };
        TensorView {
            dtype: self.dtype,
            shape: self.shape.clone(),
            strides: None,
            data,
        }
    }
}

fn size_error(dtype: DType, shape: &[usize], found: usize) -> RuntimeError {
    RuntimeError::TensorSize {
        dtype,
        shape: shape.to_vec(),
        found,
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let storage = match &self.storage {
            Storage::Strings(strings) => Storage::Strings(strings.clone()),
            Storage::Bytes(bytes) => {
                let mut copy = Aligned::zeroed(bytes.bytes);
                copy.as_mut_slice().copy_from_slice(bytes.as_slice());
                Storage::Bytes(copy)
            }
        };
        Self {
            dtype: self.dtype,
            shape: self.shape.clone(),
            storage,
        }
    }
}

impl PartialEq for Tensor {
    /// Equal bits (so NaN equals itself, and 0 is not -0).
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && self.bytes() == other.bytes()
            && self.strings().ok() == other.strings().ok()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

#[derive(Clone, Copy)]
pub(crate) enum ViewData<'a> {
    Bytes(&'a [u8]),
    Strings(&'a [String]),
}

/// A borrowed tensor, with any strides.
#[derive(Clone)]
pub struct TensorView<'a> {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// In elements; `None`: row-major.
    pub(crate) strides: Option<Vec<isize>>,
    pub(crate) data: ViewData<'a>,
}

impl<'a> TensorView<'a> {
    /// A contiguous view of elements.
    pub fn from_slice<T: Element>(
        shape: &[usize],
        elements: &'a [T],
    ) -> Result<Self, RuntimeError> {
        // SAFETY: elements are plain data without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                elements.as_ptr().cast::<u8>(),
                std::mem::size_of_val(elements),
            )
        };
        Self::from_bytes(T::DTYPE, shape, bytes)
    }

    /// A contiguous view of bytes, which need not be aligned.
    pub fn from_bytes(
        dtype: DType,
        shape: &[usize],
        bytes: &'a [u8],
    ) -> Result<Self, RuntimeError> {
        if dtype == DType::String || count(shape).map(|n| n * dtype.bytes()) != Some(bytes.len()) {
            return Err(size_error(dtype, shape, bytes.len()));
        }
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            strides: None,
            data: ViewData::Bytes(bytes),
        })
    }

    /// A view whose element at index `i` is `elements[sum(i * strides)]`; strides are not negative.
    pub fn with_strides<T: Element>(
        shape: &[usize],
        strides: &[usize],
        elements: &'a [T],
    ) -> Result<Self, RuntimeError> {
        let error = || size_error(T::DTYPE, shape, elements.len());
        let n = count(shape).ok_or_else(error)?;
        if strides.len() != shape.len() {
            return Err(error());
        }
        if n > 0 {
            let last = shape
                .iter()
                .zip(strides)
                .try_fold(0usize, |sum, (&dim, &stride)| {
                    (dim - 1)
                        .checked_mul(stride)
                        .and_then(|step| sum.checked_add(step))
                });
            if last.is_none_or(|last| last >= elements.len()) {
                return Err(error());
            }
        }
        // SAFETY: elements are plain data without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                elements.as_ptr().cast::<u8>(),
                std::mem::size_of_val(elements),
            )
        };
        let strides = strides.iter().map(|&stride| stride as isize).collect();
        Ok(Self {
            dtype: T::DTYPE,
            shape: shape.to_vec(),
            strides: Some(strides),
            data: ViewData::Bytes(bytes),
        })
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its dims.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, if it is contiguous and aligned.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T], RuntimeError> {
        let wrong = RuntimeError::TensorType {
            expected: T::DTYPE,
            found: self.dtype,
        };
        let ViewData::Bytes(bytes) = self.data else {
            return Err(wrong);
        };
        if bytes.is_empty() && T::DTYPE == self.dtype {
            return Ok(&[]);
        }
        let aligned = bytes.as_ptr().align_offset(align_of::<T>()) == 0;
        if T::DTYPE != self.dtype || self.strides.is_some() || !aligned || !T::valid(bytes) {
            return Err(wrong);
        }
        // SAFETY: type, alignment and values are checked; the size is the view's invariant.
        Ok(unsafe {
            std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>())
        })
    }

    /// Its bytes as they lie in memory (for a strided view, all of the memory it is in).
    pub fn bytes(&self) -> &'a [u8] {
        match self.data {
            ViewData::Bytes(bytes) => bytes,
            ViewData::Strings(_) => &[],
        }
    }

    /// A copy.
    pub fn to_tensor(&self) -> Result<Tensor, RuntimeError> {
        match (self.data, &self.strides) {
            (ViewData::Strings(strings), _) => Tensor::from_strings(&self.shape, strings.to_vec()),
            (ViewData::Bytes(bytes), None) => Tensor::from_bytes(self.dtype, &self.shape, bytes),
            (ViewData::Bytes(bytes), Some(strides)) => {
                let mut tensor = Tensor::zeros(self.dtype, &self.shape)?;
                let size = self.dtype.bytes();
                let mut index = vec![0usize; self.shape.len()];
                for to in tensor.bytes_mut().chunks_exact_mut(size.max(1)) {
                    let at: isize = index
                        .iter()
                        .zip(strides)
                        .map(|(&i, &stride)| i as isize * stride)
                        .sum();
                    let from = at as usize * size;
                    if let Some(element) = bytes.get(from..from + size) {
                        to.copy_from_slice(element);
                    }
                    for (i, &dim) in index.iter_mut().zip(&self.shape).rev() {
                        *i += 1;
                        if *i < dim {
                            break;
                        }
                        *i = 0;
                    }
                }
                Ok(tensor)
            }
        }
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorView({} {:?})", self.dtype, self.shape)
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}
