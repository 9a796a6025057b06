/* What the pace believes of the times that stages and rounds take, told by hand: neither the first look nor a spike, nor
 * waiting that looks like a hop. (test_pace.c: what the scheduler makes of it.) */
#include "tests/check.h"

#include <math.h>

#include "coordinator/core/schedule_pace.h"

static void nothing_is_believed_at_once(void)
{
    struct pace *p = NULL;
    struct error e = {0};
    REQUIRE(!pace_create(1, 8, &p, &e));
    struct frame_trace t = {.finished_us = 90000};
    struct pace_batch b = {.decodes = 4};
    static const struct pace_load four = {1, 4, 1.4}, eight = {1, 8, 1.4};
    CHECK(pace_decode_seconds(p, 0, 4) == 0);
    CHECK_INT(pace_groups(p, 8, 3, 4), 3);
    CHECK(pace_riders(p, &four, 256) == 16);
    CHECK_INT(pace_filler(p, &four, 1, 256), 0);
    pace_learn(p, &b, &t, 1); /* cold */
    t.finished_us = 10000;
    pace_learn(p, &b, &t, 2); /* not of this pipe */
    pace_learn(p, &b, &t, 1);
    CHECK(pace_decode_seconds(p, 0, 4) == 0);
    pace_learn(p, &b, &t, 1);
    CHECK(pace_decode_seconds(p, 0, 4) == 0.01);
    CHECK(pace_decode_seconds(p, 0, 2) == 0.0075 && pace_decode_seconds(p, 0, 8) == 0.015);
    CHECK(pace_decode_seconds(p, 0, 100) == 0.015); /* no more than 8 are ever decoded at once */
    b.decodes = 8;
    t.finished_us = 20000;
    for (int i = 0; i < 3; i++)
        pace_learn(p, &b, &t, 1);
    CHECK(pace_decode_seconds(p, 0, 6) == 0.015);
    b = (struct pace_batch){.prompt_tokens = 100};
    t.finished_us = 400000;
    pace_learn(p, &b, &t, 1);
    CHECK(pace_prompt_seconds(p, 0) == 0.004);
    CHECK(fabs(pace_riders(p, &eight, 256) - 2) < 1e-6); /* 8 ms at 4 ms each */
    CHECK_INT(pace_chunk_tokens(p, 256), 250);
    b = (struct pace_batch){.decodes = 8, .prompt_tokens = 2};
    t.finished_us = 24000;
    for (int i = 0; i < 3; i++)
        pace_learn(p, &b, &t, 1);
    CHECK(fabs(pace_riders(p, &eight, 256) - 4) < 1e-6); /* beside sequences they cost less */
    pace_forget(p, 1);
    b = (struct pace_batch){.decodes = 8};
    t.finished_us = 20000;
    for (int i = 0; i < 3; i++)
        pace_learn(p, &b, &t, 1);
    b.prompt_tokens = 2;
    for (int i = 0; i < 3; i++) /* they seem to cost nothing, */
        pace_learn(p, &b, &t, 1);
    CHECK(pace_riders(p, &eight, 256) > 8);
    b.prompt_tokens = 8;
    t.finished_us = 52000;
    for (int i = 0; i < 20; i++) /* but more of them do */
        pace_learn(p, &b, &t, 1);
    CHECK(fabs(pace_riders(p, &eight, 256) - 2) < 0.1);
    pace_forget(p, 2);
    CHECK(pace_decode_seconds(p, 1, 4) == 0 && pace_prompt_seconds(p, 0) == 0);
    pace_destroy(p);
}

/* One micro-batch over two stages, each by its own clock: it is received so long after the stage had done with the last. */
static void pass(struct pace *p, uint32_t decodes, const uint64_t seconds_us[2], uint64_t idle_us, double round_seconds)
{
    static uint64_t now[2] = {1000000, 5000000};
    struct frame_trace t[2];
    for (uint32_t s = 0; s < 2; s++) {
        t[s] = (struct frame_trace){.stage = s, .received_us = now[s] + idle_us, .started_us = now[s] + idle_us};
        t[s].finished_us = t[s].sent_us = now[s] = t[s].started_us + seconds_us[s];
    }
    pace_learn(p, &(struct pace_batch){.decodes = decodes, .round_seconds = round_seconds}, t, 2);
}

/* Unequal stages that read weights, four sequences: best in one micro-batch. Where two were under way, one waits for the
 * slow stage, and a busy machine reads it late: its round is no longer path. */
static void waiting_is_no_hop(void)
{
    static const uint64_t four[2] = {14000, 6000}, two[2] = {11000, 4500}, one[2] = {9000, 4000};
    struct pace *p = NULL;
    REQUIRE(!pace_create(2, 4, &p, NULL));
    for (int i = 0; i < 3; i++) {
        pass(p, 1, one, 100000, 0.014);
        pass(p, 2, two, 100000, 0.0165);
        pass(p, 4, four, 100000, 0.021);
    }
    CHECK_INT(pace_groups(p, 4, 1, 4), 1);
    for (int i = 0; i < 200; i++)
        pass(p, 2, two, 900, 0.045);
    CHECK_INT(pace_groups(p, 4, 1, 4), 1);
    pass(p, 4, four, 100000, 0.3); /* a spike is not believed, either */
    CHECK_INT(pace_groups(p, 4, 1, 4), 1);
    for (int i = 0; i < 200; i++)
        pass(p, 4, four, 100000, 0.051); /* hops that are long are */
    CHECK(pace_groups(p, 4, 1, 4) > 1);
    pace_destroy(p);
}

static const struct check_test tests[] = {
    {"nothing is believed at once", nothing_is_believed_at_once},
    {"waiting is no hop", waiting_is_no_hop},
};

CHECK_MAIN(tests)
