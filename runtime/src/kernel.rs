//! Library kernels written in Rust: what an operator of the application computes with.
//!
//! In: the descriptors of a call of the library kernel ABI (docs/abi.md). Out: the same as safe views.
//! One C function, [`rust_kernel`], serves all of them: the first integer of the attribute record is the
//! address of the [`RustKernel`]. Such kernels exist in this process only, never in a compiled library.

use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::abi;
use crate::ffi::{ContextHead, LapTensor, LibraryFn};
use crate::tensor::{DType, Element, Tensor, TensorView};

/// The link name of [`rust_kernel`].
pub const RUST_KERNEL: &str = "lapidary_rust_kernel";

/// Computes nodes of an operator.
pub trait Kernel: Send + Sync {
    /// Reads the inputs and makes each output by [`Call::output`]. An error ends the run; it is reported with
    /// the node's name.
    fn run(&self, call: &mut Call<'_>) -> Result<(), String>;
}

/// The object behind a call; it must outlive all code that refers to it.
pub struct RustKernel(pub Arc<dyn Kernel>);

impl RustKernel {
    /// What a call's first attribute is.
    pub fn address(self: &Arc<Self>) -> i64 {
        Arc::as_ptr(self) as i64
    }
}

/// `lap_attrs`, as far as it is read here.
#[repr(C)]
struct Attributes {
    ints: *const i64,
    floats: *const f64,
    strings: *const Bytes,
    n_ints: i32,
    n_floats: i32,
    n_strings: i32,
    reserved: i32,
}

#[repr(C)]
struct Bytes {
    data: *const u8,
    bytes: i64,
}

/// `lapidary_strings`.
#[repr(C)]
struct StringData {
    offsets: *const i64,
    bytes: *const u8,
}

/// The dims of a string tensor and its elements in row-major order.
pub type Strings<'a> = (Vec<usize>, Vec<&'a str>);

/// One call of a kernel.
pub struct Call<'a> {
    context: *mut ContextHead,
    inputs: &'a [*const LapTensor],
    outputs: &'a [*mut LapTensor],
    ints: &'a [i64],
    floats: &'a [f64],
    strings: &'a [Bytes],
    node: i32,
    /// The outputs that were given out: a second time would be a second view of the same memory.
    made: Vec<bool>,
    /// The runtime has set the error already.
    failed: Option<i32>,
}

fn shape(t: &LapTensor) -> Vec<usize> {
    let rank = usize::try_from(t.rank).unwrap_or(0);
    let dims = t.dims.iter().take(rank);
    dims.map(|d| usize::try_from(*d).unwrap_or(0)).collect()
}

