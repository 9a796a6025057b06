/* The block functions behind dequantize_row, one a type: each takes one block at any address and writes its values.
 * dequantize.c and the tests use this; others call dequantize_row. */
#ifndef BRIGADE_ENGINE_QUANT_DEQUANTIZE_BLOCKS_H
#define BRIGADE_ENGINE_QUANT_DEQUANTIZE_BLOCKS_H

typedef void dequantize_block(const void *block, float *out);

/* dequantize.c: 32 values */
dequantize_block dequantize_q4_0, dequantize_q4_1, dequantize_q5_0, dequantize_q5_1, dequantize_q8_0, dequantize_iq4_nl,
    dequantize_mxfp4;
/* dequantize_k.c: 256 values */
dequantize_block dequantize_q2_k, dequantize_q3_k, dequantize_q4_k, dequantize_q5_k, dequantize_q6_k, dequantize_iq4_xs,
    dequantize_tq1_0, dequantize_tq2_0;
/* dequantize_iq.c: 256 values */
dequantize_block dequantize_iq2_xxs, dequantize_iq2_xs, dequantize_iq2_s, dequantize_iq3_xxs, dequantize_iq3_s,
    dequantize_iq1_s, dequantize_iq1_m;

#endif
