/* Latency and throughput: plans judged by decode steps.
 *
 * Latency is the sum of stages and hops: one relaxation, one beam, one exact search. Throughput for m micro-batches is
 * max(m x slowest, sum): plans below V have no stage or transfer above V/m and no sum above V, so the question "is there
 * a plan below V" is a latency search under a limit, asked with falling V until the answer is no. Pure. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"
#include "planner/solver.h"

double cost_layer_decode(const struct plan_problem *p, int device, enum layer_part part, int block, const void *context)
{
    int batch = *(const int *)context;
    switch (part) {
    case LAYER_BLOCK:
        return cost_block_decode(p, device, block, batch);
    case LAYER_OVERHEAD:
        return p->device[device].overhead_s;
    case LAYER_FIRST:
        return cost_embedding(p, device, batch);
    default:
        return cost_head_decode(p, device, batch);
    }
}

/* More than any plan costs in decode steps of this batch, in seconds. */
static double ceiling(const struct space *s, int batch)
{
    double transfer = 0;
    const struct plan_problem *p = s->p;
    for (int a = 0; a < p->devices; a++)
        for (int b = 0; b < p->devices; b++) {
            double t = cost_transfer(p, a, b, batch);
            transfer = t > transfer ? t : transfer;
        }
    return space_ceiling(s, cost_layer_decode, &batch) + transfer * p->devices;
}

static void limit_hops(struct decode_track *t, const struct space *s, ticks most)
{
    for (size_t i = 0; i < (size_t)s->types * (size_t)s->types; i++)
        t->limited_hop[i] = t->micro && t->busy[i] > most ? TICKS_NEVER : t->hop[i];
}

int decode_track_new(struct decode_track *t, struct solver *v, int batch, int micro)
{
    const struct space *s = v->space;
    size_t pairs = (size_t)s->types * (size_t)s->types;
    *t = (struct decode_track){.batch = batch, .micro = micro};
    if (layer_new(&t->layer, s, cost_layer_decode, &batch) || !(t->busy = space_transfer(s, batch)) ||
        !(t->hop = mem_alloc(pairs * sizeof(ticks))) || !(t->limited_hop = mem_alloc(pairs * sizeof(ticks)))) {
        decode_track_free(t);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < pairs; i++)
        t->hop[i] = s->lag[i] >= TICKS_NEVER ? TICKS_NEVER : s->lag[i] + t->busy[i];
    t->relaxation = (struct relaxation){.space = s, .limits = &v->limits, .after = &t->layer, .after_last = &t->layer,
                                        .after_hop = t->limited_hop, .depths = v->depths};
    if (bound_new(&t->bound, &t->relaxation)) {
        decode_track_free(t);
        return ERR_NOMEM;
    }
    return 0;
}

void decode_track_free(struct decode_track *t)
{
    layer_free(&t->layer);
    mem_free(t->busy);
    mem_free(t->hop);
    mem_free(t->limited_hop);
    bound_free(&t->bound);
    *t = (struct decode_track){0};
}

/* Under no limit (most TICKS_NEVER) or with no stage and no transfer above most. */
static void set_limit(struct decode_track *t, struct solver *v, ticks most)
{
    limits_set(&v->limits, v->space, t->micro ? &t->layer : NULL, 0, most);
    limit_hops(t, v->space, most);
}

static void prepare(struct search *s, const struct decode_track *t, ticks below)
{
    *s = (struct search){.tracks = 1, .guides = 1, .best = below, .work_factor = t->micro};
    s->track[0] = (struct track){&t->layer, &t->layer, t->busy, t->busy};
    s->guide[0] = (struct guide){&t->bound, 0};
    if (t->micro) {
        s->work = &t->layer;
        s->work_busy = t->busy;
    }
}

/* No limit: bounds on the sum alone. */
static void tune_free(struct decode_track *t, struct solver *v, int steps)
{
    set_limit(t, v, TICKS_NEVER);
    bound_start(&t->bound, &t->relaxation);
    bound_run(&t->bound, &t->relaxation);
    ticks root = t->bound.root;
    bound_tune(&t->bound, &t->relaxation, v->best < TICKS_NEVER ? v->best : root + root / 8, steps);
}

/* Whether the relaxation has a walk below `value` at prices tuned by so many steps; leaves limits and tables for it. */
static bool may_be_below(struct decode_track *t, struct solver *v, ticks value, int steps)
{
    struct bound *b = &t->bound;
    set_limit(t, v, (value - 1) / t->micro);
    bound_start(b, &t->relaxation);
    bound_run(b, &t->relaxation);
    if (steps && b->root < value)
        bound_tune(b, &t->relaxation, value < TICKS_NEVER ? value : b->root + b->root / 8, steps);
    return b->root < value;
}

