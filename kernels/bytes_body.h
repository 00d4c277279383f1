/* A tile of the product for one instruction set; included by bytes.c, which defines VECTOR (LANES sums) and the operations:
 * SPLIT takes apart what the left or right operand of DOT wants, DOT adds the products of four bytes to each sum. */

/* `rows` rows of tile t from r on by 2 * LANES columns, of which those from `real` on are not there. */
TARGET static inline __attribute__((always_inline)) void NAME(tile)(const product *p, int64_t t, int64_t r, int64_t n, int64_t rows) {
    VECTOR sum[ROWS][2];
    UNROLL
    for (int64_t i = 0; i < rows; i++) sum[i][0] = sum[i][1] = ZERO();
    const uint8_t *a = p->a + (t * p->steps * TILE + r) * 4;
    const int8_t *b0 = p->b + n * p->steps * 4, *b1 = b0 + SECOND;
    for (int64_t k = 0; k < p->steps; k++, a += 4 * TILE, b0 += 4 * PANEL, b1 += 4 * PANEL) {
        VECTOR w0 = LOAD(b0), w1 = LOAD(b1);
        SPLIT(w0)
        SPLIT(w1)
        UNROLL
        for (int64_t i = 0; i < rows; i++) {
            int32_t four;
            memcpy(&four, a + 4 * i, 4);
            VECTOR x = SET(four);
            DOT(sum[i][0], x, w0)
            DOT(sum[i][1], x, w1)
        }
    }
    int32_t all[ROWS][2 * LANES];
    UNROLL
    for (int64_t i = 0; i < rows; i++) {
        STORE(all[i], sum[i][0]);
        STORE(all[i] + LANES, sum[i][1]);
    }
    for (int64_t i = 0; i < rows; i++) settle(p, t * TILE + r + i, n, all[i], 2 * LANES);
}

/* Columns n .. n + 2 * LANES of the rows that tiles t0 .. t1 have. */
TARGET static void NAME(tiles)(const product *p, int64_t t0, int64_t t1, int64_t n) {
    for (int64_t t = t0; t < t1; t++) {
        int64_t left = lap_min(TILE, p->m - t * TILE);
        for (int64_t r = 0; r < left; r += ROWS) {
            if (left - r == 1) NAME(tile)(p, t, r, n, 1);
            else if (left - r <= 4) NAME(tile)(p, t, r, n, 4);
            else NAME(tile)(p, t, r, n, ROWS);
        }
    }
}
