/* `brigade run`: one prompt, streamed. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/energy_report.h"
#include "coordinator/cli/prediction.h"
#include "coordinator/cli/prompt.h"
#include "coordinator/cli/sampling_options.h"
#include "coordinator/cli/tokens.h"

static const struct command_help help = {
    "brigade run -m MODEL (-p TEXT | -f FILE) [-n N] [--chat] [options]",
    "Continues a prompt and streams the text to stdout. Runs in this process, on K local workers (--stages K), or on a\n"
    "cluster (-c cluster.yaml): the tokens are the same. --stats adds what was measured, beside what was predicted.",
    "brigade run -m models/stories-5m-q8_0.gguf -p 'Once upon a time' -n 150\n"
    "brigade run -c cluster.yaml -m qwen3-8b-q4_k_m.gguf --chat -p 'Why is the sky blue?'",
};

struct answer {
    struct buffer text;
    int32_t *tokens;
    uint32_t token_count, prompt_tokens;
    enum finish_reason reason;
    struct request_timing timing;
    bool stream;      /* to stdout as it comes */
    struct error error; /* of writing */
};

static void put_text(struct answer *a, const char *text, size_t bytes)
{
    if (!bytes)
        return;
    if (a->stream && !a->error.code)
        output_text(text, bytes, &a->error);
    else if (buffer_append(&a->text, text, bytes))
        error_set(&a->error, ERR_NOMEM, "out of memory for the text");
}

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    (void)id;
    put_text(context, token->text, token->text_bytes);
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct answer *a = context;
    (void)id;
    put_text(a, finish->text, finish->text_bytes);
    a->tokens = mem_resize(NULL, finish->generated_tokens, sizeof *a->tokens);
    if (a->tokens) {
        memcpy(a->tokens, finish->tokens, finish->generated_tokens * sizeof *a->tokens);
        a->token_count = finish->generated_tokens;
    } else if (finish->generated_tokens) {
        error_set(&a->error, ERR_NOMEM, "out of memory for the tokens");
    }
    a->prompt_tokens = finish->prompt_tokens;
    a->reason = finish->reason;
    a->timing = finish->timing;
}

static double ttft_ms(const struct answer *a)
{
    return a->token_count ? (double)(a->timing.first_token_us - a->timing.arrived_us) / 1e3 : 0;
}

/* Time per output token after the first. */
static double tpot_ms(const struct answer *a)
{
    return a->token_count > 1 ? (double)(a->timing.last_token_us - a->timing.first_token_us) / 1e3 / (a->token_count - 1) : 0;
}

static json_t *answer_json(const struct answer *a, const struct runner *r, uint64_t seed)
{
    double tpot = tpot_ms(a);
    json_t *stages = compute_stages_json(r);
    return json_pack("{s:s%, s:o, s:i, s:f, s:f, s:f, s:s, s:i, s:o, s:I}", "text", a->text.data ? a->text.data : "",
                     a->text.size, "tokens", tokens_json(a->tokens, a->token_count), "prompt_tokens", (int)a->prompt_tokens,
                     "ttft_ms", ttft_ms(a), "tpot_ms", tpot, "tokens_per_s", tpot > 0 ? 1e3 / tpot : 0.0, "finish_reason",
                     finish_reason_name(a->reason), "stages", (int)json_array_size(stages), "stage_list", stages, "seed",
                     (json_int_t)seed);
}

/* Of this request: in all, and for each token. */
static void print_energy(const struct runner_energy *before, const struct runner_energy *after, uint32_t tokens)
{
    char source[160];
    double joules = energy_between(before, after);
    energy_describe(after, source, sizeof source);
    if (joules > 0 && tokens)
        fprintf(stderr, "  energy       %9.2f J, %.3g J/token (%s)\n", joules, joules / tokens, source);
    else
        fprintf(stderr, "  energy       %s\n", after->measured ? "too short to measure" : source);
}

int command_run(int argc, char **argv)
{
    struct compute_options compute = {.sequences = 1};
    struct sampling_options sampling;
    const char *text = NULL, *file = NULL, *system_text = NULL;
    bool chat = false, stats = false;
    struct option own[SAMPLING_OPTIONS + 5];
    const struct option of_run[5] = {
        {"--prompt", 'p', OPTION_TEXT, &text, "TEXT", "the prompt"},
        {"--file", 'f', OPTION_TEXT, &file, "FILE", "read the prompt from a file ('-': standard input)"},
        {"--chat", 0, OPTION_FLAG, &chat, NULL, "wrap the prompt in the model's chat template"},
        {"--system", 0, OPTION_TEXT, &system_text, "TEXT", "system message in front (with --chat)"},
        {"--stats", 0, OPTION_FLAG, &stats, NULL, "afterwards: TTFT, TPOT, tokens/s, measured beside predicted"},
    };
    memcpy(own, of_run, sizeof of_run);
    sampling_option_rows(&sampling, own + 5);
    int code;
    if (!compute_parse(&compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    if (system_text && !chat)
        return options_wrong(&help, "--system needs --chat");

    struct error err = {0};
    struct buffer input = {0};
    struct token_list ids = {0};
    struct runner *runner = NULL;
    struct runner_energy before = {0}, after = {0};
    struct answer answer = {.stream = !compute.json};
    struct request_options request = {.on_token = on_token, .on_finish = on_finish, .context = &answer};
    int rc = tokens_read_text(text, file, &input, &err);
    if (!rc) {
        compute.predict = stats;
        compute.output_tokens = sampling.tokens > 0 ? (uint32_t)sampling.tokens : 0;
        rc = compute_open(&compute, &runner, &err);
    }
    if (!rc)
        rc = prompt_encode(runner_tokenizer(runner), input.data, input.size, chat, system_text, &ids, &err);
    if (!rc) {
        request.prompt = ids.ids;
        request.prompt_count = ids.count;
        sampling_options_apply(&sampling, &request);
        energy_now(runner, &before);
        rc = compute_request(runner, &request, &err);
        energy_now(runner, &after);
    }
    if (!rc && answer.error.code)
        rc = error_set(&err, answer.error.code, "%s", answer.error.text);
    if (answer.stream && runner && answer.token_count)
        output_text("\n", 1, NULL);

    code = options_exit(&help, rc, &err);
    if (!rc && compute.json)
        code = output_json(answer_json(&answer, runner, request.sampling.seed));
    if (!rc && stats) {
        prediction_print(runner, answer.prompt_tokens, answer.token_count, ttft_ms(&answer), tpot_ms(&answer));
        print_energy(&before, &after, answer.token_count);
    }
    mem_free(answer.tokens);
    buffer_free(&answer.text);
    token_list_free(&ids);
    buffer_free(&input);
    runner_close(runner);
    compute_release(&compute);
    return code;
}
