/* Plans in simulated time: a list of requests through continuous batching, and Gantt pictures. Pure.
 *
 * The scheduler that is simulated: requests are admitted first come first served while fewer than `concurrency` are
 * active and the cache (kv_tokens, when above 0) has room for prompt and output; one that could never fit is refused.
 * Decode goes first: at most plan->microbatches micro-batches are in flight, each takes its even share of the active
 * decoding sequences. Prefill chunks follow, oldest request first, at most one more in flight than there are stages,
 * so that a long prompt cannot bury the others. Stages and links serve first come first served. */
#ifndef BRIGADE_PLANNER_SIMULATE_H
#define BRIGADE_PLANNER_SIMULATE_H

#include <jansson.h>

#include "base/buffer.h"
#include "planner/plan.h"

#define PLAN_MAX_REQUESTS 100000
#define PLAN_MAX_SIMULATED_TOKENS 20000000 /* over all requests, prompt chunks and output tokens */

struct plan_request {
    double arrival_s;
    int prompt_tokens, output_tokens;
};

struct plan_slo {
    double ttft_s, tpot_s; /* INFINITY: no such bound */
};

/* "arrival_s,prompt_tokens,output_tokens", one request a line, in any order; a heading, blank lines and # comments are
 * allowed. name starts every error. The caller frees *out with mem_free; sorted by arrival. ERR_FORMAT, ERR_BOUND. */
int plan_requests_parse(struct plan_request **out, size_t *count, const char *name, const char *text, size_t bytes,
                        struct error *e);
/* "ttft=1s,tpot=200ms", either or both. ERR_FORMAT. */
int plan_slo_parse(const char *text, struct plan_slo *out, struct error *e);

struct plan_spread {
    double mean, p50, p90, p95, p99, most; /* seconds; nearest-rank percentiles; 0 for no samples */
};

struct plan_simulation {
    size_t requests, finished, refused;
    struct plan_spread ttft, tpot, e2el, queued; /* queued: from arrival to admission */
    double duration_s;      /* from the first arrival to the last answer */
    double tokens_per_s, requests_per_s;
    size_t good;            /* requests within the SLO */
    double goodput;         /* of them a second */
    double mean_batch;      /* sequences in a decode micro-batch */
    size_t longest_queue;
    int machines;           /* 2 x stages - 1: stage, link, stage, ... */
    double utilisation[2 * PLAN_MAX_DEVICES]; /* of duration_s */
};

/* slo may be NULL. ERR_BOUND when the requests are more than can be simulated, ERR_NOMEM, ERR_CANCELLED when `expired`
 * (may be NULL) said so. */
int plan_simulate(struct plan_simulation *out, const struct plan_problem *p, const struct plan *plan,
                  const struct plan_request *requests, size_t count, const struct plan_slo *slo,
                  bool (*expired)(void *context), void *context, struct error *e);

/* Keys: requests, finished, refused, ttft_ms, tpot_ms, e2el_ms, queued_ms (each mean, p50, p90, p95, p99, max),
 * duration_s, tokens_per_s, requests_per_s, good, goodput_per_s, mean_batch, longest_queue, utilisation[] (machine,
 * share). NULL when out of memory. */
json_t *plan_simulation_to_json(const struct plan_problem *p, const struct plan *plan, const struct plan_simulation *s);
int plan_simulation_text(struct buffer *out, const struct plan_problem *p, const struct plan *plan,
                         const struct plan_simulation *s);

/* A complete SVG document: one decode step of all micro-batches, and the chunked prefill of the workload's prompt.
 * At most PLAN_GANTT_JOBS chunks and micro-batches are drawn; the picture says so when there are more. */
#define PLAN_GANTT_JOBS 128
int plan_gantt_svg(struct buffer *out, const struct plan_problem *p, const struct plan *plan, struct error *e);

#endif
