/* Resampling along axes. Nearest is a table of positions an axis; the others are passes, one an axis, each
 * output position a weighted sum of neighbours whose places and weights depend on the position alone. */
#include "lap_library.h"

enum { NEAREST, LINEAR, CUBIC };
enum { HALF_PIXEL, PYTORCH_HALF_PIXEL, ALIGN_CORNERS, ASYMMETRIC, TF_HALF_PIXEL, TF_CROP, HALF_PIXEL_SYMMETRIC };

typedef struct axis_plan {
    double scale, roi_start, roi_end;
    int64_t from, to; /* sizes */
} axis_plan;

/* Where output position i lies in the input. */
static double source(const axis_plan *p, int64_t coordinates, int64_t i) {
    double x = (double)i, in = (double)p->from, out = p->scale * in;
    switch (coordinates) {
    case ALIGN_CORNERS: return out == 1 ? 0 : x * (in - 1) / (out - 1);
    case ASYMMETRIC: return x / p->scale;
    case TF_HALF_PIXEL: return (x + 0.5) / p->scale;
    case TF_CROP: {
        double span = (p->roi_end - p->roi_start) * (in - 1);
        return (out == 1 ? span / 2 : x * span / (out - 1)) + p->roi_start * (in - 1);
    }
    case PYTORCH_HALF_PIXEL: return out == 1 ? -0.5 : (x + 0.5) / p->scale - 0.5;
    case HALF_PIXEL_SYMMETRIC: return in / 2 * (1 - (double)p->to / out) + (x + 0.5) / p->scale - 0.5;
    default: return (x + 0.5) / p->scale - 0.5;
    }
}

static int outside(const axis_plan *p, int64_t coordinates, double x) {
    return coordinates == TF_CROP && (x < 0 || x > (double)(p->from - 1));
}

static int64_t place(double x, int64_t size) {
    if (!(x > 0)) return 0;
    return x < (double)(size - 1) ? (int64_t)x : size - 1;
}

static int64_t nearest(double x, int64_t mode, int64_t size) {
    double low = floor(x), part = x - low;
    int up = mode == 3 ? part > 0 : mode == 2 ? 0 : mode == 1 ? part >= 0.5 : part > 0.5;
    return place(low + up, size);
}

static double cubic(double x, double a) {
    x = fabs(x);
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Neighbours of a position, and the first of them; the weights are those of cubic or linear decay, stretched by
 * the scale when antialiased. */
static int64_t taps(int mode, int antialias, double scale) {
    if (!antialias || scale >= 1) return mode == LINEAR ? 2 : 4;
    double reach = mode == LINEAR ? 1 : 2, start = floor(-reach / scale) + 1;
    return mode == LINEAR ? (int64_t)(2 - 2 * start) : (int64_t)(4 - 2 * start);
}

static void weights(
    double x, int64_t n, int mode, int antialias, double scale, double a, int exclude, int64_t size, int64_t *places, double *to) {
    double low = floor(x), part = x - low, total = 0;
    int64_t half = n / 2;
    if (part == 0) { /* the pixel on the left is preferred */
        part = 1;
        low -= 1;
    }
    double stretch = antialias && scale < 1 ? scale : 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t step = k - half + 1;
        double d = ((double)step - part) * stretch, at = low + (double)step;
        double w = mode == CUBIC ? cubic(d, a) : fmax(1 - fabs(d), 0);
        if (exclude && (at < 0 || at > (double)(size - 1))) w = 0;
        places[k] = place(at, size);
        to[k] = w;
        total += w;
    }
    if ((antialias || exclude) && total != 0) {
        for (int64_t k = 0; k < n; k++) to[k] /= total;
    }
}

typedef struct pass {
    const void *x;
    void *y;
    int64_t from, to, inner, taps;
    const int64_t *places;
    const double *weights;
    const uint8_t *outside;
    double extrapolation;
} pass;

