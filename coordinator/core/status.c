/* A snapshot of nodes, links, stages and counters, for any thread. Reads the runner's state under its lock. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/core/runner_state.h"

static void fill_node(const struct cluster_node *n, bool looking, struct runner_node *out)
{
    /* As we see it; when we only look, as the coordinator sees it that commands the node. One that is gone or refused is no
     * longer slow: why it is so is what there is to say. */
    bool told = looking && n->heartbeat.kind == CONTROL_HEARTBEAT_REPLY && n->heartbeat.u.heartbeat_reply.slow;
    bool slow = (n->slow || told) && n->state != NODE_LOST && n->state != NODE_REFUSED;
    snprintf(out->name, sizeof out->name, "%s", n->name);
    snprintf(out->endpoint, sizeof out->endpoint, "%s", n->endpoint);
    snprintf(out->state, sizeof out->state, "%s", node_state_name(n->state));
    snprintf(out->detail, sizeof out->detail, "%s", n->drained ? "drained" : slow ? "slow" : n->detail);
    snprintf(out->public_key, sizeof out->public_key, "%s", n->public_key);
    snprintf(out->version, sizeof out->version, "%s", n->program_version);
    snprintf(out->isa, sizeof out->isa, "%s", n->isa);
    snprintf(out->cpu, sizeof out->cpu, "%s", n->cpu);
    out->cores = n->cores;
    out->threads = n->threads;
    out->memory_bytes = n->memory_bytes;
    out->rtt_seconds = n->rtt_seconds;
    out->has_stage = n->has_stage;
    out->stage = n->stage;
    out->first_block = n->first_block;
    out->last_block = n->last_block;
    if (!n->has_stage && n->has_loaded) { /* of another coordinator's epoch, or an earlier one of ours */
        out->has_stage = true;
        out->first_block = n->loaded.first_block;
        out->last_block = n->loaded.last_block;
    }
    snprintf(out->model, sizeof out->model, "%.255s", n->has_loaded ? n->loaded.model : "");
    if (n->heartbeat.kind == CONTROL_HEARTBEAT_REPLY) {
        out->resident_bytes = n->heartbeat.u.heartbeat_reply.resident_bytes;
        out->busy_us = n->heartbeat.u.heartbeat_reply.busy_us;
        out->decode_seconds = (double)n->heartbeat.u.heartbeat_reply.decode_ns / 1e9;
        out->expected_seconds = (double)n->heartbeat.u.heartbeat_reply.expected_ns / 1e9;
        out->microbatches = n->heartbeat.u.heartbeat_reply.microbatches;
        out->tokens = n->heartbeat.u.heartbeat_reply.tokens;
        out->bytes_in = n->heartbeat.u.heartbeat_reply.bytes_in;
        out->bytes_out = n->heartbeat.u.heartbeat_reply.bytes_out;
        out->weights_in = n->heartbeat.u.heartbeat_reply.weights_in;
        out->weights_out = n->heartbeat.u.heartbeat_reply.weights_out;
        out->temperature_millic = n->heartbeat.u.heartbeat_reply.temperature_millic;
        out->refused = n->heartbeat.u.heartbeat_reply.refused;
        out->energy_measured = n->heartbeat.u.heartbeat_reply.energy_measured;
        out->joules = (double)n->heartbeat.u.heartbeat_reply.energy_uj / 1e6;
        out->watts = n->heartbeat.u.heartbeat_reply.power_mw / 1e3;
        snprintf(out->energy_source, sizeof out->energy_source, "%s", n->heartbeat.u.heartbeat_reply.energy_source);
    }
}

