/* Makes the k-th allocation fail, for every k, while a model is opened, read and quantised: each run must end in one
 * line of "out of memory", leave the target alone and leak nothing (a leak checker sees the children's exit). */
#include "tests/check.h"
#include "tests/child.h"

#include <sys/stat.h>
#include <unistd.h>

#include "engine/files/gguf.h"
#include "engine/files/inspect.h"
#include "engine/quant/quantize_model.h"
#include "tests/engine/gguf_builder.h"

enum { DONE = 40, OUT_OF_MEMORY = 41, WRONG = 42 };

static char folder[256], source[512], split[512], target[512];

static void paths(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/brigade-allocations-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        exit(1);
    }
    snprintf(source, sizeof source, "%s/source.gguf", folder);
    snprintf(split, sizeof split, "%s/set-00001-of-00002.gguf", folder);
    snprintf(target, sizeof target, "%s/target.gguf", folder);
}

static int make_files(void *unused)
{
    (void)unused;
    struct gguf_builder b = {0};
    gguf_build_llama(&b, TYPE_F16);
    gguf_build_write(&b, source);
    for (uint16_t i = 0, of = 2; i < 2; i++) {
        char name[512];
        gguf_build_scalar(&b, "split.no", GGUF_U16, &i);
        gguf_build_scalar(&b, "split.count", GGUF_U16, &of);
        gguf_build_tensor(&b, i ? "b" : "a", TYPE_F32, 1, (uint64_t[]){4}, NULL);
        snprintf(name, sizeof name, "%s/set-%05d-of-00002.gguf", folder, i + 1);
        gguf_build_write(&b, name);
    }
    return DONE;
}

static int verdict(int rc, const struct error *err)
{
    if (rc == 0)
        return DONE;
    return rc == ERR_NOMEM && err->code == ERR_NOMEM && strstr(err->text, "out of memory") ? OUT_OF_MEMORY : WRONG;
}

static int open_set(void *unused)
{
    (void)unused;
    struct gguf *g = NULL;
    struct error err = {0};
    int rc = gguf_open(split, &g, &err);
    gguf_close(g);
    return verdict(rc, &err);
}

static int quantise(void *unused)
{
    (void)unused;
    struct gguf *g = NULL;
    struct error err = {0};
    int rc = gguf_open(source, &g, &err);
    if (!rc)
        rc = quantize_model(g, target, recipe_find("Q4_0"), 2, NULL, NULL, NULL, &err);
    gguf_close(g);
    return verdict(rc, &err);
}

static int inspect(void *unused)
{
    (void)unused;
    struct gguf *g = NULL;
    struct inspect_summary *s = NULL;
    struct error err = {0};
    int rc = gguf_open(source, &g, &err);
    if (!rc)
        rc = inspect_model(g, &s, &err);
    inspect_free(s);
    gguf_close(g);
    return verdict(rc, &err);
}

static void every_failure(int (*work)(void *), long at_least)
{
    long k = 1;
    for (; k < 10000; k++) {
        int code = child_run(work, NULL, k);
        if (code == DONE)
            break;
        if (code != OUT_OF_MEMORY)
            CHECK_FAIL("allocation %ld: child ended with %d", k, code);
        else if (work == quantise && !access(target, F_OK))
            CHECK_FAIL("allocation %ld: the target is there", k);
    }
    CHECK(k > at_least && k < 10000);
}

static void opening_a_set(void)
{
    REQUIRE(child_run(make_files, NULL, 0) == DONE);
    every_failure(open_set, 10);
}

static void quantising(void)
{
    REQUIRE(child_run(make_files, NULL, 0) == DONE);
    every_failure(quantise, 40);
}

static void inspecting(void)
{
    REQUIRE(child_run(make_files, NULL, 0) == DONE);
    every_failure(inspect, 6);
}

static void cleans_up(void)
{
    char command[512];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    CHECK(!system(command));
}

static const struct check_test tests[] = {
    {"opening a set", opening_a_set},
    {"quantising", quantising},
    {"inspecting", inspecting},
    {"cleans up", cleans_up},
};

int main(int argc, char **argv)
{
    paths();
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
