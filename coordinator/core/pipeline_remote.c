/* The pipe over the network. Owns its two links and the frames that wait because a peer is slow; the caller bounds how
 * many those are. Loop thread only. */
#include "coordinator/core/pipeline_remote.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

enum { FEEDS = 0, RECEIVES = 1, ENDS = 2 };
static const uint32_t roles[ENDS] = {1, 2}; /* of Attach */

#define ATTACH_AGAIN_US 300000

struct waiting {
    struct waiting *next;
    struct buffer header, tokens;
};

struct remote {
    struct pipeline base;
    uint64_t epoch;
    struct link *links[ENDS];
    bool attached[ENDS];
    unsigned connection[ENDS]; /* over which it was; 0: the state has not told yet, which may come after the greeting */
    int64_t attach_sent_us[ENDS];
    int lost;
    struct waiting *waiting, **waiting_end;
    uint64_t sent_bytes, received_bytes;
    struct rehearsal *rehearsal;
    uint32_t stages;
    uint32_t under_way; /* micro-batches */
};

struct held { /* what a delivered result points into */
    struct link_message message;
    struct data_frame frame;
};

static int send_attach(struct remote *r, int end, struct error *err)
{
    struct buffer header = {.limit = FRAME_HEADER_BYTES_MAX};
    int rc = frame_encode_attach(r->epoch, roles[end], &header, err);
    if (!rc)
        rc = link_send(r->links[end], NULL, &(struct frame_part){header.data, header.size}, 1, err);
    buffer_free(&header);
    r->attach_sent_us[end] = clock_us();
    return rc == ERR_BUSY || rc == ERR_AUTH ? 0 : rc; /* it is sent again: a stage lets us in when it has its plan */
}

/* Sends what waits, as far as the peer takes it. */
static int flush(struct remote *r, struct error *err)
{
    while (r->waiting) {
        struct waiting *w = r->waiting;
        struct frame_part parts[2] = {{w->header.data, w->header.size}, {w->tokens.data, w->tokens.size}};
        int rc = link_send(r->links[FEEDS], NULL, parts, 2, err);
        if (rc == ERR_BUSY || rc == ERR_AUTH) /* of a peer that is another process by now, its state will tell */
            return 0;
        if (rc)
            return rc;
        r->sent_bytes += w->header.size + w->tokens.size;
        if (!(r->waiting = w->next))
            r->waiting_end = &r->waiting;
        buffer_free(&w->header);
        buffer_free(&w->tokens);
        mem_free(w);
    }
    return 0;
}

/* A frame has come or gone. A hop's time matters where a stage waits for it; where all have work, a rehearsal would only take
 * time from those on our cores. */
static void note_work(struct remote *r)
{
    if (r->under_way && r->under_way < r->stages)
        rehearsal_waits(r->rehearsal, clock_us());
    else
        rehearsal_rest(r->rehearsal);
}

static int remote_submit(struct pipeline *p, const struct frame_work *work, struct error *err)
{
    struct remote *r = (struct remote *)p;
    struct frame_work stamped = *work;
    struct waiting *w = mem_zalloc(1, sizeof *w);
    stamped.epoch = r->epoch;
    if (!w)
        return error_set(err, ERR_NOMEM, "out of memory for a micro-batch of %u tokens", work->tokens);
    w->header.limit = FRAME_HEADER_BYTES_MAX;
    int rc = frame_encode_work(&stamped, &w->header, &w->tokens, err);
    if (rc) {
        buffer_free(&w->header);
        buffer_free(&w->tokens);
        mem_free(w);
        return rc;
    }
    *r->waiting_end = w;
    r->waiting_end = &w->next;
    r->under_way++;
    note_work(r);
    return flush(r, err);
}

/* One message of one link: 1 when *out is a result, 0 when it was something else (or old), negative on error. */
static int take(struct remote *r, int end, struct link_message *message, struct pipeline_result *out, struct error *err)
{
    struct data_frame frame;
    for (size_t i = 0; i < message->part_count; i++)
        r->received_bytes += message->parts[i].size;
    int rc = frame_decode_data(message->parts, message->part_count, &frame, err);
    if (rc)
        return rc;
    if (frame.epoch == r->epoch && frame.kind == DATA_ATTACHED)
        r->attached[end] = true;
    if (frame.epoch != r->epoch || frame.kind != DATA_RESULT) {
        if (frame.epoch != r->epoch)
            log_debug("dropped a data frame of epoch %llu, ours is %llu", (unsigned long long)frame.epoch,
                      (unsigned long long)r->epoch);
        frame_free(&frame);
        return 0;
    }
    struct held *held = mem_alloc(sizeof *held);
    if (!held) {
        frame_free(&frame);
        return error_set(err, ERR_NOMEM, "out of memory for a result");
    }
    held->message = *message;
    held->frame = frame;
    out->result = frame.result;
    r->under_way -= r->under_way > 0;
    rehearsal_came(r->rehearsal, clock_us());
    note_work(r);
    out->memory = held;
    return 1;
}

