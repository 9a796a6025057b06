/* Requests: stop strings across token boundaries, streaming whole characters, why a request ends. The vocabulary is a
 * made-up one in memory: a token for every byte, and some longer pieces. */
#include "tests/check.h"

#include "base/memory.h"
#include "coordinator/core/request.h"
#include "tests/coordinator/vocabulary.h"

struct seen {
    struct buffer text; /* all that was given out */
    uint32_t tokens, finishes;
    enum finish_reason reason;
    char stop[64];
    uint32_t generated;
    struct error error;
    bool broken; /* a piece that was not whole characters */
};

static bool whole_characters(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        size_t length = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 0;
        if (!length || i + length > n)
            return false;
        for (size_t k = 1; k < length; k++)
            if (((unsigned char)text[i + k] & 0xC0) != 0x80)
                return false;
        i += length;
    }
    return true;
}

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    struct seen *s = context;
    CHECK_INT(id, 7);
    CHECK_INT(token->index, s->tokens);
    CHECK(!s->finishes);
    CHECK_INT(strlen(token->text), token->text_bytes);
    s->tokens++;
    s->broken |= !whole_characters(token->text, token->text_bytes);
    buffer_append(&s->text, token->text, token->text_bytes);
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct seen *s = context;
    (void)id;
    s->finishes++;
    s->reason = finish->reason;
    s->generated = finish->generated_tokens;
    snprintf(s->stop, sizeof s->stop, "%s", finish->stop ? finish->stop : "");
    s->broken |= !whole_characters(finish->text, finish->text_bytes);
    buffer_append(&s->text, finish->text, finish->text_bytes);
    if (finish->error)
        s->error = *finish->error;
}

static struct request_options options(struct seen *s, const char *const *stop, size_t stops, uint32_t max_tokens)
{
    static const int32_t prompt[] = {VOCABULARY_BYTES + 'a', VOCABULARY_BYTES + 'b'};
    struct request_options o = {.prompt = prompt,
                                .prompt_count = 2,
                                .max_tokens = max_tokens,
                                .stop = stop,
                                .stop_count = stops,
                                .on_token = on_token,
                                .on_finish = on_finish,
                                .context = s};
    sampling_default(&o.sampling);
    return o;
}

static void push(struct request *r, int32_t id)
{
    struct sampled sampled = {.chosen = {id, -1}};
    struct error e = {0};
    CHECK_INT(request_push(r, &sampled, 100, &e), 0);
}

/* Says text, `cut` bytes a token where the vocabulary allows (byte tokens else). */
static void say(struct request *r, const char *text)
{
    for (; *text; text++)
        push(r, VOCABULARY_BYTES + (unsigned char)*text);
}

static void run(struct tokenizer *t, const char *text, const char *const *stops, size_t count, const char *expected,
                enum finish_reason reason, const char *stop)
{
    struct seen s = {0};
    struct error e = {0};
    struct request_options o = options(&s, stops, count, 500);
    struct request *r = NULL;
    CHECK_INT(request_create(&o, 7, t, VOCABULARY_SIZE, 1000, 1, &r, &e), 0);
    if (!r)
        return;
    say(r, text);
    request_finish(r, FINISH_CANCELLED, NULL, 200);
    CHECK_TEXT(s.text.data ? s.text.data : "", expected);
    CHECK_INT(s.finishes, 1);
    CHECK_INT(s.reason, reason);
    CHECK_TEXT(s.stop, stop);
    CHECK(!s.broken);
    buffer_free(&s.text);
    request_destroy(r);
}

static void stop_strings_never_leak(void)
{
    struct tokenizer *t = vocabulary_open();
    REQUIRE(t);
    static const char *const end[] = {"END"}, *const two[] = {"abcd", "bc"}, *const same[] = {"xy", "zxy"},
                             *const repeat[] = {"aab"}, *const euro[] = {"€!"};
    run(t, "hello END more", end, 1, "hello ", FINISH_STOP, "END");
    run(t, "hello ENOUGH", end, 1, "hello ENOUGH", FINISH_CANCELLED, "");
    run(t, "hello EN", end, 1, "hello EN", FINISH_CANCELLED, ""); /* held back, then given out at the end */
    run(t, "END", end, 1, "", FINISH_STOP, "END");
    run(t, "xabcdx", two, 2, "xa", FINISH_STOP, "bc"); /* complete first */
    run(t, "azxyb", same, 2, "a", FINISH_STOP, "zxy"); /* both end together: the longer one */
    run(t, "aaaab", repeat, 1, "aa", FINISH_STOP, "aab");
    run(t, "5 €, 7 €! 9", euro, 1, "5 €, 7 ", FINISH_STOP, "€!");
    tokenizer_close(t);
}

