/* Vocabularies from hell: what must be an error is one, with a line that says where; what may pass never harms. Then
 * mutations of good files (cut, flip, overwrite, lengthen), and every allocation failing in turn. */
#include "tests/check.h"
#include "tests/child.h"

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/random_text.h"
#include "tests/engine/vocab_samples.h"

static struct sample sample;

static int open_bytes(const void *bytes, size_t size, struct tokenizer **t, struct error *err)
{
    struct gguf *g = NULL;
    int rc = gguf_open_memory(bytes, size, "built", &g, err);
    if (!rc)
        rc = tokenizer_open(g, t, err);
    gguf_close(g);
    return rc;
}

static void expect_error(struct vocab_build *b, int code, const char *says)
{
    struct error err = {0};
    struct tokenizer *t = (struct tokenizer *)&err; /* must stay */
    vocab_end(b);
    int rc = open_bytes(b->bytes.data, b->bytes.size, &t, &err);
    CHECK_INT(rc, code);
    CHECK(t == (struct tokenizer *)&err);
    if (!strstr(err.text, says))
        CHECK_FAIL("\"%s\" does not say \"%s\"", err.text, says);
    CHECK(!strchr(err.text, '\n'));
    buffer_free(&b->bytes);
}

static void write_two_tokens(struct vocab_build *b, const char *model)
{
    static const struct gguf_text tokens[] = {{"a", 1}, {"b", 1}};
    vocab_begin(b);
    vocab_text(b, "tokenizer.ggml.model", model);
    vocab_text(b, "tokenizer.ggml.pre", "gpt-2");
    vocab_strings(b, "tokenizer.ggml.tokens", tokens, 2);
}

static void broken_vocabularies_are_named(void)
{
    struct vocab_build b;
    static const float scores[] = {0, NAN, 0};
    static const int32_t types[] = {1, 6, 9};
    static const struct gguf_text merges[] = {{"a b", 3}, {"ab", 2}};

    vocab_begin(&b);
    expect_error(&b, ERR_FORMAT, "tokenizer.ggml.model");
    vocab_begin(&b);
    vocab_text(&b, "tokenizer.ggml.model", "bert");
    expect_error(&b, ERR_UNSUPPORTED, "\"bert\"; brigade knows llama");
    vocab_begin(&b);
    vocab_text(&b, "tokenizer.ggml.model", "llama");
    expect_error(&b, ERR_FORMAT, "tokenizer.ggml.tokens is missing");
    vocab_begin(&b);
    vocab_text(&b, "tokenizer.ggml.model", "llama");
    vocab_strings(&b, "tokenizer.ggml.tokens", NULL, 0);
    expect_error(&b, ERR_FORMAT, "missing or empty");
    vocab_begin(&b);
    vocab_text(&b, "tokenizer.ggml.model", "llama");
    vocab_text(&b, "tokenizer.ggml.tokens", "a");
    expect_error(&b, ERR_FORMAT, "not an array of strings");
    write_two_tokens(&b, "llama");
    expect_error(&b, ERR_FORMAT, "scores is missing");
    write_two_tokens(&b, "llama");
    vocab_floats(&b, "tokenizer.ggml.scores", scores, 3);
    expect_error(&b, ERR_FORMAT, "3 entries for 2 tokens");
    write_two_tokens(&b, "llama");
    vocab_floats(&b, "tokenizer.ggml.scores", scores, 2);
    expect_error(&b, ERR_FORMAT, "token 1 is not a number");
    write_two_tokens(&b, "t5");
    vocab_floats(&b, "tokenizer.ggml.scores", (float[]){0, -INFINITY}, 2);
    expect_error(&b, ERR_FORMAT, "below every likelihood");
    write_two_tokens(&b, "llama");
    vocab_ints(&b, "tokenizer.ggml.token_type", types, 2);
    expect_error(&b, ERR_FORMAT, "token 1 is of type byte");
    write_two_tokens(&b, "gpt2");
    vocab_ints(&b, "tokenizer.ggml.token_type", types + 1, 2);
    expect_error(&b, ERR_FORMAT, "token 1 has type 9");
    write_two_tokens(&b, "gpt2");
    expect_error(&b, ERR_FORMAT, "merges is missing");
    write_two_tokens(&b, "gpt2");
    vocab_ints(&b, "tokenizer.ggml.merges", types, 2);
    expect_error(&b, ERR_FORMAT, "merges is not an array of strings");
    write_two_tokens(&b, "gpt2");
    vocab_strings(&b, "tokenizer.ggml.merges", merges, 2);
    expect_error(&b, ERR_FORMAT, "merge 1 of");
    write_two_tokens(&b, "t5");
    vocab_floats(&b, "tokenizer.ggml.scores", scores, 1);
    expect_error(&b, ERR_FORMAT, "1 entries for 2");
    write_two_tokens(&b, "t5");
    vocab_floats(&b, "tokenizer.ggml.scores", (float[]){0, 0}, 2);
    vocab_array(&b, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, 12);
    buffer_append(&b.bytes,
                  "\xFF\xFF\xFF\x7F"
                  "12345678",
                  12);
    expect_error(&b, ERR_FORMAT, "does not hold the 2147483647 bytes");

    vocab_begin(&b);
    vocab_text(&b, "tokenizer.ggml.model", "gpt2");
    vocab_text(&b, "tokenizer.ggml.pre", "no-such-thing");
    vocab_strings(&b, "tokenizer.ggml.tokens", merges, 2);
    expect_error(&b, ERR_UNSUPPORTED, "\"no-such-thing\" is unknown; known: llama-bpe");
}

