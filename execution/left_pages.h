/* What blocks held when they left a stage: by block and page, the running token hashes of each whole page. Their contents
 * lie elsewhere. Once made it does not change, whatever becomes of the table it was made from. Pure; one owner at a time. */
#ifndef BRIGADE_EXECUTION_LEFT_PAGES_H
#define BRIGADE_EXECUTION_LEFT_PAGES_H

#include "execution/held_pages.h"

struct left_pages;

/* Of all blocks of the stage but first to last (first > last: of all). Call it before the stage is another one. *out is the
 * caller's: left_pages_destroy. ERR_NOMEM. */
int left_pages_create(const struct held_pages *h, const struct sequence_table *t, uint32_t first_block,
                      uint32_t last_block, struct left_pages **out);
void left_pages_destroy(struct left_pages *l); /* NULL is fine */
/* The running hashes after each position of a page of a block that left, when the last of them is `hash`; else NULL. */
const uint64_t *left_pages_find(const struct left_pages *l, uint32_t block, uint32_t page, uint64_t hash);

#endif
