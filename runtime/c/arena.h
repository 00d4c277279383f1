/* The arena plan. */
#ifndef LAP_ARENA_H
#define LAP_ARENA_H

#include <stdint.h>

/* Offsets for n buffers of `sizes` that live from first to last; the arena's bytes, or -1 on overflow or
 * lack of memory. A buffer of size 0 or less takes no room. */
int64_t lap_plan(int32_t n, const int32_t *first, const int32_t *last, const int64_t *sizes, int64_t *offsets);

#endif
