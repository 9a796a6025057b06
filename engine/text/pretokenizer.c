/* Runs the stages of a pattern with PCRE2 (compiled by its JIT where the machine allows it). Each stage cuts every word
 * of the one before by itself, as if it were a whole text. Compiled patterns are shared by all threads; match data is
 * made for each call. */
#include "engine/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "engine/text/utf8.h"

struct pretokenizer {
    const struct pretokenizer_pattern *pattern;
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *codes[PRETOKENIZER_STAGES];
    size_t stages;
};

static void *pcre_alloc(size_t bytes, void *unused)
{
    return mem_alloc(bytes);
}

static void pcre_free(void *p, void *unused)
{
    mem_free(p);
}

static int unknown_name(const char *name, struct error *err)
{
    char list[380];
    size_t n = 0;
    list[0] = 0;
    for (size_t i = 0; pretokenizer_at(i) && n < sizeof list; i++) {
        int more = snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", pretokenizer_at(i)->names[0]);
        n += more > 0 ? (size_t)more : 0;
    }
    return error_set(err, ERR_UNSUPPORTED, "tokenizer.ggml.pre \"%.48s\" is unknown; known: %s and their aliases", name,
                     list);
}

int pretokenizer_open(const char *name, struct pretokenizer **out, struct error *err)
{
    const struct pretokenizer_pattern *pattern = pretokenizer_find(name);
    if (!pattern)
        return unknown_name(name, err);
    int rc = 0;
    struct pretokenizer *p = mem_zalloc(1, sizeof *p);
    if (!p)
        return error_set(err, ERR_NOMEM, "out of memory for a pre-tokeniser");
    p->pattern = pattern;
    p->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    p->limits = p->memory ? pcre2_match_context_create(p->memory) : NULL;
    pcre2_compile_context *compiling = p->memory ? pcre2_compile_context_create(p->memory) : NULL;
    if (!p->limits || !compiling) {
        rc = error_set(err, ERR_NOMEM, "out of memory for a pre-tokeniser");
        goto out;
    }
    pcre2_set_match_limit(p->limits, UINT32_MAX); /* the patterns are linear; their texts may be long */
    for (; pattern->stages[p->stages].rule != RULE_END; p->stages++) {
        const char *text = pattern->stages[p->stages].pattern;
        int code = 0;
        PCRE2_SIZE at = 0;
        p->codes[p->stages] =
            pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, compiling);
        if (!p->codes[p->stages]) {
            char why[128] = "";
            pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
            rc = error_set(err, code == PCRE2_ERROR_HEAP_FAILED ? ERR_NOMEM : ERR_UNSUPPORTED,
                           "the pattern of pre-tokeniser %s does not compile with this PCRE2: %s at %zu", name, why,
                           (size_t)at);
            goto out;
        }
        pcre2_jit_compile(p->codes[p->stages], PCRE2_JIT_COMPLETE); /* without it the same result comes slower */
    }
out:
    pcre2_compile_context_free(compiling);
    if (rc)
        pretokenizer_close(p);
    else
        *out = p;
    return rc;
}

void pretokenizer_close(struct pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < PRETOKENIZER_STAGES; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_match_context_free(p->limits);
    pcre2_general_context_free(p->memory);
    mem_free(p);
}

bool pretokenizer_ignores_merges(const struct pretokenizer *p)
{
    return p->pattern->ignore_merges;
}

static int add_end(struct word_list *words, size_t end)
{
    if (words->count == words->capacity) {
        size_t capacity = words->capacity ? 2 * words->capacity : 256;
        uint32_t *ends = mem_resize(words->ends, capacity, sizeof *ends);
        if (!ends)
            return ERR_NOMEM;
        words->ends = ends;
        words->capacity = capacity;
    }
    words->ends[words->count++] = (uint32_t)end;
    return 0;
}

/* The first words: stretches of valid UTF-8, and each byte that is not. */
static int split_valid(const char *text, size_t bytes, struct word_list *words)
{
    int rc = 0;
    size_t start = 0;
    for (size_t at = 0; at < bytes && !rc;) {
        uint32_t c;
        unsigned size = utf8_decode(text + at, bytes - at, &c);
        if (!size) {
            if (at > start)
                rc = add_end(words, at);
            if (!rc)
                rc = add_end(words, at + 1);
            start = at + 1;
        }
        at += size ? size : 1;
    }
    return rc || start == bytes ? rc : add_end(words, bytes);
}

/* The cuts inside a run of digits: in threes from the right. */
static int add_groups(const char *text, size_t start, size_t end, struct word_list *out)
{
    size_t digits = 0;
    int rc = 0;
    for (size_t at = start; at < end; at += utf8_step(text + at, end - at))
        digits++;
    for (size_t at = start; at < end && !rc;) {
        at += utf8_step(text + at, end - at);
        if (--digits % 3 == 0 && digits)
            rc = add_end(out, at);
    }
    return rc ? rc : add_end(out, end);
}

static int find_match(const struct pretokenizer *p, size_t stage, pcre2_match_data *match, const char *text,
                      size_t bytes, size_t from)
{
    int found = pcre2_match(p->codes[stage], (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, match, p->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(p->codes[stage], (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match,
                            p->limits);
    if (found >= 0)
        return 1;
    return found == PCRE2_ERROR_NOMATCH                                      ? 0
           : found == PCRE2_ERROR_NOMEMORY || found == PCRE2_ERROR_HEAPLIMIT ? ERR_NOMEM
                                                                             : ERR_INTERNAL;
}

static int split_word(const struct pretokenizer *p, size_t stage, pcre2_match_data *match, const char *text,
                      size_t start, size_t end, struct word_list *out)
{
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(match);
    int rc = 0;
    for (size_t at = start; at < end && !rc;) {
        int found = find_match(p, stage, match, text + start, end - start, at - start);
        if (found < 0)
            return found;
        if (!found || span[1] <= span[0])
            return add_end(out, end);
        if (start + span[0] > at)
            rc = add_end(out, start + span[0]);
        at = start + span[1];
        if (!rc && p->pattern->stages[stage].rule == RULE_DIGIT_GROUPS)
            rc = add_groups(text, start + span[0], at, out);
        else if (!rc)
            rc = add_end(out, at);
    }
    return rc;
}

int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t bytes, struct word_list *words,
                       struct error *err)
{
    struct word_list other = {0};
    int rc = 0;
    words->count = 0;
    pcre2_match_data *match = pcre2_match_data_create(1, p->memory);
    rc = match ? split_valid(text, bytes, words) : ERR_NOMEM;
    for (size_t stage = 0; stage < p->stages && !rc; stage++) {
        size_t start = 0;
        other.count = 0;
        for (size_t i = 0; i < words->count && !rc; i++) {
            size_t end = words->ends[i];
            if (end - start == 1) /* also a byte outside UTF-8 */
                rc = add_end(&other, end);
            else
                rc = split_word(p, stage, match, text, start, end, &other);
            start = end;
        }
        struct word_list swap = *words;
        *words = other;
        other = swap;
    }
    pcre2_match_data_free(match);
    word_list_free(&other);
    return rc ? error_set(err, rc,
                          rc == ERR_NOMEM ? "out of memory for splitting %zu bytes into words"
                                          : "the pre-tokeniser failed on a text of %zu bytes",
                          bytes)
              : 0;
}

void word_list_free(struct word_list *words)
{
    mem_free(words->ends);
    *words = (struct word_list){0};
}
