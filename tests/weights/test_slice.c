/* What a stage reads, and when: tensors that arrive only when they are waited for give the same stage, so loading may
 * begin when the first one is there. */
#include "tests/check.h"

#include "base/memory.h"
#include "engine/model/shelf.h"
#include "tests/engine/model_builder.h"

#define BLOCKS 4u

/* A copy of a model in which only the header is filled, and its source. */
struct arriving {
    char *bytes;
    const char *source;
    const struct gguf_tensor *seen[256];
    uint32_t count, fail_at; /* fail_at: the await that fails, from 1 */
};

static int arrive(void *context, const struct gguf_tensor *t, struct error *err)
{
    struct arriving *a = context;
    if (a->count + 1 == a->fail_at)
        return error_set(err, ERR_LOST, "%s did not come", t->name);
    if (a->count < 256)
        a->seen[a->count++] = t;
    memcpy(a->bytes + t->offset, a->source + t->offset, (size_t)t->bytes);
    return 0;
}

static struct stage_options options_of(uint32_t first, uint32_t last)
{
    return (struct stage_options){.first_block = first, .last_block = last, .kv = KV_F16, .kv_pages = 2, .max_tokens = 8,
                                  .max_context = 32};
}

static bool run_stage(struct stage *s, bool first, bool last, const float *in, float *out, float *logits)
{
    static const int32_t tokens[3] = {1, 7, 5};
    static const uint32_t pages[2] = {0, 1};
    struct batch_span span = {.count = 3, .tokens = tokens, .pages = pages, .want = last ? WANT_LOGITS : WANT_NOTHING,
                              .next_token = -1};
    struct span_result result = {0};
    if (stage_forward(s, &span, 1, first ? NULL : in, last ? NULL : out, &result, NULL))
        return false;
    if (last)
        memcpy(logits, result.logits, BUILT_VOCABULARY * sizeof *logits);
    return true;
}

static int remember(void *context, const struct gguf_tensor *t)
{
    struct arriving *a = context;
    a->seen[a->count++] = t;
    return 0;
}

/* Every range of every variant: the tensors asked for are those of model_slice, in its order; the numbers are the same. */
static void what_arrives_late_gives_the_same_bits(void)
{
    unsigned compared = 0;
    for (size_t v = 0; v < model_variant_count(); v++) {
        struct model_variant variant = *model_variant_at(v);
        size_t size;
        variant.blocks = BLOCKS;
        char *bytes = model_build(&variant, TYPE_Q8_0, &size), *late = mem_map(size);
        struct gguf *whole = NULL, *part = NULL;
        struct model *m = NULL, *n = NULL;
        struct error err = {0};
        REQUIRE(late && !gguf_open_memory(bytes, size, "whole", &whole, &err));
        uint64_t header = size;
        for (size_t i = 0; i < gguf_tensor_count(whole); i++)
            header = gguf_tensor_at(whole, i)->offset < header ? gguf_tensor_at(whole, i)->offset : header;
        REQUIRE(!model_from_gguf(whole, &m, &err));
        memcpy(late, bytes, (size_t)header);
        REQUIRE(!gguf_open_memory(late, size, "late", &part, &err) && !model_from_gguf(part, &n, &err));
        const uint32_t width = model_info(m)->width, blocks = model_info(m)->blocks, cut = blocks / 2;
        float *hidden[2] = {calloc(8u * width, sizeof(float)), calloc(8u * width, sizeof(float))};
        float logits[2][BUILT_VOCABULARY];
        REQUIRE(hidden[0] && hidden[1]);
        for (int side = 0; side < 2; side++) {
            uint32_t first = side ? cut : 0, last = side ? blocks - 1 : cut - 1;
            struct stage_options o = options_of(first, last);
            struct stage *plain = NULL, *arrived = NULL;
            struct arriving a = {.bytes = late, .source = bytes}, slice = {0};
            if (stage_create(m, &o, &plain, &err)) {
                CHECK_FAIL("%s: %s", variant.name, err.text);
                continue;
            }
            memset(late + header, 0, size - (size_t)header);
            o.await_tensor = arrive;
            o.await_context = &a;
            if (stage_create(n, &o, &arrived, &err)) {
                CHECK_FAIL("%s: %s", variant.name, err.text);
                stage_destroy(plain);
                continue;
            }
            CHECK(!model_slice(n, NULL, first, last, remember, &slice));
            uint32_t at = 0;
            for (uint32_t i = 0; i < a.count; i++) { /* each awaited one is in the slice, none out of turn */
                while (at < slice.count && slice.seen[at] != a.seen[i])
                    at++;
                if (at == slice.count)
                    CHECK_FAIL("%s, blocks %u-%u: %s was not in its turn", variant.name, first, last, a.seen[i]->name);
            }
            CHECK(run_stage(plain, !side, side, hidden[0], hidden[0], logits[0]));
            CHECK(run_stage(arrived, !side, side, hidden[1], hidden[1], logits[1]));
            stage_destroy(plain);
            stage_destroy(arrived);
            compared++;
        }
        if (memcmp(logits[0], logits[1], sizeof logits[0]))
            CHECK_FAIL("%s: other logits", variant.name);
        free(hidden[0]);
        free(hidden[1]);
        model_close(m);
        model_close(n);
        mem_free(bytes);
        mem_unmap(late, size);
    }
    CHECK(compared >= 20);
}

static void what_does_not_arrive_ends_it(void)
{
    struct model_variant v = {.name = "slice", .architecture = "llama", .blocks = BLOCKS};
    struct error err = {0};
    struct gguf *g = NULL;
    struct model *m = NULL;
    size_t size;
    char *bytes = model_build(&v, TYPE_Q8_0, &size);
    REQUIRE(!gguf_open_memory(bytes, size, "m", &g, &err) && !model_from_gguf(g, &m, &err));
    struct arriving all = {0};
    model_slice(m, NULL, 0, BLOCKS - 1, remember, &all);
    REQUIRE(all.count > 30);
    for (uint32_t k = 1; k <= all.count; k++) {
        struct arriving a = {.bytes = bytes, .source = bytes, .fail_at = k};
        struct stage_options o = options_of(0, BLOCKS - 1);
        struct stage *s = NULL;
        o.await_tensor = arrive;
        o.await_context = &a;
        err = (struct error){0};
        int rc = stage_create(m, &o, &s, &err);
        if (!rc) { /* fewer are awaited than listed: what serves twice */
            CHECK(a.count < k);
            stage_destroy(s);
            continue;
        }
        CHECK_INT(rc, ERR_LOST);
        CHECK(strstr(err.text, "did not come") != NULL && !s);
    }
    model_close(m);
    mem_free(bytes);
}

static const struct check_test tests[] = {
    {"what arrives late gives the same bits", what_arrives_late_gives_the_same_bits},
    {"what does not arrive ends it", what_does_not_arrive_ends_it},
};

CHECK_MAIN(tests)
