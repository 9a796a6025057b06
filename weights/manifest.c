/* The list of chunks: layout from a GGUF's directory, hashing, encoding, and the checks on one that a peer sent. Pure but
 * for reading the mapped file; the copy kept between runs stands in manifest_recall.c. */
#include "weights/manifest.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FILE_BYTES_MAX (UINT64_C(1) << 46)

static const char magic[16] = "brigade weights\1";

/* As encoded; the struct's layout is the format's, on the little-endian machines that we run on. */
struct head {
    char magic[16];
    uint64_t fingerprint, file_bytes;
    uint32_t chunk_bytes, extents, chunks, zero;
};
struct extent {
    uint64_t offset, bytes;
};
_Static_assert(sizeof(struct head) == 48 && sizeof(struct extent) == 16, "the format's sizes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the list is little-endian and read in place");

struct manifest {
    struct head *head;         /* the encoded bytes: head, extents, hashes */
    struct extent *extent;
    uint8_t (*hashes)[MANIFEST_HASH_BYTES];
    size_t size;
    uint32_t *first;           /* the first chunk of each extent, and the count at the end */
    bool hashed;
    uint8_t hash[MANIFEST_HASH_BYTES];
};

void manifest_blake2b(const void *bytes, size_t size, uint8_t hash[static MANIFEST_HASH_BYTES])
{
    crypto_generichash(hash, MANIFEST_HASH_BYTES, bytes, size, NULL, 0);
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    mem_free(m->head);
    mem_free(m->first);
    mem_free(m);
}

static uint64_t chunks_of(uint64_t bytes)
{
    return (bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES;
}

static size_t encoded_size(uint64_t extents, uint64_t chunks)
{
    return sizeof(struct head) + (size_t)extents * sizeof(struct extent) + (size_t)chunks * MANIFEST_HASH_BYTES;
}

/* An empty list of that size; head's counts are set. */
static struct manifest *start(uint32_t extents, uint32_t chunks)
{
    struct manifest *m = mem_zalloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->size = encoded_size(extents, chunks);
    m->head = mem_zalloc(1, m->size);
    m->first = mem_zalloc((size_t)extents + 1, sizeof *m->first);
    if (!m->head || !m->first) {
        manifest_free(m);
        return NULL;
    }
    m->extent = (struct extent *)(m->head + 1);
    m->hashes = (uint8_t(*)[MANIFEST_HASH_BYTES])(m->extent + extents);
    m->head->extents = extents;
    m->head->chunks = chunks;
    return m;
}

static int by_offset(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

int manifest_layout(const struct gguf *g, uint64_t fingerprint, struct manifest **out, struct error *err)
{
    uint64_t header = gguf_file_bytes(g), chunks = 0;
    uint32_t extents = 1;
    int rc = 0;
    if (gguf_file_count(g) != 1)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: a split set does not travel; copy it to each node, or merge it into one file",
                         gguf_path(g));
    struct extent *list = mem_zalloc(gguf_tensor_count(g) + 1, sizeof *list);
    if (!list)
        return error_set(err, ERR_NOMEM, "%s: no memory for the list of its chunks", gguf_path(g));
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->offset < header)
            header = t->offset;
        if (t->bytes)
            list[extents++] = (struct extent){t->offset, t->bytes};
        chunks += chunks_of(t->bytes);
    }
    list[0] = (struct extent){0, header};
    chunks += chunks_of(header);
    qsort(list + 1, extents - 1, sizeof *list, by_offset);
    for (uint32_t i = 1; i < extents && !rc; i++)
        if (list[i].offset < list[i - 1].offset + list[i - 1].bytes)
            rc = error_set(err, ERR_UNSUPPORTED, "%s: tensors share bytes, so it does not travel; copy it to each node",
                           gguf_path(g));
    if (!rc && chunks > MANIFEST_CHUNKS_MAX)
        rc = error_set(err, ERR_BOUND, "%s: %llu chunks; the limit is %u; copy the file to each node", gguf_path(g),
                       (unsigned long long)chunks, MANIFEST_CHUNKS_MAX);
    struct manifest *m = rc ? NULL : start(extents, (uint32_t)chunks);
    if (!rc && !m)
        rc = error_set(err, ERR_NOMEM, "%s: no memory for the list of its chunks", gguf_path(g));
    if (!rc) {
        memcpy(m->head->magic, magic, sizeof magic);
        m->head->fingerprint = fingerprint;
        m->head->file_bytes = gguf_file_bytes(g);
        m->head->chunk_bytes = MANIFEST_CHUNK_BYTES;
        memcpy(m->extent, list, extents * sizeof *list);
        for (uint32_t i = 0; i < extents; i++)
            m->first[i + 1] = m->first[i] + (uint32_t)chunks_of(list[i].bytes);
        *out = m;
    }
    mem_free(list);
    return rc;
}

