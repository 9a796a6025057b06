/* Allocation of KV pages. Owns them; the kernels know their layout. The stage's thread. */
#include "engine/model/kv_cache.h"

#include <string.h>

#include "base/memory.h"

uint64_t kv_cache_bytes(const struct model_shape *s, uint32_t first_block, uint32_t last_block, enum kv_type type,
                        uint32_t pages)
{
    uint64_t sum = 0;
    for (uint32_t b = first_block; b <= last_block; b++) {
        struct kv_shape shape = shape_kv(s, b, type);
        sum += (uint64_t)pages * kv_page_bytes(&shape);
    }
    return sum;
}

int kv_cache_create(const struct model_shape *s, uint32_t first_block, uint32_t last_block, enum kv_type type,
                    uint32_t pages, struct kv_cache *have, struct kv_cache *out, struct error *err)
{
    struct kv_cache c = {
        .first_block = first_block, .blocks = last_block - first_block + 1, .pages = pages, .type = type};
    c.run = mem_zalloc(c.blocks, sizeof *c.run);
    if (!c.run)
        return error_set(err, ERR_NOMEM, "no memory for the table of %u blocks' caches", c.blocks);
    for (uint32_t i = 0; i < c.blocks; i++) {
        struct kv_run *r = &c.run[i];
        size_t bytes;
        if (have && have->run && have->run[first_block + i].base) {
            *r = have->run[first_block + i];
            have->run[first_block + i].base = NULL;
            continue;
        }
        r->shape = shape_kv(s, first_block + i, type);
        r->page_bytes = kv_page_bytes(&r->shape);
        if (__builtin_mul_overflow((size_t)pages, r->page_bytes, &bytes) || !(r->base = mem_map(bytes))) {
            kv_cache_free(&c);
            return error_set(err, ERR_NOMEM, "no memory for %u KV pages of block %u; ask for fewer --kv-tokens", pages,
                             first_block + i);
        }
    }
    *out = c;
    return 0;
}

void kv_cache_drop(struct kv_cache *c, uint32_t block)
{
    struct kv_run *r = &c->run[block - c->first_block];
    mem_unmap(r->base, (size_t)c->pages * r->page_bytes);
    r->base = NULL;
}

void kv_cache_free(struct kv_cache *c)
{
    for (uint32_t i = 0; c->run && i < c->blocks; i++)
        kv_cache_drop(c, c->first_block + i);
    mem_free(c->run);
    *c = (struct kv_cache){0};
}

void kv_cache_copy(struct kv_cache *c, uint32_t src, uint32_t dst, uint32_t count)
{
    /* A page is copied whole: positions from `count` on are written before they are read. */
    if (src == dst || count == 0)
        return;
    for (uint32_t i = 0; i < c->blocks; i++) {
        const struct kv_run *r = &c->run[i];
        memcpy(r->base + dst * r->page_bytes, r->base + src * r->page_bytes, r->page_bytes);
    }
}
