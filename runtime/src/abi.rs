//! The numbers that generated code needs: offsets, sizes and codes of `c/lap_internal.h`.
//!
//! A code generator reads and writes the runtime's structs by these constants and knows nothing else of
//! them. They come from the mirrors in [`crate::ffi`]; a test compares each with what the C compiler says.
//! Functions at the end give the addresses that code in memory (JIT) is built against.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};

use crate::ffi;

/// The ABI version that this runtime reads; the same as `LAPIDARY_ABI_VERSION` in C.
pub const ABI_VERSION: u32 = 2;
/// The greatest rank of a tensor descriptor.
pub const MAX_RANK: usize = ffi::MAX_RANK;
/// Alignment of buffers, scratch memory and weights.
pub const ALIGN: usize = 64;
/// `last` of a buffer that later segments read.
pub const LIVE_TO_END: i32 = i32::MAX;
/// Size of a buffer that `alloc_dynamic` gives.
pub const SIZE_DYNAMIC: i64 = -1;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident = $type:ty, $($field:ident).+;)*) => {
        $($(#[$doc])* pub const $name: i32 = offset_of!($type, $($field).+) as i32;)*
    };
}

offsets! {
    /// `lap_worker.scratch`
    WORKER_SCRATCH = ffi::Worker, scratch;
    /// `lap_worker.scratch_bytes`
    WORKER_SCRATCH_BYTES = ffi::Worker, scratch_bytes;
    /// `lap_worker.fault.kind`
    WORKER_FAULT_KIND = ffi::Worker, fault.kind;
    /// `lap_worker.fault.operand`
    WORKER_FAULT_OPERAND = ffi::Worker, fault.operand;
    /// `lap_worker.fault.value`
    WORKER_FAULT_VALUE = ffi::Worker, fault.value;
    /// `lap_worker.fault.limit`
    WORKER_FAULT_LIMIT = ffi::Worker, fault.limit;
    /// `lap_worker.index`
    WORKER_INDEX = ffi::Worker, index;
    /// `lap_worker.level`
    WORKER_LEVEL = ffi::Worker, level;
    /// `lap_worker.rt`
    WORKER_RT = ffi::Worker, rt;
    /// `lap_worker.cancel`: a pointer to the flag
    WORKER_CANCEL = ffi::Worker, cancel;
    /// `lap_tensor.data`
    TENSOR_DATA = ffi::LapTensor, data;
    /// `lap_tensor.dtype`
    TENSOR_DTYPE = ffi::LapTensor, dtype;
    /// `lap_tensor.rank`
    TENSOR_RANK = ffi::LapTensor, rank;
    /// `lap_tensor.dims`
    TENSOR_DIMS = ffi::LapTensor, dims;
    /// `lap_tensor.strides`
    TENSOR_STRIDES = ffi::LapTensor, strides;
    /// `lap_tensor.buffer`
    TENSOR_BUFFER = ffi::LapTensor, buffer;
    /// `lap_tensor.kind`
    TENSOR_KIND = ffi::LapTensor, kind;
    /// `lap_context.rt`
    CTX_RT = ffi::ContextHead, rt;
    /// `lap_context.dims`
    CTX_DIMS = ffi::ContextHead, dims;
    /// `lap_context.sizes`
    CTX_SIZES = ffi::ContextHead, sizes;
    /// `lap_context.buffers`
    CTX_BUFFERS = ffi::ContextHead, buffers;
    /// `lap_context.weights`
    CTX_WEIGHTS = ffi::ContextHead, weights;
    /// `lap_context.inputs`
    CTX_INPUTS = ffi::ContextHead, inputs;
    /// `lap_context.outputs`
    CTX_OUTPUTS = ffi::ContextHead, outputs;
    /// `lap_context.descs`
    CTX_DESCS = ffi::ContextHead, descs;
    /// `lap_context.cancel`: the flag itself, 32 bits
    CTX_CANCEL = ffi::ContextHead, cancel;
    /// `lap_context.level`: the level of instructions, 32 bits
    CTX_LEVEL = ffi::ContextHead, level;
    /// `lap_context.model`
    CTX_MODEL = ffi::ContextHead, model;
}

/// Size of a `lap_tensor`: the step in `inputs`, `outputs` and `descs`.
pub const TENSOR_BYTES: i32 = size_of::<ffi::LapTensor>() as i32;
/// Size of a `lap_model_table`.
pub const MODEL_TABLE_BYTES: usize = size_of::<ffi::ModelTable>();

macro_rules! rt_table {
    ($($name:ident $field:literal;)*) => {
        rt_table!(@ 0; $($name $field;)*);
        /// The names of the function table's entries in order: entry `i` is at byte `8 * i`.
        pub const RT_NAMES: &[&str] = &[$($field),*];
    };
    (@ $n:expr; $name:ident $field:literal; $($rest:tt)*) => {
        #[doc = concat!("Offset of `", $field, "` in the function table (`lap_rt`).")]
        pub const $name: i32 = 8 * ($n);
        rt_table!(@ $n + 1; $($rest)*);
    };
    (@ $n:expr;) => {
        /// Size of the function table.
        pub const RT_BYTES: i32 = 8 * ($n);
    };
}

rt_table! {
    RT_API "api";
    RT_PARALLEL_FOR "parallel_for";
    RT_CALL_LIBRARY "call_library";
    RT_ALLOC_DYNAMIC "alloc_dynamic";
    RT_FAIL "fail";
    RT_CHECK "check";
    RT_RESERVED_6 "reserved_6";
    RT_MEMCPY "memcpy";
    RT_MEMMOVE "memmove";
    RT_MEMSET "memset";
    RT_RESERVED_0 "reserved[0]";
    RT_RESERVED_1 "reserved[1]";
    RT_RESERVED_2 "reserved[2]";
    RT_OUTPUT_ALLOC "output_alloc";
    RT_OUTPUT_ALLOC_STRINGS "output_alloc_strings";
    RT_TEMP "temp";
    RT_EXP "exp";
    RT_LOG "log";
    RT_SIN "sin";
    RT_COS "cos";
    RT_TAN "tan";
    RT_ASIN "asin";
    RT_ACOS "acos";
    RT_ATAN "atan";
    RT_SINH "sinh";
    RT_COSH "cosh";
    RT_TANH "tanh";
    RT_ASINH "asinh";
    RT_ACOSH "acosh";
    RT_ATANH "atanh";
    RT_ERF "erf";
    RT_EXP2 "exp2";
    RT_LOG2 "log2";
    RT_EXPM1 "expm1";
    RT_LOG1P "log1p";
    RT_FLOOR "floor";
    RT_CEIL "ceil";
    RT_TRUNC "trunc";
    RT_RINT "rint";
    RT_SQRT "sqrt";
    RT_CBRT "cbrt";
    RT_LGAMMA "lgamma";
    RT_POW "pow";
    RT_FMOD "fmod";
    RT_ATAN2 "atan2";
    RT_EXPF "expf";
    RT_LOGF "logf";
    RT_SINF "sinf";
    RT_COSF "cosf";
    RT_TANF "tanf";
    RT_ASINF "asinf";
    RT_ACOSF "acosf";
    RT_ATANF "atanf";
    RT_SINHF "sinhf";
    RT_COSHF "coshf";
    RT_TANHF "tanhf";
    RT_ASINHF "asinhf";
    RT_ACOSHF "acoshf";
    RT_ATANHF "atanhf";
    RT_ERFF "erff";
    RT_FLOORF "floorf";
    RT_CEILF "ceilf";
    RT_TRUNCF "truncf";
    RT_RINTF "rintf";
    RT_SQRTF "sqrtf";
    RT_POWF "powf";
    RT_FMODF "fmodf";
    RT_ATAN2F "atan2f";
    RT_F32_TO_F16 "f32_to_f16";
    RT_F16_TO_F32 "f16_to_f32";
    RT_F32_TO_BF16 "f32_to_bf16";
    RT_BF16_TO_F32 "bf16_to_f32";
    RT_FMA_F64 "fmaf64";
    RT_FMA_F32 "fmaf32";
}

/// What a descriptor holds (`lap_kind`).
pub mod kind {
    /// A tensor.
    pub const TENSOR: i32 = 0;
    /// A sequence.
    pub const SEQUENCE: i32 = 1;
    /// An optional.
    pub const OPTIONAL: i32 = 2;
    /// A map.
    pub const MAP: i32 = 3;
}

/// Kinds of fault that a kernel writes into its worker (`lap_fault_kind`).
pub mod fault {
    /// No fault.
    pub const NONE: i32 = 0;
    /// An index outside of `[-limit, limit)`.
    pub const INDEX: i32 = 1;
    /// A value that is not allowed.
    pub const VALUE: i32 = 2;
    /// Integer division by zero.
    pub const DIVIDE: i32 = 3;
    /// Memory could not be had.
    pub const MEMORY: i32 = 4;
    /// A dim that is not as expected.
    pub const SHAPE: i32 = 5;
}

/// Codes of functions of the interface and of generated code (`lapidary_code`).
pub mod code {
    /// Success.
    pub const OK: i32 = 0;
    /// A bad argument to a function.
    pub const ARGUMENT: i32 = 1;
    /// An input does not fit.
    pub const INPUT: i32 = 2;
    /// A bound output does not fit.
    pub const OUTPUT: i32 = 3;
    /// A check of the model failed.
    pub const CHECK: i32 = 4;
    /// An index from data is out of range.
    pub const INDEX: i32 = 5;
    /// Out of memory, or above the limit.
    pub const MEMORY: i32 = 6;
    /// Cancelled.
    pub const CANCELLED: i32 = 7;
    /// Past the deadline.
    pub const TIMEOUT: i32 = 8;
    /// The processor lacks a feature.
    pub const CPU: i32 = 9;
    /// Another ABI version.
    pub const ABI: i32 = 10;
    /// Weights file missing or foreign.
    pub const WEIGHTS: i32 = 11;
    /// Threads could not be started.
    pub const THREADS: i32 = 12;
    /// A broken promise inside.
    pub const INTERNAL: i32 = 13;
    /// The context is running.
    pub const BUSY: i32 = 14;
}

/// Processor features (`LAPIDARY_CPU_*`).
pub mod cpu {
    /// SSE3, SSSE3, SSE4.1, SSE4.2, POPCNT.
    pub const X86_V2: u64 = 1 << 0;
    /// AVX2, FMA, F16C, BMI1, BMI2.
    pub const AVX2: u64 = 1 << 1;
    /// AVX-512 F, BW, DQ, VL, CD.
    pub const AVX512: u64 = 1 << 2;
    /// AVX-512 VNNI.
    pub const AVX512_VNNI: u64 = 1 << 3;
    /// AVX-VNNI.
    pub const AVX_VNNI: u64 = 1 << 4;
    /// AVX-512 BF16.
    pub const AVX512_BF16: u64 = 1 << 5;
    /// AVX-512 FP16.
    pub const AVX512_FP16: u64 = 1 << 6;
    /// AMX tiles (granted by the operating system).
    pub const AMX_TILE: u64 = 1 << 7;
    /// AMX bf16.
    pub const AMX_BF16: u64 = 1 << 8;
    /// AMX int8.
    pub const AMX_INT8: u64 = 1 << 9;
    /// AVX-512 VBMI.
    pub const AVX512_VBMI: u64 = 1 << 10;
    /// Arm dot product.
    pub const ARM_DOTPROD: u64 = 1 << 32;
    /// Arm f16 arithmetic.
    pub const ARM_FP16: u64 = 1 << 33;
    /// Arm int8 matrix products.
    pub const ARM_I8MM: u64 = 1 << 34;
    /// Arm bf16.
    pub const ARM_BF16: u64 = 1 << 35;
    /// What every processor of the architecture has.
    pub const BASE: u64 = 1 << 62;
}

/// Names of the archive's data symbols that an object file refers to.
pub mod symbol {
    /// The public functions: goes into the table's `api`.
    /// The name says of which version the runtime is: the linker finds no other for an object.
    pub const API: &str = env!("LAPIDARY_API_SYMBOL");
    /// The function table (contexts find it by themselves; only special code needs it).
    pub const RT: &str = "lap_runtime_table";
    /// What an exported model's symbol begins with.
    pub const MODEL_PREFIX: &str = "lapidary_model_";
}

/// The address of the public function table, for tables built in memory.
pub fn api_table() -> *const c_void {
    (&raw const ffi::lap_api_table).cast()
}

/// The address of a C kernel or library kernel by its name, for code built in memory.
pub fn library_symbol(name: &str) -> Option<*const c_void> {
    // SAFETY: the registry is a constant array that ends with a NULL name.
    unsafe {
        let mut entry = &raw const ffi::lap_registry as *const ffi::RegistryEntry;
        while !(*entry).name.is_null() {
            if std::ffi::CStr::from_ptr((*entry).name).to_bytes() == name.as_bytes() {
                return Some((*entry).address);
            }
            entry = entry.add(1);
        }
    }
    None
}

/// The names of all C kernels and library kernels.
pub fn library_symbols() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: as in `library_symbol`.
    unsafe {
        let mut entry = &raw const ffi::lap_registry as *const ffi::RegistryEntry;
        while !(*entry).name.is_null() {
            names.push(
                std::ffi::CStr::from_ptr((*entry).name)
                    .to_string_lossy()
                    .into_owned(),
            );
            entry = entry.add(1);
        }
    }
    names
}

/// The features of this processor (bits of [`cpu`]).
pub fn cpu_features() -> u64 {
    // SAFETY: no arguments, no state.
    unsafe { ffi::lap_cpu_features() }
}

/// The content hash of a weights blob, as the table and the weights file carry it.
pub fn weights_hash(blob: &[u8]) -> u64 {
    // SAFETY: the pointer and the length are of one slice.
    unsafe { ffi::lap_hash64(blob.as_ptr().cast(), blob.len()) }
}

/// The 64 bytes that stand before the blob in a weights file.
pub fn weights_file_header(blob: &[u8]) -> [u8; 64] {
    let mut header = [0; 64];
    header[..8].copy_from_slice(b"LAPIDWTS");
    header[8..12].copy_from_slice(&1u32.to_le_bytes());
    header[16..24].copy_from_slice(&(blob.len() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&weights_hash(blob).to_le_bytes());
    header
}
