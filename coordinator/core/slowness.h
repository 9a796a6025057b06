/* Slow, not gone: a worker that answers its heartbeats while its stage takes far longer than planned. It is said, and
 * shown wherever nodes are; nothing else follows from it: what is done about it is the rebalancing's affair. */
#ifndef BRIGADE_COORDINATOR_CORE_SLOWNESS_H
#define BRIGADE_COORDINATOR_CORE_SLOWNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/runner.h"

struct slowness { /* of one stage, as of a moment */
    double expected_seconds;  /* what the plan expects of micro-batches like those seen; 0: it does not say */
    double seconds;           /* what they typically took lately (decode_typical); 0: it is not known */
    uint32_t seen;            /* how many came */
    double busy_seconds;      /* since it began the micro-batch it is at; 0: it is at none */
    double longest_seconds;   /* what the plan expects of the largest micro-batch under way */
};

enum slowness_verdict { SLOWNESS_NO, SLOWNESS_YES, SLOWNESS_UNKNOWN };

/* Stage `stage` of `count`. Over three times its plan, also beside the stage that is least over its own (if all are, it
 * is the plan that is wrong); or at one micro-batch for longer than 0.3 s and three times the largest that is under way.
 * UNKNOWN: too little was seen, or it lies between slow and well. Pure. */
enum slowness_verdict slowness_judge(const struct slowness *stages, uint32_t count, uint32_t stage);

struct runner;
/* Looks at all stages that run, now and then. Runner's thread. */
void slowness_look(struct runner *r, int64_t now_us);

#endif
