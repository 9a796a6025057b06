/* The frame coders' arena, version check and texts. Owns only what an arena holds; any thread. */
#include "proto/wire.h"

#include <string.h>

#include "base/memory.h"
#include "proto/frame.h"

struct wire_chunk {
    struct wire_chunk *next;
    size_t pad; /* keeps data 16-byte aligned */
    char data[];
};

void *wire_arena_take(struct wire_arena *a, size_t count, size_t bytes_each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, bytes_each, &bytes) || bytes > WIRE_BUDGET - a->spent) {
        a->failed = ERR_BOUND;
        return NULL;
    }
    bytes = (bytes + 15) / 16 * 16;
    if (bytes > a->left) {
        size_t chunk_bytes = bytes > 65536 ? bytes : 65536;
        struct wire_chunk *c = mem_alloc(sizeof *c + chunk_bytes);
        if (!c) {
            a->failed = ERR_NOMEM;
            return NULL;
        }
        c->next = a->chunks;
        a->chunks = c;
        a->at = c->data;
        a->left = chunk_bytes;
    }
    void *p = a->at;
    a->at += bytes;
    a->left -= bytes;
    a->spent = a->spent + bytes > WIRE_BUDGET ? WIRE_BUDGET : a->spent + bytes;
    memset(p, 0, bytes);
    return p;
}

static void *arena_alloc(void *context, size_t bytes)
{
    return wire_arena_take(context, 1, bytes);
}

static void arena_free(void *context, void *p)
{
    (void)context;
    (void)p;
}

void wire_arena_start(struct wire_arena *a)
{
    a->allocator = (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_free, .allocator_data = a};
    a->chunks = NULL;
    a->at = a->first;
    a->left = sizeof a->first;
    a->spent = 0;
    a->failed = 0;
}

void wire_arena_end(struct wire_arena *a)
{
    while (a->chunks) {
        struct wire_chunk *c = a->chunks;
        a->chunks = c->next;
        mem_free(c);
    }
}

/* Field 1 of a message, a varint, wherever it stands; the last one counts. False: the bytes are no protobuf. */
static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 127u) << shift;
        if (byte < 128) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool scan_version(const void *bytes, size_t size, uint64_t *version)
{
    const uint8_t *at = bytes, *end = at + size;
    *version = 0;
    while (at < end) {
        uint64_t tag, value;
        if (!read_varint(&at, end, &tag))
            return false;
        size_t skip = 0;
        switch (tag & 7) {
        case 0:
            if (!read_varint(&at, end, &value))
                return false;
            if (tag >> 3 == 1)
                *version = value;
            break;
        case 1:
            skip = 8;
            break;
        case 2:
            if (!read_varint(&at, end, &value) || value > (size_t)(end - at))
                return false;
            skip = (size_t)value;
            break;
        case 5:
            skip = 4;
            break;
        default:
            return false;
        }
        if (skip > (size_t)(end - at))
            return false;
        at += skip;
    }
    return true;
}

int wire_unpack(struct wire_arena *a, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size,
                const char *what, ProtobufCMessage **out, struct error *err)
{
    uint64_t version;
    if (size > FRAME_HEADER_BYTES_MAX)
        return error_set(err, ERR_BOUND, "%s: header of %zu bytes; the limit is %u", what, size,
                         FRAME_HEADER_BYTES_MAX);
    if (!size || !scan_version(bytes, size, &version))
        return error_set(err, ERR_FORMAT, "%s: its %zu bytes are no protocol message", what, size);
    if (version != PROTOCOL_VERSION)
        return error_set(err, ERR_VERSION,
                         "%s: the peer speaks protocol version %llu, this program version %u; install the same "
                         "release on every node",
                         what, (unsigned long long)version, PROTOCOL_VERSION);
    ProtobufCMessage *m = protobuf_c_message_unpack(type, &a->allocator, size, bytes);
    if (!m && a->failed == ERR_NOMEM)
        return error_set(err, ERR_NOMEM, "%s: out of memory", what);
    if (!m && a->failed)
        return error_set(err, ERR_BOUND, "%s: header of %zu bytes unpacks to more than %zu", what, size, WIRE_BUDGET);
    if (!m)
        return error_set(err, ERR_FORMAT, "%s: header of %zu bytes is malformed", what, size);
    *out = m;
    return 0;
}

int wire_pack(const ProtobufCMessage *m, struct buffer *out, const char *what, struct error *err)
{
    size_t size = protobuf_c_message_get_packed_size(m);
    if (size > FRAME_HEADER_BYTES_MAX)
        return error_set(err, ERR_BOUND, "%s: header of %zu bytes; the limit is %u", what, size,
                         FRAME_HEADER_BYTES_MAX);
    char *at = buffer_reserve(out, size);
    if (!at)
        return error_set(err, out->failed, "%s: no room for a header of %zu bytes", what, size);
    out->size += protobuf_c_message_pack(m, (uint8_t *)at);
    return 0;
}

void *wire_carve(struct wire_carver *c, size_t count, size_t bytes_each)
{
    size_t at = (c->used + 15) / 16 * 16;
    c->used = at + count * bytes_each;
    return c->base ? c->base + at : NULL;
}

int wire_text(char *out, size_t size, const char *text, const char *what, struct error *err)
{
    size_t n = text ? strlen(text) : 0;
    if (n >= size)
        return error_set(err, ERR_BOUND, "%s is %zu bytes long; the limit is %zu", what, n, size - 1);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 32 || text[i] == 127)
            return error_set(err, ERR_FORMAT, "%s holds a control character", what);
    if (n)
        memcpy(out, text, n);
    out[n] = 0;
    return 0;
}

void wire_prose(char *out, size_t size, const char *text)
{
    size_t n = text ? strnlen(text, size - 1) : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? ' ' : text[i];
    out[n] = 0;
}
