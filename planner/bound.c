/* The relaxed shortest path and the tuning of its prices. Owns its tables. Pure. */
#include "planner/bound.h"

#include <string.h>

#include "base/memory.h"

/* A sliding minimum over ends j' of prefix[j'] + to_go[j'], while both ends of the window move down. */
struct window {
    int *index;
    ticks *value;
    int head, tail, next; /* [head, tail) is alive, next is the last index taken in */
};

struct scratch {
    struct window *window; /* [3][types]: after, before, through the bottleneck */
    int *index;
    ticks *value;
    ticks *gain[2]; /* [types] by mode: the best way on when the next stage stands on this type */
};

int bound_new(struct bound *b, const struct relaxation *r)
{
    const struct space *s = r->space;
    size_t types = (size_t)s->types, cells = 3 * types * (size_t)(s->blocks + 1);
    *b = (struct bound){.modes = r->before ? 2 : 1, .depths = r->depths};
    struct scratch *w = mem_zalloc(1, sizeof *w);
    b->scratch = w;
    b->to_go = mem_zalloc((size_t)b->depths * (size_t)b->modes, (size_t)(s->blocks + 1) * types * sizeof(ticks));
    if (w) {
        w->window = mem_zalloc(3 * types, sizeof *w->window);
        w->index = mem_zalloc(cells, sizeof *w->index);
        w->value = mem_zalloc(cells, sizeof *w->value);
        w->gain[0] = mem_zalloc(2 * types, sizeof(ticks));
    }
    if (!w || !b->to_go || !w->window || !w->index || !w->value || !w->gain[0]) {
        bound_free(b);
        return ERR_NOMEM;
    }
    w->gain[1] = w->gain[0] + types;
    for (size_t i = 0; i < 3 * types; i++) {
        w->window[i].index = w->index + i * (size_t)(s->blocks + 1);
        w->window[i].value = w->value + i * (size_t)(s->blocks + 1);
    }
    return 0;
}

void bound_free(struct bound *b)
{
    struct scratch *w = b->scratch;
    if (w) {
        mem_free(w->window);
        mem_free(w->index);
        mem_free(w->value);
        mem_free(w->gain[0]);
    }
    mem_free(w);
    mem_free(b->to_go);
    *b = (struct bound){0};
}

static inline ticks least(ticks a, ticks b)
{
    return a < b ? a : b;
}

static inline ticks *cell(struct bound *b, const struct space *s, int depth, int mode, int j)
{
    size_t layer = (size_t)depth * (size_t)b->modes + (size_t)mode;
    return b->to_go + (layer * (size_t)(s->blocks + 1) + (size_t)j) * (size_t)s->types;
}

/* min over j' in [low, high] of prefix[j'] + next[j'][type], the window only ever moving down. */
static ticks slide(struct window *w, int low, int high, const ticks *prefix, const ticks *next, int types, int type)
{
    while (w->next > low) {
        int j = --w->next;
        ticks v = prefix[j] + next[(size_t)j * (size_t)types + (size_t)type];
        while (w->tail > w->head && w->value[w->tail - 1] >= v)
            w->tail--;
        w->index[w->tail] = j;
        w->value[w->tail++] = v;
    }
    while (w->tail > w->head && w->index[w->head] > high)
        w->head++;
    return w->tail > w->head ? w->value[w->head] : TICKS_NEVER;
}

/* The ends that a middle stage from j on this type may have: [low, high] within (j, blocks), empty when low > high. */
static void middle_ends(const struct relaxation *r, int stage, int type, int j, bool bottleneck, int *low, int *high)
{
    const struct space *s = r->space;
    size_t at = (size_t)type * (size_t)s->blocks + (size_t)j;
    *low = bottleneck ? r->limits->low[at] : j + 1;
    *high = r->limits->reach[at] < s->blocks - 1 ? r->limits->reach[at] : s->blocks - 1;
    if (s->has_counts && stage >= 0) {
        int end = s->boundary[stage + 1];
        if (s->boundary[stage] != j || end < *low || end > *high)
            *high = *low - 1;
        else
            *low = *high = end;
    }
}

