/* Every architecture against the numbers of an independent engine (tests/fixtures/models/README.md). */
#include "tests/check.h"

#include <jansson.h>

#include "base/memory.h"
#include "engine/model/local.h"
#include "tests/engine/model_builder.h"

#ifndef INDEPENDENT
#error "INDEPENDENT names the fixture"
#endif

#define TOKENS 96u

static json_t *independent;

/* Largest differences; the tolerances below are those the project promises. */
static void compare(const struct model_variant *v, const json_t *want, uint32_t stages, enum kv_type kv)
{
    struct model *m = NULL;
    struct local *l = NULL;
    struct gguf *g = NULL;
    struct error err = {0};
    struct span_result r;
    size_t size;
    int32_t tokens[TOKENS];
    float scores[TOKENS];
    void *bytes = model_build(v, TYPE_F32, &size);
    struct local_options o = {.stages = stages, .kv = kv};
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = model_built_token(i);
    if (gguf_open_memory(bytes, size, v->name, &g, &err) || model_from_gguf(g, &m, &err) ||
        local_open(m, &o, &l, &err) || local_feed(l, 1, tokens, TOKENS, WANT_SCORES, -1, NULL, scores, &r, &err)) {
        CHECK_FAIL("%s: %s", v->name, err.text);
        goto done;
    }
    double sum = 0, worst = 0, std = json_number_value(json_object_get(want, "std"));
    const json_t *nll = json_object_get(want, "nll"), *top = json_object_get(want, "top"),
                 *greedy = json_object_get(want, "greedy");
    CHECK_INT(json_array_size(nll), TOKENS - 1);
    for (uint32_t i = 0; i + 1 < TOKENS; i++) {
        double off = scores[i] - json_number_value(json_array_get(nll, i));
        sum += off;
        worst = fmax(worst, fabs(off));
    }
    if (fabs(sum / (TOKENS - 1)) > 0.001 || worst > 0.02)
        CHECK_FAIL("%s: mean NLL is off by %.5f, the worst by %.5f", v->name, sum / (TOKENS - 1), worst);
    local_release(l, 1);
    if (local_feed(l, 2, tokens, TOKENS, WANT_LOGITS, -1, NULL, NULL, &r, &err)) {
        CHECK_FAIL("%s: %s", v->name, err.text);
        goto done;
    }
    for (size_t i = 0; i < json_array_size(top); i++) {
        size_t id = (size_t)json_integer_value(json_array_get(json_array_get(top, i), 0));
        double off = fabs(r.logits[id] - json_number_value(json_array_get(json_array_get(top, i), 1))) / std;
        if (!(off < 0.005))
            CHECK_FAIL("%s: logit %zu is off by %.5f standard deviations", v->name, id, off);
    }
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        int32_t best = 0;
        for (int32_t t = 1; t < (int32_t)BUILT_VOCABULARY; t++)
            if (r.logits[t] > r.logits[best])
                best = t;
        if (best != json_integer_value(json_array_get(json_array_get(greedy, i), 0))) {
            if (json_number_value(json_array_get(json_array_get(greedy, i), 1)) > 0.01)
                CHECK_FAIL("%s: greedy token %zu is %d", v->name, i, best);
            break;
        }
        if (local_feed(l, 2, &best, 1, WANT_LOGITS, -1, NULL, NULL, &r, &err))
            CHECK_FAIL("%s: %s", v->name, err.text);
    }
done:
    local_close(l);
    if (m)
        model_close(m);
    else
        gguf_close(g);
    mem_free(bytes);
}

/* One architecture in `step`. */
static void over_all(uint32_t stages, enum kv_type kv, size_t step)
{
    size_t known = 0;
    for (size_t i = 0; i < model_variant_count(); i++) {
        const struct model_variant *v = model_variant_at(i);
        const json_t *want = json_object_get(independent, v->name);
        if (v->ours_only)
            continue;
        if (!want)
            CHECK_FAIL("the fixture lacks %s", v->name);
        else if (known % step == 0)
            compare(v, want, stages, kv);
        known++;
    }
    CHECK_INT(known, json_object_size(independent));
}

static void in_one_process(void)
{
    over_all(1, KV_F32, 1);
}

static void over_three_stages(void)
{
    over_all(3, KV_F32, (size_t)check_step());
}

/* A window as wide as the context is none: what the other engine cannot tell us about phi3. */
static void a_wide_window_is_none(void)
{
    struct model_variant v = *model_variant_find("phi3-longrope-short");
    compare(&v, json_object_get(independent, v.name), 1, KV_F32);
    struct gguf_builder b = {0};
    gguf_build_u32(&b, "phi3.attention.sliding_window", 96);
    model_build_into(&b, &v, TYPE_F32);
    size_t size;
    void *bytes = gguf_build_finish(&b, &size);
    struct gguf *g = NULL;
    struct model *m = NULL;
    struct local *l[2] = {NULL, NULL};
    struct error err = {0};
    struct span_result r;
    int32_t tokens[110];
    float scores[2][110];
    for (uint32_t i = 0; i < 110; i++)
        tokens[i] = model_built_token(i);
    REQUIRE(!gguf_open_memory(bytes, size, "window", &g, &err) && !model_from_gguf(g, &m, &err));
    void *plain_bytes = model_build(&v, TYPE_F32, &size);
    struct gguf *pg = NULL;
    struct model *pm = NULL;
    REQUIRE(!gguf_open_memory(plain_bytes, size, "plain", &pg, &err) && !model_from_gguf(pg, &pm, &err));
    struct model *both[2] = {m, pm};
    for (int i = 0; i < 2; i++) {
        struct local_options o = {.kv = KV_F32};
        REQUIRE(!local_open(both[i], &o, &l[i], &err));
        REQUIRE(!local_feed(l[i], 1, tokens, 110, WANT_SCORES, -1, NULL, scores[i], &r, &err));
    }
    CHECK(!memcmp(scores[0], scores[1], 96 * sizeof(float)));          /* position 95 still sees all */
    CHECK(memcmp(scores[0] + 96, scores[1] + 96, 13 * sizeof(float))); /* position 96 no longer sees 0 */
    CHECK(scores[0][96] != scores[1][96]);
    for (int i = 0; i < 2; i++) {
        local_close(l[i]);
        model_close(both[i]);
    }
    mem_free(bytes);
    mem_free(plain_bytes);
}

static const struct check_test tests[] = {
    {"in_one_process", in_one_process},
    {"over_three_stages", over_three_stages},
    {"a_wide_window_is_none", a_wide_window_is_none},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    json_error_t je;
    independent = json_load_file(INDEPENDENT, 0, &je);
    if (!independent || kernels_init(&err)) {
        fprintf(stderr, "%s%s\n", independent ? err.text : INDEPENDENT, independent ? "" : je.text);
        return 1;
    }
    int failed = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    json_decref(independent);
    return failed;
}
