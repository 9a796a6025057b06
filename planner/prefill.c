/* TTFT: plans judged by when the last chunk of the prompt leaves the last stage.
 *
 * That moment is the longest chain through (machine, chunk), machines being stages and links. One chain runs with the
 * first chunk to the busiest machine, with all chunks through it, and with the last chunk onward; so the plans are cut
 * into bands by the work of their busiest machine, each band has a two-mode relaxation (bound.h), and the bands that it
 * cannot refute are searched exactly, with one time for each chunk in the labels. Prompts of very many chunks carry the
 * times of a few of them, which bounds from below, and whole plans are then judged by the full recursion. Pure. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"
#include "planner/solver.h"

/* Steps: runs of a bound that tune its prices, before a beam and before an exact search. */
enum { MAX_BANDS = 96, FEW_TRACKS = 6, BEAM_STEPS = 12, EXACT_STEPS = 60 };
#define ROUND_EFFORT 4e7

/* Chunks first..last of the prompt as one piece of work. */
struct piece {
    int first, last;
};

static double cost_layer_prefill(const struct plan_problem *p, int device, enum layer_part part, int block,
                                 const void *context)
{
    const struct piece *w = context;
    double sum = 0;
    for (int c = w->first; c <= w->last; c++)
        switch (part) {
        case LAYER_BLOCK:
            sum += cost_block_prefill(p, device, block, cost_chunk_tokens(p, c), (double)c * p->workload.chunk);
            break;
        case LAYER_OVERHEAD:
            sum += p->device[device].overhead_s;
            break;
        case LAYER_FIRST:
            sum += cost_embedding(p, device, cost_chunk_tokens(p, c));
            break;
        case LAYER_HEAD:
            sum += c == cost_chunks(p) - 1 ? cost_head_decode(p, device, 1) : 0;
            break;
        }
    return sum;
}

struct prefill {
    struct solver *v;
    int tracks;
    bool exact; /* a track for each chunk */
    int64_t runs; /* of bounds that may still be spent on pricing bands in this round */
    bool brief; /* a small budget or very many types: fewer bands, once */
    struct layer single[SEARCH_MAX_TRACKS], run[SEARCH_MAX_TRACKS], tail[SEARCH_MAX_TRACKS];
    ticks *single_busy[SEARCH_MAX_TRACKS], *run_busy[SEARCH_MAX_TRACKS], *work_busy;
    ticks *hop[SEARCH_MAX_TRACKS]; /* single_busy + lag, NEVER over the limit */
    struct relaxation chain[SEARCH_MAX_TRACKS]; /* one chunk all the way, the later ones at the last stage */
    struct bound chain_bound[SEARCH_MAX_TRACKS];
    /* Through the busiest machine until the i-th last track, and onward with that: two chains. */
    int ways;
    struct layer through[2];
    ticks *through_busy[2], *cross[2];
    struct relaxation bottleneck[2];
    struct bound bottleneck_bound[2];
};

static void prefill_free(struct prefill *f)
{
    for (int i = 0; i < f->tracks; i++) {
        layer_free(&f->single[i]);
        layer_free(&f->run[i]);
        layer_free(&f->tail[i]);
        mem_free(f->single_busy[i]);
        mem_free(f->run_busy[i]);
        mem_free(f->hop[i]);
        bound_free(&f->chain_bound[i]);
    }
    mem_free(f->work_busy);
    for (int w = 0; w < 2; w++) {
        layer_free(&f->through[w]);
        mem_free(f->through_busy[w]);
        mem_free(f->cross[w]);
        bound_free(&f->bottleneck_bound[w]);
    }
    mem_free(f);
}

/* Which chunks have a track: all, or the first, some between, and the last two. */
static int choose_chunks(const struct prefill *f, int chunks, int *chunk)
{
    const struct space *s = f->v->space;
    int most = s->blocks * s->types <= 160 ? SEARCH_MAX_TRACKS : 8;
    if (chunks <= most) {
        for (int i = 0; i < chunks; i++)
            chunk[i] = i;
        return chunks;
    }
    for (int i = 0; i < FEW_TRACKS - 1; i++)
        chunk[i] = (int)((int64_t)(chunks - 2) * i / (FEW_TRACKS - 2));
    chunk[FEW_TRACKS - 1] = chunks - 1;
    return FEW_TRACKS;
}

