/* A product with weights of 2, 4 or 8 bits that stay packed: y = a w' + bias, where w[n][k] = (q - zero) * scale with a
 * scale and a zero point for each block along k.
 *
 * Few rows: within a block, q lies in units of 16 bytes. Byte i of a unit holds values v i .. v i + v - 1 (v = 8 / bits), so
 * that shifting all bytes by j fields gives values j, v + j, 2 v + j, …. The left operand is copied once in that order
 * ("turned"): field by field within each unit, zeros behind K. Then weights come out of a unit without a shuffle, and are
 * used by all rows at once; memory is what bounds that.
 *
 * Many rows: a panel of columns by PART values of k is unpacked to a buffer that stays in the cache, a vector the same k of
 * several columns, for all rows; the left operand is copied once in tiles of rows, those of one k side by side.
 *
 * Sums of an element are always made in one order, whatever the threads. */
#include "lap_library.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
/* Loops over a register tile, whose bounds are constants where they are inlined. */
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define TASK 32 /* columns */
#define COLUMNS 4 /* at once, for few rows */
#define FEW_ROWS 4
#define PART 256 /* values of k in a panel; a multiple of every block */
#define TILE 12 /* rows */

typedef struct nbits {
    const float *a, *scales, *zero_values, *bias;
    const uint8_t *b, *zeros;
    const int32_t *group;
    float *rows, *y; /* the left operand, turned or in tiles */
    int64_t m, n, k, bits, block, blocks, blob, zero_row;
    int64_t depth; /* k up to whole blocks */
    int64_t unit; /* values in 16 bytes */
} nbits;

/* Where value k of a row stands in turned order. */
static inline int64_t turned_place(const nbits *p, int64_t k) {
    int64_t v = 8 / p->bits, in = k % p->unit;
    return k - in + in % v * 16 + in / v;
}

static inline float zero_of(const nbits *p, int64_t n, int64_t block) {
    if (p->zero_values) return p->zero_values[n * p->blocks + block];
    if (!p->zeros) return (float)(1 << (p->bits - 1));
    int64_t bit = block * p->bits;
    return (float)(p->zeros[n * p->zero_row + bit / 8] >> bit % 8 & ((1 << p->bits) - 1));
}

/* Weights k .. k + count of column n; any layout. */
static void unpack_any(const nbits *p, int64_t n, int64_t k, int64_t count, float *to, int64_t step) {
    int64_t mask = (1 << p->bits) - 1, v = 8 / p->bits;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = k + i, block = at / p->block, of = p->group ? p->group[at] : block, in = at % p->block;
        int64_t q = p->b[(n * p->blocks + block) * p->blob + in / v] >> in % v * p->bits & mask;
        to[i * step] = ((float)q - zero_of(p, n, of)) * p->scales[n * p->blocks + of];
    }
}

/* Tasks: rows of the left operand, turned. */
static void turn_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const nbits *p = buffers[0];
    (void)dims;
    (void)worker;
    int64_t v = 8 / p->bits;
    for (int64_t m = begin; m < end; m++) {
        const float *from = p->a + m * p->k;
        float *to = p->rows + m * p->depth;
        int64_t whole = p->k - p->k % p->unit;
        for (int64_t u = 0; u < whole; u += p->unit) {
            for (int64_t j = 0; j < v; j++) {
                for (int64_t i = 0; i < 16; i++) to[u + j * 16 + i] = from[u + v * i + j];
            }
        }
        memset(to + whole, 0, (size_t)(4 * (p->depth - whole)));
        for (int64_t k = whole; k < p->k; k++) to[turned_place(p, k)] = from[k];
    }
}

/* Tasks: tiles of the left operand; rows that are not there are zeros. */
static void tile_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const nbits *p = buffers[0];
    (void)dims;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        float *to = p->rows + t * TILE * p->k;
        for (int64_t r = 0; r < TILE; r++) {
            int64_t m = t * TILE + r;
            const float *from = p->a + m * p->k;
            if (m < p->m) {
                for (int64_t k = 0; k < p->k; k++) to[k * TILE + r] = from[k];
            } else {
                for (int64_t k = 0; k < p->k; k++) to[k * TILE + r] = 0;
            }
        }
    }
}

