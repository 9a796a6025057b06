/* Real workers compute what this process computes, bit for bit, and survive whatever should not have been sent. */
#include "tests/check.h"

#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "engine/model/local.h"
#include "tests/proto/tap.h"
#include "tests/worker/rig_main.h"

#define TOKENS 40u

/* Logits at the last of `count` tokens and scores of all, from this process. */
static bool compute_here(uint32_t count, float logits[RIG_VOCABULARY], float *scores)
{
    struct model *m = NULL;
    struct local *l = NULL;
    struct span_result r;
    struct error err = {0};
    struct local_options o = {.max_context = RIG_CONTEXT, .max_tokens = 64};
    bool done = !model_open(rig.model_path, &m, &err) && !local_open(m, &o, &l, &err) &&
                !local_feed(l, 1, tokens, count, WANT_LOGITS, -1, NULL, NULL, &r, &err);
    if (done)
        memcpy(logits, r.logits, RIG_VOCABULARY * sizeof *logits);
    if (done && scores)
        done = !local_feed(l, 2, tokens, count, WANT_SCORES, tokens[count], NULL, scores, &r, &err);
    if (!done)
        CHECK_FAIL("%s", err.text);
    local_close(l);
    model_close(m);
    return done;
}

/* The prompt in chunks, then token by token; the logits of the end are those of this process, bit for bit. */
static void feed_and_compare(struct rig_pipe *p, double tolerance)
{
    float want[RIG_VOCABULARY], scores[TOKENS];
    struct rig_result r;
    REQUIRE(compute_here(TOKENS, want, scores));
    static const uint32_t chunks[] = {13, 20, 1, 1, 5};
    uint32_t first = 0;
    for (size_t i = 0; i < 5; i++) {
        struct rig_span s = {.sequence = 1, .first = first, .count = chunks[i], .want = i == 4 ? 2 : 0};
        s.tokens = tokens;
        CHECK_INT(rig_feed(p, &s, 1, true), 0);
        first += chunks[i];
    }
    REQUIRE(first == TOKENS);
    for (uint64_t i = 0; i < 5; i++) {
        REQUIRE(rig_result(p, &r, 20000));
        const struct frame_result *f = &r.frame.result;
        if (f->error_code)
            CHECK_FAIL("%s", f->error_text);
        CHECK_INT(f->microbatch, p->microbatch - 4 + i);
        CHECK_INT(f->span_count, 1);
        if (i == 4 && f->span_count == 1) {
            CHECK_INT(f->spans[0].float_count, RIG_VOCABULARY);
            CHECK_INT(f->spans[0].position, TOKENS);
            if (tolerance == 0)
                CHECK(!memcmp(f->spans[0].floats, want, sizeof want));
            else
                for (uint32_t v = 0; v < RIG_VOCABULARY; v++)
                    CHECK_NEAR(f->spans[0].floats[v], want[v], tolerance);
        }
        for (uint32_t t = 0; t < f->trace_count; t++) {
            CHECK_INT(f->trace[t].stage, t);
            CHECK(f->trace[t].received_us <= f->trace[t].started_us);
            CHECK(f->trace[t].started_us <= f->trace[t].finished_us && f->trace[t].finished_us <= f->trace[t].sent_us);
        }
        CHECK(f->trace_count > 0);
        rig_result_free(&r);
    }
    if (tolerance > 0)
        return;
    struct rig_span both[2] = {{.sequence = 2, .count = TOKENS, .want = 3, .tokens = tokens, .base_page = 4},
                               {.sequence = 3, .count = 7, .want = 1, .tokens = tokens, .base_page = 8}};
    struct frame_sampling greedy = {.top_p = 1, .repeat_penalty = 1, .top_logprobs = 4};
    both[1].sampling = &greedy;
    CHECK_INT(rig_feed(p, both, 2, false), 0);
    REQUIRE(rig_result(p, &r, 20000));
    REQUIRE(r.frame.result.span_count == 2);
    const struct frame_span_result *s = r.frame.result.spans;
    CHECK(s[0].float_count == TOKENS && !memcmp(s[0].floats, scores, sizeof scores));
    CHECK(s[1].top_count == 4 && s[1].chosen.token == s[1].top[0].token && s[1].top[0].logprob >= s[1].top[1].logprob);
    CHECK_INT(r.frame.result.trace_count, 0);
    int32_t chosen = s[1].chosen.token;
    rig_result_free(&r);
    float seventh[RIG_VOCABULARY];
    REQUIRE(compute_here(7, seventh, NULL));
    int best = 0;
    for (int v = 1; v < (int)RIG_VOCABULARY; v++)
        best = seventh[v] > seventh[best] ? v : best;
    CHECK_INT(chosen, best);
}