static int new_track(struct prefill *f, int i, int before, int chunk)
{
    const struct space *s = f->v->space;
    const struct plan_problem *p = s->p;
    struct piece alone = {chunk, chunk}, run = {before + 1, chunk};
    double tokens = 0;
    for (int c = run.first; c <= run.last; c++)
        tokens += cost_chunk_tokens(p, c);
    if (layer_new(&f->single[i], s, cost_layer_prefill, &alone) || layer_new(&f->run[i], s, cost_layer_prefill, &run))
        return ERR_NOMEM;
    f->single_busy[i] = space_transfer(s, cost_chunk_tokens(p, chunk));
    f->run_busy[i] = space_transfer(s, tokens);
    f->hop[i] = mem_zalloc((size_t)s->types * (size_t)s->types, sizeof(ticks));
    return f->single_busy[i] && f->run_busy[i] && f->hop[i] ? 0 : ERR_NOMEM;
}

/* The tails: a track's chunk with all later ones behind it. The first one is the whole prompt, a machine's work. */
static int new_tails(struct prefill *f)
{
    const struct space *s = f->v->space;
    struct piece nothing = {1, 0};
    struct layer rest, next;
    int rc = layer_new(&rest, s, cost_layer_prefill, &nothing);
    for (int i = f->tracks - 1; i >= 0 && !rc; i--) {
        rc = layer_sum(&f->tail[i], s, &f->single[i], &rest);
        if (!rc && !(rc = layer_sum(&next, s, &f->run[i], &rest))) {
            layer_free(&rest);
            rest = next;
        }
    }
    layer_free(&rest);
    size_t pairs = (size_t)s->types * (size_t)s->types;
    f->work_busy = mem_zalloc(pairs, sizeof(ticks));
    if (rc || !f->work_busy)
        return ERR_NOMEM;
    for (size_t k = 0; k < pairs; k++)
        for (int i = 0; i < f->tracks; i++) {
            ticks sum = f->work_busy[k] + (i ? f->run_busy[i] : f->single_busy[i])[k];
            f->work_busy[k] = sum < TICKS_NEVER ? sum : TICKS_NEVER;
        }
    return 0;
}

/* More than the whole prompt costs on any plan, in seconds. */
static double ceiling(const struct space *s)
{
    const struct plan_problem *p = s->p;
    struct piece all = {0, cost_chunks(p) - 1};
    double transfer = 0;
    for (int a = 0; a < p->devices; a++)
        for (int b = 0; b < p->devices; b++) {
            double t = cost_transfer(p, a, b, p->workload.prompt_tokens);
            transfer = t > transfer ? t : transfer;
        }
    return space_ceiling(s, cost_layer_prefill, &all) + transfer * p->devices;
}

/* The chain that leaves the busiest machine with track i. */
static int new_bottleneck(struct prefill *f, int w, int i)
{
    struct solver *v = f->v;
    const struct space *s = v->space;
    size_t pairs = (size_t)s->types * (size_t)s->types;
    struct piece nothing = {1, 0};
    struct layer zero = {0};
    int rc = layer_new(&zero, s, cost_layer_prefill, &nothing);
    if (!rc)
        rc = layer_sum(&f->through[w], s, &f->single[0], &zero);
    for (int k = 1; k <= i && !rc; k++) {
        struct layer sum;
        if (!(rc = layer_sum(&sum, s, &f->through[w], &f->run[k]))) {
            layer_free(&f->through[w]);
            f->through[w] = sum;
        }
    }
    layer_free(&zero);
    f->through_busy[w] = mem_zalloc(pairs, sizeof(ticks));
    f->cross[w] = mem_zalloc(pairs, sizeof(ticks));
    if (rc || !f->through_busy[w] || !f->cross[w])
        return ERR_NOMEM;
    for (size_t k = 0; k < pairs; k++)
        for (int q = 0; q <= i; q++) {
            ticks sum = f->through_busy[w][k] + (q ? f->run_busy[q] : f->single_busy[q])[k];
            f->through_busy[w][k] = sum < TICKS_NEVER ? sum : TICKS_NEVER;
        }
    /* Its last stage has the later chunks behind it, whether it is the bottleneck or not. */
    f->bottleneck[w] = (struct relaxation){.space = s, .limits = &v->limits, .after = &f->single[i],
                                           .after_last = &f->tail[i], .after_hop = f->hop[i], .before = &f->single[0],
                                           .before_hop = f->hop[0], .work = &f->through[w], .total = &f->tail[0],
                                           .cross_hop = f->cross[w], .depths = v->depths};
    return bound_new(&f->bottleneck_bound[w], &f->bottleneck[w]);
}

