/* The only I/O of the coordinator's core: what the links, the clock, the mailbox and the pipe bring becomes events and
 * results; the cluster's actions and the scheduler's micro-batches go out. Runner's thread. */
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "coordinator/core/pipeline_remote.h"
#include "coordinator/core/runner_state.h"
#include "coordinator/core/slowness.h"

#define STALLED_US INT64_C(120000000) /* no stage computes that long on one micro-batch */
#define EXPLAIN_MS 300                /* for asking why a node cannot be reached, and for how many nodes */
#define EXPLAIN_MAX 4
#define BARREN_MOST 4                 /* epochs in a row without a result, before the requests are held to blame */
#define REBALANCE_EVERY_US INT64_C(2000000)
#define CHILDREN_EVERY_US 50000
#define LONGEST_WAIT_US 100000 /* signals may reach another thread: look at the flag now and then */

static int step(struct runner *r, const struct cluster_event *event, struct error *err);

/* ---- The cluster's actions --------------------------------------------------------------------------------------- */

static int send_control(struct runner *r, uint32_t node, const struct control_message *message, struct error *err)
{
    struct buffer bytes = {.limit = FRAME_HEADER_BYTES_MAX};
    int rc = control_encode(message, &bytes, err);
    if (!rc && r->controls[node].link) {
        rc = link_send(r->controls[node].link, NULL, &(struct frame_part){bytes.data, bytes.size}, 1, err);
        if (rc == ERR_BUSY || rc == ERR_LOST || rc == ERR_AUTH) {
            /* Not taken: the node does not keep up or is gone. Its heartbeat or deadline will say so. */
            log_debug("%s to \"%s\" was not sent: %s", control_kind_name(message->kind),
                      cluster_node_at(r->cluster, node)->name, error_name(rc));
            rc = 0;
        }
    }
    buffer_free(&bytes);
    return rc;
}

static int answer_plan(struct runner *r, struct error *err)
{
    struct cluster_stage stages[PLAN_MAX_DEVICES];
    struct cluster_load load;
    struct error why = {0};
    uint32_t most = r->kv_pages < FRAME_PAGES_MAX ? r->kv_pages : FRAME_PAGES_MAX, *pages = NULL;
    uint64_t *hashes = NULL;
    runner_enter_phase(r, RUNNER_PLANNING);
    int rc = bring_up_plan(r, &load, stages, &why);
    struct cluster_event event = rc ? (struct cluster_event){.kind = CLUSTER_UNPLANNED, .error = &why}
                                    : (struct cluster_event){.kind = CLUSTER_PLANNED, .load = &load};
    r->forecast = (struct refill_forecast){-1, -1, -1};
    if (!rc && r->scheduler && (pages = mem_resize(NULL, most, sizeof *pages)) &&
        (hashes = mem_resize(NULL, most, sizeof *hashes))) { /* else all that moves is filled in */
        uint32_t running;
        load.page_count = scheduler_pages(r->scheduler, most, pages, hashes, &running);
        load.pages = pages;
        load.hashes = hashes;
        refill_decide(r, &load, running, &r->forecast);
    }
    rc = step(r, &event, err);
    mem_free(pages);
    mem_free(hashes);
    return rc;
}

static int open_data(struct runner *r, uint64_t epoch, uint32_t first, uint32_t last, struct error *err)
{
    char first_endpoint[280], last_endpoint[280];
    cluster_data_endpoint(r->cluster, first, first_endpoint, sizeof first_endpoint);
    cluster_data_endpoint(r->cluster, last, last_endpoint, sizeof last_endpoint);
    struct remote_options o = {
        .hub = r->hub,
        .rehearsal = r->rehearsal,
        .stages = (uint32_t)r->plan.stages,
        .epoch = epoch,
        .first_endpoint = first_endpoint,
        .first_key = cluster_node_at(r->cluster, first)->public_key,
        .last_endpoint = last_endpoint,
        .last_key = cluster_node_at(r->cluster, last)->public_key,
    };
    r->attach_told[0] = r->attach_told[1] = false;
    r->pipe_epoch = epoch;
    return pipeline_remote_create(&o, &r->pipe, err);
}

