/* A context from inside: what stands behind the head that generated code knows. */
#ifndef LAP_CONTEXT_H
#define LAP_CONTEXT_H

#include "lap_internal.h"
#include "pool.h"

/* Memory that grows and is kept. */
typedef struct lap_store {
    void *data;
    int64_t bytes; /* held */
} lap_store;

/* An input as the caller gave it. */
typedef struct lap_given {
    int32_t set;
    int32_t contiguous;
    void *data;
    int64_t strides[LAP_MAX_RANK]; /* in elements */
    lap_store copy;
    int32_t state; /* the state that it is read from, or -1 */
} lap_given;

/* A state between runs. */
typedef struct lap_held {
    lap_store store;
    int64_t capacity; /* rows that the store has room for, if it grows in place */
    int32_t known; /* it has a value: given, a default, or made by a run */
    int32_t rank;
    int64_t dims[LAP_MAX_RANK];
} lap_held;

/* An output: bound by the caller, or the context's own. */
typedef struct lap_made {
    int32_t bound;
    int32_t bound_rank;
    void *bound_data;
    int64_t bound_dims[LAP_MAX_RANK];
    int32_t buffer; /* the buffer that it is, or -1 */
    int32_t state; /* the state that it becomes, or -1 */
    lap_store own;
    lapidary_tensor view; /* what the caller reads */
    lap_store tree; /* a container as the caller reads it */
} lap_made;

/* One segment's arena. */
typedef struct lap_chunk {
    int32_t n; /* buffers of the segment that are no outputs */
    int32_t planned; /* `sizes` and `offsets` hold a plan */
    int32_t *index; /* n, of the buffers */
    int32_t *first; /* n */
    int32_t *last; /* n */
    int64_t *sizes; /* n, of the plan */
    int64_t *offsets; /* n */
    int64_t *scratch; /* n, the sizes asked for now */
    lap_store store;
    lap_store *guarded; /* n, each buffer's own memory in guarded contexts; NULL elsewhere */
} lap_chunk;

typedef struct lap_temp_block {
    struct lap_temp_block *next;
    int64_t bytes; /* behind the header */
    int64_t used;
    uint8_t pad[40];
} lap_temp_block;
_Static_assert(sizeof(lap_temp_block) == 64, "lap_temp_block");

typedef enum lap_phase { LAP_PHASE_NEW = 0, LAP_PHASE_QUERIED = 1, LAP_PHASE_RUN = 2 } lap_phase;

/* A context runs a model, or (a child) a body of a region of the model. What the whole run has once is the root's:
 * threads, deadline, cancel, the memory account, the error; see lap_root. */
typedef struct lap_private {
    lap_context head; /* first: a lap_context* is a lap_private* */
    struct lap_private *root; /* of a child; NULL: this is the root */
    struct lap_private *children; /* made at their first use */
    struct lap_private *sibling; /* the parent's next child */
    lap_store *kept; /* n_kept, what a region keeps between the iterations of this body */
    int32_t n_kept;
    _Atomic int32_t running;
    lap_phase phase; /* what the last call has left to read */
    lap_given *given;
    lap_made *made;
    lap_held *held; /* n_states; a variant's are its root's */
    int32_t is_variant;
    int32_t variant; /* that the last run took; n_variants: the general one; -1: none yet */
    int32_t *bound_by; /* n_dims: the dim_bind that set the slot, or -1 */
    lap_chunk *chunks; /* n_segments */
    lap_store *dynamic; /* n_buffers */
    lap_temp_block *temps;
    lap_worker worker; /* of the caller's thread */
    lapidary_pool *pool;
    int32_t own_pool;
    int32_t in_pool; /* this run has entered it */
    lapidary_parallel_for_fn host_for;
    void *host;
    lap_worker *host_workers;
    int32_t n_host_workers;
    int64_t memory_limit;
    int64_t memory_used;
    int32_t guarded; /* LAPIDARY_GUARD_MEMORY */
    uint64_t features; /* that code may use; the root's */
    _Atomic int64_t timeout_ns;
    int64_t deadline;
    uint64_t draws, entropy; /* of random numbers; entropy 0: not chosen yet */
    uint32_t entropy_forks; /* lap_os_forks when it was chosen */
    struct lap_weights *mapped;
    int32_t error_code;
    int32_t error_node;
    const lap_model_table *error_model; /* whose node it is */
    int64_t error_a, error_b;
    char error_text[768];
} lap_private;

static inline lap_private *lap_priv(lap_context *ctx) { return (lap_private *)(void *)ctx; }
static inline lap_private *lap_root(lap_private *self) { return self->root ? self->root : self; }

/* child.c: bodies of regions. */
/* The child that runs `table`, made at its first use with room for `kept` stores. NULL after an error. */
lap_private *lap_child(lap_context *parent, const lap_model_table *table, int32_t kept, int32_t node_id);
/* Runs a child whose inputs are set; an error without a node of the body names the region. */
int32_t lap_child_run(lap_context *parent, lap_private *child, int32_t node_id);
/* Gives a child an input: the elements are borrowed. */
int32_t lap_child_input(lap_context *parent, lap_private *child, int32_t index, const lap_tensor *value, int32_t node_id);

