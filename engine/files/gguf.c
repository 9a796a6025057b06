/* Opening GGUF files: the maps and the indices by name. Split sets stand in gguf_set.c.
 * Owns the maps and the directory of a struct gguf; never writes to either after gguf_open returns, so any thread may
 * read. A file that another program cuts short while it is mapped raises SIGBUS: no reader through mmap can help that.
 */
#include "engine/files/gguf_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"

/* --- names --- */

static uint64_t hash_name(uint64_t seed, const char *data, size_t size)
{
    uint64_t h = hash_mix64(seed + size), word;
    for (; size >= sizeof word; data += sizeof word, size -= sizeof word) {
        memcpy(&word, data, sizeof word);
        h = hash_mix64(h ^ word);
    }
    word = 0;
    memcpy(&word, data, size);
    return hash_mix64(h ^ word);
}

int gguf_index_start(struct gguf_index *index, size_t count)
{
    size_t slots = 4;
    while (slots < 2 * count)
        slots *= 2;
    index->slots = mem_zalloc(slots, sizeof *index->slots);
    index->mask = slots - 1;
    return index->slots ? 0 : ERR_NOMEM;
}

/* The slot that holds the name, or the free one where it would go. */
static uint32_t *key_slot(const struct gguf *g, const char *name, size_t size)
{
    size_t at = hash_name(g->seed, name, size);
    for (;; at++) {
        uint32_t *slot = &g->key_index.slots[at & g->key_index.mask];
        if (!*slot)
            return slot;
        const struct gguf_text *there = &g->keys[*slot - 1].name;
        if (there->size == size && !memcmp(there->data, name, size))
            return slot;
    }
}

static uint32_t *tensor_slot(const struct gguf *g, const char *name)
{
    size_t at = hash_name(g->seed, name, strlen(name));
    for (;; at++) {
        uint32_t *slot = &g->tensor_index.slots[at & g->tensor_index.mask];
        if (!*slot || !strcmp(g->tensors[*slot - 1].name, name))
            return slot;
    }
}

bool gguf_index_add_key(struct gguf *g, size_t position)
{
    uint32_t *slot = key_slot(g, g->keys[position].name.data, g->keys[position].name.size);
    if (*slot)
        return false;
    *slot = (uint32_t)position + 1;
    return true;
}

bool gguf_index_add_tensor(struct gguf *g, size_t position)
{
    uint32_t *slot = tensor_slot(g, g->tensors[position].name);
    if (*slot)
        return false;
    *slot = (uint32_t)position + 1;
    return true;
}

int gguf_index_tensors(struct gguf *g, struct error *err)
{
    if (gguf_index_start(&g->tensor_index, g->tensor_count))
        return error_set(err, ERR_NOMEM, "%s: out of memory for the directory of the file", gguf_path_shown(g->path));
    for (size_t i = 0; i < g->tensor_count; i++)
        if (!gguf_index_add_tensor(g, i))
            return error_set(err, ERR_FORMAT, "%s: tensor '%s' is there twice; the file is damaged",
                             gguf_path_shown(g->files[g->tensors[i].file].path), g->tensors[i].name);
    return 0;
}

/* --- one file --- */

/* A struct gguf of one file with nothing read yet. */
static struct gguf *start(const char *path)
{
    struct gguf *g = mem_zalloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->path = mem_strdup(path);
    g->files = mem_zalloc(1, sizeof *g->files);
    if (g->files) {
        g->file_count = 1;
        g->files[0].path = mem_strdup(path);
    }
    if (!g->path || !g->files || !g->files[0].path) {
        gguf_close(g);
        return NULL;
    }
    if (getrandom(&g->seed, sizeof g->seed, GRND_NONBLOCK) != sizeof g->seed)
        g->seed = hash_mix64((uint64_t)clock_ns() ^ (uintptr_t)g);
    return g;
}

/* `bytes` at `offset` of the file, or all of it when bytes is 0. */
static int map_file(struct gguf_file *f, uint64_t offset, uint64_t bytes, struct error *err)
{
    const char *shown = gguf_path_shown(f->path);
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: cannot open the model: %s", shown,
                         strerror(errno));
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st))
        rc = error_set(err, ERR_IO, "%s: cannot read the size of the model: %s", shown, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = error_set(err, ERR_IO, "%s: this is %s, not a model file", shown,
                       S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    else if (st.st_size == 0)
        rc = error_set(err, ERR_FORMAT, "%s: the file is empty; fetch it again", shown);
    else if ((uint64_t)st.st_size > SIZE_MAX)
        rc = error_set(err, ERR_UNSUPPORTED, "%s: the file is larger than this machine can address", shown);
    else if (bytes && (bytes > (uint64_t)st.st_size || offset > (uint64_t)st.st_size - bytes))
        rc = error_set(err, ERR_FORMAT, "%s: the file was cut short; fetch it again", shown);
    if (!rc) {
        uint64_t size = bytes ? bytes : (uint64_t)st.st_size;
        void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, (off_t)offset);
        if (map == MAP_FAILED)
            rc = error_set(err, ERR_IO, "%s: cannot map the model: %s", shown, strerror(errno));
        else
            *f = (struct gguf_file){f->path, map, size, true};
    }
    close(fd);
    return rc;
}

