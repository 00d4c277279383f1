/* Lapidary: the C interface of a compiled model.
 *
 * A compiled library exports one symbol, `lapidary_model_<name>`, a `lapidary_model`. All functions
 * below are inline calls through the function table that the model carries, so a program links (or
 * opens) the library and needs nothing else:
 *
 *     extern const lapidary_model lapidary_model_resnet50;
 *     lapidary_context *context;
 *     lapidary_context_create(&lapidary_model_resnet50, NULL, &context);
 *     lapidary_set_input(context, 0, &image);
 *     lapidary_run(context);
 *     const lapidary_tensor *scores = lapidary_output(context, 0);
 *
 * A context runs one thing at a time; contexts of one model share code and weights and may run
 * concurrently. No function aborts; each returns a `lapidary_code`, and `lapidary_last_error` has the
 * text. The binary layout of everything here is fixed by docs/abi.md.
 */
#ifndef LAPIDARY_H
#define LAPIDARY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LAPIDARY_ABI_VERSION 2u
#define LAPIDARY_MAX_RANK 16

/* ---- values ---------------------------------------------------------------------------------- */

/* A tensor is DLPack's DLTensor. Include <dlpack/dlpack.h> first and `lapidary_tensor` *is* DLTensor;
 * otherwise it is a struct of the same layout (a pointer cast is enough, in either order). */
#ifdef DLPACK_DLPACK_H_
typedef DLDevice lapidary_device;
typedef DLDataType lapidary_dltype;
typedef DLTensor lapidary_tensor;
#else
typedef struct lapidary_device {
    int32_t device_type; /* 1: CPU */
    int32_t device_id;
} lapidary_device;
typedef struct lapidary_dltype {
    uint8_t code; /* DLDataTypeCode */
    uint8_t bits;
    uint16_t lanes;
} lapidary_dltype;
typedef struct lapidary_tensor {
    void *data;
    lapidary_device device;
    int32_t ndim;
    lapidary_dltype dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: contiguous, row-major */
    uint64_t byte_offset;
} lapidary_tensor;
#endif

/* Element types, with ONNX's numbers. Types of less than a byte take a byte each. */
typedef enum lapidary_dtype {
    LAPIDARY_F32 = 1,
    LAPIDARY_U8 = 2,
    LAPIDARY_I8 = 3,
    LAPIDARY_U16 = 4,
    LAPIDARY_I16 = 5,
    LAPIDARY_I32 = 6,
    LAPIDARY_I64 = 7,
    LAPIDARY_STRING = 8,
    LAPIDARY_BOOL = 9,
    LAPIDARY_F16 = 10,
    LAPIDARY_F64 = 11,
    LAPIDARY_U32 = 12,
    LAPIDARY_U64 = 13,
    LAPIDARY_C64 = 14,
    LAPIDARY_C128 = 15,
    LAPIDARY_BF16 = 16,
    LAPIDARY_F8E4M3FN = 17,
    LAPIDARY_F8E4M3FNUZ = 18,
    LAPIDARY_F8E5M2 = 19,
    LAPIDARY_F8E5M2FNUZ = 20,
    LAPIDARY_U4 = 21,
    LAPIDARY_I4 = 22,
    LAPIDARY_F4E2M1 = 23,
    LAPIDARY_F8E8M0 = 24,
    LAPIDARY_U2 = 25,
    LAPIDARY_I2 = 26,
    LAPIDARY_F6E2M3 = 27,
    LAPIDARY_F6E3M2 = 28
} lapidary_dtype;

/* The kinds of value. */
typedef enum lapidary_kind {
    LAPIDARY_KIND_TENSOR = 0,
    LAPIDARY_KIND_SEQUENCE = 1,
    LAPIDARY_KIND_OPTIONAL = 2,
    LAPIDARY_KIND_MAP = 3
} lapidary_kind;

/* The data of a string tensor: element i is bytes[offsets[i] .. offsets[i + 1]], UTF-8, no NUL. In a
 * lapidary_tensor its dtype is {code 3 (opaque handle), bits 64, lanes 1} and `data` points here. */
