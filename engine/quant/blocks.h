/* How one block of each quantised type lies in memory: facts of the file format, little-endian, without padding.
 * Every field of 16 bits called scale or minimum is a binary16 float. In rows these blocks follow each other without a
 * gap, so a block may lie at any even (MXFP4: any) address. Source: ggml-common.h and the formulas of its quantisers.
 *
 * "Halves" says how nibbles are laid out: value i of a group of 2n is the low nibble of byte i for i < n and the high
 * nibble of byte i - n after. */
#ifndef BRIGADE_ENGINE_QUANT_BLOCKS_H
#define BRIGADE_ENGINE_QUANT_BLOCKS_H

#include <stdint.h>

/* --- 32 values a block --- */

struct block_q4_0 { /* scale * (q - 8) */
    uint16_t scale;
    uint8_t q[16]; /* halves */
};
struct block_q4_1 { /* scale * q + minimum */
    uint16_t scale, minimum;
    uint8_t q[16]; /* halves */
};
struct block_q5_0 { /* scale * (q - 16) */
    uint16_t scale;
    uint8_t high[4]; /* bit i of these 32: bit 4 of value i */
    uint8_t q[16];   /* halves */
};
struct block_q5_1 { /* scale * q + minimum */
    uint16_t scale, minimum;
    uint8_t high[4];
    uint8_t q[16];
};
struct block_q8_0 { /* scale * q */
    uint16_t scale;
    int8_t q[32];
};
struct block_iq4_nl { /* scale * codebook_iq4[q] */
    uint16_t scale;
    uint8_t q[16]; /* halves */
};
struct block_mxfp4 { /* 2^(exponent - 128) * codebook_mxfp4[q] */
    uint8_t exponent;
    uint8_t q[16]; /* halves */
};

/* --- 256 values a block --- */

struct block_q2_k { /* 16 groups of 16: scale * (s & 15) * q - minimum * (s >> 4) */
    uint8_t scales[16];
    uint8_t q[64]; /* 2 bits: value 128 h + 32 j + i is bits 2j of byte 32 h + i */
    uint16_t scale, minimum;
};
struct block_q3_k {     /* 16 groups of 16: scale * (s - 32) * (q - 4) */
    uint8_t high[32];   /* bit 4 h + j of byte i: bit 2 of value 128 h + 32 j + i */
    uint8_t q[64];      /* low 2 bits, as in Q2_K */
    uint8_t scales[12]; /* 16 of 6 bits: low nibbles of 0..7 then high nibbles are the low bits of s[0..7], s[8..15];
                         * bits 2 (g / 4) of byte 8 + g % 4 are the high bits of s[g] */
    uint16_t scale;
};
struct block_q4_k { /* 8 groups of 32: scale * s * q - minimum * m */
    uint16_t scale, minimum;
    uint8_t scales[12]; /* 8 pairs of 6 bits, see block_scales_k4 */
    uint8_t q[128];     /* halves of 64: groups 2j and 2j + 1 share bytes 32 j to 32 j + 31 */
};
struct block_q5_k { /* as Q4_K with a fifth bit */
    uint16_t scale, minimum;
    uint8_t scales[12];
    uint8_t high[32]; /* bit g of byte i: bit 4 of value i of group g */
    uint8_t q[128];
};
struct block_q6_k {   /* 16 groups of 16: scale * s * (q - 32) */
    uint8_t low[128]; /* 4 bits: value 128 h + 64 k + i (i < 64) is nibble k of byte 64 h + i */
    uint8_t high[64]; /* 2 bits: value 128 h + 32 j + i is bits 2j of byte 32 h + i */
    int8_t scales[16];
    uint16_t scale;
};
struct block_iq4_xs { /* 8 groups of 32: scale * (s - 32) * codebook_iq4[q] */
    uint16_t scale;
    uint16_t scales_high;  /* 2 bits a group */
    uint8_t scales_low[4]; /* 4 bits a group */
    uint8_t q[128];        /* halves of 32 in each group's 16 bytes */
};
/* Five trits a byte, as a fraction of 256: trit n of a byte is (byte * 3^n mod 256) * 3 / 256. */
struct block_tq1_0 { /* scale * (trit - 1) */
    uint8_t q[48];   /* values 0..159: trit n of byte i is value 32 n + i (i < 32);
                      * values 160..239: trit n of byte 32 + i is value 160 + 16 n + i */
    uint8_t last[4]; /* values 240..255: trit n of byte i is value 240 + 4 n + i */
    uint16_t scale;
};
struct block_tq2_0 { /* scale * (q - 1) */
    uint8_t q[64];   /* as in Q2_K */
    uint16_t scale;
};

