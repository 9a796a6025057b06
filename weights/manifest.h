/* The list of a model file's pieces: where each lies and its BLAKE2b-256, so that a file can be taken from anybody in any
 * order and every byte be proven. The header (all before the first tensor's bytes) and every tensor is an extent; an
 * extent is cut into chunks of 1 MiB, the last one shorter. The bytes between extents (padding) are in no chunk.
 *
 * Encoded, little-endian: 16 bytes "brigade weights\1", u64 fingerprint, u64 file bytes, u32 chunk bytes, u32 extents,
 * u32 chunks, u32 zero, extents (u64 offset, u64 bytes; rising, apart), hashes (32 bytes a chunk). The list is named by
 * the BLAKE2b-256 of these bytes. Immutable once made: any thread. */
#ifndef BRIGADE_WEIGHTS_MANIFEST_H
#define BRIGADE_WEIGHTS_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"

#define MANIFEST_HASH_BYTES 32u
#define MANIFEST_CHUNK_BYTES (1u << 20)
#define MANIFEST_CHUNKS_MAX (1u << 20)

struct manifest;

struct manifest_chunk {
    uint64_t offset; /* in the file */
    uint32_t bytes;
};

/* The places alone, without hashes: what is needed to read chunks from a whole file. Split sets: ERR_UNSUPPORTED;
 * tensors that share bytes: ERR_UNSUPPORTED. *out is the caller's: manifest_free. */
int manifest_layout(const struct gguf *g, uint64_t fingerprint, struct manifest **out, struct error *err);
/* The same with hashes: reads the whole file. progress (may be NULL) may stop it with a non-zero result: ERR_CANCELLED. */
int manifest_make(const struct gguf *g, uint64_t fingerprint,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct manifest **out,
                  struct error *err);
/* As manifest_make, but first looks for the list that an earlier call left beside the file (NAME.hashes) or, when that
 * folder cannot be written, in the user's cache folder; it counts while the file's size and time of change are the
 * same. Leaving it there is best effort. */
int manifest_recall(const struct gguf *g, uint64_t fingerprint,
                    int (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                    struct manifest **out, struct error *err);
/* From bytes of somebody else: every field is checked. */
int manifest_decode(const void *bytes, size_t size, struct manifest **out, struct error *err);
void manifest_free(struct manifest *m); /* NULL is fine */

const void *manifest_bytes(const struct manifest *m, size_t *size); /* encoded; lives as long as m */
const uint8_t *manifest_hash(const struct manifest *m);             /* MANIFEST_HASH_BYTES; NULL for a layout */
uint64_t manifest_fingerprint(const struct manifest *m);
uint64_t manifest_file_bytes(const struct manifest *m);
uint32_t manifest_chunks(const struct manifest *m);
struct manifest_chunk manifest_chunk_at(const struct manifest *m, uint32_t chunk); /* chunk < manifest_chunks */
/* The chunks of the header, and of the extent that lies exactly there; ERR_NOTFOUND when none does. */
uint32_t manifest_header_chunks(const struct manifest *m);
int manifest_find(const struct manifest *m, uint64_t offset, uint64_t bytes, uint32_t *first, uint32_t *count);
/* Whether these are the chunk's bytes. */
bool manifest_proves(const struct manifest *m, uint32_t chunk, const void *bytes, size_t size);

/* BLAKE2b-256. */
void manifest_blake2b(const void *bytes, size_t size, uint8_t hash[static MANIFEST_HASH_BYTES]);

#endif
