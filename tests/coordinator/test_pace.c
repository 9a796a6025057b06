/* The scheduler's pace in simulated time: stages with a cost for reading weights, for a sequence and for a prompt
 * token, hops between them, and noise. What it must find out by itself: how much of a long prompt may ride with
 * streams, and into how many micro-batches sequences are best dealt. */
#include "tests/check.h"

#include "base/hash.h"
#include "coordinator/core/schedule.h"
#include "coordinator/core/schedule_pace.h"
#include "engine/model/stage.h"

enum { VOCABULARY = 1000, PAGE = 32, CONTEXT = 8192, FLIGHT = 16, SPANS = 32, STAGES = 4, STREAMS = 16 };

struct costs { /* microseconds */
    double weights, sequence, prompt,
        token; /* a micro-batch, each decoding sequence, each prompt token; the least of one */
};

struct world {
    uint32_t stages;
    struct costs cost[STAGES];
    double hop_us, noise;
    double slow;          /* everything takes so many times as long; 0: once */
    /* running */
    struct scheduler *s;
    double now, free_at[STAGES], busy_us[STAGES];
    struct flight {
        struct frame_result result;
        struct frame_trace trace[STAGES];
        struct frame_span_result spans[SPANS];
        double back_at;
    } flights[FLIGHT];
    uint32_t under_way, batches;
    uint64_t seed;
};

struct stream {
    double *last;                      /* now, by the world's clock */
    double from, until, first, before; /* of what is measured: gaps between from and until */
    double gap_sum, gap_most;
    uint32_t gaps, tokens;
    bool ended;
};

static double maximum(double a, double b)
{
    return a > b ? a : b;
}

static double noisy(struct world *w)
{
    return 1 + w->noise * ((double)(hash_mix64(++w->seed) % 2001) / 1000 - 1);
}

static void send(struct world *w, const struct frame_work *work)
{
    struct flight *f = &w->flights[w->under_way++];
    uint32_t decodes = 0, prompt = 0;
    *f = (struct flight){.result = {.microbatch = work->microbatch}};
    for (uint32_t i = 0; i < work->span_count; i++) {
        const struct frame_span *span = &work->spans[i];
        if (span->count == 1 && span->want == WANT_TOKEN && span->first > 0)
            decodes++;
        else
            prompt += span->count;
        if (span->want == WANT_TOKEN)
            f->spans[f->result.span_count++] = (struct frame_span_result){.sequence = span->sequence,
                                                                          .position = span->first + span->count,
                                                                          .want = span->want,
                                                                          .chosen = {1, -1}};
    }
    double at = w->now + w->hop_us;
    for (uint32_t s = 0; s < w->stages; s++) {
        const struct costs *c = &w->cost[s];
        double start = maximum(at, w->free_at[s]),
               cost = maximum(c->weights, (decodes + prompt) * c->token) + decodes * c->sequence + prompt * c->prompt;
        cost *= noisy(w) * (w->slow > 0 ? w->slow : 1);
        double end = start + cost;
        f->trace[s] = (struct frame_trace){s, (uint64_t)at, (uint64_t)start, (uint64_t)end, (uint64_t)end};
        w->free_at[s] = end;
        w->busy_us[s] += cost;
        at = end + w->hop_us;
    }
    f->back_at = at;
    w->batches++;
}

/* Everything up to the next result; false when nothing is under way. */
static bool move(struct world *w)
{
    struct frame_work work;
    struct error e = {0};
    int rc;
    while ((rc = scheduler_next(w->s, (int64_t)w->now, &work, &e)) == 1)
        send(w, &work);
    if (rc < 0)
        CHECK_FAIL("%s", e.text);
    if (!w->under_way)
        return false;
    struct flight f = w->flights[0];
    f.result.spans = f.spans;
    f.result.trace = f.trace;
    f.result.trace_count = w->stages;
    w->now = maximum(w->now, f.back_at);
    w->under_way--;
    memmove(w->flights, w->flights + 1, w->under_way * sizeof *w->flights);
    scheduler_result(w->s, &f.result, (int64_t)w->now);
    return true;
}

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    struct stream *st = context;
    double now = *st->last;
    (void)id;
    if (token->index && now >= st->from && now < st->until) {
        st->gap_sum += now - st->before;
        st->gap_most = maximum(st->gap_most, now - st->before);
        st->gaps++;
    }
    if (!token->index)
        st->first = now;
    st->before = now;
    st->tokens++;
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    (void)id;
    (void)finish;
    ((struct stream *)context)->ended = true;
}

