/* Tables for programs that hold the compiler or the tests: not part of a compiled library. */
#ifndef LAP_REGISTRY_H
#define LAP_REGISTRY_H

#include <stdint.h>

typedef struct lap_registry_entry {
    const char *name;
    const void *address;
} lap_registry_entry;

typedef struct lap_layout_entry {
    const char *name;
    int64_t value;
} lap_layout_entry;

extern const lap_registry_entry lap_registry[]; /* ends with a NULL name */
extern const lap_layout_entry lap_layout[]; /* ends with a NULL name */

#endif
