/* Half-precision floats as bits: IEEE binary16 and bfloat16 to float exactly, and back with round to nearest even.
 * The same bits on every machine: only whole-number arithmetic. Denormals are kept, infinities too; a NaN becomes a
 * quiet NaN with its leading payload bits. Pure; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_HALF_H
#define BRIGADE_ENGINE_QUANT_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_from_bits32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t half_to_bits32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) /* infinity or NaN, the latter made quiet */
        return half_from_bits32(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent)
        return half_from_bits32(sign | (exponent + 112) << 23 | mantissa << 13);
    if (!mantissa)
        return half_from_bits32(sign);
    int shift = __builtin_clz(mantissa) - 21; /* brings the leading bit to bit 10 */
    return half_from_bits32(sign | (uint32_t)(113 - shift) << 23 | (mantissa << shift & 0x3ff) << 13);
}

static inline uint16_t f32_to_f16(float f)
{
    uint32_t bits = half_to_bits32(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude >= 0x38800000) /* 2^-14 and up are normal; a carry out of the mantissa raises the exponent */
        return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
    if (magnitude < 0x33000000) /* under 2^-25: half of the smallest denormal, rounds to zero */
        return (uint16_t)sign;
    uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
    int shift = 126 - (int)(magnitude >> 23); /* 14 to 24 */
    uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    return (uint16_t)(sign | (kept + (rest > middle || (rest == middle && (kept & 1)))));
}

static inline float bf16_to_f32(uint16_t h)
{
    return half_from_bits32((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float f)
{
    uint32_t bits = half_to_bits32(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The scale of an MXFP4 block times one half (its value table is doubled): 2^(e - 128), a denormal for e of 0 and 1. */
static inline float e8m0_half_to_f32(uint8_t e)
{
    return half_from_bits32(e < 2 ? UINT32_C(0x200000) << e : (uint32_t)(e - 1) << 23);
}

#endif
