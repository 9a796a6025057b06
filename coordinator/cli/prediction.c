/* Prints what the planner predicted beside what was measured. One thread. */
#include "coordinator/cli/prediction.h"

#include <stdio.h>

#include "base/units.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/hop.h"
#include "coordinator/cli/output.h"
#include "coordinator/core/schedule.h"
#include "planner/plan.h"
#include "proto/rehearsal.h"

json_t *compute_stages_json(const struct runner *r)
{
    const struct plan *plan = runner_plan(r);
    const struct plan_problem *problem = runner_problem(r);
    json_t *list = json_array();
    for (int i = 0; plan && i < plan->stages; i++)
        json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "device", problem->device[plan->stage[i].device].name,
                                              "first_block", plan->stage[i].first_block, "last_block", plan->stage[i].last_block));
    return list;
}

void prediction_plan_table(const struct runner *r)
{
    const struct plan *plan = runner_plan(r);
    const struct plan_problem *problem = runner_problem(r);
    static const char *const heads[] = {"stage", "worker", "blocks", "memory", "decode ms", "prefill ms"};
    struct table *t = table_create(6);
    for (size_t i = 0; i < 6; i++)
        table_cell(t, "%s", heads[i]);
    for (int i = 0; plan && i < plan->stages; i++) {
        const struct plan_stage *stage = &plan->stage[i];
        char memory[UNITS_TEXT];
        table_cell(t, "%d", i);
        table_cell(t, "%s", problem->device[stage->device].name);
        table_cell(t, "%d-%d", stage->first_block, stage->last_block);
        table_cell(t, "%s", units_bytes_text((uint64_t)stage->memory_bytes, memory));
        table_cell(t, "%.3f", stage->decode_s * 1e3);
        table_cell(t, "%.3f", stage->prefill_s * 1e3);
    }
    table_print(t);
    table_destroy(t);
}

bool prediction_for(const struct runner *r, uint32_t prompt_tokens, double context, uint32_t sequences,
                    struct prediction *out)
{
    const struct plan *plan = runner_plan(r);
    struct plan_problem *problem = plan && plan->tpot_s > 0 ? plan_problem_copy(runner_problem(r)) : NULL;
    struct plan again;
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    if (!problem)
        return false;
    if (prompt_tokens)
        problem->workload.prompt_tokens = (int)prompt_tokens;
    problem->workload.context = context > 1 ? context : 1;
    problem->workload.concurrency = (int)sequences;
    /* The chunks that the scheduler cuts such a prompt into. */
    problem->workload.chunk = (int)scheduler_chunk((uint64_t)problem->workload.prompt_tokens, runner_microbatches(r),
                                                   runner_chunk(r));
    for (int i = 0; i < plan->stages; i++) {
        order[i] = plan->stage[i].device;
        counts[i] = plan->stage[i].last_block - plan->stage[i].first_block + 1;
    }
    int rc = plan_evaluate(problem, order, counts, plan->stages, &again, NULL);
    if (!rc) {
        int groups = (int)runner_microbatches(r);
        groups = groups < 1 ? 1 : groups > (int)sequences ? (int)sequences : groups;
        out->tpot_s = sequences == 1 ? again.tpot_s : plan_round(problem, &again, groups);
        out->tokens_per_s = sequences / out->tpot_s;
        out->ttft_s = again.ttft_s;
    }
    plan_problem_free(problem);
    return !rc;
}

static void print_pair(const char *what, double measured, double predicted, const char *unit)
{
    fprintf(stderr, "  %-10s %10.2f %s", what, measured, unit);
    if (predicted > 0)
        fprintf(stderr, "   predicted %10.2f (%+.0f %%)", predicted, (measured / predicted - 1) * 100);
    fputc('\n', stderr);
}

void prediction_print(const struct runner *r, uint32_t prompt_tokens, uint32_t tokens, double ttft_ms, double tpot_ms)
{
    const struct plan *plan = runner_plan(r);
    struct prediction p = {0};
    prediction_for(r, prompt_tokens, prompt_tokens + tokens / 2.0, 1, &p);
    fprintf(stderr, "\n%u prompt tokens, %u generated, %d stage%s\n", prompt_tokens, tokens, plan ? plan->stages : 1,
            plan && plan->stages == 1 ? "" : "s");
    print_pair("TTFT", ttft_ms, p.ttft_s * 1e3, "ms");
    if (tokens > 1) {
        print_pair("TPOT", tpot_ms, p.tpot_s * 1e3, "ms");
        print_pair("tokens/s", tpot_ms > 0 ? 1e3 / tpot_ms : 0, p.tpot_s > 0 ? 1 / p.tpot_s : 0, "  ");
    }
}

