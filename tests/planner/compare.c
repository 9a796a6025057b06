/* Our plans against simpler ways to split a model, over 200 random clusters of boards one finds at home: prints the
 * table of docs/planner.md, and fails when any other way ever beats a plan. Run: compare [clusters] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"
#include "tests/check.h"
#include "tests/planner/oracle.h"
#include "planner/plan.h"

enum { EVEN, BY_MEMORY, BY_FLOPS, EDGESHARD, WAYS, MOST_BLOCKS = 64 };
static const char *const way_names[WAYS] = {"even", "by memory", "by FLOPS", "EdgeShard"};

struct board {
    double memory, read, compute, overhead_s;
};

/* Bytes, bytes/s, FLOP/s: from small ARM boards to a desktop graphics card. */
static const struct board boards[] = {
    {1.6e9, 4e9, 12e9, 200e-6},   {3.4e9, 5e9, 20e9, 200e-6},   {7.2e9, 9.5e9, 45e9, 150e-6}, {3.2e9, 20e9, 230e9, 250e-6},
    {6.0e9, 50e9, 900e9, 200e-6}, {14e9, 35e9, 300e9, 100e-6}, {28e9, 60e9, 500e9, 80e-6},   {7.5e9, 280e9, 8e12, 60e-6},
};

static const struct plan_link wires[] = {
    {117e6, 300e-6, 0}, {11.7e6, 500e-6, 0}, {30e6, 2500e-6, 0}, {8e6, 6000e-6, 0}, {290e6, 200e-6, 0},
};

struct model {
    int blocks;
    double hidden, weight, flops, attention, kv, embedding;
};

static const struct model models[] = {
    {16, 2048, 34e6, 122e6, 8192, 2048, 148e6},
    {28, 3072, 57e6, 201e6, 12288, 4096, 222e6},
    {32, 4096, 123e6, 436e6, 16384, 8192, 295e6},
    {40, 5120, 178e6, 634e6, 20480, 8192, 368e6},
};

static double jitter(struct oracle_random *r)
{
    return oracle_uniform(r, 0.85, 1.15);
}

/* Each device hangs on one wire; a pair is as fast as its slower end and as late as both. */
static void connect(struct plan_problem *p, struct oracle_random *r)
{
    int nodes = p->devices + 1;
    struct plan_link end[16];
    for (int i = 0; i < nodes; i++)
        end[i] = wires[oracle_below(r, 3) ? 0 : oracle_below(r, (int)(sizeof wires / sizeof *wires))];
    for (int a = 0; a < nodes; a++)
        for (int b = 0; b < a; b++) {
            struct plan_link l = {fmin(end[a].bandwidth, end[b].bandwidth) * jitter(r),
                                  (end[a].rtt_s + end[b].rtt_s) / 2 * jitter(r), 0};
            p->link[a * nodes + b] = p->link[b * nodes + a] = l;
        }
}

static struct plan_problem *random_cluster(struct oracle_random *r)
{
    const struct model *m = &models[oracle_below(r, (int)(sizeof models / sizeof *models))];
    int devices = 3 + oracle_below(r, 6);
    struct plan_problem *p = plan_problem_new(m->blocks, devices);
    if (!p)
        return NULL;
    p->model.hidden = m->hidden;
    p->model.embedding_bytes = m->embedding;
    p->model.head_weight_bytes = m->embedding;
    p->model.head_flops_per_token = 4 * m->embedding;
    for (int k = 0; k < m->blocks; k++)
        p->model.block[k] = (struct plan_block){.weight_bytes = m->weight, .flops_per_token = m->flops,
                                                .attention_flops = m->attention, .kv_bytes = m->kv};
    for (int i = 0; i < devices; i++) {
        const struct board *b = &boards[oracle_below(r, (int)(sizeof boards / sizeof *boards))];
        p->device[i] = (struct plan_device){.name = mem_printf("d%d", i), .memory = b->memory * jitter(r),
                                            .buffers = 1e8, .read = b->read * jitter(r),
                                            .compute = b->compute * jitter(r), .overhead_s = b->overhead_s};
    }
    p->coordinator = mem_strdup("desk");
    connect(p, r);
    p->workload = (struct plan_workload){.prompt_tokens = 1024, .output_tokens = 128, .concurrency = 8, .context = 1024,
                                         .kv_tokens = 9216, .chunk = 256, .value_bytes = 4};
    return p;
}

