/* If, Loop and Scan: they run bodies, which are compiled code, in child contexts (docs/regions.md).
 *
 * Operands are handed to a body as they are. What a body makes is exchanged, store for store: a carried value is
 * never copied between iterations. Scan outputs grow by doubling. */
#include <stdlib.h>

#include "context.h"
#include "lap_box.h"

/* Whether the buffer behind an output may take other memory. */
static lap_store *exchangeable(lap_context *ctx, const lap_tensor *out) {
    lap_private *self = lap_priv(ctx);
    if (out->data || out->buffer < 0 || out->buffer >= ctx->model->n_buffers) return NULL;
    int32_t output = ctx->model->buffers[out->buffer].output;
    if (output < 0) return &self->dynamic[out->buffer];
    return self->made[output].bound ? NULL : &self->made[output].own;
}

/* Makes a value that lies in `store` an output of the region: by exchanging the memory where its buffer is the
 * region's to make, else as a copy. */
static int32_t give(lap_context *parent, lap_store *store, const lap_tensor *value, lap_tensor *out, int32_t node_id) {
    lap_store *to = store && value->data == store->data ? exchangeable(parent, out) : NULL;
    if (!to || out->dtype != value->dtype || out->kind != value->kind) {
        return lap_output_copy(parent, out, value, node_id);
    }
    lap_store had = *to;
    *to = *store;
    *store = had;
    out->rank = value->rank;
    memcpy(out->dims, value->dims, sizeof out->dims);
    if (out->rank >= 0) lap_contiguous_strides(out);
    out->data = to->data;
    parent->buffers[out->buffer] = to->data;
    parent->sizes[out->buffer] = to->bytes;
    int32_t output = parent->model->buffers[out->buffer].output;
    if (output >= 0) {
        lap_tensor *outer = &parent->outputs[output];
        outer->rank = out->rank;
        memcpy(outer->dims, out->dims, sizeof outer->dims);
        if (outer->rank >= 0) lap_contiguous_strides(outer);
        outer->data = out->data;
    }
    return LAPIDARY_OK;
}

/* The child of body `b`, with its captures set. */
static int32_t enter(
    lap_context *ctx, const lap_attrs *record, int32_t b, const lap_tensor *const *in, int32_t n_in, int32_t kept,
    lap_private **child, int32_t node_id) {
    NEED(record && b < record->n_bodies, "the region lacks body {a}", b, 0);
    const lap_body *body = &record->bodies[b];
    *child = lap_child(ctx, body->table, kept, node_id);
    if (!*child) return LAPIDARY_ERROR_MEMORY;
    NEED(body->n_args == body->table->head.n_inputs, "a body of {a} inputs with {b} arguments",
         body->table->head.n_inputs, body->n_args);
    for (int32_t i = 0; i < body->n_args; i++) {
        int32_t operand = body->args[i];
        if (operand < 0) continue;
        NEED(operand < n_in && in[operand], "operand {a} of the region is missing", operand, 0);
        TRY(lap_child_input(ctx, *child, i, in[operand], node_id));
    }
    return LAPIDARY_OK;
}

LAP_LIBRARY_KERNEL(lap_lib_if) {
    NEED(n_in > 0 && in[0] && in[0]->dtype == LAPIDARY_BOOL && in[0]->rank >= 0 && lap_elements(in[0]) == 1,
         "the condition is no bool of one element", 0, 0);
    int32_t chosen = *(const uint8_t *)in[0]->data ? 0 : 1;
    lap_private *child;
    TRY(enter(ctx, attrs, chosen, in, n_in, 0, &child, node_id));
    NEED(child->head.model->head.n_outputs == n_out, "a body with {a} outputs for {b}",
         child->head.model->head.n_outputs, n_out);
    TRY(lap_child_run(ctx, child, node_id));
    for (int32_t i = 0; i < n_out; i++) {
        if (out[i]) TRY(give(ctx, &child->made[i].own, &child->head.outputs[i], out[i], node_id));
    }
    return LAPIDARY_OK;
}

/* ---- carried values -------------------------------------------------------------------------------- */

