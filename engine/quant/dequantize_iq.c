/* Blocks of lattice points: the IQ1, IQ2 and IQ3 families. Pure; any thread. */
#include <stdint.h>
#include <string.h>

#include "engine/quant/blocks.h"
#include "engine/quant/codebook.h"
#include "engine/quant/dequantize_blocks.h"
#include "engine/quant/half.h"

/* Eight values of an IQ2 point; bit i of signs makes value i negative. */
static void put_iq2(float *out, float scale, unsigned point, unsigned signs)
{
    for (int i = 0; i < 8; i++) {
        float value = scale * (float)codebook_levels_iq2[point >> 2 * i & 3];
        out[i] = signs >> i & 1 ? -value : value;
    }
}

/* Four values of an IQ3 point. */
static void put_iq3(float *out, float scale, const int8_t levels[8], unsigned point, unsigned signs)
{
    for (int i = 0; i < 4; i++) {
        float value = scale * (float)levels[point >> 3 * i & 7];
        out[i] = signs >> i & 1 ? -value : value;
    }
}

/* Eight values of an IQ1 point, moved by delta. */
static void put_iq1(float *out, float scale, unsigned point, float delta)
{
    for (int i = 0; i < 8; i++)
        out[i] = scale * ((float)codebook_levels_iq1[point >> 2 * i & 3] + delta);
}

static float iq2_scale(float d, unsigned s)
{
    return d * (0.5f + (float)s) * 0.25f;
}

void dequantize_iq2_xxs(const void *block, float *out)
{
    struct block_iq2_xxs b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 8; g++) {
        const uint8_t *points = b.q + 8 * g;
        uint32_t word;
        memcpy(&word, points + 4, sizeof word);
        float scale = iq2_scale(d, word >> 28);
        for (int p = 0; p < 4; p++)
            put_iq2(out + 32 * g + 8 * p, scale, codebook_iq2_xxs[points[p]], codebook_signs(word >> 7 * p & 127));
    }
}

void dequantize_iq2_xs(const void *block, float *out)
{
    struct block_iq2_xs b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int p = 0; p < 32; p++) {
        float scale = iq2_scale(d, b.scales[p / 4] >> p % 4 / 2 * 4 & 15);
        put_iq2(out + 8 * p, scale, codebook_iq2_xs[b.q[p] & 511], codebook_signs(b.q[p] >> 9));
    }
}

void dequantize_iq2_s(const void *block, float *out)
{
    struct block_iq2_s b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int p = 0; p < 32; p++) {
        float scale = iq2_scale(d, b.scales[p / 4] >> p % 4 / 2 * 4 & 15);
        unsigned number = b.q[p] | (b.high[p / 4] >> p % 4 * 2 & 3u) << 8;
        put_iq2(out + 8 * p, scale, codebook_iq2_s[number], b.signs[p]);
    }
}

void dequantize_iq3_xxs(const void *block, float *out)
{
    struct block_iq3_xxs b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 8; g++) {
        uint32_t word;
        memcpy(&word, b.signs + 4 * g, sizeof word);
        float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
        for (int p = 0; p < 8; p++) {
            unsigned signs = codebook_signs(word >> p / 2 * 7 & 127) >> p % 2 * 4;
            put_iq3(out + 32 * g + 4 * p, scale, codebook_levels_iq3_xxs, codebook_iq3_xxs[b.q[8 * g + p]], signs);
        }
    }
}

void dequantize_iq3_s(const void *block, float *out)
{
    struct block_iq3_s b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int p = 0; p < 64; p++) {
        int g = p / 8;
        float scale = d * (float)(1 + 2 * (b.scales[g / 2] >> g % 2 * 4 & 15));
        unsigned number = b.q[p] | (b.high[g] >> p % 8 & 1u) << 8;
        put_iq3(out + 4 * p, scale, codebook_levels_iq3_s, codebook_iq3_s[number], b.signs[p / 2] >> p % 2 * 4);
    }
}

void dequantize_iq1_s(const void *block, float *out)
{
    struct block_iq1_s b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int p = 0; p < 32; p++) {
        unsigned high = b.high[p / 4];
        float scale = d * (float)(2 * (high >> 12 & 7) + 1);
        unsigned number = b.q[p] | (high >> p % 4 * 3 & 7) << 8;
        put_iq1(out + 8 * p, scale, codebook_iq1[number], high & 0x8000 ? -0.125f : 0.125f);
    }
}

void dequantize_iq1_m(const void *block, float *out)
{
    struct block_iq1_m b;
    memcpy(&b, block, sizeof b);
    uint16_t words[4];
    memcpy(words, b.scales, sizeof words);
    unsigned bits = 0;
    for (int i = 0; i < 4; i++)
        bits |= (unsigned)(words[i] >> 12) << 4 * i;
    float d = f16_to_f32((uint16_t)bits);
    for (int p = 0; p < 32; p++) {
        int pair = p / 2;
        unsigned high = b.high[pair] >> p % 2 * 4 & 15;
        float scale = d * (float)(2 * (words[pair / 4] >> pair % 4 * 3 & 7) + 1);
        put_iq1(out + 8 * p, scale, codebook_iq1[b.q[p] | (high & 7) << 8], high & 8 ? -0.125f : 0.125f);
    }
}
