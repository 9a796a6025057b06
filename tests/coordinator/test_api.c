/* The API's pure parts: requests field by field, errors, JSON text, keys. */
#include "coordinator/api/doorman.h"
#include "coordinator/api/json_text.h"
#include "coordinator/api/keys.h"
#include "coordinator/api/openai_request.h"
#include "coordinator/api/openai_response.h"
#include "tests/check.h"

#include <dirent.h>
#include <unistd.h>

static int parse(bool chat, const char *body, struct api_request *r, struct api_error *e)
{
    *e = (struct api_error){0};
    return api_parse_request(chat, body, strlen(body), r, e);
}

static void refused(bool chat, const char *body, const char *param)
{
    struct api_request r;
    struct api_error e;
    int rc = parse(chat, body, &r, &e);
    CHECK_INT(rc < 0, 1);
    CHECK_INT(e.status, 400);
    CHECK_TEXT(e.param, param);
    api_request_free(&r);
}

static void test_defaults(void)
{
    struct api_request r;
    struct api_error e;
    REQUIRE(parse(false, "{\"prompt\":\"x\"}", &r, &e) == 0);
    CHECK_INT(r.asked.max_tokens, API_DEFAULT_TEXT_TOKENS);
    CHECK_NEAR(r.asked.sampling.temperature, 1, 0);
    CHECK_NEAR(r.asked.sampling.top_p, 1, 0);
    CHECK_INT(r.choices, 1);
    CHECK(!r.logprobs && !r.stream && !r.echo);
    api_request_free(&r);
    REQUIRE(parse(true, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":null}", &r, &e) == 0);
    CHECK_INT(r.asked.max_tokens, UINT32_MAX);
    api_request_free(&r);
}

static void test_fields(void)
{
    struct api_request r;
    struct api_error e;
    REQUIRE(parse(true,
                  "{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
                  "\"text\":\"b\"}]}],\"seed\":-3,\"n\":2,\"stop\":[\"x\",\"yz\"],\"logit_bias\":{\"7\":-100,\"9\":1.5},"
                  "\"logprobs\":true,\"top_logprobs\":20,\"top_p\":0,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                  "\"max_completion_tokens\":5,\"user\":\"u\"}",
                  &r, &e) == 0);
    const json_t *m = json_array_get(r.messages, 0);
    CHECK_TEXT(json_string_value(json_object_get(m, "role")), "system");
    CHECK_TEXT(json_string_value(json_object_get(m, "content")), "a\nb");
    CHECK_INT((int64_t)r.asked.sampling.seed, -3);
    CHECK_INT(r.choices, 2);
    CHECK_INT(r.asked.stop_count, 2);
    CHECK_TEXT(r.asked.stop[1], "yz");
    CHECK_INT(r.asked.sampling.bias_count, 2);
    CHECK_INT(r.asked.sampling.top_logprobs, 20);
    CHECK(r.asked.sampling.top_p > 0 && r.stream && r.include_usage && r.logprobs);
    CHECK_INT(r.asked.max_tokens, 5);
    CHECK_INT(sampling_check(&r.asked.sampling, 100, NULL), 0);
    api_request_free(&r);
}

static void test_refusals(void)
{
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
    refused(true, "{" HI ",\"tools\":[{}]}", "tools");
    refused(true, "{" HI ",\"response_format\":{\"type\":\"json_object\"}}", "response_format");
    refused(true, "{" HI ",\"frobnicate\":null}", "frobnicate");
    refused(true, "{" HI ",\"max_tokens\":3,\"max_completion_tokens\":3}", "max_completion_tokens");
    refused(true, "{" HI ",\"top_logprobs\":3}", "top_logprobs");
    refused(true, "{" HI ",\"temperature\":2.01}", "temperature");
    refused(true, "{}", "messages");
    refused(true, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[1]}]}", "messages[0].tool_calls");
    refused(true, "{\"messages\":[{\"role\":\"wizard\",\"content\":\"x\"}]}", "messages[0].role");
    refused(false, "{\"prompt\":\"x\",\"suffix\":\"y\"}", "suffix");
    refused(false, "{\"prompt\":[1,\"x\"]}", "prompt");
    refused(false, "{\"prompt\":[[1],[]]}", "prompt");
    refused(false, "{\"prompt\":\"x\",\"max_tokens\":0}", "max_tokens");
    refused(false, "", "");
    refused(false, "[]", "");
    refused(false, "{\"prompt\":\"x\",\"prompt\":\"y\"}", "");
    refused(false, "{\"prompt\":\"\xff\"}", "");
}

static void test_depth(void)
{
    char deep[2 * API_DEPTH_MAX + 40];
    for (int extra = 0; extra < 2; extra++) { /* the object is one level itself */
        int n = API_DEPTH_MAX - 1 + extra;
        size_t at = (size_t)sprintf(deep, "{\"a\":");
        memset(deep + at, '[', (size_t)n);
        memset(deep + at + n, ']', (size_t)n);
        strcpy(deep + at + 2 * n, "}");
        json_t *root = NULL;
        struct api_error e;
        CHECK_INT(api_parse_json(deep, strlen(deep), &root, &e) == 0, !extra);
        json_decref(root);
    }
}

static void test_json_text(void)
{
    struct buffer b = {0};
    json_put_text(&b, "a\"\\\n\x01\xC3\xA9\xFF", 8);
    CHECK_TEXT(b.data, "\"a\\\"\\\\\\n\\u0001\xC3\xA9\xEF\xBF\xBD\"");
    buffer_clear(&b);
    json_put_logprob(&b, -INFINITY);
    CHECK_TEXT(b.data, "-9999");
    buffer_free(&b);
}

