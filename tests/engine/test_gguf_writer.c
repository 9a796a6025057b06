/* The GGUF writer: what it writes reads back, and what it could not finish leaves the old file alone. */
#include "tests/check.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "engine/files/gguf_writer.h"
#include "tests/engine/gguf_builder.h"
#include "tests/engine/gguf_walk.h"

static char folder[256], target[512];

static void start_folder(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/brigade-writer-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        exit(1);
    }
    snprintf(target, sizeof target, "%s/model.gguf", folder);
}

/* Entries of the folder: shows that no temporary file stays behind. */
static int entries(void)
{
    int count = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        count += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return count;
}

static void put_old(void)
{
    FILE *f = fopen(target, "wb");
    CHECK(f && fputs("the old one", f) >= 0 && !fclose(f));
}

static void old_is_intact(void)
{
    char text[32] = {0};
    FILE *f = fopen(target, "rb");
    REQUIRE(f);
    CHECK(fread(text, 1, sizeof text, f) == 11);
    fclose(f);
    CHECK_TEXT(text, "the old one");
    CHECK_INT(entries(), 1);
}

/* A writer with the sample's keys and all its tensors declared. */
static struct gguf_writer *declare(const struct gguf *from)
{
    struct gguf_writer *w = NULL;
    struct error err = {0};
    CHECK_INT(gguf_writer_open(target, &w, &err), 0);
    CHECK_INT(gguf_writer_copy_keys(w, from, &err), 0);
    for (size_t i = 0; i < gguf_tensor_count(from); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(from, i);
        CHECK_INT(gguf_writer_add_tensor(w, t->name, t->type, t->dims, t->shape, &err), 0);
    }
    return w;
}

static struct gguf *open_sample(void **bytes)
{
    struct gguf_builder b = {0};
    struct gguf *g = NULL;
    struct error err = {0};
    size_t size;
    gguf_build_sample(&b);
    *bytes = gguf_build_finish(&b, &size);
    CHECK_INT(gguf_open_memory(*bytes, size, "sample.gguf", &g, &err), 0);
    return g;
}

static void a_copy_is_the_same_file(void)
{
    void *bytes;
    struct gguf *from = open_sample(&bytes), *copy = NULL;
    struct error err = {0};
    put_old();
    struct gguf_writer *w = declare(from);
    CHECK_INT(gguf_writer_begin(w, &err), 0);
    for (size_t i = 0; i < gguf_tensor_count(from); i++) { /* in odd pieces, to cross every border */
        const struct gguf_tensor *t = gguf_tensor_at(from, i);
        for (uint64_t at = 0; at < t->bytes; at += 37)
            CHECK_INT(gguf_writer_data(w, (const char *)t->data + at, t->bytes - at < 37 ? t->bytes - at : 37, &err),
                      0);
    }
    uint64_t announced = gguf_writer_bytes(w);
    CHECK_INT(gguf_writer_data(w, "x", 1, &err), ERR_BOUND);
    CHECK_INT(gguf_writer_finish(w, &err), 0);
    CHECK_INT(gguf_writer_finish(w, &err), ERR_ORDER);
    gguf_writer_close(w);
    CHECK_INT(entries(), 1);
    CHECK_INT(gguf_open(target, &copy, &err), 0);
    REQUIRE(copy);
    CHECK_INT(gguf_file_bytes(copy), announced);
    CHECK_INT(gguf_key_count(copy), gguf_key_count(from));
    for (size_t i = 0; i < gguf_key_count(from); i++) {
        uint32_t a = gguf_walk_key(from, gguf_key_at(from, i), 0), b = gguf_walk_key(copy, gguf_key_at(copy, i), 0);
        CHECK_INT(a, b);
    }
    for (size_t i = 0; i < gguf_tensor_count(from); i++) {
        const struct gguf_tensor *a = gguf_tensor_at(from, i), *b = gguf_tensor_at(copy, i);
        CHECK_TEXT(a->name, b->name);
        CHECK(a->bytes == b->bytes && !memcmp(a->shape, b->shape, sizeof a->shape));
        CHECK(!memcmp(a->data, b->data, a->bytes));
    }
    gguf_close(copy);
    gguf_close(from);
    mem_free(bytes);
}

