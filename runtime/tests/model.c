/* A compiled model by hand: `y = x + 1` for f32[n], for tests of opening and linking. */
#include "lap_internal.h"

#ifndef FEATURES
#define FEATURES 0
#endif

static void add_one(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    (void)dims;
    (void)worker;
    const float *x = buffers[0];
    float *y = buffers[1];
    for (int64_t i = begin; i < end; i++) y[i] = x[i] + 1;
}

static int32_t dims_fn(lap_context *ctx) {
    ctx->sizes[0] = 4 * ctx->dims[0];
    ctx->outputs[0].rank = 1;
    ctx->outputs[0].dims[0] = ctx->dims[0];
    return 0;
}

static int32_t run_fn(lap_context *ctx) {
    void *buffers[] = {ctx->inputs[0].data, ctx->buffers[0]};
    return ctx->rt->parallel_for(ctx, add_one, buffers, ctx->dims, ctx->dims[0], 0, 0, ctx->dims[0]);
}

static const int64_t free_dim[] = {-1};
static const char *const names[] = {"n"};
static const lapidary_value_info inputs[] = {{"x", LAPIDARY_F32, 1, free_dim, names, NULL}};
static const lapidary_value_info outputs[] = {{"y", LAPIDARY_F32, 1, free_dim, names, NULL}};
static const lap_dim_bind binds[] = {{0, 0, -1, 0, 0}};
static const lap_segment segments[] = {{dims_fn, run_fn, 0}};
static const lap_buffer_info buffers[] = {{0, 0, INT32_MAX, 0}};
static const char *const nodes[] = {"/Add"};

__attribute__((visibility("default"))) const lap_model_table lapidary_model_plus = {
    .head = {LAPIDARY_ABI_VERSION, sizeof(lap_model_table), FEATURES, &lap_api_table, "plus", 1, 1, inputs, outputs},
    .n_dims = 1,
    .n_dim_binds = 1,
    .dim_binds = binds,
    .n_segments = 1,
    .n_buffers = 1,
    .segments = segments,
    .buffers = buffers,
    .n_nodes = 1,
    .node_names = nodes,
    .levels = 1,
};
