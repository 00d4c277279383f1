/* Ensembles of trees. The record, its forms and why the walk has no branches: compiler/lower/src/trees.rs.
 *
 * Eight trees are walked at once, so that the latency of a step (node, feature, comparison) is hidden behind
 * those of the other seven. With several rows a group of eight trees, some 20 KB, is walked by all rows of
 * a task before the next one. Small trees have a second form, in which all rows of a task go through a tree at once. */
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "lap_library.h"

#define LANES 8
#define PARTS 9 /* of the record, before the labels */
#define ROWS 16 /* of a task, and lanes of the flat form */

typedef struct node8 {
    float threshold;
    uint32_t link; /* feature, and above it the left child; right is behind left */
} node8;
typedef struct node16 {
    float threshold;
    uint32_t feature;
    uint32_t link;
    uint32_t reserved;
} node16;
typedef struct node_f64 {
    double threshold;
    uint32_t feature;
    uint32_t link;
} node_f64;
typedef struct tree_group {
    uint32_t roots[LANES];
    uint32_t least, most; /* steps to a leaf */
} tree_group;
typedef struct plain_node {
    uint32_t test, feature, yes, no;
    double threshold;
} plain_node;
typedef struct vote {
    uint32_t target, reserved;
    double weight;
} vote;

typedef struct flat_tree {
    uint32_t fails, passes, targets, leaves; /* branches that NaN fails, those that it passes */
} flat_tree;
typedef struct flat_branch {
    float threshold;
    uint32_t feature;
    uint32_t mask[2]; /* of the leaves that are left when the test fails */
} flat_branch;

typedef struct forest {
    const flat_tree *flat;
    const flat_branch *flat_branches;
    const uint32_t *flat_targets;
    const float *flat_weights;
    int64_t flat_rows;
    const void *nodes;
    const uint8_t *missing;
    const void *groups;
    const uint32_t *leaves;
    const vote *votes;
    const double *base;
    int64_t form, features, targets, groups_n, trees, aggregate, post, n_base;
    int64_t rows, row_length;
    int32_t dtype; /* of features and scores: f32 or f64 */
    const void *x;
    void *scores;
    int64_t *best; /* of each row, or NULL */
} forest;

static void vote_for(const forest *f, double *sums, uint32_t target, double threshold) {
    if (target < (uint32_t)f->targets) {
        sums[target] += threshold;
        return;
    }
    uint32_t leaf = (uint32_t)threshold;
    const vote *v = f->votes + f->leaves[2 * leaf];
    for (uint32_t k = f->leaves[2 * leaf + 1]; k > 0; k--, v++) sums[v->target] += v->weight;
}

#define NEXT8(i) STEP(i##0) STEP(i##1) STEP(i##2) STEP(i##3) STEP(i##4) STEP(i##5) STEP(i##6) STEP(i##7)

/* A group over one row; `x` ends in minus infinities. */
#define WALK(name, node, real, FEATURE, LINK)                                                          \
    static void name(const forest *f, const tree_group *g, const void *row, double *sums) {            \
        const real *x = row;                                                                           \
        const node *nodes = f->nodes;                                                                  \
        uint32_t i0 = g->roots[0], i1 = g->roots[1], i2 = g->roots[2], i3 = g->roots[3];               \
        uint32_t i4 = g->roots[4], i5 = g->roots[5], i6 = g->roots[6], i7 = g->roots[7];               \
        for (uint32_t s = g->least; s > 0; s--) {                                                      \
            NEXT8(i)                                                                                   \
        }                                                                                              \
        for (uint32_t s = g->least; s < g->most; s += 2) {                                             \
            NEXT8(i)                                                                                   \
            uint32_t o0 = i0, o1 = i1, o2 = i2, o3 = i3, o4 = i4, o5 = i5, o6 = i6, o7 = i7;           \
            NEXT8(i)                                                                                   \
            if (!((o0 ^ i0) | (o1 ^ i1) | (o2 ^ i2) | (o3 ^ i3) | (o4 ^ i4) | (o5 ^ i5) | (o6 ^ i6) |  \
                  (o7 ^ i7)))                                                                          \
                break;                                                                                 \
        }                                                                                              \
        const uint32_t at[LANES] = {i0, i1, i2, i3, i4, i5, i6, i7};                                   \
        for (int k = 0; k < LANES; k++) {                                                              \
            node n = nodes[at[k]];                                                                     \
            vote_for(f, sums, (uint32_t)(FEATURE) - (uint32_t)f->features, (double)n.threshold);       \
        }                                                                                              \
    }                                                                                                  \
    /* The same for rows that have a NaN. */                                                           \
    static void name##_missing(const forest *f, const tree_group *g, const void *row, double *sums) {  \
        const real *x = row;                                                                           \
        const node *nodes = f->nodes;                                                                  \
        for (int k = 0; k < LANES; k++) {                                                              \
            uint32_t i = g->roots[k];                                                                  \
            for (;;) {                                                                                 \
                node n = nodes[i];                                                                     \
                real v = x[FEATURE];                                                                   \
                if ((FEATURE) >= f->features) break;                                                   \
                int right = !(v <= n.threshold);                                                       \
                if (v != v && (f->missing[i / 8] >> i % 8 & 1)) right = 0;                             \
                i = (LINK) + (uint32_t)right;                                                          \
            }                                                                                          \
            node n = nodes[i];                                                                         \
            vote_for(f, sums, (uint32_t)(FEATURE) - (uint32_t)f->features, (double)n.threshold);       \
        }                                                                                              \
    }

