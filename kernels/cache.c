/* A cache of keys or values, with new positions appended. */
#include "lap_library.h"

typedef struct append {
    const char *past, *new;
    const int32_t *first;
    char *to;
    int64_t heads, old, steps, size, row; /* positions of past, of new, of the result; bytes of a position */
} append;

/* Tasks: heads of all batch elements. */
static void append_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const append *a = buffers[0];
    (void)dims;
    (void)worker;
    for (int64_t task = begin; task < end; task++) {
        int64_t b = task / a->heads, h = task % a->heads, first = a->first[b];
        char *to = a->to + task * a->size * a->row;
        int64_t kept = a->past ? lap_min(first, a->old) : 0;
        if (kept > 0) memcpy(to, a->past + task * a->old * a->row, (size_t)(kept * a->row));
        if (kept < first) memset(to + kept * a->row, 0, (size_t)((first - kept) * a->row));
        for (int64_t s = 0; s < a->steps; s++) {
            memcpy(to + (first + s) * a->row, a->new + ((b * a->steps + s) * a->heads + h) * a->row, (size_t)a->row);
        }
        int64_t next = first + a->steps;
        memset(to + next * a->row, 0, (size_t)((a->size - next) * a->row));
    }
}

/* past [B, H, P, D] or none, new [B, S, H, D], the place of the first new position of each batch element (i32 [B]), the
 * least number of positions of the result (one integer). Output [B, H, max(P, number), D]: past up to that place, the
 * new positions, zeros. */
LAP_LIBRARY_KERNEL(lap_lib_cache_append) {
    const lap_attrs *const at = attrs;
    const lap_tensor *past = lap_opt(in, n_in, 0);
    NEED(n_in >= 4 && in[1] && in[2] && in[3] && n_out == 1 && out[0], "{a} operands and {b} results", n_in, n_out);
    (void)at;
    const lap_tensor *new = in[1], *first = in[2];
    int64_t least, width = lap_dtype_bytes(new->dtype);
    TRY(lap_one_int(ctx, in[3], 3, &least, node_id));
    NEED(new->rank == 4 && width > 0, "new positions of rank {a}, type {b}", new->rank, new->dtype);
    NEED(out[0]->dtype == new->dtype, "a cache of type {a} for positions of type {b}", out[0]->dtype, new->dtype);
    int64_t batch = new->dims[0];
    append a = {.steps = new->dims[1], .heads = new->dims[2], .row = width * new->dims[3], .size = least};
    NEED(least >= 0, "a length of {a}", least, 0);
    if (past) {
        NEED(past->rank == 4 && past->dtype == new->dtype, "a cache of rank {a}, type {b}", past->rank, past->dtype);
        NEED(past->dims[0] == batch && past->dims[1] == a.heads, "a cache of {a} batch elements and {b} heads", past->dims[0], past->dims[1]);
        NEED(past->dims[3] == new->dims[3], "a cache of {a} features, new positions of {b}", past->dims[3], new->dims[3]);
        a.old = past->dims[2];
        a.size = lap_max(a.old, least);
        a.past = past->data;
    }
    NEED(first->rank == 1 && first->dims[0] == batch && first->dtype == LAPIDARY_I32, "places of rank {a}, type {b}", first->rank, first->dtype);
    a.first = first->data;
    for (int64_t b = 0; b < batch; b++) {
        /* What lies behind `least` is not read. */
        NEED(a.first[b] >= 0 && a.first[b] <= least - a.steps, "new positions from {a} on, where {b} are used", a.first[b], least);
    }
    int64_t dims[] = {batch, a.heads, a.size, new->dims[3]};
    TRY(lap_output_alloc(ctx, out[0], 4, dims, node_id));
    if (lap_count(4, dims) == 0) return LAPIDARY_OK;
    a.new = new->data;
    a.to = out[0]->data;
    void *buffers[] = {&a};
    return lap_parallel_for(ctx, append_tasks, buffers, NULL, batch * a.heads, 0, node_id, batch * a.heads * a.size * a.row / 16);
}
