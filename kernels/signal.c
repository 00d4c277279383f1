/* Fourier transforms, and determinants (in f64). */
#include "lap_library.h"

#define TAU 6.28318530717958647692

/* ---- transforms of a line ------------------------------------------------------------------------ */

/* The largest factor that a pass is made for. */
#define MAX_FACTOR 13

/* A transform of length n: by its factors, in the type of the elements; where one is too large, as a convolution with
 * a chirp, of a power of two m >= 2n - 1, in f64 (Bluestein, 1970). Numbers are pairs (re, im). */
typedef struct plan {
    int64_t n, factors[64], n_factors; /* none: a chirp */
    int single; /* by factors in f32, else f64 */
    const void *roots; /* n pairs: e^(-2 pi i k / n); of a chirp m / 2 pairs: e^(-2 pi i k / m) */
    void *room; /* 2n pairs, where factors are worked on */
    int64_t m;
    double *chirp; /* n pairs: e^(-pi i k^2 / n) */
    double *filter; /* m pairs: the transform of the conjugate chirp */
    double *work; /* m pairs */
} plan;

#define T float
#define NAME(x) x##_f32
#include "fourier_body.h"
#undef T
#undef NAME
#define T double
#define NAME(x) x##_f64
#include "fourier_body.h"
#undef T
#undef NAME

static void swap(double *a, double *b) {
    double re = a[0], im = a[1];
    a[0] = b[0];
    a[1] = b[1];
    b[0] = re;
    b[1] = im;
}

/* In place; n a power of two. */
static void by_halves(double *x, int64_t n, const double *roots, int64_t m) {
    for (int64_t i = 1, j = 0; i < n; i++) {
        int64_t bit = n >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) swap(x + 2 * i, x + 2 * j);
    }
    for (int64_t half = 1; half < n; half *= 2) {
        int64_t step = m / (2 * half);
        for (int64_t base = 0; base < n; base += 2 * half) {
            for (int64_t k = 0; k < half; k++) {
                const double *w = roots + 2 * k * step;
                double *a = x + 2 * (base + k), *b = a + 2 * half;
                double re = b[0] * w[0] - b[1] * w[1], im = b[0] * w[1] + b[1] * w[0];
                b[0] = a[0] - re;
                b[1] = a[1] - im;
                a[0] += re;
                a[1] += im;
            }
        }
    }
}

/* The factors of n: one 2 in front, then fours, then odd ones ascending; none if one is too large. */
static void factorize(plan *p, int64_t n) {
    int64_t twos = 0;
    while (n % 2 == 0) {
        n /= 2;
        twos++;
    }
    if (twos % 2) p->factors[p->n_factors++] = 2;
    for (; twos >= 2; twos -= 2) p->factors[p->n_factors++] = 4;
    for (int64_t r = 3; r <= MAX_FACTOR; r += 2) {
        for (; n % r == 0; n /= r) p->factors[p->n_factors++] = r;
    }
    if (n > 1) p->n_factors = 0;
}

