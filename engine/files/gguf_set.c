/* Split sets: several GGUF files that are one model, each with a directory of its own tensors; the metadata stand in the
 * first. They lie beside each other under their names, or, as a worker keeps what it received, one after another in a
 * single file. Owns nothing but what it hangs on its struct gguf; no threads. */
#include "engine/files/gguf_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

/* Splits ".../NAME-00002-of-00003.gguf" into the length of ".../NAME" and both numbers; false when it is no such name.
 */
static bool split_name(const char *path, size_t *prefix, unsigned *member, unsigned *members)
{
    static const size_t tail = sizeof "-00001-of-00001.gguf" - 1;
    size_t n = strlen(path);
    if (n <= tail)
        return false;
    const char *at = path + n - tail;
    for (size_t i = 0; i < tail; i++) {
        char want = "-#####-of-#####.gguf"[i];
        if (want == '#' ? at[i] < '0' || at[i] > '9' : at[i] != want)
            return false;
    }
    *prefix = n - tail;
    return sscanf(at, "-%5u-of-%5u.gguf", member, members) == 2;
}

/* Moves the file and the tensors of `member` to the end of those of g; what is left of it is still to be closed. */
static int absorb(struct gguf *g, struct gguf *member, struct error *err)
{
    struct gguf_file *files = mem_resize(g->files, (size_t)g->file_count + 1, sizeof *files);
    if (files)
        g->files = files;
    struct gguf_tensor *tensors = mem_resize(g->tensors, g->tensor_count + member->tensor_count, sizeof *tensors);
    if (tensors)
        g->tensors = tensors;
    int rc = 0;
    if (!files || !tensors) {
        rc = error_set(err, ERR_NOMEM, "%s: out of memory while opening the split set", gguf_path_shown(g->path));
    } else {
        for (size_t i = 0; i < member->tensor_count; i++)
            member->tensors[i].file = g->file_count;
        memcpy(tensors + g->tensor_count, member->tensors, member->tensor_count * sizeof *tensors);
        g->tensor_count += member->tensor_count;
        files[g->file_count++] = member->files[0];
        member->file_count = 0;
    }
    return rc;
}

static int check_member(const struct gguf *m, unsigned member, unsigned members, struct error *err)
{
    uint32_t no = UINT32_MAX, count = 0;
    int rc = gguf_get_u32(m, "split.no", &no, err);
    if (rc < 0 || (rc = gguf_get_u32(m, "split.count", &count, err)) < 0)
        return rc;
    if (members == 1 && count <= 1)
        return 0; /* a file of its own */
    if (no != member - 1 || count != members)
        return error_set(err, ERR_FORMAT,
                         "%s: this should be file %u of a split set of %u but says it is %u of %u; "
                         "fetch the whole set again",
                         gguf_path_shown(m->path), member, members, no == UINT32_MAX ? 0 : no + 1, count);
    return 0;
}

/* Member `member` of `members`, freshly opened, joins those before it: the first of them becomes *all. Closes `one` unless
 * it did. */
static int join(struct gguf **all, struct gguf *one, unsigned member, unsigned members, struct error *err)
{
    int rc = check_member(one, member, members, err);
    if (!rc && !*all) {
        *all = one;
        return 0;
    }
    if (!rc)
        rc = absorb(*all, one, err);
    gguf_close(one);
    return rc;
}

/* Whether the set has as many tensors as its first member announces, if it does. */
static int check_total(const struct gguf *all, const char *path, struct error *err)
{
    uint32_t tensors = 0;
    int rc = gguf_get_u32(all, "split.tensors.count", &tensors, err);
    if (rc > 0 && tensors != all->tensor_count)
        return error_set(err, ERR_FORMAT,
                         "%s: the split set should hold %u tensors but has %zu; "
                         "fetch the whole set again",
                         gguf_path_shown(path), tensors, all->tensor_count);
    return rc < 0 ? rc : 0;
}

/* The members by their names, from beside the one that was given. */
static int open_members(const char *given, size_t prefix, unsigned members, struct gguf **all, struct error *err)
{
    int rc = 0;
    for (unsigned member = 1; member <= members && !rc; member++) {
        struct gguf *one;
        char *path = mem_printf("%.*s-%05u-of-%05u.gguf", (int)prefix, given, member, members);
        if (!path)
            return error_set(err, ERR_NOMEM, "%s: out of memory while opening the split set", gguf_path_shown(given));
        rc = gguf_open_one(path, 0, 0, &one, err);
        if (rc == ERR_NOTFOUND)
            error_set(err, rc, "%s: file %u of the split set of %u is missing; put it beside the others",
                      gguf_path_shown(path), member, members);
        mem_free(path);
        if (!rc)
            rc = join(all, one, member, members, err);
    }
    return rc ? rc : check_total(*all, given, err);
}

int gguf_open_set(struct gguf *g, unsigned members, struct gguf **set, struct error *err)
{
    size_t prefix;
    unsigned named_member, named_members;
    struct gguf *all = NULL;
    int rc;
    if (members > GGUF_FILES_MAX)
        rc = error_set(err, ERR_FORMAT, "%s: split.count is %u, more than the %u files a set may have",
                       gguf_path_shown(g->path), members, GGUF_FILES_MAX);
    else if (!split_name(g->path, &prefix, &named_member, &named_members) || named_members != members)
        rc = error_set(err, ERR_FORMAT,
                       "%s: this is one of a split set of %u files, which must be named "
                       "NAME-00001-of-%05u.gguf and so on; give the files their names back",
                       gguf_path_shown(g->path), members, members);
    else
        rc = open_members(g->path, prefix, members, &all, err);
    if (!rc) {
        char *first = all->path; /* messages name the path that was asked for */
        all->path = g->path;
        g->path = first;
        *set = all;
    } else {
        gguf_close(all);
    }
    gguf_close(g);
    return rc;
}

int gguf_open_joined(const char *path, const struct gguf_part *parts, unsigned count, struct gguf **out,
                     struct error *err)
{
    struct gguf *all = NULL;
    int rc = count && count <= GGUF_FILES_MAX ? 0 : error_set(err, ERR_USAGE, "%s: %u files in one", gguf_path_shown(path), count);
    for (unsigned i = 0; i < count && !rc; i++) {
        struct gguf *one;
        if (!(rc = gguf_open_one(path, parts[i].offset, parts[i].bytes, &one, err)))
            rc = join(&all, one, i + 1, count, err);
    }
    if (!rc)
        rc = check_total(all, path, err);
    if (!rc)
        rc = gguf_index_tensors(all, err);
    if (rc) {
        gguf_close(all);
        return rc;
    }
    *out = all;
    return 0;
}
