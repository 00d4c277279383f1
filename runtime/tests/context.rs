//! Contexts, driven through a model written by hand.

mod fake;

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fake::{context, context_of, example, table};
use lapidary_runtime::ffi::{Api, ContextHead, ModelTable, Segment, TaskFn};
use lapidary_runtime::{
    Context, CpuLevel, DType, ErrorCode, Options, RuntimeError, Tensor, TensorView, ThreadPool,
    Weights, abi, ffi,
};

fn views(tensors: &[Tensor]) -> Vec<TensorView<'_>> {
    tensors.iter().map(Tensor::view).collect()
}

fn failure(context: &mut Context, inputs: &[Tensor]) -> RuntimeError {
    context.run(&views(inputs)).expect_err("the run must fail")
}

#[test]
fn any_shape_runs_on_any_number_of_threads() {
    for threads in [1, 2, 4] {
        let mut context = context(threads);
        for (n, k) in [
            (1, 1),
            (5, 9),
            (5, 9),
            (1000, 3),
            (2, 0),
            (4096, 4096),
            (7, 7),
        ] {
            let (inputs, outputs) = example(n, k, n + k);
            assert_eq!(
                context.run(&views(&inputs)).unwrap(),
                outputs,
                "{threads} threads, n {n}, k {k}"
            );
        }
    }
}

#[test]
fn a_model_tells_its_inputs_and_outputs() {
    let context = context(1);
    assert_eq!(context.name(), "fake");
    let x = &context.inputs()[0];
    assert_eq!((x.name.as_str(), x.dtype), ("x", DType::F32));
    let dims = x.dims.as_ref().unwrap();
    assert_eq!(
        (dims[0].name.as_deref(), dims[0].value, dims[1].value),
        (Some("n"), None, Some(3))
    );
    assert_eq!(context.outputs().len(), 3);
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_their_names() {
    let (good, outputs) = example(4, 2, 0);
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(dtype, shape).unwrap();
    let cases = [
        (
            0,
            zeros(DType::F64, &[4, 3]),
            "input `x`: expected dtype f32, found f64",
        ),
        (
            0,
            zeros(DType::F32, &[4]),
            "input `x`: expected rank 2, found rank 1",
        ),
        (
            1,
            zeros(DType::F32, &[4, 5]),
            "input `y`: axis 1 must be 3, found 5",
        ),
        (
            1,
            zeros(DType::F32, &[6, 3]),
            "input `y`: axis 0 (`n`) is 6, but axis 0 of input `x` has set the same dim to 4",
        ),
        (
            2,
            zeros(DType::I64, &[1, 2]),
            "input `rows`: expected rank 1, found rank 2",
        ),
    ];
    let mut context = context(1);
    for (index, tensor, message) in cases {
        let mut inputs = good.clone();
        inputs[index] = tensor;
        let error = failure(&mut context, &inputs);
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (ErrorCode::Input, message)
        );
    }
    assert_eq!(context.run(&views(&good)).unwrap(), outputs);
    assert!(matches!(
        context.run(&views(&good[..2])),
        Err(RuntimeError::Arity {
            expected: 3,
            found: 2,
            ..
        })
    ));
}

#[test]
fn a_failed_check_names_its_node() {
    let error = failure(&mut context(1), &example(13, 1, 0).0);
    assert_eq!(error.code(), ErrorCode::Check);
    assert_eq!(
        error.to_string(),
        "node `/add`: n is 13, which brings 7 years of bad luck"
    );
}

#[test]
fn the_fault_of_the_lowest_task_is_reported_whatever_the_threads() {
    let (mut inputs, _) = example(8, 3000, 1);
    let rows = inputs[2].as_mut_slice::<i64>().unwrap();
    for (task, index) in [(2999, 99), (1234, -77), (1240, 50), (2000, 8)] {
        rows[task] = index;
    }
    for threads in [1, 2, 3, 8] {
        let mut context = context(threads);
        for _ in 0..20 {
            let error = failure(&mut context, &inputs);
            assert_eq!(
                (error.code(), error.node()),
                (ErrorCode::Index, Some("/pick"))
            );
            assert!(
                error
                    .to_string()
                    .contains("index -77 in operand 1 is outside of [-8, 8)"),
                "{error}"
            );
        }
        let (inputs, outputs) = example(8, 30, 1);
        assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
    }
}

