/* Who is still in cluster.yaml, for a coordinator that runs: the file is looked at now and then, and a node whose key
 * no longer stands in it has been revoked. One owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_ROSTER_H
#define BRIGADE_COORDINATOR_CORE_ROSTER_H

#include <sys/stat.h>

#include "coordinator/core/config.h"

#define ROSTER_LOOK_US 500000

struct roster {
    int64_t next_us;
    bool known;
    struct stat seen;
};

/* True when the file has changed since the last look and could be read: gone[i] tells whether nodes[i] of `config` is
 * no longer in it, *added how many there are that `config` has not. A file that cannot be read (somebody is editing)
 * changes nothing; that is logged. */
bool roster_look(struct roster *r, const struct config *config, int64_t now_us, bool gone[static CONFIG_NODES_MAX],
                 uint32_t *added);

#endif
