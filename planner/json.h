/* A plan as JSON. Keys: objective; stages[] (device, first_block, last_block inclusive, blocks, memory_bytes, decode_ms,
 * decode_batch_ms, prefill_ms); predicted (tpot_ms, ttft_ms, tokens_per_s, cycle_ms, bottleneck); microbatches; batch;
 * gap_percent; bound_ms; value_ms; single_node; next_best; left_out[]; sensitivities[]; reasons[] (text lines). */
#ifndef BRIGADE_PLANNER_JSON_H
#define BRIGADE_PLANNER_JSON_H

#include <jansson.h>

#include "planner/explain.h"

/* why may be NULL. The caller owns the reference; NULL when out of memory. */
json_t *plan_to_json(const struct plan_problem *p, const struct plan *plan, const struct plan_reasons *why);

#endif
