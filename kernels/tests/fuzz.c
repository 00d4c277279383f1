/* Calls every library kernel with operands and records that are valid, and then changed at random, under the address
 * and undefined-behaviour sanitizers. The runtime is replaced by one that gives every operand, output and temporary
 * memory of exactly its size, so that one element too far is seen. A kernel may fail, but only by saying so.
 *
 * fuzz [rounds [seed [kernel]]]: prints `ok`.
 *
 * The record of `trees` is one that the compiler makes and no kernel can check, so it is not changed at random:
 * fuzz --trees FILE reads records, and prints what comes of them (tests/trees.rs). */
#include <stdio.h>
#include <stdlib.h>

#include "lap_box.h"

/* ---- a runtime of exact sizes -------------------------------------------------------------------- */

#define LIMIT (INT64_C(16) << 20)
static void *blocks[1 << 16];
static int n_blocks, failed;
static char why[512];

static void *exact(int64_t bytes) {
    if (bytes < 0 || bytes > LIMIT || n_blocks == (int)(sizeof blocks / sizeof *blocks)) return NULL;
    return blocks[n_blocks++] = malloc((size_t)(bytes ? bytes : 1));
}

int32_t lap_fail(lap_context *ctx, int32_t code, int32_t node_id, const char *message, int64_t a, int64_t b) {
    (void)ctx, (void)node_id, (void)a, (void)b;
    failed = 1;
    snprintf(why, sizeof why, "%s", message);
    return code;
}
void *lap_alloc_dynamic(lap_context *ctx, int32_t buffer, int64_t bytes) {
    void *p = exact(bytes);
    (void)buffer;
    if (!p) lap_fail(ctx, LAPIDARY_ERROR_MEMORY, 0, "no memory", bytes, 0);
    return p;
}
void lap_contiguous_strides(lap_tensor *t) {
    int64_t stride = 1;
    for (int32_t a = t->rank - 1; a >= 0; a--, stride = (int64_t)((uint64_t)stride * (uint64_t)t->dims[a + 1])) t->strides[a] = stride;
}
int32_t lap_check(lap_context *ctx, int32_t node_id) { return (void)ctx, (void)node_id, 0; }
uint64_t lap_draw(lap_context *ctx) { return (void)ctx, 3; }
uint64_t lap_entropy(lap_context *ctx) { return (void)ctx, 5; }
void *lap_temp(lap_context *ctx, int64_t bytes, int32_t node_id) {
    void *p = exact(bytes);
    if (!p) lap_fail(ctx, LAPIDARY_ERROR_MEMORY, node_id, "no memory", bytes, 0);
    return p;
}
int32_t lap_parallel_for(
    lap_context *ctx, lap_kernel kernel, void *const *buffers, const int64_t *dims, int64_t n_tasks, int64_t scratch_bytes,
    int32_t node_id, int64_t cost) {
    (void)cost;
    lap_worker worker = {.scratch_bytes = scratch_bytes, .level = lap_level(ctx)};
    if (n_tasks <= 0) return 0;
    worker.scratch = lap_temp(ctx, scratch_bytes, node_id);
    if (!worker.scratch) return LAPIDARY_ERROR_MEMORY;
    kernel(buffers, dims, 0, n_tasks / 2, &worker);
    kernel(buffers, dims, n_tasks / 2, n_tasks, &worker);
    return worker.fault.kind ? lap_fail(ctx, LAPIDARY_ERROR_CHECK, node_id, "fault", 0, 0) : 0;
}
int64_t lap_dtype_bytes(int32_t dtype) {
    static const int8_t bytes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    return dtype > 0 && dtype <= 26 ? bytes[dtype] : 0;
}
int64_t lap_count(int32_t rank, const int64_t *dims) {
    int64_t n = 1;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] < 0 || __builtin_mul_overflow(n, dims[i], &n)) return -1;
    }
    return n;
}
int32_t lap_output_alloc(lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id) {
    int64_t n = rank > LAP_MAX_RANK ? -1 : lap_count(rank, dims);
    void *data = n < 0 || n > LIMIT ? NULL : exact(n * lap_dtype_bytes(out->dtype));
    if (!data) return lap_fail(ctx, LAPIDARY_ERROR_CHECK, node_id, "an output's dims are negative or too large", 0, 0);
    if (out->data) abort(); /* twice */
    out->data = data;
    out->rank = rank;
    if (rank > 0) memmove(out->dims, dims, 8 * (size_t)rank);
    return 0;
}
int32_t lap_output_alloc_strings(
    lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t text_bytes, int32_t node_id) {
    int64_t n = rank > LAP_MAX_RANK ? -1 : lap_count(rank, dims);
    lapidary_strings *s = n < 0 || n > LIMIT ? NULL : exact(sizeof *s);
    int64_t *offsets = s ? exact(8 * (n + 1)) : NULL;
    char *bytes = offsets ? exact(text_bytes) : NULL;
    if (!bytes) return lap_fail(ctx, LAPIDARY_ERROR_CHECK, node_id, "an output's dims are negative or too large", 0, 0);
    memset(offsets, 0, 8 * (size_t)(n + 1));
    *s = (lapidary_strings){offsets, bytes};
    out->data = s;
    out->rank = rank;
    if (rank > 0) memmove(out->dims, dims, 8 * (size_t)rank);
    return 0;
}
static int32_t highest_level(void) {
#if defined(__x86_64__)
    int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return v3 + (v3 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
#else
    return 0;
#endif
}
uint64_t lap_features(lap_context *ctx) { return (void)ctx, 0; }
uint32_t lap_f32_to_f16(float v) { return (uint32_t)(fabsf(v) < 1e4f ? (int32_t)v : 0) & 0xffff; }
float lap_f16_to_f32(uint32_t v) { return (float)v; }
uint32_t lap_f32_to_bf16(float v) { return lap_f32_to_f16(v); }
float lap_bf16_to_f32(uint32_t v) { return (float)v; }

/* ---- numbers ----------------------------------------------------------------------------------- */

static uint64_t state;
static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
static int64_t below(int64_t n) { return n > 0 ? (int64_t)(next() % (uint64_t)n) : 0; }
static int64_t odd_int(void) {
    static const int64_t list[] = {0, 1, -1, 2, -2, 3, 5, 7, 16, 100, -100, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, INT64_MAX / 2,
                                   INT64_C(1) << 40, 65536, 1000003};
    return list[below((int64_t)(sizeof list / sizeof *list))];
}
static double odd_float(void) {
    static const double list[] = {0, -0.0, 1, -1, 0.5, 1.5, -2.5, 1e-30, 1e30, -1e30, 3e38, NAN, INFINITY, -INFINITY, 0.3333, 100, -7, 1e9};
    return list[below((int64_t)(sizeof list / sizeof *list))];
}

/* ---- cases ------------------------------------------------------------------------------------- */

#define F LAPIDARY_F32
#define I LAPIDARY_I64
#define U8 LAPIDARY_U8
#define Z 0 /* absent */
#define MAP (-1) /* a map from i64 to f32, of one dimension */
#define SEQUENCE (-2) /* an output of this kind */
typedef struct operand {
    int32_t dtype;
    int32_t rank;
    int64_t dims[6];
    int64_t n_values; /* 0: at random */
    int64_t values[8];
} operand;
typedef struct test_case {
    const char *name;
    lap_library_fn fn;
    int32_t n_in, n_out;
    operand in[8];
    int32_t out[4]; /* types */
    int32_t n_ints, n_floats;
    int64_t ints[24];
    double floats[16];
    int32_t out_rank; /* dims of the outputs are planned */
    int64_t out_dims[6];
    lap_bytes texts[5];
    int32_t n_texts;
} test_case;
#define KERNEL(name) LAP_LIBRARY_KERNEL(lap_lib_##name);
#define NAMES(X)                                                                                       \
    X(copy) X(reshape) X(squeeze) X(unsqueeze) X(expand) X(tile) X(slice) X(split) X(pad) X(center_crop_pad) X(compress) \
    X(reverse_sequence) X(shape) X(size) X(constant_of_shape) X(range) X(one_hot) X(window) X(mel_weight_matrix) X(non_zero) \
    X(top_k) X(unique) X(non_max_suppression) X(reduce) X(cumsum) X(cumprod) X(resize) X(grid_sample) X(affine_grid) \
    X(roi_align) X(max_roi_pool) X(max_pool) X(max_unpool) X(col2im) X(deform_conv) X(dft) X(stft) X(det) X(rnn) X(gru) \
    X(lstm) X(linear_attention) X(gather_nd) X(flatten_together) X(matmul_operands) X(random) X(multinomial) \
    X(matmul_nbits) X(matmul_bytes) X(conv_bytes) X(cache_append) X(zip_map) X(map_values) X(tokenize) X(regex_full_match) X(string_split) \
    X(string_normalize) X(string_concat) X(string_equal) X(trees)
NAMES(KERNEL)
#define V1(t, a) {t, 1, {1}, 1, {a}}
#define V2(t, a, b) {t, 1, {2}, 2, {a, b}}
#define S(name) #name, lap_lib_##name

/* The automaton of `[ab]+`: two states, two classes of bytes. */
static const uint8_t class_of[256] = {['a'] = 1, ['b'] = 1}, ends[2] = {0, 1};
static const uint32_t next_state[4] = {2, 1, 2, 1};
#define T LAPIDARY_STRING
#define TEXT(at, n) {(const char *)(at), (n)}
#define AUTOMATON TEXT(class_of, 256), TEXT(next_state, 16), TEXT(ends, 2)

static const test_case cases[] = {
    {S(copy), 1, 1, {{F, 2, {2, 3}}}, {F}, 0},
    {S(reshape), 2, 1, {{F, 2, {2, 6}}, V2(I, 3, -1)}, {F}, 1},
    {S(squeeze), 2, 1, {{F, 3, {2, 1, 3}}, V1(I, 1)}, {F}},
    {S(squeeze), 1, 1, {{F, 3, {2, 1, 3}}}, {F}},
    {S(unsqueeze), 2, 1, {{F, 2, {2, 3}}, V2(I, 0, -1)}, {F}},
    {S(expand), 2, 1, {{F, 2, {2, 1}}, V2(I, 2, 4)}, {F}},
    {S(tile), 2, 1, {{F, 2, {2, 3}}, V2(I, 2, 2)}, {F}},
    {S(slice), 5, 1, {{F, 2, {5, 6}}, V2(I, 1, -1), V2(I, 4, INT64_MIN), V2(I, 0, 1), V2(I, 2, -2)}, {F}},
    {S(split), 2, 2, {{F, 2, {5, 3}}, V2(I, 2, 3)}, {F, F}, 2},
    {S(split), 1, 2, {{F, 2, {5, 3}}}, {F, F}, 2, 0, {0, 1}},
    {S(pad), 4, 1, {{F, 2, {3, 4}}, {I, 1, {4}, 4, {1, -1, 2, 3}}, {F, 0, {0}}, {Z}}, {F}, 1, 0, {2}},
    {S(center_crop_pad), 2, 1, {{F, 2, {3, 8}}, V2(I, 5, 4)}, {F}, 2, 0, {0, 1}},
    {S(compress), 2, 1, {{F, 2, {3, 4}}, {LAPIDARY_BOOL, 1, {3}}}, {F}, 1},
    {S(reverse_sequence), 2, 1, {{F, 3, {4, 2, 3}}, V2(I, 3, 1)}, {F}, 2, 0, {1, 0}},
    {S(shape), 1, 1, {{F, 3, {2, 3, 4}}}, {I}, 2, 0, {0, 9}},
    {S(size), 1, 1, {{F, 3, {2, 3, 4}}}, {I}},
    {S(constant_of_shape), 1, 1, {V2(I, 2, 3)}, {F}, 2, 0, {1, 0x3f800000}},
    {S(range), 3, 1, {V1(I, 1), V1(I, 20), V1(I, 3)}, {I}},
    {S(range), 3, 1, {V1(F, 1), V1(F, 20), V1(F, 3)}, {F}},
    {S(one_hot), 3, 1, {{I, 1, {3}}, V1(I, 4), V2(F, 0, 1)}, {F}, 1, 0, {1}},
    {S(window), 1, 1, {V1(I, 9)}, {F}, 2, 3, {1, 1}, {0.5, -0.5, 0}},
    {S(mel_weight_matrix), 5, 1, {V1(I, 8), V1(I, 16), V1(I, 8192), V1(F, 0), V1(F, 4096)}, {F}, 1, 0, {1}},
    {S(non_zero), 1, 1, {{F, 2, {3, 4}}}, {I}},
    {S(top_k), 2, 2, {{F, 2, {3, 7}}, V1(I, 3)}, {F, I}, 3, 0, {1, 1, 1}},
    {S(unique), 1, 4, {{F, 2, {3, 4}}}, {F, I, I, I}, 2, 0, {0, 1}},
    {S(unique), 1, 4, {{LAPIDARY_STRING, 1, {7}}}, {LAPIDARY_STRING, I, I, I}, 2, 0, {1, -1}},
    {S(non_max_suppression), 5, 1, {{F, 3, {2, 6, 4}}, {F, 3, {2, 3, 6}}, V1(I, 3), V1(F, 0), V1(F, 0)}, {I}, 1},
    {S(reduce), 2, 1, {{F, 3, {2, 3, 4}}, V2(I, 0, -1)}, {F}, 3, 0, {0, 1, 0}},
    {S(cumsum), 2, 1, {{F, 3, {2, 3, 4}}, V1(I, 1)}, {F}, 2, 0, {1, 1}},
    {S(cumprod), 2, 1, {{I, 3, {2, 3, 4}}, V1(I, 1)}, {I}, 2},
    {S(resize), 4, 1, {{F, 4, {1, 2, 3, 4}}, {Z}, {Z}, V2(I, 5, 3)}, {F}, 8, 2, {1, 0, 0, 0, 1, 0, 2, 3}, {-0.75}},
    {S(resize), 4, 1, {{F, 4, {1, 2, 3, 4}}, {F, 1, {4}}, {F, 1, {2}, 2, {2, 1}}, {Z}}, {F}, 8, 2, {2, 5, 0, 1, 0, 0, 2, 3}, {-0.75, 9}},
    {S(resize), 4, 1, {{F, 2, {3, 4}}, {Z}, {Z}, V2(I, 7, 9)}, {F}, 8, 2, {0, 0, 1, 0, 0, 2, 0, 1}, {-0.75}},
    {S(grid_sample), 2, 1, {{F, 4, {1, 2, 3, 4}}, {F, 4, {1, 2, 2, 2}}}, {F}, 3, 0, {2, 2, 0}},
    {S(affine_grid), 2, 1, {{F, 3, {1, 2, 3}}, {I, 1, {4}, 4, {1, 2, 3, 4}}}, {F}, 1},
    {S(roi_align), 3, 1, {{F, 4, {2, 2, 5, 6}}, {F, 2, {3, 4}}, {I, 1, {3}, 3, {0, 1, 0}}}, {F}, 5, 1, {0, 2, 2, 0, 1}, {1}},
    {S(max_roi_pool), 2, 1, {{F, 4, {1, 2, 5, 6}}, {F, 2, {1, 5}, 5, {0, 1, 1, 3, 4}}}, {F}, 2, 1, {2, 2}, {1}},
    {S(max_pool), 1, 2, {{F, 4, {1, 2, 5, 6}}}, {F, I}, 10, 0, {0, 2, 2, 2, 2, 2, 1, 1, 0, 0}, {0}, 4, {1, 2, 2, 3}},
    {S(max_pool), 2, 2, {{F, 4, {1, 2, 5, 6}}, V2(I, 1, 0)}, {F, I}, 10, 0, {0, 2, 2, 2, 2, 2, 1, 1, 0, 0}, {0}, 4, {1, 2, 3, 3}},
    {S(max_unpool), 3, 1, {{F, 4, {1, 1, 2, 2}}, {I, 4, {1, 1, 2, 2}, 4, {1, 3, 4, 15}}, {Z}}, {F}, 9, 0, {2, 2, 2, 2, 2}},
    {S(col2im), 3, 1, {{F, 3, {1, 4, 9}}, V2(I, 4, 4), V2(I, 2, 2)}, {F}, 9, 0, {2, 1, 1, 1, 1}},
    {S(col2im), 3, 1, {{F, 3, {1, 4, 9}}, V2(I, 4, 4), V2(I, 2, 2)}, {F}, 1, 0, {0}},
    {S(deform_conv), 5, 1, {{F, 4, {1, 2, 4, 4}}, {F, 4, {2, 2, 2, 2}}, {F, 4, {1, 8, 3, 3}}, {F, 1, {2}}, {F, 4, {1, 4, 3, 3}}}, {F}, 13, 0,
     {1, 1, 2, 2, 0, 1, 1, 1, 1}},
    {S(dft), 3, 1, {{F, 3, {2, 6, 2}}, V1(I, 7), {Z}}, {F}, 3, 0, {1, 0, 0}},
    {S(dft), 3, 1, {{F, 3, {2, 6, 2}}, {Z}, V1(I, 1)}, {F}, 3, 0, {1, 1, 1}},
    {S(dft), 1, 1, {{LAPIDARY_F64, 3, {2, 420, 1}}}, {LAPIDARY_F64}, 3, 0, {1, 0, 1}},
    {S(dft), 1, 1, {{F, 3, {2, 34, 2}}}, {F}, 3, 0, {1}},
    {S(stft), 4, 1, {{F, 3, {2, 20, 1}}, V1(I, 3), {F, 1, {8}}, V1(I, 8)}, {F}, 1, 0, {1}},
    {S(det), 1, 1, {{F, 3, {2, 3, 3}}}, {F}},
    {S(matmul_nbits), 6, 1, {{F, 2, {2, 40}}, {U8, 3, {3, 2, 16}}, {F, 2, {3, 2}}, {U8, 2, {3, 1}}, {Z}, {F, 1, {3}}}, {F}, 4, 0, {3, 40, 4, 32}},
    {S(matmul_nbits), 4, 1, {{F, 2, {7, 20}}, {U8, 3, {3, 2, 4}}, {F, 2, {3, 2}}, {F, 2, {3, 2}}}, {F}, 4, 0, {3, 20, 2, 16}},
    {S(matmul_nbits), 5, 1, {{F, 2, {1, 6}}, {U8, 3, {5, 1, 16}}, {F, 2, {5, 1}}, {Z}, {LAPIDARY_I32, 1, {6}, 6, {0}}}, {F}, 4, 0, {5, 6, 8, 16}},
    {S(matmul_bytes), 5, 1, {{U8, 2, {14, 5}}, {LAPIDARY_I8, 1, {256}}, {LAPIDARY_I32, 1, {19}}, {LAPIDARY_I32, 1, {19}}, {U8, 1, {14}}}, {LAPIDARY_I32}, 2, 0, {19, 5}},
    {S(matmul_bytes), 4, 1, {{LAPIDARY_I8, 3, {2, 1, 9}}, {LAPIDARY_I8, 1, {576}}, {LAPIDARY_I32, 1, {33}}, {LAPIDARY_I32, 1, {33}}}, {LAPIDARY_I32}, 2, 0, {33, 9}},
    {S(conv_bytes), 5, 1, {{U8, 4, {1, 4, 5, 3}}, {LAPIDARY_I8, 1, {256}}, {LAPIDARY_I32, 1, {3}}, {LAPIDARY_I32, 1, {3}}, {U8, 1, {1}}}, {LAPIDARY_I32}, 12, 0,
     {3, 3, 2, 2, 1, 2, 1, 1, 0, 1, 1, 0}},
    {S(rnn), 6, 2, {{F, 3, {3, 2, 4}}, {F, 3, {1, 5, 4}}, {F, 3, {1, 5, 5}}, {F, 2, {1, 10}}, {Z}, {F, 3, {1, 2, 5}}}, {F, F}, 6, 3,
     {0, 5, 0, 0, 1, 9}, {INFINITY}},
    {S(gru), 6, 2, {{F, 3, {3, 2, 4}}, {F, 3, {2, 15, 4}}, {F, 3, {2, 15, 5}}, {F, 2, {2, 30}}, V2(I, 3, 1), {Z}}, {F, F}, 9, 9,
     {2, 5, 0, 1, 4, 6, 9, 6, 9}, {3}},
    {S(lstm), 8, 3, {{F, 3, {2, 3, 20}}, {F, 3, {1, 20, 20}}, {F, 3, {1, 20, 5}}, {F, 2, {1, 40}}, V2(I, 3, 1), {Z}, {Z}, {F, 2, {1, 15}}},
     {F, F, F}, 8, 7, {1, 5, 1, 1, 3, 6, 9, 9}, {INFINITY}},
    {S(linear_attention), 6, 2, {{F, 3, {1, 3, 8}}, {F, 3, {1, 3, 4}}, {F, 3, {1, 3, 6}}, {F, 4, {1, 2, 2, 3}}, {F, 3, {1, 3, 2}}, {F, 3, {1, 3, 1}}},
     {F, F}, 3, 1, {4, 2, 3}},
    {S(gather_nd), 2, 1, {{F, 3, {2, 3, 4}}, {I, 2, {2, 2}, 4, {1, 2, 0, -1}}}, {F}, 1, 0, {0}},
    {S(flatten_together), 3, 4, {{F, 2, {3, 1}}, {I, 1, {4}}, {LAPIDARY_BOOL, 3, {2, 1, 1}}}, {I, F, I, LAPIDARY_BOOL}},
    {S(matmul_operands), 2, 3, {{F, 3, {2, 3, 4}}, {F, 2, {4, 2}}}, {I, F, F}},
    {S(matmul_operands), 2, 3, {{F, 1, {4}}, {F, 1, {4}}}, {I, F, F}},
    {S(random), 1, 1, {{F, 2, {3, 5}}}, {F}, 3, 2, {0, 1, 7}, {-1, 3}},
    {S(random), 0, 1, {{Z}}, {LAPIDARY_F16}, 3, 2, {1, 0, 0}, {0, 1}, 2, {3, 5}},
    {S(multinomial), 1, 1, {{F, 2, {2, 3}, 6, {0, 1, 2, 1, 0, -1}}}, {I}, 2, 0, {1, 9}, {0}, 2, {2, 7}},
    {S(matmul_nbits), 6, 1, {{F, 2, {2, 32}}, {LAPIDARY_U8, 3, {4, 2, 8}}, {F, 1, {8}}, {LAPIDARY_U8, 1, {4}}, {Z}, {F, 1, {4}}}, {F}, 4, 0,
     {4, 32, 4, 16}},
    {S(matmul_nbits), 5, 1, {{F, 3, {9, 1, 8}}, {LAPIDARY_U8, 3, {3, 1, 16}}, {F, 2, {3, 1}}, {F, 2, {3, 1}}, {LAPIDARY_I32, 1, {8}, 8, {0}}},
     {F}, 4, 0, {3, 8, 8, 16}},
    {S(cache_append), 4, 1, {{F, 4, {1, 2, 3, 4}}, {F, 4, {1, 2, 2, 4}}, {LAPIDARY_I32, 1, {1}, 1, {3}}, V1(I, 5)}, {F}},
    {S(cache_append), 4, 1, {{Z}, {LAPIDARY_F16, 4, {2, 1, 2, 3}}, {LAPIDARY_I32, 1, {2}, 2, {0, 1}}, V1(I, 2)}, {LAPIDARY_F16}},
    {S(zip_map), 1, 1, {{F, 2, {3, 2}}}, {SEQUENCE}, 3, 0, {1, 7, -7}},
    {S(zip_map), 1, 1, {{F, 1, {2}}}, {SEQUENCE}, 1, 0, {0}, {0}, 0, {0}, {TEXT("one", 3), TEXT("", 0)}, 2},
    {S(map_values), 1, 1, {{MAP, 1, {5}}}, {F}, 3, 0, {0, 0, 1}},
    {S(map_values), 1, 1, {{MAP, 1, {5}}}, {F}, 5, 0, {1, 2, 1, 3, 0}},
    {S(map_values), 1, 1, {{MAP, 1, {1}, 1, {2}}}, {F}, 3, 0, {2, 4, 1}},
    {S(tokenize), 1, 1, {{T, 1, {6}}}, {T}, 5, 0, {1, 1, 1, 2, 2}, {0}, 0, {0}, {TEXT("#", 1), AUTOMATON}, 4},
    {S(tokenize), 1, 1, {{T, 2, {2, 4}}}, {T}, 5, 0, {0, 0, 1, 2, 2}, {0}, 0, {0}, {TEXT("", 0), AUTOMATON}, 4},
    {S(regex_full_match), 1, 1, {{T, 2, {2, 4}}}, {LAPIDARY_BOOL}, 2, 0, {2, 2}, {0}, 0, {0}, {AUTOMATON}, 3},
    {S(string_split), 1, 2, {{T, 1, {5}}}, {T, I}, 1, 0, {-1}, {0}, 0, {0}, {TEXT("ab", 2)}, 1},
    {S(string_split), 1, 2, {{T, 2, {2, 3}}}, {T, I}, 1, 0, {2}, {0}, 0, {0}, {TEXT("", 0)}, 1},
    {S(string_normalize), 1, 1, {{T, 1, {6}}}, {T}, 2, 0, {2, 0}, {0}, 0, {0}, {TEXT("ab", 2), TEXT("B", 1)}, 2},
    {S(string_concat), 2, 1, {{T, 2, {2, 3}}, {T, 1, {3}}}, {T}},
    {S(string_equal), 2, 1, {{T, 2, {2, 1}}, {T, 1, {3}}}, {LAPIDARY_BOOL}},
};

static lap_tensor made(const operand *o);

static lap_tensor made_map(const operand *o) {
    operand key = *o, value = *o;
    key.dtype = I;
    value.dtype = F;
    if (below(20)) key.rank = value.rank = 1;
    lap_tensor parts[] = {made(&key), made(&value)};
    int64_t bytes[2], used;
    for (int i = 0; i < 2; i++) {
        lap_contiguous_strides(parts + i);
        bytes[i] = lap_box_bytes(parts + i);
    }
    lap_box *box = exact(lap_box_room(2, bytes[0] + bytes[1]));
    if (!box || lap_count(key.rank, key.dims) < 0) exit(2); /* operands are small */
    lap_box_begin(box, LAP_KIND_MAP, F, 2, &used);
    for (int i = 0; i < 2; used += bytes[i++]) {
        box->at[i] = used;
        lap_box_write((lap_box *)(void *)((char *)box + used), parts + i);
    }
    box->bytes = used;
    return (lap_tensor){.dtype = F, .rank = -1, .buffer = -1, .kind = LAP_KIND_MAP, .data = box};
}

static lap_tensor made(const operand *o) {
    lap_tensor t = {.dtype = o->dtype, .rank = o->rank, .buffer = -1};
    memcpy(t.dims, o->dims, sizeof o->dims);
    if (o->dtype == MAP) return made_map(o);
    int64_t n = lap_count(t.rank, t.dims);
    if (n < 0) return t; /* the runtime never makes such; kernels refuse it */
    if (t.dtype == LAPIDARY_STRING) {
        lapidary_strings *s = exact(sizeof *s);
        int64_t *offsets = exact(8 * (n + 1));
        char *bytes = exact(n * 3);
        offsets[0] = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t length = below(4);
            offsets[i + 1] = offsets[i] + length;
            for (int64_t k = 0; k < length; k++) bytes[offsets[i] + k] = (char)('a' + below(2));
        }
        *s = (lapidary_strings){offsets, bytes};
        t.data = s;
        return t;
    }
    int64_t size = lap_dtype_bytes(t.dtype);
    t.data = exact(n * size);
    if (!t.data) {
        t.dims[0] = 0;
        t.rank = 1;
        t.data = exact(0);
        return t;
    }
    memset(t.data, 0, (size_t)(n * size));
    for (int64_t i = 0; i < n; i++) {
        int64_t whole = i < o->n_values ? o->values[i] : below(5) - 1;
        double v = i < o->n_values ? (double)o->values[i] : below(40) ? (double)below(2000) / 500 - 2 : odd_float();
        if (t.dtype == I) ((int64_t *)t.data)[i] = whole;
        else if (t.dtype == LAPIDARY_BOOL) ((uint8_t *)t.data)[i] = whole > 1;
        else if (lap_is_float(t.dtype)) lap_set_number(&t, i, v);
        else lap_set_number(&t, i, (double)whole);
    }
    return t;
}

