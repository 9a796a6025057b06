/* Blocks of the file as whole numbers with scales: what the kernels multiply. Shapes: engine/quant/blocks.h. Pure. */
#include "engine/kernels/numerics.h"

#include <string.h>

#include "engine/quant/blocks.h"
#include "engine/quant/codebook.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

struct numerics numerics_of(uint32_t type)
{
    switch (type) {
    case TYPE_Q4_0:
    case TYPE_Q5_0:
    case TYPE_Q8_0:
    case TYPE_IQ4_NL:
    case TYPE_IQ4_XS:
    case TYPE_MXFP4:
    case TYPE_TQ1_0:
    case TYPE_TQ2_0:
    case TYPE_IQ2_XXS:
    case TYPE_IQ3_XXS:
    case TYPE_IQ3_S:
    case TYPE_IQ1_S:
        return (struct numerics){1, false};
    case TYPE_Q4_1:
    case TYPE_Q5_1:
    case TYPE_Q4_K:
    case TYPE_Q5_K:
        return (struct numerics){1, true};
    case TYPE_Q3_K:
    case TYPE_Q6_K:
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S:
    case TYPE_IQ1_M:
        return (struct numerics){2, false};
    case TYPE_Q2_K:
        return (struct numerics){2, true};
    default:
        return (struct numerics){0, false};
    }
}

static void set_scale(struct block32 *b, float scale, float offset)
{
    b->scale[0] = b->scale[1] = scale;
    b->offset[0] = b->offset[1] = offset;
}

/* Low nibbles are columns 0..15, high nibbles 16..31, each less `zero`. */
static void nibbles(struct block32 *b, const uint8_t q[16], int zero)
{
    for (int i = 0; i < 16; i++) {
        b->q[i] = (int8_t)((q[i] & 15) - zero);
        b->q[i + 16] = (int8_t)((q[i] >> 4) - zero);
    }
}

static void codes(struct block32 *b, const uint8_t q[16], const int8_t table[16])
{
    for (int i = 0; i < 16; i++) {
        b->q[i] = table[q[i] & 15];
        b->q[i + 16] = table[q[i] >> 4];
    }
}

static void fifth_bits(struct block32 *b, const uint8_t high[4])
{
    for (int i = 0; i < 32; i++)
        b->q[i] = (int8_t)(b->q[i] + 16 * (high[i / 8] >> i % 8 & 1));
}

static void decode_32(uint32_t type, const void *block, struct block32 *out)
{
    union {
        struct block_q4_0 q4_0;
        struct block_q4_1 q4_1;
        struct block_q5_0 q5_0;
        struct block_q5_1 q5_1;
        struct block_q8_0 q8_0;
        struct block_iq4_nl iq4_nl;
        struct block_mxfp4 mxfp4;
    } b;
    memcpy(&b, block, type_info(type)->block_bytes);
    switch (type) {
    case TYPE_Q4_0:
        set_scale(out, f16_to_f32(b.q4_0.scale), 0);
        nibbles(out, b.q4_0.q, 8);
        break;
    case TYPE_Q4_1:
        set_scale(out, f16_to_f32(b.q4_1.scale), f16_to_f32(b.q4_1.minimum));
        nibbles(out, b.q4_1.q, 0);
        break;
    case TYPE_Q5_0:
        set_scale(out, f16_to_f32(b.q5_0.scale), 0);
        nibbles(out, b.q5_0.q, 16);
        fifth_bits(out, b.q5_0.high);
        break;
    case TYPE_Q5_1:
        set_scale(out, f16_to_f32(b.q5_1.scale), f16_to_f32(b.q5_1.minimum));
        nibbles(out, b.q5_1.q, 0);
        fifth_bits(out, b.q5_1.high);
        break;
    case TYPE_Q8_0:
        set_scale(out, f16_to_f32(b.q8_0.scale), 0);
        memcpy(out->q, b.q8_0.q, 32);
        break;
    case TYPE_IQ4_NL:
        set_scale(out, f16_to_f32(b.iq4_nl.scale), 0);
        codes(out, b.iq4_nl.q, codebook_iq4);
        break;
    default: /* MXFP4 */
        set_scale(out, e8m0_half_to_f32(b.mxfp4.exponent), 0);
        codes(out, b.mxfp4.q, codebook_mxfp4);
        break;
    }
}

/* The 2-bit field of value i in the layout that Q2_K, Q3_K, TQ2_0 and the high bits of Q6_K share. */
static int two_bits(const uint8_t *bytes, int i)
{
    return bytes[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3;
}

static void decode_q2_k(const void *block, struct block32 *out)
{
    struct block_q2_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale), dmin = f16_to_f32(b.minimum);
    for (int g = 0; g < 16; g++) {
        out[g / 2].scale[g % 2] = d * (float)(b.scales[g] & 15);
        out[g / 2].offset[g % 2] = -(dmin * (float)(b.scales[g] >> 4));
    }
    for (int i = 0; i < 256; i++)
        out[i / 32].q[i % 32] = (int8_t)two_bits(b.q, i);
}

