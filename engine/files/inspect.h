/* What a model file holds, counted: for `brigade inspect`, and for whoever needs sizes by block. Data only; the caller
 * prints. A summary is immutable; any thread. */
#ifndef BRIGADE_ENGINE_FILES_INSPECT_H
#define BRIGADE_ENGINE_FILES_INSPECT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"

/* A sum over some tensors. */
struct inspect_part {
    size_t tensors;
    uint64_t parameters; /* values */
    uint64_t bytes;
};

struct inspect_type {
    uint32_t type;
    struct inspect_part part;
};

struct inspect_summary {
    char architecture[64]; /* "llama"; "" when the file does not say. Printable ASCII, as the next two */
    char name[128];        /* general.name, or "" */
    char file_type[24];    /* "Q4_K_M", from general.file_type, else the type that holds most bytes */
    uint32_t version;      /* of GGUF */
    int files;
    size_t keys;
    uint64_t file_bytes;
    /* From the architecture's metadata; -1 where the file does not say. Arrays count their first element. */
    int64_t blocks, context_tokens, width, heads, kv_heads, head_width, feed_forward, experts, experts_used, vocabulary;
    struct inspect_part all;
    double bits_per_weight;
    size_t type_count;
    struct inspect_type *types;                 /* by falling bytes */
    size_t block_count;                         /* blocks seen in tensor names: "blk.N." */
    struct inspect_part *block;                 /* of block N */
    struct inspect_part embedding, head, other; /* token_embd.*; output.*; everything else outside the blocks */
};

/* *out is the caller's: inspect_free. Only ERR_NOMEM is possible. */
int inspect_model(const struct gguf *g, struct inspect_summary **out, struct error *err);
void inspect_free(struct inspect_summary *s); /* NULL is fine */

/* Block number of a tensor name ("blk.7.attn_q.weight"), or -1. Bounded by INSPECT_BLOCKS_MAX. */
#define INSPECT_BLOCKS_MAX 65536
int64_t inspect_block_of(const char *tensor_name);

/* The summary as JSON (jansson's json_t; the caller's reference): architecture, name, file_type, gguf_version, files,
 * file_bytes, blocks, parameters, tensor_bytes, bits_per_weight, context_length, embedding_length, head_count,
 * head_count_kv, feed_forward_length, expert_count, expert_used_count, vocab_size (those that are known), types[]
 * (type, tensors, parameters, bytes), block_bytes[], embedding_bytes, head_bytes, other_bytes, and tensors[] (name,
 * type, shape, bytes). NULL when out of memory. */
struct json_t;
struct json_t *inspect_json(const struct gguf *g, const struct inspect_summary *s);

#endif
