/* The sequence table: what it accepts, what it refuses, and a long random walk against a plain model of pages. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"
#include "engine/model/sequence.h"

#define P KV_PAGE_TOKENS
#define VOCABULARY 1000

static struct sequence_table *table(uint32_t sequences, uint32_t context, uint32_t pages)
{
    struct sequence_table *t = NULL;
    struct error err = {0};
    if (sequence_table_create(sequences, context, pages, VOCABULARY, &t, &err))
        CHECK_FAIL("%s", err.text);
    return t;
}

static int32_t text[400];

static void fill_text(int32_t salt)
{
    for (int i = 0; i < 400; i++)
        text[i] = (int32_t)(hash_mix64((uint64_t)(i + salt * 1000)) % VOCABULARY);
}

static uint64_t hash_of(uint32_t n)
{
    return hash_tokens(HASH_TOKENS_START, text, n);
}

/* A span of `text` that names tokens from `known` on and gives the whole page table. */
static struct span_update span(uint32_t id, uint32_t known, uint32_t first, uint32_t end, const uint32_t *pages,
                               uint32_t count)
{
    return (struct span_update){.sequence = id,
                                .first = first,
                                .count = end - first,
                                .known = known,
                                .tokens = text + known,
                                .pages = pages,
                                .page_count = count,
                                .hash = hash_of(end)};
}

static int apply(struct sequence_table *t, struct span_update u, struct error *err)
{
    const struct sequence *s = NULL;
    int failed = sequence_apply(t, &u, &s, err);
    CHECK(failed || (s && s->length == u.first + u.count && s->hash == u.hash));
    return failed;
}

static void grows_chunk_by_chunk_and_token_by_token(void)
{
    struct sequence_table *t = table(4, 256, 16);
    struct error err = {0};
    const uint32_t pages[] = {3, 9, 1, 0};
    fill_text(1);
    CHECK_INT(apply(t, span(7, 0, 0, 50, pages, 2), &err), 0);
    CHECK_INT(apply(t, span(7, 50, 50, 60, pages, 2), &err), 0);
    for (uint32_t n = 60; n < 70; n++) {
        struct span_update u = span(7, n, n, n + 1, NULL, 0);
        u.page_offset = n < 64 ? 2 : 3;
        if (n == 64) { /* a new page comes with the token that needs it */
            u.page_offset = 2;
            u.pages = &pages[2];
            u.page_count = 1;
        }
        CHECK_INT(apply(t, u, &err), 0);
    }
    const struct sequence *s = sequence_find(t, 7);
    REQUIRE(s);
    CHECK_INT(s->length, 70);
    CHECK_INT(s->page_count, 3);
    CHECK(!memcmp(s->tokens, text, 70 * sizeof *text) && !memcmp(s->pages, pages, 3 * sizeof *pages));
    CHECK_INT(sequence_count(t), 1);
    sequence_release(t, 8);
    sequence_release(t, 7);
    CHECK_INT(sequence_count(t), 0);
    CHECK(!sequence_find(t, 7));
    sequence_table_destroy(t);
}