int gguf_open_one(const char *path, uint64_t offset, uint64_t bytes, struct gguf **out, struct error *err)
{
    struct gguf *g = start(path);
    if (!g)
        return error_set(err, ERR_NOMEM, "%s: out of memory while opening the model", gguf_path_shown(path));
    int rc = map_file(&g->files[0], offset, bytes, err);
    if (!rc)
        rc = gguf_parse(g, err);
    if (rc) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

/* --- the public door --- */

int gguf_open(const char *path, struct gguf **out, struct error *err)
{
    struct gguf *g;
    int rc = gguf_open_one(path, 0, 0, &g, err);
    if (rc)
        return rc;
    uint32_t members = 1;
    rc = gguf_get_u32(g, "split.count", &members, err);
    if (rc >= 0 && members > 1) {
        rc = gguf_open_set(g, members, &g, err);
        if (rc)
            return rc;
    }
    if (rc >= 0)
        rc = gguf_index_tensors(g, err);
    if (rc < 0) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gguf_open_memory(const void *bytes, size_t size, const char *name, struct gguf **out, struct error *err)
{
    if ((uintptr_t)bytes % 8)
        return error_set(err, ERR_USAGE, "%s: the bytes of a model in memory must be aligned to 8", name);
    struct gguf *g = start(name);
    if (!g)
        return error_set(err, ERR_NOMEM, "%s: out of memory while opening the model", gguf_path_shown(name));
    g->files[0].bytes = bytes;
    g->files[0].size = size;
    int rc = gguf_parse(g, err);
    uint32_t members = 1;
    if (!rc && (rc = gguf_get_u32(g, "split.count", &members, err)) >= 0)
        rc = members > 1 ? error_set(err, ERR_UNSUPPORTED, "%s: one file of a split set cannot be opened from memory",
                                     gguf_path_shown(name))
                         : gguf_index_tensors(g, err);
    if (rc < 0) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->file_count; i++) {
        if (g->files[i].mapped)
            munmap((void *)(uintptr_t)g->files[i].bytes, (size_t)g->files[i].size);
        mem_free(g->files[i].path);
    }
    mem_free(g->files);
    mem_free(g->path);
    mem_free(g->keys);
    mem_free(g->key_index.slots);
    mem_free(g->tensors);
    mem_free(g->tensor_index.slots);
    mem_free(g);
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    uint64_t bytes = 0;
    for (int i = 0; i < g->file_count; i++)
        bytes += g->files[i].size;
    return bytes;
}

int gguf_file_count(const struct gguf *g)
{
    return g->file_count;
}

const char *gguf_file_path(const struct gguf *g, int file)
{
    return g->files[file].path;
}

const void *gguf_file_map(const struct gguf *g, int file, uint64_t *bytes)
{
    *bytes = g->files[file].size;
    return g->files[file].bytes;
}

size_t gguf_key_count(const struct gguf *g)
{
    return g->key_count;
}

const struct gguf_key *gguf_key_at(const struct gguf *g, size_t i)
{
    return &g->keys[i];
}

const struct gguf_key *gguf_find(const struct gguf *g, const char *name)
{
    uint32_t position = *key_slot(g, name, strlen(name));
    return position ? &g->keys[position - 1] : NULL;
}

size_t gguf_tensor_count(const struct gguf *g)
{
    return g->tensor_count;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    uint32_t position = *tensor_slot(g, name);
    return position ? &g->tensors[position - 1] : NULL;
}

void gguf_advise(const struct gguf *g, const struct gguf_tensor *t, bool needed)
{
    const struct gguf_file *f = &g->files[t->file];
    if (!f->mapped)
        return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)t->data, end = first + t->bytes;
    /* Wanted pages are those the tensor touches; unwanted ones only those it has to itself. */
    first = needed ? first / page * page : (first + page - 1) / page * page;
    end = needed ? (end + page - 1) / page * page : end / page * page;
    if (first < end)
        madvise((void *)first, end - first, needed ? MADV_WILLNEED : MADV_DONTNEED);
}
