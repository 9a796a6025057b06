/* The tokenizers against plain, slow re-implementations of their definitions, over random vocabularies and texts; and
 * round trips over random Unicode. The slow ones work on strings and search everything anew at each step. */
#include "tests/check.h"

#include <pthread.h>

#include "base/memory.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/random_text.h"
#include "tests/engine/vocab_samples.h"

static struct sample sample;

static struct tokenizer *open_built(struct vocab_build *b)
{
    struct error err = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    vocab_end(b);
    int rc = gguf_open_memory(b->bytes.data, b->bytes.size, "built", &g, &err);
    if (!rc)
        rc = tokenizer_open(g, &t, &err);
    if (rc)
        CHECK_FAIL("%s", err.text);
    gguf_close(g);
    buffer_free(&b->bytes);
    return t;
}

/* What a piece stands for, as text with real spaces. */
static size_t piece_text(const struct sample *s, size_t i, bool byte_level, char *out)
{
    if (!byte_level) {
        size_t n = 0;
        for (const char *p = s->texts[i]; *p; p += strncmp(p, "\xE2\x96\x81", 3) ? 1 : 3)
            out[n++] = strncmp(p, "\xE2\x96\x81", 3) ? *p : ' ';
        return n;
    }
    size_t n = 0;
    for (const char *p = s->texts[i]; *p;)
        for (unsigned b = 0; b < 256; b++) {
            char spelt[4] = {0};
            size_t k = vocab_spell_byte(b, spelt);
            if (!strncmp(p, spelt, k)) {
                out[n++] = (char)b;
                p += k;
                break;
            }
        }
    return n;
}

struct known {
    char text[32];
    size_t size;
    int32_t id;
    float score;
} known[SAMPLE_MAX];
static size_t known_count;

static void know(const struct sample *s, bool byte_level)
{
    known_count = 0;
    for (size_t i = 0; i < s->count; i++)
        if (s->types[i] == 1 && strcmp(s->texts[i], "<end_of_turn>")) {
            struct known *k = &known[known_count++];
            k->size = piece_text(s, i, byte_level, k->text);
            k->id = (int32_t)i;
            k->score = s->scores[i];
        }
}

static const struct known *find(const char *text, size_t size)
{
    for (size_t i = 0; i < known_count; i++)
        if (known[i].size == size && !memcmp(known[i].text, text, size))
            return &known[i];
    return NULL;
}

/* The rank of a pair: the place of its merge, or the best score, smaller is better. */
static double pair_rank(const struct sample *s, bool byte_level, const char *text, size_t left, size_t right)
{
    const struct known *whole = find(text, left + right);
    if (!whole)
        return INFINITY;
    if (!byte_level)
        return -whole->score;
    const struct known *a = find(text, left), *b = find(text + left, right);
    char spelt[80];
    if (!a || !b)
        return INFINITY;
    snprintf(spelt, sizeof spelt, "%s %s", s->texts[a->id], s->texts[b->id]);
    for (size_t m = 0; m < s->merge_count; m++)
        if (!strcmp(spelt, s->merges[m]))
            return (double)m;
    return INFINITY;
}

/* BPE by its definition: cuts[] holds the ends of symbols. */
static size_t slow_merge(const struct sample *s, bool byte_level, const char *text, size_t size, int32_t *ids)
{
    size_t cuts[4096], n = 0, out = 0;
    for (size_t at = 0; at < size;) {
        unsigned char c = (unsigned char)text[at];
        at += byte_level || c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        cuts[n++] = at;
    }
    for (;;) {
        double best = INFINITY;
        size_t where = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            size_t start = i ? cuts[i - 1] : 0;
            double rank = pair_rank(s, byte_level, text + start, cuts[i] - start, cuts[i + 1] - cuts[i]);
            if (rank < best) {
                best = rank;
                where = i;
            }
        }
        if (best == INFINITY)
            break;
        memmove(cuts + where, cuts + where + 1, (n - where - 1) * sizeof *cuts);
        n--;
    }
    for (size_t i = 0, start = 0; i < n; start = cuts[i++]) {
        const struct known *k = find(text + start, cuts[i] - start);
        if (k)
            ids[out++] = k->id;
        else
            for (size_t at = start; at < cuts[i]; at++)
                ids[out++] = 3 + (unsigned char)text[at]; /* the byte tokens of the SentencePiece sample */
    }
    return out;
}

