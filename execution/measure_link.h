/* The link to another node, measured with echoes over the very sockets, sizes and pauses of the work: what a hop of one
 * token and of a chunk costs, in both directions. The thread that owns the link. */
#ifndef BRIGADE_EXECUTION_MEASURE_LINK_H
#define BRIGADE_EXECUTION_MEASURE_LINK_H

#include <stdint.h>

#include "base/error.h"
#include "proto/rehearsal.h"

struct link_measuring {
    struct link *const *links; /* [0] is measured; the others are only waited for too, as they will be */
    size_t link_count;
    struct rehearsal *rehearsal; /* of the thread's, with which it will wait for work; or NULL */
    size_t token_bytes;        /* of activations with one decoded token; 0: none */
    size_t chunk_bytes;        /* with a prompt chunk; 0: rates are not measured */
    uint32_t rounds;           /* small echoes, 1 to 256 */
    uint32_t pause_us;         /* that everyone sleeps before each way, at most FRAME_HOLD_US_MAX; 0: what a small model's stage
                                * waits for its turn */
    int64_t patience_ms;       /* longest wait for one answer */
    int64_t limit_ms;          /* after this the link is judged by what was measured so far */
};

struct link_times {
    double rtt_seconds;        /* of frames without activations */
    double hop_rtt_seconds;    /* twice what a hop with one token's activations takes beside its bytes */
    double bytes_per_s, back_bytes_per_s; /* towards the peer, from the peer; 0 when not measured */
};

/* The link must be up. ERR_TIMEOUT when an echo is not answered in time. *out untouched on failure. */
int measure_link(const struct link_measuring *o, struct link_times *out, struct error *err);

#endif
