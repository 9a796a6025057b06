/* The coordinator's loop of the simulation: real cluster step and scheduler, no sockets. Every rule that must hold at
 * all times is checked here. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "tests/coordinator/sim/sim.h"

static void step(struct cluster_event event);

static void send_note(uint32_t node, const struct note *note)
{
    struct sim_node *n = &w.node[node];
    if (!n->control) {
        if (w.unsent_count[node] < 16)
            w.unsent[node][w.unsent_count[node]++] = *note;
        return;
    }
    sim_travel(
        (struct mail){
            .kind = MAIL_NOTE_TO_NODE, .from = SIM_COORDINATOR, .to = node, .note = *note, .connection = n->control},
        0, 0);
}

static uint32_t node_of_key(const char *key)
{
    for (uint32_t i = 0; i < w.nodes; i++)
        if (!strcmp(key, w.node[i].key))
            return i;
    return SIM_COORDINATOR;
}

static void send_control(uint32_t node, const struct control_message *m)
{
    struct note note = {.kind = m->kind, .epoch = m->epoch, .request = m->request};
    if (m->kind == CONTROL_HELLO)
        note.claim = m->u.hello.claim;
    if (m->kind == CONTROL_HEARTBEAT) {
        note.a = m->u.heartbeat.sequence;
        note.b = m->u.heartbeat.sent_us;
    }
    if (m->kind == CONTROL_LOAD) {
        if (m->epoch <= w.last_epoch && m->epoch != cluster_epoch(w.cluster))
            sim_broken("a load of epoch %llu after epoch %llu", (unsigned long long)m->epoch,
                       (unsigned long long)w.last_epoch);
        w.last_epoch = m->epoch;
        note.stage = m->u.load.stage;
        note.stages = m->u.load.stages;
        note.first = m->u.load.first_block;
        note.last = m->u.load.last_block;
        note.previous = node_of_key(m->u.load.previous_key);
        note.next = m->u.load.has_next ? node_of_key(m->u.load.next.public_key) : SIM_COORDINATOR;
        note.leave = m->u.load.leave;
        note.fetch_count = m->u.load.fetch_count;
        for (uint32_t i = 0; i < note.fetch_count; i++) {
            const struct control_held *f = &m->u.load.fetch[i];
            note.fetch[i].first = f->first_block;
            note.fetch[i].last = f->last_block;
            note.fetch[i].from = node_of_key(m->u.load.fetch_from[i].public_key);
            note.page_count = f->page_count;
            memcpy(note.pages, f->pages, f->page_count * sizeof *note.pages);
            memcpy(note.hashes, f->hashes, f->page_count * sizeof *note.hashes);
            if (note.fetch[i].from >= w.nodes || note.fetch[i].from == node || f->first_block < note.first ||
                f->last_block > note.last)
                sim_broken("%s is to fetch blocks %u-%u from %s", w.node[node].name, f->first_block, f->last_block,
                           sim_node_name(note.fetch[i].from));
        }
        if (note.last - note.first + 1 > w.capacity[node])
            sim_broken("%s is to load %u blocks; %u fit", w.node[node].name, note.last - note.first + 1,
                       w.capacity[node]);
    }
    if (m->kind == CONTROL_UNLOAD)
        note.leave = m->u.unload.leave;
    send_note(node, &note);
}

/* As before, with others in the places of those that are gone; false when it does not go like that. */
static bool plan_alike(void)
{
    struct cluster_stage stages[SIM_NODES] = {0};
    bool taken[SIM_NODES] = {false};
    for (uint32_t s = 0; s < w.stage_count; s++)
        taken[w.stages[s].node] = cluster_node_usable(w.cluster, w.stages[s].node);
    for (uint32_t s = 0; s < w.stage_count; s++) {
        uint32_t node = w.stages[s].node, blocks = w.stages[s].last_block - w.stages[s].first_block + 1;
        if (!cluster_node_usable(w.cluster, node))
            for (node = 0; node < w.nodes; node++)
                if (!taken[node] && cluster_node_usable(w.cluster, node) && w.capacity[node] >= blocks)
                    break;
        if (node == w.nodes)
            return false;
        taken[node] = true;
        stages[s] = (struct cluster_stage){node, w.stages[s].first_block, w.stages[s].last_block};
    }
    memcpy(w.stages, stages, sizeof stages);
    return w.stage_count > 0;
}

