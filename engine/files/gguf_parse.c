/* One GGUF file's bytes into keys and tensors. Every field is proven inside the file, and every count proven small
 * enough for the bytes that follow it, before either is used; so the work is linear in the size of the directory.
 * Layout (v2 and v3): "GGUF", u32 version, u64 tensors, u64 keys; keys: name, u32 type, value; tensors: name,
 * u32 dims, u64 shape[dims], u32 type, u64 offset; padding to the alignment; tensor data. A string is u64 length and
 * bytes. Source: the public GGUF specification. Owns nothing but what it hangs on its struct gguf; no threads. */
#include "engine/files/gguf_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

struct cursor {
    const struct gguf *g;
    const char *path; /* for messages */
    const unsigned char *bytes;
    uint64_t at, size;
    const char *part; /* what is being read, for messages */
    struct error *err;
};

static uint64_t left(const struct cursor *c)
{
    return c->size - c->at;
}

static int cut_short(struct cursor *c, uint64_t needed)
{
    return error_set(c->err, ERR_FORMAT,
                     "%s: %s at byte %llu needs %llu more bytes but only %llu follow; "
                     "the file is incomplete or damaged, fetch it again",
                     c->path, c->part, (unsigned long long)c->at, (unsigned long long)needed,
                     (unsigned long long)left(c));
}

static int take(struct cursor *c, void *out, size_t n)
{
    if (left(c) < n)
        return cut_short(c, n);
    memcpy(out, c->bytes + c->at, n);
    c->at += n;
    return 0;
}

static int take_text(struct cursor *c, uint64_t longest, struct gguf_text *out)
{
    uint64_t n = 0;
    int rc = take(c, &n, sizeof n);
    if (rc)
        return rc;
    if (n > left(c))
        return cut_short(c, n);
    if (n > longest)
        return error_set(c->err, ERR_FORMAT, "%s: %s at byte %llu is %llu bytes long, more than the %llu allowed",
                         c->path, c->part, (unsigned long long)c->at, (unsigned long long)n,
                         (unsigned long long)longest);
    *out = (struct gguf_text){(const char *)c->bytes + c->at, n};
    c->at += n;
    return 0;
}

/* Says what a file that is no GGUF is, for the mistakes people make. */
static int not_gguf(struct cursor *c)
{
    static const struct {
        const char *start, *what;
    } known[] = {
        {"lmgg", "an unversioned GGML file, a format given up in 2023; convert the original model to GGUF"},
        {"ggml", "an unversioned GGML file, a format given up in 2023; convert the original model to GGUF"},
        {"fmgg", "a GGMF file, a format given up in 2023; convert the original model to GGUF"},
        {"ggmf", "a GGMF file, a format given up in 2023; convert the original model to GGUF"},
        {"tjgg", "a GGJT file, a format given up in 2023; convert the original model to GGUF"},
        {"ggjt", "a GGJT file, a format given up in 2023; convert the original model to GGUF"},
        {"algg", "a GGLA adapter, not a model; convert it to GGUF"},
        {"ggla", "a GGLA adapter, not a model; convert it to GGUF"},
        {"FUGG", "a GGUF file with its bytes reversed, as a big-endian machine writes; convert the model again"},
        {"PK\003\004", "a zip archive or PyTorch checkpoint; convert the model to GGUF"},
        {"version https://git-lfs", "a Git LFS pointer, not the model itself; fetch the real file"},
        {"<!DOCTYPE", "a web page, not a model; fetch the file itself"},
        {"<html", "a web page, not a model; fetch the file itself"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].start);
        if (c->size >= n && !memcmp(c->bytes, known[i].start, n))
            return error_set(c->err, ERR_FORMAT, "%s: this is %s", c->path, known[i].what);
    }
    if (c->size >= 9 && c->bytes[8] == '{' && c->bytes[7] == 0 && c->bytes[6] == 0)
        return error_set(c->err, ERR_FORMAT, "%s: this looks like a safetensors file; convert the model to GGUF",
                         c->path);
    return error_set(c->err, ERR_FORMAT, "%s: this is not a GGUF file (it does not start with \"GGUF\")", c->path);
}

