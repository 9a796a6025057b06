/* One partial plan becomes its continuations: every device that may come next, every number of blocks it may hold.
 * Owns the label array, no order of search. Pure. */
#include <string.h>

#include "base/memory.h"
#include "planner/search.h"

static bool same_way(const struct search *s, int a, int b)
{
    const struct space *sp = s->space;
    size_t n = (size_t)sp->types;
    for (size_t u = 0; u < n; u++) {
        if (((int)u == a && sp->size[a] < 2) || ((int)u == b && sp->size[b] < 2))
            continue;
        size_t x = (size_t)a * n + u, y = (size_t)b * n + u;
        if (sp->lag[x] != sp->lag[y])
            return false;
        for (int i = 0; i < s->tracks; i++)
            if (s->track[i].single_busy[x] != s->track[i].single_busy[y] ||
                s->track[i].run_busy[x] != s->track[i].run_busy[y])
                return false;
    }
    return true;
}

void search_begin(struct search *s)
{
    const struct space *sp = s->space;
    s->stride = sizeof(struct label) + (size_t)s->tracks * sizeof(ticks);
    int ways = 0;
    for (int t = 0; t < sp->types; t++) {
        int way = 0;
        for (; way < ways; way++) {
            bool all = true;
            for (int u = 0; u < t && all; u++)
                all = s->way[u] != way || same_way(s, u, t);
            if (all)
                break;
        }
        s->way[t] = (uint8_t)way;
        if (way == ways)
            ways++;
    }
}

void search_end(struct search *s)
{
    mem_free(s->labels);
    mem_free(s->slots);
    s->labels = NULL;
    s->slots = NULL;
    s->count = s->capacity = s->slot_count = 0;
}

int search_add(struct search *s, const struct label *label, uint32_t *index)
{
    if (s->count == s->capacity) {
        size_t more = s->capacity ? s->capacity * 2 : 1024;
        char *grown = mem_resize(s->labels, more, s->stride);
        if (!grown)
            return ERR_NOMEM;
        s->labels = grown;
        s->capacity = more;
    }
    memcpy(s->labels + s->count * s->stride, label, s->stride);
    *index = (uint32_t)s->count++;
    return 0;
}

void search_root(const struct search *s, struct label *root)
{
    memset(root, 0, s->stride);
    root->parent = root->chain = LABEL_NONE;
    root->excluded = s->space->exclude_stages > 0;
}

bool search_spent(struct search *s)
{
    if (s->states >= s->max_states || (s->expired && s->states % 1024 == 0 && s->expired(s->expired_context)))
        s->cut = true;
    return s->cut;
}

/* The lower bound of a label; price[g] is the sum of lambda over the devices it uses less the constant. */
static ticks bound_of(const struct search *s, const struct label *l, const ticks *price)
{
    ticks most = 0;
    int left = s->space->stages - l->depth;
    for (int g = 0; g < s->guides; g++) {
        const struct bound *b = s->guide[g].bound;
        bool before = b->modes == 2 && l->work < s->limits->least;
        int track = before ? 0 : s->guide[g].track;
        ticks v = l->c[track] + price[g] + bound_to_go(b, s->space, left, before, l->done, l->type);
        most = v > most ? v : most;
    }
    if (s->work_factor && l->work > most / s->work_factor)
        most = l->work * s->work_factor > most ? l->work * s->work_factor : most;
    return most;
}

static void record(struct search *s, const struct label *parent, const struct label *last, ticks value)
{
    struct candidate *f = &s->found;
    f->stages = last->depth;
    f->device[last->depth - 1] = last->device;
    f->end[last->depth - 1] = last->done;
    for (const struct label *l = parent; l->depth; l = search_label(s, l->parent)) {
        f->device[l->depth - 1] = l->device;
        f->end[l->depth - 1] = l->done;
    }
    s->best = value;
    s->any = true;
}

/* A whole plan: is it the best so far? The true value may need the plan itself. */
static void finish(struct search *s, const struct label *parent, const struct label *last)
{
    const struct space *sp = s->space;
    ticks value = last->c[s->tracks - 1] + sp->end[last->type];
    if (s->work_factor) {
        ticks busy;
        if (__builtin_mul_overflow(last->work, s->work_factor, &busy))
            return;
        value = busy > value ? busy : value;
    }
    if (value >= s->best || (last->excluded && last->depth == sp->exclude_stages))
        return;
    if (s->judge) {
        struct candidate kept = s->found;
        ticks best = s->best, hoped = value;
        bool any = s->any;
        record(s, parent, last, value);
        value = s->judge(s->judge_context, &s->found);
        if (value > hoped && hoped < s->floor)
            s->floor = hoped;
        if (value >= best) {
            s->found = kept;
            s->best = best;
            s->any = any;
            return;
        }
    }
    record(s, parent, last, value);
}

struct expansion {
    struct search *s;
    const struct label *parent;
    struct label *child;
    ticks arrival[SEARCH_MAX_TRACKS];
    ticks price[SEARCH_MAX_TRACKS + 2]; /* by guide */
    ticks link_work;
    double room_bytes;          /* of all of them */
    int left[PLAN_MAX_DEVICES]; /* unused devices by type, the child's taken off */
};

static ticks larger(ticks a, ticks b)
{
    return a > b ? a : b;
}