static void nonsense_is_refused_and_changes_nothing(void)
{
    struct sequence_table *t = table(2, 100, 8);
    struct error err = {0};
    const uint32_t pages[] = {0, 1, 2, 3, 4}, twice[] = {0, 1, 0}, beyond[] = {0, 1, 8};
    fill_text(2);
    REQUIRE(!apply(t, span(1, 0, 0, 40, pages, 2), &err));
    const struct sequence *s = sequence_find(t, 1);
    uint64_t before = s->hash;
#define REFUSE(code, ...)                                                                      \
    do {                                                                                       \
        struct span_update v_ = __VA_ARGS__;                                                   \
        err.text[0] = 0;                                                                       \
        CHECK_INT(apply(t, v_, &err), code);                                                   \
        CHECK(err.text[0]);                                                                    \
        CHECK(s->length == 40 && s->hash == before && s->page_count == 2 && s->pages[1] == 1); \
    } while (0)
    REFUSE(ERR_ORDER, span(1, 41, 41, 42, pages, 2));  /* a gap */
    REFUSE(ERR_ORDER, span(5, 3, 3, 4, pages, 1));     /* builds on a stranger */
    REFUSE(ERR_FORMAT, span(1, 40, 39, 42, pages, 2)); /* tokens begin after the span */
    REFUSE(ERR_BOUND, span(1, 40, 40, 40, pages, 2));  /* nothing */
    REFUSE(ERR_BOUND, span(1, 40, 40, 101, pages, 4)); /* over the context */
    REFUSE(ERR_FORMAT, span(1, 40, 40, 65, pages, 2)); /* too few pages */
    REFUSE(ERR_FORMAT, span(1, 40, 40, 41, pages, 5)); /* more pages than a context has */
    REFUSE(ERR_FORMAT, span(1, 40, 40, 65, twice, 3));
    REFUSE(ERR_FORMAT, span(1, 40, 40, 65, beyond, 3));
    struct span_update u = span(1, 40, 40, 41, pages, 2);
    u.hash ^= 1;
    REFUSE(ERR_ORDER, u);
    u = span(1, 40, 40, 41, pages, 2);
    u.page_offset = 3;
    REFUSE(ERR_ORDER, u);
    u = span(1, 40, 40, 41, pages, 2);
    u.tokens = NULL;
    REFUSE(ERR_FORMAT, u);
    u = span(1, 40, 40, 41, pages, 2);
    u.known = u.first = 0xffffffffu; /* first + count wraps in 32 bits */
    u.count = 5;
    REFUSE(ERR_BOUND, u);
    int32_t saved = text[40];
    text[40] = VOCABULARY;
    REFUSE(ERR_FORMAT, span(1, 40, 40, 41, pages, 2));
    text[40] = -1;
    REFUSE(ERR_FORMAT, span(1, 40, 40, 41, pages, 2));
    text[40] = saved;
    struct sampling sampling;
    sampling_default(&sampling);
    sampling.temperature = -2;
    u = span(1, 40, 40, 41, pages, 2);
    u.sampling = &sampling;
    REFUSE(ERR_USAGE, u);
    REQUIRE(!apply(t, span(2, 0, 0, 1, &pages[4], 1), &err));
    REFUSE(ERR_BOUND, span(3, 0, 0, 1, &pages[3], 1)); /* one sequence too many */
    CHECK_INT(sequence_count(t), 2);
    sequence_table_destroy(t);
}

static void pages_must_hold_the_tokens_they_are_said_to(void)
{
    struct sequence_table *t = table(8, 256, 16);
    struct error err = {0};
    const uint32_t a[] = {0, 1, 2}, b[] = {0, 1, 5}, c[] = {0, 6, 5};
    fill_text(3);
    REQUIRE(!apply(t, span(1, 0, 0, 80, a, 3), &err));
    /* A second sequence starts on the first two pages, by naming their tokens. */
    CHECK_INT(apply(t, span(2, 0, 64, 90, b, 3), &err), 0);
    /* Not on a page that was never written, nor in the middle of one beyond what it holds. */
    CHECK_INT(apply(t, span(3, 0, 64, 90, c, 3), &err), ERR_ORDER);
    CHECK(strstr(err.text, "page 6"));
    CHECK_INT(apply(t, span(3, 0, 81, 90, a, 3), &err), ERR_ORDER);
    CHECK_INT(apply(t, span(3, 0, 64, 90, (uint32_t[]){1, 0, 7}, 3), &err), ERR_ORDER);
    /* Nor under other tokens. */
    text[10]++;
    CHECK_INT(apply(t, span(3, 0, 64, 90, b, 3), &err), ERR_ORDER);
    text[10]--;
    /* The pages outlive the sequence that wrote them ... */
    sequence_release(t, 1);
    CHECK_INT(apply(t, span(4, 0, 64, 66, (uint32_t[]){0, 1, 7}, 3), &err), 0);
    /* ... until somebody writes other tokens there; who relied on them is refused from then on. */
    fill_text(4);
    REQUIRE(!apply(t, span(5, 0, 0, 40, (uint32_t[]){8, 1}, 2), &err));
    fill_text(3);
    struct span_update u = span(4, 66, 66, 67, NULL, 0);
    u.page_offset = 3;
    CHECK_INT(apply(t, u, &err), ERR_ORDER);
    CHECK(strstr(err.text, "page 1"));
    /* Replaying onto new pages heals it. */
    CHECK_INT(apply(t, span(4, 0, 32, 67, (uint32_t[]){0, 10, 11}, 3), &err), 0);
    sequence_clear(t);
    CHECK_INT(sequence_count(t), 0);
    CHECK_INT(apply(t, span(6, 0, 64, 66, a, 3), &err), ERR_ORDER);
    sequence_table_destroy(t);
}

