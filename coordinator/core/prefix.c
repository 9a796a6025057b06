/* The page pool with a memory. Owns the pool and, for each kept page, its tokens, its place in the chain of its hash
 * and in the order of use. Pure; one owner thread. */
#include "coordinator/core/prefix.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/pages.h"

#define NONE UINT32_MAX

struct kept {
    bool kept;
    uint8_t mark;        /* 0: nothing is missing */
    uint32_t generation; /* counts what the page has stood for */
    uint32_t parent;     /* the page before it in its prefix, when that was of parent_generation; NONE: the first */
    uint32_t parent_generation;
    uint64_t hash;         /* of parent's hash and its own tokens */
    uint32_t next_same;    /* in the bucket of its hash */
    uint32_t newer, older; /* in the order of use */
};

struct prefix_cache {
    struct page_pool *pool;
    uint32_t page_tokens, idle, buckets;
    uint32_t newest, oldest;
    uint32_t *bucket;  /* [buckets] first page of each */
    struct kept *kept; /* [pages] */
    int32_t *tokens;   /* [pages][page_tokens] */
};

int prefix_create(uint32_t pages, uint32_t page_tokens, struct prefix_cache **out, struct error *err)
{
    struct prefix_cache *c = mem_zalloc(1, sizeof *c);
    if (!c)
        return error_set(err, ERR_NOMEM, "out of memory for the page table");
    c->page_tokens = page_tokens;
    c->newest = c->oldest = NONE;
    for (c->buckets = 16; c->buckets < pages; c->buckets *= 2)
        ;
    c->bucket = mem_resize(NULL, c->buckets, sizeof *c->bucket);
    c->kept = mem_zalloc(pages, sizeof *c->kept);
    c->tokens = mem_zalloc((size_t)pages * page_tokens, sizeof *c->tokens);
    int rc = !c->bucket || !c->kept || !c->tokens
                 ? error_set(err, ERR_NOMEM, "out of memory for a table of %u KV pages", pages)
                 : pages_create(pages, &c->pool, err);
    if (rc) {
        prefix_destroy(c);
        return rc;
    }
    memset(c->bucket, 0xFF, c->buckets * sizeof *c->bucket);
    *out = c;
    return 0;
}

void prefix_destroy(struct prefix_cache *c)
{
    if (!c)
        return;
    pages_destroy(c->pool);
    mem_free(c->bucket);
    mem_free(c->kept);
    mem_free(c->tokens);
    mem_free(c);
}

/* ---- The order of use -------------------------------------------------------------------------------------------- */

static void unlink_page(struct prefix_cache *c, uint32_t page)
{
    struct kept *k = &c->kept[page];
    *(k->newer == NONE ? &c->newest : &c->kept[k->newer].older) = k->older;
    *(k->older == NONE ? &c->oldest : &c->kept[k->older].newer) = k->newer;
}

static void make_newest(struct prefix_cache *c, uint32_t page)
{
    struct kept *k = &c->kept[page];
    k->newer = NONE;
    k->older = c->newest;
    *(c->newest == NONE ? &c->oldest : &c->kept[c->newest].newer) = page;
    c->newest = page;
}

/* The page before it; NONE when there is none any more. */
static uint32_t parent_of(const struct prefix_cache *c, uint32_t page)
{
    const struct kept *k = &c->kept[page];
    bool there = k->parent != NONE && c->kept[k->parent].kept && c->kept[k->parent].generation == k->parent_generation;
    return there ? k->parent : NONE;
}

/* The whole prefix up to this page was used: its beginning counts as the newest, so that ends go first. */
static void touch(struct prefix_cache *c, uint32_t page)
{
    for (; page != NONE; page = parent_of(c, page)) {
        unlink_page(c, page);
        make_newest(c, page);
    }
}

static void forget(struct prefix_cache *c, uint32_t page)
{
    struct kept *k = &c->kept[page];
    uint32_t *at = &c->bucket[k->hash & (c->buckets - 1)];
    while (*at != page)
        at = &c->kept[*at].next_same;
    *at = k->next_same;
    unlink_page(c, page);
    k->kept = false;
    k->generation++; /* what was kept behind it is unreachable now and goes when its turn comes */
}

/* ---- Pages ------------------------------------------------------------------------------------------------------- */

/* Gives up the least recently used page that only the cache holds. */
static bool give_up_one(struct prefix_cache *c)
{
    for (uint32_t page = c->oldest; page != NONE; page = c->kept[page].newer)
        if (pages_references(c->pool, page) == 1) {
            forget(c, page);
            c->idle--;
            pages_drop(c->pool, page);
            return true;
        }
    return false;
}

int prefix_take(struct prefix_cache *c, uint32_t *page)
{
    if (!pages_free(c->pool) && !give_up_one(c))
        return ERR_BUSY;
    return pages_take(c->pool, page);
}

void prefix_drop(struct prefix_cache *c, uint32_t page)
{
    pages_drop(c->pool, page);
    c->idle += c->kept[page].kept && pages_references(c->pool, page) == 1;
}

