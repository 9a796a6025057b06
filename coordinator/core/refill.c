/* Held pages by block, kept rows by stage, and the shares that follow. Owns copies of what was said; pure. */
#include "coordinator/core/refill.h"

#include <string.h>

#include "base/memory.h"
#include "planner/problem.h"

struct heard {
    struct heard *next;
    uint32_t node, first_block, last_block;
    bool rows;
    uint64_t epoch;
    uint64_t *hash; /* [pages]; 0: not this page */
};

struct refill {
    uint32_t blocks, pages, stage_count;
    uint64_t epoch, newest; /* of the stages; of what was said */
    struct cluster_stage stages[PLAN_MAX_DEVICES];
    struct heard *heard;
    const struct heard **held; /* [blocks] what was said of a block by the node that has it now */
};

int refill_create(uint32_t blocks, uint32_t pages, struct refill **out, struct error *err)
{
    struct refill *r = mem_zalloc(1, sizeof *r);
    if (!r || !(r->held = mem_zalloc(blocks, sizeof *r->held))) {
        mem_free(r);
        return error_set(err, ERR_NOMEM, "out of memory for what %u blocks hold", blocks);
    }
    r->blocks = blocks;
    r->pages = pages;
    *out = r;
    return 0;
}

/* What is older than `epoch`, or was said by `node` (if any). */
static void forget(struct refill *r, uint64_t epoch, uint32_t node)
{
    for (struct heard **at = &r->heard; *at;) {
        struct heard *h = *at;
        if (h->epoch >= epoch && h->node != node) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        mem_free(h);
    }
}

void refill_destroy(struct refill *r)
{
    if (!r)
        return;
    forget(r, UINT64_MAX, CLUSTER_NODES_MAX);
    mem_free(r->held);
    mem_free(r);
}

static void take(struct refill *r, uint32_t node, uint64_t epoch, bool rows, const struct control_held *held)
{
    struct heard *h = mem_zalloc(1, sizeof *h + r->pages * sizeof *h->hash);
    if (!h)
        return;
    *h = (struct heard){r->heard, node, held->first_block, held->last_block, rows, epoch, (uint64_t *)(void *)(h + 1)};
    for (uint32_t i = 0; i < held->page_count; i++)
        if (held->pages[i] < r->pages)
            h->hash[held->pages[i]] = held->hashes[i];
    r->heard = h;
}

void refill_note(struct refill *r, uint32_t node, const struct control_message *loaded)
{
    if (loaded->epoch < r->newest)
        return;
    r->newest = loaded->epoch;
    forget(r, loaded->epoch, node);
    for (uint32_t i = 0; i < loaded->u.loaded.held_count; i++)
        take(r, node, loaded->epoch, false, &loaded->u.loaded.held[i]);
    for (uint32_t i = 0; i < loaded->u.loaded.kept_count; i++)
        take(r, node, loaded->epoch, true, &loaded->u.loaded.kept[i]);
}

void refill_stages(struct refill *r, uint64_t epoch, uint32_t count, const struct cluster_stage *stages)
{
    r->epoch = epoch;
    r->stage_count = count;
    memcpy(r->stages, stages, count * sizeof *stages);
    memset(r->held, 0, r->blocks * sizeof *r->held);
    for (uint32_t s = 0; s < count; s++)
        for (const struct heard *h = r->heard; h; h = h->next)
            for (uint32_t b = stages[s].first_block; b <= stages[s].last_block; b++)
                if (!h->rows && h->epoch == epoch && h->node == stages[s].node && b >= h->first_block &&
                    b <= h->last_block)
                    r->held[b] = h;
}

uint32_t refill_stage_count(const struct refill *r)
{
    return r->stage_count;
}

static bool holds(const struct refill *r, uint32_t block, uint32_t page, uint64_t hash)
{
    return r->held[block] && r->held[block]->hash[page] == hash;
}

static bool kept(const struct refill *r, uint32_t node, uint32_t boundary, uint32_t page, uint64_t hash)
{
    for (const struct heard *h = r->heard; h; h = h->next)
        if (h->rows && h->node == node && h->epoch == r->epoch && h->first_block == boundary && h->hash[page] == hash)
            return true;
    return false;
}

/* One stage's share when the next one wants (send) its rows; true when it wants those of the stage before. */
static bool share_of(const struct refill *r, const struct cluster_stage *s, uint32_t page, uint64_t hash, bool send,
                     struct frame_share *out)
{
    uint32_t first = s->last_block + 1, end = s->first_block, from; /* of the blocks that lack the page */
    for (uint32_t b = s->first_block; b <= s->last_block; b++)
        if (!holds(r, b, page, hash)) {
            first = b < first ? b : first;
            end = b + 1;
        }
    *out = (struct frame_share){.first_block = end, .end_block = end, .send = send};
    if (first > s->last_block && !send)
        return false;
    if (send)
        end = s->last_block + 1;
    for (from = first; from > s->first_block && !kept(r, s->node, from, page, hash); from--)
        ;
    out->kept = kept(r, s->node, from, page, hash);
    out->first_block = from;
    out->end_block = end;
    return !out->kept;
}

enum refill_verdict refill_page(const struct refill *r, uint32_t page, uint64_t hash, struct frame_share *shares)
{
    bool send = false, all = true, none = true;
    if (!hash || page >= r->pages || !r->stage_count)
        return REFILL_NOTHING;
    for (uint32_t s = r->stage_count; s-- > 0;) {
        send = share_of(r, &r->stages[s], page, hash, send, &shares[s]);
        none &= shares[s].first_block == shares[s].end_block && !shares[s].send;
        all &= !shares[s].kept && shares[s].end_block == r->stages[s].last_block + 1 &&
               shares[s].first_block == r->stages[s].first_block && (shares[s].send || s + 1 == r->stage_count);
    }
    return none ? REFILL_WHOLE : all ? REFILL_NOTHING : REFILL_PART;
}

void refill_seconds(const struct refill *r, const struct refill_rates *rates, uint32_t page_tokens, const uint32_t *pages,
                    const uint64_t *hashes, uint32_t count, double *filled, double *computed)
{
    double stage[PLAN_MAX_DEVICES] = {0}, link[PLAN_MAX_DEVICES] = {0};
    struct frame_share shares[PLAN_MAX_DEVICES];
    *filled = *computed = 0;
    for (uint32_t i = 0; i < count; i++) {
        enum refill_verdict verdict = refill_page(r, pages[i], hashes[i], shares);
        for (uint32_t s = 0; s < r->stage_count && verdict != REFILL_WHOLE; s++) {
            const struct cluster_stage *all = &r->stages[s];
            bool nothing = verdict == REFILL_NOTHING, sends = nothing ? s + 1 < r->stage_count : shares[s].send;
            uint32_t blocks = nothing ? all->last_block + 1 - all->first_block : shares[s].end_block - shares[s].first_block;
            stage[s] += page_tokens * blocks * rates->block_seconds[s];
            link[s] += sends ? page_tokens * rates->row_seconds[s] : 0;
        }
    }
    for (uint32_t s = 0; s < r->stage_count; s++) {
        double tokens = (double)count * page_tokens,
               whole = tokens * (r->stages[s].last_block + 1 - r->stages[s].first_block) * rates->block_seconds[s],
               rows = s + 1 < r->stage_count ? tokens * rates->row_seconds[s] : 0, busy = stage[s] > link[s] ? stage[s] : link[s];
        *filled = busy > *filled ? busy : *filled;
        *computed = whole > *computed ? whole : *computed;
        *computed = rows > *computed ? rows : *computed;
    }
}
