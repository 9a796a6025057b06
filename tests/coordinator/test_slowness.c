/* Slow or not: over the plan, over the others, or at one micro-batch for too long; and nothing said when little is known. */
#include "tests/check.h"

#include "coordinator/core/slowness.h"
#include "coordinator/core/stage_meter.h"

/* A stage that takes `times` times what was planned: 10 ms. */
static struct slowness stage(double times)
{
    return (struct slowness){.expected_seconds = 0.01, .seconds = 0.01 * times, .seen = 10, .longest_seconds = 0.1};
}

static void one_that_crawls(void)
{
    struct slowness s[] = {stage(1.1), stage(3.5), stage(0.9)};
    CHECK_INT(slowness_judge(s, 3, 0), SLOWNESS_NO);
    CHECK_INT(slowness_judge(s, 3, 1), SLOWNESS_YES);
    CHECK_INT(slowness_judge(s, 3, 2), SLOWNESS_NO);
}

static void all_that_crawl_have_a_bad_plan(void)
{
    struct slowness s[] = {stage(4), stage(5), stage(4.5)};
    for (uint32_t i = 0; i < 3; i++)
        CHECK_INT(slowness_judge(s, 3, i), SLOWNESS_NO);
}

static void no_flutter_in_between(void)
{
    struct slowness s[] = {stage(1), stage(2.5)};
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_UNKNOWN);
    s[1] = stage(1.9);
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_NO);
}

static void microseconds_do_not_matter(void)
{
    struct slowness s[] = {stage(1), stage(10)};
    for (uint32_t i = 0; i < 2; i++) {
        s[i].seconds /= 100;
        s[i].expected_seconds /= 100;
    }
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_NO);
}

static void little_is_known(void)
{
    struct slowness s[] = {stage(1), stage(10)};
    s[0].seen = 2;
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_UNKNOWN);
    s[0] = stage(1);
    s[1].expected_seconds = 0;
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_UNKNOWN);
}

static void a_micro_batch_that_does_not_end(void)
{
    struct slowness s[] = {{.longest_seconds = 0.1}, {.longest_seconds = 0.1}};
    s[1].busy_seconds = 0.25;
    s[1].longest_seconds = 0.01;
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_UNKNOWN);
    s[1].busy_seconds = 0.35;
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_YES);
    CHECK_INT(slowness_judge(s, 2, 0), SLOWNESS_UNKNOWN);
    s[1].longest_seconds = 0.2; /* three times as long may yet be */
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_UNKNOWN);
    s[1].longest_seconds = 5; /* a slow board with a long prompt */
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_UNKNOWN);
    s[1].busy_seconds = 15.1;
    CHECK_INT(slowness_judge(s, 2, 1), SLOWNESS_YES);
}

/* One decoding micro-batch of one stage that took so long, and whose result comes then. */
static void came(struct stage_meter *m, uint64_t id, int64_t at_us, double seconds)
{
    struct frame_span span = {.first = 100, .count = 1};
    struct frame_work work = {.microbatch = id, .span_count = 1, .spans = &span, .tokens = 1};
    struct frame_trace trace = {.started_us = 1000, .received_us = 1000, .finished_us = 1000 + (uint64_t)(seconds * 1e6)};
    stage_meter_sent(m, &work, at_us - (int64_t)(seconds * 1e6));
    stage_meter_result(m, &(struct frame_result){.microbatch = id, .trace_count = 1, .trace = &trace}, at_us);
}

static double typical(const struct stage_meter *m, int64_t since_us)
{
    struct runner_stage seen;
    stage_meter_since(m, since_us, &seen);
    return seen.decode_typical;
}

static void what_takes_the_time_counts(void)
{
    struct stage_meter *m = NULL;
    uint64_t id = 1;
    REQUIRE(!stage_meter_create(1, &m, NULL));
    CHECK_NEAR(typical(m, 0), 0, 0);
    for (int i = 0; i < 60; i++)
        came(m, id++, 10000 * (i + 1), 0.002);
    CHECK_NEAR(typical(m, 0), 0.002, 1e-9);
    came(m, id++, 800000, 0.2); /* one alone may be an accident */
    CHECK_NEAR(typical(m, 0), 0.002, 1e-9);
    came(m, id++, 1000000, 0.2); /* two say so, though most of those that came were short */
    CHECK_NEAR(typical(m, 0), 0.2, 1e-9);
    struct runner_stage seen;
    stage_meter_since(m, 0, &seen);
    CHECK_NEAR(seen.decode_seconds, 0.002, 1e-9);
    for (int i = 0; i < 10; i++)
        came(m, id++, 2000000 + 10000 * i, 0.002);
    CHECK_NEAR(typical(m, 2000000), 0.002, 1e-9); /* that was before */
    CHECK_NEAR(typical(m, 2090000), 0, 0);        /* one only */
    stage_meter_destroy(m);
}

static const struct check_test tests[] = {
    {"one that crawls", one_that_crawls},
    {"all that crawl have a bad plan", all_that_crawl_have_a_bad_plan},
    {"no flutter in between", no_flutter_in_between},
    {"microseconds do not matter", microseconds_do_not_matter},
    {"little is known", little_is_known},
    {"a micro-batch that does not end", a_micro_batch_that_does_not_end},
    {"what takes the time counts", what_takes_the_time_counts},
};

int main(int argc, char **argv)
{
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
