/* Recurrent networks over elements of type T; included once a type by recurrent.c, which defines T, EXP, TANH,
 * LOG1P and NAME. */

typedef T NAME(wide) __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
#define WIDE NAME(wide)
#define LANES ((int64_t)(64 / sizeof(T)))

/* c[m][n] = (add ? c[m][n] : bias[n], or 0) + sum over k of a[m][k] w[n][k] */
typedef struct NAME(product) {
    const T *a, *w, *bias;
    T *c;
    int64_t m, n, k, lda, ldc;
    int add;
} NAME(product);

static inline __attribute__((always_inline)) T NAME(across)(const WIDE *v) {
    T sum = 0;
    for (int64_t l = 0; l < LANES; l++) sum += (*v)[l];
    return sum;
}

/* Two rows of a against four of w; with one row the second is the first again, and not stored. */
static inline __attribute__((always_inline)) void NAME(block)(const NAME(product) *p, int64_t m, int64_t n) {
    int64_t rows = p->m - m > 1 ? 2 : 1, columns = lap_min(4, p->n - n), k = 0;
    const T *a0 = p->a + m * p->lda, *a1 = rows > 1 ? a0 + p->lda : a0;
    const T *w0 = p->w + n * p->k, *w1 = columns > 1 ? w0 + p->k : w0, *w2 = columns > 2 ? w1 + p->k : w0,
            *w3 = columns > 3 ? w2 + p->k : w0;
    WIDE s00 = {0}, s01 = {0}, s02 = {0}, s03 = {0}, s10 = {0}, s11 = {0}, s12 = {0}, s13 = {0};
    if (rows > 1) {
        for (; k + LANES <= p->k; k += LANES) {
            WIDE x = *(const WIDE *)(a0 + k), y = *(const WIDE *)(a1 + k), w;
            w = *(const WIDE *)(w0 + k), s00 += x * w, s10 += y * w;
            w = *(const WIDE *)(w1 + k), s01 += x * w, s11 += y * w;
            w = *(const WIDE *)(w2 + k), s02 += x * w, s12 += y * w;
            w = *(const WIDE *)(w3 + k), s03 += x * w, s13 += y * w;
        }
    } else {
        for (; k + LANES <= p->k; k += LANES) {
            WIDE x = *(const WIDE *)(a0 + k);
            s00 += x * *(const WIDE *)(w0 + k);
            s01 += x * *(const WIDE *)(w1 + k);
            s02 += x * *(const WIDE *)(w2 + k);
            s03 += x * *(const WIDE *)(w3 + k);
        }
    }
    T sum[2][4] = {{NAME(across)(&s00), NAME(across)(&s01), NAME(across)(&s02), NAME(across)(&s03)},
                   {NAME(across)(&s10), NAME(across)(&s11), NAME(across)(&s12), NAME(across)(&s13)}};
    for (; k < p->k; k++) {
        const T w[4] = {w0[k], w1[k], w2[k], w3[k]};
        for (int i = 0; i < 4; i++) {
            sum[0][i] += a0[k] * w[i];
            sum[1][i] += a1[k] * w[i];
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        T *c = p->c + (m + r) * p->ldc + n;
        for (int64_t i = 0; i < columns; i++) c[i] = (p->add ? c[i] : p->bias ? p->bias[n + i] : 0) + sum[r][i];
    }
}

/* Tasks: four rows of w. */
static inline __attribute__((always_inline)) void NAME(blocks)(const NAME(product) *p, int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
        for (int64_t m = 0; m < p->m; m += 2) NAME(block)(p, m, 4 * task);
    }
}

static void NAME(blocks_any)(const NAME(product) *p, int64_t begin, int64_t end) { NAME(blocks)(p, begin, end); }
#ifdef X86
__attribute__((target("avx2,fma"))) static void NAME(blocks_avx2)(const NAME(product) *p, int64_t begin, int64_t end) {
    NAME(blocks)(p, begin, end);
}
__attribute__((target("avx512f"))) static void NAME(blocks_avx512)(const NAME(product) *p, int64_t begin, int64_t end) {
    NAME(blocks)(p, begin, end);
}
#endif

