/* Moves of strings: what loops do for numbers and cannot do for elements of different lengths.
 *
 * A kernel makes a list of where each element of the result comes from; lap_pick_blocks copies by it. Most
 * take elements of any type. */
#include "lap_strings.h"

/* ---- building a string tensor ------------------------------------------------------------------ */

int32_t lap_text_begin(
    lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t bytes, lap_text *text,
    int32_t node_id) {
    NEED(out->dtype == LAPIDARY_STRING, "an output of type {a} for strings ({b})", out->dtype, LAPIDARY_STRING);
    TRY(lap_output_alloc_strings(ctx, out, rank, dims, bytes, node_id));
    const lapidary_strings *to = out->data;
    *text = (lap_text){(int64_t *)(uintptr_t)to->offsets, (char *)(uintptr_t)to->bytes};
    return LAPIDARY_OK;
}

int32_t lap_is_strings(lap_context *ctx, const lap_tensor *t, int32_t operand, int32_t node_id) {
    NEED(t->dtype == LAPIDARY_STRING, "input {a} has type {b}, expected strings", operand, t->dtype);
    NEED(t->data || lap_elements(t) == 0, "input {a} has no data", operand, 0);
    return LAPIDARY_OK;
}

/* ---- broadcasting ------------------------------------------------------------------------------ */

int32_t lap_broadcast(
    lap_context *ctx, const lap_tensor *const *in, int32_t n, int32_t *rank, int64_t *dims, int32_t node_id) {
    *rank = 0;
    for (int32_t i = 0; i < n; i++) *rank = in[i]->rank > *rank ? in[i]->rank : *rank;
    for (int32_t a = 0; a < *rank; a++) dims[a] = 1;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t a = 0; a < in[i]->rank; a++) {
            int64_t d = in[i]->dims[a], *to = dims + a + *rank - in[i]->rank;
            NEED(d == *to || d == 1 || *to == 1, "sizes {a} and {b} cannot be broadcast", d, *to);
            if (*to == 1) *to = d;
        }
    }
    NEED(lap_count(*rank, dims) >= 0, "the broadcast shape is too large", 0, 0);
    return LAPIDARY_OK;
}

int64_t lap_broadcast_at(const lap_tensor *t, int32_t rank, const int64_t *dims, int64_t element) {
    int64_t at = 0, stride = 1;
    for (int32_t a = rank - 1, b = t->rank - 1; b >= 0; a--, b--) {
        int64_t i = element % dims[a];
        element /= dims[a];
        if (t->dims[b] != 1) at += i * stride;
        stride *= t->dims[b];
    }
    return at;
}

/* ---- kernels ------------------------------------------------------------------------------------ */

/* x. Ints: the axis of x that each axis of the output is. */
LAP_LIBRARY_KERNEL(lap_lib_transpose) {
    EXPECT(1, 1, 0, 0);
    const lap_tensor *x = in[0];
    int64_t dims[LAP_MAX_RANK], strides[LAP_MAX_RANK], own[LAP_MAX_RANK], stride = 1, n = lap_elements(x);
    uint32_t seen = 0;
    NEED((at ? at->n_ints : 0) == x->rank, "a permutation of {a} axes for rank {b}", at ? at->n_ints : 0, x->rank);
    for (int32_t a = x->rank - 1; a >= 0; a--) {
        own[a] = stride;
        stride = n > 0 ? stride * x->dims[a] : 0;
    }
    for (int32_t a = 0; a < x->rank; a++) {
        int32_t from;
        TRY(lap_axis(ctx, at->ints[a], x->rank, &from, node_id));
        NEED(!(seen >> from & 1), "axis {a} occurs twice", from, 0);
        seen |= 1u << from;
        dims[a] = x->dims[from];
        strides[a] = own[from];
    }
    TEMP(int64_t, list, n);
    for (int64_t e = 0; e < n; e++) {
        int64_t rest = e, source = 0;
        for (int32_t a = x->rank - 1; a >= 0; a--) {
            source += rest % dims[a] * strides[a];
            rest /= dims[a];
        }
        list[e] = source;
    }
    return lap_pick_blocks(ctx, x, out[0], x->rank, dims, list, n, 1, node_id);
}

