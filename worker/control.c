/* The control thread: answers coordinators at once, whatever the compute thread is busy with, and hands it the jobs.
 * Owns the control socket and the claim. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/sensors.h"
#include "base/notify.h"
#include "engine/kernels/ops.h"
#include "worker/claim.h"
#include "worker/report.h"
#include "worker/worker.h"

#define SLOW_READINGS_MS 1000 /* memory and temperature are read from files: not more often */

struct control {
    struct worker *w;
    struct claim claim;
    char told[64][KEY_TEXT];  /* peers whose bad messages were logged */
    uint32_t told_count;
    bool slow;                /* so says the coordinator that commands us */
    int64_t read_ms;
    uint64_t resident_bytes;
    int32_t temperature_millic;
    int64_t watchdog_ms, alive_ms; /* how often the service manager must hear from us, when it last did */
};

static int send_to(struct control *c, const struct control_message *m, const struct link_peer *to)
{
    struct error err = {0};
    int rc = ERR_NOMEM;
    for (int i = 0; rc == ERR_NOMEM && i < MEMORY_TRIES; i++) { /* somebody waits for it */
        struct buffer b = {0};
        if (i)
            usleep(MEMORY_WAIT_US);
        rc = control_encode(m, &b, &err);
        if (!rc)
            rc = link_send(c->w->control, to, &(struct frame_part){b.data, b.size}, 1, &err);
        buffer_free(&b);
    }
    if (rc && rc != ERR_LOST)
        log_warn("cannot send %s: %s", control_kind_name(m->kind), err.text);
    return rc;
}

static void reply_failure(struct control *c, const struct link_peer *to, uint64_t request, uint64_t epoch,
                          const struct error *why)
{
    struct control_message m = {.kind = CONTROL_FAILURE, .epoch = epoch, .request = request};
    m.u.failure.code = why->code < 0 ? why->code : ERR_INTERNAL;
    snprintf(m.u.failure.text, sizeof m.u.failure.text, "%s", why->text);
    send_to(c, &m, to);
}

/* ---- Slow readings ----------------------------------------------------------------------------------------------- */

