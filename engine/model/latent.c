/* Multi-head latent attention (DeepSeek-V2, 2024): k and v of all heads come from one small latent c a position, and
 * one rotated key part shared by all heads. Two forms: absorbed, where the cache holds c and the queries are carried
 * into its space (k_b and v_b per head); and expanded, where the cache holds every head's k and v (older files).
 *
 * Buffers: latent[0] n × q_rank, [1] n × heads·k_dim (q, each head nope then rotated part), [2] n × (kv_rank + rotary),
 * [3] expanded: n × heads·(nope + v_dim); absorbed: n × heads·v_dim. */
#include <string.h>

#include "engine/model/forward.h"

/* q: n × heads·k_dim into `out`, through the low rank where the model has one. a: activations of h. */
static void project_queries(struct forward *f, const struct block_weights *w, struct activations *h, float *out,
                            size_t q_width)
{
    const struct model_shape *s = f->shape;
    if (!w->matrix[ATTN_Q_A].rows) {
        op_linear(f->pool, &w->matrix[ATTN_Q], h, out, q_width);
        return;
    }
    struct activations low;
    op_linear(f->pool, &w->matrix[ATTN_Q_A], h, f->latent[0], s->q_rank);
    normalise(f, f->latent[0], f->n, s->q_rank, w->vector[ATTN_Q_A_NORM], NULL, f->latent[0]);
    activations_set(&low, f->pool, f->latent[0], s->q_rank, f->n, s->q_rank, f->activations[1], false);
    op_linear(f->pool, &w->matrix[ATTN_Q_B], &low, out, q_width);
}

/* Expanded: k head = (nope from the latent, shared rotated part); v head from the latent. */
static void expand(struct forward *f, const struct block_weights *w, const struct block_shape *b, const float *c)
{
    const struct model_shape *s = f->shape;
    uint32_t nope = s->k_dim - s->rotary, head = nope + s->v_dim, c_width = s->kv_rank + s->rotary;
    struct activations a;
    activations_set(&a, f->pool, c, c_width, f->n, s->kv_rank, f->activations[1], false);
    op_linear(f->pool, &w->matrix[ATTN_KV_B], &a, f->latent[3], (size_t)b->heads * head);
    for (size_t t = 0; t < f->n; t++)
        for (size_t i = 0; i < b->heads; i++) {
            const float *kv = f->latent[3] + (t * b->heads + i) * head;
            float *k = f->k + (t * b->heads + i) * s->k_dim, *v = f->v + (t * b->heads + i) * s->v_dim;
            memcpy(k, kv, nope * sizeof *k);
            memcpy(k + nope, c + t * c_width + s->kv_rank, s->rotary * sizeof *k);
            memcpy(v, kv + nope, s->v_dim * sizeof *v);
        }
}

/* Absorbed: k = (c, rotated part), v = c; q head = (k_bᵀ·nope, rotated part). */
static void absorb(struct forward *f, const struct block_weights *w, const struct block_shape *b, const float *c)
{
    const struct model_shape *s = f->shape;
    uint32_t nope = s->k_dim - s->rotary, c_width = s->kv_rank + s->rotary;
    size_t q_raw = (size_t)b->heads * s->k_dim, q_wide = (size_t)b->heads * c_width;
    for (uint32_t i = 0; i < b->heads; i++) {
        struct activations a;
        activations_set(&a, f->pool, f->latent[1] + (size_t)i * s->k_dim, q_raw, f->n, nope, f->activations[1], false);
        op_linear(f->pool, &w->stack[ATTN_K_B][i], &a, f->q + (size_t)i * c_width, q_wide);
    }
    for (size_t t = 0; t < f->n; t++) {
        for (size_t i = 0; i < b->heads; i++)
            memcpy(f->q + t * q_wide + i * c_width + s->kv_rank, f->latent[1] + t * q_raw + i * s->k_dim + nope,
                   s->rotary * sizeof *f->q);
        memcpy(f->k + t * c_width, c + t * c_width, c_width * sizeof *f->k);
        memcpy(f->v + t * s->kv_rank, c + t * c_width, s->kv_rank * sizeof *f->v);
    }
}

void latent_project(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv)
{
    const struct model_shape *s = f->shape;
    const struct block_shape *b = &s->block[block];
    uint32_t nope = s->k_dim - s->rotary, c_width = s->kv_rank + s->rotary;
    size_t q_width = (size_t)b->heads * s->k_dim;
    float *q = b->absorbed ? f->latent[1] : f->q, *c = f->latent[2];
    bool halves = s->arch->positions == ROPE_HALVES;

    struct activations h;
    activations_set(&h, f->pool, f->h, s->width, f->n, s->width, f->activations[0], false);
    project_queries(f, w, &h, q, q_width);
    op_linear(f->pool, &w->matrix[ATTN_KV_A], &h, c, c_width); /* c: n × (kv_rank + rotary) */

    op_rope(f->pool, q + nope, q_width, f->n, b->heads, s->k_dim, s->rotary, halves, f->cosines[b->rope],
            f->sines[b->rope]);
    op_rope(f->pool, c + s->kv_rank, c_width, f->n, 1, s->rotary, s->rotary, halves, f->cosines[b->rope],
            f->sines[b->rope]);
    op_rms_norm(f->pool, c, c_width, f->n, s->kv_rank, w->vector[ATTN_KV_A_NORM], s->eps, c, c_width);

    if (b->absorbed)
        absorb(f, w, b, c);
    else
        expand(f, w, b, c);
    attention_store(f, &kv_cache_run(kv, block)->shape, kv, block);
}

void latent_read(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv)
{
    const struct model_shape *s = f->shape;
    const struct block_shape *b = &s->block[block];
    size_t out = (size_t)b->heads * s->v_dim, wide = (size_t)b->heads * s->kv_rank;
    struct activations a;

    attention_attend(f, w, &kv_cache_run(kv, block)->shape, kv, block);
    float *o = f->o;
    if (b->absorbed) { /* o: n × heads·kv_rank, each head through its own v_b */
        o = f->latent[3];
        for (uint32_t i = 0; i < b->heads; i++) {
            activations_set(&a, f->pool, f->o + (size_t)i * s->kv_rank, wide, f->n, s->kv_rank, f->activations[1],
                            false);
            op_linear(f->pool, &w->stack[ATTN_V_B][i], &a, o + (size_t)i * s->v_dim, out);
        }
    }
    activations_set(&a, f->pool, o, out, f->n, (uint32_t)out, f->activations[1], false);
    op_linear(f->pool, &w->matrix[ATTN_OUT], &a, f->y, s->width);
}
