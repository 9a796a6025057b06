/* Sockets: listening ones are ROUTERs that name every sender by its proven key, connecting ones are DEALERs that know
 * whom they insist on. Each belongs to the thread that opened it; the hub thread reports on its connections. */
#include "proto/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zmq.h>

#include "base/clock.h"
#include "base/memory.h"
#include "proto/frame.h"
#include "proto/hub.h"
#include "proto/weights_frame.h"

struct link {
    struct hub *hub;
    void *socket;
    struct watch *watch;
    enum link_plane plane;
    bool listening;
    int port;
    char endpoint[256];
    char server_key[KEY_TEXT];
    int events;            /* descriptor that is readable when ZeroMQ has something to see to */
    bool may_have;         /* link_may_have */
    int64_t retry_ms;      /* when to connect again after a refusal, 0: not waiting */
    int retry_wait_ms;
};

static bool carries_frames(enum link_plane plane)
{
    return plane == PLANE_DATA || plane == PLANE_SELF;
}

/* The largest part that a plane carries. */
static size_t largest_part(enum link_plane plane)
{
    return carries_frames(plane)    ? FRAME_PAYLOAD_BYTES_MAX
           : plane == PLANE_WEIGHTS ? WEIGHTS_PART_BYTES_MAX
                                    : FRAME_HEADER_BYTES_MAX;
}

/* What all planes ask of ZeroMQ. Data frames and weights may be large and slow to cross: their connection may be silent longer. */
static int set_common(void *s, enum link_plane plane, const char *endpoint, const struct node_key *key)
{
    const bool frames = carries_frames(plane), bulk = frames || plane == PLANE_WEIGHTS;
    const struct {
        int option, value;
    } ints[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, frames ? 64 : 512},
        {ZMQ_RCVHWM, frames ? 16 : 512},
        {ZMQ_HANDSHAKE_IVL, 5000},
        {ZMQ_CONNECT_TIMEOUT, 3000},
        {ZMQ_RECONNECT_IVL, 50},
        {ZMQ_RECONNECT_IVL_MAX, 1000},
        {ZMQ_HEARTBEAT_IVL, bulk ? 5000 : 1000},
        {ZMQ_HEARTBEAT_TIMEOUT, bulk ? 60000 : 5000},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 30},
        {ZMQ_IPV6, strchr(endpoint, '[') != NULL},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (zmq_setsockopt(s, ints[i].option, &ints[i].value, sizeof ints[i].value))
            return -1;
    int64_t largest = (int64_t)largest_part(plane);
    uint64_t affinity = frames ? 2 : plane == PLANE_WEIGHTS ? 4 : 1;
    return zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &largest, sizeof largest) ||
           zmq_setsockopt(s, ZMQ_AFFINITY, &affinity, sizeof affinity) ||
           zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, key_secret_text(key), KEY_TEXT) ||
           zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, key_public_text(key), KEY_TEXT);
}

static int link_create(struct hub *hub, enum link_plane plane, const char *endpoint, bool listening,
                       struct link **out, struct error *err)
{
    if ((unsigned)plane >= PLANE_COUNT)
        return error_set(err, ERR_INTERNAL, "plane %d is not known", (int)plane);
    if (strncmp(endpoint, "tcp://", 6) || strlen(endpoint) >= sizeof((struct link *)0)->endpoint)
        return error_set(err, ERR_USAGE, "%.80s: not an endpoint; write tcp://ADDRESS:PORT", endpoint);
    struct link *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NOMEM, "%s: no memory for a socket", endpoint);
    *l = (struct link){.hub = hub, .plane = plane, .listening = listening, .may_have = true};
    snprintf(l->endpoint, sizeof l->endpoint, "%s", endpoint);
    int one = 1, rc;
    l->socket = zmq_socket(hub->context, listening ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!l->socket || set_common(l->socket, plane, endpoint, hub->key) ||
        (listening && (zmq_setsockopt(l->socket, ZMQ_ROUTER_MANDATORY, &one, sizeof one) ||
                       zmq_setsockopt(l->socket, ZMQ_CURVE_SERVER, &one, sizeof one) ||
                       zmq_setsockopt(l->socket, ZMQ_ZAP_DOMAIN, hub_plane_names[plane], strlen(hub_plane_names[plane]))))) {
        rc = error_set(err, ERR_IO, "%s: cannot make a socket: %s", endpoint, zmq_strerror(errno));
        goto fail;
    }
    size_t size = sizeof l->events;
    if (zmq_getsockopt(l->socket, ZMQ_FD, &l->events, &size)) {
        rc = error_set(err, ERR_IO, "%s: cannot wait for a socket: %s", endpoint, zmq_strerror(errno));
        goto fail;
    }
    if ((rc = watch_open(hub, l->socket, endpoint, listening, &l->watch, err)))
        goto fail;
    atomic_fetch_add(&hub->links, 1);
    *out = l;
    return 0;
