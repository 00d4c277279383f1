/* Runs compiled models, whose runtime is built with sanitizers, on inputs from a file.
 *
 * driver INPUTS OUTPUTS: `models` lists the models. INPUTS holds, for each model, the number of data sets, and for each
 * data set its inputs, each as rank, dims, number of bytes (all i64) and bytes. OUTPUTS gets the outputs of each data set
 * in the same form. Every input is a block of exactly its size, so that one element too far is seen; each data set runs
 * three times in one context, the second time with outputs in memory of exactly their size where their shapes are known
 * beforehand, the third after wrong inputs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lapidary.h"

extern const lapidary_model *const models[];

#define MAX_RANK 16
#define NEED(condition)                                                          \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
            exit(2);                                                             \
        }                                                                        \
    } while (0)

typedef struct block {
    lapidary_tensor tensor;
    int64_t shape[MAX_RANK];
    int64_t bytes;
} block;

static int64_t number(FILE *file) {
    int64_t n;
    NEED(fread(&n, sizeof n, 1, file) == 1);
    return n;
}

static void *exact(int64_t bytes) {
    void *memory = malloc(bytes ? (size_t)bytes : 1);
    NEED(memory);
    return memory;
}

static int64_t bytes_of(const lapidary_tensor *tensor) {
    int64_t bytes = (tensor->dtype.bits * tensor->dtype.lanes + 7) / 8;
    for (int32_t i = 0; i < tensor->ndim; i++) bytes *= tensor->shape[i];
    return bytes;
}

/* The DLPack type of an element type, as far as these models have it. */
static void set_dtype(lapidary_tensor *tensor, int32_t dtype) {
    static const uint8_t codes[] = {0, 2, 1, 0, 1, 0, 0, 0, 0, 6, 2, 2, 1, 1};
    static const uint8_t bits[] = {0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64};
    NEED(dtype > 0 && dtype < (int32_t)sizeof codes && bits[dtype]);
    tensor->dtype.code = codes[dtype];
    tensor->dtype.bits = bits[dtype];
    tensor->dtype.lanes = 1;
}

static void read_block(FILE *file, block *b, int32_t dtype) {
    memset(b, 0, sizeof *b);
    b->tensor.device.device_type = 1;
    b->tensor.ndim = (int32_t)number(file);
    NEED(b->tensor.ndim >= 0 && b->tensor.ndim <= MAX_RANK);
    for (int32_t i = 0; i < b->tensor.ndim; i++) b->shape[i] = number(file);
    b->tensor.shape = b->shape;
    set_dtype(&b->tensor, dtype);
    b->bytes = number(file);
    b->tensor.data = exact(b->bytes);
    NEED(fread(b->tensor.data, 1, (size_t)b->bytes, file) == (size_t)b->bytes);
}

static void write_tensor(FILE *file, const lapidary_tensor *tensor) {
    int64_t rank = tensor->ndim, bytes = bytes_of(tensor);
    fwrite(&rank, sizeof rank, 1, file);
    if (rank) fwrite(tensor->shape, sizeof *tensor->shape, (size_t)rank, file);
    fwrite(&bytes, sizeof bytes, 1, file);
    fwrite(tensor->data, 1, (size_t)bytes, file);
}

static void run(lapidary_context *context, const char *name) {
    int32_t code = lapidary_run(context);
    if (!code) return;
    lapidary_error error;
    lapidary_last_error(context, &error);
    fprintf(stderr, "%s: code %d: %s\n", name, (int)code, error.message);
    exit(3);
}

/* One run into the caller's memory, as far as the shapes are known. */
static void run_bound(lapidary_context *context, const lapidary_model *model) {
    block *bound = calloc((size_t)model->n_outputs + 1, sizeof *bound);
    NEED(bound && !lapidary_query_outputs(context));
    for (int32_t i = 0; i < model->n_outputs; i++) {
        const lapidary_tensor *view = lapidary_output(context, i);
        if (!view || view->ndim < 0 || model->outputs[i].containers) continue;
        bound[i].tensor = *view;
        memcpy(bound[i].shape, view->shape, sizeof *view->shape * (size_t)view->ndim);
        bound[i].tensor.shape = bound[i].shape;
        bound[i].bytes = bytes_of(view);
        bound[i].tensor.data = exact(bound[i].bytes);
    }
    for (int32_t i = 0; i < model->n_outputs; i++) {
        if (bound[i].tensor.data) NEED(!lapidary_bind_output(context, i, &bound[i].tensor));
    }
    run(context, model->name);
    for (int32_t i = 0; i < model->n_outputs; i++) {
        if (bound[i].tensor.data) NEED(!lapidary_bind_output(context, i, NULL));
        free(bound[i].tensor.data);
    }
    free(bound);
}

/* An input of another shape and one of another type: both refused, whatever the model. */
static void refuse(lapidary_context *context, const block *input) {
    block wrong = *input;
    wrong.tensor.shape = wrong.shape;
    set_dtype(&wrong.tensor, input->tensor.dtype.code == 2 && input->tensor.dtype.bits == 32 ? LAPIDARY_I64 : LAPIDARY_F32);
    NEED(lapidary_set_input(context, 0, &wrong.tensor) == LAPIDARY_ERROR_INPUT);
    NEED(lapidary_run(context) == LAPIDARY_ERROR_INPUT);
    lapidary_error error;
    lapidary_last_error(context, &error);
    NEED(error.message && error.message[0]);
}

int main(int argc, char **argv) {
    NEED(argc == 3);
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    NEED(in && out);
    for (int32_t m = 0; models[m]; m++) {
        const lapidary_model *model = models[m];
        lapidary_options options = {.struct_bytes = sizeof options, .threads = 2};
        lapidary_context *context;
        NEED(!lapidary_context_create(model, &options, &context));
        int64_t sets = number(in);
        for (int64_t s = 0; s < sets; s++) {
            block *inputs = calloc((size_t)model->n_inputs + 1, sizeof *inputs);
            NEED(inputs);
            for (int32_t i = 0; i < model->n_inputs; i++) read_block(in, &inputs[i], model->inputs[i].dtype);
            for (int32_t round = 0; round < 3; round++) {
                if (round == 2 && model->n_inputs) refuse(context, &inputs[0]);
                for (int32_t i = 0; i < model->n_inputs; i++) NEED(!lapidary_set_input(context, i, &inputs[i].tensor));
                if (round == 1) run_bound(context, model);
                else run(context, model->name);
            }
            for (int32_t i = 0; i < model->n_outputs; i++) write_tensor(out, lapidary_output(context, i));
            for (int32_t i = 0; i < model->n_inputs; i++) free(inputs[i].tensor.data);
            free(inputs);
        }
        lapidary_context_destroy(context);
    }
    NEED(fclose(out) == 0);
    fclose(in);
    return 0;
}
