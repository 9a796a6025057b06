/* The next micro-batch: decoding sequences first, then prompt chunks. Pure; the scheduler's owner thread. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/schedule_state.h"

/* ---- Building a micro-batch -------------------------------------------------------------------------------------- */

uint32_t running_positions_left(const struct running *run)
{
    const struct request_options *asked = request_asked(run->request);
    uint32_t count;
    request_tokens(run->request, &count);
    if (!asked->max_tokens && !asked->logits)
        count--; /* scores only: nobody asks what follows the last token */
    return count - run->submitted;
}

bool running_decodes(const struct running *run)
{
    return run->submitted >= request_prompt_count(run->request) && running_positions_left(run) == 1;
}

static int fill_sampling(struct scheduler *s, const struct sampling *from, struct frame_sampling *to, uint32_t *biases,
                         struct error *err)
{
    if (*biases + from->bias_count > s->bias_capacity)
        return error_set(err, ERR_INTERNAL, "room for %u biases, not %u", s->bias_capacity, *biases + from->bias_count);
    struct frame_bias *bias = s->bias ? s->bias + *biases : NULL;
    for (uint32_t i = 0; i < from->bias_count; i++)
        bias[i] = (struct frame_bias){from->bias[i].token, from->bias[i].bias};
    *biases += from->bias_count;
    *to = (struct frame_sampling){
        .temperature = from->temperature,
        .top_p = from->top_p,
        .min_p = from->min_p,
        .repeat_penalty = from->repeat_penalty,
        .presence_penalty = from->presence_penalty,
        .frequency_penalty = from->frequency_penalty,
        .top_k = from->top_k,
        .repeat_last = from->repeat_last,
        .prompt_tokens = from->prompt_tokens,
        .top_logprobs = from->top_logprobs,
        .seed = from->seed,
        .bias_count = from->bias_count,
        .bias = bias,
    };
    return 0;
}

/* Biases go by reference into one array, which must not move while a micro-batch is built. */
static int reserve_biases(struct scheduler *s, struct error *err)
{
    uint32_t want = 0;
    for (uint32_t i = 0; i < s->running_count; i++)
        if (!s->running[i].started)
            want += request_asked(s->running[i].request)->sampling.bias_count;
    if (want <= s->bias_capacity)
        return 0;
    struct frame_bias *grown = mem_resize(s->bias, want, sizeof *grown);
    if (!grown)
        return error_set(err, ERR_NOMEM, "out of memory for %u token biases", want);
    s->bias = grown;
    s->bias_capacity = want;
    return 0;
}

int scheduler_add_span(struct scheduler *s, struct running *run, uint32_t most, struct frame_work *work,
                       struct sent_batch *batch, uint32_t *biases, struct error *err)
{
    const struct request_options *asked = request_asked(run->request);
    uint32_t known, left = running_positions_left(run), first = run->submitted, count = left < most ? left : most;
    const int32_t *tokens = request_tokens(run->request, &known);
    uint32_t scored = asked->scores ? request_prompt_count(run->request) - 1 : 0, want = WANT_NOTHING;
    if (first < scored) {
        want = WANT_SCORES;
        if (count > scored - first)
            count = scored - first;
    } else if (first + count == known) {
        want = asked->logits ? WANT_LOGITS : WANT_TOKEN;
    }
    struct frame_span *span = &s->spans[work->span_count];
    *span = (struct frame_span){
        .sequence = run->sequence,
        .first = first,
        .count = count,
        .known = run->told, /* what the pages it starts on stand for is told, too */
        .want = want,
        .next_token = want == WANT_SCORES ? tokens[first + count] : -1,
        .tokens = tokens + run->told,
    };
    if (!run->started) {
        struct frame_sampling *sampling = &s->sampling[work->span_count];
        int rc = fill_sampling(s, &asked->sampling, sampling, biases, err);
        if (rc)
            return rc;
        span->sampling = sampling;
        run->started = true;
        s->tokens_shared += first;
        s->prefix_hits += first > 0;
        s->prefix_misses += !first;
    }
    uint32_t pages = (first + count + s->o.page_tokens - 1) / s->o.page_tokens;
    while (run->page_count < pages) {
        int rc = running_take_page(s, run, err);
        if (rc)
            return rc;
    }
    span->page_offset = run->pages_sent;
    span->page_count = pages > run->pages_sent ? pages - run->pages_sent : 0;
    span->pages = run->pages + run->pages_sent;
    run->pages_sent += span->page_count;
    run->hash = span->hash = hash_tokens(run->hash, tokens + first, count);