/* Some plan over the usable nodes, if their memory suffices. */
static void answer_plan(void)
{
    uint32_t order[SIM_NODES], n = 0, left = SIM_BLOCKS, room = 0;
    for (uint32_t i = 0; i < w.nodes; i++)
        if (cluster_node_usable(w.cluster, i)) {
            order[n++] = i;
            room += w.capacity[i];
        }
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = sim_below(i), swap = order[k];
        order[k] = order[i - 1];
        order[i - 1] = swap;
    }
    if (room < SIM_BLOCKS) {
        struct error why;
        error_set(&why, ERR_INFEASIBLE, "%u blocks, and %u fit on %u nodes", SIM_BLOCKS, room, n);
        step((struct cluster_event){.kind = CLUSTER_UNPLANNED, .error = &why});
        return;
    }
    bool alike = w.ever_ready && sim_chance(50) && plan_alike();
    if (!alike)
        w.stage_count = 0;
    for (uint32_t s = 0; s < n && left && !alike; s++) {
        room -= w.capacity[order[s]];
        uint32_t least = left > room ? left - room : 0,
                 most = w.capacity[order[s]] < left ? w.capacity[order[s]] : left;
        uint32_t count = least + sim_below(most - least + 1);
        if (!count)
            continue;
        w.stages[w.stage_count++] = (struct cluster_stage){order[s], SIM_BLOCKS - left, SIM_BLOCKS - left + count - 1};
        left -= count;
    }
    struct cluster_load load = {.stage_count = w.stage_count,
                                .stages = w.stages,
                                .kv_pages = SIM_PAGES,
                                .max_tokens = SIM_CHUNK + SIM_SEQUENCES,
                                .max_context = SIM_CONTEXT,
                                .max_sequences = SIM_SEQUENCES,
                                .keep_bytes = w.rows_limit};
    uint32_t pages[SIM_PAGES];
    uint64_t hashes[SIM_PAGES];
    if (w.scheduler && sim_chance(90)) {
        load.page_count = scheduler_pages(w.scheduler, SIM_PAGES, pages, hashes, NULL);
        load.pages = pages;
        load.hashes = hashes;
    }
    step((struct cluster_event){.kind = CLUSTER_PLANNED, .load = &load});
}

static void close_data(void)
{
    w.pipe = 0;
    w.flowing = false;
    if (w.scheduler)
        scheduler_restart(w.scheduler);
}

static void open_data(const struct cluster_action *a)
{
    w.pipe = ++w.connections;
    w.pipe_epoch = a->epoch;
    w.first = a->node;
    w.last = a->other;
    w.attach_told[0] = w.attach_told[1] = false;
    for (uint32_t role = 1; role <= 2; role++)
        sim_travel((struct mail){.kind = MAIL_ATTACH,
                                 .from = SIM_COORDINATOR,
                                 .to = role == 1 ? a->node : a->other,
                                 .epoch = a->epoch,
                                 .role = role,
                                 .connection = w.pipe},
                   1, 0);
}

