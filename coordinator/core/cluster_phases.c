/* What comes after what in a cluster's life: greet everyone, measure devices, then links, ask for a plan, load the
 * stages, attach both ends of the pipe, be ready. Every function here begins only what can begin now, so it may be
 * called after any event. Pure; one owner thread. */
#include <stdio.h>
#include <string.h>

#include "coordinator/core/cluster_state.h"

#define LINK_PROBE_BYTES (UINT64_C(1) << 20)
#define LINK_PROBE_ROUNDS 16
#define LINK_PAUSE_BLOCKS 4 /* a stage waits for its turn at least while so many blocks are computed elsewhere */
#define LINK_PAUSE_US_LEAST 300
#define LINK_PAUSE_US_MOST 4000

/* Sends a message that awaits a reply. */
static struct control_message *ask(struct cluster *c, uint32_t node, enum control_kind kind, enum node_state state,
                                   int64_t deadline)
{
    struct member *m = &c->members[node];
    struct control_message *message = &cluster_act(c, CLUSTER_SEND, node)->message;
    message->kind = kind;
    message->request = m->request = c->next_request++;
    m->node.state = state;
    m->deadline = deadline;
    return message;
}

void cluster_greet(struct cluster *c, uint32_t node)
{
    struct member *m = &c->members[node];
    int64_t deadline = m->node.state == NODE_CONNECTING ? m->deadline : c->now_us + c->connect_us;
    struct control_message *hello = ask(c, node, CONTROL_HELLO, NODE_GREETING, deadline);
    m->greet_at = NEVER;
    snprintf(hello->u.hello.program_version, sizeof hello->u.hello.program_version, "%s", BRIGADE_VERSION);
    hello->u.hello.claim = c->goal != CLUSTER_LOOK;
}

static void allow(struct cluster *c, uint32_t node)
{
    struct control_message *message = &cluster_act(c, CLUSTER_SEND, node)->message;
    message->kind = CONTROL_ALLOW;
    message->u.allow.count = c->member_count + 1;
    message->u.allow.keys = c->keys;
}

/* A spare from now on; if the others wait for one, they plan with it. */
static void came_back(struct cluster *c, uint32_t node)
{
    struct cluster_node *n = &c->members[node].node;
    struct error back;
    allow(c, node);
    n->has_stage = false;
    c->news = true;
    error_set(&back, 0, "worker \"%s\" is back", n->name);
    cluster_act(c, CLUSTER_TROUBLE, node)->error = back;
}

void cluster_welcome(struct cluster *c, uint32_t node, const struct control_message *msg, int64_t now_us)
{
    struct member *m = &c->members[node];
    struct cluster_node *n = &m->node;
    snprintf(n->program_version, sizeof n->program_version, "%s", msg->u.welcome.program_version);
    snprintf(n->isa, sizeof n->isa, "%s", msg->u.welcome.isa);
    snprintf(n->cpu, sizeof n->cpu, "%s", msg->u.welcome.cpu);
    n->cores = msg->u.welcome.cores;
    n->threads = msg->u.welcome.threads;
    n->data_port = msg->u.welcome.data_port;
    n->weights_port = msg->u.welcome.weights_port;
    n->kernels_version = msg->u.welcome.kernels_version;
    m->machine = msg->u.welcome.machine;
    cluster_find_hosts(c);
    n->memory_bytes = msg->u.welcome.memory_bytes;
    if (n->memory_cap && n->memory_cap < n->memory_bytes)
        n->memory_bytes = n->memory_cap;
    n->has_loaded = msg->u.welcome.has_loaded;
    n->loaded = msg->u.welcome.loaded;
    n->detail[0] = 0;
    n->welcomed = true;
    n->state = NODE_IDLE;
    m->request = 0;
    m->deadline = NEVER;
    m->next_beat = now_us;
    m->answered = m->beat; /* what it was asked before is of another life */
    m->failures = 0;
    if (msg->u.welcome.epoch > c->epoch)
        c->epoch = msg->u.welcome.epoch; /* ours will be newer than any it has seen */
    if (c->goal != CLUSTER_LOOK && !msg->u.welcome.claimed)
        cluster_refuse(c, node, ERR_BUSY, "another coordinator commands it; stop that one first");
    else
        cluster_report(c, node, "", 1, 1);
    if (n->state == NODE_IDLE && cluster_recovers(c))
        came_back(c, node);
}

