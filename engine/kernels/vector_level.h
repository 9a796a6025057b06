/* The row ops of the table in sixteen lanes; compiled for each ISA. Canonical order: ops.h. Pure; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_VECTOR_LEVEL_H
#define BRIGADE_ENGINE_KERNELS_VECTOR_LEVEL_H

#include <math.h>

#include "engine/kernels/table.h"
#include "engine/kernels/vec_maths.h"

/* Runs a statement with `at` and `part` for every 16 elements: LOAD and STORE are whole or of the part at the end. */
#define LANES_LOOP(count, ...)                 \
    do {                                       \
        size_t at = 0;                         \
        for (; at + 16 <= (count); at += 16) { \
            const size_t part = 16;            \
            __VA_ARGS__                        \
        }                                      \
        if (at < (count)) {                    \
            const size_t part = (count)-at;    \
            __VA_ARGS__                        \
        }                                      \
    } while (0)
#define LOAD(p) (part == 16 ? v_load((p) + at) : v_load_part((p) + at, part))
#define STORE(p, a) (part == 16 ? v_store((p) + at, a) : v_store_part((p) + at, part, a))

/* Lanes of squares of (x - mean): the tail touches its own lanes only. */
INLINE vf squares(const float *x, uint32_t cols, float mean)
{
    vf lanes = v_zero(), m = v_set1(mean);
    uint32_t i = 0;
    for (; i + 16 <= cols; i += 16) {
        vf a = v_sub(v_load(x + i), m);
        lanes = v_fma(a, a, lanes);
    }
    if (i < cols) {
        float l[16];
        v_store(l, lanes);
        for (uint32_t j = 0; i + j < cols; j++)
            l[j] = __builtin_fmaf(x[i + j] - mean, x[i + j] - mean, l[j]);
        lanes = v_load(l);
    }
    return lanes;
}

static void rms_norm(const float *x, uint32_t cols, const float *weight, float eps, float *y)
{
    float r = 1.0f / sqrtf(v_tree(squares(x, cols, 0.0f)) / (float)cols + eps);
    vf scale = v_set1(r);
    if (weight)
        LANES_LOOP(cols, { STORE(y, v_mul(v_mul(LOAD(x), scale), LOAD(weight))); });
    else
        LANES_LOOP(cols, { STORE(y, v_mul(LOAD(x), scale)); });
}

static void layer_norm(const float *x, uint32_t cols, const float *weight, const float *bias, float eps, float *y)
{
    vf lanes = v_zero();
    LANES_LOOP(cols, { lanes = v_add(lanes, LOAD(x)); }); /* a sum is never -0, so the tail's +0 changes nothing */
    float mean = v_tree(lanes) / (float)cols;
    float r = 1.0f / sqrtf(v_tree(squares(x, cols, mean)) / (float)cols + eps);
    vf m = v_set1(mean), scale = v_set1(r);
    LANES_LOOP(cols, {
        vf w = weight ? LOAD(weight) : v_set1(1.0f), b = bias ? LOAD(bias) : v_zero();
        STORE(y, v_fma(v_mul(v_sub(LOAD(x), m), scale), w, b));
    });
}

static void add(float *x, const float *y, size_t count)
{
    LANES_LOOP(count, { STORE(x, v_add(LOAD(x), LOAD(y))); });
}

static void scale_by(float *x, float factor, size_t count)
{
    LANES_LOOP(count, { STORE(x, v_mul(LOAD(x), v_set1(factor))); });
}

static void multiply_add(float *x, const float *y, float factor, size_t count)
{
    LANES_LOOP(count, { STORE(x, v_fma(LOAD(y), v_set1(factor), LOAD(x))); });
}

static void silu_mul(const float *gate, const float *up, float *y, size_t count)
{
    LANES_LOOP(count, { STORE(y, v_mul(v_silu(LOAD(gate)), LOAD(up))); });
}

static void gelu_mul(const float *gate, const float *up, float *y, size_t count)
{
    LANES_LOOP(count, { STORE(y, v_mul(v_gelu(LOAD(gate)), LOAD(up))); });
}

static void gelu(float *x, size_t count)
{
    LANES_LOOP(count, { STORE(x, v_gelu(LOAD(x))); });
}

static void relu(float *x, size_t count)
{
    LANES_LOOP(count, {
        vf a = LOAD(x);
        STORE(x, v_if_less(v_zero(), a, a, v_zero()));
    });
}

static void softcap(float *x, float cap, size_t count)
{
    vf c = v_set1(cap);
    LANES_LOOP(count, { STORE(x, v_mul(c, v_tanh(v_div(LOAD(x), c)))); });
}

static float maximum(const float *s, uint32_t begin, uint32_t end)
{
    float m = -INFINITY;
    uint32_t i = begin;
    if (end - begin >= 16 && begin < end) {
        vf most = v_load(s + i);
        for (i += 16; i + 16 <= end; i += 16)
            most = v_max(v_load(s + i), most);
        m = v_highest(most);
    }
    for (; i < end; i++)
        m = s[i] > m ? s[i] : m;
    return m;
}

/* Elements [from, to) of the 16 at s, which begin at lane 0. */
INLINE vf exp_part(float *s, uint32_t from, uint32_t to, vf max, vf lanes)
{
    float part[16] = {0};
    for (uint32_t j = from; j < to; j++)
        part[j] = s[j];
    v_store(part, v_exp(v_sub(v_load(part), max)));
    for (uint32_t j = 0; j < 16; j++)
        part[j] = j >= from && j < to ? part[j] : 0;
    for (uint32_t j = from; j < to; j++)
        s[j] = part[j];
    return v_add(lanes, v_load(part)); /* sums of exps are never -0 */
}

