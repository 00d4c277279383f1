/* The product for one instruction set; included by nbits.c, which defines VECTOR (LANES floats), INTS and the operations. */

/* The sum of a vector, in a fixed order. */
TARGET static inline float NAME(across)(VECTOR v) {
    float each[LANES];
    STORE(each, v);
    for (int64_t half = LANES / 2; half > 0; half /= 2) {
        for (int64_t i = 0; i < half; i++) each[i] += each[i + half];
    }
    return each[0];
}

/* ---- many rows ----------------------------------------------------------------------------------- */

/* Of a panel. */
#define PANEL (2 * LANES)

/* Weights k .. k + count of the columns n .. last: w[k][column]. Columns that are not there are the last one again. */
TARGET static inline __attribute__((always_inline)) void NAME(unpack)(
    const nbits *p, int64_t n, int64_t last, int64_t k, int64_t count, float *w, int64_t bits) {
    int64_t row = p->blocks * p->blob;
    int32_t at[PANEL];
    for (int64_t c = 0; c < PANEL; c++) at[c] = (int32_t)((lap_min(n + c, last) - n) * row);
    for (int64_t done = 0; done < count; done += p->block) {
        int64_t block = (k + done) / p->block, values = lap_min(p->block, count - done);
        float scales[PANEL], zeros[PANEL];
        for (int64_t c = 0; c < PANEL; c++) {
            int64_t column = lap_min(n + c, last);
            scales[c] = p->scales[column * p->blocks + block];
            zeros[c] = zero_of(p, column, block);
        }
        const uint8_t *b = p->b + n * row + block * p->blob;
        for (int64_t h = 0; h < PANEL; h += LANES) {
            VECTOR scale = LOAD(scales + h), zero = LOAD(zeros + h);
            float *to = w + done * PANEL + h;
            for (int64_t i = 0; i < values; i += 32 / bits, to += 32 / bits * PANEL) {
                INTS word = GATHER((const int *)(const void *)(b + i * bits / 8), at + h);
                UNROLL
                for (int64_t j = 0; j < 32 / bits; j++) {
                    VECTOR q = FLOATS(MASKED(SHIFTED(word, _mm_cvtsi32_si128((int)(j * bits))), (1 << bits) - 1));
                    STORE(to + j * PANEL, MUL(SUB(q, zero), scale));
                }
            }
        }
    }
}

TARGET static void NAME(unpack_panel)(const nbits *p, int64_t n, int64_t last, int64_t k, int64_t count, float *w) {
    if (p->group || p->blocks * p->blob > INT32_MAX / PANEL) {
        for (int64_t c = 0; c < PANEL; c++) unpack_any(p, lap_min(n + c, last), k, count, w + c, PANEL);
    } else if (p->bits == 4) NAME(unpack)(p, n, last, k, count, w, 4);
    else if (p->bits == 8) NAME(unpack)(p, n, last, k, count, w, 8);
    else NAME(unpack)(p, n, last, k, count, w, 2);
}

/* `count` products of k into `rows` rows of y (of which `real` are there) and a panel's columns n .. last, on top of `start`
 * (of each column), or of what is there. */
TARGET static inline __attribute__((always_inline)) void NAME(tile)(
    const nbits *p, const float *a, int64_t count, const float *w, const float *start, int64_t m, int64_t n, int64_t last, int64_t rows) {
    VECTOR sum[TILE][2];
    int64_t columns = last - n + 1, real = lap_min(rows, p->m - m);
    UNROLL
    for (int64_t r = 0; r < rows; r++) {
        float part[PANEL] = {0};
        const float *from = start;
        if (!start && r < real) {
            from = p->y + (m + r) * p->n + n;
            if (columns < PANEL) {
                memcpy(part, from, (size_t)(4 * columns));
                from = part;
            }
        } else if (!start) from = part;
        sum[r][0] = LOAD(from);
        sum[r][1] = LOAD(from + LANES);
    }
    for (int64_t k = 0; k < count; k++, a += TILE, w += PANEL) {
        VECTOR w0 = LOAD(w), w1 = LOAD(w + LANES);
        UNROLL
        for (int64_t r = 0; r < rows; r++) {
            VECTOR x = SET(a[r]);
            sum[r][0] = FMA(x, w0, sum[r][0]);
            sum[r][1] = FMA(x, w1, sum[r][1]);
        }
    }
    UNROLL
    for (int64_t r = 0; r < rows; r++) {
        if (r >= real) break;
        float part[PANEL], *to = p->y + (m + r) * p->n + n;
        float *full = columns < PANEL ? part : to;
        STORE(full, sum[r][0]);
        STORE(full + LANES, sum[r][1]);
        if (columns < PANEL) memcpy(to, part, (size_t)(4 * columns));
    }
}

