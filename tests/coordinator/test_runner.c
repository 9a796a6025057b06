/* The runner with the shipped model: in this process, and (with BRIGADE_WORKER, the worker program) over real worker
 * processes on loopback. Whatever computes and whoever else is served, a request gets the same tokens. */
#include "tests/check.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "coordinator/core/runner.h"
#include "engine/kernels/ops.h"
#include "planner/plan.h"

enum { TOKENS = 48, REQUESTS = 24 };

/* Where programs run many times slower: all shapes, fewer of each. A multiple of three. */
static uint32_t requests(void)
{
    return check_step() > 1 ? 9 : REQUESTS;
}

static const char *model_path(void)
{
    return getenv("BRIGADE_MODEL");
}

struct answer {
    int32_t tokens[TOKENS];
    atomic_uint count;
    atomic_uint finishes;
    enum finish_reason reason;
    struct error error;
    char text[1024];
    uint32_t crc;
    double nll;
    uint32_t scores;
};

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    struct answer *a = context;
    (void)id;
    if (a->count < TOKENS)
        a->tokens[a->count] = token->id;
    a->count++;
    strncat(a->text, token->text, sizeof a->text - 1 - strlen(a->text));
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct answer *a = context;
    (void)id;
    a->reason = finish->reason;
    if (finish->error)
        a->error = *finish->error;
    if (finish->logits)
        a->crc = hash_crc32(0, finish->logits, finish->logit_count * sizeof *finish->logits);
    for (uint32_t i = 0; i < finish->score_count; i++)
        a->nll += finish->scores[i];
    a->scores = finish->score_count;
    strncat(a->text, finish->text, sizeof a->text - 1 - strlen(a->text));
    a->finishes++;
}

static struct runner *open_runner(struct runner_options o)
{
    struct runner *r = NULL;
    struct error e = {0};
    o.model_path = model_path();
    o.worker_path = getenv("BRIGADE_WORKER");
    o.max_context = o.max_context ? o.max_context : 256;
    if (runner_open(&o, &r, &e))
        CHECK_FAIL("%s", e.text);
    return r;
}

static const int32_t story[] = {1,   410, 430, 260, 502, 311, 298, 277, 345, 612,
                                280, 399, 451, 333, 290, 512, 700, 801, 305, 342};

static struct request_options ask(struct answer *a, uint32_t prompt, uint32_t tokens)
{
    *a = (struct answer){0};
    struct request_options o = {.prompt = story,
                                .prompt_count = prompt,
                                .max_tokens = tokens,
                                .ignore_end = true,
                                .on_token = on_token,
                                .on_finish = on_finish,
                                .context = a};
    sampling_default(&o.sampling);
    return o;
}

static int drive(struct runner *r, struct error *e)
{
    int64_t until = clock_ms() + check_patience_ms();
    int rc = 0;
    while (!rc && runner_busy(r) && clock_ms() < until)
        rc = runner_step(r, 50, e);
    return rc;
}

static void answer_one(struct runner *r, struct request_options o)
{
    struct error e = {0};
    uint64_t id;
    int rc = runner_submit(r, &o, &id, &e);
    if (!rc)
        rc = drive(r, &e);
    if (rc)
        CHECK_FAIL("%s", e.text);
}

/* The i-th of a set of requests of all shapes, seeded sampling among them. */
static struct request_options varied(struct answer *a, uint32_t i)
{
    struct request_options o = ask(a, 2 + i % 17, 1 + i * 7 % TOKENS);
    o.client = i % 3;
    if (i % 3 == 1) {
        o.sampling.temperature = 0.9f;
        o.sampling.top_p = 0.95f;
        o.sampling.seed = i;
        o.sampling.repeat_penalty = 1.1f;
        o.sampling.repeat_last = 32;
    }
    return o;
}

static struct answer alone[REQUESTS];
static uint32_t alone_crc;
static double alone_nll;

