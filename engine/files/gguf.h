/* GGUF files, v2 and v3, read through mmap: metadata, the tensor directory, and where each tensor's bytes lie.
 *
 * Everything in the file is hostile until checked: every length, offset, type, count, dimension product and alignment
 * is proven inside the file before it is used; any flaw is one line naming the file, the field and the fix.
 * A split set (NAME-00001-of-0000N.gguf) opens as one file. A `struct gguf` is immutable after gguf_open: any thread.
 * Source: the public GGUF specification. */
#ifndef BRIGADE_ENGINE_FILES_GGUF_H
#define BRIGADE_ENGINE_FILES_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/quant/types.h"

struct gguf;

/* A string inside the map: not NUL-terminated. */
struct gguf_text {
    const char *data;
    size_t size;
};

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64,
    GGUF_TYPES
};

struct gguf_key {
    struct gguf_text name;
    enum gguf_type type;
    enum gguf_type element; /* of an array */
    uint64_t count;         /* of an array, else 1 */
    const void *data;       /* the value, or the array's first element, inside the map; perhaps unaligned; a string
                             * starts with its u64 length: read it with gguf_get_text or gguf_array_strings */
};

struct gguf_tensor {
    char name[128];      /* terminated */
    uint32_t type;       /* always known to type_info() */
    uint32_t dims;       /* 1 to 4 */
    uint64_t shape[4];   /* shape[0] is the contiguous one (columns); unused ones are 1 */
    uint64_t bytes;
    const void *data;    /* inside the map, aligned to the file's alignment */
    int file;            /* which file of a split set, from 0 */
    uint64_t offset;     /* of data in that file */
};

/* Opens path (any member of a split set opens the whole set). *out is the caller's: gguf_close. */
int gguf_open(const char *path, struct gguf **out, struct error *err);
/* Where a member of a set lies in a file that holds all of them; offset: a multiple of every machine's page size. */
#define GGUF_PART_ALIGNMENT 65536u
struct gguf_part {
    uint64_t offset, bytes;
};
/* As gguf_open, of a file in which the members of a set lie one after another (one: an ordinary file). */
int gguf_open_joined(const char *path, const struct gguf_part *parts, unsigned count, struct gguf **out,
                     struct error *err);
/* As gguf_open, over bytes the caller keeps alive and unchanged (tests, fuzzers). `name` serves messages. */
int gguf_open_memory(const void *bytes, size_t size, const char *name, struct gguf **out, struct error *err);
void gguf_close(struct gguf *g); /* NULL is fine */

uint32_t gguf_version(const struct gguf *g);
const char *gguf_path(const struct gguf *g);       /* as given to gguf_open */
uint64_t gguf_file_bytes(const struct gguf *g);    /* of all files of the set */
int gguf_file_count(const struct gguf *g);
const char *gguf_file_path(const struct gguf *g, int file);
const void *gguf_file_map(const struct gguf *g, int file, uint64_t *bytes); /* all of that file; lives as long as g */

size_t gguf_key_count(const struct gguf *g);
const struct gguf_key *gguf_key_at(const struct gguf *g, size_t i);
const struct gguf_key *gguf_find(const struct gguf *g, const char *name); /* NULL when absent */

/* Typed readers: 1 when the key is there and *out is set (any integer type widens, range checked; F64 narrows to
 * float), 0 when absent, ERR_FORMAT with a line in err when it is of another type or out of range. */
int gguf_get_u32(const struct gguf *g, const char *name, uint32_t *out, struct error *err);
int gguf_get_f32(const struct gguf *g, const char *name, float *out, struct error *err);
int gguf_get_bool(const struct gguf *g, const char *name, bool *out, struct error *err);
int gguf_get_text(const struct gguf *g, const char *name, struct gguf_text *out, struct error *err);
/* Element i of an array key, widened; the key's element type must be numeric (else 0). i < count. */
int64_t gguf_array_int(const struct gguf_key *key, uint64_t i);
double gguf_array_float(const struct gguf_key *key, uint64_t i);
/* Calls visit for every element of a string array in order; stops at and returns the first non-zero result. */
int gguf_array_strings(const struct gguf_key *key, int (*visit)(void *context, uint64_t i, struct gguf_text text),
                       void *context);

size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name); /* hashed; NULL when absent */

/* Tells the kernel that a tensor's bytes will, or will no longer, be needed (madvise; a hint only). */
void gguf_advise(const struct gguf *g, const struct gguf_tensor *t, bool needed);

#endif
