/* Free KV pages as a stack, and a reference count a page. Owns only its arrays; pure; one owner thread. */
#include "coordinator/core/pages.h"

#include "base/memory.h"

struct page_pool {
    uint32_t total, free;
    uint32_t *stack; /* stack[0..free): free pages, the next one to take last */
    uint32_t *references;
};

int pages_create(uint32_t count, struct page_pool **out, struct error *err)
{
    struct page_pool *p = mem_zalloc(1, sizeof *p);
    if (!p || !(p->stack = mem_zalloc(count, sizeof *p->stack)) ||
        !(p->references = mem_zalloc(count, sizeof *p->references))) {
        pages_destroy(p);
        return error_set(err, ERR_NOMEM, "out of memory for a table of %u KV pages", count);
    }
    p->total = p->free = count;
    for (uint32_t i = 0; i < count; i++)
        p->stack[i] = count - 1 - i;
    *out = p;
    return 0;
}

void pages_destroy(struct page_pool *p)
{
    if (!p)
        return;
    mem_free(p->stack);
    mem_free(p->references);
    mem_free(p);
}

int pages_take(struct page_pool *p, uint32_t *page)
{
    if (!p->free)
        return ERR_BUSY;
    *page = p->stack[--p->free];
    p->references[*page] = 1;
    return 0;
}

void pages_share(struct page_pool *p, uint32_t page)
{
    if (page < p->total && p->references[page])
        p->references[page]++;
}

bool pages_drop(struct page_pool *p, uint32_t page)
{
    if (page >= p->total || !p->references[page] || --p->references[page])
        return false;
    p->stack[p->free++] = page;
    return true;
}

uint32_t pages_references(const struct page_pool *p, uint32_t page)
{
    return page < p->total ? p->references[page] : 0;
}

uint32_t pages_total(const struct page_pool *p)
{
    return p->total;
}

uint32_t pages_free(const struct page_pool *p)
{
    return p->free;
}
