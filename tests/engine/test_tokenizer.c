/* What the tokenizer promises beyond merging: special tokens, begin and end, words, streams, errors, bounds. */
#include "tests/check.h"

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/vocab_samples.h"

static struct sample sample;

static int open_built(struct vocab_build *b, struct tokenizer **t, struct error *err)
{
    struct gguf *g = NULL;
    vocab_end(b);
    int rc = gguf_open_memory(b->bytes.data, b->bytes.size, "built", &g, err);
    if (!rc)
        rc = tokenizer_open(g, t, err);
    gguf_close(g);
    buffer_free(&b->bytes);
    return rc;
}

static struct tokenizer *open_byte_level(const char *pre, size_t merges)
{
    struct vocab_build b;
    struct error err = {0};
    struct tokenizer *t = NULL;
    sample_byte_level(&sample, merges, 1);
    sample_write(&sample, &b, "gpt2", pre);
    vocab_id(&b, "tokenizer.ggml.bos_token_id", (uint32_t)(256 + sample.merge_count)); /* <|begin|> */
    vocab_bool(&b, "tokenizer.ggml.add_bos_token", true);
    if (open_built(&b, &t, &err))
        CHECK_FAIL("%s", err.text);
    return t;
}

static struct tokenizer *open_sentencepiece(const char *name)
{
    struct vocab_build b;
    struct error err = {0};
    struct tokenizer *t = NULL;
    sample_sentencepiece(&sample, 60, 3);
    sample_write(&sample, &b, "llama", NULL);
    vocab_text(&b, "general.name", name);
    vocab_text(&b, "tokenizer.chat_template", "{{ bos_token }}");
    vocab_text(&b, "tokenizer.chat_template.tool_use", "tools");
    if (open_built(&b, &t, &err))
        CHECK_FAIL("%s", err.text);
    return t;
}

/* The ids of text as "1 2 3", in a static buffer. */
static const char *ids_of(const struct tokenizer *t, const char *text, unsigned flags)
{
    static char shown[1024];
    struct token_list ids = {0};
    struct error err = {0};
    size_t n = 0;
    shown[0] = 0;
    if (tokenizer_encode(t, text, strlen(text), flags, &ids, &err))
        snprintf(shown, sizeof shown, "%s", err.text);
    for (size_t i = 0; i < ids.count && n + 12 < sizeof shown; i++)
        n += (size_t)snprintf(shown + n, sizeof shown - n, "%s%d", i ? " " : "", ids.ids[i]);
    token_list_free(&ids);
    return shown;
}

static void special_tokens_are_found_when_asked(void)
{
    struct tokenizer *t = open_byte_level("gpt-2", 0);
    REQUIRE(t);
    /* ids: bytes 0 to 255, <|begin|> 256, <|im_end|> 257, <|im|> 258, <tool> 259, <tool>> 260, "  -" 261 */
    CHECK_TEXT(ids_of(t, "a<|im|>b", TOKENIZER_PARSE_SPECIAL), "97 258 98");
    CHECK_TEXT(ids_of(t, "<|im_end|><|im|>", TOKENIZER_PARSE_SPECIAL), "257 258");
    CHECK_TEXT(ids_of(t, "<|im|>", 0), "60 124 105 109 124 62");
    CHECK_TEXT(ids_of(t, "<|im", TOKENIZER_PARSE_SPECIAL), "60 124 105 109");
    /* user-defined ones always, the longest first */
    CHECK_TEXT(ids_of(t, "<tool>>", 0), "260");
    CHECK_TEXT(ids_of(t, "<tool>x", 0), "259 120");
    CHECK_TEXT(ids_of(t, "   -", 0), "32 261");
    /* begin: when the file says so, and once */
    CHECK_TEXT(ids_of(t, "a", TOKENIZER_ADD_SPECIAL), "256 97");
    CHECK_TEXT(ids_of(t, "", TOKENIZER_ADD_SPECIAL), "256");
    CHECK_TEXT(ids_of(t, "", 0), "");
    CHECK_TEXT(ids_of(t, "<|begin|>a", TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL), "256 97");
    CHECK_TEXT(ids_of(t, "<|im|>", TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL), "256 258");
    CHECK_INT(tokenizer_find_special(t, "<|im_end|>"), 257);
    CHECK_INT(tokenizer_find_special(t, "<|im_en"), -1);
    CHECK_INT(tokenizer_find_special(t, "a"), -1);
    CHECK_INT(tokenizer_attribute(t, 257), TOKEN_CONTROL);
    CHECK_INT(tokenizer_attribute(t, 259), TOKEN_USER_DEFINED);
    CHECK_INT(tokenizer_attribute(t, 9999), TOKEN_UNKNOWN);
    CHECK(tokenizer_is_end(t, 257)); /* by its name */
    CHECK(!tokenizer_is_end(t, 258));
    CHECK_INT(tokenizer_eot(t), 257);
    CHECK_INT(tokenizer_eos(t), -1);
    CHECK(tokenizer_piece(t, 262).data == NULL);
    CHECK(tokenizer_piece(t, -1).data == NULL);
    CHECK(tokenizer_piece(t, 0).size == 1 && tokenizer_piece(t, 10).data[0] == '\n');
    tokenizer_close(t);
}

