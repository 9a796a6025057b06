/* Greedy merging of neighbours, the heart of both kinds of BPE: of all pairs that may merge, the one of lowest rank
 * does, the leftmost of equals, until none may. Private to engine/text; a struct merge belongs to one call.
 * Source: Sennrich, Haddow, Birch 2016; the queue makes it O(n log n). */
#ifndef BRIGADE_ENGINE_TEXT_MERGE_H
#define BRIGADE_ENGINE_TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERGE_NONE UINT32_MAX

struct merge_symbol {
    uint32_t start, size; /* bytes of the text */
    int32_t id;           /* -1: no token yet */
    uint32_t next;        /* MERGE_NONE: the last one */
    uint32_t previous;
    uint32_t rank; /* of the pair (this, next); MERGE_NONE: may not merge */
    int32_t whole; /* what the pair becomes */
};

struct merge {
    struct merge_symbol *symbols;
    size_t count, capacity;
    /* Waiting pairs, each as rank << 32 | left symbol: a sorted run taken from its front, and a heap of four children
     * for those that came later. */
    uint64_t *run, *spare;
    size_t run_at, run_count, run_capacity;
    uint64_t *heap;
    size_t heap_count, heap_capacity;
};

/* Whether two neighbours may merge: sets *rank (below MERGE_NONE) and *whole. */
typedef bool merge_lookup(const void *context, const struct merge_symbol *left, const struct merge_symbol *right,
                          uint32_t *rank, int32_t *whole);

int merge_add(struct merge *m, uint32_t start, uint32_t size, int32_t id); /* appends a symbol; 0 or ERR_NOMEM */
/* Merges symbols[0 .. count); what is left is the chain from symbol 0 along next. 0 or ERR_NOMEM. */
int merge_run(struct merge *m, merge_lookup *lookup, const void *context);
void merge_free(struct merge *m);

#endif
