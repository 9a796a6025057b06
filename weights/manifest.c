/* The list of chunks: layout from a GGUF's directory, hashing, encoding, and the checks on one that a peer sent. Pure but
 * for reading the mapped file; the copy kept between runs stands in manifest_recall.c. */
#include "weights/manifest.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FILE_BYTES_MAX (UINT64_C(1) << 46)
#define FILES_MAX 1024u /* of a set */

static const char magic[16] = "brigade weights\1";

/* As encoded; the struct's layout is the format's, on the little-endian machines that we run on. */
struct head {
    char magic[16];
    uint64_t fingerprint, file_bytes;
    uint32_t chunk_bytes, extents, chunks, set; /* set: its files, or 0 */
};
struct extent {
    uint64_t offset, bytes;
};
_Static_assert(sizeof(struct head) == 48 && sizeof(struct extent) == 16, "the format's sizes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the list is little-endian and read in place");

struct manifest {
    struct head *head;         /* the encoded bytes: head, extents, sizes of a set's files, hashes */
    struct extent *extent;     /* a header of each file, then tensors */
    uint64_t *file_bytes;      /* of a set */
    struct gguf_part *part;    /* where each file lies */
    uint32_t parts;
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
    mem_free(m->part);
    mem_free(m);
}

static uint64_t chunks_of(uint64_t bytes)
{
    return (bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES;
}

static size_t encoded_size(uint64_t extents, uint64_t files, uint64_t chunks)
{
    return sizeof(struct head) + (size_t)extents * sizeof(struct extent) + (size_t)files * sizeof(uint64_t) +
           (size_t)chunks * MANIFEST_HASH_BYTES;
}

/* An empty list of that size; head's counts are set. */
static struct manifest *start(uint32_t extents, uint32_t set, uint32_t chunks)
{
    struct manifest *m = mem_zalloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->size = encoded_size(extents, set, chunks);
    m->parts = set ? set : 1;
    m->head = mem_zalloc(1, m->size);
    m->first = mem_zalloc((size_t)extents + 1, sizeof *m->first);
    m->part = mem_zalloc(m->parts, sizeof *m->part);
    if (!m->head || !m->first || !m->part) {
        manifest_free(m);
        return NULL;
    }
    m->extent = (struct extent *)(m->head + 1);
    m->file_bytes = (uint64_t *)(m->extent + extents);
    m->hashes = (uint8_t(*)[MANIFEST_HASH_BYTES])(m->file_bytes + set);
    m->head->extents = extents;
    m->head->set = set;
    m->head->chunks = chunks;
    return m;
}

/* Where the next file begins, behind one that ends there. */
static uint64_t next_start(uint64_t end)
{
    return (end + GGUF_PART_ALIGNMENT - 1) / GGUF_PART_ALIGNMENT * GGUF_PART_ALIGNMENT;
}

static int by_offset(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The files' places; the end of the last. */
static uint64_t place_parts(const struct gguf *g, struct gguf_part *part)
{
    uint64_t end = 0;
    for (int f = 0; f < gguf_file_count(g); f++) {
        part[f].offset = next_start(end);
        gguf_file_map(g, f, &part[f].bytes);
        end = part[f].offset + part[f].bytes;
    }
    return end;
}

/* Fills the extents: a header of each file, then what has bytes of the tensors, rising; their count. list has room for
 * all of them. */
static uint32_t find_extents(const struct gguf *g, const struct gguf_part *part, struct extent *list)
{
    uint32_t files = (uint32_t)gguf_file_count(g), extents = files;
    for (uint32_t f = 0; f < files; f++)
        list[f] = (struct extent){part[f].offset, part[f].bytes};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->offset < list[t->file].bytes)
            list[t->file].bytes = t->offset;
        if (t->bytes)
            list[extents++] = (struct extent){part[t->file].offset + t->offset, t->bytes};
    }
    qsort(list + files, extents - files, sizeof *list, by_offset);
    return extents;
}

