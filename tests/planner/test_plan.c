/* The planner's face: what-if files, evaluation, measured profiles, refusals, reasons, JSON. */
#include "tests/check.h"

#include "base/memory.h"
#include "planner/cost.h"
#include "planner/json.h"
#include "tests/planner/oracle.h"

static const char sample[] =
    "model:\n"
    "  hidden: 4096\n"
    "  embedding_bytes: 262144000\n"
    "  head: {weight_bytes: 131072000, flops_per_token: 262144000}\n"
    "  blocks:\n"
    "    - {repeat: 32, weight_bytes: 122683392, flops_per_token: 436207616, attention_flops: 16384, kv_bytes: 16384}\n"
    "devices:\n"
    "  - {name: pi5, memory: 7.2e9, read: 9.5e9, compute: 45e9, overhead_us: 150, buffers: 2.0e8}\n"
    "  - {name: orin, memory: 6.0e9, read: 50e9, compute: 900e9, overhead_us: 200, buffers: 3.0e8}\n"
    "coordinator: pi5\n"
    "links:\n"
    "  default: {bandwidth: 117e6, rtt_us: 300}\n"
    "  pairs: [{a: pi5, b: orin, bandwidth: 30e6, rtt_us: 2500}]\n"
    "workload: {prompt_tokens: 512, output_tokens: 128, concurrency: 1, context: 1024, kv_tokens: 4096, chunk: 256, "
    "value_bytes: 4}\n"
    "objective: latency\n"
    "pin_first: null\n";

static struct plan_problem *parse(const char *text, struct error *e)
{
    struct yaml_doc *doc = NULL;
    struct plan_problem *p = NULL;
    if (yaml_read_text(&doc, "w.yaml", text, strlen(text), e) == 0)
        plan_problem_from_yaml(&p, doc, e);
    yaml_doc_free(doc);
    return p;
}

/* The sample with one piece of text in another's place. */
static void refused(const char *piece, const char *instead, const char *why)
{
    char text[2048];
    struct error e = {0};
    const char *at = strstr(sample, piece);
    REQUIRE(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - sample), sample, instead, at + strlen(piece));
    struct plan_problem *p = parse(text, &e);
    CHECK(p == NULL);
    CHECK_TEXT(e.text, why);
    plan_problem_free(p);
}

static void what_if_files_become_problems(void)
{
    struct error e = {0};
    struct plan_problem *p = parse(sample, &e);
    REQUIRE(p);
    CHECK_INT(p->model.blocks, 32);
    CHECK_NEAR(p->model.block[31].kv_bytes, 16384, 0);
    CHECK_NEAR(p->device[1].overhead_s, 200e-6, 1e-18);
    CHECK_INT(p->coordinator_device, 0);
    CHECK_INT(p->pin_first, -1);
    CHECK_NEAR(plan_problem_link(p, 1, 0)->bandwidth, 30e6, 0);
    CHECK(plan_problem_link(p, 0, 0) == NULL && plan_problem_link(p, 2, 0) == NULL);
    CHECK_NEAR(plan_problem_link(p, 1, 2)->rtt_s, 2500e-6, 1e-15);
    /* By hand, from the formulas: 3 blocks on pi5 read-bound, 29 and the head on orin. */
    struct plan plan;
    REQUIRE(!plan_evaluate(p, (int[]){0, 1}, (int[]){3, 29}, 2, &plan, &e));
    double pi = 150e-6 + 3 * (122683392 + 1024.0 * 16384) / 9.5e9;
    double orin = 200e-6 + 29 * (122683392 + 1024.0 * 16384) / 50e9 + 131072000 / 50e9;
    CHECK_NEAR(plan.stage[0].decode_s, pi, 1e-12);
    CHECK_NEAR(plan.stage[1].decode_s, orin, 1e-12);
    CHECK_NEAR(plan.tpot_s, pi + 1250e-6 + 4096 * 4 / 30e6 + orin + 1250e-6, 1e-12);
    CHECK_NEAR(plan.stage[0].memory_bytes, 3 * (122683392 + 16384.0 * 4096) + 2e8 + 262144000, 0);
    CHECK_INT(plan.link_to, -1);
    plan_problem_free(p);
}

