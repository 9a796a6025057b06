/* Waiting for links: no message is missed, whatever else is done with a link meanwhile, and a bell ends it. */
#include <pthread.h>
#include <unistd.h>

#include "tests/proto/link_nodes.h"

/* A wait tells of each message, also of those that ZeroMQ took in while something else was done with the link, and a link
 * that may have nothing has nothing. */
static void a_wait_misses_nothing(void)
{
    struct node a, b;
    struct link *server, *client;
    REQUIRE(pair_open(&a, &b, PLANE_DATA, &server, &client));
    struct link_message m;
    CHECK_INT(say(client, NULL, "here"), 0);
    REQUIRE(receive(server, client, 5000, &m));
    struct link_peer to = m.from;
    link_message_free(&m);
    for (int round = 0; round < check_thin(400) && !check_failures; round++) {
        struct link *both[2] = {server, client};
        bool ready[2];
        CHECK_INT(link_receive(server, &m, NULL), 0);
        CHECK(!link_may_have(server));
        int count = 1 + round % 3;
        for (int i = 0; i < count; i++)
            CHECK_INT(say(client, NULL, "up"), 0);
        usleep((useconds_t)(round % 7) * 50); /* they are under way, or there */
        CHECK_INT(say(server, &to, "down"), 0);
        for (int i = 0; i < count; i++) {
            REQUIRE(link_wait(&server, 1, NULL, (int)check_patience_ms(), ready) == 1 && ready[0]);
            CHECK(link_may_have(server));
            REQUIRE(link_receive(server, &m, NULL) == 1);
            CHECK(says(&m, "up"));
            link_message_free(&m);
        }
        REQUIRE(link_wait(both, 2, NULL, (int)check_patience_ms(), ready) == 1 && !ready[0] && ready[1]);
        REQUIRE(link_receive(client, &m, NULL) == 1);
        CHECK(says(&m, "down"));
        link_message_free(&m);
        CHECK_INT(link_wait(both, 2, NULL, 0, ready), 0);
        CHECK(!link_may_have(server) && !link_may_have(client));
    }
    pair_close(&a, &b, server, client);
}

static void *ring_later(void *context)
{
    usleep(50000);
    waker_ring(context);
    return NULL;
}

static void a_bell_ends_a_wait(void)
{
    struct node a;
    struct waker *w = NULL;
    REQUIRE(node_open(&a) && !waker_create(&w, NULL));
    struct link *server = serve(&a, PLANE_CONTROL);
    REQUIRE(server);
    pthread_t thread;
    bool ready;
    pthread_create(&thread, NULL, ring_later, w);
    int64_t start = clock_ms();
    CHECK_INT(link_wait(&server, 1, w, 5000, &ready), 0);
    CHECK(clock_ms() - start < 2000);
    pthread_join(thread, NULL);
    start = clock_ms();
    CHECK_INT(link_wait(&server, 1, w, 100, &ready), 0); /* rung once, heard once */
    CHECK(clock_ms() - start >= 95);
    waker_destroy(w);
    link_close(server, 0);
    node_close(&a);
}

static const struct check_test tests[] = {
    {"a wait misses nothing", a_wait_misses_nothing},
    {"a bell ends a wait", a_bell_ends_a_wait},
};

CHECK_MAIN(tests)