/* The most blocks from `first` on a device that stands first or last as told. */
static int room(const struct plan_problem *p, int d, int first, int most)
{
    int n = 0;
    while (n < most && cost_stage_memory(p, d, first, first + n) <= p->device[d].memory)
        n++;
    return n;
}

/* Blocks in proportion to weight, in the devices' order, largest remainders first, no device above its memory; what one
 * cannot hold goes to those after it, then to those before. Devices without a block drop out. */
static int by_weight(const struct plan_problem *p, const double *weight, int *order, int *counts)
{
    int n = p->model.blocks, share[16], left = n, stages = 0;
    double sum = 0, rest[16];
    for (int d = 0; d < p->devices; d++)
        sum += weight[d];
    for (int d = 0; d < p->devices; d++) {
        double exact = n * weight[d] / sum;
        share[d] = (int)exact;
        rest[d] = exact - share[d];
        left -= share[d];
    }
    for (; left > 0; left--) {
        int most = 0;
        for (int d = 1; d < p->devices; d++)
            most = rest[d] > rest[most] ? d : most;
        share[most]++;
        rest[most] = -1;
    }
    for (int round = 0; round < 2 * p->devices; round++) {
        int first = 0, extra = 0;
        for (int d = 0; d < p->devices; d++) {
            int want = share[d] + extra, can = want ? room(p, d, first, want < n - first ? want : n - first) : 0;
            extra = want - can;
            share[d] = can;
            first += can;
        }
        if (!extra)
            break;
        share[0] += extra;
    }
    left = n;
    for (int d = 0; d < p->devices; d++)
        if (share[d]) {
            order[stages] = d;
            counts[stages++] = share[d];
            left -= share[d];
        }
    return left ? 0 : stages;
}

/* EdgeShard's dynamic programs, as its paper describes them, on this cost model's blocks: layer by layer, the best way
 * for layer k to lie on device d, following one predecessor only; memory is what that one way leaves. It knows neither
 * a stage's overhead nor embedding, head, chunks or how many sequences share a step. */
struct cell {
    double cost, slowest, stage; /* sum of times; slowest stage or hop so far; the present stage's time */
    int from;
    unsigned used;
    double free;
};

static int edgeshard(const struct plan_problem *p, int *order, int *counts)
{
    static struct cell table[MOST_BLOCKS][16];
    int n = p->model.blocks, best = -1;
    for (int k = 0; k < n; k++)
        for (int d = 0; d < p->devices; d++) {
            double block = p->objective == PLAN_TTFT ? cost_block_prefill(p, d, k, p->workload.prompt_tokens, 0)
                                                     : cost_block_decode(p, d, k, 1);
            double tokens = p->objective == PLAN_TTFT ? p->workload.prompt_tokens : 1, need = cost_block_memory(p, k);
            double room_d = p->device[d].memory - p->device[d].buffers - p->model.embedding_bytes;
            struct cell *c = &table[k][d];
            *c = (struct cell){.cost = INFINITY, .slowest = INFINITY, .from = -1};
            if (k == 0 && need <= room_d)
                *c = (struct cell){block, block, block, -1, 1u << d, room_d - need};
            for (int u = 0; k && u < p->devices; u++) {
                const struct cell *f = &table[k - 1][u];
                if (!isfinite(f->cost) || (u == d ? f->free < need : (f->used >> d & 1) || room_d < need))
                    continue;
                double hop = u == d ? 0 : cost_hop(p, u, d, tokens);
                double stage = u == d ? f->stage + block : block;
                double slowest = fmax(fmax(f->slowest, stage), hop), cost = f->cost + hop + block;
                int better = p->objective == PLAN_THROUGHPUT ? slowest < c->slowest : cost < c->cost;
                if (better)
                    *c = (struct cell){cost, slowest, stage, u, f->used | 1u << d, (u == d ? f->free : room_d) - need};
            }
        }
    for (int d = 0; d < p->devices; d++) {
        const struct cell *c = &table[n - 1][d], *b = best < 0 ? NULL : &table[n - 1][best];
        if (isfinite(c->cost) &&
            (!b || (p->objective == PLAN_THROUGHPUT ? c->slowest < b->slowest : c->cost < b->cost)))
            best = d;
    }
    if (best < 0)
        return 0;
    int device[MOST_BLOCKS], stages = 0;
    for (int k = n - 1, d = best; k >= 0; k--) {
        device[k] = d;
        d = table[k][d].from;
    }
    for (int k = 0; k < n; k++) {
        if (!stages || order[stages - 1] != device[k]) {
            order[stages] = device[k];
            counts[stages++] = 0;
        }
        counts[stages - 1]++;
    }
    return stages;
}

