/* Windows over images: maxima with their positions, their inverse, blocks put back into an image, and
 * convolutions that sample at shifted places. */
#include "lap_library.h"

#define MAX_SPACE 8

/* The next index of an odometer; 0 at the end. */
static int advance(int64_t *index, const int64_t *dims, int64_t n) {
    for (int64_t d = n - 1; d >= 0; d--) {
        if (++index[d] < dims[d]) return 1;
        index[d] = 0;
    }
    return 0;
}

/* The spatial rank of a record and that of its input; the record's lists hold small numbers. */
static int32_t space_of(
    lap_context *ctx, int64_t n, const lap_tensor *x, const lap_attrs *at, int32_t lists, int32_t head, int32_t node_id) {
    NEED(n >= 1 && n <= MAX_SPACE, "{a} spatial axes, expected 1 to {b}", n, MAX_SPACE);
    NEED(at->n_ints >= head + lists * n, "the record has {a} integers, expected {b}", at->n_ints, head + lists * n);
    for (int64_t i = head; i < head + lists * n; i++) {
        NEED(at->ints[i] > -INT32_MAX && at->ints[i] < INT32_MAX, "entry {a} of the record is {b}", i, at->ints[i]);
    }
    NEED(!x || x->rank == n + 2, "an input of rank {a} for {b} spatial axes", x ? x->rank : 0, n);
    return LAPIDARY_OK;
}

/* ---- max_pool ---------------------------------------------------------------------------------- */

typedef struct pool_job {
    const lap_tensor *x;
    lap_tensor *y;
    int64_t *places; /* or NULL */
    int64_t n, column_major, in_pixels, out_pixels;
    const int64_t *in_dims, *out_dims, *kernel, *strides, *dilations, *pads;
} pool_job;

/* Tasks: channels of all images. */
static void pool_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const pool_job *j = buffers[0];
    int64_t size = lap_dtype_bytes(j->x->dtype);
    (void)dims;
    (void)worker;
    for (int64_t c = begin; c < end; c++) {
        int64_t o[MAX_SPACE] = {0}, out = c * j->out_pixels;
        do {
            int64_t k[MAX_SPACE] = {0}, best = -1, best_place = -1;
            double most = 0;
            do {
                int64_t at = 0, place = 0, unit = 1;
                int inside = 1;
                for (int64_t d = 0; d < j->n && inside; d++) {
                    int64_t i = o[d] * j->strides[d] - j->pads[d] + k[d] * j->dilations[d];
                    inside = i >= 0 && i < j->in_dims[d];
                    at = at * j->in_dims[d] + i;
                    place += i * unit;
                    unit *= j->in_dims[d];
                }
                if (!inside) continue;
                double v = lap_number(j->x, c * j->in_pixels + at);
                if (best < 0 || v > most || (v != v && most == most)) {
                    best = at;
                    best_place = j->column_major ? place : at;
                    most = v;
                }
            } while (advance(k, j->kernel, j->n));
            if (j->y && best >= 0) {
                memcpy((char *)j->y->data + out * size, (const char *)j->x->data + (c * j->in_pixels + best) * size, (size_t)size);
            } else if (j->y) {
                lap_set_number(j->y, out, -INFINITY);
            }
            if (j->places) j->places[out] = best < 0 ? -1 : c * j->in_pixels + best_place;
            out++;
        } while (advance(o, j->out_dims, j->n));
    }
}

/* x, pads before or none. Ints: storage_order, n, then n each of kernel, strides, dilations, pads before (without the
 * operand). Outputs: y, places; dims as planned. */