static size_t random_letters(uint64_t seed, size_t n, char *out)
{
    static const char *const letters[] = {"a", "b", "c", "e", " ", " ", "\xC3\xA9", "\xE4\xBD\xA0", "a", "z"};
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        const char *letter = letters[hash_mix64(seed * 1000003 + i) % (sizeof letters / sizeof *letters)];
        memcpy(out + size, letter, strlen(letter));
        size += strlen(letter);
    }
    out[size] = 0;
    return size;
}

static void compare(const struct tokenizer *t, const char *text, size_t size, const int32_t *want, size_t count,
                    uint64_t which)
{
    struct token_list ids = {0};
    struct error err = {0};
    int rc = tokenizer_encode(t, text, size, 0, &ids, &err);
    if (rc)
        CHECK_FAIL("text %llu: %s", (unsigned long long)which, err.text);
    else if (ids.count != count || (count && memcmp(ids.ids, want, count * sizeof *want)))
        CHECK_FAIL("text %llu, \"%.60s\": %zu ids, not the %zu of the definition", (unsigned long long)which, text,
                   ids.count, count);
    token_list_free(&ids);
}

static void sentencepiece_merges_by_score(void)
{
    static char text[8192];
    static int32_t want[8192];
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct vocab_build b;
        sample_sentencepiece(&sample, 40 + 30 * seed, seed);
        know(&sample, false);
        sample_write(&sample, &b, "llama", NULL);
        vocab_bool(&b, "tokenizer.ggml.add_space_prefix", false);
        struct tokenizer *t = open_built(&b);
        REQUIRE(t);
        for (uint64_t i = 0; i < 80; i++) {
            size_t size = random_letters(seed * 100 + i, i < 70 ? i : 400, text);
            compare(t, text, size, want, slow_merge(&sample, false, text, size, want), i);
        }
        tokenizer_close(t);
    }
}

static void byte_level_merges_by_rank(void)
{
    static char text[8192];
    static int32_t want[8192];
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct vocab_build b;
        sample_byte_level(&sample, 60 + 80 * seed, seed);
        know(&sample, true);
        sample_write(&sample, &b, "gpt2", "superbpe"); /* words are whole texts but for digits */
        struct tokenizer *t = open_built(&b);
        REQUIRE(t);
        for (uint64_t i = 0; i < 60; i++) {
            size_t size = 0, n = i < 50 ? i : 300;
            for (size_t k = 0; k < n; k++) {
                static const char common[] = "etaoin shrabd,.\nxq";
                text[size++] = common[hash_mix64(seed * 7919 + i * 1009 + k) % (sizeof common - 1)];
            }
            text[size] = 0;
            compare(t, text, size, want, slow_merge(&sample, true, text, size, want), i);
        }
        tokenizer_close(t);
    }
}

/* The best score of text[at..] in pieces, by trying each; with memory. */
static double slow_best(const char *text, size_t at, size_t size, double unknown, double *memory)
{
    if (at == size)
        return 0;
    if (memory[at] == memory[at])
        return memory[at];
    unsigned char c = (unsigned char)text[at];
    size_t character = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    double best = -INFINITY;
    for (size_t k = 0; k < known_count; k++)
        if (at + known[k].size <= size && !memcmp(known[k].text, text + at, known[k].size)) {
            double score = known[k].score + slow_best(text, at + known[k].size, size, unknown, memory);
            best = score > best ? score : best;
        }
    if (!find(text + at, character)) {
        double score = unknown + slow_best(text, at + character, size, unknown, memory);
        best = score > best ? score : best;
    }
    return memory[at] = best;
}

static void unigram_finds_the_likeliest_path(void)
{
    static char text[8192];
    double memory[512];
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct vocab_build b;
        sample_sentencepiece(&sample, 120, 77 + seed);
        know(&sample, false);
        double least = 0;
        for (size_t i = 0; i < known_count; i++)
            least = known[i].score < least ? known[i].score : least;
        sample_write(&sample, &b, "t5", NULL);
        vocab_bool(&b, "tokenizer.ggml.add_space_prefix", false);
        vocab_bool(&b, "tokenizer.ggml.add_eos_token", false);
        struct tokenizer *t = open_built(&b);
        REQUIRE(t);
        for (uint64_t i = 0; i < 60; i++) {
            struct token_list ids = {0};
            struct buffer back = {0};
            size_t size = random_letters(seed * 100 + i, i < 50 ? i : 150, text);
            for (size_t k = 0; k <= size; k++)
                memory[k] = NAN;
            double want = slow_best(text, 0, size, least - 10, memory), got = 0;
            CHECK_INT(tokenizer_encode(t, text, size, 0, &ids, NULL), 0);
            for (size_t k = 0; k < ids.count; k++)
                got += tokenizer_attribute(t, ids.ids[k]) == TOKEN_BYTE ? least - 10 : tokenizer_score(t, ids.ids[k]);
            CHECK_NEAR(got, want, 1e-6); /* every byte token here is a whole character */
            CHECK_INT(tokenizer_decode(t, ids.ids, ids.count, DETOKENIZER_START, &back, NULL), 0);
            CHECK_TEXT(back.size ? back.data : "", text);
            buffer_free(&back);
            token_list_free(&ids);
        }
        tokenizer_close(t);
    }
}