static int split(const struct plan_problem *p, int way, int *order, int *counts)
{
    double weight[16];
    if (way == EDGESHARD)
        return edgeshard(p, order, counts);
    for (int d = 0; d < p->devices; d++)
        weight[d] = way == EVEN ? 1 : way == BY_MEMORY ? p->device[d].memory - p->device[d].buffers : p->device[d].compute;
    return by_weight(p, weight, order, counts);
}

int main(int argc, char **argv)
{
    int clusters = argc > 1 ? atoi(argv[1]) : check_thin(200), feasible = 0, beaten = 0;
    double logs[WAYS][PLAN_OBJECTIVES] = {{0}}, gap[PLAN_OBJECTIVES] = {0}, most[WAYS][PLAN_OBJECTIVES] = {{0}};
    int fits[WAYS][PLAN_OBJECTIVES] = {{0}};
    struct oracle_random r = {.state = 200};
    while (feasible < clusters) {
        struct plan_problem *p = random_cluster(&r);
        struct plan plan, other;
        if (!p)
            return 1;
        p->objective = PLAN_LATENCY;
        if (plan_solve(p, NULL, &plan, NULL)) { /* too little memory in all: draw another */
            plan_problem_free(p);
            continue;
        }
        feasible++;
        for (int o = 0; o < PLAN_OBJECTIVES; o++) {
            p->objective = (enum plan_objective)o;
            if (plan_solve(p, NULL, &plan, NULL))
                return 1;
            gap[o] = fmax(gap[o], plan_gap_percent(&plan));
            for (int way = 0; way < WAYS; way++) {
                int order[16], counts[16], stages = split(p, way, order, counts);
                if (!stages || plan_evaluate(p, order, counts, stages, &other, NULL))
                    continue;
                double ratio = other.value_s / plan.value_s;
                fits[way][o]++;
                logs[way][o] += log(ratio);
                most[way][o] = fmax(most[way][o], ratio);
                if (ratio < 1 - 1e-9) {
                    beaten++;
                    printf("cluster %d, %s: %s is %.6g of the plan\n", feasible, plan_objective_name(p->objective),
                           way_names[way], ratio);
                }
            }
        }
        plan_problem_free(p);
    }
    printf("| split | %s | %s | %s | worst | fits |\n|---|---|---|---|---|---|\n", plan_objective_name(0),
           plan_objective_name(1), plan_objective_name(2));
    for (int way = 0; way < WAYS; way++) {
        printf("| %s |", way_names[way]);
        double worst = 0;
        for (int o = 0; o < PLAN_OBJECTIVES; o++) {
            printf(" %.2f |", fits[way][o] ? exp(logs[way][o] / fits[way][o]) : 0);
            worst = fmax(worst, most[way][o]);
        }
        printf(" %.0f | %d of %d |\n", worst, fits[way][0], feasible);
    }
    printf("largest gap of ours: %.3g, %.3g and %.3g %%\n", gap[0], gap[1], gap[2]);
    return beaten ? 1 : 0;
}
