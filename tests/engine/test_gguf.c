/* The GGUF reader: what it gives for good files, what it says of bad ones, and split sets. */
#include "tests/check.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "tests/engine/gguf_builder.h"
#include "tests/engine/gguf_walk.h"

static char folder[256];

/* A path in this run's temporary folder; four may be in use at once. */
static const char *in_folder(const char *name)
{
    static char paths[4][512];
    static int turn;
    if (!*folder) {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/brigade-gguf-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(folder)) {
            perror(folder);
            exit(1);
        }
    }
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static struct gguf *open_built(struct gguf_builder *b, void **bytes, struct error *err)
{
    size_t size;
    struct gguf *g = NULL;
    *bytes = gguf_build_finish(b, &size);
    gguf_open_memory(*bytes, size, "built.gguf", &g, err);
    return g;
}

static int third_text(void *context, uint64_t i, struct gguf_text text)
{
    struct gguf_text *out = context;
    if (i != 3)
        return 0;
    *out = text;
    return 7;
}

static void keys_read_back(void)
{
    struct gguf_builder b = {0};
    struct error err = {0};
    void *bytes;
    gguf_build_sample(&b);
    struct gguf *g = open_built(&b, &bytes, &err);
    REQUIRE(g);
    CHECK_INT(gguf_version(g), 3);
    CHECK_INT(gguf_key_count(g), 18);
    uint32_t whole = 77;
    float number = 77;
    bool flag = false;
    struct gguf_text text = {0};
    CHECK_INT(gguf_get_u32(g, "llama.block_count", &whole, &err), 1);
    CHECK_INT(whole, 2);
    CHECK_INT(gguf_get_u32(g, "some.u8", &whole, &err), 1);
    CHECK_INT(whole, 200);
    CHECK_INT(gguf_get_u32(g, "no.such.key", &whole, &err), 0);
    CHECK_INT(whole, 200);
    CHECK_INT(gguf_get_u32(g, "some.i64", &whole, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "built.gguf: key 'some.i64' is -5"));
    CHECK_INT(gguf_get_u32(g, "some.u64", &whole, &err), ERR_FORMAT);
    CHECK_INT(gguf_get_u32(g, "general.name", &whole, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "of type string where a whole number is needed"));
    CHECK_INT(whole, 200);
    CHECK_INT(gguf_get_f32(g, "llama.rope.freq_base", &number, &err), 1);
    CHECK_NEAR(number, 10000, 0);
    CHECK_INT(gguf_get_f32(g, "some.f64", &number, &err), 1);
    CHECK_NEAR(number, 1.0f / 3, 0);
    CHECK_INT(gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &flag, &err), 1);
    CHECK(flag);
    CHECK_INT(gguf_get_bool(g, "some.u8", &flag, &err), ERR_FORMAT);
    CHECK_INT(gguf_get_text(g, "general.name", &text, &err), 1);
    CHECK(text.size == 6 && !memcmp(text.data, "sample", 6));
    const struct gguf_key *key = gguf_find(g, "tokenizer.ggml.tokens");
    REQUIRE(key);
    CHECK_INT(key->count, 5);
    CHECK_INT(gguf_array_strings(key, third_text, &text), 7);
    CHECK(text.size == 5 && !memcmp(text.data, "\xc3\xa9t\xc3\xa9", 5));
    CHECK_NEAR(gguf_array_float(gguf_find(g, "tokenizer.ggml.scores"), 4), -4, 0);
    CHECK_INT(gguf_array_int(gguf_find(g, "tokenizer.ggml.token_type"), 4), 6);
    CHECK_INT(gguf_array_int(gguf_find(g, "some.bytes"), 0), -128);
    CHECK_INT(gguf_array_int(gguf_find(g, "some.doubles"), 1), INT64_MIN);
    CHECK_INT(gguf_array_int(gguf_find(g, "some.u64"), 0), INT64_MAX);
    CHECK_INT(gguf_array_int(gguf_find(g, "tokenizer.ggml.tokens"), 0), 0);
    CHECK_INT(gguf_array_int(gguf_find(g, "some.nothing"), 0), 0);
    gguf_close(g);
    mem_free(bytes);
}

