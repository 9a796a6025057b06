/* Bits a block and page, hashes a page. Owns them; pure. */
#include "execution/left_pages.h"

#include <string.h>

#include "base/memory.h"
#include "engine/kernels/ops.h"

struct left_pages {
    uint32_t first_block, last_block, pages; /* the stage's */
    bool *held;                              /* [its blocks][pages] */
    uint64_t (*hash)[KV_PAGE_TOKENS];        /* [pages] */
};

int left_pages_create(const struct held_pages *h, const struct sequence_table *t, uint32_t first_block,
                      uint32_t last_block, struct left_pages **out)
{
    struct left_pages *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->pages = held_pages_range(h, &l->first_block, &l->last_block);
    l->held = mem_zalloc((size_t)(l->last_block - l->first_block + 1) * l->pages, sizeof *l->held);
    l->hash = mem_zalloc(l->pages, sizeof *l->hash);
    if (!l->held || !l->hash) {
        left_pages_destroy(l);
        return ERR_NOMEM;
    }
    for (uint32_t p = 0; p < l->pages; p++) {
        uint32_t filled = 0;
        const uint64_t *hashes = sequence_page(t, p, &filled);
        if (!hashes || filled != KV_PAGE_TOKENS)
            continue;
        memcpy(l->hash[p], hashes, sizeof l->hash[p]);
        for (uint32_t b = l->first_block; b <= l->last_block; b++)
            l->held[(size_t)(b - l->first_block) * l->pages + p] =
                (b < first_block || b > last_block) && held_pages_has(h, b, p);
    }
    *out = l;
    return 0;
}

void left_pages_destroy(struct left_pages *l)
{
    if (!l)
        return;
    mem_free(l->held);
    mem_free(l->hash);
    mem_free(l);
}

const uint64_t *left_pages_find(const struct left_pages *l, uint32_t block, uint32_t page, uint64_t hash)
{
    if (!l || block < l->first_block || block > l->last_block || page >= l->pages ||
        !l->held[(size_t)(block - l->first_block) * l->pages + page] || l->hash[page][KV_PAGE_TOKENS - 1] != hash)
        return NULL;
    return l->hash[page];
}
