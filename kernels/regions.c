/* Samples of images at computed places: grids, regions of interest. */
#include "lap_library.h"

#define MAX_SPACE 3 /* spatial axes */
#define MAX_SAMPLES 4096 /* of a bin of a region, along an axis */

/* ---- grid_sample ------------------------------------------------------------------------------- */

enum { GRID_LINEAR, GRID_NEAREST, GRID_CUBIC };
enum { PAD_ZEROS, PAD_BORDER, PAD_REFLECTION };

typedef struct grid_job {
    const void *x, *grid;
    void *y;
    int64_t channels, points, pixels, space, mode, padding, align, size[MAX_SPACE];
} grid_job;

static double reflect(double x, double low, double high) {
    double span = high - low;
    if (!(span > 0)) return low > 0 ? low : 0;
    double d = x < low ? low - x : x > high ? x - high : -1;
    if (!(d >= 0)) return x;
    double times = floor(d / span), rest = d - times * span;
    int even = fmod(times, 2) == 0;
    return (x < low) == even ? low + rest : high - rest;
}

/* The pixel for tap `i`, or -1: zero. */
static int64_t tap(double i, int64_t size, int64_t padding, double low, double high) {
    if (i >= 0 && i < (double)size) return (int64_t)i;
    if (padding == PAD_ZEROS) return -1;
    if (padding == PAD_REFLECTION) i = trunc(reflect(i, low, high));
    return i > 0 ? (i < (double)size ? (int64_t)i : size - 1) : 0;
}

