/* The cost model: seconds of blocks, stages and hops, bytes of a stage. Pure arithmetic on a problem.
 *
 * A block costs the slower of reading (weights and cache) and computing; a stage its overhead and its blocks; a device
 * with a measured profile its measured times instead. Stage times are sums over blocks, which is what lets the
 * partitioner use prefix sums. */
#ifndef BRIGADE_PLANNER_COST_H
#define BRIGADE_PLANNER_COST_H

#include "planner/problem.h"

/* One block's decode for `batch` sequences at the workload's context. */
double cost_block_decode(const struct plan_problem *p, int device, int block, int batch);
/* The head's decode for `batch` sequences. */
double cost_head_decode(const struct plan_problem *p, int device, int batch);
/* What the first stage adds for looking up `tokens` embeddings (measured profiles only). */
double cost_embedding(const struct plan_problem *p, int device, double tokens);
/* One block's prefill of a chunk of `tokens` at `past` positions. */
double cost_block_prefill(const struct plan_problem *p, int device, int block, double tokens, double past);

/* Whole stages of blocks first..last (inclusive); embedding and head are added where the stage ends the pipe. */
double cost_stage_decode(const struct plan_problem *p, int device, int first, int last, int batch);
/* Chunk c of the prompt, from 0; the head counts only with the last chunk. */
double cost_stage_prefill(const struct plan_problem *p, int device, int first, int last, int c);
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

#endif