#[test]
fn strided_and_misaligned_inputs_are_copied() {
    let (inputs, outputs) = example(6, 4, 3);
    // x as the transpose of a column-major copy; y at an odd address.
    let x = inputs[0].as_slice::<f32>().unwrap();
    let columns: Vec<f32> = (0..3)
        .flat_map(|c| (0..6).map(move |r| x[3 * r + c]))
        .collect();
    let mut bytes = vec![0u8];
    bytes.extend_from_slice(inputs[1].bytes());
    let misaligned = if bytes.as_ptr().addr() % 4 == 0 {
        bytes
    } else {
        [&[0u8; 4], &bytes[..]].concat()
    };
    let start = misaligned.len() - inputs[1].bytes().len();
    let given = [
        TensorView::with_strides(&[6, 3], &[1, 6], &columns).unwrap(),
        TensorView::from_bytes(DType::F32, &[6, 3], &misaligned[start..]).unwrap(),
        inputs[2].view(),
    ];
    let mut context = context(1);
    assert_eq!(context.run(&given).unwrap(), outputs);
    assert_eq!(given[0].to_tensor().unwrap(), inputs[0]);
    // A stride of 0 broadcasts.
    let one = [2.0f32];
    let wide = TensorView::with_strides(&[6, 3], &[0, 0], &one).unwrap();
    let sum = context
        .run(&[wide.clone(), wide, inputs[2].view()])
        .unwrap();
    assert_eq!(sum[0].as_slice::<f32>().unwrap()[..3], [9.0, 10.0, 11.0]);
}

#[test]
fn outputs_can_be_bound_and_must_fit() {
    let (inputs, expected) = example(5, 2, 0);
    let mut context = context(1);
    let mut outputs: Vec<Tensor> = expected
        .iter()
        .map(|t| Tensor::zeros(t.dtype(), t.shape()).unwrap())
        .collect();
    context.run_into(&views(&inputs), &mut outputs).unwrap();
    assert_eq!(outputs, expected);
    for (index, shape, message) in [
        (
            0,
            vec![6, 3],
            "output `sum`: axis 0 of the bound tensor is 6, the model makes 5",
        ),
        (
            2,
            vec![1],
            "node `/positives`: output `positive`: axis 0 of the bound tensor is 1, the model makes",
        ),
    ] {
        let mut wrong = outputs.clone();
        wrong[index] = Tensor::zeros(DType::F32, &shape).unwrap();
        let error = context.run_into(&views(&inputs), &mut wrong).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Output);
        assert!(error.to_string().starts_with(message), "{error}");
    }
    outputs[1] = Tensor::zeros(DType::I32, &[2, 3]).unwrap();
    assert_eq!(
        context
            .run_into(&views(&inputs), &mut outputs)
            .unwrap_err()
            .code(),
        ErrorCode::Output
    );
    assert_eq!(context.run(&views(&inputs)).unwrap(), expected);
}

#[test]
fn shapes_are_known_before_a_run_unless_data_decides() {
    let (inputs, _) = example(5, 2, 0);
    let shapes = context(1).output_shapes(&views(&inputs)).unwrap();
    assert_eq!(shapes, [Some(vec![5, 3]), Some(vec![2, 3]), None]);
}

