/* Plans for a cluster that is there: over the nodes that can be used now, with what was measured, and with an eye on
 * what they hold already. Runner's thread, or under the runner's state lock. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "coordinator/core/codecs.h"
#include "coordinator/core/runner_state.h"
#include "coordinator/core/token_links.h"

#define LARGE_BYTES ((uint64_t)256 << 20)
#define DRIFT_LEAST 64u /* micro-batches of a stage before its times count */
#define REBALANCE_NODES_MAX 16u
#define STICKY 1.10 /* what lies in memory stays there while no other plan is so much better */
#define NEAR 1.02   /* a plan in which most blocks stay will do for a move if it is so nearly the best */
#define QUICK 2.0   /* and for going on without a node where blocks move by themselves later */

struct planning_input replan_input(const struct runner *r)
{
    return (struct planning_input){
        .model = r->model,
        .kv = r->kv,
        .kv_tokens = r->kv_pages * KV_PAGE_TOKENS,
        .max_context = r->o.max_context,
        .max_tokens = r->max_tokens,
        .chunk_tokens = r->o.chunk_tokens,
        .codec = r->codec,
        .may_round = r->may_round,
        .objective = (enum plan_objective)r->o.objective,
        .prompt_tokens = r->o.prompt_tokens,
        .output_tokens = r->o.output_tokens,
        .concurrency = r->o.concurrency,
    };
}

/* Loopback workers share this machine's memory: how fast can all of its cores read? Asked once, and only of models that
 * do not live in caches. */
static void measure_memory(struct runner *r)
{
    struct pool *pool = NULL;
    if (r->own_read_bytes_per_s > 0 || !r->spawn || r->o.stages < 2 ||
        model_info(r->model)->weight_bytes < LARGE_BYTES)
        return;
    if (!kernels_init(NULL) && !pool_create(&(struct pool_options){0}, &pool, NULL))
        r->own_read_bytes_per_s = probe_read_bandwidth(pool, 60);
    pool_destroy(pool);
}

/* ---- The problem ------------------------------------------------------------------------------------------------- */

struct view {
    uint32_t n, which[CLUSTER_NODES_MAX]; /* the usable nodes: device i of the problem is node which[i] */
    struct plan_problem *problem;
};

static int view_open(const struct runner *r, struct view *v, struct error *err)
{
    v->n = 0;
    for (uint32_t i = 0; i < cluster_node_count(r->cluster); i++)
        if (cluster_node_usable(r->cluster, i))
            v->which[v->n++] = i;
    if (!v->n)
        return error_set(err, ERR_INFEASIBLE, "no worker is left");
    struct planning_input in = replan_input(r);
    struct planning_node *nodes = mem_zalloc(v->n, sizeof *nodes);
    struct planning_link *links = mem_zalloc((size_t)v->n * v->n, sizeof *links);
    int rc = nodes && links ? 0 : error_set(err, ERR_NOMEM, "out of memory for the plan");
    for (uint32_t a = 0; a < v->n && !rc; a++) {
        const struct cluster_node *node = cluster_node_at(r->cluster, v->which[a]);
        nodes[a] = (struct planning_node){
            .name = node->name,
            .memory_bytes = node->memory_bytes,
            .rtt_seconds = r->token_rtt_seconds && r->token_rtt_seconds[v->which[a]] > 0
                               ? r->token_rtt_seconds[v->which[a]]
                               : node->rtt_seconds,
            .host = cluster_node_host(r->cluster, v->which[a]) + 1,
            .cores = node->cores,
            .threads = node->threads,
            .host_read_bytes_per_s = r->own_read_bytes_per_s,
            .correction = r->corrections ? r->corrections[v->which[a]] : 0,
            .profile = node->profiled ? &cluster_node_at(r->cluster, node->profile_of)->profile : NULL};
        for (uint32_t b = 0; b < v->n; b++) {
            struct planning_link *l = &links[a * v->n + b];
            cluster_link_between(r->cluster, v->which[a], v->which[b], &l->bytes_per_s, &l->rtt_seconds, NULL);
        }
    }
    in.nodes = nodes;
    in.links = links;
    in.node_count = v->n;
    if (!rc)
        rc = planning_problem(&in, &v->problem, err);
    mem_free(nodes);
    mem_free(links);
    return rc;
}

/* As asked; after a loss, as well as it goes with fewer nodes. */
static int solve(const struct runner *r, const struct view *v, struct plan *out, struct error *err)
{
    const struct runner_options *o = &r->o;
    if (!r->came_to_serve)
        return planning_solve(v->problem, o->stages, o->split, o->split_count, out, err);
    uint32_t stages = o->split ? o->split_count : o->stages;
    if (stages && stages <= v->n && !planning_solve(v->problem, o->stages, o->split, o->split_count, out, NULL))
        return 0;
    if (stages > v->n && !planning_solve(v->problem, v->n, NULL, 0, out, NULL))
        return 0;
    return planning_solve(v->problem, 0, NULL, 0, out, err);
}