typedef struct lapidary_strings {
    const int64_t *offsets;
    const char *bytes;
} lapidary_strings;

typedef struct lapidary_value {
    int32_t kind; /* lapidary_kind */
    int32_t present; /* optional: 0 or 1; otherwise 1 */
    int64_t length; /* tensor: 1; optional: 0 or 1; sequence: items; map: 2 (keys, values) */
    union {
        const lapidary_tensor *tensor;
        /* `length` values. Of a map: the keys, a vector, and the values: a vector, or a sequence of containers. */
        const struct lapidary_value *items;
    } u;
} lapidary_value;

/* ---- errors ---------------------------------------------------------------------------------- */

typedef enum lapidary_code {
    LAPIDARY_OK = 0,
    LAPIDARY_ERROR_ARGUMENT = 1, /* a bad argument to a function: NULL, an index out of range */
    LAPIDARY_ERROR_INPUT = 2, /* an input is missing, or its dtype, rank or dims do not fit */
    LAPIDARY_ERROR_OUTPUT = 3, /* a bound output does not fit what the model makes */
    LAPIDARY_ERROR_CHECK = 4, /* a check of the model failed in a run (shape or value); names the node */
    LAPIDARY_ERROR_INDEX = 5, /* an index read from data is out of range; names the node */
    LAPIDARY_ERROR_MEMORY = 6, /* out of memory, or above the memory limit (needed and limit in `a`, `b`) */
    LAPIDARY_ERROR_CANCELLED = 7,
    LAPIDARY_ERROR_TIMEOUT = 8,
    LAPIDARY_ERROR_CPU = 9, /* this processor lacks what the model was compiled for */
    LAPIDARY_ERROR_ABI = 10, /* another ABI version */
    LAPIDARY_ERROR_WEIGHTS = 11, /* the weights file is missing, belongs to another build, or shrank while in use */
    LAPIDARY_ERROR_THREADS = 12, /* threads could not be started */
    LAPIDARY_ERROR_INTERNAL = 13,
    LAPIDARY_ERROR_BUSY = 14 /* the context is running (in another thread) */
} lapidary_code;

typedef struct lapidary_error {
    int32_t code;
    int32_t node; /* index of the model's node, or -1 */
    int64_t a, b; /* the two numbers the message speaks of, where it does */
    const char *node_name; /* NULL where no node is to blame */
    const char *message; /* UTF-8; valid until the next call on the context */
} lapidary_error;

/* ---- processor features (bits of lapidary_model.cpu_features) --------------------------------- */

#define LAPIDARY_CPU_X86_V2 (1ull << 0) /* SSE3, SSSE3, SSE4.1, SSE4.2, POPCNT */
#define LAPIDARY_CPU_AVX2 (1ull << 1) /* AVX2, FMA, F16C, BMI1, BMI2 */
#define LAPIDARY_CPU_AVX512 (1ull << 2) /* AVX-512 F, BW, DQ, VL, CD */
#define LAPIDARY_CPU_AVX512_VNNI (1ull << 3)
#define LAPIDARY_CPU_AVX_VNNI (1ull << 4)
#define LAPIDARY_CPU_AVX512_BF16 (1ull << 5)
#define LAPIDARY_CPU_AVX512_FP16 (1ull << 6)
#define LAPIDARY_CPU_AMX_TILE (1ull << 7)
#define LAPIDARY_CPU_AMX_BF16 (1ull << 8)
#define LAPIDARY_CPU_AMX_INT8 (1ull << 9)
#define LAPIDARY_CPU_AVX512_VBMI (1ull << 10)
#define LAPIDARY_CPU_ARM_DOTPROD (1ull << 32)
#define LAPIDARY_CPU_ARM_FP16 (1ull << 33)
#define LAPIDARY_CPU_ARM_I8MM (1ull << 34)
#define LAPIDARY_CPU_ARM_BF16 (1ull << 35)
#define LAPIDARY_CPU_BASE (1ull << 62) /* what every processor of the architecture has: no feature but this */