#define STEP(i)                                                                                        \
    {                                                                                                  \
        uint32_t link = nodes[i].link;                                                                 \
        i = (link >> 8) + (uint32_t)!(x[link & 0xff] <= nodes[i].threshold);                           \
    }
WALK(walk8, node8, float, (n.link & 0xff), (n.link >> 8))
#undef STEP
#define STEP(i)                                                                                        \
    {                                                                                                  \
        uint32_t link = nodes[i].link;                                                                 \
        i = (link >> 14) + (uint32_t)!(x[link & 0x3fff] <= nodes[i].threshold);                        \
    }
WALK(walk14, node8, float, (n.link & 0x3fff), (n.link >> 14))
#undef STEP
#define STEP(i) i = nodes[i].link + (uint32_t)!(x[nodes[i].feature] <= nodes[i].threshold);
WALK(walk32, node16, float, (n.feature), (n.link))
WALK(walk_f64, node_f64, double, (n.feature), (n.link))

static void finish_row(const forest *f, int64_t row, double *sums) {
    int64_t n = f->targets, best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (f->aggregate == 1) sums[i] /= f->trees > 0 ? (double)f->trees : 1;
        if (i < f->n_base) sums[i] += f->base[i];
    }
    for (int64_t i = 1; i < n; i++) best = sums[i] > sums[best] ? i : best;
    if (f->best) f->best[row] = best;
    lap_post_transform(sums, n, (int)f->post);
    if (f->dtype == LAPIDARY_F64) {
        memcpy((double *)f->scores + row * n, sums, (size_t)(8 * n));
        return;
    }
    float *to = (float *)f->scores + row * n;
    for (int64_t i = 0; i < n; i++) to[i] = (float)sums[i];
}

/* ---- the flat form ------------------------------------------------------------------------------- */

typedef float lanes_f32 __attribute__((vector_size(4 * ROWS), aligned(4)));
typedef int32_t lanes_i32 __attribute__((vector_size(4 * ROWS), aligned(4)));
typedef uint32_t lanes_u32 __attribute__((vector_size(4 * ROWS), aligned(4)));
typedef double lanes_f64 __attribute__((vector_size(8 * ROWS), aligned(8)));

/* The place of the lowest bit that is set, by the exponent of its number; of 0: below 0. */
#define FIRST_BIT(bits)                                                                                \
    ((lanes_i32)((lanes_u32)__builtin_convertvector((lanes_u32)(bits) & -(lanes_u32)(bits), lanes_f32) >> 23) - 127)