/* x, start, size (i64, one an axis). Ints: the steps. */
LAP_LIBRARY_KERNEL(lap_lib_slice_box) {
    EXPECT(3, 1, 0, 0);
    const lap_tensor *x = in[0];
    int64_t start[LAP_MAX_RANK], size[LAP_MAX_RANK], n, m;
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    TRY(lap_ints(ctx, in[1], 1, start, LAP_MAX_RANK, &n, node_id));
    TRY(lap_ints(ctx, in[2], 2, size, LAP_MAX_RANK, &m, node_id));
    NEED(n == x->rank && m == n && (at ? at->n_ints : 0) == n, "{a} starts for rank {b}", n, x->rank);
    for (int32_t a = 0; a < x->rank; a++) {
        int64_t step = at->ints[a], d = x->dims[a], last;
        NEED(size[a] >= 0 && size[a] <= d, "a slice of {a} of an axis of {b}", size[a], d);
        if (size[a] == d && start[a] == 0 && step == 1) continue;
        TEMP(int64_t, list, size[a]);
        if (size[a] > 0) {
            int bad = __builtin_mul_overflow(size[a] - 1, step, &last) || __builtin_add_overflow(last, start[a], &last);
            NEED(!bad && start[a] >= 0 && start[a] < d && last >= 0 && last < d, "a slice from {a} of an axis of {b}",
                 start[a], d);
        }
        for (int64_t i = 0; i < size[a]; i++) list[i] = start[a] + i * step;
        at_axis[a] = list;
    }
    return lap_pick(ctx, x, out[0], size, at_axis, NULL, node_id);
}

/* Elements of a fixed width behind each other; the operands are checked. */
static int32_t concat_elements(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, lap_tensor *out, int32_t axis, const int64_t *dims, int32_t node_id) {
    int64_t size = lap_dtype_bytes(out->dtype);
    int32_t rank = in[0]->rank;
    NEED(size > 0, "elements of type {a} are not supported", out->dtype, 0);
    TRY(lap_output_alloc(ctx, out, rank, dims, node_id));
    int64_t outer = lap_count(axis, dims), inner = lap_count(rank - axis - 1, dims + axis + 1);
    char *to = out->data;
    for (int64_t o = 0; o < outer && inner > 0; o++) {
        for (int32_t i = 0; i < n_in; i++) {
            int64_t bytes = in[i]->dims[axis] * inner * size;
            if (bytes > 0) memcpy(to, (const char *)in[i]->data + o * bytes, (size_t)bytes);
            to += bytes;
        }
    }
    return LAPIDARY_OK;
}

/* Tensors of one type. Ints: axis. */
LAP_LIBRARY_KERNEL(lap_lib_concat) {
    EXPECT(1, 1, 1, 0);
    int64_t dims[LAP_MAX_RANK], bytes = 0, whole = 0;
    int32_t axis, rank = in[0]->rank, strings = in[0]->dtype == LAPIDARY_STRING;
    TRY(lap_axis(ctx, at->ints[0], rank, &axis, node_id));
    memcpy(dims, in[0]->dims, sizeof dims);
    for (int32_t i = 0; i < n_in; i++) {
        NEED(in[i], "input {a} of the kernel is missing", i, 0);
        NEED(in[i]->dtype == in[0]->dtype && out[0]->dtype == in[0]->dtype, "input {a} has another type than the first, {b}", i, in[0]->dtype);
        NEED(in[i]->rank == rank, "an input of rank {a} beside one of rank {b}", in[i]->rank, rank);
        for (int32_t a = 0; a < rank; a++) {
            NEED(a == axis || in[i]->dims[a] == dims[a], "sizes {a} and {b} of an axis", in[i]->dims[a], dims[a]);
        }
        NEED(!__builtin_add_overflow(whole, in[i]->dims[axis], &whole), "the axis is too long", 0, 0);
        if (strings && lap_elements(in[i]) > 0) {
            const lapidary_strings *s = in[i]->data;
            int64_t more = s->offsets[lap_elements(in[i])] - s->offsets[0];
            NEED(!__builtin_add_overflow(bytes, more, &bytes), "the strings are too long", 0, 0);
        }
    }
    dims[axis] = whole;
    NEED(lap_count(rank, dims) >= 0, "the result is too large", 0, 0);
    if (!strings) return concat_elements(ctx, in, n_in, out[0], axis, dims, node_id);
    lap_text text;
    TRY(lap_text_begin(ctx, out[0], rank, dims, bytes, &text, node_id));
    int64_t outer = lap_count(axis, dims), inner = lap_count(rank - axis - 1, dims + axis + 1);
    for (int64_t o = 0; o < outer; o++) {
        for (int32_t i = 0; i < n_in; i++) {
            int64_t run = in[i]->dims[axis] * inner;
            for (int64_t e = 0; e < run; e++) lap_text_put(&text, lap_string(in[i], o * run + e));
        }
    }
    return LAPIDARY_OK;
}

