/* Touches everything an open GGUF file offers: each key by each typed reader, each array element, each tensor's bytes,
 * and the summary made of it all.
 * Under sanitizers this proves that nothing the reader let pass points outside the file. Shared by tests and fuzzer. */
#ifndef BRIGADE_TESTS_ENGINE_GGUF_WALK_H
#define BRIGADE_TESTS_ENGINE_GGUF_WALK_H

#include <jansson.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/files/gguf.h"
#include "engine/files/inspect.h"
#include "engine/quant/dequantize.h"
#include "engine/quant/types.h"

static inline int gguf_walk_text(void *context, uint64_t i, struct gguf_text text)
{
    uint32_t *sum = context;
    *sum = hash_crc32(*sum ^ (uint32_t)i, text.data, text.size);
    return 0;
}

/* Typed readers take C strings, so a name is copied first. */
static inline uint32_t gguf_walk_key(const struct gguf *g, const struct gguf_key *key, uint32_t sum)
{
    uint32_t whole = 0;
    float number = 0;
    bool flag = false;
    struct gguf_text text = {0};
    struct error err;
    char *name = mem_strndup(key->name.data, key->name.size);
    if (name) {
        sum ^= gguf_find(g, name) == key;
        sum ^= (uint32_t)gguf_get_u32(g, name, &whole, &err) ^ whole;
        sum ^= (uint32_t)gguf_get_f32(g, name, &number, &err);
        sum ^= (uint32_t)gguf_get_bool(g, name, &flag, &err);
        if (gguf_get_text(g, name, &text, &err) == 1)
            sum = hash_crc32(sum, text.data, text.size);
    }
    mem_free(name);
    gguf_array_strings(key, gguf_walk_text, &sum);
    for (uint64_t i = 0; key->element != GGUF_STRING && i < key->count; i++) {
        double value = gguf_array_float(key, i);
        sum ^= (uint32_t)gguf_array_int(key, i) ^ (value > 0);
    }
    return sum;
}

static inline uint32_t gguf_walk(const struct gguf *g)
{
    uint32_t sum = gguf_version(g) ^ (uint32_t)gguf_file_bytes(g);
    for (size_t i = 0; i < gguf_key_count(g); i++)
        sum = gguf_walk_key(g, gguf_key_at(g, i), sum);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        float values[256];
        uint32_t block = type_info(t->type)->block_values;
        sum ^= gguf_tensor_find(g, t->name) == t;
        sum ^= (uint32_t)strlen(gguf_file_path(g, t->file));
        sum = hash_crc32(sum, t->data, t->bytes);
        if (!dequantize_row(t->type, t->data, values, block)) /* one block */
            sum = hash_crc32(sum, values, block * sizeof *values);
        gguf_advise(g, t, true);
    }
    struct inspect_summary *summary;
    if (!inspect_model(g, &summary, NULL)) {
        json_t *json = inspect_json(g, summary);
        sum ^= (uint32_t)json_object_size(json) ^ (uint32_t)summary->all.bytes;
        json_decref(json);
        inspect_free(summary);
    }
    return sum;
}

#endif
