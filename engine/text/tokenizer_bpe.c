/* Byte-level BPE: the pre-tokeniser's words are bytes, which merge by the rank of their pair.
 * Source: Radford et al. 2019 (GPT-2). Reads the tokenizer, owns its scratch; any thread. */
#include "engine/text/tokenizer_internal.h"

#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/utf8.h"

struct merges {
    struct tokenizer *t;
    const char *path;
    struct error *err;
    char *both; /* room for the bytes of a merge */
    size_t room;
    size_t ignored;
};

/* Characters that pieces are spelt with, back to bytes; -1 when the text is not of that alphabet or no piece. */
static int32_t find_spelt(struct merges *m, struct gguf_text text, size_t at, size_t *size)
{
    if (!vocab_decode_byte_level(text, m->both + at, size))
        return -1;
    return piece_table_find(&m->t->pieces, m->both + at, *size);
}

static int add_merge(void *context, uint64_t i, struct gguf_text text)
{
    struct merges *m = context;
    const char *space = text.size > 1 ? memchr(text.data + 1, ' ', text.size - 1) : NULL;
    if (!space)
        return error_set(m->err, ERR_FORMAT,
                         "%s: merge %llu of tokenizer.ggml.merges is not two pieces with a space between", m->path,
                         (unsigned long long)i);
    if (text.size > m->room) {
        char *both = mem_realloc(m->both, text.size);
        if (!both)
            return error_set(m->err, ERR_NOMEM, "out of memory for a merge of %zu bytes", text.size);
        m->both = both;
        m->room = text.size;
    }
    struct gguf_text left = {text.data, (size_t)(space - text.data)};
    struct gguf_text right = {space + 1, text.size - left.size - 1};
    size_t left_size = 0, right_size = 0;
    int32_t left_id = find_spelt(m, left, 0, &left_size);
    int32_t right_id = left_id < 0 ? -1 : find_spelt(m, right, left_size, &right_size);
    int32_t whole = right_id < 0 ? -1 : piece_table_find(&m->t->pieces, m->both, left_size + right_size);
    if (whole < 0)
        m->ignored++; /* could never yield a token */
    else
        pair_table_add(&m->t->pairs, left_id, right_id, (uint32_t)i, whole);
    return 0;
}

int byte_level_init(struct tokenizer *t, const struct gguf *g, struct error *err)
{
    struct vocab *v = &t->vocab;
    if (!v->pre[0])
        log_warn(
            "%s does not say which pre-tokeniser it wants (tokenizer.ggml.pre); the old default is used, and the model "
            "may do worse than it could",
            gguf_path(g));
    int rc = pretokenizer_open(v->pre, &t->pre, err);
    if (rc) {
        error_prefix(err, "%s", gguf_path(g));
        return rc;
    }
    t->ignore_merges = pretokenizer_ignores_merges(t->pre);
    for (uint32_t id = 0; id < v->count; id++)
        if ((v->attributes[id] == TOKEN_NORMAL || v->attributes[id] == TOKEN_UNUSED) && !v->literal[id])
            piece_table_add(&t->pieces, id);
    for (unsigned b = 0; b < 256; b++)
        v->byte_ids[b] = piece_table_find(&t->pieces, &(char){(char)b}, 1);

    const struct gguf_key *key = gguf_find(g, "tokenizer.ggml.merges");
    if (!key || key->type != GGUF_ARRAY || key->element != GGUF_STRING)
        return error_set(err, ERR_FORMAT, "%s: tokenizer.ggml.merges is %s", gguf_path(g),
                         key ? "not an array of strings" : "missing; a byte-level vocabulary cannot do without");
    if (key->count >= UINT32_MAX / 4)
        return error_set(err, ERR_BOUND, "%s: %llu merges are too many", gguf_path(g), (unsigned long long)key->count);
    struct merges m = {.t = t, .path = gguf_path(g), .err = err};
    if (pair_table_init(&t->pairs, (size_t)key->count))
        return error_set(err, ERR_NOMEM, "out of memory for %llu merges", (unsigned long long)key->count);
    rc = gguf_array_strings(key, add_merge, &m);
    mem_free(m.both);
    if (!rc && m.ignored)
        log_info("%s: %zu of %llu merges name pieces that the vocabulary lacks; ignored", gguf_path(g), m.ignored,
                 (unsigned long long)key->count);
    return rc;
}

static bool may_merge(const void *context, const struct merge_symbol *left, const struct merge_symbol *right,
                      uint32_t *rank, int32_t *whole)
{
    const struct tokenizer *t = context;
    if (left->id < 0 || right->id < 0)
        return false;
    const struct pair_slot *pair = pair_table_find(&t->pairs, left->id, right->id);
    if (!pair)
        return false;
    *rank = pair->rank;
    *whole = pair->whole;
    return true;
}

/* A byte without a token: U+FFFD if the vocabulary can say that, else its unknown token. */
static int emit_missing(const struct tokenizer *t, unsigned char byte, struct token_list *out, struct error *err)
{
    const unsigned char *r = (const unsigned char *)UTF8_REPLACEMENT;
    const int32_t *ids = t->vocab.byte_ids;
    if (ids[r[0]] >= 0 && ids[r[1]] >= 0 && ids[r[2]] >= 0) {
        int rc = 0;
        for (int i = 0; i < 3 && !rc; i++)
            rc = token_list_add(out, ids[r[i]], err);
        return rc;
    }
    if (t->vocab.unknown >= 0)
        return token_list_add(out, t->vocab.unknown, err);
    return error_set(err, ERR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02X and no unknown token", byte);
}

static int encode_word(const struct tokenizer *t, struct merge *m, const char *text, size_t start, size_t end,
                       struct token_list *out, struct error *err)
{
    if (t->ignore_merges) {
        int32_t id = piece_table_find(&t->pieces, text + start, end - start);
        if (id >= 0)
            return token_list_add(out, id, err);
    }
    int rc = 0;
    m->count = 0;
    for (size_t at = start; at < end && !rc; at++)
        rc = merge_add(m, (uint32_t)at, 1, t->vocab.byte_ids[(unsigned char)text[at]]);
    if (!rc)
        rc = merge_run(m, may_merge, t);
    if (rc)
        return error_set(err, rc, "out of memory for merging %zu bytes", end - start);
    for (uint32_t i = 0; i != MERGE_NONE && !rc; i = m->symbols[i].next) {
        const struct merge_symbol *s = &m->symbols[i];
        rc = s->id >= 0 ? token_list_add(out, s->id, err) : emit_missing(t, (unsigned char)text[s->start], out, err);
    }
    return rc;
}

int byte_level_encode(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out,
                      struct error *err)
{
    struct word_list words = {0};
    struct merge m = {0};
    struct word_cache *cache = word_cache_new(bytes);
    int rc = cache ? pretokenizer_split(t->pre, text, bytes, &words, err)
                   : error_set(err, ERR_NOMEM, "out of memory for tokenising");
    for (size_t i = 0, start = 0; i < words.count && !rc; i++) {
        size_t end = words.ends[i], slot, first = out->count;
        rc = word_cache_get(cache, text, start, end - start, &slot, out, err);
        if (rc == 0) {
            rc = encode_word(t, &m, text, start, end, out, err);
            word_cache_put(cache, slot, start, end - start, first, out->count - first);
        } else if (rc > 0) {
            rc = 0;
        }
        start = end;
    }
    merge_free(&m);
    word_list_free(&words);
    mem_free(cache);
    return rc;
}