/* All trees over ROWS rows: features `x[feature][row]`, `sums[target][row]`. */
#define FLAT(name, attributes, PICK)                                                                   \
    attributes static void name(const forest *f, const float *x, double *sums) {                       \
        const flat_tree *t = f->flat;                                                                  \
        const flat_branch *b = f->flat_branches;                                                       \
        const uint32_t *target = f->flat_targets;                                                      \
        const float *weight = f->flat_weights;                                                         \
        for (int64_t i = 0; i < f->trees; i++, t++) {                                                  \
            lanes_i32 low = {0}, high = {0}, leaf;                                                     \
            low = ~low, high = ~high;                                                                  \
            const flat_branch *end = b + t->fails, *last = end + t->passes;                            \
            if (t->leaves <= 32) {                                                                     \
                for (; b < end; b++) low &= (FEATURE <= b->threshold) | (int32_t)b->mask[0];           \
                for (; b < last; b++) low &= ~(FEATURE > b->threshold) | (int32_t)b->mask[0];          \
                leaf = FIRST_BIT(low);                                                                 \
            } else {                                                                                   \
                for (; b < last; b++) {                                                                \
                    lanes_i32 left = b < end ? FEATURE <= b->threshold : ~(FEATURE > b->threshold);    \
                    low &= left | (int32_t)b->mask[0];                                                 \
                    high &= left | (int32_t)b->mask[1];                                                \
                }                                                                                      \
                lanes_i32 none = low == 0;                                                             \
                leaf = (none & (FIRST_BIT(high) + 32)) | (~none & FIRST_BIT(low));                     \
            }                                                                                          \
            for (uint32_t k = 0; k < t->targets; k++, target++, weight += t->leaves) {                 \
                lanes_f32 votes;                                                                       \
                PICK(weight, t->leaves, &leaf, &votes);                                                \
                *(lanes_f64 *)(sums + ROWS * *target) += __builtin_convertvector(votes, lanes_f64);    \
            }                                                                                          \
        }                                                                                              \
    }
#define FEATURE (*(const lanes_f32 *)(x + ROWS * b->feature))

static inline void pick(const float *weights, uint32_t leaves, const lanes_i32 *leaf, lanes_f32 *votes) {
    (void)leaves;
    for (int r = 0; r < ROWS; r++) (*votes)[r] = weights[(*leaf)[r]];
}
FLAT(flat_any, , pick)
#if defined(__x86_64__)
FLAT(flat_avx2, __attribute__((target("avx2"))), pick)

/* Reads whole vectors: 64 weights from the first on are there (the record ends in zeros). */
__attribute__((target("avx512f"))) static inline void pick_avx512(
    const float *weights, uint32_t leaves, const lanes_i32 *leaf, lanes_f32 *votes) {
    __m512i at = _mm512_loadu_si512(leaf);
    __m512 v = _mm512_permutex2var_ps(_mm512_loadu_ps(weights), at, _mm512_loadu_ps(weights + 16));
    if (leaves > 32) {
        __m512 more = _mm512_permutex2var_ps(_mm512_loadu_ps(weights + 32), at, _mm512_loadu_ps(weights + 48));
        v = _mm512_mask_blend_ps(_mm512_test_epi32_mask(at, _mm512_set1_epi32(32)), v, more);
    }
    _mm512_storeu_ps(votes, v);
}
FLAT(flat_avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd"))), pick_avx512)
#endif
#undef FEATURE

/* A task in the flat form; rows that are not there are zeros. */
static void flat_task(const forest *f, int64_t first, int64_t rows, lap_worker *worker) {
    float *x = (float *)(void *)worker->scratch;
    double *sums = (double *)(void *)(x + ROWS * f->features);
    const float *from = (const float *)f->x + first * f->row_length;
    memset(x, 0, (size_t)(ROWS * (4 * f->features + 8 * f->targets)));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < f->features; i++) x[ROWS * i + r] = from[r * f->row_length + i];
    }
#if defined(__x86_64__)
    int32_t level = worker->level;
    (level == LAPIDARY_LEVEL_V4 ? flat_avx512 : level == LAPIDARY_LEVEL_V3 ? flat_avx2 : flat_any)(f, x, sums);
#else
    flat_any(f, x, sums);
#endif
    double *row = sums + ROWS * f->targets;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < f->targets; i++) row[i] = sums[ROWS * i + r];
        finish_row(f, first + r, row);
    }
}

/* ---- plain nodes --------------------------------------------------------------------------------- */

