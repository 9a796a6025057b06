/* The scheduler, driven by a pretended pipe that keeps every stage's rules: random requests, results that lag,
 * cancellations, failures, restarts. The token a sequence gets is a function of its tokens alone, so that whatever the
 * schedule was, every request must end with the tokens it would have had alone. */
#include "tests/coordinator/pretended_pipe.h"

static void random_request(struct asked *a, const struct asked *other)
{
    *a = (struct asked){.prompt_count = 1 + below(CONTEXT - 1), .client = below(4)};
    if (below(8) == 0)
        a->priority = (int32_t)below(3) - 1;
    if (below(2))
        a->prompt_count = 1 + below(8);
    for (uint32_t i = 0; i < a->prompt_count; i++)
        a->prompt[i] = (int32_t)below(VOCABULARY);
    if (other && below(2)) { /* begins like another one */
        uint32_t same = 1 + below(other->prompt_count);
        memcpy(a->prompt, other->prompt, (same < a->prompt_count ? same : a->prompt_count) * sizeof *a->prompt);
    }
    switch (below(6)) {
    case 0:
        a->logits = true;
        a->scores = below(2);
        break;
    case 1:
        a->scores = a->prompt_count > 1;
        a->max_tokens = a->scores ? 0 : 3;
        break;
    case 2:
        a->scores = true;
        a->max_tokens = 1 + below(20);
        break;
    default:
        a->max_tokens = below(8) ? 1 + below(30) : UINT32_MAX;
    }
}

static uint64_t preemptions; /* of all random runs */

static void one_random_run(uint64_t start)
{
    enum { REQUESTS = 40 };
    static struct asked asked[REQUESTS];
    static struct pipe p;
    struct error e = {0};
    seed = start * UINT64_C(1000003);
    struct scheduler_options o = {.page_tokens = PAGE,
                                  .max_context = CONTEXT,
                                  .sequences = 1 + below(12),
                                  .queue = below(40),
                                  .chunk_tokens = 1 + below(64),
                                  .groups = 1 + below(4)};
    o.in_flight = o.groups + below(3);
    o.pages = CONTEXT / PAGE + (start % 2 ? below(40) : below(8)); /* often far too few for all of them */
    struct scheduler *s = NULL;
    REQUIRE(!scheduler_create(&o, &s, &e));
    p = (struct pipe){.pages = o.pages};
    finished = 0;
    uint32_t submitted = 0, quiet = 0, cancels = 0;
    for (int64_t now = 1; now < 20000; now++) {
        bool moved = false;
        if (submitted < REQUESTS && below(3) == 0) {
            struct asked *a = &asked[submitted];
            random_request(a, submitted ? &asked[below(submitted)] : NULL);
            struct request *r = make(a, submitted + 1, now);
            if (!r)
                break;
            int rc = scheduler_submit(s, r, &e);
            CHECK(!rc || rc == ERR_BUSY);
            if (rc)
                request_destroy(r);
            else
                submitted++;
            moved = !rc;
        }
        if (submitted && below(25) == 0) {
            scheduler_cancel(s, 1 + below(submitted), now);
            cancels++;
        }
        if (below(60) == 0) {
            scheduler_restart(s);
            p = (struct pipe){.pages = o.pages};
        }
        while (below(4) && p.under_way < o.in_flight + 1) {
            struct frame_work w;
            int rc = scheduler_next(s, now, &w, &e);
            CHECK(rc >= 0);
            if (rc <= 0)
                break;
            pipe_take(&p, &w, scheduler_max_tokens(&o));
            moved = true;
        }
        CHECK(p.under_way <= o.in_flight);
        if (p.under_way && below(2)) {
            pipe_answer(&p, s, now);
            moved = true;
        }
        quiet = moved ? 0 : quiet + 1;
        if (submitted == REQUESTS && !scheduler_busy(s))
            break;
        if (quiet > 500) {
            CHECK_FAIL("seed %llu: nothing moves any more", (unsigned long long)start);
            break;
        }
    }
    struct scheduler_counts counts;
    scheduler_count(s, &counts);
    CHECK_INT(counts.pages_used, 0);
    CHECK_INT(counts.pages_promised, 0);
    CHECK_INT(counts.running + counts.queued, 0);
    CHECK_INT(counts.done + counts.failed + counts.cancelled, submitted);
    CHECK_INT(counts.failed, 0);
    CHECK(!cancels || counts.cancelled <= cancels);
    preemptions += counts.preempted;
    for (uint32_t i = 0; i < submitted; i++) {
        CHECK_INT(asked[i].finishes, 1);
        check_tokens(&asked[i]);
    }
    scheduler_destroy(s);
    if (check_failures)
        printf("    seed %llu\n", (unsigned long long)start);
}

