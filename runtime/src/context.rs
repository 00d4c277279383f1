//! Contexts: a model ready to run, wrapped so that no call can break C's rules.
//!
//! In: a model's code (a [`ModelCode`]) and tensors; out: tensors or a [`RuntimeError`] that names the node. A
//! context runs one thing at a time (`&mut self`); several contexts of one model share code and weights and
//! run concurrently. The code outlives every context made of it.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::abi;
use crate::cpu::CpuLevel;
use crate::dlpack::{CStrings, dims, dl_tensor, read_strings, shape_of};
use crate::error::{ErrorCode, RuntimeError};
use crate::ffi::{self, Api};
use crate::info::{StateInfo, ValueInfo, states, value_infos};
use crate::pool::ThreadPool;
use crate::tensor::{DType, Tensor, TensorView, ViewData};
use crate::value::{Lent, OwnedValue};
use crate::weights::Weights;

/// Something that holds a compiled model: an open library, or code in memory.
///
/// # Safety
/// `table` gives a table as `docs/abi.md` describes, with code and weights that live, unchanged, as long as `self`.
pub unsafe trait ModelCode: Send + Sync {
    /// The model's table.
    fn table(&self) -> *const ffi::ModelTable;

    /// A file that code or weights are read from in place and that shrank meanwhile. Asked after every run, so
    /// cheap; a weights file that the runtime mapped is not meant.
    fn lost_file(&self) -> Option<String> {
        None
    }
}

/// How a context is made.
#[derive(Clone, Default)]
pub struct Options {
    /// Threads with the caller's; 0: one for each processor available; 1: none but the caller's.
    pub threads: usize,
    /// A pool shared with other contexts, instead of `threads`.
    pub pool: Option<Arc<ThreadPool>>,
    /// Bytes that the context may hold.
    pub memory_limit: Option<u64>,
    /// The time that a run may take.
    pub timeout: Option<Duration>,
    /// The weights file, if it is not beside the library.
    pub weights_path: Option<PathBuf>,
    /// The weights of a library that has a weights file, instead of that file and of `weights_path`.
    pub weights: Option<Weights>,
    /// Hash all weights when they are mapped.
    pub verify_weights: bool,
    /// No handler of SIGBUS for the weights file: if that is cut short while in use, the signal is the host's.
    pub no_fault_handler: bool,
    /// For tests: every buffer is memory of its own with a page behind it that cannot be touched, and a run that has
    /// written behind one fails with [`ErrorCode::Internal`].
    pub guard_memory: bool,
    /// The features (bits of [`abi::cpu`]) that code may use, such as those of a [`CpuLevel`]; 0: all that the processor
    /// has. Those that it lacks are an error, [`ErrorCode::Cpu`].
    pub cpu_features: u64,
}

/// The C context with all that must outlive it.
struct Inner {
    raw: *mut ffi::ContextHead,
    api: *const Api,
    _pool: Option<Arc<ThreadPool>>,
    _owner: Arc<dyn Any + Send + Sync>,
    /// Lent to the context.
    _weights: Option<Weights>,
}

// SAFETY: a C context may be used from any thread, one at a time, which `&mut Context` ensures; `set_cancel` and
// `set_timeout` are atomic.
unsafe impl Send for Inner {}
// SAFETY: as above: shared access only cancels.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the last user is gone; code, weights and pool are dropped after this.
        unsafe { ((*self.api).context_destroy)(self.raw) }
    }
}

/// Ends runs of a context from another thread.
#[derive(Clone)]
pub struct Canceller(Arc<Inner>);

impl Canceller {
    /// While set, runs of the context end with [`ErrorCode::Cancelled`], the present one too.
    pub fn set(&self, on: bool) {
        // SAFETY: the flag is atomic.
        unsafe { ((*self.0.api).set_cancel)(self.0.raw, i32::from(on)) };
    }
}

