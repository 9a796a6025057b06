/* Data frames to bytes. Temporaries live in an arena of the call; pure, any thread. */
#include "proto/frame.h"

#include <string.h>

#include "brigade.pb-c.h"
#include "proto/frame_check.h"
#include "proto/wire.h"

static int no_memory(const struct wire_arena *a, struct error *err)
{
    return error_set(err, a->failed ? a->failed : ERR_NOMEM, "data frame: no memory to encode it");
}

/* An array of `count` messages and the array of pointers to them that protobuf-c wants. */
static void **message_list(struct wire_arena *a, size_t count, size_t bytes_each)
{
    void **list = wire_arena_take(a, count, sizeof *list);
    char *messages = wire_arena_take(a, count, bytes_each);
    for (size_t i = 0; list && messages && i < count; i++)
        list[i] = messages + i * bytes_each;
    return messages ? list : NULL;
}

static Brigade__StageTrace **encode_trace(struct wire_arena *a, const struct frame_trace *trace, uint32_t count)
{
    Brigade__StageTrace **list = (Brigade__StageTrace **)message_list(a, count, sizeof **list);
    for (uint32_t i = 0; list && i < count; i++) {
        brigade__stage_trace__init(list[i]);
        list[i]->stage = trace[i].stage;
        list[i]->received_us = trace[i].received_us;
        list[i]->started_us = trace[i].started_us;
        list[i]->finished_us = trace[i].finished_us;
        list[i]->sent_us = trace[i].sent_us;
    }
    return list;
}

static Brigade__Sampling *encode_sampling(struct wire_arena *a, const struct frame_sampling *s)
{
    Brigade__Sampling *m = wire_arena_take(a, 1, sizeof *m);
    if (!m)
        return NULL;
    brigade__sampling__init(m);
    m->temperature = s->temperature;
    m->top_k = s->top_k;
    m->top_p = s->top_p;
    m->min_p = s->min_p;
    m->repeat_penalty = s->repeat_penalty;
    m->repeat_last = s->repeat_last;
    m->presence_penalty = s->presence_penalty;
    m->frequency_penalty = s->frequency_penalty;
    m->seed = s->seed;
    m->prompt_tokens = s->prompt_tokens;
    m->top_logprobs = s->top_logprobs;
    m->n_bias = s->bias_count;
    m->bias = (Brigade__Bias **)message_list(a, s->bias_count, sizeof **m->bias);
    for (uint32_t i = 0; m->bias && i < s->bias_count; i++) {
        brigade__bias__init(m->bias[i]);
        m->bias[i]->token = s->bias[i].token;
        m->bias[i]->bias = s->bias[i].bias;
    }
    return m->bias ? m : NULL;
}

static int encode_spans(struct wire_arena *a, const struct frame_work *w, Brigade__Work *out)
{
    out->n_spans = w->span_count;
    out->spans = (Brigade__Span **)message_list(a, w->span_count, sizeof **out->spans);
    for (uint32_t i = 0; out->spans && i < w->span_count; i++) {
        const struct frame_span *s = &w->spans[i];
        Brigade__Span *m = out->spans[i];
        brigade__span__init(m);
        m->sequence = s->sequence;
        m->first = s->first;
        m->count = s->count;
        m->known = s->known;
        m->page_offset = s->page_offset;
        m->n_pages = s->page_count;
        m->pages = (uint32_t *)s->pages; /* only read */
        m->hash = s->hash;
        m->want = s->want;
        m->next_token = s->next_token;
        if (s->sampling && !(m->sampling = encode_sampling(a, s->sampling)))
            return ERR_NOMEM;
    }
    return out->spans ? 0 : ERR_NOMEM;
}

static int encode_copies(struct wire_arena *a, const struct frame_work *w, Brigade__Work *out)
{
    out->n_copies = w->copy_count;
    out->copies = (Brigade__PageCopy **)message_list(a, w->copy_count, sizeof **out->copies);
    for (uint32_t i = 0; out->copies && i < w->copy_count; i++) {
        brigade__page_copy__init(out->copies[i]);
        out->copies[i]->from = w->copies[i].from;
        out->copies[i]->to = w->copies[i].to;
        out->copies[i]->count = w->copies[i].count;
    }
    return out->copies ? 0 : ERR_NOMEM;
}

