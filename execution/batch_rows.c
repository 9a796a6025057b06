/* Rows by page and rows by span. Owns nothing. */
#include "execution/batch_rows.h"

#include <string.h>

/* The part of a page that a span touches, and where its rows lie. */
struct piece {
    uint32_t span, done; /* of the spans; positions of that span already passed */
    uint32_t page, slot, count, row;
    const uint64_t *hashes; /* of the page */
};

static bool next_piece(const struct sequence_table *t, const struct batch_span *spans, uint32_t span_count,
                       struct piece *p)
{
    if (p->span == span_count)
        return false;
    const struct batch_span *s = &spans[p->span];
    uint32_t position = s->first + p->done, left = s->count - p->done, filled;
    p->row += p->count;
    p->page = s->pages[position / KV_PAGE_TOKENS];
    p->slot = position % KV_PAGE_TOKENS;
    p->count = left < KV_PAGE_TOKENS - p->slot ? left : KV_PAGE_TOKENS - p->slot;
    p->hashes = sequence_page(t, p->page, &filled);
    p->done += p->count;
    if (p->done == s->count) {
        p->done = 0;
        p->span++;
    }
    return true;
}

void batch_rows_keep(struct kept_rows *k, const struct sequence_table *t, const struct batch_span *spans,
                     uint32_t span_count, uint32_t boundary, const void *rows)
{
    struct piece p = {0};
    while (k && next_piece(t, spans, span_count, &p))
        kept_rows_put(k, boundary, p.page, p.slot, p.count, p.hashes,
                      (const char *)rows + p.row * kept_rows_row_bytes(k));
}

int batch_rows_gather(const struct kept_rows *k, const struct sequence_table *t, const struct batch_span *spans,
                      uint32_t span_count, uint32_t boundary, void *rows, struct error *err)
{
    struct piece p = {0};
    while (next_piece(t, spans, span_count, &p)) {
        const void *page = kept_rows_get(k, boundary, p.page, p.hashes[KV_PAGE_TOKENS - 1]);
        if (!page || p.count != KV_PAGE_TOKENS)
            return error_set(err, ERR_ORDER, "the rows of page %u on their way into block %u are not kept here", p.page,
                             boundary);
        memcpy((char *)rows + p.row * kept_rows_row_bytes(k), page, KV_PAGE_TOKENS * kept_rows_row_bytes(k));
    }
    return 0;
}
