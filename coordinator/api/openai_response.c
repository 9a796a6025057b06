/* Field order and names as OpenAI documents them. Pure. */
#include "coordinator/api/openai_response.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "coordinator/api/json_text.h"

void response_head_start(struct response_head *h, bool chat, bool include_usage, const char *model, const char *fingerprint)
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != sizeof random) {
        random[0] = (uint64_t)clock_ns();
        random[1] = (uintptr_t)h;
    }
    h->chat = chat;
    h->include_usage = include_usage;
    h->model = model;
    h->fingerprint = fingerprint;
    h->created = (long long)time(NULL);
    snprintf(h->id, sizeof h->id, "%s-%016llx%08llx", chat ? "chatcmpl" : "cmpl", (unsigned long long)random[0],
             (unsigned long long)random[1] & 0xFFFFFFFFu);
}

static void put_head(struct buffer *b, const struct response_head *h, const char *object)
{
    buffer_printf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", h->id, object, h->created);
    json_put_text(b, h->model, strlen(h->model));
    buffer_printf(b, ",\"system_fingerprint\":\"%s\",\"choices\":[", h->fingerprint);
}

static void put_tail_of_choice(struct buffer *b, const struct response_choice *c)
{
    buffer_printf(b, ",\"logprobs\":%s,\"finish_reason\":", c->logprobs ? c->logprobs : "null");
    if (c->finish_reason)
        buffer_printf(b, "\"%s\"}", c->finish_reason);
    else
        buffer_puts(b, "null}");
}

static const char *chunk_object(const struct response_head *h)
{
    return h->chat ? "chat.completion.chunk" : "text_completion";
}

void response_put_chunk(struct buffer *b, const struct response_head *h, const struct response_choice *c)
{
    buffer_puts(b, "data: ");
    put_head(b, h, chunk_object(h));
    buffer_printf(b, "{\"index\":%u,", c->index);
    if (h->chat) {
        buffer_puts(b, "\"delta\":{");
        if (c->role)
            buffer_puts(b, "\"role\":\"assistant\"");
        if (c->role || c->text_bytes || (c->logprobs && !c->finish_reason)) {
            buffer_puts(b, c->role ? ",\"content\":" : "\"content\":");
            json_put_text(b, c->text, c->text_bytes);
        }
        buffer_putc(b, '}');
    } else {
        buffer_puts(b, "\"text\":");
        json_put_text(b, c->text, c->text_bytes);
    }
    put_tail_of_choice(b, c);
    buffer_puts(b, h->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

static void put_usage(struct buffer *b, const struct response_usage *u)
{
    buffer_printf(b, "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu}",
                  (unsigned long long)u->prompt_tokens, (unsigned long long)u->completion_tokens,
                  (unsigned long long)(u->prompt_tokens + u->completion_tokens));
}

void response_put_usage_chunk(struct buffer *b, const struct response_head *h, const struct response_usage *u)
{
    buffer_puts(b, "data: ");
    put_head(b, h, chunk_object(h));
    buffer_puts(b, "],");
    put_usage(b, u);
    buffer_puts(b, "}\n\n");
}

void response_begin(struct buffer *b, const struct response_head *h)
{
    put_head(b, h, h->chat ? "chat.completion" : "text_completion");
}

void response_put_choice(struct buffer *b, const struct response_head *h, const struct response_choice *c)
{
    buffer_printf(b, "%s{\"index\":%u,", c->index ? "," : "", c->index);
    if (h->chat) {
        buffer_puts(b, "\"message\":{\"role\":\"assistant\",\"content\":");
        json_put_text(b, c->text, c->text_bytes);
        buffer_puts(b, ",\"refusal\":null}");
    } else {
        buffer_puts(b, "\"text\":");
        json_put_text(b, c->text, c->text_bytes);
    }
    put_tail_of_choice(b, c);
}

void response_finish(struct buffer *b, const struct response_usage *u)
{
    buffer_puts(b, "],");
    put_usage(b, u);
    buffer_putc(b, '}');
}
