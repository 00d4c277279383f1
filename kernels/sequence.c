/* Operators of sequences and optionals (ONNX; docs/library.md lists operands and records). */
#include "lap_box.h"

/* An operand of a container kind. */
static int32_t boxed(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, int32_t i, int32_t kind, const lap_box **box,
    int32_t node_id) {
    NEED(i < n_in && in[i], "input {a} is missing", i, 0);
    NEED(in[i]->kind == kind && in[i]->data, "input {a} is of kind {b}, not the container expected", i, in[i]->kind);
    *box = lap_box_of(in[i]);
    return LAPIDARY_OK;
}

/* The optional position operand: in [-n, n) (`insert`: up to n), counted from the front; absent: `otherwise`. */
static int32_t position(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, int32_t i, int64_t n, int insert, int64_t otherwise,
    int64_t *at, int32_t node_id) {
    const lap_tensor *t = lap_opt(in, n_in, i);
    *at = otherwise;
    if (!t) {
        NEED(otherwise >= 0, "an element of an empty sequence", 0, 0);
        return LAPIDARY_OK;
    }
    int64_t found;
    TRY(lap_one_int(ctx, t, i, &found, node_id));
    int64_t most = insert ? n : n - 1;
    if (found < -n || found > most) FAIL(INDEX, "position {a} in a sequence of {b} elements", found, n);
    *at = found < 0 ? found + n : found;
    return LAPIDARY_OK;
}

/* A sequence of what is in `old` but for element `skip` (-1: all), with `value` before place `where` (-1: none). */
static int32_t rebuild(
    lap_context *ctx, lap_tensor *out, const lap_box *old, int64_t skip, const lap_tensor *value, int64_t where,
    int32_t node_id) {
    int64_t n = old->n - (skip >= 0) + (value != NULL), inside = 0;
    for (int64_t i = 0; i < old->n; i++) inside += i == skip ? 0 : lap_box_inside(old, i)->bytes;
    int64_t more = value ? lap_box_bytes(value) : 0;
    lap_box *to = lap_output_box(ctx, out, more < 0 ? -1 : lap_box_room(n, inside + more), node_id);
    if (!to) return LAPIDARY_ERROR_MEMORY;
    int64_t used, k = 0;
    lap_box_begin(to, LAP_KIND_SEQUENCE, out->dtype, n, &used);
    for (int64_t i = 0; i <= old->n; i++) {
        if (value && i == where) {
            to->at[k++] = used;
            lap_box_write((lap_box *)(void *)((char *)to + used), value);
            used += more;
        }
        if (i == old->n || i == skip) continue;
        const lap_box *element = lap_box_inside(old, i);
        to->at[k++] = used;
        memcpy((char *)to + used, element, (size_t)element->bytes);
        used += element->bytes;
    }
    to->bytes = used;
    return LAPIDARY_OK;
}

/* A box of kind `kind` around `n` values. */
static int32_t wrap(
    lap_context *ctx, lap_tensor *out, int32_t kind, const lap_tensor *const *values, int64_t n, int32_t node_id) {
    int64_t inside = 0, used;
    for (int64_t i = 0; i < n; i++) {
        NEED(values[i], "input {a} is missing", i, 0);
        int64_t bytes = lap_box_bytes(values[i]);
        if (bytes < 0 || __builtin_add_overflow(inside, bytes, &inside)) FAIL(MEMORY, "a container is too large", 0, 0);
    }
    lap_box *to = lap_output_box(ctx, out, lap_box_room(n, inside), node_id);
    if (!to) return LAPIDARY_ERROR_MEMORY;
    lap_box_begin(to, kind, out->dtype, n, &used);
    for (int64_t i = 0; i < n; i++) {
        to->at[i] = used;
        lap_box_write((lap_box *)(void *)((char *)to + used), values[i]);
        used += lap_box_bytes(values[i]);
    }
    to->bytes = used;
    return LAPIDARY_OK;
}

#define OUTPUT                                                                                         \
    NEED(n_out >= 1 && out[0], "the kernel was given no output", 0, 0);                                \
    (void)attrs

