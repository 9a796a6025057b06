/* A pipe of stages, wherever they are: micro-batches go in, results come out in the same order.
 *
 * Two kinds: stages in this process behind a thread of their own (pipeline_local.h), and stages on workers behind two
 * encrypted links (pipeline_remote.h). The caller bounds how many micro-batches are under way. Called by the loop's
 * thread only. */
#ifndef BRIGADE_COORDINATOR_CORE_PIPELINE_H
#define BRIGADE_COORDINATOR_CORE_PIPELINE_H

#include "base/error.h"
#include "proto/frame.h"

struct pipeline;

/* A result and what keeps it alive. */
struct pipeline_result {
    struct frame_result result;
    void *memory;
};

struct pipeline_kind {
    int (*submit)(struct pipeline *p, const struct frame_work *work, struct error *err);
    int (*poll)(struct pipeline *p, struct pipeline_result *out, struct error *err);
    void (*release)(struct pipeline *p, struct pipeline_result *result);
    void (*destroy)(struct pipeline *p);
};

struct pipeline { /* first member of each kind */
    const struct pipeline_kind *kind;
};

/* Hands a micro-batch over; everything it points to is copied. It is delivered or the pipe fails: a peer that is slow
 * to take it makes it wait here. */
static inline int pipeline_submit(struct pipeline *p, const struct frame_work *work, struct error *err)
{
    return p->kind->submit(p, work, err);
}

/* 1 and a result (pipeline_release it), 0 when none is there, negative when the pipe is broken. */
static inline int pipeline_poll(struct pipeline *p, struct pipeline_result *out, struct error *err)
{
    return p->kind->poll(p, out, err);
}

static inline void pipeline_release(struct pipeline *p, struct pipeline_result *result)
{
    p->kind->release(p, result);
}

/* Drops what is under way. NULL is fine. */
static inline void pipeline_destroy(struct pipeline *p)
{
    if (p)
        p->kind->destroy(p);
}

#endif
