/* Blocks of lattice points (IQ1, IQ2, IQ3) and of trits as whole numbers with scales, eight columns at a time: a point
 * is looked up whole, and signs are applied to eight bytes in one word. Shapes: engine/quant/blocks.h. Owns the tables
 * of points; pure once they are filled. */
#include <string.h>

#include "engine/kernels/numerics.h"
#include "engine/quant/blocks.h"
#include "engine/quant/codebook.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

#define ONES UINT64_C(0x0101010101010101)

/* Points with their coordinates in bytes (IQ1: eight times the level), and what makes bytes negative. */
static uint64_t points_iq1[2048], points_iq2_xxs[256], points_iq2_xs[512], points_iq2_s[1024];
static uint32_t points_iq3_xxs[256], points_iq3_s[512];
static uint64_t signs_of[256]; /* 0xff in byte i for bit i */

static uint64_t spread(unsigned number, int count, int bits, const int8_t *levels, int factor)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes |= (uint64_t)(uint8_t)(levels[number >> bits * i & ((1u << bits) - 1)] * factor) << 8 * i;
    return bytes;
}

void numerics_prepare(void)
{
    for (unsigned i = 0; i < 2048; i++)
        points_iq1[i] = spread(codebook_iq1[i], 8, 2, codebook_levels_iq1, 8);
    for (unsigned i = 0; i < 1024; i++)
        points_iq2_s[i] = spread(codebook_iq2_s[i], 8, 2, codebook_levels_iq2, 1);
    for (unsigned i = 0; i < 512; i++) {
        points_iq2_xs[i] = spread(codebook_iq2_xs[i], 8, 2, codebook_levels_iq2, 1);
        points_iq3_s[i] = (uint32_t)spread(codebook_iq3_s[i], 4, 3, codebook_levels_iq3_s, 1);
    }
    for (unsigned i = 0; i < 256; i++) {
        points_iq2_xxs[i] = spread(codebook_iq2_xxs[i], 8, 2, codebook_levels_iq2, 1);
        points_iq3_xxs[i] = (uint32_t)spread(codebook_iq3_xxs[i], 4, 3, codebook_levels_iq3_xxs, 1);
        signs_of[i] = 0;
        for (int bit = 0; bit < 8; bit++)
            signs_of[i] |= (uint64_t)(i >> bit & 1 ? 0xff : 0) << 8 * bit;
    }
}

static void set_scale(struct block32 *b, float scale)
{
    b->scale[0] = b->scale[1] = scale;
    b->offset[0] = b->offset[1] = 0;
}

/* Eight coordinates, none of them 0, so that no carry leaves its byte. */
static void put(int8_t *q, uint64_t point, unsigned signs)
{
    uint64_t minus = signs_of[signs & 255];
    point = (point ^ minus) + (minus & ONES);
    memcpy(q, &point, sizeof point);
}

static void decode_iq2_xxs(const void *block, struct block32 *out)
{
    struct block_iq2_xxs b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++) {
        uint32_t word;
        memcpy(&word, b.q + 8 * g + 4, sizeof word);
        set_scale(&out[g], f16_to_f32(b.scale) * ((float)(word >> 28) + 0.5f) * 0.25f);
        for (int p = 0; p < 4; p++)
            put(out[g].q + 8 * p, points_iq2_xxs[b.q[8 * g + p]], codebook_signs(word >> 7 * p & 127));
    }
}

/* IQ2_XS and IQ2_S have two groups of 16, each of two points. */
static void set_scales_iq2(struct block32 *out, float d, const uint8_t scales[8])
{
    for (int g = 0; g < 8; g++) {
        out[g].scale[0] = d * ((float)(scales[g] & 15) + 0.5f) * 0.25f;
        out[g].scale[1] = d * ((float)(scales[g] >> 4) + 0.5f) * 0.25f;
        out[g].offset[0] = out[g].offset[1] = 0;
    }
}

static void decode_iq2_xs(const void *block, struct block32 *out)
{
    struct block_iq2_xs b;
    memcpy(&b, block, sizeof b);
    set_scales_iq2(out, f16_to_f32(b.scale), b.scales);
    for (int p = 0; p < 32; p++)
        put(out[p / 4].q + p % 4 * 8, points_iq2_xs[b.q[p] & 511], codebook_signs(b.q[p] >> 9));
}

static void decode_iq2_s(const void *block, struct block32 *out)
{
    struct block_iq2_s b;
    memcpy(&b, block, sizeof b);
    set_scales_iq2(out, f16_to_f32(b.scale), b.scales);
    for (int p = 0; p < 32; p++)
        put(out[p / 4].q + p % 4 * 8, points_iq2_s[b.q[p] | (b.high[p / 4] >> p % 4 * 2 & 3u) << 8], b.signs[p]);
}

