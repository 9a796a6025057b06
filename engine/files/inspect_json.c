/* A summary as JSON. Owns nothing. */
#include "engine/files/inspect.h"

#include <jansson.h>
#include <string.h>

#include "engine/files/gguf_internal.h"

/* Sets a key and remembers a failure. json_object_set_new takes the value also when it fails. */
static void set(json_t *object, const char *key, json_t *value, int *failed)
{
    *failed |= json_object_set_new(object, key, value) != 0;
}

static void set_known(json_t *object, const char *key, int64_t value, int *failed)
{
    if (value >= 0)
        set(object, key, json_integer(value), failed);
}

/* Names are bytes; those that are no UTF-8 are shown with question marks. */
static json_t *text_json(const char *text)
{
    char shown[GGUF_SHOWN];
    json_t *value = json_string(text);
    return value ? value : json_string(gguf_shown((struct gguf_text){text, strlen(text)}, shown));
}

static json_t *types_json(const struct inspect_summary *s, int *failed)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < s->type_count; i++) {
        const struct inspect_part *part = &s->types[i].part;
        json_t *row =
            json_pack("{s:s, s:I, s:I, s:I}", "type", type_name(s->types[i].type), "tensors", (json_int_t)part->tensors,
                      "parameters", (json_int_t)part->parameters, "bytes", (json_int_t)part->bytes);
        *failed |= json_array_append_new(list, row) != 0;
    }
    return list;
}

static json_t *blocks_json(const struct inspect_summary *s, int *failed)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < s->block_count; i++)
        *failed |= json_array_append_new(list, json_integer((json_int_t)s->block[i].bytes)) != 0;
    return list;
}

static json_t *tensors_json(const struct gguf *g, int *failed)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        json_t *shape = json_array();
        for (uint32_t d = 0; d < t->dims; d++)
            *failed |= json_array_append_new(shape, json_integer((json_int_t)t->shape[d])) != 0;
        json_t *row = json_pack("{s:o, s:s, s:o, s:I}", "name", text_json(t->name), "type", type_name(t->type), "shape",
                                shape, "bytes", (json_int_t)t->bytes);
        *failed |= json_array_append_new(list, row) != 0;
    }
    return list;
}

json_t *inspect_json(const struct gguf *g, const struct inspect_summary *s)
{
    int failed = 0;
    json_t *o = json_object();
    if (!o)
        return NULL;
    set(o, "architecture", json_string(s->architecture), &failed);
    set(o, "name", json_string(s->name), &failed);
    set(o, "file_type", json_string(s->file_type), &failed);
    set(o, "gguf_version", json_integer(s->version), &failed);
    set(o, "files", json_integer(s->files), &failed);
    set(o, "file_bytes", json_integer((json_int_t)s->file_bytes), &failed);
    set(o, "blocks", json_integer(s->blocks >= 0 ? s->blocks : (json_int_t)s->block_count), &failed);
    set(o, "parameters", json_integer((json_int_t)s->all.parameters), &failed);
    set(o, "tensor_bytes", json_integer((json_int_t)s->all.bytes), &failed);
    set(o, "bits_per_weight", json_real(s->bits_per_weight), &failed);
    set_known(o, "context_length", s->context_tokens, &failed);
    set_known(o, "embedding_length", s->width, &failed);
    set_known(o, "head_count", s->heads, &failed);
    set_known(o, "head_count_kv", s->kv_heads, &failed);
    set_known(o, "head_length", s->head_width, &failed);
    set_known(o, "feed_forward_length", s->feed_forward, &failed);
    set_known(o, "expert_count", s->experts, &failed);
    set_known(o, "expert_used_count", s->experts_used, &failed);
    set_known(o, "vocab_size", s->vocabulary, &failed);
    set(o, "types", types_json(s, &failed), &failed);
    set(o, "block_bytes", blocks_json(s, &failed), &failed);
    set(o, "embedding_bytes", json_integer((json_int_t)s->embedding.bytes), &failed);
    set(o, "head_bytes", json_integer((json_int_t)s->head.bytes), &failed);
    set(o, "other_bytes", json_integer((json_int_t)s->other.bytes), &failed);
    set(o, "tensors", tensors_json(g, &failed), &failed);
    if (failed) {
        json_decref(o);
        return NULL;
    }
    return o;
}
