/* Runs compiled models for the test beside it: a program with a C library and `lapidary.h`, and no compiler.
 *
 * A request on stdin: the path of a library, the name of its model, the number of its inputs, the inputs. An answer on stdout: 0,
 * the number of outputs, the outputs; or 1 and a text. Numbers are 8 bytes in the machine's order, texts and data a length
 * and bytes. A value is its kind, and then
 *   tensor: code and bits of its DLPack type, rank, dims, data; of strings: the number of offsets, offsets, bytes;
 *   sequence, optional, map: the number of values, the values (of a map two: keys, values).
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lapidary.h"

static void quit(const char *what) {
    fprintf(stderr, "loader: %s\n", what);
    exit(2);
}

static void *room(size_t bytes) {
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (!memory) quit("no memory");
    return memory;
}

static void get(void *to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) quit("the request ends early");
}
static int64_t get_number(void) {
    int64_t n;
    get(&n, sizeof n);
    return n;
}
static char *get_bytes(void) {
    int64_t n = get_number();
    char *bytes = room((size_t)n + 1);
    get(bytes, (size_t)n);
    return bytes;
}

static void put(const void *from, size_t bytes) {
    if (fwrite(from, 1, bytes, stdout) != bytes) quit("nobody reads the answer");
}
static void put_number(int64_t n) { put(&n, sizeof n); }
static void put_bytes(const void *bytes, int64_t n) {
    put_number(n);
    put(bytes, (size_t)n);
}

static int is_strings(lapidary_dltype t) { return t.code == 3; }

static lapidary_value get_value(void) {
    lapidary_value value = {.kind = (int32_t)get_number(), .present = 1, .length = 1};
    if (value.kind != LAPIDARY_KIND_TENSOR) {
        value.length = get_number();
        lapidary_value *items = room(sizeof *items * (size_t)value.length);
        for (int64_t i = 0; i < value.length; i++) items[i] = get_value();
        if (value.kind == LAPIDARY_KIND_OPTIONAL) value.present = value.length > 0;
        value.u.items = items;
        return value;
    }
    lapidary_tensor *t = room(sizeof *t);
    t->device.device_type = 1;
    t->dtype.code = (uint8_t)get_number();
    t->dtype.bits = (uint8_t)get_number();
    t->dtype.lanes = 1;
    t->ndim = (int32_t)get_number();
    t->shape = room(8 * (size_t)t->ndim);
    get(t->shape, 8 * (size_t)t->ndim);
    if (is_strings(t->dtype)) {
        lapidary_strings *strings = room(sizeof *strings);
        int64_t n = get_number(), *offsets = room(8 * (size_t)n);
        get(offsets, 8 * (size_t)n);
        strings->offsets = offsets;
        strings->bytes = get_bytes();
        t->data = strings;
    } else {
        t->data = get_bytes();
    }
    value.u.tensor = t;
    return value;
}

static void put_value(const lapidary_value *value) {
    put_number(value->kind);
    if (value->kind != LAPIDARY_KIND_TENSOR) {
        put_number(value->length);
        for (int64_t i = 0; i < value->length; i++) put_value(value->u.items + i);
        return;
    }
    const lapidary_tensor *t = value->u.tensor;
    int64_t n = 1;
    put_number(t->dtype.code);
    put_number(t->dtype.bits);
    put_number(t->ndim);
    for (int32_t a = 0; a < t->ndim; a++) {
        put_number(t->shape[a]);
        n *= t->shape[a];
    }
    const char *data = (const char *)t->data + t->byte_offset;
    if (is_strings(t->dtype)) {
        const lapidary_strings *strings = t->data;
        static const int64_t none = 0;
        const int64_t *offsets = n > 0 ? strings->offsets : &none;
        put_number(n + 1);
        for (int64_t i = 0; i <= n; i++) put_number(offsets[i] - offsets[0]);
        put_bytes(n > 0 ? strings->bytes + offsets[0] : "", offsets[n] - offsets[0]);
    } else {
        put_bytes(data, n * ((t->dtype.bits + 7) / 8));
    }
}

static void failed(const char *text) {
    put_number(1);
    put_bytes(text, (int64_t)strlen(text));
}

int main(void) {
    for (int c; (c = getchar()) != EOF;) {
        ungetc(c, stdin);
        char *path = get_bytes(), *symbol = get_bytes();
        int64_t n = get_number();
        lapidary_value *inputs = room(sizeof *inputs * (size_t)n);
        for (int64_t i = 0; i < n; i++) inputs[i] = get_value();
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        const lapidary_model *model = library ? dlsym(library, symbol) : NULL;
        lapidary_context *context = NULL;
        int32_t code = model ? lapidary_context_create(model, NULL, &context) : 0;
        if (!model) {
            failed(dlerror());
        } else if (code || !context) {
            failed("the context cannot be made");
        } else {
            for (int64_t i = 0; i < n && !code; i++) {
                int tensor = inputs[i].kind == LAPIDARY_KIND_TENSOR;
                code = tensor ? lapidary_set_input(context, (int32_t)i, inputs[i].u.tensor)
                              : lapidary_set_value(context, (int32_t)i, inputs + i);
            }
            if (!code) code = lapidary_run(context);
            if (code) {
                lapidary_error error;
                lapidary_last_error(context, &error);
                failed(error.message ? error.message : "an error without a text");
            } else {
                put_number(0);
                put_number(model->n_outputs);
                for (int32_t i = 0; i < model->n_outputs; i++) put_value(lapidary_output_value(context, i));
            }
            lapidary_context_destroy(context);
        }
        fflush(stdout);
        if (library) dlclose(library);
        /* What a request took is given back with the process. */
    }
    return 0;
}
