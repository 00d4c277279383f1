/* Ensembles of trees. The record, its forms and why the walk has no branches: compiler/lower/src/trees.rs.
 *
 * Eight trees are walked at once, so that the latency of a step (node, feature, comparison) is hidden behind
 * those of the other seven. With several rows a group of eight trees, some 20 KB, is walked by all rows of
 * a task before the next one. */
#include "lap_library.h"

#define LANES 8
#define ROWS 16 /* of a task */

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
typedef struct tree_group {
    uint32_t roots[LANES];
    uint32_t least, most; /* steps to a leaf */
} tree_group;
typedef struct plain_node {
    uint32_t test, feature;
    float threshold;
    uint32_t yes, no, reserved;
} plain_node;
typedef struct vote {
    uint32_t target;
    float weight;
} vote;

typedef struct forest {
    const void *nodes;
    const uint8_t *missing;
    const void *groups;
    const uint32_t *leaves;
    const vote *votes;
    const double *base;
    int64_t form, features, targets, groups_n, trees, aggregate, post, n_base;
    int64_t rows, row_length;
    const float *x;
    float *scores;
    int64_t *best; /* of each row, or NULL */
} forest;

static void vote_for(const forest *f, double *sums, uint32_t target, float threshold) {
    if (target < (uint32_t)f->targets) {
        sums[target] += (double)threshold;
        return;
    }
    uint32_t leaf;
    memcpy(&leaf, &threshold, 4);
    const vote *v = f->votes + f->leaves[2 * leaf];
    for (uint32_t k = f->leaves[2 * leaf + 1]; k > 0; k--, v++) sums[v->target] += (double)v->weight;
}

#define NEXT8(i) STEP(i##0) STEP(i##1) STEP(i##2) STEP(i##3) STEP(i##4) STEP(i##5) STEP(i##6) STEP(i##7)

/* A group over one row; `x` ends in minus infinities. */
#define WALK(name, node, FEATURE, LINK)                                                                \
    static void name(const forest *f, const tree_group *g, const float *x, double *sums) {             \
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
            vote_for(f, sums, (uint32_t)(FEATURE) - (uint32_t)f->features, n.threshold);               \
        }                                                                                              \
    }                                                                                                  \
    /* The same for rows that have a NaN. */                                                           \
    static void name##_missing(const forest *f, const tree_group *g, const float *x, double *sums) {   \
        const node *nodes = f->nodes;                                                                  \
        for (int k = 0; k < LANES; k++) {                                                              \
            uint32_t i = g->roots[k];                                                                  \
            for (;;) {                                                                                 \
                node n = nodes[i];                                                                     \
                float v = x[FEATURE];                                                                  \
                if ((FEATURE) >= f->features) break;                                                   \
                int right = !(v <= n.threshold);                                                       \
                if (v != v && (f->missing[i / 8] >> i % 8 & 1)) right = 0;                             \
                i = (LINK) + (uint32_t)right;                                                          \
            }                                                                                          \
            node n = nodes[i];                                                                         \
            vote_for(f, sums, (uint32_t)(FEATURE) - (uint32_t)f->features, n.threshold);               \
        }                                                                                              \
    }

#define STEP(i)                                                                                        \
    {                                                                                                  \
        uint32_t link = nodes[i].link;                                                                 \
        i = (link >> 8) + (uint32_t)!(x[link & 0xff] <= nodes[i].threshold);                           \
    }
WALK(walk8, node8, (n.link & 0xff), (n.link >> 8))
#undef STEP
#define STEP(i)                                                                                        \
    {                                                                                                  \
        uint32_t link = nodes[i].link;                                                                 \
        i = (link >> 14) + (uint32_t)!(x[link & 0x3fff] <= nodes[i].threshold);                        \
    }
WALK(walk14, node8, (n.link & 0x3fff), (n.link >> 14))
#undef STEP
#define STEP(i) i = nodes[i].link + (uint32_t)!(x[nodes[i].feature] <= nodes[i].threshold);
WALK(walk32, node16, (n.feature), (n.link))

/* All plain trees over one row. */
static void walk_plain(const forest *f, const float *x, double *sums, uint8_t *seen) {
    const plain_node *nodes = f->nodes;
    const uint32_t *roots = f->groups;
    memset(seen, 0, (size_t)f->targets);
    for (int64_t t = 0; t < f->trees; t++) {
        const plain_node *n = nodes + roots[t];
        while ((n->test & 7) != 6) {
            float v = x[n->feature], limit = n->threshold;
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
            double w = (double)v->weight, *s = sums + v->target;
            if (!seen[v->target]) *s = w;
            else if (f->aggregate < 2) *s += w;
            else if (f->aggregate == 2) *s = w < *s ? w : *s;
            else *s = w > *s ? w : *s;
            seen[v->target] = 1;
        }
    }
}

static void finish_row(const forest *f, int64_t row, double *sums) {
    int64_t n = f->targets, best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (f->aggregate == 1) sums[i] /= f->trees > 0 ? (double)f->trees : 1;
        if (i < f->n_base) sums[i] += f->base[i];
    }
    for (int64_t i = 1; i < n; i++) best = sums[i] > sums[best] ? i : best;
    if (f->best) f->best[row] = best;
    lap_post_transform(sums, n, (int)f->post);
    float *to = f->scores + row * n;
    for (int64_t i = 0; i < n; i++) to[i] = (float)sums[i];
}

