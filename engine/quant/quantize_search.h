/* Searches for the scale (and minimum) under which whole numbers stand for floats with the least squared error.
 *
 * For given whole numbers q the best scale is a quotient of sums (least squares); for a given scale the best q is the
 * nearest. Each search tries a row of starting scales around "the largest value meets the end of the range", solves
 * for the scale of each, keeps the best, and then lets the two steps alternate. n is a multiple of 8, at most 256.
 * Deterministic (fixed order of sums, no libm but sqrt). Pure; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_QUANTIZE_SEARCH_H
#define BRIGADE_ENGINE_QUANT_QUANTIZE_SEARCH_H

#include <stdint.h>

/* x is about d * q for whole q from -range to range - 1; returns d (of either sign; 0 when all x are 0).
 * w: weight of each squared error. */
float search_scale(const float *x, const float *w, int n, int range);

/* x is about d * q + m for q from 0 to top; returns d >= 0 and sets *minimum. nonpositive: m must be <= 0. */
float search_scale_minimum(const float *x, const float *w, int n, int top, int nonpositive, float *minimum);

/* x is about d * codebook_iq4[q]; returns d. */
float search_codebook(const float *x, const float *w, int n);

/* The nearest whole numbers for a scale (and minimum) already rounded to what the file can hold. */
void search_assign(const float *x, int n, float d, int low, int high, int8_t *q);
void search_assign_minimum(const float *x, int n, float d, float m, int top, uint8_t *q);
void search_assign_codebook(const float *x, int n, float d, uint8_t *q);

/* Nearest whole number, halves to even, for |v| under 2^22. */
static inline float search_round(float v)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves no room for a fraction */
    return (v + magic) - magic;
}

/* v within [low, high]; a NaN (from infinity times 0, with absurd inputs) becomes low. */
static inline float search_clamp(float v, float low, float high)
{
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* Bits of a float as the file's binary16, kept finite. */
uint16_t search_f16(float v);

#endif