/* All plain trees over one row. */
static void walk_plain(const forest *f, const double *x, double *sums, uint8_t *seen) {
    const plain_node *nodes = f->nodes;
    const uint32_t *roots = f->groups;
    memset(seen, 0, (size_t)f->targets);
    for (int64_t t = 0; t < f->trees; t++) {
        const plain_node *n = nodes + roots[t];
        while ((n->test & 7) != 6) {
            double v = x[n->feature], limit = n->threshold;
            int yes;
            switch (n->test & 7) {
            case 0: yes = v <= limit; break;
            case 1: yes = v < limit; break;
            case 2: yes = v >= limit; break;
            case 3: yes = v > limit; break;
            case 4: yes = v == limit; break;
            default: yes = v != limit; break;
            }
            if (v != v && n->test & 8) yes = 1;
            n = nodes + (yes ? n->yes : n->no);
        }
        for (uint32_t k = 0; k < n->no; k++) {
            const vote *v = f->votes + n->yes + k;
            double w = v->weight, *s = sums + v->target;
            if (!seen[v->target]) *s = w;
            else if (f->aggregate < 2) *s += w;
            else if (f->aggregate == 2) *s = w < *s ? w : *s;
            else *s = w > *s ? w : *s;
            seen[v->target] = 1;
        }
    }
}

/* Scratch of a worker: rows of features and infinities (plain nodes and those of f64 read doubles), then of sums, then
 * what is seen. */
static int64_t row_bytes(const forest *f) {
    int64_t reals = (f->features + f->targets + 1 + 15) & ~(int64_t)15;
    return reals * (f->form >= 3 ? 8 : 4);
}
static int64_t scratch_of(const forest *f, int64_t rows) {
    int64_t walk = rows * (row_bytes(f) + 8 * f->targets) + f->targets + 64;
    return f->flat_rows ? lap_max(walk, ROWS * (4 * f->features + 8 * f->targets) + 8 * f->targets) : walk;
}

/* A row of features of type `from` as `to`, and infinities behind; gives whether one is missing. */
#define FILL(name, from, to)                                                                           \
    static int name(const forest *f, int64_t r, void *row, int64_t bytes) {                            \
        const from *x = (const from *)f->x + r * f->row_length;                                        \
        to *y = row;                                                                                   \
        int nan = 0;                                                                                   \
        for (int64_t i = 0; i < f->features; i++) {                                                    \
            y[i] = (to)x[i];                                                                           \
            nan |= x[i] != x[i];                                                                       \
        }                                                                                              \
        for (int64_t i = f->features; i < bytes / (int64_t)sizeof(to); i++) y[i] = -(to)INFINITY;      \
        return nan;                                                                                    \
    }
FILL(fill_f32, float, float)
FILL(fill_widened, float, double)
FILL(fill_f64, double, double)

static void tree_rows(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const forest *f = buffers[0];
    int64_t width = row_bytes(f);
    int (*fill)(const forest *, int64_t, void *, int64_t) = f->form < 3 ? fill_f32 : f->dtype == LAPIDARY_F64 ? fill_f64 : fill_widened;
    (void)dims;
    for (int64_t task = begin; task < end; task++) {
        int64_t first = task * ROWS, rows = lap_min(ROWS, f->rows - first);
        if (f->flat_rows && rows >= f->flat_rows) {
            flat_task(f, first, rows, worker);
            continue;
        }
        char *x = (char *)worker->scratch;
        double *sums = (double *)(void *)(x + rows * width);
        uint8_t *seen = (uint8_t *)(sums + rows * f->targets);
        memset(sums, 0, (size_t)(8 * rows * f->targets));
        uint32_t missing = 0;
        for (int64_t r = 0; r < rows; r++) {
            missing |= (uint32_t)fill(f, first + r, x + r * width, width) << r;
        }
        if (f->form == 3) {
            for (int64_t r = 0; r < rows; r++) walk_plain(f, (const double *)(void *)(x + r * width), sums + r * f->targets, seen);
        } else {
            static void (*const walks[])(const forest *, const tree_group *, const void *, double *) = {
                walk8, walk14, walk32, NULL, walk_f64, walk8_missing, walk14_missing, walk32_missing, NULL, walk_f64_missing};
            const tree_group *groups = f->groups;
            for (int64_t g = 0; g < f->groups_n; g++) {
                for (int64_t r = 0; r < rows; r++) {
                    walks[f->form + (missing >> r & 1 ? 5 : 0)](f, groups + g, x + r * width, sums + r * f->targets);
                }
            }
        }
        for (int64_t r = 0; r < rows; r++) finish_row(f, first + r, sums + r * f->targets);
    }
}