static void random_requests_all_end_well(void)
{
    for (uint64_t i = 1; i <= 1500 && !check_failures; i++)
        one_random_run(i);
    CHECK(preemptions > 1000); /* it does happen */
}

static struct scheduler_options options(uint32_t pages, uint32_t sequences, uint32_t queue, uint32_t chunk,
                                        uint32_t groups, uint32_t in_flight)
{
    return (struct scheduler_options){.pages = pages,
                                      .page_tokens = PAGE,
                                      .max_context = CONTEXT,
                                      .sequences = sequences,
                                      .queue = queue,
                                      .chunk_tokens = chunk,
                                      .groups = groups,
                                      .in_flight = in_flight};
}

/* A scheduler and the empty pipe behind it. */
static struct scheduler *fresh(const struct scheduler_options *o, struct pipe *p)
{
    struct scheduler *s = NULL;
    struct error e = {0};
    if (scheduler_create(o, &s, &e))
        CHECK_FAIL("%s", e.text);
    *p = (struct pipe){.pages = o->pages};
    finished = 0;
    return s;
}

static void the_pipe_fills(void)
{
    /* 8 sequences over 4 groups: with 4 in flight each holds 2, and the fifth place is for prompts only. */
    struct scheduler_options o = options(200, 8, 8, 64, 4, 5);
    static struct asked asked[9];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct frame_work w;
    for (int i = 0; i < 8; i++) {
        asked[i] = (struct asked){.prompt_count = 4, .max_tokens = 40};
        for (int k = 0; k < 4; k++)
            asked[i].prompt[k] = i * 4 + k;
        REQUIRE(!scheduler_submit(s, make(&asked[i], (uint64_t)i + 1, 1), NULL));
    }
    for (int round = 0; round < 60; round++) {
        while (scheduler_next(s, round, &w, NULL) == 1)
            pipe_take(&p, &w, scheduler_max_tokens(&o));
        if (round > 20 && round < 40) {
            CHECK_INT(p.under_way, 4);
            for (uint32_t i = 0; i < p.under_way; i++)
                CHECK_INT(p.flights[i].span_count, 2);
        }
        pipe_answer(&p, s, round);
    }
    scheduler_cancel_all(s, 99);
    scheduler_destroy(s);
}

static void chunks_follow_each_other(void)
{
    struct scheduler_options o = options(20, 4, 8, 32, 1, 3);
    static struct asked a;
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct frame_work w;
    a = (struct asked){.prompt_count = 90, .max_tokens = 2};
    REQUIRE(!scheduler_submit(s, make(&a, 1, 1), NULL));
    static const uint32_t counts[] = {32, 32, 26};
    for (int i = 0; i < 3; i++) { /* all three under way before any is answered */
        REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
        CHECK_INT(w.spans[0].count, counts[i]);
        CHECK_INT(w.spans[0].want, i == 2 ? WANT_TOKEN : WANT_NOTHING);
        pipe_take(&p, &w, scheduler_max_tokens(&o));
    }
    CHECK_INT(scheduler_next(s, 1, &w, NULL), 0);
    CHECK_INT(scheduler_widest(s).rows, 32);
    CHECK_INT(scheduler_widest(s).past, 64); /* of the last chunk */
    for (int i = 0; i < 3; i++)
        pipe_answer(&p, s, 2);
    CHECK_INT(scheduler_widest(s).rows + scheduler_widest(s).past, 0);
    CHECK_INT(a.tokens, 1);
    REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
    CHECK_INT(w.tokens, 1);
    pipe_take(&p, &w, 100);
    pipe_answer(&p, s, 3);
    CHECK_INT(a.reason, FINISH_LENGTH);
    check_tokens(&a);
    scheduler_destroy(s);
}