static void survive(const struct tokenizer *t, uint64_t from, uint64_t to)
{
    char text[512];
    for (uint64_t i = from; i < to; i++) {
        struct token_list ids = {0};
        struct buffer back = {0}, streamed = {0};
        struct token_stream stream;
        size_t bytes = random_text(i, text, sizeof text);
        CHECK_INT(tokenizer_encode(t, text, bytes, TOKENIZER_ADD_SPECIAL, &ids, NULL), 0);
        CHECK_INT(tokenizer_decode(t, ids.ids, ids.count, DETOKENIZER_START, &back, NULL), 0);
        if (back.size != bytes || (bytes && memcmp(back.data, text, bytes)))
            CHECK_FAIL("random string %llu is not restored", (unsigned long long)i);
        token_stream_start(&stream, t, DETOKENIZER_START);
        for (size_t k = 0; k < ids.count; k++)
            CHECK_INT(token_stream_push(&stream, ids.ids[k], &streamed, NULL), 0);
        CHECK_INT(token_stream_finish(&stream, &streamed, NULL), 0);
        CHECK(streamed.size == back.size && (!back.size || !memcmp(streamed.data, back.data, back.size)));
        buffer_free(&back);
        buffer_free(&streamed);
        token_list_free(&ids);
    }
}

static void shipped_vocabulary_restores_every_text(void)
{
    struct error err = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    int rc = gguf_open(STORIES, &g, &err);
    if (!rc)
        rc = tokenizer_open(g, &t, &err);
    gguf_close(g);
    if (rc)
        CHECK_FAIL("%s", err.text);
    REQUIRE(t);
    CHECK_INT(tokenizer_count(t), 2048);
    CHECK(tokenizer_is_complete(t));
    survive(t, 0, 10000);
    tokenizer_close(t);
}

static void byte_level_vocabulary_restores_every_text(void)
{
    static const char *const pres[] = {"llama-bpe",    "qwen2",          "gpt-2",       "starcoder", "falcon",
                                       "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",    "gpt-4o",
                                       "kimi-k2",      "bloom",          "chameleon",   "afmoe"};
    size_t count = sizeof pres / sizeof *pres;
    for (size_t i = 0; i < count; i++) {
        struct vocab_build b;
        sample_byte_level(&sample, 300, 5);
        sample_write(&sample, &b, "gpt2", pres[i]);
        struct tokenizer *t = open_built(&b);
        REQUIRE(t);
        CHECK(tokenizer_is_complete(t));
        survive(t, 10000 * i / count, 10000 * (i + 1) / count);
        tokenizer_close(t);
    }
}

static void *encode_in_a_thread(void *t)
{
    survive(t, 0, 300);
    return NULL;
}

static void one_tokenizer_serves_many_threads(void)
{
    struct vocab_build b;
    sample_byte_level(&sample, 300, 5);
    sample_write(&sample, &b, "gpt2", "qwen2");
    struct tokenizer *t = open_built(&b);
    REQUIRE(t);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        REQUIRE(!pthread_create(&threads[i], NULL, encode_in_a_thread, t));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    tokenizer_close(t);
}

static const struct check_test tests[] = {
    {"sentencepiece merges by score", sentencepiece_merges_by_score},
    {"byte level merges by rank", byte_level_merges_by_rank},
    {"unigram finds the likeliest path", unigram_finds_the_likeliest_path},
    {"the shipped vocabulary restores every text", shipped_vocabulary_restores_every_text},
    {"a byte-level vocabulary restores every text", byte_level_vocabulary_restores_every_text},
    {"one tokenizer serves many threads", one_tokenizer_serves_many_threads},
};

CHECK_MAIN(tests)