static uint32_t find(const struct prefix_cache *c, uint32_t parent, uint64_t hash, const int32_t *tokens)
{
    for (uint32_t page = c->bucket[hash & (c->buckets - 1)]; page != NONE; page = c->kept[page].next_same)
        if (c->kept[page].hash == hash && c->kept[page].parent == parent &&
            (parent == NONE || c->kept[page].parent_generation == c->kept[parent].generation) &&
            !memcmp(c->tokens + (size_t)page * c->page_tokens, tokens, c->page_tokens * sizeof *tokens))
            return page;
    return NONE;
}

static uint64_t hash_after(const struct prefix_cache *c, uint32_t parent, const int32_t *tokens)
{
    return hash_tokens(parent == NONE ? HASH_TOKENS_START : c->kept[parent].hash, tokens, c->page_tokens);
}

void prefix_keep(struct prefix_cache *c, const uint32_t *pages, uint32_t index, const int32_t *tokens)
{
    uint32_t parent = NONE;
    for (uint32_t i = 0; i <= index; i++) {
        /* Where another sequence computed the same tokens, its page stands for both: the contents are equal. */
        const int32_t *own = tokens + (size_t)i * c->page_tokens;
        uint64_t hash = hash_after(c, parent, own);
        uint32_t page = find(c, parent, hash, own);
        if (page == NONE) {
            page = pages[i];
            struct kept *k = &c->kept[page];
            if (k->kept)
                return; /* kept behind a beginning that is gone: nobody would find what follows */
            k->kept = true;
            k->mark = 0;
            k->parent = parent;
            k->parent_generation = parent == NONE ? 0 : c->kept[parent].generation;
            k->hash = hash;
            memcpy(c->tokens + (size_t)page * c->page_tokens, own, c->page_tokens * sizeof *own);
            k->next_same = c->bucket[hash & (c->buckets - 1)];
            c->bucket[hash & (c->buckets - 1)] = page;
            make_newest(c, page);
            pages_share(c->pool, page);
        }
        parent = page;
    }
    touch(c, parent);
}

/* The run of kept pages that hold tokens[0 …]: pages and marks; without marks it ends before the first that has one. */
static uint32_t walk(const struct prefix_cache *c, const int32_t *tokens, uint32_t most, uint32_t *pages, uint8_t *marks)
{
    uint32_t count = 0, parent = NONE;
    while (count < most) {
        const int32_t *own = tokens + (size_t)count * c->page_tokens;
        uint32_t page = find(c, parent, hash_after(c, parent, own), own);
        if (page == NONE || (c->kept[page].mark && !marks))
            break;
        if (marks)
            marks[count] = c->kept[page].mark;
        if (pages)
            pages[count] = page;
        count++;
        parent = page;
    }
    return count;
}

uint32_t prefix_share(struct prefix_cache *c, const int32_t *tokens, uint32_t most, uint32_t *pages, uint8_t *marks)
{
    uint32_t count = walk(c, tokens, most, pages, marks);
    for (uint32_t i = 0; i < count; i++) {
        c->idle -= pages_references(c->pool, pages[i]) == 1;
        pages_share(c->pool, pages[i]);
    }
    touch(c, count ? pages[count - 1] : NONE);
    return count;
}

uint32_t prefix_look(const struct prefix_cache *c, const int32_t *tokens, uint32_t most, uint8_t *marks)
{
    return walk(c, tokens, most, NULL, marks);
}

void prefix_clear(struct prefix_cache *c)
{
    while (c->newest != NONE)
        prefix_unkeep(c, c->newest);
}

void prefix_unkeep(struct prefix_cache *c, uint32_t page)
{
    if (!c->kept[page].kept)
        return;
    forget(c, page);
    c->idle -= pages_references(c->pool, page) == 1;
    pages_drop(c->pool, page);
}

void prefix_review(struct prefix_cache *c, int (*judge)(void *context, uint32_t page, uint64_t hash), void *context)
{
    for (uint32_t page = c->newest, older; page != NONE; page = older) {
        int verdict = judge(context, page, c->kept[page].hash);
        older = c->kept[page].older;
        if (verdict < 0)
            prefix_unkeep(c, page);
        else
            c->kept[page].mark = (uint8_t)verdict;
    }
}

uint32_t prefix_list(const struct prefix_cache *c, uint32_t most, uint32_t *pages, uint64_t *hashes)
{
    uint32_t count = 0;
    for (uint32_t page = c->newest; page != NONE && count < most; page = c->kept[page].older) {
        pages[count] = page;
        hashes[count++] = c->kept[page].hash;
    }
    return count;
}

void prefix_drop_marked(struct prefix_cache *c)
{
    for (uint32_t page = c->newest, older; page != NONE; page = older) {
        older = c->kept[page].older;
        if (c->kept[page].mark)
            prefix_unkeep(c, page);
    }
}

uint32_t prefix_available(const struct prefix_cache *c)
{
    return pages_free(c->pool) + c->idle;
}

uint32_t prefix_idle(const struct prefix_cache *c)
{
    return c->idle;
}

uint32_t prefix_total(const struct prefix_cache *c)
{
    return pages_total(c->pool);
}
