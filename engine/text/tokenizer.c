/* The public face: opens a vocabulary, cuts a text at its special tokens and hands the rest to the kind's own encoder.
 * Owns nothing but the tokenizer it builds; encoding reads it only, so any thread may. */
#include "engine/text/tokenizer.h"

#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer_internal.h"
#include "engine/text/unigram_normalizer.h"

static bool is_special(const struct vocab *v, uint32_t id)
{
    return v->attributes[id] == TOKEN_CONTROL || v->attributes[id] == TOKEN_USER_DEFINED ||
           v->attributes[id] == TOKEN_UNKNOWN;
}

int tokenizer_open(const struct gguf *g, struct tokenizer **out, struct error *err)
{
    struct tokenizer *t = mem_zalloc(1, sizeof *t);
    if (!t)
        return error_set(err, ERR_NOMEM, "out of memory for a tokenizer");
    struct vocab *v = &t->vocab;
    int rc = vocab_read(g, v, err);
    if (rc)
        goto out;
    rc = piece_table_init(&t->pieces, v);
    for (uint32_t id = 0; id < v->count && !rc; id++)
        if (is_special(v, id) && vocab_size(v, id) && vocab_size(v, id) <= VOCAB_MAX_SPECIAL_BYTES)
            rc = trie_add(&t->specials, vocab_bytes(v, id), vocab_size(v, id), (int32_t)id);
    if (rc) {
        rc = error_set(err, ERR_NOMEM, "out of memory for a vocabulary of %u tokens", v->count);
        goto out;
    }
    rc = v->kind == VOCAB_SENTENCEPIECE ? sentencepiece_init(t, g, err)
         : v->kind == VOCAB_UNIGRAM     ? unigram_init(t, g, err)
                                        : byte_level_init(t, g, err);
    if (!rc && t->pieces.duplicates)
        log_warn("%s: %zu pieces of the vocabulary occur more than once; the first of each is used", gguf_path(g),
                 t->pieces.duplicates);
out:
    if (rc)
        tokenizer_close(t);
    else
        *out = t;
    return rc;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    trie_free(&t->specials);
    trie_free(&t->trie);
    piece_table_free(&t->pieces);
    pair_table_free(&t->pairs);
    pretokenizer_close(t->pre);
    character_map_close(t->map);
    mem_free(t->ranks);
    mem_free(t->adjacent);
    vocab_free(&t->vocab);
    mem_free(t);
}

int token_list_grow(struct token_list *list, struct error *err)
{
    if (list->limit && list->count >= list->limit)
        return error_set(err, ERR_BOUND, "the text has more than %zu tokens; shorten it or raise the limit",
                         list->limit);
    size_t capacity = list->capacity ? 2 * list->capacity : 64;
    if (list->limit && capacity > list->limit)
        capacity = list->limit;
    int32_t *ids = mem_resize(list->ids, capacity, sizeof *ids);
    if (!ids)
        return error_set(err, ERR_NOMEM, "out of memory for %zu token ids", capacity);
    list->ids = ids;
    list->capacity = capacity;
    return 0;
}

void token_list_free(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){.limit = list->limit};
}

/* The longest special token that begins at text; -1 when none does. Without parse_special only user-defined ones. */
static int32_t special_at(const struct tokenizer *t, const char *text, size_t bytes, bool parse_special)
{
    int32_t found = -1;
    uint32_t node = t->specials.first[(unsigned char)*text];
    for (size_t k = 1; node; node = k < bytes ? trie_step(&t->specials, node, (unsigned char)text[k]) : 0, k++) {
        int32_t id = t->specials.values[node];
        if (id >= 0 && (parse_special || t->vocab.attributes[id] == TOKEN_USER_DEFINED))
            found = id;
    }
    return found;
}