static void follow_phase(struct runner *r)
{
    static const enum runner_phase phases[] = {
        [CLUSTER_CONNECTING] = RUNNER_CONNECTING, [CLUSTER_PROFILING] = RUNNER_PROFILING,
        [CLUSTER_MEASURING] = RUNNER_MEASURING,   [CLUSTER_PLANNING] = RUNNER_PLANNING,
        [CLUSTER_LOADING] = RUNNER_LOADING,       [CLUSTER_ATTACHING] = RUNNER_LOADING,
        [CLUSTER_SETTLING] = RUNNER_PLANNING,     [CLUSTER_WAITING] = RUNNER_WAITING};
    enum cluster_phase phase = cluster_phase_of(r->cluster);
    if (phase < CLUSTER_IS_READY)
        runner_enter_phase(r, phases[phase]);
}

/* ---- Recovery ---------------------------------------------------------------------------------------------------- */

/* The epoch has ended: what was under way is forgotten, running sequences begin again from their tokens when the next one
 * is ready. If several epochs in a row bring nothing, it is likely one of the requests that ends them. */
static void close_data(struct runner *r)
{
    pipeline_destroy(r->pipe);
    r->pipe = NULL;
    r->flowing = false;
    if (!r->moves && !r->back)
        rebalance_forget(&r->rebalance, clock_us());
    if (!r->scheduler)
        return;
    struct scheduler_counts counts;
    scheduler_count(r->scheduler, &counts);
    r->barren = r->fruitful || !counts.running ? 0 : r->barren + 1;
    scheduler_restart(r->scheduler);
    if (r->barren >= BARREN_MOST) {
        struct error why;
        error_set(&why, ERR_LOST, "workers were lost %u times in a row while these requests ran, without any result",
                  r->barren);
        log_warn("%s; they are ended", why.text);
        scheduler_fail(r->scheduler, &why, clock_us());
        r->barren = 0;
        r->progressed = true;
    }
}

static void note_layout(struct runner *r)
{
    r->old_layout = r->layout;
    r->layout.stages = cluster_stage_count(r->cluster);
    for (uint32_t s = 0; s < r->layout.stages; s++) {
        const struct cluster_node *node = cluster_node_at(r->cluster, cluster_stage_node(r->cluster, s));
        r->layout.stage[s] =
            (struct cluster_stage){cluster_stage_node(r->cluster, s), node->first_block, node->last_block};
    }
}

/* Sequences go on from what the stages hold; from nothing when that has not helped. */
static int restore(struct runner *r, uint64_t epoch, struct error *err)
{
    int rc = r->refill ? 0 : refill_create(model_info(r->model)->blocks, r->kv_pages, &r->refill, err);
    if (rc)
        return rc;
    refill_stages(r->refill, epoch, r->layout.stages, r->layout.stage);
    scheduler_restore(r->scheduler, r->barren > 1 ? NULL : r->refill, &r->restored);
    return 0;
}

/* The goal is reached: for the first time, or again. */
static int reach(struct runner *r, const struct cluster_action *a, struct error *err)
{
    r->reached = true;
    if (r->o.goal != RUNNER_SERVE)
        return 0;
    int rc = runner_prepare(r, cluster_stage_count(r->cluster), err);
    if (rc)
        return rc;
    note_layout(r);
    if ((rc = restore(r, a->epoch, err)))
        return rc;
    r->flowing = true;
    r->fruitful = false;
    if (r->came_to_serve) {
        r->recovery_seconds = (double)a->done / 1e6;
        runner_tell_recovery(r);
        runner_reopen(r);
        runner_enter_phase(r, RUNNER_READY);
    }
    r->came_to_serve = true;
    return 0;
}

/* Nobody came back in time: what waits ends with the reason, and so does what comes, until somebody does. */
static void give_up_for_now(struct runner *r, const struct error *why)
{
    runner_refuse(r, why);
    scheduler_fail(r->scheduler, why, clock_us());
    log_warn("%s; requests are refused until it works again", why->text);
    r->progressed = true;
}

