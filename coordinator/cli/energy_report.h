/* Joules that a piece of work took, for bench and run: a difference of the runner's readings. One thread. */
#ifndef BRIGADE_COORDINATOR_CLI_ENERGY_REPORT_H
#define BRIGADE_COORDINATOR_CLI_ENERGY_REPORT_H

#include <jansson.h>

#include "coordinator/core/runner.h"

/* What has been used up to now. */
void energy_now(struct runner *r, struct runner_energy *out);
/* Joules between two readings; negative when they are not measured (or a board started anew between). */
double energy_between(const struct runner_energy *before, const struct runner_energy *after);
/* "not measured (no power sensor that is known)", "RAPL processor", "3 of 4 machines measured" */
void energy_describe(const struct runner_energy *e, char *text, size_t size);
json_t *energy_json(const struct runner_energy *e);

#endif
