/* Notices clients that hang up while nothing is read from or written to their sockets. One thread of its own, one epoll
 * set; owns no socket.
 *
 * libmicrohttpd itself does not notice an end that comes together with the last bytes: it waits for an event that has
 * been. It is given one: the socket is shut for reading, again and again until the connection is over. */
#ifndef BRIGADE_COORDINATOR_API_HANGUP_H
#define BRIGADE_COORDINATOR_API_HANGUP_H

#include <stdint.h>

#include "base/error.h"

struct hangup_watch;

/* gone(context, number) runs on the watch's thread. */
int hangup_open(void (*gone)(void *context, uint64_t number), void *context, struct hangup_watch **out, struct error *err);
void hangup_close(struct hangup_watch *w); /* NULL is fine */
/* Watches a connected socket until hangup_forget. One that cannot be watched is noticed when written to. Any thread, as
 * for all that follow. */
void hangup_add(struct hangup_watch *w, int socket);
/* Whose reply the client waits for now, so that `gone` names it, also when the end has come before; 0: nobody's. */
void hangup_expect(struct hangup_watch *w, int socket, uint64_t number);
/* Before the socket is closed. A `gone` under way may still come: numbers are looked up, never pointers. */
void hangup_forget(struct hangup_watch *w, int socket);

#endif