static int parse_header(struct cursor *c, uint32_t *version, uint64_t *tensors, uint64_t *keys)
{
    c->part = "the header";
    if (c->size < 4 || memcmp(c->bytes, "GGUF", 4))
        return not_gguf(c);
    c->at = 4;
    int rc = take(c, version, sizeof *version);
    if (rc)
        return rc;
    if (*version > 0xffff && __builtin_bswap32(*version) <= 0xffff)
        return error_set(
            c->err, ERR_UNSUPPORTED,
            "%s: this is a big-endian GGUF file (version %u); convert the model for little-endian machines", c->path,
            __builtin_bswap32(*version));
    if (*version != 2 && *version != 3)
        return error_set(c->err, ERR_UNSUPPORTED, "%s: GGUF version %u is not supported, only 2 and 3; %s", c->path,
                         *version, *version < 2 ? "convert the model again" : "a newer brigade may read it");
    if ((rc = take(c, tensors, sizeof *tensors)) || (rc = take(c, keys, sizeof *keys)))
        return rc;
    /* The smallest key is a name of one byte, a type and a value of one byte; a tensor has one dimension at least. */
    if (*keys > GGUF_KEYS_MAX || *keys > left(c) / (8 + 1 + 4 + 1))
        return error_set(c->err, ERR_FORMAT, "%s: the header announces %llu keys, more than %s; the file is damaged",
                         c->path, (unsigned long long)*keys,
                         *keys > GGUF_KEYS_MAX ? "any model has" : "its bytes can hold");
    if (*tensors > GGUF_TENSORS_MAX || *tensors > left(c) / (8 + 1 + 4 + 8 + 4 + 8))
        return error_set(c->err, ERR_FORMAT, "%s: the header announces %llu tensors, more than %s; the file is damaged",
                         c->path, (unsigned long long)*tensors,
                         *tensors > GGUF_TENSORS_MAX ? "any model has" : "its bytes can hold");
    return 0;
}

static int check_bools(struct cursor *c, const struct gguf_key *key, const char *shown)
{
    const unsigned char *at = key->data;
    for (uint64_t i = 0; i < key->count; i++)
        if (at[i] > 1)
            return error_set(c->err, ERR_FORMAT,
                             "%s: key '%s' holds %u where a bool must be 0 or 1; the file is damaged", c->path, shown,
                             at[i]);
    return 0;
}

/* A key's value, from its type on: sets element, count and data, and leaves the cursor behind it. */
static int parse_value(struct cursor *c, struct gguf_key *key, const char *shown)
{
    int rc;
    enum gguf_type type = key->type;
    key->element = type;
    key->count = 1;
    if (type == GGUF_ARRAY) {
        uint32_t element = 0;
        if ((rc = take(c, &element, sizeof element)) || (rc = take(c, &key->count, sizeof key->count)))
            return rc;
        if (element == GGUF_ARRAY)
            return error_set(c->err, ERR_UNSUPPORTED, "%s: key '%s' is an array of arrays, which no model needs",
                             c->path, shown);
        if (element >= GGUF_TYPES)
            return error_set(c->err, ERR_FORMAT, "%s: key '%s' is an array of unknown type %u; the file is damaged",
                             c->path, shown, element);
        type = key->element = (enum gguf_type)element;
    }
    key->data = c->bytes + c->at;
    if (type == GGUF_STRING) {
        if (key->count > left(c) / 8)
            return error_set(c->err, ERR_FORMAT,
                             "%s: key '%s' announces %llu strings but only %llu bytes follow; "
                             "the file is incomplete or damaged, fetch it again",
                             c->path, shown, (unsigned long long)key->count, (unsigned long long)left(c));
        struct gguf_text text;
        for (uint64_t i = 0; i < key->count; i++)
            if ((rc = take_text(c, GGUF_TEXT_MAX, &text)))
                return rc;
        return 0;
    }
    size_t each = gguf_scalar_bytes(type);
    if (key->count > left(c) / each)
        return error_set(c->err, ERR_FORMAT,
                         "%s: key '%s' announces %llu values of type %s but only %llu bytes follow; "
                         "the file is incomplete or damaged, fetch it again",
                         c->path, shown, (unsigned long long)key->count, gguf_type_text(type),
                         (unsigned long long)left(c));
    c->at += key->count * each;
    return type == GGUF_BOOL ? check_bools(c, key, shown) : 0;
}

