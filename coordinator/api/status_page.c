/* GET /health and GET /status: what the server and its runner are doing, as JSON. HTTP threads; the plan's part is noted
 * by the runner's thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "coordinator/api/server_state.h"
#include "planner/plan.h"

static const char *health_name(enum api_health health)
{
    static const char *const names[] = {"loading", "ready", "degraded", "stopping"};
    return names[health];
}

/* What there is to say about a health that is not "ready". */
static void health_detail(struct api_server *s, const struct runner_status *status, char *text, size_t bytes)
{
    pthread_mutex_lock(&s->note_lock);
    snprintf(text, bytes, "%s", s->trouble.code ? s->trouble.text : s->progress);
    pthread_mutex_unlock(&s->note_lock);
    if (status && *status->outage) {
        snprintf(text, bytes, "%s", status->outage);
        return;
    }
    for (uint32_t i = 0; status && i < status->node_count; i++)
        if (status->nodes[i].has_stage && strcmp(status->nodes[i].state, "ready"))
            snprintf(text, bytes, "node \"%s\" is %s%s%s", status->nodes[i].name, status->nodes[i].state,
                     *status->nodes[i].detail ? ": " : "", status->nodes[i].detail);
}

static void reply_json(struct api_server *s, struct http_call *call, unsigned code, json_t *root)
{
    struct buffer b = {0};
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (text)
        buffer_puts(&b, text);
    free(text);
    if (!b.size) {
        struct api_error e;
        api_fail(&e, 500, "server_error", NULL, "out of memory");
        api_reply_error(s, call, &e);
    } else {
        api_reply(s, call, code, "application/json", &b);
    }
}

void health_handle(struct api_server *s, struct http_call *call)
{
    struct runner_status status = {0};
    bool has = false;
    char detail[1024];
    enum api_health health = api_health_of(s, &status, &has);
    health_detail(s, has ? &status : NULL, detail, sizeof detail);
    json_t *root = json_pack("{s:s, s:s}", "status", health_name(health), "model", s->o.model);
    if (root && health != API_READY)
        json_object_set_new(root, "detail", json_string(detail));
    if (has)
        json_object_update_new(root, json_pack("{s:i, s:i}", "running", (int)status.running, "queued", (int)status.queued));
    runner_status_free(&status);
    reply_json(s, call, has && health != API_STOPPING ? 200 : 503, root);
}

/* A device of the plan is a node of the status by name, or this process. */
char *status_plan_json(const struct runner *r)
{
    const struct plan *plan = runner_plan(r);
    const struct plan_problem *problem = runner_problem(r);
    const struct model_info *info = model_info(runner_model(r));
    json_t *stages = json_array();
    if (plan && problem) {
        for (int i = 0; i < plan->stages; i++) {
            const struct plan_stage *st = &plan->stage[i];
            const struct plan_device *device = &problem->device[st->device];
            json_array_append_new(stages, json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f}", "device",
                                                    device->name ? device->name : "", "first_block", st->first_block,
                                                    "last_block", st->last_block, "memory_bytes", st->memory_bytes,
                                                    "device_memory_bytes", device->memory, "decode_ms", st->decode_s * 1e3,
                                                    "prefill_ms", st->prefill_s * 1e3));
        }
    }
    json_t *root = json_pack("{s:o, s:{s:s, s:s, s:i, s:i, s:I, s:I, s:i}}", "stages", stages, "model", "architecture",
                             info->architecture, "name", info->name, "blocks", (int)info->blocks, "vocabulary",
                             (int)info->vocabulary, "parameters", (json_int_t)info->parameters, "weight_bytes",
                             (json_int_t)info->weight_bytes, "context", (int)runner_max_context(r));
    if (root && plan)
        json_object_set_new(root, "predicted", json_pack("{s:f, s:f, s:f}", "tpot_ms", plan->tpot_s * 1e3, "ttft_ms",
                                                         plan->ttft_s * 1e3, "tokens_per_s", plan->tokens_per_s));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL, *copy = text ? mem_strdup(text) : NULL;
    free(text);
    json_decref(root);
    return copy;
}

static json_t *nodes_json(const struct runner_status *st)
{
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < st->node_count; i++) {
        const struct runner_node *n = &st->nodes[i];
        json_array_append_new(
            nodes, json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:f, s:I, s:I, s:f, s:f, s:I}", "name", n->name, "endpoint",
                             n->endpoint, "state", n->state, "detail", n->detail, "isa", n->isa, "cores", (int)n->cores, "stage",
                             n->has_stage ? (int)n->stage : -1, "memory_bytes", (json_int_t)n->memory_bytes, "resident_bytes",
                             (json_int_t)n->resident_bytes, "busy_seconds", (double)n->busy_us * 1e-6, "bytes_in",
                             (json_int_t)n->bytes_in, "bytes_out", (json_int_t)n->bytes_out, "rtt_ms", n->rtt_seconds * 1e3,
                             "temperature", (double)n->temperature_millic * 1e-3, "tokens", (json_int_t)n->tokens));
        json_t *node = json_array_get(nodes, json_array_size(nodes) - 1);
        if (n->energy_measured && node)
            json_object_set_new(node, "watts", json_real(n->watts));
    }
    return nodes;
}

