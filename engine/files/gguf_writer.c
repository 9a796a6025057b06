/* The streaming GGUF writer. Owns its temporary file and its copies of keys and names; one thread. */
#include "engine/files/gguf_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "base/units.h"
#include "engine/files/gguf_internal.h"

#define ALIGNMENT 32u
#define CHUNK_BYTES (1u << 20)

struct written_key {
    char *name;
    size_t name_size;
    uint32_t type;
    struct buffer value; /* encoded as in the file, from behind the type */
};

struct written_tensor {
    char *name;
    uint32_t type, dims;
    uint64_t shape[4], bytes, offset;
};

struct gguf_writer {
    char *path, *part;
    int fd; /* -1 until begin */
    bool finished;
    struct written_key *keys;
    size_t key_count;
    struct written_tensor *tensors;
    size_t tensor_count;
    uint64_t data_bytes;  /* of the data section as declared, padding included */
    size_t at_tensor;     /* whose data comes next */
    uint64_t at_byte;     /* of that tensor */
    uint64_t total_bytes; /* of the file */
    struct buffer out;    /* not yet handed to the kernel */
};

static const char *shown(const struct gguf_writer *w)
{
    return gguf_path_shown(w->path);
}

static int no_memory(const struct gguf_writer *w, struct error *err)
{
    return error_set(err, ERR_NOMEM, "%s: out of memory while writing the model", shown(w));
}

int gguf_writer_open(const char *path, struct gguf_writer **out, struct error *err)
{
    static _Atomic unsigned count;
    struct gguf_writer *w = mem_zalloc(1, sizeof *w);
    if (w) {
        w->fd = -1;
        w->path = mem_strdup(path);
        w->part = mem_printf("%s.part-%ld-%u", path, (long)getpid(), atomic_fetch_add(&count, 1));
    }
    if (!w || !w->path || !w->part) {
        gguf_writer_close(w);
        return error_set(err, ERR_NOMEM, "%s: out of memory while writing the model", gguf_path_shown(path));
    }
    *out = w;
    return 0;
}

static void free_key(struct written_key *key)
{
    mem_free(key->name);
    buffer_free(&key->value);
}

void gguf_writer_close(struct gguf_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0) {
        close(w->fd);
        if (!w->finished)
            unlink(w->part);
    }
    for (size_t i = 0; i < w->key_count; i++)
        free_key(&w->keys[i]);
    for (size_t i = 0; i < w->tensor_count; i++)
        mem_free(w->tensors[i].name);
    mem_free(w->keys);
    mem_free(w->tensors);
    buffer_free(&w->out);
    mem_free(w->path);
    mem_free(w->part);
    mem_free(w);
}

/* --- keys --- */

/* Appends a key with an empty value, or NULL. */
static struct written_key *append_key(struct gguf_writer *w, struct gguf_text name, uint32_t type)
{
    struct written_key *keys = mem_resize(w->keys, w->key_count + 1, sizeof *keys);
    if (!keys)
        return NULL;
    w->keys = keys;
    struct written_key *key = &keys[w->key_count];
    *key = (struct written_key){.name = mem_alloc(name.size + 1), .name_size = name.size, .type = type};
    if (!key->name)
        return NULL;
    memcpy(key->name, name.data, name.size);
    key->name[name.size] = 0;
    w->key_count++;
    return key;
}

static struct written_key *find_key(struct gguf_writer *w, const char *name)
{
    for (size_t i = 0; i < w->key_count; i++)
        if (!strcmp(w->keys[i].name, name))
            return &w->keys[i];
    return NULL;
}

/* The key to fill, emptied when it was there. */
static struct written_key *start_key(struct gguf_writer *w, const char *name, uint32_t type)
{
    struct written_key *key = find_key(w, name);
    if (!key)
        return append_key(w, (struct gguf_text){name, strlen(name)}, type);
    buffer_clear(&key->value);
    key->type = type;
    return key;
}

void gguf_writer_remove(struct gguf_writer *w, const char *name)
{
    struct written_key *key = find_key(w, name);
    if (!key)
        return;
    free_key(key);
    size_t at = (size_t)(key - w->keys);
    memmove(key, key + 1, (--w->key_count - at) * sizeof *key);
}

