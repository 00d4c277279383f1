//! The Rust mirrors and constants agree with what the C compiler says.

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::{offset_of, size_of};

use lapidary_runtime::abi::{self, code, cpu, fault};
use lapidary_runtime::{DType, ErrorCode, ffi};

fn c_layout() -> HashMap<String, i64> {
    let mut layout = HashMap::new();
    // SAFETY: the table ends with a NULL name.
    unsafe {
        let mut entry = &raw const ffi::lap_layout as *const ffi::LayoutEntry;
        while !(*entry).name.is_null() {
            layout.insert(
                CStr::from_ptr((*entry).name).to_str().unwrap().to_string(),
                (*entry).value,
            );
            entry = entry.add(1);
        }
    }
    layout
}

#[test]
fn mirrors_have_the_layout_of_the_c_structs() {
    let c = c_layout();
    let rust: Vec<(&str, usize)> = vec![
        ("lap_fault", size_of::<ffi::Fault>()),
        ("lap_worker", size_of::<ffi::Worker>()),
        ("lap_tensor", size_of::<ffi::LapTensor>()),
        ("lap_context", size_of::<ffi::ContextHead>()),
        ("lap_model_table", size_of::<ffi::ModelTable>()),
        ("lap_rt", abi::RT_BYTES as usize),
        ("lapidary_model", size_of::<ffi::ModelHead>()),
        ("lapidary_value_info", size_of::<ffi::ValueInfo>()),
        ("lapidary_tensor", size_of::<ffi::DlTensor>()),
        ("lapidary_options", size_of::<ffi::Options>()),
        ("lapidary_error", size_of::<ffi::Error>()),
        ("lapidary_api", size_of::<ffi::Api>()),
        ("lap_dim_bind", size_of::<ffi::DimBind>()),
        ("lap_segment", size_of::<ffi::Segment>()),
        ("lap_buffer_info", size_of::<ffi::BufferInfo>()),
        ("lap_state", size_of::<ffi::State>()),
        (
            "lap_model_table.states",
            offset_of!(ffi::ModelTable, states),
        ),
        (
            "lap_model_table.n_states",
            offset_of!(ffi::ModelTable, n_states),
        ),
        (
            "lap_model_table.variants",
            offset_of!(ffi::ModelTable, variants),
        ),
        (
            "lap_model_table.levels",
            offset_of!(ffi::ModelTable, levels),
        ),
        ("lap_weights_header", 64),
        (
            "lap_model_table.n_dims",
            offset_of!(ffi::ModelTable, n_dims),
        ),
        (
            "lap_model_table.n_dim_binds",
            offset_of!(ffi::ModelTable, n_dim_binds),
        ),
        (
            "lap_model_table.dim_binds",
            offset_of!(ffi::ModelTable, dim_binds),
        ),
        (
            "lap_model_table.n_segments",
            offset_of!(ffi::ModelTable, n_segments),
        ),
        (
            "lap_model_table.n_buffers",
            offset_of!(ffi::ModelTable, n_buffers),
        ),
        (
            "lap_model_table.segments",
            offset_of!(ffi::ModelTable, segments),
        ),
        (
            "lap_model_table.buffers",
            offset_of!(ffi::ModelTable, buffers),
        ),
        (
            "lap_model_table.n_descs",
            offset_of!(ffi::ModelTable, n_descs),
        ),
        (
            "lap_model_table.n_nodes",
            offset_of!(ffi::ModelTable, n_nodes),
        ),
        (
            "lap_model_table.node_names",
            offset_of!(ffi::ModelTable, node_names),
        ),
        (
            "lap_model_table.weights",
            offset_of!(ffi::ModelTable, weights),
        ),
        (
            "lap_model_table.weights_file",
            offset_of!(ffi::ModelTable, weights_file),
        ),
        (
            "lap_model_table.weights_bytes",
            offset_of!(ffi::ModelTable, weights_bytes),
        ),
        (
            "lap_model_table.weights_hash",
            offset_of!(ffi::ModelTable, weights_hash),
        ),
        (
            "lapidary_model.cpu_features",
            offset_of!(ffi::ModelHead, cpu_features),
        ),
        ("lapidary_model.api", offset_of!(ffi::ModelHead, api)),
        ("lapidary_model.name", offset_of!(ffi::ModelHead, name)),
        (
            "lapidary_model.n_inputs",
            offset_of!(ffi::ModelHead, n_inputs),
        ),
        (
            "lapidary_model.n_outputs",
            offset_of!(ffi::ModelHead, n_outputs),
        ),
        ("lapidary_model.inputs", offset_of!(ffi::ModelHead, inputs)),
        (
            "lapidary_model.outputs",
            offset_of!(ffi::ModelHead, outputs),
        ),
        (
            "lapidary_value_info.dtype",
            offset_of!(ffi::ValueInfo, dtype),
        ),
        ("lapidary_value_info.rank", offset_of!(ffi::ValueInfo, rank)),
        ("lapidary_value_info.dims", offset_of!(ffi::ValueInfo, dims)),
        (
            "lapidary_value_info.dim_names",
            offset_of!(ffi::ValueInfo, dim_names),
        ),
        ("lapidary_tensor.ndim", offset_of!(ffi::DlTensor, ndim)),
        ("lapidary_tensor.dtype", offset_of!(ffi::DlTensor, dtype)),
        ("lapidary_tensor.shape", offset_of!(ffi::DlTensor, shape)),
        (
            "lapidary_tensor.strides",
            offset_of!(ffi::DlTensor, strides),
        ),
        (
            "lapidary_tensor.byte_offset",
            offset_of!(ffi::DlTensor, byte_offset),
        ),
        ("lapidary_options.pool", offset_of!(ffi::Options, pool)),
        ("lapidary_options.host", offset_of!(ffi::Options, host)),
        (
            "lapidary_options.memory_limit",
            offset_of!(ffi::Options, memory_limit),
        ),
        (
            "lapidary_options.weights_path",
            offset_of!(ffi::Options, weights_path),
        ),
        (
            "lapidary_options.error_text_bytes",
            offset_of!(ffi::Options, error_text_bytes),
        ),
        (
            "lapidary_options.cpu_features",
            offset_of!(ffi::Options, cpu_features),
        ),
        ("LAPIDARY_ABI_VERSION", abi::ABI_VERSION as usize),
        ("LAP_ALIGN", abi::ALIGN),
        ("LAP_MAX_RANK", abi::MAX_RANK),
        ("LAPIDARY_CPU_AVX2", cpu::AVX2 as usize),
        ("LAPIDARY_CPU_AVX512", cpu::AVX512 as usize),
        ("LAPIDARY_CPU_AMX_INT8", cpu::AMX_INT8 as usize),
        ("LAPIDARY_CPU_AVX512_VBMI", cpu::AVX512_VBMI as usize),
        ("LAPIDARY_CPU_ARM_BF16", cpu::ARM_BF16 as usize),
        ("LAPIDARY_CPU_BASE", cpu::BASE as usize),
    ];
    for (name, value) in rust {
        assert_eq!(c.get(name), Some(&(value as i64)), "{name}");
    }
}

