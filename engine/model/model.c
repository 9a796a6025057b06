/* Opening a model: metadata, tensors, what it costs. Owns the GGUF handle and small tables; touches no weights.
 * Immutable after model_open; any thread. */
#include "engine/model/model.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/model_internal.h"
#include "engine/model/weights.h"

struct digest {
    uint64_t value;
};

static void digest_bytes(struct digest *d, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t word;
    for (; n >= sizeof word; n -= sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        d->value = hash_mix64(d->value ^ word) + n;
    }
    for (word = n; n; n--)
        word = word << 8 | *p++;
    d->value = hash_mix64(d->value ^ word);
}

static int digest_string(void *context, uint64_t i, struct gguf_text text)
{
    (void)i;
    digest_bytes(context, text.data, text.size);
    return 0;
}

static size_t scalar_bytes(enum gguf_type type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    case GGUF_STRING:
    case GGUF_ARRAY:
    case GGUF_TYPES:
        break;
    }
    return 0;
}

/* Equal files agree: names, types and values of all keys, names, types and shapes of all tensors. */
static uint64_t fingerprint(const struct gguf *g)
{
    struct digest d = {hash_mix64(gguf_tensor_count(g))};
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        const struct gguf_key *k = gguf_key_at(g, i);
        uint64_t head[3] = {k->type, k->element, k->count};
        struct gguf_text text = {0};
        char name[256];
        digest_bytes(&d, k->name.data, k->name.size);
        digest_bytes(&d, head, sizeof head);
        if (k->type == GGUF_STRING) {
            snprintf(name, sizeof name, "%.*s", (int)(k->name.size < 255 ? k->name.size : 255), k->name.data);
            if (gguf_get_text(g, name, &text, NULL) > 0)
                digest_bytes(&d, text.data, text.size);
        } else if (k->type == GGUF_ARRAY && k->element == GGUF_STRING) {
            gguf_array_strings(k, digest_string, &d);
        } else {
            digest_bytes(&d, k->data, (size_t)k->count * scalar_bytes(k->type == GGUF_ARRAY ? k->element : k->type));
        }
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint64_t rest[5] = {t->type, t->shape[0], t->shape[1], t->shape[2], t->shape[3]};
        digest_bytes(&d, t->name, strlen(t->name));
        digest_bytes(&d, rest, sizeof rest);
    }
    return d.value;
}

static void describe(struct model *m)
{
    struct model_info *i = &m->info;
    const struct model_shape *s = &m->shape;
    struct gguf_text text;
    snprintf(i->architecture, sizeof i->architecture, "%s", s->arch->name);
    if (gguf_get_text(m->g, "general.name", &text, NULL) > 0 && text.size) {
        snprintf(i->name, sizeof i->name, "%.*s", (int)(text.size < sizeof i->name ? text.size : sizeof i->name - 1),
                 text.data);
    } else {
        const char *slash = strrchr(gguf_path(m->g), '/');
        snprintf(i->name, sizeof i->name, "%s", slash ? slash + 1 : gguf_path(m->g));
    }
    for (char *c = i->name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
    i->blocks = s->blocks;
    i->width = s->width;
    i->vocabulary = s->vocabulary;
    i->context = s->context;
    i->heads = s->block[0].heads;
    i->kv_heads = s->block[0].kv_heads;
    i->k_dim = s->k_dim;
    i->v_dim = s->v_dim;
    i->feed_forward = s->block[0].mixture ? s->feed_forward_expert : s->block[0].feed_forward;
    i->experts = s->experts;
    i->experts_used = s->experts_used;
    i->tied_head = !m->global[OUTPUT];
    for (size_t t = 0; t < gguf_tensor_count(m->g); t++) {
        const struct gguf_tensor *x = gguf_tensor_at(m->g, t);
        i->parameters += x->shape[0] * x->shape[1] * x->shape[2] * x->shape[3];
        i->weight_bytes += x->bytes;
    }
    i->fingerprint = fingerprint(m->g);
}

static bool same_kind(const struct model *m, uint32_t a, uint32_t b)
{
    if (memcmp(&m->shape.block[a], &m->shape.block[b], sizeof m->shape.block[a]))
        return false;
    for (int slot = 0; slot < SLOTS; slot++) {
        const struct gguf_tensor *x = m->block[a].slot[slot], *y = m->block[b].slot[slot];
        if (!x != !y || (x && x->type != y->type))
            return false;
    }
    return true;
}

static void find_kinds(struct model *m)
{
    uint32_t kinds = 0, first[64];
    for (uint32_t b = 0; b < m->shape.blocks; b++) {
        uint32_t k = 0, seen = kinds < 64 ? kinds : 64;
        while (k < seen && !same_kind(m, first[k], b))
            k++;
        if (k == seen) {
            k = kinds++;
            if (k < 64)
                first[k] = b;
        }
        m->kind[b] = k;
    }
}

int model_from_gguf(struct gguf *g, struct model **out, struct error *err)
{
    int failed = kernels_init(err);
    if (failed)
        return failed;
    struct model *m = mem_zalloc(1, sizeof *m);
    if (!m)
        return error_set(err, ERR_NOMEM, "%s: no memory for the model's description", gguf_path(g));
    m->g = g;
    if ((failed = shape_read(g, &m->shape, err)) < 0)
        goto fail;
    m->block = mem_zalloc(m->shape.blocks, sizeof *m->block);
    m->kind = mem_zalloc(m->shape.blocks, sizeof *m->kind);
    if (!m->block || !m->kind) {
        failed = error_set(err, ERR_NOMEM, "%s: no memory for the model's description", gguf_path(g));
        goto fail;
    }
    if ((failed = tensors_resolve(m, err)) < 0)
        goto fail;
    describe(m);
    find_kinds(m);
    *out = m;
    return 0;
fail:
    m->g = NULL; /* stays the caller's */
    model_close(m);
    return failed;
}

int model_open(const char *path, struct model **out, struct error *err)
{
    struct gguf *g;
    int failed = gguf_open(path, &g, err);
    if (failed)
        return failed;
    failed = model_from_gguf(g, out, err);
    if (failed)
        gguf_close(g);
    return failed;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    gguf_close(m->g);
    mem_free(m->block);
    mem_free(m->kind);
    mem_free(m);
}

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}

