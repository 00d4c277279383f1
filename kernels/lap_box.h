/* Boxes: how sequences, optionals and maps lie in memory.
 *
 * A box is one block without pointers: it can be copied, or its memory exchanged, as a whole. Offsets count
 * from the block's own begin; parts begin at multiples of 64. A box holds a tensor, or the boxes inside it: of a
 * sequence its elements, of an optional none or one, of a map two: its keys (a tensor) and its values (a
 * tensor, or a sequence of what is no tensor). */
#ifndef LAP_BOX_H
#define LAP_BOX_H

#include "lap_library.h"

typedef struct lap_box {
    int32_t kind; /* lap_kind */
    int32_t dtype; /* of the tensors in it */
    int64_t bytes; /* of the whole block, a multiple of 64 */
    int64_t n; /* tensor: its rank; otherwise the boxes inside */
    int64_t body; /* tensor: the offset of its elements */
    int64_t at[]; /* n: the dims of a tensor, or the offsets of the boxes inside */
} lap_box;
/* The elements of a tensor of strings: offsets (elements + 1) of the text, and the text. */

static inline const lap_box *lap_box_of(const lap_tensor *t) { return t->data; }
static inline const lap_box *lap_box_inside(const lap_box *box, int64_t i) {
    return (const lap_box *)(const void *)((const char *)box + box->at[i]);
}

/* The bytes of a value as a box: of a tensor, or the box that a descriptor holds. -1: too large. */
int64_t lap_box_bytes(const lap_tensor *t);
/* Writes a value as a box of the bytes that lap_box_bytes gave. */
void lap_box_write(lap_box *to, const lap_tensor *t);
/* The bytes of a box of `n` boxes whose bytes are `inside` in all; -1: too large. */
int64_t lap_box_room(int64_t n, int64_t inside);
/* Begins a box of `n` boxes; `*used` is where the first of them goes. */
void lap_box_begin(lap_box *to, int32_t kind, int32_t dtype, int64_t n, int64_t *used);
/* Gives an output (of container type) room for a box; NULL after an error. */
lap_box *lap_output_box(lap_context *ctx, lap_tensor *out, int64_t bytes, int32_t node_id);
/* Gives an output the value of a box: a tensor, or a box of its own. */
int32_t lap_output_unbox(lap_context *ctx, lap_tensor *out, const lap_box *box, int32_t node_id);
/* A descriptor of a box that holds a tensor; the elements stay where they are (strings: `header` is filled). */
void lap_box_view(const lap_box *box, lap_tensor *view, lapidary_strings *header);
/* Copies a tensor of any type into an output. */
int32_t lap_output_copy(lap_context *ctx, lap_tensor *out, const lap_tensor *t, int32_t node_id);

#endif
