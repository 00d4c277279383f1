/* Attention whose memory is a matrix a head, updated step by step. Computed in f32. */
#include "lap_library.h"

typedef struct job {
    const float *q, *k, *v, *past, *decay, *beta;
    float *y, *state; /* [B, T, Hq, dv], [B, Hk, dk, dv] */
    int64_t steps, q_heads, heads, dk, dv, decays, betas; /* decays, betas: numbers of a step */
    int gated, delta;
    float scale;
} job;

/* Tasks: key heads of all batch elements. */
static void head_tasks(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const job *j = buffers[0];
    int64_t dk = j->dk, dv = j->dv, group = j->q_heads / j->heads;
    float *value = (float *)(void *)worker->scratch;
    (void)dims;
    for (int64_t task = begin; task < end; task++) {
        int64_t b = task / j->heads, h = task % j->heads;
        float *s = j->state + task * dk * dv;
        if (j->past) memcpy(s, j->past + task * dk * dv, (size_t)(4 * dk * dv));
        else memset(s, 0, (size_t)(4 * dk * dv));
        for (int64_t t = 0; t < j->steps; t++) {
            int64_t at = b * j->steps + t;
            const float *k = j->k + (at * j->heads + h) * dk, *v = j->v + (at * j->heads + h) * dv;
            for (int64_t i = 0; j->gated && i < dk; i++) {
                float g = expf(j->decay[at * j->decays + (j->decays == j->heads ? h : h * dk + i)]);
                for (int64_t m = 0; m < dv; m++) s[i * dv + m] *= g;
            }
            memcpy(value, v, (size_t)(4 * dv));
            if (j->delta) {
                float beta = j->beta[at * j->betas + (j->betas == 1 ? 0 : h)];
                for (int64_t i = 0; i < dk; i++) {
                    for (int64_t m = 0; m < dv; m++) value[m] -= s[i * dv + m] * k[i];
                }
                for (int64_t m = 0; m < dv; m++) value[m] *= beta;
            }
            for (int64_t i = 0; i < dk; i++) {
                for (int64_t m = 0; m < dv; m++) s[i * dv + m] += k[i] * value[m];
            }
            for (int64_t r = 0; r < group; r++) {
                int64_t head = at * j->q_heads + h * group + r;
                float *y = j->y + head * dv;
                memset(y, 0, (size_t)(4 * dv));
                for (int64_t i = 0; i < dk; i++) {
                    float q = j->scale * j->q[head * dk + i];
                    for (int64_t m = 0; m < dv; m++) y[m] += q * s[i * dv + m];
                }
            }
        }
    }
}

/* query, key, value, past state or none, decay or none, beta or none. Ints: query heads, key heads, rule (0 linear,
 * 1 gated, 2 delta, 3 gated_delta). Floats: scale (0: by the root of the key size). Outputs: y, state. */
LAP_LIBRARY_KERNEL(lap_lib_linear_attention) {
    EXPECT(3, 2, 3, 1);
    const lap_tensor *q = in[0], *k = in[1], *v = in[2];
    const lap_tensor *past = lap_opt(in, n_in, 3), *decay = lap_opt(in, n_in, 4), *beta = lap_opt(in, n_in, 5);
    job j = {.q_heads = at->ints[0], .heads = at->ints[1]};
    int64_t rule = at->ints[2];
    j.gated = rule == 1 || rule == 3;
    j.delta = rule >= 2;
    NEED(q->rank == 3 && k->rank == 3 && v->rank == 3, "a query of rank {a}, a key of rank {b}, expected 3", q->rank, k->rank);
    NEED(j.heads > 0 && j.q_heads > 0 && j.q_heads % j.heads == 0, "{a} query heads for {b} key heads", j.q_heads, j.heads);
    int64_t batch = q->dims[0];
    j.steps = q->dims[1];
    j.dk = k->dims[2] / j.heads;
    j.dv = v->dims[2] / j.heads;
    NEED(q->dims[2] == j.dk * j.q_heads && k->dims[2] == j.dk * j.heads, "queries of {a} numbers for keys of {b}", q->dims[2], k->dims[2]);
    NEED(v->dims[2] == j.dv * j.heads, "values of {a} numbers for {b} heads", v->dims[2], j.heads);
    for (int32_t i = 1; i < 3; i++) NEED(in[i]->dims[0] == batch && in[i]->dims[1] == j.steps, "input {a} has {b} steps", i, in[i]->dims[1]);
    NEED((decay != NULL) == j.gated && (beta != NULL) == j.delta, "rule {a} with other operands than it takes", rule, 0);
    int64_t y_dims[] = {batch, j.steps, j.dv * j.q_heads}, s_dims[] = {batch, j.heads, j.dk, j.dv};
    if (past) {
        NEED(past->rank == 4 && memcmp(past->dims, s_dims, sizeof s_dims) == 0, "a past state of rank {a} and other dims", past->rank, 0);
    }
    for (int i = 0; i < 2; i++) {
        const lap_tensor *t = i ? beta : decay;
        if (!t) continue;
        NEED(t->rank == 3 && t->dims[0] == batch && t->dims[1] == j.steps, "decay or beta of rank {a}", t->rank, 0);
        int64_t n = t->dims[2], other = i ? 1 : j.heads * j.dk;
        NEED(n == j.heads || n == other, "{a} numbers a step, expected {b}", n, j.heads);
        *(i ? &j.betas : &j.decays) = n;
    }
    NEED(out[0] && out[1], "an output is missing", 0, 0);
    TRY(lap_output_alloc(ctx, out[0], 3, y_dims, node_id));
    TRY(lap_output_alloc(ctx, out[1], 4, s_dims, node_id));
    j.scale = at->floats[0] != 0 ? (float)at->floats[0] : 1 / sqrtf((float)j.dk);
    if (lap_count(3, y_dims) == 0 && lap_count(4, s_dims) == 0) return LAPIDARY_OK;
    j.q = lap_floats(ctx, q, node_id);
    j.k = lap_floats(ctx, k, node_id);
    j.v = lap_floats(ctx, v, node_id);
    if (past) j.past = lap_floats(ctx, past, node_id);
    if (decay) j.decay = lap_floats(ctx, decay, node_id);
    if (beta) j.beta = lap_floats(ctx, beta, node_id);
    j.y = lap_float_room(ctx, out[0], node_id);
    j.state = lap_float_room(ctx, out[1], node_id);
    if (!j.q || !j.k || !j.v || !j.y || !j.state || (past && !j.past) || (decay && !j.decay) || (beta && !j.beta)) {
        return LAPIDARY_ERROR_MEMORY;
    }
    void *buffers[] = {&j};
    TRY(lap_parallel_for(ctx, head_tasks, buffers, NULL, batch * j.heads, 4 * j.dv, node_id,
                         lap_bytes_of(lap_count(4, s_dims), j.steps)));
    lap_store_floats(out[0], j.y);
    lap_store_floats(out[1], j.state);
    return LAPIDARY_OK;
}
