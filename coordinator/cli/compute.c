/* Brings up whatever computes, and waits for requests. One thread. */
#include "coordinator/cli/compute.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/memory.h"
#include "planner/plan.h"
#include "proto/activation.h"

volatile sig_atomic_t compute_interrupted;

static void on_signal(int number)
{
    if (compute_interrupted)
        _exit(128 + number);
    compute_interrupted = 1;
}

bool compute_parse(struct compute_options *o, int argc, char **argv, const struct option *own, size_t own_count,
                   const struct command_help *help, int *exit_code)
{
    const struct option shared[] = {
        {"--model", 'm', OPTION_TEXT, &o->model, "MODEL", "GGUF file"},
        {"--config", 'c', OPTION_TEXT, &o->config, "FILE", "run on the cluster of this cluster.yaml"},
        {"--stages", 0, OPTION_INT, &o->stages, "K", "without -c: start K workers on loopback; with it: use K stages", 0, 256},
        {"--split", 0, OPTION_LIST, &o->split, "A,B,…", "blocks of each stage instead of the planner's choice", 1, 65536},
        {"--threads", 't', OPTION_INT, &o->threads, "N", "threads here, or of each loopback worker (default: all cores)", 0, 1024},
        {"--ctx", 0, OPTION_INT, &o->context, "N", "longest sequence, in tokens", 0, 1 << 24},
        {"--kv-type", 0, OPTION_TEXT, &o->kv, "TYPE", "cache values: f16 (default), q8, f32"},
        {"--kv-tokens", 0, OPTION_INT, &o->kv_tokens, "N", "cache to admit, in tokens over all sequences", 0, 1 << 28},
        {"--chunk", 0, OPTION_INT, &o->chunk, "N", "prompt tokens of one micro-batch (default 256)", 1, 16384},
        {"--microbatches", 0, OPTION_INT, &o->microbatches, "N", "micro-batches in flight (default: what goes fastest)", 1, 64},
        {"--codec", 0, OPTION_TEXT, &o->codec, "CODEC", "activations between stages: f32 (exact, default), f16, bf16, q8, auto"},
        {"--objective", 0, OPTION_TEXT, &o->objective, "GOAL", "plan for latency (default), throughput or ttft"},
        {"--rejoin-timeout", 0, OPTION_NUMBER, &o->rejoin_seconds, "S", "when the nodes that are left cannot hold the model: wait so long for one to come back (default 30)", 0, 86400},
        {"--no-recovery", 0, OPTION_FLAG, &o->no_recovery, NULL, "a lost worker ends everything at once, with a line"},
        {"--awake", 0, OPTION_FLAG, &o->awake, NULL, "idle cores of this machine do not sleep while there is work: shorter hops, more power"},
        {"--json", 0, OPTION_FLAG, &o->json, NULL, "print JSON"},
    };
    enum { SHARED = sizeof shared / sizeof *shared };
    struct option table[SHARED + COMPUTE_OWN_OPTIONS_MAX];
    size_t words;
    o->rejoin_seconds = -1;
    memcpy(table, shared, sizeof shared);
    memcpy(table + SHARED, own, own_count * sizeof *own);
    enum options_outcome parsed = options_parse(argc, argv, table, SHARED + own_count, help, NULL, 0, &words);
    *exit_code = parsed == OPTIONS_HELP ? 0 : 2;
    return parsed == OPTIONS_OK;
}

static void show_progress(void *context, const struct runner_progress *p)
{
    struct compute_options *o = context;
    char what[128];
    if (o->on_progress)
        o->on_progress(o->progress_context, p);
    if (o->served)
        return; /* text is on its way to the same terminal */
    if (p->phase == RUNNER_READY) {
        o->served = true;
        progress_clear(&o->progress);
        return;
    }
    if (p->phase == RUNNER_LOADING && p->node) {
        uint64_t done, total;
        loading_note(&o->loading, p->node, p->what, p->done, p->total);
        loading_text(&o->loading, what, sizeof what, &done, &total);
        progress_show(&o->progress, what, done, total);
        return;
    }
    o->loading.count = 0;
    snprintf(what, sizeof what, "%s%s%s%s%s", runner_phase_name(p->phase), p->node ? " " : "", p->node ? p->node : "",
             p->what && *p->what ? ": " : "", p->what ? p->what : "");
    progress_show(&o->progress, what, p->done, p->total);
}

static int choose(const char *name, const char *what, const char *const *choices, const char *given, int *index,
                  struct error *err)
{
    char list[128] = "";
    for (int i = 0; choices[i]; i++) {
        if (!strcasecmp(choices[i], given)) {
            *index = i;
            return 0;
        }
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", choices[i]);
    }
    return error_set(err, ERR_USAGE, "'%s' is no %s for %s (%s)", given, what, name, list);
}