static void keys(double x, double *w) {
    const double a = -0.75;
    w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
    w[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    w[3] = ((a * (2 - x) - 5 * a) * (2 - x) + 8 * a) * (2 - x) - 4 * a;
}

/* The pixels (with weights) that coordinates in [-1, 1] along each axis take; gives their number. */
static int64_t gather_taps(const grid_job *j, const float *at, int64_t *pixel, double *weight) {
    int64_t n = 1;
    pixel[0] = 0;
    weight[0] = 1;
    for (int64_t d = 0; d < j->space; d++) {
        int64_t size = j->size[d], count = j->mode == GRID_NEAREST ? 1 : j->mode == GRID_LINEAR ? 2 : 4;
        double low = j->align ? 0 : -0.5, high = j->align ? (double)(size - 1) : (double)size - 0.5, w[4] = {1, 0, 0, 0};
        float length = (float)size;
        float place = j->align ? (at[d] + 1) / 2 * (length - 1) : ((at[d] + 1) * length - 1) / 2;
        double x = (double)place;
        if (j->mode == GRID_NEAREST) x = rint(x);
        if (x < low || x > high) {
            if (j->padding == PAD_BORDER) x = x < 0 ? 0 : fmin(x, (double)(size - 1));
            if (j->padding == PAD_REFLECTION) x = reflect(x, low, high);
        }
        if (!(fabs(x) < 1e15)) x = j->padding == PAD_ZEROS ? -10 : 0; /* also NaN */
        double first = j->mode == GRID_NEAREST ? (j->padding == PAD_ZEROS ? x : trunc(x)) : floor(x);
        if (j->mode == GRID_LINEAR) {
            w[1] = x - first;
            w[0] = 1 - w[1];
        } else if (j->mode == GRID_CUBIC) {
            keys(x - first, w);
            first -= 1;
        }
        int64_t old = n, places[4];
        for (int64_t k = 0; k < count; k++) places[k] = tap(first + (double)k, size, j->padding, low, high);
        for (int64_t k = count - 1; k >= 0; k--) { /* the last first: the list grows in place */
            for (int64_t i = 0; i < old; i++) {
                int64_t p = places[k] < 0 || pixel[i] < 0 ? -1 : pixel[i] * size + places[k];
                if (k == 0) {
                    pixel[i] = p;
                    weight[i] *= w[0];
                } else {
                    pixel[k * old + i] = p;
                    weight[k * old + i] = weight[i] * w[k];
                }
            }
        }
        n = old * count;
    }
    return n;
}

#define GRID(name, T)                                                                                  \
    static void name(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) { \
        const grid_job *j = buffers[0];                                                                \
        int64_t pixel[64];                                                                             \
        double weight[64];                                                                             \
        float at[MAX_SPACE];                                                                           \
        (void)dims;                                                                                    \
        (void)worker;                                                                                  \
        for (int64_t task = begin; task < end; task++) {                                               \
            int64_t batch = task / j->points, point = task % j->points;                                \
            const T *g = (const T *)j->grid + task * j->space;                                         \
            for (int64_t d = 0; d < j->space; d++) at[d] = (float)g[j->space - 1 - d];                 \
            int64_t n = gather_taps(j, at, pixel, weight);                                             \
            for (int64_t c = 0; c < j->channels; c++) {                                                \
                const T *x = (const T *)j->x + (batch * j->channels + c) * j->pixels;                  \
                T sum = 0;                                                                             \
                for (int64_t k = 0; k < n; k++) {                                                      \
                    if (pixel[k] >= 0) sum += (T)weight[k] * x[pixel[k]];                              \
                }                                                                                      \
                ((T *)j->y)[(batch * j->channels + c) * j->points + point] = sum;                      \
            }                                                                                          \
        }                                                                                              \
    }
GRID(grid_float, float)
GRID(grid_double, double)

/* x [N, C, d…], grid [N, o…, n]. Ints: mode (0 linear, 1 nearest, 2 cubic), padding (0 zeros, 1 border,
 * 2 reflection), align_corners. */
LAP_LIBRARY_KERNEL(lap_lib_grid_sample) {
    EXPECT(2, 1, 3, 0);
    const lap_tensor *x = in[0], *g = in[1];
    int32_t space = x->rank - 2;
    NEED(space >= 1 && space <= MAX_SPACE, "an input of rank {a}, expected 3 to {b}", x->rank, MAX_SPACE + 2);
    NEED(g->rank == x->rank, "a grid of rank {a} for an input of rank {b}", g->rank, x->rank);
    NEED(g->dims[0] == x->dims[0], "a grid for a batch of {a}, the input has {b}", g->dims[0], x->dims[0]);
    NEED(g->dims[g->rank - 1] == space, "a grid of {a} coordinates for {b} axes", g->dims[g->rank - 1], space);
    NEED(lap_is_number(x->dtype) && lap_is_number(g->dtype), "elements of types {a} and {b}", x->dtype, g->dtype);
    int64_t dims[LAP_MAX_RANK];
    memcpy(dims, g->dims, sizeof dims);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    for (int32_t d = 0; d < space; d++) dims[2 + d] = g->dims[1 + d];
    TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    if (lap_count(x->rank, dims) == 0) return LAPIDARY_OK;
    NEED(lap_elements(x) > 0, "the input has no pixels", 0, 0);
    int wide = x->dtype == LAPIDARY_F64;
    grid_job j = {.channels = x->dims[1], .points = lap_span(g, 1, g->rank - 1), .pixels = lap_span(x, 2, x->rank), .space = space,
                  .mode = at->ints[0], .padding = at->ints[1], .align = at->ints[2]};
    NEED(j.mode >= 0 && j.mode <= 2 && j.padding >= 0 && j.padding <= 2, "grid mode {a}, padding {b}", j.mode, j.padding);
    for (int32_t d = 0; d < space; d++) j.size[d] = x->dims[2 + d];
    j.x = wide ? (const void *)lap_doubles(ctx, x, node_id) : (const void *)lap_floats(ctx, x, node_id);
    j.grid = wide ? (const void *)lap_doubles(ctx, g, node_id) : (const void *)lap_floats(ctx, g, node_id);
    j.y = wide ? (void *)lap_double_room(ctx, out[0], node_id) : (void *)lap_float_room(ctx, out[0], node_id);
    if (!j.x || !j.grid || !j.y) return LAPIDARY_ERROR_MEMORY;
    void *buffers[] = {&j};
    TRY(lap_parallel_for(ctx, wide ? grid_double : grid_float, buffers, NULL, x->dims[0] * j.points, 0, node_id,
                         x->dims[0] * j.points * (20 + 4 * j.channels)));
    if (wide) lap_store_doubles(out[0], j.y);
    else lap_store_floats(out[0], j.y);
    return LAPIDARY_OK;
}

/* ---- affine_grid ------------------------------------------------------------------------------- */

/* theta [N, n, n + 1], size. Ints: align_corners. Output [N, d…, n]. */
LAP_LIBRARY_KERNEL(lap_lib_affine_grid) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *theta = in[0];
    int64_t size[LAP_MAX_RANK], n, dims[LAP_MAX_RANK];
    TRY(lap_ints(ctx, in[1], 1, size, LAP_MAX_RANK, &n, node_id));
    NEED(n == 4 || n == 5, "a size of {a} numbers, expected 4 or 5", n, 0);
    int64_t space = n - 2, points = 1;
    NEED(theta->rank == 3 && theta->dims[1] == space && theta->dims[2] == space + 1, "a theta of {a} rows for {b} axes",
         theta->rank == 3 ? theta->dims[1] : -1, space);
    NEED(theta->dims[0] == size[0], "a theta for a batch of {a}, the size says {b}", theta->dims[0], size[0]);
    NEED(lap_is_float(theta->dtype) && lap_is_float(out[0]->dtype), "elements of type {a}", theta->dtype, 0);
    dims[0] = size[0];
    for (int64_t d = 0; d < space; d++) {
        NEED(size[2 + d] >= 0, "a size of {a}", size[2 + d], 0);
        dims[1 + d] = size[2 + d];
    }
    dims[n - 1] = space;
    TRY(lap_output_alloc(ctx, out[0], (int32_t)n, dims, node_id));
    points = lap_count((int32_t)space, dims + 1);
    for (int64_t b = 0; b < size[0]; b++) {
        for (int64_t p = 0; p < points; p++) {
            double place[MAX_SPACE + 1];
            int64_t rest = p;
            for (int64_t d = space - 1; d >= 0; d--) { /* the last axis is x, the first coordinate */
                double i = (double)(rest % dims[1 + d]), s = (double)dims[1 + d];
                rest /= dims[1 + d];
                place[space - 1 - d] = !at->ints[0] ? (2 * i + 1) / s - 1 : s > 1 ? 2 * i / (s - 1) - 1 : 0;
            }
            place[space] = 1;
            for (int64_t r = 0; r < space; r++) {
                double sum = 0;
                for (int64_t k = 0; k <= space; k++) sum += lap_number(theta, (b * space + r) * (space + 1) + k) * place[k];
                lap_set_number(out[0], (b * points + p) * space + r, sum);
            }
        }
    }
    return LAPIDARY_OK;
}

