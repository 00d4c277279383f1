/* What generated code, library kernels and the runtime share: the layouts of docs/abi.md.
 *
 * Generated code reads and writes these structs by offset, so each offset it uses is asserted here
 * and mirrored in the Rust module `abi`. A new field goes to the end; a change of any offset is a new
 * LAPIDARY_ABI_VERSION. This header knows nothing of the operating system (that is os.h).
 */
#ifndef LAP_INTERNAL_H
#define LAP_INTERNAL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "lapidary.h"

#define LAP_MAX_RANK LAPIDARY_MAX_RANK
#define LAP_ALIGN 64 /* of buffers, scratch, weights */

typedef struct lap_context lap_context;
typedef struct lap_rt lap_rt;

/* ---- kernels --------------------------------------------------------------------------------- */

/* Why a kernel gave up. Kind 0: it did not. The first fault of a worker stays. */
typedef struct lap_fault {
    int32_t kind; /* lap_fault_kind */
    int32_t operand;
    int64_t value;
    int64_t limit;
} lap_fault;

typedef enum lap_fault_kind {
    LAP_FAULT_NONE = 0,
    LAP_FAULT_INDEX = 1, /* `value` of operand `operand` is not in [-limit, limit) */
    LAP_FAULT_VALUE = 2, /* `value` of operand `operand` is not allowed; `limit` is the bound */
    LAP_FAULT_DIVIDE = 3, /* integer division by zero */
    LAP_FAULT_MEMORY = 4, /* `value` bytes could not be had */
    LAP_FAULT_SHAPE = 5 /* a dim of operand `operand` is `value`, and `limit` was expected */
} lap_fault_kind;

/* A thread of a section, as kernels see it. */
typedef struct lap_worker {
    uint8_t *scratch; /* 64-byte aligned, at least what the call asked for */
    int64_t scratch_bytes;
    lap_fault fault;
    int32_t index;
    int32_t level; /* that of the context: lap_level */
    const lap_rt *rt;
    const _Atomic int32_t *cancel; /* not zero: give up (a long kernel may look) */
} lap_worker;

/* The one ABI of kernels: tasks task_begin .. task_end of the nest. */
typedef void (*lap_kernel)(
    void *const *buffers, const int64_t *dims, int64_t task_begin, int64_t task_end, lap_worker *worker);

/* ---- tensors --------------------------------------------------------------------------------- */

/* What a descriptor or an object holds. */
typedef enum lap_kind { LAP_KIND_TENSOR = 0, LAP_KIND_SEQUENCE = 1, LAP_KIND_OPTIONAL = 2, LAP_KIND_MAP = 3 } lap_kind;

/* A tensor descriptor. Inside a run every descriptor is contiguous and row-major. */
typedef struct lap_tensor {
    void *data;
    int32_t dtype; /* lapidary_dtype */
    int32_t rank; /* -1: not known yet */
    int64_t dims[LAP_MAX_RANK];
    int64_t strides[LAP_MAX_RANK]; /* in elements */
    int32_t buffer; /* the arena buffer behind it, or -1 */
    int32_t kind; /* lap_kind; not LAP_KIND_TENSOR: `data` is a lap_object, dtype that of its tensors, rank -1 */
} lap_tensor;

/* A library kernel. NULL in `in` or `out`: an optional operand that is absent. An output with data NULL
 * is the kernel's to allocate (lap_output_alloc). Not zero: failed, after lap_fail. */
typedef int32_t (*lap_library_fn)(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, lap_tensor *const *out, int32_t n_out,
    const void *attrs, int32_t node_id);

/* Defines a library kernel. The build finds these lines and makes the table by which the JIT knows
 * the kernel's address, so write it at the start of a line. */
#define LAP_LIBRARY_KERNEL(name)                                                                       \
    int32_t name(                                                                                      \
        lap_context *ctx, const lap_tensor *const *in, int32_t n_in, lap_tensor *const *out,           \
        int32_t n_out, const void *attrs, int32_t node_id)

/* Defines a kernel in C with the kernel ABI; found by the build in the same way. */
#define LAP_KERNEL(name)                                                                               \
    void name(                                                                                         \
        void *const *buffers, const int64_t *dims, int64_t task_begin, int64_t task_end,               \
        lap_worker *worker)

/* ---- the context: generated code's view -------------------------------------------------------- */

