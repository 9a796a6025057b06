/* Takes connections in and looks at their first bytes before libmicrohttpd does, which closes without a word what begins
 * like no HTTP request (a TLS handshake, another protocol, noise): here that is answered, and then closed.
 *
 * One thread of its own. What has sent nothing yet waits with it, for a bounded time; who may come in is handed over. */
#ifndef BRIGADE_COORDINATOR_API_DOORMAN_H
#define BRIGADE_COORDINATOR_API_DOORMAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct doorman;

struct doorman_options {
    int listener;     /* borrowed; does not block */
    unsigned guests;  /* connections that wait here at most */
    unsigned seconds; /* in which the first bytes must have come */
    const char *refusal; /* a whole HTTP reply; borrowed */
    /* On its thread: takes a connection whose first line begins like a request's. */
    void (*welcome)(void *context, int socket);
    /* Whether there is room for so many more; where there is none, they wait in the listener's backlog. */
    bool (*has_room)(void *context, unsigned more);
    void *context;
};

int doorman_open(const struct doorman_options *options, struct doorman **out, struct error *err);
/* No new connections; those that wait may still come in. */
void doorman_stop(struct doorman *d);
/* Ends the thread and whatever waits. NULL is fine. */
void doorman_close(struct doorman *d);

enum doorman_verdict { DOORMAN_WELCOME, DOORMAN_REFUSE, DOORMAN_WAIT /* for more bytes */ };
/* What the first bytes of a connection are. Pure. */
enum doorman_verdict doorman_judge(const char *bytes, size_t n);

#endif
