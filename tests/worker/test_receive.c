/* A worker that lacks the file, and a coordinator that gives it chunk by chunk and keeps one back: what is there is laid out
 * while the rest is on its way. */
#include "tests/check.h"

#include "base/clock.h"
#include "engine/model/shelf.h"
#include "tests/worker/rig_main.h"
#include "weights/serve.h"

#define NAME "elsewhere.gguf" /* in no folder of the worker */
#define PATIENCE_MS 60000

/* What is given, and the one chunk that is not, until released. */
struct giver {
    struct model *model;
    struct manifest *list;
    struct link *link;
    uint32_t withheld;
    bool released;
    unsigned asked_withheld, given;
};

static bool send_frame(struct link *l, const struct weights_frame *f)
{
    struct buffer header = {0};
    struct error err = {0};
    int rc = weights_frame_encode(f, &header, &err);
    struct frame_part parts[2] = {{header.data, header.size}, {f->raw, f->raw_bytes}};
    if (!rc)
        rc = link_send(l, NULL, parts, f->raw_bytes ? 2 : 1, &err);
    buffer_free(&header);
    return !rc;
}

/* Answers what has been asked by now. */
static void give(struct giver *g)
{
    struct link_message in;
    while (link_receive(g->link, &in, NULL) == 1) {
        struct weights_frame f, reply;
        if (!weights_frame_decode(in.parts, in.part_count, &f, NULL)) {
            struct seed seed = {.whole = model_gguf(g->model), .layout = g->list};
            bool kept_back = f.kind == WEIGHTS_WANT && !f.manifest && f.index == g->withheld;
            g->asked_withheld += kept_back;
            if (!kept_back || g->released) {
                seed_answer(&seed, &f, &reply);
                g->given += send_frame(g->link, &reply);
            }
            weights_frame_free(&f);
        }
        link_message_free(&in);
    }
}

/* Serves until a message on the control plane is of that kind and epoch and, if progress, says so many bytes of the wanted.
 * False after PATIENCE_MS. */
static bool serve_until(struct giver *g, struct link *control, enum control_kind kind, uint64_t epoch, uint64_t done,
                        uint64_t total, struct control_message *out)
{
    for (int64_t end = clock_ms() + PATIENCE_MS; clock_ms() < end;) {
        struct link *links[2] = {g->link, control};
        struct link_message in;
        bool ready[2];
        link_wait(links, 2, NULL, 20, ready);
        give(g);
        while (link_receive(control, &in, NULL) == 1) {
            int rc = control_decode(in.parts[0].data, in.parts[0].size, out, NULL);
            link_message_free(&in);
            if (rc)
                continue;
            bool it_is = out->kind == kind && out->epoch == epoch;
            if (it_is && kind == CONTROL_PROGRESS)
                it_is = !strcmp(out->u.progress.what, "receiving weights") && out->u.progress.done == done &&
                        out->u.progress.total == total;
            if (out->kind == CONTROL_FAILURE && kind != CONTROL_FAILURE && out->epoch == epoch)
                CHECK_FAIL("%s", out->u.failure.text);
            control_free(out);
            if (it_is)
                return true;
        }
    }
    return false;
}

struct wanted {
    const struct gguf_tensor *last;
    uint64_t bytes;
};

static int add(void *context, const struct gguf_tensor *t)
{
    struct wanted *w = context;
    w->last = t;
    w->bytes += t->bytes;
    return 0;
}

/* The last tensor that a stage reads is kept back. When the worker says that all else has come, it waits for that one, so
 * all before it is laid out: stopped there and asked again, it reads the head alone. */
static void what_has_come_is_laid_out_while_the_rest_is_awaited(void)
{
    struct rig_worker w;
    struct giver g = {0};
    struct wanted wanted = {0};
    struct control_message m, welcome, hello = {.kind = CONTROL_HELLO};
    struct error err = {0};
    char cache[128], endpoint[64];
    uint32_t chunks;
    snprintf(cache, sizeof cache, "%s/cache", rig.folder);
    FINE(rig_start(&rig, &w, "bare", (const char *[]){"--cache", cache, NULL}));
    FINE(rig_claim(&rig, &w));
    REQUIRE(!model_open(rig.model_path, &g.model, &err) && !manifest_make(model_gguf(g.model), rig.fingerprint, NULL, NULL, &g.list, &err));
    REQUIRE(!model_slice(g.model, NULL, 0, RIG_BLOCKS - 1, add, &wanted));
    REQUIRE(!manifest_find(g.list, wanted.last, &g.withheld, &chunks) && chunks == 1);
    const struct gguf_tensor *head = gguf_tensor_find(model_gguf(g.model), "output.weight");
    REQUIRE(head && head != wanted.last); /* norm last: so the head is not whole without it */

    REQUIRE(rig_ask(w.control, &hello, &welcome, PATIENCE_MS));
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", welcome.u.welcome.weights_port);
    REQUIRE(!link_connect(rig.hub, PLANE_WEIGHTS, endpoint, w.key, &g.link, &err));
    struct weights_frame offer = {.kind = WEIGHTS_OFFER, .fingerprint = rig.fingerprint, .model = NAME};
    bool offered = false;
    for (int64_t end = clock_ms() + PATIENCE_MS; !offered && clock_ms() < end;) {
        bool ready;
        offered = link_state(g.link, NULL, 0) == LINK_UP && send_frame(g.link, &offer);
        if (!offered)
            link_wait(&g.link, 1, NULL, 10, &ready);
    }
    REQUIRE(offered);

    struct control_message load = rig_load_message(&rig, 1, 0, RIG_BLOCKS - 1, 0, 1);
    snprintf(load.u.load.model, sizeof load.u.load.model, NAME);
    load.request = 1;
    CHECK_INT(rig_say(w.control, &load), 0);
    REQUIRE(serve_until(&g, w.control, CONTROL_PROGRESS, 1, wanted.bytes - wanted.last->bytes, wanted.bytes, &m));
    CHECK(g.asked_withheld > 0 && g.given > RIG_BLOCKS);

    load.epoch = 2;
    load.request = 2;
    CHECK_INT(rig_say(w.control, &load), 0);
    g.released = true;
    REQUIRE(serve_until(&g, w.control, CONTROL_LOADED, 2, 0, 0, &m));
    CHECK_INT(m.u.loaded.read_bytes, head->bytes);
    CHECK(m.u.loaded.read_bytes < wanted.bytes / 2);
    CHECK_INT(rig_stop(&w, 5000), 0);
    link_close(g.link, 0);
    manifest_free(g.list);
    model_close(g.model);
}

static const struct check_test tests[] = {
    {"what has come is laid out while the rest is awaited", what_has_come_is_laid_out_while_the_rest_is_awaited},
};

int main(int argc, char **argv)
{
    return rig_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