/* The best way on from block j when the next stage, the stage-th (-1: unknown), stands on `type`. */
static void gain_of(struct bound *b, const struct relaxation *r, int depth, int stage, int type, int j)
{
    const struct space *s = r->space;
    struct scratch *w = b->scratch;
    size_t at = (size_t)type * (size_t)s->blocks + (size_t)j;
    ticks after = TICKS_NEVER, before = TICKS_NEVER;
    bool single = b->depths == 1;
    bool may_end = (single || depth == 1) && r->limits->last_fits[at] &&
                   (!s->has_counts || stage < 0 || s->boundary[stage] == j);
    int source = single ? 0 : depth - 1, low, high;
    if (may_end) {
        after = layer_stage(r->after_last, s, type, j, s->blocks) + s->end[type];
        if (b->modes == 2 && layer_stage(r->total, s, type, j, s->blocks) >= r->limits->least)
            before = layer_stage(r->work, s, type, j, s->blocks) + s->end[type];
    }
    if (single || depth > 1) {
        const ticks *next = cell(b, s, source, 0, 0);
        const struct layer *l = r->after;
        const ticks *prefix = l->prefix + (size_t)type * (size_t)(s->blocks + 1);
        middle_ends(r, stage, type, j, false, &low, &high);
        bool open = low <= high;
        if (open)
            after = least(after, slide(&w->window[type], low, high, prefix, next, s->types, type) + l->overhead[type] -
                                     prefix[j] + (j == 0 ? l->first[type] : 0));
        if (b->modes == 2) {
            if (open) {
                const ticks *same = cell(b, s, source, 1, 0);
                l = r->before;
                prefix = l->prefix + (size_t)type * (size_t)(s->blocks + 1);
                before = least(before, slide(&w->window[s->types + type], low, high, prefix, same, s->types, type) +
                                           l->overhead[type] - prefix[j] + (j == 0 ? l->first[type] : 0));
            }
            middle_ends(r, stage, type, j, true, &low, &high);
            l = r->work;
            prefix = l->prefix + (size_t)type * (size_t)(s->blocks + 1);
            if (low <= high)
                before = least(before, slide(&w->window[2 * s->types + type], low, high, prefix, next, s->types, type) +
                                           l->overhead[type] - prefix[j] + (j == 0 ? l->first[type] : 0));
        }
    }
    w->gain[0][type] = least(after + b->lambda[type], TICKS_NEVER);
    w->gain[1][type] = least(before + b->lambda[type], TICKS_NEVER);
}

/* The types that a stage may stand on: all, or with the order given its own. */
static void types_of(const struct space *s, int stage, int *low, int *high)
{
    bool one = s->has_order && stage >= 0;
    *low = one ? s->order_type[stage] : 0;
    *high = one ? *low + 1 : s->types;
}

static void hop_into(struct bound *b, const struct relaxation *r, int depth, int stage, int j)
{
    const struct space *s = r->space;
    int low, high, first, end;
    types_of(s, stage, &low, &high);
    types_of(s, stage - 1, &first, &end); /* of other types nobody asks */
    const struct scratch *w = b->scratch;
    ticks *after = cell(b, s, depth, 0, j), *before = b->modes == 2 ? cell(b, s, depth, 1, j) : NULL;
    for (int t = first; t < end; t++) {
        const ticks *hop = r->after_hop + (size_t)t * (size_t)s->types;
        ticks best = TICKS_NEVER;
        for (int u = low; u < high; u++)
            best = least(best, hop[u] + w->gain[0][u]);
        after[t] = best;
        if (!before)
            continue;
        const ticks *same = r->before_hop + (size_t)t * (size_t)s->types;
        const ticks *cross = r->cross_hop + (size_t)t * (size_t)s->types;
        best = TICKS_NEVER;
        for (int u = low; u < high; u++)
            best = least(best, least(same[u] + w->gain[1][u], cross[u] + w->gain[0][u]));
        before[t] = best;
    }
}

