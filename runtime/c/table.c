/* The function table of generated code.
 *
 * It names all of libm, and a model needs little of it. So it only asks what is there: its references are weak and take nothing out of
 * a static libm. What a model's kernels call, the model's object refers to itself (the compiler writes these references behind its
 * table, docs/abi.md), and a program with code in memory through the registry. An entry that nobody asked for may be NULL.
 * Nothing else is in this file, so that nothing else here calls libm weakly.
 */
#include <string.h>

#include "lap_internal.h"
#include "libm.h"

/* Other formats do not have weak references without definitions. */
#ifdef __ELF__
#define WEAK __attribute__((weak))
#else
#define WEAK
#endif
#define F64(name) extern double name(double) WEAK;
#define F64_2(name) extern double name(double, double) WEAK;
#define F32(name) extern float name(float) WEAK;
#define F32_2(name) extern float name(float, float) WEAK;
LAP_LIBM_F64(F64)
LAP_LIBM_F64_2(F64_2)
LAP_LIBM_F32(F32)
LAP_LIBM_F32_2(F32_2)
extern double fma(double, double, double) WEAK;
extern float fmaf(float, float, float) WEAK;

/* A field has the name of its function. */
#define FIELD(name) .name = name,

const lap_rt lap_runtime_table = {
    .api = &lap_api_table,
    .parallel_for = lap_parallel_for,
    .call_library = lap_call_library,
    .alloc_dynamic = lap_alloc_dynamic,
    .fail = lap_fail,
    .check = lap_check,
    .output_alloc = lap_output_alloc, .output_alloc_strings = lap_output_alloc_strings, .temp = lap_temp,
    .memcpy = memcpy, .memmove = memmove, .memset = memset,
    LAP_LIBM_F64(FIELD)
    LAP_LIBM_F64_2(FIELD)
    LAP_LIBM_F32(FIELD)
    LAP_LIBM_F32_2(FIELD)
    .f32_to_f16 = lap_f32_to_f16, .f16_to_f32 = lap_f16_to_f32,
    .f32_to_bf16 = lap_f32_to_bf16, .bf16_to_f32 = lap_bf16_to_f32,
    .fmaf64 = fma, .fmaf32 = fmaf,
};
