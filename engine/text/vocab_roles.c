/* Which tokens play a role: begin, end, end of turn, unknown. The file's keys speak first; then well known names, for
 * many converters leave keys out or mark such tokens as ordinary text. Runs once, in the opening thread. */
#include "engine/text/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"

enum role {
    ROLE_TURN = 1,    /* ends a turn, and with it the generation */
    ROLE_MESSAGE = 2, /* ends a message, and with it the generation */
    ROLE_END = 4,     /* ends the generation */
    ROLE_MARK = 8,    /* structure only: must never be read out of a stranger's text */
};

/* <|end_of_sentence|> with full-width bars and U+2581. */
#define DEEPSEEK_END "<\xEF\xBD\x9C\x65nd\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

static const struct {
    const char *text;
    unsigned roles;
} known[] = {
    {"<|eot_id|>", ROLE_TURN | ROLE_END},      /* Llama 3 */
    {"<|im_end|>", ROLE_TURN | ROLE_END},      /* ChatML: Qwen, SmolLM, Yi */
    {"<|end|>", ROLE_TURN | ROLE_END},         /* Phi-3 */
    {"<end_of_turn>", ROLE_TURN | ROLE_END},   /* Gemma */
    {"<|endoftext|>", ROLE_TURN | ROLE_END},   /* GPT-2 and its kin */
    {"<|end_of_text|>", ROLE_TURN | ROLE_END}, /* Llama 3, Granite */
    {"<EOT>", ROLE_TURN | ROLE_END},
    {"_<EOT>", ROLE_TURN | ROLE_END},
    {DEEPSEEK_END, ROLE_TURN | ROLE_END}, /* DeepSeek */
    {"<end_of_utterance>", ROLE_TURN | ROLE_END},
    {"<|eom_id|>", ROLE_MESSAGE | ROLE_END},
    {"<|return|>", ROLE_END}, /* gpt-oss */
    {"<|call|>", ROLE_END},
    {"<|fim_pad|>", ROLE_END},
    {"<fim-pad>", ROLE_END},
    {"<fim_pad>", ROLE_END},
    {"<PAD>", ROLE_END},
    {"<|fim_repo|>", ROLE_END},
    {"<|repo_name|>", ROLE_END},
    {"<fim-repo>", ROLE_END},
    {"<REPO>", ROLE_END},
    {"<reponame>", ROLE_END},
    {"<|file_sep|>", ROLE_END},
    {"<|fim_prefix|>", ROLE_MARK},
    {"<|fim_suffix|>", ROLE_MARK},
    {"<|fim_middle|>", ROLE_MARK},
    {"<fim_prefix>", ROLE_MARK},
    {"<fim_suffix>", ROLE_MARK},
    {"<fim_middle>", ROLE_MARK},
};

#define KNOWN (sizeof known / sizeof *known)

static int read_id(const struct gguf *g, struct vocab *v, const char *role, int32_t *id, struct error *err)
{
    char name[64];
    uint32_t value = 0;
    snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", role);
    const struct gguf_key *key = gguf_find(g, name);
    if (!key)
        return 0;
    /* -1, as whatever type, is how some converters write "none". */
    if (key->type == GGUF_I32 || key->type == GGUF_I64 || key->type == GGUF_I16 || key->type == GGUF_I8) {
        int64_t signed_value = 0;
        if (key->type == GGUF_I32) {
            int32_t x;
            memcpy(&x, key->data, sizeof x);
            signed_value = x;
        } else if (key->type == GGUF_I64) {
            memcpy(&signed_value, key->data, sizeof signed_value);
        }
        if (signed_value < 0) {
            *id = -1;
            return 0;
        }
    }
    int rc = gguf_get_u32(g, name, &value, err);
    if (rc < 0)
        return rc;
    if (value >= v->count) {
        if (value != UINT32_MAX)
            log_warn("%s: %s is %u, outside the vocabulary of %u tokens; ignored", gguf_path(g), name, value, v->count);
        *id = -1;
        return 0;
    }
    *id = (int32_t)value;
    return 0;
}

static int read_switch(const struct gguf *g, const char *name, bool *out, struct error *err)
{
    int rc = gguf_get_bool(g, name, out, err);
    return rc < 0 ? rc : 0;
}

