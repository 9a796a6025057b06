/* Gathers the facts about all nodes of a cluster, at the same time: name, TCP, encrypted handshake, who it is, how it
 * is. Claims nothing and changes nothing: safe while another coordinator runs. One thread. */
#ifndef BRIGADE_COORDINATOR_CORE_EXAMINE_H
#define BRIGADE_COORDINATOR_CORE_EXAMINE_H

#include <signal.h>

#include "coordinator/core/diagnosis.h"

/* facts[config->node_count] are filled in; their `node` points into config. Takes at most about timeout_ms. ERR_AUTH
 * and others when the coordinator itself cannot start (its key); ERR_CANCELLED when *stop is set. */
int examine(const struct config *config, int timeout_ms, const volatile sig_atomic_t *stop, struct node_facts *facts,
            struct error *err);

#endif
