/* How a stage that loads takes weights off a shelf. Private to engine/model/. */
#ifndef BRIGADE_ENGINE_MODEL_SHELF_INTERNAL_H
#define BRIGADE_ENGINE_MODEL_SHELF_INTERNAL_H

#include "engine/model/kv_cache.h"
#include "engine/model/shelf.h"
#include "engine/model/weights.h"

/* False for a NULL shelf. shares_embedding: the head uses the embedding's matrix, which is there. */
bool shelf_has_block(const struct shelf *s, uint32_t block);
/* For kv_cache_create; NULL for a NULL shelf, or when the pages there are of another kind. */
struct kv_cache *shelf_kv(struct shelf *s, enum kv_type type, uint32_t pages);
struct kv_cache *shelf_kv_any(struct shelf *s); /* whatever kind they are; not NULL */
bool shelf_has_embedding(const struct shelf *s);
bool shelf_has_head(const struct shelf *s, bool shares_embedding);
/* What is there (see above) becomes the caller's. tied: the matrix a head shares, else NULL. */
void shelf_take_block(struct shelf *s, uint32_t block, struct block_weights *out);
void shelf_take_embedding(struct shelf *s, struct embedding_weights *out);
void shelf_take_head(struct shelf *s, const struct matrix *tied, struct head_weights *out);

#endif
