/* libFuzzer target over texts and vocabularies. The first byte chooses: a text for one of the built vocabularies (which
 * must come back whole where the vocabulary is complete), patches to the file of a good vocabulary (3 bytes of place,
 * 1 of value), or a whole file of the fuzzer's making.
 *     meson setup build-fuzz -Dfuzzers=true (CC=clang); build-fuzz/tests/engine/fuzz_tokenizer -max_total_time=60 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/vocab_samples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tokenizer *open_bytes(const void *bytes, size_t size)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct error err = {0};
    if (!gguf_open_memory(bytes, size, "fuzz", &g, &err))
        tokenizer_open(g, &t, &err);
    gguf_close(g);
    return t;
}

static void build(int kind, unsigned pre, struct vocab_build *b)
{
    static const char *const pres[] = {"llama-bpe", "gpt-4o",    "deepseek-llm", "deepseek-v3",
                                       "falcon",    "chameleon", "afmoe"};
    static struct sample sample;
    if (kind == 1)
        sample_byte_level(&sample, 200, 1);
    else
        sample_sentencepiece(&sample, 100, 3);
    sample_write(&sample, b, kind == 0 ? "llama" : kind == 1 ? "gpt2" : "t5", kind == 1 ? pres[pre % 7] : NULL);
    vocab_end(b);
}

static void use(const struct tokenizer *t, const char *text, size_t size, unsigned flags)
{
    struct token_list ids = {.limit = (size_t)1 << 22};
    struct buffer out = {.limit = (size_t)1 << 26};
    int rc = tokenizer_encode(t, text, size, flags & 15, &ids, NULL);
    if (!rc)
        rc = tokenizer_decode(t, ids.ids, ids.count, flags & 3, &out, NULL);
    buffer_clear(&out);
    if (!rc)
        rc = tokenizer_decode(t, ids.ids, ids.count,
                              DETOKENIZER_START | DETOKENIZER_RAW_BYTES | DETOKENIZER_SHOW_SPECIAL, &out, NULL);
    if (!rc && tokenizer_is_complete(t) && !(flags & 11) && (out.size != size || (size && memcmp(out.data, text, size)))) {
        /* bytes that UTF-8 never uses may lack a token */
        for (size_t i = 0; i < size; i++)
            if ((unsigned char)text[i] >= 0xF5 || (unsigned char)text[i] == 0xC0 || (unsigned char)text[i] == 0xC1)
                size = 0;
        if (size)
            abort();
    }
    token_list_free(&ids);
    buffer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *fixed[9];
    static struct vocab_build files[9];
    if (!fixed[0]) {
        log_set_default("fuzz_tokenizer", LOG_LEVEL_ERROR);
        for (int i = 0; i < 9; i++) {
            build(i < 7 ? 1 : i == 7 ? 0 : 2, (unsigned)i, &files[i]);
            fixed[i] = open_bytes(files[i].bytes.data, files[i].bytes.size);
        }
    }
    if (size < 2)
        return 0;
    if (data[0] < 200) {
        if (!fixed[data[0] % 9])
            abort();
        use(fixed[data[0] % 9], (const char *)data + 2, size - 2, data[1]);
        return 0;
    }
    struct tokenizer *t = NULL;
    const struct buffer *file = &files[data[1] % 9].bytes;
    char *patched = data[0] < 250 ? mem_alloc(file->size) : NULL;
    if (patched) {
        memcpy(patched, file->data, file->size);
        for (size_t i = 2; i + 4 <= size; i += 4)
            patched[((size_t)data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16) % file->size] =
                (char)data[i + 3];
        t = open_bytes(patched, file->size);
    } else {
        t = open_bytes(data + 2, size - 2);
    }
    if (t)
        use(t, (const char *)data, size, data[1] | 1);
    tokenizer_close(t);
    mem_free(patched);
    return 0;
}
