/* A request's life: from prompt tokens to text, one token at a time.
 *
 * Pure: no clock (it is given `now`), no socket, no lock. A request knows what was asked, which tokens came, which text
 * may go out (never a part of a stop string, never half a character) and why it ended. Which pages it uses and when it
 * computes is the scheduler's affair (schedule.h). One owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_REQUEST_H
#define BRIGADE_COORDINATOR_CORE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "engine/model/sampler.h"
#include "engine/text/tokenizer.h"

#define REQUEST_STOPS_MAX 16
#define REQUEST_STOP_BYTES_MAX 256
#define REQUEST_PRIORITY_MAX 100 /* and its negative; 0 is usual */

enum finish_reason {
    FINISH_NONE,      /* still running */
    FINISH_STOP,      /* the model's end token or a stop string */
    FINISH_LENGTH,    /* max_tokens, or the context is full */
    FINISH_DONE,      /* a request that generates nothing (scores, logits) has its numbers */
    FINISH_CANCELLED,
    FINISH_ERROR,
};
const char *finish_reason_name(enum finish_reason reason); /* "stop", "length", "done", "cancelled", "error" */

struct request_token {
    uint32_t index;           /* 0 for the first generated token */
    int32_t id;
    float logprob;            /* natural, of the model's own distribution */
    uint32_t top_count;
    const struct token_logprob *top; /* falling; as many as sampling.top_logprobs asked for */
    const char *text;         /* what may go out now: whole characters, perhaps of earlier tokens, perhaps nothing */
    size_t text_bytes;        /* text is terminated too */
};

struct request_timing {       /* microseconds of the clock that gave `now`; 0 for what has not happened */
    int64_t arrived_us, started_us /* first span computed */, first_token_us, last_token_us, finished_us;
};

struct request_finish {
    enum finish_reason reason;
    const char *stop;         /* the stop string that matched; NULL for the end token and other reasons */
    const struct error *error; /* FINISH_ERROR: what, where, what to do */
    const char *text;         /* what had been held back and may now go out; terminated */
    size_t text_bytes;
    uint32_t prompt_tokens, generated_tokens;
    const int32_t *tokens;    /* generated_tokens of them; an end token is not among them */
    const float *scores;      /* scores: score_count = prompt_tokens-1; scores[i] is the negative natural
                               * log-likelihood of prompt[i+1] */
    uint32_t score_count;
    const float *logits;      /* logits: logit_count = vocabulary, after the last prompt token */
    uint32_t logit_count;
    struct request_timing timing;
};

/* What a client asks for. Everything pointed to is copied by request_create. */
struct request_options {
    const int32_t *prompt;    /* at least one token */
    size_t prompt_count;
    uint32_t max_tokens;      /* 0 with scores or logits: nothing is generated. UINT32_MAX: up to the context. */
    struct sampling sampling; /* start from sampling_default(); prompt_tokens is filled in by request_create */
    const char *const *stop;
    size_t stop_count;
    bool ignore_end;          /* the model's end tokens are tokens like others */
    bool scores;              /* nll of every prompt token but the first */
    bool logits;              /* raw logits after the prompt's last token; excludes max_tokens > 0 */
    unsigned decode_flags;    /* detokenizer_flags of the streamed text */
    uint64_t client;          /* requests of one client share its turn; 0 is a client too */
    int32_t priority;         /* higher ones go first and keep their pages longest; see REQUEST_PRIORITY_MAX */
    int64_t deadline_us;      /* from arrival, then FINISH_ERROR with ERR_TIMEOUT; 0: none */
    /* Called by the thread that steps the runner, on_finish exactly once and last. What they are given is valid during
     * the call. They may submit and cancel; they must return soon, for the cluster waits meanwhile. May be NULL. */
    void (*on_token)(void *context, uint64_t id, const struct request_token *token);
    void (*on_finish)(void *context, uint64_t id, const struct request_finish *finish);
    void *context;
};

struct request;

/* Copies the options. `vocabulary` and `max_context` bound them: ERR_BOUND for a prompt that leaves no room (both
 * numbers), ERR_USAGE for an empty prompt, a token outside the vocabulary, bad sampling or stop strings, nothing to do.
 * tokenizer may be NULL (then no text and no end token); it must outlive the request. */
int request_create(const struct request_options *options, uint64_t id, const struct tokenizer *tokenizer,
                   uint32_t vocabulary, uint32_t max_context, int64_t now_us, struct request **out, struct error *err);
void request_destroy(struct request *r); /* NULL is fine */

/* All tokens so far: the prompt, then what was generated. */
const int32_t *request_tokens(const struct request *r, uint32_t *count);
const struct request_options *request_asked(const struct request *r); /* pointers into the request's own copies */
uint64_t request_id(const struct request *r);
uint32_t request_prompt_count(const struct request *r);
enum finish_reason request_reason(const struct request *r);
const struct request_timing *request_timing_of(const struct request *r);

void request_started(struct request *r, int64_t now_us); /* its first span was submitted */
/* The token the model chose. Calls on_token (not for an end token), then, when that ended the request, on_finish.
 * Ignored once finished. */
int request_push(struct request *r, const struct sampled *sampled, int64_t now_us, struct error *err);
/* Scores of positions [first, first+count): nll of the token after each. */
void request_push_scores(struct request *r, uint32_t first, const float *scores, uint32_t count);
int request_push_logits(struct request *r, const float *logits, uint32_t count, struct error *err);
/* Ends it and calls on_finish once; text held back goes out unless the reason is an error. Ignored once finished. */
void request_finish(struct request *r, enum finish_reason reason, const struct error *error, int64_t now_us);

#endif
