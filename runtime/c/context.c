/* A context: one model ready to run, its memory, and the order of a run.
 *
 * A run reads dims from the inputs, then for each segment computes dims and sizes, finds the memory (outputs,
 * then the arena, planned anew only when a size differs from the last run) and calls the generated code. */
#include "context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "os.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* ---- errors and memory ------------------------------------------------------------------------- */

int32_t lap_error(lap_private *self, int32_t code, int32_t node_id, int64_t a, int64_t b, const char *format, ...) {
    const lap_model_table *model = self->head.model;
    self = lap_root(self);
    if (self->error_code != LAPIDARY_OK) return self->error_code;
    self->error_code = code;
    self->error_node = node_id;
    self->error_model = model;
    self->error_a = a;
    self->error_b = b;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(self->error_text, sizeof self->error_text, format, arguments);
    va_end(arguments);
    return code;
}

int32_t lap_memory_take(lap_private *self, int64_t bytes, int32_t node_id) {
    int64_t needed;
    self = lap_root(self);
    if (__builtin_add_overflow(self->memory_used, bytes, &needed)) needed = INT64_MAX;
    if (self->memory_limit > 0 && needed > self->memory_limit) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, needed, self->memory_limit,
                         "%lld bytes are needed, the limit is %lld", (long long)needed,
                         (long long)self->memory_limit);
    }
    if (needed == INT64_MAX) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes",
                         (long long)bytes);
    }
    self->memory_used = needed;
    return LAPIDARY_OK;
}

void *lap_memory_new(lap_private *self, int64_t bytes) {
    return lap_root(self)->guarded ? lap_os_guarded_alloc((size_t)bytes, LAP_ALIGN) : lap_os_alloc((size_t)bytes);
}

void lap_memory_free(lap_private *self, void *memory) {
    if (lap_root(self)->guarded) lap_os_guarded_free(memory);
    else lap_os_free(memory);
}

/* `slack` bytes behind the store may be read, and a guarded one is aligned to `align`. */
static int32_t store_grow(
    lap_private *self, lap_store *store, int64_t bytes, int64_t slack, int64_t align, int32_t node_id) {
    int guarded = lap_root(self)->guarded; /* then every size is exact, and nothing of the last run is left */
    if (store->data && !guarded && store->bytes >= bytes && bytes >= 0) return LAPIDARY_OK;
    if (store->data && guarded && store->bytes == bytes && bytes >= 0) {
        memset(store->data, LAP_OS_GUARD_BYTE, (size_t)bytes);
        return LAPIDARY_OK;
    }
    if (bytes < 0 || bytes > INT64_MAX / 2) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes",
                         (long long)bytes);
    }
    int64_t held = store->data ? store->bytes + LAP_ALIGN : 0;
    int32_t code = lap_memory_take(self, bytes + LAP_ALIGN - held, node_id);
    if (code) return code;
    /* Freed first: the content is lost anyway, and the peak is what a limit is about. */
    lap_memory_free(self, store->data);
    store->data = guarded ? lap_os_guarded_alloc((size_t)(bytes + slack), (size_t)align)
                          : lap_os_alloc((size_t)bytes + LAP_ALIGN);
    if (!store->data) {
        lap_root(self)->memory_used -= bytes + LAP_ALIGN;
        store->bytes = 0;
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, bytes, 0, "no memory for %lld bytes",
                         (long long)bytes);
    }
    store->bytes = bytes;
    return LAPIDARY_OK;
}

int32_t lap_store_grow(lap_private *self, lap_store *store, int64_t bytes, int32_t node_id) {
    return store_grow(self, store, bytes, LAP_ALIGN, LAP_ALIGN, node_id);
}

int32_t lap_store_exact(lap_private *self, lap_store *store, int64_t bytes, int64_t align, int32_t node_id) {
    return store_grow(self, store, bytes, 0, align, node_id);
}

