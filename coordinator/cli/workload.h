/* What clients ask of a server: when, how much, and who. Read from a CSV file or made up from a rate or a number of
 * clients, always the same for the same seed. Pure: no clock, no file; any thread. */
#ifndef BRIGADE_COORDINATOR_CLI_WORKLOAD_H
#define BRIGADE_COORDINATOR_CLI_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define WORKLOAD_ROWS_MAX 1000000u
#define WORKLOAD_TOKENS_MAX (1u << 24)
#define WORKLOAD_SECONDS_MAX 1e6

struct workload_row {
    double arrival_s;  /* after the start; with `clients`: unused, a client asks again when it was answered */
    uint32_t prompt_tokens, output_tokens;
    uint32_t client;
    int32_t priority;
};

struct workload {
    size_t count;
    struct workload_row *rows; /* by arrival */
    uint32_t clients;          /* 0: rows come at their times, whatever the server does; else so many clients take the
                                * next row each time one was answered */
};

struct workload_range {
    uint32_t least, most;      /* evenly spread, both included */
};

/* How to make one up. */
struct workload_shape {
    size_t requests;
    struct workload_range prompt, output; /* tokens */
    uint64_t seed;
};

/* "poisson:RATE" (requests a second, at random) or "clients:N" (each asks again at once when it was answered); anything
 * else is ERR_USAGE. *out is the caller's: workload_free. */
int workload_make(const char *spec, const struct workload_shape *shape, struct workload *out, struct error *err);
/* Whether a spec is for workload_make; else it names a file. */
int workload_is_made(const char *spec);
/* CSV with a heading that names its columns, in any order: arrival_s, prompt_tokens, output_tokens and, where wanted,
 * client (a number) and priority. Empty lines and such that begin with # are passed over. `name` is for messages:
 * ERR_FORMAT with the line and what is wrong there. *out is the caller's: workload_free. */
int workload_parse(const char *text, size_t bytes, const char *name, struct workload *out, struct error *err);
void workload_free(struct workload *w);

/* Limits on what a request may take, "ttft=1s,tpot=200ms,e2el=30s"; 0: none given. */
struct workload_slo {
    double ttft_s, tpot_s, e2el_s;
};
int workload_parse_slo(const char *text, struct workload_slo *out, struct error *err);

#endif
