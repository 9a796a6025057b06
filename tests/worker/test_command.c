/* Real brigade-worker processes on loopback: who may command them, and what they agree to load. */
#include "tests/check.h"

#include "base/clock.h"
#include "tests/worker/rig_main.h"

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
    for (int64_t end = clock_ms() + check_patience_ms(); link_state(l, NULL, 0) != LINK_REFUSED && clock_ms() < end;)
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
        CHECK_INT(link_send(w.control, NULL, &(struct frame_part){"nonsense", 8}, 1, NULL), 0);
    REQUIRE(rig_hear(w.control, 0, CONTROL_FAILURE, &m, 5000));
    CHECK_INT(m.u.failure.code, ERR_FORMAT);
    struct buffer b = {0};
    CHECK_INT(control_encode(&hello, &b, NULL), 0);
    b.data[1] = 9;
    CHECK_INT(link_send(w.control, NULL, &(struct frame_part){b.data, b.size}, 1, NULL), 0);
    buffer_free(&b);
    do
        REQUIRE(rig_hear(w.control, 0, CONTROL_FAILURE, &m, 5000));
    while (m.u.failure.code == ERR_FORMAT);
    CHECK_INT(m.u.failure.code, ERR_VERSION);
    CHECK(strstr(m.u.failure.text, "version 9") && strstr(m.u.failure.text, "version 3"));
    CHECK_INT(rig_logged(&w, "further ones are only counted"), 1);
    REQUIRE(rig_ask(w.control, &hello, &m, 5000)); /* undisturbed */
    CHECK_INT(m.kind, CONTROL_WELCOME);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

/* The data plane is for the plan's nodes: nobody before the first Allow, and nobody else after it. */
static void peers_outside_the_plan_are_refused(void)
{
    struct rig_worker w;
    struct rig_worker *all[1] = {&w};
    struct node_key *key = NULL;
    struct hub *hub = NULL;
    struct link *ours = NULL, *theirs = NULL;
    char endpoint[64];
    bool ready[2];
    FINE(rig_start(&rig, &w, "planned", NULL));
    FINE(rig_claim(&rig, &w));
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", w.data_port);
    REQUIRE(!key_generate(&key, NULL) && !hub_create(key, &hub, NULL));
    REQUIRE(!link_connect(rig.hub, PLANE_DATA, endpoint, w.key, &ours, NULL));
    REQUIRE(!link_connect(hub, PLANE_DATA, endpoint, w.key, &theirs, NULL));
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && link_state(ours, NULL, 0) != LINK_REFUSED;)
        link_wait(&ours, 1, NULL, 10, ready);
    CHECK_INT(link_state(ours, NULL, 0), LINK_REFUSED);
    FINE(rig_allow(&rig, all, 1));
    struct link *both[2] = {ours, theirs};
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && link_state(ours, NULL, 0) != LINK_UP;)
        link_wait(both, 2, NULL, 10, ready);
    CHECK_INT(link_state(ours, NULL, 0), LINK_UP);
    for (int i = 0; i < 20; i++)
        link_wait(both, 2, NULL, 20, ready);
    CHECK_INT(link_state(theirs, NULL, 0), LINK_REFUSED);
    CHECK_INT(rig_logged(&w, "no neighbour in the plan"), 2); /* each key once: ours before it was in */
    link_close(ours, 0);
    link_close(theirs, 0);
    hub_destroy(hub);
    key_free(key);
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
    uint64_t all = reply.u.loaded.read_bytes;
    CHECK(all > 0);
    expect_refusal(&w, good, ERR_ORDER, "not newer");
    /* The same blocks in a newer epoch: nothing is read. */
    good.epoch = 6;
    REQUIRE(rig_ask(w.control, &good, &reply, 10000));
    CHECK_INT(reply.kind, CONTROL_LOADED);
    CHECK_INT(reply.u.loaded.read_bytes, 0);
    CHECK_INT(rig_logged(&w, " read in "), 1);
    CHECK_INT(rig_logged(&w, ", kept in "), 1);
    struct control_message hello = {.kind = CONTROL_HELLO};
    REQUIRE(rig_ask(w.control, &hello, &reply, 5000));
    CHECK(reply.u.welcome.has_loaded && reply.u.welcome.epoch == 6);
    CHECK_INT(reply.u.welcome.loaded.last_block, RIG_BLOCKS - 1);
    CHECK_TEXT(reply.u.welcome.loaded.model, RIG_MODEL);
    /* Other pages: another cache, the same weights. */
    good.epoch = 7;
    good.u.load.kv_pages++;
    REQUIRE(rig_ask(w.control, &good, &reply, 10000));
    CHECK_INT(reply.u.loaded.read_bytes, 0);
    /* Other bounds: only what is missing is read, what is not needed goes. */
    struct control_message part = rig_load_message(&rig, 8, 1, RIG_BLOCKS - 1, 1, 2);
    uint64_t weights = reply.u.loaded.weights_bytes;
    REQUIRE(rig_ask(w.control, &part, &reply, 10000));
    CHECK_INT(reply.kind, CONTROL_LOADED);
    CHECK_INT(reply.u.loaded.read_bytes, 0);
    CHECK(reply.u.loaded.weights_bytes < weights && !reply.u.loaded.embedding_bytes);
    good.epoch = 9;
    REQUIRE(rig_ask(w.control, &good, &reply, 10000));
    CHECK(reply.u.loaded.read_bytes > 0 && reply.u.loaded.read_bytes < all);
    CHECK_INT(reply.u.loaded.weights_bytes, weights);
    CHECK_INT(rig_stop(&w, 5000), 0);
}

static void bad_usage_is_one_line(void)
{
    char said[8192];
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
    {"peers outside the plan are refused", peers_outside_the_plan_are_refused},
    {"one coordinator commands", one_coordinator_commands},
    {"what cannot be is not loaded", what_cannot_be_is_not_loaded},
    {"bad usage is one line", bad_usage_is_one_line},
};

int main(int argc, char **argv)
{
    return rig_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
