/* The table of sequences and of what each KV page stands for. Owns tokens and page lists; touches no tensor. One owner
 * thread.
 *
 * A page keeps, for each of its positions, the running token hash of the sequence that wrote it. Positions in a page
 * are always of one sequence of tokens: writing at a slot needs the slots before it to hold this sequence's hashes and
 * forgets the slots after it. So the hash at a page's last needed slot proves the page, and pages of any origin (kept,
 * shared, copied) are proven the same way. */
#include "engine/model/sequence.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"

struct page {
    uint32_t filled;               /* positions that stand for something */
    uint32_t stamp;                /* last update that listed the page, to find pages listed twice */
    uint64_t hash[KV_PAGE_TOKENS]; /* running hash after each position */
};

struct entry {
    struct sequence s;
    uint64_t *boundary; /* running hash after each full page, so that long sequences are checked fast */
    uint32_t token_room, page_room, boundary_room;
};

struct sequence_table {
    uint32_t max_sequences, max_context, vocabulary;
    uint32_t page_total, stamp, count;
    struct page *pages;
    struct entry **entries; /* max_sequences, the first `count` in use */
};

int sequence_table_create(uint32_t max_sequences, uint32_t max_context, uint32_t kv_pages, uint32_t vocabulary,
                          struct sequence_table **out, struct error *err)
{
    struct sequence_table *t = mem_zalloc(1, sizeof *t);
    if (t) {
        t->max_sequences = max_sequences;
        t->max_context = max_context;
        t->vocabulary = vocabulary;
        t->page_total = kv_pages;
        t->pages = mem_zalloc(kv_pages, sizeof *t->pages);
        t->entries = mem_zalloc(max_sequences, sizeof *t->entries);
    }
    if (!t || !t->pages || !t->entries) {
        sequence_table_destroy(t);
        return error_set(err, ERR_NOMEM, "no memory for a table of %u sequences and %u pages", max_sequences, kv_pages);
    }
    *out = t;
    return 0;
}

static void free_entry(struct entry *e)
{
    if (!e)
        return;
    mem_free(e->s.tokens);
    mem_free(e->s.pages);
    mem_free(e->boundary);
    mem_free(e);
}

void sequence_table_destroy(struct sequence_table *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; t->entries && i < t->count; i++)
        free_entry(t->entries[i]);
    mem_free(t->entries);
    mem_free(t->pages);
    mem_free(t);
}

static struct entry *find(const struct sequence_table *t, uint32_t id, uint32_t *at)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->entries[i]->s.id == id) {
            if (at)
                *at = i;
            return t->entries[i];
        }
    return NULL;
}

/* Room for `count` elements, at least doubling, at most `limit`. */
static int reserve(void **array, uint32_t *room, uint32_t count, uint32_t limit, size_t each)
{
    if (count <= *room)
        return 0;
    uint32_t bigger = *room > limit / 2 ? limit : *room * 2;
    bigger = bigger > count ? bigger : count;
    void *grown = mem_resize(*array, bigger, each);
    if (!grown)
        return ERR_NOMEM;
    *array = grown;
    *room = bigger;
    return 0;
}

static uint32_t pages_for(uint32_t positions)
{
    return positions / KV_PAGE_TOKENS + (positions % KV_PAGE_TOKENS != 0);
}

/* ---- An update -------------------------------------------------------------------------------------------------- */

static int check_bounds(const struct sequence_table *t, const struct span_update *u, const struct entry *e,
                        struct error *err)
{
    uint64_t end = (uint64_t)u->first + u->count;
    uint32_t length = e ? e->s.length : 0, pages = e ? e->s.page_count : 0;
    if (u->count == 0 || end > t->max_context)
        return error_set(err, ERR_BOUND, "sequence %u: positions %u to %llu, but a context holds %u", u->sequence,
                         u->first, (unsigned long long)end, t->max_context);
    if (u->known > u->first || !u->tokens)
        return error_set(err, ERR_FORMAT, "sequence %u: tokens from position %u cannot carry a span from %u",
                         u->sequence, u->known, u->first);
    if (u->known > length)
        return error_set(err, ERR_ORDER, "sequence %u: the span builds on %u known tokens, but this stage knows %u",
                         u->sequence, u->known, length);
    if (u->page_offset > pages || (u->page_count && !u->pages))
        return error_set(err, ERR_ORDER, "sequence %u: pages are given from entry %u on, but this stage knows %u",
                         u->sequence, u->page_offset, pages);
    uint64_t total = (uint64_t)u->page_offset + u->page_count;
    if (total < pages_for((uint32_t)end) || total > pages_for(t->max_context))
        return error_set(err, ERR_FORMAT, "sequence %u: %llu pages for %llu positions", u->sequence,
                         (unsigned long long)total, (unsigned long long)end);
    for (uint32_t i = 0; i < end - u->known; i++)
        if (u->tokens[i] < 0 || (uint32_t)u->tokens[i] >= t->vocabulary)
            return error_set(err, ERR_FORMAT, "sequence %u: token %d is not in a vocabulary of %u", u->sequence,
                             u->tokens[i], t->vocabulary);
    for (uint32_t i = 0; i < u->page_count; i++)
        if (u->pages[i] >= t->page_total)
            return error_set(err, ERR_FORMAT, "sequence %u: page %u is not one of %u", u->sequence, u->pages[i],
                             t->page_total);
    return u->sampling ? sampling_check(u->sampling, t->vocabulary, err) : 0;
}

