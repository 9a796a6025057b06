/* Writing positions into pages of the KV cache. Owns nothing; a page has one writer at a time. */
#include "engine/kernels/kv.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/table.h"
#include "engine/quant/half.h"

#define STRIP 64u /* dims narrowed at a time */

static size_t round64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

struct kv_layout kv_layout_of(const struct kv_shape *shape)
{
    size_t each = kv_element_bytes(shape->type), scales = shape->type == KV_Q8 ? 2 : 0;
    size_t k = KV_PAGE_TOKENS * (shape->k_dim * each + kv_blocks(shape->k_dim) * scales);
    size_t v = KV_PAGE_TOKENS * (kv_v_step(shape->v_dim) * each + kv_blocks(shape->v_dim) * scales);
    return (struct kv_layout){round64(k), round64(v), shape->kv_heads * round64(k)};
}

size_t kv_page_bytes(const struct kv_shape *shape)
{
    struct kv_layout layout = kv_layout_of(shape);
    return shape->kv_heads * (layout.k_bytes + layout.v_bytes);
}

/* Up to 32 values as int8 with a binary16 scale. */
static uint16_t quantise_block(const float *x, uint32_t n, int8_t *q)
{
    float amax = 0;
    for (uint32_t i = 0; i < n; i++)
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    uint16_t bits = f32_to_f16(amax / 127.0f);
    float inverse = 1.0f / f16_to_f32(bits);
    bool usable = inverse > 0 && inverse < INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        float r = usable ? rintf(x[i] * inverse) : 0;
        r = r > 127 ? 127 : r < -127 ? -127 : r;
        q[i] = (int8_t)(r == r ? r : 0);
    }
    return bits;
}

static void store_k(enum kv_type type, uint8_t *page, uint32_t dim, uint32_t slot, const float *k)
{
    uint8_t *scales = page + (size_t)dim * KV_PAGE_TOKENS;
    for (uint32_t first = 0; first < dim; first += type == KV_Q8 ? 32 : STRIP) {
        uint32_t most = type == KV_Q8 ? 32 : STRIP, n = dim - first < most ? dim - first : most;
        if (type == KV_Q8) {
            int8_t q[32];
            uint16_t scale = quantise_block(k + first, n, q);
            for (uint32_t i = 0; i < n; i++)
                page[(size_t)(first + i) * KV_PAGE_TOKENS + slot] = (uint8_t)q[i];
            memcpy(scales + 2 * ((size_t)first / 32 * KV_PAGE_TOKENS + slot), &scale, sizeof scale);
        } else if (type == KV_F16) {
            uint16_t narrow[STRIP];
            kernels->narrow_f16(k + first, narrow, n);
            for (uint32_t i = 0; i < n; i++)
                memcpy(page + 2 * ((size_t)(first + i) * KV_PAGE_TOKENS + slot), &narrow[i], sizeof *narrow);
        } else {
            for (uint32_t i = 0; i < n; i++)
                memcpy(page + 4 * ((size_t)(first + i) * KV_PAGE_TOKENS + slot), &k[first + i], sizeof *k);
        }
    }
}

static void store_v(enum kv_type type, uint8_t *page, uint32_t dim, uint32_t slot, const float *v)
{
    size_t step = kv_v_step(dim), each = kv_element_bytes(type), blocks = kv_blocks(dim);
    uint8_t *row = page + slot * step * each, *scales = page + KV_PAGE_TOKENS * step + 2 * slot * blocks;
    if (type == KV_Q8) {
        for (uint32_t first = 0; first < dim; first += 32) {
            uint16_t scale = quantise_block(v + first, dim - first < 32 ? dim - first : 32, (int8_t *)row + first);
            memcpy(scales + 2 * (first / 32), &scale, sizeof scale);
        }
    } else if (type == KV_F16) {
        kernels->narrow_f16(v, (uint16_t *)(void *)row, dim);
    } else {
        memcpy(row, v, dim * sizeof *v);
    }
    memset(row + dim * each, 0, (step - dim) * each); /* what fills up the last vector */
}

void kv_store(const struct kv_shape *shape, void *page, uint32_t slot, const float *k, const float *v)
{
    struct kv_layout layout = kv_layout_of(shape);
    uint8_t *k_page = page, *v_page = k_page + layout.v_offset;
    for (uint32_t h = 0; h < shape->kv_heads; h++) {
        store_k(shape->type, k_page + h * layout.k_bytes, shape->k_dim, slot, k + (size_t)h * shape->k_dim);
        store_v(shape->type, v_page + h * layout.v_bytes, shape->v_dim, slot, v + (size_t)h * shape->v_dim);
    }
}
