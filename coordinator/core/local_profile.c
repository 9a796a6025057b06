/* The device profile of this process: measured (execution/profile.c) on the loaded stages themselves. */
#include "coordinator/core/local_profile.h"

#include "base/clock.h"
#include "base/machine.h"
#include "execution/profile.h"

#define BUDGET_MS 1500

int local_profile(const struct model *m, struct stage *const *stages, uint32_t stage_count, struct pool *pool,
                  struct control_message *out, struct error *err)
{
    const struct stage_options *so = stage_options(stages[0]);
    struct control_message profile = {.kind = CONTROL_PROFILE};
    struct profiling p = {
        .model = m, .kv = so->kv, .pool = pool, .slowdown = 1, .out = &profile, .deadline_ms = clock_ms() + BUDGET_MS};
    uint32_t room = so->kv_pages * KV_PAGE_TOKENS, first, last;
    profile_grid_plan(model_info(m), so->max_context, 0, so->max_tokens,
                      room < so->max_context ? room : so->max_context, &p.grid);
    int rc = profile_begin(&p, err);
    for (uint32_t s = stage_count; s-- > 0 && !rc;) { /* the last one first: it has the head */
        const struct stage_options *o = stage_options(stages[s]);
        while (!rc && profile_next_run(&p, o->first_block, o->last_block, UINT32_MAX, &first, &last))
            rc = profile_run(&p, stages[s], first, last, err);
    }
    if (!rc)
        rc = profile_end(&p, machine_memory_available(), err);
    if (!rc)
        *out = profile;
    else
        control_free(&profile);
    return rc;
}
