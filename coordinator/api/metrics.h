/* What the server counts itself: histograms of answers' times, replies by path and status, errors. Everything else on
 * /metrics is read from the runner when asked. Any thread. */
#ifndef BRIGADE_COORDINATOR_API_METRICS_H
#define BRIGADE_COORDINATOR_API_METRICS_H

#include "base/buffer.h"
#include "coordinator/core/request.h"
#include "coordinator/core/runner.h"

struct metrics;

struct metrics *metrics_create(void); /* NULL when out of memory */
void metrics_destroy(struct metrics *m);

/* A finished request (one choice). */
void metrics_finish(struct metrics *m, const struct request_finish *finish);
/* A reply with this status to this path (one of the server's own, or "other"). */
void metrics_reply(struct metrics *m, const char *path, unsigned status);
void metrics_hangup(struct metrics *m);     /* a client went away before its answer was whole */
void metrics_slow_reader(struct metrics *m); /* … or did not read it */
/* Seconds of a mean answer, for Retry-After; 0 while nothing finished. */
double metrics_mean_seconds(struct metrics *m);

/* The Prometheus text. status may be NULL (no runner now). health is 0 loading, 1 ready, 2 degraded, 3 stopping. */
void metrics_put(struct metrics *m, struct buffer *out, const struct runner_status *status, int health, double uptime_seconds,
                 unsigned http_live, const char *model);

#endif