static int carry_out(struct runner *r, const struct cluster_action *a, struct error *err)
{
    switch (a->kind) {
    case CLUSTER_SEND:
        return send_control(r, a->node, &a->message, err);
    case CLUSTER_NEED_PLAN:
        return answer_plan(r, err);
    case CLUSTER_OPEN_DATA:
        return open_data(r, a->epoch, a->node, a->other, err);
    case CLUSTER_CLOSE_DATA:
        close_data(r);
        return 0;
    case CLUSTER_REPORT:
        runner_tell(r, a->node < CLUSTER_NODES_MAX ? cluster_node_at(r->cluster, a->node)->name : NULL, a->what,
                    a->done, a->total);
        return 0;
    case CLUSTER_REACHED:
        return reach(r, a, err);
    case CLUSTER_TROUBLE:
        log_warn("%s", a->error.text);
        return 0;
    case CLUSTER_GIVE_UP:
        give_up_for_now(r, &a->error);
        return 0;
    case CLUSTER_FAILED:
        r->failure = a->error;
        return error_set(err, a->error.code, "%s", a->error.text);
    }
    return 0;
}

/* One event and all that follows from it. Steps may nest (a plan is asked for and given): each has its own actions. */
static int step(struct runner *r, const struct cluster_event *event, struct error *err)
{
    struct cluster_actions actions = r->actions;
    r->actions = (struct cluster_actions){0};
    actions.count = 0;
    int rc = cluster_step(r->cluster, event, clock_us(), &actions, err);
    if (!rc)
        follow_phase(r);
    for (size_t i = 0; i < actions.count && !rc; i++)
        rc = carry_out(r, &actions.list[i], err);
    cluster_actions_free(&r->actions);
    r->actions = actions; /* its memory serves the next step */
    return rc;
}

/* ---- What comes in ----------------------------------------------------------------------------------------------- */

static int take_message(struct runner *r, uint32_t node, const struct link_message *message, struct error *err)
{
    struct control_message control;
    struct error bad = {0};
    if (message->part_count != 1)
        return 0; /* nothing a worker of ours sends */
    if (control_decode(message->parts[0].data, message->parts[0].size, &control, &bad))
        return step(r, &(struct cluster_event){.kind = CLUSTER_BAD, .node = node, .error = &bad}, err);
    if (control.kind == CONTROL_LOADED && r->refill)
        refill_note(r->refill, node, &control);
    int rc = step(r, &(struct cluster_event){.kind = CLUSTER_MESSAGE, .node = node, .message = &control}, err);
    control_free(&control);
    return rc;
}

/* The cluster's lines name the endpoint themselves. */
static void strip_endpoint(char *text, const char *endpoint)
{
    size_t n = strlen(endpoint);
    if (strncmp(text, endpoint, n))
        return;
    n += text[n] == ':' ? 1 + (text[n + 1] == ' ') : 0;
    memmove(text, text + n, strlen(text + n) + 1);
}

/* A worker process of ours that ended is a node that was lost. Asking takes some system calls each: only now and then. */
static int check_children(struct runner *r, struct error *err)
{
    struct error how = {0};
    uint32_t node;
    int64_t now = clock_us();
    if (!r->spawn || now < r->children_at)
        return 0;
    r->children_at = now + CHILDREN_EVERY_US;
    int rc = spawn_check(r->spawn, &node, &how);
    if (!rc)
        return 0;
    if (r->o.no_recovery || !r->came_to_serve)
        return error_set(err, rc, "%s", how.text);
    struct cluster_event event = {.kind = CLUSTER_LINK, .node = node, .link = LINK_DOWN, .text = how.text};
    return step(r, &event, err);
}

/* The cluster hears of the state; a node that was away between two looks is lost and back. */
static int tell_link_state(struct runner *r, uint32_t node, enum link_state state, const char *text, struct error *err)
{
    struct control_link *c = &r->controls[node];
    c->told = true;
    c->state = state;
    snprintf(c->text, sizeof c->text, "%s", text);
    if (state != LINK_UP) {
        c->offered_port = 0; /* it may be another process when it is there again */
        r->children_at = 0;  /* how a process of ours ended says more than that it is gone */
        int rc = check_children(r, err);
        if (rc)
            return rc;
    }
    return step(r, &(struct cluster_event){.kind = CLUSTER_LINK, .node = node, .link = state, .text = c->text}, err);
}