static json_t *links_json(const struct runner_status *st)
{
    json_t *links = json_array();
    for (uint32_t i = 0; i < st->link_count; i++)
        json_array_append_new(links, json_pack("{s:s, s:s, s:f, s:f, s:b}", "from", st->links[i].from, "to", st->links[i].to,
                                               "bytes_per_s", st->links[i].bytes_per_s, "rtt_ms",
                                               st->links[i].rtt_seconds * 1e3, "measured", st->links[i].measured));
    return links;
}

/* Seconds by each way to go on after the last change of stages, null where it was none, and which one was taken. */
static json_t *forecast_json(const struct refill_forecast *f)
{
    json_t *o = json_object();
    const double seconds[] = {f->fetched, f->filled, f->computed};
    static const char *const names[] = {"fetching", "re-sending", "computing again"};
    const char *choice = refill_forecast_choice(f);
    for (int i = 0; o && i < 3; i++)
        json_object_set_new(o, names[i], *choice && seconds[i] >= 0 ? json_real(seconds[i]) : json_null());
    if (o)
        json_object_set_new(o, "chosen", *choice ? json_string(choice) : json_null());
    return o;
}

static json_t *stages_json(const struct runner_status *st)
{
    json_t *stages = json_array();
    for (uint32_t i = 0; i < st->stage_count; i++)
        json_array_append_new(stages, json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "microbatches",
                                                (json_int_t)st->stages[i].microbatches, "tokens",
                                                (json_int_t)st->stages[i].tokens, "busy_seconds",
                                                st->stages[i].compute_seconds, "wait_seconds", st->stages[i].wait_seconds,
                                                "decode_ms", st->stages[i].decode_seconds * 1e3,
                                                "decode_predicted_ms", st->stages[i].predicted_seconds * 1e3,
                                                "decode_sequences", st->stages[i].decode_sequences));
    return stages;
}

void status_handle(struct api_server *s, struct http_call *call)
{
    struct runner_status st = {0};
    bool has = false;
    char detail[1024];
    enum api_health health = api_health_of(s, &st, &has);
    health_detail(s, has ? &st : NULL, detail, sizeof detail);
    pthread_mutex_lock(&s->note_lock);
    json_t *plan = s->plan_json ? json_loads(s->plan_json, 0, NULL) : NULL;
    pthread_mutex_unlock(&s->note_lock);
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:i}", "status", health_name(health), "detail", detail,
                             "model", s->o.model, "version", BRIGADE_VERSION, "uptime_seconds",
                             (double)(clock_ms() - s->opened_ms) * 1e-3, "now_seconds", (double)clock_us() * 1e-6, "parallel",
                             (int)s->o.parallel, "queue", (int)s->o.queue, "http_live", (int)http_live(s->http));
    if (plan)
        json_object_set_new(root, "plan", plan);
    if (has && root) {
        json_object_update_new(
            root, json_pack("{s:s, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I}", "phase",
                            runner_phase_name(st.phase), "epoch", (json_int_t)st.epoch, "running", (int)st.running, "queued",
                            (int)st.queued, "pages", (int)st.pages, "pages_used", (int)st.pages_used, "microbatches",
                            (int)st.microbatches, "microbatches_max", (int)st.microbatches_max, "tokens_in",
                            (json_int_t)st.tokens_in, "tokens_out", (json_int_t)st.tokens_out, "requests_done",
                            (json_int_t)st.requests_done, "requests_failed", (json_int_t)st.requests_failed,
                            "requests_cancelled", (json_int_t)st.requests_cancelled));
        json_object_update_new(root, json_pack("{s:i, s:I, s:I}", "pages_idle", (int)st.pages_idle, "prompt_tokens_shared",
                                               (json_int_t)st.tokens_shared, "preempted", (json_int_t)st.preempted));
        json_object_update_new(root, json_pack("{s:i, s:f, s:s}", "recoveries", (int)st.recoveries, "recovery_seconds",
                                               st.recovery_seconds, "outage", st.outage));
        json_object_set_new(root, "replay_tokens",
                            json_pack("{s:I, s:I, s:I}", "kept", (json_int_t)st.replay_kept, "resent",
                                      (json_int_t)st.replay_resent, "computed", (json_int_t)st.replay_computed));
        json_object_set_new(root, "replay_fetched_bytes", json_integer((json_int_t)st.replay_fetched_bytes));
        json_object_set_new(root, "replay_predicted", forecast_json(&st.replay_forecast));
        json_object_set_new(root, "stages", stages_json(&st));
        json_object_set_new(root, "nodes", nodes_json(&st));
        json_object_set_new(root, "links", links_json(&st));
        json_object_set_new(root, "energy", json_pack("{s:i, s:i, s:f, s:f, s:s}", "machines", (int)st.energy.machines,
                                                      "machines_measured", (int)st.energy.measured, "joules",
                                                      st.energy.joules, "watts", st.energy.watts, "source",
                                                      st.energy.source));
    }
    runner_status_free(&st);
    reply_json(s, call, 200, root);
}
