/* The pool: every item exactly once, whatever the grain and the number of threads, job after job, after sleep too. */
#include "tests/check.h"

#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "engine/threads.h"

#define ITEMS 10007

struct tally {
    _Atomic int seen[ITEMS];
    _Atomic int bad;
    size_t grain, items;
    int threads;
};

static void count(void *context, size_t begin, size_t end, int thread)
{
    struct tally *t = context;
    if (begin >= end || end > t->items || begin % t->grain || (end % t->grain && end != t->items) || thread < 0 ||
        thread >= t->threads)
        atomic_fetch_add(&t->bad, 1);
    for (size_t i = begin; i < end && i < ITEMS; i++)
        atomic_fetch_add_explicit(&t->seen[i], 1, memory_order_relaxed);
}

static void test_every_item_once(void)
{
    static struct tally t;
    for (int threads = 1; threads <= 5; threads++) {
        struct pool *pool = NULL;
        struct pool_options options = {.threads = threads, .bind = threads % 2, .spin_us = threads == 3 ? 1 : 0};
        REQUIRE(pool_create(&options, &pool, NULL) == 0);
        CHECK_INT(pool_threads(pool), threads);
        static const size_t grains[] = {1, 7, 64, 5000, 20000}, sizes[] = {0, 1, 2, 63, 64, 1000, ITEMS};
        for (size_t g = 0; g < 5; g++)
            for (size_t s = 0; s < 7; s++) {
                memset(&t, 0, sizeof t);
                t.grain = grains[g];
                t.items = sizes[s];
                t.threads = threads;
                pool_for(pool, t.items, t.grain, count, &t);
                int wrong = 0;
                for (size_t i = 0; i < ITEMS; i++)
                    wrong += t.seen[i] != (i < t.items);
                CHECK_INT(wrong, 0);
                CHECK_INT(t.bad, 0);
            }
        pool_destroy(pool);
    }
    memset(&t, 0, sizeof t);
    t.grain = t.items = 10;
    t.threads = 1;
    pool_for(NULL, 10, 10, count, &t);
    CHECK_INT(t.bad, 0);
    CHECK_INT(t.seen[9], 1);
}

static void add_range(void *context, size_t begin, size_t end, int thread)
{
    _Atomic uint64_t *sum = context;
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add_explicit(sum, i, memory_order_relaxed);
}

static void test_many_jobs(void)
{
    struct pool *pool = NULL;
    struct pool_options options = {.threads = 4, .spin_us = 20};
    REQUIRE(pool_create(&options, &pool, NULL) == 0);
    _Atomic uint64_t sum = 0;
    uint64_t want = 0;
    for (int job = 0; job < 5000; job++) {
        size_t items = (size_t)(job % 37) + 1;
        pool_for(pool, items, 1, add_range, &sum);
        want += items * (items - 1) / 2;
        if (job % 1000 == 0)
            usleep(3000); /* long enough for all to sleep */
    }
    CHECK(sum == want);
    pool_destroy(pool);
}

static void test_refusals_and_cpu(void)
{
    struct pool *pool = NULL;
    struct error err = {0};
    struct pool_options options = {.threads = -1};
    CHECK_INT(pool_create(&options, &pool, &err), ERR_USAGE);
    CHECK(!pool && err.text[0]);
    pool_destroy(NULL);
    CHECK_INT(pool_threads(NULL), 1);
    struct cpu_info cpu;
    cpu_describe(&cpu);
    CHECK(cpu.cores >= 1 && cpu.kinds >= 1 && cpu.l1_bytes && cpu.l2_bytes && cpu.model[0]);
    printf("    %s: %d cores, %d kinds, caches %zu KiB, %zu KiB, %zu KiB\n", cpu.model, cpu.cores, cpu.kinds,
           cpu.l1_bytes >> 10, cpu.l2_bytes >> 10, cpu.l3_bytes >> 10);
    options = (struct pool_options){.threads = 0};
    REQUIRE(pool_create(&options, &pool, &err) == 0);
    CHECK_INT(pool_threads(pool), cpu.cores);
    pool_destroy(pool);
}

static const struct check_test tests[] = {
    {"every item once", test_every_item_once},
    {"many jobs", test_many_jobs},
    {"refusals and cpu", test_refusals_and_cpu},
};
CHECK_MAIN(tests)