static void reached(const struct cluster_action *a)
{
    struct error err = {0};
    uint32_t groups = cluster_stage_count(w.cluster);
    struct scheduler_options o = {.pages = SIM_PAGES,
                                  .page_tokens = KV_PAGE_TOKENS,
                                  .max_context = SIM_CONTEXT,
                                  .sequences = SIM_SEQUENCES,
                                  .queue = SIM_REQUESTS,
                                  .chunk_tokens = SIM_CHUNK,
                                  .groups = groups,
                                  .in_flight = groups + 1};
    int rc = w.scheduler ? scheduler_regroup(w.scheduler, 0, groups, groups + 1, &err)
                         : scheduler_create(&o, &w.scheduler, &err);
    if (rc)
        sim_broken("%s", err.text);
    sim_trace("epoch %llu is ready with %u stages, %.3f s after the loss", (unsigned long long)a->epoch, groups,
              (double)a->done / 1e6);
    struct scheduler_restored restored = {0};
    refill_stages(w.refill, a->epoch, w.stage_count, w.stages);
    if (sim_chance(90))
        scheduler_restore(w.scheduler, sim_chance(95) ? w.refill : NULL, &restored);
    sim_trace("of %u sequences %u are kept, %u filled in, %u computed again (%llu, %llu, %llu tokens)", restored.sequences,
              restored.kept, restored.resent, restored.computed, (unsigned long long)restored.kept_tokens,
              (unsigned long long)restored.resent_tokens, (unsigned long long)restored.computed_tokens);
    w.restored.kept_tokens += restored.kept_tokens;
    w.restored.resent_tokens += restored.resent_tokens;
    w.restored.computed_tokens += restored.computed_tokens;
    w.flowing = w.ever_ready = true;
    w.refused = false;
    w.recoveries += a->done > 0;
}

static void carry_out(const struct cluster_action *a)
{
    switch (a->kind) {
    case CLUSTER_SEND:
        send_control(a->node, &a->message);
        break;
    case CLUSTER_NEED_PLAN:
        answer_plan();
        break;
    case CLUSTER_OPEN_DATA:
        if (w.pipe)
            sim_broken("a second pipe is opened");
        open_data(a);
        break;
    case CLUSTER_CLOSE_DATA:
        close_data();
        break;
    case CLUSTER_REPORT:
        break;
    case CLUSTER_REACHED:
        reached(a);
        break;
    case CLUSTER_TROUBLE:
        sim_trace("coordinator: %s", a->error.text);
        break;
    case CLUSTER_GIVE_UP:
        sim_trace("coordinator gives up for now: %s", a->error.text);
        if (!w.stay)
            sim_broken("it gave up for now, but was not to stay");
        w.refused = true;
        if (w.scheduler)
            scheduler_fail(w.scheduler, &a->error, w.now);
        break;
    case CLUSTER_FAILED:
        sim_trace("coordinator fails: %s", a->error.text);
        w.failed = true;
        w.failure = a->error;
        if (w.scheduler)
            scheduler_fail(w.scheduler, &a->error, w.now);
        break;
    }
}

static void step(struct cluster_event event)
{
    struct cluster_actions actions = w.actions;
    struct error err = {0};
    if (w.failed)
        return;
    w.actions = (struct cluster_actions){0};
    actions.count = 0;
    if (cluster_step(w.cluster, &event, w.now, &actions, &err))
        sim_broken("%s", err.text);
    for (size_t i = 0; i < actions.count && !sim_is_broken; i++)
        carry_out(&actions.list[i]);
    cluster_actions_free(&w.actions);
    w.actions = actions;
    bool ready = cluster_phase_of(w.cluster) == CLUSTER_IS_READY;
    if (w.flowing && (!ready || w.pipe_epoch != cluster_epoch(w.cluster)))
        sim_broken("micro-batches of epoch %llu flow in epoch %llu", (unsigned long long)w.pipe_epoch,
                   (unsigned long long)cluster_epoch(w.cluster));
}

/* ---- Life -------------------------------------------------------------------------------------------------------- */

void coordinator_start(void)
{
    struct cluster_options o = {.goal = CLUSTER_SERVE,
                                .nodes = w.options,
                                .node_count = w.nodes,
                                .coordinator_key = "coordinator",
                                .model = "m.gguf",
                                .fingerprint = 1,
                                .context = SIM_CONTEXT,
                                .chunk = SIM_CHUNK,
                                .heartbeat_us = 250000,
                                .lost_us = 1000000,
                                .quiet_us = SIM_S(5),
                                .recover = true,
                                .stay = w.stay,
                                .rejoin_us = w.rejoin};
    struct error err = {0};
    w.failed = w.refused = w.flowing = w.ever_ready = false;
    w.starts++;
    if (refill_create(SIM_BLOCKS, SIM_PAGES, &w.refill, &err) || cluster_create(&o, w.now, &w.cluster, &err))
        sim_broken("%s", err.text);
}