LAP_LIBRARY_KERNEL(lap_lib_max_pool) {
    EXPECT(1, 1, 2, 0);
    const lap_tensor *x = in[0], *shape = out[0] ? out[0] : n_out > 1 ? out[1] : NULL;
    int64_t n = at->ints[1], dims[LAP_MAX_RANK], pads[LAP_MAX_RANK], found;
    TRY(space_of(ctx, n, x, at, 4, 2, node_id));
    if (!shape) return LAPIDARY_OK;
    NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    for (int64_t i = 2; i < 2 + 4 * n; i++) NEED(at->ints[i] >= (i < 2 + 3 * n ? 1 : 0), "the window has {a} at {b}", at->ints[i], i);
    memcpy(pads, at->ints + 2 + 3 * n, (size_t)(8 * n));
    if (lap_opt(in, n_in, 1)) {
        TRY(lap_ints(ctx, in[1], 1, pads, LAP_MAX_RANK, &found, node_id));
        NEED(found == n, "{a} pads for {b} spatial axes", found, n);
        for (int64_t d = 0; d < n; d++) NEED(pads[d] >= 0 && pads[d] < INT32_MAX, "axis {a} is padded by {b}", d, pads[d]);
    }
    memcpy(dims, shape->dims, sizeof dims);
    for (int32_t a = 0; a < 2; a++) NEED(dims[a] == x->dims[a], "an output dim of {a} for {b}", dims[a], x->dims[a]);
    if (out[0]) NEED(out[0]->dtype == x->dtype, "an output of type {a} for elements of type {b}", out[0]->dtype, x->dtype);
    if (out[0]) TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    lap_tensor *places = n_out > 1 ? out[1] : NULL;
    if (places) NEED(places->dtype == LAPIDARY_I64, "places of type {a}, expected i64 ({b})", places->dtype, LAPIDARY_I64);
    if (places) TRY(lap_output_alloc(ctx, places, x->rank, dims, node_id));
    const int64_t *lists = at->ints + 2;
    pool_job j = {x, out[0], places ? places->data : NULL, n, at->ints[0], lap_span(x, 2, x->rank), lap_count((int32_t)n, dims + 2),
                  x->dims + 2, dims + 2, lists, lists + n, lists + 2 * n, pads};
    if (lap_count(x->rank, dims) == 0) return LAPIDARY_OK;
    void *buffers[] = {&j};
    int64_t cost = lap_bytes_of(lap_count(x->rank, dims), lap_count((int32_t)n, lists));
    return lap_parallel_for(ctx, pool_tasks, buffers, NULL, dims[0] * dims[1], 0, node_id, cost);
}

/* x, places, output shape or none. Ints: n, then n each of kernel, strides, pads before, pads after. */
LAP_LIBRARY_KERNEL(lap_lib_max_unpool) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0], *wanted = lap_opt(in, n_in, 2);
    int64_t n = at->ints[0], dims[LAP_MAX_RANK], inner[LAP_MAX_RANK], rank, total = lap_elements(x);
    TRY(space_of(ctx, n, x, at, 4, 1, node_id));
    memcpy(inner, x->dims, sizeof inner);
    for (int64_t d = 0; d < n; d++) {
        const int64_t *lists = at->ints + 1 + d;
        NEED(!__builtin_mul_overflow(x->dims[2 + d] - 1, lists[n], inner + 2 + d), "axis {a} gets too large", 2 + d, 0);
        inner[2 + d] += lists[0] - lists[2 * n] - lists[3 * n];
    }
    int64_t room = lap_count(x->rank, inner);
    NEED(room >= 0, "the pads leave less than nothing", 0, 0);
    memcpy(dims, inner, sizeof dims);
    if (wanted) {
        TRY(lap_ints(ctx, wanted, 2, dims, LAP_MAX_RANK, &rank, node_id));
        NEED(rank == x->rank, "an output shape of {a} numbers for rank {b}", rank, x->rank);
        for (int32_t a = 0; a < rank; a++) NEED(dims[a] >= inner[a] || a < 2 || dims[a] >= 0, "an output dim of {a}, expected {b} or more", dims[a], inner[a]);
    }
    int64_t size = lap_dtype_bytes(x->dtype);
    NEED(size > 0 && out[0]->dtype == x->dtype, "an output of type {a} for elements of type {b}", out[0]->dtype, x->dtype);
    NEED(lap_elements(in[1]) == total && in[1]->dtype == LAPIDARY_I64, "{a} places (i64) for {b} elements", lap_elements(in[1]), total);
    TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    memset(out[0]->data, 0, (size_t)(lap_count(x->rank, dims) * size));
    const int64_t *places = in[1]->data;
    for (int64_t i = 0; i < total; i++) {
        if (places[i] < 0 || places[i] >= room) FAIL(INDEX, "place {a} of {b} elements", places[i], room);
        int64_t rest = places[i], to = 0, unit = 1;
        int inside = 1;
        for (int32_t a = x->rank - 1; a >= 0; a--) {
            int64_t k = rest % inner[a];
            rest /= inner[a];
            inside &= k < dims[a];
            if (!inside) break;
            to += k * unit;
            unit *= dims[a];
        }
        if (inside) memcpy((char *)out[0]->data + to * size, (const char *)x->data + i * size, (size_t)size);
    }
    return LAPIDARY_OK;
}

