/* The page table's other half: which KV pages are free. One pool for the whole pipeline, for every stage keeps the same
 * pages for its own blocks; so admission is decided here, once.
 *
 * Pages are counted references, so that sequences with a common prefix can share them. Pure; one owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_PAGES_H
#define BRIGADE_COORDINATOR_CORE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct page_pool;

/* Pages 0 to count-1, all free. *out is the caller's: pages_destroy. */
int pages_create(uint32_t count, struct page_pool **out, struct error *err);
void pages_destroy(struct page_pool *p); /* NULL is fine */
/* Takes a free page with one reference: 0, or ERR_BUSY when none is free. */
int pages_take(struct page_pool *p, uint32_t *page);
void pages_share(struct page_pool *p, uint32_t page); /* one reference more to a page in use */
bool pages_drop(struct page_pool *p, uint32_t page);  /* one fewer; true when that freed it */
uint32_t pages_references(const struct page_pool *p, uint32_t page);
uint32_t pages_total(const struct page_pool *p);
uint32_t pages_free(const struct page_pool *p);

#endif
