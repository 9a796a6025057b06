/* From measurements to a plan: the problem holds the model's costs and the measured times, holes of a profile are
 * filled, a split is kept or refused. The model is a small one made up in memory. */
#include "tests/check.h"

#include "base/memory.h"
#include "coordinator/core/planning.h"
#include "coordinator/core/runner.h"
#include "planner/cost.h"
#include "tests/engine/model_builder.h"

static struct model *open_model(void **bytes)
{
    size_t size;
    struct model_variant v = {.name = "plan", .architecture = "llama", .blocks = 8};
    struct gguf *g = NULL;
    struct model *m = NULL;
    struct error e = {0};
    *bytes = model_build(&v, TYPE_Q8_0, &size);
    if (gguf_open_memory(*bytes, size, "made up", &g, &e) || model_from_gguf(g, &m, &e)) {
        CHECK_FAIL("%s", e.text);
        gguf_close(g);
    }
    return m;
}

/* Decode for 1 and 4 sequences, prefill of 16 and 64 tokens; everything `slow` times slower than the first node. */
static struct control_message profile(struct control_cell cells[8], double slow)
{
    struct control_message m = {.kind = CONTROL_PROFILE};
    const struct control_cell made[8] = {
        {0, 1, 1, 32, 1e-3}, {0, 1, 1, 96, 1.5e-3}, {0, 4, 1, 32, 2e-3}, /* 4 x 96 is missing */
        {0, 1, 16, 0, 4e-3}, {0, 1, 64, 0, 16e-3},  {0, 1, 64, 128, 20e-3},
        {FRAME_KIND_HEAD, 1, 1, 0, 0.5e-3}, {FRAME_KIND_HEAD, 4, 1, 0, 0.8e-3},
    };
    for (int i = 0; i < 8; i++) {
        cells[i] = made[i];
        cells[i].seconds *= slow;
    }
    m.u.profile.cells = cells;
    m.u.profile.cell_count = 8;
    m.u.profile.head_seconds = 0.5e-3 * slow;
    m.u.profile.overhead_seconds = 1e-4;
    m.u.profile.read_bytes_per_s = 1e10;
    return m;
}

struct world {
    void *bytes;
    struct control_cell cells[3][8];
    struct control_message profiles[3];
    struct planning_node nodes[3];
    struct planning_link links[9];
    struct planning_input in;
};

static bool begin(struct world *w)
{
    static const char *const names[] = {"fast", "middle", "slow"};
    *w = (struct world){0};
    struct model *m = open_model(&w->bytes);
    for (int i = 0; i < 3; i++) {
        w->profiles[i] = profile(w->cells[i], 1 << i);
        w->nodes[i] = (struct planning_node){.name = names[i], .memory_bytes = UINT64_C(1) << 30, .rtt_seconds = 1e-3,
                                                .profile = &w->profiles[i]};
    }
    for (int i = 0; i < 9; i++)
        w->links[i] = (struct planning_link){1e8, 0.5e-3};
    w->in = (struct planning_input){.model = m,
                                    .kv = KV_F16,
                                    .kv_tokens = 256,
                                    .max_context = 256,
                                    .max_tokens = 80,
                                    .chunk_tokens = 64,
                                    .codec = CODEC_F16,
                                    .prompt_tokens = 64,
                                    .output_tokens = 64,
                                    .concurrency = 4,
                                    .node_count = 3,
                                    .nodes = w->nodes,
                                    .links = w->links};
    return m != NULL;
}

static void end(struct world *w)
{
    model_close((struct model *)(uintptr_t)w->in.model);
    mem_free(w->bytes);
}