static void plain_columns(const nbits *p, int64_t n0, int64_t n1, float *w) {
    for (int64_t n = n0; n < n1; n++) {
        for (int64_t k = 0; k < p->k; k += PART) {
            int64_t count = lap_min(PART, p->k - k);
            unpack_any(p, n, k, count, w, 1);
            for (int64_t m = 0; m < p->m; m++) {
                const float *a = p->a + m * p->k + k;
                float sum = 0;
                for (int64_t i = 0; i < count; i++) sum += a[i] * w[i];
                float *y = &p->y[m * p->n + n];
                *y = (k ? *y : p->bias ? p->bias[n] : 0) + sum;
            }
        }
    }
}

#ifdef X86
#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define VECTOR __m512
#define INTS __m512i
#define LANES 16
#define ROWS 12 /* at a time */
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define FMA _mm512_fmadd_ps
#define MUL _mm512_mul_ps
#define SUB _mm512_sub_ps
#define SET _mm512_set1_ps
#define FLOATS _mm512_cvtepi32_ps
#define SHIFTED(v, by) _mm512_srl_epi32(v, by)
#define MASKED(v, mask) _mm512_and_si512(v, _mm512_set1_epi32(mask))
#define GATHER(base, at) _mm512_i32gather_epi32(_mm512_loadu_si512(at), base, 1)
/* Part i of 16 bytes, a byte a lane. */
#define WIDENED(bytes, i) _mm512_cvtepu8_epi32(bytes)
/* A table of a block's weights, by the low four bits of a lane. */
#define LOOKUP(table, v) _mm512_permutexvar_ps(v, table)
#include "nbits_body.h"
#undef NAME
#undef TARGET
#undef VECTOR
#undef INTS
#undef LANES
#undef ROWS
#undef LOAD
#undef STORE
#undef FMA
#undef MUL
#undef SUB
#undef SET
#undef FLOATS
#undef SHIFTED
#undef MASKED
#undef GATHER
#undef WIDENED
#undef LOOKUP
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR __m256
#define INTS __m256i
#define LANES 8
#define ROWS 6
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define FMA _mm256_fmadd_ps
#define MUL _mm256_mul_ps
#define SUB _mm256_sub_ps
#define SET _mm256_set1_ps
#define FLOATS _mm256_cvtepi32_ps
#define SHIFTED(v, by) _mm256_srl_epi32(v, by)
#define MASKED(v, mask) _mm256_and_si256(v, _mm256_set1_epi32(mask))
#define GATHER(base, at) _mm256_i32gather_epi32(base, _mm256_loadu_si256((const __m256i *)(const void *)(at)), 1)
#define WIDENED(bytes, i) _mm256_cvtepu8_epi32((i) ? _mm_unpackhi_epi64(bytes, bytes) : (bytes))
#include "nbits_body.h"
#endif

/* Tasks: TASK columns. */
static void column_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const nbits *p = buffers[0];
    int64_t n0 = begin * TASK, n1 = lap_min(p->n, end * TASK);
    float *w = (float *)(void *)worker->scratch;
    (void)dims;
#ifdef X86
    if (worker->level > 0) {
        int v4 = worker->level == LAPIDARY_LEVEL_V4;
        if (dims[0]) (v4 ? few_columns_avx512 : few_columns_avx2)(p, n0, n1);
        else (v4 ? many_columns_avx512 : many_columns_avx2)(p, n0, n1, w);
        return;
    }
#endif
    plain_columns(p, n0, n1, w);
}

