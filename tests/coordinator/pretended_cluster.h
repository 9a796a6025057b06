/* The world of tests of the cluster's step: time, a network that loses, delays, repeats and reorders, pretended workers,
 * the loop, and what must hold after each step. Every seed replays exactly. Its state is the test program's. */
#ifndef BRIGADE_TESTS_COORDINATOR_PRETENDED_CLUSTER_H
#define BRIGADE_TESTS_COORDINATOR_PRETENDED_CLUSTER_H

#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/cluster.h"

enum { NODES = 5, BLOCKS = 12, QUEUE = 4096, PAST = 64 };

enum { DOWN_NEVER = 0, DOWN_DIES, DOWN_FREEZES, DOWN_REFUSES, DOWN_OTHER_VERSION, DOWN_UNREACHABLE, DOWN_SAYS_NO };

enum item_kind { ITEM_TO_NODE, ITEM_TO_CLUSTER, ITEM_LINK, ITEM_BAD, ITEM_ATTACHED, ITEM_STRIKE };

struct item {
    int64_t at;
    enum item_kind kind;
    uint32_t node;
    struct control_message message;
    enum link_state link;
    uint64_t epoch;
    bool last;
};

struct world {
    uint64_t seed, draws;
    int64_t now, jumped;
    struct cluster *c;
    uint32_t nodes;
    struct cluster_node_options options[NODES];
    char names[NODES][16], endpoints[NODES][40], keys[NODES][KEY_TEXT];
    uint32_t address[NODES];   /* last number of its host's */
    uint64_t machine[NODES];   /* what it calls its machine; 0: an old worker, which does not say */
    bool together[NODES][NODES]; /* on one machine, as far as can be known */
    uint32_t measuring_most;   /* machines that measured devices at once */
    int fate[NODES];       /* of each node */
    int64_t struck[NODES]; /* when it happened; 0: not yet */
    bool linked[NODES];
    struct item *queue;
    uint32_t queued;
    struct control_message past[PAST]; /* what nodes said before, to be said again */
    uint32_t past_node[PAST], past_count;
    int lossy, repeating, slow; /* per mille */
    bool want_plan_failure;
    struct cluster_stage stages[NODES];
    uint32_t stage_count;
    uint64_t welcome_epoch, load_epoch;
    uint32_t loads, allows;
    const char *revoked;   /* a key that must not be let in any more */
    uint32_t told;         /* nodes that heard so */
    bool reached, failed;
    int64_t reached_at, failed_at;
    struct error error;
    enum cluster_goal goal;
};

static struct world w;

static inline uint32_t below(uint32_t n)
{
    return (uint32_t)(hash_mix64(w.seed + ++w.draws * UINT64_C(0x9E3779B97F4A7C15)) % n);
}

static inline bool chance(int per_mille)
{
    return per_mille && below(1000) < (uint32_t)per_mille;
}

static inline void put(struct item item, int64_t delay)
{
    if (w.queued == QUEUE) {
        CHECK_FAIL("seed %llu: the simulated network overflows", (unsigned long long)w.seed);
        return;
    }
    item.at = w.now + delay;
    w.queue[w.queued++] = item;
}

static inline int64_t latency(void)
{
    return 100 + below(2000) + (chance(w.slow) ? below(300000) : 0);
}

/* On its way, perhaps twice, perhaps never. */
static inline void travel(struct item item, int64_t extra)
{
    if (chance(w.lossy))
        return;
    put(item, extra + latency());
    if (chance(w.repeating))
        put(item, extra + latency() + below(500000));
}

/* ---- Pretended workers ------------------------------------------------------------------------------------------- */

static inline void say(uint32_t node, struct control_message m, uint64_t request, int64_t delay)
{
    m.request = request;
    travel((struct item){.kind = ITEM_TO_CLUSTER, .node = node, .message = m}, delay);
    if (m.kind != CONTROL_PROFILE) {
        w.past[w.past_count % PAST] = m;
        w.past_node[w.past_count++ % PAST] = node;
    }
}