void coordinator_end(void)
{
    close_data();
    if (w.scheduler)
        scheduler_cancel_all(w.scheduler, w.now);
    scheduler_destroy(w.scheduler);
    w.scheduler = NULL;
    refill_destroy(w.refill);
    w.refill = NULL;
    cluster_destroy(w.cluster);
    w.cluster = NULL;
    w.last_epoch = 0;
}

/* ---- What comes in ----------------------------------------------------------------------------------------------- */

void coordinator_link(uint32_t node, enum link_state state)
{
    step((struct cluster_event){.kind = CLUSTER_LINK, .node = node, .link = state, .text = ""});
    if (state != LINK_UP)
        return;
    for (uint32_t i = 0; i < w.unsent_count[node]; i++)
        send_note(node, &w.unsent[node][i]);
    w.unsent_count[node] = 0;
}

void coordinator_hears(uint32_t node, const struct note *note)
{
    static struct control_message m;
    m.kind = note->kind;
    m.epoch = note->epoch;
    m.request = note->request;
    memset(&m.u, 0, 256);
    switch (note->kind) {
    case CONTROL_WELCOME:
        memset(&m.u, 0, sizeof m.u);
        m.u.welcome.claimed = note->claim;
        m.u.welcome.memory_bytes = 1 << 30;
        m.u.welcome.data_port = 7000;
        m.u.welcome.weights_port = 7001;
        m.u.welcome.epoch = note->epoch;
        m.u.welcome.has_loaded = note->a;
        break;
    case CONTROL_HEARTBEAT_REPLY:
        m.u.heartbeat_reply.sequence = note->a;
        m.u.heartbeat_reply.sent_us = note->b;
        m.u.heartbeat_reply.state = (uint32_t)note->code;
        break;
    case CONTROL_LOADED:
        if (w.node[node].said.epoch == m.epoch) /* later words took its place: then it is of an old epoch */
            m.u.loaded = w.node[node].said.u.loaded;
        m.u.loaded.read_bytes = note->a;
        refill_note(w.refill, node, &m);
        break;
    case CONTROL_FAILURE:
        m.u.failure.code = note->code;
        snprintf(m.u.failure.text, sizeof m.u.failure.text, "%s", error_name(note->code));
        break;
    default:
        break;
    }
    step((struct cluster_event){.kind = CLUSTER_MESSAGE, .node = node, .message = &m});
}

void coordinator_takes(const struct mail *mail)
{
    if (mail->connection != w.pipe || mail->epoch != w.pipe_epoch)
        return; /* of a pipe that is closed */
    if (mail->kind == MAIL_ATTACHED) {
        bool last = mail->role == 2;
        if (!w.attach_told[last]) {
            w.attach_told[last] = true;
            step((struct cluster_event){.kind = CLUSTER_ATTACHED, .epoch = mail->epoch, .last = last});
        }
        return;
    }
    if (!w.flowing || !w.scheduler)
        return;
    if (mail->from != w.last)
        sim_broken("a result comes from %s, which is not the last stage", sim_node_name(mail->from));
    w.results++;
    scheduler_result(w.scheduler, &mail->result->result, w.now);
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    struct sim_request *r = context;
    (void)id;
    if (token->index != r->seen)
        sim_broken("request %d got token %u where %u belongs", (int)(r - w.requests), token->index, r->seen);
    else if (token->id != r->tokens[r->prompt + r->seen])
        sim_broken("request %d: token %u is %d, not %d", (int)(r - w.requests), r->seen, token->id,
                   r->tokens[r->prompt + r->seen]);
    r->seen++;
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct sim_request *r = context;
    (void)id;
    r->finishes++;
    r->reason = finish->reason;
    if (finish->error)
        snprintf(r->error, sizeof r->error, "%s", finish->error->text);
    for (uint32_t i = 0; r->scores && finish->reason == FINISH_DONE && i < finish->score_count; i++)
        if (finish->scores[i] != sim_score(r->tokens, i + 1, r->tokens[i + 1]))
            sim_broken("request %d: score %u is %g", (int)(r - w.requests), i, (double)finish->scores[i]);
    sim_trace("request %d ends: %s after %u tokens%s%s", (int)(r - w.requests), finish_reason_name(finish->reason),
              r->seen, finish->error ? ": " : "", r->error);
}