/// A model ready to run.
pub struct Context {
    inner: Arc<Inner>,
    inputs: Vec<ValueInfo>,
    /// What a run gives: all outputs of the model but states.
    outputs: Vec<ValueInfo>,
    /// Their numbers among all outputs.
    numbers: Vec<i32>,
    states: Vec<StateInfo>,
    name: String,
    code: Option<Arc<dyn ModelCode>>,
    /// Whether the last run's outputs were so big that [`Context::run`] lets the model write them
    /// where the caller gets them; `None` before the first run.
    big_outputs: Option<bool>,
}

/// Bytes of outputs from which memory for a second copy matters more than asking for their shapes.
const BIG_OUTPUTS: usize = 1 << 20;

/// Keeps a `dyn ModelCode` as a `dyn Any`.
struct Kept {
    _code: Arc<dyn ModelCode>,
}

impl Context {
    /// A context of this code.
    pub fn new(code: Arc<dyn ModelCode>, options: &Options) -> Result<Self, RuntimeError> {
        let table = code.table();
        let owner = Arc::new(Kept {
            _code: code.clone(),
        });
        // SAFETY: `ModelCode` promises a valid table that lives as long as the owner.
        let mut context = unsafe { Self::from_table(table, owner, options) }?;
        context.code = Some(code);
        Ok(context)
    }

