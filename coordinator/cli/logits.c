/* `brigade logits`: numbers for checking one engine against another, one split against another, one machine against
 * another. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/tokens.h"

static const struct command_help help = {
    "brigade logits -m MODEL (--tokens 1,2,3 | -p TEXT) [--top 64] [--greedy N] [--nll] [--bits] [options]",
    "Computes the log-likelihood of every token, the logits after the last one and, with --greedy, the argmax\n"
    "continuation with its margins. --bits adds a CRC-32 of the raw logits: equal bits, equal checksum. The cache is f32\n"
    "here unless --kv-type says otherwise.",
    "brigade logits -m models/stories-5m-q8_0.gguf -p 'Once upon a time' --bits --json\n"
    "brigade logits -m models/stories-5m-q8_0.gguf --tokens 1,403,407 --stages 3 --greedy 8",
};

/* Copies of what the requests' callbacks were given. */
struct numbers {
    float *scores, *logits;
    uint32_t score_count, logit_count;
    json_t *greedy;
    bool failed; /* out of memory inside a callback */
};

static float *copy_floats(const float *from, uint32_t count, bool *failed)
{
    float *copy = mem_resize(NULL, count, sizeof *copy);
    if (copy)
        memcpy(copy, from, count * sizeof *copy);
    else
        *failed = true;
    return copy;
}

static void keep_numbers(void *context, uint64_t id, const struct request_finish *finish)
{
    struct numbers *n = context;
    (void)id;
    if (finish->score_count && !n->scores) {
        n->scores = copy_floats(finish->scores, finish->score_count, &n->failed);
        n->score_count = finish->score_count;
    }
    if (finish->logit_count && !n->logits) {
        n->logits = copy_floats(finish->logits, finish->logit_count, &n->failed);
        n->logit_count = finish->logit_count;
    }
}

static void keep_greedy(void *context, uint64_t id, const struct request_token *token)
{
    struct numbers *n = context;
    (void)id;
    double margin = token->top_count > 1 ? token->top[0].logprob - token->top[1].logprob : 0;
    if (json_array_append_new(n->greedy, json_pack("[i, f]", token->id, margin)))
        n->failed = true;
}

struct ranked {
    uint32_t id;
    float logit;
};

static int by_falling_logit(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Adds mean, std and the top logits. */
static int add_logits(json_t *document, const struct numbers *n, size_t top)
{
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n->logit_count; i++)
        sum += n->logits[i];
    double mean = sum / n->logit_count;
    for (uint32_t i = 0; i < n->logit_count; i++)
        squares += (n->logits[i] - mean) * (n->logits[i] - mean);
    struct ranked *order = mem_resize(NULL, n->logit_count, sizeof *order);
    json_t *list = json_array();
    if (!order || !list) {
        mem_free(order);
        json_decref(list);
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n->logit_count; i++)
        order[i] = (struct ranked){i, n->logits[i]};
    qsort(order, n->logit_count, sizeof *order, by_falling_logit);
    for (size_t i = 0; i < top && i < n->logit_count; i++)
        json_array_append_new(list, json_pack("[i, f]", (int)order[i].id, (double)order[i].logit));
    mem_free(order);
    json_object_set_new(document, "mean", json_real(mean));
    json_object_set_new(document, "std", json_real(sqrt(squares / n->logit_count)));
    json_object_set_new(document, "top", list);
    return 0;
}

static void print_plain(const json_t *document)
{
    const json_t *nll = json_object_get(document, "nll"), *top = json_object_get(document, "top");
    const json_t *greedy = json_object_get(document, "greedy"), *crc = json_object_get(document, "crc32");
    double sum = 0;
    for (size_t i = 0; i < json_array_size(nll); i++)
        sum += json_number_value(json_array_get(nll, i));
    if (json_array_size(nll))
        printf("mean negative log-likelihood %.6f over %zu tokens\n", sum / (double)json_array_size(nll),
               json_array_size(nll));
    for (size_t i = 0; i < json_array_size(top); i++)
        printf("%8lld  %12.6f\n", json_integer_value(json_array_get(json_array_get(top, i), 0)),
               json_number_value(json_array_get(json_array_get(top, i), 1)));
    for (size_t i = 0; i < json_array_size(greedy); i++)
        printf("greedy %8lld  margin %.6f\n", json_integer_value(json_array_get(json_array_get(greedy, i), 0)),
               json_number_value(json_array_get(json_array_get(greedy, i), 1)));
    if (crc)
        printf("crc32 %08llx\n", json_integer_value(crc));
}

