/* Readings and their words. One thread. */
#include "coordinator/cli/energy_report.h"

#include <stdio.h>

void energy_now(struct runner *r, struct runner_energy *out)
{
    struct runner_status status = {0};
    *out = (struct runner_energy){0};
    if (!runner_status(r, &status, NULL))
        *out = status.energy;
    runner_status_free(&status);
}

double energy_between(const struct runner_energy *before, const struct runner_energy *after)
{
    if (!after->measured || before->measured != after->measured || after->joules < before->joules)
        return -1;
    return after->joules - before->joules;
}

void energy_describe(const struct runner_energy *e, char *text, size_t size)
{
    if (!e->measured)
        snprintf(text, size, "not measured (%s)", *e->source ? e->source : "no node tells");
    else if (e->measured < e->machines)
        snprintf(text, size, "%u of %u machines measured (%s)", e->measured, e->machines, e->source);
    else
        snprintf(text, size, "%s", e->source);
}

json_t *energy_json(const struct runner_energy *e)
{
    char text[160];
    energy_describe(e, text, sizeof text);
    json_t *root = json_pack("{s:b, s:i, s:i, s:s}", "measured", e->measured > 0, "machines", (int)e->machines,
                             "machines_measured", (int)e->measured, "source", text);
    if (root && e->measured) {
        json_object_set_new(root, "joules", json_real(e->joules));
        json_object_set_new(root, "watts", json_real(e->watts));
    }
    return root;
}
