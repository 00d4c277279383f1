/* The functions that generated code and library kernels call, and the table of them. */
#include <stdio.h>
#include <string.h>

#include "context.h"
#include "os.h"

/* Below this estimate a call is made on the caller's thread: waking others costs as much. */
#define SERIAL_NS 20000
/* A serial call is cut into pieces of this estimate, so that a cancel or a deadline is seen. */
#define PIECE_NS 8000000
/* No chunk of a parallel call is estimated shorter. */
#define CHUNK_NS 3000

/* ---- errors ---------------------------------------------------------------------------------- */

/* Sets the error of `node_id` with "{a}" and "{b}" replaced. The first error stays. */
int32_t lap_fail(lap_context *ctx, int32_t code, int32_t node_id, const char *message, int64_t a, int64_t b) {
    lap_private *self = lap_priv(ctx);
    char text[512];
    size_t used = 0;
    for (const char *at = message ? message : ""; *at && used + 24 < sizeof text;) {
        if (at[0] == '{' && (at[1] == 'a' || at[1] == 'b') && at[2] == '}') {
            used += (size_t)snprintf(text + used, sizeof text - used, "%lld", (long long)(at[1] == 'a' ? a : b));
            at += 3;
        } else {
            text[used++] = *at++;
        }
    }
    text[used] = 0;
    return lap_error(self, code ? code : LAPIDARY_ERROR_INTERNAL, node_id, a, b, "%s", text);
}

int32_t lap_check(lap_context *ctx, int32_t node_id) {
    lap_private *at = lap_priv(ctx), *self = lap_root(at);
    if (atomic_load_explicit(&self->head.cancel, memory_order_relaxed)) {
        return lap_error(at, LAPIDARY_ERROR_CANCELLED, node_id, 0, 0, "the run was cancelled");
    }
    if (self->deadline && lap_os_now() >= self->deadline) {
        int64_t limit = atomic_load_explicit(&self->timeout_ns, memory_order_relaxed);
        return lap_error(at, LAPIDARY_ERROR_TIMEOUT, node_id, limit, 0, "the run took longer than its %lld ns",
                         (long long)limit);
    }
    return LAPIDARY_OK;
}

uint64_t lap_features(lap_context *ctx) { return lap_root(lap_priv(ctx))->features; }

uint64_t lap_draw(lap_context *ctx) { return lap_root(lap_priv(ctx))->draws++; }

uint64_t lap_entropy(lap_context *ctx) {
    static _Atomic uint64_t made;
    lap_private *self = lap_root(lap_priv(ctx));
    /* A child must not draw its parent's numbers. */
    if (self->entropy == 0 || self->entropy_forks != lap_os_forks()) {
        self->entropy_forks = lap_os_forks();
        uint64_t parts[] = {(uint64_t)lap_os_now(), lap_os_date(), (uint64_t)(uintptr_t)self, atomic_fetch_add(&made, 1)};
        self->entropy = lap_hash64(parts, sizeof parts) | 1;
    }
    return self->entropy;
}

/* Names the node of an error that has none yet. */
void lap_blame(lap_private *self, int32_t node_id) {
    lap_private *root = lap_root(self);
    if (root->error_code == LAPIDARY_OK || root->error_node >= 0) return;
    root->error_node = node_id;
    root->error_model = self->head.model;
}

static int32_t fail_of_fault(lap_private *self, const lap_fault *fault, int32_t node_id) {
    long long value = fault->value, limit = fault->limit;
    int operand = fault->operand;
    switch (fault->kind) {
    case LAP_FAULT_INDEX:
        return lap_error(self, LAPIDARY_ERROR_INDEX, node_id, value, limit,
                         "index %lld in operand %d is outside of [-%lld, %lld)", value, operand, limit, limit);
    case LAP_FAULT_VALUE:
        return lap_error(self, LAPIDARY_ERROR_CHECK, node_id, value, limit,
                         "value %lld in operand %d is not allowed (bound %lld)", value, operand, limit);
    case LAP_FAULT_DIVIDE:
        return lap_error(self, LAPIDARY_ERROR_CHECK, node_id, value, limit, "integer division by zero in operand %d",
                         operand);
    case LAP_FAULT_MEMORY:
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, value, limit, "no memory for %lld bytes", value);
    case LAP_FAULT_SHAPE:
        return lap_error(self, LAPIDARY_ERROR_CHECK, node_id, value, limit,
                         "a dim of operand %d is %lld, expected %lld", operand, value, limit);
    default:
        return lap_error(self, LAPIDARY_ERROR_CHECK, node_id, value, limit,
                         "fault %d in operand %d (value %lld, limit %lld)", (int)fault->kind, operand, value, limit);
    }
}