static int prefill_new(struct prefill **out, struct solver *v)
{
    int chunk[SEARCH_MAX_TRACKS], chunks = cost_chunks(v->p);
    struct prefill *f = mem_zalloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    f->v = v;
    const struct space *s = v->space;
    f->brief = v->max_states < 10000 || (double)s->types * s->types * s->blocks > 150000;
    int wanted = choose_chunks(f, chunks, chunk), rc = 0;
    f->exact = wanted == chunks;
    f->ways = wanted > 1 ? 2 : 1;
    for (int i = 0; i < wanted && !rc; i++) {
        f->tracks = i + 1;
        rc = new_track(f, i, i ? chunk[i - 1] : -1, chunk[i]);
    }
    if (!rc)
        rc = new_tails(f);
    for (int i = 0; i < f->tracks && !rc; i++) {
        f->chain[i] = (struct relaxation){.space = v->space, .limits = &v->limits, .after = &f->single[i],
                                          .after_last = &f->tail[i], .after_hop = f->hop[i], .depths = v->depths};
        rc = bound_new(&f->chain_bound[i], &f->chain[i]);
    }
    for (int w = 0; w < f->ways && !rc; w++)
        rc = new_bottleneck(f, w, f->tracks - 1 - w);
    if (rc) {
        prefill_free(f);
        return rc;
    }
    *out = f;
    return 0;
}

/* Only plans whose busiest machine works from least to most. */
static void set_band(struct prefill *f, ticks least, ticks most)
{
    const struct space *s = f->v->space;
    limits_set(&f->v->limits, s, &f->tail[0], least, most);
    for (size_t k = 0; k < (size_t)s->types * (size_t)s->types; k++) {
        bool over = s->lag[k] >= TICKS_NEVER || f->work_busy[k] > most;
        for (int i = 0; i < f->tracks; i++)
            f->hop[i][k] = over ? TICKS_NEVER : f->single_busy[i][k] + s->lag[k];
        for (int w = 0; w < f->ways; w++)
            f->cross[w][k] = over || f->work_busy[k] < least ? TICKS_NEVER : f->through_busy[w][k] + s->lag[k];
    }
}

static ticks judge(const void *context, const struct candidate *c)
{
    const struct prefill *f = context;
    struct plan plan = {.stages = c->stages};
    for (int i = 0; i < c->stages; i++)
        plan.stage[i] = (struct plan_stage){.device = c->device[i], .first_block = i ? c->end[i - 1] : 0,
                                            .last_block = c->end[i] - 1};
    return space_ticks(f->v->space, plan_prefill_times(f->v->p, &plan, NULL, NULL));
}

static void prepare(struct search *s, const struct prefill *f, bool banded)
{
    *s = (struct search){.tracks = f->tracks, .best = TICKS_NEVER, .work = &f->tail[0], .work_busy = f->work_busy};
    for (int i = 0; i < f->tracks; i++) {
        s->track[i] = (struct track){&f->single[i], &f->run[i], f->single_busy[i], f->run_busy[i]};
        s->guide[s->guides++] = (struct guide){&f->chain_bound[i], i};
    }
    for (int w = 0; banded && w < f->ways; w++)
        s->guide[s->guides++] = (struct guide){&f->bottleneck_bound[w], f->tracks - 1 - w};
    if (!f->exact) {
        s->judge = judge;
        s->judge_context = f;
    }
}

/* Tables of all chains; they share the prices of one, which the bottleneck's may lend. */
static void run_chains(struct prefill *f, const ticks *lambda)
{
    for (int i = 0; i < f->tracks; i++) {
        if (lambda)
            memcpy(f->chain_bound[i].lambda, lambda, sizeof f->chain_bound[i].lambda);
        bound_run(&f->chain_bound[i], &f->chain[i]);
    }
}

struct band {
    ticks least, most, lower;
    ticks lambda[2][PLAN_MAX_DEVICES]; /* the best prices so far */
    ticks root[2];
};

/* Whether any walk keeps every machine's work within most. */
static bool reachable(struct prefill *f, ticks most)
{
    set_band(f, 0, most);
    bound_run(&f->chain_bound[0], &f->chain[0]);
    return f->chain_bound[0].root < TICKS_NEVER;
}

static ticks least_work(struct prefill *f, ticks high)
{
    ticks low = 0;
    while (high - low > 1 + (high >> 12)) {
        ticks middle = low + (high - low) / 2;
        if (reachable(f, middle))
            high = middle;
        else
            low = middle;
    }
    return low;
}

