/* Local search over sequences of devices. For each sequence the blocks are first balanced by work under a common limit,
 * then single boundaries move while that helps. Finds good plans where the beam's view is narrow. Pure. */
#include <string.h>

#include "base/hash.h"
#include "planner/search.h"

struct local {
    const struct search *s;
    int effort; /* evaluations left */
    struct candidate best;
    ticks value;
};

static int type_at(const struct local *x, const struct candidate *c, int s)
{
    return x->s->space->type_of[c->device[s]];
}

static bool fits(const struct local *x, const struct candidate *c)
{
    const struct space *sp = x->s->space;
    for (int s = 0; s < c->stages; s++) {
        int from = s ? c->end[s - 1] : 0, type = type_at(x, c, s);
        size_t at = (size_t)type * (size_t)sp->blocks + (size_t)from;
        if (c->end[s] <= from || (s + 1 < c->stages ? c->end[s] > sp->reach[at] : !sp->last_fits[at]))
            return false;
    }
    return true;
}

static ticks larger(ticks a, ticks b)
{
    return a > b ? a : b;
}

/* The value of a whole plan: the tracks run through its stages. */
static ticks evaluate(struct local *x, const struct candidate *c)
{
    const struct search *s = x->s;
    const struct space *sp = s->space;
    ticks t[SEARCH_MAX_TRACKS], work = 0;
    x->effort--;
    for (int i = 0; i < s->tracks; i++)
        t[i] = sp->start[type_at(x, c, 0)];
    for (int g = 0; g < c->stages; g++) {
        int type = type_at(x, c, g), from = g ? c->end[g - 1] : 0;
        ticks busy = 0;
        if (g) {
            size_t at = (size_t)type_at(x, c, g - 1) * (size_t)sp->types + (size_t)type;
            if (s->work_factor)
                work = larger(work, s->work_busy[at]);
            for (int i = 0; i < s->tracks; i++) {
                ticks single = t[i] + s->track[i].single_busy[at];
                busy = i ? larger(single, busy + s->track[i].run_busy[at]) : single;
                t[i] = busy + sp->lag[at];
            }
        }
        if (s->work_factor)
            work = larger(work, layer_stage(s->work, sp, type, from, c->end[g]));
        for (int i = 0; i < s->tracks; i++) {
            t[i] += layer_stage(s->track[i].single, sp, type, from, c->end[g]);
            if (i)
                t[i] = larger(t[i], t[i - 1] + layer_stage(s->track[i].run, sp, type, from, c->end[g]));
        }
    }
    ticks value = t[s->tracks - 1] + sp->end[type_at(x, c, c->stages - 1)];
    return s->work_factor ? larger(value, work * s->work_factor) : value;
}

/* Gives each stage as many blocks as memory and the work limit allow; false when that does not reach the end. */
static bool spread(const struct local *x, struct candidate *c, ticks limit)
{
    const struct space *sp = x->s->space;
    int at = 0, n = sp->blocks;
    for (int s = 0; s < c->stages; s++) {
        int type = type_at(x, c, s), left = c->stages - s - 1;
        int high = sp->reach[(size_t)type * (size_t)n + (size_t)at], end = at + 1;
        high = high < n - left ? high : n - left;
        if (!left) {
            c->end[s] = n;
            return sp->last_fits[(size_t)type * (size_t)n + (size_t)at] &&
                   layer_stage(x->s->work, sp, type, at, n) <= limit;
        }
        if (high < end)
            return false;
        for (int low = end; low <= high;) { /* the last end within the limit */
            int middle = low + (high - low) / 2;
            if (layer_stage(x->s->work, sp, type, at, middle) <= limit) {
                end = middle;
                low = middle + 1;
            } else {
                high = middle - 1;
            }
        }
        c->end[s] = at = end;
    }
    return false;
}

static bool balance(const struct local *x, struct candidate *c)
{
    ticks low = 0, high = (ticks)1 << 52;
    struct candidate tried = *c;
    if (!spread(x, &tried, high))
        return false;
    for (int i = 0; i < 60 && high - low > high >> 8; i++) {
        ticks middle = low + (high - low) / 2;
        struct candidate next = *c;
        if (spread(x, &next, middle)) {
            tried = next;
            high = middle;
        } else {
            low = middle;
        }
    }
    *c = tried;
    return fits(x, c);
}

/* Moves single boundaries, by ever smaller steps, while that helps. */
static ticks slide_boundaries(struct local *x, struct candidate *c, ticks value)
{
    bool moved = true;
    while (moved && x->effort > 0) {
        moved = false;
        for (int s = 0; s + 1 < c->stages; s++)
            for (int step = 8; step; step = step > 0 ? -step : -step / 2) {
                struct candidate next = *c;
                next.end[s] += step;
                if (next.end[s] < 1 || next.end[s] >= x->s->space->blocks || !fits(x, &next))
                    continue;
                ticks v = evaluate(x, &next);
                if (v < value) {
                    *c = next;
                    value = v;
                    moved = true;
                }
            }
    }
    return value;
}

