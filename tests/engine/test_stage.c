/* The product's promise, for every architecture: the same bits for any partition, any chunking of the prompt, any
 * company in the batch, any number of threads, any level of kernels. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/local.h"
#include "tests/engine/open_built.h"

#define TOKENS 70u /* of the prompt */
#define DECODED 3u

struct how {
    uint32_t stages;
    const uint32_t *split;
    uint32_t chunk;      /* 0: all at once */
    uint32_t max_tokens; /* 0: 80 */
    enum kv_type kv;
    struct pool *pool;
};

static uint32_t crc_of(const float *x, size_t n, uint32_t crc)
{
    return hash_crc32(crc, x, n * sizeof *x);
}

/* CRC over the score of every position of the prompt and the logits after it and after DECODED greedy tokens. */
static uint32_t run(const struct model *m, struct how how)
{
    struct local_options o = {.stages = how.stages,
                              .split = how.split,
                              .kv = how.kv,
                              .max_context = 128,
                              .max_tokens = how.max_tokens ? how.max_tokens : 80,
                              .pool = how.pool};
    struct local *l = NULL;
    struct error err = {0};
    struct span_result r;
    int32_t tokens[TOKENS];
    float scores[TOKENS];
    uint32_t crc = 0, vocabulary = model_info(m)->vocabulary;
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = model_built_token(i);
    if (local_open(m, &o, &l, &err)) {
        CHECK_FAIL("%s", err.text);
        return 0;
    }
    uint32_t chunk = how.chunk ? how.chunk : TOKENS;
    for (uint32_t at = 0, n; at + 1 < TOKENS; at += n) {
        n = TOKENS - 1 - at < chunk ? TOKENS - 1 - at : chunk;
        if (local_feed(l, 5, tokens + at, n, WANT_SCORES, tokens[at + n], NULL, scores + at, &r, &err)) {
            CHECK_FAIL("%s", err.text);
            goto done;
        }
    }
    crc = crc_of(scores, TOKENS - 1, crc);
    int32_t next = tokens[TOKENS - 1];
    for (uint32_t i = 0; i <= DECODED; i++) {
        if (local_feed(l, 5, &next, 1, WANT_LOGITS, -1, NULL, NULL, &r, &err)) {
            CHECK_FAIL("%s", err.text);
            goto done;
        }
        crc = crc_of(r.logits, vocabulary, crc);
        next = 0;
        for (uint32_t t = 1; t < vocabulary; t++)
            if (r.logits[t] > r.logits[next])
                next = (int32_t)t;
    }
done:
    local_close(l);
    return crc;
}

#define SAME(how, what, ...)                                                        \
    do {                                                                            \
        uint32_t crc_ = run(m, how);                                                \
        if (crc_ != want)                                                           \
            CHECK_FAIL("%s: %08x, not %08x, " what, name, crc_, want, __VA_ARGS__); \
    } while (0)

static void check_splits(const struct model *m, const char *name, enum kv_type kv, uint32_t want)
{
    uint32_t blocks = model_info(m)->blocks, split[64];
    if (blocks <= 5) { /* every composition of the blocks */
        for (uint32_t cuts = 1; cuts < 1u << (blocks - 1); cuts++) {
            uint32_t stages = 0, length = 1;
            for (uint32_t b = 0; b < blocks; b++, length++)
                if (b == blocks - 1 || cuts >> b & 1) {
                    split[stages++] = length;
                    length = 0;
                }
            SAME(((struct how){.stages = stages, .split = split, .kv = kv}), "cut %x", cuts);
        }
        return;
    }
    const uint32_t cuts[] = {1, blocks / 2, blocks - 1};
    for (int i = 0; i < 3; i++) {
        split[0] = cuts[i];
        split[1] = blocks - cuts[i];
        SAME(((struct how){.stages = 2, .split = split, .kv = kv}), "cut at %u", cuts[i]);
    }
    SAME(((struct how){.stages = blocks, .kv = kv}), "%u stages", blocks);
}

static void check_variant(const struct model_variant *v, uint32_t type, enum kv_type kv, struct pool *pool)
{
    void *bytes;
    struct model *m = open_built(v, type, &bytes);
    if (!m)
        return;
    char name[96];
    snprintf(name, sizeof name, "%s %s kv %d", v->name, type_name(type), (int)kv);
    uint32_t want = run(m, (struct how){.kv = kv});
    CHECK(want != 0);
    static const uint32_t chunks[] = {1, 7, 64};
    for (int i = 0; i < 3; i++)
        SAME(((struct how){.chunk = chunks[i], .kv = kv}), "chunks of %u", chunks[i]);
    SAME(((struct how){.max_tokens = 9, .kv = kv}), "micro-batches of %d", 9);
    SAME(((struct how){.pool = pool, .kv = kv}), "%d threads", pool_threads(pool));
    SAME(((struct how){.pool = pool, .kv = kv, .stages = 2, .chunk = 7}), "%d threads, 2 stages, chunks of 7",
         pool_threads(pool));
    check_splits(m, name, kv, want);
    model_close(m);
    mem_free(bytes);
}

