/* Lower bounds on what is still to be paid, by relaxation. Internal to planner/.
 *
 * A plan is a path through states (blocks done, device last used). Dropping the rule "a device holds at most one stage"
 * leaves a shortest path over blocks x types, found backward with sliding minima in O(blocks x types^2). A price lambda
 * for each use of a type, tuned by subgradient steps, brings back most of what was dropped (the state-space relaxation
 * of Christofides, Mingozzi and Toth, 1981, with Held and Karp's multipliers). Every price gives a valid bound:
 *   cost so far + sum of lambda over devices used + to_go - constant <= cost of every completion.
 *
 * With two modes the path is a chain of critical-path pieces of a chunked prefill: at `before` cost until one stage or
 * link, the bottleneck with work in [least, most], then at `after` cost. */
#ifndef BRIGADE_PLANNER_BOUND_H
#define BRIGADE_PLANNER_BOUND_H

#include "planner/space.h"

struct relaxation {
    const struct space *space;
    const struct limits *limits;
    const struct layer *after;      /* of middle stages */
    const struct layer *after_last; /* of the last stage */
    const ticks *after_hop;         /* [types][types], with the lag */
    /* Two modes only; before is NULL for one. */
    const struct layer *before;
    const struct layer *work;  /* what the bottleneck costs on the chain */
    const struct layer *total; /* what must be at least limits->least to be one */
    const ticks *before_hop;
    const ticks *cross_hop; /* through a bottleneck link, TICKS_NEVER where the link is none */
    int depths;             /* 1, or space->stages + 1: the tables are by stages still to come */
};

struct bound {
    int modes, depths;
    ticks *to_go; /* [depths][modes][blocks + 1][types]: mode 0 is `after`, 1 `before` */
    ticks lambda[PLAN_MAX_DEVICES];
    ticks constant; /* sum of lambda x size */
    ticks root;     /* on every whole plan; TICKS_NEVER or more: there is none */
    void *scratch;
};

int bound_new(struct bound *b, const struct relaxation *r); /* 0 or ERR_NOMEM; lambda 0 */
void bound_free(struct bound *b);

/* Fills the tables for the present lambda. */
void bound_run(struct bound *b, const struct relaxation *r);
/* Sets lambda to the prices of a simpler problem that tight memory (or a tight limit) makes like this one: cover the
 * blocks at least cost by devices of limited room, each at most once; its dual is the price of a block. */
void bound_start(struct bound *b, const struct relaxation *r);
/* Tunes lambda by at most `steps` runs, until the root reaches `goal` (a known plan's cost, or a guess); leaves the
 * tables of the best lambda. */
void bound_tune(struct bound *b, const struct relaxation *r, ticks goal, int steps);

static inline ticks bound_to_go(const struct bound *b, const struct space *s, int depth_left, int mode, int j, int type)
{
    size_t layer = (size_t)(b->depths > 1 ? depth_left : 0) * (size_t)b->modes + (size_t)mode;
    return b->to_go[(layer * (size_t)(s->blocks + 1) + (size_t)j) * (size_t)s->types + (size_t)type];
}

#endif