/* ---- kernel calls ---------------------------------------------------------------------------- */

static int32_t guarded_scratch(lap_private *self, int64_t bytes, int32_t node_id) {
    lap_worker *worker = &self->worker;
    if (worker->scratch && worker->scratch_bytes == bytes) return LAPIDARY_OK;
    int32_t code = lap_memory_take(self, bytes - worker->scratch_bytes, node_id);
    if (code) return code;
    lap_memory_free(self, worker->scratch);
    worker->scratch = lap_memory_new(self, bytes);
    worker->scratch_bytes = worker->scratch ? bytes : 0;
    if (worker->scratch) return LAPIDARY_OK;
    self->memory_used -= bytes;
    return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes of scratch",
                     (long long)bytes);
}

static int32_t own_scratch(lap_private *self, lap_worker *worker, int64_t bytes, int32_t node_id) {
    if (self->guarded && worker == &self->worker) return guarded_scratch(self, bytes, node_id);
    if (worker->scratch_bytes >= bytes) return LAPIDARY_OK;
    int32_t code = lap_memory_take(self, bytes - worker->scratch_bytes, node_id);
    if (code) return code;
    if (lap_worker_scratch(worker, bytes)) return LAPIDARY_OK;
    self->memory_used -= bytes - worker->scratch_bytes;
    return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes of scratch",
                     (long long)bytes);
}

/* The pool's scratch belongs to the pool, but a context with a limit must not make it grow beyond. */
static int32_t pool_scratch(lap_private *self, int64_t bytes, int32_t node_id) {
    int64_t missing = lap_pool_scratch_missing(self->pool, bytes);
    if (missing == 0) return LAPIDARY_OK;
    int64_t needed;
    if (__builtin_add_overflow(lap_pool_scratch_total(self->pool), missing, &needed) ||
        __builtin_add_overflow(self->memory_used, needed, &needed)) {
        needed = INT64_MAX;
    }
    if (self->memory_limit > 0 && needed > self->memory_limit) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, needed, self->memory_limit,
                         "%lld bytes are needed with scratch, the limit is %lld", (long long)needed,
                         (long long)self->memory_limit);
    }
    if (needed < INT64_MAX && lap_pool_scratch(self->pool, bytes)) return LAPIDARY_OK;
    return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes of scratch",
                     (long long)bytes);
}

/* The part of n_tasks whose estimate is `ns`, at least 1. */
static int64_t tasks_for(int64_t n_tasks, int64_t cost, int64_t ns) {
    if (cost <= ns) return n_tasks;
    double part = (double)n_tasks * (double)ns / (double)cost;
    return part < 1 ? 1 : (int64_t)part;
}

typedef struct host_env {
    lap_section *section;
    lap_worker *workers;
    int32_t n_workers;
    _Atomic int32_t misuse;
} host_env;

static void host_task(void *env, int64_t begin, int64_t end, int32_t worker) {
    host_env *host = env;
    lap_section *section = host->section;
    if (worker < 0 || worker >= host->n_workers || begin < 0 || end > section->n_tasks) {
        atomic_store(&host->misuse, 1);
        return;
    }
    if (begin >= end || begin > atomic_load_explicit(&section->fault_begin, memory_order_relaxed)) return;
    if (lap_section_ended(section)) return;
    atomic_fetch_add_explicit(&section->next, end - begin, memory_order_relaxed);
    lap_section_chunk(section, begin, end, &host->workers[worker]);
}