/* The head of a context. The runtime keeps its own state behind it (context.h). */
struct lap_context {
    const lap_rt *rt;
    int64_t *dims; /* n_dims slots: symbols by bind, derived ones by dims_fn */
    int64_t *sizes; /* bytes of each buffer, by dims_fn; -1: alloc_dynamic gives it */
    void **buffers; /* address of each buffer, by the runtime */
    const uint8_t *weights;
    lap_tensor *inputs; /* contiguous */
    lap_tensor *outputs; /* rank and dims by dims_fn, data by the runtime */
    lap_tensor *descs; /* n_descs descriptors, filled by generated code */
    _Atomic int32_t cancel; /* not zero: call rt->check */
    int32_t level; /* lapidary_cpu_level: the highest that code of this context may use; see lap_level */
    const struct lap_model_table *model;
};

/* ---- the model table ------------------------------------------------------------------------- */

/* Axis `axis` of input `input` is `fixed`, or (fixed -1) the symbol in dims slot `slot`: the first that
 * names a slot sets it, later ones must agree. slot -1: free and not wanted. */
typedef struct lap_dim_bind {
    int32_t input;
    int32_t axis;
    int64_t fixed;
    int32_t slot;
    int32_t reserved;
} lap_dim_bind;

typedef struct lap_segment {
    int32_t (*dims_fn)(lap_context *ctx); /* writes dims, sizes, outputs; NULL: nothing to do */
    int32_t (*run_fn)(lap_context *ctx);
    int64_t reserved;
} lap_segment;

/* A buffer lives in one segment, from step `first` to step `last` (both included). One that later
 * segments read has last INT32_MAX. */
typedef struct lap_buffer_info {
    int32_t segment;
    int32_t first;
    int32_t last;
    int32_t output; /* the output that it is, or -1 */
} lap_buffer_info;

/* What an input is if it is not set: contiguous, of the input's type. */
typedef struct lap_default {
    int32_t input;
    int32_t rank;
    const int64_t *dims; /* rank */
    const void *data; /* NULL: at `offset` of the weights */
    int64_t offset;
} lap_default;

/* Output `output` of a run is input `input` of the next; the context keeps it. Along `axis` it grows (-1: it does not, or
 * the runtime does not know where). `store` -1: it lies in two memories that change places. Otherwise the code reads
 * and writes it as input `store`, which has n_inputs or more as its number: its shape is the input's, but along `axis` its extent
 * is the capacity, in dims slot `capacity`. */
typedef struct lap_state {
    int32_t input;
    int32_t output;
    int32_t axis;
    int32_t store;
    int32_t capacity;
    int32_t reserved;
} lap_state;

typedef struct lap_model_table {
    lapidary_model head;
    int32_t n_dims;
    int32_t n_dim_binds;
    const lap_dim_bind *dim_binds;
    int32_t n_segments;
    int32_t n_buffers;
    const lap_segment *segments;
    const lap_buffer_info *buffers;
    int32_t n_descs;
    int32_t n_nodes;
    const char *const *node_names; /* n_nodes */
    const uint8_t *weights; /* 64-byte aligned blob, or NULL: weights_file, or none */
    const char *weights_file; /* a file name without folder, or NULL */
    int64_t weights_bytes;
    uint64_t weights_hash; /* lap_hash64 of the blob */
    const lap_default *defaults; /* n_defaults */
    int64_t n_defaults;
    int64_t weights_offset; /* of a region's body: where its constants begin in the model's blob */
    const lap_state *states; /* n_states */
    int32_t n_states;
    int32_t n_variants;
    const struct lap_model_table *const *variants; /* n_variants, the first whose fixed dims fit runs */
    uint64_t levels; /* bit n: kernels are there for level n; of several, the code takes by lap_level */
} lap_model_table;

/* The head of a weights file; the blob follows at byte 64. */
typedef struct lap_weights_header {
    uint8_t magic[8]; /* "LAPIDWTS" */
    uint32_t version; /* 1 */
    uint32_t reserved;
    uint64_t bytes;
    uint64_t hash;
    uint64_t padding[4];
} lap_weights_header;

/* ---- the function table ------------------------------------------------------------------------ */

typedef double (*lap_f64_fn)(double);
typedef double (*lap_f64_fn2)(double, double);
typedef float (*lap_f32_fn)(float);
typedef float (*lap_f32_fn2)(float, float);

