/* Copies and checks the token list of a GGUF file. Every piece is kept as the bytes it stands for: SentencePiece's
 * U+2581 is a space here, a byte token is its byte, and a byte-level piece is decoded from its printable alphabet.
 * So encoding compares plain bytes with plain text, and decoding is a copy. Runs once, in the opening thread. */
#include "engine/text/vocab.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

/* Byte-level BPE writes each byte as a printable character: the printable Latin-1 ones as themselves, the other 68 as
 * U+0100 and up in rising order. Source: Radford et al. 2019 (the GPT-2 vocabulary). */
static bool byte_of_character(uint32_t c, unsigned char *byte)
{
    bool itself = (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
    if (itself) {
        *byte = (unsigned char)c;
        return true;
    }
    if (c < 0x100 || c > 0x143)
        return false;
    uint32_t n = c - 0x100; /* the gaps: 00-20, 7F-A0, AD */
    *byte = (unsigned char)(n < 0x21 ? n : n < 0x43 ? 0x7F + n - 0x21 : 0xAD);
    return true;
}

bool vocab_decode_byte_level(struct gguf_text text, char *out, size_t *size)
{
    size_t n = 0;
    for (size_t at = 0; at < text.size;) {
        uint32_t c;
        unsigned length = utf8_decode(text.data + at, text.size - at, &c);
        unsigned char byte;
        if (!length || !byte_of_character(c, &byte))
            return false;
        out[n++] = (char)byte;
        at += length;
    }
    *size = n;
    return true;
}

static size_t decode_spaces(struct gguf_text text, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.size;) {
        if (text.size - at >= 3 && !memcmp(text.data + at, "\xE2\x96\x81", 3)) {
            out[n++] = ' ';
            at += 3;
        } else {
            out[n++] = text.data[at++];
        }
    }
    return n;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static int byte_of_piece(struct gguf_text text) /* "<0x0A>", else -1 */
{
    if (text.size != 6 || memcmp(text.data, "<0x", 3) || text.data[5] != '>')
        return -1;
    int high = hex_digit(text.data[3]), low = hex_digit(text.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

struct reading {
    struct vocab *v;
    const char *path;
    const struct gguf_key *types; /* may be NULL */
    struct error *err;
    uint64_t total_bytes;
};

static int add_size(void *context, uint64_t i, struct gguf_text text)
{
    struct reading *r = context;
    r->total_bytes += text.size;
    return r->total_bytes < UINT32_MAX / 2
               ? 0
               : error_set(r->err, ERR_BOUND, "%s: the texts of tokenizer.ggml.tokens are over 2 GiB", r->path);
}

static int attribute_of(struct reading *r, uint64_t i, struct gguf_text text, enum token_attribute *attribute)
{
    static const enum token_attribute table[] = {
        [0] = TOKEN_NORMAL,       [1] = TOKEN_NORMAL, [2] = TOKEN_UNKNOWN, [3] = TOKEN_CONTROL,
        [4] = TOKEN_USER_DEFINED, [5] = TOKEN_UNUSED, [6] = TOKEN_BYTE,
    };
    int byte = r->v->kind == VOCAB_BYTE_LEVEL ? -1 : byte_of_piece(text);
    if (!r->types) {
        *attribute = byte >= 0 ? TOKEN_BYTE : TOKEN_NORMAL;
        return 0;
    }
    int64_t type = gguf_array_int(r->types, i);
    if (type < 0 || type > 6)
        return error_set(r->err, ERR_FORMAT, "%s: token %llu has type %lld; types are 0 to 6", r->path,
                         (unsigned long long)i, (long long)type);
    *attribute = table[type];
    if (*attribute == TOKEN_BYTE && byte < 0) {
        if (r->v->kind != VOCAB_BYTE_LEVEL)
            return error_set(r->err, ERR_FORMAT, "%s: token %llu is of type byte, but its text is not like <0x0A>",
                             r->path, (unsigned long long)i);
        *attribute = TOKEN_NORMAL; /* byte-level pieces are bytes already */
    }
    return 0;
}

static int add_piece(void *context, uint64_t i, struct gguf_text text)
{
    struct reading *r = context;
    struct vocab *v = r->v;
    enum token_attribute attribute = TOKEN_NORMAL;
    int rc = attribute_of(r, i, text, &attribute);
    if (rc)
        return rc;
    char *out = v->bytes + v->offsets[i];
    size_t size = 0;
    bool decoded = true;
    if (attribute == TOKEN_BYTE) {
        int byte = byte_of_piece(text);
        *out = (char)byte;
        size = 1;
        if (v->byte_ids[byte] < 0)
            v->byte_ids[byte] = (int32_t)i;
    } else if (attribute == TOKEN_NORMAL || attribute == TOKEN_UNUSED) {
        if (v->kind == VOCAB_BYTE_LEVEL)
            decoded = vocab_decode_byte_level(text, out, &size);
        else
            size = decode_spaces(text, out);
    } else {
        decoded = false;
    }
    if (!decoded) { /* plain text */
        if (text.size)
            memcpy(out, text.data, text.size);
        size = text.size;
        if (v->literal)
            v->literal[i] = 1;
    }
    v->attributes[i] = (uint8_t)attribute;
    v->offsets[i + 1] = v->offsets[i] + (uint32_t)size;
    return 0;
}

static int array_key(const struct gguf *g, const char *name, uint64_t count, bool text, const struct gguf_key **out,
                     struct error *err)
{
    const struct gguf_key *key = gguf_find(g, name);
    *out = key;
    if (!key)
        return 0;
    if (key->type != GGUF_ARRAY || (key->element == GGUF_STRING) != text || key->element == GGUF_ARRAY)
        return error_set(err, ERR_FORMAT, "%s: %s is not an array of %s", gguf_path(g), name,
                         text ? "strings" : "numbers");
    if (count && key->count != count)
        return error_set(err, ERR_FORMAT, "%s: %s has %llu entries for %llu tokens", gguf_path(g), name,
                         (unsigned long long)key->count, (unsigned long long)count);
    return 0;
}

static int read_kind(const struct gguf *g, struct vocab *v, struct error *err)
{
    struct gguf_text model = {0};
    int rc = gguf_get_text(g, "tokenizer.ggml.model", &model, err);
    if (rc < 0)
        return rc;
    if (!rc)
        return error_set(err, ERR_FORMAT,
                         "%s has no tokenizer (no tokenizer.ggml.model); take a file with a vocabulary", gguf_path(g));
    static const struct {
        const char *name;
        enum vocab_kind kind;
    } kinds[] = {{"llama", VOCAB_SENTENCEPIECE}, {"t5", VOCAB_UNIGRAM}, {"gpt2", VOCAB_BYTE_LEVEL}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (model.size == strlen(kinds[i].name) && !memcmp(model.data, kinds[i].name, model.size)) {
            v->kind = kinds[i].kind;
            return 0;
        }
    return error_set(
        err, ERR_UNSUPPORTED,
        "%s: tokenizer.ggml.model is \"%.*s\"; brigade knows llama (SentencePiece BPE), t5 (unigram) and gpt2 "
        "(byte-level BPE)",
        gguf_path(g), (int)(model.size < 40 ? model.size : 40), model.data);
}

static int read_scores(const struct gguf *g, struct vocab *v, struct error *err)
{
    const struct gguf_key *key = NULL;
    int rc = array_key(g, "tokenizer.ggml.scores", v->count, false, &key, err);
    if (rc || v->kind == VOCAB_BYTE_LEVEL)
        return rc;
    if (!key)
        return error_set(err, ERR_FORMAT,
                         "%s: tokenizer.ggml.scores is missing; a SentencePiece vocabulary cannot do without",
                         gguf_path(g));
    v->scores = mem_zalloc(v->count, sizeof *v->scores);
    if (!v->scores)
        return error_set(err, ERR_NOMEM, "out of memory for the scores of %u tokens", v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        double score = gguf_array_float(key, i);
        if (isnan(score))
            return error_set(err, ERR_FORMAT, "%s: the score of token %u is not a number", gguf_path(g), i);
        v->scores[i] = (float)score;
    }
    return 0;
}

static int read_templates(const struct gguf *g, struct vocab *v, struct error *err)
{
    static const char prefix[] = "tokenizer.chat_template";
    size_t n = sizeof prefix - 1;
    for (size_t i = 0; i < gguf_key_count(g) && v->template_count < VOCAB_MAX_TEMPLATES; i++) {
        const struct gguf_key *key = gguf_key_at(g, i);
        if (key->type != GGUF_STRING || key->name.size < n || memcmp(key->name.data, prefix, n) ||
            (key->name.size > n && key->name.data[n] != '.'))
            continue;
        char name[256];
        if (key->name.size >= sizeof name)
            continue;
        memcpy(name, key->name.data, key->name.size);
        name[key->name.size] = 0;
        struct gguf_text text = {0};
        int rc = gguf_get_text(g, name, &text, err);
        if (rc < 0)
            return rc;
        struct vocab_template *t = &v->templates[v->template_count++];
        t->name = mem_strdup(key->name.size > n ? name + n + 1 : "");
        t->text = mem_alloc(text.size + 1);
        if (!t->name || !t->text)
            return error_set(err, ERR_NOMEM, "out of memory for a chat template of %zu bytes", text.size);
        if (text.size)
            memcpy(t->text, text.data, text.size);
        t->text[text.size] = 0;
        t->size = text.size;
    }
    return 0;
}

/* Phi-3's published tokenizer lets its special tokens swallow the white space after them; the file does not say so,
 * so the model's name must. */
static int read_strips(const struct gguf *g, struct vocab *v, struct error *err)
{
    struct gguf_text name = {0};
    char lower[128];
    int rc = gguf_get_text(g, "general.name", &name, err);
    if (rc <= 0)
        return rc;
    size_t n = name.size < sizeof lower - 1 ? name.size : sizeof lower - 1;
    for (size_t i = 0; i < n; i++)
        lower[i] = (char)tolower((unsigned char)name.data[i]);
    lower[n] = 0;
    if (!strstr(lower, "phi-3") && !strstr(lower, "phi3"))
        return 0;
    v->strips = mem_zalloc(v->count, 1);
    if (!v->strips)
        return error_set(err, ERR_NOMEM, "out of memory for %u tokens", v->count);
    for (uint32_t i = 0; i < v->count; i++)
        v->strips[i] = (v->attributes[i] == TOKEN_CONTROL || v->attributes[i] == TOKEN_USER_DEFINED ||
                        v->attributes[i] == TOKEN_UNKNOWN) &&
                       !vocab_is(v, i, "<unk>") && !vocab_is(v, i, "<s>") && !vocab_is(v, i, "<|endoftext|>");
    return 0;
}

int vocab_read(const struct gguf *g, struct vocab *v, struct error *err)
{
    *v = (struct vocab){.bos = -1, .eos = -1, .eot = -1, .eom = -1, .unknown = -1, .padding = -1};
    memset(v->byte_ids, 0xFF, sizeof v->byte_ids);
    const struct gguf_key *tokens = NULL;
    struct reading r = {.v = v, .path = gguf_path(g), .err = err};
    struct gguf_text pre = {0};
    int rc = read_kind(g, v, err);
    if (!rc)
        rc = array_key(g, "tokenizer.ggml.tokens", 0, true, &tokens, err);
    if (rc)
        return rc;
    if (!tokens || !tokens->count)
        return error_set(err, ERR_FORMAT, "%s: tokenizer.ggml.tokens is missing or empty", gguf_path(g));
    if (tokens->count > VOCAB_MAX_TOKENS)
        return error_set(err, ERR_BOUND, "%s: %llu tokens; brigade reads vocabularies of at most %u", gguf_path(g),
                         (unsigned long long)tokens->count, VOCAB_MAX_TOKENS);
    v->count = (uint32_t)tokens->count;
    rc = array_key(g, "tokenizer.ggml.token_type", v->count, false, &r.types, err);
    if (!rc)
        rc = gguf_array_strings(tokens, add_size, &r);
    if (rc)
        return rc;
    v->bytes = mem_alloc(r.total_bytes + 1);
    v->offsets = mem_zalloc(v->count + (size_t)1, sizeof *v->offsets);
    v->attributes = mem_zalloc(v->count, 1);
    if (v->kind == VOCAB_BYTE_LEVEL)
        v->literal = mem_zalloc(v->count, 1);
    if (!v->bytes || !v->offsets || !v->attributes || (v->kind == VOCAB_BYTE_LEVEL && !v->literal))
        return error_set(err, ERR_NOMEM, "out of memory for a vocabulary of %u tokens", v->count);
    rc = gguf_array_strings(tokens, add_piece, &r);
    if (!rc)
        rc = read_scores(g, v, err);
    if (!rc && (rc = gguf_get_text(g, "tokenizer.ggml.pre", &pre, err)) > 0) {
        size_t n = pre.size < sizeof v->pre - 1 ? pre.size : sizeof v->pre - 1;
        memcpy(v->pre, pre.data, n);
        rc = 0;
    }
    if (!rc)
        rc = vocab_read_roles(g, v, err);
    if (!rc)
        rc = read_strips(g, v, err);
    if (!rc)
        rc = read_templates(g, v, err);
    return rc;
}

void vocab_free(struct vocab *v)
{
    for (size_t i = 0; i < v->template_count; i++) {
        mem_free(v->templates[i].name);
        mem_free(v->templates[i].text);
    }
    mem_free(v->bytes);
    mem_free(v->offsets);
    mem_free(v->scores);
    mem_free(v->attributes);
    mem_free(v->strips);
    mem_free(v->literal);
    mem_free(v->ends);
    *v = (struct vocab){0};
}

bool vocab_is(const struct vocab *v, uint32_t id, const char *text)
{
    size_t n = strlen(text);
    return vocab_size(v, id) == n && !memcmp(vocab_bytes(v, id), text, n);
}
