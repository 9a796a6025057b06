/* The scheduler: the life of requests inside it, from submission to their end, and what results do to them. Owns the
 * requests, the page pool and the record of what is under way; touches no socket and no clock. Who computes stands in
 * schedule_admit.c, how micro-batches are made in schedule_build.c. One owner thread. */
#include "coordinator/core/schedule.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/schedule_state.h"

uint32_t scheduler_max_tokens(const struct scheduler_options *o)
{
    uint32_t tokens = o->chunk_tokens + o->sequences;
    return tokens < FRAME_TOKENS_MAX ? tokens : FRAME_TOKENS_MAX;
}

uint32_t scheduler_chunk(uint64_t prompt_tokens, uint32_t stages, uint32_t most)
{
    enum { LEAST = 32, PIECES = 2 }; /* fewer tokens cost as much as they save; more pieces a stage gain little */
    uint64_t share = stages > 1 ? (prompt_tokens + PIECES * stages - 1) / (PIECES * stages) : prompt_tokens;
    if (share < LEAST)
        share = LEAST;
    return share < most ? (uint32_t)share : most;
}

int scheduler_create(const struct scheduler_options *o, struct scheduler **out, struct error *err)
{
    if (!o->page_tokens || !o->sequences || o->sequences > FRAME_SPANS_MAX || !o->chunk_tokens || !o->groups ||
        o->in_flight < o->groups || o->chunk_tokens + o->sequences > FRAME_TOKENS_MAX)
        return error_set(err, ERR_USAGE,
                         "scheduler settings out of range: %u sequences (1 to %u), chunks of %u tokens (with the "
                         "sequences at most %u), %u groups, %u micro-batches in flight",
                         o->sequences, FRAME_SPANS_MAX, o->chunk_tokens, FRAME_TOKENS_MAX, o->groups, o->in_flight);
    if ((uint64_t)o->pages * o->page_tokens < o->max_context)
        return error_set(err, ERR_USAGE, "a cache of %u pages (%llu tokens) cannot hold one context of %u tokens",
                         o->pages, (unsigned long long)o->pages * o->page_tokens, o->max_context);
    struct scheduler *s = mem_zalloc(1, sizeof *s);
    if (!s)
        goto nomem;
    s->o = *o;
    s->next_batch = 1;
    s->next_sequence = 1;
    s->next_rank = 1;
    s->say_filled = true; /* of whatever an earlier coordinator left */
    s->groups = o->groups;
    s->queue = mem_zalloc(o->queue + o->sequences, sizeof *s->queue);
    s->running = mem_zalloc(o->sequences, sizeof *s->running);
    s->sent = mem_zalloc(o->in_flight, sizeof *s->sent);
    s->spans = mem_zalloc(o->sequences, sizeof *s->spans);
    s->sampling = mem_zalloc(o->sequences, sizeof *s->sampling);
    s->release = mem_zalloc(2 * o->sequences, sizeof *s->release);
    s->released = mem_zalloc(2 * o->sequences, sizeof *s->released);
    if (!s->queue || !s->running || !s->sent || !s->spans || !s->sampling || !s->release || !s->released)
        goto nomem;
    for (uint32_t i = 0; i < o->in_flight; i++)
        if (!(s->sent[i].spans = mem_zalloc(o->sequences, sizeof *s->sent[i].spans)))
            goto nomem;
    int rc = prefix_create(o->pages, o->page_tokens, &s->pages, err);
    if (!rc && o->want_trace && o->stages)
        rc = pace_create(o->stages, o->sequences, &s->pace, err);
    if (rc) {
        scheduler_destroy(s);
        return rc;
    }
    *out = s;
    return 0;
nomem:
    scheduler_destroy(s);
    return error_set(err, ERR_NOMEM, "out of memory for the scheduler");
}

void scheduler_destroy(struct scheduler *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->queued; i++)
        request_destroy(s->queue[i].request);
    for (uint32_t i = 0; i < s->running_count; i++) {
        request_destroy(s->running[i].request);
        mem_free(s->running[i].pages);
        mem_free(s->running[i].gaps);
    }
    for (uint32_t i = 0; s->sent && i < s->o.in_flight; i++)
        mem_free(s->sent[i].spans);
    mem_free(s->queue);
    mem_free(s->running);
    mem_free(s->sent);
    mem_free(s->release);
    mem_free(s->released);
    mem_free(s->spans);
    mem_free(s->sampling);
    mem_free(s->bias);
    mem_free(s->shares);
    prefix_destroy(s->pages);
    pace_destroy(s->pace);
    mem_free(s);
}