void lap_store_drop(lap_private *self, lap_store *store) {
    if (store->data) lap_root(self)->memory_used -= store->bytes + LAP_ALIGN;
    lap_memory_free(self, store->data);
    *store = (lap_store){0};
}

/* ---- guarded memory ---------------------------------------------------------------------------- */

/* The error of guarded memory that was written behind its first `bytes` bytes. */
static int32_t intact(lap_private *self, const char *what, int32_t index, const void *memory, int64_t bytes) {
    if (!memory) return LAPIDARY_OK;
    const uint8_t *data = memory;
    int64_t end = (int64_t)lap_os_guarded_bytes(memory);
    for (int64_t i = bytes; i < end; i++) {
        if (data[i] == LAP_OS_GUARD_BYTE) continue;
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, -1, index, i, "%s %d of %lld bytes was written at byte %lld", what,
                         (int)index, (long long)bytes, (long long)i);
    }
    return LAPIDARY_OK;
}

int32_t lap_temps_reset(lap_private *self) {
    int32_t code = LAPIDARY_OK;
    if (!lap_root(self)->guarded) {
        for (lap_temp_block *block = self->temps; block; block = block->next) block->used = 0;
        return code;
    }
    while (self->temps) {
        lap_temp_block *block = self->temps;
        int64_t head = (int64_t)sizeof *block;
        if (!code) code = intact(self, "temporary", 0, block, head + block->used);
        lap_root(self)->memory_used -= block->bytes + head;
        self->temps = block->next;
        lap_memory_free(self, block);
    }
    return code;
}

/* Nothing was written behind the buffers of a guarded context and its bodies. */
static int32_t all_intact(lap_private *self) {
    const lap_model_table *model = self->head.model;
    int32_t code = intact(self, "scratch", 0, self->worker.scratch, self->worker.scratch_bytes);
    for (int32_t s = 0; !code && s < model->n_segments; s++) {
        const lap_chunk *chunk = &self->chunks[s];
        for (int32_t i = 0; !code && chunk->guarded && i < chunk->n; i++) {
            code = intact(self, "buffer", chunk->index[i], chunk->guarded[i].data, chunk->guarded[i].bytes);
        }
    }
    for (int32_t i = 0; !code && i < model->head.n_inputs; i++) {
        code = intact(self, "input", i, self->given[i].copy.data, self->given[i].copy.bytes);
    }
    for (int32_t i = 0; !code && i < model->n_buffers; i++) {
        code = intact(self, "dynamic buffer", i, self->dynamic[i].data, self->dynamic[i].bytes);
    }
    for (int32_t i = 0; !code && i < model->head.n_outputs; i++) {
        code = intact(self, "output", i, self->made[i].own.data, self->made[i].own.bytes);
    }
    for (lap_private *child = self->children; !code && child; child = child->sibling) code = all_intact(child);
    return code;
}

/* ---- making and unmaking ----------------------------------------------------------------------- */

void lap_context_free(lap_private *self) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    while (self->children) {
        lap_private *next = self->children->sibling;
        lap_context_free(self->children);
        self->children = next;
    }
    for (int32_t i = 0; i < self->n_kept; i++) lap_memory_free(self, self->kept[i].data);
    for (int32_t i = 0; self->held && !self->is_variant && i < model->n_states; i++) {
        lap_memory_free(self, self->held[i].store.data);
    }
    for (int32_t i = 0; self->given && i < model->head.n_inputs; i++) lap_memory_free(self, self->given[i].copy.data);
    for (int32_t i = 0; self->made && i < model->head.n_outputs; i++) {
        lap_memory_free(self, self->made[i].own.data);
        lap_memory_free(self, self->made[i].tree.data);
    }
    for (int32_t i = 0; self->chunks && i < model->n_segments; i++) {
        lap_chunk *chunk = &self->chunks[i];
        lap_memory_free(self, chunk->store.data);
        for (int32_t k = 0; chunk->guarded && k < chunk->n; k++) lap_memory_free(self, chunk->guarded[k].data);
        free(chunk->guarded);
        free(chunk->index);
        free(chunk->first);
        free(chunk->last);
        free(chunk->sizes);
        free(chunk->offsets);
        free(chunk->scratch);
    }
    for (int32_t i = 0; self->dynamic && i < model->n_buffers; i++) lap_memory_free(self, self->dynamic[i].data);
    while (self->temps) {
        lap_temp_block *next = self->temps->next;
        lap_memory_free(self, self->temps);
        self->temps = next;
    }
    lap_memory_free(self, self->worker.scratch);
    free(self->kept);
    free(self->given);
    free(self->made);
    if (!self->is_variant) free(self->held);
    free(self->bound_by);
    free(self->chunks);
    free(self->dynamic);
    free(ctx->dims);
    free(ctx->sizes);
    free((void *)ctx->buffers);
    free(ctx->inputs);
    free(ctx->outputs);
    free(ctx->descs);
    lap_os_free(self);
}

