/* Bits a block and page. Owns them; pure. */
#include "execution/held_pages.h"

#include <string.h>

#include "base/memory.h"
#include "engine/kernels/ops.h"

struct held_pages {
    uint32_t blocks, pages, words; /* words a block */
    uint32_t first_block, last_block;
    uint64_t *bits;                /* [blocks][words] */
};

int held_pages_create(uint32_t blocks, uint32_t pages, struct held_pages **out, struct error *err)
{
    struct held_pages *h = mem_zalloc(1, sizeof *h);
    if (h) {
        h->blocks = blocks;
        h->pages = pages;
        h->words = (pages + 63) / 64;
        h->last_block = blocks - 1;
        h->bits = mem_zalloc((size_t)blocks * h->words, sizeof *h->bits);
    }
    if (!h || !h->bits) {
        held_pages_destroy(h);
        return error_set(err, ERR_NOMEM, "no memory to remember %u pages of %u blocks", pages, blocks);
    }
    *out = h;
    return 0;
}

void held_pages_destroy(struct held_pages *h)
{
    if (h)
        mem_free(h->bits);
    mem_free(h);
}

static uint64_t *row(const struct held_pages *h, uint32_t block)
{
    return h->bits + (size_t)block * h->words;
}

static void put(struct held_pages *h, uint32_t block, uint32_t page, bool held)
{
    uint64_t bit = UINT64_C(1) << page % 64, *word = &row(h, block)[page / 64];
    *word = held ? *word | bit : *word & ~bit;
}

void held_pages_stage(struct held_pages *h, uint32_t first_block, uint32_t last_block)
{
    h->first_block = first_block;
    h->last_block = last_block;
    for (uint32_t b = 0; b < h->blocks; b++)
        if (b < first_block || b > last_block)
            memset(row(h, b), 0, h->words * sizeof *h->bits);
}

void held_pages_clear(struct held_pages *h)
{
    memset(h->bits, 0, (size_t)h->blocks * h->words * sizeof *h->bits);
}

void held_pages_begin(struct held_pages *h, uint32_t page)
{
    held_pages_catch_up(h, page, h->first_block, h->last_block + 1);
}

void held_pages_catch_up(struct held_pages *h, uint32_t page, uint32_t first_block, uint32_t end_block)
{
    for (uint32_t b = first_block; b < end_block; b++)
        put(h, b, page, true);
}

void held_pages_forget(struct held_pages *h, uint32_t page)
{
    for (uint32_t b = h->first_block; b <= h->last_block; b++)
        put(h, b, page, false);
}

void held_pages_copy(struct held_pages *h, uint32_t from, uint32_t to)
{
    for (uint32_t b = h->first_block; b <= h->last_block; b++)
        put(h, b, to, held_pages_has(h, b, from));
}

uint32_t held_pages_range(const struct held_pages *h, uint32_t *first_block, uint32_t *last_block)
{
    *first_block = h->first_block;
    *last_block = h->last_block;
    return h->pages;
}

bool held_pages_has(const struct held_pages *h, uint32_t block, uint32_t page)
{
    return row(h, block)[page / 64] >> page % 64 & 1;
}

bool held_pages_all(const struct held_pages *h, uint32_t page)
{
    for (uint32_t b = h->first_block; b <= h->last_block; b++)
        if (!held_pages_has(h, b, page))
            return false;
    return true;
}

/* ---- The list ---------------------------------------------------------------------------------------------------- */

static uint32_t whole(const struct sequence_table *t, uint32_t page, uint64_t *hash)
{
    uint32_t filled = 0;
    const uint64_t *hashes = sequence_page(t, page, &filled);
    if (!hashes || filled != KV_PAGE_TOKENS)
        return 0;
    *hash = hashes[KV_PAGE_TOKENS - 1];
    return 1;
}

static bool any_block_has(const struct held_pages *h, uint32_t page)
{
    for (uint32_t b = h->first_block; b <= h->last_block; b++)
        if (held_pages_has(h, b, page))
            return true;
    return false;
}

bool held_pages_lacks(const struct held_pages *h, const struct sequence_table *t, uint32_t block, uint32_t page,
                      uint64_t hash)
{
    uint64_t ours;
    if (block < h->first_block || block > h->last_block || page >= h->pages || held_pages_has(h, block, page))
        return false;
    return !any_block_has(h, page) || (whole(t, page, &ours) && ours == hash);
}

bool held_pages_adopt(struct held_pages *h, struct sequence_table *t, uint32_t block, uint32_t page,
                      const uint64_t hashes[])
{
    if (!held_pages_lacks(h, t, block, page, hashes[KV_PAGE_TOKENS - 1]) || sequence_page_adopt(t, page, hashes))
        return false;
    put(h, block, page, true);
    return true;
}

static uint32_t count_block(const struct held_pages *h, const struct sequence_table *t, uint32_t block)
{
    uint32_t count = 0;
    uint64_t hash;
    for (uint32_t p = 0; p < h->pages; p++)
        count += held_pages_has(h, block, p) && whole(t, p, &hash);
    return count;
}

/* The last block that holds the same pages as this one and follows it without a gap. */
static uint32_t run_end(const struct held_pages *h, uint32_t block)
{
    while (block < h->last_block && !memcmp(row(h, block), row(h, block + 1), h->words * sizeof *h->bits))
        block++;
    return block;
}

int held_pages_list(const struct held_pages *h, const struct sequence_table *t, uint32_t most, struct control_held **out)
{
    uint32_t entries = 0, pages = 0;
    for (uint32_t b = h->first_block, end; b <= h->last_block; b = end + 1) {
        uint32_t count = count_block(h, t, b);
        end = run_end(h, b);
        if (count > most - pages || entries == FRAME_HELD_MAX)
            break; /* the rest is computed again */
        entries++;
        pages += count;
    }
    struct control_held *list = control_held_room(entries, pages);
    if (!list)
        return ERR_NOMEM;
    uint64_t *hashes = entries ? list[0].hashes : NULL;
    uint32_t *numbers = entries ? list[0].pages : NULL, at = 0, b = h->first_block;
    for (uint32_t i = 0; i < entries; i++, b = list[i - 1].last_block + 1) {
        list[i] = (struct control_held){
            .first_block = b, .last_block = run_end(h, b), .pages = numbers + at, .hashes = hashes + at};
        for (uint32_t p = 0; p < h->pages; p++)
            if (held_pages_has(h, b, p) && whole(t, p, &hashes[at]))
                numbers[at++] = p;
        list[i].page_count = (uint32_t)(numbers + at - list[i].pages);
    }
    *out = list;
    return (int)entries;
}
