/* Builds small GGUF files with a vocabulary in memory, for the tokenizer's tests: v3, little-endian, no tensors. */
#ifndef BRIGADE_TESTS_ENGINE_VOCAB_BUILD_H
#define BRIGADE_TESTS_ENGINE_VOCAB_BUILD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/buffer.h"
#include "engine/files/gguf.h"

struct vocab_build {
    struct buffer bytes;
    uint64_t keys;
};

static inline void vocab_u32(struct vocab_build *b, uint32_t value)
{
    buffer_append(&b->bytes, &value, 4);
}

static inline void vocab_u64(struct vocab_build *b, uint64_t value)
{
    buffer_append(&b->bytes, &value, 8);
}

static inline void vocab_string(struct vocab_build *b, const char *text, size_t n)
{
    vocab_u64(b, n);
    buffer_append(&b->bytes, text, n);
}

static inline void vocab_key(struct vocab_build *b, const char *name, enum gguf_type type)
{
    vocab_string(b, name, strlen(name));
    vocab_u32(b, type);
    b->keys++;
}

static inline void vocab_begin(struct vocab_build *b)
{
    *b = (struct vocab_build){0};
    buffer_append(&b->bytes, "GGUF\3\0\0\0", 8);
    vocab_u64(b, 0);
    vocab_u64(b, 0); /* the number of keys, set by vocab_end */
}

static inline void vocab_text(struct vocab_build *b, const char *name, const char *text)
{
    vocab_key(b, name, GGUF_STRING);
    vocab_string(b, text, strlen(text));
}

static inline void vocab_id(struct vocab_build *b, const char *name, uint32_t value)
{
    vocab_key(b, name, GGUF_U32);
    vocab_u32(b, value);
}

static inline void vocab_bool(struct vocab_build *b, const char *name, bool value)
{
    vocab_key(b, name, GGUF_BOOL);
    buffer_putc(&b->bytes, value);
}

static inline void vocab_array(struct vocab_build *b, const char *name, enum gguf_type element, uint64_t count)
{
    vocab_key(b, name, GGUF_ARRAY);
    vocab_u32(b, element);
    vocab_u64(b, count);
}

static inline void vocab_strings(struct vocab_build *b, const char *name, const struct gguf_text *texts, size_t count)
{
    vocab_array(b, name, GGUF_STRING, count);
    for (size_t i = 0; i < count; i++)
        vocab_string(b, texts[i].data, texts[i].size);
}

static inline void vocab_floats(struct vocab_build *b, const char *name, const float *values, size_t count)
{
    vocab_array(b, name, GGUF_F32, count);
    buffer_append(&b->bytes, values, count * 4);
}

static inline void vocab_ints(struct vocab_build *b, const char *name, const int32_t *values, size_t count)
{
    vocab_array(b, name, GGUF_I32, count);
    buffer_append(&b->bytes, values, count * 4);
}

static inline void vocab_end(struct vocab_build *b)
{
    while (!b->bytes.failed && b->bytes.size % 32)
        buffer_putc(&b->bytes, 0);
    if (!b->bytes.failed)
        memcpy(b->bytes.data + 16, &b->keys, 8);
}

/* The printable spelling of a byte in byte-level vocabularies (1 or 2 bytes of UTF-8), written anew here. */
static inline size_t vocab_spell_byte(unsigned byte, char *out)
{
    unsigned c = byte, n = 0;
    if (!((byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD))) {
        for (unsigned b = 0; b < byte; b++)
            n += !((b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xFF && b != 0xAD));
        c = 0x100 + n;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

#endif
