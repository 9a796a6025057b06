/* Rehearsals: a frame goes to and fro between two links of the same node while it waits, and only then. The clock that
 * rehearsals see is the test's, the links are real. */
#include "proto/rehearsal.h"
#include "tests/proto/link_nodes.h"

/* Looks until so many frames have arrived or the real time is up, a millisecond of the rehearsal's clock each time. */
static uint64_t look_until(struct rehearsal *r, int64_t *now_us, uint64_t count)
{
    struct link *links[REHEARSAL_LINKS];
    bool ready[REHEARSAL_LINKS];
    size_t n = rehearsal_links(r, links);
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && rehearsal_count(r) < count;) {
        *now_us += 1000;
        int again_ms = rehearsal_look(r, *now_us);
        if (again_ms < 0)
            break;
        CHECK(again_ms >= 1);
        link_wait(links, n, NULL, 1, ready);
    }
    return rehearsal_count(r);
}

static bool open_one(struct node *n, struct rehearsal **r)
{
    struct error err = {0};
    if (!node_open(n))
        return false;
    if (rehearsal_create(n->hub, r, &err))
        CHECK_FAIL("%s", err.text);
    return *r;
}

static void close_one(struct node *n, struct rehearsal *r)
{
    rehearsal_destroy(r);
    node_close(n);
}

/* Work that goes on for as long as it takes, for the clock runs while a connection is made. */
static void work(struct rehearsal *r, int64_t *now_us, uint64_t count)
{
    for (int64_t end = clock_ms() + check_patience_ms(); rehearsal_count(r) < count && clock_ms() < end;) {
        rehearsal_waits(r, *now_us);
        look_until(r, now_us, count);
    }
    CHECK(rehearsal_count(r) >= count);
}

static void a_frame_goes_to_and_fro_after_work(void)
{
    struct node n;
    struct rehearsal *r = NULL;
    int64_t now = 1000000;
    REQUIRE(open_one(&n, &r));
    CHECK_INT(rehearsal_look(r, now), -1); /* nothing was to be done yet */
    work(r, &now, 6);                      /* three each way */
    CHECK_INT(hub_refused(n.hub), 0);
    close_one(&n, r);
}

static void it_stops_when_work_stops(void)
{
    struct node n;
    struct rehearsal *r = NULL;
    struct link *links[REHEARSAL_LINKS];
    bool ready[REHEARSAL_LINKS];
    int64_t now = 1000000;
    REQUIRE(open_one(&n, &r));
    work(r, &now, 2);
    rehearsal_waits(r, now);
    CHECK(rehearsal_look(r, now + 500) > 0);
    CHECK_INT(rehearsal_look(r, now + 1000000), -1); /* waited for too long to care */
    rehearsal_waits(r, now);
    rehearsal_rest(r);
    CHECK_INT(rehearsal_look(r, now + 5000), -1);
    /* One may still be under way; after it none comes. */
    rehearsal_links(r, links);
    for (int64_t end = clock_ms() + 100; clock_ms() < end;) {
        link_wait(links, REHEARSAL_LINKS, NULL, 10, ready);
        rehearsal_look(r, now + 10000);
    }
    uint64_t before = rehearsal_count(r);
    CHECK_INT(link_wait(links, REHEARSAL_LINKS, NULL, 50, ready), 0);
    CHECK_INT(rehearsal_look(r, now + 20000), -1);
    CHECK_INT((long long)rehearsal_count(r), (long long)before);
    close_one(&n, r);
}

/* Waits of 20 ms, then the same again: the frame is thrown shortly before the wait should end, not before. */
static void it_learns_when_frames_come(void)
{
    struct node n;
    struct rehearsal *r = NULL;
    struct link *links[REHEARSAL_LINKS];
    bool ready[REHEARSAL_LINKS];
    int64_t now = 1000000;
    REQUIRE(open_one(&n, &r));
    work(r, &now, 2);
    rehearsal_links(r, links);
    for (int wait = 0; wait < 3; wait++) {
        rehearsal_waits(r, now += 1000000);
        rehearsal_came(r, now += 20000);
    }
    uint64_t before = rehearsal_count(r);
    rehearsal_waits(r, now += 1000000);
    for (int ms = 1; ms <= 18; ms++) {
        CHECK(rehearsal_look(r, now + ms * 1000) >= 1);
        link_wait(links, REHEARSAL_LINKS, NULL, 5, ready); /* for a frame that should not be under way */
    }
    CHECK_INT((long long)rehearsal_count(r), (long long)before);
    for (int64_t end = clock_ms() + check_patience_ms(); rehearsal_count(r) == before && clock_ms() < end;) {
        rehearsal_look(r, now + 19000);
        link_wait(links, REHEARSAL_LINKS, NULL, 1, ready);
    }
    CHECK_INT((long long)rehearsal_count(r), (long long)before + 1);
    close_one(&n, r);
}

/* The port is there for anybody to knock at. */
static void nobody_else_may_take_part(void)
{
    struct node n, stranger;
    struct rehearsal *r = NULL;
    struct link *links[REHEARSAL_LINKS];
    int64_t now = 1000000;
    REQUIRE(open_one(&n, &r) && node_open(&stranger));
    work(r, &now, 1);
    rehearsal_links(r, links);
    struct link *l = dial(&stranger, PLANE_SELF, link_port(links[1]), public_of(&n));
    REQUIRE(l);
    CHECK(wait_state(l, NULL, LINK_REFUSED, 5000));
    CHECK(hub_refused(n.hub) > 0);
    link_close(l, 0);
    node_close(&stranger);
    close_one(&n, r);
}

static void sleep_is_as_long_as_the_last_rehearsal_is_past(void)
{
    CHECK_INT(rehearsal_slept_us(800), 800);    /* too short for one */
    CHECK(rehearsal_slept_us(20000) < 3000);
    CHECK_INT(rehearsal_slept_us(2000000), 2000000); /* too long */
}

static void none_is_fine(void)
{
    struct link *links[REHEARSAL_LINKS];
    rehearsal_waits(NULL, 1);
    rehearsal_came(NULL, 1);
    rehearsal_rest(NULL);
    CHECK_INT(rehearsal_look(NULL, 2), -1);
    CHECK_INT((long long)rehearsal_links(NULL, links), 0);
    CHECK_INT((long long)rehearsal_count(NULL), 0);
    rehearsal_destroy(NULL);
}

static const struct check_test tests[] = {
    {"a frame goes to and fro after work", a_frame_goes_to_and_fro_after_work},
    {"it stops when work stops", it_stops_when_work_stops},
    {"it learns when frames come", it_learns_when_frames_come},
    {"nobody else may take part", nobody_else_may_take_part},
    {"sleep is as long as the last rehearsal is past", sleep_is_as_long_as_the_last_rehearsal_is_past},
    {"none is fine", none_is_fine},
};

CHECK_MAIN(tests)
