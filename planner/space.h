/* The partitioner's search space, shared by its searches: identical devices collapsed into types, memory turned into
 * reach tables, seconds into whole ticks, block costs into prefix sums. Internal to planner/.
 *
 * Ticks: every cost is rounded once, per block, to an integer number of ticks (2^50 of them are more than any plan can
 * cost), so that sums are exact, equal plans compare equal, and nothing overflows. */
#ifndef BRIGADE_PLANNER_SPACE_H
#define BRIGADE_PLANNER_SPACE_H

#include <stdint.h>

#include "planner/plan.h"

typedef int64_t ticks;
#define TICKS_NEVER ((ticks)1 << 60) /* not reachable; three of them still add up without overflow */

struct space {
    const struct plan_problem *p;
    int blocks, types;
    int type_of[PLAN_MAX_DEVICES];
    int size[PLAN_MAX_DEVICES];       /* devices of a type */
    int member[PLAN_MAX_DEVICES];     /* devices sorted by type, then by index */
    int first_member[PLAN_MAX_DEVICES]; /* of a type, into member */
    uint64_t mask[PLAN_MAX_DEVICES];  /* of a type's devices */

    /* By type and first block j: a middle stage may end before any block up to reach (j: not even one fits). */
    int *reach;         /* [types][blocks] */
    uint8_t *last_fits; /* [types][blocks] blocks j to the end, with the head */

    double *left_bytes; /* [blocks + 1] memory of the blocks from j on, with the head */
    double *room_bytes; /* [types] beside the buffers */

    double tick_s;
    ticks *lag;         /* [types][types] half a round trip */
    ticks *start, *end; /* [types] token hops */

    /* Constraints. */
    int stages;         /* exactly, or 0 */
    int boundary[PLAN_MAX_DEVICES + 1]; /* with counts: where stage s starts */
    bool has_counts, has_order;
    int order_type[PLAN_MAX_DEVICES];
    int first_type;     /* the only type that may stand first, or -1 */
    int exclude_stages; /* 0: none */
    int exclude_type[PLAN_MAX_DEVICES];
};

/* One cost of a stage: overhead + prefix[end] - prefix[begin], + first for a stage from block 0, + head to the end. */
struct layer {
    ticks *prefix;                 /* [types][blocks + 1] */
    ticks *overhead, *first, *head; /* [types] */
};

/* Seconds of the parts of a layer; context is passed through. kind: a block, or one of the others. */
enum layer_part { LAYER_BLOCK, LAYER_OVERHEAD, LAYER_FIRST, LAYER_HEAD };
typedef double layer_cost(const struct plan_problem *p, int device, enum layer_part part, int block, const void *context);

/* Checks options against the problem and builds all but tick_s, lag, start and end. ERR_USAGE, ERR_NOMEM. */
int space_new(struct space **out, const struct plan_problem *p, const struct plan_options *options, struct error *e);
void space_free(struct space *s);

/* Whether exchanging the two devices changes nothing at all: the same parameters and the same links to everyone. */
bool space_interchangeable(const struct plan_problem *p, int a, int b);

/* More than any plan's cost under this layer, in seconds. */
double space_ceiling(const struct space *s, layer_cost *cost, const void *context);
/* Sets the tick from a ceiling on everything that will be added up, and with it lag, start and end. ERR_NOMEM. */
int space_set_tick(struct space *s, double ceiling_s);
ticks space_ticks(const struct space *s, double seconds);

/* 0 or ERR_NOMEM; a layer is freed with layer_free, also a zeroed one. */
int layer_new(struct layer *out, const struct space *s, layer_cost *cost, const void *context);
/* out = a + b, all parts. */
int layer_sum(struct layer *out, const struct space *s, const struct layer *a, const struct layer *b);
void layer_free(struct layer *l);
/* [types][types] ticks a link is busy with so many tokens; NULL when out of memory. */
ticks *space_transfer(const struct space *s, double tokens);

static inline ticks layer_stage(const struct layer *l, const struct space *s, int type, int from, int to)
{
    const ticks *prefix = l->prefix + (size_t)type * (size_t)(s->blocks + 1);
    return l->overhead[type] + prefix[to] - prefix[from] + (from == 0 ? l->first[type] : 0) +
           (to == s->blocks ? l->head[type] : 0);
}

/* What a limit on the work of a stage, and on the time of a transfer, leaves of the space. */
struct limits {
    int *reach;         /* [types][blocks] */
    int *low;           /* [types][blocks] the first end at which the work is at least `least` */
    int *room;          /* [types][blocks] the most blocks a stage holds that starts at j or later */
    uint8_t *last_fits; /* [types][blocks] */
    ticks most, least;
};

/* Arrays for a space; filled by limits_set. most: no stage above it; work may be NULL with most TICKS_NEVER. */
int limits_new(struct limits *out, const struct space *s);
void limits_set(struct limits *l, const struct space *s, const struct layer *work, ticks least, ticks most);
void limits_free(struct limits *l);

#endif