static void destroy(lap_context *ctx) {
    if (!ctx) return;
    lap_private *self = lap_priv(ctx);
    if (self->own_pool) lap_pool_destroy(self->pool);
    for (int32_t i = 0; self->host_workers && i < self->n_host_workers; i++) {
        lap_os_free(self->host_workers[i].scratch);
    }
    free(self->host_workers);
    lap_weights_close(self->mapped);
    lap_context_free(self);
}

static void *zeroed(int32_t n, size_t size) { return calloc(n > 0 ? (size_t)n : 1, size); }

static int make_chunks(lap_private *self, const lap_model_table *model) {
    for (int32_t i = 0; i < model->n_buffers; i++) {
        if (model->buffers[i].output < 0) self->chunks[model->buffers[i].segment].n++;
        else self->made[model->buffers[i].output].buffer = i;
    }
    for (int32_t i = 0; i < model->n_segments; i++) {
        lap_chunk *chunk = &self->chunks[i];
        chunk->index = zeroed(chunk->n, sizeof *chunk->index);
        chunk->first = zeroed(chunk->n, sizeof *chunk->first);
        chunk->last = zeroed(chunk->n, sizeof *chunk->last);
        chunk->sizes = zeroed(chunk->n, sizeof *chunk->sizes);
        chunk->offsets = zeroed(chunk->n, sizeof *chunk->offsets);
        chunk->scratch = zeroed(chunk->n, sizeof *chunk->scratch);
        if (!chunk->index || !chunk->first || !chunk->last || !chunk->sizes || !chunk->offsets || !chunk->scratch) {
            return 0;
        }
        chunk->n = 0;
    }
    for (int32_t i = 0; i < model->n_buffers; i++) {
        const lap_buffer_info *info = &model->buffers[i];
        if (info->output >= 0) continue;
        lap_chunk *chunk = &self->chunks[info->segment];
        chunk->index[chunk->n] = i;
        chunk->first[chunk->n] = info->first;
        chunk->last[chunk->n++] = info->last;
    }
    return 1;
}