static void pipes_compute_what_one_process_does(void)
{
    struct rig_worker w[3];
    struct rig_worker *all[3] = {&w[0], &w[1], &w[2]};
    struct rig_pipe p;
    static const char *const names[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        FINE(rig_start(&rig, &w[i], names[i], NULL));
        FINE(rig_claim(&rig, &w[i]));
    }
    uint64_t epoch = 1;
    for (size_t count = 1; count <= 3; count++) {
        FINE(rig_pipe_open(&rig, all, count, epoch++, CODEC_F32, &p));
        feed_and_compare(&p, 0);
        rig_pipe_close(&p);
    }
    static const struct { enum frame_codec codec; double tolerance; } coarse[] = {
        {CODEC_F16, 0.3}, {CODEC_BF16, 1}, {CODEC_Q8, 1}};
    for (size_t i = 0; i < 3; i++) {
        FINE(rig_pipe_open(&rig, all, 3, epoch++, coarse[i].codec, &p));
        feed_and_compare(&p, coarse[i].tolerance);
        rig_pipe_close(&p);
    }
    CHECK_INT(rig_logged(&w[1], ", kept in "), 4); /* of two blocks, one was enough later on */
    struct control_message m, beat = {.kind = CONTROL_HEARTBEAT, .request = 9};
    CHECK_INT(rig_say(w[2].control, &beat), 0);
    REQUIRE(rig_hear(w[2].control, 9, 0, &m, 5000));
    CHECK(m.u.heartbeat_reply.microbatches >= 20 && m.u.heartbeat_reply.tokens >= 40 && m.u.heartbeat_reply.state == 2);
    CHECK(m.u.heartbeat_reply.bytes_in > 10000 && m.u.heartbeat_reply.bytes_out > 1000 && m.u.heartbeat_reply.busy_us);
    for (int i = 0; i < 3; i++)
        CHECK_INT(rig_stop(&w[i], 5000), 0);
}

