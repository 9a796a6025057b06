/* Writes GGUF v3 files as a stream: keys, then the tensor directory, then each tensor's bytes in the order declared.
 *
 * Everything goes to PATH.part-PID-N beside the target; only gguf_writer_finish, after fsync, renames it over PATH. So
 * a full disk, an error or a crash leaves what was at PATH as it was. Reading the old PATH while writing is fine.
 * Order of calls: open, keys, tensors, begin, data..., finish, close. One thread. */
#ifndef BRIGADE_ENGINE_FILES_GGUF_WRITER_H
#define BRIGADE_ENGINE_FILES_GGUF_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"

struct gguf_writer;

/* *out is the caller's: gguf_writer_close. */
int gguf_writer_open(const char *path, struct gguf_writer **out, struct error *err);
/* Frees; what was not finished is removed, and PATH stays as it was. NULL is fine. */
void gguf_writer_close(struct gguf_writer *w);

/* Copies all keys of `from` in order, but for the split set's and general.alignment (written files use 32).
 * Must come before any other key. */
int gguf_writer_copy_keys(struct gguf_writer *w, const struct gguf *from, struct error *err);
/* Sets a key: in its old place when it is there already, else at the end. */
int gguf_writer_set_u32(struct gguf_writer *w, const char *name, uint32_t value, struct error *err);
int gguf_writer_set_f32(struct gguf_writer *w, const char *name, float value, struct error *err);
int gguf_writer_set_bool(struct gguf_writer *w, const char *name, bool value, struct error *err);
int gguf_writer_set_text(struct gguf_writer *w, const char *name, struct gguf_text value, struct error *err);
/* An array of a numeric type (count elements at data) or of strings (data is count struct gguf_text). */
int gguf_writer_set_array(struct gguf_writer *w, const char *name, enum gguf_type element, const void *data,
                          uint64_t count, struct error *err);
/* Removes a key; nothing happens when it is not there. */
void gguf_writer_remove(struct gguf_writer *w, const char *name);

/* Declares the next tensor: dims 1 to 4, shape[0] contiguous. Its bytes follow from type and shape. */
int gguf_writer_add_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape,
                           struct error *err);
/* Bytes the finished file will have, from what is declared so far. */
uint64_t gguf_writer_bytes(const struct gguf_writer *w);

/* Creates the temporary file, reserves its space where the file system can, and writes everything but the data. */
int gguf_writer_begin(struct gguf_writer *w, struct error *err);
/* The next n bytes of tensor data; padding between tensors is the writer's matter. ERR_BOUND when the declared tensors
 * have no room for them. */
int gguf_writer_data(struct gguf_writer *w, const void *bytes, size_t n, struct error *err);
/* All data must be there (ERR_ORDER). Flushes to the disk and gives the file its name. */
int gguf_writer_finish(struct gguf_writer *w, struct error *err);

#endif