static void what_if_files_are_strict(void)
{
    refused("hidden: 4096", "hiden: 4096",
            "w.yaml:2: unknown key \"hiden\" in model; known: hidden, embedding_bytes, head, blocks");
    refused("7.2e9", "-1", "w.yaml:8: devices[0].memory: -1 is too small; the least is 0");
    refused("name: orin", "name: pi5",
            "w.yaml:9: devices[1]: a second device named \"pi5\"; give each its own name");
    refused("a: pi5, b: orin", "a: pi5, b: nano",
            "w.yaml:13: links.pairs[0].b: no device or coordinator is named \"nano\"");
    refused("a: pi5, b: orin", "a: pi5, b: pi5", "w.yaml:13: links.pairs[0]: a link needs two different ends");
    refused("objective: latency", "objective: speed",
            "w.yaml:15: objective: unknown objective \"speed\"; known: latency, throughput, ttft");
    refused("pin_first: null", "pin_first: nano", "w.yaml:16: pin_first: no device is named \"nano\"");
    refused("repeat: 32", "repeat: 513", "w.yaml:6: model.blocks[0].repeat: 513 is too large; the most is 512");
    refused("chunk: 256", "chunk: 0", "w.yaml:14: workload.chunk: 0 is too small; the least is 1");
    refused("concurrency: 1,", "concurrency: 1.5,",
            "w.yaml:14: workload.concurrency: expected a whole number, not \"1.5\"");
    refused("  default: {bandwidth: 117e6, rtt_us: 300}\n  pairs: [{a: pi5, b: orin, bandwidth: 30e6, rtt_us: 2500}]\n",
            "  pairs: []\n", "links: nothing says how pi5 and orin are connected; add links.default");
    refused("read: 9.5e9", "read: 0", "w.yaml:8: devices[0].read: 0 is too small; the least is 1e-09");
}

static void infeasible_plans_show_the_arithmetic(void)
{
    struct error e = {0};
    struct plan plan;
    struct plan_problem *p = parse(sample, &e);
    REQUIRE(p);
    p->device[0].memory = 2e9;
    p->device[1].memory = 3e9;
    CHECK_INT(plan_solve(p, NULL, &plan, &e), ERR_INFEASIBLE);
    /* 9 blocks of 189.8 MB beside 200 MB of buffers, 14 beside 300 MB. */
    CHECK_TEXT(e.text, "no plan fits: 32 blocks with embedding, head and cache need 6.0 GiB (cache 2.0 GiB); the largest "
                       "total that fits is 4.1 GiB, 23 blocks (orin 14, pi5 9); short by 2.0 GiB: add memory, take fewer "
                       "kv_tokens or a smaller model");
    /* All blocks fit, but not the embedding in front of them. */
    p->device[0].memory = p->device[1].memory = 16 * 189792256.0 + 3e8;
    CHECK_INT(plan_solve(p, NULL, &plan, &e), ERR_INFEASIBLE);
    CHECK(strstr(e.text, "no order of whole blocks leaves room for the embedding"));
    CHECK_INT(plan_evaluate(p, (int[]){0, 1}, (int[]){16, 16}, 2, &plan, &e), ERR_MEMORY);
    CHECK(strstr(e.text, "stage 0 does not fit: blocks 0 to 15 on pi5 need"));
    CHECK_INT(plan_evaluate(p, (int[]){0, 0}, (int[]){16, 16}, 2, &plan, &e), ERR_USAGE);
    CHECK_INT(plan_evaluate(p, (int[]){0, 1}, (int[]){16, 15}, 2, &plan, &e), ERR_USAGE);
    CHECK_INT(plan_evaluate(p, (int[]){0, 1}, (int[]){0, 32}, 2, &plan, &e), ERR_USAGE);
    CHECK_INT(plan_solve(p, &(struct plan_options){.stages = 3}, &plan, &e), ERR_USAGE);
    CHECK_INT(plan_solve(p, &(struct plan_options){.stages = 2, .counts = (int[]){1, 30}}, &plan, &e), ERR_USAGE);
    plan_problem_free(p);
}

