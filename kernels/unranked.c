/* Values whose rank is known at run time only, brought to a known rank, for code that was compiled for that. */
#include "lap_library.h"
#include "lap_strings.h"

/* x… Outputs: their common shape, then each broadcast to it, as a vector. */
LAP_LIBRARY_KERNEL(lap_lib_flatten_together) {
    EXPECT(1, 1, 0, 0);
    int32_t rank;
    int64_t dims[LAP_MAX_RANK];
    NEED(n_out == n_in + 1, "{a} outputs for {b} inputs", n_out, n_in);
    for (int32_t i = 0; i < n_in; i++) NEED(in[i], "input {a} of the kernel is missing", i, 0);
    TRY(lap_broadcast(ctx, in, n_in, &rank, dims, node_id));
    int64_t n = lap_count(rank, dims), length = rank;
    NEED(n >= 0, "the common shape is too large", 0, 0);
    CLOCK(clock);
    if (out[0]) {
        NEED(out[0]->dtype == LAPIDARY_I64, "a shape of type {a}, expected i64 ({b})", out[0]->dtype, LAPIDARY_I64);
        TRY(lap_output_alloc(ctx, out[0], 1, &length, node_id));
        memcpy(out[0]->data, dims, 8 * (size_t)rank);
    }
    for (int32_t i = 0; i < n_in; i++) {
        const lap_tensor *x = in[i];
        lap_tensor *y = out[i + 1];
        int64_t size = lap_dtype_bytes(x->dtype);
        if (!y) continue;
        NEED(size > 0 && y->dtype == x->dtype, "an output of type {a} for elements of type {b}", y->dtype, x->dtype);
        if (lap_elements(x) == n) { /* broadcasting that adds no element moves none */
            TRY(lap_copy_as(ctx, x, y, 1, &n, node_id));
            continue;
        }
        TRY(lap_output_alloc(ctx, y, 1, &n, node_id));
        for (int64_t e = 0; e < n; e++) {
            TRY(lap_tick(&clock, 1));
            memcpy((char *)y->data + e * size, (const char *)x->data + lap_broadcast_at(x, rank, dims, e) * size, (size_t)size);
        }
    }
    return LAPIDARY_OK;
}

/* Copies the matrices of x, for each index of the batch axes `dims`, to which x's own are broadcast. */
static int32_t matrices(
    lap_context *ctx, const lap_tensor *x, int vector, lap_tensor *to, int32_t rank, const int64_t *dims, int64_t m, int64_t n,
    int32_t node_id) {
    int64_t size = lap_dtype_bytes(x->dtype), batch = lap_count(rank, dims), shape[] = {batch, m, n};
    NEED(size > 0 && to->dtype == x->dtype, "an output of type {a} for elements of type {b}", to->dtype, x->dtype);
    NEED(lap_count(3, shape) >= 0, "the matrices are too large", 0, 0);
    TRY(lap_output_alloc(ctx, to, 3, shape, node_id));
    if (lap_count(3, shape) == 0) return LAPIDARY_OK;
    int64_t block = m * n * size;
    lap_tensor batches = *x;
    batches.rank = vector ? 0 : x->rank - 2;
    CLOCK(clock);
    for (int64_t b = 0; b < batch; b++) {
        TRY(lap_tick(&clock, 1 + block));
        const char *from = (const char *)x->data + lap_broadcast_at(&batches, rank, dims, b) * block;
        memcpy((char *)to->data + b * block, from, (size_t)block);
    }
    return LAPIDARY_OK;
}

/* a, b, as numpy's matmul takes them. Outputs: the shape of the product, a as [batch, m, k], b as [batch, k, n]. */
LAP_LIBRARY_KERNEL(lap_lib_matmul_operands) {
    EXPECT(2, 3, 0, 0);
    const lap_tensor *a = in[0], *b = in[1];
    NEED(a->rank > 0 && b->rank > 0, "operands of rank {a} and {b}, expected 1 or more", a->rank, b->rank);
    int row = a->rank == 1, column = b->rank == 1;
    int64_t m = row ? 1 : a->dims[a->rank - 2], k = a->dims[a->rank - 1], n = column ? 1 : b->dims[b->rank - 1];
    int64_t depth = b->dims[column ? 0 : b->rank - 2], dims[LAP_MAX_RANK + 2];
    NEED(k == depth, "inner dimensions of {a} and {b}", k, depth);
    lap_tensor batches[] = {*a, *b};
    batches[0].rank = row ? 0 : a->rank - 2;
    batches[1].rank = column ? 0 : b->rank - 2;
    const lap_tensor *both[] = {batches, batches + 1};
    int32_t rank;
    TRY(lap_broadcast(ctx, both, 2, &rank, dims, node_id));
    if (out[1]) TRY(matrices(ctx, a, row, out[1], rank, dims, m, k, node_id));
    if (out[2]) TRY(matrices(ctx, b, column, out[2], rank, dims, k, n, node_id));
    if (!out[0]) return LAPIDARY_OK;
    if (!row) dims[rank++] = m;
    if (!column) dims[rank++] = n;
    int64_t length = rank;
    NEED(out[0]->dtype == LAPIDARY_I64, "a shape of type {a}, expected i64 ({b})", out[0]->dtype, LAPIDARY_I64);
    TRY(lap_output_alloc(ctx, out[0], 1, &length, node_id));
    memcpy(out[0]->data, dims, 8 * (size_t)rank);
    return LAPIDARY_OK;
}
