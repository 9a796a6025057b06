/* `brigade bench --serve`: how requests of a workload fare, by the usual measures. The requests go to the runner as
 * those of `brigade serve` do, without HTTP between. One thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/units.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/prediction.h"
#include "coordinator/cli/workload.h"
#include "planner/plan.h"

static const struct command_help help = {
    "brigade bench --serve -m MODEL --workload requests.csv|poisson:RATE|clients:N [options]",
    "Lets the requests of a workload arrive as clients would send them and says how they fared: TTFT (to the first\n"
    "token), TGT (from there to the last one), TPOT (a token of those), E2EL (all of it), tokens and requests a second,\n"
    "goodput under an SLO, and memory by stage. A file has the columns arrival_s, prompt_tokens, output_tokens and, if\n"
    "wanted, client and priority. Prompts are made up; answers have exactly the tokens asked for.",
    "brigade bench --serve -m models/stories-5m-q8_0.gguf --workload poisson:20 --requests 100 --slo ttft=50ms,tpot=5ms\n"
    "brigade bench --serve -c cluster.yaml -m model.gguf --workload requests.csv --json",
};

#define FILE_BYTES_MAX (64u << 20)
#define LOOK_US 200000 /* between two looks at memory */

struct serve_bench {
    struct compute_options compute;
    const char *workload, *slo_text;
    struct option_list prompt, output;
    int64_t requests, parallel, queue, seed, shared;
    struct workload_slo slo;
};

/* What became of one request; seconds. */
struct fate {
    struct run *run;
    const struct workload_row *row;
    bool submitted, finished, refused, failed;
    double arrived, ttft, tgt, tpot, e2el;
    uint32_t generated;
};

struct run {
    const struct serve_bench *o;
    const struct workload *load;
    struct runner *runner;
    struct fate *fates;
    int32_t *ids; /* a prompt being made */
    size_t next, ended;
    uint32_t waiting;       /* with clients: answers that are out */
    int64_t began_us, looked_us;
    double seconds;
    uint64_t *peak_bytes;   /* [stages] most memory seen in use */
    uint32_t stages;
    struct error error;
};

static void on_finish(void *context, uint64_t id, const struct request_finish *f)
{
    struct fate *fate = context;
    (void)id;
    fate->finished = true;
    fate->run->ended++;
    fate->run->waiting--;
    fate->generated = f->generated_tokens;
    if (f->reason == FINISH_ERROR || f->reason == FINISH_CANCELLED) {
        fate->failed = true;
        if (f->error && !fate->run->error.code)
            fate->run->error = *f->error;
        return;
    }
    const struct request_timing *t = &f->timing;
    fate->ttft = (double)(t->first_token_us - fate->run->began_us) * 1e-6 - fate->arrived;
    fate->tgt = (double)(t->last_token_us - t->first_token_us) * 1e-6;
    fate->tpot = f->generated_tokens > 1 ? fate->tgt / (f->generated_tokens - 1) : 0;
    fate->e2el = fate->ttft + fate->tgt;
}

static int submit(struct run *run, size_t index, struct error *err)
{
    struct fate *fate = &run->fates[index];
    const struct workload_row *row = &run->load->rows[index];
    uint32_t vocabulary = model_info(runner_model(run->runner))->vocabulary;
    double now = (double)(clock_us() - run->began_us) * 1e-6;
    uint64_t id, salt = (uint64_t)run->o->seed * 1000003 + index;
    for (uint32_t i = 0; i < row->prompt_tokens; i++)
        run->ids[i] = (int32_t)(hash_mix64((i < run->o->shared ? UINT64_C(0) : salt << 24) + i) % vocabulary);
    struct request_options request = {
        .prompt = run->ids,
        .prompt_count = row->prompt_tokens,
        .max_tokens = row->output_tokens,
        .ignore_end = true,
        .client = row->client,
        .priority = row->priority,
        .on_finish = on_finish,
        .context = fate,
    };
    sampling_default(&request.sampling);
    *fate = (struct fate){.run = run, .row = row, .submitted = true, .arrived = run->load->clients ? now : row->arrival_s};
    int rc = runner_submit(run->runner, &request, &id, err);
    if (rc == ERR_BUSY) {
        fate->refused = true;
        run->ended++;
        return 0;
    }
    run->waiting += !rc;
    return rc;
}

