/* From options to something that computes: stages in this process, or a cluster (configured, or of loopback workers)
 * through connecting, profiling, planning and loading. Runner's thread. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "coordinator/core/pipeline_local.h"
#include "coordinator/core/runner_state.h"
#include "coordinator/core/token_links.h"

#define LARGE_BYTES ((uint64_t)256 << 20)

static struct planning_input planning_of(const struct runner *r)
{
    return (struct planning_input){
        .model = r->model,
        .kv = r->kv,
        .kv_tokens = r->kv_pages * KV_PAGE_TOKENS,
        .max_context = r->o.max_context,
        .max_tokens = r->max_tokens,
        .chunk_tokens = r->o.chunk_tokens,
        .codec = r->codec,
        .objective = (enum plan_objective)r->o.objective,
        .prompt_tokens = r->o.prompt_tokens,
        .output_tokens = r->o.output_tokens,
        .concurrency = r->o.concurrency,
    };
}

/* ---- In this process --------------------------------------------------------------------------------------------- */

static void pass_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    runner_tell(context, NULL, what, done, total);
}

/* The plan of what is loaded here: measured, or only with its memory. */
static int plan_here(struct runner *r, const uint32_t *split, uint32_t stages, struct error *err)
{
    struct planning_node nodes[PLAN_MAX_DEVICES];
    char names[PLAN_MAX_DEVICES][32];
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    struct planning_input in = planning_of(r);
    const struct control_message *profile = pipeline_local_profile(r->pipe);
    for (uint32_t i = 0; i < stages; i++) {
        snprintf(names[i], sizeof names[i], stages > 1 ? "this process %u" : "this process", i + 1);
        nodes[i] = (struct planning_node){
            .name = names[i], .memory_bytes = pipeline_local_admissible(r->pipe), .profile = profile};
        order[i] = (int)i;
        counts[i] = (int)split[i];
    }
    in.here = true;
    in.nodes = nodes;
    in.node_count = stages;
    int rc = planning_problem(&in, &r->problem, err);
    if (!rc && profile)
        rc = plan_evaluate(r->problem, order, counts, (int)stages, &r->plan, err);
    else if (!rc)
        planning_unmeasured(r->problem, split, stages, &r->plan);
    for (uint32_t i = 0; i < stages && !rc; i++) {
        struct stage_memory memory;
        pipeline_local_memory(r->pipe, i, &memory);
        r->plan.stage[i].memory_bytes = (double)memory.total;
    }
    r->planned = !rc;
    return rc;
}

int bring_up_here(struct runner *r, struct error *err)
{
    const uint32_t blocks = model_info(r->model)->blocks;
    uint32_t one[1] = {blocks}, last[PLAN_MAX_DEVICES], sum = 0;
    const uint32_t *split = r->o.split ? r->o.split : one;
    uint32_t stages = r->o.split ? r->o.split_count : 1;
    if (stages > PLAN_MAX_DEVICES)
        return error_set(err, ERR_USAGE, "the split names %u stages; at most %d", stages, PLAN_MAX_DEVICES);
    for (uint32_t i = 0; i < stages; i++) {
        if (split[i] > blocks - sum)
            return error_set(err, ERR_USAGE, "the split adds up to more than the model's %u blocks", blocks);
        sum += split[i];
        last[i] = sum - 1;
    }
    if (sum != blocks)
        return error_set(err, ERR_USAGE, "the split adds up to %u blocks, but the model has %u", sum, blocks);
    struct pipeline_local_options o = {
        .model = r->model,
        .stage_count = stages,
        .last_block = last,
        .kv = r->kv,
        .kv_pages = r->kv_pages,
        .max_tokens = r->max_tokens,
        .max_context = r->o.max_context,
        .max_sequences = r->o.sequences,
        .threads = r->o.threads,
        .inexact = r->o.inexact,
        .measure = r->o.predict || r->o.goal == RUNNER_PLAN,
        .waker = r->waker,
        .interrupt = r->o.interrupt,
        .on_progress = pass_progress,
        .context = r,
    };
    runner_enter_phase(r, RUNNER_LOADING);
    int rc = pipeline_local_create(&o, &r->pipe, err);
    if (!rc)
        rc = plan_here(r, split, stages, err);
    if (!rc && r->o.goal == RUNNER_SERVE)
        rc = runner_prepare(r, stages, err);
    r->reached = r->flowing = !rc;
    return rc;
}

