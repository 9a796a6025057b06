/* Two ways to the same result: short runs are scanned for their best pair, long ones keep a queue of pairs in which an
 * entry is stale when its symbol's pair has another rank by now. One owner. */
#include "engine/text/merge.h"

#include "base/error.h"
#include "base/memory.h"

#define SHORT_RUN 24

int merge_add(struct merge *m, uint32_t start, uint32_t size, int32_t id)
{
    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? 2 * m->capacity : 256;
        struct merge_symbol *symbols = mem_resize(m->symbols, capacity, sizeof *symbols);
        if (!symbols)
            return ERR_NOMEM;
        m->symbols = symbols;
        m->capacity = capacity;
    }
    m->symbols[m->count++] = (struct merge_symbol){.start = start, .size = size, .id = id};
    return 0;
}

static bool look(struct merge *m, uint32_t left, merge_lookup *lookup, const void *context)
{
    struct merge_symbol *symbol = &m->symbols[left];
    symbol->rank = MERGE_NONE;
    return symbol->next != MERGE_NONE &&
           lookup(context, symbol, &m->symbols[symbol->next], &symbol->rank, &symbol->whole);
}

/* Merges left with its neighbour; the neighbour leaves the chain. */
static void join(struct merge *m, uint32_t left)
{
    struct merge_symbol *symbol = &m->symbols[left], *gone = &m->symbols[symbol->next];
    symbol->id = symbol->whole;
    symbol->size += gone->size;
    symbol->next = gone->next;
    gone->rank = MERGE_NONE;
    if (symbol->next != MERGE_NONE)
        m->symbols[symbol->next].previous = left;
}

static void run_short(struct merge *m, merge_lookup *lookup, const void *context)
{
    for (uint32_t i = 0; i < m->count; i++)
        look(m, i, lookup, context);
    for (;;) {
        uint32_t best = MERGE_NONE, rank = MERGE_NONE;
        for (uint32_t i = 0; i != MERGE_NONE; i = m->symbols[i].next)
            if (m->symbols[i].rank < rank) {
                rank = m->symbols[i].rank;
                best = i;
            }
        if (best == MERGE_NONE)
            return;
        join(m, best);
        look(m, best, lookup, context);
        if (best)
            look(m, m->symbols[best].previous, lookup, context);
    }
}

static void sift_down(uint64_t *queue, size_t count, size_t at)
{
    uint64_t value = queue[at];
    for (;;) {
        size_t child = 4 * at + 1, least = child, end = child + 4 < count ? child + 4 : count;
        if (child >= count)
            break;
        for (size_t i = child + 1; i < end; i++)
            if (queue[i] < queue[least])
                least = i;
        if (queue[least] >= value)
            break;
        queue[at] = queue[least];
        at = least;
    }
    queue[at] = value;
}

static int push(struct merge *m, uint32_t left)
{
    if (m->queued == m->queue_capacity) {
        size_t capacity = m->queue_capacity ? 2 * m->queue_capacity : 256;
        uint64_t *queue = mem_resize(m->queue, capacity, sizeof *queue);
        if (!queue)
            return ERR_NOMEM;
        m->queue = queue;
        m->queue_capacity = capacity;
    }
    uint64_t value = (uint64_t)m->symbols[left].rank << 32 | left;
    size_t at = m->queued++;
    for (; at && m->queue[(at - 1) / 4] > value; at = (at - 1) / 4)
        m->queue[at] = m->queue[(at - 1) / 4];
    m->queue[at] = value;
    return 0;
}

static int run_long(struct merge *m, merge_lookup *lookup, const void *context)
{
    if (m->queue_capacity < m->count) {
        uint64_t *queue = mem_resize(m->queue, m->count, sizeof *queue);
        if (!queue)
            return ERR_NOMEM;
        m->queue = queue;
        m->queue_capacity = m->count;
    }
    m->queued = 0;
    for (uint32_t i = 0; i < m->count; i++)
        if (look(m, i, lookup, context))
            m->queue[m->queued++] = (uint64_t)m->symbols[i].rank << 32 | i;
    for (size_t i = m->queued / 4 + 1; i-- > 0;)
        if (i < m->queued)
            sift_down(m->queue, m->queued, i);
    while (m->queued) {
        uint64_t top = m->queue[0];
        uint32_t left = (uint32_t)top;
        m->queue[0] = m->queue[--m->queued];
        if (m->queued)
            sift_down(m->queue, m->queued, 0);
        if (m->symbols[left].rank != top >> 32)
            continue; /* stale */
        join(m, left);
        int rc = look(m, left, lookup, context) ? push(m, left) : 0;
        uint32_t previous = m->symbols[left].previous;
        if (!rc && previous != MERGE_NONE && look(m, previous, lookup, context))
            rc = push(m, previous);
        if (rc)
            return rc;
    }
    return 0;
}

int merge_run(struct merge *m, merge_lookup *lookup, const void *context)
{
    for (size_t i = 0; i < m->count; i++) {
        m->symbols[i].previous = i ? (uint32_t)i - 1 : MERGE_NONE;
        m->symbols[i].next = i + 1 < m->count ? (uint32_t)i + 1 : MERGE_NONE;
        m->symbols[i].rank = MERGE_NONE;
    }
    if (m->count > SHORT_RUN)
        return run_long(m, lookup, context);
    if (m->count > 1)
        run_short(m, lookup, context);
    return 0;
}

void merge_free(struct merge *m)
{
    mem_free(m->symbols);
    mem_free(m->queue);
    *m = (struct merge){0};
}