/* A few changes to a case. */
static void change(test_case *c) {
    static const int32_t types[] = {F, I, LAPIDARY_F64, LAPIDARY_I32, LAPIDARY_U8, LAPIDARY_BOOL, LAPIDARY_F16, LAPIDARY_STRING, LAPIDARY_C64,
                                    LAPIDARY_F8E5M2, 99, LAPIDARY_U64};
    operand *o = c->in + below(c->n_in);
    switch (below(9)) {
    case 0: o->dims[below(4)] = below(9); break;
    case 1: o->rank = (int32_t)below(6); break;
    case 2: o->dtype = types[below(12)]; break;
    case 3:
        if (o->n_values) o->values[below(o->n_values)] = below(2) ? odd_int() : below(7) - 2;
        else o->n_values = o->dtype == I ? 1 : 0;
        break;
    case 4: c->ints[below(24)] = below(2) ? odd_int() : below(5) - 1; break;
    case 5: c->floats[below(16)] = odd_float(); break;
    case 6: o->dtype = Z; break;
    case 7: c->n_in = (int32_t)below(c->n_in + 1) + (below(4) ? 1 : 0); c->n_in = c->n_in > 8 ? 8 : c->n_in; break;
    default: { /* all operands of the first one's type */
        int32_t from = c->in[0].dtype, to = types[below(12)];
        for (int i = 0; i < 8; i++) c->in[i].dtype = c->in[i].dtype == from ? to : c->in[i].dtype;
        for (int i = 0; i < 4; i++) c->out[i] = c->out[i] == from ? to : c->out[i];
    }
    }
    if (below(20) == 0) c->n_ints = (int32_t)below(24);
    if (below(20) == 0) c->n_texts = (int32_t)below(c->n_texts + 1);
}