/* Fills the child's times for blocks parent->done..end on its type. */
static void run_stage(const struct expansion *x, int end)
{
    const struct search *s = x->s;
    struct label *c = x->child;
    int from = x->parent->done;
    for (int i = 0; i < s->tracks; i++) {
        ticks done = x->arrival[i] + layer_stage(s->track[i].single, s->space, c->type, from, end);
        if (i)
            done = larger(done, c->c[i - 1] + layer_stage(s->track[i].run, s->space, c->type, from, end));
        c->c[i] = done;
    }
    c->done = (uint16_t)end;
    c->work = x->link_work;
    if (s->work)
        c->work = larger(c->work, layer_stage(s->work, s->space, c->type, from, end));
}

/* Whether the devices not yet used could hold what is left, each at its best place. */
static bool room_left(const struct expansion *x, int done)
{
    const struct search *s = x->s;
    const struct space *sp = s->space;
    int need = sp->blocks - done;
    for (int t = 0; t < sp->types && need > 0; t++)
        need -= x->left[t] * s->limits->room[(size_t)t * (size_t)sp->blocks + (size_t)done];
    return need <= 0 && sp->left_bytes[done] <= x->room_bytes * (1 + 1e-12);
}

static int middle_stages(const struct expansion *x, search_emit *emit, void *context)
{
    struct search *s = x->s;
    const struct space *sp = s->space;
    struct label *c = x->child;
    int n = sp->blocks, j = x->parent->done, low = j + 1;
    int high = s->limits->reach[(size_t)c->type * (size_t)n + (size_t)j];
    int after = sp->stages ? sp->stages - c->depth : 1; /* stages that must still follow */
    if (sp->stages && after < 1)
        return 0;
    high = high < n - after ? high : n - after;
    if (sp->has_counts) {
        int end = sp->boundary[c->depth];
        if (end < low || end > high)
            return 0;
        low = high = end;
    }
    for (int end = high; end >= low; end--) {
        run_stage(x, end);
        c->bound = bound_of(s, c, x->price);
        if (c->bound >= s->best || !room_left(x, end))
            continue;
        int rc = emit(s, c, context);
        if (rc)
            return rc;
    }
    return 0;
}

static void last_stage(const struct expansion *x)
{
    struct search *s = x->s;
    const struct space *sp = s->space;
    struct label *c = x->child;
    if (!s->limits->last_fits[(size_t)c->type * (size_t)sp->blocks + (size_t)x->parent->done])
        return;
    if (sp->stages && c->depth != sp->stages)
        return;
    run_stage(x, sp->blocks);
    finish(s, x->parent, c);
}

/* Arrival of every track on the next type; false when the link does not exist within the limits. */
static bool hop_to(struct expansion *x, int type)
{
    const struct search *s = x->s;
    const struct space *sp = s->space;
    const struct label *l = x->parent;
    x->link_work = l->work;
    if (l->depth == 0) {
        for (int i = 0; i < s->tracks; i++)
            x->arrival[i] = sp->start[type];
        return true;
    }
    size_t at = (size_t)l->type * (size_t)sp->types + (size_t)type;
    if (sp->lag[at] >= TICKS_NEVER)
        return false;
    if (s->work_busy) {
        if (s->work_busy[at] > s->limits->most)
            return false;
        x->link_work = larger(x->link_work, s->work_busy[at]);
    }
    ticks busy = 0;
    for (int i = 0; i < s->tracks; i++) {
        ticks single = l->c[i] + s->track[i].single_busy[at];
        busy = i ? larger(single, busy + s->track[i].run_busy[at]) : single;
        x->arrival[i] = busy + sp->lag[at];
    }
    return true;
}

int search_expand(struct search *s, uint32_t parent, search_emit *emit, void *context)
{
    const struct space *sp = s->space;
    _Alignas(struct label) char kept[2][sizeof(struct label) + SEARCH_MAX_TRACKS * sizeof(ticks)];
    struct label *l = (struct label *)kept[0], *c = (struct label *)kept[1];
    memcpy(l, search_label(s, parent), s->stride);
    struct expansion x = {.s = s, .parent = l, .child = c};
    int used[PLAN_MAX_DEVICES];
    ticks price[SEARCH_MAX_TRACKS + 2];
    for (int t = 0; t < sp->types; t++)
        used[t] = __builtin_popcountll(l->used & sp->mask[t]);
    for (int g = 0; g < s->guides; g++) {
        price[g] = -s->guide[g].bound->constant;
        for (int t = 0; t < sp->types; t++)
            price[g] += used[t] * s->guide[g].bound->lambda[t];
    }
    for (int t = 0; t < sp->types; t++) {
        if (used[t] == sp->size[t] || (l->depth == 0 && sp->first_type >= 0 && sp->first_type != t) ||
            (sp->has_order && sp->order_type[l->depth] != t) || !hop_to(&x, t))
            continue;
        int device = sp->member[sp->first_member[t] + used[t]];
        memset(c, 0, sizeof *c);
        c->used = l->used | UINT64_C(1) << device;
        c->parent = parent;
        c->chain = LABEL_NONE;
        c->type = (uint8_t)t;
        c->device = (uint8_t)device;
        c->depth = (uint8_t)(l->depth + 1);
        c->excluded = l->excluded && l->depth < sp->exclude_stages && sp->exclude_type[l->depth] == t;
        for (int g = 0; g < s->guides; g++)
            x.price[g] = price[g] + s->guide[g].bound->lambda[t];
        x.room_bytes = 0;
        for (int u = 0; u < sp->types; u++) {
            x.left[u] = sp->size[u] - used[u] - (u == t);
            x.room_bytes += x.left[u] * sp->room_bytes[u];
        }
        last_stage(&x);
        int rc = middle_stages(&x, emit, context);
        if (rc)
            return rc;
    }
    return 0;
}
