/* Measuring the link to another worker over the very sockets that will carry the work: small echoes for the round trip,
 * large ones with empty answers for the rate. Compute thread; it does nothing else meanwhile. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "worker/compute.h"

#define CONNECT_MS 2000
#define ECHO_MS 10000         /* longest wait for one answer */
#define TOTAL_MS 8000         /* after this the rate is judged by what was measured so far */
#define WARM_UP 2u
#define LARGE_ROUNDS 4u
#define ROUNDS_MAX 256u

static int await_link(struct compute *c, struct link *l, const struct control_neighbour *peer, struct error *err)
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
    (void)c;
    return 0;
}

/* One echo of `bytes`; seconds until its answer. */
static int echo(struct link *l, uint64_t id, const void *payload, size_t bytes, double *seconds, struct error *err)
{
    struct buffer header = {0};
    int rc = frame_encode_echo(id, bytes, bytes != 0, false, &header, err);
    int64_t start = clock_ns(), end = clock_ms() + ECHO_MS;
    if (!rc) {
        struct link_part parts[2] = {{header.data, header.size}, {payload, bytes}};
        rc = link_send(l, NULL, parts, bytes ? 2 : 1, err);
    }
    bool answered = false;
    while (!rc && !answered) {
        struct link_message m;
        struct data_frame f;
        bool ready;
        int got = link_receive(l, &m, err);
        if (got < 0) {
            rc = got;
        } else if (got == 0) {
            if (clock_ms() > end || link_state(l, NULL, 0) != LINK_UP)
                rc = error_set(err, ERR_TIMEOUT, "an echo of %zu bytes was not answered", bytes);
            else
                link_wait(&l, 1, NULL, 100, &ready);
        } else {
            int64_t now = clock_ns();
            struct frame_part part = {m.parts[0].data, m.parts[0].size};
            if (!frame_decode_data(&part, 1, &f, NULL)) {
                answered = f.kind == DATA_ECHOED && f.echo_id == id;
                frame_free(&f);
            }
            *seconds = (double)(now - start) * 1e-9;
            link_message_free(&m);
        }
    }
    buffer_free(&header);
    return rc;
}

static double median(double *times, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        double t = times[i];
        uint32_t at = i;
        for (; at && times[at - 1] > t; at--)
            times[at] = times[at - 1];
        times[at] = t;
    }
    return times[count / 2];
}

static int measure(struct compute *c, const struct control_message *probe, struct control_message *out,
                   struct error *err)
{
    const struct control_neighbour *peer = &probe->u.probe_link.peer;
    uint32_t rounds = probe->u.probe_link.rounds ? probe->u.probe_link.rounds : 16;
    size_t bytes = probe->u.probe_link.bytes ? (size_t)probe->u.probe_link.bytes : (size_t)1 << 20;
    double times[ROUNDS_MAX], large[LARGE_ROUNDS], seconds;
    int64_t end = clock_ms() + TOTAL_MS;
    struct link *l = NULL;
    uint64_t id = 1;
    rounds = rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    void *payload = mem_zalloc(1, bytes);
    int rc = payload ? link_connect(c->w->hub, PLANE_DATA, peer->endpoint, peer->public_key, &l, err)
                     : error_set(err, ERR_NOMEM, "no memory for an echo of %zu bytes", bytes);
    if (rc || (rc = await_link(c, l, peer, err)))
        goto done;
    for (uint32_t i = 0; i < WARM_UP && !rc; i++)
        rc = echo(l, id++, NULL, 0, &seconds, err);
    uint32_t count = 0, large_count = 0;
    while (!rc && count < rounds && (!count || clock_ms() < end))
        rc = echo(l, id++, NULL, 0, &times[count++], err);
    while (!rc && large_count < LARGE_ROUNDS && (!large_count || clock_ms() < end))
        rc = echo(l, id++, payload, bytes, &large[large_count++], err);
    if (rc)
        goto done;
    double rtt = median(times, count), crossing = median(large, large_count) - rtt;
    out->u.link_measured.rtt_seconds = rtt;
    out->u.link_measured.bytes_per_s = (double)bytes / (crossing > 1e-6 ? crossing : 1e-6);
    snprintf(out->u.link_measured.peer, sizeof out->u.link_measured.peer, "%s", peer->name);
    log_info("link to %s: round trip %.0f us, %.1f MB/s", peer->name, rtt * 1e6,
             out->u.link_measured.bytes_per_s * 1e-6);
done:
    link_close(l, 0);
    mem_free(payload);
    return rc;
}

void compute_probe_link(struct compute *c, const struct mail *job)
{
    struct control_message reply = {.kind = CONTROL_LINK_MEASURED, .epoch = job->message.epoch,
                                    .request = job->message.request};
    struct error err = {0};
    if (measure(c, &job->message, &reply, &err))
        compute_reply_failure(c, job, &err);
    else
        compute_reply(c, &reply, &job->peer);
}