static void a_long_prompt_does_not_stall_others(void)
{
    struct scheduler_options o = options(100, 4, 8, 8, 1, 1);
    static struct asked small, large;
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct frame_work w;
    small = (struct asked){.prompt_count = 2, .max_tokens = 30};
    large = (struct asked){.prompt_count = 80, .max_tokens = 2};
    REQUIRE(!scheduler_submit(s, make(&small, 1, 1), NULL));
    REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
    pipe_take(&p, &w, 100);
    pipe_answer(&p, s, 1);
    REQUIRE(!scheduler_submit(s, make(&large, 2, 1), NULL));
    while (!large.tokens) { /* every micro-batch has a token of the small one and a piece of the large one */
        uint32_t before = small.tokens;
        REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
        CHECK_INT(w.span_count, 2);
        CHECK(w.tokens <= 8);
        pipe_take(&p, &w, 100);
        pipe_answer(&p, s, 1);
        CHECK_INT(small.tokens, before + 1);
    }
    scheduler_cancel_all(s, 99);
    CHECK_INT(small.reason, FINISH_CANCELLED);
    scheduler_destroy(s);
}

static void clients_share_fairly(void)
{
    struct scheduler_options o = options(100, 2, 20, 64, 1, 1);
    static struct asked asked[11];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct frame_work w;
    for (int i = 0; i < 11; i++) { /* ten of one client, then one of another */
        asked[i] = (struct asked){.prompt_count = 3, .max_tokens = 5, .client = i == 10};
        REQUIRE(!scheduler_submit(s, make(&asked[i], (uint64_t)i + 1, 1), NULL));
    }
    while (scheduler_busy(s)) {
        REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
        pipe_take(&p, &w, 100);
        pipe_answer(&p, s, 1);
    }
    CHECK(asked[10].order <= 3);
    for (int i = 2; i < 10; i++)
        CHECK(asked[i].order > asked[i - 1].order);
    scheduler_destroy(s);
}

static void bounds_and_deadlines_hold(void)
{
    struct scheduler_options o = options(12, 1, 1, 64, 1, 1);
    static struct asked asked[3];
    struct scheduler *s = NULL;
    struct frame_work w;
    struct error e = {0};
    REQUIRE(!scheduler_create(&o, &s, NULL));
    for (int i = 0; i < 3; i++) {
        asked[i] = (struct asked){.prompt_count = 3, .max_tokens = 5};
        struct request *r = make(&asked[i], (uint64_t)i + 1, 1);
        int rc = scheduler_submit(s, r, &e);
        CHECK_INT(rc, i < 2 ? 0 : ERR_BUSY);
        if (rc)
            request_destroy(r);
    }
    CHECK_TEXT(e.text, "0 requests run and 2 wait: the queue is full, try again later");
    CHECK_INT(scheduler_next(s, 1, &w, NULL), 1);
    struct frame_result bad = {.microbatch = w.microbatch, .error_code = ERR_FORMAT, .error_text = "a NaN"};
    scheduler_result(s, &bad, 2);
    CHECK_INT(asked[0].reason, FINISH_ERROR);
    CHECK_INT(scheduler_next(s, 3, &w, NULL), 1); /* goes on with the next one */
    CHECK_INT(w.release_count, 1);
    scheduler_fail(s, &(struct error){ERR_LOST, "gone"}, 4);
    CHECK_INT(asked[1].reason, FINISH_ERROR);
    CHECK(!scheduler_busy(s));

    asked[2] = (struct asked){.prompt_count = 3, .max_tokens = 5, .id = 9};
    struct request_options options = {.prompt = asked[2].prompt,
                                      .prompt_count = 3,
                                      .max_tokens = 5,
                                      .deadline_us = 100,
                                      .on_token = on_token,
                                      .on_finish = on_finish,
                                      .context = &asked[2]};
    sampling_default(&options.sampling);
    struct request *r = NULL;
    REQUIRE(!request_create(&options, 9, NULL, VOCABULARY, CONTEXT, 1000, &r, &e));
    REQUIRE(!scheduler_submit(s, r, &e));
    CHECK_INT(scheduler_tick(s, 1050), 1100);
    CHECK_INT(asked[2].finishes, 0);
    CHECK_INT(scheduler_tick(s, 1100), INT64_MAX);
    CHECK_INT(asked[2].reason, FINISH_ERROR);
    scheduler_destroy(s);
}

