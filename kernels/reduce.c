/* Reductions and running sums whose axes are data, and running products. */
#include "lap_library.h"

enum { SUM, MEAN, MAX, MIN, PROD, SUM_SQUARE, L1, L2, LOG_SUM, LOG_SUM_EXP, AND, OR };

typedef struct reduce_job {
    const lap_tensor *x;
    lap_tensor *y;
    int64_t kind, inner; /* elements of one result */
    int32_t kept, cut;
    int64_t kept_dims[LAP_MAX_RANK], kept_strides[LAP_MAX_RANK], cut_dims[LAP_MAX_RANK], cut_strides[LAP_MAX_RANK];
} reduce_job;

static int64_t offset(int64_t i, int32_t n, const int64_t *dims, const int64_t *strides) {
    int64_t at = 0;
    for (int32_t a = n - 1; a >= 0; a--) {
        at += i % dims[a] * strides[a];
        i /= dims[a];
    }
    return at;
}

static double least(int32_t dtype) {
    switch (dtype) {
    case LAPIDARY_U8: case LAPIDARY_U16: case LAPIDARY_U32: case LAPIDARY_U64: case LAPIDARY_BOOL: return 0;
    default: return -INFINITY; /* lap_set_number holds it at the least integer */
    }
}

static double reduce_number(const reduce_job *j, int64_t base) {
    double acc = j->kind == PROD || j->kind == AND ? 1 : j->kind == MAX ? least(j->x->dtype) : j->kind == MIN ? INFINITY : 0;
    double shift = 0;
    if (j->kind == LOG_SUM_EXP) {
        double most = -INFINITY;
        for (int64_t i = 0; i < j->inner; i++) {
            double v = lap_number(j->x, base + offset(i, j->cut, j->cut_dims, j->cut_strides));
            if (v > most || v != v) most = v;
        }
        shift = fabs(most) < INFINITY ? most : 0;
    }
    for (int64_t i = 0; i < j->inner; i++) {
        double v = lap_number(j->x, base + offset(i, j->cut, j->cut_dims, j->cut_strides));
        switch (j->kind) {
        case MAX: acc = acc != acc || !(v > acc) ? (v != v ? v : acc) : v; break;
        case MIN: acc = acc != acc || !(v < acc) ? (v != v ? v : acc) : v; break;
        case PROD: acc *= v; break;
        case SUM_SQUARE: case L2: acc += v * v; break;
        case L1: acc += fabs(v); break;
        case LOG_SUM_EXP: acc += exp(v - shift); break;
        case AND: acc = acc != 0 && v != 0; break;
        case OR: acc = acc != 0 || v != 0; break;
        default: acc += v; break;
        }
    }
    switch (j->kind) {
    case MEAN: return acc / (double)j->inner;
    case L2: return sqrt(acc);
    case LOG_SUM: return log(acc);
    case LOG_SUM_EXP: return log(acc) + shift;
    default: return acc;
    }
}

/* 64-bit integers, which a double does not hold: they wrap. */
static uint64_t reduce_integer(const reduce_job *j, int64_t base) {
    const uint64_t *x = j->x->data;
    int is_signed = j->x->dtype == LAPIDARY_I64;
    uint64_t bias = is_signed ? UINT64_C(1) << 63 : 0; /* makes the order that of unsigned numbers */
    uint64_t acc = j->kind == PROD ? 1 : j->kind == AND ? UINT64_MAX : j->kind == MAX ? bias : j->kind == MIN ? ~bias : 0;
    for (int64_t i = 0; i < j->inner; i++) {
        uint64_t v = x[base + offset(i, j->cut, j->cut_dims, j->cut_strides)];
        switch (j->kind) {
        case MAX: acc = (v ^ bias) > (acc ^ bias) ? v : acc; break;
        case MIN: acc = (v ^ bias) < (acc ^ bias) ? v : acc; break;
        case PROD: acc *= v; break;
        case SUM_SQUARE: acc += v * v; break;
        case L1: acc += is_signed && v >> 63 ? 0 - v : v; break;
        case AND: acc &= v; break;
        case OR: acc |= v; break;
        default: acc += v; break;
        }
    }
    if (j->kind != MEAN) return acc;
    if (j->inner == 0) return 0;
    return is_signed ? (uint64_t)((int64_t)acc / j->inner) : acc / (uint64_t)j->inner;
}

static void reduce_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const reduce_job *j = buffers[0];
    int wide = j->x->dtype == LAPIDARY_I64 || j->x->dtype == LAPIDARY_U64;
    (void)dims;
    (void)worker;
    for (int64_t o = begin; o < end; o++) {
        int64_t base = offset(o, j->kept, j->kept_dims, j->kept_strides);
        if (wide && j->kind != L2 && j->kind != LOG_SUM && j->kind != LOG_SUM_EXP) {
            ((uint64_t *)j->y->data)[o] = reduce_integer(j, base);
        } else {
            double v = reduce_number(j, base);
            if (!lap_is_float(j->y->dtype) && v != v) v = 0;
            if (j->y->dtype == LAPIDARY_I32 && (j->kind == SUM || j->kind == L1)) {
                ((int32_t *)j->y->data)[o] = (int32_t)(uint32_t)(uint64_t)(int64_t)v; /* wraps */
            } else {
                lap_set_number(j->y, o, v);
            }
        }
    }
}

