/* Asks the partitioner the questions that explain a plan. explain_text.c puts the answers into words. Pure. */
#include "planner/explain.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"
#include "planner/solver.h"

/* Problems up to this size are solved anew for each sensitivity; larger ones keep the plan's devices and order. */
enum { SMALL = 400, FEW_PLACES = 3, FEW_CHANGES = 5 };

void plan_reasons_free(struct plan_reasons *r)
{
    mem_free(r);
}

struct question {
    const struct plan_problem *p;
    const struct plan_options *options;
    const struct plan *plan;
    struct plan_reasons *r;
    struct error *e;
    int64_t budget; /* states of one question */
};

static bool large(const struct plan_problem *p)
{
    return p->devices * p->model.blocks > SMALL;
}

static bool tired(const struct question *q)
{
    return q->options->expired && q->options->expired(q->options->expired_context);
}

/* The best split over these devices in this order, from a known one if there is; device indices of the result are those of p. */
static int best_split(const struct question *q, const struct plan_problem *p, const int *order, int stages,
                      const struct plan *start, struct plan *out)
{
    struct plan from;
    int straight[PLAN_MAX_DEVICES];
    struct plan_problem *sub = plan_problem_subset(p, order, stages);
    if (!sub)
        return ERR_NOMEM;
    /* A pinned device that is not among them forbids the order. */
    if (p->pin_first >= 0 && order[0] != p->pin_first) {
        plan_problem_free(sub);
        return ERR_INFEASIBLE;
    }
    for (int i = 0; i < stages; i++)
        straight[i] = i;
    struct plan_options options = {.stages = stages, .order = straight, .max_states = q->budget,
                                   .expired = q->options->expired, .expired_context = q->options->expired_context};
    if (start) {
        from = *start;
        for (int i = 0; i < stages; i++)
            from.stage[i].device = i;
        options.start = &from;
    }
    int rc = plan_solve(sub, &options, out, NULL);
    for (int i = 0; !rc && i < out->stages; i++)
        out->stage[i].device = order[out->stage[i].device];
    plan_problem_free(sub);
    return rc;
}

static int ask_next(struct question *q)
{
    struct plan_options options = *q->options;
    struct plan near, split;
    int order[PLAN_MAX_DEVICES];
    options.exclude = q->plan;
    options.start = NULL;
    options.max_states = q->budget;
    /* Large problems leave the search no time to come close: it begins beside the plan. */
    if (large(q->p) && plan_neighbour(q->p, q->options, q->plan, &near)) {
        for (int s = 0; s < near.stages; s++)
            order[s] = near.stage[s].device;
        if (!q->options->counts && !best_split(q, q->p, order, near.stages, &near, &split) && split.value_s < near.value_s)
            near = split;
        options.start = &near;
    }
    int rc = plan_solve(q->p, &options, &q->r->next, NULL);
    q->r->has_next = rc == 0;
    return rc == ERR_NOMEM ? rc : 0;
}

/* One decode step of the dearest block on a device. */
static double block_time(const struct plan_problem *p, int device)
{
    double most = 0;
    for (int k = 0; k < p->model.blocks; k++)
        most = fmax(most, cost_block_decode(p, device, k, 1));
    return most;
}

static bool holds_a_block(const struct plan_problem *p, int device)
{
    for (int k = 0; k < p->model.blocks; k++)
        if (p->device[device].buffers + cost_block_memory(p, k) <= p->device[device].memory)
            return true;
    return false;
}

/* Extra hops of one token when a device joins after stage `after`. */
static double detour(const struct question *q, int device, int after)
{
    const struct plan *plan = q->plan;
    int n = plan->stages, desk = q->p->devices;
    int u = after < 0 ? desk : plan->stage[after].device, v = after + 1 < n ? plan->stage[after + 1].device : desk;
    return cost_hop(q->p, u, device, 1) + cost_hop(q->p, device, v, 1) - cost_hop(q->p, u, v, 1);
}

/* The places worth trying, the shortest detour first. */
static int list_places(const struct question *q, int device, int *after)
{
    double cost[PLAN_MAX_DEVICES + 1];
    int n = 0;
    for (int place = -1; place < q->plan->stages; place++) {
        double c = detour(q, device, place);
        int at = n++;
        for (; at > 0 && cost[at - 1] > c; at--) {
            cost[at] = cost[at - 1];
            after[at] = after[at - 1];
        }
        cost[at] = c;
        after[at] = place;
    }
    return large(q->p) && n > FEW_PLACES ? FEW_PLACES : n;
}

