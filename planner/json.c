/* Plans and reasons as JSON values. Pure. */
#include "planner/json.h"

#include <math.h>
#include <string.h>

/* Sets a key, giving the value away; false when either is missing. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return object && value && json_object_set_new(object, key, value) == 0;
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static const char *name_of(const struct plan_problem *p, int device)
{
    return device < p->devices ? p->device[device].name : p->coordinator;
}

static json_t *stage_json(const struct plan_problem *p, const struct plan_stage *g)
{
    json_t *o = json_object();
    bool ok = put(o, "device", json_string(p->device[g->device].name)) &&
              put(o, "first_block", json_integer(g->first_block)) && put(o, "last_block", json_integer(g->last_block)) &&
              put(o, "blocks", json_integer(g->last_block - g->first_block + 1)) &&
              put(o, "memory_bytes", json_integer((json_int_t)fmin(ceil(g->memory_bytes), 0x1p62))) &&
              put(o, "decode_ms", number(g->decode_s * 1e3)) &&
              put(o, "decode_batch_ms", number(g->decode_batch_s * 1e3)) &&
              put(o, "prefill_ms", number(g->prefill_s * 1e3));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

/* What a stage sends on, where the problem's links have codecs. */
static bool put_codec(json_t *stage, const struct plan_problem *p, const struct plan *plan, int s)
{
    const struct plan_link *l = s + 1 < plan->stages
                                    ? plan_problem_link(p, plan->stage[s].device, plan->stage[s + 1].device)
                                    : NULL;
    return !p->may_round || !l ||
           (put(stage, "codec", json_string(l->codec ? l->codec : "f32")) &&
            put(stage, "bytes_per_value", json_real(l->value_bytes > 0 ? l->value_bytes : p->workload.value_bytes)));
}

static json_t *stages_json(const struct plan_problem *p, const struct plan *plan)
{
    json_t *a = json_array();
    for (int s = 0; a && s < plan->stages; s++)
        if (json_array_append_new(a, stage_json(p, &plan->stage[s])) || !put_codec(json_array_get(a, (size_t)s), p, plan, s)) {
            json_decref(a);
            return NULL;
        }
    return a;
}

static json_t *predicted_json(const struct plan_problem *p, const struct plan *plan)
{
    char limit[PLAN_LIMIT_TEXT];
    json_t *o = json_object();
    bool ok = put(o, "tpot_ms", number(plan->tpot_s * 1e3)) && put(o, "ttft_ms", number(plan->ttft_s * 1e3)) &&
              put(o, "tokens_per_s", number(plan->tokens_per_s)) && put(o, "cycle_ms", number(plan->cycle_s * 1e3)) &&
              put(o, "bottleneck", json_string(plan_limit_text(p, plan, limit)));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

/* A plan in short, beside the one that was chosen. */
static json_t *other_json(const struct plan_problem *p, const struct plan *plan, const struct plan *other)
{
    json_t *o = json_object();
    bool ok = put(o, "stages", stages_json(p, other)) && put(o, "predicted", predicted_json(p, other)) &&
              put(o, "value_ms", number(other->value_s * 1e3)) &&
              put(o, "slower_percent",
                  number(plan->value_s > 0 ? 100 * (other->value_s / plan->value_s - 1) : 0)) &&
              put(o, "gap_percent", number(plan_gap_percent(other)));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *left_out_json(const struct plan_problem *p, const struct plan_left_out *l)
{
    static const char *const why[] = {"memory", "slower", "no place", "no gain"};
    json_t *o = json_object();
    bool ok = put(o, "device", json_string(p->device[l->device].name)) && put(o, "reason", json_string(why[l->why])) &&
              put(o, "delta_ms", number(l->delta_s * 1e3)) && put(o, "blocks", json_integer(l->blocks)) &&
              put(o, "block_ms", number(l->block_s * 1e3));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *sensitivity_json(const struct plan_problem *p, const struct plan *plan, const struct plan_sensitivity *s)
{
    json_t *o = json_object();
    bool ok = put(o, "value_ms", number(s->value_s * 1e3)) &&
              put(o, "gain_percent", number(plan->value_s > 0 ? 100 * (1 - s->value_s / plan->value_s) : 0)) &&
              put(o, "same_devices", json_boolean(s->same_devices));
    if (s->change == PLAN_MORE_MEMORY)
        ok = ok && put(o, "change", json_string("memory +1 GB")) && put(o, "device", json_string(name_of(p, s->device)));
    else
        ok = ok && put(o, "change", json_string("link twice as fast")) && put(o, "a", json_string(name_of(p, s->from))) &&
             put(o, "b", json_string(name_of(p, s->to)));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static bool put_reasons(json_t *o, const struct plan_problem *p, const struct plan *plan,
                        const struct plan_reasons *why)
{
    json_t *left_out = json_array(), *changes = json_array();
    bool ok = put(o, "left_out", left_out) && put(o, "sensitivities", changes);
    ok = ok && put(o, "single_node", why->has_single ? other_json(p, plan, &why->single) : json_null());
    ok = ok && put(o, "next_best", why->has_next ? other_json(p, plan, &why->next) : json_null());
    for (int i = 0; ok && i < why->left_out_count; i++)
        ok = json_array_append_new(left_out, left_out_json(p, &why->left_out[i])) == 0;
    for (int i = 0; ok && i < why->sensitivity_count; i++)
        ok = json_array_append_new(changes, sensitivity_json(p, plan, &why->sensitivity[i])) == 0;
    return ok;
}

static bool put_lines(json_t *o, const struct plan_problem *p, const struct plan *plan, const struct plan_reasons *why)
{
    struct buffer text = {0};
    json_t *lines = json_array();
    bool ok = put(o, "reasons", lines) && plan_reasons_text(&text, p, plan, why) == 0;
    for (char *at = text.data; ok && at && *at;) {
        char *end = strchr(at, '\n');
        ok = json_array_append_new(lines, json_stringn(at, end ? (size_t)(end - at) : strlen(at))) == 0;
        at = end ? end + 1 : NULL;
    }
    buffer_free(&text);
    return ok;
}

json_t *plan_to_json(const struct plan_problem *p, const struct plan *plan, const struct plan_reasons *why)
{
    json_t *o = json_object();
    bool ok = put(o, "objective", json_string(plan_objective_name(plan->objective))) &&
              put(o, "stages", stages_json(p, plan)) && put(o, "predicted", predicted_json(p, plan)) &&
              put(o, "microbatches", json_integer(plan->microbatches)) && put(o, "batch", json_integer(plan->batch)) &&
              put(o, "value_ms", number(plan->value_s * 1e3)) && put(o, "bound_ms", number(plan->bound_s * 1e3)) &&
              put(o, "gap_percent", number(plan_gap_percent(plan))) && put(o, "states", json_integer(plan->states));
    if (ok && plan->exact_s > 0) {
        bool exact = true;
        for (int s = 0; s + 1 < plan->stages; s++) {
            const struct plan_link *l = plan_problem_link(p, plan->stage[s].device, plan->stage[s + 1].device);
            exact &= !l || !l->codec;
        }
        ok = put(o, "exact", json_boolean(exact)) && put(o, "exact_value_ms", number(plan->exact_s * 1e3)) &&
             put(o, "rounded_value_ms", number(plan->rounded_s * 1e3));
    }
    ok = ok && put_lines(o, p, plan, why) && (!why || put_reasons(o, p, plan, why));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}