LAP_LIBRARY_KERNEL(lap_lib_sequence_construct) {
    OUTPUT;
    return wrap(ctx, out[0], LAP_KIND_SEQUENCE, in, n_in, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_sequence_empty) {
    OUTPUT;
    (void)in, (void)n_in;
    return wrap(ctx, out[0], LAP_KIND_SEQUENCE, NULL, 0, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_sequence_insert) {
    const lap_box *sequence;
    int64_t at;
    OUTPUT;
    TRY(boxed(ctx, in, n_in, 0, LAP_KIND_SEQUENCE, &sequence, node_id));
    NEED(n_in > 1 && in[1], "input 1 is missing", 0, 0);
    TRY(position(ctx, in, n_in, 2, sequence->n, 1, sequence->n, &at, node_id));
    return rebuild(ctx, out[0], sequence, -1, in[1], at, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_sequence_erase) {
    const lap_box *sequence;
    int64_t at;
    OUTPUT;
    TRY(boxed(ctx, in, n_in, 0, LAP_KIND_SEQUENCE, &sequence, node_id));
    TRY(position(ctx, in, n_in, 1, sequence->n, 0, sequence->n - 1, &at, node_id));
    return rebuild(ctx, out[0], sequence, at, NULL, -1, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_sequence_at) {
    const lap_box *sequence;
    int64_t at;
    OUTPUT;
    TRY(boxed(ctx, in, n_in, 0, LAP_KIND_SEQUENCE, &sequence, node_id));
    TRY(position(ctx, in, n_in, 1, sequence->n, 0, -1, &at, node_id));
    return lap_output_unbox(ctx, out[0], lap_box_inside(sequence, at), node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_sequence_length) {
    const lap_box *sequence;
    OUTPUT;
    TRY(boxed(ctx, in, n_in, 0, LAP_KIND_SEQUENCE, &sequence, node_id));
    TRY(lap_output_alloc(ctx, out[0], 0, NULL, node_id));
    *(int64_t *)out[0]->data = sequence->n;
    return LAPIDARY_OK;
}

/* A part of a tensor along an axis: `view` gets its dims and a copy of its elements in temporary memory. */
static int32_t part(
    lap_context *ctx, const lap_tensor *x, int32_t axis, int64_t from, int64_t length, int squeeze, lap_tensor *view,
    lapidary_strings *header, int32_t node_id) {
    int64_t outer = lap_span(x, 0, axis), inner = lap_span(x, axis + 1, x->rank), size = lap_dtype_bytes(x->dtype);
    *view = (lap_tensor){.dtype = x->dtype, .buffer = -1};
    for (int32_t a = 0; a < x->rank; a++) {
        if (a == axis && squeeze) continue;
        view->dims[view->rank++] = a == axis ? length : x->dims[a];
    }
    lap_contiguous_strides(view);
    int64_t n = lap_elements(view);
    if (n <= 0) outer = 0; /* then a span may be -1 */
    if (x->dtype == LAPIDARY_STRING) {
        const lapidary_strings *strings = x->data;
        int64_t text = 0;
        TEMP(int64_t, offsets, (n < 0 ? 0 : n) + 1);
        for (int64_t o = 0; o < outer; o++) {
            int64_t e = (o * x->dims[axis] + from) * inner;
            text += strings->offsets[e + length * inner] - strings->offsets[e];
        }
        TEMP(char, bytes, text);
        int64_t k = 0, used = 0;
        offsets[0] = 0;
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t i = 0; i < length * inner; i++) {
                lap_bytes s = lap_string(x, (o * x->dims[axis] + from) * inner + i);
                memcpy(bytes + used, s.data, (size_t)s.bytes);
                offsets[++k] = used += s.bytes;
            }
        }
        *header = (lapidary_strings){offsets, bytes};
        view->data = header;
        return LAPIDARY_OK;
    }
    TEMP(char, data, lap_bytes_of(n < 0 ? 0 : n, size));
    for (int64_t o = 0; o < outer; o++) {
        memcpy(data + o * length * inner * size,
               (const char *)x->data + (o * x->dims[axis] + from) * inner * size, (size_t)(length * inner * size));
    }
    view->data = data;
    return LAPIDARY_OK;
}

/* x, split? -> sequence. Ints: axis, keepdims (only without split). */
LAP_LIBRARY_KERNEL(lap_lib_split_to_sequence) {
    EXPECT(1, 1, 2, 0);
    const lap_tensor *x = in[0], *split = lap_opt(in, n_in, 1);
    int32_t axis;
    TRY(lap_axis(ctx, at->ints[0], x->rank, &axis, node_id));
    int64_t size = x->dims[axis], n = size, each = 1;
    int squeeze = !split && !at->ints[1];
    int64_t *sizes = NULL;
    if (split && split->rank == 0) {
        TRY(lap_one_int(ctx, split, 1, &each, node_id));
        NEED(each > 0, "parts of {a} elements", each, 0);
        n = size / each + (size % each != 0);
    } else if (split) {
        NEED(split->rank == 1, "split has rank {a}, expected at most 1", split->rank, 0);
        n = split->dims[0];
        TEMP(int64_t, all, n);
        TRY(lap_ints(ctx, split, 1, all, n, &n, node_id));
        int64_t sum = 0;
        for (int64_t i = 0; i < n; i++) {
            NEED(all[i] >= 0 && all[i] <= size - sum, "parts that are more than the {b} of the axis (part {a})", i, size);
            sum += all[i];
        }
        NEED(sum == size, "parts of {a} in all, the axis has {b}", sum, size);
        sizes = all;
    }
    TEMP(lap_tensor, views, n);
    TEMP(lapidary_strings, headers, n);
    TEMP(const lap_tensor *, list, n);
    int64_t from = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t length = sizes ? sizes[i] : lap_min(each, size - from);
        TRY(part(ctx, x, axis, from, length, squeeze, &views[i], &headers[i], node_id));
        list[i] = &views[i];
        from += length;
    }
    return wrap(ctx, out[0], LAP_KIND_SEQUENCE, list, n, node_id);
}

/* sequence -> x. Ints: axis, new_axis. */
LAP_LIBRARY_KERNEL(lap_lib_concat_from_sequence) {
    const lap_box *sequence;
    const lap_attrs *record = attrs;
    OUTPUT;
    NEED(record && record->n_ints >= 2, "the record lacks its numbers", 0, 0);
    TRY(boxed(ctx, in, n_in, 0, LAP_KIND_SEQUENCE, &sequence, node_id));
    int64_t n = sequence->n;
    int stack = record->ints[1] != 0;
    NEED(n > 0, "an empty sequence cannot be concatenated", 0, 0);
    TEMP(lap_tensor, views, n);
    TEMP(lapidary_strings, headers, n);
    for (int64_t i = 0; i < n; i++) {
        lap_box_view(lap_box_inside(sequence, i), &views[i], &headers[i]);
        NEED(views[i].kind == LAP_KIND_TENSOR, "element {a} of the sequence is no tensor", i, 0);
        NEED(views[i].dtype == out[0]->dtype, "element {a} of the sequence is of type {b}", i, views[i].dtype);
    }
    const lap_tensor *first = &views[0];
    int32_t rank = first->rank + stack, axis;
    NEED(rank <= LAP_MAX_RANK, "a result of rank {a}", rank, 0);
    TRY(lap_axis(ctx, record->ints[0], rank, &axis, node_id));
    int64_t dims[LAP_MAX_RANK], total = stack ? n : 0;
    for (int32_t a = 0; a < rank; a++) dims[a] = stack ? (a < axis ? first->dims[a] : a > axis ? first->dims[a - 1] : n) : first->dims[a];
    for (int64_t i = 0; i < n; i++) {
        NEED(views[i].rank == first->rank, "elements of ranks {a} and {b}", views[i].rank, first->rank);
        for (int32_t a = 0; a < first->rank; a++) {
            if (!stack && a == axis) {
                NEED(!__builtin_add_overflow(total, views[i].dims[a], &total), "the result is too large", 0, 0);
            } else {
                NEED(views[i].dims[a] == first->dims[a], "elements whose dims {a} and {b} differ", views[i].dims[a], first->dims[a]);
            }
        }
    }
    dims[axis] = total;
    int64_t outer = lap_count(axis, dims), inner = lap_count(rank - axis - 1, dims + axis + 1);
    int64_t size = lap_dtype_bytes(out[0]->dtype);
    if (out[0]->dtype != LAPIDARY_STRING) {
        TRY(lap_output_alloc(ctx, out[0], rank, dims, node_id));
        char *to = out[0]->data;
        if (lap_count(rank, dims) == 0) return LAPIDARY_OK;
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t i = 0; i < n; i++) {
                int64_t bytes = (stack ? 1 : views[i].dims[axis]) * inner * size;
                memcpy(to, (const char *)views[i].data + o * bytes, (size_t)bytes);
                to += bytes;
            }
        }
        return LAPIDARY_OK;
    }
    int64_t text = 0;
    for (int64_t i = 0; i < n; i++) text += headers[i].offsets[lap_elements(&views[i])];
    TRY(lap_output_alloc_strings(ctx, out[0], rank, dims, text, node_id));
    if (lap_count(rank, dims) == 0) return LAPIDARY_OK;
    lapidary_strings *made = out[0]->data;
    int64_t *offsets = (int64_t *)(uintptr_t)made->offsets, k = 0, used = 0;
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t block = (stack ? 1 : views[i].dims[axis]) * inner;
            for (int64_t e = 0; e < block; e++) {
                lap_bytes s = lap_string(&views[i], o * block + e);
                memcpy((char *)(uintptr_t)made->bytes + used, s.data, (size_t)s.bytes);
                offsets[++k] = used += s.bytes;
            }
        }
    }
    return LAPIDARY_OK;
}

LAP_LIBRARY_KERNEL(lap_lib_optional) {
    OUTPUT;
    return wrap(ctx, out[0], LAP_KIND_OPTIONAL, in, n_in > 0 && in[0] ? 1 : 0, node_id);
}

LAP_LIBRARY_KERNEL(lap_lib_optional_has) {
    OUTPUT;
    const lap_tensor *x = lap_opt(in, n_in, 0);
    TRY(lap_output_alloc(ctx, out[0], 0, NULL, node_id));
    *(uint8_t *)out[0]->data = x && (x->kind != LAP_KIND_OPTIONAL || lap_box_of(x)->n > 0);
    return LAPIDARY_OK;
}

LAP_LIBRARY_KERNEL(lap_lib_optional_get) {
    OUTPUT;
    const lap_tensor *x = lap_opt(in, n_in, 0);
    NEED(x, "input 0 is missing", 0, 0);
    if (x->kind != LAP_KIND_OPTIONAL) return lap_output_copy(ctx, out[0], x, node_id);
    NEED(lap_box_of(x)->n > 0, "the optional holds nothing", 0, 0);
    return lap_output_unbox(ctx, out[0], lap_box_inside(lap_box_of(x), 0), node_id);
}
