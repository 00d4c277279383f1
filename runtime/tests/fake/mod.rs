//! A model written by hand against `docs/abi.md`, as generated code would be.
//!
//! ```text
//! inputs   x: f32[n, 3]   y: f32[n, 3]   rows: i64[k]        weights  w: f32[3]
//! segment 0   t = x + y (buffer 0)   sum = 2 * t + w (output 0)   picked = sum[rows] (output 1)
//! segment 1   positive = the elements of sum that are > 0 (output 2, its size known from data)
//! segment 2   a region, run by segment 1: adds 0 to a buffer of its own
//! ```
#![allow(dead_code)]

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use lapidary_runtime::abi::{self, fault};
use lapidary_runtime::ffi::*;
use lapidary_runtime::{Context, Options, RuntimeError, Tensor};

pub const COST: i64 = 1_000_000;

/// The head of `lap_rt`, typed.
#[repr(C)]
pub struct Rt {
    pub api: *const c_void,
    pub parallel_for: unsafe extern "C" fn(
        *mut ContextHead,
        Kernel,
        *const *mut c_void,
        *const i64,
        i64,
        i64,
        i32,
        i64,
    ) -> i32,
    pub call_library: unsafe extern "C" fn(
        *mut ContextHead,
        LibraryFn,
        *const *const LapTensor,
        i32,
        *const *mut LapTensor,
        i32,
        *const c_void,
        i32,
    ) -> i32,
    pub alloc_dynamic: unsafe extern "C" fn(*mut ContextHead, i32, i64) -> *mut c_void,
    pub fail: unsafe extern "C" fn(*mut ContextHead, i32, i32, *const c_char, i64, i64) -> i32,
    pub check: unsafe extern "C" fn(*mut ContextHead, i32) -> i32,
}

unsafe extern "C" {
    fn lap_output_alloc(
        ctx: *mut ContextHead,
        out: *mut LapTensor,
        rank: i32,
        dims: *const i64,
        node: i32,
    ) -> i32;
    fn lap_temp(ctx: *mut ContextHead, bytes: i64, node: i32) -> *mut c_void;
}

pub unsafe fn rt<'a>(ctx: *mut ContextHead) -> &'a Rt {
    unsafe { &*(*ctx).rt.cast::<Rt>() }
}

unsafe fn floats<'a>(
    buffers: *const *mut c_void,
    index: usize,
    range: std::ops::Range<i64>,
) -> &'a mut [f32] {
    unsafe {
        let data = (*buffers.add(index)).cast::<f32>();
        std::slice::from_raw_parts_mut(
            data.add(range.start as usize),
            (range.end - range.start) as usize,
        )
    }
}

unsafe extern "C" fn add(
    b: *const *mut c_void,
    _: *const i64,
    begin: i64,
    end: i64,
    worker: *mut Worker,
) {
    unsafe {
        let range = 3 * begin..3 * end;
        let (x, y, t) = (
            floats(b, 0, range.clone()),
            floats(b, 1, range.clone()),
            floats(b, 2, range),
        );
        // Through the scratch, to see that it is there.
        assert!((*worker).scratch_bytes >= 4 && (*worker).scratch.addr().is_multiple_of(64));
        let scratch = (*worker).scratch.cast::<f32>();
        for i in 0..t.len() {
            *scratch = x[i] + y[i];
            t[i] = *scratch;
        }
    }
}

unsafe extern "C" fn affine(
    b: *const *mut c_void,
    _: *const i64,
    begin: i64,
    end: i64,
    _: *mut Worker,
) {
    unsafe {
        let range = 3 * begin..3 * end;
        let (t, w, sum) = (
            floats(b, 0, range.clone()),
            floats(b, 1, 0..3),
            floats(b, 2, range),
        );
        for i in 0..t.len() {
            sum[i] = 2.0 * t[i] + w[i % 3];
        }
    }
}

unsafe extern "C" fn pick(
    b: *const *mut c_void,
    dims: *const i64,
    begin: i64,
    end: i64,
    worker: *mut Worker,
) {
    unsafe {
        let n = *dims;
        for task in begin..end {
            let index = *(*b.add(1)).cast::<i64>().add(task as usize);
            if index < -n || index >= n {
                if (*worker).fault.kind == fault::NONE {
                    (*worker).fault = Fault {
                        kind: fault::INDEX,
                        operand: 1,
                        value: index,
                        limit: n,
                    };
                }
                continue;
            }
            let row = if index < 0 { index + n } else { index };
            floats(b, 2, 3 * task..3 * task + 3).copy_from_slice(floats(
                b,
                0,
                3 * row..3 * row + 3,
            ));
        }
    }
}

