/* Private to proto/: what the frame coders share. protobuf-c's memory comes from an arena with a budget, so that no
 * header, however crafted, makes us allocate more than WIRE_BUDGET; a decoded frame is then copied into one
 * allocation of the caller's. Pure; any thread (an arena belongs to one call). */
#ifndef BRIGADE_PROTO_WIRE_H
#define BRIGADE_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/buffer.h"
#include "base/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian and read in place");

#define WIRE_BUDGET ((size_t)32 << 20) /* unpacked form of the largest header within the bounds, twice over */

struct wire_arena {
    ProtobufCAllocator allocator; /* hands out from this arena; freeing does nothing */
    struct wire_chunk *chunks;    /* heap blocks after the first */
    char *at;
    size_t left, spent;
    int failed;                   /* 0, ERR_NOMEM or ERR_BOUND: why an allocation was refused */
    _Alignas(16) char first[6144];
};

void wire_arena_start(struct wire_arena *a);
void wire_arena_end(struct wire_arena *a);
/* Zeroed, 16-byte aligned; NULL over the budget or without memory. Never NULL for count 0. */
void *wire_arena_take(struct wire_arena *a, size_t count, size_t bytes_each);

/* Checks size and protocol version, then unpacks into the arena. `what` starts messages ("data frame"). The version is
 * read first, by hand, so that a frame of another version is named as such whatever else it holds. */
int wire_unpack(struct wire_arena *a, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size,
                const char *what, ProtobufCMessage **out, struct error *err);
/* Appends the packed message to out; ERR_BOUND over FRAME_HEADER_BYTES_MAX. */
int wire_pack(const ProtobufCMessage *m, struct buffer *out, const char *what, struct error *err);

/* Cuts the pieces of a decoded frame from its one allocation. First pass with base NULL only measures. */
struct wire_carver {
    char *base;
    size_t used;
};
void *wire_carve(struct wire_carver *c, size_t count, size_t bytes_each);

/* Copies text into out[size]. ERR_BOUND when it does not fit, ERR_FORMAT when it holds control characters: what a peer
 * sends goes to logs and terminals. */
int wire_text(char *out, size_t size, const char *text, const char *what, struct error *err);
/* The same for words that are only for people: cut to fit, control characters replaced, never an error. */
void wire_prose(char *out, size_t size, const char *text);

#endif