int command_logits(int argc, char **argv)
{
    struct compute_options compute = {.sequences = 1};
    struct option_list list = {0};
    const char *text = NULL;
    int64_t top = 64, greedy = 0;
    bool nll_only = false, bits = false;
    const struct option own[] = {
        {"--tokens", 0, OPTION_LIST, &list, "LIST", "token ids, comma-separated"},
        {"--prompt", 'p', OPTION_TEXT, &text, "TEXT", "text to tokenise instead"},
        {"--top", 0, OPTION_INT, &top, "N", "how many of the largest logits (default 64)", 0, 1 << 24},
        {"--greedy", 0, OPTION_INT, &greedy, "N", "continue by argmax for N tokens", 0, 1 << 20},
        {"--nll", 0, OPTION_FLAG, &nll_only, NULL, "only the log-likelihoods"},
        {"--bits", 0, OPTION_FLAG, &bits, NULL, "add crc32 of the raw logits at the last position"},
    };
    int code;
    if (!compute_parse(&compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    if (!compute.kv)
        compute.kv = "f32"; /* numbers for checking: nothing rounded that the model itself does not round */
    if (!list.values == !text)
        return options_wrong(&help, "give --tokens 1,2,3 or -p TEXT, one of them");

    struct error err = {0};
    struct runner *runner = NULL;
    struct token_list encoded = {0};
    struct numbers n = {0};
    int32_t *ids = NULL;
    json_t *document = NULL;
    int rc = compute_open(&compute, &runner, &err);
    if (rc)
        goto done;
    if (text) {
        rc = tokenizer_encode(runner_tokenizer(runner), text, strlen(text),
                              TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &encoded, &err);
        ids = encoded.ids;
    } else {
        rc = tokens_from_list(&list, model_info(runner_model(runner))->vocabulary, &ids, &err);
        encoded.count = list.count;
        encoded.ids = ids;
    }
    if (rc)
        goto done;
    document = json_pack("{s:i, s:o}", "n_vocab", (int)model_info(runner_model(runner))->vocabulary, "ids",
                         tokens_json(ids, encoded.count));
    n.greedy = json_array();
    if (!document || !n.greedy) {
        rc = error_set(&err, ERR_NOMEM, "out of memory");
        goto done;
    }

    struct request_options request = {.prompt = ids, .prompt_count = encoded.count, .on_finish = keep_numbers, .context = &n};
    sampling_default(&request.sampling);
    if (encoded.count > 1) {
        request.scores = true;
        rc = compute_request(runner, &request, &err);
    }
    json_t *nll = json_array();
    for (uint32_t i = 0; i < n.score_count; i++)
        json_array_append_new(nll, json_real(n.scores[i]));
    json_object_set_new(document, "nll", nll);
    request.scores = false;
    if (!rc && (!nll_only || bits)) {
        request.logits = true;
        rc = compute_request(runner, &request, &err);
        request.logits = false;
    }
    if (!rc && n.logit_count && !nll_only)
        rc = add_logits(document, &n, (size_t)top);
    if (!rc && n.logit_count && bits)
        json_object_set_new(document, "crc32", json_integer(hash_crc32(0, n.logits, n.logit_count * sizeof *n.logits)));
    if (!rc && greedy && !nll_only) {
        request.max_tokens = (uint32_t)greedy;
        request.ignore_end = true;
        request.sampling.top_logprobs = 2;
        request.on_token = keep_greedy;
        rc = compute_request(runner, &request, &err);
        json_object_set(document, "greedy", n.greedy);
    }
    if (!rc && n.failed)
        rc = error_set(&err, ERR_NOMEM, "out of memory for the results");
done:;
    code = options_exit(&help, rc, &err);
    if (!rc && compute.json)
        code = output_json(json_incref(document));
    else if (!rc)
        print_plain(document);
    json_decref(document);
    json_decref(n.greedy);
    mem_free(n.scores);
    mem_free(n.logits);
    mem_free(ids);
    mem_free(list.values);
    runner_close(runner);
    compute_release(&compute);
    return code;
}
