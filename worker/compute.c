/* The compute thread: waits for frames and jobs, one thing at a time. Owns the data sockets, the pool, the stage. */
#include "worker/compute.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define ATTACH_AGAIN_MS 300
#define NEXT_DOWN_MS 3000     /* how long the next stage may be unreachable before the coordinator is told */
#define DRAIN_QUIET_MS 50     /* no frame for so long: the pipe is empty */
#define DRAIN_MOST_MS 1500

void compute_reply(struct compute *c, struct control_message *m, const struct link_peer *peer)
{
    enum control_kind kind = m->kind;
    if (mailbox_put(&c->w->replies, m, peer))
        log_error("no room to reply %s", control_kind_name(kind));
}

static void say_failure(struct compute *c, uint64_t request, uint64_t epoch, const struct error *why,
                        const struct link_peer *peer)
{
    struct control_message m = {.kind = CONTROL_FAILURE, .epoch = epoch, .request = request};
    m.u.failure.code = why->code < 0 ? why->code : ERR_INTERNAL;
    snprintf(m.u.failure.text, sizeof m.u.failure.text, "%s", why->text);
    compute_reply(c, &m, peer);
}

void compute_reply_failure(struct compute *c, const struct mail *job, const struct error *why)
{
    log_warn("%s: %s", control_kind_name(job->message.kind), why->text);
    say_failure(c, job->message.request, job->message.epoch, why, &job->peer);
}

/* What was meant for our stage, or said by it, is lost: the epoch cannot go on, and nobody else knows. Once an epoch. */
static void fail_epoch(struct compute *c, const struct error *why)
{
    atomic_fetch_add(&c->w->vitals.dropped, 1);
    if (!c->holding.stage || c->session.failed)
        return;
    log_warn("%s", why->text);
    c->session.failed = true;
    say_failure(c, 0, c->session.epoch, why, NULL);
}

void compute_fail(struct compute *c, const struct frame_work *w, const struct error *why)
{
    log_warn("micro-batch %llu: %s", (unsigned long long)w->microbatch, why->text);
    if (session_is_last(&c->session) && c->session.has_receiver) {
        struct frame_result r = {
            .epoch = w->epoch,
            .microbatch = w->microbatch,
            .error_code = why->code < 0 ? why->code : ERR_INTERNAL,
            .stage = c->session.stage,
            .error_text = why->text,
        };
        struct outbox *o = &c->outbox;
        buffer_clear(&o->part[0]);
        buffer_clear(&o->part[1]);
        if (!frame_encode_result(&r, &o->part[0], &o->part[1], NULL)) {
            o->full = true;
            o->to_next = false;
            o->to = c->session.receiver;
            o->parts = 1;
            outbox_flush(c);
            return;
        }
    }
    /* No way to the coordinator on the data plane from here: say it on the control plane, once an epoch. */
    if (c->session.failed)
        return;
    c->session.failed = true;
    struct error e = *why;
    error_prefix(&e, "stage %u, micro-batch %llu", c->session.stage, (unsigned long long)w->microbatch);
    say_failure(c, 0, w->epoch, &e, NULL);
}

void outbox_flush(struct compute *c)
{
    struct outbox *o = &c->outbox;
    struct frame_part parts[3];
    struct error err = {0};
    size_t bytes = 0;
    if (!o->full)
        return;
    for (size_t i = 0; i < o->parts; i++) {
        parts[i] = (struct frame_part){o->part[i].data, o->part[i].size};
        bytes += o->part[i].size;
    }
    int rc = o->to_next && !c->next ? ERR_LOST
                                    : link_send(o->to_next ? c->next : c->w->data, o->to_next ? NULL : &o->to, parts,
                                                o->parts, &err);
    if (rc == ERR_BUSY || rc == ERR_AUTH || rc == ERR_NOMEM)
        return; /* the peer is slow or not there yet, or we are: we wait with it, and take no more work */
    o->full = false;
    if (rc) {
        log_debug("dropped a message of %zu bytes: %s", bytes, err.text);
        atomic_fetch_add(&c->w->vitals.dropped, 1);
    } else {
        atomic_fetch_add(&c->w->vitals.bytes_out, bytes);
    }
}

/* One line a peer, however many bad frames it sends. */
static void refuse_frame(struct compute *c, const struct link_peer *from, const struct error *why)
{
    atomic_fetch_add(&c->w->vitals.dropped, 1);
    for (uint32_t i = 0; i < c->told_count; i++)
        if (!strcmp(c->told[i], from->public_key))
            return;
    if (c->told_count < sizeof c->told / sizeof *c->told)
        memcpy(c->told[c->told_count++], from->public_key, FRAME_KEY_TEXT);
    else
        return;
    log_warn("dropped a data frame from %s (further ones are only counted): %s", from->public_key, why->text);
}

