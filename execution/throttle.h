/* A slower board, for tests: what was computed is made to take `factor` times as long, in real time, so that one
 * machine can stand for unequal ones. The difference is slept (and its end spun, for precision), not computed: nodes
 * that share a machine's cores do not slow each other down by it. Any thread. */
#ifndef BRIGADE_EXECUTION_THROTTLE_H
#define BRIGADE_EXECUTION_THROTTLE_H

#include <stdint.h>

#define THROTTLE_MAX 1000.0

/* Returns at started_ns + factor · (now - started_ns); at once for a factor of 1 or less. */
void throttle_wait(double factor, int64_t started_ns);

#endif