/* Lattice types: a group of 32 is four points of eight coordinates (IQ3: two points of four each), with signs. */
struct block_iq2_xxs {
    uint16_t scale;
    uint8_t q[64]; /* 8 bytes a group: 4 point numbers; a word of four 7-bit sign sets and a 4-bit group scale */
};
struct block_iq2_xs {
    uint16_t scale;
    uint16_t q[32];    /* a point: 9 bits number, 7 bits signs */
    uint8_t scales[8]; /* a group: 4 bits for each two points */
};
struct block_iq2_s {
    uint16_t scale;
    uint8_t q[32]; /* low 8 bits of point numbers */
    uint8_t signs[32];
    uint8_t high[8]; /* a group: 2 bits a point */
    uint8_t scales[8];
};
struct block_iq3_xxs {
    uint16_t scale;
    uint8_t q[64];     /* point numbers */
    uint8_t signs[32]; /* a group: a word of four 7-bit sign sets and a 4-bit group scale */
};
struct block_iq3_s {
    uint16_t scale;
    uint8_t q[64];   /* low 8 bits of point numbers */
    uint8_t high[8]; /* a group: 1 bit a point */
    uint8_t signs[32];
    uint8_t scales[4]; /* 4 bits a group */
};
struct block_iq1_s { /* scale * (2 s + 1) * (point + delta) */
    uint16_t scale;
    uint8_t q[32];
    uint16_t high[8]; /* a group: 3 bits a point, 3 bits s, the sign of delta */
};
struct block_iq1_m {
    uint8_t q[32];
    uint8_t high[16];  /* a nibble a point: 3 bits of its number, the sign of its delta */
    uint8_t scales[8]; /* four words: 3 bits for each two points, and in the top 4 bits of each a part of the scale */
};

_Static_assert(sizeof(struct block_q4_0) == 18 && sizeof(struct block_q4_1) == 20, "layout");
_Static_assert(sizeof(struct block_q5_0) == 22 && sizeof(struct block_q5_1) == 24, "layout");
_Static_assert(sizeof(struct block_q8_0) == 34 && sizeof(struct block_iq4_nl) == 18, "layout");
_Static_assert(sizeof(struct block_mxfp4) == 17 && sizeof(struct block_q2_k) == 84, "layout");
_Static_assert(sizeof(struct block_q3_k) == 110 && sizeof(struct block_q4_k) == 144, "layout");
_Static_assert(sizeof(struct block_q5_k) == 176 && sizeof(struct block_q6_k) == 210, "layout");
_Static_assert(sizeof(struct block_iq4_xs) == 136 && sizeof(struct block_tq1_0) == 54, "layout");
_Static_assert(sizeof(struct block_tq2_0) == 66 && sizeof(struct block_iq2_xxs) == 66, "layout");
_Static_assert(sizeof(struct block_iq2_xs) == 74 && sizeof(struct block_iq2_s) == 82, "layout");
_Static_assert(sizeof(struct block_iq3_xxs) == 98 && sizeof(struct block_iq3_s) == 110, "layout");
_Static_assert(sizeof(struct block_iq1_s) == 50 && sizeof(struct block_iq1_m) == 56, "layout");

/* Scale and minimum of group g (0 to 7) of Q4_K and Q5_K: groups 0..3 are the low 6 bits of bytes g and g + 4; groups
 * 4..7 take nibbles of byte g + 4, and their two high bits from the top of bytes g - 4 and g. */
static inline void block_scales_k4(const uint8_t scales[12], int g, unsigned *scale, unsigned *minimum)
{
    if (g < 4) {
        *scale = scales[g] & 63;
        *minimum = scales[g + 4] & 63;
    } else {
        *scale = (scales[g + 4] & 15u) | (scales[g - 4] >> 6) << 4;
        *minimum = (scales[g + 4] >> 4) | (scales[g] >> 6) << 4;
    }
}

/* Scale of group g (0 to 15) of Q3_K, from 0 to 63; 32 is to be taken off. */
static inline unsigned block_scale_q3(const uint8_t scales[12], int g)
{
    unsigned low = g < 8 ? scales[g] & 15u : (unsigned)scales[g - 8] >> 4;
    return low | (scales[8 + g % 4] >> 2 * (g / 4) & 3u) << 4;
}

#endif