static float exp_sum(float *s, uint32_t begin, uint32_t end, float max)
{
    vf lanes = v_zero(), m = v_set1(max);
    uint32_t i = begin;
    if (begin >= end)
        return 0;
    if (i % 16) {
        uint32_t base = i / 16 * 16, to = end - base < 16 ? end - base : 16;
        lanes = exp_part(s + base, i - base, to, m, lanes);
        i = base + 16;
    }
    for (; i < end && end - i >= 16; i += 16) {
        vf e = v_exp(v_sub(v_load(s + i), m));
        v_store(s + i, e);
        lanes = v_add(lanes, e);
    }
    if (i < end)
        lanes = exp_part(s + i, 0, end - i, m, lanes);
    return v_tree(lanes);
}

static void softmax(float *x, uint32_t cols)
{
    float sum = exp_sum(x, 0, cols, maximum(x, 0, cols));
    scale_by(x, 1.0f / sum, cols);
}

static void rope(float *head, uint32_t rotary, bool neox, const float *cosines, const float *sines)
{
    uint32_t half = rotary / 2, i = 0;
    if (neox)
        for (; i + 16 <= half; i += 16) {
            vf a = v_load(head + i), b = v_load(head + half + i), c = v_load(cosines + i), s = v_load(sines + i);
            vf minus = v_mul(v_mul(b, s), v_set1(-1.0f));
            v_store(head + i, v_fma(a, c, minus));
            v_store(head + half + i, v_fma(b, c, v_mul(a, s)));
        }
    for (; i < half; i++) {
        float *a = head + (neox ? i : 2 * i), *b = head + (neox ? i + half : 2 * i + 1);
        float c = cosines[i], s = sines[i], first = *a, second = *b;
        *a = __builtin_fmaf(first, c, -(second * s));
        *b = __builtin_fmaf(second, c, first * s);
    }
}

/* q = rint(x·inverse) by adding 1.5·2²³: the whole number is in the low byte. */
static void quantise(const float *x, uint32_t cols, struct act_block *out, size_t step)
{
    for (uint32_t i = 0; i < cols; i += 32, x += 32, out += step) {
        vf a = v_load(x), b = v_load(x + 16);
        float amax = v_highest(v_max(v_and_bits(a, 0x7fffffff), v_and_bits(b, 0x7fffffff)));
        float inverse = 127.0f / amax;
        if (!(amax > 0 && inverse < INFINITY)) {
            *out = (struct act_block){0};
            continue;
        }
        vf scale = v_set1(inverse), shifter = v_set1(EXP_SHIFTER);
        int32_t low = v_store_low_bytes(out->q, v_add(v_mul(a, scale), shifter));
        int32_t high = v_store_low_bytes(out->q + 16, v_add(v_mul(b, scale), shifter));
        out->d = amax / 127.0f;
        out->ds = out->d * (float)(low + high);
        out->minus_sum = -(low + high);
        out->minus_low = -low;
    }
}

static void widen_f16(const void *in, float *out, size_t count)
{
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        v_store(out + i, v_load_f16((const uint8_t *)in + 2 * i));
    if (i < count) {
        uint16_t part[16] = {0};
        memcpy(part, (const uint8_t *)in + 2 * i, 2 * (count - i));
        v_store_part(out + i, count - i, v_load_f16(part));
    }
}

static void narrow_f16(const float *in, uint16_t *out, size_t count)
{
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        v_store_f16(out + i, v_load(in + i));
    if (i < count) {
        uint16_t part[16];
        v_store_f16(part, v_load_part(in + i, count - i));
        memcpy(out + i, part, 2 * (count - i));
    }
}

/* Reading at full speed: 256 bytes a turn into sums of lanes, fetched ahead. */
static uint64_t probe_read(const void *data, size_t bytes)
{
    const float *p = data;
    vf a = v_zero(), b = v_zero(), c = v_zero(), d = v_zero();
    for (size_t i = 0; i + 256 <= bytes; i += 256, p += 64) {
        for (size_t line = 0; line < 256; line += 64)
            __builtin_prefetch((const uint8_t *)p + 4096 + line);
        a = v_or(a, v_load(p));
        b = v_or(b, v_load(p + 16));
        c = v_or(c, v_load(p + 32));
        d = v_or(d, v_load(p + 48));
    }
    float lanes[16];
    uint64_t sum = 0;
    v_store(lanes, v_or(v_or(a, b), v_or(c, d)));
    for (int i = 0; i < 16; i++) {
        uint32_t bits;
        memcpy(&bits, &lanes[i], sizeof bits);
        sum += bits;
    }
    return sum;
}

INLINE void fill_vector(struct kernel_table *table)
{
    table->rms_norm = rms_norm;
    table->layer_norm = layer_norm;
    table->add = add;
    table->scale = scale_by;
    table->fma = multiply_add;
    table->silu_mul = silu_mul;
    table->gelu_mul = gelu_mul;
    table->gelu = gelu;
    table->relu = relu;
    table->softcap = softcap;
    table->softmax = softmax;
    table->rope = rope;
    table->maximum = maximum;
    table->exp_sum = exp_sum;
    table->quantise = quantise;
    table->widen_f16 = widen_f16;
    table->narrow_f16 = narrow_f16;
    table->probe_read = probe_read;
}

#endif
