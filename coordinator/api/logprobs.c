/* Entries wait as numbers and become JSON when their text goes out. One thread. */
#include "coordinator/api/logprobs.h"

#include <string.h>

#include "base/memory.h"
#include "coordinator/api/json_text.h"
#include "engine/text/utf8.h"

/* A token's text: what it stands for; control tokens are shown by their names. */
static struct gguf_text piece(const struct logprobs *l, int32_t id)
{
    struct gguf_text text = tokenizer_piece(l->tokenizer, id);
    return text.data ? text : (struct gguf_text){"", 0};
}

static bool is_silent(const struct logprobs *l, int32_t id)
{
    enum token_attribute a = tokenizer_attribute(l->tokenizer, id);
    return a == TOKEN_CONTROL || a == TOKEN_UNKNOWN;
}

int logprobs_add(struct logprobs *l, const struct request_token *token)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 8;
        struct logprob_entry *grown = mem_resize(l->waiting, capacity, sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        l->waiting = grown;
        l->capacity = capacity;
    }
    struct logprob_entry *e = &l->waiting[l->count++];
    e->chosen = (struct token_logprob){token->id, token->logprob};
    e->top_count = token->top_count < SAMPLING_TOP_MAX ? token->top_count : SAMPLING_TOP_MAX;
    if (e->top_count)
        memcpy(e->top, token->top, e->top_count * sizeof *e->top);
    e->start = l->bytes;
    e->character = l->characters;
    if (!is_silent(l, token->id)) {
        struct gguf_text text = piece(l, token->id);
        l->bytes += text.size;
        for (size_t i = 0; i < text.size; i++)
            l->characters += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    }
    return 0;
}

/* As OpenAI writes tokens that are no whole text: bytes:\xe2\x80. */
static void put_token(struct buffer *b, struct gguf_text text)
{
    uint32_t c;
    size_t i = 0;
    while (i < text.size) {
        unsigned n = utf8_decode(text.data + i, text.size - i, &c);
        if (!n)
            break;
        i += n;
    }
    if (i == text.size) {
        json_put_text(b, text.data, text.size);
        return;
    }
    buffer_puts(b, "\"bytes:");
    for (i = 0; i < text.size; i++)
        buffer_printf(b, "\\\\x%02x", (unsigned char)text.data[i]);
    buffer_putc(b, '"');
}

static void put_chat_token(struct logprobs *l, struct token_logprob t)
{
    struct buffer *b = &l->entries;
    struct gguf_text text = piece(l, t.token);
    buffer_puts(b, "{\"token\":");
    put_token(b, text);
    buffer_puts(b, ",\"logprob\":");
    json_put_logprob(b, t.logprob);
    buffer_puts(b, ",\"bytes\":[");
    for (size_t i = 0; i < text.size; i++)
        buffer_printf(b, "%s%u", i ? "," : "", (unsigned char)text.data[i]);
    buffer_putc(b, ']');
}

static void put_chat(struct logprobs *l, const struct logprob_entry *e)
{
    put_chat_token(l, e->chosen);
    buffer_puts(&l->entries, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < e->top_count; i++) {
        if (i)
            buffer_putc(&l->entries, ',');
        put_chat_token(l, e->top[i]);
        buffer_putc(&l->entries, '}');
    }
    buffer_puts(&l->entries, "]}");
}

static void put_plain(struct logprobs *l, const struct logprob_entry *e)
{
    put_token(&l->entries, piece(l, e->chosen.token));
    json_put_logprob(&l->values, e->chosen.logprob);
    buffer_printf(&l->offsets, "%llu", (unsigned long long)e->character);
    buffer_putc(&l->tops, '{');
    for (uint32_t i = 0; i < e->top_count; i++) {
        struct gguf_text text = piece(l, e->top[i].token);
        bool twice = false; /* two tokens may stand for the same text; the likelier keeps it */
        for (uint32_t j = 0; j < i && !twice; j++) {
            struct gguf_text other = piece(l, e->top[j].token);
            twice = other.size == text.size && !memcmp(other.data, text.data, text.size);
        }
        if (twice)
            continue;
        if (i)
            buffer_putc(&l->tops, ',');
        put_token(&l->tops, text);
        buffer_putc(&l->tops, ':');
        json_put_logprob(&l->tops, e->top[i].logprob);
    }
    buffer_putc(&l->tops, '}');
}

int logprobs_release(struct logprobs *l, uint64_t released, bool rest)
{
    size_t n = 0;
    while (n < l->count && (rest || l->waiting[n].start < released)) {
        if (l->ready++) {
            buffer_putc(&l->entries, ',');
            if (!l->chat) {
                buffer_putc(&l->values, ',');
                buffer_putc(&l->tops, ',');
                buffer_putc(&l->offsets, ',');
            }
        }
        if (l->chat)
            put_chat(l, &l->waiting[n]);
        else
            put_plain(l, &l->waiting[n]);
        n++;
    }
    if (n)
        memmove(l->waiting, l->waiting + n, (l->count - n) * sizeof *l->waiting);
    l->count -= n;
    return l->entries.failed || l->values.failed || l->tops.failed || l->offsets.failed ? ERR_NOMEM : 0;
}

static void put_array(struct buffer *out, const char *name, struct buffer *items)
{
    buffer_printf(out, "\"%s\":[", name);
    buffer_append(out, items->data, items->size);
    buffer_putc(out, ']');
    buffer_clear(items);
}

void logprobs_put(struct logprobs *l, struct buffer *out)
{
    buffer_putc(out, '{');
    put_array(out, l->chat ? "content" : "tokens", &l->entries);
    if (l->chat) {
        buffer_puts(out, ",\"refusal\":null");
    } else {
        buffer_putc(out, ',');
        put_array(out, "token_logprobs", &l->values);
        buffer_putc(out, ',');
        put_array(out, "top_logprobs", &l->tops);
        buffer_putc(out, ',');
        put_array(out, "text_offset", &l->offsets);
    }
    buffer_putc(out, '}');
    l->ready = 0;
}

void logprobs_free(struct logprobs *l)
{
    mem_free(l->waiting);
    buffer_free(&l->entries);
    buffer_free(&l->values);
    buffer_free(&l->tops);
    buffer_free(&l->offsets);
}
