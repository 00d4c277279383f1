/* Products and convolutions of bytes with constants, exact in i32 (which wraps): y = (a - za) (b - zb).
 *
 * The left operand is made of u8 and the right one of i8, by 128 more or less where the model has the other kind, which zero
 * points follow. Then y = a b - za (sums of b's columns) - zb (sums of a's rows) + k za zb.
 *
 * b lies in panels of 16 columns, of which four values of k stand side by side: b[panel][k / 4][column][k % 4], zeros behind k. a
 * is copied once in tiles of 12 rows in the same way, a[tile][k / 4][row][k % 4]; a row of a convolution is what its
 * window covers, position by position, each filled up to four channels, and the border is za. */
#include "lap_library.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define TILE 12 /* rows */
#define PANEL 16 /* columns */
#define GROUP 8 /* tiles of a task */

typedef struct window {
    int64_t height, width, channels, kernel[2], strides[2], dilations[2], pads[2], out[2];
} window;

typedef struct product {
    const uint8_t *x; /* the operand as it is */
    const int8_t *b;
    const int32_t *sums, *zb; /* a column; zb of i8 */
    uint8_t *a; /* in tiles */
    int32_t *row_sums; /* or NULL: zb is 0 everywhere */
    int32_t *za; /* a row; of u8 */
    int32_t *y;
    const window *window; /* or NULL */
    int64_t m, n, k;
    int64_t steps; /* of four */
    int64_t groups; /* of tiles */
    int64_t code; /* 0 plain, 1 AVX2, 2 AVX-512, 3 with VNNI */
    uint8_t flip; /* from x to u8 */
} product;

/* `count` bytes (NULL: the border) to every TILE-th four from `to` on, zeros behind them. Gives their sum. */
static int64_t put(uint8_t *to, const uint8_t *from, int64_t count, uint8_t flip, uint8_t border, int sum) {
    uint32_t flips = 0x01010101u * flip, four;
    int64_t total = 0, i = 0;
    for (; i + 4 <= count; i += 4, to += 4 * TILE) {
        if (from) {
            memcpy(&four, from + i, 4);
            four ^= flips;
        } else four = 0x01010101u * border;
        memcpy(to, &four, 4);
        if (sum) total += (four & 255) + (four >> 8 & 255) + (four >> 16 & 255) + (four >> 24);
    }
    if (i < count) {
        uint8_t last[4] = {0};
        for (int64_t j = 0; i + j < count; j++) total += last[j] = from ? from[i + j] ^ flip : border;
        memcpy(to, last, 4);
    }
    return total;
}

/* Tasks: tiles. */
static void tile_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const product *p = buffers[0];
    (void)dims;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        for (int64_t r = 0; r < TILE; r++) {
            int64_t m = t * TILE + r, sum = 0;
            uint8_t *to = p->a + (t * p->steps * TILE + r) * 4;
            if (m >= p->m) {
                for (int64_t k = 0; k < p->steps; k++) memset(to + k * 4 * TILE, 0, 4);
                continue;
            }
            if (!p->window) {
                sum = put(to, p->x + m * p->k, p->k, p->flip, 0, p->row_sums != NULL);
            } else {
                const window *w = p->window;
                int64_t pixels = w->out[0] * w->out[1], at = m % pixels;
                const uint8_t *image = p->x + m / pixels * w->height * w->width * w->channels;
                int64_t y0 = at / w->out[1] * w->strides[0] - w->pads[0], x0 = at % w->out[1] * w->strides[1] - w->pads[1];
                for (int64_t i = 0; i < w->kernel[0]; i++) {
                    for (int64_t j = 0; j < w->kernel[1]; j++) {
                        int64_t y = y0 + i * w->dilations[0], x = x0 + j * w->dilations[1];
                        int inside = y >= 0 && y < w->height && x >= 0 && x < w->width;
                        const uint8_t *from = inside ? image + (y * w->width + x) * w->channels : NULL;
                        sum += put(to, from, w->channels, p->flip, (uint8_t)p->za[m], p->row_sums != NULL);
                        to += (w->channels + 3) / 4 * 4 * TILE;
                    }
                }
            }
            if (p->row_sums) p->row_sums[m] = (int32_t)(uint32_t)sum;
        }
    }
}

/* Sums of a row's columns from n on, with what zero points add, to where they belong. */
static inline void settle(const product *p, int64_t m, int64_t n, const int32_t *sums, int64_t count) {
    if (m >= p->m) return;
    int32_t *y = p->y + m * p->n + n;
    uint32_t za = (uint32_t)p->za[m], rows = p->row_sums ? (uint32_t)p->row_sums[m] - (uint32_t)p->k * za : 0;
    count = lap_min(count, p->n - n);
    for (int64_t c = 0; c < count; c++) {
        uint32_t v = (uint32_t)sums[c] - za * (uint32_t)p->sums[n + c];
        if (p->row_sums) v -= (uint32_t)p->zb[n + c] * rows;
        y[c] = (int32_t)v;
    }
}

