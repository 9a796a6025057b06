/* Which KV pages each block on this machine really holds. The table of sequences knows what a page stands for; blocks that
 * came later, or were left out while others computed, may lack it. One bit a block and page: set, the block's page holds
 * all that the table says of it.
 *
 * It outlives epochs, so that a stage can say what need not be computed again. Pure bookkeeping; the thread that owns the
 * stage. */
#ifndef BRIGADE_EXECUTION_HELD_PAGES_H
#define BRIGADE_EXECUTION_HELD_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/model/sequence.h"
#include "proto/frame.h"

struct held_pages;

/* For a model of `blocks` blocks and a cache of `pages` pages; nothing is held. *out is the caller's:
 * held_pages_destroy. */
int held_pages_create(uint32_t blocks, uint32_t pages, struct held_pages **out, struct error *err);
void held_pages_destroy(struct held_pages *h); /* NULL is fine */

/* The stage has blocks first to last from now on: what others held is gone. */
void held_pages_stage(struct held_pages *h, uint32_t first_block, uint32_t last_block);
void held_pages_clear(struct held_pages *h);
/* A page was begun anew by all blocks of the stage. */
void held_pages_begin(struct held_pages *h, uint32_t page);
/* Blocks [first_block, end_block) have caught up with what a page stands for. */
void held_pages_catch_up(struct held_pages *h, uint32_t page, uint32_t first_block, uint32_t end_block);
/* No block holds it any more. */
void held_pages_forget(struct held_pages *h, uint32_t page);
void held_pages_copy(struct held_pages *h, uint32_t from, uint32_t to);
/* The stage's blocks, and the number of pages. */
uint32_t held_pages_range(const struct held_pages *h, uint32_t *first_block, uint32_t *last_block);
/* Whether all blocks of the stage hold it. */
bool held_pages_all(const struct held_pages *h, uint32_t page);
bool held_pages_has(const struct held_pages *h, uint32_t block, uint32_t page);

/* Whether a block of the stage could take over this page, whole, from another node: it does not hold it, and no block here
 * holds anything else in its place. */
bool held_pages_lacks(const struct held_pages *h, const struct sequence_table *t, uint32_t block, uint32_t page,
                      uint64_t hash);
/* It has taken it over: these are the running hashes after each position. False when held_pages_lacks says no. */
bool held_pages_adopt(struct held_pages *h, struct sequence_table *t, uint32_t block, uint32_t page,
                      const uint64_t hashes[]);

/* What the stage's blocks hold of whole pages, as a Loaded message says it: neighbouring blocks that hold the same in one
 * entry, at most `most` pages and FRAME_HELD_MAX entries in all. *out is one allocation, the caller's: mem_free. Returns the number of entries, or
 * ERR_NOMEM. */
int held_pages_list(const struct held_pages *h, const struct sequence_table *t, uint32_t most,
                    struct control_held **out);

#endif
