/* What a given plan costs: every number that a plan carries, straight from the cost model. Pure. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/units.h"
#include "planner/cost.h"
#include "planner/plan.h"

double plan_gap_percent(const struct plan *plan)
{
    return plan->bound_s > 0 && plan->value_s > plan->bound_s
               ? 100 * (plan->value_s - plan->bound_s) / plan->bound_s
               : 0;
}

const char *plan_limit_text(const struct plan_problem *p, const struct plan *plan, char text[static PLAN_LIMIT_TEXT])
{
    const char *from = p->device[plan->stage[plan->limit].device].name;
    if (plan->link_to < 0)
        snprintf(text, PLAN_LIMIT_TEXT, "%s", from);
    else
        snprintf(text, PLAN_LIMIT_TEXT, "%s->%s", from, p->device[plan->stage[plan->link_to].device].name);
    return text;
}

/* The chunk recursion, one stage at a time: `arrive` turns from arrival at a stage into arrival at the next. */
static double prefill_stage(const struct plan_problem *p, const struct plan *plan, int s, int chunks, double *arrive,
                            double *begin, double *done)
{
    const struct plan_stage *g = &plan->stage[s];
    double free_at = 0, link_free = 0;
    for (int c = 0; c < chunks; c++) {
        double start = fmax(arrive[c], free_at);
        free_at = start + cost_stage_prefill(p, g->device, g->first_block, g->last_block, c);
        if (begin)
            begin[(size_t)s * (size_t)chunks + (size_t)c] = start;
        if (done)
            done[(size_t)s * (size_t)chunks + (size_t)c] = free_at;
        if (s + 1 < plan->stages) {
            int next = plan->stage[s + 1].device, tokens = cost_chunk_tokens(p, c);
            link_free = fmax(free_at, link_free) + cost_transfer(p, g->device, next, tokens);
            arrive[c] = link_free + cost_token_hop(p, g->device, next);
        }
    }
    return free_at;
}

double plan_prefill_times(const struct plan_problem *p, const struct plan *plan, double *begin, double *done)
{
    double arrive[PLAN_MAX_CHUNKS];
    int chunks = cost_chunks(p);
    double out = cost_token_hop(p, p->devices, plan->stage[0].device), last = 0;
    for (int c = 0; c < chunks; c++)
        arrive[c] = out;
    for (int s = 0; s < plan->stages; s++)
        last = prefill_stage(p, plan, s, chunks, arrive, begin, done);
    return last + cost_token_hop(p, plan->stage[plan->stages - 1].device, p->devices);
}

/* Σ stage + Σ hop + token hops of one micro-batch; also the slowest stage or transfer. */
static double around(const struct plan_problem *p, const struct plan *plan, int batch, double *slowest)
{
    double sum = cost_token_hop(p, p->devices, plan->stage[0].device), most = 0;
    for (int s = 0; s < plan->stages; s++) {
        const struct plan_stage *g = &plan->stage[s];
        double t = cost_stage_decode(p, g->device, g->first_block, g->last_block, batch);
        sum += t;
        most = fmax(most, t);
        if (s + 1 < plan->stages) {
            sum += cost_hop(p, g->device, plan->stage[s + 1].device, batch);
            most = fmax(most, cost_transfer(p, g->device, plan->stage[s + 1].device, batch));
        }
    }
    *slowest = most;
    return sum + cost_token_hop(p, plan->stage[plan->stages - 1].device, p->devices);
}

static double stage_weights(const struct plan_problem *p, const struct plan_stage *g)
{
    double bytes = g->last_block == p->model.blocks - 1 ? p->model.head_weight_bytes : 0;
    for (int b = g->first_block; b <= g->last_block; b++)
        bytes += p->model.block[b].weight_bytes;
    return bytes;
}

