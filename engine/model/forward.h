/* One forward pass: what is computed now (tokens, positions, pages) and the buffers it is computed in. Buffers are
 * planned when the stage is created; a pass allocates nothing. Private to engine/model/. The stage's thread; the pool
 * computes.
 *
 * Shapes: n tokens lie in rows; every buffer is rows × its own width, without gaps. */
#ifndef BRIGADE_ENGINE_MODEL_FORWARD_H
#define BRIGADE_ENGINE_MODEL_FORWARD_H

#include "engine/model/kv_cache.h"
#include "engine/model/rope.h"
#include "engine/model/weights.h"

#define HEAD_ROWS 32u /* logit rows computed at once */

struct forward {
    const struct model_shape *shape;
    struct pool *pool;
    uint32_t max_tokens, max_context;

    /* the micro-batch */
    uint32_t n;                     /* tokens */
    int32_t *tokens;                /* n: read by the embedding only */
    uint32_t *position;             /* of each token */
    const uint32_t **pages;         /* page table of each token's sequence */
    float *cosines[3], *sines[3];   /* by enum rope_use: n × half */

    /* n × width each, unless said otherwise */
    float *x;                       /* the residual stream: what travels between stages */
    float *h;                       /* normalised input of attention and of the feed-forward */
    float *y;                       /* what attention or the feed-forward gives back */
    float *q, *k, *v;               /* n × heads·k_dim, n × kv_heads·k_dim, n × kv_heads·v_dim as cached */
    float *o;                       /* n × heads·v_dim: what attention reads out of the cache */
    float *latent[4];               /* latent attention: see latent.c */
    float *gate, *up;               /* n × feed_forward (or an expert's, or a shared expert's) */
    float *router;                  /* n × experts: logits, then probabilities */
    float *expert_out;              /* max(n, experts_used) × width: outputs of one expert, or of one token's */
    struct chosen *chosen;          /* n × experts_used */
    uint32_t *rows_of;              /* n × experts_used: rows, expert after expert */
    float *weight_of;               /* their weights */
    float *shared_gate;             /* n */
    struct linear_job *jobs;        /* 2·experts_used + 2 */
    void *activations[3];           /* 8-bit forms: [0] of h, [1] of what follows, [2] of the tokens of one expert */
    struct attention_query *queries;
    void *attention_scratch;
    float *logits;                  /* HEAD_ROWS × vocabulary; only in the last stage */
    void *sampler_scratch;
    float *scores;                  /* max_tokens */
    struct head_output *outputs;    /* max_tokens */
    uint32_t *kept;                 /* max_tokens: rows that somebody wants */

    void *memory;                   /* all of the above */
    size_t memory_bytes;
};

/* An expert of a token. */
struct chosen {
    uint16_t expert;
    float weight;
};

/* One position whose logits are wanted. */
struct head_output {
    uint32_t row;         /* of x, among the rows that were kept */
    uint32_t at;          /* its token in the micro-batch */
    uint32_t span, index; /* which span, and which of its positions */
};

/* Bytes the buffers of a stage with these blocks take; exact. */
size_t forward_bytes(const struct model_shape *s, uint32_t first_block, uint32_t last_block, uint32_t max_tokens,
                     uint32_t max_context, bool head, int threads);
int forward_create(const struct model_shape *s, uint32_t first_block, uint32_t last_block, uint32_t max_tokens,
                   uint32_t max_context, bool head, struct pool *pool, struct forward *out, struct error *err);
void forward_free(struct forward *f);

/* Cosines and sines of the n positions, for each kind of rotation the model uses. */
void forward_rotations(struct forward *f, const struct rope ropes[3]);
/* Keeps only the listed rows (rising) of everything that is still needed: nobody wants the others' outputs. */
void forward_keep(struct forward *f, const uint32_t *rows, uint32_t count, uint32_t q_width);

/* ---- The recipe: each step is rows to rows ---------------------------------------------------------------------- */

/* x ← x + attention(norm(x)); x ← x + feed_forward(norm(x)). keep: see forward_keep; NULL keeps all. */
void block_forward(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv,
                   const uint32_t *keep, uint32_t keep_count);
/* q, k, v of h, rotated; k and v go to the cache. */
void attention_project(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv);
/* y ← what the queries read out of the cache, through the output matrix. */
void attention_read(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv);
/* The same two for latent attention. */
void latent_project(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv);
void latent_read(struct forward *f, const struct block_weights *w, uint32_t block, const struct kv_cache *kv);
/* Both use: store k and v of every row; attend with q into o. */
void attention_store(struct forward *f, const struct kv_shape *shape, const struct kv_cache *kv, uint32_t block);
void attention_attend(struct forward *f, const struct block_weights *w, const struct kv_shape *shape,
                      const struct kv_cache *kv, uint32_t block);
/* y ← feed-forward of h. */
void feed_forward(struct forward *f, const struct block_weights *w, uint32_t block);
void experts_forward(struct forward *f, const struct block_weights *w, uint32_t block);
/* gate ← activation(gate) · up over `count` values; without a gate, up alone is activated into gate. */
void activate(struct forward *f, bool gated, float *gate, float *up, size_t count);
/* out ← norm of in, by the architecture's kind; weight NULL copies. Rows × cols. */
void normalise(struct forward *f, const float *in, uint32_t rows, uint32_t cols, const float *weight,
               const float *bias, float *out);

/* x ← embeddings of the tokens, with learned positions where the model has them. */
void embed(struct forward *f, const struct embedding_weights *w);
/* logits[i] ← head of row outputs[i].row of x, for i < count ≤ HEAD_ROWS. */
void head_logits(struct forward *f, const struct head_weights *w, const struct head_output *outputs, uint32_t count);

#endif
