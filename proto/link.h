/* Links: encrypted sockets between nodes. The only door to ZeroMQ; everything is CURVE, there is no other mode.
 *
 * A `hub` owns the ZeroMQ context, this node's key and the ZAP thread that admits or refuses peers by public key, per
 * plane. A `link` is one socket: it belongs to the thread that opened it. Refusals are counted and logged once a peer
 * key (or address). Messages arrive with the authenticated public key of their sender. */
#ifndef BRIGADE_PROTO_LINK_H
#define BRIGADE_PROTO_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/frame.h"
#include "proto/keys.h"

struct hub;
struct link;

/* PLANE_JOIN is for boards that are not known yet: encrypted like the others, but any key may connect after
 * hub_admit_guests, and what it says is believed only with a proof (proto/join.h). Weights travel on a plane of their
 * own, so that megabytes of them delay neither heartbeats nor activations. PLANE_SELF is a node's own (rehearsal.h), like
 * PLANE_DATA in everything. */
enum link_plane { PLANE_CONTROL, PLANE_DATA, PLANE_JOIN, PLANE_WEIGHTS, PLANE_SELF, PLANE_COUNT };

/* Starts the context and the ZAP thread. `key` is borrowed and must outlive the hub. */
int hub_create(const struct node_key *key, struct hub **out, struct error *err);
/* All links must be closed first. */
void hub_destroy(struct hub *hub);
/* Replaces the set of public keys (Z85) that may connect to our listening sockets of a plane. Any thread. Peers already
 * connected with a key no longer in the set are cut off: their later messages are dropped by link_receive. */
int hub_allow(struct hub *hub, enum link_plane plane, const char *const *public_keys, size_t count, struct error *err);
/* Any key may use our listening sockets of PLANE_JOIN from now on. Any thread. */
void hub_admit_guests(struct hub *hub);
/* Peers refused since start (unknown key, no CURVE, malformed handshake where ZeroMQ tells). */
uint64_t hub_refused(const struct hub *hub);

/* A listening socket for many peers. endpoint "tcp://0.0.0.0:7700", "tcp://127.0.0.1:*". */
int link_listen(struct hub *hub, enum link_plane plane, const char *endpoint, struct link **out, struct error *err);
/* The port it got. */
int link_port(const struct link *l);
/* A connecting socket to one peer that must prove `server_key` (Z85). Returns at once; connects in the background and
 * reconnects by itself. */
int link_connect(struct hub *hub, enum link_plane plane, const char *endpoint, const char *server_key,
                 struct link **out, struct error *err);
/* Discards unsent messages after linger_ms. */
void link_close(struct link *l, int linger_ms);

/* A peer of a listening link, as messages name it; opaque bytes. */
struct link_peer {
    uint8_t size;
    uint8_t id[32];
    char public_key[KEY_TEXT]; /* authenticated; of the server for a connecting link */
};

/* The same node over the same connection. */
bool link_peer_same(const struct link_peer *a, const struct link_peer *b);

#define LINK_PARTS_MAX 4

/* Queues one multipart message without blocking. ERR_BUSY: the peer does not keep up (high-water mark); ERR_LOST: that
 * peer is not connected (listening links). `to` is NULL on connecting links. Bytes are copied. */
int link_send(struct link *l, const struct link_peer *to, const struct frame_part *parts, size_t count,
              struct error *err);

/* A received message: parts stay valid until link_message_free. Part data is at least 16-byte aligned. */
struct link_message {
    struct link_peer from;
    size_t part_count;
    struct frame_part parts[LINK_PARTS_MAX];
    void *memory; /* private */
};
/* 1 and a message, 0 when none waits, negative on error (too many or too large parts: dropped, counted, ERR_BOUND). */
int link_receive(struct link *l, struct link_message *out, struct error *err);
/* Whether link_receive is worth a call, which costs system calls: false once it or link_wait has found no message, until
 * link_wait finds one or something is sent. For loops that wait by link_wait. */
bool link_may_have(const struct link *l);
void link_message_free(struct link_message *m);

/* State of a connecting link, from socket monitoring: never connected yet, up, down (since), or refused by the peer's
 * key check; with a text for a person ("nobody answers there", "the peer does not allow this node's key"), empty while
 * there is nothing to say. Messages queued while the peer refuses us are lost; after LINK_UP say again what matters. */
enum link_state { LINK_CONNECTING, LINK_UP, LINK_DOWN, LINK_REFUSED };
enum link_state link_state(struct link *l, char *text, size_t text_size);

/* How many connections a connecting link has had. Read after a state of LINK_UP, it tells them apart: a peer that was away
 * and is there again since the last look may be another process, which knows nothing of what was said before. */
unsigned link_connections(const struct link *l);

/* Why nobody answers at an endpoint, for a message: one plain TCP connection is tried and dropped. Fills text with
 * "Connection refused", "No route to host", "no answer within 500 ms"... or "" when somebody listens.
 * Blocks up to timeout_ms (longer for a slow name server): for reports, not for loops. Any thread. */
void link_explain(const char *endpoint, int timeout_ms, char *text, size_t text_size);

/* Waits until one of the links has a message, `wake` was rung, or timeout_ms passed (-1: for ever). ready[i] is set
 * for links with messages. Returns the number of ready links, 0 on timeout or ring, negative on error. */
struct waker; /* rings another thread's wait; any thread may ring */
int waker_create(struct waker **out, struct error *err);
void waker_ring(struct waker *w);
void waker_destroy(struct waker *w);
int link_wait(struct link *const *links, size_t count, struct waker *waker, int timeout_ms, bool *ready);

#endif
