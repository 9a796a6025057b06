/* Which links of a plan carry rounded activations, when a person asked for `auto`. Pure; any thread. */
#ifndef BRIGADE_COORDINATOR_CORE_CODECS_H
#define BRIGADE_COORDINATOR_CORE_CODECS_H

#include "planner/plan.h"
#include "proto/frame.h"

/* Rounding makes the bits depend on the split; that must be worth it: so much of the objective, all links together, */
#define CODECS_GAIN 0.10
/* so much for each further step of a link, */
#define CODECS_STEP 0.01
/* and the errors of all links together, each relative to a value (q8: to the largest of its block), stay within this. */
#define CODECS_ERROR 0.01

/* The most that one passage of a link changes a value, relative to it (q8: to the largest in its block of 32). */
double codec_error(enum frame_codec codec);
double codec_value_bytes(enum frame_codec codec);

/* Solves a problem under whatever constraints the caller has. */
typedef int codecs_solve(void *context, struct plan_problem *p, struct plan *out, struct error *err);

/* *plan is the best with exact activations. If rounded ones gain enough, *plan becomes the better one and the links
 * between its stages get their codecs and bytes in p; else p stays as it is. Either way plan->exact_s and rounded_s tell
 * what was compared. 0 or the solver's error (with *plan as it was). */
int codecs_choose(struct plan_problem *p, codecs_solve *solve, void *context, struct plan *plan, struct error *err);

/* What a stage sends to the next: the link's own codec, or `otherwise`. */
enum frame_codec codecs_of_link(const struct plan_problem *p, int from, int to, enum frame_codec otherwise);

#endif
