/* Enumerates every order of every subset of devices and every way to cut the blocks, and evaluates each as the text of
 * the model says. Slow and plain on purpose. */
#include "tests/planner/oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The model's text, line by line */

static const struct plan_link *wire(const struct plan_problem *p, int u, int v)
{
    int coordinator = p->coordinator_device < 0 ? p->devices : p->coordinator_device;
    u = u == p->devices ? coordinator : u;
    v = v == p->devices ? coordinator : v;
    return u == v ? NULL : p->link + u * (p->devices + 1) + v;
}

static double block_decode(const struct plan_problem *p, int d, int k, int b)
{
    const struct plan_block *block = p->model.block + k;
    double c = p->workload.context;
    double reading = (block->weight_bytes + b * c * block->kv_bytes) / p->device[d].read;
    double computing = b * (block->flops_per_token + c * block->attention_flops) / p->device[d].compute;
    return reading > computing ? reading : computing;
}

static double head_time(const struct plan_problem *p, int d, int b)
{
    double reading = p->model.head_weight_bytes / p->device[d].read;
    double computing = b * p->model.head_flops_per_token / p->device[d].compute;
    return reading > computing ? reading : computing;
}

static double stage_decode(const struct plan_problem *p, int d, int first, int end, int b)
{
    double t = p->device[d].overhead_s;
    for (int k = first; k < end; k++)
        t += block_decode(p, d, k, b);
    return end == p->model.blocks ? t + head_time(p, d, b) : t;
}

static double stage_chunk(const struct plan_problem *p, int d, int first, int end, double n, double past, int is_last)
{
    double t = p->device[d].overhead_s;
    for (int k = first; k < end; k++) {
        const struct plan_block *block = p->model.block + k;
        double reading = (block->weight_bytes + past * block->kv_bytes) / p->device[d].read;
        double computing = n * (block->flops_per_token + (past + n / 2) * block->attention_flops) / p->device[d].compute;
        t += reading > computing ? reading : computing;
    }
    return end == p->model.blocks && is_last ? t + head_time(p, d, 1) : t;
}

static double half_trip(const struct plan_problem *p, int u, int v)
{
    const struct plan_link *l = wire(p, u, v);
    return l ? l->rtt_s / 2 : 0;
}

static double on_wire(const struct plan_problem *p, int u, int v, double tokens)
{
    const struct plan_link *l = wire(p, u, v);
    return l ? tokens * p->model.hidden * p->workload.value_bytes / l->bandwidth : 0;
}

struct shape {
    int stages;
    const int *order;
    const int *cut; /* [stages + 1] */
};

static double sum_of_decode(const struct plan_problem *p, const struct shape *s, int b, double *slowest)
{
    double sum = half_trip(p, p->devices, s->order[0]) + half_trip(p, s->order[s->stages - 1], p->devices);
    *slowest = 0;
    for (int i = 0; i < s->stages; i++) {
        double t = stage_decode(p, s->order[i], s->cut[i], s->cut[i + 1], b);
        sum += t;
        *slowest = fmax(*slowest, t);
        if (i + 1 < s->stages) {
            double x = on_wire(p, s->order[i], s->order[i + 1], b);
            sum += half_trip(p, s->order[i], s->order[i + 1]) + x;
            *slowest = fmax(*slowest, x);
        }
    }
    return sum;
}

static double cycle_of(const struct plan_problem *p, const struct shape *s)
{
    int k = p->workload.concurrency;
    double best = INFINITY, slowest;
    for (int m = 1; m <= k; m++) {
        double sum = sum_of_decode(p, s, (int)ceil((double)k / m), &slowest);
        best = fmin(best, fmax(m * slowest, sum));
    }
    return best;
}

/* An event at a time: chunk by chunk through the pipe, each machine remembering when it is free. */
static double ttft_of(const struct plan_problem *p, const struct shape *s)
{
    double stage_free[16] = {0}, link_free[16] = {0}, end = 0;
    int prompt = p->workload.prompt_tokens, size = p->workload.chunk;
    for (int at = 0; at < prompt; at += size) {
        int n = prompt - at < size ? prompt - at : size;
        double now = half_trip(p, p->devices, s->order[0]);
        for (int i = 0; i < s->stages; i++) {
            now = fmax(now, stage_free[i]);
            now += stage_chunk(p, s->order[i], s->cut[i], s->cut[i + 1], n, at, at + n == prompt);
            stage_free[i] = now;
            if (i + 1 < s->stages) {
                now = fmax(now, link_free[i]) + on_wire(p, s->order[i], s->order[i + 1], n);
                link_free[i] = now;
                now += half_trip(p, s->order[i], s->order[i + 1]);
            }
        }
        end = now;
    }
    return end + half_trip(p, s->order[s->stages - 1], p->devices);
}

