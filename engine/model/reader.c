/* Bounded reads of metadata. Owns nothing; any thread. */
#include "engine/model/reader.h"

#include <stdio.h>

const char *reader_key(struct reader *r, const char *name)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, name);
    return r->key;
}

int reader_u32(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    uint32_t value = 0;
    int got = gguf_get_u32(r->g, reader_key(r, name), &value, r->err);
    if (got <= 0)
        return got;
    if (value < min || value > max)
        return error_set(r->err, ERR_FORMAT, "%s: %s is %u, but %u to %u make sense; the file is damaged or made wrong",
                         gguf_path(r->g), r->key, value, min, max);
    *out = value;
    return 1;
}

int reader_need_u32(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    int got = reader_u32(r, name, min, max, out);
    if (got == 0)
        return error_set(r->err, ERR_FORMAT, "%s: metadata lacks %s; convert the model again", gguf_path(r->g), r->key);
    return got;
}

int reader_double(struct reader *r, const char *name, double min, double max, double *out)
{
    float value = 0;
    int got = gguf_get_f32(r->g, reader_key(r, name), &value, r->err);
    if (got <= 0)
        return got;
    if (!(value >= min && value <= max))
        return error_set(r->err, ERR_FORMAT, "%s: %s is %g, but %g to %g make sense; the file is damaged or made wrong",
                         gguf_path(r->g), r->key, value, min, max);
    *out = value;
    return 1;
}

int reader_f32(struct reader *r, const char *name, double min, double max, float *out)
{
    double value = 0;
    int got = reader_double(r, name, min, max, &value);
    if (got > 0)
        *out = (float)value;
    return got;
}

int reader_per_block(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t blocks, uint32_t *first,
                     size_t stride)
{
    const struct gguf_key *k = gguf_find(r->g, reader_key(r, name));
    uint32_t one = 0;
    if (!k)
        return 0;
    if (k->type != GGUF_ARRAY) {
        int got = reader_u32(r, name, min, max, &one);
        for (uint32_t b = 0; got > 0 && b < blocks; b++)
            *(uint32_t *)((char *)first + b * stride) = one;
        return got;
    }
    if (k->count < blocks || k->element == GGUF_STRING || k->element == GGUF_ARRAY)
        return error_set(r->err, ERR_FORMAT, "%s: %s must hold %u numbers, one a block", gguf_path(r->g), r->key,
                         blocks);
    for (uint32_t b = 0; b < blocks; b++) {
        int64_t v = gguf_array_int(k, b);
        if (v < (int64_t)min || v > (int64_t)max)
            return error_set(r->err, ERR_FORMAT, "%s: %s of block %u is %lld, but %u to %u make sense", gguf_path(r->g),
                             r->key, b, (long long)v, min, max);
        *(uint32_t *)((char *)first + b * stride) = (uint32_t)v;
    }
    return 1;
}
