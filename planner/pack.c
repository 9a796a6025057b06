/* Whether any plan fits at all, and one that does.
 *
 * Only memory counts here, so of two ways to use the same devices the one that holds more blocks is never worse: one
 * number for each set of devices is enough, and every stage takes what it can. Sets are grown one device at a time; as
 * long as all of them are kept the answer is proven, otherwise those that waste least memory go on. Pure. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "planner/solver.h"

enum { MOST_SETS = 13000 }; /* of one size; 16 devices have no more */

struct set {
    uint64_t used;
    double waste; /* bytes of memory left unused on its devices */
    double room;  /* bytes of the devices not used */
    uint32_t parent;
    int16_t done, device;
};

struct packing {
    const struct space *s;
    struct set *sets; /* all depths, one after the other */
    size_t count, capacity;
    uint32_t *slots;  /* of the depth being built */
    size_t slot_count;
    bool truncated;
};

static int add_set(struct packing *k, const struct set *set, size_t first)
{
    size_t i = (size_t)hash_mix64(set->used) & (k->slot_count - 1);
    for (; k->slots[i] != UINT32_MAX; i = (i + 1) & (k->slot_count - 1)) {
        struct set *old = &k->sets[k->slots[i]];
        if (old->used != set->used)
            continue;
        if (set->done > old->done)
            *old = *set;
        return 0;
    }
    if (k->count - first >= k->slot_count / 2) {
        k->truncated = true;
        return 0;
    }
    if (k->count == k->capacity) {
        size_t more = k->capacity ? 2 * k->capacity : 1024;
        struct set *grown = mem_resize(k->sets, more, sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        k->sets = grown;
        k->capacity = more;
    }
    k->slots[i] = (uint32_t)k->count;
    k->sets[k->count++] = *set;
    return 0;
}

static void take(const struct packing *k, uint32_t set, int device, struct candidate *out)
{
    int stages = 1;
    for (uint32_t i = set; i; i = k->sets[i].parent)
        stages++;
    out->stages = stages;
    out->device[stages - 1] = device;
    out->end[stages - 1] = k->s->blocks;
    for (uint32_t i = set; i; i = k->sets[i].parent) {
        stages--;
        out->device[stages - 1] = k->sets[i].device;
        out->end[stages - 1] = k->sets[i].done;
    }
}

/* Every set of this one and another device; 1 when one of them holds the whole model. */
static int grow(struct packing *k, uint32_t from, size_t first, struct candidate *out)
{
    const struct space *s = k->s;
    int n = s->blocks;
    for (int t = 0; t < s->types; t++) {
        struct set base = k->sets[from];
        uint64_t unused = s->mask[t] & ~base.used;
        if (!unused || (!from && s->first_type >= 0 && s->first_type != t))
            continue;
        int device = __builtin_ctzll(unused), end = s->reach[t * n + base.done];
        if (s->last_fits[t * n + base.done]) {
            take(k, from, device, out);
            return 1;
        }
        end = end < n ? end : n - 1;
        if (end <= base.done)
            continue;
        struct set next = {.used = base.used | UINT64_C(1) << device, .parent = from, .done = (int16_t)end,
                           .device = (int16_t)device};
        next.waste = base.waste + s->room_bytes[t] - (s->left_bytes[base.done] - s->left_bytes[end]);
        next.room = base.room - s->room_bytes[t];
        int rc = s->left_bytes[end] <= next.room * (1 + 1e-12) ? add_set(k, &next, first) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int by_waste(const void *a, const void *b)
{
    const struct set *x = a, *y = b;
    return (x->waste > y->waste) - (x->waste < y->waste);
}

static int run(struct packing *k, struct candidate *out)
{
    struct set empty = {.device = -1};
    for (int t = 0; t < k->s->types; t++)
        empty.room += k->s->room_bytes[t] * k->s->size[t];
    int rc = add_set(k, &empty, 0);
    size_t first = 0, last = 1, most = k->s->types > 16 ? MOST_SETS / 8 : MOST_SETS;
    while (!rc && first < last) {
        memset(k->slots, 0xff, k->slot_count * sizeof *k->slots);
        for (size_t i = first; i < last && !rc; i++)
            rc = grow(k, (uint32_t)i, last, out);
        first = last;
        if (k->count - first > most) {
            qsort(k->sets + first, k->count - first, sizeof *k->sets, by_waste);
            k->count = first + most;
            k->truncated = true;
        }
        last = k->count;
    }
    return rc;
}

int solver_pack(struct solver *v, struct candidate *out)
{
    const struct space *s = v->space;
    struct packing k = {.s = s, .slot_count = 1 << 17};
    int rc = ERR_NOMEM;
    k.slots = mem_alloc(k.slot_count * sizeof *k.slots);
    if (!k.slots)
        goto done;
    memset(k.slots, 0xff, k.slot_count * sizeof *k.slots);
    rc = run(&k, out);
    if (rc == 0 && k.truncated)
        rc = ERR_BOUND;
done:
    mem_free(k.slots);
    mem_free(k.sets);
    return rc;
}