/* The stage that greeted us is gone, even if somebody is there again. */
static bool is_lost(struct remote *r, int end)
{
    enum link_state state = link_state(r->links[end], NULL, 0);
    unsigned connection = link_connections(r->links[end]);
    if (!r->attached[end])
        return false;
    if (!r->connection[end] && state == LINK_UP)
        r->connection[end] = connection;
    return state == LINK_DOWN || (r->connection[end] && (state != LINK_UP || connection != r->connection[end]));
}

static int remote_poll(struct pipeline *p, struct pipeline_result *out, struct error *err)
{
    struct remote *r = (struct remote *)p;
    int rc = flush(r, err);
    for (int end = 0; end < ENDS && !rc; end++) {
        struct link_message message;
        while (!rc && link_may_have(r->links[end]) && (rc = link_receive(r->links[end], &message, err)) > 0) {
            rc = take(r, end, &message, out, err);
            if (rc <= 0)
                link_message_free(&message);
        }
        if (rc)
            break;
        if (is_lost(r, end)) {
            r->lost = end;
            return error_set(err, ERR_LOST, "its data connection closed");
        }
        if (!r->attached[end] && clock_us() - r->attach_sent_us[end] >= ATTACH_AGAIN_US)
            rc = send_attach(r, end, err);
    }
    return rc;
}

static void remote_release(struct pipeline *p, struct pipeline_result *result)
{
    struct held *held = result->memory;
    (void)p;
    if (!held)
        return;
    frame_free(&held->frame);
    link_message_free(&held->message);
    mem_free(held);
    result->memory = NULL;
}

static void remote_destroy(struct pipeline *p)
{
    struct remote *r = (struct remote *)p;
    while (r->waiting) {
        struct waiting *next = r->waiting->next;
        buffer_free(&r->waiting->header);
        buffer_free(&r->waiting->tokens);
        mem_free(r->waiting);
        r->waiting = next;
    }
    for (int end = 0; end < ENDS; end++)
        if (r->links[end])
            link_close(r->links[end], 0);
    mem_free(r);
}

static const struct pipeline_kind remote_kind = {remote_submit, remote_poll, remote_release, remote_destroy};

int pipeline_remote_create(const struct remote_options *o, struct pipeline **out, struct error *err)
{
    struct remote *r = mem_zalloc(1, sizeof *r);
    if (!r)
        return error_set(err, ERR_NOMEM, "out of memory for the pipeline");
    r->base.kind = &remote_kind;
    r->epoch = o->epoch;
    r->rehearsal = o->rehearsal;
    r->stages = o->stages;
    r->lost = -1;
    r->waiting_end = &r->waiting;
    int rc = link_connect(o->hub, PLANE_DATA, o->first_endpoint, o->first_key, &r->links[FEEDS], err);
    if (!rc)
        rc = link_connect(o->hub, PLANE_DATA, o->last_endpoint, o->last_key, &r->links[RECEIVES], err);
    for (int end = 0; end < ENDS && !rc; end++)
        rc = send_attach(r, end, err);
    if (rc) {
        remote_destroy(&r->base);
        return rc;
    }
    *out = &r->base;
    return 0;
}

size_t pipeline_remote_links(struct pipeline *p, struct link **links)
{
    struct remote *r = (struct remote *)p;
    links[FEEDS] = r->links[FEEDS];
    links[RECEIVES] = r->links[RECEIVES];
    return ENDS + rehearsal_links(r->rehearsal, &links[ENDS]);
}

int pipeline_remote_patience_ms(struct pipeline *p)
{
    return rehearsal_look(((struct remote *)p)->rehearsal, clock_us());
}

bool pipeline_remote_attached(const struct pipeline *p, int end)
{
    return ((const struct remote *)p)->attached[end];
}

int pipeline_remote_lost(const struct pipeline *p)
{
    return ((const struct remote *)p)->lost;
}

void pipeline_remote_traffic(const struct pipeline *p, uint64_t *sent, uint64_t *received)
{
    const struct remote *r = (const struct remote *)p;
    *sent = r->sent_bytes;
    *received = r->received_bytes;
}