static void run(const test_case *c, int must_work) {
    lap_tensor in[8], out[4] = {0};
    const lap_tensor *inputs[8];
    lap_tensor *outputs[4];
    n_blocks = failed = 0;
    for (int32_t i = 0; i < c->n_in; i++) {
        if (c->in[i].dtype != Z) in[i] = made(c->in + i);
        inputs[i] = c->in[i].dtype != Z ? in + i : NULL;
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        out[i] = (lap_tensor){.dtype = c->out[i], .rank = c->out_rank ? c->out_rank : -1, .buffer = -1};
        memcpy(out[i].dims, c->out_dims, sizeof c->out_dims);
        if (c->out[i] == SEQUENCE) {
            out[i].dtype = F;
            out[i].kind = LAP_KIND_SEQUENCE;
        }
        outputs[i] = out + i;
    }
    int64_t *ints = exact(8 * c->n_ints);
    double *floats = exact(8 * c->n_floats);
    memcpy(ints, c->ints, 8 * (size_t)c->n_ints);
    memcpy(floats, c->floats, 8 * (size_t)c->n_floats);
    lap_bytes *texts = exact((int64_t)sizeof *texts * c->n_texts);
    for (int32_t i = 0; i < c->n_texts; i++) {
        void *text = exact(c->texts[i].bytes);
        memcpy(text, c->texts[i].data, (size_t)c->texts[i].bytes);
        texts[i] = (lap_bytes){text, c->texts[i].bytes};
    }
    lap_attrs attrs = {ints, floats, texts, c->n_ints, c->n_floats, c->n_texts, 0};
    /* Each level that the processor has, in turn. */
    static lap_context context;
    context.level = context.level < highest_level() ? context.level + 1 : 0;
    int32_t code = c->fn(&context, inputs, c->n_in, outputs, c->n_out, &attrs, 0);
    if (must_work && code) {
        printf("%s: %s\n", c->name, why);
        exit(1);
    }
    if (code && !failed) {
        printf("%s: code %d without an error\n", c->name, (int)code);
        exit(1);
    }
    for (int32_t i = 0; !code && i < c->n_out; i++) {
        if (!out[i].data) {
            printf("%s: output %d was not made\n", c->name, (int)i);
            exit(1);
        }
    }
    for (int i = 0; i < n_blocks; i++) free(blocks[i]);
}

