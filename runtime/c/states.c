/* States: outputs of one run that are inputs of the next (docs/states.md).
 *
 * One that grows in place lies in a store with room for `capacity` rows along its axis, between any two indices of the
 * axes before it, so that a run writes new rows behind the old ones and moves nothing. Capacities are shared
 * by all stores of one dims slot, and double. Any other state is an output's memory that becomes the input's after the run.
 * A run that fails changes no state. */
#include <string.h>

#include "context.h"

/* The fewest rows of a store. */
enum { LEAST_ROWS = 16 };
/* A capacity that no state reaches: dims computed with it tell how much is needed. */
static const int64_t UNBOUNDED = (int64_t)1 << 32;

static const lap_state *state_at(const lap_private *self, int32_t at) { return &self->head.model->states[at]; }
static int in_place(const lap_state *state) { return state->store >= 0; }

/* Bytes of one row, and how many runs of rows there are. Not zero: they overflow. */
static int rows_of(const lap_tensor *tensor, int32_t axis, int64_t *runs, int64_t *row_bytes) {
    *runs = lap_count(axis, tensor->dims);
    int64_t tail = lap_count(tensor->rank - axis - 1, tensor->dims + axis + 1);
    return *runs < 0 || tail < 0 || __builtin_mul_overflow(tail, lap_dtype_bytes(tensor->dtype), row_bytes);
}

/* Gives a store in place room for `capacity` rows; the first `rows` are kept. */
static int32_t make_room(
    lap_private *self, const lap_state *state, lap_held *held, const lap_tensor *shape, int64_t rows, int64_t capacity) {
    int64_t runs, row_bytes, bytes, all;
    if (rows_of(shape, state->axis, &runs, &row_bytes) || __builtin_mul_overflow(capacity, row_bytes, &bytes) ||
        __builtin_mul_overflow(bytes, runs, &all) || all > INT64_MAX / 4) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, -1, capacity, 0, "state `%s` is too large for %lld rows",
                         self->head.model->head.inputs[state->input].name, (long long)capacity);
    }
    if (held->store.data && held->store.bytes >= all && (rows == 0 || held->capacity == capacity)) {
        held->capacity = capacity;
        return LAPIDARY_OK;
    }
    lap_store grown = {0};
    int32_t code = lap_store_grow(self, &grown, all, -1);
    if (code) return code;
    memset(grown.data, 0, (size_t)all); /* rows that are not written yet lie within views of the store */
    for (int64_t run = 0; rows > 0 && run < runs; run++) {
        memcpy((char *)grown.data + run * bytes, (char *)held->store.data + run * held->capacity * row_bytes,
               (size_t)(rows * row_bytes));
    }
    lap_store_drop(self, &held->store);
    held->store = grown;
    held->capacity = capacity;
    return LAPIDARY_OK;
}

/* The rows that all stores of a slot have room for. */
static int64_t capacity_of(const lap_private *self, int32_t slot) {
    int64_t most = 0;
    for (int32_t i = 0; i < self->head.model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        if (in_place(state) && state->capacity == slot && self->held[i].capacity > most) most = self->held[i].capacity;
    }
    return most;
}

static int64_t rounded(int64_t rows) {
    int64_t capacity = LEAST_ROWS;
    while (capacity < rows) capacity *= 2;
    return capacity;
}

/* ---- initial values ------------------------------------------------------------------------------------ */

/* The state as the next run reads it. */
static void show(lap_private *self, int32_t at) {
    const lap_state *state = state_at(self, at);
    const lapidary_value_info *info = &self->head.model->head.inputs[state->input];
    lap_held *held = &self->held[at];
    lap_tensor *input = &self->head.inputs[state->input];
    input->dtype = info->dtype;
    input->kind = LAP_KIND_TENSOR;
    input->buffer = -1;
    if (held->known) {
        input->rank = held->rank;
        memcpy(input->dims, held->dims, sizeof held->dims);
        lap_contiguous_strides(input);
        return;
    }
    /* Nothing yet: no rows, and what is not fixed is what the other inputs say. */
    input->rank = info->rank;
    for (int32_t i = 0; i < info->rank; i++) input->dims[i] = i == state->axis ? 0 : info->dims[i];
}

