/* Bytes to data frames. The header is unpacked into an arena, checked, and copied into one allocation that the frame
 * owns; tokens and floats are pointed at where they lie in the raw parts. Pure; any thread. */
#include "proto/frame.h"

#include <string.h>

#include "base/memory.h"
#include "brigade.pb-c.h"
#include "proto/frame_check.h"
#include "proto/wire.h"

/* A raw part as the header announces it: absent or empty for 0 bytes. */
static int check_part(const struct frame_part *parts, size_t part_count, size_t i, size_t bytes, const char *what,
                      struct error *err)
{
    size_t have = i < part_count ? parts[i].size : 0;
    if (have != bytes)
        return error_set(err, ERR_FORMAT, "data frame: %zu bytes of %s where %zu belong", have, what, bytes);
    if (bytes && (uintptr_t)parts[i].data % 4)
        return error_set(err, ERR_FORMAT, "data frame: %s are not aligned to 4 bytes", what);
    return 0;
}

static int check_announced(uint64_t announced, size_t bytes, const char *what, struct error *err)
{
    if (announced != bytes)
        return error_set(err, ERR_FORMAT, "data frame: header announces %llu bytes of %s where %zu belong",
                         (unsigned long long)announced, what, bytes);
    return 0;
}

static void copy_sampling(struct wire_carver *c, const Brigade__Sampling *m, struct frame_sampling *s)
{
    struct frame_bias *bias = wire_carve(c, m->n_bias, sizeof *bias);
    if (!c->base)
        return;
    for (size_t i = 0; i < m->n_bias; i++)
        bias[i] = (struct frame_bias){m->bias[i]->token, m->bias[i]->bias};
    *s = (struct frame_sampling){
        .temperature = m->temperature,
        .top_p = m->top_p,
        .min_p = m->min_p,
        .repeat_penalty = m->repeat_penalty,
        .presence_penalty = m->presence_penalty,
        .frequency_penalty = m->frequency_penalty,
        .top_k = m->top_k,
        .repeat_last = m->repeat_last,
        .prompt_tokens = m->prompt_tokens,
        .top_logprobs = m->top_logprobs,
        .seed = m->seed,
        .bias_count = (uint32_t)m->n_bias,
        .bias = bias,
    };
}

static void copy_span(struct wire_carver *c, const Brigade__Span *m, struct frame_span *s)
{
    uint32_t *pages = wire_carve(c, m->n_pages, sizeof *pages);
    struct frame_sampling *sampling = m->sampling ? wire_carve(c, 1, sizeof *sampling) : NULL;
    if (m->sampling)
        copy_sampling(c, m->sampling, sampling);
    if (!c->base)
        return;
    if (m->n_pages)
        memcpy(pages, m->pages, m->n_pages * sizeof *pages);
    *s = (struct frame_span){
        .sequence = m->sequence,
        .first = m->first,
        .count = m->count,
        .known = m->known,
        .page_offset = m->page_offset,
        .page_count = (uint32_t)m->n_pages,
        .pages = pages,
        .hash = m->hash,
        .want = m->want,
        .next_token = m->next_token,
        .sampling = sampling,
    };
}

static struct frame_trace *copy_trace(struct wire_carver *c, Brigade__StageTrace *const *m, size_t count)
{
    struct frame_trace *trace = wire_carve(c, count, sizeof *trace);
    for (size_t i = 0; c->base && i < count; i++)
        trace[i] = (struct frame_trace){m[i]->stage, m[i]->received_us, m[i]->started_us, m[i]->finished_us,
                                        m[i]->sent_us};
    return trace;
}

/* Measures (c->base NULL) or copies. Counts were bounded before. */
static void copy_work(struct wire_carver *c, const Brigade__Work *m, struct frame_work *w)
{
    struct frame_span *spans = wire_carve(c, m->n_spans, sizeof *spans);
    uint32_t *release = wire_carve(c, m->n_release, sizeof *release);
    struct frame_page_copy *copies = wire_carve(c, m->n_copies, sizeof *copies);
    struct frame_trace *trace = copy_trace(c, m->trace, m->n_trace);
    struct frame_share *shares = wire_carve(c, m->n_shares, sizeof *shares);
    for (size_t i = 0; i < m->n_spans; i++)
        copy_span(c, m->spans[i], spans ? &spans[i] : NULL);
    if (!c->base)
        return;
    if (m->n_release)
        memcpy(release, m->release, m->n_release * sizeof *release);
    for (size_t i = 0; i < m->n_copies; i++)
        copies[i] = (struct frame_page_copy){m->copies[i]->from, m->copies[i]->to, m->copies[i]->count};
    for (size_t i = 0; i < m->n_shares; i++)
        shares[i] = (struct frame_share){m->shares[i]->first_block, m->shares[i]->end_block, m->shares[i]->kept,
                                         m->shares[i]->send};
    w->share_count = (uint32_t)m->n_shares;
    w->shares = shares;
    w->span_count = (uint32_t)m->n_spans;
    w->release_count = (uint32_t)m->n_release;
    w->copy_count = (uint32_t)m->n_copies;
    w->trace_count = (uint32_t)m->n_trace;
    w->spans = spans;
    w->release = release;
    w->copies = copies;
    w->trace = trace;
    w->want_trace = m->want_trace;
    w->filled = m->filled;
    w->codec = (enum frame_codec)m->codec;
    w->width = m->width;
}

