/* SentencePiece unigram: of all ways to spell the normalised text in pieces, the likeliest one, found in one pass.
 * Source: Kudo 2018 (subword regularisation), the Viterbi path. Reads the tokenizer, owns its scratch; any thread. */
#include "engine/text/tokenizer_internal.h"

#include <float.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "engine/text/unigram_normalizer.h"
#include "engine/text/utf8.h"

#define UNKNOWN_PENALTY 10.0

int unigram_init(struct tokenizer *t, const struct gguf *g, struct error *err)
{
    const struct vocab *v = &t->vocab;
    float least = FLT_MAX;
    int rc = character_map_open(g, &t->map, err);
    if (rc)
        return rc;
    for (uint32_t id = 0; id < v->count; id++) {
        enum token_attribute a = v->attributes[id];
        if (a == TOKEN_NORMAL && v->scores[id] < least)
            least = v->scores[id];
        if ((a == TOKEN_NORMAL || a == TOKEN_USER_DEFINED || a == TOKEN_UNUSED) &&
            vocab_size(v, id) <= VOCAB_MAX_SPECIAL_BYTES &&
            trie_add(&t->trie, vocab_bytes(v, id), vocab_size(v, id), (int32_t)id))
            return error_set(err, ERR_NOMEM, "out of memory for a vocabulary of %u tokens", v->count);
    }
    if (least < -FLT_MAX / 4)
        return error_set(err, ERR_FORMAT, "%s: tokenizer.ggml.scores holds a score below every likelihood",
                         gguf_path(g));
    t->unknown_score = (least == FLT_MAX ? 0 : least) - UNKNOWN_PENALTY;
    return 0;
}

/* The map's replacements, bytes outside UTF-8 as U+FFFD, one space before the first word (and, if the file says so,
 * one between words whatever their number). */
static int normalize(const struct tokenizer *t, const char *text, size_t bytes, struct buffer *out)
{
    const struct vocab *v = &t->vocab;
    bool in_word = false, begun = false;
    for (size_t at = 0; at < bytes;) {
        const char *to = text + at;
        uint32_t c;
        size_t taken = t->map ? character_map_find(t->map, text + at, bytes - at, &to) : 0;
        size_t n = taken ? strlen(to) : 0;
        if (!taken) {
            taken = n = utf8_decode(text + at, bytes - at, &c);
            if (!taken) {
                to = UTF8_REPLACEMENT;
                n = 3;
                taken = 1;
            }
        }
        for (size_t i = 0; i < n; i++) {
            if (to[i] == ' ') {
                in_word = false;
                if (!v->remove_extra_spaces)
                    buffer_putc(out, ' ');
                continue;
            }
            if (!in_word && (begun ? v->remove_extra_spaces : v->add_space_prefix))
                buffer_putc(out, ' ');
            in_word = begun = true;
            buffer_putc(out, to[i]);
        }
        at += taken;
    }
    return out->failed;
}

struct arrival {
    double score;
    uint32_t from; /* while walking back: where the piece began; then: where the next one ends */
    int32_t id;    /* -1: an unknown character */
};

static void arrive(struct arrival *to, size_t from, int32_t id, double score)
{
    if (score > to->score)
        *to = (struct arrival){score, (uint32_t)from, id};
}

static void find_path(const struct tokenizer *t, const char *text, size_t n, struct arrival *best)
{
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct arrival){-DBL_MAX, 0, -1};
    best[0].score = 0;
    for (size_t at = 0; at < n;) {
        unsigned character = utf8_step(text + at, n - at);
        bool spelt = false;
        uint32_t node = t->trie.first[(unsigned char)text[at]];
        for (size_t end = at + 1; node; end++) {
            int32_t id = t->trie.values[node];
            if (id >= 0) {
                spelt = spelt || end - at == character;
                double score = t->vocab.attributes[id] == TOKEN_USER_DEFINED ? 0 : t->vocab.scores[id];
                arrive(&best[end], at, id, best[at].score + score);
            }
            node = end < n ? trie_step(&t->trie, node, (unsigned char)text[end]) : 0;
        }
        if (!spelt)
            arrive(&best[at + character], at, -1, best[at].score + t->unknown_score);
        at += character;
    }
}

static int emit_unknown(const struct tokenizer *t, const char *text, size_t n, bool again, struct token_list *out,
                        struct error *err)
{
    bool bytes = true;
    for (size_t i = 0; i < n; i++)
        bytes = bytes && t->vocab.byte_ids[(unsigned char)text[i]] >= 0;
    int rc = 0;
    if (bytes) {
        for (size_t i = 0; i < n && !rc; i++)
            rc = token_list_add(out, t->vocab.byte_ids[(unsigned char)text[i]], err);
        return rc;
    }
    if (t->vocab.unknown < 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "the vocabulary has neither a token for byte 0x%02X nor an unknown token",
                         (unsigned char)text[0]);
    return again ? 0 : token_list_add(out, t->vocab.unknown, err); /* neighbours share one unknown token */
}

static int emit_path(const struct tokenizer *t, const char *text, size_t n, struct arrival *best,
                     struct token_list *out, struct error *err)
{
    uint32_t next = (uint32_t)n;
    for (uint32_t at = (uint32_t)n; at;) { /* turn the links around; each end keeps its id */
        uint32_t from = best[at].from;
        best[at].from = next;
        next = at;
        at = from;
    }
    int rc = 0;
    bool unknown = false;
    for (uint32_t at = 0, end = next; at < n && !rc; at = end, end = best[end].from) {
        if (best[end].id >= 0)
            rc = token_list_add(out, best[end].id, err);
        else
            rc = emit_unknown(t, text + at, end - at, unknown, out, err);
        unknown = best[end].id < 0;
    }
    return rc;
}

int unigram_encode(const struct tokenizer *t, const char *text, size_t bytes, struct token_list *out, struct error *err)
{
    struct buffer normal = {.limit = UINT32_MAX / 2};
    struct arrival *best = NULL;
    int rc = normalize(t, text, bytes, &normal);
    if (rc) {
        error_set(err, rc, "%s for normalising %zu bytes of text", rc == ERR_NOMEM ? "out of memory" : "no room",
                  bytes);
        goto out;
    }
    if (!normal.size)
        goto out;
    best = mem_resize(NULL, normal.size + 1, sizeof *best);
    if (!best) {
        rc = error_set(err, ERR_NOMEM, "out of memory for %zu bytes of text", normal.size);
        goto out;
    }
    find_path(t, normal.data, normal.size, best);
    rc = emit_path(t, normal.data, normal.size, best, out, err);
out:
    mem_free(best);
    buffer_free(&normal);
    return rc;
}
