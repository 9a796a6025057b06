/* A model in memory and on disk, and its list, for the tests of weights. One thread. */
#ifndef BRIGADE_TESTS_WEIGHTS_PLACE_H
#define BRIGADE_TESTS_WEIGHTS_PLACE_H

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check.h"

#include "base/memory.h"
#include "engine/model/shelf.h"
#include "tests/engine/model_builder.h"
#include "weights/store.h"

struct place {
    char folder[64], path[96];
    void *bytes;
    size_t size;
    struct model *model;
    struct manifest *list;
};

static void place_open(struct place *p, uint32_t width)
{
    struct model_variant v = {.name = "weights", .architecture = "llama", .blocks = 4, .width = width};
    struct error err = {0};
    *p = (struct place){.folder = "/tmp/brigade-test-weights-XXXXXX"};
    if (!mkdtemp(p->folder))
        abort();
    snprintf(p->path, sizeof p->path, "%s/m.gguf", p->folder);
    p->bytes = model_build(&v, TYPE_F32, &p->size);
    FILE *f = fopen(p->path, "wb");
    if (!f || fwrite(p->bytes, 1, p->size, f) != p->size || fclose(f) || model_open(p->path, &p->model, &err) ||
        manifest_make(model_gguf(p->model), model_info(p->model)->fingerprint, NULL, NULL, &p->list, &err)) {
        printf("%s\n", err.text);
        abort();
    }
}

static void place_empty(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[400];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || lstat(path, &st))
            continue;
        if (S_ISDIR(st.st_mode))
            place_empty(path);
        else
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(folder);
}

static void place_close(struct place *p)
{
    manifest_free(p->list);
    model_close(p->model);
    mem_free(p->bytes);
    place_empty(p->folder);
}

static const char *place_chunk(const struct place *p, uint32_t chunk, size_t *size)
{
    struct manifest_chunk c = manifest_chunk_at(p->list, chunk);
    *size = c.bytes;
    return (const char *)p->bytes + c.offset;
}

#endif
