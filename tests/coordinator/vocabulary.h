/* A made-up vocabulary in memory: <unk>, <s>, </s>, the 256 bytes, the nine pairs of a, b and c, and some words. */
#ifndef BRIGADE_TESTS_COORDINATOR_VOCABULARY_H
#define BRIGADE_TESTS_COORDINATOR_VOCABULARY_H

#include <stdio.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/vocab_build.h"

enum { VOCABULARY_EOS = 2, VOCABULARY_BYTES = 3, VOCABULARY_PAIRS = 259, VOCABULARY_SIZE = 280 };

static inline int32_t vocabulary_pair(char a, char b)
{
    return VOCABULARY_PAIRS + (a - 'a') * 3 + (b - 'a');
}

/* The caller closes it; NULL (and a failed check) when it cannot be made. */
static inline struct tokenizer *vocabulary_open(void)
{
    static char names[VOCABULARY_SIZE][8];
    struct gguf_text texts[VOCABULARY_SIZE];
    float scores[VOCABULARY_SIZE] = {0};
    int32_t types[VOCABULARY_SIZE];
    for (int i = 0; i < VOCABULARY_SIZE; i++) {
        if (i < VOCABULARY_BYTES)
            snprintf(names[i], sizeof names[i], "%s", i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (i < VOCABULARY_PAIRS)
            snprintf(names[i], sizeof names[i], "<0x%02X>", (unsigned)(i - VOCABULARY_BYTES));
        else if (i < VOCABULARY_PAIRS + 9)
            snprintf(names[i], sizeof names[i], "%c%c", 'a' + (i - VOCABULARY_PAIRS) / 3, 'a' + (i - VOCABULARY_PAIRS) % 3);
        else
            snprintf(names[i], sizeof names[i], "word%d", i % 1000);
        types[i] = i == 0 ? 2 : i < VOCABULARY_BYTES ? 3 : i < VOCABULARY_PAIRS ? 6 : 1;
        texts[i] = (struct gguf_text){names[i], strlen(names[i])};
    }
    struct vocab_build b;
    vocab_begin(&b);
    vocab_text(&b, "general.architecture", "llama");
    vocab_text(&b, "tokenizer.ggml.model", "llama");
    vocab_strings(&b, "tokenizer.ggml.tokens", texts, VOCABULARY_SIZE);
    vocab_floats(&b, "tokenizer.ggml.scores", scores, VOCABULARY_SIZE);
    vocab_ints(&b, "tokenizer.ggml.token_type", types, VOCABULARY_SIZE);
    vocab_id(&b, "tokenizer.ggml.bos_token_id", 1);
    vocab_id(&b, "tokenizer.ggml.eos_token_id", VOCABULARY_EOS);
    vocab_id(&b, "tokenizer.ggml.unknown_token_id", 0);
    vocab_end(&b);
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct error e = {0};
    if (gguf_open_memory(b.bytes.data, b.bytes.size, "made up", &g, &e) || tokenizer_open(g, &t, &e))
        printf("    vocabulary: %s\n", e.text);
    gguf_close(g);
    buffer_free(&b.bytes);
    return t;
}

#endif
