/* Blocks of the file as whole numbers with scales: what the kernels multiply. Shapes: engine/quant/blocks.h. The
 * lattice and ternary types are in numerics_lattice.c. Pure. */
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
    case TYPE_IQ2_XXS:
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S:
    case TYPE_IQ3_XXS:
    case TYPE_IQ3_S:
    case TYPE_IQ1_S:
    case TYPE_IQ1_M:
        numerics_decode_lattice(type, block, out);
        break;
    default:
        decode_32(type, block, out);
        break;
    }
}