static void forget(lap_private *self, int32_t at) {
    const lap_state *state = state_at(self, at);
    lap_given *given = &self->given[state->input];
    lap_held *held = &self->held[at];
    held->known = 0;
    given->set = 0;
    given->data = NULL;
    lap_set_defaults(self, state->input);
    if (given->set) {
        const lap_tensor *input = &self->head.inputs[state->input];
        held->known = 1;
        held->rank = input->rank;
        memcpy(held->dims, input->dims, sizeof held->dims);
    }
    given->set |= state->axis >= 0;
    given->contiguous = 1;
    if (given->set) show(self, at);
}

void lap_states_reset(lap_private *self) {
    for (int32_t i = 0; i < self->head.model->n_states; i++) forget(self, i);
}

static int within(const lap_store *store, const void *data) {
    const char *at = data, *from = store->data;
    return from && at >= from && at < from + store->bytes;
}

/* Copies a contiguous value into the state's store. `data` may lie in the store itself. */
static int32_t fill_in_place(lap_private *self, const lap_state *state, lap_held *held, const lap_tensor *value, const void *data) {
    int64_t rows = value->dims[state->axis], capacity = capacity_of(self, state->capacity), runs, row_bytes;
    if (rows > UNBOUNDED) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, -1, rows, UNBOUNDED, "a state of %lld rows is too large",
                         (long long)rows);
    }
    if (rows > capacity || capacity == 0) capacity = rounded(rows);
    lap_store old = {0};
    if (within(&held->store, data)) {
        old = held->store;
        held->store = (lap_store){0};
    }
    int32_t code = make_room(self, state, held, value, 0, capacity);
    if (code) {
        if (old.data) held->store = old;
        return code;
    }
    if (rows_of(value, state->axis, &runs, &row_bytes)) runs = 0; /* make_room has counted them */
    for (int64_t run = 0; rows > 0 && run < runs; run++) {
        memcpy((char *)held->store.data + run * capacity * row_bytes, (const char *)data + run * rows * row_bytes,
               (size_t)(rows * row_bytes));
    }
    lap_store_drop(self, &old);
    return LAPIDARY_OK;
}

static int32_t fill_exchanged(lap_private *self, lap_held *held, const lap_tensor *value, const void *data) {
    int64_t bytes = lap_count(value->rank, value->dims) * lap_dtype_bytes(value->dtype);
    if (held->store.data && held->store.bytes >= bytes) {
        memmove(held->store.data, data, (size_t)bytes); /* it may be the state itself */
        return LAPIDARY_OK;
    }
    lap_store grown = {0};
    int32_t code = lap_store_grow(self, &grown, bytes, -1);
    if (code) return code;
    memcpy(grown.data, data, (size_t)bytes);
    lap_store_drop(self, &held->store);
    held->store = grown;
    return LAPIDARY_OK;
}

int32_t lap_state_give(lap_private *self, int32_t at, const void *data) {
    const lap_state *state = state_at(self, at);
    lap_given *given = &self->given[state->input];
    lap_held *held = &self->held[at];
    const lap_tensor *input = &self->head.inputs[state->input];
    if (!data) {
        forget(self, at);
        return LAPIDARY_OK;
    }
    int32_t code = in_place(state) ? fill_in_place(self, state, held, input, data) : fill_exchanged(self, held, input, data);
    if (code) return code;
    if (!in_place(state)) given->data = held->store.data;
    held->rank = input->rank;
    memcpy(held->dims, input->dims, sizeof held->dims);
    held->known = 1;
    given->set = 1;
    given->contiguous = 1;
    return LAPIDARY_OK;
}