#[test]
fn constants_for_generated_code_are_those_of_c() {
    let c = c_layout();
    let rust = [
        ("lap_worker.scratch", abi::WORKER_SCRATCH),
        ("lap_worker.scratch_bytes", abi::WORKER_SCRATCH_BYTES),
        ("lap_worker.fault.kind", abi::WORKER_FAULT_KIND),
        ("lap_worker.fault.operand", abi::WORKER_FAULT_OPERAND),
        ("lap_worker.fault.value", abi::WORKER_FAULT_VALUE),
        ("lap_worker.fault.limit", abi::WORKER_FAULT_LIMIT),
        ("lap_worker.index", abi::WORKER_INDEX),
        ("lap_worker.level", abi::WORKER_LEVEL),
        ("lap_worker.rt", abi::WORKER_RT),
        ("lap_worker.cancel", abi::WORKER_CANCEL),
        ("lap_tensor", abi::TENSOR_BYTES),
        ("lap_tensor.data", abi::TENSOR_DATA),
        ("lap_tensor.dtype", abi::TENSOR_DTYPE),
        ("lap_tensor.rank", abi::TENSOR_RANK),
        ("lap_tensor.dims", abi::TENSOR_DIMS),
        ("lap_tensor.strides", abi::TENSOR_STRIDES),
        ("lap_tensor.buffer", abi::TENSOR_BUFFER),
        ("lap_context.rt", abi::CTX_RT),
        ("lap_context.dims", abi::CTX_DIMS),
        ("lap_context.sizes", abi::CTX_SIZES),
        ("lap_context.buffers", abi::CTX_BUFFERS),
        ("lap_context.weights", abi::CTX_WEIGHTS),
        ("lap_context.inputs", abi::CTX_INPUTS),
        ("lap_context.outputs", abi::CTX_OUTPUTS),
        ("lap_context.descs", abi::CTX_DESCS),
        ("lap_context.cancel", abi::CTX_CANCEL),
        ("lap_context.level", abi::CTX_LEVEL),
        ("lap_context.model", abi::CTX_MODEL),
        ("LAP_FAULT_INDEX", fault::INDEX),
        ("LAP_FAULT_VALUE", fault::VALUE),
        ("LAP_FAULT_DIVIDE", fault::DIVIDE),
        ("LAP_FAULT_MEMORY", fault::MEMORY),
        ("LAP_FAULT_SHAPE", fault::SHAPE),
        ("LAPIDARY_ERROR_ARGUMENT", code::ARGUMENT),
        ("LAPIDARY_ERROR_INPUT", code::INPUT),
        ("LAPIDARY_ERROR_OUTPUT", code::OUTPUT),
        ("LAPIDARY_ERROR_CHECK", code::CHECK),
        ("LAPIDARY_ERROR_INDEX", code::INDEX),
        ("LAPIDARY_ERROR_MEMORY", code::MEMORY),
        ("LAPIDARY_ERROR_CANCELLED", code::CANCELLED),
        ("LAPIDARY_ERROR_TIMEOUT", code::TIMEOUT),
        ("LAPIDARY_ERROR_CPU", code::CPU),
        ("LAPIDARY_ERROR_ABI", code::ABI),
        ("LAPIDARY_ERROR_WEIGHTS", code::WEIGHTS),
        ("LAPIDARY_ERROR_THREADS", code::THREADS),
        ("LAPIDARY_ERROR_INTERNAL", code::INTERNAL),
        ("LAPIDARY_ERROR_BUSY", code::BUSY),
    ];
    for (name, value) in rust {
        assert_eq!(c.get(name), Some(&i64::from(value)), "{name}");
    }
}

