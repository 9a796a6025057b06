/* Best-first search with dominance: labels in a heap by lower bound, in a hash table by what they may become. Pure. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "planner/search.h"

struct entry {
    ticks bound;
    uint32_t label;
};

struct frontier {
    struct entry *heap;
    size_t count, capacity, keys;
};

/* Lower bound first; of equals the younger, which dives. */
static bool before(const struct entry *a, const struct entry *b)
{
    return a->bound < b->bound || (a->bound == b->bound && a->label > b->label);
}

static int push(struct frontier *f, struct entry e)
{
    if (f->count == f->capacity) {
        size_t more = f->capacity ? f->capacity * 2 : 1024;
        struct entry *grown = mem_resize(f->heap, more, sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        f->heap = grown;
        f->capacity = more;
    }
    size_t i = f->count++;
    while (i) {
        size_t up = (i - 1) / 2;
        if (!before(&e, &f->heap[up]))
            break;
        f->heap[i] = f->heap[up];
        i = up;
    }
    f->heap[i] = e;
    return 0;
}

static struct entry pop(struct frontier *f)
{
    struct entry top = f->heap[0], e = f->heap[--f->count];
    size_t i = 0;
    while (2 * i + 1 < f->count) {
        size_t down = 2 * i + 1;
        if (down + 1 < f->count && before(&f->heap[down + 1], &f->heap[down]))
            down++;
        if (!before(&f->heap[down], &e))
            break;
        f->heap[i] = f->heap[down];
        i = down;
    }
    f->heap[i] = e;
    return top;
}

static uint64_t future_hash(const struct search *s, const struct label *l)
{
    uint64_t what = (uint64_t)l->done << 16 | (uint64_t)s->way[l->type] << 1 | l->excluded;
    return hash_mix64(l->used ^ hash_mix64(what));
}

static bool same_future(const struct search *s, const struct label *a, const struct label *b)
{
    return a->used == b->used && a->done == b->done && a->excluded == b->excluded &&
           s->way[a->type] == s->way[b->type];
}

/* The slot that holds the chain of labels with this one's future, or the empty one where it belongs. */
static struct slot *find_slot(struct search *s, const struct label *l, uint64_t hash)
{
    size_t i = (size_t)hash & (s->slot_count - 1);
    uint32_t tag = (uint32_t)(hash >> 32);
    while (s->slots[i].label != LABEL_NONE &&
           (s->slots[i].tag != tag || !same_future(s, search_label(s, s->slots[i].label), l)))
        i = (i + 1) & (s->slot_count - 1);
    return &s->slots[i];
}

static int grow_slots(struct search *s, size_t count)
{
    struct slot *old = s->slots;
    size_t old_count = s->slot_count;
    struct slot *slots = mem_alloc(count * sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    memset(slots, 0xff, count * sizeof *slots);
    s->slots = slots;
    s->slot_count = count;
    for (size_t i = 0; i < old_count; i++)
        if (old[i].label != LABEL_NONE) {
            const struct label *l = search_label(s, old[i].label);
            *find_slot(s, l, future_hash(s, l)) = old[i];
        }
    mem_free(old);
    return 0;
}

static bool nowhere_later(const struct search *s, const struct label *a, const struct label *b)
{
    for (int i = 0; i < s->tracks; i++)
        if (a->c[i] > b->c[i])
            return false;
    return true;
}

/* Adds a label unless another dominates it; those it dominates die. */
static int admit(struct search *s, const struct label *l, void *context)
{
    struct frontier *f = context;
    if (2 * (f->keys + 1) > s->slot_count) {
        int rc = grow_slots(s, s->slot_count ? s->slot_count * 2 : 4096);
        if (rc)
            return rc;
    }
    uint64_t hash = future_hash(s, l);
    struct slot *slot = find_slot(s, l, hash);
    f->keys += slot->label == LABEL_NONE;
    /* The chain keeps its first label as the key's holder, dead or not. */
    for (uint32_t i = slot->label; i != LABEL_NONE; i = search_label(s, i)->chain)
        if (nowhere_later(s, search_label(s, i), l))
            return 0;
    for (uint32_t i = slot->label; i != LABEL_NONE; i = search_label(s, i)->chain)
        if (nowhere_later(s, l, search_label(s, i)))
            search_label(s, i)->dead = true;
    uint32_t index;
    int rc = search_add(s, l, &index);
    if (rc)
        return rc;
    s->states++;
    struct label *added = search_label(s, index);
    /* Dead labels need not stay in the chain: the new one stands in for them. */
    uint32_t *link = &added->chain;
    for (uint32_t i = slot->label; i != LABEL_NONE;) {
        struct label *old = search_label(s, i);
        uint32_t next = old->chain;
        if (!nowhere_later(s, added, old)) {
            *link = i;
            link = &old->chain;
        }
        i = next;
    }
    *link = LABEL_NONE;
    *slot = (struct slot){index, (uint32_t)(hash >> 32)};
    return push(f, (struct entry){l->bound, index});
}

int search_exact(struct search *s, ticks *lower)
{
    _Alignas(struct label) char kept[sizeof(struct label) + SEARCH_MAX_TRACKS * sizeof(ticks)];
    struct frontier f = {0};
    uint32_t root;
    ticks reached = TICKS_NEVER;
    int rc = 0;
    search_end(s);
    s->floor = TICKS_NEVER;
    search_root(s, (struct label *)kept);
    if ((rc = search_add(s, (struct label *)kept, &root)) || (rc = search_expand(s, root, admit, &f)))
        goto done;
    while (f.count) {
        struct entry e = f.heap[0];
        if (e.bound >= s->best)
            break;
        if (search_spent(s)) {
            reached = e.bound;
            break;
        }
        pop(&f);
        struct label *l = search_label(s, e.label);
        if (l->dead)
            continue;
        l->dead = true; /* taken up; it still dominates */
        if ((rc = search_expand(s, e.label, admit, &f)))
            goto done;
    }
    reached = s->floor < reached ? s->floor : reached;
    *lower = reached < s->best ? reached : s->best;
done:
    mem_free(f.heap);
    search_end(s);
    return rc;
}
