/* Choices by value: positions of what is not 0, the greatest, distinct ones, boxes that do not overlap. */
#include "lap_library.h"

/* ---- non_zero ---------------------------------------------------------------------------------- */

/* x. Output: i64 [rank, count]. */
LAP_LIBRARY_KERNEL(lap_lib_non_zero) {
    EXPECT(1, 1, 0, 0);
    const lap_tensor *x = in[0];
    NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    NEED(out[0]->dtype == LAPIDARY_I64, "an output of type {a}, expected i64 ({b})", out[0]->dtype, LAPIDARY_I64);
    int64_t n = lap_elements(x), found = 0;
    TEMP(int64_t, places, n);
    for (int64_t i = 0; i < n; i++) {
        places[found] = i;
        found += lap_number(x, i) != 0;
    }
    int64_t dims[] = {x->rank, found};
    TRY(lap_output_alloc(ctx, out[0], 2, dims, node_id));
    int64_t *to = out[0]->data;
    for (int64_t k = 0; k < found; k++) {
        int64_t rest = places[k];
        for (int32_t a = x->rank - 1; a >= 0; a--) {
            to[a * found + k] = rest % x->dims[a];
            rest /= x->dims[a];
        }
    }
    return LAPIDARY_OK;
}

/* ---- top_k ------------------------------------------------------------------------------------- */

typedef struct top_job {
    const lap_tensor *x;
    lap_tensor *values;
    int64_t *indices; /* or NULL */
    int64_t n, k, inner;
    int largest, sorted;
} top_job;

/* Keys are integers that sort as the elements do; NaN is the greatest. Smallest wanted: all bits turned. */
static int64_t key_of(const lap_tensor *t, int64_t i) {
    int64_t bits;
    int32_t half;
    switch (t->dtype) {
    case LAPIDARY_F64:
        memcpy(&bits, (const double *)t->data + i, 8);
        if (((const double *)t->data)[i] != ((const double *)t->data)[i]) return INT64_MAX - 1;
        if (((const double *)t->data)[i] == 0) bits = 0;
        return bits < 0 ? bits ^ INT64_MAX : bits;
    case LAPIDARY_F32:
    case LAPIDARY_F16:
    case LAPIDARY_BF16: {
        float f = (float)lap_number(t, i);
        memcpy(&half, &f, 4);
        if (f != f) return INT32_MAX;
        if (f == 0) half = 0;
        return half < 0 ? half ^ INT32_MAX : half;
    }
    case LAPIDARY_I64: return ((const int64_t *)t->data)[i];
    case LAPIDARY_U64: return (int64_t)(((const uint64_t *)t->data)[i] ^ UINT64_C(1) << 63);
    default: return (int64_t)lap_number(t, i);
    }
}

typedef struct ranked {
    int64_t key, index;
} ranked;

/* a is chosen after b. */
static int behind(ranked a, ranked b) { return a.key < b.key || (a.key == b.key && a.index > b.index); }

/* The root of the heap is the one chosen last. */
static void sift(ranked *heap, int64_t n, int64_t i) {
    ranked v = heap[i];
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && behind(heap[child + 1], heap[child])) child++;
        if (!behind(heap[child], v)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = v;
}

static void top_rows(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const top_job *job = buffers[0];
    ranked *heap = (ranked *)(void *)worker->scratch;
    int64_t k = job->k, inner = job->inner, size = lap_dtype_bytes(job->x->dtype);
    (void)dims;
    for (int64_t row = begin; row < end; row++) {
        int64_t from = row / inner * job->n * inner + row % inner, to = row / inner * k * inner + row % inner, have = 0;
        for (int64_t i = 0; i < job->n; i++) {
            int64_t key = key_of(job->x, from + i * inner);
            ranked v = {job->largest ? key : ~key, i};
            if (have < k) {
                heap[have++] = v;
                if (have == k) {
                    for (int64_t h = k / 2 - 1; h >= 0; h--) sift(heap, k, h);
                }
            } else if (behind(heap[0], v)) {
                heap[0] = v;
                sift(heap, k, 0);
            }
        }
        for (int64_t left = k - 1; left > 0; left--) { /* the last goes to the end */
            ranked last = heap[0];
            heap[0] = heap[left];
            heap[left] = last;
            sift(heap, left, 0);
        }
        for (int64_t j = 0; j < k; j++) {
            if (job->indices) job->indices[to + j * inner] = heap[j].index;
            if (!job->values) continue;
            memcpy((char *)job->values->data + (to + j * inner) * size,
                   (const char *)job->x->data + (from + heap[j].index * inner) * size, (size_t)size);
        }
    }
}

