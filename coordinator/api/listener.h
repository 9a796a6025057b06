/* The socket that a server listens on. */
#ifndef BRIGADE_COORDINATOR_API_LISTENER_H
#define BRIGADE_COORDINATOR_API_LISTENER_H

#include <stdint.h>

#include "base/error.h"

/* Listens on a name or address, on the first of its addresses that can be had. Port 0: the system chooses; *bound is the
 * one in use. *out is the caller's: close. One line says what is in the way. */
int listener_open(const char *host, uint16_t port, int *out, uint16_t *bound, struct error *err);

#endif
