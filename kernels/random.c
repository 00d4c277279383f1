/* Random numbers by counting: the generator Philox 4x32 of ten rounds (Salmon, Moraes, Dror and Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). An element's number follows from a key (the seed), the number of the draw in
 * its context, and the element's place alone, so that it is the same however the work is divided.
 *
 * Not for secrets. */
#include "lap_library.h"

#define TAU 6.28318530717958647692
/* Elements of a task; even, since a block of the generator serves two. */
#define RUN 1024

typedef struct stream {
    uint64_t key, draw;
} stream;

/* A seed that the model gives, or one that no other context has. */
static stream open_stream(lap_context *ctx, int seeded, int64_t seed) {
    return (stream){seeded ? (uint64_t)seed : lap_entropy(ctx), lap_draw(ctx)};
}

/* Numbers 2b and 2b + 1 of the stream: uniform in [0, 1), multiples of 2^-53. */
static void two(const stream *s, uint64_t b, double to[2]) {
    uint32_t c[] = {(uint32_t)b, (uint32_t)(b >> 32), (uint32_t)s->draw, (uint32_t)(s->draw >> 32)};
    uint32_t k0 = (uint32_t)s->key, k1 = (uint32_t)(s->key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = UINT64_C(0xD2511F53) * c[0], p1 = UINT64_C(0xCD9E8D57) * c[2];
        uint32_t next[] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    for (int i = 0; i < 2; i++) to[i] = (double)(((uint64_t)c[2 * i + 1] << 32 | c[2 * i]) >> 11) * 0x1p-53;
}

typedef struct job {
    stream s;
    lap_tensor *out;
    int64_t n;
    int normal;
    double a, b, steps; /* steps: a power of two, as many numbers in [0, 1) as the type tells apart */
} job;

static void fill_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const job *j = buffers[0];
    (void)dims;
    (void)worker;
    for (int64_t e = begin * RUN, last = lap_min(end * RUN, j->n); e < last; e += 2) {
        double u[2];
        two(&j->s, (uint64_t)e / 2, u);
        if (j->normal) { /* Box and Muller, 1958; 1 - u is never 0 */
            double radius = sqrt(-2 * log(1 - u[0])), angle = TAU * u[1];
            u[0] = radius * cos(angle);
            u[1] = radius * sin(angle);
        } else {
            for (int i = 0; i < 2; i++) u[i] = floor(u[i] * j->steps) / j->steps;
        }
        for (int i = 0; i < 2 && e + i < last; i++) {
            lap_set_number(j->out, e + i, j->a + u[i] * j->b);
            /* The upper end is none of the numbers, but a sum may round to it. */
            int at_end = !j->normal && j->b > 0 && lap_number(j->out, e + i) >= j->a + j->b;
            if (at_end) lap_set_number(j->out, e + i, j->a + (u[i] - 1 / j->steps) * j->b);
            if (at_end && lap_number(j->out, e + i) >= j->a + j->b) lap_set_number(j->out, e + i, j->a);
        }
    }
}

/* x or none, whose dims the result has; without it, it has those that are planned. Ints: kind (0 uniform, 1 normal), seeded,
 * seed. Floats: a, b: a + u * b, where u is uniform in [0, 1), or normal of mean 0 and deviation 1. */
LAP_LIBRARY_KERNEL(lap_lib_random) {
    EXPECT(0, 1, 3, 2);
    const lap_tensor *x = lap_opt(in, n_in, 0);
    if (!out[0]) return LAPIDARY_OK;
    lap_tensor shape = x ? *x : *out[0];
    double steps = 0;
    switch (out[0]->dtype) {
    case LAPIDARY_F64: steps = 0x1p53; break;
    case LAPIDARY_F32: steps = 0x1p24; break;
    case LAPIDARY_F16: steps = 0x1p11; break;
    case LAPIDARY_BF16: steps = 0x1p8; break;
    default: FAIL(CHECK, "random numbers of type {a}, expected floats", out[0]->dtype, 0);
    }
    int64_t n = lap_elements(&shape);
    NEED(n >= 0, "the output's dims are negative or too large", 0, 0);
    TRY(lap_output_alloc(ctx, out[0], shape.rank, shape.dims, node_id));
    job j = {open_stream(ctx, at->ints[1] != 0, at->ints[2]), out[0], n, at->ints[0] != 0, at->floats[0], at->floats[1], steps};
    void *buffers[] = {&j};
    return lap_parallel_for(ctx, fill_tasks, buffers, NULL, n / RUN + (n % RUN != 0), 0, node_id, lap_bytes_of(n, 40));
}

/* x [batch, classes]: logarithms of what probabilities are proportional to. Ints: seeded, seed. Output [batch, samples] as
 * planned, i32 or i64: classes. */
LAP_LIBRARY_KERNEL(lap_lib_multinomial) {
    EXPECT(1, 1, 2, 0);
    const lap_tensor *x = in[0];
    if (!out[0]) return LAPIDARY_OK;
    NEED(x->rank == 2 && lap_is_float(x->dtype), "an input of rank {a} and type {b}, expected rank 2 and floats", x->rank, x->dtype);
    NEED(out[0]->rank == 2 && out[0]->dims[0] == x->dims[0], "an output of {a} rows for {b}", out[0]->dims[0], x->dims[0]);
    NEED(out[0]->dtype == LAPIDARY_I32 || out[0]->dtype == LAPIDARY_I64, "classes of type {a}, expected i32 or i64", out[0]->dtype, 0);
    int64_t rows = x->dims[0], classes = x->dims[1], samples = out[0]->dims[1], dims[] = {rows, samples};
    TRY(lap_output_alloc(ctx, out[0], 2, dims, node_id));
    stream s = open_stream(ctx, at->ints[0] != 0, at->ints[1]);
    TEMP(double, sums, classes);
    uint64_t drawn = 0;
    for (int64_t r = 0; r < rows && samples > 0; r++) {
        double most = -INFINITY, total = 0;
        int64_t last = -1; /* the last class that may be drawn */
        for (int64_t c = 0; c < classes; c++) most = fmax(most, lap_number(x, r * classes + c));
        for (int64_t c = 0; c < classes; c++) {
            double weight = exp(lap_number(x, r * classes + c) - most);
            NEED(weight >= 0, "row {a} has no probability for class {b}: it is not a number, or infinite", r, c);
            total += weight;
            sums[c] = total;
            if (weight > 0) last = c;
        }
        NEED(last >= 0, "row {a} of {b} classes has none that may be drawn", r, classes);
        for (int64_t i = 0; i < samples; i++, drawn++) {
            double u[2];
            two(&s, drawn / 2, u);
            double at_sum = u[drawn % 2] * total;
            int64_t low = 0, high = last; /* the first class whose sum is greater */
            while (low < high) {
                int64_t middle = low + (high - low) / 2;
                if (sums[middle] > at_sum) high = middle;
                else low = middle + 1;
            }
            lap_set_number(out[0], r * samples + i, (double)low);
        }
        TRY(lap_check(ctx, node_id));
    }
    return LAPIDARY_OK;
}
