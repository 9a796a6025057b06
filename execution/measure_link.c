/* Echoes of three sizes, and lines through them. Owns nothing between calls. */
#include "execution/measure_link.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/sample.h"
#include "proto/frame.h"

#define PAUSE_US 600u /* before an echo goes out and before it is answered, unless told otherwise */
#define WARM_UP 2
#define LARGE_ROUNDS 5
#define ROUNDS_MAX 256

struct echoing {
    const struct link_measuring *o;
    const void *payload;
    uint64_t id;
    int64_t end_ms;
};

/* *held: how long the peer sat on it, seconds. */
static bool is_answer(struct link_message *m, uint64_t id, double *held)
{
    struct data_frame f;
    bool answered = false;
    if (!frame_decode_data(m->parts, m->part_count, &f, NULL)) {
        answered = f.kind == DATA_ECHOED && f.echo_id == id;
        *held = answered ? f.echo_hold_us * 1e-6 : 0;
        frame_free(&f);
    }
    return answered;
}

static int await_answer(struct echoing *e, double *held, struct error *err)
{
    struct link *l = e->o->links[0];
    bool ready[256];
    size_t count = e->o->link_count < 256 ? e->o->link_count : 256;
    int64_t end = clock_ms() + e->o->patience_ms;
    for (;;) {
        struct link_message m;
        int got = link_receive(l, &m, err);
        if (got < 0)
            return got;
        if (got > 0) {
            bool answered = is_answer(&m, e->id, held);
            link_message_free(&m);
            if (answered)
                return 0;
        } else {
            if (clock_ms() > end || link_state(l, NULL, 0) != LINK_UP)
                return error_set(err, ERR_TIMEOUT, "an echo was not answered");
            link_wait(e->o->links, count, NULL, 100, ready);
        }
    }
}

/* One echo of `bytes`, answered with as many or none; seconds until then, without the pause at the other end. Work does not
 * come back to back, in no direction: who passes it on has fallen asleep and must wake. */
static int echo(struct echoing *e, size_t bytes, bool empty, double *seconds, struct error *err)
{
    uint32_t pause_us = e->o->pause_us ? e->o->pause_us : PAUSE_US;
    struct buffer header = {0};
    double held = 0;
    rehearsal_pause(e->o->rehearsal, pause_us);
    int64_t start = clock_ns();
    int rc = frame_encode_echo(++e->id, bytes, empty, false, pause_us, &header, err);
    if (!rc) {
        struct frame_part parts[2] = {{header.data, header.size}, {e->payload, bytes}};
        rc = link_send(e->o->links[0], NULL, parts, bytes ? 2 : 1, err);
    }
    if (!rc)
        rc = await_answer(e, &held, err);
    *seconds = (double)(clock_ns() - start) * 1e-9 - held;
    if (*seconds < 1e-6)
        *seconds = 1e-6;
    buffer_free(&header);
    return rc;
}

/* Of up to `rounds` echoes; at least one, however late it is. */
static int echoes(struct echoing *e, uint32_t rounds, size_t bytes, bool empty, double *seconds, struct error *err)
{
    double times[ROUNDS_MAX];
    uint32_t count = 0;
    int rc = 0;
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    while (!rc && count < rounds && (!count || clock_ms() < e->end_ms))
        rc = echo(e, bytes, empty, &times[count++], err);
    if (!rc)
        *seconds = sample_usual(times, count);
    return rc;
}

static double rate(double bytes, double seconds)
{
    return bytes / (seconds > 1e-6 ? seconds : 1e-6);
}

int measure_link(const struct link_measuring *o, struct link_times *out, struct error *err)
{
    size_t most = o->chunk_bytes > o->token_bytes ? o->chunk_bytes : o->token_bytes;
    struct echoing e = {.o = o, .end_ms = clock_ms() + o->limit_ms};
    double empty = 0, token = 0, chunk = 0, both = 0;
    void *payload = most ? mem_zalloc(1, most) : NULL;
    struct link_times times = {0};
    if (most && !payload)
        return error_set(err, ERR_NOMEM, "no memory for an echo of %zu bytes", most);
    e.payload = payload;
    int rc = echoes(&e, WARM_UP, 0, false, &empty, err);
    if (!rc)
        rc = echoes(&e, o->rounds, 0, false, &empty, err);
    times.rtt_seconds = times.hop_rtt_seconds = token = empty;
    if (!rc && o->token_bytes)
        rc = echoes(&e, o->rounds, o->token_bytes, true, &token, err);
    if (!rc && o->chunk_bytes > o->token_bytes) {
        if (!(rc = echoes(&e, LARGE_ROUNDS, o->chunk_bytes, true, &chunk, err)) &&
            !(rc = echoes(&e, LARGE_ROUNDS, o->chunk_bytes, false, &both, err))) {
            times.bytes_per_s = rate((double)(o->chunk_bytes - o->token_bytes), chunk - token);
            times.back_bytes_per_s = rate((double)o->chunk_bytes, both - chunk);
        }
    }
    if (!rc && o->token_bytes) {
        /* There with the bytes, back without: what is more than half an empty round is the hop's. */
        double bytes = times.bytes_per_s > 0 ? (double)o->token_bytes / times.bytes_per_s : 0;
        double hop = token - empty / 2 - bytes;
        times.hop_rtt_seconds = hop > empty / 4 ? 2 * hop : empty / 2;
    }
    mem_free(payload);
    if (!rc)
        *out = times;
    return rc;
}
