/* `brigade bench`: prefill (pp) and decode (tg) speed, one row a setting, beside the machine's own limits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/energy_report.h"
#include "coordinator/cli/prediction.h"

static const struct command_help help = {
    "brigade bench -m MODEL [-p 128,512] [-n 32] [-b 1,4] [-t THREADS] [options]",
    "Measures prefill (pp: tokens of the prompt a second) and decode (tg: tokens a second over all sequences), each\n"
    "setting --repeat times, the median counts. \"best\" is the fastest run, or for decode the fastest quarter of the\n"
    "steps: what an otherwise busy machine can do. Beside them: this machine's read bandwidth and int8 peak, and what\n"
    "the plan predicts. With --serve: how the requests of a workload fare; 'brigade bench --serve --help' tells more.",
    "brigade bench -m models/stories-5m-q8_0.gguf -p 128 -n 64 -b 1,4\n"
    "brigade bench -m model.gguf --stages 2 -t 1 -b 1,8 --trace",
};

struct row {
    bool prefill;
    uint32_t tokens, batch, context;
    double tokens_per_s, ms, best;  /* best: tokens a second of the fastest run (pp), of the fastest quarter of steps (tg);
                                     * 0: there was no step in which every sequence decoded */
    double predicted;               /* tokens a second; 0 where nothing was measured */
    double joules_per_token;        /* negative: not measured */
    double share, best_share;       /* of the read bandwidth (tg) or of the int8 peak (pp); 0 unknown */
};

/* What the sequences of one run report. */
struct lap {
    uint32_t sequences, first, finished;
    int64_t all_first_us, started_us;
    uint32_t tokens_after;   /* tokens that came once every sequence had its first, and before one had its last */
    double step_seconds;     /* of all whole steps among them */
    uint32_t steps_whole;
    double *step_us;         /* time of each step of `sequences` such tokens; NULL: not wanted. Borrowed */
    uint32_t steps, steps_most;
    int64_t step_began_us;
    struct error error;
};

static void lap_token(void *context, uint64_t id, const struct request_token *token)
{
    struct lap *lap = context;
    (void)id;
    if (lap->first == lap->sequences && !lap->finished && ++lap->tokens_after % lap->sequences == 0) {
        int64_t now = clock_us();
        lap->step_seconds += 1e-6 * (double)(now - lap->step_began_us);
        lap->steps_whole++;
        if (lap->steps < lap->steps_most)
            lap->step_us[lap->steps++] = (double)(now - lap->step_began_us);
        lap->step_began_us = now;
    }
    if (token->index == 0 && ++lap->first == lap->sequences)
        lap->step_began_us = clock_us();
}

static void lap_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct lap *lap = context;
    (void)id;
    lap->finished++;
    if (finish->reason == FINISH_ERROR && finish->error)
        lap->error = *finish->error;
    if (finish->timing.first_token_us > lap->all_first_us)
        lap->all_first_us = finish->timing.first_token_us;
    if (!lap->started_us || finish->timing.started_us < lap->started_us)
        lap->started_us = finish->timing.started_us;
}

/* Prompts of made-up tokens, different in each sequence so that no prefix is shared. */
static void fill_prompt(int32_t *ids, size_t count, uint32_t vocabulary, uint64_t salt)
{
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)(hash_mix64(salt * 1000003 + i) % vocabulary);
}