static int take_link_state(struct runner *r, uint32_t node, struct error *err)
{
    struct control_link *c = &r->controls[node];
    char text[sizeof c->text] = "";
    enum link_state state = link_state(c->link, text, sizeof text);
    strip_endpoint(text, cluster_node_at(r->cluster, node)->endpoint);
    if (state == LINK_CONNECTING && *text && !*c->reason && r->explained < EXPLAIN_MAX) {
        r->explained++;
        link_explain(cluster_node_at(r->cluster, node)->endpoint, EXPLAIN_MS, c->reason, sizeof c->reason);
    }
    if (state == LINK_CONNECTING && *c->reason)
        snprintf(text, sizeof text, "%s", c->reason);
    unsigned connection = link_connections(c->link);
    if (state == LINK_UP && c->state == LINK_UP && connection != c->connection) {
        int rc = tell_link_state(r, node, LINK_DOWN, "connection lost", err);
        if (rc)
            return rc;
    }
    c->connection = connection;
    if (c->told && state == c->state && (state != LINK_CONNECTING || !strcmp(text, c->text))) {
        snprintf(c->text, sizeof c->text, "%s", text);
        return 0;
    }
    return tell_link_state(r, node, state, text, err);
}

/* Nodes that were taken out of cluster.yaml: nothing is heard from or said to them any more, and they count as lost. */
static int drop_revoked(struct runner *r, struct error *err)
{
    bool gone[CONFIG_NODES_MAX];
    uint32_t added = 0;
    int rc = 0;
    if (!r->config || !r->reached || !roster_look(&r->roster, r->config, clock_us(), gone, &added))
        return 0;
    if (added)
        log_warn("%s: %u new node%s; a restart brings %s in", r->config->path, added, added > 1 ? "s" : "",
                 added > 1 ? "them" : "it");
    for (uint32_t i = 0; i < r->control_count && !rc; i++) {
        if (!gone[i] || !r->controls[i].link)
            continue;
        log_warn("worker \"%s\" was revoked", cluster_node_at(r->cluster, i)->name);
        link_close(r->controls[i].link, 0);
        r->controls[i].link = NULL;
        if (r->offer)
            offer_forget(r->offer, cluster_node_at(r->cluster, i)->public_key);
        rc = step(r, &(struct cluster_event){.kind = CLUSTER_REVOKED, .node = i,
                                             .text = "revoked: its key is no longer in cluster.yaml"}, err);
    }
    return rc;
}

static int poll_controls(struct runner *r, struct error *err)
{
    int rc = drop_revoked(r, err);
    for (uint32_t i = 0; i < r->control_count && !rc; i++) {
        if (!r->controls[i].link)
            continue;
        struct link_message message;
        struct error bad = {0};
        int got = 0;
        /* Messages first: what a node said before its connection broke still counts. */
        while (!rc && link_may_have(r->controls[i].link) &&
               (got = link_receive(r->controls[i].link, &message, &bad)) > 0) {
            rc = take_message(r, i, &message, err);
            link_message_free(&message);
        }
        if (!rc && got < 0)
            rc = step(r, &(struct cluster_event){.kind = CLUSTER_BAD, .node = i, .error = &bad}, err);
        if (!rc)
            rc = take_link_state(r, i, err);
    }
    if (rc || clock_us() < cluster_next_tick(r->cluster))
        return rc;
    replan_tell_pace(r);
    return step(r, &(struct cluster_event){.kind = CLUSTER_TICK}, err);
}

static void take_result(struct runner *r, struct pipeline_result *got)
{
    struct frame_result *result = &got->result;
    char text[600];
    if (result->error_code && r->cluster && result->stage < cluster_stage_count(r->cluster)) {
        snprintf(text, sizeof text, "worker \"%s\" (stage %u): %s",
                 cluster_node_at(r->cluster, cluster_stage_node(r->cluster, result->stage))->name, result->stage,
                 result->error_text ? result->error_text : "");
        result->error_text = text;
    }
    r->fruitful |= !result->error_code;
    stage_meter_result(r->meter, result, clock_us());
    scheduler_result(r->scheduler, result, clock_us());
    r->progressed = true;
}