static void run_layer(struct bound *b, const struct relaxation *r, int depth)
{
    const struct space *s = r->space;
    struct scratch *w = b->scratch;
    int n = s->blocks, stage = b->depths > 1 ? s->stages - depth : -1;
    for (int i = 0; i < 3 * s->types; i++) {
        w->window[i].head = w->window[i].tail = 0;
        w->window[i].next = n;
    }
    /* Nothing follows a finished model, and with no stage to come nothing unfinished can be finished. */
    for (int m = 0; m < b->modes; m++)
        for (int j = b->depths > 1 && depth == 0 ? 0 : n; j <= n; j++)
            for (int t = 0; t < s->types; t++)
                cell(b, s, depth, m, j)[t] = TICKS_NEVER;
    if (b->depths > 1 && depth == 0)
        return;
    int low, high;
    types_of(s, stage, &low, &high);
    for (int t = 0; t < s->types; t++)
        w->gain[0][t] = w->gain[1][t] = TICKS_NEVER;
    for (int j = n - 1; j >= 0; j--) {
        for (int t = low; t < high; t++)
            gain_of(b, r, depth, stage, t, j);
        if (j)
            hop_into(b, r, depth, stage, j);
    }
}

static bool may_start(const struct space *s, int type)
{
    return s->first_type < 0 || s->first_type == type;
}

void bound_run(struct bound *b, const struct relaxation *r)
{
    const struct space *s = r->space;
    const struct scratch *w = b->scratch;
    int mode = b->modes - 1;
    b->constant = 0;
    for (int t = 0; t < s->types; t++)
        b->constant += b->lambda[t] * s->size[t];
    for (int depth = 0; depth < b->depths; depth++)
        run_layer(b, r, depth);
    /* The scratch still holds the gains of block 0 in the last layer run. */
    ticks best = TICKS_NEVER;
    for (int t = 0; t < s->types; t++)
        if (may_start(s, t))
            best = least(best, s->start[t] + w->gain[mode][t]);
    b->root = best >= TICKS_NEVER ? TICKS_NEVER : best - b->constant;
}

/* A step of the shortest walk: from block j in a mode, on a type, to the end that makes the gain. */
struct step {
    ticks cost;
    int type, end, mode;
};

static void try_end(struct bound *b, const struct relaxation *r, const struct layer *l, int depth, int type, int j,
                    int low, int high, int mode, ticks fixed, struct step *best)
{
    const struct space *s = r->space;
    for (int end = low; end <= high; end++) {
        ticks cost = fixed + layer_stage(l, s, type, j, end) + cell(b, s, depth, mode, end)[type];
        if (cost < best->cost)
            *best = (struct step){cost, type, end, mode};
    }
}

/* What gain_of found, with the way there; fixed is what comes before the stage. */
static void try_type(struct bound *b, const struct relaxation *r, int depth, int type, int j, int mode, ticks fixed,
                     struct step *best)
{
    const struct space *s = r->space;
    int stage = b->depths > 1 ? s->stages - depth : -1, low, high, source = b->depths > 1 ? depth - 1 : 0;
    size_t at = (size_t)type * (size_t)s->blocks + (size_t)j;
    if (s->has_order && stage >= 0 && s->order_type[stage] != type)
        return;
    fixed += b->lambda[type];
    if ((b->depths == 1 || depth == 1) && r->limits->last_fits[at] &&
        (!s->has_counts || stage < 0 || s->boundary[stage] == j)) {
        const struct layer *l = mode ? r->work : r->after_last;
        ticks cost = layer_stage(l, s, type, j, s->blocks);
        if ((!mode || layer_stage(r->total, s, type, j, s->blocks) >= r->limits->least) && fixed + cost + s->end[type] < best->cost)
            *best = (struct step){fixed + cost + s->end[type], type, s->blocks, 0};
    }
    if (b->depths > 1 && depth < 2)
        return;
    middle_ends(r, stage, type, j, false, &low, &high);
    try_end(b, r, mode ? r->before : r->after, source, type, j, low, high, mode, fixed, best);
    if (mode) {
        middle_ends(r, stage, type, j, true, &low, &high);
        try_end(b, r, r->work, source, type, j, low, high, 0, fixed, best);
    }
}