/* ---- What is held already ---------------------------------------------------------------------------------------- */

/* The stages that the nodes say they hold, when these make up the whole model for this cache: a coordinator before us
 * left them so. */
static void found_layout(const struct runner *r, struct layout *out)
{
    const struct model_info *info = model_info(r->model);
    uint32_t next = 0;
    out->stages = 0;
    for (bool found = true; found && next < info->blocks && out->stages < PLAN_MAX_DEVICES;) {
        found = false;
        for (uint32_t i = 0; i < cluster_node_count(r->cluster) && !found; i++) {
            const struct cluster_node *n = cluster_node_at(r->cluster, i);
            if (!n->has_loaded || !cluster_node_usable(r->cluster, i) || n->loaded.fingerprint != info->fingerprint ||
                n->loaded.kv_type != (uint32_t)r->kv || n->loaded.kv_pages != r->kv_pages ||
                n->loaded.first_block != next || n->loaded.last_block < next)
                continue;
            out->stage[out->stages++] = (struct cluster_stage){i, next, n->loaded.last_block};
            next = n->loaded.last_block + 1;
            found = true;
        }
    }
    if (next != info->blocks)
        out->stages = 0;
}

/* A layout as a plan for this problem; false when one of its nodes cannot be used or it is not what was asked for. */
static bool layout_plan(const struct runner *r, const struct view *v, const struct layout *l, struct plan *out)
{
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    uint32_t asked = r->o.split ? r->o.split_count : r->o.stages;
    if (!l->stages || (asked && l->stages != (asked < v->n ? asked : v->n)))
        return false;
    for (uint32_t s = 0; s < l->stages; s++) {
        order[s] = -1;
        for (uint32_t i = 0; i < v->n; i++)
            if (v->which[i] == l->stage[s].node)
                order[s] = (int)i;
        counts[s] = (int)(l->stage[s].last_block - l->stage[s].first_block + 1);
        if (order[s] < 0 || (r->o.split && l->stages == r->o.split_count && counts[s] != (int)r->o.split[s]))
            return false;
    }
    return !plan_evaluate(v->problem, order, counts, (int)l->stages, out, NULL);
}

/* The best plan that leaves the stages in their order: others take the places of nodes that are gone, as far as there are
 * any, so that most blocks, and what was computed in them, stay where they are. False when there is none. */
static bool near_plan(const struct runner *r, const struct view *v, const struct layout *l, struct plan *out)
{
    int order[PLAN_MAX_DEVICES], place[PLAN_MAX_DEVICES];
    bool taken[CLUSTER_NODES_MAX] = {false};
    uint32_t stages = 0, asked = r->o.split ? r->o.split_count : r->o.stages;
    for (uint32_t s = 0; s < l->stages; s++) {
        place[s] = -1;
        for (uint32_t i = 0; i < v->n; i++)
            if (v->which[i] == l->stage[s].node) {
                place[s] = (int)i;
                taken[i] = true;
            }
    }
    for (uint32_t s = 0; s < l->stages; s++) {
        for (uint32_t i = 0; i < v->n && place[s] < 0; i++)
            if (!taken[i]) {
                place[s] = (int)i;
                taken[i] = true;
            }
        if (place[s] >= 0)
            order[stages++] = place[s];
    }
    if (!stages || (asked && stages != (asked < v->n ? asked : v->n)))
        return false;
    return !planning_in_order(v->problem, order, stages, r->o.split && stages == r->o.split_count ? r->o.split : NULL,
                              out, NULL);
}

/* ---- Drift ------------------------------------------------------------------------------------------------------- */

/* What the stages that run say about their nodes' profiles. */
static bool measure_drift(struct runner *r)
{
    struct runner_stage seen[PLAN_MAX_DEVICES];
    uint32_t stages = r->layout.stages;
    if (!r->corrections || !r->meter || !r->planned || !stages || stage_meter_count(r->meter) != stages ||
        (uint32_t)r->plan.stages != stages)
        return false;
    stage_meter_read(r->meter, seen);
    for (uint32_t s = 0; s < stages; s++) {
        if (planning_expected(r->problem, &r->plan, s, &seen[s]) <= 0 || seen[s].decode_seconds <= 0 ||
            seen[s].microbatches < DRIFT_LEAST)
            return false;
    }
    for (uint32_t s = 0; s < stages; s++) {
        uint32_t node = r->layout.stage[s].node;
        r->corrections[node] = planning_correct(r->planned_corrections[node], &seen[s],
                                                planning_expected(r->problem, &r->plan, s, &seen[s]));
    }
    return true;
}

void replan_tell_pace(struct runner *r)
{
    struct runner_stage seen[PLAN_MAX_DEVICES];
    uint32_t stages = r->layout.stages;
    if (!r->flowing || !r->meter || !r->planned || !stages || stage_meter_count(r->meter) != stages ||
        (uint32_t)r->plan.stages != stages)
        return;
    stage_meter_read(r->meter, seen);
    for (uint32_t s = 0; s < stages; s++)
        cluster_set_pace(r->cluster, r->layout.stage[s].node, seen[s].decode_seconds,
                         planning_expected(r->problem, &r->plan, s, &seen[s]));
}