static int ask_absence(struct question *q, int device, struct plan_left_out *out)
{
    const struct plan *plan = q->plan;
    int place[PLAN_MAX_DEVICES + 1], order[PLAN_MAX_DEVICES], n = list_places(q, device, place);
    *out = (struct plan_left_out){.device = device, .why = PLAN_ABSENT_MEMORY, .delta_s = INFINITY, .after = -1};
    out->block_s = block_time(q->p, device);
    for (int s = 0; s < plan->stages; s++)
        out->plan_block_s = fmax(out->plan_block_s, block_time(q->p, plan->stage[s].device));
    if (!holds_a_block(q->p, device))
        return 0;
    out->why = PLAN_ABSENT_NO_PLACE;
    if (plan->stages + 1 > q->p->model.blocks || q->options->stages)
        return 0;
    for (int i = 0; i < n && !tired(q); i++) {
        struct plan with;
        int at = place[i] + 1;
        for (int s = 0; s < plan->stages; s++)
            order[s + (s >= at)] = plan->stage[s].device;
        order[at] = device;
        int rc = best_split(q, q->p, order, plan->stages + 1, NULL, &with);
        if (rc == ERR_NOMEM)
            return rc;
        if (rc || with.value_s - plan->value_s >= out->delta_s)
            continue;
        out->delta_s = with.value_s - plan->value_s;
        out->why = out->delta_s > plan->value_s * 1e-9 ? PLAN_ABSENT_SLOWER : PLAN_ABSENT_EVEN;
        out->after = place[i];
        out->blocks = with.stage[at].last_block - with.stage[at].first_block + 1;
    }
    return 0;
}

/* Whether a device is described by the same numbers as one that has its answer already. */
static const struct plan_left_out *answered(const struct question *q, int device)
{
    const struct plan_device *d = &q->p->device[device];
    for (int i = 0; i < q->r->left_out_count; i++) {
        const struct plan_left_out *l = &q->r->left_out[i];
        const struct plan_device *k = &q->p->device[l->device];
        bool same = !d->profile && !k->profile && d->memory == k->memory && d->read == k->read &&
                    d->compute == k->compute && d->overhead_s == k->overhead_s && d->buffers == k->buffers;
        for (int s = 0; s < q->plan->stages && same; s++) {
            const struct plan_link *x = plan_problem_link(q->p, q->plan->stage[s].device, device);
            const struct plan_link *y = plan_problem_link(q->p, q->plan->stage[s].device, l->device);
            same = x && y && x->bandwidth == y->bandwidth && x->rtt_s == y->rtt_s;
        }
        if (same && device != q->p->coordinator_device && l->device != q->p->coordinator_device)
            return l;
    }
    return NULL;
}

static int ask_absences(struct question *q)
{
    for (int d = 0; d < q->p->devices; d++) {
        bool used = false;
        for (int s = 0; s < q->plan->stages; s++)
            used |= q->plan->stage[s].device == d;
        if (used)
            continue;
        struct plan_left_out *out = &q->r->left_out[q->r->left_out_count];
        const struct plan_left_out *same = answered(q, d);
        int rc = 0;
        if (same) {
            *out = *same;
            out->device = d;
        } else {
            rc = ask_absence(q, d, out);
        }
        if (rc)
            return rc;
        q->r->left_out_count++;
    }
    return 0;
}

/* Solves a changed problem: wholly when it is small, else with the plan's devices in their order. */
static int ask_change(struct question *q, const struct plan_problem *changed, struct plan_sensitivity *s)
{
    struct plan start, best;
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES], n = q->plan->stages, rc;
    for (int i = 0; i < n; i++) {
        order[i] = q->plan->stage[i].device;
        counts[i] = q->plan->stage[i].last_block - q->plan->stage[i].first_block + 1;
    }
    rc = plan_evaluate(changed, order, counts, n, &start, NULL);
    if (rc)
        return rc;
    best = start;
    if (!large(q->p)) {
        struct plan_options options = *q->options;
        options.start = &start;
        options.max_states = q->budget;
        rc = plan_solve(changed, &options, &best, NULL);
    } else if (!q->options->counts) {
        rc = best_split(q, changed, order, n, &start, &best);
    }
    if (rc && rc != ERR_NOMEM)
        best = start; /* the budget ended before it found the plan we have */
    if (rc == ERR_NOMEM)
        return rc;
    s->value_s = fmin(fmin(best.value_s, start.value_s), q->plan->value_s);
    s->bound_s = best.bound_s;
    s->same_devices = best.stages == n;
    for (int i = 0; i < n && s->same_devices; i++)
        s->same_devices = best.stage[i].device == order[i];
    return 0;
}

static int ask_memory(struct question *q, int device)
{
    struct plan_sensitivity *s = &q->r->sensitivity[q->r->sensitivity_count];
    struct plan_problem *changed = plan_problem_copy(q->p);
    if (!changed)
        return ERR_NOMEM;
    *s = (struct plan_sensitivity){.change = PLAN_MORE_MEMORY, .device = device};
    changed->device[device].memory += 1e9;
    int rc = ask_change(q, changed, s);
    plan_problem_free(changed);
    q->r->sensitivity_count += rc == 0;
    return rc;
}