struct lap_rt {
    const lapidary_api *api;
    /* Runs the kernel over tasks 0 .. n_tasks. `cost`: estimated nanoseconds on one core for all tasks. */
    int32_t (*parallel_for)(
        lap_context *ctx, lap_kernel kernel, void *const *buffers, const int64_t *dims, int64_t n_tasks,
        int64_t scratch_bytes, int32_t node_id, int64_t cost);
    /* Calls a library kernel, after filling the strides of its descriptors. */
    int32_t (*call_library)(
        lap_context *ctx, lap_library_fn fn, const lap_tensor *const *in, int32_t n_in,
        lap_tensor *const *out, int32_t n_out, const void *attrs, int32_t node_id);
    /* Memory for a buffer whose size only the code knows; NULL after an error. Lives as the context. */
    void *(*alloc_dynamic)(lap_context *ctx, int32_t buffer, int64_t bytes);
    /* Sets the error ("{a}" and "{b}" in the message become the numbers) and returns the code. */
    int32_t (*fail)(lap_context *ctx, int32_t code, int32_t node_id, const char *message, int64_t a, int64_t b);
    /* Not zero: cancelled or late, with the error set. For the back-edges of loops. */
    int32_t (*check)(lap_context *ctx, int32_t node_id);
    void *reserved_6;
    void *(*memcpy)(void *to, const void *from, size_t bytes);
    void *(*memmove)(void *to, const void *from, size_t bytes);
    void *(*memset)(void *to, int byte, size_t bytes);
    void *reserved[3];
    /* For kernels outside of this archive (lapidary_operator.h); the others call the functions below. */
    int32_t (*output_alloc)(lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id);
    int32_t (*output_alloc_strings)(
        lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t text_bytes, int32_t node_id);
    void *(*temp)(lap_context *ctx, int64_t bytes, int32_t node_id);

    lap_f64_fn exp, log, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh, erf;
    lap_f64_fn exp2, log2, expm1, log1p, floor, ceil, trunc, rint, sqrt, cbrt, lgamma;
    lap_f64_fn2 pow, fmod, atan2;
    lap_f32_fn expf, logf, sinf, cosf, tanf, asinf, acosf, atanf, sinhf, coshf, tanhf, asinhf, acoshf, atanhf, erff;
    lap_f32_fn floorf, ceilf, truncf, rintf, sqrtf;
    lap_f32_fn2 powf, fmodf, atan2f;
    /* Narrow floats, for code without the instructions: round to nearest even. */
    uint32_t (*f32_to_f16)(float value);
    float (*f16_to_f32)(uint32_t bits);
    uint32_t (*f32_to_bf16)(float value);
    float (*bf16_to_f32)(uint32_t bits);
    double (*fmaf64)(double a, double b, double c);
    float (*fmaf32)(float a, float b, float c);
};

/* ---- functions for library kernels -------------------------------------------------------------- */

int32_t lap_parallel_for(
    lap_context *ctx, lap_kernel kernel, void *const *buffers, const int64_t *dims, int64_t n_tasks,
    int64_t scratch_bytes, int32_t node_id, int64_t cost);
int32_t lap_call_library(
    lap_context *ctx, lap_library_fn fn, const lap_tensor *const *in, int32_t n_in,
    lap_tensor *const *out, int32_t n_out, const void *attrs, int32_t node_id);
void *lap_alloc_dynamic(lap_context *ctx, int32_t buffer, int64_t bytes);
int32_t lap_fail(lap_context *ctx, int32_t code, int32_t node_id, const char *message, int64_t a, int64_t b);
int32_t lap_check(lap_context *ctx, int32_t node_id);
/* How often this was asked before in the life of the context, bodies of regions included. */
uint64_t lap_draw(lap_context *ctx);
/* A number that another context, in this process or a later one, is unlikely to have. The same for all of the context's life. */
uint64_t lap_entropy(lap_context *ctx);

/* Gives an output its shape and its data: `out->data` is set, or the error is. If the buffer's size
 * was known before, the shape must agree with it. Call at most once an output. */
int32_t lap_output_alloc(lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id);
/* The same for strings of `text_bytes` in all: `out->data` is a lapidary_strings whose offsets (all 0) and
 * bytes the kernel fills, through casts that take the const away. */
int32_t lap_output_alloc_strings(
    lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t text_bytes, int32_t node_id);
/* Memory that lives until the library kernel returns; 64-byte aligned; NULL after an error. */
void *lap_temp(lap_context *ctx, int64_t bytes, int32_t node_id);

/* Bytes of an element; 0 for strings and unknown numbers. */
int64_t lap_dtype_bytes(int32_t dtype);
/* The product of the dims; -1 if it overflows or a dim is negative. */
int64_t lap_count(int32_t rank, const int64_t *dims);
/* Fills row-major strides. */
void lap_contiguous_strides(lap_tensor *tensor);
/* The content hash of weights. */
uint64_t lap_hash64(const void *data, size_t bytes);
/* The features of this processor that the operating system allows (LAPIDARY_CPU_*). What code may use is less where a
 * context is limited: lap_features. */
uint64_t lap_cpu_features(void);
/* The features that code of this context may use: those of the processor, or what the context's options leave of them.
 * Whoever has several codes for one thing chooses by this or by lap_level, in no other way. */