static int32_t token_at(const struct span_update *u, const struct entry *e, uint32_t position)
{
    return position < u->known ? e->s.tokens[position] : u->tokens[position - u->known];
}

static uint32_t page_at(const struct span_update *u, const struct entry *e, uint32_t i)
{
    return i < u->page_offset ? e->s.pages[i] : u->pages[i - u->page_offset];
}

/* No page twice in one sequence: it would stand for two things. */
static int check_distinct(struct sequence_table *t, const struct span_update *u, const struct entry *e,
                          struct error *err)
{
    uint32_t total = u->page_offset + u->page_count;
    if (++t->stamp == 0) { /* wrapped: forget old stamps */
        for (uint32_t i = 0; i < t->page_total; i++)
            t->pages[i].stamp = 0;
        t->stamp = 1;
    }
    for (uint32_t i = 0; i < total; i++) {
        struct page *p = &t->pages[page_at(u, e, i)];
        if (p->stamp == t->stamp)
            return error_set(err, ERR_FORMAT, "sequence %u: page %u is listed twice", u->sequence, page_at(u, e, i));
        p->stamp = t->stamp;
    }
    return 0;
}

static bool page_holds(const struct page *p, uint32_t slot, uint64_t hash)
{
    return p->filled > slot && p->hash[slot] == hash;
}

/* The hash walk: pages below `first` (of an update that says so, all pages) must hold this sequence's hashes; *out is the
 * hash after the span. Whole pages of tokens that are known already are stepped over by their kept hash. */
static int check_hashes(const struct sequence_table *t, const struct span_update *u, const struct entry *e,
                        uint64_t *out, struct error *err)
{
    uint32_t end = u->first + u->count, position = 0, proven = u->held ? end : u->first;
    uint64_t hash = HASH_TOKENS_START;
    bool holds = true;
    for (; holds && position + KV_PAGE_TOKENS <= u->known; position += KV_PAGE_TOKENS) {
        hash = e->boundary[position / KV_PAGE_TOKENS];
        holds = page_holds(&t->pages[page_at(u, e, position / KV_PAGE_TOKENS)], KV_PAGE_TOKENS - 1, hash);
    }
    for (; holds && position < end; position++) {
        uint32_t slot = position % KV_PAGE_TOKENS;
        hash = hash_token(hash, token_at(u, e, position));
        if (position < proven && (slot == KV_PAGE_TOKENS - 1 || position == proven - 1))
            holds = page_holds(&t->pages[page_at(u, e, position / KV_PAGE_TOKENS)], slot, hash);
    }
    if (!holds)
        return error_set(err, ERR_ORDER, "sequence %u: page %u does not hold its tokens up to position %u", u->sequence,
                         page_at(u, e, (position - 1) / KV_PAGE_TOKENS), position - 1);
    if (hash != u->hash)
        return error_set(err, ERR_ORDER, "sequence %u: its tokens up to position %u are not those the frame means",
                         u->sequence, end - 1);
    *out = hash;
    return 0;
}

/* Pages from `first` on now stand for this sequence; boundaries from `known` on are kept. */
static void write_hashes(struct sequence_table *t, struct entry *e, uint32_t known, uint32_t first)
{
    uint32_t position = known - known % KV_PAGE_TOKENS;
    uint64_t hash = position ? e->boundary[position / KV_PAGE_TOKENS - 1] : HASH_TOKENS_START;
    for (; position < e->s.length; position++) {
        uint32_t slot = position % KV_PAGE_TOKENS, page = position / KV_PAGE_TOKENS;
        hash = hash_token(hash, e->s.tokens[position]);
        if (slot == KV_PAGE_TOKENS - 1)
            e->boundary[page] = hash;
        if (position >= first) {
            struct page *p = &t->pages[e->s.pages[page]];
            p->hash[slot] = hash;
            p->filled = slot + 1;
        }
    }
}