/* Everyone has answered, or (only looking) has answered a heartbeat or failed to. */
static bool all_settled(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct cluster_node *n = &c->members[i].node;
        bool gone = n->state == NODE_LOST || n->state == NODE_REFUSED;
        if (!gone && !n->welcomed)
            return false;
        if (!gone && c->goal == CLUSTER_LOOK && n->heartbeat.kind != CONTROL_HEARTBEAT_REPLY)
            return false;
    }
    return true;
}

/* From now on the nodes may talk to each other. */
static void allow_all(struct cluster *c)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        allow(c, i);
}

void cluster_forget_key(struct cluster *c, uint32_t node)
{
    memcpy(c->keys[node], c->keys[c->member_count], sizeof c->keys[node]); /* ours once more: the list keeps its length */
    for (uint32_t i = 0; i < c->member_count; i++)
        if (i != node && c->members[i].node.welcomed)
            allow(c, i);
}

/* Whether any node on the machine of `host` is measuring something: two at once would spoil both. */
static bool host_busy(const struct cluster *c, uint32_t host)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        enum node_state state = c->members[i].node.state;
        if (c->members[i].host == host && (state == NODE_PROFILING || state == NODE_MEASURING))
            return true;
    }
    return false;
}

static bool profile_devices(struct cluster *c, int64_t now_us)
{
    bool done = true;
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *m = &c->members[i];
        done &= m->node.profiled;
        if (m->node.profiled || m->node.state != NODE_IDLE || host_busy(c, m->host))
            continue;
        struct control_message *probe = ask(c, i, CONTROL_PROBE, NODE_PROFILING, now_us + c->quiet_us);
        snprintf(probe->u.probe.model, sizeof probe->u.probe.model, "%s", c->model);
        probe->u.probe.fingerprint = c->fingerprint;
        probe->u.probe.kv_type = c->kv_type;
        probe->u.probe.context = c->context;
        probe->u.probe.chunk = c->chunk;
        cluster_report(c, i, "device", 0, 0);
    }
    return done;
}

uint32_t cluster_pause_us(const struct cluster *c, uint32_t node)
{
    const struct cluster_node *n = &c->members[node].node;
    const struct control_message *profile = n->profiled ? &c->members[n->profile_of].node.profile : NULL;
    for (uint32_t i = 0; profile && i < profile->u.profile.cell_count; i++) {
        const struct control_cell *cell = &profile->u.profile.cells[i];
        if (cell->kind == FRAME_KIND_HEAD || cell->tokens != 1 || cell->sequences != 1)
            continue;
        double us = LINK_PAUSE_BLOCKS * cell->seconds * 1e6;
        return us < LINK_PAUSE_US_LEAST ? LINK_PAUSE_US_LEAST : us > LINK_PAUSE_US_MOST ? LINK_PAUSE_US_MOST : (uint32_t)us;
    }
    return 0;
}

static bool measure_links(struct cluster *c, int64_t now_us)
{
    bool done = true;
    for (uint32_t k = 0; k < c->pair_count; k++) {
        struct pair *p = &c->pairs[k];
        struct member *a = &c->members[p->a], *b = &c->members[p->b];
        done &= p->known;
        if (p->known || p->under_way || a->node.state != NODE_IDLE || b->node.state != NODE_IDLE ||
            host_busy(c, a->host) || host_busy(c, b->host))
            continue;
        struct control_message *probe = ask(c, p->a, CONTROL_PROBE_LINK, NODE_MEASURING, now_us + c->quiet_us);
        struct control_neighbour *peer = &probe->u.probe_link.peer;
        snprintf(peer->name, sizeof peer->name, "%s", b->node.name);
        cluster_data_endpoint(c, p->b, peer->endpoint, sizeof peer->endpoint);
        snprintf(peer->public_key, sizeof peer->public_key, "%s", b->node.public_key);
        probe->u.probe_link.token_bytes = c->token_bytes;
        probe->u.probe_link.bytes = c->token_bytes && c->chunk ? c->token_bytes * c->chunk : LINK_PROBE_BYTES;
        if (probe->u.probe_link.bytes > LINK_PROBE_BYTES)
            probe->u.probe_link.bytes = LINK_PROBE_BYTES;
        probe->u.probe_link.rounds = LINK_PROBE_ROUNDS;
        probe->u.probe_link.pause_us = cluster_pause_us(c, p->a);
        a->pair = k;
        p->under_way = true;
        b->node.state = NODE_MEASURING; /* it answers; its own deadline stays open */
        char what[64];
        snprintf(what, sizeof what, "link to %.48s", b->node.name);
        cluster_report(c, p->a, what, 0, 0);
    }
    return done;
}

