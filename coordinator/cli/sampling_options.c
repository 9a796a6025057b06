/* One table for run and chat. One thread. */
#include "coordinator/cli/sampling_options.h"

#include <string.h>
#include <sys/random.h>

size_t sampling_option_rows(struct sampling_options *o, struct option *table)
{
    *o = (struct sampling_options){
        .temperature = 0.8, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1, .tokens = -1, .top_k = 40, .repeat_last = 64, .seed = -1,
    };
    const struct option rows[SAMPLING_OPTIONS] = {
        {"--tokens", 'n', OPTION_INT, &o->tokens, "N", "most tokens to generate (default: until the model ends)", -1, 1 << 24},
        {"--temp", 0, OPTION_NUMBER, &o->temperature, "T", "temperature; 0 takes the most likely token (default 0.8)", 0, 100},
        {"--top-k", 0, OPTION_INT, &o->top_k, "K", "keep the K most likely; 0: all (default 40)", 0, 1 << 24},
        {"--top-p", 0, OPTION_NUMBER, &o->top_p, "P", "keep the likeliest that sum to P (default 0.95)", 1e-9, 1},
        {"--min-p", 0, OPTION_NUMBER, &o->min_p, "P", "drop those below P times the likeliest (default 0.05)", 0, 1},
        {"--repeat-penalty", 0, OPTION_NUMBER, &o->repeat_penalty, "X", "punish recent tokens; 1: off (default)", 1e-3, 100},
        {"--repeat-last", 0, OPTION_INT, &o->repeat_last, "N", "how many tokens count as recent (default 64)", 0, 1 << 24},
        {"--presence-penalty", 0, OPTION_NUMBER, &o->presence_penalty, "X", "off every token generated before", -100, 100},
        {"--frequency-penalty", 0, OPTION_NUMBER, &o->frequency_penalty, "X", "the same, times how often", -100, 100},
        {"--seed", 0, OPTION_INT, &o->seed, "N", "the same seed tells the same story (default: random)", -1, 9007199254740992.0},
        {"--stop", 0, OPTION_TEXTS, &o->stop, "TEXT", "end before this text appears; may be repeated"},
        {"--ignore-eos", 0, OPTION_FLAG, &o->ignore_end, NULL, "go on past the model's end token"},
    };
    memcpy(table, rows, sizeof rows);
    return SAMPLING_OPTIONS;
}

void sampling_options_apply(const struct sampling_options *o, struct request_options *request)
{
    struct sampling *s = &request->sampling;
    sampling_default(s);
    s->temperature = (float)o->temperature;
    s->top_k = (uint32_t)o->top_k;
    s->top_p = (float)o->top_p;
    s->min_p = (float)o->min_p;
    s->repeat_penalty = (float)o->repeat_penalty;
    s->repeat_last = (uint32_t)o->repeat_last;
    s->presence_penalty = (float)o->presence_penalty;
    s->frequency_penalty = (float)o->frequency_penalty;
    s->seed = (uint64_t)o->seed;
    if (o->seed < 0 && getrandom(&s->seed, sizeof s->seed, GRND_NONBLOCK) != sizeof s->seed)
        s->seed = 1;
    s->seed &= (UINT64_C(1) << 53) - 1; /* what JSON can carry */
    request->max_tokens = o->tokens < 0 ? UINT32_MAX : (uint32_t)o->tokens;
    request->ignore_end = o->ignore_end;
    request->stop = o->stop.values;
    request->stop_count = o->stop.count;
}