static int parse_key(struct cursor *c, struct gguf_key *key)
{
    c->part = "the name of a key";
    int rc = take_text(c, GGUF_KEY_NAME_MAX, &key->name);
    if (rc)
        return rc;
    char shown[GGUF_SHOWN], part[GGUF_SHOWN + 16];
    gguf_shown(key->name, shown);
    if (!key->name.size || memchr(key->name.data, 0, key->name.size))
        return error_set(c->err, ERR_FORMAT, "%s: a key has no valid name ('%s'); the file is damaged", c->path, shown);
    snprintf(part, sizeof part, "key '%s'", shown);
    c->part = part;
    uint32_t type = 0;
    if ((rc = take(c, &type, sizeof type)))
        return rc;
    if (type >= GGUF_TYPES)
        return error_set(c->err, ERR_FORMAT, "%s: key '%s' has unknown type %u; the file is damaged", c->path, shown,
                         type);
    key->type = (enum gguf_type)type;
    rc = parse_value(c, key, shown);
    c->part = "a key";
    return rc;
}

/* Why a tensor's type cannot be read: withdrawn from the format, or never in it. */
static int bad_tensor_type(struct cursor *c, const char *name, uint32_t type)
{
    bool withdrawn = type == 4 || type == 5 || (type >= 31 && type <= 33) || (type >= 36 && type <= 38);
    return error_set(c->err, withdrawn ? ERR_UNSUPPORTED : ERR_FORMAT, "%s: tensor '%s' has type %u, %s", c->path, name,
                     type,
                     withdrawn ? "which was withdrawn from the format; quantise the model again"
                               : "which is unknown; the file is damaged or newer than this brigade");
}

/* The tensor's shape into bytes: product and row size without overflow. */
static int check_shape(struct cursor *c, struct gguf_tensor *t)
{
    const struct type_info *info = type_info(t->type);
    if (!info)
        return bad_tensor_type(c, t->name, t->type);
    uint64_t values = 1;
    for (uint32_t i = 0; i < t->dims; i++) {
        if (!t->shape[i])
            return error_set(c->err, ERR_FORMAT, "%s: dimension %u of tensor '%s' is 0; the file is damaged", c->path,
                             i, t->name);
        if (__builtin_mul_overflow(values, t->shape[i], &values) || values > INT64_MAX)
            return error_set(c->err, ERR_FORMAT,
                             "%s: the dimensions of tensor '%s' multiply to more than 2^63 values; "
                             "the file is damaged",
                             c->path, t->name);
    }
    if (t->shape[0] % info->block_values)
        return error_set(c->err, ERR_FORMAT,
                         "%s: tensor '%s' has rows of %llu values, no multiple of the %u in a block of %s; "
                         "the file is damaged",
                         c->path, t->name, (unsigned long long)t->shape[0], info->block_values, info->name);
    uint64_t row = type_row_bytes(t->type, t->shape[0]);
    if (!row || __builtin_mul_overflow(row, values / t->shape[0], &t->bytes) || t->bytes > INT64_MAX)
        return error_set(c->err, ERR_FORMAT, "%s: tensor '%s' would take more than 2^63 bytes; the file is damaged",
                         c->path, t->name);
    return 0;
}

/* A tensor's entry; its offset is still relative to the data section. */
static int parse_tensor(struct cursor *c, struct gguf_tensor *t)
{
    c->part = "the name of a tensor";
    struct gguf_text name;
    int rc = take_text(c, sizeof t->name - 1, &name);
    if (rc)
        return rc;
    if (!name.size || memchr(name.data, 0, name.size)) {
        char shown[GGUF_SHOWN];
        return error_set(c->err, ERR_FORMAT, "%s: a tensor has no valid name ('%s'); the file is damaged", c->path,
                         gguf_shown(name, shown));
    }
    for (size_t i = 0; i < name.size; i++)
        if ((unsigned char)name.data[i] < ' ' || name.data[i] == 127) {
            char shown[GGUF_SHOWN];
            return error_set(c->err, ERR_FORMAT,
                             "%s: the name of tensor '%s' holds control characters; "
                             "the file is damaged",
                             c->path, gguf_shown(name, shown));
        }
    memcpy(t->name, name.data, name.size);
    t->name[name.size] = 0;
    c->part = "the entry of a tensor";
    if ((rc = take(c, &t->dims, sizeof t->dims)))
        return rc;
    if (t->dims < 1 || t->dims > 4)
        return error_set(c->err, ERR_FORMAT,
                         "%s: tensor '%s' has %u dimensions where 1 to 4 are possible; "
                         "the file is damaged",
                         c->path, t->name, t->dims);
    for (int i = 0; i < 4; i++)
        t->shape[i] = 1;
    if ((rc = take(c, t->shape, t->dims * sizeof *t->shape)) || (rc = take(c, &t->type, sizeof t->type)) ||
        (rc = take(c, &t->offset, sizeof t->offset)))
        return rc;
    return check_shape(c, t);
}