static void ask(struct world *w, struct stream *st, uint32_t prompt, uint32_t tokens)
{
    static int32_t ids[CONTEXT];
    static uint64_t next_id;
    struct request *r = NULL;
    struct error e = {0};
    *st = (struct stream){.last = &w->now, .until = 1e18};
    ids[0] = (int32_t)(++next_id % VOCABULARY); /* no shared beginnings */
    struct request_options o = {.prompt = ids,
                                .prompt_count = prompt,
                                .max_tokens = tokens,
                                .on_token = on_token,
                                .on_finish = on_finish,
                                .context = st};
    sampling_default(&o.sampling);
    if (request_create(&o, next_id, NULL, VOCABULARY, CONTEXT, (int64_t)w->now, &r, &e) ||
        scheduler_submit(w->s, r, &e))
        CHECK_FAIL("%s", e.text);
}

static void begin(struct world *w, uint32_t groups, bool fixed)
{
    struct scheduler_options o = {.pages = 2000,
                                  .page_tokens = PAGE,
                                  .max_context = CONTEXT,
                                  .sequences = STREAMS,
                                  .queue = 64,
                                  .chunk_tokens = 256,
                                  .groups = groups,
                                  .in_flight = fixed ? groups : 2 * w->stages,
                                  .want_trace = true,
                                  .stages = w->stages,
                                  .fixed_groups = fixed};
    struct error e = {0};
    w->now = 1;
    w->under_way = w->batches = 0;
    memset(w->free_at, 0, sizeof w->free_at);
    memset(w->busy_us, 0, sizeof w->busy_us);
    w->s = NULL;
    if (scheduler_create(&o, &w->s, &e))
        CHECK_FAIL("%s", e.text);
}

/* Mean gap of all streams while `count` of them run from now on for so many results. */
static double mean_gap(struct world *w, struct stream *streams, uint32_t count, uint32_t results, double *most)
{
    double sum = 0;
    uint32_t gaps = 0;
    *most = 0;
    for (uint32_t i = 0; i < count; i++) {
        streams[i].gap_sum = streams[i].gap_most = 0;
        streams[i].gaps = 0;
        streams[i].from = w->now;
    }
    for (uint32_t i = 0; i < results; i++)
        move(w);
    for (uint32_t i = 0; i < count; i++) {
        sum += streams[i].gap_sum;
        gaps += streams[i].gaps;
        *most = maximum(*most, streams[i].gap_most);
    }
    return gaps ? sum / gaps : 0;
}

static void a_long_prompt(struct world *w, uint32_t count, const char *what)
{
    static struct stream streams[STREAMS], large;
    double most, most_beside;
    begin(w, w->stages, false);
    for (uint32_t i = 0; i < count; i++)
        ask(w, &streams[i], 64, 8000);
    for (int i = 0; i < 400; i++)
        move(w);
    double bare = mean_gap(w, streams, count, 300, &most);
    ask(w, &large, 4096, 2);
    double began = w->now;
    for (int i = 0; i < 20; i++) /* it finds its pace */
        move(w);
    double beside = mean_gap(w, streams, count, 1, &most_beside), sum = 0;
    uint32_t n = 0;
    while (!large.tokens && n < 60000) {
        double gap = mean_gap(w, streams, count, 40 * w->stages, &most_beside);
        sum += gap;
        beside = maximum(beside, gap);
        n++;
    }
    CHECK(large.tokens);
    CHECK(n > 3);
    if (!(sum / n <= 1.5 * bare && beside <= 1.75 * bare))
        CHECK_FAIL("%s: %.0f us between tokens became %.0f, at times %.0f", what, bare, sum / n, beside);
    /* And it gets its share: the time it takes is that of its tokens at the spare part of a round, about. */
    double slowest = 0;
    for (uint32_t s = 0; s < w->stages; s++)
        slowest = maximum(slowest, w->cost[s].prompt + w->cost[s].token);
    double took = (large.first - began) / (4096 * slowest);
    if (took > 1.5 * PACE_STRETCH / (PACE_STRETCH - 1) * w->stages)
        CHECK_FAIL("%s: the prompt took %.1f times as long as alone", what, took);
    scheduler_destroy(w->s);
}

