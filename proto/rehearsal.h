/* Rehearsals of a hop. While a node waits for its turn, weights have pushed out of its caches what a frame passes through
 * (ZeroMQ, CURVE, the kernel's sockets, the coders), and the threads on the way sleep deeply; a frame that then comes takes
 * three times as long as one that follows another. So who waits throws itself a frame shortly before the next one
 * should come, over a connection like those to its neighbours: TCP, encrypted, on the data plane's thread, from one end to
 * the other, next time back. Nobody else takes part, and nothing waits for it. docs/speed.md has the figures.
 *
 * One thread, the one that owns the data links. Times are of clock_us; a NULL rehearsal does nothing. */
#ifndef BRIGADE_PROTO_REHEARSAL_H
#define BRIGADE_PROTO_REHEARSAL_H

#include <stdint.h>

#include "base/error.h"
#include "proto/link.h"

#define REHEARSAL_LINKS 2

struct rehearsal;

/* Listens on a port of the loopback address that only this node's own key may use. */
int rehearsal_create(struct hub *hub, struct rehearsal **out, struct error *err);
void rehearsal_destroy(struct rehearsal *r);
/* From now on this node waits for a frame; and the frame has come. How long that took says when to rehearse next time. */
void rehearsal_waits(struct rehearsal *r, int64_t now_us);
void rehearsal_came(struct rehearsal *r, int64_t now_us);
/* It waits for none. */
void rehearsal_rest(struct rehearsal *r);
/* Takes what has arrived, and throws when it is time. Returns the milliseconds after which it wants to be called again, at
 * the latest; -1: not before the next work. */
int rehearsal_look(struct rehearsal *r, int64_t now_us);
/* How long a node's threads have slept when the frame comes that it waited for so long. */
int64_t rehearsal_slept_us(int64_t waited_us);
/* Sleeps for so long, with the rehearsals of a node that waits; for measuring what such a node does next. */
void rehearsal_pause(struct rehearsal *r, int64_t us);
/* Adds the links to wait for (link_wait) and returns how many: REHEARSAL_LINKS, or 0. */
size_t rehearsal_links(const struct rehearsal *r, struct link **links);
/* Frames that arrived. */
uint64_t rehearsal_count(const struct rehearsal *r);

#endif