static void measurements_become_the_problem(void)
{
    struct world w;
    struct plan_problem *p = NULL;
    struct error e = {0};
    REQUIRE(begin(&w));
    if (planning_problem(&w.in, &p, &e)) {
        CHECK_FAIL("%s", e.text);
        end(&w);
        return;
    }
    CHECK_INT(plan_problem_check(p, &e), 0);
    CHECK_INT(p->model.blocks, 8);
    CHECK_NEAR(p->model.block[3].kv_bytes, (double)model_block_cost(w.in.model, 3, KV_F16).kv_bytes_per_token, 0);
    CHECK_NEAR(p->workload.value_bytes, 2, 0);
    CHECK_INT(p->coordinator_device, -1);
    CHECK_NEAR(cost_block_decode(p, 0, 0, 1), 1.5e-3, 1e-9); /* context 96 */
    CHECK_NEAR(cost_block_decode(p, 2, 0, 1), 6e-3, 1e-9);
    CHECK_NEAR(cost_block_prefill(p, 1, 0, 64, 0), 32e-3, 1e-9);
    CHECK_NEAR(p->device[1].overhead_s, 1e-4, 1e-12);
    CHECK_NEAR(plan_problem_link(p, 0, 2)->bandwidth, 1e8, 1);
    CHECK_NEAR(plan_problem_link(p, 3, 0)->rtt_s, 1e-3, 1e-12);
    CHECK(cost_block_decode(p, 0, 0, 4) >= 2e-3); /* the hole has a time */
    CHECK_NEAR(cost_head_decode(p, 0, 1), 0.5e-3, 1e-12);
    CHECK_NEAR(cost_head_decode(p, 1, 4), 1.6e-3, 1e-12);
    plan_problem_free(p);
    end(&w);
}

static void a_disturbed_measurement_is_mild(void)
{
    struct world w;
    struct plan_problem *p = NULL;
    REQUIRE(begin(&w));
    w.cells[0][4].seconds = 5;    /* 64 tokens at once: somebody else had the core */
    w.cells[0][2].seconds = 1e-6; /* 4 sequences: faster than one? */
    REQUIRE(!planning_problem(&w.in, &p, NULL));
    CHECK_NEAR(cost_block_prefill(p, 0, 0, 64, 0), 1.5 * 4 * 4e-3, 1e-9);
    CHECK(cost_block_decode(p, 0, 0, 4) >= 1e-3);
    plan_problem_free(p);
    end(&w);
}

static void plans_obey(void)
{
    static const uint32_t split[] = {2, 5, 1}, wrong[] = {2, 5};
    struct world w;
    struct plan_problem *p = NULL;
    struct plan plan;
    struct error e = {0};
    REQUIRE(begin(&w));
    REQUIRE(!planning_problem(&w.in, &p, &e));
    REQUIRE(!planning_solve(p, 0, NULL, 0, &plan, &e));
    CHECK_INT(plan.stages, 1); /* latency: the fast one alone is best */
    CHECK_INT(plan.stage[0].device, 0);
    REQUIRE(!planning_solve(p, 3, NULL, 0, &plan, &e));
    CHECK_INT(plan.stages, 3);
    CHECK_INT(plan.stage[2].last_block, 7);
    REQUIRE(!planning_solve(p, 0, split, 3, &plan, &e));
    CHECK_INT(plan.stages, 3);
    CHECK_INT(plan.stage[0].last_block, 1);
    CHECK_INT(plan.stage[1].last_block, 6);
    CHECK_INT(plan.stage[1].device, 0); /* most blocks to the fastest */
    CHECK_INT(planning_solve(p, 0, wrong, 2, &plan, &e), ERR_USAGE);
    CHECK_TEXT(e.text, "the split adds up to 7 blocks, but the model has 8");
    CHECK_INT(planning_solve(p, 4, NULL, 0, &plan, &e), ERR_USAGE);
    CHECK_TEXT(e.text, "4 stages need 4 nodes, but there are 3");
    plan_problem_free(p);

    for (int i = 0; i < 3; i++)
        w.nodes[i].memory_bytes = 1000;
    REQUIRE(!planning_problem(&w.in, &p, &e));
    CHECK_INT(planning_solve(p, 0, NULL, 0, &plan, &e), ERR_INFEASIBLE);
    CHECK(*e.text);
    plan_problem_free(p);

    w.nodes[1].profile = NULL;
    w.cells[2][0].seconds = -1;
    CHECK_INT(planning_problem(&w.in, &p, &e), ERR_FORMAT);
    CHECK(strstr(e.text, "\"slow\""));
    end(&w);
}

static void what_was_not_measured_has_memory(void)
{
    static const uint32_t split[] = {5, 3};
    struct world w;
    struct plan_problem *p = NULL;
    struct plan plan;
    REQUIRE(begin(&w));
    w.in.here = true;
    w.in.node_count = 2;
    w.nodes[0].profile = w.nodes[1].profile = NULL;
    REQUIRE(!planning_problem(&w.in, &p, NULL));
    planning_unmeasured(p, split, 2, &plan);
    CHECK_INT(plan.stages, 2);
    CHECK_INT(plan.stage[1].first_block, 5);
    CHECK_INT(plan.stage[1].last_block, 7);
    CHECK(plan.stage[0].memory_bytes > 0);
    CHECK_NEAR(plan.tpot_s, 0, 0);
    CHECK_INT(p->coordinator_device, 0);
    plan_problem_free(p);
    end(&w);
}