    batch->spans[work->span_count++] = (struct sent_span){run->sequence, first, count, want};
    work->tokens += count;
    run->submitted += count;
    run->told = run->submitted;
    run->under_way++;
    run->waits_for_token = want == WANT_TOKEN;
    return 0;
}

/* What there is to do besides what is under way. */
struct mix {
    uint32_t decoding;  /* sequences that decode, those that wait for their first token counted in */
    uint32_t streaming; /* of these, those that have had it */
    uint32_t prompting; /* sequences that still compute their prompt */
    uint32_t under_way; /* micro-batches with decoding sequences */
    uint32_t fillers;   /* micro-batches under way without */
    uint64_t whole;     /* tokens of all sequences that still compute their prompt */
};

static struct mix look_around(const struct scheduler *s)
{
    struct mix m = {0};
    for (uint32_t i = 0; i < s->running_count; i++) {
        const struct running *run = &s->running[i];
        bool decodes = running_decodes(run), ready = decodes && running_has_room(s, run);
        m.decoding += run->waits_for_token || ready;
        m.streaming += ready || (run->waits_for_token && run->submitted > request_prompt_count(run->request));
        if (!decodes && running_positions_left(run)) {
            m.prompting++;
            m.whole += run->submitted + running_positions_left(run);
        }
    }
    for (uint32_t i = 0; i < s->sent_count; i++)
        m.under_way += s->sent[i].decodes > 0;
    m.fillers = s->sent_count - m.under_way;
    return m;
}

/* How many of the sequences that could decode now go into this micro-batch: their share of all that decode. */
static uint32_t decode_share(struct scheduler *s, const struct mix *m)
{
    if (s->pace && !s->o.fixed_groups) {
        uint32_t before = s->groups;
        s->groups = pace_groups(s->pace, m->decoding, before, s->o.in_flight);
        if (s->groups != before)
            s->tried = PACE_TRIED * s->groups;
    }
    return m->under_way < s->groups ? (m->decoding + s->groups - 1) / s->groups : 0;
}

/* Prompt tokens beside sequences that stream. One prompt may stretch their rounds to PACE_STRETCH; the more sequences
 * compute prompts beside few that stream, the more of the time is theirs. When prompts have ridden for long, nothing
 * rides in a whole round, or what streams take alone would not be known any more: the machine changes, and their
 * contexts grow. */
static uint32_t chunk_beside(struct scheduler *s, const struct mix *m, uint32_t decodes, uint32_t most)
{
    uint32_t groups = s->groups < m->decoding ? s->groups : m->decoding;
    double more = m->prompting > 1 ? (double)PACE_CROWD * (m->prompting - 1) / m->streaming : 1;
    struct pace_load load = {groups, (m->decoding + groups - 1) / groups, 1 + (PACE_STRETCH - 1) * (more > 1 ? more : 1)};
    if (!decodes && groups + m->fillers >= s->o.stages)
        return 0;
    if (!decodes)
        return pace_filler(s->pace, &load, s->o.stages - groups, most);
    if (s->tried && !pace_knows(s->pace, decodes)) { /* it looked better than it may be: that is found out at once */
        s->tried--;
        return 0;
    }
    if (++s->ridden > PACE_RIDING_MOST * groups) {
        if (s->ridden >= (PACE_RIDING_MOST + 1) * groups)
            s->ridden = 0;
        return 0;
    }
    if ((s->ridden - 1) % groups == 0) { /* the same with each micro-batch of a round: one that has more keeps all waiting */
        double tokens = pace_riders(s->pace, &load, most) + s->rider_credit;
        s->riders = (uint32_t)tokens;
        s->rider_credit = tokens - s->riders;
    }
    return s->riders < most ? s->riders : most;
}