int lap_context_room(lap_private *self) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    const lapidary_model *head = &model->head;
    int32_t n_inputs = head->n_inputs; /* with stores */
    for (int32_t i = 0; i < model->n_states; i++) n_inputs += model->states[i].store >= 0;
    ctx->dims = zeroed(model->n_dims, sizeof *ctx->dims);
    ctx->sizes = zeroed(model->n_buffers, sizeof *ctx->sizes);
    ctx->buffers = zeroed(model->n_buffers, sizeof *ctx->buffers);
    ctx->inputs = zeroed(n_inputs, sizeof *ctx->inputs);
    ctx->outputs = zeroed(head->n_outputs, sizeof *ctx->outputs);
    ctx->descs = zeroed(model->n_descs, sizeof *ctx->descs);
    self->given = zeroed(head->n_inputs, sizeof *self->given);
    self->made = zeroed(head->n_outputs, sizeof *self->made);
    self->held = zeroed(model->n_states, sizeof *self->held);
    self->bound_by = zeroed(model->n_dims, sizeof *self->bound_by);
    self->chunks = zeroed(model->n_segments, sizeof *self->chunks);
    self->dynamic = zeroed(model->n_buffers, sizeof *self->dynamic);
    int ok = ctx->dims && ctx->sizes && ctx->buffers && ctx->inputs && ctx->outputs && ctx->descs && self->given &&
             self->made && self->held && self->bound_by && self->chunks && self->dynamic;
    if (ok) {
        for (int32_t i = 0; i < n_inputs; i++) ctx->inputs[i].buffer = -1;
        for (int32_t i = 0; i < head->n_inputs; i++) self->given[i].state = -1;
        for (int32_t i = 0; i < head->n_outputs; i++) {
            ctx->outputs[i].buffer = -1;
            self->made[i].buffer = -1;
            self->made[i].state = -1;
        }
        for (int32_t i = 0; i < model->n_states; i++) {
            self->given[model->states[i].input].state = i;
            self->made[model->states[i].output].state = i;
        }
        for (int32_t i = 0; i < model->n_descs; i++) ctx->descs[i].buffer = -1;
        ok = make_chunks(self, model);
    }
    if (!ok) return 0;
    for (int32_t i = 0; i < head->n_outputs; i++) ctx->outputs[i].buffer = self->made[i].buffer;
    return 1;
}

static const char *feature_names[64] = {
    [0] = "x86-64-v2", [1] = "AVX2 and FMA", [2] = "AVX-512 (F, BW, DQ, VL, CD)", [3] = "AVX-512 VNNI",
    [4] = "AVX-VNNI", [5] = "AVX-512 BF16", [6] = "AVX-512 FP16", [7] = "AMX tiles", [8] = "AMX BF16",
    [9] = "AMX INT8", [10] = "AVX-512 VBMI", [32] = "dot products", [33] = "f16 arithmetic",
    [34] = "int8 matrix products", [35] = "bf16",
};

static const char *feature_name(uint64_t features) {
    int bit = 0;
    while (!(features >> bit & 1)) bit++;
    return feature_names[bit] ? feature_names[bit] : "a feature unknown to this runtime";
}

static int32_t level_of(uint64_t features) {
    if (!(features & LAPIDARY_CPU_AVX2)) return LAPIDARY_LEVEL_BASELINE;
    return features & LAPIDARY_CPU_AVX512 ? LAPIDARY_LEVEL_V4 : LAPIDARY_LEVEL_V3;
}

static int32_t say(const lapidary_options *options, int32_t code, const char *text) {
    if (options->error_text && options->error_text_bytes) {
        snprintf(options->error_text, options->error_text_bytes, "%s", text);
    }
    return code;
}

