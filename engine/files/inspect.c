/* Counting what a model file holds. Owns only the summary it makes. */
#include "engine/files/inspect.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/files/gguf_internal.h"

int64_t inspect_block_of(const char *tensor_name)
{
    if (strncmp(tensor_name, "blk.", 4))
        return -1;
    int64_t block = 0;
    const char *at = tensor_name + 4;
    while (*at >= '0' && *at <= '9' && block < INSPECT_BLOCKS_MAX)
        block = block * 10 + (*at++ - '0');
    return at > tensor_name + 4 && *at == '.' && block < INSPECT_BLOCKS_MAX ? block : -1;
}

/* A text key as printable ASCII, cut to fit; "" when it is absent. */
static void copy_text(const struct gguf *g, const char *key, char *out, size_t size)
{
    struct gguf_text text = {0};
    *out = 0;
    if (gguf_get_text(g, key, &text, NULL) != 1)
        return;
    size_t n = text.size < size - 1 ? text.size : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = text.data[i] >= ' ' && text.data[i] <= '~' ? text.data[i] : '?';
    out[n] = 0;
}

static int64_t architecture_int(const struct gguf *g, const char *architecture, const char *key)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", architecture, key);
    const struct gguf_key *found = gguf_find(g, name);
    if (!found || found->element == GGUF_STRING || !found->count)
        return -1;
    int64_t value = gguf_array_int(found, 0);
    return value < 0 ? -1 : value;
}

static void read_shape(const struct gguf *g, struct inspect_summary *s)
{
    const char *a = s->architecture;
    s->blocks = architecture_int(g, a, "block_count");
    s->context_tokens = architecture_int(g, a, "context_length");
    s->width = architecture_int(g, a, "embedding_length");
    s->heads = architecture_int(g, a, "attention.head_count");
    s->kv_heads = architecture_int(g, a, "attention.head_count_kv");
    if (s->kv_heads < 0)
        s->kv_heads = s->heads;
    s->head_width = architecture_int(g, a, "attention.key_length");
    if (s->head_width < 0 && s->heads > 0 && s->width > 0)
        s->head_width = s->width / s->heads;
    s->feed_forward = architecture_int(g, a, "feed_forward_length");
    s->experts = architecture_int(g, a, "expert_count");
    s->experts_used = architecture_int(g, a, "expert_used_count");
    const struct gguf_key *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    bool fits = tokens && tokens->count <= INT64_MAX;
    s->vocabulary = fits ? (int64_t)tokens->count : architecture_int(g, a, "vocab_size");
}

static void add(struct inspect_part *part, const struct gguf_tensor *t)
{
    part->tensors++;
    part->parameters += t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3]; /* within 2^63 by gguf_parse */
    part->bytes += t->bytes;
}

/* By falling bytes, then by type number. */
static int compare_types(const void *a, const void *b)
{
    const struct inspect_type *x = a, *y = b;
    if (x->part.bytes != y->part.bytes)
        return x->part.bytes > y->part.bytes ? -1 : 1;
    return x->type < y->type ? -1 : x->type > y->type;
}

static void count_tensors(const struct gguf *g, struct inspect_summary *s)
{
    struct inspect_part by_type[TYPE_COUNT] = {0};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        int64_t block = inspect_block_of(t->name);
        add(&s->all, t);
        add(&by_type[t->type], t);
        if (block >= 0)
            add(&s->block[block], t);
        else if (!strncmp(t->name, "token_embd.", 11))
            add(&s->embedding, t);
        else if (!strncmp(t->name, "output.", 7))
            add(&s->head, t);
        else
            add(&s->other, t);
    }
    for (uint32_t type = 0; type < TYPE_COUNT; type++)
        if (by_type[type].tensors)
            s->types[s->type_count++] = (struct inspect_type){type, by_type[type]};
    qsort(s->types, s->type_count, sizeof *s->types, compare_types);
    s->bits_per_weight = s->all.parameters ? 8.0 * (double)s->all.bytes / (double)s->all.parameters : 0;
}

static void name_file_type(const struct gguf *g, struct inspect_summary *s)
{
    static const char *const names[] = {
        "F32",    "F16",    "Q4_0",   "Q4_1",    "Q4_1",   "Q4_2",   "Q4_3",   "Q8_0",   "Q5_0",      "Q5_1",
        "Q2_K",   "Q3_K_S", "Q3_K_M", "Q3_K_L",  "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",      "IQ2_XXS",
        "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",  "IQ4_NL", "IQ3_S",  "IQ3_M",  "IQ2_S",     "IQ2_M",
        "IQ4_XS", "IQ1_M",  "BF16",   NULL,      NULL,     NULL,     "TQ1_0",  "TQ2_0",  "MXFP4_MOE",
    };
    uint32_t number = UINT32_MAX;
    const char *name = "";
    if (gguf_get_u32(g, "general.file_type", &number, NULL) == 1 && number < sizeof names / sizeof *names &&
        names[number])
        name = names[number];
    else if (s->type_count)
        name = type_name(s->types[0].type);
    snprintf(s->file_type, sizeof s->file_type, "%s", name);
}

int inspect_model(const struct gguf *g, struct inspect_summary **out, struct error *err)
{
    struct inspect_summary *s = mem_zalloc(1, sizeof *s);
    if (s) {
        for (size_t i = 0; i < gguf_tensor_count(g); i++) {
            int64_t block = inspect_block_of(gguf_tensor_at(g, i)->name);
            if (block >= (int64_t)s->block_count)
                s->block_count = (size_t)block + 1;
        }
        s->types = mem_zalloc(TYPE_COUNT, sizeof *s->types);
        s->block = mem_zalloc(s->block_count, sizeof *s->block);
    }
    if (!s || !s->types || !s->block) {
        inspect_free(s);
        return error_set(err, ERR_NOMEM, "%s: out of memory while inspecting", gguf_path_shown(gguf_path(g)));
    }
    copy_text(g, "general.architecture", s->architecture, sizeof s->architecture);
    copy_text(g, "general.name", s->name, sizeof s->name);
    s->version = gguf_version(g);
    s->files = gguf_file_count(g);
    s->keys = gguf_key_count(g);
    s->file_bytes = gguf_file_bytes(g);
    read_shape(g, s);
    count_tensors(g, s);
    name_file_type(g, s);
    *out = s;
    return 0;
}

void inspect_free(struct inspect_summary *s)
{
    if (!s)
        return;
    mem_free(s->types);
    mem_free(s->block);
    mem_free(s);
}