/* The tie rule over tracks of the same best value: each with its batch, the plans counted in `micro` batches. */
static int settle_ties(struct solver *v, const int *batch, const int *micro, int n)
{
    struct space *s = v->space;
    struct candidate best = v->found;
    int fixed = s->stages, rc = 0, most = v->found.stages, depths = v->depths;
    int64_t left = SOLVER_TIE_EFFORT;
    bool any = false;
    for (int stages = fixed ? fixed : 1; stages <= most && !any && rc >= 0; stages++)
        for (int i = 0; i < n && rc >= 0; i++) {
            struct decode_track t;
            struct search search;
            s->stages = stages;
            v->depths = stages + 1;
            if ((rc = decode_track_new(&t, v, batch[i], micro[i])))
                break;
            if (micro[i])
                may_be_below(&t, v, v->best + 1, 40);
            else
                tune_free(&t, v, 40);
            prepare(&search, &t, v->best + 1);
            if (t.bound.root <= v->best)
                rc = solver_first_sequence(v, &search, &left);
            if (rc == 1 && (!any || solver_earlier(&search.found, &best))) {
                best = search.found;
                any = true;
            }
            decode_track_free(&t);
        }
    s->stages = fixed;
    v->depths = depths;
    v->found = best;
    return rc == ERR_NOMEM ? rc : 0;
}

int solve_latency(struct solver *v)
{
    struct decode_track t;
    struct search s;
    int rc = space_set_tick(v->space, ceiling(v->space, 1));
    if (rc || (rc = decode_track_new(&t, v, 1, 0)))
        return rc;
    v->best = solver_start(v);
    set_limit(&t, v, TICKS_NEVER);
    bound_run(&t.bound, &t.relaxation);
    v->lower = t.bound.root;
    if (v->lower >= v->best)
        goto done;
    tune_free(&t, v, 20);
    v->lower = t.bound.root > v->lower ? t.bound.root : v->lower;
    prepare(&s, &t, TICKS_NEVER);
    if ((rc = solver_search(v, &s, 32, false, 1, NULL)))
        goto done;
    bound_tune(&t.bound, &t.relaxation, v->best < TICKS_NEVER ? v->best : 2 * v->lower, 300);
    if (t.bound.root > v->lower)
        v->lower = t.bound.root;
    if (v->lower >= v->best)
        goto done;
    prepare(&s, &t, TICKS_NEVER);
    ticks lower = 0;
    rc = solver_search(v, &s, 256, true, 1, &lower);
    v->lower = lower > v->lower ? lower : v->lower;
done:
    if (v->lower > v->best)
        v->lower = v->best;
    decode_track_free(&t);
    if (!rc && solver_proven(v))
        rc = settle_ties(v, &(int){1}, &(int){0}, 1);
    return rc;
}

/* Throughput */

/* Raises t->lower to about the least value the relaxation allows; `high` is one above which nobody asks. */
static void relaxed_lower(struct decode_track *t, struct solver *v, ticks high)
{
    set_limit(t, v, TICKS_NEVER);
    bound_run(&t->bound, &t->relaxation);
    ticks low = t->bound.root;
    if (low >= high || !may_be_below(t, v, high, 0)) {
        t->lower = high;
        return;
    }
    for (int i = 0; i < 40 && high - low > low >> 14; i++) {
        ticks middle = low + (high - low) / 2;
        if (may_be_below(t, v, middle, 0))
            high = middle;
        else
            low = middle;
    }
    t->lower = low;
}

/* Better plans by beams under ever tighter limits. */
static int beam_down(struct decode_track *t, struct solver *v, int width, int steps)
{
    ticks low = t->lower;
    for (int i = 0; i < steps && low < v->best; i++) {
        ticks value = v->best >= TICKS_NEVER ? (low < TICKS_NEVER / 4 ? low + low / 4 + 1 : v->best)
                                             : low + (v->best - low + 1) / 2;
        struct search s;
        ticks before = v->best;
        if (may_be_below(t, v, value, 15)) {
            prepare(&s, t, value);
            int rc = solver_search(v, &s, width, false, 1, NULL);
            if (rc)
                return rc;
        }
        if (v->best == before)
            low = value;
    }
    return 0;
}