static int read_alignment(struct gguf *g, struct cursor *c, uint64_t *alignment)
{
    uint32_t value = 32;
    int rc = gguf_get_u32(g, "general.alignment", &value, c->err);
    if (rc < 0)
        return rc;
    if (value < 8 || value > GGUF_ALIGNMENT_MAX || (value & (value - 1)))
        return error_set(c->err, ERR_FORMAT,
                         "%s: general.alignment is %u, not a power of two from 8 to %u; "
                         "convert the model again",
                         c->path, value, GGUF_ALIGNMENT_MAX);
    *alignment = value;
    return 0;
}

/* Where each tensor's bytes lie, all inside the file. The data section starts behind the directory, aligned. */
static int place_tensors(struct gguf *g, struct cursor *c, uint64_t alignment)
{
    uint64_t start = (c->at + alignment - 1) / alignment * alignment; /* no overflow: at is within a file */
    for (size_t i = 0; i < g->tensor_count; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        if (t->offset % alignment)
            return error_set(c->err, ERR_FORMAT,
                             "%s: tensor '%s' starts at offset %llu, no multiple of the alignment "
                             "%llu; the file is damaged",
                             c->path, t->name, (unsigned long long)t->offset, (unsigned long long)alignment);
        uint64_t first, end;
        if (__builtin_add_overflow(start, t->offset, &first) || __builtin_add_overflow(first, t->bytes, &end))
            return error_set(c->err, ERR_FORMAT,
                             "%s: tensor '%s' starts at offset %llu, beyond any file; "
                             "the file is damaged",
                             c->path, t->name, (unsigned long long)t->offset);
        if (end > c->size)
            return error_set(c->err, ERR_FORMAT,
                             "%s: tensor '%s' ends at byte %llu but the file has %llu; "
                             "the download is incomplete, fetch it again",
                             c->path, t->name, (unsigned long long)end, (unsigned long long)c->size);
        t->offset = first;
        t->data = c->bytes + first;
    }
    return 0;
}

int gguf_parse(struct gguf *g, struct error *err)
{
    struct cursor c = {
        .path = gguf_path_shown(g->files[0].path), .bytes = g->files[0].bytes, .size = g->files[0].size, .err = err};
    uint64_t tensors = 0, keys = 0, alignment = 32;
    int rc = parse_header(&c, &g->version, &tensors, &keys);
    if (rc)
        return rc;
    g->keys = mem_zalloc(keys, sizeof *g->keys);
    g->tensors = mem_zalloc(tensors, sizeof *g->tensors);
    if (!g->keys || !g->tensors || gguf_index_start(&g->key_index, keys))
        return error_set(err, ERR_NOMEM, "%s: out of memory for the directory of the file", c.path);
    for (uint64_t i = 0; i < keys; i++) {
        if ((rc = parse_key(&c, &g->keys[i])))
            return rc;
        g->key_count++;
        if (!gguf_index_add_key(g, i)) {
            char shown[GGUF_SHOWN];
            return error_set(err, ERR_FORMAT, "%s: key '%s' is there twice; the file is damaged", c.path,
                             gguf_shown(g->keys[i].name, shown));
        }
    }
    if ((rc = read_alignment(g, &c, &alignment)))
        return rc;
    for (uint64_t i = 0; i < tensors; i++) {
        if ((rc = parse_tensor(&c, &g->tensors[i])))
            return rc;
        g->tensor_count++;
    }
    return place_tensors(g, &c, alignment);
}