static int run_lap(struct runner *r, uint32_t prompt, uint32_t generate, uint32_t batch, uint64_t salt, struct lap *lap,
                   struct error *err)
{
    uint32_t vocabulary = model_info(runner_model(r))->vocabulary;
    int32_t *ids = mem_zalloc(prompt, sizeof *ids);
    int rc = ids ? 0 : error_set(err, ERR_NOMEM, "out of memory");
    lap->sequences = batch;
    for (uint32_t i = 0; i < batch && !rc; i++) {
        struct request_options request = {
            .prompt = ids, .prompt_count = prompt, .max_tokens = generate, .ignore_end = true, .client = i,
            .on_token = lap_token, .on_finish = lap_finish, .context = lap,
        };
        uint64_t id;
        sampling_default(&request.sampling);
        fill_prompt(ids, prompt, vocabulary, salt + i);
        rc = runner_submit(r, &request, &id, err);
    }
    while (!rc && lap->finished < batch)
        rc = runner_step(r, 100, err);
    mem_free(ids);
    if (!rc && lap->error.code)
        rc = error_set(err, lap->error.code, "%s", lap->error.text);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Tokens a second in the fastest quarter of all steps. */
static double best_rate(double *step_us, uint32_t steps, uint32_t batch)
{
    double sum = 0;
    uint32_t quarter = (steps + 3) / 4;
    qsort(step_us, steps, sizeof *step_us, by_value);
    for (uint32_t i = 0; i < quarter; i++)
        sum += step_us[i];
    return sum > 0 ? 1e6 * batch * quarter / sum : 0;
}

static int measure(struct runner *r, struct row *row, int repeat, uint64_t *salt, struct error *err)
{
    double rates[64], joules = 0;
    struct runner_energy before, after;
    uint32_t steps = 0, most = row->prefill ? 0 : row->tokens * (uint32_t)repeat;
    double *step_us = most ? mem_zalloc(most, sizeof *step_us) : NULL;
    int rc = most && !step_us ? error_set(err, ERR_NOMEM, "out of memory") : 0;
    for (int i = 0; i < repeat && !rc; i++) {
        struct lap lap = {.step_us = step_us, .steps = steps, .steps_most = most};
        uint32_t prompt = row->prefill ? row->tokens : row->context, generate = row->prefill ? 1 : row->tokens + 1;
        if (!row->prefill && row->context > KV_PAGE_TOKENS) /* its whole pages are cached: all begin to decode together */
            rc = run_lap(r, row->context, 1, row->batch, *salt, &(struct lap){0}, err);
        energy_now(r, &before);
        if (!rc)
            rc = run_lap(r, prompt, generate, row->batch, *salt, &lap, err);
        energy_now(r, &after);
        double spent = energy_between(&before, &after);
        joules = joules < 0 || spent < 0 ? -1 : joules + spent;
        *salt += row->batch;
        steps = lap.steps;
        double seconds = row->prefill ? 1e-6 * (double)(lap.all_first_us - lap.started_us) : lap.step_seconds;
        double tokens = row->prefill ? (double)row->tokens * row->batch : (double)lap.steps_whole * row->batch;
        rates[i] = seconds > 0 ? tokens / seconds : 0;
    }
    struct prediction p;
    double context = row->context + row->tokens / 2.0;
    if (!rc && prediction_for(r, row->prefill ? row->tokens : row->context, context, row->batch, &p))
        row->predicted = row->prefill ? row->tokens / p.ttft_s : p.tokens_per_s;
    row->joules_per_token = joules > 0 ? joules / ((double)row->tokens * row->batch * repeat) : -1;
    if (!rc) {
        qsort(rates, (size_t)repeat, sizeof *rates, by_value);
        row->tokens_per_s = rates[repeat / 2];
        row->best = row->prefill ? rates[repeat - 1] : best_rate(step_us, steps, row->batch);
        row->ms = row->tokens_per_s > 0 ? 1e3 * row->batch / row->tokens_per_s : 0; /* tg: of one step */
    }
    mem_free(step_us);
    return rc;
}

/* Bytes of weights read for one decoded token, and multiply-accumulates of one token's matrices. */
static void token_costs(const struct model *m, double *bytes, double *macs)
{
    struct block_cost head = model_head_cost(m);
    uint32_t blocks = model_info(m)->blocks;
    *bytes = (double)head.read_bytes;
    *macs = 0;
    for (uint32_t i = 0; i < blocks; i++) {
        struct block_cost cost = model_block_cost(m, i, KV_F16);
        *bytes += (double)cost.read_bytes;
        *macs += (double)cost.flops_per_token / 2;
    }
}

static json_t *rows_json(const struct row *rows, size_t count, uint32_t stages, int threads)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++) {
        json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:i}", "kind", rows[i].prefill ? "pp" : "tg",
                                              "tokens", (int)rows[i].tokens, "batch", (int)rows[i].batch, "context",
                                              (int)rows[i].context, "threads", threads, "tokens_per_s", rows[i].tokens_per_s,
                                              "predicted_tokens_per_s", rows[i].predicted, "of_limit", rows[i].share,
                                              "best_tokens_per_s", rows[i].best,
                                              "best_of_limit", rows[i].best_share, "stages", (int)stages));
        if (rows[i].tokens_per_s <= 0) { /* unknown, and not nothing */
            json_object_set_new(json_array_get(list, i), "tokens_per_s", json_null());
            json_object_set_new(json_array_get(list, i), "best_tokens_per_s", json_null());
        }
        if (rows[i].joules_per_token > 0)
            json_object_set_new(json_array_get(list, i), "joules_per_token", json_real(rows[i].joules_per_token));
    }
    return list;
}

/* This machine's limits with as many threads as the run uses in all. */
static int probe_machine(int threads, double *read, double *macs, struct error *err)
{
    struct pool *pool = NULL;
    int rc = kernels_init(err);
    if (!rc)
        rc = pool_create(&(struct pool_options){.threads = threads, .bind = true}, &pool, err);
    if (rc)
        return rc;
    *read = probe_read_bandwidth(pool, 300);
    *macs = probe_int8_peak(pool, 100);
    pool_destroy(pool);
    return 0;
}