static int fits(const struct plan_problem *p, int d, int first, int end)
{
    double bytes = p->device[d].buffers;
    for (int k = first; k < end; k++)
        bytes += p->model.block[k].weight_bytes + p->model.block[k].kv_bytes * p->workload.kv_tokens;
    if (first == 0)
        bytes += p->model.embedding_bytes;
    if (end == p->model.blocks)
        bytes += p->model.head_weight_bytes;
    return bytes <= p->device[d].memory;
}

static double value_of(const struct plan_problem *p, const struct shape *s)
{
    double slowest;
    switch (p->objective) {
    case PLAN_LATENCY:
        return sum_of_decode(p, s, 1, &slowest);
    case PLAN_THROUGHPUT:
        return cycle_of(p, s);
    default:
        return ttft_of(p, s);
    }
}

double oracle_value(const struct plan_problem *p, int stages, const int *order, const int *counts)
{
    int cut[16] = {0};
    for (int i = 0; i < stages; i++) {
        cut[i + 1] = cut[i] + counts[i];
        if (!fits(p, order[i], cut[i], cut[i + 1]))
            return INFINITY;
    }
    return value_of(p, &(struct shape){stages, order, cut});
}

/* Enumeration */

struct walk {
    const struct plan_problem *p;
    int stages;
    const int *counts, *fixed_order;
    int order[16], cut[17], used[16];
    double least; /* of a first pass */
    int second;   /* the second pass picks among the ties */
    struct oracle_answer answer;
};

static int earlier(const struct walk *w, int stages)
{
    const struct oracle_answer *a = &w->answer;
    if (!a->stages || stages != a->stages)
        return !a->stages || stages < a->stages;
    for (int i = 0; i < stages; i++)
        if (w->order[i] != a->order[i])
            return w->order[i] < a->order[i];
    return 0;
}

static void judge(struct walk *w, int stages)
{
    double value = value_of(w->p, &(struct shape){stages, w->order, w->cut});
    w->answer.plans++;
    w->answer.feasible = 1;
    if (!w->second) {
        w->least = fmin(w->least, value);
    } else if (value <= w->least * (1 + 1e-11) && earlier(w, stages)) {
        w->answer.stages = stages;
        memcpy(w->answer.order, w->order, sizeof w->answer.order);
    }
}

static void extend(struct walk *w, int stages)
{
    int from = w->cut[stages], n = w->p->model.blocks;
    if (w->stages && stages == w->stages)
        return;
    for (int d = 0; d < w->p->devices; d++) {
        if (w->used[d] || (stages == 0 && w->p->pin_first >= 0 && d != w->p->pin_first) ||
            (w->fixed_order && w->fixed_order[stages] != d))
            continue;
        w->used[d] = 1;
        w->order[stages] = d;
        for (int end = from + 1; end <= n; end++) {
            if ((w->counts && end - from != w->counts[stages]) || !fits(w->p, d, from, end))
                continue;
            w->cut[stages + 1] = end;
            if (end < n)
                extend(w, stages + 1);
            else if (!w->stages || stages + 1 == w->stages)
                judge(w, stages + 1);
        }
        w->used[d] = 0;
    }
}

struct oracle_answer oracle_solve(const struct plan_problem *p, int stages, const int *counts, const int *order)
{
    struct walk w = {.p = p, .stages = stages, .counts = counts, .fixed_order = order, .least = INFINITY};
    extend(&w, 0);
    w.second = 1;
    if (w.answer.feasible)
        extend(&w, 0);
    w.answer.value = w.least;
    return w.answer;
}

/* Random problems */

