/* Products with float weights: dot16 of a few rows with a few tokens at a time, so that each load serves several
 * products. Compiled for each ISA. Order: ops.h. Pure; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_FLOAT_LEVEL_H
#define BRIGADE_ENGINE_KERNELS_FLOAT_LEVEL_H

#include "engine/kernels/table.h"
#include "engine/kernels/vec.h"
#include "engine/quant/half.h"
#include "engine/quant/types.h"

/* Rows of a group, and tokens multiplied at a time. Where sixteen registers hold the sums of a group's sixteen rows, one
 * token is one stream over them, and its activations, which may be too long for the nearest cache, come once for sixteen
 * rows. */
#if VEC_REGISTERS == 1
#define GROUP_ROWS 16u
#define DOT_TOKENS 4u
#else
#define GROUP_ROWS 4u
#define DOT_TOKENS 2u
#endif
/* How far ahead of their use is fetched to the nearest cache: activations of one token, which the stream of weights has
 * pushed out since the group before; bytes of a tile's weights, whose rows are some of a group's. */
#define X_AHEAD 96u
#define W_AHEAD 4096u

/* Rows whose sums stay in registers with so many tokens, two or more. */
INLINE uint32_t rows_at_once(const uint32_t tokens)
{
    return VEC_REGISTERS > 1 ? 2 : tokens == 4 ? 4 : 8;
}

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

/* The trees of a group's rows, `valid` of them real: y[r] = v_tree(x[r]). */
INLINE void store_trees(const vf x[GROUP_ROWS], uint32_t valid, float *y)
{
    float out[GROUP_ROWS];
#if VEC_REGISTERS == 1
    v_store(out, v_tree16(x));
#else
    for (uint32_t r = 0; r < GROUP_ROWS; r++)
        out[r] = v_tree(x[r]);
#endif
    memcpy(y, out, (valid < GROUP_ROWS ? valid : GROUP_ROWS) * sizeof *y);
}

/* What the last columns, less than 16, add to the lanes of one row. */
INLINE void add_tail(const uint32_t type, const uint8_t *row, const float *x, uint32_t cols, float lanes[16])
{
    for (uint32_t j = 0; j < cols; j++)
        lanes[j] = __builtin_fmaf(one_weight(type, row, j), x[j], lanes[j]);
}

/* A group of rows, `valid` of them real, with one token: one stream. */
INLINE void dot_one(const uint32_t type, const uint8_t *group, uint32_t valid, const float *x, uint32_t cols, float *y)
{
    const uint32_t each = type == TYPE_F32 ? 4 : 2, chunk = GROUP_ROWS * 16 * each;
    vf acc[GROUP_ROWS];
    uint32_t i = 0;
#pragma GCC unroll 16
    for (uint32_t r = 0; r < GROUP_ROWS; r++)
        acc[r] = v_zero();
    for (; i + 16 <= cols; i += 16, group += chunk) {
        vf a = v_load(x + i);
        __builtin_prefetch(x + i + X_AHEAD);
        if (GROUP_ROWS == 16) /* one line in eight or sixteen */
            __builtin_prefetch(group + FAR_AHEAD, 0, 1);
#pragma GCC unroll 16
        for (uint32_t r = 0; r < GROUP_ROWS; r++)
            acc[r] = v_fma(load_weights(type, group, 16 * r), a, acc[r]);
    }
    if (i < cols) {
        _Alignas(64) float lanes[GROUP_ROWS][16];
#pragma GCC unroll 16
        for (uint32_t r = 0; r < GROUP_ROWS; r++)
            v_store(lanes[r], acc[r]);
        for (uint32_t r = 0; r < GROUP_ROWS && r < valid; r++)
            add_tail(type, group + 16 * each * r, x + i, cols - i, lanes[r]);
#pragma GCC unroll 16
        for (uint32_t r = 0; r < GROUP_ROWS; r++)
            acc[r] = v_load(lanes[r]);
    }
    store_trees(acc, valid, y);
}

