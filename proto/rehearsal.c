/* A frame of one token, thrown between two links of the same node. Owns both links and the frame's bytes. */
#include "proto/rehearsal.h"

#include <stdio.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "proto/frame.h"
#include "proto/hub.h"

#define FIRST_US 1000   /* so long after work everything is still at hand */
#define AHEAD_US 1500   /* of when the frame should come: threads that slept for longer wake later */
#define AGAIN_US 4000   /* later than the first throw comes another, then after twice as long each time */
#define SHARE 10        /* but at least so many times what one takes, where nodes share few cores */
#define LAST_US 250000  /* whoever waits for longer gains nothing by a hop that is 0.1 ms shorter */
#define LOST_US 200000  /* a frame that has not arrived by then does not come */
#define WAITS 3
#define WIDTH 256       /* values a row: what matters is the path, not the bytes */

enum { THROWS = 0, RECEIVES = 1 }; /* the connecting end, which has a peer from the start, and the listening one */

struct rehearsal {
    struct link *ends[REHEARSAL_LINKS];
    struct link_peer thrower;   /* whom the listening end answers, once a frame has come from there */
    struct buffer header, tokens;
    int64_t waits_us;           /* since when the node waits for a frame; 0: it does not */
    int64_t waited_us[WAITS];   /* how long it waited the last times */
    uint32_t waits;
    int64_t thrown_us, took_us; /* the last throw */
    int64_t again_us;           /* from it to the next one of the same wait */
    int lies;                   /* at which end the frame is, to be thrown to the other */
    bool under_way;
    uint64_t count;
};

int rehearsal_create(struct hub *hub, struct rehearsal **out, struct error *err)
{
    const char *key = key_public_text(hub->key);
    char endpoint[64];
    struct rehearsal *r = mem_zalloc(1, sizeof *r);
    if (!r)
        return error_set(err, ERR_NOMEM, "no memory to rehearse with");
    int rc = hub_allow(hub, PLANE_SELF, &key, 1, err);
    if (!rc)
        rc = link_listen(hub, PLANE_SELF, "tcp://127.0.0.1:*", &r->ends[RECEIVES], err);
    if (!rc) {
        snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", link_port(r->ends[RECEIVES]));
        rc = link_connect(hub, PLANE_SELF, endpoint, key, &r->ends[THROWS], err);
    }
    if (rc) {
        rehearsal_destroy(r);
        return rc;
    }
    *out = r;
    return 0;
}

void rehearsal_destroy(struct rehearsal *r)
{
    if (!r)
        return;
    for (int end = 0; end < REHEARSAL_LINKS; end++)
        link_close(r->ends[end], 0);
    buffer_free(&r->header);
    buffer_free(&r->tokens);
    mem_free(r);
}

void rehearsal_waits(struct rehearsal *r, int64_t now_us)
{
    if (!r)
        return;
    r->waits_us = now_us;
    r->again_us = AGAIN_US;
}

void rehearsal_came(struct rehearsal *r, int64_t now_us)
{
    if (!r || !r->waits_us)
        return;
    r->waited_us[r->waits++ % WAITS] = now_us - r->waits_us;
    r->waits_us = 0;
}

void rehearsal_rest(struct rehearsal *r)
{
    if (r)
        r->waits_us = 0;
}

/* How long it should take this time: the middle one of the last three. */
static int64_t expected_us(const struct rehearsal *r)
{
    const int64_t a = r->waited_us[0], b = r->waited_us[1], c = r->waited_us[2];
    const int64_t least = a < b ? a : b, most = a < b ? b : a;
    return c < least ? least : c > most ? most : c;
}

/* As a stage makes a frame, and reads it. */
static void throw(struct rehearsal *r, int64_t now_us)
{
    static const float row[WIDTH];
    const int32_t token = 0;
    struct frame_span span = {.sequence = 1, .count = 1, .next_token = -1, .tokens = &token};
    const struct frame_work work = {.span_count = 1, .spans = &span, .tokens = 1, .codec = CODEC_F32, .width = WIDTH,
                                    .activation_bytes = sizeof row};
    buffer_clear(&r->header);
    buffer_clear(&r->tokens);
    if (frame_encode_work(&work, &r->header, &r->tokens, NULL))
        return;
    const struct frame_part parts[] = {
        {r->header.data, r->header.size}, {r->tokens.data, r->tokens.size}, {row, sizeof row}};
    const struct link_peer *to = r->lies == THROWS ? NULL : &r->thrower;
    r->thrown_us = now_us;
    if (link_send(r->ends[r->lies], to, parts, sizeof parts / sizeof *parts, NULL))
        r->lies = THROWS; /* this connection is gone: the next one begins there */
    else
        r->under_way = true;
}

static void take(struct rehearsal *r, int end, const struct link_message *m, int64_t now_us)
{
    struct data_frame frame;
    if (!frame_decode_data(m->parts, m->part_count, &frame, NULL))
        frame_free(&frame);
    if (end == RECEIVES)
        r->thrower = m->from;
    r->lies = end;
    r->under_way = false;
    if (r->waits_us && r->thrown_us >= r->waits_us) /* else it lay there while the node was at work */
        r->took_us = now_us - r->thrown_us;
    r->count++;
}

static int64_t due_us(const struct rehearsal *r)
{
    const int64_t ahead = expected_us(r) - AHEAD_US, first = r->waits_us + (ahead > FIRST_US ? ahead : FIRST_US),
                  due = r->thrown_us < r->waits_us ? first : r->thrown_us + r->again_us,
                  allowed = r->thrown_us + r->took_us * SHARE;
    return due > allowed ? due : allowed;
}

int rehearsal_look(struct rehearsal *r, int64_t now_us)
{
    struct link_message m;
    if (!r)
        return -1;
    for (int end = 0; end < REHEARSAL_LINKS; end++)
        while (link_may_have(r->ends[end]) && link_receive(r->ends[end], &m, NULL) > 0) {
            take(r, end, &m, now_us);
            link_message_free(&m);
        }
    if (!r->waits_us || now_us - r->waits_us > LAST_US)
        return -1;
    if (r->under_way && now_us - r->thrown_us > LOST_US) { /* with its connection */
        r->under_way = false;
        r->lies = THROWS;
    }
    int64_t due = due_us(r);
    if (now_us >= due && !r->under_way) {
        if (r->thrown_us >= r->waits_us)
            r->again_us *= 2;
        throw(r, now_us);
        due = due_us(r);
    }
    return due > now_us ? (int)((due - now_us + 999) / 1000) : 1;
}

int64_t rehearsal_slept_us(int64_t waited_us)
{
    return waited_us > FIRST_US + AHEAD_US && waited_us < LAST_US ? AHEAD_US : waited_us;
}

void rehearsal_pause(struct rehearsal *r, int64_t us)
{
    int64_t now = clock_us();
    const int64_t end = now + us;
    rehearsal_waits(r, now);
    for (; now < end; now = clock_us()) {
        bool ready[REHEARSAL_LINKS];
        int again_ms = rehearsal_look(r, now);
        if (again_ms < 0 || end - now < again_ms * 1000)
            clock_sleep_ns((end - now) * 1000);
        else
            link_wait(r->ends, REHEARSAL_LINKS, NULL, again_ms, ready);
    }
    rehearsal_came(r, now);
}

size_t rehearsal_links(const struct rehearsal *r, struct link **links)
{
    for (size_t end = 0; r && end < REHEARSAL_LINKS; end++)
        links[end] = r->ends[end];
    return r ? REHEARSAL_LINKS : 0;
}

uint64_t rehearsal_count(const struct rehearsal *r)
{
    return r ? r->count : 0;
}
