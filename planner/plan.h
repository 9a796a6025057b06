/* The planner's face: from a problem to a plan that is proven, explained and predicted. Pure functions of their
 * arguments: no sockets, no clock (a time limit is the caller's `expired`), no state kept; any thread.
 *
 *     struct yaml_doc *doc;
 *     struct plan_problem *problem;
 *     struct plan plan;
 *     if ((rc = yaml_read_file(&doc, path, &e)) || (rc = plan_problem_from_yaml(&problem, doc, &e)))
 *         return rc;
 *     if ((rc = plan_solve(problem, NULL, &plan, &e)))      // ERR_INFEASIBLE: e.text holds the arithmetic
 *         return rc;
 *     struct plan_reasons *why;
 *     if ((rc = plan_explain(&why, problem, NULL, &plan, &e))) // planner/explain.h: next best, left out, sensitivities
 *         return rc;
 *     json_t *json = plan_to_json(problem, &plan, why);     // planner/json.h: the keys of `brigade plan --json`
 *     rc = plan_text(&buffer, problem, &plan, why);         // planner/explain.h: the same for people
 *     rc = plan_gantt_svg(&buffer, problem, &plan, &e);     // planner/simulate.h (also --simulate)
 *
 * A real cluster fills a problem from measured profiles (planner/problem.h) and goes on in the same way. */
#ifndef BRIGADE_PLANNER_PLAN_H
#define BRIGADE_PLANNER_PLAN_H

#include <stdint.h>

#include "planner/problem.h"

struct plan_stage {
    int device;                  /* index into problem->device */
    int first_block, last_block; /* inclusive */
    double memory_bytes;         /* weights, cache, buffers, embedding, head */
    double decode_s;             /* one sequence */
    double decode_batch_s;       /* a micro-batch of plan->batch sequences */
    double prefill_s;            /* the whole prompt, all chunks */
};

struct plan {
    enum plan_objective objective;
    int stages;
    struct plan_stage stage[PLAN_MAX_DEVICES];

    double value_s; /* of the objective, smaller is better: TPOT, cycle or TTFT */
    double bound_s; /* no plan under the same constraints is below this; equal to value_s when proven optimal */
    int64_t states; /* search effort: labels made */
    /* Where links may carry rounded activations: the best value with exact ones, and with the fewest bytes everywhere. 0:
     * not asked. */
    double exact_s, rounded_s;
    double given_up_ttft_s; /* TTFT of the plan with the best value, given up for this one, nearly as good; 0: this is it */

    /* Predictions, whatever the objective. */
    double tpot_s, ttft_s, cycle_s;
    double tokens_per_s;  /* concurrency / cycle_s at the best number of micro-batches */
    int microbatches, batch; /* of that cycle: micro-batches in flight and sequences in each */

    /* What limits the objective most: a stage (link_to < 0) or the link from stage limit to link_to = limit + 1. */
    int limit, link_to;
};

/* 100 * (value - bound) / bound: 0 when the plan is proven optimal. */
double plan_gap_percent(const struct plan *plan);
/* "orin" or "pi5->orin". Returns text. */
#define PLAN_LIMIT_TEXT 160
const char *plan_limit_text(const struct plan_problem *p, const struct plan *plan, char text[static PLAN_LIMIT_TEXT]);

struct plan_options {
    int stages;                 /* exactly so many stages; 0: as many as is best */
    const int *counts;          /* [stages] blocks of each stage, or NULL: free. Needs stages; must add up to all blocks */
    const int *order;           /* [stages] the device of each stage, or NULL: free. Needs stages */
    int64_t max_states;         /* labels the search may make; 0: 300000, for a prompt 100000. Over it the plan comes with its proven gap */
    bool (*expired)(void *context); /* asked now and then; true ends the search early, gap and all. NULL: never */
    void *expired_context;
    const struct plan *exclude; /* a plan whose sequence of devices is not wanted (identical devices count as one) */
    const struct plan *start;   /* a known plan for this problem and these constraints, to improve on; or NULL */
};

/* The best plan for problem->objective. Options may be NULL. Ties go to fewer stages, then to earlier devices of the
 * problem, stage by stage. ERR_INFEASIBLE when nothing satisfies memory and constraints, with what is needed and what
 * fits; ERR_USAGE, ERR_BOUND for a bad problem or options; ERR_NOMEM; ERR_TIMEOUT when the budget ended before any plan
 * was found. *out is a plain value. */
int plan_solve(const struct plan_problem *p, const struct plan_options *options, struct plan *out, struct error *e);

/* The prediction for given stages: order[s] holds counts[s] blocks. ERR_MEMORY when a stage does not fit, with the
 * arithmetic; ERR_USAGE when the counts or devices make no sense. bound_s is value_s. */
int plan_evaluate(const struct plan_problem *p, const int *order, const int *counts, int stages, struct plan *out,
                  struct error *e);

/* Seconds in which every one of the workload's sequences gets a token, with so many micro-batches in flight as even as the
 * scheduler makes them: for five sequences three and two, where a plan's cycle_s counts with three and three. */
double plan_round(const struct plan_problem *p, const struct plan *plan, int microbatches);

/* The best plan of one stage, if any device holds the whole model: 0, or ERR_INFEASIBLE. */
int plan_single(const struct plan_problem *p, struct plan *out, struct error *e);

/* The time at which chunk c leaves stage s, from the moment the coordinator sends the prompt; [stages][chunks] in
 * `done`, which the caller owns. Returns the TTFT. With begin (same shape, may be NULL): when the stage took it up. */
double plan_prefill_times(const struct plan_problem *p, const struct plan *plan, double *begin, double *done);

#endif
