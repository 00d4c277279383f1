/* Values at the border: the caller's tensors in, the model's tensors out.
 *
 * Inputs are checked against the table when they are set (dtype, rank, fixed dims) and against each other
 * when a run binds the symbols. Inside a run every tensor is contiguous: others are copied first. */
#include <string.h>

#include "context.h"

/* ---- dtypes ---------------------------------------------------------------------------------- */

typedef struct dtype_row {
    const char *name;
    uint8_t bytes; /* in memory: sub-byte types take one */
    uint8_t code; /* DLPack */
    uint8_t bits; /* DLPack */
} dtype_row;

static const dtype_row dtypes[] = {
    [LAPIDARY_F32] = {"f32", 4, 2, 32},          [LAPIDARY_U8] = {"u8", 1, 1, 8},
    [LAPIDARY_I8] = {"i8", 1, 0, 8},             [LAPIDARY_U16] = {"u16", 2, 1, 16},
    [LAPIDARY_I16] = {"i16", 2, 0, 16},          [LAPIDARY_I32] = {"i32", 4, 0, 32},
    [LAPIDARY_I64] = {"i64", 8, 0, 64},          [LAPIDARY_STRING] = {"string", 0, 3, 64},
    [LAPIDARY_BOOL] = {"bool", 1, 6, 8},         [LAPIDARY_F16] = {"f16", 2, 2, 16},
    [LAPIDARY_F64] = {"f64", 8, 2, 64},          [LAPIDARY_U32] = {"u32", 4, 1, 32},
    [LAPIDARY_U64] = {"u64", 8, 1, 64},          [LAPIDARY_C64] = {"c64", 8, 5, 64},
    [LAPIDARY_C128] = {"c128", 16, 5, 128},      [LAPIDARY_BF16] = {"bf16", 2, 4, 16},
    [LAPIDARY_F8E4M3FN] = {"f8e4m3fn", 1, 10, 8}, [LAPIDARY_F8E4M3FNUZ] = {"f8e4m3fnuz", 1, 11, 8},
    [LAPIDARY_F8E5M2] = {"f8e5m2", 1, 12, 8},    [LAPIDARY_F8E5M2FNUZ] = {"f8e5m2fnuz", 1, 13, 8},
    [LAPIDARY_U4] = {"u4", 1, 1, 4},             [LAPIDARY_I4] = {"i4", 1, 0, 4},
    [LAPIDARY_F4E2M1] = {"f4e2m1", 1, 17, 4},    [LAPIDARY_F8E8M0] = {"f8e8m0", 1, 14, 8},
    [LAPIDARY_U2] = {"u2", 1, 1, 2},             [LAPIDARY_I2] = {"i2", 1, 0, 2},
    [LAPIDARY_F6E2M3] = {"f6e2m3", 1, 15, 6},    [LAPIDARY_F6E3M2] = {"f6e3m2", 1, 16, 6},
};
#define N_DTYPES ((int32_t)(sizeof dtypes / sizeof *dtypes))

static const dtype_row *row_of(int32_t dtype) {
    static const dtype_row unknown = {"unknown", 0, 255, 0};
    return dtype > 0 && dtype < N_DTYPES ? &dtypes[dtype] : &unknown;
}

int64_t lap_dtype_bytes(int32_t dtype) { return row_of(dtype)->bytes; }

int64_t lap_count(int32_t rank, const int64_t *dims) {
    int64_t count = 1;
    int zero = 0;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] < 0) return -1;
        zero |= dims[i] == 0;
    }
    if (zero) return 0;
    for (int32_t i = 0; i < rank; i++) {
        if (__builtin_mul_overflow(count, dims[i], &count)) return -1;
    }
    return count;
}

void lap_contiguous_strides(lap_tensor *tensor) {
    uint64_t step = 1; /* may wrap where another dim is 0 */
    for (int32_t i = tensor->rank - 1; i >= 0; i--) {
        tensor->strides[i] = (int64_t)step;
        step *= tensor->dims[i] > 0 ? (uint64_t)tensor->dims[i] : 1;
    }
}

