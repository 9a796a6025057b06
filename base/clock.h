/* Monotonic time. Pure rooms (planner/, the cluster step) never include this: they are given `now`. */
#ifndef BRIGADE_BASE_CLOCK_H
#define BRIGADE_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds, microseconds and milliseconds of CLOCK_MONOTONIC. */
int64_t clock_ns(void);
int64_t clock_us(void);
int64_t clock_ms(void);
/* Sleeps for so long (not at all for 0 and less), whatever signals come. */
void clock_sleep_ns(int64_t ns);

#endif