void coordinator_submit(uint32_t index)
{
    struct sim_request *r = &w.requests[index];
    struct error err = {0};
    struct request *request = NULL;
    struct request_options o = {.prompt = r->tokens,
                                .prompt_count = r->prompt,
                                .max_tokens = r->max_tokens,
                                .scores = r->scores,
                                .on_token = on_token,
                                .on_finish = on_finish,
                                .context = r,
                                .client = index % 3,
                                .deadline_us = r->deadline ? SIM_S(0.8) : 0};
    sampling_default(&o.sampling);
    if (!w.scheduler || w.failed || w.refused) { /* a mailbox would hold it; here it comes again */
        if (!w.failed || (w.takeover && w.starts == 1))
            sim_post((struct mail){.kind = MAIL_REQUEST, .index = index, .at = w.now + SIM_S(0.5)});
        return;
    }
    r->submitted = true;
    r->id = index + 1;
    int rc = request_create(&o, r->id, NULL, SIM_VOCABULARY, SIM_CONTEXT, w.now, &request, &err);
    if (!rc)
        rc = scheduler_submit(w.scheduler, request, &err);
    if (rc)
        sim_broken("request %u: %s", index, err.text);
}

void coordinator_cancel(uint32_t index)
{
    struct sim_request *r = &w.requests[index];
    if (!r->submitted || r->finishes || !w.scheduler)
        return;
    r->cancelled = true;
    scheduler_cancel(w.scheduler, r->id, w.now);
    if (r->finishes != 1 || r->reason != FINISH_CANCELLED)
        sim_broken("request %u was cancelled and did not end", index);
}

void coordinator_moves(uint32_t node, bool drained)
{
    if (!w.cluster || w.failed)
        return;
    if (node < w.nodes)
        cluster_set_drained(w.cluster, node, drained);
    step((struct cluster_event){.kind = CLUSTER_REPLAN, .text = "blocks move"});
}

/* ---- Turns ------------------------------------------------------------------------------------------------------- */

static void send_work(void)
{
    struct frame_work work;
    struct error err = {0};
    int built;
    while ((built = scheduler_next(w.scheduler, w.now, &work, &err)) > 0) {
        struct job *job = job_copy(&work);
        job->work.epoch = w.pipe_epoch;
        if (work.share_count)
            sim_trace("micro-batch %llu fills gaps of %u sequences", (unsigned long long)work.microbatch, work.span_count);
        sim_travel(
            (struct mail){.kind = MAIL_WORK, .from = SIM_COORDINATOR, .to = w.first, .epoch = w.pipe_epoch, .job = job},
            1, 0);
    }
    if (built < 0)
        sim_broken("%s", err.text);
}

static void check_bounds(void)
{
    struct scheduler_counts c;
    scheduler_count(w.scheduler, &c);
    if (c.in_flight > c.in_flight_max || c.running > SIM_SEQUENCES || c.pages_used > c.pages ||
        c.running + c.queued > SIM_SEQUENCES + SIM_REQUESTS)
        sim_broken("over a bound: %u under way, %u running, %u queued, %u of %u pages", c.in_flight, c.running,
                   c.queued, c.pages_used, c.pages);
    if (!c.running && c.pages_used)
        sim_broken("nothing runs, but %u pages are held", c.pages_used);
}

void coordinator_turn(void)
{
    if (w.failed || !w.cluster)
        return;
    if (w.now >= cluster_next_tick(w.cluster))
        step((struct cluster_event){.kind = CLUSTER_TICK});
    if (w.scheduler) {
        scheduler_tick(w.scheduler, w.now);
        if (w.flowing)
            send_work();
        check_bounds();
    }
}

int64_t coordinator_next(void)
{
    int64_t next = w.failed || !w.cluster ? INT64_MAX : cluster_next_tick(w.cluster);
    return next;
}
