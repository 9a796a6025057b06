/* Rows of any tensor type to floats: the definition of what every type means, which kernels are checked against.
 *
 * The result is defined to the bit. F16 and BF16 are exact, F64 rounds to nearest even. A quantised value takes these
 * f32 operations in this order, each rounded once, never contracted (s, m, q whole numbers, d and dmin the block's):
 *   Q4_0 Q5_0 Q8_0 IQ4_NL MXFP4 TQ1_0 TQ2_0   d * q
 *   Q4_1 Q5_1                                 d * q + m
 *   Q3_K Q6_K IQ4_XS                          (d * s) * q
 *   Q2_K Q4_K Q5_K                            (d * s) * q - (dmin * m)
 *   IQ2_XXS IQ2_XS IQ2_S                      (d * (s + 0.5)) * 0.25 * q
 *   IQ3_XXS                                   (d * (s + 0.5)) * 0.5 * q
 *   IQ3_S                                     (d * (2 s + 1)) * q
 *   IQ1_S IQ1_M                               (d * (2 s + 1)) * (q + delta), delta 0.125 or -0.125
 * Source: blocks.h. Pure functions; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_DEQUANTIZE_H
#define BRIGADE_ENGINE_QUANT_DEQUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Writes `values` floats of a row of `type` to out; row needs no alignment. 0, ERR_FORMAT when values is no whole
 * number of blocks, or ERR_UNSUPPORTED when the type is none of the above (then out is untouched). */
int dequantize_row(uint32_t type, const void *row, float *out, uint64_t values);

/* Whether dequantize_row knows the type. */
bool dequantize_known(uint32_t type);

#endif
