/* The options that shape a generation (--temp, --top-k, --stop, …), shared by run and chat. One thread. */
#ifndef BRIGADE_COORDINATOR_CLI_SAMPLING_OPTIONS_H
#define BRIGADE_COORDINATOR_CLI_SAMPLING_OPTIONS_H

#include "coordinator/cli/options.h"
#include "coordinator/core/request.h"

struct sampling_options {
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int64_t tokens, top_k, repeat_last, seed;
    struct option_texts stop;
    bool ignore_end;
};

#define SAMPLING_OPTIONS 12
/* Fills in defaults and the option rows (room for SAMPLING_OPTIONS); returns how many. */
size_t sampling_option_rows(struct sampling_options *o, struct option *table);
/* Puts the settings into a request. A seed that was not given is drawn from the system. */
void sampling_options_apply(const struct sampling_options *o, struct request_options *request);

#endif