/* The map starts at the lowest address that a tensor or the header has; tensors know their own. */
static const char *file_bytes_at(const struct gguf *g, uint64_t offset)
{
    const struct gguf_tensor *t = gguf_tensor_count(g) ? gguf_tensor_at(g, 0) : NULL;
    return t ? (const char *)t->data - t->offset + offset : NULL;
}

int manifest_make(const struct gguf *g, uint64_t fingerprint,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct manifest **out,
                  struct error *err)
{
    struct manifest *m = NULL;
    if (sodium_init() < 0)
        return error_set(err, ERR_INTERNAL, "libsodium cannot start");
    int rc = manifest_layout(g, fingerprint, &m, err);
    if (rc)
        return rc;
    uint64_t done = 0;
    for (uint32_t i = 0; i < m->head->chunks && !rc; i++) {
        struct manifest_chunk c = manifest_chunk_at(m, i);
        const char *at = file_bytes_at(g, c.offset);
        if (!at)
            rc = error_set(err, ERR_FORMAT, "%s: it holds no tensors", gguf_path(g));
        else
            manifest_blake2b(at, c.bytes, m->hashes[i]);
        done += c.bytes;
        if (!rc && progress && progress(context, done, m->head->file_bytes))
            rc = error_set(err, ERR_CANCELLED, "%s: hashing was stopped", gguf_path(g));
    }
    if (rc) {
        manifest_free(m);
        return rc;
    }
    manifest_blake2b(m->head, m->size, m->hash);
    m->hashed = true;
    *out = m;
    return 0;
}

/* ---- Of somebody else --------------------------------------------------------------------------------------------- */

static int check_head(const struct head *h, size_t size, struct error *err)
{
    if (size < sizeof *h || memcmp(h->magic, magic, sizeof magic) || h->zero)
        return error_set(err, ERR_FORMAT, "list of chunks: its %zu bytes are none", size);
    if (h->chunk_bytes != MANIFEST_CHUNK_BYTES)
        return error_set(err, ERR_UNSUPPORTED, "list of chunks: chunks of %u bytes; this program knows %u",
                         h->chunk_bytes, MANIFEST_CHUNK_BYTES);
    if (!h->extents || !h->chunks || h->chunks > MANIFEST_CHUNKS_MAX || h->extents > h->chunks ||
        !h->file_bytes || h->file_bytes > FILE_BYTES_MAX)
        return error_set(err, ERR_BOUND, "list of chunks: %u extents, %u chunks, a file of %llu bytes: out of range",
                         h->extents, h->chunks, (unsigned long long)h->file_bytes);
    return size == encoded_size(h->extents, h->chunks)
               ? 0
               : error_set(err, ERR_FORMAT, "list of chunks: %zu bytes where %zu belong", size,
                           encoded_size(h->extents, h->chunks));
}