/* a [.., K], weights, scales, zero points or none, groups or none, bias or none. Ints: N, K, bits, block size. */
LAP_LIBRARY_KERNEL(lap_lib_matmul_nbits) {
    EXPECT(3, 1, 4, 0);
    const lap_tensor *a = in[0], *b = in[1], *scales = in[2];
    const lap_tensor *zeros = lap_opt(in, n_in, 3), *group = lap_opt(in, n_in, 4), *bias = lap_opt(in, n_in, 5);
    nbits p = {.n = at->ints[0], .k = at->ints[1], .bits = at->ints[2], .block = at->ints[3]};
    NEED(p.bits == 2 || p.bits == 4 || p.bits == 8, "weights of {a} bits", p.bits, 0);
    NEED(p.block >= 16 && p.block <= 256 && (p.block & (p.block - 1)) == 0, "blocks of {a}", p.block, 0);
    NEED(p.n > 0 && p.k > 0 && p.n <= INT32_MAX && p.k <= INT32_MAX, "weights of {a} by {b}", p.n, p.k);
    p.blocks = (p.k + p.block - 1) / p.block;
    p.blob = p.block * p.bits / 8;
    p.zero_row = (p.blocks * p.bits + 7) / 8;
    p.depth = p.blocks * p.block;
    p.unit = 16 * 8 / p.bits;
    NEED(a->rank >= 1 && a->dtype == LAPIDARY_F32, "a left operand of rank {a}, type {b}", a->rank, a->dtype);
    NEED(a->dims[a->rank - 1] == p.k, "rows of {a}, expected {b}", a->dims[a->rank - 1], p.k);
    NEED(b->dtype == LAPIDARY_U8 && lap_elements(b) == p.n * p.blocks * p.blob, "{a} bytes of weights, expected {b}", lap_elements(b), p.n * p.blocks * p.blob);
    NEED(scales->dtype == LAPIDARY_F32 && lap_elements(scales) == p.n * p.blocks, "{a} scales, expected {b}", lap_elements(scales), p.n * p.blocks);
    if (zeros) {
        int packed = zeros->dtype == LAPIDARY_U8;
        int64_t want = packed ? p.n * p.zero_row : p.n * p.blocks;
        NEED((packed || zeros->dtype == LAPIDARY_F32) && lap_elements(zeros) == want, "{a} zero points, expected {b}", lap_elements(zeros), want);
        if (packed) p.zeros = zeros->data;
        else p.zero_values = zeros->data;
    }
    if (group) {
        NEED(group->dtype == LAPIDARY_I32 && lap_elements(group) == p.k, "{a} groups, expected {b}", lap_elements(group), p.k);
        p.group = group->data;
        for (int64_t i = 0; i < p.k; i++) NEED(p.group[i] >= 0 && p.group[i] < p.blocks, "group {a} of {b}", p.group[i], p.blocks);
    }
    if (bias) {
        NEED(bias->dtype == LAPIDARY_F32 && lap_elements(bias) == p.n, "a bias of {a}, expected {b}", lap_elements(bias), p.n);
        p.bias = bias->data;
    }
    int64_t dims[LAP_MAX_RANK];
    memcpy(dims, a->dims, sizeof dims);
    dims[a->rank - 1] = p.n;
    TRY(lap_output_alloc(ctx, out[0], a->rank, dims, node_id));
    p.m = lap_span(a, 0, a->rank - 1);
    if (p.m <= 0) return LAPIDARY_OK;
    p.a = a->data;
    p.b = b->data;
    p.scales = scales->data;
    p.y = out[0]->data;
    void *buffers[] = {&p};
    int64_t few[] = {p.m <= FEW_ROWS && p.blob % 16 == 0 && !p.group};
    if (lap_level(ctx) > 0) {
        int64_t tiles = (p.m + TILE - 1) / TILE;
        TEMP(float, rows, few[0] ? lap_bytes_of(p.m, p.depth) : lap_bytes_of(tiles * TILE, p.k));
        p.rows = rows;
        TRY(lap_parallel_for(ctx, few[0] ? turn_tasks : tile_tasks, buffers, NULL, few[0] ? p.m : tiles, 0, node_id, lap_bytes_of(p.m, p.k)));
    }
    return lap_parallel_for(
        ctx, column_tasks, buffers, few, (p.n + TASK - 1) / TASK, PART * TASK * (int64_t)sizeof(float), node_id,
        lap_bytes_of(lap_bytes_of(p.m + 1, p.n), p.k) / 16);
}