static void a_long_prompt_slows_streams_by_less_than_half(void)
{
    static struct world w;
    static const struct {
        const char *what;
        uint32_t stages, streams;
        struct costs cost[3];
        double hop;
    } cases[] = {
        {"one stage, reading weights", 1, 4, {{15000, 300, 2000, 100}}, 50},
        {"one stage, computing", 1, 8, {{2000, 500, 1500, 1000}}, 50},
        {"one stream", 1, 1, {{15000, 300, 3000, 0}}, 50},
        {"two stages", 2, 8, {{8000, 200, 1500, 0}, {8000, 200, 1500, 0}}, 300},
        {"two stages, one stream", 2, 1, {{8000, 200, 1500, 0}, {8000, 200, 1500, 0}}, 300},
        {"three that differ", 3, 12, {{9000, 200, 2500, 0}, {3000, 200, 300, 0}, {6000, 500, 900, 0}}, 1000},
        {"long hops", 2, 6, {{500, 20, 150, 0}, {500, 20, 150, 0}}, 3000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int noise = 0; noise < 3; noise++) {
            w = (struct world){.stages = cases[i].stages, .hop_us = cases[i].hop, .noise = 0.07 * noise, .seed = i};
            memcpy(w.cost, cases[i].cost, sizeof cases[i].cost);
            a_long_prompt(&w, cases[i].streams, cases[i].what);
        }
}

/* Tokens a second of `count` streams. */
static double throughput(struct world *w, uint32_t count, uint32_t groups, bool fixed)
{
    static struct stream streams[STREAMS];
    begin(w, groups, fixed);
    for (uint32_t i = 0; i < count; i++) { /* one after the other */
        ask(w, &streams[i], 32, 8000);
        for (int k = 0; k < 20; k++)
            move(w);
    }
    for (int i = 0; i < 600; i++)
        move(w);
    double from = w->now;
    uint32_t before = 0, after = 0;
    for (uint32_t i = 0; i < count; i++)
        before += streams[i].tokens;
    for (int i = 0; i < 600; i++)
        move(w);
    for (uint32_t i = 0; i < count; i++)
        after += streams[i].tokens;
    scheduler_destroy(w->s);
    return (after - before) * 1e6 / (w->now - from);
}

static void the_number_of_micro_batches_follows_the_stages(void)
{
    static struct world w;
    static const struct {
        uint32_t stages, streams;
        struct costs cost[3];
        double hop;
    } cases[] = {
        {2, 8, {{8000, 200, 1500, 0}, {8000, 200, 1500, 0}}, 200},  /* even: one for each */
        {2, 8, {{20000, 100, 1500, 0}, {1000, 100, 1500, 0}}, 200}, /* one slow stage that reads weights: one for all */
        {2, 8, {{100, 20, 100, 0}, {100, 20, 100, 0}}, 2000},       /* long hops */
        {2, 8, {{1000, 4000, 1000, 0}, {1000, 4000, 1000, 0}}, 3000}, /* computing and hops: more than stages */
        {3, 12, {{9000, 900, 900, 0}, {3000, 300, 300, 0}, {6000, 600, 600, 0}}, 500},
        {3, 2, {{9000, 100, 900, 0}, {9000, 100, 300, 0}, {9000, 100, 600, 0}}, 500},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int noise = 0; noise < 2; noise++) {
            w = (struct world){.stages = cases[i].stages, .hop_us = cases[i].hop, .noise = 0.05 * noise, .seed = i};
            memcpy(w.cost, cases[i].cost, sizeof cases[i].cost);
            double own = throughput(&w, cases[i].streams, w.stages, false), best = 0;
            for (uint32_t groups = 1; groups <= 2 * w.stages; groups++)
                best = maximum(best, throughput(&w, cases[i].streams, groups, true));
            if (own < 0.92 * best)
                CHECK_FAIL("case %zu: %.0f tokens/s by itself, %.0f with the best number", i + 1, own, best);
        }
}

static void what_was_measured_in_bad_times_is_measured_again(void)
{
    /* Unequal stages, four sequences; the machine is slow for a while when one setting or another is measured. */
    static struct world w;
    static const struct costs cost[][2] = {
        {{6000, 300, 300, 0}, {12000, 600, 300, 0}},
        {{4000, 1000, 300, 0}, {13000, 2500, 300, 0}},
        {{2000, 2000, 300, 0}, {6000, 5000, 300, 0}},
        {{9000, 300, 300, 0}, {9000, 300, 300, 0}},
    };
    for (size_t i = 0; i < sizeof cost / sizeof *cost; i++)
        for (int when = 0; when < 4; when++) {
            static struct stream streams[4];
            double best = 0;
            w = (struct world){.stages = 2, .hop_us = 200, .noise = 0.05, .seed = i};
            memcpy(w.cost, cost[i], sizeof cost[i]);
            for (uint32_t groups = 1; groups <= 4; groups++)
                best = maximum(best, throughput(&w, 4, groups, true));
            begin(&w, 2, false);
            for (uint32_t k = 0; k < 4; k++) {
                ask(&w, &streams[k], 32, 8000);
                for (int n = 0; n < 20; n++) {
                    w.slow = (int)k == when ? 6 : 1;
                    move(&w);
                }
            }
            w.slow = 1;
            for (int n = 0; n < 4000; n++)
                move(&w);
            double from = w.now;
            uint32_t before = 0, after = 0;
            for (uint32_t k = 0; k < 4; k++)
                before += streams[k].tokens;
            for (int n = 0; n < 2000; n++)
                move(&w);
            for (uint32_t k = 0; k < 4; k++)
                after += streams[k].tokens;
            double own = (after - before) * 1e6 / (w.now - from);
            if (own < 0.95 * best)
                CHECK_FAIL("stages %zu, slow at %d: %.0f tokens/s by itself, %.0f with the best number", i + 1, when, own,
                           best);
            scheduler_destroy(w.s);
        }
}

/* Whoever has its answer asks again, prompts and answers of mixed lengths. */
static void ask_again(struct world *w, struct stream *streams)
{
    for (uint32_t i = 0; i < STREAMS; i++)
        if (streams[i].ended) {
            uint32_t random = (uint32_t)hash_mix64(++w->seed);
            ask(w, &streams[i], 16 + random % 500, 20 + random / 500 % 200);
        }
}

/* The shares of the time after `begun` that both stages were busy. */
static void busy_shares(const struct world *w, const struct world *begun, double share[2])
{
    for (int s = 0; s < 2; s++)
        share[s] = (w->busy_us[s] - begun->busy_us[s]) / (w->now - begun->now);
}

static void both_stages_are_busy(void)
{
    /* Sixteen clients that ask again and again, two even stages. */
    static struct world w, begun;
    static struct stream streams[STREAMS];
    double share[2];
    w = (struct world){.stages = 2, .hop_us = 300, .noise = 0.07, .seed = 7};
    w.cost[0] = w.cost[1] = (struct costs){6000, 2500, 2700, 0};
    begin(&w, 2, false);
    for (uint32_t i = 0; i < STREAMS; i++)
        ask(&w, &streams[i], 16 + 31 * i, 20 + 13 * i);
    for (int step = 0; step < 6000; step++) {
        if (step == 500)
            begun = w;
        move(&w);
        ask_again(&w, streams);
    }
    busy_shares(&w, &begun, share);
    for (int s = 0; s < 2; s++)
        if (share[s] < 0.93)
            CHECK_FAIL("stage %d is busy %.1f %% of the time", s, 100 * share[s]);
    scheduler_destroy(w.s);
}

/* The same clients, who all come at once, watched for fifteen seconds, the first five over. */
static void sixteen_clients(const struct costs *cost, double noise, uint64_t seed, double share[2])
{
    static struct world w, begun;
    static struct stream streams[STREAMS];
    w = (struct world){.stages = 2, .hop_us = 300, .noise = noise, .seed = seed};
    w.cost[0] = w.cost[1] = *cost;
    begin(&w, 2, false);
    begun = w;
    for (uint32_t i = 0; i < STREAMS; i++)
        streams[i].ended = true;
    while (w.now < 20e6) {
        ask_again(&w, streams);
        if (w.now <= 5e6)
            begun = w;
        move(&w);
    }
    busy_shares(&w, &begun, share);
    scheduler_destroy(w.s);
}

static void both_stages_stay_busy(void)
{
    static const struct costs costs[] = {{6000, 2500, 2700, 0}, {9000, 0, 0, 3000}};
    for (size_t c = 0; c < sizeof costs / sizeof *costs; c++)
        for (uint64_t seed = 0; seed < 100; seed++) {
            double share[2];
            sixteen_clients(&costs[c], seed % 2 ? 0.07 : 0.14, seed << 20, share);
            if (share[0] < 0.9 || share[1] < 0.9)
                CHECK_FAIL("costs %zu, seed %d: the stages are busy %.1f and %.1f %% of the time", c + 1, (int)seed,
                           100 * share[0], 100 * share[1]);
        }
}

static void fewer_stages_are_learned_anew(void)
{
    /* Three stages become two slower ones in the middle of everything: streams go on, and prompts ride by their times. */
    static struct world w;
    static struct stream streams[4], large;
    struct error e = {0};
    double most;
    w = (struct world){.stages = 3, .hop_us = 300, .noise = 0.05, .seed = 3};
    for (int s = 0; s < 3; s++)
        w.cost[s] = (struct costs){4000, 100, 500, 0};
    begin(&w, 3, false);
    for (uint32_t i = 0; i < 4; i++)
        ask(&w, &streams[i], 64, 8000);
    for (int i = 0; i < 300; i++)
        move(&w);
    scheduler_restart(w.s);
    w.under_way = 0;
    w.stages = 2;
    w.cost[0] = w.cost[1] = (struct costs){12000, 300, 2500, 0};
    REQUIRE(!scheduler_regroup(w.s, 2, 2, 4, &e));
    for (int i = 0; i < 400; i++)
        move(&w);
    double bare = mean_gap(&w, streams, 4, 300, &most);
    CHECK(bare > 20000 && bare < 40000);
    ask(&w, &large, 2048, 2);
    for (int i = 0; i < 40; i++)
        move(&w);
    double beside = mean_gap(&w, streams, 4, 200, &most);
    if (!(beside > 1.15 * bare && beside < 1.5 * bare))
        CHECK_FAIL("%.0f us between tokens became %.0f", bare, beside);
    scheduler_destroy(w.s);
}

static void streams_set_the_pace_also_when_it_changes(void)
{
    /* A prompt rides for long. The machine was slow when the streams were measured, and is fast now; or it becomes slow,
     * as it does for streams whose contexts grow. */
    static struct world w;
    static const double slow[][2] = {{4, 1}, {1, 4}, {1, 1.4}};
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++)
        for (uint32_t stages = 1; stages <= 2; stages++) {
            static struct stream streams[8], large;
            double most;
            w = (struct world){.stages = stages, .hop_us = 100, .noise = 0.05, .seed = i, .slow = slow[i][1]};
            w.cost[0] = w.cost[1] = (struct costs){15000, 300, 2000, 100};
            begin(&w, stages, false);
            for (uint32_t k = 0; k < 8; k++)
                ask(&w, &streams[k], 64, 8000);
            for (int n = 0; n < 400; n++)
                move(&w);
            double bare = mean_gap(&w, streams, 8, 300, &most);
            w.slow = slow[i][0];
            for (int n = 0; n < 100; n++)
                move(&w);
            ask(&w, &large, 8000, 2);
            for (int n = 0; n < 50; n++)
                move(&w);
            w.slow = slow[i][1];
            for (int n = 0; n < 400; n++)
                move(&w);
            double beside = mean_gap(&w, streams, 8, 300, &most);
            CHECK(!large.tokens);
            if (!(beside > 1.1 * bare && beside < 1.45 * bare))
                CHECK_FAIL("slow %g, then %g, %u stages: %.0f us between tokens, %.0f beside a prompt", slow[i][0],
                           slow[i][1], stages, bare, beside);
            scheduler_destroy(w.s);
        }
}

static const struct check_test tests[] = {
    {"a long prompt slows streams by less than half", a_long_prompt_slows_streams_by_less_than_half},
    {"the number of micro-batches follows the stages", the_number_of_micro_batches_follows_the_stages},
    {"what was measured in bad times is measured again", what_was_measured_in_bad_times_is_measured_again},
    {"both stages are busy", both_stages_are_busy},
    {"both stages stay busy", both_stages_stay_busy},
    {"streams set the pace, also when it changes", streams_set_the_pace_also_when_it_changes},
    {"fewer stages are learned anew", fewer_stages_are_learned_anew},
};

CHECK_MAIN(tests)
