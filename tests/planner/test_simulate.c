/* Simulated time: the discrete-event core against the closed formulas, requests against hand-made schedules, pictures. */
#include "tests/check.h"

#include "base/memory.h"
#include "planner/cost.h"
#include "planner/simulate.h"
#include "tests/planner/oracle.h"

/* One device, one block: decode 10 ms a step whatever the batch, prefill 20 ms a chunk, no links. */
static struct plan_problem *plain_problem(int concurrency)
{
    struct plan_problem *p = plan_problem_new(1, 1);
    if (!p)
        return NULL;
    p->model.hidden = 1;
    p->model.block[0] = (struct plan_block){.weight_bytes = 100, .flops_per_token = 1};
    p->device[0] = (struct plan_device){.name = mem_strdup("a"), .memory = 1e6, .read = 1e4, .compute = 400};
    p->coordinator = mem_strdup("a");
    p->coordinator_device = 0;
    p->workload.concurrency = concurrency;
    p->workload.chunk = 8; /* 8 tokens at 400 a second: 20 ms */
    p->workload.kv_tokens = 0;
    return p;
}

static void one_request_takes_prefill_and_steps(void)
{
    struct plan_problem *p = plain_problem(1);
    struct plan plan;
    struct plan_simulation s;
    struct error e = {0};
    REQUIRE(p && !plan_solve(p, NULL, &plan, &e));
    const struct plan_request r[] = {{1.0, 16, 5}};
    REQUIRE(!plan_simulate(&s, p, &plan, r, 1, NULL, NULL, NULL, &e));
    CHECK_NEAR(s.ttft.mean, 0.040, 1e-9);      /* two chunks */
    CHECK_NEAR(s.tpot.p50, 0.010, 1e-9);       /* four more tokens */
    CHECK_NEAR(s.e2el.most, 0.080, 1e-9);
    CHECK_NEAR(s.duration_s, 0.080, 1e-9);
    CHECK_NEAR(s.tokens_per_s, 5 / 0.080, 1e-6);
    CHECK_NEAR(s.utilisation[0], 1, 1e-9);
    CHECK_INT(s.good, 1);
    plan_problem_free(p);
}

static void requests_queue_and_batch(void)
{
    struct plan_problem *p = plain_problem(1);
    struct plan plan;
    struct plan_simulation s;
    struct error e = {0};
    REQUIRE(p && !plan_solve(p, NULL, &plan, &e));
    const struct plan_request r[] = {{0, 8, 3}, {0, 8, 3}};
    /* One at a time: 20 + 2 x 10 ms each, the second waits for the first. */
    REQUIRE(!plan_simulate(&s, p, &plan, r, 2, &(struct plan_slo){0.05, INFINITY}, NULL, NULL, &e));
    CHECK_NEAR(s.ttft.most, 0.060, 1e-9);
    CHECK_NEAR(s.queued.most, 0.040, 1e-9);
    CHECK_NEAR(s.duration_s, 0.080, 1e-9);
    CHECK_NEAR(s.ttft.p50, 0.020, 1e-9);
    CHECK_INT(s.good, 1);
    CHECK_NEAR(s.mean_batch, 1, 1e-9);
    CHECK_INT(s.longest_queue, 1);
    plan_problem_free(p);

    /* Two at once: both chunks first (two fit in flight), then steps shared by both. */
    p = plain_problem(2);
    REQUIRE(p && !plan_solve(p, NULL, &plan, &e));
    CHECK_INT(plan.microbatches, 1);
    REQUIRE(!plan_simulate(&s, p, &plan, r, 2, NULL, NULL, NULL, &e));
    CHECK_NEAR(s.ttft.most, 0.040, 1e-9);
    /* The first decodes alone once (it was ready while the second's chunk ran), then together, then the second alone. */
    CHECK_NEAR(s.duration_s, 0.070, 1e-9);
    CHECK_NEAR(s.mean_batch, 4.0 / 3, 1e-9);
    plan_problem_free(p);
}

