/* The folder of weights: its models, their sizes and turns, and making room. One model's files stand in crate.c. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/units.h"
#include "weights/crate.h"

#define MODELS_MAX 4096          /* in the folder; further ones are not seen */
#define RESERVE_BYTES (UINT64_C(64) << 20) /* of the disk, for others */

int store_open(const char *folder, uint64_t limit_bytes, struct store **out, struct error *err)
{
    struct store *s = mem_zalloc(1, sizeof *s);
    if (s)
        s->folder = mem_printf("%s/weights", folder);
    if (!s || !s->folder) {
        store_close(s);
        return error_set(err, ERR_NOMEM, "no memory for the cache of weights");
    }
    s->limit_bytes = limit_bytes;
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s)
        mem_free(s->folder);
    mem_free(s);
}

/* ---- What is there ------------------------------------------------------------------------------------------------ */

struct kept {
    char name[96]; /* without the suffix */
    int64_t used_ns;
    uint64_t bytes;
};

static bool is_model(const char *name, const char *suffix)
{
    size_t n = strlen(name), tail = strlen(suffix);
    return n == CRATE_NAME - 1 + tail && !strcmp(name + n - tail, suffix) &&
           strspn(name, "0123456789abcdef") == 16 && name[16] == '-' && strspn(name + 17, "0123456789abcdef") == 16;
}

/* The models here, in no order; count. */
static size_t list(const struct store *s, struct kept *out, size_t most)
{
    DIR *d = opendir(s->folder);
    size_t count = 0;
    for (struct dirent *e; d && count < most && (e = readdir(d));) {
        struct stat st;
        if (!is_model(e->d_name, ".state") || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        struct kept *k = &out[count++];
        snprintf(k->name, sizeof k->name, "%.*s", CRATE_NAME - 1, e->d_name);
        k->used_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        char file[128];
        snprintf(file, sizeof file, "%s.gguf", k->name);
        k->bytes = fstatat(dirfd(d), file, &st, AT_SYMLINK_NOFOLLOW) ? 0 : (uint64_t)st.st_blocks * 512;
    }
    if (d)
        closedir(d);
    return count;
}

int store_find(struct store *s, uint64_t fingerprint, const uint8_t *hash, struct manifest **out)
{
    struct kept *models = mem_zalloc(MODELS_MAX, sizeof *models);
    char prefix[32];
    size_t count = models ? list(s, models, MODELS_MAX) : 0;
    int rc = models ? ERR_NOTFOUND : ERR_NOMEM;
    snprintf(prefix, sizeof prefix, "%016llx-", (unsigned long long)fingerprint);
    while (rc == ERR_NOTFOUND) {
        struct kept *best = NULL;
        struct manifest *m = NULL;
        for (size_t i = 0; i < count; i++)
            if (!strncmp(models[i].name, prefix, 17) && (!best || models[i].used_ns > best->used_ns))
                best = &models[i];
        if (!best)
            break;
        if (!crate_read_list(s, best->name, &m)) {
            if (manifest_fingerprint(m) == fingerprint && (!hash || !memcmp(hash, manifest_hash(m), MANIFEST_HASH_BYTES))) {
                *out = m;
                rc = 0;
            } else {
                manifest_free(m);
            }
        }
        best->name[0] = 0;
    }
    mem_free(models);
    return rc;
}

/* ---- Making room -------------------------------------------------------------------------------------------------- */

/* Removes a model that nobody has open. */
static bool evict(const struct store *s, const struct kept *k)
{
    char *file = mem_printf("%s/%s.gguf", s->folder, k->name), *state = mem_printf("%s/%s.state", s->folder, k->name);
    int fd = file ? open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    bool gone = file && state && (fd < 0 || !flock(fd, LOCK_EX | LOCK_NB));
    if (gone) {
        char text[UNITS_TEXT];
        unlink(state);
        unlink(file);
        log_info("removed %s (%s) from the cache, to make room", file, units_bytes_text(k->bytes, text));
    }
    if (fd >= 0)
        close(fd);
    mem_free(file);
    mem_free(state);
    return gone;
}

static uint64_t disk_free(const struct store *s)
{
    struct statvfs v;
    return statvfs(s->folder, &v) ? 0 : (uint64_t)v.f_bavail * v.f_frsize;
}

/* What may still be written: the lesser of the limit's and the disk's rest. */
static uint64_t room(const struct store *s, const struct kept *models, size_t count)
{
    uint64_t used = 0, disk = disk_free(s);
    for (size_t i = 0; i < count; i++)
        used += models[i].bytes;
    disk = disk > RESERVE_BYTES ? disk - RESERVE_BYTES : 0;
    uint64_t left = s->limit_bytes > used ? s->limit_bytes - used : 0;
    return s->limit_bytes && left < disk ? left : disk;
}

int store_make_room(struct store *s, struct crate *keep, const uint8_t *wanted, uint64_t bytes, struct error *err)
{
    struct kept *models = mem_zalloc(MODELS_MAX, sizeof *models);
    if (!models)
        return error_set(err, ERR_NOMEM, "%s: no memory to look at the cache", s->folder);
    size_t count = list(s, models, MODELS_MAX);
    int rc = 0;
    while (room(s, models, count) < bytes) {
        struct kept *oldest = NULL;
        for (size_t i = 0; i < count; i++)
            if (models[i].used_ns && strcmp(models[i].name, keep->name) && (!oldest || models[i].used_ns < oldest->used_ns))
                oldest = &models[i];
        if (oldest) {
            oldest->used_ns = 0; /* its turn has come, whatever becomes of it */
            if (evict(s, oldest))
                oldest->bytes = 0;
        } else if (wanted && crate_drop_unwanted(keep, wanted)) {
            wanted = NULL;
            count = list(s, models, MODELS_MAX);
            for (size_t i = 0; i < count; i++)
                models[i].used_ns = 0; /* each has had its turn */
        } else {
            char need[UNITS_TEXT], have[UNITS_TEXT];
            uint64_t left = room(s, models, count);
            bool limited = s->limit_bytes && left < disk_free(s);
            units_bytes_text(bytes, need);
            units_bytes_text(left, have);
            rc = error_set(err, ERR_IO, "%s: the %s: this stage's weights take %s more, and there is room for %s; %s", s->folder,
                           limited ? "cache limit is reached" : "disk is full", need, have,
                           limited ? "raise --cache-limit" : "free some, or use another --cache");
            break;
        }
    }
    mem_free(models);
    return rc;
}