#[test]
fn a_memory_limit_is_an_error_with_its_numbers() {
    let (inputs, outputs) = example(1000, 10, 0);
    let mut context = context(1);
    context.set_memory_limit(Some(5000));
    let error = failure(&mut context, &inputs);
    let RuntimeError::Model {
        code: ErrorCode::Memory,
        numbers: (needed, limit),
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(needed > limit && limit == 5000);
    context.set_memory_limit(None);
    assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
    let used = context.memory_used();
    assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
    assert_eq!(
        context.memory_used(),
        used,
        "a second run at a shape takes no memory"
    );
    context.set_memory_limit(Some(used));
    assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
}

/// As the model's own, but says of buffer 0 that it is an element smaller than it is.
unsafe extern "C" fn dims_of_a_buffer_too_small(ctx: *mut ContextHead) -> i32 {
    // SAFETY: the model's own segment, called as the runtime does; it has a buffer 0.
    unsafe {
        let dims = (*table().segments).dims_fn.unwrap();
        let code = dims(ctx);
        *(*ctx).sizes -= 4;
        code
    }
}

#[test]
fn guarded_memory_changes_no_result_and_finds_what_is_written_behind_a_buffer() {
    let guarded = Options {
        threads: 1,
        guard_memory: true,
        ..Options::default()
    };
    let mut sound = context_of(table(), &guarded).unwrap();
    for (n, k) in [(1, 1), (5, 9), (5, 9), (16, 0), (1000, 3)] {
        let (inputs, outputs) = example(n, k, n + k);
        assert_eq!(sound.run(&views(&inputs)).unwrap(), outputs, "n {n}, k {k}");
    }
    let broken = || {
        let whole = table();
        // SAFETY: the table has two segments.
        let (first, second) = unsafe { (*whole.segments, *whole.segments.add(1)) };
        let first = Segment {
            dims_fn: Some(dims_of_a_buffer_too_small),
            ..first
        };
        ModelTable {
            segments: vec![first, second].leak().as_ptr(),
            ..whole
        }
    };
    let (inputs, outputs) = example(5, 2, 1);
    let mut plain = context_of(broken(), &Options::default()).unwrap();
    assert_eq!(plain.run(&views(&inputs)).unwrap(), outputs);
    let error = failure(&mut context_of(broken(), &guarded).unwrap(), &inputs);
    assert_eq!(error.code(), ErrorCode::Internal);
    let message = "buffer 0 of 56 bytes was written at byte 56";
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn a_cancelled_context_runs_nothing_until_it_is_set_free() {
    let (inputs, outputs) = example(3, 1, 0);
    let mut context = context(2);
    let canceller = context.canceller();
    canceller.set(true);
    assert_eq!(failure(&mut context, &inputs).code(), ErrorCode::Cancelled);
    canceller.set(false);
    assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
}

unsafe extern "C" fn forever(ctx: *mut ContextHead) -> i32 {
    loop {
        // SAFETY: the runtime's own context.
        let code = unsafe { (fake::rt(ctx).check)(ctx, 3) };
        if code != 0 {
            return code;
        }
    }
}

fn endless() -> ModelTable {
    let mut table = table();
    let segment = Segment {
        dims_fn: None,
        run_fn: Some(forever),
        reserved: 0,
    };
    table.segments = Box::leak(Box::new(segment));
    table.n_segments = 1;
    table.n_buffers = 0;
    table
}

#[test]
fn a_run_ends_at_its_deadline_and_when_cancelled_from_another_thread() {
    let (inputs, _) = example(3, 1, 0);
    let timeout = Some(Duration::from_millis(5));
    let mut context = context_of(
        endless(),
        &Options {
            threads: 1,
            timeout,
            ..Options::default()
        },
    )
    .unwrap();
    let error = failure(&mut context, &inputs);
    assert_eq!(
        (error.code(), error.node()),
        (ErrorCode::Timeout, Some("/positives"))
    );
    context.set_timeout(None);
    let canceller = context.canceller();
    let other = std::thread::spawn(move || canceller.set(true));
    assert_eq!(failure(&mut context, &inputs).code(), ErrorCode::Cancelled);
    other.join().unwrap();
}

#[test]
fn the_longest_timeout_does_not_end_a_run() {
    let (inputs, outputs) = example(3, 1, 0);
    let mut context = context_of(table(), &Options::default()).unwrap();
    context.set_timeout(Some(Duration::MAX));
    assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
}

#[test]
fn contexts_of_one_model_run_concurrently_on_one_pool() {
    let pool = Arc::new(ThreadPool::new(3).unwrap());
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let options = Options {
                pool: Some(pool.clone()),
                ..Options::default()
            };
            scope.spawn(move || {
                let mut context = context_of(table(), &options).unwrap();
                for round in 0..100 {
                    let (inputs, outputs) = example(1 + 37 * (round % 5), 50, seed + round);
                    assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
                }
            });
        }
    });
}

unsafe extern "C" fn host_for(
    host: *mut c_void,
    body: TaskFn,
    env: *mut c_void,
    tasks: i64,
    workers: i32,
) {
    // Backwards, in uneven pieces, on two workers by turns.
    assert_eq!(workers, 2);
    let (mut end, mut turn) = (tasks, 0);
    while end > 0 {
        let begin = (end - 3).max(0);
        // SAFETY: as the interface asks.
        unsafe { body(env, begin, end, turn) };
        turn = 1 - turn;
        end = begin;
    }
    // SAFETY: the test's counter.
    unsafe { *host.cast::<i32>() += 1 };
}