static int32_t create(const lapidary_model *head, const lapidary_options *given, lapidary_context **out) {
    lapidary_options options = {0};
    char text[5000];
    if (!head || !out) return LAPIDARY_ERROR_ARGUMENT;
    *out = NULL;
    if (given) {
        size_t bytes = given->struct_bytes < sizeof options ? given->struct_bytes : sizeof options;
        memcpy(&options, given, bytes);
    }
    if (head->abi_version != LAPIDARY_ABI_VERSION || head->table_bytes < sizeof(lap_model_table)) {
        snprintf(text, sizeof text, "the model has ABI version %u, this runtime reads %u", head->abi_version,
                 LAPIDARY_ABI_VERSION);
        return say(&options, LAPIDARY_ERROR_ABI, text);
    }
    const lap_model_table *model = (const lap_model_table *)(const void *)head;
    uint64_t features = lap_cpu_features(), asked = options.cpu_features & ~LAPIDARY_CPU_BASE;
    if (asked & ~features) {
        snprintf(text, sizeof text, "the options allow %s, which this processor does not have",
                 feature_name(asked & ~features));
        return say(&options, LAPIDARY_ERROR_CPU, text);
    }
    if (options.cpu_features) features = asked;
    if (head->cpu_features & ~features) {
        snprintf(text, sizeof text, "model `%s` needs %s, which %s", head->name,
                 feature_name(head->cpu_features & ~features),
                 options.cpu_features ? "the options do not allow" : "this processor does not have");
        return say(&options, LAPIDARY_ERROR_CPU, text);
    }
    if (options.threads < 0 || (options.parallel_for && options.host_workers < 1)) {
        return say(&options, LAPIDARY_ERROR_ARGUMENT, "the number of threads or host workers is not positive");
    }

    if (lap_os_watch_forks()) return say(&options, LAPIDARY_ERROR_MEMORY, "no memory to watch for forks");

    lap_private *self = lap_os_alloc(sizeof *self);
    if (!self) return say(&options, LAPIDARY_ERROR_MEMORY, "no memory for a context");
    memset((void *)self, 0, sizeof *self);
    self->variant = -1;
    lap_context *ctx = &self->head;
    ctx->rt = &lap_runtime_table;
    ctx->model = model;
    ctx->level = level_of(features);
    self->features = features;
    if (!lap_context_room(self)) {
        destroy(ctx);
        return say(&options, LAPIDARY_ERROR_MEMORY, "no memory for a context");
    }
    self->memory_limit = options.memory_limit;
    self->guarded = (options.flags & LAPIDARY_GUARD_MEMORY) != 0;
    atomic_store(&self->timeout_ns, options.timeout_ns);
    self->worker.rt = &lap_runtime_table;

    int32_t code = LAPIDARY_OK;
    ctx->weights = model->weights;
    if (!model->weights && model->weights_file) {
        code = lap_weights_open(model, &options, &self->mapped, &ctx->weights, text, sizeof text);
        if (code) {
            destroy(ctx);
            return say(&options, code, text);
        }
    }
    lap_set_defaults(self, -1);
    lap_states_reset(self);
    if (options.parallel_for) {
        self->host_for = options.parallel_for;
        self->host = options.host;
        self->host_workers = zeroed(options.host_workers, sizeof *self->host_workers);
        if (!self->host_workers) {
            destroy(ctx);
            return say(&options, LAPIDARY_ERROR_MEMORY, "no memory for the host's workers");
        }
        self->n_host_workers = options.host_workers;
        for (int32_t i = 0; i < options.host_workers; i++) self->host_workers[i].index = i;
    } else if (options.pool) {
        self->pool = options.pool;
    } else if ((options.threads ? options.threads : lap_os_processors()) > 1) {
        code = lap_pool_create(options.threads, &self->pool);
        if (code) {
            destroy(ctx);
            return say(&options, code, "cannot start threads");
        }
        self->own_pool = 1;
    }
    *out = (lapidary_context *)(void *)ctx;
    return LAPIDARY_OK;
}

/* ---- a run ------------------------------------------------------------------------------------- */

/* Each buffer gets memory of its own. */
static int32_t place_guarded(lap_private *self, lap_chunk *chunk) {
    if (!chunk->guarded) chunk->guarded = zeroed(chunk->n, sizeof *chunk->guarded);
    if (!chunk->guarded) return lap_error(self, LAPIDARY_ERROR_MEMORY, -1, chunk->n, 0, "no memory for guarded buffers");
    for (int32_t i = 0; i < chunk->n; i++) {
        if (chunk->scratch[i] < 0) continue;
        int32_t code = lap_store_grow(self, &chunk->guarded[i], chunk->scratch[i], -1);
        if (code) return code;
        self->head.buffers[chunk->index[i]] = chunk->guarded[i].data;
    }
    return LAPIDARY_OK;
}

