/* One micro-batch through this stage: what the frame says of the sequences, the activations in, the blocks, the
 * activations (or tokens) out. Compute thread. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "execution/micro_batch.h"
#include "execution/throttle.h"
#include "proto/activation.h"
#include "worker/compute.h"

static int encode_result(struct compute *c, const struct frame_work *w, uint32_t trace_count, struct error *err)
{
    struct frame_span_result *spans = c->span_results;
    struct frame_result r = {
        .epoch = w->epoch,
        .microbatch = w->microbatch,
        .span_count = w->span_count,
        .spans = spans,
        .trace = c->trace,
        .trace_count = trace_count,
        .stage = c->session.stage,
    };
    micro_batch_results(w, c->results, model_info(c->holding.model)->vocabulary, spans);
    struct outbox *o = &c->outbox;
    int rc = frame_encode_result(&r, &o->part[0], &o->part[1], err);
    if (rc)
        return rc;
    o->parts = o->part[1].size ? 2 : 1;
    o->to_next = false;
    o->to = c->session.receiver;
    o->full = c->session.has_receiver;
    if (!o->full) {
        log_debug("micro-batch %llu has no receiver for its results", (unsigned long long)w->microbatch);
        atomic_fetch_add(&c->w->vitals.dropped, 1);
    }
    return 0;
}

static int encode_work(struct compute *c, const struct frame_work *w, uint32_t trace_count, struct error *err)
{
    struct frame_work onward = *w;
    struct outbox *o = &c->outbox;
    onward.trace = c->trace;
    onward.trace_count = trace_count;
    onward.codec = w->tokens ? c->codec : CODEC_NONE;
    onward.width = w->tokens ? c->session.width : 0;
    onward.activation_bytes = activation_bytes(onward.codec, w->tokens, onward.width);
    int rc = frame_encode_work(&onward, &o->part[0], &o->part[1], err);
    if (rc)
        return rc;
    o->parts = 2;
    if (onward.activation_bytes) {
        char *at = buffer_reserve(&o->part[2], onward.activation_bytes);
        if (!at)
            return error_set(err, o->part[2].failed, "no memory for %zu bytes of activations", onward.activation_bytes);
        activation_encode(onward.codec, c->holding.out, w->tokens, onward.width, at);
        o->part[2].size = onward.activation_bytes;
        o->parts = 3;
    }
    o->to_next = o->full = true;
    return 0;
}

static int run(struct compute *c, const struct frame_work *w, const struct link_message *m, int64_t received_us,
               struct error *err)
{
    struct holding *h = &c->holding;
    struct frame_trace *trace = c->trace;
    const float *in = h->in;
    bool last = session_is_last(&c->session);
    int64_t started_ns = clock_ns();
    int rc = micro_batch_apply(w, h->table, &h->stage, 1, c->spans, err);
    if (rc)
        return rc;
    if (w->codec == CODEC_F32)
        in = m->parts[2].data; /* as they lie */
    else if (w->codec != CODEC_NONE)
        activation_decode(w->codec, m->parts[2].data, w->tokens, w->width, h->in);
    if (w->tokens && (rc = stage_forward(h->stage, c->spans, w->span_count, in, last ? NULL : h->out, c->results, err)))
        return rc;
    throttle_wait(c->w->slowdown, started_ns);

    uint32_t traces = 0;
    int64_t finished_us = clock_us();
    if (w->want_trace && w->trace_count < FRAME_STAGES_MAX) {
        if (w->trace_count)
            memcpy(trace, w->trace, w->trace_count * sizeof *trace);
        traces = w->trace_count + 1;
        trace[w->trace_count] = (struct frame_trace){c->session.stage, (uint64_t)received_us,
                                                     (uint64_t)(started_ns / 1000), (uint64_t)finished_us,
                                                     (uint64_t)finished_us};
    }
    atomic_fetch_add(&c->w->vitals.busy_us, (uint64_t)(finished_us - started_ns / 1000));
    atomic_fetch_add(&c->w->vitals.microbatches, 1);
    atomic_fetch_add(&c->w->vitals.tokens, w->tokens);
    for (int i = 0; i < 3; i++)
        buffer_clear(&c->outbox.part[i]);
    if (traces)
        trace[traces - 1].sent_us = (uint64_t)clock_us();
    return last ? encode_result(c, w, traces, err) : encode_work(c, w, traces, err);
}

void compute_micro_batch(struct compute *c, const struct data_frame *f, const struct link_message *m,
                         int64_t received_us)
{
    struct error err = {0};
    if (run(c, &f->work, m, received_us, &err)) {
        compute_fail(c, &f->work, &err);
        return;
    }
    outbox_flush(c);
}