LAP_LIBRARY_KERNEL(lap_lib_trees) {
    EXPECT(1, 1, 10, 0);
    const lap_tensor *x = in[0];
    NEED(at->n_strings >= PARTS, "the record of the trees has {a} parts, expected {b} or more", at->n_strings, PARTS);
    NEED(x->dtype == LAPIDARY_F32 || x->dtype == LAPIDARY_F64, "features of type {a}, expected f32 or f64", x->dtype, 0);
    NEED(x->rank == 2, "features of rank {a}, expected {b}", x->rank, 2);
    forest f = {
        .nodes = at->strings[0].data, .missing = (const uint8_t *)at->strings[1].data,
        .groups = at->strings[2].data, .leaves = (const uint32_t *)(const void *)at->strings[3].data,
        .votes = (const vote *)(const void *)at->strings[4].data, .base = at->floats,
        .form = at->ints[0], .features = at->ints[1], .targets = at->ints[2], .groups_n = at->ints[3],
        .trees = at->ints[4], .aggregate = at->ints[6], .post = at->ints[7], .n_base = at->n_floats,
        .dtype = x->dtype,
        .rows = x->dims[0], .row_length = x->dims[1], .x = x->data};
    f.flat = (const flat_tree *)(const void *)at->strings[5].data;
    f.flat_branches = (const flat_branch *)(const void *)at->strings[6].data;
    f.flat_targets = (const uint32_t *)(const void *)at->strings[7].data;
    f.flat_weights = (const float *)(const void *)at->strings[8].data;
    f.flat_rows = at->ints[8];
    int64_t labels = at->ints[9];
    NEED(f.features <= f.row_length, "the trees read {a} features, the input has {b}", f.features, f.row_length);
    NEED(n_out >= (labels ? 2 : 1) && f.form >= 0 && f.form <= 4 && (f.form >= 3 || f.dtype == LAPIDARY_F32) && f.targets >= 0, "a bad record of trees", 0, 0);
    lap_tensor *scores = out[labels ? 1 : 0], *label = labels ? out[0] : NULL;
    int64_t size[] = {f.rows, f.targets};
    if (scores) {
        NEED(scores->dtype == f.dtype, "scores of type {a}, expected that of the features ({b})", scores->dtype, f.dtype);
        TRY(lap_output_alloc(ctx, scores, 2, size, node_id));
        f.scores = scores->data;
    } else {
        TEMP(double, own, f.rows * f.targets);
        f.scores = own;
    }
    if (label) {
        TEMP(int64_t, best, f.rows);
        f.best = best;
    }
    void *buffers[] = {&f};
    double cost = (double)f.rows * (double)at->ints[5] * 0.5;
    TRY(lap_parallel_for(ctx, tree_rows, buffers, NULL, (f.rows + ROWS - 1) / ROWS,
                         scratch_of(&f, lap_min(ROWS, f.rows)), node_id, cost < 1e15 ? (int64_t)cost : INT64_C(1) << 50));
    if (!label) return LAPIDARY_OK;
    int64_t n = f.targets;
    if (labels == 1) {
        NEED(at->n_ints >= 10 + n, "{a} labels for {b} classes", at->n_ints - 10, n);
        NEED(label->dtype == LAPIDARY_I64, "labels of type {a}, expected i64 ({b})", label->dtype, LAPIDARY_I64);
        TRY(lap_output_alloc(ctx, label, 1, size, node_id));
        int64_t *to = label->data;
        for (int64_t i = 0; i < f.rows; i++) to[i] = n > 0 ? at->ints[10 + f.best[i]] : 0;
        return LAPIDARY_OK;
    }
    NEED(at->n_strings >= PARTS + n && n > 0, "{a} labels for {b} classes", at->n_strings - PARTS, n);
    NEED(label->dtype == LAPIDARY_STRING, "labels of type {a}, expected string ({b})", label->dtype, LAPIDARY_STRING);
    int64_t bytes = 0;
    for (int64_t i = 0; i < f.rows; i++) bytes += at->strings[PARTS + f.best[i]].bytes;
    TRY(lap_output_alloc_strings(ctx, label, 1, size, bytes, node_id));
    lapidary_strings *strings = label->data;
    int64_t *offsets = (int64_t *)(uintptr_t)strings->offsets;
    for (int64_t i = 0; i < f.rows; i++) {
        lap_bytes s = at->strings[PARTS + f.best[i]];
        memcpy((char *)(uintptr_t)strings->bytes + offsets[i], s.data, (size_t)s.bytes);
        offsets[i + 1] = offsets[i] + s.bytes;
    }
    return LAPIDARY_OK;
}
