/* Open addressing with linear probing, at most half full. Owns its arrays; built by one thread, then read by any. */
#include "engine/text/lookup.h"

#include "base/memory.h"

static size_t table_size(size_t count)
{
    size_t size = 16;
    while (size < 2 * count)
        size *= 2;
    return size;
}

int piece_table_init(struct piece_table *t, const struct vocab *v)
{
    size_t size = table_size(v->count);
    *t = (struct piece_table){.vocab = v, .mask = size - 1, .slots = mem_alloc(size * sizeof *t->slots)};
    if (!t->slots)
        return ERR_NOMEM;
    memset(t->slots, 0xFF, size * sizeof *t->slots);
    return 0;
}

static size_t piece_slot(const struct piece_table *t, const char *bytes, size_t n, uint32_t *tag)
{
    uint64_t h = lookup_hash(bytes, n);
    *tag = (uint32_t)(h >> 32);
    size_t i = h & t->mask;
    for (; t->slots[i].id >= 0; i = (i + 1) & t->mask) {
        uint32_t id = (uint32_t)t->slots[i].id;
        if (t->slots[i].tag == *tag && vocab_size(t->vocab, id) == n && !memcmp(vocab_bytes(t->vocab, id), bytes, n))
            break;
    }
    return i;
}

void piece_table_add(struct piece_table *t, uint32_t id)
{
    uint32_t tag, size = vocab_size(t->vocab, id);
    if (!size)
        return;
    size_t i = piece_slot(t, vocab_bytes(t->vocab, id), size, &tag);
    if (t->slots[i].id >= 0) {
        t->duplicates++;
        return;
    }
    t->slots[i] = (struct piece_slot){tag, (int32_t)id};
    if (size > t->longest)
        t->longest = size;
}

int32_t piece_table_find(const struct piece_table *t, const char *bytes, size_t n)
{
    uint32_t tag;
    return n && n <= t->longest ? t->slots[piece_slot(t, bytes, n, &tag)].id : -1;
}

void piece_table_free(struct piece_table *t)
{
    mem_free(t->slots);
    *t = (struct piece_table){0};
}

static size_t edge_slot(const struct trie *t, uint32_t node, uint32_t byte)
{
    uint64_t h = ((uint64_t)node << 8 | byte) * UINT64_C(0x9E3779B97F4A7C15);
    size_t i = (h ^ h >> 32) & t->mask;
    while (t->edges[i].node && (t->edges[i].node != node || t->edges[i].byte != byte))
        i = (i + 1) & t->mask;
    return i;
}

static int grow_edges(struct trie *t)
{
    struct trie old = *t;
    size_t size = table_size(t->edge_count ? 2 * t->edge_count : 256);
    t->edges = mem_zalloc(size, sizeof *t->edges);
    if (!t->edges) {
        t->edges = old.edges;
        return ERR_NOMEM;
    }
    t->mask = size - 1;
    for (size_t i = 0; old.edges && i <= old.mask; i++)
        if (old.edges[i].node)
            t->edges[edge_slot(t, old.edges[i].node, old.edges[i].byte)] = old.edges[i];
    mem_free(old.edges);
    return 0;
}

static int new_node(struct trie *t, uint32_t *node)
{
    if (t->node_count == t->node_capacity) {
        size_t capacity = t->node_capacity ? 2 * t->node_capacity : 256;
        int32_t *values = capacity < UINT32_MAX ? mem_resize(t->values, capacity, sizeof *values) : NULL;
        if (!values)
            return ERR_NOMEM;
        t->values = values;
        t->node_capacity = capacity;
    }
    if (!t->node_count)
        t->values[t->node_count++] = -1; /* nowhere */
    t->values[t->node_count] = -1;
    *node = (uint32_t)t->node_count++;
    return 0;
}

int trie_add(struct trie *t, const char *bytes, size_t n, int32_t value)
{
    uint32_t node = 0;
    for (size_t k = 0; k < n; k++) {
        uint32_t byte = (unsigned char)bytes[k], next = k ? trie_step(t, node, (unsigned char)byte) : t->first[byte];
        if (!next) {
            int rc = 0;
            if (k && 2 * (t->edge_count + 1) > (t->edges ? t->mask + 1 : 0))
                rc = grow_edges(t);
            if (!rc)
                rc = new_node(t, &next);
            if (rc)
                return rc;
            if (k) {
                t->edges[edge_slot(t, node, byte)] = (struct trie_edge){node, next, byte};
                t->edge_count++;
            } else {
                t->first[byte] = next;
            }
        }
        node = next;
    }
    if (node && t->values[node] < 0)
        t->values[node] = value;
    return 0;
}

uint32_t trie_step(const struct trie *t, uint32_t node, unsigned char byte)
{
    return t->edges ? t->edges[edge_slot(t, node, byte)].next : 0;
}

void trie_free(struct trie *t)
{
    mem_free(t->edges);
    mem_free(t->values);
    *t = (struct trie){0};
}

int pair_table_init(struct pair_table *t, size_t count)
{
    size_t size = table_size(count);
    *t = (struct pair_table){.mask = size - 1, .slots = mem_resize(NULL, size, sizeof *t->slots)};
    if (!t->slots)
        return ERR_NOMEM;
    memset(t->slots, 0xFF, size * sizeof *t->slots);
    return 0;
}

void pair_table_add(struct pair_table *t, int32_t left, int32_t right, uint32_t rank, int32_t whole)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9E3779B97F4A7C15);
    size_t i = (h ^ h >> 32) & t->mask;
    for (; t->slots[i].left >= 0; i = (i + 1) & t->mask)
        if (t->slots[i].left == left && t->slots[i].right == right)
            return;
    t->slots[i] = (struct pair_slot){left, right, rank, whole};
}

void pair_table_free(struct pair_table *t)
{
    mem_free(t->slots);
    *t = (struct pair_table){0};
}