/* x, k. Ints: axis, largest, sorted (always). Outputs: values, indices. */
LAP_LIBRARY_KERNEL(lap_lib_top_k) {
    EXPECT(2, 1, 3, 0);
    const lap_tensor *x = in[0];
    int32_t axis;
    int64_t k, dims[LAP_MAX_RANK];
    TRY(lap_axis(ctx, at->ints[0], x->rank, &axis, node_id));
    TRY(lap_one_int(ctx, in[1], 1, &k, node_id));
    NEED(k >= 0 && k <= x->dims[axis], "k is {a}, the axis has {b} elements", k, x->dims[axis]);
    NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = k;
    lap_tensor *indices = n_out > 1 ? out[1] : NULL;
    if (out[0]) NEED(out[0]->dtype == x->dtype, "an output of type {a} for elements of type {b}", out[0]->dtype, x->dtype);
    if (out[0]) TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    if (indices) NEED(indices->dtype == LAPIDARY_I64, "indices of type {a}, expected i64 ({b})", indices->dtype, LAPIDARY_I64);
    if (indices) TRY(lap_output_alloc(ctx, indices, x->rank, dims, node_id));
    if (lap_count(x->rank, dims) == 0) return LAPIDARY_OK;
    top_job job = {
        .x = x, .values = out[0], .indices = indices ? indices->data : NULL, .n = x->dims[axis], .k = k,
        .inner = lap_span(x, axis + 1, x->rank), .largest = at->ints[1] != 0};
    void *buffers[] = {&job};
    int64_t rows = lap_elements(x) / job.n;
    return lap_parallel_for(ctx, top_rows, buffers, NULL, rows, lap_bytes_of(k, sizeof(ranked)), node_id, lap_elements(x) * 4);
}

/* ---- unique ------------------------------------------------------------------------------------ */

typedef struct slabs {
    const lap_tensor *x;
    int64_t n, outer, inner; /* slab i: all [o, i, q] */
} slabs;

static int order(const lap_tensor *x, int64_t a, int64_t b) {
    if (x->dtype == LAPIDARY_STRING) {
        lap_bytes s = lap_string(x, a), t = lap_string(x, b);
        int c = memcmp(s.data, t.data, (size_t)lap_min(s.bytes, t.bytes));
        return c ? c : (s.bytes > t.bytes) - (s.bytes < t.bytes);
    }
    int64_t p = key_of(x, a), q = key_of(x, b);
    return (p > q) - (p < q);
}

static int compare(const slabs *s, int64_t a, int64_t b) {
    for (int64_t o = 0; o < s->outer; o++) {
        int64_t p = (o * s->n + a) * s->inner, q = (o * s->n + b) * s->inner;
        for (int64_t i = 0; i < s->inner; i++) {
            int c = order(s->x, p + i, q + i);
            if (c) return c;
        }
    }
    return 0;
}

/* Merges runs of growing length: stable. */
static void sort_slabs(const slabs *s, int64_t *list, int64_t *other) {
    for (int64_t width = 1; width < s->n; width *= 2) {
        for (int64_t low = 0; low < s->n; low += 2 * width) {
            int64_t mid = lap_min(low + width, s->n), high = lap_min(low + 2 * width, s->n), a = low, b = mid;
            for (int64_t to = low; to < high; to++) {
                int left = a < mid && (b >= high || compare(s, list[a], list[b]) <= 0);
                other[to] = left ? list[a++] : list[b++];
            }
        }
        memcpy(list, other, (size_t)(8 * s->n));
    }
}

static int32_t vector_out(lap_context *ctx, lap_tensor *t, const int64_t *from, int64_t n, int32_t node_id) {
    if (!t) return LAPIDARY_OK;
    NEED(t->dtype == LAPIDARY_I64, "positions of type {a}, expected i64 ({b})", t->dtype, LAPIDARY_I64);
    TRY(lap_output_alloc(ctx, t, 1, &n, node_id));
    if (n > 0) memcpy(t->data, from, (size_t)(8 * n));
    return LAPIDARY_OK;
}

