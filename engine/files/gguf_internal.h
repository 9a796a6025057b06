/* What the four files of the GGUF reader share: the open file itself. Nobody else includes this.
 *   gguf.c        opening: maps, the indices by name, closing
 *   gguf_set.c    split sets: several files that are one
 *   gguf_parse.c  one file's bytes into keys and tensors, every field proven before it is used
 *   gguf_value.c  typed reading of keys */
#ifndef BRIGADE_ENGINE_FILES_GGUF_INTERNAL_H
#define BRIGADE_ENGINE_FILES_GGUF_INTERNAL_H

#include "engine/files/gguf.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "GGUF is read in place, so the machine must be little-endian");

/* Bounds that no real file comes near; they keep a hostile one from costing memory or time. */
#define GGUF_KEYS_MAX 65536u
#define GGUF_TENSORS_MAX (1u << 20)
#define GGUF_KEY_NAME_MAX 65535u
#define GGUF_TEXT_MAX (256u << 20) /* bytes of one string value */
#define GGUF_ALIGNMENT_MAX 65536u
#define GGUF_FILES_MAX 1024

struct gguf_file {
    char *path;
    const unsigned char *bytes;
    uint64_t size;
    bool mapped; /* ours to unmap */
};

/* Open-addressed table of positions + 1 (0: free slot); slots is a power of two. */
struct gguf_index {
    uint32_t *slots;
    size_t mask;
};

struct gguf {
    struct gguf_file *files;
    int file_count;
    char *path; /* as given */
    uint32_t version;
    uint64_t seed; /* of the name hash: secret, so that a hostile file cannot choose colliding names */
    struct gguf_key *keys;
    size_t key_count;
    struct gguf_index key_index;
    struct gguf_tensor *tensors;
    size_t tensor_count;
    struct gguf_index tensor_index;
};

/* Fills version, keys, key_index and tensors (not their index) of g from g->files[0]. */
int gguf_parse(struct gguf *g, struct error *err);

/* The file at path, or `bytes` at `offset` in it (bytes 0: all), not looking at whether it belongs to a set, and its
 * tensors not indexed yet. */
int gguf_open_one(const char *path, uint64_t offset, uint64_t bytes, struct gguf **out, struct error *err);
/* g is some opened member of a set of `members`; on success *set is the whole. g is closed or becomes part of it. */
int gguf_open_set(struct gguf *g, unsigned members, struct gguf **set, struct error *err);
/* Fills tensor_index; each name must be there once. */
int gguf_index_tensors(struct gguf *g, struct error *err);
/* Puts position under name; false when the name is there already. The table must have a free slot. */
bool gguf_index_add_key(struct gguf *g, size_t position);
bool gguf_index_add_tensor(struct gguf *g, size_t position);
/* Makes an empty table for count names. */
int gguf_index_start(struct gguf_index *index, size_t count);

/* Bytes of a scalar type; 0 for strings and arrays. */
size_t gguf_scalar_bytes(enum gguf_type type);
/* "u32", for messages. */
const char *gguf_type_text(uint32_t type);

/* Bytes from a file, made fit for a message: printable ASCII, others as '?', cut with "..." when long. */
#define GGUF_SHOWN 80
const char *gguf_shown(struct gguf_text text, char shown[static GGUF_SHOWN]);
/* The end of a path that would fill the message. */
const char *gguf_path_shown(const char *path);

#endif
