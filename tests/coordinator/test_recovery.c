/* Thousands of simulated clusters (sim/): whatever is lost, delayed, stopped or started again, no token is lost,
 * changed or said twice, no page leaks, every request ends.
 *
 *     test_coordinator_recovery [--schedules N] [--from SEED] [--jobs N]
 *     test_coordinator_recovery --trace SEED                                   replays one, telling what happens */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "tests/check.h"
#include "tests/coordinator/sim/sim.h"

enum { USUAL = 6000 };

static void release(void)
{
    for (uint32_t i = 0; i < SIM_NODES; i++)
        mem_free(w.node[i].cache);
    mem_free(w.mails);
    cluster_actions_free(&w.actions);
}

/* Every `step`th seed from `from`; the first that breaks a rule is told again with all that happened. */
static int run(uint64_t from, uint64_t count, uint64_t step)
{
    uint64_t recoveries = 0, results = 0, failed = 0, kept = 0, resent = 0, computed = 0, fetched = 0;
    for (uint64_t seed = from; seed < from + count; seed += step) {
        sim_run(seed, false);
        if (sim_is_broken) {
            printf("seed %llu again, step by step (--trace %llu):\n", (unsigned long long)seed,
                   (unsigned long long)seed);
            sim_run(seed, true);
            release();
            return 1;
        }
        recoveries += w.recoveries;
        results += w.results;
        failed += w.failed;
        kept += w.restored.kept_tokens;
        resent += w.restored.resent_tokens;
        computed += w.restored.computed_tokens;
        fetched += w.fetched;
    }
    printf("ok   from seed %llu: %llu recoveries, %llu results, %llu clusters that could not go on; of the tokens that were "
           "there %llu kept, %llu filled in, %llu computed again; %llu pages of blocks were fetched\n",
           (unsigned long long)from, (unsigned long long)recoveries, (unsigned long long)results,
           (unsigned long long)failed, (unsigned long long)kept, (unsigned long long)resent,
           (unsigned long long)computed, (unsigned long long)fetched);
    release();
    return count > 1000 && (!recoveries || !kept || !resent || !fetched); /* a simulation in which nothing happens proves nothing */
}

static int run_jobs(uint64_t from, uint64_t count, uint64_t jobs)
{
    int bad = 0;
    fflush(stdout);
    for (uint64_t j = 0; j < jobs; j++) {
        pid_t pid = fork();
        if (pid < 0)
            return 1;
        if (!pid)
            exit(run(from + j, count - j, jobs));
    }
    for (int status; wait(&status) > 0;)
        bad |= !WIFEXITED(status) || WEXITSTATUS(status) ? 1 : 0;
    return bad;
}

int main(int argc, char **argv)
{
    uint64_t count = (uint64_t)check_thin(USUAL), from = 1, jobs = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--schedules"))
            count = value;
        else if (!strcmp(argv[i], "--from"))
            from = value;
        else if (!strcmp(argv[i], "--jobs"))
            jobs = value ? value : 1;
        else if (!strcmp(argv[i], "--trace")) {
            sim_run(value, true);
            release();
            return sim_is_broken;
        }
    }
    int64_t started = clock_ms();
    int bad = jobs > 1 ? run_jobs(from, count, jobs) : run(from, count, 1);
    printf("%s %llu schedules in %.1f s\n", bad ? "FAIL" : "ok  ", (unsigned long long)count,
           (double)(clock_ms() - started) / 1e3);
    return bad;
}