static uint64_t next(struct oracle_random *r)
{
    uint64_t x = r->state += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

double oracle_uniform(struct oracle_random *r, double low, double high)
{
    return low + (high - low) * ((double)(next(r) >> 11) * 0x1p-53);
}

double oracle_spread(struct oracle_random *r, double low, double high)
{
    return exp(oracle_uniform(r, log(low), log(high)));
}

int oracle_below(struct oracle_random *r, int n)
{
    return (int)(next(r) % (uint64_t)n);
}

/* With ORACLE_ROUND the nearest power of two, coarsely, so that equal numbers are frequent. */
static double number(struct oracle_random *r, int flavour, double low, double high)
{
    double v = oracle_spread(r, low, high);
    return flavour & ORACLE_ROUND ? exp2(2 * round(log2(v) / 2)) : v;
}

static void random_model(struct plan_problem *p, struct oracle_random *r, int flavour)
{
    struct plan_model *m = &p->model;
    struct plan_block one = {0};
    for (int k = 0; k < m->blocks; k++) {
        if (k == 0 || flavour & ORACLE_UNEVEN_BLOCKS)
            one = (struct plan_block){.weight_bytes = floor(number(r, flavour, 2e7, 2e8)),
                                      .flops_per_token = number(r, flavour, 1e8, 1e9),
                                      .attention_flops = number(r, flavour, 4e3, 6e4),
                                      .kv_bytes = floor(number(r, flavour, 1e3, 2e4))};
        m->block[k] = one;
    }
    m->hidden = number(r, flavour, 512, 8192);
    m->embedding_bytes = floor(number(r, flavour, 1e6, 3e8));
    m->head_weight_bytes = floor(number(r, flavour, 1e6, 3e8));
    m->head_flops_per_token = 2 * m->head_weight_bytes;
    p->workload = (struct plan_workload){
        .prompt_tokens = 1 + oracle_below(r, 1200),
        .output_tokens = 64,
        .concurrency = 1 + oracle_below(r, 9),
        .context = oracle_below(r, 4096),
        .kv_tokens = oracle_below(r, 8192),
        .chunk = oracle_below(r, 2) ? 256 : 32 + oracle_below(r, 480),
        .value_bytes = oracle_below(r, 2) ? 4 : 2,
    };
}

static double model_bytes(const struct plan_problem *p)
{
    double sum = p->model.embedding_bytes + p->model.head_weight_bytes;
    for (int k = 0; k < p->model.blocks; k++)
        sum += p->model.block[k].weight_bytes + p->model.block[k].kv_bytes * p->workload.kv_tokens;
    return sum;
}

static void random_devices(struct plan_problem *p, struct oracle_random *r, int flavour, double tightness)
{
    double share = model_bytes(p) * tightness / p->devices;
    for (int i = 0; i < p->devices; i++) {
        struct plan_device *d = &p->device[i];
        if (i && flavour & ORACLE_TWINS && oracle_below(r, 2))
            *d = p->device[oracle_below(r, i)];
        else
            *d = (struct plan_device){.memory = floor(share * oracle_spread(r, 0.3, 2.2)),
                                      .buffers = floor(number(r, flavour, 1e5, 2e7)),
                                      .read = number(r, flavour, 3e9, 1e11),
                                      .compute = number(r, flavour, 2e10, 2e12),
                                      .overhead_s = number(r, flavour, 2e-5, 4e-4)};
        d->name = mem_printf("d%d", i);
    }
}

static void random_links(struct plan_problem *p, struct oracle_random *r, int flavour)
{
    int nodes = p->devices + 1;
    struct plan_link flat = {number(r, flavour, 3e6, 1.2e9), number(r, flavour, 5e-5, 5e-3), 0};
    for (int a = 0; a < nodes; a++)
        for (int b = 0; b < a; b++) {
            struct plan_link l = flat;
            if (!(flavour & ORACLE_FLAT_LINKS))
                l = (struct plan_link){number(r, flavour, 3e6, 1.2e9), number(r, flavour, 5e-5, 5e-3), 0};
            p->link[a * nodes + b] = p->link[b * nodes + a] = l;
        }
}

struct plan_problem *oracle_problem(struct oracle_random *r, int devices, int blocks, int flavour, double tightness)
{
    struct plan_problem *p = plan_problem_new(blocks, devices);
    if (!p)
        return NULL;
    random_model(p, r, flavour);
    random_devices(p, r, flavour, tightness);
    random_links(p, r, flavour);
    p->coordinator_device = oracle_below(r, 3) ? -1 : oracle_below(r, devices);
    p->coordinator = mem_strdup(p->coordinator_device < 0 ? "desk" : p->device[p->coordinator_device].name);
    p->pin_first = oracle_below(r, 8) ? -1 : oracle_below(r, devices);
    p->objective = (enum plan_objective)oracle_below(r, PLAN_OBJECTIVES);
    return p;
}