#[test]
fn the_function_table_has_its_names_in_order() {
    let c = c_layout();
    for (index, name) in abi::RT_NAMES.iter().enumerate() {
        if !name.starts_with("reserved") {
            assert_eq!(
                c.get(&format!("lap_rt.{name}")),
                Some(&(8 * index as i64)),
                "{name}"
            );
        }
    }
}

#[test]
fn codes_and_types_survive_the_way_through_numbers() {
    for raw in 1..=14 {
        assert_eq!(ErrorCode::from_raw(raw).raw(), raw);
    }
    for &dtype in DType::ALL {
        assert_eq!(DType::from_onnx(dtype.onnx()), Some(dtype));
    }
}

#[test]
fn narrow_floats_convert_as_the_half_crate_does() {
    // SAFETY: the entries of the table are functions of these types.
    unsafe {
        let table = &raw const ffi::lap_runtime_table as *const *const std::ffi::c_void;
        let entry = |offset: i32| *table.add(offset as usize / 8);
        let to_f16: extern "C" fn(f32) -> u32 = std::mem::transmute(entry(abi::RT_F32_TO_F16));
        let of_f16: extern "C" fn(u32) -> f32 = std::mem::transmute(entry(abi::RT_F16_TO_F32));
        let to_bf16: extern "C" fn(f32) -> u32 = std::mem::transmute(entry(abi::RT_F32_TO_BF16));
        let of_bf16: extern "C" fn(u32) -> f32 = std::mem::transmute(entry(abi::RT_BF16_TO_F32));
        for bits in 0..=u16::MAX {
            let (f, b) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
            assert!(
                of_f16(bits.into()).to_bits() == f.to_f32().to_bits() || f.is_nan(),
                "{bits:#x}"
            );
            assert!(
                of_bf16(bits.into()).to_bits() == b.to_f32().to_bits() || b.is_nan(),
                "{bits:#x}"
            );
            assert!(
                of_f16(bits.into()).is_nan() == f.is_nan()
                    && of_bf16(bits.into()).is_nan() == b.is_nan()
            );
        }
        for step in 0..400_000u32 {
            let value = f32::from_bits(step.wrapping_mul(10_739));
            if value.is_nan() {
                assert!(half::f16::from_bits(to_f16(value) as u16).is_nan());
                assert!(half::bf16::from_bits(to_bf16(value) as u16).is_nan());
            } else {
                assert_eq!(
                    to_f16(value) as u16,
                    half::f16::from_f32(value).to_bits(),
                    "{value:e}"
                );
                assert_eq!(
                    to_bf16(value) as u16,
                    half::bf16::from_f32(value).to_bits(),
                    "{value:e}"
                );
            }
        }
    }
}