struct bench_options {
    struct compute_options compute;
    struct option_list prefill, batches, contexts;
    int64_t decode, repeat;
    bool trace;
};

/* Lists the rows to measure; *rows is the caller's. */
static size_t plan_rows(const struct bench_options *o, struct row *rows)
{
    static const int64_t default_prefill[] = {128, 512}, default_batch[] = {1}, default_context[] = {16};
    const int64_t *prefill = o->prefill.values ? o->prefill.values : default_prefill;
    const int64_t *batch = o->batches.values ? o->batches.values : default_batch;
    const int64_t *context = o->contexts.values ? o->contexts.values : default_context;
    size_t n = 0, prefills = o->prefill.values ? o->prefill.count : 2;
    for (size_t i = 0; i < prefills; i++)
        if (prefill[i] > 0)
            rows[n++] = (struct row){.prefill = true, .tokens = (uint32_t)prefill[i], .batch = 1};
    for (size_t c = 0; o->decode > 0 && c < (o->contexts.values ? o->contexts.count : 1); c++)
        for (size_t i = 0; i < (o->batches.values ? o->batches.count : 1); i++)
            rows[n++] = (struct row){.tokens = (uint32_t)o->decode, .batch = (uint32_t)batch[i], .context = (uint32_t)context[c]};
    return n;
}

