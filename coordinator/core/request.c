/* One request: tokens in, text out, stop conditions. Owns its copies of prompt, settings and text; touches no clock and
 * no pages. One owner thread. */
#include "coordinator/core/request.h"

#include <string.h>

#include "base/memory.h"

struct request {
    uint64_t id;
    struct request_options asked; /* pointers go into the fields below */
    const struct tokenizer *tokenizer;
    uint32_t vocabulary, max_context;
    int32_t *tokens; /* prompt, then generated */
    uint32_t count, capacity, prompt;
    char *stops[REQUEST_STOPS_MAX];
    struct token_stream stream;
    struct buffer pending; /* decoded text not yet given out */
    float *scores, *logits;
    uint32_t score_count, logit_count;
    enum finish_reason reason;
    const char *stop_hit;
    struct request_timing timing;
};

const char *finish_reason_name(enum finish_reason reason)
{
    static const char *const names[] = {"none", "stop", "length", "done", "cancelled", "error"};
    return (unsigned)reason < sizeof names / sizeof *names ? names[reason] : "unknown";
}

static int check_options(const struct request_options *o, uint32_t vocabulary, uint32_t max_context, struct error *err)
{
    bool generates = o->max_tokens > 0;
    if (!o->prompt_count)
        return error_set(err, ERR_USAGE, "the prompt is empty: it needs at least one token");
    if (o->prompt_count > max_context)
        return error_set(err, ERR_BOUND,
                         "the prompt has %zu tokens but the context holds %u: shorten it or raise the context",
                         o->prompt_count, max_context);
    if (generates && o->prompt_count == max_context)
        return error_set(err, ERR_BOUND,
                         "the prompt has %zu tokens and fills the context of %u, so nothing can be generated: shorten "
                         "it or raise the context",
                         o->prompt_count, max_context);
    if (!generates && !o->scores && !o->logits)
        return error_set(err, ERR_USAGE, "nothing to do: no tokens, scores or logits are asked for");
    if (generates && o->logits)
        return error_set(err, ERR_USAGE, "logits and generated tokens cannot be asked for in one request");
    if (o->scores && o->prompt_count < 2 && !o->logits && !generates)
        return error_set(err, ERR_USAGE, "scores need a prompt of at least two tokens");
    for (size_t i = 0; i < o->prompt_count; i++)
        if (o->prompt[i] < 0 || (uint32_t)o->prompt[i] >= vocabulary)
            return error_set(err, ERR_USAGE, "token %d at position %zu of the prompt is outside the vocabulary of %u",
                             o->prompt[i], i, vocabulary);
    if (o->priority > REQUEST_PRIORITY_MAX || o->priority < -REQUEST_PRIORITY_MAX)
        return error_set(err, ERR_USAGE, "a priority of %d; it must be between -%d and %d", o->priority,
                         REQUEST_PRIORITY_MAX, REQUEST_PRIORITY_MAX);
    if (o->stop_count > REQUEST_STOPS_MAX)
        return error_set(err, ERR_USAGE, "%zu stop strings; at most %d", o->stop_count, REQUEST_STOPS_MAX);
    for (size_t i = 0; i < o->stop_count; i++)
        if (!o->stop[i] || !*o->stop[i] || strlen(o->stop[i]) > REQUEST_STOP_BYTES_MAX)
            return error_set(err, ERR_USAGE, "stop string %zu must have 1 to %d bytes", i + 1, REQUEST_STOP_BYTES_MAX);
    return sampling_check(&o->sampling, vocabulary, err);
}