static inline void worker_hears(uint32_t node, const struct control_message *m)
{
    static struct control_cell cells[2] = {{0, 1, 1, 0, 1e-3}, {0, 1, 32, 0, 2e-3}};
    struct control_message reply = {.epoch = m->epoch};
    if (w.struck[node] && (w.fate[node] == DOWN_DIES || w.fate[node] == DOWN_FREEZES))
        return;
    if (w.fate[node] == DOWN_SAYS_NO && w.struck[node] &&
        (m->kind == CONTROL_PROBE || m->kind == CONTROL_LOAD || m->kind == CONTROL_PROBE_LINK)) {
        reply.kind = CONTROL_FAILURE;
        reply.u.failure.code = ERR_MEMORY;
        snprintf(reply.u.failure.text, sizeof reply.u.failure.text, "it does not fit");
        say(node, reply, m->request, 1000);
        return;
    }
    switch (m->kind) {
    case CONTROL_HELLO:
        reply.kind = CONTROL_WELCOME;
        reply.u.welcome.claimed = m->u.hello.claim;
        reply.u.welcome.memory_bytes = 1u << 30;
        reply.u.welcome.data_port = 7000 + node;
        reply.u.welcome.epoch = w.welcome_epoch;
        reply.u.welcome.machine = w.machine[node];
        reply.u.welcome.has_loaded = node == 0;
        say(node, reply, m->request, 500);
        break;
    case CONTROL_ALLOW:
        CHECK_INT(m->u.allow.count, w.nodes + 1);
        break;
    case CONTROL_PROBE:
    case CONTROL_LOAD:
        for (uint64_t i = 1; i <= 3; i++) {
            reply.kind = CONTROL_PROGRESS;
            reply.u.progress.done = i;
            reply.u.progress.total = 3;
            say(node, reply, m->request, (int64_t)i * 100000);
        }
        memset(&reply.u, 0, sizeof reply.u);
        reply.kind = m->kind == CONTROL_PROBE ? CONTROL_PROFILE : CONTROL_LOADED;
        if (m->kind == CONTROL_PROBE) {
            reply.u.profile.cells = cells;
            reply.u.profile.cell_count = 2;
        }
        say(node, reply, m->request, 400000 + below(300000));
        break;
    case CONTROL_PROBE_LINK:
        reply.kind = CONTROL_LINK_MEASURED;
        reply.u.link_measured.rtt_seconds = 1e-3;
        reply.u.link_measured.bytes_per_s = 1e8;
        reply.u.link_measured.back_bytes_per_s = 4e7;
        say(node, reply, m->request, 50000);
        break;
    case CONTROL_HEARTBEAT:
        reply.kind = CONTROL_HEARTBEAT_REPLY;
        reply.u.heartbeat_reply.sequence = m->u.heartbeat.sequence;
        reply.u.heartbeat_reply.sent_us = m->u.heartbeat.sent_us;
        say(node, reply, 0, 0);
        break;
    default:
        break;
    }
}

/* ---- The loop, pretended
 * --------------------------------------------------------------------------------------------- */

static void step(struct cluster_event event);

static inline void make_plan(void)
{
    struct cluster_load load = {
        .kv_pages = 8, .max_tokens = 32, .max_context = 64, .max_sequences = 4};
    uint32_t order[NODES], first = 0;
    if (w.want_plan_failure) {
        struct error no = {ERR_INFEASIBLE, "the model needs 9 GiB and 8 GiB fit"};
        step((struct cluster_event){.kind = CLUSTER_UNPLANNED, .error = &no});
        return;
    }
    for (uint32_t i = 0; i < w.nodes; i++)
        order[i] = i;
    for (uint32_t i = w.nodes; i > 1; i--) {
        uint32_t k = below(i), swap = order[k];
        order[k] = order[i - 1];
        order[i - 1] = swap;
    }
    w.stage_count = 1 + below(w.nodes);
    for (uint32_t s = 0; s < w.stage_count; s++) {
        uint32_t left = BLOCKS - first, others = w.stage_count - 1 - s,
                 count = others ? 1 + below(left - others) : left;
        w.stages[s] = (struct cluster_stage){order[s], first, first + count - 1};
        first += count;
    }
    load.stage_count = w.stage_count;
    load.stages = w.stages;
    step((struct cluster_event){.kind = CLUSTER_PLANNED, .load = &load});
}

static inline void check_load(uint32_t node, const struct control_message *m)
{
    uint32_t s = m->u.load.stage;
    CHECK(m->epoch > w.welcome_epoch);
    CHECK(!w.load_epoch || w.load_epoch == m->epoch);
    w.load_epoch = m->epoch;
    REQUIRE(s < w.stage_count);
    CHECK_INT(w.stages[s].node, node);
    CHECK_INT(m->u.load.first_block, w.stages[s].first_block);
    CHECK_INT(m->u.load.last_block, w.stages[s].last_block);
    CHECK_TEXT(m->u.load.previous_key, s ? w.keys[w.stages[s - 1].node] : "coordinator");
    CHECK_INT(m->u.load.has_next, s + 1 < w.stage_count);
    if (m->u.load.has_next) {
        char endpoint[64];
        snprintf(endpoint, sizeof endpoint, "tcp://10.0.0.%u:%u", w.address[w.stages[s + 1].node],
                 7000 + w.stages[s + 1].node);
        CHECK_TEXT(m->u.load.next.public_key, w.keys[w.stages[s + 1].node]);
        CHECK_TEXT(m->u.load.next.endpoint, endpoint);
    }
    w.loads++;
}