static int bench(struct bench_options *o, struct error *err)
{
    size_t most = o->prefill.count + (o->batches.count + 1) * (o->contexts.count + 1) + 2;
    struct row *rows = mem_zalloc(most, sizeof *rows);
    struct runner *runner = NULL;
    struct runner_energy energy;
    char energy_text[160];
    double read = 0, peak = 0, bytes, macs;
    uint32_t longest = 0, widest = 1, narrowest = UINT32_MAX; /* sequences */
    int64_t cache = 0; /* tokens, in whole pages a sequence: nobody waits or makes room for another */
    if (!rows)
        return error_set(err, ERR_NOMEM, "out of memory");
    size_t count = plan_rows(o, rows);
    for (size_t i = 0; i < count; i++) {
        uint32_t need = rows[i].prefill ? rows[i].tokens + 1 : rows[i].context + rows[i].tokens + 1;
        longest = need > longest ? need : longest;
        widest = rows[i].batch > widest ? rows[i].batch : widest;
        narrowest = !rows[i].prefill && rows[i].batch < narrowest ? rows[i].batch : narrowest;
        int64_t tokens = (int64_t)rows[i].batch * ((need + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS * KV_PAGE_TOKENS);
        cache = tokens > cache ? tokens : cache;
    }
    if (!o->compute.kv_tokens)
        o->compute.kv_tokens = cache;
    if (!o->compute.context)
        o->compute.context = longest;
    o->compute.sequences = widest;
    /* The plan is made for what is measured. */
    const struct row *decoding = count && !rows[count - 1].prefill ? &rows[count - 1] : NULL;
    o->compute.prompt_tokens = decoding ? decoding->context : rows[0].tokens;
    o->compute.output_tokens = decoding ? decoding->tokens : 1;
    if (!o->compute.objective && decoding && narrowest > 1)
        o->compute.objective = "throughput";
    o->compute.concurrency = o->compute.objective && !strcmp(o->compute.objective, "throughput") ? widest : 1;
    int threads_all = (int)o->compute.threads * (o->compute.stages > 1 && !o->compute.config ? (int)o->compute.stages : 1);
    int rc = o->compute.config ? 0 : probe_machine(threads_all, &read, &peak, err);
    if (!rc)
        rc = compute_open(&o->compute, &runner, err);
    uint64_t salt = 1;
    struct progress progress = {0};
    for (size_t i = 0; i < count && !rc; i++) {
        progress_show(&progress, "measuring", i, count);
        if (i == 0)
            rc = run_lap(runner, 8, 4, 1, salt++, &(struct lap){0}, err);
        if (!rc)
            rc = measure(runner, &rows[i], (int)o->repeat, &salt, err);
    }
    progress_clear(&progress);
    if (rc)
        goto done;

    token_costs(runner_model(runner), &bytes, &macs);
    for (size_t i = 0; i < count; i++) {
        double limit = rows[i].prefill ? peak / macs : read / bytes * rows[i].batch; /* tokens a second */
        if (limit > 0) {
            rows[i].share = rows[i].tokens_per_s / limit;
            rows[i].best_share = rows[i].best / limit;
        }
    }
    json_t *stage_list = compute_stages_json(runner);
    uint32_t stages = (uint32_t)json_array_size(stage_list);
    bool apart = o->compute.stages > 1 || o->compute.config; /* not all in this process */
    if (o->compute.json) {
        json_t *document = json_pack("{s:o, s:f, s:f, s:f, s:s, s:s, s:o, s:o}", "rows",
                                     rows_json(rows, count, stages, (int)o->compute.threads), "read_gbps", read / 1e9,
                                     "int8_gmacs", peak / 1e9, "weight_bytes_per_token", bytes, "isa", kernels_isa(), "model",
                                     model_info(runner_model(runner))->name, "stage_list", stage_list, "predicted",
                                     prediction_json(runner));
        energy_now(runner, &energy);
        if (document)
            json_object_set_new(document, "energy", energy_json(&energy));
        if (document && o->trace)
            json_object_set_new(document, "trace", trace_json(runner, apart));
        if (output_json(document))
            rc = error_set(err, ERR_IO, "cannot write the result");
    } else {
        energy_now(runner, &energy);
        energy_describe(&energy, energy_text, sizeof energy_text);
        size_t columns = energy.measured ? 12 : 11;
        struct table *t = table_create(columns);
        const char *heads[] = {"what",    "tokens",  "batch",    "context", "tokens/s", "predicted",
                               "off by", "ms/step", "of limit", "best",    "of limit", "J/token"};
        for (size_t i = 0; i < columns; i++)
            table_cell(t, "%s", heads[i]);
        for (size_t i = 0; i < count; i++) {
            table_cell(t, "%s", rows[i].prefill ? "prefill" : "decode");
            table_cell(t, "%u", rows[i].tokens);
            table_cell(t, "%u", rows[i].batch);
            table_cell(t, "%u", rows[i].context);
            bool known = rows[i].tokens_per_s > 0;
            table_cell(t, known ? "%.1f" : "-", rows[i].tokens_per_s);
            table_cell(t, rows[i].predicted > 0 ? "%.1f" : "-", rows[i].predicted);
            table_cell(t, known && rows[i].predicted > 0 ? "%+.0f %%" : "-", 100 * (rows[i].predicted / rows[i].tokens_per_s - 1));
            table_cell(t, known ? "%.3f" : "-", rows[i].prefill ? 1e3 * rows[i].tokens / rows[i].tokens_per_s : rows[i].ms);
            table_cell(t, rows[i].share > 0 ? "%.0f %%" : "-", rows[i].share * 100);
            table_cell(t, known ? "%.1f" : "-", rows[i].best);
            table_cell(t, rows[i].best_share > 0 ? "%.0f %%" : "-", rows[i].best_share * 100);
            if (energy.measured)
                table_cell(t, rows[i].joules_per_token > 0 ? "%.4g" : "-", rows[i].joules_per_token);
        }
        table_print(t);
        table_destroy(t);
        for (size_t i = 0; i < count; i++)
            if (rows[i].tokens_per_s <= 0)
                printf("no rate for %u sequences: the first had all its tokens before the last had one; take more than -n %u\n",
                       rows[i].batch, rows[i].tokens);
        if (read > 0)
            printf("limits here: read %.1f GB/s (decode), int8 %.0f GMAC/s (prefill); %.1f MB of weights a token; %s kernels\n",
                   read / 1e9, peak / 1e9, bytes / 1e6, kernels_isa());
        printf("energy: %s\n", energy_text);
        prediction_print_bench(runner);
        if (o->trace)
            trace_print(runner, apart);
        json_decref(stage_list);
    }
done:
    runner_close(runner);
    mem_free(rows);
    return rc;
}

int command_bench(int argc, char **argv)
{
    bool serve = false;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--serve"))
            return command_bench_serve(argc, argv);
    struct bench_options o = {.compute = {.predict = true}, .decode = 32, .repeat = 3};
    const struct option own[] = {
        {"--prefill", 'p', OPTION_LIST, &o.prefill, "LIST", "prompt lengths (default 128,512; 0: none)", 0, 1 << 20},
        {"--decode", 'n', OPTION_INT, &o.decode, "N", "tokens to decode in each sequence (default 32; 0: none)", 0, 1 << 20},
        {"--batch", 'b', OPTION_LIST, &o.batches, "LIST", "sequences that decode at once (default 1)", 1, 256},
        {"--past", 0, OPTION_LIST, &o.contexts, "LIST", "context before decoding (default 16)", 1, 1 << 24},
        {"--repeat", 'r', OPTION_INT, &o.repeat, "N", "runs of each setting, the median counts (default 3)", 1, 64},
        {"--trace", 0, OPTION_FLAG, &o.trace, NULL, "where the time of a decoded token goes, stage by stage"},
        {"--serve", 0, OPTION_FLAG, &serve, NULL, "many clients instead: a workload, with options of its own"},
    };
    int code;
    if (!compute_parse(&o.compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    struct error err = {0};
    int rc = bench(&o, &err);
    mem_free(o.prefill.values);
    mem_free(o.batches.values);
    mem_free(o.contexts.values);
    compute_release(&o.compute);
    return options_exit(&help, rc, &err);
}