static void cache_is_admitted(void)
{
    struct plan_problem *p = plain_problem(4);
    struct plan plan;
    struct plan_simulation s;
    struct error e = {0};
    REQUIRE(p && !plan_solve(p, NULL, &plan, &e));
    p->workload.kv_tokens = 20;
    const struct plan_request r[] = {{0, 8, 4}, {0, 8, 4}, {0, 30, 1}};
    REQUIRE(!plan_simulate(&s, p, &plan, r, 3, NULL, NULL, NULL, &e));
    CHECK_INT(s.refused, 1);
    CHECK_INT(s.finished, 2);
    CHECK_NEAR(s.queued.most, 0.050, 1e-9); /* 12 + 12 positions do not fit beside each other */
    plan_problem_free(p);
}

/* With every slot taken and long answers the simulated rate is the predicted one. */
static void saturated_rate_is_the_predicted(void)
{
    struct oracle_random rnd = {.state = 8};
    int checked = 0;
    for (int i = 0; i < 40; i++) {
        struct plan_problem *p = oracle_problem(&rnd, 4, 8, 0, 3);
        struct plan plan;
        struct plan_simulation s;
        struct error e = {0};
        REQUIRE(p);
        p->objective = PLAN_THROUGHPUT;
        p->workload.kv_tokens = 0;
        /* Micro-batches of equal size, and costs that do not grow with the answer. */
        p->workload.concurrency = 8;
        for (int k = 0; k < 8; k++)
            p->model.block[k].kv_bytes = p->model.block[k].attention_flops = 0;
        if (plan_solve(p, NULL, &plan, &e) == 0 && plan.batch * plan.microbatches == 8) {
            struct plan_request r[8];
            for (int k = 0; k < 8; k++)
                r[k] = (struct plan_request){0, 1, 4000};
            REQUIRE(!plan_simulate(&s, p, &plan, r, 8, NULL, NULL, NULL, &e));
            CHECK(s.tokens_per_s < plan.tokens_per_s * 1.001);
            if (s.tokens_per_s < plan.tokens_per_s * 0.97)
                CHECK_FAIL("problem %d: %g tokens/s simulated, %g predicted, m %d of %d", i, s.tokens_per_s,
                           plan.tokens_per_s, plan.microbatches, plan.batch);
            checked++;
        }
        plan_problem_free(p);
    }
    CHECK(checked > 10);
}

static const char *number_after(const char *text, const char *what)
{
    const char *at = strstr(text, what);
    return at ? at + strlen(what) : NULL;
}

/* The picture's end of the step and of the prefill are the prediction's; what it draws is well formed. */
static void pictures_tell_the_prediction(void)
{
    struct oracle_random rnd = {.state = 21};
    int checked = 0;
    for (int i = 0; i < 40; i++) {
        struct plan_problem *p = oracle_problem(&rnd, 4, 8, ORACLE_UNEVEN_BLOCKS, 1.5);
        struct plan plan;
        struct error e = {0};
        REQUIRE(p);
        p->objective = PLAN_LATENCY;
        p->workload.concurrency = 1;
        mem_free(p->device[0].name);
        p->device[0].name = mem_strdup("<a&b>");
        if (plan_solve(p, NULL, &plan, &e) == 0) {
            struct buffer svg = {0};
            REQUIRE(!plan_gantt_svg(&svg, p, &plan, &e));
            CHECK(!strncmp(svg.data, "<svg ", 5) && strstr(svg.data, "</svg>\n"));
            CHECK(!strstr(svg.data, "<a&b>"));
            char context[64];
            snprintf(context, sizeof context, "at context %.0f, ", p->workload.context);
            const char *step = number_after(svg.data, context);
            snprintf(context, sizeof context, "chunks of %d, ", p->workload.chunk);
            const char *prefill = number_after(svg.data, context);
            REQUIRE(step && prefill);
            CHECK_NEAR(atof(step), plan.tpot_s * 1e3, plan.tpot_s * 1e-2);
            CHECK_NEAR(atof(prefill), plan.ttft_s * 1e3, plan.ttft_s * 1e-2);
            size_t rects = 0, chunks = (size_t)cost_chunks(p);
            for (const char *at = svg.data; (at = strstr(at, "<rect x=")); at++)
                rects++;
            CHECK_INT(rects, (size_t)(2 * plan.stages - 1) * (1 + chunks));
            buffer_free(&svg);
            checked++;
        }
        plan_problem_free(p);
    }
    CHECK(checked > 10);
}

