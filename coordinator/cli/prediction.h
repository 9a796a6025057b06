/* Measured beside predicted: what the plan promised, as text and JSON, and where a micro-batch's time went. One thread. */
#ifndef BRIGADE_COORDINATOR_CLI_PREDICTION_H
#define BRIGADE_COORDINATOR_CLI_PREDICTION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/runner.h"

/* The stage table of the plan in use, to stdout: stage, worker, blocks, memory, predicted ms. */
void prediction_plan_table(const struct runner *r);

struct prediction {
    double tpot_s, ttft_s;
    double tokens_per_s; /* of all sequences together, decoding */
};
/* What the plan in use promises for prompts of that length and `sequences` that decode at once, looking back on `context`
 * positions. False where nothing was measured. */
bool prediction_for(const struct runner *r, uint32_t prompt_tokens, double context, uint32_t sequences,
                    struct prediction *out);
/* After a run, to stderr: TTFT, TPOT and tokens/s, measured and predicted for this prompt's length. */
void prediction_print(const struct runner *r, uint32_t prompt_tokens, uint32_t tokens, double ttft_ms, double tpot_ms);
/* One line for bench, to stdout. */
void prediction_print_bench(const struct runner *r);
/* {"tpot_ms", "ttft_ms", "tokens_per_s", "bottleneck"}; null where nothing was predicted. */
json_t *prediction_json(const struct runner *r);

/* Stage by stage: median compute time of a decode step and time waited; and what a hop costs. */
void trace_print(struct runner *r, bool apart);
json_t *trace_json(struct runner *r, bool apart);

#endif
