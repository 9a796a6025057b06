/* A model in this process: feeding, cutting back, limits, and every allocation failing in turn. */
#include "tests/check.h"
#include "tests/child.h"

#include <unistd.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/local.h"
#include "tests/engine/model_builder.h"

static char path[512];

static const char *variant = "llama";

static int write_file(void *unused)
{
    (void)unused;
    struct gguf_builder b = {0};
    model_build_into(&b, model_variant_find(variant), TYPE_Q8_0);
    gguf_build_write(&b, path);
    return 0;
}

enum { DONE = 40, OUT_OF_MEMORY = 41, WRONG = 42 };

/* Opens, loads over two stages, computes and closes; leak checkers see the exit. */
static int whole_life(void *unused)
{
    (void)unused;
    struct model *m = NULL;
    struct local *l = NULL;
    struct error err = {0};
    struct span_result r;
    struct local_options o = {.stages = 2, .max_context = 64, .max_tokens = 8, .max_sequences = 2};
    int32_t tokens[40];
    for (uint32_t i = 0; i < 40; i++)
        tokens[i] = model_built_token(i);
    int failed = model_open(path, &m, &err);
    if (!failed)
        failed = local_open(m, &o, &l, &err);
    if (!failed)
        failed = local_feed(l, 1, tokens, 40, WANT_LOGITS, -1, NULL, NULL, &r, &err);
    local_close(l);
    model_close(m);
    if (!failed)
        return DONE;
    return failed == ERR_NOMEM && err.code == ERR_NOMEM && err.text[0] ? OUT_OF_MEMORY : WRONG;
}

static void every_allocation_may_fail(void)
{
    static const char *const variants[] = {"llama", "phi3-longrope", "gpt2", "mixtral", "deepseek3"};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        variant = variants[i];
        REQUIRE(child_run(write_file, NULL, 0) == 0);
        long k = 1;
        int got;
        while ((got = child_run(whole_life, NULL, k)) == OUT_OF_MEMORY && k < 5000)
            k++;
        if (got != DONE || k < 60)
            CHECK_FAIL("%s: allocation %ld ended with %d", variant, k, got);
    }
    unlink(path);
}

struct opened {
    void *bytes;
    struct model *m;
    struct local *l;
};

static bool open_local(struct opened *x, const char *name, const struct local_options *o)
{
    struct gguf *g = NULL;
    struct error err = {0};
    size_t size;
    *x = (struct opened){.bytes = model_build(model_variant_find(name), TYPE_F32, &size)};
    if (gguf_open_memory(x->bytes, size, name, &g, &err) || model_from_gguf(g, &x->m, &err) ||
        local_open(x->m, o, &x->l, &err)) {
        CHECK_FAIL("%s: %s", name, err.text);
        return false;
    }
    return true;
}

static void close_local(struct opened *x)
{
    local_close(x->l);
    model_close(x->m);
    mem_free(x->bytes);
}

static void what_was_cut_back_never_was(void)
{
    struct opened x;
    struct local_options o = {.max_context = 128, .kv_tokens = 256, .max_tokens = 16, .stages = 2};
    struct error err = {0};
    struct span_result r;
    int32_t first[70], second[70];
    float want[BUILT_VOCABULARY];
    REQUIRE(open_local(&x, "gemma2", &o));
    for (uint32_t i = 0; i < 70; i++) {
        first[i] = model_built_token(i);
        second[i] = i < 37 ? first[i] : model_built_token(i + 500);
    }
    REQUIRE(!local_feed(x.l, 1, second, 70, WANT_LOGITS, -1, NULL, NULL, &r, &err));
    memcpy(want, r.logits, sizeof want);
    REQUIRE(!local_feed(x.l, 2, first, 70, WANT_NOTHING, -1, NULL, NULL, NULL, &err));
    CHECK_INT(local_truncate(x.l, 2, 37), 0);
    REQUIRE(!local_feed(x.l, 2, second + 37, 33, WANT_LOGITS, -1, NULL, NULL, &r, &err));
    CHECK(!memcmp(want, r.logits, sizeof want));
    CHECK_INT(local_truncate(x.l, 2, 71), ERR_ORDER);
    CHECK_INT(local_truncate(x.l, 3, 0), ERR_NOTFOUND);
    close_local(&x);
}

