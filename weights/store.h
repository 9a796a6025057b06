/* The weights that a worker keeps on disk: one sparse file a model, of the model's full size, in which only the chunks
 * that were needed are filled, so that it opens like the model itself (a split set: gguf_open_joined, with the list's
 * parts); beside it the list of hashes and one bit a chunk.
 *
 *     FOLDER/weights/FINGERPRINT-HASH.gguf    the sparse file
 *     FOLDER/weights/FINGERPRINT-HASH.state   "brigade state 1\n", u32 list bytes, the list, the bits
 *
 * A bit says that a chunk was written; whether its bytes are still those is proven by crate_check before they are used.
 * When the folder's limit is reached, the models that were used longest ago go first, then chunks of this one that nobody
 * asked for. A crate holds a shared lock on its file, so that two workers may share a folder. One owner thread a crate. */
#ifndef BRIGADE_WEIGHTS_STORE_H
#define BRIGADE_WEIGHTS_STORE_H

#include "weights/manifest.h"

struct store;
struct crate; /* one model */

/* Touches nothing yet. limit_bytes 0: no limit but the disk. */
int store_open(const char *folder, uint64_t limit_bytes, struct store **out, struct error *err);
void store_close(struct store *s);

/* The crate of this list, made with its folder if there is none. Borrows m, which must outlive it. *out is the caller's: crate_close. */
int store_crate(struct store *s, const struct manifest *m, struct crate **out, struct error *err);
/* The list of a model that is kept here, the most recently used one of that fingerprint, and of that hash unless it is
 * NULL; the caller's. ERR_NOTFOUND. */
int store_find(struct store *s, uint64_t fingerprint, const uint8_t *hash, struct manifest **out);
/* Makes room for `bytes` more, beside what `keep` holds of the chunks wanted (one byte a chunk, nonzero: wanted).
 * ERR_IO: the disk or the limit cannot give it; err says how much is missing. */
int store_make_room(struct store *s, struct crate *keep, const uint8_t *wanted, uint64_t bytes, struct error *err);

void crate_close(struct crate *h); /* NULL is fine */
const char *crate_path(const struct crate *h);
const struct manifest *crate_manifest(const struct crate *h);
bool crate_has(const struct crate *h, uint32_t chunk);      /* it was written */
const uint8_t *crate_bits(const struct crate *h, size_t *bytes); /* one bit a chunk, the lowest first */
/* Reads the chunk and proves it. false: it is damaged (or not there) and counts as missing from now on. */
bool crate_check(struct crate *h, uint32_t chunk);
/* Writes a chunk that manifest_proves. ERR_FORMAT: it does not; ERR_IO: a line about the disk. */
int crate_write(struct crate *h, uint32_t chunk, const void *bytes, size_t size, struct error *err);
/* A chunk's bytes, for sending; NULL when it is not there. Valid until crate_close. */
const void *crate_bytes(const struct crate *h, uint32_t chunk);
/* Everything written so far survives a power cut. */
void crate_sync(struct crate *h);

#endif
