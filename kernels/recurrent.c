/* RNN, GRU and LSTM over whole sequences: the inputs' part of all steps is one product; then a product with the
 * state and the cell a step. f16 and bf16 are computed in f32. */
#include "lap_library.h"

enum { RNN, GRU, LSTM };
enum { AFFINE, ELU, HARD_SIGMOID, LEAKY_RELU, RELU, SCALED_TANH, SIGMOID, SOFTPLUS, SOFTSIGN, TANH_, THRESHOLDED_RELU };
#define MAX_ACTIVATIONS 6

typedef struct activation {
    int64_t kind;
    double alpha, beta;
} activation;

/* Sizes and operands (all of the computing type). */
typedef struct network {
    int64_t kind, gates, steps, batch, inputs, hidden, directions, layout, flag, acts_n; /* acts_n: of a direction */
    int reverse;
    double clip;
    activation acts[MAX_ACTIVATIONS];
    const void *x, *w, *r, *b, *h0, *c0, *p;
    const int64_t *lengths;
    void *y, *y_h, *y_c;
} network;

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#endif

#define T float
#define EXP expf
#define TANH tanhf
#define LOG1P log1pf
#define NAME(x) x##_f32
#include "recurrent_body.h"
#undef T
#undef EXP
#undef TANH
#undef LOG1P
#undef NAME
#define T double
#define EXP exp
#define TANH tanh
#define LOG1P log1p
#define NAME(x) x##_f64
#include "recurrent_body.h"

/* The dims that an operand must have. */
static int32_t shaped(lap_context *ctx, const lap_tensor *t, int32_t operand, int64_t a, int64_t b, int64_t c, int32_t node_id) {
    const int64_t want[] = {a, b, c};
    int32_t rank = c < 0 ? 2 : 3;
    NEED(t->rank == rank, "input {a} has rank {b}", operand, t->rank);
    for (int32_t i = 0; i < rank; i++) NEED(t->dims[i] == want[i], "input has a dim of {a}, expected {b}", t->dims[i], want[i]);
    NEED(lap_is_float(t->dtype), "input {a} has type {b}, expected floats", operand, t->dtype);
    return LAPIDARY_OK;
}

static const void *operand_of(lap_context *ctx, const lap_tensor *t, int wide, int32_t node_id) {
    return wide ? (const void *)lap_doubles(ctx, t, node_id) : (const void *)lap_floats(ctx, t, node_id);
}

static int32_t result_of(
    lap_context *ctx, lap_tensor *t, int32_t rank, const int64_t *dims, int wide, void **to, int32_t node_id) {
    *to = NULL;
    if (!t) return LAPIDARY_OK;
    NEED(lap_is_float(t->dtype), "an output of type {a}, expected floats", t->dtype, 0);
    TRY(lap_output_alloc(ctx, t, rank, dims, node_id));
    *to = wide ? (void *)lap_double_room(ctx, t, node_id) : (void *)lap_float_room(ctx, t, node_id);
    return *to || lap_elements(t) == 0 ? LAPIDARY_OK : LAPIDARY_ERROR_MEMORY;
}

/* X, W, R, B, sequence lengths, initial h, and for LSTM initial c, peepholes; all but three may be none. Ints:
 * direction (0 forward, 1 reverse, 2 both), hidden size, layout, linear_before_reset or input_forget, number of
 * activations, the activations. Floats: clip, then alpha and beta of each. Outputs: Y, Y_h, for LSTM Y_c. */