/* Finds memory for the segment's buffers, whose sizes are known now. */
static int32_t place(lap_private *self, int32_t segment) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    lap_chunk *chunk = &self->chunks[segment];
    for (int32_t i = 0; i < model->head.n_outputs; i++) {
        int32_t buffer = self->made[i].buffer;
        if (buffer < 0 || model->buffers[buffer].segment != segment) continue;
        ctx->buffers[buffer] = NULL;
        if (ctx->sizes[buffer] < 0) continue;
        int32_t code = lap_place_output(self, i, ctx->sizes[buffer], -1);
        if (code) return code;
        ctx->buffers[buffer] = ctx->outputs[i].data;
    }
    for (int32_t i = 0; i < chunk->n; i++) {
        int64_t size = ctx->sizes[chunk->index[i]];
        if (size < 0) ctx->buffers[chunk->index[i]] = NULL; /* until alloc_dynamic */
        chunk->scratch[i] = size < 0 ? -1 : size;
    }
    if (lap_root(self)->guarded) return place_guarded(self, chunk);
    if (chunk->planned && memcmp(chunk->scratch, chunk->sizes, (size_t)chunk->n * sizeof *chunk->sizes) == 0) {
        return LAPIDARY_OK;
    }
    chunk->planned = 0;
    memcpy(chunk->sizes, chunk->scratch, (size_t)chunk->n * sizeof *chunk->sizes);
    int64_t bytes = lap_plan(chunk->n, chunk->first, chunk->last, chunk->sizes, chunk->offsets);
    if (bytes < 0) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, -1, 0, 0, "the buffers of segment %d are too large",
                         (int)segment);
    }
    int32_t code = lap_store_grow(self, &chunk->store, bytes, -1);
    if (code) return code;
    for (int32_t i = 0; i < chunk->n; i++) {
        if (chunk->sizes[i] >= 0) ctx->buffers[chunk->index[i]] = (char *)chunk->store.data + chunk->offsets[i];
    }
    chunk->planned = 1;
    return LAPIDARY_OK;
}

/* Generated code that fails without an error would leave the caller without a reason. */
static int32_t because(lap_private *self, int32_t code, int32_t segment) {
    if (code && lap_root(self)->error_code == LAPIDARY_OK) {
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, -1, segment, code, "segment %d gave up with code %d",
                         (int)segment, (int)code);
    }
    return code ? lap_root(self)->error_code : LAPIDARY_OK;
}

static int32_t dims_of(lap_private *self, int32_t segment) {
    lap_context *ctx = &self->head;
    const lap_segment *code = &ctx->model->segments[segment];
    return code->dims_fn ? because(self, code->dims_fn(ctx), segment) : LAPIDARY_OK;
}

/* The dims of the first segment, with room in the stores of states. Where the stores are too small, dims computed with their
 * capacities may fail, or are computed once more. */
static int32_t dims_with_states(lap_private *self) {
    int changed = 0;
    int32_t code = dims_of(self, 0);
    if (code) {
        lap_root(self)->error_code = LAPIDARY_OK;
        lap_states_begin(self, 1);
        code = lap_bind_dims(self);
        if (!code) code = dims_of(self, 0);
    }
    if (!code) code = lap_states_place(self, &changed);
    if (!code && changed) code = dims_of(self, 0);
    if (!code) lap_states_outputs(self);
    return code;
}

static int32_t run_segment(lap_context *ctx, int32_t segment) {
    lap_private *self = lap_priv(ctx);
    const lap_segment *code = &ctx->model->segments[segment];
    int32_t result = lap_check(ctx, -1);
    int states = segment == 0 && ctx->model->n_states > 0;
    if (!result) result = states ? dims_with_states(self) : dims_of(self, segment);
    if (!result) result = place(self, segment);
    if (!result && code->run_fn) result = because(self, code->run_fn(ctx), segment);
    return result;
}

int32_t lap_run_segments(lap_private *self) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    lap_reset_outputs(self);
    for (int32_t s = 0; s < model->n_segments; s++) {
        int32_t code = run_segment(ctx, s);
        if (code) return code;
    }
    for (int32_t i = 0; i < model->head.n_outputs; i++) {
        if (ctx->outputs[i].data) continue;
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, -1, i, 0, "output `%s` was not made",
                         model->head.outputs[i].name);
    }
    return LAPIDARY_OK;
}

