/* Weights in hand, and caches: what a stage that ends leaves for the next one of the same model, so that moving a stage's
 * bounds, or stopping in the middle of loading, reads again only what is missing, and sequences keep what was computed in
 * the blocks that stay. Owns what lies on it; borrows the model, which
 * must be the very object of the stages it serves. One owner thread. */
#ifndef BRIGADE_ENGINE_MODEL_SHELF_H
#define BRIGADE_ENGINE_MODEL_SHELF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/model/stage.h"

struct shelf;

/* Empty. *out is the caller's: shelf_destroy. */
int shelf_create(const struct model *m, struct shelf **out, struct error *err);
void shelf_destroy(struct shelf *s); /* NULL is fine; with all that lies on it */
/* Takes every weight a stage has read, and its blocks' KV pages, and ends the stage. */
void shelf_put(struct shelf *s, struct stage *stage);
/* Frees what a stage of this range does not need. */
void shelf_keep_only(struct shelf *s, uint32_t first_block, uint32_t last_block);
/* KV pages lie here only of one type and number: frees them if they are not these. */
void shelf_keep_kv(struct shelf *s, enum kv_type type, uint32_t pages);
uint32_t shelf_blocks(const struct shelf *s); /* on it now */

/* The tensors that a stage of blocks first to last reads, those of blocks on the shelf (may be NULL) left out, in the
 * order in which it does: calls visit for each (one that serves as embedding and head comes twice), stops at and returns
 * the first non-zero result. */
int model_slice(const struct model *m, const struct shelf *have, uint32_t first, uint32_t last,
                int (*visit)(void *context, const struct gguf_tensor *t), void *context);

#endif