static void decode_q3_k(const void *block, struct block32 *out)
{
    struct block_q3_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 16; g++) {
        out[g / 2].scale[g % 2] = d * (float)((int)block_scale_q3(b.scales, g) - 32);
        out[g / 2].offset[g % 2] = 0;
    }
    for (int i = 0; i < 256; i++)
        out[i / 32].q[i % 32] = (int8_t)(two_bits(b.q, i) + 4 * (b.high[i % 32] >> i / 32 & 1) - 4);
}

static void decode_q45_k(uint32_t type, const void *block, struct block32 *out)
{
    struct block_q5_k b = {0};
    if (type == TYPE_Q5_K) {
        memcpy(&b, block, sizeof b);
    } else {
        struct block_q4_k four;
        memcpy(&four, block, sizeof four);
        b.scale = four.scale;
        b.minimum = four.minimum;
        memcpy(b.scales, four.scales, sizeof b.scales);
        memcpy(b.q, four.q, sizeof b.q);
    }
    float d = f16_to_f32(b.scale), dmin = f16_to_f32(b.minimum);
    for (int g = 0; g < 8; g++) {
        unsigned s, m;
        block_scales_k4(b.scales, g, &s, &m);
        set_scale(&out[g], d * (float)s, -(dmin * (float)m));
        for (int i = 0; i < 32; i++)
            out[g].q[i] = (int8_t)((b.q[g / 2 * 32 + i] >> g % 2 * 4 & 15) + 16 * (b.high[i] >> g & 1));
    }
}

static void decode_q6_k(const void *block, struct block32 *out)
{
    struct block_q6_k b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 16; g++) {
        out[g / 2].scale[g % 2] = d * (float)b.scales[g];
        out[g / 2].offset[g % 2] = 0;
    }
    for (int i = 0; i < 256; i++) {
        int low = b.low[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
        out[i / 32].q[i % 32] = (int8_t)(low + 16 * two_bits(b.high, i) - 32);
    }
}

static void decode_iq4_xs(const void *block, struct block32 *out)
{
    struct block_iq4_xs b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int g = 0; g < 8; g++) {
        int s = (b.scales_low[g / 2] >> g % 2 * 4 & 15) | (b.scales_high >> 2 * g & 3) << 4;
        set_scale(&out[g], d * (float)(s - 32), 0);
        codes(&out[g], b.q + 16 * g, codebook_iq4);
    }
}

static int trit(uint8_t byte, int n)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * powers[n]) * 3 >> 8;
}

static void decode_ternary(uint32_t type, const void *block, struct block32 *out)
{
    struct block_tq1_0 one = {0};
    struct block_tq2_0 two = {0};
    if (type == TYPE_TQ1_0)
        memcpy(&one, block, sizeof one);
    else
        memcpy(&two, block, sizeof two);
    float d = f16_to_f32(type == TYPE_TQ1_0 ? one.scale : two.scale);
    for (int i = 0; i < 256; i++) {
        int q = type == TYPE_TQ2_0 ? two_bits(two.q, i)
                : i < 160          ? trit(one.q[i % 32], i / 32)
                : i < 240          ? trit(one.q[32 + i % 16], (i - 160) / 16)
                                   : trit(one.last[i % 4], (i - 240) / 4);
        out[i / 32].q[i % 32] = (int8_t)(q - 1);
        set_scale(&out[i / 32], d, 0);
    }
}

/* `count` coordinates of `bits` bits each, negative where `signs` says so. */
static void point(int8_t *q, unsigned number, int count, int bits, const int8_t *levels, unsigned signs)
{
    for (int i = 0; i < count; i++) {
        int level = levels[number >> bits * i & ((1u << bits) - 1)];
        q[i] = (int8_t)(signs >> i & 1 ? -level : level);
    }
}

static void decode_iq2_xxs(const void *block, struct block32 *out)
{
    struct block_iq2_xxs b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++) {
        uint32_t word;
        memcpy(&word, b.q + 8 * g + 4, sizeof word);
        set_scale(&out[g], f16_to_f32(b.scale) * ((float)(word >> 28) + 0.5f) * 0.25f, 0);
        for (int p = 0; p < 4; p++)
            point(out[g].q + 8 * p, codebook_iq2_xxs[b.q[8 * g + p]], 8, 2, codebook_levels_iq2,
                  codebook_signs(word >> 7 * p & 127));
    }
}

