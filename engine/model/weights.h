/* Weights in memory, as the kernels want them: matrices by purpose, small vectors as floats. A fused tensor is split
 * into its parts at load, so that the recipe knows one form only. Private to engine/model/. Immutable once loaded. */
#ifndef BRIGADE_ENGINE_MODEL_WEIGHTS_H
#define BRIGADE_ENGINE_MODEL_WEIGHTS_H

#include "engine/model/model_internal.h"

/* One block. matrix[s].rows is 0 and the pointers are NULL for what the model does not have. FFN_NORM_AFTER_ATTN is
 * kept as FFN_NORM; ATTN_QKV and FFN_GATE_UP never appear. */
struct block_weights {
    struct matrix matrix[SLOTS];
    struct matrix *stack[SLOTS];  /* one matrix an expert or head */
    uint32_t stack_count[SLOTS];
    float *vector[SLOTS];         /* SLOT_VECTORS: rows one after another */
    bool whole;                   /* all of it was loaded */
};

struct embedding_weights {
    struct matrix tokens;    /* vocabulary × width */
    struct matrix positions; /* context × width; rows 0 when positions are rotations */
    bool whole;
};

struct head_weights {
    struct matrix output;    /* vocabulary × width; rows 0 when it borrows the embedding's */
    const struct matrix *use; /* the matrix to multiply by */
    float *norm, *norm_bias, *bias;
    bool whole;
};

/* How loading reports and how much it has done. */
struct weights_load {
    struct pool *pool;
    bool keep_mapped;
    int (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
    int (*await_tensor)(void *context, const struct gguf_tensor *t, struct error *err); /* as in stage_options */
    void *await_context;
    uint64_t done, total; /* bytes of tensors */
};

/* Each fills *out (zeroed by the caller) and on failure leaves what weights_*_free can free. */
int weights_load_block(const struct model *m, uint32_t block, struct weights_load *l, struct block_weights *out,
                       struct error *err);
int weights_load_embedding(const struct model *m, struct weights_load *l, struct embedding_weights *out,
                           struct error *err);
/* tied: the embedding in this process, to share when the model's head is tied; NULL to load a copy. */
int weights_load_head(const struct model *m, struct weights_load *l, const struct matrix *tied,
                      struct head_weights *out, struct error *err);
void weights_free_block(struct block_weights *w);
void weights_free_embedding(struct embedding_weights *w);
void weights_free_head(struct head_weights *w);

/* Waits until the tensor's bytes may be read; t may be NULL. */
int weights_await(const struct weights_load *l, const struct gguf_tensor *t, struct error *err);
/* A vector tensor as floats, for the caller to mem_free. */
int weights_load_vector(const struct model *m, const struct gguf_tensor *t, float **out, struct error *err);

/* Bytes that loading will own. shares_embedding: the tied head lies in the same process as the embedding. */
uint64_t weights_block_bytes(const struct model *m, uint32_t block);
uint64_t weights_embedding_bytes(const struct model *m);
uint64_t weights_head_bytes(const struct model *m, bool shares_embedding);
uint64_t weights_head_vector_bytes(const struct model *m); /* of that, norm and biases */
/* Bytes of the tensors themselves, for progress. */
uint64_t weights_block_source_bytes(const struct model *m, uint32_t block);
uint64_t weights_embedding_source_bytes(const struct model *m);

#endif
