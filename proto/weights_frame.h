/* Frames of the weights plane: plain structs on this side, bytes on the other, every field checked against the bounds
 * below before anyone sees it. See weights.proto for the meaning of fields and docs/weights.md for the story.
 *
 * A decoded frame owns one allocation (weights_frame_free); `raw` stays the caller's. Pure functions; any thread. */
#ifndef BRIGADE_PROTO_WEIGHTS_FRAME_H
#define BRIGADE_PROTO_WEIGHTS_FRAME_H

#include "proto/frame.h"

#define WEIGHTS_PEERS_MAX 256u
#define WEIGHTS_CHUNKS_MAX (1u << 20)
#define WEIGHTS_HASH_BYTES 32u
#define WEIGHTS_PART_BYTES_MAX (64u << 20) /* a raw part: a chunk, or a list of hashes */

enum weights_kind { WEIGHTS_OFFER, WEIGHTS_ASK, WEIGHTS_HAVE, WEIGHTS_WANT, WEIGHTS_PIECE, WEIGHTS_PAGE_WANT, WEIGHTS_PAGE };

struct weights_peer {
    char endpoint[256], public_key[FRAME_KEY_TEXT];
};

struct weights_frame {
    enum weights_kind kind;
    uint64_t fingerprint;
    uint64_t index;            /* want, piece: which chunk */
    bool manifest;             /* ask, want, piece: it is about the list of hashes */
    bool whole, soon, missing; /* have: all of it; have, page: ask again; piece, page: not to be had */
    bool has_hash;             /* have: manifest_hash is known */
    uint8_t manifest_hash[WEIGHTS_HASH_BYTES];
    const uint8_t *chunks;     /* have: chunk_bytes bytes, one bit a chunk, the lowest first */
    size_t chunk_bytes;
    char model[FRAME_TEXT_MAX]; /* offer */
    char trouble[256];          /* have: why not */
    struct weights_peer *peers; /* offer */
    uint32_t peer_count;
    uint64_t epoch, hash;      /* page_want, page: of the load that moved the block; of the page's tokens */
    uint32_t block, page, kv_type;
    const void *raw;           /* piece, page */
    size_t raw_bytes;
    void *memory;              /* private */
};

/* Appends the header; a piece's raw part the caller sends itself, with exactly raw_bytes. */
int weights_frame_encode(const struct weights_frame *f, struct buffer *header, struct error *err);
/* parts[0] is the header, parts[1] (a piece only) raw. ERR_FORMAT, ERR_BOUND, ERR_VERSION, ERR_NOMEM. On success *out is
 * the caller's: weights_frame_free. */
int weights_frame_decode(const struct frame_part *parts, size_t part_count, struct weights_frame *out,
                         struct error *err);
void weights_frame_free(struct weights_frame *f);

#endif