static struct pool *two_threads(void)
{
    struct pool *pool = NULL;
    struct error err = {0};
    struct pool_options o = {.threads = 2};
    if (pool_create(&o, &pool, &err))
        CHECK_FAIL("%s", err.text);
    return pool;
}

static void every_architecture_is_invariant(void)
{
    struct pool *pool = two_threads();
    for (size_t i = 0; i < model_variant_count(); i += (size_t)check_step())
        check_variant(model_variant_at(i), TYPE_F32, KV_F16, pool);
    pool_destroy(pool);
}

static void quantised_weights_and_caches_are_invariant(void)
{
    static const uint32_t types[] = {TYPE_F16, TYPE_BF16, TYPE_Q8_0, TYPE_Q4_0, TYPE_Q5_1, TYPE_IQ4_NL};
    static const char *const names[] = {"llama", "mixtral", "gemma2", "deepseek3"};
    enum { TYPES = sizeof types / sizeof *types, NAMES = sizeof names / sizeof *names };
    struct pool *pool = two_threads();
    for (size_t i = 0; i < (size_t)TYPES * NAMES; i += (size_t)check_step())
        check_variant(model_variant_find(names[i % NAMES]), types[i / NAMES], i / NAMES % 2 ? KV_Q8 : KV_F16, pool);
    struct model_variant wide = *model_variant_find("llama"); /* blocks of 256 values */
    wide.width = 512;
    if (check_step() > 1)
        wide.blocks = 2;
    for (uint32_t type = TYPE_Q4_K; type <= TYPE_Q6_K; type += (uint32_t)check_step())
        check_variant(&wide, type, KV_F32, pool);
    pool_destroy(pool);
}

/* The types left: one model each, cut once, fed whole and in chunks, by one thread and two. */
static void every_other_type_is_invariant(void)
{
    static const uint32_t types[] = {TYPE_Q4_1,  TYPE_Q5_0,   TYPE_Q2_K,    TYPE_Q3_K,  TYPE_IQ4_XS,
                                     TYPE_TQ1_0, TYPE_TQ2_0,  TYPE_MXFP4,   TYPE_IQ1_S, TYPE_IQ1_M,
                                     TYPE_IQ2_S, TYPE_IQ2_XS, TYPE_IQ2_XXS, TYPE_IQ3_S, TYPE_IQ3_XXS};
    struct pool *pool = two_threads();
    struct model_variant small = *model_variant_find("llama");
    small.width = 256;
    small.blocks = 2;
    for (size_t t = 0; t < sizeof types / sizeof *types; t += (size_t)check_step()) {
        void *bytes;
        struct model *m = open_built(&small, types[t], &bytes);
        REQUIRE(m);
        const char *name = type_name(types[t]);
        void *float_bytes;
        struct model *f = open_built(&small, TYPE_F32, &float_bytes);
        REQUIRE(f);
        /* The matrices are of that type indeed. */
        CHECK(model_block_cost(m, 0, KV_F16).read_bytes < model_block_cost(f, 0, KV_F16).read_bytes / 2);
        uint32_t want = run(m, (struct how){0});
        CHECK(want != 0);
        SAME(((struct how){.chunk = 1}), "chunks of %d", 1);
        SAME(((struct how){.pool = pool, .stages = 2, .chunk = 7}), "2 stages, %d threads, chunks of 7", 2);
        model_close(f);
        mem_free(float_bytes);
        model_close(m);
        mem_free(bytes);
    }
    pool_destroy(pool);
}

static void every_level_of_kernels_agrees(void)
{
    struct error err = {0};
    const char *chosen = kernels_isa();
    for (size_t i = 0; i < model_variant_count(); i += (size_t)check_step()) {
        const uint32_t types[] = {TYPE_F32, TYPE_Q8_0, TYPE_Q4_0};
        for (size_t t = 0; t < 3; t++) {
            uint32_t want = 0;
            for (const char *const *level = kernels_levels(); *level; level++) {
                void *bytes;
                REQUIRE(!kernels_force(*level, &err));
                struct model *m = open_built(model_variant_at(i), types[t], &bytes);
                REQUIRE(m);
                uint32_t crc = run(m, (struct how){.chunk = 32});
                if (level == kernels_levels())
                    want = crc;
                else if (crc != want)
                    CHECK_FAIL("%s %s: %s gives %08x, scalar %08x", model_variant_at(i)->name, type_name(types[t]),
                               *level, crc, want);
                model_close(m);
                mem_free(bytes);
            }
        }
    }
    CHECK(!kernels_force(chosen, &err));
}