fail:
    if (l->socket)
        zmq_close(l->socket);
    mem_free(l);
    return rc;
}

int link_listen(struct hub *hub, enum link_plane plane, const char *endpoint, struct link **out, struct error *err)
{
    struct link *l = NULL;
    int rc = link_create(hub, plane, endpoint, true, &l, err);
    if (rc)
        return rc;
    char bound[256] = "";
    size_t size = sizeof bound;
    if (zmq_bind(l->socket, endpoint) || zmq_getsockopt(l->socket, ZMQ_LAST_ENDPOINT, bound, &size)) {
        rc = errno == EADDRINUSE ? error_set(err, ERR_IO, "%s: already in use; stop the other program or choose "
                                                          "another port", endpoint)
                                 : error_set(err, ERR_IO, "%s: cannot listen: %s", endpoint, zmq_strerror(errno));
        link_close(l, 0);
        return rc;
    }
    const char *colon = strrchr(bound, ':');
    l->port = colon ? (int)strtol(colon + 1, NULL, 10) : 0;
    *out = l;
    return 0;
}

int link_port(const struct link *l)
{
    return l->port;
}

int link_connect(struct hub *hub, enum link_plane plane, const char *endpoint, const char *server_key,
                 struct link **out, struct error *err)
{
    struct link *l = NULL;
    if (!key_text_valid(server_key))
        return error_set(err, ERR_AUTH, "%.80s: its public key is no key (Z85, 40 characters)", endpoint);
    int rc = link_create(hub, plane, endpoint, false, &l, err);
    if (rc)
        return rc;
    memcpy(l->server_key, server_key, KEY_TEXT);
    if (zmq_setsockopt(l->socket, ZMQ_CURVE_SERVERKEY, server_key, KEY_TEXT) || zmq_connect(l->socket, endpoint)) {
        rc = error_set(err, errno == EINVAL ? ERR_USAGE : ERR_IO, "%s: cannot connect: %s", endpoint,
                       errno == EINVAL ? "not an endpoint; write tcp://ADDRESS:PORT" : zmq_strerror(errno));
        link_close(l, 0);
        return rc;
    }
    *out = l;
    return 0;
}