/* Tries a sequence of devices; true when it became the best. */
static bool try_devices(struct local *x, struct candidate *c)
{
    const struct space *sp = x->s->space;
    if (c->stages < 1 || c->stages > sp->blocks ||
        (sp->first_type >= 0 && sp->type_of[c->device[0]] != sp->first_type))
        return false;
    x->effort -= 4; /* what balancing takes */
    if (!balance(x, c))
        return false;
    ticks value = evaluate(x, c);
    if (value < x->value + x->value / 4)
        value = slide_boundaries(x, c, value);
    if (value >= x->value)
        return false;
    x->best = *c;
    x->value = value;
    return true;
}

static bool uses(const struct candidate *c, int device)
{
    for (int s = 0; s < c->stages; s++)
        if (c->device[s] == device)
            return true;
    return false;
}

static void insert(struct candidate *c, int at, int device)
{
    memmove(&c->device[at + 1], &c->device[at], (size_t)(c->stages - at) * sizeof c->device[0]);
    c->device[at] = device;
    c->stages++;
}

static void drop(struct candidate *c, int at)
{
    memmove(&c->device[at], &c->device[at + 1], (size_t)(c->stages - at - 1) * sizeof c->device[0]);
    c->stages--;
}

/* The first better neighbour of the best plan; false when there is none. */
static bool step(struct local *x)
{
    const struct candidate from = x->best;
    const struct space *sp = x->s->space;
    struct candidate c;
    for (int s = 0; s < from.stages && x->effort > 0; s++) {
        c = from;
        drop(&c, s);
        if (try_devices(x, &c))
            return true;
        for (int t = s + 1; t < from.stages; t++) { /* two change places */
            c = from;
            c.device[s] = from.device[t];
            c.device[t] = from.device[s];
            if (try_devices(x, &c))
                return true;
        }
        for (int to = 0; to < from.stages; to++) { /* to another place */
            c = from;
            drop(&c, s);
            insert(&c, to, from.device[s]);
            if (to != s && try_devices(x, &c))
                return true;
        }
    }
    for (int t = 0; t < sp->types && x->effort > 0; t++) {
        int device = -1;
        for (int i = 0; i < sp->size[t] && device < 0; i++)
            if (!uses(&from, sp->member[sp->first_member[t] + i]))
                device = sp->member[sp->first_member[t] + i];
        for (int s = 0; device >= 0 && s <= from.stages && x->effort > 0; s++) {
            c = from;
            if (from.stages < sp->p->devices) {
                insert(&c, s, device);
                if (try_devices(x, &c))
                    return true;
            }
            c = from;
            if (s < from.stages) {
                c.device[s] = device;
                if (try_devices(x, &c))
                    return true;
            }
        }
    }
    return false;
}

bool search_split(const struct search *s, struct candidate *c, ticks *value, int effort)
{
    struct local x = {.s = s, .effort = effort};
    struct candidate next = *c;
    if (*value >= TICKS_NEVER && !balance(&x, &next))
        return false;
    ticks v = slide_boundaries(&x, &next, evaluate(&x, &next));
    if (v >= *value)
        return false;
    *c = next;
    *value = v;
    return true;
}

/* Shakes a plan: some devices change for others, drawn by a counter so that runs repeat. */
static bool shake(struct local *x, struct candidate *c, uint64_t round)
{
    const struct space *sp = x->s->space;
    int changes = 1 + (int)(hash_mix64(round) % 3);
    for (int i = 0; i < changes; i++) {
        uint64_t r = hash_mix64(round * 16 + (uint64_t)i + 1);
        int at = (int)(r % (uint64_t)c->stages), device = (int)(r / 64 % (uint64_t)sp->p->devices);
        if (uses(c, device)) {
            if (c->stages > 1)
                drop(c, at);
        } else if (r >> 40 & 1 && c->stages < sp->blocks) {
            insert(c, at, device);
        } else {
            c->device[at] = device;
        }
    }
    return !(sp->first_type >= 0 && sp->type_of[c->device[0]] != sp->first_type) && c->stages <= sp->blocks &&
           balance(x, c);
}

bool search_local(const struct search *s, struct candidate *c, ticks *value, int effort)
{
    struct local x = {.s = s, .effort = effort, .best = *c};
    struct candidate best = *c;
    ticks start = evaluate(&x, c);
    x.value = start;
    ticks least = x.value = slide_boundaries(&x, &x.best, x.value);
    for (uint64_t round = 1; x.effort > 0; round++) {
        while (x.effort > 0 && step(&x))
            ;
        if (x.value < least) {
            least = x.value;
            best = x.best;
        }
        struct candidate next = best;
        if (!shake(&x, &next, round)) {
            x.effort -= 10;
            continue;
        }
        x.best = next;
        x.value = slide_boundaries(&x, &x.best, evaluate(&x, &next));
    }
    if (least >= start)
        return false;
    *c = best;
    *value = least;
    return true;
}
