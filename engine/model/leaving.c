/* A cache whose runs came off a shelf. One owner at a time. */
#include "engine/model/leaving.h"

#include "base/memory.h"
#include "engine/model/shelf_internal.h"

struct leaving {
    struct kv_cache kv; /* of the whole model: runs without a base are not here */
};

int shelf_take_leaving(struct shelf *s, uint32_t first_block, uint32_t last_block, uint64_t most_bytes,
                       struct leaving **out, struct error *err)
{
    struct kv_cache *have = shelf_kv_any(s);
    struct leaving *l = mem_zalloc(1, sizeof *l);
    if (l)
        l->kv = (struct kv_cache){.blocks = have->blocks, .pages = have->pages, .type = have->type,
                                  .run = mem_zalloc(have->blocks, sizeof *l->kv.run)};
    if (!l || !l->kv.run) {
        mem_free(l);
        return error_set(err, ERR_NOMEM, "no memory for the table of %u blocks' caches", have->blocks);
    }
    for (uint32_t b = 0; b < have->blocks; b++) {
        uint64_t bytes = have->run[b].base ? (uint64_t)have->pages * have->run[b].page_bytes : 0;
        if (!bytes || (b >= first_block && b <= last_block) || bytes > most_bytes)
            continue;
        most_bytes -= bytes;
        l->kv.run[b] = have->run[b];
        have->run[b].base = NULL;
    }
    *out = l;
    return 0;
}

void leaving_destroy(struct leaving *l)
{
    if (l)
        kv_cache_free(&l->kv);
    mem_free(l);
}

enum kv_type leaving_type(const struct leaving *l)
{
    return l->kv.type;
}

uint64_t leaving_bytes(const struct leaving *l)
{
    uint64_t sum = 0;
    for (uint32_t b = 0; b < l->kv.blocks; b++)
        sum += l->kv.run[b].base ? (uint64_t)l->kv.pages * l->kv.run[b].page_bytes : 0;
    return sum;
}

const void *leaving_page(const struct leaving *l, uint32_t block, uint32_t page, size_t *bytes)
{
    if (block >= l->kv.blocks || page >= l->kv.pages || !l->kv.run[block].base)
        return NULL;
    const struct kv_run *r = &l->kv.run[block];
    *bytes = r->page_bytes;
    return r->base + page * r->page_bytes;
}