static int set_scalar(struct gguf_writer *w, const char *name, enum gguf_type type, const void *value,
                      struct error *err)
{
    struct written_key *key = start_key(w, name, type);
    if (!key || buffer_append(&key->value, value, gguf_scalar_bytes(type)))
        return no_memory(w, err);
    return 0;
}

int gguf_writer_set_u32(struct gguf_writer *w, const char *name, uint32_t value, struct error *err)
{
    return set_scalar(w, name, GGUF_U32, &value, err);
}

int gguf_writer_set_f32(struct gguf_writer *w, const char *name, float value, struct error *err)
{
    return set_scalar(w, name, GGUF_F32, &value, err);
}

int gguf_writer_set_bool(struct gguf_writer *w, const char *name, bool value, struct error *err)
{
    unsigned char byte = value;
    return set_scalar(w, name, GGUF_BOOL, &byte, err);
}

static int put_text(struct buffer *b, struct gguf_text text)
{
    uint64_t size = text.size;
    int rc = buffer_append(b, &size, sizeof size);
    return rc ? rc : buffer_append(b, text.data, text.size);
}

int gguf_writer_set_text(struct gguf_writer *w, const char *name, struct gguf_text value, struct error *err)
{
    struct written_key *key = start_key(w, name, GGUF_STRING);
    if (!key || put_text(&key->value, value))
        return no_memory(w, err);
    return 0;
}

int gguf_writer_set_array(struct gguf_writer *w, const char *name, enum gguf_type element, const void *data,
                          uint64_t count, struct error *err)
{
    if (element == GGUF_ARRAY || element >= GGUF_TYPES)
        return error_set(err, ERR_USAGE, "%s: key '%s' cannot be an array of arrays", shown(w), name);
    struct written_key *key = start_key(w, name, GGUF_ARRAY);
    if (!key)
        return no_memory(w, err);
    uint32_t type = element;
    int rc = buffer_append(&key->value, &type, sizeof type);
    if (!rc)
        rc = buffer_append(&key->value, &count, sizeof count);
    if (element != GGUF_STRING) {
        if (!rc)
            rc = buffer_append(&key->value, data, count * gguf_scalar_bytes(element));
    } else {
        const struct gguf_text *texts = data;
        for (uint64_t i = 0; i < count && !rc; i++)
            rc = put_text(&key->value, texts[i]);
    }
    return rc ? no_memory(w, err) : 0;
}

static int visit_text(void *context, uint64_t i, struct gguf_text text)
{
    return put_text(context, text);
}

static int copy_key(struct gguf_writer *w, const struct gguf_key *from)
{
    struct written_key *key = append_key(w, from->name, from->type);
    if (!key)
        return ERR_NOMEM;
    int rc = 0;
    if (from->type == GGUF_ARRAY) {
        uint32_t element = from->element;
        rc = buffer_append(&key->value, &element, sizeof element);
        if (!rc)
            rc = buffer_append(&key->value, &from->count, sizeof from->count);
    }
    if (rc)
        return rc;
    if (from->element == GGUF_STRING)
        return gguf_array_strings(from, visit_text, &key->value);
    return buffer_append(&key->value, from->data, from->count * gguf_scalar_bytes(from->element));
}

int gguf_writer_copy_keys(struct gguf_writer *w, const struct gguf *from, struct error *err)
{
    static const char *const dropped[] = {"split.no", "split.count", "split.tensors.count", "general.alignment"};
    if (w->key_count)
        return error_set(err, ERR_ORDER, "%s: keys must be copied before others are set", shown(w));
    for (size_t i = 0; i < gguf_key_count(from); i++) {
        const struct gguf_key *key = gguf_key_at(from, i);
        bool drop = false;
        for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++)
            drop |= key->name.size == strlen(dropped[k]) && !memcmp(key->name.data, dropped[k], key->name.size);
        if (!drop && copy_key(w, key))
            return no_memory(w, err);
    }
    return 0;
}