static void limits_are_errors(void)
{
    struct opened x;
    struct local_options o = {.max_context = 64, .kv_tokens = 96, .max_sequences = 2};
    struct error err = {0};
    struct span_result r;
    int32_t tokens[128] = {0};
    REQUIRE(open_local(&x, "llama", &o));
    CHECK_INT(local_kv_pages(x.l), 3);
    CHECK_INT(local_feed(x.l, 1, tokens, 65, WANT_NOTHING, -1, NULL, NULL, &r, &err), ERR_BOUND);
    CHECK(strstr(err.text, "context of 64"));
    CHECK_INT(local_feed(x.l, 1, tokens, 64, WANT_NOTHING, -1, NULL, NULL, &r, &err), 0);
    CHECK_INT(local_feed(x.l, 2, tokens, 33, WANT_NOTHING, -1, NULL, NULL, &r, &err), ERR_BOUND);
    CHECK(strstr(err.text, "is full"));
    CHECK_INT(local_feed(x.l, 2, tokens, 32, WANT_NOTHING, -1, NULL, NULL, &r, &err), 0);
    local_release(x.l, 1);
    CHECK_INT(local_feed(x.l, 2, tokens, 32, WANT_LOGITS, -1, NULL, NULL, &r, &err), 0);
    CHECK(r.logits != NULL);
    local_release(x.l, 2);
    CHECK_INT(local_feed(x.l, 3, tokens, 64, WANT_NOTHING, -1, NULL, NULL, &r, &err), 0);
    tokens[3] = -5;
    CHECK_INT(local_feed(x.l, 4, tokens, 8, WANT_NOTHING, -1, NULL, NULL, &r, &err), ERR_FORMAT);
    CHECK_INT(local_step(x.l, NULL, 0, &r, &err), ERR_BOUND);
    close_local(&x);
}

static void splits_must_cover_the_blocks(void)
{
    struct opened x;
    struct error err = {0};
    struct local *l = NULL;
    struct local_options o = {.max_context = 64};
    REQUIRE(open_local(&x, "qwen2", &o));
    static const uint32_t bad[][3] = {{1, 1}, {3, 1}, {0, 3}, {1, 0xffffffff}};
    for (int i = 0; i < 4; i++) {
        o = (struct local_options){.stages = 2, .split = bad[i], .max_context = 64};
        CHECK_INT(local_open(x.m, &o, &l, &err), ERR_USAGE);
    }
    o = (struct local_options){.stages = 4, .max_context = 64};
    CHECK_INT(local_open(x.m, &o, &l, &err), ERR_USAGE);

    /* Memory over three stages is the sum of theirs. */
    struct stage_memory need, used, sum = {0};
    o.stages = 3;
    REQUIRE(!local_memory_need(x.m, &o, &need, &err) && !local_open(x.m, &o, &l, &err));
    for (uint32_t i = 0; i < local_stages(l); i++) {
        stage_memory_used(local_stage(l, i), &used);
        sum.total += used.total;
        sum.kv += used.kv;
    }
    CHECK(sum.total == need.total && sum.kv == need.kv);
    CHECK(!local_stage(l, 3));
    local_close(l);
    close_local(&x);
}

static const struct check_test tests[] = {
    {"every_allocation_may_fail", every_allocation_may_fail}, /* first: this process must not have allocated yet */
    {"what_was_cut_back_never_was", what_was_cut_back_never_was},
    {"limits_are_errors", limits_are_errors},
    {"splits_must_cover_the_blocks", splits_must_cover_the_blocks},
};

int main(int argc, char **argv)
{
    const char *base = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/brigade-local-%ld.gguf", base ? base : "/tmp", (long)getpid());
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