static void tensors_lie_where_the_file_says(void)
{
    static const float values[] = {1.5f, -2, 3, 4, 5, 6};
    struct gguf_builder b = {.version = 2, .alignment = 64};
    struct error err = {0};
    void *bytes;
    gguf_build_tensor(&b, "first", TYPE_I8, 1, (uint64_t[]){3}, "abc");
    gguf_build_tensor(&b, "second", TYPE_F32, 2, (uint64_t[]){3, 2}, values);
    struct gguf *g = open_built(&b, &bytes, &err);
    REQUIRE(g);
    CHECK_INT(gguf_version(g), 2);
    CHECK_INT(gguf_tensor_count(g), 2);
    const struct gguf_tensor *t = gguf_tensor_find(g, "second");
    REQUIRE(t);
    CHECK(t == gguf_tensor_at(g, 1));
    CHECK(t->type == TYPE_F32 && t->dims == 2 && t->shape[0] == 3 && t->shape[1] == 2 && t->shape[2] == 1);
    CHECK_INT(t->bytes, 24);
    CHECK_INT(t->offset % 64, 0);
    CHECK(t->data == (char *)bytes + t->offset);
    CHECK(!memcmp(t->data, values, sizeof values));
    CHECK(!memcmp(gguf_tensor_find(g, "first")->data, "abc", 3));
    CHECK(!gguf_tensor_find(g, "third") && !gguf_tensor_find(g, ""));
    gguf_close(g);
    mem_free(bytes);
}

/* Builds what `build` adds and checks that the reader's line holds `want`. */
static void refused(void (*build)(struct gguf_builder *b), const char *want)
{
    struct gguf_builder b = {0};
    struct error err = {0};
    void *bytes;
    build(&b);
    struct gguf *g = open_built(&b, &bytes, &err);
    if (g)
        CHECK_FAIL("opened, though \"%s\"", want);
    else if (!strstr(err.text, want))
        CHECK_FAIL("says \"%s\", not \"%s\"", err.text, want);
    gguf_close(g);
    mem_free(bytes);
}

static void bad_version(struct gguf_builder *b)
{
    b->version = 4;
}
static void first_version(struct gguf_builder *b)
{
    b->version = 1;
}
static void big_endian(struct gguf_builder *b)
{
    b->version = 0x03000000;
}
static void many_keys(struct gguf_builder *b)
{
    b->key_count = UINT64_C(1) << 40;
}
static void many_tensors(struct gguf_builder *b)
{
    b->tensor_count = 16 << 20;
}
static void key_twice(struct gguf_builder *b)
{
    gguf_build_u32(b, "a.b", 1);
    gguf_build_text(b, "a.b", "x");
}
static void tensor_twice(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w", TYPE_F32, 1, (uint64_t[]){4}, NULL);
    gguf_build_tensor(b, "w", TYPE_F32, 1, (uint64_t[]){4}, NULL);
}
static void bool_of_two(struct gguf_builder *b)
{
    gguf_build_scalar(b, "flag", GGUF_BOOL, "\002");
}
static void nested(struct gguf_builder *b)
{
    gguf_build_array(b, "deep", GGUF_ARRAY, NULL, 0);
}
static void odd_alignment(struct gguf_builder *b)
{
    b->alignment = 48;
}
static void wide(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w", TYPE_F32, 2, (uint64_t[]){4, 4}, NULL);
    uint64_t shape[2] = {UINT64_C(1) << 33, UINT64_C(1) << 33};
    memcpy(b->tensors.data + 8 + 1 + 4, shape, sizeof shape);
}
static void ragged(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w", TYPE_Q8_0, 1, (uint64_t[]){32}, NULL);
    b->tensors.data[8 + 1 + 4] = 31;
}
static void flat(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w", TYPE_F32, 1, (uint64_t[]){4}, NULL);
    b->tensors.data[8 + 1 + 4] = 0;
}
static void five_dims(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w", TYPE_F32, 1, (uint64_t[]){4}, NULL);
    b->tensors.data[8 + 1] = 5;
}
static void of_type(struct gguf_builder *b, char type)
{
    gguf_build_tensor(b, "w", TYPE_F32, 1, (uint64_t[]){4}, NULL);
    b->tensors.data[8 + 1 + 4 + 8] = type;
}
static void unknown_type(struct gguf_builder *b)
{
    of_type(b, 77);
}
static void withdrawn_type(struct gguf_builder *b)
{
    of_type(b, 31);
}
static void askew(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w", TYPE_F32, 1, (uint64_t[]){4}, NULL);
    b->tensors.data[8 + 1 + 4 + 8 + 4] = 4;
}
static void cut(struct gguf_builder *b)
{
    gguf_build_tensor(b, "blk.3.ffn_up.weight", TYPE_F32, 1, (uint64_t[]){40}, NULL);
    b->data.size -= 33;
}
static void no_name(struct gguf_builder *b)
{
    gguf_build_tensor(b, "", TYPE_F32, 1, (uint64_t[]){4}, NULL);
}
static void escape_name(struct gguf_builder *b)
{
    gguf_build_tensor(b, "w\033[31m", TYPE_F32, 1, (uint64_t[]){4}, NULL);
}
static void long_name(struct gguf_builder *b)
{
    char name[200];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    gguf_build_tensor(b, name, TYPE_F32, 1, (uint64_t[]){4}, NULL);
}
static void member(struct gguf_builder *b)
{
    gguf_build_u32(b, "split.count", 2);
}