/* --- tensors --- */

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int gguf_writer_add_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape,
                           struct error *err)
{
    struct written_tensor t = {.type = type, .dims = dims, .shape = {1, 1, 1, 1}, .offset = w->data_bytes};
    if (!*name || strlen(name) > sizeof((struct gguf_tensor *)0)->name - 1 || dims < 1 || dims > 4)
        return error_set(err, ERR_USAGE, "%s: tensor '%s' has a name or a number of dimensions that no GGUF file holds",
                         shown(w), name);
    t.bytes = type_row_bytes(type, shape[0]);
    for (uint32_t i = 0; i < dims; i++) {
        t.shape[i] = shape[i];
        if (i && __builtin_mul_overflow(t.bytes, shape[i], &t.bytes))
            t.bytes = 0;
    }
    uint64_t end;
    if (!t.bytes || t.bytes > INT64_MAX || __builtin_add_overflow(w->data_bytes, aligned(t.bytes), &end) ||
        end > INT64_MAX / 2)
        return error_set(err, ERR_USAGE, "%s: tensor '%s' has a shape that %s cannot hold", shown(w), name,
                         type_name(type));
    struct written_tensor *tensors = mem_resize(w->tensors, w->tensor_count + 1, sizeof *tensors);
    if (tensors)
        w->tensors = tensors;
    t.name = mem_strdup(name);
    if (!tensors || !t.name) {
        mem_free(t.name);
        return no_memory(w, err);
    }
    tensors[w->tensor_count++] = t;
    w->data_bytes = end;
    return 0;
}

static uint64_t directory_bytes(const struct gguf_writer *w)
{
    uint64_t bytes = 4 + 4 + 8 + 8;
    for (size_t i = 0; i < w->key_count; i++)
        bytes += 8 + w->keys[i].name_size + 4 + w->keys[i].value.size;
    for (size_t i = 0; i < w->tensor_count; i++)
        bytes += 8 + strlen(w->tensors[i].name) + 4 + 8 * (uint64_t)w->tensors[i].dims + 4 + 8;
    return aligned(bytes);
}

uint64_t gguf_writer_bytes(const struct gguf_writer *w)
{
    return directory_bytes(w) + w->data_bytes;
}

/* --- the file --- */

static int write_failed(const struct gguf_writer *w, int error, struct error *err)
{
    if (error != ENOSPC && error != EDQUOT && error != EFBIG)
        return error_set(err, ERR_IO, "%s: cannot write the model: %s; nothing was changed there", shown(w),
                         strerror(error));
    char needed[UNITS_TEXT], free_text[UNITS_TEXT] = "too little";
    struct statvfs fs;
    if (error == ENOSPC && !fstatvfs(w->fd, &fs))
        units_bytes_text((uint64_t)fs.f_bavail * fs.f_frsize, free_text);
    return error_set(err, ERR_IO,
                     "%s: %s: the model needs %s and %s is free; free some space or write elsewhere "
                     "(nothing was changed there)",
                     shown(w), error == ENOSPC ? "the disk is full" : strerror(error),
                     units_bytes_text(w->total_bytes, needed), free_text);
}