static uint64_t own_peak_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

/* The most memory each stage's process has been seen to use. */
static void look_at_memory(struct run *run)
{
    struct runner_status status = {0};
    if (clock_us() - run->looked_us < LOOK_US || runner_status(run->runner, &status, NULL))
        return;
    run->looked_us = clock_us();
    for (uint32_t i = 0; i < status.node_count; i++) {
        const struct runner_node *n = &status.nodes[i];
        if (n->has_stage && n->stage < run->stages && n->resident_bytes > run->peak_bytes[n->stage])
            run->peak_bytes[n->stage] = n->resident_bytes;
    }
    if (!status.node_count)
        run->peak_bytes[0] = own_peak_bytes();
    runner_status_free(&status);
}

/* Submits what is due; returns how long to wait for the next, in milliseconds. */
static int submit_due(struct run *run, int *wait_ms, struct error *err)
{
    *wait_ms = 100;
    while (run->next < run->load->count) {
        int64_t due = run->began_us + (int64_t)(run->load->rows[run->next].arrival_s * 1e6), now = clock_us();
        if (run->load->clients ? run->waiting >= run->load->clients : due > now) {
            if (!run->load->clients && due - now < 100000)
                *wait_ms = (int)((due - now) / 1000);
            return 0;
        }
        int rc = submit(run, run->next, err);
        if (rc)
            return rc;
        run->next++;
    }
    return 0;
}

static int run_workload(struct run *run, struct error *err)
{
    struct progress progress = {0};
    int rc = 0, wait_ms;
    run->began_us = clock_us();
    while (!rc && run->ended < run->load->count) {
        if (!(rc = submit_due(run, &wait_ms, err)))
            rc = runner_step(run->runner, wait_ms, err);
        look_at_memory(run);
        progress_show(&progress, "requests", run->ended, run->load->count);
    }
    run->seconds = (double)(clock_us() - run->began_us) * 1e-6;
    run->looked_us = 0;
    look_at_memory(run);
    progress_clear(&progress);
    return rc;
}

/* ---- What came of it --------------------------------------------------------------------------------------------- */

static const double percents[] = {50, 90, 95, 99};
enum { PERCENTS = 4, MEASURES = 4 };
static const char *const measure_names[MEASURES] = {"ttft", "tgt", "tpot", "e2el"};

struct spread {
    size_t count;
    double mean, least, most, percentile[PERCENTS];
};