static Brigade__Share **encode_shares(struct wire_arena *a, const struct frame_work *w)
{
    Brigade__Share **list = (Brigade__Share **)message_list(a, w->share_count, sizeof **list);
    for (uint32_t i = 0; list && i < w->share_count; i++) {
        brigade__share__init(list[i]);
        list[i]->first_block = w->shares[i].first_block;
        list[i]->end_block = w->shares[i].end_block;
        list[i]->kept = w->shares[i].kept;
        list[i]->send = w->shares[i].send;
    }
    return list;
}

static Brigade__DataHeader header_of(uint64_t epoch, uint64_t microbatch)
{
    Brigade__DataHeader h = BRIGADE__DATA_HEADER__INIT;
    h.version = PROTOCOL_VERSION;
    h.epoch = epoch;
    h.microbatch = microbatch;
    return h;
}

int frame_encode_work(const struct frame_work *w, struct buffer *header, struct buffer *tokens, struct error *err)
{
    struct work_sums sums;
    int rc = frame_check_work(w, &sums, err);
    if (rc)
        return rc;
    if (sums.activation_bytes != w->activation_bytes)
        return error_set(err, ERR_INTERNAL, "data frame: %zu bytes of activations announced where %zu belong",
                         w->activation_bytes, sums.activation_bytes);
    struct wire_arena a;
    wire_arena_start(&a);
    Brigade__Work m = BRIGADE__WORK__INIT;
    Brigade__DataHeader h = header_of(w->epoch, w->microbatch);
    h.body_case = BRIGADE__DATA_HEADER__BODY_WORK;
    h.work = &m;
    m.n_release = w->release_count;
    m.release = w->release;
    m.codec = w->codec;
    m.width = w->width;
    m.token_bytes = sums.token_bytes;
    m.activation_bytes = sums.activation_bytes;
    m.want_trace = w->want_trace;
    m.filled = w->filled;
    m.n_trace = w->trace_count;
    m.trace = encode_trace(&a, w->trace, w->trace_count);
    m.n_shares = w->share_count;
    m.shares = encode_shares(&a, w);
    if (encode_spans(&a, w, &m) || encode_copies(&a, w, &m) || !m.trace || !m.shares) {
        rc = no_memory(&a, err);
        goto done;
    }
    char *at = buffer_reserve(tokens, sums.token_bytes);
    if (!at) {
        rc = error_set(err, tokens->failed, "data frame: no room for %zu bytes of token ids", sums.token_bytes);
        goto done;
    }
    if ((rc = wire_pack(&h.base, header, "data frame", err)))
        goto done;
    for (uint32_t i = 0; i < w->span_count; i++) {
        const struct frame_span *s = &w->spans[i];
        size_t bytes = ((size_t)s->first - s->known + s->count) * 4;
        memcpy(at, s->tokens, bytes);
        at += bytes;
    }
    tokens->size += sums.token_bytes;
done:
    wire_arena_end(&a);
    return rc;
}

static Brigade__SpanResult **encode_span_results(struct wire_arena *a, const struct frame_result *r)
{
    Brigade__SpanResult **list = (Brigade__SpanResult **)message_list(a, r->span_count, sizeof **list);
    for (uint32_t i = 0; list && i < r->span_count; i++) {
        const struct frame_span_result *s = &r->spans[i];
        Brigade__SpanResult *m = list[i];
        brigade__span_result__init(m);
        m->sequence = s->sequence;
        m->position = s->position;
        m->want = s->want;
        m->float_count = s->float_count;
        /* Entry 0 of this list is the chosen token, the rest the alternatives. */
        Brigade__Chosen **chosen = (Brigade__Chosen **)message_list(a, (size_t)s->top_count + 1, sizeof **chosen);
        if (!chosen)
            return NULL;
        for (uint32_t k = 0; k <= s->top_count; k++) {
            const struct frame_chosen *c = k ? &s->top[k - 1] : &s->chosen;
            brigade__chosen__init(chosen[k]);
            chosen[k]->token = c->token;
            chosen[k]->logprob = c->logprob;
        }
        m->chosen = chosen[0];
        m->n_top = s->top_count;
        m->top = chosen + 1;
    }
    return list;
}

