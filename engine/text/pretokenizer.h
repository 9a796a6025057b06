/* Cutting a text into the words within which byte-level BPE merges: one or more stages of published regular
 * expressions. Immutable once open: any thread. Private to engine/text. */
#ifndef BRIGADE_ENGINE_TEXT_PRETOKENIZER_H
#define BRIGADE_ENGINE_TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PRETOKENIZER_STAGES 6

enum pretokenizer_rule {
    RULE_END,
    RULE_MATCH,        /* every match of the pattern stands alone, and so does what lies between matches */
    RULE_DIGIT_GROUPS, /* likewise, and each match (a run of digits) is cut in threes from the right: 12 345 678 */
};

struct pretokenizer_pattern {
    const char *names[18]; /* values of tokenizer.ggml.pre, NULL after the last */
    bool adds_bos;         /* what a file means that does not say whether prompts begin with bos */
    bool ignore_merges;    /* a word that is a piece is one token, whatever the merges say */
    struct {
        enum pretokenizer_rule rule;
        const char *pattern;
    } stages[PRETOKENIZER_STAGES + 1];
};

/* The table; NULL for an unknown name. */
const struct pretokenizer_pattern *pretokenizer_find(const char *name);
const struct pretokenizer_pattern *pretokenizer_at(size_t i); /* NULL past the end */

struct pretokenizer;

struct word_list {
    uint32_t *ends; /* one past each word's last byte; words follow each other without gaps */
    size_t count, capacity;
};

/* ERR_UNSUPPORTED for an unknown name; the message lists the known ones. */
int pretokenizer_open(const char *name, struct pretokenizer **out, struct error *err);
void pretokenizer_close(struct pretokenizer *p);
bool pretokenizer_ignores_merges(const struct pretokenizer *p);
/* Fills words (from {0}, freed by word_list_free, also after a failure). A byte that is not UTF-8 is a word alone. */
int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t bytes, struct word_list *words,
                       struct error *err);
void word_list_free(struct word_list *words);

#endif
