/* Who computes what of a page that only some stages hold: against every way there is, tried one by one. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/refill.h"

enum { BLOCKS = 7, PAGES = 4, PAGE = 2, HASH = 77, MOST_STAGES = 3 };

static uint64_t state;

static uint32_t below(uint32_t n)
{
    return (uint32_t)(hash_mix64(++state) % n);
}

struct scene {
    uint32_t count;
    struct cluster_stage stages[MOST_STAGES];
    bool held[BLOCKS], kept[MOST_STAGES][BLOCKS + 1]; /* rows into a block, on the stage's node */
};

static void draw(struct scene *s)
{
    memset(s, 0, sizeof *s);
    s->count = 1 + below(MOST_STAGES);
    for (uint32_t i = 0, at = 0; i < s->count; i++) {
        uint32_t left = BLOCKS - at - (s->count - 1 - i), take = i + 1 < s->count ? 1 + below(left) : left;
        s->stages[i] = (struct cluster_stage){i, at, at + take - 1};
        at += take;
    }
    for (uint32_t b = 0; b < BLOCKS; b++)
        s->held[b] = below(3);
    for (uint32_t i = 0; i < s->count; i++)
        for (uint32_t b = 1; b <= BLOCKS; b++)
            s->kept[i][b] = !below(4);
}

/* As the nodes would say it; rows of another sequence on the same page do not count. */
static struct refill *tell(const struct scene *s)
{
    struct refill *r = NULL;
    uint32_t page = PAGE, other = PAGE;
    uint64_t hash = HASH, wrong = HASH + 1;
    if (refill_create(BLOCKS, PAGES, &r, NULL))
        return NULL;
    for (uint32_t i = 0; i < s->count; i++) {
        struct control_held held[BLOCKS], kept[BLOCKS + 1];
        struct control_message m = {.kind = CONTROL_LOADED, .epoch = 5};
        for (uint32_t b = s->stages[i].first_block; b <= s->stages[i].last_block; b++)
            held[m.u.loaded.held_count++] =
                (struct control_held){b, b, 1, s->held[b] ? &page : &other, s->held[b] ? &hash : &wrong};
        for (uint32_t b = 1; b <= BLOCKS; b++)
            kept[m.u.loaded.kept_count++] = (struct control_held){b, b, 1, &page, s->kept[i][b] ? &hash : &wrong};
        m.u.loaded.held = held;
        m.u.loaded.kept = kept;
        refill_note(r, i, &m);
        m.epoch = 4; /* an old word comes late */
        m.u.loaded.held_count = 0;
        refill_note(r, i, &m);
    }
    refill_stages(r, 5, s->count, s->stages);
    return r;
}

/* Whether these shares make every block hold the page; *cost: blocks computed. */
static bool works(const struct scene *s, const struct frame_share *shares, uint32_t *cost)
{
    bool arrives = false;
    *cost = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct frame_share *share = &shares[i];
        uint32_t first = s->stages[i].first_block, end = s->stages[i].last_block + 1;
        bool computes = share->first_block < share->end_block;
        if (computes || share->send) {
            if (share->first_block < first || share->end_block > end || (share->send && share->end_block != end))
                return false;
            if (share->kept ? !s->kept[i][share->first_block]
                            : share->first_block != first || !computes || (i > 0 && !arrives))
                return false;
        }
        for (uint32_t b = first; b < end; b++)
            if (!s->held[b] && !(computes && b >= share->first_block && b < share->end_block))
                return false;
        if (share->send && i + 1 == s->count)
            return false;
        *cost += computes ? share->end_block - share->first_block : 0;
        arrives = share->send;
    }
    return true;
}

/* The fewest blocks by trying all shares of all stages. */
static uint32_t cheapest(const struct scene *s, struct frame_share *shares, uint32_t stage)
{
    uint32_t best = UINT32_MAX, cost;
    if (stage >= s->count || stage >= MOST_STAGES)
        return works(s, shares, &cost) ? cost : UINT32_MAX;
    uint32_t first = s->stages[stage].first_block, end = s->stages[stage].last_block + 1;
    for (uint32_t from = first; from <= end; from++)
        for (uint32_t to = from; to <= end; to++)
            for (int bits = 0; bits < 4; bits++) {
                shares[stage] = (struct frame_share){from, to, bits & 1, bits & 2};
                if (from == to && (bits & 1) != bits >> 1)
                    continue;
                cost = cheapest(s, shares, stage + 1);
                best = cost < best ? cost : best;
            }
    return best;
}

/* The busiest stage or link: where a block takes 2 s and 3 s and so on by stage, and a row 5 s. */
static void check_seconds(const struct scene *s, const struct refill *r, const struct frame_share *shares)
{
    struct refill_rates rates = {.block_seconds = {2, 3, 4}, .row_seconds = {5, 5, 5}};
    uint32_t pages[2] = {PAGE, PAGE};
    uint64_t hashes[2] = {HASH, HASH};
    double filled, computed, most = 0, all = s->count > 1 ? 2 * 10 * 5 : 0;
    for (uint32_t i = 0; i < s->count; i++) {
        double blocks = 20 * rates.block_seconds[i], busy = (shares[i].end_block - shares[i].first_block) * blocks,
               whole = (s->stages[i].last_block - s->stages[i].first_block + 1) * blocks;
        most = busy > most ? busy : most;
        most = shares[i].send && most < 100 ? 100 : most;
        all = whole > all ? whole : all;
    }
    refill_seconds(r, &rates, 10, pages, hashes, 2, &filled, &computed);
    CHECK(filled > most - 1e-6 && filled < most + 1e-6);
    CHECK(computed > all - 1e-6 && computed < all + 1e-6);
}

static void as_little_as_possible_is_computed(void)
{
    uint32_t verdicts[3] = {0};
    for (int i = 0; i < 1500; i++) {
        struct scene s;
        struct frame_share shares[MOST_STAGES], tried[MOST_STAGES];
        uint32_t cost, missing = 0;
        draw(&s);
        if (s.count == MOST_STAGES && i % 8)
            continue; /* trying all ways takes its time */
        struct refill *r = tell(&s);
        REQUIRE(r);
        for (uint32_t b = 0; b < BLOCKS; b++)
            missing += !s.held[b];
        enum refill_verdict verdict = refill_page(r, PAGE, HASH, shares);
        verdicts[verdict]++;
        CHECK((verdict == REFILL_WHOLE) == !missing);
        CHECK(works(&s, shares, &cost));
        CHECK_INT(cost, cheapest(&s, tried, 0));
        CHECK(verdict != REFILL_NOTHING || cost == BLOCKS);
        check_seconds(&s, r, shares);
        CHECK_INT(refill_page(r, PAGE + 1, HASH, shares), REFILL_NOTHING);
        CHECK_INT(refill_page(r, PAGE, HASH + 2, shares), REFILL_NOTHING);
        refill_destroy(r);
    }
    CHECK(verdicts[0] && verdicts[1] && verdicts[2]);
}

static const struct check_test tests[] = {
    {"as little as possible is computed", as_little_as_possible_is_computed},
};

CHECK_MAIN(tests)