/* Loopback workers share this machine's memory: how fast can all of its cores read? Asked once, and only of models that
 * do not live in caches. */
static double own_read_bandwidth(struct runner *r)
{
    struct pool *pool = NULL;
    if (r->own_read_bytes_per_s > 0 || !r->spawn || r->o.stages < 2 ||
        model_info(r->model)->weight_bytes < LARGE_BYTES)
        return r->own_read_bytes_per_s;
    if (!kernels_init(NULL) && !pool_create(&(struct pool_options){0}, &pool, NULL))
        r->own_read_bytes_per_s = probe_read_bandwidth(pool, 60);
    pool_destroy(pool);
    return r->own_read_bytes_per_s;
}

/* ---- On a cluster ------------------------------------------------------------------------------------------------ */

/* As asked; after a loss, as well as it goes with fewer nodes. */
static int solve(struct runner *r, struct plan_problem *problem, uint32_t nodes, struct error *err)
{
    if (!r->came_to_serve)
        return planning_solve(problem, r->o.stages, r->o.split, r->o.split_count, &r->plan, err);
    uint32_t stages = r->o.split ? r->o.split_count : r->o.stages;
    if (stages && stages <= nodes && !planning_solve(problem, r->o.stages, r->o.split, r->o.split_count, &r->plan, NULL))
        return 0;
    if (stages > nodes && !planning_solve(problem, nodes, NULL, 0, &r->plan, NULL))
        return 0;
    return planning_solve(problem, 0, NULL, 0, &r->plan, err);
}

/* What the stages that ran so far say about their nodes' profiles: corrections of them, for the next plan. */
static void learn_speeds(struct runner *r, uint32_t nodes)
{
    struct runner_stage seen[PLAN_MAX_DEVICES];
    if (!r->corrections || !r->meter || !r->planned || stage_meter_count(r->meter) != (uint32_t)r->plan.stages)
        return;
    stage_meter_read(r->meter, seen);
    for (int s = 0; s < r->plan.stages; s++) {
        const char *name = r->problem->device[r->plan.stage[s].device].name;
        double expected = planning_expected(r->problem, &r->plan, (uint32_t)s, &seen[s]);
        for (uint32_t i = 0; i < nodes; i++) {
            if (strcmp(cluster_node_at(r->cluster, i)->name, name))
                continue;
            double before = r->corrections[i];
            r->corrections[i] = planning_correct(before, &seen[s], expected);
            if (r->corrections[i] != (before > 0 ? before : 1))
                log_info("\"%s\" took %.3f ms for a step where the plan expects %.3f ms; its profile counts %.2f times", name,
                         seen[s].decode_seconds * 1e3, expected * 1e3, r->corrections[i]);
        }
    }
}

