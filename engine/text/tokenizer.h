/* Text to token ids and back, for the vocabulary of a GGUF file.
 *
 * A `struct tokenizer` copies what it needs (the file may be closed afterwards) and is immutable: any thread may
 * encode and decode with it at once. A `struct token_stream` belongs to one thread.
 * Three kinds, by tokenizer.ggml.model: "llama" (SentencePiece BPE), "t5" (SentencePiece unigram), "gpt2" (byte-level
 * BPE, whose tokenizer.ggml.pre names one of the patterns in pretokenizer_patterns.c; an unknown name is an error that
 * says which exist, for a wrong pattern would quietly give a worse model).
 * Time is linear in the text but for one logarithm, whatever the text is. */
#ifndef BRIGADE_ENGINE_TEXT_TOKENIZER_H
#define BRIGADE_ENGINE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "engine/files/gguf.h"

struct tokenizer;

#define TOKENIZER_MAX_TEXT_BYTES ((size_t)256 << 20) /* of one tokenizer_encode */

enum token_attribute {
    TOKEN_NORMAL,
    TOKEN_UNKNOWN,      /* stands for what the vocabulary cannot say */
    TOKEN_CONTROL,      /* <s>, <|eot_id|>: structure, not text */
    TOKEN_USER_DEFINED, /* text that is always this token, matched before everything else */
    TOKEN_UNUSED,
    TOKEN_BYTE, /* one raw byte of SentencePiece's byte fallback */
};

enum tokenizer_flags {
    TOKENIZER_ADD_BOS = 1,       /* bos first, if the file says that this model wants one (add_bos_token) */
    TOKENIZER_ADD_EOS = 2,       /* eos last, if the file says so (add_eos_token) */
    TOKENIZER_ADD_SPECIAL = 3,   /* both: what a prompt wants */
    TOKENIZER_PARSE_SPECIAL = 4, /* texts of control tokens become these tokens; never for text of a stranger */
    TOKENIZER_FORCE_BOS = 8,     /* bos first whatever the file says (if it has one) */
};

enum detokenizer_flags {
    DETOKENIZER_SHOW_SPECIAL = 1, /* control and unknown tokens give their own text instead of nothing */
    DETOKENIZER_START = 2,        /* the first token begins a text: drop the space that encoding put in front */
    DETOKENIZER_RAW_BYTES = 4,    /* give invalid UTF-8 as it is instead of U+FFFD */
};

/* A growable list of ids; start from {0}, or {.limit = N}. tokenizer_encode appends; the caller frees. */
struct token_list {
    int32_t *ids;
    size_t count;
    size_t capacity;
    size_t limit; /* 0: none; passing it is ERR_BOUND */
};

void token_list_free(struct token_list *list);

/* Reads the vocabulary of g. *out is the caller's: tokenizer_close. ERR_UNSUPPORTED for a model or pre-tokeniser that
 * brigade does not know, ERR_FORMAT for a broken vocabulary. */
int tokenizer_open(const struct gguf *g, struct tokenizer **out, struct error *err);
void tokenizer_close(struct tokenizer *t); /* NULL is fine */

/* Appends the ids of text (UTF-8; invalid bytes keep their value where the vocabulary has a token for it, else they
 * become U+FFFD or the unknown token). flags: tokenizer_flags. On failure the list holds what it held before. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes, unsigned flags, struct token_list *out,
                     struct error *err);

/* Appends the text of ids. flags: detokenizer_flags; DETOKENIZER_START undoes tokenizer_encode exactly.
 * ERR_USAGE for an id outside the vocabulary, ERR_BOUND at out's limit. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t count, unsigned flags, struct buffer *out,
                     struct error *err);

/* Decoding token by token: what comes out is always whole UTF-8 characters; a character's first bytes are held back
 * until the rest comes, and bytes that can never complete one give U+FFFD at once. */
struct token_stream {
    const struct tokenizer *tokenizer;
    unsigned flags;
    bool drop_space; /* the next text begins with a space that encoding would have put there */
    unsigned held;   /* bytes of an unfinished character */
    unsigned char bytes[4];
};

void token_stream_start(struct token_stream *s, const struct tokenizer *t, unsigned flags);
int token_stream_push(struct token_stream *s, int32_t id, struct buffer *out, struct error *err);
int token_stream_finish(struct token_stream *s, struct buffer *out, struct error *err); /* what is held: U+FFFD */

size_t tokenizer_count(const struct tokenizer *t);
const char *
tokenizer_kind(const struct tokenizer *t); /* "sentencepiece bpe", "sentencepiece unigram", "byte-level bpe" */
/* The bytes that a token stands for (a control token: its name; a byte token: the byte); {NULL, 0} outside the
 * vocabulary. Lives as long as t; not terminated. */
struct gguf_text tokenizer_piece(const struct tokenizer *t, int32_t id);
float tokenizer_score(const struct tokenizer *t, int32_t id); /* 0 where the vocabulary has none */
enum token_attribute tokenizer_attribute(const struct tokenizer *t, int32_t id);
/* The id of a control or user-defined token by its exact text; -1 when there is none. */
int32_t tokenizer_find_special(const struct tokenizer *t, const char *text);

/* -1 when the vocabulary has none. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_eot(const struct tokenizer *t); /* end of turn */
int32_t tokenizer_unknown(const struct tokenizer *t);
int32_t tokenizer_padding(const struct tokenizer *t);
/* Whether every text can be said exactly: a token for each byte that UTF-8 uses. Then decoding undoes encoding. */
bool tokenizer_is_complete(const struct tokenizer *t);
bool tokenizer_adds_bos(const struct tokenizer *t);
bool tokenizer_adds_eos(const struct tokenizer *t);

/* Whether id ends a generation: eos, end of turn, end of message, by metadata or by a well known name. */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
const int32_t *tokenizer_ends(const struct tokenizer *t, size_t *count); /* rising; lives as long as t */

/* The model's chat template (Jinja), {NULL, 0} when it has none. name: NULL for the default one, else a named one
 * ("tool_use"). Lives as long as t; terminated. */
struct gguf_text tokenizer_chat_template(const struct tokenizer *t, const char *name);

#endif