    /// A context of a table in memory.
    ///
    /// # Safety
    /// The table is as `docs/abi.md` describes, and it, its code and its weights live, unchanged, as long as `owner`.
    pub unsafe fn from_table(
        table: *const ffi::ModelTable,
        owner: Arc<dyn Any + Send + Sync>,
        options: &Options,
    ) -> Result<Self, RuntimeError> {
        // SAFETY: every version of the table begins with its version.
        let version = unsafe { (*table).head.abi_version };
        if version != abi::ABI_VERSION {
            let message = format!(
                "the model has ABI version {version}, this runtime reads {}",
                abi::ABI_VERSION
            );
            return Err(RuntimeError::plain(ErrorCode::Abi, message));
        }
        // SAFETY: a table of our version.
        let head = unsafe { &(*table).head };
        let api: *const Api = head.api.cast();
        // SAFETY: the table's strings and arrays are valid.
        let (mut inputs, outputs, name) = unsafe {
            (
                value_infos(head.inputs, head.n_inputs)?,
                value_infos(head.outputs, head.n_outputs)?,
                CStr::from_ptr(head.name).to_string_lossy().into_owned(),
            )
        };
        // SAFETY: a table of our version, whose arrays are valid.
        unsafe {
            let n = (*table).n_defaults.max(0) as usize;
            for at in 0..n {
                let input = (*(*table).defaults.add(at)).input;
                if let Some(info) = inputs.get_mut(input.max(0) as usize) {
                    info.has_default = true;
                }
            }
        }
        // SAFETY: as above.
        let states = unsafe { states(table, &outputs) };
        for state in states.iter().filter(|state| state.axis.is_some()) {
            if let Some(info) = inputs.get_mut(state.input) {
                info.has_default = true;
            }
        }
        let mut numbers = Vec::new();
        let mut given_out = Vec::new();
        for (number, info) in outputs.into_iter().enumerate() {
            if states.iter().all(|state| state.output != number) {
                numbers.push(number as i32);
                given_out.push(info);
            }
        }
        let outputs = given_out;
        if options
            .pool
            .as_ref()
            .is_some_and(|pool| !ptr::eq(pool.api, api))
        {
            let message =
                "the pool belongs to another runtime: make it with `ThreadPool::for_model`";
            return Err(RuntimeError::plain(ErrorCode::Argument, message));
        }
        let weights_path = match &options.weights_path {
            Some(path) => Some(CString::new(path.as_os_str().as_encoded_bytes()).map_err(
                |_| {
                    RuntimeError::plain(
                        ErrorCode::Argument,
                        "the path of the weights file has a NUL in it",
                    )
                },
            )?),
            None => None,
        };
        let (read_weights, weights_host) = options
            .weights
            .as_ref()
            .map_or_else(|| (None, ptr::null_mut()), Weights::reader_parts);
        let in_memory = options.weights.as_ref().and_then(Weights::bytes);
        let mut text = vec![0u8; 1024];
        let c_options = ffi::Options {
            struct_bytes: size_of::<ffi::Options>() as u32,
            threads: i32::try_from(options.threads).unwrap_or(i32::MAX),
            pool: options
                .pool
                .as_ref()
                .map_or(ptr::null_mut(), |pool| pool.raw),
            parallel_for: None,
            host: ptr::null_mut(),
            host_workers: 0,
            flags: u32::from(options.verify_weights)
                | u32::from(options.no_fault_handler) << 1
                | u32::from(options.guard_memory) << 2,
            memory_limit: options
                .memory_limit
                .map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX).max(1)),
            timeout_ns: options.timeout.map_or(0, nanoseconds),
            weights_path: weights_path
                .as_ref()
                .map_or(ptr::null(), |path| path.as_ptr()),
            error_text: text.as_mut_ptr().cast::<c_char>(),
            error_text_bytes: text.len(),
            read_weights,
            weights_host,
            weights: in_memory.map_or(ptr::null(), |bytes| bytes.as_ptr().cast()),
            weights_bytes: in_memory.map_or(0, <[u8]>::len),
            cpu_features: options.cpu_features,
        };
        let mut raw = ptr::null_mut();
        // SAFETY: a table of our version, options of its layout.
        let code = unsafe { ((*api).context_create)(head, &c_options, &mut raw) };
        if code != abi::code::OK {
            let message =
                CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned());
            let message = message.ok().filter(|text| !text.is_empty());
            let mut message =
                message.unwrap_or_else(|| "the context could not be made".to_string());
            if let Some(reason) = options.weights.as_ref().and_then(Weights::failure) {
                message = format!("{message}: {reason}");
            }
            return Err(RuntimeError::plain(ErrorCode::from_raw(code), message));
        }
        let inner = Inner {
            raw,
            api,
            _pool: options.pool.clone(),
            _owner: owner,
            _weights: options.weights.clone(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            inputs,
            outputs,
            numbers,
            states,
            name,
            code: None,
            big_outputs: None,
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's inputs.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// What a run gives: the model's outputs but for states.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// What the context keeps from run to run.
    pub fn states(&self) -> &[StateInfo] {
        &self.states
    }

    /// The variant of the code that the last run took: the dims that it is specialised for, or `general`. `None` before a
    /// run, and after one that failed.
    pub fn variant(&self) -> Option<String> {
        // SAFETY: the context lives and is not running; the name is the table's.
        unsafe {
            let name = (self.api().variant)(self.inner.raw);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// The level of the code that runs: the highest that the model has code for and the processor, or
    /// [`Options::cpu_features`], allows.
    pub fn cpu_level(&self) -> CpuLevel {
        // SAFETY: the context lives.
        CpuLevel::from_raw(unsafe { (self.api().cpu_level)(self.inner.raw) })
    }

    /// Makes all states as they were at first: without rows, or the model's default.
    pub fn reset_states(&mut self) -> Result<(), RuntimeError> {
        // SAFETY: the context lives and is not running.
        self.checked(unsafe { (self.api().reset_states)(self.inner.raw) })
    }

    /// Gives the state of this input a value, which is copied, for the next run.
    pub fn set_state(&mut self, input: usize, value: &TensorView<'_>) -> Result<(), RuntimeError> {
        if self.states.iter().all(|state| state.input != input) {
            let message = format!("input {input} is no state");
            return Err(RuntimeError::plain(ErrorCode::Argument, message));
        }
        let mut given: Vec<Option<&TensorView<'_>>> = vec![None; self.inputs.len()];
        given[input] = Some(value);
        self.with_inputs(&given, |_| Ok(()))
    }

    /// A copy of a state after a run: position in [`Context::states`]. Before a run there is none to read.
    pub fn state(&self, at: usize) -> Result<Tensor, RuntimeError> {
        let Some(state) = self.states.get(at) else {
            return Err(arity("states", self.states.len(), at));
        };
        self.view_of(state.output as i32, state.info.dtype)
            .map_err(|_| {
                let message = format!(
                    "the state of input `{}` can be read after a run that succeeded, and before the next input is set",
                    self.inputs.get(state.input).map_or("", |info| info.name.as_str())
                );
                RuntimeError::plain(ErrorCode::Argument, message)
            })?
            .to_tensor()
    }

    /// A handle that ends runs from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.inner.clone())
    }

    /// Sets the time that each later run may take.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        // SAFETY: the context lives.
        unsafe { (self.api().set_timeout)(self.inner.raw, timeout.map_or(0, nanoseconds)) };
    }

    /// Sets the bytes that the context may hold.
    pub fn set_memory_limit(&mut self, bytes: Option<u64>) {
        let bytes = bytes.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX).max(1));
        // SAFETY: the context lives and is not running.
        unsafe { (self.api().set_memory_limit)(self.inner.raw, bytes) };
    }

    /// Bytes that it holds, without weights.
    pub fn memory_used(&self) -> u64 {
        // SAFETY: the context lives and is not running.
        unsafe { (self.api().memory_used)(self.inner.raw) as u64 }
    }

    /// Runs the model; the outputs are the caller's. Small ones are copied out of the context, big
    /// ones (with shapes that do not depend on data) are written where the caller gets them.
    pub fn run(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, RuntimeError> {
        self.outputs_are_tensors()?;
        if self.big_outputs != Some(false)
            && let Some(mut outputs) = self.big_outputs(inputs)?
        {
            self.run_into(inputs, &mut outputs)?;
            return Ok(outputs);
        }
        let outputs: Vec<Tensor> = self
            .run_views(inputs)?
            .iter()
            .map(OutputView::to_tensor)
            .collect::<Result<_, _>>()?;
        let bytes: usize = outputs.iter().map(|t| t.bytes().len()).sum();
        self.big_outputs = Some(bytes >= BIG_OUTPUTS);
        Ok(outputs)
    }

    /// Tensors for the outputs, when these are big and their shapes are known before the run.
    fn big_outputs(
        &mut self,
        inputs: &[TensorView<'_>],
    ) -> Result<Option<Vec<Tensor>>, RuntimeError> {
        let shapes: Option<Vec<Vec<usize>>> = self.output_shapes(inputs)?.into_iter().collect();
        let Some(shapes) = shapes else {
            return Ok(None);
        };
        let bytes = |(info, shape): (&ValueInfo, &Vec<usize>)| {
            let count = crate::tensor::count(shape)?;
            count.checked_mul(info.dtype.bytes())
        };
        let total = self
            .outputs
            .iter()
            .zip(&shapes)
            .map(bytes)
            .try_fold(0usize, |sum, n| sum.checked_add(n?));
        let strings = self.outputs.iter().any(|info| info.dtype == DType::String);
        self.big_outputs = Some(total.is_some_and(|t| t >= BIG_OUTPUTS) && !strings);
        if self.big_outputs != Some(true) {
            return Ok(None);
        }
        let make = |(info, shape): (&ValueInfo, &Vec<usize>)| Tensor::zeros(info.dtype, shape);
        self.outputs
            .iter()
            .zip(&shapes)
            .map(make)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Runs the model on values of any kind.
    pub fn run_values(&mut self, inputs: &[OwnedValue]) -> Result<Vec<OwnedValue>, RuntimeError> {
        if inputs.len() != self.inputs.len() {
            return Err(arity("inputs", self.inputs.len(), inputs.len()));
        }
        let mut lent = Lent::default();
        let values: Vec<ffi::Value> = inputs.iter().map(|value| lent.value(value)).collect();
        for (index, value) in values.iter().enumerate() {
            // SAFETY: containers are copied; tensors are borrowed until other inputs are set, and are read in the
            // run below only.
            let code = unsafe { (self.api().set_value)(self.inner.raw, index as i32, value) };
            self.checked(code)?;
        }
        self.run_set()?;
        drop(lent);
        self.numbers
            .iter()
            .map(|number| {
                // SAFETY: the run has succeeded, so the tree is valid until the next call, which needs `&mut self`.
                unsafe { crate::value::read((self.api().output_value)(self.inner.raw, *number)) }
            })
            .collect()
    }

    /// Runs the model; an input that is `None` takes its default.
    pub fn run_given(
        &mut self,
        inputs: &[Option<TensorView<'_>>],
    ) -> Result<Vec<Tensor>, RuntimeError> {
        self.outputs_are_tensors()?;
        let given: Vec<Option<&TensorView<'_>>> = inputs.iter().map(Option::as_ref).collect();
        self.execute(&given)?;
        (0..self.outputs.len())
            .map(|index| self.output_view(index)?.to_tensor())
            .collect()
    }

    /// Runs the model; an input that is `None` takes its default or is a state, the outputs are the context's own memory.
    pub fn run_given_views(
        &mut self,
        inputs: &[Option<TensorView<'_>>],
    ) -> Result<Vec<OutputView<'_>>, RuntimeError> {
        let given: Vec<Option<&TensorView<'_>>> = inputs.iter().map(Option::as_ref).collect();
        self.execute(&given)?;
        (0..self.outputs.len())
            .map(|index| self.output_view(index))
            .collect()
    }

    /// Runs the model; the outputs are the context's own memory (strings are copied).
    pub fn run_views(
        &mut self,
        inputs: &[TensorView<'_>],
    ) -> Result<Vec<OutputView<'_>>, RuntimeError> {
        self.outputs_are_tensors()?;
        self.execute(&all(inputs))?;
        (0..self.outputs.len())
            .map(|index| self.output_view(index))
            .collect()
    }

    /// Runs the model into these tensors, which must have the outputs' types and shapes. Nothing is copied.
    pub fn run_into(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [Tensor],
    ) -> Result<(), RuntimeError> {
        if outputs.len() != self.outputs.len() {
            return Err(arity("outputs", self.outputs.len(), outputs.len()));
        }
        let mut result = Ok(());
        for (index, tensor) in outputs.iter_mut().enumerate() {
            let mut shape = dims(tensor.shape());
            let data = tensor.bytes_mut().as_mut_ptr();
            let bound = dl_tensor(data.cast(), tensor.dtype(), &mut shape, None);
            // SAFETY: the shape is copied; the memory is borrowed until it is unbound below.
            let number = self.numbers[index];
            let code = unsafe { (self.api().bind_output)(self.inner.raw, number, &bound) };
            result = result.and(self.checked(code));
        }
        let result = result.and_then(|()| self.execute(&all(inputs)));
        for index in 0..outputs.len() {
            // SAFETY: as above.
            unsafe { (self.api().bind_output)(self.inner.raw, self.numbers[index], ptr::null()) };
        }
        result
    }

    /// The shapes of the outputs for inputs of these shapes, without a run; `None` where it depends on data.
    pub fn output_shapes(
        &mut self,
        inputs: &[TensorView<'_>],
    ) -> Result<Vec<Option<Vec<usize>>>, RuntimeError> {
        self.with_inputs(&all(inputs), |context| {
            // SAFETY: the context lives; the inputs are borrowed through the call.
            let result =
                context.checked(unsafe { (context.api().query_outputs)(context.inner.raw) });
            context.sound(result)
        })?;
        Ok(self
            .numbers
            .iter()
            .map(|number| {
                // SAFETY: a query has just succeeded, so each output has a view.
                unsafe {
                    let view = (self.api().output)(self.inner.raw, *number);
                    (!view.is_null())
                        .then(|| &*view)
                        .filter(|view| view.ndim >= 0)
                        .map(|view| shape_of(view))
                }
            })
            .collect())
    }

    /// What gives tensors cannot run a model that makes something else.
    fn outputs_are_tensors(&self) -> Result<(), RuntimeError> {
        match self.outputs.iter().find(|info| !info.containers.is_empty()) {
            None => Ok(()),
            Some(info) => Err(RuntimeError::plain(
                ErrorCode::Argument,
                format!(
                    "output `{}` is no tensor but a container (hint: run with `run_values`)",
                    info.name
                ),
            )),
        }
    }

    fn api(&self) -> &Api {
        // SAFETY: the table lives as long as the code.
        unsafe { &*self.inner.api }
    }

    fn execute(&mut self, inputs: &[Option<&TensorView<'_>>]) -> Result<(), RuntimeError> {
        self.with_inputs(inputs, |context| context.run_set())
    }

    /// Runs with the inputs that are set, whose data the caller keeps through the call.
    fn run_set(&mut self) -> Result<(), RuntimeError> {
        // SAFETY: the context lives; the inputs are borrowed through the call.
        let result = self.checked(unsafe { (self.api().run)(self.inner.raw) });
        self.sound(result)
    }

    /// The result of a call that has read files in place, unless one of them shrank: whatever else went wrong came of
    /// the zeros.
    fn sound(&self, result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
        match self.code.as_ref().and_then(|code| code.lost_file()) {
            Some(name) => Err(crate::guard::shrank(&name)),
            None => result,
        }
    }

    /// Sets the inputs, calls `body`, and takes the inputs back.
    fn with_inputs(
        &mut self,
        inputs: &[Option<&TensorView<'_>>],
        body: impl FnOnce(&mut Self) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        if inputs.len() != self.inputs.len() {
            return Err(arity("inputs", self.inputs.len(), inputs.len()));
        }
        let mut strings = Vec::new();
        let mut result = Ok(());
        for (index, input) in inputs.iter().enumerate() {
            let Some(input) = input else {
                if self.states.iter().any(|state| state.input == index) {
                    continue;
                }
                // SAFETY: NULL takes back what was set before.
                let code =
                    unsafe { (self.api().set_input)(self.inner.raw, index as i32, ptr::null()) };
                result = result.and(self.checked(code));
                continue;
            };
            let data = match input.data {
                ViewData::Bytes(bytes) => bytes.as_ptr().cast::<c_void>().cast_mut(),
                ViewData::Strings(elements) => {
                    strings.push(Box::new(CStrings::new(elements)));
                    strings.last().map_or(ptr::null_mut(), |each| each.raw())
                }
            };
            let mut shape = dims(&input.shape);
            let mut strides: Option<Vec<i64>> = input
                .strides
                .as_ref()
                .map(|strides| strides.iter().map(|&stride| stride as i64).collect());
            let tensor = dl_tensor(data, input.dtype, &mut shape, strides.as_mut());
            // SAFETY: the shape is copied; the data is borrowed until the inputs are taken back below.
            let code = unsafe { (self.api().set_input)(self.inner.raw, index as i32, &tensor) };
            result = result.and(self.checked(code));
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| body(self));
        // The context keeps the pointers until the next call sets others, and reads none before that.
        drop(strings);
        result
    }

    /// The output of the last run, which succeeded.
    fn output_view(&self, index: usize) -> Result<OutputView<'_>, RuntimeError> {
        let (Some(info), Some(number)) = (self.outputs.get(index), self.numbers.get(index)) else {
            return Err(arity("outputs", self.outputs.len(), index));
        };
        self.view_of(*number, info.dtype)
    }

    /// The output with this number among all outputs, after a run that succeeded.
    fn view_of(&self, number: i32, dtype: DType) -> Result<OutputView<'_>, RuntimeError> {
        // SAFETY: if the last run has succeeded, the view is valid until the next call, which needs `&mut self`.
        unsafe {
            let view = (self.api().output)(self.inner.raw, number);
            if view.is_null() || (*view).ndim < 0 || (*view).data.is_null() {
                return Err(RuntimeError::plain(
                    ErrorCode::Internal,
                    format!("output {number} was not made"),
                ));
            }
            let shape = shape_of(&*view);
            let count = crate::tensor::count(&shape).unwrap_or(0);
            let strides: Option<Vec<isize>> = (!(*view).strides.is_null()).then(|| {
                let stride = |axis| *(*view).strides.add(axis) as isize;
                (0..shape.len()).map(stride).collect()
            });
            let data = if dtype == DType::String {
                OutputData::Strings(read_strings((*view).data, count)?)
            } else {
                // A strided view reaches from its first element to its last.
                let elements = match (&strides, count) {
                    (Some(strides), 1..) => {
                        let steps = strides.iter().zip(&shape);
                        1 + steps.map(|(s, d)| s * (d - 1) as isize).sum::<isize>() as usize
                    }
                    _ => count,
                };
                OutputData::Bytes(std::slice::from_raw_parts(
                    (*view).data.cast::<u8>(),
                    elements * dtype.bytes(),
                ))
            };
            Ok(OutputView {
                dtype,
                shape,
                strides,
                data,
            })
        }
    }

    /// The error of a call that answered `code`.
    fn checked(&self, code: i32) -> Result<(), RuntimeError> {
        if code == abi::code::OK {
            return Ok(());
        }
        let mut error = ffi::Error {
            code: 0,
            node: -1,
            a: 0,
            b: 0,
            node_name: ptr::null(),
            message: ptr::null(),
        };
        // SAFETY: the strings are valid until the next call, and are copied here.
        unsafe {
            (self.api().last_error)(self.inner.raw, &mut error);
            let copy = |text: *const c_char| {
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            Err(RuntimeError::Model {
                code: ErrorCode::from_raw(code),
                node: copy(error.node_name),
                message: copy(error.message)
                    .filter(|text| !text.is_empty())
                    .unwrap_or_else(|| format!("error {code}")),
                numbers: (error.a, error.b),
            })
        }
    }
}

enum OutputData<'a> {
    Bytes(&'a [u8]),
    Strings(Vec<String>),
}

/// An output in the context's memory.
pub struct OutputView<'a> {
    dtype: DType,
    shape: Vec<usize>,
    /// In elements; `None`: contiguous.
    strides: Option<Vec<isize>>,
    data: OutputData<'a>,
}

impl OutputView<'_> {
    /// It, as a view.
    pub fn view(&self) -> TensorView<'_> {
        let data = match &self.data {
            OutputData::Bytes(bytes) => ViewData::Bytes(bytes),
            OutputData::Strings(strings) => ViewData::Strings(strings),
        };
        TensorView {
            dtype: self.dtype,
            shape: self.shape.clone(),
            strides: self.strides.clone(),
            data,
        }
    }

    /// A copy.
    pub fn to_tensor(&self) -> Result<Tensor, RuntimeError> {
        self.view().to_tensor()
    }
}

fn all<'a, 'v>(inputs: &'a [TensorView<'v>]) -> Vec<Option<&'a TensorView<'v>>> {
    inputs.iter().map(Some).collect()
}

fn arity(role: &'static str, expected: usize, found: usize) -> RuntimeError {
    RuntimeError::Arity {
        role,
        expected,
        found,
    }
}

fn nanoseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_nanos())
        .unwrap_or(i64::MAX / 4)
        .clamp(1, i64::MAX / 4)
}
