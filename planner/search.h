/* The exact search and the beam search over partial plans. Internal to planner/.
 *
 * A label is a partial plan: devices used, the last one, blocks done, and the times at which it hands over. Times are a
 * vector of tracks: one for decode; for a chunked prefill one for each chunk (or for some of the chunks, the ones
 * between running as one: then times are lower bounds and search->judge tells the truth about whole plans).
 * Track i of a stage: c'[i] = max(arrival[i] + single[i], c'[i-1] + run[i]), and alike on links.
 *
 * Of two labels with the same devices used, the same blocks done and the same way on, the one whose times are nowhere
 * later dominates. Labels are taken up by rising lower bound (A*), so that the search ends with proof, or, when its
 * budget ends first, with the bound of the best label left. */
#ifndef BRIGADE_PLANNER_SEARCH_H
#define BRIGADE_PLANNER_SEARCH_H

#include "planner/bound.h"

#define SEARCH_MAX_TRACKS 32

struct label {
    uint64_t used; /* devices */
    ticks bound;   /* no completion is below this */
    ticks work;    /* the largest stage work or transfer so far */
    uint32_t parent, chain;
    uint16_t done; /* blocks */
    uint8_t type, device, depth;
    bool excluded; /* so far the excluded sequence */
    bool dead;     /* dominated or taken up */
    ticks c[];     /* [tracks] */
};
#define LABEL_NONE UINT32_MAX

struct track {
    const struct layer *single, *run;
    const ticks *single_busy, *run_busy; /* [types][types] of a link */
};

struct guide {
    const struct bound *bound;
    int track; /* the one it speaks of; with two modes after the bottleneck, and the first one before */
};

/* Of the hash table: the newest label of a future, and part of the hash, so that most others need no look. */
struct slot {
    uint32_t label, tag;
};

struct candidate {
    int stages, device[PLAN_MAX_DEVICES], end[PLAN_MAX_DEVICES]; /* blocks done after each stage */
};

struct search {
    const struct space *space;
    const struct limits *limits;
    int tracks;
    struct track track[SEARCH_MAX_TRACKS];
    int guides;
    struct guide guide[SEARCH_MAX_TRACKS + 2];
    const struct layer *work; /* what limits are on; NULL: none */
    const ticks *work_busy;
    ticks work_factor; /* value = max(work_factor x work, time): micro-batches; 0: time alone */
    ticks (*judge)(const void *context, const struct candidate *c); /* the true value; NULL: the time is true */
    const void *judge_context;

    ticks best; /* only plans below this are sought; falls as they are found */
    struct candidate found;
    bool any;   /* found holds a plan of this search */
    ticks floor; /* least time of a whole plan whose true value turned out higher */

    int64_t states, max_states; /* made, allowed */
    bool (*expired)(void *context);
    void *expired_context;
    bool cut; /* the budget ended */

    /* Owned by the search functions. */
    char *labels;
    size_t stride, count, capacity;
    struct slot *slots;
    size_t slot_count;
    uint8_t way[PLAN_MAX_DEVICES]; /* types with the same links onward share a number */
};

/* Finds tables of its own (way, stride). Set space first, tracks too. */
void search_begin(struct search *s);
void search_end(struct search *s);

/* Keeps the best `width` labels of each depth. 0 or ERR_NOMEM; improves best and found, proves nothing. */
int search_beam(struct search *s, int width);
/* *lower: every plan within the limits is at least that, or at least best. 0 or ERR_NOMEM. */
int search_exact(struct search *s, ticks *lower);

static inline struct label *search_label(const struct search *s, uint32_t i)
{
    return (struct label *)(s->labels + (size_t)i * s->stride);
}

/* Improves a plan by exchanging, adding and dropping devices, each time with the blocks balanced anew. For free problems
 * (no fixed stages, no exclusion). `effort`: plans that may be evaluated. Returns true when *c became better by the
 * tracks' time, then in *value. */
bool search_local(const struct search *s, struct candidate *c, ticks *value, int effort);

/* Keeps c's devices: balances the blocks when *value is TICKS_NEVER, then moves boundaries. True when it found better. */
bool search_split(const struct search *s, struct candidate *c, ticks *value, int effort);

/* The parts both searches share. expand calls emit for each partial plan whose bound is below s->best. The parent may
 * move while emit adds labels: expand works on a copy. */
typedef int search_emit(struct search *s, const struct label *child, void *context);
int search_expand(struct search *s, uint32_t parent, search_emit *emit, void *context);
int search_add(struct search *s, const struct label *label, uint32_t *index);
void search_root(const struct search *s, struct label *root);
bool search_spent(struct search *s);

#endif
