/* Who is asked for what: windows, sources that come, go, lie and fall silent, in simulated time. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "weights/fetch.h"

static struct fetch *all_of(uint32_t chunks)
{
    struct fetch *f = NULL;
    if (fetch_create(chunks, &f, NULL))
        abort();
    for (uint32_t i = 0; i < chunks; i++)
        fetch_need(f, i);
    return f;
}

static void questions_go_in_order_and_to_all(void)
{
    struct fetch *f = all_of(100);
    int a = fetch_source(f), b = fetch_source(f), source, asked[2] = {0};
    uint32_t chunk, next = 0;
    CHECK(!fetch_next(f, 0, &source, &chunk)); /* nobody is known to have anything */
    CHECK(!fetch_hopeful(f));
    CHECK(!fetch_source_has(f, a, true, NULL, 0) && !fetch_source_has(f, b, true, NULL, 0));
    CHECK(fetch_hopeful(f));
    while (fetch_next(f, 0, &source, &chunk)) {
        CHECK_INT(chunk, next++);
        asked[source == b]++;
    }
    CHECK_INT(asked[0], FETCH_WINDOW);
    CHECK_INT(asked[1], FETCH_WINDOW);
    CHECK_INT(fetch_left(f), 100);
    fetch_need(f, 3); /* twice is once */
    CHECK_INT(fetch_left(f), 100);
    fetch_here(f, 99);
    CHECK(fetch_is_here(f, 99));
    CHECK_INT(fetch_left(f), 99);
    fetch_destroy(f);
}

/* A whole transfer over sources of different speeds and vices; returns the questions asked. */
static unsigned transfer(uint64_t seed, uint32_t chunks, unsigned sources)
{
    struct fetch *f = all_of(chunks);
    struct {
        int id;
        bool gone;
        uint32_t queue[FETCH_WINDOW + 1], count;
    } s[8];
    unsigned questions = 0;
    uint64_t r = hash_mix64(seed);
    for (unsigned i = 0; i < sources; i++) {
        s[i].id = fetch_source(f);
        s[i].gone = false;
        s[i].count = 0;
        uint8_t bits[64];
        for (size_t k = 0; k < sizeof bits; k++)
            bits[k] = (uint8_t)(r = hash_mix64(r));
        fetch_source_has(f, s[i].id, i == 0, i ? bits : NULL, i ? sizeof bits : 0); /* the first has all */
    }
    for (int64_t now = 0; fetch_left(f) && now < 3000000; now += 7) {
        int who;
        uint32_t chunk;
        fetch_tick(f, now);
        while (fetch_next(f, now, &who, &chunk)) {
            questions++;
            for (unsigned i = 0; i < sources; i++)
                if (s[i].id == who) {
                    if (s[i].count >= FETCH_WINDOW)
                        CHECK_FAIL("seed %llu: a window of more than %u", (unsigned long long)seed, FETCH_WINDOW);
                    else
                        s[i].queue[s[i].count++] = chunk;
                }
        }
        for (unsigned i = 0; i < sources; i++) {
            r = hash_mix64(r + i);
            if (i && !s[i].gone && r % 997 == 0) { /* unplugged */
                s[i].gone = true;
                s[i].count = 0;
                fetch_source_lost(f, s[i].id);
            } else if (i && r % 499 == 1) { /* forgets what it was asked */
                s[i].count = 0;
            } else if (s[i].count && r % (2 + i) == 0) {
                uint32_t c = s[i].queue[0];
                memmove(s[i].queue, s[i].queue + 1, --s[i].count * sizeof c);
                enum fetch_answer answer = i && r % 31 == 0 ? FETCH_DAMAGED : i && r % 37 == 0 ? FETCH_MISSING : FETCH_GOOD;
                if (fetch_answered(f, s[i].id, c, answer, now))
                    s[i].count = 0;
            }
        }
    }
    CHECK_INT(fetch_left(f), 0);
    for (uint32_t i = 0; i < chunks; i++)
        if (!fetch_is_here(f, i))
            CHECK_FAIL("seed %llu: chunk %u is missing", (unsigned long long)seed, i);
    fetch_destroy(f);
    return questions;
}

static void every_transfer_ends(void)
{
    CHECK_INT(transfer(1, 500, 1), 500); /* with one honest source, each is asked for once */
    for (uint64_t seed = 2; seed < 120; seed++) {
        unsigned questions = transfer(seed, 500, 1 + (unsigned)(seed % 6));
        if (questions < 500 || questions > 900)
            CHECK_FAIL("seed %llu: %u questions for 500 chunks", (unsigned long long)seed, questions);
    }
}

