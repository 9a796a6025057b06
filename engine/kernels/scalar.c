/* The oracle, linear part: the canonical order of ops.h and numerics.h as plain code. Never optimised; every other
 * level is tested against it bit for bit. Pure; any thread. */
#include <math.h>
#include <string.h>

#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"
#include "engine/quant/half.h"

static float tree16(float l[16])
{
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            l[i] += l[i + width];
    return l[0];
}

static float widen(uint32_t type, const uint8_t *row, uint32_t i)
{
    float f;
    uint16_t h;
    if (type == TYPE_F32) {
        memcpy(&f, row + 4 * (size_t)i, sizeof f);
        return f;
    }
    memcpy(&h, row + 2 * (size_t)i, sizeof h);
    return type == TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

static void dot_rows(uint32_t type, const void *w, size_t row_bytes, uint32_t rows, const float *x, size_t stride,
                     uint32_t tokens, uint32_t cols, float *y, size_t ldy)
{
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++) {
            const uint8_t *row = (const uint8_t *)w + r * row_bytes;
            float lanes[16] = {0};
            for (uint32_t i = 0; i < cols; i++)
                lanes[i % 16] = fmaf(widen(type, row, i), x[t * stride + i], lanes[i % 16]);
            y[t * ldy + r] = tree16(lanes);
        }
}

static void dot_f32(const void *w, size_t row_bytes, uint32_t rows, const float *x, size_t stride, uint32_t tokens,
                    uint32_t cols, float *y, size_t ldy)
{
    dot_rows(TYPE_F32, w, row_bytes, rows, x, stride, tokens, cols, y, ldy);
}

static void dot_f16(const void *w, size_t row_bytes, uint32_t rows, const float *x, size_t stride, uint32_t tokens,
                    uint32_t cols, float *y, size_t ldy)
{
    dot_rows(TYPE_F16, w, row_bytes, rows, x, stride, tokens, cols, y, ldy);
}

static void dot_bf16(const void *w, size_t row_bytes, uint32_t rows, const float *x, size_t stride, uint32_t tokens,
                     uint32_t cols, float *y, size_t ldy)
{
    dot_rows(TYPE_BF16, w, row_bytes, rows, x, stride, tokens, cols, y, ldy);
}

static void quantise(const float *x, uint32_t cols, struct act_block *out, size_t step)
{
    for (uint32_t i = 0; i < cols; i += 32, x += 32, out += step) {
        float amax = 0;
        for (int c = 0; c < 32; c++)
            amax = fabsf(x[c]) > amax ? fabsf(x[c]) : amax;
        float inverse = 127.0f / amax;
        bool usable = amax > 0 && inverse < INFINITY;
        out->d = usable ? amax / 127.0f : 0;
        int32_t sum[2] = {0, 0};
        for (int c = 0; c < 32; c++) {
            float r = usable ? rintf(x[c] * inverse) : 0;
            out->q[c] = (int8_t)(r >= -127 && r <= 127 ? r : 0);
            sum[c / 16] += out->q[c];
        }
        out->ds = out->d * (float)(sum[0] + sum[1]);
        out->minus_sum = -(sum[0] + sum[1]);
        out->minus_low = -sum[0];
    }
}

static int32_t dot_range(const struct panel32 *p, uint32_t row, const int8_t *a, int begin, int end)
{
    int32_t sum = 0;
    for (int c = begin; c < end; c++)
        sum += (int8_t)p->q[c / 4][row][c % 4] * a[c];
    return sum;
}

static void expanded(const struct panel32 *p, const struct act_block *a, uint32_t blocks, uint32_t tokens, int groups,
                     bool offset, float *acc)
{
    for (uint32_t b = 0; b < blocks; b++, p++, a += tokens)
        for (uint32_t t = 0; t < tokens; t++)
            for (uint32_t r = 0; r < PANEL_ROWS; r++) {
                float *y = &acc[t * PAIR_ROWS + r], d = a[t].d;
                if (groups == 1) {
                    *y = fmaf(p->scale[0][r] * d, (float)dot_range(p, r, a[t].q, 0, 32), *y);
                    if (offset)
                        *y = fmaf(p->offset[0][r], a[t].ds, *y);
                } else {
                    *y = fmaf(p->scale[0][r] * d, (float)dot_range(p, r, a[t].q, 0, 16), *y);
                    *y = fmaf(p->scale[1][r] * d, (float)dot_range(p, r, a[t].q, 16, 32), *y);
                    if (offset) {
                        *y = fmaf(p->offset[0][r], d * (float)-a[t].minus_low, *y);
                        *y = fmaf(p->offset[1][r], d * (float)(a[t].minus_low - a[t].minus_sum), *y);
                    }
                }
            }
}

static void widen_f16(const void *in, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = widen(TYPE_F16, in, (uint32_t)i);
}

static void narrow_f16(const float *in, uint16_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = f32_to_f16(in[i]);
}

static uint64_t probe_dot(uint64_t rounds)
{
    volatile int8_t a = 3, b = 5;
    int32_t sum = 0;
    for (uint64_t i = 0; i < rounds; i++)
        sum += a * b;
    return sum ? rounds : 0;
}

static uint64_t probe_read(const void *data, size_t bytes)
{
    const uint64_t *p = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / 8; i++)
        sum += p[i];
    return sum;
}

void kernels_fill_scalar(struct kernel_table *table)
{
    table->name = "scalar";
    table->flip = 0;
    table->tile_tokens = 4;
    memset(table->panel, 0, sizeof table->panel);
    table->expanded = expanded;
    table->dot_f32 = dot_f32;
    table->dot_f16 = dot_f16;
    table->dot_bf16 = dot_bf16;
    table->quantise = quantise;
    table->widen_f16 = widen_f16;
    table->narrow_f16 = narrow_f16;
    table->probe_dot = probe_dot;
    table->probe_read = probe_read;
    kernels_fill_scalar_vector(table);
    kernels_fill_scalar_attention(table);
}