static void text_comes_as_soon_as_it_may(void)
{
    struct tokenizer *t = vocabulary_open();
    REQUIRE(t);
    static const char *const stops[] = {"STOP"};
    struct seen s = {0};
    struct request_options o = options(&s, stops, 1, 500);
    struct request *r = NULL;
    REQUIRE(!request_create(&o, 7, t, VOCABULARY_SIZE, 1000, 1, &r, NULL));
    say(r, "ab");
    CHECK_TEXT(s.text.data, "ab");
    say(r, "ST");
    CHECK_TEXT(s.text.data, "ab");
    say(r, "A");
    CHECK_TEXT(s.text.data, "abSTA");
    say(r, "\xE2\x82"); /* two of the three bytes of a euro sign */
    CHECK_TEXT(s.text.data, "abSTA");
    say(r, "\xAC");
    CHECK_TEXT(s.text.data, "abSTA€");
    say(r, "\xE2");
    request_finish(r, FINISH_LENGTH, NULL, 5);
    CHECK_TEXT(s.text.data, "abSTA€\xEF\xBF\xBD");
    buffer_free(&s.text);
    request_destroy(r);
    tokenizer_close(t);
}

/* Any text, any stop strings: what is given out is the text up to the first completed stop string, however it is
 * cut. */
static void any_cut_gives_the_same(void)
{
    struct tokenizer *t = vocabulary_open();
    REQUIRE(t);
    uint64_t seed = 5;
    for (int round = 0; round < 3000; round++) {
        char text[41], stop_text[3][6];
        const char *stops[3] = {stop_text[0], stop_text[1], stop_text[2]};
        size_t n = 1 + hash_mix64(++seed) % 40, count = hash_mix64(++seed) % 4;
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + hash_mix64(++seed) % 3);
        text[n] = 0;
        for (size_t k = 0; k < count; k++) {
            size_t length = 1 + hash_mix64(++seed) % 5;
            for (size_t i = 0; i < length; i++)
                stop_text[k][i] = (char)('a' + hash_mix64(++seed) % 3);
            stop_text[k][length] = 0;
        }
        /* The answer, written plainly: the shortest beginning of the text that ends in a stop string. */
        size_t best_end = SIZE_MAX, best_length = 0;
        for (size_t end = 1; end <= n && best_end == SIZE_MAX; end++)
            for (size_t k = 0; k < count; k++) {
                size_t length = strlen(stops[k]);
                if (length <= end && !memcmp(text + end - length, stops[k], length) &&
                    (best_end == SIZE_MAX || length > best_length)) {
                    best_end = end;
                    best_length = length;
                }
            }
        struct seen s = {0};
        struct request_options o = options(&s, stops, count, 500);
        struct request *r = NULL;
        REQUIRE(!request_create(&o, 7, t, VOCABULARY_SIZE, 1000, 1, &r, NULL));
        for (size_t at = 0; at < n;) { /* pieces of one or two letters, as the vocabulary has them */
            bool pair = at + 1 < n && hash_mix64(++seed) % 2;
            push(r, pair ? vocabulary_pair(text[at], text[at + 1]) : VOCABULARY_BYTES + text[at]);
            at += 1 + pair;
        }
        request_finish(r, FINISH_CANCELLED, NULL, 9);
        char want[41];
        snprintf(want, sizeof want, "%.*s", (int)(best_end == SIZE_MAX ? n : best_end - best_length), text);
        CHECK_TEXT(s.text.data ? s.text.data : "", want);
        CHECK_INT(s.reason, best_end == SIZE_MAX ? FINISH_CANCELLED : FINISH_STOP);
        buffer_free(&s.text);
        request_destroy(r);
    }
    tokenizer_close(t);
}