/* A profile that tabulates the linear formulas must plan as they do; extrapolation included. */
static void measured_profiles_plan_like_formulas(void)
{
    struct oracle_random r = {.state = 5};
    for (int i = 0; i < check_thin(60); i++) {
        struct plan_problem *p = oracle_problem(&r, 3, 6, 0, 1.5), *q;
        REQUIRE(p);
        /* Memory-bound in decode and compute-bound in prefill, so that both are bilinear. */
        for (int d = 0; d < 3; d++)
            p->device[d].compute = p->device[d].read * 40;
        for (int k = 0; k < 6; k++) {
            p->model.block[k].attention_flops = 0;
            p->model.block[k].flops_per_token = 4 * p->model.block[k].weight_bytes;
            p->model.block[k].kv_bytes = 1000;
        }
        p->workload.concurrency = 1 + oracle_below(&r, 4);
        p->workload.prompt_tokens = 512;
        p->workload.chunk = 128;
        q = plan_problem_copy(p);
        REQUIRE(q);
        for (int d = 0; d < 3; d++) {
            struct plan_profile *f = plan_profile_new(1, 2, 2, 2, 2);
            REQUIRE(f);
            double batch[] = {1, 2}, context[] = {0, 512}, chunk[] = {32, 64}, past[] = {0, 256};
            memcpy(f->batch, batch, sizeof batch);
            memcpy(f->context, context, sizeof context);
            memcpy(f->chunk, chunk, sizeof chunk);
            memcpy(f->past, past, sizeof past);
            double keep = p->workload.context;
            for (int x = 0; x < 2; x++)
                for (int y = 0; y < 2; y++) {
                    p->workload.context = context[y];
                    f->decode[x * 2 + y] = cost_block_decode(p, d, 0, (int)batch[x]);
                    f->prefill[x * 2 + y] = cost_block_prefill(p, d, 0, chunk[x], past[y]);
                }
            p->workload.context = keep;
            f->head[0] = cost_head_decode(p, d, 1);
            f->head[1] = cost_head_decode(p, d, 2);
            q->device[d].profile = f;
            q->device[d].read = q->device[d].compute = 0;
        }
        struct plan a, b;
        struct error e = {0};
        int rc = plan_solve(p, NULL, &a, &e);
        CHECK_INT(plan_solve(q, NULL, &b, &e), rc);
        if (!rc) {
            CHECK_INT(a.stages, b.stages);
            CHECK_NEAR(b.value_s, a.value_s, a.value_s * 1e-9);
        }
        plan_problem_free(p);
        plan_problem_free(q);
    }
}

/* Between one token, as decoding takes it, and the smallest chunk that was measured; not on the line through larger ones,
 * which ends at nothing. */
static void a_short_prompt_takes_at_least_a_token(void)
{
    struct oracle_random r = {.state = 3};
    struct plan_problem *p = oracle_problem(&r, 1, 1, 0, 1.5);
    struct plan_profile *f = plan_profile_new(1, 1, 1, 2, 1);
    REQUIRE(p && f);
    f->batch[0] = 1;
    f->decode[0] = 1e-3;
    f->chunk[0] = 33;
    f->chunk[1] = 66;
    f->prefill[0] = 3e-3;
    f->prefill[1] = 6e-3;
    p->device[0].profile = f;
    CHECK_NEAR(cost_block_prefill(p, 0, 0, 1, 0), 1e-3, 1e-12);
    CHECK_NEAR(cost_block_prefill(p, 0, 0, 17, 0), 2e-3, 1e-12);
    CHECK_NEAR(cost_block_prefill(p, 0, 0, 33, 0), 3e-3, 1e-12);
    CHECK_NEAR(cost_block_prefill(p, 0, 0, 99, 0), 9e-3, 1e-12);
    f->prefill[0] = 0.5e-3; /* cannot be: more tokens in less time */
    CHECK_NEAR(cost_block_prefill(p, 0, 0, 17, 0), 1e-3, 1e-12);
    plan_problem_free(p);
}

static int same_plan(const struct plan *a, const struct plan *b)
{
    if (a->stages != b->stages)
        return 0;
    for (int s = 0; s < a->stages; s++)
        if (a->stage[s].device != b->stage[s].device)
            return 0;
    return 1;
}

