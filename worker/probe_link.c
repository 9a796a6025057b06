/* Measuring the link to another worker over the very sockets that will carry the work (execution/measure_link.c).
 * Compute thread; it does nothing else meanwhile. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "execution/measure_link.h"
#include "worker/compute.h"

#define CONNECT_MS 2000
#define ECHO_MS 10000
#define TOTAL_MS 4000 /* after this the link is judged by what was measured so far */

static int await_link(struct link *l, const struct control_neighbour *peer, struct error *err)
{
    int64_t end = clock_ms() + CONNECT_MS;
    char text[256], why[128];
    bool ready;
    while (link_state(l, text, sizeof text) != LINK_UP) {
        if (clock_ms() < end) {
            link_wait(&l, 1, NULL, 20, &ready);
            continue;
        }
        link_explain(peer->endpoint, 500, why, sizeof why);
        return error_set(err, ERR_TIMEOUT, "no link to \"%s\" at %s within %d s: %s", peer->name, peer->endpoint,
                         CONNECT_MS / 1000, *why ? why : text);
    }
    return 0;
}

static int measure(struct compute *c, const struct control_message *probe, struct control_message *out,
                   struct error *err)
{
    const struct control_neighbour *peer = &probe->u.probe_link.peer;
    struct link *l = NULL;
    struct link_times times;
    int rc = link_connect(c->w->hub, PLANE_DATA, peer->endpoint, peer->public_key, &l, err);
    if (rc || (rc = await_link(l, peer, err)))
        goto done;
    struct link_measuring o = {
        .links = &l,
        .link_count = 1,
        .rehearsal = c->rehearsal,
        .token_bytes = (size_t)probe->u.probe_link.token_bytes,
        .chunk_bytes = probe->u.probe_link.bytes ? (size_t)probe->u.probe_link.bytes : (size_t)1 << 20,
        .rounds = probe->u.probe_link.rounds ? probe->u.probe_link.rounds : 16,
        .pause_us = probe->u.probe_link.pause_us,
        .patience_ms = ECHO_MS,
        .limit_ms = TOTAL_MS,
    };
    if ((rc = measure_link(&o, &times, err))) {
        error_prefix(err, "link to \"%s\"", peer->name);
        goto done;
    }
    out->u.link_measured.rtt_seconds = times.hop_rtt_seconds;
    out->u.link_measured.bytes_per_s = times.bytes_per_s;
    out->u.link_measured.back_bytes_per_s = times.back_bytes_per_s;
    snprintf(out->u.link_measured.peer, sizeof out->u.link_measured.peer, "%s", peer->name);
    log_info("link to %s: round trip %.0f us (empty %.0f us), %.1f MB/s there, %.1f MB/s back", peer->name,
             times.hop_rtt_seconds * 1e6, times.rtt_seconds * 1e6, times.bytes_per_s * 1e-6,
             times.back_bytes_per_s * 1e-6);
done:
    link_close(l, 0);
    return rc;
}

void compute_probe_link(struct compute *c, const struct mail *job)
{
    struct control_message reply = {
        .kind = CONTROL_LINK_MEASURED, .epoch = job->message.epoch, .request = job->message.request};
    struct error err = {0};
    if (measure(c, &job->message, &reply, &err))
        compute_reply_failure(c, job, &err);
    else
        compute_reply(c, &reply, &job->peer);
}