/* The pipe is broken: a lost node is the cluster's affair, which says so better. */
static int pipe_broke(struct runner *r, int rc, const struct error *why, struct error *err)
{
    int end = r->remote ? pipeline_remote_lost(r->pipe) : -1;
    if (end < 0)
        return error_set(err, rc, "%s", why->text);
    struct cluster_event event = {
        .kind = CLUSTER_BROKEN, .epoch = r->pipe_epoch, .last = end > 0, .text = why->text};
    return step(r, &event, err);
}

static int poll_pipe(struct runner *r, struct error *err)
{
    struct pipeline_result result;
    struct error why = {0};
    int got = 0, rc = 0;
    while (r->pipe && (got = pipeline_poll(r->pipe, &result, &why)) > 0) {
        if (r->scheduler)
            take_result(r, &result);
        pipeline_release(r->pipe, &result);
    }
    if (got < 0)
        return pipe_broke(r, got, &why, err);
    for (int end = 0; r->remote && r->pipe && end < 2 && !rc; end++)
        if (!r->attach_told[end] && pipeline_remote_attached(r->pipe, end)) {
            r->attach_told[end] = true;
            rc = step(r, &(struct cluster_event){.kind = CLUSTER_ATTACHED, .epoch = r->pipe_epoch, .last = end == 1},
                      err);
        }
    return rc;
}

/* Submissions and cancellations of other threads (and of callbacks). */
static void open_mail(struct runner *r)
{
    pthread_mutex_lock(&r->mail_lock);
    struct letter *mail = r->mail;
    r->mail = NULL;
    r->mail_end = &r->mail;
    pthread_mutex_unlock(&r->mail_lock);
    while (mail) {
        struct letter *next = mail->next;
        struct error full = {0};
        if (!mail->request) {
            scheduler_cancel(r->scheduler, mail->cancel, clock_us());
            r->progressed = true;
        } else if (scheduler_submit(r->scheduler, mail->request, &full)) {
            request_finish(mail->request, FINISH_ERROR, &full, clock_us());
            request_destroy(mail->request);
            r->progressed = true;
        }
        mem_free(mail);
        mail = next;
    }
}

/* Requests that have ended make room. */
static void count_inside(struct runner *r)
{
    struct scheduler_counts counts;
    scheduler_count(r->scheduler, &counts);
    pthread_mutex_lock(&r->mail_lock);
    uint32_t inside = counts.running + counts.queued;
    for (const struct letter *l = r->mail; l; l = l->next)
        inside += l->request != NULL;
    r->inside = inside;
    pthread_mutex_unlock(&r->mail_lock);
}

static int send_work(struct runner *r, struct error *err)
{
    struct frame_work work;
    int rc = 0, built;
    while (!rc && (built = scheduler_next(r->scheduler, clock_us(), &work, err)) != 0) {
        if (built < 0)
            return built;
        if (!work.share_count) /* else stages compute little of it, or nothing */
            stage_meter_sent(r->meter, &work, clock_us());
        rc = pipeline_submit(r->pipe, &work, err);
    }
    int64_t oldest = scheduler_oldest(r->scheduler);
    if (oldest)
        awake_work(&r->awake, clock_us());
    if (!rc && r->cluster && oldest && clock_us() - oldest > STALLED_US)
        rc = step(r, &(struct cluster_event){.kind = CLUSTER_STALLED, .stalled_us = clock_us() - oldest}, err);
    return rc;
}

/* Every worker that has a weights plane hears that the model can be had here. */
static int offer_weights(struct runner *r, struct error *err)
{
    char endpoint[280];
    int rc = 0;
    for (uint32_t i = 0; r->offer && i < r->control_count && !rc; i++) {
        const struct cluster_node *n = cluster_node_at(r->cluster, i);
        if (!n->welcomed || !r->controls[i].link || n->weights_port == r->controls[i].offered_port ||
            !cluster_weights_endpoint(r->cluster, i, endpoint, sizeof endpoint))
            continue;
        r->controls[i].offered_port = n->weights_port;
        rc = offer_node(r->offer, endpoint, n->public_key, err);
    }
    return rc;
}

