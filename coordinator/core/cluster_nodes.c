/* Who belongs to a cluster and what is known of them: creation, pairs of nodes, answers for whoever asks. What happens to
 * them stands in cluster.c. Owns the state's memory; pure; one owner thread. */
#include "coordinator/core/cluster.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/core/cluster_state.h"

/* As long as two nodes cannot reach each other, no plan wants to have them side by side. */
#define BROKEN_BYTES_PER_S 1.0
#define BROKEN_RTT_S 100.0

const char *node_state_name(enum node_state state)
{
    static const char *const names[] = {"connecting", "greeting", "idle",  "profiling", "measuring",
                                        "loading",    "loaded",   "ready", "lost",      "refused"};
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

/* ---- Creation ---------------------------------------------------------------------------------------------------- */

/* Length of "tcp://host" in an endpoint. */
static size_t host_length(const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');
    return colon ? (size_t)(colon - endpoint) : strlen(endpoint);
}

static bool same_host(const char *a, const char *b)
{
    return host_length(a) == host_length(b) && !strncmp(a, b, host_length(a));
}

static bool same_machine(const struct member *a, const struct member *b)
{
    return same_host(a->node.endpoint, b->node.endpoint) || (a->machine && a->machine == b->machine);
}

/* Containers of one machine have addresses of their own, so it takes both: what is alike in either goes together. */
void cluster_find_hosts(struct cluster *c)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        c->members[i].host = i;
        for (uint32_t a = 0; a < i; a++) {
            uint32_t one = c->members[a].host, other = c->members[i].host, low = one < other ? one : other;
            if (one == other || !same_machine(&c->members[a], &c->members[i]))
                continue;
            for (uint32_t k = 0; k <= i; k++)
                if (c->members[k].host == one || c->members[k].host == other)
                    c->members[k].host = low;
        }
    }
}

struct pair *cluster_pair(const struct cluster *c, uint32_t a, uint32_t b)
{
    if (a == b)
        return NULL;
    if (a > b) {
        uint32_t swap = a;
        a = b;
        b = swap;
    }
    /* Pairs are stored by rising b, then a. */
    return &c->pairs[b * (b - 1) / 2 + a];
}

int cluster_create(const struct cluster_options *o, int64_t now_us, struct cluster **out, struct error *err)
{
    if (!o->node_count || o->node_count > CLUSTER_NODES_MAX)
        return error_set(err, ERR_USAGE, "a cluster has 1 to %u nodes, not %u", CLUSTER_NODES_MAX, o->node_count);
    uint32_t n = o->node_count, pair_count = n * (n - 1) / 2;
    struct cluster *c = mem_zalloc(1, sizeof *c);
    if (!c || !(c->members = mem_zalloc(n, sizeof *c->members)) ||
        !(c->pairs = mem_zalloc(pair_count, sizeof *c->pairs)) || !(c->keys = mem_zalloc(n + 1, sizeof *c->keys)) ||
        !(c->stages = mem_zalloc(n, sizeof *c->stages)) || !(c->fetch = mem_zalloc(2 * n, sizeof *c->fetch)) ||
        !(c->fetch_from = mem_zalloc(2 * n, sizeof *c->fetch_from))) {
        cluster_destroy(c);
        return error_set(err, ERR_NOMEM, "out of memory for a cluster of %u nodes", n);
    }
    c->goal = o->goal;
    c->profile = o->profile;
    c->alike = o->alike;
    c->fingerprint = o->fingerprint;
    c->kv_type = o->kv_type;
    c->context = o->context;
    c->chunk = o->chunk;
    c->token_bytes = o->token_bytes;
    c->heartbeat_us = o->heartbeat_us > 0 ? o->heartbeat_us : 200000;
    c->lost_us = o->lost_us > 0 ? o->lost_us : 1000000;
    c->connect_us = o->connect_us > 0 ? o->connect_us : 4000000;
    c->quiet_us = o->quiet_us > 0 ? o->quiet_us : 60000000;
    c->recover = o->recover;
    c->stay = o->stay;
    c->rejoin_us = o->rejoin_us > 0 ? o->rejoin_us : 0;
    c->settle_us = o->settle_us > 0 ? o->settle_us : 150000;
    c->last_tick = c->now_us = now_us;
    c->attach_deadline = NEVER;
    c->next_request = 1;
    c->load.stages = c->stages;
    snprintf(c->model, sizeof c->model, "%s", o->model ? o->model : "");
    snprintf(c->coordinator_key, sizeof c->coordinator_key, "%s", o->coordinator_key ? o->coordinator_key : "");
    snprintf(c->keys[n], sizeof c->keys[n], "%s", c->coordinator_key);
    c->member_count = n;
    c->pair_count = pair_count;
    for (uint32_t i = 0; i < n; i++) {
        struct member *m = &c->members[i];
        snprintf(m->node.name, sizeof m->node.name, "%s", o->nodes[i].name);
        snprintf(m->node.endpoint, sizeof m->node.endpoint, "%s", o->nodes[i].endpoint);
        snprintf(m->node.public_key, sizeof m->node.public_key, "%s", o->nodes[i].public_key);
        snprintf(c->keys[i], sizeof c->keys[i], "%s", o->nodes[i].public_key);
        m->node.memory_cap = o->nodes[i].memory_cap;
        m->deadline = now_us + c->connect_us;
        m->next_beat = m->greet_at = NEVER;
        for (uint32_t a = 0; a < i; a++)
            *cluster_pair(c, a, i) = (struct pair){.a = a, .b = i};
    }
    cluster_find_hosts(c);
    for (uint32_t i = 0; i < o->link_count; i++) {
        struct pair *p = cluster_pair(c, o->links[i].from, o->links[i].to);
        if (!p)
            continue;
        bool back = o->links[i].from > o->links[i].to; /* said for one direction, it holds for both */
        if (!p->known || !back)
            p->bytes_per_s = o->links[i].bytes_per_s;
        if (!p->known || back)
            p->back_bytes_per_s = o->links[i].bytes_per_s;
        if (!p->known || o->links[i].rtt_seconds > p->rtt_seconds)
            p->rtt_seconds = o->links[i].rtt_seconds;
        p->known = true;
    }
    *out = c;
    return 0;
}