struct outcome {
    struct spread measures[MEASURES];
    size_t done, refused, failed, good;
    uint64_t prompt_tokens, generated;
    struct runner_status status;
    double busy[FRAME_STAGES_MAX]; /* share of the time that each stage computed */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value that so many percent of the sorted ones do not exceed. */
static double percentile(const double *sorted, size_t count, double percent)
{
    double rank = percent / 100 * (double)count;
    size_t at = (size_t)rank + ((double)(size_t)rank < rank);
    return sorted[at ? at - 1 : 0];
}

static struct spread spread_of(double *values, size_t count)
{
    struct spread s = {.count = count};
    if (!count)
        return s;
    qsort(values, count, sizeof *values, by_value);
    for (size_t i = 0; i < count; i++)
        s.mean += values[i] / (double)count;
    s.least = values[0];
    s.most = values[count - 1];
    for (int i = 0; i < PERCENTS; i++)
        s.percentile[i] = percentile(values, count, percents[i]);
    return s;
}

static bool is_good(const struct fate *f, const struct workload_slo *slo)
{
    return (!(slo->ttft_s > 0) || f->ttft <= slo->ttft_s) && (!(slo->tpot_s > 0) || f->tpot <= slo->tpot_s) &&
           (!(slo->e2el_s > 0) || f->e2el <= slo->e2el_s);
}

static int weigh(struct run *run, const double *busy_before, struct outcome *o, struct error *err)
{
    double *values = mem_zalloc(run->load->count, sizeof *values);
    if (!values)
        return error_set(err, ERR_NOMEM, "out of memory for the measurements of %zu requests", run->load->count);
    for (int m = 0; m < MEASURES; m++) {
        size_t n = 0;
        for (size_t i = 0; i < run->load->count; i++) {
            const struct fate *f = &run->fates[i];
            const double of[MEASURES] = {f->ttft, f->tgt, f->tpot, f->e2el};
            if (f->finished && !f->failed && (m == 0 || m == 3 || f->generated > 1))
                values[n++] = of[m];
        }
        o->measures[m] = spread_of(values, n);
    }
    mem_free(values);
    for (size_t i = 0; i < run->load->count; i++) {
        const struct fate *f = &run->fates[i];
        o->refused += f->refused;
        o->failed += f->failed;
        if (f->refused || f->failed)
            continue;
        o->done++;
        o->good += is_good(f, &run->o->slo);
        o->prompt_tokens += f->row->prompt_tokens;
        o->generated += f->generated;
    }
    int rc = runner_status(run->runner, &o->status, err);
    for (uint32_t i = 0; !rc && i < o->status.stage_count && i < FRAME_STAGES_MAX; i++)
        o->busy[i] = (o->status.stages[i].compute_seconds - busy_before[i]) / run->seconds;
    return rc;
}

struct stage_bytes {
    double model, kv, planned;
};

static struct stage_bytes stage_bytes_of(const struct runner *r, int stage)
{
    const struct plan *plan = runner_plan(r);
    const struct plan_problem *p = runner_problem(r);
    const struct plan_stage *s = &plan->stage[stage];
    struct stage_bytes b = {.planned = s->memory_bytes};
    for (int i = s->first_block; i <= s->last_block; i++) {
        const struct plan_block *block = &p->model.block[i];
        b.model += block->resident_bytes > 0 ? block->resident_bytes : block->weight_bytes;
        b.kv += block->kv_bytes * p->workload.kv_tokens;
    }
    b.model += (stage ? 0 : p->model.embedding_bytes) + (stage + 1 == plan->stages ? p->model.head_weight_bytes : 0);
    return b;
}

static json_t *spread_json(const struct spread *s)
{
    json_t *o = json_pack("{s:f, s:f, s:f}", "mean", s->mean * 1e3, "min", s->least * 1e3, "max", s->most * 1e3);
    for (int i = 0; i < PERCENTS; i++) {
        char name[8];
        snprintf(name, sizeof name, "p%.0f", percents[i]);
        json_object_set_new(o, name, json_real(s->percentile[i] * 1e3));
    }
    return o;
}

static json_t *memory_json(const struct run *run, const struct outcome *o)
{
    const struct plan *plan = runner_plan(run->runner);
    json_t *list = json_array();
    for (int i = 0; plan && i < plan->stages; i++) {
        struct stage_bytes b = stage_bytes_of(run->runner, i);
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:f}", "stage", i, "device",
                            runner_problem(run->runner)->device[plan->stage[i].device].name, "first_block",
                            plan->stage[i].first_block, "last_block", plan->stage[i].last_block, "model_bytes",
                            (json_int_t)b.model, "kv_bytes", (json_int_t)b.kv, "planned_bytes", (json_int_t)b.planned,
                            "peak_bytes", (json_int_t)run->peak_bytes[i], "busy", o->busy[i]));
    }
    return list;
}

static double a_second(const struct run *run, double count)
{
    return run->seconds > 0 ? count / run->seconds : 0;
}