#[test]
fn a_host_brings_its_own_pool() {
    let table = Box::leak(Box::new(table()));
    let mut calls = 0i32;
    // SAFETY: the C interface, used as its header says.
    unsafe {
        let api = &*abi::api_table().cast::<Api>();
        let mut options: ffi::Options = std::mem::zeroed();
        options.struct_bytes = size_of::<ffi::Options>() as u32;
        options.parallel_for = Some(host_for);
        options.host = (&raw mut calls).cast();
        options.host_workers = 2;
        let mut context = ptr::null_mut();
        assert_eq!(
            (api.context_create)(&table.head, &options, &mut context),
            abi::code::OK
        );
        let (mut inputs, expected) = example(40, 10, 0);
        let run = |inputs: &[Tensor]| {
            for (index, tensor) in inputs.iter().enumerate() {
                let mut shape: Vec<i64> = tensor.shape().iter().map(|&dim| dim as i64).collect();
                let tensor = ffi::DlTensor {
                    data: tensor.bytes().as_ptr().cast_mut().cast(),
                    device_type: 1,
                    device_id: 0,
                    ndim: shape.len() as i32,
                    dtype: tensor.dtype().dlpack(),
                    shape: shape.as_mut_ptr(),
                    strides: ptr::null_mut(),
                    byte_offset: 0,
                };
                assert_eq!(
                    (api.set_input)(context, index as i32, &tensor),
                    abi::code::OK
                );
            }
            (api.run)(context)
        };
        assert_eq!(run(&inputs), abi::code::OK);
        let sum = &*(api.output)(context, 0);
        let found = std::slice::from_raw_parts(sum.data.cast::<f32>(), 120);
        assert_eq!(found, expected[0].as_slice::<f32>().unwrap());
        inputs[2].as_mut_slice::<i64>().unwrap()[2..6].copy_from_slice(&[44, 55, 66, 77]);
        assert_eq!(run(&inputs), abi::code::INDEX);
        let mut error: ffi::Error = std::mem::zeroed();
        (api.last_error)(context, &mut error);
        assert_eq!((error.a, error.b, error.node), (44, 40, 2));
        (api.context_destroy)(context);
    }
    assert!(calls >= 5);
}