/* ---- col2im ------------------------------------------------------------------------------------ */

/* x [N, C * block, L], image shape, block shape. Ints: n, then n each of dilations, strides, pads before, pads
 * after; or 0 alone: as many axes as the image has, without dilations, strides and pads. */
LAP_LIBRARY_KERNEL(lap_lib_col2im) {
    EXPECT(3, 1, 1, 0);
    const lap_tensor *x = in[0];
    int64_t n = at->ints[0], image[LAP_MAX_RANK], block[LAP_MAX_RANK], blocks[MAX_SPACE], found, dims[LAP_MAX_RANK];
    static const int64_t ones[MAX_SPACE] = {1, 1, 1, 1, 1, 1, 1, 1}, zeros[MAX_SPACE] = {0};
    if (n == 0) {
        n = lap_elements(in[1]);
        NEED(n >= 1 && n <= MAX_SPACE, "{a} spatial axes, expected 1 to {b}", n, MAX_SPACE);
    } else {
        TRY(space_of(ctx, n, NULL, at, 4, 1, node_id));
    }
    int plain = at->ints[0] == 0;
    NEED(x->rank == 3, "an input of rank {a}, expected {b}", x->rank, 3);
    TRY(lap_ints(ctx, in[1], 1, image, LAP_MAX_RANK, &found, node_id));
    NEED(found == n, "an image of {a} axes, expected {b}", found, n);
    TRY(lap_ints(ctx, in[2], 2, block, LAP_MAX_RANK, &found, node_id));
    NEED(found == n, "a block of {a} axes, expected {b}", found, n);
    const int64_t *lists = at->ints + 1, *dilations = plain ? ones : lists, *strides = plain ? ones : lists + n;
    const int64_t *before = plain ? zeros : lists + 2 * n, *after = plain ? zeros : lists + 3 * n;
    for (int64_t d = 0; d < n; d++) {
        NEED(image[d] >= 0 && image[d] < INT64_C(1) << 40 && block[d] > 0 && block[d] < INT64_C(1) << 20, "an image of {a}, a block of {b}",
             image[d], block[d]);
        NEED(dilations[d] > 0 && dilations[d] < INT64_C(1) << 20 && strides[d] > 0, "a dilation of {a}, a stride of {b}", dilations[d], strides[d]);
        blocks[d] = lap_floor_div(image[d] + before[d] + after[d] - dilations[d] * (block[d] - 1) - 1, strides[d]) + 1;
        NEED(blocks[d] >= 0, "axis {a} has {b} blocks", d, blocks[d]);
    }
    int64_t size = lap_count((int32_t)n, block), columns = lap_count((int32_t)n, blocks), pixels = lap_count((int32_t)n, image);
    NEED(size > 0 && x->dims[1] % size == 0, "{a} rows do not divide by a block of {b}", x->dims[1], size);
    NEED(columns == x->dims[2], "{a} columns, expected {b}", x->dims[2], columns);
    NEED(lap_is_number(x->dtype) && out[0]->dtype == x->dtype, "elements of type {a} into type {b}", x->dtype, out[0]->dtype);
    int64_t channels = x->dims[0] * (x->dims[1] / size);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1] / size;
    memcpy(dims + 2, image, (size_t)(8 * n));
    TRY(lap_output_alloc(ctx, out[0], (int32_t)n + 2, dims, node_id));
    TEMP(double, sums, pixels);
    for (int64_t c = 0; c < channels && pixels > 0; c++) {
        int64_t k[MAX_SPACE] = {0}, row = c * size;
        memset(sums, 0, (size_t)(8 * pixels));
        do {
            int64_t o[MAX_SPACE] = {0}, column = 0;
            if (columns > 0) do {
                int64_t to = 0;
                int inside = 1;
                for (int64_t d = 0; d < n; d++) {
                    int64_t i = o[d] * strides[d] - before[d] + k[d] * dilations[d];
                    inside &= i >= 0 && i < image[d];
                    to = inside ? to * image[d] + i : 0;
                }
                if (inside) sums[to] += lap_number(x, row * columns + column);
                column++;
            } while (advance(o, blocks, n));
            row++;
        } while (advance(k, block, n));
        for (int64_t i = 0; i < pixels; i++) lap_set_number(out[0], c * pixels + i, sums[i]);
    }
    return LAPIDARY_OK;
}