/* The list of those extents, without a hash. */
static int lay_out(const struct gguf *g, uint64_t fingerprint, const struct extent *list, uint32_t extents,
                   struct manifest **out, struct error *err)
{
    uint32_t files = (uint32_t)gguf_file_count(g);
    uint64_t chunks = 0;
    for (uint32_t i = 0; i < extents; i++) {
        chunks += chunks_of(list[i].bytes);
        if (i > files && list[i].offset < list[i - 1].offset + list[i - 1].bytes)
            return error_set(err, ERR_UNSUPPORTED, "%s: tensors share bytes, so it does not travel; copy it to each node",
                             gguf_path(g));
    }
    if (chunks > MANIFEST_CHUNKS_MAX)
        return error_set(err, ERR_BOUND, "%s: %llu chunks; the limit is %u; copy the file to each node", gguf_path(g),
                         (unsigned long long)chunks, MANIFEST_CHUNKS_MAX);
    struct manifest *m = start(extents, files > 1 ? files : 0, (uint32_t)chunks);
    if (!m)
        return error_set(err, ERR_NOMEM, "%s: no memory for the list of its chunks", gguf_path(g));
    memcpy(m->head->magic, magic, sizeof magic);
    m->head->fingerprint = fingerprint;
    m->head->file_bytes = place_parts(g, m->part);
    m->head->chunk_bytes = MANIFEST_CHUNK_BYTES;
    for (uint32_t f = 0; f < m->head->set; f++)
        m->file_bytes[f] = m->part[f].bytes;
    memcpy(m->extent, list, extents * sizeof *list);
    for (uint32_t i = 0; i < extents; i++)
        m->first[i + 1] = m->first[i] + (uint32_t)chunks_of(list[i].bytes);
    *out = m;
    return 0;
}

int manifest_layout(const struct gguf *g, uint64_t fingerprint, struct manifest **out, struct error *err)
{
    size_t files = (size_t)gguf_file_count(g);
    struct gguf_part *part = mem_zalloc(files, sizeof *part);
    struct extent *list = mem_zalloc(gguf_tensor_count(g) + files, sizeof *list);
    int rc;
    if (!part || !list) {
        rc = error_set(err, ERR_NOMEM, "%s: no memory for the list of its chunks", gguf_path(g));
    } else {
        place_parts(g, part);
        rc = lay_out(g, fingerprint, list, find_extents(g, part, list), out, err);
    }
    mem_free(part);
    mem_free(list);
    return rc;
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
        manifest_blake2b(manifest_chunk_in(m, g, i), c.bytes, m->hashes[i]);
        done += c.bytes;
        if (progress && progress(context, done, m->head->file_bytes))
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
    if (size < sizeof *h || memcmp(h->magic, magic, sizeof magic))
        return error_set(err, ERR_FORMAT, "list of chunks: its %zu bytes are none", size);
    if (h->chunk_bytes != MANIFEST_CHUNK_BYTES)
        return error_set(err, ERR_UNSUPPORTED, "list of chunks: chunks of %u bytes; this program knows %u",
                         h->chunk_bytes, MANIFEST_CHUNK_BYTES);
    if (!h->extents || !h->chunks || h->chunks > MANIFEST_CHUNKS_MAX || h->extents > h->chunks || h->set == 1 ||
        h->set > FILES_MAX || h->set > h->extents || !h->file_bytes || h->file_bytes > FILE_BYTES_MAX)
        return error_set(err, ERR_BOUND,
                         "list of chunks: %u extents, %u chunks, %u files of %llu bytes: out of range", h->extents,
                         h->chunks, h->set, (unsigned long long)h->file_bytes);
    size_t want = encoded_size(h->extents, h->set, h->chunks);
    return size == want ? 0 : error_set(err, ERR_FORMAT, "list of chunks: %zu bytes where %zu belong", size, want);
}