static int print_json(const struct run *run, const struct outcome *o)
{
    const struct workload_slo *slo = &run->o->slo;
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I}", "workload", run->o->workload, "requests",
        (json_int_t)run->load->count, "done", (json_int_t)o->done, "refused", (json_int_t)o->refused, "failed",
        (json_int_t)o->failed, "seconds", run->seconds, "prompt_tokens", (json_int_t)o->prompt_tokens, "generated_tokens",
        (json_int_t)o->generated, "rps", a_second(run, (double)o->done), "prefill_tps",
        a_second(run, (double)o->prompt_tokens), "decode_tps", a_second(run, (double)o->generated), "preemptions",
        (json_int_t)o->status.preempted, "prompt_tokens_shared", (json_int_t)o->status.tokens_shared, "kv_pages",
        (json_int_t)o->status.pages);
    for (int m = 0; root && m < MEASURES; m++) {
        char name[16];
        snprintf(name, sizeof name, "%s_ms", measure_names[m]);
        json_object_set_new(root, name, spread_json(&o->measures[m]));
    }
    if (root && run->o->slo_text)
        json_object_set_new(root, "goodput",
                            json_pack("{s:f, s:f, s:f, s:f, s:f}", "rps", a_second(run, (double)o->good), "share",
                                      (double)o->good / (double)run->load->count, "ttft_s", slo->ttft_s, "tpot_s",
                                      slo->tpot_s, "e2el_s", slo->e2el_s));
    if (root) {
        json_object_set_new(root, "stages", memory_json(run, o));
        json_object_set_new(root, "predicted", prediction_json(run->runner));
    }
    return output_json(root);
}

static void print_spreads(const struct outcome *o)
{
    static const char *const heads[] = {"ms", "mean", "p50", "p90", "p95", "p99", "max"};
    static const char *const labels[MEASURES] = {"TTFT", "TGT", "TPOT", "E2EL"};
    struct table *t = table_create(7);
    for (size_t i = 0; i < 7; i++)
        table_cell(t, "%s", heads[i]);
    for (int m = 0; m < MEASURES; m++) {
        const struct spread *s = &o->measures[m];
        table_cell(t, "%s", labels[m]);
        table_cell(t, "%.2f", s->mean * 1e3);
        for (int i = 0; i < PERCENTS; i++)
            table_cell(t, "%.2f", s->percentile[i] * 1e3);
        table_cell(t, "%.2f", s->most * 1e3);
    }
    table_print(t);
    table_destroy(t);
}

static void print_stages(const struct run *run, const struct outcome *o)
{
    static const char *const heads[] = {"stage", "device", "blocks", "model", "cache", "planned", "peak", "busy"};
    const struct plan *plan = runner_plan(run->runner);
    struct table *t = table_create(8);
    for (size_t i = 0; i < 8; i++)
        table_cell(t, "%s", heads[i]);
    for (int i = 0; plan && i < plan->stages; i++) {
        struct stage_bytes b = stage_bytes_of(run->runner, i);
        const double bytes[] = {b.model, b.kv, b.planned, (double)run->peak_bytes[i]};
        table_cell(t, "%d", i);
        table_cell(t, "%s", runner_problem(run->runner)->device[plan->stage[i].device].name);
        table_cell(t, "%d-%d", plan->stage[i].first_block, plan->stage[i].last_block);
        for (int k = 0; k < 4; k++) {
            char text[UNITS_TEXT];
            table_cell(t, "%s", bytes[k] > 0 ? units_bytes_text((uint64_t)bytes[k], text) : "-");
        }
        table_cell(t, "%.1f %%", o->busy[i] * 100);
    }
    table_print(t);
    table_destroy(t);
}

static void print_text(const struct run *run, const struct outcome *o)
{
    printf("%zu requests in %.2f s: %zu done", run->load->count, run->seconds, o->done);
    if (o->refused || o->failed)
        printf(", %zu refused (queue full), %zu failed", o->refused, o->failed);
    printf("; %llu prompt tokens (%llu shared), %llu generated; %llu preemptions\n", (unsigned long long)o->prompt_tokens,
           (unsigned long long)o->status.tokens_shared, (unsigned long long)o->generated,
           (unsigned long long)o->status.preempted);
    print_spreads(o);
    printf("RPS %.2f requests/s; TPS prefill %.1f tokens/s, decode %.1f tokens/s\n", a_second(run, (double)o->done),
           a_second(run, (double)o->prompt_tokens), a_second(run, (double)o->generated));
    if (run->o->slo_text)
        printf("goodput under %s: %.2f requests/s, %zu of %zu (%.1f %%)\n", run->o->slo_text, a_second(run, (double)o->good),
               o->good, run->load->count, 100.0 * (double)o->good / (double)run->load->count);
    print_stages(run, o);
    prediction_print_bench(run->runner);
}

