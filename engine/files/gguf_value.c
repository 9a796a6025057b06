/* Typed reading of GGUF keys: widening, range checks, messages. Reads only what gguf_parse has proven. Any thread. */
#include "engine/files/gguf_internal.h"

#include <math.h>
#include <string.h>

size_t gguf_scalar_bytes(enum gguf_type type)
{
    static const unsigned char bytes[GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return bytes[type];
}

const char *gguf_type_text(uint32_t type)
{
    static const char *const texts[GGUF_TYPES] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                  "bool", "string", "array", "u64", "i64", "f64"};
    return type < GGUF_TYPES ? texts[type] : "an unknown type";
}

const char *gguf_shown(struct gguf_text text, char shown[static GGUF_SHOWN])
{
    size_t n = text.size < GGUF_SHOWN - 4 ? text.size : GGUF_SHOWN - 4;
    for (size_t i = 0; i < n; i++)
        shown[i] = text.data[i] >= ' ' && text.data[i] <= '~' ? text.data[i] : '?';
    memcpy(shown + n, n < text.size ? "..." : "", n < text.size ? 4 : 1);
    return shown;
}

const char *gguf_path_shown(const char *path)
{
    size_t n = strlen(path);
    return n > 200 ? path + n - 200 : path;
}

static bool is_integer(enum gguf_type type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

/* Integers widen to int64_t; a U64 over INT64_MAX stops there. Floats are cut toward zero. */
static int64_t read_int(enum gguf_type type, const unsigned char *at)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL:
        return *at;
    case GGUF_I8:
        return (int8_t)*at;
    case GGUF_U16: {
        uint16_t v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    case GGUF_I16: {
        int16_t v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    case GGUF_U32: {
        uint32_t v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    case GGUF_I32: {
        int32_t v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    case GGUF_U64: {
        uint64_t v;
        memcpy(&v, at, sizeof v);
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
    case GGUF_I64: {
        int64_t v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    default:
        return 0;
    }
}

static double read_float(enum gguf_type type, const unsigned char *at)
{
    if (type == GGUF_F32) {
        float v;
        memcpy(&v, at, sizeof v);
        return (double)v;
    }
    if (type == GGUF_F64) {
        double v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    return (double)read_int(type, at);
}

int64_t gguf_array_int(const struct gguf_key *key, uint64_t i)
{
    enum gguf_type type = key->type == GGUF_ARRAY ? key->element : key->type;
    size_t each = gguf_scalar_bytes(type);
    if (!each || i >= key->count)
        return 0;
    const unsigned char *at = (const unsigned char *)key->data + i * each;
    if (type != GGUF_F32 && type != GGUF_F64)
        return read_int(type, at);
    double v = read_float(type, at);
    if (isnan(v))
        return 0;
    return v >= 0x1p63 ? INT64_MAX : v < -0x1p63 ? INT64_MIN : (int64_t)v;
}

double gguf_array_float(const struct gguf_key *key, uint64_t i)
{
    enum gguf_type type = key->type == GGUF_ARRAY ? key->element : key->type;
    size_t each = gguf_scalar_bytes(type);
    if (!each || i >= key->count)
        return 0;
    return read_float(type, (const unsigned char *)key->data + i * each);
}

int gguf_array_strings(const struct gguf_key *key, int (*visit)(void *context, uint64_t i, struct gguf_text text),
                       void *context)
{
    bool is_text = key->type == GGUF_STRING || (key->type == GGUF_ARRAY && key->element == GGUF_STRING);
    const char *at = key->data;
    for (uint64_t i = 0; is_text && i < key->count; i++) {
        uint64_t size;
        memcpy(&size, at, sizeof size);
        int result = visit(context, i, (struct gguf_text){at + sizeof size, size});
        if (result)
            return result;
        at += sizeof size + size;
    }
    return 0;
}

static int wrong_type(const struct gguf *g, const struct gguf_key *key, const char *wanted, struct error *err)
{
    char name[GGUF_SHOWN];
    return error_set(err, ERR_FORMAT, "%s: key '%s' is of type %s where %s is needed; convert the model again",
                     gguf_path_shown(g->path), gguf_shown(key->name, name), gguf_type_text(key->type), wanted);
}

int gguf_get_u32(const struct gguf *g, const char *name, uint32_t *out, struct error *err)
{
    const struct gguf_key *key = gguf_find(g, name);
    if (!key)
        return 0;
    if (!is_integer(key->type))
        return wrong_type(g, key, "a whole number", err);
    int64_t value = read_int(key->type, key->data);
    if (value < 0 || value > UINT32_MAX)
        return error_set(err, ERR_FORMAT, "%s: key '%s' is %lld, outside 0 to %u; convert the model again",
                         gguf_path_shown(g->path), name, (long long)value, UINT32_MAX);
    *out = (uint32_t)value;
    return 1;
}

int gguf_get_f32(const struct gguf *g, const char *name, float *out, struct error *err)
{
    const struct gguf_key *key = gguf_find(g, name);
    if (!key)
        return 0;
    if (key->type != GGUF_F32 && key->type != GGUF_F64 && !is_integer(key->type))
        return wrong_type(g, key, "a number", err);
    double value = read_float(key->type, key->data);
    if (isfinite(value) && isinf((float)value))
        return error_set(err, ERR_FORMAT, "%s: key '%s' is %g, too large for a 32-bit float; convert the model again",
                         gguf_path_shown(g->path), name, value);
    *out = (float)value;
    return 1;
}

int gguf_get_bool(const struct gguf *g, const char *name, bool *out, struct error *err)
{
    const struct gguf_key *key = gguf_find(g, name);
    if (!key)
        return 0;
    if (key->type != GGUF_BOOL)
        return wrong_type(g, key, "a bool", err);
    *out = *(const unsigned char *)key->data != 0;
    return 1;
}

int gguf_get_text(const struct gguf *g, const char *name, struct gguf_text *out, struct error *err)
{
    const struct gguf_key *key = gguf_find(g, name);
    if (!key)
        return 0;
    if (key->type != GGUF_STRING)
        return wrong_type(g, key, "a string", err);
    uint64_t size;
    memcpy(&size, key->data, sizeof size);
    *out = (struct gguf_text){(const char *)key->data + sizeof size, size};
    return 1;
}
