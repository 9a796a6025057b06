/* Builds GGUF files in memory for tests, valid ones and (by setting the counts or the version) broken ones.
 * Start from {0}; add keys and tensors in any order; finish. Failures end the test program. One thread. */
#ifndef BRIGADE_TESTS_ENGINE_GGUF_BUILDER_H
#define BRIGADE_TESTS_ENGINE_GGUF_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "engine/files/gguf.h"

struct gguf_builder {
    uint32_t version;   /* 0: 3 */
    uint32_t alignment; /* 0: 32; any other also writes general.alignment */
    uint64_t seed;      /* of made-up tensor data */
    struct buffer keys, tensors, data;
    uint64_t key_count, tensor_count;
};

void gguf_build_u32(struct gguf_builder *b, const char *name, uint32_t value);
void gguf_build_f32(struct gguf_builder *b, const char *name, float value);
void gguf_build_bool(struct gguf_builder *b, const char *name, bool value);
void gguf_build_text(struct gguf_builder *b, const char *name, const char *value);
/* Any scalar type: its bytes at value. */
void gguf_build_scalar(struct gguf_builder *b, const char *name, enum gguf_type type, const void *value);
/* count numbers of a scalar type, or count C strings (data is const char *const *). */
void gguf_build_array(struct gguf_builder *b, const char *name, enum gguf_type element, const void *data,
                      uint64_t count);
/* data: the tensor's bytes, or NULL: floats of about unit size from the seed, quantised when brigade writes the type,
 * else random bytes. */
void gguf_build_tensor(struct gguf_builder *b, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape,
                       const void *data);

/* The file's bytes (mem_free); the builder is empty again. */
void *gguf_build_finish(struct gguf_builder *b, size_t *size);
/* As gguf_build_finish, into a file. */
void gguf_build_write(struct gguf_builder *b, const char *path);

/* A small model-like file: keys of every type, arrays of each kind, tensors of several types; some 4 kB. */
void gguf_build_sample(struct gguf_builder *b);
/* Weights of a small llama (2 blocks, width 256, rows of 96 in ffn_down, tied head) of one type; 1.9 MB in F32. */
void gguf_build_llama(struct gguf_builder *b, uint32_t type);

/* A float of about a normal distribution, from a counter. */
float gguf_build_normal(uint64_t *state);

#endif
