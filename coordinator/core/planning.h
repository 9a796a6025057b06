/* From what was measured to a plan: fills the planner's problem with the model's costs, the nodes' profiles and the
 * links, and solves it. Pure; any thread. */
#ifndef BRIGADE_COORDINATOR_CORE_PLANNING_H
#define BRIGADE_COORDINATOR_CORE_PLANNING_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/model/stage.h"
#include "planner/plan.h"
#include "proto/frame.h"

struct planning_node {
    const char *name;
    uint64_t memory_bytes;                 /* admissible for a stage */
    double rtt_seconds;                    /* between coordinator and node */
    uint32_t host, cores, threads;         /* nodes of one host (not 0) share its cores */
    double host_read_bytes_per_s;          /* and what its memory can be read at; 0: unknown */
    double correction;                     /* how many times as long as its profile says work takes there; 0: 1 */
    const struct control_message *profile; /* a Profile, or NULL: nothing measured, nothing predicted */
};

struct runner_stage;

struct planning_link {
    double bytes_per_s, rtt_seconds;       /* bytes_per_s 0: unknown */
};

struct planning_input {
    const struct model *model;
    enum kv_type kv;
    uint32_t kv_tokens, max_context, max_tokens, chunk_tokens;
    enum frame_codec codec;
    bool may_round;                        /* with codec f32: links may be given a codec of fewer bytes, where that pays */
    enum plan_objective objective;
    uint32_t prompt_tokens, output_tokens, concurrency;
    uint32_t node_count;
    const struct planning_node *nodes;
    const struct planning_link *links;     /* [node_count][node_count]; NULL: unknown */
    bool here;                             /* the nodes are this very process */
};

/* *out is the caller's: plan_problem_free. */
int planning_problem(const struct planning_input *in, struct plan_problem **out, struct error *err);

/* Where links may be rounded (p->may_round), their codecs are chosen with the plan and stand in p's links (codecs.h).
 * The plan for a problem: the best, or with `stages` exactly so many, or with split the best order for these counts of
 * blocks. The problem's chunk becomes what the scheduler will use with so many stages, so that TTFT is predicted for what
 * happens. ERR_USAGE for a split that is not the model's, ERR_INFEASIBLE with the arithmetic. */
int planning_solve(struct plan_problem *p, uint32_t stages, const uint32_t *split, uint32_t split_count,
                   struct plan *out, struct error *err);

/* The best plan with these devices in this order; with split (may be NULL) these counts of blocks. After planning_solve for
 * the same problem. Errors as plan_solve. */
int planning_in_order(const struct plan_problem *p, const int *order, uint32_t stages, const uint32_t *split,
                      struct plan *out, struct error *err);

/* What a plan expects of the micro-batches that a stage's meter saw: its blocks (and ends) without the bookkeeping around
 * them. 0 where nothing was measured, on either side. */
double planning_expected(const struct plan_problem *p, const struct plan *plan, uint32_t stage,
                         const struct runner_stage *measured);

/* What a plan expects of a micro-batch of so many rows (1 at least) that look back on `past` positions. */
double planning_expected_of(const struct plan_problem *p, const struct plan *plan, uint32_t stage, uint32_t rows, uint32_t past);

/* Clocks change: the correction of a node's profile, from the one its plan was made with, after its stage was seen to take
 * `measured` where `expected` was. Few micro-batches, or a difference that may be chance, change nothing; nobody becomes
 * more than 32 times slower or 4 times faster than it was measured. */
double planning_correct(double before, const struct runner_stage *measured, double expected);

/* Stages in the order given, node i holding split[i] blocks, with memory but without times: for what was not measured. */
void planning_unmeasured(const struct plan_problem *p, const uint32_t *split, uint32_t split_count, struct plan *out);

#endif