/* An index that may count from the end. */
static int32_t wrapped(lap_context *ctx, int64_t index, int64_t size, int64_t *to, int32_t node_id) {
    if (index < -size || index >= size) FAIL(INDEX, "index {a} is out of range for an axis of {b}", index, size);
    *to = index < 0 ? index + size : index;
    return LAPIDARY_OK;
}

/* All indices of an operand. */
static int32_t indices(lap_context *ctx, const lap_tensor *t, int64_t **to, int32_t node_id) {
    int64_t n = lap_elements(t);
    TEMP(int64_t, list, n);
    TRY(lap_ints(ctx, t, 1, list, n, &n, node_id));
    *to = list;
    return LAPIDARY_OK;
}

/* x, indices. Ints: axis. */
LAP_LIBRARY_KERNEL(lap_lib_gather) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0], *index = in[1];
    int64_t dims[2 * LAP_MAX_RANK], *list, n = lap_elements(index);
    int32_t axis, rank = x->rank - 1 + index->rank;
    TRY(lap_axis(ctx, at->ints[0], x->rank, &axis, node_id));
    NEED(rank <= LAP_MAX_RANK, "a result of rank {a}, expected {b} at most", rank, LAP_MAX_RANK);
    TRY(indices(ctx, index, &list, node_id));
    for (int64_t i = 0; i < n; i++) TRY(wrapped(ctx, list[i], x->dims[axis], list + i, node_id));
    memcpy(dims, x->dims, 8 * (size_t)axis);
    memcpy(dims + axis, index->dims, 8 * (size_t)index->rank);
    memcpy(dims + axis + index->rank, x->dims + axis + 1, 8 * (size_t)(x->rank - axis - 1));
    int64_t outer = lap_span(x, 0, axis), inner = lap_span(x, axis + 1, x->rank), all;
    NEED(outer >= 0 && inner >= 0 && !__builtin_mul_overflow(outer, n, &all), "the result is too large", 0, 0);
    TEMP(int64_t, from, all);
    for (int64_t o = 0, k = 0; o < outer; o++) {
        for (int64_t i = 0; i < n; i++) from[k++] = o * x->dims[axis] + list[i];
    }
    return lap_pick_blocks(ctx, x, out[0], rank, dims, from, inner > 0 ? all : 0, inner, node_id);
}

/* The element of x that an element of the indices speaks of: as it, but on the axis. */
static int64_t along(const lap_tensor *x, const lap_tensor *index, int32_t axis, int64_t element, int64_t value) {
    int64_t at = 0, stride = 1;
    for (int32_t a = x->rank - 1; a >= 0; a--) {
        at += (a == axis ? value : element % index->dims[a]) * stride;
        element /= index->dims[a];
        stride *= x->dims[a];
    }
    return at;
}