/* Scratch of a worker: rows of features and infinities, then of sums, then what is seen. */
static int64_t row_floats(const forest *f) { return (f->features + f->targets + 1 + 15) & ~(int64_t)15; }
static int64_t scratch_of(const forest *f, int64_t rows) {
    return rows * (4 * row_floats(f) + 8 * f->targets) + f->targets + 64;
}

static void tree_rows(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const forest *f = buffers[0];
    int64_t width = row_floats(f);
    (void)dims;
    for (int64_t task = begin; task < end; task++) {
        int64_t first = task * ROWS, rows = lap_min(ROWS, f->rows - first);
        float *x = (float *)(void *)worker->scratch;
        double *sums = (double *)(void *)(x + rows * width);
        uint8_t *seen = (uint8_t *)(sums + rows * f->targets);
        memset(sums, 0, (size_t)(8 * rows * f->targets));
        uint32_t missing = 0;
        for (int64_t r = 0; r < rows; r++) {
            const float *from = f->x + (first + r) * f->row_length;
            float *to = x + r * width;
            int nan = 0;
            for (int64_t i = 0; i < f->features; i++) {
                to[i] = from[i];
                nan |= from[i] != from[i];
            }
            for (int64_t i = f->features; i < width; i++) to[i] = -INFINITY;
            missing |= (uint32_t)nan << r;
        }
        if (f->form == 3) {
            for (int64_t r = 0; r < rows; r++) walk_plain(f, x + r * width, sums + r * f->targets, seen);
        } else {
            static void (*const walks[])(const forest *, const tree_group *, const float *, double *) = {
                walk8, walk14, walk32, walk8_missing, walk14_missing, walk32_missing};
            const tree_group *groups = f->groups;
            for (int64_t g = 0; g < f->groups_n; g++) {
                for (int64_t r = 0; r < rows; r++) {
                    walks[f->form + (missing >> r & 1 ? 3 : 0)](f, groups + g, x + r * width, sums + r * f->targets);
                }
            }
        }
        for (int64_t r = 0; r < rows; r++) finish_row(f, first + r, sums + r * f->targets);
    }
}

LAP_LIBRARY_KERNEL(lap_lib_trees) {
    EXPECT(1, 1, 9, 0);
    const lap_tensor *x = in[0];
    NEED(at->n_strings >= 5, "the record of the trees has {a} parts, expected {b} or more", at->n_strings, 5);
    NEED(x->dtype == LAPIDARY_F32, "features of type {a}, expected f32 ({b})", x->dtype, LAPIDARY_F32);
    NEED(x->rank == 2, "features of rank {a}, expected {b}", x->rank, 2);
    forest f = {
        .nodes = at->strings[0].data, .missing = (const uint8_t *)at->strings[1].data,
        .groups = at->strings[2].data, .leaves = (const uint32_t *)(const void *)at->strings[3].data,
        .votes = (const vote *)(const void *)at->strings[4].data, .base = at->floats,
        .form = at->ints[0], .features = at->ints[1], .targets = at->ints[2], .groups_n = at->ints[3],
        .trees = at->ints[4], .aggregate = at->ints[6], .post = at->ints[7], .n_base = at->n_floats,
        .rows = x->dims[0], .row_length = x->dims[1], .x = x->data};
    int64_t labels = at->ints[8];
    NEED(f.features <= f.row_length, "the trees read {a} features, the input has {b}", f.features, f.row_length);
    NEED(n_out >= (labels ? 2 : 1) && f.form >= 0 && f.form <= 3 && f.targets >= 0, "a bad record of trees", 0, 0);
    lap_tensor *scores = out[labels ? 1 : 0], *label = labels ? out[0] : NULL;
    int64_t size[] = {f.rows, f.targets};
    if (scores) {
        NEED(scores->dtype == LAPIDARY_F32, "scores of type {a}, expected f32 ({b})", scores->dtype, LAPIDARY_F32);
        TRY(lap_output_alloc(ctx, scores, 2, size, node_id));
        f.scores = scores->data;
    } else {
        TEMP(float, own, f.rows * f.targets);
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
        NEED(at->n_ints >= 9 + n, "{a} labels for {b} classes", at->n_ints - 9, n);
        NEED(label->dtype == LAPIDARY_I64, "labels of type {a}, expected i64 ({b})", label->dtype, LAPIDARY_I64);
        TRY(lap_output_alloc(ctx, label, 1, size, node_id));
        int64_t *to = label->data;
        for (int64_t i = 0; i < f.rows; i++) to[i] = n > 0 ? at->ints[9 + f.best[i]] : 0;
        return LAPIDARY_OK;
    }
    NEED(at->n_strings >= 5 + n && n > 0, "{a} labels for {b} classes", at->n_strings - 5, n);
    NEED(label->dtype == LAPIDARY_STRING, "labels of type {a}, expected string ({b})", label->dtype, LAPIDARY_STRING);
    int64_t bytes = 0;
    for (int64_t i = 0; i < f.rows; i++) bytes += at->strings[5 + f.best[i]].bytes;
    TRY(lap_output_alloc_strings(ctx, label, 1, size, bytes, node_id));
    lapidary_strings *strings = label->data;
    int64_t *offsets = (int64_t *)(uintptr_t)strings->offsets;
    for (int64_t i = 0; i < f.rows; i++) {
        lap_bytes s = at->strings[5 + f.best[i]];
        memcpy((char *)(uintptr_t)strings->bytes + offsets[i], s.data, (size_t)s.bytes);
        offsets[i + 1] = offsets[i] + s.bytes;
    }
    return LAPIDARY_OK;
}
