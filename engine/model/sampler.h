/* From logits to a token: bias, penalties, temperature, top-k, top-p, min-p, and a counter-based draw.
 *
 * Deterministic by construction: ties are broken by the lower id, the maths is our own (maths.h), and the random
 * number of a draw is a function of (seed, position) only, so a replayed or moved sequence continues as it would have.
 * Order of the chain: bias → repetition, presence and frequency penalties → temperature → top-k → top-p → min-p →
 * draw. Temperature 0 is argmax after bias and penalties. */
#ifndef BRIGADE_ENGINE_MODEL_SAMPLER_H
#define BRIGADE_ENGINE_MODEL_SAMPLER_H

#include <stdint.h>

#include "base/error.h"

#define SAMPLING_BIAS_MAX 300
#define SAMPLING_TOP_MAX 20

struct sampling_bias {
    int32_t token;
    float bias;        /* added to the logit; ≤ -100 bans the token */
};

struct sampling {
    float temperature;        /* 0: greedy */
    uint32_t top_k;           /* 0: all */
    float top_p;              /* 1: all */
    float min_p;              /* 0: all */
    float repeat_penalty;     /* 1: none; over the last repeat_last tokens, prompt included */
    uint32_t repeat_last;
    float presence_penalty;   /* over generated tokens */
    float frequency_penalty;
    uint64_t seed;
    uint32_t prompt_tokens;   /* where the generated part of the sequence starts */
    uint32_t top_logprobs;    /* how many alternatives to report, ≤ SAMPLING_TOP_MAX */
    uint32_t bias_count;
    struct sampling_bias bias[SAMPLING_BIAS_MAX];
};

/* Neutral settings: greedy, nothing filtered or punished. */
void sampling_default(struct sampling *s);
/* ERR_USAGE with a line naming the setting and its range. */
int sampling_check(const struct sampling *s, uint32_t vocabulary, struct error *err);

struct token_logprob {
    int32_t token;
    float logprob;            /* natural, of the model's own distribution (before temperature and filters) */
};

struct sampled {
    struct token_logprob chosen;
    uint32_t top_count;
    struct token_logprob top[SAMPLING_TOP_MAX]; /* falling */
};

/* Uniform in [0, 1) with 53 bits, for the draw that chooses the token at `position`. */
double sampling_uniform(uint64_t seed, uint32_t position);

/* Chooses the token that follows tokens[0..n). logits[vocabulary] is overwritten. scratch: vocabulary·8 bytes.
 * ERR_FORMAT when a logit is NaN or all are -inf (a broken model), naming the position. */
int sampler_pick(const struct sampling *s, float *logits, uint32_t vocabulary, const int32_t *tokens, uint32_t n,
                 void *scratch, struct sampled *out, struct error *err);

#endif