static void request_lists_are_strict(void)
{
    struct plan_request *r = NULL;
    size_t n = 0;
    struct error e = {0};
    static const char good[] = "arrival_s,prompt_tokens,output_tokens\n# later first\n2.5, 128, 64\r\n\n0,1,1";
    CHECK_INT(plan_requests_parse(&r, &n, "r.csv", good, sizeof good - 1, &e), 0);
    REQUIRE(n == 2);
    CHECK_NEAR(r[0].arrival_s, 0, 0);
    CHECK_INT(r[1].prompt_tokens, 128);
    CHECK_INT(r[1].output_tokens, 64);
    mem_free(r);
    r = NULL;
    static const char *const headings[] = {"arrival,prompt,output\n1,2,3", " arrival (s), prompt tokens, output tokens\n1,2,3"};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        CHECK_INT(plan_requests_parse(&r, &n, "r.csv", headings[i], strlen(headings[i]), &e), 0);
        CHECK_INT((long)n, 1);
        mem_free(r);
        r = NULL;
    }
    static const char *const bad[] = {"prompt,arrival,output\n1,2,3", "1,2", "1,2,3,4", "-1,2,3", "1,0,3", "1,2,0", "a,b,c", "nan,1,1", "1,2.5,3", "1,2,x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(plan_requests_parse(&r, &n, "r.csv", bad[i], strlen(bad[i]), &e), ERR_FORMAT);
        CHECK_TEXT(e.text, "r.csv:1: expected arrival_s,prompt_tokens,output_tokens such as 0.5,128,64");
    }
    CHECK_INT(plan_requests_parse(&r, &n, "r.csv", "", 0, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "r.csv: no requests; expected lines of arrival_s,prompt_tokens,output_tokens");
    CHECK(r == NULL);

    struct plan_slo slo;
    CHECK_INT(plan_slo_parse("ttft=1s,tpot=200ms", &slo, &e), 0);
    CHECK_NEAR(slo.ttft_s, 1, 0);
    CHECK_NEAR(slo.tpot_s, 0.2, 1e-12);
    CHECK_INT(plan_slo_parse("tpot=50ms", &slo, &e), 0);
    CHECK(isinf(slo.ttft_s));
    static const char *const wrong[] = {"", "ttft", "ttft=", "ttft=1s,ttft=2s", "e2el=1s", "ttft=-1s", "ttft=1s,"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_INT(plan_slo_parse(wrong[i], &slo, &e), ERR_FORMAT);
}

static void results_become_json(void)
{
    struct plan_problem *p = plain_problem(1);
    struct plan plan;
    struct plan_simulation s;
    struct error e = {0};
    REQUIRE(p && !plan_solve(p, NULL, &plan, &e));
    const struct plan_request r[] = {{0, 8, 3}};
    REQUIRE(!plan_simulate(&s, p, &plan, r, 1, NULL, NULL, NULL, &e));
    json_t *json = plan_simulation_to_json(p, &plan, &s);
    double p99 = 0, share = 0;
    const char *name = NULL;
    CHECK_INT(json_unpack(json, "{s:{s:F},s:[{s:s,s:F}]}", "ttft_ms", "p99", &p99, "utilisation", "machine", &name, "share",
                          &share),
              0);
    CHECK_NEAR(p99, 20, 1e-9);
    CHECK_TEXT(name, "a");
    CHECK_NEAR(share, 1, 1e-9);
    json_decref(json);
    struct buffer text = {0};
    CHECK_INT(plan_simulation_text(&text, p, &plan, &s), 0);
    CHECK(strstr(text.data, "simulated: 1 requests in 0.04 s, 1 finished, 0 refused"));
    buffer_free(&text);
    plan_problem_free(p);
}

static const struct check_test tests[] = {
    {"one request takes prefill and steps", one_request_takes_prefill_and_steps},
    {"requests queue and batch", requests_queue_and_batch},
    {"cache is admitted", cache_is_admitted},
    {"saturated rate is the predicted", saturated_rate_is_the_predicted},
    {"pictures tell the prediction", pictures_tell_the_prediction},
    {"request lists are strict", request_lists_are_strict},
    {"results become json", results_become_json},
};

CHECK_MAIN(tests)
