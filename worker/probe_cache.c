/* Profiles kept between runs, one small file each: a line with a checksum, then the Profile message as it is sent. The
 * name holds everything a profile depends on. Files are written beside, synced and renamed; a damaged or foreign one is
 * measured anew. Compute thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "worker/compute.h"

#define CACHE_FILE_MAX (1u << 20)
#define HEAD_BYTES 26u /* "brigade profile 2 01234567\n" is 26 characters and a line break */

/* Models may share a fingerprint's file; CPU and kernel are in the name because a cache folder may move to another board,
 * and because a new kernel schedules and clocks otherwise. */
static char *cache_path(const struct compute *c, const struct control_message *probe)
{
    const struct worker *w = c->w;
    struct utsname system = {0};
    uname(&system);
    uint32_t machine = hash_crc32(0, w->cpu.model, strlen(w->cpu.model));
    return mem_printf("%s/profile-%016llx-%s-%08x-t%d-v%u-k%u-c%u-n%u-s%u", w->options->cache_path,
                      (unsigned long long)probe->u.probe.fingerprint, kernels_isa(),
                      hash_crc32(machine, system.release, strlen(system.release)), pool_threads(c->pool), kernels_version(),
                      probe->u.probe.kv_type, probe->u.probe.context, probe->u.probe.chunk,
                      (unsigned)(w->slowdown * 1000 + 0.5));
}

static int read_file(const char *path, struct buffer *b)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return ERR_NOTFOUND;
    int rc = 0;
    for (;;) {
        char *at = buffer_reserve(b, 4096);
        ssize_t n = at ? read(fd, at, 4096) : -1;
        if (n < 0 && at && errno == EINTR)
            continue;
        if (n < 0)
            rc = ERR_IO;
        if (n <= 0)
            break;
        b->size += (size_t)n;
    }
    close(fd);
    return rc;
}

int profile_cache_read(const struct compute *c, const struct control_message *probe, struct control_message *out,
                       struct error *err)
{
    struct buffer b = {.limit = CACHE_FILE_MAX};
    struct control_message m;
    unsigned crc = 0;
    int rc = ERR_NOTFOUND;
    char *path = c->w->options->cache_path ? cache_path(c, probe) : NULL;
    if (!path || read_file(path, &b) || b.size <= HEAD_BYTES)
        goto done;
    const char *body = b.data + HEAD_BYTES + 1;
    size_t body_bytes = b.size - HEAD_BYTES - 1;
    if (sscanf(b.data, "brigade profile 2 %8x\n", &crc) != 1 || crc != hash_crc32(0, body, body_bytes) ||
        control_decode(body, body_bytes, &m, err))
        goto damaged;
    if (m.kind != CONTROL_PROFILE || !m.u.profile.cell_count) {
        control_free(&m);
        goto damaged;
    }
    *out = m;
    rc = 0;
    goto done;
damaged:
    log_warn("%s is damaged; the device is measured again", path);
done:
    mem_free(path);
    buffer_free(&b);
    return rc ? error_set(err, rc, "no cached profile") : 0;
}

static int write_file(const char *path, const struct buffer *b)
{
    char *fresh = mem_printf("%s.%ld", path, (long)getpid());
    if (!fresh)
        return -1;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), rc = fd < 0 ? -1 : 0;
    for (size_t done = 0; !rc && done < b->size;) {
        ssize_t n = write(fd, b->data + done, b->size - done);
        if (n < 0 && errno != EINTR)
            rc = -1;
        done += n > 0 ? (size_t)n : 0;
    }
    if (!rc && fsync(fd))
        rc = -1;
    if (fd >= 0 && close(fd))
        rc = -1;
    if (!rc && rename(fresh, path))
        rc = -1;
    int saved = errno;
    if (rc)
        unlink(fresh);
    mem_free(fresh);
    errno = saved;
    return rc;
}

void profile_cache_write(const struct compute *c, const struct control_message *probe,
                         const struct control_message *profile)
{
    struct buffer body = {0}, file = {.limit = CACHE_FILE_MAX};
    if (!c->w->options->cache_path)
        return;
    char *path = cache_path(c, probe);
    if (path && !control_encode(profile, &body, NULL) &&
        !buffer_printf(&file, "brigade profile 2 %08x\n", hash_crc32(0, body.data, body.size)) &&
        !buffer_append(&file, body.data, body.size)) {
        if (mkdir(c->w->options->cache_path, 0700) && errno != EEXIST)
            log_warn("%s: cannot make the cache folder: %s", c->w->options->cache_path, strerror(errno));
        else if (write_file(path, &file))
            log_warn("%s: cannot keep the profile: %s", path, strerror(errno));
    }
    mem_free(path);
    buffer_free(&body);
    buffer_free(&file);
}