static void names_tell_how_a_turn_ends(void)
{
    struct tokenizer *t = open_sentencepiece("some model");
    REQUIRE(t);
    int32_t turn = tokenizer_find_special(t, "<end_of_turn>"); /* ordinary in the file */
    CHECK(turn > 0);
    CHECK_INT(tokenizer_attribute(t, turn), TOKEN_CONTROL);
    CHECK_INT(tokenizer_eot(t), turn);
    CHECK_INT(tokenizer_eos(t), 2);
    size_t count;
    const int32_t *ends = tokenizer_ends(t, &count);
    REQUIRE(count == 2);
    CHECK(ends[0] == 2 && ends[1] == turn);
    CHECK_TEXT(tokenizer_chat_template(t, NULL).data, "{{ bos_token }}");
    CHECK_TEXT(tokenizer_chat_template(t, "tool_use").data, "tools");
    CHECK(tokenizer_chat_template(t, "rag").data == NULL);
    CHECK(tokenizer_adds_bos(t) && !tokenizer_adds_eos(t));
    tokenizer_close(t);

    /* gpt-oss: <|end|> only closes a message where <|return|> and <|call|> exist. */
    static const struct gguf_text tokens[] = {{"a", 1}, {"<|end|>", 7}, {"<|return|>", 10}, {"<|call|>", 8}};
    static const struct gguf_text merges[] = {{"a a", 3}};
    for (size_t n = 2; n <= 4; n += 2) {
        struct vocab_build b;
        struct error err = {0};
        struct tokenizer *oss = NULL;
        vocab_begin(&b);
        vocab_text(&b, "tokenizer.ggml.model", "gpt2");
        vocab_text(&b, "tokenizer.ggml.pre", "gpt-4o");
        vocab_strings(&b, "tokenizer.ggml.tokens", tokens, n);
        vocab_strings(&b, "tokenizer.ggml.merges", merges, 1);
        CHECK_INT(open_built(&b, &oss, &err), 0);
        REQUIRE(oss);
        CHECK_INT(tokenizer_is_end(oss, 1), n == 2);
        CHECK_INT(tokenizer_is_end(oss, 2), n == 4);
        tokenizer_close(oss);
    }
}

static void phi_3_specials_swallow_white_space(void)
{
    struct tokenizer *phi = open_sentencepiece("Phi-3-mini"), *other = open_sentencepiece("Psi-3");
    REQUIRE(phi && other);
    CHECK_TEXT(ids_of(phi, "a</s> \n a", TOKENIZER_PARSE_SPECIAL), ids_of(phi, "a</s>a", TOKENIZER_PARSE_SPECIAL));
    CHECK(strcmp(ids_of(other, "</s>\na", TOKENIZER_PARSE_SPECIAL), "2") > 0);
    char with[1024];
    snprintf(with, sizeof with, "%s", ids_of(other, "</s>\na", TOKENIZER_PARSE_SPECIAL));
    CHECK(strcmp(with, ids_of(other, "</s>a", TOKENIZER_PARSE_SPECIAL)));
    CHECK_TEXT(ids_of(phi, "<s>\n", TOKENIZER_PARSE_SPECIAL), ids_of(other, "<s>\n", TOKENIZER_PARSE_SPECIAL));
    tokenizer_close(phi);
    tokenizer_close(other);
}