static void flaws_are_named(void)
{
    refused(bad_version, "GGUF version 4 is not supported, only 2 and 3; a newer brigade");
    refused(first_version, "GGUF version 1 is not supported");
    refused(big_endian, "big-endian GGUF file (version 3)");
    refused(many_keys, "announces 1099511627776 keys");
    refused(many_tensors, "announces 16777216 tensors, more than any model has");
    refused(key_twice, "key 'a.b' is there twice");
    refused(tensor_twice, "tensor 'w' is there twice");
    refused(bool_of_two, "key 'flag' holds 2 where a bool must be 0 or 1");
    refused(nested, "key 'deep' is an array of arrays");
    refused(odd_alignment, "general.alignment is 48");
    refused(wide, "dimensions of tensor 'w' multiply to more than 2^63");
    refused(ragged, "tensor 'w' has rows of 31 values, no multiple of the 32 in a block of Q8_0");
    refused(flat, "dimension 0 of tensor 'w' is 0");
    refused(five_dims, "tensor 'w' has 5 dimensions");
    refused(unknown_type, "tensor 'w' has type 77, which is unknown");
    refused(withdrawn_type, "tensor 'w' has type 31, which was withdrawn");
    refused(askew, "tensor 'w' starts at offset 4, no multiple of the alignment 32");
    refused(cut, "tensor 'blk.3.ffn_up.weight' ends at byte 256 but the file has 223; the download is incomplete");
    refused(no_name, "a tensor has no valid name");
    refused(escape_name, "the name of tensor 'w?[31m' holds control characters");
    refused(long_name, "is 199 bytes long, more than the 127 allowed");
    refused(member, "one file of a split set cannot be opened from memory");
}