/* ---- a run ------------------------------------------------------------------------------------------------ */

void lap_states_begin(lap_private *self, int unbounded) {
    for (int32_t i = 0; i < self->head.model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        if (self->given[state->input].set) show(self, i);
        if (in_place(state)) self->head.dims[state->capacity] = unbounded ? UNBOUNDED : capacity_of(self, state->capacity);
    }
}

int32_t lap_states_bound(lap_private *self) {
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        const lap_tensor *input = &ctx->inputs[state->input];
        for (int32_t axis = 0; axis < input->rank; axis++) {
            if (input->dims[axis] >= 0) continue;
            return lap_error(self, LAPIDARY_ERROR_INPUT, -1, axis, 0,
                             "axis %d of state `%s` is known by no other input: give the state an initial value",
                             (int)axis, ctx->model->head.inputs[state->input].name);
        }
    }
    return LAPIDARY_OK;
}

/* Room for what this run will add to the stores of one slot. */
static int32_t grow_slot(lap_private *self, int32_t slot) {
    lap_context *ctx = &self->head;
    int64_t needed = 0, capacity = capacity_of(self, slot);
    for (int32_t i = 0; i < ctx->model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        if (!in_place(state) || state->capacity != slot) continue;
        int64_t rows = ctx->outputs[state->output].dims[state->axis];
        if (rows > needed) needed = rows;
    }
    if (needed > UNBOUNDED) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, -1, needed, UNBOUNDED, "a state of %lld rows is too large",
                         (long long)needed);
    }
    if (needed > capacity || capacity == 0) capacity = rounded(needed);
    for (int32_t i = 0; i < ctx->model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        if (!in_place(state) || state->capacity != slot) continue;
        lap_tensor *input = &ctx->inputs[state->input];
        int64_t rows = input->dims[state->axis];
        int32_t code = make_room(self, state, &self->held[i], input, rows, capacity);
        if (code) return code;
    }
    ctx->dims[slot] = capacity;
    return LAPIDARY_OK;
}

int32_t lap_states_place(lap_private *self, int *changed) {
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        if (!in_place(state)) continue;
        int64_t before = ctx->dims[state->capacity];
        int first = 1;
        for (int32_t j = 0; j < i; j++) first &= !in_place(state_at(self, j)) || state_at(self, j)->capacity != state->capacity;
        int32_t code = first ? grow_slot(self, state->capacity) : LAPIDARY_OK;
        if (code) return code;
        if (ctx->dims[state->capacity] != before) *changed = 1;
        lap_tensor *input = &ctx->inputs[state->input], *store = &ctx->inputs[state->store];
        input->data = self->held[i].store.data;
        *store = *input;
        store->dims[state->axis] = ctx->dims[state->capacity];
    }
    return LAPIDARY_OK;
}

void lap_states_outputs(lap_private *self) {
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        if (!in_place(state)) continue;
        lap_tensor *output = &ctx->outputs[state->output];
        output->data = self->held[i].store.data;
        lap_contiguous_strides(output);
        int64_t rows = output->dims[state->axis];
        for (int32_t axis = 0; axis < state->axis; axis++) {
            output->strides[axis] = rows > 0 ? output->strides[axis] / rows * ctx->dims[state->capacity] : 0;
        }
    }
}

void lap_states_keep(lap_private *self) {
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->n_states; i++) {
        const lap_state *state = state_at(self, i);
        const lap_tensor *output = &ctx->outputs[state->output];
        lap_held *held = &self->held[i];
        if (!in_place(state)) {
            lap_made *made = &self->made[state->output];
            lap_store past = held->store;
            held->store = made->own;
            made->own = past;
            lap_root(self)->given[state->input].data = held->store.data;
        }
        held->known = 1;
        held->rank = output->rank;
        memcpy(held->dims, output->dims, sizeof held->dims);
        lap_root(self)->given[state->input].set = 1;
    }
}
