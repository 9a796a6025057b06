/* Which kernel table this process uses. Written once by kernels_init (or kernels_force, in tests), then read by all. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/kernels/levels.h"
#include "engine/kernels/numerics.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"

#define VERSION 5u

static struct kernel_table chosen;
const struct kernel_table *kernels = &chosen;

static const struct {
    const char *name;
    bool (*runs)(void);
    void (*fill)(struct kernel_table *table);
} levels[] = {
    {"scalar", cpu_runs_scalar, kernels_fill_scalar},
#if defined(__x86_64__)
    {"avx2", cpu_runs_avx2, kernels_fill_avx2},
    {"avxvnni", cpu_runs_avxvnni, kernels_fill_avxvnni},
    {"avx512", cpu_runs_avx512, kernels_fill_avx512},
#elif defined(__aarch64__)
    {"neon", cpu_runs_neon, kernels_fill_neon},
    {"dotprod", cpu_runs_dotprod, kernels_fill_dotprod},
    {"i8mm", cpu_runs_i8mm, kernels_fill_i8mm},
#endif
};
#define LEVELS (sizeof levels / sizeof *levels)

const char *const *kernels_levels(void)
{
    static const char *names[LEVELS + 1];
    size_t count = 0;
    for (size_t i = 0; i < LEVELS; i++)
        if (levels[i].runs())
            names[count++] = levels[i].name;
    names[count] = NULL;
    return names;
}

static void choose(size_t level)
{
    struct kernel_table table;
    numerics_prepare();
    memset(&table, 0, sizeof table);
    kernels_fill_scalar(&table); /* complete; the level overwrites what it does better */
    levels[level].fill(&table);
    table.name = levels[level].name;
    chosen = table;
}

int kernels_force(const char *level, struct error *err)
{
    char have[64] = "";
    for (size_t i = 0; i < LEVELS; i++) {
        if (!levels[i].runs())
            continue;
        if (!strcmp(levels[i].name, level)) {
            choose(i);
            return 0;
        }
        strcat(strcat(have, have[0] ? ", " : ""), levels[i].name);
    }
    return error_set(err, ERR_UNSUPPORTED, "this CPU has no kernel level \"%s\"; it has: %s (BRIGADE_ISA)", level,
                     have);
}

int kernels_init(struct error *err)
{
    if (chosen.name)
        return 0;
    const char *wanted = getenv("BRIGADE_ISA");
    if (wanted && *wanted) {
        int rc = kernels_force(wanted, err);
        if (rc)
            return rc;
    } else {
        size_t best = 0;
        for (size_t i = 0; i < LEVELS; i++)
            if (levels[i].runs())
                best = i;
        choose(best);
    }
    log_info("kernels: %s", chosen.name);
    return 0;
}

const char *kernels_isa(void)
{
    return chosen.name ? chosen.name : "none";
}

uint32_t kernels_version(void)
{
    return VERSION;
}
