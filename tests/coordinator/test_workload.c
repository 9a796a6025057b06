/* Workloads: read from CSV with every way to get it wrong, made up with the right rate, and limits. */
#include "tests/check.h"

#include <math.h>

#include "base/hash.h"
#include "coordinator/cli/workload.h"

static int parse(const char *text, struct workload *w, struct error *e)
{
    return workload_parse(text, strlen(text), "r.csv", w, e);
}

static void a_file_is_read(void)
{
    struct workload w = {0};
    struct error e = {0};
    REQUIRE(!parse("# a comment\n\noutput_tokens, prompt_tokens ,arrival_s,priority\r\n5,10,2.5,-3\r\n7,20,0.25,0\n8,30,2.5,4", &w, &e));
    CHECK_INT(w.count, 3);
    CHECK_INT(w.clients, 0);
    CHECK(w.rows[0].arrival_s == 0.25 && w.rows[0].prompt_tokens == 20 && w.rows[0].output_tokens == 7);
    CHECK(w.rows[1].arrival_s == 2.5 && w.rows[2].arrival_s == 2.5);
    CHECK_INT(w.rows[1].priority + w.rows[2].priority, 1);
    workload_free(&w);
    CHECK(!w.rows);
    REQUIRE(!parse("arrival_s,prompt_tokens,output_tokens,client\n0,1,1,9\n", &w, &e));
    CHECK_INT(w.rows[0].client, 9);
    workload_free(&w);
}

static void mistakes_are_named(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "r.csv holds no request: it needs a heading and a line for each"},
        {"arrival_s,prompt_tokens,output_tokens\n", "r.csv holds no request: it needs a heading and a line for each"},
        {"arrival_s,prompt_tokens\n0,1\n", "r.csv, line 1: the heading lacks the column output_tokens"},
        {"#x\narrival_s,arrival_s,output_tokens\n", "r.csv, line 2: column arrival_s stands there twice"},
        {"arrival_s,prompt_tokens,output_tokens\n1,2\n", "r.csv, line 2: 2 columns, but the heading names 3"},
        {"arrival_s,prompt_tokens,output_tokens\n1,2,3,4\n", "r.csv, line 2: 4 columns, but the heading names 3"},
        {"arrival_s,prompt_tokens,output_tokens\n1,2,3,4,5,6\n", "r.csv, line 2: more than 5 columns"},
        {"arrival_s,prompt_tokens,output_tokens\n1,0,3\n", "r.csv, line 2: '0' is no prompt_tokens"},
        {"arrival_s,prompt_tokens,output_tokens\n-1,2,3\n", "r.csv, line 2: '-1' is no arrival_s"},
        {"arrival_s,prompt_tokens,output_tokens\nnan,2,3\n", "r.csv, line 2: 'nan' is no arrival_s"},
        {"arrival_s,prompt_tokens,output_tokens\n1,2,3.5\n", "r.csv, line 2: '3.5' is no output_tokens"},
        {"arrival_s,prompt_tokens,output_tokens,priority\n1,2,3,101\n", "r.csv, line 2: '101' is no priority"},
    };
    struct workload w = {.count = 77};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error e = {0};
        CHECK_INT(parse(cases[i].text, &w, &e), ERR_FORMAT);
        CHECK_TEXT(e.text, cases[i].says);
    }
    CHECK_INT(w.count, 77); /* untouched */
    struct error e = {0};
    CHECK_INT(parse("arrival_s,prompt_tokens,output_tokens,when\n", &w, &e), ERR_FORMAT);
    CHECK(strstr(e.text, "'when' is no column"));
}

static void no_bytes_break_it(void)
{
    static const char letters[] = "0123456789.,,,,\n\n\r#-e \tarrival_s,prompt_tokens,output_tokens\n";
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        char text[200] = "arrival_s,prompt_tokens,output_tokens\n1,2,3\n";
        size_t n = strlen(text);
        for (int i = 0; i < 8; i++) {
            uint64_t r = hash_mix64(++seed);
            text[r % n] = letters[(r >> 32) % sizeof letters]; /* sometimes a zero */
        }
        struct workload w = {0};
        struct error e = {0};
        if (!workload_parse(text, n, "r.csv", &w, &e))
            CHECK(w.count && w.rows);
        else
            CHECK(e.code && *e.text);
        workload_free(&w);
    }
}

static void made_up_ones_keep_their_rate(void)
{
    struct workload_shape shape = {.requests = 20000, .prompt = {10, 30}, .output = {5, 5}, .seed = 3};
    struct workload w = {0}, again = {0};
    struct error e = {0};
    REQUIRE(!workload_make("poisson:50", &shape, &w, &e) && !workload_make("poisson:50", &shape, &again, &e));
    CHECK(!memcmp(w.rows, again.rows, w.count * sizeof *w.rows));
    double last = w.rows[w.count - 1].arrival_s, prompts = 0, squares = 0, before = 0;
    CHECK(fabs(last - 400) < 12); /* 20000 at 50 a second, four deviations */
    uint32_t least = 1000, most = 0;
    for (size_t i = 0; i < w.count; i++) {
        const struct workload_row *r = &w.rows[i];
        double gap = r->arrival_s - before;
        CHECK(gap > 0);
        squares += gap * gap;
        before = r->arrival_s;
        prompts += r->prompt_tokens;
        least = r->prompt_tokens < least ? r->prompt_tokens : least;
        most = r->prompt_tokens > most ? r->prompt_tokens : most;
        CHECK_INT(r->output_tokens, 5);
    }
    CHECK(fabs(squares / (double)w.count - 2.0 / 2500) < 0.1 * 2.0 / 2500); /* gaps are exponential: twice the mean's square */
    CHECK(fabs(prompts / (double)w.count - 20) < 0.3 && least == 10 && most == 30);
    workload_free(&w);
    workload_free(&again);
    REQUIRE(!workload_make("clients:3", &shape, &w, &e));
    CHECK(w.clients == 3 && w.rows[4].client == 1);
    workload_free(&w);
    CHECK(workload_is_made("poisson:1") && workload_is_made("clients:x") && !workload_is_made("r.csv"));
    static const char *const bad[] = {"poisson:", "poisson:0", "poisson:-1", "poisson:1e9", "clients:0", "clients:2.5", "other:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_INT(workload_make(bad[i], &shape, &w, &e), ERR_USAGE);
}

static void limits_are_read(void)
{
    struct workload_slo slo = {.ttft_s = 9};
    struct error e = {0};
    CHECK(!workload_parse_slo("ttft=1s,tpot=200ms", &slo, &e));
    CHECK(slo.ttft_s == 1 && slo.tpot_s == 0.2 && slo.e2el_s == 0);
    CHECK(!workload_parse_slo("e2el=1m", &slo, &e));
    CHECK(slo.ttft_s == 0 && slo.e2el_s == 60);
    static const char *const bad[] = {"ttft", "ttft=", "ttft=0", "ttft=-1s", "ttft=1s,ttft=2s", "tbt=1s", "ttft=1s;tpot=1s",
                                      "ttft=1111111111111111111111111111111111111s", "=1s", ",", "tt=1s"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_INT(workload_parse_slo(bad[i], &slo, &e), ERR_USAGE);
    CHECK(slo.e2el_s == 60);
}

static const struct check_test tests[] = {
    {"a file is read", a_file_is_read},
    {"mistakes are named", mistakes_are_named},
    {"no bytes break it", no_bytes_break_it},
    {"made-up ones keep their rate", made_up_ones_keep_their_rate},
    {"limits are read", limits_are_read},
};

CHECK_MAIN(tests)
