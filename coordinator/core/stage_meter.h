/* What micro-batches tell about stages: compute and waiting time by each stage's own clock. Pure; loop thread only. */
#ifndef BRIGADE_COORDINATOR_CORE_STAGE_METER_H
#define BRIGADE_COORDINATOR_CORE_STAGE_METER_H

#include <stdint.h>

#include "base/error.h"
#include "coordinator/core/runner.h"
#include "proto/frame.h"

struct stage_meter;

int stage_meter_create(uint32_t stages, struct stage_meter **out, struct error *err);
void stage_meter_destroy(struct stage_meter *m); /* NULL is fine */
void stage_meter_sent(struct stage_meter *m, const struct frame_work *work);
void stage_meter_result(struct stage_meter *m, const struct frame_result *result);
uint32_t stage_meter_count(const struct stage_meter *m);
/* [stages] rows. */
void stage_meter_read(const struct stage_meter *m, struct runner_stage *out);

#endif