/* ---- deform_conv ------------------------------------------------------------------------------- */

typedef struct deform_job {
    const float *x, *w, *offset, *bias, *mask;
    float *y;
    int64_t n, groups, offset_groups, channels, in_pixels, out_pixels, filters, taps;
    const int64_t *in_dims, *out_dims, *kernel, *strides, *dilations, *pads;
} deform_job;

/* The value between pixels; what lies outside is 0. */
static float between(const float *x, const double *at, const int64_t *dims, int64_t n) {
    double sum = 0;
    for (int64_t corner = 0; corner < INT64_C(1) << n; corner++) {
        double weight = 1;
        int64_t pixel = 0;
        int inside = 1;
        for (int64_t d = 0; d < n && inside; d++) {
            double low = floor(at[d]), part = at[d] - low, i = low + (double)(corner >> d & 1);
            weight *= corner >> d & 1 ? part : 1 - part;
            inside = i >= 0 && i < (double)dims[d];
            if (inside) pixel = pixel * dims[d] + (int64_t)i;
        }
        if (inside && weight != 0) sum += weight * (double)x[pixel];
    }
    return (float)sum;
}

/* Tasks: output pixels of all images. The samples of a pixel go to scratch, then each filter over them. */
static void deform_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const deform_job *j = buffers[0];
    float *samples = (float *)(void *)worker->scratch;
    int64_t per_offset = j->channels / j->offset_groups, per_group = j->channels / j->groups, filters = j->filters / j->groups;
    (void)dims;
    for (int64_t task = begin; task < end; task++) {
        int64_t batch = task / j->out_pixels, pixel = task % j->out_pixels, o[MAX_SPACE], rest = pixel;
        for (int64_t d = j->n - 1; d >= 0; d--) {
            o[d] = rest % j->out_dims[d];
            rest /= j->out_dims[d];
        }
        for (int64_t g = 0; g < j->offset_groups; g++) {
            int64_t k[MAX_SPACE] = {0};
            for (int64_t t = 0; t < j->taps; t++, advance(k, j->kernel, j->n)) {
                double at[MAX_SPACE];
                int64_t base = (batch * j->offset_groups + g) * j->taps + t;
                for (int64_t d = 0; d < j->n; d++) {
                    double shift = (double)j->offset[(base * j->n + d) * j->out_pixels + pixel];
                    at[d] = (double)(o[d] * j->strides[d] - j->pads[d] + k[d] * j->dilations[d]) + shift;
                }
                float scale = j->mask ? j->mask[base * j->out_pixels + pixel] : 1;
                for (int64_t c = g * per_offset; c < (g + 1) * per_offset; c++) {
                    const float *x = j->x + (batch * j->channels + c) * j->in_pixels;
                    samples[c * j->taps + t] = scale * between(x, at, j->in_dims, j->n);
                }
            }
        }
        for (int64_t f = 0; f < j->filters; f++) {
            const float *s = samples + f / filters * per_group * j->taps, *w = j->w + f * per_group * j->taps;
            float sum = j->bias ? j->bias[f] : 0;
            for (int64_t i = 0; i < per_group * j->taps; i++) sum += s[i] * w[i];
            j->y[(batch * j->filters + f) * j->out_pixels + pixel] = sum;
        }
    }
}