/* Both ends named as the problem's links are: the coordinator by its device, if it is one. */
static int machine(const struct plan_problem *p, int node)
{
    return node == p->devices && p->coordinator_device >= 0 ? p->coordinator_device : node;
}

static int ask_link(struct question *q, int from, int to)
{
    const struct plan_link *old = plan_problem_link(q->p, from, to);
    if (!old)
        return 0;
    from = machine(q->p, from);
    to = machine(q->p, to);
    for (int i = 0; i < q->r->sensitivity_count; i++) {
        const struct plan_sensitivity *s = &q->r->sensitivity[i];
        if (s->change == PLAN_FASTER_LINK && ((s->from == from && s->to == to) || (s->from == to && s->to == from)))
            return 0;
    }
    struct plan_sensitivity *s = &q->r->sensitivity[q->r->sensitivity_count];
    struct plan_problem *changed = plan_problem_copy(q->p);
    if (!changed)
        return ERR_NOMEM;
    *s = (struct plan_sensitivity){.change = PLAN_FASTER_LINK, .from = from, .to = to};
    struct plan_link *l[2] = {&changed->link[plan_problem_link(q->p, from, to) - q->p->link],
                              &changed->link[plan_problem_link(q->p, to, from) - q->p->link]};
    for (int i = 0; i < 2; i++) {
        l[i]->bandwidth *= 2;
        l[i]->rtt_s /= 2;
    }
    int rc = ask_change(q, changed, s);
    plan_problem_free(changed);
    q->r->sensitivity_count += rc == 0;
    return rc;
}

/* Stages (or the links after them) by falling weight: all, or the heaviest few of a large plan. */
static int heaviest(const struct question *q, bool links, int *stage)
{
    double weight[PLAN_MAX_DEVICES];
    int n = 0, all = q->plan->stages - links;
    for (int s = 0; s < all; s++) {
        const struct plan_stage *g = &q->plan->stage[s];
        double w = q->plan->objective == PLAN_TTFT ? g->prefill_s : g->decode_s;
        if (links)
            w = cost_hop(q->p, g->device, q->plan->stage[s + 1].device,
                         q->plan->objective == PLAN_TTFT ? q->p->workload.prompt_tokens : 1);
        int at = n++;
        for (; at > 0 && weight[at - 1] < w; at--) {
            weight[at] = weight[at - 1];
            stage[at] = stage[at - 1];
        }
        weight[at] = w;
        stage[at] = s;
    }
    return large(q->p) && n > FEW_CHANGES ? FEW_CHANGES : n;
}

static int ask_changes(struct question *q)
{
    const struct plan *plan = q->plan;
    int n = plan->stages, rc = 0, stage[PLAN_MAX_DEVICES];
    for (int i = 0, count = heaviest(q, false, stage); i < count && !rc && !tired(q); i++)
        rc = ask_memory(q, plan->stage[stage[i]].device);
    for (int i = 0, count = heaviest(q, true, stage); i < count && !rc && !tired(q); i++)
        rc = ask_link(q, plan->stage[stage[i]].device, plan->stage[stage[i] + 1].device);
    int desk = q->p->devices, first = plan->stage[0].device, last = plan->stage[n - 1].device;
    if (!rc && !tired(q))
        rc = ask_link(q, desk, first);
    if (!rc && last != first && !tired(q))
        rc = ask_link(q, last, desk);
    /* The largest gain first. */
    struct plan_sensitivity *all = q->r->sensitivity;
    for (int i = 1; i < q->r->sensitivity_count; i++) {
        struct plan_sensitivity s = all[i];
        int at = i;
        for (; at > 0 && all[at - 1].value_s > s.value_s; at--)
            all[at] = all[at - 1];
        all[at] = s;
    }
    return rc;
}

int plan_explain(struct plan_reasons **out, const struct plan_problem *p, const struct plan_options *options,
                 const struct plan *plan, struct error *e)
{
    static const struct plan_options none;
    if (plan->stages < 1 || plan->objective != p->objective)
        return error_set(e, ERR_USAGE, "this plan is not one of this problem");
    struct plan_reasons *r = mem_zalloc(1, sizeof *r);
    if (!r)
        return error_set(e, ERR_NOMEM, "out of memory for the reasons of a plan");
    struct question q = {.p = p, .options = options ? options : &none, .plan = plan, .r = r, .e = e};
    q.budget = large(p) ? 4000 : 20000;
    r->has_single = plan_single(p, &r->single, NULL) == 0;
    int rc = ask_next(&q);
    if (!rc)
        rc = ask_absences(&q);
    if (!rc)
        rc = ask_changes(&q);
    if (rc) {
        plan_reasons_free(r);
        return error_set(e, rc, "the plan could not be explained: %s", error_name(rc));
    }
    *out = r;
    return 0;
}
