/* Multi-head attention with grouped kv heads (Ainslie et al. 2023), rotary positions, and what families add: biases,
 * norms of q and k, windows, soft caps, sinks. The stage's thread; the pool computes. */
#include "engine/model/forward.h"

static void add_bias(struct forward *f, float *x, uint32_t cols, const float *bias)
{
    if (bias)
        op_add_bias(f->pool, x, cols, f->n, cols, bias);
}

static void rotate(struct forward *f, float *x, uint32_t heads, const struct block_shape *b)
{
    const struct model_shape *s = f->shape;
    if (b->rope != ROPE_NOT)
        op_rope(f->pool, x, (size_t)heads * s->k_dim, f->n, heads, s->k_dim, s->rotary,
                s->arch->positions == ROPE_HALVES, f->cosines[b->rope], f->sines[b->rope]);
}

void attention_project(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv)
{
    const struct model_shape *s = f->shape;
    const struct block_shape *b = &s->block[block];
    uint32_t q = b->heads * s->k_dim, k = b->kv_heads * s->k_dim, v = b->kv_heads * s->v_dim;

    /* q: n × heads·k_dim, k: n × kv_heads·k_dim, v: n × kv_heads·v_dim */
    struct activations h;
    activations_set(&h, f->pool, f->h, s->width, f->n, s->width, f->activations[0], false);
    struct linear_job jobs[3] = {
        {&w->matrix[ATTN_Q], f->q, q}, {&w->matrix[ATTN_K], f->k, k}, {&w->matrix[ATTN_V], f->v, v}};
    op_linear_many(f->pool, jobs, 3, &h);
    add_bias(f, f->q, q, w->vector[ATTN_Q_BIAS]);
    add_bias(f, f->k, k, w->vector[ATTN_K_BIAS]);
    add_bias(f, f->v, v, w->vector[ATTN_V_BIAS]);

    if (w->vector[ATTN_Q_NORM]) { /* over each head */
        normalise(f, f->q, f->n * b->heads, s->k_dim, w->vector[ATTN_Q_NORM], NULL, f->q);
        normalise(f, f->k, f->n * b->kv_heads, s->k_dim, w->vector[ATTN_K_NORM], NULL, f->k);
    } else if (w->vector[ATTN_Q_NORM_WIDE]) {
        normalise(f, f->q, f->n, q, w->vector[ATTN_Q_NORM_WIDE], NULL, f->q);
        normalise(f, f->k, f->n, k, w->vector[ATTN_K_NORM_WIDE], NULL, f->k);
    }
    rotate(f, f->q, b->heads, b);
    rotate(f, f->k, b->kv_heads, b);
    attention_store(f, &kv_cache_run(kv, block)->shape, kv, block);
}

void attention_read(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv)
{
    const struct model_shape *s = f->shape;
    uint32_t o = s->block[block].heads * s->v_dim;

    attention_attend(f, w, &kv_cache_run(kv, block)->shape, kv, block);
    struct activations a;
    activations_set(&a, f->pool, f->o, o, f->n, o, f->activations[1], false);
    op_linear(f->pool, &w->matrix[ATTN_OUT], &a, f->y, s->width); /* y: n × width */
    add_bias(f, f->y, s->width, w->vector[ATTN_OUT_BIAS]);
}

struct store {
    const struct forward *f;
    const struct kv_shape *shape;
    const struct kv_run *run;
};

static void store_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct store *c = context;
    const struct forward *f = c->f;
    size_t k = (size_t)c->shape->kv_heads * c->shape->k_dim, v = (size_t)c->shape->kv_heads * c->shape->v_dim;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        uint32_t position = f->position[t], page = f->pages[t][position / KV_PAGE_TOKENS];
        kv_store(c->shape, c->run->base + page * c->run->page_bytes, position % KV_PAGE_TOKENS, f->k + t * k,
                 f->v + t * v);
    }
}

void attention_store(struct forward *f, const struct kv_shape *shape, const struct kv_cache *kv, uint32_t block)
{
    struct store c = {f, shape, kv_cache_run(kv, block)};
    pool_for(f->pool, f->n, 8, store_rows, &c);
}

void attention_attend(struct forward *f, const struct block_weights *w, const struct kv_shape *shape,
                      const struct kv_cache *kv, uint32_t block)
{
    const struct model_shape *s = f->shape;
    const struct block_shape *b = &s->block[block];
    const struct kv_run *run = kv_cache_run(kv, block);
    struct attention_shape a = {.kv = *shape,
                                .heads = b->heads,
                                .scale = s->attention_scale,
                                .softcap = s->attention_softcap,
                                .window = b->window,
                                .sinks = w->vector[ATTN_SINKS]};
    uint32_t context = 0;
    for (uint32_t t = 0; t < f->n; t++) {
        f->queries[t] = (struct attention_query){.q = f->q + (size_t)t * b->heads * shape->k_dim,
                                                 .out = f->o + (size_t)t * b->heads * shape->v_dim,
                                                 .position = f->position[t],
                                                 .pages = f->pages[t]};
        if (f->position[t] + 1 > context)
            context = f->position[t] + 1;
    }
    op_attention(f->pool, &a, run->base, run->page_bytes, f->queries, f->n, f->attention_scratch, context);
}
