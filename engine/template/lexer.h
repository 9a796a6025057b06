/* A template's text cut into tokens, white space control applied. One thread. */
#ifndef BRIGADE_ENGINE_TEMPLATE_LEXER_H
#define BRIGADE_ENGINE_TEMPLATE_LEXER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/template/arena.h"

enum token_kind {
    TOKEN_END,
    TOKEN_TEXT,         /* outside of any tag */
    TOKEN_OUTPUT_BEGIN, /* {{ */
    TOKEN_OUTPUT_END,   /* }} */
    TOKEN_BLOCK_BEGIN,  /* {% */
    TOKEN_BLOCK_END,    /* %} */
    TOKEN_NAME,
    TOKEN_STRING,       /* with its quotes, escapes not resolved */
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_OPERATOR,     /* one or two characters */
};

struct token {
    uint8_t kind;
    int line;
    const char *bytes; /* into the tokens' text */
    size_t n_bytes;
};

struct tokens {
    struct token *list; /* ends with TOKEN_END; freed with mem_free */
    size_t n, capacity;
};

/* Cuts `text` (UTF-8) into *out. The tokens point into a copy in `arena`, its line ends made '\n'. */
int jinja_lex(const char *text, size_t bytes, struct arena *arena, struct tokens *out, struct error *e);

#endif
