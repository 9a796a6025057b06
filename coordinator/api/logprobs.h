/* Log-probabilities of generated tokens in OpenAI's two styles. A token's entry waits until its text may go out, so that
 * tokens of a stop string that was cut off do not appear. One thread. */
#ifndef BRIGADE_COORDINATOR_API_LOGPROBS_H
#define BRIGADE_COORDINATOR_API_LOGPROBS_H

#include <stdbool.h>

#include "base/buffer.h"
#include "coordinator/core/request.h"
#include "engine/text/tokenizer.h"

struct logprob_entry {
    struct token_logprob chosen;
    uint32_t top_count;
    struct token_logprob top[SAMPLING_TOP_MAX];
    uint64_t start, character; /* of its text within the answer: bytes, characters */
};

struct logprobs {
    const struct tokenizer *tokenizer;
    bool chat;                      /* else the style of text completions */
    struct logprob_entry *waiting;
    size_t count, capacity;
    uint64_t bytes, characters;     /* of all tokens so far; characters may start with an echoed prompt's */
    size_t ready;                   /* entries formatted below and not yet taken */
    struct buffer entries;          /* chat: objects; text: tokens */
    struct buffer values, tops, offsets; /* text only */
};

/* From {0} with tokenizer and chat set. Fails only without memory. */
int logprobs_add(struct logprobs *l, const struct request_token *token);
/* Formats the entries whose text begins before `released` bytes of the answer; all of them with `rest`. */
int logprobs_release(struct logprobs *l, uint64_t released, bool rest);
/* Writes {"content":[…],"refusal":null} or {"tokens":…} of what is ready and forgets it. */
void logprobs_put(struct logprobs *l, struct buffer *out);
void logprobs_free(struct logprobs *l);

#endif