static uint64_t resident_now(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- Replies ----------------------------------------------------------------------------------------------------- */

/* Which machine this is, for the coordinator that asks. Tests pretend boards that have a kernel of their own. */
static uint64_t machine_name(const struct link_peer *asks)
{
    const char *pretended = getenv("BRIGADE_TEST_MACHINE");
    char boot[MACHINE_BOOT_TEXT];
    machine_boot_id(boot);
    return key_pseudonym(asks->public_key, pretended ? pretended : boot);
}

static void send_welcome(struct control *c, const struct link_peer *to, uint64_t request)
{
    struct worker *w = c->w;
    struct control_message m = {.kind = CONTROL_WELCOME, .request = request};
    snprintf(m.u.welcome.name, sizeof m.u.welcome.name, "%s", w->options->name);
    snprintf(m.u.welcome.program_version, sizeof m.u.welcome.program_version, "%s", BRIGADE_VERSION);
    snprintf(m.u.welcome.isa, sizeof m.u.welcome.isa, "%s", kernels_isa());
    snprintf(m.u.welcome.cpu, sizeof m.u.welcome.cpu, "%s", w->cpu.model);
    m.u.welcome.cores = (uint32_t)w->cpu.cores;
    m.u.welcome.threads = (uint32_t)atomic_load(&w->threads);
    m.u.welcome.memory_bytes = w->admitted_bytes;
    m.u.welcome.data_port = (uint32_t)link_port(w->data);
    m.u.welcome.weights_port = (uint32_t)link_port(w->weights);
    m.u.welcome.kernels_version = kernels_version();
    m.u.welcome.machine = machine_name(to);
    m.u.welcome.claimed = claim_is(&c->claim, to);
    pthread_mutex_lock(&w->vitals.lock);
    m.u.welcome.epoch = w->vitals.epoch;
    m.u.welcome.has_loaded = w->vitals.has_loaded;
    if (w->vitals.has_loaded)
        m.u.welcome.loaded = w->vitals.loaded;
    pthread_mutex_unlock(&w->vitals.lock);
    m.epoch = m.u.welcome.epoch;
    send_to(c, &m, to);
}

static struct control_message heartbeat_reply(struct control *c, const struct control_message *beat)
{
    struct vitals *v = &c->w->vitals;
    struct control_message m = {.kind = CONTROL_HEARTBEAT_REPLY, .epoch = beat->epoch, .request = beat->request};
    int64_t now = clock_ms();
    if (!c->read_ms || now - c->read_ms >= SLOW_READINGS_MS) {
        c->read_ms = now;
        c->resident_bytes = resident_now();
        c->temperature_millic = sensors_temperature_millic(sensors_root());
    }
    uint64_t refused = hub_refused(c->w->hub) + atomic_load(&v->dropped);
    m.u.heartbeat_reply.sequence = beat->u.heartbeat.sequence;
    m.u.heartbeat_reply.sent_us = beat->u.heartbeat.sent_us;
    m.u.heartbeat_reply.busy_us = atomic_load(&v->busy_us);
    m.u.heartbeat_reply.microbatches = atomic_load(&v->microbatches);
    m.u.heartbeat_reply.tokens = atomic_load(&v->tokens);
    m.u.heartbeat_reply.bytes_in = atomic_load(&v->bytes_in);
    m.u.heartbeat_reply.bytes_out = atomic_load(&v->bytes_out);
    m.u.heartbeat_reply.weights_in = atomic_load(&v->weights_in);
    m.u.heartbeat_reply.weights_out = atomic_load(&v->weights_out);
    m.u.heartbeat_reply.resident_bytes = c->resident_bytes;
    m.u.heartbeat_reply.temperature_millic = c->temperature_millic;
    m.u.heartbeat_reply.state = atomic_load(&v->state);
    int64_t since = atomic_load(&v->busy_since_us), now_us = clock_us();
    m.u.heartbeat_reply.busy_for_us = since && now_us > since ? (uint64_t)(now_us - since) : 0;
    m.u.heartbeat_reply.slow = c->slow;
    m.u.heartbeat_reply.decode_ns = atomic_load(&v->decode_ns);
    m.u.heartbeat_reply.expected_ns = atomic_load(&v->expected_ns);
    m.u.heartbeat_reply.refused = refused > UINT32_MAX ? UINT32_MAX : (uint32_t)refused;
    struct energy_reading energy;
    energy_read(c->w->energy, &energy);
    m.u.heartbeat_reply.energy_measured = energy.measured;
    m.u.heartbeat_reply.energy_uj = (uint64_t)(energy.joules * 1e6);
    m.u.heartbeat_reply.power_mw = (uint32_t)(energy.watts * 1e3);
    snprintf(m.u.heartbeat_reply.energy_source, sizeof m.u.heartbeat_reply.energy_source, "%s", energy.source);
    return m;
}

static void on_hello(struct control *c, const struct control_message *m, const struct link_peer *from)
{
    struct error why = {0};
    int64_t now = clock_ms();
    if (m->u.hello.claim) {
        /* Whether the present claimant's connection still stands is known only by saying something over it. */
        bool gone = false;
        if (c->claim.held && !claim_is(&c->claim, from)) {
            struct control_message beat = {.kind = CONTROL_HEARTBEAT};
            struct control_message touch = heartbeat_reply(c, &beat);
            gone = send_to(c, &touch, &c->claim.by) == ERR_LOST;
        }
        bool mine = claim_is(&c->claim, from);
        if (claim_ask(&c->claim, from, m->u.hello.take_over, gone, now, &why)) {
            log_info("%s asked to command this worker: %s", from->public_key, why.text);
            reply_failure(c, from, m->request, m->epoch, &why);
            return;
        }
        c->slow &= mine;
        if (!mine) {
            atomic_store(&c->w->vitals.interrupt, true); /* what the one before asked for is wanted by nobody any more */
            log_info("coordinator %s (brigade %s) commands this worker", from->public_key,
                     m->u.hello.program_version);
        }
    }
    send_welcome(c, from, m->request);
}

static void on_examine(struct control *c, const struct control_message *m, const struct link_peer *from)
{
    struct control_message reply = {.kind = CONTROL_REPORT, .epoch = m->epoch, .request = m->request};
    worker_report(c->w, m->u.examine.address, &reply.u.report);
    reply.u.report.padding_bytes = m->u.examine.padding_bytes;
    send_to(c, &reply, from);
}

static void on_allow(struct control *c, const struct control_message *m, const struct link_peer *from)
{
    struct error err = {0};
    const char *keys[FRAME_KEYS_MAX + WORKER_ALLOW_MAX];
    uint32_t count = m->u.allow.count, all = count;
    for (uint32_t i = 0; i < count; i++)
        keys[i] = m->u.allow.keys[i];
    for (uint32_t i = 0; i < c->w->options->allow_count; i++)
        keys[all++] = c->w->options->allow[i]; /* any coordinator may offer weights */
    if (hub_allow(c->w->hub, PLANE_DATA, keys, count, &err) || hub_allow(c->w->hub, PLANE_WEIGHTS, keys, all, &err)) {
        reply_failure(c, from, m->request, m->epoch, &err);
        return;
    }
    struct control_message done = {.kind = CONTROL_DONE, .epoch = m->epoch, .request = m->request};
    if (m->request)
        send_to(c, &done, from);
}

/* To the compute thread. Takes over *m. */
static void hand_over(struct control *c, struct control_message *m, const struct link_peer *from)
{
    struct error why = {0};
    uint64_t request = m->request, epoch = m->epoch;
    if (m->kind == CONTROL_LOAD || m->kind == CONTROL_UNLOAD)
        atomic_store(&c->w->vitals.interrupt, true); /* a load under way is no longer wanted */
    if (m->kind == CONTROL_LOAD) { /* whoever says hello from now on takes a newer one, also if this one ends early */
        pthread_mutex_lock(&c->w->vitals.lock);
        if (epoch > c->w->vitals.epoch)
            c->w->vitals.epoch = epoch;
        pthread_mutex_unlock(&c->w->vitals.lock);
    }
    if (!mailbox_put(&c->w->jobs, m, from))
        return;
    error_set(&why, ERR_BUSY, "this worker has too many jobs waiting");
    reply_failure(c, from, request, epoch, &why);
}

/* Takes over *m. */
static void on_message(struct control *c, struct control_message *m, const struct link_peer *from)
{
    struct error why = {0};
    claim_seen(&c->claim, from, clock_ms());
    switch (m->kind) {
    case CONTROL_HELLO:
        on_hello(c, m, from);
        return;
    case CONTROL_HEARTBEAT: {
        if (claim_is(&c->claim, from))
            c->slow = m->u.heartbeat.slow;
        if (m->u.heartbeat.decode_ns && claim_is(&c->claim, from)) {
            atomic_store(&c->w->vitals.decode_ns, m->u.heartbeat.decode_ns);
            atomic_store(&c->w->vitals.expected_ns, m->u.heartbeat.expected_ns);
        }
        struct control_message reply = heartbeat_reply(c, m);
        send_to(c, &reply, from);
        return;
    }
    case CONTROL_EXAMINE:
        on_examine(c, m, from);
        return;
    case CONTROL_ALLOW:
    case CONTROL_PROBE:
    case CONTROL_PROBE_LINK:
    case CONTROL_LOAD:
    case CONTROL_UNLOAD:
    case CONTROL_DRAIN:
        break;
    default:
        error_set(&why, ERR_FORMAT, "a worker expects no message \"%s\"", control_kind_name(m->kind));
        reply_failure(c, from, m->request, m->epoch, &why);
        control_free(m);
        return;
    }
    if (!claim_is(&c->claim, from)) {
        error_set(&why, ERR_AUTH, "%s is for the coordinator that commands this worker; claim it with hello first",
                  control_kind_name(m->kind));
        reply_failure(c, from, m->request, m->epoch, &why);
        control_free(m);
    } else if (m->kind == CONTROL_ALLOW) {
        on_allow(c, m, from);
        control_free(m);
    } else {
        hand_over(c, m, from);
    }
}

/* ---- The loop ---------------------------------------------------------------------------------------------------- */

static void bad_message(struct control *c, const struct link_peer *from, const struct error *why)
{
    atomic_fetch_add(&c->w->vitals.dropped, 1);
    /* Said back in our own version, so that the other side can name both. */
    reply_failure(c, from, 0, 0, why);
    for (uint32_t i = 0; i < c->told_count; i++)
        if (!strcmp(c->told[i], from->public_key))
            return;
    if (c->told_count == sizeof c->told / sizeof *c->told)
        return;
    memcpy(c->told[c->told_count++], from->public_key, KEY_TEXT);
    log_warn("dropped a message from %s (further ones are only counted): %s", from->public_key, why->text);
}

/* There was no memory for a message, so nobody knows whose it was. If it was a job of our coordinator's, it would wait in
 * vain: it is told. */
static void lost_message(struct control *c, const struct error *why)
{
    atomic_fetch_add(&c->w->vitals.dropped, 1);
    log_warn("%s", why->text);
    pthread_mutex_lock(&c->w->vitals.lock);
    uint64_t epoch = c->w->vitals.epoch;
    pthread_mutex_unlock(&c->w->vitals.lock);
    if (c->claim.held)
        reply_failure(c, &c->claim.by, 0, epoch, why);
}

static bool receive_one(struct control *c)
{
    struct link_message in;
    struct control_message m;
    struct error err = {0};
    int rc = link_receive(c->w->control, &in, &err);
    if (rc == 0)
        return false;
    if (rc == ERR_NOMEM)
        lost_message(c, &err);
    else if (rc < 0)
        log_debug("%s", err.text);
    if (rc < 0)
        return rc != ERR_IO;
    if (in.part_count != 1)
        rc = error_set(&err, ERR_FORMAT, "control message: %zu parts where one belongs", in.part_count);
    else
        rc = control_decode(in.parts[0].data, in.parts[0].size, &m, &err);
    if (rc == ERR_NOMEM)
        lost_message(c, &err);
    else if (rc < 0)
        bad_message(c, &in.from, &err);
    else
        on_message(c, &m, &in.from);
    link_message_free(&in);
    return true;
}

static void forward_replies(struct control *c)
{
    for (struct mail *mail; (mail = mailbox_take(&c->w->replies)); mail_free(mail))
        if (!mail->to_claimant)
            send_to(c, &mail->message, &mail->peer);
        else if (c->claim.held)
            send_to(c, &mail->message, &c->claim.by);
}

/* The service manager hears from this loop and no other: who answers no coordinator is not alive. */
static void tell_alive(struct control *c)
{
    int64_t now = clock_ms();
    if (!c->watchdog_ms || (c->alive_ms && now - c->alive_ms < c->watchdog_ms / 4))
        return;
    c->alive_ms = now;
    notify_send("WATCHDOG=1");
}

static void begin_drain(struct control *c)
{
    struct control_message drain = {.kind = CONTROL_DRAIN};
    log_info("finishing what is under way, then stopping");
    notify_send("STOPPING=1");
    atomic_store(&c->w->vitals.interrupt, true);
    if (mailbox_put(&c->w->jobs, &drain, NULL))
        log_error("no room for the job of stopping");
}

static void say_goodbye(struct control *c)
{
    struct error why = {0};
    pthread_mutex_lock(&c->w->vitals.lock);
    uint64_t epoch = c->w->vitals.epoch;
    pthread_mutex_unlock(&c->w->vitals.lock);
    error_set(&why, ERR_CANCELLED, "this worker is shutting down");
    if (c->claim.held && epoch)
        reply_failure(c, &c->claim.by, 0, epoch, &why);
}

int control_run(struct worker *w, const volatile int *stop_signals)
{
    struct control c = {.w = w, .watchdog_ms = notify_watchdog_us() / 1000};
    bool draining = false, asked = false, ready;
    for (;;) {
        int rc = link_wait(&w->control, 1, w->replies.waker, c.watchdog_ms && c.watchdog_ms < 4000 ? 100 : 1000, &ready);
        if (rc < 0) {
            log_error("waiting for messages failed: %s", error_name(rc));
            return rc;
        }
        tell_alive(&c);
        forward_replies(&c);
        for (int i = 0; i < 64 && receive_one(&c); i++)
            ;
        asked = *stop_signals > 0;
        if (asked && !draining) {
            draining = true;
            begin_drain(&c);
        }
        if (atomic_load(&w->vitals.finished)) {
            forward_replies(&c);
            if (draining)
                say_goodbye(&c);
            return draining || atomic_load(&w->vitals.state) == WORKER_DRAINING ? 0 : ERR_INTERNAL;
        }
    }
}
