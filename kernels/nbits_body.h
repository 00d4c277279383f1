/* The product for one instruction set; included by nbits.c, which defines VECTOR (LANES floats), ROWS (of a register
 * tile), FIELD and the operations. */

/* The sum of a vector, in a fixed order. */
TARGET static inline float NAME(across)(VECTOR v) {
    float each[LANES];
    STORE(each, v);
    for (int64_t half = LANES / 2; half > 0; half /= 2) {
        for (int64_t i = 0; i < half; i++) each[i] += each[i + half];
    }
    return each[0];
}

/* What a block's numbers are multiplied with, and what is added then. */
TARGET static inline void NAME(factors)(const nbits *p, int64_t n, int64_t block, VECTOR *scale, VECTOR *shift) {
    float s = p->scales[n * p->blocks + block];
    *scale = SET(s);
    *shift = SET(-zero_of(p, n, block) * s);
}

/* unpack_any for units of 16 bytes. */
TARGET static inline __attribute__((always_inline)) void NAME(unpack)(const nbits *p, int64_t n, int64_t k, int64_t count, float *to, int64_t bits) {
    const uint8_t *b = p->b + n * p->blocks * p->blob + k * bits / 8;
    int mask = (1 << bits) - 1;
    for (int64_t done = 0; done < count; done += p->block) {
        VECTOR scale, shift;
        NAME(factors)(p, n, (k + done) / p->block, &scale, &shift);
        for (int64_t u = 0; u < p->blob; u += 16, b += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)b);
            UNROLL
            for (int64_t j = 0; j < 8 / bits; j++) {
                __m128i by = _mm_cvtsi32_si128((int)(j * bits));
                UNROLL
                for (int64_t i = 0; i < 16 / LANES; i++, to += LANES) STORE(to, FMA(FIELD(bytes, i, by, mask), scale, shift));
            }
        }
    }
}

TARGET static void NAME(unpack_column)(const nbits *p, int64_t n, int64_t k, int64_t count, float *to) {
    if (p->unit_bytes != 16 || p->group) unpack_any(p, n, k, count, to);
    else if (p->bits == 4) NAME(unpack)(p, n, k, count, to, 4);
    else if (p->bits == 8) NAME(unpack)(p, n, k, count, to, 8);
    else NAME(unpack)(p, n, k, count, to, 2);
}

/* `rows` rows from m on by COLUMNS columns, of which those behind `last` are the last again and not stored. */
TARGET static inline __attribute__((always_inline)) void NAME(tile)(
    const nbits *p, int64_t m, int64_t rows, int64_t n, int64_t last, int64_t k, int64_t count, const float *w) {
    VECTOR sum[ROWS][COLUMNS];
    UNROLL
    for (int64_t r = 0; r < rows; r++) {
        UNROLL
        for (int64_t c = 0; c < COLUMNS; c++) sum[r][c] = SET(0);
    }
    const float *a = p->turned + m * p->depth + k;
    for (int64_t i = 0; i < count; i += LANES) {
        VECTOR x[COLUMNS];
        UNROLL
        for (int64_t c = 0; c < COLUMNS; c++) x[c] = LOAD(w + c * SLOT + i);
        UNROLL
        for (int64_t r = 0; r < rows; r++) {
            VECTOR v = LOAD(a + r * p->depth + i);
            UNROLL
            for (int64_t c = 0; c < COLUMNS; c++) sum[r][c] = FMA(v, x[c], sum[r][c]);
        }
    }
    UNROLL
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < COLUMNS && n + c <= last; c++) {
            float *y = &p->y[(m + r) * p->n + n + c];
            *y = (k ? *y : p->bias ? p->bias[n + c] : 0) + NAME(across)(sum[r][c]);
        }
    }
}

/* All rows by the columns n .. last, by way of the buffer. */
TARGET static void NAME(many)(const nbits *p, int64_t n, int64_t last, float *w) {
    for (int64_t k = 0; k < p->depth; k += DEPTH) {
        int64_t count = lap_min(DEPTH, p->depth - k), m = 0;
        UNROLL
        for (int64_t c = 0; c < COLUMNS; c++) NAME(unpack_column)(p, lap_min(n + c, last), k, count, w + c * SLOT);
        for (; m + ROWS <= p->m; m += ROWS) NAME(tile)(p, m, ROWS, n, last, k, count, w);
        for (; m < p->m; m++) NAME(tile)(p, m, 1, n, last, k, count, w);
    }
}

/* The same for a few rows and units of 16 bytes, without the buffer: two sums for each element hide the latency. */
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
    const float *a = p->turned;
    for (int64_t block = 0; block < p->blocks; block++) {
        VECTOR scale[COLUMNS], shift[COLUMNS];
        UNROLL
        for (int64_t c = 0; c < COLUMNS; c++) NAME(factors)(p, at[c], block, &scale[c], &shift[c]);
        for (int64_t u = 0; u < p->blob; u += 16) {
            UNROLL
            for (int64_t c = 0; c < COLUMNS; c++) {
                const uint8_t *b = p->b + (at[c] * p->blocks + block) * p->blob + u;
                __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)b);
                const float *x = a;
                UNROLL
                for (int64_t j = 0; j < 8 / bits; j++) {
                    __m128i by = _mm_cvtsi32_si128((int)(j * bits));
                    UNROLL
                    for (int64_t i = 0; i < 16 / LANES; i++, x += LANES) {
                        VECTOR w = FMA(FIELD(bytes, i, by, mask), scale[c], shift[c]);
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
TARGET static void NAME(columns)(const nbits *p, int64_t n0, int64_t n1, float *w) {
    for (int64_t n = n0; n < n1; n += COLUMNS) {
        int64_t last = lap_min(n + COLUMNS, n1) - 1;
        if (p->m > FEW_ROWS || p->unit_bytes != 16 || p->group) {
            NAME(many)(p, n, last, w);
            continue;
        }
        switch (p->m) {
        case 1: NAME(few_rows)(p, 1, n, last); break;
        case 2: NAME(few_rows)(p, 2, n, last); break;
        case 3: NAME(few_rows)(p, 3, n, last); break;
        default: NAME(few_rows)(p, 4, n, last); break;
        }
    }
}