impl<'a> Call<'a> {
    /// Operands of the node, absent ones included.
    pub fn n_inputs(&self) -> usize {
        self.inputs.len()
    }
    /// Results of the node.
    pub fn n_outputs(&self) -> usize {
        self.outputs.len()
    }
    /// The integers of the record that typing the node gave.
    pub fn ints(&self) -> &'a [i64] {
        self.ints
    }
    /// The numbers of the record.
    pub fn floats(&self) -> &'a [f64] {
        self.floats
    }
    /// A string of the record.
    pub fn string(&self, i: usize) -> Option<&'a [u8]> {
        let s = self.strings.get(i)?;
        let bytes = usize::try_from(s.bytes).ok()?;
        // SAFETY: the record holds `bytes` bytes there, for as long as the code.
        Some(unsafe { slice(s.data, bytes) })
    }

    fn raw_input(&self, i: usize) -> Option<&'a LapTensor> {
        let t = *self.inputs.get(i)?;
        // SAFETY: operands are NULL or descriptors that outlive the call.
        unsafe { t.as_ref() }
    }

    /// Operand `i`, contiguous; `None` if it is absent. Strings: [`Call::input_strings`].
    pub fn input(&self, i: usize) -> Option<Result<TensorView<'a>, String>> {
        let t = self.raw_input(i)?;
        let made = DType::from_onnx(t.dtype)
            .filter(|dtype| *dtype != DType::String && t.rank >= 0)
            .ok_or_else(|| format!("input {i} is no tensor of numbers"))
            .and_then(|dtype| {
                let shape = shape(t);
                let bytes = shape.iter().product::<usize>() * dtype.bytes();
                // SAFETY: a tensor inside a run is contiguous, and its data lives through the call.
                let data = unsafe { slice(t.data.cast_const().cast::<u8>(), bytes) };
                TensorView::from_bytes(dtype, &shape, data).map_err(|e| e.to_string())
            });
        Some(made)
    }

    /// The elements of operand `i`: its dims and data. An error if it is absent or of another type.
    pub fn slice<T: Element>(&self, i: usize) -> Result<(Vec<usize>, &'a [T]), String> {
        let view = self
            .input(i)
            .ok_or_else(|| format!("input {i} is absent"))??;
        let elements = view.as_slice::<T>().map_err(|e| e.to_string())?;
        Ok((view.shape().to_vec(), elements))
    }

    /// The strings of operand `i`, in row-major order, with its dims.
    pub fn input_strings(&self, i: usize) -> Option<Result<Strings<'a>, String>> {
        let t = self.raw_input(i)?;
        if t.dtype != DType::String.onnx() || t.rank < 0 {
            return Some(Err(format!("input {i} holds no strings")));
        }
        let shape = shape(t);
        let n = shape.iter().product::<usize>();
        // SAFETY: a string tensor's data is its header; n + 1 offsets stand behind it.
        let (offsets, bytes) = unsafe {
            let header = &*t.data.cast::<StringData>();
            (slice(header.offsets, n + 1), header.bytes)
        };
        let text = |pair: &[i64]| match pair {
            &[from, to] if 0 <= from && from <= to => {
                // SAFETY: offsets grow and end at the text's size.
                let text =
                    unsafe { slice(bytes.wrapping_add(from as usize), (to - from) as usize) };
                std::str::from_utf8(text).map_err(|_| format!("input {i} is not UTF-8"))
            }
            _ => Err(format!("input {i} has bad offsets")),
        };
        let strings: Result<Vec<&str>, String> = offsets.windows(2).map(text).collect();
        Some(strings.map(|strings| (shape, strings)))
    }

    /// The type of output `i`, as it was stated.
    pub fn output_dtype(&self, i: usize) -> Option<DType> {
        let t = *self.outputs.get(i)?;
        // SAFETY: outputs are NULL or descriptors that outlive the call.
        DType::from_onnx(unsafe { t.as_ref() }?.dtype)
    }

    /// Gives output `i` its shape and its memory, to be filled: what it holds before is anything. `None` inside: nobody
    /// reads the output. An output whose shape was stated must be given that shape. A second time it is an error.
    pub fn output<T: Element>(
        &mut self,
        i: usize,
        shape: &[usize],
    ) -> Result<Option<&'a mut [T]>, String> {
        let Some(out) = self.outputs.get(i).copied().filter(|t| !t.is_null()) else {
            return Ok(None);
        };
        let stated = self.output_dtype(i);
        if stated != Some(T::DTYPE) {
            let stated = stated.map_or("of no known type", DType::name);
            return Err(format!("output {i} is {stated}, not {}", T::DTYPE));
        }
        match self.made.get_mut(i) {
            Some(made) if !*made => *made = true,
            _ => return Err(format!("output {i} is made a second time")),
        }
        let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        type Alloc =
            unsafe extern "C" fn(*mut ContextHead, *mut LapTensor, i32, *const i64, i32) -> i32;
        // SAFETY: the table's entry is this function (docs/abi.md); context and descriptor are the call's own.
        let status = unsafe {
            let entry = (*self.context)
                .rt
                .cast::<u8>()
                .add(abi::RT_OUTPUT_ALLOC as usize)
                .cast::<Alloc>();
            (*entry)(
                self.context,
                out,
                dims.len() as i32,
                dims.as_ptr(),
                self.node,
            )
        };
        if status != 0 {
            self.failed = Some(status);
            return Err(format!("output {i} cannot be made"));
        }
        let n = shape.iter().product::<usize>();
        // SAFETY: the runtime has just given the output this room, 64-byte aligned; nothing else points there.
        // New memory is not initialised for the language, but any bytes are numbers; booleans are zeroed.
        unsafe {
            let data = (*out).data.cast::<T>();
            if n == 0 || data.is_null() {
                return Ok(Some(&mut []));
            }
            if T::DTYPE == DType::Bool {
                std::ptr::write_bytes(data, 0, n);
            }
            Ok(Some(std::slice::from_raw_parts_mut(data, n)))
        }
    }

    /// Makes output `i` a copy of a tensor.
    pub fn set_output(&mut self, i: usize, tensor: &Tensor) -> Result<(), String> {
        macro_rules! copy {
            ($($name:ident $ty:ty),*) => {
                match tensor.dtype() {
                    $(DType::$name => {
                        let from = tensor.as_slice::<$ty>().map_err(|e| e.to_string())?;
                        if let Some(to) = self.output::<$ty>(i, tensor.shape())? {
                            to.copy_from_slice(from);
                        }
                        Ok(())
                    })*
                    other => Err(format!("output {i} of {other} cannot be copied")),
                }
            };
        }
        copy!(F32 f32, F64 f64, I64 i64, I32 i32, I16 i16, I8 i8, U64 u64, U32 u32, U16 u16, U8 u8, Bool bool)
    }
}

