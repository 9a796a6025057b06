/* Beam search: depth by depth, the most promising labels only. Finds good plans fast, proves nothing. Pure. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "planner/search.h"

/* Children of one depth, sorted now and then so that only the best stay. */
struct pool {
    char *children;
    size_t count, capacity;
    int width;
    ticks worst; /* children above it need not be kept */
};

static struct label *child_at(const struct search *s, const struct pool *p, size_t i)
{
    return (struct label *)(p->children + i * s->stride);
}

struct key {
    uint64_t used;
    ticks bound;
    uint32_t index;
    uint16_t done;
    uint8_t way;
    bool excluded;
};

static int by_future(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->used != y->used)
        return x->used < y->used ? -1 : 1;
    if (x->done != y->done)
        return x->done < y->done ? -1 : 1;
    if (x->way != y->way)
        return x->way < y->way ? -1 : 1;
    if (x->excluded != y->excluded)
        return x->excluded < y->excluded ? -1 : 1;
    return x->bound != y->bound ? (x->bound < y->bound ? -1 : 1) : (x->index > y->index) - (x->index < y->index);
}

static int by_bound(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    return x->bound != y->bound ? (x->bound < y->bound ? -1 : 1) : (x->index > y->index) - (x->index < y->index);
}

/* Keeps the best label of each future, and the best `width` of those, in front. */
static int shrink(struct search *s, struct pool *p)
{
    if (!p->count)
        return 0;
    struct key *keys = mem_alloc(p->count * sizeof *keys);
    char *kept = mem_alloc((size_t)p->capacity * s->stride);
    if (!keys || !kept) {
        mem_free(keys);
        mem_free(kept);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < p->count; i++) {
        const struct label *l = child_at(s, p, i);
        keys[i] = (struct key){l->used, l->bound, (uint32_t)i, l->done, s->way[l->type], l->excluded};
    }
    qsort(keys, p->count, sizeof *keys, by_future);
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        if (!n || keys[n - 1].used != keys[i].used || keys[n - 1].done != keys[i].done ||
            keys[n - 1].way != keys[i].way || keys[n - 1].excluded != keys[i].excluded)
            keys[n++] = keys[i];
    qsort(keys, n, sizeof *keys, by_bound);
    if (n >= (size_t)p->width) {
        n = (size_t)p->width;
        p->worst = keys[n - 1].bound;
    }
    for (size_t i = 0; i < n; i++)
        memcpy(kept + i * s->stride, child_at(s, p, keys[i].index), s->stride);
    mem_free(p->children);
    mem_free(keys);
    p->children = kept;
    p->count = n;
    return 0;
}

static int collect(struct search *s, const struct label *l, void *context)
{
    struct pool *p = context;
    if (l->bound > p->worst)
        return 0;
    if (p->count == p->capacity) {
        int rc = shrink(s, p);
        if (rc)
            return rc;
    }
    memcpy(p->children + p->count++ * s->stride, l, s->stride);
    return 0;
}

int search_beam(struct search *s, int width)
{
    _Alignas(struct label) char kept[sizeof(struct label) + SEARCH_MAX_TRACKS * sizeof(ticks)];
    struct pool pool = {.width = width, .capacity = 8 * (size_t)width};
    uint32_t first, last;
    int rc = 0;
    search_end(s);
    pool.children = mem_alloc(pool.capacity * s->stride);
    search_root(s, (struct label *)kept);
    if (!pool.children || search_add(s, (struct label *)kept, &first)) {
        rc = ERR_NOMEM;
        goto done;
    }
    last = first + 1;
    while (first < last && !search_spent(s)) {
        pool.count = 0;
        pool.worst = TICKS_NEVER;
        for (uint32_t i = first; i < last && !rc; i++)
            rc = search_expand(s, i, collect, &pool);
        if (!rc)
            rc = shrink(s, &pool);
        for (size_t i = 0; i < pool.count && !rc; i++) {
            uint32_t index;
            rc = search_add(s, child_at(s, &pool, i), &index);
        }
        if (rc)
            goto done;
        s->states += (int64_t)pool.count;
        first = last;
        last = (uint32_t)s->count;
    }
done:
    mem_free(pool.children);
    search_end(s);
    return rc;
}
