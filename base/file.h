/* Small files as a whole: read, replaced so that a reader sees the old or the new text and never a mixture, and a lock
 * for those who read, change and replace. Any thread. */
#ifndef BRIGADE_BASE_FILE_H
#define BRIGADE_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"

/* Appends the whole file to out. ERR_NOTFOUND, ERR_IO, ERR_NOMEM; ERR_BOUND over out->limit. */
int file_read(const char *path, struct buffer *out, struct error *err);
/* A new file of this mode, on the disk when this returns. ERR_USAGE when the name is taken, ERR_IO. Nothing is left
 * behind after a failure. */
int file_create(const char *path, const void *bytes, size_t n, mode_t mode, struct error *err);
/* Puts new text in a file's place, keeping its mode (and, for root, its owner); follows a symbolic link to the file it
 * means. ERR_NOTFOUND, ERR_IO, ERR_NOMEM; the old text stays after a failure. */
int file_replace(const char *path, const void *bytes, size_t n, struct error *err);
/* The file holds these bytes afterwards, whether it was there before or not (mode 0600). As file_create and file_replace. */
int file_put(const char *path, const void *bytes, size_t n, struct error *err);
/* Makes the folders on the way to path's last part, mode 0700. ERR_IO, ERR_NOMEM. */
int file_make_folders(const char *path, struct error *err);
/* Waits up to timeout_ms for the lock of the folder that holds path; *fd is closed to give it back. ERR_BUSY, ERR_IO.
 */
int file_lock_folder(const char *path, int timeout_ms, int *fd, struct error *err);
/* The folder of a path, "." for a bare name; mem_free. NULL when out of memory. */
char *file_folder(const char *path);

#endif
