/* What the files of engine/text share. A struct tokenizer is built by tokenizer_open and then only read. */
#ifndef BRIGADE_ENGINE_TEXT_TOKENIZER_INTERNAL_H
#define BRIGADE_ENGINE_TEXT_TOKENIZER_INTERNAL_H

#include "engine/text/lookup.h"
#include "engine/text/merge.h"
#include "engine/text/tokenizer.h"
#include "engine/text/vocab.h"

struct pretokenizer;
struct character_map;

struct tokenizer {
    struct vocab vocab;
    struct trie specials;      /* control, user-defined and unknown tokens */
    struct piece_table pieces; /* what merging may yield */
    /* SentencePiece: */
    uint32_t *ranks;   /* of each token by falling score; equal scores share a rank */
    uint8_t *adjacent; /* bit (a * 256 + b): some piece has byte a before byte b */
    /* byte-level: */
    struct pair_table pairs;
    struct pretokenizer *pre;
    bool ignore_merges; /* a word that is a piece is that token, whatever the merges say */
    /* unigram: */
    struct trie trie;
    struct character_map *map; /* the normaliser; NULL: none */
    double unknown_score;
};

/* Encoding of a stretch without special tokens, at the start of the text or after one. */
int sentencepiece_init(struct tokenizer *t, const struct gguf *g, struct error *err);
int sentencepiece_encode(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                         struct error *err);
int byte_level_init(struct tokenizer *t, const struct gguf *g, struct error *err);
int byte_level_encode(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                      struct error *err);
int unigram_init(struct tokenizer *t, const struct gguf *g, struct error *err);
int unigram_encode(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                   struct error *err);

int token_list_grow(struct token_list *list, struct error *err); /* room for one more, or ERR_BOUND, ERR_NOMEM */

static inline int token_list_add(struct token_list *list, int32_t id, struct error *err)
{
    if (list->count >= list->capacity) {
        int rc = token_list_grow(list, err);
        if (rc)
            return rc;
    }
    list->ids[list->count++] = id;
    return 0;
}

/* Words met before in the same text, so that each is merged once: a small direct-mapped table that points into the
 * text and into the ids already made. One call's own. */
#define WORD_CACHE_BYTES 48 /* longer words are not kept */

struct word_cache {
    size_t mask;
    struct {
        uint32_t start, size, first_id, ids;
    } slots[];
};

struct word_cache *word_cache_new(size_t text_bytes); /* NULL when out of memory; mem_free */
/* 1 when the word's ids were appended; 0 (and *slot set) when it must be made; negative on failure. */
int word_cache_get(const struct word_cache *c, const char *text, size_t start, size_t size, size_t *slot,
                   struct token_list *out, struct error *err);
void word_cache_put(struct word_cache *c, size_t slot, size_t start, size_t size, size_t first_id, size_t ids);

#endif
