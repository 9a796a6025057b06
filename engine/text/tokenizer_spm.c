/* SentencePiece BPE: characters merge by score, and what no piece covers falls back to byte tokens.
 *
 * The text is first cut wherever no piece could span: between two characters whose touching bytes stand side by side in
 * no piece. Merges never cross such a place, so the cuts change nothing but the time: most words were met before.
 * Source: Kudo and Richardson 2018 (SentencePiece). Reads the tokenizer, owns its scratch; any thread. */
#include "engine/text/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/text/utf8.h"

static bool adjacent(const struct tokenizer *t, unsigned char a, unsigned char b)
{
    unsigned bit = a * 256u + b;
    return t->adjacent[bit / 8] >> bit % 8 & 1;
}

static int by_falling_score(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Falling scores become rising ranks: the queue then works on integers for both kinds of BPE. */
static int make_ranks(struct tokenizer *t)
{
    const struct vocab *v = &t->vocab;
    float *sorted = mem_resize(NULL, v->count, sizeof *sorted);
    t->ranks = mem_zalloc(v->count, sizeof *t->ranks);
    if (!sorted || !t->ranks) {
        mem_free(sorted);
        return ERR_NOMEM;
    }
    memcpy(sorted, v->scores, v->count * sizeof *sorted);
    qsort(sorted, v->count, sizeof *sorted, by_falling_score);
    uint32_t unique = 0;
    for (uint32_t i = 0; i < v->count; i++)
        if (!i || sorted[i] != sorted[unique - 1])
            sorted[unique++] = sorted[i];
    for (uint32_t id = 0; id < v->count; id++) {
        uint32_t low = 0, high = unique - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (sorted[middle] > v->scores[id])
                low = middle + 1;
            else
                high = middle;
        }
        t->ranks[id] = low;
    }
    mem_free(sorted);
    return 0;
}

int sentencepiece_init(struct tokenizer *t, const struct gguf *g, struct error *err)
{
    const struct vocab *v = &t->vocab;
    int rc = make_ranks(t);
    t->adjacent = mem_zalloc(256 * 256 / 8, 1);
    if (rc || !t->adjacent)
        return error_set(err, ERR_NOMEM, "out of memory for a vocabulary of %u tokens", v->count);
    /* Control, unknown and byte tokens are never the result of a merge, whatever a text spells. */
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t id = 0; id < v->count; id++) {
            enum token_attribute a = v->attributes[id];
            if (pass ? a == TOKEN_USER_DEFINED : a == TOKEN_NORMAL || a == TOKEN_UNUSED)
                piece_table_add(&t->pieces, id);
        }
    for (size_t i = 0; i <= t->pieces.mask; i++) {
        if (t->pieces.slots[i].id < 0)
            continue;
        uint32_t id = (uint32_t)t->pieces.slots[i].id;
        const unsigned char *p = (const unsigned char *)vocab_bytes(v, id);
        for (uint32_t k = 1; k < vocab_size(v, id); k++) {
            unsigned bit = p[k - 1] * 256u + p[k];
            t->adjacent[bit / 8] |= (uint8_t)(1u << bit % 8);
        }
    }
    return 0;
}

struct job {
    const struct tokenizer *t;
    const char *text;
};

static bool may_merge(const void *context, const struct merge_symbol *left, const struct merge_symbol *right,
                      uint32_t *rank, int32_t *whole)
{
    const struct job *job = context;
    int32_t id = piece_table_find(&job->t->pieces, job->text + left->start, (size_t)left->size + right->size);
    if (id < 0)
        return false;
    *rank = job->t->ranks[id];
    *whole = id;
    return true;
}

static int emit_bytes(const struct tokenizer *t, const char *bytes, size_t n, struct token_list *out, struct error *err)
{
    bool complete = true;
    for (size_t i = 0; i < n; i++)
        complete = complete && t->vocab.byte_ids[(unsigned char)bytes[i]] >= 0;
    if (!complete && t->vocab.unknown < 0)
        return error_set(err, ERR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02X and no unknown token",
                         (unsigned char)bytes[0]);
    if (!complete)
        return token_list_add(out, t->vocab.unknown, err);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = token_list_add(out, t->vocab.byte_ids[(unsigned char)bytes[i]], err);
    return rc;
}

static int encode_word(const struct job *job, struct merge *m, size_t start, size_t end, struct token_list *out,
                       struct error *err)
{
    const struct tokenizer *t = job->t;
    int rc = 0;
    m->count = 0;
    for (size_t at = start; at < end && !rc;) {
        unsigned size = utf8_step(job->text + at, end - at);
        rc = merge_add(m, (uint32_t)at, size, -1);
        at += size;
    }
    if (!rc)
        rc = merge_run(m, may_merge, job);
    if (rc)
        return error_set(err, rc, "out of memory for merging %zu bytes", end - start);
    for (uint32_t i = 0; i != MERGE_NONE && !rc; i = m->symbols[i].next) {
        const struct merge_symbol *s = &m->symbols[i];
        int32_t id = s->id >= 0 ? s->id : piece_table_find(&t->pieces, job->text + s->start, s->size);
        rc = id >= 0 ? token_list_add(out, id, err) : emit_bytes(t, job->text + s->start, s->size, out, err);
    }
    return rc;
}

static int encode_words(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                        struct error *err)
{
    struct job job = {t, text};
    struct merge m = {0};
    struct word_cache *cache = word_cache_new(bytes);
    int rc = cache ? 0 : error_set(err, ERR_NOMEM, "out of memory for tokenising");
    for (size_t start = 0, end; start < bytes && !rc; start = end) {
        end = start + utf8_step(text + start, bytes - start);
        while (end < bytes && adjacent(t, (unsigned char)text[end - 1], (unsigned char)text[end]))
            end += utf8_step(text + end, bytes - end);
        size_t slot, first = out->count;
        rc = word_cache_get(cache, text, start, end - start, &slot, out, err);
        if (rc == 0) {
            rc = encode_word(&job, &m, start, end, out, err);
            word_cache_put(cache, slot, start, end - start, first, out->count - first);
        } else if (rc > 0) {
            rc = 0;
        }
    }
    merge_free(&m);
    mem_free(cache);
    return rc;
}

int sentencepiece_encode(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                         struct error *err)
{
    if (!t->vocab.add_space_prefix)
        return encode_words(t, text, bytes, out, err);
    char *copy = mem_alloc(bytes + 1);
    if (!copy)
        return error_set(err, ERR_NOMEM, "out of memory for %zu bytes of text", bytes);
    copy[0] = ' ';
    memcpy(copy + 1, text, bytes);
    int rc = encode_words(t, copy, bytes + 1, out, err);
    mem_free(copy);
    return rc;
}