static void copies_and_cuts(void)
{
    struct sequence_table *t = table(8, 256, 16);
    struct error err = {0};
    const uint32_t a[] = {0, 1};
    fill_text(5);
    REQUIRE(!apply(t, span(1, 0, 0, 50, a, 2), &err));
    CHECK_INT(sequence_page_copied(t, 1, 4, 19), ERR_ORDER); /* page 1 holds 18 */
    CHECK_INT(sequence_page_copied(t, 1, 16, 5), ERR_FORMAT);
    CHECK_INT(sequence_page_copied(t, 16, 1, 5), ERR_FORMAT);
    CHECK_INT(sequence_page_copied(t, 1, 4, 33), ERR_FORMAT);
    CHECK_INT(sequence_page_copied(t, 1, 4, 10), 0);
    CHECK_INT(apply(t, span(2, 0, 43, 45, (uint32_t[]){0, 4}, 2), &err), ERR_ORDER);
    CHECK_INT(apply(t, span(2, 0, 42, 45, (uint32_t[]){0, 4}, 2), &err), 0);

    /* Cut back, then go on with other tokens from there. */
    CHECK_INT(sequence_truncate(t, 9, 0), ERR_NOTFOUND);
    CHECK_INT(sequence_truncate(t, 1, 51), ERR_ORDER);
    CHECK_INT(sequence_truncate(t, 1, 45), 0);
    CHECK(sequence_find(t, 1)->length == 45 && sequence_find(t, 1)->hash == hash_of(45));
    text[45] ^= 1;
    struct span_update u = span(1, 45, 45, 46, NULL, 0);
    u.page_offset = 2;
    CHECK_INT(apply(t, u, &err), 0);
    /* A span may cut by itself: positions from 40 on anew. */
    text[40] ^= 1;
    u = span(1, 40, 40, 44, NULL, 0);
    u.page_offset = 2;
    CHECK_INT(apply(t, u, &err), 0);
    /* Slots after the rewritten ones are forgotten. */
    text[40] ^= 1;
    CHECK_INT(apply(t, span(3, 0, 44, 46, a, 2), &err), ERR_ORDER);
    /* Page 1 rewritten does not touch the copy. */
    text[45] ^= 1;
    CHECK_INT(apply(t, span(2, 45, 45, 46, (uint32_t[]){0, 4}, 2), &err), 0);
    sequence_table_destroy(t);
}

static void sampling_is_kept_until_replaced(void)
{
    struct sequence_table *t = table(2, 64, 4);
    struct error err = {0};
    struct sampling s;
    sampling_default(&s);
    s.temperature = 0.5f;
    s.seed = 11;
    fill_text(6);
    struct span_update u = span(1, 0, 0, 4, (uint32_t[]){0}, 1);
    u.sampling = &s;
    REQUIRE(!apply(t, u, &err));
    REQUIRE(!apply(t, span(1, 4, 4, 5, (uint32_t[]){0}, 1), &err));
    CHECK(sequence_find(t, 1)->sampling.seed == 11 && sequence_find(t, 1)->sampling.temperature == 0.5f);
    sequence_table_destroy(t);
}

/* ---- A random walk ------------------------------------------------------------------------------------------- */

/* The plain model: each page keeps the tokens from position 0 up to its last filled slot. */
struct plain {
    uint32_t length;
    int32_t tokens[160];
};

static bool plain_holds(const struct plain *p, const int32_t *tokens, uint32_t length)
{
    return p->length >= length && !memcmp(p->tokens, tokens, length * sizeof *tokens);
}