/* A node that throttles: its stage takes longer than expected, so the next plan gives it less. */
static void running_stages_correct_profiles(void)
{
    struct world w;
    struct plan_problem *p = NULL;
    struct plan before, after;
    REQUIRE(begin(&w));
    w.in.objective = PLAN_THROUGHPUT;
    REQUIRE(!planning_problem(&w.in, &p, NULL));
    REQUIRE(!planning_solve(p, 2, NULL, 0, &before, NULL));
    struct runner_stage seen = {.decodes = 40, .decode_sequences = 2.5, .decode_context = 64};
    int fast = before.stage[0].device == 0 ? 0 : 1;
    REQUIRE(before.stage[fast].device == 0);
    const struct plan_stage *s = &before.stage[fast];
    double expected = planning_expected(p, &before, (uint32_t)fast, &seen);
    double two = cost_stage_decode_at(p, 0, s->first_block, s->last_block, 2, 64),
           three = cost_stage_decode_at(p, 0, s->first_block, s->last_block, 3, 64);
    CHECK_NEAR(expected, (two + three) / 2 - p->device[0].overhead_s, 1e-12);
    double chunk = cost_stage_prefill(p, 0, s->first_block, s->last_block, 0);
    CHECK_NEAR(planning_expected_of(p, &before, (uint32_t)fast, (uint32_t)cost_chunk_tokens(p, 0), 0), chunk, chunk * 0.2);
    CHECK(planning_expected_of(p, &before, (uint32_t)fast, 64, 0) > planning_expected_of(p, &before, (uint32_t)fast, 0, 0));
    CHECK(planning_expected_of(p, &before, (uint32_t)fast, 64, 500) >= planning_expected_of(p, &before, (uint32_t)fast, 64, 0));

    seen.decode_seconds = expected * 1.03;
    CHECK_NEAR(planning_correct(0, &seen, expected), 1, 0); /* chance */
    seen.decode_seconds = expected * 3;
    seen.decodes = 5;
    CHECK_NEAR(planning_correct(2, &seen, expected), 2, 0); /* too few */
    seen.decodes = 40;
    CHECK_NEAR(planning_correct(0, &seen, expected), 3, 1e-12);
    CHECK_NEAR(planning_correct(2, &seen, expected), 6, 1e-12);
    CHECK_NEAR(planning_correct(20, &seen, expected), 32, 1e-12);
    CHECK_NEAR(planning_correct(0, &seen, 0), 1, 0);
    seen.decode_seconds = expected / 2;
    CHECK_NEAR(planning_correct(3, &seen, expected), 1.5, 1e-12); /* it has cooled down */

    w.nodes[0].correction = 3;
    struct plan_problem *corrected = NULL;
    REQUIRE(!planning_problem(&w.in, &corrected, NULL));
    CHECK_NEAR(cost_block_decode(corrected, 0, 0, 1), 3 * cost_block_decode(p, 0, 0, 1), 1e-12);
    CHECK_NEAR(cost_block_prefill(corrected, 0, 0, 64, 0), 3 * cost_block_prefill(p, 0, 0, 64, 0), 1e-12);
    CHECK_NEAR(cost_block_decode(corrected, 1, 0, 1), cost_block_decode(p, 1, 0, 1), 0);
    REQUIRE(!planning_solve(corrected, 2, NULL, 0, &after, NULL));
    int now = 0;
    for (int i = 0; i < after.stages; i++)
        if (after.stage[i].device == 0)
            now = after.stage[i].last_block - after.stage[i].first_block + 1;
    CHECK(now < s->last_block - s->first_block + 1);
    plan_problem_free(corrected);
    plan_problem_free(p);
    end(&w);
}

static const struct check_test tests[] = {
    {"running stages correct profiles", running_stages_correct_profiles},
    {"measurements become the problem", measurements_become_the_problem},
    {"a disturbed measurement is mild", a_disturbed_measurement_is_mild},
    {"plans obey", plans_obey},
    {"what was not measured has memory", what_was_not_measured_has_memory},
};

CHECK_MAIN(tests)