unsafe extern "C" fn dims_0(ctx: *mut ContextHead) -> i32 {
    unsafe {
        let c = &mut *ctx;
        let (n, k) = (*c.dims, *c.dims.add(1));
        *c.dims.add(2) = n * 3;
        if n == 13 {
            return (rt(ctx).fail)(
                ctx,
                abi::code::CHECK,
                0,
                c"n is {a}, which brings {b} years of bad luck".as_ptr(),
                n,
                7,
            );
        }
        for (buffer, bytes) in [(0, n * 12), (1, n * 12), (2, k * 12)] {
            *c.sizes.add(buffer) = bytes;
        }
        for (output, rows) in [(0, n), (1, k)] {
            let output = &mut *c.outputs.add(output);
            output.rank = 2;
            output.dims[..2].copy_from_slice(&[rows, 3]);
        }
        0
    }
}

unsafe extern "C" fn run_0(ctx: *mut ContextHead) -> i32 {
    unsafe {
        let c = &mut *ctx;
        let data = |index: usize| (*c.inputs.add(index)).data;
        let buffer = |index: usize| *c.buffers.add(index);
        let (n, k) = (*c.dims, *c.dims.add(1));
        let calls: [(Kernel, [*mut c_void; 3], i64); 3] = [
            (add, [data(0), data(1), buffer(0)], n),
            (
                affine,
                [buffer(0), c.weights.cast_mut().cast(), buffer(1)],
                n,
            ),
            (pick, [buffer(1), data(2), buffer(2)], k),
        ];
        for (node, (kernel, buffers, tasks)) in calls.iter().enumerate() {
            let code = (rt(ctx).parallel_for)(
                ctx,
                *kernel,
                buffers.as_ptr(),
                c.dims,
                *tasks,
                4,
                node as i32,
                COST,
            );
            if code != 0 {
                return code;
            }
        }
        0
    }
}

unsafe extern "C" fn positives(
    ctx: *mut ContextHead,
    input: *const *const LapTensor,
    _: i32,
    output: *const *mut LapTensor,
    _: i32,
    _: *const c_void,
    node: i32,
) -> i32 {
    unsafe {
        let x = &**input;
        assert_eq!(x.strides[..2], [3, 1]);
        let count = (x.dims[0] * x.dims[1]) as usize;
        let x = std::slice::from_raw_parts(x.data.cast::<f32>(), count);
        let found = lap_temp(ctx, 4 * count as i64, node).cast::<f32>();
        if found.is_null() {
            return abi::code::MEMORY;
        }
        let mut n = 0;
        for &value in x.iter().filter(|&&value| value > 0.0) {
            *found.add(n) = value;
            n += 1;
        }
        let code = lap_output_alloc(ctx, *output, 1, &(n as i64), node);
        if code == 0 {
            ptr::copy_nonoverlapping(found, (**output).data.cast(), n);
        }
        code
    }
}

unsafe extern "C" fn dims_1(ctx: *mut ContextHead) -> i32 {
    unsafe { *(*ctx).sizes.add(3) = abi::SIZE_DYNAMIC };
    0
}

unsafe extern "C" fn run_1(ctx: *mut ContextHead) -> i32 {
    unsafe {
        let c = &mut *ctx;
        let desc = c.descs;
        (*desc).dtype = 1;
        (*desc).rank = -1;
        (*desc).data = ptr::null_mut();
        (*desc).buffer = 3;
        (rt(ctx).call_library)(
            ctx,
            positives,
            &c.outputs.cast_const(),
            1,
            &desc,
            1,
            ptr::null(),
            3,
        )
    }
}

fn leak<T>(items: Vec<T>) -> *const T {
    items.leak().as_ptr()
}

fn value(
    name: &'static std::ffi::CStr,
    dtype: i32,
    dims: &[i64],
    names: &[*const c_char],
) -> ValueInfo {
    ValueInfo {
        name: name.as_ptr(),
        dtype,
        rank: dims.len() as i32,
        dims: leak(dims.to_vec()),
        dim_names: leak(names.to_vec()),
        containers: ptr::null(),
    }
}

#[repr(align(64))]
pub struct Weights(pub [f32; 3]);