/* ---- records of trees ---------------------------------------------------------------------------- */

static FILE *records;
static void *part(int64_t bytes) {
    void *p = exact(bytes);
    if (!p || fread(p, 1, (size_t)bytes, records) != (size_t)bytes) {
        puts("a record of trees is cut short");
        exit(2);
    }
    return p;
}
static int64_t word(void) { return *(int64_t *)part(8); }

/* One ensemble over its rows, at each level: a line of scores and then labels. The file has type, rows and columns of the
 * features, the kind of labels, the numbers of ints, floats and strings, these (strings with their sizes), and the features;
 * numbers are words of 64 bits. */
static void trees(void) {
    n_blocks = failed = 0;
    lap_tensor x = {.dtype = (int32_t)word(), .rank = 2, .buffer = -1};
    x.dims[0] = word(), x.dims[1] = word();
    int32_t labels = (int32_t)word();
    lap_attrs attrs = {.n_ints = (int32_t)word()};
    attrs.n_floats = (int32_t)word(), attrs.n_strings = (int32_t)word();
    attrs.ints = part(8 * attrs.n_ints);
    attrs.floats = part(8 * attrs.n_floats);
    lap_bytes *strings = exact((int64_t)sizeof *strings * attrs.n_strings);
    for (int32_t i = 0; i < attrs.n_strings; i++) {
        strings[i].bytes = word();
        strings[i].data = part(strings[i].bytes);
    }
    attrs.strings = strings;
    x.data = part(x.dims[0] * x.dims[1] * lap_dtype_bytes(x.dtype));
    static lap_context context;
    for (context.level = 0; context.level <= highest_level(); context.level++) {
        static const int32_t types[] = {Z, I, T};
        lap_tensor label = {.dtype = types[labels], .rank = -1, .buffer = -1}, scores = {.dtype = x.dtype, .rank = -1, .buffer = -1};
        const lap_tensor *inputs[] = {&x};
        lap_tensor *both[] = {&label, &scores}, *one[] = {&scores};
        if (lap_lib_trees(&context, inputs, 1, labels ? both : one, labels ? 2 : 1, &attrs, 0)) {
            printf("trees: %s\n", why);
            exit(1);
        }
        for (int64_t i = 0; i < scores.dims[0] * scores.dims[1]; i++) printf("%.17g ", lap_number(&scores, i));
        for (int64_t i = 0; labels && i < label.dims[0]; i++) {
            if (labels == 1) {
                printf("%lld ", (long long)((int64_t *)label.data)[i]);
            } else {
                const lapidary_strings *s = label.data;
                printf("%.*s ", (int)(s->offsets[i + 1] - s->offsets[i]), s->bytes + s->offsets[i]);
            }
        }
        puts("");
    }
    for (int i = 0; i < n_blocks; i++) free(blocks[i]);
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "--trees")) {
        records = fopen(argv[2], "rb");
        if (!records) return 2;
        for (int c; (c = getc(records)) != EOF;) {
            ungetc(c, records);
            trees();
        }
        puts("ok");
        return 0;
    }
    int64_t rounds = argc > 1 ? atoll(argv[1]) : 300;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 88172645463325252u;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc > 3 && strcmp(argv[3], cases[i].name)) continue;
        run(cases + i, 1);
        for (int64_t r = 0; r < rounds; r++) {
            test_case c = cases[i];
            for (int64_t k = below(4); k >= 0; k--) change(&c);
            run(&c, 0);
        }
    }
    puts("ok");
    return 0;
}
