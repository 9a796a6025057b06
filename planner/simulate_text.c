/* Simulation results as JSON and for people. Pure. */
#include <math.h>
#include <stdio.h>

#include "planner/simulate.h"

static bool put(json_t *object, const char *key, json_t *value)
{
    return object && value && json_object_set_new(object, key, value) == 0;
}

static const char *machine_name(const struct plan_problem *p, const struct plan *plan, int machine, char text[160])
{
    const char *from = p->device[plan->stage[machine / 2].device].name;
    if (machine % 2)
        snprintf(text, 160, "%s->%s", from, p->device[plan->stage[machine / 2 + 1].device].name);
    else
        snprintf(text, 160, "%s", from);
    return text;
}

static json_t *spread_json(const struct plan_spread *s)
{
    return json_pack("{s:f,s:f,s:f,s:f,s:f,s:f}", "mean", s->mean * 1e3, "p50", s->p50 * 1e3, "p90", s->p90 * 1e3, "p95",
                     s->p95 * 1e3, "p99", s->p99 * 1e3, "max", s->most * 1e3);
}

json_t *plan_simulation_to_json(const struct plan_problem *p, const struct plan *plan, const struct plan_simulation *s)
{
    json_t *o = json_object(), *machines = json_array();
    bool ok = put(o, "utilisation", machines) && put(o, "requests", json_integer((json_int_t)s->requests)) &&
              put(o, "finished", json_integer((json_int_t)s->finished)) &&
              put(o, "refused", json_integer((json_int_t)s->refused)) && put(o, "ttft_ms", spread_json(&s->ttft)) &&
              put(o, "tpot_ms", spread_json(&s->tpot)) && put(o, "e2el_ms", spread_json(&s->e2el)) &&
              put(o, "queued_ms", spread_json(&s->queued)) && put(o, "duration_s", json_real(s->duration_s)) &&
              put(o, "tokens_per_s", json_real(s->tokens_per_s)) &&
              put(o, "requests_per_s", json_real(s->requests_per_s)) && put(o, "good", json_integer((json_int_t)s->good)) &&
              put(o, "goodput_per_s", json_real(s->goodput)) && put(o, "mean_batch", json_real(s->mean_batch)) &&
              put(o, "longest_queue", json_integer((json_int_t)s->longest_queue));
    for (int i = 0; ok && i < s->machines; i++) {
        char name[160];
        ok = json_array_append_new(machines, json_pack("{s:s,s:f}", "machine", machine_name(p, plan, i, name), "share",
                                                       s->utilisation[i])) == 0;
    }
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static void spread_line(struct buffer *out, const char *name, const struct plan_spread *s)
{
    buffer_printf(out, "%-6s mean %8.4g  p50 %8.4g  p90 %8.4g  p95 %8.4g  p99 %8.4g  max %8.4g ms\n", name, s->mean * 1e3,
                  s->p50 * 1e3, s->p90 * 1e3, s->p95 * 1e3, s->p99 * 1e3, s->most * 1e3);
}

int plan_simulation_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                         const struct plan_simulation *s)
{
    buffer_printf(out, "simulated: %zu requests in %.4g s, %zu finished, %zu refused; %.4g tokens/s, %.4g requests/s\n",
                  s->requests, s->duration_s, s->finished, s->refused, s->tokens_per_s, s->requests_per_s);
    spread_line(out, "TTFT", &s->ttft);
    spread_line(out, "TPOT", &s->tpot);
    spread_line(out, "E2EL", &s->e2el);
    spread_line(out, "queued", &s->queued);
    buffer_printf(out, "goodput: %zu of %zu within the service level, %.4g a second; %.3g sequences a micro-batch; longest "
                       "queue %zu\n",
                  s->good, s->requests, s->goodput, s->mean_batch, s->longest_queue);
    buffer_puts(out, "busy:");
    for (int i = 0; i < s->machines; i++) {
        char name[160];
        buffer_printf(out, "%s %s %.1f %%", i ? "," : "", machine_name(p, plan, i, name), 100 * s->utilisation[i]);
    }
    buffer_putc(out, '\n');
    return out->failed;
}
