/* The cost model: seconds of blocks, stages and hops, bytes of a stage. Pure arithmetic on a problem.
 *
 * A block costs the slower of reading (weights and cache) and computing; a stage its overhead and its blocks; a device
 * with a measured profile its measured times instead. Stage times are sums over blocks, which is what lets the
 * partitioner use prefix sums. */
#ifndef BRIGADE_PLANNER_COST_H
#define BRIGADE_PLANNER_COST_H

#include "base/units.h"
#include "planner/problem.h"

/* One block's decode for `batch` sequences at the workload's context, and at another. */
double cost_block_decode(const struct plan_problem *p, int device, int block, int batch);
double cost_block_decode_at(const struct plan_problem *p, int device, int block, int batch, double context);
/* The head's decode for `batch` sequences. */
double cost_head_decode(const struct plan_problem *p, int device, int batch);
/* What the first stage adds for looking up `tokens` embeddings (measured profiles only). */
double cost_embedding(const struct plan_problem *p, int device, double tokens);
/* One block's prefill of a chunk of `tokens` at `past` positions. */
double cost_block_prefill(const struct plan_problem *p, int device, int block, double tokens, double past);

/* Whether a block costs what the one before it costs. Models repeat their blocks, so most need not be computed anew. */
bool cost_block_repeats(const struct plan_problem *p, int block);

/* Whole stages of blocks first..last (inclusive); embedding and head are added where the stage ends the pipe. */
double cost_stage_decode(const struct plan_problem *p, int device, int first, int last, int batch);
/* Chunk c of the prompt, from 0; the head counts only with the last chunk. */
double cost_stage_prefill(const struct plan_problem *p, int device, int first, int last, int c);
/* The same for any micro-batch and any chunk; last: the head takes part. */
double cost_stage_decode_at(const struct plan_problem *p, int device, int first, int last, int batch, double context);
double cost_stage_chunk(const struct plan_problem *p, int device, int first, int last, double tokens, double past,
                        bool last_chunk);
double cost_stage_memory(const struct plan_problem *p, int device, int first, int last);
double cost_block_memory(const struct plan_problem *p, int block);

/* Chunks of the prompt: how many, and the tokens of the c-th. */
int cost_chunks(const struct plan_problem *p);
int cost_chunk_tokens(const struct plan_problem *p, int c);

/* A link busy with the activations of `tokens`, and the whole hop; 0 from a device to itself. */
double cost_transfer(const struct plan_problem *p, int from, int to, double tokens);
double cost_hop(const struct plan_problem *p, int from, int to, double tokens);
/* A token id between the coordinator (as `devices`) and a device: half a round trip. */
double cost_token_hop(const struct plan_problem *p, int from, int to);

/* units_bytes_text for bytes held in a double, of any size. */
const char *cost_bytes_text(double bytes, char text[static UNITS_TEXT]);

#endif
