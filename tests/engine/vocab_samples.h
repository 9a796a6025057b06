/* The vocabularies that the tokenizer's tests share: a byte-level one, a SentencePiece one and a unigram one, small and
 * full of pieces that overlap. */
#ifndef BRIGADE_TESTS_ENGINE_VOCAB_SAMPLES_H
#define BRIGADE_TESTS_ENGINE_VOCAB_SAMPLES_H

#include "base/hash.h"
#include "tests/engine/vocab_build.h"

#define SAMPLE_MAX 1024

/* Pieces as they stand in the file, with their types and scores. */
struct sample {
    char texts[SAMPLE_MAX][32];
    struct gguf_text views[SAMPLE_MAX];
    int32_t types[SAMPLE_MAX];
    float scores[SAMPLE_MAX];
    size_t count;
    char merges[SAMPLE_MAX][64];
    struct gguf_text merge_views[SAMPLE_MAX];
    size_t merge_count;
};

static inline size_t sample_add(struct sample *s, const char *text, size_t n, int32_t type, float score)
{
    size_t i = s->count++;
    memcpy(s->texts[i], text, n);
    s->texts[i][n] = 0;
    s->views[i] = (struct gguf_text){s->texts[i], n};
    s->types[i] = type;
    s->scores[i] = score;
    return i;
}

static inline bool sample_has(const struct sample *s, const char *text)
{
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->texts[i], text))
            return true;
    return false;
}

/* All bytes in value order (id = byte), then `merges` merges of two earlier pieces, then some special tokens. */
static inline void sample_byte_level(struct sample *s, size_t merges, uint64_t seed)
{
    static const char common[] = "etaoin shr\nab,.'d1290\xC3\xA9\xE4\xBD";
    char text[64];
    memset(s, 0, sizeof *s);
    for (unsigned b = 0; b < 256; b++)
        sample_add(s, text, vocab_spell_byte(b, text), 1, 0);
    for (uint64_t k = 0; s->merge_count < merges && k < 100 * merges; k++) {
        uint64_t r = hash_mix64(seed + k);
        size_t pick[2];
        for (int i = 0; i < 2; i++, r >>= 24)
            pick[i] = r % 3 || s->count == 256 ? (unsigned char)common[r / 4 % (sizeof common - 1)]
                                               : 256 + r / 4 % (s->count - 256);
        const struct gguf_text a = s->views[pick[0]], b = s->views[pick[1]];
        if (a.size + b.size > 24)
            continue;
        memcpy(text, a.data, a.size);
        memcpy(text + a.size, b.data, b.size);
        text[a.size + b.size] = 0;
        if (sample_has(s, text))
            continue;
        size_t m = s->merge_count++;
        int n = snprintf(s->merges[m], sizeof s->merges[m], "%s %s", a.data, b.data);
        s->merge_views[m] = (struct gguf_text){s->merges[m], (size_t)n};
        sample_add(s, text, a.size + b.size, 1, 0);
    }
    static const struct {
        const char *text;
        int32_t type;
    } special[] = {{"<|begin|>", 3}, {"<|im_end|>", 3}, {"<|im|>", 3}, {"<tool>", 4}, {"<tool>>", 4}, {"  -", 4}};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        sample_add(s, special[i].text, strlen(special[i].text), special[i].type, 0);
}

/* <unk> <s> </s>, all byte tokens, then single characters and random pieces with random, often equal scores. */
static inline void sample_sentencepiece(struct sample *s, size_t pieces, uint64_t seed)
{
    static const char *const letters[] = {"a",        "b",           "c", "e", "\xE2\x96\x81", "\xE2\x96\x81",
                                          "\xC3\xA9", "\xE4\xBD\xA0"};
    char text[64];
    memset(s, 0, sizeof *s);
    sample_add(s, "<unk>", 5, 2, 0);
    sample_add(s, "<s>", 3, 3, 0);
    sample_add(s, "</s>", 4, 3, 0);
    for (unsigned b = 0; b < 256; b++)
        sample_add(s, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", b), 6, 0);
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (!sample_has(s, letters[i]))
            sample_add(s, letters[i], strlen(letters[i]), 1, -100);
    for (uint64_t k = 0; k < 100 * pieces && s->count < 259 + pieces; k++) {
        uint64_t r = hash_mix64(seed + k);
        size_t n = 0, symbols = 2 + r % 4;
        for (size_t i = 0; i < symbols; i++, r = hash_mix64(r)) {
            const char *letter = letters[r / 8 % (sizeof letters / sizeof *letters)];
            memcpy(text + n, letter, strlen(letter));
            n += strlen(letter);
        }
        text[n] = 0;
        if (!sample_has(s, text))
            sample_add(s, text, n, 1, -(float)(hash_mix64(r) % 40) - 1);
    }
    sample_add(s, "[tool]", 6, 4, 0);
    sample_add(s, "<end_of_turn>", 13, 1, 0); /* ordinary by its type, known by its name */
}

static inline void sample_write(const struct sample *s, struct vocab_build *b, const char *model, const char *pre)
{
    vocab_begin(b);
    vocab_text(b, "general.architecture", "llama");
    vocab_text(b, "tokenizer.ggml.model", model);
    if (pre)
        vocab_text(b, "tokenizer.ggml.pre", pre);
    vocab_strings(b, "tokenizer.ggml.tokens", s->views, s->count);
    if (strcmp(model, "gpt2"))
        vocab_floats(b, "tokenizer.ggml.scores", s->scores, s->count);
    vocab_ints(b, "tokenizer.ggml.token_type", s->types, s->count);
    if (!strcmp(model, "gpt2"))
        vocab_strings(b, "tokenizer.ggml.merges", s->merge_views, s->merge_count);
}

#endif