static int compare_ids(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Marks names that are structure as control tokens, finds the end-of-turn token, and notes where each name is. */
static void find_names(struct vocab *v, int32_t at[KNOWN])
{
    size_t best = KNOWN;
    for (size_t k = 0; k < KNOWN; k++)
        at[k] = -1;
    for (uint32_t id = 0; id < v->count; id++) {
        uint32_t size = vocab_size(v, id);
        if (size < 5 || size > 40 || (vocab_bytes(v, id)[0] != '<' && vocab_bytes(v, id)[0] != '_'))
            continue;
        for (size_t k = 0; k < KNOWN; k++) {
            if (at[k] >= 0 || !vocab_is(v, id, known[k].text))
                continue;
            at[k] = (int32_t)id;
            v->attributes[id] = TOKEN_CONTROL;
            if (known[k].roles & ROLE_TURN && k < best)
                best = k;
            if (known[k].roles & ROLE_MESSAGE && v->eom < 0)
                v->eom = (int32_t)id;
        }
    }
    if (v->eot < 0 && best < KNOWN)
        v->eot = at[best];
}

static bool has_name(const int32_t at[KNOWN], const char *text, int32_t *id)
{
    for (size_t k = 0; k < KNOWN; k++)
        if (!strcmp(known[k].text, text) && at[k] >= 0) {
            *id = at[k];
            return true;
        }
    return false;
}

static int collect_ends(struct vocab *v, const int32_t at[KNOWN], struct error *err)
{
    int32_t not_end = -1, ignored;
    /* gpt-oss ends messages with <|end|> and goes on; only <|return|> and <|call|> stop it. */
    if (has_name(at, "<|return|>", &ignored) && has_name(at, "<|call|>", &ignored))
        has_name(at, "<|end|>", &not_end);
    int32_t *ends = mem_zalloc(KNOWN + 3, sizeof *ends);
    if (!ends)
        return error_set(err, ERR_NOMEM, "out of memory for the list of end tokens");
    size_t n = 0;
    for (size_t k = 0; k < KNOWN; k++)
        if (at[k] >= 0 && at[k] != not_end && known[k].roles & ROLE_END)
            ends[n++] = at[k];
    if (v->eos >= 0)
        ends[n++] = v->eos;
    if (v->eot >= 0 && v->eot != not_end)
        ends[n++] = v->eot;
    if (v->eom >= 0)
        ends[n++] = v->eom;
    qsort(ends, n, sizeof *ends, compare_ids);
    size_t unique = 0;
    for (size_t i = 0; i < n; i++)
        if (!i || ends[i] != ends[i - 1])
            ends[unique++] = ends[i];
    v->ends = ends;
    v->end_count = unique;
    return 0;
}

int vocab_read_roles(const struct gguf *g, struct vocab *v, struct error *err)
{
    /* What a file without the keys means, by the habits of each kind. */
    if (v->kind == VOCAB_SENTENCEPIECE) {
        v->bos = v->count > 1 ? 1 : -1;
        v->eos = v->count > 2 ? 2 : -1;
        v->unknown = 0;
        v->add_bos = v->add_space_prefix = true;
    } else if (v->kind == VOCAB_UNIGRAM) {
        v->eos = v->count > 1 ? 1 : -1;
        v->unknown = v->count > 2 ? 2 : -1;
        v->padding = 0;
        v->add_eos = v->add_space_prefix = true;
    } else {
        const struct pretokenizer_pattern *pattern = pretokenizer_find(v->pre);
        v->add_bos = pattern && pattern->adds_bos;
    }
    const struct {
        const char *role;
        int32_t *id;
    } ids[] = {{"bos", &v->bos}, {"eos", &v->eos},         {"eot", &v->eot},
               {"eom", &v->eom}, {"unknown", &v->unknown}, {"padding", &v->padding}};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof ids / sizeof *ids; i++)
        rc = read_id(g, v, ids[i].role, ids[i].id, err);
    if (!rc)
        rc = read_switch(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err);
    if (!rc)
        rc = read_switch(g, "tokenizer.ggml.add_eos_token", &v->add_eos, err);
    if (!rc)
        rc = read_switch(g, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix, err);
    if (!rc)
        rc = read_switch(g, "tokenizer.ggml.remove_extra_whitespaces", &v->remove_extra_spaces, err);
    if (rc)
        return rc;
    int32_t at[KNOWN];
    find_names(v, at);
    return collect_ends(v, at, err);
}