/* ---- Greeting along the pipe ------------------------------------------------------------------------------------- */

static void send_small(struct link *l, const struct link_peer *to, const struct buffer *header)
{
    struct error err = {0};
    if (link_send(l, to, &(struct frame_part){header->data, header->size}, 1, &err))
        log_debug("%s", err.text);
}

static void answer_attached(struct compute *c, const struct link_peer *to)
{
    struct buffer header = {0};
    if (!frame_encode_attached(c->session.epoch, c->session.stage, &header, NULL))
        send_small(c->w->data, to, &header);
    buffer_free(&header);
}

/* Until the next stage answers, say who we are again and again: it may not know our key or epoch yet. */
static void tend_next(struct compute *c)
{
    int64_t now = clock_ms();
    char text[256];
    if (!c->next)
        return;
    enum link_state state = link_state(c->next, text, sizeof text);
    if (!c->session.next_attached && state == LINK_UP && now - c->attach_sent_ms >= ATTACH_AGAIN_MS) {
        struct buffer header = {0};
        if (!frame_encode_attach(c->session.epoch, 1, &header, NULL))
            send_small(c->next, NULL, &header);
        buffer_free(&header);
        c->attach_sent_ms = now;
    }
    if (state == LINK_UP || !c->outbox.full || !c->outbox.to_next) {
        c->next_down_ms = 0;
    } else if (!c->next_down_ms) {
        c->next_down_ms = now;
    } else if (now - c->next_down_ms > NEXT_DOWN_MS && !c->session.failed) {
        struct error e = {0};
        error_set(&e, ERR_LOST, "cannot reach the next stage on \"%s\": %s", c->next_name, text);
        log_warn("%s", e.text);
        c->session.failed = true;
        say_failure(c, 0, c->session.epoch, &e, NULL);
    }
}

/* ---- Frames ------------------------------------------------------------------------------------------------------ */

static void answer_echo(struct compute *c, const struct data_frame *f, const struct link_message *m, int64_t received_us)
{
    struct buffer header = {0};
    size_t parts = f->echo_bytes && !f->echo_empty ? 2 : 1;
    struct error err = {0};
    if (f->echo_hold_us)
        rehearsal_pause(c->rehearsal, f->echo_hold_us);
    uint32_t held_us = f->echo_hold_us ? (uint32_t)(clock_us() - received_us) : 0;
    if (!frame_encode_echo(f->echo_id, parts == 2 ? f->echo_bytes : 0, false, true, held_us, &header, NULL)) {
        struct frame_part reply[2] = {{header.data, header.size}, {m->parts[1].data, m->parts[1].size}};
        if (link_send(c->w->data, &m->from, reply, parts, &err))
            log_debug("echo: %s", err.text);
    }
    buffer_free(&header);
}

static void take_frame(struct compute *c, const struct link_message *m, int64_t received_us)
{
    struct data_frame f;
    struct error why = {0};
    size_t bytes = 0;
    for (size_t i = 0; i < m->part_count; i++)
        bytes += m->parts[i].size;
    atomic_fetch_add(&c->w->vitals.bytes_in, bytes);
    int rc = frame_decode_data(m->parts, m->part_count, &f, &why);
    if (rc == ERR_NOMEM)
        fail_epoch(c, &why);
    else if (rc)
        refuse_frame(c, &m->from, &why);
    if (rc)
        return;
    switch (session_receive(&c->session, &m->from, &f, &why)) {
    case SESSION_COMPUTE:
        rehearsal_came(c->rehearsal, received_us);
        c->last_frame_ms = received_us / 1000;
        compute_micro_batch(c, &f, m, received_us);
        c->last_frame_ms = clock_ms();
        rehearsal_waits(c->rehearsal, clock_us());
        break;
    case SESSION_ECHO:
        answer_echo(c, &f, m, received_us);
        break;
    case SESSION_GREET:
        answer_attached(c, &m->from);
        break;
    case SESSION_WAIT:
        break;
    case SESSION_STALE:
        log_debug("dropped a frame of epoch %llu; ours is %llu", (unsigned long long)f.epoch,
                  (unsigned long long)c->session.epoch);
        atomic_fetch_add(&c->w->vitals.dropped, 1);
        break;
    case SESSION_REFUSE:
        refuse_frame(c, &m->from, &why);
        break;
    case SESSION_FAIL:
        compute_fail(c, &f.work, &why);
        break;
    }
    frame_free(&f);
}

/* What the next stage says back: only that it is there. */
static bool take_from_next(struct compute *c)
{
    struct link_message m;
    struct data_frame f;
    struct error err = {0};
    int rc = c->next && link_may_have(c->next) ? link_receive(c->next, &m, &err) : 0;
    if (rc <= 0)
        return false;
    if (frame_decode_data(m.parts, m.part_count, &f, &err)) {
        refuse_frame(c, &m.from, &err);
    } else {
        if (session_next(&c->session, &f))
            answer_attached(c, &c->session.feed);
        frame_free(&f);
    }
    link_message_free(&m);
    return true;
}

