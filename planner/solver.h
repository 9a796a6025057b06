/* What the objectives' solvers share: one problem being solved, the best plan so far and what is proven. Internal. */
#ifndef BRIGADE_PLANNER_SOLVER_H
#define BRIGADE_PLANNER_SOLVER_H

#include "planner/search.h"

struct solver {
    const struct plan_problem *p;
    const struct plan_options *options;
    struct space *space;
    struct limits limits;
    int depths;            /* of bound tables */
    const struct plan *start; /* known and feasible, or NULL */
    ticks best;            /* value of found; TICKS_NEVER while there is none */
    struct candidate found;
    ticks lower;           /* proven: no plan is below */
    int64_t states, max_states;
    bool cut;
};

/* Runs a prepared search (space, limits, tracks, guides, objective) from s->best downward and keeps what it finds.
 * beam: width, or 0 for none. exact: whether to prove; *lower as search_exact's. share: the part of what is left of
 * the budget that the exact search may use. 0 or ERR_NOMEM. */
int solver_search(struct solver *v, struct search *s, int beam, bool exact, double share, ticks *lower);

/* Among the plans of v->space->stages stages whose value is v->best: the first by the tie rule, into s->found. s is
 * prepared with tables by stages to come. 1: found, 0: there is none, ERR_BOUND: *left expansions were not enough,
 * ERR_NOMEM. */
int solver_first_sequence(struct solver *v, struct search *s, int64_t *left);
bool solver_earlier(const struct candidate *a, const struct candidate *b);
/* Whether the best plan is proven and its devices still open to the tie rule. */
bool solver_proven(const struct solver *v);
#define SOLVER_TIE_EFFORT 20000 /* expansions; only very even problems need more, and they keep their first plan */

/* One cost track of decode for `batch` sequences and all that a relaxation of it needs. */
struct decode_track {
    int batch, micro; /* micro: batches in flight, 0 when only the time counts */
    struct layer layer;
    ticks *busy, *hop, *limited_hop;
    ticks lower;      /* proven for plans of this track */
    struct bound bound;
    struct relaxation relaxation;
};
int decode_track_new(struct decode_track *t, struct solver *v, int batch, int micro);
void decode_track_free(struct decode_track *t);
layer_cost cost_layer_decode; /* context: const int *batch */

/* The objectives; each sets v->best, v->found and v->lower. ERR_NOMEM or 0, also when there is no plan. */
int solve_latency(struct solver *v);
int solve_throughput(struct solver *v);
int solve_ttft(struct solver *v);

/* The value of the known plan, rounded up; TICKS_NEVER without one. */
ticks solver_start(const struct solver *v);

/* A plan that fits, by memory alone, for a space without constraints on stages. 1: *out is one; 0: there is none;
 * ERR_BOUND: not found, not refuted; ERR_NOMEM. */
int solver_pack(struct solver *v, struct candidate *out);

/* The best plan that differs from `plan` by one exchange, replacement or omission of devices, within options' stages and
 * counts; false when none of those is feasible. A good plan, not a proven one. */
bool plan_neighbour(const struct plan_problem *p, const struct plan_options *options, const struct plan *plan,
                    struct plan *out);

/* Says what is short. Returns ERR_INFEASIBLE. */
int infeasible(const struct plan_problem *p, const struct plan_options *options, struct error *e);

#endif