static int32_t run_all(lap_private *self) {
    int64_t timeout = atomic_load_explicit(&self->timeout_ns, memory_order_relaxed);
    self->deadline = 0;
    if (timeout > 0 && __builtin_add_overflow(lap_os_now(), timeout, &self->deadline)) self->deadline = INT64_MAX;
    const lap_model_table *model = self->head.model;
    self->variant = -1;
    lap_states_begin(self, 0);
    int32_t code = lap_bind_dims(self);
    if (!code) code = lap_gather_inputs(self);
    if (code) return code;
    int32_t variant = lap_variant_for(self);
    if (variant < model->n_variants) {
        code = lap_variant_run(self, variant);
    } else {
        code = lap_run_segments(self);
        if (!code) lap_states_keep(self);
    }
    if (!code) self->variant = variant;
    return code;
}

static int32_t query_all(lap_private *self) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    self->deadline = 0;
    lap_states_begin(self, 1);
    int32_t code = lap_bind_dims(self);
    if (code) return code;
    lap_reset_outputs(self);
    return model->n_segments > 0 ? dims_of(self, 0) : LAPIDARY_OK;
}

/* Runs `body` alone on the context, with the floating-point state that kernels are compiled for. */
static int32_t alone(lap_context *ctx, int32_t (*body)(lap_private *), lap_phase after) {
    lap_private *self = lap_priv(ctx);
    if (atomic_exchange_explicit(&self->running, 1, memory_order_acquire)) return LAPIDARY_ERROR_BUSY;
    self->error_code = LAPIDARY_OK;
    self->phase = LAP_PHASE_NEW;
#if defined(__SSE2__)
    unsigned int control = _mm_getcsr();
    _mm_setcsr(0x1f80);
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
#endif
    int32_t code = body(self);
#if defined(__SSE2__)
    _mm_setcsr(control);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
#endif
    const char *lost = self->mapped ? lap_weights_lost(self->mapped) : NULL;
    if (lost) {
        /* Whatever else went wrong came of the zeros. */
        self->error_code = LAPIDARY_OK;
        code = lap_error(self, LAPIDARY_ERROR_WEIGHTS, -1, 0, 0,
                         "file shrank while in use: %s (hint: open the library again, and replace files by renaming)",
                         lost);
    }
    int32_t broken = lap_temps_reset(self);
    if (self->guarded && !broken) {
        int32_t before = self->error_code;
        self->error_code = LAPIDARY_OK; /* what is broken matters more than what a run says of itself */
        broken = all_intact(self);
        if (!broken) self->error_code = before;
    }
    if (broken) code = broken;
    if (self->in_pool) lap_pool_leave(self->pool);
    self->in_pool = 0;
    if (!code) {
        self->phase = after;
        lap_publish_outputs(self);
    }
    atomic_store_explicit(&self->running, 0, memory_order_release);
    return code;
}

/* ---- the public functions ---------------------------------------------------------------------- */

static lap_context *own(lapidary_context *context) { return (lap_context *)(void *)context; }

static int32_t api_run(lapidary_context *c) { return alone(own(c), run_all, LAP_PHASE_RUN); }
static int32_t api_query(lapidary_context *c) { return alone(own(c), query_all, LAP_PHASE_QUERIED); }
static void api_destroy(lapidary_context *c) { destroy(own(c)); }

static int32_t api_set_input(lapidary_context *c, int32_t index, const lapidary_tensor *tensor) {
    return lap_api_set_input(own(c), index, tensor);
}

static int32_t api_bind_output(lapidary_context *c, int32_t index, const lapidary_tensor *tensor) {
    return lap_api_bind_output(own(c), index, tensor);
}

