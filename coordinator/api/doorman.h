/* Takes connections in and looks at their first bytes before libmicrohttpd does, which closes without a word what begins
 * like no HTTP request (a TLS handshake, another protocol, noise): here that gets a 400, and then is closed.
 *
 * One thread of its own. What has sent nothing yet waits with it, for a bounded time; who may come in is handed over. */
#ifndef BRIGADE_COORDINATOR_API_DOORMAN_H
#define BRIGADE_COORDINATOR_API_DOORMAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct MHD_Daemon;
struct doorman;

struct doorman_options {
    int listener;              /* borrowed; does not block */
    struct MHD_Daemon *daemon; /* who gets those that may come in; borrowed */
    unsigned connections;      /* here and there together, at most; others wait in the listener's backlog */
    unsigned seconds;          /* in which the first bytes must have come */
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