/* x. Ints: sorted, axis (or -1: flattened). Outputs: y, first positions, inverse positions, counts. */
LAP_LIBRARY_KERNEL(lap_lib_unique) {
    EXPECT(1, 1, 2, 0);
    lap_tensor x = *in[0];
    int32_t axis = 0;
    NEED(lap_is_number(x.dtype) || x.dtype == LAPIDARY_STRING, "elements of type {a} are not supported", x.dtype, 0);
    if (at->ints[1] < 0) {
        x.dims[0] = lap_elements(&x);
        x.rank = 1;
    } else {
        TRY(lap_axis(ctx, at->ints[1], x.rank, &axis, node_id));
    }
    slabs s = {&x, x.dims[axis], lap_span(&x, 0, axis), lap_span(&x, axis + 1, x.rank)};
    TEMP(int64_t, list, s.n);
    TEMP(int64_t, other, s.n);
    TEMP(int64_t, first, s.n);
    TEMP(int64_t, inverse, s.n);
    TEMP(int64_t, counts, s.n);
    for (int64_t i = 0; i < s.n; i++) list[i] = i;
    sort_slabs(&s, list, other);
    int64_t found = 0;
    for (int64_t i = 0; i < s.n; i++) {
        if (i == 0 || compare(&s, list[i - 1], list[i])) {
            first[found] = list[i];
            counts[found++] = 0;
        }
        counts[found - 1]++;
        inverse[list[i]] = found - 1;
    }
    if (!at->ints[0]) { /* by first position: `list` becomes the new place of each, `other` the order */
        for (int64_t i = 0; i < s.n; i++) list[i] = -1;
        for (int64_t g = 0; g < found; g++) list[first[g]] = g;
        int64_t next = 0;
        TEMP(int64_t, place, found);
        for (int64_t i = 0; i < s.n; i++) {
            if (list[i] < 0) continue;
            place[list[i]] = next;
            other[next++] = list[i];
        }
        TEMP(int64_t, sorted_first, found);
        TEMP(int64_t, sorted_counts, found);
        for (int64_t g = 0; g < found; g++) {
            sorted_first[g] = first[other[g]];
            sorted_counts[g] = counts[other[g]];
        }
        for (int64_t i = 0; i < s.n; i++) inverse[i] = place[inverse[i]];
        first = sorted_first;
        counts = sorted_counts;
    }
    if (out[0]) {
        int64_t dims[LAP_MAX_RANK];
        const int64_t *at_axis[LAP_MAX_RANK] = {0};
        memcpy(dims, x.dims, sizeof dims);
        dims[axis] = found;
        at_axis[axis] = first;
        TRY(lap_pick(ctx, &x, out[0], dims, at_axis, NULL, node_id));
    }
    if (n_out > 1) TRY(vector_out(ctx, out[1], first, found, node_id));
    if (n_out > 2) TRY(vector_out(ctx, out[2], inverse, s.n, node_id));
    if (n_out > 3) TRY(vector_out(ctx, out[3], counts, found, node_id));
    return LAPIDARY_OK;
}

/* ---- non_max_suppression ------------------------------------------------------------------------- */

typedef struct box {
    float x0, y0, x1, y1;
} box;

static box box_of(const float *b, int64_t center) {
    if (center) {
        return (box){b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2};
    }
    return (box){b[1] < b[3] ? b[1] : b[3], b[0] < b[2] ? b[0] : b[2], b[1] < b[3] ? b[3] : b[1], b[0] < b[2] ? b[2] : b[0]};
}

static int overlaps(box a, box b, float limit) {
    float x0 = a.x0 > b.x0 ? a.x0 : b.x0, x1 = a.x1 < b.x1 ? a.x1 : b.x1;
    float y0 = a.y0 > b.y0 ? a.y0 : b.y0, y1 = a.y1 < b.y1 ? a.y1 : b.y1;
    if (x1 <= x0 || y1 <= y0) return 0;
    float common = (x1 - x0) * (y1 - y0), area_a = (a.x1 - a.x0) * (a.y1 - a.y0), area_b = (b.x1 - b.x0) * (b.y1 - b.y0);
    float all = area_a + area_b - common;
    return common > 0 && area_a > 0 && area_b > 0 && all > 0 && common / all > limit;
}

