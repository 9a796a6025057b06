/* What `brigade status` says, for other commands that show it. */
#ifndef BRIGADE_COORDINATOR_CLI_STATUS_H
#define BRIGADE_COORDINATOR_CLI_STATUS_H

#include <jansson.h>

#include "coordinator/core/runner.h"

/* {"nodes": [...], "links": [...]}; NULL when out of memory. */
json_t *status_json(const struct runner_status *s);

#endif
