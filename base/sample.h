/* What a handful of measured times say. Pure; any thread. */
#ifndef BRIGADE_BASE_SAMPLE_H
#define BRIGADE_BASE_SAMPLE_H

#include <stddef.h>

/* The mean of all but the largest quarter (rounded up, when there are more than two): what usually happens, the usual small
 * disturbances included, without the interruptions that took as long as all the rest. Sorts the values, and is meant
 * for dozens. 0 for none. */
double sample_usual(double *values, size_t count);

#endif
