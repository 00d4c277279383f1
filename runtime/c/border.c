/* Containers at the border: a caller's tree of values becomes a box, an output's box becomes a tree. */
#include "context.h"
#include "lap_box.h"

/* What a container holds, read off the type's list: kinds from the outside in, then a map's key type. */
typedef struct kind_list {
    const int32_t *kinds;
    int32_t n;
    int32_t key;
    int32_t dtype;
} kind_list;

static kind_list kinds_of(const lapidary_value_info *info) {
    const int32_t *list = info->containers;
    return (kind_list){list ? list + 1 : NULL, list ? list[0] : 0, list ? list[1 + list[0]] : 0, info->dtype};
}

static kind_list inner(kind_list kinds) {
    kinds.kinds++;
    kinds.n--;
    return kinds;
}

/* How deep values nest at most; types do not nest deeper either. */
enum { MAX_DEPTH = 32 };

/* Describes a tensor of the caller. */
static int32_t leaf(
    lap_private *self, const lapidary_value_info *info, int32_t dtype, const lapidary_tensor *tensor, lap_tensor *view) {
    lapidary_value_info any = {.name = info->name, .dtype = dtype, .rank = -1};
    if (!tensor) return lap_error(self, LAPIDARY_ERROR_INPUT, -1, 0, 0, "input `%s` holds a tensor that is NULL", info->name);
    int32_t code = lap_check_tensor(self, LAPIDARY_ERROR_INPUT, "input", &any, tensor);
    if (code) return code;
    *view = (lap_tensor){.dtype = dtype, .rank = tensor->ndim, .buffer = -1};
    for (int32_t i = 0; i < tensor->ndim; i++) view->dims[i] = tensor->shape[i];
    lap_contiguous_strides(view);
    for (int32_t i = 0; tensor->strides && i < tensor->ndim; i++) {
        if (view->dims[i] > 1 && tensor->strides[i] != view->strides[i]) {
            return lap_error(self, LAPIDARY_ERROR_INPUT, -1, i, 0, "input `%s`: tensors in a container must be contiguous",
                             info->name);
        }
    }
    view->data = tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
    if (!view->data && (lap_elements(view) != 0 || dtype == LAPIDARY_STRING)) {
        return lap_error(self, LAPIDARY_ERROR_INPUT, -1, 0, 0, "input `%s` holds a tensor without data", info->name);
    }
    return LAPIDARY_OK;
}

/* The type of item `i` of a value. */
static kind_list item_kinds(kind_list kinds, int32_t kind, int64_t i) {
    kind_list item = inner(kinds);
    if (kind != LAPIDARY_KIND_MAP) return item;
    if (i == 0) return (kind_list){NULL, 0, 0, kinds.key};
    if (item.n == 0) return item; /* the values of all keys as one tensor */
    item.kinds = kinds.kinds; /* a sequence of what is inside: entered as a sequence below */
    item.n = kinds.n;
    return item;
}

/* Bytes of a value as a box (`to` NULL), or writes it there. -1: an error. `sequence`: a map's values, which are listed
 * as a sequence of what the map holds. */
static int64_t put(
    lap_private *self, const lapidary_value_info *info, kind_list kinds, int sequence, const lapidary_value *value,
    char *to, int depth) {
    lap_tensor view;
    int32_t kind = sequence ? LAPIDARY_KIND_SEQUENCE : kinds.n ? kinds.kinds[0] : LAPIDARY_KIND_TENSOR;
    if (value->kind != kind || depth > MAX_DEPTH) {
        lap_error(self, LAPIDARY_ERROR_INPUT, -1, value->kind, kind, "input `%s`: a value of kind %d where kind %d was expected",
                  info->name, (int)value->kind, (int)kind);
        return -1;
    }
    if (kind == LAPIDARY_KIND_TENSOR) {
        if (leaf(self, info, kinds.dtype, value->u.tensor, &view)) return -1;
        int64_t bytes = lap_box_bytes(&view);
        if (bytes < 0) lap_error(self, LAPIDARY_ERROR_MEMORY, -1, 0, 0, "input `%s` is too large", info->name);
        if (to && bytes >= 0) lap_box_write((lap_box *)(void *)to, &view);
        return bytes;
    }
    int64_t n = kind == LAPIDARY_KIND_OPTIONAL ? value->present != 0 : value->length;
    if (n < 0 || (kind == LAPIDARY_KIND_MAP && n != 2) || (n > 0 && !value->u.items)) {
        lap_error(self, LAPIDARY_ERROR_INPUT, -1, n, 0, "input `%s`: a container of %lld values", info->name, (long long)n);
        return -1;
    }
    int64_t used = lap_box_room(n, 0);
    if (to) lap_box_begin((lap_box *)(void *)to, kind, kinds.dtype, n, &used);
    for (int64_t i = 0; used >= 0 && i < n; i++) {
        kind_list item = sequence ? inner(kinds) : item_kinds(kinds, kind, i);
        int listed = kind == LAPIDARY_KIND_MAP && i == 1 && item.n > 0;
        int64_t bytes = put(self, info, item, listed, &value->u.items[i], to ? to + used : NULL, depth + 1);
        if (bytes < 0) return -1;
        if (to) ((lap_box *)(void *)to)->at[i] = used;
        used = used > INT64_MAX / 4 - bytes ? -1 : used + bytes;
    }
    if (used < 0) lap_error(self, LAPIDARY_ERROR_MEMORY, -1, 0, 0, "input `%s` is too large", info->name);
    else if (to) ((lap_box *)(void *)to)->bytes = used;
    return used;
}