static void other_files_are_recognised(void)
{
    static const struct {
        const char *start, *want;
    } kinds[] = {
        {"lmgg....", "unversioned GGML"},
        {"tjgg....", "GGJT"},
        {"PK\003\004....", "zip archive"},
        {"<!DOCTYPE html>", "web page"},
        {"version https://git-lfs", "Git LFS pointer"},
        {"FUGG....", "bytes reversed"},
        {"hello, world", "not a GGUF file"},
        {"GG", "not a GGUF file"},
        {"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct gguf *g;
        struct error err = {0};
        char bytes[64] = {0};
        size_t size = kinds[i].start[1] ? strlen(kinds[i].start) : 15;
        memcpy(bytes, kinds[i].start, size);
        CHECK_INT(gguf_open_memory(bytes, size, "x", &g, &err), ERR_FORMAT);
        if (!strstr(err.text, kinds[i].want))
            CHECK_FAIL("says \"%s\", not \"%s\"", err.text, kinds[i].want);
    }
    struct gguf *g;
    struct error err = {0};
    CHECK_INT(gguf_open(in_folder("absent.gguf"), &g, &err), ERR_NOTFOUND);
    CHECK_INT(gguf_open(folder, &g, &err), ERR_IO);
    CHECK(strstr(err.text, "a directory"));
}

/* Members of a set of `count`, two tensors each, but for the one left out. */
static void write_set(const char *name, unsigned count, unsigned announced, unsigned left_out)
{
    for (unsigned i = 0; i < count; i++) {
        struct gguf_builder b = {0};
        char path[64], tensor[32];
        uint16_t no = (uint16_t)i, of = (uint16_t)count;
        int32_t tensors = (int32_t)announced;
        gguf_build_scalar(&b, "split.no", GGUF_U16, &no);
        gguf_build_scalar(&b, "split.count", GGUF_U16, &of);
        gguf_build_scalar(&b, "split.tensors.count", GGUF_I32, &tensors);
        if (i == 0)
            gguf_build_text(&b, "general.architecture", "llama");
        for (int k = 0; k < 2; k++) {
            snprintf(tensor, sizeof tensor, "t%u.%d", i, k);
            gguf_build_tensor(&b, tensor, TYPE_I8, 1, (uint64_t[]){strlen(tensor)}, tensor);
        }
        snprintf(path, sizeof path, "%s-%05u-of-%05u.gguf", name, i + 1, count);
        if (i + 1 == left_out)
            unlink(in_folder(path));
        gguf_build_write(&b, in_folder(i + 1 == left_out ? "left-out" : path));
    }
}

static void split_sets_open_from_any_member(void)
{
    static const char *const names[] = {"set-00001-of-00003.gguf", "set-00002-of-00003.gguf",
                                        "set-00003-of-00003.gguf"};
    write_set("set", 3, 6, 0);
    for (int i = 0; i < 3; i++) {
        struct gguf *g = NULL;
        struct error err = {0};
        CHECK_INT(gguf_open(in_folder(names[i]), &g, &err), 0);
        REQUIRE(g);
        CHECK_INT(gguf_file_count(g), 3);
        CHECK_INT(gguf_tensor_count(g), 6);
        CHECK(gguf_find(g, "general.architecture"));
        CHECK_TEXT(gguf_path(g), in_folder(names[i]));
        const struct gguf_tensor *t = gguf_tensor_find(g, "t2.1");
        REQUIRE(t);
        CHECK_INT(t->file, 2);
        CHECK_TEXT(gguf_file_path(g, t->file), in_folder(names[2]));
        CHECK(!memcmp(t->data, "t2.1", 4));
        volatile uint32_t sum = gguf_walk(g);
        (void)sum;
        gguf_close(g);
    }
}

static void broken_sets_are_named(void)
{
    struct gguf *g;
    struct error err = {0};
    write_set("gap", 3, 6, 2);
    CHECK_INT(gguf_open(in_folder("gap-00003-of-00003.gguf"), &g, &err), ERR_NOTFOUND);
    CHECK(strstr(err.text, "gap-00002-of-00003.gguf: file 2 of the split set of 3 is missing"));
    write_set("few", 2, 5, 0);
    CHECK_INT(gguf_open(in_folder("few-00001-of-00002.gguf"), &g, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "should hold 5 tensors but has 4"));
    write_set("few", 2, 4, 0);
    CHECK(!rename(in_folder("few-00001-of-00002.gguf"), in_folder("lone.gguf")));
    CHECK_INT(gguf_open(in_folder("lone.gguf"), &g, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "must be named NAME-00001-of-00002.gguf"));
    CHECK(!rename(in_folder("few-00002-of-00002.gguf"), in_folder("few-00001-of-00002.gguf")));
    CHECK_INT(gguf_open(in_folder("few-00001-of-00002.gguf"), &g, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "should be file 1 of a split set of 2 but says it is 2 of 2"));
}

static void many_names_cost_linear_time(void)
{
    struct gguf_builder b = {0};
    struct error err = {0};
    void *bytes;
    char name[32];
    for (int i = 0; i < 60000; i++) {
        snprintf(name, sizeof name, "k%d", i);
        gguf_build_bool(&b, name, i & 1);
    }
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof name, "t%d", i);
        gguf_build_tensor(&b, name, TYPE_I8, 1, (uint64_t[]){1}, "x");
    }
    int64_t start = clock_ms();
    struct gguf *g = open_built(&b, &bytes, &err);
    CHECK(clock_ms() - start < 30000); /* minutes, if each name were compared with all */
    REQUIRE(g);
    CHECK(gguf_tensor_find(g, "t99999") == gguf_tensor_at(g, 99999));
    gguf_close(g);
    mem_free(bytes);
}

static void cleans_up(void)
{
    char command[512];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    CHECK(!*folder || !system(command));
}

static const struct check_test tests[] = {
    {"keys read back", keys_read_back},
    {"tensors lie where the file says", tensors_lie_where_the_file_says},
    {"flaws are named", flaws_are_named},
    {"other files are recognised", other_files_are_recognised},
    {"split sets open from any member", split_sets_open_from_any_member},
    {"broken sets are named", broken_sets_are_named},
    {"many names cost linear time", many_names_cost_linear_time},
    {"cleans up", cleans_up},
};
CHECK_MAIN(tests)