/* Contiguous as far as its elements can tell: strides of dims of 0 or 1 do not count. */
static int is_contiguous(int32_t rank, const int64_t *dims, const int64_t *strides) {
    int64_t step = 1;
    if (lap_count(rank, dims) <= 0) return 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        if (dims[i] != 1 && strides[i] != step) return 0;
        step *= dims[i];
    }
    return 1;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

/* What is wrong with a tensor for this value, as an error; dims are not compared. */
int32_t lap_check_tensor(
    lap_private *self, int32_t code, const char *role, const lapidary_value_info *info, const lapidary_tensor *tensor) {
    if (tensor->device.device_type != 1) {
        return lap_error(self, code, -1, (int64_t)tensor->device.device_type, 1,
                         "%s `%s`: its memory is not on the CPU", role, info->name);
    }
    const dtype_row *want = row_of(info->dtype);
    if (tensor->dtype.code != want->code || tensor->dtype.bits != want->bits || tensor->dtype.lanes != 1) {
        const char *found = "another type";
        for (int32_t i = 1; i < N_DTYPES; i++) {
            if (dtypes[i].code == tensor->dtype.code && dtypes[i].bits == tensor->dtype.bits) found = dtypes[i].name;
        }
        return lap_error(self, code, -1, 0, 0, "%s `%s`: expected dtype %s, found %s", role, info->name,
                         want->name, found);
    }
    if (tensor->ndim < 0 || tensor->ndim > LAP_MAX_RANK || (tensor->ndim > 0 && !tensor->shape)) {
        return lap_error(self, code, -1, tensor->ndim, LAP_MAX_RANK, "%s `%s`: rank %d is not in 0..=%d", role,
                         info->name, (int)tensor->ndim, LAP_MAX_RANK);
    }
    if (info->rank >= 0 && tensor->ndim != info->rank) {
        return lap_error(self, code, -1, tensor->ndim, info->rank, "%s `%s`: expected rank %d, found rank %d", role,
                         info->name, (int)info->rank, (int)tensor->ndim);
    }
    int64_t count = lap_count(tensor->ndim, tensor->shape), bytes;
    if (count < 0 || __builtin_mul_overflow(count, want->bytes, &bytes) || bytes > INT64_MAX / 4) {
        return lap_error(self, code, -1, 0, 0, "%s `%s`: its dims are negative or too large", role, info->name);
    }
    return LAPIDARY_OK;
}

void lap_set_defaults(lap_private *self, int32_t index) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    for (int64_t d = 0; d < model->n_defaults; d++) {
        const lap_default *value = &model->defaults[d];
        if (index >= 0 && value->input != index) continue;
        lap_given *given = &self->given[value->input];
        lap_tensor *input = &ctx->inputs[value->input];
        input->dtype = model->head.inputs[value->input].dtype;
        input->rank = value->rank;
        for (int32_t i = 0; i < value->rank; i++) input->dims[i] = value->dims[i];
        lap_contiguous_strides(input);
        for (int32_t i = 0; i < value->rank; i++) given->strides[i] = input->strides[i];
        const char *data = value->data ? (const char *)value->data : (const char *)ctx->weights + value->offset;
        given->data = (char *)(uintptr_t)data; /* inputs are only read */
        given->contiguous = 1;
        given->set = 1;
    }
}

static void gather(char *to, const char *from, int64_t size, int32_t rank, const int64_t *dims, const int64_t *strides);

/* Copies an input that was set into the state that it is the initial value of. */
static int32_t give_state(lap_private *self, int32_t index) {
    static const char nothing[64];
    lap_given *given = &self->given[index];
    const lap_tensor *input = &self->head.inputs[index];
    int64_t size = lap_dtype_bytes(input->dtype), count = lap_count(input->rank, input->dims);
    if (!given->data && count != 0) {
        return lap_error(self, LAPIDARY_ERROR_INPUT, -1, index, 0, "state `%s` has no data",
                         self->head.model->head.inputs[index].name);
    }
    if (count == 0 || given->contiguous) return lap_state_give(self, given->state, count ? given->data : nothing);
    int32_t code = lap_store_grow(self, &given->copy, count * size, -1);
    if (code) return code;
    gather(given->copy.data, given->data, size, input->rank, input->dims, given->strides);
    code = lap_state_give(self, given->state, given->copy.data);
    lap_store_drop(self, &given->copy);
    return code;
}