/* Counts over a bound are refused before anything is sized by them. */
static int bound(size_t count, size_t limit, const char *what, struct error *err)
{
    if (count > limit)
        return error_set(err, ERR_BOUND, "data frame: %zu %s; the limit is %zu", count, what, limit);
    return 0;
}

static int bound_work(const Brigade__Work *m, struct error *err)
{
    size_t pages = 0, bias = 0;
    int rc;
    if ((rc = bound(m->n_spans, FRAME_SPANS_MAX, "spans", err)) ||
        (rc = bound(m->n_release, FRAME_RELEASE_MAX, "released sequences", err)) ||
        (rc = bound(m->n_copies, FRAME_COPIES_MAX, "page copies", err)) ||
        (rc = bound(m->n_shares, FRAME_STAGES_MAX, "shares", err)) ||
        (rc = bound(m->n_trace, FRAME_STAGES_MAX, "traces", err)))
        return rc;
    for (size_t i = 0; i < m->n_spans; i++) {
        pages += m->spans[i]->n_pages;
        bias = m->spans[i]->sampling ? m->spans[i]->sampling->n_bias : 0;
        if ((rc = bound(bias, FRAME_BIAS_MAX, "logit biases of a sequence", err)))
            return rc;
    }
    return bound(pages, FRAME_PAGES_MAX, "page ids", err);
}

static int decode_work(const Brigade__Work *m, const struct frame_part *parts, size_t part_count,
                       struct data_frame *f, struct error *err)
{
    struct frame_work *w = &f->work;
    struct wire_carver c = {0};
    struct work_sums sums;
    int rc = bound_work(m, err);
    if (rc)
        return rc;
    copy_work(&c, m, w);
    if (!(f->memory = c.base = mem_alloc(c.used + 1)))
        return error_set(err, ERR_NOMEM, "data frame: no memory for %zu bytes", c.used);
    c.used = 0;
    copy_work(&c, m, w);
    w->epoch = f->epoch;
    w->microbatch = f->microbatch;
    if ((rc = frame_check_work(w, &sums, err)) ||
        (rc = check_announced(m->token_bytes, sums.token_bytes, "token ids", err)) ||
        (rc = check_announced(m->activation_bytes, sums.activation_bytes, "activations", err)) ||
        (rc = check_part(parts, part_count, 1, sums.token_bytes, "token ids", err)) ||
        (rc = check_part(parts, part_count, 2, sums.activation_bytes, "activations", err)))
        return rc;
    w->tokens = sums.tokens;
    w->token_bytes = sums.token_bytes;
    w->activation_bytes = sums.activation_bytes;
    const int32_t *tokens = part_count > 1 ? parts[1].data : NULL;
    for (uint32_t i = 0; i < w->span_count; i++) {
        w->spans[i].tokens = tokens;
        tokens += w->spans[i].first - w->spans[i].known + w->spans[i].count;
    }
    return 0;
}

static void copy_result(struct wire_carver *c, const Brigade__Result *m, struct frame_result *r)
{
    struct frame_span_result *spans = wire_carve(c, m->n_spans, sizeof *spans);
    struct frame_trace *trace = copy_trace(c, m->trace, m->n_trace);
    char *text = wire_carve(c, FRAME_TEXT_MAX, 1);
    for (size_t i = 0; i < m->n_spans; i++) {
        const Brigade__SpanResult *s = m->spans[i];
        struct frame_chosen *top = wire_carve(c, s->n_top, sizeof *top);
        if (!c->base)
            continue;
        for (size_t k = 0; k < s->n_top; k++)
            top[k] = (struct frame_chosen){s->top[k]->token, s->top[k]->logprob};
        spans[i] = (struct frame_span_result){
            .sequence = s->sequence,
            .position = s->position,
            .want = s->want,
            .top_count = (uint32_t)s->n_top,
            .top = top,
            .float_count = (uint32_t)s->float_count,
        };
        if (s->chosen)
            spans[i].chosen = (struct frame_chosen){s->chosen->token, s->chosen->logprob};
    }
    if (!c->base)
        return;
    wire_prose(text, FRAME_TEXT_MAX, m->error_text);
    r->span_count = (uint32_t)m->n_spans;
    r->trace_count = (uint32_t)m->n_trace;
    r->spans = spans;
    r->trace = trace;
    r->error_code = m->error_code;
    r->error_text = text;
    r->stage = m->stage;
}

