/* One model in the store: the sparse file, its map, and its state file. One owner thread. */
#include "weights/crate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/units.h"

static const char state_magic[] = "brigade state 1\n";
#define MAGIC_BYTES (sizeof state_magic - 1)

static bool bit(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

static void name_of(const struct manifest *m, char name[static CRATE_NAME])
{
    const uint8_t *hash = manifest_hash(m);
    uint64_t head = 0;
    for (int i = 0; i < 8; i++)
        head = head << 8 | hash[i];
    snprintf(name, CRATE_NAME, "%016llx-%016llx", (unsigned long long)manifest_fingerprint(m), (unsigned long long)head);
}

/* All of it at that place; 0 or -1 with errno. */
static int write_at(int fd, const void *bytes, size_t size, uint64_t offset)
{
    const char *at = bytes;
    while (size) {
        ssize_t n = pwrite(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* ---- The state file ----------------------------------------------------------------------------------------------- */

/* The list, and where the bits begin; bits (may be NULL) gets them. */
static int read_state(const char *path, struct manifest **list, uint8_t **bits)
{
    struct buffer b = {.limit = (size_t)128 << 20};
    struct manifest *m = NULL;
    uint32_t size = 0;
    int rc = file_read(path, &b, NULL);
    if (!rc && (b.size < MAGIC_BYTES + sizeof size || memcmp(b.data, state_magic, MAGIC_BYTES)))
        rc = ERR_FORMAT;
    if (!rc)
        memcpy(&size, b.data + MAGIC_BYTES, sizeof size);
    if (!rc && size > b.size - MAGIC_BYTES - sizeof size)
        rc = ERR_FORMAT;
    if (!rc)
        rc = manifest_decode(b.data + MAGIC_BYTES + sizeof size, size, &m, NULL);
    size_t bit_bytes = m ? (manifest_chunks(m) + 7) / 8 : 0, at = MAGIC_BYTES + sizeof size + size;
    if (!rc && b.size - at != bit_bytes)
        rc = ERR_FORMAT;
    if (!rc && bits) {
        if (!(*bits = mem_alloc(bit_bytes)))
            rc = ERR_NOMEM;
        else
            memcpy(*bits, b.data + at, bit_bytes);
    }
    buffer_free(&b);
    if (rc)
        manifest_free(m);
    else
        *list = m;
    return rc;
}

int crate_read_list(const struct store *s, const char *name, struct manifest **out)
{
    char *path = mem_printf("%s/%s.state", s->folder, name);
    int rc = path ? read_state(path, out, NULL) : ERR_NOMEM;
    mem_free(path);
    return rc;
}

/* A state without a bit set. */
static int write_state(const char *path, const struct manifest *m, size_t bit_bytes, struct error *err)
{
    struct buffer b = {0};
    size_t size;
    const void *bytes = manifest_bytes(m, &size);
    uint32_t list_bytes = (uint32_t)size;
    int rc = buffer_append(&b, state_magic, MAGIC_BYTES);
    if (!rc)
        rc = buffer_append(&b, &list_bytes, sizeof list_bytes);
    if (!rc)
        rc = buffer_append(&b, bytes, size);
    char *bits = rc ? NULL : buffer_reserve(&b, bit_bytes);
    if (bits) {
        memset(bits, 0, bit_bytes);
        b.size += bit_bytes;
        rc = file_put(path, b.data, b.size, err);
    } else {
        rc = error_set(err, ERR_NOMEM, "%s: out of memory", path);
    }
    buffer_free(&b);
    return rc;
}

/* The bits of what is there, or a fresh state. */
static int open_state(struct crate *h, const char *path, bool fresh, struct error *err)
{
    struct manifest *m = NULL;
    size_t size;
    manifest_bytes(h->manifest, &size);
    h->bit_bytes = (manifest_chunks(h->manifest) + 7) / 8;
    h->bits_at = MAGIC_BYTES + sizeof(uint32_t) + size;
    int rc = fresh ? ERR_NOTFOUND : read_state(path, &m, &h->bits);
    if (!rc && memcmp(manifest_hash(m), manifest_hash(h->manifest), MANIFEST_HASH_BYTES))
        rc = ERR_FORMAT;
    manifest_free(m);
    if (rc == ERR_NOMEM)
        return error_set(err, rc, "%s: out of memory", path);
    if (rc) {
        mem_free(h->bits);
        if (!(h->bits = mem_zalloc(1, h->bit_bytes)))
            return error_set(err, ERR_NOMEM, "%s: out of memory", path);
        if ((rc = write_state(path, h->manifest, h->bit_bytes, err)))
            return rc;
    }
    if ((h->state_fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) < 0)
        return error_set(err, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    futimens(h->state_fd, NULL); /* its turn among the models begins anew */
    return 0;
}

static void set_bit(struct crate *h, uint32_t chunk, bool value)
{
    uint8_t mask = (uint8_t)(1u << (chunk % 8));
    h->bits[chunk / 8] = value ? h->bits[chunk / 8] | mask : h->bits[chunk / 8] & (uint8_t)~mask;
    if (write_at(h->state_fd, &h->bits[chunk / 8], 1, h->bits_at + chunk / 8))
        log_debug("%s: its state cannot be written: %s", h->path, strerror(errno)); /* the chunk is fetched again then */
}

/* ---- The file ----------------------------------------------------------------------------------------------------- */

int store_crate(struct store *s, const struct manifest *m, struct crate **out, struct error *err)
{
    struct crate *h = mem_zalloc(1, sizeof *h);
    struct stat st = {0};
    char *state = NULL;
    int rc = ERR_NOMEM;
    if (!h)
        return error_set(err, ERR_NOMEM, "no memory for a model in the cache");
    h->fd = h->state_fd = -1;
    h->manifest = m;
    name_of(m, h->name);
    h->path = mem_printf("%s/%s.gguf", s->folder, h->name);
    state = mem_printf("%s/%s.state", s->folder, h->name);
    if (!h->path || !state) {
        error_set(err, rc, "no memory for a path");
        goto fail;
    }
    if ((rc = file_make_folders(h->path, err))) {
        error_prefix(err, "the cache of weights");
        goto fail;
    }
    rc = ERR_IO;
    h->fd = open(h->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (h->fd < 0 || flock(h->fd, LOCK_SH | LOCK_NB) || fstat(h->fd, &st)) {
        error_set(err, rc, "%s: cannot open: %s", h->path, strerror(errno));
        goto fail;
    }
    uint64_t bytes = manifest_file_bytes(m);
    bool fresh = (uint64_t)st.st_size != bytes;
    if (fresh && ftruncate(h->fd, (off_t)bytes)) {
        char text[UNITS_TEXT];
        error_set(err, rc, "%s: cannot make a sparse file of %s: %s; use another --cache", h->path,
                  units_bytes_text(bytes, text), strerror(errno));
        goto fail;
    }
    h->map = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, h->fd, 0);
    if (h->map == MAP_FAILED) {
        h->map = NULL;
        error_set(err, rc, "%s: cannot map: %s", h->path, strerror(errno));
        goto fail;
    }
    if ((rc = open_state(h, state, fresh, err)))
        goto fail;
    mem_free(state);
    *out = h;
    return 0;
fail:
    mem_free(state);
    crate_close(h);
    return rc;
}

void crate_close(struct crate *h)
{
    if (!h)
        return;
    if (h->map)
        munmap((void *)h->map, (size_t)manifest_file_bytes(h->manifest));
    if (h->fd >= 0)
        close(h->fd);
    if (h->state_fd >= 0)
        close(h->state_fd);
    mem_free(h->bits);
    mem_free(h->path);
    mem_free(h);
}

const char *crate_path(const struct crate *h)
{
    return h->path;
}

const struct manifest *crate_manifest(const struct crate *h)
{
    return h->manifest;
}

bool crate_has(const struct crate *h, uint32_t chunk)
{
    return chunk < manifest_chunks(h->manifest) && bit(h->bits, chunk);
}

const uint8_t *crate_bits(const struct crate *h, size_t *bytes)
{
    *bytes = h->bit_bytes;
    return h->bits;
}

const void *crate_bytes(const struct crate *h, uint32_t chunk)
{
    return crate_has(h, chunk) ? h->map + manifest_chunk_at(h->manifest, chunk).offset : NULL;
}

/* Read with pread, not through the map: a file that somebody cut short then is an error, not a SIGBUS. */
bool crate_check(struct crate *h, uint32_t chunk)
{
    if (!crate_has(h, chunk))
        return false;
    struct manifest_chunk c = manifest_chunk_at(h->manifest, chunk);
    char *copy = mem_alloc(c.bytes);
    uint32_t done = 0;
    while (copy && done < c.bytes) {
        ssize_t n = pread(h->fd, copy + done, c.bytes - done, (off_t)(c.offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (uint32_t)n;
    }
    bool good = copy && done == c.bytes && manifest_proves(h->manifest, chunk, copy, c.bytes);
    mem_free(copy);
    if (!good) {
        log_warn("%s: %u bytes at %llu are damaged; they are fetched again", h->path, c.bytes,
                 (unsigned long long)c.offset);
        set_bit(h, chunk, false);
    }
    return good;
}

int crate_write(struct crate *h, uint32_t chunk, const void *bytes, size_t size, struct error *err)
{
    if (!manifest_proves(h->manifest, chunk, bytes, size))
        return error_set(err, ERR_FORMAT, "chunk %u arrived damaged", chunk);
    struct manifest_chunk c = manifest_chunk_at(h->manifest, chunk);
    if (write_at(h->fd, bytes, size, c.offset))
        return error_set(err, ERR_IO, "%s: cannot write: %s; %s", h->path, strerror(errno),
                         errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? "free some, or use another --cache"
                                                                              : "look at the disk");
    set_bit(h, chunk, true);
    return 0;
}

void crate_sync(struct crate *h)
{
    if (fdatasync(h->fd) || fdatasync(h->state_fd))
        log_warn("%s: cannot be synced: %s", h->path, strerror(errno));
}

bool crate_drop_unwanted(struct crate *h, const uint8_t *wanted)
{
    bool dropped = false;
    if (flock(h->fd, LOCK_EX | LOCK_NB))
        return false; /* another worker has it open, and may want them */
    for (uint32_t i = manifest_header_chunks(h->manifest); i < manifest_chunks(h->manifest); i++) {
        struct manifest_chunk c = manifest_chunk_at(h->manifest, i);
        if (!bit(h->bits, i) || wanted[i])
            continue;
        set_bit(h, i, false);
        if (!fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)c.offset, c.bytes))
            dropped = true;
    }
    if (flock(h->fd, LOCK_SH | LOCK_NB))
        log_warn("%s: its lock is lost: %s", h->path, strerror(errno));
    return dropped;
}