static void a_random_walk_agrees_with_a_plain_model(void)
{
    enum { CONTEXT = 150, PAGES = 12, SEQUENCES = 3 };
    struct sequence_table *t = table(SEQUENCES, CONTEXT, PAGES);
    static struct plain pages[PAGES];
    struct error err = {0};
    uint64_t state = 5;
    uint32_t accepted = 0, refused = 0;
    memset(pages, 0, sizeof pages);
    for (int round = 0; round < 40000; round++) {
        uint32_t id = (uint32_t)(hash_mix64(state++) % SEQUENCES), roll = (uint32_t)(hash_mix64(state++) % 20);
        const struct sequence *s = sequence_find(t, id);
        if (roll == 0) {
            sequence_release(t, id);
            continue;
        }
        if (roll == 1) {
            uint32_t src = (uint32_t)(hash_mix64(state++) % PAGES), dst = (uint32_t)(hash_mix64(state++) % PAGES);
            uint32_t count = (uint32_t)(hash_mix64(state++) % (P + 1));
            uint32_t filled = pages[src].length ? (pages[src].length - 1) % P + 1 : 0;
            bool can = count <= filled;
            CHECK_INT(sequence_page_copied(t, src, dst, count), can ? 0 : ERR_ORDER);
            if (can) {
                uint32_t start = pages[src].length - filled;
                struct plain copy = pages[src];
                copy.length = count ? start + count : 0;
                pages[dst] = copy;
            }
            continue;
        }
        if (roll == 2 && s) {
            CHECK_INT(sequence_truncate(t, id, (uint32_t)(hash_mix64(state++) % (s->length + 1))), 0);
            continue;
        }
        /* A span: mostly sensible; its tokens from one of two texts, its pages from a few lists. */
        fill_text((int32_t)(hash_mix64(state++) % 2) + 40);
        int32_t all[CONTEXT];
        uint32_t length = s ? s->length : 0;
        uint32_t first = roll < 12 ? length : (uint32_t)(hash_mix64(state++) % (length + 40));
        uint32_t known = roll < 8 ? first : (uint32_t)(hash_mix64(state++) % (first + 1));
        uint32_t count = 1 + (uint32_t)(hash_mix64(state++) % 40), end = first + count;
        if (end > CONTEXT)
            continue;
        for (uint32_t i = 0; i < end; i++)
            all[i] = i < known && i < length ? s->tokens[i] : text[i];
        uint32_t list[5], need = (end + P - 1) / P;
        for (uint32_t i = 0; i < 5; i++)
            list[i] = (uint32_t)((i + 4 * (hash_mix64(state) % 3)) % PAGES);
        state++;
        struct span_update u = {.sequence = id,
                                .first = first,
                                .count = count,
                                .known = known,
                                .tokens = all + known,
                                .pages = list,
                                .page_count = need,
                                .hash = hash_tokens(HASH_TOKENS_START, all, end)};
        bool want = known <= length && (s || known == 0);
        for (uint32_t i = 0; want && i * P < first; i++) {
            uint32_t upto = (i + 1) * P < first ? (i + 1) * P : first;
            want = plain_holds(&pages[list[i]], all, upto) && (pages[list[i]].length - 1) / P == i;
        }
        const struct sequence *out;
        int failed = sequence_apply(t, &u, &out, &err);
        if (!failed != want) {
            CHECK_FAIL("round %d: %d (%s), but it should %s", round, failed, err.text, want ? "pass" : "fail");
            break;
        }
        accepted += want;
        refused += !want;
        if (!want)
            continue;
        CHECK(out->length == end && !memcmp(out->tokens, all, end * sizeof *all));
        for (uint32_t i = first / P; i * P < end; i++) {
            uint32_t upto = (i + 1) * P < end ? (i + 1) * P : end;
            memcpy(pages[list[i]].tokens, all, upto * sizeof *all);
            pages[list[i]].length = upto;
        }
    }
    CHECK(accepted > 3000 && refused > 3000);
    sequence_table_destroy(t);
}

static const struct check_test tests[] = {
    {"grows_chunk_by_chunk_and_token_by_token", grows_chunk_by_chunk_and_token_by_token},
    {"nonsense_is_refused_and_changes_nothing", nonsense_is_refused_and_changes_nothing},
    {"pages_must_hold_the_tokens_they_are_said_to", pages_must_hold_the_tokens_they_are_said_to},
    {"copies_and_cuts", copies_and_cuts},
    {"sampling_is_kept_until_replaced", sampling_is_kept_until_replaced},
    {"a_random_walk_agrees_with_a_plain_model", a_random_walk_agrees_with_a_plain_model},
};
CHECK_MAIN(tests)