static int fill_cluster(const struct cluster *c, bool looking, struct runner_status *s, struct error *err)
{
    uint32_t n = cluster_node_count(c), pairs = n * (n - 1) / 2;
    s->nodes = mem_zalloc(n, sizeof *s->nodes);
    s->links = mem_zalloc(pairs, sizeof *s->links);
    if (!s->nodes || !s->links)
        return error_set(err, ERR_NOMEM, "out of memory for the status of %u nodes", n);
    s->node_count = n;
    s->epoch = cluster_epoch(c);
    for (uint32_t a = 0; a < n; a++) {
        fill_node(cluster_node_at(c, a), looking, &s->nodes[a]);
        s->nodes[a].machine = cluster_node_host(c, a);
        for (uint32_t b = a + 1; b < n; b++) {
            struct runner_link *link = &s->links[s->link_count];
            if (!cluster_link_between(c, a, b, &link->bytes_per_s, &link->rtt_seconds, &link->measured))
                continue;
            snprintf(link->from, sizeof link->from, "%s", cluster_node_at(c, a)->name);
            snprintf(link->to, sizeof link->to, "%s", cluster_node_at(c, b)->name);
            s->link_count++;
        }
    }
    return 0;
}

static int fill(struct runner *r, struct runner_status *s, struct error *err)
{
    struct scheduler_counts counts = {0};
    s->phase = r->phase;
    s->recovery_seconds = r->recovery_seconds;
    if (r->cluster) {
        s->recoveries = cluster_recoveries(r->cluster);
        snprintf(s->outage, sizeof s->outage, "%s", cluster_outage(r->cluster));
    }
    if (r->scheduler)
        scheduler_count(r->scheduler, &counts);
    s->running = counts.running;
    s->queued = counts.queued;
    s->pages = counts.pages;
    s->pages_used = counts.pages_used;
    s->pages_idle = counts.pages_idle;
    s->tokens_shared = counts.tokens_shared;
    s->prefix_hits = counts.prefix_hits;
    s->prefix_misses = counts.prefix_misses;
    s->preempted = counts.preempted;
    s->replay_kept = counts.replay_kept;
    s->replay_resent = counts.replay_resent;
    s->replay_computed = counts.replay_computed;
    s->replay_fetched_bytes = r->fetched_bytes;
    s->replay_forecast = s->recoveries ? r->forecast : (struct refill_forecast){-1, -1, -1};
    s->batches = counts.batches;
    s->microbatches = counts.in_flight;
    s->microbatches_max = counts.in_flight_max;
    s->tokens_in = counts.tokens_in;
    s->tokens_out = counts.tokens_out;
    s->requests_done = counts.done;
    s->requests_failed = counts.failed;
    s->requests_cancelled = counts.cancelled;
    if (r->meter) {
        uint32_t stages = stage_meter_count(r->meter);
        if (!(s->stages = mem_zalloc(stages, sizeof *s->stages)))
            return error_set(err, ERR_NOMEM, "out of memory for the status of %u stages", stages);
        s->stage_count = stages;
        stage_meter_read(r->meter, s->stages);
        stage_meter_rounds(r->meter, &s->round_seconds, &s->hop_seconds);
        for (uint32_t i = 0; r->planned && i < stages && i < (uint32_t)r->plan.stages; i++)
            s->stages[i].predicted_seconds = planning_expected(r->problem, &r->plan, i, &s->stages[i]);
    }
    if (!r->cluster) {
        struct energy_reading here;
        energy_read(r->energy, &here);
        s->energy = (struct runner_energy){1, here.measured, here.joules, here.watts, ""};
        snprintf(s->energy.source, sizeof s->energy.source, "%s", here.source);
        return 0;
    }
    int rc = fill_cluster(r->cluster, r->o.goal == RUNNER_LOOK, s, err);
    if (!rc)
        runner_energy_sum(s->nodes, s->node_count, &s->energy);
    return rc;
}

int runner_status(struct runner *r, struct runner_status *out, struct error *err)
{
    struct runner_status s = {0};
    pthread_mutex_lock(&r->state_lock);
    int rc = fill(r, &s, err);
    pthread_mutex_unlock(&r->state_lock);
    if (rc) {
        runner_status_free(&s);
        return rc;
    }
    pthread_mutex_lock(&r->mail_lock);
    if (r->inside > s.running + s.queued)
        s.queued = r->inside - s.running; /* some are still in the mailbox */
    pthread_mutex_unlock(&r->mail_lock);
    *out = s;
    return 0;
}

void runner_status_free(struct runner_status *s)
{
    mem_free(s->nodes);
    mem_free(s->links);
    mem_free(s->stages);
    *s = (struct runner_status){0};
}
