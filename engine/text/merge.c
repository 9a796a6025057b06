/* Two ways to the same result: short words are scanned for their best pair, long ones keep a queue of pairs in which an
 * entry is stale when its symbol's pair has another rank by now. Most pairs of a long word pass through a few sorted
 * runs rather than the heap, which makes a megabyte of one letter cheap. One owner. */
#include "engine/text/merge.h"

#include "base/error.h"
#include "base/memory.h"

#define SHORT_RUN 24 /* symbols */
#define REFILL 1024  /* pairs in the heap that are worth sorting */

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

static void sift_down(uint64_t *heap, size_t count, size_t at)
{
    uint64_t value = heap[at];
    for (;;) {
        size_t child = 4 * at + 1, least = child, end = child + 4 < count ? child + 4 : count;
        if (child >= count)
            break;
        for (size_t i = child + 1; i < end; i++)
            if (heap[i] < heap[least])
                least = i;
        if (heap[least] >= value)
            break;
        heap[at] = heap[least];
        at = least;
    }
    heap[at] = value;
}

static int push(struct merge *m, uint32_t left)
{
    if (m->heap_count == m->heap_capacity) {
        size_t capacity = m->heap_capacity ? 2 * m->heap_capacity : 256;
        uint64_t *heap = mem_resize(m->heap, capacity, sizeof *heap);
        if (!heap)
            return ERR_NOMEM;
        m->heap = heap;
        m->heap_capacity = capacity;
    }
    uint64_t value = (uint64_t)m->symbols[left].rank << 32 | left;
    size_t at = m->heap_count++;
    for (; at && m->heap[(at - 1) / 4] > value; at = (at - 1) / 4)
        m->heap[at] = m->heap[(at - 1) / 4];
    m->heap[at] = value;
    return 0;
}

/* Byte by byte from the lowest, leaving out bytes that all keys share. */
static void sort_run(struct merge *m)
{
    size_t counts[8][256] = {{0}};
    for (size_t i = 0; i < m->run_count; i++)
        for (int digit = 0; digit < 8; digit++)
            counts[digit][m->run[i] >> 8 * digit & 0xFF]++;
    for (int digit = 0; digit < 8; digit++) {
        size_t *count = counts[digit], sum = 0;
        if (count[m->run[0] >> 8 * digit & 0xFF] == m->run_count)
            continue;
        for (int i = 0; i < 256; i++) {
            size_t n = count[i];
            count[i] = sum;
            sum += n;
        }
        for (size_t i = 0; i < m->run_count; i++)
            m->spare[count[m->run[i] >> 8 * digit & 0xFF]++] = m->run[i];
        uint64_t *swap = m->run;
        m->run = m->spare;
        m->spare = swap;
    }
}

static int grow_run(struct merge *m, size_t count)
{
    if (count <= m->run_capacity)
        return 0;
    uint64_t *run = mem_resize(m->run, count, sizeof *run);
    if (run)
        m->run = run;
    uint64_t *spare = run ? mem_resize(m->spare, count, sizeof *spare) : NULL;
    if (!spare)
        return ERR_NOMEM;
    m->spare = spare;
    m->run_capacity = count;
    return 0;
}

static bool is_live(const struct merge *m, uint64_t pair)
{
    return m->symbols[(uint32_t)pair].rank == pair >> 32;
}

/* The run is empty: what the heap holds by now becomes the next one. */
static int refill_run(struct merge *m)
{
    int rc = grow_run(m, m->heap_count);
    if (rc)
        return rc;
    m->run_at = m->run_count = 0;
    bool sorted = true;
    for (size_t i = 0; i < m->heap_count; i++)
        if (is_live(m, m->heap[i])) {
            sorted = sorted && (!m->run_count || m->run[m->run_count - 1] <= m->heap[i]);
            m->run[m->run_count++] = m->heap[i];
        }
    m->heap_count = 0;
    if (!sorted)
        sort_run(m);
    return 0;
}

static uint64_t take(struct merge *m)
{
    if (!m->heap_count || (m->run_at < m->run_count && m->run[m->run_at] <= m->heap[0]))
        return m->run[m->run_at++];
    uint64_t top = m->heap[0];
    m->heap[0] = m->heap[--m->heap_count];
    if (m->heap_count)
        sift_down(m->heap, m->heap_count, 0);
    return top;
}

static int run_long(struct merge *m, merge_lookup *lookup, const void *context)
{
    int rc = 0;
    m->run_at = m->run_count = m->heap_count = 0;
    for (uint32_t i = 0; i < m->count && !rc; i++)
        if (look(m, i, lookup, context))
            rc = push(m, i);
    if (rc)
        return rc;
    while (m->run_at < m->run_count || m->heap_count) {
        if (m->run_at == m->run_count && m->heap_count > REFILL && (rc = refill_run(m)))
            return rc;
        if (m->run_at == m->run_count && !m->heap_count)
            break; /* all that was left was stale */
        uint64_t pair = take(m);
        if (!is_live(m, pair))
            continue;
        uint32_t left = (uint32_t)pair, previous = m->symbols[left].previous;
        join(m, left);
        if (look(m, left, lookup, context))
            rc = push(m, left);
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
    mem_free(m->run);
    mem_free(m->spare);
    mem_free(m->heap);
    *m = (struct merge){0};
}