/* Takes output `i` of a child: `value` describes it, its memory is exchanged with that in `store`. */
static void take(lap_private *child, int32_t i, lap_store *store, lap_tensor *value) {
    lap_store *own = &child->made[i].own, had = *store;
    *value = child->head.outputs[i];
    value->buffer = -1;
    *store = *own;
    *own = had;
}

/* ---- stacked values -------------------------------------------------------------------------------- */

/* Slices collected one behind the other. */
typedef struct stack {
    lap_store *store; /* elements; of strings their text */
    lap_store *lengths; /* of strings: the bytes of each, as i64 */
    int64_t used; /* bytes */
    int64_t n; /* strings */
    int64_t slices;
    int32_t rank; /* of a slice */
    int64_t dims[LAP_MAX_RANK];
} stack;

/* Room for `bytes`, with what is there kept. */
static int32_t grow(lap_context *ctx, lap_store *store, int64_t used, int64_t bytes, int32_t node_id) {
    if (store->data && store->bytes >= bytes) return LAPIDARY_OK;
    lap_store larger = {0};
    int64_t room = bytes > INT64_MAX / 4 ? bytes : lap_max(bytes, lap_max(2 * used, 4096));
    TRY(lap_store_grow(lap_priv(ctx), &larger, room, node_id));
    if (used) memcpy(larger.data, store->data, (size_t)used);
    lap_store_drop(lap_priv(ctx), store);
    *store = larger;
    return LAPIDARY_OK;
}

static int32_t push(lap_context *ctx, stack *s, const lap_tensor *value, int32_t output, int32_t node_id) {
    NEED(value->kind == LAP_KIND_TENSOR, "scan output {a} is no tensor", output, 0);
    if (s->slices == 0) {
        s->rank = value->rank;
        NEED(s->rank < LAP_MAX_RANK, "scan output {a} has rank {b}", output, s->rank);
        memcpy(s->dims, value->dims, sizeof s->dims);
    }
    NEED(s->rank == value->rank, "scan output {a} changes its rank to {b}", output, value->rank);
    for (int32_t a = 0; a < s->rank; a++) {
        NEED(s->dims[a] == value->dims[a], "scan output {a} changes a dim to {b}", output, value->dims[a]);
    }
    int64_t n = lap_elements(value), bytes;
    if (value->dtype == LAPIDARY_STRING) {
        const lapidary_strings *strings = value->data;
        TRY(grow(ctx, s->lengths, s->n * 8, (s->n + n) * 8, node_id));
        bytes = strings->offsets[n] - strings->offsets[0];
        TRY(grow(ctx, s->store, s->used, s->used + bytes, node_id));
        for (int64_t i = 0; i < n; i++) ((int64_t *)s->lengths->data)[s->n + i] = strings->offsets[i + 1] - strings->offsets[i];
        memcpy((char *)s->store->data + s->used, strings->bytes + strings->offsets[0], (size_t)bytes);
        s->n += n;
    } else {
        bytes = n * lap_dtype_bytes(value->dtype);
        TRY(grow(ctx, s->store, s->used, lap_bytes_of(s->used + bytes, 1), node_id));
        memcpy((char *)s->store->data + s->used, value->data, (size_t)bytes);
    }
    s->used += bytes;
    s->slices++;
    return LAPIDARY_OK;
}

/* The dims of a slice that was never made: as the body declares it, then as the region's output is known. */
static int32_t declared(lap_context *ctx, stack *s, const lapidary_value_info *info, const lap_tensor *out, int32_t axis, int32_t node_id) {
    NEED(info->rank < LAP_MAX_RANK, "a slice of rank {a}", info->rank, 0);
    s->rank = info->rank < 0 ? 0 : info->rank;
    for (int32_t a = 0; a < s->rank; a++) {
        int64_t outer = out->dims[a < axis ? a : a + 1];
        s->dims[a] = info->dims[a] >= 0 ? info->dims[a] : outer > 0 ? outer : 0;
    }
    return LAPIDARY_OK;
}