static void keys_can_be_edited(void)
{
    static const struct gguf_text words[] = {{"one", 3}, {"", 0}};
    static const float numbers[] = {1, 2.5f};
    void *bytes;
    struct gguf *from = open_sample(&bytes), *g = NULL;
    struct error err = {0};
    struct gguf_writer *w = NULL;
    CHECK_INT(gguf_writer_open(target, &w, &err), 0);
    CHECK_INT(gguf_writer_copy_keys(w, from, &err), 0);
    CHECK_INT(gguf_writer_copy_keys(w, from, &err), ERR_ORDER);
    CHECK_INT(gguf_writer_set_u32(w, "general.name", 5, &err), 0); /* another type in the same place */
    CHECK_INT(gguf_writer_set_f32(w, "new.f32", 0.25f, &err), 0);
    CHECK_INT(gguf_writer_set_bool(w, "new.bool", true, &err), 0);
    CHECK_INT(gguf_writer_set_text(w, "new.text", (struct gguf_text){"hello", 5}, &err), 0);
    CHECK_INT(gguf_writer_set_array(w, "new.words", GGUF_STRING, words, 2, &err), 0);
    CHECK_INT(gguf_writer_set_array(w, "new.numbers", GGUF_F32, numbers, 2, &err), 0);
    CHECK_INT(gguf_writer_set_array(w, "bad", GGUF_ARRAY, NULL, 0, &err), ERR_USAGE);
    gguf_writer_remove(w, "some.u64");
    gguf_writer_remove(w, "never.there");
    CHECK_INT(gguf_writer_begin(w, &err), 0);
    CHECK_INT(gguf_writer_finish(w, &err), 0);
    gguf_writer_close(w);
    CHECK_INT(gguf_open(target, &g, &err), 0);
    REQUIRE(g);
    uint32_t five = 0;
    float quarter = 0;
    bool flag = false;
    struct gguf_text text = {0};
    CHECK_INT(gguf_key_count(g), gguf_key_count(from) - 1 + 5);
    CHECK_INT(gguf_get_u32(g, "general.name", &five, &err), 1);
    CHECK_INT(five, 5);
    CHECK_INT(gguf_get_f32(g, "new.f32", &quarter, &err), 1);
    CHECK_NEAR(quarter, 0.25, 0);
    CHECK_INT(gguf_get_bool(g, "new.bool", &flag, &err), 1);
    CHECK_INT(gguf_get_text(g, "new.text", &text, &err), 1);
    CHECK(text.size == 5 && !memcmp(text.data, "hello", 5));
    CHECK_INT(gguf_find(g, "new.words")->count, 2);
    CHECK_NEAR(gguf_array_float(gguf_find(g, "new.numbers"), 1), 2.5, 0);
    CHECK(!gguf_find(g, "some.u64"));
    CHECK(gguf_key_at(g, 1)->name.size == 12); /* general.name kept its place */
    gguf_close(g);
    gguf_close(from);
    mem_free(bytes);
}

static void unfinished_files_change_nothing(void)
{
    void *bytes;
    struct gguf *from = open_sample(&bytes);
    struct error err = {0};
    put_old();
    struct gguf_writer *w = declare(from);
    CHECK_INT(gguf_writer_data(w, "x", 1, &err), ERR_ORDER);
    CHECK_INT(gguf_writer_begin(w, &err), 0);
    CHECK_INT(gguf_writer_begin(w, &err), ERR_ORDER);
    CHECK_INT(gguf_writer_data(w, "x", 1, &err), 0);
    CHECK_INT(gguf_writer_finish(w, &err), ERR_ORDER);
    CHECK_INT(entries(), 2);
    gguf_writer_close(w);
    old_is_intact();
    CHECK_INT(gguf_writer_open("/no/such/folder/model.gguf", &w, &err), 0);
    CHECK_INT(gguf_writer_begin(w, &err), ERR_IO);
    CHECK(strstr(err.text, "cannot create the file"));
    gguf_writer_close(w);
    gguf_close(from);
    mem_free(bytes);
}

static void impossible_tensors_are_refused(void)
{
    struct gguf_writer *w = NULL;
    struct error err = {0};
    CHECK_INT(gguf_writer_open(target, &w, &err), 0);
    CHECK_INT(gguf_writer_add_tensor(w, "w", TYPE_Q8_0, 1, (uint64_t[]){33}, &err), ERR_USAGE);
    CHECK_INT(gguf_writer_add_tensor(w, "w", 99, 1, (uint64_t[]){32}, &err), ERR_USAGE);
    CHECK_INT(gguf_writer_add_tensor(w, "", TYPE_F32, 1, (uint64_t[]){32}, &err), ERR_USAGE);
    CHECK_INT(gguf_writer_add_tensor(w, "w", TYPE_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, &err), ERR_USAGE);
    CHECK_INT(gguf_writer_add_tensor(w, "w", TYPE_F32, 2, (uint64_t[]){1u << 31, UINT64_C(1) << 40}, &err), ERR_USAGE);
    CHECK_INT(gguf_writer_add_tensor(w, "w", TYPE_F32, 2, (uint64_t[]){4, 0}, &err), ERR_USAGE);
    gguf_writer_close(w);
}

/* A file size limit fails the same way as a full disk does, and needs no special disk. */
static void a_full_disk_changes_nothing(void)
{
    struct rlimit old, small;
    struct error err = {0};
    struct gguf_writer *w = NULL;
    put_old();
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(!getrlimit(RLIMIT_FSIZE, &old));
    small = old;
    small.rlim_cur = 64 << 10;
    REQUIRE(!setrlimit(RLIMIT_FSIZE, &small));
    CHECK_INT(gguf_writer_open(target, &w, &err), 0);
    CHECK_INT(gguf_writer_add_tensor(w, "w", TYPE_F32, 1, (uint64_t[]){1 << 20}, &err), 0);
    int rc = gguf_writer_begin(w, &err);
    static char zeros[1 << 16];
    for (int i = 0; i < 64 && !rc; i++)
        rc = gguf_writer_data(w, zeros, sizeof zeros, &err);
    if (!rc)
        rc = gguf_writer_finish(w, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_INT(rc, ERR_IO);
    CHECK(strstr(err.text, "the model needs 4.0 MiB") && strstr(err.text, "nothing was changed"));
    gguf_writer_close(w);
    old_is_intact();
}

static void cleans_up(void)
{
    unlink(target);
    CHECK(!rmdir(folder));
}

static const struct check_test tests[] = {
    {"a copy is the same file", a_copy_is_the_same_file},
    {"keys can be edited", keys_can_be_edited},
    {"unfinished files change nothing", unfinished_files_change_nothing},
    {"impossible tensors are refused", impossible_tensors_are_refused},
    {"a full disk changes nothing", a_full_disk_changes_nothing},
    {"cleans up", cleans_up},
};

int main(int argc, char **argv)
{
    start_folder();
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
