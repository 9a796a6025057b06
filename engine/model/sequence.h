/* The sequences a stage holds: which pages carry which tokens. Every stage of a pipeline keeps the same table, told by
 * the same frames, so "what does this KV stand for" has one answer everywhere.
 *
 * Pure bookkeeping: no tensor is touched. Each page remembers how many positions it holds and the running token hash
 * after them; a span that builds on pages whose tokens are not the ones it names is refused (ERR_ORDER), never
 * computed. One owner thread. */
#ifndef BRIGADE_ENGINE_MODEL_SEQUENCE_H
#define BRIGADE_ENGINE_MODEL_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/model/sampler.h"

struct sequence_table;

/* What a frame says of one sequence's part in a micro-batch. Positions [first, first+count) are computed now. */
struct span_update {
    uint32_t sequence;         /* id given by the scheduler */
    uint32_t first, count;
    uint32_t known;            /* tokens lists positions [known, first+count); known ≤ first. Usually known = first;
                                  0 when a sequence starts on shared pages or is replayed onto kept ones */
    const int32_t *tokens;     /* first+count-known of them */
    uint32_t page_offset;      /* pages[] replaces the page table from this entry on (and cuts what is beyond) */
    const uint32_t *pages;
    uint32_t page_count;
    uint64_t hash;             /* running hash after position first+count: must equal what the tokens give */
    const struct sampling *sampling; /* sets the sequence's sampling; NULL keeps it */
    bool held;                 /* the pages must hold positions [first, first+count) already: none is written */
};

struct sequence {
    uint32_t id;
    uint32_t length;           /* positions in the KV */
    int32_t *tokens;           /* all of them */
    uint32_t *pages;           /* page of position p: pages[p / KV_PAGE_TOKENS] */
    uint32_t page_count;
    uint64_t hash;
    struct sampling sampling;
};

/* Bounds are fixed at creation; memory is allocated as sequences need it. */
int sequence_table_create(uint32_t max_sequences, uint32_t max_context, uint32_t kv_pages, uint32_t vocabulary,
                          struct sequence_table **out, struct error *err);
void sequence_table_destroy(struct sequence_table *t);

/* Checks an update against the table and applies it: creates the sequence at known 0, cuts it back when first is
 * below its length, appends. Nothing changes on failure. *out stays valid until the sequence is released. */
int sequence_apply(struct sequence_table *t, const struct span_update *u, const struct sequence **out,
                   struct error *err);
/* As if position `length` and above had never been: for speculation and cancelled chunks. */
int sequence_truncate(struct sequence_table *t, uint32_t sequence, uint32_t length);
void sequence_release(struct sequence_table *t, uint32_t sequence); /* unknown ids are ignored */
void sequence_release_all(struct sequence_table *t); /* what pages stand for stays */
void sequence_clear(struct sequence_table *t); /* all of them, and what pages stand for */
/* Page dst now stands for the first `count` positions that src stands for (the stage copies the bytes). */
int sequence_page_copied(struct sequence_table *t, uint32_t src, uint32_t dst, uint32_t count);
/* Page now stands for the whole page of positions with these running hashes (the stage has the bytes from elsewhere). */
int sequence_page_adopt(struct sequence_table *t, uint32_t page, const uint64_t hashes[]);
/* The running hashes after each of a page's *filled positions; NULL for a page that is none of ours. */
const uint64_t *sequence_page(const struct sequence_table *t, uint32_t page, uint32_t *filled);
const struct sequence *sequence_find(const struct sequence_table *t, uint32_t sequence);
uint32_t sequence_count(const struct sequence_table *t);

#endif