void cluster_destroy(struct cluster *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].node.profiled && c->members[i].node.profile_of == i)
            control_free(&c->members[i].node.profile);
    mem_free(c->members);
    mem_free(c->pairs);
    mem_free(c->keys);
    mem_free(c->stages);
    mem_free(c->fetch);
    mem_free(c->fetch_from);
    mem_free(c);
}

/* ---- What it knows ----------------------------------------------------------------------------------------------- */

enum cluster_phase cluster_phase_of(const struct cluster *c)
{
    return c->phase;
}

uint64_t cluster_epoch(const struct cluster *c)
{
    return c->epoch;
}

uint32_t cluster_node_count(const struct cluster *c)
{
    return c->member_count;
}

const struct cluster_node *cluster_node_at(const struct cluster *c, uint32_t node)
{
    return &c->members[node].node;
}

void cluster_data_endpoint(const struct cluster *c, uint32_t node, char *text, size_t size)
{
    const struct cluster_node *n = &c->members[node].node;
    snprintf(text, size, "%.*s:%u", (int)host_length(n->endpoint), n->endpoint, n->data_port);
}

uint32_t cluster_node_host(const struct cluster *c, uint32_t node)
{
    return c->members[node].host;
}

bool cluster_weights_endpoint(const struct cluster *c, uint32_t node, char *text, size_t size)
{
    const struct cluster_node *n = &c->members[node].node;
    snprintf(text, size, "%.*s:%u", (int)host_length(n->endpoint), n->endpoint, n->weights_port);
    return n->weights_port != 0;
}

uint32_t cluster_page_source(const struct cluster *c, uint32_t block, uint32_t node)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *m = &c->members[i];
        if (m->had && block >= m->had_first && block <= m->had_last && m->node.welcomed)
            return i != node && m->node.weights_port && m->node.kernels_version == c->members[node].node.kernels_version
                       ? i
                       : CLUSTER_NODES_MAX;
    }
    return CLUSTER_NODES_MAX;
}

bool cluster_link_between(const struct cluster *c, uint32_t from, uint32_t to, double *bytes_per_s, double *rtt_seconds,
                          bool *measured)
{
    const struct pair *p = cluster_pair(c, from, to);
    if (!p || !p->known)
        return false;
    *bytes_per_s = p->broken_until                        ? BROKEN_BYTES_PER_S
                   : from > to && p->back_bytes_per_s > 0 ? p->back_bytes_per_s
                                                          : p->bytes_per_s;
    *rtt_seconds = p->broken_until ? BROKEN_RTT_S : p->rtt_seconds;
    if (measured)
        *measured = p->measured;
    return true;
}

uint32_t cluster_stage_node(const struct cluster *c, uint32_t stage)
{
    return stage < c->load.stage_count ? c->stages[stage].node : CLUSTER_NODES_MAX;
}

uint32_t cluster_stage_count(const struct cluster *c)
{
    return c->load.stage_count;
}