/* ---- The command ------------------------------------------------------------------------------------------------- */

static int read_file(const char *path, struct workload *out, struct error *err)
{
    FILE *f = fopen(path, "r");
    char *text = f ? mem_alloc(FILE_BYTES_MAX) : NULL;
    if (!f)
        return error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    size_t bytes = text ? fread(text, 1, FILE_BYTES_MAX, f) : 0;
    int rc = !text                     ? error_set(err, ERR_NOMEM, "out of memory for %s", path)
             : ferror(f)               ? error_set(err, ERR_IO, "%s cannot be read", path)
             : bytes == FILE_BYTES_MAX ? error_set(err, ERR_BOUND, "%s is larger than %u MiB", path, FILE_BYTES_MAX >> 20)
                                       : workload_parse(text, bytes, path, out, err);
    fclose(f);
    mem_free(text);
    return rc;
}

static int range_of(const struct option_list *list, const char *name, struct workload_range *out, struct error *err)
{
    if (!list->values)
        return 0;
    if (list->count > 2 || (list->count == 2 && list->values[0] > list->values[1]))
        return error_set(err, ERR_USAGE, "%s takes one number or the least and the most", name);
    out->least = (uint32_t)list->values[0];
    out->most = (uint32_t)list->values[list->count - 1];
    return 0;
}

static int get_workload(const struct serve_bench *o, struct workload *out, struct error *err)
{
    struct workload_shape shape = {
        .requests = (size_t)o->requests, .prompt = {32, 256}, .output = {16, 128}, .seed = (uint64_t)o->seed};
    int rc;
    if ((rc = range_of(&o->prompt, "--prompt-tokens", &shape.prompt, err)) ||
        (rc = range_of(&o->output, "--output-tokens", &shape.output, err)))
        return rc;
    return workload_is_made(o->workload) ? workload_make(o->workload, &shape, out, err)
                                         : read_file(o->workload, out, err);
}

/* The context must hold the longest request. */
static uint32_t longest_row(const struct workload *w, uint32_t *prompt)
{
    uint64_t longest = 0;
    *prompt = 0;
    for (size_t i = 0; i < w->count; i++) {
        uint64_t tokens = (uint64_t)w->rows[i].prompt_tokens + w->rows[i].output_tokens;
        longest = tokens > longest ? tokens : longest;
        *prompt = w->rows[i].prompt_tokens > *prompt ? w->rows[i].prompt_tokens : *prompt;
    }
    return (uint32_t)longest;
}

/* One request before the clock starts: pages are touched, threads awake. */
static int warm_up(struct run *run, struct error *err)
{
    struct request_options request = {.prompt = run->ids, .prompt_count = 8, .max_tokens = 4, .ignore_end = true};
    sampling_default(&request.sampling);
    return compute_request(run->runner, &request, err);
}

