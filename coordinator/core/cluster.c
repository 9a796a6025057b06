/* The cluster's step: takes events apart, keeps heartbeats and deadlines, and says what went wrong. What comes after
 * what stands in cluster_phases.c. Owns its state only; pure; one owner thread. */
#include "coordinator/core/cluster.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/core/cluster_state.h"

#define NODE_WITHOUT_STAGE 0 /* what a heartbeat's reply says of a worker that holds none */

void cluster_actions_free(struct cluster_actions *a)
{
    mem_free(a->list);
    *a = (struct cluster_actions){0};
}

/* ---- Actions ----------------------------------------------------------------------------------------------------- */

struct cluster_action *cluster_act(struct cluster *c, enum cluster_action_kind kind, uint32_t node)
{
    struct cluster_action *a = &c->out->list[c->out->count++];
    memset(a, 0, sizeof *a);
    a->kind = kind;
    a->node = node;
    a->epoch = a->message.epoch = c->epoch;
    return a;
}

void cluster_report(struct cluster *c, uint32_t node, const char *what, uint64_t done, uint64_t total)
{
    struct cluster_action *a = cluster_act(c, CLUSTER_REPORT, node);
    snprintf(a->what, sizeof a->what, "%s", what);
    a->done = done;
    a->total = total;
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

static void unreachable(struct cluster *c, uint32_t node)
{
    struct member *m = &c->members[node];
    bool greeting = m->node.state == NODE_GREETING;
    double seconds = (double)c->connect_us / 1e6;
    char why[FRAME_TEXT_MAX], others[48] = "";
    if (greeting)
        snprintf(why, sizeof why, "took the connection but did not answer within %.1f s; is it a brigade-worker?",
                 seconds);
    else
        snprintf(why, sizeof why, "cannot be reached within %.1f s%s%.200s; is brigade-worker running there?", seconds,
                 *m->node.detail ? ": " : "", m->node.detail);
    m->node.state = NODE_LOST;
    m->deadline = NEVER;
    snprintf(m->node.detail, sizeof m->node.detail, "%s", why);
    if (c->goal == CLUSTER_LOOK)
        return;
    uint32_t more = 0;
    for (uint32_t i = 0; i < c->member_count; i++)
        more += i != node && !c->members[i].node.welcomed;
    if (more)
        snprintf(others, sizeof others, " (%u more did not answer either)", more);
    cluster_fail(c, ERR_TIMEOUT, "worker \"%s\" at %s %s%s", m->node.name, m->node.endpoint, why, others);
}

static void on_link(struct cluster *c, uint32_t node, enum link_state link, const char *text)
{
    struct member *m = &c->members[node];
    char why[FRAME_TEXT_MAX];
    bool out = m->node.state == NODE_LOST || m->node.state == NODE_REFUSED;
    m->node.linked = link == LINK_UP;
    if (out && !cluster_recovers(c))
        return;
    switch (link) {
    case LINK_UP:
        if (m->node.welcomed)
            cluster_lose(c, node, "it reconnected, so it had been restarted or cut off");
        if (m->node.state == NODE_CONNECTING || cluster_recovers(c))
            cluster_greet(c, node);
        break;
    case LINK_DOWN:
        if (m->node.welcomed) {
            cluster_lose(c, node, text && *text ? text : "its connection closed");
            break;
        }
        m->greet_at = NEVER;
        if (out)
            break;
        m->node.state = cluster_recovers(c) ? NODE_LOST : NODE_CONNECTING;
        if (cluster_recovers(c))
            m->deadline = NEVER;
        m->request = 0;
        snprintf(m->node.detail, sizeof m->node.detail, "%s", text ? text : "");
        break;
    case LINK_REFUSED:
        snprintf(why, sizeof why, "%.200s; its --allow needs our public key %s, and its own must be the one given here",
                 text && *text ? text : "the encrypted handshake was refused", c->coordinator_key);
        cluster_refuse(c, node, ERR_AUTH, why);
        break;
    case LINK_CONNECTING:
        snprintf(m->node.detail, sizeof m->node.detail, "%s", text ? text : "");
        break;
    }
}

static void on_heartbeat(struct member *m, const struct control_message *reply, int64_t now_us)
{
    uint64_t number = reply->u.heartbeat_reply.sequence;
    if (number > m->beat || number <= m->answered)
        return; /* never sent, or an old word */
    /* A sign of life from when that heartbeat went out; what was sent later is still open. */
    m->answered = number;
    m->unanswered_since = number == m->beat                ? 0
                          : m->beat - number >= BEATS_KEPT ? m->unanswered_since
                                                           : m->sent_us[(number + 1) % BEATS_KEPT];
    int64_t rtt = now_us - (int64_t)reply->u.heartbeat_reply.sent_us;
    if (rtt > 0 && (!m->node.rtt_seconds || (double)rtt / 1e6 < m->node.rtt_seconds))
        m->node.rtt_seconds = (double)rtt / 1e6;
    m->node.heartbeat = *reply;
    if (m->answered < FIRST_BEATS)
        m->next_beat = now_us; /* a few in quick succession, for a round trip that plans can rely on */
}

/* Its connection broke and came back without our seeing it: its stage is gone, though it answers. */
static bool lost_its_stage(const struct cluster *c, const struct member *m, const struct control_message *reply)
{
    return cluster_recovers(c) && c->phase == CLUSTER_IS_READY && m->node.has_stage && m->node.state == NODE_READY &&
           reply->u.heartbeat_reply.sequence > m->ready_beat && reply->u.heartbeat_reply.sequence == m->answered &&
           reply->u.heartbeat_reply.state == NODE_WITHOUT_STAGE;
}

static void on_measured(struct cluster *c, struct member *m, const struct control_message *reply)
{
    struct pair *p = &c->pairs[m->pair];
    p->under_way = false;
    p->known = p->measured = true;
    p->bytes_per_s = reply->u.link_measured.bytes_per_s;
    p->back_bytes_per_s = reply->u.link_measured.back_bytes_per_s;
    p->rtt_seconds = reply->u.link_measured.rtt_seconds;
    struct member *other = &c->members[p->a == (uint32_t)(m - c->members) ? p->b : p->a];
    m->node.state = NODE_IDLE;
    if (other->node.state == NODE_MEASURING)
        other->node.state = NODE_IDLE;
}

/* A copy of a Profile with its own cells; made before the step touches anything. */
static int copy_profile(const struct control_message *from, struct control_message *to)
{
    uint32_t count = from->u.profile.cell_count;
    *to = *from;
    to->u.profile.cells = mem_resize(NULL, count, sizeof *to->u.profile.cells);
    if (!to->u.profile.cells)
        return ERR_NOMEM;
    if (count)
        memcpy(to->u.profile.cells, from->u.profile.cells, count * sizeof *to->u.profile.cells);
    return 0;
}

static void on_message(struct cluster *c, uint32_t node, const struct control_message *msg,
                       struct control_message *profile, int64_t now_us)
{
    struct member *m = &c->members[node];
    if (m->node.state == NODE_LOST && cluster_recovers(c) && m->node.linked && !m->request)
        cluster_greet(c, node); /* a sign of life */
    if (m->node.state == NODE_LOST || m->node.state == NODE_REFUSED || m->node.state == NODE_CONNECTING)
        return;
    bool answers = msg->request && msg->request == m->request;
    switch (msg->kind) {
    case CONTROL_HEARTBEAT_REPLY:
        on_heartbeat(m, msg, now_us);
        if (lost_its_stage(c, m, msg)) {
            cluster_lose(c, node, "it answers, but its stage is gone: it was restarted");
            cluster_greet(c, node);
        }
        return;
    case CONTROL_FAILURE:
        cluster_failure(c, node, msg, answers);
        return;
    case CONTROL_PROGRESS:
        if (answers) {
            m->deadline = now_us + c->quiet_us;
            cluster_report(c, node, msg->u.progress.what, msg->u.progress.done, msg->u.progress.total);
        }
        return;
    case CONTROL_WELCOME:
        if (answers && m->node.state == NODE_GREETING)
            cluster_welcome(c, node, msg, now_us);
        return;
    case CONTROL_PROFILE:
        if (!answers || m->node.state != NODE_PROFILING)
            return;
        m->node.profile = *profile;
        profile->u.profile.cells = NULL;
        m->node.state = NODE_IDLE;
        for (uint32_t i = 0; i < c->member_count; i++)
            if (i == node || (c->alike && !c->members[i].node.profiled)) {
                c->members[i].node.profiled = true;
                c->members[i].node.profile_of = node;
            }
        break;
    case CONTROL_LINK_MEASURED:
        if (!answers || m->node.state != NODE_MEASURING)
            return;
        on_measured(c, m, msg);
        break;
    case CONTROL_LOADED:
        if (!answers || m->node.state != NODE_LOADING || msg->epoch != c->epoch)
            return;
        m->node.state = NODE_LOADED;
        m->node.stage_bytes = msg->u.loaded.total_bytes;
        m->node.read_bytes = msg->u.loaded.read_bytes;
        m->node.fetched_bytes = msg->u.loaded.fetched_bytes;
        m->node.has_loaded = true;
        m->node.loaded = (struct control_loaded_stage){.fingerprint = c->fingerprint,
                                                       .first_block = m->node.first_block,
                                                       .last_block = m->node.last_block,
                                                       .kv_type = c->load.kv_type,
                                                       .kv_pages = c->load.kv_pages,
                                                       .memory_bytes = msg->u.loaded.total_bytes};
        memcpy(m->node.loaded.model, c->model, sizeof m->node.loaded.model);
        break;
    default:
        return; /* Done, and what a coordinator says itself */
    }
    m->request = 0;
    m->deadline = NEVER;
    cluster_report(c, node, "", 1, 1);
}

static void on_deadline(struct cluster *c, uint32_t node)
{
    struct member *m = &c->members[node];
    char doing[96], why[96];
    if (cluster_recovers(c)) {
        snprintf(why, sizeof why, "it said nothing for %.0f s",
                 (double)(m->node.welcomed ? c->quiet_us : c->connect_us) / 1e6);
        if (m->node.welcomed)
            cluster_lose(c, node, why);
        else
            cluster_refuse_greeting(c, node, why);
        return;
    }
    if (!m->node.welcomed) {
        unreachable(c, node);
        return;
    }
    cluster_what_it_did(&m->node, m->node.state, doing, sizeof doing);
    if (m->node.state == NODE_MEASURING) {
        const struct pair *p = &c->pairs[m->pair];
        uint32_t other = p->a == node ? p->b : p->a;
        cluster_fail(c, ERR_TIMEOUT,
                     "worker \"%s\" could not measure its link to \"%s\" within %.0f s: can that board be reached from "
                     "it? (or give the link in cluster.yaml)",
                     m->node.name, c->members[other].node.name, (double)c->quiet_us / 1e6);
        return;
    }
    cluster_fail(c, ERR_TIMEOUT, "worker \"%s\" at %s said nothing for %.0f s while %s; see its log", m->node.name,
                 m->node.endpoint, (double)c->quiet_us / 1e6, doing);
}

/* Heartbeats, deadlines, losses. */
static void on_tick(struct cluster *c, int64_t now_us)
{
    /* If we ourselves were away (stopped, swapped out, blocked), nobody else is to blame for that time. */
    int64_t gap = now_us - c->last_tick,
            fair = c->lost_us / 2 > 2 * c->heartbeat_us ? c->lost_us / 2 : 2 * c->heartbeat_us;
    int64_t excuse = gap > fair ? gap - c->heartbeat_us : 0;
    c->last_tick = now_us;
    if (c->attach_deadline != NEVER)
        c->attach_deadline += excuse;
    for (uint32_t i = 0; i < c->member_count && c->phase != CLUSTER_HAS_FAILED; i++) {
        struct member *m = &c->members[i];
        if (m->deadline != NEVER)
            m->deadline += excuse;
        if (m->unanswered_since)
            m->unanswered_since += excuse;
        for (int k = 0; excuse && k < BEATS_KEPT; k++)
            m->sent_us[k] += excuse;
        if (m->unanswered_since && now_us - m->unanswered_since >= c->lost_us) {
            char why[64];
            snprintf(why, sizeof why, "no heartbeat for %.1f s", (double)(now_us - m->unanswered_since) / 1e6);
            cluster_lose(c, i, why);
            continue;
        }
        if (m->deadline <= now_us) {
            on_deadline(c, i);
            continue;
        }
        if (m->next_beat <= now_us) {
            struct control_message *beat = &cluster_act(c, CLUSTER_SEND, i)->message;
            beat->kind = CONTROL_HEARTBEAT;
            beat->u.heartbeat.sequence = ++m->beat;
            beat->u.heartbeat.sent_us = (uint64_t)now_us;
            beat->u.heartbeat.slow = m->node.slow;
            if (m->node.has_stage) {
                beat->u.heartbeat.decode_ns = m->node.decode_ns;
                beat->u.heartbeat.expected_ns = m->node.expected_ns;
            }
            m->sent_us[m->beat % BEATS_KEPT] = now_us;
            m->next_beat = now_us + c->heartbeat_us;
            if (!m->unanswered_since)
                m->unanswered_since = now_us;
        }
    }
    cluster_recovery_tick(c);
    if (c->phase == CLUSTER_ATTACHING && c->attach_deadline <= now_us) {
        uint32_t stage = c->attached[0] ? c->load.stage_count - 1 : 0;
        const struct member *m = &c->members[c->stages[stage].node];
        if (++c->attach_failures > 1)
            cluster_shun(c, c->stages[stage].node, c->quiet_us);
        cluster_interrupt(c, ERR_TIMEOUT,
                     "worker \"%s\" loaded its blocks but does not answer on its data port %u within %.1f s; is a "
                     "firewall in between?",
                     m->node.name, m->node.data_port, (double)c->connect_us / 1e6);
    }
}

static void on_stalled(struct cluster *c, int64_t stalled_us)
{
    uint32_t slowest = 0;
    uint64_t longest = 0;
    if (c->phase != CLUSTER_IS_READY)
        return;
    for (uint32_t s = 0; s < c->load.stage_count; s++) {
        const struct control_message *beat = &c->members[c->stages[s].node].node.heartbeat;
        uint64_t busy = beat->kind == CONTROL_HEARTBEAT_REPLY ? beat->u.heartbeat_reply.busy_for_us : 0;
        if (busy > longest) {
            longest = busy;
            slowest = s;
        }
    }
    const struct cluster_node *n = &c->members[c->stages[slowest].node].node;
    cluster_shun(c, c->stages[slowest].node, c->quiet_us);
    cluster_interrupt(c, ERR_TIMEOUT,
                 "worker \"%s\" (blocks %u-%u) has not finished its micro-batch for %.0f s; see its log", n->name,
                 n->first_block, n->last_block, (double)stalled_us / 1e6);
}

/* A data connection broke; its node may be well. */
static void on_broken(struct cluster *c, uint64_t epoch, bool last, const char *text)
{
    if (epoch != c->epoch || !c->data_open)
        return;
    uint32_t node = c->stages[last ? c->load.stage_count - 1 : 0].node;
    if (!cluster_recovers(c))
        cluster_lose(c, node, text);
    else
        cluster_interrupt(c, ERR_LOST, "worker \"%s\": %s", c->members[node].node.name, text);
}

int cluster_step(struct cluster *c, const struct cluster_event *event, int64_t now_us, struct cluster_actions *out,
                 struct error *err)
{
    struct control_message profile = {0};
    size_t need = out->count + 8 * (size_t)c->member_count + 16;
    if (need > out->capacity) {
        struct cluster_action *grown = mem_resize(out->list, need, sizeof *grown);
        if (!grown)
            return error_set(err, ERR_NOMEM, "out of memory for the cluster's actions");
        out->list = grown;
        out->capacity = need;
    }
    if (c->phase == CLUSTER_HAS_FAILED)
        return 0;
    if (event->kind == CLUSTER_MESSAGE && event->message->kind == CONTROL_PROFILE &&
        copy_profile(event->message, &profile))
        return error_set(err, ERR_NOMEM, "out of memory for a device profile");
    c->out = out;
    c->now_us = now_us;
    switch (event->kind) {
    case CLUSTER_TICK:
        on_tick(c, now_us);
        break;
    case CLUSTER_LINK:
        on_link(c, event->node, event->link, event->text);
        break;
    case CLUSTER_MESSAGE:
        on_message(c, event->node, event->message, &profile, now_us);
        break;
    case CLUSTER_BAD:
        cluster_refuse(c, event->node, event->error->code, event->error->text);
        break;
    case CLUSTER_PLANNED:
        if (c->phase == CLUSTER_PLANNING && event->load->stage_count && event->load->stage_count <= c->member_count) {
            c->load = *event->load;
            memcpy(c->stages, event->load->stages, event->load->stage_count * sizeof *c->stages);
            c->load.stages = c->stages;
            cluster_start_loading(c, now_us);
            c->load.page_count = 0;
        }
        break;
    case CLUSTER_UNPLANNED:
        if (c->phase == CLUSTER_PLANNING)
            cluster_unplanned(c, event->error);
        break;
    case CLUSTER_ATTACHED:
        if (c->phase == CLUSTER_ATTACHING && event->epoch == c->epoch)
            c->attached[event->last] = true;
        break;
    case CLUSTER_STALLED:
        on_stalled(c, event->stalled_us);
        break;
    case CLUSTER_BROKEN:
        on_broken(c, event->epoch, event->last, event->text);
        break;
    case CLUSTER_REVOKED:
        cluster_forget_key(c, event->node);
        on_link(c, event->node, LINK_DOWN, event->text);
        break;
    case CLUSTER_REPLAN:
        if (cluster_recovers(c) && c->phase == CLUSTER_IS_READY)
            cluster_interrupt(c, ERR_CANCELLED, "%s", event->text);
        break;
    }
    if (c->phase != CLUSTER_HAS_FAILED)
        cluster_advance(c, now_us);
    c->out = NULL;
    if (event->kind == CLUSTER_MESSAGE && event->message->kind == CONTROL_PROFILE)
        mem_free(profile.u.profile.cells);
    return 0;
}

int64_t cluster_next_tick(const struct cluster *c)
{
    int64_t next = c->last_tick + c->heartbeat_us;
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *m = &c->members[i];
        if (m->next_beat < next)
            next = m->next_beat;
        if (m->deadline < next)
            next = m->deadline;
        if (m->unanswered_since && m->unanswered_since + c->lost_us < next)
            next = m->unanswered_since + c->lost_us;
    }
    if (c->attach_deadline < next)
        next = c->attach_deadline;
    int64_t recovery = cluster_recovery_next(c);
    return recovery < next ? recovery : next;
}
