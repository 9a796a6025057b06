/* `brigade perplexity`: how well a model predicts a text. The text is cut into windows of --ctx tokens; each window's
 * first token is replaced by the beginning-of-text token where the model has one, and only its second half is scored,
 * so that every scored token has at least half a window of context. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/tokens.h"

static const struct command_help help = {
    "brigade perplexity -m MODEL -f FILE [--ctx 512] [options]",
    "Perplexity over windows of --ctx tokens; the second half of each is scored. Prints the mean negative\n"
    "log-likelihood (nats), its standard error, and exp of it.",
    "brigade perplexity -m models/stories-5m-q8_0.gguf -f story.txt --ctx 256",
};

struct window {
    double nll;      /* sum over the scored half */
    double squares;
    uint32_t scored;
    uint32_t from;   /* first scored index */
    struct tally *tally;
};

struct tally {
    size_t running, done, total;
    struct error error;
    struct progress progress;
    bool quiet;
};

static void add_window(void *context, uint64_t id, const struct request_finish *finish)
{
    struct window *w = context;
    (void)id;
    for (uint32_t i = w->from; i < finish->score_count; i++) {
        w->nll += finish->scores[i];
        w->squares += (double)finish->scores[i] * finish->scores[i];
        w->scored++;
    }
    if (finish->reason == FINISH_ERROR)
        w->tally->error = finish->error ? *finish->error : (struct error){ERR_INTERNAL, "a window failed"};
    w->tally->running--;
    w->tally->done++;
    progress_show(&w->tally->progress, "perplexity", w->tally->done, w->tally->total);
}

/* Runs all windows, several at a time so that every stage has work. */
static int score_windows(struct runner *r, int32_t *ids, size_t length, struct window *windows, struct tally *tally,
                         struct error *err)
{
    enum { AT_ONCE = 4 };
    int32_t bos = tokenizer_bos(runner_tokenizer(r));
    size_t next = 0;
    int rc = 0;
    while (!rc && tally->done < tally->total && !tally->error.code) {
        while (!rc && next < tally->total && tally->running < AT_ONCE) {
            struct request_options request = {
                .prompt = ids + next * length, .prompt_count = length, .scores = true,
                .on_finish = add_window, .context = &windows[next],
            };
            uint64_t id;
            sampling_default(&request.sampling);
            if (bos >= 0 && tokenizer_adds_bos(runner_tokenizer(r)))
                ids[next * length] = bos;
            windows[next] = (struct window){.from = (uint32_t)(length / 2), .tally = tally};
            rc = runner_submit(r, &request, &id, err);
            tally->running += !rc;
            next += !rc;
        }
        if (!rc)
            rc = runner_step(r, 100, err);
    }
    if (!rc && tally->error.code)
        rc = error_set(err, tally->error.code, "%s", tally->error.text);
    return rc;
}

int command_perplexity(int argc, char **argv)
{
    struct compute_options compute = {.sequences = 4, .context = 512};
    const char *file = NULL;
    int64_t most = 0;
    const struct option own[] = {
        {"--file", 'f', OPTION_TEXT, &file, "FILE", "the text ('-': standard input)"},
        {"--windows", 0, OPTION_INT, &most, "N", "only the first N windows", 1, 1 << 24},
    };
    int code;
    if (!compute_parse(&compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    if (!file)
        return options_wrong(&help, "no text: give it with -f FILE");

    struct error err = {0};
    struct buffer text = {0};
    struct token_list ids = {0};
    struct runner *runner = NULL;
    struct window *windows = NULL;
    struct tally tally = {0};
    size_t length = (size_t)compute.context;
    int rc = tokens_read_text(NULL, file, &text, &err);
    if (!rc && length < 8)
        rc = error_set(&err, ERR_USAGE, "--ctx %zu is too short; windows need at least 8 tokens", length);
    if (!rc)
        rc = compute_open(&compute, &runner, &err);
    if (!rc)
        rc = tokenizer_encode(runner_tokenizer(runner), text.data, text.size, TOKENIZER_ADD_BOS, &ids, &err);
    tally.total = ids.count / length;
    if (most && (size_t)most < tally.total)
        tally.total = (size_t)most;
    if (!rc && !tally.total)
        rc = error_set(&err, ERR_USAGE, "%s holds %zu tokens, less than one window of %zu; give more text or a smaller --ctx",
                       file, ids.count, length);
    if (!rc && !(windows = mem_zalloc(tally.total, sizeof *windows)))
        rc = error_set(&err, ERR_NOMEM, "out of memory for %zu windows", tally.total);
    if (!rc)
        rc = score_windows(runner, ids.ids, length, windows, &tally, &err);
    progress_clear(&tally.progress);

    code = options_exit(&help, rc, &err);
    if (!rc) {
        double nll = 0, squares = 0, count = 0;
        for (size_t i = 0; i < tally.total; i++) {
            nll += windows[i].nll;
            squares += windows[i].squares;
            count += windows[i].scored;
        }
        nll /= count;
        double error = sqrt(fmax(0, squares / count - nll * nll) / count);
        if (compute.json)
            code = output_json(json_pack("{s:f, s:I, s:f, s:f, s:I, s:I}", "perplexity", exp(nll), "tokens", (json_int_t)count, "nll",
                                         nll, "nll_error", error, "windows", (json_int_t)tally.total, "ctx", (json_int_t)length));
        else
            printf("perplexity %.4f ± %.4f over %.0f tokens in %zu windows of %zu (nll %.6f)\n", exp(nll), exp(nll) * error,
                   count, tally.total, length, nll);
    }
    mem_free(windows);
    token_list_free(&ids);
    buffer_free(&text);
    runner_close(runner);
    compute_release(&compute);
    return code;
}