static void odd_vocabularies_are_harmless(void)
{
    /* Duplicates, empty pieces, pieces outside UTF-8 and outside the alphabet, merges that name none of them. */
    static const struct gguf_text tokens[] = {{"a", 1},  {"a", 1}, {"", 0}, {"\xFF\xFE", 2}, {"\xE4\xBD\xA0", 3},
                                              {"aa", 2}, {"b", 1}, {"", 0}};
    static const struct gguf_text merges[] = {{"a a", 3}, {"a a", 3}, {"x y", 3}, {"\xFF a", 3},
                                              {"a ", 2},  {"  ", 2},  {"b b", 3}};
    static const float scores[] = {0, 5, 9, INFINITY, -INFINITY, 1, 1, 0};
    static const int32_t types[] = {1, 4, 4, 3, 1, 1, 5, 3};
    for (int kind = 0; kind < 3; kind++) {
        struct vocab_build b;
        struct error err = {0};
        struct tokenizer *t = NULL;
        struct token_list ids = {0};
        vocab_begin(&b);
        vocab_text(&b, "tokenizer.ggml.model", kind == 0 ? "llama" : kind == 1 ? "gpt2" : "t5");
        vocab_strings(&b, "tokenizer.ggml.tokens", tokens, 8);
        if (kind == 2)
            vocab_floats(&b, "tokenizer.ggml.scores", (float[]){0, 5, 9, 1, -1, 1, 1, 0}, 8);
        else
            vocab_floats(&b, "tokenizer.ggml.scores", scores, 8);
        vocab_ints(&b, "tokenizer.ggml.token_type", types, 8);
        vocab_strings(&b, "tokenizer.ggml.merges", merges, 7);
        vocab_id(&b, "tokenizer.ggml.bos_token_id", 4000000000u); /* outside: none */
        vocab_id(&b, "tokenizer.ggml.unknown_token_id", 6);
        vocab_end(&b);
        int rc = open_bytes(b.bytes.data, b.bytes.size, &t, &err);
        if (rc)
            CHECK_FAIL("kind %d: %s", kind, err.text);
        REQUIRE(!rc);
        CHECK_INT(tokenizer_bos(t), -1);
        CHECK_INT(tokenizer_encode(t, "aaa \xFF\xFE\xE4", 7, 7, &ids, &err), 0);
        for (size_t i = 0; i < ids.count; i++)
            CHECK(ids.ids[i] >= 0 && ids.ids[i] < 8);
        CHECK(tokenizer_piece(t, 2).size == 0);
        struct buffer out = {0};
        CHECK_INT(tokenizer_decode(t, ids.ids, ids.count, 0, &out, &err), 0);
        buffer_free(&out);
        token_list_free(&ids);
        tokenizer_close(t);
        buffer_free(&b.bytes);
    }
    /* A vocabulary that cannot say a byte and has no unknown token says so. */
    struct vocab_build b;
    struct error err = {0};
    struct tokenizer *t = NULL;
    struct token_list ids = {0};
    write_two_tokens(&b, "gpt2");
    vocab_strings(&b, "tokenizer.ggml.merges", merges, 1);
    vocab_end(&b);
    CHECK_INT(open_bytes(b.bytes.data, b.bytes.size, &t, &err), 0);
    REQUIRE(t);
    CHECK_INT(tokenizer_encode(t, "abz", 3, 0, &ids, &err), ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "byte 0x7A"));
    CHECK_INT(ids.count, 0);
    token_list_free(&ids);
    tokenizer_close(t);
    buffer_free(&b.bytes);
}

