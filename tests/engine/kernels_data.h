/* Data for the kernel tests: weights of every type and activations, ordinary and extreme, from a seed. */
#ifndef BRIGADE_TESTS_ENGINE_KERNELS_DATA_H
#define BRIGADE_TESTS_ENGINE_KERNELS_DATA_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

static uint64_t data_seed = 1;

static inline uint64_t data_bits(void)
{
    return hash_mix64(data_seed++);
}

static inline float data_unit(void) /* in [-1, 1) */
{
    return (float)((int64_t)(data_bits() >> 40) - (1 << 23)) * 0x1p-23f;
}

enum data_kind { DATA_NORMAL, DATA_HUGE, DATA_TINY, DATA_ZERO, DATA_EDGE, DATA_KINDS };
static const char *const data_kind_names[] = {"normal", "huge", "tiny", "zero", "edge"};

/* A binary16 scale of that kind. */
static inline uint16_t data_scale(enum data_kind kind)
{
    uint16_t sign = (uint16_t)(data_bits() & 0x8000);
    switch (kind) {
    case DATA_HUGE:
        return (uint16_t)(sign | 0x7bff);
    case DATA_TINY: /* denormals */
        return (uint16_t)(sign | (data_bits() & 0x3ff));
    case DATA_ZERO:
        return sign;
    default:
        return f32_to_f16(data_unit() * 0.05f);
    }
}

/* Puts scales of that kind where the type's block has them. */
static inline void data_fix_scales(uint32_t type, uint8_t *block, enum data_kind kind)
{
    int at[2] = {0, -1};
    switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1:
    case TYPE_Q4_K:
    case TYPE_Q5_K:
        at[1] = 2;
        break;
    case TYPE_Q2_K:
        at[0] = 80;
        at[1] = 82;
        break;
    case TYPE_Q3_K:
        at[0] = 108;
        break;
    case TYPE_Q6_K:
        at[0] = 208;
        break;
    case TYPE_TQ1_0:
        at[0] = 52;
        break;
    case TYPE_TQ2_0:
        at[0] = 64;
        break;
    case TYPE_MXFP4:
        block[0] = kind == DATA_HUGE   ? 250
                   : kind == DATA_TINY ? data_bits() & 1
                   : kind == DATA_ZERO ? 0
                                       : 120 + data_bits() % 8;
        return;
    case TYPE_IQ1_M: {
        uint16_t scale = data_scale(kind);
        for (int i = 0; i < 4; i++)
            block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (scale >> 4 * i & 15) << 4);
        return;
    }
    default:
        break;
    }
    for (int i = 0; i < 2; i++)
        if (at[i] >= 0) {
            uint16_t scale = data_scale(kind);
            memcpy(block + at[i], &scale, sizeof scale);
        }
}

/* rows·type_row_bytes bytes, malloc'd. */
static inline uint8_t *data_weights(uint32_t type, uint32_t rows, uint32_t cols, enum data_kind kind)
{
    static const uint8_t edges[] = {0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0, 0x88, 0x77};
    const struct type_info *info = type_info(type);
    size_t bytes = rows * type_row_bytes(type, cols), step = info->block_bytes;
    uint8_t *data = malloc(bytes ? bytes : 1);
    if (!data)
        abort();
    if (info->block_values == 1) {
        for (size_t i = 0; i < bytes / step; i++) {
            float f = data_unit();
            f = kind == DATA_HUGE ? f * 6e4f : kind == DATA_TINY ? f * (type == TYPE_F16 ? 5e-7f : 1e-39f) : f * 0.1f;
            if (kind == DATA_ZERO || (kind == DATA_EDGE && data_bits() % 2))
                f = data_bits() & 1 ? -0.0f : 0.0f;
            uint16_t h = type == TYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);
            if (type == TYPE_F32)
                memcpy(data + 4 * i, &f, 4);
            else
                memcpy(data + 2 * i, &h, 2);
        }
        return data;
    }
    for (size_t i = 0; i < bytes; i += step) {
        uint8_t edge = edges[data_bits() % sizeof edges];
        for (size_t j = 0; j < step; j++)
            data[i + j] = kind == DATA_EDGE ? edge : (uint8_t)data_bits();
        data_fix_scales(type, data + i, kind);
    }
    return data;
}

static inline float *data_floats(size_t count, enum data_kind kind)
{
    float *x = malloc((count ? count : 1) * sizeof *x);
    if (!x)
        abort();
    for (size_t i = 0; i < count; i++) {
        float f = data_unit();
        switch (kind) {
        case DATA_HUGE:
            f *= i % 3 ? 1e30f : 1e20f;
            break;
        case DATA_TINY:
            f *= i / 32 % 2 ? 1e-40f : 1e-36f;
            break;
        case DATA_ZERO:
            f = data_bits() & 1 ? -0.0f : 0.0f;
            break;
        case DATA_EDGE: /* blocks of one value, of zeros, and of halves that round to even */
            f = i / 32 % 3 == 0   ? (data_bits() & 1 ? -1.0f : 1.0f)
                : i / 32 % 3 == 1 ? 0.0f
                                  : (float)(int)(f * 254) * 0.5f;
            break;
        default:
            break;
        }
        x[i] = f;
    }
    return x;
}

/* The same bits, or both no number. */
static inline int data_same(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (half_to_bits32(a[i]) != half_to_bits32(b[i]) && !(a[i] != a[i] && b[i] != b[i]))
            return 0;
    return 1;
}

#endif
