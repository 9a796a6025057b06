/* Floats to blocks of 256 values whose groups have scales of their own (Q4_K, Q5_K, Q6_K).
 *
 * Three steps: the best scale (and minimum) of each group by itself; one block scale under which the groups' scales are
 * whole numbers; then, since that moved them, each group tries the neighbouring whole numbers, and the block scales are
 * solved for once more with everything else fixed. Pure; any thread. */
#include <math.h>
#include <string.h>

#include "engine/quant/blocks.h"
#include "engine/quant/half.h"
#include "engine/quant/quantize_blocks.h"
#include "engine/quant/quantize_search.h"

/* What a squared error at x weighs: large values more, as they tend to meet large activations. */
static void weigh(const float *x, float *w, int n)
{
    float square = 0;
    for (int i = 0; i < n; i++)
        square += x[i] * x[i];
    float typical = sqrtf(square / (float)n);
    for (int i = 0; i < n; i++)
        w[i] = typical + fabsf(x[i]);
}

/* --- Q4_K, Q5_K: 8 groups of 32, scale * s * q - minimum * m --- */

struct groups {
    const float *x;
    float w[256];
    int top; /* 15 or 31 */
    uint16_t scale, minimum;
    int s[8], m[8]; /* 0 to 63 */
    uint8_t q[256];
};

/* Weighted squared error of group g under s and m; q takes the nearest whole numbers. */
static float group_loss(const struct groups *b, int g, int s, int m, uint8_t q[32])
{
    const float *x = b->x + 32 * g, *w = b->w + 32 * g;
    float d = f16_to_f32(b->scale) * (float)s, low = f16_to_f32(b->minimum) * (float)m, loss = 0;
    search_assign_minimum(x, 32, d, -low, b->top, q);
    for (int i = 0; i < 32; i++) {
        float error = x[i] - (d * (float)q[i] - low);
        loss += w[i] * error * error;
    }
    return loss;
}

/* Each group's best s and m within `reach` of what it has; fills q. */
static float refine_groups(struct groups *b, int reach)
{
    float total = 0;
    for (int g = 0; g < 8; g++) {
        int s0 = b->s[g], m0 = b->m[g];
        float best = group_loss(b, g, s0, m0, b->q + 32 * g);
        for (int s = s0 - reach; s <= s0 + reach; s++)
            for (int m = m0 - reach; m <= m0 + reach; m++) {
                uint8_t q[32];
                if (s < 0 || s > 63 || m < 0 || m > 63 || (s == s0 && m == m0))
                    continue;
                float loss = group_loss(b, g, s, m, q);
                if (loss < best) {
                    best = loss;
                    b->s[g] = s;
                    b->m[g] = m;
                    memcpy(b->q + 32 * g, q, sizeof q);
                }
            }
        total += best;
    }
    return total;
}

/* Least squares for the two block scales with all whole numbers fixed. */
static void solve_block(struct groups *b)
{
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0; /* a = s q, b = -m */
    for (int i = 0; i < 256; i++) {
        double w = (double)b->w[i], x = (double)b->x[i], a = b->s[i / 32] * b->q[i], m = -b->m[i / 32];
        aa += w * a * a;
        ab += w * a * m;
        bb += w * m * m;
        ax += w * a * x;
        bx += w * m * x;
    }
    double determinant = aa * bb - ab * ab;
    if (determinant > 1e-9 * aa * bb) {
        double d = (ax * bb - bx * ab) / determinant, m = (aa * bx - ab * ax) / determinant;
        if (d > 0 && m > 0) {
            b->scale = search_f16((float)d);
            b->minimum = search_f16((float)m);
        }
    } else if (aa > 0 && bb == 0 && ax > 0) {
        b->scale = search_f16((float)(ax / aa));
    }
}

static void fit_groups(struct groups *b)
{
    float d[8], m[8], largest_d = 0, largest_m = 0;
    for (int g = 0; g < 8; g++) {
        weigh(b->x + 32 * g, b->w + 32 * g, 32);
        d[g] = search_scale_minimum(b->x + 32 * g, b->w + 32 * g, 32, b->top, 1, &m[g]);
        m[g] = -m[g];
        largest_d = d[g] > largest_d ? d[g] : largest_d;
        largest_m = m[g] > largest_m ? m[g] : largest_m;
    }
    b->scale = search_f16(largest_d / 63.0f);
    b->minimum = search_f16(largest_m / 63.0f);
    float scale = f16_to_f32(b->scale), minimum = f16_to_f32(b->minimum);
    for (int g = 0; g < 8; g++) {
        b->s[g] = scale > 0 ? (int)search_round(search_clamp(d[g] / scale, 0, 63)) : 0;
        b->m[g] = minimum > 0 ? (int)search_round(search_clamp(m[g] / minimum, 0, 63)) : 0;
    }
    float loss = refine_groups(b, 1);
    for (int round = 0; round < 2; round++) {
        struct groups next = *b;
        solve_block(&next);
        float next_loss = refine_groups(&next, 1);
        if (!(next_loss < loss))
            break;
        *b = next;
        loss = next_loss;
    }
}

