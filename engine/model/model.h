/* A model as its file describes it: architecture, shapes, and which tensor serves which purpose. No weights are
 * touched: opening a 40 GB file is instant. Immutable after model_open; any thread. */
#ifndef BRIGADE_ENGINE_MODEL_MODEL_H
#define BRIGADE_ENGINE_MODEL_MODEL_H

#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"
#include "engine/kernels/ops.h"

struct model;

/* What the rest of the program wants to know; shapes in values. */
struct model_info {
    char architecture[32];
    char name[96];          /* general.name, or the file's name */
    uint32_t blocks;
    uint32_t width;         /* values of one token's activation: what travels between stages */
    uint32_t vocabulary;
    uint32_t context;       /* trained context length */
    uint32_t heads, kv_heads, k_dim, v_dim; /* of block 0; blocks may differ */
    uint32_t feed_forward;
    uint32_t experts, experts_used;
    bool tied_head;
    uint64_t parameters;
    uint64_t weight_bytes;  /* all tensors as stored */
    uint64_t fingerprint;   /* of metadata, tensor directory and sizes: equal files agree on it */
};

/* What one block costs, for the planner; bytes are as loaded by this level's kernels. */
struct block_cost {
    uint64_t weight_bytes;      /* resident */
    uint64_t read_bytes;        /* read for one decoded token (experts: only the chosen ones) */
    uint64_t flops_per_token;   /* 2 per weight used */
    uint64_t attention_flops;   /* per token and position of context */
    uint64_t kv_bytes_per_token;
    uint32_t kind;              /* blocks of equal shape, types and window share a kind, from 0 */
};

/* Opens a GGUF and resolves its architecture. Unknown architecture or tensor: one line naming it and the nearest
 * supported, before any weight is read. *out is the caller's: model_close. */
int model_open(const char *path, struct model **out, struct error *err);
/* As model_open, over an open file that model_close will close too (also on failure it stays the caller's). */
int model_from_gguf(struct gguf *g, struct model **out, struct error *err);
void model_close(struct model *m); /* NULL is fine */

const struct model_info *model_info(const struct model *m);
const struct gguf *model_gguf(const struct model *m);
struct block_cost model_block_cost(const struct model *m, uint32_t block, enum kv_type kv);
/* Embedding table and output head (final norm included); a tied head counts its bytes in both, since first and last
 * stage may be two machines. kv fields are 0. */
struct block_cost model_embedding_cost(const struct model *m);
struct block_cost model_head_cost(const struct model *m);


#endif