/* Tasks: rows of `inner` elements, or (inner 1) lines along the axis. */
#define PASS(name, T)                                                                                  \
    static void name(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) { \
        const pass *p = buffers[0];                                                                    \
        (void)dims;                                                                                    \
        (void)worker;                                                                                  \
        for (int64_t task = begin; task < end; task++) {                                               \
            if (p->inner == 1) {                                                                       \
                const T *x = (const T *)p->x + task * p->from;                                         \
                T *y = (T *)p->y + task * p->to;                                                       \
                for (int64_t o = 0; o < p->to; o++) {                                                  \
                    const int64_t *at = p->places + o * p->taps;                                       \
                    const double *w = p->weights + o * p->taps;                                        \
                    T sum = 0;                                                                         \
                    for (int64_t k = 0; k < p->taps; k++) sum += (T)w[k] * x[at[k]];                   \
                    y[o] = p->outside[o] ? (T)p->extrapolation : sum;                                  \
                }                                                                                      \
                continue;                                                                              \
            }                                                                                          \
            int64_t o = task % p->to;                                                                  \
            const T *x = (const T *)p->x + task / p->to * p->from * p->inner;                          \
            T *restrict y = (T *)p->y + task * p->inner;                                               \
            const int64_t *at = p->places + o * p->taps;                                               \
            const double *w = p->weights + o * p->taps;                                                \
            if (p->outside[o]) {                                                                       \
                for (int64_t i = 0; i < p->inner; i++) y[i] = (T)p->extrapolation;                     \
                continue;                                                                              \
            }                                                                                          \
            for (int64_t k = 0; k < p->taps; k += 2) {                                                 \
                const T *restrict a = x + at[k] * p->inner, *restrict b = x + at[k + 1] * p->inner;    \
                T u = (T)w[k], v = (T)w[k + 1];                                                        \
                if (k == 0) {                                                                          \
                    for (int64_t i = 0; i < p->inner; i++) y[i] = u * a[i] + v * b[i];                 \
                } else {                                                                               \
                    for (int64_t i = 0; i < p->inner; i++) y[i] += u * a[i] + v * b[i];                \
                }                                                                                      \
            }                                                                                          \
        }                                                                                              \
    }
PASS(pass_float, float)
PASS(pass_double, double)

typedef struct resize_attrs {
    int64_t mode, coordinates, nearest, exclude, antialias, policy;
    double cubic, extrapolation;
} resize_attrs;

static int32_t by_nearest(
    lap_context *ctx, const lap_tensor *x, lap_tensor *y, const int64_t *dims, const axis_plan *plans, const int *resized,
    const resize_attrs *r, int32_t node_id) {
    const int64_t *tables[LAP_MAX_RANK] = {0};
    for (int32_t a = 0; a < x->rank; a++) {
        if (!resized[a]) continue;
        TEMP(int64_t, table, dims[a]);
        for (int64_t i = 0; i < dims[a]; i++) {
            double at = source(plans + a, r->coordinates, i);
            table[i] = outside(plans + a, r->coordinates, at) ? -1 : nearest(at, r->nearest, x->dims[a]);
        }
        tables[a] = table;
    }
    if (!lap_is_number(x->dtype)) return lap_pick(ctx, x, y, dims, tables, NULL, node_id);
    int64_t bits = 0;
    lap_tensor fill = {.data = &bits, .dtype = x->dtype};
    lap_set_number(&fill, 0, r->extrapolation);
    return lap_pick(ctx, x, y, dims, tables, &fill, node_id);
}

