/* Lapidary: operators of your own, in C.
 *
 * An operator is a `lapidary_operator`: its domain and name, a function that types its nodes while a
 * model is compiled, and a kernel that computes them while it runs. The command finds operators in a
 * shared library that exports a NULL-terminated array
 *
 *     const lapidary_operator *const lapidary_operators[] = {&my_operator, NULL};
 *
 * (`--operators libmine.so`). Code in memory calls the kernel there; a compiled library refers to it by its
 * `symbol`, so the object that defines it is linked in (`--link mine.o`).
 *
 * A kernel is called with descriptors of contiguous tensors. An output whose shape was stated has memory;
 * any other has data NULL and gets it by lapidary_output_alloc. A node whose outputs nobody reads is not run. All
 * that a kernel does with the runtime goes through the context's table, so it links against nothing. Layouts are those
 * of docs/abi.md; docs/operators-of-your-own.md is the guide.
 */
#ifndef LAPIDARY_OPERATOR_H
#define LAPIDARY_OPERATOR_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lapidary.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define LAPIDARY_EXPORT __declspec(dllexport)
#else
#define LAPIDARY_EXPORT __attribute__((visibility("default")))
#endif

#define LAPIDARY_OPERATOR_VERSION 1u

/* ---- while a model runs ------------------------------------------------------------------------ */

/* A tensor: contiguous, row-major. Strings: `data` is a lapidary_strings. */
typedef struct lapidary_kernel_tensor {
    void *data;
    int32_t dtype; /* lapidary_dtype */
    int32_t rank; /* -1: not known yet */
    int64_t dims[LAPIDARY_MAX_RANK];
    int64_t strides[LAPIDARY_MAX_RANK];
    int32_t buffer; /* the runtime's */
    int32_t kind; /* the runtime's */
} lapidary_kernel_tensor;

typedef struct lapidary_kernel_string {
    const char *data;
    int64_t bytes;
} lapidary_kernel_string;

/* What `infer` put into the record. */
typedef struct lapidary_kernel_attributes {
    const int64_t *ints;
    const double *floats;
    const lapidary_kernel_string *strings;
    int32_t n_ints;
    int32_t n_floats;
    int32_t n_strings;
    int32_t reserved;
} lapidary_kernel_attributes;

typedef struct lapidary_kernel_context lapidary_kernel_context;

/* A kernel. Absent optional operands are NULL. Not 0: failed, after lapidary_kernel_fail. */
typedef int32_t (*lapidary_kernel_fn)(
    lapidary_kernel_context *context, const lapidary_kernel_tensor *const *in, int32_t n_in,
    lapidary_kernel_tensor *const *out, int32_t n_out, const lapidary_kernel_attributes *attributes, int32_t node);

/* A part of a kernel's work: tasks begin .. end. `worker` is opaque. */
typedef void (*lapidary_kernel_task_fn)(
    void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, void *worker);

/* The head of the runtime's table. */
typedef struct lapidary_kernel_table {
    const lapidary_api *api;
    int32_t (*parallel_for)(
        lapidary_kernel_context *, lapidary_kernel_task_fn, void *const *buffers, const int64_t *dims, int64_t n_tasks,
        int64_t scratch_bytes, int32_t node, int64_t cost_ns);
    void *call_library;
    void *alloc_dynamic;
    int32_t (*fail)(lapidary_kernel_context *, int32_t code, int32_t node, const char *message, int64_t a, int64_t b);
    int32_t (*check)(lapidary_kernel_context *, int32_t node);
    void *reserved[7];
    int32_t (*output_alloc)(
        lapidary_kernel_context *, lapidary_kernel_tensor *, int32_t rank, const int64_t *dims, int32_t node);
    int32_t (*output_alloc_strings)(
        lapidary_kernel_context *, lapidary_kernel_tensor *, int32_t rank, const int64_t *dims, int64_t text_bytes,
        int32_t node);
    void *(*temp)(lapidary_kernel_context *, int64_t bytes, int32_t node);
} lapidary_kernel_table;

static inline const lapidary_kernel_table *lapidary_kernel_table_of(lapidary_kernel_context *context) {
    return *(const lapidary_kernel_table *const *)(const void *)context;
}

/* Gives an output its shape and memory: `out->data` is set, or the error is. Also for an output that has
 * memory already; the shape must then be the stated one. */
static inline int32_t lapidary_output_alloc(
    lapidary_kernel_context *context, lapidary_kernel_tensor *out, int32_t rank, const int64_t *dims, int32_t node) {
    return lapidary_kernel_table_of(context)->output_alloc(context, out, rank, dims, node);
}

/* The same for strings of `text_bytes` in all; the kernel fills offsets and bytes. */
static inline int32_t lapidary_output_alloc_strings(
    lapidary_kernel_context *context, lapidary_kernel_tensor *out, int32_t rank, const int64_t *dims, int64_t text_bytes,
    int32_t node) {
    return lapidary_kernel_table_of(context)->output_alloc_strings(context, out, rank, dims, text_bytes, node);
}

/* 64-byte aligned memory until the kernel returns; NULL after an error. */
static inline void *lapidary_kernel_temp(lapidary_kernel_context *context, int64_t bytes, int32_t node) {
    return lapidary_kernel_table_of(context)->temp(context, bytes, node);
}

