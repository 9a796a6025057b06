/* The list of a model's pieces: where each lies and its BLAKE2b-256, so that a model can be taken from anybody in any
 * order and every byte be proven. The header (all before the first tensor's bytes) and every tensor is an extent; an
 * extent is cut into chunks of 1 MiB, the last one shorter. The bytes between extents (padding) are in no chunk.
 *
 * A split set is listed as if its files lay in one, each from the next multiple of 64 KiB on; each has a header.
 *
 * Encoded, little-endian: 16 bytes "brigade weights\1", u64 fingerprint, u64 bytes of the file (of a set: to the end of
 * the last one), u32 chunk bytes, u32 extents, u32 chunks, u32 files of the set (0: one file), extents (u64 offset,
 * u64 bytes: the headers, then the tensors; both rising, all apart), of a set the bytes of each file (u64), hashes (32
 * bytes a chunk). The list is named by the BLAKE2b-256 of these bytes. Immutable once made: any thread. */
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

/* The places alone, without hashes: what is needed to read chunks from a whole file. Tensors that share bytes:
 * ERR_UNSUPPORTED. *out is the caller's: manifest_free. */
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
/* Its files in one another's wake, as gguf_open_joined takes them; as long as m lives. */
const struct gguf_part *manifest_parts(const struct manifest *m, uint32_t *count);
/* How many chunks the headers have: they are the first ones. */
uint32_t manifest_header_chunks(const struct manifest *m);
/* The chunks of a tensor, by its place; ERR_NOTFOUND when nothing lies exactly there. */
int manifest_find(const struct manifest *m, const struct gguf_tensor *t, uint32_t *first, uint32_t *count);
/* A chunk's bytes in the open files that the list is of; NULL when it is of others. */
const void *manifest_chunk_in(const struct manifest *m, const struct gguf *g, uint32_t chunk);
/* Whether both are of files that are cut up alike, whatever is in them. */
bool manifest_same_layout(const struct manifest *a, const struct manifest *b);
/* Whether these are the chunk's bytes. */
bool manifest_proves(const struct manifest *m, uint32_t chunk, const void *bytes, size_t size);

/* BLAKE2b-256. */
void manifest_blake2b(const void *bytes, size_t size, uint8_t hash[static MANIFEST_HASH_BYTES]);

#endif