static int32_t by_passes(
    lap_context *ctx, const lap_tensor *x, lap_tensor *y, const int64_t *dims, const axis_plan *plans, const int *resized,
    const resize_attrs *r, int32_t node_id) {
    int wide = x->dtype == LAPIDARY_F64;
    int64_t size = wide ? 8 : 4, now[LAP_MAX_RANK], total = lap_count(x->rank, dims);
    TRY(lap_output_alloc(ctx, y, x->rank, dims, node_id));
    if (total == 0) return LAPIDARY_OK;
    const void *from = wide ? (const void *)lap_doubles(ctx, x, node_id) : (const void *)lap_floats(ctx, x, node_id);
    void *last = wide ? (void *)lap_double_room(ctx, y, node_id) : (void *)lap_float_room(ctx, y, node_id);
    if (!from || !last) return LAPIDARY_ERROR_MEMORY;
    memcpy(now, x->dims, sizeof now);
    int left = 0, done[LAP_MAX_RANK] = {0};
    for (int32_t a = 0; a < x->rank; a++) left += resized[a];
    if (left == 0) memcpy(last, from, (size_t)(total * size));
    for (; left > 0; left--) { /* the smallest scale first: less is left for the others */
        int32_t a = -1;
        for (int32_t b = 0; b < x->rank; b++) {
            if (resized[b] && !done[b] && (a < 0 || plans[b].scale <= plans[a].scale)) a = b;
        }
        done[a] = 1;
        int64_t n = taps((int)r->mode, (int)r->antialias, plans[a].scale);
        NEED(n > 0 && n < INT64_C(1) << 32, "a scale of 1 to {a} is too small", n, 0);
        TEMP(int64_t, places, lap_bytes_of(dims[a], n));
        TEMP(double, weight, lap_bytes_of(dims[a], n));
        TEMP(uint8_t, out_of, dims[a]);
        for (int64_t i = 0; i < dims[a]; i++) {
            double at = source(plans + a, r->coordinates, i);
            out_of[i] = (uint8_t)outside(plans + a, r->coordinates, at);
            weights(at, n, (int)r->mode, (int)r->antialias, plans[a].scale, r->cubic, (int)r->exclude, x->dims[a], places + i * n,
                    weight + i * n);
        }
        int64_t inner = 1, outer = 1;
        for (int32_t b = 0; b < a; b++) outer *= now[b];
        for (int32_t b = a + 1; b < x->rank; b++) inner *= now[b];
        void *to = last;
        if (left > 1) {
            to = lap_temp(ctx, lap_bytes_of(lap_bytes_of(outer * dims[a], inner), size), node_id);
            if (!to) return LAPIDARY_ERROR_MEMORY;
        }
        pass p = {from, to, now[a], dims[a], inner, n, places, weight, out_of, r->extrapolation};
        void *buffers[] = {&p};
        int64_t elements = outer * dims[a] * inner;
        TRY(lap_parallel_for(ctx, wide ? pass_double : pass_float, buffers, NULL, inner == 1 ? outer : outer * dims[a], 0,
                             node_id, elements * (inner == 1 ? n + 1 : 1)));
        now[a] = dims[a];
        from = to;
    }
    if (wide) return LAPIDARY_OK;
    if (!lap_is_float(y->dtype)) {
        float *numbers = last;
        for (int64_t i = 0; i < total; i++) numbers[i] = rintf(numbers[i]);
    }
    lap_store_floats(y, last);
    return LAPIDARY_OK;
}

/* x, roi or none, scales or none, sizes or none. Ints: mode, coordinates, nearest mode, exclude_outside,
 * antialias, aspect policy, axes. Floats: cubic coefficient, extrapolation value. */