static int32_t within(lap_context *ctx, const lap_tensor *x, const lap_tensor *index, int32_t axis, int32_t node_id) {
    NEED(index->rank == x->rank, "indices of rank {a} for rank {b}", index->rank, x->rank);
    for (int32_t a = 0; a < x->rank; a++) {
        NEED(a == axis || index->dims[a] <= x->dims[a], "indices of size {a} for an axis of {b}", index->dims[a], x->dims[a]);
    }
    return LAPIDARY_OK;
}

/* x, indices. Ints: axis. */
LAP_LIBRARY_KERNEL(lap_lib_gather_elements) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0], *index = in[1];
    int64_t *list, n = lap_elements(index);
    int32_t axis;
    TRY(lap_axis(ctx, at->ints[0], x->rank, &axis, node_id));
    TRY(within(ctx, x, index, axis, node_id));
    TRY(indices(ctx, index, &list, node_id));
    for (int64_t i = 0; i < n; i++) {
        TRY(wrapped(ctx, list[i], x->dims[axis], list + i, node_id));
        list[i] = along(x, index, axis, i, list[i]);
    }
    return lap_pick_blocks(ctx, x, out[0], index->rank, index->dims, list, n, 1, node_id);
}

/* For each tuple of the last axis of the indices the block of x that it names; `batch` leading axes are shared. */
static int32_t tuples(
    lap_context *ctx, const lap_tensor *x, const lap_tensor *index, int32_t batch, int64_t **to, int64_t *count,
    int64_t *block, int32_t node_id) {
    int64_t *list;
    NEED(index->rank >= 1 && batch >= 0 && batch < index->rank && batch <= x->rank, "{a} batch axes for indices of rank {b}",
         batch, index->rank);
    int64_t k = index->dims[index->rank - 1], n = lap_span(index, 0, index->rank - 1);
    NEED(k >= 0 && k <= x->rank - batch, "tuples of {a} indices for rank {b}", k, x->rank - batch);
    for (int32_t a = 0; a < batch; a++) {
        NEED(index->dims[a] == x->dims[a], "batch sizes {a} and {b}", index->dims[a], x->dims[a]);
    }
    NEED(n >= 0, "the indices are too many", 0, 0);
    *block = lap_span(x, batch + (int32_t)k, x->rank);
    NEED(*block >= 0, "the blocks are too large", 0, 0);
    int64_t each = lap_span(index, batch, index->rank - 1);
    TRY(indices(ctx, index, &list, node_id));
    TEMP(int64_t, from, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = batch > 0 && each > 0 ? i / each : 0;
        for (int64_t j = 0; j < k; j++) {
            int64_t d = x->dims[batch + j], value = 0;
            TRY(wrapped(ctx, list[i * k + j], d, &value, node_id));
            at = at * d + value;
        }
        from[i] = at;
    }
    *to = from;
    *count = n;
    return LAPIDARY_OK;
}

/* x, indices. Ints: batch axes. */
LAP_LIBRARY_KERNEL(lap_lib_gather_nd) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0], *index = in[1];
    int64_t dims[2 * LAP_MAX_RANK], *from, n, block;
    int32_t batch = (int32_t)lap_max(-1, lap_min(at->ints[0], LAP_MAX_RANK));
    TRY(tuples(ctx, x, index, batch, &from, &n, &block, node_id));
    int32_t whole = batch + (int32_t)index->dims[index->rank - 1], rank = index->rank - 1 + x->rank - whole;
    NEED(rank <= LAP_MAX_RANK, "a result of rank {a}, expected {b} at most", rank, LAP_MAX_RANK);
    memcpy(dims, index->dims, 8 * (size_t)(index->rank - 1));
    memcpy(dims + index->rank - 1, x->dims + whole, 8 * (size_t)(x->rank - whole));
    return lap_pick_blocks(ctx, x, out[0], rank, dims, from, block > 0 ? n : 0, block, node_id);
}

