/* A store of pages of rows in the order of writing. Owns the rows; pure. */
#include "execution/kept_rows.h"

#include <string.h>

#include "base/memory.h"
#include "engine/kernels/ops.h"

/* Boundaries at a time: the stage's own, and those it had before its blocks moved. */
enum { LANES = 3 };

struct kept_page {
    struct kept_page *newer, *older;
    uint32_t lane, page, filled;
    bool promised;
    uint64_t hash[KV_PAGE_TOKENS]; /* running, after each row */
    char rows[];
};

struct lane {
    uint32_t boundary;
    uint64_t used;           /* when rows were last put; 0: free */
    struct kept_page **page; /* [pages] */
};

struct kept_rows {
    uint32_t pages;
    size_t row_bytes, page_bytes;
    uint64_t limit, taken, clock;
    uint64_t promised;       /* bytes */
    struct kept_page *newest, *oldest;
    struct lane lanes[LANES];
};

int kept_rows_create(uint32_t pages, size_t row_bytes, struct kept_rows **out, struct error *err)
{
    struct kept_rows *k = mem_zalloc(1, sizeof *k);
    for (int i = 0; k && i < LANES; i++)
        if (!(k->lanes[i].page = mem_zalloc(pages, sizeof *k->lanes[i].page))) {
            kept_rows_destroy(k);
            k = NULL;
        }
    if (!k)
        return error_set(err, ERR_NOMEM, "no memory for a table of %u pages of rows", pages);
    k->pages = pages;
    k->row_bytes = row_bytes;
    k->page_bytes = sizeof(struct kept_page) + KV_PAGE_TOKENS * row_bytes;
    *out = k;
    return 0;
}

static void give_up(struct kept_rows *k, struct kept_page *p)
{
    *(p->newer ? &p->newer->older : &k->newest) = p->older;
    *(p->older ? &p->older->newer : &k->oldest) = p->newer;
    k->lanes[p->lane].page[p->page] = NULL;
    k->taken -= k->page_bytes;
    k->promised -= p->promised ? k->page_bytes : 0;
    mem_free(p);
}

void kept_rows_destroy(struct kept_rows *k)
{
    if (!k)
        return;
    while (k->oldest)
        give_up(k, k->oldest);
    for (int i = 0; i < LANES; i++)
        mem_free(k->lanes[i].page);
    mem_free(k);
}

/* Down to so many bytes, which are no fewer than those promised. */
static void shrink(struct kept_rows *k, uint64_t bytes)
{
    for (struct kept_page *p = k->oldest, *newer; k->taken > bytes && p; p = newer) {
        newer = p->newer;
        if (!p->promised)
            give_up(k, p);
    }
}

void kept_rows_free(struct kept_rows *k)
{
    for (struct kept_page *p = k->oldest; p && k->promised; p = p->newer)
        p->promised = false;
    k->promised = 0;
}

uint64_t kept_rows_bytes(const struct kept_rows *k)
{
    return k->taken;
}

size_t kept_rows_row_bytes(const struct kept_rows *k)
{
    return k->row_bytes;
}

/* ---- Keeping ----------------------------------------------------------------------------------------------------- */

/* The boundary's lane: its own, a free one, or the one that was used longest ago. */
static uint32_t lane_of(struct kept_rows *k, uint32_t boundary)
{
    uint32_t best = 0, own = LANES;
    for (uint32_t i = 0; i < LANES; i++) {
        if (k->lanes[i].used && k->lanes[i].boundary == boundary)
            own = i;
        if (k->lanes[i].used < k->lanes[best].used)
            best = i;
    }
    for (uint32_t p = 0; own == LANES && k->lanes[best].used && p < k->pages; p++)
        if (k->lanes[best].page[p])
            give_up(k, k->lanes[best].page[p]);
    best = own < LANES ? own : best;
    k->lanes[best].boundary = boundary;
    k->lanes[best].used = ++k->clock;
    return best;
}

void kept_rows_begin(struct kept_rows *k, uint32_t boundary, uint64_t bytes)
{
    kept_rows_free(k);
    k->limit = bytes;
    shrink(k, bytes);
    if (boundary) /* now, for it may cost another one its lane */
        lane_of(k, boundary);
    for (struct kept_page *p = k->oldest; p; p = p->newer)
        p->promised = true;
    k->promised = k->taken;
}