/* Prompt tokens for this micro-batch: the budget, less where a short prompt is better cut so that all stages share it,
 * where stages are slow, and beside sequences that stream. A prompt always gets on, if slowly. */
static uint32_t chunk_share(struct scheduler *s, const struct mix *m, uint32_t decodes)
{
    if (!m->prompting)
        s->ridden = 0;
    if (s->pace && m->streaming)
        return chunk_beside(s, m, decodes, s->o.chunk_tokens > decodes ? s->o.chunk_tokens - decodes : 1);
    uint32_t chunk = scheduler_chunk(m->whole, s->pace ? s->o.stages : s->o.groups, s->o.chunk_tokens);
    if (s->pace && s->sent_count > s->o.stages)
        return 0; /* enough for every stage */
    if (s->pace)
        chunk = pace_chunk_tokens(s->pace, chunk);
    return chunk > decodes ? chunk - decodes : 1;
}

static void count_batch(struct scheduler_batches *b, uint32_t tokens)
{
    uint32_t bucket = 0;
    while (bucket + 1 < SCHEDULER_BATCH_BUCKETS && tokens > UINT32_C(1) << bucket)
        bucket++;
    b->buckets[bucket]++;
    b->count++;
    b->tokens += tokens;
}

int scheduler_next(struct scheduler *s, int64_t now_us, struct frame_work *out, struct error *err)
{
    int rc;
    if (s->sent_count >= s->o.in_flight)
        return 0;
    if (s->unproven)
        scheduler_restore(s, NULL, NULL);
    scheduler_make_room(s);
    if ((rc = scheduler_admit(s, err)) || (rc = reserve_biases(s, err)))
        return rc;
    struct sent_batch *batch = &s->sent[s->sent_count];
    struct frame_work work = {.microbatch = s->next_batch, .spans = s->spans, .want_trace = s->o.want_trace};
    const struct mix mix = look_around(s);
    uint32_t biases = 0, share = decode_share(s, &mix);
    batch->decodes = 0;
    batch->fills = false;
    if ((rc = scheduler_fill(s, &work, batch, err)) < 0)
        return rc;
    /* Decoding sequences, beginning behind the one that was served last. */
    for (uint32_t k = 0, n = s->running_count; k < n && batch->decodes < share && !batch->fills; k++) {
        uint32_t index = (s->turn + k) % n;
        struct running *run = &s->running[index];
        if (!running_decodes(run) || !running_has_room(s, run))
            continue;
        if ((rc = scheduler_add_span(s, run, 1, &work, batch, &biases, err)))
            return rc;
        if (++batch->decodes == share)
            s->turn = index + 1;
    }
    uint32_t budget = batch->fills ? 0 : chunk_share(s, &mix, batch->decodes);
    for (uint32_t i = 0; i < s->running_count && budget && work.span_count < s->o.sequences; i++) {
        struct running *run = &s->running[i];
        uint32_t before = work.tokens;
        if ((!run->started && !scheduler_begin(s, i)) || running_in_gap(s, run))
            continue;
        if (running_decodes(run) || !running_positions_left(run))
            continue;
        request_started(run->request, now_us);
        if ((rc = scheduler_add_span(s, run, budget, &work, batch, &biases, err)))
            return rc;
        budget -= work.tokens - before;
    }
    if (!work.span_count)
        return 0;
    for (uint32_t i = 0; i < work.span_count; i++)
        work.token_bytes += (work.spans[i].first + work.spans[i].count - work.spans[i].known) * sizeof(int32_t);
    work.filled = s->say_filled;
    s->say_filled = false;
    work.release_count = s->release_count;
    work.release = memcpy(s->released, s->release, s->release_count * sizeof *s->release);
    s->release_count = 0;
    batch->id = s->next_batch++;
    batch->built_us = now_us;
    batch->span_count = work.span_count;
    batch->tokens = work.tokens;
    s->sent_count++;
    count_batch(&s->batches, work.tokens);
    *out = work;
    return 1;
}
