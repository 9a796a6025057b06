/* The pipe's links against a stage of our own: one that does not know us yet, and one that is another process than it was. */
#include "tests/check.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "coordinator/core/pipeline_remote.h"

#define EPOCH 7u

struct stage { /* a board with one stage */
    struct node_key *key;
    struct hub *hub;
    struct link *data;
    char endpoint[64];
};

static bool stage_open(struct stage *s)
{
    struct error err = {0};
    *s = (struct stage){0};
    if (key_generate(&s->key, &err) || hub_create(s->key, &s->hub, &err) ||
        link_listen(s->hub, PLANE_DATA, "tcp://127.0.0.1:*", &s->data, &err)) {
        CHECK_FAIL("%s", err.text);
        return false;
    }
    snprintf(s->endpoint, sizeof s->endpoint, "tcp://127.0.0.1:%d", link_port(s->data));
    return true;
}

static void stage_close(struct stage *s)
{
    link_close(s->data, 0);
    hub_destroy(s->hub);
    key_free(s->key);
}

static void stage_allow(struct stage *s, const char *key)
{
    CHECK_INT(hub_allow(s->hub, PLANE_DATA, &key, 1, NULL), 0);
}

/* Another process at the same place. */
static bool stage_again(struct stage *s)
{
    struct error err = {0};
    link_close(s->data, 0);
    if (link_listen(s->hub, PLANE_DATA, s->endpoint, &s->data, &err)) {
        CHECK_FAIL("%s", err.text);
        s->data = NULL;
    }
    return s->data;
}

/* Greets back whoever greets. */
static void stage_answer(struct stage *s)
{
    struct link_message m;
    while (link_receive(s->data, &m, NULL) > 0) {
        struct buffer header = {0};
        CHECK_INT(frame_encode_attached(EPOCH, 0, &header, NULL), 0);
        link_send(s->data, &m.from, &(struct link_part){header.data, header.size}, 1, NULL);
        buffer_free(&header);
        link_message_free(&m);
    }
}

/* Waits for that long, or as long as the links allow, for a pipe that is broken. 0: it is not. */
static int poll_for(struct pipeline *p, struct stage *s, int ms, bool until_attached, struct error *err)
{
    struct link *links[2];
    bool ready[2];
    struct pipeline_result result;
    int rc = 0;
    pipeline_remote_links(p, links);
    for (int64_t end = clock_ms() + ms; !rc && clock_ms() < end;) {
        stage_answer(s);
        rc = pipeline_poll(p, &result, err);
        if (until_attached && pipeline_remote_attached(p, 0) && pipeline_remote_attached(p, 1))
            break;
        link_wait(links, 2, NULL, 10, ready);
    }
    return rc;
}

static void a_stage_that_does_not_know_us_yet_is_asked_again(void)
{
    struct stage s;
    struct node_key *key;
    struct hub *hub;
    struct error err = {0};
    struct pipeline *p;
    REQUIRE(stage_open(&s) && !key_generate(&key, &err) && !hub_create(key, &hub, &err));
    struct remote_options o = {hub, EPOCH, s.endpoint, key_public_text(s.key), s.endpoint, key_public_text(s.key)};
    REQUIRE(!pipeline_remote_create(&o, &p, &err));
    /* Refused, several times over: a greeting does not leave, and that breaks nothing. */
    CHECK_INT(poll_for(p, &s, 1200, true, &err), 0);
    CHECK(!pipeline_remote_attached(p, 0));
    CHECK(hub_refused(s.hub) > 0);
    stage_allow(&s, key_public_text(key));
    CHECK_INT(poll_for(p, &s, check_patience_ms(), true, &err), 0);
    CHECK(pipeline_remote_attached(p, 0) && pipeline_remote_attached(p, 1));
    pipeline_destroy(p);
    stage_close(&s);
    hub_destroy(hub);
    key_free(key);
}

static bool up_again(struct link *l)
{
    return link_connections(l) == 2 && link_state(l, NULL, 0) == LINK_UP;
}

static void a_stage_that_came_back_unseen_is_lost(void)
{
    struct stage s;
    struct node_key *key;
    struct hub *hub;
    struct error err = {0};
    struct pipeline *p;
    REQUIRE(stage_open(&s) && !key_generate(&key, &err) && !hub_create(key, &hub, &err));
    stage_allow(&s, key_public_text(key));
    struct remote_options o = {hub, EPOCH, s.endpoint, key_public_text(s.key), s.endpoint, key_public_text(s.key)};
    REQUIRE(!pipeline_remote_create(&o, &p, &err));
    REQUIRE(!poll_for(p, &s, check_patience_ms(), true, &err));
    struct link *links[2];
    pipeline_remote_links(p, links);
    CHECK(link_connections(links[0]) == 1 && link_connections(links[1]) == 1);
    REQUIRE(stage_again(&s));
    /* Nobody looks at the pipe until the stage is there again. */
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && !(up_again(links[0]) && up_again(links[1]));)
        stage_answer(&s);
    CHECK(up_again(links[0]) && up_again(links[1]));
    CHECK_INT(poll_for(p, &s, check_patience_ms(), false, &err), ERR_LOST);
    CHECK(pipeline_remote_lost(p) >= 0);
    pipeline_destroy(p);
    stage_close(&s);
    hub_destroy(hub);
    key_free(key);
}

static const struct check_test tests[] = {
    {"a stage that does not know us yet is asked again", a_stage_that_does_not_know_us_yet_is_asked_again},
    {"a stage that came back unseen is lost", a_stage_that_came_back_unseen_is_lost},
};

int main(int argc, char **argv)
{
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