static int32_t recurrent(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, lap_tensor *const *out, int32_t n_out, const lap_attrs *at,
    int64_t kind, int32_t node_id) {
    static const int64_t gates[] = {1, 3, 4}, acts[] = {1, 2, 3};
    network net = {.kind = kind, .gates = gates[kind], .hidden = at->ints[1], .layout = at->ints[2] != 0, .flag = at->ints[3],
                   .acts_n = acts[kind], .directions = at->ints[0] == 2 ? 2 : 1, .reverse = at->ints[0] == 1, .clip = at->floats[0]};
    const lap_tensor *x = in[0], *operand[8] = {0};
    for (int32_t i = 0; i < 8 && i < n_in; i++) operand[i] = in[i];
    int64_t n = net.hidden, d = net.directions, all = net.acts_n * d;
    NEED(at->ints[0] >= 0 && at->ints[0] <= 2 && n > 0 && n < INT32_MAX, "direction {a}, hidden size {b}", at->ints[0], n);
    NEED(at->ints[4] == all && at->n_ints >= 5 + all, "{a} activations, expected {b}", at->ints[4], all);
    NEED(at->n_floats >= 1 + 2 * all, "{a} parameters of activations, expected {b}", at->n_floats - 1, 2 * all);
    for (int64_t i = 0; i < all; i++) {
        net.acts[i] = (activation){at->ints[5 + i], at->floats[1 + 2 * i], at->floats[2 + 2 * i]};
        NEED(net.acts[i].kind >= 0 && net.acts[i].kind <= THRESHOLDED_RELU, "activation {a}", net.acts[i].kind, 0);
    }
    NEED(x->rank == 3 && lap_is_float(x->dtype), "an input of rank {a} and type {b}, expected [steps, batch, n]", x->rank, x->dtype);
    net.steps = x->dims[net.layout ? 1 : 0];
    net.batch = x->dims[net.layout ? 0 : 1];
    net.inputs = x->dims[2];
    TRY(shaped(ctx, in[1], 1, d, net.gates * n, net.inputs, node_id));
    TRY(shaped(ctx, in[2], 2, d, net.gates * n, n, node_id));
    if (operand[3]) TRY(shaped(ctx, operand[3], 3, d, 2 * net.gates * n, -1, node_id));
    for (int32_t i = 5; i < 7; i++) {
        if (operand[i]) TRY(shaped(ctx, operand[i], i, net.layout ? net.batch : d, net.layout ? d : net.batch, n, node_id));
    }
    if (operand[7]) TRY(shaped(ctx, operand[7], 7, d, 3 * n, -1, node_id));
    int wide = x->dtype == LAPIDARY_F64;
    const void **to[] = {&net.x, &net.w, &net.r, &net.b, NULL, &net.h0, &net.c0, &net.p};
    for (int32_t i = 0; i < 8; i++) {
        if (!operand[i] || !to[i]) continue;
        *to[i] = operand_of(ctx, operand[i], wide, node_id);
        if (!*to[i] && lap_elements(operand[i]) > 0) return LAPIDARY_ERROR_MEMORY;
    }
    if (operand[4]) {
        int64_t found;
        TEMP(int64_t, lengths, net.batch);
        TRY(lap_ints(ctx, operand[4], 4, lengths, net.batch, &found, node_id));
        NEED(found == net.batch, "{a} sequence lengths for a batch of {b}", found, net.batch);
        for (int64_t e = 0; e < found; e++) NEED(lengths[e] >= 0 && lengths[e] <= net.steps, "a length of {a} in {b} steps", lengths[e], net.steps);
        net.lengths = lengths;
    }
    int64_t y_dims[] = {net.steps, d, net.batch, n}, h_dims[] = {d, net.batch, n};
    if (net.layout) {
        memcpy(y_dims, (int64_t[]){net.batch, net.steps, d, n}, sizeof y_dims);
        memcpy(h_dims, (int64_t[]){net.batch, d, n}, sizeof h_dims);
    }
    lap_tensor *result[] = {out[0], n_out > 1 ? out[1] : NULL, n_out > 2 && kind == LSTM ? out[2] : NULL};
    TRY(result_of(ctx, result[0], 4, y_dims, wide, &net.y, node_id));
    TRY(result_of(ctx, result[1], 3, h_dims, wide, &net.y_h, node_id));
    TRY(result_of(ctx, result[2], 3, h_dims, wide, &net.y_c, node_id));
    if (net.y) memset(net.y, 0, (size_t)(lap_count(4, y_dims) * (wide ? 8 : 4)));
    for (int64_t i = 0; i < d; i++) TRY(wide ? direction_f64(ctx, &net, i, node_id) : direction_f32(ctx, &net, i, node_id));
    void *made[] = {net.y, net.y_h, net.y_c};
    for (int i = 0; i < 3; i++) {
        if (!result[i]) continue;
        if (wide) lap_store_doubles(result[i], made[i]);
        else lap_store_floats(result[i], made[i]);
    }
    return LAPIDARY_OK;
}

LAP_LIBRARY_KERNEL(lap_lib_rnn) {
    EXPECT(3, 1, 5, 1);
    return recurrent(ctx, in, lap_min(n_in, 6), out, n_out, at, RNN, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_gru) {
    EXPECT(3, 1, 5, 1);
    return recurrent(ctx, in, lap_min(n_in, 6), out, n_out, at, GRU, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_lstm) {
    EXPECT(3, 1, 5, 1);
    return recurrent(ctx, in, n_in, out, n_out, at, LSTM, node_id);
}
