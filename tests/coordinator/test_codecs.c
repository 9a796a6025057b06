/* Codecs chosen for links: against every choice there is, and the promises of codecs.h. */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "coordinator/core/codecs.h"
#include "tests/check.h"

static uint64_t state;

static double between(double low, double high)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return low * exp(log(high / low) * (double)(state >> 11) * 0x1p-53);
}

/* Devices too small for the whole model, links of all rates. */
static struct plan_problem *problem(int devices, int blocks, enum plan_objective objective)
{
    struct plan_problem *p = plan_problem_new(blocks, devices);
    if (!p)
        abort();
    p->model.hidden = 4096;
    for (int k = 0; k < blocks; k++)
        p->model.block[k] = (struct plan_block){.weight_bytes = 1e8, .flops_per_token = 2e8, .kv_bytes = 1e3};
    for (int d = 0; d < devices; d++) {
        p->device[d] = (struct plan_device){.memory = 1e8 * (1 + blocks / devices) + 1e8, .read = between(5e9, 5e10),
                                            .compute = between(1e10, 1e12), .overhead_s = 1e-4};
        p->device[d].name = mem_printf("d%d", d);
    }
    p->coordinator = mem_strdup("desk");
    for (int a = 0; a <= devices; a++)
        for (int b = 0; b <= devices; b++)
            p->link[a * (devices + 1) + b] = (struct plan_link){between(3e5, 1e9), between(1e-4, 2e-3), 0, NULL};
    p->workload.concurrency = 4;
    p->objective = objective;
    p->may_round = true;
    return p;
}

static int solve(void *context, struct plan_problem *p, struct plan *out, struct error *err)
{
    (void)context;
    return plan_solve(p, NULL, out, err);
}

static double again(const struct plan_problem *p, const struct plan *plan)
{
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    struct plan out;
    for (int s = 0; s < plan->stages; s++) {
        order[s] = plan->stage[s].device;
        counts[s] = plan->stage[s].last_block - plan->stage[s].first_block + 1;
    }
    return plan_evaluate(p, order, counts, plan->stages, &out, NULL) ? -1 : out.value_s;
}

static const enum frame_codec choices[] = {CODEC_F32, CODEC_F16, CODEC_Q8};

/* The least error, all links together, with which this plan is within `value`. */
static double least_error(struct plan_problem *p, const struct plan *plan, double value)
{
    double least = INFINITY;
    int hops = plan->stages - 1, all = 1;
    for (int i = 0; i < hops; i++)
        all *= 3;
    for (int n = 0; n < all; n++) {
        double error = 0;
        for (int s = 0, rest = n; s < hops; s++, rest /= 3) {
            struct plan_link *l = &p->link[plan->stage[s].device * (p->devices + 1) + plan->stage[s + 1].device];
            l->value_bytes = codec_value_bytes(choices[rest % 3]);
            error += codec_error(choices[rest % 3]);
        }
        if (again(p, plan) <= value * (1 + 1e-12) && error < least)
            least = error;
    }
    return least;
}

static void choices_keep_their_promises(void)
{
    int rounded = 0, exact = 0;
    state = 7;
    for (int i = 0; i < check_thin(150); i++) {
        struct plan_problem *p = problem(2 + i % 3, 6, (enum plan_objective)(i % PLAN_OBJECTIVES));
        struct plan best, plan;
        struct error e = {0};
        REQUIRE(!plan_solve(p, NULL, &best, &e));
        plan = best;
        REQUIRE(!codecs_choose(p, solve, NULL, &plan, &e));
        double error = 0;
        bool any = false;
        for (int a = 0; a <= p->devices; a++)
            for (int b = 0; b <= p->devices; b++)
                any |= p->link[a * (p->devices + 1) + b].codec != NULL;
        for (int s = 0; s + 1 < plan.stages; s++)
            error += codec_error(codecs_of_link(p, plan.stage[s].device, plan.stage[s + 1].device, CODEC_F32));
        CHECK_NEAR(plan.exact_s, best.value_s, 0);
        CHECK(plan.rounded_s <= best.value_s * (1 + 1e-12));
        if (!any) {
            exact++;
            CHECK_NEAR(plan.value_s, best.value_s, 0);
            CHECK_INT(plan.stages, best.stages);
        } else {
            rounded++;
            CHECK(plan.value_s <= best.value_s * (1 - CODECS_GAIN));
            CHECK(error > 0 && error <= CODECS_ERROR);
            CHECK(plan.bound_s <= plan.value_s && plan.bound_s <= plan.rounded_s * (1 + 1e-12));
            CHECK_NEAR(again(p, &plan), plan.value_s, plan.value_s * 1e-12);
            /* As exact as any choice that is a step's worth faster. */
            double most = plan.value_s * (1 - CODECS_STEP * plan.stages);
            CHECK(error <= least_error(p, &plan, most) + 1e-12);
        }
        plan_problem_free(p);
    }
    CHECK(check_thin(150) < 100 || (rounded > 5 && exact > 5));
}

static void nothing_slow_nothing_rounded(void)
{
    state = 3;
    struct plan_problem *p = problem(3, 6, PLAN_LATENCY);
    struct plan plan;
    for (int i = 0; i < 16; i++)
        p->link[i].bandwidth = 1e9;
    REQUIRE(!plan_solve(p, NULL, &plan, NULL));
    REQUIRE(!codecs_choose(p, solve, NULL, &plan, NULL));
    CHECK(plan.rounded_s < plan.exact_s && plan.value_s == plan.exact_s);
    for (int i = 0; i < 16; i++)
        CHECK(!p->link[i].codec && p->link[i].value_bytes == 0);
    CHECK_INT(codecs_of_link(p, 0, 1, CODEC_BF16), CODEC_BF16);
    plan_problem_free(p);
}

static const struct check_test tests[] = {
    {"choices keep their promises", choices_keep_their_promises},
    {"nothing slow, nothing rounded", nothing_slow_nothing_rounded},
};

CHECK_MAIN(tests)
