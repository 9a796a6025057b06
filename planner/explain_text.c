/* Reasons in words: sentences, and the table of stages around them. Pure. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "planner/cost.h"
#include "planner/explain.h"

static const char *objective_text(enum plan_objective objective)
{
    return objective == PLAN_LATENCY ? "TPOT" : objective == PLAN_TTFT ? "TTFT" : "cycle";
}

static const char *name_of(const struct plan_problem *p, int device)
{
    return device < p->devices ? p->device[device].name : p->coordinator;
}

/* "130.9 ms", "18.83 s": four digits, never an exponent. */
#define TIME_TEXT 32
static const char *time_text(double seconds, char text[static TIME_TEXT])
{
    double ms = seconds * 1e3;
    if (ms < 9999.5)
        snprintf(text, TIME_TEXT, "%.4g ms", ms);
    else
        snprintf(text, TIME_TEXT, seconds < 9999.5 ? "%.4g s" : "%.0f s", seconds);
    return text;
}

static const char *rate_text(double rate, char text[static TIME_TEXT])
{
    snprintf(text, TIME_TEXT, rate < 9999.5 ? "%.4g tokens/s" : "%.0f tokens/s", rate);
    return text;
}

static void sequence(struct buffer *out, const struct plan_problem *p, const struct plan *plan)
{
    for (int s = 0; s < plan->stages; s++)
        buffer_printf(out, "%s%s %d", s ? ", " : "", p->device[plan->stage[s].device].name,
                      plan->stage[s].last_block - plan->stage[s].first_block + 1);
}

static double percent(double value, double base)
{
    return base > 0 ? 100 * (value - base) / base : 0;
}

/* Throughput is what people think in; the cycle is what is computed. */
static void value_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan, double value_s)
{
    char text[TIME_TEXT];
    if (plan->objective == PLAN_THROUGHPUT)
        buffer_puts(out, rate_text(value_s > 0 ? p->workload.concurrency / value_s : 0, text));
    else
        buffer_printf(out, "%s %s", objective_text(plan->objective), time_text(value_s, text));
}

static void limit_line(struct buffer *out, const struct plan_problem *p, const struct plan *plan)
{
    char text[PLAN_LIMIT_TEXT], took[TIME_TEXT], whole[TIME_TEXT];
    const struct plan_stage *g = &plan->stage[plan->limit];
    double part = plan->objective == PLAN_LATENCY ? g->decode_s
                  : plan->objective == PLAN_TTFT  ? g->prefill_s
                                                  : g->decode_batch_s * plan->microbatches;
    if (plan->link_to >= 0) {
        int from = g->device, to = plan->stage[plan->link_to].device;
        part = plan->objective == PLAN_LATENCY ? cost_hop(p, from, to, 1)
               : plan->objective == PLAN_TTFT  ? cost_transfer(p, from, to, p->workload.prompt_tokens)
                                               : cost_transfer(p, from, to, plan->batch) * plan->microbatches;
    }
    buffer_printf(out, "bottleneck: %s %s takes %s of %s %s\n", plan->link_to >= 0 ? "the link" : "the stage on",
                  plan_limit_text(p, plan, text), time_text(part, took), objective_text(plan->objective),
                  time_text(plan->value_s, whole));
}

/* ", 3.1 % slower": under a constraint (a number of stages asked for) another value may be the better one. */
static void compare(struct buffer *out, double value_s, double plan_s)
{
    bool slower = value_s >= plan_s;
    buffer_printf(out, ", %.3g %% %s", slower ? percent(value_s, plan_s) : 100 * (1 - value_s / plan_s),
                  slower ? "slower" : "faster");
}