/* Columns n0 .. n1 of all rows. */
TARGET static void NAME(many_columns)(const nbits *p, int64_t n0, int64_t n1, float *w) {
    for (int64_t n = n0; n < n1; n += PANEL) {
        int64_t last = lap_min(n + PANEL, n1) - 1;
        float bias[PANEL] = {0};
        if (p->bias) memcpy(bias, p->bias + n, (size_t)(4 * (last - n + 1)));
        for (int64_t k = 0; k < p->k; k += PART) {
            int64_t count = lap_min(PART, p->k - k);
            NAME(unpack_panel)(p, n, last, k, count, w);
            for (int64_t m = 0; m < p->m; m += TILE) {
                const float *start = k ? NULL : bias;
                /* As many rows as registers hold at a time. */
                for (int64_t r = 0; r < TILE && m + r < p->m;) {
                    const float *a = p->rows + m * p->k + k * TILE + r;
                    int64_t left = lap_min(TILE - r, p->m - m - r), rows = left >= ROWS ? ROWS : left > 1 ? lap_min(4, ROWS) : 1;
                    if (rows == 1) NAME(tile)(p, a, count, w, start, m + r, n, last, 1);
                    else if (rows == ROWS) NAME(tile)(p, a, count, w, start, m + r, n, last, ROWS);
                    else NAME(tile)(p, a, count, w, start, m + r, n, last, 4);
                    r += rows;
                }
            }
        }
    }
}
#undef PANEL

/* ---- few rows ------------------------------------------------------------------------------------ */

/* Columns n .. last of `rows` rows, without a buffer. */
TARGET static inline __attribute__((always_inline)) void NAME(few)(const nbits *p, int64_t rows, int64_t n, int64_t last, int64_t bits) {
    int64_t at[COLUMNS];
    UNROLL
    for (int64_t c = 0; c < COLUMNS; c++) at[c] = lap_min(n + c, last);
    VECTOR sum[FEW_ROWS][COLUMNS];
    UNROLL
    for (int64_t r = 0; r < rows; r++) {
        UNROLL
        for (int64_t c = 0; c < COLUMNS; c++) sum[r][c] = SET(0);
    }
    int mask = (1 << bits) - 1;
    (void)mask;
    const float *a = p->rows;
    for (int64_t block = 0; block < p->blocks; block++) {
        VECTOR scale[COLUMNS], zero[COLUMNS];
        UNROLL
        for (int64_t c = 0; c < COLUMNS; c++) {
            scale[c] = SET(p->scales[at[c] * p->blocks + block]);
            zero[c] = SET(zero_of(p, at[c], block));
#ifdef LOOKUP
            const __m512i each = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            if (bits < 8) scale[c] = MUL(SUB(FLOATS(MASKED(each, mask)), zero[c]), scale[c]);
#endif
        }
        for (int64_t u = 0; u < p->blob; u += 16) {
            UNROLL
            for (int64_t c = 0; c < COLUMNS; c++) {
                const uint8_t *b = p->b + (at[c] * p->blocks + block) * p->blob + u;
                __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)b);
                const float *x = a;
                UNROLL
                for (int64_t j = 0; j < 8 / bits; j++) {
                    UNROLL
                    for (int64_t i = 0; i < 16 / LANES; i++, x += LANES) {
                        INTS q = WIDENED(bytes, i);
                        if (j > 0) q = SHIFTED(q, _mm_cvtsi32_si128((int)(j * bits)));
#ifdef LOOKUP
                        VECTOR w = bits < 8 ? LOOKUP(scale[c], q) : MUL(SUB(FLOATS(q), zero[c]), scale[c]);
#else
                        VECTOR w = MUL(SUB(FLOATS(MASKED(q, mask)), zero[c]), scale[c]);
#endif
                        UNROLL
                        for (int64_t r = 0; r < rows; r++) sum[r][c] = FMA(LOAD(x + r * p->depth), w, sum[r][c]);
                    }
                }
            }
            a += 16 * 8 / bits;
        }
    }
    UNROLL
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < COLUMNS && n + c <= last; c++) {
            p->y[r * p->n + n + c] = (p->bias ? p->bias[n + c] : 0) + NAME(across)(sum[r][c]);
        }
    }
}

TARGET static inline __attribute__((always_inline)) void NAME(few_rows)(const nbits *p, int64_t rows, int64_t n, int64_t last) {
    if (p->bits == 4) NAME(few)(p, rows, n, last, 4);
    else if (p->bits == 8) NAME(few)(p, rows, n, last, 8);
    else NAME(few)(p, rows, n, last, 2);
}

/* Columns n0 .. n1 of all rows. */
TARGET static void NAME(few_columns)(const nbits *p, int64_t n0, int64_t n1) {
    for (int64_t n = n0; n < n1; n += COLUMNS) {
        int64_t last = lap_min(n + COLUMNS, n1) - 1;
        switch (p->m) {
        case 1: NAME(few_rows)(p, 1, n, last); break;
        case 2: NAME(few_rows)(p, 2, n, last); break;
        case 3: NAME(few_rows)(p, 3, n, last); break;
        default: NAME(few_rows)(p, 4, n, last); break;
        }
    }
}