/// # Safety
/// `data` has `n` elements that live as long as the result, unless `n` is 0.
unsafe fn slice<'a, T>(data: *const T, n: usize) -> &'a [T] {
    if n == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, n) }
}

/// The library kernel behind every kernel in Rust.
///
/// # Safety
/// Arguments are those of the library kernel ABI, and the first integer of the record is
/// [`RustKernel::address`] of an object that is alive.
pub unsafe extern "C" fn rust_kernel(
    context: *mut ContextHead,
    inputs: *const *const LapTensor,
    n_in: i32,
    outputs: *const *mut LapTensor,
    n_out: i32,
    attributes: *const c_void,
    node: i32,
) -> i32 {
    // SAFETY: the record, the lists and the object are as the ABI and the caller promise.
    let (kernel, mut call) = unsafe {
        let record = &*attributes.cast::<Attributes>();
        let ints: &[i64] = slice(record.ints, record.n_ints.max(0) as usize);
        let Some((address, ints)) = ints.split_first() else {
            return fail(context, node, "the call lacks its kernel");
        };
        let outputs: &[*mut LapTensor] = slice(outputs, n_out.max(0) as usize);
        let call = Call {
            context,
            inputs: slice(inputs, n_in.max(0) as usize),
            outputs,
            ints,
            floats: slice(record.floats, record.n_floats.max(0) as usize),
            strings: slice(record.strings, record.n_strings.max(0) as usize),
            node,
            made: vec![false; outputs.len()],
            failed: None,
        };
        (&*(*address as *const RustKernel), call)
    };
    // A panic must not pass through generated code.
    let result = catch_unwind(AssertUnwindSafe(|| kernel.0.run(&mut call)));
    let missing = || {
        let mut made = call.outputs.iter().zip(&call.made);
        made.position(|(out, made)| !out.is_null() && !made)
    };
    match (result, call.failed) {
        (Err(_), _) => fail(context, node, "the operator's kernel panicked"),
        // Also where the kernel went on as if nothing had happened.
        (Ok(_), Some(status)) => status,
        (Ok(Err(message)), None) => fail(context, node, &message),
        // Its memory may hold anything.
        (Ok(Ok(())), None) => match missing() {
            Some(i) => fail(context, node, &format!("output {i} was not made")),
            None => 0,
        },
    }
}

/// The address of [`rust_kernel`].
pub const RUST_KERNEL_FN: LibraryFn = rust_kernel;

fn fail(context: *mut ContextHead, node: i32, message: &str) -> i32 {
    // Braces would be places for numbers.
    let text: String = message
        .chars()
        .filter(|c| !matches!(c, '{' | '}' | '\0'))
        .collect();
    let text = CString::new(text).unwrap_or_default();
    type Fail = unsafe extern "C" fn(*mut ContextHead, i32, i32, *const c_char, i64, i64) -> i32;
    // SAFETY: the table's entry is this function (docs/abi.md); it copies the text.
    unsafe {
        let entry = (*context)
            .rt
            .cast::<u8>()
            .add(abi::RT_FAIL as usize)
            .cast::<Fail>();
        (*entry)(context, abi::code::CHECK, node, text.as_ptr(), 0, 0)
    }
}
