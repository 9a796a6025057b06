/* Answers in OpenAI's words: whole objects, and chunks as server-sent events. Pure; writes into buffers. */
#ifndef BRIGADE_COORDINATOR_API_OPENAI_RESPONSE_H
#define BRIGADE_COORDINATOR_API_OPENAI_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

#define RESPONSE_DONE "data: [DONE]\n\n"

/* What all parts of one answer share. */
struct response_head {
    bool chat, include_usage;
    char id[48];
    long long created;
    const char *model, *fingerprint; /* borrowed */
};

struct response_usage {
    uint64_t prompt_tokens, completion_tokens;
};

/* One choice of a whole answer or of one chunk. */
struct response_choice {
    uint32_t index;
    bool role;               /* chunk: the first one of a chat choice */
    const char *text;
    size_t text_bytes;
    const char *logprobs;    /* JSON, or NULL: null */
    const char *finish_reason; /* NULL: null */
};

/* A new id, creation time and so on. */
void response_head_start(struct response_head *h, bool chat, bool include_usage, const char *model, const char *fingerprint);
/* One SSE event with one choice. */
void response_put_chunk(struct buffer *b, const struct response_head *h, const struct response_choice *c);
/* The SSE event with the usage alone. */
void response_put_usage_chunk(struct buffer *b, const struct response_head *h, const struct response_usage *u);
/* A whole answer: begin, each choice in order, end. */
void response_begin(struct buffer *b, const struct response_head *h);
void response_put_choice(struct buffer *b, const struct response_head *h, const struct response_choice *c);
void response_finish(struct buffer *b, const struct response_usage *u);

#endif