int sequence_apply(struct sequence_table *t, const struct span_update *u, const struct sequence **out,
                   struct error *err)
{
    struct entry *e = find(t, u->sequence, NULL), *fresh = NULL;
    uint64_t hash = 0;
    int failed;
    if (!e && u->known)
        return error_set(err, ERR_ORDER, "sequence %u is not known here, yet the span builds on %u of its tokens",
                         u->sequence, u->known);
    if (!e && t->count == t->max_sequences)
        return error_set(err, ERR_BOUND, "sequence %u would be one more than the %u that fit", u->sequence,
                         t->max_sequences);
    if ((failed = check_bounds(t, u, e, err)) < 0 || (failed = check_distinct(t, u, e, err)) < 0 ||
        (failed = check_hashes(t, u, e, &hash, err)) < 0)
        return failed;

    if (!e) {
        e = fresh = mem_zalloc(1, sizeof *e);
        if (!e)
            return error_set(err, ERR_NOMEM, "no memory for sequence %u", u->sequence);
        e->s.id = u->sequence;
        sampling_default(&e->s.sampling);
    }
    uint32_t length = u->first + u->count, pages = u->page_offset + u->page_count;
    if (reserve((void **)&e->s.tokens, &e->token_room, length, t->max_context, sizeof *e->s.tokens) ||
        reserve((void **)&e->s.pages, &e->page_room, pages, pages_for(t->max_context), sizeof *e->s.pages) ||
        reserve((void **)&e->boundary, &e->boundary_room, pages, pages_for(t->max_context), sizeof *e->boundary)) {
        free_entry(fresh);
        return error_set(err, ERR_NOMEM, "no memory for the %u tokens of sequence %u", length, u->sequence);
    }

    /* Nothing can fail from here on. */
    if (fresh)
        t->entries[t->count++] = fresh;
    memcpy(e->s.tokens + u->known, u->tokens, (size_t)(length - u->known) * sizeof *e->s.tokens);
    if (u->page_count)
        memcpy(e->s.pages + u->page_offset, u->pages, u->page_count * sizeof *e->s.pages);
    e->s.page_count = pages;
    e->s.length = length;
    e->s.hash = hash;
    if (u->sampling)
        e->s.sampling = *u->sampling;
    write_hashes(t, e, u->known, u->held ? length : u->first);
    *out = &e->s;
    return 0;
}

/* ---- The rest --------------------------------------------------------------------------------------------------- */

int sequence_truncate(struct sequence_table *t, uint32_t sequence, uint32_t length)
{
    struct entry *e = find(t, sequence, NULL);
    if (!e)
        return ERR_NOTFOUND;
    if (length > e->s.length)
        return ERR_ORDER;
    e->s.length = length; /* the pages stay listed: they are the scheduler's to take back */
    e->s.hash = hash_tokens(HASH_TOKENS_START, e->s.tokens, length);
    return 0;
}

void sequence_release(struct sequence_table *t, uint32_t sequence)
{
    uint32_t at;
    struct entry *e = find(t, sequence, &at);
    if (!e)
        return;
    t->entries[at] = t->entries[--t->count];
    free_entry(e); /* its pages still stand for their tokens: another sequence may start on them */
}

void sequence_release_all(struct sequence_table *t)
{
    while (t->count)
        free_entry(t->entries[--t->count]);
}

void sequence_clear(struct sequence_table *t)
{
    sequence_release_all(t);
    for (uint32_t i = 0; i < t->page_total; i++)
        t->pages[i].filled = 0;
}

int sequence_page_copied(struct sequence_table *t, uint32_t src, uint32_t dst, uint32_t count)
{
    if (src >= t->page_total || dst >= t->page_total || count > KV_PAGE_TOKENS)
        return ERR_FORMAT;
    if (count > t->pages[src].filled)
        return ERR_ORDER;
    if (src != dst)
        memcpy(t->pages[dst].hash, t->pages[src].hash, count * sizeof *t->pages[dst].hash);
    t->pages[dst].filled = count;
    return 0;
}

int sequence_page_adopt(struct sequence_table *t, uint32_t page, const uint64_t hashes[])
{
    if (page >= t->page_total)
        return ERR_FORMAT;
    memcpy(t->pages[page].hash, hashes, sizeof t->pages[page].hash);
    t->pages[page].filled = KV_PAGE_TOKENS;
    return 0;
}

const uint64_t *sequence_page(const struct sequence_table *t, uint32_t page, uint32_t *filled)
{
    if (page >= t->page_total)
        return NULL;
    *filled = t->pages[page].filled;
    return t->pages[page].hash;
}

const struct sequence *sequence_find(const struct sequence_table *t, uint32_t sequence)
{
    const struct entry *e = find(t, sequence, NULL);
    return e ? &e->s : NULL;
}

uint32_t sequence_count(const struct sequence_table *t)
{
    return t->count;
}
