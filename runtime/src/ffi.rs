//! The C structs of `include/lapidary.h` and `c/lap_internal.h`, mirrored.
//!
//! Only what the safe wrappers and the compiler's driver need. Layouts are compared with C by a test.

#![allow(missing_docs)]

use std::ffi::{c_char, c_void};
use std::sync::atomic::AtomicI32;

pub const MAX_RANK: usize = 16;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    pub kind: i32,
    pub operand: i32,
    pub value: i64,
    pub limit: i64,
}

#[repr(C)]
pub struct Worker {
    pub scratch: *mut u8,
    pub scratch_bytes: i64,
    pub fault: Fault,
    pub index: i32,
    pub level: i32,
    pub rt: *const c_void,
    pub cancel: *const AtomicI32,
}

/// The kernel ABI.
pub type Kernel = unsafe extern "C" fn(*const *mut c_void, *const i64, i64, i64, *mut Worker);

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LapTensor {
    pub data: *mut c_void,
    pub dtype: i32,
    pub rank: i32,
    pub dims: [i64; MAX_RANK],
    pub strides: [i64; MAX_RANK],
    pub buffer: i32,
    pub kind: i32,
}

/// The library kernel ABI: context, inputs, outputs, attributes, node.
pub type LibraryFn = unsafe extern "C" fn(
    *mut ContextHead,
    *const *const LapTensor,
    i32,
    *const *mut LapTensor,
    i32,
    *const c_void,
    i32,
) -> i32;

#[repr(C)]
pub struct ContextHead {
    pub rt: *const c_void,
    pub dims: *mut i64,
    pub sizes: *mut i64,
    pub buffers: *mut *mut c_void,
    pub weights: *const u8,
    pub inputs: *mut LapTensor,
    pub outputs: *mut LapTensor,
    pub descs: *mut LapTensor,
    pub cancel: AtomicI32,
    pub level: i32,
    pub model: *const ModelTable,
}