static bool take_from_data(struct compute *c)
{
    struct link_message m;
    struct error err = {0};
    if (c->outbox.full || !link_may_have(c->w->data))
        return false;
    int rc = link_receive(c->w->data, &m, &err);
    if (rc == 0)
        return false;
    if (rc == ERR_NOMEM) {
        fail_epoch(c, &err);
        return true;
    }
    if (rc < 0) {
        log_debug("%s", err.text);
        atomic_fetch_add(&c->w->vitals.dropped, 1);
        return true;
    }
    take_frame(c, &m, clock_us());
    link_message_free(&m);
    return true;
}

/* ---- Jobs -------------------------------------------------------------------------------------------------------- */

static void do_job(struct compute *c, struct mail *job)
{
    struct control_message done = {.kind = CONTROL_DONE, .epoch = job->message.epoch, .request = job->message.request};
    atomic_store(&c->w->vitals.interrupt, false);
    switch (job->message.kind) {
    case CONTROL_PROBE:
        compute_probe(c, job);
        break;
    case CONTROL_PROBE_LINK:
        compute_probe_link(c, job);
        break;
    case CONTROL_LOAD:
        compute_load(c, job);
        break;
    case CONTROL_UNLOAD:
        compute_leave(c, &job->message);
        log_info("unloaded");
        if (done.request)
            compute_reply(c, &done, &job->peer);
        break;
    case CONTROL_DRAIN:
        c->draining = true;
        atomic_store(&c->w->vitals.state, WORKER_DRAINING);
        if (done.request)
            compute_reply(c, &done, &job->peer);
        break;
    default:
        break;
    }
}

static bool take_job(struct compute *c)
{
    struct mail *job = mailbox_take(&c->w->jobs);
    if (!job)
        return false;
    do_job(c, job);
    mail_free(job);
    return true;
}

/* Until there is something to do. As link_wait. */
static int wait(struct compute *c)
{
    struct link *links[2 + REHEARSAL_LINKS];
    bool ready[2 + REHEARSAL_LINKS];
    size_t count = 0;
    int timeout = c->outbox.full ? 1 : c->draining ? 5 : c->next && !c->session.next_attached ? 100 : 1000,
        rehearses = rehearsal_look(c->rehearsal, clock_us());
    if (c->next)
        links[count++] = c->next;
    /* While the outbox is full nothing new is taken, so its messages must not keep waking us. */
    if (!c->outbox.full)
        links[count++] = c->w->data;
    count += rehearsal_links(c->rehearsal, &links[count]);
    return link_wait(links, count, c->w->jobs.waker, rehearses >= 0 && rehearses < timeout ? rehearses : timeout, ready);
}

static void loop(struct compute *c)
{
    int64_t drain_end = INT64_MAX;
    c->last_frame_ms = clock_ms() - DRAIN_QUIET_MS;
    for (;;) {
        outbox_flush(c);
        tend_next(c);
        if (take_job(c) || take_from_next(c) || take_from_data(c))
            continue;
        int64_t now = clock_ms();
        awake_look(&c->w->awake, now * 1000);
        if (c->draining) {
            if (drain_end == INT64_MAX)
                drain_end = now + DRAIN_MOST_MS;
            if (now >= drain_end || (!c->outbox.full && now - c->last_frame_ms >= DRAIN_QUIET_MS))
                return;
        }
        int rc = wait(c);
        if (rc < 0) {
            log_error("waiting for data failed: %s", error_name(rc));
            return;
        }
    }
}

void *compute_thread(void *worker)
{
    struct worker *w = worker;
    struct compute *c = mem_zalloc(1, sizeof *c);
    struct error err = {0};
    struct pool_options pool = {.threads = w->options->threads, .bind = w->options->threads == 0};
    if (!c || pool_create(&pool, &c->pool, &err)) {
        log_error("the compute thread cannot start: %s", c ? err.text : "out of memory");
        goto done;
    }
    c->w = w;
    if (rehearsal_create(w->hub, &c->rehearsal, &err))
        log_info("hops may take longer: %s", err.text);
    atomic_store(&w->threads, pool_threads(c->pool));
    loop(c);
    compute_unload(c);
    if (c->has_profile)
        control_free(&c->profile);
    for (int i = 0; i < 3; i++)
        buffer_free(&c->outbox.part[i]);
done:
    if (c) {
        rehearsal_destroy(c->rehearsal);
        pool_destroy(c->pool);
    }
    mem_free(c);
    atomic_store(&w->vitals.finished, true);
    waker_ring(w->replies.waker);
    return NULL;
}