static void decode_iq3_xxs(const void *block, struct block32 *out)
{
    struct block_iq3_xxs b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++) {
        uint32_t word;
        memcpy(&word, b.signs + 4 * g, sizeof word);
        set_scale(&out[g], f16_to_f32(b.scale) * ((float)(word >> 28) + 0.5f) * 0.5f);
        for (int p = 0; p < 4; p++) {
            const uint8_t *q = b.q + 8 * g + 2 * p;
            put(out[g].q + 8 * p, points_iq3_xxs[q[0]] | (uint64_t)points_iq3_xxs[q[1]] << 32,
                codebook_signs(word >> 7 * p & 127));
        }
    }
}

static void decode_iq3_s(const void *block, struct block32 *out)
{
    struct block_iq3_s b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++) {
        set_scale(&out[g], f16_to_f32(b.scale) * (float)(1 + 2 * (b.scales[g / 2] >> g % 2 * 4 & 15)));
        for (int p = 0; p < 4; p++) {
            const uint8_t *q = b.q + 8 * g + 2 * p;
            unsigned first = q[0] | (b.high[g] >> 2 * p & 1u) << 8, second = q[1] | (b.high[g] >> (2 * p + 1) & 1u)
                                                                                        << 8;
            put(out[g].q + 8 * p, points_iq3_s[first] | (uint64_t)points_iq3_s[second] << 32, b.signs[4 * g + p]);
        }
    }
}

/* Eighths: eight times the level, and one eighth up or down. A level of 0 is fine: bytes are moved by one with the top
 * bit turned, so that nothing is borrowed. */
static void put_iq1(int8_t *q, uint64_t point, bool down)
{
    point ^= 0x80 * ONES;
    point = down ? point - ONES : point + ONES;
    point ^= 0x80 * ONES;
    memcpy(q, &point, sizeof point);
}

static void decode_iq1_s(const void *block, struct block32 *out)
{
    struct block_iq1_s b;
    memcpy(&b, block, sizeof b);
    for (int p = 0; p < 32; p++) {
        unsigned high = b.high[p / 4];
        set_scale(&out[p / 4], f16_to_f32(b.scale) * (float)(2 * (high >> 12 & 7) + 1) * 0.125f);
        put_iq1(out[p / 4].q + p % 4 * 8, points_iq1[b.q[p] | (high >> p % 4 * 3 & 7) << 8], high & 0x8000);
    }
}

static void decode_iq1_m(const void *block, struct block32 *out)
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
        struct block32 *o = &out[p / 4];
        o->scale[pair % 2] = d * (float)(2 * (words[pair / 4] >> pair % 4 * 3 & 7) + 1) * 0.125f;
        o->offset[pair % 2] = 0;
        put_iq1(o->q + p % 4 * 8, points_iq1[b.q[p] | (high & 7) << 8], high & 8);
    }
}

/* Trit n of bytes that hold five each as a fraction, less 1. */
static void trits(const uint8_t *bytes, int count, int n, int8_t *q)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    for (int i = 0; i < count; i++)
        q[i] = (int8_t)(((uint8_t)(bytes[i] * powers[n]) * 3 >> 8) - 1);
}

static void decode_tq1_0(const void *block, struct block32 *out)
{
    struct block_tq1_0 b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++)
        set_scale(&out[g], f16_to_f32(b.scale));
    for (int n = 0; n < 5; n++) {
        trits(b.q, 32, n, out[n].q);
        trits(b.q + 32, 16, n, out[5 + n / 2].q + 16 * (n % 2));
    }
    for (int n = 0; n < 4; n++)
        trits(b.last, 4, n, out[7].q + 16 + 4 * n);
}

static void decode_tq2_0(const void *block, struct block32 *out)
{
    struct block_tq2_0 b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++) {
        set_scale(&out[g], f16_to_f32(b.scale));
        for (int i = 0; i < 32; i++)
            out[g].q[i] = (int8_t)((b.q[g / 4 * 32 + i] >> g % 4 * 2 & 3) - 1);
    }
}

void numerics_decode_lattice(uint32_t type, const void *block, struct block32 *out)
{
    switch (type) {
    case TYPE_IQ2_XXS:
        decode_iq2_xxs(block, out);
        break;
    case TYPE_IQ2_XS:
        decode_iq2_xs(block, out);
        break;
    case TYPE_IQ2_S:
        decode_iq2_s(block, out);
        break;
    case TYPE_IQ3_XXS:
        decode_iq3_xxs(block, out);
        break;
    case TYPE_IQ3_S:
        decode_iq3_s(block, out);
        break;
    case TYPE_IQ1_S:
        decode_iq1_s(block, out);
        break;
    case TYPE_IQ1_M:
        decode_iq1_m(block, out);
        break;
    case TYPE_TQ1_0:
        decode_tq1_0(block, out);
        break;
    default:
        decode_tq2_0(block, out);
        break;
    }
}