static void one_at_a_time(void)
{
    struct runner *r = open_runner((struct runner_options){.threads = 1});
    struct answer a;
    REQUIRE(r);
    for (uint32_t i = 0; i < requests(); i++) {
        answer_one(r, varied(&alone[i], i));
        CHECK_INT(alone[i].finishes, 1);
        CHECK_INT(alone[i].reason, FINISH_LENGTH);
        CHECK_INT(alone[i].count, 1 + i * 7 % TOKENS);
        CHECK(*alone[i].text);
    }
    struct request_options o = ask(&a, 20, 0);
    o.logits = o.scores = true;
    answer_one(r, o);
    CHECK_INT(a.reason, FINISH_DONE);
    CHECK_INT(a.scores, 19);
    alone_crc = a.crc;
    alone_nll = a.nll;
    CHECK(alone_nll > 0);
    const struct plan *plan = runner_plan(r);
    REQUIRE(plan);
    CHECK_INT(plan->stages, 1);
    CHECK_INT(plan->stage[0].last_block, 7);
    CHECK(plan->stage[0].memory_bytes > 1e6);
    runner_close(r);
}

static void same(const struct answer *a, uint32_t i)
{
    CHECK_INT(a->finishes, 1);
    CHECK_INT(a->count, alone[i].count);
    CHECK(!memcmp(a->tokens, alone[i].tokens, (a->count < TOKENS ? a->count : TOKENS) * sizeof *a->tokens));
    CHECK_TEXT(a->text, alone[i].text);
}

/* All of them at once, every third cancelled in the middle. */
static void all_at_once(struct runner *r)
{
    static struct answer answers[REQUESTS], a;
    struct error e = {0};
    uint64_t ids[REQUESTS];
    for (uint32_t i = 0; i < requests(); i++) {
        struct request_options o = varied(&answers[i], i);
        CHECK_INT(runner_submit(r, &o, &ids[i], &e), 0);
    }
    for (uint32_t i = 2; i < requests(); i += 3) {
        runner_step(r, 5, &e);
        runner_cancel(r, ids[i]);
    }
    if (drive(r, &e))
        CHECK_FAIL("%s", e.text);
    for (uint32_t i = 0; i < requests(); i++) {
        if (i % 3 == 2 && answers[i].reason == FINISH_CANCELLED)
            CHECK_INT(answers[i].finishes, 1);
        else
            same(&answers[i], i);
    }
    struct request_options o = ask(&a, 20, 0);
    o.logits = o.scores = true;
    answer_one(r, o);
    CHECK_INT(a.crc, alone_crc);
    CHECK_NEAR(a.nll, alone_nll, 0);
    struct runner_status s;
    REQUIRE(!runner_status(r, &s, &e));
    CHECK_INT(s.pages_used, 0);
    CHECK_INT(s.running + s.queued, 0);
    CHECK_INT(s.tokens_shared, 0); /* no prompt here is longer than a page */
    CHECK(s.stage_count && s.stages[0].microbatches > 0);
    runner_status_free(&s);
}

static void company_and_chunks_change_nothing(void)
{
    const struct runner_options options[] = {
        {.threads = 2, .sequences = 8},
        {.threads = 1, .sequences = 3, .chunk_tokens = 7},
        {.threads = 1, .sequences = 16, .split = (uint32_t[]){3, 1, 4}, .split_count = 3},
        {.threads = 1, .sequences = 5, .chunk_tokens = 1},
        {.threads = 1, .sequences = 16, .microbatches = 4},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i += check_step() > 1 ? 2 : 1) {
        struct runner *r = open_runner(options[i]);
        REQUIRE(r);
        all_at_once(r);
        runner_close(r);
    }
}

struct crowd {
    struct runner *r;
    struct answer answers[REQUESTS / 3];
    struct request_options options[REQUESTS / 3];
    uint32_t count;
    int failures;
};

static void *submit_some(void *context)
{
    struct crowd *c = context;
    uint64_t ids[REQUESTS / 3];
    struct error e;
    for (uint32_t i = 0; i < c->count; i++) {
        if (runner_submit(c->r, &c->options[i], &ids[i], &e))
            c->failures++;
        struct runner_status s;
        if (!runner_status(c->r, &s, &e))
            runner_status_free(&s);
        usleep(500);
    }
    runner_cancel(c->r, ids[c->count - 1]);
    runner_cancel(c->r, 123456);
    return NULL;
}

