/* Rehearsals: a frame goes to and fro between two links of the same node while it waits, and only then. The clock that
 * rehearsals see is the test's, the links are real. */
#include "proto/rehearsal.h"
#include "tests/proto/link_nodes.h"

struct one { /* a node and its rehearsal */
    struct node node;
    struct rehearsal *r;
    struct link *links[REHEARSAL_LINKS];
    int64_t now_us; /* the rehearsal's clock */
};

static bool one_open(struct one *o)
{
    struct error err = {0};
    *o = (struct one){.now_us = 1000000};
    if (!node_open(&o->node))
        return false;
    if (rehearsal_create(o->node.hub, &o->r, &err))
        CHECK_FAIL("%s", err.text);
    return rehearsal_links(o->r, o->links) == REHEARSAL_LINKS;
}

static void one_close(struct one *o)
{
    rehearsal_destroy(o->r);
    node_close(&o->node);
}

static long long count(const struct one *o)
{
    return (long long)rehearsal_count(o->r);
}

/* Real time passes; the number of links that have something. */
static int wait_ms(struct one *o, int ms)
{
    bool ready[REHEARSAL_LINKS];
    return link_wait(o->links, REHEARSAL_LINKS, NULL, ms, ready);
}

/* Waits until so many frames have arrived or the real time is up, again and again, for the clock (a millisecond a look) runs
 * while a connection is made. */
static void rehearse(struct one *o, long long wanted)
{
    for (int64_t end = clock_ms() + check_patience_ms(); count(o) < wanted && clock_ms() < end;) {
        int again_ms;
        rehearsal_waits(o->r, o->now_us);
        while (count(o) < wanted && clock_ms() < end && (again_ms = rehearsal_look(o->r, o->now_us += 1000)) >= 0) {
            CHECK(again_ms >= 1);
            wait_ms(o, 1);
        }
    }
    CHECK(count(o) >= wanted);
}

static void a_frame_goes_to_and_fro_after_work(void)
{
    struct one o;
    REQUIRE(one_open(&o));
    CHECK_INT(rehearsal_look(o.r, o.now_us), -1); /* nothing was to be done yet */
    rehearse(&o, 6);                              /* three each way */
    CHECK_INT(hub_refused(o.node.hub), 0);
    one_close(&o);
}

static void it_stops_when_work_stops(void)
{
    struct one o;
    REQUIRE(one_open(&o));
    rehearse(&o, 2);
    rehearsal_waits(o.r, o.now_us);
    CHECK(rehearsal_look(o.r, o.now_us + 500) > 0);
    CHECK_INT(rehearsal_look(o.r, o.now_us + 1000000), -1); /* waited for too long to care */
    rehearsal_waits(o.r, o.now_us);
    rehearsal_rest(o.r);
    CHECK_INT(rehearsal_look(o.r, o.now_us + 5000), -1);
    /* One may still be under way; after it none comes. */
    for (int64_t end = clock_ms() + 100; clock_ms() < end;) {
        wait_ms(&o, 10);
        rehearsal_look(o.r, o.now_us + 10000);
    }
    long long before = count(&o);
    CHECK_INT(wait_ms(&o, 50), 0);
    CHECK_INT(rehearsal_look(o.r, o.now_us + 20000), -1);
    CHECK_INT(count(&o), before);
    one_close(&o);
}

/* Waits of 20 ms, then the same again: the frame is thrown shortly before the wait should end, not before. */
static void it_learns_when_frames_come(void)
{
    struct one o;
    REQUIRE(one_open(&o));
    rehearse(&o, 2);
    for (int wait = 0; wait < 3; wait++) {
        rehearsal_waits(o.r, o.now_us += 1000000);
        rehearsal_came(o.r, o.now_us += 20000);
    }
    long long before = count(&o);
    rehearsal_waits(o.r, o.now_us += 1000000);
    for (int ms = 1; ms <= 18; ms++) {
        CHECK(rehearsal_look(o.r, o.now_us + ms * 1000) >= 1);
        wait_ms(&o, 5); /* for a frame that should not be under way */
    }
    CHECK_INT(count(&o), before);
    for (int64_t end = clock_ms() + check_patience_ms(); count(&o) == before && clock_ms() < end;) {
        rehearsal_look(o.r, o.now_us + 19000);
        wait_ms(&o, 1);
    }
    CHECK_INT(count(&o), before + 1);
    one_close(&o);
}

/* The port is there for anybody to knock at. */
static void nobody_else_may_take_part(void)
{
    struct one o;
    struct node stranger;
    REQUIRE(one_open(&o) && node_open(&stranger));
    rehearse(&o, 1);
    struct link *l = dial(&stranger, PLANE_SELF, link_port(o.links[1]), public_of(&o.node));
    REQUIRE(l);
    CHECK(wait_state(l, NULL, LINK_REFUSED, 5000));
    CHECK(hub_refused(o.node.hub) > 0);
    link_close(l, 0);
    node_close(&stranger);
    one_close(&o);
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