/* Tries the start prices against those the band has, tunes the better ones, leaves their tables. */
static void price_way(struct prefill *f, struct band *b, int w, int steps)
{
    struct bound *bound = &f->bottleneck_bound[w];
    const struct relaxation *r = &f->bottleneck[w];
    ticks best = f->v->best;
    f->runs -= steps;
    memcpy(bound->lambda, b->lambda[w], sizeof bound->lambda);
    bound_run(bound, r);
    ticks old = bound->root;
    if (old < best && steps > 20) {
        bound_start(bound, r);
        bound_run(bound, r);
        if (bound->root < old)
            memcpy(bound->lambda, b->lambda[w], sizeof bound->lambda);
    }
    if (old < best)
        bound_tune(bound, r, best < TICKS_NEVER ? best : old + old / 8, steps);
    memcpy(b->lambda[w], bound->lambda, sizeof bound->lambda);
    b->root[w] = bound->root;
    b->lower = bound->root > b->lower ? bound->root : b->lower;
}

static void price_band(struct prefill *f, struct band *b, int steps)
{
    set_band(f, b->least, b->most);
    int first = f->ways == 2 && b->root[1] > b->root[0];
    for (int w = 0; w < f->ways && b->lower < f->v->best; w++)
        price_way(f, b, w ^ first, steps);
}

static int search_band(struct prefill *f, struct band *b, int beam, bool exact, double share)
{
    struct search s;
    ticks lower = 0;
    price_band(f, b, f->runs <= 0 ? 1 : exact ? EXACT_STEPS : BEAM_STEPS);
    if (b->lower >= f->v->best || (exact && f->v->states >= f->v->max_states))
        return 0;
    run_chains(f, b->lambda[b->root[0] < b->root[f->ways - 1] ? f->ways - 1 : 0]);
    prepare(&s, f, true);
    int rc = solver_search(f->v, &s, beam, exact, share, &lower);
    if (!rc && lower > b->lower)
        b->lower = lower;
    return rc;
}

/* The band with the least bound that could still hold a better plan and is wide enough to cut; -1: none. */
static int worst_band(const struct band *band, int n, ticks best)
{
    int worst = -1;
    for (int i = 0; i < n; i++)
        if (band[i].lower < best && band[i].most - band[i].least > band[i].least / 24 + 1 &&
            (worst < 0 || band[i].lower < band[worst].lower))
            worst = i;
    return worst;
}

/* Cuts [least, most] into bands, finest where the bounds are lowest. */
static int cut_bands(struct prefill *f, struct band *band, int most_bands, ticks least, ticks most)
{
    int n = 1, i;
    band[0] = (struct band){.least = least, .most = most};
    price_band(f, &band[0], 40);
    while (n < most_bands && f->runs > 0 && (i = worst_band(band, n, f->v->best)) >= 0) {
        double cut = sqrt((double)(band[i].least + 1) * (double)(band[i].most + 1));
        ticks middle = (ticks)cut;
        if (middle < band[i].least || middle >= band[i].most)
            middle = band[i].least + (band[i].most - band[i].least) / 2;
        band[n] = band[i];
        band[n].least = middle + 1;
        band[i].most = middle;
        price_band(f, &band[i], 8);
        price_band(f, &band[n++], 8);
    }
    return n;
}

static int by_lower(const void *a, const void *b)
{
    const struct band *x = a, *y = b;
    return x->lower != y->lower ? (x->lower < y->lower ? -1 : 1) : (x->least > y->least) - (x->least < y->least);
}

/* Local changes to the best plan so far. */
static void improve(struct prefill *f)
{
    struct solver *v = f->v;
    struct search s;
    if (v->best >= TICKS_NEVER || v->space->stages || v->space->exclude_stages)
        return;
    struct candidate c = v->found;
    ticks value = v->best;
    prepare(&s, f, false);
    s.space = v->space;
    /* With few tracks the search goes by their times, and the full recursion judges what it found. */
    int size = v->space->types * v->space->blocks;
    int effort = f->brief && size < 5000 ? 4 * size : size < 1300 ? 75 * size : 100000;
    if (!search_local(&s, &c, &value, effort))
        return;
    if (!f->exact)
        value = judge(f, &c);
    if (value < v->best) {
        v->found = c;
        v->best = value;
    }
}

/* A given order and a small budget: a good split, without proof beyond the chain's. */
static bool split_order(struct prefill *f)
{
    struct solver *v = f->v;
    const struct space *s = v->space;
    struct search search;
    if (!f->brief || v->max_states >= 10000 || !s->has_order || s->has_counts)
        return false;
    struct candidate c = v->found;
    ticks value = v->best;
    if (value >= TICKS_NEVER)
        for (c.stages = 0; c.stages < s->stages; c.stages++)
            c.device[c.stages] = s->member[s->first_member[s->order_type[c.stages]]];
    prepare(&search, f, false);
    search.space = s;
    bool found = search_split(&search, &c, &value, 3000);
    if (found && !f->exact)
        value = judge(f, &c);
    if (found && value < v->best) {
        v->found = c;
        v->best = value;
    }
    v->cut = true;
    return v->best < TICKS_NEVER;
}

