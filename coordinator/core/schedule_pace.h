/* How long the stages take, learned from the traces that results bring, and what follows from it: into how many
 * micro-batches decoding sequences are best dealt, and how many prompt tokens may ride with each of them.
 *
 * Per stage: the time of a micro-batch that only decodes, by its number of sequences, and what one prompt token adds to
 * one. Pure: no clock; one owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_SCHEDULE_PACE_H
#define BRIGADE_COORDINATOR_CORE_SCHEDULE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/frame.h"

/* While a prompt is computed beside streams their round is meant to take so many times what it takes without. Below the
 * promised 1.5, for stages are noisy. */
#define PACE_STRETCH 1.25
/* A prompt beside the first counts for so many streams: where others wait, all are served sooner if prompts get on. */
#define PACE_CROWD 4
/* Rounds in a row in which prompts ride; the next goes without, to be measured. */
#define PACE_RIDING_MOST 24
/* Rounds without prompts, at most, when the number of micro-batches is another one and its times are not known. */
#define PACE_TRIED 8

struct pace;

/* What a micro-batch was. */
struct pace_batch {
    uint32_t decodes, prompt_tokens;
    double round_seconds; /* from being sent to its result */
};

/* For a pipe of `stages` stages and micro-batches of at most `decodes` decoding sequences. *out is the caller's:
 * pace_destroy. */
int pace_create(uint32_t stages, uint32_t decodes, struct pace **out, struct error *err);
void pace_destroy(struct pace *p); /* NULL is fine */
/* The stages are new (perhaps of another number): forgets everything. */
void pace_forget(struct pace *p, uint32_t stages);

/* Takes note of a result; ignored unless every stage's trace is there. */
void pace_learn(struct pace *p, const struct pace_batch *batch, const struct frame_trace *trace, uint32_t count);

/* Seconds of a decoding micro-batch on a stage; between and beyond what was measured a guess; 0: unknown. */
double pace_decode_seconds(const struct pace *p, uint32_t stage, uint32_t decodes);
/* Whether all stages were measured of late with micro-batches of so many decoding sequences and nothing else. */
bool pace_knows(const struct pace *p, uint32_t decodes);
/* Seconds that a prompt token adds on a stage; 0: unknown. */
double pace_prompt_seconds(const struct pace *p, uint32_t stage);

/* Micro-batches (1 to `most`) into which `decoding` sequences are dealt: the number with the shortest round, for a
 * round takes as long as its slowest stage needs for all micro-batches, and as long as one micro-batch needs through
 * all stages and back; of equally short ones the largest. `now` is the number in use: it stays unless another is clearly
 * better, or nothing is known. */
uint32_t pace_groups(const struct pace *p, uint32_t decoding, uint32_t now, uint32_t most);
/* What streams: micro-batches under way, sequences in each, and how much longer their round may take for prompts. */
struct pace_load {
    uint32_t groups, decodes;
    double stretch;
};
/* Prompt tokens that may ride with each micro-batch, on average: at most `most`, perhaps less than one, never none. */
double pace_riders(const struct pace *p, const struct pace_load *load, uint32_t most);
/* Where fewer micro-batches are under way than there are stages: prompt tokens of each of `fillers` micro-batches
 * without sequences that take the idle places, beside the riders; 0: better none. */
uint32_t pace_filler(const struct pace *p, const struct pace_load *load, uint32_t fillers, uint32_t most);
/* Prompt tokens of a micro-batch without decoding sequences: `most`, or what a stage computes in a second. */
uint32_t pace_chunk_tokens(const struct pace *p, uint32_t most);

#endif
