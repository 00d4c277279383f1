/* Child contexts: the bodies of regions (docs/regions.md).
 *
 * A child has dims, buffers and an arena of its own, and is made at its first use and kept. Its inputs are
 * descriptors whose elements are borrowed; its outputs lie in its own stores until the region takes them. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "os.h"

lap_private *lap_child(lap_context *parent, const lap_model_table *table, int32_t kept, int32_t node_id) {
    lap_private *above = lap_priv(parent), *root = lap_root(above);
    for (lap_private *child = above->children; child; child = child->sibling) {
        if (child->head.model == table) return child;
    }
    lap_private *child = lap_os_alloc(sizeof *child);
    if (child) {
        memset((void *)child, 0, sizeof *child);
        child->root = root;
        child->head.rt = parent->rt;
        child->head.level = parent->level;
        child->head.model = table;
        child->head.weights = root->head.weights ? root->head.weights + table->weights_offset : NULL;
        child->kept = calloc(kept > 0 ? (size_t)kept : 1, sizeof *child->kept);
        if (child->kept && lap_context_room(child)) {
            child->n_kept = kept;
            lap_set_defaults(child, -1);
            for (int32_t i = 0; i < table->head.n_inputs; i++) child->given[i].set = 1;
            child->sibling = above->children;
            above->children = child;
            return child;
        }
        lap_context_free(child);
    }
    lap_error(above, LAPIDARY_ERROR_MEMORY, node_id, 0, 0, "no memory for the body of a region");
    return NULL;
}

int32_t lap_child_input(
    lap_context *parent, lap_private *child, int32_t index, const lap_tensor *value, int32_t node_id) {
    const lapidary_value_info *info = &child->head.model->head.inputs[index];
    lap_tensor *input = &child->head.inputs[index];
    *input = *value;
    input->buffer = -1;
    if (value->kind != LAP_KIND_TENSOR) return LAPIDARY_OK;
    if (value->dtype != info->dtype) {
        return lap_error(lap_priv(parent), LAPIDARY_ERROR_CHECK, node_id, value->dtype, info->dtype,
                         "the body's input `%s` is of type %d, expected %d", info->name, (int)value->dtype,
                         (int)info->dtype);
    }
    if (info->rank >= 0 && value->rank != info->rank) {
        return lap_error(lap_priv(parent), LAPIDARY_ERROR_CHECK, node_id, value->rank, info->rank,
                         "the body's input `%s` has rank %d, expected %d", info->name, (int)value->rank,
                         (int)info->rank);
    }
    for (int32_t a = 0; a < info->rank; a++) {
        if (info->dims[a] < 0 || info->dims[a] == value->dims[a]) continue;
        return lap_error(lap_priv(parent), LAPIDARY_ERROR_CHECK, node_id, value->dims[a], info->dims[a],
                         "axis %d of the body's input `%s` is %lld, expected %lld", (int)a, info->name,
                         (long long)value->dims[a], (long long)info->dims[a]);
    }
    lap_contiguous_strides(input);
    return LAPIDARY_OK;
}

int32_t lap_child_run(lap_context *parent, lap_private *child, int32_t node_id) {
    int32_t code = lap_bind_dims(child);
    if (!code) code = lap_run_segments(child);
    if (code) lap_blame(lap_priv(parent), node_id);
    return code;
}