/* How long the cores, or the memory, of the busiest host are busy with one micro-batch through all of its stages. */
static double shared_host(const struct plan_problem *p, const struct plan *plan, int batch)
{
    double most = 0;
    for (int s = 0; s < plan->stages; s++) {
        const struct plan_device *d = &p->device[plan->stage[s].device];
        double computing = 0, bytes = 0;
        for (int o = 0; d->host && o < plan->stages; o++) {
            const struct plan_stage *g = &plan->stage[o];
            if (p->device[g->device].host != d->host)
                continue;
            computing += cost_stage_decode(p, g->device, g->first_block, g->last_block, batch) *
                         p->device[g->device].threads;
            bytes += stage_weights(p, g);
        }
        most = fmax(most, d->host_cores > 0 ? computing / d->host_cores : 0);
        most = fmax(most, d->host_read > 0 ? bytes / d->host_read : 0);
    }
    return most;
}

/* How long one micro-batch keeps the busiest stage, link or host; *through: its way through all of them. */
static double busiest(const struct plan_problem *p, const struct plan *plan, int batch, double *through)
{
    double slowest;
    *through = around(p, plan, batch, &slowest);
    return fmax(slowest, shared_host(p, plan, batch));
}

/* In which each of the workload's sequences gets a token, in micro-batches of the same size. */
static double cycle_of(const struct plan_problem *p, const struct plan *plan, int microbatches)
{
    double through, busy = busiest(p, plan, (p->workload.concurrency + microbatches - 1) / microbatches, &through);
    return fmax(microbatches * busy, through);
}

double plan_round(const struct plan_problem *p, const struct plan *plan, int microbatches)
{
    int small = p->workload.concurrency / microbatches, larger = p->workload.concurrency % microbatches;
    double few = 0, more = 0, busy = 0;
    if (small)
        busy += (microbatches - larger) * busiest(p, plan, small, &few);
    if (larger)
        busy += larger * busiest(p, plan, small + 1, &more);
    return fmax(busy, fmax(few, more));
}

static void predict_cycle(const struct plan_problem *p, struct plan *plan)
{
    int k = p->workload.concurrency;
    plan->cycle_s = INFINITY;
    for (int m = 1; m <= k; m++) {
        int batch = (k + m - 1) / m;
        if (m > 1 && batch == (k + m - 2) / (m - 1))
            continue; /* the same micro-batches, but more of them */
        double cycle = cycle_of(p, plan, m);
        if (cycle < plan->cycle_s * (1 - 1e-12)) {
            plan->cycle_s = cycle;
            plan->microbatches = m;
            plan->batch = batch;
        }
    }
    plan->tokens_per_s = plan->cycle_s > 0 ? k / plan->cycle_s : 0;
}

/* What takes the largest part of the objective: of TPOT, of a cycle's busiest resource, of the prompt's work. */
static void find_limit(const struct plan_problem *p, struct plan *plan)
{
    double most = -1;
    for (int s = 0; s < plan->stages; s++) {
        const struct plan_stage *g = &plan->stage[s];
        double t = plan->objective == PLAN_LATENCY ? g->decode_s
                   : plan->objective == PLAN_TTFT  ? g->prefill_s
                                                   : g->decode_batch_s;
        if (t > most) {
            most = t;
            plan->limit = s;
            plan->link_to = -1;
        }
        if (s + 1 == plan->stages)
            continue;
        int next = plan->stage[s + 1].device;
        t = plan->objective == PLAN_LATENCY ? cost_hop(p, g->device, next, 1)
            : plan->objective == PLAN_TTFT  ? cost_transfer(p, g->device, next, p->workload.prompt_tokens)
                                            : cost_transfer(p, g->device, next, plan->batch);
        if (t > most) {
            most = t;
            plan->limit = s;
            plan->link_to = s + 1;
        }
    }
}