/* x, w, offset, bias or none, mask or none. Ints: groups, offset groups, n, then n each of kernel (0: the weights'
 * own), strides, dilations, pads before, pads after. */
LAP_LIBRARY_KERNEL(lap_lib_deform_conv) {
    EXPECT(3, 1, 3, 0);
    const lap_tensor *x = in[0], *w = in[1], *offset = in[2], *bias = lap_opt(in, n_in, 3), *mask = lap_opt(in, n_in, 4);
    int64_t groups = at->ints[0], offset_groups = at->ints[1], n = at->ints[2], dims[LAP_MAX_RANK];
    TRY(space_of(ctx, n, x, at, 5, 3, node_id));
    NEED(w->rank == x->rank && offset->rank == x->rank, "weights of rank {a}, offsets of rank {b}", w->rank, offset->rank);
    const int64_t *lists = at->ints + 3, *kernel = w->dims + 2, taps = lap_count((int32_t)n, kernel);
    for (int64_t d = 0; d < n; d++) {
        NEED(lists[d] == 0 || lists[d] == kernel[d], "a kernel of {a}, the weights have {b}", lists[d], kernel[d]);
        NEED(kernel[d] > 0, "a kernel of {a}, expected {b} or more", kernel[d], 1);
    }
    NEED(taps > 0 && taps < INT64_C(1) << 40, "a kernel of {a} elements", taps, 0);
    NEED(groups > 0 && offset_groups > 0 && x->dims[1] % groups == 0 && x->dims[1] % offset_groups == 0, "{a} groups, {b} offset groups",
         groups, offset_groups);
    NEED(w->dims[1] == x->dims[1] / groups && w->dims[0] % groups == 0, "weights for {a} channels a group, expected {b}", w->dims[1],
         x->dims[1] / groups);
    NEED(offset->dims[0] == x->dims[0] && offset->dims[1] == offset_groups * taps * n, "offsets of {a} channels, expected {b}",
         offset->dims[1], offset_groups * taps * n);
    int64_t out_pixels = lap_span(offset, 2, offset->rank);
    if (bias) NEED(lap_elements(bias) == w->dims[0], "a bias of {a}, expected {b}", lap_elements(bias), w->dims[0]);
    if (mask) {
        NEED(lap_elements(mask) == lap_bytes_of(x->dims[0] * offset_groups * taps, out_pixels), "a mask of {a} elements for {b} pixels",
             lap_elements(mask), out_pixels);
    }
    memcpy(dims, offset->dims, sizeof dims);
    dims[1] = w->dims[0];
    TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    deform_job j = {lap_floats(ctx, x, node_id), lap_floats(ctx, w, node_id), lap_floats(ctx, offset, node_id),
                    bias ? lap_floats(ctx, bias, node_id) : NULL, mask ? lap_floats(ctx, mask, node_id) : NULL,
                    lap_float_room(ctx, out[0], node_id), n, groups, offset_groups, x->dims[1], lap_span(x, 2, x->rank), out_pixels,
                    w->dims[0], taps, x->dims + 2, dims + 2, kernel, lists + n, lists + 2 * n, lists + 3 * n};
    if (lap_count(x->rank, dims) == 0) return LAPIDARY_OK;
    if (!j.x || !j.w || !j.offset || !j.y || (bias && !j.bias) || (mask && !j.mask)) return LAPIDARY_ERROR_MEMORY;
    void *buffers[] = {&j};
    int64_t each = lap_bytes_of(j.channels, taps);
    TRY(lap_parallel_for(ctx, deform_tasks, buffers, NULL, x->dims[0] * out_pixels, lap_bytes_of(each, 4), node_id,
                         lap_bytes_of(x->dims[0] * out_pixels, lap_bytes_of(each, 8))));
    lap_store_floats(out[0], j.y);
    return LAPIDARY_OK;
}