static const lapidary_tensor *api_output(lapidary_context *c, int32_t index) { return lap_api_output(own(c), index); }

static int32_t api_set_value(lapidary_context *c, int32_t index, const lapidary_value *value) {
    return lap_api_set_value(own(c), index, value);
}

static const lapidary_value *api_output_value(lapidary_context *c, int32_t index) {
    return lap_api_output_value(own(c), index);
}

static void api_last_error(lapidary_context *c, lapidary_error *error) {
    lap_private *self = lap_priv(own(c));
    const lap_model_table *model = self->error_model ? self->error_model : own(c)->model;
    if (!error) return;
    int32_t node = self->error_node;
    *error = (lapidary_error){.code = self->error_code, .node = -1, .message = ""};
    if (self->error_code == LAPIDARY_OK) return;
    error->a = self->error_a;
    error->b = self->error_b;
    error->message = self->error_text;
    if (node >= 0 && node < model->n_nodes) {
        error->node = node;
        error->node_name = model->node_names[node];
    }
}

static int32_t api_set_cancel(lapidary_context *c, int32_t on) {
    atomic_store(&own(c)->cancel, on != 0);
    return LAPIDARY_OK;
}

static int32_t api_set_timeout(lapidary_context *c, int64_t nanoseconds) {
    atomic_store(&lap_priv(own(c))->timeout_ns, nanoseconds > 0 ? nanoseconds : 0);
    return LAPIDARY_OK;
}

static int32_t api_set_memory_limit(lapidary_context *c, int64_t bytes) {
    lap_private *self = lap_priv(own(c));
    if (atomic_load(&self->running)) return LAPIDARY_ERROR_BUSY;
    self->memory_limit = bytes > 0 ? bytes : 0;
    return LAPIDARY_OK;
}

static int32_t api_reset_states(lapidary_context *c) {
    lap_private *self = lap_priv(own(c));
    if (atomic_load(&self->running)) return LAPIDARY_ERROR_BUSY;
    self->error_code = LAPIDARY_OK;
    self->phase = LAP_PHASE_NEW;
    lap_states_reset(self);
    self->draws = 0;
    return LAPIDARY_OK;
}

static const char *api_variant(lapidary_context *c) {
    lap_private *self = lap_priv(own(c));
    const lap_model_table *model = self->head.model;
    if (atomic_load(&self->running) || self->variant < 0) return NULL;
    return self->variant < model->n_variants ? model->variants[self->variant]->head.name : "general";
}

static int32_t api_cpu_level(lapidary_context *c) {
    int32_t level = own(c)->level;
    while (level > 0 && !(own(c)->model->levels >> level & 1)) level--;
    return level;
}

static int64_t api_memory_used(lapidary_context *c) { return lap_priv(own(c))->memory_used; }

/* Every version of the runtime defines this. A program that gets two of them has two definitions: the linker says so, and
 * does not take some functions of one and some of the other. */
extern const char lap_a_program_has_runtimes_of_two_versions_of_lapidary;
const char lap_a_program_has_runtimes_of_two_versions_of_lapidary = 1;

const lapidary_api lap_api_table = {
    .abi_version = LAPIDARY_ABI_VERSION,
    .api_bytes = sizeof(lapidary_api),
    .context_create = create,
    .context_destroy = api_destroy,
    .pool_create = lap_pool_create,
    .pool_destroy = lap_pool_destroy,
    .set_input = api_set_input,
    .bind_output = api_bind_output,
    .query_outputs = api_query,
    .run = api_run,
    .output = api_output,
    .last_error = api_last_error,
    .set_cancel = api_set_cancel,
    .set_timeout = api_set_timeout,
    .set_memory_limit = api_set_memory_limit,
    .memory_used = api_memory_used,
    .cpu_features = lap_cpu_features,
    .set_value = api_set_value,
    .output_value = api_output_value,
    .reset_states = api_reset_states,
    .variant = api_variant,
    .cpu_level = api_cpu_level,
};
