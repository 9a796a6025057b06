/* What a stage takes, refuses, holds and tells: pages shared and copied, bad spans, memory as it was said, sampling, the
 * times of probes. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/local.h"
#include "tests/engine/open_built.h"

static void shared_and_copied_pages_serve_a_second_sequence(void)
{
    void *bytes;
    struct model *m = open_built(model_variant_find("llama"), TYPE_F32, &bytes);
    REQUIRE(m);
    struct local_options o = {.max_context = 128, .kv_tokens = 512, .stages = 2};
    struct local *l = NULL;
    struct error err = {0};
    struct span_result r;
    int32_t tokens[80];
    float want[128], got[128];
    for (uint32_t i = 0; i < 80; i++)
        tokens[i] = model_built_token(i);
    REQUIRE(!local_open(m, &o, &l, &err));
    struct local_span a = {.update = {.sequence = 1,
                                      .count = 80,
                                      .tokens = tokens,
                                      .pages = (uint32_t[]){0, 1, 2},
                                      .page_count = 3,
                                      .hash = hash_tokens(HASH_TOKENS_START, tokens, 80)},
                           .want = WANT_LOGITS};
    REQUIRE(!local_step(l, &a, 1, &r, &err));
    memcpy(want, r.logits, sizeof want);

    /* Sequence 2: pages 0 and 1 shared, page 2's first ten positions copied to page 7, the last six computed. */
    for (uint32_t i = 0; i < local_stages(l); i++)
        CHECK(!stage_copy_page(local_stage(l, i), 2, 7, 10));
    CHECK(!sequence_page_copied(local_sequences(l), 2, 7, 10));
    struct local_span b = {.update = {.sequence = 2,
                                      .first = 74,
                                      .count = 6,
                                      .known = 0,
                                      .tokens = tokens,
                                      .pages = (uint32_t[]){0, 1, 7},
                                      .page_count = 3,
                                      .hash = hash_tokens(HASH_TOKENS_START, tokens, 80)},
                           .want = WANT_LOGITS};
    REQUIRE(!local_step(l, &b, 1, &r, &err));
    memcpy(got, r.logits, sizeof got);
    CHECK(!memcmp(want, got, sizeof want));

    /* One position more than was copied is refused. */
    b.update.sequence = 3;
    b.update.pages = (uint32_t[]){0, 1, 8};
    CHECK(!sequence_page_copied(local_sequences(l), 2, 8, 9));
    CHECK_INT(local_step(l, &b, 1, &r, &err), ERR_ORDER);
    local_close(l);
    model_close(m);
    mem_free(bytes);
}

static void sampling_follows_from_logits(void)
{
    void *bytes;
    struct model *m = open_built(model_variant_find("qwen3"), TYPE_F32, &bytes);
    REQUIRE(m);
    struct local_options o = {.max_context = 128};
    struct local *l = NULL;
    struct error err = {0};
    struct span_result r;
    struct sampling s;
    int32_t tokens[20];
    char scratch[BUILT_VOCABULARY * 8];
    for (uint32_t i = 0; i < 20; i++)
        tokens[i] = model_built_token(i);
    sampling_default(&s);
    s.temperature = 0.8f;
    s.seed = 9;
    s.top_logprobs = 5;
    REQUIRE(!local_open(m, &o, &l, &err));
    REQUIRE(!local_feed(l, 1, tokens, 20, WANT_LOGITS, -1, NULL, NULL, &r, &err));
    float logits[BUILT_VOCABULARY];
    memcpy(logits, r.logits, sizeof logits);
    struct sampled want;
    REQUIRE(!sampler_pick(&s, logits, BUILT_VOCABULARY, tokens, 20, scratch, &want, &err));
    REQUIRE(!local_feed(l, 2, tokens, 20, WANT_TOKEN, -1, &s, NULL, &r, &err));
    CHECK_INT(r.sampled.chosen.token, want.chosen.token);
    CHECK_INT(r.sampled.top_count, 5);
    CHECK_NEAR(r.sampled.top[0].logprob, want.top[0].logprob, 0);
    local_close(l);
    model_close(m);
    mem_free(bytes);
}

