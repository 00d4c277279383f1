/* A copy of a value whose size only its descriptor knows: for outputs that are inputs, constants or
 * results used twice, of strings, containers or without a rank. */
#include "lap_box.h"

/* x -> y. No attributes. */
LAP_LIBRARY_KERNEL(lap_lib_copy) {
    (void)attrs;
    NEED(n_in >= 1 && in[0] && n_out >= 1 && out[0], "the kernel was given {a} inputs and {b} outputs", n_in, n_out);
    return lap_output_copy(ctx, out[0], in[0], node_id);
}
