/* Echoes to each node in turn. Owns the links it opens until it returns. */
#include "coordinator/core/token_links.h"

#include "base/clock.h"
#include "base/log.h"
#include "execution/measure_link.h"

#define TOTAL_MS 500 /* heartbeats wait meanwhile */
#define CONNECT_MS 150
#define NODE_MS 60
#define ROUNDS 24

static bool await_up(struct link *l, int64_t end_ms)
{
    bool ready;
    while (link_state(l, NULL, 0) != LINK_UP) {
        if (clock_ms() >= end_ms)
            return false;
        link_wait(&l, 1, NULL, 5, &ready);
    }
    return true;
}

void token_links_measure(struct hub *hub, struct rehearsal *rehearsal, const struct cluster *c, double *rtt_seconds)
{
    int64_t end = clock_ms() + TOTAL_MS;
    for (uint32_t i = 0; i < cluster_node_count(c) && clock_ms() < end; i++) {
        const struct cluster_node *n = cluster_node_at(c, i);
        char endpoint[280];
        struct link *l = NULL;
        struct link_times times;
        struct error err = {0};
        if (rtt_seconds[i] > 0 || !n->welcomed || n->state == NODE_LOST || n->state == NODE_REFUSED)
            continue;
        cluster_data_endpoint(c, i, endpoint, sizeof endpoint);
        int rc = link_connect(hub, PLANE_DATA, endpoint, n->public_key, &l, &err);
        int64_t until = clock_ms() + CONNECT_MS;
        if (!rc && !await_up(l, until < end ? until : end))
            rc = error_set(&err, ERR_TIMEOUT, "no data link within %d ms", CONNECT_MS);
        struct link_measuring o = {
            .links = &l, .link_count = 1, .rehearsal = rehearsal, .rounds = ROUNDS, .pause_us = cluster_pause_us(c, i),
            .patience_ms = CONNECT_MS, .limit_ms = NODE_MS};
        if (!rc)
            rc = measure_link(&o, &times, &err);
        if (!rc)
            rtt_seconds[i] = times.rtt_seconds;
        log_debug("token link to \"%s\": %s%.0f us", n->name, rc ? err.text : "", rc ? 0 : times.rtt_seconds * 1e6);
        link_close(l, 0);
    }
}