static void who_lies_is_not_asked_again(void)
{
    struct fetch *f = all_of(8);
    int a = fetch_source(f), source;
    uint32_t chunk;
    fetch_source_has(f, a, true, NULL, 0);
    for (unsigned i = 0; i < FETCH_DAMAGED_MAX; i++) {
        REQUIRE(fetch_next(f, 0, &source, &chunk));
        CHECK(fetch_answered(f, a, chunk, FETCH_DAMAGED, 0) == (i + 1 == FETCH_DAMAGED_MAX));
    }
    CHECK(!fetch_next(f, 0, &source, &chunk));
    CHECK(!fetch_hopeful(f));
    CHECK_INT(fetch_left(f), 8);
    int b = fetch_source(f);
    fetch_source_has(f, b, true, NULL, 0);
    CHECK(fetch_next(f, 0, &source, &chunk) && source == b && chunk == 0);
    CHECK(!fetch_answered(f, a, 5, FETCH_DAMAGED, 0)); /* nobody asked it */
    fetch_answered(f, a, 5, FETCH_GOOD, 0);            /* but proven bytes are welcome from anybody */
    CHECK(fetch_is_here(f, 5));
    CHECK(!fetch_answered(f, 77, 1, FETCH_GOOD, 0) && !fetch_answered(f, b, 1000, FETCH_GOOD, 0));
    fetch_destroy(f);
}

static void silence_sends_the_question_elsewhere(void)
{
    struct fetch *f = all_of(2);
    int a = fetch_source(f), b = fetch_source(f), source;
    uint32_t chunk;
    const uint8_t second = 2;
    fetch_source_has(f, a, true, NULL, 0);
    REQUIRE(fetch_next(f, 1000, &source, &chunk) && source == a && chunk == 0);
    fetch_source_has(f, b, true, NULL, 0);
    fetch_tick(f, 1000 + FETCH_SILENCE_MS - 1);
    REQUIRE(fetch_next(f, 2000, &source, &chunk) && source == b && chunk == 1);
    fetch_answered(f, b, 1, FETCH_GOOD, 3000);
    fetch_tick(f, 1000 + FETCH_SILENCE_MS);
    REQUIRE(fetch_next(f, 1000 + FETCH_SILENCE_MS, &source, &chunk));
    CHECK(source == b && chunk == 0);
    fetch_unsent(f, b, 0, 1000 + FETCH_SILENCE_MS); /* its queue is full: a moment later */
    CHECK(!fetch_next(f, 1000 + FETCH_SILENCE_MS, &source, &chunk));
    CHECK(fetch_next(f, 1001 + FETCH_SILENCE_MS, &source, &chunk) && source == b);
    fetch_answered(f, b, 0, FETCH_MISSING, 12000);
    CHECK(!fetch_next(f, 12000, &source, &chunk)); /* a rests, b lacks it */
    CHECK(fetch_hopeful(f));
    CHECK(fetch_next(f, 1000 + 2 * FETCH_SILENCE_MS, &source, &chunk) && source == a);
    fetch_source_lost(f, a);
    fetch_source_has(f, b, false, &second, 1); /* it has only chunk 1, which is here */
    CHECK(!fetch_hopeful(f) && fetch_left(f) == 1);
    fetch_destroy(f);
}

static void bounds_hold(void)
{
    struct fetch *f = all_of(1);
    for (unsigned i = 0; i < FETCH_SOURCES_MAX; i++)
        CHECK(fetch_source(f) >= 0);
    CHECK_INT(fetch_source(f), -1);
    CHECK_INT(fetch_source_has(f, -1, true, NULL, 0), 0);
    fetch_source_lost(f, -1);
    fetch_source_lost(f, 3);
    CHECK_INT(fetch_source(f), 3);
    fetch_need(f, 1);
    fetch_here(f, 1);
    CHECK_INT(fetch_left(f), 1);
    fetch_destroy(f);
    fetch_destroy(NULL);
    for (long k = 1; k <= 4; k++) {
        mem_fail_at(k);
        CHECK_INT(fetch_create(10, &f, NULL), ERR_NOMEM);
        mem_fail_at(0);
    }
}

static const struct check_test tests[] = {
    {"questions go in order and to all", questions_go_in_order_and_to_all},
    {"every transfer ends", every_transfer_ends},
    {"who lies is not asked again", who_lies_is_not_asked_again},
    {"silence sends the question elsewhere", silence_sends_the_question_elsewhere},
    {"bounds hold", bounds_hold},
};

CHECK_MAIN(tests)