static void single_line(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                        const struct plan_reasons *why)
{
    if (!why->has_single) {
        buffer_puts(out, "one node: no device holds the whole model\n");
        return;
    }
    const struct plan *one = &why->single;
    const char *name = p->device[one->stage[0].device].name;
    if (plan->stages == 1 && plan->stage[0].device == one->stage[0].device) {
        buffer_printf(out, "one node: %s alone beats every split\n", name);
        return;
    }
    buffer_printf(out, "one node: %s alone would give ", name);
    value_text(out, p, plan, one->value_s);
    compare(out, one->value_s, plan->value_s);
    buffer_puts(out, " than this plan\n");
}

static void next_line(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                      const struct plan_reasons *why)
{
    if (!why->has_next) {
        buffer_puts(out, "next best: no other sequence of devices is feasible\n");
        return;
    }
    buffer_puts(out, "next best: ");
    sequence(out, p, &why->next);
    buffer_puts(out, " gives ");
    value_text(out, p, plan, why->next.value_s);
    compare(out, why->next.value_s, plan->value_s);
    if (plan_gap_percent(&why->next) > 0)
        buffer_printf(out, " (proven within %.2g %%)", plan_gap_percent(&why->next));
    buffer_putc(out, '\n');
}

static void absence_line(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                         const struct plan_left_out *l)
{
    const struct plan_device *d = &p->device[l->device];
    char a[UNITS_TEXT], b[UNITS_TEXT];
    double least = INFINITY;
    for (int k = 0; k < p->model.blocks; k++)
        least = fmin(least, cost_block_memory(p, k));
    buffer_printf(out, "left out: %s, ", d->name);
    switch (l->why) {
    case PLAN_ABSENT_MEMORY:
        buffer_printf(out, "which has %s beside its buffers and one block with its cache needs %s\n",
                      cost_bytes_text(d->memory - d->buffers, a), cost_bytes_text(least, b));
        break;
    case PLAN_ABSENT_NO_PLACE:
        buffer_puts(out, "for which this plan has no place\n");
        break;
    case PLAN_ABSENT_EVEN:
        buffer_puts(out, "which would change nothing; fewer stages are preferred\n");
        break;
    case PLAN_ABSENT_SLOWER:
        buffer_printf(out, "which at its best place (%d block%s %s%s) would add %.3g ms (%.3g %%); a block takes it %.3g "
                      "ms, the slowest here %.3g ms\n",
                      l->blocks, l->blocks == 1 ? "" : "s", l->after < 0 ? "at the front" : "after ",
                      l->after < 0 ? "" : p->device[plan->stage[l->after].device].name, l->delta_s * 1e3,
                      percent(plan->value_s + l->delta_s, plan->value_s), l->block_s * 1e3, l->plan_block_s * 1e3);
        break;
    }
}

static void change_line(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                        const struct plan_sensitivity *s)
{
    double gain = -percent(s->value_s, plan->value_s);
    if (s->change == PLAN_MORE_MEMORY)
        buffer_printf(out, "if %s had 1 GB more memory: ", name_of(p, s->device));
    else
        buffer_printf(out, "if the link %s-%s were twice as fast: ", name_of(p, s->from), name_of(p, s->to));
    if (gain < 1e-7) {
        buffer_puts(out, "no change\n");
        return;
    }
    value_text(out, p, plan, s->value_s);
    buffer_printf(out, ", %.3g %% less time%s\n", gain, s->same_devices ? "" : ", with other devices");
}

/* Which links round, and what exactness would cost; or that all are exact though they need not be. */
static void codec_lines(struct buffer *out, const struct plan_problem *p, const struct plan *plan)
{
    struct buffer value = {0};
    bool any = false;
    value_text(&value, p, plan, plan->exact_s);
    for (int s = 0; s + 1 < plan->stages; s++) {
        const struct plan_link *l = plan_problem_link(p, plan->stage[s].device, plan->stage[s + 1].device);
        if (!l || !l->codec)
            continue;
        buffer_printf(out, "link %s->%s: %s activations, %.4g bytes a value\n", p->device[plan->stage[s].device].name,
                      p->device[plan->stage[s + 1].device].name, l->codec, l->value_bytes);
        any = true;
    }
    if (any)
        buffer_printf(out, "not exact: rounding on slow links makes it %.3g %% faster than the best exact plan (%s); the bits "
                           "then depend on the split (activations: f32 keeps them)\n",
                      100 * (1 - plan->value_s / plan->exact_s), value.data ? value.data : "");
    else
        buffer_printf(out, "exact: f32 activations on all links; rounding them would gain at most %.2g %%\n",
                      100 * (1 - fmin(plan->rounded_s, plan->exact_s) / plan->exact_s));
    buffer_free(&value);
}