/* Rising, apart, inside the file, the first one at its start; counts add up. */
static int check_extents(struct manifest *m, struct error *err)
{
    uint64_t end = 0, chunks = 0;
    for (uint32_t i = 0; i < m->head->extents; i++) {
        const struct extent *e = &m->extent[i];
        if (!e->bytes || e->offset < end || (i == 0 && e->offset) || e->bytes > m->head->file_bytes ||
            e->offset > m->head->file_bytes - e->bytes)
            return error_set(err, ERR_FORMAT, "list of chunks: extent %u (%llu bytes at %llu) does not fit", i,
                             (unsigned long long)e->bytes, (unsigned long long)e->offset);
        end = e->offset + e->bytes;
        chunks += chunks_of(e->bytes);
        if (chunks > m->head->chunks)
            break;
        m->first[i + 1] = (uint32_t)chunks;
    }
    return chunks == m->head->chunks ? 0 : error_set(err, ERR_FORMAT, "list of chunks: %u chunks, but its extents have %s",
                                                     m->head->chunks, chunks > m->head->chunks ? "more" : "fewer");
}

int manifest_decode(const void *bytes, size_t size, struct manifest **out, struct error *err)
{
    struct head head = {0};
    memcpy(&head, bytes, size < sizeof head ? size : sizeof head);
    int rc = check_head(&head, size, err);
    if (rc)
        return rc;
    struct manifest *m = start(head.extents, head.chunks);
    if (!m)
        return error_set(err, ERR_NOMEM, "no memory for a list of %u chunks", head.chunks);
    memcpy(m->head, bytes, size);
    if ((rc = check_extents(m, err))) {
        manifest_free(m);
        return rc;
    }
    manifest_blake2b(m->head, m->size, m->hash);
    m->hashed = true;
    *out = m;
    return 0;
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

const void *manifest_bytes(const struct manifest *m, size_t *size)
{
    *size = m->size;
    return m->head;
}

const uint8_t *manifest_hash(const struct manifest *m)
{
    return m->hashed ? m->hash : NULL;
}

uint64_t manifest_fingerprint(const struct manifest *m)
{
    return m->head->fingerprint;
}

uint64_t manifest_file_bytes(const struct manifest *m)
{
    return m->head->file_bytes;
}

uint32_t manifest_chunks(const struct manifest *m)
{
    return m->head->chunks;
}

struct manifest_chunk manifest_chunk_at(const struct manifest *m, uint32_t chunk)
{
    uint32_t low = 0, high = m->head->extents;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (m->first[middle] <= chunk)
            low = middle;
        else
            high = middle;
    }
    const struct extent *e = &m->extent[low];
    uint64_t at = (uint64_t)(chunk - m->first[low]) * MANIFEST_CHUNK_BYTES, left = e->bytes - at;
    return (struct manifest_chunk){e->offset + at, left < MANIFEST_CHUNK_BYTES ? (uint32_t)left : MANIFEST_CHUNK_BYTES};
}

uint32_t manifest_header_chunks(const struct manifest *m)
{
    return m->first[1];
}

int manifest_find(const struct manifest *m, uint64_t offset, uint64_t bytes, uint32_t *first, uint32_t *count)
{
    struct extent key = {offset, bytes};
    const struct extent *e = bsearch(&key, m->extent, m->head->extents, sizeof *m->extent, by_offset);
    if (!e || e->bytes != bytes)
        return ERR_NOTFOUND;
    *first = m->first[e - m->extent];
    *count = m->first[e - m->extent + 1] - *first;
    return 0;
}

bool manifest_proves(const struct manifest *m, uint32_t chunk, const void *bytes, size_t size)
{
    uint8_t hash[MANIFEST_HASH_BYTES];
    if (!m->hashed || chunk >= m->head->chunks || size != manifest_chunk_at(m, chunk).bytes)
        return false;
    manifest_blake2b(bytes, size, hash);
    return !memcmp(hash, m->hashes[chunk], sizeof hash);
}