int scheduler_submit(struct scheduler *s, struct request *r, struct error *err)
{
    if (s->queued >= s->o.queue + (s->o.sequences - s->running_count))
        return error_set(err, ERR_BUSY, "%u requests run and %u wait: the queue is full, try again later",
                         s->running_count, s->queued);
    s->queue[s->queued++] = (struct waiting){.request = r};
    return 0;
}

/* ---- The end of a request ---------------------------------------------------------------------------------------- */

static void count_end(struct scheduler *s, const struct request *r)
{
    switch (request_reason(r)) {
    case FINISH_CANCELLED:
        s->cancelled++;
        break;
    case FINISH_ERROR:
        s->failed++;
        break;
    default:
        s->done++;
    }
}

struct request *running_remove(struct scheduler *s, uint32_t index)
{
    struct running *run = &s->running[index];
    struct request *request = run->request;
    if (run->started && s->release_count < 2 * s->o.sequences)
        s->release[s->release_count++] = run->sequence;
    /* The end of the sequence first, so that it is older than its beginning. */
    for (uint32_t i = run->page_count; i-- > 0;)
        prefix_drop(s->pages, run->pages[i]);
    if (run->reserved > run->page_count)
        s->promised -= run->reserved - run->page_count;
    mem_free(run->pages);
    mem_free(run->gaps);
    s->running_count--;
    memmove(run, run + 1, (s->running_count - index) * sizeof *run);
    return request;
}

static void drop_running(struct scheduler *s, uint32_t index)
{
    struct request *request = running_remove(s, index);
    count_end(s, request);
    request_destroy(request);
}

static void drop_queued(struct scheduler *s, uint32_t index)
{
    count_end(s, s->queue[index].request);
    request_destroy(s->queue[index].request);
    s->queued--;
    memmove(&s->queue[index], &s->queue[index + 1], (s->queued - index) * sizeof *s->queue);
}

void scheduler_cancel(struct scheduler *s, uint64_t id, int64_t now_us)
{
    for (uint32_t i = 0; i < s->queued; i++)
        if (request_id(s->queue[i].request) == id) {
            request_finish(s->queue[i].request, FINISH_CANCELLED, NULL, now_us);
            drop_queued(s, i);
            return;
        }
    for (uint32_t i = 0; i < s->running_count; i++)
        if (request_id(s->running[i].request) == id) {
            request_finish(s->running[i].request, FINISH_CANCELLED, NULL, now_us);
            drop_running(s, i);
            return;
        }
}

static void end_all(struct scheduler *s, enum finish_reason reason, const struct error *error, int64_t now_us)
{
    while (s->running_count) {
        request_finish(s->running[0].request, reason, error, now_us);
        drop_running(s, 0);
    }
    while (s->queued) {
        request_finish(s->queue[0].request, reason, error, now_us);
        drop_queued(s, 0);
    }
}

void scheduler_cancel_all(struct scheduler *s, int64_t now_us)
{
    end_all(s, FINISH_CANCELLED, NULL, now_us);
}

void scheduler_fail(struct scheduler *s, const struct error *error, int64_t now_us)
{
    end_all(s, FINISH_ERROR, error, now_us);
}

static int64_t deadline_of(const struct request *r)
{
    int64_t limit = request_asked(r)->deadline_us;
    return limit > 0 ? request_timing_of(r)->arrived_us + limit : INT64_MAX;
}

static void expire(struct request *r, int64_t now_us)
{
    struct error error;
    error_set(&error, ERR_TIMEOUT, "the request was not done within its deadline of %.3f s",
              (double)request_asked(r)->deadline_us / 1e6);
    request_finish(r, FINISH_ERROR, &error, now_us);
}

int64_t scheduler_tick(struct scheduler *s, int64_t now_us)
{
    int64_t next = INT64_MAX;
    for (uint32_t i = s->queued; i-- > 0;) {
        int64_t deadline = deadline_of(s->queue[i].request);
        if (deadline <= now_us) {
            expire(s->queue[i].request, now_us);
            drop_queued(s, i);
        } else if (deadline < next) {
            next = deadline;
        }
    }
    for (uint32_t i = s->running_count; i-- > 0;) {
        int64_t deadline = deadline_of(s->running[i].request);
        if (deadline <= now_us) {
            expire(s->running[i].request, now_us);
            drop_running(s, i);
        } else if (deadline < next) {
            next = deadline;
        }
    }
    return next;
}

