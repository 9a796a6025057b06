/* The worker's pure parts: what a session does with each frame, who may command, what options mean. */
#include "tests/check.h"

#include <unistd.h>

#include "worker/claim.h"
#include "worker/options.h"
#include "worker/session.h"

#define KEY_A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define KEY_B "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define KEY_C "0000000000000000000000000000000000000000"

static struct link_peer peer(const char *key, uint8_t id)
{
    struct link_peer p = {.size = 5, .id = {0, id}};
    snprintf(p.public_key, sizeof p.public_key, "%s", key);
    return p;
}

/* Stage `stage` of three: A feeds, C coordinates. */
static struct session session(uint32_t stage)
{
    struct session s = {0};
    struct control_message load = {.kind = CONTROL_LOAD, .epoch = 7};
    load.u.load.stage = stage;
    load.u.load.stages = 3;
    load.u.load.max_tokens = 8;
    strcpy(load.u.load.previous_key, KEY_A);
    strcpy(load.u.load.coordinator_key, KEY_C);
    session_start(&s, &load, 64);
    return s;
}

static struct data_frame work(uint64_t epoch, uint64_t microbatch, uint32_t tokens, enum frame_codec codec,
                              uint32_t width)
{
    return (struct data_frame){.kind = DATA_WORK, .epoch = epoch, .microbatch = microbatch,
                               .work = {.epoch = epoch, .microbatch = microbatch, .tokens = tokens, .codec = codec,
                                        .width = width}};
}

static struct data_frame attach(uint64_t epoch, uint32_t role)
{
    return (struct data_frame){.kind = DATA_ATTACH, .epoch = epoch, .role = role};
}

static int verdict(struct session *s, const struct link_peer *from, struct data_frame f)
{
    struct error why = {0};
    enum session_verdict v = session_receive(s, from, &f, &why);
    if ((v == SESSION_REFUSE || v == SESSION_FAIL) != (*why.text != 0))
        CHECK_FAIL("verdict %d says \"%s\"", (int)v, why.text);
    return v;
}

static void work_is_judged(void)
{
    struct session s = session(1), none = {0}, first = session(0);
    struct link_peer a = peer(KEY_A, 1), b = peer(KEY_B, 2);
    CHECK_INT(verdict(&none, &a, work(7, 1, 1, CODEC_F32, 64)), SESSION_STALE);
    CHECK_INT(verdict(&s, &a, work(6, 1, 1, CODEC_F32, 64)), SESSION_STALE);
    CHECK_INT(verdict(&s, &a, work(8, 1, 1, CODEC_F32, 64)), SESSION_STALE);
    CHECK_INT(verdict(&s, &b, work(7, 1, 1, CODEC_F32, 64)), SESSION_REFUSE);
    CHECK_INT(verdict(&s, &a, work(7, 1, 1, CODEC_F32, 64)), SESSION_COMPUTE);
    CHECK_INT(verdict(&s, &a, work(7, 1, 1, CODEC_F32, 64)), SESSION_REFUSE); /* once more */
    CHECK_INT(verdict(&s, &a, work(7, 5, 1, CODEC_Q8, 64)), SESSION_COMPUTE);
    CHECK_INT(verdict(&s, &a, work(7, 4, 1, CODEC_F32, 64)), SESSION_REFUSE); /* late */
    CHECK_INT(verdict(&s, &a, work(7, 6, 1, CODEC_F32, 65)), SESSION_FAIL);
    CHECK_INT(verdict(&s, &a, work(7, 7, 1, CODEC_NONE, 0)), SESSION_FAIL);
    CHECK_INT(verdict(&s, &a, work(7, 8, 9, CODEC_F32, 64)), SESSION_FAIL);
    CHECK_INT(verdict(&s, &a, work(7, 9, 0, CODEC_NONE, 0)), SESSION_COMPUTE); /* only releases */
    CHECK_INT(verdict(&first, &a, work(7, 1, 8, CODEC_NONE, 0)), SESSION_COMPUTE);
    CHECK_INT(verdict(&first, &a, work(7, 2, 8, CODEC_F32, 64)), SESSION_FAIL);
    session_end(&s);
    CHECK(!s.active && s.epoch == 7);
    CHECK_INT(verdict(&s, &a, work(7, 10, 1, CODEC_F32, 64)), SESSION_STALE);
    CHECK_INT(verdict(&none, &b, (struct data_frame){.kind = DATA_ECHO}), SESSION_ECHO);
    CHECK_INT(verdict(&first, &a, (struct data_frame){.kind = DATA_RESULT}), SESSION_REFUSE);
    CHECK_INT(verdict(&first, &a, (struct data_frame){.kind = DATA_ATTACHED}), SESSION_REFUSE);
}

