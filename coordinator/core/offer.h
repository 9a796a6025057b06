/* Offering the coordinator's model file to workers that lack it: a thread connects to each worker's weights plane, says
 * what it has and who else may have parts, and answers what is asked. The list of hashes is made when the first worker
 * asks for it (or recalled from beside the file). */
#ifndef BRIGADE_COORDINATOR_CORE_OFFER_H
#define BRIGADE_COORDINATOR_CORE_OFFER_H

#include "engine/model/model.h"
#include "proto/link.h"

struct offer;

/* hub and model are borrowed and must outlive it. *out is the caller's: offer_stop. */
int offer_start(struct hub *hub, const struct model *model, struct offer **out, struct error *err);
void offer_stop(struct offer *o); /* NULL is fine */
/* A worker that takes part; again and again is fine. endpoint: of its weights plane. Any thread. */
int offer_node(struct offer *o, const char *endpoint, const char *public_key, struct error *err);
/* A worker that was revoked: its connection is closed, and the others no longer hear of it. Any thread. */
void offer_forget(struct offer *o, const char *public_key);
/* Bytes of the model sent so far. Any thread. */
uint64_t offer_sent_bytes(const struct offer *o);

#endif
