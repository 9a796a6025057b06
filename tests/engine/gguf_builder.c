/* The builder: three growing runs of bytes, put together at the end. */
#include "tests/engine/gguf_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/quant/quantize.h"
#include "engine/quant/types.h"

static void need(bool held, const char *what)
{
    if (held)
        return;
    fprintf(stderr, "gguf_builder: %s\n", what);
    exit(1);
}

static void put(struct buffer *b, const void *bytes, size_t n)
{
    need(!buffer_append(b, bytes, n), "out of memory");
}

static void put_text(struct buffer *b, const char *text)
{
    uint64_t n = strlen(text);
    put(b, &n, sizeof n);
    put(b, text, n);
}

static size_t scalar_bytes(enum gguf_type type)
{
    static const size_t bytes[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

static void start_key(struct gguf_builder *b, const char *name, uint32_t type)
{
    put_text(&b->keys, name);
    put(&b->keys, &type, sizeof type);
    b->key_count++;
}

void gguf_build_scalar(struct gguf_builder *b, const char *name, enum gguf_type type, const void *value)
{
    start_key(b, name, type);
    put(&b->keys, value, scalar_bytes(type));
}

void gguf_build_u32(struct gguf_builder *b, const char *name, uint32_t value)
{
    gguf_build_scalar(b, name, GGUF_U32, &value);
}

void gguf_build_f32(struct gguf_builder *b, const char *name, float value)
{
    gguf_build_scalar(b, name, GGUF_F32, &value);
}

void gguf_build_bool(struct gguf_builder *b, const char *name, bool value)
{
    unsigned char byte = value;
    gguf_build_scalar(b, name, GGUF_BOOL, &byte);
}

void gguf_build_text(struct gguf_builder *b, const char *name, const char *value)
{
    start_key(b, name, GGUF_STRING);
    put_text(&b->keys, value);
}

void gguf_build_array(struct gguf_builder *b, const char *name, enum gguf_type element, const void *data,
                      uint64_t count)
{
    uint32_t type = element;
    start_key(b, name, GGUF_ARRAY);
    put(&b->keys, &type, sizeof type);
    put(&b->keys, &count, sizeof count);
    if (element != GGUF_STRING) {
        put(&b->keys, data, count * scalar_bytes(element));
        return;
    }
    const char *const *texts = data;
    for (uint64_t i = 0; i < count; i++)
        put_text(&b->keys, texts[i]);
}

float gguf_build_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(hash_mix64((*state)++) >> 40) / 16777216.0f - 0.5f;
    return sum * 1.7320508f;
}

/* Appends the made-up bytes of a tensor. */
static void make_up(struct gguf_builder *b, uint32_t type, uint64_t values, size_t bytes)
{
    char *out = buffer_reserve(&b->data, bytes);
    need(out != NULL, "out of memory");
    b->seed += UINT64_C(1) << 32;
    uint64_t state = b->seed;
    if (quantize_known(type)) {
        float *floats = mem_zalloc(values, sizeof *floats);
        need(floats != NULL, "out of memory");
        for (uint64_t i = 0; i < values; i++)
            floats[i] = gguf_build_normal(&state);
        need(!quantize_row(type, floats, out, values), "a tensor's shape does not fit its type");
        mem_free(floats);
    } else {
        for (size_t i = 0; i < bytes; i++)
            out[i] = (char)(hash_mix64(state++) >> 56);
    }
    b->data.size += bytes;
}

static void pad(struct buffer *b, size_t alignment)
{
    static const char zeros[1];
    while (b->size % alignment)
        put(b, zeros, 1);
}

void gguf_build_tensor(struct gguf_builder *b, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape,
                       const void *data)
{
    uint64_t values = 1, offset;
    for (uint32_t i = 0; i < dims; i++)
        values *= shape[i];
    size_t bytes = type_row_bytes(type, values);
    need(bytes != 0, "a tensor's shape does not fit its type");
    pad(&b->data, b->alignment ? b->alignment : 32);
    offset = b->data.size;
    put_text(&b->tensors, name);
    put(&b->tensors, &dims, sizeof dims);
    put(&b->tensors, shape, dims * sizeof *shape);
    put(&b->tensors, &type, sizeof type);
    put(&b->tensors, &offset, sizeof offset);
    b->tensor_count++;
    if (data)
        put(&b->data, data, bytes);
    else
        make_up(b, type, values, bytes);
}

void *gguf_build_finish(struct gguf_builder *b, size_t *size)
{
    struct buffer out = {0};
    uint32_t version = b->version ? b->version : 3;
    if (b->alignment)
        gguf_build_u32(b, "general.alignment", b->alignment);
    put(&out, "GGUF", 4);
    put(&out, &version, sizeof version);
    put(&out, &b->tensor_count, sizeof b->tensor_count);
    put(&out, &b->key_count, sizeof b->key_count);
    put(&out, b->keys.data, b->keys.size);
    put(&out, b->tensors.data, b->tensors.size);
    if (b->data.size)
        pad(&out, b->alignment ? b->alignment : 32);
    put(&out, b->data.data, b->data.size);
    buffer_free(&b->keys);
    buffer_free(&b->tensors);
    buffer_free(&b->data);
    *b = (struct gguf_builder){0};
    *size = out.size;
    void *bytes = buffer_steal(&out);
    need(bytes != NULL, "out of memory");
    return bytes;
}

void gguf_build_write(struct gguf_builder *b, const char *path)
{
    size_t size;
    void *bytes = gguf_build_finish(b, &size);
    FILE *f = fopen(path, "wb");
    need(f && fwrite(bytes, 1, size, f) == size && !fclose(f), "cannot write a file");
    mem_free(bytes);
}

void gguf_build_sample(struct gguf_builder *b)
{
    static const char *const words[] = {"<unk>", "", "a", "\xc3\xa9t\xc3\xa9", "a longer piece of text"};
    static const float scores[] = {0, -1, -2, -3, -4};
    static const int32_t kinds[] = {2, 1, 1, 1, 6};
    static const unsigned char flags[] = {0, 1, 1};
    static const double doubles[] = {0.5, -1e300};
    static const int8_t bytes[] = {-128, 127};
    static const uint16_t shorts[] = {65535};
    uint64_t big = UINT64_MAX;
    int64_t negative = -5;
    int16_t small = -300;
    uint8_t tiny = 200;
    double third = 1.0 / 3;
    gguf_build_text(b, "general.architecture", "llama");
    gguf_build_text(b, "general.name", "sample");
    gguf_build_u32(b, "llama.block_count", 2);
    gguf_build_f32(b, "llama.rope.freq_base", 10000);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", true);
    gguf_build_scalar(b, "some.u64", GGUF_U64, &big);
    gguf_build_scalar(b, "some.i64", GGUF_I64, &negative);
    gguf_build_scalar(b, "some.i16", GGUF_I16, &small);
    gguf_build_scalar(b, "some.u8", GGUF_U8, &tiny);
    gguf_build_scalar(b, "some.f64", GGUF_F64, &third);
    gguf_build_array(b, "tokenizer.ggml.tokens", GGUF_STRING, words, 5);
    gguf_build_array(b, "tokenizer.ggml.scores", GGUF_F32, scores, 5);
    gguf_build_array(b, "tokenizer.ggml.token_type", GGUF_I32, kinds, 5);
    gguf_build_array(b, "some.flags", GGUF_BOOL, flags, 3);
    gguf_build_array(b, "some.doubles", GGUF_F64, doubles, 2);
    gguf_build_array(b, "some.bytes", GGUF_I8, bytes, 2);
    gguf_build_array(b, "some.shorts", GGUF_U16, shorts, 1);
    gguf_build_array(b, "some.nothing", GGUF_U32, NULL, 0);
    gguf_build_tensor(b, "token_embd.weight", TYPE_Q8_0, 2, (uint64_t[]){32, 5}, NULL);
    gguf_build_tensor(b, "blk.0.attn_norm.weight", TYPE_F32, 1, (uint64_t[]){32}, NULL);
    gguf_build_tensor(b, "blk.0.ffn_up.weight", TYPE_Q4_K, 2, (uint64_t[]){256, 2}, NULL);
    gguf_build_tensor(b, "blk.1.ffn_up_exps.weight", TYPE_Q4_0, 3, (uint64_t[]){32, 3, 2}, NULL);
    gguf_build_tensor(b, "blk.1.four", TYPE_F16, 4, (uint64_t[]){3, 2, 1, 5}, NULL);
    gguf_build_tensor(b, "output.weight", TYPE_IQ2_XS, 2, (uint64_t[]){256, 1}, NULL);
    gguf_build_tensor(b, "last", TYPE_I8, 1, (uint64_t[]){7}, NULL);
}

void gguf_build_llama(struct gguf_builder *b, uint32_t type)
{
    enum { WIDTH = 256, KV = 64, FFN = 96, VOCAB = 96 };
    static const struct {
        const char *name;
        uint64_t shape[2];
    } weights[] = {
        {"attn_norm.weight", {WIDTH, 0}},  {"attn_q.weight", {WIDTH, WIDTH}},      {"attn_k.weight", {WIDTH, KV}},
        {"attn_v.weight", {WIDTH, KV}},    {"attn_output.weight", {WIDTH, WIDTH}}, {"ffn_norm.weight", {WIDTH, 0}},
        {"ffn_gate.weight", {WIDTH, FFN}}, {"ffn_up.weight", {WIDTH, FFN}},        {"ffn_down.weight", {FFN, WIDTH}},
    };
    gguf_build_text(b, "general.architecture", "llama");
    gguf_build_u32(b, "general.file_type", 0);
    gguf_build_u32(b, "llama.block_count", 2);
    gguf_build_u32(b, "llama.context_length", 64);
    gguf_build_u32(b, "llama.embedding_length", WIDTH);
    gguf_build_u32(b, "llama.feed_forward_length", FFN);
    gguf_build_u32(b, "llama.attention.head_count", 4);
    gguf_build_u32(b, "llama.attention.head_count_kv", 1);
    gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_build_tensor(b, "token_embd.weight", type, 2, (uint64_t[]){WIDTH, VOCAB}, NULL);
    for (int block = 0; block < 2; block++)
        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
            char name[64];
            bool vector = !weights[i].shape[1];
            snprintf(name, sizeof name, "blk.%d.%s", block, weights[i].name);
            gguf_build_tensor(b, name, vector ? TYPE_F32 : type, vector ? 1 : 2, weights[i].shape, NULL);
        }
    gguf_build_tensor(b, "output_norm.weight", TYPE_F32, 1, (uint64_t[]){WIDTH}, NULL);
}
