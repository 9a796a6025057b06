/* What every command that computes shares: the options that say where (-c, --stages, --split, --threads), how much
 * cache, the progress bars of bringing it up, and Ctrl-C. One thread. */
#ifndef BRIGADE_COORDINATOR_CLI_COMPUTE_H
#define BRIGADE_COORDINATOR_CLI_COMPUTE_H

#include "coordinator/cli/loading.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "coordinator/core/runner.h"

struct compute_options {
    const char *model, *config, *kv, *objective, *codec;
    int64_t stages, threads, context, kv_tokens, chunk, microbatches;
    double rejoin_seconds;     /* negative: not given */
    struct option_list split;
    bool json, no_recovery, awake;
    /* Set by the command before compute_open. */
    enum runner_goal goal;
    bool predict;
    uint32_t sequences, queue, prompt_tokens, output_tokens, concurrency;
    void (*on_progress)(void *context, const struct runner_progress *progress); /* beside the bars; may be NULL */
    void *progress_context;
    bool stay;                 /* when nobody comes back, wait on */
    bool served;               /* it was up: no more bars */
    struct progress progress;
    struct loading loading;
    uint32_t split_blocks[256];
};

/* Parses the shared options and a command's own rows. True: go on; false: *exit_code says how to end (help was printed, or
 * a line stands on stderr). */
#define COMPUTE_OWN_OPTIONS_MAX 24
bool compute_parse(struct compute_options *o, int argc, char **argv, const struct option *own, size_t own_count,
                   const struct command_help *help, int *exit_code);

/* Opens the runner these options describe, with progress bars. 0 or a negative error; ERR_USAGE for bad combinations. */
int compute_open(struct compute_options *o, struct runner **out, struct error *err);
void compute_release(struct compute_options *o);

/* Set by SIGINT and SIGTERM once compute_open has run; a second signal ends the program. */
extern volatile sig_atomic_t compute_interrupted;

/* Submits one request and steps until it has finished; 0, the request's error, or ERR_CANCELLED after Ctrl-C (the
 * request's on_finish has been called then, too). */
int compute_request(struct runner *r, const struct request_options *request, struct error *err);

/* "1 stage in this process", "3 stages: pi-kitchen 0-2, orin 3-7" and the same as JSON (array of objects with device,
 * first_block, last_block). */
json_t *compute_stages_json(const struct runner *r);

#endif