static int encode_plain(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                        struct error *err)
{
    if (!bytes)
        return 0;
    switch (t->vocab.kind) {
    case VOCAB_SENTENCEPIECE:
        return sentencepiece_encode(t, text, bytes, out, err);
    case VOCAB_UNIGRAM:
        return unigram_encode(t, text, bytes, out, err);
    case VOCAB_BYTE_LEVEL:
        return byte_level_encode(t, text, bytes, out, err);
    }
    return error_set(err, ERR_INTERNAL, "a tokenizer of kind %d", (int)t->vocab.kind);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode_text(const struct tokenizer *t, const char *text, size_t bytes, bool parse_special,
                       struct token_list *out, struct error *err)
{
    size_t start = 0;
    int rc = 0;
    for (size_t at = 0; at < bytes && !rc;) {
        int32_t id =
            t->specials.first[(unsigned char)text[at]] ? special_at(t, text + at, bytes - at, parse_special) : -1;
        if (id < 0) {
            at++;
            continue;
        }
        rc = encode_plain(t, text + start, at - start, out, err);
        if (!rc)
            rc = token_list_add(out, id, err);
        at += vocab_size(&t->vocab, (uint32_t)id);
        while (t->vocab.strips && t->vocab.strips[id] && at < bytes && is_blank(text[at]))
            at++;
        start = at;
    }
    return rc ? rc : encode_plain(t, text + start, bytes - start, out, err);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes, unsigned flags, struct token_list *out,
                     struct error *err)
{
    const struct vocab *v = &t->vocab;
    size_t before = out->count;
    int rc = 0;
    if (bytes > TOKENIZER_MAX_TEXT_BYTES)
        return error_set(err, ERR_BOUND, "a text of %zu bytes; at most %zu are tokenised at once", bytes,
                         TOKENIZER_MAX_TEXT_BYTES);
    bool bos = v->bos >= 0 && (flags & TOKENIZER_FORCE_BOS || (flags & TOKENIZER_ADD_BOS && v->add_bos));
    /* A chat template may have written it already: once is enough. */
    if (bos && flags & TOKENIZER_PARSE_SPECIAL && bytes && special_at(t, text, bytes, true) == v->bos)
        bos = false;
    if (bos)
        rc = token_list_add(out, v->bos, err);
    if (!rc)
        rc = encode_text(t, text, bytes, flags & TOKENIZER_PARSE_SPECIAL, out, err);
    if (!rc && flags & TOKENIZER_ADD_EOS && v->add_eos && v->eos >= 0)
        rc = token_list_add(out, v->eos, err);
    if (rc)
        out->count = before;
    return rc;
}

struct word_cache *word_cache_new(size_t text_bytes)
{
    size_t slots = 16;
    while (slots < 4096 && slots < text_bytes / 8)
        slots *= 2;
    struct word_cache *c = mem_zalloc(1, sizeof *c + slots * sizeof *c->slots);
    if (c)
        c->mask = slots - 1;
    return c;
}

int word_cache_get(const struct word_cache *c, const char *text, size_t start, size_t size, size_t *slot,
                   struct token_list *out, struct error *err)
{
    *slot = SIZE_MAX;
    if (size > WORD_CACHE_BYTES)
        return 0;
    *slot = lookup_hash(text + start, size) & c->mask;
    if (c->slots[*slot].size != size || memcmp(text + c->slots[*slot].start, text + start, size))
        return 0;
    for (uint32_t i = 0; i < c->slots[*slot].ids; i++) {
        int rc = token_list_add(out, out->ids[c->slots[*slot].first_id + i], err);
        if (rc)
            return rc;
    }
    return 1;
}

void word_cache_put(struct word_cache *c, size_t slot, size_t start, size_t size, size_t first_id, size_t ids)
{
    if (slot <= c->mask && first_id <= UINT32_MAX && ids <= UINT32_MAX) {
        c->slots[slot].start = (uint32_t)start;
        c->slots[slot].size = (uint32_t)size;
        c->slots[slot].first_id = (uint32_t)first_id;
        c->slots[slot].ids = (uint32_t)ids;
    }
}

size_t tokenizer_count(const struct tokenizer *t)
{
    return t->vocab.count;
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    static const char *const kinds[] = {"sentencepiece bpe", "sentencepiece unigram", "byte-level bpe"};
    return kinds[t->vocab.kind];
}

static bool within(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.count;
}

struct gguf_text tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    if (!within(t, id))
        return (struct gguf_text){0};
    return (struct gguf_text){vocab_bytes(&t->vocab, (uint32_t)id), vocab_size(&t->vocab, (uint32_t)id)};
}

float tokenizer_score(const struct tokenizer *t, int32_t id)
{
    return within(t, id) && t->vocab.scores ? t->vocab.scores[id] : 0;
}

enum token_attribute tokenizer_attribute(const struct tokenizer *t, int32_t id)
{
    return within(t, id) ? t->vocab.attributes[id] : TOKEN_UNKNOWN;
}

int32_t tokenizer_find_special(const struct tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    uint32_t node = n ? t->specials.first[(unsigned char)*text] : 0;
    for (size_t k = 1; k < n && node; k++)
        node = trie_step(&t->specials, node, (unsigned char)text[k]);
    return node ? t->specials.values[node] : -1;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->vocab.bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->vocab.eos;
}

int32_t tokenizer_eot(const struct tokenizer *t)
{
    return t->vocab.eot;
}

int32_t tokenizer_unknown(const struct tokenizer *t)
{
    return t->vocab.unknown;
}

int32_t tokenizer_padding(const struct tokenizer *t)
{
    return t->vocab.padding;
}

bool tokenizer_is_complete(const struct tokenizer *t)
{
    /* C0, C1 and F5 to FF never occur in UTF-8. Unigram normalises, so it gives back what it made of a text. */
    for (unsigned b = 0; b < 0xF5; b++)
        if (t->vocab.byte_ids[b] < 0 && b != 0xC0 && b != 0xC1)
            return false;
    return t->vocab.kind != VOCAB_UNIGRAM;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->vocab.add_bos && t->vocab.bos >= 0;
}

bool tokenizer_adds_eos(const struct tokenizer *t)
{
    return t->vocab.add_eos && t->vocab.eos >= 0;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->vocab.end_count; i++)
        if (t->vocab.ends[i] == id)
            return true;
    return false;
}

const int32_t *tokenizer_ends(const struct tokenizer *t, size_t *count)
{
    *count = t->vocab.end_count;
    return t->vocab.ends;
}

struct gguf_text tokenizer_chat_template(const struct tokenizer *t, const char *name)
{
    for (size_t i = 0; i < t->vocab.template_count; i++)
        if (!strcmp(t->vocab.templates[i].name, name ? name : ""))
            return (struct gguf_text){t->vocab.templates[i].text, t->vocab.templates[i].size};
    return (struct gguf_text){0};
}