int request_create(const struct request_options *options, uint64_t id, const struct tokenizer *tokenizer,
                   uint32_t vocabulary, uint32_t max_context, int64_t now_us, struct request **out, struct error *err)
{
    int rc = check_options(options, vocabulary, max_context, err);
    if (rc)
        return rc;
    struct request *r = mem_zalloc(1, sizeof *r);
    if (!r)
        goto nomem;
    r->id = id;
    r->asked = *options;
    r->tokenizer = tokenizer;
    r->vocabulary = vocabulary;
    r->max_context = max_context;
    r->prompt = r->count = (uint32_t)options->prompt_count;
    r->capacity = r->count + 64;
    r->timing.arrived_us = now_us;
    r->asked.sampling.prompt_tokens = r->prompt;
    r->asked.stop = (const char *const *)r->stops;
    if (!(r->tokens = mem_resize(NULL, r->capacity, sizeof *r->tokens)))
        goto nomem;
    memcpy(r->tokens, options->prompt, r->count * sizeof *r->tokens);
    r->asked.prompt = r->tokens;
    for (size_t i = 0; i < options->stop_count; i++)
        if (!(r->stops[i] = mem_strdup(options->stop[i])))
            goto nomem;
    if (options->scores && r->prompt > 1) {
        r->score_count = r->prompt - 1;
        if (!(r->scores = mem_zalloc(r->score_count, sizeof *r->scores)))
            goto nomem;
    }
    if (tokenizer)
        token_stream_start(&r->stream, tokenizer, options->decode_flags);
    *out = r;
    return 0;
nomem:
    request_destroy(r);
    return error_set(err, ERR_NOMEM, "out of memory for a request of %zu tokens", options->prompt_count);
}

void request_destroy(struct request *r)
{
    if (!r)
        return;
    mem_free(r->tokens);
    for (size_t i = 0; i < REQUEST_STOPS_MAX; i++)
        mem_free(r->stops[i]);
    buffer_free(&r->pending);
    mem_free(r->scores);
    mem_free(r->logits);
    mem_free(r);
}

const int32_t *request_tokens(const struct request *r, uint32_t *count)
{
    *count = r->count;
    return r->tokens;
}

const struct request_options *request_asked(const struct request *r)
{
    return &r->asked;
}

uint64_t request_id(const struct request *r)
{
    return r->id;
}

uint32_t request_prompt_count(const struct request *r)
{
    return r->prompt;
}

enum finish_reason request_reason(const struct request *r)
{
    return r->reason;
}

const struct request_timing *request_timing_of(const struct request *r)
{
    return &r->timing;
}

void request_started(struct request *r, int64_t now_us)
{
    if (!r->timing.started_us)
        r->timing.started_us = now_us;
}

/* Bytes of pending text that may go out now; *hit is the stop string found behind them, if any. The stop string that is
 * complete first wins (the longer one when two end together), so the answer does not depend on how text was cut into
 * tokens. */
static size_t releasable(const struct request *r, const char **hit)
{
    const char *text = r->pending.data;
    size_t size = r->pending.size, release = size, best_end = SIZE_MAX;
    *hit = NULL;
    for (size_t i = 0; i < r->asked.stop_count; i++) {
        size_t length = strlen(r->stops[i]);
        const char *at = size >= length ? memmem(text, size, r->stops[i], length) : NULL;
        if (!at)
            continue;
        size_t start = (size_t)(at - text), end = start + length;
        if (end < best_end || (end == best_end && start < release)) {
            best_end = end;
            release = start;
            *hit = r->stops[i];
        }
    }
    if (*hit)
        return release;
    /* Hold back the longest end of the text that begins a stop string. */
    for (size_t i = 0; i < r->asked.stop_count; i++) {
        size_t length = strlen(r->stops[i]);
        for (size_t n = length - 1 < size ? length - 1 : size; n; n--)
            if (!memcmp(text + size - n, r->stops[i], n)) {
                if (size - n < release)
                    release = size - n;
                break;
            }
    }
    while (release && release < size && ((unsigned char)text[release] & 0xC0) == 0x80)
        release--;
    return release;
}

static void drop_front(struct buffer *b, size_t n)
{
    if (!n)
        return;
    memmove(b->data, b->data + n, b->size - n);
    b->size -= n;
    b->data[b->size] = 0;
}

