/* A program that uses a compiled library through the public header alone; C and C++. */
#include "lapidary.h"

#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C"
#else
extern
#endif
    const lapidary_model lapidary_model_plus;

int main(void) {
    float data[] = {1, 2, 3};
    int64_t shape[] = {3};
    lapidary_context *context;
    lapidary_tensor x;
    lapidary_error error;
    memset(&x, 0, sizeof x);
    x.data = data;
    x.device.device_type = 1;
    x.ndim = 1;
    x.dtype.code = 2;
    x.dtype.bits = 32;
    x.dtype.lanes = 1;
    x.shape = shape;
    if (lapidary_context_create(&lapidary_model_plus, NULL, &context)) return 1;
    if (lapidary_run(context) != LAPIDARY_ERROR_INPUT) return 2;
    lapidary_last_error(context, &error);
    if (strcmp(error.message, "input `x` is not set")) return 3;
    if (lapidary_set_input(context, 0, &x)) return 4;
    if (lapidary_query_outputs(context) || lapidary_output(context, 0)->shape[0] != 3) return 5;
    if (lapidary_run(context)) return 6;
    const float *y = (const float *)lapidary_output(context, 0)->data;
    printf("%g %g %g\n", y[0], y[1], y[2]);
    lapidary_context_destroy(context);
    return 0;
}