void link_close(struct link *l, int linger_ms)
{
    if (!l)
        return;
    zmq_setsockopt(l->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    watch_close(l->watch, l->socket);
    zmq_close(l->socket);
    atomic_fetch_sub(&l->hub->links, 1);
    mem_free(l);
}

/* ZeroMQ ends a connection for good when the peer refuses its key. The peer may change its mind (it learns its
 * neighbours from the plan), so the owner connects again, less and less often. */
static void reconnect_refused(struct link *l)
{
    if (l->listening)
        return;
    int64_t now = clock_ms();
    if (atomic_load(&l->watch->state) == LINK_UP)
        l->retry_wait_ms = 0;
    if (atomic_exchange(&l->watch->broken, false)) {
        l->retry_wait_ms = l->retry_wait_ms ? (l->retry_wait_ms < 500 ? l->retry_wait_ms * 2 : 1000) : 50;
        l->retry_ms = now + l->retry_wait_ms;
    }
    if (!l->retry_ms || now < l->retry_ms)
        return;
    l->retry_ms = 0;
    l->may_have = true;
    zmq_disconnect(l->socket, l->endpoint);
    if (zmq_connect(l->socket, l->endpoint))
        l->retry_ms = now + 1000;
}

int link_patience_ms(struct link *l)
{
    reconnect_refused(l);
    if (l->listening)
        return -1;
    return l->retry_ms || atomic_load(&l->watch->state) != LINK_UP ? 50 : 1000;
}

int link_events(const struct link *l)
{
    return l->events;
}

bool link_may_have(const struct link *l)
{
    return l->may_have;
}

int link_ask(struct link *l)
{
    int events = 0;
    size_t size = sizeof events;
    if (zmq_getsockopt(l->socket, ZMQ_EVENTS, &events, &size))
        return errno == EINTR ? 0 : ERR_IO;
    l->may_have = events & ZMQ_POLLIN;
    return l->may_have;
}

enum link_state link_state(struct link *l, char *text, size_t text_size)
{
    reconnect_refused(l);
    enum link_state state = l->listening ? LINK_UP : (enum link_state)atomic_load(&l->watch->state);
    if (text && text_size) {
        pthread_mutex_lock(&l->hub->lock);
        snprintf(text, text_size, "%s", l->listening ? "" : l->watch->text);
        pthread_mutex_unlock(&l->hub->lock);
    }
    return state;
}

unsigned link_connections(const struct link *l)
{
    return atomic_load(&l->watch->connections);
}

static int send_error(const struct link *l, const struct link_peer *to, struct error *err)
{
    switch (errno) {
    case EAGAIN:
        if (!l->listening && atomic_load(&l->watch->state) == LINK_REFUSED)
            return error_set(err, ERR_AUTH, "%s: the peer refuses the connection", l->endpoint);
        return error_set(err, ERR_BUSY, "%s: the peer does not keep up; its queue is full", l->endpoint);
    case EHOSTUNREACH:
        return error_set(err, ERR_LOST, "%s: the peer %.40s is not connected", l->endpoint, to ? to->public_key : "");
    default:
        return error_set(err, ERR_IO, "%s: cannot send: %s", l->endpoint, zmq_strerror(errno));
    }
}

int link_send(struct link *l, const struct link_peer *to, const struct frame_part *parts, size_t count,
              struct error *err)
{
    if (!count || count > LINK_PARTS_MAX || !to != !l->listening)
        return error_set(err, ERR_INTERNAL, "%s: a message of %zu parts %s a peer", l->endpoint, count,
                         to ? "to" : "without");
    size_t largest = largest_part(l->plane);
    for (size_t i = 0; i < count; i++)
        if (parts[i].size > largest)
            return error_set(err, ERR_BOUND, "%s: a part of %zu bytes; the limit is %zu", l->endpoint, parts[i].size,
                             largest);
    if (to && !hub_knows(l->hub, l->plane, to->public_key))
        return error_set(err, ERR_LOST, "%s: the key %.40s is no longer allowed", l->endpoint, to->public_key);
    reconnect_refused(l);
    l->may_have = true; /* ZeroMQ takes in what came while it sends, and the descriptor then tells of it no more */
    zmq_msg_t messages[LINK_PARTS_MAX];
    size_t made = 0, sent = 0;
    int rc = 0;
    for (; made < count; made++) { /* all of them first: a message once begun must be finished */
        if (zmq_msg_init_size(&messages[made], parts[made].size)) {
            rc = error_set(err, ERR_NOMEM, "%s: no memory for %zu bytes", l->endpoint, parts[made].size);
            goto done;
        }
        if (parts[made].size)
            memcpy(zmq_msg_data(&messages[made]), parts[made].data, parts[made].size);
    }
    if (to && zmq_send(l->socket, to->id, to->size, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
        rc = send_error(l, to, err);
        goto done;
    }
    for (; sent < count; sent++)
        if (zmq_msg_send(&messages[sent], l->socket, ZMQ_DONTWAIT | (sent + 1 < count ? ZMQ_SNDMORE : 0)) < 0) {
            rc = send_error(l, to, err);
            goto done;
        }
done:
    for (size_t i = sent; i < made; i++)
        zmq_msg_close(&messages[i]);
    return rc;
}

/* The parts of a received message: ZeroMQ's own bytes, or an aligned copy where those lie badly. */
struct held {
    size_t count;
    zmq_msg_t messages[LINK_PARTS_MAX];
    void *copies[LINK_PARTS_MAX];
};

static void held_free(struct held *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < h->count; i++) {
        zmq_msg_close(&h->messages[i]);
        mem_free(h->copies[i]);
    }
    mem_free(h);
}

void link_message_free(struct link_message *m)
{
    held_free(m->memory);
    m->memory = NULL;
    m->part_count = 0;
}

static int hold_part(struct held *h, zmq_msg_t *part, struct frame_part *out)
{
    size_t i = h->count, size = zmq_msg_size(part);
    void *data = zmq_msg_data(part), *copy = NULL;
    if ((uintptr_t)data % 16) {
        if (!(copy = mem_alloc(size)))
            return ERR_NOMEM;
        memcpy(copy, data, size);
    }
    zmq_msg_init(&h->messages[i]);
    zmq_msg_move(&h->messages[i], part);
    h->copies[i] = copy;
    h->count++;
    *out = (struct frame_part){copy ? copy : zmq_msg_data(&h->messages[i]), size};
    return 0;
}

/* Reads one whole multipart message; always to its end, so that the next one starts clean. 1, 0 or an error. */
static int receive_parts(struct link *l, struct held *h, struct link_message *m, struct error *err)
{
    size_t index = 0;
    int rc = h ? 0 : error_set(err, ERR_NOMEM, "%s: no memory for a message", l->endpoint), more = 1;
    while (more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, l->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            if (errno == EINTR && index)
                continue;
            l->may_have = errno != EAGAIN;
            return errno == EAGAIN || errno == EINTR
                       ? 0
                       : error_set(err, ERR_IO, "%s: cannot receive: %s", l->endpoint, zmq_strerror(errno));
        }
        more = zmq_msg_more(&part);
        if (l->listening && index == 0) {
            m->from.size = 0;
            if (zmq_msg_size(&part) <= sizeof m->from.id) {
                m->from.size = (uint8_t)zmq_msg_size(&part);
                memcpy(m->from.id, zmq_msg_data(&part), m->from.size);
            }
        } else if (!rc) {
            const char *key = l->listening ? zmq_msg_gets(&part, "User-Id") : l->server_key;
            snprintf(m->from.public_key, sizeof m->from.public_key, "%s", key ? key : "");
            if (h->count == LINK_PARTS_MAX)
                rc = error_set(err, ERR_BOUND, "%s: a message of more than %d parts from %s", l->endpoint,
                               LINK_PARTS_MAX, m->from.public_key);
            else if (hold_part(h, &part, &m->parts[h->count]))
                rc = error_set(err, ERR_NOMEM, "%s: no memory for a message", l->endpoint);
        }
        zmq_msg_close(&part);
        index++;
    }
    return rc ? rc : 1;
}

int link_receive(struct link *l, struct link_message *out, struct error *err)
{
    reconnect_refused(l);
    for (;;) {
        struct link_message m = {0};
        struct held *h = mem_zalloc(1, sizeof *h);
        int rc = receive_parts(l, h, &m, err);
        if (rc == 1 && l->listening && (!m.from.size || !hub_knows(l->hub, l->plane, m.from.public_key))) {
            hub_refuse(l->hub, m.from.public_key, "messages from %s: its key is no longer allowed",
                       m.from.public_key);
            held_free(h);
            continue;
        }
        if (rc == 1) {
            m.memory = h;
            m.part_count = h->count;
            *out = m;
            return 1;
        }
        held_free(h);
        if (rc == ERR_BOUND)
            hub_refuse(l->hub, m.from.public_key, "%s", err ? err->text : "a message of too many parts");
        return rc;
    }
}

bool link_peer_same(const struct link_peer *a, const struct link_peer *b)
{
    return a->size == b->size && !memcmp(a->id, b->id, b->size) && !strcmp(a->public_key, b->public_key);
}
