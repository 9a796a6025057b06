/* From options to something that computes: stages in this process, or a cluster (configured, or of loopback workers)
 * through connecting, profiling, planning and loading. Runner's thread. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/slice.h"
#include "coordinator/core/pipeline_local.h"
#include "coordinator/core/pipeline_remote.h"
#include "coordinator/core/runner_state.h"

#define OWN_LOST_US INT64_C(2000000) /* the silence of loopback workers, which share the cores of this machine */

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
    struct planning_input in = replan_input(r);
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

/* ---- On a cluster ------------------------------------------------------------------------------------------------ */

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
        .lost_us = r->config ? r->config->lost_us : OWN_LOST_US,
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
    r->wait_links = mem_zalloc(n + PIPELINE_REMOTE_LINKS, sizeof *r->wait_links);
    r->wait_ready = mem_zalloc(n + PIPELINE_REMOTE_LINKS, sizeof *r->wait_ready);
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
    struct error why = {0};
    uint32_t count = 0;
    r->remote = true;
    slice_short(true); /* this thread passes tokens on and computes nothing */
    runner_tell(r, NULL, "", 0, 0);
    int rc = gather_nodes(r, &nodes, &count, err);
    if (!rc)
        rc = hub_create(r->key, &r->hub, err);
    if (!rc && rehearsal_create(r->hub, &r->rehearsal, &why))
        log_info("hops may take longer: %s", why.text);
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
