/* KV pages of blocks that have left a stage, as they were: others take them over before they are given up. Owns them; a
 * page that lies here is never written. Borrows nothing. */
#ifndef BRIGADE_ENGINE_MODEL_LEAVING_H
#define BRIGADE_ENGINE_MODEL_LEAVING_H

#include "engine/model/shelf.h"

struct leaving;

/* Takes off the shelf the pages of all its blocks but first to last (first > last: of all), `most_bytes` at most: of
 * blocks beyond that nothing is taken. *out is the caller's: leaving_destroy. */
int shelf_take_leaving(struct shelf *s, uint32_t first_block, uint32_t last_block, uint64_t most_bytes,
                       struct leaving **out, struct error *err);
void leaving_destroy(struct leaving *l); /* NULL is fine */
enum kv_type leaving_type(const struct leaving *l);
uint64_t leaving_bytes(const struct leaving *l);
/* One block's page, in the kernels' layout, which type and shape alone decide; NULL when it is not here. */
const void *leaving_page(const struct leaving *l, uint32_t block, uint32_t page, size_t *bytes);

#endif