/* ---- Results ----------------------------------------------------------------------------------------------------- */

static struct running *find_running(struct scheduler *s, uint32_t sequence)
{
    for (uint32_t i = 0; i < s->running_count; i++)
        if (s->running[i].sequence == sequence)
            return &s->running[i];
    return NULL;
}

/* The result of a span; results come in the order of the spans, so the search begins where the last one ended. */
static const struct frame_span_result *find_span(const struct frame_result *result, uint32_t sequence, uint32_t *at)
{
    for (uint32_t k = 0; k < result->span_count; k++) {
        const struct frame_span_result *span = &result->spans[(*at + k) % result->span_count];
        if (span->sequence == sequence) {
            *at = (*at + k + 1) % result->span_count;
            return span;
        }
    }
    return NULL;
}

/* Gives one span's result to its request. */
static int take_span(struct scheduler *s, struct running *run, const struct sent_batch *batch,
                     const struct sent_span *sent, const struct frame_span_result *got, int64_t now_us,
                     struct error *err)
{
    uint32_t prompt = request_prompt_count(run->request);
    if (sent->first < prompt && !batch->fills)
        s->tokens_in += sent->first + sent->count < prompt ? sent->count : prompt - sent->first;
    if (sent->want == WANT_NOTHING)
        return 0;
    if (!got || got->want != sent->want || got->position != sent->first + sent->count)
        return error_set(err, ERR_FORMAT, "the last stage sent no result for position %u of a sequence",
                         sent->first + sent->count);
    if (sent->want == WANT_SCORES) {
        if (got->float_count != sent->count)
            return error_set(err, ERR_FORMAT, "the last stage sent %u scores, not %u", got->float_count, sent->count);
        request_push_scores(run->request, sent->first, got->floats, sent->count);
        return 0;
    }
    if (sent->want == WANT_LOGITS)
        return request_push_logits(run->request, got->floats, got->float_count, err);
    struct sampled sampled = {.chosen = {got->chosen.token, got->chosen.logprob}};
    sampled.top_count = got->top_count < SAMPLING_TOP_MAX ? got->top_count : SAMPLING_TOP_MAX;
    for (uint32_t i = 0; i < sampled.top_count; i++)
        sampled.top[i] = (struct token_logprob){got->top[i].token, got->top[i].logprob};
    s->tokens_out++;
    return request_push(run->request, &sampled, now_us, err);
}

/* Pages that are computed whole now may serve others. */
static void keep_prefix(struct scheduler *s, struct running *run, const struct sent_span *sent)
{
    uint32_t count, whole = (sent->first + sent->count) / s->o.page_tokens, before = run->computed / s->o.page_tokens;
    const int32_t *tokens = request_tokens(run->request, &count);
    run->computed = sent->first + sent->count;
    if (whole > before)
        prefix_keep(s->pages, run->pages, whole - 1, tokens);
}

/* Scores cost the last stage more than other prompt tokens: nothing is learned from them. */
static void learn_pace(struct scheduler *s, const struct sent_batch *batch, const struct frame_result *result,
                       int64_t now_us)
{
    struct pace_batch b = {.decodes = batch->decodes,
                           .prompt_tokens = batch->tokens - batch->decodes,
                           .round_seconds = (double)(now_us - batch->built_us) * 1e-6};
    for (uint32_t i = 0; i < batch->span_count; i++)
        if (batch->spans[i].want == WANT_SCORES)
            return;
    if (s->pace && !result->error_code && !batch->fills)
        pace_learn(s->pace, &b, result->trace, result->trace_count);
}

