/* Ids back to text, whole or as a stream that only ever gives whole UTF-8 characters. Reads the tokenizer; a stream
 * belongs to one thread. */
#include "engine/text/tokenizer_internal.h"

#include <string.h>

#include "engine/text/utf8.h"

void token_stream_start(struct token_stream *s, const struct tokenizer *t, unsigned flags)
{
    *s = (struct token_stream){.tokenizer = t, .flags = flags, .drop_space = flags & DETOKENIZER_START};
}

static int put(struct buffer *out, const char *bytes, size_t n, struct error *err)
{
    int rc = buffer_append(out, bytes, n);
    if (rc == ERR_BOUND)
        return error_set(err, rc, "the decoded text is over %zu bytes", out->limit);
    return rc ? error_set(err, rc, "out of memory for decoded text") : 0;
}

/* Whether held bytes and then c can still be the beginning of one character. */
static bool continues(const struct token_stream *s, unsigned char c)
{
    unsigned char low, high;
    utf8_lead(s->bytes[0], &low, &high);
    return s->held == 1 ? c >= low && c <= high : c >= 0x80 && c <= 0xBF;
}

/* One byte at a time; whole characters leave, and so does U+FFFD for each longest stretch that cannot become one
 * (the practice that Unicode 15, section 3.9 recommends). */
static int take(struct token_stream *s, unsigned char c, struct buffer *out, struct error *err)
{
    unsigned char low, high;
    int rc = 0;
    if (s->held && !continues(s, c)) {
        s->held = 0;
        rc = put(out, UTF8_REPLACEMENT, 3, err);
    }
    if (rc)
        return rc;
    unsigned size = utf8_lead(s->held ? s->bytes[0] : c, &low, &high);
    if (!size)
        return put(out, UTF8_REPLACEMENT, 3, err);
    s->bytes[s->held++] = c;
    if (s->held < size)
        return 0;
    s->held = 0;
    return put(out, (const char *)s->bytes, size, err);
}

static int take_all(struct token_stream *s, const char *bytes, size_t n, struct buffer *out, struct error *err)
{
    if (s->flags & DETOKENIZER_RAW_BYTES)
        return put(out, bytes, n, err);
    int rc = 0;
    for (size_t i = 0; i < n && !rc;) {
        size_t run = i;
        while (!s->held && run < n && (unsigned char)bytes[run] < 0x80)
            run++;
        if (run > i)
            rc = put(out, bytes + i, run - i, err);
        else
            rc = take(s, (unsigned char)bytes[run++], out, err);
        i = run;
    }
    return rc;
}

int token_stream_push(struct token_stream *s, int32_t id, struct buffer *out, struct error *err)
{
    const struct vocab *v = &s->tokenizer->vocab;
    if (id < 0 || (uint32_t)id >= v->count)
        return error_set(err, ERR_USAGE, "token id %d is outside the vocabulary of %u tokens", id, v->count);
    const char *bytes = vocab_bytes(v, (uint32_t)id);
    size_t n = vocab_size(v, (uint32_t)id);
    bool prefixed = v->add_space_prefix && v->kind != VOCAB_BYTE_LEVEL;
    enum token_attribute attribute = v->attributes[id];
    if (attribute == TOKEN_CONTROL || attribute == TOKEN_UNKNOWN) {
        s->drop_space = prefixed && s->flags & DETOKENIZER_START;
        return s->flags & DETOKENIZER_SHOW_SPECIAL ? take_all(s, bytes, n, out, err) : 0;
    }
    if (s->drop_space && n && attribute != TOKEN_USER_DEFINED) {
        s->drop_space = false;
        if (prefixed && *bytes == ' ') {
            bytes++;
            n--;
        }
    }
    if (attribute == TOKEN_USER_DEFINED)
        s->drop_space = prefixed && s->flags & DETOKENIZER_START;
    return take_all(s, bytes, n, out, err);
}

int token_stream_finish(struct token_stream *s, struct buffer *out, struct error *err)
{
    if (!s->held)
        return 0;
    s->held = 0;
    return put(out, UTF8_REPLACEMENT, 3, err);
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t count, unsigned flags, struct buffer *out,
                     struct error *err)
{
    struct token_stream s;
    token_stream_start(&s, t, flags);
    size_t before = out->size;
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = token_stream_push(&s, ids[i], out, err);
    if (!rc)
        rc = token_stream_finish(&s, out, err);
    if (rc) {
        out->size = before;
        if (out->data)
            out->data[before] = 0;
    }
    return rc;
}
