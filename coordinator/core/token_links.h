/* What half of a token's way costs: the coordinator's own links to the nodes' data planes, measured with echoes before
 * planning, as tokens will travel there, with the rehearsals of who waits for them. Runner's thread. */
#ifndef BRIGADE_COORDINATOR_CORE_TOKEN_LINKS_H
#define BRIGADE_COORDINATOR_CORE_TOKEN_LINKS_H

#include "coordinator/core/cluster.h"
#include "proto/rehearsal.h"

/* Fills rtt_seconds[] (one a node) where it is 0 and the node can be measured in the time there is; the others stay 0, and
 * their heartbeats must do. Takes at most half a second in all. */
void token_links_measure(struct hub *hub, struct rehearsal *rehearsal, const struct cluster *c, double *rtt_seconds);

#endif
