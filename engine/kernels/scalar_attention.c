/* The oracle, attention over one page of one kv head. Layout of a page: table.h; order of sums: ops.h and, for the
 * 8-bit cache, numerics.h. Plain code. Pure; any thread. */
#include <math.h>
#include <string.h>

#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"
#include "engine/quant/half.h"

static float f16_at(const uint8_t *base, size_t index)
{
    uint16_t h;
    memcpy(&h, base + 2 * index, sizeof h);
    return f16_to_f32(h);
}

static float f32_at(const uint8_t *base, size_t index)
{
    float f;
    memcpy(&f, base + 4 * index, sizeof f);
    return f;
}

/* q: one row of the unit, q_stride apart from dim to dim. */
static float score(enum kv_type type, const uint8_t *k, uint32_t k_dim, const float *q, size_t q_stride, uint32_t slot)
{
    float s = 0;
    if (type == KV_Q8) {
        const uint8_t *scales = k + (size_t)k_dim * KV_PAGE_TOKENS;
        for (uint32_t block = 0; block < kv_blocks(k_dim); block++) {
            float c = 0;
            for (uint32_t d = 32 * block; d < k_dim && d < 32 * block + 32; d++)
                c = fmaf(q[d * q_stride], (float)(int8_t)k[d * KV_PAGE_TOKENS + slot], c);
            s = fmaf(c, f16_at(scales, block * KV_PAGE_TOKENS + slot), s);
        }
        return s;
    }
    for (uint32_t d = 0; d < k_dim; d++) {
        size_t at = (size_t)d * KV_PAGE_TOKENS + slot;
        s = fmaf(q[d * q_stride], type == KV_F16 ? f16_at(k, at) : f32_at(k, at), s);
    }
    return s;
}

static void scores(enum kv_type type, const void *k, uint32_t k_dim, const float *q, uint32_t rows, float scale,
                   float *s, size_t s_stride)
{
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t slot = 0; slot < KV_PAGE_TOKENS; slot++)
            s[r * s_stride + slot] = score(type, k, k_dim, q + r, rows, slot) * scale;
}

static void values(enum kv_type type, const uint8_t *v, uint32_t v_dim, const float *e, size_t e_stride, uint32_t rows,
                   uint32_t begin, uint32_t end, float *acc, size_t acc_stride)
{
    uint32_t step = kv_v_step(v_dim), blocks = kv_blocks(v_dim);
    const uint8_t *scales = v + (size_t)step * KV_PAGE_TOKENS;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t slot = begin; slot < end; slot++)
            for (uint32_t d = 0; d < v_dim; d++) {
                size_t at = (size_t)slot * step + d;
                float weight = e[r * e_stride + slot], *out = &acc[r * acc_stride + d];
                if (type == KV_Q8)
                    *out = fmaf(weight * f16_at(scales, slot * blocks + d / 32), (float)(int8_t)v[at], *out);
                else
                    *out = fmaf(weight, type == KV_F16 ? f16_at(v, at) : f32_at(v, at), *out);
            }
}

static void scores_f16(const void *k, const void *next, uint32_t k_dim, const float *q, uint32_t rows, float scale,
                       float *s, size_t s_stride)
{
    scores(KV_F16, k, k_dim, q, rows, scale, s, s_stride);
}

static void scores_q8(const void *k, const void *next, uint32_t k_dim, const float *q, uint32_t rows, float scale,
                      float *s, size_t s_stride)
{
    scores(KV_Q8, k, k_dim, q, rows, scale, s, s_stride);
}

static void scores_f32(const void *k, const void *next, uint32_t k_dim, const float *q, uint32_t rows, float scale,
                       float *s, size_t s_stride)
{
    scores(KV_F32, k, k_dim, q, rows, scale, s, s_stride);
}

static void values_f16(const void *v, const void *next, uint32_t v_dim, const float *e, size_t e_stride, uint32_t rows,
                       uint32_t begin, uint32_t end, float *acc, size_t acc_stride)
{
    values(KV_F16, v, v_dim, e, e_stride, rows, begin, end, acc, acc_stride);
}

static void values_q8(const void *v, const void *next, uint32_t v_dim, const float *e, size_t e_stride, uint32_t rows,
                      uint32_t begin, uint32_t end, float *acc, size_t acc_stride)
{
    values(KV_Q8, v, v_dim, e, e_stride, rows, begin, end, acc, acc_stride);
}

static void values_f32(const void *v, const void *next, uint32_t v_dim, const float *e, size_t e_stride, uint32_t rows,
                       uint32_t begin, uint32_t end, float *acc, size_t acc_stride)
{
    values(KV_F32, v, v_dim, e, e_stride, rows, begin, end, acc, acc_stride);
}

void kernels_fill_scalar_attention(struct kernel_table *table)
{
    table->scores[KV_F16] = scores_f16;
    table->scores[KV_Q8] = scores_q8;
    table->scores[KV_F32] = scores_f32;
    table->values[KV_F16] = values_f16;
    table->values[KV_Q8] = values_q8;
    table->values[KV_F32] = values_f32;
}
