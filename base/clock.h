/* Monotonic time. Pure rooms (planner/, the cluster step) never include this: they are given `now`. */
#ifndef BRIGADE_BASE_CLOCK_H
#define BRIGADE_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds, microseconds and milliseconds of CLOCK_MONOTONIC. */
int64_t clock_ns(void);
int64_t clock_us(void);
int64_t clock_ms(void);

#endif
