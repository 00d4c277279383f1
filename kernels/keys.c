/* Looking values up among keys: label encoders, categories, vocabularies, n-grams. */
#include "lap_strings.h"

int32_t lap_keys_of(
    lap_context *ctx, const lap_attrs *at, int32_t kind, int32_t part, lap_keys *keys, int32_t node_id) {
    NEED(at && at->n_strings >= part + 3 && kind >= 0 && kind <= 2, "a record without a table of keys", 0, 0);
    const lap_bytes *s = at->strings + part;
    *keys = (lap_keys){.n = s[2].bytes / 8, .kind = kind, .values = (const int64_t *)(const void *)s[2].data};
    if (kind == 0) {
        keys->bytes = s[0].data;
        keys->offsets = (const int64_t *)(const void *)s[1].data;
        NEED(s[1].bytes / 8 == keys->n + 1 && keys->offsets[0] == 0 && keys->offsets[keys->n] == s[0].bytes, "a bad table of keys", 0, 0);
        for (int64_t i = 0; i < keys->n; i++) NEED(keys->offsets[i] <= keys->offsets[i + 1], "a bad table of keys", 0, 0);
    } else {
        NEED(s[0].bytes / 8 == keys->n, "a bad table of keys", 0, 0);
        keys->ints = (const int64_t *)(const void *)s[0].data;
        keys->floats = (const double *)(const void *)s[0].data;
    }
    return LAPIDARY_OK;
}

/* The first key that is not below `v`. */
#define FIRST(below)                                                                                   \
    int64_t low = 0, high = keys->n;                                                                   \
    while (low < high) {                                                                               \
        int64_t mid = (low + high) / 2;                                                                \
        if (below) low = mid + 1;                                                                      \
        else high = mid;                                                                               \
    }                                                                                                  \
    if (low == keys->n) return -1

static lap_bytes key_string(const lap_keys *keys, int64_t i) {
    return (lap_bytes){keys->bytes + keys->offsets[i], keys->offsets[i + 1] - keys->offsets[i]};
}

int64_t lap_find_string(const lap_keys *keys, lap_bytes s) {
    FIRST(lap_bytes_compare(key_string(keys, mid), s) < 0);
    return lap_bytes_compare(key_string(keys, low), s) == 0 ? low : -1;
}

int64_t lap_find_int(const lap_keys *keys, int64_t v) {
    FIRST(keys->ints[mid] < v);
    return keys->ints[low] == v ? low : -1;
}

int64_t lap_find_float(const lap_keys *keys, double v) {
    FIRST(keys->floats[mid] < v);
    return keys->floats[low] == v ? low : -1;
}

/* x -> i64, the value of each element's key. Ints: kind of the keys (0 strings, 1 i64, 2 f64), the value of what is no key,
 * whether that ends the run instead, the value of NaN. Strings: keys, offsets, values. */
LAP_LIBRARY_KERNEL(lap_lib_find) {
    EXPECT(1, 1, 4, 0);
    const lap_tensor *x = in[0];
    lap_keys keys;
    int32_t kind = (int32_t)lap_max(-1, lap_min(at->ints[0], 3));
    TRY(lap_keys_of(ctx, at, kind, 0, &keys, node_id));
    if (kind == 0) TRY(lap_is_strings(ctx, x, 0, node_id));
    else NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    NEED(kind != 1 || !lap_is_float(x->dtype), "elements of type {a}, expected integers", x->dtype, 0);
    NEED(out[0]->dtype == LAPIDARY_I64, "an output of type {a}, expected i64 ({b})", out[0]->dtype, LAPIDARY_I64);
    TRY(lap_output_alloc(ctx, out[0], x->rank, x->dims, node_id));
    int64_t *to = out[0]->data, n = lap_elements(x);
    CLOCK(clock);
    for (int64_t i = 0; i < n; i++) {
        int64_t k;
        TRY(lap_tick(&clock, 1));
        if (kind == 0) {
            k = lap_find_string(&keys, lap_string(x, i));
        } else if (kind == 1) {
            k = lap_find_int(&keys, x->dtype == LAPIDARY_I64 ? ((const int64_t *)x->data)[i] : (int64_t)lap_number(x, i));
        } else {
            double v = lap_number(x, i);
            if (v != v) {
                to[i] = at->ints[3];
                continue;
            }
            k = lap_find_float(&keys, v);
        }
        NEED(k >= 0 || !at->ints[2], "element {a} of {b} is not among the categories", i, n);
        to[i] = k >= 0 ? keys.values[k] : at->ints[1];
    }
    return LAPIDARY_OK;
}

/* ---- n-grams -------------------------------------------------------------------------------------- */