/* All slices along a new axis of an output. */
static int32_t unstack(lap_context *ctx, stack *s, lap_tensor *out, int64_t axis_at, int reverse, int32_t node_id) {
    int32_t rank = s->rank + 1, axis;
    TRY(lap_axis(ctx, axis_at, rank, &axis, node_id));
    int64_t dims[LAP_MAX_RANK];
    for (int32_t a = 0; a < rank; a++) dims[a] = a < axis ? s->dims[a] : a > axis ? s->dims[a - 1] : s->slices;
    int64_t outer = lap_count(axis, dims), inner = lap_count(rank - axis - 1, dims + axis + 1), total = lap_count(rank, dims);
    if (out->dtype == LAPIDARY_STRING) {
        TRY(lap_output_alloc_strings(ctx, out, rank, dims, s->used, node_id));
        if (total <= 0) return LAPIDARY_OK;
        TEMP(int64_t, starts, s->n);
        const int64_t *lengths = s->lengths->data;
        for (int64_t i = 0, at = 0; i < s->n; at += lengths[i++]) starts[i] = at;
        lapidary_strings *made = out->data;
        int64_t *offsets = (int64_t *)(uintptr_t)made->offsets, k = 0, used = 0;
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t t = 0; t < s->slices; t++) {
                int64_t slice = reverse ? s->slices - 1 - t : t;
                for (int64_t i = 0; i < inner; i++) {
                    int64_t e = (slice * outer + o) * inner + i;
                    memcpy((char *)(uintptr_t)made->bytes + used, (const char *)s->store->data + starts[e], (size_t)lengths[e]);
                    offsets[++k] = used += lengths[e];
                }
            }
        }
        return LAPIDARY_OK;
    }
    TRY(lap_output_alloc(ctx, out, rank, dims, node_id));
    if (total <= 0) return LAPIDARY_OK;
    int64_t bytes = inner * lap_dtype_bytes(out->dtype);
    char *to = out->data;
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t t = 0; t < s->slices; t++, to += bytes) {
            int64_t slice = reverse ? s->slices - 1 - t : t;
            memcpy(to, (const char *)s->store->data + (slice * outer + o) * bytes, (size_t)bytes);
        }
    }
    return LAPIDARY_OK;
}

/* ---- Loop -------------------------------------------------------------------------------------------- */

/* A scalar of the region's own, with the rank that the body declares. */
static void scalar(lap_tensor *t, int32_t dtype, void *data, const lapidary_value_info *info) {
    *t = (lap_tensor){.data = data, .dtype = dtype, .buffer = -1, .rank = info->rank > 0 ? info->rank : 0};
    for (int32_t a = 0; a < t->rank && a < LAP_MAX_RANK; a++) t->dims[a] = 1;
}

static int32_t flag(lap_context *ctx, const lap_tensor *t, int *to, int32_t node_id) {
    NEED(t->kind == LAP_KIND_TENSOR && t->dtype == LAPIDARY_BOOL && t->rank >= 0 && lap_elements(t) == 1,
         "a condition is no bool of one element", 0, 0);
    *to = *(const uint8_t *)t->data != 0;
    return LAPIDARY_OK;
}

