/* The numbers of a model, read from its metadata and checked against sane bounds: nothing here can make a later
 * product overflow or a loop run away. Private to engine/model/. Immutable after shape_read; any thread. */
#ifndef BRIGADE_ENGINE_MODEL_SHAPE_H
#define BRIGADE_ENGINE_MODEL_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"
#include "engine/kernels/ops.h"
#include "engine/model/architecture.h"

/* Bounds on what a file may claim. */
#define BLOCKS_MAX 1024u
#define WIDTH_MAX (1u << 17)
#define HEADS_MAX 1024u
#define HEAD_DIM_MAX 4096u
#define FEED_FORWARD_MAX (1u << 20)
#define VOCABULARY_MAX (1u << 22)
#define CONTEXT_MAX (1u << 28)
#define EXPERTS_MAX 1024u
#define EXPERTS_USED_MAX 64u

enum rope_scaling { SCALING_NONE, SCALING_LINEAR, SCALING_YARN, SCALING_LONGROPE };

struct rope_shape {
    double base, local_base;
    enum rope_scaling scaling;
    double factor;                /* positions are divided by it (linear), or context was stretched by it (YaRN) */
    uint32_t original_context;    /* before stretching */
    double attention_factor;      /* magnitude of the rotated vectors, from metadata; 1 when absent */
    double beta_fast, beta_slow, extrapolation; /* YaRN's ramp */
    double log_multiplier;        /* DeepSeek's yarn_log_multiplier */
};

enum rope_use { ROPE_NOT, ROPE_GLOBAL, ROPE_LOCAL };

struct block_shape {
    uint32_t heads, kv_heads;
    uint32_t feed_forward;    /* dense; 0 for a mixture */
    uint32_t window;          /* positions seen, 0: all */
    uint8_t rope;             /* enum rope_use */
    bool mixture;             /* experts instead of a dense feed-forward */
    bool absorbed;            /* latent attention over the latent itself (one kv head) */
};

struct model_shape {
    const struct architecture *arch;
    uint32_t blocks, width, vocabulary, context;
    uint32_t extra_blocks;    /* after `blocks` in the file: multi-token prediction, which nobody computes here */
    uint32_t k_dim, v_dim;    /* of one head, as attention's paper means it */
    uint32_t rotary;          /* dims of a head that turn */
    uint32_t q_rank, kv_rank; /* latent attention; 0 */
    uint32_t experts, experts_used, feed_forward_expert, feed_forward_shared;
    uint32_t groups, groups_used; /* of experts; 1 when not grouped */
    enum gating gating;
    bool normalise_experts;
    float expert_scale;
    float eps;
    float embedding_scale, residual_scale; /* 1: none */
    float logit_scale;        /* logits are multiplied by it; 1: none */
    float attention_scale;    /* of scores */
    float attention_softcap, final_softcap; /* 0: none */
    bool rope_off;            /* rope_switch families: metadata turned rotation off */
    struct rope_shape rope;
    struct block_shape block[BLOCKS_MAX];
};

/* Reads and checks everything that metadata says. The vocabulary comes from the embedding's shape. Windows' rope
 * use and mixtures are settled; `absorbed` is settled by tensors_resolve. */
int shape_read(const struct gguf *g, struct model_shape *out, struct error *err);

/* The value of a symbolic size in block b (globals: b = 0). Never overflows within the bounds above. */
uint64_t shape_size(const struct model_shape *s, uint32_t b, enum dim dim);

/* What attention caches for block b. */
struct kv_shape shape_kv(const struct model_shape *s, uint32_t b, enum kv_type type);

#endif