/// `dims_fn` and `run_fn` of a segment.
pub type SegmentFn = unsafe extern "C" fn(*mut ContextHead) -> i32;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ValueInfo {
    pub name: *const c_char,
    pub dtype: i32,
    pub rank: i32,
    pub dims: *const i64,
    pub dim_names: *const *const c_char,
    pub containers: *const i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ModelHead {
    pub abi_version: u32,
    pub table_bytes: u32,
    pub cpu_features: u64,
    pub api: *const c_void,
    pub name: *const c_char,
    pub n_inputs: i32,
    pub n_outputs: i32,
    pub inputs: *const ValueInfo,
    pub outputs: *const ValueInfo,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DimBind {
    pub input: i32,
    pub axis: i32,
    pub fixed: i64,
    pub slot: i32,
    pub reserved: i32,
}

/// What an input is if it is not set.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Default {
    pub input: i32,
    pub rank: i32,
    pub dims: *const i64,
    pub data: *const c_void,
    pub offset: i64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub dims_fn: Option<SegmentFn>,
    pub run_fn: Option<SegmentFn>,
    pub reserved: i64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferInfo {
    pub segment: i32,
    pub first: i32,
    pub last: i32,
    pub output: i32,
}

/// An output that is an input of the next run.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub input: i32,
    pub output: i32,
    pub axis: i32,
    pub store: i32,
    pub capacity: i32,
    pub reserved: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ModelTable {
    pub head: ModelHead,
    pub n_dims: i32,
    pub n_dim_binds: i32,
    pub dim_binds: *const DimBind,
    pub n_segments: i32,
    pub n_buffers: i32,
    pub segments: *const Segment,
    pub buffers: *const BufferInfo,
    pub n_descs: i32,
    pub n_nodes: i32,
    pub node_names: *const *const c_char,
    pub weights: *const u8,
    pub weights_file: *const c_char,
    pub weights_bytes: i64,
    pub weights_hash: u64,
    pub defaults: *const Default,
    pub n_defaults: i64,
    pub weights_offset: i64,
    pub states: *const State,
    pub n_states: i32,
    pub n_variants: i32,
    pub variants: *const *const ModelTable,
    pub levels: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlType {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

/// DLPack's `DLTensor`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DlTensor {
    pub data: *mut c_void,
    pub device_type: i32,
    pub device_id: i32,
    pub ndim: i32,
    pub dtype: DlType,
    pub shape: *mut i64,
    pub strides: *mut i64,
    pub byte_offset: u64,
}

pub type TaskFn = unsafe extern "C" fn(*mut c_void, i64, i64, i32);
pub type ParallelForFn = unsafe extern "C" fn(*mut c_void, TaskFn, *mut c_void, i64, i32);

pub type ReadWeightsFn = unsafe extern "C" fn(*mut c_void, i64, *mut c_void, i64) -> i32;

#[repr(C)]
pub struct Options {
    pub struct_bytes: u32,
    pub threads: i32,
    pub pool: *mut Pool,
    pub parallel_for: Option<ParallelForFn>,
    pub host: *mut c_void,
    pub host_workers: i32,
    pub flags: u32,
    pub memory_limit: i64,
    pub timeout_ns: i64,
    pub weights_path: *const c_char,
    pub error_text: *mut c_char,
    pub error_text_bytes: usize,
    pub read_weights: Option<ReadWeightsFn>,
    pub weights_host: *mut c_void,
    pub weights: *const c_void,
    pub weights_bytes: usize,
    pub cpu_features: u64,
}

#[repr(C)]
pub struct Error {
    pub code: i32,
    pub node: i32,
    pub a: i64,
    pub b: i64,
    pub node_name: *const c_char,
    pub message: *const c_char,
}

/// An opaque thread pool.
#[repr(C)]
pub struct Pool {
    _private: [u8; 0],
}

/// The public functions, as a model carries them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Api {
    pub abi_version: u32,
    pub api_bytes: u32,
    pub context_create:
        unsafe extern "C" fn(*const ModelHead, *const Options, *mut *mut ContextHead) -> i32,
    pub context_destroy: unsafe extern "C" fn(*mut ContextHead),
    pub pool_create: unsafe extern "C" fn(i32, *mut *mut Pool) -> i32,
    pub pool_destroy: unsafe extern "C" fn(*mut Pool),
    pub set_input: unsafe extern "C" fn(*mut ContextHead, i32, *const DlTensor) -> i32,
    pub bind_output: unsafe extern "C" fn(*mut ContextHead, i32, *const DlTensor) -> i32,
    pub query_outputs: unsafe extern "C" fn(*mut ContextHead) -> i32,
    pub run: unsafe extern "C" fn(*mut ContextHead) -> i32,
    pub output: unsafe extern "C" fn(*mut ContextHead, i32) -> *const DlTensor,
    pub last_error: unsafe extern "C" fn(*mut ContextHead, *mut Error),
    pub set_cancel: unsafe extern "C" fn(*mut ContextHead, i32) -> i32,
    pub set_timeout: unsafe extern "C" fn(*mut ContextHead, i64) -> i32,
    pub set_memory_limit: unsafe extern "C" fn(*mut ContextHead, i64) -> i32,
    pub memory_used: unsafe extern "C" fn(*mut ContextHead) -> i64,
    pub cpu_features: unsafe extern "C" fn() -> u64,
    pub set_value: unsafe extern "C" fn(*mut ContextHead, i32, *const Value) -> i32,
    pub output_value: unsafe extern "C" fn(*mut ContextHead, i32) -> *const Value,
    pub reset_states: unsafe extern "C" fn(*mut ContextHead) -> i32,
    pub variant: unsafe extern "C" fn(*mut ContextHead) -> *const c_char,
    pub cpu_level: unsafe extern "C" fn(*mut ContextHead) -> i32,
}

/// A value of any kind; `at` is a `DlTensor` or the values inside.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Value {
    pub kind: i32,
    pub present: i32,
    pub length: i64,
    pub at: *const c_void,
}

/// An entry of the table of guarded mappings (`guard.h`).
#[repr(C)]
pub struct Guard {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct RegistryEntry {
    pub name: *const c_char,
    pub address: *const c_void,
}

#[repr(C)]
pub struct LayoutEntry {
    pub name: *const c_char,
    pub value: i64,
}

unsafe extern "C" {
    #[link_name = env!("LAPIDARY_API_SYMBOL")]
    pub static lap_api_table: Api;
    pub static lap_runtime_table: [*const c_void; 0];
    /// Ends with a NULL name.
    pub static lap_registry: [RegistryEntry; 0];
    /// Ends with a NULL name.
    pub static lap_layout: [LayoutEntry; 0];
    pub fn lap_cpu_features() -> u64;
    /// Guards a mapping of a file; NULL if it cannot be.
    pub fn lap_guard_add(memory: *const c_void, bytes: usize, name: *const c_char) -> *mut Guard;
    pub fn lap_guard_remove(guard: *mut Guard);
    /// The guard of the mapping that holds these bytes, or NULL; its name goes into `name`.
    pub fn lap_guard_find(
        memory: *const c_void,
        bytes: usize,
        name: *mut c_char,
        name_bytes: usize,
    ) -> *mut Guard;
    pub fn lap_guard_lost(guard: *const Guard) -> i32;
    pub fn lap_hash64(data: *const c_void, bytes: usize) -> u64;
    /// Plans an arena: offsets into `offsets` for buffers of `sizes` with lives `first..=last`; returns the
    /// arena's bytes, -1 on overflow or lack of memory.
    pub fn lap_plan(
        n: i32,
        first: *const i32,
        last: *const i32,
        sizes: *const i64,
        offsets: *mut i64,
    ) -> i64;
}
