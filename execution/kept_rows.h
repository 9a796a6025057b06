/* Rows that a stage sent on, kept so that they can be sent again, or computed on from where they left: encoded activations
 * by KV page and block boundary (boundary b: what goes into block b). Bounded: the pages written longest ago go first,
 * which are those of the oldest sequence. Each row is proven by the running token hash of its position, as the pages are
 * (engine/model/sequence.h), so sequences that share a page share its rows.
 *
 * Knows bytes only. Outlives epochs; the thread that owns the stage. */
#ifndef BRIGADE_EXECUTION_KEPT_ROWS_H
#define BRIGADE_EXECUTION_KEPT_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/frame.h"

struct kept_rows;

/* Rows of row_bytes for pages below `pages`. Memory is taken as it is needed, so many bytes at most as kept_rows_begin says.
 * *out is the caller's: kept_rows_destroy. */
int kept_rows_create(uint32_t pages, size_t row_bytes, struct kept_rows **out, struct error *err);
void kept_rows_destroy(struct kept_rows *k); /* NULL is fine */
/* A stage begins to send rows into block `boundary` (0: it sends none). Gives up the oldest pages until no more than `bytes`
 * are taken, and takes no more from now on. What is left is promised: it is not given up for other rows until
 * kept_rows_free, nor while its page stands for the same. */
void kept_rows_begin(struct kept_rows *k, uint32_t boundary, uint64_t bytes);
/* Nothing is promised any more. */
void kept_rows_free(struct kept_rows *k);
uint64_t kept_rows_bytes(const struct kept_rows *k); /* taken now */
size_t kept_rows_row_bytes(const struct kept_rows *k);

/* Keeps `count` rows of a page's slots from `slot` on. hashes: of the page, all its slots up to slot+count-1. Rows whose
 * beginning is not here are not kept. */
void kept_rows_put(struct kept_rows *k, uint32_t boundary, uint32_t page, uint32_t slot, uint32_t count,
                   const uint64_t *hashes, const void *rows);
/* A whole page's rows when they are those of `hash` (after its last slot), else NULL. */
const void *kept_rows_get(const struct kept_rows *k, uint32_t boundary, uint32_t page, uint64_t hash);

/* The whole pages of each boundary, as a Loaded message says it: as held_pages_list. */
int kept_rows_list(const struct kept_rows *k, uint32_t most, struct control_held **out);

#endif