/* How often the shortest walk uses each type. */
static void count_uses(struct bound *b, const struct relaxation *r, int *uses)
{
    const struct space *s = r->space;
    struct step at = {TICKS_NEVER, -1, 0, b->modes - 1};
    int depth = b->depths - 1;
    memset(uses, 0, (size_t)s->types * sizeof *uses);
    for (int t = 0; t < s->types; t++)
        if (may_start(s, t))
            try_type(b, r, depth, t, 0, b->modes - 1, s->start[t], &at);
    while (at.type >= 0) {
        struct step next = {TICKS_NEVER, -1, 0, 0};
        uses[at.type]++;
        if (at.end == s->blocks)
            break;
        if (b->depths > 1)
            depth--;
        for (int u = 0; u < s->types; u++) {
            size_t hop = (size_t)at.type * (size_t)s->types + (size_t)u;
            if (!at.mode && r->after_hop[hop] < TICKS_NEVER)
                try_type(b, r, depth, u, at.end, 0, r->after_hop[hop], &next);
            if (at.mode && r->before_hop[hop] < TICKS_NEVER)
                try_type(b, r, depth, u, at.end, 1, r->before_hop[hop], &next);
            if (at.mode && r->cross_hop[hop] < TICKS_NEVER)
                try_type(b, r, depth, u, at.end, 0, r->cross_hop[hop], &next);
        }
        at = next;
    }
}

struct offer {
    double rate; /* ticks a block, all told */
    int type, room;
};

void bound_start(struct bound *b, const struct relaxation *r)
{
    const struct space *s = r->space;
    const struct layer *l = r->before ? r->before : r->after;
    const ticks *hops = r->before ? r->before_hop : r->after_hop;
    struct offer offer[PLAN_MAX_DEVICES];
    int n = 0, covered = 0;
    double price = 0;
    if (s->has_order && b->depths > 1) /* no type can be used twice: there is nothing to price */
        return;
    for (int t = 0; t < s->types; t++) {
        const ticks *prefix = l->prefix + (size_t)t * (size_t)(s->blocks + 1);
        int room = r->limits->room[(size_t)t * (size_t)s->blocks];
        ticks hop = TICKS_NEVER;
        for (int u = 0; u < s->types; u++)
            hop = least(hop, hops[(size_t)u * (size_t)s->types + (size_t)t]);
        hop = hop >= TICKS_NEVER ? 0 : hop;
        b->lambda[t] = 0;
        if (!room)
            continue;
        struct offer o = {(double)prefix[s->blocks] / s->blocks + (double)(l->overhead[t] + hop) / room, t, room};
        int at = n++;
        for (; at > 0 && offer[at - 1].rate > o.rate; at--)
            offer[at] = offer[at - 1];
        offer[at] = o;
    }
    for (int i = 0; i < n && covered < s->blocks; i++) {
        price = offer[i].rate;
        covered += offer[i].room * s->size[offer[i].type];
    }
    for (int i = 0; i < n; i++)
        if (offer[i].rate < price)
            b->lambda[offer[i].type] = (ticks)((price - offer[i].rate) * offer[i].room);
}

void bound_tune(struct bound *b, const struct relaxation *r, ticks goal, int steps)
{
    const struct space *s = r->space;
    ticks best_lambda[PLAN_MAX_DEVICES], best = -1, highest = (ticks)1 << 50;
    double theta = 1;
    int uses[PLAN_MAX_DEVICES], stale = 0;
    if (s->has_order && b->depths > 1)
        steps = steps > 1 ? 1 : steps;
    for (int i = 0; i < steps; i++) {
        bound_run(b, r);
        if (b->root > best) {
            best = b->root;
            memcpy(best_lambda, b->lambda, sizeof best_lambda);
            stale = 0;
        } else if (++stale == 5) {
            theta /= 2;
            stale = 0;
        }
        if (b->root >= goal)
            return;
        count_uses(b, r, uses);
        double norm = 0;
        bool settled = true;
        for (int t = 0; t < s->types; t++) {
            int over = uses[t] - s->size[t];
            if (over > 0 || (over < 0 && b->lambda[t] > 0)) {
                settled = false;
                norm += (double)over * over;
            }
        }
        if (settled || theta < 1e-3)
            break;
        double step = theta * ((double)goal - (double)b->root) / norm;
        for (int t = 0; t < s->types; t++) {
            double moved = (double)b->lambda[t] + step * (uses[t] - s->size[t]);
            b->lambda[t] = moved <= 0 ? 0 : moved > (double)highest ? highest : (ticks)moved;
        }
    }
    if (best >= 0) {
        memcpy(b->lambda, best_lambda, sizeof best_lambda);
        bound_run(b, r);
    }
}