/* ---- regions of interest ------------------------------------------------------------------------- */

typedef struct roi_job {
    const float *x, *rois;
    float *y;
    const int64_t *batch;
    int64_t channels, height, width, out_h, out_w, ratio;
    int half, max;
    double scale;
} roi_job;

/* One axis of a sample: two pixels and the weight of the second; 0 where it lies outside. */
static int bilinear(double v, int64_t size, int64_t *low, int64_t *high, double *part) {
    if (!(v >= -1 && v <= (double)size)) return 0;
    if (v < 0) v = 0;
    *low = (int64_t)v;
    *high = *low + 1;
    if (*low >= size - 1) {
        *low = *high = size - 1;
        v = (double)*low;
    }
    *part = v - (double)*low;
    return 1;
}

/* Tasks: regions times channels. */
static void roi_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const roi_job *j = buffers[0];
    (void)dims;
    for (int64_t task = begin; task < end; task++) {
        int64_t n = task / j->channels, c = task % j->channels;
        const float *roi = j->rois + 4 * n;
        const float *x = j->x + (j->batch[n] * j->channels + c) * j->height * j->width;
        double shift = j->half ? 0.5 : 0, x0 = (double)roi[0] * j->scale - shift, y0 = (double)roi[1] * j->scale - shift;
        double w = (double)roi[2] * j->scale - shift - x0, h = (double)roi[3] * j->scale - shift - y0;
        if (!j->half) {
            w = fmax(w, 1);
            h = fmax(h, 1);
        }
        double bin_h = h / (double)j->out_h, bin_w = w / (double)j->out_w;
        double grid_h = j->ratio > 0 ? (double)j->ratio : ceil(bin_h), grid_w = j->ratio > 0 ? (double)j->ratio : ceil(bin_w);
        if (!(fabs(grid_h) <= MAX_SAMPLES && fabs(grid_w) <= MAX_SAMPLES)) { /* also NaN */
            if (!worker->fault.kind) worker->fault = (lap_fault){LAP_FAULT_VALUE, 1, n, MAX_SAMPLES};
            return;
        }
        int64_t rows = (int64_t)grid_h, columns = (int64_t)grid_w, count = lap_max(rows * columns, 1);
        for (int64_t o = 0; o < j->out_h * j->out_w; o++) {
            double sum = 0;
            int any = 0;
            if (worker->cancel && atomic_load_explicit(worker->cancel, memory_order_relaxed)) return;
            for (int64_t iy = 0; iy < rows; iy++) {
                double yy = y0 + (double)(o / j->out_w) * bin_h + ((double)iy + 0.5) * bin_h / grid_h, py = 0;
                int64_t ly = 0, hy = 0;
                int in_y = bilinear(yy, j->height, &ly, &hy, &py);
                if (!in_y) { /* all zeros */
                    if (j->max && columns > 0) sum = any ? fmax(sum, 0) : 0, any = 1;
                    continue;
                }
                for (int64_t ix = 0; ix < columns; ix++) {
                    double xx = x0 + (double)(o % j->out_w) * bin_w + ((double)ix + 0.5) * bin_w / grid_w, px = 0, v[4] = {0};
                    int64_t lx = 0, hx = 0;
                    if (bilinear(xx, j->width, &lx, &hx, &px)) {
                        v[0] = (1 - py) * (1 - px) * (double)x[ly * j->width + lx];
                        v[1] = (1 - py) * px * (double)x[ly * j->width + hx];
                        v[2] = py * (1 - px) * (double)x[hy * j->width + lx];
                        v[3] = py * px * (double)x[hy * j->width + hx];
                    }
                    if (j->max) {
                        double most = fmax(fmax(v[0], v[1]), fmax(v[2], v[3]));
                        sum = any ? fmax(sum, most) : most;
                        any = 1;
                    } else {
                        sum += v[0] + v[1] + v[2] + v[3];
                    }
                }
            }
            j->y[task * j->out_h * j->out_w + o] = (float)(j->max ? sum : sum / (double)count);
        }
    }
}

