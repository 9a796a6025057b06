/* Constants of the float functions, shared by the scalar definition (maths.c) and the lanes (vec_maths.h).
 * exp: n = rint(x·log2 e), r = x - n·ln 2 (two parts, fma), 1 + r + r²·P(r) by Horner with fma, then n added to the
 * exponent bits. P: Chebyshev interpolation of (eʳ - 1 - r)/r² on ±ln2/2, degree 4.
 * tanh: below 0.625, x + x³·Q(x²), Q interpolated likewise; above, 1 - 2/(exp(2|x|) + 1). */
#ifndef BRIGADE_ENGINE_KERNELS_MATHS_CONSTANTS_H
#define BRIGADE_ENGINE_KERNELS_MATHS_CONSTANTS_H

#define EXP_LOG2E 0x1.715476p+0f
#define EXP_LN2_HIGH 0x1.62e43p-1f
#define EXP_LN2_LOW -1.9046542121259336e-09f
#define EXP_SHIFTER 12582912.0f /* 1.5·2²³: adding it leaves rint(x) in the low bits */
#define EXP_P0 0.5f
#define EXP_P1 0.16666576266288757f
#define EXP_P2 0.04166655242443085f
#define EXP_P3 0.00836323294788599f
#define EXP_P4 0.0013926250394433737f
#define EXP_LOWEST -87.3f  /* below: 0 */
#define EXP_HIGHEST 88.72f /* above: +inf */

#define TANH_SMALL 0.625f
#define TANH_Q0 -0.333333283662796f
#define TANH_Q1 0.1333276331424713f
#define TANH_Q2 -0.05384990572929382f
#define TANH_Q3 0.020992422476410866f
#define TANH_Q4 -0.006089802831411362f

#define GELU_ROOT 0.7978845608028654f /* √(2/π) */
#define GELU_CUBIC 0.044715f

#endif
