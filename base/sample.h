/* What a handful of measured times say. Pure; any thread. */
#ifndef BRIGADE_BASE_SAMPLE_H
#define BRIGADE_BASE_SAMPLE_H

#include <stddef.h>

/* The mean of the middle half of the values: neither one interruption nor one lucky run decides. Sorts them, and is meant
 * for dozens. 0 for none. */
double sample_middle(double *values, size_t count);

#endif
