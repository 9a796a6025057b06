/* Rows to floats: the float types, the types of 32 values a block, and the table of them all. Pure; any thread. */
#include "engine/quant/dequantize.h"

#include <string.h>

#include "base/error.h"
#include "engine/quant/blocks.h"
#include "engine/quant/codebook.h"
#include "engine/quant/dequantize_blocks.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

void dequantize_q4_0(const void *block, float *out)
{
    struct block_q4_0 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b.q[i] & 15) - 8);
        out[i + 16] = d * (float)((b.q[i] >> 4) - 8);
    }
}

void dequantize_q4_1(const void *block, float *out)
{
    struct block_q4_1 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale), m = f16_to_f32(b.minimum);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(b.q[i] & 15) + m;
        out[i + 16] = d * (float)(b.q[i] >> 4) + m;
    }
}

void dequantize_q5_0(const void *block, float *out)
{
    struct block_q5_0 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 16; i++) {
        int first = b.high[i / 8] >> i % 8 & 1, second = b.high[2 + i / 8] >> i % 8 & 1;
        out[i] = d * (float)((b.q[i] & 15) + 16 * first - 16);
        out[i + 16] = d * (float)((b.q[i] >> 4) + 16 * second - 16);
    }
}

void dequantize_q5_1(const void *block, float *out)
{
    struct block_q5_1 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale), m = f16_to_f32(b.minimum);
    for (int i = 0; i < 16; i++) {
        int first = b.high[i / 8] >> i % 8 & 1, second = b.high[2 + i / 8] >> i % 8 & 1;
        out[i] = d * (float)((b.q[i] & 15) + 16 * first) + m;
        out[i + 16] = d * (float)((b.q[i] >> 4) + 16 * second) + m;
    }
}

void dequantize_q8_0(const void *block, float *out)
{
    struct block_q8_0 b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)b.q[i];
}

void dequantize_iq4_nl(const void *block, float *out)
{
    struct block_iq4_nl b;
    memcpy(&b, block, sizeof b);
    float d = f16_to_f32(b.scale);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)codebook_iq4[b.q[i] & 15];
        out[i + 16] = d * (float)codebook_iq4[b.q[i] >> 4];
    }
}

void dequantize_mxfp4(const void *block, float *out)
{
    struct block_mxfp4 b;
    memcpy(&b, block, sizeof b);
    float d = e8m0_half_to_f32(b.exponent);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)codebook_mxfp4[b.q[i] & 15];
        out[i + 16] = d * (float)codebook_mxfp4[b.q[i] >> 4];
    }
}

static void from_f16(const unsigned char *row, float *out, uint64_t values)
{
    for (uint64_t i = 0; i < values; i++) {
        uint16_t bits;
        memcpy(&bits, row + 2 * i, sizeof bits);
        out[i] = f16_to_f32(bits);
    }
}

static void from_bf16(const unsigned char *row, float *out, uint64_t values)
{
    for (uint64_t i = 0; i < values; i++) {
        uint16_t bits;
        memcpy(&bits, row + 2 * i, sizeof bits);
        out[i] = bf16_to_f32(bits);
    }
}

static void from_f64(const unsigned char *row, float *out, uint64_t values)
{
    for (uint64_t i = 0; i < values; i++) {
        double value;
        memcpy(&value, row + 8 * i, sizeof value);
        out[i] = (float)value;
    }
}

static dequantize_block *const blocks[TYPE_COUNT] = {
    [TYPE_Q4_0] = dequantize_q4_0,       [TYPE_Q4_1] = dequantize_q4_1,     [TYPE_Q5_0] = dequantize_q5_0,
    [TYPE_Q5_1] = dequantize_q5_1,       [TYPE_Q8_0] = dequantize_q8_0,     [TYPE_IQ4_NL] = dequantize_iq4_nl,
    [TYPE_MXFP4] = dequantize_mxfp4,     [TYPE_Q2_K] = dequantize_q2_k,     [TYPE_Q3_K] = dequantize_q3_k,
    [TYPE_Q4_K] = dequantize_q4_k,       [TYPE_Q5_K] = dequantize_q5_k,     [TYPE_Q6_K] = dequantize_q6_k,
    [TYPE_IQ4_XS] = dequantize_iq4_xs,   [TYPE_TQ1_0] = dequantize_tq1_0,   [TYPE_TQ2_0] = dequantize_tq2_0,
    [TYPE_IQ2_XXS] = dequantize_iq2_xxs, [TYPE_IQ2_XS] = dequantize_iq2_xs, [TYPE_IQ2_S] = dequantize_iq2_s,
    [TYPE_IQ3_XXS] = dequantize_iq3_xxs, [TYPE_IQ3_S] = dequantize_iq3_s,   [TYPE_IQ1_S] = dequantize_iq1_s,
    [TYPE_IQ1_M] = dequantize_iq1_m,
};

bool dequantize_known(uint32_t type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16 || type == TYPE_F64 ||
           (type < TYPE_COUNT && blocks[type]);
}

int dequantize_row(uint32_t type, const void *row, float *out, uint64_t values)
{
    if (!dequantize_known(type))
        return ERR_UNSUPPORTED;
    const struct type_info *info = type_info(type);
    if (values % info->block_values)
        return ERR_FORMAT;
    if (type == TYPE_F32)
        memcpy(out, row, values * sizeof *out);
    else if (type == TYPE_F16)
        from_f16(row, out, values);
    else if (type == TYPE_BF16)
        from_bf16(row, out, values);
    else if (type == TYPE_F64)
        from_f64(row, out, values);
    else
        for (const unsigned char *block = row; values; values -= info->block_values) {
            blocks[type](block, out);
            block += info->block_bytes;
            out += info->block_values;
        }
    return 0;
}