/* Makes room for `bytes` (and 64 more to read past the end); content is lost when it grows. Not zero: the
 * error is set. The context's memory limit is kept. */
int32_t lap_store_grow(lap_private *self, lap_store *store, int64_t bytes, int32_t node_id);
/* The same for an input or output, which could be the caller's memory: in a guarded context it is aligned to an element
 * alone (`align`), and nothing behind it may be read. */
int32_t lap_store_exact(lap_private *self, lap_store *store, int64_t bytes, int64_t align, int32_t node_id);
/* Counts `bytes` more against the limit. Not zero: the error is set, and nothing is counted. */
int32_t lap_memory_take(lap_private *self, int64_t bytes, int32_t node_id);
int32_t lap_error(lap_private *self, int32_t code, int32_t node_id, int64_t a, int64_t b, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* variants.c */
/* The variant whose fixed dims are those of the inputs; n_variants: none is. */
int32_t lap_variant_for(const lap_private *self);
/* Runs a variant on the inputs of its root, which are bound and gathered, and makes its outputs the root's. */
int32_t lap_variant_run(lap_private *self, int32_t variant);

/* context.c */
/* Memory of a context, aligned to 64 bytes; NULL when there is none. */
void *lap_memory_new(lap_private *self, int64_t bytes);
void lap_memory_free(lap_private *self, void *memory);
/* Gives the temporaries of a kernel back. Not zero: one was written behind its end, and the error is set. */
int32_t lap_temps_reset(lap_private *self);
/* Gives a store's memory back. */
void lap_store_drop(lap_private *self, lap_store *store);
/* The memory of a context that has its root, `head.rt` and `head.model` already. 0: none. */
int lap_context_room(lap_private *self);
void lap_context_free(lap_private *self);
int32_t lap_run_segments(lap_private *self);

/* states.c */
/* All states are as in a new context. */
void lap_states_reset(lap_private *self);
/* Makes a contiguous tensor, which the input's descriptor describes, the state's value; NULL: its initial one. */
int32_t lap_state_give(lap_private *self, int32_t at, const void *data);
/* Describes the inputs that are states, before dims are bound; `unbounded`: as if all stores were large enough. */
void lap_states_begin(lap_private *self, int unbounded);
/* Fails if binding has left a dim of a state open. */
int32_t lap_states_bound(lap_private *self);
/* Gives the stores room for what the run adds; `changed`: dims that depend on capacities must be computed again. */
int32_t lap_states_place(lap_private *self, int *changed);
/* Says where the outputs lie that are stores. */
void lap_states_outputs(lap_private *self);
/* Makes the outputs of a run that has succeeded the next run's inputs. */
void lap_states_keep(lap_private *self);

/* rt.c: names the node of an error that has none yet. */
void lap_blame(lap_private *self, int32_t node_id);

/* values.c */
/* Gives inputs their defaults; `index` -1: all. */
void lap_set_defaults(lap_private *self, int32_t index);
int32_t lap_api_set_input(lap_context *ctx, int32_t index, const lapidary_tensor *tensor);
int32_t lap_api_bind_output(lap_context *ctx, int32_t index, const lapidary_tensor *tensor);
const lapidary_tensor *lap_api_output(lap_context *ctx, int32_t index);
/* border.c */
int32_t lap_api_set_value(lap_context *ctx, int32_t index, const lapidary_value *value);
const lapidary_value *lap_api_output_value(lap_context *ctx, int32_t index);
/* Fails unless the tensor's type is that of an input or output. */
int32_t lap_check_tensor(
    lap_private *self, int32_t code, const char *role, const lapidary_value_info *info, const lapidary_tensor *tensor);
/* What a caller reads of a tensor. */
void lap_view_tensor(lap_tensor *tensor, lapidary_tensor *view);
/* Reads dims from the inputs into the slots; checks fixed dims and equal symbols. */
int32_t lap_bind_dims(lap_private *self);
/* Makes ctx->inputs contiguous. */
int32_t lap_gather_inputs(lap_private *self);
void lap_reset_outputs(lap_private *self);
/* Finds the memory of an output whose shape is known: the caller's or the context's. */
int32_t lap_place_output(lap_private *self, int32_t output, int64_t bytes, int32_t node_id);
/* Makes the views that the caller reads. */
void lap_publish_outputs(lap_private *self);

/* weights.c: files mapped once for all contexts of a process, or what the host gives instead. `*weights` stays NULL
 * where the blob lies in the host's memory. */
typedef struct lap_weights lap_weights;
int32_t lap_weights_open(
    const lap_model_table *model, const lapidary_options *options, lap_weights **weights, const uint8_t **blob,
    char *text, size_t text_bytes);
/* The file's path if it shrank while it was mapped, otherwise NULL. */
const char *lap_weights_lost(const lap_weights *weights);
void lap_weights_close(lap_weights *weights);

#endif
