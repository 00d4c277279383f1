/* Variants: code for some sizes of the inputs, beside the code that takes any (docs/variants.md).
 *
 * A variant is a model table of its own over the same inputs, outputs and states. Its guard is what it fixes: the constant
 * dims of its inputs. It runs in a child context, made at its first run, whose inputs are the root's and whose
 * outputs become the root's. */
#include <stdlib.h>
#include <string.h>

#include "context.h"

static int fits(const lap_private *self, const lapidary_model *variant) {
    for (int32_t i = 0; i < variant->n_inputs; i++) {
        const lapidary_value_info *info = &variant->inputs[i];
        const lap_tensor *input = &self->head.inputs[i];
        for (int32_t axis = 0; axis < info->rank; axis++) {
            if (info->dims[axis] >= 0 && (axis >= input->rank || info->dims[axis] != input->dims[axis])) return 0;
        }
    }
    return 1;
}

int32_t lap_variant_for(const lap_private *self) {
    const lap_model_table *model = self->head.model;
    int32_t variant = 0;
    while (variant < model->n_variants && !fits(self, &model->variants[variant]->head)) variant++;
    return variant;
}

int32_t lap_variant_run(lap_private *self, int32_t variant) {
    lap_context *ctx = &self->head;
    const lapidary_model *head = &ctx->model->head;
    lap_private *child = lap_child(ctx, ctx->model->variants[variant], 0, -1);
    if (!child) return lap_root(self)->error_code;
    if (!child->is_variant) {
        free(child->held);
        child->held = self->held;
        child->is_variant = 1;
    }
    for (int32_t i = 0; i < head->n_inputs; i++) {
        child->head.inputs[i] = ctx->inputs[i];
        child->given[i].set = self->given[i].set;
    }
    for (int32_t i = 0; i < head->n_outputs; i++) {
        lap_made *to = &child->made[i];
        const lap_made *from = &self->made[i];
        to->bound = from->bound;
        to->bound_rank = from->bound_rank;
        to->bound_data = from->bound_data;
        memcpy(to->bound_dims, from->bound_dims, sizeof to->bound_dims);
    }
    lap_states_begin(child, 0);
    int32_t code = lap_bind_dims(child);
    if (!code) code = lap_run_segments(child);
    if (code) return code;
    lap_states_keep(child);
    for (int32_t i = 0; i < head->n_outputs; i++) {
        ctx->outputs[i] = child->head.outputs[i];
        ctx->outputs[i].buffer = self->made[i].buffer; /* the variant's buffers are not the general code's */
    }
    return LAPIDARY_OK;
}