static int32_t set_tensor(lap_private *self, int32_t index, const lapidary_tensor *tensor) {
    lap_given *given = &self->given[index];
    lap_tensor *input = &self->head.inputs[index];
    const lapidary_value_info *info = &self->head.model->head.inputs[index];
    given->set = 0;
    if (!tensor) {
        if (given->state >= 0) return lap_state_give(self, given->state, NULL);
        lap_set_defaults(self, index);
        return LAPIDARY_OK;
    }
    if (info->containers) {
        return lap_error(self, LAPIDARY_ERROR_INPUT, -1, info->containers[1], 0,
                         "input `%s` is no tensor: set it as a value", info->name);
    }
    int32_t code = lap_check_tensor(self, LAPIDARY_ERROR_INPUT, "input", info, tensor);
    if (code) return code;
    for (int32_t i = 0; i < info->rank; i++) {
        if (info->dims && info->dims[i] >= 0 && tensor->shape[i] != info->dims[i]) {
            const char *name = info->dim_names ? info->dim_names[i] : NULL;
            return lap_error(self, LAPIDARY_ERROR_INPUT, -1, tensor->shape[i], info->dims[i],
                             "input `%s`: axis %d%s%s%s must be %lld, found %lld", info->name, (int)i,
                             name ? " (`" : "", name ? name : "", name ? "`)" : "", (long long)info->dims[i],
                             (long long)tensor->shape[i]);
        }
    }
    input->dtype = info->dtype;
    input->rank = tensor->ndim;
    for (int32_t i = 0; i < tensor->ndim; i++) input->dims[i] = tensor->shape[i];
    lap_contiguous_strides(input);
    for (int32_t i = 0; i < tensor->ndim; i++) {
        given->strides[i] = tensor->strides ? tensor->strides[i] : input->strides[i];
    }
    given->data = tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
    int64_t size = row_of(info->dtype)->bytes, align = size > 8 ? 8 : size ? size : 8;
    given->contiguous =
        is_contiguous(input->rank, input->dims, given->strides) && (uintptr_t)given->data % (uintptr_t)align == 0;
    if (!given->contiguous && info->dtype == LAPIDARY_STRING) {
        return lap_error(self, LAPIDARY_ERROR_INPUT, -1, 0, 0, "input `%s`: a string tensor must be contiguous",
                         info->name);
    }
    given->set = 1;
    return given->state >= 0 ? give_state(self, index) : LAPIDARY_OK;
}

int32_t lap_api_set_input(lap_context *ctx, int32_t index, const lapidary_tensor *tensor) {
    lap_private *self = lap_priv(ctx);
    const lapidary_model *model = &ctx->model->head;
    if (atomic_load(&self->running)) return LAPIDARY_ERROR_BUSY;
    self->error_code = LAPIDARY_OK;
    if (index < 0 || index >= model->n_inputs) {
        return lap_error(self, LAPIDARY_ERROR_ARGUMENT, -1, index, model->n_inputs,
                         "input %d does not exist: the model has %d", (int)index, (int)model->n_inputs);
    }
    lap_given *given = &self->given[index];
    lap_tensor *input = &ctx->inputs[index];
    lap_given before = *given;
    lap_tensor shown = *input;
    self->phase = LAP_PHASE_NEW;
    int32_t code = set_tensor(self, index, tensor);
    if (code && given->state >= 0) {
        /* What does not fit leaves a state as it was. */
        before.copy = given->copy;
        *given = before;
        *input = shown;
    }
    return code;
}