/* trip count?, condition?, initial values, captures -> carried values, scan outputs. Ints: carried. */
LAP_LIBRARY_KERNEL(lap_lib_loop) {
    const lap_attrs *record = attrs;
    NEED(record && record->n_ints >= 1, "the record lacks its numbers", 0, 0);
    int64_t carried = record->ints[0];
    NEED(carried >= 0 && carried + 2 <= n_in && carried <= n_out, "{a} carried values for {b} operands", carried, n_in);
    int32_t n = (int32_t)carried, scans = n_out - n;
    lap_private *child;
    TRY(enter(ctx, attrs, 0, in, n_in, n + 2 * scans, &child, node_id));
    const lapidary_model *body = &child->head.model->head;
    NEED(body->n_inputs >= n + 2 && body->n_outputs == 1 + n_out, "a body of {a} inputs and {b} outputs",
         body->n_inputs, body->n_outputs);
    int64_t trips = INT64_MAX, iteration = 0;
    int go = 1;
    if (in[0]) TRY(lap_one_int(ctx, in[0], 0, &trips, node_id));
    if (in[1]) TRY(flag(ctx, in[1], &go, node_id));

    TEMP(lap_tensor, values, n + 1);
    TEMP(stack, stacks, scans + 1);
    memset(stacks, 0, (size_t)(scans + 1) * sizeof *stacks);
    for (int32_t i = 0; i < n; i++) {
        NEED(in[2 + i], "initial value {a} is missing", i, 0);
        values[i] = *in[2 + i];
    }
    for (int32_t i = 0; i < scans; i++) {
        stacks[i].store = &child->kept[n + 2 * i];
        stacks[i].lengths = &child->kept[n + 2 * i + 1];
    }
    uint8_t condition;
    lap_tensor own;
    for (; iteration < trips && go; iteration++) {
        TRY(lap_check(ctx, node_id));
        condition = 1;
        scalar(&own, LAPIDARY_I64, &iteration, &body->inputs[0]);
        TRY(lap_child_input(ctx, child, 0, &own, node_id));
        scalar(&own, LAPIDARY_BOOL, &condition, &body->inputs[1]);
        TRY(lap_child_input(ctx, child, 1, &own, node_id));
        for (int32_t i = 0; i < n; i++) TRY(lap_child_input(ctx, child, 2 + i, &values[i], node_id));
        TRY(lap_child_run(ctx, child, node_id));
        TRY(flag(ctx, &child->head.outputs[0], &go, node_id));
        for (int32_t i = 0; i < n; i++) take(child, 1 + i, &child->kept[i], &values[i]);
        for (int32_t i = 0; i < scans; i++) TRY(push(ctx, &stacks[i], &child->head.outputs[1 + n + i], i, node_id));
    }
    for (int32_t i = 0; i < n; i++) {
        if (out[i]) TRY(give(ctx, iteration ? &child->kept[i] : NULL, &values[i], out[i], node_id));
    }
    for (int32_t i = 0; i < scans; i++) {
        if (!out[n + i]) continue;
        if (iteration == 0) TRY(declared(ctx, &stacks[i], &body->outputs[1 + n + i], out[n + i], 0, node_id));
        TRY(unstack(ctx, &stacks[i], out[n + i], 0, 0, node_id));
    }
    return LAPIDARY_OK;
}

/* ---- Scan -------------------------------------------------------------------------------------------- */

/* Slice `index` of a tensor along an axis: in place along the first, otherwise copied to `store`. */
static int32_t slice_of(
    lap_context *ctx, const lap_tensor *x, int32_t axis, int64_t index, lap_store *store, lap_tensor *slice,
    lapidary_strings *header, int32_t node_id) {
    *slice = (lap_tensor){.dtype = x->dtype, .rank = x->rank - 1, .buffer = -1};
    for (int32_t a = 0; a < x->rank; a++) {
        if (a != axis) slice->dims[a < axis ? a : a - 1] = x->dims[a];
    }
    lap_contiguous_strides(slice);
    int64_t inner = lap_span(x, axis + 1, x->rank), outer = lap_span(x, 0, axis), size = lap_dtype_bytes(x->dtype);
    if (lap_elements(slice) == 0) inner = outer = 0;
    if (axis == 0 && x->dtype != LAPIDARY_STRING) {
        slice->data = (char *)x->data + index * inner * size;
        return LAPIDARY_OK;
    }
    if (axis == 0) { /* the offsets of a part need not begin at 0 */
        const lapidary_strings *strings = x->data;
        *header = (lapidary_strings){strings->offsets + index * inner, strings->bytes};
        slice->data = header;
        return LAPIDARY_OK;
    }
    NEED(x->dtype != LAPIDARY_STRING, "strings are scanned along their first axis only, found axis {a}", axis, 0);
    TRY(lap_store_grow(lap_priv(ctx), store, outer * inner * size, node_id));
    for (int64_t o = 0; o < outer; o++) {
        memcpy((char *)store->data + o * inner * size, (const char *)x->data + (o * x->dims[axis] + index) * inner * size,
               (size_t)(inner * size));
    }
    slice->data = store->data;
    return LAPIDARY_OK;
}

