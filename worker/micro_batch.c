/* One micro-batch through this stage: what the frame says of the sequences, the activations in, the blocks, the
 * activations (or tokens) out. Compute thread. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "execution/batch_rows.h"
#include "execution/micro_batch.h"
#include "execution/throttle.h"
#include "proto/activation.h"
#include "worker/compute.h"
#include "worker/left.h"

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

/* The rows that once went into a block, encoded as they were. */
static int gather(struct compute *c, const struct frame_work *w, uint32_t block, void *rows, struct error *err)
{
    return batch_rows_gather(c->holding.rows, c->holding.table, c->spans, w->span_count, block, rows, err);
}

static bool sends_rows(const struct frame_work *w, const struct frame_share *share)
{
    return w->tokens && (!share || share->send);
}

/* Whether rows came out of the stage's last block, rather than being sent once more, or none. */
static bool has_new_rows(const struct compute *c, const struct frame_work *w, const struct frame_share *share)
{
    if (!share)
        return w->tokens;
    return share->first_block != share->end_block &&
           (sends_rows(w, share) || share->end_block == stage_options(c->holding.stage)->last_block + 1);
}

static int encode_work(struct compute *c, const struct frame_work *w, const struct frame_share *share,
                       uint32_t trace_count, struct error *err)
{
    struct frame_work onward = *w;
    struct outbox *o = &c->outbox;
    bool sends = sends_rows(w, share), fresh = has_new_rows(c, w, share), has_rows = sends || fresh;
    size_t bytes = has_rows ? activation_bytes(c->codec, w->tokens, c->session.width) : 0;
    onward.trace = c->trace;
    onward.trace_count = trace_count;
    onward.codec = sends ? c->codec : CODEC_NONE;
    onward.width = sends ? c->session.width : 0;
    onward.activation_bytes = sends ? bytes : 0;
    int rc = frame_encode_work(&onward, &o->part[0], &o->part[1], err);
    if (rc)
        return rc;
    o->parts = 2;
    if (has_rows) {
        char *at = buffer_reserve(&o->part[2], bytes);
        if (!at)
            return error_set(err, o->part[2].failed, "no memory for %zu bytes of activations", bytes);
        if (fresh)
            activation_encode(c->codec, c->holding.out, w->tokens, c->session.width, at);
        else if ((rc = gather(c, w, share->end_block, at, err)))
            return rc;
        o->part[2].size = onward.activation_bytes;
        o->parts = sends ? 3 : 2;
    }
    o->to_next = o->full = true;
    return 0;
}

/* The rows that encode_work has just encoded. After they are sent: writing where nothing was written for long takes longer
 * than sending them, and the next stage waits. */
static void keep_rows(struct compute *c, const struct frame_work *w, const struct frame_share *share)
{
    if (!session_is_last(&c->session) && has_new_rows(c, w, share))
        batch_rows_keep(c->holding.rows, c->holding.table, c->spans, w->span_count,
                        stage_options(c->holding.stage)->last_block + 1, c->outbox.part[2].data);
}

/* All blocks, or this stage's share of them where only gaps are filled. */
static int compute_blocks(struct compute *c, const struct frame_work *w, const struct frame_share *share,
                          const struct link_message *m, struct error *err)
{
    struct holding *h = &c->holding;
    float *out = session_is_last(&c->session) ? NULL : h->out;
    const float *in = h->in;
    if (share && share->kept) {
        size_t bytes = activation_bytes(c->codec, w->tokens, c->session.width);
        char *rows = buffer_reserve(&c->outbox.part[2], bytes);
        if (!rows)
            return error_set(err, c->outbox.part[2].failed, "no memory for %zu bytes of activations", bytes);
        int rc = gather(c, w, share->first_block, rows, err);
        if (rc)
            return rc;
        activation_decode(c->codec, rows, w->tokens, c->session.width, h->in);
    } else if (w->codec == CODEC_F32) {
        in = m->parts[2].data; /* as they lie */
    } else if (w->codec != CODEC_NONE) {
        activation_decode(w->codec, m->parts[2].data, w->tokens, w->width, h->in);
    }
    if (!share)
        return stage_forward(h->stage, c->spans, w->span_count, in, out, c->results, err);
    return stage_forward_blocks(h->stage, share->first_block, share->end_block, c->spans, w->span_count, in, out,
                                c->results, err);
}

static int run(struct compute *c, const struct frame_work *w, const struct batch_place *place,
               const struct link_message *m, int64_t received_us, struct error *err)
{
    struct frame_trace *trace = c->trace;
    const struct frame_share *share = place->share;
    bool last = session_is_last(&c->session),
         computes = w->tokens && (!share || share->first_block < share->end_block);
    awake_work(&c->w->awake, clock_us());
    struct throttle_shape shape = {.tokens = w->tokens,
                                   .sequences = w->span_count,
                                   .blocks = share ? share->end_block - share->first_block : 0};
    for (uint32_t s = 0; s < w->span_count; s++)
        shape.past = w->spans[s].first > shape.past ? w->spans[s].first : shape.past;
    int64_t started_ns = clock_ns();
    if (w->filled)
        left_forget(c->w->left);
    if (w->filled && c->holding.rows)
        kept_rows_free(c->holding.rows);
    int rc = micro_batch_apply(w, place, c->spans, err);
    for (int i = 0; i < 3; i++)
        buffer_clear(&c->outbox.part[i]);
    if (rc)
        return rc;
    if (computes && (rc = compute_blocks(c, w, share, m, err))) {
        micro_batch_failed(w, place);
        return rc;
    }
    c->throttle.factor = worker_slowdown(c->w);
    throttle_wait(&c->throttle, &shape, started_ns);

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
    atomic_fetch_add(&c->w->vitals.tokens, computes ? w->tokens : 0);
    if (traces)
        trace[traces - 1].sent_us = (uint64_t)clock_us();
    return last ? encode_result(c, w, traces, err) : encode_work(c, w, share, traces, err);
}

void compute_micro_batch(struct compute *c, const struct data_frame *f, const struct link_message *m,
                         int64_t received_us)
{
    struct holding *h = &c->holding;
    const struct stage_options *o = stage_options(h->stage);
    struct batch_place place = {
        .table = h->table,
        .held = h->held,
        .stages = &h->stage,
        .stage_count = 1,
        .first_block = o->first_block,
        .last_block = o->last_block,
        .share = f->work.share_count ? &f->work.shares[c->session.stage] : NULL,
    };
    struct error err = {0};
    atomic_store(&c->w->vitals.busy_since_us, clock_us());
    int rc = run(c, &f->work, &place, m, received_us, &err);
    atomic_store(&c->w->vitals.busy_since_us, 0);
    if (rc) {
        compute_fail(c, &f->work, &err);
        return;
    }
    outbox_flush(c);
    keep_rows(c, &f->work, place.share);
}
