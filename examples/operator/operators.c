/* Two operators of domain com.example, for models that use them:
 *
 *     cc -O2 -shared -fPIC -I runtime/include -o liboperators.so examples/operator/operators.c
 *     lapidary run model.onnx --operators liboperators.so …
 *
 * and in a compiled library, which carries the kernels itself:
 *
 *     cc -O2 -c -fPIC -I runtime/include -o operators.o examples/operator/operators.c
 *     lapidary compile model.onnx -o libmodel.so --operators liboperators.so --link operators.o
 */
#include "lapidary_operator.h"

/* ---- Scale: y = x * factor, over threads ---------------------------------------------------------- */

static int32_t infer_scale(const lapidary_operator_node *node, lapidary_operator_types *types) {
    if (node->n_inputs != 1 || node->n_outputs != 1 || !node->inputs[0].present) {
        return lapidary_operator_refuse(types, "expected 1 input and 1 output, found %d and %d", node->n_inputs,
                                        node->n_outputs);
    }
    if (node->inputs[0].dtype != LAPIDARY_F32) {
        return lapidary_operator_refuse(types, "input 0 is of element type %d, expected f32", node->inputs[0].dtype);
    }
    const lapidary_operator_attribute *factor = lapidary_operator_find(node, "factor");
    if (factor && factor->type != 1) return lapidary_operator_refuse(types, "attribute 'factor' is no float");
    types->floats[types->n_floats++] = factor ? factor->floats[0] : 1;
    lapidary_operator_like(node, &types->outputs[0], 0);
    return 0;
}

enum { BLOCK = 4096 };

/* Tasks of BLOCK elements; dims: the count and the factor's bits. */
static void scale_task(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, void *worker) {
    (void)worker;
    const float *x = buffers[0];
    float *y = buffers[1], factor;
    memcpy(&factor, &dims[1], sizeof factor);
    int64_t stop = end * BLOCK < dims[0] ? end * BLOCK : dims[0];
    for (int64_t i = begin * BLOCK; i < stop; i++) y[i] = x[i] * factor;
}

LAPIDARY_EXPORT int32_t example_scale(
    lapidary_kernel_context *context, const lapidary_kernel_tensor *const *in, int32_t n_in,
    lapidary_kernel_tensor *const *out, int32_t n_out, const lapidary_kernel_attributes *attributes, int32_t node) {
    (void)n_in, (void)n_out;
    int32_t code = lapidary_output_alloc(context, out[0], in[0]->rank, in[0]->dims, node);
    if (code) return code;
    int64_t n = 1, dims[2] = {0, 0};
    for (int32_t i = 0; i < in[0]->rank; i++) n *= in[0]->dims[i];
    float factor = (float)attributes->floats[0];
    dims[0] = n;
    memcpy(&dims[1], &factor, sizeof factor);
    void *buffers[] = {in[0]->data, out[0]->data};
    return lapidary_kernel_parallel(context, scale_task, buffers, dims, (n + BLOCK - 1) / BLOCK, n, node);
}

/* ---- Positive: the elements above 0, as a vector whose length only the data says -------------------- */

static int32_t infer_positive(const lapidary_operator_node *node, lapidary_operator_types *types) {
    if (node->n_inputs != 1 || node->n_outputs != 1 || !node->inputs[0].present) {
        return lapidary_operator_refuse(types, "expected 1 input and 1 output");
    }
    if (node->inputs[0].dtype != LAPIDARY_F32) return lapidary_operator_refuse(types, "input 0 is not f32");
    types->outputs[0].dtype = LAPIDARY_F32;
    types->outputs[0].rank = 1;
    return 0;
}

LAPIDARY_EXPORT int32_t example_positive(
    lapidary_kernel_context *context, const lapidary_kernel_tensor *const *in, int32_t n_in,
    lapidary_kernel_tensor *const *out, int32_t n_out, const lapidary_kernel_attributes *attributes, int32_t node) {
    (void)n_in, (void)n_out, (void)attributes;
    const float *x = in[0]->data;
    int64_t n = 1, found = 0;
    for (int32_t i = 0; i < in[0]->rank; i++) n *= in[0]->dims[i];
    for (int64_t i = 0; i < n; i++) {
        if (x[i] != x[i]) return lapidary_kernel_fail(context, node, "element {a} is not a number", i, 0);
        found += x[i] > 0;
    }
    int32_t code = lapidary_output_alloc(context, out[0], 1, &found, node);
    if (code) return code;
    float *y = out[0]->data;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] > 0) *y++ = x[i];
    }
    return 0;
}

/* ---- the list that the command looks for -------------------------------------------------------------- */

static const lapidary_operator scale = {
    sizeof scale, LAPIDARY_OPERATOR_VERSION, "com.example", "Scale", infer_scale, example_scale, "example_scale"};
static const lapidary_operator positive = {
    sizeof positive, LAPIDARY_OPERATOR_VERSION, "com.example", "Positive", infer_positive, example_positive,
    "example_positive"};

const lapidary_operator *const lapidary_operators[] = {&scale, &positive, NULL};
