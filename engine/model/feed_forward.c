/* The dense feed-forward: gated (Shazeer 2020, GLU variants) or plain, with or without biases. */
#include "engine/model/forward.h"

#include "engine/kernels/maths.h"

/* gpt-oss: gate·σ(1.702·gate)·(up + 1), with gate ≤ 7 and |up| ≤ 7. */
struct clamped {
    float *gate;
    const float *up;
};

static void swiglu_clamped(void *context, size_t begin, size_t end, int thread)
{
    const struct clamped *c = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float g = c->gate[i] < 7.0f ? c->gate[i] : 7.0f;
        float u = c->up[i] > 7.0f ? 7.0f : c->up[i] < -7.0f ? -7.0f : c->up[i];
        c->gate[i] = g / (1.0f + maths_exp(-1.702f * g)) * (u + 1.0f);
    }
}

void activate(struct forward *f, bool gated, float *gate, float *up, size_t count)
{
    switch (f->shape->arch->activation) {
    case ACT_SILU:
        op_silu_mul(f->pool, gate, up, gate, count);
        break;
    case ACT_GELU:
        if (gated)
            op_gelu_mul(f->pool, gate, up, gate, count);
        else
            op_gelu(f->pool, up, count);
        break;
    case ACT_SWIGLU_CLAMPED: {
        struct clamped c = {gate, up};
        pool_for(f->pool, count, 2048, swiglu_clamped, &c);
        break;
    }
    }
}

void feed_forward(struct forward *f, const struct block_weights *w, uint32_t block)
{
    const struct model_shape *s = f->shape;
    uint32_t ff = s->block[block].feed_forward, jobs_count = 0;
    bool gated = w->matrix[FFN_GATE].rows != 0;
    struct activations a;
    struct linear_job jobs[2];

    /* gate, up: n × ff */
    activations_set(&a, f->pool, f->h, s->width, f->n, s->width, f->activations[0], false);
    jobs[jobs_count++] = (struct linear_job){&w->matrix[FFN_UP], f->up, ff};
    if (gated)
        jobs[jobs_count++] = (struct linear_job){&w->matrix[FFN_GATE], f->gate, ff};
    op_linear_many(f->pool, jobs, jobs_count, &a);
    if (w->vector[FFN_UP_BIAS])
        op_add_bias(f->pool, f->up, ff, f->n, ff, w->vector[FFN_UP_BIAS]);
    if (gated && w->vector[FFN_GATE_BIAS])
        op_add_bias(f->pool, f->gate, ff, f->n, ff, w->vector[FFN_GATE_BIAS]);
    activate(f, gated, f->gate, f->up, (size_t)f->n * ff);

    activations_set(&a, f->pool, gated ? f->gate : f->up, ff, f->n, ff, f->activations[1], false);
    op_linear(f->pool, &w->matrix[FFN_DOWN], &a, f->y, s->width); /* y: n × width */
    if (w->vector[FFN_DOWN_BIAS])
        op_add_bias(f->pool, f->y, s->width, f->n, s->width, w->vector[FFN_DOWN_BIAS]);
}