void prediction_print_bench(const struct runner *r)
{
    const struct plan *plan = runner_plan(r);
    char limit[PLAN_LIMIT_TEXT];
    if (!plan || plan->tpot_s <= 0)
        return;
    printf("predicted: TPOT %.3f ms (%.1f tokens/s), TTFT %.2f ms for %d tokens; bottleneck %s\n", plan->tpot_s * 1e3,
           1 / plan->tpot_s, plan->ttft_s * 1e3, runner_problem(r)->workload.prompt_tokens,
           plan_limit_text(runner_problem(r), plan, limit));
}

json_t *prediction_json(const struct runner *r)
{
    const struct plan *plan = runner_plan(r);
    char limit[PLAN_LIMIT_TEXT];
    if (!plan || plan->tpot_s <= 0)
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:s}", "tpot_ms", plan->tpot_s * 1e3, "ttft_ms", plan->ttft_s * 1e3, "tokens_per_s",
                     plan->tokens_per_s, "bottleneck", plan_limit_text(runner_problem(r), plan, limit));
}

/* The parts of a hop where stages are apart; what neither is computed nor accounted for otherwise is the wire's, the
 * kernel's and ZeroMQ's. */
static bool hop_parts_of(struct runner *r, const struct runner_status *status, struct hop_parts *parts, double *wire_us)
{
    double waited_us = status->round_seconds * 1e6 * (status->stage_count - 1) / (status->stage_count ? status->stage_count : 1);
    double slept_us = (double)rehearsal_slept_us((int64_t)waited_us);
    if (hop_measure(model_info(runner_model(r))->width, slept_us, parts, NULL))
        return false;
    double rest = status->hop_seconds * 1e6 - parts->serialise_us - parts->encrypt_us - parts->decrypt_us -
                  HOP_WAKES * parts->wake_us;
    *wire_us = rest > 0 ? rest : 0;
    return true;
}

json_t *trace_json(struct runner *r, bool apart)
{
    struct runner_status status = {0};
    if (runner_status(r, &status, NULL))
        return json_null();
    json_t *list = json_array();
    for (uint32_t i = 0; i < status.stage_count; i++) {
        const struct runner_stage *s = &status.stages[i];
        json_array_append_new(list, json_pack("{s:i, s:I, s:I, s:f, s:f, s:f, s:f}", "stage", (int)i, "microbatches",
                                              (json_int_t)s->microbatches, "tokens", (json_int_t)s->tokens, "compute_s",
                                              s->compute_seconds, "decode_ms", s->decode_seconds * 1e3,
                                              "decode_predicted_ms", s->predicted_seconds * 1e3, "wait_s", s->wait_seconds));
    }
    json_t *trace = json_pack("{s:o, s:f, s:f}", "stages", list, "round_ms", status.round_seconds * 1e3, "hop_us",
                              status.hop_seconds * 1e6);
    struct hop_parts parts;
    double wire_us;
    if (trace && apart && hop_parts_of(r, &status, &parts, &wire_us))
        json_object_set_new(trace, "hop", json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:i}", "bytes", (json_int_t)parts.bytes,
                                                    "serialise_us", parts.serialise_us, "encrypt_us", parts.encrypt_us,
                                                    "wire_us", wire_us, "decrypt_us", parts.decrypt_us, "wake_us",
                                                    parts.wake_us, "wakes", HOP_WAKES));
    runner_status_free(&status);
    return trace;
}

void trace_print(struct runner *r, bool apart)
{
    struct runner_status status = {0};
    if (runner_status(r, &status, NULL))
        return;
    printf("where the time went, by the stages' own clocks:\n");
    for (uint32_t i = 0; i < status.stage_count; i++) {
        const struct runner_stage *s = &status.stages[i];
        printf("  stage %u: %llu micro-batches, compute %.3f s (decode step %.3f ms", i, (unsigned long long)s->microbatches,
               s->compute_seconds, s->decode_seconds * 1e3);
        if (s->predicted_seconds > 0)
            printf(", predicted %.3f", s->predicted_seconds * 1e3);
        printf("), waited %.3f s\n", s->wait_seconds);
    }
    printf("  a decode round %.3f ms; %.0f us a hop (serialise, encrypt, wire, decrypt, wake) over %u hops\n",
           status.round_seconds * 1e3, status.hop_seconds * 1e6, status.stage_count + 1);
    struct hop_parts parts;
    double wire_us;
    if (apart && hop_parts_of(r, &status, &parts, &wire_us))
        printf("  of a hop, measured here alone for %.1f KB: serialise %.1f us, encrypt %.1f, decrypt %.1f, %d sleepers woken "
               "%.0f each (after %.1f ms); wire, kernel and ZeroMQ: the other %.0f\n",
               (double)parts.bytes / 1e3, parts.serialise_us, parts.encrypt_us, parts.decrypt_us, HOP_WAKES, parts.wake_us,
               parts.idle_us / 1e3, wire_us);
    runner_status_free(&status);
}
