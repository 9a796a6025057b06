/* The KV pages of a stage: one run of pages for each of its blocks; page p of every block belongs to the same positions
 * of the same sequence. Private to engine/model/. The stage's thread. */
#ifndef BRIGADE_ENGINE_MODEL_KV_CACHE_H
#define BRIGADE_ENGINE_MODEL_KV_CACHE_H

#include "engine/model/shape.h"

struct kv_cache {
    uint32_t first_block, blocks, pages;
    enum kv_type type;
    struct kv_run {
        struct kv_shape shape;
        size_t page_bytes;
        char *base;         /* pages · page_bytes */
    } *run;                 /* one a block of the stage */
};

uint64_t kv_cache_bytes(const struct model_shape *s, uint32_t first_block, uint32_t last_block, enum kv_type type,
                        uint32_t pages);
/* have (may be NULL): runs of an earlier stage with this type and number of pages, numbered from block 0; those of our
 * blocks are taken from there, contents and all. */
int kv_cache_create(const struct model_shape *s, uint32_t first_block, uint32_t last_block, enum kv_type type,
                    uint32_t pages, struct kv_cache *have, struct kv_cache *out, struct error *err);
void kv_cache_free(struct kv_cache *c);
/* The run of a block (numbered in the model). */
static inline const struct kv_run *kv_cache_run(const struct kv_cache *c, uint32_t block)
{
    return &c->run[block - c->first_block];
}
/* Frees one block's run, if there is one. */
void kv_cache_drop(struct kv_cache *c, uint32_t block);
/* Copies positions [0, count) of page src to page dst in every block. */
void kv_cache_copy(struct kv_cache *c, uint32_t src, uint32_t dst, uint32_t count);

#endif