static int optional_number(lap_context *ctx, const lap_tensor *t, int32_t i, double *to, int *given, int32_t node_id) {
    *given = t && lap_elements(t) > 0;
    return *given ? lap_one_number(ctx, t, i, to, node_id) : LAPIDARY_OK;
}

/* boxes [N, B, 4], scores [N, C, B], greatest number of boxes a class or none, IoU threshold or none, score
 * threshold or none. Ints: center_point_box. Output: i64 [count, 3]. */
LAP_LIBRARY_KERNEL(lap_lib_non_max_suppression) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *b = in[0], *s = in[1];
    NEED(b->rank == 3 && s->rank == 3, "boxes of rank {a}, scores of rank {b}, expected 3", b->rank, s->rank);
    int64_t batches = b->dims[0], boxes = b->dims[1], classes = s->dims[1];
    NEED(b->dims[2] == 4, "boxes of {a} numbers, expected {b}", b->dims[2], 4);
    NEED(s->dims[0] == batches, "scores for a batch of {a}, boxes for {b}", s->dims[0], batches);
    NEED(s->dims[2] == boxes, "{a} scores a class for {b} boxes", s->dims[2], boxes);
    double most = 0, iou = 0, limit = 0;
    int given, limited;
    TRY(optional_number(ctx, lap_opt(in, n_in, 2), 2, &most, &given, node_id));
    TRY(optional_number(ctx, lap_opt(in, n_in, 3), 3, &iou, &given, node_id));
    TRY(optional_number(ctx, lap_opt(in, n_in, 4), 4, &limit, &limited, node_id));
    int64_t per_class = most > 0 ? (most < (double)boxes ? (int64_t)most : boxes) : 0, found = 0;
    const float *corner = lap_floats(ctx, b, node_id), *scores = lap_floats(ctx, s, node_id);
    if (!corner || !scores) return LAPIDARY_ERROR_CHECK;
    TEMP(ranked, order_of, boxes);
    TEMP(box, kept, per_class);
    TEMP(int64_t, result, lap_bytes_of(lap_bytes_of(batches, classes), lap_bytes_of(per_class, 3)));
    lap_tensor one = *s; /* scores as f32, for the keys */
    one.dtype = LAPIDARY_F32;
    one.data = (void *)(uintptr_t)scores;
    for (int64_t row = 0; row < batches * classes; row++) {
        int64_t n = 0, have = 0, batch = row / classes;
        for (int64_t i = 0; i < boxes; i++) {
            float v = scores[row * boxes + i];
            if (limited ? v > (float)limit : v == v) order_of[n++] = (ranked){key_of(&one, row * boxes + i), i};
        }
        /* A heap with the best at the root: keys turned, indices kept. */
        for (int64_t i = 0; i < n; i++) order_of[i] = (ranked){~order_of[i].key, -order_of[i].index};
        for (int64_t h = n / 2 - 1; h >= 0; h--) sift(order_of, n, h);
        while (n > 0 && have < per_class) {
            int64_t i = -order_of[0].index;
            order_of[0] = order_of[--n];
            if (n > 0) sift(order_of, n, 0);
            box next = box_of(corner + (batch * boxes + i) * 4, at->ints[0]);
            int hidden = 0;
            for (int64_t k = 0; k < have && !hidden; k++) hidden = overlaps(next, kept[k], (float)iou);
            if (hidden) continue;
            kept[have++] = next;
            int64_t *to = result + 3 * found++;
            to[0] = batch;
            to[1] = row % classes;
            to[2] = i;
        }
        if (row % 16 == 15) TRY(lap_check(ctx, node_id));
    }
    int64_t dims[] = {found, 3};
    NEED(out[0]->dtype == LAPIDARY_I64, "an output of type {a}, expected i64 ({b})", out[0]->dtype, LAPIDARY_I64);
    TRY(lap_output_alloc(ctx, out[0], 2, dims, node_id));
    memcpy(out[0]->data, result, (size_t)(24 * found));
    return LAPIDARY_OK;
}
