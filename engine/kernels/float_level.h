/* Products with float weights: dot16 of a few rows with a few tokens at a time, so that each load serves several
 * products. Compiled for each ISA. Order: ops.h. Pure; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_FLOAT_LEVEL_H
#define BRIGADE_ENGINE_KERNELS_FLOAT_LEVEL_H

#include "engine/kernels/table.h"
#include "engine/kernels/vec.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

/* Rows of a group that one tile takes, and tokens. */
#if VEC_REGISTERS == 1
#define DOT_ROWS 4u
#define DOT_TOKENS 4u
#else
#define DOT_ROWS 2u
#define DOT_TOKENS 2u
#endif
#define DOT_AHEAD 8192 /* bytes fetched ahead, where arithmetic takes longer than memory: one token is a stream of its own */

INLINE vf load_weights(uint32_t type, const uint8_t *base, size_t i)
{
    if (type == TYPE_F16)
        return v_load_f16(base + 2 * i);
    if (type == TYPE_BF16)
        return v_load_bf16(base + 2 * i);
    return v_load((const float *)(const void *)(base + 4 * i));
}

INLINE float one_weight(uint32_t type, const uint8_t *base, size_t i)
{
    float f;
    uint16_t h;
    if (type == TYPE_F32) {
        memcpy(&f, base + 4 * i, sizeof f);
        return f;
    }
    memcpy(&h, base + 2 * i, sizeof h);
    return type == TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

/* Rows [first, first + rows) of a group of four: 16 columns of each row follow those of the row before. */
INLINE void dot_tile(uint32_t type, const uint8_t *group, const uint32_t first, const uint32_t rows, uint32_t valid,
                     const float *x, size_t stride, const uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    const uint32_t each = type == TYPE_F32 ? 4 : 2, chunk = FLOAT_ROWS * 16 * each;
    vf acc[FLOAT_ROWS][DOT_TOKENS];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++)
            acc[r][t] = v_zero();
    uint32_t i = 0;
    for (; i + 16 <= cols; i += 16, group += chunk) {
        vf a[DOT_TOKENS];
        for (uint32_t t = 0; t < tokens; t++)
            a[t] = v_load(x + t * stride + i);
        if (first == 0 && tokens > 1)
            for (uint32_t line = 0; line < chunk; line += 64)
                __builtin_prefetch(group + DOT_AHEAD + line);
        for (uint32_t r = 0; r < rows; r++) {
            vf b = load_weights(type, group, 16 * (first + r));
            for (uint32_t t = 0; t < tokens; t++)
                acc[r][t] = v_fma(b, a[t], acc[r][t]);
        }
    }
    for (uint32_t r = 0; r < rows && first + r < valid; r++)
        for (uint32_t t = 0; t < tokens; t++) {
            if (i < cols) { /* the tail touches its own lanes only */
                float l[16];
                v_store(l, acc[r][t]);
                for (uint32_t j = 0; i + j < cols; j++)
                    l[j] = __builtin_fmaf(one_weight(type, group, 16 * (first + r) + j), x[t * stride + i + j], l[j]);
                acc[r][t] = v_load(l);
            }
            y[t * ldy + first + r] = v_tree(acc[r][t]);
        }
}

/* A group of four rows (`valid` of them real) with a few tokens; one token takes all rows in one stream. */
INLINE void dot_group(uint32_t type, const uint8_t *group, uint32_t valid, const float *x, size_t stride,
                      const uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    if (tokens == 1)
        dot_tile(type, group, 0, FLOAT_ROWS, valid, x, stride, 1, cols, y, ldy);
    else
        for (uint32_t first = 0; first < FLOAT_ROWS; first += DOT_ROWS)
            dot_tile(type, group, first, DOT_ROWS, valid, x, stride, tokens, cols, y, ldy);
}

INLINE void dot_rows(uint32_t type, const void *w, size_t group_bytes, uint32_t rows, const float *x, size_t stride,
                     uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    const uint8_t *group = w;
    for (uint32_t row = 0; row < rows; row += FLOAT_ROWS, group += group_bytes) {
        uint32_t t = 0, valid = rows - row;
        for (; t + DOT_TOKENS <= tokens; t += DOT_TOKENS)
            dot_group(type, group, valid, x + t * stride, stride, DOT_TOKENS, cols, y + t * ldy + row, ldy);
#if DOT_TOKENS > 2
        if (tokens - t == 3)
            dot_group(type, group, valid, x + t * stride, stride, 3, cols, y + t * ldy + row, ldy);
        else if (tokens - t == 2)
            dot_group(type, group, valid, x + t * stride, stride, 2, cols, y + t * ldy + row, ldy);
        else
#endif
            if (tokens - t == 1)
            dot_group(type, group, valid, x + t * stride, stride, 1, cols, y + t * ldy + row, ldy);
    }
}

#define DOT_OF(name, type)                                                                                  \
    static void dot_##name(const void *w, size_t group_bytes, uint32_t rows, const float *x, size_t stride, \
                           uint32_t tokens, uint32_t cols, float *y, size_t ldy)                            \
    {                                                                                                       \
        dot_rows(type, w, group_bytes, rows, x, stride, tokens, cols, y, ldy);                              \
    }
DOT_OF(f32, TYPE_F32)
DOT_OF(f16, TYPE_F16)
DOT_OF(bf16, TYPE_BF16)

INLINE void fill_float(struct kernel_table *table)
{
    table->float_groups = true;
    table->dot_f32 = dot_f32;
    table->dot_f16 = dot_f16;
    table->dot_bf16 = dot_bf16;
}

#endif