/* `single`: elements are no wider than f32. */
static int32_t make_plan(lap_context *ctx, plan *p, int64_t n, int single, int32_t node_id) {
    NEED(n > 0 && n < INT64_C(1) << 40, "a transform of length {a}", n, 0);
    *p = (plan){.n = n, .single = single};
    factorize(p, n);
    if (n == 1) return LAPIDARY_OK;
    if (p->n_factors > 0) {
        int64_t pair = single ? (int64_t)sizeof(float[2]) : (int64_t)sizeof(double[2]);
        void *table = lap_temp(ctx, lap_bytes_of(n, pair), node_id);
        p->room = lap_temp(ctx, lap_bytes_of(2 * n, pair), node_id);
        if (!table || !p->room) return LAPIDARY_ERROR_MEMORY;
        if (single) fill_roots_f32(table, n);
        else fill_roots_f64(table, n);
        p->roots = table;
        return LAPIDARY_OK;
    }
    p->m = 1;
    while (p->m < 2 * n - 1) p->m *= 2;
    TEMP(double, roots, p->m);
    for (int64_t k = 0; k < p->m / 2; k++) {
        roots[2 * k] = cos(TAU * (double)k / (double)p->m);
        roots[2 * k + 1] = -sin(TAU * (double)k / (double)p->m);
    }
    p->roots = roots;
    TEMP(double, chirp, 2 * n);
    TEMP(double, filter, 2 * p->m);
    TEMP(double, work, 2 * p->m);
    memset(filter, 0, (size_t)(16 * p->m));
    for (int64_t k = 0; k < n; k++) { /* k^2 mod 2n keeps the angle exact */
        double angle = TAU / 2 * (double)((uint64_t)k * (uint64_t)k % (uint64_t)(2 * n)) / (double)n;
        int64_t back = k ? p->m - k : 0;
        chirp[2 * k] = filter[2 * k] = filter[2 * back] = cos(angle);
        chirp[2 * k + 1] = -sin(angle);
        filter[2 * k + 1] = filter[2 * back + 1] = sin(angle);
    }
    by_halves(filter, p->m, roots, p->m);
    p->chirp = chirp;
    p->filter = filter;
    p->work = work;
    return LAPIDARY_OK;
}

/* What must be real of the transform of n real numbers. */
static void of_reals(double *x, int64_t n) {
    x[1] = 0;
    if (n % 2 == 0) x[n + 1] = 0;
}

static void multiply(double *to, const double *a, const double *b) {
    double re = a[0] * b[0] - a[1] * b[1], im = a[0] * b[1] + a[1] * b[0];
    to[0] = re;
    to[1] = im;
}

/* The forward transform, in place. */
static void transform(const plan *p, double *x) {
    if (p->n == 1) return;
    if (p->n_factors > 0) {
        if (p->single) transform_f32(p, x);
        else transform_f64(p, x);
        return;
    }
    double *w = p->work;
    memset(w, 0, (size_t)(16 * p->m));
    for (int64_t k = 0; k < p->n; k++) multiply(w + 2 * k, x + 2 * k, p->chirp + 2 * k);
    by_halves(w, p->m, p->roots, p->m);
    for (int64_t k = 0; k < p->m; k++) {
        multiply(w + 2 * k, w + 2 * k, p->filter + 2 * k);
        w[2 * k + 1] = -w[2 * k + 1]; /* the inverse is the conjugate's transform's conjugate */
    }
    by_halves(w, p->m, p->roots, p->m);
    for (int64_t k = 0; k < p->n; k++) {
        double pair[] = {w[2 * k] / (double)p->m, -w[2 * k + 1] / (double)p->m};
        multiply(x + 2 * k, pair, p->chirp + 2 * k);
    }
}

/* ---- dft --------------------------------------------------------------------------------------- */