static void NAME(product_tasks)(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    (void)worker;
    const NAME(product) *p = buffers[0];
#ifdef X86
    if (dims[0] == 2) {
        NAME(blocks_avx512)(p, begin, end);
        return;
    }
    if (dims[0] == 1) {
        NAME(blocks_avx2)(p, begin, end);
        return;
    }
#endif
    (void)dims;
    NAME(blocks_any)(p, begin, end);
}

static int32_t NAME(multiply)(lap_context *ctx, NAME(product) p, int32_t node_id) {
    int64_t dims[] = {lap_level(ctx)};
    void *buffers[] = {&p};
    return lap_parallel_for(ctx, NAME(product_tasks), buffers, dims, (p.n + 3) / 4, 0, node_id, p.m * p.n * p.k / 16);
}

static void NAME(activate)(const activation *a, double clip, T *x, int64_t n) {
    T alpha = (T)a->alpha, beta = (T)a->beta;
    if (clip < INFINITY) {
        for (int64_t i = 0; i < n; i++) x[i] = x[i] > (T)clip ? (T)clip : x[i] < (T)-clip ? (T)-clip : x[i];
    }
#define EACH(formula)                                                                                  \
    for (int64_t i = 0; i < n; i++) {                                                                  \
        T v = x[i];                                                                                    \
        x[i] = (formula);                                                                              \
    }                                                                                                  \
    break
    switch (a->kind) {
    case AFFINE: EACH(alpha * v + beta);
    case ELU: EACH(v < 0 ? alpha * (EXP(v) - 1) : v);
    case HARD_SIGMOID: EACH(alpha * v + beta > 1 ? 1 : alpha * v + beta > 0 ? alpha * v + beta : 0);
    case LEAKY_RELU: EACH(v < 0 ? alpha * v : v);
    case RELU: EACH(v < 0 ? 0 : v);
    case SCALED_TANH: EACH(alpha * TANH(beta * v));
    case SIGMOID: EACH(1 / (1 + EXP(-v)));
    case SOFTPLUS: EACH(v > 30 ? v : LOG1P(EXP(v)));
    case SOFTSIGN: EACH(v / (1 + (v < 0 ? -v : v)));
    case TANH_: EACH(TANH(v));
    default: EACH(v >= alpha ? v : 0);
    }
#undef EACH
}

/* One step of one batch element: `g` holds its sums (gates x hidden), h and c its state. */
static void NAME(lstm_cell)(const network *net, const activation *acts, const T *peep, T *g, T *h, T *c) {
    int64_t n = net->hidden;
    T *in = g, *out = g + n, *forget = g + 2 * n, *cell = g + 3 * n;
    for (int64_t i = 0; peep && i < n; i++) {
        in[i] += peep[i] * c[i];
        forget[i] += peep[2 * n + i] * c[i];
    }
    NAME(activate)(acts, net->clip, in, n);
    NAME(activate)(acts + 1, net->clip, cell, n);
    if (net->flag) {
        for (int64_t i = 0; i < n; i++) forget[i] = 1 - in[i];
    } else {
        NAME(activate)(acts, net->clip, forget, n);
    }
    for (int64_t i = 0; i < n; i++) c[i] = forget[i] * c[i] + in[i] * cell[i];
    for (int64_t i = 0; peep && i < n; i++) out[i] += peep[n + i] * c[i];
    NAME(activate)(acts, net->clip, out, n);
    memcpy(cell, c, (size_t)n * sizeof(T));
    NAME(activate)(acts + 2, net->clip, cell, n);
    for (int64_t i = 0; i < n; i++) h[i] = out[i] * cell[i];
}

