/* What schedule.c and schedule_build.c share: the state behind `struct scheduler`. Nobody else includes this. */
#ifndef BRIGADE_COORDINATOR_CORE_SCHEDULE_STATE_H
#define BRIGADE_COORDINATOR_CORE_SCHEDULE_STATE_H

#include "coordinator/core/prefix.h"
#include "coordinator/core/schedule.h"
#include "engine/model/stage.h"

/* An admitted request: one sequence on the stages. */
struct running {
    uint32_t sequence;
    struct request *request;
    bool started;           /* its first span was handed over */
    uint32_t submitted;     /* positions handed to the pipe, or held by the pages it started on */
    uint32_t computed;      /* positions whose result is back */
    uint32_t under_way;     /* spans handed over whose result is not back */
    bool waits_for_token;   /* the last of them will bring one */
    uint32_t *pages;
    uint32_t page_count, page_limit, pages_sent;
    uint64_t hash;          /* of the submitted tokens */
};

struct sent_span {
    uint32_t sequence, first, count, want;
};

struct sent_batch {
    uint64_t id;
    int64_t built_us;
    uint32_t span_count, decodes;
    struct sent_span *spans;
};

struct scheduler {
    struct scheduler_options o;
    struct prefix_cache *pages;
    uint32_t promised;      /* pages that running sequences may yet take */
    struct request **queue; /* in order of arrival */
    uint32_t queued;
    struct running *running; /* in order of admission */
    uint32_t running_count;
    struct sent_batch *sent; /* in order of sending */
    uint32_t sent_count;
    uint32_t next_sequence, turn;
    uint64_t next_batch;
    uint32_t *release;       /* sequences to name in the next micro-batch; at most `sequences` can end between two */
    uint32_t *released;      /* those named in the last one, for whoever is still reading it */
    uint32_t release_count;
    struct frame_span *spans; /* of the micro-batch being built */
    struct frame_sampling *sampling;
    struct frame_bias *bias;
    uint32_t bias_capacity;
    uint64_t tokens_shared, tokens_in, tokens_out, done, failed, cancelled;
};

/* Positions this sequence has yet to hand over; 0 while it waits for a token. */
uint32_t running_positions_left(const struct running *run);

#endif
