/* Attention over one page of one kv head in sixteen lanes; compiled for each ISA. Scores: positions lie in lanes, a few
 * query rows share each load of K. Values: dims lie in lanes, rows share each load of V. Order: ops.h, numerics.h.
 * Pure; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_ATTENTION_LEVEL_H
#define BRIGADE_ENGINE_KERNELS_ATTENTION_LEVEL_H

#include "engine/kernels/kv.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"
#include "engine/kernels/vec.h"
#include "engine/quant/half.h"

/* Rows together, and vectors of 16 positions or dims together: what fits the registers. */
#if VEC_REGISTERS == 1
#define TILE_ROWS 8u
#define TILE_VECS 2u
#else
#define TILE_ROWS 4u
#define TILE_VECS 1u
#endif
/* Of values, few rows take more dims at once, so that memory is read in its order. */
#define MOST_VECS 8u
#define VECS_OF(rows) (TILE_ROWS * TILE_VECS / (rows) < MOST_VECS ? TILE_ROWS * TILE_VECS / (rows) : MOST_VECS)

INLINE vf load_kv(enum kv_type type, const uint8_t *base, size_t index)
{
    if (type == KV_F16)
        return v_load_f16(base + 2 * index);
    if (type == KV_Q8)
        return v_load_i8(base + index);
    return v_load((const float *)(const void *)(base + 4 * index));
}

/* One row leaves fetching to the core itself, which does better alone; for more, what is to come is fetched meanwhile:
 * into the second cache level, for the nearest is full with what is in work, and loads want its few places for what is
 * on the way. (8-bit caches come slowly enough for the nearest.) */
#define FETCH_ROWS 2u

/* The lines of bytes [at, at + bytes) of what is to come; bytes divides 64 or is a multiple, at a multiple of it. */
INLINE void fetch(enum kv_type type, const uint8_t *next, size_t at, const uint32_t bytes)
{
    for (uint32_t line = 0; line < bytes; line += 64)
        if (bytes >= 64 || at % 64 == 0) {
            if (type == KV_Q8)
                __builtin_prefetch(next + at + line, 0, 3);
            else
                __builtin_prefetch(next + at + line, 0, 2);
        }
}

INLINE void scores_tile(enum kv_type type, const uint8_t *k, const uint8_t *next, uint32_t k_dim, const float *q,
                        uint32_t q_stride, uint32_t slot, const uint32_t rows, float scale, float *s, size_t s_stride)
{
    const uint32_t each = kv_element_bytes(type);
    const bool fetching = slot == 0 && rows >= FETCH_ROWS;
    vf acc[TILE_ROWS][TILE_VECS];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t v = 0; v < TILE_VECS; v++)
            acc[r][v] = v_zero();
    if (type == KV_Q8) {
        const uint8_t *scales = k + (size_t)k_dim * KV_PAGE_TOKENS;
        for (uint32_t first = 0; first < k_dim; first += 32, scales += 2 * KV_PAGE_TOKENS) {
            uint32_t last = first + 32 < k_dim ? first + 32 : k_dim;
            vf part[TILE_ROWS][TILE_VECS];
            for (uint32_t r = 0; r < rows; r++)
                for (uint32_t v = 0; v < TILE_VECS; v++)
                    part[r][v] = v_zero();
            for (uint32_t d = first; d < last; d++) {
                if (fetching)
                    fetch(type, next, KV_PAGE_TOKENS * (size_t)d, KV_PAGE_TOKENS);
                for (uint32_t v = 0; v < TILE_VECS; v++) {
                    vf a = load_kv(type, k, (size_t)d * KV_PAGE_TOKENS + slot + 16 * v);
                    for (uint32_t r = 0; r < rows; r++)
                        part[r][v] = v_fma(v_set1(q[d * q_stride + r]), a, part[r][v]);
                }
            }
            for (uint32_t v = 0; v < TILE_VECS; v++) {
                vf d = v_load_f16(scales + 2 * (slot + 16 * v));
                for (uint32_t r = 0; r < rows; r++)
                    acc[r][v] = v_fma(part[r][v], d, acc[r][v]);
            }
        }
    } else {
        for (uint32_t d = 0; d < k_dim; d++) {
            if (fetching)
                fetch(type, next, KV_PAGE_TOKENS * each * (size_t)d, KV_PAGE_TOKENS * each);
            for (uint32_t v = 0; v < TILE_VECS; v++) {
                vf a = load_kv(type, k, (size_t)d * KV_PAGE_TOKENS + slot + 16 * v);
                for (uint32_t r = 0; r < rows; r++)
                    acc[r][v] = v_fma(v_set1(q[d * q_stride + r]), a, acc[r][v]);
            }
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t v = 0; v < TILE_VECS; v++)
            v_store(s + r * s_stride + slot + 16 * v, v_mul(acc[r][v], v_set1(scale)));
}

INLINE void scores(enum kv_type type, const void *k, const void *next, uint32_t k_dim, const float *q, uint32_t rows,
                   float scale, float *s, size_t s_stride)
{
    const uint32_t stride = rows;
    while (rows) {
        uint32_t n = rows >= TILE_ROWS ? TILE_ROWS : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        for (uint32_t slot = 0; slot < KV_PAGE_TOKENS; slot += 16 * TILE_VECS)
            switch (n) {
            case TILE_ROWS:
                scores_tile(type, k, next, k_dim, q, stride, slot, TILE_ROWS, scale, s, s_stride);
                break;
#if TILE_ROWS > 4
            case 4:
                scores_tile(type, k, next, k_dim, q, stride, slot, 4, scale, s, s_stride);
                break;
#endif
            case 2:
                scores_tile(type, k, next, k_dim, q, stride, slot, 2, scale, s, s_stride);
                break;
            default:
                scores_tile(type, k, next, k_dim, q, stride, slot, 1, scale, s, s_stride);
                break;
            }
        rows -= n;
        q += n;
        s += n * s_stride;
    }
}