static void tiles_plain(const product *p, int64_t t0, int64_t t1, int64_t n) {
    for (int64_t t = t0; t < t1; t++) {
        for (int64_t r = 0; r < lap_min(TILE, p->m - t * TILE); r++) {
            const uint8_t *a = p->a + (t * p->steps * TILE + r) * 4;
            const int8_t *b = p->b + n * p->steps * 4;
            int32_t sums[PANEL] = {0};
            for (int64_t k = 0; k < p->steps; k++, a += 4 * TILE) {
                for (int64_t c = 0; c < PANEL; c++, b += 4) {
                    int32_t dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
                    sums[c] = (int32_t)((uint32_t)sums[c] + (uint32_t)dot);
                }
            }
            settle(p, t * TILE + r, n, sums, PANEL);
        }
    }
}

#ifdef X86
/* Bytes 0 and 2 of each four, and 1 and 3, as numbers of 16 bits. */
#define SPLIT(w) VECTOR w##_even = SRA16(SLL16(w, 8), 8), w##_odd = SRA16(w, 8);
#define DOT(sum, x, w)                                                                                 \
    sum = ADD(sum, ADD(MADD(AND(x, SET(0x00ff00ff)), w##_even), MADD(SRL16(x, 8), w##_odd)));

#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2")))
#define VECTOR __m256i
#define LANES 8
#define ROWS 6
#define SECOND (4 * LANES)
#define ZERO _mm256_setzero_si256
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define SET _mm256_set1_epi32
#define ADD _mm256_add_epi32
#define AND _mm256_and_si256
#define MADD _mm256_madd_epi16
#define SLL16 _mm256_slli_epi16
#define SRL16 _mm256_srli_epi16
#define SRA16 _mm256_srai_epi16
#include "bytes_body.h"
#undef NAME
#undef TARGET
#undef VECTOR
#undef LANES
#undef ROWS
#undef SECOND
#undef ZERO
#undef LOAD
#undef STORE
#undef SET
#undef ADD
#undef AND
#undef MADD
#undef SLL16
#undef SRL16
#undef SRA16

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define VECTOR __m512i
#define LANES 16
#define ROWS 12
/* The next panel, or where there is none, the same. */
#define SECOND (n + PANEL < p->n ? p->steps * 4 * PANEL : 0)
#define ZERO _mm512_setzero_si512
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define SET _mm512_set1_epi32
#define ADD _mm512_add_epi32
#define AND _mm512_and_si512
#define MADD _mm512_madd_epi16
#define SLL16 _mm512_slli_epi16
#define SRL16 _mm512_srli_epi16
#define SRA16 _mm512_srai_epi16
#include "bytes_body.h"
#undef NAME
#undef TARGET
#undef SPLIT
#undef DOT
#define NAME(x) x##_vnni
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define SPLIT(w)
#define DOT(sum, x, w) sum = _mm512_dpbusd_epi32(sum, x, w);
#include "bytes_body.h"
#endif

/* Tasks: a group of tiles by two panels (a panel). */
static void product_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const product *p = buffers[0];
    int64_t width = dims[0], tiles = (p->m + TILE - 1) / TILE;
    (void)worker;
    for (int64_t task = begin; task < end; task++) {
        int64_t n = task / p->groups * width, t0 = task % p->groups * GROUP, t1 = lap_min(tiles, t0 + GROUP);
#ifdef X86
        if (p->code) {
            (p->code == 3 ? tiles_vnni : p->code == 2 ? tiles_avx512 : tiles_avx2)(p, t0, t1, n);
            continue;
        }
#endif
        tiles_plain(p, t0, t1, n);
    }
}

/* What both kernels have in common: x, panels of b (i8), the sums of b's columns, b's zero points (i32, i8's), those of x (one, or
 * one a row) or none. `p` has m, n, k, steps and the window; the output is there. */
static int32_t multiply(lap_context *ctx, product p, const lap_tensor *const *in, int32_t n_in, lap_tensor *out, int32_t node_id) {
    const lap_tensor *x = in[0], *b = in[1], *sums = in[2], *zb = in[3], *za = lap_opt(in, n_in, 4);
    int64_t panels = (p.n + PANEL - 1) / PANEL;
    NEED(x->dtype == LAPIDARY_U8 || x->dtype == LAPIDARY_I8, "a left operand of type {a}, expected bytes ({b})", x->dtype, LAPIDARY_U8);
    NEED(b->dtype == LAPIDARY_I8 && lap_elements(b) == lap_bytes_of(lap_bytes_of(panels, p.steps), 4 * PANEL), "{a} bytes of weights for {b} columns", lap_elements(b), p.n);
    NEED(sums->dtype == LAPIDARY_I32 && lap_elements(sums) == p.n, "{a} sums, expected {b}", lap_elements(sums), p.n);
    NEED(zb->dtype == LAPIDARY_I32 && lap_elements(zb) == p.n, "{a} zero points, expected {b}", lap_elements(zb), p.n);
    NEED(!za || (za->dtype == x->dtype && (lap_elements(za) == 1 || lap_elements(za) == p.m)), "{a} zero points for {b} rows", za ? lap_elements(za) : 0, p.m);
    if (p.m <= 0 || p.n <= 0) return LAPIDARY_OK;
    p.x = x->data;
    p.b = b->data;
    p.sums = sums->data;
    p.zb = zb->data;
    p.y = out->data;
    p.flip = x->dtype == LAPIDARY_I8 ? 128 : 0;
    int64_t tiles = (p.m + TILE - 1) / TILE;
    TEMP(uint8_t, a, lap_bytes_of(lap_bytes_of(tiles, p.steps), 4 * TILE));
    TEMP(int32_t, zeros, p.m);
    p.a = a;
    p.za = zeros;
    int64_t step = za && lap_elements(za) > 1;
    for (int64_t m = 0; m < p.m; m++) zeros[m] = za ? ((const uint8_t *)za->data)[m * step] ^ p.flip : p.flip;
    for (int64_t c = 0; c < p.n; c++) {
        if (!p.zb[c]) continue;
        TEMP(int32_t, rows, p.m);
        p.row_sums = rows;
        break;
    }
    p.groups = (tiles + GROUP - 1) / GROUP;
    p.code = lap_level(ctx);
    if (p.code == LAPIDARY_LEVEL_V4 && lap_features(ctx) & LAPIDARY_CPU_AVX512_VNNI) p.code = 3;
    int64_t width[] = {p.code >= 2 ? 2 * PANEL : PANEL};
    void *buffers[] = {&p};
    TRY(lap_parallel_for(ctx, tile_tasks, buffers, NULL, tiles, 0, node_id, lap_bytes_of(p.m, p.steps)));
    return lap_parallel_for(
        ctx, product_tasks, buffers, width, (p.n + width[0] - 1) / width[0] * p.groups, 0, node_id,
        lap_bytes_of(lap_bytes_of(p.m, p.n), p.steps) / 16);
}

/* x [.., K]; the operands of `multiply`. Ints: N, K. Output i32 [.., N]. */
LAP_LIBRARY_KERNEL(lap_lib_matmul_bytes) {
    EXPECT(4, 1, 2, 0);
    const lap_tensor *x = in[0];
    product p = {.n = at->ints[0], .k = at->ints[1]};
    NEED(p.n >= 0 && p.k >= 0 && p.n <= INT32_MAX && p.k <= INT32_MAX, "weights of {a} by {b}", p.n, p.k);
    NEED(x->rank >= 1 && x->dims[x->rank - 1] == p.k, "rows of {a}, expected {b}", x->rank ? x->dims[x->rank - 1] : 0, p.k);
    p.m = lap_span(x, 0, x->rank - 1);
    p.steps = (p.k + 3) / 4;
    int64_t dims[LAP_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = p.n;
    TRY(lap_output_alloc(ctx, out[0], x->rank, dims, node_id));
    return multiply(ctx, p, in, n_in, out[0], node_id);
}

/* x [N, H, W, C]; the operands of `multiply` (one zero point of x), b's rows a window position's channels filled up to four. Ints:
 * output channels, C, then two each of kernel, strides, dilations, pads before, pads behind. Output i32 [N, OH, OW, O]. */
LAP_LIBRARY_KERNEL(lap_lib_conv_bytes) {
    EXPECT(4, 1, 12, 0);
    const lap_tensor *x = in[0], *za = lap_opt(in, n_in, 4);
    const int64_t *i = at->ints + 2;
    for (int64_t j = 0; j < 12; j++) NEED(at->ints[j] >= (j < 8) && at->ints[j] <= INT32_MAX, "entry {a} of the record is {b}", j, at->ints[j]);
    NEED(x->rank == 4 && x->dims[3] == at->ints[1], "an image of rank {a} for {b} channels", x->rank, at->ints[1]);
    NEED(!za || lap_elements(za) == 1, "{a} zero points of the image, expected {b}", za ? lap_elements(za) : 0, 1);
    window w = {.height = x->dims[1], .width = x->dims[2], .channels = at->ints[1],
                .kernel = {i[0], i[1]}, .strides = {i[2], i[3]}, .dilations = {i[4], i[5]}, .pads = {i[6], i[7]}};
    for (int d = 0; d < 2; d++) {
        int64_t room = x->dims[1 + d] + i[6 + d] + i[8 + d] - ((w.kernel[d] - 1) * w.dilations[d] + 1);
        NEED(room >= 0, "a window of {a} over {b} pixels", (w.kernel[d] - 1) * w.dilations[d] + 1, x->dims[1 + d]);
        w.out[d] = room / w.strides[d] + 1;
    }
    int64_t positions = lap_bytes_of(w.kernel[0], w.kernel[1]);
    product p = {.n = at->ints[0], .k = lap_bytes_of(positions, w.channels), .steps = lap_bytes_of(positions, (w.channels + 3) / 4), .window = &w};
    NEED(p.k <= INT32_MAX, "a window of {a} by {b}", positions, w.channels);
    int64_t dims[] = {x->dims[0], w.out[0], w.out[1], p.n};
    TRY(lap_output_alloc(ctx, out[0], 4, dims, node_id));
    p.m = lap_count(3, dims);
    return multiply(ctx, p, in, n_in, out[0], node_id);
}