void scheduler_result(struct scheduler *s, const struct frame_result *result, int64_t now_us)
{
    uint32_t index = 0, at = 0;
    while (index < s->sent_count && s->sent[index].id != result->microbatch)
        index++;
    if (index == s->sent_count)
        return;
    struct sent_batch batch = s->sent[index];
    learn_pace(s, &batch, result, now_us);
    for (uint32_t i = 0; i < batch.span_count; i++) {
        const struct sent_span *sent = &batch.spans[i];
        struct running *run = find_running(s, sent->sequence);
        struct error error = {0};
        int rc;
        if (!run)
            continue; /* cancelled meanwhile */
        run->under_way--;
        run->waits_for_token = run->waits_for_token && sent->want != WANT_TOKEN;
        if (result->error_code)
            rc = error_set(&error, result->error_code, "%s", result->error_text ? result->error_text : "");
        else
            rc = take_span(s, run, &batch, sent, find_span(result, sent->sequence, &at), now_us, &error);
        if (!rc)
            keep_prefix(s, run, sent);
        if (rc)
            request_finish(run->request, FINISH_ERROR, &error, now_us);
        else if (!run->under_way && !running_positions_left(run) && !request_asked(run->request)->max_tokens)
            request_finish(run->request, FINISH_DONE, NULL, now_us);
        if (request_reason(run->request) != FINISH_NONE)
            drop_running(s, (uint32_t)(run - s->running));
    }
    s->sent_count--;
    memmove(&s->sent[index], &s->sent[index + 1], (s->sent_count - index) * sizeof *s->sent);
    s->sent[s->sent_count] = batch; /* its array of spans is used again */
}

/* ---- The rest ---------------------------------------------------------------------------------------------------- */

int scheduler_regroup(struct scheduler *s, uint32_t stages, uint32_t groups, uint32_t in_flight, struct error *err)
{
    uint32_t have = s->o.in_flight;
    if (s->sent_count || !groups || in_flight < groups)
        return error_set(err, ERR_USAGE, "%u groups and %u micro-batches in flight, with %u under way", groups, in_flight,
                         s->sent_count);
    if (in_flight > have) {
        struct sent_batch *grown = mem_resize(s->sent, in_flight, sizeof *grown);
        if (!grown)
            return error_set(err, ERR_NOMEM, "out of memory for %u micro-batches", in_flight);
        s->sent = grown;
        for (; s->o.in_flight < in_flight; s->o.in_flight++) {
            struct sent_batch *batch = &s->sent[s->o.in_flight];
            *batch = (struct sent_batch){0};
            if (!(batch->spans = mem_zalloc(s->o.sequences, sizeof *batch->spans))) {
                s->o.groups = s->o.groups < s->o.in_flight ? s->o.groups : s->o.in_flight;
                return error_set(err, ERR_NOMEM, "out of memory for %u micro-batches", in_flight);
            }
        }
    }
    for (uint32_t i = in_flight; i < have; i++)
        mem_free(s->sent[i].spans);
    s->o.groups = s->groups = groups;
    s->o.in_flight = in_flight;
    s->o.stages = stages;
    if (s->pace)
        pace_forget(s->pace, stages);
    s->turn = 0;
    return 0;
}

void scheduler_count(const struct scheduler *s, struct scheduler_counts *out)
{
    *out = (struct scheduler_counts){
        .running = s->running_count,
        .queued = s->queued,
        .in_flight = s->sent_count,
        .in_flight_max = s->o.in_flight,
        .groups = s->groups,
        .pages = prefix_total(s->pages),
        .pages_used = prefix_total(s->pages) - prefix_available(s->pages),
        .pages_promised = s->promised,
        .pages_idle = prefix_idle(s->pages),
        .tokens_shared = s->tokens_shared,
        .tokens_in = s->tokens_in,
        .tokens_out = s->tokens_out,
        .done = s->done,
        .failed = s->failed,
        .cancelled = s->cancelled,
        .preempted = s->preempted,
        .replay_kept = s->replay_kept,
        .replay_resent = s->replay_resent,
        .replay_computed = s->replay_computed,
        .prefix_hits = s->prefix_hits,
        .prefix_misses = s->prefix_misses,
        .batches = s->batches,
    };
}

bool scheduler_busy(const struct scheduler *s)
{
    return s->queued || s->running_count;
}

struct scheduler_extent scheduler_widest(const struct scheduler *s)
{
    struct scheduler_extent most = {0};
    for (uint32_t i = 0; i < s->sent_count; i++) {
        const struct sent_batch *batch = &s->sent[i];
        most.rows = batch->tokens > most.rows ? batch->tokens : most.rows;
        for (uint32_t k = 0; k < batch->span_count; k++)
            most.past = batch->spans[k].first > most.past ? batch->spans[k].first : most.past;
    }
    return most;
}

int64_t scheduler_oldest(const struct scheduler *s)
{
    return s->sent_count ? s->sent[0].built_us : 0;
}