static void requests_end_for_a_reason(void)
{
    struct tokenizer *t = vocabulary_open();
    REQUIRE(t);
    struct seen s = {0};
    struct request_options o = options(&s, NULL, 0, 3);
    struct request *r = NULL;
    REQUIRE(!request_create(&o, 7, t, VOCABULARY_SIZE, 1000, 1, &r, NULL));
    say(r, "abcde");
    CHECK_INT(s.tokens, 3);
    CHECK_INT(s.reason, FINISH_LENGTH);
    CHECK_INT(s.finishes, 1);
    CHECK_INT(request_timing_of(r)->first_token_us, 100);
    request_destroy(r);
    buffer_free(&s.text);

    s = (struct seen){0};
    o = options(&s, NULL, 0, UINT32_MAX);
    REQUIRE(!request_create(&o, 7, t, VOCABULARY_SIZE, 6, 1, &r, NULL));
    say(r, "abcdefgh");
    CHECK_INT(s.tokens, 4); /* two of the prompt and four make the context */
    CHECK_INT(s.reason, FINISH_LENGTH);
    request_destroy(r);
    buffer_free(&s.text);

    s = (struct seen){0};
    o = options(&s, NULL, 0, 10);
    REQUIRE(!request_create(&o, 7, t, VOCABULARY_SIZE, 100, 1, &r, NULL));
    say(r, "ab");
    push(r, VOCABULARY_EOS);
    CHECK_INT(s.reason, FINISH_STOP);
    CHECK_INT(s.tokens, 2); /* the end token is none of them */
    CHECK_INT(s.generated, 2);
    request_destroy(r);
    buffer_free(&s.text);

    s = (struct seen){0};
    o = options(&s, NULL, 0, 10);
    o.ignore_end = true;
    REQUIRE(!request_create(&o, 7, t, VOCABULARY_SIZE, 100, 1, &r, NULL));
    push(r, VOCABULARY_EOS);
    CHECK_INT(s.tokens, 1);
    CHECK_INT(s.finishes, 0);
    request_finish(r, FINISH_ERROR, &(struct error){ERR_LOST, "gone"}, 3);
    CHECK_TEXT(s.error.text, "gone");
    push(r, 5);
    CHECK_INT(s.finishes, 1);
    request_destroy(r);
    buffer_free(&s.text);
    tokenizer_close(t);
}

static void nonsense_is_refused(void)
{
    static const int32_t prompt[] = {1, 2, 3}, outside[] = {1, VOCABULARY_SIZE};
    static const char *const empty[] = {""};
    const struct {
        struct request_options o;
        int code;
        const char *text;
    } cases[] = {
        {{.prompt = prompt, .prompt_count = 0, .max_tokens = 1},
         ERR_USAGE,
         "the prompt is empty: it needs at least one token"},
        {{.prompt = prompt, .prompt_count = 3}, ERR_USAGE, "nothing to do: no tokens, scores or logits are asked for"},
        {{.prompt = prompt, .prompt_count = 3, .max_tokens = 1, .logits = true},
         ERR_USAGE,
         "logits and generated tokens cannot be asked for in one request"},
        {{.prompt = prompt, .prompt_count = 1, .scores = true},
         ERR_USAGE,
         "scores need a prompt of at least two tokens"},
        {{.prompt = outside, .prompt_count = 2, .max_tokens = 1},
         ERR_USAGE,
         "token 280 at position 1 of the prompt is outside the vocabulary of 280"},
        {{.prompt = prompt, .prompt_count = 3, .max_tokens = 1, .stop = empty, .stop_count = 1},
         ERR_USAGE,
         "stop string 1 must have 1 to 256 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct request_options o = cases[i].o;
        struct request *r = NULL;
        struct error e = {0};
        sampling_default(&o.sampling);
        CHECK_INT(request_create(&o, 1, NULL, VOCABULARY_SIZE, 100, 0, &r, &e), cases[i].code);
        CHECK_TEXT(e.text, cases[i].text);
    }
    struct request_options o = {.prompt = prompt, .prompt_count = 3, .max_tokens = 1};
    struct request *r = NULL;
    struct error e = {0};
    sampling_default(&o.sampling);
    CHECK_INT(request_create(&o, 1, NULL, VOCABULARY_SIZE, 2, 0, &r, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "the prompt has 3 tokens but the context holds 2: shorten it or raise the context");
    CHECK_INT(request_create(&o, 1, NULL, VOCABULARY_SIZE, 3, 0, &r, &e), ERR_BOUND);
    CHECK(strstr(e.text, "3 tokens and fills the context of 3"));
}

static const struct check_test tests[] = {
    {"stop strings never leak", stop_strings_never_leak},
    {"text comes as soon as it may", text_comes_as_soon_as_it_may},
    {"any cut gives the same", any_cut_gives_the_same},
    {"requests end for a reason", requests_end_for_a_reason},
    {"nonsense is refused", nonsense_is_refused},
};

CHECK_MAIN(tests)