/* A client hangs up while his micro-batches are under way: the next micro-batch is another's, on his pages. */
static void a_hang_up_frees_pages_within_one_iteration(void)
{
    struct scheduler_options o = options(CONTEXT / PAGE, 4, 4, 64, 1, 3);
    static struct asked asked[2];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct scheduler_counts counts;
    struct frame_work w;
    for (int i = 0; i < 2; i++) { /* nothing alike; each needs more than half of all pages */
        asked[i] = (struct asked){.prompt_count = CONTEXT / 2 + PAGE, .max_tokens = 3};
        for (uint32_t k = 0; k < asked[i].prompt_count; k++)
            asked[i].prompt[k] = i + 1;
        REQUIRE(!scheduler_submit(s, make(&asked[i], (uint64_t)i + 1, 1), NULL));
    }
    REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
    pipe_take(&p, &w, 100);
    scheduler_count(s, &counts);
    CHECK_INT(counts.running, 1);
    CHECK_INT(counts.queued, 1);
    CHECK(counts.pages_used > 0);
    scheduler_cancel(s, 1, 2);
    scheduler_count(s, &counts);
    CHECK_INT(counts.pages_used + counts.pages_promised, 0);
    REQUIRE(scheduler_next(s, 3, &w, NULL) == 1); /* though its result has not come */
    CHECK_INT(w.release_count, 1);
    CHECK_INT(w.span_count, 1);
    CHECK_INT(w.spans[0].tokens[0], 2);
    pipe_take(&p, &w, 100);
    while (scheduler_busy(s)) {
        while (scheduler_next(s, 4, &w, NULL) == 1)
            pipe_take(&p, &w, 100);
        pipe_answer(&p, s, 4);
    }
    CHECK_INT(asked[0].tokens, 0);
    CHECK_INT(asked[1].reason, FINISH_LENGTH);
    check_tokens(&asked[1]);
    scheduler_destroy(s);
}

/* Answers everything until nobody is busy. */
static void drain(struct scheduler *s, struct pipe *p)
{
    struct frame_work w;
    for (int round = 0; round < 10000 && scheduler_busy(s); round++) {
        while (scheduler_next(s, round, &w, NULL) == 1)
            pipe_take(p, &w, 100000);
        if (p->under_way)
            pipe_answer(p, s, round);
    }
    CHECK(!scheduler_busy(s));
}