/* The inverse of block_scales_k4. */
static void pack_scales(const struct groups *b, uint8_t scales[12])
{
    for (int g = 0; g < 4; g++) {
        scales[g] = (uint8_t)(b->s[g] | b->s[g + 4] >> 4 << 6);
        scales[g + 4] = (uint8_t)(b->m[g] | b->m[g + 4] >> 4 << 6);
        scales[g + 8] = (uint8_t)((b->s[g + 4] & 15) | (b->m[g + 4] & 15) << 4);
    }
}

static void pack_nibbles(const struct groups *b, uint8_t nibbles[128])
{
    for (int i = 0; i < 128; i++) {
        const uint8_t *q = b->q + i / 32 * 64 + i % 32;
        nibbles[i] = (uint8_t)((q[0] & 15) | (q[32] & 15) << 4);
    }
}

void quantize_q4_k(const float *in, void *block)
{
    struct groups groups = {.x = in, .top = 15};
    struct block_q4_k b;
    fit_groups(&groups);
    b.scale = groups.scale;
    b.minimum = groups.minimum;
    pack_scales(&groups, b.scales);
    pack_nibbles(&groups, b.q);
    memcpy(block, &b, sizeof b);
}

void quantize_q5_k(const float *in, void *block)
{
    struct groups groups = {.x = in, .top = 31};
    struct block_q5_k b;
    fit_groups(&groups);
    b.scale = groups.scale;
    b.minimum = groups.minimum;
    pack_scales(&groups, b.scales);
    pack_nibbles(&groups, b.q);
    memset(b.high, 0, sizeof b.high);
    for (int i = 0; i < 256; i++)
        b.high[i % 32] |= (uint8_t)(groups.q[i] >> 4 << i / 32);
    memcpy(block, &b, sizeof b);
}

/* --- Q6_K: 16 groups of 16, scale * s * q --- */

static float sixteen_loss(const float *x, const float *w, float d, int8_t q[16])
{
    float loss = 0;
    search_assign(x, 16, d, -32, 31, q);
    for (int i = 0; i < 16; i++) {
        float error = x[i] - d * (float)q[i];
        loss += w[i] * error * error;
    }
    return loss;
}

void quantize_q6_k(const float *in, void *block)
{
    struct block_q6_k b;
    float w[256], d[16], largest = 0;
    int8_t q[256];
    for (int g = 0; g < 16; g++) {
        weigh(in + 16 * g, w + 16 * g, 16);
        d[g] = search_scale(in + 16 * g, w + 16 * g, 16, 32);
        largest = fabsf(d[g]) > fabsf(largest) ? d[g] : largest;
    }
    b.scale = search_f16(-largest / 128.0f); /* the largest scale meets -128 */
    float scale = f16_to_f32(b.scale);
    for (int g = 0; g < 16; g++) {
        int start = scale != 0 ? (int)search_round(search_clamp(d[g] / scale, -128, 127)) : 0;
        b.scales[g] = (int8_t)start;
        float best = sixteen_loss(in + 16 * g, w + 16 * g, scale * (float)start, q + 16 * g);
        for (int s = start - 1; s <= start + 1; s += 2) {
            int8_t other[16];
            if (s < -128 || s > 127)
                continue;
            float loss = sixteen_loss(in + 16 * g, w + 16 * g, scale * (float)s, other);
            if (loss < best) {
                best = loss;
                b.scales[g] = (int8_t)s;
                memcpy(q + 16 * g, other, sizeof other);
            }
        }
    }
    memset(b.high, 0, sizeof b.high);
    memset(b.low, 0, sizeof b.low);
    for (int i = 0; i < 256; i++) {
        unsigned value = (unsigned)(q[i] + 32);
        b.low[i / 128 * 64 + i % 64] |= (uint8_t)((value & 15) << i % 128 / 64 * 4);
        b.high[i / 128 * 32 + i % 32] |= (uint8_t)(value >> 4 << i % 128 / 32 * 2);
    }
    memcpy(block, &b, sizeof b);
}