static void any_thread_may_ask(void)
{
    static struct crowd crowds[3];
    pthread_t threads[3];
    struct error e = {0};
    uint32_t each = requests() / 3, all = 3 * each;
    struct runner *r = open_runner((struct runner_options){.threads = 1, .sequences = 6});
    REQUIRE(r);
    for (uint32_t i = 0; i < 3; i++) {
        crowds[i] = (struct crowd){.r = r, .count = each};
        for (uint32_t k = 0; k < each; k++)
            crowds[i].options[k] = varied(&crowds[i].answers[k], i * each + k);
        REQUIRE(!pthread_create(&threads[i], NULL, submit_some, &crowds[i]));
    }
    int64_t until = clock_ms() + check_patience_ms();
    for (uint32_t done = 0; done < all && clock_ms() < until;) {
        CHECK_INT(runner_step(r, 20, &e), 0);
        done = 0;
        for (uint32_t i = 0; i < all; i++)
            done += crowds[i / each].answers[i % each].finishes;
    }
    for (uint32_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < all; i++) {
        CHECK_INT(crowds[i / each].failures, 0);
        if (crowds[i / each].answers[i % each].reason != FINISH_CANCELLED)
            same(&crowds[i / each].answers[i % each], i);
    }
    runner_close(r);
}

/* The same long prompt again starts on the first one's pages, and says the same. */
static void a_prompt_is_computed_once(void)
{
    static struct answer first, again;
    int32_t prompt[200];
    struct error e = {0};
    for (int i = 0; i < 200; i++)
        prompt[i] = 3 + (int32_t)(hash_mix64((uint64_t)i) % 2000);
    struct runner *r =
        open_runner((struct runner_options){.threads = 1, .split = (uint32_t[]){3, 5}, .split_count = 2});
    REQUIRE(r);
    for (int round = 0; round < 2; round++) {
        struct request_options o = ask(round ? &again : &first, 1, 40);
        o.prompt = prompt;
        o.prompt_count = 200;
        answer_one(r, o);
    }
    CHECK_INT(again.count, 40);
    CHECK(!memcmp(first.tokens, again.tokens, sizeof first.tokens));
    CHECK_TEXT(again.text, first.text);
    struct runner_status s;
    REQUIRE(!runner_status(r, &s, &e));
    CHECK_INT(s.tokens_shared, 192);
    CHECK(s.pages_idle >= 6);
    CHECK_INT(s.pages_used, 0);
    runner_status_free(&s);
    runner_close(r);
}

