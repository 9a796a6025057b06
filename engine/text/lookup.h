/* Finding tokens by their bytes: a hash table for whole pieces, a trie for the pieces that begin at a place, a table of
 * merges for pairs. All are built once and then read by any thread. Private to engine/text. */
#ifndef BRIGADE_ENGINE_TEXT_LOOKUP_H
#define BRIGADE_ENGINE_TEXT_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/text/vocab.h"

/* A quick hash of a few bytes; results never depend on it. */
static inline uint64_t lookup_hash(const char *bytes, size_t n)
{
    const uint64_t odd = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t h = n * odd, word;
    while (n >= 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * odd;
        h ^= h >> 32;
        bytes += 8;
        n -= 8;
    }
    word = 0;
    if (n)
        memcpy(&word, bytes, n);
    h = (h ^ word) * odd;
    h ^= h >> 29;
    h *= UINT64_C(0xBF58476D1CE4E5B9);
    return h ^ h >> 32;
}

/* Pieces by their bytes. The pieces themselves stay in the vocabulary. */
struct piece_slot {
    uint32_t tag;
    int32_t id; /* -1: empty */
};

struct piece_table {
    const struct vocab *vocab;
    struct piece_slot *slots;
    size_t mask;
    uint32_t longest;  /* bytes of the longest piece */
    size_t duplicates; /* pieces that were there already; the first one stays */
};

int piece_table_init(struct piece_table *t, const struct vocab *v); /* room for every token; ERR_NOMEM */
void piece_table_add(struct piece_table *t, uint32_t id);           /* empty pieces are left out */
int32_t piece_table_find(const struct piece_table *t, const char *bytes, size_t n); /* -1: none */
void piece_table_free(struct piece_table *t);

/* A trie whose edges lie in a hash table. Node 0 is "nowhere". */
struct trie_edge {
    uint32_t node; /* 0: empty slot */
    uint32_t next;
    uint32_t byte;
};

struct trie {
    uint32_t first[256]; /* the nodes of one byte */
    struct trie_edge *edges;
    size_t mask, edge_count;
    int32_t *values; /* of each node; -1: none */
    size_t node_count, node_capacity;
};

/* Start from {0}. The first value of a text stays. 0 or ERR_NOMEM. */
int trie_add(struct trie *t, const char *bytes, size_t n, int32_t value);
uint32_t trie_step(const struct trie *t, uint32_t node, unsigned char byte);
void trie_free(struct trie *t);

/* Byte-level merges: (left id, right id) to (rank, id of both together). */
struct pair_slot {
    int32_t left; /* -1: empty */
    int32_t right;
    uint32_t rank;
    int32_t whole;
};

struct pair_table {
    struct pair_slot *slots;
    size_t mask;
};

int pair_table_init(struct pair_table *t, size_t count); /* ERR_NOMEM */
void pair_table_add(struct pair_table *t, int32_t left, int32_t right, uint32_t rank,
                    int32_t whole); /* the first stays */
void pair_table_free(struct pair_table *t);

static inline const struct pair_slot *pair_table_find(const struct pair_table *t, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = (h ^ h >> 32) & t->mask;; i = (i + 1) & t->mask) {
        const struct pair_slot *slot = &t->slots[i];
        if (slot->left == left && slot->right == right)
            return slot;
        if (slot->left < 0)
            return NULL;
    }
}

#endif
