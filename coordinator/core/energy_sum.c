/* Energy of a whole cluster: one meter a machine, however many workers share it. Pure; any thread. */
#include <stdio.h>

#include "coordinator/core/runner.h"

void runner_energy_sum(const struct runner_node *nodes, uint32_t count, struct runner_energy *out)
{
    *out = (struct runner_energy){0};
    for (uint32_t i = 0; i < count; i++) {
        const struct runner_node *best = &nodes[i];
        bool seen = false;
        for (uint32_t k = 0; k < i && !seen; k++)
            seen = nodes[k].machine == nodes[i].machine;
        if (seen)
            continue;
        for (uint32_t k = i + 1; k < count; k++) /* whoever has measured longest */
            if (nodes[k].machine == nodes[i].machine && nodes[k].energy_measured &&
                (!best->energy_measured || nodes[k].joules > best->joules))
                best = &nodes[k];
        out->machines++;
        if (best->energy_measured) {
            out->measured++;
            out->joules += best->joules;
            out->watts += best->watts;
        }
        if (best->energy_measured || !*out->source)
            snprintf(out->source, sizeof out->source, "%s", best->energy_source);
    }
}