static const char *decoded(const struct tokenizer *t, const char *text, unsigned encode, unsigned decode)
{
    static struct buffer out;
    struct token_list ids = {0};
    buffer_clear(&out);
    CHECK_INT(tokenizer_encode(t, text, strlen(text), encode, &ids, NULL), 0);
    CHECK_INT(tokenizer_decode(t, ids.ids, ids.count, decode, &out, NULL), 0);
    token_list_free(&ids);
    return out.data ? out.data : "";
}

static void the_space_in_front_comes_and_goes(void)
{
    struct tokenizer *t = open_sentencepiece("m");
    REQUIRE(t);
    CHECK_TEXT(decoded(t, "abc", 0, DETOKENIZER_START), "abc");
    CHECK_TEXT(decoded(t, "  abc ", TOKENIZER_ADD_BOS, DETOKENIZER_START), "  abc ");
    CHECK_TEXT(decoded(t, "abc", 0, 0), " abc"); /* in the middle of a text it is a space */
    unsigned parse = TOKENIZER_PARSE_SPECIAL, show = DETOKENIZER_START | DETOKENIZER_SHOW_SPECIAL;
    CHECK_TEXT(decoded(t, "a<s>b</s> c[tool]e", parse, show), "a<s>b</s> c[tool]e");
    CHECK_TEXT(decoded(t, "a<s>b</s> c[tool]e", parse, DETOKENIZER_START), "ab c[tool]e");
    /* U+2581 itself is not a space, and a spelt byte or control token is only text. */
    CHECK_TEXT(decoded(t,
                       "a\xE2\x96\x81"
                       "b",
                       0, DETOKENIZER_START),
               "a\xE2\x96\x81"
               "b");
    CHECK_TEXT(decoded(t, "<0x41></s>", 0, DETOKENIZER_START), "<0x41></s>");
    CHECK(!strstr(ids_of(t, "<0x41></s>", 0), " 2 "));
    tokenizer_close(t);
}

static void push_all(struct token_stream *s, const char *bytes, struct buffer *out)
{
    for (; *bytes; bytes++)
        CHECK_INT(token_stream_push(s, 3 + (unsigned char)*bytes, out, NULL), 0); /* the sample's byte tokens */
}

static void streams_give_whole_characters(void)
{
    struct tokenizer *t = open_sentencepiece("m");
    struct token_stream s;
    struct buffer out = {0};
    REQUIRE(t);
    token_stream_start(&s, t, 0);
    push_all(&s, "\xF0\x9F\xA6", &out);
    CHECK_INT(out.size, 0);
    push_all(&s, "\x99", &out);
    CHECK_TEXT(out.data, "\xF0\x9F\xA6\x99");
    buffer_clear(&out);
    /* Unicode 15, table 3-8 and 3-11: one U+FFFD for each longest beginning that comes to nothing. */
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xE0\x80\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF1\x80\x80\xE1\x80\xC2"
         "b",
         "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
         "b"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF4\x91\x92\x93\xFF"
         "A\x80\xBF"
         "B",
         "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
         "A\xEF\xBF\xBD\xEF\xBF\xBD"
         "B"},
        {"\xE4\xBD"
         "a",
         "\xEF\xBF\xBD"
         "a"},
        {"\xE4\xBD\xE4\xBD\xA0", "\xEF\xBF\xBD\xE4\xBD\xA0"},
        {"a\xE4\xBD", "a\xEF\xBF\xBD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buffer_clear(&out);
        token_stream_start(&s, t, 0);
        push_all(&s, cases[i].bytes, &out);
        CHECK_INT(token_stream_finish(&s, &out, NULL), 0);
        CHECK_TEXT(out.data, cases[i].text);
        buffer_clear(&out);
        token_stream_start(&s, t, DETOKENIZER_RAW_BYTES);
        push_all(&s, cases[i].bytes, &out);
        CHECK_TEXT(out.data, cases[i].bytes);
    }
    buffer_free(&out);
    tokenizer_close(t);
}

