/* KV pages that may be of use again: whole pages of computed tokens, found by the tokens they stand for.
 *
 * A sequence that begins like an earlier one starts on its pages and computes only the rest. Pages are kept after their
 * sequence has ended, for as long as nobody needs the room: the least recently used go first, the end of a prefix before
 * its beginning. A page is found by its own tokens and the page before it, never by a hash alone, so one prompt cannot
 * reach another's cache by a collision. All pages of the scheduler are taken and dropped through here. Pure; one owner
 * thread. */
#ifndef BRIGADE_COORDINATOR_CORE_PREFIX_H
#define BRIGADE_COORDINATOR_CORE_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct prefix_cache;

/* A pool of `pages` pages of page_tokens positions, all free. *out is the caller's: prefix_destroy. */
int prefix_create(uint32_t pages, uint32_t page_tokens, struct prefix_cache **out, struct error *err);
void prefix_destroy(struct prefix_cache *c); /* NULL is fine */

/* A page for new tokens, with one reference: a free one, or else the least recently used idle one. ERR_BUSY: none. */
int prefix_take(struct prefix_cache *c, uint32_t *page);
/* One reference fewer; the page stays findable when it is kept, else it is free. */
void prefix_drop(struct prefix_cache *c, uint32_t page);
/* Page number `index` of a sequence with these pages and tokens is computed whole: it may be found from now on. */
void prefix_keep(struct prefix_cache *c, const uint32_t *pages, uint32_t index, const int32_t *tokens);
/* The longest run of kept pages that hold tokens[0 …], at most `most`: their numbers in pages[], one reference more on
 * each. Returns how many. Pages with a mark (prefix_review) are shared only with marks[], where theirs go; with NULL the
 * run ends before the first of them. */
uint32_t prefix_share(struct prefix_cache *c, const int32_t *tokens, uint32_t most, uint32_t *pages, uint8_t *marks);
/* Forgets everything kept: the stages behind are new. */
void prefix_clear(struct prefix_cache *c);

/* After the stages have changed: `judge` says of each kept page, by the running hash of its tokens, that it is as good as
 * before (0), that it can be shared but has gaps of some kind that must be filled first (a mark, 1 to 255), or that it is
 * to be forgotten (negative). */
void prefix_review(struct prefix_cache *c, int (*judge)(void *context, uint32_t page, uint64_t hash), void *context);
/* Kept pages and the running hash after each, the most recently used ones, at most so many; returns how many. */
uint32_t prefix_list(const struct prefix_cache *c, uint32_t most, uint32_t *pages, uint64_t *hashes);
/* Pages that still have a mark are forgotten. */
void prefix_drop_marked(struct prefix_cache *c);
/* What prefix_share would find, without taking it. */
uint32_t prefix_look(const struct prefix_cache *c, const int32_t *tokens, uint32_t most, uint8_t *marks);
/* A page in use is not to be found any more until it is kept again. */
void prefix_unkeep(struct prefix_cache *c, uint32_t page);

/* Pages that could be taken now: free ones and idle kept ones; and those in use by sequences. */
uint32_t prefix_available(const struct prefix_cache *c);
uint32_t prefix_idle(const struct prefix_cache *c);
uint32_t prefix_total(const struct prefix_cache *c);

#endif