/* x `[C]` or `[N, C]` (strings, i32 or i64) -> f32 `[n]` or `[N, n]`: how often each n-gram of a pool occurs, weighted.
 * Ints: kind of the tokens (0 strings, 1 i64), shortest, longest n-gram, most skipped tokens, n, mode (0 counts, 1 whether
 * any, times weight; 2 counts times weight). Floats: weights (none: 1). Strings: tokens, offsets, numbers of the tokens; then
 * a trie whose root is node 0: where the edges of each node begin (i32, nodes + 1), their tokens (i32, ascending in a
 * node), their ends (i32), the output of each node or -1 (i32). */
LAP_LIBRARY_KERNEL(lap_lib_tfidf) {
    EXPECT(1, 1, 6, 0);
    const lap_tensor *x = in[0];
    lap_keys tokens;
    int32_t kind = at->ints[0] == 0 ? 0 : 1;
    int64_t least = at->ints[1], most = at->ints[2], skip = at->ints[3], width = at->ints[4], mode = at->ints[5];
    TRY(lap_keys_of(ctx, at, kind, 0, &tokens, node_id));
    NEED(at->n_strings >= 7, "the record has {a} parts, expected {b}", at->n_strings, 7);
    int64_t nodes = at->strings[3].bytes / 4 - 1, edges = at->strings[4].bytes / 4;
    const int32_t *begin = (const int32_t *)(const void *)at->strings[3].data;
    const int32_t *token = (const int32_t *)(const void *)at->strings[4].data;
    const int32_t *end = (const int32_t *)(const void *)at->strings[5].data;
    const int32_t *output = (const int32_t *)(const void *)at->strings[6].data;
    NEED(nodes >= 1 && at->strings[5].bytes / 4 == edges && at->strings[6].bytes / 4 == nodes && begin[nodes] == edges &&
             width >= 0 && least >= 1 && skip >= 0 && (at->n_floats == 0 || at->n_floats == width),
         "a bad record of n-grams", 0, 0);
    NEED(x->rank == 1 || x->rank == 2, "tokens of rank {a}, expected 1 or {b}", x->rank, 2);
    if (kind == 0) TRY(lap_is_strings(ctx, x, 0, node_id));
    else NEED(x->dtype == LAPIDARY_I32 || x->dtype == LAPIDARY_I64, "tokens of type {a}, expected integers", x->dtype, 0);
    NEED(out[0]->dtype == LAPIDARY_F32, "an output of type {a}, expected f32 ({b})", out[0]->dtype, LAPIDARY_F32);
    int64_t rows = x->rank == 2 ? x->dims[0] : 1, n = x->dims[x->rank - 1], dims[2] = {rows, width};
    TRY(lap_output_alloc(ctx, out[0], x->rank, x->rank == 2 ? dims : dims + 1, node_id));
    TEMP(int64_t, row, n);
    CLOCK(clock);
    float *to = out[0]->data;
    for (int64_t r = 0; r < rows; r++, to += width) {
        memset(to, 0, (size_t)(4 * width));
        TRY(lap_tick(&clock, n + width));
        for (int64_t i = 0; i < n; i++) {
            int64_t e = r * n + i;
            int64_t k = kind == 0 ? lap_find_string(&tokens, lap_string(x, e)) : lap_find_int(&tokens, (int64_t)(x->dtype == LAPIDARY_I64 ? ((const int64_t *)x->data)[e] : ((const int32_t *)x->data)[e]));
            row[i] = k < 0 ? -1 : tokens.values[k];
        }
        int64_t shortest = least;
        for (int64_t distance = 1; distance <= skip + 1 && distance <= lap_max(n, 1); distance++) {
            for (int64_t first = 0; first < n; first++) {
                int32_t node = 0;
                TRY(lap_tick(&clock, 1));
                for (int64_t size = 1, i = first; size <= most && i < n; size++, i += distance) {
                    int32_t low = begin[node], high = begin[node + 1], last = high;
                    while (low < high) {
                        int32_t mid = low + (high - low) / 2;
                        if (token[mid] < row[i]) low = mid + 1;
                        else high = mid;
                    }
                    if (low == last || token[low] != row[i]) break;
                    node = end[low];
                    if (size >= shortest && output[node] >= 0) to[output[node]] += 1;
                }
            }
            /* A single token is the same at every distance. */
            if (shortest == 1 && ++shortest > most) break;
        }
        for (int64_t i = 0; mode > 0 && i < width; i++) {
            float w = at->n_floats > 0 ? (float)at->floats[i] : 1;
            if (mode == 1) to[i] = to[i] > 0 ? w : 0;
            else to[i] *= w;
        }
    }
    return LAPIDARY_OK;
}
