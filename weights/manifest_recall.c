/* A list of hashes kept between runs, beside the model or in the user's cache folder: a line that tells which state of
 * the file it is of, the list, and a hash over both. A damaged or stale one is made anew. Any thread; written beside and
 * renamed, so that two programs may do it at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/file.h"
#include "weights/manifest.h"

#define LINE_MAX_BYTES 128

/* What the list holds for: "brigade hashes 1 SIZE SECONDS.NANOSECONDS FINGERPRINT\n". */
static int state_line(const struct gguf *g, uint64_t fingerprint, char line[static LINE_MAX_BYTES])
{
    struct stat st;
    if (stat(gguf_path(g), &st))
        return ERR_IO;
    snprintf(line, LINE_MAX_BYTES, "brigade hashes 1 %lld %lld.%09ld %016llx\n", (long long)st.st_size,
             (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (unsigned long long)fingerprint);
    return 0;
}

/* Beside the model, then in the user's cache. NULL when there is no such place. */
static char *place(const struct gguf *g, uint64_t fingerprint, int choice)
{
    const char *home = getenv("HOME"), *cache = getenv("XDG_CACHE_HOME");
    if (choice == 0)
        return mem_printf("%s.hashes", gguf_path(g));
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
    bool known = !state_line(g, fingerprint, line);
    for (int choice = 0; known && choice < 2; choice++) {
        char *path = place(g, fingerprint, choice);
        struct manifest *m = path ? read_one(path, line) : NULL;
        mem_free(path);
        if (m && manifest_fingerprint(m) == fingerprint && manifest_file_bytes(m) == gguf_file_bytes(g)) {
            *out = m;
            return 0;
        }
        manifest_free(m);
    }
    int rc = manifest_make(g, fingerprint, progress, context, out, err);
    for (int choice = 0; !rc && known && choice < 2; choice++) {
        char *path = place(g, fingerprint, choice);
        int kept = path ? (choice ? file_make_folders(path, NULL) : 0) || write_one(path, line, *out) : -1;
        mem_free(path);
        if (!kept)
            break;
    }
    return rc;
}
