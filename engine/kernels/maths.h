/* exp, log, tanh, sin and cos of our own: the same bits on every machine, because each is a fixed sequence of IEEE
 * operations and fma (no libm in the path). The scalar forms below are the definition; each ISA level repeats the same
 * sequence in its lanes. Accuracy is a few units in the last place. */
#ifndef BRIGADE_ENGINE_KERNELS_MATHS_H
#define BRIGADE_ENGINE_KERNELS_MATHS_H

float maths_exp(float x); /* 0 below about -87.3 (no denormal results), +inf above about 88.7; NaN stays */
float maths_tanh(float x);
float maths_silu(float x);  /* x / (1 + exp(-x)) */
float maths_gelu(float x);  /* 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) */
double maths_log(double x); /* for x > 0 */
double maths_exp2(double x);
double maths_pow(double base, double exponent); /* base > 0 */
void maths_sincos(double angle, double *sine, double *cosine);

#endif
