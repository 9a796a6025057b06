/* How long it will take, after the stages have changed, until sequences that ran can go on, by each way there is: their KV
 * pages fetched from the nodes that had the blocks, gaps filled in from rows that stages kept, or all computed again. What
 * the busiest stage or link has to do is what it takes, for the others work meanwhile. Runner's thread. */
#ifndef BRIGADE_COORDINATOR_CORE_REFILL_FORECAST_H
#define BRIGADE_COORDINATOR_CORE_REFILL_FORECAST_H

#include <stddef.h>

#include "coordinator/core/refill.h"

struct runner;

/* Seconds; what is not known or not possible is negative. */
struct refill_forecast {
    double fetched;  /* what other nodes have is fetched from them, the rest filled in */
    double filled;   /* gaps are filled from the nearest rows that were kept */
    double computed; /* all of it from the tokens */
};

/* Before the stages of `load` begin, r->layout being the ones before: the forecast for the pages that it lists, the first
 * `running` of which sequences wait for. Takes off the list what is not worth fetching: all, where filling in is faster; and
 * pages that no sequence waits for beyond what a quarter of a second brings. */
void refill_decide(const struct runner *r, struct cluster_load *load, uint32_t running, struct refill_forecast *out);

/* The cheapest: "fetching", "re-sending", "computing again"; "" when nothing is known or missing. Filling in from rows costs
 * what computing again costs where none were kept. */
const char *refill_forecast_choice(const struct refill_forecast *f);
/* "; re-sending was chosen (predicted: fetching 0.520 s, re-sending 0.310 s, computing again 1.200 s)"; empty without choice. */
void refill_forecast_text(const struct refill_forecast *f, char *text, size_t size);

#endif
