/* When blocks move by themselves: only for a gain that lasts, rarely, and back when it was a mistake. */
#include "tests/check.h"

#include "coordinator/core/rebalance.h"

#define S(seconds) ((int64_t)((seconds)*1e6))

/* Looks every two seconds from `from` to `to` with the same facts; the time of the first verdict that is not STAY, or
 * 0. */
static int64_t watch(struct rebalance *r, double from, double to, double gain, double round,
                     enum rebalance_verdict *verdict)
{
    for (int64_t at = S(from); at <= S(to); at += S(2))
        if ((*verdict = rebalance_look(r, gain, round, at)) != REBALANCE_STAY)
            return at;
    return 0;
}

static void only_what_lasts_moves(void)
{
    struct rebalance r = {0};
    enum rebalance_verdict v;
    CHECK_INT(watch(&r, 0, 1000, 0.09, 0.1, &v), 0);   /* too little */
    CHECK_INT(watch(&r, 1000, 1028, 0.5, 0.1, &v), 0); /* not for long enough */
    CHECK_INT(rebalance_look(&r, 0.02, 0.1, S(1029)), REBALANCE_STAY);
    CHECK_INT(watch(&r, 1030, 1058, 0.5, 0.1, &v), 0); /* it was gone in between */
    CHECK_INT(watch(&r, 1060, 1062, 0.5, 0.1, &v), S(1060));
    CHECK_INT(v, REBALANCE_MOVE);
}

static void moves_are_far_apart(void)
{
    struct rebalance r = {0};
    enum rebalance_verdict v;
    int64_t first = watch(&r, 0, 100, 0.2, 0.1, &v);
    CHECK_INT(first, S(30));
    CHECK_INT(watch(&r, 32, 328, 0.9, 0.1, &v), 0);
    int64_t second = watch(&r, 330, 400, 0.9, 0.1, &v);
    CHECK_INT(v, REBALANCE_MOVE);
    CHECK(second - first >= REBALANCE_APART_US);
}

static void a_move_that_made_it_slower_is_taken_back(void)
{
    struct rebalance r = {0};
    enum rebalance_verdict v;
    int64_t moved = watch(&r, 0, 100, 0.2, 0.1, &v);
    CHECK_INT(watch(&r, 32, 58, 0, 0.2, &v), 0); /* not judged before its time */
    CHECK_INT(watch(&r, 60, 62, 0, 0.2, &v), moved + REBALANCE_JUDGE_US);
    CHECK_INT(v, REBALANCE_BACK);
    CHECK_INT(watch(&r, 62, 350, 0.9, 0.1, &v), 0); /* and then it rests */
    CHECK(watch(&r, 352, 500, 0.9, 0.1, &v) > 0 && v == REBALANCE_MOVE);
}

static void times_are_the_files(void)
{
    struct rebalance r = {.hold_us = S(4), .apart_us = S(20), .judge_us = S(6)};
    enum rebalance_verdict v;
    CHECK_INT(watch(&r, 2, 100, 0.2, 0.1, &v), S(6));
    CHECK_INT(v, REBALANCE_MOVE);
    CHECK_INT(watch(&r, 8, 100, 0, 0.2, &v), S(12)); /* judged 6 s after it */
    CHECK_INT(v, REBALANCE_BACK);
    CHECK_INT(watch(&r, 14, 100, 0.2, 0.1, &v), S(32)); /* which counts as a move */
    CHECK_INT(v, REBALANCE_MOVE);
}

static void a_move_that_helped_stays(void)
{
    struct rebalance r = {0};
    enum rebalance_verdict v;
    watch(&r, 0, 100, 0.2, 0.1, &v);
    CHECK_INT(watch(&r, 32, 300, 0, 0.09, &v), 0);
    CHECK_INT(watch(&r, 300, 328, 0, 0.5, &v), 0); /* slower much later: for another reason */
}

static void what_else_happened_is_not_judged(void)
{
    struct rebalance r = {0};
    enum rebalance_verdict v;
    watch(&r, 0, 100, 0.2, 0.1, &v);
    rebalance_forget(&r, S(40));
    CHECK_INT(watch(&r, 42, 200, 0, 0.9, &v), 0);
    CHECK_INT(watch(&r, 200, 320, 0.9, 0.9, &v), 0); /* still far apart */
}

static const struct check_test tests[] = {
    {"only what lasts moves", only_what_lasts_moves},
    {"moves are far apart", moves_are_far_apart},
    {"a move that made it slower is taken back", a_move_that_made_it_slower_is_taken_back},
    {"times are the file's", times_are_the_files},
    {"a move that helped stays", a_move_that_helped_stays},
    {"what else happened is not judged", what_else_happened_is_not_judged},
};

int main(int argc, char **argv)
{
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