/* Proves that no plan of this track is below v->best, or finds one, or spends its share of the budget. */
static int prove(struct decode_track *t, struct solver *v, double share)
{
    for (int round = 0; round < 200 && t->lower < v->best; round++) {
        /* The best plan first; when that stays open, lower values, which are easier to refute. */
        ticks value = v->best, lower = 0;
        struct search s;
        if (!may_be_below(t, v, value, 120)) {
            t->lower = value;
            return 0;
        }
        prepare(&s, t, value);
        int rc = solver_search(v, &s, 128, true, share, &lower);
        if (rc)
            return rc;
        if (v->best < value)
            continue;
        if (!s.cut) {
            t->lower = value;
            return 0;
        }
        t->lower = lower > t->lower ? lower : t->lower;
        break;
    }
    /* The budget ended: raise the bound by refuting values in between with prices alone. */
    ticks low = t->lower, high = v->best;
    for (int i = 0; i < 10 && high - low > low >> 10; i++) {
        ticks middle = low + (high - low) / 2;
        if (may_be_below(t, v, middle, 60))
            high = middle;
        else
            low = middle;
    }
    t->lower = low;
    return 0;
}

/* Local changes to the best plan so far, judged by this track. */
static void improve(struct decode_track *t, struct solver *v)
{
    struct search s;
    int size = v->space->types * v->space->blocks;
    if (v->best >= TICKS_NEVER || v->space->stages || v->space->exclude_stages || t->lower >= v->best)
        return;
    struct candidate c = v->found;
    ticks value = v->best;
    prepare(&s, t, TICKS_NEVER);
    s.space = v->space;
    if (search_local(&s, &c, &value, size < 1300 ? 25 * size : 40000) && value < v->best) {
        v->found = c;
        v->best = value;
    }
}

static int by_lower(const void *a, const void *b)
{
    const struct decode_track *const *x = a, *const *y = b;
    if ((*x)->lower != (*y)->lower)
        return (*x)->lower < (*y)->lower ? -1 : 1;
    return (*x)->micro - (*y)->micro;
}

/* The distinct batch sizes of a concurrency, each with the fewest micro-batches that reach it. */
static int list_batches(int concurrency, int *micro)
{
    int n = 0;
    for (int m = 1; m <= concurrency; m++)
        if (m == 1 || (concurrency + m - 1) / m != (concurrency + m - 2) / (m - 1))
            micro[n++] = m;
    return n;
}

int solve_throughput(struct solver *v)
{
    int k = v->p->workload.concurrency, micro[2 * 64 + 2], rc = 0;
    int n = list_batches(k, micro);
    struct decode_track *tracks = mem_zalloc((size_t)n, sizeof *tracks), **order;
    order = mem_zalloc((size_t)n, sizeof(struct decode_track *));
    double most = 0;
    if (!tracks || !order)
        rc = ERR_NOMEM;
    for (int i = 0; i < n && !rc; i++) {
        double c = ceiling(v->space, (k + micro[i] - 1) / micro[i]);
        most = c > most ? c : most;
        order[i] = &tracks[i];
    }
    if (!rc)
        rc = space_set_tick(v->space, most);
    v->best = solver_start(v);
    for (int i = 0; i < n && !rc; i++) {
        struct search s;
        rc = decode_track_new(&tracks[i], v, (k + micro[i] - 1) / micro[i], micro[i]);
        if (rc)
            break;
        set_limit(&tracks[i], v, TICKS_NEVER);
        bound_run(&tracks[i].bound, &tracks[i].relaxation);
        tracks[i].lower = tracks[i].bound.root;
        if (!may_be_below(&tracks[i], v, v->best, 15))
            continue;
        prepare(&s, &tracks[i], TICKS_NEVER);
        rc = solver_search(v, &s, 16, false, 1, NULL);
    }
    for (int i = 0; i < n && !rc; i++)
        if (v->best < TICKS_NEVER)
            relaxed_lower(&tracks[i], v, v->best);
    if (!rc)
        qsort(order, (size_t)n, sizeof(struct decode_track *), by_lower);
    for (int i = 0; i < n && !rc; i++)
        rc = beam_down(order[i], v, 64, 8);
    for (int i = 0; i < n && i < 4 && !rc; i++)
        improve(order[i], v);
    for (int i = 0; i < n && !rc; i++)
        rc = prove(order[i], v, i + 1 < n ? 0.7 : 1);
    v->lower = TICKS_NEVER;
    for (int i = 0; i < n && !rc; i++)
        v->lower = order[i]->lower < v->lower ? order[i]->lower : v->lower;
    if (v->lower > v->best)
        v->lower = v->best;
    if (!rc && solver_proven(v)) {
        int batch[2 * 64 + 2], m = 0;
        for (int i = 0; i < n; i++)
            if (tracks[i].lower <= v->best) {
                batch[m] = tracks[i].batch;
                micro[m++] = tracks[i].micro;
            }
        rc = settle_ties(v, batch, micro, m);
    }
    for (int i = 0; tracks && i < n; i++)
        decode_track_free(&tracks[i]);
    mem_free(tracks);
    mem_free(order);
    return rc;
}
