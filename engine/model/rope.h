/* Rotary positions (Su et al. 2021, RoFormer) and how families stretch them: linear, YaRN (Peng et al. 2023), Llama 3's
 * frequency factors, longrope's two tables. Private to engine/model/. Immutable after rope_create; any thread. */
#ifndef BRIGADE_ENGINE_MODEL_ROPE_H
#define BRIGADE_ENGINE_MODEL_ROPE_H

#include "engine/model/model_internal.h"

/* Angle a position turns each pair by, and the length of the turned vector. */
struct rope {
    uint32_t half;             /* pairs */
    double *inverse_frequency; /* half of them; NULL when nothing turns */
    float magnitude;
};

/* The frequencies of `use` (ROPE_GLOBAL or ROPE_LOCAL) for sequences of up to max_context positions: longrope chooses
 * its table by that bound and not by a sequence's length, so that every stage and every chunk agrees. */
int rope_create(const struct model *m, enum rope_use use, uint32_t max_context, struct rope *out, struct error *err);
void rope_free(struct rope *r);

#endif
