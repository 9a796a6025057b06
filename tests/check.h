/* A small test frame: CHECK records a failure and goes on, REQUIRE leaves the test; check_main runs a table and
 * prints one line a test. A test program exits 0 only when every check held, 77 when all its tests were skipped. */
#ifndef BRIGADE_TESTS_CHECK_H
#define BRIGADE_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct check_test {
    const char *name;
    void (*run)(void);
};

static int check_failures;
static int check_skipped;

#define CHECK_FAIL(...)                                                                                               \
    do {                                                                                                              \
        if (check_failures++ < 40) {                                                                                  \
            printf("    %s:%d: ", __FILE__, __LINE__);                                                                \
            printf(__VA_ARGS__);                                                                                      \
            printf("\n");                                                                                             \
        }                                                                                                             \
    } while (0)
#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition))                                                                                             \
            CHECK_FAIL("failed: %s", #condition);                                                                     \
    } while (0)
#define CHECK_INT(got, want)                                                                                          \
    do {                                                                                                              \
        long long got_ = (long long)(got), want_ = (long long)(want);                                                 \
        if (got_ != want_)                                                                                            \
            CHECK_FAIL("%s is %lld, not %lld", #got, got_, want_);                                                    \
    } while (0)
#define CHECK_NEAR(got, want, tolerance)                                                                              \
    do {                                                                                                              \
        double got_ = (got), want_ = (want);                                                                          \
        if (!(fabs(got_ - want_) <= (tolerance)))                                                                     \
            CHECK_FAIL("%s is %.9g, not %.9g within %g", #got, got_, want_, (double)(tolerance));                     \
    } while (0)
#define CHECK_TEXT(got, want)                                                                                         \
    do {                                                                                                              \
        const char *got_ = (got), *want_ = (want);                                                                    \
        if (!got_ || strcmp(got_, want_))                                                                             \
            CHECK_FAIL("%s is \"%s\", not \"%s\"", #got, got_ ? got_ : "(null)", want_);                              \
    } while (0)

/* One case in how many of a kind is run: 1, or BRIGADE_TEST_THIN, which is set where programs run many times slower
 * (sanitizers, emulation) and another run on the same machine does them all. */
static inline int check_step(void)
{
    const char *text = getenv("BRIGADE_TEST_THIN");
    int step = text ? atoi(text) : 1;
    return step > 1 ? step : 1;
}

/* So many of n random cases. */
static inline int check_thin(int n)
{
    return (n + check_step() - 1) / check_step();
}

/* The limit, in milliseconds, for what must come but need not come soon: a machine may have much else to do, and programs
 * may run many times slower. Reaching it is a failure, so it costs nothing to be generous. */
static inline long long check_patience_ms(void)
{
    return check_step() > 1 ? 600000 : 120000;
}

/* Of a test's own limit: from two seconds on it stands for "until it comes"; shorter ones are for what must not come. */
static inline long long check_limit_ms(int ms)
{
    return ms < 2000 ? ms : check_patience_ms();
}

#define REQUIRE(condition)                                                                                            \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            CHECK_FAIL("failed: %s", #condition);                                                                     \
            return;                                                                                                   \
        }                                                                                                             \
    } while (0)
#define SKIP(why)                                                                                                     \
    do {                                                                                                              \
        printf("    skipped: %s\n", why);                                                                             \
        check_skipped++;                                                                                              \
        return;                                                                                                       \
    } while (0)

/* Runs the tests of a table whose names contain argv[1] (all without one). */
static inline double check_now_s(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline int check_main(int argc, char **argv, const struct check_test *tests, size_t count)
{
    int failed = 0, ran = 0, skipped = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && !strstr(tests[i].name, argv[1]))
            continue;
        check_failures = check_skipped = 0;
        double started = check_now_s();
        tests[i].run();
        printf("%s %s (%.1f s)\n", check_failures ? "FAIL" : check_skipped ? "skip" : "ok  ", tests[i].name,
               check_now_s() - started);
        ran++;
        failed += check_failures != 0;
        skipped += !check_failures && check_skipped;
    }
    if (!ran) {
        fprintf(stderr, "no test has that name\n");
        return 1;
    }
    return failed ? 1 : skipped == ran ? 77 : 0;
}

#define CHECK_MAIN(tests)                                                                                             \
    int main(int argc, char **argv)                                                                                   \
    {                                                                                                                 \
        return check_main(argc, argv, tests, sizeof(tests) / sizeof *(tests));                                        \
    }

#endif