/* initial states, scanned inputs, captures -> states, scan outputs. Ints: states, scanned inputs, scan outputs, then
 * axis and direction of each scanned input and of each scan output. */
LAP_LIBRARY_KERNEL(lap_lib_scan) {
    const lap_attrs *record = attrs;
    NEED(record && record->n_ints >= 3, "the record lacks its numbers", 0, 0);
    const int64_t *ints = record->ints;
    NEED(ints[0] >= 0 && ints[1] > 0 && ints[2] >= 0 && ints[0] + ints[1] <= n_in && ints[0] + ints[2] == n_out &&
             record->n_ints >= 3 + 2 * (ints[1] + ints[2]),
         "{a} states and {b} scanned inputs", ints[0], ints[1]);
    int32_t n = (int32_t)ints[0], inputs = (int32_t)ints[1], scans = (int32_t)ints[2];
    lap_private *child;
    TRY(enter(ctx, attrs, 0, in, n_in, n + inputs + 2 * scans, &child, node_id));
    const lapidary_model *body = &child->head.model->head;
    NEED(body->n_inputs >= n + inputs && body->n_outputs == n_out, "a body of {a} inputs and {b} outputs",
         body->n_inputs, body->n_outputs);
    int64_t length = -1;
    TEMP(int32_t, axes, inputs);
    for (int32_t i = 0; i < inputs; i++) {
        const lap_tensor *x = in[n + i];
        NEED(x && x->kind == LAP_KIND_TENSOR && x->rank >= 0, "scanned input {a} is no tensor", i, 0);
        TRY(lap_axis(ctx, ints[3 + 2 * i], x->rank, &axes[i], node_id));
        if (length < 0) length = x->dims[axes[i]];
        NEED(length == x->dims[axes[i]], "scanned inputs of {a} and {b} steps", length, x->dims[axes[i]]);
    }
    TEMP(lap_tensor, values, n + 1);
    TEMP(stack, stacks, scans + 1);
    memset(stacks, 0, (size_t)(scans + 1) * sizeof *stacks);
    for (int32_t i = 0; i < n; i++) {
        NEED(in[i], "initial state {a} is missing", i, 0);
        values[i] = *in[i];
    }
    for (int32_t i = 0; i < scans; i++) {
        stacks[i].store = &child->kept[n + inputs + 2 * i];
        stacks[i].lengths = &child->kept[n + inputs + 2 * i + 1];
    }
    lap_tensor slice;
    TEMP(lapidary_strings, headers, inputs);
    for (int64_t t = 0; t < length; t++) {
        TRY(lap_check(ctx, node_id));
        for (int32_t i = 0; i < n; i++) TRY(lap_child_input(ctx, child, i, &values[i], node_id));
        for (int32_t i = 0; i < inputs; i++) {
            int64_t index = ints[4 + 2 * i] ? length - 1 - t : t;
            TRY(slice_of(ctx, in[n + i], axes[i], index, &child->kept[n + i], &slice, &headers[i], node_id));
            TRY(lap_child_input(ctx, child, n + i, &slice, node_id));
        }
        TRY(lap_child_run(ctx, child, node_id));
        for (int32_t i = 0; i < n; i++) take(child, i, &child->kept[i], &values[i]);
        for (int32_t i = 0; i < scans; i++) TRY(push(ctx, &stacks[i], &child->head.outputs[n + i], i, node_id));
    }
    for (int32_t i = 0; i < n; i++) {
        if (out[i]) TRY(give(ctx, length > 0 ? &child->kept[i] : NULL, &values[i], out[i], node_id));
    }
    for (int32_t i = 0; i < scans; i++) {
        if (!out[n + i]) continue;
        int64_t axis = ints[3 + 2 * inputs + 2 * i], reverse = ints[4 + 2 * inputs + 2 * i];
        int64_t from = axis < 0 ? axis + body->outputs[n + i].rank + 1 : axis;
        if (length <= 0) TRY(declared(ctx, &stacks[i], &body->outputs[n + i], out[n + i], (int32_t)from, node_id));
        TRY(unstack(ctx, &stacks[i], out[n + i], axis, reverse != 0, node_id));
    }
    return LAPIDARY_OK;
}