/* Blocks move because someone asked, or because stages have drifted from the plan. */
static int look_for_moves(struct runner *r, struct error *err)
{
    char why[200] = "";
    double gain = 0, round = 0, hop;
    if (!r->cluster || !r->flowing || r->o.no_recovery)
        return 0;
    if (*r->asked_move) {
        snprintf(why, sizeof why, "%s", r->asked_move);
        r->asked_move[0] = 0;
        r->moves = true;
        rebalance_forget(&r->rebalance, clock_us());
    } else if (clock_us() >= r->rebalance_at && r->fruitful && (!r->config || r->config->rebalance)) {
        r->rebalance_at = clock_us() + REBALANCE_EVERY_US;
        if (!replan_gain(r, &gain) && !r->rebalance.judging)
            return 0; /* a move is judged even where too little was seen for another plan */
        stage_meter_rounds(r->meter, &round, &hop);
        enum rebalance_verdict verdict = rebalance_look(&r->rebalance, gain, round, clock_us());
        if (verdict == REBALANCE_MOVE)
            snprintf(why, sizeof why, "stages have drifted: another plan is %.0f %% faster; blocks move", gain * 100);
        else if (verdict == REBALANCE_BACK)
            snprintf(why, sizeof why, "the move made it slower (%.1f ms a round): blocks go back", round * 1e3);
        r->moves = verdict == REBALANCE_MOVE;
        r->back = verdict == REBALANCE_BACK;
    }
    return *why ? step(r, &(struct cluster_event){.kind = CLUSTER_REPLAN, .text = why}, err) : 0;
}

/* Results and requests in, micro-batches out. */
static int serve(struct runner *r, struct error *err)
{
    int rc = r->pipe ? poll_pipe(r, err) : 0;
    if (rc || !r->reached || !r->scheduler)
        return rc;
    open_mail(r);
    r->next_deadline = scheduler_tick(r->scheduler, clock_us());
    return r->flowing && r->pipe ? send_work(r, err) : 0;
}

int loop_pass(struct runner *r, struct error *err)
{
    /* First what stages wait for: it is a good part of a hop's time. */
    const bool flowed = r->flowing && r->pipe;
    int rc = flowed ? serve(r, err) : 0;
    if (!rc)
        rc = check_children(r, err);
    if (!rc && r->cluster)
        rc = poll_controls(r, err);
    if (!rc && r->offer)
        rc = offer_weights(r, err);
    if (!rc && !(flowed && r->flowing))
        rc = serve(r, err);
    if (!rc && r->reached && r->scheduler) {
        if (r->cluster && r->flowing)
            slowness_look(r, clock_us());
        rc = look_for_moves(r, err);
        count_inside(r);
    }
    if (!rc && r->failure.code)
        rc = error_set(err, r->failure.code, "%s", r->failure.text);
    return rc;
}

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

int loop_wait(struct runner *r, int64_t until_us, struct error *err)
{
    int64_t now = clock_us(), next = now + LONGEST_WAIT_US;
    size_t count = 0;
    awake_look(&r->awake, now);
    if (until_us < next)
        next = until_us;
    if (r->scheduler && r->next_deadline < next)
        next = r->next_deadline;
    for (uint32_t i = 0; i < r->control_count; i++)
        if (r->controls[i].link)
            r->wait_links[count++] = r->controls[i].link;
    if (r->cluster && cluster_next_tick(r->cluster) < next)
        next = cluster_next_tick(r->cluster);
    if (r->remote && r->pipe) {
        count += pipeline_remote_links(r->pipe, &r->wait_links[count]);
        int patience_ms = pipeline_remote_patience_ms(r->pipe);
        if (patience_ms >= 0 && now + patience_ms * 1000 < next)
            next = now + patience_ms * 1000;
    }
    int timeout_ms = next > now ? (int)((next - now + 999) / 1000) : 0;
    int rc = link_wait(r->wait_links, count, r->waker, timeout_ms, r->wait_ready);
    return rc < 0 ? error_set(err, rc, "waiting for messages: %s", error_name(rc)) : 0;
}
