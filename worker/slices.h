/* Weights of a model that lies in no model folder: the slice that a stage needs is received from the coordinator and from
 * other workers, kept in the cache folder, and proven before it is used. KV pages of blocks that went to other workers are
 * handed to them here too (left.h).
 *
 * A thread of its own owns the weights plane's sockets and the store: it answers others' questions while the compute
 * thread computes, and receives while the compute thread loads what is already there. The compute thread asks through the
 * functions below; they meet under one lock. docs/weights.md tells the story. */
#ifndef BRIGADE_WORKER_SLICES_H
#define BRIGADE_WORKER_SLICES_H

#include "engine/model/shelf.h"
#include "worker/worker.h"

struct slices;

/* Starts the thread; it owns w->weights from now on. Without a cache folder it only serves. */
int slices_start(struct worker *w, struct slices **out, struct error *err);
void slices_stop(struct slices *s); /* NULL is fine */

/* Called every 100 ms while one of the functions below waits; non-zero gives up with ERR_CANCELLED. */
typedef int (*slices_tick)(void *context, uint64_t done_bytes, uint64_t total_bytes);

/* Opens a model that this coordinator offers: its header is real, its tensors are holes until slices_want and
 * slices_await. ERR_NOTFOUND: it offers none, or there is no cache folder. *out is the caller's: model_close; it stays
 * readable whatever is opened after it. */
int slices_open(struct slices *s, const char *coordinator_key, uint64_t fingerprint, slices_tick tick, void *context,
                struct model **out, struct error *err);
/* Whether this model came from slices_open, the last time that it was called. */
bool slices_is(struct slices *s, const struct model *m);
/* Begins to receive (or prove) what a stage of blocks first to last of that model needs beside what is on the shelf (may
 * be NULL). m may be another object of the same file. */
int slices_want(struct slices *s, const struct model *m, const struct shelf *have, uint32_t first, uint32_t last,
                struct error *err);
/* Waits until this tensor's bytes are there and proven. */
int slices_await(struct slices *s, const struct gguf_tensor *t, slices_tick tick, void *context, struct error *err);
/* What was wanted is not any more. */
void slices_cancel(struct slices *s);

#endif