static void bad_frames_disturb_nobody(void)
{
    struct rig_worker w;
    struct rig_worker *all[1] = {&w};
    struct rig_pipe p;
    struct rig_result r;
    FINE(rig_start(&rig, &w, "tough", NULL));
    FINE(rig_claim(&rig, &w));
    FINE(rig_pipe_open(&rig, all, 1, 3, CODEC_F32, &p));
    for (int i = 0; i < 200; i++) {
        unsigned char junk[64];
        size_t size = 1 + (size_t)(hash_mix64((uint64_t)i) % 63);
        for (size_t k = 0; k < size; k++)
            junk[k] = (unsigned char)hash_mix64((uint64_t)i * 64 + k);
        struct frame_part parts[3] = {{junk, size}, {junk, size / 2}, {junk, size / 3}};
        int rc;
        while ((rc = link_send(p.feed, NULL, parts, 1 + (size_t)i % 3, NULL)) == ERR_BUSY)
            usleep(1000);
        CHECK_INT(rc, 0);
    }
    struct rig_span good = {.sequence = 1, .count = 5, .want = 2, .tokens = tokens}, bad = good;
    CHECK_INT(rig_feed(&p, &good, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    CHECK_INT(r.frame.result.error_code, 0);
    rig_result_free(&r);
    CHECK_INT(rig_logged(&w, "dropped a data frame"), 1);
    /* An older epoch is dropped without a word. */
    p.epoch = 2;
    CHECK_INT(rig_feed(&p, &good, 1, false), 0);
    p.epoch = 3;
    /* What the sender should have known: the micro-batch fails, with the reason, and the next one works. */
    bad.first = 5;
    bad.count = 3;
    bad.wrong_hash = 1;
    CHECK_INT(rig_feed(&p, &bad, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    CHECK_INT(r.frame.result.error_code, ERR_ORDER);
    CHECK(*r.frame.result.error_text && r.frame.result.microbatch == p.microbatch);
    rig_result_free(&r);
    static const int32_t strange[8] = {1, 2, 3, 4, 5, 100000, 1, 1};
    bad = (struct rig_span){.sequence = 2, .count = 8, .want = 2, .tokens = strange, .base_page = 8};
    CHECK_INT(rig_feed(&p, &bad, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    CHECK_INT(r.frame.result.error_code, ERR_FORMAT);
    rig_result_free(&r);
    good.first = 5;
    good.count = 4;
    CHECK_INT(rig_feed(&p, &good, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    CHECK_INT(r.frame.result.error_code, 0);
    rig_result_free(&r);
    struct control_message m, beat = {.kind = CONTROL_HEARTBEAT, .request = 9};
    CHECK_INT(rig_say(w.control, &beat), 0);
    REQUIRE(rig_hear(w.control, 9, 0, &m, 5000));
    CHECK(m.u.heartbeat_reply.refused >= 200);
    rig_pipe_close(&p);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

/* Allowed on the data plane, but not this stage's feeder; a failure in a stage that has no way to the coordinator. */
static void stages_know_their_neighbours(void)
{
    struct rig_worker w[2];
    struct rig_worker *all[2] = {&w[0], &w[1]};
    struct rig_pipe p, intruder;
    struct control_message m;
    FINE(rig_start(&rig, &w[0], "front", NULL));
    FINE(rig_start(&rig, &w[1], "back", NULL));
    FINE(rig_claim(&rig, &w[0]));
    FINE(rig_claim(&rig, &w[1]));
    FINE(rig_pipe_open(&rig, all, 2, 11, CODEC_F32, &p));
    intruder = p;
    intruder.feed = p.results; /* the coordinator's own link to the last stage */
    struct rig_span s = {.sequence = 1, .count = 5, .want = 2, .tokens = tokens};
    CHECK_INT(rig_feed(&intruder, &s, 1, false), 0);
    struct rig_result r;
    CHECK(!rig_result(&p, &r, 300));
    CHECK_INT(rig_logged(&w[1], "may not feed stage 1"), 1);
    p.microbatch = intruder.microbatch;
    CHECK_INT(rig_feed(&p, &s, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    CHECK_INT(r.frame.result.error_code, 0);
    rig_result_free(&r);
    s.first = 5;
    s.wrong_hash = 1;
    CHECK_INT(rig_feed(&p, &s, 1, false), 0);
    REQUIRE(rig_hear(w[0].control, 0, CONTROL_FAILURE, &m, 5000));
    CHECK(m.u.failure.code == ERR_ORDER && m.epoch == 11 && m.request == 0);
    CHECK(strstr(m.u.failure.text, "stage 0"));
    rig_pipe_close(&p);
    CHECK_INT(rig_stop(&w[0], 5000), 0);
    CHECK_INT(rig_stop(&w[1], 5000), 0);
}

static void a_killed_worker_is_noticed(void)
{
    struct rig_worker w[2];
    struct rig_worker *all[2] = {&w[0], &w[1]};
    struct rig_pipe p;
    bool ready[3];
    FINE(rig_start(&rig, &w[0], "stays", NULL));
    FINE(rig_start(&rig, &w[1], "dies", NULL));
    FINE(rig_claim(&rig, &w[0]));
    FINE(rig_claim(&rig, &w[1]));
    FINE(rig_pipe_open(&rig, all, 2, 1, CODEC_F32, &p));
    rig_kill(&w[1]);
    struct link *links[3] = {p.results, w[1].control, w[0].control};
    int64_t start = clock_ms();
    while ((link_state(p.results, NULL, 0) != LINK_DOWN || link_state(w[1].control, NULL, 0) != LINK_DOWN) &&
           clock_ms() - start < check_patience_ms())
        link_wait(links, 3, NULL, 10, ready);
    CHECK_INT(link_state(p.results, NULL, 0), LINK_DOWN);
    CHECK_INT(link_state(w[1].control, NULL, 0), LINK_DOWN);
    /* The other one is alive, takes work it cannot pass on, and is of use again for the next epoch. */
    struct rig_span s = {.sequence = 1, .count = 5, .want = 2, .tokens = tokens};
    for (int i = 0; i < 3; i++)
        rig_feed(&p, &s, 1, false);
    FINE(rig_claim(&rig, &w[0]));
    rig_pipe_close(&p);
    FINE(rig_pipe_open(&rig, all, 1, 2, CODEC_F32, &p));
    s = (struct rig_span){.sequence = 1, .count = 5, .want = 2, .tokens = tokens};
    struct rig_result r;
    CHECK_INT(rig_feed(&p, &s, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    CHECK_INT(r.frame.result.error_code, 0);
    rig_result_free(&r);
    rig_pipe_close(&p);
    CHECK_INT(rig_stop(&w[0], 5000), 0);
    rig_stop(&w[1], 0);
}

static void a_signal_drains(void)
{
    struct rig_worker w;
    struct rig_worker *all[1] = {&w};
    struct rig_pipe p;
    struct rig_result r;
    struct control_message m;
    FINE(rig_start(&rig, &w, "leaving", NULL));
    FINE(rig_claim(&rig, &w));
    FINE(rig_pipe_open(&rig, all, 1, 4, CODEC_F32, &p));
    for (uint32_t i = 0; i < 10; i++) {
        struct rig_span s = {.sequence = 1, .first = i * 4, .count = 4, .want = 2, .tokens = tokens};
        CHECK_INT(rig_feed(&p, &s, 1, false), 0);
    }
    REQUIRE(rig_result(&p, &r, 10000)); /* they are on their way */
    rig_result_free(&r);
    kill(w.pid, SIGTERM);
    for (int i = 1; i < 10; i++) {
        REQUIRE(rig_result(&p, &r, 5000));
        rig_result_free(&r);
    }
    REQUIRE(rig_hear(w.control, 0, CONTROL_FAILURE, &m, 5000));
    CHECK(m.u.failure.code == ERR_CANCELLED && m.epoch == 4 && strstr(m.u.failure.text, "shutting down"));
    rig_pipe_close(&p);
    CHECK_INT(rig_wait(&w, 5000), 0);
    CHECK_INT(rig_logged(&w, "stopped"), 1);
    rig_stop(&w, 0);
}

/* ---- What others see, and what goes on meanwhile ---------------------------------------------------------------- */

/* Every byte between the nodes passes a proxy that writes it down: neither token ids nor activations nor logits are in
 * it. The activations are what this process computes for the same blocks. */
static void the_pipe_shows_nothing(void)
{
    struct rig_worker w[2];
    struct rig_worker *all[2] = {&w[0], &w[1]};
    struct tap taps[2];
    struct rig_pipe p;
    struct rig_result r;
    struct model *m = NULL;
    struct stage *front = NULL;
    static float hidden[TOKENS * 1024];
    float logits[RIG_VOCABULARY];
    uint32_t pages[RIG_PAGES], width;
    struct stage_options o = {.last_block = RIG_BLOCKS / 2 - 1, .kv_pages = RIG_PAGES, .max_tokens = 64,
                              .max_context = RIG_CONTEXT};
    for (uint32_t i = 0; i < RIG_PAGES; i++)
        pages[i] = i;
    struct batch_span span = {.count = TOKENS, .tokens = tokens, .pages = pages};
    REQUIRE(compute_here(TOKENS, logits, NULL) && !model_open(rig.model_path, &m, NULL));
    width = model_info(m)->width;
    REQUIRE(width <= 1024 && !stage_create(m, &o, &front, NULL));
    CHECK_INT(stage_forward(front, &span, 1, NULL, hidden, NULL, NULL), 0);
    FINE(rig_start(&rig, &w[0], "front", NULL));
    FINE(rig_start(&rig, &w[1], "back", NULL));
    for (int i = 0; i < 2; i++) {
        FINE(rig_claim(&rig, &w[i]));
        REQUIRE(tap_start(&taps[i], w[i].data_port));
        w[i].data_port = taps[i].port; /* the plan sends everyone through the proxy */
    }
    FINE(rig_pipe_open(&rig, all, 2, 1, CODEC_F32, &p));
    struct rig_span s = {.sequence = 1, .count = TOKENS, .want = 2, .tokens = tokens};
    CHECK_INT(rig_feed(&p, &s, 1, false), 0);
    REQUIRE(rig_result(&p, &r, 10000));
    REQUIRE(r.frame.result.span_count == 1 && r.frame.result.spans[0].float_count == RIG_VOCABULARY);
    CHECK(!memcmp(r.frame.result.spans[0].floats, logits, sizeof logits));
    rig_result_free(&r);
    CHECK(tap_size(&taps[0], 0) > sizeof(int32_t) * TOKENS);
    CHECK(tap_size(&taps[1], 0) > sizeof(float) * TOKENS * width && tap_size(&taps[1], 1) > sizeof logits);
    for (int i = 0; i < 2; i++) {
        for (uint32_t t = 0; t + 4 <= TOKENS; t += 4)
            CHECK(!tap_saw(&taps[i], tokens + t, 16));
        for (uint32_t k = 0; k + 2 <= TOKENS * width; k += 61)
            CHECK(!tap_saw(&taps[i], hidden + k, 8));
        for (uint32_t k = 0; k + 2 <= RIG_VOCABULARY; k += 2)
            CHECK(!tap_saw(&taps[i], logits + k, 8));
    }
    tap_record(&taps[1], 0, (const unsigned char *)hidden, sizeof(float) * TOKENS * width);
    CHECK(tap_saw(&taps[1], hidden + 61, 8)); /* the same look finds them in the plain bytes */
    rig_pipe_close(&p);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(rig_stop(&w[i], 5000), 0);
        tap_stop(&taps[i]);
    }
    stage_destroy(front);
    model_close(m);
}

/* A stage that computes for a second answers heartbeats all the while. */
static void heartbeats_do_not_wait_for_work(void)
{
    struct rig_worker w;
    struct rig_worker *all[1] = {&w};
    struct rig_pipe p;
    struct rig_result r;
    struct control_message m, beat = {.kind = CONTROL_HEARTBEAT};
    /* where programs are slow by themselves (check_step), less is enough */
    setenv("BRIGADE_TEST_SLOWDOWN", check_step() > 1 ? "30" : "250", 1);
    const char *wrong = rig_start(&rig, &w, "slow", NULL);
    unsetenv("BRIGADE_TEST_SLOWDOWN");
    FINE(wrong);
    CHECK_INT(rig_logged(&w, "BRIGADE_TEST_SLOWDOWN"), 1);
    FINE(rig_claim(&rig, &w));
    FINE(rig_pipe_open(&rig, all, 1, 1, CODEC_F32, &p));
    for (uint32_t i = 0; i < 4; i++) {
        struct rig_span s = {.sequence = i, .count = 60, .want = 2, .tokens = tokens, .base_page = 2 * i};
        CHECK_INT(rig_feed(&p, &s, 1, true), 0);
    }
    int64_t start = clock_us();
    uint64_t done = 0;
    unsigned beats = 0;
    do {
        beat.u.heartbeat.sequence++;
        CHECK_INT(rig_say(w.control, &beat), 0);
        REQUIRE(rig_hear(w.control, 0, CONTROL_HEARTBEAT_REPLY, &m, 5000));
        done = m.u.heartbeat_reply.microbatches;
        beats++;
    } while (done < 4 && clock_us() - start < 60000000);
    CHECK_INT(done, 4);
    CHECK(beats > 20); /* a worker that answers between micro-batches would have five */
    for (int i = 0; i < 4; i++) {
        REQUIRE(rig_result(&p, &r, 5000));
        CHECK(r.frame.result.trace_count == 1 &&
              r.frame.result.trace[0].finished_us - r.frame.result.trace[0].started_us > 2000);
        rig_result_free(&r);
    }
    rig_pipe_close(&p);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

static const struct check_test tests[] = {
    {"pipes compute what one process does", pipes_compute_what_one_process_does},
    {"bad frames disturb nobody", bad_frames_disturb_nobody},
    {"stages know their neighbours", stages_know_their_neighbours},
    {"a killed worker is noticed", a_killed_worker_is_noticed},
    {"a signal drains", a_signal_drains},
    {"the pipe shows nothing", the_pipe_shows_nothing},
    {"heartbeats do not wait for work", heartbeats_do_not_wait_for_work},
};

int main(int argc, char **argv)
{
    return rig_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
