/* The functions of libm that the function table names, by their types: each list applies `F` to every name. */
#ifndef LAP_LIBM_H
#define LAP_LIBM_H

#define LAP_LIBM_F64(F)                                                                                     \
    F(exp) F(log) F(sin) F(cos) F(tan) F(asin) F(acos) F(atan) F(sinh) F(cosh) F(tanh) F(asinh) F(acosh)     \
    F(atanh) F(erf) F(exp2) F(log2) F(expm1) F(log1p) F(floor) F(ceil) F(trunc) F(rint) F(sqrt) F(cbrt)      \
    F(lgamma)
#define LAP_LIBM_F64_2(F) F(pow) F(fmod) F(atan2)
#define LAP_LIBM_F32(F)                                                                                     \
    F(expf) F(logf) F(sinf) F(cosf) F(tanf) F(asinf) F(acosf) F(atanf) F(sinhf) F(coshf) F(tanhf) F(asinhf)  \
    F(acoshf) F(atanhf) F(erff) F(floorf) F(ceilf) F(truncf) F(rintf) F(sqrtf)
#define LAP_LIBM_F32_2(F) F(powf) F(fmodf) F(atan2f)

#endif