/* The next-best plan is the best over all other sequences: checked by solving every sequence. */
static void next_best_is_the_second_sequence(void)
{
    struct oracle_random r = {.state = 11};
    int checked = 0;
    for (int i = 0; i < check_thin(60); i++) {
        struct plan_problem *p = oracle_problem(&r, 3, 6, ORACLE_UNEVEN_BLOCKS, 3);
        REQUIRE(p);
        p->pin_first = -1;
        struct plan plan;
        struct plan_reasons *why = NULL;
        struct error e = {0};
        if (plan_solve(p, NULL, &plan, &e) == 0) {
            REQUIRE(!plan_explain(&why, p, NULL, &plan, &e));
            static const int orders[15][4] = {{1, 0}, {1, 1}, {1, 2}, {2, 0, 1}, {2, 0, 2}, {2, 1, 0}, {2, 1, 2}, {2, 2, 0},
                                              {2, 2, 1}, {3, 0, 1, 2}, {3, 0, 2, 1}, {3, 1, 0, 2}, {3, 1, 2, 0},
                                              {3, 2, 0, 1}, {3, 2, 1, 0}};
            double second = INFINITY;
            for (int o = 0; o < 15; o++) {
                struct plan other;
                if (plan_solve(p, &(struct plan_options){.stages = orders[o][0], .order = orders[o] + 1}, &other, NULL))
                    continue;
                CHECK(other.value_s >= plan.value_s * (1 - 1e-12));
                if (!same_plan(&other, &plan))
                    second = fmin(second, other.value_s);
            }
            CHECK_INT(why->has_next, isfinite(second));
            if (why->has_next)
                CHECK_NEAR(why->next.value_s, second, second * 1e-9);
            struct plan single;
            CHECK_INT(why->has_single, plan_single(p, &single, NULL) == 0);
            CHECK(!why->has_single || plan.value_s <= single.value_s * (1 + 1e-12));
            CHECK_INT(why->left_out_count, 3 - plan.stages);
            for (int k = 0; k < why->sensitivity_count; k++)
                CHECK(why->sensitivity[k].value_s <= plan.value_s);
            checked++;
        }
        plan_reasons_free(why);
        plan_problem_free(p);
    }
    CHECK(checked > check_thin(60) / 3);
}

static void reasons_are_true(void)
{
    struct error e = {0};
    struct plan_problem *p = parse(sample, &e);
    REQUIRE(p);
    struct plan plan, richer;
    struct plan_reasons *why = NULL;
    REQUIRE(!plan_solve(p, NULL, &plan, &e));
    REQUIRE(!plan_explain(&why, p, NULL, &plan, &e));
    CHECK_INT(plan.stages, 2);
    CHECK_INT(plan.stage[0].last_block, 2);
    CHECK_NEAR(plan.value_s, 0.130944920, 1e-8);
    p->device[1].memory += 1e9;
    REQUIRE(!plan_solve(p, NULL, &richer, &e));
    p->device[1].memory -= 1e9;
    CHECK_INT(why->sensitivity[0].change, PLAN_MORE_MEMORY);
    CHECK_INT(why->sensitivity[0].device, 1);
    CHECK_NEAR(why->sensitivity[0].value_s, richer.value_s, 1e-12);
    struct buffer text = {0};
    CHECK_INT(plan_text(&text, p, &plan, why), 0);
    CHECK(strstr(text.data, "plan for latency: 2 stages of 2 devices, 32 blocks\n"));
    CHECK(strstr(text.data, "proof: optimal, gap 0 %\n"));
    CHECK(strstr(text.data, "bottleneck: the stage on orin takes 83.71 ms of TPOT 130.9 ms\n"));
    CHECK(strstr(text.data, "one node: pi5 alone would give TPOT 483.7 ms, 269 % slower than this plan\n"));
    CHECK(strstr(text.data, "next best: orin 28, pi5 4 gives TPOT 154 ms, 17.6 % slower\n"));
    CHECK(strstr(text.data, "if orin had 1 GB more memory: TPOT 94.58 ms"));
    buffer_free(&text);
    plan_reasons_free(why);

    /* One node that holds the model and wins: the plan says so, and why the other stays out. */
    p->device[1].memory = 9e9;
    REQUIRE(!plan_solve(p, NULL, &plan, &e));
    CHECK_INT(plan.stages, 1);
    REQUIRE(!plan_explain(&why, p, NULL, &plan, &e));
    CHECK_INT(plan_text(&text, p, &plan, why), 0);
    CHECK(strstr(text.data, "one node: orin alone beats every split\n"));
    CHECK(strstr(text.data, "left out: pi5, which at its best place (1 block "));
    buffer_free(&text);
    plan_reasons_free(why);
    p->device[0].memory = 3e8;
    REQUIRE(!plan_explain(&why, p, NULL, &plan, &e));
    CHECK_INT(why->left_out[0].why, PLAN_ABSENT_MEMORY);
    plan_reasons_free(why);
    plan_problem_free(p);
}

