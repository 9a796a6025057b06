/* What outlives an epoch on a worker: the bits of held pages, and the bounded store of rows, which a long random walk
 * compares with a plain model. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"
#include "execution/batch_rows.h"
#include "execution/held_pages.h"
#include "execution/left_pages.h"
#include "execution/micro_batch.h"

#define P KV_PAGE_TOKENS
enum { PAGES = 6, ROW = 8, VOCABULARY = 100, BLOCKS = 6 };

static int32_t text[8 * P];

static void fill_text(void)
{
    for (uint32_t i = 0; i < 8 * P; i++)
        text[i] = (int32_t)(hash_mix64(i) % VOCABULARY);
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

static void hashes_of(uint64_t seed, uint64_t out[static P])
{
    uint64_t hash = seed;
    for (uint32_t i = 0; i < P; i++)
        out[i] = hash = hash_token(hash, (int32_t)i);
}

static void put_page(struct kept_rows *k, uint32_t boundary, uint32_t page, uint64_t seed, uint32_t slot, uint32_t count)
{
    uint64_t hashes[P], rows[P];
    hashes_of(seed, hashes);
    for (uint32_t i = 0; i < count; i++)
        rows[i] = hashes[slot + i] ^ boundary;
    kept_rows_put(k, boundary, page, slot, count, hashes, rows);
}

/* Whether the whole page is there, with the right rows. */
static bool has_page(const struct kept_rows *k, uint32_t boundary, uint32_t page, uint64_t seed)
{
    uint64_t hashes[P];
    hashes_of(seed, hashes);
    const uint64_t *rows = kept_rows_get(k, boundary, page, hashes[P - 1]);
    for (uint32_t i = 0; rows && i < P; i++)
        CHECK(rows[i] == (hashes[i] ^ boundary));
    return rows != NULL;
}

static struct kept_rows *store(uint32_t boundary, uint32_t pages, uint64_t *page_bytes)
{
    struct kept_rows *k = NULL;
    struct error err = {0};
    if (kept_rows_create(PAGES, ROW, &k, &err)) {
        CHECK_FAIL("%s", err.text);
        return NULL;
    }
    kept_rows_begin(k, boundary, 1 << 20);
    put_page(k, boundary, 0, 1, 0, P);
    *page_bytes = kept_rows_bytes(k);
    CHECK(*page_bytes >= P * ROW && *page_bytes < P * ROW + 1024);
    kept_rows_begin(k, boundary, pages * *page_bytes);
    kept_rows_free(k);
    return k;
}

static void the_oldest_rows_go_first(void)
{
    uint64_t each;
    struct kept_rows *k = store(4, 3, &each);
    REQUIRE(k);
    for (uint32_t p = 0; p < 5; p++)
        put_page(k, 4, p, p + 1, 0, P);
    CHECK(kept_rows_bytes(k) == 3 * each);
    for (uint32_t p = 0; p < 5; p++)
        CHECK(has_page(k, 4, p, p + 1) == (p >= 2));
    CHECK(!has_page(k, 4, 3, 99)); /* of other tokens */
    CHECK(!has_page(k, 5, 3, 4));  /* over another boundary */
    kept_rows_destroy(k);
}

static void rows_without_a_beginning_are_not_kept(void)
{
    uint64_t each;
    struct kept_rows *k = store(4, 3, &each);
    REQUIRE(k);
    put_page(k, 4, 1, 7, 0, 5);
    CHECK(!has_page(k, 4, 1, 7));
    put_page(k, 4, 1, 7, 5, P - 5);
    CHECK(has_page(k, 4, 1, 7));
    put_page(k, 4, 2, 8, 3, P - 3); /* its first rows never came */
    CHECK(!has_page(k, 4, 2, 8));
    put_page(k, 4, 1, 9, 2, P - 2); /* another sequence goes on where these do not fit */
    CHECK(!has_page(k, 4, 1, 7) && !has_page(k, 4, 1, 9));
    CHECK(kept_rows_bytes(k) == each); /* page 0, of the store's making */
    kept_rows_destroy(k);
}

static void what_is_promised_stays(void)
{
    uint64_t each;
    struct kept_rows *k = store(4, 3, &each);
    struct control_held *list = NULL;
    uint32_t told = 0;
    REQUIRE(k);
    put_page(k, 4, 1, 2, 0, P);
    put_page(k, 4, 2, 3, 0, P);
    kept_rows_begin(k, 6, 3 * each); /* the stage's blocks have changed */
    int lists = kept_rows_list(k, 100, &list);
    for (int i = 0; i < lists; i++) {
        told += list[i].page_count;
        CHECK(!list[i].page_count || (list[i].first_block == 4 && list[i].last_block == 4));
    }
    CHECK_INT(told, 3);
    mem_free(list);
    put_page(k, 6, 3, 4, 0, P); /* no room beside them */
    CHECK(!has_page(k, 6, 3, 4));
    CHECK(has_page(k, 4, 0, 1) && has_page(k, 4, 1, 2) && has_page(k, 4, 2, 3));
    kept_rows_free(k);
    put_page(k, 6, 3, 4, 0, P);
    CHECK(has_page(k, 6, 3, 4) && !has_page(k, 4, 0, 1) && has_page(k, 4, 1, 2));
    kept_rows_begin(k, 6, 0); /* no memory is left for any */
    CHECK(kept_rows_bytes(k) == 0 && !has_page(k, 6, 3, 4));
    kept_rows_destroy(k);
}

