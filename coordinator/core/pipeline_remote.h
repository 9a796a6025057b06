/* Stages on workers: work goes to the first over one encrypted link, results come from the last over another (of one
 * stage: two links to the same worker). Between them the workers speak directly. */
#ifndef BRIGADE_COORDINATOR_CORE_PIPELINE_REMOTE_H
#define BRIGADE_COORDINATOR_CORE_PIPELINE_REMOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/pipeline.h"
#include "proto/rehearsal.h"

struct remote_options {
    struct hub *hub;          /* borrowed, as the next one */
    struct rehearsal *rehearsal; /* while stages compute and one of them waits; NULL: none */
    uint32_t stages;
    uint64_t epoch;           /* results of any other are dropped */
    const char *first_endpoint, *first_key, *last_endpoint, *last_key; /* data planes */
};

/* Connects in the background and says which role each link has; pipeline_poll drives it. */
int pipeline_remote_create(const struct remote_options *o, struct pipeline **out, struct error *err);

#define PIPELINE_REMOTE_LINKS (2 + REHEARSAL_LINKS)

/* For link_wait: adds the links it listens on, and returns how many; and after how many milliseconds it wants to wait anew
 * at the latest, -1: it does not mind. */
size_t pipeline_remote_links(struct pipeline *p, struct link **links);
int pipeline_remote_patience_ms(struct pipeline *p);
/* Whether the first (0) or last (1) stage has greeted us back. */
bool pipeline_remote_attached(const struct pipeline *p, int end);
/* After a failed poll: whose connection closed, the first stage's (0) or the last one's (1); -1: another reason. */
int pipeline_remote_lost(const struct pipeline *p);
/* Bytes sent and received so far. */
void pipeline_remote_traffic(const struct pipeline *p, uint64_t *sent, uint64_t *received);

#endif
