/* KV pages of blocks that another worker had, fetched from it instead of computing them again: asked for one by one, a few
 * at a time, over its weights plane; each proves by its hashes what it stands for. Whatever does not come (the other one is
 * gone, too slow, or holds something else) is left to the coordinator, which hears what is held. Compute thread. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "engine/kernels/ops.h"
#include "proto/weights_frame.h"
#include "worker/compute.h"

#define WINDOW 16u      /* pages asked for at once */
#define QUIET_MS 1500   /* an owner that says nothing for so long is not waited for */
#define LATE_MS 3000    /* nor one that has not come to this load for so long */
#define AGAIN_MS 10     /* it is asked again so often */
#define HASHES_BYTES (KV_PAGE_TOKENS * sizeof(uint64_t))

struct asked {
    uint32_t block, index; /* of the list of pages */
    bool open, again;
};

struct fetching {
    struct compute *c;
    const struct mail *job;
    const struct control_held *what;
    struct link *link;
    uint32_t block, index;  /* the next one to ask for */
    struct asked asked[WINDOW];
    uint32_t open;
    uint64_t pages, bytes;  /* that came */
    int64_t begun_ms, heard_ms, again_ms;
};

static int ask(struct fetching *f, const struct asked *a)
{
    const struct weights_frame want = {
        .kind = WEIGHTS_PAGE_WANT,
        .fingerprint = f->job->message.u.load.fingerprint,
        .epoch = f->job->message.epoch,
        .block = a->block,
        .page = f->what->pages[a->index],
        .hash = f->what->hashes[a->index],
        .kv_type = f->job->message.u.load.kv_type,
    };
    struct buffer header = {0};
    int rc = weights_frame_encode(&want, &header, NULL);
    if (!rc)
        rc = link_send(f->link, NULL, &(struct frame_part){header.data, header.size}, 1, NULL);
    buffer_free(&header);
    return rc;
}

/* The next page that is lacking here; false: there is none. */
static bool next_lacking(struct fetching *f, struct asked *out)
{
    const struct holding *h = &f->c->holding;
    for (; f->block <= f->what->last_block; f->block++, f->index = 0)
        for (; f->index < f->what->page_count; f->index++)
            if (held_pages_lacks(h->held, h->table, f->block, f->what->pages[f->index], f->what->hashes[f->index])) {
                *out = (struct asked){f->block, f->index++, true, false};
                return true;
            }
    return false;
}

/* As many as may be under way. */
static int ask_more(struct fetching *f, int64_t now)
{
    bool again = now - f->again_ms >= AGAIN_MS;
    if (again)
        f->again_ms = now;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct asked *a = &f->asked[i];
        bool was = a->open;
        if (was ? !a->again || !again : !next_lacking(f, a))
            continue;
        f->open += !was;
        a->again = false;
        int rc = ask(f, a);
        if (rc == ERR_BUSY)
            a->again = true;
        else if (rc)
            return rc;
    }
    return 0;
}

/* A page that was asked for: into its place, if it is what it must be. */
static void take_page(struct fetching *f, const struct asked *a, const struct weights_frame *page)
{
    struct holding *h = &f->c->holding;
    uint64_t hashes[KV_PAGE_TOKENS];
    uint32_t number = f->what->pages[a->index];
    if (page->raw_bytes <= HASHES_BYTES)
        return;
    memcpy(hashes, page->raw, HASHES_BYTES);
    size_t bytes = page->raw_bytes - HASHES_BYTES;
    if (hashes[KV_PAGE_TOKENS - 1] != f->what->hashes[a->index] ||
        !held_pages_lacks(h->held, h->table, a->block, number, hashes[KV_PAGE_TOKENS - 1]) ||
        stage_put_page(h->stage, a->block, number, (const char *)page->raw + HASHES_BYTES, bytes) ||
        !held_pages_adopt(h->held, h->table, a->block, number, hashes))
        return;
    f->pages++;
    f->bytes += bytes;
}

static void take_answer(struct fetching *f, const struct weights_frame *page, int64_t now)
{
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct asked *a = &f->asked[i];
        if (!a->open || a->block != page->block || f->what->pages[a->index] != page->page ||
            f->what->hashes[a->index] != page->hash)
            continue;
        f->heard_ms = now;
        if (page->soon && page->missing) {
            a->again = true;
            return;
        }
        if (!page->missing)
            take_page(f, a, page);
        a->open = false;
        f->open--;
        return;
    }
}

static void receive_all(struct fetching *f, int64_t now)
{
    struct link_message in;
    while (link_receive(f->link, &in, NULL) > 0) {
        struct weights_frame page;
        if (!weights_frame_decode(in.parts, in.part_count, &page, NULL)) {
            if (page.kind == WEIGHTS_PAGE && page.epoch == f->job->message.epoch)
                take_answer(f, &page, now);
            weights_frame_free(&page);
        }
        link_message_free(&in);
    }
}

/* Until all have come, or there is no use in waiting. */
static void run(struct fetching *f, int64_t *told_ms)
{
    uint64_t total = (uint64_t)(f->what->last_block - f->what->first_block + 1) * f->what->page_count;
    bool up = false;
    f->begun_ms = f->heard_ms = clock_ms();
    for (;;) {
        char text[8];
        int64_t now = clock_ms();
        enum link_state state = link_state(f->link, text, sizeof text);
        if (compute_progress(f->c, f->job, "KV pages", f->pages, total, told_ms) || (up && state != LINK_UP) ||
            now - f->heard_ms > QUIET_MS || (!f->pages && now - f->begun_ms > LATE_MS))
            return;
        up = state == LINK_UP;
        if (up && ask_more(f, now))
            return;
        if (up && !f->open)
            return;
        bool ready;
        link_wait(&f->link, 1, f->c->w->jobs.waker, AGAIN_MS, &ready);
        receive_all(f, clock_ms());
    }
}

uint64_t compute_fetch_pages(struct compute *c, const struct mail *job)
{
    uint64_t bytes = 0;
    int64_t told_ms = 0;
    for (uint32_t i = 0; i < job->message.u.load.fetch_count; i++) {
        const struct control_neighbour *from = &job->message.u.load.fetch_from[i];
        struct fetching f = {.c = c, .job = job, .what = &job->message.u.load.fetch[i],
                             .block = job->message.u.load.fetch[i].first_block};
        struct error err = {0};
        struct asked first;
        char text[UNITS_TEXT];
        if (!next_lacking(&f, &first))
            continue;
        f.block = f.what->first_block;
        f.index = 0;
        if (link_connect(c->w->hub, PLANE_WEIGHTS, from->endpoint, from->public_key, &f.link, &err)) {
            log_warn("no KV pages from \"%s\": %s", from->name, err.text);
            continue;
        }
        run(&f, &told_ms);
        link_close(f.link, 0);
        log_info("%llu KV pages of blocks %u-%u from \"%s\", %s in %lld ms", (unsigned long long)f.pages,
                 f.what->first_block, f.what->last_block, from->name, units_bytes_text(f.bytes, text),
                 (long long)(clock_ms() - f.begun_ms));
        bytes += f.bytes;
    }
    return bytes;
}
