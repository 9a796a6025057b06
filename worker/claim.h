/* Who commands this worker. Any allowed coordinator may look; one at a time claims, and keeps the claim while it is
 * alive. Pure: no socket, no clock. Control thread. */
#ifndef BRIGADE_WORKER_CLAIM_H
#define BRIGADE_WORKER_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/link.h"

#define CLAIM_LIVE_MS 3000 /* a claimant not heard of for this long has lost its claim to whoever asks */

struct claim {
    bool held;
    struct link_peer by;
    int64_t seen_ms;
};

bool claim_is(const struct claim *c, const struct link_peer *peer);
/* Anything that was heard from a peer; refreshes its claim if it has one. */
void claim_seen(struct claim *c, const struct link_peer *peer, int64_t now_ms);
/* A Hello that claims. `gone`: the present claimant's connection no longer exists. 0 and it is theirs, or ERR_BUSY with
 * a line that names the claimant. */
int claim_ask(struct claim *c, const struct link_peer *peer, bool take_over, bool gone, int64_t now_ms,
              struct error *err);

#endif