static int decode_result(const Brigade__Result *m, const struct frame_part *parts, size_t part_count,
                         struct data_frame *f, struct error *err)
{
    struct frame_result *r = &f->result;
    struct wire_carver c = {0};
    int rc;
    if ((rc = bound(m->n_spans, FRAME_SPANS_MAX, "spans", err)) ||
        (rc = bound(m->n_trace, FRAME_STAGES_MAX, "traces", err)))
        return rc;
    for (size_t i = 0; i < m->n_spans; i++)
        if ((rc = bound(m->spans[i]->n_top, FRAME_TOP_MAX, "log-probabilities of a token", err)) ||
            (rc = bound(m->spans[i]->float_count, FRAME_PAYLOAD_BYTES_MAX / 4, "floats", err)))
            return rc;
    copy_result(&c, m, r);
    if (!(f->memory = c.base = mem_alloc(c.used + 1)))
        return error_set(err, ERR_NOMEM, "data frame: no memory for %zu bytes", c.used);
    c.used = 0;
    copy_result(&c, m, r);
    r->epoch = f->epoch;
    r->microbatch = f->microbatch;
    if ((rc = frame_check_result(r, &r->float_bytes, err)) ||
        (rc = check_announced(m->float_bytes, r->float_bytes, "floats", err)) ||
        (rc = check_part(parts, part_count, 1, r->float_bytes, "floats", err)))
        return rc;
    const float *floats = part_count > 1 ? parts[1].data : NULL;
    for (uint32_t i = 0; i < r->span_count; i++) {
        if (!r->spans[i].float_count)
            continue;
        r->spans[i].floats = floats;
        floats += r->spans[i].float_count;
    }
    return 0;
}

static int decode_echo(const Brigade__Echo *m, const struct frame_part *parts, size_t part_count,
                       struct data_frame *f, struct error *err)
{
    if (m->payload_bytes > FRAME_PAYLOAD_BYTES_MAX)
        return error_set(err, ERR_BOUND, "data frame: echo of %llu bytes; the limit is %u",
                         (unsigned long long)m->payload_bytes, FRAME_PAYLOAD_BYTES_MAX);
    if (m->hold_us > FRAME_HOLD_US_MAX && f->kind == DATA_ECHO)
        return error_set(err, ERR_BOUND, "data frame: an echo to be held for %u us; the limit is %u", m->hold_us,
                         FRAME_HOLD_US_MAX);
    f->echo_id = m->id;
    f->echo_bytes = m->payload_bytes;
    f->echo_empty = m->reply_empty;
    f->echo_hold_us = m->hold_us;
    return check_part(parts, part_count, 1, (size_t)m->payload_bytes, "echo payload", err);
}

/* How many parts a kind may have, the header included. */
static int decode_body(const Brigade__DataHeader *h, const struct frame_part *parts, size_t part_count,
                       struct data_frame *f, struct error *err)
{
    size_t most = h->body_case == BRIGADE__DATA_HEADER__BODY_WORK ? 3
                  : h->body_case == BRIGADE__DATA_HEADER__BODY_ATTACH ||
                            h->body_case == BRIGADE__DATA_HEADER__BODY_ATTACHED
                      ? 1
                      : 2;
    if (part_count > most)
        return error_set(err, ERR_FORMAT, "data frame: %zu parts where at most %zu belong", part_count, most);
    switch (h->body_case) {
    case BRIGADE__DATA_HEADER__BODY_WORK:
        f->kind = DATA_WORK;
        return decode_work(h->work, parts, part_count, f, err);
    case BRIGADE__DATA_HEADER__BODY_RESULT:
        f->kind = DATA_RESULT;
        return decode_result(h->result, parts, part_count, f, err);
    case BRIGADE__DATA_HEADER__BODY_ATTACH:
        f->kind = DATA_ATTACH;
        f->role = h->attach->role;
        if (f->role != 1 && f->role != 2)
            return error_set(err, ERR_FORMAT, "data frame: attach with role %u; known are 1 and 2", f->role);
        return 0;
    case BRIGADE__DATA_HEADER__BODY_ATTACHED:
        f->kind = DATA_ATTACHED;
        f->stage = h->attached->stage;
        return 0;
    case BRIGADE__DATA_HEADER__BODY_ECHO:
        f->kind = DATA_ECHO;
        return decode_echo(h->echo, parts, part_count, f, err);
    case BRIGADE__DATA_HEADER__BODY_ECHOED:
        f->kind = DATA_ECHOED;
        return decode_echo(h->echoed, parts, part_count, f, err);
    default:
        return error_set(err, ERR_FORMAT, "data frame: it has no body this version knows");
    }
}

int frame_decode_data(const struct frame_part *parts, size_t part_count, struct data_frame *out, struct error *err)
{
    if (!part_count)
        return error_set(err, ERR_FORMAT, "data frame: no parts");
    struct wire_arena a;
    wire_arena_start(&a);
    struct data_frame f = {0};
    ProtobufCMessage *m = NULL;
    int rc = wire_unpack(&a, &brigade__data_header__descriptor, parts[0].data, parts[0].size, "data frame", &m, err);
    if (!rc) {
        const Brigade__DataHeader *h = (const Brigade__DataHeader *)m;
        f.epoch = h->epoch;
        f.microbatch = h->microbatch;
        rc = decode_body(h, parts, part_count, &f, err);
    }
    wire_arena_end(&a);
    if (rc) {
        mem_free(f.memory);
        return rc;
    }
    *out = f;
    return 0;
}

void frame_free(struct data_frame *f)
{
    mem_free(f->memory);
    f->memory = NULL;
}
