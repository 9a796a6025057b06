/* Joining a cluster with a one-time token: this board makes its key if it has none, proves to the coordinator that it
 * holds the token, and remembers the coordinator in worker.yaml, so that a later start needs no more than --config. The
 * program's first thread, before it serves. */
#ifndef BRIGADE_WORKER_JOIN_H
#define BRIGADE_WORKER_JOIN_H

#include <signal.h>

#include "worker/options.h"

/* Fills in what joining needs and nobody said: where to listen, where the key and the settings lie. ERR_USAGE,
 * ERR_NOMEM. */
int worker_join_defaults(struct worker_options *o, struct error *err);
/* Returns when the board is entered, or with the reason why not; o->allow has the coordinator then. *stop non-zero ends
 * the wait with ERR_CANCELLED. */
int worker_join(struct worker_options *o, const volatile sig_atomic_t *stop, struct error *err);
/* The settings file of a board that has joined: a new one, or the coordinator added to the one there is. */
int worker_join_remember(const struct worker_options *o, const char *coordinator_key, struct error *err);

#endif
