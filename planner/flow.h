/* The discrete-event core: jobs pass the stages and links of a plan in order, each machine serving one job at a time,
 * first come first served, and return to the coordinator. Internal to planner/; the Gantt pictures and the request
 * simulation are two sources of jobs for it. */
#ifndef BRIGADE_PLANNER_FLOW_H
#define BRIGADE_PLANNER_FLOW_H

#include "planner/plan.h"

enum flow_kind { FLOW_DECODE, FLOW_PREFILL };

struct flow_job {
    enum flow_kind kind;
    int number;        /* the source's name for it */
    int batch;         /* decode: sequences */
    double context;    /* decode: mean positions they look back on */
    double tokens, past; /* prefill */
    bool last_chunk;
};

/* Machine 2s is stage s, machine 2s + 1 the link from stage s to stage s + 1. */
typedef void flow_trace(void *context, int machine, const struct flow_job *job, double begin_s, double end_s);

struct flow;

/* trace may be NULL. NULL when out of memory. */
struct flow *flow_new(const struct plan_problem *p, const struct plan *plan, flow_trace *trace, void *context);
void flow_free(struct flow *f);

/* Sends a job off at `now`, not before any earlier event that was taken. 0 or ERR_NOMEM. */
int flow_submit(struct flow *f, double now, const struct flow_job *job);
/* When the next event happens; INFINITY when none is left. */
double flow_next_time(const struct flow *f);
/* Advances by one event. 1: a job came back, into *done; 0: something moved; or ERR_NOMEM. */
int flow_advance(struct flow *f, struct flow_job *done);

int flow_machines(const struct flow *f);
double flow_busy(const struct flow *f, int machine); /* seconds at work so far */

#endif
