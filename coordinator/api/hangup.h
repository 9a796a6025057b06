/* Notices clients that hang up while nothing is read from or written to their sockets. One thread of its own, one epoll
 * set; owns no socket. */
#ifndef BRIGADE_COORDINATOR_API_HANGUP_H
#define BRIGADE_COORDINATOR_API_HANGUP_H

#include <stdint.h>

#include "base/error.h"

struct hangup_watch;

/* gone(context, number) runs on the watch's thread. */
int hangup_open(void (*gone)(void *context, uint64_t number), void *context, struct hangup_watch **out, struct error *err);
void hangup_close(struct hangup_watch *w); /* NULL is fine */
/* Watches a connected socket until hangup_forget or its end. At most one number a socket; any thread. */
int hangup_add(struct hangup_watch *w, int socket, uint64_t number);
/* Call before the socket is closed. A `gone` under way may still come: numbers are looked up, never pointers. */
void hangup_forget(struct hangup_watch *w, int socket);

#endif