static void predict(const struct plan_problem *p, struct plan *plan)
{
    double slowest;
    predict_cycle(p, plan);
    plan->tpot_s = around(p, plan, 1, &slowest);
    for (int s = 0; s < plan->stages; s++) {
        struct plan_stage *g = &plan->stage[s];
        g->memory_bytes = cost_stage_memory(p, g->device, g->first_block, g->last_block);
        g->decode_s = cost_stage_decode(p, g->device, g->first_block, g->last_block, 1);
        g->decode_batch_s = cost_stage_decode(p, g->device, g->first_block, g->last_block, plan->batch);
        g->prefill_s = 0;
        for (int c = 0; c < cost_chunks(p); c++)
            g->prefill_s += cost_stage_prefill(p, g->device, g->first_block, g->last_block, c);
    }
    plan->ttft_s = plan_prefill_times(p, plan, NULL, NULL);
    plan->value_s = plan->objective == PLAN_LATENCY ? plan->tpot_s
                    : plan->objective == PLAN_TTFT  ? plan->ttft_s
                                                    : plan->cycle_s;
    plan->bound_s = plan->value_s;
    find_limit(p, plan);
}

static int check_memory(const struct plan_problem *p, const struct plan *plan, struct error *e)
{
    for (int s = 0; s < plan->stages; s++) {
        const struct plan_stage *g = &plan->stage[s];
        const struct plan_device *d = &p->device[g->device];
        double need = cost_stage_memory(p, g->device, g->first_block, g->last_block);
        char a[UNITS_TEXT], b[UNITS_TEXT], c[UNITS_TEXT];
        if (need > d->memory)
            return error_set(e, ERR_MEMORY,
                             "stage %d does not fit: blocks %d to %d on %s need %s and it has %s; take %s or more of "
                             "blocks or cache off it",
                             s, g->first_block, g->last_block, d->name, cost_bytes_text(need, a),
                             cost_bytes_text(d->memory, b), cost_bytes_text(need - d->memory, c));
    }
    return 0;
}

int plan_evaluate(const struct plan_problem *p, const int *order, const int *counts, int stages, struct plan *out,
                  struct error *e)
{
    int rc = plan_problem_check(p, e), first = 0;
    if (rc)
        return rc;
    if (stages < 1 || stages > p->devices)
        return error_set(e, ERR_USAGE, "%d stages over %d devices; a device holds one stage", stages, p->devices);
    struct plan plan = {.objective = p->objective, .stages = stages};
    uint64_t used = 0;
    for (int s = 0; s < stages; s++) {
        if (order[s] < 0 || order[s] >= p->devices || (used >> order[s] & 1))
            return error_set(e, ERR_USAGE, "stage %d: each stage needs a device of its own", s);
        if (counts[s] < 1 || counts[s] > p->model.blocks - first)
            return error_set(e, ERR_USAGE, "stage %d: the blocks of the stages must add up to %d, each at least 1", s,
                             p->model.blocks);
        used |= UINT64_C(1) << order[s];
        plan.stage[s] = (struct plan_stage){.device = order[s], .first_block = first, .last_block = first + counts[s] - 1};
        first += counts[s];
    }
    if (first != p->model.blocks)
        return error_set(e, ERR_USAGE, "the stages hold %d blocks and the model has %d", first, p->model.blocks);
    if (p->pin_first >= 0 && order[0] != p->pin_first)
        return error_set(e, ERR_USAGE, "pin_first wants block 0 on %s, not on %s", p->device[p->pin_first].name,
                         p->device[order[0]].name);
    if ((rc = check_memory(p, &plan, e)))
        return rc;
    predict(p, &plan);
    *out = plan;
    return 0;
}

int plan_single(const struct plan_problem *p, struct plan *out, struct error *e)
{
    struct plan best = {0};
    for (int d = 0; d < p->devices; d++) {
        struct plan plan;
        if (plan_evaluate(p, &d, &p->model.blocks, 1, &plan, NULL) == 0 &&
            (!best.stages || plan.value_s < best.value_s * (1 - 1e-12)))
            best = plan;
    }
    if (!best.stages)
        return error_set(e, ERR_INFEASIBLE, "no device holds the whole model");
    *out = best;
    return 0;
}
