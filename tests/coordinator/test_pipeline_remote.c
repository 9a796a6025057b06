/* The pipe's links against a stage of our own: one that does not know us yet, and one that is another process than it was. */
#include "tests/check.h"

#include <unistd.h>

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

/* Another process at the same place, once nobody else's connection has its port. */
static bool stage_again(struct stage *s)
{
    struct error err = {0};
    int64_t end = clock_ms() + check_patience_ms();
    int rc;
    link_close(s->data, 0);
    while ((rc = link_listen(s->hub, PLANE_DATA, s->endpoint, &s->data, &err)) == ERR_IO && clock_ms() < end)
        usleep(20000);
    if (rc) {
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
        link_send(s->data, &m.from, &(struct frame_part){header.data, header.size}, 1, NULL);
        buffer_free(&header);
        link_message_free(&m);
    }
}

struct pair {
    struct stage stage;
    struct node_key *key;
    struct hub *hub;
    struct rehearsal *rehearsal;
    struct pipeline *pipe;
};

/* A pipe of one stage, which lets us in or not yet. */
static bool pair_open(struct pair *p, bool allowed)
{
    struct error err = {0};
    *p = (struct pair){0};
    if (!stage_open(&p->stage))
        return false;
    if (key_generate(&p->key, &err) || hub_create(p->key, &p->hub, &err) ||
        rehearsal_create(p->hub, &p->rehearsal, &err)) {
        CHECK_FAIL("%s", err.text);
        return false;
    }
    if (allowed)
        stage_allow(&p->stage, key_public_text(p->key));
    const char *endpoint = p->stage.endpoint, *key = key_public_text(p->stage.key);
    struct remote_options o = {
        .hub = p->hub,
        .epoch = EPOCH,
        .rehearsal = p->rehearsal,
        .stages = 2, /* as far as the pipe cares */
        .first_endpoint = endpoint,
        .first_key = key,
        .last_endpoint = endpoint,
        .last_key = key,
    };
    CHECK_INT(pipeline_remote_create(&o, &p->pipe, &err), 0);
    return p->pipe;
}

static void pair_close(struct pair *p)
{
    pipeline_destroy(p->pipe);
    rehearsal_destroy(p->rehearsal);
    stage_close(&p->stage);
    hub_destroy(p->hub);
    key_free(p->key);
}

static bool attached(const struct pair *p)
{
    return pipeline_remote_attached(p->pipe, 0) && pipeline_remote_attached(p->pipe, 1);
}

/* Polls for so long, or until the stage has greeted back on both links. 0, or how the pipe broke. */
static int poll_for(struct pair *p, int ms, bool until_attached)
{
    struct link *links[PIPELINE_REMOTE_LINKS];
    bool ready[PIPELINE_REMOTE_LINKS];
    struct pipeline_result result;
    struct error err;
    int rc = 0;
    size_t count = pipeline_remote_links(p->pipe, links);
    for (int64_t end = clock_ms() + ms; !rc && clock_ms() < end && !(until_attached && attached(p));) {
        stage_answer(&p->stage);
        rc = pipeline_poll(p->pipe, &result, &err);
        int patience_ms = pipeline_remote_patience_ms(p->pipe);
        link_wait(links, count, NULL, patience_ms >= 0 && patience_ms < 10 ? patience_ms : 10, ready);
    }
    return rc;
}

static void a_stage_that_does_not_know_us_yet_is_asked_again(void)
{
    struct pair p;
    REQUIRE(pair_open(&p, false));
    /* Refused, several times over: a greeting does not leave, and that breaks nothing. */
    CHECK_INT(poll_for(&p, 1200, true), 0);
    CHECK(!pipeline_remote_attached(p.pipe, 0));
    CHECK(hub_refused(p.stage.hub) > 0);
    stage_allow(&p.stage, key_public_text(p.key));
    CHECK_INT(poll_for(&p, check_patience_ms(), true), 0);
    CHECK(attached(&p));
    pair_close(&p);
}

static bool up_again(struct link *l)
{
    return link_connections(l) == 2 && link_state(l, NULL, 0) == LINK_UP;
}

static void a_stage_that_came_back_unseen_is_lost(void)
{
    struct pair p;
    struct link *links[PIPELINE_REMOTE_LINKS];
    REQUIRE(pair_open(&p, true) && !poll_for(&p, check_patience_ms(), true));
    pipeline_remote_links(p.pipe, links);
    CHECK(link_connections(links[0]) == 1 && link_connections(links[1]) == 1);
    REQUIRE(stage_again(&p.stage));
    /* Nobody looks at the pipe until the stage is there again. */
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && !(up_again(links[0]) && up_again(links[1]));)
        stage_answer(&p.stage);
    CHECK(up_again(links[0]) && up_again(links[1]));
    CHECK_INT(poll_for(&p, check_patience_ms(), false), ERR_LOST);
    CHECK(pipeline_remote_lost(p.pipe) >= 0);
    pair_close(&p);
}

static void submit(struct pair *p, uint64_t microbatch)
{
    const int32_t token = 1;
    struct frame_span span = {.sequence = 1, .first = (uint32_t)microbatch, .known = (uint32_t)microbatch, .count = 1, .next_token = -1,
                              .tokens = &token};
    const struct frame_work work = {.microbatch = microbatch, .span_count = 1, .spans = &span, .tokens = 1};
    struct error err = {0};
    if (pipeline_submit(p->pipe, &work, &err))
        CHECK_FAIL("%s", err.text);
}

/* With one micro-batch in two stages one of them waits, and we rehearse; with none or two nobody would gain. */
static void we_rehearse_while_a_stage_waits(void)
{
    struct pair p;
    REQUIRE(pair_open(&p, true) && !poll_for(&p, check_patience_ms(), true));
    CHECK_INT(poll_for(&p, 50, false), 0);
    CHECK_INT((long long)rehearsal_count(p.rehearsal), 0);
    submit(&p, 1);
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && !rehearsal_count(p.rehearsal);)
        if (poll_for(&p, 20, false))
            break;
    CHECK(rehearsal_count(p.rehearsal) > 0);
    submit(&p, 2);
    CHECK_INT(poll_for(&p, 100, false), 0); /* one may still be under way */
    uint64_t before = rehearsal_count(p.rehearsal);
    CHECK_INT(poll_for(&p, 100, false), 0);
    CHECK_INT((long long)rehearsal_count(p.rehearsal), (long long)before);
    pair_close(&p);
}

static const struct check_test tests[] = {
    {"a stage that does not know us yet is asked again", a_stage_that_does_not_know_us_yet_is_asked_again},
    {"a stage that came back unseen is lost", a_stage_that_came_back_unseen_is_lost},
    {"we rehearse while a stage waits", we_rehearse_while_a_stage_waits},
};

int main(int argc, char **argv)
{
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