static void json_has_the_contract_keys(void)
{
    struct error e = {0};
    struct plan_problem *p = parse(sample, &e);
    REQUIRE(p);
    struct plan plan;
    struct plan_reasons *why;
    REQUIRE(!plan_solve(p, NULL, &plan, &e));
    REQUIRE(!plan_explain(&why, p, NULL, &plan, &e));
    json_t *json = plan_to_json(p, &plan, why);
    REQUIRE(json);
    const char *objective = NULL, *device = NULL, *bottleneck = NULL;
    int first = -1, last = -1, microbatches = -1;
    json_int_t memory = -1;
    double decode, prefill, tpot, ttft, rate, gap;
    CHECK_INT(json_unpack(json, "{s:s,s:i,s:F,s:{s:F,s:F,s:F,s:s}}", "objective", &objective, "microbatches",
                          &microbatches, "gap_percent", &gap, "predicted", "tpot_ms", &tpot, "ttft_ms", &ttft,
                          "tokens_per_s", &rate, "bottleneck", &bottleneck),
              0);
    CHECK_INT(json_unpack(json_array_get(json_object_get(json, "stages"), 1), "{s:s,s:i,s:i,s:I,s:F,s:F}", "device",
                          &device, "first_block", &first, "last_block", &last, "memory_bytes", &memory, "decode_ms",
                          &decode, "prefill_ms", &prefill),
              0);
    CHECK_TEXT(objective, "latency");
    CHECK_TEXT(device, "orin");
    CHECK_TEXT(bottleneck, "orin");
    CHECK_INT(first, 3);
    CHECK_INT(last, 31);
    CHECK_INT(microbatches, 1);
    CHECK_NEAR(tpot, plan.tpot_s * 1e3, 1e-9);
    CHECK_NEAR(rate, 1 / plan.tpot_s, 1e-9);
    CHECK_NEAR(gap, 0, 0);
    CHECK(json_array_size(json_object_get(json, "reasons")) >= 5);
    CHECK(json_array_size(json_object_get(json, "sensitivities")) == 3);
    CHECK(json_is_object(json_object_get(json, "next_best")));
    json_decref(json);
    plan_reasons_free(why);
    plan_problem_free(p);
}

/* Many devices and blocks: proven within a percent or so, and little effort. Time is not asked here; states are. */
static void large_problems_stay_small(void)
{
    struct oracle_random r = {.state = 2024};
    for (int i = 0; i < check_thin(6); i++) {
        struct plan_problem *p = oracle_problem(&r, 16, check_step() > 1 ? 40 : 80, 0, 1.5 + i);
        struct plan plan;
        struct error e = {0};
        REQUIRE(p);
        for (int o = 0; o < PLAN_OBJECTIVES; o++) {
            p->objective = (enum plan_objective)o;
            CHECK_INT(plan_solve(p, NULL, &plan, &e), 0);
            CHECK(plan.states <= 450000);
            if (plan_gap_percent(&plan) > (o == PLAN_TTFT ? 12 : 1))
                CHECK_FAIL("problem %d, %s: gap %g %%", i, plan_objective_name(p->objective), plan_gap_percent(&plan));
        }
        plan_problem_free(p);
    }
}

/* A budget of next to nothing still gives a plan or says that time was short; the bound stays a bound. */
static bool at_once(void *context)
{
    return ++*(int *)context > 3;
}

static void budgets_end_searches(void)
{
    struct oracle_random r = {.state = 99};
    for (int i = 0; i < check_thin(30); i++) {
        struct plan_problem *p = oracle_problem(&r, 8, 30, 0, 2);
        struct plan full, brief;
        struct error e = {0};
        int calls = 0;
        REQUIRE(p);
        struct plan_options options = {.max_states = 40, .expired = at_once, .expired_context = &calls};
        int rc = plan_solve(p, NULL, &full, &e);
        int cut = plan_solve(p, &options, &brief, &e);
        CHECK(cut == rc || cut == ERR_TIMEOUT);
        if (!rc && !cut) {
            CHECK(brief.value_s >= full.bound_s * (1 - 1e-9));
            CHECK(brief.bound_s <= full.value_s * (1 + 1e-9));
        }
        plan_problem_free(p);
    }
}

static void subsets_keep_the_rest(void)
{
    struct oracle_random r = {.state = 3};
    struct plan_problem *p = oracle_problem(&r, 4, 6, 0, 3);
    REQUIRE(p);
    p->coordinator_device = 1;
    p->pin_first = 2;
    struct plan_problem *q = plan_problem_subset(p, (int[]){3, 2}, 2);
    REQUIRE(q);
    CHECK_INT(q->coordinator_device, -1);
    CHECK_INT(q->pin_first, 1);
    CHECK_TEXT(q->device[0].name, "d3");
    CHECK_NEAR(plan_problem_link(q, 0, 1)->rtt_s, plan_problem_link(p, 3, 2)->rtt_s, 0);
    CHECK_NEAR(plan_problem_link(q, 0, 2)->rtt_s, plan_problem_link(p, 3, 1)->rtt_s, 0);
    struct error e = {0};
    CHECK_INT(plan_problem_check(q, &e), 0);
    plan_problem_free(p);
    plan_problem_free(q);
}