LAP_LIBRARY_KERNEL(lap_lib_resize) {
    EXPECT(1, 1, 6, 2);
    const lap_tensor *x = in[0], *roi = lap_opt(in, n_in, 1), *scales = lap_opt(in, n_in, 2), *sizes = lap_opt(in, n_in, 3);
    resize_attrs r = {at->ints[0], at->ints[1], at->ints[2], at->ints[3], at->ints[4], at->ints[5], at->floats[0], at->floats[1]};
    int64_t n = at->n_ints - 6, dims[LAP_MAX_RANK], wanted[LAP_MAX_RANK], found;
    int32_t axes[LAP_MAX_RANK];
    int resized[LAP_MAX_RANK] = {0};
    axis_plan plans[LAP_MAX_RANK];
    if (scales && lap_elements(scales) == 0) scales = NULL;
    if (sizes && lap_elements(sizes) == 0) sizes = NULL;
    if (roi && lap_elements(roi) == 0) roi = NULL;
    NEED((scales != NULL) != (sizes != NULL), "exactly one of scales and sizes must be given", 0, 0);
    NEED(n >= 0 && n <= x->rank, "{a} axes for an input of rank {b}", n, x->rank);
    for (int32_t a = 0; a < x->rank; a++) plans[a] = (axis_plan){1, 0, 1, x->dims[a], x->dims[a]};
    for (int64_t k = 0; k < n; k++) TRY(lap_axis(ctx, at->ints[6 + k], x->rank, axes + k, node_id));
    if (scales) {
        NEED(lap_elements(scales) == n && lap_is_float(scales->dtype), "{a} scales for {b} axes", lap_elements(scales), n);
        for (int64_t k = 0; k < n; k++) {
            axis_plan *p = plans + axes[k];
            p->scale = lap_number(scales, k);
            NEED(p->scale > 0 && p->scale < 1e9, "scale {a} is not a positive number", k, 0);
            double to = scales->dtype == LAPIDARY_F64 ? floor((double)p->from * p->scale)
                                                      : (double)floorf((float)p->from * (float)p->scale);
            NEED(to < 0x1p60, "axis {a} gets too large", axes[k], 0);
            p->to = (int64_t)to;
        }
    } else {
        TRY(lap_ints(ctx, sizes, 3, wanted, LAP_MAX_RANK, &found, node_id));
        NEED(found == n, "{a} sizes for {b} axes", found, n);
        double common = r.policy == 1 ? INFINITY : 0;
        for (int64_t k = 0; k < n; k++) {
            axis_plan *p = plans + axes[k];
            NEED(wanted[k] >= 0, "a size of {a} for axis {b}", wanted[k], axes[k]);
            p->to = wanted[k];
            p->scale = p->from > 0 ? (double)p->to / (double)p->from : 1;
            common = r.policy == 1 ? fmin(common, p->scale) : fmax(common, p->scale);
        }
        for (int64_t k = 0; r.policy != 0 && k < n; k++) {
            axis_plan *p = plans + axes[k];
            NEED((double)p->from * common < 0x1p60, "axis {a} gets too large", axes[k], 0);
            p->scale = common;
            p->to = (int64_t)((double)p->from * common + 0.5);
        }
    }
    if (r.coordinates == TF_CROP) {
        NEED(roi && lap_elements(roi) == 2 * n, "a region of {a} numbers for {b} axes", roi ? lap_elements(roi) : 0, n);
        NEED(lap_is_float(roi->dtype), "a region of type {a}", roi->dtype, 0);
        for (int64_t k = 0; k < n; k++) {
            plans[axes[k]].roi_start = lap_number(roi, k);
            plans[axes[k]].roi_end = lap_number(roi, n + k);
        }
    }
    for (int32_t a = 0; a < x->rank; a++) {
        const axis_plan *p = plans + a;
        dims[a] = p->to;
        NEED(p->from > 0 || p->to == 0, "axis {a} is empty and cannot become {b}", a, p->to);
        int whole = r.coordinates != TF_CROP || (p->roi_start == 0 && p->roi_end == 1);
        resized[a] = !(fabs(p->scale - 1) < 1e-9 && p->from == p->to && whole && r.coordinates != TF_HALF_PIXEL);
    }
    NEED(lap_count(x->rank, dims) >= 0, "the result is too large", 0, 0);
    if (r.mode == NEAREST) return by_nearest(ctx, x, out[0], dims, plans, resized, &r, node_id);
    NEED(r.mode == LINEAR || r.mode == CUBIC, "resize mode {a}", r.mode, 0);
    NEED(lap_is_number(x->dtype) && out[0]->dtype == x->dtype, "elements of type {a} into type {b}", x->dtype, out[0]->dtype);
    return by_passes(ctx, x, out[0], dims, plans, resized, &r, node_id);
}