int32_t lap_bind_dims(lap_private *self) {
    lap_context *ctx = &self->head;
    const lap_model_table *model = ctx->model;
    for (int32_t i = 0; i < model->head.n_inputs; i++) {
        if (!self->given[i].set && self->given[i].state >= 0) {
            return lap_error(self, LAPIDARY_ERROR_INPUT, -1, i, 0,
                             "state `%s` has no value: give it an initial one (no axis along which it grows is known)",
                             model->head.inputs[i].name);
        }
        if (!self->given[i].set) {
            return lap_error(self, LAPIDARY_ERROR_INPUT, -1, i, 0, "input `%s` is not set",
                             model->head.inputs[i].name);
        }
    }
    for (int32_t i = 0; i < model->n_dims; i++) self->bound_by[i] = -1;
    for (int32_t i = 0; i < model->n_dim_binds; i++) {
        const lap_dim_bind *bind = &model->dim_binds[i];
        const lap_tensor *input = &ctx->inputs[bind->input];
        const lapidary_value_info *info = &model->head.inputs[bind->input];
        const char *name = info->dim_names && info->rank > bind->axis ? info->dim_names[bind->axis] : NULL;
        const char *open = name ? " (`" : "", *close = name ? "`)" : "";
        name = name ? name : "";
        if (bind->axis >= input->rank) {
            return lap_error(self, LAPIDARY_ERROR_INPUT, -1, input->rank, bind->axis,
                             "input `%s`: rank %d has no axis %d", info->name, (int)input->rank, (int)bind->axis);
        }
        int64_t found = input->dims[bind->axis];
        if (found < 0) continue; /* of a state without a value yet */
        if (bind->fixed >= 0) {
            if (found != bind->fixed) {
                return lap_error(self, LAPIDARY_ERROR_INPUT, -1, found, bind->fixed,
                                 "input `%s`: axis %d%s%s%s must be %lld, found %lld", info->name, (int)bind->axis,
                                 open, name, close, (long long)bind->fixed, (long long)found);
            }
        } else if (bind->slot >= 0) {
            int32_t by = self->bound_by[bind->slot];
            if (by < 0) {
                self->bound_by[bind->slot] = i;
                ctx->dims[bind->slot] = found;
            } else if (ctx->dims[bind->slot] != found) {
                const lap_dim_bind *other = &model->dim_binds[by];
                return lap_error(self, LAPIDARY_ERROR_INPUT, -1, found, ctx->dims[bind->slot],
                                 "input `%s`: axis %d%s%s%s is %lld, but axis %d of input `%s` has set the same "
                                 "dim to %lld",
                                 info->name, (int)bind->axis, open, name, close, (long long)found, (int)other->axis,
                                 model->head.inputs[other->input].name, (long long)ctx->dims[bind->slot]);
            }
        }
    }
    if (model->n_states == 0) return LAPIDARY_OK;
    for (int32_t i = 0; i < model->n_dim_binds; i++) {
        const lap_dim_bind *bind = &model->dim_binds[i];
        int64_t *dim = &ctx->inputs[bind->input].dims[bind->axis];
        if (*dim < 0 && bind->slot >= 0 && self->bound_by[bind->slot] >= 0) *dim = ctx->dims[bind->slot];
    }
    return lap_states_bound(self);
}

/* Copies strided elements to contiguous memory. Neighbouring axes that lie together count as one. */
static void gather(char *to, const char *from, int64_t size, int32_t rank, const int64_t *dims, const int64_t *strides) {
    int64_t length[LAP_MAX_RANK], step[LAP_MAX_RANK], index[LAP_MAX_RANK] = {0};
    int32_t n = 0;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] == 1) continue;
        if (n && step[n - 1] == strides[i] * dims[i]) {
            length[n - 1] *= dims[i];
            step[n - 1] = strides[i];
        } else {
            length[n] = dims[i];
            step[n++] = strides[i];
        }
    }
    if (n == 0) {
        memcpy(to, from, (size_t)size);
        return;
    }
    int64_t inner = length[n - 1], inner_step = step[n - 1] * size;
    for (;;) {
        if (inner_step == size) {
            memcpy(to, from, (size_t)(inner * size));
            to += inner * size;
        } else {
            const char *at = from;
            for (int64_t i = 0; i < inner; i++, at += inner_step, to += size) memcpy(to, at, (size_t)size);
        }
        int32_t axis = n - 2;
        for (; axis >= 0; axis--) {
            from += step[axis] * size;
            if (++index[axis] < length[axis]) break;
            from -= length[axis] * step[axis] * size;
            index[axis] = 0;
        }
        if (axis < 0) return;
    }
}