/* IQ2_XS and IQ2_S: two groups of 16, each of two points. */
static void decode_iq2(uint32_t type, const void *block, struct block32 *out)
{
    struct block_iq2_xs xs = {0};
    struct block_iq2_s s = {0};
    bool is_xs = type == TYPE_IQ2_XS;
    if (is_xs)
        memcpy(&xs, block, sizeof xs);
    else
        memcpy(&s, block, sizeof s);
    float d = f16_to_f32(is_xs ? xs.scale : s.scale);
    const uint8_t *scales = is_xs ? xs.scales : s.scales;
    for (int p = 0; p < 32; p++) {
        struct block32 *o = &out[p / 4];
        o->scale[p % 4 / 2] = d * ((float)(scales[p / 4] >> p % 4 / 2 * 4 & 15) + 0.5f) * 0.25f;
        o->offset[p % 4 / 2] = 0;
        unsigned number = is_xs ? codebook_iq2_xs[xs.q[p] & 511]
                                : codebook_iq2_s[s.q[p] | (s.high[p / 4] >> p % 4 * 2 & 3u) << 8];
        unsigned signs = is_xs ? codebook_signs(xs.q[p] >> 9) : s.signs[p];
        point(o->q + p % 4 * 8, number, 8, 2, codebook_levels_iq2, signs);
    }
}

static void decode_iq3_xxs(const void *block, struct block32 *out)
{
    struct block_iq3_xxs b;
    memcpy(&b, block, sizeof b);
    for (int g = 0; g < 8; g++) {
        uint32_t word;
        memcpy(&word, b.signs + 4 * g, sizeof word);
        set_scale(&out[g], f16_to_f32(b.scale) * ((float)(word >> 28) + 0.5f) * 0.5f, 0);
        for (int p = 0; p < 8; p++)
            point(out[g].q + 4 * p, codebook_iq3_xxs[b.q[8 * g + p]], 4, 3, codebook_levels_iq3_xxs,
                  codebook_signs(word >> p / 2 * 7 & 127) >> p % 2 * 4);
    }
}

static void decode_iq3_s(const void *block, struct block32 *out)
{
    struct block_iq3_s b;
    memcpy(&b, block, sizeof b);
    for (int p = 0; p < 64; p++) {
        int g = p / 8;
        set_scale(&out[g], f16_to_f32(b.scale) * (float)(1 + 2 * (b.scales[g / 2] >> g % 2 * 4 & 15)), 0);
        unsigned number = b.q[p] | (b.high[g] >> p % 8 & 1u) << 8;
        point(out[g].q + p % 8 * 4, codebook_iq3_s[number], 4, 3, codebook_levels_iq3_s,
              (unsigned)b.signs[p / 2] >> p % 2 * 4);
    }
}

/* Eighths: 8·level and one eighth up or down. */
static void point_iq1(int8_t *q, unsigned number, bool down)
{
    for (int i = 0; i < 8; i++)
        q[i] = (int8_t)(8 * codebook_levels_iq1[number >> 2 * i & 3] + (down ? -1 : 1));
}

static void decode_iq1_s(const void *block, struct block32 *out)
{
    struct block_iq1_s b;
    memcpy(&b, block, sizeof b);
    for (int p = 0; p < 32; p++) {
        unsigned high = b.high[p / 4];
        set_scale(&out[p / 4], f16_to_f32(b.scale) * (float)(2 * (high >> 12 & 7) + 1) * 0.125f, 0);
        point_iq1(out[p / 4].q + p % 4 * 8, codebook_iq1[b.q[p] | (high >> p % 4 * 3 & 7) << 8], high & 0x8000);
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
        point_iq1(o->q + p % 4 * 8, codebook_iq1[b.q[p] | (high & 7) << 8], high & 8);
    }
}

void numerics_decode(uint32_t type, const void *block, struct block32 *out)
{
    switch (type) {
    case TYPE_Q2_K:
        decode_q2_k(block, out);
        break;
    case TYPE_Q3_K:
        decode_q3_k(block, out);
        break;
    case TYPE_Q4_K:
    case TYPE_Q5_K:
        decode_q45_k(type, block, out);
        break;
    case TYPE_Q6_K:
        decode_q6_k(block, out);
        break;
    case TYPE_IQ4_XS:
        decode_iq4_xs(block, out);
        break;
    case TYPE_TQ1_0:
    case TYPE_TQ2_0:
        decode_ternary(type, block, out);
        break;
    case TYPE_IQ2_XXS:
        decode_iq2_xxs(block, out);
        break;
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S:
        decode_iq2(type, block, out);
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
    default:
        decode_32(type, block, out);
        break;
    }
}