static void the_pipe_is_greeted_from_its_end(void)
{
    struct session middle = session(1), last = session(2);
    struct link_peer a = peer(KEY_A, 1), b = peer(KEY_B, 2), c = peer(KEY_C, 3);
    CHECK_INT(verdict(&middle, &a, attach(6, 1)), SESSION_STALE);
    CHECK_INT(verdict(&middle, &b, attach(7, 1)), SESSION_REFUSE);
    CHECK_INT(verdict(&middle, &c, attach(7, 2)), SESSION_REFUSE); /* no results here */
    CHECK_INT(verdict(&middle, &a, attach(7, 1)), SESSION_WAIT);
    struct data_frame answer = {.kind = DATA_ATTACHED, .epoch = 6};
    CHECK(!session_next(&middle, &answer));
    answer.epoch = 7;
    CHECK(session_next(&middle, &answer));
    CHECK_INT(middle.feed.id[1], 1);
    CHECK(!session_next(&middle, &answer)); /* once */
    CHECK_INT(verdict(&middle, &a, attach(7, 1)), SESSION_GREET);
    CHECK_INT(verdict(&last, &a, attach(7, 1)), SESSION_GREET);
    CHECK_INT(verdict(&last, &a, attach(7, 2)), SESSION_REFUSE);
    CHECK(!last.has_receiver);
    CHECK_INT(verdict(&last, &c, attach(7, 2)), SESSION_GREET);
    CHECK(last.has_receiver && last.receiver.id[1] == 3);
}

static void one_commands_at_a_time(void)
{
    struct claim c = {0};
    struct error err = {0};
    struct link_peer a = peer(KEY_A, 1), b = peer(KEY_B, 2), again = peer(KEY_A, 9);
    CHECK(!claim_is(&c, &a));
    CHECK_INT(claim_ask(&c, &a, false, false, 1000, &err), 0);
    CHECK(claim_is(&c, &a) && !claim_is(&c, &b) && !claim_is(&c, &again));
    CHECK_INT(claim_ask(&c, &b, false, false, 1500, &err), ERR_BUSY);
    CHECK(strstr(err.text, KEY_A) && claim_is(&c, &a));
    CHECK_INT(claim_ask(&c, &again, false, false, 1500, &err), ERR_BUSY); /* the same key, another coordinator */
    CHECK_INT(claim_ask(&c, &a, false, false, 1500, &err), 0);
    claim_seen(&c, &b, 9000); /* the looker's heartbeats refresh nothing */
    claim_seen(&c, &a, 4000);
    CHECK_INT(claim_ask(&c, &b, false, false, 4000 + CLAIM_LIVE_MS - 1, &err), ERR_BUSY);
    CHECK_INT(claim_ask(&c, &b, false, false, 4000 + CLAIM_LIVE_MS, &err), 0);
    CHECK(claim_is(&c, &b) && !claim_is(&c, &a));
    CHECK_INT(claim_ask(&c, &a, true, false, 7001, &err), 0);
    CHECK_INT(claim_ask(&c, &again, false, true, 7002, &err), 0); /* the old connection is gone: at once */
    CHECK(claim_is(&c, &again));
}

static int read_words(struct worker_options *o, struct error *err, int count, const char **words)
{
    return (int)worker_options_read(count, (char **)(uintptr_t)words, o, err);
}

#define WORDS(...) (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[]){__VA_ARGS__}
#define LEAST "w", "--listen", "tcp://0.0.0.0:7700", "--key", "k", "--allow", KEY_A

