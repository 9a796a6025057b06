/* Real brigade-worker processes on loopback: who may command them, what they load, that they compute what this process
 * computes, and what becomes of everything that should not have been sent. */
#include "tests/check.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "engine/model/local.h"
#include "tests/engine/model_builder.h"
#include "tests/worker/rig.h"

static struct rig rig;

#define FINE(call)                                                                                                    \
    do {                                                                                                              \
        const char *wrong_ = (call);                                                                                  \
        if (wrong_) {                                                                                                 \
            CHECK_FAIL("%s", wrong_);                                                                                 \
            return;                                                                                                   \
        }                                                                                                             \
    } while (0)

/* ---- Control plane ----------------------------------------------------------------------------------------------- */

static void a_worker_says_who_it_is(void)
{
    struct rig_worker w;
    FINE(rig_start(&rig, &w, "alone", (const char *[]){"--memory", "256M", NULL}));
    struct error err = {0};
    REQUIRE(!link_connect(rig.hub, PLANE_CONTROL, w.endpoint, w.key, &w.control, &err));
    struct control_message hello = {.kind = CONTROL_HELLO}, m;
    REQUIRE(rig_ask(w.control, &hello, &m, 5000));
    CHECK_INT(m.kind, CONTROL_WELCOME);
    CHECK_TEXT(m.u.welcome.name, "alone");
    CHECK_TEXT(m.u.welcome.program_version, BRIGADE_VERSION);
    CHECK_TEXT(m.u.welcome.isa, kernels_isa());
    CHECK_INT(m.u.welcome.memory_bytes, 256 << 20);
    CHECK(m.u.welcome.data_port > 0 && m.u.welcome.cores > 0 && !m.u.welcome.claimed && !m.u.welcome.has_loaded);
    CHECK_INT(m.u.welcome.kernels_version, kernels_version());
    /* Looking is free; commanding is not. */
    struct control_message unload = {.kind = CONTROL_UNLOAD};
    REQUIRE(rig_ask(w.control, &unload, &m, 5000));
    CHECK(m.kind == CONTROL_FAILURE && m.u.failure.code == ERR_AUTH);
    struct control_message beat = {.kind = CONTROL_HEARTBEAT, .request = 7};
    beat.u.heartbeat.sequence = 3;
    beat.u.heartbeat.sent_us = 12345;
    CHECK_INT(rig_say(w.control, &beat), 0);
    REQUIRE(rig_hear(w.control, 7, 0, &m, 5000));
    CHECK(m.kind == CONTROL_HEARTBEAT_REPLY && m.u.heartbeat_reply.sequence == 3 &&
          m.u.heartbeat_reply.sent_us == 12345 && m.u.heartbeat_reply.resident_bytes > 1 << 20);
    FINE(rig_claim(&rig, &w));
    REQUIRE(rig_ask(w.control, &unload, &m, 5000));
    CHECK_INT(m.kind, CONTROL_DONE);
    struct control_message strange = {.kind = CONTROL_PROGRESS};
    REQUIRE(rig_ask(w.control, &strange, &m, 5000));
    CHECK(m.kind == CONTROL_FAILURE && m.u.failure.code == ERR_FORMAT);
    CHECK_INT(rig_logged(&w, "256 MiB admitted"), 1);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

static void strangers_and_nonsense_are_refused(void)
{
    struct rig_worker w;
    struct node_key *key = NULL;
    struct hub *hub = NULL;
    struct link *l = NULL;
    FINE(rig_start(&rig, &w, "guarded", NULL));
    FINE(rig_claim(&rig, &w));
    REQUIRE(!key_generate(&key, NULL) && !hub_create(key, &hub, NULL));
    REQUIRE(!link_connect(hub, PLANE_CONTROL, w.endpoint, w.key, &l, NULL));
    bool ready;
    for (int64_t end = clock_ms() + 3000; link_state(l, NULL, 0) != LINK_REFUSED && clock_ms() < end;)
        link_wait(&l, 1, NULL, 10, &ready);
    CHECK_INT(link_state(l, NULL, 0), LINK_REFUSED);
    for (int i = 0; i < 20; i++)
        link_wait(&l, 1, NULL, 20, &ready); /* it tries again and again */
    CHECK_INT(rig_logged(&w, "is not allowed here"), 1);
    link_close(l, 0);
    hub_destroy(hub);
    key_free(key);
    /* From the allowed coordinator: bytes that are no message, and a message of another version. */
    struct control_message m, hello = {.kind = CONTROL_HELLO};
    for (int i = 0; i < 5; i++)
        CHECK_INT(link_send(w.control, NULL, &(struct link_part){"nonsense", 8}, 1, NULL), 0);
    REQUIRE(rig_hear(w.control, 0, CONTROL_FAILURE, &m, 5000));
    CHECK_INT(m.u.failure.code, ERR_FORMAT);
    struct buffer b = {0};
    CHECK_INT(control_encode(&hello, &b, NULL), 0);
    b.data[1] = 9;
    CHECK_INT(link_send(w.control, NULL, &(struct link_part){b.data, b.size}, 1, NULL), 0);
    buffer_free(&b);
    do
        REQUIRE(rig_hear(w.control, 0, CONTROL_FAILURE, &m, 5000));
    while (m.u.failure.code == ERR_FORMAT);
    CHECK_INT(m.u.failure.code, ERR_VERSION);
    CHECK(strstr(m.u.failure.text, "version 9") && strstr(m.u.failure.text, "version 1"));
    CHECK_INT(rig_logged(&w, "further ones are only counted"), 1);
    REQUIRE(rig_ask(w.control, &hello, &m, 5000)); /* undisturbed */
    CHECK_INT(m.kind, CONTROL_WELCOME);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

static void one_coordinator_commands(void)
{
    struct rig_worker w, view;
    FINE(rig_start(&rig, &w, "wanted", NULL));
    FINE(rig_claim(&rig, &w));
    view = w;
    view.control = NULL;
    struct error err = {0};
    REQUIRE(!link_connect(rig.hub, PLANE_CONTROL, w.endpoint, w.key, &view.control, &err));
    struct control_message hello = {.kind = CONTROL_HELLO}, m, beat = {.kind = CONTROL_HEARTBEAT};
    hello.u.hello.claim = true;
    CHECK_INT(rig_say(w.control, &beat), 0);
    REQUIRE(rig_hear(w.control, 0, CONTROL_HEARTBEAT_REPLY, &m, 5000));
    REQUIRE(rig_ask(view.control, &hello, &m, 5000));
    CHECK(m.kind == CONTROL_FAILURE && m.u.failure.code == ERR_BUSY);
    CHECK(strstr(m.u.failure.text, key_public_text(rig.key))); /* who has it */
    hello.u.hello.take_over = true;
    REQUIRE(rig_ask(view.control, &hello, &m, 5000));
    CHECK(m.kind == CONTROL_WELCOME && m.u.welcome.claimed);
    struct control_message unload = {.kind = CONTROL_UNLOAD};
    REQUIRE(rig_ask(w.control, &unload, &m, 5000));
    CHECK(m.kind == CONTROL_FAILURE && m.u.failure.code == ERR_AUTH);
    /* The claimant goes away: the next one need not wait three seconds. */
    link_close(view.control, 0);
    hello.u.hello.take_over = false;
    int64_t start = clock_ms();
    bool claimed = false;
    while (!claimed && clock_ms() - start < 2500) {
        REQUIRE(rig_ask(w.control, &hello, &m, 5000));
        claimed = m.kind == CONTROL_WELCOME && m.u.welcome.claimed;
    }
    CHECK(claimed);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

static void expect_refusal(struct rig_worker *w, struct control_message load, int code, const char *text)
{
    struct control_message m;
    if (!rig_ask(w->control, &load, &m, 10000)) {
        CHECK_FAIL("no answer (wanted \"%s\")", text);
        return;
    }
    if (m.kind != CONTROL_FAILURE || m.u.failure.code != code || !strstr(m.u.failure.text, text))
        CHECK_FAIL("%s %d \"%s\", wanted %d \"%s\"", control_kind_name(m.kind), m.u.failure.code, m.u.failure.text,
                   code, text);
}

static void what_cannot_be_is_not_loaded(void)
{
    struct rig_worker w;
    FINE(rig_start(&rig, &w, "strict", (const char *[]){"--memory", "8M", NULL}));
    FINE(rig_claim(&rig, &w));
    struct control_message good = rig_load_message(&rig, 5, 0, RIG_BLOCKS - 1, 0, 1), m = good, reply;
    static const char *const names[] = {"../rig.gguf", "/etc/passwd", "..", "", ".hidden"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        strcpy(m.u.load.model, names[i]);
        expect_refusal(&w, m, ERR_USAGE, "no file name in a model folder");
    }
    strcpy(m.u.load.model, "other.gguf");
    expect_refusal(&w, m, ERR_NOTFOUND, "none of the 1 model folders");
    strcpy(m.u.load.model, "coordinator.key"); /* there, but no model */
    expect_refusal(&w, m, ERR_FORMAT, "coordinator.key");
    m = good;
    m.u.load.fingerprint ^= 1;
    expect_refusal(&w, m, ERR_FORMAT, "another file");
    m = good;
    m.u.load.last_block = RIG_BLOCKS;
    expect_refusal(&w, m, ERR_FORMAT, "cannot hold blocks");
    m = good;
    m.u.load.first_block = 1;
    expect_refusal(&w, m, ERR_FORMAT, "cannot hold blocks");
    m = good;
    m.u.load.kv_type = 9;
    expect_refusal(&w, m, ERR_BOUND, "out of range");
    m = good;
    m.u.load.max_tokens = 0;
    expect_refusal(&w, m, ERR_BOUND, "out of range");
    m = good;
    m.u.load.kv_pages = 40000;
    expect_refusal(&w, m, ERR_MEMORY, "but 8.0 MiB are admitted here");
    expect_refusal(&w, m, ERR_MEMORY, "+ cache ");
    REQUIRE(rig_ask(w.control, &good, &reply, 10000));
    CHECK_INT(reply.kind, CONTROL_LOADED);
    CHECK(reply.u.loaded.weights_bytes && reply.u.loaded.embedding_bytes && reply.u.loaded.head_bytes &&
          reply.u.loaded.kv_bytes && reply.u.loaded.buffers_bytes);
    CHECK_INT(reply.u.loaded.total_bytes, reply.u.loaded.weights_bytes + reply.u.loaded.embedding_bytes +
                                              reply.u.loaded.head_bytes + reply.u.loaded.kv_bytes +
                                              reply.u.loaded.buffers_bytes);
    expect_refusal(&w, good, ERR_ORDER, "not newer");
    /* The same blocks in a newer epoch: nothing is read. Other pages: it is loaded anew. */
    good.epoch = 6;
    REQUIRE(rig_ask(w.control, &good, &reply, 10000));
    CHECK_INT(reply.kind, CONTROL_LOADED);
    CHECK_INT(rig_logged(&w, ", loaded in "), 1);
    CHECK_INT(rig_logged(&w, ", kept in "), 1);
    struct control_message hello = {.kind = CONTROL_HELLO};
    REQUIRE(rig_ask(w.control, &hello, &reply, 5000));
    CHECK(reply.u.welcome.has_loaded && reply.u.welcome.epoch == 6);
    CHECK_INT(reply.u.welcome.loaded.last_block, RIG_BLOCKS - 1);
    CHECK_TEXT(reply.u.welcome.loaded.model, RIG_MODEL);
    good.epoch = 7;
    good.u.load.kv_pages++;
    REQUIRE(rig_ask(w.control, &good, &reply, 10000));
    CHECK_INT(rig_logged(&w, ", loaded in "), 2);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

/* ---- Work -------------------------------------------------------------------------------------------------------- */

#define TOKENS 40u

static int32_t tokens[RIG_CONTEXT];

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
    CHECK_INT(rig_logged(&w[1], ", kept in "), 3);
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
        struct link_part parts[3] = {{junk, size}, {junk, size / 2}, {junk, size / 3}};
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
           clock_ms() - start < 3000)
        link_wait(links, 3, NULL, 10, ready);
    CHECK(clock_ms() - start < 1000);
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

/* ---- Measuring --------------------------------------------------------------------------------------------------- */

static int files_in(const char *folder)
{
    DIR *d = opendir(folder);
    int count = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        count += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return count;
}

static void damage_files_in(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r+b");
        if (!f)
            continue;
        fseek(f, 60, SEEK_SET);
        fputc('x', f);
        fclose(f);
    }
    if (d)
        closedir(d);
}

static void a_device_is_profiled_once(void)
{
    struct rig_worker w;
    char cache[128];
    snprintf(cache, sizeof cache, "%s/cache", rig.folder);
    struct control_message m, probe = {.kind = CONTROL_PROBE};
    strcpy(probe.u.probe.model, RIG_MODEL);
    probe.u.probe.fingerprint = rig.fingerprint;
    probe.u.probe.context = 128;
    probe.u.probe.chunk = 32;
    for (int round = 0; round < 4; round++) {
        FINE(rig_start(&rig, &w, "measured", (const char *[]){"--cache", cache, NULL}));
        FINE(rig_claim(&rig, &w));
        for (int again = 0; again < 2; again++) {
            REQUIRE(rig_ask(w.control, &probe, &m, 30000));
            REQUIRE(m.kind == CONTROL_PROFILE);
            CHECK_INT(m.u.profile.cached, again || round == 1 || round == 3);
            CHECK(m.u.profile.read_bytes_per_s > 1e8 && m.u.profile.int8_macs_per_s > 1e8);
            CHECK(m.u.profile.head_seconds > 0 && m.u.profile.overhead_seconds > 0);
            CHECK(m.u.profile.embedding_seconds > 0);
            CHECK(m.u.profile.cell_count >= 8); /* 14, unless this machine is too busy for its budget */
            bool decode = false, prefill = false;
            for (uint32_t i = 0; i < m.u.profile.cell_count; i++) {
                const struct control_cell *c = &m.u.profile.cells[i];
                CHECK(c->seconds > 0 && c->past + c->tokens <= 128);
                decode |= c->tokens == 1 && c->sequences == 1;
                prefill |= c->tokens == 32 && c->sequences == 1;
            }
            CHECK(decode && prefill);
            control_free(&m);
        }
        CHECK_INT(files_in(cache), 1);
        if (round == 1)
            damage_files_in(cache);
        CHECK_INT(rig_logged(&w, "is damaged"), round == 2);
        CHECK_INT(rig_stop(&w, 5000), 0);
    }
}

static void links_are_measured_and_heartbeats_go_on(void)
{
    struct rig_worker w[2];
    struct rig_worker *all[2] = {&w[0], &w[1]};
    struct control_message m, probe = {.kind = CONTROL_PROBE_LINK, .request = 4242}, beat = {.kind = CONTROL_HEARTBEAT};
    FINE(rig_start(&rig, &w[0], "here", NULL));
    FINE(rig_start(&rig, &w[1], "there", NULL));
    FINE(rig_claim(&rig, &w[0]));
    FINE(rig_claim(&rig, &w[1]));
    FINE(rig_allow(&rig, all, 2));
    strcpy(probe.u.probe_link.peer.name, "there");
    snprintf(probe.u.probe_link.peer.endpoint, 256, "tcp://127.0.0.1:%d", w[1].data_port);
    strcpy(probe.u.probe_link.peer.public_key, w[1].key);
    probe.u.probe_link.rounds = 200;
    probe.u.probe_link.bytes = 4 << 20;
    unsigned before = rig_beats_heard;
    CHECK_INT(rig_say(w[0].control, &probe), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(rig_say(w[0].control, &beat), 0);
        REQUIRE(rig_hear(w[0].control, 0, CONTROL_HEARTBEAT_REPLY, &m, 2000)); /* while it is measuring */
    }
    CHECK(rig_beats_heard - before >= 5);
    REQUIRE(rig_hear(w[0].control, 4242, 0, &m, 20000));
    REQUIRE(m.kind == CONTROL_LINK_MEASURED);
    CHECK_TEXT(m.u.link_measured.peer, "there");
    CHECK(m.u.link_measured.rtt_seconds > 1e-6 && m.u.link_measured.rtt_seconds < 0.5);
    CHECK(m.u.link_measured.bytes_per_s > 1e6 && m.u.link_measured.bytes_per_s < 1e12);
    /* Nobody there: a line that says why. */
    rig_stop(&w[1], 5000);
    REQUIRE(rig_ask(w[0].control, &probe, &m, 20000));
    CHECK(m.kind == CONTROL_FAILURE && strstr(m.u.failure.text, "Connection refused"));
    CHECK_INT(rig_stop(&w[0], 5000), 0);
}

/* Start, claim, load, a micro-batch, a profile: with the k-th allocation failing. Whatever does not work is told or
 * left out; the worker ends in good order: 0, or 1 with a line. */
static void any_allocation_may_fail(void)
{
    int ended[2] = {0, 0};
    for (unsigned k = 1; k < 1200; k += k < 60 ? 3 : k < 200 ? 13 : 97) {
        struct rig_worker w;
        struct rig_worker *all[1] = {&w};
        struct rig_pipe p = {0};
        struct rig_result r;
        char text[16];
        snprintf(text, sizeof text, "%u", k);
        setenv("BRIGADE_FAIL_ALLOC", text, 1); /* this process has read its own setting long ago */
        const char *wrong = rig_start(&rig, &w, "starved", NULL);
        unsetenv("BRIGADE_FAIL_ALLOC");
        rig_patience_ms = 250;
        if (!wrong && !rig_claim(&rig, &w) && !rig_pipe_open(&rig, all, 1, 1, CODEC_F32, &p)) {
            struct rig_span s = {.sequence = 1, .count = 5, .want = 2, .tokens = tokens};
            if (!rig_feed(&p, &s, 1, true) && rig_result(&p, &r, rig_patience_ms))
                rig_result_free(&r);
            struct control_message m, probe = {.kind = CONTROL_PROBE};
            strcpy(probe.u.probe.model, RIG_MODEL);
            probe.u.probe.context = 64;
            probe.u.probe.chunk = 16;
            if (rig_ask(w.control, &probe, &m, 5000))
                control_free(&m);
        }
        rig_patience_ms = 0;
        rig_pipe_close(&p);
        if (!wrong)
            kill(w.pid, SIGTERM);
        int status = rig_wait(&w, 8000);
        if (status != 0 && status != 1)
            CHECK_FAIL("allocation %u: the worker ended with %d (%s)", k, status, wrong ? wrong : "after its start");
        else
            ended[status]++;
        rig_stop(&w, 0);
    }
    CHECK(ended[0] > 5 && ended[1] > 0);
}

static void bad_usage_is_one_line(void)
{
    char said[2048];
    CHECK_INT(rig_run((const char *[]){WORKER, "--help", NULL}, said, sizeof said), 0);
    CHECK(strstr(said, "example:"));
    CHECK_INT(rig_run((const char *[]){WORKER, "--version", NULL}, said, sizeof said), 0);
    CHECK_INT(rig_run((const char *[]){WORKER, "--listen", "tcp://127.0.0.1:*", NULL}, said, sizeof said), 2);
    CHECK(strstr(said, "--key") && strchr(said, '\n') == said + strlen(said) - 1);
    CHECK_INT(rig_run((const char *[]){WORKER, "--listen", "tcp://127.0.0.1:*", "--key", "/nonexistent/k", "--allow",
                                       key_public_text(rig.key), NULL}, said, sizeof said), 1);
    CHECK(strstr(said, "keygen"));
    struct rig_worker w;
    FINE(rig_start(&rig, &w, "first", NULL));
    CHECK_INT(rig_run((const char *[]){WORKER, "--listen", w.endpoint, "--key", rig.key_path, "--allow",
                                       key_public_text(rig.key), NULL}, said, sizeof said), 1);
    CHECK(strstr(said, "already in use"));
    CHECK_INT(rig_stop(&w, 5000), 0);
}

static const struct check_test tests[] = {
    {"a worker says who it is", a_worker_says_who_it_is},
    {"strangers and nonsense are refused", strangers_and_nonsense_are_refused},
    {"one coordinator commands", one_coordinator_commands},
    {"what cannot be is not loaded", what_cannot_be_is_not_loaded},
    {"pipes compute what one process does", pipes_compute_what_one_process_does},
    {"bad frames disturb nobody", bad_frames_disturb_nobody},
    {"stages know their neighbours", stages_know_their_neighbours},
    {"a killed worker is noticed", a_killed_worker_is_noticed},
    {"a signal drains", a_signal_drains},
    {"a device is profiled once", a_device_is_profiled_once},
    {"links are measured and heartbeats go on", links_are_measured_and_heartbeats_go_on},
    {"any allocation may fail", any_allocation_may_fail},
    {"bad usage is one line", bad_usage_is_one_line},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    const char *wrong = kernels_init(&err) ? err.text : rig_open(&rig);
    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        return 1;
    }
    for (uint32_t i = 0; i < RIG_CONTEXT; i++)
        tokens[i] = model_built_token(i);
    int rc = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    rig_close(&rig);
    return rc;
}
