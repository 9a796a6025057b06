/* Builds the search space of a problem. Owns its tables; knows no search. Pure. */
#include "planner/space.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"

static bool same_link(const struct plan_problem *p, int a, int b, int c, int d)
{
    const struct plan_link *x = plan_problem_link(p, a, b), *y = plan_problem_link(p, c, d);
    if (!x || !y)
        return x == y;
    return x->bandwidth == y->bandwidth && x->rtt_s == y->rtt_s && x->value_bytes == y->value_bytes;
}

static bool same_numbers(const double *a, const double *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

static bool same_profile(const struct plan_profile *a, const struct plan_profile *b)
{
    if (!a || !b)
        return a == b;
    return a->classes == b->classes && a->batches == b->batches && a->contexts == b->contexts &&
           a->chunks == b->chunks && a->pasts == b->pasts && a->embedding_per_token == b->embedding_per_token &&
           same_numbers(a->batch, b->batch, (size_t)a->batches) &&
           same_numbers(a->context, b->context, (size_t)a->contexts) &&
           same_numbers(a->chunk, b->chunk, (size_t)a->chunks) && same_numbers(a->past, b->past, (size_t)a->pasts) &&
           same_numbers(a->head, b->head, (size_t)a->batches) &&
           same_numbers(a->decode, b->decode, (size_t)a->classes * (size_t)a->batches * (size_t)a->contexts) &&
           same_numbers(a->prefill, b->prefill, (size_t)a->classes * (size_t)a->chunks * (size_t)a->pasts);
}

bool space_interchangeable(const struct plan_problem *p, int a, int b)
{
    const struct plan_device *x = &p->device[a], *y = &p->device[b];
    if (x->memory != y->memory || x->buffers != y->buffers || x->overhead_s != y->overhead_s)
        return false;
    if (!same_profile(x->profile, y->profile) || (!x->profile && (x->read != y->read || x->compute != y->compute)))
        return false;
    if (a == p->coordinator_device || b == p->coordinator_device || a == p->pin_first || b == p->pin_first)
        return false;
    if (!same_link(p, a, b, b, a))
        return false;
    for (int k = 0; k <= p->devices; k++)
        if (k != a && k != b && (!same_link(p, a, k, b, k) || !same_link(p, k, a, k, b)))
            return false;
    return true;
}

static void find_types(struct space *s)
{
    const struct plan_problem *p = s->p;
    int first[PLAN_MAX_DEVICES], at = 0;
    for (int i = 0; i < p->devices; i++) {
        int t = 0;
        while (t < s->types && (s->has_order || !space_interchangeable(p, first[t], i)))
            t++;
        if (t == s->types)
            first[s->types++] = i;
        s->type_of[i] = t;
        s->size[t]++;
        s->mask[t] |= UINT64_C(1) << i;
    }
    for (int t = 0; t < s->types; t++) {
        s->first_member[t] = at;
        for (int i = 0; i < p->devices; i++)
            if (s->type_of[i] == t)
                s->member[at++] = i;
    }
}

static int take_counts(struct space *s, const struct plan_options *o, struct error *e)
{
    int at = 0;
    s->has_counts = true;
    for (int i = 0; i < o->stages; i++) {
        if (o->counts[i] < 1 || o->counts[i] > s->blocks - at)
            return error_set(e, ERR_USAGE, "the split must give each stage at least one block, %d in all", s->blocks);
        s->boundary[i] = at;
        at += o->counts[i];
    }
    s->boundary[o->stages] = at;
    if (at != s->blocks)
        return error_set(e, ERR_USAGE, "the split adds up to %d blocks and the model has %d", at, s->blocks);
    return 0;
}

static int take_options(struct space *s, const struct plan_options *o, struct error *e)
{
    const struct plan_problem *p = s->p;
    uint64_t used = 0;
    if (o->stages < 0 || o->stages > p->devices || o->stages > s->blocks)
        return error_set(e, ERR_USAGE, "%d stages over %d devices and %d blocks; each stage needs its own of both",
                         o->stages, p->devices, s->blocks);
    if ((o->counts || o->order) && !o->stages)
        return error_set(e, ERR_USAGE, "a fixed split or order needs the number of stages");
    s->stages = o->stages;
    for (int i = 0; o->order && i < o->stages; i++) {
        if (o->order[i] < 0 || o->order[i] >= p->devices || (used >> o->order[i] & 1))
            return error_set(e, ERR_USAGE, "stage %d: each stage needs a device of its own", i);
        used |= UINT64_C(1) << o->order[i];
        s->has_order = true;
    }
    return o->counts ? take_counts(s, o, e) : 0;
}

static int build_reach(struct space *s)
{
    const struct plan_problem *p = s->p;
    int n = s->blocks;
    double *prefix = mem_zalloc((size_t)n + 1, sizeof *prefix);
    s->reach = mem_zalloc((size_t)s->types * (size_t)n, sizeof *s->reach);
    s->last_fits = mem_zalloc((size_t)s->types, (size_t)n);
    s->left_bytes = mem_zalloc((size_t)n + 1, sizeof *s->left_bytes);
    s->room_bytes = mem_zalloc((size_t)s->types, sizeof *s->room_bytes);
    if (!prefix || !s->reach || !s->last_fits || !s->left_bytes || !s->room_bytes) {
        mem_free(prefix);
        return ERR_NOMEM;
    }
    for (int k = 0; k < n; k++)
        prefix[k + 1] = prefix[k] + cost_block_memory(p, k);
    for (int k = 0; k <= n; k++)
        s->left_bytes[k] = prefix[n] - prefix[k] + p->model.head_weight_bytes;
    for (int t = 0; t < s->types; t++) {
        const struct plan_device *d = &p->device[s->member[s->first_member[t]]];
        int end = 0;
        s->room_bytes[t] = d->memory > d->buffers ? d->memory - d->buffers : 0;
        for (int j = 0; j < n; j++) {
            double fixed = d->buffers + (j == 0 ? p->model.embedding_bytes : 0);
            if (end < j)
                end = j;
            while (end < n && fixed + (prefix[end + 1] - prefix[j]) <= d->memory)
                end++;
            s->reach[t * n + j] = end;
            s->last_fits[t * n + j] = fixed + p->model.head_weight_bytes + (prefix[n] - prefix[j]) <= d->memory;
        }
    }
    mem_free(prefix);
    return 0;
}

int space_new(struct space **out, const struct plan_problem *p, const struct plan_options *options, struct error *e)
{
    struct space *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return error_set(e, ERR_NOMEM, "out of memory for planning");
    s->p = p;
    s->blocks = p->model.blocks;
    s->first_type = -1;
    int rc = options ? take_options(s, options, e) : 0;
    if (rc)
        goto fail;
    find_types(s);
    if (p->pin_first >= 0)
        s->first_type = s->type_of[p->pin_first];
    for (int i = 0; s->has_order && i < s->stages; i++)
        s->order_type[i] = s->type_of[options->order[i]];
    if (options && options->exclude) {
        s->exclude_stages = options->exclude->stages;
        for (int i = 0; i < s->exclude_stages; i++)
            s->exclude_type[i] = s->type_of[options->exclude->stage[i].device];
    }
    s->lag = mem_zalloc((size_t)s->types * (size_t)s->types, sizeof *s->lag);
    s->start = mem_zalloc((size_t)s->types, sizeof *s->start);
    s->end = mem_zalloc((size_t)s->types, sizeof *s->end);
    if (!s->lag || !s->start || !s->end || build_reach(s)) {
        rc = error_set(e, ERR_NOMEM, "out of memory for planning");
        goto fail;
    }
    *out = s;
    return 0;
fail:
    space_free(s);
    return rc;
}

void space_free(struct space *s)
{
    if (!s)
        return;
    mem_free(s->reach);
    mem_free(s->last_fits);
    mem_free(s->left_bytes);
    mem_free(s->room_bytes);
    mem_free(s->lag);
    mem_free(s->start);
    mem_free(s->end);
    mem_free(s);
}

static int representative(const struct space *s, int type)
{
    return s->member[s->first_member[type]];
}

/* Two members of the types, different when the types are the same; false when there are no two. */
static bool ends(const struct space *s, int from, int to, int *a, int *b)
{
    *a = representative(s, from);
    *b = representative(s, to);
    if (from == to) {
        if (s->size[to] < 2)
            return false;
        *b = s->member[s->first_member[to] + 1];
    }
    return true;
}

double space_ceiling(const struct space *s, layer_cost *cost, const void *context)
{
    double sum = 0, hop = 0, fixed = 0, most = 0;
    for (int k = 0; k < s->blocks; k++) {
        if (!cost_block_repeats(s->p, k)) {
            most = 0;
            for (int t = 0; t < s->types; t++)
                most = fmax(most, cost(s->p, representative(s, t), LAYER_BLOCK, k, context));
        }
        sum += most;
    }
    for (int t = 0; t < s->types; t++) {
        int d = representative(s, t), a, b;
        sum += s->size[t] * cost(s->p, d, LAYER_OVERHEAD, 0, context);
        fixed = fmax(fixed, cost(s->p, d, LAYER_FIRST, 0, context) + cost(s->p, d, LAYER_HEAD, 0, context));
        hop = fmax(hop, fmax(cost_token_hop(s->p, s->p->devices, d), cost_token_hop(s->p, d, s->p->devices)));
        for (int u = 0; u < s->types; u++)
            if (ends(s, t, u, &a, &b))
                hop = fmax(hop, cost_token_hop(s->p, a, b));
    }
    return sum + fixed + hop * (s->p->devices + 1);
}

int space_set_tick(struct space *s, double ceiling_s)
{
    const struct plan_problem *p = s->p;
    s->tick_s = ceiling_s > 0 ? ceiling_s / 0x1p50 : 1;
    for (int t = 0; t < s->types; t++) {
        int d = representative(s, t), a, b;
        s->start[t] = space_ticks(s, cost_token_hop(p, p->devices, d));
        s->end[t] = space_ticks(s, cost_token_hop(p, d, p->devices));
        for (int u = 0; u < s->types; u++)
            s->lag[t * s->types + u] =
                ends(s, t, u, &a, &b) ? space_ticks(s, cost_token_hop(p, a, b)) : TICKS_NEVER;
    }
    return 0;
}

ticks space_ticks(const struct space *s, double seconds)
{
    return (ticks)llround(seconds / s->tick_s);
}

ticks *space_transfer(const struct space *s, double tokens)
{
    ticks *busy = mem_zalloc((size_t)s->types * (size_t)s->types, sizeof *busy);
    for (int t = 0; busy && t < s->types; t++)
        for (int u = 0; u < s->types; u++) {
            int a, b;
            busy[t * s->types + u] =
                ends(s, t, u, &a, &b) ? space_ticks(s, cost_transfer(s->p, a, b, tokens)) : TICKS_NEVER;
        }
    return busy;
}

static int layer_alloc(struct layer *l, const struct space *s)
{
    size_t types = (size_t)s->types;
    *l = (struct layer){
        .prefix = mem_zalloc(types * (size_t)(s->blocks + 1), sizeof(ticks)),
        .overhead = mem_zalloc(types, sizeof(ticks)),
        .first = mem_zalloc(types, sizeof(ticks)),
        .head = mem_zalloc(types, sizeof(ticks)),
    };
    if (l->prefix && l->overhead && l->first && l->head)
        return 0;
    layer_free(l);
    return ERR_NOMEM;
}

int layer_new(struct layer *out, const struct space *s, layer_cost *cost, const void *context)
{
    if (layer_alloc(out, s))
        return ERR_NOMEM;
    for (int t = 0; t < s->types; t++) {
        int d = representative(s, t);
        ticks *prefix = out->prefix + (size_t)t * (size_t)(s->blocks + 1);
        for (int k = 0; k < s->blocks; k++)
            prefix[k + 1] = prefix[k] + (cost_block_repeats(s->p, k) ? prefix[k] - prefix[k - 1]
                                                          : space_ticks(s, cost(s->p, d, LAYER_BLOCK, k, context)));
        out->overhead[t] = space_ticks(s, cost(s->p, d, LAYER_OVERHEAD, 0, context));
        out->first[t] = space_ticks(s, cost(s->p, d, LAYER_FIRST, 0, context));
        out->head[t] = space_ticks(s, cost(s->p, d, LAYER_HEAD, 0, context));
    }
    return 0;
}

int layer_sum(struct layer *out, const struct space *s, const struct layer *a, const struct layer *b)
{
    struct layer l;
    if (layer_alloc(&l, s))
        return ERR_NOMEM;
    for (size_t i = 0; i < (size_t)s->types * (size_t)(s->blocks + 1); i++)
        l.prefix[i] = a->prefix[i] + b->prefix[i];
    for (int t = 0; t < s->types; t++) {
        l.overhead[t] = a->overhead[t] + b->overhead[t];
        l.first[t] = a->first[t] + b->first[t];
        l.head[t] = a->head[t] + b->head[t];
    }
    *out = l;
    return 0;
}

void layer_free(struct layer *l)
{
    mem_free(l->prefix);
    mem_free(l->overhead);
    mem_free(l->first);
    mem_free(l->head);
    *l = (struct layer){0};
}

int limits_new(struct limits *out, const struct space *s)
{
    size_t cells = (size_t)s->types * (size_t)s->blocks;
    *out = (struct limits){
        .reach = mem_zalloc(cells, sizeof(int)),
        .low = mem_zalloc(cells, sizeof(int)),
        .room = mem_zalloc(cells, sizeof(int)),
        .last_fits = mem_zalloc(cells, 1),
    };
    if (out->reach && out->low && out->room && out->last_fits)
        return 0;
    limits_free(out);
    return ERR_NOMEM;
}

void limits_set(struct limits *l, const struct space *s, const struct layer *work, ticks least, ticks most)
{
    int n = s->blocks;
    l->least = least;
    l->most = most;
    for (int t = 0; t < s->types; t++) {
        int end = 0, low = 0;
        for (int j = 0; j < n; j++) {
            size_t at = (size_t)t * (size_t)n + (size_t)j;
            int memory = s->reach[at];
            l->last_fits[at] = s->last_fits[at];
            if (!work) {
                l->reach[at] = memory;
                l->low[at] = j + 1;
                continue;
            }
            /* A middle stage never ends at n, so its work here is without the head. */
            end = end < j ? j : end;
            while (end < memory && layer_stage(work, s, t, j, end + 1) - (end + 1 == n ? work->head[t] : 0) <= most)
                end++;
            l->reach[at] = end < memory ? end : memory;
            low = low < j + 1 ? j + 1 : low;
            while (low < n && layer_stage(work, s, t, j, low) < least)
                low++;
            l->low[at] = low;
            if (layer_stage(work, s, t, j, n) > most)
                l->last_fits[at] = 0;
        }
        for (int j = n - 1, most_blocks = 0; j >= 0; j--) {
            size_t at = (size_t)t * (size_t)n + (size_t)j;
            most_blocks = l->reach[at] - j > most_blocks ? l->reach[at] - j : most_blocks;
            l->room[at] = most_blocks;
        }
    }
}

void limits_free(struct limits *l)
{
    mem_free(l->reach);
    mem_free(l->low);
    mem_free(l->room);
    mem_free(l->last_fits);
    *l = (struct limits){0};
}
