/* The arena plan: where each buffer of a segment lies, so that no two that live at once overlap.
 *
 * In: lives (first and last step) and sizes; out: offsets, multiples of 64, and the arena's size.
 * Greedy: the largest buffer first, each into the smallest gap that holds it among the buffers placed
 * before it whose lives meet its own, else behind them all. The plan depends on its input alone. */
#include "arena.h"

#include <stdlib.h>

#include "lap_internal.h"

typedef struct entry {
    int64_t bytes;
    int32_t index;
} entry;

static int larger_first(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
    return a->index < b->index ? -1 : a->index > b->index;
}

int64_t lap_plan(int32_t n, const int32_t *first, const int32_t *last, const int64_t *sizes, int64_t *offsets) {
    if (n <= 0) return 0;
    entry *order = malloc((size_t)n * sizeof *order);
    int32_t *placed = malloc((size_t)n * sizeof *placed); /* by offset */
    int32_t n_order = 0, n_placed = 0;
    int64_t total = 0;
    if (!order || !placed) {
        total = -1;
        goto done;
    }
    for (int32_t i = 0; i < n; i++) {
        offsets[i] = 0;
        if (sizes[i] <= 0) continue;
        if (sizes[i] > INT64_MAX / 4) {
            total = -1;
            goto done;
        }
        order[n_order++] = (entry){(sizes[i] + LAP_ALIGN - 1) & ~(int64_t)(LAP_ALIGN - 1), i};
    }
    qsort(order, (size_t)n_order, sizeof *order, larger_first);
    for (int32_t k = 0; k < n_order; k++) {
        int32_t i = order[k].index;
        int64_t bytes = order[k].bytes, top = 0, best = -1, best_gap = INT64_MAX;
        for (int32_t p = 0; p < n_placed; p++) {
            int32_t j = placed[p];
            if (last[j] < first[i] || last[i] < first[j]) continue;
            int64_t gap = offsets[j] - top;
            if (gap >= bytes && gap < best_gap) {
                best = top;
                best_gap = gap;
            }
            int64_t end = offsets[j] + ((sizes[j] + LAP_ALIGN - 1) & ~(int64_t)(LAP_ALIGN - 1));
            if (end > top) top = end;
        }
        if (best < 0) best = top;
        if (best > INT64_MAX / 2 - bytes) {
            total = -1;
            goto done;
        }
        offsets[i] = best;
        if (best + bytes > total) total = best + bytes;
        int32_t at = n_placed++;
        while (at > 0 && offsets[placed[at - 1]] > best) {
            placed[at] = placed[at - 1];
            at--;
        }
        placed[at] = i;
    }
done:
    free(order);
    free(placed);
    return total;
}