int32_t lap_parallel_for(
    lap_context *ctx, lap_kernel kernel, void *const *buffers, const int64_t *dims, int64_t n_tasks,
    int64_t scratch_bytes, int32_t node_id, int64_t cost) {
    lap_private *at = lap_priv(ctx), *self = lap_root(at); /* threads and their scratch are the root's */
    if (n_tasks <= 0) return LAPIDARY_OK;
    int32_t code = lap_check(ctx, node_id);
    if (code) return code;
    lap_section section = {
        .rt = ctx->rt, .kernel = kernel, .buffers = buffers, .dims = dims, .level = ctx->level,
        .n_tasks = n_tasks, .deadline = self->deadline, .cancel = &self->head.cancel};
    lap_section_init(&section);

    int large = n_tasks > 1 && cost >= SERIAL_NS;
    if (large && self->host_for) {
        host_env host = {.section = &section, .workers = self->host_workers, .n_workers = self->n_host_workers};
        for (int32_t i = 0; i < self->n_host_workers; i++) {
            code = own_scratch(self, &self->host_workers[i], scratch_bytes, node_id);
            if (code) return code;
        }
        self->host_for(self->host, host_task, &host, n_tasks, self->n_host_workers);
        int stopped = section.fault.kind != LAP_FAULT_NONE || lap_section_ended(&section);
        if (atomic_load(&host.misuse) || (!stopped && atomic_load(&section.next) != n_tasks)) {
            return lap_error(at, LAPIDARY_ERROR_THREADS, node_id, atomic_load(&section.next), n_tasks,
                             "the host's parallel_for did not hand out each task once");
        }
    } else {
        if (large && self->pool && !self->in_pool) self->in_pool = lap_pool_enter(self->pool);
        code = own_scratch(self, &self->worker, scratch_bytes, node_id);
        if (code) return code;
        if (large && self->in_pool) {
            code = pool_scratch(self, scratch_bytes, node_id);
            if (code) return code;
            int64_t share = n_tasks / (4 * (int64_t)lap_pool_width(self->pool)), least = tasks_for(n_tasks, cost, CHUNK_NS);
            section.chunk = share > least ? share : least;
            if (section.chunk < 1) section.chunk = 1;
            lap_pool_run(self->pool, &section, &self->worker);
        } else {
            section.chunk = tasks_for(n_tasks, cost, PIECE_NS);
            lap_section_work(&section, &self->worker);
        }
    }
    if (section.fault.kind != LAP_FAULT_NONE) return fail_of_fault(at, &section.fault, node_id);
    return atomic_load_explicit(&section.stop, memory_order_relaxed) || self->deadline ||
                   atomic_load_explicit(&self->head.cancel, memory_order_relaxed)
               ? lap_check(ctx, node_id)
               : LAPIDARY_OK;
}

int32_t lap_call_library(
    lap_context *ctx, lap_library_fn fn, const lap_tensor *const *in, int32_t n_in, lap_tensor *const *out,
    int32_t n_out, const void *attrs, int32_t node_id) {
    lap_private *self = lap_priv(ctx);
    int32_t code = lap_check(ctx, node_id);
    if (code) return code;
    /* Descriptors are the context's own memory, whatever the kernel may see as const. */
    for (int32_t i = 0; i < n_in; i++) {
        if (in[i] && in[i]->rank >= 0) lap_contiguous_strides((lap_tensor *)(uintptr_t)in[i]);
    }
    for (int32_t i = 0; i < n_out; i++) {
        if (out[i] && out[i]->rank >= 0) lap_contiguous_strides(out[i]);
    }
    code = fn(ctx, in, n_in, out, n_out, attrs, node_id);
    int32_t broken = lap_temps_reset(self);
    if (broken) return broken;
    if (code && lap_root(self)->error_code == LAPIDARY_OK) {
        return lap_error(self, code, node_id, 0, 0, "the library kernel gave up with code %d", (int)code);
    }
    return code;
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *lap_alloc_dynamic(lap_context *ctx, int32_t buffer, int64_t bytes) {
    lap_private *self = lap_priv(ctx);
    const lap_model_table *model = ctx->model;
    if (buffer < 0 || buffer >= model->n_buffers || bytes < 0) {
        lap_error(self, LAPIDARY_ERROR_INTERNAL, -1, buffer, bytes, "buffer %d does not exist", (int)buffer);
        return NULL;
    }
    int32_t output = model->buffers[buffer].output;
    int32_t code;
    void *data;
    if (output >= 0) {
        code = lap_place_output(self, output, bytes, -1);
        data = ctx->outputs[output].data;
    } else {
        code = lap_store_grow(self, &self->dynamic[buffer], bytes, -1);
        data = self->dynamic[buffer].data;
    }
    if (code) return NULL;
    ctx->sizes[buffer] = bytes;
    ctx->buffers[buffer] = data;
    return data;
}

/* Elements of an output, or -1 after an error. */
static int64_t output_count(lap_context *ctx, const lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id) {
    int64_t size = lap_dtype_bytes(out->dtype), bytes;
    int64_t count = rank < 0 || rank > LAP_MAX_RANK ? -1 : lap_count(rank, dims);
    if (count >= 0 && !__builtin_mul_overflow(count, size < 16 ? 16 : size, &bytes) && bytes <= INT64_MAX / 4) return count;
    lap_error(lap_priv(ctx), LAPIDARY_ERROR_CHECK, node_id, rank, 0, "an output's dims are negative or too large");
    return -1;
}

static int32_t output_alloc(
    lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t bytes, int32_t node_id) {
    lap_private *self = lap_priv(ctx);
    const lap_model_table *model = ctx->model;
    if (out->data) { /* the size was known before */
        int same = out->rank == rank;
        for (int32_t i = 0; same && i < rank; i++) same = out->dims[i] == dims[i];
        if (same) return LAPIDARY_OK;
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, node_id, rank, out->rank,
                         "an output's shape is not the one that was planned");
    }
    if (out->buffer < 0 || out->buffer >= model->n_buffers) {
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, node_id, out->buffer, 0, "an output has no buffer");
    }
    out->rank = rank;
    for (int32_t i = 0; i < rank; i++) out->dims[i] = dims[i];
    lap_contiguous_strides(out);
    int32_t output = model->buffers[out->buffer].output;
    if (output >= 0) {
        ctx->outputs[output].rank = rank;
        for (int32_t i = 0; i < rank; i++) ctx->outputs[output].dims[i] = dims[i];
    }
    out->data = lap_alloc_dynamic(ctx, out->buffer, bytes);
    if (out->data) return LAPIDARY_OK;
    lap_blame(self, node_id);
    return lap_root(self)->error_code;
}