/* Dims [dim, dim + 16·vecs): 16·vecs may pass v_dim, up to the row's rounded length; acc is as long. */
INLINE void values_tile(enum kv_type type, const uint8_t *v, const uint8_t *next, uint32_t step, uint32_t blocks,
                        uint32_t dim, const uint32_t vecs, const float *e, size_t e_stride, const uint32_t rows,
                        uint32_t begin, uint32_t end, float *acc, size_t acc_stride)
{
    const uint8_t *scales = v + (size_t)step * KV_PAGE_TOKENS;
    const uint32_t each = kv_element_bytes(type);
    vf sum[TILE_ROWS][MOST_VECS];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < vecs; i++)
            sum[r][i] = v_load(acc + r * acc_stride + dim + 16 * i);
    for (uint32_t slot = begin; slot < end; slot++) {
        float scale = 1;
        if (rows >= FETCH_ROWS)
            fetch(type, next, each * ((size_t)dim * KV_PAGE_TOKENS + slot * 16 * vecs), each * 16 * vecs);
        for (uint32_t i = 0; i < vecs; i++) {
            if (type == KV_Q8 && i % 2 == 0) { /* tiles begin with a block of 32, or are one vector */
                uint16_t bits;
                memcpy(&bits, scales + 2 * (slot * blocks + dim / 32 + i / 2), sizeof bits);
                scale = f16_to_f32(bits);
            }
            vf a = load_kv(type, v, (size_t)slot * step + dim + 16 * i);
            for (uint32_t r = 0; r < rows; r++) {
                float weight = e[r * e_stride + slot];
                sum[r][i] = v_fma(v_set1(type == KV_Q8 ? weight * scale : weight), a, sum[r][i]);
            }
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < vecs; i++)
            v_store(acc + r * acc_stride + dim + 16 * i, sum[r][i]);
}

INLINE void values_rows(enum kv_type type, const uint8_t *v, const uint8_t *next, uint32_t v_dim, const float *e,
                        size_t e_stride, const uint32_t rows, uint32_t begin, uint32_t end, float *acc,
                        size_t acc_stride)
{
    uint32_t step = kv_v_step(v_dim), blocks = kv_blocks(v_dim), dim = 0;
    for (; dim + 16 * VECS_OF(rows) <= step; dim += 16 * VECS_OF(rows))
        values_tile(type, v, next, step, blocks, dim, VECS_OF(rows), e, e_stride, rows, begin, end, acc, acc_stride);
    for (; VECS_OF(rows) > 2 && dim + 32 <= step; dim += 32)
        values_tile(type, v, next, step, blocks, dim, 2, e, e_stride, rows, begin, end, acc, acc_stride);
    for (; dim < step; dim += 16)
        values_tile(type, v, next, step, blocks, dim, 1, e, e_stride, rows, begin, end, acc, acc_stride);
}

INLINE void values(enum kv_type type, const void *v, const void *next, uint32_t v_dim, const float *e, size_t e_stride,
                   uint32_t rows, uint32_t begin, uint32_t end, float *acc, size_t acc_stride)
{
    while (rows) {
        uint32_t n = rows >= TILE_ROWS ? TILE_ROWS : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        switch (n) {
        case TILE_ROWS:
            values_rows(type, v, next, v_dim, e, e_stride, TILE_ROWS, begin, end, acc, acc_stride);
            break;
#if TILE_ROWS > 4
        case 4:
            values_rows(type, v, next, v_dim, e, e_stride, 4, begin, end, acc, acc_stride);
            break;
#endif
        case 2:
            values_rows(type, v, next, v_dim, e, e_stride, 2, begin, end, acc, acc_stride);
            break;
        default:
            values_rows(type, v, next, v_dim, e, e_stride, 1, begin, end, acc, acc_stride);
            break;
        }
        rows -= n;
        e += n * e_stride;
        acc += n * acc_stride;
    }
}

#define ATTENTION_OF(name, type)                                                                                \
    static void scores_##name(const void *k, const void *next, uint32_t k_dim, const float *q, uint32_t rows,   \
                              float scale, float *s, size_t s_stride)                                           \
    {                                                                                                           \
        scores(type, k, next, k_dim, q, rows, scale, s, s_stride);                                              \
    }                                                                                                           \
    static void values_##name(const void *v, const void *next, uint32_t v_dim, const float *e, size_t e_stride, \
                              uint32_t rows, uint32_t begin, uint32_t end, float *acc, size_t acc_stride)       \
    {                                                                                                           \
        values(type, v, next, v_dim, e, e_stride, rows, begin, end, acc, acc_stride);                           \
    }
ATTENTION_OF(f16, KV_F16)
ATTENTION_OF(q8, KV_Q8)
ATTENTION_OF(f32, KV_F32)

INLINE void fill_attention(struct kernel_table *table)
{
    table->scores[KV_F16] = scores_f16;
    table->scores[KV_Q8] = scores_q8;
    table->scores[KV_F32] = scores_f32;
    table->values[KV_F16] = values_f16;
    table->values[KV_Q8] = values_q8;
    table->values[KV_F32] = values_f32;
}

#endif