/* x [N, C, H, W], rois [R, 4], batch indices [R]. Ints: mode (0 avg, 1 max), height, width, sampling ratio,
 * half_pixel. Floats: spatial scale. */
LAP_LIBRARY_KERNEL(lap_lib_roi_align) {
    EXPECT(3, 1, 5, 1);
    const lap_tensor *x = in[0], *rois = in[1];
    NEED(x->rank == 4, "an input of rank {a}, expected {b}", x->rank, 4);
    NEED(rois->rank == 2 && rois->dims[1] == 4, "regions of rank {a}, expected [n, 4]", rois->rank, 0);
    int64_t n = rois->dims[0], found, dims[] = {n, x->dims[1], at->ints[1], at->ints[2]};
    NEED(dims[2] > 0 && dims[3] > 0 && dims[2] < 65536 && dims[3] < 65536 && at->ints[3] <= MAX_SAMPLES, "an output of {a} by {b}", dims[2], dims[3]);
    TEMP(int64_t, batch, n);
    TRY(lap_ints(ctx, in[2], 2, batch, n, &found, node_id));
    NEED(found == n, "{a} batch indices for {b} regions", found, n);
    for (int64_t i = 0; i < n; i++) {
        if (batch[i] < 0 || batch[i] >= x->dims[0]) FAIL(INDEX, "batch index {a} of a batch of {b}", batch[i], x->dims[0]);
    }
    NEED(x->dims[2] > 0 && x->dims[3] > 0, "an image of {a} by {b} pixels", x->dims[2], x->dims[3]);
    TRY(lap_output_alloc(ctx, out[0], 4, dims, node_id));
    roi_job j = {lap_floats(ctx, x, node_id), lap_floats(ctx, rois, node_id), lap_float_room(ctx, out[0], node_id), batch, dims[1],
                 x->dims[2], x->dims[3], dims[2], dims[3], at->ints[3], at->ints[4] != 0, at->ints[0] == 1, at->floats[0]};
    if (!j.x || !j.rois || !j.y) return LAPIDARY_ERROR_MEMORY;
    void *buffers[] = {&j};
    TRY(lap_parallel_for(ctx, roi_tasks, buffers, NULL, n * dims[1], 0, node_id, lap_count(4, dims) * 40));
    lap_store_floats(out[0], j.y);
    return LAPIDARY_OK;
}

