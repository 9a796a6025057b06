/* A whole model in this process: one sequence table in front of a chain of stages. What `brigade run` uses without a
 * cluster, and what tests use to compare partitions. One owner thread; the pool computes. */
#ifndef BRIGADE_ENGINE_MODEL_LOCAL_H
#define BRIGADE_ENGINE_MODEL_LOCAL_H

#include "engine/model/sequence.h"
#include "engine/model/stage.h"

struct local;

#define LOCAL_STAGES_MAX 64u

struct local_options {
    uint32_t stages;           /* 0 counts as 1 */
    const uint32_t *split;     /* blocks of each stage, or NULL: as even as can be */
    enum kv_type kv;
    uint32_t kv_tokens;        /* positions in the cache; 0: max_context */
    uint32_t max_context;      /* longest sequence; 0: what the model was trained for */
    uint32_t max_tokens;       /* of one micro-batch; 0: 256 */
    uint32_t max_sequences;    /* 0: 64 */
    struct pool *pool;         /* borrowed; NULL: one thread */
    bool keep_mapped;
    int (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes); /* over all stages; may be NULL */
    void *progress_context;
};

/* One sequence's part of a step. */
struct local_span {
    struct span_update update;
    enum span_want want;
    int32_t next_token;        /* WANT_SCORES: the token after the span, or -1 */
};

/* Loads m (borrowed until local_close) over the stages asked for. Judges no memory limit: see local_memory_need. */
int local_open(const struct model *m, const struct local_options *o, struct local **out, struct error *err);
void local_close(struct local *l); /* NULL is fine */
/* Bytes that local_open would hold, summed over its stages (the sequence table's small ones not counted). */
int local_memory_need(const struct model *m, const struct local_options *o, struct stage_memory *out,
                      struct error *err);

/* One micro-batch through all stages: spans are applied to the table in order, computed, results[i] is what span i
 * wants. An error in a later span leaves earlier ones applied: release the sequences or truncate. */
int local_step(struct local *l, const struct local_span *spans, uint32_t count, struct span_result *results,
               struct error *err);

/* The easy way, for callers who schedule nothing: appends count tokens to a sequence (a new one at its first call),
 * pages and chunks chosen here, and gives what `want` says of the last of them. For WANT_SCORES, scores[count] is the
 * caller's (NULL otherwise): scores[i] is of the token after tokens[i], the last one of next_token (0 when -1).
 * Do not mix with local_step on one struct local: both would hand out pages. */
int local_feed(struct local *l, uint32_t sequence, const int32_t *tokens, uint32_t count, enum span_want want,
               int32_t next_token, const struct sampling *sampling, float *scores, struct span_result *result,
               struct error *err);
void local_release(struct local *l, uint32_t sequence);
/* Forgets positions from `length` on. */
int local_truncate(struct local *l, uint32_t sequence, uint32_t length);

uint32_t local_stages(const struct local *l);
struct stage *local_stage(struct local *l, uint32_t i);
struct sequence_table *local_sequences(struct local *l);
uint32_t local_kv_pages(const struct local *l);
uint32_t local_max_context(const struct local *l);

#endif