/* The instruction sets that generated code is made for, each with those before it. */
typedef enum lapidary_cpu_level {
    LAPIDARY_LEVEL_BASELINE = 0, /* on x86-64 x86-64-v2 */
    LAPIDARY_LEVEL_V3 = 1, /* x86-64-v3: with LAPIDARY_CPU_AVX2 */
    LAPIDARY_LEVEL_V4 = 2 /* x86-64-v4: with LAPIDARY_CPU_AVX512 */
} lapidary_cpu_level;

/* ---- the model ------------------------------------------------------------------------------- */

typedef struct lapidary_context lapidary_context;
typedef struct lapidary_pool lapidary_pool;
typedef struct lapidary_options lapidary_options;
typedef struct lapidary_api lapidary_api;

typedef struct lapidary_value_info {
    const char *name;
    int32_t dtype; /* lapidary_dtype */
    int32_t rank; /* -1: any */
    const int64_t *dims; /* `rank` numbers; -1: free */
    const char *const *dim_names; /* `rank` pointers, NULL where a dim has no name; or NULL */
    const int32_t *containers; /* NULL: a tensor; otherwise {n, n lapidary_kinds from the outside in, a map's key dtype} */
} lapidary_value_info;

/* The public head of a model table; what follows it in memory belongs to the runtime. */
typedef struct lapidary_model {
    uint32_t abi_version;
    uint32_t table_bytes;
    uint64_t cpu_features;
    const lapidary_api *api;
    const char *name;
    int32_t n_inputs;
    int32_t n_outputs;
    const lapidary_value_info *inputs;
    const lapidary_value_info *outputs;
} lapidary_model;

/* ---- threads --------------------------------------------------------------------------------- */

/* A part of the work: tasks begin .. end, on worker `worker`. */
typedef void (*lapidary_task_fn)(void *env, int64_t begin, int64_t end, int32_t worker);

/* A host's own pool: call `fn` until each of the tasks 0 .. n_tasks was handed out exactly once, and
 * return when all calls are over. `worker` is in 0 .. n_workers; no two calls of one worker overlap. */
typedef void (*lapidary_parallel_for_fn)(
    void *host, lapidary_task_fn fn, void *env, int64_t n_tasks, int32_t n_workers);

/* ---- weights that are in no file ------------------------------------------------------------- */

/* Reads `bytes` bytes from `offset` on of what would be the weights file, whose head has 64 bytes. 0: done. */
typedef int32_t (*lapidary_read_weights_fn)(void *host, int64_t offset, void *into, int64_t bytes);

/* How a context is made. Zero is the default of every field; set struct_bytes to the size. */
struct lapidary_options {
    uint32_t struct_bytes;
    int32_t threads; /* workers with the caller; 0: one per processor available; 1: no pool */
    lapidary_pool *pool; /* a pool shared by contexts, instead of `threads` */
    lapidary_parallel_for_fn parallel_for; /* the host's pool, instead of both */
    void *host; /* its first argument */
    int32_t host_workers; /* its number of workers, at least 1 */
    uint32_t flags; /* LAPIDARY_VERIFY_WEIGHTS, LAPIDARY_NO_FAULT_HANDLER, LAPIDARY_GUARD_MEMORY */
    int64_t memory_limit; /* bytes that a context may hold; 0: no limit */
    int64_t timeout_ns; /* of each run; 0: none */
    const char *weights_path; /* the weights file; NULL: beside the library */
    char *error_text; /* where a failed creation writes its message; or NULL */
    size_t error_text_bytes;
    /* Of a model with a weights file, instead of the file (and of weights_path): a reader, called while the context is
     * made; contexts that name the same reader and host share what it read. */
    lapidary_read_weights_fn read_weights;
    void *weights_host; /* its first argument */
    /* Or the bytes of the weights file in memory, which stay as long as the context; used where they are if they begin
     * at a multiple of 64, else copied. */
    const void *weights;
    size_t weights_bytes;
    /* The features that the context's code may use, LAPIDARY_CPU_*; 0: all that the processor has. One that it lacks is
     * LAPIDARY_ERROR_CPU. For tests, and to measure what a lesser processor would run. */
    uint64_t cpu_features;
};
#define LAPIDARY_VERIFY_WEIGHTS 1u /* hash the whole weights file, not its header alone */
/* No handler of SIGBUS for this context's weights file: if the file is cut short while it is in use, the signal is
 * the host's (docs/abi.md, "A file that shrinks"). */