static void shared_beginnings_are_computed_once(void)
{
    struct scheduler_options o = options(200, 10, 20, 32, 2, 3);
    static struct asked asked[12];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct scheduler_counts counts;
    for (int i = 0; i < 10; i++) { /* ten at once: 64 tokens alike, 4 of their own */
        asked[i] = (struct asked){.prompt_count = 68, .max_tokens = 1, .client = (uint64_t)i};
        for (int k = 0; k < 68; k++)
            asked[i].prompt[k] = k < 64 ? k : 100 * i + k;
        REQUIRE(!scheduler_submit(s, make(&asked[i], (uint64_t)i + 1, 1), NULL));
    }
    drain(s, &p);
    CHECK_INT(p.computed, 64 + 10 * 4);
    for (int i = 0; i < 10; i++)
        check_tokens(&asked[i]);

    /* The same again, later: at least one token is computed anew. */
    p.computed = 0;
    asked[10] = asked[3];
    asked[10].tokens = asked[10].finishes = 0;
    REQUIRE(!scheduler_submit(s, make(&asked[10], 11, 1), NULL));
    drain(s, &p);
    CHECK_INT(p.computed, 4);
    check_tokens(&asked[10]);
    scheduler_count(s, &counts);
    CHECK_INT(counts.tokens_shared, 9 * 64 + 64);
    CHECK_INT(counts.pages_used, 0);
    CHECK_INT(counts.pages_idle, 8); /* no page of the tails is whole */

    /* Scores need every position. */
    p.computed = 0;
    asked[11] = (struct asked){.prompt_count = 68, .scores = true};
    memcpy(asked[11].prompt, asked[3].prompt, sizeof asked[3].prompt);
    REQUIRE(!scheduler_submit(s, make(&asked[11], 12, 1), NULL));
    drain(s, &p);
    CHECK_INT(p.computed, 67);

    /* New stages know nothing. */
    scheduler_restart(s);
    p = (struct pipe){.pages = o.pages};
    asked[10].tokens = asked[10].finishes = 0;
    REQUIRE(!scheduler_submit(s, make(&asked[10], 13, 1), NULL));
    drain(s, &p);
    CHECK_INT(p.computed, 68);
    check_tokens(&asked[10]);
    scheduler_destroy(s);
}

static void submit(struct scheduler *s, struct asked *a, uint64_t id)
{
    struct error e = {0};
    struct request *r = make(a, id, 1);
    REQUIRE(r);
    if (scheduler_submit(s, r, &e))
        CHECK_FAIL("%s", e.text);
}

static void the_youngest_makes_room(void)
{
    /* Four answers of 8 pages each in a cache of 14: all begin, for their prompts have one page each. */
    struct scheduler_options o = options(14, 4, 8, 32, 1, 1);
    static struct asked asked[4];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct scheduler_counts counts;
    struct frame_work w;
    for (int i = 0; i < 4; i++) {
        asked[i] = (struct asked){.prompt_count = 4, .max_tokens = 58, .prompt = {i + 1, 2, 3, 4}};
        submit(s, &asked[i], (uint64_t)i + 1);
    }
    uint32_t most = 0;
    for (int round = 0; round < 10000 && scheduler_busy(s); round++) {
        uint32_t first = asked[0].tokens;
        while (scheduler_next(s, round, &w, NULL) == 1)
            pipe_take(&p, &w, 100);
        scheduler_count(s, &counts);
        most = counts.running > most ? counts.running : most;
        CHECK(counts.pages_used <= o.pages && counts.pages_used + counts.pages_promised <= o.pages);
        pipe_answer(&p, s, round);
        CHECK(asked[0].finishes || asked[0].tokens == first + 1); /* nobody ever holds up the oldest */
    }
    CHECK_INT(most, 4);
    scheduler_count(s, &counts);
    CHECK(counts.preempted >= 2);
    CHECK_INT(counts.done, 4);
    CHECK_INT(counts.pages_used, 0);
    for (int i = 0; i < 4; i++) {
        check_tokens(&asked[i]);
        CHECK_INT(asked[i].order, i + 1);
    }
    /* What a preempted sequence had computed is mostly found again. */
    CHECK(p.computed < 4 * 61 + counts.preempted * 3 * PAGE);
    scheduler_destroy(s);
}

