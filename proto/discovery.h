/* Workers tell the local network that they are there; a coordinator asks who is. IPv4 multicast, on every interface
 * that can; nothing of this is needed to run, and nothing that is heard is trusted. */
#ifndef BRIGADE_PROTO_DISCOVERY_H
#define BRIGADE_PROTO_DISCOVERY_H

#include "base/error.h"
#include "proto/dns_sd.h"

struct announcer;

/* Starts a thread that answers for a worker listening at `endpoint` ("tcp://0.0.0.0:7700"). ERR_UNSUPPORTED when that
 * can be reached from this machine only; ERR_IO, ERR_NOMEM. */
int announcer_start(const char *name, const char *endpoint, int port, const char *public_key, struct announcer **out,
                    struct error *err);
/* Says goodbye to the network and ends the thread. NULL is fine. */
void announcer_stop(struct announcer *a);

/* Asks and listens for timeout_ms; *count services, each once, are the caller's to free (mem_free). ERR_IO when no
 * interface can multicast, ERR_NOMEM. */
#define DISCOVERY_MAX 256
int discovery_ask(int timeout_ms, struct dns_sd_service **out, size_t *count, struct error *err);

#endif
