/* Why a plan is what it is: what limits it, what the next-best plan costs, whether one node alone would do, which
 * devices were left out and why, and what more memory or a faster link would change. Pure; every figure comes from
 * solving or evaluating a changed problem, none from a rule of thumb. */
#ifndef BRIGADE_PLANNER_EXPLAIN_H
#define BRIGADE_PLANNER_EXPLAIN_H

#include "base/buffer.h"
#include "planner/plan.h"

enum plan_absence {
    PLAN_ABSENT_MEMORY, /* not one block fits beside its buffers and cache */
    PLAN_ABSENT_SLOWER, /* its best place in this plan makes it worse by delta_s */
    PLAN_ABSENT_NO_PLACE, /* it holds blocks, but none of its places in this plan satisfies memory or constraints */
    PLAN_ABSENT_EVEN,   /* it could join at no cost; fewer stages win ties */
};

struct plan_left_out {
    int device;
    enum plan_absence why;
    double delta_s;   /* of the objective, with the device at its best place in this plan */
    int blocks;       /* there */
    int after;        /* the stage it follows there; -1: first */
    double block_s;   /* one decode step of one of its blocks, against */
    double plan_block_s; /* the slowest such of the plan's devices */
};

enum plan_change { PLAN_MORE_MEMORY, PLAN_FASTER_LINK };

struct plan_sensitivity {
    enum plan_change change;
    int device;         /* PLAN_MORE_MEMORY: 1e9 bytes more here */
    int from, to;       /* PLAN_FASTER_LINK: twice the bandwidth and half the round trip, both ways; `devices` is the
                           coordinator */
    double value_s;     /* the objective then; at most that of the plan */
    double bound_s;     /* proven lower bound then */
    bool same_devices;  /* whether the sequence of devices stays the same */
};

struct plan_reasons {
    bool has_single;      /* some device holds the whole model alone */
    struct plan single;   /* the best such */
    bool has_next;        /* another sequence of devices is feasible */
    struct plan next;     /* the best such; next.bound_s says how far that is proven */
    int left_out_count;
    struct plan_left_out left_out[PLAN_MAX_DEVICES];
    int sensitivity_count;
    struct plan_sensitivity sensitivity[2 * PLAN_MAX_DEVICES + 2]; /* the largest gain first */
};

/* Explains a plan of this problem. options: as for plan_solve (may be NULL); its budget holds for all the questions
 * together. The caller frees *out with plan_reasons_free. ERR_NOMEM, ERR_USAGE. */
int plan_explain(struct plan_reasons **out, const struct plan_problem *p, const struct plan_options *options,
                 const struct plan *plan, struct error *e);
void plan_reasons_free(struct plan_reasons *r); /* NULL is allowed */

/* The reasons as sentences, one a line, each ended by a newline. why may be NULL: then only what the plan itself says.
 * 0, ERR_NOMEM or ERR_BOUND of the buffer. */
int plan_reasons_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                      const struct plan_reasons *why);
/* The whole answer for people: a table of stages, the prediction, the proof and the reasons. */
int plan_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
              const struct plan_reasons *why);

#endif
