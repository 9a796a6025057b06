/* Measures this process as a device: how long blocks of each kind and the head take, in the shape of a worker's Profile. */
#ifndef BRIGADE_COORDINATOR_CORE_LOCAL_PROFILE_H
#define BRIGADE_COORDINATOR_CORE_LOCAL_PROFILE_H

#include "engine/model/stage.h"
#include "proto/frame.h"

/* Runs on the thread that owns the stages; leaves their KV contents undefined. *out (a CONTROL_PROFILE) is the caller's:
 * control_free. */
int local_profile(const struct model *m, struct stage *const *stages, uint32_t stage_count, struct pool *pool,
                  struct control_message *out, struct error *err);

#endif
