/* Boxes made, read and copied (lap_box.h). */
#include "lap_box.h"

static int64_t up(int64_t bytes) { return (bytes + LAP_ALIGN - 1) & ~(int64_t)(LAP_ALIGN - 1); }

/* The bytes of a tensor's elements as they lie in a box. */
static int64_t body_bytes(const lap_tensor *t) {
    int64_t n = lap_elements(t), bytes;
    if (n < 0 || n > INT64_MAX / 64) return -1;
    if (t->dtype != LAPIDARY_STRING) return __builtin_mul_overflow(n, lap_dtype_bytes(t->dtype), &bytes) ? -1 : bytes;
    const lapidary_strings *strings = t->data;
    return __builtin_add_overflow(8 * (n + 1), strings->offsets[n] - strings->offsets[0], &bytes) ? -1 : bytes;
}

int64_t lap_box_bytes(const lap_tensor *t) {
    if (t->kind != LAP_KIND_TENSOR) return lap_box_of(t)->bytes;
    int64_t body = body_bytes(t);
    if (body < 0 || body > INT64_MAX / 4) return -1;
    return up((int64_t)sizeof(lap_box) + 8 * t->rank) + up(body);
}

void lap_box_write(lap_box *to, const lap_tensor *t) {
    if (t->kind != LAP_KIND_TENSOR) {
        memcpy(to, t->data, (size_t)lap_box_of(t)->bytes);
        return;
    }
    int64_t n = lap_elements(t), body = up((int64_t)sizeof(lap_box) + 8 * t->rank);
    *to = (lap_box){.kind = LAP_KIND_TENSOR, .dtype = t->dtype, .bytes = lap_box_bytes(t), .n = t->rank, .body = body};
    for (int32_t i = 0; i < t->rank; i++) to->at[i] = t->dims[i];
    char *data = (char *)to + body;
    if (t->dtype != LAPIDARY_STRING) {
        memcpy(data, t->data, (size_t)(n * lap_dtype_bytes(t->dtype)));
        return;
    }
    const lapidary_strings *strings = t->data;
    int64_t *offsets = (int64_t *)(void *)data, first = strings->offsets[0];
    for (int64_t i = 0; i <= n; i++) offsets[i] = strings->offsets[i] - first;
    memcpy(offsets + n + 1, strings->bytes + first, (size_t)offsets[n]);
}

int64_t lap_box_room(int64_t n, int64_t inside) {
    if (n < 0 || n > INT64_MAX / 64 || inside < 0 || inside > INT64_MAX / 4) return -1;
    return up((int64_t)sizeof(lap_box) + 8 * n) + inside;
}

void lap_box_begin(lap_box *to, int32_t kind, int32_t dtype, int64_t n, int64_t *used) {
    *used = up((int64_t)sizeof(lap_box) + 8 * n);
    *to = (lap_box){.kind = kind, .dtype = dtype, .bytes = *used, .n = n};
}

lap_box *lap_output_box(lap_context *ctx, lap_tensor *out, int64_t bytes, int32_t node_id) {
    if (bytes < 0) {
        lap_fail(ctx, LAPIDARY_ERROR_MEMORY, node_id, "a container is too large", 0, 0);
        return NULL;
    }
    if (out->kind == LAP_KIND_TENSOR) {
        lap_fail(ctx, LAPIDARY_ERROR_INTERNAL, node_id, "an output that is a tensor was given a container", 0, 0);
        return NULL;
    }
    out->rank = -1;
    out->data = lap_alloc_dynamic(ctx, out->buffer, bytes);
    return out->data;
}

void lap_box_view(const lap_box *box, lap_tensor *view, lapidary_strings *header) {
    *view = (lap_tensor){.dtype = box->dtype, .rank = -1, .buffer = -1, .kind = box->kind, .data = (void *)(uintptr_t)box};
    if (box->kind != LAP_KIND_TENSOR) return;
    view->rank = (int32_t)box->n;
    for (int64_t i = 0; i < box->n; i++) view->dims[i] = box->at[i];
    lap_contiguous_strides(view);
    char *data = (char *)(uintptr_t)box + box->body;
    view->data = data;
    if (box->dtype != LAPIDARY_STRING) return;
    header->offsets = (const int64_t *)(const void *)data;
    header->bytes = data + 8 * (lap_elements(view) + 1);
    view->data = header;
}

int32_t lap_output_copy(lap_context *ctx, lap_tensor *out, const lap_tensor *t, int32_t node_id) {
    NEED(out->kind == t->kind, "an output of kind {a} for a value of kind {b}", out->kind, t->kind);
    NEED(out->dtype == t->dtype, "an output of type {a} for elements of type {b}", out->dtype, t->dtype);
    if (t->kind != LAP_KIND_TENSOR) {
        lap_box *to = lap_output_box(ctx, out, lap_box_of(t)->bytes, node_id);
        if (!to) return LAPIDARY_ERROR_MEMORY;
        lap_box_write(to, t);
        return LAPIDARY_OK;
    }
    return lap_copy_as(ctx, t, out, t->rank, t->dims, node_id);
}

int32_t lap_output_unbox(lap_context *ctx, lap_tensor *out, const lap_box *box, int32_t node_id) {
    lap_tensor view;
    lapidary_strings header;
    lap_box_view(box, &view, &header);
    return lap_output_copy(ctx, out, &view, node_id);
}
