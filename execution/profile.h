/* The device profile: how long blocks of each kind, the head and a micro-batch's bookkeeping take here, over a grid of
 * batch sizes, chunks and contexts, so that the planner predicts with measurements. The worker measures stages it loads
 * for that; the coordinator's pipe in process measures the stages it serves with. The thread that owns the stages.
 *
 * Decoding is measured in passes through a run of blocks, as large as the caches are small, with a pause between passes
 * as a stage in a pipe has one; prefill, which computes rather than reads, one block at a time. */
#ifndef BRIGADE_EXECUTION_PROFILE_H
#define BRIGADE_EXECUTION_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/model/stage.h"
#include "proto/frame.h"

#define PROFILE_KINDS_MAX 64u

enum { PROFILE_BATCHES = 5, PROFILE_CONTEXTS = 3, PROFILE_CHUNKS = 3, PROFILE_PASTS = 2 };

struct profile_grid {
    uint32_t batches[PROFILE_BATCHES], batch_count;
    uint32_t contexts[PROFILE_CONTEXTS], context_count;
    uint32_t chunks[PROFILE_CHUNKS], chunk_count;
    uint32_t pasts[PROFILE_PASTS], past_count;
    uint32_t rows;    /* most tokens of one pass */
    uint32_t longest; /* most positions of a sequence */
};

/* context, chunk: what will be served (0: 1024 and 256); rows, positions: what a stage at hand can take (0: any). */
void profile_grid_plan(const struct model_info *info, uint32_t context, uint32_t chunk, uint32_t rows,
                       uint32_t positions, struct profile_grid *out);

struct profiling {
    const struct model *model;
    enum kv_type kv;
    struct pool *pool;
    struct profile_grid grid;
    double slowdown;                                                /* the worker's throttle; 1 */
    int64_t deadline_ms;                                            /* by clock_ms: after it, what can be left out is */
    void (*progress)(void *context, uint64_t done, uint64_t total); /* may be NULL */
    void *context;
    /* so far */
    bool measured[PROFILE_KINDS_MAX];
    uint32_t kinds; /* of the model; set by profile_begin */
    uint64_t done, total;
    double rest_seconds;
    struct control_message *out; /* a Profile: cells and times go here */
};

/* Prepares *out (CONTROL_PROFILE, the caller's: control_free) and counts. ERR_BOUND, ERR_NOMEM. */
int profile_begin(struct profiling *p, struct error *err);
/* A kind that is not measured yet, and the run of blocks to measure it in: it ends with the last block of that kind,
 * and with `avoid` (a block, or UINT32_MAX) only when there is no other. False when nothing is left. */
bool profile_next_run(const struct profiling *p, uint32_t low, uint32_t high, uint32_t avoid, uint32_t *first,
                      uint32_t *last);
/* Measures what is new among the kinds of blocks first..last of a stage; and the head, if the stage has it. */
int profile_run(struct profiling *p, struct stage *s, uint32_t first, uint32_t last, struct error *err);
/* Read bandwidth, int8 peak, overhead, and what is reckoned from them. */
int profile_end(struct profiling *p, uint64_t spare_bytes, struct error *err);

/* profile_overhead.c: seconds that a micro-batch of one token takes beside computing: its frame taken apart, its
 * sequence found and proven, the pool woken, the next frame put together. Negative error. */
double profile_overhead(struct pool *pool, uint32_t width, double slowdown);

#endif