/* x [N, C, H, W], rois [R, 5]. Ints: height, width. Floats: spatial scale. */
LAP_LIBRARY_KERNEL(lap_lib_max_roi_pool) {
    EXPECT(2, 1, 2, 1);
    const lap_tensor *x = in[0], *rois = in[1];
    NEED(x->rank == 4, "an input of rank {a}, expected {b}", x->rank, 4);
    NEED(rois->rank == 2 && rois->dims[1] == 5, "regions of rank {a}, expected [n, 5]", rois->rank, 0);
    int64_t n = rois->dims[0], c = x->dims[1], h = x->dims[2], w = x->dims[3], dims[] = {n, c, at->ints[0], at->ints[1]};
    NEED(dims[2] > 0 && dims[3] > 0 && dims[2] < 65536 && dims[3] < 65536, "an output of {a} by {b}", dims[2], dims[3]);
    NEED(lap_is_float(x->dtype) && lap_is_float(rois->dtype) && out[0]->dtype == x->dtype, "elements of types {a} and {b}",
         x->dtype, rois->dtype);
    TRY(lap_output_alloc(ctx, out[0], 4, dims, node_id));
    for (int64_t r = 0; r < n; r++) {
        double number[5];
        for (int k = 0; k < 5; k++) {
            number[k] = lap_number(rois, 5 * r + k) * (k ? at->floats[0] : 1);
            NEED(fabs(number[k]) < 1e9, "number {a} of region {b} is out of range", k, r);
        }
        int64_t batch = (int64_t)number[0];
        if (batch < 0 || batch >= x->dims[0]) FAIL(INDEX, "batch index {a} of a batch of {b}", batch, x->dims[0]);
        int64_t x0 = (int64_t)round(number[1]), y0 = (int64_t)round(number[2]);
        double bin_w = (double)lap_max((int64_t)round(number[3]) - x0 + 1, 1) / (double)dims[3];
        double bin_h = (double)lap_max((int64_t)round(number[4]) - y0 + 1, 1) / (double)dims[2];
        for (int64_t o = 0; o < c * dims[2] * dims[3]; o++) {
            int64_t px = o % dims[3], py = o / dims[3] % dims[2], channel = o / dims[3] / dims[2];
            int64_t top = lap_min(lap_max((int64_t)floor((double)py * bin_h) + y0, 0), h);
            int64_t bottom = lap_min(lap_max((int64_t)ceil((double)(py + 1) * bin_h) + y0, 0), h);
            int64_t left = lap_min(lap_max((int64_t)floor((double)px * bin_w) + x0, 0), w);
            int64_t right = lap_min(lap_max((int64_t)ceil((double)(px + 1) * bin_w) + x0, 0), w);
            double most = bottom > top && right > left ? -INFINITY : 0;
            for (int64_t i = top; i < bottom; i++) {
                for (int64_t k = left; k < right; k++) {
                    double v = lap_number(x, ((batch * c + channel) * h + i) * w + k);
                    most = v > most || v != v ? v : most;
                }
            }
            lap_set_number(out[0], r * c * dims[2] * dims[3] + o, most);
        }
        TRY(lap_check(ctx, node_id));
    }
    return LAPIDARY_OK;
}
