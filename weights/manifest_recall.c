/* A list of hashes kept between runs, beside the model or in the user's cache folder: a line that tells which state of
 * the file it is of, the list, and a hash over both. A damaged or stale one is made anew. Any thread; written beside and
 * renamed, so that two programs may do it at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "weights/manifest.h"

#define LINE_MAX_BYTES 128

/* What the list holds for: "brigade hashes 1 SIZE SECONDS.NANOSECONDS FINGERPRINT\n"; of a set, the sum of sizes, the
 * last change, and behind them a digest of each file's. */
static int state_line(const struct gguf *g, uint64_t fingerprint, char line[static LINE_MAX_BYTES])
{
    struct stat st;
    struct timespec changed = {0};
    uint64_t bytes = 0, digest = 0;
    char set[32] = "";
    for (int f = 0; f < gguf_file_count(g); f++) {
        if (stat(gguf_file_path(g, f), &st))
            return ERR_IO;
        bytes += (uint64_t)st.st_size;
        digest = hash_mix64(digest ^ (uint64_t)st.st_size);
        digest = hash_mix64(digest ^ (uint64_t)st.st_mtim.tv_sec) + (uint64_t)st.st_mtim.tv_nsec;
        if (st.st_mtim.tv_sec > changed.tv_sec ||
            (st.st_mtim.tv_sec == changed.tv_sec && st.st_mtim.tv_nsec > changed.tv_nsec))
            changed = st.st_mtim;
    }
    if (gguf_file_count(g) > 1)
        snprintf(set, sizeof set, " set %016llx", (unsigned long long)digest);
    snprintf(line, LINE_MAX_BYTES, "brigade hashes 1 %llu %lld.%09ld %016llx%s\n", (unsigned long long)bytes,
             (long long)changed.tv_sec, changed.tv_nsec, (unsigned long long)fingerprint, set);
    return 0;
}

/* Beside the model (the first file of a set), then in the user's cache. NULL when there is no such place. */
static char *place(const struct gguf *g, uint64_t fingerprint, int choice)
{
    const char *home = getenv("HOME"), *cache = getenv("XDG_CACHE_HOME");
    if (choice == 0)
        return mem_printf("%s.hashes", gguf_file_path(g, 0));
    if (cache && *cache == '/')
        return mem_printf("%s/brigade/%016llx.hashes", cache, (unsigned long long)fingerprint);
    return home && *home == '/' ? mem_printf("%s/.cache/brigade/%016llx.hashes", home, (unsigned long long)fingerprint)
                                : NULL;
}

static struct manifest *read_one(const char *path, const char *line)
{
    struct buffer b = {.limit = (size_t)64 << 20};
    struct manifest *m = NULL;
    uint8_t hash[MANIFEST_HASH_BYTES];
    size_t n = strlen(line);
    if (!file_read(path, &b, NULL) && b.size > n + sizeof hash && !memcmp(b.data, line, n)) {
        size_t body = b.size - sizeof hash;
        manifest_blake2b(b.data, body, hash);
        if (memcmp(hash, b.data + body, sizeof hash) || manifest_decode(b.data + n, body - n, &m, NULL))
            log_warn("%s is damaged; the model is hashed again", path);
    }
    buffer_free(&b);
    return m;
}

static int write_one(const char *path, const char *line, const struct manifest *m)
{
    struct buffer b = {0};
    uint8_t hash[MANIFEST_HASH_BYTES];
    size_t size;
    const void *bytes = manifest_bytes(m, &size);
    int rc = buffer_puts(&b, line);
    if (!rc)
        rc = buffer_append(&b, bytes, size);
    if (!rc) {
        manifest_blake2b(b.data, b.size, hash);
        rc = buffer_append(&b, hash, sizeof hash);
    }
    if (!rc)
        rc = file_put(path, b.data, b.size, NULL);
    buffer_free(&b);
    return rc;
}

int manifest_recall(const struct gguf *g, uint64_t fingerprint,
                    int (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                    struct manifest **out, struct error *err)
{
    char line[LINE_MAX_BYTES];
    struct manifest *layout = NULL;
    int rc = manifest_layout(g, fingerprint, &layout, err);
    if (rc)
        return rc;
    bool known = !state_line(g, fingerprint, line);
    for (int choice = 0; known && choice < 2; choice++) {
        char *path = place(g, fingerprint, choice);
        struct manifest *m = path ? read_one(path, line) : NULL;
        mem_free(path);
        if (m && manifest_same_layout(m, layout)) {
            manifest_free(layout);
            *out = m;
            return 0;
        }
        manifest_free(m);
    }
    manifest_free(layout);
    rc = manifest_make(g, fingerprint, progress, context, out, err);
    for (int choice = 0; !rc && known && choice < 2; choice++) {
        char *path = place(g, fingerprint, choice);
        int kept = path ? (choice ? file_make_folders(path, NULL) : 0) || write_one(path, line, *out) : -1;
        mem_free(path);
        if (!kept)
            break;
    }
    return rc;
}