pub fn table() -> ModelTable {
    let (n, k, none) = (c"n".as_ptr(), c"k".as_ptr(), ptr::null());
    let bind = |input, axis, fixed, slot| DimBind {
        input,
        axis,
        fixed,
        slot,
        reserved: 0,
    };
    let segment = |dims_fn: SegmentFn, run_fn: SegmentFn| Segment {
        dims_fn: Some(dims_fn),
        run_fn: Some(run_fn),
        reserved: 0,
    };
    let buffer = |segment, first, last, output| BufferInfo {
        segment,
        first,
        last,
        output,
    };
    ModelTable {
        head: ModelHead {
            abi_version: abi::ABI_VERSION,
            table_bytes: abi::MODEL_TABLE_BYTES as u32,
            cpu_features: 0,
            api: abi::api_table(),
            name: c"fake".as_ptr(),
            n_inputs: 3,
            n_outputs: 3,
            inputs: leak(vec![
                value(c"x", 1, &[-1, 3], &[n, none]),
                value(c"y", 1, &[-1, 3], &[n, none]),
                value(c"rows", 7, &[-1], &[k]),
            ]),
            outputs: leak(vec![
                value(c"sum", 1, &[-1, 3], &[n, none]),
                value(c"picked", 1, &[-1, 3], &[k, none]),
                value(c"positive", 1, &[-1], &[none]),
            ]),
        },
        n_dims: 3,
        n_dim_binds: 5,
        dim_binds: leak(vec![
            bind(0, 0, -1, 0),
            bind(0, 1, 3, -1),
            bind(1, 0, -1, 0),
            bind(1, 1, 3, -1),
            bind(2, 0, -1, 1),
        ]),
        n_segments: 2,
        n_buffers: 4,
        segments: leak(vec![segment(dims_0, run_0), segment(dims_1, run_1)]),
        buffers: leak(vec![
            buffer(0, 0, 1, -1),
            buffer(0, 1, abi::LIVE_TO_END, 0),
            buffer(0, 2, 2, 1),
            buffer(1, 0, 0, 2),
        ]),
        n_descs: 1,
        n_nodes: 4,
        node_names: leak(vec![
            c"/add".as_ptr(),
            c"/affine".as_ptr(),
            c"/pick".as_ptr(),
            c"/positives".as_ptr(),
        ]),
        weights: Box::leak(Box::new(Weights([1.0, 2.0, 3.0])))
            .0
            .as_ptr()
            .cast(),
        weights_file: ptr::null(),
        weights_bytes: 12,
        weights_hash: 0,
        defaults: std::ptr::null(),
        n_defaults: 0,
        weights_offset: 0,
        states: ptr::null(),
        n_states: 0,
        n_variants: 0,
        variants: ptr::null(),
        levels: 0b111,
    }
}

pub fn context_of(table: ModelTable, options: &Options) -> Result<Context, RuntimeError> {
    // SAFETY: everything the table points to is leaked.
    unsafe { Context::from_table(Box::leak(Box::new(table)), Arc::new(()), options) }
}

pub fn context(threads: usize) -> Context {
    context_of(
        table(),
        &Options {
            threads,
            ..Options::default()
        },
    )
    .unwrap()
}

/// Inputs of n rows and k picks, and the outputs that they give.
pub fn example(n: usize, k: usize, seed: usize) -> (Vec<Tensor>, Vec<Tensor>) {
    let x: Vec<f32> = (0..3 * n)
        .map(|i| ((i * 7 + seed) % 23) as f32 - 11.0)
        .collect();
    let y: Vec<f32> = (0..3 * n)
        .map(|i| ((i * 5 + seed) % 17) as f32 - 8.0)
        .collect();
    let rows: Vec<i64> = (0..k)
        .map(|i| ((i * 3 + seed) % (2 * n)) as i64 - n as i64)
        .collect();
    let sum: Vec<f32> = (0..3 * n)
        .map(|i| 2.0 * (x[i] + y[i]) + (i % 3) as f32 + 1.0)
        .collect();
    let picked: Vec<f32> = rows
        .iter()
        .flat_map(|&row| {
            let row = if row < 0 { row + n as i64 } else { row } as usize;
            sum[3 * row..3 * row + 3].to_vec()
        })
        .collect();
    let positive: Vec<f32> = sum.iter().copied().filter(|&value| value > 0.0).collect();
    (
        vec![
            Tensor::from_slice(&[n, 3], &x).unwrap(),
            Tensor::from_slice(&[n, 3], &y).unwrap(),
            Tensor::from_slice(&[k], &rows).unwrap(),
        ],
        vec![
            Tensor::from_slice(&[n, 3], &sum).unwrap(),
            Tensor::from_slice(&[k, 3], &picked).unwrap(),
            Tensor::from_slice(&[positive.len()], &positive).unwrap(),
        ],
    )
}