int bring_up_plan(struct runner *r, struct cluster_load *load, struct cluster_stage *stages, struct error *err)
{
    uint32_t all = cluster_node_count(r->cluster), n = 0, which[CLUSTER_NODES_MAX];
    for (uint32_t i = 0; i < all; i++)
        if (cluster_node_usable(r->cluster, i))
            which[n++] = i;
    if (!n)
        return error_set(err, ERR_INFEASIBLE, "no worker is left");
    struct planning_input in = planning_of(r);
    struct planning_node *nodes = mem_zalloc(n, sizeof *nodes);
    struct planning_link *links = mem_zalloc((size_t)n * n, sizeof *links);
    struct plan_problem *problem = NULL;
    if (!r->corrections)
        r->corrections = mem_zalloc(all, sizeof *r->corrections);
    learn_speeds(r, all);
    if (!r->token_rtt_seconds)
        r->token_rtt_seconds = mem_zalloc(all, sizeof *r->token_rtt_seconds);
    int rc = nodes && links && r->token_rtt_seconds && r->corrections ? 0 : error_set(err, ERR_NOMEM, "out of memory for the plan");
    if (!rc)
        token_links_measure(r->hub, r->cluster, r->token_rtt_seconds);
    for (uint32_t a = 0; a < n && !rc; a++) {
        const struct cluster_node *node = cluster_node_at(r->cluster, which[a]);
        nodes[a] = (struct planning_node){
            .name = node->name,
            .memory_bytes = node->memory_bytes,
            .rtt_seconds =
                r->token_rtt_seconds[which[a]] > 0 ? r->token_rtt_seconds[which[a]] : node->rtt_seconds,
            .host = cluster_node_host(r->cluster, which[a]) + 1,
            .cores = node->cores,
            .threads = node->threads,
            .correction = r->corrections[which[a]],
            .host_read_bytes_per_s = own_read_bandwidth(r),
            .profile = node->profiled ? &cluster_node_at(r->cluster, node->profile_of)->profile : NULL};
        for (uint32_t b = 0; b < n; b++) {
            struct planning_link *l = &links[a * n + b];
            cluster_link_between(r->cluster, which[a], which[b], &l->bytes_per_s, &l->rtt_seconds, NULL);
        }
    }
    in.nodes = nodes;
    in.links = links;
    in.node_count = n;
    if (!rc)
        rc = planning_problem(&in, &problem, err);
    if (!rc)
        rc = solve(r, problem, n, err);
    mem_free(nodes);
    mem_free(links);
    if (rc) {
        plan_problem_free(problem);
        return rc;
    }
    plan_problem_free(r->problem);
    r->problem = problem;
    r->planned = true;
    for (int s = 0; s < r->plan.stages; s++)
        stages[s] = (struct cluster_stage){.node = which[r->plan.stage[s].device],
                                           .first_block = (uint32_t)r->plan.stage[s].first_block,
                                           .last_block = (uint32_t)r->plan.stage[s].last_block};
    *load = (struct cluster_load){
        .stage_count = (uint32_t)r->plan.stages,
        .stages = stages,
        .kv_type = r->kv,
        .kv_pages = r->kv_pages,
        .max_tokens = r->max_tokens,
        .max_context = r->o.max_context,
        .max_sequences = r->o.sequences,
        .codec = r->codec,
        .inexact = r->o.inexact,
    };
    return 0;
}

/* Loopback workers for --stages, or the nodes of the file. */
static int gather_nodes(struct runner *r, struct cluster_node_options **nodes, uint32_t *count, struct error *err)
{
    if (r->config) {
        if (!r->config->node_count)
            return error_set(err, ERR_NOTFOUND, "%s: has no nodes yet; 'brigade invite -c %s' lets a board in", r->config->path,
                             r->config->path);
        int rc = key_load(r->config->key_path, &r->key, err);
        if (rc)
            return rc;
        *count = r->config->node_count;
    } else {
        uint32_t blocks = r->model ? model_info(r->model)->blocks : 0;
        if (r->o.stages > blocks || r->o.stages > PLAN_MAX_DEVICES)
            return error_set(err, ERR_USAGE,
                             "%u stages are too many: the model has %u blocks, and %d workers are the most",
                             r->o.stages, blocks, PLAN_MAX_DEVICES);
        int rc = key_generate(&r->key, err);
        if (rc)
            return rc;
        struct spawn_options o = {
            .count = r->o.stages,
            .worker_path = r->o.worker_path,
            .model_path = r->o.model_path,
            .coordinator_key = key_public_text(r->key),
            .threads = r->o.threads,
            .interrupt = r->o.interrupt,
        };
        if ((rc = spawn_start(&o, &r->spawn, err)))
            return rc;
        spawn_workers(r->spawn, count);
    }
    struct cluster_node_options *list = mem_zalloc(*count, sizeof *list);
    if (!list)
        return error_set(err, ERR_NOMEM, "out of memory for %u nodes", *count);
    for (uint32_t i = 0; i < *count; i++) {
        uint32_t spawned;
        if (r->config)
            list[i] = (struct cluster_node_options){r->config->nodes[i].name, r->config->nodes[i].endpoint,
                                                    r->config->nodes[i].public_key, r->config->nodes[i].memory_bytes};
        else
            list[i] = (struct cluster_node_options){spawn_workers(r->spawn, &spawned)[i].name,
                                                    spawn_workers(r->spawn, &spawned)[i].endpoint,
                                                    spawn_workers(r->spawn, &spawned)[i].public_key, 0};
    }
    *nodes = list;
    return 0;
}