static void patterns_cut_words(void)
{
    static const struct {
        const char *pre, *text, *words;
    } cases[] = {
        {"gpt-2", "Hello  world's 123 !?\n\n x", "Hello| | world|'s| 123| !?|\n\n| x"},
        {"llama-bpe", "I'LL pay 12345  now!!\n\n\n a", "I|'LL| pay| |123|45| | now|!!\n\n\n| a"},
        {"qwen2", "x=12\n  y", "x|=|1|2|\n| | y"},
        {"starcoder", "a12 b", "a|1|2| b"},
        {"smollm", "a12 b", "a|1|2| b"},
        {"falcon", "x=12345, y", "x|=|123|45|,| y"},
        {"deepseek-llm", "ab 12\n\xE4\xBD\xA0\xE5\xA5\xBD  ", "ab| |12|\n|\xE4\xBD\xA0\xE5\xA5\xBD|  "},
        {"deepseek-coder", "a=12; b\n", "a|=|1|2|;| b|\n"},
        {"deepseek-v3", "x+yz 1234\xE4\xBD\xA0\xE3\x81\x82", "x|+yz| |123|4|\xE4\xBD\xA0\xE3\x81\x82"},
        {"tekken", "CamelCase HTTPServer's 12", "Camel|Case| HTTPServer|'s| |1|2"},
        {"gpt-4o", "CamelCase don't 1234 a/\n", "Camel|Case| don't| |123|4| a|/\n"},
        {"llama4", "can'T", "can'T"},
        {"kimi-k2",
         "ab\xE4\xBD\xA0\xE5\xA5\xBD"
         "cd",
         "ab|\xE4\xBD\xA0\xE5\xA5\xBD|cd"},
        {"bailingmoe", "a\n\n1", "a|\n\n|1"},
        {"seed-coder", "!!\n", "!!|\n"},
        {"bloom", "Hi, you there", "Hi|,| you| there"},
        {"viking", "a12", "a|1|2"},
        {"chameleon", "a  b1.", "a|  |b|1|."},
        {"superbpe", "a b 1234567", "a b |1|234|567"},
        {"afmoe", "a 12345678 x", "a| |12|345|678| x"},
        {"command-r", "\xC3\xA9t\xC3\xA9\xE2\x80\xA6", "\xC3\xA9t\xC3\xA9|\xE2\x80\xA6"},
        {"gpt-2",
         "a\xFF\xFE"
         "b\xE4\xBD",
         "a|\xFF|\xFE|b|\xE4|\xBD"}, /* what is not UTF-8 stands alone */
        {"gpt-2", "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pretokenizer *p = NULL;
        struct word_list words = {0};
        struct error err = {0};
        char joined[256] = "";
        size_t n = 0;
        CHECK_INT(pretokenizer_open(cases[i].pre, &p, &err), 0);
        REQUIRE(p);
        CHECK_INT(pretokenizer_split(p, cases[i].text, strlen(cases[i].text), &words, &err), 0);
        for (size_t k = 0, start = 0; k < words.count; start = words.ends[k++])
            n += (size_t)snprintf(joined + n, sizeof joined - n, "%s%.*s", k ? "|" : "", (int)(words.ends[k] - start),
                                  cases[i].text + start);
        if (strcmp(joined, cases[i].words))
            CHECK_FAIL("%s cuts \"%s\" into %s, not %s", cases[i].pre, cases[i].text, joined, cases[i].words);
        word_list_free(&words);
        pretokenizer_close(p);
    }
}

static void unigram_normalises(void)
{
    /* A character map of one rule, "A" becomes "a b": units at 0 (root, base 1), 1^'A' (leaf) and its value. */
    uint32_t units[300] = {1u << 10};
    uint32_t at = 1 ^ 'A';
    units[at] = (uint32_t)'A' | 1u << 8 | (200u ^ at) << 10;
    units[200] = 0;
    char map[4 + sizeof units + 4];
    memcpy(map, &(uint32_t){sizeof units}, 4);
    memcpy(map + 4, units, sizeof units);
    memcpy(map + 4 + sizeof units, "a b", 4);
    for (int merge = 0; merge < 2; merge++) {
        struct vocab_build b;
        struct error err = {0};
        struct tokenizer *t = NULL;
        sample_sentencepiece(&sample, 60, 3);
        sample_write(&sample, &b, "t5", NULL);
        vocab_bool(&b, "tokenizer.ggml.remove_extra_whitespaces", merge);
        vocab_array(&b, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, sizeof map);
        buffer_append(&b.bytes, map, sizeof map);
        CHECK_INT(open_built(&b, &t, &err), 0);
        REQUIRE(t);
        CHECK_TEXT(decoded(t, "Ac", 0, DETOKENIZER_START), "a bc");
        CHECK_TEXT(decoded(t, "  c   c  ", 0, DETOKENIZER_START), merge ? "c c" : "  c   c  ");
        CHECK_TEXT(decoded(t, "c\xFF", 0, DETOKENIZER_START), "c\xEF\xBF\xBD");
        tokenizer_close(t);
    }
}

static void bounds_hold(void)
{
    struct tokenizer *t = open_byte_level("gpt-2", 0);
    REQUIRE(t);
    struct token_list ids = {.limit = 4};
    struct error err = {0};
    CHECK_INT(tokenizer_encode(t, "abcd", 4, 0, &ids, &err), 0);
    CHECK_INT(tokenizer_encode(t, "e", 1, 0, &ids, &err), ERR_BOUND);
    CHECK(strstr(err.text, "4 tokens"));
    CHECK_INT(ids.count, 4);
    CHECK_INT(tokenizer_encode(t, "a", TOKENIZER_MAX_TEXT_BYTES + 1, 0, &ids, &err), ERR_BOUND);
    struct buffer out = {.limit = 3};
    CHECK_INT(tokenizer_decode(t, ids.ids, 4, 0, &out, &err), ERR_BOUND);
    buffer_free(&out);
    out = (struct buffer){0};
    static const int32_t bad[] = {97, 262, -1};
    CHECK_INT(tokenizer_decode(t, bad, 2, 0, &out, &err), ERR_USAGE);
    CHECK_TEXT(err.text, "token id 262 is outside the vocabulary of 262 tokens");
    CHECK_INT(out.size, 0);
    CHECK_INT(tokenizer_decode(t, bad + 2, 1, 0, &out, &err), ERR_USAGE);
    buffer_free(&out);
    token_list_free(&ids);
    tokenizer_close(t);
}

static void long_texts_of_one_kind_take_no_time(void)
{
    /* Each of these would take minutes if any step were quadratic. */
    enum { SIZE = 1 << 18 };
    static const char *const units[] = {"a",   " ",   "\n", "1",        "A",        "!", "\xE4\xB8\x80",
                                        " \n", "\t ", "'s", "\xCC\x81", "a\xCC\x81"};
    char *text = mem_alloc(SIZE + 1);
    REQUIRE(text);
    for (size_t i = 0; pretokenizer_at(i); i++) {
        struct tokenizer *t = open_byte_level(pretokenizer_at(i)->names[0], 200);
        REQUIRE(t);
        for (size_t u = i % (size_t)check_step(); u < sizeof units / sizeof *units; u += (size_t)check_step()) {
            struct token_list ids = {0};
            size_t n = strlen(units[u]);
            for (size_t at = 0; at < SIZE; at++)
                text[at] = units[u][at % n];
            text[SIZE - 1] = 'x'; /* so that the run of blanks does not reach the end */
            CHECK_INT(tokenizer_encode(t, text, SIZE, 0, &ids, NULL), 0);
            CHECK(ids.count > 0);
            token_list_free(&ids);
        }
        tokenizer_close(t);
    }
    mem_free(text);
}

static void every_pattern_name_opens(void)
{
    size_t names = 0;
    for (size_t i = 0; pretokenizer_at(i); i++)
        for (size_t k = 0; pretokenizer_at(i)->names[k]; k++, names++) {
            struct pretokenizer *p = NULL;
            struct error err = {0};
            if (pretokenizer_open(pretokenizer_at(i)->names[k], &p, &err))
                CHECK_FAIL("%s", err.text);
            CHECK(pretokenizer_find(pretokenizer_at(i)->names[k]) == pretokenizer_at(i)); /* no name twice */
            pretokenizer_close(p);
        }
    CHECK(names > 50);
}

static const struct check_test tests[] = {
    {"special tokens are found when asked", special_tokens_are_found_when_asked},
    {"names tell how a turn ends", names_tell_how_a_turn_ends},
    {"phi-3 specials swallow white space", phi_3_specials_swallow_white_space},
    {"the space in front comes and goes", the_space_in_front_comes_and_goes},
    {"streams give whole characters", streams_give_whole_characters},
    {"patterns cut words", patterns_cut_words},
    {"unigram normalises", unigram_normalises},
    {"bounds hold", bounds_hold},
    {"every pattern name opens", every_pattern_name_opens},
    {"long texts of one kind take no time", long_texts_of_one_kind_take_no_time},
};

int main(int argc, char **argv)
{
    log_set_default("test_tokenizer", LOG_LEVEL_ERROR);
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