static int measure(struct serve_bench *o, const struct workload *load, struct error *err)
{
    struct run run = {.o = o, .load = load};
    struct outcome outcome = {0};
    struct runner_status before = {0};
    double busy[FRAME_STAGES_MAX] = {0};
    uint32_t prompt, longest = longest_row(load, &prompt);
    if (!o->compute.context)
        o->compute.context = longest > 32 ? longest : 32;
    o->compute.sequences = (uint32_t)o->parallel;
    o->compute.queue = (uint32_t)o->queue;
    o->compute.concurrency = (uint32_t)o->parallel;
    int rc = compute_open(&o->compute, &run.runner, err);
    if (!rc) {
        run.stages = runner_plan(run.runner) ? (uint32_t)runner_plan(run.runner)->stages : 1;
        run.fates = mem_zalloc(load->count, sizeof *run.fates);
        run.ids = mem_zalloc(prompt > 8 ? prompt : 8, sizeof *run.ids);
        run.peak_bytes = mem_zalloc(run.stages, sizeof *run.peak_bytes);
        if (!run.fates || !run.ids || !run.peak_bytes)
            rc = error_set(err, ERR_NOMEM, "out of memory for %zu requests", load->count);
    }
    if (!rc && !(rc = warm_up(&run, err)) && !(rc = runner_status(run.runner, &before, err))) {
        for (uint32_t i = 0; i < before.stage_count && i < FRAME_STAGES_MAX; i++)
            busy[i] = before.stages[i].compute_seconds;
        rc = run_workload(&run, err);
    }
    if (!rc && !(rc = weigh(&run, busy, &outcome, err))) {
        if (outcome.failed && !outcome.done)
            rc = error_set(err, run.error.code ? run.error.code : ERR_INTERNAL, "no request was answered: %s",
                           run.error.text);
        else if (!o->compute.json)
            print_text(&run, &outcome);
        else if (print_json(&run, &outcome))
            rc = error_set(err, ERR_IO, "cannot write the result");
    }
    runner_status_free(&outcome.status);
    runner_status_free(&before);
    runner_close(run.runner);
    mem_free(run.fates);
    mem_free(run.ids);
    mem_free(run.peak_bytes);
    return rc;
}

int command_bench_serve(int argc, char **argv)
{
    struct serve_bench o = {.requests = 64, .parallel = 16, .queue = 1 << 16, .seed = 1};
    bool serve = false;
    const struct option own[] = {
        {"--serve", 0, OPTION_FLAG, &serve, NULL, "this kind of measurement"},
        {"--workload", 0, OPTION_TEXT, &o.workload, "SPEC", "requests.csv, poisson:RATE (requests a second) or clients:N"},
        {"--requests", 0, OPTION_INT, &o.requests, "N", "how many, when they are made up (default 64)", 1, WORKLOAD_ROWS_MAX},
        {"--prompt-tokens", 0, OPTION_LIST, &o.prompt, "A[,B]", "of each, then: so many, or from A to B (default 32,256)", 1, WORKLOAD_TOKENS_MAX},
        {"--output-tokens", 0, OPTION_LIST, &o.output, "A[,B]", "of each, then (default 16,128)", 1, WORKLOAD_TOKENS_MAX},
        {"--shared", 0, OPTION_INT, &o.shared, "N", "so many tokens begin all prompts alike (default 0)", 0, WORKLOAD_TOKENS_MAX},
        {"--seed", 0, OPTION_INT, &o.seed, "N", "of what is made up (default 1)", 0, 1e15},
        {"--slo", 0, OPTION_TEXT, &o.slo_text, "LIMITS", "what counts as good: ttft=1s,tpot=200ms,e2el=30s, one or more"},
        {"--parallel", 0, OPTION_INT, &o.parallel, "N", "sequences that compute at once (default 16)", 1, 256},
        {"--queue", 0, OPTION_INT, &o.queue, "N", "sequences that may wait beside those (default 65536)", 1, 1 << 20},
    };
    int code;
    if (!compute_parse(&o.compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    struct error err = {0};
    struct workload load = {0};
    int rc = o.workload ? 0 : error_set(&err, ERR_USAGE, "no workload: give one with --workload poisson:RATE, clients:N or a file");
    if (!rc && o.slo_text)
        rc = workload_parse_slo(o.slo_text, &o.slo, &err);
    if (!rc)
        rc = get_workload(&o, &load, &err);
    if (!rc)
        rc = measure(&o, &load, &err);
    workload_free(&load);
    mem_free(o.prompt.values);
    mem_free(o.output.values);
    compute_release(&o.compute);
    return options_exit(&help, rc, &err);
}