static inline void carry_out(const struct cluster_action *a)
{
    CHECK(!w.failed);
    switch (a->kind) {
    case CLUSTER_SEND:
        CHECK(w.linked[a->node]);
        CHECK(cluster_node_at(w.c, a->node)->state != NODE_LOST || a->message.kind == CONTROL_HEARTBEAT);
        w.allows += a->message.kind == CONTROL_ALLOW;
        if (w.revoked && a->message.kind == CONTROL_ALLOW) {
            w.told++;
            for (uint32_t k = 0; k < a->message.u.allow.count; k++)
                CHECK(strcmp(a->message.u.allow.keys[k], w.revoked) != 0);
        }
        if (a->message.kind == CONTROL_PROBE || a->message.kind == CONTROL_PROBE_LINK ||
            a->message.kind == CONTROL_LOAD)
            CHECK_INT(w.allows, w.nodes);
        if (a->message.kind == CONTROL_LOAD)
            check_load(a->node, &a->message);
        travel((struct item){.kind = ITEM_TO_NODE, .node = a->node, .message = a->message}, 0);
        break;
    case CLUSTER_NEED_PLAN:
        make_plan();
        break;
    case CLUSTER_OPEN_DATA:
        CHECK_INT(a->node, w.stages[0].node);
        CHECK_INT(a->other, w.stages[w.stage_count - 1].node);
        for (int end = 0; end < 2; end++) {
            uint32_t node = end ? a->other : a->node;
            put((struct item){.kind = ITEM_ATTACHED, .node = node, .epoch = a->epoch - 1, .last = end}, 50);
            put((struct item){.kind = ITEM_ATTACHED, .node = node, .epoch = a->epoch, .last = end}, 100 + latency());
        }
        break;
    case CLUSTER_CLOSE_DATA:
    case CLUSTER_REPORT:
        break;
    case CLUSTER_TROUBLE:
    case CLUSTER_GIVE_UP:
        CHECK_FAIL("without recovery there is no going on after a loss");
        break;
    case CLUSTER_REACHED:
        CHECK(!w.reached);
        w.reached = true;
        w.reached_at = w.now;
        break;
    case CLUSTER_FAILED:
        w.failed = true;
        w.failed_at = w.now;
        w.error = a->error;
        break;
    }
}

/* No machine measures a device while anything else is measured there. */
static inline void check_state(void)
{
    uint32_t profiling = 0;
    for (uint32_t i = 0; i < w.nodes; i++) {
        profiling += cluster_node_at(w.c, i)->state == NODE_PROFILING;
        for (uint32_t k = 0; k < w.nodes; k++) {
            enum node_state a = cluster_node_at(w.c, i)->state, b = cluster_node_at(w.c, k)->state;
            if (i != k && w.together[i][k] && a == NODE_PROFILING)
                CHECK(b != NODE_PROFILING && b != NODE_MEASURING);
        }
    }
    if (profiling > w.measuring_most)
        w.measuring_most = profiling;
}

static inline void step(struct cluster_event event)
{
    struct cluster_actions actions = {0};
    struct error e = {0};
    CHECK_INT(cluster_step(w.c, &event, w.now, &actions, &e), 0);
    for (size_t i = 0; i < actions.count; i++)
        carry_out(&actions.list[i]);
    cluster_actions_free(&actions);
    check_state();
}

static inline void strike(uint32_t node)
{
    w.struck[node] = w.now ? w.now : 1;
    if (w.fate[node] == DOWN_DIES && w.linked[node])
        put((struct item){.kind = ITEM_LINK, .node = node, .link = LINK_DOWN}, latency());
}

static inline void deliver(const struct item *i)
{
    bool dead = w.struck[i->node] && w.fate[i->node] == DOWN_DIES;
    bool frozen = w.struck[i->node] && w.fate[i->node] == DOWN_FREEZES;
    switch (i->kind) {
    case ITEM_TO_NODE:
        worker_hears(i->node, &i->message);
        break;
    case ITEM_TO_CLUSTER:
        if (w.fate[i->node] == DOWN_OTHER_VERSION && w.struck[i->node])
            step((struct cluster_event){.kind = CLUSTER_BAD,
                                        .node = i->node,
                                        .error = &(struct error){ERR_VERSION, "it speaks version 9, we speak 1"}});
        else
            step((struct cluster_event){.kind = CLUSTER_MESSAGE, .node = i->node, .message = &i->message});
        break;
    case ITEM_LINK:
        if (i->link == LINK_UP && dead)
            break;
        w.linked[i->node] = i->link == LINK_UP; /* as far as the cluster knows */
        step((struct cluster_event){.kind = CLUSTER_LINK, .node = i->node, .link = i->link, .text = ""});
        break;
    case ITEM_ATTACHED:
        if (!dead && !frozen)
            step((struct cluster_event){.kind = CLUSTER_ATTACHED, .epoch = i->epoch, .last = i->last});
        break;
    case ITEM_STRIKE:
        strike(i->node);
        break;
    case ITEM_BAD:
        break;
    }
}

