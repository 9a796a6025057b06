/* Floats to rows: the float types, the types of 32 values a block, and the table of them all. Pure; any thread. */
#include "engine/quant/quantize.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "engine/quant/blocks.h"
#include "engine/quant/half.h"
#include "engine/quant/quantize_blocks.h"
#include "engine/quant/quantize_search.h"
#include "engine/quant/types.h"

/* Small blocks count every squared error alike: measured better (perplexity) for all but Q4_1 than weights that grow
 * with the value. */
static const float even[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                               1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* The largest value meets 127; -128 stays free so that kernels may negate. */
void quantize_q8_0(const float *in, void *block)
{
    struct block_q8_0 b;
    float largest = 0;
    for (int i = 0; i < 32; i++)
        largest = fabsf(in[i]) > largest ? fabsf(in[i]) : largest;
    b.scale = search_f16(largest / 127.0f);
    search_assign(in, 32, f16_to_f32(b.scale), -127, 127, b.q);
    memcpy(block, &b, sizeof b);
}

void quantize_q4_0(const float *in, void *block)
{
    struct block_q4_0 b;
    int8_t q[32];
    b.scale = search_f16(search_scale(in, even, 32, 8));
    search_assign(in, 32, f16_to_f32(b.scale), -8, 7, q);
    for (int i = 0; i < 16; i++)
        b.q[i] = (uint8_t)((q[i] + 8) | (q[i + 16] + 8) << 4);
    memcpy(block, &b, sizeof b);
}

/* Bit i of high is bit 4 of value i; the nibbles lie in halves. */
static void pack_five_bits(const uint8_t q[32], uint8_t high[4], uint8_t nibbles[16])
{
    memset(high, 0, 4);
    for (int i = 0; i < 32; i++)
        high[i / 8] |= (uint8_t)(q[i] >> 4 << i % 8);
    for (int i = 0; i < 16; i++)
        nibbles[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

void quantize_q5_0(const float *in, void *block)
{
    struct block_q5_0 b;
    int8_t q[32];
    uint8_t shifted[32];
    b.scale = search_f16(search_scale(in, even, 32, 16));
    search_assign(in, 32, f16_to_f32(b.scale), -16, 15, q);
    for (int i = 0; i < 32; i++)
        shifted[i] = (uint8_t)(q[i] + 16);
    pack_five_bits(shifted, b.high, b.q);
    memcpy(block, &b, sizeof b);
}

void quantize_q4_1(const float *in, void *block)
{
    struct block_q4_1 b;
    uint8_t q[32];
    float minimum;
    b.scale = search_f16(search_scale_minimum(in, even, 32, 15, 0, &minimum));
    b.minimum = search_f16(minimum);
    search_assign_minimum(in, 32, f16_to_f32(b.scale), f16_to_f32(b.minimum), 15, q);
    for (int i = 0; i < 16; i++)
        b.q[i] = (uint8_t)(q[i] | q[i + 16] << 4);
    memcpy(block, &b, sizeof b);
}

void quantize_q5_1(const float *in, void *block)
{
    struct block_q5_1 b;
    uint8_t q[32];
    float minimum;
    b.scale = search_f16(search_scale_minimum(in, even, 32, 31, 0, &minimum));
    b.minimum = search_f16(minimum);
    search_assign_minimum(in, 32, f16_to_f32(b.scale), f16_to_f32(b.minimum), 31, q);
    pack_five_bits(q, b.high, b.q);
    memcpy(block, &b, sizeof b);
}

void quantize_iq4_nl(const float *in, void *block)
{
    struct block_iq4_nl b;
    uint8_t q[32];
    b.scale = search_f16(search_codebook(in, even, 32));
    search_assign_codebook(in, 32, f16_to_f32(b.scale), q);
    for (int i = 0; i < 16; i++)
        b.q[i] = (uint8_t)(q[i] | q[i + 16] << 4);
    memcpy(block, &b, sizeof b);
}

static void to_f16(const float *in, unsigned char *out, uint64_t values)
{
    for (uint64_t i = 0; i < values; i++) {
        uint16_t bits = search_f16(in[i]);
        memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

static void to_bf16(const float *in, unsigned char *out, uint64_t values)
{
    for (uint64_t i = 0; i < values; i++) {
        uint16_t bits = f32_to_bf16(in[i]);
        memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

static quantize_block *const blocks[TYPE_COUNT] = {
    [TYPE_Q4_0] = quantize_q4_0, [TYPE_Q4_1] = quantize_q4_1, [TYPE_Q5_0] = quantize_q5_0,
    [TYPE_Q5_1] = quantize_q5_1, [TYPE_Q8_0] = quantize_q8_0, [TYPE_IQ4_NL] = quantize_iq4_nl,
    [TYPE_Q4_K] = quantize_q4_k, [TYPE_Q5_K] = quantize_q5_k, [TYPE_Q6_K] = quantize_q6_k,
};

bool quantize_known(uint32_t type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16 || (type < TYPE_COUNT && blocks[type]);
}

int quantize_row(uint32_t type, const float *in, void *out, uint64_t values)
{
    if (!quantize_known(type))
        return ERR_UNSUPPORTED;
    const struct type_info *info = type_info(type);
    if (values % info->block_values)
        return ERR_FORMAT;
    if (type == TYPE_F32)
        memcpy(out, in, values * sizeof *in);
    else if (type == TYPE_F16)
        to_f16(in, out, values);
    else if (type == TYPE_BF16)
        to_bf16(in, out, values);
    else
        for (unsigned char *block = out; values; values -= info->block_values) {
            blocks[type](in, block);
            block += info->block_bytes;
            in += info->block_values;
        }
    return 0;
}
