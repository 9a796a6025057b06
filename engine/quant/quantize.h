/* Rows of floats to the tensor types that brigade writes: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K,
 * Q6_K, IQ4_NL. Deterministic: the same bytes on every machine and for any number of threads.
 * Pure functions; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_QUANTIZE_H
#define BRIGADE_ENGINE_QUANT_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Writes type_row_bytes(type, values) bytes to out, which needs no alignment. The floats must be finite. 0, ERR_FORMAT
 * when values is no whole number of blocks, or ERR_UNSUPPORTED when brigade does not write the type. */
int quantize_row(uint32_t type, const float *in, void *out, uint64_t values);

/* Whether quantize_row writes the type. */
bool quantize_known(uint32_t type);

#endif
