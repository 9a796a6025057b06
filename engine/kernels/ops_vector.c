/* Element-wise ops, norms and rotary positions over the pool: rows or runs of elements, each wholly by one thread.
 * Owns nothing. */
#include "engine/kernels/maths.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"

#define RUN ((size_t)8192) /* elements a piece */

/* Rows of about RUN elements together. */
static size_t row_grain(uint32_t cols)
{
    return cols >= RUN ? 1 : RUN / (cols ? cols : 1);
}

/* One context serves all: each op uses the fields it needs. */
struct work {
    const float *in, *weight, *bias, *other;
    float *out;
    size_t in_stride, out_stride;
    uint32_t cols, heads, head_dim, rotary;
    float factor;
    bool neox;
};

static void rms_norm_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    for (size_t i = begin; i < end; i++)
        kernels->rms_norm(w->in + i * w->in_stride, w->cols, w->weight, w->factor, w->out + i * w->out_stride);
}

void op_rms_norm(struct pool *pool, const float *x, size_t stride, uint32_t n, uint32_t cols, const float *weight,
                 float eps, float *y, size_t ldy)
{
    struct work w = {
        .in = x, .in_stride = stride, .cols = cols, .weight = weight, .factor = eps, .out = y, .out_stride = ldy};
    pool_for(pool, n, row_grain(cols), rms_norm_rows, &w);
}

static void layer_norm_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    for (size_t i = begin; i < end; i++)
        kernels->layer_norm(w->in + i * w->in_stride, w->cols, w->weight, w->bias, w->factor,
                            w->out + i * w->out_stride);
}

void op_layer_norm(struct pool *pool, const float *x, size_t stride, uint32_t n, uint32_t cols, const float *weight,
                   const float *bias, float eps, float *y, size_t ldy)
{
    struct work w = {.in = x,
                     .in_stride = stride,
                     .cols = cols,
                     .weight = weight,
                     .bias = bias,
                     .factor = eps,
                     .out = y,
                     .out_stride = ldy};
    pool_for(pool, n, row_grain(cols), layer_norm_rows, &w);
}

static void add_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->add(w->out + begin, w->in + begin, end - begin);
}

void op_add(struct pool *pool, float *x, const float *y, size_t count)
{
    struct work w = {.in = y, .out = x};
    pool_for(pool, count, RUN, add_run, &w);
}

static void add_bias_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    for (size_t i = begin; i < end; i++)
        kernels->add(w->out + i * w->out_stride, w->bias, w->cols);
}

void op_add_bias(struct pool *pool, float *x, size_t stride, uint32_t n, uint32_t cols, const float *bias)
{
    struct work w = {.out = x, .out_stride = stride, .cols = cols, .bias = bias};
    pool_for(pool, n, row_grain(cols), add_bias_rows, &w);
}

static void scale_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->scale(w->out + begin, w->factor, end - begin);
}

void op_scale(struct pool *pool, float *x, float factor, size_t count)
{
    struct work w = {.out = x, .factor = factor};
    pool_for(pool, count, RUN, scale_run, &w);
}

static void fma_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->fma(w->out + begin, w->in + begin, w->factor, end - begin);
}

void op_fma(struct pool *pool, float *x, const float *y, float factor, size_t count)
{
    struct work w = {.out = x, .in = y, .factor = factor};
    pool_for(pool, count, RUN, fma_run, &w);
}

static void silu_mul_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->silu_mul(w->in + begin, w->other + begin, w->out + begin, end - begin);
}

void op_silu_mul(struct pool *pool, const float *gate, const float *up, float *y, size_t count)
{
    struct work w = {.in = gate, .other = up, .out = y};
    pool_for(pool, count, RUN / 4, silu_mul_run, &w);
}

static void gelu_mul_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->gelu_mul(w->in + begin, w->other + begin, w->out + begin, end - begin);
}

void op_gelu_mul(struct pool *pool, const float *gate, const float *up, float *y, size_t count)
{
    struct work w = {.in = gate, .other = up, .out = y};
    pool_for(pool, count, RUN / 4, gelu_mul_run, &w);
}

static void gelu_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->gelu(w->out + begin, end - begin);
}

void op_gelu(struct pool *pool, float *x, size_t count)
{
    struct work w = {.out = x};
    pool_for(pool, count, RUN / 4, gelu_run, &w);
}

static void relu_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->relu(w->out + begin, end - begin);
}

void op_relu(struct pool *pool, float *x, size_t count)
{
    struct work w = {.out = x};
    pool_for(pool, count, RUN, relu_run, &w);
}

static void softcap_run(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    kernels->softcap(w->out + begin, w->factor, end - begin);
}

void op_softcap(struct pool *pool, float *x, float cap, size_t count)
{
    struct work w = {.out = x, .factor = cap};
    pool_for(pool, count, RUN / 4, softcap_run, &w);
}

static void softmax_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    for (size_t i = begin; i < end; i++)
        kernels->softmax(w->out + i * w->out_stride, w->cols);
}

void op_softmax(struct pool *pool, float *x, size_t stride, uint32_t n, uint32_t cols)
{
    struct work w = {.out = x, .out_stride = stride, .cols = cols};
    pool_for(pool, n, row_grain(cols), softmax_rows, &w);
}

static void rope_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct work *w = context;
    size_t half = w->rotary / 2;
    for (size_t i = begin; i < end; i++)
        for (uint32_t h = 0; h < w->heads; h++)
            kernels->rope(w->out + i * w->out_stride + (size_t)h * w->head_dim, w->rotary, w->neox, w->in + i * half,
                          w->other + i * half);
}

void op_rope(struct pool *pool, float *x, size_t stride, uint32_t n, uint32_t heads, uint32_t head_dim, uint32_t rotary,
             bool neox, const float *cosines, const float *sines)
{
    struct work w = {.out = x,
                     .out_stride = stride,
                     .heads = heads,
                     .head_dim = head_dim,
                     .rotary = rotary,
                     .neox = neox,
                     .in = cosines,
                     .other = sines};
    pool_for(pool, n, row_grain(heads * head_dim), rope_rows, &w);
}

void rope_angles(uint32_t position, const double *inverse_frequency, uint32_t half, float magnitude, float *cosines,
                 float *sines)
{
    for (uint32_t i = 0; i < half; i++) {
        double sine, cosine;
        maths_sincos((double)position * inverse_frequency[i], &sine, &cosine);
        cosines[i] = (float)cosine * magnitude;
        sines[i] = (float)sine * magnitude;
    }
}