int32_t lap_gather_inputs(lap_private *self) {
    static _Alignas(64) char nothing[64];
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->head.n_inputs; i++) {
        lap_given *given = &self->given[i];
        lap_tensor *input = &ctx->inputs[i];
        if (input->kind != LAP_KIND_TENSOR) {
            input->data = given->data;
            continue;
        }
        if (given->state >= 0 && ctx->model->states[given->state].store >= 0) continue; /* lap_states_place */
        int64_t size = lap_dtype_bytes(input->dtype), count = lap_count(input->rank, input->dims);
        if (!given->data) {
            if (count != 0) {
                return lap_error(self, LAPIDARY_ERROR_INPUT, -1, i, 0, "input `%s` has no data",
                                 ctx->model->head.inputs[i].name);
            }
            input->data = nothing;
        } else if (lap_root(self)->guarded && input->dtype != LAPIDARY_STRING) {
            int32_t code = lap_store_exact(self, &given->copy, count * size, size, -1);
            if (code) return code;
            if (count) gather(given->copy.data, given->data, size, input->rank, input->dims, given->strides);
            input->data = given->copy.data;
        } else if (given->contiguous) {
            input->data = given->data;
        } else {
            int32_t code = lap_store_grow(self, &given->copy, count * size, -1);
            if (code) return code;
            if (count) gather(given->copy.data, given->data, size, input->rank, input->dims, given->strides);
            input->data = given->copy.data;
        }
    }
    return LAPIDARY_OK;
}

/* ---- outputs --------------------------------------------------------------------------------- */

int32_t lap_api_bind_output(lap_context *ctx, int32_t index, const lapidary_tensor *tensor) {
    lap_private *self = lap_priv(ctx);
    const lapidary_model *model = &ctx->model->head;
    if (atomic_load(&self->running)) return LAPIDARY_ERROR_BUSY;
    self->error_code = LAPIDARY_OK;
    if (index < 0 || index >= model->n_outputs) {
        return lap_error(self, LAPIDARY_ERROR_ARGUMENT, -1, index, model->n_outputs,
                         "output %d does not exist: the model has %d", (int)index, (int)model->n_outputs);
    }
    lap_made *made = &self->made[index];
    const lapidary_value_info *info = &model->outputs[index];
    made->bound = 0;
    if (!tensor) return LAPIDARY_OK;
    if (made->state >= 0) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, -1, index, 0,
                         "output `%s` is a state, which the context keeps: it cannot be bound", info->name);
    }
    if (info->containers) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, -1, info->containers[1], 0, "output `%s` is no tensor: it cannot be bound",
                         info->name);
    }
    int32_t code = lap_check_tensor(self, LAPIDARY_ERROR_OUTPUT, "output", info, tensor);
    if (code) return code;
    if (info->dtype == LAPIDARY_STRING) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, -1, 0, 0, "output `%s`: strings cannot be bound", info->name);
    }
    if (tensor->strides && !is_contiguous(tensor->ndim, tensor->shape, tensor->strides)) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, -1, 0, 0, "output `%s`: bound memory must be contiguous",
                         info->name);
    }
    char *data = tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
    int64_t size = lap_dtype_bytes(info->dtype), align = size > 8 ? 8 : size;
    if ((uintptr_t)data % (uintptr_t)align) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, -1, 0, 0, "output `%s`: bound memory is not aligned", info->name);
    }
    if (!data && lap_count(tensor->ndim, tensor->shape) != 0) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, -1, 0, 0, "output `%s`: bound memory is NULL", info->name);
    }
    made->bound = 1;
    made->bound_rank = tensor->ndim;
    made->bound_data = data;
    for (int32_t i = 0; i < tensor->ndim; i++) made->bound_dims[i] = tensor->shape[i];
    return LAPIDARY_OK;
}

void lap_reset_outputs(lap_private *self) {
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->head.n_outputs; i++) {
        ctx->outputs[i].data = NULL;
        ctx->outputs[i].dtype = ctx->model->head.outputs[i].dtype;
        ctx->outputs[i].rank = -1;
        const int32_t *containers = ctx->model->head.outputs[i].containers;
        ctx->outputs[i].kind = containers ? containers[1] : LAP_KIND_TENSOR;
    }
}