#[test]
fn weights_beside_the_model_are_mapped_and_checked() {
    let folder = std::env::temp_dir().join(format!("lapidary-weights-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("fake.weights");
    let blob: Vec<u8> = [1.0f32, 2.0, 3.0]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    let mut bytes = abi::weights_file_header(&blob).to_vec();
    bytes.extend_from_slice(&blob);
    let mut model = table();
    model.weights = ptr::null();
    model.weights_file = c"fake.weights".as_ptr();
    model.weights_hash = abi::weights_hash(&blob);
    let options = Options {
        threads: 1,
        weights_path: Some(path.clone()),
        verify_weights: true,
        ..Options::default()
    };
    let open = || context_of(model, &options);

    assert_eq!(open().err().unwrap().code(), ErrorCode::Weights, "no file");
    std::fs::write(&path, &bytes).unwrap();
    let (inputs, outputs) = example(5, 2, 0);
    let (mut first, mut second) = (open().unwrap(), open().unwrap());
    assert_eq!(first.run(&views(&inputs)).unwrap(), outputs);
    drop(first);
    assert_eq!(second.run(&views(&inputs)).unwrap(), outputs);
    drop(second);
    for (at, what) in [
        (24, "another build"),
        (0, "not a weights file"),
        (70, "damaged"),
    ] {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        std::fs::write(&path, &wrong).unwrap();
        let error = open().err().unwrap();
        assert!(
            error.code() == ErrorCode::Weights && error.to_string().contains(what),
            "{error}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A model that wants a weights file, and the bytes of that file.
fn model_with_weights() -> (ModelTable, Vec<u8>) {
    let blob: Vec<u8> = [1.0f32, 2.0, 3.0]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    let mut bytes = abi::weights_file_header(&blob).to_vec();
    bytes.extend_from_slice(&blob);
    let mut model = table();
    model.weights = ptr::null();
    model.weights_file = c"nowhere.weights".as_ptr();
    model.weights_hash = abi::weights_hash(&blob);
    (model, bytes)
}

fn with(weights: Weights) -> Options {
    Options {
        threads: 1,
        weights: Some(weights),
        verify_weights: true,
        ..Options::default()
    }
}

#[test]
fn weights_come_from_memory_wherever_it_begins() {
    let (model, bytes) = model_with_weights();
    let (inputs, outputs) = example(5, 2, 0);
    #[repr(align(64))]
    struct Aligned([u8; 192]);
    let memory: &'static mut Aligned = Box::leak(Box::new(Aligned([0; 192])));
    for shift in [0, 1] {
        memory.0[shift..shift + bytes.len()].copy_from_slice(&bytes);
        let copy: &'static [u8] = Box::leak(Box::new(Aligned(memory.0))).0.as_slice();
        let options = with(Weights::in_memory(&copy[shift..shift + bytes.len()]));
        let mut contexts = [0; 2].map(|_| context_of(model, &options).unwrap());
        for context in &mut contexts {
            assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
        }
    }
    let mut short = bytes.clone();
    short.pop();
    for (wrong, what) in [(short, "another build"), (Vec::new(), "too short")] {
        let error = context_of(model, &with(Weights::in_memory(wrong))).err();
        let error = error.unwrap();
        assert!(
            error.code() == ErrorCode::Weights && error.to_string().contains(what),
            "{error}"
        );
    }
}

#[test]
fn a_reader_is_asked_once_for_all_contexts_and_its_failure_is_told() {
    let (model, bytes) = model_with_weights();
    let (inputs, outputs) = example(5, 2, 0);
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, content) = (asked.clone(), bytes.clone());
    let options = with(Weights::by_reader(move |offset, into| {
        count.fetch_add(into.len(), Ordering::Relaxed);
        let from = offset as usize;
        into.copy_from_slice(&content[from..from + into.len()]);
        Ok(())
    }));
    let mut contexts = [0; 3].map(|_| context_of(model, &options).unwrap());
    for context in &mut contexts {
        assert_eq!(context.run(&views(&inputs)).unwrap(), outputs);
    }
    assert_eq!(asked.load(Ordering::Relaxed), bytes.len());
    drop(contexts);

    let refused = |weights, what: &str| {
        let error = context_of(model, &with(weights)).err().unwrap();
        assert!(
            error.code() == ErrorCode::Weights && error.to_string().contains(what),
            "{error}"
        );
    };
    refused(
        Weights::by_reader(|_, _| Err("the key has expired".into())),
        "the key has expired",
    );
    refused(Weights::by_reader(|_, _| panic!("no")), "it panicked");
    refused(Weights::by_reader(|_, _| Ok(())), "is not a weights file");
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    refused(
        Weights::by_reader(move |offset, into| {
            let from = offset as usize;
            into.copy_from_slice(&damaged[from..from + into.len()]);
            Ok(())
        }),
        "damaged",
    );
}

#[test]
fn a_model_of_another_version_or_processor_is_refused() {
    let options = Options::default();
    let mut model = table();
    model.head.abi_version = 77;
    assert_eq!(
        context_of(model, &options).err().unwrap().code(),
        ErrorCode::Abi
    );
    let mut model = table();
    model.head.cpu_features = 1 << 50;
    assert_eq!(
        context_of(model, &options).err().unwrap().code(),
        ErrorCode::Cpu
    );
}

unsafe extern "C" {
    fn lap_output_alloc_strings(
        ctx: *mut ContextHead,
        out: *mut ffi::LapTensor,
        rank: i32,
        dims: *const i64,
        text_bytes: i64,
        node: i32,
    ) -> i32;
}

/// Doubles each string.
unsafe extern "C" fn double(
    ctx: *mut ContextHead,
    input: *const *const ffi::LapTensor,
    _: i32,
    output: *const *mut ffi::LapTensor,
    _: i32,
    _: *const c_void,
    node: i32,
) -> i32 {
    unsafe {
        let (x, y) = (&**input, &mut **output);
        let n = x.dims[0] as usize;
        let [offsets, bytes] = *x.data.cast::<[*mut u8; 2]>();
        let offsets = std::slice::from_raw_parts(offsets.cast::<i64>(), n + 1);
        let code = lap_output_alloc_strings(ctx, y, 1, x.dims.as_ptr(), 2 * offsets[n], node);
        if code != 0 {
            return code;
        }
        let [to_offsets, to_bytes] = *y.data.cast::<[*mut u8; 2]>();
        for i in 0..n {
            let (begin, length) = (offsets[i] as usize, (offsets[i + 1] - offsets[i]) as usize);
            for copy in 0..2 {
                ptr::copy_nonoverlapping(
                    bytes.add(begin),
                    to_bytes.add(2 * begin + copy * length),
                    length,
                );
            }
            *to_offsets.cast::<i64>().add(i + 1) = 2 * offsets[i + 1];
        }
        0
    }
}

unsafe extern "C" fn dims_double(ctx: *mut ContextHead) -> i32 {
    unsafe { *(*ctx).sizes = abi::SIZE_DYNAMIC };
    0
}

unsafe extern "C" fn run_double(ctx: *mut ContextHead) -> i32 {
    unsafe {
        let c = &*ctx;
        let output = c.outputs;
        let input = c.inputs.cast_const();
        (fake::rt(ctx).call_library)(ctx, double, &input, 1, &output, 1, ptr::null(), 0)
    }
}

#[test]
fn strings_go_in_and_out() {
    let value = |name: &'static std::ffi::CStr| ffi::ValueInfo {
        name: name.as_ptr(),
        dtype: DType::String.onnx(),
        rank: 1,
        dims: ptr::null(),
        dim_names: ptr::null(),
        containers: ptr::null(),
    };
    let mut table = table();
    table.head.n_inputs = 1;
    table.head.n_outputs = 1;
    table.head.inputs = Box::leak(Box::new(value(c"words")));
    table.head.outputs = Box::leak(Box::new(value(c"doubled")));
    table.n_dim_binds = 0;
    table.n_segments = 1;
    table.segments = Box::leak(Box::new(Segment {
        dims_fn: Some(dims_double),
        run_fn: Some(run_double),
        reserved: 0,
    }));
    table.n_buffers = 1;
    table.buffers = Box::leak(Box::new(ffi::BufferInfo {
        segment: 0,
        first: 0,
        last: 0,
        output: 0,
    }));
    let mut context = context_of(
        table,
        &Options {
            threads: 1,
            ..Options::default()
        },
    )
    .unwrap();
    for words in [vec!["gem", "", "edelstein ñ"], vec![], vec!["ruby"]] {
        let strings: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let doubled: Vec<String> = strings.iter().map(|word| word.repeat(2)).collect();
        let input = Tensor::from_strings(&[words.len()], strings).unwrap();
        let outputs = context.run(&[input.view()]).unwrap();
        assert_eq!(outputs[0].strings().unwrap(), doubled);
    }
}

/// What the fake model's table says of the processor, and the options of a context of it.
fn limited(features: u64) -> Options {
    Options {
        threads: 1,
        cpu_features: features,
        ..Options::default()
    }
}

#[test]
fn a_context_can_be_limited_to_a_lower_level() {
    let context = context_of(table(), &limited(0)).unwrap();
    assert_eq!(context.cpu_level(), CpuLevel::host());
    for level in CpuLevel::ALL {
        let made = context_of(table(), &limited(level.features()));
        if level.runs_here() {
            assert_eq!(made.unwrap().cpu_level(), level);
        } else {
            let error = made.err().unwrap();
            assert_eq!(error.code(), ErrorCode::Cpu);
            assert!(error.to_string().contains("this processor does not have"));
        }
    }
    let error = context_of(table(), &limited(1 << 50)).err().unwrap();
    assert_eq!(error.code(), ErrorCode::Cpu);
}

#[test]
fn a_limit_below_what_the_model_needs_is_refused() {
    let mut model = table();
    model.head.cpu_features = abi::cpu_features();
    if model.head.cpu_features == 0 {
        eprintln!("skipped: this processor has no feature to do without");
        return;
    }
    let error = context_of(model, &limited(abi::cpu::BASE)).err().unwrap();
    assert_eq!(error.code(), ErrorCode::Cpu);
    assert!(
        error.to_string().contains("the options do not allow"),
        "{error}"
    );
}