/* x [.., 1 or 2], length or none, axis or none. Ints: axis (where input 2 is none), inverse, onesided. */
LAP_LIBRARY_KERNEL(lap_lib_dft) {
    EXPECT(1, 1, 3, 0);
    const lap_tensor *x = in[0], *length = lap_opt(in, n_in, 1), *axis_input = lap_opt(in, n_in, 2);
    int64_t n, wanted = at->ints[0], dims[LAP_MAX_RANK];
    int inverse = at->ints[1] != 0, onesided = at->ints[2] != 0;
    int32_t axis;
    NEED(x->rank >= 2, "an input of rank {a}, expected {b} or more", x->rank, 2);
    int64_t parts = x->dims[x->rank - 1];
    NEED(parts == 1 || parts == 2, "numbers of {a} parts, expected 1 or 2", parts, 0);
    NEED(!onesided || parts == (inverse ? 2 : 1), "a one-sided transform of numbers of {a} parts, expected {b}", parts, inverse ? 2 : 1);
    NEED(lap_is_float(x->dtype) && out[0]->dtype == x->dtype, "elements of type {a} into type {b}", x->dtype, out[0]->dtype);
    if (axis_input) TRY(lap_one_int(ctx, axis_input, 2, &wanted, node_id));
    TRY(lap_axis(ctx, wanted, x->rank, &axis, node_id));
    NEED(axis < x->rank - 1, "axis {a} holds the parts of the numbers", axis, 0);
    int64_t have = x->dims[axis];
    n = inverse && onesided ? 2 * (have - 1) : have;
    if (length) TRY(lap_one_int(ctx, length, 1, &n, node_id));
    memcpy(dims, x->dims, sizeof dims);
    NEED(n >= 0, "a transform of length {a}", n, 0);
    int64_t bins = onesided && !inverse ? n / 2 + 1 : n, out_parts = inverse && onesided ? 1 : 2;
    dims[axis] = bins;
    dims[x->rank - 1] = out_parts;
    TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    if (lap_count(x->rank, dims) == 0) return LAPIDARY_OK;
    plan p;
    TRY(make_plan(ctx, &p, n, x->dtype != LAPIDARY_F64, node_id));
    TEMP(double, line, lap_bytes_of(2, n));
    int64_t outer = lap_span(x, 0, axis), inner = lap_span(x, axis + 1, x->rank - 1);
    for (int64_t row = 0; row < outer * inner; row++) {
        int64_t o = row / inner, i = row % inner, use = lap_min(inverse && onesided ? n / 2 + 1 : n, have);
        memset(line, 0, (size_t)(16 * n));
        for (int64_t k = 0; k < use; k++) {
            int64_t e = ((o * have + k) * inner + i) * parts;
            line[2 * k] = lap_number(x, e);
            line[2 * k + 1] = parts == 2 ? lap_number(x, e + 1) : 0;
        }
        if (inverse && onesided) { /* the other half mirrors it; what must be real is taken so */
            of_reals(line, n);
            for (int64_t k = 1; k < (n + 1) / 2; k++) {
                line[2 * (n - k)] = line[2 * k];
                line[2 * (n - k) + 1] = -line[2 * k + 1];
            }
        }
        for (int64_t k = 0; inverse && k < n; k++) line[2 * k + 1] = -line[2 * k + 1];
        transform(&p, line);
        if (parts == 1) of_reals(line, n);
        double scale = inverse ? 1 / (double)n : 1;
        for (int64_t k = 0; k < bins; k++) {
            int64_t e = ((o * bins + k) * inner + i) * out_parts;
            lap_set_number(out[0], e, line[2 * k] * scale);
            if (out_parts == 2) lap_set_number(out[0], e + 1, (inverse ? -line[2 * k + 1] : line[2 * k + 1]) * scale);
        }
        if (row % 64 == 63) TRY(lap_check(ctx, node_id));
    }
    return LAPIDARY_OK;
}