int compute_open(struct compute_options *o, struct runner **out, struct error *err)
{
    static const char *const kv_names[] = {"f16", "q8", "f32", NULL};
    static const char *const goals[] = {"latency", "throughput", "ttft", NULL};
    struct runner_options r = {
        .goal = o->goal,
        .config_path = o->config,
        .stages = (uint32_t)o->stages,
        .model_path = o->model,
        .threads = (int)o->threads,
        .kv_tokens = (uint32_t)o->kv_tokens,
        .max_context = (uint32_t)o->context,
        .chunk_tokens = (uint32_t)o->chunk,
        .microbatches = (uint32_t)o->microbatches,
        .sequences = o->sequences,
        .queue = o->queue,
        .predict = o->predict,
        .prompt_tokens = o->prompt_tokens,
        .output_tokens = o->output_tokens,
        .concurrency = o->concurrency,
        .no_recovery = o->no_recovery,
        .awake = o->awake,
        .stay = o->stay,
        .rejoin_given = o->rejoin_seconds >= 0,
        .rejoin_seconds = o->rejoin_seconds,
        .on_progress = show_progress,
        .context = o,
        .interrupt = &compute_interrupted,
    };
    int index;
    if (o->kv) {
        int rc = choose("--kv-type", "type", kv_names, o->kv, &index, err);
        if (rc)
            return rc;
        r.kv_given = true;
        r.kv = (enum kv_type)index;
    }
    if (o->objective) {
        int rc = choose("--objective", "goal", goals, o->objective, &index, err);
        if (rc)
            return rc;
        r.objective = (enum runner_objective)index;
    }
    if (o->codec) {
        r.codec = strcmp(o->codec, "auto") ? codec_parse(o->codec) : RUNNER_CODEC_AUTO;
        if (r.codec < 0)
            return error_set(err, ERR_USAGE, "'%s' is no codec for --codec (f32, f16, bf16, q8, auto)", o->codec);
    }
    if (!o->model && o->goal != RUNNER_LOOK)
        return error_set(err, ERR_USAGE, "no model: give one with -m MODEL.gguf");
    if (o->split.count > sizeof o->split_blocks / sizeof *o->split_blocks)
        return error_set(err, ERR_USAGE, "--split names %zu stages; at most 256", o->split.count);
    if (o->split.count && o->stages && o->split.count != (size_t)o->stages)
        return error_set(err, ERR_USAGE, "--split names %zu stages but --stages says %lld", o->split.count,
                         (long long)o->stages);
    for (size_t i = 0; i < o->split.count; i++)
        o->split_blocks[i] = (uint32_t)o->split.values[i];
    r.split = o->split.count ? o->split_blocks : NULL;
    r.split_count = (uint32_t)o->split.count;

    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int rc = runner_open(&r, out, err);
    progress_clear(&o->progress);
    return rc;
}

void compute_release(struct compute_options *o)
{
    mem_free(o->split.values);
    o->split = (struct option_list){0};
}

/* Wraps the request's own on_finish to learn how it ended. */
struct waiting {
    const struct request_options *asked;
    bool finished;
    int rc;
    struct error error;
};

static void pass_token(void *context, uint64_t id, const struct request_token *token)
{
    struct waiting *w = context;
    if (w->asked->on_token)
        w->asked->on_token(w->asked->context, id, token);
}

static void note_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct waiting *w = context;
    w->finished = true;
    if (finish->reason == FINISH_ERROR) {
        w->error = finish->error ? *finish->error : (struct error){ERR_INTERNAL, "the request failed"};
        w->rc = w->error.code;
    } else if (finish->reason == FINISH_CANCELLED) {
        w->rc = error_set(&w->error, ERR_CANCELLED, "interrupted");
    }
    if (w->asked->on_finish)
        w->asked->on_finish(w->asked->context, id, finish);
}

int compute_request(struct runner *r, const struct request_options *request, struct error *err)
{
    struct waiting w = {.asked = request};
    struct request_options wrapped = *request;
    uint64_t id;
    wrapped.on_token = pass_token;
    wrapped.on_finish = note_finish;
    wrapped.context = &w;
    int rc = runner_submit(r, &wrapped, &id, err);
    while (!rc && !w.finished) {
        rc = runner_step(r, 100, err);
        if (rc == ERR_CANCELLED) {
            /* Let the cancellation run its course so that pages and workers are left clean; a second Ctrl-C ends us. */
            compute_interrupted = 0;
            runner_cancel(r, id);
            rc = 0;
            for (int i = 0; i < 20 && !w.finished && !rc; i++)
                rc = runner_step(r, 100, err);
            if (!w.finished)
                return error_set(err, ERR_CANCELLED, "interrupted");
        }
    }
    if (w.finished && w.rc)
        return error_set(err, w.rc, "%s", w.error.text);
    return rc;
}