static void bad_spans_are_refused(void)
{
    void *bytes;
    struct model *m = open_built(model_variant_find("llama"), TYPE_F32, &bytes);
    REQUIRE(m);
    struct stage_options o = {.last_block = 2, .kv_pages = 4, .max_tokens = 16, .max_context = 64};
    struct stage *s = NULL;
    struct error err = {0};
    struct span_result r;
    int32_t tokens[64] = {0};
    uint32_t pages[2] = {0, 1};
    REQUIRE(!stage_create(m, &o, &s, &err));
    const struct batch_span good = {.first = 0, .count = 4, .tokens = tokens, .pages = pages, .want = WANT_LOGITS};
    struct batch_span b = good;
    CHECK(!stage_forward(s, &b, 1, NULL, NULL, &r, &err));
    b.count = 0;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    b.count = 17;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_BOUND);
    b = good;
    b.first = 0xffffffffu;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    b = good;
    tokens[2] = BUILT_VOCABULARY;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    tokens[2] = -1;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    tokens[2] = 0;
    pages[0] = 4;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    pages[0] = 0;
    b.want = WANT_TOKEN;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    b.want = WANT_SCORES;
    b.next_token = BUILT_VOCABULARY;
    CHECK_INT(stage_forward(s, &b, 1, NULL, NULL, &r, &err), ERR_FORMAT);
    CHECK_INT(stage_forward(s, &b, 0, NULL, NULL, &r, &err), ERR_BOUND);
    stage_destroy(s);

    static const struct stage_options bad[] = {
        {.first_block = 2, .last_block = 1, .kv_pages = 1, .max_tokens = 1, .max_context = 1},
        {.last_block = 3, .kv_pages = 1, .max_tokens = 1, .max_context = 1},
        {.last_block = 2, .kv_pages = 0, .max_tokens = 1, .max_context = 1},
        {.last_block = 2, .kv_pages = 1, .max_tokens = 0, .max_context = 1},
        {.last_block = 2, .kv_pages = 1, .max_tokens = 1, .max_context = 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_INT(stage_create(m, &bad[i], &s, &err), ERR_USAGE);
    model_close(m);
    mem_free(bytes);
}

static int count_progress(void *context, uint64_t done, uint64_t total)
{
    uint64_t *seen = context;
    CHECK(done >= seen[0] && done <= total);
    seen[0] = done;
    seen[1] = total;
    return seen[2] && done >= seen[2];
}

static void memory_is_what_was_said(void)
{
    for (size_t i = 0; i < model_variant_count(); i += (size_t)check_step()) {
        void *bytes;
        struct model *m = open_built(model_variant_at(i), i % 2 ? TYPE_Q8_0 : TYPE_F32, &bytes);
        REQUIRE(m);
        uint64_t seen[3] = {0};
        uint32_t last = model_info(m)->blocks - 1;
        struct stage_options o = {.first_block = 0,
                                  .last_block = last,
                                  .kv_pages = 3,
                                  .max_tokens = 8,
                                  .max_context = 64,
                                  .progress = count_progress,
                                  .progress_context = seen};
        struct stage_memory need, used, first, rest;
        struct stage *s = NULL;
        struct error err = {0};
        stage_memory_need(m, &o, &need);
        REQUIRE(!stage_create(m, &o, &s, &err));
        stage_memory_used(s, &used);
        CHECK_INT(used.total, need.total);
        CHECK_INT(need.total, need.weights + need.embedding + need.head + need.kv + need.buffers);
        CHECK(seen[0] == seen[1] && seen[1] > 0);
        stage_destroy(s);

        o.keep_mapped = true;
        o.progress = NULL;
        REQUIRE(!stage_create(m, &o, &s, &err));
        stage_memory_used(s, &used);
        bool borrows = i % 2 == 0 && matrix_bytes(TYPE_F32, 64, 64) == 0; /* this level reads the file's own rows */
        CHECK(borrows ? used.total < need.total : used.total <= need.total);
        stage_destroy(s);
        o.keep_mapped = false;

        /* Two stages hold the same weights as one, a tied head twice. */
        o.last_block = 0;
        stage_memory_need(m, &o, &first);
        CHECK_INT(first.head, 0);
        o.first_block = 1;
        o.last_block = last;
        stage_memory_need(m, &o, &rest);
        CHECK_INT(rest.embedding, 0);
        CHECK_INT(first.weights + rest.weights, need.weights);
        CHECK_INT(first.kv + rest.kv, need.kv);
        CHECK_INT(first.embedding, need.embedding);
        CHECK(model_info(m)->tied_head ? rest.head > need.head : rest.head == need.head);
        uint64_t blocks = 0;
        for (uint32_t b = 0; b <= last; b++) {
            struct block_cost c = model_block_cost(m, b, KV_F16);
            blocks += c.weight_bytes;
            CHECK(c.read_bytes && c.flops_per_token && c.kv_bytes_per_token && c.attention_flops && c.kind <= b);
        }
        CHECK_INT(blocks, need.weights);

        /* Loading stops when asked to. */
        o = (struct stage_options){.last_block = last,
                                   .kv_pages = 3,
                                   .max_tokens = 8,
                                   .max_context = 64,
                                   .progress = count_progress,
                                   .progress_context = seen};
        seen[2] = seen[1] / 2;
        seen[0] = 0;
        CHECK_INT(stage_create(m, &o, &s, &err), ERR_CANCELLED);
        model_close(m);
        mem_free(bytes);
    }
}

static void count_passes(void *context, double seconds)
{
    CHECK(seconds > 0);
    ++*(int *)context;
}

static void probes_give_times(void)
{
    void *bytes;
    struct model *m = open_built(model_variant_find("mixtral"), TYPE_Q8_0, &bytes);
    REQUIRE(m);
    struct stage_options o = {.last_block = 2, .kv_pages = 4, .max_tokens = 40, .max_context = 128};
    struct stage *s = NULL;
    struct error err = {0};
    REQUIRE(!stage_create(m, &o, &s, &err));
    double blocks[3];
    int passes = 0;
    struct stage_times t = {.blocks = blocks};
    struct stage_probe p = {.last_block = 2,
                            .sequences = 1,
                            .tokens = 1,
                            .past = 100,
                            .ends = true,
                            .repeat = 3,
                            .between = count_passes,
                            .context = &passes};
    CHECK_INT(stage_probe(s, &p, &t), 0);
    CHECK_INT(passes, 4); /* one to warm up */
    CHECK(blocks[0] > 0 && blocks[1] > 0 && blocks[2] > 0 && t.head > 0 && t.embedding > 0 && t.rest > 0);
    p = (struct stage_probe){.first_block = 1, .last_block = 1, .sequences = 4, .tokens = 10, .repeat = 3};
    CHECK_INT(stage_probe(s, &p, &t), 0);
    p.sequences = 5;
    CHECK_INT(stage_probe(s, &p, &t), ERR_BOUND);
    p = (struct stage_probe){.first_block = 1, .last_block = 3, .sequences = 1, .tokens = 1, .repeat = 3};
    CHECK_INT(stage_probe(s, &p, &t), ERR_BOUND);
    p.last_block = 1;
    p.past = 128;
    CHECK_INT(stage_probe(s, &p, &t), ERR_BOUND);
    stage_destroy(s);
    model_close(m);
    mem_free(bytes);
}

static const struct check_test tests[] = {
    {"shared_and_copied_pages_serve_a_second_sequence", shared_and_copied_pages_serve_a_second_sequence},
    {"sampling_follows_from_logits", sampling_follows_from_logits},
    {"bad_spans_are_refused", bad_spans_are_refused},
    {"memory_is_what_was_said", memory_is_what_was_said},
    {"probes_give_times", probes_give_times},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    if (kernels_init(&err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