/* Where the files lie, from their sizes. */
static int check_parts(struct manifest *m, struct error *err)
{
    uint64_t end = 0;
    for (uint32_t f = 0; f < m->parts; f++) {
        uint64_t bytes = m->head->set ? m->file_bytes[f] : m->head->file_bytes;
        m->part[f] = (struct gguf_part){next_start(end), bytes};
        if (!bytes || bytes > m->head->file_bytes || m->part[f].offset > m->head->file_bytes - bytes)
            return error_set(err, ERR_FORMAT, "list of chunks: file %u of %llu bytes does not fit", f + 1,
                             (unsigned long long)bytes);
        end = m->part[f].offset + bytes;
    }
    return end == m->head->file_bytes ? 0 : error_set(err, ERR_FORMAT, "list of chunks: its files end too early");
}

/* A header at the start of each file; behind them tensors, rising, apart, each in one file; counts add up. */
static int check_extents(struct manifest *m, struct error *err)
{
    uint64_t end = 0, chunks = 0;
    uint32_t f = 0;
    for (uint32_t i = 0; i < m->head->extents; i++) {
        const struct extent *e = &m->extent[i];
        bool header = i < m->parts, fits;
        if (header) {
            fits = e->offset == m->part[i].offset && e->bytes && e->bytes <= m->part[i].bytes;
        } else {
            while (f + 1 < m->parts && e->offset >= m->part[f + 1].offset)
                f++;
            uint64_t within = e->offset - m->part[f].offset; /* not below it: f starts at 0, the first file's place */
            fits = e->bytes && e->offset >= end && within >= m->extent[f].bytes && e->bytes <= m->part[f].bytes &&
                   within <= m->part[f].bytes - e->bytes;
            end = e->offset + e->bytes;
        }
        if (!fits)
            return error_set(err, ERR_FORMAT, "list of chunks: extent %u (%llu bytes at %llu) does not fit", i,
                             (unsigned long long)e->bytes, (unsigned long long)e->offset);
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
    struct manifest *m = start(head.extents, head.set, head.chunks);
    if (!m)
        return error_set(err, ERR_NOMEM, "no memory for a list of %u chunks", head.chunks);
    memcpy(m->head, bytes, size);
    if ((rc = check_parts(m, err)) || (rc = check_extents(m, err))) {
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

const struct gguf_part *manifest_parts(const struct manifest *m, uint32_t *count)
{
    *count = m->parts;
    return m->part;
}

uint32_t manifest_header_chunks(const struct manifest *m)
{
    return m->first[m->parts];
}

int manifest_find(const struct manifest *m, const struct gguf_tensor *t, uint32_t *first, uint32_t *count)
{
    if (t->file < 0 || (uint32_t)t->file >= m->parts)
        return ERR_NOTFOUND;
    struct extent key = {m->part[t->file].offset + t->offset, t->bytes};
    const struct extent *e = bsearch(&key, m->extent + m->parts, m->head->extents - m->parts, sizeof *e, by_offset);
    if (!e || e->bytes != t->bytes)
        return ERR_NOTFOUND;
    *first = m->first[e - m->extent];
    *count = m->first[e - m->extent + 1] - *first;
    return 0;
}

const void *manifest_chunk_in(const struct manifest *m, const struct gguf *g, uint32_t chunk)
{
    struct manifest_chunk c = manifest_chunk_at(m, chunk);
    uint32_t f = 0;
    uint64_t bytes;
    while (f + 1 < m->parts && c.offset >= m->part[f + 1].offset)
        f++;
    if ((uint32_t)gguf_file_count(g) != m->parts)
        return NULL;
    const char *map = gguf_file_map(g, (int)f, &bytes);
    return bytes == m->part[f].bytes ? map + (c.offset - m->part[f].offset) : NULL;
}

bool manifest_same_layout(const struct manifest *a, const struct manifest *b)
{
    size_t size = encoded_size(a->head->extents, a->head->set, 0);
    return !memcmp(a->head, b->head, sizeof *a->head) && !memcmp(a->head, b->head, size);
}

bool manifest_proves(const struct manifest *m, uint32_t chunk, const void *bytes, size_t size)
{
    uint8_t hash[MANIFEST_HASH_BYTES];
    if (!m->hashed || chunk >= m->head->chunks || size != manifest_chunk_at(m, chunk).bytes)
        return false;
    manifest_blake2b(bytes, size, hash);
    return !memcmp(hash, m->hashes[chunk], sizeof hash);
}