int32_t lap_output_alloc(lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id) {
    int64_t count = output_count(ctx, out, rank, dims, node_id);
    if (count < 0) return lap_root(lap_priv(ctx))->error_code;
    return output_alloc(ctx, out, rank, dims, count * lap_dtype_bytes(out->dtype), node_id);
}

int32_t lap_output_alloc_strings(
    lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t text_bytes, int32_t node_id) {
    int64_t count = output_count(ctx, out, rank, dims, node_id), bytes;
    if (count < 0) return lap_root(lap_priv(ctx))->error_code;
    bytes = (int64_t)sizeof(lapidary_strings) + 8 * (count + 1);
    if (text_bytes < 0 || text_bytes > INT64_MAX / 4) {
        return lap_error(lap_priv(ctx), LAPIDARY_ERROR_MEMORY, node_id, text_bytes, 0, "no memory for %lld bytes",
                         (long long)text_bytes);
    }
    int32_t code = output_alloc(ctx, out, rank, dims, bytes + text_bytes, node_id);
    if (code) return code;
    lapidary_strings *strings = out->data;
    int64_t *offsets = (int64_t *)(void *)(strings + 1);
    memset(offsets, 0, (size_t)(8 * (count + 1)));
    strings->offsets = offsets;
    strings->bytes = (char *)out->data + bytes;
    return LAPIDARY_OK;
}

/* Blocks of growing size, kept for the next call. */
void *lap_temp(lap_context *ctx, int64_t bytes, int32_t node_id) {
    lap_private *self = lap_priv(ctx);
    if (bytes < 0 || bytes > INT64_MAX / 4) {
        lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes", (long long)bytes);
        return NULL;
    }
    int guarded = lap_root(self)->guarded;
    int64_t exact = bytes;
    bytes = (bytes + 2 * LAP_ALIGN - 1) & ~(int64_t)(LAP_ALIGN - 1); /* and room to read past the end */
    for (lap_temp_block *block = self->temps; block; block = block->next) {
        if (!guarded && block->bytes - block->used >= bytes) {
            char *data = (char *)(block + 1) + block->used;
            block->used += bytes;
            return data;
        }
    }
    int64_t room = bytes < 65536 && !guarded ? 65536 : bytes;
    if (lap_memory_take(self, room + (int64_t)sizeof(lap_temp_block), node_id)) return NULL;
    lap_temp_block *block = lap_memory_new(self, room + (int64_t)sizeof *block);
    if (!block) {
        lap_root(self)->memory_used -= room + (int64_t)sizeof(lap_temp_block);
        lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes", (long long)bytes);
        return NULL;
    }
    *block = (lap_temp_block){.next = self->temps, .bytes = room, .used = guarded ? exact : bytes};
    self->temps = block;
    return block + 1;
}

/* ---- narrow floats --------------------------------------------------------------------------- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

uint32_t lap_f32_to_f16(float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest >= 0x7f800000u) return sign | 0x7c00u | (rest > 0x7f800000u ? 0x200u | (rest >> 13 & 0x1ffu) : 0);
    if (rest >= 0x477ff000u) return sign | 0x7c00u; /* rounds to infinity */
    if (rest < 0x38800000u) { /* subnormal: adding 0.5 rounds at its last bit */
        return sign | (bits_of(float_of(rest) + 0.5f) - 0x3f000000u);
    }
    rest += 0xc8000fffu + (rest >> 13 & 1u); /* exponent less 112, round to even */
    return sign | rest >> 13;
}

float lap_f16_to_f32(uint32_t half) {
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
    if (exponent == 0x1f) return float_of(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

uint32_t lap_f32_to_bf16(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

float lap_bf16_to_f32(uint32_t half) { return float_of((half & 0xffffu) << 16); }