int32_t lap_api_set_value(lap_context *ctx, int32_t index, const lapidary_value *value) {
    lap_private *self = lap_priv(ctx);
    const lapidary_model *model = &ctx->model->head;
    if (value && value->kind == LAPIDARY_KIND_TENSOR) return lap_api_set_input(ctx, index, value->u.tensor);
    if (atomic_load(&self->running)) return LAPIDARY_ERROR_BUSY;
    self->error_code = LAPIDARY_OK;
    if (index < 0 || index >= model->n_inputs || !value) {
        return lap_error(self, LAPIDARY_ERROR_ARGUMENT, -1, index, model->n_inputs,
                         "input %d does not exist, or the value is NULL: the model has %d", (int)index, (int)model->n_inputs);
    }
    const lapidary_value_info *info = &model->inputs[index];
    lap_given *given = &self->given[index];
    given->set = 0;
    self->phase = LAP_PHASE_NEW;
    int64_t bytes = put(self, info, kinds_of(info), 0, value, NULL, 0);
    if (bytes < 0) return self->error_code;
    int32_t code = lap_store_grow(self, &given->copy, bytes, -1);
    if (code) return code;
    if (put(self, info, kinds_of(info), 0, value, given->copy.data, 0) < 0) return self->error_code;
    given->data = given->copy.data;
    given->contiguous = 1;
    given->set = 1;
    ctx->inputs[index] =
        (lap_tensor){.data = given->data, .dtype = info->dtype, .rank = -1, .buffer = -1, .kind = value->kind};
    return LAPIDARY_OK;
}

/* ---- outputs ------------------------------------------------------------------------------------------- */

/* A leaf of a tree. */
typedef struct tree_leaf {
    lapidary_tensor tensor;
    lapidary_strings strings;
    lap_tensor view;
} tree_leaf;

static int64_t tree_bytes(const lap_box *box) {
    if (box->kind == LAP_KIND_TENSOR) return (int64_t)sizeof(tree_leaf);
    int64_t bytes = box->n * (int64_t)sizeof(lapidary_value);
    for (int64_t i = 0; i < box->n; i++) bytes += tree_bytes(lap_box_inside(box, i));
    return bytes;
}

static char *grow_tree(lapidary_value *value, const lap_box *box, char *room) {
    *value = (lapidary_value){.kind = box->kind, .present = 1, .length = box->n};
    if (box->kind == LAP_KIND_TENSOR) {
        tree_leaf *leaf = (tree_leaf *)(void *)room;
        lap_box_view(box, &leaf->view, &leaf->strings);
        lap_view_tensor(&leaf->view, &leaf->tensor);
        value->length = 1;
        value->u.tensor = &leaf->tensor;
        return room + sizeof *leaf;
    }
    if (box->kind == LAP_KIND_OPTIONAL) value->present = box->n > 0;
    lapidary_value *items = (lapidary_value *)(void *)room;
    value->u.items = items;
    room += box->n * (int64_t)sizeof *items;
    for (int64_t i = 0; i < box->n; i++) room = grow_tree(&items[i], lap_box_inside(box, i), room);
    return room;
}

const lapidary_value *lap_api_output_value(lap_context *ctx, int32_t index) {
    lap_private *self = lap_priv(ctx);
    if (atomic_load(&self->running) || self->phase != LAP_PHASE_RUN) return NULL;
    if (index < 0 || index >= ctx->model->head.n_outputs) return NULL;
    lap_made *made = &self->made[index];
    const lap_tensor *output = &ctx->outputs[index];
    int tensor = output->kind == LAP_KIND_TENSOR;
    int64_t bytes = (int64_t)sizeof(lapidary_value) + (tensor ? 0 : tree_bytes(output->data));
    if (lap_store_grow(self, &made->tree, bytes, -1)) return NULL;
    lapidary_value *value = made->tree.data;
    if (tensor) *value = (lapidary_value){.kind = LAPIDARY_KIND_TENSOR, .present = 1, .length = 1, .u.tensor = &made->view};
    else grow_tree(value, output->data, (char *)(value + 1));
    return value;
}