static void make_newest(struct kept_rows *k, struct kept_page *p)
{
    if (k->newest == p)
        return;
    if (p->newer || p->older || k->oldest == p) {
        *(p->newer ? &p->newer->older : &k->newest) = p->older;
        *(p->older ? &p->older->newer : &k->oldest) = p->newer;
    }
    p->newer = NULL;
    p->older = k->newest;
    *(k->newest ? &k->newest->newer : &k->oldest) = p;
    k->newest = p;
}

static struct kept_page *take(struct kept_rows *k, uint32_t lane, uint32_t page)
{
    if (k->promised + k->page_bytes > k->limit)
        return NULL;
    shrink(k, k->limit - k->page_bytes);
    struct kept_page *p = mem_alloc(k->page_bytes);
    if (!p)
        return NULL; /* then it is computed again one day */
    *p = (struct kept_page){.lane = lane, .page = page};
    k->taken += k->page_bytes;
    k->lanes[lane].page[page] = p;
    return p;
}

void kept_rows_put(struct kept_rows *k, uint32_t boundary, uint32_t page, uint32_t slot, uint32_t count,
                   const uint64_t *hashes, const void *rows)
{
    if (page >= k->pages || slot + count > KV_PAGE_TOKENS)
        return;
    uint32_t lane = lane_of(k, boundary);
    struct kept_page *p = k->lanes[lane].page[page];
    bool follows = !slot || (p && p->filled >= slot && p->hash[slot - 1] == hashes[slot - 1]);
    if (!follows) {
        if (p)
            give_up(k, p);
        return;
    }
    if (!p && !(p = take(k, lane, page)))
        return;
    bool same = p->filled == KV_PAGE_TOKENS && !memcmp(p->hash + slot, hashes + slot, count * sizeof *hashes);
    if (p->promised && same)
        return; /* rows that are sent again, or computed once more: they are here */
    k->promised -= p->promised ? k->page_bytes : 0;
    p->promised = false;
    make_newest(k, p);
    memcpy(p->hash + slot, hashes + slot, count * sizeof *hashes);
    memcpy(p->rows + slot * k->row_bytes, rows, count * k->row_bytes);
    p->filled = slot + count;
}

const void *kept_rows_get(const struct kept_rows *k, uint32_t boundary, uint32_t page, uint64_t hash)
{
    for (uint32_t i = 0; k && page < k->pages && i < LANES; i++) {
        const struct kept_page *p = k->lanes[i].page[page];
        if (k->lanes[i].used && k->lanes[i].boundary == boundary)
            return p && p->filled == KV_PAGE_TOKENS && p->hash[KV_PAGE_TOKENS - 1] == hash ? p->rows : NULL;
    }
    return NULL;
}

/* ---- The list ---------------------------------------------------------------------------------------------------- */

static uint32_t count_lane(const struct kept_rows *k, uint32_t lane)
{
    uint32_t count = 0;
    for (uint32_t p = 0; p < k->pages; p++)
        count += k->lanes[lane].page[p] && k->lanes[lane].page[p]->filled == KV_PAGE_TOKENS;
    return count;
}

int kept_rows_list(const struct kept_rows *k, uint32_t most, struct control_held **out)
{
    uint32_t pages = 0;
    for (uint32_t i = 0; i < LANES; i++)
        pages += count_lane(k, i);
    pages = pages < most ? pages : most;
    struct control_held *list = control_held_room(LANES, pages);
    if (!list)
        return ERR_NOMEM;
    uint64_t *hashes = list[0].hashes;
    uint32_t *numbers = list[0].pages, at = 0;
    for (uint32_t i = 0; i < LANES; i++) {
        uint32_t boundary = k->lanes[i].boundary;
        list[i] = (struct control_held){
            .first_block = boundary, .last_block = boundary, .pages = numbers + at, .hashes = hashes + at};
        for (uint32_t p = 0; p < k->pages && at < pages; p++) {
            const struct kept_page *kept = k->lanes[i].page[p];
            if (!kept || kept->filled != KV_PAGE_TOKENS)
                continue;
            hashes[at] = kept->hash[KV_PAGE_TOKENS - 1];
            numbers[at++] = p;
        }
        list[i].page_count = (uint32_t)(numbers + at - list[i].pages);
    }
    *out = list;
    return LANES;
}
