/* Products with float weights: dot16 of a few rows with a few tokens at a time, so that each load serves several
 * products. Compiled for each ISA. Order: ops.h. Pure; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_FLOAT_LEVEL_H
#define BRIGADE_ENGINE_KERNELS_FLOAT_LEVEL_H

#include "engine/kernels/table.h"
#include "engine/kernels/vec.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

#if VEC_REGISTERS == 1
#define DOT_ROWS 4u
#define DOT_TOKENS 4u
#else
#define DOT_ROWS 2u
#define DOT_TOKENS 2u
#endif
#define DOT_AHEAD 2048 /* bytes fetched ahead in each row */

INLINE vf load_weights(uint32_t type, const uint8_t *row, size_t i)
{
    if (type == TYPE_F16)
        return v_load_f16(row + 2 * i);
    if (type == TYPE_BF16)
        return v_load_bf16(row + 2 * i);
    return v_load((const float *)(const void *)(row + 4 * i));
}

INLINE float one_weight(uint32_t type, const uint8_t *row, size_t i)
{
    float f;
    uint16_t h;
    if (type == TYPE_F32) {
        memcpy(&f, row + 4 * i, sizeof f);
        return f;
    }
    memcpy(&h, row + 2 * i, sizeof h);
    return type == TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

INLINE void dot_tile(uint32_t type, const uint8_t *w, size_t row_bytes, const uint32_t rows, const float *x,
                     size_t stride, const uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    vf acc[DOT_ROWS][DOT_TOKENS];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++)
            acc[r][t] = v_zero();
    uint32_t i = 0, each = type == TYPE_F32 ? 4 : 2;
    for (; i + 16 <= cols; i += 16) {
        vf a[DOT_TOKENS];
        for (uint32_t t = 0; t < tokens; t++)
            a[t] = v_load(x + t * stride + i);
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *row = w + r * row_bytes;
            vf b = load_weights(type, row, i);
            if (tokens == 1)
                __builtin_prefetch(row + (size_t)each * i + DOT_AHEAD);
            for (uint32_t t = 0; t < tokens; t++)
                acc[r][t] = v_fma(b, a[t], acc[r][t]);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++) {
            if (i < cols) { /* the tail touches its own lanes only */
                float l[16];
                v_store(l, acc[r][t]);
                for (uint32_t j = 0; i + j < cols; j++)
                    l[j] = __builtin_fmaf(one_weight(type, w + r * row_bytes, i + j), x[t * stride + i + j], l[j]);
                acc[r][t] = v_load(l);
            }
            y[t * ldy + r] = v_tree(acc[r][t]);
        }
}

INLINE void dot_tokens(uint32_t type, const uint8_t *w, size_t row_bytes, const uint32_t rows, const float *x,
                       size_t stride, uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    for (; tokens >= DOT_TOKENS; tokens -= DOT_TOKENS, x += DOT_TOKENS * stride, y += DOT_TOKENS * ldy)
        dot_tile(type, w, row_bytes, rows, x, stride, DOT_TOKENS, cols, y, ldy);
#if DOT_TOKENS > 2
    if (tokens >= 2) {
        dot_tile(type, w, row_bytes, rows, x, stride, 2, cols, y, ldy);
        tokens -= 2;
        x += 2 * stride;
        y += 2 * ldy;
    }
#endif
    if (tokens)
        dot_tile(type, w, row_bytes, rows, x, stride, 1, cols, y, ldy);
}

INLINE void dot_rows(uint32_t type, const void *w, size_t row_bytes, uint32_t rows, const float *x, size_t stride,
                     uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    const uint8_t *row = w;
    for (; rows >= DOT_ROWS; rows -= DOT_ROWS, row += DOT_ROWS * row_bytes, y += DOT_ROWS)
        dot_tokens(type, row, row_bytes, DOT_ROWS, x, stride, tokens, cols, y, ldy);
    for (; rows; rows--, row += row_bytes, y++)
        dot_tokens(type, row, row_bytes, 1, x, stride, tokens, cols, y, ldy);
}

#define DOT_OF(name, type)                                                                                            \
    static void dot_##name(const void *w, size_t row_bytes, uint32_t rows, const float *x, size_t stride,             \
                           uint32_t tokens, uint32_t cols, float *y, size_t ldy)                                      \
    {                                                                                                                 \
        dot_rows(type, w, row_bytes, rows, x, stride, tokens, cols, y, ldy);                                          \
    }
DOT_OF(f32, TYPE_F32)
DOT_OF(f16, TYPE_F16)
DOT_OF(bf16, TYPE_BF16)

INLINE void fill_float(struct kernel_table *table)
{
    table->dot_f32 = dot_f32;
    table->dot_f16 = dot_f16;
    table->dot_bf16 = dot_bf16;
}

#endif
