/* A stage: one contiguous range of a model's blocks with the embedding if it holds block 0 and the final norm, head
 * and sampler if it holds the last; its weights, its KV pages, its buffers. One owner thread; the pool computes. */
#ifndef BRIGADE_ENGINE_MODEL_STAGE_H
#define BRIGADE_ENGINE_MODEL_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/kernels/ops.h"
#include "engine/model/model.h"
#include "engine/model/sampler.h"
#include "engine/threads.h"

struct stage;
struct shelf;

struct stage_options {
    uint32_t first_block, last_block; /* inclusive */
    enum kv_type kv;
    uint32_t kv_pages;
    uint32_t max_tokens;       /* of one micro-batch */
    uint32_t max_context;      /* longest sequence */
    struct pool *pool;         /* borrowed; NULL: one thread */
    bool keep_mapped;          /* borrow float weights from the file's map instead of copying them */
    /* Called now and then while loading; returning non-zero stops with ERR_CANCELLED. May be NULL. */
    int (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_context;
    /* Weights in hand (shelf.h): taken from there instead of read; after a failure what was read so far lies there. May
     * be NULL. Borrowed during stage_create only. */
    struct shelf *shelf;
    uint64_t *read_bytes;      /* how many bytes of tensors were read; may be NULL */
    /* Called before a tensor's bytes are read, for files that are still being filled: 0 when they are there, an error
     * to give up. Tensors come in the order of model_slice. May be NULL. */
    int (*await_tensor)(void *context, const struct gguf_tensor *t, struct error *err);
    void *await_context;
};

/* What a stage will hold, in bytes: the admission arithmetic, exact up to the allocator's rounding. */
struct stage_memory {
    uint64_t weights;    /* blocks */
    uint64_t embedding;
    uint64_t head;
    uint64_t kv;
    uint64_t buffers;
    uint64_t total;
};
void stage_memory_need(const struct model *m, const struct stage_options *o, struct stage_memory *out);

/* Loads the range. Does not judge whether it fits: the caller has compared stage_memory_need with its limit. */
int stage_create(const struct model *m, const struct stage_options *o, struct stage **out, struct error *err);
void stage_destroy(struct stage *s); /* NULL is fine */
const struct stage_options *stage_options(const struct stage *s);
void stage_memory_used(const struct stage *s, struct stage_memory *out);

enum span_want {
    WANT_NOTHING,  /* a prefill chunk that is not the last */
    WANT_TOKEN,    /* sample the token after the span's last position */
    WANT_LOGITS,   /* raw logits at the last position, nothing sampled */
    WANT_SCORES,   /* negative log-likelihood of the following token at every position of the span */
};

/* One sequence's part of a micro-batch: positions [first, first+count). */
struct batch_span {
    uint32_t first, count;
    const int32_t *tokens;      /* the sequence's tokens from position 0 to first+count-1 (all of them) */
    const uint32_t *pages;      /* its page table, covering first+count positions */
    enum span_want want;
    int32_t next_token;         /* WANT_SCORES: the token after the span, or -1 when there is none */
    const struct sampling *sampling; /* WANT_TOKEN */
};

/* What the last stage made of a span. Pointers go into the stage's buffers: valid until its next call. */
struct span_result {
    struct sampled sampled;     /* WANT_TOKEN */
    const float *logits;        /* WANT_LOGITS: vocabulary floats */
    const float *scores;        /* WANT_SCORES: count floats (count-1 meaningful when next_token is -1; the last 0) */
};

/* Runs a micro-batch through the stage's blocks. `in`: tokens·width floats in span order (ignored by a stage with the
 * embedding). `out`: the same shape, for the next stage (NULL for the last stage). results[span_count]: last stage
 * only. Sum of counts ≤ max_tokens. Token ids out of range, pages out of range: ERR_FORMAT, nothing computed. */
int stage_forward(struct stage *s, const struct batch_span *spans, uint32_t span_count, const float *in, float *out,
                  struct span_result *results, struct error *err);

/* The same through blocks [first_block, end_block) of the stage only: `in` is the input of first_block (ignored for block
 * 0), `out` (may be NULL unless the stage's last block is among them and has no head) what leaves the last one. */
int stage_forward_blocks(struct stage *s, uint32_t first_block, uint32_t end_block, const struct batch_span *spans,
                         uint32_t span_count, const float *in, float *out, struct span_result *results,
                         struct error *err);

/* Copies the first `count` positions of page src to page dst, in all blocks of the stage. */
int stage_copy_page(struct stage *s, uint32_t src, uint32_t dst, uint32_t count);
/* Puts another stage's page of a block (leaving.h) in its place here. ERR_FORMAT: the block or page is none of ours, or of
 * another size. */
int stage_put_page(struct stage *s, uint32_t block, uint32_t page, const void *bytes, size_t size);

/* For the device profile: passes through blocks first_block..last_block of this stage on made-up activations, `tokens`
 * new positions after `past` positions in each of `sequences` sequences. */
struct stage_probe {
    uint32_t first_block, last_block, sequences, tokens, past;
    bool ends;      /* embedding, head and sampler (of one token a sequence) take part, where the stage has them */
    bool warm;      /* no pass beforehand that is not counted */
    bool fastest;   /* the fastest pass counts, instead of what is usual */
    int repeat;     /* passes, 1 to 64 */
    void (*between)(void *context, double seconds); /* after each pass, which took so long; may be NULL */
    void *context;
};

/* Seconds of one pass, by sample_usual or of the fastest. */
struct stage_times {
    double *blocks; /* the caller's, one for each block of the run */
    double embedding, head; /* 0 where there is none */
    double rest;    /* rotations, and moving activations in and out */
};

/* Leaves KV contents undefined: call before serving. ERR_BOUND when it does not fit the stage's options, ERR_NOMEM,
 * ERR_FORMAT as sampler_pick. */
int stage_probe(struct stage *s, const struct stage_probe *o, struct stage_times *out);

#endif