/* Sets the error of the run ("{a}" and "{b}" become the numbers) and returns the code to return. */
static inline int32_t lapidary_kernel_fail(
    lapidary_kernel_context *context, int32_t node, const char *message, int64_t a, int64_t b) {
    return lapidary_kernel_table_of(context)->fail(context, LAPIDARY_ERROR_CHECK, node, message, a, b);
}

/* Runs tasks 0 .. n_tasks on the context's threads; `cost_ns` estimates all of them on one core. */
static inline int32_t lapidary_kernel_parallel(
    lapidary_kernel_context *context, lapidary_kernel_task_fn fn, void *const *buffers, const int64_t *dims,
    int64_t n_tasks, int64_t cost_ns, int32_t node) {
    return lapidary_kernel_table_of(context)->parallel_for(context, fn, buffers, dims, n_tasks, 0, node, cost_ns);
}

/* ---- while a model is compiled ------------------------------------------------------------------ */

/* The type of an input. */
typedef struct lapidary_operator_input {
    int32_t present; /* 0: an optional input that is absent */
    int32_t dtype;
    int32_t rank; /* -1: known at run time only */
    int32_t reserved;
    const int64_t *dims; /* `rank` numbers; -1: known at run time only */
} lapidary_operator_input;

/* An attribute, by ONNX's type number: 1 FLOAT, 2 INT, 3 STRING, 6 FLOATS, 7 INTS, 8 STRINGS. A single one
 * is a list of one. Others (tensors, graphs) are not passed. */
typedef struct lapidary_operator_attribute {
    const char *name;
    int32_t type;
    int32_t reserved;
    int64_t n;
    const int64_t *ints;
    const float *floats;
    const lapidary_kernel_string *strings;
} lapidary_operator_attribute;

typedef struct lapidary_operator_node {
    const char *name; /* of the node */
    int64_t opset; /* version of the operator's domain that the model imports; 0: none */
    const lapidary_operator_input *inputs;
    const lapidary_operator_attribute *attributes;
    int32_t n_inputs;
    int32_t n_attributes;
    int32_t n_outputs;
    int32_t reserved;
} lapidary_operator_node;

/* A dimension of an output: a number (value >= 0), that of an input's axis (value -1, input >= 0), or the
 * kernel's to say (both -1). */
typedef struct lapidary_operator_dim {
    int64_t value;
    int32_t input;
    int32_t axis;
} lapidary_operator_dim;

typedef struct lapidary_operator_output {
    int32_t dtype;
    int32_t rank; /* -1: the kernel's to say */
    lapidary_operator_dim dims[LAPIDARY_MAX_RANK];
} lapidary_operator_output;

#define LAPIDARY_OPERATOR_NUMBERS 256
#define LAPIDARY_OPERATOR_STRINGS 64

/* What `infer` fills: it finds zeros, and an entry of `outputs` for each output of the node, with no element type (it
 * must be set), and rank and dims that are the kernel's to say. */
typedef struct lapidary_operator_types {
    lapidary_operator_output *outputs;
    /* The record that the kernel gets. Strings are copied after `infer` returns. */
    int64_t ints[LAPIDARY_OPERATOR_NUMBERS];
    double floats[LAPIDARY_OPERATOR_NUMBERS];
    lapidary_kernel_string strings[LAPIDARY_OPERATOR_STRINGS];
    int32_t n_ints;
    int32_t n_floats;
    int32_t n_strings;
    int32_t reserved;
    char error[256]; /* why the node is refused */
} lapidary_operator_types;

typedef struct lapidary_operator {
    uint32_t struct_bytes; /* sizeof(lapidary_operator) */
    uint32_t version; /* LAPIDARY_OPERATOR_VERSION */
    const char *domain;
    const char *name;
    /* 0: typed. Otherwise the node is refused with types->error. Called for each node, in one thread. */
    int32_t (*infer)(const lapidary_operator_node *node, lapidary_operator_types *types);
    lapidary_kernel_fn run;
    const char *symbol; /* the link name of `run`; NULL: it cannot go into a compiled library */
} lapidary_operator;

/* The list, NULL at its end. Declared here, so that it is exported as it is, from C++ too. */
LAPIDARY_EXPORT extern const lapidary_operator *const lapidary_operators[];

/* Refuses a node: `return lapidary_operator_refuse(types, "…")`. */
static inline int32_t lapidary_operator_refuse(lapidary_operator_types *types, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(types->error, sizeof types->error, format, list);
    va_end(list);
    return 1;
}

/* The attribute of this name, or NULL. */
static inline const lapidary_operator_attribute *lapidary_operator_find(
    const lapidary_operator_node *node, const char *name) {
    for (int32_t i = 0; i < node->n_attributes; i++) {
        if (strcmp(node->attributes[i].name, name) == 0) return &node->attributes[i];
    }
    return NULL;
}

/* Gives an output the type of an input. */
static inline void lapidary_operator_like(
    const lapidary_operator_node *node, lapidary_operator_output *output, int32_t input) {
    const lapidary_operator_input *from = &node->inputs[input];
    output->dtype = from->dtype;
    output->rank = from->rank;
    for (int32_t axis = 0; axis < from->rank && axis < LAPIDARY_MAX_RANK; axis++) {
        lapidary_operator_dim dim = {-1, input, axis};
        output->dims[axis] = dim;
    }
}

#ifdef __cplusplus
}
#endif
#endif
