/* What library kernels share: attributes, typed access, checks, moves along axes.
 *
 * A kernel checks its operands first (docs/library.md is the contract), gives its outputs their shape
 * (lap_output_alloc, which also accepts memory that is there already), and then computes. All it
 * returns is a code; the text of an error goes through lap_fail.
 */
#ifndef LAP_LIBRARY_H
#define LAP_LIBRARY_H

#include <math.h>
#include <string.h>

#include "lap_attrs.h"
#include "lap_internal.h"

/* Ends the kernel with an error; `a` and `b` are the numbers of the message. */
#define FAIL(code, message, a, b) return lap_fail(ctx, LAPIDARY_ERROR_##code, node_id, message, (int64_t)(a), (int64_t)(b))
#define NEED(condition, message, a, b)                                                                 \
    do {                                                                                               \
        if (!(condition)) FAIL(CHECK, message, a, b);                                                  \
    } while (0)
#define TRY(call)                                                                                      \
    do {                                                                                               \
        int32_t code_ = (call);                                                                        \
        if (code_) return code_;                                                                       \
    } while (0)
/* A temporary of `n` elements, or the end of the kernel. */
#define TEMP(type, name, n)                                                                            \
    type *name = lap_temp(ctx, lap_bytes_of((n), (int64_t)sizeof(type)), node_id);                     \
    if (!name) return LAPIDARY_ERROR_MEMORY

/* Lets a serial loop end with the run's deadline: it tells what it has done, in elements or bytes, and now and then the
 * run is asked. */
typedef struct lap_clock {
    lap_context *ctx;
    int32_t node_id;
    int64_t left;
} lap_clock;
#define LAP_SLICE (INT64_C(1) << 21)
#define CLOCK(name) lap_clock name = {ctx, node_id, LAP_SLICE}
static inline int32_t lap_tick(lap_clock *clock, int64_t work) {
    clock->left -= work;
    if (clock->left > 0) return LAPIDARY_OK;
    clock->left = LAP_SLICE;
    return lap_check(clock->ctx, clock->node_id);
}

static inline int64_t lap_bytes_of(int64_t n, int64_t size) {
    int64_t bytes;
    return n < 0 || __builtin_mul_overflow(n, size, &bytes) ? INT64_MAX : bytes;
}

static inline int64_t lap_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t lap_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t lap_floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

/* Fails unless the call has `inputs` operands that are there and ranked, of `n_in` at most, and the record
 * its numbers. */
int32_t lap_expect(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, int32_t inputs, int32_t n_out, int32_t outputs,
    const lap_attrs *attrs, int32_t ints, int32_t floats, int32_t node_id);
#define EXPECT(inputs, outputs, ints, floats)                                                          \
    const lap_attrs *const at = attrs;                                                                 \
    TRY(lap_expect(ctx, in, n_in, inputs, n_out, outputs, at, ints, floats, node_id));                 \
    (void)at

/* Operand i, or NULL. */
static inline const lap_tensor *lap_opt(const lap_tensor *const *in, int32_t n_in, int32_t i) { return i < n_in ? in[i] : NULL; }
static inline int64_t lap_elements(const lap_tensor *t) { return lap_count(t->rank, t->dims); }
/* The product of dims a .. b (they are those of a tensor that exists, so it does not overflow unless one
 * of the others is 0; -1 then). */
static inline int64_t lap_span(const lap_tensor *t, int32_t a, int32_t b) { return lap_count(b - a, t->dims + a); }

/* Element i of any numeric type. */
double lap_number(const lap_tensor *t, int64_t i);
void lap_set_number(lap_tensor *t, int64_t i, double value);
int lap_is_number(int32_t dtype); /* lap_number takes it */
int lap_is_float(int32_t dtype);
/* Integers of an i32 or i64 (or any integer) tensor into `to`; at most `most`. */
int32_t lap_ints(lap_context *ctx, const lap_tensor *t, int32_t operand, int64_t *to, int64_t most, int64_t *n, int32_t node_id);
/* The only element of an operand. */
int32_t lap_one_int(lap_context *ctx, const lap_tensor *t, int32_t operand, int64_t *to, int32_t node_id);
int32_t lap_one_number(lap_context *ctx, const lap_tensor *t, int32_t operand, double *to, int32_t node_id);
/* An axis from the front, or an error. */
int32_t lap_axis(lap_context *ctx, int64_t axis, int32_t rank, int32_t *to, int32_t node_id);

/* All elements as f32 (f64); the tensor's own data where it is of that type. NULL after an error. */
const float *lap_floats(lap_context *ctx, const lap_tensor *t, int32_t node_id);
const double *lap_doubles(lap_context *ctx, const lap_tensor *t, int32_t node_id);
/* Where to write an output of f32 (f64) elements: its own data, or a temporary that lap_store_* converts. */
float *lap_float_room(lap_context *ctx, lap_tensor *t, int32_t node_id);
double *lap_double_room(lap_context *ctx, lap_tensor *t, int32_t node_id);
void lap_store_floats(lap_tensor *t, const float *from);
void lap_store_doubles(lap_tensor *t, const double *from);

/* The output gets the bytes of x under other dims. */
int32_t lap_copy_as(lap_context *ctx, const lap_tensor *x, lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id);
/* out[i0, i1, …] = x[at[0][i0], at[1][i1], …], where an `at` of -1 gives `fill` (an element of x's type; NULL
 * for zero or the empty string). `at[axis]` NULL: the index itself. Allocates the output. */
int32_t lap_pick(
    lap_context *ctx, const lap_tensor *x, lap_tensor *out, const int64_t *dims, const int64_t *const *at,
    const lap_tensor *fill, int32_t node_id);
/* out[i] = x[from[i]] (-1: zero), for `n` blocks of `block` elements, into an output that is allocated here. */
int32_t lap_pick_blocks(
    lap_context *ctx, const lap_tensor *x, lap_tensor *out, int32_t rank, const int64_t *dims, const int64_t *from,
    int64_t n, int64_t block, int32_t node_id);
/* Transforms the scores of one row: 0 none, 1 softmax, 2 logistic, 3 softmax over those that are not 0, 4 probit. */
void lap_post_transform(double *scores, int64_t n, int post);

/* Element e of a string tensor. */
static inline lap_bytes lap_string(const lap_tensor *t, int64_t e) {
    const lapidary_strings *s = t->data;
    return (lap_bytes){s->bytes + s->offsets[e], s->offsets[e + 1] - s->offsets[e]};
}

#endif