int plan_reasons_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                      const struct plan_reasons *why)
{
    char now[TIME_TEXT], before[TIME_TEXT];
    limit_line(out, p, plan);
    if (plan->given_up_ttft_s > 0)
        buffer_printf(out, "balanced: nearly the best TPOT, and of such plans the one whose prompt comes through soonest: "
                           "TTFT %s instead of %s\n",
                      time_text(plan->ttft_s, now), time_text(plan->given_up_ttft_s, before));
    if (plan->exact_s > 0)
        codec_lines(out, p, plan);
    if (!why)
        return out->failed;
    single_line(out, p, plan, why);
    next_line(out, p, plan, why);
    for (int i = 0; i < why->left_out_count; i++)
        absence_line(out, p, plan, &why->left_out[i]);
    for (int i = 0; i < why->sensitivity_count; i++)
        change_line(out, p, plan, &why->sensitivity[i]);
    return out->failed;
}

static void stage_table(struct buffer *out, const struct plan_problem *p, const struct plan *plan)
{
    int width = 6;
    for (int s = 0; s < plan->stages; s++) {
        int n = (int)strlen(p->device[plan->stage[s].device].name);
        width = n > width ? n : width;
    }
    buffer_printf(out, "stage  %-*s  blocks         memory  of          decode    x%-5d    prefill\n", width, "device",
                  plan->batch);
    for (int s = 0; s < plan->stages; s++) {
        const struct plan_stage *g = &plan->stage[s];
        char blocks[32], a[UNITS_TEXT], b[UNITS_TEXT];
        snprintf(blocks, sizeof blocks, "%d-%d", g->first_block, g->last_block);
        buffer_printf(out, "%5d  %-*s  %-9s  %10s  %-10s  %7.3f ms %7.3f ms  %8.2f ms\n", s, width,
                      p->device[g->device].name, blocks, cost_bytes_text(g->memory_bytes, a),
                      cost_bytes_text(p->device[g->device].memory, b), g->decode_s * 1e3, g->decode_batch_s * 1e3,
                      g->prefill_s * 1e3);
    }
}

int plan_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan, const struct plan_reasons *why)
{
    double gap = plan_gap_percent(plan);
    buffer_printf(out, "plan for %s: %d stage%s of %d device%s, %d blocks\n", plan_objective_name(plan->objective),
                  plan->stages, plan->stages == 1 ? "" : "s", p->devices, p->devices == 1 ? "" : "s", p->model.blocks);
    stage_table(out, p, plan);
    char tpot[TIME_TEXT], ttft[TIME_TEXT], rate[TIME_TEXT];
    buffer_printf(out, "predicted: TPOT %s, TTFT %s (%d tokens), %s with %d sequence%s in %d micro-batch%s\n",
                  time_text(plan->tpot_s, tpot), time_text(plan->ttft_s, ttft), p->workload.prompt_tokens,
                  rate_text(plan->tokens_per_s, rate),
                  p->workload.concurrency, p->workload.concurrency == 1 ? "" : "s", plan->microbatches,
                  plan->microbatches == 1 ? "" : "es");
    if (gap > 0)
        buffer_printf(out, "proof: no plan is more than %.3g %% better (%s at least %.6g ms); gap %.3g %%\n",
                      gap / (1 + gap / 100), objective_text(plan->objective), plan->bound_s * 1e3, gap);
    else
        buffer_puts(out, "proof: optimal, gap 0 %\n");
    return plan_reasons_text(out, p, plan, why);
}