static void flags_are_read(void)
{
    struct worker_options o;
    struct error err = {0};
    char endpoint[300];
    CHECK_INT(read_words(&o, &err, WORDS(LEAST, "--allow", KEY_B, "--name", "pi", "--models", "/a", "--models=/b",
                                         "--cache", "/c", "--memory", "3G", "--threads", "4")), WORKER_RUN);
    CHECK_TEXT(o.listen, "tcp://0.0.0.0:7700");
    CHECK_TEXT(o.name, "pi");
    CHECK(o.allow_count == 2 && o.model_count == 2 && o.threads == 4 && o.memory_bytes == UINT64_C(3) << 30);
    CHECK_TEXT(o.models[1], "/b");
    CHECK_TEXT(o.cache_path, "/c");
    CHECK_INT(worker_data_endpoint(&o, 7700, endpoint, sizeof endpoint, &err), 0);
    CHECK_TEXT(endpoint, "tcp://0.0.0.0:7701");
    worker_options_free(&o);
    CHECK_INT(read_words(&o, &err, WORDS("w", "--listen", "tcp://127.0.0.1:*", "--key", "k", "--allow", KEY_A,
                                         "--threads", "auto")), WORKER_RUN);
    CHECK(o.threads == 0 && *o.name && o.model_count == 1);
    CHECK_INT(worker_data_endpoint(&o, 40000, endpoint, sizeof endpoint, &err), 0);
    CHECK_TEXT(endpoint, "tcp://127.0.0.1:*");
    worker_options_free(&o);
    CHECK_INT(read_words(&o, &err, WORDS(LEAST, "--data-port", "9000")), WORKER_RUN);
    CHECK_INT(worker_data_endpoint(&o, 7700, endpoint, sizeof endpoint, &err), 0);
    CHECK_TEXT(endpoint, "tcp://0.0.0.0:9000");
    worker_options_free(&o);
    static const struct { const char *option, *value; } wrong[] = {
        {"--memory", "3X"}, {"--memory", "0"},       {"--threads", "0"}, {"--threads", "many"}, {"--allow", "short"},
        {"--port", "1"},    {"--listen", "0.0.0.0"}, {"--listen", "tcp://x"}, {"--data-port", "70000"},
        {"--name", "a\nb"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        *err.text = 0;
        CHECK_INT(read_words(&o, &err, WORDS(LEAST, wrong[i].option, wrong[i].value)), WORKER_EXIT_USAGE);
        CHECK(*err.text);
        worker_options_free(&o);
    }
    CHECK_INT(read_words(&o, &err, WORDS("w", "--listen", "tcp://0.0.0.0:1", "--key", "k")), WORKER_EXIT_USAGE);
    CHECK(strstr(err.text, "--allow"));
    worker_options_free(&o);
    CHECK_INT(read_words(&o, &err, WORDS(LEAST, "--name")), WORKER_EXIT_USAGE);
    worker_options_free(&o);
}

static void the_file_says_the_same(void)
{
    char path[] = "/tmp/brigade-worker-yaml-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fputs("version: 1\nlisten: tcp://10.0.0.1:7700\nkey: node.key\nallow: [\"" KEY_A "\", \"" KEY_B "\"]\n"
          "name: from-file\nmodels: [models, /srv/models]\ncache: cache\nmemory: 2G\nthreads: auto\n"
          "data_port: 7800\n", f);
    fclose(f);
    struct worker_options o;
    struct error err = {0};
    CHECK_INT(read_words(&o, &err, WORDS("w", "--config", path, "--name", "from-flag")), WORKER_RUN);
    CHECK_TEXT(err.text, "");
    CHECK_TEXT(o.name, "from-flag");
    CHECK_TEXT(o.listen, "tcp://10.0.0.1:7700");
    CHECK_TEXT(o.key_path, "/tmp/node.key"); /* beside the file */
    CHECK_TEXT(o.models[0], "/tmp/models");
    CHECK_TEXT(o.models[1], "/srv/models");
    CHECK(o.allow_count == 2 && o.memory_bytes == UINT64_C(2) << 30 && o.data_port == 7800 && o.threads == 0);
    worker_options_free(&o);
    static const struct { const char *text, *line; } wrong[] = {
        {"listen: tcp://1.1.1.1:1\nlisen: x\n", ":2"},
        {"memory: lots\n", ":1"},
        {"name: a\nallow:\n  - short\n", ":3"},
        {"threads: -2\n", ":1"},
        {"version: 2\n", ":1"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        f = fopen(path, "w");
        fputs(wrong[i].text, f);
        fclose(f);
        CHECK_INT(read_words(&o, &err, WORDS("w", "--config", path)), WORKER_EXIT_ERROR);
        CHECK(strstr(err.text, path) && strstr(err.text, wrong[i].line));
        worker_options_free(&o);
    }
    unlink(path);
}

static const struct check_test tests[] = {
    {"work is judged", work_is_judged},
    {"the pipe is greeted from its end", the_pipe_is_greeted_from_its_end},
    {"one commands at a time", one_commands_at_a_time},
    {"flags are read", flags_are_read},
    {"the file says the same", the_file_says_the_same},
};

CHECK_MAIN(tests)
