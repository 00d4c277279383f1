/* What the C compiler says about the layouts, for the test that compares the Rust mirrors with them. */
#include "lap_internal.h"
#include "lapidary_operator.h"
#include "registry.h"

/* Operators of the application see the same structs under names of their own. */
#define SAME(theirs, ours, field) \
    _Static_assert(offsetof(theirs, field) == offsetof(ours, field), #theirs "." #field)
SAME(lapidary_kernel_tensor, lap_tensor, data);
SAME(lapidary_kernel_tensor, lap_tensor, dtype);
SAME(lapidary_kernel_tensor, lap_tensor, rank);
SAME(lapidary_kernel_tensor, lap_tensor, dims);
SAME(lapidary_kernel_tensor, lap_tensor, strides);
SAME(lapidary_kernel_tensor, lap_tensor, buffer);
SAME(lapidary_kernel_tensor, lap_tensor, kind);
_Static_assert(sizeof(lapidary_kernel_tensor) == sizeof(lap_tensor), "lapidary_kernel_tensor");
SAME(lapidary_kernel_table, lap_rt, api);
SAME(lapidary_kernel_table, lap_rt, parallel_for);
SAME(lapidary_kernel_table, lap_rt, fail);
SAME(lapidary_kernel_table, lap_rt, check);
SAME(lapidary_kernel_table, lap_rt, output_alloc);
SAME(lapidary_kernel_table, lap_rt, output_alloc_strings);
SAME(lapidary_kernel_table, lap_rt, temp);
_Static_assert(offsetof(lap_context, rt) == 0, "the context begins with the table");

#define AT(type, field) {#type "." #field, (int64_t)offsetof(type, field)}
#define SIZE(type) {#type, (int64_t)sizeof(type)}
#define NUMBER(name) {#name, (int64_t)(name)}

const lap_layout_entry lap_layout[] = {
    SIZE(lap_fault), SIZE(lap_worker), SIZE(lap_tensor), SIZE(lap_context), SIZE(lap_model_table), SIZE(lap_rt),
    SIZE(lapidary_model), SIZE(lapidary_value_info), SIZE(lapidary_tensor), SIZE(lapidary_options),
    SIZE(lapidary_error), SIZE(lapidary_api), SIZE(lap_dim_bind), SIZE(lap_segment), SIZE(lap_buffer_info), SIZE(lap_state),
    SIZE(lap_weights_header),
    AT(lap_worker, scratch), AT(lap_worker, scratch_bytes), AT(lap_worker, fault.kind), AT(lap_worker, fault.operand),
    AT(lap_worker, fault.value), AT(lap_worker, fault.limit), AT(lap_worker, index), AT(lap_worker, level),
    AT(lap_worker, rt), AT(lap_worker, cancel),
    AT(lap_tensor, data), AT(lap_tensor, dtype), AT(lap_tensor, rank), AT(lap_tensor, dims), AT(lap_tensor, strides),
    AT(lap_tensor, buffer),
    AT(lap_context, rt), AT(lap_context, dims), AT(lap_context, sizes), AT(lap_context, buffers),
    AT(lap_context, weights), AT(lap_context, inputs), AT(lap_context, outputs), AT(lap_context, descs),
    AT(lap_context, cancel), AT(lap_context, level), AT(lap_context, model),
    AT(lap_model_table, n_dims), AT(lap_model_table, n_dim_binds), AT(lap_model_table, dim_binds),
    AT(lap_model_table, n_segments), AT(lap_model_table, n_buffers), AT(lap_model_table, segments),
    AT(lap_model_table, buffers), AT(lap_model_table, n_descs), AT(lap_model_table, n_nodes),
    AT(lap_model_table, node_names), AT(lap_model_table, weights), AT(lap_model_table, weights_file),
    AT(lap_model_table, weights_bytes), AT(lap_model_table, weights_hash),
    AT(lap_model_table, states), AT(lap_model_table, n_states), AT(lap_model_table, variants), AT(lap_model_table, levels),
    AT(lapidary_model, cpu_features), AT(lapidary_model, api), AT(lapidary_model, name), AT(lapidary_model, n_inputs),
    AT(lapidary_model, n_outputs), AT(lapidary_model, inputs), AT(lapidary_model, outputs),
    AT(lapidary_value_info, dtype), AT(lapidary_value_info, rank), AT(lapidary_value_info, dims),
    AT(lapidary_value_info, dim_names),
    AT(lapidary_tensor, ndim), AT(lapidary_tensor, dtype), AT(lapidary_tensor, shape), AT(lapidary_tensor, strides),
    AT(lapidary_tensor, byte_offset),
    AT(lapidary_options, pool), AT(lapidary_options, host), AT(lapidary_options, memory_limit),
    AT(lapidary_options, weights_path), AT(lapidary_options, error_text_bytes),
    AT(lapidary_options, cpu_features),
    AT(lap_rt, api), AT(lap_rt, parallel_for), AT(lap_rt, call_library), AT(lap_rt, alloc_dynamic), AT(lap_rt, fail),
    AT(lap_rt, check), AT(lap_rt, memcpy), AT(lap_rt, memmove), AT(lap_rt, memset),
    AT(lap_rt, output_alloc), AT(lap_rt, output_alloc_strings), AT(lap_rt, temp),
    AT(lap_rt, exp), AT(lap_rt, log), AT(lap_rt, sin), AT(lap_rt, cos), AT(lap_rt, tan), AT(lap_rt, asin),
    AT(lap_rt, acos), AT(lap_rt, atan), AT(lap_rt, sinh), AT(lap_rt, cosh), AT(lap_rt, tanh), AT(lap_rt, asinh),
    AT(lap_rt, acosh), AT(lap_rt, atanh), AT(lap_rt, erf), AT(lap_rt, exp2), AT(lap_rt, log2), AT(lap_rt, expm1),
    AT(lap_rt, log1p), AT(lap_rt, floor), AT(lap_rt, ceil), AT(lap_rt, trunc), AT(lap_rt, rint), AT(lap_rt, sqrt),
    AT(lap_rt, cbrt), AT(lap_rt, lgamma), AT(lap_rt, pow), AT(lap_rt, fmod), AT(lap_rt, atan2), AT(lap_rt, expf),
    AT(lap_rt, logf), AT(lap_rt, sinf), AT(lap_rt, cosf), AT(lap_rt, tanf), AT(lap_rt, asinf), AT(lap_rt, acosf),
    AT(lap_rt, atanf), AT(lap_rt, sinhf), AT(lap_rt, coshf), AT(lap_rt, tanhf), AT(lap_rt, asinhf), AT(lap_rt, acoshf),
    AT(lap_rt, atanhf), AT(lap_rt, erff), AT(lap_rt, floorf), AT(lap_rt, ceilf), AT(lap_rt, truncf), AT(lap_rt, rintf),
    AT(lap_rt, sqrtf), AT(lap_rt, powf), AT(lap_rt, fmodf), AT(lap_rt, atan2f), AT(lap_rt, f32_to_f16),
    AT(lap_rt, f16_to_f32), AT(lap_rt, f32_to_bf16), AT(lap_rt, bf16_to_f32), AT(lap_rt, fmaf64), AT(lap_rt, fmaf32),
    NUMBER(LAPIDARY_ABI_VERSION), NUMBER(LAP_ALIGN), NUMBER(LAP_MAX_RANK),
    NUMBER(LAP_FAULT_INDEX), NUMBER(LAP_FAULT_VALUE), NUMBER(LAP_FAULT_DIVIDE), NUMBER(LAP_FAULT_MEMORY),
    NUMBER(LAP_FAULT_SHAPE),
    NUMBER(LAPIDARY_ERROR_ARGUMENT), NUMBER(LAPIDARY_ERROR_INPUT), NUMBER(LAPIDARY_ERROR_OUTPUT),
    NUMBER(LAPIDARY_ERROR_CHECK), NUMBER(LAPIDARY_ERROR_INDEX), NUMBER(LAPIDARY_ERROR_MEMORY),
    NUMBER(LAPIDARY_ERROR_CANCELLED), NUMBER(LAPIDARY_ERROR_TIMEOUT), NUMBER(LAPIDARY_ERROR_CPU),
    NUMBER(LAPIDARY_ERROR_ABI), NUMBER(LAPIDARY_ERROR_WEIGHTS), NUMBER(LAPIDARY_ERROR_THREADS),
    NUMBER(LAPIDARY_ERROR_INTERNAL), NUMBER(LAPIDARY_ERROR_BUSY),
    NUMBER(LAPIDARY_CPU_AVX2), NUMBER(LAPIDARY_CPU_AVX512), NUMBER(LAPIDARY_CPU_AMX_INT8),
    NUMBER(LAPIDARY_CPU_AVX512_VBMI), NUMBER(LAPIDARY_CPU_ARM_BF16), NUMBER(LAPIDARY_CPU_BASE),
    {NULL, 0},
};
