/* Whole files: read, create, replace, lock. Owns nothing; any thread. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

char *file_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? mem_strdup(".") : mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int file_read(const char *path, struct buffer *out, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return error_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    for (;;) {
        char piece[4096];
        ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            rc = error_set(err, ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (got <= 0)
            break;
        if ((rc = buffer_append(out, piece, (size_t)got))) {
            error_set(err, rc, rc == ERR_BOUND ? "%s: larger than %zu bytes" : "%s: no memory for it", path,
                      out->limit);
            break;
        }
    }
    close(fd);
    return rc;
}

static int write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno != EINTR)
            return -1;
        if (done > 0) {
            bytes += done;
            n -= (size_t)done;
        }
    }
    return 0;
}

/* The name is on the disk only when its folder is. */
static int sync_folder(const char *path)
{
    char *folder = file_folder(path);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (!folder)
        errno = ENOMEM;
    mem_free(folder);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc && errno != EINVAL && errno != EROFS ? -1 : 0;
}

/* Writes, syncs and closes fd; 0 or an errno. */
static int finish(int fd, const void *bytes, size_t n)
{
    int failure = write_all(fd, bytes, n) || fsync(fd) ? errno : 0;
    return close(fd) && !failure ? errno : failure;
}

int file_create(const char *path, const void *bytes, size_t n, mode_t mode, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 && (errno == EEXIST || errno == ELOOP))
        return error_set(err, ERR_USAGE, "%s: exists already", path);
    if (fd < 0)
        return error_set(err, ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    int failure = fchmod(fd, mode) ? errno : 0, written = finish(fd, bytes, n);
    if (!failure)
        failure = written;
    if (!failure && sync_folder(path))
        failure = errno;
    if (!failure)
        return 0;
    unlink(path);
    return error_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(failure));
}

int file_replace(const char *path, const void *bytes, size_t n, struct error *err)
{
    struct stat st;
    char *real = realpath(path, NULL), *beside = real ? mem_printf("%s.XXXXXX", real) : NULL;
    int fd = -1, failure = 0, rc = 0;
    if (!real || stat(real, &st)) {
        rc = error_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    } else if (!beside) {
        rc = error_set(err, ERR_NOMEM, "%s: no memory to replace it", path);
    } else if ((fd = mkostemp(beside, O_CLOEXEC)) < 0) {
        rc = error_set(err, ERR_IO, "%s: cannot write beside it: %s", path, strerror(errno));
    } else {
        failure = fchmod(fd, st.st_mode & 07777) ? errno : 0;
        if (!geteuid() && fchown(fd, st.st_uid, st.st_gid))
            failure = errno;
        int written = finish(fd, bytes, n);
        failure = failure ? failure : written;
        if (!failure && rename(beside, real))
            failure = errno;
        if (failure)
            unlink(beside);
        else if (sync_folder(real))
            failure = errno;
        if (failure)
            rc = error_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(failure));
    }
    mem_free(beside);
    free(real); /* the C library's own allocation */
    return rc;
}

int file_put(const char *path, const void *bytes, size_t n, struct error *err)
{
    struct error missing = {0};
    int rc = file_replace(path, bytes, n, &missing);
    if (rc == ERR_NOTFOUND)
        return file_create(path, bytes, n, 0600, err);
    return rc ? error_set(err, rc, "%s", missing.text) : 0;
}

int file_make_folders(const char *path, struct error *err)
{
    char *copy = mem_strdup(path);
    int rc = copy ? 0 : error_set(err, ERR_NOMEM, "%s: no memory for its folders", path);
    for (char *slash = copy && *copy ? strchr(copy + 1, '/') : NULL; slash && !rc; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(copy, 0700) && errno != EEXIST)
            rc = error_set(err, ERR_IO, "%s: cannot make this folder: %s", copy, strerror(errno));
        *slash = '/';
    }
    mem_free(copy);
    return rc;
}

int file_lock_folder(const char *path, int timeout_ms, int *out, struct error *err)
{
    char *folder = file_folder(path);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, rc = 0;
    if (!folder)
        rc = error_set(err, ERR_NOMEM, "%s: no memory for its folder's name", path);
    else if (fd < 0)
        rc = error_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", folder, strerror(errno));
    int64_t until = clock_ms() + timeout_ms;
    while (!rc && flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            rc = error_set(err, ERR_IO, "%s: cannot lock: %s", folder, strerror(errno));
        else if (clock_ms() >= until)
            rc = error_set(err, ERR_BUSY, "%s: another program is changing it; try again", path);
        else
            usleep(20000);
    }
    mem_free(folder);
    if (rc && fd >= 0)
        close(fd);
    if (!rc)
        *out = fd;
    return rc;
}
