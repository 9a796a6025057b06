/* The partitioner against brute force: thousands of random small problems, every objective, ties included. */
#include "tests/check.h"

#include "planner/plan.h"
#include "tests/planner/oracle.h"

static int count_of(const struct plan *plan, int s)
{
    return plan->stage[s].last_block - plan->stage[s].first_block + 1;
}

/* Solves both ways; `label` names the case in a complaint. Returns 1 when there is a plan. */
static int compare(const struct plan_problem *p, const struct plan_options *options, const char *label, int number)
{
    struct plan plan;
    struct error e = {0};
    struct oracle_answer want = oracle_solve(p, options ? options->stages : 0, options ? options->counts : NULL,
                                             options ? options->order : NULL);
    int rc = plan_solve(p, options, &plan, &e);
    if (!want.feasible) {
        if (rc != ERR_INFEASIBLE)
            CHECK_FAIL("%s %d: got %d (%s) where nothing fits", label, number, rc, rc ? e.text : "a plan");
        CHECK(rc != ERR_INFEASIBLE || strstr(e.text, "no plan fits"));
        return 0;
    }
    if (rc) {
        CHECK_FAIL("%s %d: %s", label, number, e.text);
        return 0;
    }
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    for (int s = 0; s < plan.stages; s++) {
        order[s] = plan.stage[s].device;
        counts[s] = count_of(&plan, s);
    }
    double truth = oracle_value(p, plan.stages, order, counts), near = want.value * 1e-10;
    if (!(fabs(truth - plan.value_s) <= near))
        CHECK_FAIL("%s %d %s: says %.12g, is %.12g", label, number, plan_objective_name(p->objective), plan.value_s,
                   truth);
    if (!(fabs(plan.value_s - want.value) <= near))
        CHECK_FAIL("%s %d %s: %.12g with %d stages, best is %.12g with %d", label, number,
                   plan_objective_name(p->objective), plan.value_s, plan.stages, want.value, want.stages);
    else if (plan.stages != want.stages || memcmp(order, want.order, sizeof(int) * (size_t)want.stages))
        CHECK_FAIL("%s %d %s: the tie went to %d stages on %d.., not %d on %d..", label, number,
                   plan_objective_name(p->objective), plan.stages, order[0], want.stages, want.order[0]);
    if (plan_gap_percent(&plan) != 0)
        CHECK_FAIL("%s %d %s: a gap of %g %%", label, number, plan_objective_name(p->objective), plan_gap_percent(&plan));
    return 1;
}

#define FEW 12 /* cases at least: of three, none may be feasible */

static void many(const char *label, int cases, int flavour, int most_devices, int most_blocks)
{
    struct oracle_random r = {.state = (uint64_t)flavour * 1000003 + (uint64_t)most_devices};
    int solved = 0;
    cases = check_thin(cases) < FEW ? FEW : check_thin(cases);
    for (int i = 0; i < cases && check_failures < 20; i++) {
        int devices = 1 + oracle_below(&r, most_devices), blocks = 1 + oracle_below(&r, most_blocks);
        double tightness = oracle_spread(&r, 0.8, 4);
        struct plan_problem *p = oracle_problem(&r, devices, blocks, flavour, tightness);
        REQUIRE(p);
        solved += compare(p, NULL, label, i);
        plan_problem_free(p);
    }
    CHECK(solved > cases / 3);
}

static void plain_problems(void)
{
    many("plain", 3000, ORACLE_PLAIN, 4, 8);
    many("plain large", 150, ORACLE_PLAIN, 5, 10);
}

static void uneven_blocks(void)
{
    many("uneven", 3000, ORACLE_UNEVEN_BLOCKS, 4, 8);
    many("uneven large", 150, ORACLE_UNEVEN_BLOCKS, 5, 10);
}

static void identical_devices(void)
{
    many("twins", 2000, ORACLE_TWINS, 4, 8);
    many("twins, one link", 800, ORACLE_TWINS | ORACLE_FLAT_LINKS, 4, 8);
    many("twins large", 60, ORACLE_TWINS | ORACLE_FLAT_LINKS | ORACLE_UNEVEN_BLOCKS, 5, 10);
}

static void exact_ties(void)
{
    many("round", 2000, ORACLE_ROUND | ORACLE_FLAT_LINKS, 4, 8);
    many("round twins", 800, ORACLE_ROUND | ORACLE_TWINS | ORACLE_FLAT_LINKS, 4, 8);
    many("round uneven", 400, ORACLE_ROUND | ORACLE_UNEVEN_BLOCKS, 4, 8);
    many("round large", 60, ORACLE_ROUND | ORACLE_TWINS | ORACLE_FLAT_LINKS, 5, 10);
}

static void constraints_hold(void)
{
    struct oracle_random r = {.state = 77};
    for (int i = 0; i < check_thin(600) && check_failures < 20; i++) {
        int devices = 2 + oracle_below(&r, 3), blocks = devices + oracle_below(&r, 5);
        int flavour = oracle_below(&r, 2) ? ORACLE_UNEVEN_BLOCKS : ORACLE_TWINS;
        struct plan_problem *p = oracle_problem(&r, devices, blocks, flavour, oracle_spread(&r, 1.2, 6));
        REQUIRE(p);
        int stages = 1 + oracle_below(&r, devices), counts[8], order[8], left = blocks;
        for (int s = 0; s < stages; s++) {
            counts[s] = s + 1 == stages ? left : 1 + oracle_below(&r, left - (stages - s - 1));
            left -= counts[s];
            order[s] = (s + i) % devices;
        }
        compare(p, &(struct plan_options){.stages = stages}, "stages", i);
        compare(p, &(struct plan_options){.stages = stages, .counts = counts}, "counts", i);
        compare(p, &(struct plan_options){.stages = stages, .order = order}, "order", i);
        compare(p, &(struct plan_options){.stages = stages, .counts = counts, .order = order}, "both", i);
        plan_problem_free(p);
    }
}

static const struct check_test tests[] = {
    {"plain problems", plain_problems},       {"uneven blocks", uneven_blocks}, {"identical devices", identical_devices},
    {"exact ties", exact_ties}, {"constraints hold", constraints_hold},
};

CHECK_MAIN(tests)
