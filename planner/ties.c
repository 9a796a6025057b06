/* Among plans of equal value: the fewest stages, then the earlier devices, stage by stage.
 *
 * For each number of stages the sequences of devices are tried in the order of the tie rule. A node of that search is a
 * sequence; it carries every way to cut the blocks among it that can still reach the value, so that the first sequence
 * to be completed is the answer. Tables by stages still to come prune it. Pure. */
#include <string.h>

#include "base/memory.h"
#include "planner/solver.h"

struct ties {
    struct search *s;
    struct space *space;
    ticks value;
    int64_t left; /* expansions that may still be made */
};

/* Keeps a child of the present sequence unless another of its cuts is nowhere later. */
static int keep(struct search *s, const struct label *child, void *context)
{
    const uint32_t *mark = context;
    for (uint32_t i = *mark; i < s->count; i++) {
        const struct label *other = search_label(s, i);
        bool later = other->done != child->done;
        for (int k = 0; k < s->tracks && !later; k++)
            later = other->c[k] > child->c[k];
        if (!later)
            return 0;
    }
    uint32_t index;
    return search_add(s, child, &index);
}

/* 1: the search's found is the answer; 0: no sequence goes on from here; else an error, ERR_BOUND when spent. */
static int try_sequences(struct ties *x, uint32_t first, uint32_t last, int depth)
{
    struct search *s = x->s;
    struct space *sp = x->space;
    uint64_t used = search_label(s, first)->used;
    for (int d = 0; d < sp->p->devices; d++) {
        int type = sp->type_of[d];
        uint64_t unused = sp->mask[type] & ~used;
        if (!unused || __builtin_ctzll(unused) != d)
            continue;
        uint32_t mark = (uint32_t)s->count;
        s->any = false;
        s->best = x->value + 1;
        sp->order_type[depth] = type;
        for (uint32_t i = first; i < last; i++) {
            if (x->left-- <= 0)
                return ERR_BOUND;
            int rc = search_expand(s, i, keep, &mark);
            if (rc)
                return rc;
        }
        if (s->any)
            return 1;
        if (s->count > mark) {
            int rc = try_sequences(x, mark, (uint32_t)s->count, depth + 1);
            if (rc)
                return rc;
        }
        s->count = mark;
    }
    return 0;
}

int solver_first_sequence(struct solver *v, struct search *s, int64_t *left)
{
    _Alignas(struct label) char kept[sizeof(struct label) + SEARCH_MAX_TRACKS * sizeof(ticks)];
    struct ties x = {.s = s, .space = v->space, .value = v->best, .left = *left};
    bool had_order = v->space->has_order;
    uint32_t root;
    s->space = v->space;
    s->limits = &v->limits;
    search_begin(s);
    search_root(s, (struct label *)kept);
    int rc = search_add(s, (struct label *)kept, &root);
    v->space->has_order = true;
    if (!rc)
        rc = try_sequences(&x, root, root + 1, 0);
    v->space->has_order = had_order;
    *left = x.left;
    search_end(s);
    return rc;
}

bool solver_earlier(const struct candidate *a, const struct candidate *b)
{
    if (a->stages != b->stages)
        return a->stages < b->stages;
    for (int i = 0; i < a->stages; i++)
        if (a->device[i] != b->device[i])
            return a->device[i] < b->device[i];
    return false;
}

bool solver_proven(const struct solver *v)
{
    return v->best < TICKS_NEVER && v->lower >= v->best && !v->space->has_order;
}
