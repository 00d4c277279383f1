//! Where a run spends its time: each kernel and library call, with the ONNX node it came from.
//!
//! Generated code reaches the runtime through a table in its context. For a profile the context gets a copy of that
//! table, in which the two entries that run work are replaced by ones that take the time. The code itself is the same,
//! and so are its threads. This is the one place of the command that speaks to a context from below.

use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::mem::transmute;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapidary::{Cpu, Error, Tensor};
use lapidary_runtime::ffi::{ContextHead, DlTensor, LibraryFn, ModelTable};
use lapidary_runtime::{ModelCode, abi, ffi};

/// One call of a run, in order.
#[derive(Clone, Debug)]
pub struct Call {
    /// The ONNX node, as errors name it.
    pub node: String,
    /// Kernel or library.
    pub library: bool,
    /// Sum over all profiled runs.
    pub time: Duration,
}

type ParallelFor = unsafe extern "C" fn(
    *mut ContextHead,
    *const c_void,
    *const *mut c_void,
    *const i64,
    i64,
    i64,
    i32,
    i64,
) -> i32;
type CallLibrary = unsafe extern "C" fn(
    *mut ContextHead,
    LibraryFn,
    *const *const ffi::LapTensor,
    i32,
    *const *mut ffi::LapTensor,
    i32,
    *const c_void,
    i32,
) -> i32;

/// What the hooks see: the functions they stand for, and the calls so far.
struct Recorder {
    parallel_for: ParallelFor,
    call_library: CallLibrary,
    calls: Vec<Recorded>,
}

/// A call: the table whose node it is (a variant or a body has its own), the node, whether the library was called.
type Recorded = (*const ModelTable, i32, bool, Duration);

thread_local! {
    /// Calls come from the thread that runs the model.
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

unsafe extern "C" fn timed_parallel_for(
    context: *mut ContextHead,
    kernel: *const c_void,
    buffers: *const *mut c_void,
    dims: *const i64,
    tasks: i64,
    scratch: i64,
    node: i32,
    cost: i64,
) -> i32 {
    let real = RECORDER.with_borrow(|r| r.as_ref().map(|r| r.parallel_for));
    let Some(real) = real else {
        return abi::code::INTERNAL;
    };
    let begin = Instant::now();
    // SAFETY: the arguments of the caller, passed on.
    let code = unsafe { real(context, kernel, buffers, dims, tasks, scratch, node, cost) };
    record(context, node, false, begin);
    code
}

unsafe extern "C" fn timed_call_library(
    context: *mut ContextHead,
    function: LibraryFn,
    inputs: *const *const ffi::LapTensor,
    n_inputs: i32,
    outputs: *const *mut ffi::LapTensor,
    n_outputs: i32,
    attributes: *const c_void,
    node: i32,
) -> i32 {
    let real = RECORDER.with_borrow(|r| r.as_ref().map(|r| r.call_library));
    let Some(real) = real else {
        return abi::code::INTERNAL;
    };
    let begin = Instant::now();
    // SAFETY: the arguments of the caller, passed on.
    let code = unsafe {
        real(
            context, function, inputs, n_inputs, outputs, n_outputs, attributes, node,
        )
    };
    record(context, node, true, begin);
    code
}

fn record(context: *const ContextHead, node: i32, library: bool, begin: Instant) {
    let time = begin.elapsed();
    // SAFETY: the context that makes the call.
    let table = unsafe { (*context).model };
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.calls.push((table, node, library, time));
        }
    });
}

/// A context with the hooks in place.
struct Hooked {
    raw: *mut ContextHead,
    api: *const ffi::Api,
    /// The copy of the function table that `raw` points to.
    _functions: Box<[*const c_void]>,
    _code: Arc<dyn ModelCode>,
}

