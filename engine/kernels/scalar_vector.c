/* The oracle, rows of floats: norms, activations, rotary positions, softmax. Plain code in the canonical order. Pure.
 */
#include <math.h>
#include <string.h>

#include "engine/kernels/maths.h"
#include "engine/kernels/table.h"

static float tree16(float l[16])
{
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            l[i] += l[i + width];
    return l[0];
}

static void rms_norm(const float *x, uint32_t cols, const float *weight, float eps, float *y)
{
    float lanes[16] = {0};
    for (uint32_t i = 0; i < cols; i++)
        lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
    float r = 1.0f / sqrtf(tree16(lanes) / (float)cols + eps);
    for (uint32_t i = 0; i < cols; i++)
        y[i] = weight ? x[i] * r * weight[i] : x[i] * r;
}

static void layer_norm(const float *x, uint32_t cols, const float *weight, const float *bias, float eps, float *y)
{
    float lanes[16] = {0}, squares[16] = {0};
    for (uint32_t i = 0; i < cols; i++)
        lanes[i % 16] += x[i];
    float mean = tree16(lanes) / (float)cols;
    for (uint32_t i = 0; i < cols; i++)
        squares[i % 16] = fmaf(x[i] - mean, x[i] - mean, squares[i % 16]);
    float r = 1.0f / sqrtf(tree16(squares) / (float)cols + eps);
    for (uint32_t i = 0; i < cols; i++)
        y[i] = fmaf((x[i] - mean) * r, weight ? weight[i] : 1.0f, bias ? bias[i] : 0.0f);
}

static void add(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] += y[i];
}

static void scale(float *x, float factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] *= factor;
}

static void multiply_add(float *x, const float *y, float factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = fmaf(y[i], factor, x[i]);
}

static void silu_mul(const float *gate, const float *up, float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] = maths_silu(gate[i]) * up[i];
}

static void gelu_mul(const float *gate, const float *up, float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] = maths_gelu(gate[i]) * up[i];
}

static void gelu(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = maths_gelu(x[i]);
}

static void relu(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = x[i] > 0 ? x[i] : 0;
}

static void softcap(float *x, float cap, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = cap * maths_tanh(x[i] / cap);
}

static float maximum(const float *s, uint32_t begin, uint32_t end)
{
    float m = -INFINITY;
    for (uint32_t i = begin; i < end; i++)
        m = s[i] > m ? s[i] : m;
    return m;
}

static float exp_sum(float *s, uint32_t begin, uint32_t end, float max)
{
    float lanes[16] = {0};
    for (uint32_t i = begin; i < end; i++) {
        s[i] = maths_exp(s[i] - max);
        lanes[i % 16] += s[i];
    }
    return tree16(lanes);
}

static void softmax(float *x, uint32_t cols)
{
    float sum = exp_sum(x, 0, cols, maximum(x, 0, cols));
    scale(x, 1.0f / sum, cols);
}

static void rope(float *head, uint32_t rotary, bool neox, const float *cosines, const float *sines)
{
    for (uint32_t i = 0; i < rotary / 2; i++) {
        float *a = head + (neox ? i : 2 * i), *b = head + (neox ? i + rotary / 2 : 2 * i + 1);
        float c = cosines[i], s = sines[i], first = *a, second = *b;
        *a = fmaf(first, c, -(second * s));
        *b = fmaf(second, c, first * s);
    }
}

void kernels_fill_scalar_vector(struct kernel_table *table)
{
    table->rms_norm = rms_norm;
    table->layer_norm = layer_norm;
    table->add = add;
    table->scale = scale;
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
}