/* Opens and, if that works, encodes and decodes; only the absence of harm is checked, and that errors have words. */
static int use(const void *bytes, size_t size, uint64_t seed)
{
    struct error err = {0};
    struct tokenizer *t = NULL;
    int rc = open_bytes(bytes, size, &t, &err);
    if (rc) {
        CHECK(rc == err.code && err.text[0]);
        return rc;
    }
    char text[600];
    struct token_list ids = {.limit = 100000};
    struct buffer out = {.limit = 1 << 20};
    size_t n = random_text(seed, text, 500);
    memcpy(text + n, "<|im_end|>  -  aaaa[tool]A", 26);
    rc = tokenizer_encode(t, text, n + 26, (unsigned)seed & 15, &ids, &err);
    if (!rc) {
        for (size_t i = 0; i < ids.count; i++)
            CHECK(ids.ids[i] >= 0 && (size_t)ids.ids[i] < tokenizer_count(t));
        rc = tokenizer_decode(t, ids.ids, ids.count, (unsigned)seed & 7, &out, &err);
    }
    CHECK(!rc || (rc == err.code && err.text[0]));
    size_t count;
    const int32_t *ends = tokenizer_ends(t, &count);
    for (size_t i = 0; i < count; i++)
        CHECK(ends[i] >= 0 && (size_t)ends[i] < tokenizer_count(t));
    token_list_free(&ids);
    buffer_free(&out);
    tokenizer_close(t);
    return rc;
}

static void build(struct vocab_build *b, int kind)
{
    if (kind == 1)
        sample_byte_level(&sample, 40, 1);
    else
        sample_sentencepiece(&sample, 40, 3);
    sample_write(&sample, b, kind == 0 ? "llama" : kind == 1 ? "gpt2" : "t5", kind == 1 ? "llama-bpe" : NULL);
    vocab_id(b, "tokenizer.ggml.eos_token_id", 2);
    vocab_bool(b, "tokenizer.ggml.add_bos_token", true);
    if (kind == 2) {
        uint32_t map[16] = {56, 1u << 10, 77, 'A' | 1u << 8 | 3u << 10, 5, 6, 7, 8};
        vocab_array(b, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, sizeof map);
        buffer_append(&b->bytes, map, sizeof map);
    }
    vocab_end(b);
}

static void mutations_are_harmless(void)
{
    size_t refused = 0;
    for (int kind = 0; kind < 3; kind++) {
        struct vocab_build b;
        build(&b, kind);
        CHECK_INT(use(b.bytes.data, b.bytes.size, 4), 0);
        char *copy = mem_alloc(b.bytes.size + 64);
        REQUIRE(copy);
        for (uint64_t i = 0; i < 400; i++) {
            uint64_t r = hash_mix64(i * 3 + (uint64_t)kind), size = b.bytes.size, at = r / 8 % size;
            memcpy(copy, b.bytes.data, size);
            memset(copy + size, 0x41, 64);
            if (r % 4 == 0) /* early keys are where most fields lie */
                at %= 300;
            switch (i % 4) {
            case 0:
                size = at;
                break;
            case 1:
                copy[at] = (char)(copy[at] ^ 1 << (r >> 40) % 8);
                break;
            case 2:
                memset(copy + at, r >> 40 & 1 ? 0xFF : 0x7F, size - at < 8 ? size - at : 8);
                break;
            default:
                memmove(copy + at + 1 + (r >> 40) % 64, copy + at, size - at);
                size += 1 + (r >> 40) % 64;
                break;
            }
            /* A heap block of just the size, so that the sanitizer sees the first byte too many. */
            char *exact = mem_alloc(size);
            REQUIRE(exact);
            memcpy(exact, copy, size);
            refused += use(exact, size, r >> 8) != 0;
            mem_free(exact);
        }
        mem_free(copy);
        buffer_free(&b.bytes);
    }
    CHECK(refused > 300);
}

/* 0: all went well; 3: a clean ERR_NOMEM. */
static int once(void *context)
{
    int kind = *(int *)context;
    struct vocab_build b;
    build(&b, kind);
    int rc = b.bytes.failed ? b.bytes.failed : use(b.bytes.data, b.bytes.size, 6);
    buffer_free(&b.bytes);
    return check_failures ? 1 : rc == ERR_NOMEM ? 3 : rc ? 2 : 0;
}

static void each_allocation_may_fail(void)
{
    for (int kind = 0; kind < 3; kind++) {
        int at = 1, rc = 3, clean = 0;
        for (; rc == 3 || at < 20; at++) {
            rc = child_run(once, &kind, at);
            clean += rc == 3;
            if (rc != 0 && rc != 3)
                CHECK_FAIL("kind %d, allocation %d failing: exit %d", kind, at, rc);
            REQUIRE(at < 1000);
        }
        CHECK(clean > 20);
    }
}

static const struct check_test tests[] = {
    {"broken vocabularies are named", broken_vocabularies_are_named},
    {"odd vocabularies are harmless", odd_vocabularies_are_harmless},
    {"mutations are harmless", mutations_are_harmless},
    {"each allocation may fail", each_allocation_may_fail},
};

int main(int argc, char **argv)
{
    log_set_default("test_tokenizer_hostile", LOG_LEVEL_ERROR);
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
