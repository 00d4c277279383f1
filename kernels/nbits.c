/* A product with weights of 2, 4 or 8 bits that stay packed: y = a w' + bias, where w[n][k] = (q - zero) * scale with a
 * scale and a zero point for each block along k.
 *
 * Within a block, q lies in units of up to 16 bytes. Byte i of a unit holds values v i .. v i + v - 1 (v = 8 / bits), so
 * that shifting all bytes by j fields gives values j, v + j, 2 v + j, …. The left operand is copied once in that order
 * ("turned"): field by field within each unit, zeros behind K. Then weights come out of a unit without a shuffle.
 *
 * Few rows: each unit is unpacked in registers and used by all rows at once; memory is what bounds that. Many rows: a
 * few columns at a time are unpacked to a buffer that stays in the cache, for all rows. Sums of an element are always
 * made in one order, whatever the threads. */
#include "lap_library.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
/* Loops over a register tile, whose bounds are constants where they are inlined. */
#define UNROLL _Pragma("GCC unroll 8")
#endif

#define COLUMNS 4 /* of a task's step */
#define FEW_ROWS 4
#define DEPTH 1024 /* weights of a column in the buffer; a multiple of every block */
#define SLOT (DEPTH + 16) /* from one column to the next there; no power of 2, for the cache */

typedef struct nbits {
    const float *a, *scales, *zero_values, *bias;
    const uint8_t *b, *zeros;
    const int32_t *group;
    float *turned, *y;
    int64_t m, n, k, bits, block, blocks, blob, zero_row;
    int64_t depth; /* k up to whole blocks */
    int64_t unit, unit_bytes; /* values and bytes */
} nbits;

/* Where value k of a row stands in turned order. */
static inline int64_t turned_place(const nbits *p, int64_t k) {
    int64_t v = 8 / p->bits, in = k % p->unit;
    return k - in + in % v * p->unit_bytes + in / v;
}

static inline float zero_of(const nbits *p, int64_t n, int64_t block) {
    if (p->zero_values) return p->zero_values[n * p->blocks + block];
    if (!p->zeros) return (float)(1 << (p->bits - 1));
    int64_t bit = block * p->bits;
    return (float)(p->zeros[n * p->zero_row + bit / 8] >> bit % 8 & ((1 << p->bits) - 1));
}

/* Weights k .. k + count of column n, in turned order; whole blocks. Any layout. */
static void unpack_any(const nbits *p, int64_t n, int64_t k, int64_t count, float *to) {
    int64_t mask = (1 << p->bits) - 1, v = 8 / p->bits;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = k + i, block = at / p->block, of = p->group && at < p->k ? p->group[at] : block, in = at % p->block;
        int64_t q = p->b[(n * p->blocks + block) * p->blob + in / v] >> in % v * p->bits & mask;
        to[turned_place(p, at) - k] = ((float)q - zero_of(p, n, of)) * p->scales[n * p->blocks + of];
    }
}

/* Tasks: rows of the left operand. */
static void turn_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const nbits *p = buffers[0];
    (void)dims;
    (void)worker;
    int64_t v = 8 / p->bits;
    for (int64_t m = begin; m < end; m++) {
        const float *from = p->a + m * p->k;
        float *to = p->turned + m * p->depth;
        int64_t whole = p->k - p->k % p->unit;
        for (int64_t u = 0; u < whole; u += p->unit) {
            for (int64_t j = 0; j < v; j++) {
                for (int64_t i = 0; i < p->unit_bytes; i++) to[u + j * p->unit_bytes + i] = from[u + v * i + j];
            }
        }
        memset(to + whole, 0, (size_t)(4 * (p->depth - whole)));
        for (int64_t k = whole; k < p->k; k++) to[turned_place(p, k)] = from[k];
    }
}

static void plain_columns(const nbits *p, int64_t n0, int64_t n1, float *w) {
    for (int64_t n = n0; n < n1; n++) {
        for (int64_t k = 0; k < p->depth; k += DEPTH) {
            int64_t count = lap_min(DEPTH, p->depth - k);
            unpack_any(p, n, k, count, w);
            for (int64_t m = 0; m < p->m; m++) {
                const float *a = p->turned + m * p->depth + k;
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
#define LANES 16
#define ROWS 6
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define FMA _mm512_fmadd_ps
#define ADD _mm512_add_ps
#define SET _mm512_set1_ps
/* Field j of 16 bytes as numbers. */
#define FIELD(bytes, i, shift, mask)                                                                   \
    _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srl_epi32(_mm512_cvtepu8_epi32(bytes), shift), _mm512_set1_epi32(mask)))
#include "nbits_body.h"
#undef NAME
#undef TARGET
#undef VECTOR
#undef LANES
#undef ROWS
#undef LOAD
#undef STORE
#undef FMA
#undef ADD
#undef SET
#undef FIELD
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR __m256
#define LANES 8
#define ROWS 3
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define FMA _mm256_fmadd_ps
#define ADD _mm256_add_ps
#define SET _mm256_set1_ps
#define FIELD(bytes, i, shift, mask)                                                                   \
    _mm256_cvtepi32_ps(_mm256_and_si256(                                                               \
        _mm256_srl_epi32(_mm256_cvtepu8_epi32((i) ? _mm_unpackhi_epi64(bytes, bytes) : (bytes)), shift), \
        _mm256_set1_epi32(mask)))
#include "nbits_body.h"
#endif

/* Tasks: COLUMNS columns. */
static void column_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const nbits *p = buffers[0];
    int64_t n0 = begin * COLUMNS, n1 = lap_min(p->n, end * COLUMNS);
    float *w = (float *)(void *)worker->scratch;
#ifdef X86
    if (dims[0] == 2) {
        columns_avx512(p, n0, n1, w);
        return;
    }
    if (dims[0] == 1) {
        columns_avx2(p, n0, n1, w);
        return;
    }
#endif
    (void)dims;
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
    p.unit_bytes = lap_min(16, p.blob);
    p.unit = p.unit_bytes * 8 / p.bits;
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
    TEMP(float, turned, lap_bytes_of(p.m, p.depth));
    p.turned = turned;
    void *buffers[] = {&p};
    TRY(lap_parallel_for(ctx, turn_tasks, buffers, NULL, p.m, 0, node_id, lap_bytes_of(p.m, p.k)));
    int64_t level[] = {lap_level(ctx)};
    return lap_parallel_for(
        ctx, column_tasks, buffers, level, (p.n + COLUMNS - 1) / COLUMNS, COLUMNS * SLOT * (int64_t)sizeof(float), node_id,
        lap_bytes_of(lap_bytes_of(p.m + 1, p.n), p.k) / 16);
}