int frame_encode_result(const struct frame_result *r, struct buffer *header, struct buffer *floats, struct error *err)
{
    size_t float_bytes;
    int rc = frame_check_result(r, &float_bytes, err);
    if (rc)
        return rc;
    struct wire_arena a;
    wire_arena_start(&a);
    char text[FRAME_TEXT_MAX];
    wire_prose(text, sizeof text, r->error_text);
    Brigade__Result m = BRIGADE__RESULT__INIT;
    Brigade__DataHeader h = header_of(r->epoch, r->microbatch);
    h.body_case = BRIGADE__DATA_HEADER__BODY_RESULT;
    h.result = &m;
    m.float_bytes = float_bytes;
    m.error_code = r->error_code;
    m.error_text = text;
    m.stage = r->stage;
    m.n_spans = r->span_count;
    m.spans = encode_span_results(&a, r);
    m.n_trace = r->trace_count;
    m.trace = encode_trace(&a, r->trace, r->trace_count);
    if (!m.spans || !m.trace) {
        rc = no_memory(&a, err);
        goto done;
    }
    char *at = buffer_reserve(floats, float_bytes);
    if (!at) {
        rc = error_set(err, floats->failed, "data frame: no room for %zu bytes of floats", float_bytes);
        goto done;
    }
    if ((rc = wire_pack(&h.base, header, "data frame", err)))
        goto done;
    for (uint32_t i = 0; i < r->span_count; i++) {
        size_t bytes = (size_t)r->spans[i].float_count * 4;
        if (bytes)
            memcpy(at, r->spans[i].floats, bytes);
        at += bytes;
    }
    floats->size += float_bytes;
done:
    wire_arena_end(&a);
    return rc;
}

int frame_encode_attach(uint64_t epoch, uint32_t role, struct buffer *header, struct error *err)
{
    Brigade__Attach m = BRIGADE__ATTACH__INIT;
    Brigade__DataHeader h = header_of(epoch, 0);
    h.body_case = BRIGADE__DATA_HEADER__BODY_ATTACH;
    h.attach = &m;
    m.role = role;
    return wire_pack(&h.base, header, "attach frame", err);
}

int frame_encode_attached(uint64_t epoch, uint32_t stage, struct buffer *header, struct error *err)
{
    Brigade__Attached m = BRIGADE__ATTACHED__INIT;
    Brigade__DataHeader h = header_of(epoch, 0);
    h.body_case = BRIGADE__DATA_HEADER__BODY_ATTACHED;
    h.attached = &m;
    m.stage = stage;
    return wire_pack(&h.base, header, "attached frame", err);
}

int frame_encode_echo(uint64_t id, uint64_t bytes, bool empty_reply, bool reply, uint32_t hold_us, struct buffer *header,
                      struct error *err)
{
    if (bytes > FRAME_PAYLOAD_BYTES_MAX)
        return error_set(err, ERR_BOUND, "echo of %llu bytes; the limit is %u", (unsigned long long)bytes,
                         FRAME_PAYLOAD_BYTES_MAX);
    Brigade__Echo m = BRIGADE__ECHO__INIT;
    Brigade__DataHeader h = header_of(0, 0);
    h.body_case = reply ? BRIGADE__DATA_HEADER__BODY_ECHOED : BRIGADE__DATA_HEADER__BODY_ECHO;
    if (reply)
        h.echoed = &m;
    else
        h.echo = &m;
    m.id = id;
    m.payload_bytes = bytes;
    m.reply_empty = empty_reply;
    m.hold_us = hold_us;
    return wire_pack(&h.base, header, "echo frame", err);
}