static void test_answers_are_json(void)
{
    struct response_head h;
    struct buffer b = {0};
    response_head_start(&h, true, true, "a \"model\"", "fp_1");
    response_put_chunk(&b, &h, &(struct response_choice){.text = "x\n", .text_bytes = 2, .role = true});
    json_t *chunk = json_loadb(b.data + 6, b.size - 6, 0, NULL);
    CHECK(chunk != NULL && json_is_null(json_object_get(chunk, "usage")));
    json_decref(chunk);
    buffer_clear(&b);
    response_begin(&b, &h);
    for (uint32_t i = 0; i < 2; i++)
        response_put_choice(&b, &h, &(struct response_choice){.index = i, .text = "y", .text_bytes = 1, .finish_reason = "stop"});
    response_finish(&b, &(struct response_usage){3, 4});
    json_t *whole = json_loadb(b.data, b.size, 0, NULL);
    CHECK_INT(json_array_size(json_object_get(whole, "choices")), 2);
    CHECK_INT(json_integer_value(json_object_get(json_object_get(whole, "usage"), "total_tokens")), 7);
    json_decref(whole);
    buffer_free(&b);
}

static void test_keys(void)
{
    char path[] = "/tmp/brigade-keys-XXXXXX";
    struct api_keys *k = NULL;
    struct error err = {0};
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fputs("# ours\none\n\n two \r\n", f);
    fclose(f);
    REQUIRE(api_keys_read(path, &k, &err) == 0);
    CHECK_INT(api_keys_find(k, "Bearer one"), 1);
    CHECK_INT(api_keys_find(k, "bearer  two "), 2);
    CHECK_INT(api_keys_find(k, "Bearer on"), 0);
    CHECK_INT(api_keys_find(k, "Bearer onee"), 0);
    CHECK_INT(api_keys_find(k, "Bearer # ours"), 0);
    CHECK_INT(api_keys_find(k, "Basic one"), 0);
    CHECK_INT(api_keys_find(k, NULL), 0);
    api_keys_free(k);
    f = fopen(path, "w");
    fclose(f);
    CHECK_INT(api_keys_read(path, &k, &err), ERR_FORMAT);
    unlink(path);
    CHECK_INT(api_keys_read(path, &k, &err), ERR_IO);
}

/* One file of the corpus: bad-… is refused by both endpoints, chat-… and text-… are accepted by their own only. */
static void check_file(const char *name)
{
    char path[600], body[1 << 17];
    snprintf(path, sizeof path, "%s/%s", CORPUS, name);
    FILE *f = fopen(path, "r");
    REQUIRE(f);
    size_t n = fread(body, 1, sizeof body, f);
    fclose(f);
    for (int chat = 0; chat < 2; chat++) {
        struct api_request r;
        struct api_error e = {0};
        bool good = !api_parse_request(chat, body, n, &r, &e);
        api_request_free(&r);
        if (good != !strncmp(name, chat ? "chat-" : "text-", 5))
            CHECK_FAIL("%s: %s as %s: %s", name, good ? "accepted" : "refused", chat ? "chat" : "text", e.message);
        if (!good)
            CHECK(e.status == 400 && *e.message && !strcmp(e.type, "invalid_request_error"));
    }
}

static void test_corpus(void)
{
    DIR *d = opendir(CORPUS);
    int files = 0;
    REQUIRE(d);
    for (struct dirent *entry; (entry = readdir(d));)
        if (*entry->d_name != '.') {
            check_file(entry->d_name);
            files++;
        }
    closedir(d);
    CHECK(files > 50);
}

static void test_doorman(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum doorman_verdict verdict;
    } cases[] = {
        {"GET / HTTP/1.1", 14, DOORMAN_WELCOME}, {"\r\n\nPOST ", 8, DOORMAN_WELCOME}, {"x ", 2, DOORMAN_WELCOME},
        {"", 0, DOORMAN_WAIT},                   {"\r\n\r\n", 4, DOORMAN_WAIT},      {"OPTIONS", 7, DOORMAN_WAIT},
        {" GET /", 6, DOORMAN_REFUSE},           {"GET\r\n", 5, DOORMAN_REFUSE},      {"GET\t/", 5, DOORMAN_REFUSE},
        {"\x16\x03\x01", 3, DOORMAN_REFUSE},     {"\0", 1, DOORMAN_REFUSE},           {"G\0T /", 5, DOORMAN_REFUSE},
        {"G\xc3\xa9T /", 6, DOORMAN_REFUSE},
    };
    char many[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (doorman_judge(cases[i].bytes, cases[i].n) != cases[i].verdict)
            CHECK_FAIL("case %zu, \"%s\"", i, cases[i].bytes);
    memset(many, 'A', sizeof many);
    CHECK_INT(doorman_judge(many, 32), DOORMAN_WAIT);
    CHECK_INT(doorman_judge(many, 33), DOORMAN_REFUSE);
    memset(many, '\n', sizeof many);
    CHECK_INT(doorman_judge(many, 256), DOORMAN_REFUSE);
}

static const struct check_test tests[] = {
    {"what is not asked for", test_defaults},       {"every field where it belongs", test_fields},
    {"refused by name", test_refusals},             {"nesting is bounded", test_depth},
    {"text as JSON", test_json_text},               {"answers are JSON", test_answers_are_json},
    {"keys", test_keys},                            {"the corpus", test_corpus},
    {"first bytes of a connection", test_doorman},
};
CHECK_MAIN(tests)