static void bounds_are_told(void)
{
    static struct answer a, b;
    int32_t prompt[300] = {0};
    struct error e = {0};
    uint64_t id;
    struct runner *r =
        open_runner((struct runner_options){.threads = 1, .sequences = 1, .queue = 1, .max_context = 64});
    REQUIRE(r);
    CHECK_INT(runner_max_context(r), 64);
    struct request_options o = ask(&a, 20, 10);
    o.prompt = prompt;
    o.prompt_count = 100;
    CHECK_INT(runner_submit(r, &o, &id, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "the prompt has 100 tokens but the context holds 64: shorten it or raise the context");
    struct request_options first = ask(&a, 5, UINT32_MAX), second = ask(&b, 5, 3);
    CHECK_INT(runner_submit(r, &first, &id, &e), 0);
    CHECK_INT(runner_submit(r, &second, &id, &e), 0);
    CHECK_INT(runner_submit(r, &second, &id, &e), ERR_BUSY);
    CHECK(runner_busy(r));
    CHECK_INT(drive(r, &e), 0);
    CHECK_INT(a.count, 59); /* up to the context */
    CHECK_INT(a.reason, FINISH_LENGTH);
    CHECK_INT(b.count, 3);
    CHECK(!runner_busy(r));

    /* Closing ends what still runs, once. */
    first = ask(&a, 5, UINT32_MAX);
    second = ask(&b, 5, 3);
    CHECK_INT(runner_submit(r, &first, &id, &e), 0);
    runner_step(r, 5, &e);
    CHECK_INT(runner_submit(r, &second, &id, &e), 0);
    runner_close(r);
    CHECK_INT(a.finishes, 1);
    CHECK_INT(a.reason, FINISH_CANCELLED);
    CHECK_INT(b.finishes, 1);
    CHECK_INT(b.reason, FINISH_CANCELLED);
}

static void wrong_openings_are_told(void)
{
    const struct {
        struct runner_options o;
        const char *words;
    } cases[] = {
        {{.split = (uint32_t[]){4, 5}, .split_count = 2}, "8 blocks"},
        {{.split = (uint32_t[]){4, 3}, .split_count = 2}, "adds up to 7 blocks, but the model has 8"},
        {{.split = (uint32_t[]){8, 0}, .split_count = 2}, "stage 2 of the split has no block"},
        {{.kv_tokens = 64, .max_context = 128}, "a cache of 64 tokens cannot hold one context of 128 tokens"},
        {{.goal = RUNNER_LOOK}, "no cluster to look at"},
        {{.config_path = "/nonexistent.yaml"}, "/nonexistent.yaml"},
        {{.stages = 9}, "9 stages are too many: the model has 8 blocks"},
        {{.stages = 2, .worker_path = "/nonexistent"}, "/nonexistent is not a program"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct runner_options o = cases[i].o;
        struct runner *r = NULL;
        struct error e = {0};
        o.model_path = model_path();
        CHECK(runner_open(&o, &r, &e) < 0);
        CHECK(!r);
        if (!strstr(e.text, cases[i].words))
            CHECK_FAIL("\"%s\" does not say \"%s\"", e.text, cases[i].words);
    }
    volatile sig_atomic_t stop = 1;
    struct runner_options o = {.model_path = model_path(), .interrupt = &stop, .threads = 1};
    struct runner *r = NULL;
    CHECK_INT(runner_open(&o, &r, NULL), ERR_CANCELLED);
    stop = 0;
    REQUIRE(!runner_open(&o, &r, NULL));
    stop = 1;
    CHECK_INT(runner_step(r, 1000, NULL), ERR_CANCELLED);
    runner_close(r);
}

static void predictions_come_when_asked_for(void)
{
    struct runner *r = open_runner((struct runner_options){.goal = RUNNER_PLAN, .threads = 1});
    REQUIRE(r);
    CHECK(runner_plan(r) && runner_plan(r)->tpot_s > 0 && runner_plan(r)->ttft_s > 0);
    CHECK(runner_problem(r));
    struct answer a;
    struct request_options o = ask(&a, 4, 4);
    uint64_t id;
    CHECK_INT(runner_submit(r, &o, &id, NULL), ERR_USAGE);
    runner_close(r);
}

/* ---- Real workers ------------------------------------------------------------------------------------------------ */

static void workers_change_nothing(void)
{
    const struct runner_options options[] = {
        {.stages = 1, .threads = 1, .sequences = 8},
        {.stages = 3, .threads = 1, .sequences = 8},
        {.stages = 2, .threads = 1, .sequences = 8, .chunk_tokens = 7, .split = (uint32_t[]){5, 3}, .split_count = 2},
    };
    if (!getenv("BRIGADE_WORKER"))
        SKIP("BRIGADE_WORKER does not name the worker program");
    for (size_t i = check_step() > 1 ? 1 : 0; i < sizeof options / sizeof *options; i++) {
        struct runner *r = open_runner(options[i]);
        REQUIRE(r);
        CHECK_INT(runner_plan(r)->stages, (int)options[i].stages);
        CHECK(runner_plan(r)->tpot_s > 0);
        all_at_once(r);
        runner_close(r);
    }
}

/* The process among ours whose arguments hold this name; 0 when there is none. */
static pid_t find_worker(const char *name)
{
    DIR *processes = opendir("/proc");
    pid_t found = 0;
    for (struct dirent *entry; processes && !found && (entry = readdir(processes));) {
        char path[300], text[4096] = "";
        int parent = 0;
        snprintf(path, sizeof path, "/proc/%.20s/stat", entry->d_name);
        FILE *file = atoi(entry->d_name) > 0 ? fopen(path, "re") : NULL;
        if (!file)
            continue;
        if (fscanf(file, "%*d (%*[^)]) %*c %d", &parent) != 1)
            parent = 0;
        fclose(file);
        snprintf(path, sizeof path, "/proc/%.20s/cmdline", entry->d_name);
        if (parent != getpid() || !(file = fopen(path, "re")))
            continue;
        size_t n = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        if (memmem(text, n, name, strlen(name) + 1))
            found = atoi(entry->d_name);
    }
    if (processes)
        closedir(processes);
    return found;
}

static void a_killed_worker_ends_it_soon(void)
{
    if (!getenv("BRIGADE_WORKER"))
        SKIP("BRIGADE_WORKER does not name the worker program");
    for (int which = check_step() > 1 ? 1 : 0; which < (check_step() > 1 ? 2 : 3); which++) {
        static struct answer a;
        struct error e = {0};
        char name[32];
        uint64_t id;
        struct runner *r = open_runner((struct runner_options){.stages = 3, .threads = 1, .no_recovery = true});
        REQUIRE(r);
        struct request_options o = ask(&a, 5, 240);
        CHECK_INT(runner_submit(r, &o, &id, &e), 0);
        while (!a.count && !runner_step(r, 50, &e))
            ;
        snprintf(name, sizeof name, "local-%d", which + 1);
        pid_t pid = find_worker(name);
        REQUIRE(pid > 0);
        kill(pid, SIGKILL);
        CHECK_INT(drive(r, &e), ERR_LOST); /* a second or two where nothing else runs */
        CHECK_INT(a.finishes, 1);
        CHECK_INT(a.reason, FINISH_ERROR);
        if (!strstr(e.text, name) || !strstr(a.error.text, name))
            CHECK_FAIL("\"%s\" does not name %s", e.text, name);
        CHECK_INT(runner_submit(r, &o, &id, &e), ERR_LOST);
        runner_close(r);
    }
}

static void kill_worker(int which)
{
    char name[32];
    snprintf(name, sizeof name, "local-%d", which + 1);
    pid_t pid = find_worker(name);
    if (pid > 0)
        kill(pid, SIGKILL);
    else
        CHECK_FAIL("there is no worker %s", name);
}

/* Requests of all shapes run while one worker after the other dies: every answer is what it would have been. */
static void answers_go_on_when_workers_die(void)
{
    static const int order[][3] = {{1, 2, 0}, {0, 1, 2}};
    if (!getenv("BRIGADE_WORKER"))
        SKIP("BRIGADE_WORKER does not name the worker program");
    for (size_t run = 0; run < (check_step() > 1 ? 1 : sizeof order / sizeof *order); run++) {
        static struct answer answers[REQUESTS];
        struct error e = {0};
        struct runner_status s;
        uint64_t id;
        struct runner *r = open_runner((struct runner_options){.stages = 3, .threads = 1, .sequences = 8});
        REQUIRE(r);
        for (int death = 0; death < 2; death++) {
            for (uint32_t i = 0; i < requests(); i++) {
                struct request_options o = varied(&answers[i], i);
                CHECK_INT(runner_submit(r, &o, &id, &e), 0);
            }
            for (int64_t until = clock_ms() + check_patience_ms(); answers[5].count < 3 + 10 * run && clock_ms() < until;)
                runner_step(r, 1, &e);
            kill_worker(order[run][death]);
            if (drive(r, &e))
                CHECK_FAIL("%s", e.text);
            for (uint32_t i = 0; i < requests(); i++)
                same(&answers[i], i);
            REQUIRE(!runner_status(r, &s, &e));
            CHECK(s.recoveries >= (uint64_t)death + 1); /* more where a machine is so busy that a worker seems gone */
            CHECK(s.recovery_seconds > 0);
            CHECK_INT(s.pages_used, 0);
            CHECK((int)s.stage_count == 2 - death || s.recoveries > (uint64_t)death + 1);
            CHECK_TEXT(s.outage, "");
            runner_status_free(&s);
        }
        struct request_options o = ask(&answers[0], 5, 240);
        CHECK_INT(runner_submit(r, &o, &id, &e), 0);
        while (answers[0].count < 2 && !runner_step(r, 50, &e))
            ;
        kill_worker(order[run][2]); /* nobody is left, and nobody will come */
        CHECK_INT(drive(r, &e), ERR_LOST);
        CHECK_INT(answers[0].reason, FINISH_ERROR);
        CHECK(strstr(e.text, "no worker is left"));
        runner_close(r);
    }
}

static const struct check_test tests[] = {
    {"one at a time", one_at_a_time},
    {"company and chunks change nothing", company_and_chunks_change_nothing},
    {"any thread may ask", any_thread_may_ask},
    {"a prompt is computed once", a_prompt_is_computed_once},
    {"bounds are told", bounds_are_told},
    {"wrong openings are told", wrong_openings_are_told},
    {"predictions come when asked for", predictions_come_when_asked_for},
    {"workers change nothing", workers_change_nothing},
    {"a killed worker ends it soon", a_killed_worker_ends_it_soon},
    {"answers go on when workers die", answers_go_on_when_workers_die},
};

int main(int argc, char **argv)
{
    log_set_default("test_runner", LOG_LEVEL_ERROR);
    if (!model_path()) {
        fprintf(stderr, "BRIGADE_MODEL must name a model of 8 blocks\n");
        return 77;
    }
    if (argc > 1) /* what the others compare with */
        one_at_a_time();
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
