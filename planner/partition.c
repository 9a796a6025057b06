/* plan_solve: builds the space, asks the objective's solver, returns the plan with its proof. Pure. */
#include <string.h>

#include "base/memory.h"
#include "planner/solver.h"

/* About half a second of one core; labels of a prefill are larger. */
enum { DEFAULT_STATES = 300000, LAST_STEPS = 4 };

static bool take(struct solver *v, struct search *s)
{
    v->states += s->states;
    v->cut |= s->cut;
    if (!s->any)
        return false;
    v->best = s->best;
    v->found = s->found;
    return true;
}

int solver_search(struct solver *v, struct search *s, int beam, bool exact, double share, ticks *lower)
{
    int rc = 0;
    s->space = v->space;
    s->limits = &v->limits;
    s->best = v->best < s->best ? v->best : s->best;
    s->any = s->cut = false;
    s->floor = TICKS_NEVER;
    s->expired = v->options->expired;
    s->expired_context = v->options->expired_context;
    search_begin(s);
    if (beam) {
        s->states = 0;
        s->max_states = v->max_states - v->states;
        rc = search_beam(s, beam);
        take(v, s);
    }
    if (!rc && exact) {
        s->states = 0;
        s->max_states = (int64_t)((double)(v->max_states - v->states) * share);
        rc = search_exact(s, lower);
        take(v, s);
    }
    return rc;
}

ticks solver_start(const struct solver *v)
{
    return v->start ? space_ticks(v->space, v->start->value_s) + 1 : TICKS_NEVER;
}

static void start_from(struct solver *v, const struct plan *start)
{
    v->start = start;
    v->found.stages = start->stages;
    for (int i = 0; i < start->stages; i++) {
        v->found.device[i] = start->stage[i].device;
        v->found.end[i] = start->stage[i].last_block + 1;
    }
}

static int evaluate_found(const struct solver *v, struct plan *out, struct error *e)
{
    int counts[PLAN_MAX_DEVICES];
    for (int i = 0; i < v->found.stages; i++)
        counts[i] = v->found.end[i] - (i ? v->found.end[i - 1] : 0);
    return plan_evaluate(v->p, v->found.device, counts, v->found.stages, out, e);
}

static int finish(struct solver *v, struct plan *out, struct error *e)
{
    struct plan plan;
    int rc = evaluate_found(v, &plan, e);
    if (rc)
        return error_set(e, ERR_INTERNAL, "the planner's own plan does not hold: %s", e ? e->text : "");
    /* Costs were rounded to ticks: a difference in their last digits is none. */
    if ((double)v->lower < (double)v->best * (1 - 1e-11)) {
        double bound = (double)v->lower * v->space->tick_s;
        plan.bound_s = bound < plan.value_s ? bound : plan.value_s;
    }
    /* Where the search ended without proof, a step beside its plan may still be better. */
    struct plan near;
    for (int i = 0; i < LAST_STEPS && plan_gap_percent(&plan) > 0 && !v->options->exclude &&
                    plan_neighbour(v->p, v->options, &plan, &near) && near.value_s < plan.value_s;
         i++) {
        near.bound_s = plan.bound_s;
        plan = near;
    }
    plan.states = v->states;
    *out = plan;
    return 0;
}

/* Something to start from: the caller's plan, or one that memory allows. 0 when there is none and never will be. */
static int find_start(struct solver *v, struct plan *start)
{
    int rc;
    if (v->options->start) {
        start_from(v, v->options->start);
        return 1;
    }
    if (v->space->stages)
        return ERR_BOUND;
    rc = solver_pack(v, &v->found);
    if (rc == 1) {
        rc = evaluate_found(v, start, NULL);
        if (rc || v->space->exclude_stages)
            return ERR_BOUND;
        start_from(v, start);
        return 1;
    }
    return rc;
}

int plan_solve(const struct plan_problem *p, const struct plan_options *options, struct plan *out, struct error *e)
{
    static const struct plan_options none;
    struct solver v = {.p = p, .options = options ? options : &none, .best = TICKS_NEVER};
    int rc = plan_problem_check(p, e);
    if (rc || (rc = space_new(&v.space, p, v.options, e)))
        return rc;
    v.max_states = v.options->max_states > 0        ? v.options->max_states
                   : p->objective == PLAN_TTFT ? DEFAULT_STATES / 3
                                               : DEFAULT_STATES;
    v.depths = v.space->stages ? v.space->stages + 1 : 1;
    struct plan start;
    int begin = find_start(&v, &start);
    rc = begin == ERR_NOMEM ? begin : limits_new(&v.limits, v.space);
    if (!rc && begin)
        rc = p->objective == PLAN_LATENCY      ? solve_latency(&v)
             : p->objective == PLAN_THROUGHPUT ? solve_throughput(&v)
                                               : solve_ttft(&v);
    if (rc)
        rc = error_set(e, rc, "out of memory for planning");
    else if (v.best < TICKS_NEVER)
        rc = finish(&v, out, e);
    else if (v.cut && v.lower < TICKS_NEVER)
        rc = error_set(e, ERR_TIMEOUT, "no plan found within the search budget; raise it or fix the split");
    else
        rc = infeasible(p, v.options, e);
    limits_free(&v.limits);
    space_free(v.space);
    return rc;
}