#define LAPIDARY_NO_FAULT_HANDLER 2u
/* For tests: every buffer of the context is memory of its own, filled with 0xa5 and followed by a page that cannot be
 * touched; a run that has written behind one fails with LAPIDARY_ERROR_INTERNAL (docs/abi.md, "Guarded memory"). Slow. */
#define LAPIDARY_GUARD_MEMORY 4u

/* ---- functions: do not call through the table, use the inline functions below ------------------- */

struct lapidary_api {
    uint32_t abi_version;
    uint32_t api_bytes;
    int32_t (*context_create)(const lapidary_model *, const lapidary_options *, lapidary_context **);
    void (*context_destroy)(lapidary_context *);
    int32_t (*pool_create)(int32_t threads, lapidary_pool **);
    void (*pool_destroy)(lapidary_pool *);
    int32_t (*set_input)(lapidary_context *, int32_t, const lapidary_tensor *);
    int32_t (*bind_output)(lapidary_context *, int32_t, const lapidary_tensor *);
    int32_t (*query_outputs)(lapidary_context *);
    int32_t (*run)(lapidary_context *);
    const lapidary_tensor *(*output)(lapidary_context *, int32_t);
    void (*last_error)(lapidary_context *, lapidary_error *);
    int32_t (*set_cancel)(lapidary_context *, int32_t);
    int32_t (*set_timeout)(lapidary_context *, int64_t);
    int32_t (*set_memory_limit)(lapidary_context *, int64_t);
    int64_t (*memory_used)(lapidary_context *);
    uint64_t (*cpu_features)(void);
    int32_t (*set_value)(lapidary_context *, int32_t, const lapidary_value *);
    const lapidary_value *(*output_value)(lapidary_context *, int32_t);
    int32_t (*reset_states)(lapidary_context *);
    const char *(*variant)(lapidary_context *);
    int32_t (*cpu_level)(lapidary_context *);
};

/* The head of a context: how the inline functions find the table. */
struct lapidary_context_head {
    const struct lapidary_runtime_head {
        const lapidary_api *api;
    } *runtime;
};

static inline const lapidary_api *lapidary_api_of(const lapidary_context *context) {
    return ((const struct lapidary_context_head *)(const void *)context)->runtime->api;
}

/* Makes a context. `options` may be NULL. Checks the ABI version and the processor first. */
static inline int32_t lapidary_context_create(
    const lapidary_model *model, const lapidary_options *options, lapidary_context **context) {
    if (!model || !context) return LAPIDARY_ERROR_ARGUMENT;
    *context = NULL;
    if (model->abi_version != LAPIDARY_ABI_VERSION) return LAPIDARY_ERROR_ABI;
    return model->api->context_create(model, options, context);
}

static inline void lapidary_context_destroy(lapidary_context *context) {
    if (context) lapidary_api_of(context)->context_destroy(context);
}

/* A pool that several contexts share; destroy it after them. */
static inline int32_t lapidary_pool_create(const lapidary_model *model, int32_t threads, lapidary_pool **pool) {
    if (!model || model->abi_version != LAPIDARY_ABI_VERSION) return LAPIDARY_ERROR_ABI;
    return model->api->pool_create(threads, pool);
}

static inline void lapidary_pool_destroy(const lapidary_model *model, lapidary_pool *pool) {
    if (pool) model->api->pool_destroy(pool);
}

/* Sets input `index` for this and later runs. The shape is copied, the data is borrowed until the run
 * ends (or another tensor is set). Any strides; data may be NULL if only shapes are to be queried. An input with a
 * default (the generated header says so) need not be set; a `tensor` of NULL gives it its default again. */
