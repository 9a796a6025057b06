/* Compares what stages report with what was planned for them. Owns nothing. */
#include "coordinator/core/slowness.h"

#include "base/log.h"
#include "coordinator/core/runner_state.h"

#define LOOK_EVERY_US INT64_C(100000)
#define LATELY_US INT64_C(1000000) /* what is compared came within this time */
#define SEEN_LEAST 3u
#define SLOW_RATIO 3.0             /* over the plan, and over the stage that is least over it */
#define WELL_RATIO 2.0             /* below it a slow one is well again */
#define SLOW_SECONDS 0.005         /* what takes less is not worth a word */
#define BUSY_SECONDS 0.3           /* a heartbeat looks five times a second: what takes half a second is not missed */

enum slowness_verdict slowness_judge(const struct slowness *stages, uint32_t count, uint32_t stage)
{
    const struct slowness *s = &stages[stage];
    double least = 0, longest = SLOW_RATIO * s->longest_seconds;
    if (s->busy_seconds > BUSY_SECONDS && s->busy_seconds > longest)
        return SLOWNESS_YES;
    for (uint32_t i = 0; i < count; i++) {
        if (stages[i].seen < SEEN_LEAST || !(stages[i].expected_seconds > 0) || !(stages[i].seconds > 0))
            return SLOWNESS_UNKNOWN;
        double ratio = stages[i].seconds / stages[i].expected_seconds;
        least = !i || ratio < least ? ratio : least;
    }
    double over = s->seconds / s->expected_seconds / (least > 1 ? least : 1);
    if (over > SLOW_RATIO && s->seconds >= SLOW_SECONDS)
        return SLOWNESS_YES;
    return over < WELL_RATIO || s->seconds < SLOW_SECONDS ? SLOWNESS_NO : SLOWNESS_UNKNOWN;
}

static void tell(const struct cluster_node *n, const struct slowness *s, bool slow)
{
    if (!slow)
        log_warn("worker \"%s\" is no longer slow: blocks %u-%u take %.1f ms", n->name, n->first_block, n->last_block,
                 s->seconds * 1e3);
    else if (s->busy_seconds > BUSY_SECONDS)
        log_warn("worker \"%s\" is slow: blocks %u-%u have been at one micro-batch for %.2f s, at most %.2f s was expected; "
                 "it answers", n->name, n->first_block, n->last_block, s->busy_seconds, s->longest_seconds);
    else
        log_warn("worker \"%s\" is slow: blocks %u-%u take %.1f ms, %.1f times what was expected; it answers", n->name,
                 n->first_block, n->last_block, s->seconds * 1e3, s->seconds / s->expected_seconds);
}

static struct scheduler_extent larger(struct scheduler_extent a, struct scheduler_extent b)
{
    return (struct scheduler_extent){a.rows > b.rows ? a.rows : b.rows, a.past > b.past ? a.past : b.past};
}

/* The most that was under way within the last second at least: heartbeats tell of the past. */
static struct scheduler_extent widest_lately(struct runner *r, int64_t now_us)
{
    struct scheduler_extent *widest = r->slowness_widest;
    if (now_us - r->slowness_widest_at > LATELY_US) {
        widest[1] = widest[0];
        widest[0] = (struct scheduler_extent){0};
        r->slowness_widest_at = now_us;
    }
    widest[0] = larger(widest[0], scheduler_widest(r->scheduler));
    return larger(widest[0], widest[1]);
}

void slowness_look(struct runner *r, int64_t now_us)
{
    struct runner_stage seen[PLAN_MAX_DEVICES];
    struct slowness stage[PLAN_MAX_DEVICES];
    uint32_t stages = r->layout.stages;
    for (uint32_t i = 0; i < cluster_node_count(r->cluster); i++)
        if (cluster_node_at(r->cluster, i)->slow && !cluster_node_at(r->cluster, i)->has_stage)
            cluster_set_slow(r->cluster, i, false); /* there is nothing it could be slow at */
    if (now_us < r->slowness_at || !r->meter || !r->planned || !r->problem || !stages || r->plan.stages != (int)stages ||
        stage_meter_count(r->meter) != stages)
        return;
    r->slowness_at = now_us + LOOK_EVERY_US;
    stage_meter_since(r->meter, now_us - LATELY_US, seen);
    struct scheduler_extent widest = widest_lately(r, now_us);
    for (uint32_t s = 0; s < stages; s++) {
        const struct control_message *beat = &cluster_node_at(r->cluster, r->layout.stage[s].node)->heartbeat;
        stage[s] = (struct slowness){
            .expected_seconds = planning_expected(r->problem, &r->plan, s, &seen[s]),
            .seconds = seen[s].decode_typical,
            .seen = seen[s].decodes,
            .longest_seconds = planning_expected_of(r->problem, &r->plan, s, widest.rows, widest.past),
            .busy_seconds =
                beat->kind == CONTROL_HEARTBEAT_REPLY ? (double)beat->u.heartbeat_reply.busy_for_us / 1e6 : 0,
        };
    }
    for (uint32_t s = 0; s < stages; s++) {
        const struct cluster_node *n = cluster_node_at(r->cluster, r->layout.stage[s].node);
        enum slowness_verdict verdict = slowness_judge(stage, stages, s);
        if (verdict == SLOWNESS_UNKNOWN || (verdict == SLOWNESS_YES) == n->slow)
            continue;
        cluster_set_slow(r->cluster, r->layout.stage[s].node, verdict == SLOWNESS_YES);
        tell(n, &stage[s], n->slow);
    }
}