/* ---- The plan ---------------------------------------------------------------------------------------------------- */

/* Whoever serves looks again and again whether another plan is better (loop.c), and hence need not believe one look at
 * the links before it moves weights that lie where they are of use. */
static bool moves_by_itself(const struct runner *r)
{
    return r->o.stay && !r->o.no_recovery && r->config && r->config->rebalance;
}

static int choose(struct runner *r, const struct view *v, struct plan *out, struct error *err)
{
    struct layout held = r->layout;
    struct plan kept;
    if (r->back && layout_plan(r, v, &r->old_layout, out))
        return 0;
    int rc = solve(r, v, out, err);
    if (rc)
        return rc;
    bool found = !r->came_to_serve;
    if (found)
        found_layout(r, &held);
    bool whole = layout_plan(r, v, &held, &kept), stays = whole && !r->moves;
    double near = !found && !whole && moves_by_itself(r) ? QUICK : r->moves ? NEAR : STICKY;
    if ((stays && (kept.value_s <= STICKY * out->value_s || (found && moves_by_itself(r)))) ||
        (near_plan(r, v, &held, &kept) && kept.value_s <= near * out->value_s)) {
        if (kept.value_s > STICKY * out->value_s)
            log_warn("stages found in memory stay%s; another plan is predicted to be %.0f %% faster, and blocks move when "
                     "measured times say so too, or by 'brigade rebalance'",
                     found ? "" : " in their order", (kept.value_s / out->value_s - 1) * 100);
        kept.bound_s = out->bound_s;
        *out = kept;
    }
    return 0;
}

/* What only the first plan waits for; later ones go by it. */
static int measure_before(struct runner *r, struct error *err)
{
    if (!r->corrections &&
        !(r->corrections = mem_zalloc(cluster_node_count(r->cluster), sizeof *r->corrections)))
        return error_set(err, ERR_NOMEM, "out of memory for the plan");
    if (!r->token_rtt_seconds &&
        !(r->token_rtt_seconds = mem_zalloc(cluster_node_count(r->cluster), sizeof *r->token_rtt_seconds)))
        return error_set(err, ERR_NOMEM, "out of memory for the plan");
    token_links_measure(r->hub, r->rehearsal, r->cluster, r->token_rtt_seconds);
    measure_memory(r);
    return 0;
}

int bring_up_plan(struct runner *r, struct cluster_load *load, struct cluster_stage *stages, struct error *err)
{
    struct view v = {0};
    struct plan plan;
    int rc = r->came_to_serve ? 0 : measure_before(r, err);
    measure_drift(r);
    if (!rc)
        rc = view_open(r, &v, err);
    if (!rc)
        rc = choose(r, &v, &plan, err);
    if (rc) {
        plan_problem_free(v.problem);
        return rc;
    }
    plan_problem_free(r->problem);
    r->problem = v.problem;
    r->plan = plan;
    r->planned = true;
    r->moves = r->back = false;
    for (uint32_t i = 0; r->corrections && i < cluster_node_count(r->cluster); i++)
        r->planned_corrections[i] = r->corrections[i];
    for (int s = 0; s < plan.stages; s++)
        stages[s] = (struct cluster_stage){.node = v.which[plan.stage[s].device],
                                           .first_block = (uint32_t)plan.stage[s].first_block,
                                           .last_block = (uint32_t)plan.stage[s].last_block,
                                           .codec = s + 1 < plan.stages ? codecs_of_link(r->problem, plan.stage[s].device,
                                                                                         plan.stage[s + 1].device, r->codec)
                                                                        : r->codec};
    *load = (struct cluster_load){
        .stage_count = (uint32_t)plan.stages,
        .stages = stages,
        .kv_type = r->kv,
        .kv_pages = r->kv_pages,
        .max_tokens = r->max_tokens,
        .max_context = r->o.max_context,
        .max_sequences = r->o.sequences,
        .keep_bytes = r->o.no_recovery ? 0 : r->config ? r->config->keep_bytes : CONFIG_KEEP_BYTES,
        .inexact = r->o.inexact,
    };
    return 0;
}

int replan_possible(const struct runner *r, struct error *err)
{
    struct view v = {0};
    struct plan plan;
    int rc = view_open(r, &v, err);
    if (!rc)
        rc = solve(r, &v, &plan, err);
    plan_problem_free(v.problem);
    return rc;
}

bool replan_gain(struct runner *r, double *gain)
{
    struct view v = {0};
    struct plan now, best;
    if (!measure_drift(r) || cluster_node_count(r->cluster) > REBALANCE_NODES_MAX || view_open(r, &v, NULL))
        return false;
    bool known = layout_plan(r, &v, &r->layout, &now) && !solve(r, &v, &best, NULL);
    plan_problem_free(v.problem);
    if (known)
        *gain = best.value_s > 0 ? now.value_s / best.value_s - 1 : 0;
    return known;
}