impl Hooked {
    fn new(code: Arc<dyn ModelCode>, threads: usize, cpu: Cpu) -> Result<Hooked, Error> {
        let table = code.table();
        // SAFETY: `ModelCode` promises a valid table; the options have the layout that they say.
        unsafe {
            let api: *const ffi::Api = (*table).head.api.cast();
            let options = ffi::Options {
                struct_bytes: size_of::<ffi::Options>() as u32,
                threads: i32::try_from(threads).unwrap_or(i32::MAX),
                pool: ptr::null_mut(),
                parallel_for: None,
                host: ptr::null_mut(),
                host_workers: 0,
                flags: 0,
                memory_limit: 0,
                timeout_ns: 0,
                weights_path: ptr::null(),
                error_text: ptr::null_mut(),
                error_text_bytes: 0,
                read_weights: None,
                weights_host: ptr::null_mut(),
                weights: ptr::null(),
                weights_bytes: 0,
                cpu_features: cpu.features(),
            };
            let mut raw = ptr::null_mut();
            let result = ((*api).context_create)(&(*table).head, &options, &mut raw);
            if result != abi::code::OK {
                return Err(Error::Other(format!(
                    "a context for the profile could not be made (code {result})"
                )));
            }
            let entries = abi::RT_BYTES as usize / size_of::<*const c_void>();
            let real = std::slice::from_raw_parts((*raw).rt.cast::<*const c_void>(), entries);
            let mut functions: Box<[*const c_void]> = real.into();
            let (run, call) = (
                abi::RT_PARALLEL_FOR as usize / size_of::<*const c_void>(),
                abi::RT_CALL_LIBRARY as usize / size_of::<*const c_void>(),
            );
            let recorder = Recorder {
                parallel_for: transmute::<*const c_void, ParallelFor>(functions[run]),
                call_library: transmute::<*const c_void, CallLibrary>(functions[call]),
                calls: Vec::new(),
            };
            functions[run] = timed_parallel_for as ParallelFor as *const c_void;
            functions[call] = timed_call_library as CallLibrary as *const c_void;
            (*raw).rt = functions.as_ptr().cast();
            RECORDER.set(Some(recorder));
            Ok(Hooked {
                raw,
                api,
                _functions: functions,
                _code: code,
            })
        }
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<(), Error> {
        let failed = |code: i32| Error::Other(format!("the profiled run failed (code {code})"));
        for (index, tensor) in inputs.iter().enumerate() {
            if tensor.strings().is_ok() {
                return Err(Error::Unsupported(
                    "a model with string inputs cannot be profiled".to_string(),
                ));
            }
            let mut shape: Vec<i64> = tensor.shape().iter().map(|dim| *dim as i64).collect();
            let view = DlTensor {
                data: tensor.bytes().as_ptr().cast_mut().cast(),
                device_type: 1,
                device_id: 0,
                ndim: shape.len() as i32,
                dtype: tensor.dtype().dlpack(),
                shape: shape.as_mut_ptr(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            };
            // SAFETY: the shape is copied, and the data outlives the run below.
            let code = unsafe { ((*self.api).set_input)(self.raw, index as i32, &view) };
            if code != abi::code::OK {
                return Err(failed(code));
            }
        }
        // SAFETY: all inputs are set and live.
        match unsafe { ((*self.api).run)(self.raw) } {
            abi::code::OK => Ok(()),
            code => Err(failed(code)),
        }
    }

    fn node_name(&self, table: *const ModelTable, node: i32) -> String {
        // SAFETY: a table of the model's code; its names are valid, and the index is tested.
        unsafe {
            if node < 0 || node >= (*table).n_nodes {
                return "?".to_string();
            }
            let name = *(*table).node_names.add(node as usize);
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        RECORDER.set(None);
        // SAFETY: made by the same table, and not used again.
        unsafe { ((*self.api).context_destroy)(self.raw) }
    }
}

/// Profiles so many runs after a first one; calls are in the order of a run.
pub fn profile(
    code: Arc<dyn ModelCode>,
    inputs: &[Tensor],
    threads: usize,
    cpu: Cpu,
    runs: usize,
) -> Result<Vec<Call>, Error> {
    let mut context = Hooked::new(code, threads, cpu)?;
    let take = || RECORDER.with_borrow_mut(|r| r.as_mut().map(|r| std::mem::take(&mut r.calls)));
    let mut calls: Vec<Call> = Vec::new();
    for run in 0..=runs {
        context.run(inputs)?;
        let recorded = take().unwrap_or_default();
        if run == 0 {
            calls = recorded
                .iter()
                .map(|(table, node, library, _)| Call {
                    node: context.node_name(*table, *node),
                    library: *library,
                    time: Duration::ZERO,
                })
                .collect();
            continue;
        }
        // Loops whose length depends on data are not profiled call by call; equal inputs give equal calls.
        for (call, (_, _, _, time)) in calls.iter_mut().zip(recorded) {
            call.time += time;
        }
    }
    Ok(calls)
}
