/* The vocabulary of a GGUF file, copied and checked: the bytes each token stands for, scores, attributes, special ids.
 * Private to engine/text. Immutable after vocab_read: any thread. */
#ifndef BRIGADE_ENGINE_TEXT_VOCAB_H
#define BRIGADE_ENGINE_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"

#define VOCAB_MAX_TOKENS (1u << 24)
#define VOCAB_MAX_SPECIAL_BYTES 1024 /* longer control and user-defined texts are never looked for in a text */
#define VOCAB_MAX_TEMPLATES 8

enum vocab_kind {
    VOCAB_SENTENCEPIECE, /* merges by score */
    VOCAB_UNIGRAM,       /* the likeliest path */
    VOCAB_BYTE_LEVEL,    /* merges by rank, over bytes */
};

struct vocab_template {
    char *name; /* "" for the default one */
    char *text;
    size_t size;
};

struct vocab {
    enum vocab_kind kind;
    uint32_t count;
    char *bytes;         /* all pieces, one after the other */
    uint32_t *offsets;   /* count + 1 */
    float *scores;       /* count; NULL for byte-level */
    uint8_t *attributes; /* count; enum token_attribute */
    uint8_t *strips;     /* count; 1: white space after this special token belongs to it; NULL: none does */
    uint8_t *literal;    /* count; byte-level: 1 where the piece is plain text, outside the byte alphabet's merges */
    int32_t byte_ids[256];
    int32_t bos, eos, eot, eom, unknown, padding; /* -1: none */
    bool add_bos, add_eos, add_space_prefix, remove_extra_spaces;
    int32_t *ends; /* rising */
    size_t end_count;
    struct vocab_template templates[VOCAB_MAX_TEMPLATES];
    size_t template_count;
    char pre[64]; /* tokenizer.ggml.pre; "" when absent */
};

/* Fills *v, which vocab_free empties also after a failure. */
int vocab_read(const struct gguf *g, struct vocab *v, struct error *err);
void vocab_free(struct vocab *v);

/* The roles of tokens: by the file's keys, then by well known names (vocab_roles.c). */
int vocab_read_roles(const struct gguf *g, struct vocab *v, struct error *err);

static inline const char *vocab_bytes(const struct vocab *v, uint32_t id)
{
    return v->bytes + v->offsets[id];
}

static inline uint32_t vocab_size(const struct vocab *v, uint32_t id)
{
    return v->offsets[id + 1] - v->offsets[id];
}

/* The bytes that a byte-level piece spells: at most text.size of them. False (out of no use) when a character is not of
 * the alphabet. */
bool vocab_decode_byte_level(struct gguf_text text, char *out, size_t *size);

bool vocab_is(const struct vocab *v, uint32_t id, const char *text);

#endif
