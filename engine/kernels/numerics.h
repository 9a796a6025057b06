/* The exact meaning of every quantised type in a matrix product.
 *
 * Every type of the format is, without rounding, w[c] = scale[g]·q[c] + offset[g], where c runs over blocks of 32
 * columns, g over the block's one or two groups (of 32 or of 16 columns), q is an int8, and scale and offset are
 * binary32 numbers: products of a binary16 and a few bits, which always fit. So one sequence serves all types.
 *
 * Canonical order. x is quantised in blocks of 32 (struct act_block: q, d, sums). Per row, acc from 0, for each block:
 *   groups = 1: acc = fma(scale0·d, (float)Σ q·a, acc)                     [one product, one fma; Σ exact]
 *               and with offsets: acc = fma(offset0, ds, acc), ds = d·(float)Σ a
 *   groups = 2: acc = fma(scale0·d, (float)Σ₀, acc); acc = fma(scale1·d, (float)Σ₁, acc), Σ₀ over the first 16 columns
 *               and with offsets: acc = fma(offset0, d·(float)Σ₀a, acc); acc = fma(offset1, d·(float)Σ₁a, acc)
 * Types and their (groups, scale, q, offset); s, m are the block's small integers, d, dmin its binary16 fields:
 *   Q4_0 (1, d, q-8)    Q5_0 (1, d, q-16)   Q8_0 (1, d, q)     IQ4_NL (1, d, code)  MXFP4 (1, 2^(e-128), code)
 *   Q4_1 (1, d, q, m)   Q5_1 (1, d, q, m)   TQ1_0 TQ2_0 (1, d, q-1)
 *   Q4_K Q5_K (1, d·s, q, -(dmin·m))        IQ4_XS (1, d·(s-32), code)
 *   Q2_K (2, d·s, q, -(dmin·m))             Q3_K (2, d·(s-32), q-4)                 Q6_K (2, d·s, q-32)
 *   IQ2_XXS (1, d·(s+½)/4, ±level)          IQ2_XS IQ2_S (2, d·(s+½)/4, ±level)
 *   IQ3_XXS (1, d·(s+½)/2, ±level)          IQ3_S (1, d·(2s+1), ±level)
 *   IQ1_S (1, d·(2s+1)/8, 8·level±1)        IQ1_M (2, d·(2s+1)/8, 8·level±1)
 *
 * The 8-bit KV cache (KV_Q8): a position's head vector in blocks of 32 dims, scale = binary16(amax/127),
 * q = rint(x·(1/scale)) within ±127 (0 when scale is 0 or 1/scale overflows). Scores: for each block, c = fma chain
 * from 0 of q_query[d]·(float)q[d]; s = fma(c, scale, s), s from 0. Values: e' = e·scale of the dim's block, then
 * out[d] = fma(e', (float)q[d], out[d]).
 *
 * Pure but for numerics_prepare; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_NUMERICS_H
#define BRIGADE_ENGINE_KERNELS_NUMERICS_H

#include <stdbool.h>
#include <stdint.h>

struct numerics {
    int groups;  /* 1 or 2 scales for 32 columns; 0 when the type is no quantised type */
    bool offset; /* has offsets (minima) */
};
struct numerics numerics_of(uint32_t type);

/* 32 columns of one row. With one group, scale[1] = scale[0] and offset[1] = offset[0]. */
struct block32 {
    int8_t q[32];
    float scale[2], offset[2];
};

/* Takes one block of the file (of type_info(type)->block_values columns, at any address) apart into
 * block_values / 32 entries of out. The type must have numerics_of(type).groups > 0. */
void numerics_decode(uint32_t type, const void *block, struct block32 *out);
void numerics_decode_lattice(uint32_t type, const void *block, struct block32 *out); /* its part for IQ1-3 and TQ */
/* Fills the tables of whole points that the above uses; before any decoding, from one thread. Again is harmless. */
void numerics_prepare(void);

#endif