/* Two devices that are one machine: with micro-batches in both at once, its cores are the bottleneck. */
static void devices_of_one_host_share_its_cores(void)
{
    struct error e = {0};
    struct plan_problem *p = parse(sample, &e);
    struct plan apart, together;
    REQUIRE(p);
    p->workload.concurrency = 2;
    REQUIRE(!plan_evaluate(p, (int[]){0, 1}, (int[]){10, 22}, 2, &apart, &e));
    double alone = plan_round(p, &apart, 2);
    for (int d = 0; d < 2; d++) {
        p->device[d].host = 7;
        p->device[d].host_cores = 4;
        p->device[d].threads = 4;
    }
    REQUIRE(!plan_evaluate(p, (int[]){0, 1}, (int[]){10, 22}, 2, &together, &e));
    double both = cost_stage_decode(p, 0, 0, 9, 1) + cost_stage_decode(p, 1, 10, 31, 1);
    CHECK(apart.cycle_s <= together.cycle_s);
    CHECK_NEAR(plan_round(p, &together, 2), 2 * both, 1e-12);
    CHECK_NEAR(together.tpot_s, apart.tpot_s, 1e-15); /* one sequence: one after the other anyway */
    p->device[1].host = 8; /* of a machine each */
    CHECK_NEAR(plan_round(p, &together, 2), alone, 1e-15);
    p->device[1].host = 7;
    p->device[0].threads = p->device[1].threads = 2; /* there are enough */
    CHECK_NEAR(plan_round(p, &together, 2), fmax(alone, both), 1e-12);
    p->device[0].host_read = p->device[1].host_read = 2e9; /* but the memory is slow */
    CHECK_NEAR(plan_round(p, &together, 2), 2 * (32 * 122683392.0 + 131072000) / 2e9, 1e-9);
    plan_problem_free(p);
}

/* Five sequences in two micro-batches are three and two, by hand. */
static void a_round_counts_uneven_micro_batches(void)
{
    struct error e = {0};
    struct plan_problem *p = parse(sample, &e);
    struct plan plan;
    REQUIRE(p);
    p->workload.concurrency = 5;
    REQUIRE(!plan_evaluate(p, (int[]){0, 1}, (int[]){10, 22}, 2, &plan, &e));
    double first[4], second[4];
    for (int b = 1; b < 4; b++) {
        first[b] = cost_stage_decode(p, 0, 0, 9, b);
        second[b] = cost_stage_decode(p, 1, 10, 31, b);
    }
    double around = first[3] + second[3] + cost_hop(p, 0, 1, 3) + cost_token_hop(p, 1, 2);
    CHECK_NEAR(plan_round(p, &plan, 2), fmax(fmax(first[3], second[3]) + fmax(first[2], second[2]), around), 1e-12);
    CHECK(plan_round(p, &plan, 2) < plan.cycle_s + 1e-12 || plan.microbatches != 2);
    CHECK_NEAR(plan_round(p, &plan, 5), fmax(5 * fmax(first[1], second[1]), first[1] + second[1] + cost_hop(p, 0, 1, 1) + cost_token_hop(p, 1, 2)), 1e-12);
    plan_problem_free(p);
}

static const struct check_test tests[] = {
    {"devices of one host share its cores", devices_of_one_host_share_its_cores},
    {"a round counts uneven micro-batches", a_round_counts_uneven_micro_batches},
    {"what-if files become problems", what_if_files_become_problems},
    {"what-if files are strict", what_if_files_are_strict},
    {"infeasible plans show the arithmetic", infeasible_plans_show_the_arithmetic},
    {"measured profiles plan like formulas", measured_profiles_plan_like_formulas},
    {"a short prompt takes at least a token", a_short_prompt_takes_at_least_a_token},
    {"next best is the second sequence", next_best_is_the_second_sequence},
    {"reasons are true", reasons_are_true},
    {"json has the contract keys", json_has_the_contract_keys},
    {"large problems stay small", large_problems_stay_small},
    {"budgets end searches", budgets_end_searches},
    {"subsets keep the rest", subsets_keep_the_rest},
};

CHECK_MAIN(tests)
