/* Blocks of 256 values with scales of their own for each group of 16 or 32, and the ternary types. Pure; any thread. */
#include <stdint.h>
#include <string.h>

#include "engine/quant/blocks.h"
#include "engine/quant/codebook.h"
#include "engine/quant/dequantize_blocks.h"
#include "engine/quant/half.h"

/* The 2-bit field of value i in the layout that Q2_K, Q3_K, TQ2_0 and the high bits of Q6_K share. */
static inline int two_bits(const uint8_t *bytes, int i)
{
    return bytes[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3;
}

void dequantize_q2_k(const void *block, float *out)
{
    struct block_q2_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale), dmin = f16_to_f32(b.minimum);
    for (int g = 0; g < 16; g++) {
        float scale = d * (float)(b.scales[g] & 15), minimum = dmin * (float)(b.scales[g] >> 4);
        for (int i = 16 * g; i < 16 * g + 16; i++)
            out[i] = scale * (float)two_bits(b.q, i) - minimum;
    }
}

void dequantize_q3_k(const void *block, float *out)
{
    struct block_q3_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 16; g++) {
        float scale = d * (float)((int)block_scale_q3(b.scales, g) - 32);
        for (int i = 16 * g; i < 16 * g + 16; i++) {
            int high = b.high[i % 32] >> i / 32 & 1;
            out[i] = scale * (float)(two_bits(b.q, i) + 4 * high - 4);
        }
    }
}

void dequantize_q4_k(const void *block, float *out)
{
    struct block_q4_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale), dmin = f16_to_f32(b.minimum);
    for (int g = 0; g < 8; g++) {
        unsigned s, m;
        block_scales_k4(b.scales, g, &s, &m);
        float scale = d * (float)s, minimum = dmin * (float)m;
        const uint8_t *q = b.q + g / 2 * 32;
        for (int i = 0; i < 32; i++)
            out[32 * g + i] = scale * (float)(q[i] >> g % 2 * 4 & 15) - minimum;
    }
}

void dequantize_q5_k(const void *block, float *out)
{
    struct block_q5_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale), dmin = f16_to_f32(b.minimum);
    for (int g = 0; g < 8; g++) {
        unsigned s, m;
        block_scales_k4(b.scales, g, &s, &m);
        float scale = d * (float)s, minimum = dmin * (float)m;
        const uint8_t *q = b.q + g / 2 * 32;
        for (int i = 0; i < 32; i++)
            out[32 * g + i] = scale * (float)((q[i] >> g % 2 * 4 & 15) + 16 * (b.high[i] >> g & 1)) - minimum;
    }
}

void dequantize_q6_k(const void *block, float *out)
{
    struct block_q6_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 256; i++) {
        float scale = d * (float)b.scales[i / 16];
        int low = b.low[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
        out[i] = scale * (float)(low + 16 * two_bits(b.high, i) - 32);
    }
}

void dequantize_iq4_xs(const void *block, float *out)
{
    struct block_iq4_xs b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 8; g++) {
        int s = (b.scales_low[g / 2] >> g % 2 * 4 & 15) | (b.scales_high >> 2 * g & 3) << 4;
        float scale = d * (float)(s - 32);
        for (int i = 0; i < 16; i++) {
            out[32 * g + i] = scale * (float)codebook_iq4[b.q[16 * g + i] & 15];
            out[32 * g + i + 16] = scale * (float)codebook_iq4[b.q[16 * g + i] >> 4];
        }
    }
}

/* Trit n of a byte that holds five as a fraction: 0, 1 or 2. */
static inline int trit(uint8_t byte, int n)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    uint8_t rest = (uint8_t)(byte * powers[n]);
    return rest * 3 >> 8;
}

void dequantize_tq1_0(const void *block, float *out)
{
    struct block_tq1_0 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 160; i++)
        out[i] = d * (float)(trit(b.q[i % 32], i / 32) - 1);
    for (int i = 0; i < 80; i++)
        out[160 + i] = d * (float)(trit(b.q[32 + i % 16], i / 16) - 1);
    for (int i = 0; i < 16; i++)
        out[240 + i] = d * (float)(trit(b.last[i % 4], i / 4) - 1);
}

void dequantize_tq2_0(const void *block, float *out)
{
    struct block_tq2_0 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 256; i++)
        out[i] = d * (float)(two_bits(b.q, i) - 1);
}
