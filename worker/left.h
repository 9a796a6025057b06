/* What left this worker: the KV pages of blocks that others have now, until they have fetched them. The compute thread puts
 * it here when a load moves blocks away, and takes it out again; the weights thread answers those who ask. They meet under
 * one lock. */
#ifndef BRIGADE_WORKER_LEFT_H
#define BRIGADE_WORKER_LEFT_H

#include "base/buffer.h"
#include "engine/model/leaving.h"
#include "execution/left_pages.h"
#include "proto/weights_frame.h"

struct left;

int left_create(struct left **out, struct error *err);
void left_destroy(struct left *l); /* NULL is fine */

/* A load (or unload) of this epoch has come here; what left before is given up unless it may still be wanted. */
void left_turn(struct left *l, uint64_t epoch, bool wanted);
/* These left with it. Takes over both. */
void left_add(struct left *l, uint64_t fingerprint, struct left_pages *pages, struct leaving *kv);
uint64_t left_bytes(struct left *l); /* of pages, that are here */
/* Nobody will ask any more. */
void left_forget(struct left *l);
/* Answers a WEIGHTS_PAGE_WANT; what reply->raw points to lies in *raw. */
void left_answer(struct left *l, const struct weights_frame *want, struct weights_frame *reply, struct buffer *raw);

#endif