static inline int earliest(void)
{
    int best = -1;
    for (uint32_t i = 0; i < w.queued; i++)
        if (best < 0 || w.queue[i].at < w.queue[best].at)
            best = (int)i;
    return best;
}

static inline void run_until(int64_t end)
{
    while (!w.failed && !check_failures) {
        int next = earliest();
        int64_t tick = cluster_next_tick(w.c), at = next >= 0 && w.queue[next].at < tick ? w.queue[next].at : tick;
        if (at > end)
            break;
        w.now = at > w.now ? at : w.now;
        if (chance(1))
            w.now += 3000000, w.jumped += 3000000; /* we were stopped for a while, and so missed nothing but time */
        if (next >= 0 && w.queue[next].at <= w.now && w.queue[next].at <= tick) {
            struct item item = w.queue[next];
            w.queue[next] = w.queue[--w.queued];
            deliver(&item);
        } else {
            step((struct cluster_event){.kind = CLUSTER_TICK});
        }
        if (chance(w.repeating) && w.past_count) { /* an old word, once more */
            uint32_t k = below(w.past_count < PAST ? w.past_count : PAST);
            if (w.linked[w.past_node[k]])
                put((struct item){.kind = ITEM_TO_CLUSTER, .node = w.past_node[k], .message = w.past[k]}, latency());
        }
    }
}

static inline void begin(uint64_t seed, uint32_t nodes, enum cluster_goal goal)
{
    struct item *queue = w.queue;
    w = (struct world){.seed = seed, .nodes = nodes, .goal = goal, .now = 1, .queue = queue};
    if (!w.queue)
        w.queue = mem_zalloc(QUEUE, sizeof *w.queue);
    w.welcome_epoch = below(5);
    for (uint32_t i = 0; i < nodes; i++) {
        snprintf(w.names[i], sizeof w.names[i], "node-%u", i);
        w.address[i] = 1 + i / 2; /* two a machine */
        snprintf(w.keys[i], sizeof w.keys[i], "key-%u", i);
        w.options[i] = (struct cluster_node_options){w.names[i], w.endpoints[i], w.keys[i], 0};
    }
}

static inline void create(const struct cluster_link_options *links, uint32_t link_count)
{
    struct cluster_options o = {.goal = w.goal,
                                .nodes = w.options,
                                .node_count = w.nodes,
                                .links = links,
                                .link_count = link_count,
                                .coordinator_key = "coordinator",
                                .model = "m.gguf",
                                .fingerprint = 1,
                                .context = 64,
                                .chunk = 32,
                                .profile = true,
                                .heartbeat_us = 200000,
                                .lost_us = 1000000,
                                .quiet_us = 10000000};
    struct error e = {0};
    for (uint32_t i = 0; i < w.nodes; i++) {
        snprintf(w.endpoints[i], sizeof w.endpoints[i], "tcp://10.0.0.%u:%u", w.address[i], 6000 + i);
        for (uint32_t k = 0; k < w.nodes; k++)
            w.together[i][k] = w.address[i] == w.address[k] || (w.machine[i] && w.machine[i] == w.machine[k]);
    }
    for (uint32_t via = 0; via < w.nodes; via++) /* and what shares a machine with the same node */
        for (uint32_t i = 0; i < w.nodes; i++)
            for (uint32_t k = 0; k < w.nodes; k++)
                w.together[i][k] |= w.together[i][via] && w.together[via][k];
    if (cluster_create(&o, w.now, &w.c, &e))
        CHECK_FAIL("%s", e.text);
    for (uint32_t i = 0; i < w.nodes; i++)
        if (w.fate[i] != DOWN_UNREACHABLE && w.fate[i] != DOWN_REFUSES)
            put((struct item){.kind = ITEM_LINK, .node = i, .link = LINK_UP}, 1000 + below(1000000));
        else if (w.fate[i] == DOWN_REFUSES)
            put((struct item){.kind = ITEM_LINK, .node = i, .link = LINK_REFUSED}, 1000 + below(1000000));
}

static inline void finish(void)
{
    cluster_destroy(w.c);
    if (check_failures)
        printf("    seed %llu: %s\n", (unsigned long long)w.seed, w.error.text);
}

#endif
