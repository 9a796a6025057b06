/* Bounds of work and result frames. Pure functions; any thread. */
#include "proto/frame_check.h"

#include <math.h>

#include "proto/activation.h"

static int check_count(size_t count, size_t limit, const char *what, struct error *err)
{
    if (count > limit)
        return error_set(err, ERR_BOUND, "data frame: %zu %s; the limit is %zu", count, what, limit);
    return 0;
}

static int check_sampling(const struct frame_sampling *s, uint32_t sequence, struct error *err)
{
    const float values[] = {s->temperature,    s->top_p,            s->min_p,
                            s->repeat_penalty, s->presence_penalty, s->frequency_penalty};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (!isfinite(values[i]))
            return error_set(err, ERR_FORMAT, "data frame: sequence %u: a sampling setting is no finite number",
                             sequence);
    if (s->bias_count > FRAME_BIAS_MAX || s->top_logprobs > FRAME_TOP_MAX)
        return error_set(err, ERR_BOUND,
                         "data frame: sequence %u: %u logit biases and %u log-probabilities; the limits are %u and %u",
                         sequence, s->bias_count, s->top_logprobs, FRAME_BIAS_MAX, FRAME_TOP_MAX);
    for (uint32_t i = 0; i < s->bias_count; i++)
        if (!isfinite(s->bias[i].bias))
            return error_set(err, ERR_FORMAT, "data frame: sequence %u: the bias of token %d is no finite number",
                             sequence, s->bias[i].token);
    return 0;
}

static int check_span(const struct frame_work *w, uint32_t i, struct error *err)
{
    const struct frame_span *s = &w->spans[i];
    for (uint32_t k = 0; k < i; k++)
        if (w->spans[k].sequence == s->sequence)
            return error_set(err, ERR_FORMAT, "data frame: sequence %u has two spans", s->sequence);
    if (!s->count || s->known > s->first)
        return error_set(err, ERR_FORMAT, "data frame: sequence %u: span of %u positions from %u, known %u",
                         s->sequence, s->count, s->first, s->known);
    if ((uint64_t)s->first + s->count > FRAME_KNOWN_MAX)
        return error_set(err, ERR_BOUND, "data frame: sequence %u: positions up to %llu; the limit is %u", s->sequence,
                         (unsigned long long)s->first + s->count, FRAME_KNOWN_MAX);
    if ((uint64_t)s->page_offset + s->page_count > FRAME_PAGES_MAX)
        return error_set(err, ERR_BOUND, "data frame: sequence %u: %u pages from entry %u; the limit is %u",
                         s->sequence, s->page_count, s->page_offset, FRAME_PAGES_MAX);
    if (s->want > 3)
        return error_set(err, ERR_FORMAT, "data frame: sequence %u: wants %u, which is nothing known", s->sequence,
                         s->want);
    return s->sampling ? check_sampling(s->sampling, s->sequence, err) : 0;
}

/* Where only gaps are filled, nothing comes out at the end. */
static int check_shares(const struct frame_work *w, struct error *err)
{
    for (uint32_t i = 0; i < w->share_count; i++) {
        const struct frame_share *s = &w->shares[i];
        bool empty = s->first_block == s->end_block;
        if (s->first_block > s->end_block || (empty && s->kept != s->send))
            return error_set(err, ERR_FORMAT, "data frame: stage %u shall compute blocks %u up to %u", i, s->first_block,
                             s->end_block);
    }
    for (uint32_t i = 0; w->share_count && i < w->span_count; i++)
        if (w->spans[i].want)
            return error_set(err, ERR_FORMAT, "data frame: sequence %u: wants a result where only gaps are filled",
                             w->spans[i].sequence);
    return 0;
}

int frame_check_work(const struct frame_work *w, struct work_sums *sums, struct error *err)
{
    int rc;
    if ((rc = check_count(w->span_count, FRAME_SPANS_MAX, "spans", err)) ||
        (rc = check_count(w->release_count, FRAME_RELEASE_MAX, "released sequences", err)) ||
        (rc = check_count(w->copy_count, FRAME_COPIES_MAX, "page copies", err)) ||
        (rc = check_count(w->trace_count, FRAME_STAGES_MAX, "traces", err)) ||
        (rc = check_count(w->share_count, FRAME_STAGES_MAX, "shares", err)) || (rc = check_shares(w, err)))
        return rc;
    uint64_t tokens = 0, listed = 0, pages = 0;
    for (uint32_t i = 0; i < w->span_count; i++) {
        if ((rc = check_span(w, i, err)))
            return rc;
        const struct frame_span *s = &w->spans[i];
        tokens += s->count;
        listed += s->first - s->known + s->count;
        pages += s->page_count;
    }
    if ((rc = check_count(tokens, FRAME_TOKENS_MAX, "tokens to compute", err)) ||
        (rc = check_count(listed, FRAME_KNOWN_MAX, "token ids", err)) ||
        (rc = check_count(pages, FRAME_PAGES_MAX, "page ids", err)))
        return rc;
    size_t activations = 0;
    if (w->codec != CODEC_NONE) {
        if ((unsigned)w->codec >= CODEC_COUNT || !w->width || w->width > FRAME_WIDTH_MAX || !tokens)
            return error_set(err, ERR_FORMAT, "data frame: activations of %llu tokens, width %u, codec %d",
                             (unsigned long long)tokens, w->width, (int)w->codec);
        activations = activation_bytes(w->codec, (uint32_t)tokens, w->width);
        if (!activations || activations > FRAME_PAYLOAD_BYTES_MAX)
            return error_set(err, ERR_BOUND, "data frame: %zu bytes of activations; the limit is %u", activations,
                             FRAME_PAYLOAD_BYTES_MAX);
    } else if (w->width) {
        return error_set(err, ERR_FORMAT, "data frame: width %u without activations", w->width);
    }
    *sums = (struct work_sums){(uint32_t)tokens, (size_t)listed * 4, (size_t)pages, activations};
    return 0;
}

int frame_check_result(const struct frame_result *r, size_t *float_bytes, struct error *err)
{
    int rc;
    if ((rc = check_count(r->span_count, FRAME_SPANS_MAX, "spans", err)) ||
        (rc = check_count(r->trace_count, FRAME_STAGES_MAX, "traces", err)))
        return rc;
    if (r->error_code > 0 || (r->error_code && r->span_count))
        return error_set(err, ERR_FORMAT, "data frame: result with error code %d and %u spans", r->error_code,
                         r->span_count);
    uint64_t floats = 0;
    for (uint32_t i = 0; i < r->span_count; i++) {
        const struct frame_span_result *s = &r->spans[i];
        if ((rc = check_count(s->top_count, FRAME_TOP_MAX, "log-probabilities of a token", err)))
            return rc;
        if (s->want > 3)
            return error_set(err, ERR_FORMAT, "data frame: sequence %u: result %u is nothing known", s->sequence,
                             s->want);
        floats += s->float_count;
    }
    if ((rc = check_count(floats, FRAME_PAYLOAD_BYTES_MAX / 4, "floats", err)))
        return rc;
    *float_bytes = (size_t)floats * 4;
    return 0;
}