/* What a stage's node may fetch from those that had its blocks, as entries from c->fetch[at] on; returns how many. */
static uint32_t list_fetches(struct cluster *c, const struct cluster_stage *s, uint32_t at)
{
    const struct cluster_load *load = &c->load;
    uint32_t first = at;
    const struct member *last = NULL;
    for (uint32_t b = s->first_block; b <= s->last_block && load->page_count; b++) {
        uint32_t source = cluster_page_source(c, b, s->node);
        struct member *from = source < CLUSTER_NODES_MAX ? &c->members[source] : NULL;
        if (from && from == last) {
            c->fetch[at - 1].last_block = b;
        } else if (from && at < 2 * c->member_count &&
                   (uint64_t)(at - first + 1) * load->page_count <= FRAME_HELD_PAGES_MAX) {
            /* The lists are only read. */
            c->fetch[at] = (struct control_held){b, b, load->page_count, (uint32_t *)load->pages, (uint64_t *)load->hashes};
            struct control_neighbour *n = &c->fetch_from[at++];
            snprintf(n->name, sizeof n->name, "%s", from->node.name);
            snprintf(n->public_key, sizeof n->public_key, "%s", from->node.public_key);
            cluster_weights_endpoint(c, source, n->endpoint, sizeof n->endpoint);
            from->leaves = true;
        } else {
            from = NULL;
        }
        last = from;
    }
    return at - first;
}

static void unload(struct cluster *c, uint32_t node)
{
    struct member *m = &c->members[node];
    struct control_message *message = &cluster_act(c, CLUSTER_SEND, node)->message;
    message->kind = CONTROL_UNLOAD; /* room for others; nothing is awaited */
    message->u.unload.leave = m->leaves;
    m->node.has_loaded = false;
}

/* All is well: nobody fetches any more, and this is what each node has. */
static void note_ready(struct cluster *c)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *m = &c->members[i];
        bool left = m->leaves && !m->node.has_stage && m->node.welcomed;
        m->leaves = false;
        if (left)
            unload(c, i);
        m->had = m->node.has_stage;
        m->had_first = m->node.first_block;
        m->had_last = m->node.last_block;
    }
}

