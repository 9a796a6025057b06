/* The block functions behind quantize_row, one a type: each reads one block's finite floats and writes its bytes.
 * quantize.c and the tests use this; others call quantize_row. */
#ifndef BRIGADE_ENGINE_QUANT_QUANTIZE_BLOCKS_H
#define BRIGADE_ENGINE_QUANT_QUANTIZE_BLOCKS_H

typedef void quantize_block(const float *in, void *block);

/* quantize.c: 32 values */
quantize_block quantize_q8_0, quantize_q4_0, quantize_q4_1, quantize_q5_0, quantize_q5_1, quantize_iq4_nl;
/* quantize_k.c: 256 values */
quantize_block quantize_q4_k, quantize_q5_k, quantize_q6_k;

#endif