/* Runs of a bound that take about a tenth of a second. */
static int64_t round_runs(const struct space *s)
{
    return 1 + (int64_t)(ROUND_EFFORT / ((double)s->types * s->types * s->blocks));
}

static int open_bands(const struct band *band, int n, ticks best)
{
    int open = 0;
    for (int i = 0; i < n; i++)
        open += band[i].lower < best;
    return open;
}

static int solve(struct prefill *f)
{
    struct solver *v = f->v;
    struct search s;
    struct band band[MAX_BANDS];
    ticks never = (ticks)1 << 52, lower;
    set_band(f, 0, never);
    run_chains(f, NULL);
    v->lower = f->chain_bound[0].root;
    if (v->lower >= v->best || split_order(f))
        return 0;
    bound_start(&f->chain_bound[0], &f->chain[0]);
    bound_run(&f->chain_bound[0], &f->chain[0]);
    bound_tune(&f->chain_bound[0], &f->chain[0], f->chain_bound[0].root + f->chain_bound[0].root / 8, 20);
    v->lower = f->chain_bound[0].root > v->lower ? f->chain_bound[0].root : v->lower;
    run_chains(f, f->chain_bound[0].lambda);
    prepare(&s, f, false);
    int rc = solver_search(v, &s, 32, false, 1, NULL);
    if (rc || v->lower >= v->best)
        return rc;
    improve(f);
    ticks high = v->best < TICKS_NEVER ? v->best : never, least = least_work(f, high);
    int n = 0;
    /* Twice: the beams of the first cut lower the best, which the second needs to cut in the right places. */
    for (int round = f->brief; round < 2 && !rc; round++) {
        f->runs = round_runs(v->space);
        high = v->best < TICKS_NEVER ? v->best : never;
        n = least < high ? cut_bands(f, band, round && !f->brief ? MAX_BANDS : MAX_BANDS / 4, least, high) : 0;
        qsort(band, (size_t)n, sizeof *band, by_lower);
        for (int i = 0; i < n && !rc; i++)
            if (band[i].lower < v->best)
                rc = search_band(f, &band[i], round ? 64 : 32, false, 1);
        improve(f);
    }
    f->runs = round_runs(v->space);
    for (int i = 0; i < n && !rc; i++)
        if (band[i].lower < v->best)
            rc = search_band(f, &band[i], 0, true, 2.0 / (1 + open_bands(band + i, n - i, v->best)));
    lower = v->best;
    for (int i = 0; i < n; i++)
        lower = band[i].lower < lower ? band[i].lower : lower;
    v->lower = lower > v->lower ? lower : v->lower;
    return rc;
}

/* The tie rule: tables by stages to come, of the chains alone. */
static int settle_ties(struct solver *v)
{
    struct space *s = v->space;
    int fixed = s->stages, rc = 0, most = v->found.stages, depths = v->depths;
    int64_t left = SOLVER_TIE_EFFORT;
    for (int stages = fixed ? fixed : 1; stages <= most && rc == 0; stages++) {
        struct prefill *f;
        struct search search;
        s->stages = stages;
        v->depths = stages + 1;
        if ((rc = prefill_new(&f, v)))
            break;
        set_band(f, 0, v->best);
        bound_start(&f->chain_bound[0], &f->chain[0]);
        bound_tune(&f->chain_bound[0], &f->chain[0], v->best + 1, 40);
        run_chains(f, f->chain_bound[0].lambda);
        prepare(&search, f, false);
        if (f->chain_bound[0].root <= v->best)
            rc = solver_first_sequence(v, &search, &left);
        if (rc == 1)
            v->found = search.found;
        prefill_free(f);
    }
    s->stages = fixed;
    v->depths = depths;
    return rc == ERR_NOMEM ? rc : 0;
}

int solve_ttft(struct solver *v)
{
    struct prefill *f;
    int rc = space_set_tick(v->space, ceiling(v->space));
    if (rc || (rc = prefill_new(&f, v)))
        return rc;
    v->best = solver_start(v);
    rc = solve(f);
    if (v->lower > v->best)
        v->lower = v->best;
    bool exact = f->exact;
    prefill_free(f);
    if (!rc && exact && solver_proven(v))
        rc = settle_ties(v);
    return rc;
}