/* Rows [first, first + rows) of a group with a few tokens. fetch: all tiles of the group together fetch the group behind
 * it, line after line as it lies, to the second cache level, for nothing read here comes in the order of memory. */
INLINE void dot_tile(const uint32_t type, const uint8_t *group, const uint32_t first, const uint32_t rows,
                     uint32_t valid, const float *x, size_t stride, const uint32_t tokens, uint32_t cols, float *y,
                     size_t ldy, const bool fetch)
{
    const uint32_t each = type == TYPE_F32 ? 4 : 2, chunk = GROUP_ROWS * 16 * each, share = rows * 16 * each;
    const uint8_t *w = group + first * 16 * each;
    const uint8_t *next = group + (cols + 15) / 16 * (size_t)(chunk + first / rows * share);
    vf acc[GROUP_ROWS][DOT_TOKENS];
    uint32_t i = 0;
#pragma GCC unroll 16
    for (uint32_t r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (uint32_t t = 0; t < tokens; t++)
            acc[r][t] = v_zero();
    for (; i + 16 <= cols; i += 16, w += chunk, next += share) {
        vf a[DOT_TOKENS];
#pragma GCC unroll 4
        for (uint32_t t = 0; t < tokens; t++)
            a[t] = v_load(x + t * stride + i);
        if (fetch)
            for (uint32_t line = 0; line < share; line += 64)
                __builtin_prefetch(next + line, 0, 2);
        for (uint32_t line = 0; line < share; line += 64)
            __builtin_prefetch(w + W_AHEAD + line);
#pragma GCC unroll 16
        for (uint32_t r = 0; r < rows; r++) {
            vf b = load_weights(type, w, 16 * r);
#pragma GCC unroll 4
            for (uint32_t t = 0; t < tokens; t++)
                acc[r][t] = v_fma(b, a[t], acc[r][t]);
        }
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < rows; r++) {
        if (first + r >= valid)
            break;
#pragma GCC unroll 4
        for (uint32_t t = 0; t < tokens; t++) {
            if (i < cols) {
                float lanes[16];
                v_store(lanes, acc[r][t]);
                add_tail(type, w + 16 * each * r, x + t * stride + i, cols - i, lanes);
                acc[r][t] = v_load(lanes);
            }
            y[t * ldy + first + r] = v_tree(acc[r][t]);
        }
    }
}

/* A group of rows, `valid` of them real, with a few tokens. */
INLINE void dot_group(const uint32_t type, const uint8_t *group, uint32_t valid, const float *x, size_t stride,
                      const uint32_t tokens, uint32_t cols, float *y, size_t ldy, bool fetch)
{
    if (tokens == 1)
        dot_one(type, group, valid, x, cols, y);
    else
        for (uint32_t first = 0; first < GROUP_ROWS; first += rows_at_once(tokens))
            dot_tile(type, group, first, rows_at_once(tokens), valid, x, stride, tokens, cols, y, ldy, fetch);
}

#define DOT_CASE(n)                                                             \
    case n:                                                                     \
        dot_group(type, group, valid, xt, stride, n, cols, yt + row, ldy, t == 0); \
        break;

INLINE void dot_rows(const uint32_t type, const void *w, size_t group_bytes, uint32_t rows, const float *x,
                     size_t stride, uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    const uint8_t *group = w;
    for (uint32_t row = 0; row < rows; row += GROUP_ROWS, group += group_bytes) {
        uint32_t valid = rows - row, few;
        for (uint32_t t = 0; t < tokens; t += few) {
            const float *xt = x + t * stride;
            float *yt = y + t * ldy;
            few = tokens - t < DOT_TOKENS ? tokens - t : DOT_TOKENS;
            switch (few) {
                DOT_CASE(1)
                DOT_CASE(2)
#if DOT_TOKENS > 2
                DOT_CASE(3)
                DOT_CASE(4)
#endif
            default:
                break;
            }
        }
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
    table->float_rows = GROUP_ROWS;
    table->dot_f32 = dot_f32;
    table->dot_f16 = dot_f16;
    table->dot_bf16 = dot_bf16;
}

#endif