int request_push(struct request *r, const struct sampled *sampled, int64_t now_us, struct error *err)
{
    int32_t id = sampled->chosen.token;
    if (r->reason != FINISH_NONE)
        return 0;
    if (id < 0 || (uint32_t)id >= r->vocabulary)
        return error_set(err, ERR_FORMAT, "the last stage chose token %d, outside the vocabulary of %u", id,
                         r->vocabulary);
    if (!r->timing.first_token_us)
        r->timing.first_token_us = now_us;
    r->timing.last_token_us = now_us;
    if (r->tokenizer && !r->asked.ignore_end && tokenizer_is_end(r->tokenizer, id)) {
        request_finish(r, FINISH_STOP, NULL, now_us);
        return 0;
    }
    if (r->count == r->capacity) {
        uint32_t capacity = r->capacity + r->capacity / 2;
        int32_t *grown = mem_resize(r->tokens, capacity, sizeof *grown);
        if (!grown)
            return error_set(err, ERR_NOMEM, "out of memory for %u tokens", capacity);
        r->tokens = grown;
        r->asked.prompt = grown;
        r->capacity = capacity;
    }
    if (r->tokenizer) {
        int rc = token_stream_push(&r->stream, id, &r->pending, err);
        if (rc)
            return rc;
    }
    uint32_t index = r->count - r->prompt;
    r->tokens[r->count++] = id;

    const char *hit = NULL;
    size_t release = r->pending.size ? releasable(r, &hit) : 0;
    char after = 0;
    if (release) { /* terminate what goes out, in place */
        after = r->pending.data[release];
        r->pending.data[release] = 0;
    }
    if (r->asked.on_token) {
        struct request_token token = {
            .index = index,
            .id = id,
            .logprob = sampled->chosen.logprob,
            .top_count = sampled->top_count,
            .top = sampled->top,
            .text = release ? r->pending.data : "",
            .text_bytes = release,
        };
        r->asked.on_token(r->asked.context, r->id, &token);
    }
    if (release) {
        r->pending.data[release] = after;
        drop_front(&r->pending, release);
    }
    if (hit) {
        r->stop_hit = hit;
        buffer_clear(&r->pending);
        request_finish(r, FINISH_STOP, NULL, now_us);
    } else if (index + 1 >= r->asked.max_tokens || r->count >= r->max_context) {
        request_finish(r, FINISH_LENGTH, NULL, now_us);
    }
    return 0;
}

void request_push_scores(struct request *r, uint32_t first, const float *scores, uint32_t count)
{
    if (!r->scores || first >= r->score_count)
        return;
    if (count > r->score_count - first)
        count = r->score_count - first;
    memcpy(r->scores + first, scores, count * sizeof *scores);
}

int request_push_logits(struct request *r, const float *logits, uint32_t count, struct error *err)
{
    float *copy = mem_resize(NULL, count, sizeof *copy);
    if (!copy)
        return error_set(err, ERR_NOMEM, "out of memory for %u logits", count);
    memcpy(copy, logits, count * sizeof *copy);
    mem_free(r->logits);
    r->logits = copy;
    r->logit_count = count;
    return 0;
}

void request_finish(struct request *r, enum finish_reason reason, const struct error *error, int64_t now_us)
{
    if (r->reason != FINISH_NONE)
        return;
    r->reason = reason;
    r->timing.finished_us = now_us;
    if (r->tokenizer && !r->stop_hit)
        token_stream_finish(&r->stream, &r->pending, NULL); /* without memory only the broken character is lost */
    if (!r->asked.on_finish)
        return;
    struct request_finish finish = {
        .reason = reason,
        .stop = r->stop_hit,
        .error = error,
        .text = r->pending.size ? r->pending.data : "",
        .text_bytes = r->pending.size,
        .prompt_tokens = r->prompt,
        .generated_tokens = r->count - r->prompt,
        .tokens = r->tokens + r->prompt,
        .scores = r->scores,
        .score_count = r->score_count,
        .logits = r->logits,
        .logit_count = r->logit_count,
        .timing = r->timing,
    };
    r->asked.on_finish(r->asked.context, r->id, &finish);
}
