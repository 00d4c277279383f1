/* A C program against a compiled model: sees a picture of 8x8 pixels and says which digit it is.
 *
 * examples/c/run compiles the model and this file and runs it.
 */
#include <stdio.h>

#include "libdigits.h"

/* A seven, from 0 (paper) to 16 (ink). */
static const int picture[64] = {
    0, 0, 5, 14, 16, 16, 6, 0, /**/ 0, 0, 11, 12, 9, 16, 8, 0, /**/ 0, 0, 0, 0, 3, 16, 5, 0, /**/
    0, 0, 4, 8, 12, 16, 6, 0, /**/ 0, 0, 12, 16, 16, 14, 9, 0, /**/ 0, 0, 1, 14, 12, 1, 0, 0, /**/
    0, 0, 3, 16, 5, 0, 0, 0, /**/ 0, 0, 8, 14, 0, 0, 0, 0,
};

static int fail(lapidary_context *context) {
    lapidary_error error;
    lapidary_last_error(context, &error);
    fprintf(stderr, "error %d: %s\n", (int)error.code, error.message);
    return 1;
}

int main(void) {
    lapidary_context *context;
    int32_t code = lapidary_context_create(&lapidary_model_digits, NULL, &context);
    if (code != LAPIDARY_OK) {
        fprintf(stderr, "no context: error %d\n", (int)code);
        return 1;
    }
    float pixels[64];
    for (int i = 0; i < 64; i++) pixels[i] = (float)picture[i] / 16.0f;
    int64_t shape[4] = {1, 1, 8, 8};
    lapidary_tensor input = {0};
    input.data = pixels;
    input.device.device_type = 1;
    input.ndim = 4;
    input.dtype.code = 2; /* float */
    input.dtype.bits = 32;
    input.dtype.lanes = 1;
    input.shape = shape;
    if (lapidary_set_input(context, 0, &input) != LAPIDARY_OK) return fail(context);
    if (lapidary_run(context) != LAPIDARY_OK) return fail(context);

    const lapidary_tensor *output = lapidary_output(context, 0);
    const float *probabilities = output->data;
    int best = 0;
    for (int digit = 0; digit < 10; digit++) {
        if (probabilities[digit] > probabilities[best]) best = digit;
    }
    printf("a %d, with probability %.3f\n", best, (double)probabilities[best]);
    lapidary_context_destroy(context);
    return best == 7 ? 0 : 1;
}