static void priorities_go_first(void)
{
    struct scheduler_options o = options(12, 2, 20, 32, 1, 1);
    static struct asked asked[6];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct scheduler_counts counts;
    struct frame_work w;
    for (int i = 0; i < 6; i++) {
        static const int32_t priorities[] = {0, 0, 0, -1, 0, 5};
        asked[i] = (struct asked){
            .prompt_count = 3, .max_tokens = 20, .priority = priorities[i], .prompt = {i + 1, i + 2, i + 3}};
    }
    for (int i = 0; i < 5; i++)
        submit(s, &asked[i], (uint64_t)i + 1);
    for (int i = 0; i < 5; i++) {
        REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
        pipe_take(&p, &w, 100);
        pipe_answer(&p, s, 1);
    }
    CHECK_INT(asked[0].tokens, 5);
    CHECK_INT(asked[1].tokens, 5);
    submit(s, &asked[5], 6); /* the second of the two that run gives way at once */
    REQUIRE(scheduler_next(s, 1, &w, NULL) == 1);
    CHECK_INT(w.release_count, 1);
    pipe_take(&p, &w, 100);
    pipe_answer(&p, s, 1);
    CHECK_INT(asked[5].tokens, 1);
    CHECK_INT(asked[0].tokens, 6);
    CHECK_INT(asked[1].tokens, 5);
    drain(s, &p);
    static const int order[] = {1, 3, 4, 6, 5, 2};
    for (int i = 0; i < 6; i++) {
        CHECK_INT(asked[i].order, order[i]);
        check_tokens(&asked[i]);
    }
    scheduler_count(s, &counts);
    CHECK_INT(counts.preempted, 1);
    scheduler_destroy(s);
}

static void a_small_client_is_not_the_one_to_suffer(void)
{
    /* One client asks for thirty long answers, another comes later with one at a time; pages are short all along. */
    struct scheduler_options o = options(16, 6, 40, 32, 2, 3);
    static struct asked asked[34];
    static struct pipe p;
    struct scheduler *s = fresh(&o, &p);
    struct frame_work w;
    for (int i = 0; i < 34; i++)
        asked[i] = (struct asked){
            .prompt_count = 5, .max_tokens = 60, .client = i >= 30, .prompt = {i, i / 7, i % 7, i / 5, 9}};
    for (int i = 0; i < 30; i++)
        submit(s, &asked[i], (uint64_t)i + 1);
    int small = 30;
    for (int round = 0; round < 20000 && scheduler_busy(s); round++) {
        if (small < 34 && round > 100 && (small == 30 || asked[small - 1].finishes)) {
            submit(s, &asked[small], (uint64_t)small + 1);
            small++;
        }
        while (scheduler_next(s, round, &w, NULL) == 1)
            pipe_take(&p, &w, 100);
        if (p.under_way)
            pipe_answer(&p, s, round);
    }
    CHECK(!scheduler_busy(s));
    for (int i = 0; i < 34; i++)
        check_tokens(&asked[i]);
    /* Its four answers came one after the other while the large client's thirty were far from done. */
    CHECK(asked[33].order < 26);
    scheduler_destroy(s);
}

static const struct check_test tests[] = {
    {"random requests all end well", random_requests_all_end_well},
    {"the pipe fills", the_pipe_fills},
    {"chunks follow each other", chunks_follow_each_other},
    {"a long prompt does not stall others", a_long_prompt_does_not_stall_others},
    {"clients share fairly", clients_share_fairly},
    {"bounds and deadlines hold", bounds_and_deadlines_hold},
    {"a hang-up frees pages within one iteration", a_hang_up_frees_pages_within_one_iteration},
    {"shared beginnings are computed once", shared_beginnings_are_computed_once},
    {"the youngest makes room", the_youngest_makes_room},
    {"priorities go first", priorities_go_first},
    {"a small client is not the one to suffer", a_small_client_is_not_the_one_to_suffer},
};

CHECK_MAIN(tests)
