/* The value tables of the non-linear types: coordinates of lattice points (IQ1, IQ2, IQ3) and of single values (IQ4,
 * MXFP4). A packed point holds its coordinates from the lowest bits up: eight of 2 bits (IQ1, IQ2) or four of 3 bits
 * (IQ3); each picks one of the levels. Parts of the file format. Pure data; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_CODEBOOK_H
#define BRIGADE_ENGINE_QUANT_CODEBOOK_H

#include <stdint.h>

extern const uint16_t codebook_iq1[2048]; /* IQ1_S and IQ1_M, levels_iq1 */
extern const uint16_t codebook_iq2_xxs[256];
extern const uint16_t codebook_iq2_xs[512];
extern const uint16_t codebook_iq2_s[1024]; /* the IQ2 three: levels_iq2 */
extern const uint16_t codebook_iq3_xxs[256];
extern const uint16_t codebook_iq3_s[512];

extern const int8_t codebook_levels_iq1[4];
extern const int8_t codebook_levels_iq2[4];
extern const int8_t codebook_levels_iq3_xxs[8];
extern const int8_t codebook_levels_iq3_s[8];

extern const int8_t codebook_iq4[16];   /* IQ4_NL and IQ4_XS */
extern const int8_t codebook_mxfp4[16]; /* twice the E2M1 values, so that they are whole */

/* IQ2_XXS, IQ2_XS and IQ3_XXS store 7 of the 8 signs of a point; the eighth makes the number of minus signs even. */
static inline unsigned codebook_signs(unsigned seven)
{
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1) << 7;
}

#endif