int32_t lap_place_output(lap_private *self, int32_t index, int64_t bytes, int32_t node_id) {
    lap_context *ctx = &self->head;
    lap_tensor *output = &ctx->outputs[index];
    lap_made *made = &self->made[index];
    const char *name = ctx->model->head.outputs[index].name;
    if (output->kind != LAP_KIND_TENSOR) {
        int32_t code = lap_store_grow(self, &made->own, bytes, node_id);
        output->data = made->own.data;
        return code;
    }
    int64_t count = output->rank < 0 || output->rank > LAP_MAX_RANK ? -1 : lap_count(output->rank, output->dims);
    int64_t exact;
    if (output->rank < 0 || output->rank > LAP_MAX_RANK) {
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, node_id, output->rank, 0, "output `%s` was sized without a shape",
                         name);
    }
    if (count < 0 || __builtin_mul_overflow(count, lap_dtype_bytes(output->dtype), &exact)) {
        return lap_error(self, LAPIDARY_ERROR_MEMORY, node_id, count, 0,
                         "output `%s` has negative dims, or takes more bytes than memory can have", name);
    }
    if (output->dtype != LAPIDARY_STRING && exact != bytes) {
        return lap_error(self, LAPIDARY_ERROR_INTERNAL, node_id, bytes, exact,
                         "output `%s`: its shape takes %lld bytes, its buffer %lld", name, (long long)exact,
                         (long long)bytes);
    }
    lap_contiguous_strides(output);
    if (!made->bound) {
        /* A state is larger in the next run. */
        int larger = made->state >= 0 && made->own.bytes < bytes && bytes < INT64_MAX / 4 && !lap_root(self)->guarded;
        int64_t room = larger ? bytes + bytes / 2 : bytes;
        int64_t align = output->dtype == LAPIDARY_STRING ? LAP_ALIGN : lap_dtype_bytes(output->dtype);
        int32_t code = lap_store_exact(self, &made->own, room, align, node_id);
        output->data = made->own.data;
        return code;
    }
    if (made->bound_rank != output->rank) {
        return lap_error(self, LAPIDARY_ERROR_OUTPUT, node_id, made->bound_rank, output->rank,
                         "output `%s`: the bound tensor has rank %d, the model makes rank %d", name,
                         (int)made->bound_rank, (int)output->rank);
    }
    for (int32_t i = 0; i < output->rank; i++) {
        if (made->bound_dims[i] != output->dims[i]) {
            return lap_error(self, LAPIDARY_ERROR_OUTPUT, node_id, made->bound_dims[i], output->dims[i],
                             "output `%s`: axis %d of the bound tensor is %lld, the model makes %lld", name, (int)i,
                             (long long)made->bound_dims[i], (long long)output->dims[i]);
        }
    }
    if (made->bound_data) {
        output->data = made->bound_data;
        return LAPIDARY_OK;
    }
    int32_t code = lap_store_grow(self, &made->own, 0, node_id);
    output->data = made->own.data;
    return code;
}

void lap_view_tensor(lap_tensor *tensor, lapidary_tensor *view) {
    const dtype_row *row = row_of(tensor->dtype);
    memset(view, 0, sizeof *view);
    view->data = tensor->data;
    view->device.device_type = 1;
    view->ndim = tensor->rank;
    view->dtype.code = row->code;
    view->dtype.bits = row->bits;
    view->dtype.lanes = 1;
    view->shape = tensor->dims;
}

void lap_publish_outputs(lap_private *self) {
    lap_context *ctx = &self->head;
    for (int32_t i = 0; i < ctx->model->head.n_outputs; i++) {
        lapidary_tensor *view = &self->made[i].view;
        if (ctx->outputs[i].kind == LAP_KIND_TENSOR) lap_view_tensor(&ctx->outputs[i], view);
        else memset(view, 0, sizeof *view);
        int32_t state = self->made[i].state;
        if (state >= 0 && ctx->model->states[state].store >= 0 && view->data) view->strides = ctx->outputs[i].strides;
    }
}

const lapidary_tensor *lap_api_output(lap_context *ctx, int32_t index) {
    lap_private *self = lap_priv(ctx);
    if (atomic_load(&self->running) || self->phase == LAP_PHASE_NEW) return NULL;
    if (index < 0 || index >= ctx->model->head.n_outputs || ctx->outputs[index].kind != LAP_KIND_TENSOR) return NULL;
    return &self->made[index].view;
}
