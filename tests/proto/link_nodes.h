/* Nodes that talk over real links on loopback, for tests of links: each has a key and a hub. */
#ifndef BRIGADE_TESTS_PROTO_LINK_NODES_H
#define BRIGADE_TESTS_PROTO_LINK_NODES_H

#include "base/clock.h"
#include "proto/link.h"
#include "tests/check.h"

struct node {
    struct node_key *key;
    struct hub *hub;
};

static inline bool node_open(struct node *n)
{
    struct error err = {0};
    *n = (struct node){0};
    if (key_generate(&n->key, &err) || hub_create(n->key, &n->hub, &err)) {
        CHECK_FAIL("%s", err.text);
        return false;
    }
    return true;
}

static inline void node_close(struct node *n)
{
    hub_destroy(n->hub);
    key_free(n->key);
}

static inline const char *public_of(const struct node *n)
{
    return key_public_text(n->key);
}

static inline void allow(struct node *n, enum link_plane plane, const struct node *peer)
{
    const char *keys[1] = {peer ? public_of(peer) : NULL};
    CHECK_INT(hub_allow(n->hub, plane, keys, peer != NULL, NULL), 0);
}

static inline struct link *serve(struct node *n, enum link_plane plane)
{
    struct link *l = NULL;
    struct error err = {0};
    if (link_listen(n->hub, plane, "tcp://127.0.0.1:*", &l, &err))
        CHECK_FAIL("%s", err.text);
    return l;
}

static inline struct link *dial(struct node *n, enum link_plane plane, int port, const char *server_key)
{
    char endpoint[64];
    struct link *l = NULL;
    struct error err = {0};
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", port);
    if (link_connect(n->hub, plane, endpoint, server_key, &l, &err))
        CHECK_FAIL("%s", err.text);
    return l;
}

/* Waits up to ms for one message on l while also looking after `other` (may be NULL). */
static inline bool receive(struct link *l, struct link *other, int ms, struct link_message *m)
{
    int64_t end = clock_ms() + check_limit_ms(ms);
    struct link *links[2] = {l, other};
    bool ready[2];
    struct error err = {0};
    do {
        if (link_receive(l, m, &err) == 1)
            return true;
        link_wait(links, other ? 2 : 1, NULL, 20, ready);
    } while (clock_ms() < end);
    return false;
}

static inline bool wait_state(struct link *l, struct link *other, enum link_state want, int ms)
{
    int64_t end = clock_ms() + check_limit_ms(ms);
    struct link *links[2] = {l, other};
    bool ready[2];
    char text[256];
    while (link_state(l, text, sizeof text) != want) {
        if (clock_ms() > end) {
            CHECK_FAIL("state is %d (%s), not %d", (int)link_state(l, NULL, 0), text, (int)want);
            return false;
        }
        link_wait(links, other ? 2 : 1, NULL, 10, ready);
    }
    return true;
}

static inline int say(struct link *l, const struct link_peer *to, const char *text)
{
    return link_send(l, to, &(struct frame_part){text, strlen(text)}, 1, NULL);
}

static inline bool says(const struct link_message *m, const char *text)
{
    return m->part_count == 1 && m->parts[0].size == strlen(text) && !memcmp(m->parts[0].data, text, strlen(text));
}

/* Two nodes and a link from b to a. */
static inline bool pair_open(struct node *a, struct node *b, enum link_plane plane, struct link **server,
                             struct link **client)
{
    if (!node_open(a) || !node_open(b) || !(*server = serve(a, plane)))
        return false;
    allow(a, plane, b);
    return (*client = dial(b, plane, link_port(*server), public_of(a)));
}

static inline void pair_close(struct node *a, struct node *b, struct link *server, struct link *client)
{
    link_close(client, 0);
    link_close(server, 0);
    node_close(a);
    node_close(b);
}

#endif