uint64_t lap_features(lap_context *ctx);
/* The same as a level, which workers know too (`worker->level`). */
static inline int32_t lap_level(const lap_context *ctx) { return ctx->level; }
uint32_t lap_f32_to_f16(float value);
float lap_f16_to_f32(uint32_t bits);
uint32_t lap_f32_to_bf16(float value);
float lap_bf16_to_f32(uint32_t bits);

extern const lap_rt lap_runtime_table;
extern const lapidary_api lap_api_table;

/* ---- the offsets that generated code uses -------------------------------------------------------- */

#define LAP_AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
LAP_AT(lap_worker, scratch, 0);
LAP_AT(lap_worker, scratch_bytes, 8);
LAP_AT(lap_worker, fault, 16);
LAP_AT(lap_worker, index, 40);
LAP_AT(lap_worker, level, 44);
LAP_AT(lap_worker, rt, 48);
LAP_AT(lap_worker, cancel, 56);
LAP_AT(lap_fault, kind, 0);
LAP_AT(lap_fault, operand, 4);
LAP_AT(lap_fault, value, 8);
LAP_AT(lap_fault, limit, 16);
LAP_AT(lap_tensor, data, 0);
LAP_AT(lap_tensor, dtype, 8);
LAP_AT(lap_tensor, rank, 12);
LAP_AT(lap_tensor, dims, 16);
LAP_AT(lap_tensor, strides, 144);
LAP_AT(lap_tensor, buffer, 272);
LAP_AT(lap_tensor, kind, 276);
_Static_assert(sizeof(lap_tensor) == 280, "lap_tensor");
LAP_AT(lap_context, rt, 0);
LAP_AT(lap_context, dims, 8);
LAP_AT(lap_context, sizes, 16);
LAP_AT(lap_context, buffers, 24);
LAP_AT(lap_context, weights, 32);
LAP_AT(lap_context, inputs, 40);
LAP_AT(lap_context, outputs, 48);
LAP_AT(lap_context, descs, 56);
LAP_AT(lap_context, cancel, 64);
LAP_AT(lap_context, level, 68);
LAP_AT(lap_context, model, 72);
LAP_AT(lap_rt, parallel_for, 8);
LAP_AT(lap_rt, call_library, 16);
LAP_AT(lap_rt, alloc_dynamic, 24);
LAP_AT(lap_rt, fail, 32);
LAP_AT(lap_rt, check, 40);
LAP_AT(lap_rt, memcpy, 56);
LAP_AT(lap_rt, memmove, 64);
LAP_AT(lap_rt, memset, 72);
LAP_AT(lap_rt, output_alloc, 104);
LAP_AT(lap_rt, output_alloc_strings, 112);
LAP_AT(lap_rt, temp, 120);
LAP_AT(lap_rt, exp, 128);
LAP_AT(lapidary_model, outputs, 48);
LAP_AT(lap_model_table, n_dims, 56);
LAP_AT(lap_model_table, dim_binds, 64);
LAP_AT(lap_model_table, n_segments, 72);
LAP_AT(lap_model_table, segments, 80);
LAP_AT(lap_model_table, buffers, 88);
LAP_AT(lap_model_table, n_descs, 96);
LAP_AT(lap_model_table, node_names, 104);
LAP_AT(lap_model_table, weights, 112);
LAP_AT(lap_model_table, weights_file, 120);
LAP_AT(lap_model_table, weights_bytes, 128);
LAP_AT(lap_model_table, weights_hash, 136);
LAP_AT(lap_model_table, defaults, 144);
LAP_AT(lap_model_table, weights_offset, 160);
_Static_assert(sizeof(lap_default) == 32, "lap_default");
LAP_AT(lap_model_table, states, 168);
LAP_AT(lap_model_table, n_states, 176);
LAP_AT(lap_model_table, variants, 184);
LAP_AT(lap_model_table, levels, 192);
_Static_assert(sizeof(lap_state) == 24, "lap_state");
_Static_assert(sizeof(lap_model_table) == 200, "lap_model_table");
_Static_assert(sizeof(lap_dim_bind) == 24, "lap_dim_bind");
_Static_assert(sizeof(lap_segment) == 24, "lap_segment");
_Static_assert(sizeof(lap_buffer_info) == 16, "lap_buffer_info");
_Static_assert(sizeof(lapidary_value_info) == 40, "lapidary_value_info");
_Static_assert(sizeof(lapidary_tensor) == 48, "lapidary_tensor");
_Static_assert(sizeof(lap_weights_header) == 64, "lap_weights_header");
_Static_assert(sizeof(_Atomic int32_t) == 4, "atomic");

#endif
