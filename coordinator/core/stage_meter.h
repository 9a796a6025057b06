/* What micro-batches tell about stages and hops: compute and waiting time by each stage's own clock, and what a whole
 * round took by the coordinator's. Pure; loop thread only. */
#ifndef BRIGADE_COORDINATOR_CORE_STAGE_METER_H
#define BRIGADE_COORDINATOR_CORE_STAGE_METER_H

#include <stdint.h>

#include "base/error.h"
#include "coordinator/core/runner.h"
#include "proto/frame.h"

struct stage_meter;

int stage_meter_create(uint32_t stages, struct stage_meter **out, struct error *err);
void stage_meter_destroy(struct stage_meter *m); /* NULL is fine */
void stage_meter_sent(struct stage_meter *m, const struct frame_work *work, int64_t now_us);
void stage_meter_result(struct stage_meter *m, const struct frame_result *result, int64_t now_us);
uint32_t stage_meter_count(const struct stage_meter *m);
/* [stages] rows. */
void stage_meter_read(const struct stage_meter *m, struct runner_stage *out);
/* The same, but only the decoding micro-batches whose results came at `since_us` or later. */
void stage_meter_since(const struct stage_meter *m, int64_t since_us, struct runner_stage *out);
/* Medians over the last decoding rounds: from submitting a micro-batch to its result, and of that what no stage spent
 * computing, for one of the stages + 1 hops (serialise, encrypt, wire, decrypt, wake). 0 while nothing was measured. */
void stage_meter_rounds(const struct stage_meter *m, double *round_seconds, double *hop_seconds);

#endif