void cluster_start_loading(struct cluster *c, int64_t now_us)
{
    const struct cluster_load *load = &c->load;
    uint32_t fetches[CLUSTER_NODES_MAX], listed = 0;
    if (c->goal == CLUSTER_PLAN) {
        c->phase = CLUSTER_IS_READY;
        cluster_act(c, CLUSTER_REACHED, CLUSTER_NODES_MAX);
        return;
    }
    c->epoch++;
    c->phase = CLUSTER_LOADING;
    c->attached[0] = c->attached[1] = false;
    for (uint32_t i = 0; i < c->member_count; i++)
        c->members[i].node.has_stage = false;
    for (uint32_t s = 0; s < load->stage_count; s++) {
        struct cluster_node *n = &c->members[c->stages[s].node].node;
        n->has_stage = true;
        n->decode_ns = n->expected_ns = 0;
        n->stage = s;
        n->first_block = c->stages[s].first_block;
        n->last_block = c->stages[s].last_block;
    }
    for (uint32_t s = 0; s < load->stage_count; s++)
        listed += fetches[s] = list_fetches(c, &c->stages[s], listed);
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct cluster_node *n = &c->members[i].node;
        if (!n->has_stage && (n->has_loaded || c->members[i].leaves) && n->welcomed)
            unload(c, i);
    }
    listed = 0;
    for (uint32_t s = 0; s < load->stage_count; s++) {
        struct control_message *m = ask(c, c->stages[s].node, CONTROL_LOAD, NODE_LOADING, now_us + c->quiet_us);
        snprintf(m->u.load.model, sizeof m->u.load.model, "%s", c->model);
        m->u.load.fingerprint = c->fingerprint;
        m->u.load.stage = s;
        m->u.load.stages = load->stage_count;
        m->u.load.first_block = c->stages[s].first_block;
        m->u.load.last_block = c->stages[s].last_block;
        m->u.load.kv_type = load->kv_type;
        m->u.load.kv_pages = load->kv_pages;
        m->u.load.max_tokens = load->max_tokens;
        m->u.load.max_context = load->max_context;
        m->u.load.max_sequences = load->max_sequences;
        m->u.load.codec = c->stages[s].codec ? c->stages[s].codec : CODEC_F32;
        m->u.load.inexact = load->inexact;
        m->u.load.keep_bytes = load->keep_bytes;
        m->u.load.leave = c->members[c->stages[s].node].leaves;
        m->u.load.fetch_count = fetches[s];
        m->u.load.fetch = &c->fetch[listed];
        m->u.load.fetch_from = &c->fetch_from[listed];
        listed += fetches[s];
        const char *previous = s ? c->members[c->stages[s - 1].node].node.public_key : c->coordinator_key;
        snprintf(m->u.load.previous_key, sizeof m->u.load.previous_key, "%s", previous);
        snprintf(m->u.load.coordinator_key, sizeof m->u.load.coordinator_key, "%s", c->coordinator_key);
        if (s + 1 < load->stage_count) {
            const struct cluster_node *next = &c->members[c->stages[s + 1].node].node;
            m->u.load.has_next = true;
            snprintf(m->u.load.next.name, sizeof m->u.load.next.name, "%s", next->name);
            snprintf(m->u.load.next.public_key, sizeof m->u.load.next.public_key, "%s", next->public_key);
            cluster_data_endpoint(c, c->stages[s + 1].node, m->u.load.next.endpoint, sizeof m->u.load.next.endpoint);
        }
        cluster_report(c, c->stages[s].node, "weights", 0, 0);
    }
}

static bool all_stages_in(const struct cluster *c, enum node_state state)
{
    for (uint32_t s = 0; s < c->load.stage_count; s++)
        if (c->members[c->stages[s].node].node.state != state)
            return false;
    return true;
}

void cluster_advance(struct cluster *c, int64_t now_us)
{
    if (c->phase == CLUSTER_CONNECTING && all_settled(c)) {
        if (c->goal == CLUSTER_LOOK) {
            c->phase = CLUSTER_IS_READY;
            cluster_act(c, CLUSTER_REACHED, CLUSTER_NODES_MAX);
            return;
        }
        allow_all(c);
        c->phase = c->profile ? CLUSTER_PROFILING : CLUSTER_PLANNING;
    }
    if (c->phase == CLUSTER_PROFILING && profile_devices(c, now_us))
        c->phase = CLUSTER_MEASURING;
    if (c->phase == CLUSTER_MEASURING && measure_links(c, now_us))
        c->phase = CLUSTER_PLANNING;
    cluster_recovery_advance(c);
    if (c->phase == CLUSTER_PLANNING && !c->plan_asked) {
        c->plan_asked = true;
        cluster_act(c, CLUSTER_NEED_PLAN, CLUSTER_NODES_MAX);
    }
    if (c->phase == CLUSTER_LOADING && all_stages_in(c, NODE_LOADED)) {
        c->phase = CLUSTER_ATTACHING;
        c->attach_deadline = now_us + c->connect_us;
        c->data_open = true;
        cluster_act(c, CLUSTER_OPEN_DATA, c->stages[0].node)->other = c->stages[c->load.stage_count - 1].node;
    }
    if (c->phase == CLUSTER_ATTACHING && c->attached[0] && c->attached[1]) {
        c->phase = CLUSTER_IS_READY;
        c->attach_deadline = NEVER;
        for (uint32_t s = 0; s < c->load.stage_count; s++) {
            struct member *m = &c->members[c->stages[s].node];
            m->node.state = NODE_READY;
            m->ready_beat = m->beat;
        }
        note_ready(c);
        cluster_act(c, CLUSTER_REACHED, CLUSTER_NODES_MAX)->done =
            c->interrupted ? (uint64_t)(now_us - c->interrupted_at) : 0;
        c->recoveries += c->interrupted;
        c->served = true;
        c->interrupted = c->gave_up = false;
        c->attach_failures = 0;
    }
}
