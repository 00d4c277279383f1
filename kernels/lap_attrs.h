/* The attribute record of a library call, as the linker lays it out. */
#ifndef LAP_ATTRS_H
#define LAP_ATTRS_H

#include <stddef.h>
#include <stdint.h>

/* A string or a blob; 64-byte aligned. */
typedef struct lap_bytes {
    const char *data;
    int64_t bytes;
} lap_bytes;

/* A graph that a region runs (docs/regions.md). */
typedef struct lap_body {
    const struct lap_model_table *table;
    const int32_t *args; /* n_args: the operand that is this input, or -1: the region makes it */
    int32_t n_args;
    int32_t reserved;
} lap_body;

typedef struct lap_attrs {
    const int64_t *ints;
    const double *floats;
    const lap_bytes *strings;
    int32_t n_ints;
    int32_t n_floats;
    int32_t n_strings;
    int32_t n_bodies;
    const lap_body *bodies;
} lap_attrs;

_Static_assert(sizeof(lap_attrs) == 48 && sizeof(lap_body) == 24 && sizeof(lap_bytes) == 16, "lap_attrs");
_Static_assert(offsetof(lap_attrs, n_ints) == 24, "lap_attrs.n_ints");

#endif