static int write_all(struct gguf_writer *w, const char *bytes, size_t n, struct error *err)
{
    while (n) {
        ssize_t done = write(w->fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return write_failed(w, done < 0 ? errno : EIO, err);
        bytes += done;
        n -= (size_t)done;
    }
    return 0;
}

static int flush(struct gguf_writer *w, struct error *err)
{
    int rc = write_all(w, w->out.data, w->out.size, err);
    buffer_clear(&w->out);
    return rc;
}

/* Through the buffer, or straight to the file when the bytes are many. */
static int put(struct gguf_writer *w, const void *bytes, size_t n, struct error *err)
{
    int rc = 0;
    if (w->out.size + n > CHUNK_BYTES)
        rc = flush(w, err);
    if (!rc && n > CHUNK_BYTES)
        return write_all(w, bytes, n, err);
    if (!rc && buffer_append(&w->out, bytes, n))
        rc = no_memory(w, err);
    return rc;
}

static int put_padding(struct gguf_writer *w, uint64_t bytes, struct error *err)
{
    static const char zeros[ALIGNMENT];
    return put(w, zeros, (size_t)(aligned(bytes) - bytes), err);
}

static int put_directory(struct gguf_writer *w, struct error *err)
{
    struct buffer b = {0};
    uint32_t version = 3;
    uint64_t tensors = w->tensor_count, keys = w->key_count;
    buffer_append(&b, "GGUF", 4);
    buffer_append(&b, &version, sizeof version);
    buffer_append(&b, &tensors, sizeof tensors);
    buffer_append(&b, &keys, sizeof keys);
    for (size_t i = 0; i < w->key_count; i++) {
        const struct written_key *key = &w->keys[i];
        put_text(&b, (struct gguf_text){key->name, key->name_size});
        buffer_append(&b, &key->type, sizeof key->type);
        buffer_append(&b, key->value.data, key->value.size);
    }
    for (size_t i = 0; i < w->tensor_count; i++) {
        const struct written_tensor *t = &w->tensors[i];
        put_text(&b, (struct gguf_text){t->name, strlen(t->name)});
        buffer_append(&b, &t->dims, sizeof t->dims);
        buffer_append(&b, t->shape, t->dims * sizeof *t->shape);
        buffer_append(&b, &t->type, sizeof t->type);
        buffer_append(&b, &t->offset, sizeof t->offset);
    }
    int rc = b.failed ? no_memory(w, err) : put(w, b.data, b.size, err);
    if (!rc)
        rc = put_padding(w, b.size, err);
    buffer_free(&b);
    return rc;
}

int gguf_writer_begin(struct gguf_writer *w, struct error *err)
{
    if (w->fd >= 0)
        return error_set(err, ERR_ORDER, "%s: the file was begun already", shown(w));
    w->total_bytes = gguf_writer_bytes(w);
    w->fd = open(w->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (w->fd < 0)
        return error_set(err, ERR_IO, "%s: cannot create the file: %s", gguf_path_shown(w->part), strerror(errno));
    /* Finds a full disk now rather than in an hour; file systems that cannot reserve say so and are left to it. */
    if (fallocate(w->fd, 0, 0, (off_t)w->total_bytes) && (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
        return write_failed(w, errno, err);
    return put_directory(w, err);
}

int gguf_writer_data(struct gguf_writer *w, const void *bytes, size_t n, struct error *err)
{
    const char *at = bytes;
    if (w->fd < 0 || w->finished)
        return error_set(err, ERR_ORDER, "%s: data can only come between begin and finish", shown(w));
    while (n) {
        if (w->at_tensor == w->tensor_count)
            return error_set(err, ERR_BOUND, "%s: more data than the declared tensors hold", shown(w));
        const struct written_tensor *t = &w->tensors[w->at_tensor];
        uint64_t room = t->bytes - w->at_byte;
        size_t now = n < room ? n : (size_t)room;
        int rc = put(w, at, now, err);
        if (rc)
            return rc;
        at += now;
        n -= now;
        w->at_byte += now;
        if (w->at_byte == t->bytes) {
            if ((rc = put_padding(w, t->bytes, err)))
                return rc;
            w->at_tensor++;
            w->at_byte = 0;
        }
    }
    return 0;
}

/* The name of a file is durable once its folder is. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? mem_strndup(path, (size_t)(slash - path) + 1) : mem_strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    mem_free(folder);
}

int gguf_writer_finish(struct gguf_writer *w, struct error *err)
{
    if (w->fd < 0 || w->finished || w->at_tensor != w->tensor_count)
        return error_set(err, ERR_ORDER, "%s: %zu of %zu tensors are written, the file cannot be finished", shown(w),
                         w->at_tensor, w->tensor_count);
    int rc = flush(w, err);
    if (rc)
        return rc;
    if (fsync(w->fd))
        return write_failed(w, errno, err);
    if (rename(w->part, w->path))
        return error_set(err, ERR_IO, "%s: cannot give the written file its name: %s", shown(w), strerror(errno));
    w->finished = true;
    sync_folder(w->path);
    return 0;
}