const struct gguf *model_gguf(const struct model *m)
{
    return m->g;
}

const struct gguf_tensor *model_head_tensor(const struct model *m)
{
    return m->global[OUTPUT] ? m->global[OUTPUT] : m->global[TOKEN_EMBEDDING];
}

struct block_cost model_block_cost(const struct model *m, uint32_t block, enum kv_type kv)
{
    struct block_cost c = {0};
    if (block >= m->shape.blocks)
        return c;
    const struct model_shape *s = &m->shape;
    struct kv_shape cache = shape_kv(s, block, kv);
    c.weight_bytes = weights_block_bytes(m, block);
    for (int slot = 0; slot < SLOTS; slot++) {
        const struct gguf_tensor *t = m->block[block].slot[slot];
        if (!t)
            continue;
        uint64_t values = t->shape[0] * t->shape[1] * t->shape[2], bytes = t->bytes;
        if (slot >= EXPERTS_GATE && slot <= EXPERTS_DOWN_BIAS) {
            values = values / s->experts * s->experts_used;
            bytes = bytes / s->experts * s->experts_used;
        }
        c.read_bytes += bytes;
        if (slots[slot].kind == SLOT_MATRIX || slots[slot].kind == SLOT_STACK)
            c.flops_per_token += 2 * values;
    }
    c.attention_flops = 2 * (uint64_t)s->block[block].heads * (cache.k_dim + cache.v_dim);
    c.kv_bytes_per_token = kv_page_bytes(&cache) / KV_PAGE_TOKENS;
    c.kind = m->kind[block];
    return c;
}

struct block_cost model_embedding_cost(const struct model *m)
{
    const struct gguf_tensor *t = m->global[TOKEN_EMBEDDING];
    struct block_cost c = {.weight_bytes = weights_embedding_bytes(m)};
    c.read_bytes = type_row_bytes(t->type, t->shape[0]);
    if (m->global[POSITION_EMBEDDING])
        c.read_bytes += type_row_bytes(m->global[POSITION_EMBEDDING]->type, t->shape[0]);
    return c;
}

struct block_cost model_head_cost(const struct model *m)
{
    const struct gguf_tensor *t = model_head_tensor(m);
    struct block_cost c = {.weight_bytes = weights_head_bytes(m, false)};
    c.read_bytes = t->bytes;
    c.flops_per_token = 2 * t->shape[0] * t->shape[1];
    return c;
}