static inline int32_t lapidary_set_input(lapidary_context *context, int32_t index, const lapidary_tensor *tensor) {
    return lapidary_api_of(context)->set_input(context, index, tensor);
}

/* States (the generated header says which) are outputs that are inputs of the next run. Their inputs need not be set: the
 * context keeps them. Setting one gives it another value, copied at once; NULL its initial value. Their outputs cannot be
 * bound; `lapidary_output` gives them as views whose strides count. A run that fails changes none. This makes
 * all of them as they were in a new context: without rows along the axis on which they grow, or the default. Random numbers
 * of a seed begin again too. */
static inline int32_t lapidary_reset_states(lapidary_context *context) {
    return lapidary_api_of(context)->reset_states(context);
}

/* The variant of the code that the last run took: the dims that it is specialised for, such as "batch=1 seq=128", or
 * "general". NULL before a run, and after one that failed. */
static inline const char *lapidary_variant(lapidary_context *context) {
    return lapidary_api_of(context)->variant(context);
}

/* The level of the code that the context runs, a lapidary_cpu_level: the highest that the model has code for and
 * the processor (or the option `cpu_features`) allows. */
static inline int32_t lapidary_context_level(lapidary_context *context) {
    return lapidary_api_of(context)->cpu_level(context);
}

/* Makes runs write output `index` into the caller's contiguous memory; NULL gives it back to the context. */
static inline int32_t lapidary_bind_output(lapidary_context *context, int32_t index, const lapidary_tensor *tensor) {
    return lapidary_api_of(context)->bind_output(context, index, tensor);
}

/* Computes the shapes of the outputs from those of the inputs, without a run: `lapidary_output` then
 * gives tensors without data, ndim -1 where the shape depends on data. */
static inline int32_t lapidary_query_outputs(lapidary_context *context) {
    return lapidary_api_of(context)->query_outputs(context);
}

static inline int32_t lapidary_run(lapidary_context *context) {
    return lapidary_api_of(context)->run(context);
}

/* Output `index` of the last run; valid until the next call that runs or queries. NULL: none. */
static inline const lapidary_tensor *lapidary_output(lapidary_context *context, int32_t index) {
    return lapidary_api_of(context)->output(context, index);
}

/* The same for an input that is a sequence, an optional or a map; all of it is copied. An optional without a
 * value has present 0 and length 0. */
static inline int32_t lapidary_set_value(lapidary_context *context, int32_t index, const lapidary_value *value) {
    return lapidary_api_of(context)->set_value(context, index, value);
}

/* Output `index` of the last run as a value of any kind; valid until the next call that runs or queries. NULL: none. */
static inline const lapidary_value *lapidary_output_value(lapidary_context *context, int32_t index) {
    return lapidary_api_of(context)->output_value(context, index);
}

/* The last error of the context; code LAPIDARY_OK if its last call succeeded. */
static inline void lapidary_last_error(lapidary_context *context, lapidary_error *error) {
    lapidary_api_of(context)->last_error(context, error);
}

/* While `on` is not zero runs end with LAPIDARY_ERROR_CANCELLED, the present one too. Any thread may call. */
static inline int32_t lapidary_set_cancel(lapidary_context *context, int32_t on) {
    return lapidary_api_of(context)->set_cancel(context, on);
}

/* The time that each later run may take, in nanoseconds; 0: no limit. */
static inline int32_t lapidary_set_timeout(lapidary_context *context, int64_t nanoseconds) {
    return lapidary_api_of(context)->set_timeout(context, nanoseconds);
}

/* The bytes that the context may hold; 0: no limit. Checked before memory is taken. */
static inline int32_t lapidary_set_memory_limit(lapidary_context *context, int64_t bytes) {
    return lapidary_api_of(context)->set_memory_limit(context, bytes);
}

/* Bytes that the context holds now: arena, its own outputs, copies of inputs, scratch. No weights. */
static inline int64_t lapidary_memory_used(lapidary_context *context) {
    return lapidary_api_of(context)->memory_used(context);
}

#ifdef __cplusplus
}
#endif
#endif