/* Runs one direction. `sums` holds the inputs' part of every gate, for each row of X. */
static int32_t NAME(direction)(lap_context *ctx, const network *net, int64_t d, int32_t node_id) {
    int64_t n = net->hidden, gates = net->gates * n, rows = net->steps * net->batch;
    const T *w = (const T *)net->w + d * gates * net->inputs, *r = (const T *)net->r + d * gates * n;
    const T *b = net->b ? (const T *)net->b + d * 2 * gates : NULL, *peep = net->p ? (const T *)net->p + d * 3 * n : NULL;
    const activation *acts = net->acts + d * net->acts_n;
    int gru = net->kind == GRU, after = gru && net->flag; /* after: the reset gate comes after the product */
    TEMP(T, sums, lap_bytes_of(rows, gates));
    TEMP(T, bias, gates);
    TEMP(T, h, lap_bytes_of(net->batch, n));
    TEMP(T, c, lap_bytes_of(net->batch, n));
    TEMP(T, now, lap_bytes_of(net->batch, gates));
    TEMP(T, reset, lap_bytes_of(net->batch, n));
    for (int64_t i = 0; i < gates; i++) bias[i] = b ? b[i] + (after && i >= 2 * n ? 0 : b[gates + i]) : 0;
    NAME(product) inputs = {net->x, w, bias, sums, rows, gates, net->inputs, net->inputs, gates, 0};
    TRY(NAME(multiply)(ctx, inputs, node_id));
    for (int64_t e = 0; e < net->batch; e++) {
        int64_t from = (net->layout ? e * net->directions + d : d * net->batch + e) * n;
        for (int64_t i = 0; i < n; i++) {
            h[e * n + i] = net->h0 ? ((const T *)net->h0)[from + i] : 0;
            c[e * n + i] = net->c0 ? ((const T *)net->c0)[from + i] : 0;
        }
    }
    int back = net->reverse || d == 1;
    for (int64_t s = 0; s < net->steps; s++) {
        TRY(lap_check(ctx, node_id));
        for (int64_t e = 0; e < net->batch; e++) {
            int64_t length = net->lengths ? net->lengths[e] : net->steps, t = back ? length - 1 - s : s;
            if (s >= length) {
                memset(now + e * gates, 0, (size_t)gates * sizeof(T));
                continue;
            }
            memcpy(now + e * gates, sums + (net->layout ? e * net->steps + t : t * net->batch + e) * gates, (size_t)gates * sizeof(T));
        }
        /* In a GRU the last gate waits for the reset gate. */
        NAME(product) state = {h, r, NULL, now, net->batch, gru ? 2 * n : gates, n, n, gates, 1};
        TRY(NAME(multiply)(ctx, state, node_id));
        if (gru) {
            for (int64_t e = 0; e < net->batch; e++) {
                T *g = now + e * gates;
                NAME(activate)(acts, net->clip, g, 2 * n);
                for (int64_t i = 0; i < n; i++) reset[e * n + i] = after ? (b ? b[gates + 2 * n + i] : 0) : g[n + i] * h[e * n + i];
            }
            NAME(product) last = {after ? h : reset, r + 2 * n * n, NULL, after ? reset : now + 2 * n, net->batch, n, n, n,
                                  after ? n : gates, 1};
            TRY(NAME(multiply)(ctx, last, node_id));
        }
        for (int64_t e = 0; e < net->batch; e++) {
            int64_t length = net->lengths ? net->lengths[e] : net->steps, t = back ? length - 1 - s : s;
            if (s >= length) continue;
            T *g = now + e * gates, *state_h = h + e * n;
            if (net->kind == LSTM) {
                NAME(lstm_cell)(net, acts, peep, g, state_h, c + e * n);
            } else if (gru) {
                T *update = g, *fresh = g + 2 * n;
                for (int64_t i = 0; after && i < n; i++) fresh[i] += g[n + i] * reset[e * n + i];
                NAME(activate)(acts + 1, net->clip, fresh, n);
                for (int64_t i = 0; i < n; i++) state_h[i] = (1 - update[i]) * fresh[i] + update[i] * state_h[i];
            } else {
                NAME(activate)(acts, net->clip, g, n);
                memcpy(state_h, g, (size_t)n * sizeof(T));
            }
            if (!net->y) continue;
            int64_t to = net->layout ? (e * net->steps + t) * net->directions + d : (t * net->directions + d) * net->batch + e;
            memcpy((T *)net->y + to * n, state_h, (size_t)n * sizeof(T));
        }
    }
    for (int64_t e = 0; e < net->batch; e++) {
        int64_t to = (net->layout ? e * net->directions + d : d * net->batch + e) * n;
        if (net->y_h) memcpy((T *)net->y_h + to, h + e * n, (size_t)n * sizeof(T));
        if (net->y_c) memcpy((T *)net->y_c + to, c + e * n, (size_t)n * sizeof(T));
    }
    return LAPIDARY_OK;
}

#undef WIDE
#undef LANES