/* Whatever comes: never over the limit, never other rows than were put. */
static void a_random_walk_keeps_its_bound(void)
{
    uint64_t each, state = 5, seeds[3][PAGES] = {{0}};
    struct kept_rows *k = store(1, 4, &each);
    REQUIRE(k);
    for (int i = 0; i < 20000; i++) {
        uint32_t lane = (uint32_t)(hash_mix64(++state) % 3), page = (uint32_t)(hash_mix64(++state) % PAGES);
        if (hash_mix64(++state) % 50 == 0) {
            kept_rows_begin(k, lane + 1, each * (hash_mix64(++state) % 5));
            for (uint32_t p = 0; p < PAGES; p++)
                if (hash_mix64(++state) % 2)
                    kept_rows_free(k);
        }
        seeds[lane][page] = 1 + hash_mix64(++state) % 4;
        put_page(k, lane + 1, page, seeds[lane][page], 0, P);
        CHECK(kept_rows_bytes(k) <= 4 * each);
        for (uint64_t s = 1; s < 5; s++)
            for (uint32_t p = 0; p < PAGES; p++)
                if (s != seeds[lane][p])
                    CHECK(!has_page(k, lane + 1, p, s));
    }
    kept_rows_destroy(k);
}

/* ---- Held pages, and micro-batches that leave blocks out --------------------------------------------------------- */

struct place {
    struct sequence_table *table;
    struct held_pages *held;
};

static bool place_open(struct place *p)
{
    struct error err = {0};
    return !sequence_table_create(4, 8 * P, PAGES, VOCABULARY, &p->table, &err) &&
           !held_pages_create(BLOCKS, PAGES, &p->held, &err);
}

static void place_close(struct place *p)
{
    sequence_table_destroy(p->table);
    held_pages_destroy(p->held);
}

/* One span of `text` on pages 0, 1, … of a stage of blocks first to last. */
static int apply(struct place *p, uint32_t first_block, uint32_t last_block, const struct frame_share *share,
                 uint32_t first, uint32_t end, struct error *err)
{
    static const uint32_t pages[PAGES] = {0, 1, 2, 3, 4, 5};
    struct frame_span span = {.sequence = 1,
                              .first = first,
                              .count = end - first,
                              .tokens = text,
                              .pages = pages,
                              .page_count = (end + P - 1) / P,
                              .hash = hash_tokens(HASH_TOKENS_START, text, end)};
    struct frame_work w = {.span_count = 1, .spans = &span, .tokens = end - first};
    struct batch_place place = {.table = p->table,
                                .held = p->held,
                                .first_block = first_block,
                                .last_block = last_block,
                                .share = share};
    struct batch_span out;
    return micro_batch_apply(&w, &place, &out, err);
}

static void blocks_that_come_later_are_behind(void)
{
    struct place p = {0};
    struct error err = {0};
    struct control_held *list = NULL;
    fill_text();
    REQUIRE(place_open(&p));
    held_pages_stage(p.held, 0, 2);
    CHECK_INT(apply(&p, 0, 2, NULL, 0, 2 * P + 3, &err), 0);
    sequence_release_all(p.table);
    held_pages_stage(p.held, 1, 4); /* blocks 3 and 4 are new, block 0 is gone */
    CHECK_INT(held_pages_list(p.held, p.table, 100, &list), 2);
    CHECK(list[0].first_block == 1 && list[0].last_block == 2 && list[0].page_count == 2);
    CHECK(list[1].first_block == 3 && list[1].last_block == 4 && list[1].page_count == 0);
    CHECK(list[0].pages[0] == 0 && list[0].pages[1] == 1);
    CHECK(list[0].hashes[1] == hash_tokens(HASH_TOKENS_START, text, 2 * P));
    mem_free(list);
    CHECK_INT(apply(&p, 1, 4, NULL, 2 * P, 2 * P + 1, &err), ERR_ORDER); /* nobody may build on that */
    CHECK(strstr(err.text, "not all blocks here hold page 0"));
    struct frame_share wrong = {.first_block = 2, .end_block = 4, .kept = true}, right = {3, 5, true, false};
    CHECK_INT(apply(&p, 1, 4, &wrong, 0, P, &err), ERR_ORDER); /* block 4 would stay behind */
    CHECK_INT(apply(&p, 1, 4, &right, 0, P - 1, &err), ERR_FORMAT);
    CHECK_INT(apply(&p, 1, 4, &right, 0, 2 * P, &err), 0);
    CHECK(held_pages_all(p.held, 0) && held_pages_all(p.held, 1) && !held_pages_all(p.held, 2));
    sequence_release_all(p.table);
    CHECK_INT(apply(&p, 1, 4, NULL, 2 * P, 2 * P + 1, &err), 0);
    place_close(&p);
}