/* x, axes or none. Ints: kind (by the order above), keep, noop_with_empty_axes (then no axis is reduced, but squares,
 * roots and logarithms are taken all the same). */
LAP_LIBRARY_KERNEL(lap_lib_reduce) {
    EXPECT(1, 1, 3, 0);
    const lap_tensor *x = in[0];
    const lap_tensor *list = lap_opt(in, n_in, 1);
    int64_t axes[LAP_MAX_RANK], n = 0, dims[LAP_MAX_RANK], strides[LAP_MAX_RANK], stride = 1;
    int32_t rank = 0;
    uint32_t set = 0;
    reduce_job j = {.x = x, .y = out[0], .kind = at->ints[0], .inner = 1};
    NEED(j.kind >= SUM && j.kind <= OR, "reduction {a}", j.kind, 0);
    NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    NEED(out[0]->dtype == x->dtype, "an output of type {a} for elements of type {b}", out[0]->dtype, x->dtype);
    if (list) TRY(lap_ints(ctx, list, 1, axes, LAP_MAX_RANK, &n, node_id));
    for (int64_t k = 0; k < n; k++) {
        int32_t a;
        TRY(lap_axis(ctx, axes[k], x->rank, &a, node_id));
        NEED(!(set >> a & 1), "axis {a} is listed twice", a, 0);
        set |= 1u << a;
    }
    if (n == 0 && !at->ints[2]) set = ~0u;
    for (int32_t a = x->rank - 1; a >= 0; a--) {
        strides[a] = stride;
        if (__builtin_mul_overflow(stride, x->dims[a], &stride)) stride = 0; /* then x is empty */
    }
    for (int32_t a = 0; a < x->rank; a++) {
        if (set >> a & 1) {
            j.cut_dims[j.cut] = x->dims[a];
            j.cut_strides[j.cut++] = strides[a];
            if (at->ints[1]) dims[rank++] = 1;
        } else {
            j.kept_dims[j.kept] = x->dims[a];
            j.kept_strides[j.kept++] = strides[a];
            dims[rank++] = x->dims[a];
        }
    }
    j.inner = lap_count(j.cut, j.cut_dims);
    int64_t results = lap_count(j.kept, j.kept_dims);
    NEED(j.inner >= 0 && results >= 0, "an input's dims are too large", 0, 0);
    TRY(lap_output_alloc(ctx, out[0], rank, dims, node_id));
    void *buffers[] = {&j};
    return lap_parallel_for(ctx, reduce_tasks, buffers, NULL, results, 0, node_id, lap_elements(x) * 4);
}

typedef struct running_job {
    const lap_tensor *x;
    lap_tensor *y;
    int64_t n, inner, exclusive, reverse;
    int product;
} running_job;

static void running_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const running_job *j = buffers[0];
    int wide = j->x->dtype == LAPIDARY_I64 || j->x->dtype == LAPIDARY_U64;
    (void)dims;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        int64_t first = row / j->inner * j->n * j->inner + row % j->inner;
        double acc = j->product;
        uint64_t whole = (uint64_t)j->product;
        for (int64_t i = 0; i < j->n; i++) {
            int64_t e = first + (j->reverse ? j->n - 1 - i : i) * j->inner;
            if (wide) {
                uint64_t v = ((const uint64_t *)j->x->data)[e], next = j->product ? whole * v : whole + v;
                ((uint64_t *)j->y->data)[e] = j->exclusive ? whole : next;
                whole = next;
            } else {
                double v = lap_number(j->x, e), next = j->product ? acc * v : acc + v;
                lap_set_number(j->y, e, j->exclusive ? acc : next);
                acc = next;
            }
        }
    }
}

static int32_t running(
    lap_context *ctx, const lap_tensor *const *in, lap_tensor *const *out, const lap_attrs *at, int product, int32_t node_id) {
    const lap_tensor *x = in[0];
    int32_t axis;
    int64_t wanted;
    NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    NEED(out[0]->dtype == x->dtype, "an output of type {a} for elements of type {b}", out[0]->dtype, x->dtype);
    TRY(lap_one_int(ctx, in[1], 1, &wanted, node_id));
    TRY(lap_axis(ctx, wanted, x->rank, &axis, node_id));
    TRY(lap_output_alloc(ctx, out[0], x->rank, x->dims, node_id));
    int64_t n = x->dims[axis], total = lap_elements(x);
    if (total == 0) return LAPIDARY_OK;
    running_job j = {x, out[0], n, lap_span(x, axis + 1, x->rank), at->ints[0], at->ints[1], product};
    void *buffers[] = {&j};
    return lap_parallel_for(ctx, running_tasks, buffers, NULL, total / n, 0, node_id, total * 4);
}

/* x, axis. Ints: exclusive, reverse. */
LAP_LIBRARY_KERNEL(lap_lib_cumsum) {
    EXPECT(2, 1, 2, 0);
    return running(ctx, in, out, at, 0, node_id);
}

/* x, axis. Ints: exclusive, reverse. */
LAP_LIBRARY_KERNEL(lap_lib_cumprod) {
    EXPECT(2, 1, 2, 0);
    return running(ctx, in, out, at, 1, node_id);
}