/* x with elements of `updates`: element e from updates[from[e]] where that is not -1. */
static int32_t written(
    lap_context *ctx, const lap_tensor *x, const lap_tensor *updates, lap_tensor *out, const int64_t *from, int32_t node_id) {
    int64_t n = lap_elements(x), bytes = 0;
    for (int64_t e = 0; e < n; e++) {
        int64_t more = from[e] < 0 ? lap_string(x, e).bytes : lap_string(updates, from[e]).bytes;
        NEED(!__builtin_add_overflow(bytes, more, &bytes), "the strings are too long", 0, 0);
    }
    lap_text text;
    TRY(lap_text_begin(ctx, out, x->rank, x->dims, bytes, &text, node_id));
    for (int64_t e = 0; e < n; e++) lap_text_put(&text, from[e] < 0 ? lap_string(x, e) : lap_string(updates, from[e]));
    return LAPIDARY_OK;
}

/* x, indices, updates (strings). Ints: axis. */
LAP_LIBRARY_KERNEL(lap_lib_scatter_elements) {
    EXPECT(3, 1, 1, 0);
    const lap_tensor *x = in[0], *index = in[1], *updates = in[2];
    int64_t *list, n = lap_elements(index), total = lap_elements(x);
    int32_t axis;
    TRY(lap_is_strings(ctx, x, 0, node_id));
    TRY(lap_is_strings(ctx, updates, 2, node_id));
    TRY(lap_axis(ctx, at->ints[0], x->rank, &axis, node_id));
    TRY(within(ctx, x, index, axis, node_id));
    TRY(indices(ctx, index, &list, node_id));
    NEED(lap_elements(updates) == n, "{a} updates for {b} indices", lap_elements(updates), n);
    TEMP(int64_t, from, total);
    for (int64_t e = 0; e < total; e++) from[e] = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t value = 0;
        TRY(wrapped(ctx, list[i], x->dims[axis], &value, node_id));
        from[along(x, index, axis, i, value)] = i;
    }
    return written(ctx, x, updates, out[0], from, node_id);
}

/* x, indices, updates (strings). */
LAP_LIBRARY_KERNEL(lap_lib_scatter_nd) {
    EXPECT(3, 1, 0, 0);
    const lap_tensor *x = in[0], *updates = in[2];
    int64_t *to, n, block, total = lap_elements(x), all;
    TRY(lap_is_strings(ctx, x, 0, node_id));
    TRY(lap_is_strings(ctx, updates, 2, node_id));
    TRY(tuples(ctx, x, in[1], 0, &to, &n, &block, node_id));
    NEED(!__builtin_mul_overflow(n, block, &all) && lap_elements(updates) == all, "{a} updates for {b} tuples",
         lap_elements(updates), n);
    TEMP(int64_t, from, total);
    for (int64_t e = 0; e < total; e++) from[e] = -1;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < block; j++) from[to[i] * block + j] = i * block + j;
    }
    return written(ctx, x, updates, out[0], from, node_id);
}

/* condition (bool), x, y (strings), broadcast together. */
LAP_LIBRARY_KERNEL(lap_lib_where) {
    EXPECT(3, 1, 0, 0);
    int32_t rank;
    int64_t dims[LAP_MAX_RANK], bytes = 0;
    NEED(in[0]->dtype == LAPIDARY_BOOL, "a condition of type {a}, expected bool ({b})", in[0]->dtype, LAPIDARY_BOOL);
    TRY(lap_is_strings(ctx, in[1], 1, node_id));
    TRY(lap_is_strings(ctx, in[2], 2, node_id));
    TRY(lap_broadcast(ctx, in, 3, &rank, dims, node_id));
    int64_t n = lap_count(rank, dims);
    const uint8_t *flags = in[0]->data;
    TEMP(lap_bytes, list, n);
    for (int64_t e = 0; e < n; e++) {
        const lap_tensor *t = flags[lap_broadcast_at(in[0], rank, dims, e)] ? in[1] : in[2];
        list[e] = lap_string(t, lap_broadcast_at(t, rank, dims, e));
        NEED(!__builtin_add_overflow(bytes, list[e].bytes, &bytes), "the strings are too long", 0, 0);
    }
    lap_text text;
    TRY(lap_text_begin(ctx, out[0], rank, dims, bytes, &text, node_id));
    for (int64_t e = 0; e < n; e++) lap_text_put(&text, list[e]);
    return LAPIDARY_OK;
}