/* ---- Company ---------------------------------------------------------------------------------------------------- */

struct lane {
    uint32_t sequence, length, step, at;
    uint32_t pages[4];
    int32_t tokens[100];
    float scores[100];
};

static void fill_lane(struct lane *l, uint32_t sequence, uint32_t length, uint32_t step)
{
    *l = (struct lane){.sequence = sequence, .length = length, .step = step};
    for (uint32_t i = 0; i < length; i++)
        l->tokens[i] = model_built_token(sequence * 1000 + i);
    for (uint32_t i = 0; i < 4; i++)
        l->pages[i] = (sequence * 4 + 3 - i) % 16; /* pages in no particular order */
}

/* Steps all lanes together until each has had its length. */
static void run_lanes(const struct model *m, struct lane **lanes, uint32_t count, uint32_t stages, struct pool *pool)
{
    struct local_options o = {.stages = stages, .max_context = 128, .max_tokens = 100, .kv_tokens = 512, .pool = pool};
    struct local *l = NULL;
    struct error err = {0};
    if (local_open(m, &o, &l, &err)) {
        CHECK_FAIL("%s", err.text);
        return;
    }
    for (bool busy = true; busy;) {
        struct local_span spans[4];
        struct span_result results[4];
        struct lane *who[4];
        uint32_t n = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct lane *p = lanes[i];
            uint32_t left = p->length - p->at, take = left < p->step ? left : p->step;
            if (!take)
                continue;
            who[n] = p;
            spans[n++] =
                (struct local_span){.update = {.sequence = p->sequence,
                                               .first = p->at,
                                               .count = take,
                                               .known = p->at,
                                               .tokens = p->tokens + p->at,
                                               .page_offset = p->at ? 4 : 0,
                                               .pages = p->pages,
                                               .page_count = p->at ? 0 : 4,
                                               .hash = hash_tokens(HASH_TOKENS_START, p->tokens, p->at + take)},
                                    .want = WANT_SCORES,
                                    .next_token = p->at + take < p->length ? p->tokens[p->at + take] : -1};
        }
        busy = n > 0;
        if (busy && local_step(l, spans, n, results, &err)) {
            CHECK_FAIL("%s", err.text);
            break;
        }
        for (uint32_t i = 0; i < n; i++) {
            uint32_t take = spans[i].update.count;
            REQUIRE(results[i].scores);
            memcpy(who[i]->scores + who[i]->at, results[i].scores, take * sizeof(float));
            if (spans[i].next_token < 0)
                CHECK(results[i].scores[take - 1] == 0); /* nothing follows, nothing is scored */
            who[i]->at += take;
        }
    }
    local_close(l);
}

static void company_in_the_batch_changes_nothing(void)
{
    struct pool *pool = two_threads();
    for (size_t i = 0; i < model_variant_count(); i += (size_t)check_step()) {
        void *bytes;
        struct model *m = open_built(model_variant_at(i), TYPE_F32, &bytes);
        REQUIRE(m);
        struct lane alone[3], together[3];
        static const uint32_t lengths[] = {90, 33, 64}, steps[] = {31, 1, 5};
        for (uint32_t k = 0; k < 3; k++) {
            fill_lane(&alone[k], k + 1, lengths[k], 100);
            fill_lane(&together[k], k + 1, lengths[k], steps[k]);
            run_lanes(m, (struct lane *[]){&alone[k]}, 1, 1, NULL);
        }
        run_lanes(m, (struct lane *[]){&together[2], &together[0], &together[1]}, 3, 2, pool);
        for (uint32_t k = 0; k < 3; k++)
            if (memcmp(alone[k].scores, together[k].scores, lengths[k] * sizeof(float)))
                CHECK_FAIL("%s: sequence %u has other scores in company", model_variant_at(i)->name, k + 1);
        model_close(m);
        mem_free(bytes);
    }
    pool_destroy(pool);
}

static const struct check_test tests[] = {
    {"every_architecture_is_invariant", every_architecture_is_invariant},
    {"quantised_weights_and_caches_are_invariant", quantised_weights_and_caches_are_invariant},
    {"every_other_type_is_invariant", every_other_type_is_invariant},
    {"every_level_of_kernels_agrees", every_level_of_kernels_agrees},
    {"company_in_the_batch_changes_nothing", company_in_the_batch_changes_nothing},
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
