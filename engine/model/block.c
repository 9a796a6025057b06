/* A transformer block, for every architecture: the paper's page, with each family's pieces where it has them. */
#include <string.h>

#include "engine/model/forward.h"

/* x ← x + scale·y */
static void add_to_residual(struct forward *f)
{
    size_t count = (size_t)f->n * f->shape->width;
    if (f->shape->residual_scale == 1)
        op_add(f->pool, f->x, f->y, count);
    else
        op_fma(f->pool, f->x, f->y, f->shape->residual_scale, count);
}

void normalise(struct forward *f, const float *in, uint32_t rows, uint32_t cols, const float *weight, const float *bias,
               float *out)
{
    if (!weight && in != out)
        memcpy(out, in, (size_t)rows * cols * sizeof *out);
    else if (weight && f->shape->arch->norm == NORM_RMS)
        op_rms_norm(f->pool, in, cols, rows, cols, weight, f->shape->eps, out, cols);
    else if (weight)
        op_layer_norm(f->pool, in, cols, rows, cols, weight, bias, f->shape->eps, out, cols);
}

void block_forward(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv,
                   const uint32_t *keep, uint32_t keep_count)
{
    const struct model_shape *s = f->shape;
    const struct architecture *a = s->arch;
    const struct block_shape *b = &s->block[block];
    uint32_t width = s->width;

    /* Attention. x: n × width */
    normalise(f, f->x, f->n, width, w->vector[ATTN_NORM], w->vector[ATTN_NORM_BIAS], f->h);
    if (a->latent)
        latent_project(f, w, block, kv);
    else
        attention_project(f, w, block, kv);

    if (keep) { /* the model's last block: k and v are stored, only these rows are still wanted */
        forward_keep(f, keep, keep_count, b->heads * kv_cache_run(kv, block)->shape.k_dim);
        if (!f->n)
            return;
    }
    if (a->latent)
        latent_read(f, w, block, kv);
    else
        attention_read(f, w, block, kv);
    normalise(f, f->y, f->n, width, w->vector[ATTN_POST_NORM], NULL, f->y);
    add_to_residual(f);

    /* Feed-forward. A parallel block reads the same h as attention did. */
    if (!a->parallel)
        normalise(f, f->x, f->n, width, w->vector[FFN_NORM], w->vector[FFN_NORM_BIAS], f->h);
    if (b->mixture)
        experts_forward(f, w, block);
    else
        feed_forward(f, w, block);
    normalise(f, f->y, f->n, width, w->vector[FFN_POST_NORM], NULL, f->y);
    add_to_residual(f);
}
