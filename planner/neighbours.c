/* The best plan one change away from a given one: two stages change places, one leaves its blocks to a neighbour, or a
 * device that is not used takes a stage over. What stands in for "next best" where a search has no time to find it. Pure. */
#include <math.h>
#include <string.h>

#include "planner/solver.h"

enum { EVALUATIONS = 500 };

struct shape {
    int stages, order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
};

struct looking {
    const struct plan_problem *p;
    const struct shape *from;
    int left; /* evaluations */
    struct plan best;
};

/* The same sequence of devices, identical devices counting as one, is no other plan. */
static bool same_sequence(const struct looking *l, const struct shape *c)
{
    if (c->stages != l->from->stages)
        return false;
    for (int s = 0; s < c->stages; s++)
        if (c->order[s] != l->from->order[s] && !space_interchangeable(l->p, c->order[s], l->from->order[s]))
            return false;
    return true;
}

static void judge(struct looking *l, const struct shape *c)
{
    struct plan plan;
    if (l->left <= 0 || same_sequence(l, c))
        return;
    l->left--;
    if (!plan_evaluate(l->p, c->order, c->counts, c->stages, &plan, NULL) && plan.value_s < l->best.value_s)
        l->best = plan;
}

static void leave_out(struct looking *l)
{
    for (int s = 0; s < l->from->stages && l->from->stages > 1; s++)
        for (int to = s - 1; to <= s + 1; to += 2) {
            struct shape c = *l->from;
            if (to < 0 || to >= c.stages)
                continue;
            c.counts[to] += c.counts[s];
            c.stages--;
            memmove(&c.order[s], &c.order[s + 1], (size_t)(c.stages - s) * sizeof *c.order);
            memmove(&c.counts[s], &c.counts[s + 1], (size_t)(c.stages - s) * sizeof *c.counts);
            judge(l, &c);
        }
}

static void exchange(struct looking *l, bool counts_stay)
{
    for (int apart = 1; apart < l->from->stages; apart++)
        for (int s = 0; s + apart < l->from->stages; s++) {
            struct shape c = *l->from;
            c.order[s] = l->from->order[s + apart];
            c.order[s + apart] = l->from->order[s];
            judge(l, &c);
            if (counts_stay)
                continue;
            c.counts[s] = l->from->counts[s + apart];
            c.counts[s + apart] = l->from->counts[s];
            judge(l, &c);
        }
}

static void replace(struct looking *l)
{
    bool used[PLAN_MAX_DEVICES] = {false};
    for (int s = 0; s < l->from->stages; s++)
        used[l->from->order[s]] = true;
    for (int d = 0; d < l->p->devices; d++) {
        bool seen = used[d];
        for (int o = 0; o < d && !seen; o++)
            seen = !used[o] && space_interchangeable(l->p, o, d);
        for (int s = 0; s < l->from->stages && !seen; s++) {
            struct shape c = *l->from;
            c.order[s] = d;
            judge(l, &c);
        }
    }
}

bool plan_neighbour(const struct plan_problem *p, const struct plan_options *options, const struct plan *plan,
                    struct plan *out)
{
    struct shape from = {.stages = plan->stages};
    struct looking l = {.p = p, .from = &from, .left = EVALUATIONS, .best = {.value_s = INFINITY}};
    for (int s = 0; s < plan->stages; s++) {
        from.order[s] = plan->stage[s].device;
        from.counts[s] = plan->stage[s].last_block - plan->stage[s].first_block + 1;
    }
    if (options && options->order)
        return false;
    if (!options || !options->stages)
        leave_out(&l);
    replace(&l);
    exchange(&l, options && options->counts);
    if (!l.best.stages)
        return false;
    *out = l.best;
    return true;
}