static void shares_stay_within_their_stage(void)
{
    static const struct frame_share bad[] = {
        {0, 3, true, false}, {3, 6, true, false}, {2, 3, false, false}, {3, 4, true, true}, {4, 4, true, true}};
    struct place p = {0};
    struct error err = {0};
    fill_text();
    REQUIRE(place_open(&p));
    held_pages_stage(p.held, 1, 4);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_INT(apply(&p, 1, 4, &bad[i], 0, P, &err), ERR_FORMAT);
    struct frame_share pass = {1, 1, false, false};
    CHECK_INT(apply(&p, 1, 4, &pass, 0, P, &err), ERR_ORDER); /* it has nothing to pass over */
    place_close(&p);
}

static void what_failed_is_not_held(void)
{
    static const uint32_t pages[] = {0, 1};
    struct place p = {0};
    struct error err = {0};
    struct batch_span out;
    fill_text();
    REQUIRE(place_open(&p));
    held_pages_stage(p.held, 0, 1);
    struct frame_span span = {.sequence = 1, .count = 2 * P, .tokens = text, .pages = pages, .page_count = 2,
                              .hash = hash_tokens(HASH_TOKENS_START, text, 2 * P)};
    struct frame_work w = {.span_count = 1, .spans = &span, .tokens = 2 * P};
    struct batch_place place = {.table = p.table, .held = p.held, .last_block = 1};
    CHECK_INT(micro_batch_apply(&w, &place, &out, &err), 0);
    CHECK(held_pages_all(p.held, 0) && held_pages_all(p.held, 1));
    micro_batch_failed(&w, &place);
    CHECK(!held_pages_all(p.held, 0) && !held_pages_all(p.held, 1));
    place_close(&p);
}

/* A worker loses blocks 0 and 1, another one that holds block 2 takes them over. */
static void what_left_is_taken_over_by_its_hashes(void)
{
    struct place from = {0}, to = {0};
    struct left_pages *left = NULL;
    struct error err = {0};
    uint32_t filled;
    fill_text();
    REQUIRE(place_open(&from) && place_open(&to));
    held_pages_stage(from.held, 0, 2);
    held_pages_stage(to.held, 0, 3);
    CHECK_INT(apply(&from, 0, 2, NULL, 0, 2 * P + 5, &err), 0); /* pages 0 and 1 are whole, 2 is not */
    CHECK_INT(left_pages_create(from.held, from.table, 2, 2, &left), 0);
    uint64_t one = hash_tokens(HASH_TOKENS_START, text, P), two = hash_tokens(HASH_TOKENS_START, text, 2 * P);
    uint64_t hashes[P];
    const uint64_t *found = left_pages_find(left, 1, 1, two);
    REQUIRE(found);
    memcpy(hashes, found, sizeof hashes);
    /* Whatever the stage goes on to compute, what left is as it was. */
    sequence_clear(from.table);
    CHECK(left_pages_find(left, 1, 1, two) == found && found[P - 1] == two && found[0] == hash_token(one, text[P]));
    CHECK(left_pages_find(left, 0, 0, one) && !left_pages_find(left, 0, 0, two) && !left_pages_find(left, 2, 0, one));
    CHECK(!left_pages_find(left, 3, 0, one) && !left_pages_find(left, 0, 2, 0) && !left_pages_find(left, 0, PAGES, one));
    left_pages_destroy(left);
    /* One that knows nothing of these tokens learns them with the page. */
    CHECK(held_pages_lacks(to.held, to.table, 1, 1, two) && held_pages_adopt(to.held, to.table, 1, 1, hashes));
    CHECK(held_pages_has(to.held, 1, 1) && !held_pages_has(to.held, 0, 1) && !held_pages_lacks(to.held, to.table, 1, 1, two));
    CHECK(sequence_page(to.table, 1, &filled)[P - 1] == two && filled == P);
    /* Where a block holds something else in that place, nothing is taken. */
    hashes[P - 1]++;
    CHECK(!held_pages_lacks(to.held, to.table, 0, 1, hashes[P - 1]) && !held_pages_adopt(to.held, to.table, 0, 1, hashes));
    hashes[P - 1]--;
    CHECK(held_pages_adopt(to.held, to.table, 0, 1, hashes));
    CHECK(!held_pages_adopt(to.held, to.table, 4, 1, hashes) && !held_pages_adopt(to.held, to.table, 0, PAGES, hashes));
    place_close(&from);
    place_close(&to);
}

static const struct check_test tests[] = {
    {"what left is taken over by its hashes", what_left_is_taken_over_by_its_hashes},
    {"the oldest rows go first", the_oldest_rows_go_first},
    {"rows without a beginning are not kept", rows_without_a_beginning_are_not_kept},
    {"what is promised stays", what_is_promised_stays},
    {"a random walk keeps its bound", a_random_walk_keeps_its_bound},
    {"blocks that come later are behind", blocks_that_come_later_are_behind},
    {"shares stay within their stage", shares_stay_within_their_stage},
    {"what failed is not held", what_failed_is_not_held},
};

CHECK_MAIN(tests)