/* signal [batch, length, 1 or 2] (or [batch, length]), step, window or none, frame length or none. Ints: onesided. */
LAP_LIBRARY_KERNEL(lap_lib_stft) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0], *window = lap_opt(in, n_in, 2), *length = lap_opt(in, n_in, 3);
    NEED(x->rank == 2 || x->rank == 3, "a signal of rank {a}, expected 2 or 3", x->rank, 0);
    int64_t parts = x->rank == 3 ? x->dims[2] : 1, total = x->dims[1], step, n = total;
    NEED(parts == 1 || parts == 2, "numbers of {a} parts, expected 1 or 2", parts, 0);
    NEED(lap_is_float(x->dtype) && out[0]->dtype == x->dtype, "elements of type {a} into type {b}", x->dtype, out[0]->dtype);
    TRY(lap_one_int(ctx, in[1], 1, &step, node_id));
    NEED(step > 0, "a frame step of {a}", step, 0);
    if (window) {
        NEED(window->rank == 1 && lap_is_float(window->dtype), "a window of rank {a} and type {b}", window->rank, window->dtype);
        n = window->dims[0];
    }
    if (length) TRY(lap_one_int(ctx, length, 3, &n, node_id));
    NEED(n > 0 && n <= total, "a frame of {a} in a signal of {b}", n, total);
    NEED(!window || window->dims[0] <= n, "a window of {a} for frames of {b}", window ? window->dims[0] : 0, n);
    int64_t frames = (total - n) / step + 1, bins = at->ints[0] ? n / 2 + 1 : n, use = window ? window->dims[0] : n;
    int64_t dims[] = {x->dims[0], frames, bins, 2};
    TRY(lap_output_alloc(ctx, out[0], 4, dims, node_id));
    plan p;
    TRY(make_plan(ctx, &p, n, x->dtype != LAPIDARY_F64, node_id));
    TEMP(double, line, lap_bytes_of(2, n));
    for (int64_t f = 0; f < x->dims[0] * frames; f++) {
        int64_t from = f / frames * total + f % frames * step;
        memset(line, 0, (size_t)(16 * n));
        for (int64_t k = 0; k < use; k++) {
            double w = window ? lap_number(window, k) : 1;
            line[2 * k] = w * lap_number(x, (from + k) * parts);
            line[2 * k + 1] = parts == 2 ? w * lap_number(x, (from + k) * parts + 1) : 0;
        }
        transform(&p, line);
        if (parts == 1) of_reals(line, n);
        for (int64_t k = 0; k < 2 * bins; k++) lap_set_number(out[0], f * bins * 2 + k, line[k]);
        if (f % 64 == 63) TRY(lap_check(ctx, node_id));
    }
    return LAPIDARY_OK;
}

/* ---- det --------------------------------------------------------------------------------------- */

/* x [.., n, n]. */
LAP_LIBRARY_KERNEL(lap_lib_det) {
    EXPECT(1, 1, 0, 0);
    const lap_tensor *x = in[0];
    NEED(x->rank >= 2, "an input of rank {a}, expected {b} or more", x->rank, 2);
    int64_t n = x->dims[x->rank - 1];
    NEED(x->dims[x->rank - 2] == n, "a matrix of {a} rows and {b} columns", x->dims[x->rank - 2], n);
    NEED(lap_is_number(x->dtype) && out[0]->dtype == x->dtype, "elements of type {a} into type {b}", x->dtype, out[0]->dtype);
    TRY(lap_output_alloc(ctx, out[0], x->rank - 2, x->dims, node_id));
    TEMP(double, a, lap_bytes_of(n, n));
    int64_t count = lap_span(x, 0, x->rank - 2);
    CLOCK(clock);
    for (int64_t m = 0; m < count; m++) {
        double det = 1;
        for (int64_t i = 0; i < n * n; i++) a[i] = lap_number(x, m * n * n + i);
        for (int64_t c = 0; c < n; c++) {
            int64_t pivot = c;
            TRY(lap_tick(&clock, n * (n - c)));
            for (int64_t r = c + 1; r < n; r++) pivot = fabs(a[r * n + c]) > fabs(a[pivot * n + c]) ? r : pivot;
            det *= a[pivot * n + c];
            if (a[pivot * n + c] == 0) break;
            if (pivot != c) {
                det = -det;
                for (int64_t k = c; k < n; k++) {
                    double t = a[c * n + k];
                    a[c * n + k] = a[pivot * n + k];
                    a[pivot * n + k] = t;
                }
            }
            for (int64_t r = c + 1; r < n; r++) {
                double f = a[r * n + c] / a[c * n + c];
                for (int64_t k = c; k < n; k++) a[r * n + k] -= f * a[c * n + k];
            }
        }
        lap_set_number(out[0], m, det);
    }
    return LAPIDARY_OK;
}
