/* The buffers of a forward pass: planned once, in one piece of memory. Owns them. The stage's thread. */
#include "engine/model/forward.h"

#include <string.h>

#include "base/memory.h"

/* Hands out 64-byte aligned pieces; with no base it only counts. */
struct plan {
    char *base;
    size_t at;
};

static void *take(struct plan *p, size_t count, size_t each)
{
    void *piece = p->base ? p->base + p->at : NULL;
    p->at += (count * each + 63) / 64 * 64;
    return piece;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The largest of each size over the stage's blocks. */
struct widest {
    size_t q, k, v, o, ff, latent_q, latent_out, kv_b, scratch;
};

static void find_widest(const struct model_shape *s, uint32_t first, uint32_t last, uint32_t max_context, int threads,
                        struct widest *w)
{
    memset(w, 0, sizeof *w);
    for (uint32_t b = first; b <= last; b++) {
        const struct block_shape *k = &s->block[b];
        /* Scratch does not depend on the cache's element type more than on F32, the widest. */
        struct attention_shape a = {.kv = shape_kv(s, b, KV_F32), .heads = k->heads, .window = k->window};
        w->q = max_size(w->q, (size_t)k->heads * a.kv.k_dim);
        w->k = max_size(w->k, (size_t)a.kv.kv_heads * a.kv.k_dim);
        w->v = max_size(w->v, (size_t)a.kv.kv_heads * a.kv.v_dim);
        w->o = max_size(w->o, (size_t)k->heads * a.kv.v_dim);
        w->ff = max_size(w->ff, k->mixture ? 0 : k->feed_forward);
        if (s->arch->latent) {
            w->latent_q = max_size(w->latent_q, (size_t)k->heads * s->k_dim);
            w->latent_out = max_size(w->latent_out, k->absorbed ? (size_t)k->heads * s->v_dim : 0);
            w->kv_b = max_size(w->kv_b, k->absorbed ? 0 : (size_t)shape_size(s, b, DIM_KV_B));
        }
        for (enum kv_type type = KV_F16; type <= KV_F32; type++) {
            a.kv.type = type;
            w->scratch = max_size(w->scratch, attention_scratch_bytes(&a, threads, max_context));
        }
    }
}

static void lay_out(struct forward *f, struct plan *p, const struct model_shape *s, uint32_t first, uint32_t last,
                    uint32_t n, uint32_t max_context, bool head, int threads)
{
    struct widest w;
    find_widest(s, first, last, max_context, threads, &w);
    bool mixture = false;
    for (uint32_t b = first; b <= last; b++)
        mixture = mixture || s->block[b].mixture;
    size_t F = sizeof(float), used = mixture ? s->experts_used : 0;
    size_t rows = max_size(n, used); /* an expert sees at most n rows; one token's experts are `used` rows */
    size_t ff =
        max_size(n * w.ff, mixture ? max_size(rows * s->feed_forward_expert, n * (size_t)s->feed_forward_shared) : 0);

    f->tokens = take(p, n, sizeof *f->tokens);
    f->position = take(p, n, sizeof *f->position);
    f->pages = take(p, n, sizeof *f->pages);
    for (int use = ROPE_GLOBAL; use <= ROPE_LOCAL; use++) {
        f->cosines[use] = take(p, (size_t)n * (s->rotary / 2), F);
        f->sines[use] = take(p, (size_t)n * (s->rotary / 2), F);
    }
    f->x = take(p, (size_t)n * s->width, F);
    f->h = take(p, (size_t)n * s->width, F);
    f->y = take(p, (size_t)n * s->width, F);
    f->q = take(p, n * w.q, F);
    f->k = take(p, n * w.k, F);
    f->v = take(p, n * w.v, F);
    f->o = take(p, n * w.o, F);
    if (s->arch->latent) {
        f->latent[0] = take(p, (size_t)n * s->q_rank, F);
        f->latent[1] = take(p, n * w.latent_q, F);
        f->latent[2] = take(p, (size_t)n * (s->kv_rank + s->rotary), F);
        f->latent[3] = take(p, n * max_size(w.kv_b, w.latent_out), F);
    }
    f->gate = take(p, ff, F);
    f->up = take(p, ff, F);
    if (mixture) {
        f->router = take(p, (size_t)n * s->experts, F);
        f->expert_out = take(p, rows * s->width, F);
        f->chosen = take(p, n * used, sizeof *f->chosen);
        f->rows_of = take(p, n * used, sizeof *f->rows_of);
        f->weight_of = take(p, n * used, F);
        f->shared_gate = take(p, n, F);
    }
    f->jobs = take(p, 2 * used + 4, sizeof *f->jobs);

    size_t bytes = max_size(activations_bytes(n, s->width), 64);
    f->activations[0] = take(p, bytes, 1);
    bytes = activations_bytes(n, (uint32_t)max_size(w.o, w.latent_out));
    if (w.ff)
        bytes = max_size(bytes, activations_bytes(n, (uint32_t)w.ff));
    if (mixture)
        bytes = max_size(bytes, activations_bytes((uint32_t)rows, s->feed_forward_expert));
    if (mixture && s->feed_forward_shared)
        bytes = max_size(bytes, activations_bytes(n, s->feed_forward_shared));
    if (s->arch->latent) {
        bytes = max_size(bytes, activations_bytes(n, s->kv_rank));
        bytes = max_size(bytes, s->q_rank ? activations_bytes(n, s->q_rank) : 0);
        bytes = max_size(bytes, activations_bytes(n, s->k_dim));
    }
    f->activations[1] = take(p, bytes, 1);
    f->activations[2] = take(p, mixture ? activations_bytes(n, s->width) : 0, 1);
    f->queries = take(p, n, sizeof *f->queries);
    f->attention_scratch = take(p, w.scratch, 1);
    if (head) {
        f->logits = take(p, (size_t)(n < HEAD_ROWS ? n : HEAD_ROWS) * s->vocabulary, F);
        f->sampler_scratch = take(p, s->vocabulary, 8);
        f->scores = take(p, n, F);
        f->outputs = take(p, n, sizeof *f->outputs);
        f->kept = take(p, n, sizeof *f->kept);
    }
}

size_t forward_bytes(const struct model_shape *s, uint32_t first_block, uint32_t last_block, uint32_t max_tokens,
                     uint32_t max_context, bool head, int threads)
{
    struct forward f = {0};
    struct plan p = {0};
    lay_out(&f, &p, s, first_block, last_block, max_tokens, max_context, head, threads);
    return p.at;
}

int forward_create(const struct model_shape *s, uint32_t first_block, uint32_t last_block, uint32_t max_tokens,
                   uint32_t max_context, bool head, struct pool *pool, struct forward *out, struct error *err)
{
    int threads = pool_threads(pool);
    struct forward f = {.shape = s, .pool = pool, .max_tokens = max_tokens, .max_context = max_context};
    struct plan p = {0};
    f.memory_bytes = forward_bytes(s, first_block, last_block, max_tokens, max_context, head, threads);
    f.memory = mem_map(f.memory_bytes);
    if (!f.memory)
        return error_set(err, ERR_NOMEM, "no memory for %zu bytes of buffers; ask for a smaller micro-batch or context",
                         f.memory_bytes);
    p.base = f.memory;
    lay_out(&f, &p, s, first_block, last_block, max_tokens, max_context, head, threads);
    *out = f;
    return 0;
}

void forward_free(struct forward *f)
{
    mem_unmap(f->memory, f->memory_bytes);
    memset(f, 0, sizeof *f);
}

void forward_rotations(struct forward *f, const struct rope ropes[3])
{
    for (int use = ROPE_GLOBAL; use <= ROPE_LOCAL; use++) {
        const struct rope *r = &ropes[use];
        if (!r->inverse_frequency)
            continue;
        for (uint32_t t = 0; t < f->n; t++) {
            size_t at = (size_t)t * r->half;
            rope_angles(f->position[t], r->inverse_frequency, r->half, r->magnitude, f->cosines[use] + at,
                        f->sines[use] + at);
        }
    }
}

void forward_keep(struct forward *f, const uint32_t *rows, uint32_t count, uint32_t q_width)
{
    size_t width = f->shape->width;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t from = rows[i];
        if (from == i)
            continue;
        memcpy(f->x + i * width, f->x + from * width, width * sizeof *f->x);
        memcpy(f->h + i * width, f->h + from * width, width * sizeof *f->h);
        memcpy(f->q + (size_t)i * q_width, f->q + (size_t)from * q_width, q_width * sizeof *f->q);
        f->position[i] = f->position[from];
        f->pages[i] = f->pages[from];
    }
    f->n = count;
}