static int create_cluster(struct runner *r, const struct cluster_node_options *nodes, uint32_t count, struct error *err)
{
    static const enum cluster_goal goals[] = {
        [RUNNER_SERVE] = CLUSTER_SERVE, [RUNNER_PLAN] = CLUSTER_PLAN, [RUNNER_LOOK] = CLUSTER_LOOK};
    struct cluster_link_options *links = NULL;
    uint32_t link_count = r->config ? r->config->link_count : 0;
    if (link_count && !(links = mem_zalloc(link_count, sizeof *links)))
        return error_set(err, ERR_NOMEM, "out of memory for %u links", link_count);
    for (uint32_t i = 0; i < link_count; i++)
        links[i] = (struct cluster_link_options){r->config->links[i].from, r->config->links[i].to,
                                                 r->config->links[i].bytes_per_s, r->config->links[i].rtt_seconds};
    const char *slash = r->o.model_path ? strrchr(r->o.model_path, '/') : NULL;
    struct cluster_options o = {
        .goal = goals[r->o.goal],
        .nodes = nodes,
        .node_count = count,
        .links = links,
        .link_count = link_count,
        .coordinator_key = key_public_text(r->key),
        .model = slash ? slash + 1 : r->o.model_path,
        .fingerprint = r->model ? model_info(r->model)->fingerprint : 0,
        .kv_type = r->kv,
        .context = r->o.max_context,
        .chunk = r->o.chunk_tokens,
        .token_bytes = r->model ? 4 * (uint64_t)model_info(r->model)->width : 0,
        .profile = true,
        .alike = r->spawn != NULL,
        .heartbeat_us = r->config ? r->config->heartbeat_us : CONFIG_HEARTBEAT_US,
        .lost_us = r->config ? r->config->lost_us : 2 * CONFIG_LOST_US, /* ours share this machine's cores */
        .recover = !r->o.no_recovery && (!r->config || r->config->recover),
        .stay = r->o.stay && r->config, /* workers of our own do not come back: whoever serves starts new ones */
        .rejoin_us = r->o.rejoin_given ? (int64_t)(r->o.rejoin_seconds * 1e6) : r->config ? r->config->rejoin_us : 0,
    };
    int rc = cluster_create(&o, clock_us(), &r->cluster, err);
    mem_free(links);
    return rc;
}

static int connect_controls(struct runner *r, struct error *err)
{
    uint32_t n = cluster_node_count(r->cluster);
    r->controls = mem_zalloc(n, sizeof *r->controls);
    r->wait_links = mem_zalloc(n + 2, sizeof *r->wait_links);
    r->wait_ready = mem_zalloc(n + 2, sizeof *r->wait_ready);
    if (!r->controls || !r->wait_links || !r->wait_ready)
        return error_set(err, ERR_NOMEM, "out of memory for %u links", n);
    for (uint32_t i = 0; i < n; i++) {
        const struct cluster_node *node = cluster_node_at(r->cluster, i);
        int rc = link_connect(r->hub, PLANE_CONTROL, node->endpoint, node->public_key, &r->controls[i].link, err);
        if (rc) {
            error_prefix(err, "worker \"%s\" at %s", node->name, node->endpoint);
            return rc;
        }
        r->control_count++;
    }
    return 0;
}

int bring_up_cluster(struct runner *r, struct error *err)
{
    struct cluster_node_options *nodes = NULL;
    uint32_t count = 0;
    r->remote = true;
    runner_tell(r, NULL, "", 0, 0);
    int rc = gather_nodes(r, &nodes, &count, err);
    if (!rc)
        rc = hub_create(r->key, &r->hub, err);
    if (!rc && r->config && r->model && r->o.goal != RUNNER_LOOK) /* our own workers are given the file's folder */
        rc = offer_start(r->hub, r->model, &r->offer, err);
    if (!rc)
        rc = create_cluster(r, nodes, count, err);
    mem_free(nodes);
    if (!rc)
        rc = connect_controls(r, err);
    runner_enter_phase(r, RUNNER_CONNECTING);
    while (!rc && !r->reached) {
        if ((rc = runner_interrupted(r, err)) || (rc = loop_pass(r, err)) || r->reached)
            break;
        rc = loop_wait(r, INT64_MAX, err);
    }
    return rc;
}
